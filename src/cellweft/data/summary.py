"""The summary of two inputs, as plain values and as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellweft._text import many, shorten
from cellweft._typing import DoubleArray, StoredScale
from cellweft.data.gene_names import GeneMatch, spelling_free
from cellweft.data.io.columns import OBSM_KEYS
from cellweft.data.side import ReferenceBatches
from cellweft.data.validation import CheckedSide

SCALES: dict[StoredScale, str] = {
    "raw": "raw counts",
    "normalised": "counts divided by a size factor (normalised), not log-transformed",
    "log": "log-transformed normalised counts, ln(x + 1)",
    "log2": "log2-transformed normalised counts, log2(x + 1)",
    "log10": "log10-transformed normalised counts, log10(x + 1)",
    "sqrt": "square roots of normalised counts",
    "log_raw": "log-transformed counts, ln(count + 1)",
    "log2_raw": "log2-transformed counts, log2(count + 1)",
    "log10_raw": "log10-transformed counts, log10(count + 1)",
    "sqrt_raw": "square roots of counts",
    "arcsinh": "inverse hyperbolic sines (arcsinh) of normalised counts",
    "arcsinh_raw": "inverse hyperbolic sines (arcsinh) of counts",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckResults:
    """Results of all checks: both sides, reference first, and properties of the tissue or of both.

    Attributes
    ----------
    partly, sc_partly
        Genes that some slices did not measure, with these slices; genes of the reference without counts in
        some batches, with these batches.
    batches_column
        The column with the batches of the reference.
    slices_guess
        The column that may contain slices, whether or not it was used.
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
    """Return the findings as plain values that JSON can store."""
    sc, st = evidence.sides
    match, places = evidence.match, evidence.coordinates
    return {
        "reference": side_findings(sc),
        "spatial": side_findings(st),
        "shared_genes": len(match.first),
        "genes_to_impute": sc.side.n_genes - len(match.first),
        "genes_only_spatial": only_spatial(evidence),
        "genes_partly_measured": evidence.partly,
        "reference_genes_partly_measured": evidence.sc_partly,
        "genes_matched_by_case": len(match.by_case),
        "genes_matched_by_spelling": len(match.by_spelling),
        "genes_ambiguous": list(match.ambiguous),
        "gene_bridge": match.bridge,
        "coordinates": {
            "found": evidence.coordinates_source,
            "dimensions": 0 if places is None else int(places.shape[1]),
            "extent": [] if places is None else [float(length) for length in np.ptp(places, axis=0)],
            "spacing": evidence.spacing,
            "unit": _unit(evidence),
        },
        "slices": {"found": evidence.slices_column, "cells": counted(evidence.slices)},
    }


def _unit(evidence: CheckResults) -> str:
    """Return the unit of the coordinates, which is only known for the default coordinates."""
    usual = evidence.coordinates_source == f"obsm[{OBSM_KEYS[0]!r}]"
    return evidence.sides[1].data.unit if usual else ""


def side_findings(checked: CheckedSide) -> dict[str, Any]:
    """Return the findings of one side, as plain values."""
    side, wish, batches = checked.side, checked.wish, checked.side.batches
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
        "label_counts": counted(checked.labels),
        "batch": "" if batches is None else batches.column,
        "batch_counts": {} if batches is None else counted(batches.of_each_cell()),
        "batch_difference": None if batches is None else batch_difference(batches),
    }


def batch_difference(batches: ReferenceBatches) -> float:
    """Return the typical fold difference in detection between a batch and the largest batch, at least 1.

    It is the median over all compared genes and batches.
    """
    changed = batches.levels[batches.compared]
    sizes = np.abs(np.log(changed[changed != 1]))
    return round(float(np.exp(np.median(sizes))), 3) if sizes.size else 1.0


