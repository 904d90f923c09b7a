"""What is fuzzed: every reader, as a function of a path that uses everything it has read."""

from __future__ import annotations

import random
import resource
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cellweft
from cellweft.data.io.backed_matrix import open_rows
from cellweft.data.io.lazy_input import Input
from cellweft.data.io.obs_table import StoredTable
from cellweft.data.io.read import open_input
from cellweft.data.io.results import coordinate_unit, open_result, result_kind
from cellweft.data.orthologs import read_orthologs
from cellweft.reports.inputs import _read_table

from corpus import makers, tissue
from mutations import damage_file, damage_folder, damage_hdf5


@dataclass(frozen=True, kw_only=True)
class Target:
    """One kind of file.

    Attributes
    ----------
    read
        Called with the path of a damaged file; may only raise `CellweftError`.
    damage
        Function that damages the file at a path.
    is_text
        Whether it may be replaced by arbitrary bytes, as atheris does.
    """

    read: Callable[[Path], Any]
    damage: Callable[[Path, random.Random], None]
    is_text: bool = False


@cache
def _other() -> Any:
    return tissue(dense=True)


def _input(path: Path) -> None:
    """Open a tissue, read everything in it, and pair every fourth one with a reference."""
    _read_and_paired(path, as_reference=False)


def _table_input(path: Path) -> None:
    """Do the same with a table, pairing every fiftieth, since pairing takes far longer than reading."""
    _read_and_paired(path, as_reference=False, every=50)


def _reference_input(path: Path) -> None:
    """Do the same with a reference, which has no coordinates, and a tissue."""
    _read_and_paired(path, as_reference=True)


def _read_and_paired(path: Path, *, as_reference: bool, every: int = 4) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _other()  # made while there is memory: a damaged file may take all of it
        try:
            _everything(open_input(path, argument="st"))
        finally:  # pairing takes as long as everything else
            is_chosen = zlib.crc32(path.name.encode() + str(_size(path)).encode()) % every == 0
            if is_chosen and not memory_is_used():
                made = cellweft.pair(*((path, _other()) if as_reference else (_other(), path)))
                made.summary()
                (made.sc if as_reference else made.st).block(slice(0, 5))


def memory_is_used() -> bool:
    """Return whether a file has made libraries use 3 GB: little may be left of what the process may use."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 3 * 2**30


def _size(path: Path) -> int:
    """Return the size of a file, or of all files of a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(one.stat().st_size for one in files)


def _everything(data: Input) -> None:
    data.obs.frame()
    if not isinstance(data.obs, StoredTable):  # its frame reads the names and each column in this way
        data.obs.names()
        for name in data.obs.columns:
            data.obs[name]
    for held in (data.obsm, data.uns):
        for key in held:
            held[key]
    matrices = [data.matrix, *(data.layers[key] for key in data.layers)]
    if data.open_raw is not None:
        matrices.append(data.open_raw()[0])
    for one in matrices:
        if one is not None:
            rows = open_rows(one, where="st.X")
            rows.read(slice(0, rows.shape[0]))


def _result(path: Path) -> None:
    """Open a result, and read what the report and the viewer read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = open_result(path, argument="result")
        result_kind(data)
        coordinate_unit(data)
        _everything(data)


def _model(path: Path) -> None:
    cellweft.load(path)


def _scores(path: Path) -> None:
    _read_table(path, "scores")


def _proteins(path: Path) -> None:
    list(cellweft.genes.read_fasta(path))


_FILE = {"damage": damage_file}
_TEXT = {"damage": damage_file, "is_text": True}
_HDF5 = {"damage": damage_hdf5}
_FOLDER = {"damage": damage_folder}

TARGETS: dict[str, Target] = {
    **{name: Target(read=_table_input, **_TEXT) for name in ("csv", "tsv", "gem")},
    **{name: Target(read=_table_input, **_FILE) for name in ("csv_gz", "parquet")},
    **{
        name: Target(read=_input, **_FOLDER)
        for name in ("sparse_zarr", "dense_zarr", "zarr_v3", "spatialdata")
    },
    **{name: Target(read=_reference_input, **_FOLDER) for name in ("mtx", "mtx_gz")},
    **{
        name: Target(read=_input, **_HDF5)
        for name in ("sparse_h5ad", "dense_h5ad", "by_gene_h5ad", "h5mu", "loom")
    },
    **{name: Target(read=_reference_input, **_HDF5) for name in ("tenx_h5", "tenx_v2_h5")},
    **{f"run_{name}": Target(read=_input, **_FOLDER) for name in makers()},
    "result_h5ad": Target(read=_result, **_HDF5),
    "result_zarr": Target(read=_result, **_FOLDER),
    **{name: Target(read=_model, **_FOLDER) for name in ("model_auto", "model_stimpute", "model_placer")},
    **{
        name: Target(read=cellweft.genes.read_embedding, **_FILE)
        for name in ("embedding_parquet", "embedding_npz")
    },
    "embedding_csv": Target(read=cellweft.genes.read_embedding, **_TEXT),
    "embedding_h5ad": Target(read=cellweft.genes.read_embedding, **_HDF5),
    "gmt": Target(read=cellweft.genes.read_gene_sets, **_TEXT),
    "interactions": Target(read=cellweft.genes.read_edges, **_TEXT),
    "orthologs": Target(read=read_orthologs, **_TEXT),
    "fasta": Target(read=_proteins, **_TEXT),
    "fasta_gz": Target(read=_proteins, **_FILE),
    "scores_csv": Target(read=_scores, **_TEXT),
    "scores_parquet": Target(read=_scores, **_FILE),
}
