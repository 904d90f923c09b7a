"""How often the true position of a cell is within the radius given by `coordinates(interval=...)`."""

import argparse

import anndata as ad
import numpy as np
import pandas as pd
import torch

import cellweft
from cellweft.data.synthetic.pseudospots import pseudo_spots
from cellweft.nn.mapping import Mapping
from cellweft.place.locations import FLATTEN, encoder_mappings
from place_semi import TISSUES, cells_of, spacing_for

from common import DATA, markdown, write

LEVELS = (0.5, 0.8, 0.9, 0.95)
EMBRYO, PLANES = "embryo 1 z2, the paper's pseudo-spots", "embryo 1 z5 on z2, cells on cells"
CHOSEN_ON = ("hypothalamus", "somatosensory", "visual")
MOST_SPOTS = 1000  # spots that are placed like cells
THIRDS = ("high confidence", "medium confidence", "low confidence")


def data_of(name: str) -> tuple[cellweft.Pair, np.ndarray]:
    """Return a pair, and the true positions of its cells."""
    if name == EMBRYO:
        pair = cellweft.pair(DATA / "embryo_benchmark_sc.h5ad", DATA / "embryo_benchmark_st.h5ad")
        return pair, pair.sc.obs[["x_global", "y_global"]].to_numpy(dtype=float)
    if name == PLANES:
        cells, spots = (cells_of_plane(plane) for plane in ("z5", "z2"))
        return cellweft.pair(cells, spots), np.asarray(cells.obsm["spatial"])[:, :2]
    cells = cells_of(name)
    made = pseudo_spots(cells, spacing=spacing_for(cells, 8), labels="cell_type", caught=0.6, seed=0)
    pair = cellweft.pair(made.cells, made.spots, labels="cell_type", coordinates="obsm:spatial")
    return pair, np.asarray(made.cells.obsm["spatial_true"])


def cells_of_plane(plane: str) -> ad.AnnData:
    """Return the good cells of a plane of the embryo."""
    cells = ad.read_h5ad(DATA / f"seqfish_embryo_e1{plane}.h5ad")
    return cells[cells.obs["cell_type"].astype(str) != "Low quality"].copy()


def factor_of_spots(placed: cellweft.Placement, level: float) -> float:
    """Return the split-conformal factor of the radius from spots, each placed on the others."""
    model, n_encoders = placed.model, placed.model.settings.models
    drawn = np.random.default_rng(0).permutation(len(placed.spots))[:MOST_SPOTS]
    places = torch.from_numpy(placed.pair.coordinates).double()
    alone = torch.zeros(len(drawn), len(places)).double()
    together = torch.zeros_like(alone)
    with torch.no_grad():
        queries = model.queries(torch.from_numpy(placed.inputs[1].values(drawn)))
    mapping = Mapping(queries=queries, keys=placed.spots)
    for part in encoder_mappings(mapping, n_encoders, model.n_encoded, flatten=1.0):
        products = (part.queries @ part.keys.T).double()
        products[torch.arange(len(drawn)), torch.from_numpy(drawn)] = -torch.inf
        alone += torch.softmax(FLATTEN * products, dim=1) / n_encoders
        together += products / n_encoders
    found = torch.softmax(together, dim=1) @ places
    within = places.shape[1] * placed.pair.spacing**2 / 12
    apart = ((found[:, None] - places) ** 2).sum(dim=2).add(within).sqrt()
    ordered, order = apart.sort(dim=1)
    reached = (alone.gather(1, order).cumsum(dim=1) < level - 1e-9).sum(dim=1).clamp(max=len(places) - 1)
    radius = ordered.gather(1, reached[:, None])[:, 0]
    errors = (found - places[drawn]).norm(dim=1)
    return float(np.quantile((errors / radius).numpy(), level))


def coverage(name: str, *, preset: str, seed: int) -> pd.DataFrame:
    """Return a row per level: the share of cells within their radius, of all and by thirds of confidence."""
    pair, true = data_of(name)
    placed = cellweft.Placer(preset=preset, seed=seed).fit(pair).place()
    confidence = placed.table()["confidence"].rank(method="first", ascending=False).to_numpy()
    thirds = np.ceil(3 * confidence / len(confidence)).astype(int) - 1
    rows = {}
    for level in LEVELS:
        places, radius = placed.coordinates(interval=level)
        errors = np.linalg.norm(places - true, axis=1)
        inside = errors <= radius
        row = {"all": inside.mean()}
        row |= {third: inside[thirds == number].mean() for number, third in enumerate(THIRDS)}
        row["radius, median (spacings)"] = np.median(radius) / pair.spacing
        row["error, mean (spacings)"] = errors.mean() / pair.spacing
        factor = factor_of_spots(placed, level)
        row |= {"factor": factor, "all, calibrated": (errors <= factor * radius).mean()}
        rows[f"{level:g}"] = row
    return pd.DataFrame(rows).T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--preset", default="auto", choices=["auto", "stem"])
    asked = parser.parse_args()
    text = "# The radius of a place: how often it includes the true position\n\n"
    text += f'`coordinates(interval=...)` of `preset="{asked.preset}"`, mean of {asked.seeds} seed(s).\n'
    text += (
        "Rows: the requested level. Columns: the share of cells whose true place is within the radius, of\n"
    )
    text += (
        "all, and of each third by confidence. The last two: the factor that split-conformal calibration on\n"
    )
    text += "the spots gives (each placed on the others like a cell), and the share with that factor.\n\n"
    text += f"The weights are flattened by {FLATTEN:g}, chosen on the tissues marked *.\n\n"
    for name in (EMBRYO, PLANES, *TISSUES):
        found = [coverage(name, preset=asked.preset, seed=seed) for seed in range(asked.seeds)]
        table = markdown(sum(found) / len(found)).replace("| method |", "| level |", 1)
        print(f"{name}\n{table}", flush=True)
        text += f"## {name}{' *' if name.startswith(CHOSEN_ON) else ''}\n\n{table}\n\n"
    write("place_radius" if asked.preset == "auto" else f"place_radius_{asked.preset}", text)


if __name__ == "__main__":
    main()
