"""What was found in two inputs: as plain values, as text that a biologist reads, and what should be known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellweft._compute import TABLE_ROWS, row_blocks
from cellweft._errors import arg
from cellweft._text import human_bytes, many, shorten
from cellweft._typing import DoubleArray, IntArray
from cellweft.data.gene_names import GeneMatch
from cellweft.data.io.backed_matrix import stored_by_gene
from cellweft.data.io.lost_chunks import lost_regions, regions_text
from cellweft.data.io.obs_table import repeated
from cellweft.data.side import Side
from cellweft.data.spatial import place_hashes
from cellweft.data.validation import CheckedSide, count_layer

FEW_SHARED = 20
"""Below this many shared genes a caution is given."""
FEW_GENES = 2_000
"""A reference with fewer genes than this is a part of the transcriptome, and its totals are no cell sizes."""
_SIZE_COLUMNS = ("numi", "ncount", "n_counts", "total_counts", "n_umi", "total_umi", "library_size")
SCALES = {
    "raw": "raw counts",
    "normalised": "counts divided by a size (normalised), not logarithms",
    "log": "logarithms of normalised counts",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckResults:
    """All that the checks found: the sides, reference first, and what holds of the tissue or of both."""

    sides: tuple[CheckedSide, CheckedSide]
    match: GeneMatch
    coordinates: DoubleArray | None
    coordinates_source: str
    slices: NDArray[np.str_] | None
    slices_column: str
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
        "genes_only_spatial": only_here(st.side.genes, match.second),
        "genes_matched_by_case": len(match.by_case),
        "genes_ambiguous": list(match.ambiguous),
        "gene_bridge": match.bridge,
        "coordinates": {
            "found": evidence.coordinates_source,
            "dimensions": 0 if places is None else int(places.shape[1]),
            "extent": [] if places is None else [float(one) for one in np.ptp(places, axis=0)],
            "spacing": evidence.spacing,
        },
        "slices": {"found": evidence.slices_column, "cells": _counted(evidence.slices)},
    }


def side_findings(checked: CheckedSide) -> dict[str, Any]:
    """Return what was found of one side, as plain values likewise."""
    side, wish = checked.side, checked.wish
    return {
        "source": side.source,
        "cells": side.n_cells,
        "genes": side.n_genes,
        "layer": wish.layer,
        "scale": side.scale,
        "scale_detected": wish.scale is None,
        "sparsity": round(float(side.sparsity), 4),
        "median_total": float(np.median(checked.scan.totals[~side.empty_cells])),
        "size_factor": wish.size_factor,
        "median_size": side.target,
        "empty_cells": int(side.empty_cells.sum()),
        "empty_genes": int(side.empty_genes.sum()),
        "duplicated_genes_left_out": checked.genes.n_left_out,
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
        lines.append(
            f"  coordinates   {place['dimensions']}-D, from {place['found']}, {size} in the file's unit"
        )
        if place["spacing"] is not None:
            lines.append(f"  spot spacing  {place['spacing']:.4g}: median distance to the nearest neighbour")
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
    if findings["gene_bridge"]:
        lines.append(f"  matched by    {findings['gene_bridge']}")
    lines.append("Cautions" if cautions else "No cautions.")
    return "\n".join([*lines, *(f"  - {one}" for one in cautions)])


def _side_lines(title: str, found: dict[str, Any]) -> list[str]:
    values = SCALES[found["scale"]] + (f" (layer {found['layer']!r})" if found["layer"] else "")
    if found["scale"] == "raw":
        values += f", {found['median_total']:,.0f} in a typical cell"
    if not found["scale_detected"]:
        values += ", as you said"
    lines = [f"{title}: {found['source']}"]
    for kind in ("cells", "genes"):
        empty = found[f"empty_{kind}"]
        lines.append(f"  {kind}         {found[kind]:,}" + f", {empty:,} of them empty" * bool(empty))
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
        *_lost_cautions(sc),
        *_lost_cautions(st),
        *_scale_cautions(sc),
        *_scale_cautions(st),
        *_balance_cautions(sc, st),
        *_size_cautions(sc),
        *_empty_cautions(sc.side),
        *_empty_cautions(st.side),
        *_place_cautions(evidence),
    )


def _gene_cautions(evidence: CheckResults) -> Iterator[str]:
    match = evidence.match
    if len(match.first) < FEW_SHARED:
        yield (
            f"Only {len(match.first)} genes are shared: cells can hardly be matched by so few, so trust the "
            "imputed genes only as far as the test on held-out genes supports them."
        )
    only = only_here(evidence.sides[1].genes.names, match.second)
    if only:
        verb = "is" if len(only) == 1 else "are"
        yield (
            f"{many(len(only), 'gene')} of the spatial panel {verb} not in the reference and cannot be used: "
            f"{shorten(only, most=10)}."
        )
    if match.by_case:
        pairs = [f"{one}/{two}" for one, two in match.by_case]
        yield (
            f"{many(len(pairs), 'gene')} matched only when upper and lower case are ignored "
            f"({shorten(pairs, most=3)}): make sure both sides are of the same species."
        )
    if match.ambiguous:
        yield (
            f"{many(len(match.ambiguous), 'gene')} left out because several names differ from them "
            f"in case alone: {shorten(list(match.ambiguous))}."
        )
    for one in evidence.sides:
        if one.genes.n_left_out:
            yield (
                f"{_title(one.side)}: {many(one.genes.n_left_out, 'column')} left out because an earlier one "
                "has the same gene name."
            )


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
    if side.scale == "raw" and scan.n_fractional:
        share = scan.n_fractional / max(scan.n_values, 1)
        yield (
            f"{title}: {scan.n_fractional:,} of the counts above zero ({share:.2g} of them) are not "
            "whole numbers; the values are taken as raw counts all the same."
        )
    if side.scale != "raw":
        taken = "taken as they are" if side.scale == "log" else "only their logarithm is taken"
        layer = count_layer(data, wish)
        hint = ""
        if layer:
            hint = f" Layer {layer!r} may hold the raw counts: " + arg(wish.argument("layer"), layer) + "."
        if not layer and data.has_raw:
            hint = " There is a raw slot too, which is not used; adata.raw.to_adata() turns it into an input."
        yield f"{title}: the values look like {SCALES[side.scale]}; {taken}." + hint
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
            f"The two sides are on different scales (reference: {SCALES[first]}; spatial: {SCALES[second]}); "
            "raw counts on both sides compare best."
        )
    totals = []
    for one in (sc, st):
        on_panel = one.scan.panel_totals
        totals.append(on_panel[on_panel > 0])
        bare = int(((on_panel == 0) & (one.scan.totals > 0)).sum())
        if bare:
            yield f"{_title(one.side)}: {many(bare, 'cell')} without counts in the shared genes."
    if first == second == "raw" and all(map(len, totals)):
        medians = [float(np.median(one)) for one in totals]
        ratio = max(medians) / min(medians)
        if ratio >= 10:
            yield (
                f"In the shared genes a typical reference cell has {medians[0]:,.0f} counts and a typical "
                f"spatial cell {medians[1]:,.0f}, {ratio:,.0f} times apart (reads rather than molecules, "
                "perhaps); each side is normalised by its own cell sizes."
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
        yield f"{_title(side)}: {many(n_cells, 'cell')} {verb} no counts at all; {them} kept, as zeros."
    empty = [str(name) for name in side.genes[side.empty_genes]]
    if empty:
        verb = "has" if len(empty) == 1 else "have"
        yield f"{_title(side)}: {many(len(empty), 'gene')} {verb} no counts in any cell: {shorten(empty)}."


def _place_cautions(evidence: CheckResults) -> Iterator[str]:
    if evidence.coordinates is None:
        yield "No coordinates, as asked: nothing that needs the place of a cell can be computed."
        return
    same = _at_one_place(evidence.coordinates, evidence.slices)
    if same:
        hint: str = "; if they are of several slices, name the column: " + arg("slices")
        hint = hint if evidence.slices is None else ""
        yield f"Spatial: {many(same, 'cell')} at the very same place as another" + hint + "."


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


def only_here(genes: NDArray[np.str_], matched: IntArray) -> list[str]:
    """Return the genes that are not among the matched positions."""
    return [str(name) for name in np.delete(genes, matched)]


def _title(side: Side) -> str:
    return "Reference" if side.name == "reference" else "Spatial"
