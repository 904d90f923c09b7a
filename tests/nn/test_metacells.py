"""Metacells: groups and means against hand-computed values and loops, copies of cells, and order of cells."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft.nn import metacells
from cellweft.nn.metacells import Metacells, group_cells

# means are computed in float64 and stored in float32
TOLERANCE = 1e-6


def clumps(n_clumps: int = 6, n_each: int = 9, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw keys of length 1 around some directions, in random order; return them and their directions."""
    stream = np.random.default_rng(seed)
    belongs = stream.permutation(np.repeat(np.arange(n_clumps), n_each))
    keys = stream.standard_normal((n_clumps, 10))[belongs] + 0.01 * stream.standard_normal((len(belongs), 10))
    return (keys / np.linalg.norm(keys, axis=1, keepdims=True)).astype(np.float32), belongs


def diffuse(n_cells: int = 120, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n_cells, 5)).astype(np.float32)


def grouped(keys: np.ndarray, most: int, *, seed: int = 0) -> Metacells:
    found = group_cells(keys, most=most, seed=seed)
    assert found is not None
    return found


class TestMeans:
    def test_by_hand(self) -> None:
        values = np.array([[1.0, 0.0], [2.0, 4.0], [3.0, 2.0], [6.0, 0.0], [7.0, 1.0]], dtype=np.float32)
        some = Metacells(groups=np.array([0, 1, 0, 1, 2]))
        assert some.sizes.tolist() == [2, 2, 1]
        np.testing.assert_array_equal(some.average(values), [[2, 1], [4, 2], [7, 1]])
        # (1, 1) from the mean on both sides; (2, 2) on both sides; a group of one
        np.testing.assert_allclose(some.spread(values), [2, 8, 0])

    @given(
        n_cells=st.integers(1, 30),
        n_groups=st.integers(1, 6),
        n_genes=st.integers(0, 4),
        seed=st.integers(0, 50),
    )
    @settings(max_examples=30, deadline=None)
    def test_means_equal_a_plain_loop_for_dense_and_sparse_matrices(
        self, n_cells: int, n_groups: int, n_genes: int, seed: int
    ) -> None:
        stream = np.random.default_rng(seed)
        groups = np.unique(stream.integers(n_groups, size=n_cells), return_inverse=True)[1]
        values = (
            stream.standard_normal((n_cells, n_genes)) * (stream.random((n_cells, n_genes)) < 0.5)
        ).astype(np.float32)
        some = Metacells(groups=groups)
        for group in range(groups.max() + 1):
            own = values[groups == group].astype(np.float64)
            mean = own.mean(axis=0)
            np.testing.assert_allclose(some.average(values)[group], mean, atol=TOLERANCE)
            around = sum(float(((cell - mean) ** 2).sum()) for cell in own) / len(own)
            assert some.spread(values)[group] == pytest.approx(around, abs=10 * TOLERANCE)
        for form in (sp.csc_matrix, sp.csr_matrix):
            found = some.average(form(values))
            np.testing.assert_array_equal(found, some.average(values))
            assert found.dtype == np.float32

    def test_means_are_summed_in_double_precision(self) -> None:
        values = np.full((200_000, 1), 0.1, dtype=np.float32)
        values[0] = 1e6
        found = Metacells(groups=np.zeros(200_000, dtype=np.int64)).average(values)
        assert found[0, 0] == pytest.approx(values.mean(dtype=np.float64), rel=1e-7)

    def test_block_size_does_not_matter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        keys = diffuse()
        some = grouped(keys, 12)
        before = some.spread(keys)
        monkeypatch.setattr(metacells, "READ_ROWS", 7)
        np.testing.assert_array_equal(some.spread(keys), before)
        np.testing.assert_array_equal(grouped(keys, 12).groups, some.groups)


