"""stImpute behind the Imputer: settings for data, gene network, reliability by the paper's network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch

from cellweft._model_folder import ModelFolder
from cellweft._typing import FloatArray, IntArray, Preset, Progress
from cellweft.data._pair import Pair
from cellweft.data.gene_major import GeneColumns
from cellweft.data.io.keys import RELIABILITY
from cellweft.genes.network import network_bytes, read_network
from cellweft.impute.base import FitContext, predict_all
from cellweft.impute.stimpute_predictor import (
    NetworkGenes,
    check_k,
    gene_graph,
    gene_relations,
    network_record,
)
from cellweft.impute.stimpute_state import SavedStImpute, folder_of
from cellweft.impute.training_data import training_cells
from cellweft.impute.uncertainty.reliability_network import (
    LeftOut,
    Reliability,
    TissueSample,
    fit_reliability,
    leave_out,
)
from cellweft.nn import stimpute
from cellweft.nn.config import StImputeSettings
from cellweft.nn.device import to_device
from cellweft.nn.neighbors import NeighborMean
from cellweft.nn.operator import ReferenceOperator, on_all_cells
from cellweft.nn.parallel import over_devices
from cellweft.nn.stimpute import StImputeModel


@dataclass(frozen=True, kw_only=True, eq=False)
class StImputeMethod:
    """stImpute with what its gene graph may be made from, given as `cellweft.Imputer` takes it.

    Attributes
    ----------
    changes
        Settings that differ from the published ones.
    sources
        ``embedding``, ``gene_sets`` and ``edges``, each as given or None.
    """

    changes: Mapping[str, Any]
    sources: Mapping[str, Any]

    def check(self) -> None:
        """Raise `SettingError` where a setting is wrong, or the graph is of what is not given."""
        given = [name for name, one in self.sources.items() if one is not None]
        StImputeSettings().override(self.changes).graph_shares(given)

    def settings(self, pair: Pair) -> StImputeSettings:
        """Return the published settings for the size of the data, with the changes."""
        return StImputeSettings.published(pair.st.n_cells, pair.st.n_genes).override(self.changes)

    @property
    def network_bytes(self) -> float:
        """See `cellweft.impute.base.Method`."""
        return network_bytes(*self.sources.values())

    def fit(self, pair: Pair, work: FitContext) -> FittedStImpute:
        """See `cellweft.impute.base.Method`."""
        settings = self.settings(pair)
        given = [name for name, one in self.sources.items() if one is not None]
        network = read_network(settings.graph_shares(given), **self.sources)
        parts = gene_relations(network, pair.sc.genes, settings=settings)
        columns = GeneColumns.load(pair.sc)
        check_k(settings, columns)

        def train(part: Pair, name: str, device: torch.device, report: Progress) -> StImputeModel:
            return stimpute.train(
                training_cells(part, settings.training_cells, work.seed),
                columns.dense(part.sc_shared),
                part.sc_shared,
                graph=gene_graph(part, columns, settings=settings, parts=parts),
                settings=settings,
                seed=work.seed,
                device=device,
                progress=lambda stage, done, total: report(f"{name}{stage}", done, total),
            )

        def learn(fold: LeftOut | None, device: torch.device, report: Progress) -> Any:
            if fold is None:
                return train(pair, "", device, report)
            model = train(fold.train, "reliability: ", device, report)
            return predict_all(partial(NetworkGenes.of, model, columns), fold.cells, fold.genes)

        sample = TissueSample.draw(pair, work.seed) if work.reliability else None
        folds = [] if sample is None else leave_out(pair, sample, seed=work.seed)
        learned = over_devices(learn, [None, *folds], work.devices, progress=work.progress)
        model: StImputeModel = next(learned)
        predictions: list[FloatArray] = []
        for values in learned:
            predictions.append(values)
            work.progress("reliability", len(predictions), len(folds))
        known = None
        if sample is not None and folds:
            known = fit_reliability(
                pair, columns, sample, folds=folds, predictions=predictions, seed=work.seed
            )
        record = network_record(model.graph, network, pair.sc.n_genes)
        return FittedStImpute(model=model, columns=columns, seed=work.seed, network=record, reliability=known)

    def restore(self, folder: ModelFolder, pair: Pair, device: torch.device) -> FittedStImpute:
        """See `cellweft.impute.base.Method`; gene relations are those of the fit, not of the files."""
        saved, seed = SavedStImpute.of(folder), folder.config["seed"]
        columns = GeneColumns.load(pair.sc)
        parts = gene_relations(saved.network, pair.sc.genes, settings=saved.settings)
        model = stimpute.assemble(
            saved.networks,
            columns.dense(pair.sc_shared),
            graph=gene_graph(pair, columns, settings=saved.settings, parts=parts),
            settings=saved.settings,
            seed=seed,
            device=device,
        )
        known = None
        if saved.reliability is not None:
            known = Reliability(nets=saved.reliability, sample=TissueSample.draw(pair, seed))
        record = network_record(model.graph, saved.network, pair.sc.n_genes)
        return FittedStImpute(model=model, columns=columns, seed=seed, network=record, reliability=known)


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedStImpute:
    """stImpute fitted to a pair.

    Attributes
    ----------
    model, columns
        What was trained, and the reference by gene.
    seed
        Of the fit.
    network
        Relations that the gene graph is made of, and how many genes each knows.
    reliability
        What is known of reliability, or None.
    """

    model: StImputeModel
    columns: GeneColumns
    seed: int
    network: dict[str, dict[str, Any]]
    reliability: Reliability | None
    preset: Preset = "stimpute"
    intervals: None = None

    @property
    def settings(self) -> StImputeSettings:
        """All settings that were used."""
        return self.model.settings

    @property
    def device(self) -> torch.device:
        """Where it works."""
        return self.model.device

    def to(self, device: torch.device) -> FittedStImpute:
        """See `cellweft.impute.base.FittedMethod`."""
        return to_device(self, device, "model")

    def prepare(self, genes: IntArray) -> NetworkGenes:
        """See `cellweft.impute.base.FittedMethod`."""
        return NetworkGenes.of(self.model, self.columns, genes)

    def operator(self, measured: FloatArray) -> ReferenceOperator:
        """See `cellweft.impute.base.FittedMethod`."""
        near = torch.from_numpy(stimpute.find_neighbors(self.model, measured)).to(self.device)
        mean = NeighborMean(neighbors=near, n_reference=self.columns.n_cells)
        return on_all_cells(mean, self.columns.usable, self.device)

    def similarity(self, pair: Pair) -> None:
        """Return None: its k neighbours do not tell."""

    def score_reliability(
        self, genes: IntArray, *, pair: Pair, judged: FloatArray | None = None
    ) -> pd.DataFrame:
        """See `cellweft.impute.base.FittedMethod`: the cosine that the paper's network expects (Eq. 13)."""
        known = self.reliability
        if known is None:
            return pd.DataFrame({RELIABILITY: np.full(len(genes), np.nan)})
        names, expression = pair.sc.genes[genes], self.columns.dense(genes)
        if judged is not None:
            predicted = np.asarray(judged, dtype=np.float32)[known.sample.cells]
            return pd.DataFrame({RELIABILITY: known.score(predicted, expression, names)})
        scores = known.score(
            predict_all(self.prepare, pair.cells(known.sample.cells), genes), expression, names
        )
        kept = known.nets.panel_scores
        own = [kept.get(str(name), score) for name, score in zip(names, scores, strict=True)]
        return pd.DataFrame({RELIABILITY: np.array(own, dtype=np.float64)})

    def folder(self, pair: Pair) -> ModelFolder:
        """See `cellweft.impute.base.FittedMethod`."""
        sources = {name: str(part["source"]) for name, part in self.network.items()}
        nets = None if self.reliability is None else self.reliability.nets
        return folder_of(self.model, pair, nets, sources=sources)
