"""The spots' adjacency by hand and by plain loops, and the compact groups that batches are drawn as."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial import cKDTree

from weft._errors import SettingError
from weft.data.adjacency import KERNELS, draw_patches, spatial_adjacency

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


def grid(side: int) -> cKDTree:
    return cKDTree(
        np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2).astype(float)
    )


class TestPatches:
    @settings(max_examples=40, deadline=None)
    @given(
        side=st.integers(1, 12), size=st.integers(1, 160), patches=st.integers(1, 20), seed=st.integers(0, 99)
    )
    def test_a_bounded_number_each_once_in_order(self, side: int, size: int, patches: int, seed: int) -> None:
        tree = grid(side)
        found = draw_patches(tree, size=size, patches=patches, generator=np.random.default_rng(seed))
        assert 1 <= len(found) <= size
        assert (np.diff(found) > 0).all()
        assert found[0] >= 0
        assert found[-1] < tree.n
        assert found.dtype == np.int64

    def test_a_small_slice_is_taken_whole_and_nothing_drawn(self) -> None:
        stream = np.random.default_rng(0)
        for size in (9, 10, 1000):
            np.testing.assert_array_equal(
                draw_patches(grid(3), size=size, patches=4, generator=stream), np.arange(9)
            )
        assert stream.random() == np.random.default_rng(0).random()

    @pytest.mark.parametrize("patches", [1, 4])
    def test_they_are_compact(self, patches: int) -> None:
        """Spots of a patch have their neighbours with them, as those of a random draw have not."""
        tree, stream = grid(40), np.random.default_rng(0)
        found = draw_patches(tree, size=160, patches=patches, generator=stream)
        assert len(found) >= 120  # some may overlap
        random = stream.choice(tree.n, len(found), replace=False)
        near = []
        for drawn in (found, random):
            part = cKDTree(tree.data[drawn])
            near.append((part.count_neighbors(part, 1.0) - part.n) / part.n)  # others at 1: a grid has 4
        assert near[0] > 3
        assert near[1] < 1

    def test_one_patch_is_a_spot_and_its_nearest(self) -> None:
        tree = cKDTree(np.arange(50.0)[:, None])
        found = draw_patches(tree, size=7, patches=1, generator=np.random.default_rng(3))
        assert len(found) == 7
        assert found[-1] - found[0] == 6

    def test_every_spot_has_its_turn(self) -> None:
        stream = np.random.default_rng(0)
        drawn = [draw_patches(grid(8), size=16, patches=2, generator=stream) for _ in range(60)]
        assert len(np.unique(np.concatenate(drawn))) == 64

    def test_a_stream_gives_the_same_draw(self) -> None:
        one, same, other = (
            draw_patches(grid(20), size=50, patches=3, generator=np.random.default_rng(seed))
            for seed in (1, 1, 2)
        )
        np.testing.assert_array_equal(one, same)
        assert one.tolist() != other.tolist()
