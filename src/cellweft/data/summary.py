"""What was found in two inputs: as plain values, and as text that a biologist reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellweft._text import many
from cellweft.data.quality_control import SCALES, CheckResults, only_here
from cellweft.data.validation import CheckedSide


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