class TestGroups:
    def test_cells_of_a_cluster_are_grouped_together(self) -> None:
        """With twenty groups for six clusters, no group spans two clusters."""
        keys, belongs = clumps()
        found = grouped(keys, 20)
        assert all(len(set(belongs[found.groups == group])) == 1 for group in range(len(found.sizes)))
        assert found.spread(keys).max() < 0.01

    def test_no_group_is_empty_and_every_cell_has_a_group(self) -> None:
        found = grouped(diffuse(), 30)
        assert len(found.groups) == 120
        assert found.sizes.min() >= 1
        assert found.sizes.sum() == 120
        assert 25 <= len(found.sizes) <= 30

    def test_every_cell_is_assigned_to_the_nearest_centre(self) -> None:
        """After k-means has converged, the centres are the means of the groups."""
        keys, _ = clumps(3, 20)
        found = grouped(keys, 3)
        means = found.average(keys)
        nearest = [min(range(3), key=lambda group: np.linalg.norm(means[group] - key)) for key in keys]
        assert found.groups.tolist() == nearest

    @pytest.mark.parametrize("n_cells", [0, 1, 39, 40])
    def test_with_no_more_cells_than_groups_there_are_none(self, n_cells: int) -> None:
        assert group_cells(diffuse(n_cells), most=40, seed=0) is None
        assert group_cells(diffuse(41), most=40, seed=0) is not None

    def test_a_single_group_contains_all_cells(self) -> None:
        keys = diffuse()
        found = grouped(keys, 1)
        assert set(found.groups) == {0}
        np.testing.assert_allclose(found.average(keys)[0], keys.mean(axis=0), atol=TOLERANCE)

    @pytest.mark.parametrize("most", [5, 12, 20])
    def test_copies_of_a_cell_are_in_one_group(self, most: int) -> None:
        cells = diffuse(12)
        found = grouped(np.concatenate([cells, cells, cells]), most)
        assert found.groups[:12].tolist() == found.groups[12:24].tolist() == found.groups[24:].tolist()
        assert len(found.sizes) == min(most, 12)

    def test_a_weight_equals_that_number_of_copies(self) -> None:
        cells, weights = diffuse(60), np.random.default_rng(1).integers(1, 5, size=60)
        found = group_cells(cells, most=10, seed=0, weights=weights.astype(np.float64))
        assert found is not None
        copied = grouped(np.repeat(cells, weights, axis=0), 10)
        np.testing.assert_array_equal(np.repeat(found.groups, weights), copied.groups)

    def test_groups_are_small_where_weights_are_large(self) -> None:
        keys, belongs = clumps(2, 100)
        found = group_cells(keys, most=40, seed=0, weights=np.where(belongs == 0, 20.0, 1.0))
        assert found is not None
        n_groups = [len(set(found.groups[belongs == clump])) for clump in (0, 1)]
        assert n_groups[0] > 2 * n_groups[1]

    def test_identical_cells_are_one_group(self) -> None:
        assert grouped(np.ones((50, 4), dtype=np.float32), 10).sizes.tolist() == [50]
        assert grouped(np.zeros((50, 4), dtype=np.float32), 10).sizes.tolist() == [50]

    def test_the_order_of_the_cells_does_not_matter(self) -> None:
        keys, order = diffuse(), np.random.default_rng(1).permutation(120)
        np.testing.assert_array_equal(grouped(keys[order], 15).groups, grouped(keys, 15).groups[order])

    def test_the_same_seed_gives_the_same_groups_and_another_does_not(self) -> None:
        keys = diffuse()
        first = grouped(keys, 15).groups
        np.random.seed(5)  # noqa: NPY002 -- the global state is what is watched
        before = np.random.get_state()[1].tolist()  # noqa: NPY002
        np.testing.assert_array_equal(grouped(keys, 15).groups, first)
        assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
        assert not np.array_equal(grouped(keys, 15, seed=1).groups, first)

    def test_keys_are_not_changed(self) -> None:
        keys = diffuse()
        before = keys.copy()
        some = grouped(keys, 15)
        some.average(keys)
        some.spread(keys)
        np.testing.assert_array_equal(keys, before)

    def test_centres_of_many_cells_are_fitted_to_a_sample(self, monkeypatch: pytest.MonkeyPatch) -> None:
        keys, belongs = clumps(4, 50)
        monkeypatch.setattr(metacells, "_FITTED_CELLS", 40)
        found = grouped(keys, 20)
        assert len(found.groups) == 200
        assert all(len(set(belongs[found.groups == group])) == 1 for group in range(len(found.sizes)))

    def test_more_groups_than_sampled_cells(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(metacells, "_FITTED_CELLS", 20)
        assert len(grouped(diffuse(), 50).sizes) <= 50
