"""The settings of every method, the published values, memory per cell, and the sources of a gene graph."""

import json
from dataclasses import FrozenInstanceError, asdict, fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._errors import SettingError
from cellweft.nn.config import AttentionSettings, StemSettings, StImputeSettings, bytes_per_cell

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
"""Smallest values of the settings that are whole numbers."""

OTHERS = {"alpha", "lr", "residual", "cell_similarity", "gene_similarity"}
OPTIONS = {"graph", "measure", "sources", "normalise", "search", "similarity_mean", "neighbor_scale"}
WEIGHTS = ("residual", "cell_similarity", "gene_similarity")


def test_every_setting_is_tested_here() -> None:
    assert {field.name for field in fields(StImputeSettings)} == {*WHOLE, *OTHERS, *OPTIONS}


@pytest.mark.parametrize(("name", "low"), WHOLE.items())
class TestWholeNumbers:
    def test_the_smallest_value_is_accepted(self, name: str, low: int) -> None:
        assert getattr(StImputeSettings(**{name: low}), name) == low

    def test_smaller_values_are_refused(self, name: str, low: int) -> None:
        with pytest.raises(
            SettingError, match=rf"^{name}: expected a whole number >= {low}, got {low - 1}\."
        ):
            StImputeSettings(**{name: low - 1})

    @pytest.mark.parametrize("value", [2.5, "5", True, float("nan")])
    def test_other_types_are_refused(self, name: str, low: int, value: object) -> None:
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
def test_the_limits_of_a_range_are_accepted(name: str, values: tuple[float, ...]) -> None:
    assert [getattr(StImputeSettings(**{name: value}), name) for value in values] == list(values)


@pytest.mark.parametrize(
    ("name", "value", "near"),
    [
        ("graph", "expresion", "Did you mean 'expression'"),
        ("measure", "similar", "Did you mean 'similarity'"),
        ("sources", "pannel", "Did you mean 'panel'"),
        ("similarity_mean", "genes", "Did you mean 'gene'"),
        ("neighbor_scale", "pannel", "Did you mean 'panel'"),
        ("graph", "zzz", "Known: 'auto', 'edges', 'embedding', 'expression'"),
    ],
)
def test_unknown_options_suggest_a_similar_name(name: str, value: str, near: str) -> None:
    with pytest.raises(SettingError, match=rf"^{name}: expected one of .*got '{value}'\. {near}"):
        StImputeSettings(**{name: value})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("graph", ("auto", "embedding", "expression", "none")),
        ("measure", ("similarity", "distance")),
        ("sources", ("auto", "all", "panel")),
        ("similarity_mean", ("overall", "gene", "each", "profile")),
        ("neighbor_scale", ("panel", "none")),
    ],
)
def test_every_option_is_accepted(name: str, values: tuple[str, ...]) -> None:
    assert [getattr(StImputeSettings(**{name: value}), name) for value in values] == list(values)


@pytest.mark.parametrize(("n_cells", "is_small"), [(1, True), (9_999, True), (10_000, False), (10**6, False)])
def test_published_settings_are_those_of_the_paper_for_the_number_of_cells(
    n_cells: int, *, is_small: bool
) -> None:
    """Section "Implementation Details" of the paper, where settings depend only on the number of cells."""
    published = StImputeSettings.published(n_cells)
    assert (published.k, published.hidden) == (50, 50)
    assert (published.epochs, published.alpha) == ((10, 0.7) if is_small else (32, 0.5))
    assert (published.latent, published.ae_epochs, published.lr, published.rounds) == (100, 30, 0.01, 2)
    assert (published.residual, published.cell_similarity, published.gene_similarity) == (1, 1, 1)
    assert (published.measure, published.similarity_mean) == ("similarity", "overall")


class TestOverride:
    def test_it_changes_only_the_named_settings(self) -> None:
        before = StImputeSettings()
        after = before.override({"k": 7, "alpha": 0.1})
        assert {name for name, value in asdict(after).items() if value != asdict(before)[name]} == {
            "k",
            "alpha",
        }
        assert (after.k, after.alpha, before.k) == (7, 0.1, 50)

    def test_an_empty_override_changes_nothing(self) -> None:
        assert StImputeSettings(k=3).override({}) == StImputeSettings(k=3)

    @pytest.mark.parametrize(
        ("name", "near"), [("alhpa", "alpha"), ("Hidden", "hidden"), ("epoch", "epochs")]
    )
    def test_an_unknown_name_suggests_a_similar_one(self, name: str, near: str) -> None:
        with pytest.raises(
            SettingError, match=rf"^settings\['{name}'\]: .*no such name\. Did you mean .*'{near}'"
        ):
            StImputeSettings().override({name: 1})

    def test_a_value_out_of_range_is_refused(self) -> None:
        with pytest.raises(SettingError, match=r"^settings\['k'\]: expected a whole number >= 1, got 0\."):
            StImputeSettings().override({"k": 0})


