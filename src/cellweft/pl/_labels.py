"""Plots of labels: the calibration of their confidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cellweft._errors import KeyMissingError, check_known
from cellweft.data.io.keys import RECORD
from cellweft.pl._axes import INK, panel, tidy

_POINTS = "#0072B2"


def label_calibration(
    labels: pd.DataFrame | Mapping[str, Any], column: str | None = None, *, ax: Axes | None = None
) -> Axes:
    """Plot the reliability diagram of labels: the share that is correct at each confidence.

    Parameters
    ----------
    labels
        Result of `cellweft.Imputer.annotate`, or the .json file that ``cellweft annotate`` wrote next to its
        table.
    column
        The column of labels, if there are several; by default the last one, which has the most labels.
    ax
        Axes to draw on; a new figure by default.

    Returns
    -------
    Axes
        One point per bin of confidence of the held-out cells. Its area shows the share of cells in the bin.

    Raises
    ------
    KeyMissingError
        A table without the record of `cellweft.Imputer.annotate`, or no such column.

    Examples
    --------
    >>> bins = {"confidence": [0.6, 0.9], "share_right": [0.5, 0.95], "weight": [0.3, 0.7]}
    >>> record = {"labels": {"cell_type": {"calibration": bins, "calibration_error": 0.065}}}
    >>> ax = label_calibration(record)
    >>> ax.get_xlabel()
    'confidence'
    """
    record = labels.attrs.get(RECORD, {}) if isinstance(labels, pd.DataFrame) else labels
    columns = record.get("labels") if isinstance(record, Mapping) else None
    if not isinstance(columns, Mapping) or not columns:
        raise KeyMissingError(
            "labels",
            expected="a result of Imputer.annotate, with its record in attrs",
            got="a table without its record",
            fix=(
                "Pass the table as it was returned. For a table from a file, pass the contents of its "
                ".json file as a dict."
            ),
        )
    column = [*columns][-1] if column is None else column
    check_known(column, columns, "column", expected="a column of labels")
    column_record = columns[column]
    bins = {name: np.asarray(values) for name, values in column_record["calibration"].items()}
    ax = panel(ax)
    ax.plot([0, 1], [0, 1], color=INK, linewidth=0.8, zorder=1)
    ax.scatter(bins["confidence"], bins["share_right"], s=20 + 300 * bins["weight"], color=_POINTS, zorder=2)
    ax.set(xlim=(0, 1.03), ylim=(0, 1.03))
    title = f"{column}: calibration error {column_record['calibration_error']:.3f}"
    tidy(ax, title=title, x="confidence", y="share of correct labels")
    return ax
