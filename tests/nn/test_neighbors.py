"""Exact neighbours equal a naive search: ties, copies, zeros, blocks, and invalid k."""

import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellweft._errors import MissingExtraError, SettingError
from cellweft.nn.config import StImputeSettings
from cellweft.nn.neighbors import ApproximateNeighbors, ExactNeighbors, neighbor_search

# a few dozen float64 products and one square root
TOLERANCE = 1e-12

EIGHTHS = st.integers(0, 8).map(lambda whole: whole / 8)


def naive(reference: np.ndarray, queries: np.ndarray, k: int) -> list[list[int]]:
    """Sort all cells by cosine, one number at a time; cosines that differ only by rounding are ties."""
    found = []
    for query in queries:
        likeness = [round(cosine(query, cell), 12) for cell in reference]
        found.append(sorted(range(len(reference)), key=lambda cell: (-likeness[cell], cell))[:k])
    return found


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    length = math.sqrt(math.fsum(a * a for a in left)) * math.sqrt(math.fsum(b * b for b in right))
    return math.fsum(a * b for a, b in zip(left, right, strict=True)) / length if length else 0.0


def cells(n_cells: int, n_latent: int = 8, seed: int = 0) -> np.ndarray:
    """Draw random embeddings, as sparse as after ReLU."""
    return np.maximum(np.random.default_rng(seed).standard_normal((n_cells, n_latent)), 0)


def test_a_hand_computed_case() -> None:
    reference = np.array([[1.0, 0.0], [0.0, 3.0], [2.0, 2.0], [0.0, 0.0]])
    found = ExactNeighbors.build(reference).search(np.array([[5.0, 1.0], [1.0, 1.0]]), 4)
    assert found.tolist() == [[0, 2, 1, 3], [2, 0, 1, 3]]
    assert found.dtype == np.int64


@settings(max_examples=25, deadline=None)
@given(
    n_reference=st.integers(1, 90), k=st.integers(1, 30), block=st.integers(1, 9), seed=st.integers(0, 999)
)
def test_it_equals_a_naive_search_for_any_block_size(n_reference, k, block, seed, device) -> None:
    k = min(k, n_reference)
    reference, queries = cells(n_reference, seed=seed), cells(7, seed=seed + 1)
    found = ExactNeighbors.build(reference, device=device, block=block).search(queries, k)
    assert found.tolist() == naive(reference, queries, k)


@settings(max_examples=25, deadline=None)
@given(
    reference=hnp.arrays(np.float64, st.tuples(st.integers(1, 40), st.just(2)), elements=EIGHTHS),
    queries=hnp.arrays(np.float64, (3, 2), elements=EIGHTHS),
    k=st.integers(1, 6),
)
def test_the_most_similar_cells_are_found_despite_ties(reference, queries, k, device) -> None:
    # Parallel cells of different length tie except for rounding, so compare similarities instead of
    # positions.
    k = min(k, len(reference))
    found = ExactNeighbors.build(reference, device=device).search(queries, k)
    for query, near in zip(queries, found, strict=True):
        likeness = [cosine(query, cell) for cell in reference]
        assert len(set(near.tolist())) == k
        np.testing.assert_allclose(
            [likeness[cell] for cell in near], sorted(likeness, reverse=True)[:k], atol=TOLERANCE
        )


@pytest.mark.parametrize("n_copies", [2, 5, 40, 200])
@pytest.mark.parametrize("block", [1, 4, 1024])
def test_copies_of_a_cell_are_ordered_by_position(n_copies: int, block: int, device: torch.device) -> None:
    # 40 and 200 copies are more than the candidates that the float32 search passes on.
    reference = cells(300)
    copies = np.sort(np.random.default_rng(1).choice(300, n_copies, replace=False))
    reference[copies] = reference[copies[0]]
    queries = np.vstack([reference[copies[0]], cells(5, seed=2)])
    found = ExactNeighbors.build(reference, device=device, block=block).search(queries, 4)
    assert found[0, : min(4, n_copies)].tolist() == copies[:4].tolist()
    assert found.tolist() == naive(reference, queries, 4)


def test_a_reference_of_identical_cells(device: torch.device) -> None:
    found = ExactNeighbors.build(np.tile(cells(1), (100, 1)), device=device).search(cells(3, seed=1), 5)
    assert found.tolist() == [[0, 1, 2, 3, 4]] * 3


def test_a_cell_of_zeros_has_cosine_zero_and_never_nan(device: torch.device) -> None:
    reference = cells(60)
    reference[::2] = 0
    search = ExactNeighbors.build(reference, device=device)
    assert not search.unit[::2].any()
    found = search.search(np.vstack([np.zeros(8), np.ones(8)]), 30)
    assert found[0].tolist() == list(range(30))
    assert set(found[1].tolist()) == set(range(1, 60, 2))


