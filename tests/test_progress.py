"""Values of `progress=`, the bar that it draws, and the state after a function raised."""

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from rich.progress import Progress as Bars

import cellweft
from cellweft._compute import progress_callback
from cellweft._errors import SettingError
from cellweft._typing import no_progress
from cellweft.data._pair import Pair
from cellweft.impute.imputer import Imputer
from cellweft.place.placement import Placement
from cellweft.place.placer import Placer

QUICK = {"steps": 3, "fold_steps": 3, "level_steps": 3}

PUBLIC = (
    cellweft.Imputer.fit,
    cellweft.Imputer.impute,
    cellweft.Imputer.impute_to,
    cellweft.Placer.fit,
    cellweft.Placer.place,
    cellweft.genes.ProteinEmbedder.embed,
    cellweft.genes.ProteinEmbedder.embed_to,
    cellweft.tl.attribute,
    cellweft.tl.multiple_imputations,
    cellweft.genes.embed_proteins,
    cellweft.evaluate_imputation,
    cellweft.evaluate_placement,
    cellweft.genes.find_proteins,
    cellweft.tl.differential_expression,
    cellweft.tl.gene_trends,
    cellweft.tl.neighborhood_enrichment,
    cellweft.tl.region_enrichment,
    cellweft.io.to_spatialdata,
    cellweft.io.write_cellxgene,
    cellweft.report,
    Placement.impute,
    Placement.to_anndata,
)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make standard error look like a terminal to rich."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")


class Refusal(Exception):  # noqa: N818
    """Raised by the progress functions of these tests."""


def refuse(stage: str, done: int, total: int) -> None:
    raise Refusal(f"{stage} {done}/{total}")


@pytest.mark.parametrize("function", PUBLIC, ids=lambda one: one.__qualname__)
def test_every_public_function_shows_a_bar_by_default(function: Callable[..., Any]) -> None:
    assert inspect.signature(function).parameters["progress"].default is True


def test_analyses_and_exports_report_progress(tissue_pair: Pair, tmp_path: Path) -> None:
    stages: dict[str, tuple[int, int]] = {}

    def tell(stage: str, done: int, total: int) -> None:
        stages[stage] = done, total

    cells = np.random.default_rng(0).poisson(2.0, (12, 3)).astype("float32")
    kinds, places = np.repeat(["a", "b"], 6), np.column_stack([np.arange(12.0), np.zeros(12)])
    draws = [AnnData(cells), AnnData(cells + 1)]
    cellweft.tl.differential_expression(draws, kinds, progress=tell)
    names = np.array(["A", "B", "C"])
    cellweft.tl.gene_trends(
        cells, np.arange(12.0), genes=names, labels=kinds, knots=2, min_cells=2, progress=tell
    )
    line = sp.diags([1.0, 1.0], [-1, 1], shape=(12, 12), format="csr")
    cellweft.tl.neighborhood_enrichment(line, kinds, n_permutations=4, progress=tell)
    assert stages == {"imputations": (2, 2), "cell types": (2, 2), "permutations": (4, 4)}
    stages.clear()
    cellweft.tl.region_enrichment(
        places, kinds, region_places=places, region_labels=kinds, k=1, n_permutations=3, progress=tell
    )
    shown = AnnData(cells, obsm={"spatial": places})
    cellweft.io.write_cellxgene(shown, tmp_path / "shown.h5ad", progress=tell)
    rows = [("auto", 0, -1, "summary", "median over genes", "pearson", 0.6)]
    scores = pd.DataFrame(rows, columns=["method", "seed", "fold", "level", "item", "metric", "value"])
    cellweft.report(tmp_path / "report.html", scores, progress=tell)
    assert stages == {"permutations": (3, 3), "rows": (12, 12), "sections": (11, 11)}


@pytest.mark.parametrize("wrong", [None, 1, "bar"])
def test_other_values_are_refused(tissue_pair: Pair, wrong: Any) -> None:
    with pytest.raises(
        SettingError, match=rf"progress: expected True, False, or a function .*got {wrong!r}\. Pass progress"
    ):
        Imputer(settings=QUICK, device="cpu").fit(tissue_pair, progress=wrong)
    with pytest.raises(SettingError, match="progress: expected True, False"):
        cellweft.evaluate_imputation(tissue_pair, ["mean"], cluster=False, progress=wrong)


