"""Opens one input of any format, as matrices that are not read yet, and annotation.

`.h5ad`, `.zarr` and 10x `.h5` stay on disk and are read by rows; tables and 10x folders of text are loaded.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import anndata
import h5py
import pandas as pd
from anndata import AnnData

from cellweft._errors import CellweftError, FormatError, MissingFileError, SettingError, check_path
from cellweft._text import near, shorten
from cellweft._typing import PathLike
from cellweft.data.instruments.recognition import looks_like_run, open_run
from cellweft.data.io.damaged import check_tree, group_in, open_hdf5, read_stored, reading
from cellweft.data.io.delimited import SEPARATORS, read_table
from cellweft.data.io.lazy_input import FORMATS, Input, not_as_named, not_opened
from cellweft.data.io.loom import open_loom
from cellweft.data.io.lost_chunks import refuse_lost_names
from cellweft.data.io.obs_table import HeldTable, StoredTable, read_table_of, table_with_text
from cellweft.data.io.reopenable import LazyMapping, held_plainly
from cellweft.data.io.spatialdata_regions import (
    TABLES,
    chosen_table,
    is_spatialdata,
    store_of,
    with_centroids,
)
from cellweft.data.io.tenx import chosen_name, has_mtx, has_names, open_10x, read_mtx
from cellweft.data.io.zarr_store import check_manifest

_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib")
_IN_R = "In R, convert it with the package anndataR or zellkonverter, or write its counts as a 10x folder."
_UNPACK = "Unpack it, and pass the file or folder inside."
_STEREO = "Convert it with stereopy: stereo.io.stereo_to_anndata(data, output='converted.h5ad')."
_FOREIGN = {
    ".rds": _IN_R,
    ".rda": _IN_R,
    ".rdata": _IN_R,
    ".qs": _IN_R,
    ".qs2": _IN_R,
    ".h5seurat": "In R, convert it with SeuratDisk::Convert(file, dest='h5ad').",
    ".mtx": "Pass the folder that contains it together with barcodes.tsv and features.tsv.",
    ".gef": _STEREO,
    ".gem": "Its header lacks geneID, x, y or MIDCount: use the file as SAW or stereopy writes it.",
    ".zip": _UNPACK,
    ".tar": _UNPACK,
    ".tgz": _UNPACK,
    ".7z": _UNPACK,
    ".rar": _UNPACK,
    ".xz": _UNPACK,
    ".lz4": _UNPACK,
    ".xlsx": "Write it as text: pandas.read_excel(path, index_col=0).to_csv('table.csv').",
    ".xls": "Write it as text: pandas.read_excel(path, index_col=0).to_csv('table.csv').",
    ".feather": "Write it as Parquet: pandas.read_feather(path).to_parquet('table.parquet').",
    ".cloupe": "It is for Loupe only: pass the filtered_feature_bc_matrix.h5 of the same run.",
    ".bam": "It contains reads: count them first, and pass the matrix.",
    ".fastq": "It contains reads: count them first, and pass the matrix.",
    ".tif": "It is an image: pass the counts of the same run.",
    ".tiff": "It is an image: pass the counts of the same run.",
}
_WHOLE = {".h5ad", ".h5mu", ".loom", ".h5"}
"""Files that contain both counts and names."""
_MOST_LEVELS, _MOST_FOLDERS = 4, 100
_NEVER_PACKED = {".h5ad", ".h5mu", ".loom", ".h5", ".parquet"}
_REMOTE = re.compile(r"^([a-z][a-z0-9+]+):/{1,2}", re.IGNORECASE)


def open_input(
    data: AnnData | PathLike, *, argument: str, obs_columns: Iterable[str] = (), sample: str | None = None
) -> Input:
    """Open an AnnData, SpatialData or a file.

    Parameters
    ----------
    data
        AnnData (in memory, backed, or a view of either), SpatialData with one table, or a path of one of the
        `FORMATS`; for a SpatialData store, ``sample.zarr`` if it has one table (not counting tables written
        by cellweft), otherwise ``sample.zarr/tables/NAME``.
    argument
        Name of the input in errors: "sc" or "st".
    obs_columns
        Columns of a table that are not genes; coordinates are recognised by common names.
    sample
        The sample to read, in a folder with several or a 10x file with several genomes.

    Raises
    ------
    MissingFileError
        The path does not exist.
    FormatError
        The contents of the file do not match its name, or are not supported; a zarr store lacks names of
        cells or genes, or chunks in its manifest.
    """
    _check_sample(data, argument, sample)
    if isinstance(data, AnnData):
        return _from_anndata(data, argument)
    if is_spatialdata(data):
        return _from_spatialdata(data, argument)
    if not isinstance(data, str | Path) and not hasattr(data, "__fspath__"):
        raise FormatError(
            argument, expected="an AnnData or a path", got=type(data).__name__, fix=f"Files may be {FORMATS}."
        )
    _refuse_remote(str(data), argument)
    check_path(argument, data)
    path = Path(data).expanduser()
    where = f"{argument} ({path})"
    if path.is_symlink() and not path.exists():
        raise MissingFileError(
            where,
            expected="a file",
            got=f"a link to {str(path.readlink())!r}, which does not exist",
            fix="Pass the file itself. If it is managed by git-annex or DVC, fetch its content first.",
        )
    if not path.exists():
        folder = path.parent
        there = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        fix = near(path.name, there) if there else f"The folder {str(folder)!r} does not exist either."
        raise MissingFileError(where, expected="a file", got="nothing at this path", fix=fix)
    with reading(where, expected=f"content that matches its name {path.name!r}"):
        try:
            return _open_path(path, where, obs_columns, sample)
        except OSError as error:
            if isinstance(error, CellweftError):
                raise
            raise not_opened(path, where, error) from error


def _refuse_remote(text: str, argument: str) -> None:
    """Raise `FormatError` for a remote address, which is not a path."""
    scheme = _REMOTE.match(text)
    if scheme and len(scheme[1]) > 1:  # a single letter is a Windows drive
        raise FormatError(
            f"{argument} ({text})",
            expected="a path on this machine",
            got=f"an address ({scheme[1]})",
            fix="Pass only the path, the part after file://."
            if scheme[1].lower() == "file"
            else "Download it first, and pass the file.",
        )


def _check_sample(data: Any, argument: str, sample: str | None) -> None:
    """Raise `SettingError` if a sample is given for an input without samples."""
    is_path = isinstance(data, str | Path) or hasattr(data, "__fspath__")
    if sample is None or is_path:
        return
    raise _no_samples(argument, sample, type(data).__name__)


def _no_samples(argument: str, sample: str, of_what: str) -> SettingError:
    return SettingError(
        f"{argument}_sample",
        expected=(
            "a folder with several samples, a 10x .h5 with several genomes, an .h5mu with several "
            "modalities, or a .gem file to be summed by bins"
        ),
        got=f"{sample!r} with {of_what}",
        fix="Omit it. To use the cells of one sample, select them by a column of obs first.",
    )


def _open_path(path: Path, where: str, obs_columns: Iterable[str], sample: str | None) -> Input:
    if path.is_dir() and any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zmetadata")):
        return _open_zarr(path, where, sample)
    run = open_run(path, where, sample)
    if run is not None:
        return run
    return (
        _open_folder(path, where, sample) if path.is_dir() else _open_file(path, where, obs_columns, sample)
    )


def _open_folder(path: Path, where: str, sample: str | None) -> Input:
    if has_mtx(path) or has_names(path):  # the error reports a missing matrix
        return read_mtx(path, where, sample=sample, argument=f"{where.partition(' ')[0]}_sample")
    below = [str(entry) for entry in _folders_in(path) if has_mtx(entry) or looks_like_run(entry)]
    files = [entry for entry in sorted(path.iterdir()) if entry.is_file() and entry.suffix.lower() in _WHOLE]
    raise FormatError(
        where,
        expected="a zarr store, the folder of an instrument's run, or a 10x folder with matrix.mtx",
        got=f"a folder with {shorten(sorted(entry.name for entry in path.iterdir())) or 'nothing in it'}",
        fix=f"Pass one of its folders: {shorten(below, most=3)}."
        if below
        else f"Pass one of its files: {shorten([*map(str, files)], most=3)}."
        if files
        else f"Pass the file itself: {FORMATS}.",
    )


def _folders_in(path: Path) -> list[Path]:
    """Return the folders in a folder, and in its subfolders, such as outs/per_sample_outs/S1/count."""
    folders, level = [], [path]
    for _ in range(_MOST_LEVELS):
        level = [
            subfolder for folder in level for subfolder in sorted(folder.iterdir()) if subfolder.is_dir()
        ][:_MOST_FOLDERS]
        folders += level
    return folders


def _open_file(path: Path, where: str, obs_columns: Iterable[str], sample: str | None) -> Input:
    suffixes = [ending.lower() for ending in path.suffixes if ending.lower() not in (".gz", ".bz2", ".zst")]
    suffix = suffixes[-1] if suffixes else ""
    argument = where.partition(" ")[0]
    if sample is not None and suffix not in (".h5", ".h5ad", ".h5mu", *_FOREIGN):
        raise _no_samples(argument, sample, str(path))
    packing = path.suffix.lower()
    whole = _NEVER_PACKED if packing in (".gz", ".bz2") else {*_NEVER_PACKED, *SEPARATORS}
    if packing in (".gz", ".bz2", ".zst") and suffix in whole:
        raise FormatError(
            where,
            expected=f"an uncompressed {suffix} file",
            got=f"a compressed file ({packing})",
            fix="Unpack it, and pass the file inside.",
        )
    if suffix in (".h5ad", ".h5mu"):
        return _open_hdf5(path, where, sample)
    if suffix == ".loom":
        return open_loom(path, where)
    if suffix == ".h5":
        return open_10x(path, where, sample=sample, argument=f"{argument}_sample")
    if suffix in SEPARATORS or suffix == ".parquet":
        return read_table(path, where=where, suffix=suffix, obs_columns=obs_columns)
    if suffix in _PICKLES:
        raise FormatError(
            where,
            expected=FORMATS,
            got="a pickle, which can run any code when it is opened, so cellweft never reads it",
            fix="If you trust it, load it yourself and write it with AnnData.write_h5ad.",
        )
    fix = _FOREIGN.get(suffix, "Convert the data to .h5ad with AnnData.write_h5ad.")
    raise FormatError(where, expected=FORMATS, got=f"a file named {path.name!r}", fix=fix)


def _from_anndata(data: AnnData, argument: str) -> Input:
    for slot, index in (("obs", data.obs.index), ("var", data.var.index)):
        if isinstance(index, pd.MultiIndex):
            raise FormatError(
                f"{argument} (AnnData).{slot}_names",
                expected="one name per entry",
                got=f"names with {index.nlevels} levels",
                fix=f"Join the levels: adata.{slot}_names = adata.{slot}_names.map('_'.join).",
            )
    backed_view = data.isbacked and data.is_view
    source = f"AnnData backed by {data.filename}" if data.isbacked else "AnnData in memory"
    where = f"{argument} ({source})"
    return Input(
        where=where,
        source=source,
        matrix=data if backed_view else _x_of(data),
        layers=_OfAnnData(data.layers),
        obs=HeldTable(table_with_text(pd.DataFrame(data.obs).copy(), f"{where}.obs")),
        var=table_with_text(pd.DataFrame(data.var).copy(), f"{where}.var"),
        obsm=_OfAnnData(data.obsm),
        uns=_OfAnnData(data.uns),
        has_raw=data.raw is not None,
        open_raw=None
        if data.raw is None
        else lambda: (data.raw.X, table_with_text(pd.DataFrame(data.raw.var).copy(), f"{where}.raw.var")),
    )


def _x_of(data: AnnData) -> Any:
    """Return X, or None without one: a file then makes AnnData raise an error, or return HDF5's null."""
    try:
        values = data.X
    except KeyError:
        return None
    return None if getattr(values, "shape", ()) is None else values


