"""The requested labels of the reference, from one column, or from several that are predicted together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellweft._errors import InputError, Placeholder, arg, sentence
from cellweft._typing import BoolArray, IntArray
from cellweft.data._pair import Labels, Pair, labels_of
from cellweft.data.cell_values import CellValues

_NO_LABEL = "unknown"  # how missing labels are read


@dataclass(frozen=True, kw_only=True, eq=False)
class ReferenceLabels:
    """Labels of the reference, of one column or of several.

    Attributes
    ----------
    columns
        Names of the columns, from the one with the fewest labels to the one with the most.
    names
        (n_columns, n_labels) for each column, the label of each combination. With one column, its labels.
    codes
        (n_sc,) index of the combination of each reference cell, -1 without one.
    """

    columns: tuple[str, ...]
    names: NDArray[np.str_]
    codes: IntArray

    def groups(self, number: int) -> tuple[NDArray[np.str_], IntArray]:
        """Return the labels of a column, and the one of each combination."""
        names, groups = np.unique(self.names[number], return_inverse=True)
        return names, groups.astype(np.int64)

    def counts(self, number: int) -> dict[str, int]:
        """Return the number of reference cells with each label of a column."""
        names, groups = self.groups(number)
        cells = np.bincount(groups[self.codes[self.codes >= 0]], minlength=len(names))
        return {str(name): int(n) for name, n in zip(names, cells, strict=True)}

    def values(self, kept: BoolArray) -> CellValues:
        """Return indicators of the combinations, using only the ``kept`` cells of the reference, (n_sc,)."""
        codes = np.where(kept, self.codes, -1)
        every = np.arange(self.names.shape[1])
        return CellValues(
            n_columns=len(every), read=lambda columns: (codes[:, None] == every[columns]).astype(np.float64)
        )


def read_labels(pair: Pair, labels: Labels | Sequence[str], *, argument: str = "labels") -> ReferenceLabels:
    """Return the requested labels of the reference, without unlabelled cells.

    Parameters
    ----------
    pair
        The data.
    labels
        A column of the reference's ``obs``, a list of several, (n_sc,) values, or None for ``pair.labels``.
    argument
        Name of the argument in errors.

    Raises
    ------
    KeyMissingError, InputError
        No such column, not one label per cell, no labels, or only one distinct label.
    """
    if isinstance(labels, Sequence) and not isinstance(labels, str):
        _check_columns(pair, labels)
        columns = {str(name): labels_of(pair, str(name), argument=argument) for name in labels}
    else:
        column = labels if isinstance(labels, str) else "labels"
        if labels is None:
            column = str(pair.findings["reference"]["labels"] or column)
        columns = {column: labels_of(pair, labels)}
    ordered = sorted(columns, key=lambda name: len(np.unique(columns[name].astype(str))))
    if not ordered:
        fix = sentence("Specify one: {}.", arg(argument, Placeholder("COLUMN")))
        raise InputError(argument, expected="one or more columns of obs", got="none", fix=fix)
    table = pd.DataFrame({name: columns[name].astype(str) for name in ordered})
    has_label = (table != _NO_LABEL).all(axis=1).to_numpy() & ~pair.sc.empty_cells
    for name in ordered:
        _check_labels(pair, name, table[name][has_label], argument)
    grouped = table[has_label].groupby(ordered, sort=True)
    codes = np.full(pair.sc.n_cells, -1, dtype=np.int64)
    codes[has_label] = grouped.ngroup().to_numpy()
    names = table[has_label].drop_duplicates().sort_values(ordered).to_numpy().T.astype(str)
    return ReferenceLabels(columns=tuple(ordered), names=names, codes=codes)


def _check_columns(pair: Pair, names: Sequence[object]) -> None:
    """Raise if a list does not contain names of columns; labels of cells must be an array."""
    if len(names) == pair.sc.n_cells and not {*map(str, names)} <= {*pair.sc.table.columns}:
        raise InputError(
            "labels",
            expected="a list of columns of obs, or an array with a label per cell",
            got=f"a list of {len(names):,} other strings, one per cell",
            fix="Pass the labels of the cells as an array: np.array(labels).",
        )


def _check_labels(pair: Pair, name: str, labels: pd.Series[Any], argument: str) -> None:
    kinds, n_cells = labels.unique(), pair.sc.n_cells
    if len(kinds) >= 2:
        return
    alike = f"{kinds[0]!r} for all {len(labels):,} cells that have a label" if len(kinds) else ""
    raise InputError(
        argument,
        expected=f"cells of at least 2 types in {name!r} of the reference",
        got=alike or f"none for any of its {n_cells:,} cells",
        fix=sentence("Choose another column of obs: {}.", arg(argument, Placeholder("COLUMN"))),
    )
