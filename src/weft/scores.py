"""The tidy table of scores that every evaluation makes, and how it came about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from weft._errors import InputError, SettingError, check_range
from weft._typing import IntArray, Progress
from weft.data.pair import Pair
from weft.peers.methods import Method
from weft.record import versions

M = TypeVar("M")

COLUMNS = ("method", "seed", "fold", "level", "item", "metric", "value")
"""Columns of a table of scores; a row is one score."""


def score_rows(level: str, items: Any, folds: IntArray | int, *, metric: str, values: Any) -> pd.DataFrame:
    """Return rows of one metric, without method and seed.

    Parameters
    ----------
    level
        What is scored: "gene", "cell", "type" or "summary".
    items, folds, values
        (n_items,) name, fold and score of each; one fold may stand for all.
    metric
        Name of the score.
    """
    columns = {"fold": folds, "level": level, "item": np.asarray(items, dtype=object), "metric": metric}
    return pd.DataFrame(columns | {"value": values})


def score_all(
    methods: Sequence[Method[M]],
    seeds: Sequence[int],
    score: Callable[[Method[M], int, Progress], pd.DataFrame | None],
    *,
    n_steps: int,
    progress: Progress,
) -> pd.DataFrame:
    """Return the scores of every method with every seed, in `COLUMNS`.

    Parameters
    ----------
    methods, seeds
        Each is run with each.
    score
        Gives the rows of a method and a seed, without their names, or None where there is nothing to score.
        The progress that it is handed counts its own steps.
    n_steps
        Steps of one run.
    progress
        Called as ("evaluate", done, total) over all runs.

    Raises
    ------
    SettingError
        No seed, or one that is no whole number from 0 on, or stands twice.
    InputError
        There was nothing to score at all.
    """
    _check_seeds(seeds)
    runs = [(method, seed) for method in methods for seed in seeds]
    tables = []
    for number, (method, seed) in enumerate(runs):
        rows = score(method, seed, _part(progress, number * n_steps, len(runs) * n_steps))
        if rows is not None:
            tables.append(rows.assign(method=method.label, seed=seed))
    if not tables:
        raise InputError(
            "methods",
            expected="a method that makes what is known and can be compared",
            got=", ".join(repr(method.label) for method in methods),
            fix="Name another method, or give the truth of what this one makes.",
        )
    progress("evaluate", len(runs) * n_steps, len(runs) * n_steps)
    return pd.concat(tables, ignore_index=True)[list(COLUMNS)]


def record_of(
    pair: Pair,
    found: Sequence[Method[M]],
    *,
    given: Sequence[object],
    parameters: dict[str, Any],
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Return versions, parameters, seeds and what was found of the pair, as values that JSON takes.

    Parameters
    ----------
    pair
        What was evaluated on.
    found, given
        The methods, and the names or objects that they were asked for by.
    parameters
        The other arguments.
    seeds
        Of the methods.
    """
    methods = {
        one.label: asked if isinstance(asked, str) else repr(asked)
        for one, asked in zip(found, given, strict=True)
    }
    return {
        "versions": versions(),
        "parameters": parameters | {"methods": methods},
        "seeds": [int(seed) for seed in seeds],
        "pair": pair.findings,
    }


def _part(progress: Progress, before: int, total: int) -> Progress:
    """Return a progress that counts one run within all of them."""

    def told(stage: str, done: int, _: int) -> None:
        progress(stage, before + done, total)

    return told


def _check_seeds(seeds: Sequence[int]) -> None:
    if not len(seeds) or len(set(seeds)) < len(seeds):
        raise SettingError(
            "seeds", expected="whole numbers, each once", got=repr(seeds), fix="Write seeds=(0, 1, 2)."
        )
    for seed in seeds:
        check_range("seeds", seed, low=0, integer=True)