@pytest.mark.parametrize("progress", [True, False])
def test_nothing_is_drawn_without_a_terminal(progress: bool, capfd: pytest.CaptureFixture[str]) -> None:
    with progress_callback(progress) as report:
        assert report is no_progress
        report("training", 1, 4)
    assert capfd.readouterr() == ("", "")


def test_a_bar_shows_the_stage_the_share_and_the_time_left(
    terminal: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_callback(True) as report:
        report("training", 0, 4)
        report("training", 1, 4)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "training" in shown.err
    assert "25%" in shown.err
    assert "-:--:--" in shown.err or "0:00:0" in shown.err


def test_a_new_stage_starts_its_own_bar(terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_callback(True) as report:
        report("training", 4, 4)
        report("impute", 1, 10)
    last = capsys.readouterr().err.rpartition("impute")[2]
    assert "10%" in last


def test_progress_false_draws_no_bar(terminal: None, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_callback(False) as report:
        assert report is no_progress
    assert capsys.readouterr() == ("", "")


def test_a_notebook_gets_a_bar_that_is_removed_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Handle:
        def update(self, shown: Any, *, raw: bool = False) -> None:
            seen.append((shown, raw))

    def display(shown: Any, *, display_id: bool) -> Handle:
        seen.append((shown, display_id))
        return Handle()

    module = ModuleType("IPython.display")
    module.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("cellweft._compute._REDRAWN", 0)
    with progress_callback(True) as report:
        report("training", 1, 4)
    (bars, _), (again, _), (nothing, raw) = seen
    assert isinstance(bars, Bars)
    assert again is bars
    assert bars.tasks[0].percentage == 25
    assert (nothing, raw) == ({"text/plain": "", "text/html": ""}, True)


def test_nested_calls_draw_no_bar_of_their_own(terminal: None) -> None:
    for outer in (True, False, refuse):
        with progress_callback(outer), progress_callback(True) as inner:
            assert inner is no_progress
    with progress_callback(False), progress_callback(refuse) as inner:
        assert inner is refuse
    with progress_callback(True) as report:
        assert report is not no_progress


@pytest.mark.slow
def test_a_function_that_raises_stops_the_work(tissue_pair: Pair, tmp_path: Path, terminal: None) -> None:
    imputer = Imputer(settings=QUICK, device="cpu")
    with pytest.raises(Refusal, match=r"attention 1/"):
        imputer.fit(tissue_pair, progress=refuse)
    assert imputer.fitted_ is None
    with progress_callback(True) as report:
        assert report is not no_progress  # the failed call does not block later ones
    imputer.fit(tissue_pair, progress=False)
    with pytest.raises(Refusal, match="impute 2520/2520"):
        imputer.impute(progress=refuse)
    for name in ("out.zarr", "out.h5ad"):
        with pytest.raises(Refusal, match="impute"):
            imputer.impute_to(tmp_path / name, progress=refuse)
    assert not list(tmp_path.iterdir())
    with pytest.raises(Refusal, match="training 1/6"):
        Placer(settings={"steps": 3, "models": 2}, device="cpu").fit(tissue_pair, progress=refuse)
    with pytest.raises(Refusal, match="evaluate 0/"):
        cellweft.evaluate_imputation(tissue_pair, ["mean"], cluster=False, progress=refuse)


def test_a_function_is_called_for_all_stages(tissue_pair: Pair) -> None:
    calls: list[tuple[str, int, int]] = []
    placer = Placer(settings={"steps": 3, "models": 2}, device="cpu")
    placer.fit(tissue_pair, progress=lambda *call: calls.append(call)).place(
        progress=lambda *call: calls.append(call)
    )
    assert calls == [("training", n, 6) for n in range(1, 7)] + [("embedding", n, 190) for n in (90, 190)]
