"""Genes of the panel compared with a held-out half of their counts: measured, predicted, blended.

Every count of the tissue is assigned at random to one of two halves. `auto` is fitted to one half; its genes
are compared with the other half, as logarithms normalised by the totals of that half, and as counts.
"""

import argparse

import anndata
import numpy as np
import pandas as pd

import cellweft
from cellweft import metrics

from common import DATA, PAIRS, markdown, write

MORE = {"molcart": ("mop_ref_10x_sc500.h5ad", "cortex_molcart100_st.h5ad", [])}
NAMES = ["osmfish", "hypothalamus-plain", "starmap", "molcart"]


def dense(matrix) -> np.ndarray:
    return np.asarray(matrix.toarray() if hasattr(matrix, "toarray") else matrix)


def scores(name: str, seed: int) -> dict[str, float]:
    """Return the median over genes of the correlation with the other half."""
    sc, st, options = (PAIRS | MORE)[name]
    whole = anndata.read_h5ad(DATA / st)
    counts = np.rint(dense(whole.X)).astype(np.int64)
    given = np.random.default_rng(seed).binomial(counts, 0.5)
    one, other = whole.copy(), whole.copy()
    one.X, other.X = given.astype(np.float32), (counts - given).astype(np.float32)
    size = options[1] if options else None
    pair, rest = (cellweft.pair(DATA / sc, side, size_factor=size) for side in (one, other))
    imputer = cellweft.Imputer(seed=seed).fit(pair, progress=False)
    genes = [str(gene) for gene in pair.shared_genes if gene in set(rest.shared_genes)]
    every, found = slice(0, pair.st.n_cells), {}
    places = [list(side.shared_genes).index(gene) for side in (pair, rest) for gene in genes]
    own, others = np.array(places).reshape(2, -1)
    columns = pair.st_shared[own], rest.st_shared[others]
    for scale in ("log", "counts"):
        read = (
            (lambda side, at: side.dense(every, at))
            if scale == "log"
            else (lambda side, at: dense(side.stored(every, at)))
        )
        measured, truth = read(pair.st, columns[0]), read(rest.st, columns[1])
        predicted, blended = (
            imputer.impute(genes, scale=scale, measured=how, progress=False)[:, genes].X
            for how in ("predict", "blend")
        )
        for label, values in (("measured", measured), ("predicted", predicted), ("blended", blended)):
            found[f"{label}, {scale}"] = float(np.median(metrics.pearson(truth, values)))
        better = metrics.pearson(truth, blended) > metrics.pearson(truth, measured)
        found[f"genes better than measured, {scale}"] = float(better.mean())
    print(name, seed, found, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="*", default=NAMES)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    seeds = range(asked.seeds)
    found = {name: pd.DataFrame([scores(name, seed) for seed in seeds]).mean() for name in asked.pairs}
    text = "# Genes of the panel against the other half of their counts\n\n"
    text += (
        "Pearson correlation, median over genes, mean over seeds; the last line of each scale is the share "
    )
    text += "of genes whose blend is better than their measurement:\n\n"
    write("denoised_panel", text + markdown(pd.DataFrame(found)), seeds=seeds)


if __name__ == "__main__":
    main()
