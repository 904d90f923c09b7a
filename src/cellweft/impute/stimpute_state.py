"""stImpute on disk: what of a fit goes into a model folder, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from cellweft._compute import torch_stream
from cellweft._model_folder import ModelFolder, named, part_of
from cellweft.data._pair import Pair
from cellweft.data.io.keys import RELIABILITY
from cellweft.genes.embeddings import EmbeddingTable
from cellweft.genes.gene_sets import GeneSets
from cellweft.genes.interactions import EdgeList
from cellweft.genes.network import Network
from cellweft.impute.uncertainty.reliability_network import ReliabilityNet, ReliabilityNets
from cellweft.nn.config import StImputeSettings
from cellweft.nn.gene_relations import EdgeRelation, EmbeddingRelation, GeneRelation, GeneSetRelation
from cellweft.nn.stimpute import AutoEncoder, GeneNetwork, StImputeModel, new_networks

_NETWORKS = ("autoencoder", "network")


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedStImpute:
    """What a model folder holds of stImpute: all of a fit but its data.

    Attributes
    ----------
    settings
        As they were used.
    networks
        Autoencoder and gene network, on the CPU.
    reliability
        What was learned of reliability, if anything was.
    network
        What the gene graph used of protein embeddings, gene sets and edges, for the reference's genes.
    """

    settings: StImputeSettings
    networks: tuple[AutoEncoder, GeneNetwork]
    reliability: ReliabilityNets | None
    network: Network

    @classmethod
    def of(cls, folder: ModelFolder) -> Self:
        """Read it from a folder; what is wrong with that raises as `read_folder` expects."""
        config, tensors, genes = folder.config, folder.tensors, folder.genes
        settings = StImputeSettings(**config["settings"])
        start = torch_stream(0, "load")  # every weight drawn from it is overwritten at once
        networks = new_networks(settings, len(genes), start)
        for name, network in zip(_NETWORKS, networks, strict=True):
            network.load_state_dict(part_of(tensors, name))
        nets = None
        if config["n_reliability_nets"]:
            centre, scale = (tensors[f"reliability.{one}"].numpy() for one in ("centre", "scale"))
            learned = [ReliabilityNet(len(centre), start) for _ in range(config["n_reliability_nets"])]
            for number, net in enumerate(learned):
                net.load_state_dict(part_of(tensors, f"reliability.{number}"))
            by_gene = genes.set_index("gene")
            nets = ReliabilityNets(
                centre=centre,
                scale=scale,
                nets=tuple(learned),
                fold_of={str(gene): int(fold) for gene, fold in by_gene["reliability_fold"].items()},
                panel_scores={str(gene): float(score) for gene, score in by_gene[RELIABILITY].items()},
            )
        return cls(settings=settings, networks=networks, reliability=nets, network=_network(config, tensors))


def folder_of(
    model: StImputeModel, pair: Pair, nets: ReliabilityNets | None, *, sources: Mapping[str, str]
) -> ModelFolder:
    """Return what has to be written of a fitted model.

    Parameters
    ----------
    model, nets
        What was learned.
    pair
        The data it was fitted to.
    sources
        Where each relation of the gene graph came from.
    """
    genes = pd.DataFrame({"gene": pair.shared_genes.astype(str)})
    config: dict[str, Any] = {
        "settings": asdict(model.settings),
        "n_reliability_nets": 0 if nets is None else len(nets.nets),
        "sources": dict(sources),
    }
    arrays: dict[str, NDArray[Any]] = {}
    for part in model.graph.parts:
        _add_relation(part.relation, pair.sc.genes, config, arrays)
    tensors: dict[str, torch.Tensor] = {}
    for name, network in zip(_NETWORKS, (model.autoencoder, model.network), strict=True):
        tensors |= named(name, network.state_dict())
    if nets is not None:
        genes["reliability_fold"] = [nets.fold_of[gene] for gene in genes["gene"]]
        genes[RELIABILITY] = [nets.panel_scores[gene] for gene in genes["gene"]]
        arrays |= {"reliability.centre": nets.centre, "reliability.scale": nets.scale}
        for number, net in enumerate(nets.nets):
            tensors |= named(f"reliability.{number}", net.state_dict())
    tensors |= {name: torch.from_numpy(np.ascontiguousarray(one)) for name, one in arrays.items()}
    return ModelFolder(config=config, tensors=tensors, genes=genes)


def _add_relation(
    relation: GeneRelation, genes: NDArray[np.str_], config: dict[str, Any], arrays: dict[str, NDArray[Any]]
) -> None:
    """Put what a relation was made from among the values of a folder, as far as it is about the genes."""
    known = relation.knows(np.arange(len(genes)))
    names = genes[known].tolist()
    if isinstance(relation, EmbeddingRelation):
        config["embedded_genes"] = names
        arrays["embedding"] = relation.vectors[relation.rows[known]]
    elif isinstance(relation, GeneSetRelation):
        config["gene_set_genes"], members = names, relation.members[known]
        arrays["gene_sets.starts"] = members.indptr.astype(np.int64)
        arrays["gene_sets.sets"] = members.indices.astype(np.int64)
        arrays["gene_sets.information"] = relation.information
    elif isinstance(relation, EdgeRelation):
        upper = sp.csr_matrix(sp.triu(relation.edges[known][:, known]))
        upper.sort_indices()  # so that a model is saved alike again
        config["edge_genes"], arrays["edges.weights"] = names, upper.data
        arrays["edges.pairs"] = np.stack(upper.tocoo().coords, axis=1).astype(np.int64)


def _network(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Network:
    """Return the parts of a network that a folder holds."""
    arrays, sources = {name: one.numpy() for name, one in tensors.items()}, config["sources"]
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
