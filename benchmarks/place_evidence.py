"""What the direct comparison of expression adds to the encoders of `preset="auto"`, by its weight."""

import argparse
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd

import cellweft
from cellweft.data.synthetic.pseudospots import pseudo_spots
from cellweft.metrics import composition_pcc, hits, location_errors
from place_radius import cells_of_plane
from place_semi import TISSUES, cells_of, spacing_for

from common import DATA, markdown, write

COUNTS = (0, 4, 8, 16)
PAPER, FEW = "embryo 1 z2, the paper's pseudo-spots", "embryo 1 z2, 9 cells in each of few spots"
N_FEW = 250


def data_of(name: str) -> tuple[cellweft.Pair, np.ndarray, pd.DataFrame]:
    """Return a pair, the true positions of its cells, and the true composition of the spots."""
    if name == PAPER:
        spots = ad.read_h5ad(DATA / "embryo_benchmark_st.h5ad")
        pair = cellweft.pair(DATA / "embryo_benchmark_sc.h5ad", spots, labels="cell_type")
        types = list(map(str, spots.uns["celltype_prop_names"]))
        true = pd.DataFrame(np.asarray(spots.obsm["celltype_prop"]), columns=types)
        return pair, pair.sc.obs[["x_global", "y_global"]].to_numpy(dtype=float), true
    cells = cells_of_plane("z2") if name == FEW else cells_of(name)
    spacing = spacing_for(cells, len(cells) / N_FEW if name == FEW else 8)
    caught = 9 * N_FEW / len(cells) if name == FEW else 0.6
    made = pseudo_spots(cells, spacing=spacing, labels="cell_type", caught=caught, seed=0)
    pair = cellweft.pair(made.cells, made.spots, labels="cell_type", coordinates="obsm:spatial")
    return pair, np.asarray(made.cells.obsm["spatial_true"]), made.spots.obsm["composition"]


def scores(
    placed: cellweft.Placement, true: np.ndarray, composition: pd.DataFrame | None
) -> dict[str, float]:
    """Return the errors of places, in spot spacings, and the other scores of a placement."""
    errors = location_errors(true, placed.coordinates()) / placed.pair.spacing
    near = placed.neighbors(25).indices.reshape(len(errors), 25)
    row = {
        "error, mean": errors.mean(),
        "error, median": np.median(errors),
        "hits@25": hits(true, near).mean(),
    }
    found = placed.deconvolve()
    both = [name for name in composition if name in found]
    row["composition"] = composition_pcc(composition[both].to_numpy(), found[both].to_numpy()).mean()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    text = (
        "# Direct comparison of expression and encoders\n\nOne fit per tissue; the same encoders, with the "
    )
    text += (
        "comparison weighted as this many counts per cell (`expression_counts`; 0: none; 8: the default). "
    )
    text += "Errors in spot spacings.\n\n"
    for name in (PAPER, FEW, *TISSUES):
        pair, true, composition = data_of(name)
        placer = cellweft.Placer(seed=seed).fit(pair)
        placed, rows = placer.place(), {}
        for counts in COUNTS:
            evidence = replace(placed.model.evidence, counts=counts)
            # only the cells' factor of the product depends on the counts
            cells = placed.cells.clone()
            cells[:, placed.model.n_encoded :] *= counts / placed.model.evidence.counts
            changed = replace(placed, model=replace(placed.model, evidence=evidence), cells=cells)
            rows[f"{counts} counts"] = scores(changed, true, composition)
        table = markdown(pd.DataFrame(rows).T).replace("| method |", "| |", 1)
        print(f"{name}\n{table}", flush=True)
        text += f"## {name}\n\n{table}\n\n"
    write("place_evidence", text, seeds=[seed])


if __name__ == "__main__":
    main()
