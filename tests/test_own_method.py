"""The two methods of docs/own_method.md run in the evaluations and beat the trivial baseline."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import cellweft
from cellweft.evaluate.methods import Predictor
from cellweft.evaluate.placement_baselines import PlaceMethod

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Function that imports one of the files shown on the page."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)  # dataclasses look up their module
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="module")
def tissue() -> Any:
    return cellweft.datasets.simulate_tissue(n_spatial=250, n_reference=200, n_genes=60, n_panel=30, seed=4)


def medians(table: Any, item: str, metric: str) -> dict[str, float]:
    rows = table[(table["item"] == item) & (table["metric"] == metric)]
    return dict(zip(rows["method"], rows["value"], strict=True))


def test_the_imputation_method(example: Any, tissue: Any) -> None:
    method = example("type_means").TypeMeans()
    assert isinstance(method, Predictor)
    pair = cellweft.pair(tissue.sc, tissue.st)
    scores = cellweft.evaluate_imputation(pair, [method, "mean"], folds=3, cluster=False, progress=False)
    found = medians(scores, "median over genes", "pearson")
    assert found["TypeMeans"] > found["mean"] + 0.1


def test_the_placement_method(example: Any, tissue: Any) -> None:
    method = example("mean_place").MeanPlace()
    assert isinstance(method, PlaceMethod)
    made = cellweft.datasets.pseudo_spots(tissue.truth, spacing=60, radius=40)
    pair = cellweft.pair(made.cells, made.spots)
    scores = cellweft.evaluate_placement(
        pair, [method, "random"], truth="obsm:spatial_true", hits=(5,), progress=False
    )
    found = medians(scores, "all cells", "location_error_mean")
    assert found["MeanPlace"] < 0.8 * found["random"]
    shares = method.fit(pair).place().deconvolve()
    np.testing.assert_allclose(shares.sum(axis=1), 1)


def test_the_page_shows_both_files_completely() -> None:
    page = (EXAMPLES.parent / "own_method.md").read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f"```{{literalinclude}} examples/{path.name}" in page