def test_settings_are_frozen_and_all_documented() -> None:
    with pytest.raises(FrozenInstanceError, match="cannot assign to field 'k'"):
        StImputeSettings().k = 3  # type: ignore[misc]
    text = StImputeSettings.__doc__ or ""
    assert not [field.name for field in fields(StImputeSettings) if field.name not in text]


def test_the_memory_per_cell_covers_the_arrays_of_a_block() -> None:
    """Count by hand the float32 values per cell that exist at once at the widest point of a prediction."""
    k, hidden, n_sources, n_genes = 5, 8, 7, 3
    sources = 2 * k + 2 * k + k  # own and aggregated values side by side, and the layer that reads them
    second_layer = 2 * k + k + k + 2 * k + k  # features; states, messages; both side by side; the result
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
"""Smallest values of STEM's settings that are whole numbers."""

STEM_PARTS = ("ramp_start", "ramp_end", "halve_at")
STEM_WEIGHTS = ("alpha", "beta", "visit", "weight_decay", "expression_counts")
STEM_OTHERS = {"total", "dropout", "kernel", "composition", "location", "sigma", "lr", *STEM_PARTS}
STEM_OTHERS |= {"dropout_rescale", "slice_genes", *STEM_WEIGHTS}


def test_every_setting_of_stem_is_tested_here_and_documented() -> None:
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
        ("dropout_rescale", (True, False)),
        ("slice_genes", ("union", "common")),
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
        ("slice_genes", "unions", "Did you mean 'union'"),
        ("location", "means", "Did you mean 'mean'"),
    ],
)
def test_unknown_options_of_stem_suggest_a_similar_name(name: str, value: str, near: str) -> None:
    with pytest.raises(SettingError, match=rf"^{name}: expected one of .*got '{value}'\. {near}"):
        StemSettings(**{name: value})


def test_the_published_settings_of_stem_are_those_of_the_paper() -> None:
    published = StemSettings.from_preset("stem")
    assert (published.hidden, published.middle, published.latent) == (512, 256, 128)
    assert (published.steps, published.lr, published.halve_at) == (400, 0.002, 0.5)
    assert (published.alpha, published.beta, published.visit) == (0.5, 1.0, 0.0)
    assert (published.kernel, published.sigma) in (("gaussian", 0.5), ("gaussian", None))
    assert published.steps * published.ramp_start == 50
    assert (published.models, published.total, published.composition) == (1, "median", "spots")
    assert published.dropout is None  # computed by the formula
    assert published.dropout_rescale  # as in a dropout layer


def test_auto_uses_the_formula_without_rescaling() -> None:
    own = StemSettings.from_preset("auto")
    assert (own.dropout, own.dropout_rescale) == (None, False)


@pytest.mark.parametrize("settings", [StemSettings, StImputeSettings])
def test_flags_are_true_or_false(settings: type) -> None:
    name = "dropout_rescale" if settings is StemSettings else "normalise"
    for value in ("no", 1, 0.0, None):
        with pytest.raises(SettingError, match=rf"^{name}: expected True or False, got {value!r}\."):
            settings(**{name: value})


def test_settings_of_auto_differ_from_the_published_ones() -> None:
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


ATTENTION_WHOLE = {
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
    "level_cell_genes": 0,
    "most_keys": 1,
}
"""Smallest values of the settings that are whole numbers."""

ATTENTION_WEIGHTS = ("detection", "pull", "level_pattern", "level_pull")
ATTENTION_RATES = ("lr", "fold_lr", "level_lr")
ATTENTION_OTHERS = {"temperature", "hide_least", "hide_most", "precision"}


def test_every_setting_of_attention_is_tested_here_and_documented() -> None:
    names = {field.name for field in fields(AttentionSettings)}
    assert names == {*ATTENTION_WHOLE, *ATTENTION_WEIGHTS, *ATTENTION_RATES, *ATTENTION_OTHERS}
    assert not [name for name in names if name not in (AttentionSettings.__doc__ or "")]


@pytest.mark.parametrize(("name", "low"), ATTENTION_WHOLE.items())
def test_whole_numbers_of_attention(name: str, low: int) -> None:
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
        *(
            (name, value, ">= 0")
            for name in ATTENTION_WEIGHTS
            for value in (-1e-9, float("inf"), False, "much")
        ),
        *((name, value, "from 1e-09 to 10") for name in ATTENTION_RATES for value in (0, 11, float("nan"))),
        ("hide_least", -0.1, "from 0 to 1"),
        ("hide_least", 1.1, "from 0 to 1"),
        ("hide_most", 0.01, "from 0.05 to 1"),
        ("hide_most", 1.1, "from 0.05 to 1"),
        ("hide_most", "half", "from 0.05 to 1"),
    ],
)
def test_numbers_of_attention_out_of_range(name: str, value: object, expected: str) -> None:
    with pytest.raises(SettingError, match=rf"^{name}: expected a number {expected}, got {value!r}\."):
        AttentionSettings(**{name: value})


