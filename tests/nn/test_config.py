"""Settings: ranges, near names, the published values, the memory of a cell."""

from dataclasses import FrozenInstanceError, asdict, fields

import pytest

from cellweft._errors import SettingError
from cellweft.nn.config import StemSettings, StImputeSettings, bytes_per_cell

WHOLE = {
    "k": 1,
    "latent": 1,
    "hidden": 1,
    "epochs": 0,
    "ae_epochs": 0,
    "rounds": 1,
    "most_sources": 1,
    "batch": 2,
    "batch_genes": 2,
    "batch_sources": 1,
    "ae_batch": 2,
    "cells_per_epoch": 2,
    "training_cells": 2,
    "graph_neighbors": 1,
    "patience": 0,
}
"""Least value of the settings that are whole numbers."""

OTHERS = {"alpha", "lr", "residual", "cell_similarity", "gene_similarity"}
OPTIONS = {"graph", "measure", "sources", "normalise", "search"}
WEIGHTS = ("residual", "cell_similarity", "gene_similarity")


def test_every_setting_is_tried_here() -> None:
    assert {field.name for field in fields(StImputeSettings)} == {*WHOLE, *OTHERS, *OPTIONS}


@pytest.mark.parametrize(("name", "low"), WHOLE.items())
class TestWholeNumbers:
    def test_the_least_is_accepted(self, name: str, low: int) -> None:
        assert getattr(StImputeSettings(**{name: low}), name) == low

    def test_less_is_refused(self, name: str, low: int) -> None:
        with pytest.raises(
            SettingError, match=rf"^{name}: expected a whole number >= {low}, got {low - 1}\."
        ):
            StImputeSettings(**{name: low - 1})

    @pytest.mark.parametrize("value", [2.5, "5", True, float("nan")])
    def test_other_kinds_are_refused(self, name: str, low: int, value: object) -> None:
        with pytest.raises(
            SettingError, match=rf"^{name}: expected a whole number >= {low}, got {value!r}\."
        ):
            StImputeSettings(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("alpha", -0.01, "from 0 to 1"),
        ("alpha", 1.01, "from 0 to 1"),
        ("alpha", float("nan"), "from 0 to 1"),
        ("alpha", "half", "from 0 to 1"),
        ("alpha", None, "from 0 to 1"),
        ("lr", 0, "from 1e-09 to 10"),
        ("lr", 11, "from 1e-09 to 10"),
        *((name, value, ">= 0") for name in WEIGHTS for value in (-1e-9, float("nan"), float("inf"), False)),
    ],
)
def test_numbers_out_of_range(name: str, value: object, expected: str) -> None:
    with pytest.raises(SettingError, match=rf"^{name}: expected a number {expected}, got {value!r}\."):
        StImputeSettings(**{name: value})


@pytest.mark.parametrize(
    ("name", "values"), [("alpha", (0, 1, 0.5)), *((name, (0, 2.5)) for name in WEIGHTS)]
)
def test_the_ends_of_a_range_are_accepted(name: str, values: tuple[float, ...]) -> None:
    assert [getattr(StImputeSettings(**{name: value}), name) for value in values] == list(values)


@pytest.mark.parametrize(
    ("name", "value", "near"),
    [
        ("graph", "expresion", "Did you mean 'expression'"),
        ("measure", "similar", "Did you mean 'similarity'"),
        ("sources", "pannel", "Did you mean 'panel'"),
        ("graph", "zzz", "Known: 'auto', 'edges', 'embedding', 'expression'"),
    ],
)
def test_options_give_a_near_name(name: str, value: str, near: str) -> None:
    with pytest.raises(SettingError, match=rf"^{name}: expected one of .*got '{value}'\. {near}"):
        StImputeSettings(**{name: value})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("graph", ("auto", "embedding", "expression", "none")),
        ("measure", ("similarity", "distance")),
        ("sources", ("auto", "all", "panel")),
    ],
)
def test_every_option_is_accepted(name: str, values: tuple[str, ...]) -> None:
    assert [getattr(StImputeSettings(**{name: value}), name) for value in values] == list(values)


