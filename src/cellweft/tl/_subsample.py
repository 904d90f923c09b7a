"""Subsampling of cell types that are too abundant in a reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from anndata import AnnData

from cellweft._compute import numpy_stream
from cellweft._errors import (
    InputError,
    SettingError,
    check_all_known,
    check_kind,
    check_range,
    check_seed,
    checks_kinds,
)
from cellweft.data.spatial import find_labels


@checks_kinds
def subsample_types(
    cells: AnnData,
    labels: str | None = None,
    *,
    rate: float = 0.3,
    types: Sequence[str] | None = None,
    times: float = 3.0,
    seed: int = 0,
) -> AnnData:
    """Keep a random fraction of the cells of abundant types, and all cells of other types.

    Parameters
    ----------
    cells
        The reference; not changed.
    labels
        Column of ``obs`` with cell types; by default a column with a recognised name.
    rate
        Fraction of the cells of an abundant type to keep, above 0 and at most 1; at least one cell is kept.
    types
        The abundant types. By default those with more than ``times`` as many cells as the median type.
    times
        See ``types``; at least 1.
    seed
        Random seed. The sample of a type does not depend on the other types.

    Returns
    -------
    AnnData
        A copy of the selected cells, in their original order.

    Raises
    ------
    InputError
        ``cells`` is not AnnData, or there are no types.
    KeyMissingError
        The column or type does not exist.
    SettingError
        ``rate``, ``times`` or ``seed`` is out of range.

    Notes
    -----
    "Data preprocessing" of Hao et al. 2024 (STEM): 30 % of the endothelial and Kupffer cells of the liver
    were kept, because they were three times as frequent as other types. The composition of spots depends on
    how many cells of each type are available for mapping.

    Examples
    --------
    >>> cells = AnnData(np.ones((14, 1), dtype="float32"))
    >>> cells.obs["cell_type"] = ["A"] * 10 + ["B", "B", "C", "C"]
    >>> subsample_types(cells).obs["cell_type"].value_counts().to_dict()
    {'A': 3, 'B': 2, 'C': 2}
    """
    check_kind("cells", cells, AnnData, expected="an AnnData of cells", fix="Read the file with anndata.")
    check_range("rate", rate, low=0, high=1)
    if rate == 0:
        raise SettingError("rate", expected="a fraction above 0", got="0", fix="Remove the cells instead.")
    check_range("times", times, low=1)
    check_seed(seed)
    own, column = find_labels(cells.obs, labels, where="cells", argument="labels")
    if own is None:
        fix = "Specify it: labels='COLUMN'."
        raise InputError("labels", expected="a column of obs with cell types", got="none", fix=fix)
    names, sizes = np.unique(own, return_counts=True)
    if types is None:
        abundant = names[sizes > times * np.median(sizes)].tolist()
    else:
        abundant = [types] if isinstance(types, str) else list(types)
        check_all_known(abundant, names.tolist(), "types", expected=f"a type of {column!r}")
    is_kept = np.ones(len(own), dtype=np.bool_)
    for name in abundant:
        members = np.flatnonzero(own == name)
        order = numpy_stream(seed, f"subsample {name}").permutation(members)
        is_kept[order[max(round(rate * len(members)), 1) :]] = False
    return cells[is_kept].to_memory() if cells.isbacked else cells[is_kept].copy()
