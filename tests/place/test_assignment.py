"""Assignment of one spot to every cell, against all assignments in small cases."""

import itertools
import math

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._errors import SettingError
from cellweft.place.assignment import assign_cells

OUT = 1e3  # an unassigned cell costs more than a cell at any spot


def random_weights(n_cells: int, n_spots: int, *, seed: int, candidates: int | None = None) -> sp.csr_matrix:
    """Draw rows of a mapping, of which the best `candidates` are kept."""
    stream = np.random.default_rng(seed)
    weights = stream.dirichlet(np.full(n_spots, 0.3), n_cells) + 1e-9
    if candidates is not None:
        best = np.argsort(-weights, axis=1)[:, :candidates]
        kept = np.zeros_like(weights)
        np.put_along_axis(kept, best, np.take_along_axis(weights, best, axis=1), axis=1)
        weights = kept
    return sp.csr_matrix(weights.astype(np.float32))


def cost_of(weights: sp.csr_matrix, places: tuple[int, ...] | np.ndarray) -> float:
    dense = weights.toarray()
    return sum(OUT if spot < 0 else 1 - math.log(dense[cell, spot]) for cell, spot in enumerate(places))


def best_of_all(weights: sp.csr_matrix, capacity: int) -> float:
    """Return the smallest cost over all ways to give each cell one of its candidate spots, or none."""
    dense = weights.toarray()
    choices = [[-1, *np.flatnonzero(row)] for row in dense]
    counts = (
        places
        for places in itertools.product(*choices)
        if all(places.count(spot) <= capacity for spot in set(places) - {-1})
    )
    return min(cost_of(weights, places) for places in counts)


class TestWithoutCapacity:
    def test_each_cell_gets_its_best_spot(self) -> None:
        weights = random_weights(20, 7, seed=0)
        np.testing.assert_array_equal(assign_cells(weights), weights.toarray().argmax(axis=1))

    def test_a_cell_without_candidates_is_unassigned(self) -> None:
        weights = sp.csr_matrix([[0.2, 0.8], [0.0, 0.0], [0.6, 0.4]])
        assert assign_cells(weights).tolist() == [1, -1, 0]

    def test_no_cells(self) -> None:
        assert assign_cells(sp.csr_matrix((0, 3))).tolist() == []
        assert assign_cells(sp.csr_matrix((0, 3)), capacity=1).tolist() == []


class TestWithCapacity:
    def test_by_hand(self) -> None:
        # Both cells prefer the first spot; the second loses less by moving to the other: .9 * .4 > .1 * .6.
        weights = sp.csr_matrix([[0.9, 0.1], [0.6, 0.4]])
        assert assign_cells(weights, capacity=1).tolist() == [0, 1]
        assert assign_cells(weights, capacity=2).tolist() == [0, 0]
        assert assign_cells(weights[::-1], capacity=1).tolist() == [1, 0]

    def test_cells_without_a_free_spot_are_unassigned(self) -> None:
        weights = sp.csr_matrix([[0.9, 0.0], [0.8, 0.0], [0.7, 0.3]])
        assert assign_cells(weights, capacity=1).tolist() == [0, -1, 1]
        full = sp.csr_matrix(np.full((5, 2), 0.5))
        found = assign_cells(full, capacity=2)
        assert sorted(found.tolist()) == [-1, 0, 0, 1, 1]

    @settings(max_examples=40, deadline=None)
    @given(
        n_cells=st.integers(1, 5),
        n_spots=st.integers(1, 4),
        capacity=st.integers(1, 3),
        candidates=st.integers(1, 4),
        seed=st.integers(0, 9999),
    )
    def test_no_other_assignment_is_better(
        self, n_cells: int, n_spots: int, capacity: int, candidates: int, seed: int
    ) -> None:
        weights = random_weights(n_cells, n_spots, seed=seed, candidates=min(candidates, n_spots))
        found = assign_cells(weights, capacity=capacity)
        placed = found[found >= 0]
        assert np.bincount(placed, minlength=n_spots).max(initial=0) <= capacity
        assert all(weights[cell, spot] > 0 for cell, spot in enumerate(found) if spot >= 0)
        assert cost_of(weights, found) == pytest.approx(best_of_all(weights, capacity))

    def test_a_large_capacity_equals_no_capacity(self) -> None:
        weights = random_weights(30, 6, seed=3)
        for capacity in (30, 10**9):
            np.testing.assert_array_equal(assign_cells(weights, capacity=capacity), assign_cells(weights))

    def test_stored_weights_of_zero_are_still_candidates(self) -> None:
        weights = sp.csr_matrix(np.array([[1.0, 1.0], [1.0, 1.0]], dtype=np.float32))
        weights.data[[1, 3]] = 0.0  # stored zeros
        assert sorted(assign_cells(weights, capacity=1).tolist()) == [0, 1]

    @settings(max_examples=15, deadline=None)
    @given(seed=st.integers(0, 999))
    def test_permuting_cells_permutes_their_spots(self, seed: int) -> None:
        weights, order = random_weights(9, 5, seed=seed), np.random.default_rng(seed).permutation(9)
        found, moved = (assign_cells(one, capacity=2) for one in (weights, weights[order]))
        assert cost_of(weights[order], moved) == pytest.approx(cost_of(weights, found))
        np.testing.assert_array_equal(moved, found[order])  # there are no ties among random weights

    @pytest.mark.parametrize("capacity", [0, -1, 1.5, True])
    def test_an_invalid_capacity_is_refused(self, capacity: object) -> None:
        with pytest.raises(SettingError, match=r"capacity: expected a whole number >= 1"):
            assign_cells(random_weights(3, 3, seed=0), capacity=capacity)  # type: ignore[arg-type]

    def test_the_weights_are_not_changed(self) -> None:
        weights = random_weights(9, 5, seed=0)
        before = weights.copy()
        assign_cells(weights, capacity=1)
        assert (weights != before).nnz == 0
