"""weft's own method behind the Imputer: learned attention, levels, reliability and intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from weft._keys import RELIABILITY
from weft._typing import DoubleArray, FloatArray, IntArray, Preset
from weft.attending import Attending, CarriedGenes, fit_attending, sample_cells
from weft.core.attention import AttentionModel, AttentionOperator
from weft.core.device import to_device
from weft.core.operator import ReferenceOperator, on_all_cells
from weft.core.settings import AttentionSettings
from weft.data.columns import GeneColumns
from weft.data.pair import Pair
from weft.folder import ModelFolder
from weft.imputing import ImputerSettings, Work
from weft.intervals import SMALLEST_PANEL, Intervals, fit_intervals
from weft.plan import Plan, make_plan
from weft.saved_attention import SavedAttention, folder_of
from weft.trust import Trust, fit_trust


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionMethod:
    """Learned attention, with settings that differ from the default ones."""

    changes: Mapping[str, Any]

    def settings(self, pair: Pair) -> AttentionSettings:
        """Return the settings, the same for all data."""
        return AttentionSettings().override(self.changes)

    def plan(
        self,
        pair: Pair,
        n_genes: int,
        *,
        settings: ImputerSettings | None,
        memory: str | int,
        interval: float | None,
        in_memory: bool,
        trainings: int = 1,
    ) -> Plan:
        """See `weft.imputing.Method`."""
        chosen = settings or self.settings(pair)
        return make_plan(
            pair,
            n_genes,
            settings=chosen,
            memory=memory,
            interval=interval,
            in_memory=in_memory,
            trainings=trainings,
        )

    def fit(self, pair: Pair, work: Work) -> FittedAttention:
        """See `weft.imputing.Method`."""
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
        trust = fit_trust(attending, held_out, pair)
        return replace(fitted, intervals=intervals, trust=trust)

    def restore(self, folder: ModelFolder, pair: Pair, device: torch.device) -> FittedAttention:
        """See `weft.imputing.Method`."""
        saved, seed = SavedAttention.of(folder), folder.config["seed"]
        columns = GeneColumns.load(pair.sc)
        reference = columns.dense(pair.sc_shared[saved.inputs])
        attending = saved.attending(columns, reference, device=device, seed=seed)
        return FittedAttention(
            attending=attending,
            sample=sample_cells(pair, seed),
            seed=seed,
            intervals=saved.intervals,
            trust=saved.trust,
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
    intervals, trust
        What was learned of intervals and of reliability, or None.
    """

    attending: Attending
    sample: IntArray
    seed: int
    preset: Preset = "auto"
    intervals: Intervals | None = None
    trust: Trust | None = None
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
        """See `weft.imputing.FittedMethod`."""
        return to_device(self, device, "attending")

    def prepare(self, genes: IntArray) -> CarriedGenes:
        """See `weft.imputing.FittedMethod`."""
        return self.attending.prepare(genes)

    def operator(self, measured: FloatArray) -> ReferenceOperator:
        """See `weft.imputing.FittedMethod`."""
        operator = AttentionOperator.of(self.model, self.model.queries(measured))
        return on_all_cells(operator, self.attending.columns.usable, self.device)

    def similarity(self, pair: Pair) -> DoubleArray:
        """See `weft.imputing.FittedMethod`."""
        return self.attending.similarity(pair)

    def judge(self, genes: IntArray, *, pair: Pair, judged: FloatArray | None = None) -> pd.DataFrame:
        """See `weft.imputing.FittedMethod`: the Pearson correlation that is expected of each gene."""
        if self.trust is None:
            return pd.DataFrame({RELIABILITY: np.full(len(genes), np.nan)})
        predicted = None if judged is None else np.asarray(judged, dtype=np.float32)[self.sample]
        return self.trust.table(self.attending, genes, names=pair.sc.genes[genes], predicted=predicted)

    def folder(self, pair: Pair) -> ModelFolder:
        """See `weft.imputing.FittedMethod`."""
        return folder_of(self.attending, pair, intervals=self.intervals, trust=self.trust)
