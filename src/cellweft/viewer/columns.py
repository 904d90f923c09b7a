"""The columns of a result for colouring cells: labels and numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellweft._errors import InputError
from cellweft.data.io.cell_labels import LabelTable
from cellweft.data.io.columns import SLICE_KEYS
from cellweft.data.io.keys import CONFIDENCE_COLUMN, LABEL, PROPORTIONS, SLICE, UNKNOWN
from cellweft.data.io.lazy_input import Input
from cellweft.data.io.obs_table import HeldTable

MOST_CATEGORIES = 65_535
"""Largest number of labels in a column: codes have two bytes, and the last code means no label."""

MISSING = 65_535
"""The code of a cell without a label."""

_MOST_SLICES = 1000


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column for colouring cells.

    Attributes
    ----------
    name, kind
        Name of the column, and whether it contains labels or numbers.
    categories, colors
        The labels in order and a colour ``#rrggbb`` for each; empty for numbers.
    low, high
        Range of the finite numbers; None for labels.
    read
        Returns the values: uint16 codes, `MISSING` for none, or float32.
    """

    name: str
    kind: Literal["category", "number"]
    categories: tuple[str, ...] = ()
    colors: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    read: Callable[[], NDArray[Any]]

    def value(self, number: float) -> str | float | None:
        """Return a value for the page: a label, a number, or None if there is none."""
        if self.kind == "category":
            return None if number == MISSING else self.categories[int(number)]
        return float(number) if math.isfinite(number) else None

    def told(self) -> dict[str, Any]:
        """Return the description of the column for the session."""
        about: dict[str, Any] = {"low": self.low, "high": self.high}
        if self.kind == "category":
            about = {"categories": list(self.categories), "colors": list(self.colors)}
        return {"name": self.name, "kind": self.kind} | about


def columns_of(opened: Input) -> list[Column]:
    """Return the columns of a result for colouring cells, in order.

    Parameters
    ----------
    opened
        The result.

    Notes
    -----
    Excluded are text columns with unique values (identifiers), columns with more than `MOST_CATEGORIES`
    labels, and columns without values. Whole numbers in a column with a name for slices are labels. The
    composition of spots, ``obsm["cellweft_proportions"]``, has one column per cell type.
    """
    columns = (_column(opened, name) for name in opened.obs.columns)
    return [column for column in (*columns, *_shares(opened)) if column is not None]


def label_columns(labels: LabelTable, opened: Input) -> list[Column]:
    """Return label, confidence and unknown of a result's cells, for each column of a table of cell types.

    Parameters
    ----------
    labels
        The table. Cells are matched by name; cells of the result that are not in it have no value.
    opened
        The result.

    Returns
    -------
    Columns with the names of the table's columns, followed by " (annotate)" if the result has the same name;
    none if no cell is in the table.
    """
    rows = labels.cells.get_indexer(opened.obs.names().astype(str))
    is_there, existing = rows >= 0, set(opened.obs.columns)
    if not is_there.any():
        return []
    joined: dict[str, Any] = {}
    for column in labels.columns:
        values = {
            LABEL: pd.Categorical.from_codes(
                np.where(is_there, column.labels.codes[rows], -1), column.labels.categories
            ),
            CONFIDENCE_COLUMN: np.where(is_there, column.confidence[rows], np.nan),
            UNKNOWN: pd.Series(column.unknown[rows], dtype=object).where(is_there),
        }
        for end, value in values.items():
            name = f"{column.prefix}{end}"
            joined[f"{name} (annotate)" if name in existing else name] = value
    return columns_of(replace(opened, obs=HeldTable(pd.DataFrame(joined)), obsm={}))


def slices_of(columns: list[Column], n_cells: int) -> str | None:
    """Return the name of the column with the slices, or None if there is only one slice.

    Parameters
    ----------
    columns
        Columns of the result.
    n_cells
        Number of its cells.
    """
    by_name = {column.name.lower(): column for column in columns if column.kind == "category"}
    for key in (SLICE, *SLICE_KEYS):
        if key in by_name and 1 < len(by_name[key].categories) <= max(n_cells // 10, 2):
            return by_name[key].name
    return None


def _column(opened: Input, name: str) -> Column | None:
    values = opened.obs[name]
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return _category(opened, name, values)
    numbers = _numbers(values)
    finite = numbers[np.isfinite(numbers)]
    if not len(finite):
        return None
    if name.lower() in SLICE_KEYS and 1 < len(np.unique(finite)) <= min(_MOST_SLICES, len(numbers) // 10):
        return _category(opened, name, values)
    low, high = float(finite.min()), float(finite.max())
    return Column(name=name, kind="number", low=low, high=high, read=lambda: _numbers(opened.obs[name]))


def _category(opened: Input, name: str, values: pd.Series[Any]) -> Column | None:
    from cellweft.pl._colors import categories_of, kept_colors  # imported here, as they need matplotlib

    n_cells = len(values)
    is_category = isinstance(values.dtype, pd.CategoricalDtype)
    n_labels = len(values.cat.categories) if is_category else values.nunique()
    if not 0 < n_labels <= MOST_CATEGORIES or (n_labels == n_cells > 1 and _is_text(values)):
        return None
    labels = categories_of(values)
    try:
        colors = kept_colors(opened, name, values)
    except InputError:  # show the picture with other colours
        colors = kept_colors(replace(opened, uns={}), name, values)
    return Column(
        name=name,
        kind="category",
        categories=tuple(labels),
        colors=tuple(colors[label] for label in labels),
        read=lambda: _codes(opened.obs[name], labels),
    )


def _is_text(values: pd.Series[Any]) -> bool:
    kind: Any = values.dtype
    return not pd.api.types.is_numeric_dtype(
        kind.categories.dtype if isinstance(kind, pd.CategoricalDtype) else kind
    )


def _codes(values: pd.Series[Any], labels: list[str]) -> NDArray[np.uint16]:
    if isinstance(values.dtype, pd.CategoricalDtype):
        place = pd.Index(labels).get_indexer(pd.Index(values.cat.categories.astype(str)))
        codes = np.append(place, -1)[np.asarray(values.cat.codes)]  # missing values have code -1
    else:
        missing = values.isna().to_numpy()
        codes = pd.Index(labels).get_indexer(pd.Index(values.astype(str)))
        codes[missing] = -1
    return np.where(codes < 0, MISSING, codes.astype(np.int64)).astype(np.uint16)


def _numbers(values: pd.Series[Any]) -> NDArray[np.float32]:
    # Values that are too large become infinite, which the page shows as missing
    with np.errstate(over="ignore"):
        return values.to_numpy(dtype=np.float64, na_value=np.nan).astype(np.float32)


def _shares(opened: Input) -> Iterator[Column]:
    table = opened.obsm.get(PROPORTIONS)
    if not isinstance(table, pd.DataFrame):
        return
    for name in table.columns:
        numbers = _numbers(table[name])
        high, title = float(np.nanmax(numbers, initial=0.0)), f"share of {name}"
        yield Column(name=title, kind="number", low=0.0, high=high, read=partial(np.copy, numbers))
