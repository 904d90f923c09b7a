"""A fitted Imputer on disk: what of it goes into a model folder, and back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from weft._compute import torch_stream
from weft._errors import check_choice, check_range
from weft._typing import PathLike, Preset
from weft.core.settings import StImputeSettings
from weft.core.stimpute import AutoEncoder, GeneNetwork, StImputeModel, new_networks
from weft.data.embeddings import EmbeddingTable
from weft.data.pair import Pair
from weft.folder import ModelFolder, part_of, write_folder
from weft.reliability import Reliability, ReliabilityNet, ReliabilityNets
from weft.streaming import reference_mark

_NETWORKS = ("autoencoder", "network")


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedImputer:
    """What a model folder holds: all of a fitted Imputer but its data.

    Attributes
    ----------
    preset, seed, settings
        As it was made and fitted with.
    panel
        (n_panel,) names of the genes it was fitted to, as the reference spells them.
    reference
        What tells its reference from others, of `weft.streaming.reference_mark`.
    networks
        Autoencoder and gene network, on the CPU.
    reliability
        What was learned of reliability, if anything was.
    embedding
        The protein embeddings that the gene graph used, if it did.
    """

    preset: Preset
    seed: int
    settings: StImputeSettings
    panel: NDArray[np.str_]
    reference: str
    networks: tuple[AutoEncoder, GeneNetwork]
    reliability: ReliabilityNets | None
    embedding: EmbeddingTable | None


def saved_from(
    model: StImputeModel, pair: Pair, *, preset: Preset, seed: int, reliability: Reliability | None
) -> SavedImputer:
    """Return what has to be written of a fitted model, given the pair it was fitted to."""
    embedding, rows = None, model.graph.embedding_row
    if model.graph.embedding is not None and rows is not None:
        values = model.graph.embedding[rows[rows >= 0]].astype(np.float32)
        embedding = EmbeddingTable(genes=pair.sc.genes[rows >= 0], values=values, source="saved model")
    return SavedImputer(
        preset=preset,
        seed=seed,
        settings=model.settings,
        panel=pair.shared_genes,
        reference=reference_mark(pair),
        networks=(model.autoencoder, model.network),
        reliability=None if reliability is None else reliability.nets,
        embedding=embedding,
    )


def write_model(saved: SavedImputer, path: PathLike, *, overwrite: bool = False) -> Path:
    """Write a model folder.

    Parameters
    ----------
    saved
        What to write.
    path
        The folder, made anew: ``config.json`` (preset, settings, seed, versions, schema),
        ``weights.safetensors`` (what was learned, and the embeddings that were used), ``genes.parquet`` (the
        panel).
    overwrite
        Whether a model that is there may be replaced.

    Returns
    -------
    Path
        Where it lies.

    Raises
    ------
    OutputExistsError, OutputError
        The folder is there already, or could not be written.
    """
    nets = saved.reliability
    genes = pd.DataFrame({"gene": saved.panel.astype(str)})
    if nets is not None:
        genes["reliability_fold"] = [nets.fold_of[gene] for gene in genes["gene"]]
        genes["reliability"] = [nets.panel_scores[gene] for gene in genes["gene"]]
    tensors = _reliability_tensors(nets)
    for name, network in zip(_NETWORKS, saved.networks, strict=True):
        tensors |= {f"{name}.{key}": one for key, one in network.state_dict().items()}
    config: dict[str, Any] = {
        "kind": "imputer",
        "preset": saved.preset,
        "settings": asdict(saved.settings),
        "seed": int(saved.seed),
        "reference": saved.reference,
        "n_reliability_nets": 0 if nets is None else len(nets.nets),
    }
    if saved.embedding is not None:
        tensors["embedding"] = torch.from_numpy(saved.embedding.values)
        config["embedded_genes"] = [str(gene) for gene in saved.embedding.genes]
    return write_folder(ModelFolder(config=config, tensors=tensors, genes=genes), path, overwrite=overwrite)


def imputer_from(folder: ModelFolder) -> SavedImputer:
    """Return what was saved of an Imputer; what is wrong with the folder raises as `read_folder` expects."""
    return _parsed(folder.config, folder.tensors, folder.genes)


def _parsed(config: dict[str, Any], tensors: dict[str, torch.Tensor], genes: pd.DataFrame) -> SavedImputer:
    settings = StImputeSettings(**config["settings"])
    check_choice("preset", config["preset"], get_args(Preset))
    check_range("seed", config["seed"], low=0, integer=True)
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
            panel_scores={str(gene): float(score) for gene, score in by_gene["reliability"].items()},
        )
    return SavedImputer(
        preset=config["preset"],
        seed=config["seed"],
        settings=settings,
        reference=config["reference"],
        panel=np.asarray(genes["gene"].astype(str).tolist()),
        networks=networks,
        reliability=nets,
        embedding=_embedding(config, tensors),
    )


def _reliability_tensors(nets: ReliabilityNets | None) -> dict[str, torch.Tensor]:
    if nets is None:
        return {}
    tensors = {f"reliability.{name}": torch.from_numpy(getattr(nets, name)) for name in ("centre", "scale")}
    for number, net in enumerate(nets.nets):
        tensors |= {f"reliability.{number}.{name}": one for name, one in net.state_dict().items()}
    return tensors


def _embedding(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> EmbeddingTable | None:
    if "embedding" not in tensors:
        return None
    values = tensors["embedding"].numpy().astype(np.float32)
    return EmbeddingTable(genes=np.array(config["embedded_genes"]), values=values, source="saved model")
