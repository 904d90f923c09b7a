"""Spatially dominant genes: which genes decide that cells lie in one segment of the tissue, not in another.

`dominant_genes` tests the attributions of `cellweft.tl.attribute`, and `compare_with_expression` sets
the genes it finds beside those that are merely expressed more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, norm, rankdata

from cellweft._compute import BLOCK_VALUES, row_blocks, rows_within
from cellweft._errors import InputError, check_array, check_range
from cellweft._text import shorten
from cellweft._typing import DoubleArray, Matrix
from cellweft.tl._attribution import Attribution, Groups, groups_of

_FEWEST = 2  # cells of a segment that is tested
_TESTED = ("statistic", "auc", "difference", "p", "fdr")


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneComparison:
    """Genes of segments by attribution beside genes by expression; made by `compare_with_expression`.

    Attributes
    ----------
    table
        One row per segment and gene: ``segment``, ``gene``; ``statistic``, ``auc``, ``difference``, ``p`` and
        ``fdr``, each with ``_attribution`` and ``_expression``; ``found_by`` ("both", "attribution",
        "expression", "neither"). Sorted by segment, then by the attribution's statistic, highest first.
    summary
        One row per segment: how many genes each found (``both``, ``attribution`` alone, ``expression`` alone,
        ``neither``), and ``overlap``, the part of the genes found at all that both found (0 without any).
    """

    table: pd.DataFrame
    summary: pd.DataFrame


def dominant_genes(attribution: Attribution, segments: Groups, *, fdr: float = 0.05) -> pd.DataFrame:
    """Find the spatially dominant genes of segments of the tissue.

    Parameters
    ----------
    attribution
        Of cells.
    segments
        (n_cells,) the segment that every cell lies in: a region, a slice, a bin of a spatial axis.
    fdr
        False discovery rate, 0 to 1, within a segment.

    Returns
    -------
    One row per gene and segment of two or more cells: ``segment``; ``gene``; ``statistic``, the rank sum as a
    standard normal deviate; ``auc``, the chance that a cell of the segment has a higher attribution than one
    outside (ties count half); ``difference`` of the mean attributions, inside - outside; ``p``, two-sided;
    ``fdr``, adjusted by Benjamini and Hochberg; and ``dominant``: below ``fdr`` and higher inside. Sorted by
    segment, then by ``statistic``, highest first.

    Raises
    ------
    InputError
        Not one segment for each cell, or fewer than two segments of two cells.
    SettingError
        ``fdr`` is out of its range.

    Notes
    -----
    The Wilcoxon rank-sum test of each segment against the union of the others, as in the paper, with the
    correction for ties and for continuity of `scipy.stats.mannwhitneyu`; the ranks of a gene serve all
    segments. DEVIATION: scanpy, which the paper used, does not correct for ties unless asked, and so misses
    genes that most cells lack.

    The cells of a segment are not independent draws, and segments that were cut by the same placement are
    not either: the p-values rank genes and do not control error rates for a new tissue.

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
    groups = _segments(segments, len(attribution.cells))
    table = _test_segments(attribution.values, groups, attribution.genes)
    return _sorted(table.assign(dominant=_is_higher(table, fdr)), "statistic")


