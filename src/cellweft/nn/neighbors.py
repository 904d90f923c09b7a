"""The k most similar reference cells of a spatial cell, by cosine: exact by blocks, or with an index."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch

from cellweft._compute import numpy_stream, row_blocks, sample_rows
from cellweft._errors import SettingError, require
from cellweft._statistics import unit_length
from cellweft._typing import DoubleArray, IntArray
from cellweft.nn.config import StImputeSettings
from cellweft.nn.device import to_device

_EXTRA = 16  # candidates beyond k from the float32 search for the exact float64 ranking
_MOST_EXACT = 100_000  # largest reference for the exact search
_GROUPS, _FEWEST_IN_GROUP, _LOOKED_AT, _LEARNED = 4, 8, 48, 64  # of the index
_MOST_GATHERED = 2**22  # values gathered at once: 16 MB
_SLACK = 1e-5  # above the float32 error of the difference of two cosines


class NeighborSearch(Protocol):
    """Finds the nearest reference cells of query cells."""

    @property
    def device(self) -> torch.device:
        """The device of the search."""

    def search(self, queries: DoubleArray, k: int) -> IntArray:
        """Return (n_queries, k) positions of reference cells, most similar first."""

    def to(self, device: torch.device) -> NeighborSearch:
        """Return the same search on a device."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ExactNeighbors:
    """Exact search: a matrix product in float32 selects candidates, which are ranked in float64.

    Attributes
    ----------
    unit
        (n_reference, n_latent) reference cells scaled to unit length; an all-zero cell stays zero.
    device
        Device of the products.
    block
        Queries per product.

    Notes
    -----
    Ranking in float64 makes the result independent of the block size. In float32, the last bit of a product
    depends on its shape, which would swap nearly tied neighbours. Exact ties (copies of a cell) are ordered
    by position.

    Examples
    --------
    >>> search = ExactNeighbors.build(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    >>> search.search(np.array([[2.0, 0.1]]), 2)
    array([[0, 2]])
    """

    unit: DoubleArray
    device: torch.device
    block: int

    @classmethod
    def build(
        cls, reference: DoubleArray, *, device: torch.device | None = None, block: int = 256
    ) -> ExactNeighbors:
        """Return the search over (n_reference, n_latent) cells."""
        return cls(unit=unit_length(reference, axis=1), device=device or torch.device("cpu"), block=block)

    def search(self, queries: DoubleArray, k: int) -> IntArray:
        """Return the nearest reference cells of each query.

        Parameters
        ----------
        queries
            (n_queries, n_latent), of any length.
        k
            Number of neighbours, at most the number of reference cells.

        Returns
        -------
        (n_queries, k) positions in the reference, most similar first.

        Raises
        ------
        SettingError
            k is larger than the reference.
        """
        n_reference = len(self.unit)
        if not 1 <= k <= n_reference:
            raise SettingError(
                "k",
                expected=f"from 1 to {n_reference:,} (the reference's usable cells)",
                got=str(k),
                fix="Choose a smaller k, or a reference with more cells.",
            )
        nearest = np.empty((len(queries), k), dtype=np.int64)
        # Created once because it is large
        buffer = self.coarse.new_empty(min(self.block, len(queries)), n_reference)
        for rows in row_blocks(len(queries), self.block):
            directions = unit_length(queries[rows], axis=1)
            coarse = torch.from_numpy(directions.astype(np.float32)).to(self.device)
            likeness = torch.mm(coarse, self.coarse.T, out=buffer[: len(coarse)])  # (block, n_reference)
            nearest[rows] = self._nearest(directions, likeness, k)
        return nearest

    def to(self, device: torch.device) -> ExactNeighbors:
        """Return the same search on a device."""
        return replace(self, device=device)

    @cached_property
    def coarse(self) -> torch.Tensor:
        """The reference in float32 on the device, (n_reference, n_latent)."""
        return torch.from_numpy(self.unit.astype(np.float32)).to(self.device)

    def _nearest(self, unit: DoubleArray, likeness: torch.Tensor, k: int) -> IntArray:
        best, candidates = likeness.topk(min(k + _EXTRA, len(self.unit)), dim=1)
        nearest = self.rank(unit, candidates.cpu().numpy(), k)
        if candidates.shape[1] == len(self.unit):
            return nearest
        # More cells may be tied than there are candidates, for example copies of a cell: rank all tied cells.
        lowest = best[:, k - 1] - _SLACK
        is_zero = ~unit.any(axis=1)  # tied with every cell, so ranking is useless
        nearest[is_zero] = np.arange(k)
        for row in np.flatnonzero((best[:, -1] >= lowest).cpu().numpy() & ~is_zero):
            tied = (likeness[row] >= lowest[row]).nonzero()[:, 0].cpu().numpy()
            nearest[row] = self.rank(unit[[row]], tied[None], k)[0]
        return nearest

    def rank(self, unit: DoubleArray, candidates: IntArray, k: int) -> IntArray:
        """Return the k most similar cells among the candidates, (n_queries, n_candidates), of each query."""
        candidates = np.sort(candidates, axis=1)  # so that a stable sort orders ties by position
        likeness = np.einsum("bl,bcl->bc", unit, self.unit[candidates])
        order = np.argsort(-likeness, axis=1, kind="stable")[:, :k]
        ranked: IntArray = np.take_along_axis(candidates, order, axis=1)
        return ranked


