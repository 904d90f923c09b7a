"""Genes of regions of the tissue against scipy, one gene at a time; and the regions against plain loops."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from cellweft._errors import GeneError, InputError, KeyMissingError, SettingError
from cellweft.data._pair import pair
from cellweft.data.synthetic.tissue import simulate_tissue
from cellweft.place.placement import Placement
from cellweft.place.placer import Placer
from cellweft.tl._dominant_genes import rank_sum_tests
from cellweft.tl._regional_genes import axis_bins, near_type, regional_genes, regions_of


@pytest.fixture(scope="module")
def placed() -> Placement:
    tissue = simulate_tissue(n_spatial=90, n_reference=70, n_genes=20, n_panel=12, seed=2)
    spots = tissue.st
    depth = spots.obsm["spatial"][:, 1]
    layer = pd.Series(np.where(depth > np.median(depth), "top", "base"), index=spots.obs_names, dtype=object)
    layer.iloc[5] = np.nan
    spots.obs["layer"] = layer
    spots.obs["slide"] = np.where(np.arange(90) % 2 == 0, "one", "two")
    both = pair(tissue.sc, spots, labels="cell_type", slices="slide")
    return Placer(settings={"steps": 5, "models": 1}, seed=0).fit(both).place()


def test_a_hand_computed_case() -> None:
    # ranks of the region are 3, 4 and 5 of 5: U = 12 - 6, all pairs won, standard deviation sqrt(6 * 6 / 12)
    values = np.array([[9.0], [7.0], [8.0], [1.0], [2.0]])
    groups = pd.Categorical(["in", "in", "in", "out", "out"])
    first = rank_sum_tests(lambda some: values[:, some], groups, np.array(["Gene"])).iloc[0]
    assert (first.segment, first.auc, first.difference) == ("in", 1.0, pytest.approx(6.5))
    assert first.statistic == pytest.approx((6 - 3 - 0.5) / np.sqrt(3))


def expected_rows(values: np.ndarray, groups: np.ndarray, region: str, reference: str | None) -> pd.DataFrame:
    """Return the tests of one region, one gene at a time."""
    inside = values[groups == region]
    outside = values[(groups != region) if reference is None else (groups == reference)]
    rows = []
    for gene in range(values.shape[1]):
        if np.ptp(np.concatenate([inside[:, gene], outside[:, gene]])) == 0:
            rows.append((0.5, 1.0, 0.0))
            continue
        u, p = scipy.stats.mannwhitneyu(inside[:, gene], outside[:, gene], method="asymptotic")
        rows.append((u / (len(inside) * len(outside)), p, inside[:, gene].mean() - outside[:, gene].mean()))
    table = pd.DataFrame(rows, columns=["auc", "p", "difference"])
    return table.assign(fdr=scipy.stats.false_discovery_control(table.p))


@pytest.mark.parametrize("reference", [None, "c"])
@pytest.mark.parametrize("of", ["cells", "spots"])
def test_equals_scipy_a_gene_at_a_time(placed: Placement, of: Any, reference: str | None) -> None:
    side = placed.pair.sc if of == "cells" else placed.pair.st
    groups = np.random.default_rng(0).choice(["a", "b", "c"], side.n_cells)
    table = regional_genes(placed, groups, of=of, reference=reference)
    values = side.dense(slice(0, side.n_cells)).astype(np.float64)
    regions = ["a", "b", "c"] if reference is None else ["a", "b"]
    assert len(table) == len(regions) * side.n_genes
    for region in regions:
        rows = table[table.region == region].set_index("gene").loc[side.genes]
        expected = expected_rows(values, groups, region, reference)
        for column in expected:
            np.testing.assert_allclose(rows[column], expected[column], rtol=1e-6, atol=1e-12)
        assert (rows.higher.to_numpy() == ((rows.fdr < 0.05) & (rows.auc > 0.5))).all()


def test_subsets_of_genes_and_cells_and_blocks(placed: Placement, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = np.random.default_rng(0).choice(["a", "b"], placed.pair.sc.n_cells)
    whole = regional_genes(placed, groups)
    names = placed.pair.sc.genes[[3, 17]].tolist()
    some = regional_genes(placed, groups, genes=names)
    for column in ("statistic", "difference", "p"):
        left = some.set_index(["region", "gene"])[column]
        np.testing.assert_allclose(left, whole.set_index(["region", "gene"])[column].loc[left.index])
    assert set(some.gene) == set(names)
    # only one type, such as hepatocytes in the liver
    kind = placed.pair.labels[0]
    of_type = np.flatnonzero(placed.pair.labels == kind)
    alone = regional_genes(placed, groups[of_type], cells=of_type)
    labelled = np.where(placed.pair.labels == kind, groups, None)
    pd.testing.assert_frame_equal(alone, regional_genes(placed, labelled))
    monkeypatch.setattr("cellweft.tl._regional_genes.BLOCK_VALUES", 64 * placed.pair.sc.n_cells)
    pd.testing.assert_frame_equal(regional_genes(placed, groups, memory="1 KB"), whole)


def naive_region(placed: Placement, cell: int, spots: list[int]) -> int:
    place, places = placed.coordinates()[cell], placed.pair.coordinates
    return min(spots, key=lambda spot: float(np.hypot(*(places[spot] - place))))


def test_regions_are_those_of_the_nearest_spots_of_the_slice(placed: Placement) -> None:
    found = regions_of(placed, "layer")
    layers, groups = placed.pair.st.obs["layer"].tolist(), list(placed.spot_groups.values())
    for cell in range(placed.pair.sc.n_cells):
        spots = groups[placed.slice_of_cells[cell]].tolist()
        expected = layers[naive_region(placed, cell, spots)]
        assert found[cell] == expected if isinstance(expected, str) else found[cell] is None
    known = np.array([one is not None for one in found])
    if len(set(found[known])) > 1:
        by_name = regional_genes(placed, "layer")
        pd.testing.assert_frame_equal(by_name, regional_genes(placed, found))
    spots = regional_genes(placed, "layer", of="spots")
    pd.testing.assert_frame_equal(spots, regional_genes(placed, placed.pair.st.obs["layer"], of="spots"))


def test_bins_of_an_axis() -> None:
    position = np.array([0.0, 4.9, 5.0, 10.0, np.nan, 7.0])
    assert list(axis_bins(position, 2))[:4] == ["bin 1", "bin 1", "bin 2", "bin 2"]
    assert axis_bins(position, 2).codes.tolist() == [0, 0, 1, 1, -1, 1]
    assert axis_bins(position, 2, by="cells").codes.tolist() == [0, 0, 0, 1, -1, 1]
    assert list(axis_bins(np.arange(20.0)).categories[[0, 9]]) == ["bin 01", "bin 10"]
    even = axis_bins(np.arange(100.0) ** 3, 7, by="cells")
    assert np.ptp(np.bincount(even.codes)) <= 1


@pytest.mark.parametrize("of", ["cells", "spots"])
@pytest.mark.parametrize("within", [None, 25.0])
def test_near_and_far_by_a_plain_loop(placed: Placement, of: Any, within: float | None) -> None:
    kind, types = placed.pair.labels[0], placed.pair.labels
    found = near_type(placed, kind, of=of, within=within)
    reach, places = placed.pair.spacing if within is None else within, placed.coordinates()
    slice_of_spot = {
        spot: number for number, spots in enumerate(placed.spot_groups.values()) for spot in spots
    }
    n = len(places) if of == "cells" else len(placed.pair.coordinates)
    for one in range(n):
        if of == "cells" and types[one] == kind:
            assert found[one] is None
            continue
        at = places[one] if of == "cells" else placed.pair.coordinates[one]
        number = placed.slice_of_cells[one] if of == "cells" else slice_of_spot[one]
        near = any(
            np.hypot(*(places[cell] - at)) <= reach
            for cell in range(len(places))
            if types[cell] == kind and placed.slice_of_cells[cell] == number
        )
        assert found[one] == ("near" if near else "far")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda one: regional_genes(np.ones((3, 2)), ["a"]),
            InputError,
            "placed: expected a Placement, got a ndarray. Place the cells first",
        ),
        (
            lambda one: regions_of("placed.h5ad", "layer"),
            InputError,
            "placed: expected a Placement, got 'placed.h5ad'",
        ),
        (lambda one: near_type(None, "x"), InputError, "placed: expected a Placement, got None"),
        (
            lambda one: regional_genes(one, ["a", "b"]),
            InputError,
            "regions: expected a column of obs of the spots, or a region for each of 70, got 2",
        ),
        (
            lambda one: regional_genes(one, ["a"] * 69 + ["b"]),
            InputError,
            r"regions: expected at least two regions with 2 or more cells, got 'a \(69\)', 'b \(1\)'",
        ),
        (lambda one: regional_genes(one, "layr"), KeyMissingError, r"regions='layr'.*Did you mean 'layer'"),
        (
            lambda one: regional_genes(one, ["a", "b"] * 35, of="cell"),
            SettingError,
            r"of: expected one of .* Did you mean 'cells'",
        ),
        (lambda one: regional_genes(one, ["a", "b"] * 35, genes=["Gene01", "nope"]), GeneError, "nope"),
        (lambda one: regional_genes(one, ["a", "b"] * 35, genes=[]), InputError, "genes: expected genes"),
        (
            lambda one: regional_genes(one, ["aa", "b"] * 35, reference="a"),
            SettingError,
            "reference: expected a region .* got 'a'. Did you mean 'aa'",
        ),
        (lambda one: regional_genes(one, ["a", "b"] * 35, fdr=2), SettingError, "fdr: expected a number"),
        (lambda one: near_type(one, "Type0"), SettingError, "cell_type: expected a type of the cells"),
        (lambda one: near_type(one, one.pair.labels[0], within=0), SettingError, "within: expected"),
        (lambda one: axis_bins(np.array(["a", "b"])), InputError, "position: expected one number per cell"),
        (lambda one: axis_bins(np.ones((2, 2))), InputError, "position: expected one number per cell"),
        (lambda one: axis_bins(np.ones(4)), InputError, "position: .* got 4 cells at the same position"),
        (lambda one: axis_bins(np.arange(4.0), 1), SettingError, "bins: expected a whole number from 2 to"),
        (
            lambda one: axis_bins(np.arange(4.0), 2, by="cell"),
            SettingError,
            "by: expected one of 'length', 'cells', got 'cell'. Did you mean 'cells'",
        ),
    ],
)
def test_wrong_arguments_are_refused(
    placed: Placement, call: Callable[[Any], Any], error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        call(placed)
