"""A sparse matrix (CSR) on the disk, made from tiles that come in any order, from any process.

A row of CSR holds all its columns, and starts where the rows before it end; a tile has some columns of some
rows. So each tile is written to parts, files of their own that are whole or not there, and when all are there
they are put together, row after row. What is held of it is a few parts, and where each row starts.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from cellweft._compute import row_blocks, rows_within
from cellweft._errors import OutputError
from cellweft._typing import BoolArray, IntArray, Progress, no_progress
from cellweft.data.io.prefetch import prefetch
from cellweft.data.io.zarr_store import create_array

_BAND_VALUES = 2**22  # cells x genes of the parts that are combined at once
_CHUNK = 2**20  # values of the matrix that are compressed together
_SHARD = 8 * _CHUNK  # values that go into one file of zarr
_MOST = np.iinfo(np.int32).max  # starts of rows up to here take four bytes


def kept_values(block: NDArray[Any], cut: float) -> BoolArray:
    """Return which values of a block are stored: those that are at least the cut, and not zero.

    Parameters
    ----------
    block
        Values of any shape.
    cut
        In the type of the block's numbers.

    Examples
    --------
    >>> kept_values(np.array([0.0, 0.04, 0.05], dtype=np.float32), 0.05)
    array([False, False,  True])
    """
    return np.asarray((block >= cut) & (block != 0))


class _Part(NamedTuple):
    """Rows and columns of the matrix that a file contains."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def name(self) -> str:
        return f"rows {self.top}-{self.bottom} columns {self.left}-{self.right}.part"

    @classmethod
    def of(cls, path: Path) -> _Part:
        return cls(*map(int, re.findall(r"\d+", path.stem)))


