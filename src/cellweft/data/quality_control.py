"""What is no error in two inputs but should be known, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellweft._compute import row_blocks
from cellweft._errors import arg
from cellweft._text import human_bytes, many, shorten
from cellweft._typing import DoubleArray, IntArray
from cellweft.data.expression_scale import Scan
from cellweft.data.gene_names import GeneMatch
from cellweft.data.io.backed_matrix import stored_by_gene
from cellweft.data.io.lazy_input import Input
from cellweft.data.io.obs_table import repeated
from cellweft.data.side import Side
from cellweft.data.spatial import place_hashes
from cellweft.data.validation import Genes, ReadOptions, count_layer

FEW_SHARED = 20
"""Below this many shared genes a caution is given."""
FEW_GENES = 2_000
"""A reference with fewer genes than this is a part of the transcriptome, and its totals are no cell sizes."""
_BLOCK_ROWS = 100_000  # cells whose places are looked at at once
_SIZE_COLUMNS = ("numi", "ncount", "n_counts", "total_counts", "n_umi", "total_umi", "library_size")
SCALES = {
    "raw": "raw counts",
    "normalised": "counts divided by a size (normalised), not logarithms",
    "log": "logarithms of normalised counts",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckResults:
    """All that the checks found; pairs are (reference, spatial)."""

    inputs: tuple[Input, Input]
    wishes: tuple[ReadOptions, ReadOptions]
    genes: tuple[Genes, Genes]
    sides: tuple[Side, Side]
    scans: tuple[Scan, Scan]
    match: GeneMatch
    coordinates: DoubleArray | None
    slices: NDArray[np.str_] | None
    labels: tuple[NDArray[np.str_] | None, NDArray[np.str_] | None]
    spacing: float | None
    found: dict[str, str]


def cautions_of(evidence: CheckResults) -> tuple[str, ...]:
    """Return what is no error but should be known, the most important first."""
    return (
        *_gene_cautions(evidence),
        *_scale_cautions(evidence, 0),
        *_scale_cautions(evidence, 1),
        *_balance_cautions(evidence),
        *_size_cautions(evidence),
        *_empty_cautions(evidence, 0),
        *_empty_cautions(evidence, 1),
        *_place_cautions(evidence),
    )


def _gene_cautions(evidence: CheckResults) -> list[str]:
    match, said = evidence.match, []
    n_shared = len(match.first)
    if n_shared < FEW_SHARED:
        said.append(
            f"Only {n_shared} genes are shared: cells can hardly be matched by so few, so trust the imputed "
            "genes only as far as the test on held-out genes supports them."
        )
    only = only_here(evidence.sides[1].genes, match.second)
    if only:
        verb = "is" if len(only) == 1 else "are"
        said.append(
            f"{many(len(only), 'gene')} of the spatial panel {verb} not in the reference and cannot be used: "
            f"{shorten(only, most=10)}."
        )
    if match.by_case:
        pairs = [f"{one}/{two}" for one, two in match.by_case]
        said.append(
            f"{many(len(pairs), 'gene')} matched only when upper and lower case are ignored "
            f"({shorten(pairs, most=3)}): make sure both sides are of the same species."
        )
    if match.ambiguous:
        said.append(
            f"{many(len(match.ambiguous), 'gene')} left out because several names differ from them "
            f"in case alone: {shorten(list(match.ambiguous))}."
        )
    for side, genes in zip(evidence.sides, evidence.genes, strict=True):
        if genes.n_left_out:
            said.append(
                f"{_title(side)}: {many(genes.n_left_out, 'column')} left out because an earlier one has "
                "the same gene name."
            )
    return said


def _scale_cautions(evidence: CheckResults, number: int) -> list[str]:
    side, scan = evidence.sides[number], evidence.scans[number]
    data, wish, said = evidence.inputs[number], evidence.wishes[number], []
    if side.scale == "raw" and scan.n_fractional:
        share = scan.n_fractional / max(scan.n_values, 1)
        said.append(
            f"{_title(side)}: {scan.n_fractional:,} of the counts above zero ({share:.2g} of them) are not "
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
        said.append(f"{_title(side)}: the values look like {SCALES[side.scale]}; {taken}." + hint)
    if stored_by_gene(data.layers[wish.layer] if wish.layer else data.matrix):
        said.append(
            f"{_title(side)}: the file stores its matrix by gene (CSC), so it was loaded into memory whole "
            f"({human_bytes(side.matrix.row_bytes * side.matrix.shape[0])}); saved by cell (CSR), it could "
            "be read in blocks."
        )
    return said


def _balance_cautions(evidence: CheckResults) -> list[str]:
    sc, st = evidence.sides
    said = []
    if sc.scale != st.scale:
        said.append(
            f"The two sides are on different scales (reference: {SCALES[sc.scale]}; spatial: "
            f"{SCALES[st.scale]}); raw counts on both sides compare best."
        )
    totals = [scan.panel_totals[scan.panel_totals > 0] for scan in evidence.scans]
    for side, scan in zip(evidence.sides, evidence.scans, strict=True):
        bare = int(((scan.panel_totals == 0) & (scan.totals > 0)).sum())
        if bare:
            said.append(f"{_title(side)}: {many(bare, 'cell')} without counts in the shared genes.")
    if sc.scale == st.scale == "raw" and all(len(one) for one in totals):
        medians = [float(np.median(one)) for one in totals]
        ratio = max(medians) / min(medians)
        if ratio >= 10:
            said.append(
                f"In the shared genes a typical reference cell has {medians[0]:,.0f} counts and a typical "
                f"spatial cell {medians[1]:,.0f}, {ratio:,.0f} times apart (reads rather than molecules, "
                "perhaps); each side is normalised by its own cell sizes."
            )
    return said


def _size_cautions(evidence: CheckResults) -> list[str]:
    sc, scan = evidence.sides[0], evidence.scans[0]
    if sc.scale != "raw" or sc.has_sizes or sc.n_genes >= FEW_GENES:
        return []
    size = arg("size_factor")
    said = (
        f"Reference: it holds only {sc.n_genes:,} genes, so that a cell's size is its sum over these; a "
        "column of obs with whole-transcriptome totals, if there is one, is the better size (" + size + ")."
    )
    for name in sc.table.columns:
        plain = name.lower().replace(".", "_")
        if not any(key in plain for key in _SIZE_COLUMNS):
            continue
        column = sc.table[name]
        if pd.api.types.is_numeric_dtype(column) and bool((column.to_numpy() >= scan.totals).all()):
            said += f" obs[{name!r}] looks like one: " + arg("size_factor", name) + "."
            break
    return [said]


def _empty_cautions(evidence: CheckResults, number: int) -> list[str]:
    side, said = evidence.sides[number], []
    n_cells = int(side.empty_cells.sum())
    if n_cells:
        verb, them = ("has", "it is") if n_cells == 1 else ("have", "they are")
        said.append(
            f"{_title(side)}: {many(n_cells, 'cell')} {verb} no counts at all; {them} kept, as zeros."
        )
    empty = [str(name) for name in side.genes[side.empty_genes]]
    if empty:
        verb = "has" if len(empty) == 1 else "have"
        said.append(
            f"{_title(side)}: {many(len(empty), 'gene')} {verb} no counts in any cell: {shorten(empty)}."
        )
    return said


def _place_cautions(evidence: CheckResults) -> list[str]:
    if evidence.coordinates is None:
        return ["No coordinates, as asked: nothing that needs the place of a cell can be computed."]
    same = _at_one_place(evidence.coordinates, evidence.slices)
    if not same:
        return []
    hint = (
        ""
        if evidence.slices is not None
        else "; if they are of several slices, name the column: " + arg("slices")
    )
    return [f"Spatial: {many(same, 'cell')} at the very same place as another" + hint + "."]


def _at_one_place(coordinates: DoubleArray, slices: NDArray[np.str_] | None) -> int:
    """Return how many cells lie where an earlier one of the same slice does."""
    codes = None if slices is None else pd.factorize(slices)[0]

    def hashes() -> Iterator[NDArray[np.uint64]]:
        for rows in row_blocks(len(coordinates), _BLOCK_ROWS):
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
