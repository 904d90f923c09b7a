"""Effects of genes on scores: squared effects against least squares, components of panels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft.impute.uncertainty.prediction_intervals import (
    _squared_effects,
    basis_of,
    components,
    effect_shares,
)


def test_a_basis_by_hand() -> None:
    found = basis_of(np.array([1.0, 3.0]), np.array([[9.0], [-0.5]]))
    np.testing.assert_allclose(found, [[1, -1, 3], [1, 1, -0.5]])  # 9 is cut to 3
    np.testing.assert_array_equal(basis_of(np.full(2, 5.0), np.zeros((2, 0))), [[1, 0], [1, 0]])
    assert basis_of(np.empty(0), np.zeros((0, 2))).shape == (0, 4)


def test_where_all_was_measured_it_is_least_squares() -> None:
    """Shift .8 and slope -.5, without noise but for what the prior of one cell takes."""
    stream = np.random.default_rng(0)
    basis = basis_of(stream.standard_normal(2000), np.zeros((2000, 0)))
    scores = basis @ [0.8, -0.5] + 0.5 * stream.standard_normal(2000)
    found = _squared_effects(basis, scores, np.full(2000, np.nan), noise=0.25)
    np.testing.assert_allclose(found, [0.64, 0.25], atol=0.03)


@pytest.mark.parametrize("shift", [-0.8, 0.0, 0.8])
def test_what_is_only_known_to_be_below_a_cut(shift: float) -> None:
    """Three in five scores are cut off; what remains still tells the shift."""
    stream = np.random.default_rng(1)
    scores = shift + stream.standard_normal(4000)
    cut = np.where(scores < 0.25, 0.25, np.nan)
    basis = basis_of(stream.standard_normal(4000), np.zeros((4000, 0)))
    found = _squared_effects(basis, np.where(np.isnan(cut), scores, -9.0), cut, noise=1.0)
    np.testing.assert_allclose(found, [shift**2, 0], atol=0.08)


def test_shares_of_few_cells_are_none() -> None:
    values = np.random.default_rng(0).uniform(size=(3, 8))
    found = effect_shares(
        values, values, ranks=values, zeros=values * 0, part_of=np.arange(8) % 2, n_components=1
    )
    np.testing.assert_array_equal(found, [0, 0, 0])


@given(n_cells=st.integers(5, 30), n_panel=st.integers(3, 30), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_components_are_standard(n_cells: int, n_panel: int, seed: int) -> None:
    panel = np.random.default_rng(seed).uniform(size=(n_cells, n_panel))
    centre, loadings = components(panel, 2)
    scores = (panel - centre) @ loadings
    np.testing.assert_allclose(scores.T @ scores / n_cells, np.eye(2), atol=1e-8)
    reached = np.linalg.svd(panel - centre, compute_uv=False)[:2]
    np.testing.assert_allclose(1 / np.linalg.norm(loadings, axis=0), reached / n_cells**0.5, rtol=1e-6)


def test_components_that_are_not_there_are_zero() -> None:
    panel = np.outer(np.arange(6.0), np.ones(3))
    loadings = components(panel, 2)[1]
    assert (loadings[:, 1] == 0).all()
    assert (components(np.ones((4, 3)), 1)[1] == 0).all()
