"""Reference cells as the platform of the tissue would have measured them."""

import anndata
import numpy as np
import pytest

from cellweft.data._pair import pair
from cellweft.impute.annotation import held_out_cells
from cellweft.impute.annotation.held_out_cells import as_measured, draw_cells, platform_spread, share_weights

EVERY = np.arange(200)
CODES = np.repeat([0, 1], 100)


def made(sc_depth: float, st_depth: float, factor: float = 1.0) -> tuple[anndata.AnnData, anndata.AnnData]:
    """Make two types of 12 genes on both sides; the tissue detects the first gene `factor` times as well."""
    draw = np.random.default_rng(0)
    rates = np.where(np.arange(12) < 6, [[4.0], [1.0]], [[1.0], [4.0]])
    rates /= rates.sum(axis=1, keepdims=True)
    there = rates * np.where(np.arange(12) == 0, factor, 1)
    sides = []
    for depth, one in ((sc_depth, rates), (st_depth, there)):
        counts = draw.poisson(depth * one[CODES]).astype(np.float32)
        counts[:, 0] += counts.sum(axis=1) == 0
        sides.append(anndata.AnnData(counts))
        sides[-1].var_names = [f"Gene{number:02d}" for number in range(12)]
    sides[1].obs_names = [f"spot{number}" for number in range(200)]
    sides[1].obsm["spatial"] = draw.random((200, 2)) * 100
    return sides[0], sides[1]


@pytest.mark.parametrize(("sc_depth", "st_depth"), [(400, 60), (40, 200)])
def test_depth_and_levels_match_the_tissue(sc_depth: float, st_depth: float) -> None:
    data = pair(*made(sc_depth, st_depth, factor=5.0))
    weights = share_weights(CODES, np.array([0.5, 0.5]))
    found = as_measured(data, EVERY, CODES, weights=weights, depth=1.0, seed=0)
    assert found.dtype == np.float32
    measured = data.st.dense(slice(0, 200), data.st_shared)
    np.testing.assert_allclose(
        np.expm1(found).mean(axis=0), np.expm1(measured).mean(axis=0), rtol=0.15, atol=0.3
    )
    np.testing.assert_allclose((found > 0).sum(axis=1).mean(), (measured > 0).sum(axis=1).mean(), rtol=0.1)
    again = as_measured(data, EVERY, CODES, weights=weights, depth=1.0, seed=0)
    np.testing.assert_array_equal(again, found)


def test_a_smaller_depth_detects_fewer_genes_at_the_same_level() -> None:
    data = pair(*made(400, 60))
    weights = share_weights(CODES, np.array([0.5, 0.5]))
    deep, flat = (
        as_measured(data, EVERY, CODES, weights=weights, depth=depth, seed=0) for depth in (1.0, 0.1)
    )
    assert (flat > 0).mean() < 0.6 * (deep > 0).mean()
    np.testing.assert_allclose(np.expm1(flat).mean(), np.expm1(deep).mean(), rtol=0.1)


def test_without_counts_of_the_tissue_values_are_unchanged() -> None:
    sc, st = made(400, 60)
    st.X = np.log1p(st.X / st.X.sum(axis=1, keepdims=True) * 50)
    data = pair(sc, st, st_scale="log")
    found = as_measured(data, EVERY, CODES, weights=np.full(200, 1 / 200), depth=1.0, seed=0)
    np.testing.assert_array_equal(found, data.sc.dense(EVERY, data.sc_shared))


def test_rare_labels_are_drawn_too(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.repeat([0, 1, -1], [980, 12, 8])
    usable = np.flatnonzero(codes >= 0)
    np.testing.assert_array_equal(draw_cells(codes, usable, seed=0), usable)
    monkeypatch.setattr(held_out_cells, "MOST_CELLS", 100)
    drawn = draw_cells(codes, usable, seed=0)
    assert len(np.unique(drawn)) == len(drawn) == 100
    assert (codes[drawn] == 1).sum() == 12
    np.testing.assert_array_equal(draw_cells(codes, usable, seed=0), drawn)


def test_weights_give_labels_their_proportions() -> None:
    weights = share_weights(np.array([0, 0, 0, 1]), np.array([0.25, 0.75]))
    np.testing.assert_allclose(weights, [1 / 12, 1 / 12, 1 / 12, 0.75])


def test_the_spread_of_platforms_by_hand() -> None:
    """In the tissue six of the twelve genes are four times as high."""
    sc, st = made(4000, 4000)
    tissue = st.X.copy()
    shares = np.array([0.5, 0.5])
    assert platform_spread(pair(sc, st), EVERY, CODES, shares=shares, seed=0) < 0.05
    tissue[:, ::2] *= 4
    st.X = tissue
    data = pair(sc, st)
    levels = [one / one.sum(axis=1, keepdims=True) for one in (sc.X.astype(float), tissue.astype(float))]
    factors = np.log(levels[1].mean(axis=0) / levels[0].mean(axis=0))
    expected = 1.4826 * np.median(np.abs(factors - np.median(factors)))
    found = platform_spread(data, EVERY, CODES, shares=shares, seed=0)
    assert found == pytest.approx(expected, rel=1e-5)
    assert found == pytest.approx(1.4826 * np.log(4) / 2, rel=0.05)


def test_another_composition_is_not_a_platform_effect() -> None:
    sc, st = made(4000, 4000)
    few = st[np.r_[0:20, 100:200]].copy()
    data = pair(sc, few)
    found = platform_spread(data, EVERY, CODES, shares=np.array([1 / 6, 5 / 6]), seed=0)
    assert found < 0.1 < platform_spread(data, EVERY, CODES, shares=np.array([0.5, 0.5]), seed=0)
