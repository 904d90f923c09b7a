"""Cautions about the values of both sides: scale, sizes, and properties that measured counts do not have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from cellweft._errors import Placeholder, arg
from cellweft._text import human_bytes, many
from cellweft._typing import StoredScale
from cellweft.data.io.backed_matrix import stored_by_gene
from cellweft.data.io.keys import NO_COUNTS
from cellweft.data.io.lazy_input import RAW
from cellweft.data.side import Side
from cellweft.data.summary import SCALES, brief
from cellweft.data.validation import CheckedSide, count_layer

_SAME_TOTALS = 0.05  # standard deviation over mean; that of measured cells is far larger
FEWEST_GENES = 20  # with this many genes, some are zero in each cell
_FEWEST_WHOLE = 100  # the same for whole numbers, as spots of many cells may have counts of all panel genes
_FEW_COUNTS = 50  # in a whole transcriptome; even shallow protocols have more
FEWEST_CELLS = 20  # number of cells whose totals are checked
_LARGEST_LOG, _LIKE_LOG = 25, 0.98  # limits for sizes that are logarithms: value, correlation
FEW_GENES = 2_000
"""A reference with fewer genes is a part of the transcriptome, and its totals are not cell sizes."""
_SIZE_COLUMNS = ("numi", "ncount", "n_counts", "total_counts", "n_umi", "total_umi", "library_size")
_TAKEN: dict[StoredScale, str] = {
    "raw": "used unchanged",
    "normalised": "log-transformed",
    "log": "used unchanged",
    "log2": "converted to natural logarithms",
    "log10": "converted to natural logarithms",
    "sqrt": "squared, then log-transformed",
    "arcsinh": "back-transformed, then log-transformed",
}


def value_cautions(sc: CheckedSide, st: CheckedSide) -> tuple[str, ...]:
    """Return cautions about the values of a reference and of a tissue."""
    return (
        *_scale_cautions(sc),
        *_scale_cautions(st),
        *_balance_cautions(sc, st),
        *_droplet_cautions(sc),
        *_size_cautions(sc),
        *_own_size_cautions(sc),
        *_own_size_cautions(st),
    )


def title_of(side: Side) -> str:
    """Return the name of a side at the start of a caution."""
    return "Reference" if side.name == "reference" else "Spatial"


def _scale_cautions(one: CheckedSide) -> Iterator[str]:
    side, scan, data, wish, title = one.side, one.scan, one.data, one.wish, title_of(one.side)
    stored, scale = side.judgement.scale, arg(wish.argument("scale"), Placeholder("SCALE"))
    if side.scale == "raw" and scan.n_fractional:
        share = _share(scan.n_fractional / max(scan.n_values, 1))
        said = (
            f"{title}: {scan.n_fractional:,} of the counts above zero ({share} of them) are not whole "
            "numbers, as after decontamination (SoupX) or for expected counts (RSEM, proseg). They are "
            "still used as raw counts."
        )
        other = (
            " If they were divided by a size factor, specify the scale: "
            + arg(wish.argument("scale"), "normalised")
            + "."
        )
        yield said + (other if wish.scale is None else "")
    if stored != "raw":
        layer = count_layer(data, wish)
        hint = ""
        if layer:
            hint = f" Layer {layer!r} may contain the raw counts: " + arg(wish.argument("layer"), layer) + "."
        if not layer and data.has_raw and wish.layer != RAW:
            hint = " The raw slot may contain the raw counts: " + arg(wish.argument("layer"), RAW) + "."
        if wish.scale is None:
            hint = " If this is wrong, specify the scale: " + scale + "." + hint
        treatment = _TAKEN.get(stored, "the counts are recovered from them")
        yield f"{title}: the values look like {SCALES[stored]}; {treatment}." + hint
    if side.judgement.others:
        most = "whole counts" if side.judgement.beside == "raw" else SCALES[side.judgement.beside]
        yield (
            f"{title}: many cells contain {most}, and others contain values that look like "
            f"{SCALES[side.judgement.others]}, as when datasets on different scales are combined. Convert "
            "all cells to counts first."
        )
    if not side.sparsity and side.n_genes >= (FEWEST_GENES if scan.n_fractional else _FEWEST_WHOLE):
        yield (
            f"{title}: no value is zero, as in smoothed, imputed or shifted data. Pass the measured "
            "counts instead."
        )
    kind = _kind_of(data.layers[wish.layer] if wish.layer else data.matrix)
    if kind is not None and kind.kind in "iu" and kind.itemsize < 4 and scan.largest == np.iinfo(kind).max:
        yield (
            f"{title}: the largest value is {scan.largest:,.0f}, and the type of the matrix ({kind}) "
            "cannot store more: larger counts may have been cut off. Store the counts again with a "
            "larger type."
        )
    yield from _guess_cautions(one)
    if side.has_sizes and side.scale == "log":
        size = arg(wish.argument("size_factor"), wish.size_factor)
        yield (
            f"{title}: the cell sizes ("
            + size
            + ") are ignored, because log-transformed values are used as they are."
        )
    if stored_by_gene(data.layers[wish.layer] if wish.layer else data.matrix):
        yield (
            f"{title}: the file stores its matrix by gene (CSC), so it was loaded into memory completely "
            f"({human_bytes(side.matrix.row_bytes * side.matrix.shape[0])}). Saved by cell (CSR), it "
            "could be read in blocks."
        )


def _guess_cautions(checked: CheckedSide) -> Iterator[str]:
    """Yield cautions about uncertain scales, and values that are not only counts."""
    judged, title = checked.side.judgement, title_of(checked.side)
    stored, scale = judged.scale, arg(checked.wish.argument("scale"), Placeholder("SCALE"))
    if not judged.is_sure:
        yield (
            f"{title}: the scale was guessed only from the size of the values, which is uncertain. If "
            f"they are not {SCALES[stored]}, specify the scale: "
            + scale
            + (
                ". They may have been smoothed, imputed, corrected or scaled. Pass the measured counts if "
                "you have them."
            )
        )
    if judged.sums:
        sums = " or ".join(map(brief, judged.sums))
        yield (
            f"{title}: the values of each cell sum to {sums}, which happens if datasets with different "
            "target sums are combined. "
            "Convert all cells to counts, or to a single target sum."
        )
    if not judged.has_ones:
        yield (
            f"{title}: no value is 1, although many are zero, as in rounded logarithms or multiplied "
            "counts. Pass the measured counts."
        )
    if not judged.are_multiples:
        yield (
            f"{title}: within a cell, the values are not multiples of the smallest value, as they would "
            "be for counts divided by a size factor. They may have been smoothed, imputed, corrected, "
            "rounded, or divided by gene lengths (TPM). Pass the measured counts if you have them."
        )


def _kind_of(values: Any) -> np.dtype[Any] | None:
    """Return the data type of a matrix, in memory or in a file."""
    stored = values["data"] if isinstance(values, Mapping) and "data" in values else values
    kind = getattr(stored, "dtype", None)
    return kind if isinstance(kind, np.dtype) else None


def _balance_cautions(sc: CheckedSide, st: CheckedSide) -> Iterator[str]:
    first, second = sc.side.scale, st.side.scale
    if first != second:
        yield (
            "The two inputs are on different scales (reference: "
            f"{SCALES[sc.side.judgement.scale]}; spatial: {SCALES[st.side.judgement.scale]}). Raw counts "
            "in both inputs work best."
        )
    totals = []
    for side in (sc, st):
        on_panel = side.scan.panel_totals
        totals.append(on_panel[on_panel > 0])
        bare = int(((on_panel == 0) & (side.scan.totals > 0)).sum())
        if bare:
            marked = f", marked in obs[{NO_COUNTS!r}] of the result" if side is st else ""
            yield f"{title_of(side.side)}: {many(bare, 'cell')} without counts in the shared genes{marked}."
        yield from _depth_cautions(side)
    if first == second == "raw" and all(map(len, totals)):
        medians = [float(np.median(on_panel)) for on_panel in totals]
        ratio = max(medians) / min(medians)
        if ratio >= 10:
            yield (
                f"In the shared genes a typical reference cell has {brief(medians[0])} counts and a typical "
                f"spatial cell {brief(medians[1])}, a {ratio:,.0f}-fold difference (one may contain reads "
                "rather than molecules). Each input is normalised by its own cell sizes."
            )


def _droplet_cautions(sc: CheckedSide) -> Iterator[str]:
    """Yield a caution if most cells of a whole transcriptome have as few counts as empty droplets."""
    n_few = int((sc.scan.totals < _FEW_COUNTS).sum())
    if sc.side.scale == "raw" and sc.side.n_genes >= FEW_GENES and n_few > 0.5 * sc.side.n_cells:
        yield (
            f"Reference: {n_few:,} of {sc.side.n_cells:,} cells have fewer than {_FEW_COUNTS} counts in "
            f"{sc.side.n_genes:,} genes, as empty droplets do. Use the filtered matrix "
            "(filtered_feature_bc_matrix), or remove these cells."
        )


def _share(value: float) -> str:
    return "all" if value > 0.995 else f"{value:.2g}"


def _depth_cautions(checked: CheckedSide) -> Iterator[str]:
    """Yield a caution if whole numbers look like ranks, or like detected or not."""
    scan, scale = checked.scan, checked.side.judgement.scale
    filled = scan.totals[scan.totals > 0]
    if scale != "raw" or len(filled) < FEWEST_CELLS:
        return
    if scan.gene_cells.sum() == filled.sum():
        yield (
            f"{title_of(checked.side)}: all values are 0 or 1, as if only detection was recorded. Counts "
            "contain more information."
        )
    elif filled.std() < _SAME_TOTALS * filled.mean():
        yield (
            f"{title_of(checked.side)}: every cell has {'about ' * bool(filled.std())}{filled.mean():,.0f} "
            "counts, as with ranks, cells downsampled to one total, or counts that were divided by a "
            "size factor and rounded. Measured counts work better."
        )


def _size_cautions(sc: CheckedSide) -> Iterator[str]:
    side = sc.side
    if side.scale != "raw" or side.has_sizes or side.n_genes >= FEW_GENES:
        return
    said = (
        f"Reference: there are only {side.n_genes:,} genes, and the size of a cell is its total count over "
        "these. If there is a "
    )
    said += "column of obs with whole-transcriptome totals, use it instead ("
    said += arg("size_factor") + ")."
    for name in side.table.columns:
        plain = name.lower().replace(".", "_")
        if not any(key in plain for key in _SIZE_COLUMNS):
            continue
        column = side.table[name]
        if pd.api.types.is_numeric_dtype(column) and bool((column.to_numpy() >= sc.scan.totals).all()):
            said += f" obs[{name!r}] looks like one: " + arg("size_factor", name) + "."
            break
    yield said


def _own_size_cautions(checked: CheckedSide) -> Iterator[str]:
    """Yield a caution if the given sizes of cells do not look like sizes."""
    column, sizes = checked.wish.size_factor, checked.side.totals
    is_filled = checked.scan.totals > 0
    if column is None or is_filled.sum() < FEWEST_CELLS:
        return
    said = f"{title_of(checked.side)}: obs[{column!r}], the cell sizes, "
    sizes, totals = sizes[is_filled], checked.scan.totals[is_filled]
    if not np.ptp(sizes):
        yield said + "is the same for all cells and has no effect."
    elif sizes.max() < _LARGEST_LOG and np.corrcoef(sizes, np.log(totals))[0, 1] > _LIKE_LOG:
        yield said + "looks like the logarithm of the total counts. Use the totals themselves."
