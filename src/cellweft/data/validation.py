"""The checks that turn an opened input into a `Side`: names of cells and genes, values, sizes of cells."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellweft._errors import (
    FormatError,
    GeneError,
    InputError,
    Placeholder,
    ScaleError,
    SettingError,
    arg,
    check_choice,
    sentence,
)
from cellweft._text import many, shorten
from cellweft._typing import BoolArray, DoubleArray, Duplicates, IntArray, Matrix, MissingChunks, StoredScale
from cellweft.data.batches import with_batches
from cellweft.data.digest import MatrixDigest, values_digest
from cellweft.data.expression_scale import (
    SCALES,
    Judgement,
    Scan,
    SliceGenes,
    judge_scale,
    open_undone,
    scan_values,
)
from cellweft.data.gene_names import (
    GeneMatch,
    GeneNames,
    are_numbers,
    are_one_series,
    duplicates_of,
    holds_gene_names,
    look_like_cells,
    match_genes,
    name_columns,
    only_count,
    own_names,
    symbol_column,
)
from cellweft.data.io.backed_matrix import RowSource, ZeroedRows, chosen_rows, open_rows
from cellweft.data.io.columns import column_of
from cellweft.data.io.features import only_genes
from cellweft.data.io.lazy_input import RAW, Input, with_raw
from cellweft.data.io.lost_chunks import lost_regions, refuse_lost_cells
from cellweft.data.io.obs_table import names_twice
from cellweft.data.side import CellBatches, Side, SideName
from cellweft.data.sums import refuse_statistics, refuse_sums

_COUNT_LAYERS = ("counts", "raw_counts", "raw", "count", "umi", "umis", "spliced")
_NO_NAME = r"(?:nan|NaN|NAN|NA|N/A|<NA>|None|none|null|NULL|[Uu]nknown|[\W_]*)(?:[-_.]\d+)?"
"""Missing values as text, including names made unique, such as ``NA.1``."""
_MOST_SLICE_GENES = 2**24  # pairs of slice and gene that are checked for counts
_LEAST_IN_BATCH = 20  # larger for batches of a reference, which differ in composition
_MOST_COUNTS = 1e9  # of one gene in one cell


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Options of the caller for one side.

    Attributes
    ----------
    name
        Name of the side.
    labels, layer, gene_column, size_factor, scale, batch
        As in `cellweft.pair`; the last is its ``reference_batch``.
    duplicates
        What to do with a gene name that occurs twice.
    missing_chunks
        What to do with cells without counts if chunks are missing.
    """

    name: SideName
    labels: str | None = None
    layer: str | None = None
    gene_column: str | None = None
    size_factor: str | None = None
    scale: StoredScale | None = None
    batch: str | None = None
    duplicates: Duplicates
    missing_chunks: MissingChunks = "error"

    def argument(self, what: str) -> str:
        """Return the name of an argument of `cellweft.pair` for this side."""
        if what in ("size_factor", "labels") and self.name == "reference":
            return what
        if what == "batch":
            return "reference_batch"
        return f"{'sc' if self.name == 'reference' else 'st'}_{what}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Genes:
    """The genes of a side.

    Attributes
    ----------
    names, places
        Names of the genes, and their rows in ``var``.
    n_left_out
        Number of duplicates left out.
    note
        Source of the names, if it was guessed.
    orthologs, n_without_ortholog
        Table of the orthologs used as names, if any, and number of genes left out without an ortholog.
    """

    names: NDArray[np.str_]
    places: IntArray
    n_left_out: int
    note: str = ""
    orthologs: str = ""
    n_without_ortholog: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckedSide:
    """The input of one side with its options, and the results of its checks.

    Attributes
    ----------
    data, wish, genes
        The opened input, the options of the caller, and the genes.
    side, scan
        The side, and the scan of its values.
    labels, labels_column
        Cell types, and their column.
    """

    data: Input
    wish: ReadOptions
    genes: Genes
    side: Side
    scan: Scan
    labels: NDArray[np.str_] | None
    labels_column: str


