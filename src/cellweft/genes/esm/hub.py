"""Locates the files of a protein language model: the Hugging Face Hub, its cache, or a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cellweft._errors import FormatError, InputError, MissingFileError, SettingError, arg, require
from cellweft._text import near, shorten

KNOWN_MODELS = tuple(
    f"facebook/esm2_{size}_UR50D"
    for size in ("t6_8M", "t12_35M", "t30_150M", "t33_650M", "t36_3B", "t48_15B")
)
"""Names of the ESM-2 models on the Hub, from 320 to 5120 numbers per protein."""

_CONFIG, _LETTERS = "config.json", "vocab.txt"
_SMALL_FILES = (_CONFIG, _LETTERS, "tokenizer_config.json", "special_tokens_map.json")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first existing one is read
_INDEX = ".index.json"  # lists the weight files if there are several
_CODES_OF_COMMITS = 16  # digits of the digest of a folder


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A model with all files on this machine.

    Attributes
    ----------
    name
        Name given by the user.
    revision
        The commit, for a model from the Hub; otherwise ``sha256:`` and the start of a digest of its files.
    folder
        Folder of the files.
    config
        Contents of ``config.json``.
    """

    name: str
    revision: str
    folder: Path
    config: dict[str, Any]

    @property
    def n_layers(self) -> int:
        """Number of layers of the network."""
        return int(self.config["num_hidden_layers"])

    @property
    def n_dimensions(self) -> int:
        """Length of a vector."""
        return int(self.config["hidden_size"])

    @property
    def width(self) -> int:
        """Numbers per residue in the widest part of a layer."""
        return int(self.config["intermediate_size"])

    @property
    def most_residues(self) -> int | None:
        """Largest number of residues that the network can read at once; None without a limit."""
        if self.config.get("position_embedding_type", "absolute") == "rotary":
            return None
        # Positions start after the index of the padding token; two are used by the special tokens.
        return int(self.config["max_position_embeddings"]) - int(self.config.get("pad_token_id") or 0) - 3

    @property
    def n_parameters(self) -> int:
        """Number of weights of the network, to within one percent."""
        each = 4 * self.n_dimensions**2 + 2 * self.n_dimensions * self.width
        return self.n_layers * each + int(self.config.get("vocab_size") or 0) * self.n_dimensions


