"""Unit length, cosine and correlation against plain loops, and for constant, zero and extreme vectors."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellweft._statistics import centred, cosine, pearson, unit_length

MATRICES = arrays(np.float64, (5, 4), elements=st.floats(-1e3, 1e3))


def test_unit_length_of_a_hand_computed_case() -> None:
    rows = unit_length(np.array([[3.0, 4.0], [0.0, 0.0], [-2.0, 0.0]], dtype=np.float32), axis=1)
    assert rows.tolist() == [[0.6, 0.8], [0.0, 0.0], [-1.0, 0.0]]
    assert rows.dtype == np.float64  # the default for any input
    assert unit_length(np.array([[3], [4]])).ravel().tolist() == [0.6, 0.8]


@pytest.mark.parametrize("scale", [5e-324, 1e-200, 1.0, 1e200, 1e308])
def test_unit_length_of_tiny_and_huge_values(scale: float) -> None:
    columns = np.array([[1.0, 0.0], [1.0, 0.0]]) * scale
    np.testing.assert_allclose(unit_length(columns), np.array([[1.0, 0.0], [1.0, 0.0]]) / 2**0.5, rtol=1e-15)


def test_unit_length_keeps_float32_on_request() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    plain = rows / np.sqrt((rows**2).sum(axis=1, keepdims=True))
    made = unit_length(rows, axis=1, dtype=np.float32)
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made, plain)  # scaling by powers of 2 does not round


@pytest.mark.slow
@given(MATRICES, MATRICES)
def test_correlations_equal_those_of_numpy(left: np.ndarray, right: np.ndarray) -> None:
    made = pearson(left, right)
    assert (np.abs(made) <= 1).all()
    for column, value in enumerate(made):
        x, y = left[:, column], right[:, column]
        if np.ptp(x) == 0 or np.ptp(y) == 0:
            assert value == 0
        elif min(x.std() / np.abs(x).max(), y.std() / np.abs(y).max()) > 1e-6:  # above the level of rounding
            assert value == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-8)


@pytest.mark.slow
@given(MATRICES, MATRICES)
def test_correlations_of_rows_are_those_of_the_transposed_columns(
    left: np.ndarray, right: np.ndarray
) -> None:
    for score in (cosine, pearson):
        np.testing.assert_allclose(score(left, right), score(left.T, right.T, axis=1), atol=1e-9)


def test_centred_constants_are_exactly_zero() -> None:
    constant = np.full((3, 2), 0.1)  # the computed mean is not exactly 0.1
    assert not centred(constant).any()
    assert not centred(constant.T, axis=1).any()
    assert cosine(constant, np.zeros((3, 2))).tolist() == [0.0, 0.0]
