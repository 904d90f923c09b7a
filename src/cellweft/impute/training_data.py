"""Data that training reads from a pair: panel, cells, names of requested genes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from cellweft._compute import READ_ROWS, numpy_stream, row_blocks, stratified_rows
from cellweft._typing import DoubleArray, FloatArray, IntArray
from cellweft.data._pair import Pair

_TENTHS = 10  # of the cells by their totals


def asked_genes(pair: Pair, genes: Iterable[str] | None) -> IntArray:
    """Return the positions of the requested genes in the reference, each once; None and "all": all."""
    if genes is None or (isinstance(genes, str) and genes == "all"):
        return np.arange(pair.sc.n_genes)
    positions = pair.find_genes([genes] if isinstance(genes, str) else list(genes))
    return np.array(list(dict.fromkeys(positions.tolist())), dtype=np.int64)


def places_of(pair: Pair) -> dict[str, DoubleArray]:
    """Return the coordinates, without copying, as results contain them in ``obsm``."""
    return {} if pair.coordinates is None else {"spatial": pair.coordinates}


def training_cells(pair: Pair, most: int, seed: int) -> FloatArray:
    """Return the panel of spatial cells with counts: all, or ``most`` drawn evenly from all kinds.

    Parameters
    ----------
    pair
        The data.
    most
        Largest number of cells.
    seed
        Seed of the draw.

    Returns
    -------
    (n_training, n_panel)

    Notes
    -----
    The kind of a cell is its combination of slice, label, and decile of totals; genes are not used.
    """
    cells = np.flatnonzero(~pair.st.empty_cells)
    if len(cells) > most:
        stream = numpy_stream(seed, "training cells")
        cells = stratified_rows(cells, _kinds(pair, cells), most=most, stream=stream)
    return panel_of(pair, cells)


def _kinds(pair: Pair, cells: IntArray) -> IntArray:
    """Return the index of the kind of each cell, from 0."""
    totals = pair.st.totals[cells]
    kinds = np.searchsorted(np.quantile(totals, np.arange(1, _TENTHS) / _TENTHS), totals)
    for names in (pair.slices, pair.st_labels):
        if names is not None:
            codes, _ = pd.factorize(names[cells])
            kinds = pd.factorize(kinds * (codes.max() + 1) + codes)[0]
    return np.asarray(kinds, dtype=np.int64)


def panel_of(pair: Pair, cells: IntArray) -> FloatArray:
    """Return the panel of some spatial cells, (n_cells, n_panel)."""
    blocks = [pair.st.dense(cells[rows], pair.st_shared) for rows in row_blocks(len(cells), READ_ROWS)]
    return np.concatenate(blocks)
