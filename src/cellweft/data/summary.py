"""What was found in two inputs: as plain values, and as text that a biologist reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellweft._text import many
from cellweft.data.expression_scale import Scan
from cellweft.data.quality_control import SCALES, CheckResults, only_here
from cellweft.data.side import Side
from cellweft.data.validation import ReadOptions


def findings_of(evidence: CheckResults) -> dict[str, Any]:
    """Return what was found as plain values that JSON takes."""
    sc, st = evidence.sides
    only_st = only_here(st.genes, evidence.match.second)
    places = evidence.coordinates
    return {
        "reference": _of_side(evidence, 0),
        "spatial": _of_side(evidence, 1),
        "shared_genes": len(evidence.match.first),
        "genes_to_impute": sc.n_genes - len(evidence.match.first),
        "genes_only_spatial": only_st,
        "genes_matched_by_case": len(evidence.match.by_case),
        "genes_ambiguous": list(evidence.match.ambiguous),
        "gene_bridge": evidence.match.bridge,
        "coordinates": {
            "found": evidence.found["coordinates"],
            "dimensions": 0 if places is None else int(places.shape[1]),
            "extent": [] if places is None else [float(one) for one in np.ptp(places, axis=0)],
            "spacing": evidence.spacing,
        },
        "slices": {"found": evidence.found["slices"], "cells": _counted(evidence.slices)},
    }


def side_findings(
    side: Side, scan: Scan, wish: ReadOptions, *, n_left_out: int, labels: NDArray[np.str_] | None, found: str
) -> dict[str, Any]:
    """Return what was found of one side.

    Parameters
    ----------
    side, scan, wish
        The side, what the scan of its values found, and what the caller chose.
    n_left_out
        Copies of genes that were left out.
    labels, found
        Cell types, and the column they stand in.
    """
    filled = ~side.empty_cells
    return {
        "source": side.source,
        "cells": side.n_cells,
        "genes": side.n_genes,
        "layer": wish.layer,
        "scale": side.scale,
        "scale_detected": wish.scale is None,
        "sparsity": round(float(side.sparsity), 4),
        "median_total": float(np.median(scan.totals[filled])),
        "size_factor": wish.size_factor,
        "median_size": side.target,
        "empty_cells": int(side.empty_cells.sum()),
        "empty_genes": int(side.empty_genes.sum()),
        "duplicated_genes_left_out": n_left_out,
        "labels": found,
        "label_counts": _counted(labels),
    }


def _of_side(evidence: CheckResults, number: int) -> dict[str, Any]:
    return side_findings(
        evidence.sides[number],
        evidence.scans[number],
        evidence.wishes[number],
        n_left_out=evidence.genes[number].n_left_out,
        labels=evidence.labels[number],
        found=evidence.found["labels" if number == 0 else "st_labels"],
    )


def summary_text(findings: dict[str, Any], cautions: tuple[str, ...]) -> str:
    """Return the findings as text.

    Parameters
    ----------
    findings, cautions
        As `findings_of` and `cautions_of` return them.
    """
    place, slices = findings["coordinates"], findings["slices"]["cells"]
    lines = ["Reference: " + findings["reference"]["source"], *_side_lines(findings["reference"])]
    lines += ["Spatial: " + findings["spatial"]["source"], *_side_lines(findings["spatial"])]
    if place["dimensions"]:
        size = " x ".join(f"{one:,.0f}" if one >= 100 else f"{one:.3g}" for one in place["extent"])
        lines.append(
            f"  coordinates   {place['dimensions']}-D, from {place['found']}, {size} in the file's unit"
        )
        if place["spacing"] is not None:
            lines.append(f"  spot spacing  {place['spacing']:.4g}: median distance to the nearest neighbour")
    else:
        lines.append("  coordinates   none")
    if slices:
        counted = ", ".join(f"{name} ({cells:,})" for name, cells in list(slices.items())[:6])
        more = f" and {len(slices) - 6} more" if len(slices) > 6 else ""
        lines.append(
            f"  slices        {len(slices)}, from obs[{findings['slices']['found']!r}]: {counted}{more}"
        )
    else:
        lines.append("  slices        1")
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


def _side_lines(found: dict[str, Any]) -> list[str]:
    values = SCALES[found["scale"]] + (f" (layer {found['layer']!r})" if found["layer"] else "")
    if found["scale"] == "raw":
        values += f", {found['median_total']:,.0f} in a typical cell"
    if not found["scale_detected"]:
        values += ", as you said"
    lines = [
        f"  cells         {found['cells']:,}"
        + (f", {found['empty_cells']:,} of them empty" * bool(found["empty_cells"])),
        f"  genes         {found['genes']:,}"
        + (f", {found['empty_genes']:,} of them empty" * bool(found["empty_genes"])),
        f"  values        {values}; {found['sparsity']:.0%} are zero",
    ]
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
