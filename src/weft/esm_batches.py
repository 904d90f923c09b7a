"""Long proteins cut into overlapping windows, and windows of like length put into batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from weft._typing import FloatArray

Pooling: TypeAlias = Literal["mean", "cls", "max"]
"""How one vector is made of a protein's residues; ``cls`` takes the token that stands before them."""

SPECIAL_TOKENS = 2
"""Tokens that the model wants around a sequence: one before it and one after."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Window:
    """A stretch of a protein that the model reads at once.

    Attributes
    ----------
    protein
        Position of the protein in the caller's list.
    start, stop
        Its residues, from ``start`` up to but without ``stop``.
    length
        Residues of the whole protein.
    of
        Number of windows of the protein.
    share
        (stop - start,) what this window gives of each residue: one over the number of windows that read it.
    """

    protein: int
    start: int
    stop: int
    length: int
    of: int
    share: FloatArray

    @property
    def n_tokens(self) -> int:
        """Tokens that the model reads, padding left out."""
        return self.stop - self.start + SPECIAL_TOKENS

    @property
    def is_last(self) -> bool:
        """Whether it is the last one of its protein."""
        return self.stop == self.length


def spans(length: int, *, window: int, overlap: int) -> list[tuple[int, int]]:
    """Return the stretches that a protein is cut into.

    Parameters
    ----------
    length
        Residues of the protein.
    window
        Most residues of a stretch.
    overlap
        Fewest residues that neighbouring stretches have in common, below ``window``.

    Returns
    -------
    list of (start, stop)
        One stretch where the protein fits; else the fewest that there can be, each of ``window`` residues, at
        even distances.

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
    """Cut proteins into windows, the longest protein first and the windows of each side by side.

    Parameters
    ----------
    lengths
        (n_proteins,) residues of each.
    window, overlap
        As `spans`.

    Returns
    -------
    list of Window
        Of falling length.

    Examples
    --------
    >>> [(one.protein, one.start, one.stop, one.of) for one in cut([3, 12], window=8, overlap=2)]
    [(1, 0, 8, 2), (1, 4, 12, 2), (0, 0, 3, 1)]
    """
    windows = []
    for protein in sorted(range(len(lengths)), key=lambda one: -lengths[one]):
        length = lengths[protein]
        stretches = spans(length, window=window, overlap=overlap)
        times = np.zeros(length if len(stretches) > 1 else 0, dtype=np.int64)
        for start, stop in stretches:
            times[start:stop] += 1
        for start, stop in stretches:
            # The share of a protein that is read at once is one number, seen stop - start times.
            share = (1 / times[start:stop]).astype(np.float32) if len(times) else _ones(stop - start)
            windows.append(
                Window(protein=protein, start=start, stop=stop, length=length, of=len(stretches), share=share)
            )
    return windows


def _ones(length: int) -> FloatArray:
    return np.broadcast_to(np.float32(1), (length,))


def batches(windows: Iterable[Window], *, tokens: int) -> Iterator[list[Window]]:
    """Yield the windows, in their order, in batches for the model.

    Parameters
    ----------
    windows
        Of falling length, as `cut` makes them: the first of a batch tells how far the others are padded.
    tokens
        Most tokens of a batch, padding included. A window that alone has more is a batch of its own. The
        windows of a protein are in one batch where they have room in one.
    """
    batch: list[Window] = []
    for _, group in itertools.groupby(windows, key=lambda one: one.protein):
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
    """Return how many windows a batch may have that starts as this one."""
    return max(1, tokens // batch[0].n_tokens)
