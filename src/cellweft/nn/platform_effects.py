"""Levels of genes: turns carried patterns into expression with the mean and spread of the spatial platform.

Values that attention carries from the reference are on the reference's scale. Panel genes, each predicted
without its own measurement, show how the level of a gene on this platform depends on properties that are
known without measuring it. Two small networks learn this; they start at the level of the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F

from cellweft._compute import rows_within
from cellweft.nn.attention import AttentionModel, AttentionOperator, Moments, correlation_loss
from cellweft.nn.config import AttentionSettings
from cellweft.nn.device import to_device
from cellweft.nn.training import fit_steps, linear, warm_cosine

FEATURES = 5  # per gene
_SMALL = 0.01  # added before logarithms
_SHARES = 41  # number of candidate shares, from 0 to 1
_LEAST_ERROR = 1e-3  # of a gene, relative to the mean variance of the genes
_MOST_SLOPE = 5.0
_MOST_STANDARD = 3.0  # features of a new gene are clipped to this many standard deviations
_BATCH_CELLS, _BATCH_GENES = 256, 64
_MOST_VALUES = 2**15  # values per block: fifty numbers for each, which should fit in the cache
_JITTER = (0.3, 0.2)  # noise on the features, in standard deviations, of the two kinds of network
_DECAY = (0.1, 0.01)  # weight decay, likewise


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneLevels:
    """What is known about genes without measuring them in the tissue; all (n_genes,).

    Attributes
    ----------
    carried
        Mean and spread, over the sample, of the values that attention carries.
    pattern
        Mean and spread of the standardised carried values with the share of detection added.
    varies
        Spread of the carried values, unmodified: 0 if it is so small that `carried` contains 1 instead.
    mean, spread, expressing
        Mean, standard deviation, and share of expressing cells in the reference.
    """

    carried: Moments
    pattern: Moments
    varies: torch.Tensor
    mean: torch.Tensor
    spread: torch.Tensor
    expressing: torch.Tensor

    @classmethod
    def of(cls, model: AttentionModel, values: torch.Tensor) -> tuple[GeneLevels, torch.Tensor]:
        """Return the levels of genes, given their reference values, and the values carried to the sample.

        Parameters
        ----------
        model
            Trained attention.
        values
            (n_sc, n_genes)

        Returns
        -------
        GeneLevels, (n_sample, n_genes)
        """
        carried = AttentionOperator.of(model, model.sample).apply(values)
        moments, reference = Moments.of(carried), Moments.of(values)
        standard = moments.standard(carried)
        raw = standard + model.cells.detection_weight * model.sample_detection[:, None]
        genes = cls(
            carried=moments,
            pattern=Moments.of(raw),
            mean=reference.mean,
            varies=torch.where(standard.std(dim=0, correction=0) > 0.5, moments.spread, 0),
            spread=reference.spread * (values.amax(dim=0) > values.amin(dim=0)),
            expressing=(values > 0).float().mean(dim=0),
        )
        return genes, carried

    def patterns(self, carried: torch.Tensor, detection: torch.Tensor, weight: float) -> torch.Tensor:
        """Return standardised patterns, (B, G), from carried values and standardised detection."""
        return self.pattern.standard(self.carried.standard(carried) + weight * detection[:, None])

    def features(self) -> torch.Tensor:
        """Return the network inputs for each gene: (n_genes, `FEATURES`)."""
        odds = (self.expressing + _SMALL) / (1 - self.expressing + _SMALL)
        logs = [
            torch.log(values + _SMALL) for values in (self.carried.mean, self.varies, self.mean, self.spread)
        ]
        return torch.stack([*logs, torch.log(odds)], dim=1)

    def start(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the intercept and slope before the softplus that give the carried mean and spread."""
        mean = self.carried.mean.clamp_min(1e-3)
        intercept = mean + torch.log(-torch.expm1(-mean))  # the inverse of softplus
        return intercept, (self.varies / torch.sigmoid(intercept)).clamp(max=_MOST_SLOPE)

    def unchanged(self, pattern: torch.Tensor) -> torch.Tensor:
        """Return patterns, (B, G), with the carried mean and spread, which is the level of the reference."""
        return (self.carried.mean + self.varies * pattern).clamp_min(0)

    def take(self, genes: torch.Tensor) -> GeneLevels:
        """Return the levels of some genes."""
        return GeneLevels(**{field.name: getattr(self, field.name)[genes] for field in fields(self)})

    @staticmethod
    def join(parts: Sequence[GeneLevels]) -> GeneLevels:
        """Return several, concatenated."""

        def joined(name: str) -> Any:
            values = [getattr(part, name) for part in parts]
            return Moments.join(values) if isinstance(values[0], Moments) else torch.cat(values)

        return GeneLevels(**{field.name: joined(field.name) for field in fields(GeneLevels)})

    def to(self, device: torch.device) -> GeneLevels:
        """Return a copy on a device."""
        return to_device(self, device, "carried", "pattern", "varies", "mean", "spread", "expressing")


