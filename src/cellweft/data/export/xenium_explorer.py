"""Groups of cells for 10x Genomics' Xenium Explorer: a CSV with one row per cell."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from cellweft._errors import InputError, SettingError, arg, checks_kinds
from cellweft._text import near
from cellweft._typing import PathLike
from cellweft.data.io.atomic_output import check_apart, check_output, partial_output
from cellweft.data.io.columns import column_of
from cellweft.data.io.lazy_input import Input
from cellweft.data.io.read import open_input

logger = logging.getLogger("cellweft")

_HEX = re.compile(r"#[0-9a-fA-F]{6}")


@checks_kinds
def write_explorer_groups(
    data: AnnData | PathLike,
    output: PathLike,
    *,
    column: str,
    ids: str | None = None,
    colors: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write groups of cells as a file that Xenium Explorer can import.

    Parameters
    ----------
    data
        AnnData or its file, such as an imputed result. Only the required columns are read.
    output
        Path of the new ``.csv`` file.
    column
        Column of ``obs`` with the groups. Cells without a group are left out; their number is logged.
    ids
        Column of ``obs`` with the cell identifiers of the Xenium run, such as ``aaaabjeg-1``; by default
        ``cell_id`` or, if there is no such column, the names of the cells.
    colors
        Colour of each group, ``#rrggbb``; by default those of ``uns["<column>_colors"]``. If there are none
        in this form, Xenium Explorer chooses the colours.
    overwrite
        Whether to replace an existing file.

    Returns
    -------
    Path
        Path of the file.

    Raises
    ------
    KeyMissingError
        No such column.
    InputError
        Two cells have the same identifier, or no cell has a group.
    SettingError
        The name does not end in .csv, or colours are missing for a group or have another format.

    Notes
    -----
    The columns are ``cell_id,group`` and, with colours, ``color``, as in cell group files of 10x Genomics.
    Identifiers are written as text, to keep leading zeros.

    Examples
    --------
    >>> import tempfile
    >>> cells = AnnData(np.ones((2, 1)), obs=pd.DataFrame({"type": ["B", "T"]}, index=["001", "002"]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = write_explorer_groups(cells, Path(folder, "groups.csv"), column="type")
    ...     path.read_text().split()
    ['cell_id,group', '001,B', '002,T']
    """
    target = check_output(output, overwrite=overwrite, suffixes=(".csv",))
    check_apart([output], [data])
    source = open_input(data, argument="data")
    groups = column_of(source.obs, column, where=source.where, argument="column")
    has_group = groups.notna().to_numpy()
    if not has_group.any():
        fix = "Choose another column."
        raise InputError(
            f"{source.where}.obs[{column!r}]", expected="cells with a group", got="none", fix=fix
        )
    if not has_group.all():
        logger.info("%d cells without %s are left out.", int((~has_group).sum()), column)
    table = pd.DataFrame({"cell_id": _ids(source, ids), "group": groups.astype(str).to_numpy()})[has_group]
    chosen = _colors(source, groups, column) if colors is None else _checked_colors(colors, table["group"])
    if chosen:
        table["color"] = table["group"].map(chosen)
    with partial_output(target, overwrite=overwrite) as partial:
        table.to_csv(partial, index=False)
    return target


def _ids(data: Input, column: str | None) -> Any:
    """Return the unique identifiers of the cells, as text."""
    if column is None and "cell_id" in data.obs.columns:
        column = "cell_id"
    values = data.obs.names()
    if column is not None:
        values = pd.Index(column_of(data.obs, column, where=data.where, argument="ids"))
    values = values.astype(str)
    twice = values[values.duplicated()]
    if len(twice):
        raise InputError(
            f"{data.where}, {'names of the cells' if column is None else column}",
            expected="a unique identifier for every cell",
            got=f"{twice[0]!r} more than once",
            fix="Specify the column with the identifiers of the Xenium run, " + arg("ids") + ".",
        )
    return values.to_numpy(dtype=object)


def _colors(data: Input, groups: pd.Series[Any], column: str) -> dict[str, str]:
    """Return the colours of the groups in the data; none if they do not fit."""
    key = f"{column}_colors"
    if key not in data.uns or not isinstance(groups.dtype, pd.CategoricalDtype):
        return {}
    names = groups.cat.categories.astype(str).tolist()
    values = np.atleast_1d(np.asarray(data.uns[key])).astype(str).tolist()
    fits = len(values) >= len(names) and all(map(_HEX.match, values))
    return {name: value[:7] for name, value in zip(names, values, strict=False)} if fits else {}


def _checked_colors(colors: Mapping[str, str], groups: pd.Series[Any]) -> dict[str, str]:
    lacking = sorted(set(groups) - set(map(str, colors)))
    wrong = sorted(str(color) for color in colors.values() if not _HEX.fullmatch(str(color)))
    if lacking or wrong:
        raise SettingError(
            "colors",
            expected="a colour (#rrggbb) for every group",
            got=f"{wrong[0]!r}" if wrong else f"none for {lacking[0]!r}",
            fix="Write '#1f77b4'." if wrong else near(lacking[0], map(str, colors)),
        )
    return {str(name): value for name, value in colors.items()}
