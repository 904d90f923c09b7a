"""Neighbours of placed cells against plain loops."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft.place.cell_graph import knn_matrix, nearest_by_overlap, nearest_by_product, spot_nearness

# float32 copies of float64 results
TOLERANCE = 1e-6


def features(n: int, *, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return torch.from_numpy((np.random.default_rng(seed).standard_normal((n, 5)) * scale).astype(np.float32))


class TestByProduct:
    @pytest.mark.parametrize("scale", [0.1, 1.0, 100.0])
    @pytest.mark.parametrize("k", [1, 4, 29])
    def test_it_equals_a_plain_loop(self, k: int, scale: float) -> None:
        """Also if all weights except the largest are zero, because the products are compared."""
        given = features(30, scale=scale)
        found = nearest_by_product(given, k)
        assert found.shape == (30, k)
        products = (given.double() @ given.double().T).numpy()
        for cell in range(30):
            others = [other for other in range(30) if other != cell]
            assert found[cell].tolist() == sorted(others, key=lambda other: -products[cell, other])[:k]

    def test_by_hand(self) -> None:
        given = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.1, 1.0], [1.5, 1.0]])
        assert nearest_by_product(given, 2).tolist() == [[1, 3], [3, 0], [3, 1], [1, 0]]

    def test_a_cell_is_never_its_own_neighbour(self) -> None:
        """Even if other cells are nearer to it than itself, or identical."""
        short = torch.cat([features(6), 0.01 * features(3, seed=1)])
        for rows in (short, features(1).repeat(7, 1), torch.zeros(5, 3)):
            for k in (1, len(rows) - 1):
                found = nearest_by_product(rows, k)
                assert not (found == np.arange(len(rows))[:, None]).any()
                assert all(len(set(row)) == k for row in found.tolist())


def overlap(weights: np.ndarray, nearness: np.ndarray, first: int, second: int) -> float:
    spots = range(weights.shape[1])
    return sum(weights[first, a] * nearness[a, b] * weights[second, b] for a in spots for b in spots)


class TestByOverlap:
    @staticmethod
    def case(n_cells: int = 12, n_spots: int = 6) -> tuple[sp.csr_matrix, sp.csr_matrix]:
        stream = np.random.default_rng(1)
        weights = stream.dirichlet(np.full(n_spots, 0.5), n_cells)
        nearness = spot_nearness(stream.random((n_spots, 2)), [np.arange(n_spots)], width=0.3)
        return sp.csr_matrix(weights), nearness

    @pytest.mark.parametrize("k", [1, 3, 11])
    @pytest.mark.parametrize("block_bytes", [1.0, 300.0, 1e9])
    def test_it_equals_a_plain_loop(self, k: int, block_bytes: float) -> None:
        weights, nearness = self.case()
        found = nearest_by_overlap(weights, nearness, k, block_bytes=block_bytes)
        dense = weights.toarray(), nearness.toarray()
        for cell in range(12):
            others = [other for other in range(12) if other != cell]
            expected = sorted(others, key=lambda other: -overlap(*dense, cell, other))[:k]
            assert found[cell].tolist() == expected

    def test_cells_with_uncertain_positions_are_not_neighbours_of_certain_ones(self) -> None:
        """Two cells spread over both ends and one in the middle have the same mean position."""
        nearness = spot_nearness(np.array([[0.0, 0], [5, 0], [10, 0]]), [np.arange(3)], width=1.0)
        weights = sp.csr_matrix([[0.5, 0, 0.5], [0, 1.0, 0], [0, 0.9, 0.1], [0.5, 0, 0.5]])
        assert nearest_by_overlap(weights, nearness, 1).tolist() == [[3], [2], [1], [0]]

    def test_identical_cells_are_ordered_by_position(self) -> None:
        weights = sp.csr_matrix(np.full((5, 3), 1 / 3))
        found = nearest_by_overlap(weights, sp.csr_matrix(np.eye(3)), 4)
        assert found.tolist() == [[other for other in range(5) if other != cell] for cell in range(5)]

    @pytest.mark.parametrize("k", [1, 3, 11])
    @pytest.mark.parametrize("block_bytes", [1.0, 3000.0, 1e9])
    def test_lists_of_all_cells_give_the_exact_neighbours(self, k: int, block_bytes: float) -> None:
        weights, nearness = self.case()
        found = nearest_by_overlap(weights, nearness, k, most_cells=0, listed=12, block_bytes=block_bytes)
        np.testing.assert_array_equal(found, nearest_by_overlap(weights, nearness, k))

    def test_short_lists_give_nearly_the_nearest_neighbours(self) -> None:
        """The result does not depend on the blocks."""
        weights, nearness = self.case(300, 40)
        there = (weights @ nearness @ weights.T).toarray()
        np.fill_diagonal(there, 0)
        exact = nearest_by_overlap(weights, nearness, 5)
        found = nearest_by_overlap(weights, nearness, 5, most_cells=299, listed=60)
        again = nearest_by_overlap(weights, nearness, 5, most_cells=299, listed=60, block_bytes=1e4)
        np.testing.assert_array_equal(found, again)
        assert not (found == np.arange(300)[:, None]).any()
        assert all(len(set(row)) == 5 for row in found.tolist())
        overlaps = [np.take_along_axis(there, rows, axis=1).sum() for rows in (found, exact)]
        assert overlaps[0] > 0.98 * overlaps[1]

    def test_a_cell_with_no_other_in_its_lists(self) -> None:
        weights = sp.csr_matrix(np.eye(4))
        found = nearest_by_overlap(weights, sp.csr_matrix(np.eye(4)), 2, most_cells=0, listed=1)
        assert found.tolist() == [[1, 2], [0, 2], [0, 1], [0, 1]]

    def test_the_inputs_are_not_changed(self) -> None:
        weights, nearness = self.case()
        before = weights.toarray(), nearness.toarray()
        nearest_by_overlap(weights, nearness, 3)
        np.testing.assert_array_equal(weights.toarray(), before[0])
        np.testing.assert_array_equal(nearness.toarray(), before[1])


class TestSpotNearness:
    def test_by_hand(self) -> None:
        places = np.array([[0.0, 0], [1, 0], [2.9, 0], [9, 9]])
        found = spot_nearness(places, [np.arange(4)], width=1.0).toarray()
        assert found.dtype == np.float32
        expected = np.eye(4)
        for first, second in ((0, 1), (0, 2), (1, 2)):
            apart = math.dist(places[first], places[second])
            expected[first, second] = expected[second, first] = math.exp(-(apart**2) / 2)
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)

    def test_spots_of_overlapping_slices_are_not_near(self) -> None:
        places = np.zeros((5, 2))
        groups = [np.array([0, 3]), np.array([1, 2])]  # the last spot is in no slice
        expected = np.zeros((5, 5))
        for group in groups:
            expected[np.ix_(group, group)] = 1
        np.testing.assert_array_equal(spot_nearness(places, groups, width=2.0).toarray(), expected)

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 99), width=st.floats(0.01, 10), dimensions=st.sampled_from([2, 3]))
    def test_it_equals_a_plain_loop(self, seed: int, width: float, dimensions: int) -> None:
        places = np.random.default_rng(seed).random((9, dimensions))
        found = spot_nearness(places, [np.arange(4), np.arange(4, 9)], width=width).toarray()
        for first in range(9):
            for second in range(9):
                apart = math.dist(places[first], places[second])
                together = (first < 4) == (second < 4) and apart <= 3 * width
                expected = math.exp(-0.5 * (apart / width) ** 2) if together else 0.0
                assert found[first, second] == pytest.approx(expected, abs=TOLERANCE)


class TestKnnMatrix:
    def test_by_hand(self) -> None:
        found = knn_matrix(np.array([[2, 1], [0, 2], [1, 0]]))
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found.toarray(), [[0, 0.5, 1], [1, 0, 0.5], [0.5, 1, 0]])
        assert found.has_sorted_indices

    def test_every_row_has_k_values_and_the_largest_is_the_nearest(self) -> None:
        nearest = nearest_by_product(features(20), 6)
        found = knn_matrix(nearest)
        assert np.diff(found.indptr).tolist() == [6] * 20
        np.testing.assert_array_equal(found.toarray().argmax(axis=1), nearest[:, 0])
        np.testing.assert_array_equal(np.argsort(-found.toarray(), axis=1)[:, :6], nearest)
