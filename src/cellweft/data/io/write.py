"""Writes results block by block, in AnnData's zarr or h5ad formats."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellweft._compute import CHUNK_BYTES
from cellweft._errors import InputError, OutputError, SettingError, check_range
from cellweft._text import shorten
from cellweft._typing import PathLike, Progress, no_progress
from cellweft.data.io.atomic_output import (
    RESULT_SUFFIXES,
    ForgivingFile,
    check_output,
    hdf5_output,
    output_errors,
    partial_output,
)
from cellweft.data.io.journal import Journal
from cellweft.data.io.obs_table import Annotation, write_table
from cellweft.data.io.sanitize import storable
from cellweft.data.io.sparse_write import SparseParts
from cellweft.data.io.zarr_store import ZARR_FORMAT, ZarrFormat, create_array, write_quietly, written_store

__all__ = ["ResultWriter", "check_output", "write_anndata"]

# Large enough to limit the number of files for millions of cells, small enough to read one gene quickly.
_CHUNK_ROWS = 4096


def write_anndata(
    data: anndata.AnnData, path: PathLike, *, overwrite: bool = False, zarr_format: ZarrFormat = ZARR_FORMAT
) -> Path:
    """Write a result from memory; the output appears only when it is complete.

    Parameters
    ----------
    data
        The result; it is not changed.
    path
        Path of the output: ``.zarr`` or ``.h5ad``.
    overwrite
        Whether an existing output may be replaced.
    zarr_format
        Format of a ``.zarr`` store: 3, or 2 for programs that do not support 3.

    Returns
    -------
    Path
        Path of the output.

    Raises
    ------
    SettingError, OutputExistsError, OutputError
        As in `check_output`, or writing failed.
    InputError
        A table or value that the formats do not support.
    """
    target = Path(path).resolve()
    parts: dict[str, Any] = {
        name: dict(getattr(data, name)) for name in ("obsm", "varm", "layers", "obsp", "uns")
    }
    parts["layers"].pop(None, None)  # X, in anndata 0.13
    for key, value in parts["obsm"].items():
        if isinstance(value, pd.DataFrame):
            parts["obsm"][key] = storable(value, f"obsm[{key!r}]")
    plain = anndata.AnnData(data.X, obs=storable(data.obs, "obs"), var=storable(data.var, "var"), **parts)
    with partial_output(path, overwrite=overwrite, suffixes=RESULT_SUFFIXES) as partial:
        if target.suffix == ".zarr":
            with written_store(partial, zarr_format=zarr_format) as root, _refusals("result"):
                write_quietly(root, "/", plain)
        else:
            with hdf5_output(partial) as root, _refusals("result"):
                anndata.io.write_elem(root, "/", plain, dataset_kwargs={"compression": "gzip"})
    return target


@contextlib.contextmanager
def _refusals(key: str) -> Iterator[None]:
    """Turn the errors of anndata about unsupported values into an `InputError`."""
    try:
        yield
    except (OSError, InputError):
        raise
    except Exception as error:  # anndata has no common class of write errors
        where = "; ".join([str(error).splitlines()[0], *getattr(error, "__notes__", [])])
        fix = "Convert that entry to numbers or strings, or remove it."
        raise InputError(
            key, expected="values that AnnData can store", got=f"the error {where!r}", fix=fix
        ) from error


class ResultWriter:
    """Write an AnnData result with one block in memory at a time; use it in a ``with`` statement.

    Parameters
    ----------
    path
        Path of the result: ``.zarr`` (a folder) or ``.h5ad`` (a file).
    obs, var
        Tables of the cells and of the genes, with names as the index. The table of cells may be read column
        by column. A ``/`` in the name of a column, which the formats do not allow, is written as ``_`` and
        logged.
    obsm
        Arrays with one row per cell, by name.
    uns
        Anything else that AnnData can store: nested dicts of numbers, strings and arrays.
    at_end
        Function that returns elements to write at the end, by their path ("uns/cellweft/duration"); they
        replace existing ones.
    layers
        Names of matrices in addition to ``X``, each cells x genes.
    dtype
        Data type of ``X`` and the layers.
    overwrite
        Whether an existing output may be replaced, when the new one is complete.
    chunk
        (cells, genes) per chunk; by default about 4 MiB. Blocks that start and end at multiples of it are
        written fastest.
    shard
        (cells, genes) per file of a zarr store in format 3: whole chunks, and at most a block, because a
        shard is written at once. By default, each chunk is a file.
    zarr_format
        Format of a new zarr store: 3, or 2 for programs that do not support 3.
    journal
        Journal of a run into a zarr store that can be resumed; its tiles are regarded as written.
    sparse
        Threshold, 0 to 1, below which values of ``X`` are omitted; ``X`` is then a sparse float32 matrix
        (CSR). 0 omits only zeros. None for a dense matrix. Blocks of a sparse ``X`` must form a grid.
    progress
        Called while a sparse matrix is joined, at the end.

    Attributes
    ----------
    parts
        The parts of a sparse ``X``, or None.

    Raises
    ------
    SettingError
        The chunk is invalid; or, on entry, the suffix.
    OutputExistsError, OutputError
        As in `check_output`, on entry; and `OutputError` as soon as writing fails, or at the end if not all
        values were written. In both cases, ``path`` is unchanged.
    InputError
        A table or value that AnnData cannot store.

    Notes
    -----
    zarr stores are compressed with blosc's zstd, and contain a manifest of their chunks for
    `cellweft.data.io.zarr_store.check_manifest`; h5ad files use gzip, which all HDF5 libraries can read.

    Examples
    --------
    >>> import tempfile
    >>> cells, genes = pd.DataFrame(index=["c1", "c2"]), pd.DataFrame(index=["Gad1"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "imputed.h5ad")
    ...     with ResultWriter(path, obs=cells, var=genes) as writer:
    ...         writer.write(slice(0, 2), slice(0, 1), np.array([[1.0], [2.0]]))
    ...     anndata.read_h5ad(path).X.tolist()
    [[1.0], [2.0]]
    """

    def __init__(
        self,
        path: PathLike,
        *,
        obs: pd.DataFrame | Annotation,
        var: pd.DataFrame,
        obsm: Mapping[str, NDArray[Any] | pd.DataFrame] | None = None,
        uns: Mapping[str, Any] | None = None,
        at_end: Callable[[], Mapping[str, Any]] = dict,
        layers: tuple[str, ...] = (),
        dtype: str = "float32",
        overwrite: bool = False,
        chunk: tuple[int, int] | None = None,
        shard: tuple[int, int] | None = None,
        zarr_format: ZarrFormat = ZARR_FORMAT,
        journal: Journal | None = None,
        sparse: float | None = None,
        progress: Progress = no_progress,
    ) -> None:
        self.path = Path(path).resolve()
        self.shape = (len(obs), len(var))
        self.dtype = np.dtype(dtype)
        self.chunk = _chunk(self.shape, self.dtype.itemsize, chunk)
        self._shard, self._format = shard, zarr_format
        n_values = math.prod(self.shape)
        self.size = n_values * self.dtype.itemsize * (1 + len(layers))  # bytes, before compression
        self.parts, self._progress = None, progress
        if sparse is not None:
            journal = journal or Journal(self.path, {})
            self.parts = SparseParts(folder=journal.parts, shape=self.shape, cut=float(sparse))
        self._journal = journal
        self._output = partial_output(
            self.path, overwrite=overwrite, suffixes=RESULT_SUFFIXES, needed=self.size, journal=journal
        )
        self._obs: pd.DataFrame | Annotation | None
        self._obs = storable(obs, "obs") if isinstance(obs, pd.DataFrame) else obs
        self._var = storable(var, "var")
        self._obsm = dict(obsm or {})
        self._uns, self._at_end = dict(uns or {}), at_end
        self._missing = dict.fromkeys(("X", *(f"layers/{name}" for name in layers)), n_values)
        self._stack = contextlib.ExitStack()
        self._file: ForgivingFile | None = None

    def __enter__(self) -> ResultWriter:
        with contextlib.ExitStack() as stack:
            partial = stack.enter_context(self._output)
            goes_on = self._keeps()
            self._root = stack.enter_context(self._open(partial, goes_on=goes_on))
            if not goes_on:
                with self._errors():
                    self._lay_out()
                    if self._journal is not None:
                        self._journal.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stack.push(self._complete)
        self._stack.__exit__(*exception)

    def write(self, rows: slice, columns: slice, block: NDArray[Any], *, layer: str | None = None) -> None:
        """Write one block.

        Parameters
        ----------
        rows, columns
            Position of the block: cells and genes, without steps.
        block
            Values, cells x genes.
        layer
            Name of the layer; None for ``X``.

        Raises
        ------
        SettingError
            The layer is unknown, or the shape of the block does not match its position.
        OutputError
            The block could not be written, for example on a full disk.
        """
        key = "X" if layer is None else f"layers/{layer}"
        if key not in self._missing:
            raise SettingError(
                "layer", expected=shorten(list(self._missing)), got=repr(layer), fix="Declare it in layers=."
            )
        place = tuple(map(len, self._spans(rows, columns)))
        if not isinstance(block, np.ndarray):
            raise SettingError(
                "block", expected="a dense array", got=type(block).__name__, fix="Pass block.toarray()."
            )
        if block.shape != place or not {rows.step, columns.step} <= {None, 1}:
            expected, fix = f"values of shape {place}", "Pass a block of this shape."
            raise SettingError("block", expected=expected, got=f"{block.shape}", fix=fix)
        block = block.astype(self.dtype, copy=False)
        rows, columns = (slice(span.start, span.stop) for span in self._spans(rows, columns))
        if layer is None and self.parts is not None:
            with self._errors():
                self.parts.put(rows, columns, block)
        else:
            self._write_chunks(key, rows, columns, block)
        self._missing[key] -= block.size

    def note(self, rows: slice, columns: slice) -> None:
        """Mark a part of all matrices as written by an earlier run or another process.

        Parameters
        ----------
        rows, columns
            Cells and genes, without steps.
        """
        for key in self._missing:
            self._missing[key] -= math.prod(map(len, self._spans(rows, columns)))

    def _spans(self, rows: slice, columns: slice) -> list[range]:
        """Return the ranges of cells and genes."""
        parts = zip((rows, columns), self.shape, strict=True)
        return [range(*part.indices(length)) for part, length in parts]

    def _write_chunks(self, key: str, rows: slice, columns: slice, block: NDArray[Any]) -> None:
        """Write chunk by chunk, because zarr would write the other chunks of a block after one has failed."""
        array, top, left = self._root[key], rows.start, columns.start
        steps = getattr(array, "shards", None) or self.chunk
        for down in _spans(rows, steps[0]):
            for across in _spans(columns, steps[1]):
                part = block[down.start - top : down.stop - top, across.start - left : across.stop - left]
                with self._errors():
                    array[down, across] = part

    @contextlib.contextmanager
    def _open(self, partial: Path, *, goes_on: bool) -> Iterator[Any]:
        """Open the root group of the store at ``partial``; zarr and HDF5 are written in the same way."""
        if self.path.suffix == ".zarr":
            with written_store(partial, zarr_format=self._format, goes_on=goes_on) as root:
                yield root
        else:
            with contextlib.closing(ForgivingFile(partial)) as self._file:
                with self._errors(), h5py.File(self._file, "w", rdcc_nbytes=8 * CHUNK_BYTES) as root:
                    yield root
                with self._errors():
                    self._file.sync()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise the error of the file instead of that of HDF5."""
        with output_errors(self.path, needed=self.size, keeps=self._keeps):
            try:
                yield
            finally:
                if self._file is not None and self._file.failure is not None:
                    raise self._file.failure

    def _keeps(self) -> bool:
        return self._journal is not None and self._journal.is_started

    def _lay_out(self) -> None:
        """Write the tables, so that invalid ones fail before the work, and create the matrices."""
        self._root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        if isinstance(self._obs, pd.DataFrame):
            self._put("obs", self._obs)
        elif self._obs is not None:
            with _refusals("obs"):
                write_table(self._root, "obs", self._obs)
        for key, value in {"var": self._var, "obsm": self._obsm, "uns": self._uns}.items():
            self._put(key, value)
        self._obs, self._obsm = None, {}  # their length is the number of cells
        for key in ("layers", "varm", "obsp", "varp"):
            self._put(key, {})
        if self.parts is not None:
            self.parts.begin()
        for key in [*self._missing][self.parts is not None :]:
            array = create_array(
                self._root, key, shape=self.shape, dtype=self.dtype, chunk=self.chunk, shard=self._shard
            )
            array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})

    def _put(self, key: str, value: Any) -> None:
        with self._errors(), _refusals(key):
            write_quietly(self._root, key, value)

    def _complete(self, kind: type[BaseException] | None, *_: object) -> None:
        """Check that all values were written, and join the parts, unless the work failed."""
        if kind is not None:
            return
        for key, count in self._missing.items():
            if count > 0:
                raise OutputError(
                    str(self.path),
                    expected=f"{math.prod(self.shape)} values of {key}",
                    got=f"{count} fewer",
                    fix="Write all blocks before closing the file.",
                )
        if self.parts is not None:
            with self._errors():
                self.parts.join(self._root, "X", progress=self._progress)
        for key, value in self._at_end().items():
            self._put(key, value)


def _chunk(shape: tuple[int, int], itemsize: int, chunk: tuple[int, int] | None) -> tuple[int, int]:
    if chunk is None:
        rows = min(_CHUNK_ROWS, max(shape[0], 1))
        chunk = rows, max(CHUNK_BYTES // (rows * itemsize), 1)
    for name, length in zip(("chunk[0] (cells)", "chunk[1] (genes)"), chunk, strict=True):
        check_range(name, length, low=1, integer=True)
    return min(chunk[0], max(shape[0], 1)), min(chunk[1], max(shape[1], 1))


def _spans(part: slice, step: int) -> Iterator[slice]:
    """Yield the pieces of a slice between multiples of ``step``."""
    for edge in range(part.start // step * step, part.stop, step):
        yield slice(max(edge, part.start), min(edge + step, part.stop))