def counts_in(data: Input, wish: ReadOptions) -> tuple[Input, ReadOptions]:
    """Return an input with the genes of the matrix to read, and options that select this matrix.

    ``raw`` is a layer with its own genes. If there is no ``X``, the layer with counts, the only layer, or
    ``raw`` is used instead, and a note is added.

    Parameters
    ----------
    data, wish
        The opened input, and the options of the caller.
    """
    layers = [str(name) for name in data.layers]
    if wish.layer is None and data.matrix is None:
        layer = count_layer(data, wish) or (layers[0] if len(layers) == 1 else None)
        layer = RAW if layer is None and data.has_raw and not layers else layer
        if layer is not None:
            slot = "raw" if layer == RAW and layer not in layers else f"layers[{layer!r}]"
            note = f"there is no X. The values are read from {slot}."
            data, wish = replace(data, notes=(*data.notes, note)), replace(wish, layer=layer)
    if wish.layer == RAW and RAW not in layers and data.has_raw:
        data = with_raw(data)
    return only_genes(data), wish


def _stored_shape(matrix: Any) -> tuple[int, int] | None:
    """Return the declared shape of a matrix that is not opened; None if there is none."""
    shape = getattr(matrix, "shape", None)
    if shape is None and hasattr(matrix, "attrs"):  # a group of a sparse matrix
        shape = matrix.attrs.get("shape")
    sizes = np.asarray(() if shape is None else shape)
    return (int(sizes[0]), int(sizes[1])) if sizes.shape == (2,) and sizes.dtype.kind in "iu" else None


def _check_shape(shape: tuple[int, int], data: Input, where: str) -> None:
    n_cells, n_columns = len(data.obs), len(data.var) + sum(map(len, data.left_out.values()))
    if shape != (n_cells, n_columns):
        raise FormatError(
            where,
            expected=f"{n_cells:,} cells x {n_columns:,} genes, as obs and var state",
            got=f"{shape[0]:,} x {shape[1]:,}",
            fix="Write the file again with AnnData.",
        )


def check_cells(data: Input, *, is_reference: bool = False) -> Input:
    """Return an input after checking that it has two or more cells, with unique names.

    Names of a reference may repeat, and a note is added.

    Raises
    ------
    InputError
        There are fewer cells, or duplicate names.
    FormatError
        The matrix does not match the annotation; rows have names of sums or means.
    """
    n_cells = len(data.obs)
    shape = _stored_shape(data.matrix)
    if shape is not None:  # checked first, because a damaged file may claim any number of names
        _check_shape(shape, data, f"{data.where}.X")
    if n_cells < 2:
        fix = "Pass a matrix with one row per cell. Transpose a table of genes x cells."
        raise InputError(
            f"{data.where}.obs", expected="at least 2 cells", got="1 cell" if n_cells else "no cell", fix=fix
        )
    with _encoding_errors(f"{data.where}.obs_names"):
        refuse_statistics(data)
        twice = names_twice(data.obs)
    if twice and is_reference:
        note = (
            f"{many(len(twice), 'name')} of cells that occur more than once ({shorten(twice)}). "
            "Imputation does not use the names. Before you place these cells, make them unique: "
            "adata.obs_names_make_unique()."
        )
        return replace(data, notes=(*data.notes, note))
    if twice:
        raise _names_repeat(f"{data.where}.obs_names", twice)
    return data


def check_unique_names(side: Side) -> None:
    """Raise `InputError` if names of cells occur twice, for uses that need unique names."""
    names = side.obs_names.astype(str) if side.rows is not None else None
    twice = names_twice(side.table) if names is None else names[names.duplicated()].unique().tolist()
    if twice:
        raise _names_repeat(f"the cells of the {side.name} side ({side.source})", twice)


@contextmanager
def _encoding_errors(where: str) -> Iterator[None]:
    """Raise `InputError` for names with unpaired surrogates, which no format can store."""
    try:
        yield
    except UnicodeEncodeError as error:
        before, after = error.object[: error.start], error.object[error.start :]
        name = before.rpartition("\n")[2] + after.partition("\n")[0]
        raise InputError(
            where,
            expected="names that UTF-8 can encode",
            got=f"half of a surrogate pair in {name!a}",
            fix="Read the names again with their correct encoding, or rename them.",
        ) from error


def _names_repeat(where: str, names: list[str]) -> InputError:
    return InputError(
        where,
        expected="a unique name for every cell",
        got=f"duplicate names ({len(names):,}): {shorten(names)}",
        fix="Make them unique first: adata.obs_names_make_unique().",
    )