def test_all_cells_of_the_reference_as_neighbours(device: torch.device) -> None:
    reference, queries = cells(30), cells(4, seed=1)
    found = ExactNeighbors.build(reference, device=device).search(queries, 30)
    assert found.tolist() == naive(reference, queries, 30)


def test_no_query_gives_no_row() -> None:
    assert ExactNeighbors.build(cells(5)).search(np.empty((0, 8)), 2).shape == (0, 2)


@pytest.mark.parametrize(("k", "got"), [(6, "got 6"), (0, "got 0"), (-1, "got -1")])
def test_invalid_k_is_refused(k: int, got: str) -> None:
    with pytest.raises(SettingError, match=rf"^k: expected from 1 to 5 .*{got}.*Choose a smaller k"):
        ExactNeighbors.build(cells(5)).search(cells(2), k)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), factor=st.floats(1e-3, 1e3))
def test_the_length_of_a_cell_does_not_matter(seed: int, factor: float) -> None:
    reference, queries = cells(40, seed=seed), cells(5, seed=seed + 1)
    found = ExactNeighbors.build(reference).search(queries, 5)
    assert (ExactNeighbors.build(factor * reference).search(queries / factor, 5) == found).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999))
def test_permuting_queries_or_the_reference_permutes_the_result(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference, queries = (np.random.default_rng([seed, part]).random((50 - 41 * part, 8)) for part in (0, 1))
    found = ExactNeighbors.build(reference).search(queries, 4)
    order, names = rng.permutation(9), rng.permutation(50)
    assert (ExactNeighbors.build(reference).search(queries[order], 4) == found[order]).all()
    assert (names[ExactNeighbors.build(reference[names]).search(queries, 4)] == found).all()


def test_inputs_are_not_changed() -> None:
    reference, queries = cells(20), cells(3)
    kept = reference.copy(), queries.copy()
    ExactNeighbors.build(reference).search(queries, 3)
    assert (reference == kept[0]).all()
    assert (queries == kept[1]).all()


class TestApproximateNeighbors:
    """faiss is optional; without it the search is exact."""

    @pytest.fixture(autouse=True)
    def faiss(self) -> None:
        pytest.importorskip("faiss")

    def test_a_small_reference_is_searched_completely(self) -> None:
        reference, queries = cells(60), cells(9, seed=1)
        exact = ExactNeighbors.build(reference).search(queries, 7)
        near = ApproximateNeighbors.build(reference)
        np.testing.assert_array_equal(near.search(queries, 7), exact)
        assert near.recall(queries, 7) == 1.0

    def test_seeds_too_large_for_faiss_are_accepted(self) -> None:
        near = ApproximateNeighbors.build(cells(60), seed=2**31 + 5)
        assert near.index.cp.seed == 5

    @pytest.mark.slow
    def test_part_of_a_large_reference_contains_nearly_all_neighbours(self) -> None:
        random = np.random.default_rng(0)
        centres = random.standard_normal((40, 20))
        made = [
            np.maximum(centres[random.integers(0, 40, n)] + 0.5 * random.standard_normal((n, 20)), 0)
            for n in (20_000, 200)
        ]
        near = ApproximateNeighbors.build(made[0], seed=3)
        assert near.index.nprobe < near.index.nlist / 8
        assert near.recall(made[1], 20) > 0.95
        found = near.search(made[1], 20)
        parts = [near.search(made[1][start : start + 17], 20) for start in range(0, 200, 17)]
        np.testing.assert_array_equal(np.concatenate(parts), found)
        np.testing.assert_array_equal(ApproximateNeighbors.build(made[0], seed=3).search(made[1], 20), found)

    def test_more_groups_are_searched_if_they_have_too_few_cells(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("cellweft.nn.neighbors._LOOKED_AT", 1)
        reference, queries = cells(200), cells(5, seed=1)
        exact = ExactNeighbors.build(reference).search(queries, 150)
        np.testing.assert_array_equal(ApproximateNeighbors.build(reference).search(queries, 150), exact)

    @pytest.mark.parametrize("k", [0, 61])
    def test_k_out_of_range(self, k: int) -> None:
        with pytest.raises(SettingError, match="k: expected from 1 to 60"):
            ApproximateNeighbors.build(cells(60)).search(cells(2), k)

    def test_the_settings_choose_the_search(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def kind(**changes: object) -> type:
            chosen = StImputeSettings().override(changes)
            return type(neighbor_search(cells(60), chosen, seed=0, device=torch.device("cpu")))

        assert kind() is kind(search="exact") is ExactNeighbors
        assert kind(search="approximate") is ApproximateNeighbors
        monkeypatch.setattr("cellweft.nn.neighbors._MOST_EXACT", 50)
        assert kind() is ApproximateNeighbors
        assert kind(search="exact") is ExactNeighbors
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        assert kind() is ExactNeighbors


def test_without_faiss_an_approximate_search_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r'pip install "cellweft\[index\]"'):
        ApproximateNeighbors.build(cells(60))
