"""The scale of a matrix: detection of counts, normalised values, logarithms and roots, and their inversion.

Raw counts are whole numbers. Counts divided by a size can be recognised: within a cell, they are whole
multiples of the smallest one, or all cells have the same sum. A logarithm or root is recognised if its
inverse gives one of these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from cellweft._compute import READ_BYTES, numpy_stream, row_blocks, rows_within
from cellweft._typing import BoolArray, DoubleArray, IntArray, Matrix, Scale, StoredScale
from cellweft.data.io.backed_matrix import Rows, RowSource, WrappedRows

MOSTLY_WHOLE = 0.01
"""Largest fraction of non-integers in counts, from cells with integers that were not recovered."""

SCALES: Mapping[StoredScale, Scale] = {
    "raw": "raw",
    "normalised": "normalised",
    "log": "log",
    "log2": "log",
    "log10": "log",
    "sqrt": "normalised",
    "arcsinh": "normalised",
    "log_raw": "raw",
    "log2_raw": "raw",
    "log10_raw": "raw",
    "sqrt_raw": "raw",
    "arcsinh_raw": "raw",
}
"""The scale of the values after `open_undone`, for each stored scale."""

_LOG_BASES = {"log": 1.0, "log2": math.log(2), "log10": math.log(10)}  # natural logarithms of the bases
_LARGEST = {
    "log": 18.0,
    "log2": 26.0,
    "log10": 8.0,
    "arcsinh": 19.0,
}  # logarithm of 6e7 counts, more than any cell has
_LARGEST_LOG, _LARGEST_NATURAL = 25.0, 14.0  # a million counts in a cell: natural logarithms up to 14
_SKEWED = 1.75  # more than for logarithms, because a few counts are far larger than most
_SAME_SUM = 0.01  # relative deviation of cell sums that are considered equal
_FEWEST_MIXED = 0.05  # fraction of cells from which a second scale is reported
_MOST_SUMS = 6  # target sums of many datasets
_ROUNDING = 1e-5  # relative error of recovered whole numbers, such as expm1 of a logarithm
_LEAST_VALUES, _LEAST_RATIOS = 10, 30  # values needed to estimate a fraction
_FEW_MULTIPLES = 0.1  # of ratios: 0.02 are whole by chance
_LEAST_COUNTS, _FEWEST_ZEROS = (
    200,
    0.05,
)  # number of values, and fraction of zeros, at which some counts must be 1
_LEAST_OF_GENE = 5  # cells needed for the largest value of a gene to be informative
_SAMPLE_ROWS, _SAMPLE_PARTS = (
    1000,
    4,
)  # number of sampled cells, and of places in the matrix where they are sampled
_LEAST_EXPECTED = 5  # expected cells with counts; without any, p is below 1 in 150
_TOO_LARGE = 1e30
_CHUNK = 2**20  # values processed in float64 at once


@dataclass(frozen=True, kw_only=True, eq=False)
class Scan:
    """Results of one pass over a matrix.

    Attributes
    ----------
    totals, panel_totals
        (n_cells,) sum of each row, over all columns and over the panel.
    gene_cells
        (n_genes,) number of cells in which each gene is not zero.
    projections
        (n_genes,) sum of each gene's values, with a random weight per cell: equal, except for rounding, for
        genes with the same values in all cells.
    n_values
        Number of nonzero entries.
    n_fractional, n_negative, n_missing
        Numbers of entries that are fractional (see `are_fractional`), negative, and NaN or infinite.
    missing_at
        Row and column of the first NaN or infinite entry.
    smallest, largest
        Range of the finite values.
    unmeasured
        (n_slices, n_genes) whether a gene was not measured in a slice, from `SliceGenes`; without rows if no
        slices were given.
    """

    totals: DoubleArray
    panel_totals: DoubleArray
    gene_cells: IntArray
    projections: DoubleArray
    n_values: int
    n_fractional: int
    n_negative: int
    n_missing: int
    missing_at: tuple[int, int] | None
    smallest: float
    largest: float
    unmeasured: BoolArray

    @property
    def sparsity(self) -> float:
        """Share of entries that are zero."""
        return 1 - self.n_values / max(len(self.totals) * len(self.gene_cells), 1)


def scan_values(
    source: RowSource,
    columns: IntArray | None = None,
    *,
    panel: IntArray | None = None,
    slices: SliceGenes | None = None,
    left_out: BoolArray | None = None,
    look: Callable[[Matrix], None] = lambda _: None,
) -> Scan:
    """Read a matrix once, block by block, and collect all that the checks and the summary need.

    Parameters
    ----------
    source
        (n_cells, n_columns)
    columns
        The columns that are genes; all by default.
    panel
        Positions of genes with a separate sum per cell; all by default.
    slices
        Receives each block. NaN in genes that it regards as not measured are not counted as missing; None
        without slices.
    left_out
        (n_genes,) genes excluded from the totals; none by default.
    look
        Called with each block, for other computations that need all values.

    Examples
    --------
    >>> from cellweft.data.io.backed_matrix import open_rows
    >>> scan = scan_values(open_rows(np.array([[0.0, 2.0], [1.0, 0.0]])))
    >>> scan.totals, scan.n_values, scan.n_fractional
    (array([2., 1.]), 2, 0)
    """
    n_cells, n_genes = source.shape[0], source.shape[1] if columns is None else len(columns)
    weights = np.ones((n_genes, 2))
    if panel is not None:
        weights[:, 1] = np.bincount(panel, minlength=n_genes)
    if left_out is not None:
        weights[left_out] = 0
    totals, panel_totals = np.zeros(n_cells), np.zeros(n_cells)
    gene_cells, projections = np.zeros(n_genes, dtype=np.int64), np.zeros(n_genes)
    draw = numpy_stream(0, "projections")
    counts = np.zeros(4, dtype=np.int64)  # nonzero, fractional, negative, missing
    smallest, largest, missing_at = np.inf, -np.inf, None
    for rows in row_blocks(n_cells, rows_within(READ_BYTES, source.row_bytes)):
        block = source.read(rows, columns)
        values = block.data if sp.issparse(block) else block
        finite = np.isfinite(values)
        if slices is not None:
            slices.add(block)
        if not finite.all():
            missing_at = missing_at or _first_missing(block, rows.start)
            values[~finite] = 0
        seen = values, are_fractional(values), values < 0, ~finite
        counts += [np.count_nonzero(flags) for flags in seen]
        with_zeros = not sp.issparse(block) or values.size < block.shape[0] * block.shape[1]
        smallest = min(smallest, float(values.min(initial=0.0 if with_zeros else np.inf)))
        largest = max(largest, float(values.max(initial=0.0 if with_zeros else -np.inf)))
        totals[rows], panel_totals[rows] = _sums(block, weights).T
        gene_cells += filled_rows(block)
        drawn: DoubleArray = draw.random((block.shape[0],))
        projections += np.asarray(block.T @ drawn)
        look(block)
    unmeasured = np.zeros((0, n_genes), dtype=bool) if slices is None else slices.unmeasured()
    if slices is not None and slices.n_missing_at(unmeasured) == counts[3]:
        counts[3], missing_at = 0, None
    return Scan(
        totals=totals,
        panel_totals=panel_totals,
        gene_cells=gene_cells,
        projections=projections,
        n_values=int(counts[0]),
        n_fractional=int(counts[1]),
        n_negative=int(counts[2]),
        n_missing=int(counts[3]),
        missing_at=missing_at,
        smallest=smallest,
        largest=largest,
        unmeasured=unmeasured,
    )


class SliceGenes:
    """Detects which genes have counts in which slices (or batches), from all cells, block by block.

    Parameters
    ----------
    codes
        (n_cells,) index of each cell's slice, from 0; blocks must be in this order.
    n_genes
        Number of genes.
    least_expected
        A gene without counts in a slice counts as not measured if at least this number of cells with counts
        is expected from the other slices.

    Notes
    -----
    If two panels were concatenated, genes that one of them did not measure are zero or NaN. A gene counts as
    not measured in a slice if all its values are NaN, or all are zero although some cells with counts are
    expected.

    Examples
    --------
    >>> seen = SliceGenes(np.repeat([0, 1], 20), n_genes=2)
    >>> seen.add(np.repeat([[1.0, 0.0], [1.0, 1.0]], 20, axis=0))
    >>> seen.unmeasured().tolist()
    [[False, True], [False, False]]
    """

    def __init__(self, codes: IntArray, n_genes: int, *, least_expected: float = _LEAST_EXPECTED) -> None:
        self._codes, self._start, self._least = codes, 0, least_expected
        self._cells = np.bincount(codes)[:, None]
        shape = (len(self._cells), n_genes)
        self._filled, self._missing = np.zeros(shape, dtype=np.int32), np.zeros((0, 0), dtype=np.int32)

    def add(self, block: Matrix) -> None:
        """Add the next rows; the block is not changed."""
        n_rows = block.shape[0]
        codes = self._codes[self._start : self._start + n_rows]
        self._start += n_rows
        places: Any = (np.ones(n_rows, dtype=np.int32), (codes, np.arange(n_rows)))
        by_slice = sp.csr_matrix(places, shape=(len(self._cells), n_rows))
        values = block.data if sp.issparse(block) else block
        self._filled += _summed(by_slice, block, np.isfinite(values) & (values != 0))
        missing = ~np.isfinite(values)
        if missing.any():
            missing_counts = _summed(by_slice, block, missing)
            self._missing = np.asarray(
                self._missing + missing_counts if self._missing.size else missing_counts
            )

    def unmeasured(self) -> BoolArray:
        """Return whether a gene was not measured in a slice, (n_slices, n_genes)."""
        filled = self._filled.sum(axis=0, dtype=np.int64)
        others = len(self._codes) - self._cells
        expected = np.divide(filled * self._cells, others, out=np.zeros(self._filled.shape), where=others > 0)
        is_unmeasured: BoolArray = (self._filled == 0) & (expected >= self._least)
        return is_unmeasured | (self._missing == self._cells) if self._missing.size else is_unmeasured

    def n_missing_at(self, unmeasured: BoolArray) -> int:
        """Return the number of missing values in these genes of these slices."""
        return int(self._missing[unmeasured].sum()) if self._missing.size else 0


def _summed(by_slice: sp.csr_matrix, block: Matrix, marks: BoolArray) -> IntArray:
    """Count marked values by slice and gene."""
    if not sp.issparse(block):
        return np.asarray(by_slice @ marks.astype(np.int32))
    marked = sp.csr_matrix((marks.astype(np.int32), block.indices, block.indptr), shape=block.shape)
    return np.asarray((by_slice @ marked).toarray())


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The detected scale of a matrix.

    Attributes
    ----------
    scale
        The scale.
    is_sure
        False if the only evidence is the size of the values, or comes from a part of them.
    are_multiples
        False if all cells have the same sum, but the values of a cell are not multiples of its smallest
        value, as counts divided by a size would be.
    has_ones
        False if many values are zero but none is 1, which is not expected of counts.
    others, beside
        If two scales are mixed, the scale of some cells, and that of the other cells ("raw" or "normalised");
        otherwise ``others`` is None.
    sums
        The sums of the cells if there are only a few different ones; otherwise empty.
    """

    scale: StoredScale
    is_sure: bool = True
    are_multiples: bool = True
    has_ones: bool = True
    others: StoredScale | None = None
    beside: StoredScale = "raw"
    sums: tuple[float, ...] = ()