def gene_names(data: Input, wish: ReadOptions) -> Genes:
    """Return the names of the genes of an input.

    Names of ``var`` that only count its rows are replaced by those of a column, if there is one.

    Raises
    ------
    GeneError
        There are duplicate names, and ``duplicates`` is not "first".
    KeyMissingError
        No such column of ``var``.
    """
    names, column, note = data.var.index, wish.gene_column, ""
    with _encoding_errors(f"{data.where}.var_names"):
        only_numbers = column is None and only_count(names.astype(str))
    if only_numbers:
        column = next(iter(sorted(name_columns(data.var), key=symbol_column(data.var).__ne__)), None)
        if column is not None:
            note = f"var_names only number the genes. Gene names are taken from var[{column!r}]."
    if column is not None:
        argument = wish.argument("gene_column")
        names = pd.Index(column_of(data.var, column, where=data.where, argument=argument, slot="var"))
    slot = f"{data.where}." + ("var_names" if column is None else f"var[{column!r}]")
    with _encoding_errors(slot):
        # pandas 3 would keep missing names as NaN.
        texts = names.astype(object).where(names.notna(), "").astype(str)
        "\n".join(texts).encode()
    is_named = np.asarray(names.notna()) & ~np.asarray(texts.str.strip().str.fullmatch(_NO_NAME))
    names = texts
    again = names.duplicated() & is_named
    if not is_named.all():
        n_nameless = int((~is_named).sum())
        note = f"{note} {many(n_nameless, 'gene')} without a name (empty, 'nan') left out.".strip()
    if again.any() and wish.duplicates == "error":
        raise GeneError(
            slot,
            expected="each gene once",
            got=f"duplicate names ({again.sum():,} columns too many): {shorten(duplicates_of(names))}",
            fix=sentence(
                "Keep the first column of each with {}, or make the names unique first: "
                "adata.var_names_make_unique().",
                arg("duplicates", "first"),
            ),
        )
    places = np.flatnonzero(is_named & ~again)
    return Genes(
        names=names[places].to_numpy(dtype=np.str_), places=places, n_left_out=int(again.sum()), note=note
    )


_MOST_GENES = 200_000  # a table with more rows is not one of genes x cells
_Genes = tuple[Input, Genes]


def check_orientation(first: _Genes, second: _Genes, match: GeneMatch) -> None:
    """Raise `GeneError` if the rows of one or both sides have gene names.

    Parameters
    ----------
    first, second
        The two inputs, each with the names of its columns.
    match
        Match of the columns of both.
    """
    columns = [genes.names for _, genes in (first, second)]
    few = len(match.first) < 0.5 * min(map(len, columns))
    both_cells = all(look_like_cells(names) or are_one_series(names) for names in columns)
    if not few and not both_cells:
        return
    rows = [_row_names(data) for data, _ in (first, second)]
    for number, (data, _) in enumerate((first, second)):
        for names in rows[number]:
            same = [str(names[place]) for place in match_genes(names, columns[1 - number]).first]
            if len(same) >= 2 and len(same) > len(match.first):
                raise GeneError(
                    data.where,
                    expected="cells x genes",
                    got=f"rows named like the other input's genes ({len(same):,}: {shorten(same, most=3)})",
                    fix=f"The rows of {data.where} are named like genes: transpose it to cells x genes.",
                )
    pairs = [
        [str(first_names[place]) for place in match_genes(first_names, second_names).first]
        for first_names in rows[0]
        for second_names in rows[1]
    ]
    most: list[str] = max(pairs, key=len, default=[])
    same = sorted(most)
    if len(same) >= 2 and (both_cells or len(match.first) < 2):
        n_shared = len(match.first)
        of_columns = f"only {many(n_shared, 'column')} of the same name" if n_shared else "no such columns"
        raise GeneError(
            f"{first[0].where} and {second[0].where}",
            expected="cells x genes, with shared genes",
            got=f"{len(same):,} rows of the same name ({shorten(same, most=3)}), and "
            + (of_columns if n_shared < 2 else "columns named like cells"),
            fix=(
                "If the rows are genes, transpose both inputs to cells x genes. If they are cells, check "
                "that the columns are genes of the same species with the same kind of names."
            ),
        )
    for number, (data, _) in enumerate((first, second)):
        called = columns[number]
        if len(match.first) < 2 and rows[number] and look_like_cells(called) and not are_numbers(called):
            raise GeneError(
                data.where,
                expected="cells x genes",
                got=f"columns named like cells ({shorten([*map(str, called[:9])], most=2)}) and rows such as "
                f"{shorten([*map(str, rows[number][0][:9])], most=2)}",
                fix="If its rows are genes, transpose it to cells x genes. Otherwise specify its gene names.",
            )


