"""Cautions about two inputs: guesses, losses and unusual contents that are not errors."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellweft._compute import TABLE_ROWS, row_blocks
from cellweft._errors import Message, Placeholder, arg
from cellweft._text import many, shorten
from cellweft._typing import DoubleArray, IntArray
from cellweft.data.batches import batch_cautions
from cellweft.data.gene_names import are_numbers, genomes_of, only_number
from cellweft.data.io.keys import NO_COUNTS
from cellweft.data.io.lost_chunks import lost_regions, regions_text
from cellweft.data.io.obs_table import HeldTable, repeated
from cellweft.data.io.sanitize import changes_of
from cellweft.data.side import Side
from cellweft.data.spatial import FAR_WIDTHS, far_cells, place_hashes, tissue_column
from cellweft.data.summary import CheckResults, counted, only_spatial
from cellweft.data.validation import CheckedSide
from cellweft.data.value_cautions import FEWEST_CELLS, FEWEST_GENES, title_of, value_cautions

FEW_SHARED = 20
"""With fewer shared genes, there is a caution."""
_MONTH = "(Mar|Mrz|Sep|Sept|Dec|Dez|Oct|Okt|Apr|Nov)"
_DATE = re.compile(
    rf"\d{{1,2}}[-. ]+{_MONTH}|{_MONTH}[-. ]+\d{{1,2}}|\d{{4}}-\d\d-\d\d( 00:00:00)?"
    r"|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}|\d(\.\d+)?E[+]?\d+",
    re.IGNORECASE,
)
"""How spreadsheets convert names such as Marchf1 and 2310009E13Rik."""
_MADE_UNIQUE = re.compile(r"[-._]\d{1,2}$")
_MOST_OF_ONE = 0.5  # fraction of all values in a single gene
_MOST_UNSHARED = 0.5  # fraction of a cell's values; cell measurements among the genes have far more


def cautions_of(evidence: CheckResults) -> tuple[str, ...]:
    """Return the cautions, the most important first."""
    sc, st = evidence.sides
    return (
        *_gene_cautions(evidence),
        *_measured_cautions(evidence),
        *_lost_cautions(sc),
        *_lost_cautions(st),
        *value_cautions(sc, st),
        *batch_cautions(sc.side, sc.scan.totals),
        *_empty_cautions(sc.side),
        *_empty_cautions(st.side),
        *_place_cautions(evidence),
        *_slice_cautions(evidence),
        *_label_cautions(sc),
        *_label_cautions(st),
        *_annotation_cautions(sc),
        *_annotation_cautions(st),
    )


def _gene_cautions(evidence: CheckResults) -> Iterator[str]:
    match = evidence.match
    if len(match.first) < FEW_SHARED:
        yield (
            f"Only {len(match.first)} genes are shared, hardly enough to match cells. Trust the imputed "
            "genes only as far as an evaluation on held-out genes supports them."
        )
    only = only_spatial(evidence)
    if only:
        verb = "is" if len(only) == 1 else "are"
        yield (
            f"{many(len(only), 'gene')} of the spatial panel {verb} not in the reference and cannot be used: "
            f"{shorten(only, most=10)}."
        )
    for side in (st.side for st in evidence.sides[::-1]):
        dates = [str(name) for name in side.input_names if _DATE.fullmatch(str(name))]
        if dates:
            yield (
                f"{title_of(side)}: {shorten(dates)} may be genes whose names a spreadsheet converted to "
                "dates or numbers, such as Marchf1 and Septin2. Restore their names."
            )
    scan = evidence.sides[1].scan
    is_filled = scan.totals > 0
    share = 1 - float(np.median(scan.panel_totals[is_filled] / scan.totals[is_filled]))
    of_genes = len(only) / max(evidence.sides[1].side.n_genes, 1)
    if only and share > min(_MOST_UNSHARED, max(0.1, 4 * of_genes)):
        yield (
            f"Spatial: columns that are not in the reference make up {share:.0%} of a typical cell's "
            "values. Check that all of them are genes."
        )
    for one in evidence.sides:
        genomes = genomes_of(one.side.input_names)
        if len(genomes) > 1:
            yield (
                f"{title_of(one.side)}: genes of several genomes ({shorten(genomes)}) all contribute to a "
                "cell's total count. Keep the genes and cells of a single genome."
            )
        yield from _heavy_cautions(one)
    yield from _match_cautions(evidence)
    yield from _twin_cautions(evidence)
    yield from _gene_columns_cautions(evidence)
    yield from _notes(evidence)


def _heavy_cautions(checked: CheckedSide) -> Iterator[str]:
    """Yield a caution if one gene outweighs all others, as a measurement of another kind would."""
    # each cell has a random weight, which hardly changes the fractions of genes
    projections = checked.scan.projections
    total = projections.sum()
    place = int(np.argmax(projections))
    if len(projections) >= FEWEST_GENES and total > 0 and projections[place] > _MOST_OF_ONE * total:
        yield (
            f"{title_of(checked.side)}: {str(checked.data.var.index[place])!r} makes up about "
            f"{projections[place] / total:.0%} of all values. Check that they are counts, like those of "
            "the other genes."
        )


def _match_cautions(evidence: CheckResults) -> Iterator[str]:
    """Yield cautions about genes that did not match by exact name, and about ambiguous genes."""
    match = evidence.match
    if match.by_case:
        pairs = [f"{one}/{two}" for one, two in match.by_case]
        yield (
            f"{many(len(pairs), 'gene')} matched only when case is ignored "
            f"({shorten(pairs, most=3)}): " + _about_species(evidence) + "."
        )
    if match.by_spelling:
        pairs = [f"{one}/{two}" for one, two in match.by_spelling]
        yield (
            f"{many(len(pairs), 'gene')} matched only by an alternative spelling "
            f"({shorten(pairs, most=3)}): check that they are the same genes."
        )
    if all(
        are_numbers(side.genes.names[places])
        for side, places in zip(evidence.sides, (match.first, match.second), strict=True)
    ):
        yield "The names that match are whole numbers. They are interpreted as Entrez gene IDs."
    if all(only_number(side.genes.names) for side in evidence.sides):
        some = shorten([str(name) for name in evidence.sides[1].genes.names[:3]])
        yield (
            f"Gene names are numbers in both inputs ({some}) and are matched by number. Make sure that "
            "the same number means the same gene."
        )
    if match.ambiguous:
        yield (
            f"{many(len(match.ambiguous), 'gene')} left out because several genes have this name, or a "
            f"name that differs only in case or spelling: {shorten(list(match.ambiguous))}."
        )


def _notes(evidence: CheckResults) -> Iterator[str]:
    """Yield what was guessed or left out when the inputs were read."""
    for side in evidence.sides:
        notes = [*side.data.notes, *filter(None, [side.genes.note])]
        yield from (f"{title_of(side.side)}: {note}" for note in notes)
        if side.genes.n_left_out:
            yield (
                f"{title_of(side.side)}: {many(side.genes.n_left_out, 'column')} left out because an "
                "earlier column has the same gene name."
            )


def _gene_columns_cautions(evidence: CheckResults) -> Iterator[str]:
    """Yield columns of ``obs``, and features left out, with names of genes of the other side."""
    for checked, other in (evidence.sides, evidence.sides[::-1]):
        others = [
            *checked.data.obs.columns,
            *(name for kind in checked.data.left_out.values() for name in kind),
        ]
        genes = {*other.genes.names.tolist(), *other.side.symbols.tolist()} - {
            *checked.genes.names.tolist(),
            "",
        }
        called = sorted(genes & {*map(str, others)})
        if called:
            yield (
                f"{title_of(checked.side)}: {shorten(called)}, in obs or not recognised as genes, "
                f"{'has the name of a gene' if len(called) == 1 else 'have names of genes'} of the other "
                "input. Their values are not read as counts. If they are counts, store them as numbers "
                "together with the other genes."
            )


def _about_species(evidence: CheckResults) -> Message:
    """Return advice on genes that only match if case is ignored."""
    if evidence.sides[0].genes.orthologs:
        return "both inputs seem to be from the same species. If they are, omit " + arg("orthologs")
    same = "check that both inputs are from the same species, or specify orthologs: "
    return same + arg("orthologs", "human:mouse")


def _twin_cautions(evidence: CheckResults) -> Iterator[str]:
    """Yield panel genes that may be copies of others, by their values on both sides, or by name."""
    match = evidence.match
    names = evidence.sides[0].genes.names[match.first]
    same = [shorten([str(names[place]) for place in group], most=3) for group in _same_values(evidence)]
    if same:
        yield (
            f"Shared genes with the same values in every cell of both inputs: {'; '.join(same[:3])}"
            + f" and {len(same) - 3} more groups" * (len(same) > 3)
            + (
                ". If they are the same gene, keep one of them. Otherwise held-out genes are predicted "
                "from their own copies."
            )
        )
    for side, shared in zip(evidence.sides, (match.first, match.second), strict=True):
        bases = {*side.genes.names[shared].tolist()}
        originals = [(str(name), _MADE_UNIQUE.sub("", name)) for name in side.genes.names]
        extra = [name for name, original in originals if original != name and original in bases]
        if extra:
            yield (
                f"{title_of(side.side)}: {shorten(extra)} may be further copies of shared genes whose names "
                "were made unique. The first copy of each is used. If the copies are of the same gene, "
                "sum them."
            )
        folded = pd.Index(side.genes.names).str.lower()
        twice = folded.duplicated(keep=False) & folded.isin(folded[shared])
        if twice.any():
            twins = pd.Series(side.genes.names[twice]).groupby(folded[twice], sort=True)
            said = ["/".join(group) for _, group in twins]
            yield (
                f"{title_of(side.side)}: gene names differ only in case ({shorten(said, most=3)}). They "
                "are treated as different genes; if they are the same gene, keep one of them."
            )


def _same_values(evidence: CheckResults) -> Iterator[IntArray]:
    """Yield positions of shared genes that have the same values on both sides."""
    match, (sc, st) = evidence.match, evidence.sides
    order = np.arange(len(match.first))
    groups = np.zeros(len(order), dtype=np.int64)
    for checked, shared in ((sc, match.first), (st, match.second)):
        marks = checked.scan.projections[checked.genes.places[shared]]
        order = np.lexsort((marks, groups))
        apart = np.diff(groups[order]) != 0
        apart |= ~np.isclose(marks[order][1:], marks[order][:-1], rtol=1e-9, atol=0)
        groups[order] = np.concatenate([[0], np.cumsum(apart)])
        groups[marks == 0] = -1 - np.flatnonzero(marks == 0)  # a gene without counts is not a copy of another
    numbers, sizes = np.unique(groups, return_counts=True)
    for number in numbers[sizes > 1]:
        yield np.flatnonzero(groups == number)


def _measured_cautions(evidence: CheckResults) -> Iterator[str]:
    sc, st = (checked.side for checked in evidence.sides)
    is_beyond = ~sc.empty_genes
    is_beyond[evidence.match.first] = False
    if not is_beyond.any():
        yield (
            f"Reference: no gene{' with counts' * (sc.n_genes > len(evidence.match.first))} outside the "
            "panel, so there is nothing to impute. Imputation would only smooth the measurements. Use a "
            "reference that still has all of its genes."
        )
    if evidence.partly:
        yield (
            f"Spatial: {many(len(evidence.partly), 'gene')} without any value in an entire slice "
            f"({_some_genes(evidence.partly)}). They are treated as not measured there, as when panels "
            "are combined: they are excluded from the panel and from the cells' totals in all slices, "
            "and imputed in all cells if the reference has them. To use them where they were measured, "
            "impute each slice separately."
        )
    if evidence.sc_partly:
        yield (
            f"Reference: {many(len(evidence.sc_partly), 'gene')} without counts in any cell of one "
            f"group of obs[{evidence.batches_column!r}] ({_some_genes(evidence.sc_partly)}), although "
            "other groups have counts. If they were not measured, as when tables with different genes are "
            "combined, they are imputed too low: remove these genes or these cells. If they are specific "
            "to one sex, or to cell types that are absent there, you can ignore this."
        )
    yield from _tissue_cautions(st)


def _tissue_cautions(st: Side) -> Iterator[str]:
    """Yield cautions about spots left out as background, and about spots without a value for this."""
    column = tissue_column(st.table)
    n_spots = len(st.table)
    n_outside = n_spots - st.n_cells
    if n_outside:
        most = f", more than half of all {n_spots:,}," if n_outside > n_spots / 2 else ""
        yield (
            f"Spatial: {many(n_outside, 'spot')}{most} in the background (obs[{column!r}] is 0) left out. "
            "To keep them, remove that column."
        )
    n_unknown = 0 if column is None else int(st.table[column].isna().sum())
    if n_unknown:
        yield (
            f"Spatial: {many(n_unknown, 'spot')} without a value in obs[{column!r}] treated as spots on "
            "tissue. Set 0 for background spots."
        )


def _some_genes(partly: dict[str, list[str]]) -> str:
    """Return the first genes that some slices or batches did not measure, with their slices, as text."""
    some = [
        f"{gene!r} in {', '.join(map(repr, slices[:3]))}" + ", ..." * (len(slices) > 3)
        for gene, slices in list(partly.items())[:5]
    ]
    return "; ".join(some) + (f", and {len(partly) - 5} more" if len(partly) > 5 else "")


def _lost_cautions(checked: CheckedSide) -> Iterator[str]:
    layer = checked.wish.layer
    regions = lost_regions(
        checked.data.layers[layer] if layer else checked.data.matrix, where=checked.data.where
    )
    if regions:
        said = regions_text(regions, checked.data.var.index.to_numpy())
        yield (
            f"{title_of(checked.side)}: {many(len(regions), 'chunk')} of the matrix missing, read as zeros: "
            f"{said}. zarr omits chunks of zeros. If there should be counts, copy the store again."
        )


def _annotation_cautions(checked: CheckedSide) -> Iterator[str]:
    table = checked.data.obs
    changes = changes_of(table.columns, table.table if isinstance(table, HeldTable) else None)
    if changes:
        yield (
            f"{title_of(checked.side)}: {many(len(changes), 'column')} of obs cannot be written unchanged: "
            f"{shorten(changes)}."
        )


def _label_cautions(side: CheckedSide) -> Iterator[str]:
    """Yield cell types that differ only in case and blanks."""
    kinds = pd.Series(sorted(counted(side.labels)), dtype=object)
    plain = kinds.map(lambda name: " ".join(name.lower().split()))
    twins = ["/".join(map(repr, group)) for _, group in kinds.groupby(plain) if len(group) > 1]
    if twins:
        some = ", ".join(twins[:3]) + f" and {len(twins) - 3} more" * (len(twins) > 3)
        yield (
            f"{title_of(side.side)}: cell types of obs[{side.labels_column!r}] differ only in case or "
            f"spaces ({some}). They are treated as different types."
        )


def _empty_cautions(side: Side) -> Iterator[str]:
    n_cells = int(side.empty_cells.sum())
    if n_cells:
        verb, them = ("has", "it is") if n_cells == 1 else ("have", "they are")
        treatment = "kept, as zeros"
        if side.name == "spatial":
            treatment = f"imputed as an average cell, and marked in obs[{NO_COUNTS!r}] of the result"
        yield f"{title_of(side)}: {many(n_cells, 'cell')} {verb} no counts at all; {them} {treatment}."
    empty = [str(name) for name in side.genes[side.empty_genes]]
    if empty:
        verb = "has" if len(empty) == 1 else "have"
        yield f"{title_of(side)}: {many(len(empty), 'gene')} {verb} no counts in any cell: {shorten(empty)}."


def _place_cautions(evidence: CheckResults) -> Iterator[str]:
    if evidence.coordinates is None:
        yield "No coordinates, as requested. Nothing that needs the position of a cell can be computed."
        return
    guess = evidence.slices_guess
    if guess and guess == evidence.slices_column:
        names = list(counted(evidence.slices))
        yield (
            f"Spatial: obs[{guess!r}] identifies {len(names)} sections that share one coordinate frame "
            f"({shorten(names, most=3)}). They are treated as slices. For a single slice: "
            + arg("slices", "none")
            + "."
        )
    elif guess:
        yield (
            f"Spatial: obs[{guess!r}] may identify sections. If it does, specify it: "
            + arg("slices", guess)
            + "."
        )
    same, place, n_there = _at_one_place(evidence.coordinates, evidence.slices)
    if same:
        hint: str = "; if they are from several slices, specify the column: " + arg("slices")
        hint = hint if evidence.slices is None else ""
        if n_there > 2 and len({*place}) == 1:
            hint = f"; {n_there:,} are at {tuple(place)}, which may mean a missing position: remove those"
        yield f"Spatial: {many(same, 'cell')} at exactly the same position as another cell" + hint + "."
    spread = np.linalg.eigvalsh(np.cov(evidence.coordinates.T)) if len(evidence.coordinates) > 2 else [1, 1]
    if spread[-2] <= 1e-12 * spread[-1]:
        yield "Spatial: all cells lie on a line. Check that these are the coordinates."
    if "array_col" in evidence.coordinates_source.lower() and _is_staggered(evidence.coordinates):
        yield (
            "Spatial: the coordinates are row and column numbers, and every second row of spots is "
            "shifted by one. In such a grid, rows are 1.73 times farther apart than these numbers "
            "suggest. If there are columns with true positions, specify them: "
            + arg("coordinates", "obs:X,Y")
            + "."
        )
    yield from _third_cautions(evidence.coordinates, evidence.slices)
    far = far_cells(evidence.coordinates, evidence.slices)
    if len(far):
        where = ", ".join(f"{coordinate:g}" for coordinate in evidence.coordinates[far[0]])
        yield (
            f"Spatial: {many(len(far), 'cell')} far from all others, the first at row {far[0]:,} "
            f"({where}), by more than {FAR_WIDTHS} times the width of the tissue. Check whether their "
            "coordinates are "
            "placeholders or in another unit, and correct them or remove the cells."
        )


def _is_staggered(places: DoubleArray) -> bool:
    """Return whether column numbers are even in even rows, and odd in odd rows."""
    return len(places) >= FEWEST_CELLS and len(np.unique(places[:, :2].sum(axis=1) % 2)) == 1


def _third_cautions(places: DoubleArray, slices: NDArray[np.str_] | None) -> Iterator[str]:
    """Yield cautions if a third coordinate may be a section number, or any coordinate a cell number."""
    n_cells, n_axes = places.shape
    if n_cells < FEWEST_CELLS:
        return
    number = next((axis for axis in range(n_axes) if (np.diff(places[:, axis]) == 1).all()), None)
    if number is not None:
        yield (
            f"Spatial: column {number + 1} of the coordinates only numbers the cells. Specify the columns "
            "with the coordinates: " + arg("coordinates", "obs:X,Y") + "."
        )
    n_planes = 1 if n_axes < 3 else len(np.unique(places[:, 2]))
    if slices is None and 1 < n_planes <= n_cells / 10:
        yield (
            f"Spatial: the third coordinate has only {n_planes:,} values, as in a stack of sections. If "
            "they are sections, specify the column that contains them: "
            + arg("slices", Placeholder("COLUMN"))
            + "."
        )


def _slice_cautions(evidence: CheckResults) -> Iterator[str]:
    """Yield cautions if slices differ far more than sections do, in coordinates or expression."""
    if evidence.slices is None or evidence.coordinates is None:
        return
    totals = evidence.sides[1].scan.totals
    apart, counts = {}, {}
    for name, cells in pd.Series(np.arange(len(totals))).groupby(evidence.slices, sort=True):
        if len(cells) >= FEWEST_CELLS:
            sides = np.ptp(evidence.coordinates[cells], axis=0)
            apart[name] = float(np.sqrt(np.prod(sides[:2]) / len(cells)))
            counts[name] = float(np.median(totals[cells]))
    for values, least, text, why in (
        (apart, 50, "the cells of {1!r} are {2:,.0f} times farther apart than those of {0!r}",
         "when one is in um and another in mm or pixels. Convert all of them to one unit"),
        (counts, 30, "a typical cell of {1!r} has {2:,.0f} times as many counts as one of {0!r}",
         "when slices are on different scales. Check that all of them contain counts"),
    ):  # fmt: skip
        order = sorted(
            (slice_name for slice_name in values if values[slice_name] > 0), key=values.__getitem__
        )
        if len(order) > 1 and values[order[-1]] > least * values[order[0]]:
            ratio = values[order[-1]] / values[order[0]]
            yield f"Spatial: {text.format(order[0], order[-1], ratio)}, as {why}."


def _at_one_place(
    coordinates: DoubleArray, slices: NDArray[np.str_] | None
) -> tuple[int, tuple[float, ...], int]:
    """Return how many cells share the position of another, and the most common position with its count."""
    codes = None if slices is None else pd.factorize(slices)[0]

    def hashes() -> Iterator[NDArray[np.uint64]]:
        for rows in row_blocks(len(coordinates), TABLE_ROWS):
            yield place_hashes(coordinates[rows], None if codes is None else codes[rows])

    suspects = repeated(hashes, len(coordinates))
    table = pd.DataFrame(coordinates[suspects] + 0.0)  # merges positive and negative zero
    if codes is not None:
        table["slice"] = codes[suspects]
    most = table.groupby([*table.columns], sort=False).size().nlargest(1)
    place = tuple(map(float, most.index[0][: coordinates.shape[1]])) if len(most) else ()
    return int(table.duplicated().sum()), place, int(most.sum())
