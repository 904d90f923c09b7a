"""The tidy table of scores of an evaluation, and its record."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from cellweft._compute import progress_callback, resolve_devices
from cellweft._errors import InputError, SettingError, arg, array_of, check_range, checks_kinds
from cellweft._provenance import stamp
from cellweft._typing import IntArray, PathLike, Progress, ProgressOption
from cellweft.data._pair import Pair
from cellweft.data.io.atomic_output import check_outputs, partial_output
from cellweft.data.io.keys import RECORD
from cellweft.evaluate.methods import Method
from cellweft.nn.parallel import over_devices

M = TypeVar("M")
R = TypeVar("R")
COLUMNS = ("method", "seed", "fold", "level", "item", "metric", "value")
"""Columns of a table of scores, with one score per row."""


def score_rows(level: str, items: Any, folds: IntArray | int, *, metric: str, values: Any) -> pd.DataFrame:
    """Return rows of one metric, without method and seed.

    Parameters
    ----------
    level
        What is scored: "gene", "cell", "type" or "summary".
    items, folds, values
        (n_items,) name, fold and score of each; a single fold applies to all.
    metric
        Name of the score.
    """
    columns = {"fold": folds, "level": level, "item": np.asarray(items, dtype=object), "metric": metric}
    return pd.DataFrame(columns | {"value": values})


def score_methods(
    pair: Pair,
    methods: Sequence[str | M],
    *,
    resolve: Callable[..., Sequence[Method[M]]],
    fit: Callable[[M, int], R],
    score: Callable[[Iterator[R], int], pd.DataFrame | None],
    n_steps: int = 1,
    step_name: Callable[[int], str] = "fold {}".format,
    seeds: Sequence[int],
    parameters: dict[str, Any],
    device: str,
    progress: ProgressOption,
) -> pd.DataFrame:
    """Return the scores of each method with each seed, in `COLUMNS`, with a record.

    Parameters
    ----------
    pair
        The data.
    methods
        Names, or unfitted objects; each is run with each seed.
    resolve
        Returns the methods for these names or objects and a ``device``.
    fit
        Returns the result of a step, given a new method and the number of the step. Each device runs one at a
        time.
    score
        Returns the rows of a run without names, given the results of its steps in order, and its seed; None
        if there is nothing to score.
    n_steps
        Number of steps per run.
    step_name
        Returns the name of a step in errors, by its number.
    seeds
        Seeds of the methods.
    parameters
        The other arguments, for the record.
    device
        One device, several separated by commas, or "all".
    progress
        The option of the user; a callback is called with ("evaluate", done, total) before waiting for each
        fit, and at the end.

    Returns
    -------
    The table. ``attrs["cellweft"]`` contains versions, parameters, seeds and the findings of the pair, as
    values that JSON can store.

    Raises
    ------
    SettingError
        There are no seeds, duplicate seeds, or a seed that is not a whole number of at least 0.
    InputError
        There is nothing to score.
    """
    check_numbers("seeds", seeds, expected="unique whole numbers", example=(0, 1, 2), low=0)
    # for a single device, torch is not needed: baselines do not use it
    devices = resolve_devices(device) if device == "all" or "," in device else [device]
    on_devices = [resolve(methods, device=str(one_device)) for one_device in devices]
    labels = [method.label for method in on_devices[0]]
    runs = list(itertools.product(range(len(labels)), seeds))
    steps = [(place, seed, step) for place, seed in runs for step in range(n_steps)]

    def work(task: tuple[int, int, int], on_device: Sequence[Method[M]], _: Progress) -> R:
        place, seed, step = task
        with _noting(f"{labels[place]!r}, seed {seed}" + (f", {step_name(step)}" if n_steps > 1 else "")):
            return fit(on_device[place].make(seed), step)

    def counted(pending: Iterator[R], report: Progress) -> Iterator[R]:
        for number in range(len(steps)):
            report("evaluate", number, len(steps))
            yield next(pending)

    tables = []
    with (
        progress_callback(progress) as report,
        contextlib.closing(over_devices(work, steps, on_devices)) as results,
    ):
        fits = counted(results, report)
        for place, seed in runs:
            rows = score(itertools.islice(fits, n_steps), seed)
            if rows is not None:
                tables.append(rows.assign(method=labels[place], seed=seed))
        if not tables:
            raise InputError(
                "methods",
                expected="a method that predicts something for which the truth is known",
                got=", ".join(map(repr, labels)),
                fix="Choose another method, or pass the truth for what this one predicts.",
            )
        report("evaluate", len(steps), len(steps))
    table = pd.concat(tables, ignore_index=True)[list(COLUMNS)]
    names = [method if isinstance(method, str) else repr(method) for method in methods]
    stamped = stamp("scores")
    table.attrs[RECORD] = {
        **{name: stamped[name] for name in ("versions", "date", "command_line")},
        "parameters": parameters | {"device": device, "methods": dict(zip(labels, names, strict=True))},
        "seeds": [int(seed) for seed in seeds],
        "pair": pair.findings,
    }
    return table


@contextlib.contextmanager
def _noting(run: str) -> Iterator[None]:
    """Add a note with the current run to errors of the context."""
    try:
        yield
    except Exception as error:
        error.add_note(f"while evaluating {run}")
        raise


def check_numbers(
    where: str,
    numbers: Sequence[int],
    *,
    expected: str,
    example: tuple[int, ...],
    low: int,
    high: float = float("inf"),
) -> None:
    """Raise `SettingError` unless there are distinct whole numbers in a range."""
    listed = array_of(where, numbers, fix="Write " + arg(where, example) + ".", numbers=False)
    if listed.ndim != 1:
        got = f"shape {listed.shape}"
        raise SettingError(where, expected=expected, got=got, fix="Write " + arg(where, example) + ".")
    if not len(numbers) or len(set(numbers)) < len(numbers):
        raise SettingError(
            where, expected=expected, got=repr(numbers), fix="Write " + arg(where, example) + "."
        )
    for number in numbers:
        check_range(where, number, low=low, high=high, integer=True)


def check_items(table: pd.DataFrame, where: str) -> None:
    """Raise `InputError` if a score has no gene, cell or summary.

    Parameters
    ----------
    table
        Scores, with the column ``item``.
    where
        Name of the table in the error.
    """
    n_lost = int(table["item"].isna().sum())
    if n_lost:
        raise InputError(
            where,
            expected="a gene, cell or summary in every row of the column 'item'",
            got=f"{n_lost:,} missing",
            fix="pandas reads a gene called NA as missing. Read the table with pandas.read_csv(path, "
            "keep_default_na=False, na_values={'value': ['']}).",
        )


@checks_kinds
def write_scores(table: pd.DataFrame, path: PathLike, *, overwrite: bool = False) -> tuple[Path, Path]:
    """Write the scores of `evaluate_imputation` or `evaluate_placement`, and a JSON file with parameters.

    Parameters
    ----------
    table
        The table that one of them returned.
    path
        Path of the table, ending in .csv or .parquet. Versions and parameters are written to the same name
        with .json.
    overwrite
        Whether to replace existing files.

    Returns
    -------
    The paths of the table and of the JSON file. The files appear only when they are complete.

    Raises
    ------
    SettingError
        The name has another ending.
    OutputExistsError
        One of the files exists, and ``overwrite`` is false.
    OutputError
        Writing failed.
    """
    check_outputs({"path": (path, (".csv", ".parquet"))}, overwrite=True)  # check the name first
    beside = Path(path).with_suffix(".json")
    outputs = {"path": (path, (".csv", ".parquet")), "parameters": (beside, (".json",))}
    target, beside = check_outputs(outputs, overwrite=overwrite)
    text = json.dumps(table.attrs.get(RECORD, {}), indent=2, ensure_ascii=False, allow_nan=False)
    with (
        partial_output(target, overwrite=overwrite) as table_file,
        partial_output(beside, overwrite=overwrite) as json_file,
    ):
        if target.suffix == ".csv":
            table.to_csv(table_file, index=False, lineterminator="\n")
        else:
            table.to_parquet(table_file, index=False)
        json_file.write_text(text + "\n", encoding="utf-8")
    return target, beside
