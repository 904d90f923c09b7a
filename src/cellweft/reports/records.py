"""Records of results and of tables of scores, checked once when they are read."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any, TypeAlias

import numpy as np

from cellweft._errors import InputError

_Form: TypeAlias = "type | tuple[type, ...] | dict[str, Any]"

_ANY = "*"  # matches all other keys
_OR_NONE, _LIST = (Real, type(None)), (list, type(None))
_INPUT: dict[str, Any] = {"path": object, "cells": Real, "genes": Real, "digest": object}
_SIDE: dict[str, Any] = {
    "source": object,
    "cells": Real,
    "genes": Real,
    "scale": object,
    "sparsity?": _OR_NONE,
    "median_total?": _OR_NONE,
    "empty_cells?": _OR_NONE,
    "empty_genes?": _OR_NONE,
    "cells_left_out?": list,
    "label_counts?": dict,
}
_PAIR: dict[str, Any] = {
    "reference": _SIDE,
    "spatial": _SIDE,
    "shared_genes": Real,
    "genes_to_impute": Real,
    "genes_only_spatial": list,
    "gene_bridge": object,
    "coordinates": {"found": object, "dimensions": Real, "extent": _LIST, "spacing": _OR_NONE},
    "slices": {"cells": dict},
}
_LABELS: dict[str, Any] = {
    "calibration": {"confidence": list, "share_right": list, "weight": list},
    "calibration_error": Real,
    "share_right": Real,
    "reference_cells?": {_ANY: Real},
}
_RECORD: dict[str, Any] = {
    "settings": dict,
    "duration": {_ANY: Real},
    "versions": dict,
    "parameters": dict,
    "inputs": {"reference": _INPUT, "spatial": _INPUT},
    "interval": Real,
    "network": (dict, list),
    "seeds": list,
    "pair": _PAIR,
    "labels": {_ANY: _LABELS},
    "reference_cells_without_label": Real,
}
"""Entries that reports compute with; those with "?" may be missing. Other entries are shown unchanged or not
at all."""

_SAID = {
    Real: "a number",
    list: "a list",
    (dict, list): "names",
    dict: "a group of entries",
    _OR_NONE: "a number",
    _LIST: "a list",
}


def checked_record(record: Any, where: str) -> dict[str, Any]:
    """Return a record as plain values, empty if it is not a record.

    Parameters
    ----------
    record
        A record from ``uns``, from ``attrs`` or from the file next to a table. It may be incomplete.
    where
        Name of the record in errors.

    Raises
    ------
    InputError
        An entry that reports compute with has another type than cellweft writes.
    """
    if not isinstance(record, Mapping):
        return {}
    plain = dict(plain_values(record))
    for key, form in _RECORD.items():
        if plain.get(key) not in (None, "", "none"):
            _check(plain[key], form, f"{where}[{key!r}]")
        else:
            plain.pop(key, None)
    for number in plain.get("pair", {}).get("coordinates", {}).get("extent") or ():
        _check(number, Real, f"{where}['pair']['coordinates']['extent']")
    for column, column_record in plain.get("labels", {}).items():
        _check_bins(column_record["calibration"], f"{where}['labels'][{column!r}]['calibration']")
    return plain


def _check_bins(bins: Mapping[str, list[Any]], where: str) -> None:
    """Raise `InputError` if the bins of a reliability diagram have the wrong number of values."""
    for name, values in bins.items():
        for number in values:
            _check(number, Real, f"{where}[{name!r}]")
    sizes = {len(values) for values in bins.values()}
    if len(sizes) > 1 or 0 in sizes:
        got = " and ".join(str(size) for size in sorted(sizes))
        _refuse(where, "a confidence, a share and a weight for each bin", f"{got} of them")


def plain_values(value: Any) -> Any:
    """Return a record of any format as plain values."""
    if isinstance(value, Mapping):
        return {str(key): plain_values(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain_values(value.tolist())
    if isinstance(value, list | tuple):
        return [plain_values(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _check(value: Any, form: _Form, where: str) -> None:
    """Raise `InputError` if a value does not match a form, or an entry is missing."""
    kind = dict if isinstance(form, dict) else form
    if not isinstance(value, kind) or (isinstance(value, bool) and kind in (Real, _OR_NONE)):
        _refuse(where, _SAID.get(kind, "a value"), type(value).__name__)
    if not isinstance(form, dict) or (form is _INPUT and not value):
        return
    entries = dict.fromkeys(value, form[_ANY]) if _ANY in form else form
    for name, entry in entries.items():
        key = name.removesuffix("?")
        if key in value:
            _check(value[key], entry, f"{where}[{key!r}]")
        elif key == name:
            _refuse(where, f"a group with the entry {key!r}", "one without it")


def _refuse(where: str, expected: str, got: str) -> None:
    raise InputError(
        where,
        expected=f"{expected}, as cellweft writes it",
        got=got,
        fix="Use the record that cellweft wrote, or take the whole record out.",
    )
