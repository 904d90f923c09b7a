"""Mapping in blocks against the full softmax matrix."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft.nn import mapping as room
from cellweft.nn.mapping import Mapping

# float32 products and sums in blocks of another shape
TOLERANCE = 1e-5

SHAPES = [(1, 1), (1, 9), (9, 1), (7, 5), (30, 41)]


def embeddings(n: int, *, seed: int, n_latent: int = 6, scale: float = 1.0) -> torch.Tensor:
    drawn = np.random.default_rng(seed).standard_normal((n, n_latent)) * scale
    return torch.from_numpy(drawn.astype(np.float32))


def make(n_queries: int = 13, n_keys: int = 11, *, scale: float = 1.0, block: int = 2**22) -> Mapping:
    return Mapping(
        queries=embeddings(n_queries, seed=1, scale=scale),
        keys=embeddings(n_keys, seed=2),
        block_entries=block,
    )


def dense(mapping: Mapping) -> np.ndarray:
    """Compute C in float64 from its definition."""
    products = mapping.queries.double().numpy() @ mapping.keys.double().numpy().T
    weights = np.exp(products - products.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def values(n_rows: int, n_columns: int = 3, *, seed: int = 3) -> torch.Tensor:
    return embeddings(n_rows, seed=seed, n_latent=n_columns)


def close(found: torch.Tensor, expected: np.ndarray) -> None:
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=TOLERANCE)


def check_all(mapping: Mapping, k: int) -> None:
    """Compare every operator of a mapping with the matrix."""
    weights = dense(mapping)
    n_queries, n_keys = mapping.shape
    of_keys, of_queries = values(n_keys), values(n_queries)
    products = mapping.queries.double().numpy() @ mapping.keys.double().numpy().T
    close(mapping.apply(of_keys), weights @ of_keys.numpy())
    close(mapping.apply_transpose(of_queries), weights.T @ of_queries.numpy())
    close(mapping.entropy(), -(weights * np.log(weights)).sum(axis=1))
    close(mapping.log_total, np.log(np.exp(products).sum(axis=1)))
    close(mapping.dense(), weights)
    for most_keys in (1, 4, n_keys, 10_000):
        gathered = mapping.gather(lambda rows: of_keys[rows], 3, most_keys=most_keys)
        close(gathered, weights @ of_keys.numpy())
    top, places = mapping.topk(k)
    close(top, -np.sort(-weights, axis=1)[:, :k])
    close(top, np.take_along_axis(weights, places.numpy(), axis=1))
    assert all(len(set(row)) == k for row in places.tolist())


def test_a_hand_computed_mapping() -> None:
    # Products log 1, log 3 and log 4: the weights are 1/8, 3/8 and 4/8.
    keys = torch.tensor([[0.0], [math.log(3)], [math.log(4)]])
    mapping = Mapping(queries=torch.tensor([[1.0]]), keys=keys)
    assert mapping.shape == (1, 3)
    close(mapping.dense(), np.array([[1, 3, 4]]) / 8)
    close(mapping.apply(torch.tensor([[8.0], [16.0], [0.0]])), np.array([[7.0]]))
    close(mapping.apply_transpose(torch.tensor([[16.0]])), np.array([[2.0], [6.0], [8.0]]))
    close(mapping.log_total, np.array([math.log(8)]))
    close(mapping.entropy(), np.array([math.log(8) - (3 * math.log(3) + 4 * math.log(4)) / 8]))
    top, places = mapping.topk(2)
    close(top, np.array([[0.5, 0.375]]))
    assert places.tolist() == [[2, 1]]


def test_transposed_is_the_softmax_over_the_other_side() -> None:
    mapping = make()
    back = mapping.transposed()
    assert back.shape == mapping.shape[::-1]
    products = (mapping.queries @ mapping.keys.T).double().numpy()
    close(back.dense(), (np.exp(products) / np.exp(products).sum(axis=0)).T)
    assert back.block_entries == mapping.block_entries
    np.testing.assert_array_equal(back.transposed().dense(), mapping.dense())


@pytest.mark.parametrize("shape", SHAPES)
def test_every_operator_equals_the_matrix(shape: tuple[int, int]) -> None:
    check_all(make(*shape), k=min(3, shape[1]))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    block=st.integers(1, 60),
    most_keys=st.integers(1, 16),
    k=st.integers(1, 14),
)
def test_block_size_does_not_matter(shape: tuple[int, int], block: int, most_keys: int, k: int) -> None:
    """Blocks of some queries and some keys, down to a single weight."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "_MOST_KEYS", most_keys)
        check_all(make(*shape, block=block), k=min(k, shape[1]))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), most_keys=st.sampled_from([3, 100]))
def test_permuting_queries_or_keys_permutes_the_result(seed: int, most_keys: int) -> None:
    stream = np.random.default_rng(seed)
    mapping = make()
    queries, keys = (stream.permutation(n) for n in mapping.shape)
    moved = Mapping(queries=mapping.queries[queries], keys=mapping.keys[keys], block_entries=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "_MOST_KEYS", most_keys)
        close(moved.apply(values(11)[keys]), mapping.apply(values(11)).double().numpy()[queries])
        close(
            moved.apply_transpose(values(13)[queries]),
            mapping.apply_transpose(values(13)).double().numpy()[keys],
        )
        close(moved.entropy(), mapping.entropy().double().numpy()[queries])
        (top, places), (moved_top, moved_places) = mapping.topk(4), moved.topk(4)
        close(moved_top, top.double().numpy()[queries])
        np.testing.assert_array_equal(keys[moved_places.numpy()], places.numpy()[queries])