@dataclass(frozen=True, kw_only=True)
class SparseParts:
    """The parts of a sparse matrix, until it is put together; any process may write them.

    Attributes
    ----------
    folder
        Where they lie: of this matrix alone.
    shape
        (n_cells, n_genes) of the matrix.
    cut
        Values below it are left out; 0 leaves out zeros alone.

    Examples
    --------
    >>> import tempfile, zarr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     parts = SparseParts(folder=Path(folder, "parts"), shape=(2, 3), cut=0.05)
    ...     parts.begin()
    ...     parts.put(slice(0, 2), slice(2, 3), np.array([[0.25], [0.0]]))
    ...     parts.put(slice(0, 2), slice(0, 2), np.array([[0.5, 0.02], [0.0, 1.5]]))
    ...     root = zarr.open_group(Path(folder, "a.zarr"), mode="w", zarr_format=2)
    ...     parts.join(root, "X")
    ...     {name: root[f"X/{name}"][:].tolist() for name in ("data", "indices", "indptr")}
    {'data': [0.5, 0.25, 1.5], 'indices': [0, 2, 1], 'indptr': [0, 2, 3]}
    """

    folder: Path
    shape: tuple[int, int]
    cut: float

    def begin(self) -> None:
        """Make an empty folder for them."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def put(self, rows: slice, columns: slice, block: NDArray[Any]) -> None:
        """Write a tile; an existing one is replaced.

        Parameters
        ----------
        rows, columns
            Where it lies in the matrix. Tiles make up a grid: those of the same columns have the same rows.
        block
            Values, rows x columns.

        Notes
        -----
        Values are stored as float32 whatever their type: scipy knows no sparse matrix of float16, and those
        that are rounded to it take about as little once they are compressed.
        """
        top, left, right = rows.start, columns.start, columns.stop
        for some in row_blocks(len(block), rows_within(_BAND_VALUES, self.shape[1])):
            values, part = block[some], _Part(top + some.start, top + some.stop, left, right)
            is_kept = kept_values(values, self.cut)
            places = np.broadcast_to(np.arange(left, right, dtype=np.int32), values.shape)
            with self._whole(part.name) as file:
                np.save(file, np.count_nonzero(is_kept, axis=1).astype(np.int32), allow_pickle=False)
                save_packed(file, places[is_kept])
                save_packed(file, values[is_kept].astype(np.float32, copy=False))

    def join(self, root: Any, key: str, *, progress: Progress = no_progress) -> None:
        """Put the parts together as AnnData stores a sparse matrix; they stay.

        Parameters
        ----------
        root
            Group of zarr or of HDF5.
        key
            Name of the matrix; what has this name is replaced.
        progress
            Called as parts are put together.

        Raises
        ------
        OutputError
            A part is missing.

        Notes
        -----
        What is stored depends on the values alone, not on the tiles: data float32, indices int32, in order
        within each row, indptr int32 or, where values are more than that can count, int64.
        """
        bands = self._bands()
        starts = self._starts(bands)
        n_kept = int(starts[-1])
        if key in root:  # left by a killed run
            del root[key]
        group = root.create_group(key)
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        group.attrs["shape"] = list(self.shape)
        data, indices = _Line(group, "data", n_kept, np.float32), _Line(group, "indices", n_kept, np.int32)
        indptr = _Line(group, "indptr", len(starts), np.int32 if n_kept <= _MOST else np.int64)
        indptr.add(starts)
        for number, rows in enumerate(prefetch(map(self._read, bands))):
            data.add(rows.data)
            indices.add(rows.indices)
            progress("joining", number + 1, len(bands))
        for line in (data, indices, indptr):
            line.end()

    def _bands(self) -> list[list[_Part]]:
        """Return the parts that hold the same rows, in the order of their columns; these in their order."""
        parts = sorted(_Part.of(path) for path in self.folder.glob("*.part"))
        bands = [list(band) for _, band in itertools.groupby(parts, key=lambda part: part[:2])]
        whole = _covers([band[0][:2] for band in bands], self.shape[0]) and all(
            _covers([part[2:] for part in band], self.shape[1]) for band in bands
        )
        if not whole and 0 not in self.shape:
            fix = "Run again, without resuming."
            raise OutputError(
                str(self.folder),
                expected="parts of all cells and genes",
                got="gaps between the parts",
                fix=fix,
            )
        return bands

    def _starts(self, bands: Sequence[Sequence[_Part]]) -> IntArray:
        """Return where each row starts among the values, and where the last one ends."""
        starts = np.zeros(self.shape[0] + 1, dtype=np.int64)
        for part in itertools.chain.from_iterable(bands):
            with (self.folder / part.name).open("rb") as file:
                starts[part.top + 1 : part.bottom + 1] += np.load(file, allow_pickle=False)
        return np.cumsum(starts, out=starts)

    def _read(self, band: Sequence[_Part]) -> sp.csr_matrix:
        """Return the rows of a band."""
        blocks = []
        for part in band:
            with (self.folder / part.name).open("rb") as file:
                starts = np.concatenate([[0], np.cumsum(np.load(file, allow_pickle=False))])
                indices, data = load_packed(file, np.int32), load_packed(file, np.float32)
            shape = part.bottom - part.top, part.right - part.left
            blocks.append(sp.csr_matrix((data, indices - np.int32(part.left), starts), shape=shape))
        return blocks[0] if len(blocks) == 1 else sp.csr_matrix(sp.hstack(blocks, format="csr"))

    @contextlib.contextmanager
    def _whole(self, name: str) -> Iterator[Any]:
        """Lend a file that has its name only once it is whole."""
        torn = self.folder / f"{secrets.token_hex(8)}.partial"  # other processes may write the same part
        try:
            with torn.open("wb") as file:
                yield file
            torn.replace(self.folder / name)
        finally:
            torn.unlink(missing_ok=True)


class _Line:
    """An array that is written from its start to its end, in whole chunks, or whole shards of them."""

    def __init__(self, group: Any, name: str, size: int, kind: Any) -> None:
        self._array = create_array(group, name, shape=(size,), dtype=kind, chunk=(_CHUNK,), shard=(_SHARD,))
        self._step: int = (getattr(self._array, "shards", None) or (_CHUNK,))[0]
        self._held, self._done = np.empty(0, dtype=kind), 0

    def add(self, values: NDArray[Any]) -> None:
        """Write what comes next."""
        self._held = np.concatenate([self._held, values.astype(self._held.dtype, copy=False)])
        self._write(len(self._held) // self._step * self._step)

    def end(self) -> None:
        """Write what is left."""
        self._write(len(self._held))

    def _write(self, n_values: int) -> None:
        # Zarr would continue with other chunks after one has failed
        for some in row_blocks(n_values, self._step):
            self._array[self._done + some.start : self._done + some.stop] = self._held[some]
        self._done += n_values
        self._held = self._held[n_values:].copy()


def save_packed(file: IO[bytes], values: NDArray[Any]) -> None:
    """Write an array of one dimension, compressed, where a file stands: `load_packed` reads it."""
    packed = _blosc(level=1).encode(np.ascontiguousarray(values)) if len(values) else b""
    np.save(file, np.frombuffer(packed, dtype=np.uint8), allow_pickle=False)


def load_packed(file: IO[bytes], dtype: Any) -> NDArray[Any]:
    """Return the array that stands next in a file, as its numbers were given to `save_packed`.

    Examples
    --------
    >>> import io
    >>> file = io.BytesIO()
    >>> save_packed(file, np.array([1.5, 0.25]))
    >>> _ = file.seek(0)
    >>> load_packed(file, "float64")
    array([1.5 , 0.25])
    """
    packed = np.load(file, allow_pickle=False)
    return np.frombuffer(_blosc().decode(packed) if len(packed) else b"", dtype=dtype)


def _blosc(*, level: int = 1) -> Any:
    from numcodecs import Blosc

    return Blosc(cname="zstd", clevel=level, shuffle=Blosc.SHUFFLE)


def _covers(spans: Sequence[Sequence[int]], length: int) -> bool:
    """Say whether spans follow each other from 0 to a length."""
    ends = [0, *(stop for _, stop in spans)]
    return [start for start, _ in spans] == ends[:-1] and ends[-1] == length