def _from_spatialdata(data: Any, argument: str) -> Input:
    way, where = "cellweft.io.read_spatialdata(data, table={!r})", f"{argument} (SpatialData)"
    name = chosen_table(data.tables, None, where=where, argument=way.format)
    opened = _from_anndata(data.tables[name], argument)
    where = f"{argument} (SpatialData in memory, table {name!r})"
    return dataclasses.replace(
        opened,
        where=where,
        obsm=with_centroids(opened.obsm, opened.uns, opened.obs, source=data, where=where),
    )


def _open_hdf5(path: Path, where: str, sample: str | None) -> Input:
    file = open_hdf5(path)
    if _MODALITIES in file:
        return _of_modality(file, path, where, sample)
    if sample is not None:
        raise _no_samples(where.partition(" ")[0], sample, str(path))
    if {"obs", "var"} <= set(file) and "encoding-type" not in getattr(file["obs"], "attrs", {}):
        # Files older than AnnData 0.7 need its own reader.
        with reading(where):
            check_tree(file)
        return _from_anndata(anndata.read_h5ad(path, backed="r"), where.partition(" ")[0])
    return _from_store(file, path, where)


_MODALITIES = "mod"  # group in which MuData stores one AnnData per modality
_RNA = ("rna", "gex", "gene_expression", "gene expression", "expression", "transcriptome")


