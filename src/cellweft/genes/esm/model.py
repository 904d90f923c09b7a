"""Runs a protein language model: from tokens to one vector per protein.

Long proteins are split into overlapping windows, and windows of similar length are batched.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch

from cellweft._errors import FormatError, MemoryBudgetError, arg, require
from cellweft._text import shorten
from cellweft._typing import DoubleArray, FloatArray, IntArray, Pooling
from cellweft.genes.esm.hub import ModelSource
from cellweft.genes.proteins.fasta import AMINO_ACIDS

_NOT_READ = re.compile(r"contact_head|pooler|position_ids|inv_freq")
"""Weights that a file may lack: those of other outputs, and computed ones."""
_NOT_READ_BY_ROTARY = re.compile(rf"{_NOT_READ.pattern}|position_embeddings")

SPECIAL_TOKENS = 2
"""Number of tokens around a sequence: one before and one after."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """A part of a protein that the model reads at once.

    Attributes
    ----------
    protein
        Position of the protein in the caller's list.
    start, stop
        Range of its residues, excluding ``stop``.
    length
        Number of residues of the whole protein.
    of
        Number of windows of the protein.
    share
        (stop - start,) weight of each residue in this window: one over the number of windows that contain it.
    """

    protein: int
    start: int
    stop: int
    length: int
    of: int
    share: FloatArray

    @property
    def n_tokens(self) -> int:
        """Number of tokens of the window, without padding."""
        return self.stop - self.start + SPECIAL_TOKENS

    @property
    def is_last(self) -> bool:
        """Whether it is the last window of its protein."""
        return self.stop == self.length


def spans(length: int, *, window: int, overlap: int) -> list[tuple[int, int]]:
    """Return the windows into which a protein is split.

    Parameters
    ----------
    length
        Number of residues of the protein.
    window
        Largest number of residues per window.
    overlap
        Smallest number of residues shared by neighbouring windows, below ``window``.

    Returns
    -------
    list of (start, stop)
        One window if the protein fits; otherwise the smallest possible number of evenly spaced windows with
        ``window`` residues each.

    Examples
    --------
    >>> spans(5, window=8, overlap=2), spans(12, window=8, overlap=2), spans(20, window=8, overlap=2)
    ([(0, 5)], [(0, 8), (4, 12)], [(0, 8), (6, 14), (12, 20)])
    """
    if length <= window:
        return [(0, length)]
    steps = -(-(length - window) // (window - overlap))  # rounded up
    starts = [step * (length - window) // steps for step in range(steps + 1)]
    return [(start, start + window) for start in starts]


def cut(lengths: Sequence[int], *, window: int, overlap: int) -> list[Window]:
    """Split proteins into windows, with the longest protein first and the windows of a protein together.

    Parameters
    ----------
    lengths
        (n_proteins,) number of residues of each.
    window, overlap
        As in `spans`.

    Returns
    -------
    list of Window
        Windows of decreasing length.

    Examples
    --------
    >>> [(one.protein, one.start, one.stop, one.of) for one in cut([3, 12], window=8, overlap=2)]
    [(1, 0, 8, 2), (1, 4, 12, 2), (0, 0, 3, 1)]
    """
    windows = []
    for protein in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        length = lengths[protein]
        stretches = spans(length, window=window, overlap=overlap)
        times = np.zeros(length if len(stretches) > 1 else 0, dtype=np.int64)
        for start, stop in stretches:
            times[start:stop] += 1
        for start, stop in stretches:
            # The weight in a protein with one window is a single number, broadcast to stop - start residues.
            one = np.broadcast_to(np.float32(1), (stop - start,))
            share = (1 / times[start:stop]).astype(np.float32) if len(times) else one
            windows.append(
                Window(protein=protein, start=start, stop=stop, length=length, of=len(stretches), share=share)
            )
    return windows


def batches(windows: Iterable[Window], *, tokens: int) -> Iterator[list[Window]]:
    """Yield the windows, in order, in batches for the model.

    Parameters
    ----------
    windows
        Windows of decreasing length, from `cut`; the first one of a batch determines the padding of the
        others.
    tokens
        Largest number of tokens per batch, including padding. A window with more tokens is a separate batch.
        The windows of a protein are in the same batch if they fit in one.
    """
    batch: list[Window] = []
    for _, group in itertools.groupby(windows, key=lambda window: window.protein):
        own = list(group)
        if batch and len(batch) + len(own) > _room(batch, tokens):
            yield batch
            batch = []
        batch += own
        while len(batch) > _room(batch, tokens):
            room = _room(batch, tokens)
            yield batch[:room]
            batch = batch[room:]
    if batch:
        yield batch


def _room(batch: Sequence[Window], tokens: int) -> int:
    """Return the largest number of windows in a batch with this first window."""
    return max(1, tokens // batch[0].n_tokens)


@dataclass(frozen=True, kw_only=True, eq=False)
class ProteinModel:
    """A network with frozen weights, and the tokens of its letters.

    Attributes
    ----------
    network
        An ``EsmModel`` of transformers, in evaluation mode.
    tokens
        (128,) the token of each amino acid, indexed by the code of its letter.
    first, last, padding
        Tokens before and after a sequence, and for padding.
    device
        Device of the network.
    is_bfloat16
        Whether matrix products are in bfloat16; sums over residues and all other computations are in float32.
    """

    network: Any
    tokens: IntArray
    first: int
    last: int
    padding: int
    device: torch.device
    is_bfloat16: bool

    def residues(self, sequences: Sequence[str]) -> torch.Tensor:
        """Return the output of the network for sequences: (n, longest + 2, n_dimensions), in float32.

        The first token of a row precedes the sequence; values after the sequence are meaningless.
        """
        longest = max(map(len, sequences))
        tokens = np.full((len(sequences), longest + SPECIAL_TOKENS), self.padding, dtype=np.int64)
        tokens[:, 0] = self.first
        for row, sequence in zip(tokens, sequences, strict=True):
            row[1 : len(sequence) + 1] = self.tokens[np.frombuffer(sequence.encode("ascii"), dtype=np.uint8)]
            row[len(sequence) + 1] = self.last
        # Without a mask, the network uses its fastest path.
        is_padded = any(len(letters) < longest for letters in sequences)
        ids = torch.from_numpy(tokens).to(self.device)
        mask = (ids != self.padding).to(torch.int64) if is_padded else None
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.is_bfloat16),
        ):
            vectors: torch.Tensor = self.network(input_ids=ids, attention_mask=mask).last_hidden_state
        return vectors.float()  # n x (longest + 2) x n_dimensions


def load_model(
    source: ModelSource, *, layer: int, device: torch.device, is_bfloat16: bool = False
) -> ProteinModel:
    """Load a model's network, up to the requested layer, and its tokens.

    Parameters
    ----------
    source
        The model's files.
    layer
        From 0, the input of the first layer, to the number of layers, the output of the last one with its
        LayerNorm. Later layers are removed.
    device
        Device of the network.
    is_bfloat16
        Whether to compute matrix products in bfloat16.

    Raises
    ------
    FormatError
        The files are damaged, or are not those of an ESM model with one token per amino acid.
    MissingExtraError
        ``transformers`` is not installed.
    """
    transformers = require("transformers", "esm")
    # Missing weights are initialised at random before they are reported as missing.
    with _silenced(transformers), torch.random.fork_rng(devices=[]):
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(source.folder, local_files_only=True)
            network, loading = transformers.EsmModel.from_pretrained(
                source.folder, add_pooling_layer=False, local_files_only=True, output_loading_info=True
            )
        except Exception as error:  # each format has its own errors for damaged files
            got = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
            raise _unusable(source, "the files of an ESM model", got) from error
    not_read = _NOT_READ_BY_ROTARY if source.most_residues is None else _NOT_READ
    missing = sorted(str(key) for key in loading["missing_keys"] if not not_read.search(str(key)))
    if missing:
        raise _unusable(source, "all weights of the network", f"none for {shorten(missing, most=3)}")
    network = network.float().eval().requires_grad_(False)
    if layer < source.n_layers:
        network.encoder.layer = network.encoder.layer[:layer]
        network.encoder.emb_layer_norm_after = torch.nn.Identity()  # only used after the last layer
    if is_bfloat16:
        # Autocast would convert these weights for each batch; this needs half the memory.
        for module in network.modules():
            if isinstance(module, torch.nn.Linear):
                module.to(torch.bfloat16)
    tokens, first, last = _tokens(tokenizer, source)
    return ProteinModel(
        network=network.to(device),
        tokens=tokens,
        first=first,
        last=last,
        padding=int(tokenizer.pad_token_id),
        device=device,
        is_bfloat16=is_bfloat16,
    )


def embed_sequences(
    model: ProteinModel,
    sequences: Sequence[str],
    *,
    pooling: Pooling,
    window: int,
    overlap: int,
    tokens_per_batch: int,
) -> Iterator[dict[int, FloatArray]]:
    """Embed proteins, each independently of the others.

    Parameters
    ----------
    model
        The network and its tokens.
    sequences
        Amino acids of each protein, at least one.
    pooling
        ``mean`` and ``max`` over the residues. Each residue counts once: if several windows contain it, its
        vectors are averaged first. ``cls``: the token before the sequence, averaged over the windows.
    window, overlap
        As in `spans`.
    tokens_per_batch
        Largest number of tokens per batch, including padding.

    Yields
    ------
    dict
        After each batch, the completed vectors, (n_dimensions,), by position in ``sequences``.

    Raises
    ------
    MemoryBudgetError
        A batch does not fit in the memory of the device.
    FormatError
        The network returns NaN.
    """
    windows = cut([len(sequence) for sequence in sequences], window=window, overlap=overlap)
    begun: dict[int, DoubleArray] = {}
    for batch in batches(windows, tokens=tokens_per_batch):
        try:
            residue_vectors = model.residues(
                [sequences[piece.protein][piece.start : piece.stop] for piece in batch]
            )
            window_values = _given(residue_vectors, batch, pooling)
        except torch.OutOfMemoryError as error:
            n_tokens = len(batch) * batch[0].n_tokens
            raise MemoryBudgetError(
                f"a batch of {n_tokens:,} tokens",
                expected=f"a batch that fits in the memory of {model.device}",
                got="no memory left",
                fix="Use a smaller value: " + arg("tokens_per_batch") + ".",
            ) from error
        done: dict[int, FloatArray] = {}
        for piece, values in zip(batch, window_values, strict=True):
            total = _put_together(begun.pop(piece.protein, None), piece, values)
            if piece.is_last:
                done[piece.protein] = (total.max(axis=0) if pooling == "max" else total).astype(np.float32)
            else:
                begun[piece.protein] = total
        if not all(np.isfinite(vector).all() for vector in done.values()):
            raise FormatError(
                "the model",
                expected="finite numbers from its network",
                got="NaN or infinite values",
                fix="Its weights may be damaged: download them again.",
            )
        yield done


def _given(residue_vectors: torch.Tensor, batch: Sequence[Window], pooling: Pooling) -> list[FloatArray]:
    """Return the contribution of each window to its protein.

    For ``max``, its weighted residues, (stop - start, n_dimensions); otherwise its part of the vector,
    (n_dimensions,).
    """
    if pooling == "max":
        values = residue_vectors.cpu().numpy()
        return [
            row[1 : len(window.share) + 1] * window.share[:, None]
            for window, row in zip(batch, values, strict=True)
        ]
    weights = np.zeros(residue_vectors.shape[:2], dtype=np.float32)
    for row, window in zip(weights, batch, strict=True):
        if pooling == "cls":
            row[0] = 1 / window.of
        else:  # special tokens and padding keep a weight of 0
            row[1 : len(window.share) + 1] = window.share / window.length
    # n x 1 x tokens times n x tokens x n_dimensions
    pooled = torch.bmm(torch.from_numpy(weights).to(residue_vectors.device)[:, None], residue_vectors)[:, 0]
    return list(pooled.cpu().numpy())


def _put_together(begun: DoubleArray | None, window: Window, values: FloatArray) -> DoubleArray:
    """Return the sum over a protein's windows so far, including this one."""
    if values.ndim == 1:
        return values.astype(np.float64) + (0 if begun is None else begun)
    total = np.zeros((window.length, values.shape[1])) if begun is None else begun
    total[window.start : window.stop] += values
    return total


