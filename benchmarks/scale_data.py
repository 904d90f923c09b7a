"""Simulated data of realistic shape and sparsity, written in blocks, for benchmarks with millions of cells.

`tonsil` has the shape of the Xenium tonsil and its reference: cells x 377 genes of which 16 % of the values
are not zero, and 26,717 x 33,551 with 5 %. Counts are negative binomial around types, gene programs across
the types, cell sizes, and a factor per gene and platform; all 377 genes are measured, and ``var["held_out"]``
marks 77 of them to be held out. `placing` has cells and spots of 500 genes in one tissue, and each cell's
true position. An existing file of the same name is reused. Memory is bounded and the distribution the same
for any number of cells.
"""

import argparse
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import settings
from anndata.io import write_elem

Form = Literal["h5ad", "dense", "zarr2", "zarr3"]
FORMS = ("h5ad", "dense", "zarr2", "zarr3")

TONSIL_CELLS = 1_349_620
REFERENCE, GENES, PANEL, HELD_OUT = 26_717, 33_551, 377, 77
N_TYPES, N_PROGRAMS, N_DOMAINS = 14, 8, 6
PITCH = 9.0  # um between cells
BLOCK_VALUES = 12_000_000  # values that are drawn at once: about 400 MB of work
CHUNK = 2**15  # values of a chunk on disk, about h5py's default for such files
NOISE_SHAPE = 3.0  # of the gamma that makes Poisson counts negative binomial
TYPES = np.array([f"type {number:02d}" for number in range(N_TYPES)])


@dataclass
class Block:
    """Some rows of a file: counts and the cells' properties."""

    counts: sp.csr_matrix
    kinds: np.ndarray  # (n_cells,) type of each
    places: np.ndarray  # (n_cells, 2) um


