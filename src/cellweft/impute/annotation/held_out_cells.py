"""Reference cells as the tissue's platform would have measured them, used to calibrate labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from cellweft._compute import READ_ROWS, numpy_stream, row_blocks, sample_rows
from cellweft._typing import DoubleArray, FloatArray, IntArray
from cellweft.data._pair import Pair
from cellweft.data.side import Side

MOST_CELLS = 2000
"""Largest number of reference cells used to calibrate labels."""
_LEAST_OF_LABEL = 30
_POOLED = 10  # cells of the same label that stand in for counts that a cell of the reference lacks
_OF_NORMAL = 1.4826  # from the median absolute deviation to the standard deviation of normal values
_MOST_FACTOR = 20.0  # by which a gene may be detected better or worse than in the reference


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """Held-out reference cells, converted to the tissue's platform.

    Attributes
    ----------
    codes
        (n_cells,) index of each cell's label.
    weights
        (n_cells,) weights with which labels are as frequent as in the tissue; the sum is 1.
    measured
        (n_cells, n_panel) log-normalised panel.
    depth
        Share of the tissue's totals to which they were thinned.
    """

    codes: IntArray
    weights: DoubleArray
    measured: FloatArray
    depth: float


def draw_cells(codes: IntArray, usable: IntArray, *, seed: int) -> IntArray:
    """Return positions of reference cells, sorted: some of each label, and the rest at random.

    Parameters
    ----------
    codes
        (n_sc,) index of each cell's label, -1 without one.
    usable
        Positions of cells with counts and a label.
    seed
        Seed of the draw.
    """
    stream = numpy_stream(seed, "label cells")
    if len(usable) <= MOST_CELLS:
        return usable
    least = min(_LEAST_OF_LABEL, MOST_CELLS // (2 * len(np.unique(codes[usable]))))
    some = [sample_rows(usable[codes[usable] == code], least, stream) for code in np.unique(codes[usable])]
    drawn = np.concatenate(some)
    rest = sample_rows(np.setdiff1d(usable, drawn), MOST_CELLS - len(drawn), stream)
    return np.sort(np.concatenate([drawn, rest]))


def share_weights(codes: IntArray, shares: DoubleArray) -> DoubleArray:
    """Return weights of cells, (n_cells,) with sum 1, so that each label has its share.

    Parameters
    ----------
    codes
        (n_cells,) index of each cell's label.
    shares
        (n_labels,) share of each label.
    """
    weights = (shares / np.maximum(np.bincount(codes, minlength=len(shares)), 1))[codes]
    return np.asarray(weights / weights.sum())


def as_measured(
    pair: Pair, cells: IntArray, codes: IntArray, *, weights: DoubleArray, depth: float, seed: int
) -> FloatArray:
    """Return reference cells as if the tissue's platform had measured them.

    Parameters
    ----------
    pair
        The data.
    cells, codes
        (n_cells,) positions in the reference, and index of each cell's label.
    weights
        (n_cells,) weights with which labels are as frequent as in the tissue.
    depth
        Share of the tissue's totals to which they are thinned, up to 1.
    seed
        Seed of the draws.

    Returns
    -------
    (n_cells, n_panel) log-normalised.

    Notes
    -----
    Each cell gets the total of a random tissue cell. Its genes are scaled to their mean levels in the tissue,
    and its counts are thinned to that total (binomial draws). For a cell with fewer counts, the rest is drawn
    from the mean profile of `_POOLED` similar cells with its label. If the reference does not contain counts,
    all counts are drawn (Poisson). If the tissue does not contain counts, its depth is unknown, and values
    are not changed.
    """
    if pair.st.scale != "raw":
        return pair.sc.dense(cells, pair.sc_shared)
    stream = numpy_stream(seed, "thinned labels")
    tissue = sample_rows(np.flatnonzero(~pair.blank_cells), MOST_CELLS, stream)
    in_tissue = _counts(pair.st, tissue, pair.st_shared)
    donors = stream.integers(len(tissue), size=len(cells))  # tissue cells that supply the depth
    wanted = depth * in_tissue.sum(axis=1)[donors]
    counts = _counts(pair.sc, cells, pair.sc_shared)
    profiles = _pooled(counts, codes)
    missing = np.maximum(wanted - counts.sum(axis=1), 0)
    rates = counts + missing[:, None] * profiles
    if pair.sc.batches is not None:
        pair.sc.batches.multiply(rates, cells, pair.sc_shared)
    rates *= _platform_factors(in_tissue, rates, weights)
    rates *= (wanted / np.maximum(rates.sum(axis=1), 1e-9))[:, None]
    whole = np.rint(counts) if pair.sc.scale == "raw" else np.zeros_like(counts)
    thinned = stream.binomial(
        whole.astype(np.int64), np.clip(rates / np.maximum(whole, 1e-9), 0, 1)
    ) + stream.poisson(np.maximum(rates - whole, 0))
    sizes = pair.st.totals[tissue[donors]]
    logs = np.log1p(thinned * (pair.st.target / (depth * sizes))[:, None])
    return np.asarray(logs, dtype=np.float32)


def platform_spread(pair: Pair, cells: IntArray, codes: IntArray, *, shares: DoubleArray, seed: int) -> float:
    """Return how much more some genes are detected in the tissue than others, compared with the reference.

    Parameters
    ----------
    pair
        The data.
    cells, codes
        (n_cells,) positions in the reference, and number of the label of each.
    shares
        (n_labels,) of the labels in the tissue, so that another composition does not count.
    seed
        Of the draw of tissue cells.

    Returns
    -------
    Robust standard deviation, over the panel, of the logarithm of a gene's level in the tissue over its level
    in the reference. About 0.1 for two halves of one experiment, above 1 for different platforms. Infinite if
    no gene is detected on both sides.
    """
    stream = numpy_stream(seed, "levels of platforms")
    tissue = sample_rows(np.flatnonzero(~pair.blank_cells), MOST_CELLS, stream)
    levels = []
    for counts, weights in (
        (_counts(pair.st, tissue, pair.st_shared), np.full(len(tissue), 1 / len(tissue))),
        (_counts(pair.sc, cells, pair.sc_shared), share_weights(codes, shares)),
    ):
        levels.append(weights @ (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-9)))
    is_seen = (levels[0] > 0) & (levels[1] > 0)
    if not is_seen.any():
        return np.inf
    factors = np.log(levels[0][is_seen] / levels[1][is_seen])
    return float(_OF_NORMAL * np.median(np.abs(factors - np.median(factors))))


def _counts(side: Side, cells: IntArray, genes: IntArray) -> DoubleArray:
    """Return counts of some cells; logarithms are inverted."""
    parts = []
    for rows in row_blocks(len(cells), READ_ROWS):
        block = side.stored(cells[rows], genes)
        parts.append(np.asarray(block.toarray() if sp.issparse(block) else block, dtype=np.float64))
    values = np.concatenate(parts)
    return np.expm1(values) if side.scale == "log" else values


def _pooled(counts: DoubleArray, codes: IntArray) -> DoubleArray:
    """Return the mean profile of the most similar cells with the same label; rows sum to 1."""
    pooled = np.empty_like(counts)
    units = np.log1p(counts)
    units /= np.maximum(np.linalg.norm(units, axis=1, keepdims=True), 1e-9)
    for code in np.unique(codes):
        rows = np.flatnonzero(codes == code)
        similarity = units[rows] @ units[rows].T
        near = np.argsort(-similarity, axis=1, kind="stable")[:, :_POOLED]
        pooled[rows] = counts[rows][near].sum(axis=1)
    return np.asarray(pooled / np.maximum(pooled.sum(axis=1, keepdims=True), 1e-9))


def _platform_factors(in_tissue: DoubleArray, rates: DoubleArray, weights: DoubleArray) -> DoubleArray:
    """Return the ratio of each gene's detection in the tissue and the reference, (n_panel,)."""
    there = in_tissue.sum(axis=0) / max(in_tissue.sum(), 1e-9)
    in_reference = weights @ (rates / np.maximum(rates.sum(axis=1, keepdims=True), 1e-9))
    factors = np.divide(there, in_reference, out=np.ones_like(there), where=in_reference > 0)
    return np.asarray(np.clip(factors, 1 / _MOST_FACTOR, _MOST_FACTOR))
