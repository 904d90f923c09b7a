"""The coarse search against the full matrix."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft.nn import clustered_mapping as room
from cellweft.nn.clustered_mapping import (
    CoarseMapping,
    KeyGroups,
    group_keys,
    largest,
    make_mapping,
    visits_of,
)
from cellweft.nn.mapping import Mapping

# float32 products and sums in blocks of another shape
TOLERANCE = 1e-5


def drawn(*shape: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    values = np.random.default_rng(seed).standard_normal(shape) * scale
    return torch.from_numpy(values.astype(np.float32))


def clustered(n_keys: int = 600, *, n_latent: int = 8, apart: float = 2.0) -> torch.Tensor:
    """Draw keys around 12 centres."""
    return drawn(12, n_latent, seed=5, scale=apart)[torch.arange(n_keys) % 12] + drawn(
        n_keys, n_latent, seed=6, scale=0.3
    )


def make(
    n_queries: int = 40, n_keys: int = 600, *, most: int = 24, share: float = 2e-3, visited: float = 1.0
) -> CoarseMapping:
    queries, keys = drawn(n_queries, 8, seed=7), clustered(n_keys)
    groups = group_keys(queries, keys, most=most)
    return CoarseMapping(queries=queries, keys=keys, groups=groups, least_share=share, most_visited=visited)


def exact(mapping: CoarseMapping) -> Mapping:
    return Mapping(queries=mapping.queries, keys=mapping.keys)


def check_all(mapping: CoarseMapping, *, tolerance: float) -> None:
    """Compare every operator with the mapping that computes all weights."""
    whole = exact(mapping)
    n_queries, n_keys = mapping.shape
    of_keys, of_queries = drawn(n_keys, 3, seed=8), drawn(n_queries, 3, seed=9)
    for found, expected in (
        (mapping.apply(of_keys), whole.apply(of_keys)),
        (mapping.apply_transpose(of_queries), whole.apply_transpose(of_queries)),
        (mapping.log_total, whole.log_total),
        (mapping.topk(5)[0], whole.topk(5)[0]),
    ):
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
    for visit in mapping.visits():
        weights = torch.cat(visit.weights, dim=1)
        np.testing.assert_allclose(weights.sum(dim=1), 1, atol=TOLERANCE)
        entropy = visit.entropy(mapping.groups.sizes)
        np.testing.assert_allclose(entropy, whole.entropy()[visit.rows], atol=50 * tolerance)


def test_a_hand_computed_case() -> None:
    """Products 0, 0, log 6 and log 6: the first two keys are far and represented by their mean."""
    keys = torch.tensor([[0.0], [0.0], [math.log(6)], [math.log(6)]])
    groups = KeyGroups(
        of_keys=torch.tensor([0, 0, 1, 1]),
        means=torch.tensor([[0.0], [math.log(6)]]),
        turn=torch.eye(1),
        variances=torch.zeros(2, 1),
    )
    mapping = CoarseMapping(queries=torch.ones(1, 1), keys=keys, groups=groups, least_share=0.2)
    (visit,) = mapping.visits()
    assert visit.columns.tolist() == [2, 3]
    near, far = visit.weights
    np.testing.assert_allclose(near, [[6 / 14, 6 / 14]], rtol=TOLERANCE)
    np.testing.assert_allclose(far, [[2 / 14, 0]], rtol=TOLERANCE)
    np.testing.assert_allclose(mapping.log_total, [math.log(14)], rtol=TOLERANCE)
    pulled = mapping.apply(torch.tensor([[14.0], [28.0], [7.0], [0.0]]))
    np.testing.assert_allclose(pulled, [[2 / 14 * 21 + 6 / 14 * 7]], rtol=TOLERANCE)
    pushed = mapping.apply_transpose(torch.tensor([[14.0]]))
    np.testing.assert_allclose(pushed, [[1], [1], [6], [6]], rtol=TOLERANCE)
    entropy = -(2 * 1 / 14 * math.log(1 / 14) + 2 * 6 / 14 * math.log(6 / 14))
    np.testing.assert_allclose(visit.entropy(groups.sizes), [entropy], rtol=TOLERANCE)


def test_visiting_all_keys_equals_the_exact_mapping() -> None:
    check_all(make(share=0.0), tolerance=TOLERANCE)


def test_groups_of_one_key_give_exact_weights() -> None:
    """Only the best key is visited and all others are estimated, each by itself."""
    mapping = make(n_keys=50, most=50, share=2.0)
    assert [len(visit.columns) for visit in mapping.visits()] == [1]
    np.testing.assert_allclose(mapping.log_total, exact(mapping).log_total, rtol=TOLERANCE)
    of_keys, of_queries = drawn(50, 3, seed=8), drawn(40, 3, seed=9)
    np.testing.assert_allclose(mapping.apply(of_keys), exact(mapping).apply(of_keys), atol=TOLERANCE)
    np.testing.assert_allclose(
        mapping.apply_transpose(of_queries), exact(mapping).apply_transpose(of_queries), atol=TOLERANCE
    )


def test_estimates_of_far_keys_are_close_to_exact_values() -> None:
    mapping = make(share=0.02)
    seen = [len(visit.columns) for visit in mapping.visits()]
    assert max(seen) < 600
    check_all(mapping, tolerance=0.02)
    found, true = mapping.topk(10)[1], exact(mapping).topk(10)[1]
    assert np.mean([len(np.intersect1d(*rows)) / 10 for rows in zip(found, true, strict=True)]) > 0.99


def test_the_number_of_visited_keys_has_both_bounds() -> None:
    mapping = make(share=0.0, visited=0.25)
    assert all(len(visit.columns) <= 150 for visit in mapping.visits())
    assert all(len(visit.columns) >= 300 for visit in mapping.visits(least=300))
    assert all(len(visit.columns) >= 300 for visit in visits_of(mapping, least=300))
    places = mapping.topk(400)[1]
    assert all(len(set(row)) == 400 for row in places.tolist())
    assert sorted(mapping.topk(600)[1][0].tolist()) == list(range(600))


def test_every_query_is_visited_once_in_any_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_QUERIES", 7)
    mapping = make(share=0.0)
    rows = torch.cat([visit.rows for visit in mapping.visits()])
    assert sorted(rows.tolist()) == list(range(40))
    check_all(mapping, tolerance=TOLERANCE)


def test_permuting_queries_or_keys_permutes_the_result() -> None:
    mapping, values = make(share=0.01), drawn(600, 2, seed=3)
    queries, keys = (torch.from_numpy(np.random.default_rng(0).permutation(n)) for n in mapping.shape)
    groups = KeyGroups(
        of_keys=mapping.groups.of_keys[keys],
        means=mapping.groups.means,
        turn=mapping.groups.turn,
        variances=mapping.groups.variances,
    )
    moved = CoarseMapping(
        queries=mapping.queries[queries],
        keys=mapping.keys[keys],
        groups=groups,
        least_share=0.01,
        most_visited=1.0,
    )
    np.testing.assert_allclose(moved.apply(values[keys]), mapping.apply(values)[queries], atol=TOLERANCE)


def test_a_query_of_zeros_weighs_all_keys_equally() -> None:
    mapping = make()
    mapping = CoarseMapping(
        queries=torch.zeros(3, 8), keys=mapping.keys, groups=mapping.groups, least_share=2
    )
    values = drawn(600, 2, seed=1)
    np.testing.assert_allclose(mapping.apply(values), values.mean(dim=0).expand(3, 2), atol=TOLERANCE)
    np.testing.assert_allclose(mapping.log_total, math.log(600), rtol=TOLERANCE)


def test_no_queries() -> None:
    mapping = make()
    mapping = CoarseMapping(queries=torch.zeros(0, 8), keys=mapping.keys, groups=mapping.groups)
    assert mapping.apply(drawn(600, 2, seed=1)).shape == (0, 2)
    assert mapping.topk(3)[1].shape == (0, 3)
    assert not mapping.apply_transpose(torch.zeros(0, 2)).any()


class TestGroups:
    def test_sums_of_normal_products(self) -> None:
        """With many normal keys in a group, the estimate from mean and variance is accurate."""
        keys = drawn(20_000, 3, seed=2) * torch.tensor([1.0, 0.5, 0.1]) + 1.0
        queries = drawn(5, 3, seed=3, scale=0.5)
        found = group_keys(queries, keys, most=1).log_sums(queries)[:, 0]
        np.testing.assert_allclose(found, Mapping(queries=queries, keys=keys).log_total, atol=0.05)

    def test_groups_contain_all_keys_once_and_are_reproducible(self) -> None:
        first, second = (make().groups for _ in range(2))
        np.testing.assert_array_equal(first.of_keys, second.of_keys)
        np.testing.assert_array_equal(first.means, second.means)
        assert first.sizes.sum() == 600
        assert first.sizes.min() > 0
        everything = torch.ones(len(first.means), dtype=torch.bool)
        assert sorted(first.members(everything).tolist()) == list(range(600))
        means = first.average(clustered())
        np.testing.assert_allclose(means, first.means, atol=TOLERANCE)

    def test_identical_keys(self) -> None:
        groups = group_keys(drawn(9, 4, seed=1), torch.ones(30, 4), most=5)
        np.testing.assert_allclose(groups.variances, 0, atol=TOLERANCE)
        np.testing.assert_allclose(groups.average(torch.ones(30, 4)), 1)

    def test_keys_are_not_changed(self) -> None:
        queries, keys = drawn(9, 8, seed=1), clustered(60)
        before = queries.clone(), keys.clone()
        group_keys(queries, keys, most=5)
        assert torch.equal(queries, before[0])
        assert torch.equal(keys, before[1])


@settings(max_examples=60, deadline=None)
@given(
    n_rows=st.integers(0, 4),
    n_columns=st.integers(1, 300),
    k=st.integers(1, 12),
    seed=st.integers(0, 99),
    ties=st.booleans(),
)
def test_the_largest_equal_those_of_a_sort(
    n_rows: int, n_columns: int, k: int, seed: int, *, ties: bool
) -> None:
    products, k = drawn(n_rows, n_columns, seed=seed), min(k, n_columns)
    products = products.round() if ties else products
    values, places = largest(products, k)
    np.testing.assert_array_equal(values, products.sort(dim=1, descending=True)[0][:, :k])
    np.testing.assert_array_equal(values, products.gather(1, places))
    assert all(len(set(row)) == k for row in places.tolist())


def test_few_keys_or_products_are_computed_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys = drawn(40, 8, seed=7), clustered()
    assert isinstance(make_mapping(queries, keys), Mapping)
    monkeypatch.setattr(room, "_LEAST_KEYS", 599)
    assert isinstance(make_mapping(queries, keys), Mapping)
    monkeypatch.setattr(room, "_LEAST_PRODUCTS", 23_999)
    made = make_mapping(queries, keys)
    assert isinstance(made, CoarseMapping)
    assert len(made.groups.means) <= 6
    monkeypatch.setattr(room, "_LEAST_PRODUCTS", 24_000)
    assert isinstance(make_mapping(queries, keys), Mapping)


@pytest.mark.parametrize("block", [1, 700, 2**22])
def test_visits_of_an_exact_mapping_are_its_blocks(block: int) -> None:
    mapping = Mapping(queries=drawn(7, 8, seed=1), keys=clustered(60), block_entries=block)
    rows = []
    for visit in visits_of(mapping):
        near, far = visit.weights
        assert far.shape == (len(visit.rows), 0)
        np.testing.assert_allclose(near, mapping.dense()[visit.rows], atol=TOLERANCE)
        np.testing.assert_allclose(visit.log_total, mapping.log_total[visit.rows], rtol=TOLERANCE)
        np.testing.assert_allclose(
            visit.entropy(near.new_zeros(0)), mapping.entropy()[visit.rows], atol=TOLERANCE
        )
        rows += visit.rows.tolist()
    assert rows == list(range(7))


def test_the_kept_dimensions_do_not_depend_on_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_NARROW", 2)
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(50, 4, generator=generator) * torch.tensor([4.0, 3.0, 0.5, 0.1])
    keys = torch.randn(60, 4, generator=generator) * torch.tensor([1.0, 0.5, 2.0, 3.0])
    plain, small = (
        of_queries @ of_keys.T
        for of_queries, of_keys in map(room._narrow, (queries, 1e-6 * queries), (keys, keys))
    )
    torch.testing.assert_close(small, plain, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(plain, torch.eye(4), atol=0.1)  # two of the four dimensions are left out
