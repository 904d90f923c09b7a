"""What was found in two inputs: as plain values, as text that a biologist reads, and what should be known."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellweft._compute import TABLE_ROWS, row_blocks
from cellweft._errors import Message, Placeholder, arg
from cellweft._text import human_bytes, many, shorten
from cellweft._typing import DoubleArray, IntArray, StoredScale
from cellweft.data.gene_names import GeneMatch, are_numbers, spelling_free
from cellweft.data.io.backed_matrix import stored_by_gene
from cellweft.data.io.columns import OBSM_KEYS
from cellweft.data.io.keys import NO_COUNTS
from cellweft.data.io.lazy_input import RAW
from cellweft.data.io.lost_chunks import lost_regions, regions_text
from cellweft.data.io.obs_table import HeldTable, repeated
from cellweft.data.io.sanitize import changes_of
from cellweft.data.side import Side
from cellweft.data.spatial import FAR_WIDTHS, far_cells, place_hashes, tissue_column
from cellweft.data.validation import CheckedSide, count_layer

FEW_SHARED = 20
"""Below this many shared genes a caution is given."""
_DATE = re.compile(
    r"\d{1,2}-(Mar|Sep|Sept|Dec|Oct|Apr|Nov)|(Mar|Sep|Sept|Dec|Oct|Apr|Nov)-\d{1,2}", re.IGNORECASE
)
_FEWEST_CELLS = 20  # whose totals tell what kind of numbers these are
_MOST_UNSHARED = 0.5  # of a cell's values; measurements of cells among the genes hold far more
FEW_GENES = 2_000
"""A reference with fewer genes than this is a part of the transcriptome, and its totals are no cell sizes."""
_SIZE_COLUMNS = ("numi", "ncount", "n_counts", "total_counts", "n_umi", "total_umi", "library_size")
SCALES: dict[StoredScale, str] = {
    "raw": "raw counts",
    "normalised": "counts divided by a size (normalised), not logarithms",
    "log": "logarithms of normalised counts",
    "log2": "binary logarithms of normalised counts, log2(x + 1)",
    "log10": "decimal logarithms of normalised counts, log10(x + 1)",
    "sqrt": "square roots of normalised counts",
    "log_raw": "logarithms of counts, ln(count + 1)",
    "log2_raw": "binary logarithms of counts, log2(count + 1)",
    "log10_raw": "decimal logarithms of counts, log10(count + 1)",
    "sqrt_raw": "square roots of counts",
    "arcsinh": "inverse hyperbolic sines (arcsinh) of normalised counts",
    "arcsinh_raw": "inverse hyperbolic sines (arcsinh) of counts",
}
_TAKEN: dict[StoredScale, str] = {
    "raw": "taken as they are",
    "normalised": "only their logarithm is taken",
    "log": "taken as they are",
    "log2": "turned into natural logarithms",
    "log10": "turned into natural logarithms",
    "sqrt": "squared, and their logarithm is taken",
    "arcsinh": "undone, and their logarithm is taken",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckResults:
    """All that the checks found: the sides, reference first, and what holds of the tissue or of both.

    Attributes
    ----------
    partly, sc_partly
        Genes of the tissue that some slices did not measure, and these; genes of the reference without counts
        in some of its batches.
    batches_column
        The column that tells the batches of the reference.
    slices_guess
        The column that was guessed to tell slices apart, whether or not they were taken from it.
    """

    sides: tuple[CheckedSide, CheckedSide]
    match: GeneMatch
    partly: dict[str, list[str]]
    sc_partly: dict[str, list[str]]
    batches_column: str
    coordinates: DoubleArray | None
    coordinates_source: str
    slices: NDArray[np.str_] | None
    slices_column: str
    slices_guess: str
    spacing: float | None


def findings_of(evidence: CheckResults) -> dict[str, Any]:
    """Return what was found as plain values that JSON takes."""
    sc, st = evidence.sides
    match, places = evidence.match, evidence.coordinates
    return {
        "reference": side_findings(sc),
        "spatial": side_findings(st),
        "shared_genes": len(match.first),
        "genes_to_impute": sc.side.n_genes - len(match.first),
        "genes_only_spatial": _only_spatial(evidence),
        "genes_partly_measured": evidence.partly,
        "reference_genes_partly_measured": evidence.sc_partly,
        "genes_matched_by_case": len(match.by_case),
        "genes_matched_by_spelling": len(match.by_spelling),
        "genes_ambiguous": list(match.ambiguous),
        "gene_bridge": match.bridge,
        "coordinates": {
            "found": evidence.coordinates_source,
            "dimensions": 0 if places is None else int(places.shape[1]),
            "extent": [] if places is None else [float(one) for one in np.ptp(places, axis=0)],
            "spacing": evidence.spacing,
            "unit": _unit(evidence),
        },
        "slices": {"found": evidence.slices_column, "cells": _counted(evidence.slices)},
    }


def _unit(evidence: CheckResults) -> str:
    """Return the unit of the coordinates, which is known of the usual ones alone."""
    usual = evidence.coordinates_source == f"obsm[{OBSM_KEYS[0]!r}]"
    return evidence.sides[1].data.unit if usual else ""


def side_findings(checked: CheckedSide) -> dict[str, Any]:
    """Return what was found of one side, as plain values likewise."""
    side, wish = checked.side, checked.wish
    return {
        "source": side.source,
        "instrument": checked.data.instrument,
        "cells_left_out": list(checked.data.cells_left_out),
        "cells": side.n_cells,
        "genes": side.n_genes,
        "layer": wish.layer,
        "scale": side.scale,
        "stored_scale": side.judgement.scale,
        "scale_detected": wish.scale is None,
        "sparsity": round(float(side.sparsity), 4),
        "median_total": float(np.median(checked.scan.totals[~side.empty_cells])),
        "size_factor": wish.size_factor,
        "median_size": side.target,
        "empty_cells": int(side.empty_cells.sum()),
        "empty_genes": int(side.empty_genes.sum()),
        "duplicated_genes_left_out": checked.genes.n_left_out,
        "orthologs": checked.genes.orthologs,
        "genes_without_ortholog": checked.genes.n_without_ortholog,
        "features_left_out": {kind: list(names) for kind, names in checked.data.left_out.items()},
        "labels": checked.labels_column,
        "label_counts": _counted(checked.labels),
    }


def summary_text(findings: dict[str, Any], cautions: tuple[str, ...]) -> str:
    """Return the findings as text.

    Parameters
    ----------
    findings, cautions
        As `findings_of` and `cautions_of` return them.
    """
    place, slices = findings["coordinates"], findings["slices"]["cells"]
    lines = [*_side_lines("Reference", findings["reference"]), *_side_lines("Spatial", findings["spatial"])]
    if place["dimensions"]:
        size = " x ".join(f"{one:,.0f}" if one >= 100 else f"{one:.3g}" for one in place["extent"])
        unit = place["unit"]
        size += f" {unit}" if unit else " in the file's unit"
        lines.append(f"  coordinates   {place['dimensions']}-D, from {place['found']}, {size}")
        if place["spacing"] is not None:
            spacing = f"{place['spacing']:.4g}{' ' * bool(unit)}{unit}"
            lines.append(f"  spot spacing  {spacing}: median distance to the nearest neighbour")
    else:
        lines.append("  coordinates   none")
    from_where = ""
    if slices:
        from_where = f", from obs[{findings['slices']['found']!r}]: "
        from_where += ", ".join(f"{name} ({cells:,})" for name, cells in list(slices.items())[:6])
        from_where += f" and {len(slices) - 6} more" * (len(slices) > 6)
    lines.append(f"  slices        {len(slices) or 1}{from_where}")
    only = findings["genes_only_spatial"]
    lines += [
        "Together",
        f"  shared genes  {findings['shared_genes']:,} of the panel's {findings['spatial']['genes']:,}",
        f"  to impute     {many(findings['genes_to_impute'], 'gene')} that only the reference has",
    ]
    if only:
        lines.append(f"  not usable    {many(len(only), 'gene')} that only the spatial panel has")
    if findings["genes_partly_measured"]:
        lines.append(
            f"  in some only  {many(len(findings['genes_partly_measured']), 'gene')}, not of all slices"
        )
    if findings["gene_bridge"]:
        lines.append(f"  matched by    {findings['gene_bridge']}")
    lines.append("Cautions" if cautions else "No cautions.")
    return "\n".join([*lines, *(f"  - {one}" for one in cautions)])


def _side_lines(title: str, found: dict[str, Any]) -> list[str]:
    values = SCALES[found["stored_scale"]] + (f" (layer {found['layer']!r})" if found["layer"] else "")
    if found["scale"] == "raw":
        values += f", {found['median_total']:,.0f} in a typical cell"
    if not found["scale_detected"]:
        values += ", as you said"
    lines = [f"{title}: {found['source']}"]
    if found["instrument"]:
        lines.append(f"  read as       {found['instrument']}")
    for kind in ("cells", "genes"):
        empty = found[f"empty_{kind}"]
        lines.append(f"  {kind}         {found[kind]:,}" + f", {empty:,} of them empty" * bool(empty))
    lines += [f"  left out      {one}" for one in found["cells_left_out"]]
    if found["features_left_out"]:
        lines.append(f"  left out      {_kinds_left_out(found['features_left_out'])}")
    if found["orthologs"]:
        n_without = many(found["genes_without_ortholog"], "gene")
        told = f"{found['orthologs']}; {n_without} without a one-to-one ortholog left out"
        lines.append(f"  orthologs     {told}")
    lines += [f"  values        {values}; {found['sparsity']:.0%} are zero"]
    if found["size_factor"]:
        lines.append(
            f"  cell sizes    obs[{found['size_factor']!r}], {found['median_size']:,.4g} in a typical cell"
        )
    if found["labels"]:
        kinds = found["label_counts"]
        common = ", ".join(list(kinds)[:3])
        lines.append(f"  cell types    {len(kinds)}, from obs[{found['labels']!r}]; most: {common}")
    else:
        lines.append("  cell types    none found")
    return lines


def _kinds_left_out(left_out: dict[str, list[str]]) -> str:
    """Return features that are no genes as text: how many, of which kinds, and the first names."""
    kinds = [f"{kind} ({len(names):,}: {shorten(names, most=2)})" for kind, names in left_out.items()]
    return f"{many(sum(map(len, left_out.values())), 'feature')} not counted as genes: {', '.join(kinds)}"


def _counted(values: NDArray[np.str_] | None) -> dict[str, int]:
    """Return how many cells each value has, the most frequent first."""
    if values is None:
        return {}
    codes, names = pd.factorize(values)
    counted = zip(map(str, names), np.bincount(codes, minlength=len(names)).tolist(), strict=True)
    return dict(sorted(counted, key=lambda one: (-one[1], one[0])))


def cautions_of(evidence: CheckResults) -> tuple[str, ...]:
    """Return what is no error but should be known, the most important first."""
    sc, st = evidence.sides
    return (
        *_gene_cautions(evidence),
        *_measured_cautions(evidence),
        *_lost_cautions(sc),
        *_lost_cautions(st),
        *_scale_cautions(sc),
        *_scale_cautions(st),
        *_balance_cautions(sc, st),
        *_size_cautions(sc),
        *_empty_cautions(sc.side),
        *_empty_cautions(st.side),
        *_place_cautions(evidence),
        *_annotation_cautions(sc),
        *_annotation_cautions(st),
    )


def _gene_cautions(evidence: CheckResults) -> Iterator[str]:
    match = evidence.match
    if len(match.first) < FEW_SHARED:
        yield (
            f"Only {len(match.first)} genes are shared: cells can hardly be matched by so few, so trust the "
            "imputed genes only as far as the test on held-out genes supports them."
        )
    only = _only_spatial(evidence)
    if only:
        verb = "is" if len(only) == 1 else "are"
        yield (
            f"{many(len(only), 'gene')} of the spatial panel {verb} not in the reference and cannot be used: "
            f"{shorten(only, most=10)}."
        )
    dates = [name for name in only if _DATE.fullmatch(name)]
    if dates:
        yield (
            f"Spatial: {shorten(dates)} may be genes whose names a spreadsheet took for dates, such as "
            "Marchf1 and Septin2: write their names."
        )
    scan = evidence.sides[1].scan
    is_filled = scan.totals > 0
    share = 1 - float(np.median(scan.panel_totals[is_filled] / scan.totals[is_filled]))
    if only and share > _MOST_UNSHARED:
        yield (
            f"Spatial: columns that the reference does not have hold {share:.0%} of a typical cell's values; "
            "see whether all of them are genes."
        )
    if match.by_case:
        pairs = [f"{one}/{two}" for one, two in match.by_case]
        yield (
            f"{many(len(pairs), 'gene')} matched only when upper and lower case are ignored "
            f"({shorten(pairs, most=3)}): " + _about_species(evidence) + "."
        )
    if match.by_spelling:
        pairs = [f"{one}/{two}" for one, two in match.by_spelling]
        yield (
            f"{many(len(pairs), 'gene')} matched only as other spellings of a name "
            f"({shorten(pairs, most=3)}): check that they are the same genes."
        )
    if all(
        are_numbers(one.genes.names[places])
        for one, places in zip(evidence.sides, (match.first, match.second), strict=True)
    ):
        yield "The names that match are whole numbers: they are taken as Entrez gene IDs."
    if match.ambiguous:
        yield (
            f"{many(len(match.ambiguous), 'gene')} left out because several genes have this name, or names "
            f"that differ from it in case or spelling alone: {shorten(list(match.ambiguous))}."
        )
    yield from _twin_cautions(evidence)
    for one in evidence.sides:
        notes = [*one.data.notes, *filter(None, [one.genes.note])]
        yield from (f"{_title(one.side)}: {note}" for note in notes)
        if one.genes.n_left_out:
            yield (
                f"{_title(one.side)}: {many(one.genes.n_left_out, 'column')} left out because an earlier one "
                "has the same gene name."
            )


def _about_species(evidence: CheckResults) -> Message:
    """Say what genes that match by case alone ask for."""
    if evidence.sides[0].genes.orthologs:
        return "both sides seem to be of one species; if they are, leave out " + arg("orthologs")
    same = "make sure both sides are of the same species, or name orthologs: "
    return same + arg("orthologs", "human:mouse")


def _twin_cautions(evidence: CheckResults) -> Iterator[str]:
    """Say which genes of the panel may be another one's copy: by their values on both sides, or by name."""
    match = evidence.match
    names = evidence.sides[0].genes.names[match.first]
    same = [shorten([str(names[place]) for place in group], most=3) for group in _same_values(evidence)]
    if same:
        yield (
            f"Shared genes that have the same values in every cell of both sides: {'; '.join(same[:3])}"
            + f" and {len(same) - 3} more groups" * (len(same) > 3)
            + ". If they are one gene, keep one of them; else held-out genes are predicted from their copies."
        )
    for one, shared in zip(evidence.sides, (match.first, match.second), strict=True):
        folded = pd.Index(one.genes.names).str.lower()
        twice = folded.duplicated(keep=False) & folded.isin(folded[shared])
        if twice.any():
            twins = pd.Series(one.genes.names[twice]).groupby(folded[twice], sort=True)
            said = ["/".join(group) for _, group in twins]
            yield (
                f"{_title(one.side)}: names of genes differ in case alone ({shorten(said, most=3)}): they "
                "are taken as different genes; keep one of them if they are one gene."
            )