def _row_names(data: Input) -> list[list[str]]:
    """Return possible names of the rows: their own names, and columns with gene names.

    Empty if the names are those of cells, or there are too many for genes.
    """
    if len(data.obs) > _MOST_GENES:
        return []
    columns = [data.obs[name].astype(str) for name in data.obs.columns if holds_gene_names(name)]
    row_names = [[*dict.fromkeys(map(str, names))] for names in (data.obs.names().astype(str), *columns)]
    return [names for names in row_names if not look_like_cells(names) and not are_one_series(names)]


def make_side(
    data: Input,
    genes: Genes,
    wish: ReadOptions,
    *,
    panel: IntArray,
    names: GeneNames | None = None,
    cells: IntArray | None = None,
    slices: NDArray[np.str_] | None = None,
    batches: CellBatches | None = None,
    is_tissue: bool = False,
) -> tuple[Side, Scan]:
    """Read the values once, check them, and return the side and the scan.

    Parameters
    ----------
    data, genes, wish
        The opened input, its genes, and the options of the caller.
    panel
        Positions of the shared genes among ``genes``.
    names
        Names of the genes; by default those in the input.
    cells
        (n_cells,) rows of the input to use; all by default.
    slices
        (n_cells,) slice of each of these cells, or batch of a reference; None if there is only one. The scan
        detects genes that some did not measure.
    batches
        Batches of a reference, if given; their levels are equalised.
    is_tissue
        Whether these genes may also be NaN, and are excluded from all totals.

    Raises
    ------
    InputError
        There are NaN or infinite values, or no counts.
    ScaleError
        There are negative values.
    FormatError
        The matrix does not match the annotation; a zarr store lacks chunks that cannot be zeros.
    """
    names = own_names(genes.names, data.var.iloc[genes.places]) if names is None else names
    sizes = _sizes(data, wish, cells)
    by_slice = _slice_genes(data, cells, slices, is_tissue=is_tissue)
    values = data.values(wish.layer, argument=wish.argument("layer"))
    lost = lost_regions(values, where=_slot(data, wish))
    source, scan, judged, seen = _scanned(
        data, wish, values, genes.places[panel], cells=cells, by_slice=by_slice, is_tissue=is_tissue
    )
    empty = scan.totals == 0
    _refuse_lost(data, wish, lost, empty, cells)
    _check_any_counts(data, wish, scan)
    refuse_sums(data, source if cells is None else chosen_rows(source, cells), scan, cells=cells)
    _check_sizes(data, wish, sizes, empty)
    totals = scan.totals if sizes is None else sizes
    side = Side(
        name=wish.name,
        source=data.source,
        matrix=source,
        table=data.obs,
        arrays=data.obsm,
        uns=data.uns,
        layers=data.layers,
        genes=names.names,
        input_names=names.input_names,
        columns=(genes.places if data.columns is None else data.columns[genes.places]).astype(np.int64),
        rows=cells,
        scale=SCALES[judged.scale],
        judgement=judged,
        totals=totals,
        target=float(np.median(totals[~empty])),
        has_sizes=sizes is not None,
        sparsity=scan.sparsity,
        empty_cells=empty,
        gene_cells=scan.gene_cells[genes.places],
        symbols=names.symbols,
        gene_ids=names.gene_ids,
    )
    if batches is not None:
        side = with_batches(side, batches)
    if len(genes.places) == len(data.var):
        values_digest(side, seen)
    return side, scan


def _check_sizes(data: Input, wish: ReadOptions, sizes: DoubleArray | None, empty: BoolArray) -> None:
    """Raise `InputError` if a cell with counts has no positive size."""
    n_bad = 0 if sizes is None else int((sizes[~empty] <= 0).sum())
    if n_bad:
        raise InputError(
            f"{data.where}.obs[{wish.size_factor!r}]",
            expected="a size above zero for every cell that has counts",
            got=f"zero or less for {many(n_bad, 'cell')}",
            fix="Correct the column, or remove these cells.",
        )