@pytest.mark.parametrize(
    "values",
    [
        *({name: 0} for name in ATTENTION_WEIGHTS),
        {"temperature": 1e-3},
        {"hide_least": 0, "hide_most": 0},
        {"hide_least": 1, "hide_most": 1},
        {"lr": 10, "level_lr": 1e-9},
    ],
)
def test_the_limits_of_a_range_of_attention_are_accepted(values: dict[str, float]) -> None:
    made = AttentionSettings(**values)
    assert {name: getattr(made, name) for name in values} == values


def test_hide_most_is_at_least_hide_least() -> None:
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


def test_training_without_a_fold_has_its_own_steps() -> None:
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
def test_an_unknown_name_of_attention_suggests_a_similar_one(name: str, near: str) -> None:
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


KINDS = ["embedding", "expression", "gene_sets", "edges"]
ALL = ["embedding", "gene_sets", "edges"]


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ([], ["expression"]),
        (["embedding"], ["embedding"]),
        (["edges", "embedding"], ["embedding", "edges"]),
        (ALL, ALL),
    ],
)
def test_the_graph_auto_is_the_union_of_the_given_sources(given_: list[str], expected: list[str]) -> None:
    assert list(StImputeSettings().graph_shares(given_).items()) == [(one, 1.0) for one in expected]


def test_the_graph_none_uses_no_source() -> None:
    assert StImputeSettings(graph="none").graph_shares(ALL) == {}


@settings(max_examples=30, deadline=None)
@given(
    shares=st.dictionaries(
        st.sampled_from(KINDS), st.none() | st.integers(1, 80).map(lambda one: one / 8), min_size=1
    )
)
def test_graphs_written_as_text_are_read_back(shares: dict[str, float | None]) -> None:
    text = "+".join(name if share is None else f"{name}:{share}" for name, share in shares.items())
    expected = {name: 1.0 if share is None else share for name, share in shares.items()}
    assert StImputeSettings(graph=text).graph_shares(ALL) == expected


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ("string", r"graph: expected one of 'embedding', .*got 'string'"),
        ("edgs", r"Did you mean 'edges'"),
        ("embedding+", r"graph: expected one of .*got ''"),
        ("", r"graph: expected one of"),
        (None, r"graph: expected one of .*got 'None'"),
        ("embedding+embedding", r"graph: expected relations joined by \+, each once"),
        ("embedding:0", r"optionally with a weight above 0"),
        ("embedding:-1", r"optionally with a weight above 0"),
        ("embedding:nan", r"optionally with a weight above 0"),
        ("embedding:inf", r"optionally with a weight above 0"),
        ("embedding:", r"optionally with a weight above 0"),
        ("embedding:much", r"optionally with a weight above 0"),
        ("auto+edges", r"'auto' and 'none' cannot be combined"),
        ("none+edges", r"'auto' and 'none' cannot be combined"),
        ("none:2", r"'auto' and 'none' cannot be combined"),
    ],
)
def test_other_forms_of_a_graph_are_refused(graph: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        StImputeSettings(graph=graph)


@pytest.mark.parametrize(
    ("graph", "lacking", "what"),
    [
        ("embedding", "embedding", "an embedding table"),
        ("expression+gene_sets", "gene_sets", "gene sets"),
        ("edges:2+expression", "edges", "a list of edges"),
    ],
)
def test_missing_sources_are_named(graph: str, lacking: str, what: str) -> None:
    others = [name for name in ALL if name != lacking]
    with pytest.raises(SettingError, match=rf"graph='.*': expected {what}, got none\. Pass {lacking}=, or"):
        StImputeSettings(graph=graph).graph_shares(others)


@pytest.mark.parametrize("graph", ["gene_sets", "embedding+edges"])
def test_sets_and_edges_have_no_distance(graph: str) -> None:
    with pytest.raises(SettingError, match=r"measure: expected 'similarity' in a graph of .*no distance"):
        StImputeSettings(graph=graph, measure="distance")
    automatic = StImputeSettings(measure="distance")
    assert automatic.graph_shares(["embedding"]) == {"embedding": 1.0}
    with pytest.raises(SettingError, match=r"measure: .*of gene_sets and edges, which define no distance"):
        automatic.graph_shares(["gene_sets", "edges"])


def test_the_default_settings_are_those_of_the_release() -> None:
    """A new default changes the results of every user; the current ones are in tests/golden/settings.json."""
    now = {
        "auto": AttentionSettings(),
        "stimpute": StImputeSettings.published(9_999),
        "stimpute, 10,000 cells": StImputeSettings.published(10_000),
        "place auto": StemSettings.from_preset("auto"),
        "place stem": StemSettings.from_preset("stem"),
    }
    path = Path(__file__).parents[1] / "golden" / "settings.json"
    plain = json.loads(json.dumps({name: asdict(one) for name, one in now.items()}))
    assert plain == json.loads(path.read_text())
