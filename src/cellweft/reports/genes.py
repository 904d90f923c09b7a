"""The imputed genes: the most and least reliable ones, pictures of a few, and the coverage of intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from cellweft._typing import FloatArray, IntArray, ResultScale
from cellweft.data._pair import Pair
from cellweft.data.gene_names import shown_names
from cellweft.data.io.keys import (
    INTERVAL,
    MEASURED,
    RELIABILITY,
    RELIABILITY_LOWER,
    RELIABILITY_UPPER,
    RELIABLE,
)
from cellweft.data.io.results import result_scale
from cellweft.reports.accuracy import own_method, reliability_metric
from cellweft.reports.document import Block, Heading, Name, Number, Part, Picture, Row, Table, text
from cellweft.reports.figures import picture
from cellweft.reports.inputs import Given, Result
from cellweft.reports.standards import coverage_beside

MOST_ROWS = 12
"""Number of genes at the top, and at the bottom, of the table."""

USE_MEASURED = (
    "use the measurement itself: it is better than any prediction, and statistical tests require it."
)
"""Advice for genes that were measured."""

BLENDED = (
    "Values of panel genes are the best estimate from measurement and prediction together; their "
    "reliability is that of the prediction alone."
)
"""Description of measured genes that were blended with their predictions."""

_MOST_TESTED = 100  # largest number of genes with tested intervals


def gene_blocks(given: Given) -> tuple[Block, ...]:
    """Return the most and the least reliable genes."""
    if given.imputed is None:
        return ()
    result, var = given.imputed, _var(given.imputed)
    if RELIABILITY not in var.columns or var[RELIABILITY].isna().all():
        return (
            text(
                "The reliability of the genes was not estimated. Impute with reliability to know "
                "which genes to trust.",
                tone="caution",
            ),
        )
    blocks: list[Block] = [_counted(result, var)]
    on_panel = var[MEASURED].astype(bool)
    for of_panel, head, most in (
        (False, "Imputed genes, which the panel did not measure", MOST_ROWS),
        (True, "Panel genes, which were also measured", MOST_ROWS // 2),
    ):
        ranked = var.loc[on_panel == of_panel, RELIABILITY].dropna()
        ranked = ranked.sort_values(ascending=False, kind="stable")
        if len(ranked):
            blocks += [Heading((head,)), *_ranked_tables(given, result, ranked.index, most=most)]
    if on_panel.any():
        is_blend = result.record.get("measured") == "blend"
        said = BLENDED if is_blend else f"For panel genes, {USE_MEASURED}"
        blocks.append(text(said, tone="note"))
    return tuple(blocks)


def _ranked_tables(given: Given, result: Result, names: pd.Index, *, most: int) -> list[Block]:
    """Return tables of genes by reliability; with many genes, only the first and the last ones."""
    if len(names) <= 2 * most:
        return [_table(given, result, names, caption="All of them, the most reliable first")]
    left = result.number(len(names) - 2 * most, "genes with a reliability that are in neither table")
    note: tuple[Part, ...] = (left, " genes in between are not shown; the file contains all of them.")
    return [
        _table(given, result, names[:most], caption="The most reliable"),
        _table(given, result, names[-most:], caption="The least reliable", note=note),
    ]


def reliable_genes(result: Result) -> tuple[Part, ...]:
    """Return how many of the unmeasured genes are reliable; nothing if unknown."""
    var = result.data.var
    if RELIABLE not in var.columns:
        return ()
    imputed = var[~var[MEASURED].astype(bool)]
    var, said = (imputed, " that the panel did not measure,") if len(imputed) else (var, "")
    reliable = int(var[RELIABLE].astype(bool).sum())
    return (result.number(reliable, "var, reliable"), " of ", result.number(len(var), "genes"), said)


def _var(result: Result) -> pd.DataFrame:
    return result.data.var.set_axis(result.data.var.index.astype(str))


def _counted(result: Result, var: pd.DataFrame) -> Block:
    kind = reliability_metric(var)
    said = {
        "pearson": (
            "The reliability of a gene is the expected correlation of its prediction with the truth over "
            "the cells of the tissue, with an interval that should contain the true correlation of "
            "nine in ten genes."
        ),
        "cosine": (
            "The reliability of a gene is the expected cosine similarity of its prediction with the "
            "truth. It is also high for genes with uniform expression."
        ),
    }
    parts: list[Part] = [said[kind]]
    if reliable := reliable_genes(result):
        parts += [
            " Of the genes, ",
            *reliable,
            " are classified as reliable: their interval lies above zero, and the ",
        ]
        parts.append("expected correlation is not small.")
    return text(*parts)


def _table(
    given: Given, result: Result, names: pd.Index, *, caption: str, note: tuple[Part, ...] = ()
) -> Table:
    var = _var(result)
    bounds = RELIABILITY_LOWER in var.columns
    kind = reliability_metric(var)
    tested = _reached(given, kind)
    values = {name: var[name].astype(float).to_dict() for name in var.columns if name.startswith("reliab")}

    def number(gene: str, column: str) -> Number:
        return result.number(values[column][gene], f"{column} of {gene}", "score")

    rows: list[tuple[Part | None, ...]] = []
    name_of = dict(zip(var.index, shown_names(var), strict=True))
    for gene in names:
        row: list[Part | None] = [Name(name_of[gene]), number(gene, RELIABILITY)]
        if bounds:
            row += [number(gene, RELIABILITY_LOWER), number(gene, RELIABILITY_UPPER)]
        if RELIABLE in var.columns:
            row.append("yes" if values[RELIABLE][gene] else "no")
        row += [
            Number(reached.get(gene, np.nan), "score", f"{table}: {kind} of {gene}")
            for table, reached in tested
        ]
        rows.append(tuple(row))
    heads: list[Part] = ["gene", f"expected {_KINDS[kind]}"]
    heads += ["from", "to"] if bounds else []
    heads += ["reliable"] if RELIABLE in var.columns else []
    heads += [_TESTED.get(scores.by, "reached") for scores in given.scored(place=False)[: len(tested)]]
    return Table(caption=(caption,), heads=tuple(heads), rows=tuple(rows), note=note)


_KINDS = {"pearson": "correlation", "cosine": "cosine"}
_TESTED = {"truth": "against the truth", "genes": "when held out", "fraction": "when held out"}


def _reached(given: Given, metric: str) -> list[tuple[str, dict[str, float]]]:
    """Return the scores of genes in each table, for the method that made the result."""
    columns = []
    for scores in given.scored(place=False):
        own, table = own_method(scores, given.imputed), scores.each("gene", metric)
        values = {} if own not in table.columns else table[own].dropna().to_dict()
        columns.append((scores.name, {str(gene): float(value) for gene, value in values.items()}))
    return columns


def chosen_genes(given: Given, genes: Sequence[str] | None, *, each: int = 2) -> dict[str, list[str]]:
    """Return the genes to plot, by the reason for plotting them.

    Parameters
    ----------
    given
        Inputs of the report, with imputed genes.
    genes
        Requested genes, which are first.
    each
        Number of genes of each other kind.
    """
    if given.imputed is None:
        return {}
    var = _var(given.imputed)
    chosen = {"asked": list(dict.fromkeys(genes or []))}
    rest = var.drop(index=chosen["asked"], errors="ignore")
    reliabilities = rest[RELIABILITY].dropna() if RELIABILITY in rest.columns else pd.Series(dtype=float)
    if reliabilities.empty:
        chosen["first"] = [] if chosen["asked"] else list(rest.index[: 2 * each])
        return {why: names for why, names in chosen.items() if names}
    ranked = reliabilities.sort_values(ascending=False, kind="stable").index
    on_panel = var[MEASURED].astype(bool)
    chosen["panel"] = [gene for gene in ranked if on_panel[gene]][:each]
    chosen["most"] = [gene for gene in ranked if not on_panel[gene]][:each]
    already_chosen = {*chosen["panel"], *chosen["most"]}
    chosen["least"] = [gene for gene in ranked[::-1] if gene not in already_chosen][:each]
    return {why: names for why, names in chosen.items() if names}


_MEASURES: dict[ResultScale, str] = {"log": "log-normalised expression", "counts": "counts"}
_WHY = {
    "asked": "Requested genes",
    "panel": "Most reliable panel genes",
    "most": "Most reliable genes that were not on the panel",
    "least": "Least reliable genes",
    "first": "The first genes",
}


def gallery_blocks(given: Given, genes: Sequence[str] | None, truth: Pair | None) -> tuple[Block, ...]:
    """Return pictures of a few genes in space: measured if available, imputed, and their uncertainty.

    Parameters
    ----------
    given
        Inputs of the report, with imputed genes.
    genes
        Requested genes.
    truth
        Measurements of genes that are not on the panel, if available.
    """
    result = given.imputed
    if result is None or not any("spatial" in key for key in result.data.obsm):
        return ()
    chosen, scale = chosen_genes(given, genes), result_scale(result.data)
    few = result.few([gene for names in chosen.values() for gene in names])
    blocks: list[Block] = [
        text(
            f"Measured and imputed values share one colour scale, that of {_MEASURES[scale]}. The "
            "prediction of a panel gene uses the panel, including the gene itself. See the held-out "
            "scores for the accuracy on genes that were not measured."
        )
    ]
    for why, names in chosen.items():
        blocks.append(Heading((_WHY[why],)))
        blocks += [Row((_gene_picture(result, few, name, (given.pair, truth)),)) for name in names]
    return tuple(blocks)


def _gene_picture(result: Result, few: AnnData, gene: str, pairs: Sequence[Pair | None]) -> Picture:
    from cellweft import pl

    measured, of = _measured(few, gene, pairs, scale=result_scale(result.data))
    bounds = set(INTERVAL) <= set(few.layers)
    panels = [of] if measured is not None else []
    panels += ["imputed", *(["width of the interval"] if bounds else [])]
    shown_name = dict(zip(few.var_names, shown_names(few.var), strict=True))[gene]
    caption: list[Part] = [Name(shown_name), ": ", ", ".join(panels), "."]
    var = few.var.loc[gene]
    if RELIABILITY in few.var.columns and np.isfinite(var[RELIABILITY]):
        kind = _KINDS[reliability_metric(few.var)]
        value, low, high = (
            result.number(float(var.get(key, np.nan)), f"{key} of {gene}", "score")
            for key in (RELIABILITY, RELIABILITY_LOWER, RELIABILITY_UPPER)
        )
        caption += [f" Expected {kind} ", value]
        if RELIABILITY_LOWER in few.var.columns:
            caption += [" (", low, " to ", high, ")"]
        caption.append(".")

    def draw() -> object:
        axes = pl.gene(few, gene, measured=measured)
        if measured is not None:
            axes[0].set_title(f"{shown_name}, {of}")
        return axes

    return picture(
        draw, alt=f"Maps of the tissue coloured by {shown_name}: {', '.join(panels)}", caption=caption
    )


def _measured(
    few: AnnData, gene: str, pairs: Sequence[Pair | None], *, scale: ResultScale
) -> tuple[FloatArray | None, str]:
    """Return the values of a gene from the first pair, measurements or truth, that contains it."""
    for said, pair in zip(("measured", "true"), pairs, strict=True):
        if pair is None or pair.st.n_cells != few.n_obs or not _has_scale(pair, scale):
            continue
        place = _places_in(pair, few.var.loc[[gene]])
        if place[0] >= 0:
            return _values_of(pair, pair.st_shared[place], scale)[:, 0], said
    return None, ""


def _has_scale(pair: Pair, scale: ResultScale) -> bool:
    """Return whether the tissue of a pair can be shown on the scale of a result."""
    return scale == "log" or pair.st.scale == "raw"


def _values_of(pair: Pair, genes: IntArray, scale: ResultScale) -> FloatArray:
    """Return measured values of some genes in all cells, on the scale of a result: (n_cells, n_genes)."""
    rows = slice(0, pair.st.n_cells)
    if scale == "log":
        return pair.st.dense(rows, genes)
    stored = pair.st.stored(rows, genes)
    return np.asarray(stored.toarray() if sp.issparse(stored) else stored, dtype=np.float32)


def _places_in(pair: Pair, var: pd.DataFrame) -> IntArray:
    """Return the positions of a result's genes among the shared genes of a pair, -1 for others."""
    names = pd.Index(var.get("reference_name", var.index)).astype(str)
    places = pd.Index(pair.sc.input_names[pair.sc_shared]).get_indexer(names)
    by_name = pd.Index(pair.shared_genes).get_indexer(var.index.astype(str))
    return np.where(places >= 0, places, by_name)