def _refuse_lost(data: Input, wish: ReadOptions, lost: Any, empty: BoolArray, cells: IntArray | None) -> None:
    """Raise if a store lost chunks, and therefore some of the used ``cells`` have no counts."""
    is_blank = empty
    if cells is not None:
        is_blank = np.zeros(len(data.obs), dtype=np.bool_)
        is_blank[cells] = empty
    refuse_lost_cells(
        lost, is_blank, where=_slot(data, wish), names=data.obs.names, missing_chunks=wish.missing_chunks
    )


def _scanned(
    data: Input,
    wish: ReadOptions,
    values: Any,
    panel: IntArray,
    *,
    cells: IntArray | None,
    by_slice: SliceGenes | None,
    is_tissue: bool,
) -> tuple[RowSource, Scan, Judgement, MatrixDigest]:
    """Return the values, and the scan, scale and digest of the used cells."""
    stored = open_rows(values, where=_slot(data, wish))
    _check_shape(stored.shape, data, _slot(data, wish))
    used = stored if cells is None else chosen_rows(stored, cells)
    judged = _judged_scale(wish, used, data.columns)
    seen = MatrixDigest()
    undone = open_undone(used, judged.scale)

    def look(block: Matrix) -> None:
        seen.add(block)
        if by_slice is not None and not is_tissue:
            by_slice.add(block)

    of_tissue = by_slice if is_tissue else None
    scan = scan_values(undone, data.columns, panel=panel, slices=of_tissue, look=look)
    _check_values(data, wish, scan, used, cells)
    source = open_undone(stored, judged.scale)
    if by_slice is not None and not is_tissue:
        return source, replace(scan, unmeasured=by_slice.unmeasured()), judged, seen
    left_out: BoolArray = np.asarray(scan.unmeasured.any(axis=0))
    if left_out.any():
        again = scan_values(
            ZeroedRows(undone), data.columns, panel=panel[~left_out[panel]], left_out=left_out
        )
        if not again.totals.any():
            raise GeneError(
                _slot(data, wish),
                expected="genes that were measured in all slices",
                got="none",
                fix="Impute each slice separately.",
            )
        source, scan = ZeroedRows(source), replace(again, unmeasured=scan.unmeasured)
    return source, scan, judged, seen


def count_layer(data: Input, wish: ReadOptions) -> str | None:
    """Return the layer with a name for raw counts, unless it is already used."""
    layers = {str(name).lower(): str(name) for name in data.layers}
    layer = next((layers[name] for name in _COUNT_LAYERS if name in layers), None)
    return None if layer == wish.layer else layer


def _slot(data: Input, wish: ReadOptions) -> str:
    if wish.layer == RAW and data.has_raw:
        return f"{data.where}.raw.X"
    return f"{data.where}.X" if wish.layer is None else f"{data.where}.layers[{wish.layer!r}]"


def _sizes(data: Input, wish: ReadOptions, cells: IntArray | None) -> DoubleArray | None:
    if wish.size_factor is None:
        return None
    argument = wish.argument("size_factor")
    column = column_of(data.obs, wish.size_factor, where=data.where, argument=argument)
    sizes = np.asarray(pd.to_numeric(column, errors="coerce"), dtype=np.float64)
    sizes = sizes if cells is None else sizes[cells]
    bad = int((~np.isfinite(sizes)).sum())
    if bad:
        raise InputError(
            f"{data.where}.obs[{wish.size_factor!r}]",
            expected="a number for every cell, such as its total over all genes",
            got=f"no number for {bad:,} of {len(sizes):,} cells",
            fix="Choose another column, or remove these cells.",
        )
    return sizes


def _judged_scale(wish: ReadOptions, source: RowSource, columns: IntArray | None) -> Judgement:
    """Return the scale of the values: given by the caller, or detected."""
    if wish.scale is None:
        return judge_scale(source, columns)
    check_choice(wish.argument("scale"), wish.scale, get_args(StoredScale))
    return Judgement(scale=wish.scale)