def judge_scale(source: RowSource, columns: IntArray | None = None) -> Judgement:
    """Detect the scale of a matrix, from a sample of cells of all parts.

    Parameters
    ----------
    source
        (n_cells, n_columns), at least zero; NaN counts as zero.
    columns
        The columns that are genes; all by default.

    Notes
    -----
    The rules, in order: values are counts if at least 99 % are whole. If inverting a logarithm (plus 1) or
    root gives whole numbers, it is that of counts. Counts divided by a size, and their logarithms, are whole
    multiples of a cell's smallest value, or all cells have the same sum. Values near whole numbers more often
    than by chance are counts from which a part was removed or distributed (SoupX, RSEM, proseg). Otherwise,
    it is a guess: logarithms if values are at most 25, unless a few values are far larger than most; if not,
    fractional counts.

    Examples
    --------
    >>> from cellweft.data.io.backed_matrix import open_rows
    >>> counts = np.random.default_rng(0).poisson(2.0, (20, 5))
    >>> judge_scale(open_rows(np.log2(counts + 1.0))).scale
    'log2_raw'
    """
    rows = _sample(source, columns)
    judgement = _judged(rows)
    is_sure = judgement.is_sure and not (judgement.scale != "raw" and _are_scaled_by_gene(rows))
    others, beside = _scale_of_others(rows), judgement.beside
    if others is None and judgement.scale != "raw":
        others, beside = _logarithms_beside(rows), "normalised"
    sums = _few_sums(rows, judgement.scale)
    return replace(judgement, is_sure=is_sure, others=others, beside=beside, sums=sums)


