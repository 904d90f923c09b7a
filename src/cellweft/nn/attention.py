"""Learned attention: unseen genes of a spatial cell as weighted means over the cells of the reference.

One linear map embeds spatial and reference cells. It is learned by leaving genes out: each step hides some
genes of the panel on both sides, predicts them in the spatial cells as softmax-weighted means over the
reference, and compares the prediction with the measurement by correlation. Training therefore optimises the
task itself.

Letters: B cells of a block, P genes used to compare cells, G genes to predict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from cellweft._compute import torch_stream
from cellweft._typing import DoubleArray, FloatArray, IntArray, Progress, no_progress
from cellweft.nn.config import AttentionSettings, keys_of
from cellweft.nn.device import to_device
from cellweft.nn.mapping import Mapping
from cellweft.nn.metacells import Metacells, group_cells
from cellweft.nn.similarity import centred
from cellweft.nn.training import EpochProgress, fit_steps, warm_cosine

_TINY = 1e-6
_LEAST_USE = 0.05  # smallest use of a reference cell, relative to the mean


class CellMap(torch.nn.Module):
    """The linear map that embeds cells of both sides, with its scalar parameters.

    Parameters
    ----------
    n_genes
        P.
    settings
        Initial temperature and weight of detection; the map itself starts at the identity.
    """

    def __init__(self, n_genes: int, settings: AttentionSettings) -> None:
        super().__init__()
        self.of_logs = torch.nn.Parameter(torch.eye(n_genes))
        self.of_scores = torch.nn.Parameter(torch.eye(n_genes))
        self.shares = torch.nn.Parameter(torch.ones(2))
        self.log_sharpness = torch.nn.Parameter(torch.tensor(-math.log(settings.temperature)))
        self.detection = torch.nn.Parameter(torch.tensor(float(settings.detection)))

    def forward(
        self, logs: torch.Tensor, scores: torch.Tensor, seen: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return embeddings of length 1 (0 for empty cells): (B, P).

        Parameters
        ----------
        logs, scores
            (B, P) log-normalised values of cells of one side, and their z-scores within that side.
        seen
            (P,) 0 for genes that are hidden, else 1.
        """
        parts = []
        for values, weights in ((logs, self.of_logs), (scores, self.of_scores)):
            visible = values if seen is None else values * seen
            parts.append(F.normalize(visible, dim=1, eps=_TINY) @ weights)
        return F.normalize(self.shares[0] * parts[0] + self.shares[1] * parts[1], dim=1, eps=_TINY)

    @property
    def detection_weight(self) -> float:
        """Weight of the standardised detection, relative to a standardised carried value."""
        return float(self.detection.detach())

    def drift(self) -> torch.Tensor:
        """Return the distance of the maps from their initial values, as a sum of squares."""
        start = torch.eye(len(self.of_logs), device=self.of_logs.device)
        return ((self.of_logs - start) ** 2).sum() + ((self.of_scores - start) ** 2).sum()


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Mean and standard deviation (1 where it is 0) of columns: each (n_columns,)."""

    mean: torch.Tensor
    spread: torch.Tensor

    @classmethod
    def of(cls, values: torch.Tensor) -> Moments:
        """Compute the moments of (n_rows, n_columns) values, in float64 if the device supports it."""
        exact = values if values.device.type == "mps" else values.double()
        mean, spread = exact.mean(dim=0), exact.std(dim=0, correction=0)
        return cls(
            mean=mean.float(), spread=torch.where(spread > _TINY, spread, torch.ones_like(spread)).float()
        )

    def __getitem__(self, columns: torch.Tensor) -> Moments:
        return Moments(mean=self.mean[columns], spread=self.spread[columns])

    @staticmethod
    def join(parts: Sequence[Moments]) -> Moments:
        """Return the moments of several sets of columns, concatenated."""
        means, spreads = [part.mean for part in parts], [part.spread for part in parts]
        return Moments(mean=torch.cat(means), spread=torch.cat(spreads))

    def standard(self, values: torch.Tensor) -> torch.Tensor:
        """Return z-scores: (values - mean) / spread."""
        return (values - self.mean) / self.spread

    def to(self, device: torch.device) -> Moments:
        """Return a copy on a device."""
        return to_device(self, device, "mean", "spread")


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionModel:
    """A trained map, and all that predicting a gene needs except its values in the reference.

    Attributes
    ----------
    settings
        The settings of the training.
    inputs
        (P,) positions, within the panel, of the genes used to compare cells.
    cells
        The map, on the device.
    spatial, reference
        Moments of the log-normalised input genes on each side.
    detected
        Mean and spread of the share of inputs that a spatial cell detects, (1,) each.
    keys
        (n_sc, P) embeddings of the reference.
    sample
        (n_sample, P) queries of the tissue cells over which genes are standardised.
    sample_detection
        (n_sample,) standardised share of the inputs that each of these cells detects.
    history
        Mean loss per twentieth of the training.
    metacells
        Groups of reference cells that share one key, or None if each cell has its own.
    metacell_keys
        (n_metacells, P + 1) keys of the metacells, and the term added to each product; see `with_metacells`.
    """

    settings: AttentionSettings
    inputs: IntArray
    cells: CellMap
    spatial: Moments
    reference: Moments
    detected: Moments
    keys: torch.Tensor
    sample: torch.Tensor
    sample_detection: torch.Tensor
    history: tuple[float, ...] = ()
    metacells: Metacells | None = None
    metacell_keys: torch.Tensor | None = None

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.keys.device

    @property
    def n_keys(self) -> int:
        """Number of columns of `mapping`: metacells, or cells of the reference."""
        return len(self.keys if self.metacells is None else self.metacells.sizes)

    @torch.no_grad()
    def queries(self, measured: FloatArray) -> torch.Tensor:
        """Return the queries of spatial cells, (B, P): embeddings times the sharpness of the softmax.

        Parameters
        ----------
        measured
            (B, n_panel) log-normalised panel.
        """
        logs = torch.from_numpy(np.ascontiguousarray(measured[:, self.inputs])).to(self.device)
        return queries_of(self.cells, logs, self.spatial)

    def detection(self, measured: FloatArray) -> torch.Tensor:
        """Return the standardised share of the inputs that each cell detects: (B,)."""
        share = (measured[:, self.inputs] > 0).mean(axis=1, keepdims=True, dtype=np.float64)
        return self.detected.standard(torch.from_numpy(share.astype(np.float32)).to(self.device))[:, 0]

    def condensed(self, *, most: int, seed: int) -> AttentionModel:
        """Return the model with its reference grouped into metacells, or ungrouped if it is small.

        Parameters
        ----------
        most
            Largest number of metacells. A reference with no more cells than this is not grouped.
        seed
            Seed of the grouping; the same model and seed give the same groups.

        Notes
        -----
        Two reference cells are similar if the tissue cells give them similar weights. Cells with large
        weights are divided into smaller groups, so that cell types absent from the tissue do not use up the
        metacells.
        """
        if len(self.keys) <= most:
            return with_metacells(self, None)
        whole = Mapping(queries=self.sample, keys=self.keys)
        use = whole.apply_transpose(self.sample.new_ones(len(self.sample), 1))[:, 0].cpu().double().numpy()
        weights = np.sqrt(np.maximum(use / use.mean(), _LEAST_USE))
        return with_metacells(self, group_cells(_as_seen(self), most=most, seed=seed, weights=weights))

    def to(self, device: torch.device) -> AttentionModel:
        """Return a copy on a device."""
        moments, of_sample = ("spatial", "reference", "detected"), ("sample", "sample_detection")
        return to_device(self, device, "cells", "keys", "metacell_keys", *moments, *of_sample)

    def at_keys(self, values: torch.Tensor) -> torch.Tensor:
        """Return the values that `mapping` averages: those of the cells, or the means of the metacells.

        Parameters
        ----------
        values
            (n_sc, G) values of genes in the reference.

        Returns
        -------
        (n_sc, G) or (n_metacells, G)
        """
        if self.metacells is None:
            return values
        return torch.from_numpy(self.metacells.average(values.cpu().numpy())).to(values.device)

    def mapping(self, queries: torch.Tensor) -> Mapping:
        """Return the attention of queries to metacells, or to cells if there are no metacells."""
        half = self.settings.precision == "bfloat16"
        if self.metacell_keys is None:
            return Mapping(queries=queries, keys=self.keys, half=half)
        ones = queries.new_ones(len(queries), 1)
        return Mapping(queries=torch.cat([queries, ones], dim=1), keys=self.metacell_keys, half=half)

    @torch.no_grad()
    def within(self, cells: IntArray, values: torch.Tensor) -> torch.Tensor:
        """Return the prediction for some reference cells from all other reference cells: (n_cells, G).

        This always uses single cells, because a cell cannot be excluded from its metacell.

        Parameters
        ----------
        cells
            (n_cells,) positions in the reference.
        values
            (n_sc, G) values of the genes in the reference.
        """
        rows = torch.from_numpy(cells).to(self.device)
        queries = self.keys[rows] * self.cells.log_sharpness.exp()
        mapping = Mapping(queries=queries, keys=self.keys)
        own = ((queries * self.keys[rows]).sum(dim=1) - mapping.log_total).exp()[:, None]  # own weight
        others: torch.Tensor = (mapping.apply(values) - own * values[rows]) / (1 - own).clamp_min(_TINY)
        return others

    def similarity(self, queries: torch.Tensor) -> DoubleArray:
        """Return the similarity of cells to the reference: the soft maximum of cosines, (B,), up to 1."""
        sharpness = float(self.cells.log_sharpness.detach().exp())
        total = self.mapping(queries).log_total.cpu().double().numpy()
        return np.asarray((total - math.log(len(self.keys))) / sharpness)


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionOperator:
    """Softmax attention from reference cells to other cells, through metacells if there are any.

    See `cellweft.nn.operator.ReferenceOperator`.

    Attributes
    ----------
    mapping
        Attention to the cells or the metacells of the reference.
    model
        The model, with its reference.
    """

    mapping: Mapping
    model: AttentionModel

    @classmethod
    def of(cls, model: AttentionModel, queries: torch.Tensor) -> AttentionOperator:
        """Return the attention of (B, P) queries."""
        return cls(mapping=model.mapping(queries), model=model)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells, and of reference cells."""
        return len(self.mapping.queries), len(self.model.keys)

    def apply(self, values: torch.Tensor) -> torch.Tensor:
        """Return weighted means of (n_sc, G) values: (B, G)."""
        return self.mapping.apply(self.model.at_keys(values))

    def apply_transpose(self, values: torch.Tensor) -> torch.Tensor:
        """Return (B, G) values spread over the reference: (n_sc, G); equal for all cells of a metacell."""
        spread, metacells = self.mapping.apply_transpose(values), self.model.metacells
        if metacells is None:
            return spread
        sizes, groups = (
            torch.from_numpy(array).to(values.device) for array in (metacells.sizes, metacells.groups)
        )
        return (spread / sizes[:, None])[groups]