def _same_values(evidence: CheckResults) -> Iterator[IntArray]:
    """Yield positions among the shared genes of those that have the same values on both sides."""
    match, (sc, st) = evidence.match, evidence.sides
    order = np.arange(len(match.first))
    groups = np.zeros(len(order), dtype=np.int64)
    for one, shared in ((sc, match.first), (st, match.second)):
        marks = one.scan.projections[one.genes.places[shared]]
        order = np.lexsort((marks, groups))
        apart = np.diff(groups[order]) != 0
        apart |= ~np.isclose(marks[order][1:], marks[order][:-1], rtol=1e-9, atol=0)
        groups[order] = np.concatenate([[0], np.cumsum(apart)])
        groups[marks == 0] = -1 - np.flatnonzero(marks == 0)  # a gene without counts is nobody's copy
    numbers, sizes = np.unique(groups, return_counts=True)
    for number in numbers[sizes > 1]:
        yield np.flatnonzero(groups == number)


def _measured_cautions(evidence: CheckResults) -> Iterator[str]:
    sc, st = (one.side for one in evidence.sides)
    is_beyond = ~sc.empty_genes
    is_beyond[evidence.match.first] = False
    if not is_beyond.any():
        yield (
            f"Reference: it has no gene{' with counts' * (sc.n_genes > len(evidence.match.first))} beyond "
            "the panel, so that there is nothing to impute: imputing would only smooth what was measured. "
            "Take a reference with all of its genes."
        )
    if evidence.partly:
        yield (
            f"Spatial: {many(len(evidence.partly), 'gene')} without values in all of a slice "
            f"({_some_genes(evidence.partly)}): taken as not measured there, as where panels were joined. "
            "Neither panel nor totals of cells use them, in any slice; those that the reference has are "
            "imputed in all cells. To use them where they were measured, impute each slice by itself."
        )
    if evidence.sc_partly:
        yield (
            f"Reference: {many(len(evidence.sc_partly), 'gene')} without counts in all of one "
            f"obs[{evidence.batches_column!r}] ({_some_genes(evidence.sc_partly)}), though others have them. "
            "Where these were not measured there, as where tables of different genes were joined, they are "
            "imputed too low: leave out these genes, or these cells. They may be genes of one sex or of "
            "types of cells that are not there: then all is well."
        )
    n_outside = len(st.table) - st.n_cells
    if n_outside:
        yield (
            f"Spatial: {many(n_outside, 'spot')} of the background (obs[{tissue_column(st.table)!r}] is 0) "
            "left out; to keep them, take that column away."
        )