def _of_modality(store: Any, path: Path, where: str, sample: str | None) -> Input:
    """Open the requested modality of a MuData, or the only one."""
    modalities = group_in(store, _MODALITIES, where)
    names = sorted(modalities, key=lambda name: (name.lower() not in _RNA, name))
    argument = f"{where.partition(' ')[0]}_sample"
    name = chosen_name(names, sample, where=where, argument=argument, what="modality")
    modality = _from_store(modalities[name], path, f"{where}, modality {name!r}")
    columns = [str(column) for column in store["obs"].attrs.get("column-order", ())] if "obs" in store else []
    others = [column for column in columns if ":" not in column and column not in modality.obs.columns]
    said = f"columns of obs that apply to all modalities were not read: {shorten(others)}."
    return dataclasses.replace(modality, notes=(*modality.notes, *[said] * bool(others)))


def _open_zarr(path: Path, where: str, sample: str | None = None) -> Input:
    import zarr

    try:
        group = zarr.open_group(str(path.absolute()), mode="r")
    except (ValueError, TypeError, KeyError) as error:
        raise not_as_named(path, where, str(error)) from error
    if _MODALITIES in group:
        return _of_modality(group, path, where, sample)
    if sample is not None:
        raise _no_samples(where.partition(" ")[0], sample, str(path))
    if TABLES in group and "obs" not in group:
        folder, tables = path / TABLES, zarr.open_group(str(path / TABLES), mode="r")
        named = dict(tables.members())
        name = chosen_table(named, None, where=where, argument=lambda table_name: str(folder / table_name))
        return _open_zarr(folder / name, f"{where.partition(' ')[0]} ({folder / name})")
    check_manifest(path)
    opened = _from_store(group, path, where)
    store = store_of(path.absolute())
    return dataclasses.replace(
        opened, obsm=with_centroids(opened.obsm, opened.uns, opened.obs, source=store, where=where)
    )