def with_metacells(model: AttentionModel, metacells: Metacells | None) -> AttentionModel:
    """Return a model with its reference grouped into metacells, or ungrouped for None.

    Notes
    -----
    For a group of n cells with mean key m, the logarithm of the sum of exp(q k) is, to second order, q m +
    log n + v / 2, where v is the mean of (q (k - m))^2 over the group and the sample's queries q.
    """
    if metacells is None:
        return replace(model, metacells=None, metacell_keys=None)
    counts = np.log(metacells.sizes) + metacells.spread(_as_seen(model)) / 2
    table = np.column_stack([metacells.average(model.keys.cpu().numpy()), counts])
    keys = torch.from_numpy(table.astype(np.float32)).to(model.device)
    return replace(model, metacells=metacells, metacell_keys=keys)


def _as_seen(model: AttentionModel) -> DoubleArray:
    """Return points whose squared distance is the mean squared difference of log weights: (n_sc, <= P).

    The mean of (q k - q k')^2 over the n queries Q of the sample is |R k - R k'|^2, where U R is the QR
    decomposition of Q / sqrt(n).
    """
    queries = model.sample.cpu().double().numpy() / math.sqrt(len(model.sample))
    upper = np.asarray(np.linalg.qr(queries, mode="r"))
    return np.asarray(model.keys.cpu().double().numpy() @ upper.T)


