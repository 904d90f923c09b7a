"""Digests: short texts that tell one input, or one table of genes, from another by its values."""

from __future__ import annotations

import hashlib
import weakref
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from weft.data.copying import block_rows
from weft.data.network import Network
from weft.data.side import Side
from weft.data.stream import row_blocks

_BYTES = 16  # of a digest: too many for two inputs to share one by chance
_SEPARATOR = "\0"  # between texts: no name holds it
_digests: weakref.WeakKeyDictionary[Side, str] = weakref.WeakKeyDictionary()


def digest_of(*parts: NDArray[Any] | str | float | None) -> str:
    """Return a text that tells some arrays, texts and numbers from others, in their order.

    Parameters
    ----------
    parts
        Numbers, texts, None, and arrays: of numbers, whose types and shapes count too, or of texts.

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


def values_digest(side: Side) -> str:
    """Return a text that tells one side from another by all that predictions depend on.

    Parameters
    ----------
    side
        The reference or the spatial data. They are read once, a block of rows at a time; the text is kept, so
        that a second call reads nothing.

    Returns
    -------
    32 hexadecimal digits: of the names of the genes in their order, the values as they stand in the input, as
    float32, their scale, the cells' sizes, and what these are scaled to. It is the same wherever the matrix
    lies, in memory, HDF5 or zarr, dense or sparse, and whatever the blocks.

    Examples
    --------
    >>> import weft
    >>> tissue = weft.simulate_tissue(n_spatial=80, n_reference=80, n_genes=24, n_panel=12, seed=0)
    >>> first, second = weft.pair(tissue.sc, tissue.st), weft.pair(tissue.sc, tissue.st)
    >>> values_digest(first.st) == values_digest(second.st)
    True
    >>> values_digest(first.st) == values_digest(first.cells(range(79)).st)
    False
    """
    if side not in _digests:
        # Sums of the same values may differ in their last bits: sizes count to the seven digits of float32.
        uses_sizes = side.scale == "raw" or side.has_sizes
        sizes = np.append(side.totals, side.target).astype(np.float32) if uses_sizes else None
        _digests[side] = digest_of(side.scale, sizes, side.genes, *_matrix_digests(side))
    return _digests[side]


def _matrix_digests(side: Side) -> list[str]:
    """Return digests of how many values of each row are not zero, where they are, and what they are."""
    states = [hashlib.blake2b(digest_size=_BYTES) for _ in range(3)]
    for rows in row_blocks(side.n_cells, block_rows(side.matrix.shape)):
        block = sp.csr_matrix(side.stored(rows))
        block.eliminate_zeros()
        parts = np.diff(block.indptr).astype("<u4"), block.indices.astype("<u4"), block.data.astype("<f4")
        for state, part in zip(states, parts, strict=True):
            state.update(part.data)
    return [state.hexdigest() for state in states]


def network_digests(network: Network) -> dict[str, str]:
    """Return a text for each of the gene relations that are given, which tells it from others by its values.

    Parameters
    ----------
    network
        Protein embeddings, gene sets and edges, as far as they are given.
    """
    embedding, sets, edges = network.embedding, network.gene_sets, network.edges
    given = {
        "embedding": embedding and (embedding.genes, embedding.values),
        "gene_sets": sets and (sets.genes, sets.members.data, sets.members.indices, sets.members.indptr),
        "edges": edges and (edges.genes, edges.pairs, edges.weights),
    }
    return {name: digest_of(*parts) for name, parts in given.items() if parts}
