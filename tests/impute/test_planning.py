"""Plans respect their budget, grow with the work, and refuse impossible work before it starts."""

import dataclasses
import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._errors import MemoryBudgetError, SettingError
from cellweft.data._pair import Pair
from cellweft.impute.imputer import Imputer
from cellweft.impute.planning import Plan, make_plan, n_sources_of, uses_all_sources
from cellweft.nn.config import AttentionSettings, StemSettings, StImputeSettings
from cellweft.place.placer import Placer
from cellweft.place.planning import PlacingPlan, plan_placing

SETTINGS = StImputeSettings(k=8, hidden=8)


def sized(like: Pair, *, n_cells: int = 90, n_sc: int = 100) -> Pair:
    """Return a pair of another size, whose values are never read."""
    st_side = like.st.subset(np.zeros(n_cells, dtype=int))
    sc_side = like.sc.subset(np.zeros(n_sc, dtype=int))
    return dataclasses.replace(like, st=st_side, sc=sc_side)


def test_a_plan_describes_the_request(tissue_pair: Pair) -> None:
    plan = make_plan(tissue_pair, 28, settings=SETTINGS, memory="4 GB")
    assert (plan.n_cells, plan.n_genes) == (90, 28)
    assert (plan.cells_per_block, plan.genes_per_block) == (90, 28)
    assert plan.chunk == (90, 28)
    assert plan.output_bytes == 4 * 90 * 28
    assert str(plan).startswith("28 genes in 90 cells, 90 cells x 28 genes at once; peak memory about 4")
    assert str(plan).endswith("result 10.1 KB before compression")
    assert "\n" not in str(plan)
    few = make_plan(tissue_pair.cells(np.array([0])), 1, settings=SETTINGS, memory="4 GB")
    assert str(few).startswith("1 gene in 1 cell, 1 cell x 1 gene at once")


def test_a_plan_of_a_sparse_result(tissue_pair: Pair) -> None:
    imputer = Imputer(reliability=False, device="cpu")
    plan = imputer.plan(pair=tissue_pair, sparse=0.05)
    assert plan.kept is not None
    assert 0 < plan.kept < 1
    assert plan.output_bytes == pytest.approx(8 * plan.kept * 90 * 28 + 4 * 90)
    assert str(plan).endswith(f"before compression, if {plan.kept:.0%} of the values reach the threshold")
    assert dataclasses.replace(plan, kept=None, output_bytes=0) == dataclasses.replace(
        imputer.plan(pair=tissue_pair), output_bytes=0
    )
    assert imputer.plan(pair=tissue_pair, sparse=0).kept == 1
    bounded = imputer.plan(pair=tissue_pair, sparse=0.05, interval=0.9)  # bounds are dense
    assert bounded.output_bytes == pytest.approx(plan.output_bytes + 2 * 4 * 90 * 28)
    with pytest.raises(SettingError, match="sparse: expected a number from 0 to 1, got -1"):
        imputer.plan(pair=tissue_pair, sparse=-1)
    with pytest.raises(SettingError, match=r"sparse: expected None with in_memory=True, .*got 0\.05"):
        imputer.plan(pair=tissue_pair, sparse=0.05, in_memory=True)


