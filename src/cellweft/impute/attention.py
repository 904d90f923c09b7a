"""cellweft's own method behind the Imputer: learned attention, levels, reliability and intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np
import pandas as pd
import torch

from cellweft._compute import torch_stream
from cellweft._model_folder import ModelFolder, named, part_of
from cellweft._typing import DoubleArray, FloatArray, IntArray, Preset
from cellweft.data._pair import Pair
from cellweft.data.gene_major import GeneColumns
from cellweft.data.io.keys import RELIABILITY
from cellweft.impute.attention_predictor import (
    AttentionPredictor,
    CarriedGenes,
    GeneReliability,
    fit_attending,
    fit_gene_reliability,
    sample_cells,
)
from cellweft.impute.base import FitContext
from cellweft.impute.uncertainty.expected_correlation import Predictability
from cellweft.impute.uncertainty.prediction_intervals import SMALLEST_PANEL, Intervals, fit_intervals
from cellweft.nn.attention import AttentionModel, AttentionOperator, CellMap, Moments, with_reference
from cellweft.nn.config import AttentionSettings
from cellweft.nn.device import to_device
from cellweft.nn.operator import ReferenceOperator, on_all_cells
from cellweft.nn.platform_effects import LevelNet, Levels

_NETS = 2  # one by the gene alone, one by cell too
_MOMENTS = ("spatial", "reference", "detected")


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedAttention:
    """What a model folder holds of learned attention: all of a fit but its data.

    Attributes
    ----------
    model
        As it was trained, but with keys of no cell of the reference.
    levels, queries
        As of `cellweft.impute.attention_predictor.AttentionPredictor`.
    intervals, reliability
        What was learned besides, if anything was.
    """

    model: AttentionModel
    levels: Levels | None
    queries: IntArray
    intervals: Intervals | None
    reliability: GeneReliability | None

    @classmethod
    def of(cls, folder: ModelFolder) -> Self:
        """Read it from a folder; what is wrong with that raises as `read_folder` expects."""
        tensors, settings = folder.tensors, AttentionSettings(**folder.config["settings"])
        cells = CellMap(min(len(folder.genes), settings.most_inputs), settings)
        cells.load_state_dict(part_of(tensors, "cells"))
        moments: dict[str, Any] = {name: _moments(tensors, name) for name in _MOMENTS}
        intervals, known = (_arrays(tensors, name) for name in ("intervals", "trust"))
        panel = np.asarray(folder.genes["gene"].astype(str).tolist())
        model = AttentionModel(
            settings=settings,
            inputs=tensors["inputs"].numpy(),
            cells=cells,
            keys=torch.empty(0),
            sample=tensors["sample"],
            sample_detection=tensors["sample_detection"],
            **moments,
        )
        reliability = GeneReliability(known=Predictability.from_arrays(known), panel=panel) if known else None
        return cls(
            model=model,
            levels=_levels(tensors, settings),
            queries=tensors["queries"].numpy(),
            intervals=Intervals.from_arrays(intervals) if intervals else None,
            reliability=reliability,
        )

    def folder(self, pair: Pair) -> ModelFolder:
        """Return what has to be written of a fit to a pair."""
        model, levels = self.model, self.levels
        tensors = {
            "inputs": torch.from_numpy(model.inputs),
            "queries": torch.from_numpy(self.queries),
            "sample": model.sample,
            "sample_detection": model.sample_detection,
            **named("cells", model.cells.state_dict()),
        }
        moments = {name: getattr(model, name) for name in _MOMENTS}
        if levels is not None:
            moments["levels"] = levels.features
            for number, net in enumerate(levels.nets):
                tensors |= named(f"levels.{number}", net.state_dict())
        for name, one in moments.items():
            tensors |= {f"{name}.mean": one.mean, f"{name}.spread": one.spread}
        arrays = {} if self.intervals is None else named("intervals", self.intervals.to_arrays())
        if self.reliability is not None:
            arrays |= named("trust", self.reliability.known.to_arrays())
        tensors |= {name: torch.from_numpy(np.ascontiguousarray(one)) for name, one in arrays.items()}
        genes = pd.DataFrame({"gene": pair.shared_genes.astype(str)})
        return ModelFolder(config={"settings": asdict(model.settings)}, tensors=tensors, genes=genes)


def _moments(tensors: dict[str, torch.Tensor], name: str) -> Moments:
    return Moments(mean=tensors[f"{name}.mean"], spread=tensors[f"{name}.spread"])


def _arrays(tensors: dict[str, torch.Tensor], name: str) -> dict[str, Any]:
    return {key: one.numpy() for key, one in part_of(tensors, name).items()}


def _levels(tensors: dict[str, torch.Tensor], settings: AttentionSettings) -> Levels | None:
    if "levels.mean" not in tensors:
        return None
    start = torch_stream(0, "load")  # every weight drawn from it is overwritten at once
    nets = [LevelNet(settings.level_hidden, start, by_cell=bool(number)) for number in range(_NETS)]
    for number, net in enumerate(nets):
        net.load_state_dict(part_of(tensors, f"levels.{number}"))
    return Levels(nets=tuple(net.eval() for net in nets), features=_moments(tensors, "levels"))


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionMethod:
    """Learned attention, with settings that differ from the default ones."""

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
        attending, held_out = fit_attending(
            pair,
            columns,
            sample,
            settings=self.settings(pair),
            seed=work.seed,
            devices=work.devices,
            cross=work.reliability,
            progress=work.progress,
        )
        fitted = FittedAttention(attending=attending, sample=sample, seed=work.seed)
        if held_out is None or len(pair.shared_genes) < SMALLEST_PANEL:
            return fitted
        similarity = attending.model.similarity(attending.model.sample)
        intervals = fit_intervals(held_out.predicted, held_out.truth, similarity=similarity, seed=work.seed)
        reliability = fit_gene_reliability(attending, held_out, pair)
        return replace(fitted, intervals=intervals, reliability=reliability)

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
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedAttention:
    """Learned attention fitted to a pair.

    Attributes
    ----------
    attending
        What predicts.
    sample
        (n_sample,) positions of the cells that reliability looks at.
    seed
        Of the fit.
    intervals, reliability
        What was learned of intervals and of reliability, or None.
    """

    attending: AttentionPredictor
    sample: IntArray
    seed: int
    preset: Preset = "auto"
    intervals: Intervals | None = None
    reliability: GeneReliability | None = None
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
        """Where it works."""
        return self.model.device

    def to(self, device: torch.device) -> FittedAttention:
        """See `cellweft.impute.base.FittedMethod`."""
        return to_device(self, device, "attending")

    def prepare(self, genes: IntArray) -> CarriedGenes:
        """See `cellweft.impute.base.FittedMethod`."""
        return self.attending.prepare(genes)

    def operator(self, measured: FloatArray) -> ReferenceOperator:
        """See `cellweft.impute.base.FittedMethod`."""
        operator = AttentionOperator.of(self.model, self.model.queries(measured))
        return on_all_cells(operator, self.attending.columns.usable, self.device)

    def similarity(self, pair: Pair) -> DoubleArray:
        """See `cellweft.impute.base.FittedMethod`."""
        return self.attending.similarity(pair)

    def score_reliability(
        self, genes: IntArray, *, pair: Pair, judged: FloatArray | None = None
    ) -> pd.DataFrame:
        """See `cellweft.impute.base.FittedMethod`: the Pearson correlation that is expected of each gene."""
        if self.reliability is None:
            return pd.DataFrame({RELIABILITY: np.full(len(genes), np.nan)})
        predicted = None if judged is None else np.asarray(judged, dtype=np.float32)[self.sample]
        return self.reliability.table(self.attending, genes, names=pair.sc.genes[genes], predicted=predicted)

    def folder(self, pair: Pair) -> ModelFolder:
        """See `cellweft.impute.base.FittedMethod`."""
        one = self.attending
        saved = SavedAttention(
            model=one.model,
            levels=one.levels,
            queries=one.queries,
            intervals=self.intervals,
            reliability=self.reliability,
        )
        return saved.folder(pair)
