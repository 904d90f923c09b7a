"""One pass finds what the values are."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft.data import expression_scale
from cellweft.data.expression_scale import Scan, judge_scale, scan_values
from cellweft.data.io.backed_matrix import open_rows

COUNTS = np.random.default_rng(0).negative_binomial(1, 0.4, (300, 40)).astype(np.float64)
COUNTS[:, 0] += 1
NORMALISED = COUNTS / COUNTS.sum(axis=1, keepdims=True) * 1e4


def scan(values: Any, **more: Any) -> Scan:
    return scan_values(open_rows(values), **more)


def test_hand_sized_scan() -> None:
    found = scan(np.array([[0.0, 2.0, 0.5], [-1.0, 0.0, np.nan], [0.0, 0.0, 0.0]]), panel=np.array([1]))
    np.testing.assert_array_equal(found.totals, [2.5, -1.0, 0.0])
    np.testing.assert_array_equal(found.panel_totals, [2.0, 0.0, 0.0])
    np.testing.assert_array_equal(found.gene_cells, [1, 1, 1])
    assert (found.n_values, found.n_fractional, found.n_negative, found.n_missing) == (3, 1, 1, 1)
    assert (found.missing_at, found.smallest, found.largest) == ((1, 2), -1.0, 2.0)
    assert found.sparsity == pytest.approx(6 / 9)


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix])
@settings(max_examples=15, deadline=None)
@given(block=st.integers(1, 10**5), seed=st.integers(0, 5))
def test_scan_does_not_depend_on_blocks_or_storage(kind: Any, block: int, seed: int) -> None:
    values = np.random.default_rng(seed).poisson(0.5, (23, 4)) * 0.5
    values[7, 2] = np.inf
    old, expression_scale.READ_BYTES = expression_scale.READ_BYTES, block
    try:
        found = scan(kind(values), columns=np.array([2, 0]), panel=np.array([1]))
    finally:
        expression_scale.READ_BYTES = old
    kept = np.where(np.isfinite(values), values, 0)[:, [2, 0]]
    np.testing.assert_allclose(found.totals, kept.sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.panel_totals, kept[:, 1], rtol=1e-12)
    np.testing.assert_array_equal(found.gene_cells, (kept != 0).sum(axis=0))
    assert found.missing_at == (7, 0)
    assert found.n_fractional == (kept != np.rint(kept)).sum()
    assert (found.smallest, found.largest) == (kept.min(), kept.max())


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (COUNTS, "raw"),
        (NORMALISED, "normalised"),
        (NORMALISED / 1e4, "normalised"),
        (np.log1p(NORMALISED), "log"),
        (np.log1p(NORMALISED / 100), "log"),
        (np.log2(1 + NORMALISED), "log"),
        (COUNTS - 1, None),
        ((COUNTS - COUNTS.mean(axis=0)) / COUNTS.std(axis=0), None),
    ],
    ids=["counts", "ten thousand", "proportions", "log1p", "small log1p", "log2", "negative", "z-scored"],
)
def test_scales_are_told_apart(values: Any, expected: str | None, kind: Any) -> None:
    assert judge_scale(scan(kind(values))) == expected


def test_a_cell_without_whole_numbers_leaves_counts_raw() -> None:
    values = COUNTS.copy()
    values[3] += 0.37
    assert judge_scale(scan(values)) == "raw"
    values[:30] += 0.37
    assert judge_scale(scan(values)) != "raw"


def test_real_volume_normalised_counts_are_no_logarithms(shared_data: Any) -> None:
    import anndata

    data = anndata.read_h5ad(shared_data / "hypo_merfish_animal1_bregma-0.29_st.h5ad")
    assert judge_scale(scan(data.X)) == "raw"
    assert judge_scale(scan(data.layers["volume_normalised"])) == "normalised"
    assert judge_scale(scan(data.layers["volume_normalised"] / 20)) == "normalised"
    assert judge_scale(scan(data.layers["volume_normalised"].log1p())) == "log"
