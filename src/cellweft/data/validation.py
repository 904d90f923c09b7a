"""The checks that turn an opened input into a `Side`: names of cells and genes, values, sizes of cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

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
from cellweft._text import shorten
from cellweft._typing import DoubleArray, Duplicates, IntArray, Scale
from cellweft.data.digest import MatrixDigest, values_digest
from cellweft.data.expression_scale import Scan, judge_scale, scan_values
from cellweft.data.gene_names import duplicates_of, symbols_and_ids
from cellweft.data.io.backed_matrix import open_rows
from cellweft.data.io.columns import column_of
from cellweft.data.io.lazy_input import Input
from cellweft.data.io.obs_table import names_twice
from cellweft.data.side import Side, SideName

_COUNT_LAYERS = ("counts", "raw_counts", "raw", "count", "umi", "umis", "spliced")


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What the caller chose for one side; the names of the arguments are for the errors.

    Attributes
    ----------
    name
        Which side.
    labels, layer, gene_column, size_factor, scale
        As `cellweft.pair` takes them.
    duplicates
        What to do with a gene name that stands twice.
    """

    name: SideName
    labels: str | None = None
    layer: str | None = None
    gene_column: str | None = None
    size_factor: str | None = None
    scale: Scale | None = None
    duplicates: Duplicates

    def argument(self, what: str) -> str:
        """Return the argument of `cellweft.pair` for this side."""
        if what in ("size_factor", "labels") and self.name == "reference":
            return what
        return f"{'sc' if self.name == 'reference' else 'st'}_{what}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Genes:
    """The genes of a side: their names, their rows in ``var``, and how many copies were left out."""

    names: NDArray[np.str_]
    places: IntArray
    n_left_out: int


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckedSide:
    """The input of one side and what was chosen for it, and what the checks made and found of it.

    Attributes
    ----------
    data, wish, genes
        The opened input, what the caller chose, and the genes.
    side, scan
        The side, and what the scan of its values found.
    labels, labels_column
        Cell types, and the column they stand in.
    """

    data: Input
    wish: ReadOptions
    genes: Genes
    side: Side
    scan: Scan
    labels: NDArray[np.str_] | None
    labels_column: str


def check_cells(data: Input) -> None:
    """Raise `InputError` unless the input has two cells or more, each with a name of its own."""
    n_cells = len(data.obs)
    if n_cells < 2:
        fix = "Pass a matrix with one row per cell. Transpose a table of genes x cells."
        raise InputError(
            f"{data.where}.obs", expected="at least 2 cells", got="1 cell" if n_cells else "no cell", fix=fix
        )
    twice = names_twice(data.obs)
    if twice:
        raise InputError(
            f"{data.where}.obs_names",
            expected="a name of its own for every cell",
            got=f"names that stand twice ({len(twice):,}): {shorten(twice)}",
            fix="Make them unique first: adata.obs_names_make_unique().",
        )


def gene_names(data: Input, wish: ReadOptions) -> Genes:
    """Return the names of the genes of an input.

    Raises
    ------
    GeneError
        Duplicate names, and ``duplicates`` is not "first".
    KeyMissingError
        No such column of ``var``.
    """
    names = data.var.index
    if wish.gene_column is not None:
        argument = wish.argument("gene_column")
        names = pd.Index(
            column_of(data.var, wish.gene_column, where=data.where, argument=argument, slot="var")
        )
    names = names.astype(str)
    again = names.duplicated()
    if again.any() and wish.duplicates == "error":
        slot = "var_names" if wish.gene_column is None else f"var[{wish.gene_column!r}]"
        raise GeneError(
            f"{data.where}.{slot}",
            expected="every gene once",
            got=f"duplicate names ({again.sum():,} columns too many): {shorten(duplicates_of(names))}",
            fix=sentence(
                "Keep the first column of each with {}, or make the names unique first: "
                "adata.var_names_make_unique().",
                arg("duplicates", "first"),
            ),
        )
    kept = np.flatnonzero(~again)
    return Genes(names=names[kept].to_numpy(dtype=np.str_), places=kept, n_left_out=int(again.sum()))