@torch.no_grad()
def with_reference(model: AttentionModel, reference: FloatArray, *, seed: int) -> AttentionModel:
    """Return the model with another ``reference``, (n_sc, P) input values; ``seed`` is for metacells."""
    logs = torch.from_numpy(np.ascontiguousarray(reference)).to(model.device)
    keys = model.cells(logs, model.reference.standard(logs))
    return condensed_if_large(replace(model, keys=keys), seed=seed)


def condensed_if_large(model: AttentionModel, *, seed: int) -> AttentionModel:
    """Return the model, with metacells if the reference is large; see `keys_of`.

    Parameters
    ----------
    model
        A trained model; ``most_keys`` is one of its settings.
    seed
        Seed of the grouping.
    """
    most, n_cells = model.settings.most_keys, len(model.keys)
    is_large = keys_of(n_cells, most=most) < n_cells
    return model.condensed(most=most, seed=seed) if is_large else model


@torch.no_grad()
def queries_of(cells: CellMap, logs: torch.Tensor, moments: Moments) -> torch.Tensor:
    """Return the queries of cells, (B, P), from their values of the inputs, (B, P)."""
    queries: torch.Tensor = cells(logs, moments.standard(logs)) * cells.log_sharpness.exp()
    return queries


def choose_inputs(measured: FloatArray, reference: FloatArray, most: int) -> IntArray:
    """Return the genes used to compare cells: all, or the most variable ones on both sides.

    Parameters
    ----------
    measured, reference
        (n_cells, n_panel) values of the two sides.
    most
        Largest number of genes.

    Returns
    -------
    Positions within the panel, in increasing order.
    """
    if measured.shape[1] <= most:
        return np.arange(measured.shape[1])
    shares = np.zeros(measured.shape[1])
    for values in (measured, reference):
        variance = values.var(axis=0, dtype=np.float64)
        shares += variance / max(variance.sum(), 1e-300)
    return np.sort(np.argsort(-shares, kind="stable")[:most])


