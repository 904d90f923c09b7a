"""Writes a sparse matrix (CSR) from tiles in any order, from any process.

In CSR, a row contains all its columns and starts where the previous row ends, but a tile has only some
columns of some rows. Therefore each tile is written to separate files (parts), which are complete or absent.
When all exist, they are joined row by row. Only a few parts, and the starts of the rows, are in memory.
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
_SHARD = 8 * _CHUNK  # values per zarr file
_MOST = np.iinfo(np.int32).max  # row starts up to here need four bytes


def kept_values(block: NDArray[Any], cut: float) -> BoolArray:
    """Return which values of a block are stored: those of at least ``cut`` that are not zero.

    Parameters
    ----------
    block
        Values of any shape.
    cut
        Threshold, in the data type of the block.

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
    """The parts of a sparse matrix before they are joined; any process may write them.

    Attributes
    ----------
    folder
        Folder of the parts, for this matrix only.
    shape
        (n_cells, n_genes) of the matrix.
    cut
        Threshold below which values are omitted; 0 omits only zeros.

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
        """Create an empty folder for the parts."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    def put(self, rows: slice, columns: slice, block: NDArray[Any]) -> None:
        """Write a tile; an existing one is replaced.

        Parameters
        ----------
        rows, columns
            Position in the matrix. Tiles must form a grid.
        block
            Values of the tile, rows x columns.

        Notes
        -----
        Values of any type are stored as float32. scipy does not support sparse float16 matrices, and values
        rounded to float16 need about as little space after compression.
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
        """Join the parts into a sparse matrix in AnnData's format; the parts are kept.

        Parameters
        ----------
        root
            Group of zarr or of HDF5.
        key
            Name of the matrix; an existing element is replaced.
        progress
            Progress callback.

        Raises
        ------
        OutputError
            A part is missing.

        Notes
        -----
        The stored arrays depend only on the values, not on the tiles: data are float32; indices are int32, in
        order within each row; indptr is int32, or int64 if there are too many values.
        """
        bands = self._bands()
        starts = self._starts(bands)
        n_kept = int(starts[-1])
        if key in root:  # from an interrupted run
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
        """Return the parts in bands with the same rows, both rows and columns in order."""
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
        """Return the start of each row among the values, and the end of the last."""
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
        """Open a file that gets its name only when it is complete."""
        torn = self.folder / f"{secrets.token_hex(8)}.partial"  # other processes may write the same part
        try:
            with torn.open("wb") as file:
                yield file
            torn.replace(self.folder / name)
        finally:
            torn.unlink(missing_ok=True)


class _Line:
    """An array that is written sequentially, in whole chunks or shards."""

    def __init__(self, group: Any, name: str, size: int, kind: Any) -> None:
        self._array = create_array(group, name, shape=(size,), dtype=kind, chunk=(_CHUNK,), shard=(_SHARD,))
        self._step: int = (getattr(self._array, "shards", None) or (_CHUNK,))[0]
        self._held, self._done = np.empty(0, dtype=kind), 0

    def add(self, values: NDArray[Any]) -> None:
        """Write the next values."""
        self._held = np.concatenate([self._held, values.astype(self._held.dtype, copy=False)])
        self._write(len(self._held) // self._step * self._step)

    def end(self) -> None:
        """Write the remaining values."""
        self._write(len(self._held))

    def _write(self, n_values: int) -> None:
        # Zarr would continue with other chunks after one has failed
        for some in row_blocks(n_values, self._step):
            self._array[self._done + some.start : self._done + some.stop] = self._held[some]
        self._done += n_values
        self._held = self._held[n_values:].copy()


def save_packed(file: IO[bytes], values: NDArray[Any]) -> None:
    """Write a compressed one-dimensional array at the position of a file; `load_packed` reads it."""
    packed = _blosc(level=1).encode(np.ascontiguousarray(values)) if len(values) else b""
    np.save(file, np.frombuffer(packed, dtype=np.uint8), allow_pickle=False)


def load_packed(file: IO[bytes], dtype: Any) -> NDArray[Any]:
    """Return the next array in a file, as passed to `save_packed`.

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
    """Return whether spans cover 0 to ``length`` without gaps or overlaps."""
    ends = [0, *(stop for _, stop in spans)]
    return [start for start, _ in spans] == ends[:-1] and ends[-1] == length