def compare_with_expression(
    attribution: Attribution, values: Matrix, segments: Groups, *, fdr: float = 0.05
) -> GeneComparison:
    """Compare the spatially dominant genes of segments with their differentially expressed genes.

    Parameters
    ----------
    attribution
        Of cells.
    values
        (n_cells, n_genes) log-normalised expression of the same cells and genes, as an array or CSR:
        ``placed.values(attribution.cells)``.
    segments, fdr
        As for `dominant_genes`.

    Returns
    -------
    The two tests of every segment and gene beside each other, and how far they agree.

    Raises
    ------
    InputError
        As `dominant_genes`, or the shape of ``values`` is another, or NaN in them.
    SettingError
        ``fdr`` is out of its range.

    Notes
    -----
    The same test on the same cells, as in the paper ("To compare SDGs with region-specific highly expressed
    genes"): a gene is found by either where it is higher inside the segment at ``fdr``.
    """
    check_range("fdr", fdr, low=0, high=1)
    groups = _segments(segments, len(attribution.cells))
    shape = (len(attribution.cells), len(attribution.genes))
    check_array(
        "values",
        values,
        fits=values.shape == shape,
        expected=f"finite values of the attribution's cells x genes, {shape[0]:,} x {shape[1]:,}",
        fix="Use placed.values(attribution.cells).",
    )
    by = {
        "attribution": _test_segments(attribution.values, groups, attribution.genes),
        "expression": _test_segments(values, groups, attribution.genes),
    }
    table = by["attribution"][["segment", "gene"]].copy()  # both have the same rows in the same order
    for column in _TESTED:
        for name, tested in by.items():
            table[f"{column}_{name}"] = tested[column]
    found = {name: _is_higher(tested, fdr).to_numpy() for name, tested in by.items()}
    table["found_by"] = np.select(
        [found["attribution"] & found["expression"], found["attribution"], found["expression"]],
        ["both", "attribution", "expression"],
        default="neither",
    ).astype(object)
    counts = pd.crosstab(table["segment"], table["found_by"])
    summary = counts.reindex(columns=["both", "attribution", "expression", "neither"], fill_value=0)
    any_found = summary[["both", "attribution", "expression"]].sum(axis=1)
    summary = summary.rename_axis(columns=None).assign(overlap=summary["both"] / any_found.clip(lower=1))
    return GeneComparison(table=_sorted(table, "statistic_attribution"), summary=summary)


def _segments(segments: Any, n_cells: int) -> pd.Categorical:
    groups = groups_of(segments, n_cells, where="segments")
    sizes = np.bincount(groups.codes, minlength=len(groups.categories))
    if (sizes >= _FEWEST).sum() < 2:
        named = [f"{name} ({size:,})" for name, size in zip(groups.categories, sizes, strict=True)]
        raise InputError(
            "segments",
            expected=f"at least two segments of {_FEWEST} cells or more",
            got=shorten(named) if named else "none",
            fix="Cut the tissue into fewer segments, or explain more cells.",
        )
    return groups


def _test_segments(values: Matrix, groups: pd.Categorical, genes: NDArray[np.str_]) -> pd.DataFrame:
    """Return the rank-sum test of every segment that is large enough: one row per segment and gene."""
    shape, n_genes = (len(groups.categories), len(groups)), len(genes)
    members = sp.csr_matrix((np.ones(shape[1]), (groups.codes, np.arange(shape[1]))), shape=shape)
    columns = values.tocsc() if sp.issparse(values) else values
    blocks = []
    for some in row_blocks(n_genes, rows_within(BLOCK_VALUES, len(groups))):
        block = columns[:, some]
        dense = np.asarray(block.toarray() if sp.issparse(block) else block, dtype=np.float64)
        blocks.append(_rank_sums(dense, members))
    tested = {name: np.concatenate([one[name] for one in blocks], axis=1) for name in blocks[0]}
    kept = np.flatnonzero(np.asarray(members.sum(axis=1)).ravel() >= _FEWEST)
    tested = {name: of[kept] for name, of in tested.items()}  # n_kept x n_genes
    tested["fdr"] = false_discovery_control(tested["p"], axis=1, method="bh")
    segment = pd.Categorical.from_codes(np.repeat(kept, n_genes), groups.categories)
    table = pd.DataFrame(
        {"segment": segment.remove_unused_categories(), "gene": np.tile(genes.astype(object), len(kept))}
    )
    return table.assign(**{name: of.ravel() for name, of in tested.items()})


def _rank_sums(values: DoubleArray, members: sp.csr_matrix) -> dict[str, DoubleArray]:
    """Return the tests of a block of genes, each n_segments x n_genes, of n_cells x n_genes values."""
    n_cells = len(values)
    inside = np.asarray(members.sum(axis=1))  # n_segments x 1
    outside = n_cells - inside
    ranks = rankdata(values, axis=0)  # ties share their average
    spread = ((ranks - (n_cells + 1) / 2) ** 2).sum(axis=0)  # smaller by what ties take
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
