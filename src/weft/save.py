"""Models on disk: JSON, safetensors and parquet with a schema version; nothing is ever unpickled."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from weft._compute import torch_stream
from weft._errors import FormatError, MissingFileError, NotFittedError
from weft._typing import PathLike
from weft.core.settings import StImputeSettings
from weft.core.stimpute import new_networks
from weft.data.embeddings import EmbeddingTable
from weft.data.output import check_output, output_errors, partial_output
from weft.imputer import Imputer, Restored
from weft.record import versions
from weft.reliability import ReliabilityNet, ReliabilityNets

SCHEMA = 1
_FILES = ("config.json", "weights.safetensors", "genes.parquet")


def save_imputer(imputer: Imputer, path: PathLike, *, overwrite: bool = False) -> Path:
    """Write a fitted Imputer to a folder.

    Parameters
    ----------
    imputer
        Fitted.
    path
        The folder, made anew: ``config.json`` (preset, settings, seed, versions, schema),
        ``weights.safetensors`` (what was learned, and the embeddings that were used), ``genes.parquet`` (the
        panel). The reference is not in it: `load` and then `Imputer.attach` the pair.
    overwrite
        Whether a model that is there may be replaced.

    Raises
    ------
    NotFittedError
        There is nothing to save yet.
    OutputExistsError, OutputError
        The folder is there already, or could not be written.
    """
    model = imputer.model_
    if model is None or imputer.pair_ is None:
        raise NotFittedError(
            "Imputer", expected="a fitted Imputer", got="one that is not", fix="Call fit(pair) first."
        )
    pair, nets = imputer.pair_, None if imputer.reliability_ is None else imputer.reliability_.nets
    genes = pd.DataFrame({"gene": pair.shared_genes.astype(str)})
    genes["reliability_fold"] = -1 if nets is None else [nets.fold_of[gene] for gene in genes["gene"]]
    tensors = {f"autoencoder.{name}": one for name, one in model.autoencoder.state_dict().items()}
    tensors |= {f"network.{name}": one for name, one in model.network.state_dict().items()}
    tensors |= _reliability_tensors(nets)
    config: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "imputer",
        "preset": imputer.preset,
        "settings": dataclasses.asdict(model.settings),
        "seed": int(imputer.seed),
        "n_reliability_nets": 0 if nets is None else len(nets.nets),
        "versions": versions(),
    }
    if model.graph.embedding is not None and model.graph.embedding_row is not None:
        tensors["embedding"] = torch.from_numpy(model.graph.embedding)
        embedded = np.flatnonzero(model.graph.embedding_row >= 0)
        order = embedded[np.argsort(model.graph.embedding_row[embedded])]
        config["embedded_genes"] = pair.sc.genes[order].tolist()
    target = check_output(path, overwrite=overwrite)
    with partial_output(target, overwrite=overwrite) as partial, output_errors(target):
        partial.mkdir()
        (partial / "config.json").write_text(json.dumps(config, indent=2))
        save_file(
            {name: one.detach().cpu().contiguous() for name, one in tensors.items()}, partial / _FILES[1]
        )
        genes.to_parquet(partial / "genes.parquet")
    return target


def load(path: PathLike, *, device: str = "auto") -> Imputer:
    """Read a model that was saved; give it data with `Imputer.attach` before it imputes.

    Parameters
    ----------
    path
        The folder.
    device
        Where it shall work.

    Raises
    ------
    MissingFileError
        There is no model at the path.
    FormatError
        Its files are damaged, or of a newer schema.
    """
    folder = Path(path)
    for name in _FILES:
        if not (folder / name).is_file():
            raise MissingFileError(
                str(folder),
                expected="a model folder with " + ", ".join(_FILES),
                got=f"no {name}",
                fix="Name the folder that Imputer.save or --save-model wrote.",
            )
    try:
        config = json.loads((folder / "config.json").read_text())
        tensors = load_file(folder / "weights.safetensors")
        genes = pd.read_parquet(folder / "genes.parquet")
        if config["schema"] != SCHEMA:
            raise _damaged(folder, f"a model of schema {SCHEMA}", f"schema {config['schema']}")
        return _restored(config, tensors, genes, device)
    except (ValueError, KeyError, OSError, RuntimeError, SafetensorError) as error:
        if isinstance(error, FormatError):
            raise
        raise _damaged(folder, "the files of a saved model", f"{type(error).__name__}: {error}") from error


def _restored(
    config: dict[str, Any], tensors: dict[str, torch.Tensor], genes: pd.DataFrame, device: str
) -> Imputer:
    settings = StImputeSettings(**config["settings"])
    imputer = Imputer(
        preset=config["preset"],
        settings=config["settings"],
        embedding=_embedding(config, tensors),
        reliability=config["n_reliability_nets"] > 0,
        seed=config["seed"],
        device=device,
    )
    networks = new_networks(settings, len(genes), torch_stream(0, "load"))
    for name, network in zip(("autoencoder", "network"), networks, strict=True):
        network.load_state_dict(_part(tensors, name))
    nets = None
    if config["n_reliability_nets"]:
        centre, scale = (tensors[f"reliability.{one}"].numpy() for one in ("centre", "scale"))
        learned = []
        for number in range(config["n_reliability_nets"]):
            net = ReliabilityNet(len(centre), torch_stream(0, "load"))
            net.load_state_dict(_part(tensors, f"reliability.{number}"))
            learned.append(net)
        fold_of = {
            str(gene): int(fold) for gene, fold in zip(genes["gene"], genes["reliability_fold"], strict=True)
        }
        nets = ReliabilityNets(centre=centre, scale=scale, nets=tuple(learned), fold_of=fold_of)
    imputer._restored = Restored(
        settings=settings, panel=_names(genes["gene"]), networks=networks, reliability=nets
    )
    return imputer


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


def _part(tensors: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(f"{name}."): one for key, one in tensors.items() if key.startswith(f"{name}.")}


def _names(column: pd.Series[str]) -> NDArray[np.str_]:
    return np.asarray(column.astype(str).tolist())


def _damaged(folder: Path, expected: str, got: str) -> FormatError:
    return FormatError(
        str(folder), expected=expected, got=got, fix="Save the model anew with this version of weft."
    )
