"""Accuracy lost by the coarse search for places, compared with all weights, on real and simulated tissue.

It is meant for many spots; here it is forced on tissues that are small enough for both.
"""

import argparse
import time

import anndata as ad
import numpy as np
import pandas as pd
import torch

import cellweft
from cellweft.nn.clustered_mapping import CoarseMapping, group_keys, make_mapping
from cellweft.nn.mapping import Mapping
from cellweft.place.locations import find_places
from place_radius import EMBRYO, PLANES, data_of

from common import DATA, write

HYPOTHALAMUS, SIMULATED = "hypothalamus", "simulated"
NAMES = {
    EMBRYO: 50,
    PLANES: 200,
    HYPOTHALAMUS: 200,
    SIMULATED: None,
}  # groups of spots; None takes the default
SPOTS, CELLS, COMPARED = 100_000, 20_000, 1000  # simulated; COMPARED cells are placed exactly


def pair_of(name: str) -> tuple[cellweft.Pair, np.ndarray]:
    """Return a pair, and the true positions of its cells."""
    if name == SIMULATED:
        made = cellweft.datasets.simulate_tissue(
            n_spatial=SPOTS, n_reference=CELLS, n_genes=500, n_panel=500, seed=0
        )
        return cellweft.pair(made.sc, made.st), np.asarray(made.sc.obsm["spatial_true"])
    if name == HYPOTHALAMUS:
        data = ad.read_h5ad(DATA / "hypo_merfish_animal1_bregma-0.29_st.h5ad")
        pair = cellweft.pair(data.copy(), data)
        return pair, pair.coordinates
    return data_of(name)


def compared(name: str, *, steps: int | None) -> pd.DataFrame:
    """Return the accuracy of places by all weights and by the coarse search, a row for each."""
    pair, true = pair_of(name)
    placer = cellweft.Placer(settings={} if steps is None else {"steps": steps})
    placed = placer.fit(pair).place()
    few = (
        np.arange(0, len(true), max(len(true) // COMPARED, 1)) if name == SIMULATED else np.arange(len(true))
    )
    start = time.perf_counter()
    exact = find_places(
        Mapping(queries=placed.cells[few], keys=placed.spots), pair.coordinates, spacing=pair.spacing
    )
    exact_time = (time.perf_counter() - start) / len(few)
    wide = find_places(
        Mapping(queries=placed.cells[few], keys=placed.spots),
        pair.coordinates,
        spacing=pair.spacing,
        heaviest=500,
    )
    start = time.perf_counter()
    if NAMES[name] is None:
        mapping = make_mapping(placed.cells, placed.spots)
    else:
        groups = group_keys(placed.cells, placed.spots, most=NAMES[name])
        mapping = CoarseMapping(queries=placed.cells, keys=placed.spots, groups=groups, most_visited=1.0)
    coarse = find_places(mapping, pair.coordinates, spacing=pair.spacing)
    coarse_time = (time.perf_counter() - start) / len(true)
    seen, mass = [], torch.zeros(len(true))
    for visit in mapping.visits():
        seen.append(len(visit.columns) * len(visit.rows))
        mass[visit.rows] = visit.weights[0].sum(dim=1)
    rows = {}
    reads = (
        ("all weights, medians of 500 spots", wide, slice(None)),
        ("all weights", exact, slice(None)),
        ("coarse", coarse, few),
    )
    for label, found, some in reads:
        errors = np.linalg.norm(found.median[some] - true[few], axis=1) / pair.spacing
        near = np.linalg.norm(found.mean[some] - true[few], axis=1) / pair.spacing
        rows[f"{name}, {label}"] = {
            "error, mean": errors.mean(),
            "error, median": np.median(errors),
            "within 3": (errors <= 3).mean(),
            "within 10": (errors <= 10).mean(),
            "error of C Y": near.mean(),
            "entropy": found.entropy[some].mean(),
        }
    moved = np.linalg.norm(coarse.median[few] - exact.median, axis=1) / pair.spacing
    moved_mean = np.linalg.norm(coarse.mean[few] - exact.mean, axis=1) / pair.spacing
    rows[f"{name}, coarse"] |= {
        "spots seen": sum(seen) / len(true) / len(placed.spots),
        "weight seen": float(mass.mean()),
        "top 10 found": shared(coarse.spots[few, :10], exact.spots[:, :10]),
        "top 64 found": shared(coarse.spots[few], exact.spots),
        "weights, log ratio": float(np.abs(np.log(coarse.weights[few, 0] / exact.weights[:, 0])).mean()),
        "moved, mean": moved.mean(),
        "C Y moved, mean": moved_mean.mean(),
        "time, ratio": coarse_time / exact_time,
    }
    return pd.DataFrame(rows).T


def shared(found: np.ndarray, true: np.ndarray) -> float:
    """Return the mean share of the spots of every row that were found."""
    return float(
        np.mean([len(np.intersect1d(*rows)) / len(rows[0]) for rows in zip(found, true, strict=True)])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(NAMES))
    parser.add_argument("--steps", type=int, help="steps of each encoder, fewer to try")
    asked = parser.parse_args()
    table = pd.concat([compared(name, steps=asked.steps) for name in asked.names])
    text = f"# Placing by a coarse search\n\n{__doc__}\n"
    text += "Distances in spot spacings. `seen` is what the search compared spot by spot; the rest is\n"
    text += "estimated by groups. If there are few spots, as many are seen as requested; of the simulated "
    text += "ones, at most a quarter. One fit each; all results are from the same encoders.\n\n"
    write("place_coarse", text + shown(table))


def shown(table: pd.DataFrame) -> str:
    """Return the transposed table, to four digits."""
    head = ["", *table.index]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for name, row in table.T.iterrows():
        lines.append(
            "| " + " | ".join([name, *("" if np.isnan(one) else f"{one:.4g}" for one in row)]) + " |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
