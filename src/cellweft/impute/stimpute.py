"""stImpute for the Imputer: settings, gene network, predictions, reliability, saving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from cellweft._compute import BLOCK_BYTES, row_blocks, rows_within, torch_stream
from cellweft._errors import SettingError, arg
from cellweft._model_folder import ModelFolder, check_width, named, part_of
from cellweft._statistics import unit_length
from cellweft._typing import FloatArray, IntArray, Preset, Progress, RelationKind
from cellweft.data._pair import Pair
from cellweft.data.gene_major import GeneColumns
from cellweft.data.io.keys import RELIABILITY
from cellweft.data.side import SideName
from cellweft.genes.embeddings import EmbeddingTable
from cellweft.genes.gene_sets import GeneSets
from cellweft.genes.interactions import EdgeList
from cellweft.genes.network import Network, network_bytes, read_network
from cellweft.impute.base import FitContext, predict_all
from cellweft.impute.planning import TABLE_GENES, uses_all_sources
from cellweft.impute.training_data import training_cells
from cellweft.impute.uncertainty.reliability_network import (
    LeftOut,
    Reliability,
    ReliabilityNet,
    ReliabilityNets,
    TissueSample,
    fit_reliability,
    leave_out,
)
from cellweft.nn import stimpute
from cellweft.nn.config import StImputeSettings, bytes_per_cell
from cellweft.nn.device import to_device
from cellweft.nn.gene_graph import (
    EdgeRelation,
    EmbeddingRelation,
    ExpressionRelation,
    GeneGraph,
    GeneRelation,
    GeneSetRelation,
    GeneTable,
    GraphPart,
)
from cellweft.nn.neighbors import NeighborMean
from cellweft.nn.operator import ReferenceOperator, on_all_cells
from cellweft.nn.parallel import over_devices
from cellweft.nn.stimpute import AutoEncoder, GeneNetwork, StImputeModel, new_networks

_BEFORE = {"neighbor_scale": "none", "similarity_mean": "profile"}  # for models saved without these settings


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedStImpute:
    """Contents of a model folder of stImpute: the fit without its data.

    Attributes
    ----------
    settings
        The settings of the fit.
    networks
        Autoencoder and gene network, on the CPU.
    neighbor_scale
        Factor of the neighbours' mean.
    reliability
        The reliability networks, or None.
    network
        The parts of protein embeddings, gene sets and edges that the gene graph used.
    history
        Losses of the training, by stage; empty for models saved without them.
    """

    settings: StImputeSettings
    networks: tuple[AutoEncoder, GeneNetwork]
    neighbor_scale: float
    reliability: ReliabilityNets | None
    network: Network
    history: dict[str, list[float]]

    @classmethod
    def of(cls, folder: ModelFolder) -> Self:
        """Read from a folder; damaged contents raise the errors that `read_folder` handles."""
        config, tensors, genes = folder.config, folder.tensors, folder.genes
        settings = StImputeSettings(**(_BEFORE | config["settings"]))
        for part, width, source in (
            ("autoencoder.encoder", settings.latent, "latent"),
            ("autoencoder.decoder", len(genes), "the panel"),
            ("network.first.linear", settings.k, "k"),
            ("network.layers.1", settings.hidden, "hidden"),
        ):
            check_width(tensors, f"{part}.weight", width, what=source)
        start = torch_stream(0, "load")  # all weights drawn from it are overwritten
        networks = new_networks(settings, len(genes), start)
        for name, network in zip(("autoencoder", "network"), networks, strict=True):
            network.load_state_dict(part_of(tensors, name))
        nets = None
        if config["n_reliability_nets"]:
            centre, scale = (tensors[f"reliability.{one}"].numpy() for one in ("centre", "scale"))
            learned = []
            for number in range(config["n_reliability_nets"]):
                net = ReliabilityNet(len(centre), start)
                net.load_state_dict(part_of(tensors, f"reliability.{number}"))  # fails after the last one
                learned.append(net)
            by_gene = genes.set_index("gene")
            nets = ReliabilityNets(
                centre=centre,
                scale=scale,
                nets=tuple(learned),
                fold_of={str(gene): int(fold) for gene, fold in by_gene["reliability_fold"].items()},
                panel_scores={str(gene): float(score) for gene, score in by_gene[RELIABILITY].items()},
            )
        return cls(
            settings=settings,
            networks=networks,
            neighbor_scale=float(config.get("neighbor_scale", 1.0)),
            reliability=nets,
            network=_network(config, tensors),
            history={str(stage): list(map(float, one)) for stage, one in config.get("history", {}).items()},
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class StImputeMethod:
    """stImpute with the inputs of its gene graph, given as in `cellweft.Imputer`.

    Attributes
    ----------
    changes
        Settings that differ from the paper's.
    sources
        ``embedding``, ``gene_sets`` and ``edges``, each as given or None.
    """

    changes: Mapping[str, Any]
    sources: Mapping[str, Any]

    def check(self) -> None:
        """Raise `SettingError` if a setting is wrong, or the graph needs an input that is not given."""
        source_names = [name for name, source in self.sources.items() if source is not None]
        StImputeSettings().override(self.changes).graph_shares(source_names)

    def settings(self, pair: Pair) -> StImputeSettings:
        """Return the paper's settings for the size of the data, with the changes."""
        settings = StImputeSettings.published(pair.st.n_cells).override(self.changes)
        check_k(settings, int((~pair.sc.empty_cells).sum()))
        return settings

    @property
    def network_bytes(self) -> float:
        """See `cellweft.impute.base.Method`."""
        return network_bytes(*self.sources.values())

    def fit(self, pair: Pair, work: FitContext) -> FittedStImpute:
        """See `cellweft.impute.base.Method`."""
        settings = self.settings(pair)
        source_names = [name for name, source in self.sources.items() if source is not None]
        network = read_network(settings.graph_shares(source_names), **self.sources)
        parts = gene_relations(network, pair.sc.genes, settings=settings)
        columns = GeneColumns.load(pair.sc)

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
        reliability = None
        if sample is not None and folds:
            reliability = fit_reliability(
                pair, columns, sample, folds=folds, predictions=predictions, seed=work.seed
            )
        record = network_record(model.graph, network, pair.sc.n_genes)
        return FittedStImpute(
            model=model, columns=columns, seed=work.seed, network=record, reliability=reliability
        )

    def restore(self, folder: ModelFolder, pair: Pair, device: torch.device) -> FittedStImpute:
        """See `cellweft.impute.base.Method`; gene relations are those of the fit, and not read from files."""
        saved, seed = SavedStImpute.of(folder), folder.config["seed"]
        columns = GeneColumns.load(pair.sc)
        parts = gene_relations(saved.network, pair.sc.genes, settings=saved.settings)
        model = stimpute.assemble(
            saved.networks,
            columns.dense(pair.sc_shared),
            graph=gene_graph(pair, columns, settings=saved.settings, parts=parts),
            settings=saved.settings,
            neighbor_scale=saved.neighbor_scale,
            seed=seed,
            device=device,
        )
        model = replace(model, history=saved.history)
        reliability = None
        if saved.reliability is not None:
            reliability = Reliability(nets=saved.reliability, sample=TissueSample.draw(pair, seed))
        record = network_record(model.graph, saved.network, pair.sc.n_genes)
        return FittedStImpute(
            model=model, columns=columns, seed=seed, network=record, reliability=reliability
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedStImpute:
    """stImpute fitted to a pair.

    Attributes
    ----------
    model, columns
        The trained model, and the reference stored by gene.
    seed
        Seed of the fit.
    network
        Relations of the gene graph, and the number of genes that each contains.
    reliability
        The model of reliability, or None.
    """

    model: StImputeModel
    columns: GeneColumns
    seed: int
    network: dict[str, dict[str, Any]]
    reliability: Reliability | None
    preset: Preset = "stimpute"
    intervals: None = None
    count_model: None = None

    @property
    def settings(self) -> StImputeSettings:
        """All settings that were used."""
        return self.model.settings

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return self.model.device

    def to(self, device: torch.device) -> FittedStImpute:
        """See `cellweft.impute.base.FittedMethod`."""
        return to_device(self, device, "model")

    def prepare(self, genes: IntArray) -> NetworkGenes:
        """See `cellweft.impute.base.FittedMethod`."""
        return NetworkGenes.of(self.model, self.columns, genes)

    def embed(self, measured: FloatArray, *, of: SideName) -> FloatArray:  # noqa: ARG002 (one encoder)
        """See `cellweft.impute.base.FittedMethod`."""
        latent = unit_length(stimpute.encode(self.model.autoencoder, measured), axis=1)
        return (latent * measured.any(axis=1, keepdims=True)).astype(np.float32)

    def operator(  # neighbours have equal weights
        self,
        measured: FloatArray,
        *,
        sharpness: float = 1.0,  # noqa: ARG002
    ) -> ReferenceOperator:
        """See `cellweft.impute.base.FittedMethod`."""
        near = torch.from_numpy(stimpute.find_neighbors(self.model, measured)).to(self.device)
        mean = NeighborMean(neighbors=near, n_reference=self.columns.n_cells)
        return on_all_cells(mean, self.columns.usable, self.device)

    def similarity(self, pair: Pair) -> None:
        """Return None, because the k neighbours define no similarity."""

    def score_reliability(
        self, genes: IntArray, *, pair: Pair, judged: FloatArray | None = None
    ) -> pd.DataFrame:
        """See `cellweft.impute.base.FittedMethod`: the cosine expected by the paper's network (Eq. 13)."""
        reliability = self.reliability
        if reliability is None:
            return pd.DataFrame({RELIABILITY: np.full(len(genes), np.nan)})
        names, expression = pair.sc.genes[genes], self.columns.dense(genes)
        if judged is not None:
            predicted = np.asarray(judged, dtype=np.float32)[reliability.sample.cells]
            return pd.DataFrame({RELIABILITY: reliability.score(predicted, expression, names)})
        scores = reliability.score(
            predict_all(self.prepare, pair.cells(reliability.sample.cells), genes), expression, names
        )
        panel_scores = reliability.nets.panel_scores
        own = [panel_scores.get(str(name), score) for name, score in zip(names, scores, strict=True)]
        return pd.DataFrame({RELIABILITY: np.array(own, dtype=np.float64)})

    def folder(self, pair: Pair) -> ModelFolder:
        """See `cellweft.impute.base.FittedMethod`."""
        nets = None if self.reliability is None else self.reliability.nets
        genes = pd.DataFrame({"gene": pair.shared_genes.astype(str)})
        config: dict[str, Any] = {
            "settings": asdict(self.settings),
            "neighbor_scale": self.model.neighbor_scale,
            "history": self.model.history,
            "n_reliability_nets": 0 if nets is None else len(nets.nets),
            "sources": {name: str(part["source"]) for name, part in self.network.items()},
        }
        arrays: dict[str, NDArray[Any]] = {}
        for part in self.model.graph.parts:
            _add_relation(part.relation, pair.sc.genes, config, arrays)
        tensors = named("autoencoder", self.model.autoencoder.state_dict())
        tensors |= named("network", self.model.network.state_dict())
        if nets is not None:
            genes["reliability_fold"] = [nets.fold_of[gene] for gene in genes["gene"]]
            genes[RELIABILITY] = [nets.panel_scores[gene] for gene in genes["gene"]]
            arrays |= {"reliability.centre": nets.centre, "reliability.scale": nets.scale}
            for number, net in enumerate(nets.nets):
                tensors |= named(f"reliability.{number}", net.state_dict())
        tensors |= {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        return ModelFolder(config=config, tensors=tensors, genes=genes)


def _add_relation(
    relation: GeneRelation, genes: NDArray[np.str_], config: dict[str, Any], arrays: dict[str, NDArray[Any]]
) -> None:
    """Add the inputs of a relation, restricted to the genes, to the contents of a folder."""
    is_known = relation.knows(np.arange(len(genes)))
    names = genes[is_known].tolist()
    if isinstance(relation, EmbeddingRelation):
        config["embedded_genes"] = names
        arrays["embedding"] = relation.vectors[relation.rows[is_known]]
    elif isinstance(relation, GeneSetRelation):
        config["gene_set_genes"], members = names, relation.members[is_known]
        arrays["gene_sets.starts"] = members.indptr.astype(np.int64)
        arrays["gene_sets.sets"] = members.indices.astype(np.int64)
        arrays["gene_sets.information"] = relation.information
    elif isinstance(relation, EdgeRelation):
        upper = sp.csr_matrix(sp.triu(relation.edges[is_known][:, is_known]))
        upper.sort_indices()  # so that a loaded model is saved identically
        config["edge_genes"], arrays["edges.weights"] = names, upper.data
        arrays["edges.pairs"] = np.stack(upper.tocoo().coords, axis=1).astype(np.int64)


def _network(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Network:
    """Return the parts of a network that a folder contains."""
    arrays, sources = {name: tensor.numpy() for name, tensor in tensors.items()}, config["sources"]
    embedding, gene_sets, edges = None, None, None
    if "embedding" in arrays:
        genes = np.array(config["embedded_genes"])
        embedding = EmbeddingTable(genes=genes, values=arrays["embedding"], source=sources["embedding"])
    if "gene_sets.starts" in arrays:
        starts, sets = arrays["gene_sets.starts"], arrays["gene_sets.sets"]
        information = arrays["gene_sets.information"]
        members = sp.csr_matrix(
            (np.ones(len(sets), dtype=np.float32), sets, starts), shape=(len(starts) - 1, len(information))
        )
        genes = np.array(config["gene_set_genes"])
        gene_sets = GeneSets(
            genes=genes, members=members, information=information, source=sources["gene_sets"]
        )
    if "edges.pairs" in arrays:
        pairs, weights = arrays["edges.pairs"], arrays["edges.weights"]
        genes = np.array(config["edge_genes"])
        edges = EdgeList(genes=genes, pairs=pairs, weights=weights, source=sources["edges"])
    return Network(embedding=embedding, gene_sets=gene_sets, edges=edges)


def check_k(settings: StImputeSettings, n_cells: int) -> None:
    """Raise `SettingError` if the reference has fewer usable cells than the requested neighbours."""
    if settings.k > n_cells:
        raise SettingError(
            arg("settings", key="k"),
            expected=f"at most {n_cells:,}, the number of reference cells with counts",
            got=str(settings.k),
            fix="Choose a smaller k.",
        )


def gene_relations(
    network: Network, genes: NDArray[np.str_], *, settings: StImputeSettings
) -> tuple[GraphPart, ...]:
    """Return the relations chosen in the settings, for the genes of a reference.

    Parameters
    ----------
    network
        Embeddings, gene sets and edges.
    genes
        (n_genes,) names of the genes of the reference.
    settings
        Settings of the method.

    Raises
    ------
    GeneError
        An embedding table, gene sets or edges contain none of the genes.
    """
    relations: dict[RelationKind, GeneRelation] = {"expression": ExpressionRelation()}
    if network.embedding is not None:
        places, vectors = network.embedding.match(genes)
        rows = np.full(len(genes), -1)
        rows[places] = np.arange(len(places))
        nearest = settings.graph_neighbors if settings.measure == "similarity" else None
        relations["embedding"] = EmbeddingRelation(vectors=vectors, rows=rows, nearest=nearest)
    if network.gene_sets is not None:
        known, members = network.gene_sets.aligned(genes)
        information = network.gene_sets.information
        relations["gene_sets"] = GeneSetRelation(known=known, members=members, information=information)
    if network.edges is not None:
        known, edges = network.edges.aligned(genes)
        relations["edges"] = EdgeRelation(known=known, edges=edges)
    shares = settings.graph_shares(relations)
    return tuple(
        GraphPart(name=name, relation=relations[name], share=share) for name, share in shares.items()
    )


def gene_graph(
    pair: Pair, columns: GeneColumns, *, settings: StImputeSettings, parts: tuple[GraphPart, ...]
) -> GeneGraph:
    """Return the gene graph of some relations for a pair's reference, with its source genes."""
    sources = np.arange(pair.sc.n_genes) if uses_all_sources(pair, settings) else pair.sc_shared
    return GeneGraph(
        sources=sources,
        source_expression=columns.dense(sources),
        parts=parts,
        measure=settings.measure,
        n_neighbors=settings.graph_neighbors,
    )


def network_record(graph: GeneGraph, network: Network, n_genes: int) -> dict[str, dict[str, Any]]:
    """Return a description of a gene graph, as plain values that any format can store.

    Parameters
    ----------
    graph
        The graph.
    network
        The inputs of its relations.
    n_genes
        Number of genes of the reference.

    Returns
    -------
    For each relation its ``share``, its ``source``, and ``known_genes``, the number of genes that it
    contains.
    """
    known_counts = graph.known_genes(n_genes)
    return {
        part.name: {
            "share": float(part.share),
            "source": network.sources.get(part.name, "reference"),
            "known_genes": known_counts[part.name],
        }
        for part in graph.parts
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkGenes:
    """Some genes of the reference, ready for stImpute's networks: see `cellweft.impute.base.Predictor`.

    Attributes
    ----------
    model
        A trained model.
    tables
        Tables of genes, each with as many genes as fit in memory with a block of cells.
    cells
        Number of cells per block.
    """

    model: StImputeModel
    tables: tuple[GeneTable, ...]
    cells: int

    @classmethod
    def of(cls, model: StImputeModel, columns: GeneColumns, genes: IntArray) -> NetworkGenes:
        """Prepare genes for prediction.

        Parameters
        ----------
        model, columns
            A trained model, and its reference stored by gene.
        genes
            (n_genes,) positions in the reference.
        """
        parts = [genes[places] for places in row_blocks(len(genes), TABLE_GENES)]
        per_cell = bytes_per_cell(model.settings, len(model.sources.weights), min(len(genes), TABLE_GENES))
        tables = (
            GeneTable.build(model.graph, part, columns.dense(part), device=model.device) for part in parts
        )
        return cls(model=model, tables=tuple(tables), cells=rows_within(BLOCK_BYTES, per_cell))

    def values(self, measured: FloatArray) -> FloatArray:
        """See `cellweft.impute.base.Predictor`."""
        near = stimpute.find_neighbors(self.model, measured)
        predicted = np.empty((len(near), sum(len(table.weights) for table in self.tables)), dtype=np.float32)
        for rows in row_blocks(len(near), self.cells):
            predicted[rows] = stimpute.predict_block(self.model, near[rows], self.tables)
        return predicted