@pytest.mark.parametrize(
    ("size", "is_small"),
    [
        ((9_999, 499), True),
        ((10_000, 499), False),
        ((9_999, 500), False),
        ((1, 1), True),
        ((10**6, 10**4), False),
    ],
)
def test_published_settings_follow_the_size(size: tuple[int, int], *, is_small: bool) -> None:
    published = StImputeSettings.published(*size)
    shown = (published.k, published.hidden, published.epochs, published.alpha)
    assert shown == ((50, 256, 10, 0.7) if is_small else (20, 32, 32, 0.5))
    assert (published.latent, published.ae_epochs, published.lr, published.rounds) == (100, 30, 0.01, 2)
    assert (published.residual, published.cell_similarity, published.gene_similarity) == (1, 1, 1)
    assert published.measure == "similarity"


class TestOverride:
    def test_it_changes_what_is_named_and_nothing_else(self) -> None:
        before = StImputeSettings()
        after = before.override({"k": 7, "alpha": 0.1})
        assert {name for name, value in asdict(after).items() if value != asdict(before)[name]} == {
            "k",
            "alpha",
        }
        assert (after.k, after.alpha, before.k) == (7, 0.1, 50)

    def test_nothing_changes_nothing(self) -> None:
        assert StImputeSettings(k=3).override({}) == StImputeSettings(k=3)

    @pytest.mark.parametrize(
        ("name", "near"), [("alhpa", "alpha"), ("Hidden", "hidden"), ("epoch", "epochs")]
    )
    def test_an_unknown_name_gives_a_near_one(self, name: str, near: str) -> None:
        with pytest.raises(
            SettingError, match=rf"^settings\['{name}'\]: .*no such name\. Did you mean .*'{near}'"
        ):
            StImputeSettings().override({name: 1})

    def test_a_value_out_of_its_range(self) -> None:
        with pytest.raises(SettingError, match=r"^settings\['k'\]: expected a whole number >= 1, got 0\."):
            StImputeSettings().override({"k": 0})


def test_settings_are_fixed_and_all_documented() -> None:
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'k'"):
        StImputeSettings().k = 3  # type: ignore[misc]
    text = StImputeSettings.__doc__ or ""
    assert not [field.name for field in fields(StImputeSettings) if field.name not in text]


def test_the_memory_of_a_cell_holds_what_a_block_builds() -> None:
    """Count by hand the float32 that are alive at once per cell, where a prediction is widest."""
    k, hidden, n_sources, n_genes = 5, 8, 7, 3
    sources = 2 * k + 2 * k + k  # own and aggregated, side by side, and the layer that reads them
    second_layer = 2 * k + k + k + 2 * k + k  # features; states, messages; both side by side; what comes out
    perceptron = (
        5 * k + 2 * hidden + 2 * hidden + hidden
    )  # features, states, messages, result; widths before and after relu
    least = 4 * (sources * n_sources + max(second_layer, perceptron) * n_genes)
    counted = bytes_per_cell(StImputeSettings(k=k, hidden=hidden), n_sources, n_genes)
    assert least <= counted <= 3 * least
    assert bytes_per_cell(StImputeSettings(k=k, hidden=hidden), n_sources, 2 * n_genes) > counted


STEM_WHOLE = {
    "hidden": 1,
    "middle": 1,
    "latent": 1,
    "n_genes": 2,
    "kernel_neighbors": 1,
    "steps": 0,
    "batch_cells": 2,
    "batch_spots": 2,
    "training_cells": 2,
    "training_spots": 2,
    "models": 1,
}
"""Least value of STEM's settings that are whole numbers."""

STEM_PARTS = ("ramp_start", "ramp_end", "halve_at")
STEM_WEIGHTS = ("alpha", "beta", "visit", "weight_decay")
STEM_OTHERS = {"total", "dropout", "kernel", "composition", "location", "sigma", "lr", *STEM_PARTS}
STEM_OTHERS |= {*STEM_WEIGHTS}


def test_every_setting_of_stem_is_tried_here_and_documented() -> None:
    names = {field.name for field in fields(StemSettings)}
    assert names == {*STEM_WHOLE, *STEM_OTHERS}
    assert not [name for name in names if name not in (StemSettings.__doc__ or "")]