def summary_text(findings: dict[str, Any], cautions: tuple[str, ...]) -> str:
    """Return the findings as text.

    Parameters
    ----------
    findings, cautions
        Results of `findings_of` and `cautions_of`.
    """
    place, slices = findings["coordinates"], findings["slices"]["cells"]
    lines = [*_side_lines("Reference", findings["reference"]), *_side_lines("Spatial", findings["spatial"])]
    if place["dimensions"]:
        size = " x ".join(
            f"{length:,.0f}" if length >= 100 else f"{length:.3g}" for length in place["extent"]
        )
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
        partly = many(len(findings["genes_partly_measured"]), "gene")
        lines.append(f"  in some only  {partly}, not measured in all slices")
    if findings["gene_bridge"]:
        lines.append(f"  matched by    {findings['gene_bridge']}")
    lines.append("Cautions" if cautions else "No cautions.")
    return "\n".join([*lines, *(f"  - {caution}" for caution in cautions)])


def brief(value: float) -> str:
    """Return a number as text: rounded to an integer from 10 on, otherwise to two digits.

    Examples
    --------
    >>> brief(1234.5), brief(0.1234)
    ('1,234', '0.12')
    """
    return f"{value:,.0f}" if value >= 10 or value == round(value) else f"{value:.2g}"


def _side_lines(title: str, side: dict[str, Any]) -> list[str]:
    values = SCALES[side["stored_scale"]] + (f" (layer {side['layer']!r})" if side["layer"] else "")
    if side["scale"] == "raw":
        values += f", {brief(side['median_total'])} in a typical cell"
    if not side["scale_detected"]:
        values += ", as specified"
    lines = [f"{title}: {side['source']}"]
    if side["instrument"]:
        lines.append(f"  read as       {side['instrument']}")
    for kind in ("cells", "genes"):
        empty = side[f"empty_{kind}"]
        lines.append(f"  {kind}         {side[kind]:,}" + f", {empty:,} of them empty" * bool(empty))
    lines += [f"  left out      {note}" for note in side["cells_left_out"]]
    if side["features_left_out"]:
        lines.append(f"  left out      {_kinds_left_out(side['features_left_out'])}")
    if side["orthologs"]:
        n_without = many(side["genes_without_ortholog"], "gene")
        orthologs_text = f"{side['orthologs']}; {n_without} without a one-to-one ortholog left out"
        lines.append(f"  orthologs     {orthologs_text}")
    lines += [f"  values        {values}; {side['sparsity']:.0%} are zero"]
    if side["size_factor"]:
        lines.append(
            f"  cell sizes    obs[{side['size_factor']!r}], {side['median_size']:,.4g} in a typical cell"
        )
    if side.get("batch"):
        lines.append(f"  batches       {_batches_text(side)}")
    if side["labels"]:
        kinds = side["label_counts"]
        common = ", ".join(list(kinds)[:3])
        lines.append(f"  cell types    {len(kinds)}, from obs[{side['labels']!r}]; most frequent: {common}")
    else:
        lines.append("  cell types    none found")
    return lines


def _batches_text(side: dict[str, Any]) -> str:
    counts = side["batch_counts"]
    common = ", ".join(f"{name} ({cells:,})" for name, cells in list(counts.items())[:4])
    common += f" and {len(counts) - 4} more" * (len(counts) > 4)
    said = f"{len(counts)}, from obs[{side['batch']!r}]: {common}"
    return said + f"; adjusted to the same level, {side['batch_difference']:.2g}-fold in a typical gene"


def _kinds_left_out(left_out: dict[str, list[str]]) -> str:
    """Return features that are not genes as text: their number, kinds, and first names."""
    kinds = [f"{kind} ({len(names):,}: {shorten(names, most=2)})" for kind, names in left_out.items()]
    return f"{many(sum(map(len, left_out.values())), 'feature')} not counted as genes: {', '.join(kinds)}"


def counted(values: NDArray[np.str_] | None) -> dict[str, int]:
    """Return the number of cells with each value, the most frequent first."""
    if values is None:
        return {}
    codes, names = pd.factorize(values)
    pairs = zip(map(str, names), np.bincount(codes, minlength=len(names)).tolist(), strict=True)
    return dict(sorted(pairs, key=lambda pair: (-pair[1], pair[0])))


def only_spatial(evidence: CheckResults) -> list[str]:
    """Return the genes of the tissue that the reference does not have."""
    names = np.delete(evidence.sides[1].side.genes, evidence.match.second)
    ambiguous = {spelling_free(name) for name in evidence.match.ambiguous}
    return [
        str(name)
        for name in names
        if str(name) not in evidence.partly and spelling_free(str(name)) not in ambiguous
    ]
