"""A region against the rest: sums in pieces equal those of the whole, and the score is as defined."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st

from cellweft._errors import SettingError
from cellweft.data.io.read import open_input
from cellweft.viewer.cache import StripeCache
from cellweft.viewer.matrix import HeldGenes, Means, open_genes
from cellweft.viewer.region_markers import GoneError, compared, group_moments, read_inside, scores_of


def test_a_hand_computed_case() -> None:
    values = np.array([[4.0, 0], [6, 0], [1, 0], [3, 0]])
    inside = np.array([True, True, False, False])
    found = compared(HeldGenes(values), inside, reliability=np.array([0.5, np.nan]))
    # Means 5 and 2; sums of squared deviations 2 and 2, with 2 degrees of freedom: standard deviation
    # sqrt(2).
    assert found[0] == {"inside": 5, "outside": 2, "difference": 3, "score": pytest.approx(1.5 / np.sqrt(2))}
    assert found[1]["score"] == 0
    assert list(found) == [0, 1]


def test_reliability_changes_the_order_and_never_a_sign() -> None:
    values = np.array([[2.0, 2, 2, -2], [2.1, 2.1, 2.1, -2.1], [0, 0, 0, 0], [0.1, 0.1, 0.1, 0.1]])
    inside = np.array([True, True, False, False])
    found = compared(HeldGenes(values), inside, reliability=np.array([0.2, -0.5, np.nan, 0.9]))
    assert list(found) == [2, 3, 0, 1]
    assert found[1]["score"] == 0
    assert found[3]["score"] < 0
    plain = compared(HeldGenes(values), inside, reliability=None)
    assert plain[0]["score"] == plain[1]["score"] == found[2]["score"]


def test_a_spread_of_zero_is_replaced_by_the_minimum() -> None:
    inside = np.array([True, False, False])
    found = compared(HeldGenes(np.array([[1.0], [0], [0]])), inside, reliability=None)
    assert found[0]["score"] == pytest.approx(100)
    lonely = scores_of(np.ones((2, 1)), np.full((2, 1), np.nan), np.ones((2, 1)), reliability=None)
    assert lonely.tolist() == [0]


@given(seed=st.integers(0, 20), holes=st.booleans())
def test_moments_equal_a_plain_loop(seed: int, holes: bool) -> None:
    random = np.random.default_rng(seed)
    values = np.maximum(random.normal(0, 1, (17, 4)), 0).astype(np.float32)
    if holes:
        values[random.random(values.shape) < 0.1] = np.nan
    inside = random.random(17) < 0.5
    inside[:4] = [True, True, False, False]
    values[:4] = 1
    for kind in (np.asarray, sp.csc_matrix, sp.csr_matrix):
        counts, means, variances = group_moments(_Rows(kind(values)), inside)
        for side, rows in enumerate((inside, ~inside)):
            for gene in range(4):
                there = values[rows, gene].astype(np.float64)
                there = there[~np.isnan(there)]
                assert counts[side, gene] == len(there)
                assert means[side, gene] == pytest.approx(there.mean(), rel=1e-12)
                assert variances[side, gene] == pytest.approx(there.var(ddof=1), rel=1e-9, abs=1e-12)


class _Rows(HeldGenes):
    """A matrix that is read a few cells at a time."""

    def over(self, work: Any) -> Any:
        for start in range(0, self.shape[0], 5):
            rows = slice(start, min(start + 5, self.shape[0]))
            yield work(rows, slice(0, self.shape[1]), self._matrix[rows])


@pytest.mark.parametrize("form", ["zarr", "h5ad", "h5ad CSR", "h5ad CSC"])
def test_every_form_gives_the_same(form: str, stores: dict[str, Path], imputed: AnnData) -> None:
    inside = np.arange(imputed.n_obs) % 3 == 0
    with ThreadPoolExecutor(2) as pool:
        means = Means(cache=StripeCache(10**6), share=10**5, pool=pool, threads=2)
        matrix = open_genes(open_input(stores[form], argument="result").matrix, means, where="X")
        found = group_moments(matrix, inside)
    for one, other in zip(found, group_moments(HeldGenes(np.asarray(imputed.X)), inside), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_cells_can_be_permuted() -> None:
    random = np.random.default_rng(3)
    values, inside = random.gamma(1, 1, (40, 5)), random.random(40) < 0.4
    order = random.permutation(40)
    ours = compared(HeldGenes(values), inside, reliability=None)
    theirs = compared(HeldGenes(values[order]), inside[order], reliability=None)
    assert list(ours) == list(theirs)
    assert ours[0] == pytest.approx(theirs[0])


def test_it_stops_if_the_client_is_gone() -> None:
    asked: list[int] = []
    with pytest.raises(GoneError):
        group_moments(
            _Rows(np.ones((20, 1))),
            np.arange(20) < 3,
            is_gone=lambda: bool(asked.append(1)) or len(asked) > 1,
        )
    assert len(asked) == 2


def test_the_number_of_genes_is_limited() -> None:
    values = np.random.default_rng(0).gamma(1, 1, (6, 450))
    found = compared(HeldGenes(values), np.arange(6) < 3, reliability=None)
    scores = np.abs([one["score"] for one in found.values()])
    assert len(found) == 200
    assert (np.diff(scores) <= 0).all()


@given(st.lists(st.booleans(), min_size=2, max_size=70).filter(lambda one: 0 < sum(one) < len(one)))
def test_packed_bits_are_read_back(inside: list[bool]) -> None:
    body = np.packbits(inside, bitorder="little").tobytes()
    assert read_inside(body, len(inside)).tolist() == inside


@pytest.mark.parametrize(
    ("body", "message"),
    [(b"", "2 bytes"), (b"\1\0\0", "got 3"), (b"\0\0", "0 of 10"), (b"\xff\xff", "10 of 10")],
)
def test_invalid_bits_are_refused(body: bytes, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        read_inside(body, 10)