def make_side(data: Input, genes: Genes, wish: ReadOptions, *, panel: IntArray) -> tuple[Side, Scan]:
    """Read the values once, check them, and return the side with what the scan found.

    Parameters
    ----------
    data, genes, wish
        The opened input, its genes, and what the caller chose.
    panel
        Positions of the shared genes among ``genes``.

    Raises
    ------
    InputError
        NaN or infinite values, or no counts at all.
    ScaleError
        Values below zero.
    FormatError
        The matrix does not fit the annotation.
    """
    sizes = _sizes(data, wish)
    source = open_rows(data.values(wish.layer, argument=wish.argument("layer")), where=_slot(data, wish))
    n_columns = len(data.var) if data.columns is None else source.shape[1]
    if source.shape != (len(data.obs), n_columns):
        raise FormatError(
            _slot(data, wish),
            expected=f"{len(data.obs):,} cells x {n_columns:,} genes, as obs and var say",
            got=f"{source.shape[0]:,} x {source.shape[1]:,}",
            fix="Write the file anew with AnnData.",
        )
    seen = MatrixDigest()
    scan = scan_values(source, data.columns, panel=genes.places[panel], look=seen.add)
    scale = _checked_scale(data, wish, scan)
    empty = scan.totals == 0
    n_bad = 0 if sizes is None else int((sizes[~empty] <= 0).sum())
    if n_bad:
        raise InputError(
            f"{data.where}.obs[{wish.size_factor!r}]",
            expected="a size above zero for every cell that has counts",
            got=f"zero or less for {n_bad:,} cells",
            fix="Correct the column, or remove these cells.",
        )
    totals = scan.totals if sizes is None else sizes
    symbols, gene_ids = symbols_and_ids(genes.names, data.var.iloc[genes.places])
    side = Side(
        name=wish.name,
        source=data.source,
        matrix=source,
        table=data.obs,
        arrays=data.obsm,
        uns=data.uns,
        genes=genes.names,
        columns=(genes.places if data.columns is None else data.columns[genes.places]).astype(np.int64),
        rows=None,
        scale=scale,
        totals=totals,
        target=float(np.median(totals[~empty])),
        has_sizes=sizes is not None,
        sparsity=scan.sparsity,
        empty_cells=empty,
        gene_cells=scan.gene_cells[genes.places],
        symbols=symbols,
        gene_ids=gene_ids,
    )
    if not genes.n_left_out:
        values_digest(side, seen)
    return side, scan


def count_layer(data: Input, wish: ReadOptions) -> str | None:
    """Return the layer that by its name holds raw counts, unless it is the one in use."""
    known = {str(name).lower(): str(name) for name in data.layers}
    found = next((known[name] for name in _COUNT_LAYERS if name in known), None)
    return None if found == wish.layer else found


def _slot(data: Input, wish: ReadOptions) -> str:
    return f"{data.where}.X" if wish.layer is None else f"{data.where}.layers[{wish.layer!r}]"


def _sizes(data: Input, wish: ReadOptions) -> DoubleArray | None:
    if wish.size_factor is None:
        return None
    argument = wish.argument("size_factor")
    column = column_of(data.obs, wish.size_factor, where=data.where, argument=argument)
    sizes = np.asarray(pd.to_numeric(column, errors="coerce"), dtype=np.float64)
    bad = int((~np.isfinite(sizes)).sum())
    if bad:
        raise InputError(
            f"{data.where}.obs[{wish.size_factor!r}]",
            expected="a number for every cell, such as its total over all genes",
            got=f"no number for {bad:,} of {len(sizes):,} cells",
            fix="Name another column, or remove these cells.",
        )
    return sizes


def _checked_scale(data: Input, wish: ReadOptions, scan: Scan) -> Scale:
    where = _slot(data, wish)
    if scan.missing_at is not None:
        cell, column = scan.missing_at
        raise InputError(
            where,
            expected="a number for every cell and gene",
            got=f"NaN or infinite values ({scan.n_missing:,} of them, the first in cell "
            f"{str(data.obs.names()[cell])!r}, gene {str(data.var.index[column])!r})",
            fix="Remove these cells or genes, or put zero where nothing was counted.",
        )
    if scan.n_negative:
        scaled = scan.n_fractional > 0
        got = f"values below zero ({scan.n_negative:,} of them, the smallest {scan.smallest:g}), "
        got += "as z-scored (scaled) data have" if scaled else "all of them whole: counts cannot be negative"
        as_before = "Pass the counts as they were before scaling (scanpy.pp.scale)."
        fix = _other_values(data, wish) or (as_before if scaled else "Correct the counts.")
        raise ScaleError(where, expected="raw counts, at or above zero", got=got, fix=fix)
    if not scan.n_values:
        raise InputError(
            where,
            expected="cells with counts",
            got=f"{len(data.obs):,} cells that are all empty (only zeros)",
            fix=_other_values(data, wish) or "Pass the matrix that holds the counts.",
        )
    judged = judge_scale(scan)
    if wish.scale is not None:
        scale = wish.argument("scale")
        check_choice(scale, wish.scale, ("raw", "normalised", "log"))
        if wish.scale == "log" and scan.largest > 80:  # exp(80) is no count, and float32 ends soon after
            raise SettingError(
                scale,
                expected="logarithms, which stay below 80, where 'log' is said",
                got=f"values up to {scan.largest:g} in {where}",
                fix=f"The values look {judged}; leave " + arg(scale) + " out to detect them.",
            )
    return wish.scale or cast(Scale, judged)


def _other_values(data: Input, wish: ReadOptions) -> str:
    """Say which other values of the input may be the counts; empty where there are none."""
    argument = wish.argument("layer")
    layers = [str(name) for name in data.layers if name != wish.layer]
    likely = count_layer(data, wish)
    there = f". Layers that exist: {shorten(layers, most=10)}."
    if layers:
        if likely is None:
            return "Pass the layer with raw counts, " + arg(argument, Placeholder("NAME")) + there
        return "Pass the raw counts: " + arg(argument, likely) + there
    side = "sc" if wish.name == "reference" else "st"
    return f"The input has a raw slot: pass {side}=adata.raw.to_adata()." if data.has_raw else ""
