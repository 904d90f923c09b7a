"""What placing needs of a pair, or an error that says how to give it: places of spots, types of cells."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from weft._errors import InputError, KeyMissingError, arg
from weft._typing import DoubleArray
from weft.data.pair import Pair
from weft.data.space import column_of, text_labels

Labels: TypeAlias = str | NDArray[Any] | None
"""Type of every reference cell: a column of its ``obs``, (n_cells,) values, or None for the pair's labels."""


def labels_of(pair: Pair, labels: Labels = None) -> NDArray[np.str_]:
    """Return the type of every reference cell, (n_cells,), "unknown" where it is missing.

    Parameters
    ----------
    pair
        The cells.
    labels
        A column of their ``obs``, (n_cells,) values, or None for ``pair.labels``.

    Raises
    ------
    KeyMissingError
        The pair has no labels, or no such column.
    InputError
        Not one value for each cell.
    """
    if labels is None:
        if pair.labels is None:
            raise KeyMissingError(
                "labels",
                expected="a type for every cell of the reference",
                got="a pair without labels",
                fix="Name the column of obs when the pair is made: " + arg("labels", "COLUMN") + ".",
            )
        return pair.labels
    if isinstance(labels, str):
        where = f"the reference ({pair.sc.source})"
        return text_labels(column_of(pair.sc.obs, labels, where=where, argument="labels"))
    values = np.asarray(labels)
    if values.shape != (pair.sc.n_cells,):
        raise InputError(
            "labels",
            expected=f"one type for each of the {pair.sc.n_cells:,} cells",
            got=f"shape {values.shape}",
            fix="Give the types of the reference's cells, in their order.",
        )
    return text_labels(pd.Series(values))


def coordinates_of(pair: Pair) -> DoubleArray:
    """Return where the spots are, (n_spots, 2 or 3), or raise `KeyMissingError` where no place is known."""
    if pair.coordinates is None:
        raise KeyMissingError(
            "coordinates",
            expected="spots with places, to place cells on",
            got="a pair without coordinates",
            fix="Name them when the pair is made: "
            + arg("coordinates", "obsm:KEY")
            + " or "
            + arg("coordinates", "obs:X,Y")
            + ".",
        )
    return pair.coordinates
