"""Effort grows with the work, in a straight line with the cells."""

import dataclasses

import numpy as np
import pytest

from weft.core.settings import AttentionSettings, StImputeSettings
from weft.data.pair import Pair
from weft.effort import Effort, attention_effort, stimpute_effort
from weft.imputer import Imputer


def attention(of: Pair, n_genes: int = 10, n_keys: int = 50, **changes: int) -> Effort:
    return attention_effort(of, n_genes, AttentionSettings(**changes), n_keys=n_keys)


def stimpute(of: Pair, n_genes: int = 10, n_sources: int = 12, **changes: int) -> Effort:
    return stimpute_effort(of, n_genes, StImputeSettings(**changes), n_sources=n_sources)


@pytest.mark.parametrize("effort", [attention, stimpute])
def test_predicting_grows_with_the_cells_in_a_straight_line(effort, tissue_pair: Pair) -> None:
    many = tissue_pair.cells(np.zeros(30_000, dtype=int))
    more = tissue_pair.cells(np.zeros(120_000, dtype=int))
    assert effort(more).predicting == pytest.approx(4 * effort(many).predicting, rel=0.05)
    assert effort(more).learning == effort(many).learning


@pytest.mark.parametrize("effort", [attention, stimpute])
def test_more_genes_are_more_to_predict_and_no_more_to_learn(effort, tissue_pair: Pair) -> None:
    few, many = effort(tissue_pair, 10), effort(tissue_pair, 20)
    assert many.predicting > few.predicting
    assert many.learning == few.learning


def test_settings_count(tissue_pair: Pair) -> None:
    assert attention(tissue_pair, steps=600).learning > attention(tissue_pair).learning
    assert attention(tissue_pair, n_keys=100).predicting > attention(tissue_pair).predicting
    assert stimpute(tissue_pair, epochs=40).learning > stimpute(tissue_pair).learning
    assert stimpute(tissue_pair, n_sources=28).predicting > stimpute(tissue_pair).predicting


def test_a_plan_says_how_long_it_takes(tissue_pair: Pair) -> None:
    plan = Imputer().plan(pair=tissue_pair)
    assert 0 < plan.seconds < 3600
    assert " s, peak memory" in str(plan) or " min, peak memory" in str(plan)
    timeless = dataclasses.replace(plan, rate=float("nan"))
    assert "at once; peak memory" in str(timeless)
    hours = dataclasses.replace(plan, rate=(plan.effort.learning + plan.effort.predicting) / 7200)
    assert "at once; about 2 h, peak" in str(hours)
