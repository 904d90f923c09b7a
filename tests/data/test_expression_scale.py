"""The scale of values is found in a single pass."""

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft.data import expression_scale
from cellweft.data.expression_scale import Scan, judge_scale, open_undone, scan_values
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


def judged(values: Any) -> str:
    return judge_scale(open_rows(values)).scale


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (COUNTS, "raw"),
        (NORMALISED, "normalised"),
        (NORMALISED / 1e4, "normalised"),
        (np.log1p(NORMALISED), "log"),
        (np.log1p(NORMALISED / 100), "log"),
        (np.log2(1 + NORMALISED), "log2"),
        (np.log2(1 + 100 * NORMALISED), "log2"),
        (np.log10(1 + NORMALISED), "log10"),
        (np.sqrt(NORMALISED), "sqrt"),
        (np.log1p(COUNTS), "log_raw"),
        (np.log2(1 + COUNTS), "log2_raw"),
        (np.log10(1 + COUNTS), "log10_raw"),
        (np.sqrt(COUNTS), "sqrt_raw"),
        (np.arcsinh(COUNTS), "arcsinh_raw"),
        (np.arcsinh(COUNTS / 5), "arcsinh"),
        (np.arcsinh(NORMALISED), "arcsinh"),
        (np.arcsinh(NORMALISED / 100), "arcsinh"),
        (np.log1p(COUNTS).round(3), "log_raw"),
        (np.log1p(COUNTS).astype(np.float16), "log_raw"),
        (COUNTS - 1, "raw"),
    ],
    ids=[
        "counts", "ten thousand", "proportions", "log1p", "small log1p", "log2", "log2 of a million", "log10",
        "root", "log1p of counts", "log2 of counts", "log10 of counts", "root of counts", "arcsinh of counts",
        "arcsinh of a fifth of counts", "arcsinh", "small arcsinh", "three decimals", "half precision",
        "negative",
    ],
)  # fmt: skip
def test_scales_are_distinguished(values: Any, expected: str, kind: Any) -> None:
    kinds = {np.dtype("float16"): np.float32}  # scipy has no sparse matrix of half precision
    assert judged(kind(values.astype(kinds.get(values.dtype, values.dtype)))) == expected


@pytest.mark.parametrize("size", [1e4, 1e6])
@pytest.mark.parametrize(("base", "name"), [(np.e, "log"), (2, "log2"), (10, "log10")])
def test_logarithms_of_fractional_values_are_recognised_by_equal_sums(
    base: float, name: str, size: float
) -> None:
    # like counts divided by gene lengths
    values = COUNTS * np.random.default_rng(1).uniform(0.2, 5, COUNTS.shape)
    values *= size / values.sum(axis=1, keepdims=True)
    assert judged(values) == "normalised"
    assert judged(np.log1p(values) / np.log(base)) == name


def taken_off(counts: Any) -> Any:
    """Counts minus expected contamination, as SoupX returns them."""
    expected = 0.1 * counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    return np.maximum(counts - expected, 0)


def shared_out(counts: Any) -> Any:
    """Expected counts: some reads or molecules are assigned to the gene with a probability below 1."""
    draws = np.random.default_rng(3)
    return draws.binomial(counts.astype(int), 0.8) + (counts > 0) * (draws.random(counts.shape) < 0.4) * (
        draws.random(counts.shape)
    )


def much_taken_off(counts: Any) -> Any:
    """Counts reduced by up to 90%, so that hardly any value is close to a whole number."""
    return counts * np.random.default_rng(4).uniform(0.1, 1, counts.shape)


@pytest.mark.parametrize("change", [taken_off, shared_out, much_taken_off])
@pytest.mark.parametrize("most", [3, 60])
def test_fractional_counts_are_not_taken_for_normalised_values(change: Any, most: int) -> None:
    draws = np.random.default_rng(2)
    counts = draws.poisson(draws.gamma(0.4, most / 2, (1, 80)) * draws.uniform(0.3, 2, (300, 1))).astype(
        float
    )
    assert judged(change(counts)) == "raw"


def test_logarithms_of_strongly_corrected_counts_are_recognised() -> None:
    for size in (1e4, 1e6):
        counts = much_taken_off(COUNTS)
        logs = np.log1p(counts / COUNTS.sum(axis=1, keepdims=True) * size)
        assert judged(logs) == "log"