def _scale_of_others(rows: sp.csr_matrix) -> StoredScale | None:
    """Return the scale of cells with fractions if many other cells contain only counts."""
    if not rows.nnz:
        return None
    is_fractional = np.add.reduceat(are_fractional(rows.data), rows.indptr[:-1], dtype=np.int64)
    n_values, has_ones = np.diff(rows.indptr), np.minimum.reduceat(rows.data, rows.indptr[:-1]) == 1
    is_whole, is_other = (is_fractional == 0) & has_ones, is_fractional > 0.5 * n_values
    least = max(_FEWEST_MIXED * rows.shape[0], 5)
    if is_whole.sum() < least or is_other.sum() < least or (is_whole | is_other).mean() < 0.9:
        return None
    scale = _judged(rows[is_other]).scale
    return None if scale == "raw" or scale.startswith(("log2", "sqrt")) else scale


def _logarithms_beside(rows: sp.csr_matrix) -> StoredScale | None:
    """Return the scale of cells with small values if these are logarithms, and other cells are not."""
    is_small = np.maximum.reduceat(rows.data, rows.indptr[:-1]) <= _LARGEST_LOG
    least = max(_FEWEST_MIXED * rows.shape[0], 5)
    if is_small.sum() < least or (~is_small).sum() < least:
        return None
    small, large = (_judged(rows[is_chosen]) for is_chosen in (is_small, ~is_small))
    is_mixed = small.is_sure and small.scale in _LOG_BASES and large.scale == "normalised"
    return small.scale if is_mixed else None


