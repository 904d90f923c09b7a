"""STEM: the encoder that both sides share, its losses, training, embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional

from cellweft._compute import torch_stream
from cellweft._typing import Progress
from cellweft.nn.config import StemSettings
from cellweft.nn.device import to_device
from cellweft.nn.expression_evidence import ExpressionEvidence
from cellweft.nn.parallel import over_devices
from cellweft.nn.training import EpochProgress, fit_steps, linear

_TINY = 1e-8  # keeps the logarithm of a weight that is zero in float32 finite
_MOST_DROPOUT = 0.99  # something must remain for training
# On each side, about as many as in the paper's release. With 256, the error is larger (docs/stem.md).
_MOST_MMD_ROWS = 600
_BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the kernels of L_MMD, in multiples of the mean squared distance


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """The data of one training step.

    Attributes
    ----------
    cells, spots
        (n_cells, n_genes) and (n_spots, n_genes): log1p of counts normalised to a total of 10,000.
    adjacency
        (n_spots, n_spots) rows of S that sum to 1 over the spots of the batch, which are of one slice.
    """

    cells: torch.Tensor
    spots: torch.Tensor
    adjacency: torch.Tensor


class CellEncoder(nn.Module):
    """The multilayer perceptron that embeds both cells and spots: n_genes -> hidden -> middle -> latent."""

    def __init__(self, n_genes: int, settings: StemSettings, generator: torch.Generator) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            linear(n_genes, settings.hidden, generator),
            nn.LayerNorm(settings.hidden),
            nn.ReLU(),
            linear(settings.hidden, settings.middle, generator),
            nn.LayerNorm(settings.middle),
            nn.ReLU(),
            # The embedding has no normalisation, as its length represents certainty. With LayerNorm here, the
            # inner product of each row with itself would be the latent width, and all weights near 0 or 1.
            linear(settings.middle, settings.latent, generator),
        )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return embeddings, (n, n_genes) to (n, latent)."""
        embedded: torch.Tensor = self.layers(values)
        return embedded


def matching_dropout(cells_expressed: float, spots_expressed: float) -> float:
    """Return the share of the spots' values to drop so that both sides are equally sparse.

    Parameters
    ----------
    cells_expressed, spots_expressed
        Median number of expressed genes per cell and per spot.

    Returns
    -------
    d = 1 - cells / spots, never below 0 and at most 0.99.

    Examples
    --------
    >>> matching_dropout(100, 250), matching_dropout(300, 250)
    (0.6, 0.0)
    """
    if spots_expressed <= 0:
        return 0.0
    return min(max(0.0, 1.0 - cells_expressed / spots_expressed), _MOST_DROPOUT)


def drop_values(
    values: torch.Tensor, share: float, stream: torch.Generator, *, rescale: bool
) -> torch.Tensor:
    """Return the spots' values with a random share of them set to zero.

    Parameters
    ----------
    values
        (n_spots, n_genes)
    share
        Probability d of dropping a value, from 0 to below 1.
    stream
        Random generator, on the CPU.
    rescale
        Whether the remaining values are multiplied by 1 / (1 - d).

    Notes
    -----
    The paper ("Encoder of STEM") has a dropout layer here, and dropout layers rescale.

    Examples
    --------
    >>> stream = torch.Generator().manual_seed(0)
    >>> drop_values(torch.ones(1, 6), 0.5, stream, rescale=True)
    tensor([[0., 2., 0., 0., 0., 2.]])
    """
    is_kept = (torch.rand(values.shape, generator=stream) >= share).to(values.device)
    return values * is_kept / (1 - share) if rescale else values * is_kept


