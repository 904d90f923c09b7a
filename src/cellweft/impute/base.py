"""What an Imputer asks of a method; each method answers in a file of its own."""

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
    """How a fit shall go.

    Attributes
    ----------
    seed
        Of every random draw.
    devices
        Where trainings take place, one on each at a time; all else takes place on the first.
    reliability
        Whether to learn how far predictions can be trusted.
    progress
        Called as it goes on.
    """

    seed: int
    devices: tuple[torch.device, ...]
    reliability: bool = False
    progress: Progress = no_progress


class Predictor(Protocol):
    """Some genes, ready to be predicted in cell after cell."""

    def values(self, measured: FloatArray) -> FloatArray:
        """Return predictions: a function of the cells alone, whatever else is predicted.

        Parameters
        ----------
        measured
            (n_cells, n_panel) log-normalised panel.

        Returns
        -------
        (n_cells, n_genes) log-normalised expression, float32, at least 0.
        """


class FitFacts(Protocol):
    """What is known of a fit."""

    @property
    def preset(self) -> Preset:
        """The name of the method."""

    @property
    def seed(self) -> int:
        """Of every random draw of the fit, and of what is made again with other data."""

    @property
    def settings(self) -> ImputerSettings:
        """All settings that were used."""

    @property
    def model(self) -> Any:
        """What was learned, of the method's own kind."""

    @property
    def device(self) -> torch.device:
        """Where it works."""

    @property
    def intervals(self) -> Intervals | None:
        """What is known of how far measured values lie from predictions."""

    @property
    def count_model(self) -> CountModel | None:
        """How counts follow from predictions, of a method that learned it from counts."""

    @property
    def network(self) -> dict[str, dict[str, Any]]:
        """What the gene graph was made of, of a method that has one."""


class FittedMethod(FitFacts, Protocol):
    """A method that has learned from a pair, and what is known of its fit."""

    def to(self, device: torch.device) -> FittedMethod:
        """Return a copy that predicts on a device; the reference and the reliability stay in memory."""

    def prepare(self, genes: IntArray) -> Predictor:
        """Return what predicts some genes.

        Parameters
        ----------
        genes
            (n_genes,) positions in the reference.
        """

    def operator(self, measured: FloatArray, *, sharpness: float = 1.0) -> ReferenceOperator:
        """Return how cells see the reference: from values of its cells to values of theirs.

        Parameters
        ----------
        measured
            (n_cells, n_panel) log-normalised panel.
        sharpness
            Factor on the sharpness of attention's weights; the k neighbours of stImpute count alike whatever
            it is.

        Returns
        -------
        ReferenceOperator
            On values of all the reference's cells, (pair.sc.n_cells, n_columns), on `device`: genes, labels,
            layers. Cells without counts count nothing. With learned attention, the softmax over cells or
            metacells; with stImpute the mean of the k neighbours (Eq. 12, without the gene network).
        """

    def embed(self, measured: FloatArray, *, of: SideName) -> FloatArray:
        """Return embeddings of cells in the space in which both sides are compared, of length 1.

        Parameters
        ----------
        measured
            (n_cells, n_panel) log-normalised panel.
        of
            The side that the cells are of.

        Returns
        -------
        (n_cells, n_latent). With learned attention, the map's output; with stImpute the autoencoder's latent.
        Cells without counts are 0.
        """

    def similarity(self, pair: Pair) -> DoubleArray | None:
        """Return how near the reference comes to every spatial cell, if the method can tell."""

    def score_reliability(
        self, genes: IntArray, *, pair: Pair, judged: FloatArray | None = None
    ) -> pd.DataFrame:
        """Return what is known of genes' reliability: a row per gene, ``reliability`` and more.

        Parameters
        ----------
        genes
            (n_genes,) positions in the reference.
        pair
            The pair that the method was fitted to, or given after loading.
        judged
            (n_cells, n_genes) predictions to judge instead of the method's own.
        """

    def folder(self, pair: Pair) -> ModelFolder:
        """Return what has to be written of it; the Imputer adds preset, seed and the reference."""


class Method(Protocol):
    """A method with its settings, before it has seen data."""

    @property
    def changes(self) -> Mapping[str, Any]:
        """Settings that differ from the preset's."""

    def settings(self, pair: Pair) -> ImputerSettings:
        """Return the settings for data."""

    @property
    def network_bytes(self) -> float:
        """Bytes of the embeddings, gene sets and edges that its gene graph is made from; 0 without one."""

    def fit(self, pair: Pair, work: FitContext) -> FittedMethod:
        """Learn from a pair."""

    def restore(self, folder: ModelFolder, pair: Pair, device: torch.device) -> FittedMethod:
        """Bring back what was saved, with the data that it is for, from nothing but the two."""


def predict_all(prepare: Callable[[IntArray], Predictor], pair: Pair, genes: IntArray) -> FloatArray:
    """Return predictions of some genes in all spatial cells of a pair, held in memory.

    Parameters
    ----------
    prepare
        From positions of genes to what predicts them, as `FittedMethod.prepare`.
    pair
        Whose cells.
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