@dataclass
class Model:
    """Expression of every type, effects of the programs, and the platform's factor, for a set of genes."""

    base: np.ndarray  # (n_types, n_genes) log rate
    programs: np.ndarray  # (n_programs, n_genes)
    noise: np.ndarray  # (many,) gamma draws of mean 1; each cell takes a stretch of them

    def rates(self, kinds: np.ndarray, activity: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Return the expected counts of cells whose size is 1."""
        rates = activity.astype(np.float32) @ self.programs
        rates += self.base[kinds]
        np.exp(rates, out=rates)
        n_genes = rates.shape[1]
        starts = random.integers(len(self.noise) - n_genes, size=len(kinds))
        rates *= np.lib.stride_tricks.sliding_window_view(self.noise, n_genes)[starts]
        return rates

    def scaled_to(self, share: float, random: np.random.Generator) -> "Model":
        """Return the model scaled so that ``share`` of the counts is not zero."""
        kinds = random.integers(N_TYPES, size=1000)
        rates = self.rates(kinds, random.standard_normal((1000, N_PROGRAMS)), random)
        rates *= sizes_of(1000, random)[:, None]
        low, high = -15.0, 15.0
        for _ in range(30):
            middle = (low + high) / 2
            filled = 1 - np.exp(-rates * np.exp(middle)).mean()
            low, high = (middle, high) if filled < share else (low, middle)
        return Model(base=self.base + np.float32(low), programs=self.programs, noise=self.noise)


def models(n_genes: int, panel: np.ndarray, shares: tuple[float, float]) -> tuple[Model, Model]:
    """Return the model of the reference and that of the panel, at their shares of nonzero values."""
    random = np.random.default_rng([1, n_genes])
    level = random.normal(0.0, 1.6, n_genes)
    level[panel] = random.normal(1.0, 1.0, len(panel))  # panels consist of well-expressed genes
    tells = random.random(n_genes) < 0.15
    tells[panel] = True
    markers = random.random((N_TYPES, n_genes)) < 0.15
    base = level + np.where(markers & tells, random.normal(2.0, 0.7, (N_TYPES, n_genes)), 0.0)
    loaded = (random.random((N_PROGRAMS, n_genes)) < 0.3) & tells
    programs = np.where(loaded, random.normal(0.0, 0.7, (N_PROGRAMS, n_genes)), 0.0).astype(np.float32)
    noise = random.gamma(NOISE_SHAPE, 1 / NOISE_SHAPE, 2_000_000).astype(np.float32)
    whole = Model(base=base.astype(np.float32), programs=programs, noise=noise)
    platform = random.normal(0.0, 0.5, len(panel)).astype(np.float32)
    part = Model(base=whole.base[:, panel] + platform, programs=programs[:, panel], noise=noise)
    return whole.scaled_to(shares[0], random), part.scaled_to(shares[1], random)


def sizes_of(n_cells: int, random: np.random.Generator) -> np.ndarray:
    """Return the sizes of cells, of mean 1."""
    return np.exp(random.normal(-0.08, 0.4, n_cells)).astype(np.float32)


def activity_at(places: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return the activity of the programs: waves through the tissue, and variation of each cell."""
    turn = np.arange(N_PROGRAMS) * np.pi / N_PROGRAMS
    along = places[:, :1] * np.cos(turn) + places[:, 1:] * np.sin(turn)
    waves = np.sin(along / (90.0 + 40.0 * np.arange(N_PROGRAMS)))
    return 0.8 * waves + 0.6 * random.standard_normal(waves.shape)


def kinds_at(places: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return cell types, drawn from the composition of each domain of the tissue."""
    tiles = np.floor(places / 400.0).astype(np.int64)
    domain = (tiles[:, 0] * 7 + tiles[:, 1] * 13) % N_DOMAINS
    mixes = np.random.default_rng(2).dirichlet(np.full(N_TYPES, 0.5), N_DOMAINS).cumsum(axis=1)
    found = (random.random(len(places))[:, None] > mixes[domain]).sum(axis=1)
    return np.minimum(found, N_TYPES - 1)


def drawn(
    model: Model, kinds: np.ndarray, activity: np.ndarray, random: np.random.Generator
) -> sp.csr_matrix:
    """Draw counts as float32, as in most files."""
    rates = model.rates(kinds, activity, random)
    rates *= sizes_of(len(kinds), random)[:, None]
    counts = random.poisson(rates).astype(np.float32)
    empty = np.flatnonzero(~counts.any(axis=1))
    counts[empty, random.integers(counts.shape[1], size=len(empty))] = 1
    return sp.csr_matrix(counts)


def tissue(model: Model, n_cells: int, *, pitch: float, name: int) -> Iterator[Block]:
    """Yield cells on a jittered grid, row by row."""
    wide = int(np.ceil(np.sqrt(n_cells)))
    size = BLOCK_VALUES // model.base.shape[1]
    for number, start in enumerate(range(0, n_cells, size)):
        random = np.random.default_rng([3, name, number])
        cells = np.arange(start, min(start + size, n_cells))
        grid = np.column_stack([cells % wide, cells // wide])
        places = pitch * (grid + random.uniform(0.1, 0.9, grid.shape))
        kinds = kinds_at(places, random)
        yield Block(drawn(model, kinds, activity_at(places, random), random), kinds, places)


def dissociated(model: Model, n_cells: int, *, extent: float, name: int) -> Iterator[Block]:
    """Yield cells from random positions in a tissue of some extent."""
    size = max(BLOCK_VALUES // model.base.shape[1], 1)
    for number, start in enumerate(range(0, n_cells, size)):
        random = np.random.default_rng([4, name, number])
        places = random.uniform(0, extent, (min(size, n_cells - start), 2))
        kinds = kinds_at(places, random)
        yield Block(drawn(model, kinds, activity_at(places, random), random), kinds, places)


def cell_names(start: int, stop: int) -> np.ndarray:
    """Return names as Xenium writes them: the number in sixteen letters, "aaaaaaab-1"."""
    digits = (np.arange(start, stop)[:, None] >> np.arange(28, -1, -4)) & 15
    letters = np.full((stop - start, 10), ord("-"), dtype=np.uint8)
    letters[:, :8] = digits + ord("a")
    letters[:, 9] = ord("1")
    return letters.view("S10")[:, 0]


class Appending:
    """A matrix of AnnData on disk that grows by blocks of rows: HDF5 or zarr, sparse or dense."""

    def __init__(self, store: Any, n_genes: int, *, dense: bool, compression: str | None) -> None:
        self.store, self.n_genes, self.dense, self.compression = store, n_genes, dense, compression
        self.indptr = [np.zeros(1, dtype=np.int64)]
        self.n_rows = 0
        if dense:
            self.matrix = self.array(store, "X", (0, n_genes), np.float32)
            self.matrix.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        else:
            self.group = store.create_group("X")
            self.data = self.array(self.group, "data", (0,), np.float32)
            self.indices = self.array(self.group, "indices", (0,), np.int32)

    def array(self, store: Any, name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return an empty array that can grow."""
        chunks = (CHUNK,) if len(shape) == 1 else (max(4 * CHUNK // shape[1], 1), shape[1])
        if isinstance(store, h5py.Group):
            longest = (None, *shape[1:])
            return store.create_dataset(
                name, shape, dtype=dtype, chunks=chunks, maxshape=longest, compression=self.compression
            )
        return store.create_array(name, shape=shape, dtype=dtype, chunks=(8 * chunks[0], *chunks[1:]))

    def add(self, counts: sp.csr_matrix) -> None:
        """Append rows."""
        if self.dense:
            self.grow(self.matrix, counts.toarray())
        else:
            self.grow(self.data, counts.data)
            self.grow(self.indices, counts.indices)
        self.indptr.append(self.indptr[-1][-1] + counts.indptr[1:].astype(np.int64))
        self.n_rows += counts.shape[0]

    def grow(self, array: Any, values: np.ndarray) -> None:
        """Append values to an array."""
        start = array.shape[0]
        array.resize((start + len(values), *array.shape[1:]))
        array[start:] = values

    def close(self) -> None:
        """Write what is known only at the end, and close the file."""
        if self.dense:
            return
        indptr = np.concatenate(self.indptr)
        if isinstance(self.group, h5py.Group):
            self.group.create_dataset("indptr", data=indptr)
        else:
            self.group.create_array("indptr", data=indptr)
        shape = [self.n_rows, self.n_genes]
        self.group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": shape})


def write(path: Path, blocks: Iterator[Block], var: pd.DataFrame, options: dict[str, Any]) -> None:
    """Write a file in AnnData's layout, under another name until it is complete."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    is_zarr = options["form"].startswith("zarr")
    if is_zarr:
        import zarr

        store: Any = zarr.open_group(str(part), mode="w", zarr_format=int(options["form"][-1]))
    else:
        store = h5py.File(part, "w")
    dense, kinds, places, totals = options["form"] == "dense", [], [], []
    matrix = Appending(store, len(var), dense=dense, compression=options["compression"])
    for block in blocks:
        matrix.add(block.counts)
        kinds.append(block.kinds.astype(np.int8))
        places.append(block.places)
        totals.append(np.asarray(block.counts.sum(axis=1, dtype=np.float64)).ravel())
    matrix.close()
    names = cell_names(1, matrix.n_rows + 1)
    obs = pd.DataFrame(index=pd.Index(names.astype(str), dtype=object))
    obs["cell_type"] = pd.Categorical.from_codes(np.concatenate(kinds), TYPES)
    obs["total_counts"] = np.concatenate(totals)
    with settings.override(zarr_write_format=int(options["form"][-1]) if is_zarr else 2):
        write_elem(store, "obs", obs)
        write_elem(store, "var", var)
        write_elem(store, "obsm", {options["places"]: np.concatenate(places)})
        for name in ("layers", "obsp", "varm", "varp", "uns"):
            write_elem(store, name, {})
    store.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    if not is_zarr:
        store.close()
    if path.exists():  # another process was faster
        (shutil.rmtree if is_zarr else os.remove)(part)
    else:
        part.rename(path)


def tonsil(
    folder: Path | str,
    n_cells: int = TONSIL_CELLS,
    *,
    form: Form = "h5ad",
    compression: str | None = "gzip",
    n_reference: int = REFERENCE,
    n_genes: int = GENES,
) -> tuple[Path, Path]:
    """Return the paths of a reference and of spatial data of the tonsil's shape, made unless they exist.

    Parameters
    ----------
    folder
        Folder of the files.
    n_cells
        Spatial cells.
    form
        Format of the spatial file: "h5ad" (CSR), "dense" (h5ad), or CSR in "zarr2" or "zarr3".
    compression
        Compression of the HDF5 files: "gzip", "lzf" or None.
    n_reference, n_genes
        Shape of the reference; smaller for a test run.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    packed = "" if compression == "gzip" else f"_{compression or 'plain'}"
    small = "" if (n_reference, n_genes) == (REFERENCE, GENES) else f"_{n_reference}x{n_genes}"
    sc_path = folder / f"tonsil_reference{small}{packed}.h5ad"
    st_path = folder / f"tonsil_{n_cells}{small}{packed if form in FORMS[:2] else ''}{_ending(form)}"
    if sc_path.exists() and st_path.exists():
        return sc_path, st_path
    panel = np.sort(np.random.default_rng(0).choice(n_genes, PANEL, replace=False))
    reference, spatial = models(n_genes, panel, (0.05, 0.17))
    genes = pd.Index([f"GENE{number:05d}" for number in range(n_genes)], dtype=object)
    if not sc_path.exists():
        blocks = dissociated(reference, n_reference, extent=10_000.0, name=0)
        options = {"form": "h5ad", "compression": compression, "places": "X_origin"}
        write(sc_path, blocks, pd.DataFrame(index=genes), options)
    if not st_path.exists():
        held = np.zeros(PANEL, dtype=bool)
        held[np.random.default_rng(5).choice(PANEL, HELD_OUT, replace=False)] = True
        blocks = tissue(spatial, n_cells, pitch=PITCH, name=1)
        options = {"form": form, "compression": compression, "places": "spatial"}
        write(st_path, blocks, pd.DataFrame({"held_out": held}, index=genes[panel]), options)
    return sc_path, st_path


def held_out_genes(n_genes: int = GENES) -> tuple[list[str], list[str]]:
    """Return the names of the 300 genes of the panel to fit on, and of the 77 to hold out."""
    panel = np.sort(np.random.default_rng(0).choice(n_genes, PANEL, replace=False))
    held = np.sort(np.random.default_rng(5).choice(PANEL, HELD_OUT, replace=False))
    names = np.array([f"GENE{number:05d}" for number in panel])
    return np.delete(names, held).tolist(), names[held].tolist()


def placing(
    folder: Path | str,
    n_cells: int = 1_000_000,
    n_spots: int = 100_000,
    *,
    n_genes: int = 500,
    compression: str | None = "gzip",
) -> tuple[Path, Path]:
    """Return the paths of cells and spots of one tissue, made unless they exist.

    Both have all genes; a cell's true position is in ``obsm["spatial_true"]``, in the unit of the spots'
    ``obsm["spatial"]``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    packed = "" if compression == "gzip" else f"_{compression or 'plain'}"
    pitch = 4 * PITCH
    sc_path = folder / f"placing_{n_cells}_in_{n_spots}x{n_genes}{packed}.h5ad"
    st_path = folder / f"placing_spots_{n_spots}x{n_genes}{packed}.h5ad"
    reference, spatial = models(n_genes, np.arange(n_genes), (0.25, 0.25))
    var = pd.DataFrame(index=pd.Index([f"GENE{number:05d}" for number in range(n_genes)], dtype=object))
    if not sc_path.exists():
        extent = pitch * float(np.ceil(np.sqrt(n_spots)))
        blocks = dissociated(reference, n_cells, extent=extent, name=2)
        write(sc_path, blocks, var, {"form": "h5ad", "compression": compression, "places": "spatial_true"})
    if not st_path.exists():
        blocks = tissue(spatial, n_spots, pitch=pitch, name=3)
        write(st_path, blocks, var, {"form": "h5ad", "compression": compression, "places": "spatial"})
    return sc_path, st_path


def _ending(form: Form) -> str:
    return {"h5ad": ".h5ad", "dense": "_dense.h5ad", "zarr2": "_v2.zarr", "zarr3": "_v3.zarr"}[form]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cells", type=int, nargs="*", default=[10_000])
    parser.add_argument("--form", choices=FORMS, default="h5ad")
    parser.add_argument("--compression", choices=["gzip", "lzf", "none"], default="gzip")
    parser.add_argument("--placing", action="store_true", help="cells and spots of 500 genes instead")
    parser.add_argument("--spots", type=int, default=100_000)
    asked = parser.parse_args()
    compression = None if asked.compression == "none" else asked.compression
    for n_cells in asked.cells:
        start = time.perf_counter()
        if asked.placing:
            paths = placing(asked.folder, n_cells, asked.spots, compression=compression)
        else:
            paths = tonsil(asked.folder, n_cells, form=asked.form, compression=compression)
        print(*paths, f"{time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