def test_values_without_evidence_of_their_scale_give_a_guess() -> None:
    draws = np.random.default_rng(0)
    for largest, expected in ((8, "log"), (20, "log2"), (500, "raw")):
        found = judge_scale(open_rows(draws.uniform(0, largest, (300, 10)) ** 1.3 * largest**-0.3))
        assert (found.scale, found.is_sure) == (expected, False)


@pytest.mark.parametrize(
    "values",
    [
        np.expm1(np.log1p(COUNTS).astype(np.float32)),
        np.expm1(np.log1p(COUNTS.astype(np.float32) * 40)),
        (COUNTS * (1 + 1e-7 * np.random.default_rng(0).standard_normal(COUNTS.shape))),
        np.square(np.sqrt(COUNTS.astype(np.float32))),
    ],
)
def test_counts_with_rounding_errors_are_counts(values: np.ndarray) -> None:
    """Rounding errors made them look like square roots of counts."""
    assert np.mean(values != np.rint(values)) > 0.01
    assert judged(values) == "raw"
    assert scan(values).n_fractional == 0


def test_a_cell_without_whole_numbers_does_not_change_the_scale_of_counts() -> None:
    values = COUNTS.copy()
    values[3] += 0.37
    assert judged(values) == "raw"
    values[:30] += 0.37
    assert judged(values) == "raw"
    values += 0.37
    assert judged(values) != "raw"


def test_cells_from_all_parts_of_a_matrix_are_examined() -> None:
    logs = np.log1p(NORMALISED)
    assert judged(np.vstack([np.zeros((5000, 40)), logs, np.zeros((5000, 40)), logs])) == "log"


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix])
@pytest.mark.parametrize(
    ("scale", "stored"),
    [
        ("log_raw", np.log1p),
        ("log2_raw", lambda x: np.log2(x + 1)),
        ("log10_raw", lambda x: np.log10(x + 1)),
        ("sqrt_raw", np.sqrt),
        ("arcsinh_raw", np.arcsinh),
    ],
)
def test_counts_are_recovered_exactly(scale: Any, stored: Any, kind: Any) -> None:
    counts = COUNTS.copy()
    counts[0, :3] = 1000, 20_000, 65_535
    rows = open_undone(open_rows(kind(stored(counts).astype(np.float32))), scale)
    block = rows.read(np.array([0, 7, 3]), np.array([2, 0, 5]))
    assert block.dtype == np.float32
    np.testing.assert_array_equal(
        block.toarray() if sp.issparse(block) else block, counts[[0, 7, 3]][:, [2, 0, 5]]
    )


def test_logarithms_of_other_bases_become_natural_logarithms() -> None:
    for scale, stored in (("log2", np.log2), ("log10", np.log10)):
        rows = open_undone(open_rows(stored(1 + NORMALISED)), scale)  # type: ignore[arg-type]
        np.testing.assert_allclose(rows.read(slice(2, 9)), np.log1p(NORMALISED[2:9]), rtol=1e-6)  # float32
    rows = open_undone(open_rows(np.sqrt(NORMALISED)), "sqrt")
    np.testing.assert_allclose(rows.read(slice(2, 9)), NORMALISED[2:9], rtol=1e-6)
    rows = open_undone(open_rows(np.arcsinh(NORMALISED)), "arcsinh")
    np.testing.assert_allclose(rows.read(slice(2, 9)), NORMALISED[2:9], rtol=1e-5)


def test_real_volume_normalised_counts_are_not_logarithms(shared_data: Any) -> None:
    import anndata

    data = anndata.read_h5ad(shared_data / "hypo_merfish_animal1_bregma-0.29_st.h5ad")
    assert judged(data.X) == "raw"
    assert judged(data.layers["volume_normalised"]) == "normalised"
    assert judged(data.layers["volume_normalised"] / 20) == "normalised"
    assert judged(data.layers["volume_normalised"].log1p()) == "log"


def test_real_logarithms_are_distinguished(shared_data: Any) -> None:
    import anndata

    for name in ("osmfish_ref_allen_ssp_sc33", "hypo_ref_10x_sc134", "visp_starmap1020_st"):
        counts = sp.csr_matrix(anndata.read_h5ad(shared_data / f"{name}.h5ad").X).astype(np.float64)
        # sums are unequal because the panel is only a part of all genes
        sizes = np.random.default_rng(0).uniform(5, 10, counts.shape[0])
        sizes *= np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1)
        millions = sp.csr_matrix(sp.diags(1e6 / sizes) @ counts)
        assert judged(counts.log1p()) == "log_raw"
        assert judged(millions.log1p()) == "log"
        assert judged(millions.log1p() / np.log(2)) == "log2"
        assert judged(millions.log1p() / np.log(10)) == "log10"