def train(
    measured: FloatArray,
    reference: FloatArray,
    sample: FloatArray,
    *,
    settings: AttentionSettings,
    seed: int,
    device: torch.device,
    progress: Progress = no_progress,
) -> AttentionModel:
    """Train attention by leaving genes out.

    Parameters
    ----------
    measured
        (n_training, n_panel) log-normalised spatial cells.
    reference
        (n_sc, n_panel) the same genes in the reference.
    sample
        (n_sample, n_panel) spatial cells over which genes will be standardised.
    settings, seed, device, progress
        Settings of the training, random seed, device, and a progress callback.
    """
    inputs = choose_inputs(measured, reference, settings.most_inputs)
    tissue, atlas = (
        torch.from_numpy(np.ascontiguousarray(side[:, inputs])).to(device) for side in (measured, reference)
    )
    moments = Moments.of(tissue), Moments.of(atlas)
    cells = CellMap(len(inputs), settings).to(device)
    history = _fit(
        cells,
        (tissue, atlas),
        moments,
        settings=settings,
        generator=torch_stream(seed, "attention"),
        progress=lambda done, total: progress("attention", done, total),
    )
    input_values = torch.from_numpy(np.ascontiguousarray(sample[:, inputs])).to(device)
    share = (input_values > 0).float().mean(dim=1, keepdim=True)
    detected = Moments.of(share)
    with torch.no_grad():
        keys = cells(atlas, moments[1].standard(atlas))
    return AttentionModel(
        settings=settings,
        inputs=inputs,
        cells=cells,
        spatial=moments[0],
        reference=moments[1],
        detected=detected,
        keys=keys,
        sample=queries_of(cells, input_values, moments[0]),
        sample_detection=detected.standard(share)[:, 0],
        history=tuple(history),
    )


