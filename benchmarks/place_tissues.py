"""Placing on whole tissues: single-cell resolution, a whole transcriptome, three sections at once.

Each part runs in a separate process, so that time and peak memory are measured separately.
"""

import argparse
import json
import subprocess
import sys
import time

import anndata as ad
import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

import cellweft

from common import DATA, markdown, peak_of_this_process, write

PARTS = ("planes", "pdac", "molcart")
MARKERS = 10  # of a type


def placed(pair: cellweft.Pair, preset: str, seed: int) -> tuple[cellweft.Placement, float]:
    """Return a placement, and the seconds of fitting and of every output that `cellweft place` writes."""
    start = time.perf_counter()
    placement = cellweft.Placer(preset=preset, seed=seed).fit(pair).place()
    placement.to_anndata()
    if pair.labels is not None:
        placement.deconvolve()
    return placement, time.perf_counter() - start


def planes(preset: str, seed: int) -> dict[str, float]:
    """Return how well cells of plane z5 are placed on plane z2 of the same embryo, in shared coordinates."""
    cells, spots = (ad.read_h5ad(DATA / f"seqfish_embryo_e1{plane}.h5ad") for plane in ("z5", "z2"))
    good = [data[data.obs["cell_type"].astype(str) != "Low quality"].copy() for data in (cells, spots)]
    pair = cellweft.pair(*good, labels="cell_type", st_labels="cell_type")
    placement, seconds = placed(pair, preset, seed)
    true = np.asarray(good[0].obsm["spatial"])[:, :2]
    errors = np.linalg.norm(placement.coordinates() - true, axis=1) / pair.spacing
    centre = np.linalg.norm(pair.coordinates.mean(axis=0) - true, axis=1) / pair.spacing
    types = placement.transfer("cell_type", to="cells")
    return {
        "error, mean (cell spacings)": errors.mean(),
        "error, median": np.median(errors),
        "tissue centre, mean": centre.mean(),
        "own type found": float((types.idxmax(axis=1).to_numpy() == pair.labels).mean()),
        "seconds": seconds,
    }


def pdac(preset: str, seed: int) -> dict[str, float]:
    """Return how the composition of tumour spots agrees with the types' marker genes in the spots."""
    pair = cellweft.pair(DATA / "pdac_a_sc.h5ad", DATA / "pdac_a_st.h5ad", labels="cell_type")
    placement, seconds = placed(pair, preset, seed)
    found = placement.deconvolve()
    genes = pair.sc_shared
    cells = pair.sc.dense(slice(0, pair.sc.n_cells), genes)
    spots = pair.st.dense(slice(0, pair.st.n_cells), pair.st_shared)
    means = pd.DataFrame(cells).groupby(pair.labels).mean()
    agreement = {}
    for kind, own in means.iterrows():
        apart = own - means.drop(index=kind).max()  # difference from the highest other type
        markers = np.argsort(-apart.to_numpy())[:MARKERS]
        expressed = spots[:, markers].mean(axis=1)
        agreement[kind] = np.corrcoef(expressed, found[kind])[0, 1] if expressed.std() > 0 else np.nan
    values = pd.Series(agreement)
    print(values.round(2).to_string())
    return {
        "marker agreement, median": values.median(),
        "types with agreement above .2": float((values > 0.2).mean()),
        "seconds": seconds,
    }


def molcart(preset: str, seed: int) -> dict[str, float]:
    """Return whether cells placed on three sections at once stay within one section each."""
    pair = cellweft.pair(
        DATA / "mop_ref_10x_sc500.h5ad",
        DATA / "cortex_molcart100_st.h5ad",
        labels="subclass",
        slices="section",
    )
    placement, seconds = placed(pair, preset, seed)
    table = placement.table()
    outside = 0
    for name, rows in table.groupby("slice"):
        own = pair.coordinates[pair.slices == name]
        places = rows[["x", "y"]].to_numpy()
        outside += int(((places < own.min(axis=0)) | (places > own.max(axis=0))).any(axis=1).sum())
        spots = pd.Series(pair.slices, index=pair.st.obs_names)[rows["spot"]]
        outside += int((spots != name).sum())
    near = np.median(cKDTree(pair.coordinates).query(placement.coordinates())[0]) / pair.spacing
    counts = table["slice"].value_counts(normalize=True)
    return {
        "cells that leave their section": float(outside),
        "share in the smallest section": float(counts.min()),
        "distance to the nearest spot, median (spacings)": float(near),
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        part, preset = asked.one.split(":")
        found = {"planes": planes, "pdac": pdac, "molcart": molcart}[part](preset, asked.seed)
        found["peak memory, MB"] = peak_of_this_process() / 1e6
        print("RESULT " + pd.Series(found).to_json())
        return
    for part in asked.parts:
        rows, said = {}, ""
        for preset in ("auto", "stem"):
            command = [sys.executable, __file__, "--one", f"{part}:{preset}", "--seed", str(asked.seed)]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            *lines, last = output.strip().splitlines()
            rows[preset] = pd.Series(json.loads(last.removeprefix("RESULT ")))
            if lines:
                said += f"`{preset}`, by type:\n\n" + "\n".join(f"    {line}" for line in lines) + "\n\n"
        doc = {"planes": planes, "pdac": pdac, "molcart": molcart}[part].__doc__
        text = f"# Placing: {part}\n\n{doc.replace('Return h', 'H').replace('Return w', 'W')}\n\n"
        write(f"place_{part}", text + markdown(pd.DataFrame(rows).T) + "\n\n" + said)


if __name__ == "__main__":
    main()
