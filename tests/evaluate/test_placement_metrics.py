"""Scores of placements: a hand-computed case, a naive loop, their properties, and errors."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellweft import metrics
from cellweft._errors import InputError
from cellweft.evaluate import placement_metrics
from cellweft.evaluate.placement_metrics import (
    GROUPS,
    composition_pcc,
    hit_number,
    hits,
    location_errors,
    type_groups,
)

# sums of a few float64 in another order
TOLERANCE = 1e-12


def grid_places(n_cells: st.SearchStrategy[int]) -> st.SearchStrategy[np.ndarray]:
    """Positions on a small grid, so that many cells share a position and many distances are equal."""
    return n_cells.flatmap(
        lambda n: hnp.arrays(np.float64, (n, 2), elements=st.integers(0, 3).map(lambda whole: whole / 2))
    )


def naive_hits(true: np.ndarray, neighbors: np.ndarray) -> list[int]:
    """Return hits by definition, cell by cell: a true neighbour is no farther than the K-th nearest cell."""
    found = []
    for cell, predicted in enumerate(neighbors):
        distance = [math.dist(true[cell], other) for other in true]
        others = sorted(distance[:cell] + distance[cell + 1 :])
        found.append(sum(distance[other] <= others[len(predicted) - 1] for other in predicted))
    return found


def draw_neighbors(n_cells: int, k: int, seed: int) -> np.ndarray:
    stream = np.random.default_rng(seed)
    rows = [stream.permutation(np.delete(np.arange(n_cells), cell))[:k] for cell in range(n_cells)]
    return np.array(rows)


def test_location_errors_by_hand() -> None:
    true = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    assert location_errors(true, true + np.array([2.0, 3.0, 6.0])).tolist() == [7.0, 7.0]
    assert location_errors(true[:, :2], np.array([[3.0, 4.0], [1.0, 1.0]])).tolist() == [5.0, 0.0]


@given(true=hnp.arrays(np.float64, (6, 2), elements=st.integers(-50, 50)), seed=st.integers(0, 99))
def test_location_errors_equal_a_naive_loop_in_any_order_of_cells(true: np.ndarray, seed: int) -> None:
    stream = np.random.default_rng(seed)
    predicted, order = stream.normal(0, 30, true.shape), stream.permutation(6)
    found = location_errors(true, predicted)
    naive = [math.dist(one, other) for one, other in zip(true, predicted, strict=True)]
    np.testing.assert_allclose(found, naive, rtol=TOLERANCE)
    np.testing.assert_array_equal(location_errors(true[order], predicted[order]), found[order])


def test_hits_by_hand() -> None:
    true = np.array([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [7.0, 0.0]])
    neighbors = np.array([[1, 2], [3, 2], [3, 0], [0, 1]])
    # hits of cell 0: both; of 1: 2 alone; of 2: 0 alone; of 3: 1 alone
    assert hits(true, neighbors).tolist() == [2, 1, 1, 1]
    assert hit_number(true, neighbors) == 1.25


def test_cells_at_the_same_position_are_not_their_own_neighbours() -> None:
    true = np.array([[0.0, 0.0]] * 3 + [[5.0, 5.0]] * 3)
    for k, best in ((1, 1), (2, 2)):
        others = np.array([[(cell // 3) * 3 + (cell + step) % 3 for step in (1, 2)] for cell in range(6)])
        assert hits(true, others[:, :k]).tolist() == [best] * 6
    across = np.array([[3, 4], [4, 5], [5, 3], [0, 1], [1, 2], [2, 0]])
    assert hits(true, across).tolist() == [0] * 6


@settings(max_examples=60, deadline=None)
@given(true=grid_places(st.integers(2, 14)), data=st.data())
def test_hits_equal_a_naive_loop_in_any_order(true: np.ndarray, data: Any) -> None:
    n_cells = len(true)
    k = data.draw(st.integers(1, n_cells - 1))
    neighbors = draw_neighbors(n_cells, k, data.draw(st.integers(0, 99)))
    found = hits(true, neighbors)
    assert found.tolist() == naive_hits(true, neighbors)
    order = np.random.default_rng(0).permutation(n_cells)
    place = np.argsort(order)  # the new index of each old cell
    np.testing.assert_array_equal(hits(true[order], place[neighbors[order]]), found[order])
    np.testing.assert_array_equal(hits(true, neighbors[:, ::-1]), found)


def test_hits_are_set_intersections_if_all_distances_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = np.random.default_rng(1)
    true, k = stream.normal(size=(60, 3)), 7
    neighbors = draw_neighbors(60, k, 2)
    distance = np.linalg.norm(true[:, None] - true[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    nearest = np.argsort(distance, axis=1)[:, :k]
    expected = [len(set(one) & set(other)) for one, other in zip(nearest, neighbors, strict=True)]
    assert hits(true, neighbors).tolist() == expected
    assert hit_number(true, nearest) == k
    monkeypatch.setattr(placement_metrics, "_BLOCK_VALUES", 1)  # one cell at a time
    assert hits(true, neighbors).tolist() == expected


def test_with_all_other_cells_as_neighbours_all_are_hits() -> None:
    true = np.array([[0.0], [1.0], [1.0]])
    assert hit_number(true, np.array([[1, 2], [0, 2], [0, 1]])) == 2.0


@pytest.mark.parametrize(
    ("neighbors", "got"),
    [
        (np.array([[0], [0], [0]]), "a cell that is its own neighbour"),
        (np.array([[1, 1], [0, 2], [0, 1]]), "a duplicate neighbour"),
        (np.array([[3], [0], [0]]), "values that are not indices of cells"),
        (np.array([[-1], [0], [0]]), "values that are not indices of cells"),
        (np.array([[1.0], [0.0], [0.0]]), "values that are not indices of cells"),
        (np.array([[1], [0]]), r"shape \(2, 1\)"),
        (np.zeros((3, 0), dtype=int), r"shape \(3, 0\)"),
        (np.array([[1, 2, 0]] * 3), r"shape \(3, 3\)"),
        (np.array([1, 0, 0]), r"shape \(3,\)"),
    ],
)
def test_invalid_neighbors_are_refused(neighbors: np.ndarray, got: str) -> None:
    with pytest.raises(InputError, match=f"neighbors: expected indices of other cells.* got {got}"):
        hits(np.array([[0.0], [1.0], [2.0]]), neighbors)


@pytest.mark.parametrize(
    ("true", "predicted", "message"),
    [
        (np.ones(3), np.ones(3), r"true: expected finite positions.* got shape \(3,\)"),
        (np.ones((0, 2)), np.ones((0, 2)), r"true: expected finite positions.* got shape \(0, 2\)"),
        (
            np.ones((3, 2)),
            np.ones((3, 3)),
            r"predicted: expected positions of the same shape .*\(3, 2\), got shape",
        ),
        (np.full((3, 2), np.nan), np.ones((3, 2)), "true: expected finite positions.* got NaN or infinity"),
        (
            np.ones((3, 2)),
            np.full((3, 2), np.inf),
            "predicted: expected finite positions.* got NaN or infinity",
        ),
    ],
)
def test_invalid_positions_are_refused(true: np.ndarray, predicted: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        location_errors(true, predicted)


def test_composition_by_hand() -> None:
    true = np.array([[0.0, 0.5, 0.0], [1.0, 0.5, 0.0], [0.0, 0.5, 1.0], [1.0, 0.5, 0.0]])
    predicted = np.array([[0.1, 0.2, 0.2], [0.3, 0.1, 0.2], [0.1, 0.9, 0.2], [0.3, 0.3, 0.2]])
    # equal up to scale; constant over spots in the truth; constant over spots in the prediction
    np.testing.assert_allclose(composition_pcc(true, predicted), [1.0, 0.0, 0.0], atol=TOLERANCE)


@given(
    both=hnp.arrays(np.float64, (2, 7, 3), elements=st.integers(0, 8).map(lambda whole: whole / 8)),
    seed=st.integers(0, 99),
)
def test_composition_equals_a_naive_loop_in_any_order_of_types(both: np.ndarray, seed: int) -> None:
    true, predicted = both
    found = composition_pcc(true, predicted)
    for kind in range(3):
        one, other = true[:, kind], predicted[:, kind]
        varies = np.ptp(one) > 0 and np.ptp(other) > 0
        expected = np.corrcoef(one, other)[0, 1] if varies else 0.0
        assert found[kind] == pytest.approx(expected, abs=1e-9)  # rounding of squares of small numbers
    stream = np.random.default_rng(seed)
    spots, types = stream.permutation(7), stream.permutation(3)
    moved = composition_pcc(true[spots][:, types], predicted[spots][:, types])
    np.testing.assert_allclose(moved, found[types], atol=TOLERANCE)
    np.testing.assert_array_equal(found, metrics.pearson(true, predicted))


def test_compositions_of_different_shapes_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"predicted: expected two matrices \(spots x types\) of the same shape"
    ):
        composition_pcc(np.ones((3, 2)), np.ones((2, 2)))
    with pytest.raises(
        InputError, match=r"predicted: expected two matrices \(spots x types\) of the same shape"
    ):
        composition_pcc(np.ones((0, 2)), np.ones((0, 2)))
    with pytest.raises(InputError, match="prediction: expected finite values"):
        composition_pcc(np.ones((3, 2)), np.full((3, 2), np.nan))


def test_groups_of_types_follow_the_published_ranks() -> None:
    cells = np.array([1, 20, 3, 40, 5, 60, 7, 80, 9, 100, 11, 12])
    groups = type_groups(cells)
    ranked = groups[np.argsort(-cells)]
    assert ranked.tolist() == ["major"] * 5 + ["moderate"] * 5 + ["rare"] * 2
    assert type_groups(np.array([])).tolist() == []
    # types of equal frequency are ranked in their order
    assert type_groups(np.ones(12)).tolist() == ["major"] * 5 + ["moderate"] * 5 + ["rare"] * 2


@given(cells=st.lists(st.integers(0, 999), unique=True, max_size=15), seed=st.integers(0, 99))
def test_groups_of_types_depend_only_on_frequency(cells: list[int], seed: int) -> None:
    counts = np.array(cells)
    groups = type_groups(counts)
    assert set(groups) <= set(GROUPS)
    order = np.random.default_rng(seed).permutation(len(cells))
    np.testing.assert_array_equal(type_groups(counts[order]), groups[order])
    np.testing.assert_array_equal(type_groups(counts / 1000), groups)


@pytest.mark.parametrize("wrong", [np.ones((2, 2)), np.array([1.0, np.nan])])
def test_invalid_frequencies_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(InputError, match="frequencies: expected one finite number for each type"):
        type_groups(wrong)
