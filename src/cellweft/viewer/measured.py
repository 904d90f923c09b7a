"""Measured values next to imputed ones: the panel of a tissue, in the order of the imputed cells."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cellweft._compute import row_blocks
from cellweft._errors import CellweftError, GeneError, InputError, ScaleError
from cellweft._text import shorten
from cellweft._typing import FloatArray, IntArray, Matrix, Scale, StoredScale
from cellweft.data.expression_scale import SCALES, undo
from cellweft.data.gene_names import match_sides
from cellweft.data.io.backed_matrix import Rows, WrappedRows, open_rows
from cellweft.data.io.lazy_input import Input
from cellweft.data.io.lost_chunks import lost_regions, refuse_lost_cells
from cellweft.data.io.obs_table import Annotation
from cellweft.data.io.results import result_scale
from cellweft.data.validation import ReadOptions, check_cells, counts_in, gene_names, make_side
from cellweft.viewer.matrix import MOST_ROWS, Means, PackedBlock, SweptGenes, packed

_WISH = ReadOptions(name="spatial", duplicates="first")


class MeasuredGenes:
    """The measured values of a tissue in the cells of a result, on the result's scale.

    They are log-normalised as in `cellweft.pair`, or counts.

    Parameters
    ----------
    tissue
        The opened tissue.
    result
        The opened result.
    means
        Cache and threads for reading the tissue.

    Raises
    ------
    InputError
        No cell of the result is in the tissue, or names in the tissue are not unique.
    GeneError
        No gene of the result is in the tissue.

    Notes
    -----
    Only the names are read here. The first request for a gene reads all values once, to detect their scale
    and compute the total of each cell. The same pass keeps as many genes as fit in memory, unchanged. A gene
    is converted to its scale on request.
    """

    def __init__(self, tissue: Input, result: Input, means: Means) -> None:
        check_cells(tissue)
        tissue, wish = counts_in(tissue, _WISH)
        if wish.layer is not None:
            tissue = dataclasses.replace(tissue, matrix=tissue.layers[wish.layer])
        self._tissue, self._means, self.source = tissue, means, tissue.source
        genes = gene_names(tissue, _WISH)
        names = result.var.index.astype(str).to_numpy(dtype=np.str_)
        first = np.flatnonzero(~pd.Series(names).duplicated().to_numpy())
        match = match_sides(
            names[first],
            genes.names,
            first_var=result.var.iloc[first],
            second_var=tissue.var.iloc[genes.places],
        )
        if not len(match.first):
            raise GeneError(
                tissue.where,
                expected=f"genes of {result.where}",
                got=f"none of them, but {shorten(genes.names.tolist(), most=3) or 'no genes'}",
                fix="Pass the tissue whose genes were imputed, or omit it.",
            )
        self.genes: dict[int, int] = dict(
            zip(first[match.first].tolist(), range(len(match.first)), strict=True)
        )
        self._names, self._places = genes, genes.places[match.second].astype(np.int64)
        self._order = order_of(tissue.obs, result.obs)
        if self._order is not None and not (self._order >= 0).any():
            raise InputError(
                tissue.where,
                expected=f"the cells of {result.where}, by their names",
                got=f"other names ({shorten(_some_names(tissue.obs), most=3)}), where the result has "
                f"{shorten(_some_names(result.obs), most=3)}",
                fix="Pass the tissue whose cells were imputed, or omit it.",
            )
        self._n_cells, self._as_counts = len(result.obs), result_scale(result) == "counts"
        self._lock = threading.Lock()
        self._read: tuple[SweptGenes, _Scale] | CellweftError | None = None

    def gene(self, number: int) -> FloatArray:
        """Return the measured values of a gene in the cells of the result.

        Parameters
        ----------
        number
            Number of the gene in the result.

        Returns
        -------
        (n_cells,)
            float32; NaN for cells that are not in the tissue, and for all cells if the gene is not.

        Raises
        ------
        InputError, ScaleError, FormatError
            As in `cellweft.pair`, if the values cannot be used; or they are not counts, but the result is.
        """
        if number not in self.genes:
            return np.full(self._n_cells, np.nan, dtype=np.float32)
        swept, scale = self.read()
        stored = scale.undone(swept.gene(self.genes[number]))
        values = stored if self._as_counts else scale.logarithms(stored)
        if self._order is None:
            return values
        ordered = values[self._order]
        ordered[self._order < 0] = np.nan
        return ordered

    def read(self) -> tuple[SweptGenes, _Scale]:
        """Return the genes as stored in the tissue, and their scale; the first call reads the tissue.

        Raises
        ------
        InputError, ScaleError, FormatError
            As in `gene`.
        """
        with self._lock:
            if self._read is None:
                try:
                    self._read = self._first_read()
                except CellweftError as error:
                    self._read = error
            if isinstance(self._read, CellweftError):
                raise self._read
            return self._read

    def _first_read(self) -> tuple[SweptGenes, _Scale]:
        tissue = self._tissue
        values, where = tissue.values(None, argument="layer"), f"{tissue.where}.X"
        lost, source = lost_regions(values, where=where), open_rows(values, where=where)
        columns = self._places if tissue.columns is None else tissue.columns[self._places]
        swept = SweptGenes(source, self._means, columns=columns)
        watched = _Watched(source, self._places[: swept.width])
        no_panel = np.zeros(0, dtype=np.int64)
        side, _ = make_side(dataclasses.replace(tissue, matrix=watched), self._names, _WISH, panel=no_panel)
        refuse_lost_cells(lost, side.empty_cells, where=where, names=tissue.obs.names)
        swept.keep(watched.blocks)
        if self._as_counts and side.scale != "raw":
            raise ScaleError(
                where,
                expected="counts, as the result has",
                got="values that are not counts",
                fix="Pass the tissue with its counts, or omit it.",
            )
        if side.scale != "raw":
            return swept, _Scale(side.scale, side.judgement.scale, None)
        totals = side.totals
        factors = np.divide(side.target, totals, out=np.zeros_like(totals), where=totals > 0)
        return swept, _Scale(side.scale, side.judgement.scale, factors.astype(np.float32))


@dataclass(frozen=True, eq=False)
class _Scale:
    kind: Scale
    stored: StoredScale
    factors: FloatArray | None  # (n_cells,)

    def undone(self, values: FloatArray) -> FloatArray:
        """Return a gene as counts, normalised counts or natural logarithms."""
        if self.stored != SCALES[self.stored]:
            values = values.copy()
            undo(values, self.stored)
        return values

    def logarithms(self, values: FloatArray) -> FloatArray:
        """Log-normalise a gene from `undone`, as `cellweft.data.side.Side.block` does."""
        if self.kind == "log":
            return values
        return np.log1p(values if self.factors is None else values * self.factors)


@dataclass(frozen=True, eq=False)
class _Watched(WrappedRows):
    """A matrix that is read sequentially, and keeps some genes."""

    kept: IntArray  # positions among the columns to read
    blocks: list[PackedBlock] = field(default_factory=list)

    def read(self, rows: Rows, columns: IntArray | None = None) -> Matrix:
        block = self.source.read(rows, columns)
        if isinstance(rows, slice):
            for part in row_blocks(block.shape[0], MOST_ROWS):
                place = slice(rows.start + part.start, rows.start + part.stop)
                self.blocks.append(packed(place, block[part], self.kept))
        return block


def order_of(tissue: Annotation, result: Annotation) -> IntArray | None:
    """Return the row in the tissue of each cell of a result, by name; None if they are the same.

    Parameters
    ----------
    tissue, result
        Tables of the cells; names of the tissue must be unique.

    Returns
    -------
    (n_cells,) or None
        -1 for cells that are not in the tissue.
    """
    pairs = zip(tissue.name_blocks(), result.name_blocks(), strict=False)
    if len(tissue) == len(result) and all(np.array_equal(one, two) for one, two in pairs):
        return None
    names = pd.Index(tissue.names().astype(str))
    return np.asarray(names.get_indexer(pd.Index(result.names().astype(str))), dtype=np.int64)


def _some_names(table: Annotation) -> list[str]:
    """Return the first names of a table, and an ellipsis for the others, for an error."""
    return [str(name) for name in next(iter(table.name_blocks()), np.empty(0, dtype=object))[:4]]
