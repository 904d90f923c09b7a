"""The spots' adjacency by hand and by plain loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cellweft._errors import SettingError
from cellweft.place.training_data import KERNELS, spatial_adjacency

# float32 of what is computed in float64
TOLERANCE = 1e-6

LINE = np.array([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
"""Three spots, 1, 2 and 3 apart."""


def of_one(row: list[float]) -> list[float]:
    return [one / sum(row) for one in row]


class TestKernels:
    @pytest.mark.parametrize("width", [0.5, 1.0, 7.0])
    @pytest.mark.parametrize(
        ("kernel", "form"),
        [("gaussian", lambda d: math.exp(-(d**2) / 2)), ("exponential", lambda d: math.exp(-d))],
    )
    def test_by_hand(self, kernel, form, width: float) -> None:
        apart = [[0, 1, 3], [1, 0, 2], [3, 2, 0]]
        expected = [of_one([form(one / width) for one in row]) for row in apart]
        found = spatial_adjacency(LINE, kernel=kernel, width=width)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)

    @pytest.mark.parametrize(
        ("k", "expected"),
        [
            (1, [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
            (2, [[1 / 2, 1 / 2, 0], [1 / 2, 1 / 2, 0], [0, 1 / 2, 1 / 2]]),
            (3, np.full((3, 3), 1 / 3)),
            (9, np.full((3, 3), 1 / 3)),
        ],
    )
    def test_the_nearest_by_hand(self, k: int, expected) -> None:
        np.testing.assert_allclose(spatial_adjacency(LINE, kernel="knn", k=k), expected, atol=TOLERANCE)

    @pytest.mark.parametrize("dimensions", [2, 3])
    def test_the_nearest_by_a_plain_loop(self, dimensions: int) -> None:
        places = np.random.default_rng(0).random((30, dimensions))
        found = spatial_adjacency(places, kernel="knn", k=6)
        for spot in range(30):
            nearest = sorted(range(30), key=lambda other: math.dist(places[spot], places[other]))[:6]
            assert set(np.flatnonzero(found[spot])) == set(nearest)
            np.testing.assert_allclose(found[spot, nearest], 1 / 6, atol=TOLERANCE)

    @settings(max_examples=40, deadline=None)
    @given(
        places=arrays.arrays(
            np.float64,
            st.tuples(st.integers(1, 12), st.sampled_from([2, 3])),
            elements=st.floats(-1e4, 1e4, width=32),
        ),
        kernel=st.sampled_from(KERNELS),
        width=st.floats(1e-3, 1e6),
        k=st.integers(1, 15),
    )
    def test_rows_sum_to_one_and_nothing_is_negative(self, places, kernel, width: float, k: int) -> None:
        """Spots at the same place, far apart or alone among them."""
        found = spatial_adjacency(places, kernel=kernel, width=width, k=k)
        assert found.shape == (len(places), len(places))
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=10 * TOLERANCE)
        assert found.min() >= 0

    @settings(max_examples=15, deadline=None)
    @given(seed=st.integers(0, 999), kernel=st.sampled_from(KERNELS))
    def test_neither_order_nor_place_nor_unit_matter(self, seed: int, kernel) -> None:
        stream = np.random.default_rng(seed)
        places, order = stream.random((10, 2)), stream.permutation(10)
        found = spatial_adjacency(places, kernel=kernel, width=0.3, k=4)
        permuted = spatial_adjacency(places[order], kernel=kernel, width=0.3, k=4)
        np.testing.assert_allclose(permuted, found[np.ix_(order, order)], atol=TOLERANCE)
        turned = 100 * places @ np.array([[0.6, -0.8], [0.8, 0.6]]) + 50
        elsewhere = spatial_adjacency(turned, kernel=kernel, width=30, k=4)
        np.testing.assert_allclose(elsewhere, found, atol=TOLERANCE)

    def test_a_wider_kernel_reaches_farther(self) -> None:
        own = [spatial_adjacency(LINE, width=width)[0, 0] for width in (0.1, 1.0, 10.0)]
        assert own == sorted(own, reverse=True)
        assert own[0] == pytest.approx(1)
        assert own[2] == pytest.approx(1 / 3, abs=0.02)

    def test_the_places_are_left_alone(self) -> None:
        places = LINE.copy()
        for kernel in KERNELS:
            spatial_adjacency(places, kernel=kernel)
        np.testing.assert_array_equal(places, LINE)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"kernel": "gauss"}, r"kernel: expected one of .*got 'gauss'\. Did you mean 'gaussian'"),
            ({"width": 0.0}, r"width: expected a number"),
            ({"width": float("nan")}, r"width: expected a number"),
            ({"k": 0}, r"k: expected a whole number >= 1, got 0"),
        ],
    )
    def test_settings_out_of_range(self, wrong: dict, message: str) -> None:
        with pytest.raises(SettingError, match=message):
            spatial_adjacency(LINE, **wrong)
