"""Reliability of genes: a small network on out-of-fold predictions (stImpute, Eq. 13).

In the paper, the input is a gene's predicted values in all cells, and the network is trained on genes used in
the fit. Here, the input is a fixed number of summaries, so that it does not grow with the tissue, and each
training gene was predicted by a model fitted without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.model_selection import KFold
from sklearn.neighbors import NearestNeighbors

from cellweft._compute import numpy_stream, sample_rows, torch_stream
from cellweft._statistics import cosine
from cellweft._typing import DoubleArray, FloatArray, IntArray
from cellweft.data._pair import Pair
from cellweft.data.gene_major import GeneColumns
from cellweft.nn.training import fit_epochs, linear, shuffled

FOLDS = 5
SAMPLE_CELLS = 2000
SMALLEST_PANEL = 6
_SPATIAL_NEIGHBORS = 8
_COMPONENTS = 10
_NOISE = (0.0, 0.25, 0.5, 1.0, 2.0)  # in standard deviations of the prediction
_QUANTILES = (0.1, 0.5, 0.9, 0.99)
_HIDDEN, _EPOCHS, _LR = 32, 200, 0.003


class ReliabilityNet(torch.nn.Module):
    """Predicts a gene's cosine similarity with the truth from summaries of its prediction."""

    def __init__(self, n_features: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first = linear(n_features, _HIDDEN, generator)
        self.last = linear(_HIDDEN, 1, generator)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n_genes, n_features) -> (n_genes,), 0 to 1."""
        return torch.sigmoid(self.last(F.relu(self.first(features)))).squeeze(-1)


@dataclass(frozen=True, kw_only=True, eq=False)
class TissueSample:
    """Cells over which predictions are summarised, and their properties.

    Attributes
    ----------
    cells
        (n_sample,) positions of spatial cells.
    panel
        (n_sample, n_components) orthonormal basis of the measured panel, centred.
    around
        (n_sample, n_neighbors) spatial neighbours of each cell within the sample, or none without
        coordinates.
    """

    cells: IntArray
    panel: DoubleArray
    around: IntArray

    @classmethod
    def draw(cls, pair: Pair, seed: int) -> TissueSample:
        """Draw cells from a pair and summarise their measured values."""
        usable = np.flatnonzero(~pair.st.empty_cells)
        cells = sample_rows(usable, SAMPLE_CELLS, numpy_stream(seed, "reliability.cells"))
        measured = pair.st.dense(cells, pair.st_shared).astype(np.float64)
        left, size, _ = np.linalg.svd(measured - measured.mean(axis=0), full_matrices=False)
        n_components = int(min(_COMPONENTS, (size > 1e-9 * max(size[0], 1e-300)).sum()))
        around = np.empty((len(cells), 0), dtype=np.int64)
        if pair.coordinates is not None:
            k = min(_SPATIAL_NEIGHBORS, len(cells) - 1)
            around = _around(pair.coordinates[cells], None if pair.slices is None else pair.slices[cells], k)
        return cls(cells=cells, panel=left[:, :n_components], around=around)

    def summarise(self, predicted: FloatArray, reference: FloatArray) -> DoubleArray:
        """Return a fixed number of summaries per gene, for any number of cells.

        Parameters
        ----------
        predicted
            (n_sample, n_genes) predictions in the cells of the sample.
        reference
            (n_sc, n_genes) values of the genes in the reference.

        Returns
        -------
        (n_genes, n_features): level, spread, quantiles and flatness of the prediction; the share of its
        variance explained by the measured panel; its spatial autocorrelation (Moran's I); level, spread and
        share of expressing cells in the reference.
        """
        values = predicted.astype(np.float64)
        mean, spread = values.mean(axis=0), values.std(axis=0)
        rms = np.sqrt((values**2).mean(axis=0))
        centred = (values - mean) / np.maximum(spread, 1e-9)
        explained = ((self.panel.T @ centred) ** 2).sum(axis=0) / len(values)
        likeness = np.zeros(values.shape[1])
        for column in self.around.T:
            likeness += (centred * centred[column]).mean(axis=0) / self.around.shape[1]
        parts = [mean, spread, mean / np.maximum(rms, 1e-9), *np.quantile(values, _QUANTILES, axis=0)]
        level, varies = reference.mean(axis=0, dtype=np.float64), reference.std(axis=0, dtype=np.float64)
        parts += [explained, likeness, level, varies, (reference > 0).mean(axis=0)]
        return np.stack(parts, axis=1).astype(np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class ReliabilityNets:
    """The fitted reliability networks.

    Attributes
    ----------
    centre, scale
        (n_features,) used to standardise summaries.
    nets
        One per fold of the panel; each was trained without the genes of its fold.
    fold_of
        Fold of each panel gene, by its name in the reference.
    panel_scores
        Score of the out-of-fold prediction of each panel gene, from the network of its fold.
    """

    centre: DoubleArray
    scale: DoubleArray
    nets: tuple[ReliabilityNet, ...]
    fold_of: dict[str, int]
    panel_scores: dict[str, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reliability:
    """Networks, and the cells of a tissue over which predictions are summarised."""

    nets: ReliabilityNets
    sample: TissueSample

    def score(self, predicted: FloatArray, reference: FloatArray, genes: NDArray[np.str_]) -> DoubleArray:
        """Return the expected cosine similarity of genes.

        Parameters
        ----------
        predicted
            (n_sample, n_genes) predictions in the sample's cells.
        reference
            (n_sc, n_genes) values of the genes in the reference.
        genes
            (n_genes,) their names in the reference.

        Returns
        -------
        (n_genes,) 0 to 1. The score of a panel gene is from the network of its fold, that of others the mean
        of all networks.

        Notes
        -----
        A model's prediction of a gene that it was fitted to looks better than an out-of-fold prediction. For
        these genes, use `ReliabilityNets.panel_scores`.
        """
        features = (self.sample.summarise(predicted, reference) - self.nets.centre) / self.nets.scale
        with torch.no_grad():
            inputs = torch.from_numpy(features.astype(np.float32))
            scores = np.stack([net(inputs).numpy() for net in self.nets.nets]).astype(np.float64)
        result: DoubleArray = scores.mean(axis=0)  # (folds, n_genes) -> (n_genes,)
        for place, gene in enumerate(genes):
            fold = self.nets.fold_of.get(str(gene))
            if fold is not None:
                result[place] = scores[fold, place]
        return result


@dataclass(frozen=True, kw_only=True, eq=False)
class LeftOut:
    """A fold of the panel, and the data to predict it.

    Attributes
    ----------
    panel
        Positions of the fold's genes on the panel.
    genes
        Their positions in the reference.
    train
        The pair without these genes.
    cells
        The cells of the sample, without these genes.
    """

    panel: IntArray
    genes: IntArray
    train: Pair
    cells: Pair


def leave_out(pair: Pair, sample: TissueSample, *, seed: int) -> list[LeftOut]:
    """Return the folds of a panel, which are independent trainings.

    Parameters
    ----------
    pair, sample
        The data, and the cells to predict.
    seed
        Seed of the folds.

    Returns
    -------
    `FOLDS` folds, or none if the panel has fewer than `SMALLEST_PANEL` genes.
    """
    if len(pair.shared_genes) < SMALLEST_PANEL:
        return []
    cells = pair.cells(sample.cells)
    cutter = KFold(FOLDS, shuffle=True, random_state=seed % 2**32)
    folds = []
    for _, held in cutter.split(pair.shared_genes):
        other_genes = np.delete(pair.shared_genes, held)
        folds.append(
            LeftOut(
                panel=held,
                genes=pair.sc_shared[held],
                train=pair.panel(other_genes),
                cells=cells.panel(other_genes),
            )
        )
    return folds


def fit_reliability(
    pair: Pair,
    columns: GeneColumns,
    sample: TissueSample,
    *,
    folds: Sequence[LeftOut],
    predictions: Sequence[FloatArray],
    seed: int,
) -> Reliability:
    """Learn reliability from panel genes, each predicted without its measurement.

    Parameters
    ----------
    pair
        The data.
    columns
        The reference, stored by gene.
    sample, folds
        The cells, and the folds of the panel, from `leave_out`.
    predictions
        (n_sample, n_genes) predictions of each fold's genes by a model that was trained without them.
    seed
        Seed of all draws.
    """
    predicted = np.empty((len(sample.cells), len(pair.shared_genes)), dtype=np.float32)
    for fold, values in zip(folds, predictions, strict=True):
        predicted[:, fold.panel] = values
    truth = pair.st.dense(sample.cells, pair.st_shared)
    features, labels, gene_of = _noisy_examples(sample, predicted, truth, columns.dense(pair.sc_shared), seed)
    centre, scale = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-9)
    standard = torch.from_numpy(((features - centre) / scale).astype(np.float32))
    targets = torch.from_numpy(labels.astype(np.float32))
    nets = []
    for number, fold in enumerate(folds):
        seen = torch.from_numpy(np.flatnonzero(~np.isin(gene_of, fold.panel)))
        nets.append(_fit_net(standard[seen], targets[seen], torch_stream(seed, f"reliability.{number}")))
    fold_of = {
        str(pair.shared_genes[gene]): number for number, fold in enumerate(folds) for gene in fold.panel
    }
    learned = ReliabilityNets(centre=centre, scale=scale, nets=tuple(nets), fold_of=fold_of, panel_scores={})
    reliability = Reliability(nets=learned, sample=sample)
    scores = reliability.score(predicted, columns.dense(pair.sc_shared), pair.shared_genes)
    learned.panel_scores.update(zip(map(str, pair.shared_genes), scores.tolist(), strict=True))
    return reliability


def _noisy_examples(
    sample: TissueSample, predicted: FloatArray, truth: FloatArray, reference: FloatArray, seed: int
) -> tuple[DoubleArray, DoubleArray, IntArray]:
    """Return summaries, true cosines and genes of predictions, unchanged and with added noise.

    A panel has only a few dozen genes for training. Noisy copies, labelled with their own cosine, add
    examples of bad predictions.
    """
    generator = numpy_stream(seed, "reliability.noise")
    features, labels = [], []
    for level in _NOISE:
        noise = generator.standard_normal(predicted.shape) * predicted.std(axis=0) * level
        noisy = (predicted + noise).astype(np.float32)
        features.append(sample.summarise(noisy, reference))
        labels.append(cosine(noisy, truth))
    genes = np.tile(np.arange(predicted.shape[1]), len(_NOISE))
    return np.concatenate(features), np.concatenate(labels), genes


def _fit_net(features: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> ReliabilityNet:
    net = ReliabilityNet(features.shape[1], generator)
    fit_epochs(
        net.parameters(),
        lambda rows: F.mse_loss(net(features[rows]), targets[rows]),  # (13)
        lambda: shuffled(len(features), size=64, generator=generator),
        epochs=_EPOCHS,
        lr=_LR,
    )
    return net


def _around(coordinates: DoubleArray, slices: NDArray[np.str_] | None, k: int) -> IntArray:
    """Return the k nearest cells of each cell in its slice (a cell alone in its slice: itself)."""
    around = np.repeat(np.arange(len(coordinates))[:, None], k, axis=1)
    for name in [None] if slices is None else np.unique(slices):
        cells = np.arange(len(coordinates)) if name is None else np.flatnonzero(slices == name)
        n_near = min(k, len(cells) - 1)
        if n_near > 0:
            search = NearestNeighbors(n_neighbors=n_near).fit(coordinates[cells])
            around[cells, :n_near] = cells[search.kneighbors(return_distance=False)]
    return around
