"""Fitted methods as linear operators that transfer genes, labels and layers of the reference."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from cellweft.data._pair import Pair
from cellweft.impute.base import FittedMethod
from cellweft.impute.imputer import Imputer
from cellweft.nn.attention import AttentionOperator
from cellweft.nn.mapping import Mapping
from cellweft.nn.neighbors import NeighborMean
from cellweft.nn.operator import PartOfReference, on_all_cells

ROUNDING = 2e-6
"""float32 sums in blocks of another shape; values are below 8"""

SHORT = {"steps": 4, "level_steps": 4, "fold_steps": 4}
KINDS: dict[str, dict[str, Any]] = {
    "attention": {"settings": SHORT},
    "metacells": {"settings": SHORT | {"most_keys": 20}},
    "stimpute": {
        "preset": "stimpute",
        "settings": {"k": 8, "hidden": 8, "ae_epochs": 2, "alpha": 0.0, "neighbor_scale": "none"},
    },
}


@pytest.fixture(scope="module", params=KINDS)
def fitted(request: pytest.FixtureRequest, tissue_pair: Pair) -> FittedMethod:
    """Methods that only take weighted means: attention without levels, stImpute without its gene network."""
    imputer = Imputer(reliability=False, **KINDS[request.param]).fit(tissue_pair)
    if imputer.preset == "stimpute":
        return imputer.fitted_
    assert (imputer.model_.metacells is not None) == (request.param == "metacells")
    bare = dataclasses.replace(imputer.fitted_.attending, levels=None)
    return dataclasses.replace(imputer.fitted_, attending=bare)


@pytest.fixture(scope="module")
def measured(tissue_pair: Pair) -> np.ndarray:
    return tissue_pair.st.dense(slice(0, 90), tissue_pair.st_shared)


def test_one_hot_labels_give_proportions(
    fitted: FittedMethod, measured: np.ndarray, tissue_pair: Pair
) -> None:
    operator = fitted.operator(measured)
    assert operator.shape == (90, tissue_pair.sc.n_cells)
    labels = torch.eye(4)[torch.arange(tissue_pair.sc.n_cells) % 4]
    shares = operator.apply(labels)
    assert shares.shape == (90, 4)
    assert (shares >= 0).all()
    np.testing.assert_allclose(shares.sum(dim=1), 1, rtol=0, atol=1e-5)


def test_log_expression_gives_the_prediction(
    fitted: FittedMethod, measured: np.ndarray, tissue_pair: Pair
) -> None:
    values = torch.from_numpy(tissue_pair.sc.dense(slice(0, tissue_pair.sc.n_cells)))
    predicted = fitted.prepare(np.arange(tissue_pair.sc.n_genes)).values(measured)
    np.testing.assert_allclose(fitted.operator(measured).apply(values), predicted, rtol=0, atol=ROUNDING)


def test_blocks_and_other_cells_do_not_matter(
    fitted: FittedMethod, measured: np.ndarray, tissue_pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = torch.from_numpy(np.random.default_rng(0).random((tissue_pair.sc.n_cells, 5), dtype=np.float32))
    whole, back = (
        fitted.operator(measured).apply(values),
        fitted.operator(measured).apply_transpose(torch.ones(90, 1)),
    )
    blocks = [fitted.operator(measured[rows]) for rows in (slice(0, 7), slice(7, 60), slice(60, 90))]
    parts = torch.cat([one.apply(values) for one in blocks])
    np.testing.assert_allclose(parts, whole, rtol=0, atol=ROUNDING)
    spread = sum(one.apply_transpose(torch.ones(one.shape[0], 1)) for one in blocks)
    np.testing.assert_allclose(spread, back, rtol=0, atol=1e-5)
    monkeypatch.setattr("cellweft.nn.neighbors._MOST_GATHERED", 50)
    np.testing.assert_allclose(fitted.operator(measured).apply(values), whole, rtol=0, atol=ROUNDING)


def test_the_transpose_belongs_to_the_same_matrix(
    fitted: FittedMethod, measured: np.ndarray, tissue_pair: Pair
) -> None:
    operator = fitted.operator(measured)
    matrix = operator.apply(torch.eye(tissue_pair.sc.n_cells))  # spatial cells x reference cells
    np.testing.assert_allclose(operator.apply_transpose(torch.eye(90)), matrix.T, rtol=0, atol=ROUNDING)
    assert not matrix[:, tissue_pair.sc.empty_cells].any()


def test_a_copy_gives_the_same(fitted: FittedMethod, measured: np.ndarray, tissue_pair: Pair) -> None:
    values = torch.from_numpy(np.random.default_rng(0).random((tissue_pair.sc.n_cells, 5), dtype=np.float32))
    there, before = fitted.to(torch.device("cpu")), fitted.operator(measured).apply(values)
    torch.testing.assert_close(there.operator(measured).apply(values), before, rtol=0, atol=0)
    genes = np.arange(5)
    np.testing.assert_array_equal(
        there.prepare(genes).values(measured), fitted.prepare(genes).values(measured)
    )


def test_unusable_reference_cells_have_weight_zero() -> None:
    mean = NeighborMean(neighbors=torch.tensor([[0, 1], [1, 1]]), n_reference=2)
    usable = np.array([True, False, True])
    operator = on_all_cells(mean, usable, torch.device("cpu"))
    assert isinstance(operator, PartOfReference)
    assert operator.shape == (2, 3)
    assert operator.apply(torch.tensor([[2.0], [9.0], [4.0]])).tolist() == [[3.0], [4.0]]
    assert operator.apply_transpose(torch.tensor([[1.0], [1.0]])).tolist() == [[0.5], [0.0], [1.5]]
    assert on_all_cells(mean, usable[[0, 2]], torch.device("cpu")) is mean


def test_attention_is_the_mapping_itself(tissue_pair: Pair, measured: np.ndarray) -> None:
    model = Imputer(settings=SHORT, reliability=False).fit(tissue_pair).model_
    queries, values = model.queries(measured), model.keys[:, :3]
    expected = Mapping(queries=queries, keys=model.keys).dense() @ values
    np.testing.assert_allclose(
        AttentionOperator.of(model, queries).apply(values), expected, rtol=0, atol=ROUNDING
    )