class LevelNet(torch.nn.Module):
    """Correction of a gene's intercept and slope, from its features alone, or also from pattern and cell."""

    def __init__(self, hidden: int, generator: torch.Generator, *, by_cell: bool) -> None:
        super().__init__()
        self.by_cell = by_cell
        self.first = linear(FEATURES + 2 * by_cell, hidden, generator)
        self.second = linear(hidden, hidden, generator)
        self.last = linear(hidden, 2, generator)
        self.direct = linear(FEATURES, 2, generator)
        with torch.no_grad():
            self.last.weight *= 0.1
            self.direct.weight *= 0.1

    def forward(self, features: torch.Tensor, pattern: torch.Tensor, detection: torch.Tensor) -> torch.Tensor:
        """Return corrections: (G, 2), or (B, G, 2) for each cell.

        Parameters
        ----------
        features, pattern, detection
            (G, `FEATURES`), (B, G), and (B, 1) or (B, G), all standardised.
        """
        inputs = features
        if self.by_cell:
            shape = pattern.shape
            of_genes = features.expand(shape[0], *features.shape)
            inputs = torch.cat([of_genes, pattern[..., None], detection.expand(shape)[..., None]], dim=-1)
        corrections: torch.Tensor = self.last(F.relu(self.second(F.relu(self.first(inputs)))))
        direct: torch.Tensor = self.direct(features)
        return corrections + direct


@dataclass(frozen=True, kw_only=True, eq=False)
class Levels:
    """Trained networks; the prediction is a weighted mean of their average and the level of the reference.

    Attributes
    ----------
    nets
        One network with inputs from the gene alone and, unless the panel is small, one with gene, pattern and
        cell.
    features
        Moments of the features of the training genes.
    share
        Weight of the networks in the prediction, 0 to 1; the rest is the level of the reference. See
        `choose_share`.
    """

    nets: tuple[LevelNet, ...]
    features: Moments
    share: float = 1.0

    @torch.no_grad()
    def values(self, pattern: torch.Tensor, detection: torch.Tensor, genes: GeneLevels) -> torch.Tensor:
        """Return expression, (B, G), at least 0.

        Parameters
        ----------
        pattern, detection, genes
            (B, G), and (B, 1) or (B, G), standardised; levels of the genes.
        """
        features = self.features.standard(genes.features()).clamp(-_MOST_STANDARD, _MOST_STANDARD)
        rows = rows_within(_MOST_VALUES, len(features))
        means = []
        for block, seen in zip(torch.split(pattern, rows), torch.split(detection, rows), strict=True):
            parts = [_value(net(features, block, seen), block, genes) for net in self.nets]
            means.append(torch.stack(parts).mean(dim=0))
        return mixed(torch.cat(means), genes.unchanged(pattern), self.share)

    def to(self, device: torch.device) -> Levels:
        """Return a copy on a device."""
        return to_device(self, device, "nets", "features")


