"""Computes a table of embeddings from protein sequences, with a protein language model such as ESM-2."""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd

from cellweft._compute import progress_callback, resolve_device
from cellweft._errors import (
    GeneError,
    InputError,
    SettingError,
    check_choice,
    check_range,
    checks_kinds,
    require,
)
from cellweft._text import human_bytes, many, shorten
from cellweft._typing import FloatArray, PathLike, Pooling, Progress, ProgressOption
from cellweft.data.gene_names import duplicates_of
from cellweft.data.io.atomic_output import check_output, partial_output
from cellweft.genes.embeddings import EmbeddingTable
from cellweft.genes.esm.checkpoint import read_parts, remove_parts, vector_key, write_part
from cellweft.genes.esm.hub import ModelSource, find_model
from cellweft.genes.proteins.fasta import AMINO_ACIDS, FastaRecord, read_fasta

if TYPE_CHECKING:
    import torch

Proteins: TypeAlias = "PathLike | Mapping[str, str] | Sequence[FastaRecord]"
"""Path of a FASTA file, a mapping from name to sequence, or records."""

StoredAs: TypeAlias = Literal["float32", "float16"]
Precision: TypeAlias = Literal["auto", "bfloat16", "float32"]

DEFAULT_MODEL = "facebook/esm2_t33_650M_UR50D"
"""1280 numbers per protein. The paper's is ``facebook/esm2_t36_3B_UR50D``, with 2560."""

_TOKENS_PER_BATCH = {"cuda": 16_384, "mps": 4_096, "cpu": 4_096}
_LIBRARIES = 600e6  # memory of Python, torch and transformers, in bytes
_STAGE = "embedding proteins"
_STRANGE = re.compile(f"[^{AMINO_ACIDS}]")


@dataclass(frozen=True, kw_only=True)
class EmbeddingPlan:
    """The plan of an embedding, made before the weights are loaded.

    Attributes
    ----------
    n_proteins, n_different, n_finished
        Number of proteins; of distinct sequences, each of which is embedded once; and of those finished in an
        earlier run.
    n_windows, n_tokens
        Number of windows for the model, and of their tokens without padding.
    model, revision, layer, n_dimensions
        The model, and the length of its vectors.
    device, precision, tokens_per_batch
        Settings of the run.
    peak_bytes
        Estimated peak memory on the device.
    """

    n_proteins: int
    n_different: int
    n_finished: int
    n_windows: int
    n_tokens: int
    model: str
    revision: str
    layer: int
    n_dimensions: int
    device: str
    precision: str
    tokens_per_batch: int
    peak_bytes: int

    def __str__(self) -> str:
        done = f", {self.n_finished:,} of them already embedded" if self.n_finished else ""
        return (
            f"{many(self.n_proteins, 'protein')} ({self.n_different:,} different{done}), "
            f"{self.n_tokens:,} tokens in {many(self.n_windows, 'window')}; "
            f"{self.model}, layer {self.layer}, {self.n_dimensions:,} numbers each; "
            f"{self.precision} on {self.device}; "
            f"peak memory about {human_bytes(self.peak_bytes)}"
        )


