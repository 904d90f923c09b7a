"""What expression alone says of a cell's spot: the likelihood of its counts in every spot, as a product."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cellweft.nn.config import EVIDENCE_AXES
from cellweft.nn.device import to_device

SMOOTHING = 50
"""Counts of the tissue's mean expression that are added to a spot's: what it did not catch may be there."""

_LEARNED = ("background", "level", "to_cells", "to_spots")
_LEAST_SMOOTHING = 0.02  # of a spot's total, however many counts it has
_FEW = 0.1  # of the mean total: cells with less count for less
_LEAST_SPREAD = 1e-3  # of the mean of all genes, among the cells
_NO_COUNT = 1e-9  # smaller values are rounding
_RARE = 1e-6  # share of a gene that no spot has


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
        (n_genes, n_axes) what cells' shares and spots' logarithms are multiplied by.
    total
        Mean total of the cells' values.
    counts
        How many counts of a cell are believed, above 0.

    Notes
    -----
    A cell is taken as ``counts`` draws from a spot's expression: the logarithm of its likelihood is
    ``counts`` times the sum over genes of the gene's share in the cell times the logarithm of its smoothed
    share in the spot, less the gene's mean over the spots, on which no cell's weights depend. Its real
    counts, hundreds, would leave a cell a single spot. Genes are weighed by how much they vary among the
    cells, and the axes are those along which the spots then differ most: all of them with up to 256 genes.
    """

    background: torch.Tensor
    level: torch.Tensor
    to_cells: torch.Tensor
    to_spots: torch.Tensor
    total: float
    counts: float

    @classmethod
    def learn(cls, cells: torch.Tensor, spots: torch.Tensor, *, counts: float) -> ExpressionEvidence:
        """Return the evidence that some cells and spots, drawn from all, define.

        Parameters
        ----------
        cells, spots
            (n_cells, n_genes) and (n_spots, n_genes) log1p values; rows without any are left out.
        counts
            Counts of a cell that are believed, above 0.
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
        # in one order in memory, as a saved model is read: products would differ in the last bit
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
        """Return what cells bring to the product, (n_cells, n_genes) to (n_cells, n_axes)."""
        shares = _limited_shares(torch.expm1(values.contiguous()), self.total)
        return self.counts * shares @ self.to_cells

    def keys(self, values: torch.Tensor) -> torch.Tensor:
        """Return what spots bring to the product, (n_spots, n_genes) to (n_spots, n_axes)."""
        return (_smoothed(values, self.background) - self.level) @ self.to_spots

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return what is learned, by name, to be saved beside ``total`` and ``counts``."""
        return {name: getattr(self, name) for name in _LEARNED}

    def to(self, device: torch.device) -> ExpressionEvidence:
        """Return a copy on a device."""
        return to_device(self, device, *_LEARNED)


def _shares(natural: torch.Tensor) -> torch.Tensor:
    """Return the share of every gene in a row's total; rows without values have none."""
    return natural / natural.sum(dim=1, keepdim=True).clamp_min(1e-12)


def _limited_shares(natural: torch.Tensor, total: float) -> torch.Tensor:
    """Return shares that go to 0 with the row's total, as gradients from a cell without counts need."""
    return natural / (natural.sum(dim=1, keepdim=True) + _FEW * total)


def _smoothed(values: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """Return the logarithms of a spot's shares with some of the tissue's mean.

    A spot's smallest value above 0 is taken as one count of it.
    """
    natural = torch.expm1(values.contiguous())  # how rows lie in memory decides the last bit of their sums
    one_count = torch.where(natural > _NO_COUNT, natural, torch.inf).amin(dim=1, keepdim=True)
    counts = (natural.sum(dim=1, keepdim=True) / one_count).clamp_min(1)
    added = (SMOOTHING / counts).clamp_min(_LEAST_SMOOTHING)
    return torch.log((_shares(natural) + added * background) / (1 + added))
