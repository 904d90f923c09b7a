"""Windows and batches: hand-computed cases, and properties of any input."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft.genes.esm.model import batches, cut, spans

LENGTHS = st.lists(st.integers(1, 120), max_size=12)
WINDOWS = st.integers(1, 30).flatmap(lambda window: st.tuples(st.just(window), st.integers(0, window - 1)))


def test_spans_by_hand() -> None:
    assert spans(8, window=8, overlap=7) == [(0, 8)]
    assert spans(9, window=8, overlap=2) == [(0, 8), (1, 9)]
    assert spans(20, window=8, overlap=2) == [(0, 8), (6, 14), (12, 20)]
    assert spans(16, window=8, overlap=0) == [(0, 8), (8, 16)]


@settings(max_examples=50, deadline=None)
@given(length=st.integers(1, 5000), sizes=WINDOWS)
def test_spans_cover_a_protein_with_the_fewest_windows(length: int, sizes: tuple[int, int]) -> None:
    window, overlap = sizes
    made = spans(length, window=window, overlap=overlap)
    assert made[0][0] == 0
    assert made[-1][1] == length
    for (start, stop), (next_start, next_stop) in pairwise(made):
        assert stop - start == next_stop - next_start == window
        assert start < next_start <= stop - overlap
    assert (len(made) - 2) * (window - overlap) + window < length or len(made) == 1


@settings(max_examples=50, deadline=None)
@given(lengths=LENGTHS, sizes=WINDOWS)
def test_every_residue_counts_once(lengths: list[int], sizes: tuple[int, int]) -> None:
    windows = cut(lengths, window=sizes[0], overlap=sizes[1])
    counted = [np.zeros(length) for length in lengths]
    for one in windows:
        counted[one.protein][one.start : one.stop] += one.share
        assert len(one.share) == one.n_tokens - 2
        assert one.of == sum(other.protein == one.protein for other in windows)
    for count in counted:
        np.testing.assert_allclose(count, 1, rtol=1e-6)
    assert sum(one.is_last for one in windows) == len(lengths)
    assert [one.n_tokens for one in windows] == sorted((one.n_tokens for one in windows), reverse=True)


def test_batches_of_a_hand_computed_case() -> None:
    # three windows, two windows, and one window each for three proteins
    windows = cut([3, 12, 5, 2, 20], window=8, overlap=2)
    made = [[(one.protein, one.start) for one in batch] for batch in batches(windows, tokens=40)]
    # Four windows of 10 tokens fit into a batch; the five windows of the two long proteins do not.
    assert made == [[(4, 0), (4, 6), (4, 12)], [(1, 0), (1, 4), (2, 0), (0, 0)], [(3, 0)]]
    alone = [len(batch) for batch in batches(windows, tokens=1)]
    assert alone == [1] * 8
    assert list(batches([], tokens=9)) == []


@settings(max_examples=50, deadline=None)
@given(lengths=LENGTHS, sizes=WINDOWS, tokens=st.integers(1, 300))
def test_batches_contain_every_window_once_in_order(
    lengths: list[int], sizes: tuple[int, int], tokens: int
) -> None:
    windows = cut(lengths, window=sizes[0], overlap=sizes[1])
    made = list(batches(windows, tokens=tokens))
    assert [one for batch in made for one in batch] == windows
    for batch in made:
        assert len(batch) * batch[0].n_tokens <= tokens or len(batch) == 1
    for protein in range(len(lengths)):
        own = [batch for batch in made if any(one.protein == protein for one in batch)]
        whole = [one for one in windows if one.protein == protein]
        if len(own) > 1:  # only if they do not fit into one batch
            assert len(whole) * whole[0].n_tokens > tokens
