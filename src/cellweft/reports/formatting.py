"""The format of numbers, and texts that do not depend on the data."""

from __future__ import annotations

import math

from cellweft.reports.document import Form, Number

NOT_KNOWN = "–"

METRICS = {
    "pearson": "Pearson",
    "spearman": "Spearman",
    "cosine": "cosine",
    "mse": "squared error",
    "pearson_counts": "Pearson",
    "spearman_counts": "Spearman",
    "mse_counts": "squared error",
    "ari": "ARI",
    "nmi": "NMI",
    "location_error_mean": "mean error",
    "location_error_median": "median error",
    "celltype_pcc": "composition, Pearson",
}
"""Headings of columns of scores; other metrics are shown by their name in the table."""

HEADINGS = {
    "genes": "Panel genes, each predicted without using itself",
    "cells": "Held-out cells",
    "fraction": "Held-out panel genes",
    "truth": "Genes that the panel did not measure, compared with the truth",
    "place": "Cells of known position",
}
"""Headings of tables of scores, by what was held out."""

LOWER_IS_BETTER = ("mse", "rmse", "js", "location_error")
"""Prefixes of metrics for which lower is better."""

PRESETS = {
    "imputed": {
        "auto": "auto: attention learned by leaving genes out, cellweft's default",
        "stimpute": "stImpute as published",
    },
    "placed": {"auto": "auto: STEM with cellweft's own settings, the default", "stem": "STEM as published"},
}
"""Descriptions of the presets, by the kind of result."""

SCALES = {
    "raw": "raw counts",
    "normalised": "normalised counts",
    "log": "logarithms of normalised counts",
    "log2": "binary logarithms of normalised counts",
    "log10": "decimal logarithms of normalised counts",
    "sqrt": "square roots of normalised counts",
    "log_raw": "logarithms of counts",
    "log2_raw": "binary logarithms of counts",
    "log10_raw": "decimal logarithms of counts",
    "sqrt_raw": "square roots of counts",
    "arcsinh": "arcsinh of normalised counts",
    "arcsinh_raw": "arcsinh of counts",
}
"""Descriptions of an input's values, by scale."""

PAPERS = {
    "imputed": (
        "Zeng et al., Imputing spatial transcriptomics through gene network constructed from protein "
        "language model. Communications Biology 7, 1271 (2024).",
        "https://doi.org/10.1038/s42003-024-06964-2",
    ),
    "placed": (
        "Hao et al., STEM enables mapping of single-cell and spatial transcriptomics data with transfer "
        "learning. Communications Biology 7, 56 (2024).",
        "https://doi.org/10.1038/s42003-023-05640-1",
    ),
}
"""Papers of the methods, by the kind of result."""

CAUTIONS = {
    "imputed": (
        "Imputed values are predictions, not measurements. Trust a gene only as far as held-out genes of "
        "the same panel support it.",
        "Do not test imputed values as if they were measured: nearly every difference would be "
        "significant, many with the wrong sign. cellweft.tl.multiple_imputations and "
        "cellweft.tl.differential_expression account for the uncertainty.",
        "A small panel, a reference from another tissue, or a reference that lacks a cell type gives poor "
        "predictions. Only the scores and the reliability show this.",
    ),
    "reliability": (
        "The reliability of a gene is itself an estimate, learned from the panel's genes. It applies to "
        "genes like these; a panel of marker genes says less about other genes.",
    ),
    "interval": (
        "Intervals are correct on average over similar genes and cells; for a single gene, all of them "
        "may be too narrow.",
    ),
    "scores": (
        "The cosine is high even for a method that predicts one constant per gene. Use the correlations "
        "to see whether the pattern is right.",
        "Held-out genes are panel genes. Genes that were not chosen for a panel may be harder to predict.",
    ),
    "placed": (
        "A cell type that occurs everywhere cannot be placed: look at the confidence and the spread of its "
        "cells.",
        "A position is the centre of where a cell may have come from. If the spread is wide, it may lie "
        "between the likely positions.",
    ),
    "labels": (
        "A type that the reference lacks often goes unnoticed: its cells get the label of a similar type "
        "in the reference, often with high confidence. Do not rely on unknown cells alone to "
        "find such types.",
        "Confidence is calibrated on reference cells that were reduced to the panel and the depth of the "
        "tissue. It was not tested in the tissue itself.",
    ),
    "spots": (
        "The composition of a spot is estimated from the types of the reference cells. A type that the "
        "reference lacks is assigned to the most similar types.",
    ),
}
"""Caveats, by the contents of the report."""


def shown(number: Number) -> str:
    """Return a number as shown on the page.

    Examples
    --------
    >>> shown(Number(value=1500, form="count", source="cells"))
    '1,500'
    >>> written(0.58449, "score"), written(0.2, "share"), written(float("nan"), "score")
    ('0.584', '20 %', '–')
    """
    return written(number.value, number.form)


def written(value: float, form: Form) -> str:
    """Return a value in one of the formats; a dash if unknown."""
    if not math.isfinite(value):
        return NOT_KNOWN
    if form == "count":
        return f"{round(value):,}"
    if form == "score":
        return f"{value:.3f}".replace("-0.000", "0.000")
    if form == "share":
        percent = 100 * value
        return f"{percent:.0f} %" if percent >= 10 or percent == 0 else f"{percent:.2g} %"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 or value == 0 else f"{value:#.3g}"


def lower_is_better(metric: str) -> bool:
    """Return whether lower values of a metric are better.

    Examples
    --------
    >>> lower_is_better("mse"), lower_is_better("pearson")
    (True, False)
    """
    return metric.startswith(LOWER_IS_BETTER)


def base_of(method: str) -> str:
    """Return the name of a method without its settings.

    Examples
    --------
    >>> base_of("knn:k=20")
    'knn'
    """
    return method.partition(":")[0]
