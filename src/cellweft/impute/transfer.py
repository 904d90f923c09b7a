"""Transfers values of reference cells to the cells of the tissue, with the weights of a fitted method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from cellweft._compute import READ_ROWS, numpy_of, row_blocks
from cellweft._errors import SettingError, arg, sentence
from cellweft._text import shorten
from cellweft._typing import DoubleArray, FloatArray, Progress, no_progress
from cellweft.data._pair import Pair
from cellweft.data.cell_values import (
    CellValues,
    column_values,
    given_values,
    layer_values,
    mean_of,
    obsm_values,
    table_values,
)
from cellweft.data.io.prefetch import prefetch
from cellweft.impute.base import FittedMethod
from cellweft.impute.planning import columns_at_once
from cellweft.impute.training_data import asked_genes


def values_to_transfer(
    pair: Pair,
    values: Any = None,
    *,
    obs: str | Sequence[str] | None = None,
    obsm: str | None = None,
    layer: str | None = None,
    genes: Iterable[str] | None = None,
) -> CellValues:
    """Return the requested values of the reference; parameters and errors as in `Imputer.transfer`."""
    sources = {"values": values, "obs": obs, "obsm": obsm, "layer": layer}
    named = [name for name, source in sources.items() if source is not None]
    if len(named) != 1:
        raise SettingError(
            named[-1] if named else "obs",
            expected="one of obs, obsm, layer and values",
            got=shorten([f"{name}=" for name in named]) if named else "none",
            fix=sentence(
                "Choose what to transfer, such as {}. Call the function once for each.", arg("obs", "score")
            ),
        )
    if genes is not None and layer is None:
        raise SettingError(
            "genes",
            expected=sentence("{}, which has genes", arg("layer")),
            got=f"{named[0]}=",
            fix=sentence("Leave {} out.", arg("genes")),
        )
    if layer is not None:
        return layer_values(pair, layer, asked_genes(pair, genes))
    if obsm is not None:
        return obsm_values(pair.sc, obsm)
    if isinstance(obs, str):
        return column_values(pair.sc, obs, argument="obs")
    if obs is not None:
        return table_values(pair.sc, obs, argument="obs")
    return given_values(pair.sc, values)


def transfer_values(
    fitted: FittedMethod, pair: Pair, values: CellValues, *, memory: str | int, progress: Progress
) -> DoubleArray:
    """Return weighted means of the reference's values for each spatial cell, as an array.

    Parameters
    ----------
    fitted
        The fitted method.
    pair
        The pair passed to `fit` or `attach`, or the same pair with other spatial cells.
    values
        Values of the reference cells.
    memory
        Budget for the whole process, for example "4 GB".
    progress
        Called after each block of cells.

    Returns
    -------
    (n_cells, n_columns)
    """
    at_once = columns_at_once(pair, values.n_columns, settings=fitted.settings, memory=memory)
    return carried_to(
        fitted,
        lambda rows: pair.st.dense(rows, pair.st_shared),
        values,
        n_cells=pair.st.n_cells,
        at_once=at_once,
        progress=progress,
    )


def carried_to(
    fitted: FittedMethod,
    read: Callable[[slice], FloatArray],
    values: CellValues,
    *,
    n_cells: int,
    at_once: int,
    sharpness: float = 1.0,
    progress: Progress = no_progress,
) -> DoubleArray:
    """Return weighted means of the reference's values for cells, given their panel.

    Parameters
    ----------
    fitted
        The fitted method.
    read
        Returns the log-normalised panel, (n_rows, n_panel), of a slice of the cells.
    values
        Values of the reference cells.
    n_cells
        Number of cells.
    at_once
        Number of columns to transfer at once.
    sharpness
        As in `cellweft.impute.base.FittedMethod.operator`.
    progress
        Called after each block of cells.

    Returns
    -------
    (n_cells, n_columns)
    """
    result = np.empty((n_cells, values.n_columns))
    blocks, passes = list(row_blocks(n_cells, READ_ROWS)), list(row_blocks(values.n_columns, at_once))
    for number, columns in enumerate(passes):

        def carry(numbers: DoubleArray, done: int = number * n_cells) -> DoubleArray:
            table = torch.from_numpy(numbers.astype(np.float32)).to(fitted.device)
            carried = np.empty((n_cells, numbers.shape[1]))
            for rows, measured in zip(blocks, prefetch(map(read, blocks)), strict=True):
                carried[rows] = numpy_of(fitted.operator(measured, sharpness=sharpness).apply(table))
                progress("cells", done + rows.stop, n_cells * len(passes))
            return carried

        result[:, columns] = mean_of(values.read(columns), carry)
    return result
