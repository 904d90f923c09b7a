"""Spatially dominant genes: genes that are decisive for the placement of cells in a segment of the tissue.

`dominant_genes` tests the attributions of `cellweft.tl.attribute`, and `compare_with_expression` compares its
genes with those of higher expression.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, norm, rankdata

from cellweft._compute import BLOCK_VALUES, row_blocks, rows_within
from cellweft._errors import InputError, SettingError, check_array, check_choice, check_kind, check_range
from cellweft._text import shorten
from cellweft._typing import DoubleArray, Matrix, ProgressOption
from cellweft.nn.integrated_gradients import Explain
from cellweft.tl._attribution import Attribution, Cells, Explained, Groups, attribute, groups_of

_FEWEST = 2  # smallest number of cells of a tested segment
_TESTED = ("statistic", "auc", "difference", "p", "fdr")


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneComparison:
    """Genes of segments by attribution and by expression. Returned by `compare_with_expression`.

    Attributes
    ----------
    table
        One row per segment and gene: ``segment``, ``gene``; ``statistic``, ``auc``, ``difference``, ``p`` and
        ``fdr``, each with ``_attribution`` and ``_expression``; ``found_by`` ("both", "attribution",
        "expression", "neither"). Sorted by segment, then by the attribution's statistic, highest first.
    summary
        One row per segment: the number of genes that were found by ``both``, by ``attribution`` only, by
        ``expression`` only, or by ``neither``, and ``overlap``, the share of genes found by both among those
        found by either (0 if there are none).
    """

    table: pd.DataFrame
    summary: pd.DataFrame


def dominant_genes(
    attribution: Attribution | Explained,
    segments: Groups,
    *,
    what: Explain | None = None,
    cells: Cells = None,
    fdr: float = 0.05,
    progress: ProgressOption = True,
) -> pd.DataFrame:
    """Find the spatially dominant genes of segments of the tissue.

    Parameters
    ----------
    attribution
        A placement, whose cells are then explained by `attribute` with default settings, or the result of
        `attribute`.
    segments
        (n_cells,) segment of every explained cell, such as a region, a slice or a bin of a spatial axis.
    what
        What to explain of a placement: the "product" of the embeddings of a cell and its spot (the default,
        as in the paper), the "weight" or the "log weight". Not used for an attribution.
    cells
        Cells of a placement to explain, as in `attribute`; all by default.
    fdr
        False discovery rate, 0 to 1, within a segment.
    progress
        As in `attribute`.

    Returns
    -------
    One row per gene and segment of two or more cells: ``segment``; ``gene``; ``statistic``, the rank sum as a
    standard normal deviate; ``auc``, the chance that a cell of the segment has a higher attribution than one
    outside (ties count half); ``difference`` of the mean attributions, inside - outside; ``p``, two-sided;
    ``fdr``, adjusted by Benjamini-Hochberg; and ``dominant``: below ``fdr`` and higher inside. Sorted by
    segment, then by ``statistic``, highest first.

    Raises
    ------
    InputError
        The input is neither a placement nor an attribution; there is not one segment for each cell; there are
        fewer than two segments of two cells; or as in `attribute`.
    SettingError
        ``fdr`` is out of range, there is no such ``what``, or the attribution was made for another.

    Notes
    -----
    The paper found its genes with attributions of the product, although its text describes the weight
    ("Attribution function"). The weight of most cells is near 0 or 1, and then hardly depends on any gene.

    The Wilcoxon rank-sum test of each segment against the union of the others, as in the paper, with the
    correction for ties and for continuity of `scipy.stats.mannwhitneyu`; the ranks of a gene are used for all
    segments. DEVIATION: scanpy, which the paper used, does not correct for ties by default, and therefore
    misses genes that few cells express.

    The cells of a segment are not independent draws, and neither are segments that depend on the same
    placement. The p-values rank genes; they do not control error rates for a new tissue.

    Examples
    --------
    >>> values = np.array([[3.0, 0.0], [2.0, 1.0], [1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    >>> cells = np.arange(4)
    >>> why = Attribution(
    ...     values=values, genes=np.array(["Shh", "Xist"]), cells=cells, cell_names=cells.astype(str),
    ...     spot=cells, spot_names=cells.astype(str), explained=values.sum(axis=1),
    ...     completeness_gap=np.zeros(4), record={},
    ... )
    >>> dominant_genes(why, ["top", "top", "base", "base"])[["segment", "gene", "auc", "difference"]]
      segment  gene  auc  difference
    0    base  Xist  0.5         0.0
    1    base   Shh  0.0        -2.0
    2     top   Shh  1.0         2.0
    3     top  Xist  0.5         0.0
    """
    check_range("fdr", fdr, low=0, high=1)
    explained = _explained(attribution, what, cells, progress)
    groups = _segments(segments, len(explained.cells))
    table = _test_segments(explained.values, groups, explained.genes)
    return _sorted(table.assign(dominant=_is_higher(table, fdr)), "statistic")


def compare_with_expression(
    attribution: Attribution | Explained,
    values: Matrix | None,
    segments: Groups,
    *,
    what: Explain | None = None,
    cells: Cells = None,
    fdr: float = 0.05,
    progress: ProgressOption = True,
) -> GeneComparison:
    """Compare the spatially dominant genes of segments with their differentially expressed genes.

    Parameters
    ----------
    attribution
        A placement, or the result of `attribute`.
    values
        (n_cells, n_genes) log-normalised expression of the same cells and genes, as an array or CSR:
        ``placed.values(attribution.cells)``. None for that of a placement.
    segments, what, cells, fdr, progress
        As in `dominant_genes`.

    Returns
    -------
    Both tests for every segment and gene, and how well they agree.

    Raises
    ------
    InputError
        As in `dominant_genes`; or ``values`` have another shape or contain NaN.
    SettingError
        ``fdr`` is out of range.

    Notes
    -----
    The same test on the same cells, as in the paper ("To compare SDGs with region-specific highly expressed
    genes"): a gene is found if it is higher inside the segment at the level ``fdr``.
    """
    check_range("fdr", fdr, low=0, high=1)
    explained = _explained(attribution, what, cells, progress)
    groups = _segments(segments, len(explained.cells))
    shape = (len(explained.cells), len(explained.genes))
    if values is None and not isinstance(attribution, Attribution):
        values = attribution.values(explained.cells)
    expression: Any = values if sp.issparse(values) else np.asarray(values)
    check_array(
        "values",
        expression,
        fits=expression.shape == shape,
        expected=f"finite values of the attribution's cells x genes, {shape[0]:,} x {shape[1]:,}",
        fix="Use placed.values(attribution.cells).",
    )
    by = {
        "attribution": _test_segments(explained.values, groups, explained.genes),
        "expression": _test_segments(expression, groups, explained.genes),
    }
    table = by["attribution"][["segment", "gene"]].copy()  # both have the same rows in the same order
    for column in _TESTED:
        for name, tested in by.items():
            table[f"{column}_{name}"] = tested[column]
    is_higher = {name: _is_higher(tested, fdr).to_numpy() for name, tested in by.items()}
    table["found_by"] = np.select(
        [
            is_higher["attribution"] & is_higher["expression"],
            is_higher["attribution"],
            is_higher["expression"],
        ],
        ["both", "attribution", "expression"],
        default="neither",
    ).astype(object)
    counts = pd.crosstab(table["segment"], table["found_by"])
    summary = counts.reindex(columns=["both", "attribution", "expression", "neither"], fill_value=0)
    any_found = summary[["both", "attribution", "expression"]].sum(axis=1)
    summary = summary.rename_axis(columns=None).assign(overlap=summary["both"] / any_found.clip(lower=1))
    return GeneComparison(table=_sorted(table, "statistic_attribution"), summary=summary)


def _explained(
    source: Attribution | Explained, what: Explain | None, cells: Cells, progress: ProgressOption
) -> Attribution:
    """Return an attribution unchanged, or compute that of the cells of a placement."""
    if what is not None:
        check_choice("what", what, get_args(Explain))
    check_kind(
        "attribution",
        source,
        (Attribution, Explained),
        expected="a placement, or an attribution of its cells",
        fix="Pass the result of cellweft.Placer(...).fit(pair).place() or cellweft.tl.attribute(placed).",
    )
    if not isinstance(source, Attribution):
        return attribute(source, cells, what=what or "product", progress=progress)
    fix = "Pass the placement, or compute a new attribution: cellweft.tl.attribute(placed, cells, what=...)."
    if cells is not None:
        raise SettingError("cells", expected="a placement to choose from", got="an attribution", fix=fix)
    if what is not None and what != source.record.get("what"):
        expected = f"{source.record.get('what')!r}, which the attribution explains"
        raise SettingError("what", expected=expected, got=repr(what), fix=fix)
    return source


def _segments(segments: Any, n_cells: int) -> pd.Categorical:
    groups = groups_of(segments, n_cells, where="segments")
    sizes = np.bincount(groups.codes, minlength=len(groups.categories))
    if (sizes >= _FEWEST).sum() < 2:
        named = [f"{name} ({size:,})" for name, size in zip(groups.categories, sizes, strict=True)]
        raise InputError(
            "segments",
            expected=f"at least two segments with {_FEWEST} or more cells",
            got=shorten(named) if named else "none",
            fix="Divide the tissue into fewer segments, or explain more cells.",
        )
    return groups


def _test_segments(values: Matrix, groups: pd.Categorical, genes: NDArray[np.str_]) -> pd.DataFrame:
    columns: Any = values.tocsc() if sp.issparse(values) else values

    def read(some: slice) -> DoubleArray:
        block: Any = columns[:, some]
        return np.asarray(block.toarray() if hasattr(block, "toarray") else block, dtype=np.float64)

    return rank_sum_tests(read, groups, genes)


def rank_sum_tests(
    read: Callable[[slice], DoubleArray],
    groups: pd.Categorical,
    genes: NDArray[np.str_],
    *,
    reference: str | None = None,
    block_values: float = BLOCK_VALUES,
) -> pd.DataFrame:
    """Return the rank-sum tests of all segments with enough cells: one row per segment and gene.

    Parameters
    ----------
    read
        Returns the values of some genes, by position, (n_cells, n_some).
    groups
        The segment of each cell.
    genes
        (n_genes,) names of the genes.
    reference
        The segment to compare the others with; by default, each is compared with the union of the others.
    block_values
        Number of values per block.
    """
    shape, n_genes = (len(groups.categories), len(groups)), len(genes)
    members = sp.csr_matrix((np.ones(shape[1]), (groups.codes, np.arange(shape[1]))), shape=shape)
    against = None if reference is None else groups.categories.tolist().index(reference)
    blocks = []
    for some in row_blocks(n_genes, rows_within(block_values, len(groups))):
        dense = read(some)
        blocks.append(_rank_sums(dense, members) if against is None else _against(dense, members, against))
    tested = {name: np.concatenate([block[name] for block in blocks], axis=1) for name in blocks[0]}
    kept = np.flatnonzero(np.asarray(members.sum(axis=1)).ravel() >= _FEWEST)
    kept = kept[kept != against] if against is not None else kept
    tested = {name: of[kept] for name, of in tested.items()}  # n_kept x n_genes
    tested["fdr"] = false_discovery_control(tested["p"], axis=1, method="bh")
    segment = pd.Categorical.from_codes(np.repeat(kept, n_genes), groups.categories)
    table = pd.DataFrame(
        {"segment": segment.remove_unused_categories(), "gene": np.tile(genes.astype(object), len(kept))}
    )
    return table.assign(**{name: of.ravel() for name, of in tested.items()})


def _against(values: DoubleArray, members: sp.csr_matrix, reference: int) -> dict[str, DoubleArray]:
    """Return the tests of each segment against one of them, n_segments x n_genes; ignore its own row."""
    parts = []
    for segment in range(members.shape[0]):
        # the reference is tested against any other, to fill its row
        two = members[[segment, reference if segment != reference else int(reference == 0)]]
        rows = np.flatnonzero(np.asarray(two.sum(axis=0)).ravel())
        parts.append({name: of[:1] for name, of in _rank_sums(values[rows], two[:, rows]).items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _rank_sums(values: DoubleArray, members: sp.csr_matrix) -> dict[str, DoubleArray]:
    """Return the tests of a block of genes, each n_segments x n_genes, of n_cells x n_genes values."""
    n_cells = len(values)
    inside = np.asarray(members.sum(axis=1))  # n_segments x 1
    outside = n_cells - inside
    ranks = rankdata(values, axis=0)  # ties share their average
    spread = ((ranks - (n_cells + 1) / 2) ** 2).sum(axis=0)  # includes the correction for ties
    u = members @ ranks - inside * (inside + 1) / 2
    pairs = inside * outside
    beyond = u - pairs / 2
    deviation = np.sqrt(pairs / (n_cells * (n_cells - 1)) * spread)
    size = np.maximum(np.abs(beyond) - 0.5, 0.0)
    statistic = np.sign(beyond) * np.divide(size, deviation, out=np.zeros_like(size), where=deviation > 0)
    sums = members @ values
    return {
        "statistic": statistic,
        "auc": u / pairs,
        "difference": sums / inside - (values.sum(axis=0) - sums) / outside,
        "p": 2 * norm.sf(np.abs(statistic)),
    }


def _is_higher(tested: pd.DataFrame, fdr: float) -> pd.Series:
    return (tested["fdr"] < fdr) & (tested["auc"] > 0.5)


def _sorted(table: pd.DataFrame, by: str) -> pd.DataFrame:
    return table.sort_values(["segment", by], ascending=[True, False], kind="stable", ignore_index=True)