def test_a_plan_counts_intervals_and_a_result_in_memory(tissue_pair: Pair) -> None:
    one, matrix = sized(tissue_pair, n_cells=10_000), 4 * 10_000 * 28
    written, bounded, held = (
        Imputer(device="cpu").plan(pair=one, **asked)
        for asked in ({}, {"interval": 0.9}, {"interval": 0.9, "in_memory": True})
    )
    assert (written.output_bytes, bounded.output_bytes, held.output_bytes) == (matrix, 3 * matrix, 3 * matrix)
    assert held.peak_bytes == pytest.approx(bounded.peak_bytes + 3 * matrix)
    assert bounded.peak_bytes >= written.peak_bytes
    plenty = [
        make_plan(one, 5000, settings=AttentionSettings(), memory="1 TB", interval=asked)
        for asked in (None, 0.9)
    ]
    tile = 4 * plenty[0].cells_per_block * plenty[0].genes_per_block
    assert plenty[1].peak_bytes - plenty[0].peak_bytes > 10 * tile  # both bounds, temporarily in float64
    assert "28 genes in 10,000 cells with intervals of level 0.9, 4,096 cells" in str(held)
    assert str(held).endswith(", of which the result takes 3.36 MB")
    assert str(bounded).endswith(", result 3.36 MB before compression")
    with pytest.raises(SettingError, match=r"interval: expected a number from 0\.01 to 0\.999, got 2"):
        Imputer(device="cpu").plan(pair=one, interval=2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Observation names are not unique")
@pytest.mark.parametrize(
    "asked",
    [{}, {"interval": 0.9}, {"scale": "counts", "interval": 0.9}, {"scale": "counts", "measured": "blend"}],
)
def test_an_imputation_in_memory_takes_no_more_than_planned(tissue_pair: Pair, asked: dict[str, Any]) -> None:
    quick = {"steps": 3, "fold_steps": 3, "level_steps": 3}
    imputer = Imputer(settings=quick, device="cpu").fit(tissue_pair)
    many = tissue_pair.cells(np.zeros(30_000, dtype=int))
    plan = imputer.plan(pair=many, in_memory=True, **asked)
    nothing = imputer.plan([], pair=many, in_memory=True)
    tracemalloc.start()
    try:
        imputed = imputer.impute(pair=many, **asked)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    layers = [imputed.layers[name] for name in set(imputed.layers) - {None}]  # None is X in anndata 0.13
    arrays = sum(one.nbytes for one in (imputed.X, *layers))
    assert plan.output_bytes == arrays
    assert arrays < taken <= plan.peak_bytes
    assert plan.peak_bytes >= nothing.peak_bytes + arrays


def test_plans_include_counts_and_blended_genes(tissue_pair: Pair) -> None:
    one, imputer = sized(tissue_pair, n_cells=10_000, n_sc=3000), Imputer(device="cpu")
    plain = imputer.plan(pair=one)
    counts, blend = imputer.plan(pair=one, scale="counts"), imputer.plan(pair=one, measured="blend")
    tile = plain.cells_per_block
    assert counts.peak_bytes - plain.peak_bytes == pytest.approx(2 * 4 * tile * 28)
    bounded, bounded_counts = (
        imputer.plan(pair=one, interval=0.9, scale=scale) for scale in ("log", "counts")
    )
    assert bounded_counts.peak_bytes - bounded.peak_bytes == pytest.approx(3 * 2 * 4 * tile * 28)
    of_tiles = 10 * 4 * tile * 12
    keys = 5 * 4 * 12 * (3000 + 2 * 2000)
    assert blend.peak_bytes - plain.peak_bytes == pytest.approx(keys + of_tiles)
    assert (counts.output_bytes, blend.output_bytes) == (plain.output_bytes, plain.output_bytes)
    least = r"memory: expected at least"
    with pytest.raises(MemoryBudgetError, match=least):
        imputer.plan(pair=sized(tissue_pair, n_sc=10_000_000), measured="blend", memory="2 GB")
    with pytest.raises(SettingError, match="scale: expected one of 'log', 'counts', got 'count'"):
        imputer.plan(pair=one, scale="count")
    with pytest.raises(SettingError, match="measured: expected one of 'predict', 'blend'"):
        imputer.plan(pair=one, measured="mix")


@given(
    n_cells=st.integers(1, 10**5),
    more_cells=st.integers(0, 10**5),
    n_genes=st.integers(0, 10**5),
    more_genes=st.integers(0, 10**5),
    interval=st.sampled_from([None, 0.9]),
    in_memory=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_more_work_never_takes_less(
    tissue_pair: Pair,
    n_cells: int,
    more_cells: int,
    n_genes: int,
    more_genes: int,
    interval: Any,
    in_memory: bool,
) -> None:
    asked = {"settings": SETTINGS, "memory": "1 TB", "interval": interval, "in_memory": in_memory}
    small = make_plan(sized(tissue_pair, n_cells=n_cells), n_genes, **asked)
    large = make_plan(sized(tissue_pair, n_cells=n_cells + more_cells), n_genes + more_genes, **asked)
    assert large.peak_bytes >= small.peak_bytes
    assert large.output_bytes >= small.output_bytes


@given(
    budget=st.integers(4 * 10**8, 2 * 10**9),
    n_cells=st.integers(1, 10**5),
    n_sc=st.integers(8, 20_000),
    n_genes=st.integers(0, 5000),
    interval=st.sampled_from([None, 0.9]),
    in_memory=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_a_plan_respects_its_budget_or_says_what_it_needs(
    tissue_pair: Pair, budget: int, n_cells: int, n_sc: int, n_genes: int, interval: Any, in_memory: bool
) -> None:
    one = sized(tissue_pair, n_cells=n_cells, n_sc=n_sc)
    asked = {"settings": SETTINGS, "interval": interval, "in_memory": in_memory}
    try:
        plan = make_plan(one, n_genes, memory=budget, **asked)
    except MemoryBudgetError:
        enough = make_plan(one, n_genes, memory="1 TB", **asked)
        assert enough.peak_bytes > budget  # the refusal was necessary
        return
    assert plan.cells_per_block >= 1
    assert plan.genes_per_block >= min(n_genes, 1)
    assert math.isfinite(plan.peak_bytes)
    assert plan.peak_bytes <= budget


def test_blocks_shrink_with_the_budget(tissue_pair: Pair) -> None:
    large = sized(tissue_pair, n_sc=20_000)
    plans = [make_plan(large, 256, settings=SETTINGS, memory=budget) for budget in ("1 GB", "600 MB")]
    assert plans[0].genes_per_block == 256
    assert plans[1].genes_per_block < 256
    assert plans[1].peak_bytes < plans[0].peak_bytes


def test_a_result_too_large_for_memory_can_still_be_written(tissue_pair: Pair) -> None:
    large = sized(tissue_pair, n_cells=10**6)
    message = r"memory: expected at least .* for 1,000,000 cells x 2,000 genes, got 4 GB\. .*use impute_to"
    with pytest.raises(MemoryBudgetError, match=message):
        make_plan(large, 2000, settings=SETTINGS, memory="4 GB", in_memory=True)
    assert make_plan(large, 2000, settings=SETTINGS, memory="4 GB").output_bytes == 8e9


def test_impossible_plans_are_refused_before_the_work(tissue_pair: Pair) -> None:
    with pytest.raises(
        MemoryBudgetError, match=r"expected at least 45\d MB for 90 cells x 28 genes, got 100 MB"
    ):
        make_plan(tissue_pair, 28, settings=SETTINGS, memory="100 MB")
    with pytest.raises(
        MemoryBudgetError, match=r"To continue, raise the budget"
    ):  # streaming would not fit either
        make_plan(tissue_pair, 28, settings=SETTINGS, memory="100 MB", in_memory=True)
    with pytest.raises(SettingError, match="memory: expected a size such as"):
        make_plan(tissue_pair, 28, settings=SETTINGS, memory="lots")


def test_plans_include_the_sources_of_the_graph(tissue_pair: Pair) -> None:
    panel = dataclasses.replace(SETTINGS, sources="panel")
    assert not uses_all_sources(tissue_pair, panel)
    assert (n_sources_of(tissue_pair, panel), n_sources_of(tissue_pair, SETTINGS)) == (12, 28)
    fewer, more = (make_plan(tissue_pair, 28, settings=one, memory="4 GB") for one in (panel, SETTINGS))
    assert fewer.peak_bytes < more.peak_bytes


def test_an_imputer_plans_before_and_after_its_fit(imputer: Imputer, tissue_pair: Pair) -> None:
    fresh = Imputer(preset="stimpute", settings=imputer.settings, reliability=imputer.reliability)
    assert fresh.plan(pair=tissue_pair) == imputer.plan()
    assert fresh.plan(["Gene02", "gene02"], pair=tissue_pair).n_genes == 1
    assert isinstance(imputer.plan([]), Plan)


def test_plans_include_training(tissue_pair: Pair) -> None:
    wide = dataclasses.replace(SETTINGS, hidden=8192)  # for a batch of the tissue's 90 cells
    with pytest.raises(MemoryBudgetError, match="expected at least"):
        make_plan(tissue_pair, 1, settings=wide, memory="600 MB")
    assert make_plan(tissue_pair, 1, settings=wide, memory="4 GB").peak_bytes > 600e6


PLACING = StemSettings(steps=10, models=2, batch_cells=64, batch_spots=32)


def test_a_plan_of_placement_describes_the_request(tissue_pair: Pair) -> None:
    plan = plan_placing(tissue_pair, settings=PLACING)
    assert (plan.n_cells, plan.n_spots, plan.n_genes, plan.steps) == (100, 90, 12, 20)
    assert str(plan).startswith("100 cells on 90 spots by 12 genes, 20 training steps")
    assert "peak memory about 4" in str(plan)
    assert "\n" not in str(plan)
    assert plan_placing(tissue_pair, settings=dataclasses.replace(PLACING, n_genes=5)).n_genes == 5


@given(n_cells=st.integers(2, 10**6), n_spots=st.integers(2, 10**6), budget=st.integers(10**8, 10**10))
@settings(max_examples=25, deadline=None)
def test_a_plan_of_placement_respects_its_budget_or_says_what_it_needs(
    tissue_pair: Pair, n_cells: int, n_spots: int, budget: int
) -> None:
    one = sized(tissue_pair, n_cells=n_spots, n_sc=n_cells)
    free = plan_placing(one, settings=PLACING)
    assert math.isfinite(free.peak_bytes)
    assert free == plan_placing(one, settings=PLACING, memory="1 TB")
    if free.peak_bytes > budget:
        with pytest.raises(MemoryBudgetError, match=r"memory: expected at least .*training_cells"):
            plan_placing(one, settings=PLACING, memory=budget)
    else:
        assert plan_placing(one, settings=PLACING, memory=budget) == free


@given(
    n_cells=st.integers(2, 10**6),
    n_spots=st.integers(2, 10**6),
    more=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 3), st.integers(0, 500)),
)
@settings(max_examples=25, deadline=None)
def test_placing_more_never_takes_less(
    tissue_pair: Pair, n_cells: int, n_spots: int, more: tuple[int, int, int, int]
) -> None:
    small = plan_placing(sized(tissue_pair, n_cells=n_spots, n_sc=n_cells), settings=PLACING)
    settings = dataclasses.replace(PLACING, models=2 + more[2], batch_cells=64 + more[3])
    other = sized(tissue_pair, n_cells=n_spots + more[1], n_sc=n_cells + more[0])
    assert plan_placing(other, settings=settings).peak_bytes >= small.peak_bytes


def test_the_plan_does_not_grow_with_cells_times_spots(tissue_pair: Pair) -> None:
    """Memory grows linearly with cells and with spots, even for 4e11 pairs of them."""
    many = sized(tissue_pair, n_cells=200_000, n_sc=2_000_000)
    plan = plan_placing(many, settings=StemSettings())
    assert plan.peak_bytes < 10e9
    assert plan.peak_bytes > 4 * 2.2e6 * StemSettings().latent  # the size of the embeddings


def test_plans_include_encoders_that_train_in_parallel(tissue_pair: Pair) -> None:
    wide = dataclasses.replace(PLACING, hidden=20_000)
    one, two, three = (
        plan_placing(tissue_pair, settings=wide, trainings=number).peak_bytes for number in (1, 2, 3)
    )
    assert one < two == three  # there are two encoders
    assert Placer(settings={"hidden": 20_000}, device="cpu,cpu").plan(pair=tissue_pair).peak_bytes > one


def test_a_placer_plans_before_and_after_its_fit(placer: Placer, tissue_pair: Pair) -> None:
    fresh = Placer(settings=placer.settings)
    assert isinstance(placer.plan(), PlacingPlan)
    assert fresh.plan(pair=tissue_pair) == placer.plan()
    with pytest.raises(SettingError, match="memory: expected a size such as"):
        fresh.plan(pair=tissue_pair, memory="lots")