@dataclass(frozen=True, kw_only=True)
class ProteinEmbedder:
    """A protein language model and its settings.

    Parameters
    ----------
    model
        Name of an ESM model on the Hugging Face Hub, or the path of a folder with its files. For example, the
        stImpute paper uses the larger ESM-2 model ``facebook/esm2_t36_3B_UR50D``.
    revision
        Branch, tag or commit on the Hub; None for the latest.
    layer
        Layer whose output is used; 0 is the input of the first layer, and negative numbers count from the
        last.
    pooling
        ``mean`` or ``max`` over the residues, or ``cls`` for the token that precedes them.
    dtype
        Data type of the stored numbers.
    precision
        Precision of matrix products; ``auto`` is bfloat16 on a CUDA device that supports it, otherwise
        float32.
    window
        Maximum number of residues that the model reads at once. ESM-2 was trained on 1022.
    overlap
        Minimum number of residues that neighbouring windows of a longer protein share.
    tokens_per_batch
        Maximum number of tokens that the model reads at once, including padding; None for 16,384 on a CUDA
        device and 4,096 elsewhere. It affects time and memory, not the result.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
    offline
        Whether to use only files on this machine, and never contact the Hub.

    Raises
    ------
    SettingError
        A setting is out of range.

    Notes
    -----
    Source: Lin et al., "Evolutionary-scale prediction of atomic-level protein structure with a language
    model", Science 379, 1123 (2023). stImpute (Zeng et al.) uses the vectors of the proteins in its Eq. 4.

    The vector of a protein depends only on its sequence and the settings; batches, their order and the other
    proteins change only the last digits. Special tokens and padding are left out. A protein longer than
    ``window`` is read in windows. A residue that occurs in several windows counts once, with the mean over
    these windows.

    Examples
    --------
    >>> ProteinEmbedder(pooling="max").model
    'facebook/esm2_t33_650M_UR50D'
    """

    model: str = DEFAULT_MODEL
    revision: str | None = None
    layer: int = -1
    pooling: Pooling = "mean"
    dtype: StoredAs = "float32"
    precision: Precision = "auto"
    window: int = 1022
    overlap: int = 256
    tokens_per_batch: int | None = None
    device: str = "auto"
    offline: bool = False

    def __post_init__(self) -> None:
        check_choice("pooling", self.pooling, get_args(Pooling))
        check_choice("dtype", self.dtype, get_args(StoredAs))
        check_choice("precision", self.precision, get_args(Precision))
        check_range("layer", self.layer, low=-(10**6), high=10**6, integer=True)
        check_range("window", self.window, low=1, integer=True)
        check_range("overlap", self.overlap, low=0, high=self.window - 1, integer=True)
        if self.tokens_per_batch is not None:
            check_range("tokens_per_batch", self.tokens_per_batch, low=1, integer=True)

    @cached_property
    def source(self) -> ModelSource:
        """The model's files, which are located, and downloaded if missing, on first use."""
        files = find_model(self.model, revision=self.revision, offline=self.offline)
        if files.most_residues is not None and self.window > files.most_residues:
            raise SettingError(
                "window",
                expected=(
                    f"at most {files.most_residues} residues, the most that {self.model} can read at once"
                ),
                got=str(self.window),
                fix="Choose a smaller window; longer proteins are read in several.",
            )
        return files

    @checks_kinds
    def plan(self, proteins: Proteins, *, work_dir: PathLike | None = None) -> EmbeddingPlan:
        """Return the plan of `embed`: batches and memory.

        Parameters
        ----------
        proteins, work_dir
            As for `embed`.

        Raises
        ------
        CellweftError
            As in `embed`.
        """
        from cellweft.genes.esm.model import cut

        sequences = checked_proteins(proteins)
        source, layer, device = self.source, self._layer(), resolve_device(self.device)
        keys = self._keys(sequences.values(), device)
        finished = read_parts(Path(work_dir), keys.values()) if work_dir is not None else {}
        lengths = [len(sequence) for sequence, key in keys.items() if key not in finished]
        windows = cut(lengths, window=self.window, overlap=self.overlap)
        n_tokens, tokens = sum(window.n_tokens for window in windows), self._tokens_per_batch(device)
        most = min(max([tokens, *(window.n_tokens for window in windows[:1])]), n_tokens)
        return EmbeddingPlan(
            n_proteins=len(sequences),
            n_different=len(keys),
            n_finished=len(finished),
            n_windows=len(windows),
            n_tokens=n_tokens,
            model=source.name,
            revision=source.revision,
            layer=layer,
            n_dimensions=source.n_dimensions,
            device=str(device),
            precision=self._precision(device),
            tokens_per_batch=tokens,
            peak_bytes=self._peak_bytes(most, device),
        )

    @checks_kinds
    def embed(
        self, proteins: Proteins, *, work_dir: PathLike | None = None, progress: ProgressOption = True
    ) -> EmbeddingTable:
        """Embed proteins.

        Parameters
        ----------
        proteins
            Path of a FASTA file, a mapping from name to sequence, or a list of `cellweft.genes.FastaRecord`.
            Names must be unique, and sequences consist of amino acid letters, in upper or lower case.
        work_dir
            Folder for the finished batches. If a call is interrupted, the next one resumes from it and embeds
            no protein twice. The folder is kept at the end. With None, nothing is kept.
        progress
            True shows a bar in terminals and notebooks, False shows nothing; a callback is called with
            (stage, proteins done, different proteins) after every batch.

        Returns
        -------
        EmbeddingTable
            One vector per name, in the order of the input. ``metadata`` records how they were computed.

        Raises
        ------
        FormatError, MissingFileError
            There is no FASTA file; the model or the work folder is damaged; or the model is not on this
            machine and there is no network.
        InputError
            No protein, an empty sequence, a letter that is not an amino acid.
        GeneError
            Duplicate names.
        SettingError
            No such model, revision, layer or device.
        MissingExtraError
            ``transformers`` is not installed.
        MemoryBudgetError
            A batch does not fit in the device's memory.
        OutputExistsError, OutputError
            The work folder contains other files, or could not be written.
        """
        sequences = checked_proteins(proteins)
        device = resolve_device(self.device)
        keys = self._keys(sequences.values(), device)
        with progress_callback(progress) as report:
            vectors = self._vectors(keys, None if work_dir is None else Path(work_dir), report)
        values = np.stack([vectors[keys[sequence]] for sequence in sequences.values()])
        return EmbeddingTable(
            genes=np.asarray(list(sequences)),
            values=self._rounded(values),
            source=f"{len(sequences)} proteins by {self.source.name}",
            metadata=self._metadata(device),
        )

    @checks_kinds
    def embed_to(
        self,
        proteins: Proteins,
        output: PathLike,
        *,
        overwrite: bool = False,
        progress: ProgressOption = True,
    ) -> Path:
        """Embed proteins and write a table that `cellweft.genes.read_embedding` can read.

        Parameters
        ----------
        proteins, progress
            As for `embed`.
        output
            Path of the parquet file, with one row per name (the index), one column per number, and the
            settings in the metadata. Until it is complete, finished batches are kept next to it in
            ``<output>.parts``, so that an interrupted call can be resumed.
        overwrite
            Whether to replace an existing file.

        Returns
        -------
        Path
            The absolute path.

        Raises
        ------
        CellweftError
            As in `embed`.
        OutputExistsError, OutputError
            The file exists, or could not be written.
        """
        target = check_output(output, overwrite=overwrite, suffixes=(".parquet",))
        table = self.embed(proteins, work_dir=work_folder(target), progress=progress)
        _write(table, target, dtype=self.dtype, overwrite=overwrite)
        remove_parts(work_folder(target))
        return target

    def _vectors(
        self, keys: Mapping[str, str], folder: Path | None, progress: Progress
    ) -> dict[str, FloatArray]:
        """Return the vectors of sequences by key, from the folder if available, otherwise computed."""
        vectors = {} if folder is None else read_parts(folder, keys.values())
        open_sequences = [sequence for sequence, key in keys.items() if key not in vectors]
        progress(_STAGE, len(vectors), len(keys))
        if not open_sequences:
            return vectors
        from cellweft.genes.esm.model import embed_sequences, load_model

        device = resolve_device(self.device)
        model = load_model(
            self.source, layer=self._layer(), device=device, is_bfloat16=self._precision(device) == "bfloat16"
        )
        for new_vectors in embed_sequences(
            model,
            open_sequences,
            pooling=self.pooling,
            window=self.window,
            overlap=self.overlap,
            tokens_per_batch=self._tokens_per_batch(device),
        ):
            part = {keys[open_sequences[number]]: vector for number, vector in new_vectors.items()}
            if folder is not None and part:
                write_part(folder, part)
            vectors |= part
            progress(_STAGE, len(vectors), len(keys))
        return vectors

    def _keys(self, sequences: Iterable[str], device: torch.device) -> dict[str, str]:
        """Return the key of each distinct sequence's vector."""
        settings = self._settings(device)
        return {sequence: vector_key(sequence, settings) for sequence in sequences}

    def _settings(self, device: torch.device) -> dict[str, Any]:
        """Return all that a vector depends on, except its sequence."""
        return {
            "revision": self.source.revision,
            "layer": self._layer(),
            "pooling": self.pooling,
            "precision": self._precision(device),
            "window": self.window,
            "overlap": self.overlap,
        }

    def _layer(self) -> int:
        """Return the layer, counted from the first."""
        layers = self.source.n_layers
        layer = self.layer if self.layer >= 0 else layers + 1 + self.layer
        if not 0 <= layer <= layers:
            raise SettingError(
                "layer",
                expected=f"a whole number from {-layers - 1} to {layers}, the layers of {self.model}",
                got=str(self.layer),
                fix="Use -1, the last layer.",
            )
        return layer

    def _precision(self, device: torch.device) -> str:
        if self.precision != "auto":
            return self.precision
        import torch

        has = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if has else "float32"

    def _tokens_per_batch(self, device: torch.device) -> int:
        return self.tokens_per_batch or _TOKENS_PER_BATCH[device.type]

    def _peak_bytes(self, tokens: int, device: torch.device) -> int:
        """Return the estimated peak memory for batches with this number of tokens."""
        size = 2 if self._precision(device) == "bfloat16" else 4
        per_token = 6 * 4 * self.source.n_dimensions + 4 * size * self.source.width
        own = _LIBRARIES if device.type == "cpu" else 0
        # Weights are loaded in float32; on a CPU, both copies exist for a moment.
        each = 4 + 2 if device.type == "cpu" and size == 2 else size
        weights = each * self.source.n_parameters
        return int(own + weights + tokens * per_token)

    def _rounded(self, values: FloatArray) -> FloatArray:
        """Return the values as they will be read back from the file."""
        if self.dtype == "float32":
            return values
        with np.errstate(over="ignore"):
            rounded = values.astype(np.float16).astype(np.float32)
        if not np.isfinite(rounded).all():
            raise SettingError(
                "dtype",
                expected=f"numbers up to {np.finfo(np.float16).max:,.0f}, which float16 can hold",
                got=f"{np.abs(values).max():,.0f}",
                fix="Use float32.",
            )
        return rounded

    def _metadata(self, device: torch.device) -> dict[str, str]:
        metadata = {"model": self.source.name} | self._settings(device)
        metadata |= {
            "dtype": self.dtype,
            "cellweft_version": importlib.metadata.version("cellweft"),
            "transformers_version": require("transformers", "esm").__version__,
        }
        return {name: str(value) for name, value in metadata.items()}