@pytest.mark.parametrize(("name", "low"), STEM_WHOLE.items())
def test_whole_numbers_of_stem(name: str, low: int) -> None:
    assert getattr(StemSettings(**{name: low}), name) == low
    for value in (low - 1, 2.5, "5", True, None):
        with pytest.raises(
            SettingError, match=rf"^{name}: expected a whole number >= {low}, got {value!r}\."
        ):
            StemSettings(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("dropout", 1, "from 0 to 0.99"),
        ("dropout", 1.5, "from 0 to 0.99"),
        ("dropout", -0.1, "from 0 to 0.99"),
        ("dropout", "formula", "from 0 to 0.99"),
        ("total", 0, ">= 1e-06"),
        ("total", -1.0, ">= 1e-06"),
        ("total", None, ">= 1e-06"),
        ("total", float("inf"), ">= 1e-06"),
        ("sigma", 0, ">= 1e-06"),
        ("sigma", float("nan"), ">= 1e-06"),
        ("lr", 0, "from 1e-09 to 10"),
        *((name, value, "from 0 to 1") for name in STEM_PARTS for value in (-0.1, 1.1, "half")),
        *((name, value, ">= 0") for name in STEM_WEIGHTS for value in (-1e-9, float("inf"), False)),
    ],
)
def test_numbers_of_stem_out_of_range(name: str, value: object, expected: str) -> None:
    with pytest.raises(SettingError, match=rf"^{name}: expected a number {expected}, got {value!r}\."):
        StemSettings(**{name: value})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("dropout", (None, 0, 0.99)),
        ("sigma", (None, 1e-6, 0.5, 20.0)),
        ("total", ("median", "common", 1e-6, 0.15, 1, 3.0)),
        ("kernel", ("gaussian", "exponential", "knn")),
        ("composition", ("spots", "both")),
        ("location", ("mean", "median")),
        *((name, (0, 1)) for name in STEM_PARTS),
        *((name, (0, 2.5)) for name in STEM_WEIGHTS),
    ],
)
def test_values_of_stem_that_are_accepted(name: str, values: tuple[object, ...]) -> None:
    assert [getattr(StemSettings(**{name: value}), name) for value in values] == list(values)


@pytest.mark.parametrize(
    ("name", "value", "near"),
    [
        ("kernel", "gausian", "Did you mean 'gaussian'"),
        ("kernel", "zzz", "Known: 'exponential', 'gaussian', 'knn'"),
        ("total", "mean", "Did you mean 'median'"),
        ("composition", "spot", "Did you mean 'spots'"),
        ("location", "means", "Did you mean 'mean'"),
    ],
)
def test_options_of_stem_give_a_near_name(name: str, value: str, near: str) -> None:
    with pytest.raises(SettingError, match=rf"^{name}: expected one of .*got '{value}'\. {near}"):
        StemSettings(**{name: value})


def test_the_published_settings_are_the_papers() -> None:
    published = StemSettings.from_preset("stem")
    assert (published.hidden, published.middle, published.latent) == (512, 256, 128)
    assert (published.steps, published.lr, published.halve_at) == (400, 0.002, 0.5)
    assert (published.alpha, published.beta, published.visit) == (0.5, 1.0, 0.0)
    assert (published.kernel, published.sigma) in (("gaussian", 0.5), ("gaussian", None))
    assert published.steps * published.ramp_start == 50
    assert (published.models, published.total, published.composition) == (1, "median", "spots")
    assert StemSettings().dropout is None  # by the formula


def test_the_own_settings_differ_from_the_published() -> None:
    assert StemSettings.from_preset("auto") != StemSettings.from_preset("stem")


def test_settings_of_stem_are_overridden_by_name() -> None:
    changed = StemSettings().override({"steps": 7, "dropout": 0.3})
    assert {name for name, value in asdict(changed).items() if value != asdict(StemSettings())[name]} == {
        "steps",
        "dropout",
    }
    assert StemSettings.from_preset("auto").override({}) == StemSettings.from_preset("auto")
    with pytest.raises(
        SettingError, match=r"^settings\['sigm'\]: expected a setting of STEM.*Did you mean 'sigma'"
    ):
        StemSettings().override({"sigm": 1})
    with pytest.raises(SettingError, match=r"^settings\['steps'\]: expected a whole number >= 0, got -1\."):
        StemSettings().override({"steps": -1})
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'steps'"):
        StemSettings().steps = 3  # type: ignore[misc]
