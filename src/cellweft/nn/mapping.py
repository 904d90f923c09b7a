"""Mapping as attention: softmax weights between two sets of embeddings, computed by blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from cellweft._compute import row_blocks, rows_within

BLOCK_ENTRIES = 2**22
"""Largest number of weights in memory: 16 MB in float32, and as much for each temporary array."""

_MOST_KEYS = 2**15  # keys per block; with more, blocks would have too few queries to multiply efficiently


@dataclass(frozen=True, kw_only=True, eq=False)
class Mapping:
    """The row-stochastic matrix C = softmax(Q K^T) of queries and keys, without storing C.

    Attributes
    ----------
    queries, keys
        (n_queries, n_latent) and (n_keys, n_latent) embeddings, float32, on one device.
    block_entries
        Weights per block; results depend on it only through rounding in float32.
    half
        Whether products are computed and rounded in bfloat16 (eight binary digits): faster if the processor
        or GPU supports it, much slower if not.

    Notes
    -----
    C of STEM is the mapping from cells to spots, and C^ the mapping from spots to cells: `transposed`.
    Weighted products C V are attention; each operator passes over the blocks of C once, or twice if the keys
    do not fit in a block: first for each row's sum, then for the weights. `topk` and `gather` always need one
    pass, with running sums.

    Examples
    --------
    >>> mapping = Mapping(queries=torch.eye(2) * 9.0, keys=torch.eye(2) * 9.0)
    >>> mapping.apply(torch.tensor([[10.0], [20.0]])).round()
    tensor([[10.],
            [20.]])
    """

    queries: torch.Tensor
    keys: torch.Tensor
    block_entries: int = field(default=BLOCK_ENTRIES)
    half: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Number of queries, and of keys."""
        return len(self.queries), len(self.keys)

    def transposed(self) -> Mapping:
        """Return the mapping of the keys to the queries: the same products, with the softmax over queries."""
        return replace(self, queries=self.keys, keys=self.queries)

    def apply(self, values: torch.Tensor) -> torch.Tensor:
        """Return C V, the weighted means of the keys' values for each query.

        Parameters
        ----------
        values
            (n_keys, n_values)

        Returns
        -------
        (n_queries, n_values)
        """
        pulled = self.queries.new_zeros(len(self.queries), values.shape[1])
        for rows, columns, weights in self.blocks():
            pulled[rows] += weights @ values[columns]
        return pulled

    def gather(
        self, read: Callable[[slice], torch.Tensor], n_values: int, *, most_keys: int = _MOST_KEYS
    ) -> torch.Tensor:
        """Return C V for a V that is read by blocks of keys, each block once.

        Parameters
        ----------
        read
            Returns the values, (n_block, n_values), of a slice of the keys.
        n_values
            Columns of V.
        most_keys
            Largest number of keys per read.

        Returns
        -------
        (n_queries, n_values)
        """
        gathered, sums = self.queries.new_zeros(len(self.queries), n_values), self._no_sums()
        high = rows_within(self.block_entries, most_keys)
        for columns in row_blocks(len(self.keys), most_keys):
            values = read(columns)
            for rows in row_blocks(len(self.queries), high):
                weights, factor = sums.add(rows, self._products(rows, columns))
                gathered[rows] = gathered[rows] * factor[:, None] + weights @ values
        return gathered / sums.total[:, None]

    def apply_transpose(self, values: torch.Tensor) -> torch.Tensor:
        """Return C^T V, the queries' values spread over the keys.

        Parameters
        ----------
        values
            (n_queries, n_values)

        Returns
        -------
        (n_keys, n_values)
        """
        pushed = self.queries.new_zeros(len(self.keys), values.shape[1])
        for rows, columns, weights in self.blocks():
            pushed[columns] += weights.T @ values[rows]
        return pushed

    def topk(self, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the keys with the largest weights for each query.

        Parameters
        ----------
        k
            Number of keys to return, at most all.

        Returns
        -------
        weights, positions : Tensor
            Each (n_queries, k), largest first.
        """
        best = self.queries.new_full((len(self.queries), k), -torch.inf)
        indices = torch.zeros((len(self.queries), k), dtype=torch.int64, device=self.queries.device)
        sums = self._no_sums()
        for rows, columns in self._tiles():
            products = self._products(rows, columns)
            # By product, not by weight, because small weights are zero in float32.
            top, places = products.topk(min(k, products.shape[1]), dim=1)
            both = torch.cat([best[rows], top], dim=1)
            best[rows], order = both.topk(k, dim=1)
            indices[rows] = torch.cat([indices[rows], places + columns.start], dim=1).gather(1, order)
            sums.add(rows, products)
        return best.sub_(sums.peak[:, None]).exp_().div_(sums.total[:, None]), indices

    def entropy(self) -> torch.Tensor:
        """Return the entropy of each row of C in nats, (n_queries,): 0 to log(n_keys)."""
        entropy = self.queries.new_zeros(len(self.queries))
        for rows, _, weights in self.blocks():
            entropy[rows] += torch.special.entr(weights).sum(dim=1)
        return entropy

    def dense(self) -> torch.Tensor:
        """Return C itself, (n_queries, n_keys)."""
        return torch.softmax(self.queries @ self.keys.T, dim=1)

    @cached_property
    def log_total(self) -> torch.Tensor:
        """Logarithm of the sum of exp(Q K^T) over the keys, (n_queries,)."""
        return self._sums.peak + self._sums.total.log()

    def blocks(self) -> Iterator[tuple[slice, slice, torch.Tensor]]:
        """Yield (rows, columns, weights) for all blocks of C; weights are (n_rows, n_columns)."""
        whole_rows = len(self.keys) <= _MOST_KEYS
        for rows, columns in self._tiles():
            products = self._products(rows, columns)
            if whole_rows:
                yield rows, columns, torch.softmax(products, dim=1)
            else:
                peak, total = self._sums.peak[rows, None], self._sums.total[rows, None]
                yield rows, columns, products.sub_(peak).exp_().div_(total)

    def _products(self, rows: slice, columns: slice) -> torch.Tensor:
        queries, keys = self._factors
        return (queries[rows] @ keys[columns].T).float()

    @cached_property
    def _factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        return (self.queries.bfloat16(), self.keys.bfloat16()) if self.half else (self.queries, self.keys)

    @cached_property
    def _sums(self) -> _RowSums:
        sums = self._no_sums()
        for rows, columns in self._tiles():
            sums.add(rows, self._products(rows, columns))
        return sums

    def _no_sums(self) -> _RowSums:
        zeros = self.queries.new_zeros(len(self.queries))
        return _RowSums(peak=torch.full_like(zeros, -torch.inf), total=zeros)

    def _tiles(self) -> Iterator[tuple[slice, slice]]:
        return tiles(*self.shape, self.block_entries)


def tiles(
    n_queries: int, n_keys: int, entries: int, *, most_keys: int | None = None
) -> Iterator[tuple[slice, slice]]:
    """Yield slices of queries and keys with about ``entries`` products each."""
    wide = min(n_keys, _MOST_KEYS, most_keys or n_keys)
    for rows in row_blocks(n_queries, rows_within(entries, wide)):
        for columns in row_blocks(n_keys, wide):
            yield rows, columns


@dataclass(frozen=True, kw_only=True, eq=False)
class _RowSums:
    """Running sums of exp(product) over blocks of keys.

    They are stored as the largest product and the sum relative to it. For large products, the logarithm of
    the sum has too few digits in float32 to compute weights.
    """

    peak: torch.Tensor  # n_queries
    total: torch.Tensor  # n_queries: sum of exp(product - peak)

    def add(self, rows: slice, products: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Add a block of products, which is overwritten.

        Returns
        -------
        weights, kept : Tensor
            exp(product - peak), (n_rows, n_columns), and the factor for earlier weights of the rows,
            (n_rows,), which corrects for a higher peak.
        """
        peak = torch.maximum(self.peak[rows], products.amax(dim=1))
        factor = (self.peak[rows] - peak).exp()
        weights = products.sub_(peak[:, None]).exp_()
        self.total[rows] = self.total[rows] * factor + weights.sum(dim=1)
        self.peak[rows] = peak
        return weights, factor