def _some_genes(partly: dict[str, list[str]]) -> str:
    """Return the first genes that some slices or batches did not measure, with these, as text."""
    some = [
        f"{gene!r} in {', '.join(map(repr, slices[:3]))}" + ", ..." * (len(slices) > 3)
        for gene, slices in list(partly.items())[:5]
    ]
    return "; ".join(some) + (f", and {len(partly) - 5} more" if len(partly) > 5 else "")


def _lost_cautions(one: CheckedSide) -> Iterator[str]:
    layer = one.wish.layer
    regions = lost_regions(one.data.layers[layer] if layer else one.data.matrix, where=one.data.where)
    if regions:
        said = regions_text(regions, one.data.var.index.to_numpy())
        yield (
            f"{_title(one.side)}: {many(len(regions), 'chunk')} of the matrix missing, read as zeros: "
            f"{said}. zarr leaves out chunks of zeros; if counts belong there, copy the store again."
        )


def _scale_cautions(one: CheckedSide) -> Iterator[str]:
    side, scan, data, wish, title = one.side, one.scan, one.data, one.wish, _title(one.side)
    stored, scale = side.judgement.scale, arg(wish.argument("scale"), Placeholder("SCALE"))
    if side.scale == "raw" and scan.n_fractional:
        share = scan.n_fractional / max(scan.n_values, 1)
        said = (
            f"{title}: {scan.n_fractional:,} of the counts above zero ({share:.2g} of them) are not whole "
            "numbers, as after decontamination (SoupX) or where counts are expected ones (RSEM, proseg); the "
            "values are taken as raw counts all the same."
        )
        other = " If they were divided by a size, say so: " + arg(wish.argument("scale"), "normalised") + "."
        yield said + (other if wish.scale is None else "")
    if stored != "raw":
        layer = count_layer(data, wish)
        hint = ""
        if layer:
            hint = f" Layer {layer!r} may hold the raw counts: " + arg(wish.argument("layer"), layer) + "."
        if not layer and data.has_raw and wish.layer != RAW:
            hint = " The raw slot may hold the raw counts: " + arg(wish.argument("layer"), RAW) + "."
        if wish.scale is None:
            hint = " If they are something else, say what: " + scale + "." + hint
        taken = _TAKEN.get(stored, "the counts are taken from them")
        yield f"{title}: the values look like {SCALES[stored]}; {taken}." + hint
    if not side.judgement.is_sure:
        yield (
            f"{title}: what the values are was guessed from their size alone, which tells little. If they "
            f"are not {SCALES[stored]}, say what they are: " + scale + "."
        )
    if side.has_sizes and side.scale == "log":
        size = arg(wish.argument("size_factor"), wish.size_factor)
        yield f"{title}: the sizes of cells are not used, as logarithms are taken as they are: " + size + "."
    if stored_by_gene(data.layers[wish.layer] if wish.layer else data.matrix):
        yield (
            f"{title}: the file stores its matrix by gene (CSC), so it was loaded into memory whole "
            f"({human_bytes(side.matrix.row_bytes * side.matrix.shape[0])}); saved by cell (CSR), it could "
            "be read in blocks."
        )


