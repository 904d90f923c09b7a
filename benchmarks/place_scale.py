"""Time and memory of placing by number of cells and spots: fit, places, each cell's ten likeliest spots.

Tissues are simulated in blocks straight to disk. Every size runs in a separate process, so that time and peak
memory are measured separately.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

import cellweft

from common import markdown, peak_of_this_process, write

SIZES = ("10k x 1k", "100k x 10k", "1m x 100k")
N_GENES, BLOCK = 500, 20_000  # genes of both sides; cells that are simulated at once
N_TYPES, N_FIELDS = 20, 12
SPACING = 15.0  # um between spots


def simulate(path: Path, n_rows: int, *, extent: float, is_spatial: bool, seed: int) -> None:
    """Write counts of cells that are drawn from a tissue with smooth types and gradients, block by block."""
    tissue = np.random.default_rng(0)  # the same tissue for cells and spots
    waves = tissue.normal(0, 6.0, (N_FIELDS, 2))  # of the fields, in radians across the tissue
    shifts = tissue.uniform(0, 2 * np.pi, N_FIELDS)
    liking = tissue.normal(0, 1.5, (N_FIELDS, N_TYPES))  # how strongly types follow the fields
    of_types = tissue.normal(-1.2, 1.0, (N_TYPES, N_GENES))
    of_fields = tissue.normal(0, 0.4, (N_FIELDS, N_GENES)) * (tissue.random((N_FIELDS, N_GENES)) < 0.3)
    stream = np.random.default_rng([1, seed])
    places = stream.uniform(0, 1, (n_rows, 2))

    def block(start: int) -> sp.csr_matrix:
        here = places[start : start + BLOCK]
        fields = np.sin(here @ waves.T + shifts)
        noise = stream.gumbel(size=(len(here), N_TYPES))
        rates = of_types[(fields @ liking + noise).argmax(axis=1)] + fields @ of_fields
        counts = stream.poisson(np.exp(np.minimum(rates, 4.0)) * stream.gamma(5.0, 0.2, (len(here), 1)))
        return sp.csr_matrix(counts, dtype=np.float32)

    names = pd.Index([f"{'spot' if is_spatial else 'cell'}{number}" for number in range(n_rows)])
    genes = pd.DataFrame(index=[f"Gene{number:03d}" for number in range(N_GENES)])
    first = block(0)
    shell = ad.AnnData(
        sp.csr_matrix((n_rows, N_GENES), dtype=np.float32), obs=pd.DataFrame(index=names), var=genes
    )
    shell.obsm["spatial" if is_spatial else "spatial_true"] = places * extent
    shell.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        group = file["X"]
        for name, dtype in (("data", np.float32), ("indices", np.int32), ("indptr", np.int64)):
            del group[name]
            group.create_dataset(name, shape=(0,), maxshape=(None,), dtype=dtype, chunks=(2**18,))
        append(group["indptr"], np.zeros(1, np.int64))
        for start in range(0, n_rows, BLOCK):
            part = first if start == 0 else block(start)
            append(group["indptr"], part.indptr[1:].astype(np.int64) + len(group["data"]))
            append(group["data"], part.data)
            append(group["indices"], part.indices)


def append(data: h5py.Dataset, values: np.ndarray) -> None:
    """Write values at the end of a dataset."""
    data.resize(len(data) + len(values), axis=0)
    data[-len(values) :] = values


def measured(folder: Path, preset: str) -> dict[str, float]:
    """Return the seconds of every stage, the peak memory after it, and the accuracy of places."""
    found: dict[str, float] = {}
    start = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal start
        found[f"{stage}, s"] = time.perf_counter() - start
        found[f"peak after {stage}, GB"] = peak_of_this_process() / 1e9
        start = time.perf_counter()

    pair = cellweft.pair(folder / "sc.h5ad", folder / "st.h5ad")
    lap("pair")
    placer = cellweft.Placer(preset=preset)
    planned = placer.plan(pair=pair).peak_bytes
    placer.fit(pair)
    lap("fit")
    placed = placer.place()
    lap("place")
    places = placed.coordinates()
    lap("coordinates")
    placed.topk(10)
    lap("top 10")
    placed.table()
    lap("table")
    with h5py.File(folder / "sc.h5ad") as file:
        true = file["obsm/spatial_true"][:]
    errors = np.linalg.norm(places - true, axis=1)
    found["minutes, fit to top 10"] = (
        sum(found[f"{one}, s"] for one in ("fit", "place", "coordinates", "top 10")) / 60
    )
    found["planned peak, GB"] = planned / 1e9
    found["error, median (share of the tissue)"] = float(np.median(errors) / np.ptp(true))
    return found


def number(text: str) -> int:
    """Return a number such as 100k or 1m."""
    factor = {"k": 1000, "m": 1_000_000}.get(text[-1].lower(), 1)
    return int(float(text.rstrip("kKmM")) * factor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", default=list(SIZES), help="such as '100k x 10k': cells x spots")
    parser.add_argument("--preset", default="auto")
    parser.add_argument("--name", default="place_scale", help="of the table")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print("RESULT " + json.dumps(measured(asked.one, asked.preset)))
        return
    columns = {}
    for size in asked.sizes:
        n_cells, n_spots = (number(one) for one in size.lower().replace(" ", "").split("x"))
        with tempfile.TemporaryDirectory() as folder:
            extent = SPACING * n_spots**0.5
            simulate(Path(folder) / "sc.h5ad", n_cells, extent=extent, is_spatial=False, seed=1)
            simulate(Path(folder) / "st.h5ad", n_spots, extent=extent, is_spatial=True, seed=2)
            command = [sys.executable, __file__, "--one", folder, "--preset", asked.preset]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        result = output.strip().splitlines()[-1].removeprefix("RESULT ")
        columns[f"{n_cells:,} x {n_spots:,}"] = pd.Series(json.loads(result))
        print(columns[f"{n_cells:,} x {n_spots:,}"].round(2).to_string(), flush=True)
    table = pd.DataFrame(columns)
    text = (
        f"# Placing as data grow\n\n{__doc__}\n{N_GENES} genes, `preset={asked.preset!r}`, cells x spots.\n\n"
    )
    write(asked.name, text + markdown(table))


if __name__ == "__main__":
    main()