def _tokens(tokenizer: Any, source: ModelSource) -> tuple[IntArray, int, int]:
    """Return the token of each letter, indexed by the code of the letter, and those around a sequence.

    The tokenizer itself reads about 100,000 letters per second, fewer than a large GPU embeds.
    """
    letters = [tokenizer.convert_tokens_to_ids(letter) for letter in AMINO_ACIDS]
    around = [tokenizer.cls_token_id, tokenizer.eos_token_id]
    encoded = tokenizer(AMINO_ACIDS)["input_ids"]
    is_plain = encoded == [around[0], *letters, around[1]] and tokenizer.pad_token_id is not None
    if not is_plain or tokenizer.unk_token_id in letters:
        raise _unusable(
            source, f"a vocabulary with one token for each of {AMINO_ACIDS}", "a different vocabulary"
        )
    table = np.full(128, tokenizer.unk_token_id, dtype=np.int64)
    table[np.frombuffer(AMINO_ACIDS.encode("ascii"), dtype=np.uint8)] = letters
    return table, int(around[0]), int(around[1])


@contextlib.contextmanager
def _silenced(transformers: ModuleType) -> Iterator[None]:
    """Suppress progress bars of transformers, and its report of unused weights, which are checked here."""
    logs = transformers.logging
    level, draws = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(level)
        if draws:
            logs.enable_progress_bar()


def _unusable(source: ModelSource, expected: str, got: str) -> FormatError:
    return FormatError(
        f"model {source.name}",
        expected=expected,
        got=got,
        fix="Download the model again, or use another one, such as facebook/esm2_t33_650M_UR50D.",
    )
