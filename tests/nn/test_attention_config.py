"""Settings of learned attention: ranges, near names, what each is called."""

from dataclasses import FrozenInstanceError, asdict, fields

import pytest

from cellweft._errors import SettingError
from cellweft.nn.config import AttentionSettings

WHOLE = {
    "steps": 0,
    "fold_steps": 0,
    "level_steps": 0,
    "batch_cells": 2,
    "batch_reference": 2,
    "fold_cells": 2,
    "fold_reference": 2,
    "most_inputs": 2,
    "training_cells": 2,
    "folds": 2,
    "level_hidden": 1,
    "most_keys": 1,
}
"""Least value of the settings that are whole numbers."""

WEIGHTS = ("detection", "pull", "level_pattern", "level_pull")
RATES = ("lr", "fold_lr", "level_lr")
OTHERS = {"temperature", "hide_least", "hide_most", "precision"}


def test_every_setting_is_tried_here_and_documented() -> None:
    names = {field.name for field in fields(AttentionSettings)}
    assert names == {*WHOLE, *WEIGHTS, *RATES, *OTHERS}
    assert not [name for name in names if name not in (AttentionSettings.__doc__ or "")]


@pytest.mark.parametrize(("name", "low"), WHOLE.items())
def test_whole_numbers(name: str, low: int) -> None:
    assert getattr(AttentionSettings(**{name: low}), name) == low
    for value in (low - 1, 2.5, "5", True, None, float("nan")):
        with pytest.raises(
            SettingError, match=rf"^{name}: expected a whole number >= {low}, got {value!r}\."
        ):
            AttentionSettings(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *(("temperature", value, "from 0.001 to 1000") for value in (0, -1, 1e4, float("nan"), "low", None)),
        *((name, value, ">= 0") for name in WEIGHTS for value in (-1e-9, float("inf"), False, "much")),
        *((name, value, "from 1e-09 to 10") for name in RATES for value in (0, 11, float("nan"))),
        ("hide_least", -0.1, "from 0 to 1"),
        ("hide_least", 1.1, "from 0 to 1"),
        ("hide_most", 0.01, "from 0.05 to 1"),
        ("hide_most", 1.1, "from 0.05 to 1"),
        ("hide_most", "half", "from 0.05 to 1"),
    ],
)
def test_numbers_out_of_range(name: str, value: object, expected: str) -> None:
    with pytest.raises(SettingError, match=rf"^{name}: expected a number {expected}, got {value!r}\."):
        AttentionSettings(**{name: value})


@pytest.mark.parametrize(
    "values",
    [
        *({name: 0} for name in WEIGHTS),
        {"temperature": 1e-3},
        {"hide_least": 0, "hide_most": 0},
        {"hide_least": 1, "hide_most": 1},
        {"lr": 10, "level_lr": 1e-9},
    ],
)
def test_the_ends_of_a_range_are_accepted(values: dict[str, float]) -> None:
    made = AttentionSettings(**values)
    assert {name: getattr(made, name) for name in values} == values


def test_the_most_that_is_hidden_is_at_least_the_least() -> None:
    with pytest.raises(SettingError, match=r"^hide_most: expected a number from 0\.5 to 1, got 0\.3\."):
        AttentionSettings(hide_least=0.5)


def test_settings_are_overridden_by_name() -> None:
    before = AttentionSettings()
    after = before.override({"steps": 7, "temperature": 0.5})
    assert {name for name, value in asdict(after).items() if value != asdict(before)[name]} == {
        "steps",
        "temperature",
    }
    assert before.override({}) == before
    assert before.override(asdict(after)) == after
    with pytest.raises(SettingError, match=r"^settings\['steps'\]: expected a whole number >= 0, got -1\."):
        before.override({"steps": -1})
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'steps'"):
        before.steps = 3  # type: ignore[misc]


def test_training_without_a_part_has_steps_of_its_own() -> None:
    chosen = AttentionSettings(fold_steps=3, fold_lr=0.5, fold_cells=7, fold_reference=8, temperature=2)
    part = chosen.without_part()
    assert (part.steps, part.lr, part.batch_cells, part.batch_reference) == (3, 0.5, 7, 8)
    assert {name for name, value in asdict(part).items() if value != asdict(chosen)[name]} == {
        "steps",
        "lr",
        "batch_cells",
        "batch_reference",
    }


@pytest.mark.parametrize(
    ("name", "near"), [("temprature", "temperature"), ("Steps", "steps"), ("level_step", "level_steps")]
)
def test_an_unknown_name_gives_a_near_one(name: str, near: str) -> None:
    with pytest.raises(
        SettingError,
        match=rf"^settings\['{name}'\]: expected a setting of preset='auto'.*Did you mean .*'{near}'",
    ):
        AttentionSettings().override({name: 1})
    with pytest.raises(SettingError, match=r"^settings\['k'\]: .*no such name"):
        AttentionSettings().override({"k": 5})


def test_precision() -> None:
    assert AttentionSettings(precision="bfloat16").precision == "bfloat16"
    with pytest.raises(SettingError, match="precision: expected"):
        AttentionSettings(precision="float16")  # type: ignore[arg-type]