def _from_store(store: Any, path: Path, where: str) -> Input:
    """Open AnnData's groups in an HDF5 file or zarr store; only the genes are read."""
    elements = list(store) if hasattr(store, "keys") else []  # `in` would read a whole array
    if "obs" not in elements or "var" not in elements:
        expected, got, fix = "a zarr store written by AnnData", "a store", "Write it with AnnData.write_zarr."
        if isinstance(store, h5py.File):
            expected, got = "an AnnData file", "an HDF5 file"
            fix = "If it is a 10x file, its name must end in .h5."
        got += f" with {shorten(sorted(elements)) or 'nothing in it'}"
        raise FormatError(where, expected=f"{expected}, with obs and var", got=got, fix=fix)
    for table in ("obs", "var"):
        names = store[table].attrs.get("_index") if hasattr(store[table], "keys") else None
        if isinstance(names, str) and names in store[table]:
            refuse_lost_names(store[table][names], where=f"{where}.{table}_names")
    # AnnData also writes None as an element.
    is_null = "X" not in store or store["X"].attrs.get("encoding-type") == "null"
    with reading(where, ".layers"):
        layers = {key: store["layers"][key] for key in group_in(store, "layers", where)}
    obs = StoredTable.of_group(store["obs"], f"{where}.obs")
    return Input(
        where=where,
        source=str(path),
        matrix=None if is_null else store["X"],
        layers=layers,
        obs=obs,
        var=read_table_of(store["var"], f"{where}.var"),
        obsm=_Elements(group_in(store, "obsm", where), f"{where}.obsm", n_rows=len(obs)),
        uns=_Elements(group_in(store, "uns", where), f"{where}.uns"),
        has_raw="raw/X" in store,
        open_raw=(lambda: _raw_of(store, where)) if "raw/X" in store else None,
    )


def _raw_of(store: Any, where: str) -> tuple[Any, pd.DataFrame]:
    with reading(where, ".raw"):
        return store["raw/X"], read_table_of(store["raw/var"], f"{where}.raw.var")


@dataclasses.dataclass(frozen=True, eq=False)
class _Elements(LazyMapping):
    """The elements of a group, each read on request.

    Attributes
    ----------
    where
        Name of the group in errors.
    n_rows
        Rows that each array or table must have; None for any shape.
    """

    where: str
    n_rows: int | None = None

    def __getitem__(self, key: str) -> Any:
        if key not in self.held:
            raise KeyError(key)
        with reading(self.where, f"[{key!r}]"):
            self._check_rows(key, self.held[key])  # before its values are read, which may be far more
            values = read_stored(self.held[key])
            self._check_rows(key, values)  # a table or a sparse matrix is stored as a group, without a shape
            return values

    def _check_rows(self, key: str, values: Any) -> None:
        shape = getattr(values, "shape", None)
        if self.n_rows is None or shape is None or shape[:1] == (self.n_rows,):
            return
        raise FormatError(
            f"{self.where}[{key!r}]",
            expected=f"a row for each of the {self.n_rows:,} cells",
            got=f"{shape[0]:,} row{'s' * (shape[0] != 1)}" if shape else "a single value",
            fix="The file is damaged: copy or download it again, or write it again with AnnData.",
        )


class _OfAnnData(LazyMapping):
    """A part of an AnnData, which can be sent to another process without the rest.

    From version 0.13, anndata lists ``X`` as the layer None, which is ignored.
    """

    def __iter__(self) -> Iterator[str]:
        return (name for name in self.held if name is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getstate__(self) -> dict[str, Any]:
        return {"held": held_plainly(dict(self))}
