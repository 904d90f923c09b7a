"""What placing needs of a pair, or an error that says how to give it; and what records say of a pair."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from weft._errors import InputError, KeyMissingError, arg
from weft._typing import DoubleArray
from weft.data.digest import values_digest
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


def inputs_of(pair: Pair) -> dict[str, dict[str, Any]]:
    """Return what is recorded of the two inputs, as plain values that every format stores.

    Parameters
    ----------
    pair
        The data.

    Returns
    -------
    dict
        For "reference" and "spatial": ``path`` ("memory" where there is none), ``bytes`` of the file or
        folder (0 in memory), ``cells``, ``genes``, ``digest`` (`weft.data.digest.values_digest`: of the
        values as they were read, not of the bytes of the file), ``layer`` ("X" by default), ``scale`` that
        was recognised or named, ``labels`` and ``size_factor`` (columns of ``obs``, empty where there are
        none), and of the spatial side ``coordinates`` and ``slices``, where these were found.
    """
    made: dict[str, dict[str, Any]] = {}
    for side in (pair.sc, pair.st):
        told = pair.findings[side.name]
        path = side.source.removeprefix("AnnData backed by ")
        made[side.name] = {
            "path": "memory" if path == "AnnData in memory" else path,
            "bytes": _size(Path(path)),
            "cells": side.n_cells,
            "genes": side.n_genes,
            "digest": values_digest(side),
            "layer": str(told["layer"] or "X"),
            "scale": side.scale,
            "labels": str(told["labels"] or ""),
            "size_factor": str(told["size_factor"] or ""),
        }
    for name in ("coordinates", "slices"):
        made["spatial"][name] = str(pair.findings[name]["found"] or "")
    return made


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files of a folder; 0 where there is none."""
    if not path.is_dir():
        return path.stat().st_size if path.is_file() else 0
    return sum(Path(folder, name).stat().st_size for folder, _, names in os.walk(path) for name in names)