@dataclass(frozen=True, kw_only=True, eq=False)
class ApproximateNeighbors:
    """Search in a part of a large reference: cells are grouped, and a query searches the nearest groups.

    Attributes
    ----------
    exact
        The exact search over the same reference; it ranks candidates and measures `recall`.
    index
        A faiss inverted file over the reference cells, scaled to unit length.

    Notes
    -----
    An inverted file of 4 sqrt(n) groups by k-means (Jegou et al. 2011, doi:10.1109/TPAMI.2010.57). Candidates
    are ranked in float64, as in the exact search. `recall` returns the share of exact neighbours found.
    """

    exact: ExactNeighbors
    index: Any

    @classmethod
    def build(
        cls, reference: DoubleArray, *, seed: int = 0, device: torch.device | None = None
    ) -> ApproximateNeighbors:
        """Return the search over reference cells.

        Parameters
        ----------
        reference
            (n_reference, n_latent)
        seed
            Seed of the grouping.
        device
            Device of the networks that use the search; the index is on the CPU.

        Raises
        ------
        MissingExtraError
            faiss is not installed.
        """
        faiss = require("faiss", extra="index")
        exact = ExactNeighbors.build(reference, device=device)
        unit = exact.unit.astype(np.float32)
        n_groups = max(min(int(_GROUPS * len(unit) ** 0.5), len(unit) // _FEWEST_IN_GROUP), 1)
        index = faiss.index_factory(unit.shape[1], f"IVF{n_groups},Flat", faiss.METRIC_INNER_PRODUCT)
        index.cp.seed, index.nprobe = seed % 2**31, min(_LOOKED_AT, n_groups)
        drawn = sample_rows(np.arange(len(unit)), _LEARNED * n_groups, numpy_stream(seed, "index"))
        index.train(unit[drawn])
        index.add(unit)
        return cls(exact=exact, index=index)

    @property
    def device(self) -> torch.device:
        """Device of the networks that use the search."""
        return self.exact.device

    def search(self, queries: DoubleArray, k: int) -> IntArray:
        """Return the nearest reference cells of each query; see `ExactNeighbors.search`.

        If the searched groups contain fewer than k cells, the exact neighbours are returned.
        """
        if not 1 <= k <= len(self.exact.unit):
            return self.exact.search(queries, k)  # raises the error
        directions = unit_length(queries, axis=1)
        _, candidates = self.index.search(
            directions.astype(np.float32), min(k + _EXTRA, len(self.exact.unit))
        )
        nearest = self.exact.rank(directions, np.maximum(candidates, 0).astype(np.int64), k)
        few = np.flatnonzero((candidates < 0).any(axis=1))
        if len(few):
            nearest[few] = self.exact.search(queries[few], k)
        return nearest

    def to(self, device: torch.device) -> ApproximateNeighbors:
        """Return the same search for networks on a device; the index stays on the CPU."""
        return to_device(self, device, "exact")

    def recall(self, queries: DoubleArray, k: int) -> float:
        """Return the share of the queries' exact neighbours that the search finds, 0 to 1."""
        approximate, exact = self.search(queries, k), self.exact.search(queries, k)
        both = [len(np.intersect1d(one, other)) for one, other in zip(approximate, exact, strict=True)]
        return float(np.sum(both)) / max(approximate.size, 1)


def at_neighbors(table: torch.Tensor, neighbors: torch.Tensor) -> torch.Tensor:
    """Return the values of a table (R, n_reference) at the (B, k) neighbours of cells: (R, B, k)."""
    return table.index_select(1, neighbors.reshape(-1)).view(-1, *neighbors.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class NeighborMean:
    """The mean over each cell's neighbours in the reference: Eq. 12 of stImpute without the gene network.

    See `cellweft.nn.operator.ReferenceOperator`.

    Attributes
    ----------
    neighbors
        (n_cells, k) positions of reference cells.
    n_reference
        Number of reference cells.

    Examples
    --------
    >>> mean = NeighborMean(neighbors=torch.tensor([[0, 2], [1, 2]]), n_reference=3)
    >>> mean.apply(torch.tensor([[1.0], [5.0], [3.0]]))
    tensor([[2.],
            [4.]])
    """

    neighbors: torch.Tensor
    n_reference: int

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells, and of reference cells."""
        return len(self.neighbors), self.n_reference

    def apply(self, values: torch.Tensor) -> torch.Tensor:
        """Return means of (n_reference, n_columns) values: (n_cells, n_columns)."""
        table, k = values.T.contiguous(), self.neighbors.shape[1]  # gathered values are contiguous
        means = values.new_empty(len(self.neighbors), values.shape[1])
        rows = max(_MOST_GATHERED // max(k * values.shape[1], 1), 1)
        for near, block in zip(torch.split(self.neighbors, rows), torch.split(means, rows), strict=True):
            block[:] = at_neighbors(table, near).mean(dim=2).T
        return means

    def apply_transpose(self, values: torch.Tensor) -> torch.Tensor:
        """Return (n_cells, n_columns) values spread over the neighbours: (n_reference, n_columns)."""
        spread = values.new_zeros(self.n_reference, values.shape[1])
        for near in self.neighbors.T:
            spread.index_add_(0, near, values)
        return spread / self.neighbors.shape[1]


def neighbor_search(
    reference: DoubleArray, settings: StImputeSettings, *, seed: int, device: torch.device
) -> NeighborSearch:
    """Return the search chosen in the settings.

    Parameters
    ----------
    reference
        (n_reference, n_latent) embeddings.
    settings, seed, device
        Settings with the kind of search, random seed, and device.

    Raises
    ------
    MissingExtraError
        The settings choose an approximate search, and faiss is not installed.
    """
    is_large = len(reference) > _MOST_EXACT and importlib.util.find_spec("faiss") is not None
    if settings.search == "approximate" or (settings.search == "auto" and is_large):
        return ApproximateNeighbors.build(reference, seed=seed, device=device)
    return ExactNeighbors.build(reference, device=device)