def _balance_cautions(sc: CheckedSide, st: CheckedSide) -> Iterator[str]:
    first, second = sc.side.scale, st.side.scale
    if first != second:
        yield (
            "The two sides are on different scales (reference: "
            f"{SCALES[sc.side.judgement.scale]}; spatial: {SCALES[st.side.judgement.scale]}); "
            "raw counts on both sides compare best."
        )
    totals = []
    for one in (sc, st):
        on_panel = one.scan.panel_totals
        totals.append(on_panel[on_panel > 0])
        bare = int(((on_panel == 0) & (one.scan.totals > 0)).sum())
        if bare:
            marked = f", marked in obs[{NO_COUNTS!r}] of the result" if one is st else ""
            yield f"{_title(one.side)}: {many(bare, 'cell')} without counts in the shared genes{marked}."
        yield from _depth_cautions(one)
    if first == second == "raw" and all(map(len, totals)):
        medians = [float(np.median(one)) for one in totals]
        ratio = max(medians) / min(medians)
        if ratio >= 10:
            yield (
                f"In the shared genes a typical reference cell has {medians[0]:,.0f} counts and a typical "
                f"spatial cell {medians[1]:,.0f}, {ratio:,.0f} times apart (reads rather than molecules, "
                "perhaps); each side is normalised by its own cell sizes."
            )