def interval_blocks(given: Given, truth: Pair | None) -> tuple[Block, ...]:
    """Return the share of true values inside the intervals, if both are known."""
    from cellweft import pl

    result = given.imputed
    if result is None or not set(INTERVAL) <= set(result.data.layers):
        return ()
    level = result.record.get("interval")
    names = _testable(result, truth)
    if truth is None or level is None or not names:
        return (
            text(
                "How often measurements lie within the intervals was not tested here, because that "
                "requires measurements of genes outside the panel.",
                tone="note",
            ),
        )
    few = result.few(names)
    places = _places_in(truth, _var(result).loc[names])
    known_values = _values_of(truth, truth.st_shared[places], result_scale(result.data))
    values = pd.DataFrame(known_values, columns=names)
    caption: tuple[Part, ...] = (
        "Share of the true values of ",
        result.number(len(names), "imputed genes with known truth"),
        " genes outside the panel that lie within their intervals, compared with the nominal share, ",
        result.number(float(level), "record, interval", "share"),
        ". The bar shows the middle half of the genes.",
        *_coverage(given, float(level)),
    )
    drawn = picture(
        lambda: pl.calibration(values, {float(level): few}),
        form="svg",
        alt="Share of true values inside the intervals, and the expected share",
        caption=caption,
    )
    lower, upper = (np.asarray(few[:, names].layers[side], dtype=np.float64) for side in INTERVAL)
    is_known = values.notna().to_numpy()
    inside = is_known & (values.to_numpy() >= lower) & (values.to_numpy() <= upper)
    share = result.number(
        float(inside.sum() / max(is_known.sum(), 1)), "true values within their interval", "share"
    )
    check = coverage_beside(share, float(level))
    return (Heading(("Intervals",)), text(*check.parts, tone=check.grade), Row((drawn,)))


def _coverage(given: Given, level: float) -> tuple[Part, ...]:
    """Return the share of all values inside the intervals, from a table of scores."""
    for scores in given.scored(place=False):
        own, metric = own_method(scores, given.imputed), f"coverage@{level:g}"
        value = np.nan if own is None else scores.summary("all values", metric, method=own)
        if np.isfinite(value):
            number = scores.number(value, f"summary of {own}, {metric}", "share")
            return (" Over all scored genes: ", number, ".")
    return ()


def _testable(result: Result, truth: Pair | None) -> list[str]:
    """Return imputed, unmeasured genes with known values; evenly spaced ones if there are many."""
    if truth is None or truth.st.n_cells != result.n_cells:
        return []
    if not _has_scale(truth, result_scale(result.data)):
        return []
    var = _var(result)
    imputed = var[~var[MEASURED].astype(bool)]
    names = imputed.index[_places_in(truth, imputed) >= 0].tolist()
    step = -(-len(names) // _MOST_TESTED) or 1
    return names[::step]
