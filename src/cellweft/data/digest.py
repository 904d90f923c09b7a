"""Digests: short texts that identify an input, or a table of genes, by its values."""

from __future__ import annotations

import hashlib
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellweft._compute import row_blocks
from cellweft._typing import Matrix
from cellweft.data.io.copy import block_rows
from cellweft.data.side import Side

_BYTES = 16  # digits of a digest, enough to avoid collisions
_SEPARATOR = "\0"  # between texts; names do not contain it
_digests: weakref.WeakKeyDictionary[Side, str] = weakref.WeakKeyDictionary()


def digest_of(*parts: NDArray[Any] | str | float | None) -> str:
    """Return a text that identifies arrays, texts and numbers, in their order.

    Parameters
    ----------
    parts
        Numbers, texts, None, and arrays of numbers (including their type and shape) or of texts.

    Returns
    -------
    32 hexadecimal digits, of BLAKE2b.

    Examples
    --------
    >>> digest_of(np.array(["Gad1", "Sst"])) == digest_of(np.array(["Gad1", "Sst"], dtype=object))
    True
    >>> digest_of(np.array(["Gad1", "Sst"])) == digest_of(np.array(["Sst", "Gad1"]))
    False
    """
    state = hashlib.blake2b(digest_size=_BYTES)
    for part in parts:
        if not isinstance(part, np.ndarray):
            kind, data = type(part).__name__, str(part).encode()
        elif part.dtype.kind in "OU":
            kind, data = f"texts {part.shape}", _SEPARATOR.join(map(str, part.ravel())).encode()
        else:
            kind, data = f"{part.dtype.str} {part.shape}", np.ascontiguousarray(part).tobytes()
        state.update(f"{kind} {len(data)}{_SEPARATOR}".encode() + data)
    return state.hexdigest()


class MatrixDigest:
    """Digests of a matrix that is read by blocks. They do not depend on the blocks, or on sparsity.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> whole, parts = MatrixDigest(), MatrixDigest()
    >>> whole.add(np.eye(3, dtype=np.float32))
    >>> for row in range(3):
    ...     parts.add(sp.csr_matrix(np.eye(3, dtype=np.float32)[[row]]))
    >>> whole.texts == parts.texts
    True
    """

    def __init__(self) -> None:
        self._states = [hashlib.blake2b(digest_size=_BYTES) for _ in range(3)]

    def add(self, block: Matrix) -> None:
        """Add the next rows."""
        if isinstance(block, np.ndarray):
            is_filled = block != 0
            columns = np.broadcast_to(np.arange(block.shape[1], dtype="<i4"), block.shape)
            parts = np.count_nonzero(is_filled, axis=1), columns[is_filled], block[is_filled]
        else:
            rows = block
            if not block.data.all():
                rows = block.copy()
                rows.eliminate_zeros()
            parts = np.diff(rows.indptr), rows.indices, rows.data
        for state, part, kind in zip(self._states, parts, ("<i8", "<i4", "<f4"), strict=True):
            state.update(np.ascontiguousarray(part, dtype=kind).data)

    @property
    def texts(self) -> tuple[str, ...]:
        """Digests of the number of nonzero values per row, of their positions, and of the values."""
        return tuple(state.hexdigest() for state in self._states)


def values_digest(side: Side, seen: MatrixDigest | None = None) -> str:
    """Return a text that identifies a side by all that predictions depend on.

    Parameters
    ----------
    side
        The reference or the spatial data. The text is kept, so that a second call costs nothing.
    seen
        Digests of all values of the side, in its order of cells and genes; `cellweft.pair` passes them, as it
        reads all values anyway. By default, the values are read once, a block of rows at a time.

    Returns
    -------
    32 hexadecimal digits, computed from the input's gene names in order, the values as stored (as float32),
    their scale, the sizes of cells, the total to which they are scaled, and batches. It does not depend on
    the storage (memory, HDF5 or zarr; dense or sparse) or on the blocks.

    Examples
    --------
    >>> import cellweft
    >>> tissue = cellweft.datasets.simulate_tissue(n_spatial=80, n_reference=80, n_genes=24, n_panel=12)
    >>> first, second = cellweft.pair(tissue.sc, tissue.st), cellweft.pair(tissue.sc, tissue.st)
    >>> values_digest(first.st) == values_digest(second.st)
    True
    >>> values_digest(first.st) == values_digest(first.cells(range(79)).st)
    False
    """
    if side not in _digests:
        if seen is None:
            seen = MatrixDigest()
            for rows in row_blocks(side.n_cells, block_rows(side.matrix.shape)):
                seen.add(side.stored(rows))
        # Sums of the same values may differ in the last bits, so sizes are compared to seven digits.
        uses_sizes = side.scale == "raw" or side.has_sizes or side.divided_by_sum
        sizes = np.append(side.totals, side.target).astype(np.float32) if uses_sizes else None
        scale = f"{side.scale}, divided by its sums" if side.divided_by_sum else side.scale
        of_batches = () if side.batches is None else (side.batches.codes,)
        _digests[side] = digest_of(scale, sizes, side.input_names, *seen.texts, *of_batches)
    return _digests[side]
