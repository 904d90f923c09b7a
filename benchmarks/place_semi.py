"""Semi-simulations: pseudo-spots over cells of known position; several tissues, resolutions, noise."""

import argparse

import anndata as ad
import numpy as np
import pandas as pd

import cellweft
from cellweft.data.synthetic.pseudospots import RESOLUTIONS, add_noise, pseudo_spots
from cellweft.evaluate.placement import evaluate_placement

from common import DATA, markdown, write

# file of cells with known places, labels that are not cell types
TISSUES = {
    "embryo 1 z5 (seqFISH, 351 genes)": ("seqfish_embryo_e1z5.h5ad", ["Low quality"]),
    "hypothalamus (MERFISH, 135 genes)": (
        "hypo_merfish_animal1_bregma-0.29_st.h5ad",
        ["Ambiguous", "Unstable"],
    ),
    "somatosensory cortex (osmFISH, 33 genes)": ("osmfish_ss_cortex_st.h5ad", []),
    "visual cortex (STARmap, 996 genes)": ("visp_starmap1020_st.h5ad", []),
}
METHODS = ["auto", "stem", "cosine", "knn-regression", "centre", "nnls"]
QUICK = ["auto:models=1", "stem", "cosine"]  # one encoder, for comparing many simulations
NOISE = (0.2, 0.4, 0.6, 0.8)
WANTED = [
    ("all cells", "location_error_mean"),
    ("caught cells", "location_error_mean_caught"),
    ("uncaught cells", "location_error_mean_uncaught"),
    ("all cells", "hits@25"),
    ("all types", "celltype_pcc"),
    ("major types", "celltype_pcc"),
    ("rare types", "celltype_pcc"),
]


def cells_of(name: str) -> ad.AnnData:
    """Return the cells of a tissue that have counts and a type."""
    file, junk = TISSUES[name]
    cells = ad.read_h5ad(DATA / file)
    labels = cells.obs["cell_type"].astype(str)
    kept = ~labels.isin([*junk, "nan"]).to_numpy() & (np.asarray(cells.X.sum(axis=1)).ravel() > 0)
    cells = cells[kept].copy()
    cells.obs["cell_type"] = labels[kept].astype("category")
    return cells


def spacing_for(cells: ad.AnnData, per_spot: float) -> float:
    """Return the grid spacing at which a square holds ``per_spot`` cells."""
    places = np.asarray(cells.obsm["spatial"])[:, :2]
    return float(np.sqrt(np.prod(np.ptp(places, axis=0)) / len(places) * per_spot))


def scores(
    cells: ad.AnnData, methods: list[str], *, spacing: float, seeds: range, noise: float | None = None
) -> tuple[pd.DataFrame, str]:
    """Return the summary over seeds, and the size of the simulation in words."""
    made = pseudo_spots(cells, spacing=spacing, labels="cell_type", caught=0.6, seed=0)
    placed = made.cells if noise is None else add_noise(made.cells, noise, seed=0)
    pair = cellweft.pair(placed, made.spots, labels="cell_type", coordinates="obsm:spatial")
    table = evaluate_placement(
        pair,
        methods,
        truth="obsm:spatial_true",
        truth_composition="obsm:composition",
        seeds=list(seeds),
        hits=(25,),
    )
    rows = (
        table[table["level"] == "summary"].groupby(["method", "item", "metric"], sort=False)["value"].mean()
    )
    columns = {
        f"{metric}, {item}": [rows.get((method, item, metric), np.nan) for method in methods]
        for item, metric in WANTED
    }
    said = f"{made.cells.n_obs:,} cells, {made.spots.n_obs:,} spots, "
    said += f"{made.spots.obs['n_cells'].median():.0f} cells in the median spot"
    return pd.DataFrame(columns, index=methods), said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["tissues", "resolutions", "noise", "kernels"])
    parser.add_argument("--seeds", type=int, default=1)
    asked = parser.parse_args()
    seeds = range(asked.seeds)
    text = f"# Semi-simulations: {asked.part}\n\nPseudo-spots of 60 % of the cells; {asked.seeds} seed(s). "
    text += "Location errors in the unit of each file.\n\n"
    if asked.part == "tissues":
        for name in TISSUES:
            cells = cells_of(name)
            found, said = scores(cells, METHODS, spacing=spacing_for(cells, 8), seeds=seeds)
            text += f"## {name}\n\n{said}\n\n{markdown(found)}\n\n"
    elif asked.part == "resolutions":
        cells = cells_of("hypothalamus (MERFISH, 135 genes)")
        for resolution in RESOLUTIONS:
            text += f"## Hypothalamus, spots {resolution} um apart\n\n"
            try:
                found, said = scores(cells, QUICK, spacing=resolution, seeds=seeds)
            except cellweft.errors.InputError as error:
                text += f"{error}\n\n"
                continue
            text += f"{said}\n\n{markdown(found)}\n\n"
    elif asked.part == "noise":
        cells = cells_of("embryo 1 z5 (seqFISH, 351 genes)")
        for level in NOISE:
            found, said = scores(cells, QUICK, spacing=spacing_for(cells, 8), seeds=seeds, noise=level)
            text += f"## Embryo 1 z5, noise R = {level}\n\n{said}\n\n{markdown(found)}\n\n"
    else:
        cells = cells_of("embryo 1 z5 (seqFISH, 351 genes)")
        kernels = ["sigma=0.25", "sigma=0.5", "sigma=1", "sigma=2", "kernel=exponential+sigma=0.25"]
        kernels += ["kernel=exponential+sigma=0.5", *(f"kernel=knn+kernel_neighbors={k}" for k in (4, 9))]
        found, said = scores(
            cells, [f"stem:{one}" for one in kernels], spacing=spacing_for(cells, 8), seeds=seeds
        )
        text += f"## Embryo 1 z5\n\n{said}\n\n{markdown(found)}\n\n"
    write(f"place_semi_{asked.part}", text, seeds=range(asked.seeds))


if __name__ == "__main__":
    main()
