"""The folder of a saved model: JSON, safetensors and parquet with a schema version; never a pickle."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cellweft._errors import CellweftError, FormatError, InputError, MissingFileError, checks_kinds
from cellweft._provenance import refuse_former_name, versions
from cellweft._typing import PathLike
from cellweft.data.io.atomic_output import check_output, output_errors, partial_output
from cellweft.data.io.damaged import reading

SCHEMA = 3
_CONFIG, _WEIGHTS, _GENES = "config.json", "weights.safetensors", "genes.parquet"
_Saved = TypeVar("_Saved")
_Part = TypeVar("_Part")


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelFolder:
    """Contents of a model folder.

    Attributes
    ----------
    config
        Plain values, including ``kind``: "imputer" or "placer".
    tensors
        Learned tensors by name.
    genes
        One row per gene of the model, with its name in the column ``gene``.
    """

    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    genes: pd.DataFrame


class FolderModel:
    """An estimator that can be saved in a model folder."""

    def _folder(self) -> ModelFolder:
        """Return the contents of its folder."""
        raise NotImplementedError

    @checks_kinds
    def save(self, path: PathLike, *, overwrite: bool = False) -> Path:
        """Write the model to a folder, without the data; `cellweft.load` reads it.

        Parameters
        ----------
        path
            The folder, which is written from scratch: ``config.json`` (preset, settings, seed, versions,
            schema), ``weights.safetensors`` (learned tensors; for stImpute also embeddings, gene sets and
            edges of the reference's genes), ``genes.parquet`` (the genes of the fit).
        overwrite
            Whether an existing model may be replaced.

        Returns
        -------
        Path
            Path of the output.

        Raises
        ------
        NotFittedError
            The estimator is not fitted.
        OutputExistsError, OutputError
            The folder exists, or could not be written.
        """
        return write_folder(self._folder(), path, overwrite=overwrite)


def write_folder(folder: ModelFolder, path: PathLike, *, overwrite: bool = False) -> Path:
    """Write a model folder and return its path; parameters and errors as in `FolderModel.save`."""
    target = check_output(path, overwrite=overwrite, kind="model")
    config = {"schema": SCHEMA, **folder.config, "versions": versions()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in folder.tensors.items()}
    with partial_output(target, overwrite=overwrite, kind="model") as partial, output_errors(target):
        partial.mkdir()
        (partial / _CONFIG).write_text(json.dumps(config, indent=2))
        try:
            save_file(tensors, partial / _WEIGHTS)
        except SafetensorError as error:  # for example a full disk, which is not an OSError here
            raise OSError(str(error)) from error
        folder.genes.to_parquet(partial / _GENES)
    return target


def read_folder(path: PathLike, parse: Callable[[ModelFolder], _Saved]) -> _Saved:
    """Read a model folder.

    Parameters
    ----------
    path
        The folder.
    parse
        Returns the saved object for the contents of the folder.

    Raises
    ------
    MissingFileError
        There is no model at the path.
    FormatError
        Its files are damaged, or have another schema.
    """
    folder = Path(path)
    for name in (_CONFIG, _WEIGHTS, _GENES):
        if not (folder / name).is_file():
            expected = f"a model folder with {_CONFIG}, {_WEIGHTS} and {_GENES}"
            raise MissingFileError(
                str(folder),
                expected=expected,
                got=f"no {name}",
                fix="Pass the folder that save(path) created.",
            )
    again = "The files are damaged: fit the model and save it again."
    with reading(str(folder), expected="the files of a saved model", fix=again):
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        if config["schema"] != SCHEMA:
            refuse_former_name(config.get("versions", ()), str(folder))
            newer = isinstance(config["schema"], int) and config["schema"] > SCHEMA
            fix = (
                "Update cellweft."
                if newer
                else "Fit the model and save it again with this version of cellweft."
            )
            expected, got = f"a model of schema {SCHEMA}", f"schema {config['schema']}"
            raise FormatError(str(folder), expected=expected, got=got, fix=fix)
        tensors, genes = load_file(folder / _WEIGHTS), pd.read_parquet(folder / _GENES)
        try:
            return parse(ModelFolder(config=config, tensors=tensors, genes=genes))
        except FormatError:
            raise
        except CellweftError as error:  # saved settings and genes have already passed their checks
            raise FormatError(
                str(folder), expected="the files of a saved model", got=str(error), fix=again
            ) from error


def named(name: str, parts: Mapping[str, _Part]) -> dict[str, _Part]:
    """Return the tensors or arrays of one network with its name as a prefix; the inverse of `part_of`."""
    return {f"{name}.{key}": part for key, part in parts.items()}


def check_width(tensors: dict[str, torch.Tensor], name: str, width: int, *, what: str) -> None:
    """Raise `InputError` if saved weights have another width than their network.

    `read_folder` turns it into a `FormatError` with the folder. It is checked before the network is created,
    because a damaged width could need all memory, or hours.

    Parameters
    ----------
    tensors, name
        All that was saved, and the name of the weights, (width, n_in).
    width
        The width according to the settings or the genes.
    what
        Source of the width, for the error.
    """
    n_rows = len(tensors[name])
    if n_rows != width:
        raise InputError(
            f"{_WEIGHTS}, {name}",
            expected=f"{width:,} rows, as {what} states",
            got=f"{n_rows:,}",
            fix="The files are damaged or come from two models: fit the model and save it again.",
        )


def part_of(tensors: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """Return the tensors of one network, with its name as their prefix."""
    return {
        key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")
    }