def _annotation_cautions(one: CheckedSide) -> Iterator[str]:
    table = one.data.obs
    changes = changes_of(table.columns, table.table if isinstance(table, HeldTable) else None)
    if changes:
        yield (
            f"{_title(one.side)}: {many(len(changes), 'column')} of obs cannot be written as they are: "
            f"{shorten(changes)}."
        )


def _depth_cautions(one: CheckedSide) -> Iterator[str]:
    """Say whether whole numbers look like ranks, or like what is only detected or not."""
    scan, scale = one.scan, one.side.judgement.scale
    filled = scan.totals[scan.totals > 0]
    if scale != "raw" or len(filled) < _FEWEST_CELLS:
        return
    if scan.gene_cells.sum() == filled.sum():
        yield (
            f"{_title(one.side)}: all values are 0 or 1, as where it was only noted whether a gene was "
            "detected; counts tell more."
        )
    elif filled.min() == filled.max():
        yield (
            f"{_title(one.side)}: every cell has {filled[0]:,.0f} counts, as ranks have, or cells that were "
            "all drawn down to one total; counts as they were measured are better."
        )


def _size_cautions(sc: CheckedSide) -> Iterator[str]:
    side = sc.side
    if side.scale != "raw" or side.has_sizes or side.n_genes >= FEW_GENES:
        return
    said = f"Reference: it holds only {side.n_genes:,} genes, so that a cell's size is its sum over these; a "
    said += "column of obs with whole-transcriptome totals, if there is one, is the better size ("
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


