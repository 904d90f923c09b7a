"""Decides which columns of a matrix or table are genes, controls, or annotation of cells.

The same rules apply to all formats. Features annotated as another kind, or with names that instruments use
for controls, are controls. Columns of a table with text, with names that instruments and toolkits use for
measurements of cells, or with values that cannot be counts, are annotation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellweft._typing import BoolArray
from cellweft.data.io.columns import OBS_KEYS, plain_name
from cellweft.data.io.lazy_input import Input

_GENE_TYPES = ("gene_expression", "gene", "genes", "rna", "mrna", "rna_expression", "expression")
_TYPE_COLUMNS = ("feature_types", "feature_type", "featuretype", "featuretypes", "modality")
"""Columns of ``var`` whose values are one of `_GENE_TYPES` for genes."""
_CLASS_COLUMN = re.compile(
    r"(code|codeword|probe|feature|gene|target|control|transcript)s?_?(class|type|category|kind|biotype)"
    r"(es|s)?|biotype|type"
)
"""Columns of ``var`` that may contain controls among many classes of genes (``_`` for any separator)."""
_CONTROL_CLASS = re.compile(
    r"neg|control|ctrl|blank|spike|codeword|background|false ?code|decoy|dummy|scramble|antibody"
    r"|non[-_ ]?targeting",
    re.IGNORECASE,
)
_CONTROL_FLAG = re.compile(
    r"(is_)?((neg(ative)?|positive|system|genomic)_?)?(control|ctrl|blank|probe_?control|spike(_?in)?"
    r"|neg_?(pro?be?|prb))(_(probe|gene|feature|codeword))?s?|(is_)?control_(probe|gene|feature|codeword)s?"
)
"""Columns of ``var`` that are true for controls (``_`` for any separator)."""
_GENE_FLAG = re.compile(r"(is_)?(real_)?gene|(is_)?endogenous")
"""Columns of ``var`` that are false for features that are not genes."""
_SAYS_SO = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}

_SEP = "[-_. ]?"
_CONTROL_NAMES = {
    "blank": rf"blank{_SEP}(codeword)?{_SEP}[a-z]?\d*[a-z]?({_SEP}\d+)*|(dummy|empty|decoy|ntc){_SEP}\d+"
    rf"|non?{_SEP}target(ing)?({_SEP}\d+)*|scrambled?({_SEP}\d+)*",
    "negative control": rf"neg(ative)?{_SEP}(control|ctrl|probe|prob|prb|add|codeword).*"
    rf"|negative{_SEP}\d*|neg{_SEP}\d+|antisense[-_.].*",
    "system control": rf"sys(tem)?{_SEP}(control|ctrl).*",
    "unassigned codeword": rf"unassigned{_SEP}codeword.*",
    "deprecated codeword": rf"deprecated{_SEP}codeword.*",
    "deprecated probe": r"deprecated[-_].+",
    "false code": rf"false{_SEP}code.*",
    "genomic control": rf"(genomic{_SEP}control|intergenic{_SEP}region).*",
    "control": rf"pos(itive)?{_SEP}(control|ctrl|prb|probe).*"
    rf"|control{_SEP}(probe|codeword|feature)?{_SEP}\d*",
    "spike-in": r"ercc[-_.]\d{5}|sirv\d+",
    "antibody": rf".+[-_.]totalseq{_SEP}[a-d]?|.+\(antibody[ _-]capture\)|.+[-_.](adt|prot|hto)"
    rf"|(adt|prot|hto|hashtag){_SEP}\d+|(adt|prot|hto|hashtag)[-_.: ].+|.+isotype.*",
    "reads without a gene": r"_*(no_feature|ambiguous|too_low_aqual|not_aligned|alignment_not_unique)"
    r"|_*n_(unmapped|multimapping|nofeature|ambiguous)|_*unmapped",
}
_CONTROL = {kind: re.compile(pattern, re.IGNORECASE) for kind, pattern in _CONTROL_NAMES.items()}

# Names that instruments and toolkits use for measurements of cells, with _ between words; no gene has one.
_CELL_COLUMN = re.compile(
    r"""
    unnamed_\d+ | level_0 | index_level_0
    | fov(_id|_name|_label)? | entityid | entity_id
    | (cell|spot|bin|object|region|sample|segment|mask)_?(id|label|name|index)
    | cells? | barcodes? | barcode_?(id|count) | cell_barcode
    | (cell|nucleus|nuclear|spot|segment|soma)_(area|volume|size|count|radius|perimeter|diameter
    |density)(_.+)?
    | nucleus_count | volume | area | area_(um2|px|mm2|pixels) | perimeter(_.+)? | perimeter_area_ratio
    | solidity
    | eccentricity | anisotropy | aspect_?ratio | circularity | elongation | width | height | radius
    | diameter
    | (min|max|mean|center|centre|centroid|centroids)_?[xyz](_.+)?
    | (center|centre|centroid)?_?[xyz]_(local|global|slide|fov|centroid|center|coord|coords|position|location
    |um|mm|px|pixel|pixels|microns)(_(px|mm|um|pixels|microns))?
    | (center|centre|centroid)[xyz]_(local|global)_(px|mm|um)
    | [xyz]_?(coord|coords|coordinate|coordinates) | (coord|coords|spatial|pos|position|loc)_?[xyz]
    | pxl_(col|row)_in_fullres | image(row|col) | array_(row|col) | in_tissue | z_level | bregma
    | \w+_(id|ids|cluster|score|scores|prob|probability|posterior|intensity) | qc_?flags?.* | flags?
    | ish_concentration | age | sex | tile | hyb | nuclei | n_?cells?
    | (mean|max|min|median|sum|std|total|integrated)_(\w*stains?(_.+)?
    |dapi|panck|cd\d+\w*|cd298.*|membrane|b2m|polyt|nuclear
    |histone.*|rrna|gfap|neun|he|ch\d+|channel.*|intensity.*|counts?|umis?|genes?)
    | (dapi|polyt|cellbound\d*|anti_?\w+)_(raw|high_pass) | dapi | hoechst(_\d+)? | draq5
    | \w+_(intensity|mean|median|sum|stdev|area|volume|perimeter|diameter|length|distance|quantile)(_\d+)?
    | (nearest|dist|distance|intensity|bbox|feret|moments|quantile|rna_quantile|median)_\w+
    | lifespan | num_detections | euler_number | (max|min)_cluster_frac | (avg|mean)_\w*confidence
    | transcript_?(count|counts|density)
    | (control|negative_control|genomic_control)_(probe|codeword|feature)?_?counts
    | (unassigned|deprecated)_codeword_counts
    | segmentation_method | dual_?files | unassigned_?transcripts | is_?complexity | complexity
    | n_?(counts?|umis?|genes?|features?|transcripts?|molecules|cells|reads)(_by_(counts|umis?))?
    | n(count|feature|counts|features|umi|gene|genes)_.+
    | (log1p|log10|log)_(total|n)_.+ | total_(counts?|umis?|transcripts|reads)(_.+)? | library_size
    | niches? | layers? | depth | angle | orientation | (is|has)_[a-z]+(_.+)?
    | n_(neigh(bou?rs?)?|nuclei|spots|beads|bins|probes|targets) | \w+_totals?
    | size_?factors? | (grand_)?totals? | sums? | means? | averages? | medians? | counts? | umis?
    | reads | transcripts
    | (pct|percent|perc|fraction)_(counts?|mt|mito|ribo|rb|hb|top|in|ercc)(_.+)? | percent_?mito
    | (doublet|scrublet|s|g2m)_scores? | predicted_doublets?
    | seurat_clusters? | leiden(_.+)? | louvain(_.+)? | clusters?(_?(id|label))? | \w+_snn_res(_.+)?
    | batch(_?id)? | region(_id)? | sections?(_?id)? | slices?(_?id)? | slides?(_?id)? | samples?
    | (donor|animal|mouse|patient|subject|puck|replicate|roi|core|library|dataset|experiment)(_?(id|name))?
    | tissue | run
    | (umap|x_umap|tsne|x_tsne|pca|pc|x_pca)_\d+
    """.replace("\n", ""),
    re.VERBOSE,
)

_FEWEST_NUMBERED = 10  # number of cells from which increasing numbers are cell numbers, not counts
_FEWEST_SHUFFLED = 50  # the same for numbers in any order
_LARGEST_COUNT = 2**31  # no gene has so many counts
FEWEST_SUMMED = 4  # number of columns or rows from which one may be the sum of the others
# Fraction of negative values up to which a column has wrong counts, which are refused later.
_FEW_NEGATIVE = 0.05
_MOST_LOOKED_AT = 5_000  # number of cells that are checked for fractions


def feature_kinds(names: Iterable[str], var: pd.DataFrame | None = None) -> NDArray[np.object_]:
    """Return the kind of each feature that is not a gene: control, antibody, peak, or annotation of cells.

    Parameters
    ----------
    names
        (n_features,) names of the features.
    var
        Annotation of the features, row by row, or None.

    Returns
    -------
    ndarray
        (n_features,) texts, empty for genes.

    Examples
    --------
    >>> feature_kinds(["Gad1", "Blank-3", "NegPrb7", "volume"]).tolist()
    ['', 'blank', 'negative control', 'annotation of cells']
    """
    texts = [str(name).strip() for name in names]
    kinds = np.array([_control_by_name(name) for name in texts], dtype=object)
    table = pd.DataFrame() if var is None else var.loc[:, ~var.columns.duplicated()]
    for name, column in table.items():
        said = _said_not_genes(plain_name(name), column)
        kinds = np.where((said != "") & (kinds == ""), said, kinds)
    is_text = np.array([bool(_CELL_COLUMN.fullmatch(plain_name(name))) for name in texts], dtype=bool)
    kinds[is_text & (kinds == "")] = "annotation of cells"
    return kinds


def _said_not_genes(name: str, column: pd.Series[Any]) -> NDArray[np.object_]:
    """Return the kinds of features that are not genes, from a column of ``var``; otherwise empty."""
    is_type = name in _TYPE_COLUMNS
    if (is_type or _CLASS_COLUMN.fullmatch(name)) and not pd.api.types.is_numeric_dtype(column):
        said = column.astype(object).fillna("").astype(str).str.strip()
        is_other = said.str.contains(_CONTROL_CLASS)
        is_gene = said.map(plain_name).isin(_GENE_TYPES)
        if is_type and is_gene.any():
            is_other = ~is_gene & (said != "")
        return np.where(is_other.to_numpy(dtype=bool), said.to_numpy(dtype=object), "")
    if not (_CONTROL_FLAG.fullmatch(name) or _GENE_FLAG.fullmatch(name)):
        return np.full(len(column), "", dtype=object)
    flags = column.astype(str).str.lower().str.removesuffix(".0").map(_SAYS_SO)
    if flags[column.notna()].isna().any() or not flags.notna().any():
        return np.full(len(column), "", dtype=object)
    is_gene_flag = _GENE_FLAG.fullmatch(name) is not None
    is_flagged = flags.eq(not is_gene_flag).to_numpy(dtype=bool)
    if is_flagged.all():  # the column describes something else, such as one kind of gene
        return np.full(len(column), "", dtype=object)
    return np.where(is_flagged, f"{name} is false" if is_gene_flag else "control", "").astype(object)


def only_genes(data: Input) -> Input:
    """Return an input with only its genes; ``left_out`` contains the names of other features, by kind.

    Parameters
    ----------
    data
        An opened input. It is returned unchanged if all of its features are genes, or none.
    """
    kinds = feature_kinds(data.var.index, data.var)
    is_gene = kinds == ""
    if is_gene.all() or not is_gene.any():
        return data
    names = data.var.index.astype(str).to_numpy()
    left_out = {str(kind): tuple(names[kinds == kind].tolist()) for kind in sorted({*kinds[~is_gene]})}
    places = np.flatnonzero(is_gene)
    return replace(
        data,
        var=data.var.iloc[places],
        columns=places if data.columns is None else data.columns[places],
        left_out={**data.left_out, **left_out},
    )


def is_cell_column(name: str) -> bool:
    """Return whether the name of a table's column is that of an annotation of cells.

    Examples
    --------
    >>> is_cell_column("cell_ID"), is_cell_column("Gad1")
    (True, False)
    """
    return bool(_CELL_COLUMN.fullmatch(plain_name(name)))


def annotation_columns(table: pd.DataFrame) -> tuple[BoolArray, list[str]]:
    """Return which columns of a table of cells are annotation, and which of them only by their values.

    Parameters
    ----------
    table
        A table with one row per cell.

    Returns
    -------
    is_annotation : ndarray
        (n_columns,) True for text, dates and booleans; for names of coordinates and other measurements of
        cells; and for values that cannot be counts: cell numbers, and measurements among whole counts.
    by_values
        Names of columns that are annotation only by their values, and of numbers stored as text or mixed with
        text, to be reported.

    Examples
    --------
    >>> cells = pd.DataFrame({"fov": [1, 1], "Gad1": [0, 3], "is_edge": [True, False], "min_x": [0.5, 8.0]})
    >>> annotation_columns(cells)[0].tolist()
    [True, False, True, True]
    """
    names = [str(name) for name in table.columns]
    lower = [name.lower() for name in names]
    pairs = (*OBS_KEYS, ("col", "row", ""), ("column", "row", ""), ("cols", "rows", ""))
    places = {name for triple in pairs if {*triple[:2]} <= {*lower} for name in triple}
    is_number = np.array([_is_number(kind) for kind in table.dtypes], dtype=bool)
    by_name = np.array(
        [
            lower_name in places or bool(_CELL_COLUMN.fullmatch(plain_name(lower_name)))
            for lower_name in lower
        ],
        dtype=bool,
    )
    is_odd = _not_counts(table, np.flatnonzero(is_number & ~by_name))
    is_odd |= _is_sum(table, np.flatnonzero(is_number & ~by_name & ~is_odd))
    is_said = is_odd | ~is_number & ~by_name & _numbers_as_text(table)
    return ~is_number | by_name | is_odd, [names[place] for place in np.flatnonzero(is_said)]


def _numbers_as_text(table: pd.DataFrame) -> BoolArray:
    """Return which columns, (n_columns,), are text that mostly contains numbers."""
    is_most = np.zeros(table.shape[1], dtype=bool)
    for place, kind in enumerate(table.dtypes):
        if _is_number(kind) or not pd.api.types.is_string_dtype(kind):
            continue
        texts: pd.Series[Any] = table.iloc[:, place].dropna()
        numbers = pd.to_numeric(texts, errors="coerce")
        is_most[place] = len(texts) > 0 and numbers.notna().mean() > 0.5
    return is_most


def _not_counts(table: pd.DataFrame, columns: NDArray[np.intp]) -> BoolArray:
    """Return which columns, (n_columns,), contain numbers that are not counts, unlike the other columns."""
    is_odd, is_measure, is_fractional = (np.zeros(table.shape[1], dtype=bool) for _ in range(3))
    for place in columns:
        values = table.iloc[:, place]
        if pd.api.types.is_float_dtype(values.dtype):  # infinite counts are refused later
            values = values.replace([np.inf, -np.inf], np.nan)
        least, most = values.min(), values.max()
        is_constant = least == most and most > 0 and len(values) >= _FEWEST_SHUFFLED
        if most >= _LARGEST_COUNT or is_constant or _numbers_cells(values):
            is_odd[place] = True
            continue
        filled = _some_filled(values) if pd.api.types.is_float_dtype(values.dtype) else np.empty(0)
        fractional = np.count_nonzero(filled != np.rint(filled))
        is_fractional[place] = fractional > 0
        is_measure[place] = fractional > 0.5 * len(filled) or (values < 0).mean() > _FEW_NEGATIVE
    # Measurements can only be recognised among whole counts, not among normalised or expected counts.
    if is_measure.sum() <= 0.2 * len(columns) and not (is_fractional & ~is_measure).any():
        is_odd |= is_measure
    return is_odd


def _is_sum(table: pd.DataFrame, columns: NDArray[np.intp]) -> BoolArray:
    """Return which columns, (n_columns,), are the sum of the others in each cell, as totals are."""
    is_sum = np.zeros(table.shape[1], dtype=bool)
    if len(columns) < FEWEST_SUMMED or len(table) < _FEWEST_NUMBERED:
        return is_sum
    values = table.iloc[:_MOST_LOOKED_AT, columns].to_numpy(dtype=np.float64, na_value=0)
    totals = values.sum(axis=1)
    equal = np.isclose(2 * values, totals[:, None]).all(axis=0) & (totals > 0).any()
    is_sum[columns[equal]] = True
    return is_sum


def _some_filled(values: pd.Series[Any]) -> NDArray[np.float64]:
    """Return the first values that are neither zero nor missing."""
    some = values.iloc[:_MOST_LOOKED_AT].to_numpy(dtype=np.float64, na_value=np.nan)
    return np.asarray(some[np.isfinite(some) & (some != 0)], dtype=np.float64)


def _numbers_cells(values: pd.Series[Any]) -> bool:
    """Return whether whole numbers increase from cell to cell, or are all different and close together."""
    n_cells = len(values)
    if n_cells < _FEWEST_NUMBERED or not values.iloc[:_FEWEST_NUMBERED].is_unique or values.hasnans:
        return False
    if pd.api.types.is_float_dtype(values.dtype) and bool((values % 1 != 0).any()):
        return False
    is_close = n_cells >= _FEWEST_SHUFFLED and values.max() - values.min() < 2 * n_cells
    return bool(values.is_monotonic_increasing and values.is_unique) or (is_close and values.is_unique)


def _is_number(kind: object) -> bool:
    return pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind)  # type: ignore[arg-type]


def _control_by_name(name: str) -> str:
    return next((kind for kind, pattern in _CONTROL.items() if pattern.fullmatch(name)), "")
