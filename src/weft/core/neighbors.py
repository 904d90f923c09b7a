"""The k most similar reference cells of a spatial cell, by cosine, exactly and by blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch

from weft._errors import SettingError
from weft._typing import DoubleArray, FloatArray, IntArray

_EXTRA = 16  # candidates beyond k that the coarse float32 search hands to the exact float64 ranking
_SLACK = 1e-5  # more than float32 can be wrong about the difference of two cosines


class NeighborSearch(Protocol):
    """Finds the nearest reference cells of query cells."""

    def search(self, queries: DoubleArray, k: int) -> IntArray:
        """Return (n_queries, k) positions of reference cells, most similar first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ExactNeighbors:
    """Exact search: a matrix product in float32 picks candidates, float64 ranks them.

    Attributes
    ----------
    unit
        (n_reference, n_latent) reference cells at unit length; an all-zero cell stays zero.
    device
        Where the products are made.
    block
        Queries per product.

    Notes
    -----
    Ranking in float64 makes the answer independent of the block: products of another shape round their
    last float32 bit differently, which would swap neighbours that are nearly tied. Exact ties (copies of a
    cell) go by position.

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
        return cls(unit=unit_rows(reference), device=device or torch.device("cpu"), block=block)

    def search(self, queries: DoubleArray, k: int) -> IntArray:
        """Return the nearest reference cells of every query.

        Parameters
        ----------
        queries
            (n_queries, n_latent), of any length.
        k
            Neighbours, at most the cells of the reference.

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
        found = np.empty((len(queries), k), dtype=np.int64)
        room = self.coarse.new_empty(min(self.block, len(queries)), n_reference)  # made once: it is large
        for start in range(0, len(queries), self.block):
            unit = unit_rows(queries[start : start + self.block])
            rows = torch.from_numpy(unit.astype(np.float32)).to(self.device)
            likeness = torch.mm(rows, self.coarse.T, out=room[: len(unit)])  # (block, n_reference)
            found[start : start + len(unit)] = self._nearest(unit, likeness, k)
        return found

    @cached_property
    def coarse(self) -> torch.Tensor:
        """The reference in float32 on the device, (n_reference, n_latent)."""
        return torch.from_numpy(self.unit.astype(np.float32)).to(self.device)

    def _nearest(self, unit: DoubleArray, likeness: torch.Tensor, k: int) -> IntArray:
        best, candidates = likeness.topk(min(k + _EXTRA, len(self.unit)), dim=1)
        found = self._rank(unit, candidates.cpu().numpy(), k)
        if candidates.shape[1] == len(self.unit):
            return found
        # More cells may be tied than there are candidates, as many copies of a cell are: rank all of those.
        lowest = best[:, k - 1] - _SLACK
        is_zero = ~unit.any(axis=1)  # tied with every cell, so that ranking would only cost time
        found[is_zero] = np.arange(k)
        for row in np.flatnonzero((best[:, -1] >= lowest).cpu().numpy() & ~is_zero):
            tied = (likeness[row] >= lowest[row]).nonzero()[:, 0].cpu().numpy()
            found[row] = self._rank(unit[[row]], tied[None], k)[0]
        return found

    def _rank(self, unit: DoubleArray, candidates: IntArray, k: int) -> IntArray:
        candidates = np.sort(candidates, axis=1)  # so that a stable sort leaves ties in order of position
        likeness = np.einsum("bl,bcl->bc", unit, self.unit[candidates])
        order = np.argsort(-likeness, axis=1, kind="stable")[:, :k]
        ranked: IntArray = np.take_along_axis(candidates, order, axis=1)
        return ranked


def unit_rows(values: DoubleArray | FloatArray) -> DoubleArray:
    """Return the rows at unit length in float64; an all-zero row stays zero."""
    values = np.asarray(values, dtype=np.float64)
    length = np.linalg.norm(values, axis=1, keepdims=True)
    unit: DoubleArray = np.divide(values, length, out=np.zeros_like(values), where=length > 0)
    return unit