def _few_sums(rows: sp.csr_matrix, scale: StoredScale) -> tuple[float, ...]:
    """Return the sums to which cells were normalised if there are only a few; otherwise nothing."""
    if scale != "normalised" and scale not in _LOG_BASES:
        return ()
    values = rows.data if scale == "normalised" else _undone(rows.data, scale)
    sums = np.sort(np.add.reduceat(values, rows.indptr[:-1]))
    parts = np.split(sums, np.flatnonzero(np.diff(sums) > 2 * _SAME_SUM * sums[1:]) + 1)
    parts = [part for part in parts if len(part) >= max(_FEWEST_MIXED * len(sums), 5)]
    is_clear = sum(map(len, parts)) > 0.95 * len(sums)
    are_narrow = all(part[-1] - part[0] < 2 * _SAME_SUM * part[0] for part in parts)
    are_few = is_clear and are_narrow and 1 < len(parts) <= _MOST_SUMS
    return tuple(float(np.median(part)) for part in parts) if are_few else ()


def _judged(rows: sp.csr_matrix) -> Judgement:
    """Return the scale of cells, as in `judge_scale`; each cell has values above zero."""
    values = rows.data
    if _are_counts(values):
        return Judgement(scale="raw", has_ones=_has_ones(rows))
    forms = [form for form, most in _LARGEST.items() if values.max() <= most]
    back = {form: _undone(values, form) for form in forms} | {"sqrt": np.square(values)}
    whole = {form: _share_whole(undone) for form, undone in back.items()}
    for form in {"log2", "sqrt"} & whole.keys():  # these keep whole numbers whole
        whole[form] = min(whole[form], _share_whole_of_others(values, back[form]))
    best = max(whole, key=whole.__getitem__)
    if whole[best] >= 1 - MOSTLY_WHOLE:
        return Judgement(scale=f"{best}_raw")  # type: ignore[arg-type]
    back = {"normalised": values} | back
    multiples = {form: _share_of_multiples(rows, undone) for form, undone in back.items()}
    spread = {form: _spread_of_sums(rows, undone) for form, undone in back.items()}
    if multiples.get("log2", 0) > 0.5:
        multiples["log10"] = 0.0  # it turns a factor of two (1 in log2) into a factor of ten
    if "log" in forms:  # arcsinh is like log for large values, and linear for small ones
        like = ("log", "normalised")
        least = max(multiples[form] for form in like)
        least = max(0.05 + least, min(0.8, 1.5 * least))  # rounding favours either one slightly
        is_better = multiples["arcsinh"] > least
        multiples |= dict.fromkeys(like if is_better else ("arcsinh",), 0.0)
        if spread["log"] < 10 * spread["arcsinh"]:
            spread["arcsinh"] = math.inf
    clear = _clearest({form: multiples[form] for form in ("normalised", *forms)})
    if clear in forms:
        return Judgement(scale=clear)
    if multiples["normalised"] >= max([0.8, *(multiples[form] - 0.02 for form in forms)]):
        clear = "normalised"  # a logarithm hardly changes values this small
    same = min(spread, key=spread.__getitem__)
    if spread[same] < _SAME_SUM:
        are_multiples = multiples[same] >= _FEW_MULTIPLES or len(_ratios(rows, back[same])) < _LEAST_RATIOS
        return Judgement(scale=cast(StoredScale, same), are_multiples=are_multiples)
    if _share_whole(values) >= 0.5 or _share_near_whole(values) >= 0.4:  # expected by chance: 0.04 and 0.2
        return Judgement(scale="raw")
    clear = clear or _clearest(multiples)
    if clear is not None:
        return Judgement(scale=clear)
    from scipy.stats import skew

    is_log = values.max() <= _LARGEST_LOG and skew(values) <= _SKEWED
    guess: StoredScale = "raw" if not is_log else "log" if values.max() <= _LARGEST_NATURAL else "log2"
    return Judgement(scale=guess, is_sure=False)


