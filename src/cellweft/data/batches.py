"""Several donors, technologies or atlases in one reference: equalises their levels gene by gene.

Batches differ in how well they detect a gene. The ratio between two batches is estimated from pairs of
similar cells, each among the nearest cells of the other. Cell types that only one batch contains form no such
pairs and have no effect, so that different composition is not mistaken for different sensitivity.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from cellweft._compute import READ_ROWS, numpy_stream, row_blocks, sample_rows
from cellweft._errors import InputError, arg, sentence
from cellweft._statistics import centred, unit_length
from cellweft._text import many, shorten
from cellweft._typing import BoolArray, DoubleArray, IntArray
from cellweft.data.io.columns import NO_VALUE, check_groups, column_of
from cellweft.data.io.obs_table import Annotation
from cellweft.data.side import CellBatches, ReferenceBatches, Side, is_divided
from cellweft.data.spatial import batch_columns

FEWEST_BATCH_CELLS = 20
"""A batch with fewer cells with counts keeps its own levels."""
_ARGUMENT = "reference_batch"
_NEAREST = 20  # nearest cells of the other batch that count as partners
_MOST_CELLS = 2000  # maximum number of cells of a batch that are used
_MOST_GENES = 500  # genes for comparing cells: the most variable ones within batches
_DOUBTFUL_CELLS = 5  # number of detecting cells at which a factor is shrunk by half
_MOST_FACTOR = 30.0
_UNEQUAL_DEPTHS = 3  # fold difference; medians of donors with the same protocol differ less
_FEWEST_GENES = 2


def find_reference_batches(obs: Annotation, column: str, *, where: str) -> CellBatches:
    """Return the batch of each reference cell; names of the batches are sorted.

    Parameters
    ----------
    obs
        The ``obs`` of the reference.
    column
        The column with the batches.
    where
        Name of the reference in errors.

    Raises
    ------
    KeyMissingError
        No such column.
    InputError
        There are cells without a batch, only one batch, nearly as many batches as cells, or fewer than two
        batches with `FEWEST_BATCH_CELLS`.
    """
    values = column_of(obs, column, where=where, argument=_ARGUMENT)
    place = f"{where}.obs[{column!r}]"
    without = arg(_ARGUMENT)
    kind_numbers, kinds = pd.factorize(values)  # missing values have the code -1
    texts = [str(kind).strip() for kind in kinds]
    texts = ["" if text.lower() in NO_VALUE else text for text in texts]
    names, numbers = np.unique([*texts, ""], return_inverse=True)
    codes = numbers[kind_numbers] - 1  # and "" comes first
    n_missing, names = int((codes < 0).sum()), names[1:]
    if n_missing:
        raise InputError(
            place,
            expected="a batch for every cell",
            got=f"{many(n_missing, 'cell')} without one",
            fix=sentence("Fill in the missing values, remove these cells, or omit {}.", without),
        )
    if len(names) == 1:
        raise InputError(
            place,
            expected="at least two batches",
            got=f"a single one, {str(names[0])!r}, for all cells",
            fix=sentence("Omit {}, or choose another column.", without),
        )
    check_groups(values, place, what="batch")
    sizes = np.bincount(codes)
    if (sizes >= FEWEST_BATCH_CELLS).sum() < 2:
        order = np.argsort(-sizes, kind="stable")
        largest = ", ".join(f"{str(names[code])!r} ({sizes[code]:,})" for code in order[:3])
        raise InputError(
            place,
            expected=f"at least two batches with {FEWEST_BATCH_CELLS} or more cells, to compare their levels",
            got=largest + f" and {len(names) - 3} more" * (len(names) > 3),
            fix=sentence("Choose a column with larger batches, or omit {}.", without),
        )
    return CellBatches(column=column, names=names, codes=codes.astype(np.int64))


def with_batches(side: Side, batches: CellBatches) -> Side:
    """Return a reference with the levels of its batches equalised.

    Parameters
    ----------
    side
        The reference.
    batches
        Batches of its cells; some may have no cells.

    Returns
    -------
    The side with `ReferenceBatches`. If fewer than two batches have cells, it has none, and is normalised to
    the median total of its cells.

    Notes
    -----
    The batch with the most cells keeps its levels. Each other batch is compared with it by pairs of cells
    that are mutually among each other's 20 nearest, by the cosine of logarithms and of z-scores within each
    batch, over the most variable genes that both detect. The factor of a gene is the ratio of the means of
    normalised counts over these pairs. Its logarithm is multiplied by n / (n + 5), where n is the number of
    cells with the gene in the batch with fewer of them, so that few cells have little effect.

    Each batch is then normalised to the median total of its own cells, if totals are known. Normalising to
    the median of all cells would amplify the few counts, and the noise, of a shallow batch.
    """
    side, codes, n_batches = dataclasses.replace(side, batches=None), batches.codes, len(batches.names)
    usable = np.bincount(codes[~side.empty_cells], minlength=n_batches)
    if (usable > 0).sum() < 2:  # it keeps its own depth
        own = float(np.median(side.totals[~side.empty_cells])) if is_divided(side) else side.target
        return dataclasses.replace(side, target=own)
    stream = numpy_stream(0, "reference batches")
    anchor = int(usable.argmax())
    levels, depths = np.ones((n_batches, side.n_genes), dtype=np.float32), np.ones(n_batches)
    compared = usable >= FEWEST_BATCH_CELLS
    largest = _read(side, codes == anchor, stream)
    for code in np.flatnonzero(compared):
        if code != anchor:
            levels[code] = _levels(_read(side, codes == code, stream), largest)
        if is_divided(side):
            depths[code] = np.median(side.totals[(codes == code) & ~side.empty_cells]) / side.target
    fields = {field.name: getattr(batches, field.name) for field in dataclasses.fields(CellBatches)}
    compared_ones = ReferenceBatches(**fields, levels=levels, depths=depths, compared=compared)
    return dataclasses.replace(side, batches=compared_ones)


def batch_cautions(side: Side, totals: DoubleArray) -> Iterator[str]:
    """Return cautions: a column may contain batches of unequal depth, or batches could not be compared.

    Parameters
    ----------
    side
        The reference.
    totals
        (n_cells,) sums of the values of its cells.
    """
    batches = side.batches
    if batches is not None:
        few = [str(name) for name in batches.names[~batches.compared]]
        if few:
            yield (
                f"Reference: {shorten(few)} of obs[{batches.column!r}] "
                f"{'has' if len(few) == 1 else 'have'} fewer than {FEWEST_BATCH_CELLS} cells with counts, "
                "too few to compare with the others. Their values are not changed."
            )
        return
    if side.scale != "raw":
        return
    ratios = {}
    for name, values in batch_columns(side.table):
        groups = pd.Series(totals).groupby(values, sort=True)
        depths = groups.median()[groups.size() >= FEWEST_BATCH_CELLS]
        depths = depths[depths > 0]
        if len(depths) > 1 and depths.max() >= _UNEQUAL_DEPTHS * depths.min():
            ratios[name] = depths.max() / depths.min(), str(depths.idxmax()), str(depths.idxmin())
    if ratios:
        name = max(ratios, key=ratios.__getitem__)
        ratio, deepest, thinnest = ratios[name]
        yield (
            f"Reference: a typical cell of {deepest!r} has {ratio:,.0f} times as many counts as one of "
            f"{thinnest!r} (obs[{name!r}]). If these are donors, technologies or atlases that were "
            "combined, specify the column to equalise the levels of their genes: "
            + arg("reference_batch", name)
            + "."
        )


def without_batches(side: Side) -> dict[str, tuple[Side, IntArray]]:
    """Return the reference without each of its batches, by the name of the batch.

    Parameters
    ----------
    side
        The reference, with its batches.

    Returns
    -------
    For each batch with cells, the side without it, with the other batches compared again, and (n_kept,)
    positions of the remaining cells.
    """
    batches = side.batches
    if batches is None:
        return {}
    parts = {}
    for code in np.unique(batches.codes):
        remaining_cells = np.flatnonzero(batches.codes != code)
        part = with_batches(side.subset(remaining_cells), batches.of_cells(remaining_cells))
        parts[str(batches.names[code])] = part, remaining_cells
    return parts


def _read(side: Side, cells: BoolArray, stream: np.random.Generator) -> sp.csr_matrix:
    """Return logarithms of some cells with counts, or of a random sample of them, (n_cells, n_genes)."""
    drawn = sample_rows(np.flatnonzero(cells & ~side.empty_cells), _MOST_CELLS, stream)
    return sp.csr_matrix(sp.vstack([sp.csr_matrix(side.block(drawn[rows])) for rows in _blocks(drawn)]))


def _blocks(cells: IntArray) -> Iterator[slice]:
    return row_blocks(len(cells), READ_ROWS)


def _levels(logs: sp.csr_matrix, largest: sp.csr_matrix) -> DoubleArray:
    """Return the factors that bring the genes of a batch to the levels of the largest batch."""
    sides = logs, largest
    genes = _compared_genes(sides)
    if len(genes) < _FEWEST_GENES:
        return np.ones(logs.shape[1])
    first, second = (_units(side[:, genes].toarray()) for side in sides)
    similarity = first @ second.T
    is_pair = _among_nearest(similarity) & _among_nearest(similarity.T).T
    means, detecting = [], []
    for side, pairs in zip(sides, (is_pair.sum(axis=1), is_pair.sum(axis=0)), strict=True):
        counts = side.astype(np.float64)
        np.expm1(counts.data, out=counts.data)
        means.append(counts.T @ (pairs / max(pairs.sum(), 1)))
        detecting.append((side > 0).T @ (pairs > 0).astype(np.float64))
    n_cells = np.minimum(*detecting)
    ratios = np.divide(means[1], means[0], out=np.ones_like(n_cells), where=n_cells > 0)
    trust = n_cells / (n_cells + _DOUBTFUL_CELLS)
    return np.asarray(np.clip(ratios, 1 / _MOST_FACTOR, _MOST_FACTOR) ** trust)


def _compared_genes(sides: tuple[sp.csr_matrix, sp.csr_matrix]) -> IntArray:
    """Return the most variable genes of both batches, among those that vary in both."""
    shares = []
    for side in sides:
        squares = np.asarray(side.power(2).mean(axis=0)).ravel() - np.asarray(side.mean(axis=0)).ravel() ** 2
        shares.append(np.maximum(squares, 0) / max(squares.sum(), 1e-300))
    both = np.flatnonzero(np.minimum(*shares) > 0)
    order = np.argsort(-(shares[0] + shares[1])[both], kind="stable")
    return np.sort(both[order[:_MOST_GENES]])


def _units(values: NDArray[Any]) -> DoubleArray:
    """Return the features for comparing cells: logarithms and z-scores, with rows of length 1.

    Logarithms alone would depend on the levels of the batches, z-scores alone on their composition.
    """
    scores = centred(values)
    scores /= np.maximum(scores.std(axis=0), 1e-12)
    return np.asarray(unit_length(unit_length(values, axis=1) + unit_length(scores, axis=1), axis=1))


def _among_nearest(similarity: DoubleArray) -> BoolArray:
    """Mark the `_NEAREST` largest values of each row."""
    n_near = min(_NEAREST, similarity.shape[1])
    marks = np.zeros(similarity.shape, dtype=np.bool_)
    np.put_along_axis(marks, np.argpartition(-similarity, n_near - 1, axis=1)[:, :n_near], True, axis=1)
    return marks