def find_model(model: str, *, revision: str | None = None, offline: bool = False) -> ModelSource:
    """Find the files of a model, and download missing ones from the Hub.

    Parameters
    ----------
    model
        Name on the Hugging Face Hub, or the path of a folder.
    revision
        Branch, tag or commit on the Hub; None for the latest.
    offline
        Use only files on this machine, and never contact the Hub, as with ``HF_HUB_OFFLINE=1`` in the
        environment.

    Returns
    -------
    ModelSource
        The model, with ``config.json``, the vocabulary and all weight files in its folder.

    Raises
    ------
    MissingFileError
        There is no folder at the path; it lacks files; or the cache is empty and there is no network.
    SettingError
        The Hub has no model or revision with this name; a revision is given for a folder.
    FormatError
        The model is not an ESM model, or its ``config.json`` is damaged.
    MissingExtraError
        A name on the Hub is given, but ``huggingface_hub`` is not installed.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        if revision is not None:
            expected = f"none, as {model} is a folder"
            fix = "Omit it, or pass the name of a model on the Hugging Face Hub."
            raise SettingError("revision", expected=expected, got=repr(revision), fix=fix)
        config = _read_config(path)
        weights = _weights(path)
        return ModelSource(name=model, revision=_digest(path, weights), folder=path, config=config)
    if path.exists() or model.startswith((".", "/", "~")) or "\\" in model or model.count("/") > 1:
        raise MissingFileError(
            f"model {model}",
            expected="a folder with the files of a model, or a name such as facebook/esm2_t33_650M_UR50D",
            got="a file" if path.exists() else "nothing at this path",
            fix="Pass the folder that contains config.json, vocab.txt and model.safetensors.",
        )
    folder = _from_hub(model, revision, offline=offline)
    return ModelSource(name=model, revision=folder.name, folder=folder, config=_read_config(folder))


def _from_hub(model: str, revision: str | None, *, offline: bool) -> Path:
    """Return the cache folder with the files of a model, after downloading missing ones."""
    hub = require("huggingface_hub", "esm")

    def fetch(patterns: Sequence[str]) -> Path:
        try:
            snapshot = hub.snapshot_download(
                model, revision=revision, allow_patterns=list(patterns), local_files_only=offline
            )
        except Exception as error:  # from the Hub, the network or the disk; types differ between versions
            raise _hub_error(error, model, revision) from error
        return Path(snapshot)

    # Only one format of the weights is downloaded, and pickles only if there is no other.
    folder = fetch([*_SMALL_FILES, "model*.safetensors", f"{_WEIGHTS[0]}{_INDEX}"])
    if _weights_name(folder) is None:
        folder = fetch([*_SMALL_FILES, "pytorch_model*.bin", f"{_WEIGHTS[1]}{_INDEX}"])
    try:
        _weights(folder)
    except MissingFileError as error:
        raise _not_here(model, error.got) from error
    return folder


def _weights_name(folder: Path) -> str | None:
    ends = ("", _INDEX)
    return next((name for name in _WEIGHTS if any((folder / f"{name}{end}").exists() for end in ends)), None)


def _weights(folder: Path) -> list[Path]:
    """Return the weight files to read, after checking that all exist."""
    name = _weights_name(folder)
    names = [name or _WEIGHTS[0]]
    if name is not None and not (folder / name).exists():
        names = sorted(set(_read_json(folder / f"{name}{_INDEX}")["weight_map"].values()))
    missing = [file_name for file_name in (_CONFIG, _LETTERS, *names) if not (folder / file_name).is_file()]
    if missing:
        raise MissingFileError(
            f"model {folder}",
            expected=f"{_CONFIG}, {_LETTERS} and the weights",
            got=f"no {shorten(missing)}",
            fix="Download the model again; existing files are kept.",
        )
    return [folder / file_name for file_name in names]


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / _CONFIG).is_file():
        there = sorted(entry.name for entry in folder.iterdir())
        raise MissingFileError(
            f"model {folder}",
            expected=f"a folder with {_CONFIG}, {_LETTERS} and the weights",
            got=f"no {_CONFIG}, but {shorten(there, most=3)}" if there else "an empty folder",
            fix="Pass the folder to which the model was downloaded or saved.",
        )
    config = _read_json(folder / _CONFIG)
    kind = "esmfold" if config.get("is_folding_model") else config.get("model_type")
    if kind != "esm":
        raise FormatError(
            f"model {folder}",
            expected="an ESM model",
            got=f"a model of type {kind!r}",
            fix=f"Use one of {shorten(KNOWN_MODELS, most=len(KNOWN_MODELS))}.",
        )
    needed = ("num_hidden_layers", "hidden_size", "intermediate_size", "max_position_embeddings")
    lacking = [key for key in needed if not isinstance(config.get(key), int)]
    if lacking:
        raise _damaged(folder / _CONFIG, f"no whole number for {shorten(lacking)}")
    return config


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    if not isinstance(content, dict):
        raise _damaged(path, "JSON of another structure")
    return content


def _damaged(path: Path, got: str) -> FormatError:
    return FormatError(str(path), expected="a model file", got=got, fix="Download the model again.")


def _digest(folder: Path, weights: Sequence[Path]) -> str:
    """Return a digest of the files in a folder, which identifies the model."""
    total = hashlib.sha256()
    for path in (folder / _CONFIG, folder / _LETTERS, *weights):
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{total.hexdigest()[:_CODES_OF_COMMITS]}"


def _hub_error(error: Exception, model: str, revision: str | None) -> Exception:
    """Return an error of the Hub as an error of cellweft, with the next step."""
    kinds = require("huggingface_hub.errors", "esm")
    if isinstance(error, kinds.RevisionNotFoundError):
        return SettingError(
            "revision",
            expected=f"a branch, tag or commit of {model}",
            got=repr(revision),
            fix="Omit it for the latest, or look it up on the model's page.",
        )
    if isinstance(error, kinds.GatedRepoError):
        return InputError(
            f"model {model}",
            expected="a model that you may download",
            got="one that needs its owner's permission",
            fix="Request access on its page on the Hub, log in with `hf auth login`, and run again.",
        )
    if isinstance(error, kinds.RepositoryNotFoundError | kinds.HFValidationError):
        return SettingError(
            f"model {model}",
            expected="a model on the Hugging Face Hub, or a folder",
            got="a name that is neither",
            fix=f"{near(model, KNOWN_MODELS)} Or pass the path of a folder with a model.",
        )
    cause = error.__cause__
    if isinstance(error, kinds.LocalEntryNotFoundError):
        is_offline = cause is None or isinstance(cause, kinds.OfflineModeIsEnabled)
        why = "offline mode" if is_offline else f"no response from the Hub ({_first_line(cause)})"
        is_part = type(error) is not kinds.LocalEntryNotFoundError
        return _not_here(model, f"{why} and {'some of its files' if is_part else 'nothing'} in the cache")
    return _not_here(model, f"an interrupted download ({_first_line(error)})")


def _first_line(error: BaseException | None) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _not_here(model: str, got: str) -> MissingFileError:
    cache, folder = require("huggingface_hub.constants", "esm").HF_HUB_CACHE, model.rpartition("/")[2]
    hint = near(model, KNOWN_MODELS) if model not in KNOWN_MODELS else ""
    fixes = [
        hint if hint.startswith("Did you mean") else "",
        "With a network, run again: files that were downloaded completely are kept.",
        f"Without one, run `hf download {model} --local-dir {folder}` (formerly `huggingface-cli download`)",
        "on a machine that has one, copy the folder here, and pass it instead of the name:",
    ]
    return MissingFileError(
        f"model {model}",
        expected=f"its files on the Hugging Face Hub or in the cache {cache}",
        got=got,
        fix=f"{' '.join(fixes).strip()} " + arg("model", folder) + ", " + arg("offline", True) + ".",
    )
