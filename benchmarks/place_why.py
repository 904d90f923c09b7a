"""Why cells are placed where they are: attributions, segments of an axis, trends and the hollow structure."""

import time

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

import cellweft

from common import DATA, write

TYPE, BINS = "Spinal cord", 11  # the paper divides the spinal cord's pseudo-time into segments


def main() -> None:
    cells = ad.read_h5ad(DATA / "embryo_benchmark_sc.h5ad")
    pair = cellweft.pair(cells, DATA / "embryo_benchmark_st.h5ad", labels="cell_type")
    placement = cellweft.Placer(preset="stem", seed=0).fit(pair).place()
    own = np.flatnonzero(pair.labels == TYPE)
    places = placement.coordinates()[own]
    axis = cellweft.tl.fit_axis(places, start=tuple(places.max(axis=0)))
    position = axis.position(places)
    segments = pd.qcut(position, BINS, labels=[f"segment {number:02d}" for number in range(1, BINS + 1)])
    segments = np.asarray(segments.astype(str))
    values = placement.values(own)
    text = f"# Why cells of the embryo's {TYPE.lower()} are placed where they are\n\n"
    text += f'{len(own)} cells placed by `preset="stem"`, seed 0; {BINS} segments of equal size along a '
    text += "polynomial of degree 5.\n\n"
    head = ["explained", "seconds", "largest relative gap", "median gap"]
    head += ["genes by attribution", "by expression", "by both"]
    text += "| " + " | ".join(head) + " |\n" + "| --- " * len(head) + "|\n"
    for what in ("product", "weight", "log weight"):
        start = time.perf_counter()
        why = cellweft.tl.attribute(placement, own, what=what)
        seconds = time.perf_counter() - start
        both = cellweft.tl.compare_with_expression(why, values, segments).table
        by = both.groupby("gene")["found_by"].agg(set)
        attributed = by.map(lambda found: bool(found & {"attribution", "both"}))
        expressed = by.map(lambda found: bool(found & {"expression", "both"}))
        text += (
            f"| {what} | {seconds:.0f} | {why.relative_gap.max():.2%} | {np.median(why.relative_gap):.2%} | "
        )
        text += f"{attributed.sum()} | {expressed.sum()} | {(attributed & expressed).sum()} |\n"
    trends = cellweft.tl.gene_trends(values, position, genes=placement.genes).table
    text += (
        f"\nGenes that vary along the axis (false discovery rate below .05): {(trends.fdr < 0.05).sum()} of "
    )
    text += f"{len(trends)}; the first: {', '.join(trends.gene.head(10))}.\n\n"
    pca = PCA(50, random_state=0).fit_transform(placement.values(slice(0, pair.sc.n_cells)))
    embedded = placement.cells.numpy()
    text += (
        "Hollow structure, the radius (in mean nearest-neighbour distances) that contains a tenth of the "
        "cells: "
    )
    of_stem, of_pca = map(cellweft.tl.radial_concentration, (embedded, pca))
    text += f"STEM's embedding {of_stem:.2f}, PCA of expression {of_pca:.2f}.\n"
    write("place_why", text)


if __name__ == "__main__":
    main()
