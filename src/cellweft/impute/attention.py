"""cellweft's own method for the Imputer: attention, levels, reliability, intervals."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self, TypeAlias

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
from cellweft._errors import InputError
from cellweft._model_folder import ModelFolder, check_width, named, part_of
from cellweft._typing import DoubleArray, FloatArray, IntArray, Preset, Progress
from cellweft.data._pair import Pair
from cellweft.data.gene_major import GeneColumns
from cellweft.data.io.keys import RELIABILITY, RELIABILITY_LOWER, RELIABILITY_UPPER, RELIABLE
from cellweft.data.side import SideName, relative_sizes
from cellweft.impute.base import FitContext
from cellweft.impute.training_data import panel_of, training_cells
from cellweft.impute.uncertainty.count_model import CountModel, fit_count_model
from cellweft.impute.uncertainty.expected_correlation import (
    Predictability,
    correlate,
    fit_predictability,
    summaries,
)
from cellweft.impute.uncertainty.prediction_intervals import SMALLEST_PANEL, Intervals, fit_intervals
from cellweft.nn import attention
from cellweft.nn.attention import AttentionModel, AttentionOperator, CellMap, Moments, with_reference
from cellweft.nn.config import SAMPLE_CELLS, AttentionSettings
from cellweft.nn.device import to_device
from cellweft.nn.operator import ReferenceOperator, on_all_cells
from cellweft.nn.parallel import over_devices
from cellweft.nn.platform_effects import GeneLevels, LevelNet, Levels, choose_share, fit_levels, mixed

Splits: TypeAlias = list[tuple[IntArray, IntArray]]
"""Panel genes that are kept, and that are left out, for each part."""
_VALUES, _FEWEST_ROWS = 2**20, 64  # values predicted at once; smallest number of cells
_FEWEST_IN_FOLD = 2
_QUERIES = 1000
_NETS = 2  # at most: one without, and one with inputs from the cell
_MOMENTS = ("spatial", "reference", "detected")


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedAttention:
    """Contents of a model folder of learned attention: the fit without its data.

    Attributes
    ----------
    model
        The trained model, without the keys of reference cells.
    levels, queries
        As in `AttentionPredictor`.
    intervals, reliability, count_model
        Further fitted models, or None.
    """

    model: AttentionModel
    levels: Levels | None
    queries: IntArray
    intervals: Intervals | None
    reliability: GeneReliability | None
    count_model: CountModel | None

    @classmethod
    def of(cls, folder: ModelFolder) -> Self:
        """Read from a folder; damaged contents raise the errors that `read_folder` handles."""
        tensors, settings = folder.tensors, AttentionSettings(**folder.config["settings"])
        n_inputs = min(len(folder.genes), settings.most_inputs)
        check_width(tensors, "cells.of_logs", n_inputs, what="the panel")
        cells = CellMap(n_inputs, settings)
        cells.load_state_dict(part_of(tensors, "cells"))
        moments: dict[str, Any] = {name: _moments(tensors, name) for name in _MOMENTS}
        intervals, trust_arrays, counts = (
            _arrays(tensors, name) for name in ("intervals", "trust", "counts")
        )
        panel = np.asarray(folder.genes["gene"].astype(str).tolist())
        model = AttentionModel(
            settings=settings,
            inputs=tensors["inputs"].numpy(),
            cells=cells,
            keys=torch.empty(0),
            sample=tensors["sample"],
            sample_detection=tensors["sample_detection"],
            history=tuple(map(float, folder.config.get("history", ()))),
            **moments,
        )
        reliability = (
            GeneReliability(known=Predictability.from_arrays(trust_arrays), panel=panel)
            if trust_arrays
            else None
        )
        return cls(
            model=model,
            levels=_levels(tensors, settings, n_panel=len(folder.genes)),
            queries=tensors["queries"].numpy(),
            intervals=Intervals.from_arrays(intervals) if intervals else None,
            reliability=reliability,
            count_model=CountModel.from_arrays(counts) if counts else None,
        )


def _moments(tensors: dict[str, torch.Tensor], name: str) -> Moments:
    return Moments(mean=tensors[f"{name}.mean"], spread=tensors[f"{name}.spread"])


def _arrays(tensors: dict[str, torch.Tensor], name: str) -> dict[str, Any]:
    return {key: tensor.numpy() for key, tensor in part_of(tensors, name).items()}


def _levels(tensors: dict[str, torch.Tensor], settings: AttentionSettings, *, n_panel: int) -> Levels | None:
    if "levels.mean" not in tensors:
        return None
    check_width(tensors, "levels.0.first.weight", settings.level_hidden, what="level_hidden")
    start = torch_stream(0, "load")  # all weights drawn from it are overwritten
    nets = []
    for number in range(_NETS):
        weights = part_of(tensors, f"levels.{number}")
        if weights or not number or n_panel >= settings.level_cell_genes:
            nets.append(LevelNet(settings.level_hidden, start, by_cell=bool(number)))
            nets[-1].load_state_dict(weights)
    share = float(tensors.get("levels.share", 1.0))  # missing in models of version 0.1
    return Levels(nets=tuple(net.eval() for net in nets), features=_moments(tensors, "levels"), share=share)


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionMethod:
    """Learned attention, with changes of its default settings."""

    changes: Mapping[str, Any]

    def settings(self, pair: Pair) -> AttentionSettings:
        """Return the settings, the same for all data."""
        return AttentionSettings().override(self.changes)

    @property
    def network_bytes(self) -> float:
        """See `cellweft.impute.base.Method`."""
        return 0.0

    def fit(self, pair: Pair, work: FitContext) -> FittedAttention:
        """See `cellweft.impute.base.Method`."""
        columns, sample = GeneColumns.load(pair.sc), sample_cells(pair, work.seed)
        settings = self.settings(pair)
        attending, held_out = fit_attending(pair, columns, sample, settings=settings, work=work)
        fitted = FittedAttention(attending=attending, sample=sample, seed=work.seed)
        if held_out is None or len(pair.shared_genes) < SMALLEST_PANEL:
            return fitted
        similarity = attending.model.similarity(attending.model.sample)
        intervals = fit_intervals(held_out.predicted, held_out.truth, similarity=similarity, seed=work.seed)
        reliability = fit_gene_reliability(attending, held_out, pair)
        count_model = learn_counts(held_out, pair, sample)
        return replace(fitted, intervals=intervals, reliability=reliability, count_model=count_model)

    def restore(self, folder: ModelFolder, pair: Pair, device: torch.device) -> FittedAttention:
        """See `cellweft.impute.base.Method`."""
        saved, seed = SavedAttention.of(folder), folder.config["seed"]
        columns, inputs = GeneColumns.load(pair.sc), pair.sc_shared[saved.model.inputs]
        attending = AttentionPredictor(
            model=saved.model, levels=saved.levels, columns=columns, queries=saved.queries
        ).to(device)
        model = with_reference(attending.model, columns.dense(inputs), seed=seed)
        return FittedAttention(
            attending=replace(attending, model=model),
            sample=sample_cells(pair, seed),
            seed=seed,
            intervals=saved.intervals,
            reliability=saved.reliability,
            count_model=saved.count_model,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedAttention:
    """Learned attention fitted to a pair.

    Attributes
    ----------
    attending
        The trained predictor.
    sample
        (n_sample,) positions of the cells used for reliability.
    seed
        Seed of the fit.
    intervals, reliability, count_model
        Models of intervals, reliability and counts, or None.
    """

    attending: AttentionPredictor
    sample: IntArray
    seed: int
    preset: Preset = "auto"
    intervals: Intervals | None = None
    reliability: GeneReliability | None = None
    count_model: CountModel | None = None
    network: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def settings(self) -> AttentionSettings:
        """All settings that were used."""
        return self.model.settings

    @property
    def model(self) -> AttentionModel:
        """The trained attention."""
        return self.attending.model

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.model.device

    def to(self, device: torch.device) -> FittedAttention:
        """See `cellweft.impute.base.FittedMethod`."""
        return to_device(self, device, "attending")

    def prepare(self, genes: IntArray) -> CarriedGenes:
        """See `cellweft.impute.base.FittedMethod`."""
        return self.attending.prepare(genes)

    def operator(self, measured: FloatArray, *, sharpness: float = 1.0) -> ReferenceOperator:
        """See `cellweft.impute.base.FittedMethod`."""
        operator = AttentionOperator.of(self.model, self.model.queries(measured) * sharpness)
        return on_all_cells(operator, self.attending.columns.usable, self.device)

    def embed(self, measured: FloatArray, *, of: SideName) -> FloatArray:
        """See `cellweft.impute.base.FittedMethod`."""
        model = self.model
        logs = torch.from_numpy(np.ascontiguousarray(measured[:, model.inputs])).to(self.device)
        moments = model.reference if of == "reference" else model.spatial
        with torch.no_grad():
            embedded: FloatArray = model.cells(logs, moments.standard(logs)).cpu().numpy()
        return embedded * measured.any(axis=1, keepdims=True)

    def similarity(self, pair: Pair) -> DoubleArray:
        """See `cellweft.impute.base.FittedMethod`."""
        return self.attending.similarity(pair)

    def score_reliability(
        self, genes: IntArray, *, pair: Pair, judged: FloatArray | None = None
    ) -> pd.DataFrame:
        """See `cellweft.impute.base.FittedMethod`: the expected Pearson correlation of each gene."""
        if self.reliability is None:
            return pd.DataFrame({RELIABILITY: np.full(len(genes), np.nan)})
        predicted = None if judged is None else np.asarray(judged, dtype=np.float32)[self.sample]
        return self.reliability.table(self.attending, genes, names=pair.sc.genes[genes], predicted=predicted)

    def folder(self, pair: Pair) -> ModelFolder:
        """See `cellweft.impute.base.FittedMethod`."""
        model, levels = self.model, self.attending.levels
        tensors = {
            "inputs": torch.from_numpy(model.inputs),
            "queries": torch.from_numpy(self.attending.queries),
            "sample": model.sample,
            "sample_detection": model.sample_detection,
            **named("cells", model.cells.state_dict()),
        }
        moments = {name: getattr(model, name) for name in _MOMENTS}
        if levels is not None:
            moments["levels"] = levels.features
            tensors["levels.share"] = torch.tensor(levels.share, dtype=torch.float64)
            for number, net in enumerate(levels.nets):
                tensors |= named(f"levels.{number}", net.state_dict())
        for name, one in moments.items():
            tensors |= {f"{name}.mean": one.mean, f"{name}.spread": one.spread}
        arrays = {} if self.intervals is None else named("intervals", self.intervals.to_arrays())
        if self.reliability is not None:
            arrays |= named("trust", self.reliability.known.to_arrays())
        if self.count_model is not None:
            arrays |= named("counts", self.count_model.to_arrays())
        tensors |= {name: torch.from_numpy(np.ascontiguousarray(one)) for name, one in arrays.items()}
        genes = pd.DataFrame({"gene": pair.shared_genes.astype(str)})
        config = {"settings": asdict(model.settings), "history": list(map(float, model.history))}
        return ModelFolder(config=config, tensors=tensors, genes=genes)


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionPredictor:
    """The predictor: trained attention and levels, with the reference stored by gene.

    Attributes
    ----------
    model, levels
        Trained attention and levels. With a panel too small for levels, they are None, and levels of the
        reference are used.
    columns
        The reference, stored by gene.
    queries
        Positions, among usable reference cells, of the cells predicted within the reference.
    """

    model: AttentionModel
    levels: Levels | None
    columns: GeneColumns
    queries: IntArray

    def prepare(self, genes: IntArray) -> CarriedGenes:
        """Return the predictor of some genes.

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
        gene_levels = (
            GeneLevels.join(parts) if parts else GeneLevels.of(self.model, self._expression(genes))[0]
        )
        return CarriedGenes(model=self.model, levels=self.levels, expression=expression, genes=gene_levels)

    def sampled(self, genes: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return predicted and carried values of genes in the sample's cells, and within the reference.

        Parameters
        ----------
        genes
            (n_genes,) positions in the reference.

        Returns
        -------
        predicted, carried, within : ndarray
            The first two are (n_sample, n_genes), the last is (n_queries, n_genes).
        """
        expression = self._expression(genes)
        gene_levels, carried = GeneLevels.of(self.model, expression)
        at_keys = self.model.at_keys(expression)
        table = CarriedGenes(model=self.model, levels=self.levels, expression=at_keys, genes=gene_levels)
        predicted = table.found(self.model.sample, self.model.sample_detection)
        within = self.model.within(self.queries, expression)
        return predicted, carried.cpu().numpy(), within.cpu().numpy()

    def similarity(self, pair: Pair) -> DoubleArray:
        """Return the similarity of each spatial cell to the reference, (n_cells,): a cosine, up to 1."""
        similarities = np.empty(pair.st.n_cells)
        for rows in row_blocks(len(similarities), READ_ROWS):
            queries = self.model.queries(pair.st.dense(rows, pair.st_shared))
            similarities[rows] = self.model.similarity(queries)
        return similarities

    def to(self, device: torch.device) -> AttentionPredictor:
        """Return a copy on a device; the reference, stored by gene, stays in memory."""
        return to_device(self, device, "model", "levels")

    def _expression(self, genes: IntArray) -> torch.Tensor:
        return torch.from_numpy(self.columns.dense(genes)).to(self.model.device)


@dataclass(frozen=True, kw_only=True, eq=False)
class CarriedGenes:
    """Some genes of the reference, ready for prediction: see `cellweft.impute.base.Predictor`.

    Attributes
    ----------
    model, levels
        Trained attention and levels.
    expression
        (n_keys, n_genes) values of the genes in reference cells, or their means in metacells.
    genes
        Levels of these genes, or None.
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
            (B, P) and (B,) from the model, for B cells.
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
    """Return positions of cells over which genes are standardised: all with counts, or a random sample."""
    usable = np.flatnonzero(~pair.st.empty_cells)
    return sample_rows(usable, SAMPLE_CELLS, numpy_stream(seed, "attention sample"))


@dataclass(frozen=True, kw_only=True, eq=False)
class OutOfFold:
    """Panel genes, each predicted in the sample's cells by a model fitted without it.

    Attributes
    ----------
    fold
        (n_panel,) the part in which each gene was left out.
    predicted
        (n_sample, n_panel) expression; the levels, too, were learned without the gene.
    carried
        (n_sample, n_panel) values carried by attention alone, in units of the reference.
    within
        (n_queries, n_panel) the same within the reference: some of its cells, predicted from all others.
    truth
        (n_sample, n_panel) measured values.
    """

    fold: IntArray
    predicted: FloatArray
    carried: FloatArray
    within: FloatArray
    truth: FloatArray


def fit_attending(
    pair: Pair, columns: GeneColumns, sample: IntArray, *, settings: AttentionSettings, work: FitContext
) -> tuple[AttentionPredictor, OutOfFold | None]:
    """Train attention on the panel of a pair, and levels on panel genes that were left out.

    Parameters
    ----------
    pair
        The data.
    columns
        The reference, stored by gene.
    sample
        (n_sample,) positions of spatial cells over which genes are standardised.
    settings
        Settings of the method.
    work
        Context of the fit. The models of the whole panel and of its parts are trained side by side on all
        devices; results are on the first device. If reliability is requested, panel genes are also predicted
        with levels learned without them; reliability and intervals are learned from these predictions.

    Returns
    -------
    The predictor, and out-of-fold predictions of the panel genes, or None if reliability is not requested or
    the panel has fewer than 2 genes per fold.
    """
    seed, cross = work.seed, work.reliability
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
        home=work.devices[0],
    )
    learned = over_devices(trainer.learn, [None, *splits], work.devices, progress=work.progress)
    model: AttentionModel = next(learned)
    parts: list[_Part] = []
    for part in learned:
        parts.append(part)
        work.progress("genes left out", len(parts), len(splits))
    whole = AttentionPredictor(model=model, levels=None, columns=columns, queries=queries)
    if not splits:
        return whole, None
    learner = _LevelLearner.of(parts, splits, truth=trainer.shown, settings=settings, seed=seed)
    tasks = [(every, "all"), *((inputs, str(number)) for number, (inputs, _) in enumerate(splits))]
    levels: list[Levels] = []
    for learned_levels in over_devices(learner.learn, tasks, work.devices):
        if levels:
            work.progress("levels left out", len(levels), len(splits))
        levels.append(learned_levels)
    held_out, share = learner.held_out(parts, splits, levels[1:])
    attending = replace(whole, levels=replace(levels[0], share=share))
    return attending, held_out if cross else None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Trainer:
    """Training data of attention, with all panel genes or without some of them."""

    measured: FloatArray  # n_training x n_panel
    reference: FloatArray  # n_sc x n_panel
    shown: FloatArray  # n_sample x n_panel
    queries: IntArray  # reference cells to predict
    settings: AttentionSettings
    seed: int
    home: torch.device

    def learn(self, split: tuple[IntArray, IntArray] | None, device: torch.device, report: Progress) -> Any:
        """Return a part of the panel, carried without its own genes, or the model of the whole panel."""
        if split is None:
            model = self._model(np.arange(self.shown.shape[1]), self.settings, device, report)
            return attention.condensed_if_large(model, seed=self.seed)
        inputs, out = split
        model = self._model(
            inputs,
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
    """Some panel genes, carried by a model that was fitted without them."""

    genes: GeneLevels
    pattern: torch.Tensor  # n_sample x n_genes
    detection: torch.Tensor  # n_sample x n_genes, the same for all
    carried: torch.Tensor  # n_sample x n_genes
    within: torch.Tensor  # n_queries x n_genes, without rows if it is not needed

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
    """Training data of levels: panel genes, each carried by a model without it."""

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

    def learn(self, task: tuple[IntArray, str], device: torch.device, _: Progress) -> Levels:
        """Train levels on some panel genes, with the random stream of this name."""
        home = self.truth.device
        there = self if device == home else self.to(device)
        columns, name = task
        some = torch.from_numpy(columns).to(device)
        levels = fit_levels(
            there.pattern[:, some],
            there.detection[:, some],
            genes=there.genes.take(some),
            truth=there.truth[:, some],
            settings=self.settings,
            generator=torch_stream(self.seed, f"levels.{name}"),
            by_cell=self.truth.shape[1] >= self.settings.level_cell_genes,
        )
        return levels if device == home else levels.to(home)

    def held_out(self, parts: list[_Part], splits: Splits, levels: list[Levels]) -> tuple[OutOfFold, float]:
        """Predict each part of the panel with levels learned from the other parts, and choose the share."""
        learned, fold = torch.empty_like(self.truth), np.empty(self.truth.shape[1], dtype=np.int64)
        for number, (_, out) in enumerate(splits):
            some = torch.from_numpy(out).to(self.truth.device)
            learned[:, some] = levels[number].values(
                self.pattern[:, some], self.detection[:, some], self.genes.take(some)
            )
            fold[out] = number
        own = self.genes.unchanged(self.pattern)
        share = choose_share(learned, own, self.truth)
        order = _panel_order(splits)
        held_out = OutOfFold(
            fold=fold,
            predicted=mixed(learned, own, share).cpu().numpy(),
            carried=torch.cat([part.carried for part in parts], dim=1).cpu().numpy()[:, order],
            within=torch.cat([part.within for part in parts], dim=1).cpu().numpy()[:, order],
            truth=self.truth.cpu().numpy(),
        )
        return held_out, share


def _panel_order(splits: Splits) -> IntArray:
    """Return the position of each panel gene in the concatenation of the left-out parts."""
    return np.argsort(np.concatenate([out for _, out in splits]))


def learn_counts(held_out: OutOfFold, pair: Pair, sample: IntArray) -> CountModel | None:
    """Fit the count model to predictions; None if the tissue has no counts, or too few genes have counts.

    Parameters
    ----------
    held_out
        Out-of-fold predictions of the panel genes.
    pair
        The data.
    sample
        (n_sample,) positions of the cells that were predicted.
    """
    side = pair.st
    if side.scale != "raw":
        return None
    sizes = relative_sizes(side)[sample][:, None]
    counts = np.expm1(held_out.truth.astype(np.float64)) * sizes
    if not side.has_sizes:  # totals do not include unmeasured genes
        others = (sizes * side.target - counts).clip(min=0)
        sizes = np.where(others > 0.5, others / np.maximum(np.median(others, axis=0), 1), 0)
    with contextlib.suppress(InputError):  # too few genes with counts
        return fit_count_model(held_out.predicted, counts, sizes=np.broadcast_to(sizes, counts.shape))
    return None


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneReliability:
    """The model of the expected accuracy of genes, and the panel that it was learned from.

    Attributes
    ----------
    known
        Predicts the expected correlation of a gene from its summaries.
    panel
        (n_panel,) names, in the reference, of the genes that it was learned from.
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
            The trained predictor.
        genes
            (n_genes,) positions in the reference.
        names
            (n_genes,) their names in the reference.
        predicted
            (n_sample, n_genes) predictions to evaluate instead of its own, for genes that are not on the
            panel.

        Returns
        -------
        ``reliability``: 0 to 1. ``reliability_lower``, ``reliability_upper``: -1 to 1; nine in ten genes are
        between them. ``reliable``: whether the lower limit is above 0 and the score is above 0.2. For a panel
        gene, they refer to its out-of-fold prediction.
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
    """Learn reliability from six or more panel genes, each predicted without its own measurement.

    Parameters
    ----------
    attending
        The trained predictor.
    held_out
        Out-of-fold predictions of the panel genes.
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
    n_panel, n_folds = len(held_out.fold), len(np.unique(held_out.fold))
    predictability = fit_predictability(
        features, correlate(held_out.predicted, held_out.truth), n_seen=n_panel * (1 - 1 / n_folds)
    )
    return GeneReliability(known=predictability, panel=pair.shared_genes)
