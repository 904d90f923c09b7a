"""The interface between the Imputer and its methods; each method has its own file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import pandas as pd
import torch

from cellweft._compute import BLOCK_GENES, READ_ROWS, row_blocks
from cellweft._model_folder import ModelFolder
from cellweft._typing import DoubleArray, FloatArray, IntArray, Preset, Progress, no_progress
from cellweft.data._pair import Pair
from cellweft.data.io.prefetch import prefetch
from cellweft.data.side import SideName
from cellweft.impute.uncertainty.count_model import CountModel
from cellweft.impute.uncertainty.prediction_intervals import Intervals
from cellweft.nn.config import AttentionSettings, StImputeSettings
from cellweft.nn.operator import ReferenceOperator

ImputerSettings: TypeAlias = StImputeSettings | AttentionSettings


@dataclass(frozen=True, kw_only=True)
class FitContext:
    """The context of a fit.

    Attributes
    ----------
    seed
        Seed of all random draws.
    devices
        Devices of the trainings, one training per device at a time; all else is computed on the first.
    reliability
        Whether to learn the reliability of predictions.
    progress
        Progress callback.
    """

    seed: int
    devices: tuple[torch.device, ...]
    reliability: bool = False
    progress: Progress = no_progress


class Predictor(Protocol):
    """Some genes, ready to be predicted in blocks of cells."""

    def values(self, measured: FloatArray) -> FloatArray:
        """Return predictions; they depend only on the given cells, not on other predictions.

        Parameters
        ----------
        measured
            (n_cells, n_panel) log-normalised panel.

        Returns
        -------
        (n_cells, n_genes) log-normalised expression, float32, at least 0.
        """


class FitFacts(Protocol):
    """Properties of a fit."""

    @property
    def preset(self) -> Preset:
        """The name of the method."""

    @property
    def seed(self) -> int:
        """Seed of all random draws, in the fit and in steps repeated with other data."""

    @property
    def settings(self) -> ImputerSettings:
        """All settings that were used."""

    @property
    def model(self) -> Any:
        """The fitted model, of the method's own type."""

    @property
    def device(self) -> torch.device:
        """The device of the model."""

    @property
    def intervals(self) -> Intervals | None:
        """The fitted distribution of measured values around predictions."""

    @property
    def count_model(self) -> CountModel | None:
        """The fitted model of counts given predictions, if the method learned it."""

    @property
    def network(self) -> dict[str, dict[str, Any]]:
        """The inputs of the gene graph, if the method has one."""


class FittedMethod(FitFacts, Protocol):
    """A method fitted to a pair, and the properties of the fit."""

    def to(self, device: torch.device) -> FittedMethod:
        """Return a copy that predicts on a device; the reference and the reliability stay in memory."""

    def prepare(self, genes: IntArray) -> Predictor:
        """Return the predictor of some genes.

        Parameters
        ----------
        genes
            (n_genes,) positions in the reference.
        """

    def operator(self, measured: FloatArray, *, sharpness: float = 1.0) -> ReferenceOperator:
        """Return the operator from values of reference cells to values of the given cells.

        Parameters
        ----------
        measured
            (n_cells, n_panel) log-normalised panel.
        sharpness
            Factor on the sharpness of attention's weights. It has no effect on stImpute, whose k neighbours
            have equal weights.

        Returns
        -------
        ReferenceOperator
            For values of all reference cells, (pair.sc.n_cells, n_columns), on `device`: genes, labels,
            layers. Cells without counts have weight 0. With learned attention, this is the softmax over cells
            or metacells; with stImpute, the mean of the k neighbours (Eq. 12, without the gene network).
        """

    def embed(self, measured: FloatArray, *, of: SideName) -> FloatArray:
        """Return embeddings of cells, of length 1, in the space in which both sides are compared.

        Parameters
        ----------
        measured
            (n_cells, n_panel) log-normalised panel.
        of
            The side of the cells.

        Returns
        -------
        (n_cells, n_latent). With learned attention, the output of the map; with stImpute, the autoencoder's
        latent values. Cells without counts are 0.
        """

    def similarity(self, pair: Pair) -> DoubleArray | None:
        """Return the similarity of each spatial cell to the reference, if the method defines one."""

    def score_reliability(
        self, genes: IntArray, *, pair: Pair, judged: FloatArray | None = None
    ) -> pd.DataFrame:
        """Return the reliability of genes: one row per gene, with ``reliability`` and more.

        Parameters
        ----------
        genes
            (n_genes,) positions in the reference.
        pair
            The pair of the fit, or the one attached after loading.
        judged
            (n_cells, n_genes) predictions to evaluate instead of the method's own.
        """

    def folder(self, pair: Pair) -> ModelFolder:
        """Return the contents of its model folder; the Imputer adds preset, seed and the reference."""


class Method(Protocol):
    """A method with its settings, before the fit."""

    @property
    def changes(self) -> Mapping[str, Any]:
        """Settings that differ from the preset's."""

    def settings(self, pair: Pair) -> ImputerSettings:
        """Return the settings for a pair."""

    @property
    def network_bytes(self) -> float:
        """Bytes of the embeddings, gene sets and edges of its gene graph; 0 without a graph."""

    def fit(self, pair: Pair, work: FitContext) -> FittedMethod:
        """Fit the method to a pair."""

    def restore(self, folder: ModelFolder, pair: Pair, device: torch.device) -> FittedMethod:
        """Restore a saved fit, given its folder and its data."""


def predict_all(prepare: Callable[[IntArray], Predictor], pair: Pair, genes: IntArray) -> FloatArray:
    """Return predictions of some genes in all spatial cells of a pair, as an array.

    Parameters
    ----------
    prepare
        Returns the predictor for positions of genes, like `FittedMethod.prepare`.
    pair
        The pair; its spatial cells are predicted.
    genes
        (n_genes,) positions in the reference.

    Returns
    -------
    (n_cells, n_genes)
    """
    result = np.empty((pair.st.n_cells, len(genes)), dtype=np.float32)
    blocks = list(row_blocks(pair.st.n_cells, READ_ROWS))
    for places in row_blocks(len(genes), BLOCK_GENES):
        predictor = prepare(genes[places])
        cells = prefetch(pair.st.dense(rows, pair.st_shared) for rows in blocks)
        for rows, measured in zip(blocks, cells, strict=True):
            result[rows, places] = predictor.values(measured)
    return result
