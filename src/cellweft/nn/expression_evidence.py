"""Evidence from expression alone: the likelihood of a cell's counts in each spot, as a product."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cellweft.nn.config import EVIDENCE_AXES
from cellweft.nn.device import to_device

SMOOTHING = 50
"""Counts of the tissue's mean expression added to each spot, because a spot misses some molecules."""

_LEARNED = ("background", "level", "to_cells", "to_spots")
_LEAST_SMOOTHING = 0.02  # of a spot's total, however many counts it has
_FEW = 0.1  # of the mean total; cells with less have a smaller weight
_LEAST_SPREAD = 1e-3  # spread among cells, relative to the mean of all genes
_NO_COUNT = 1e-9  # smaller values are rounding
_RARE = 1e-6  # share of a gene that occurs in no spot


@dataclass(frozen=True, kw_only=True, eq=False)
class ExpressionEvidence:
    """The likelihood of a cell's expression in every spot, as a product of a cell's and a spot's numbers.

    Attributes
    ----------
    background
        (n_genes,) mean share of every gene in the spots, above 0.
    level
        (n_genes,) mean over the spots of the logarithm of a gene's smoothed share.
    to_cells, to_spots
        (n_genes, n_axes) projections of the cells' shares and of the spots' logarithms.
    total
        Mean total of the cells' values.
    counts
        Number of counts per cell in the likelihood, above 0.

    Notes
    -----
    A cell is modelled as ``counts`` draws from a spot's expression. The log likelihood is ``counts`` times
    the sum, over genes, of the gene's share in the cell times the logarithm of its smoothed share in the
    spot. The gene's mean over spots is subtracted from this logarithm, which does not change a cell's
    weights. With the real number of counts, hundreds, nearly all weight of a cell would be on one spot. Genes
    are weighted by their variation among cells. The axes are those along which spots then differ most; with
    up to 256 genes, these are all axes.
    """

    background: torch.Tensor
    level: torch.Tensor
    to_cells: torch.Tensor
    to_spots: torch.Tensor
    total: float
    counts: float

    @classmethod
    def learn(cls, cells: torch.Tensor, spots: torch.Tensor, *, counts: float) -> ExpressionEvidence:
        """Return the evidence, learned from a sample of cells and spots.

        Parameters
        ----------
        cells, spots
            (n_cells, n_genes) and (n_spots, n_genes) log1p values; empty rows are ignored.
        counts
            Number of counts per cell in the likelihood, above 0.
        """
        values = torch.expm1(cells[cells.any(dim=1)].double())
        there = spots[spots.any(dim=1)].double()
        background = _shares(torch.expm1(there)).mean(dim=0) + _RARE
        logs = _smoothed(there, background)
        level, total = logs.mean(dim=0), float(values.sum(dim=1).mean())
        n_genes = len(level)
        spread = _limited_shares(values, total).std(dim=0, correction=0)
        spread = spread + _LEAST_SPREAD * spread.mean() + _RARE
        weighed = (logs - level) * spread
        eigenvectors = torch.linalg.eigh(weighed.T @ weighed).eigenvectors
        # contiguous, like arrays of a saved model, because the memory order affects the last bit of products
        axes = eigenvectors.flip(1)[:, : min(EVIDENCE_AXES, n_genes)].contiguous()
        return cls(
            background=background.float(),
            level=level.float(),
            to_cells=(axes / spread[:, None]).float(),
            to_spots=(axes * spread[:, None]).float(),
            total=total,
            counts=float(counts),
        )

    def queries(self, values: torch.Tensor) -> torch.Tensor:
        """Return the cells' factor of the product, (n_cells, n_genes) to (n_cells, n_axes)."""
        shares = _limited_shares(torch.expm1(values.contiguous()), self.total)
        return self.counts * shares @ self.to_cells

    def keys(self, values: torch.Tensor) -> torch.Tensor:
        """Return the spots' factor of the product, (n_spots, n_genes) to (n_spots, n_axes)."""
        return (_smoothed(values, self.background) - self.level) @ self.to_spots

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the learned arrays by name; they are saved with ``total`` and ``counts``."""
        return {name: getattr(self, name) for name in _LEARNED}

    def to(self, device: torch.device) -> ExpressionEvidence:
        """Return a copy on a device."""
        return to_device(self, device, *_LEARNED)


def _shares(natural: torch.Tensor) -> torch.Tensor:
    """Return the share of each gene in a row's total; 0 for empty rows."""
    return natural / natural.sum(dim=1, keepdim=True).clamp_min(1e-12)


def _limited_shares(natural: torch.Tensor, total: float) -> torch.Tensor:
    """Return shares that go to 0 with the row's total, so that an empty cell has finite gradients."""
    return natural / (natural.sum(dim=1, keepdim=True) + _FEW * total)


def _smoothed(values: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """Return the logarithms of a spot's shares, smoothed with the mean of the tissue.

    The smallest positive value of a spot is taken as one count.
    """
    natural = torch.expm1(values.contiguous())  # the memory order affects the last bit of sums
    one_count = torch.where(natural > _NO_COUNT, natural, torch.inf).amin(dim=1, keepdim=True)
    counts = (natural.sum(dim=1, keepdim=True) / one_count).clamp_min(1)
    added = (SMOOTHING / counts).clamp_min(_LEAST_SMOOTHING)
    return torch.log((_shares(natural) + added * background) / (1 + added))