def _slice_genes(
    data: Input, cells: IntArray | None, slices: NDArray[np.str_] | None, *, is_tissue: bool
) -> SliceGenes | None:
    if slices is None and not is_tissue:
        return None
    n_cells = len(data.obs) if cells is None else len(cells)
    codes = np.zeros(n_cells, dtype=np.int64) if slices is None else pd.factorize(slices)[0]
    n_genes = len(data.var)
    if (codes.max(initial=0) + 1) * n_genes > _MOST_SLICE_GENES:
        return None
    return SliceGenes(codes, n_genes, **({} if is_tissue else {"least_expected": _LEAST_IN_BATCH}))


def _check_values(
    data: Input, wish: ReadOptions, scan: Scan, stored: RowSource, cells: IntArray | None
) -> None:
    where = _slot(data, wish)
    if wish.scale is not None and wish.scale.startswith(("log", "arcsinh")):
        _check_logarithms(data, wish, scan, stored)
    if scan.missing_at is not None:
        cell, column = scan.missing_at
        cell = cell if cells is None else int(cells[cell])
        raise InputError(
            where,
            expected="a number for every cell and gene",
            got=f"NaN or infinite values ({scan.n_missing:,} of them, the first in cell "
            f"{str(data.obs.names()[cell])!r}, gene {str(data.var.index[column])!r})",
            fix=sentence(
                "Remove these cells or genes, or write zero where nothing was counted."
                + (
                    " If sections with different panels were combined, specify the column that identifies "
                    "them: {}."
                    if wish.name == "spatial"
                    else (
                        " If tables with different genes were combined, keep the genes that all of them have."
                    )
                ),
                *[arg("slices", Placeholder("COLUMN"))] * (wish.name == "spatial"),
            ),
        )
    if scan.n_negative:
        scaled = scan.n_fractional > 0
        got = f"values below zero ({scan.n_negative:,} of them, the smallest {scan.smallest:g}), "
        got += (
            "as in z-scored (scaled) data, or logarithms of values below 1"
            if scaled
            else "all of them integers: counts cannot be negative"
        )
        as_before = "Pass the counts as they were before scaling (scanpy.pp.scale)."
        fix = _other_values(data, wish) or (as_before if scaled else "Correct the counts.")
        raise ScaleError(where, expected="raw counts, at or above zero", got=got, fix=fix)
    if scan.largest > _MOST_COUNTS:
        raise InputError(
            where,
            expected=f"counts, or values derived from counts, below {_MOST_COUNTS:g}",
            got=f"values up to {scan.largest:g}",
            fix="Check the values for a placeholder or an overflow, and correct them.",
        )


def _check_any_counts(data: Input, wish: ReadOptions, scan: Scan) -> None:
    where = _slot(data, wish)
    if not scan.n_values:
        raise InputError(
            where,
            expected="cells with counts",
            got=f"{len(scan.totals):,} cells, all of them empty (only zeros)",
            fix=_other_values(data, wish) or "Pass the matrix that contains the counts.",
        )


def _check_logarithms(data: Input, wish: ReadOptions, scan: Scan, stored: RowSource) -> None:
    """Raise `SettingError` if values are too large for the logarithms given by the caller."""
    # The scan has seen the values from which they are computed
    is_undone = wish.scale is not None and SCALES[wish.scale] != "log"
    most = _MOST_COUNTS if is_undone else 80  # exp(80) is not a count, and close to the limit of float32
    if scan.largest > most:
        looks = judge_scale(stored, data.columns).scale
        raise SettingError(
            wish.argument("scale"),
            expected=f"logarithms below 80, because the scale is given as {wish.scale!r}",
            got=f"values up to {scan.largest:g} in {_slot(data, wish)}"
            + " after undoing the logarithm" * is_undone,
            fix=f"The values look {looks}. Leave " + arg(wish.argument("scale")) + " out to detect them.",
        )


def _other_values(data: Input, wish: ReadOptions) -> str:
    """Describe other values of the input that may be the counts; empty if there are none."""
    argument = wish.argument("layer")
    layers = [str(name) for name in data.layers if name != wish.layer]
    if data.has_raw and wish.layer != RAW and count_layer(data, wish) is None:
        return "Its raw slot may contain the counts: " + arg(argument, RAW) + "."
    likely = count_layer(data, wish)
    there = f". Available layers: {shorten(layers, most=10)}."
    if layers:
        if likely is None:
            return "Pass the layer with raw counts, " + arg(argument, Placeholder("NAME")) + there
        return "Pass the raw counts: " + arg(argument, likely) + there
    return ""
