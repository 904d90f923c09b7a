"""Between a pair and learned attention: fitting with genes left out, and predictions block by block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.model_selection import KFold

from cellweft._compute import (
    BLOCK_GENES,
    READ_ROWS,
    numpy_stream,
    row_blocks,
    rows_within,
    sample_rows,
    torch_stream,
)
from cellweft._typing import DoubleArray, FloatArray, IntArray, Progress, no_progress
from cellweft.data._pair import Pair
from cellweft.data.gene_major import GeneColumns
from cellweft.data.io.keys import RELIABILITY, RELIABILITY_LOWER, RELIABILITY_UPPER, RELIABLE
from cellweft.impute.training_data import panel_of, training_cells
from cellweft.impute.uncertainty.expected_correlation import (
    Predictability,
    correlate,
    fit_predictability,
    summaries,
)
from cellweft.nn import attention
from cellweft.nn.attention import AttentionModel
from cellweft.nn.config import SAMPLE_CELLS, AttentionSettings
from cellweft.nn.device import to_device
from cellweft.nn.parallel import over_devices
from cellweft.nn.platform_effects import GeneLevels, Levels, fit_levels

Splits: TypeAlias = list[tuple[IntArray, IntArray]]
"""Genes of the panel that are kept, and that are left out, part by part."""
_VALUES, _FEWEST_ROWS = 2**20, 64  # values that are carried and given levels at once, of no fewer cells
_FEWEST_IN_FOLD = 2
_QUERIES = 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionPredictor:
    """Trained attention and levels with the reference by gene: what predicts.

    Attributes
    ----------
    model, levels
        What was learned; no levels where the panel is too small, and then the reference's level stands.
    columns
        The reference by gene.
    queries
        Positions among its usable cells of those that genes are carried to within the reference.
    """

    model: AttentionModel
    levels: Levels | None
    columns: GeneColumns
    queries: IntArray

    def prepare(self, genes: IntArray) -> CarriedGenes:
        """Return what predicts some genes.

        Parameters
        ----------
        genes
            (n_genes,) positions in the reference.
        """
        expression = torch.empty((self.model.n_keys, len(genes)), device=self.model.device)
        parts = []
        for part in row_blocks(len(genes), BLOCK_GENES):
            values = self._expression(genes[part])
            parts.append(GeneLevels.of(self.model, values)[0])
            expression[:, part] = self.model.at_keys(values)
        known = GeneLevels.join(parts) if parts else GeneLevels.of(self.model, self._expression(genes))[0]
        return CarriedGenes(model=self.model, levels=self.levels, expression=expression, genes=known)

    def sampled(self, genes: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return genes as predicted and as carried in the sample's cells, and within the reference.

        Parameters
        ----------
        genes
            (n_genes,) positions in the reference.

        Returns
        -------
        predicted, carried, within : ndarray
            Two of (n_sample, n_genes), one of (n_queries, n_genes).
        """
        expression = self._expression(genes)
        known, carried = GeneLevels.of(self.model, expression)
        at_keys = self.model.at_keys(expression)
        table = CarriedGenes(model=self.model, levels=self.levels, expression=at_keys, genes=known)
        predicted = table.found(self.model.sample, self.model.sample_detection)
        within = self.model.within(self.queries, expression)
        return predicted, carried.cpu().numpy(), within.cpu().numpy()

    def similarity(self, pair: Pair) -> DoubleArray:
        """Return how near the reference comes to every spatial cell, (n_cells,): a cosine, up to 1."""
        found = np.empty(pair.st.n_cells)
        for rows in row_blocks(len(found), READ_ROWS):
            queries = self.model.queries(pair.st.dense(rows, pair.st_shared))
            found[rows] = self.model.similarity(queries)
        return found

    def to(self, device: torch.device) -> AttentionPredictor:
        """Return a copy on a device; the reference by gene stays in memory."""
        return to_device(self, device, "model", "levels")

    def _expression(self, genes: IntArray) -> torch.Tensor:
        return torch.from_numpy(self.columns.dense(genes)).to(self.model.device)


