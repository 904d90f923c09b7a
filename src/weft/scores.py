"""The tidy table of scores that every evaluation makes, and how it came about."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from weft._compute import resolve_devices
from weft._errors import InputError, SettingError, check_range
from weft._typing import IntArray, Progress
from weft.data.pair import Pair
from weft.devices import over_devices
from weft.peers.methods import Method
from weft.record import versions

M = TypeVar("M")
R = TypeVar("R")

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


def on_each_device(device: str, resolve: Callable[[str], Sequence[Method[M]]]) -> list[Sequence[Method[M]]]:
    """Return methods for one device, or for each of several that the user names: see `resolve_devices`.

    Parameters
    ----------
    device
        As the user says it.
    resolve
        From the name of one device to the methods that work there.
    """
    if device != "all" and "," not in device:  # torch is not asked: baselines do without it
        return [resolve(device)]
    return [resolve(str(one)) for one in resolve_devices(device)]


def score_all(
    methods: Sequence[Sequence[Method[M]]],
    seeds: Sequence[int],
    *,
    fit: Callable[[Method[M], int, int], R],
    score: Callable[[Iterator[R], int], pd.DataFrame | None],
    n_steps: int,
    progress: Progress,
) -> pd.DataFrame:
    """Return the scores of every method with every seed, in `COLUMNS`.

    Parameters
    ----------
    methods
        The same ones for each device; each is run with each seed.
    seeds
        Of the methods.
    fit
        From a method, a seed and the number of a step to what is scored. Each device does one at a time.
    score
        From what the steps of a run gave, in their order, and its seed to its rows without names, or to None
        where there is nothing to score.
    n_steps
        Steps of one run.
    progress
        Called as ("evaluate", done, total) before each fit is waited for, and at the end.

    Raises
    ------
    SettingError
        No seed, or one that is no whole number from 0 on, or stands twice.
    InputError
        There was nothing to score at all.
    """
    _check_seeds(seeds)
    runs = [(place, method, seed) for place, method in enumerate(methods[0]) for seed in seeds]
    steps = [(place, seed, step) for place, _, seed in runs for step in range(n_steps)]

    def work(task: tuple[int, int, int], on_device: Sequence[Method[M]], _: Progress) -> R:
        place, seed, step = task
        return fit(on_device[place], seed, step)

    def counted(made: Iterator[R]) -> Iterator[R]:
        for number in range(len(steps)):
            progress("evaluate", number, len(steps))
            yield next(made)

    tables = []
    with contextlib.closing(over_devices(work, steps, methods)) as made:
        fits = counted(made)
        for _, method, seed in runs:
            rows = score(itertools.islice(fits, n_steps), seed)
            if rows is not None:
                tables.append(rows.assign(method=method.label, seed=seed))
    if not tables:
        raise InputError(
            "methods",
            expected="a method that makes what is known and can be compared",
            got=", ".join(repr(method.label) for method in methods[0]),
            fix="Name another method, or give the truth of what this one makes.",
        )
    progress("evaluate", len(steps), len(steps))
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


def _check_seeds(seeds: Sequence[int]) -> None:
    if not len(seeds) or len(set(seeds)) < len(seeds):
        raise SettingError(
            "seeds", expected="whole numbers, each once", got=repr(seeds), fix="Write seeds=(0, 1, 2)."
        )
    for seed in seeds:
        check_range("seeds", seed, low=0, integer=True)