def extraction_loss(spots: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
    """Return L_extract: the mean cross-entropy of the rows of softmax(Z_ST Z_ST^T) against those of S."""
    predicted = functional.log_softmax(spots @ spots.T, dim=1)  # n_spots x n_spots
    return -(adjacency * predicted).sum(dim=1).mean()


def transition_loss(
    cells: torch.Tensor, spots: torch.Tensor, adjacency: torch.Tensor, *, visit: float = 0.0
) -> torch.Tensor:
    """Return L_trans: the mean cross-entropy of the rows of S^ = C^ C against those of S.

    Parameters
    ----------
    cells, spots
        (n_cells, latent) and (n_spots, latent) embeddings.
    adjacency
        (n_spots, n_spots)
    visit
        Weight of the visit term: the mean, over cells, of -log(the mean of the cell's column in C^).

    Notes
    -----
    DEVIATION: the visit term is not in STEM. S^ describes walks from spots to cells and back, and cells that
    no walk visits have no effect on training. The term (Haeusser et al. 2017, whose walks STEM extends) makes
    walks visit all cells.
    """
    products = cells @ spots.T  # n_cells x n_spots
    to_spots = functional.softmax(products, dim=1)  # C
    to_cells = functional.softmax(products, dim=0)  # C^, transposed
    around = to_cells.T @ to_spots  # S^, n_spots x n_spots
    loss = -(adjacency * torch.log(around + _TINY)).sum(dim=1).mean()
    if visit > 0:
        loss = loss - visit * torch.log(to_cells.mean(dim=1) + _TINY).mean()
    return loss


def mean_discrepancy(cells: torch.Tensor, spots: torch.Tensor) -> torch.Tensor:
    """Return L_MMD: the squared maximum mean discrepancy of two samples under a sum of Gaussian kernels.

    Parameters
    ----------
    cells, spots
        (n_cells, latent) and (n_spots, latent)

    Notes
    -----
    Distances are computed by matrix products. The kernel widths are set by the mean squared distance of the
    batch, and no gradient passes through them.
    """
    both = torch.cat([cells, spots])
    squares = (both * both).sum(dim=1)
    distances = (squares[:, None] + squares[None, :] - 2 * both @ both.T).clamp_min(0)
    width = distances.detach().mean().clamp_min(_TINY)
    kernel = torch.zeros_like(distances)
    for multiple in _BANDWIDTHS:
        kernel = kernel + torch.exp(-distances / (multiple * width))
    n = len(cells)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


@dataclass(frozen=True, kw_only=True, eq=False)
class StemModel:
    """A fitted STEM model: the encoders, and the settings and data of their training.

    Attributes
    ----------
    encoders
        One encoder, or several; their mappings are averaged geometrically.
    settings
        Settings of the training.
    dropout
        The share of the spots' values that was dropped in training.
    history
        Mean loss of each twentieth of the training, one list per encoder.
    device
        Device of the encoders.
    evidence
        Evidence from expression alone, used in addition to the encoders; None if it is not requested.
    """

    encoders: tuple[CellEncoder, ...]
    settings: StemSettings
    dropout: float
    history: tuple[list[float], ...]
    device: torch.device
    evidence: ExpressionEvidence | None = None

    @property
    def n_encoded(self) -> int:
        """Number of columns of the encoders in `queries` and `keys`; they are the first columns."""
        return len(self.encoders) * self.settings.latent

    def queries(self, values: torch.Tensor) -> torch.Tensor:
        """Return embeddings of cells such that softmax(queries @ keys.T) is the mapping C.

        Parameters
        ----------
        values
            (n_cells, n_genes) as in `Batch`.

        Returns
        -------
        (n_cells, n_encoders * latent), and the axes of the evidence if there is any; differentiable.

        Notes
        -----
        The geometric mean of several softmax mappings is the softmax of the mean of their products, which
        is one product of the concatenated embeddings, with one side divided by their number.
        """
        encoded = self._encoded(values) / len(self.encoders)
        return (
            encoded if self.evidence is None else torch.cat([encoded, self.evidence.queries(values)], dim=1)
        )

    def keys(self, values: torch.Tensor) -> torch.Tensor:
        """Return embeddings of spots, (n_spots, n_genes), with as many columns as `queries`."""
        encoded = self._encoded(values)
        return encoded if self.evidence is None else torch.cat([encoded, self.evidence.keys(values)], dim=1)

    def to(self, device: torch.device) -> StemModel:
        """Return a copy on a device."""
        return replace(to_device(self, device, "encoders", "evidence"), device=device)

    def _encoded(self, values: torch.Tensor) -> torch.Tensor:
        return torch.cat([encoder(values) for encoder in self.encoders], dim=1)


def train(
    draw: Callable[[int, int, torch.device], Batch],
    *,
    n_genes: int,
    dropout: float,
    settings: StemSettings,
    seed: int,
    devices: Sequence[torch.device],
    progress: EpochProgress,
) -> StemModel:
    """Train STEM on batches.

    Parameters
    ----------
    draw
        Function that returns a batch for (number of the encoder, step, device), on that device.
    n_genes
        Number of genes in the batches.
    dropout
        Share of the spots' values that each step sets to zero, from 0 to below 1.
    settings, seed
        Settings of the training, and the random seed.
    devices
        Devices of the training: each trains one encoder at a time. The model is on the first one.
    progress
        Called with (steps done, steps of all encoders).
    """
    total = settings.models * settings.steps

    def trained(number: int, device: torch.device, report: Progress) -> tuple[CellEncoder, list[float]]:
        stream = torch_stream(seed, f"stem {number}")
        encoder = CellEncoder(n_genes, settings, stream).to(device)

        def loss_at(step: int) -> torch.Tensor:
            batch = draw(number, step, device)
            dropped = drop_values(batch.spots, dropout, stream, rescale=settings.dropout_rescale)
            spots = encoder(dropped)
            return total_loss(encoder(batch.cells), spots, batch.adjacency, step=step, settings=settings)

        optimiser = torch.optim.AdamW(
            encoder.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
        )
        history = fit_steps(
            optimiser,
            loss_at,
            steps=settings.steps,
            rate=lambda step: 0.5 if step >= round(settings.halve_at * settings.steps) else 1.0,
            progress=lambda step, steps: report("training", number * steps + step, total),
        )
        return encoder.eval(), history

    numbers, report = range(settings.models), lambda _, done, total: progress(done, total)
    encoders, histories = zip(*over_devices(trained, numbers, devices, progress=report), strict=True)
    return StemModel(
        encoders=tuple(encoder.to(devices[0]) for encoder in encoders),
        settings=settings,
        dropout=dropout,
        history=histories,
        device=devices[0],
    )


def total_loss(
    cells: torch.Tensor, spots: torch.Tensor, adjacency: torch.Tensor, *, step: int, settings: StemSettings
) -> torch.Tensor:
    """Return L = L_extract + alpha L_MMD + beta L_trans at a step; beta increases during training."""
    start, end = (part * settings.steps for part in (settings.ramp_start, settings.ramp_end))
    ramp = min(max((step - start) / max(end - start, 1.0), 0.0), 1.0)
    loss = extraction_loss(spots, adjacency)
    if settings.alpha > 0:
        loss = loss + settings.alpha * mean_discrepancy(_thinned(cells), _thinned(spots))
    if ramp * settings.beta > 0:
        loss = loss + ramp * settings.beta * transition_loss(cells, spots, adjacency, visit=settings.visit)
    return loss


def _thinned(embeddings: torch.Tensor) -> torch.Tensor:
    """Return evenly spaced rows, enough for L_MMD; its cost is quadratic in their number."""
    return embeddings[:: -(-len(embeddings) // _MOST_MMD_ROWS)]