@pytest.mark.parametrize("share", [0.02, 0.05, 0.3])
def test_expected_counts_are_not_logarithms_of_base_2(share: float) -> None:
    rng = np.random.default_rng(0)
    counts = rng.negative_binomial(0.7, 0.1, (300, 60)).astype(float)
    shared_out = (counts > 3) & (rng.random(counts.shape) < share)
    expected = np.where(shared_out, counts + rng.random(counts.shape), counts)
    assert judge_scale(open_rows(expected.astype(np.float32))).scale == "raw"
    assert judge_scale(open_rows(np.log2(counts + 1).astype(np.float32))).scale == "log2_raw"
    assert judge_scale(open_rows(np.sqrt(counts).astype(np.float32))).scale == "sqrt_raw"
    rare = rng.poisson(0.3, (300, 60))  # nearly all values are 1, or the logarithm of 3
    assert judge_scale(open_rows(np.log2(rare + 1.0).astype(np.float32))).scale == "log2_raw"


def test_values_that_are_not_multiples_are_recognised() -> None:
    rng = np.random.default_rng(3)
    for form in (np.asarray, np.log1p, lambda values: np.log2(values + 1)):
        assert judge_scale(open_rows(form(NORMALISED))).are_multiples
    # smoothed over cells; logarithms are taken below
    near = NORMALISED[rng.integers(300, size=(300, 6))].mean(axis=1)
    by_length = COUNTS / rng.uniform(0.5, 5, 40)
    for values in (near, by_length / by_length.sum(axis=1, keepdims=True) * 1e6):
        found = judge_scale(open_rows(np.log1p(values)))
        assert (found.scale, found.is_sure, found.are_multiples) == ("log", True, False)


def test_counts_divided_by_cell_volume_are_normalised() -> None:
    volumes = np.random.default_rng(4).uniform(100, 900, (300, 1))
    found = judge_scale(open_rows(COUNTS / volumes))
    assert (found.scale, found.is_sure) == ("normalised", True)


def test_values_scaled_by_gene_are_a_guess() -> None:
    few = np.random.default_rng(5).poisson(1.0, (300, 40)).astype(np.float64)
    for values in (few, np.log1p(few / few.sum(axis=1, keepdims=True) * 1e4)):
        assert not judge_scale(open_rows(values / values.max(axis=0))).is_sure


def test_noisy_counts_are_not_square_roots() -> None:
    rng = np.random.default_rng(6)
    for error in (1e-4, 1e-3):
        noisy = np.where(COUNTS > 0, COUNTS + rng.normal(0, error, COUNTS.shape), 0)
        assert judged(np.maximum(noisy, 0)) == "raw"
    assert judged(np.sqrt(COUNTS)) == "sqrt_raw"


def test_whole_values_without_ones_are_recognised() -> None:
    sparse = np.random.default_rng(7).poisson(0.7, (300, 40)).astype(np.float64)
    assert judge_scale(open_rows(sparse)).has_ones
    logs = np.log1p(sparse / np.maximum(sparse.sum(axis=1, keepdims=True), 1) * 1e4)
    for values in (2 * sparse, np.rint(logs)):
        assert not judge_scale(open_rows(values)).has_ones
    assert judge_scale(open_rows(sparse + 2)).has_ones  # without zeros these may well be counts


def test_mixed_scales_and_sums_are_recognised() -> None:
    first, second = NORMALISED[:150], NORMALISED[150:]
    mixed = judge_scale(open_rows(np.concatenate([100 * first, np.log1p(second)])))
    assert (mixed.others, mixed.beside) == ("log", "normalised")
    for form, scale in ((np.asarray, "normalised"), (np.log1p, "log")):
        found = judge_scale(open_rows(np.concatenate([form(first), form(100 * second)])))
        assert found.scale == scale
        assert found.sums == pytest.approx((1e4, 1e6))
        assert found.others is None
        assert judge_scale(open_rows(form(NORMALISED))).sums == ()
    volumes = np.random.default_rng(8).uniform(100, 900, (300, 1))
    assert judge_scale(open_rows(COUNTS / volumes * 1e4)).sums == ()
