"""One result for the page: session, positions, genes, values, columns, comparison."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellweft._errors import (
    CellweftError,
    FormatError,
    GeneError,
    InputError,
    KeyMissingError,
    arg,
    check_known,
    check_range,
)
from cellweft._text import shorten
from cellweft._typing import FloatArray
from cellweft.data.gene_names import shown_names
from cellweft.data.io.damaged import reading
from cellweft.data.io.keys import INTERVAL, MEASURED, RECORD, RELIABILITY
from cellweft.data.io.lazy_input import Input
from cellweft.data.io.obs_table import Annotation, StoredTable, as_text
from cellweft.data.io.results import ResultKind, coordinate_unit, place_key, result_kind, result_scale
from cellweft.data.spatial import find_coordinates
from cellweft.viewer.columns import Column, columns_of, slices_of
from cellweft.viewer.matrix import GeneMatrix, Means, open_genes
from cellweft.viewer.measured import MeasuredGenes
from cellweft.viewer.region_markers import compared, read_inside
from cellweft.viewer.source import WatchedSource

_TOP = 0.99  # quantile at the upper end of the colour scale


def _limits(widths: FloatArray) -> tuple[float, float]:
    """Return the 0.01 and 0.99 quantiles, because widths are not near 0 and vary little."""
    finite = widths[np.isfinite(widths)]
    low, high = np.quantile(finite, [1 - _TOP, _TOP]) if len(finite) else (0.0, 0.0)
    return float(low), float(high)


def kind_of(opened: Input) -> ResultKind:
    """Return the kind of a result.

    Raises
    ------
    FormatError
        It is not a result of cellweft.
    """
    kind = result_kind(opened)
    if kind is not None:
        return kind
    if RECORD in opened.uns:
        return "spots"
    raise FormatError(
        opened.where,
        expected="a result of cellweft: imputed genes, placed cells or spots",
        got="data without var['measured'], obsm['cellweft_spatial'] or uns['cellweft']",
        fix="Pass a result of cellweft. Pass the tissue with " + arg("tissue") + ".",
    )


class Dataset:
    """One result.

    Parameters
    ----------
    opened
        The result.
    title
        Its title on the page.
    means
        Cache and threads for reading.
    tissue
        The measured values of its cells, or None.
    more
        Additional columns for colouring its cells.

    Attributes
    ----------
    kind, title, n_cells
        Its kind, its title, and its number of cells (or spots).
    layers
        The available pictures of a gene, from "measured", "imputed" and "uncertainty".
    measured
        The tissue, or None.

    Raises
    ------
    FormatError
        It is not a result of cellweft.
    KeyMissingError, InputError
        It has no positions, or they are not numbers.
    """

    def __init__(
        self,
        opened: Input,
        *,
        title: str,
        means: Means,
        tissue: MeasuredGenes | None = None,
        more: Sequence[Column] = (),
    ) -> None:
        sources = [opened.source] if tissue is None else [opened.source, tissue.source]
        self._sources = [WatchedSource(one.removeprefix("AnnData backed by ")) for one in sources]
        self.kind, self.title, self.measured = kind_of(opened), title, tissue
        self.n_cells = len(opened.obs)
        self._opened = opened
        self._places = _positions(opened)
        self._columns = {one.name: one for one in (*columns_of(opened), *more)}
        self._names = shown_names(opened.var)
        self._numbers = {name: number for number, name in reversed(list(enumerate(self._names)))}
        self._matrices, self._cache = self._open(means), means.cache
        self.layers = self._known_layers()
        self._tops: dict[tuple[int, str], float] = {}
        self._lock = threading.Lock()

    def change(self, *, closely: bool = False) -> CellweftError | None:
        """Return an error if one of its files has changed since it was opened; None if not.

        Parameters
        ----------
        closely
            As in `cellweft.viewer.source.WatchedSource.change`.
        """
        changes = (one.change(closely=closely) for one in self._sources)
        return next((one for one in changes if one is not None), None)

    def session(self) -> dict[str, Any]:
        """Return the description of the dataset that the page loads first."""
        finite = self._places[np.isfinite(self._places).all(axis=1)]
        low, high = finite.min(axis=0), finite.max(axis=0)
        record = self._opened.uns.get(RECORD, {})
        interval = record.get("interval") if isinstance(record, Mapping) else None
        columns = list(self._columns.values())
        return {
            "title": self.title,
            "kind": self.kind,
            "cells": self.n_cells,
            "genes": len(self._names) if self.layers else 0,
            "layers": list(self.layers),
            "scale": result_scale(self._opened),
            "interval": float(interval) if isinstance(interval, float) else None,
            "columns": [column.told() for column in columns],
            "bounds": [float(low[0]), float(low[1]), float(high[0]), float(high[1])],
            "unit": coordinate_unit(self._opened) or None,
            "slices": slices_of(columns, self.n_cells),
            "cell": True,
        }

    def positions(self) -> FloatArray:
        """Return x and y of each cell, (n_cells, 2), NaN without a position."""
        return self._places

    def genes(self) -> dict[str, Any]:
        """Return the names of the genes, whether panel and tissue contain them, and their reliability."""
        if not self.layers:
            return {"names": [], "measured": [], "in_tissue": [], "reliability": []}
        tissue = () if self.measured is None else self.measured.genes
        return {
            "names": self._names,
            "measured": self._measured(),
            "in_tissue": [number in tissue for number in range(len(self._names))],
            "reliability": [_or_none(score) for score in self._reliability()],
        }

    def values(self, gene: str, layer: str) -> tuple[FloatArray, float, float]:
        """Return a gene in all cells, and the limits of its colour scale.

        Parameters
        ----------
        gene
            Its name.
        layer
            One of `layers`.

        Returns
        -------
        values : ndarray
            (n_cells,) float32, NaN if there is none.
        low, high : float
            Limits of the colour scale: 0, and the larger of the 0.99 quantiles of measured and imputed
            values. For uncertainty, the 0.01 and 0.99 quantiles.

        Raises
        ------
        KeyMissingError
            No such layer.
        GeneError
            No such gene.
        """
        there = f"one of {shorten(self.layers)}" if self.layers else "a dataset with genes"
        check_known(layer, self.layers, arg("layer", layer), expected=there, got="no such layer")
        there, got = f"a gene of {self.title}", "no such gene"
        check_known(gene, self._numbers, arg("gene", gene), expected=there, got=got, error=GeneError)
        number = self._numbers[gene]
        values = self._layer(number, layer)
        if layer == "uncertainty":
            return values, *_limits(values)
        tops = [
            self._top(number, kind, values if kind == layer else None)
            for kind in ("measured", "imputed")
            if kind in self.layers
        ]
        return values, 0.0, max(tops)

    def column(self, name: str) -> NDArray[Any]:
        """Return a column: uint16 codes of labels, or float32.

        Raises
        ------
        KeyMissingError
            No such column.
        """
        check_known(
            name, self._columns, arg("name", name), expected=f"a column of {self.title}", got="no such column"
        )
        return self._cache.get((self, name), self._columns[name].read)

    def cell(self, number: int) -> dict[str, Any]:
        """Return the name of a cell and its values in all columns, None for missing ones.

        Parameters
        ----------
        number
            Number of the cell, from 0.

        Raises
        ------
        SettingError
            There is no such cell.
        """
        check_range("index", number, low=0, high=self.n_cells - 1, integer=True)
        columns = {
            name: column.value(self.column(name)[number].item()) for name, column in self._columns.items()
        }
        return {"name": _name(self._opened.obs, number), "columns": columns}

    def compare(self, body: bytes, *, is_gone: Callable[[], bool] = lambda: False) -> dict[str, Any]:
        """Return the genes that best distinguish some cells from the others.

        Parameters
        ----------
        body
            One bit per cell, as in `cellweft.viewer.region_markers.read_inside`.
        is_gone
            Called now and then; returns whether the client has disconnected.

        Raises
        ------
        KeyMissingError
            The dataset has no imputed genes.
        SettingError
            The body has another length, or all cells are on one side.
        GoneError
            The client has disconnected.
        """
        inside = read_inside(body, self.n_cells)
        if "imputed" not in self._matrices:
            raise KeyMissingError(
                self.title, expected="imputed genes", got="none", fix="Choose a dataset that has genes."
            )
        reliability, measured = self._reliability(), self._measured()
        known_reliability = None if np.isnan(reliability).all() else reliability
        with reading(self._opened.where, ".X"):
            markers = compared(
                self._matrices["imputed"], inside, reliability=known_reliability, is_gone=is_gone
            )
        genes = [
            {"name": self._names[number], **scores}
            | {"reliability": _or_none(reliability[number]), "measured": measured[number]}
            for number, scores in markers.items()
        ]
        n_inside = int(inside.sum())
        return {"inside": n_inside, "outside": self.n_cells - n_inside, "layer": "imputed", "genes": genes}

    def _open(self, means: Means) -> dict[str, GeneMatrix]:
        opened, matrices = self._opened, {}
        held = {} if opened.matrix is None or not self._names else {"imputed": opened.matrix}
        held |= {name: opened.layers[name] for name in INTERVAL if held and name in opened.layers}
        for name, stored in held.items():
            matrix = open_genes(stored, means, where=f"{opened.where} ({name})")
            if matrix.shape != (self.n_cells, len(self._names)):
                raise FormatError(
                    f"{opened.where} ({name})",
                    expected=f"{self.n_cells:,} cells x {len(self._names):,} genes, as obs and var state",
                    got=f"{matrix.shape[0]:,} x {matrix.shape[1]:,}",
                    fix="Write the file again with AnnData.",
                )
            matrices[name] = matrix
        return matrices

    def _known_layers(self) -> tuple[str, ...]:
        there = {
            "measured": self.measured is not None,
            "imputed": "imputed" in self._matrices,
            "uncertainty": all(name in self._matrices for name in INTERVAL),
        }
        return tuple(name for name, is_there in there.items() if is_there)

    def _layer(self, number: int, layer: str) -> FloatArray:
        with reading(self._opened.where, f", gene {self._names[number]!r}"):
            return self._read_layer(number, layer)

    def _read_layer(self, number: int, layer: str) -> FloatArray:
        if layer == "measured" and self.measured is not None:
            return self.measured.gene(number)
        if layer == "uncertainty":
            lower, upper = (self._matrices[name].gene(number) for name in INTERVAL)
            return np.asarray(upper - lower)
        return self._matrices[layer].gene(number)

    def _top(self, number: int, layer: str, values: FloatArray | None) -> float:
        """Return the upper limit of a colour scale: the quantile, or the maximum if that is zero."""
        with self._lock:
            top = self._tops.get((number, layer))
        if top is None:
            every = self._layer(number, layer) if values is None else values
            finite = every[np.isfinite(every)]
            top = float(np.quantile(finite, _TOP)) if len(finite) else 0.0
            top = top if top > 0 or not len(finite) else max(float(finite.max()), 0.0)
            with self._lock:
                self._tops[number, layer] = top
        return top

    def _measured(self) -> list[bool]:
        return [
            bool(is_measured) for is_measured in self._opened.var.get(MEASURED, [False] * len(self._names))
        ]

    def _reliability(self) -> NDArray[np.float64]:
        values = self._opened.var.get(RELIABILITY, np.full(len(self._names), np.nan))
        return np.asarray(pd.to_numeric(values, errors="coerce"), dtype=np.float64)


def _name(table: Annotation, number: int) -> str:
    if isinstance(table, StoredTable):
        with reading(table.where, "_names"):
            return as_text(table.index[number])
    return str(table.names(np.array([number]))[0])


def _or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _positions(opened: Input) -> FloatArray:
    """Return x and y without a third dimension; both are NaN if one is missing."""
    key = place_key(opened)
    if key is None:
        coordinates, _ = find_coordinates(opened.obs, opened.obsm, None, where=opened.where)
    else:
        coordinates = np.asarray(opened.obsm[key], dtype=np.float64)
    if (
        coordinates is None
        or coordinates.ndim != 2
        or coordinates.shape[1] < 2
        or not np.isfinite(coordinates[:, :2]).all(1).any()
    ):
        raise InputError(
            opened.where if key is None else f"{opened.where}.obsm[{key!r}]",
            expected="x and y of the cells",
            got="no cell positions"
            if coordinates is None
            else f"an array of shape {coordinates.shape} without them",
            fix="Write them to obsm['spatial'].",
        )
    places = coordinates[:, :2].astype(np.float32)
    places[~np.isfinite(places).all(axis=1)] = np.nan
    return places