def fit_levels(
    pattern: torch.Tensor,
    detection: torch.Tensor,
    *,
    genes: GeneLevels,
    truth: torch.Tensor,
    settings: AttentionSettings,
    generator: torch.Generator,
    by_cell: bool = True,
) -> Levels:
    """Learn levels from panel genes, each predicted without its own measurement.

    Parameters
    ----------
    pattern, truth
        (n_sample, n_panel) standardised patterns, and measured values.
    detection
        (n_sample, n_panel) standardised detection, computed without the gene itself.
    genes
        Levels of the panel genes.
    settings, generator
        Settings of the training, and the random generator.
    by_cell
        Whether to also train the network with pattern and cell.
    """
    moments = Moments.of(genes.features())
    features = moments.standard(genes.features())
    scale = truth.var(correction=0).clamp_min(1e-6)
    nets = []
    for kind in (False, True) if by_cell else (False,):
        net = LevelNet(settings.level_hidden, generator, by_cell=kind).to(truth.device)

        def loss_at(_: int, net: LevelNet = net, noise: float = _JITTER[kind]) -> torch.Tensor:
            cells = torch.randint(len(truth), (min(_BATCH_CELLS, len(truth)),), generator=generator)
            some = torch.randperm(truth.shape[1], generator=generator)[:_BATCH_GENES]
            jitter = noise * torch.randn(len(some), FEATURES, generator=generator)
            cells, some = cells.to(truth.device), some.to(truth.device)
            drawn_pattern, real = pattern[cells][:, some], truth[cells][:, some]
            corrections = net(
                features[some] + jitter.to(truth.device), drawn_pattern, detection[cells][:, some]
            )
            values = _value(corrections, drawn_pattern, genes.take(some))
            error = ((values - real) ** 2).mean() / scale
            loss = error + settings.level_pattern * correlation_loss(values, real)
            total: torch.Tensor = loss + settings.level_pull * (corrections**2).mean()
            return total

        optimiser = torch.optim.AdamW(net.parameters(), lr=settings.level_lr, weight_decay=_DECAY[kind])
        fit_steps(optimiser, loss_at, steps=settings.level_steps, rate=warm_cosine(settings.level_steps))
        nets.append(net.eval())
    return Levels(nets=tuple(nets), features=moments)


def choose_share(learned: torch.Tensor, own: torch.Tensor, truth: torch.Tensor) -> float:
    """Return the weight of the networks relative to the level of the reference.

    Parameters
    ----------
    learned, own, truth
        (n_sample, n_panel) predictions of genes by networks trained without them, the same with the level of
        the reference, and measured values.

    Returns
    -------
    0 to 1: the share with the lowest mean, over genes, of the logarithm of the squared error. With the
    logarithm, abundant genes, and genes that are hard to predict, have the same weight as all others.
    """
    learned, own, truth = (values.cpu().double() for values in (learned, own, truth))
    change, error = learned - own, own - truth
    shares = torch.linspace(0, 1, _SHARES, dtype=torch.float64)[:, None]
    squares = (error**2).mean(dim=0) + 2 * shares * (error * change).mean(dim=0)
    squares = squares + shares**2 * (change**2).mean(dim=0)
    least = _LEAST_ERROR * float(truth.var(dim=0, correction=0).mean().clamp_min(1e-6))
    return float(shares[torch.log(squares + least).mean(dim=1).argmin(), 0])


def mixed(learned: torch.Tensor, own: torch.Tensor, share: float) -> torch.Tensor:
    """Return the mean of learned and own, with weights ``share`` and 1 - ``share``."""
    return learned if share == 1 else own + share * (learned - own)


def _value(corrections: torch.Tensor, pattern: torch.Tensor, genes: GeneLevels) -> torch.Tensor:
    """Return expression from corrections of intercept and log slope, (..., G, 2), and patterns, (B, G)."""
    intercept, slope = genes.start()
    # a factor of e^3 up or down is more than any panel showed
    steepness = slope * torch.exp(corrections[..., 1].clamp(-3, 3))
    value: torch.Tensor = F.softplus(intercept + corrections[..., 0] + steepness * pattern)
    return value