def correlation_loss(predicted: torch.Tensor, measured: torch.Tensor) -> torch.Tensor:
    """Return 1 - Pearson correlation over cells, averaged over the genes that vary.

    Parameters
    ----------
    predicted, measured
        (B, G)
    """
    left, right = centred(predicted), centred(measured)
    sizes = left.norm(dim=0).clamp_min(_TINY), right.norm(dim=0)
    varies = sizes[1] > _TINY
    pearson = (left * right).sum(dim=0) / (sizes[0] * sizes[1].clamp_min(_TINY))
    loss: torch.Tensor = ((1 - pearson) * varies).sum() / varies.sum().clamp_min(1)
    return loss


def _fit(
    cells: CellMap,
    sides: tuple[torch.Tensor, torch.Tensor],
    moments: tuple[Moments, Moments],
    *,
    settings: AttentionSettings,
    generator: torch.Generator,
    progress: EpochProgress,
) -> list[float]:
    """Train the map in place, on the input genes of both sides."""
    n_genes = sides[0].shape[1]
    n_least, n_most = 1, n_genes - 2  # of hidden genes; at least two remain as inputs
    if n_most < n_least:
        return []
    logs, scores = sides, [moment.standard(side) for moment, side in zip(moments, sides, strict=True)]
    sizes = settings.batch_cells, settings.batch_reference

    def loss_at(_: int) -> torch.Tensor:
        spatial, atlas = (
            torch.randint(len(side), (min(size, len(side)),), generator=generator).to(side.device)
            for side, size in zip(sides, sizes, strict=True)
        )
        part = settings.hide_least + (settings.hide_most - settings.hide_least) * torch.rand(
            1, generator=generator
        )
        n_hidden = int((part * n_genes).round().clamp(n_least, n_most))
        hidden = torch.randperm(n_genes, generator=generator)[:n_hidden].to(sides[0].device)
        seen = torch.ones(n_genes, device=sides[0].device)
        seen[hidden] = 0
        queries = cells(logs[0][spatial], scores[0][spatial], seen)
        keys = cells(logs[1][atlas], scores[1][atlas], seen)
        weights = torch.softmax(cells.log_sharpness.exp() * queries @ keys.T, dim=1)
        truth = logs[0][spatial]
        carried = _standard(weights @ logs[1][atlas][:, hidden])
        detected = _standard(((truth > 0) * seen).sum(dim=1, keepdim=True))
        loss = correlation_loss(carried + cells.detection * detected, truth[:, hidden])
        return loss + settings.pull * cells.drift()

    optimiser = torch.optim.Adam(cells.parameters(), lr=settings.lr, betas=(0.9, 0.99))
    rate = warm_cosine(settings.steps)
    return fit_steps(optimiser, loss_at, steps=settings.steps, rate=rate, progress=progress)


def _standard(values: torch.Tensor) -> torch.Tensor:
    """Return columns with mean 0 and standard deviation 1, differentiably."""
    values = centred(values)
    return values / (values**2).mean(dim=0).clamp_min(_TINY**2).sqrt()  # clamped, for finite gradients
