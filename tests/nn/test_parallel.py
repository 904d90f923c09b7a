"""Parallel trainings: one at a time on each device, with the same bits as sequential trainings."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._typing import Progress
from cellweft.data._pair import Pair, pair
from cellweft.data.synthetic.pseudospots import pseudo_spots
from cellweft.data.synthetic.tissue import SimulatedTissue, simulate_tissue
from cellweft.evaluate.imputation import evaluate_imputation
from cellweft.evaluate.placement import evaluate_placement
from cellweft.impute.imputer import Imputer
from cellweft.nn.parallel import over_devices
from cellweft.place.placer import Placer

PATIENCE = 20.0
"""Seconds that a thread waits for another before a test fails; normally no thread waits that long."""

QUICK = {
    "auto": {"steps": 5, "fold_steps": 4, "level_steps": 5, "level_hidden": 6},
    "stimpute": {"k": 8, "hidden": 8, "epochs": 1, "ae_epochs": 2},
}
QUICK_PLACER = {"steps": 8, "hidden": 16, "middle": 12, "latent": 6, "models": 3}

FitContext = Callable[[int, str, Progress], Any]


class TestResults:
    @given(items=st.lists(st.integers(), max_size=12), n_devices=st.integers(1, 4))
    @settings(max_examples=40, deadline=None)
    def test_results_are_in_the_order_of_the_items(self, items: list[int], n_devices: int) -> None:
        found = over_devices(lambda item, device, report: item * 2, items, list(range(n_devices)))
        assert list(found) == [2 * item for item in items]

    def test_the_first_items_are_assigned_to_devices_in_order(self) -> None:
        together = threading.Barrier(3, timeout=PATIENCE)

        def work(item: int, device: str, report: Progress) -> str:
            together.wait()
            return device

        assert list(over_devices(work, range(3), "abc")) == ["a", "b", "c"]

    def test_a_device_that_is_free_takes_the_next_item(self) -> None:
        end_of_first = threading.Event()

        def work(item: int, device: str, report: Progress) -> str:
            if item == 0:
                assert end_of_first.wait(PATIENCE)
            if item == 3:
                end_of_first.set()
            return device

        assert list(over_devices(work, range(4), "ab")) == ["a", "b", "b", "b"]

    @pytest.mark.parametrize("devices", ["a", "ab", "aab"])
    def test_each_device_does_one_at_a_time(self, devices: str) -> None:
        busy: Counter[str] = Counter()

        def work(item: int, device: str, report: Progress) -> int:
            busy[device] += 1
            assert busy[device] <= devices.count(device)
            time.sleep(0.002)
            busy[device] -= 1
            return item

        assert list(over_devices(work, range(12), devices)) == list(range(12))

    def test_one_device_works_in_the_calling_thread_on_demand(self) -> None:
        done: list[int] = []

        def work(item: int, device: str, report: Progress) -> int:
            assert threading.current_thread() is threading.main_thread()
            done.append(item)
            return item

        found = over_devices(work, range(3), "a")
        assert done == []
        assert next(found) == 0
        assert done == [0]

    def test_few_items_are_started_ahead_of_their_use(self) -> None:
        begun: list[int] = []

        def work(item: int, device: str, report: Progress) -> None:
            begun.append(item)

        found = over_devices(work, range(100), "ab")
        next(found)
        time.sleep(0.05)
        assert len(begun) <= 4
        found.close()

    def test_workers_use_as_many_torch_threads_as_the_caller(self) -> None:
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(3)
            found = list(over_devices(lambda item, device, report: torch.get_num_threads(), range(2), "ab"))
        finally:
            torch.set_num_threads(before)
        assert found == [3, 3]


class TestEnds:
    def test_an_error_is_raised_and_stops_the_others(self) -> None:
        was_ended = threading.Event()

        def work(item: int, device: str, report: Progress) -> None:
            if item == 0:
                raise ZeroDivisionError("a bug")
            try:
                for step in range(10_000):
                    report("training", step, 10_000)
                    time.sleep(0.001)
            except Exception:
                was_ended.set()
                raise

        with pytest.raises(ZeroDivisionError, match="a bug"):
            list(over_devices(work, range(9), "ab"))
        assert was_ended.is_set()
        assert not running()

    def test_closing_the_results_stops_the_others(self) -> None:
        begun: list[int] = []

        def work(item: int, device: str, report: Progress) -> int:
            begun.append(item)
            for step in range(10_000 * (item > 0)):
                report("training", step, 10_000)
                time.sleep(0.001)
            return item

        found = over_devices(work, range(9), "ab")
        assert next(found) == 0
        found.close()
        assert not running()
        assert max(begun) <= 3

    def test_the_number_of_blas_threads_is_restored(self) -> None:
        from threadpoolctl import threadpool_info, threadpool_limits

        def blas() -> list[int]:
            return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]

        with threadpool_limits(2, user_api="blas"):
            before = blas()
            list(over_devices(lambda *_: threadpool_limits(1, user_api="blas"), range(2), "ab"))
            assert blas() == before


class TestProgress:
    @staticmethod
    def told_by(devices: str, work: FitContext | None = None) -> list[tuple[str, int, int]]:
        seen: list[tuple[str, int, int]] = []

        def counts(item: int, device: str, report: Progress) -> int:
            for step in range(3):
                report("training", 3 * item + step + 1, 15)
            return item

        list(over_devices(work or counts, range(5), devices, progress=lambda *one: seen.append(one)))
        return seen

    def test_one_device_reports_every_step(self) -> None:
        assert self.told_by("a") == [("training", done, 15) for done in range(1, 16)]

    @pytest.mark.parametrize("devices", ["ab", "abc"])
    def test_several_devices_report_in_order_and_to_the_end(self, devices: str) -> None:
        steps = [done for _, done, _ in self.told_by(devices)]
        assert all(first < second for first, second in pairwise(steps))
        assert {3, 6, 9, 12, 15} <= set(steps)

    def test_an_item_without_progress(self) -> None:
        assert self.told_by("ab", lambda item, device, report: item) == []


def running() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("cellweft-device")]


# The same bits as sequential training


@pytest.fixture(
    params=[("cpu", "cpu,cpu"), pytest.param(("cuda:0", "cuda:0,cuda:0"), marks=pytest.mark.gpu)],
    ids=["cpu", "cuda"],
)
def one_and_two(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """A device, and the same device twice."""
    if request.param[0] == "cuda:0" and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    yield request.param
    assert not running()


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["auto", "stimpute"])
def test_an_imputer_has_the_same_bits(tissue_pair: Pair, preset: Any, one_and_two: tuple[str, str]) -> None:
    told: list[str] = []
    one, two = (
        Imputer(preset=preset, settings=QUICK[preset], seed=3, device=device).fit(
            tissue_pair, progress=lambda stage, done, total: told.append(stage)
        )
        for device in one_and_two
    )
    first, second = (imputer.impute(interval=0.9 if preset == "auto" else None) for imputer in (one, two))
    np.testing.assert_array_equal(first.X, second.X)
    pd.testing.assert_frame_equal(first.var, second.var)
    assert first.var["reliability"].notna().all()
    for name in first.layers:
        np.testing.assert_array_equal(first.layers[name], second.layers[name])
    assert first.uns["cellweft"]["device"] == second.uns["cellweft"]["device"]
    assert one.model_.history == two.model_.history
    assert told.count("reliability" if preset == "stimpute" else "genes left out") == (
        10 if preset == "stimpute" else 6
    )


@pytest.mark.parametrize("n_devices", [2, 3, 5])
def test_a_placer_has_the_same_bits(tissue_pair: Pair, n_devices: int, one_and_two: tuple[str, str]) -> None:
    one = one_and_two[0]
    found = [
        Placer(settings=QUICK_PLACER, device=device).fit(tissue_pair).place().to_anndata()
        for device in (one, ",".join([one] * n_devices))
    ]
    pd.testing.assert_frame_equal(found[0].obs, found[1].obs)
    np.testing.assert_array_equal(found[0].obsm["cellweft_spatial"], found[1].obsm["cellweft_spatial"])


def test_a_placer_whose_slices_do_not_fit_in_a_batch(tissue_pair: Pair) -> None:
    drawn = QUICK_PLACER | {"batch_spots": 20, "batch_cells": 30}
    found = [
        Placer(settings=drawn, device=device).fit(tissue_pair).place().coordinates()
        for device in ("cpu", "cpu,cpu")
    ]
    np.testing.assert_array_equal(*found)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["genes", "cells", "fraction"])
def test_an_evaluation_of_imputation_has_the_same_scores(
    tissue_pair: Pair, by: Any, one_and_two: tuple[str, str]
) -> None:
    quick = "auto:steps=4+fold_steps=3+level_steps=3"
    calls: list[tuple[str, int, int]] = []
    tables = [
        evaluate_imputation(
            tissue_pair,
            ["mean", quick],
            by=by,
            folds=5 if by == "fraction" else 2,
            seeds=(0, 1),
            reliability=True,
            device=device,
            progress=lambda *call: calls.append(call),
        )
        for device in one_and_two
    ]
    pd.testing.assert_frame_equal(*tables)
    assert tables[1].attrs["cellweft"]["parameters"]["device"] == one_and_two[1]
    half = len(calls) // 2
    assert calls[:half] == calls[half:]


@pytest.mark.slow
def test_an_evaluation_of_placement_has_the_same_scores(one_and_two: tuple[str, str]) -> None:
    cells = simulate_tissue(n_spatial=200, n_genes=60, n_panel=40, n_types=5, seed=3).st
    made = pseudo_spots(cells, spacing=40, radius=20)
    tables = [
        evaluate_placement(
            pair(made.cells, made.spots),
            ["cosine", "auto:steps=4+hidden=8+middle=8+latent=4", "nnls"],
            truth="obsm:spatial_true",
            truth_composition="obsm:composition",
            hits=(5,),
            seeds=(0, 1),
            device=device,
        )
        for device in one_and_two
    ]
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Writing zarr v2 data:UserWarning")
def test_data_on_disk_are_read_in_parallel(tissue: SimulatedTissue, tmp_path: Any) -> None:
    paths = [tmp_path / name for name in ("sc.h5ad", "st.zarr")]
    tissue.sc.write_h5ad(paths[0])
    tissue.st.write_zarr(paths[1])
    found = [
        Imputer(preset="stimpute", settings=QUICK["stimpute"], device=device).fit(pair(*paths)).impute()
        for device in ("cpu", "cpu,cpu,cpu")
    ]
    np.testing.assert_array_equal(found[0].X, found[1].X)
    pd.testing.assert_frame_equal(found[0].var, found[1].var)


def test_the_plan_counts_parallel_trainings(tissue_pair: Pair) -> None:
    settings = {"hidden": 4096, "batch": 512}
    peaks = [
        Imputer(preset="stimpute", settings=settings, device=device).plan(pair=tissue_pair).peak_bytes
        for device in ("cpu", "cpu,cpu", "cpu,cpu,cpu")
    ]
    assert peaks[1] > peaks[0]
    assert peaks[2] - peaks[1] == pytest.approx(peaks[1] - peaks[0])