@dataclass(frozen=True, kw_only=True, eq=False)
class CarriedGenes:
    """Some genes of the reference, ready to be carried to cells: see `cellweft.impute.base.Predictor`.

    Attributes
    ----------
    model, levels
        What was learned.
    expression
        (n_keys, n_genes) the genes in the reference's cells, or their means over its metacells.
    genes
        What is known of them without measuring them.
    """

    model: AttentionModel
    levels: Levels | None
    expression: torch.Tensor
    genes: GeneLevels

    def values(self, measured: FloatArray) -> FloatArray:
        """See `cellweft.impute.base.Predictor`."""
        return self.found(self.model.queries(measured), self.model.detection(measured))

    def found(self, queries: torch.Tensor, detection: torch.Tensor) -> FloatArray:
        """Return expression of the genes, at least 0: (B, n_genes).

        Parameters
        ----------
        queries, detection
            (B, P) and (B,) of cells, from the model.
        """
        result = np.empty((len(queries), self.expression.shape[1]), dtype=np.float32)
        for rows in row_blocks(len(queries), rows_within(_VALUES, result.shape[1], least=_FEWEST_ROWS)):
            carried, seen = self.model.mapping(queries[rows]).apply(self.expression), detection[rows]
            if self.levels is not None:
                pattern = self.genes.patterns(carried, seen, self.model.cells.detection_weight)
                carried = self.levels.values(pattern, seen[:, None], self.genes)
            result[rows] = carried.clamp_min(0).cpu().numpy()
        return result


def sample_cells(pair: Pair, seed: int) -> IntArray:
    """Return positions of spatial cells that genes are standardised over: those with counts, or a draw."""
    usable = np.flatnonzero(~pair.st.empty_cells)
    return sample_rows(usable, SAMPLE_CELLS, numpy_stream(seed, "attention sample"))


@dataclass(frozen=True, kw_only=True, eq=False)
class OutOfFold:
    """Genes of the panel, each predicted by what was fitted without it, in the sample's cells.

    Attributes
    ----------
    fold
        (n_panel,) the part in which each gene was left out.
    predicted
        (n_sample, n_panel) expression; levels too were learned without the gene.
    carried
        (n_sample, n_panel) what attention alone carries, in units of the reference.
    within
        (n_queries, n_panel) the same within the reference: some of its cells, from all others.
    truth
        (n_sample, n_panel) what was measured.
    """

    fold: IntArray
    predicted: FloatArray
    carried: FloatArray
    within: FloatArray
    truth: FloatArray