@checks_kinds
def embed_proteins(
    proteins: Proteins,
    *,
    model: str = DEFAULT_MODEL,
    revision: str | None = None,
    layer: int = -1,
    pooling: Pooling = "mean",
    dtype: StoredAs = "float32",
    precision: Precision = "auto",
    window: int = 1022,
    overlap: int = 256,
    tokens_per_batch: int | None = None,
    device: str = "auto",
    offline: bool = False,
    work_dir: PathLike | None = None,
    progress: ProgressOption = True,
) -> EmbeddingTable:
    """Embed proteins with a protein language model.

    Parameters
    ----------
    proteins, work_dir, progress
        As in `ProteinEmbedder.embed`: the proteins, the folder for finished batches, and how to show
        progress.
    model, revision, layer, pooling, dtype, precision, window, overlap, tokens_per_batch, device, offline
        As in `ProteinEmbedder`, which can also write the table.

    Returns
    -------
    EmbeddingTable
        One vector per name, for the argument ``embedding`` of `cellweft.Imputer`.

    Raises
    ------
    CellweftError
        As in `ProteinEmbedder` and its `embed`.

    Examples
    --------
    >>> embed_proteins({"Gad1": "MASSTPSPAT", "Sst": ""})
    Traceback (most recent call last):
    cellweft.errors.InputError: proteins: expected a sequence for every name, got none for 'Sst'. ...
    """
    embedder = ProteinEmbedder(
        model=model,
        revision=revision,
        layer=layer,
        pooling=pooling,
        dtype=dtype,
        precision=precision,
        window=window,
        overlap=overlap,
        tokens_per_batch=tokens_per_batch,
        device=device,
        offline=offline,
    )
    return embedder.embed(proteins, work_dir=work_dir, progress=progress)