def open_undone(source: RowSource, scale: StoredScale) -> RowSource:
    """Return the rows of a matrix as counts, normalised counts or natural logarithms: see `SCALES`.

    Parameters
    ----------
    source
        (n_cells, n_columns)
    scale
        Scale of its values.

    Examples
    --------
    >>> from cellweft.data.io.backed_matrix import open_rows
    >>> open_undone(open_rows(np.log2([[1.0, 4.0]])), "log2_raw").read(slice(None))
    array([[0., 3.]], dtype=float32)
    """
    return source if scale == SCALES[scale] else UndoneRows(source=source, scale=scale)


@dataclass(frozen=True, kw_only=True, eq=False)
class UndoneRows(WrappedRows):
    """Rows of a matrix; a logarithm or root is inverted when they are read.

    Attributes
    ----------
    source
        The matrix.
    scale
        Scale of its values.
    """

    scale: StoredScale

    def read(self, rows: Rows, columns: IntArray | None = None) -> Matrix:
        """Return some rows; see `cellweft.data.io.backed_matrix.RowSource.read`."""
        block = self.source.read(rows, columns)
        undo(block.data if sp.issparse(block) else block, self.scale)
        return block


def undo(values: NDArray[Any], scale: StoredScale) -> None:
    """Convert stored values, float32 of any shape, to those of `SCALES`, in place.

    Notes
    -----
    Logarithms of normalised counts become natural logarithms. All other values are converted to counts, which
    are rounded if the deviation from whole numbers can be a rounding error.
    """
    form, _, kind = scale.partition("_")
    if kind != "raw" and form in _LOG_BASES:
        values *= np.float32(_LOG_BASES[form])
        return
    for part in row_blocks(len(values), max(_CHUNK // max(math.prod(values.shape[1:]), 1), 1)):
        back = _undone(values[part].astype(np.float64), form)
        if kind == "raw":
            whole = np.rint(back)
            back = np.where(np.abs(back - whole) <= np.maximum(0.02, 1e-5 * whole), whole, back)
        values[part] = np.minimum(back, _TOO_LARGE)  # not a count, but fits in float32


def _undone(values: DoubleArray, form: str) -> DoubleArray:
    with np.errstate(over="ignore"):
        if form in _LOG_BASES:
            return np.asarray(np.expm1(values * _LOG_BASES[form]))
        return np.asarray(np.square(values) if form == "sqrt" else np.sinh(values))


def _sums(block: Matrix, weights: DoubleArray) -> DoubleArray:
    """Sum each row in float64, so that a sum does not depend on the block: (n_rows, 2)."""
    if sp.issparse(block):
        doubles = block.data.astype(np.float64)
        return np.asarray(sp.csr_matrix((doubles, block.indices, block.indptr), shape=block.shape) @ weights)
    doubles = block.astype(np.float64)
    parts = [doubles if weight.all() else doubles[:, weight.astype(bool)] for weight in weights.T]
    return np.column_stack([np.ascontiguousarray(part).sum(axis=1) for part in parts])


def are_fractional(values: NDArray[Any]) -> BoolArray:
    """Return which values are not whole numbers, apart from rounding errors of float32.

    Examples
    --------
    >>> are_fractional(np.array([2.0, 3.000001, 2.5, 5e-6])).tolist()
    [False, False, True, True]
    """
    distance = np.abs(values - np.rint(values))
    if not distance.any():
        return np.zeros(values.shape, dtype=bool)
    return np.asarray(distance > np.minimum(_ROUNDING * np.abs(values), 0.02))


def filled_rows(block: Matrix) -> IntArray:
    """Return the number of rows in which each column is not zero."""
    if sp.issparse(block):
        filled = block.data != 0
        places = block.indices if filled.all() else block.indices[filled]
        return np.asarray(np.bincount(places, minlength=block.shape[1]))
    return np.asarray(np.count_nonzero(block, axis=0))


def _first_missing(block: Matrix, start: int) -> tuple[int, int]:
    if sp.issparse(block):
        place = int(np.flatnonzero(~np.isfinite(block.data))[0])
        return start + int(np.searchsorted(block.indptr, place, side="right")) - 1, int(block.indices[place])
    row, column = np.argwhere(~np.isfinite(block))[0]
    return start + int(row), int(column)


def _sample(source: RowSource, columns: IntArray | None) -> sp.csr_matrix:
    """Return a sample of nonempty cells from all parts of the matrix, in float64 and without zeros."""
    n_cells = source.shape[0]
    n_rows = min(n_cells, rows_within(READ_BYTES, source.row_bytes, most=_SAMPLE_ROWS))
    length = math.ceil(n_rows / _SAMPLE_PARTS)
    starts = np.linspace(0, n_cells - length, min(_SAMPLE_PARTS, n_cells)).astype(np.int64)
    places = np.unique(np.concatenate([start + np.arange(length) for start in starts]))
    rows = sp.csr_matrix(source.read(places, columns)).astype(np.float64)
    rows.data[~np.isfinite(rows.data)] = 0
    rows.eliminate_zeros()
    filled: sp.csr_matrix = rows[np.diff(rows.indptr) > 0]
    return filled


def _share_whole(values: DoubleArray) -> float:
    """Return the share of whole numbers (to three decimals), or that among small values if it is larger."""
    is_whole = (np.abs(values - np.rint(values)) <= 0.02) & (values >= 0.5)
    shares = [0.0]
    for most in (5, 20, 1e4):
        small = values <= most
        # counts contain ones; a single other whole number may occur by chance
        if small.sum() >= _LEAST_VALUES and (is_whole & (values < 1.5)).any():
            shares.append(float(is_whole[small].mean()))
    return max(shares)


def _are_counts(values: DoubleArray) -> bool:
    """Return whether values are whole, except a few, or except errors larger than rounding."""
    if not len(values) or values.min() < 0 or are_fractional(values).mean() <= MOSTLY_WHOLE:
        return True
    larger = values[values > 1.2]  # ones are whole in roots and logarithms to base 2, too
    near = np.abs(larger - np.rint(larger)) <= np.minimum(0.02, 0.005 * larger)
    return len(larger) >= _LEAST_VALUES and float(near.mean()) >= 1 - MOSTLY_WHOLE


def _has_ones(rows: sp.csr_matrix) -> bool:
    """Return whether some values are 1; also True if few are zero, or there are few values."""
    is_full = rows.nnz >= (1 - _FEWEST_ZEROS) * np.prod(rows.shape)
    return rows.nnz < _LEAST_COUNTS or bool(is_full) or bool((rows.data < 1.5).any())


def _share_whole_of_others(values: DoubleArray, back: DoubleArray) -> float:
    """Return the share of whole numbers in ``back`` where ``values`` are not whole."""
    others = back[are_fractional(values)]
    small = others[others <= 20]
    others = small if len(small) >= _LEAST_VALUES else others
    return float((np.abs(others - np.rint(others)) <= 0.02).mean()) if len(others) else 0.0


def _share_near_whole(values: DoubleArray) -> float:
    large = values[values >= 0.5]
    return float((np.abs(large - np.rint(large)) <= 0.1).mean()) if len(large) >= _LEAST_VALUES else 0.0


def _share_of_multiples(rows: sp.csr_matrix, values: DoubleArray) -> float:
    """Return the share of values that are multiples of their cell's smallest; order as in ``rows``."""
    ratios = _ratios(rows, values)
    return float((np.abs(ratios - np.rint(ratios)) < 0.01).mean()) if len(ratios) >= _LEAST_RATIOS else 0.0


def _ratios(rows: sp.csr_matrix, values: DoubleArray) -> DoubleArray:
    """Return the ratios of values to their cell's smallest value, if they are informative."""
    ratios = values / np.repeat(np.minimum.reduceat(values, rows.indptr[:-1]), np.diff(rows.indptr))
    # 1 is the smallest value itself; above 20, rounding errors are too large
    return np.asarray(ratios[(ratios > 1.2) & (ratios < 20)])


def _are_scaled_by_gene(rows: sp.csr_matrix) -> bool:
    """Return whether most genes have the same largest value, as after dividing each by its maximum."""
    columns = sp.csc_matrix(rows)
    is_filled = np.diff(columns.indptr) >= _LEAST_OF_GENE
    largest = columns.max(axis=0).toarray().ravel()[is_filled]
    same = np.isclose(largest, largest.max(initial=0), rtol=1e-6, atol=0)
    return len(largest) >= _LEAST_VALUES and float(same.mean()) > 0.5


def _spread_of_sums(rows: sp.csr_matrix, values: DoubleArray) -> float:
    """Return the spread of the cells' sums, relative to their mean."""
    if rows.shape[0] < 5:
        return math.inf
    sums = np.add.reduceat(values, rows.indptr[:-1])
    return float(sums.std() / sums.mean())


def _clearest(shares: Mapping[str, float]) -> Any:
    """Return the form with by far the largest share, or None: 0.02 of ratios are whole by chance."""
    first, second = sorted([*shares.items(), ("", 0.0)], key=lambda item: -item[1])[:2]
    return first[0] if first[1] >= 0.15 and first[1] > 3 * second[1] else None