def fit_attending(
    pair: Pair,
    columns: GeneColumns,
    sample: IntArray,
    *,
    settings: AttentionSettings,
    seed: int,
    devices: Sequence[torch.device],
    cross: bool,
    progress: Progress = no_progress,
) -> tuple[AttentionPredictor, OutOfFold | None]:
    """Learn attention from the panel of a pair, and levels from its genes left out.

    Parameters
    ----------
    pair
        The data.
    columns
        Their reference by gene.
    sample
        (n_sample,) positions of spatial cells that genes are standardised over.
    settings, seed, progress
        How, and from which random streams.
    devices
        Where: the whole panel and its parts are trained on side by side. What is learned comes to lie on the
        first.
    cross
        Whether to predict the panel's genes with levels that were learned without them, too: what reliability
        and intervals are learned from.

    Returns
    -------
    What predicts; and predictions of the panel's genes without them, or None where ``cross`` is not asked
    for, or the panel has fewer than 2 genes for each fold.
    """
    n_panel = len(pair.shared_genes)
    every, splits = np.arange(n_panel), list[tuple[IntArray, IntArray]]()
    if n_panel >= _FEWEST_IN_FOLD * settings.folds:
        splits = list(KFold(settings.folds, shuffle=True, random_state=seed % 2**32).split(every))
    queries = sample_rows(np.arange(columns.n_cells), _QUERIES, numpy_stream(seed, "reference queries"))
    trainer = _Trainer(
        measured=training_cells(pair, settings.training_cells, seed),
        reference=columns.dense(pair.sc_shared),
        shown=panel_of(pair, sample),
        queries=queries if cross else queries[:0],
        settings=settings,
        seed=seed,
        home=devices[0],
    )
    learned = over_devices(trainer.learn, [None, *splits], devices, progress=progress)
    model: AttentionModel = next(learned)
    parts: list[_Part] = []
    for part in learned:
        parts.append(part)
        progress("genes left out", len(parts), len(splits))
    whole = AttentionPredictor(model=model, levels=None, columns=columns, queries=queries)
    if not splits:
        return whole, None
    learner = _LevelLearner.of(parts, splits, truth=trainer.shown, settings=settings, seed=seed)
    asked = [(every, "all"), *((kept, str(number)) for number, (kept, _) in enumerate(splits) if cross)]
    levels: list[Levels] = []
    for one in over_devices(learner.learn, asked, devices):
        if levels:
            progress("levels left out", len(levels), len(splits))
        levels.append(one)
    attending = replace(whole, levels=levels[0])
    return attending, learner.held_out(parts, splits, levels[1:]) if cross else None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Trainer:
    """What attention is trained on, with all genes of the panel or without some."""

    measured: FloatArray  # n_training x n_panel
    reference: FloatArray  # n_sc x n_panel
    shown: FloatArray  # n_sample x n_panel
    queries: IntArray  # of the reference, that genes are carried to
    settings: AttentionSettings
    seed: int
    home: torch.device

    def learn(self, split: tuple[IntArray, IntArray] | None, device: torch.device, report: Progress) -> Any:
        """Return a part of the panel as carried without it; given none, the model of the whole panel."""
        if split is None:
            model = self._model(np.arange(self.shown.shape[1]), self.settings, device, report)
            return attention.condensed_if_large(model, seed=self.seed)
        kept, out = split
        model = self._model(
            kept,
            self.settings.without_part(),
            device,
            lambda stage, done, total: report(f"genes left out: {stage}", done, total),
        )
        expression = torch.from_numpy(np.ascontiguousarray(self.reference[:, out])).to(device)
        part = _Part.of(model, expression, self.queries)
        return part if device == self.home else part.to(self.home)

    def _model(
        self, genes: IntArray, settings: AttentionSettings, device: torch.device, report: Progress
    ) -> AttentionModel:
        return attention.train(
            np.ascontiguousarray(self.measured[:, genes]),
            np.ascontiguousarray(self.reference[:, genes]),
            np.ascontiguousarray(self.shown[:, genes]),
            settings=settings,
            seed=self.seed,
            device=device,
            progress=report,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
    """Some genes of the panel, carried by a model that was fitted without them."""

    genes: GeneLevels
    pattern: torch.Tensor  # n_sample x n_genes
    detection: torch.Tensor  # n_sample x n_genes, the same for all
    carried: torch.Tensor  # n_sample x n_genes
    within: torch.Tensor  # n_queries x n_genes, without rows where nothing is asked of it

    @classmethod
    def of(cls, model: AttentionModel, expression: torch.Tensor, queries: IntArray) -> _Part:
        genes, carried = GeneLevels.of(model, expression)
        pattern = genes.patterns(carried, model.sample_detection, model.cells.detection_weight)
        return cls(
            genes=genes,
            pattern=pattern,
            detection=model.sample_detection[:, None].expand(pattern.shape),
            carried=carried,
            within=model.within(queries, expression),
        )

    def to(self, device: torch.device) -> _Part:
        return to_device(self, device, "genes", "pattern", "detection", "carried", "within")


@dataclass(frozen=True, kw_only=True, eq=False)
class _LevelLearner:
    """Panel genes, each carried without it: what levels are learned from."""

    pattern: torch.Tensor  # n_sample x n_panel
    detection: torch.Tensor  # n_sample x n_panel
    genes: GeneLevels
    truth: torch.Tensor  # n_sample x n_panel
    settings: AttentionSettings
    seed: int

    @classmethod
    def of(
        cls, parts: list[_Part], splits: Splits, *, truth: FloatArray, settings: AttentionSettings, seed: int
    ) -> _LevelLearner:
        device = parts[0].pattern.device
        order = torch.from_numpy(_panel_order(splits)).to(device)
        return cls(
            pattern=torch.cat([part.pattern for part in parts], dim=1)[:, order],
            detection=torch.cat([part.detection for part in parts], dim=1)[:, order],
            genes=GeneLevels.join([part.genes for part in parts]).take(order),
            truth=torch.from_numpy(truth).to(device),
            settings=settings,
            seed=seed,
        )

    def to(self, device: torch.device) -> _LevelLearner:
        return to_device(self, device, "pattern", "detection", "genes", "truth")

    def learn(self, asked: tuple[IntArray, str], device: torch.device, _: Progress) -> Levels:
        """Learn levels from some of the panel's genes, from the random stream of a name."""
        home = self.truth.device
        there = self if device == home else self.to(device)
        columns, name = asked
        some = torch.from_numpy(columns).to(device)
        levels = fit_levels(
            there.pattern[:, some],
            there.detection[:, some],
            genes=there.genes.take(some),
            truth=there.truth[:, some],
            settings=self.settings,
            generator=torch_stream(self.seed, f"levels.{name}"),
        )
        return levels if device == home else levels.to(home)

    def held_out(self, parts: list[_Part], splits: Splits, levels: list[Levels]) -> OutOfFold:
        """Predict every part of the panel with levels learned from the others."""
        predicted, fold = torch.empty_like(self.truth), np.empty(self.truth.shape[1], dtype=np.int64)
        for number, (_, out) in enumerate(splits):
            some = torch.from_numpy(out).to(self.truth.device)
            predicted[:, some] = levels[number].values(
                self.pattern[:, some], self.detection[:, some], self.genes.take(some)
            )
            fold[out] = number
        order = _panel_order(splits)
        return OutOfFold(
            fold=fold,
            predicted=predicted.cpu().numpy(),
            carried=torch.cat([part.carried for part in parts], dim=1).cpu().numpy()[:, order],
            within=torch.cat([part.within for part in parts], dim=1).cpu().numpy()[:, order],
            truth=self.truth.cpu().numpy(),
        )


def _panel_order(splits: Splits) -> IntArray:
    """Return where each gene of the panel stands when the parts that are left out come one after another."""
    return np.argsort(np.concatenate([out for _, out in splits]))


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneReliability:
    """What was learned of how well genes are predicted, and for which panel.

    Attributes
    ----------
    known
        From a gene's summaries to its expected correlation.
    panel
        (n_panel,) names of the genes it was learned from, as the reference spells them.
    """

    known: Predictability
    panel: NDArray[np.str_]

    def table(
        self,
        attending: AttentionPredictor,
        genes: IntArray,
        *,
        names: NDArray[np.str_],
        predicted: FloatArray | None = None,
    ) -> pd.DataFrame:
        """Return a row per gene: expected Pearson correlation, its interval, and whether it is reliable.

        Parameters
        ----------
        attending
            What predicts.
        genes
            (n_genes,) positions in the reference.
        names
            (n_genes,) their names there.
        predicted
            (n_sample, n_genes) predictions to judge in place of its own, of genes off the panel.

        Returns
        -------
        ``reliability``: 0 to 1. ``reliability_lower``, ``reliability_upper``: -1 to 1; nine in ten genes lie
        between. ``reliable``: whether the interval begins above 0 and the score is above 0.2. For a panel
        gene they are of its prediction made without it.
        """
        score = np.empty(len(genes))
        for part in row_blocks(len(genes), BLOCK_GENES):
            own, carried, within = attending.sampled(genes[part])
            features = summaries(
                own if predicted is None else predicted[:, part],
                carried,
                reference=attending.columns.dense(genes[part]),
                queries=attending.queries,
                within=within,
            )
            score[part] = self.known.score(features)[0]
        if predicted is None:
            place = pd.Index(self.panel.astype(str)).get_indexer(names.astype(str))
            score[place >= 0] = self.known.panel_scores[place[place >= 0]]
        lower, upper = self.known.interval(score)
        bounds = {RELIABILITY_LOWER: lower, RELIABILITY_UPPER: upper}
        return pd.DataFrame({RELIABILITY: score, **bounds, RELIABLE: self.known.reliable(score)})


def fit_gene_reliability(attending: AttentionPredictor, held_out: OutOfFold, pair: Pair) -> GeneReliability:
    """Learn from panel genes, six or more, each predicted without it.

    Parameters
    ----------
    attending
        What predicts.
    held_out
        Predictions of the panel's genes without them.
    pair
        The data.
    """
    features = summaries(
        held_out.predicted,
        held_out.carried,
        reference=attending.columns.dense(pair.sc_shared),
        queries=attending.queries,
        within=held_out.within,
    )
    known = fit_predictability(features, correlate(held_out.predicted, held_out.truth))
    return GeneReliability(known=known, panel=pair.shared_genes)