def checked_proteins(proteins: Proteins) -> dict[str, str]:
    """Return the sequence for each name, in upper case and with only amino acids.

    Parameters
    ----------
    proteins
        Proteins. Lower-case letters, and a ``*`` at the end of a sequence, are allowed.

    Raises
    ------
    MissingFileError, FormatError
        As in `cellweft.genes.read_fasta`.
    InputError
        No protein, an empty sequence, a letter that is not an amino acid.
    GeneError
        Duplicate names.

    Examples
    --------
    >>> checked_proteins({"Gad1": "masst*"})
    {'Gad1': 'MASST'}
    """
    if isinstance(proteins, Mapping):
        where, pairs = "proteins", list(proteins.items())
    elif isinstance(proteins, str | os.PathLike):
        where, pairs = str(proteins), [(record.name, record.sequence) for record in read_fasta(proteins)]
    else:
        where, pairs = "proteins", [(record.name, record.sequence) for record in proteins]
    twice = duplicates_of(name for name, _ in pairs)
    if twice:
        raise GeneError(
            where,
            expected="each name once",
            got=f"{shorten(twice)} more than once",
            fix=(
                "Keep one protein per gene. cellweft.genes.find_proteins chooses the reviewed, canonical, "
                "longest one."
            ),
        )
    sequences = {str(name): sequence.strip().upper().removesuffix("*") for name, sequence in pairs}
    empty = [name for name, sequence in sequences.items() if not sequence]
    if empty or not sequences:
        raise InputError(
            where,
            expected="a sequence for every name" if empty else "at least one protein",
            got=f"none for {shorten(empty)}" if empty else "none",
            fix="Omit these names, or add their sequences." if empty else "Pass the proteins to embed.",
        )
    for name, sequence in sequences.items():
        strange = _STRANGE.search(sequence)
        if strange is not None:
            raise InputError(
                f"{where}, {name!r}",
                expected=f"amino acid letters, {AMINO_ACIDS}",
                got=f"{strange[0]!r} at position {strange.start() + 1}",
                fix="Correct the sequence, or omit the protein.",
            )
    return sequences


def work_folder(output: PathLike) -> Path:
    """Return the folder with the finished batches of an output: ``<output>.parts``."""
    path = Path(output)
    return path.with_name(f"{path.name}.parts")


def _write(table: EmbeddingTable, target: Path, *, dtype: StoredAs, overwrite: bool) -> None:
    """Write a table as parquet: names in the index, one column per number, metadata as texts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = np.asarray(table.values, dtype=dtype)
    columns = [str(number) for number in range(values.shape[1])]
    frame = pd.DataFrame(values, index=pd.Index(table.genes, name="gene"), columns=columns)
    rows = pa.Table.from_pandas(frame)
    about = {name.encode(): text.encode() for name, text in table.metadata.items()}
    with partial_output(target, overwrite=overwrite, needed=frame.memory_usage().sum()) as partial:
        # Outputs of a network hardly ever repeat, so dictionary encoding would only cost time.
        pq.write_table(
            rows.replace_schema_metadata({**rows.schema.metadata, **about}), partial, use_dictionary=False
        )