@pytest.mark.parametrize("most_keys", [4, 2**15])
def test_rows_sum_to_one(monkeypatch: pytest.MonkeyPatch, most_keys: int) -> None:
    monkeypatch.setattr(room, "_MOST_KEYS", most_keys)
    for scale in (0.0, 1.0, 30.0, 1e4):
        mapping = make(scale=scale, block=10)
        close(mapping.apply(torch.ones(11, 1)), np.ones((13, 1)))
        close(mapping.gather(lambda rows: torch.ones(11, 1)[rows], 1, most_keys=2), np.ones((13, 1)))
        close(mapping.topk(11)[0].sum(dim=1), np.ones(13))
        close(mapping.apply_transpose(torch.ones(13, 1)).sum(), np.array(13.0))


@pytest.mark.parametrize("most_keys", [4, 2**15])
def test_the_blocks_cover_the_matrix_once(monkeypatch: pytest.MonkeyPatch, most_keys: int) -> None:
    monkeypatch.setattr(room, "_MOST_KEYS", most_keys)
    mapping = make(block=12)
    held, times = np.zeros(mapping.shape), np.zeros(mapping.shape)
    for rows, columns, weights in mapping.blocks():
        assert weights.numel() <= 12
        held[rows, columns] = weights.numpy()
        times[rows, columns] += 1
    assert (times == 1).all()
    np.testing.assert_allclose(held, dense(mapping), atol=TOLERANCE)


def test_keys_are_read_once_and_in_order() -> None:
    read = []

    def block(rows: slice) -> torch.Tensor:
        read.append((rows.start, rows.stop))
        return values(11)[rows]

    make(block=3).gather(block, 3, most_keys=4)
    assert read == [(0, 4), (4, 8), (8, 11)]


@pytest.mark.parametrize("most_keys", [4, 2**15])
def test_huge_products_do_not_overflow(monkeypatch: pytest.MonkeyPatch, most_keys: int) -> None:
    """exp() of these products is infinite, so the best key gets all the weight."""
    monkeypatch.setattr(room, "_MOST_KEYS", most_keys)
    mapping = make(scale=1e6)
    best = (mapping.queries.double() @ mapping.keys.double().T).argmax(dim=1)
    close(mapping.apply(values(11)), values(11).numpy()[best])
    close(mapping.entropy(), np.zeros(13))
    assert mapping.log_total.isfinite().all()
    close(mapping.topk(1)[0], np.ones((13, 1)))
    np.testing.assert_array_equal(mapping.topk(1)[1][:, 0], best)


@pytest.mark.parametrize("most_keys", [4, 2**15])
def test_the_best_keys_are_found_even_if_their_weights_are_zero(
    monkeypatch: pytest.MonkeyPatch, most_keys: int
) -> None:
    """Weights below the smallest float32 are zero, but their order is still known."""
    monkeypatch.setattr(room, "_MOST_KEYS", most_keys)
    mapping = make(scale=1e4)
    weights, found = mapping.topk(11)
    assert (weights == 0).any()
    products = mapping.queries.double() @ mapping.keys.double().T
    np.testing.assert_array_equal(found, products.argsort(dim=1, descending=True))


def test_a_query_of_zeros_weighs_all_keys_equally() -> None:
    """A cell without counts gives such a query."""
    mapping = Mapping(queries=torch.zeros(2, 6), keys=embeddings(8, seed=2))
    close(mapping.dense(), np.full((2, 8), 1 / 8))
    close(mapping.entropy(), np.full(2, math.log(8)))
    close(mapping.apply(torch.arange(8.0)[:, None]), np.full((2, 1), 3.5))
    twice = Mapping(queries=embeddings(3, seed=1), keys=embeddings(1, seed=2).repeat(4, 1))
    close(twice.dense(), np.full((3, 4), 0.25))


def test_no_values_and_no_queries() -> None:
    mapping = make()
    assert mapping.apply(torch.zeros(11, 0)).shape == (13, 0)
    assert mapping.gather(lambda rows: torch.zeros(11, 0)[rows], 0).shape == (13, 0)
    none = Mapping(queries=torch.zeros(0, 6), keys=mapping.keys)
    assert none.apply(values(11)).shape == (0, 3)
    assert none.topk(2)[1].shape == (0, 2)
    close(none.apply_transpose(torch.zeros(0, 2)), np.zeros((11, 2)))


def test_embeddings_and_values_are_not_changed() -> None:
    mapping, given = make(), values(11)
    before = mapping.queries.clone(), mapping.keys.clone(), given.clone()
    mapping.apply(given)
    mapping.gather(lambda rows: given[rows], 3, most_keys=2)
    mapping.topk(3)
    mapping.entropy()
    mapping.apply_transpose(values(13))
    after = mapping.queries, mapping.keys, given
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True))


def test_half_precision_is_close_to_full_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (torch.randn(*size, generator=generator) for size in ((30, 6), (50, 6), (50, 3)))
    full, half = Mapping(queries=queries, keys=keys), Mapping(queries=queries, keys=keys, half=True)
    rounded = torch.softmax((queries.bfloat16() @ keys.bfloat16().T).float(), dim=1)
    torch.testing.assert_close(half.apply(values), rounded @ values, atol=1e-5, rtol=1e-5)
    assert 1e-6 < float((half.apply(values) - full.apply(values)).abs().max()) < 0.1
    torch.testing.assert_close(half.log_total, full.log_total, atol=0.03, rtol=0)
    assert half.transposed().half
    assert half.apply(values).dtype == torch.float32
    gathered = half.gather(lambda rows: values[rows], 3, most_keys=7)
    torch.testing.assert_close(gathered, half.apply(values), atol=1e-5, rtol=1e-5)