def _empty_cautions(side: Side) -> Iterator[str]:
    n_cells = int(side.empty_cells.sum())
    if n_cells:
        verb, them = ("has", "it is") if n_cells == 1 else ("have", "they are")
        kept = "kept, as zeros"
        if side.name == "spatial":
            kept = f"imputed as an average cell is, and marked in obs[{NO_COUNTS!r}] of the result"
        yield f"{_title(side)}: {many(n_cells, 'cell')} {verb} no counts at all; {them} {kept}."
    empty = [str(name) for name in side.genes[side.empty_genes]]
    if empty:
        verb = "has" if len(empty) == 1 else "have"
        yield f"{_title(side)}: {many(len(empty), 'gene')} {verb} no counts in any cell: {shorten(empty)}."


def _place_cautions(evidence: CheckResults) -> Iterator[str]:
    if evidence.coordinates is None:
        yield "No coordinates, as asked: nothing that needs the place of a cell can be computed."
        return
    guess = evidence.slices_guess
    if guess and guess == evidence.slices_column:
        names = list(_counted(evidence.slices))
        yield (
            f"Spatial: obs[{guess!r}] tells {len(names)} sections apart that lie in one frame "
            f"({shorten(names, most=3)}); they are taken as slices. For one slice: "
            + arg("slices", "none")
            + "."
        )
    elif guess:
        yield (
            f"Spatial: obs[{guess!r}] may tell sections apart; if it does, name it: "
            + arg("slices", guess)
            + "."
        )
    same = _at_one_place(evidence.coordinates, evidence.slices)
    if same:
        hint: str = "; if they are of several slices, name the column: " + arg("slices")
        hint = hint if evidence.slices is None else ""
        yield f"Spatial: {many(same, 'cell')} at the very same place as another" + hint + "."
    if (np.ptp(evidence.coordinates, axis=0) > 0).sum() == 1 and len(evidence.coordinates) > 2:
        yield "Spatial: all cells lie on one line; see whether these are the coordinates."
    far = far_cells(evidence.coordinates, evidence.slices)
    if len(far):
        place = ", ".join(f"{one:g}" for one in evidence.coordinates[far[0]])
        yield (
            f"Spatial: {many(len(far), 'cell')} far from all others, the first at row {far[0]:,} ({place}), "
            f"by more than {FAR_WIDTHS} times the width of the tissue; see whether the coordinates are "
            "placeholders or in another unit, and correct them or drop the cells."
        )


def _at_one_place(coordinates: DoubleArray, slices: NDArray[np.str_] | None) -> int:
    """Return how many cells lie where an earlier one of the same slice does."""
    codes = None if slices is None else pd.factorize(slices)[0]

    def hashes() -> Iterator[NDArray[np.uint64]]:
        for rows in row_blocks(len(coordinates), TABLE_ROWS):
            yield place_hashes(coordinates[rows], None if codes is None else codes[rows])

    suspects = repeated(hashes, len(coordinates))
    table = pd.DataFrame(coordinates[suspects] + 0.0)  # which makes one of both zeros
    if codes is not None:
        table["slice"] = codes[suspects]
    return int(table.duplicated().sum())


def _only_spatial(evidence: CheckResults) -> list[str]:
    """Return the genes of the tissue that the reference does not have."""
    names = np.delete(evidence.sides[1].side.genes, evidence.match.second)
    ambiguous = {spelling_free(name) for name in evidence.match.ambiguous}
    return [
        str(name)
        for name in names
        if str(name) not in evidence.partly and spelling_free(str(name)) not in ambiguous
    ]


def _title(side: Side) -> str:
    return "Reference" if side.name == "reference" else "Spatial"
