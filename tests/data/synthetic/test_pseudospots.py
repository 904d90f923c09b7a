"""Semi-simulation: spots against a naive loop, the cells in spots, noise, and errors."""

import math
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from cellweft._errors import InputError, KeyMissingError, ScaleError, SettingError
from cellweft.data._pair import pair
from cellweft.data.synthetic import pseudospots
from cellweft.data.synthetic.pseudospots import RESOLUTIONS, add_noise, pseudo_spots

# float32 sums of logarithms
TOLERANCE = 1e-5


def tissue(n_cells: int = 300, *, seed: int = 0, extent: float = 100.0) -> ad.AnnData:
    """Cells of three types at random positions, with Poisson counts of five genes."""
    stream = np.random.default_rng(seed)
    cells = ad.AnnData(
        sp.csr_matrix(stream.poisson(2.0, (n_cells, 5)).astype(np.float32)),
        obs=pd.DataFrame(index=pd.Index([f"cell{number}" for number in range(n_cells)])),
        var=pd.DataFrame({"length": np.arange(5)}, index=pd.Index(list("abcde"))),
        obsm={"spatial": stream.uniform(0, extent, (n_cells, 2))},
    )
    cells.obs["cell_type"] = stream.choice(["A", "B", "C/D"], n_cells)
    cells.layers["twice"] = 2 * cells.X
    return cells


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    return tissue()


def test_a_hand_computed_case() -> None:
    # spots at the four corners; cell 1 is in none, cell 5 in both on the right, cell 2 alone in one
    places = np.array([[0.0, 0.0], [5.0, 4.0], [0.0, 8.0], [9.0, 1.0], [10.0, 0.0], [10.0, 4.0]])
    made = ad.AnnData(np.diag(np.arange(1.0, 7.0)).astype(np.float32), obsm={"spatial": places})
    made.obs["cell_type"] = list("AABABA")
    found = pseudo_spots(made, grid=(2, 2), radius=4, caught=1, min_cells=1)
    assert found.spots.obsm["spatial"].tolist() == [[0.0, 0.0], [10.0, 0.0], [0.0, 8.0], [10.0, 8.0]]
    fewer = pseudo_spots(made, grid=(2, 2), radius=4, caught=1, min_cells=2)
    assert fewer.spots.obsm["spatial"].tolist() == [[10.0, 0.0]]
    np.testing.assert_array_equal(
        found.spots.X.toarray(),
        [[1, 0, 0, 0, 0, 0], [0, 0, 0, 4, 5, 6], [0, 0, 3, 0, 0, 0], [0, 0, 0, 0, 0, 6]],
    )
    assert found.spots.obs["n_cells"].tolist() == [1, 3, 1, 1]
    np.testing.assert_allclose(found.spots.obsm["composition"]["A"], [1, 2 / 3, 0, 1])
    assert found.cells.obs["caught"].tolist() == [True, False, True, True, True, True]
    assert fewer.cells.obs["caught"].tolist() == [False, False, False, True, True, True]
    np.testing.assert_array_equal(found.cells.obsm["spatial_true"], places)


def naive(
    cells: ad.AnnData, caught: np.ndarray, middles: np.ndarray, radius: float
) -> list[tuple[list, dict, int]]:
    """Return the sums and the proportions of types of the cells around each centre, one cell at a time."""
    counts, found = cells.X.toarray(), []
    for middle in middles:
        inside = [
            number
            for number, place in enumerate(cells.obsm["spatial"])
            if caught[number] and math.dist(place, middle) <= radius
        ]
        types = list(cells.obs["cell_type"].iloc[inside])
        shares = {kind: types.count(kind) / len(types) for kind in set(types)}
        found.append((counts[inside].sum(axis=0).tolist(), shares, len(inside)))
    return found


@settings(max_examples=15, deadline=None)
@given(
    spacing=st.floats(8, 40),
    wide=st.floats(0.3, 1.5),
    caught=st.floats(0.2, 1),
    min_cells=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_spots_equal_a_naive_loop(
    spacing: float, wide: float, caught: float, min_cells: int, seed: int
) -> None:
    cells = tissue(120, seed=seed)
    try:
        made = pseudo_spots(
            cells, spacing=spacing, radius=wide * spacing, caught=caught, min_cells=min_cells, seed=seed
        )
    except InputError:
        return
    order = pseudospots.numpy_stream(seed, "caught cells").permutation(120)
    drawn = np.isin(np.arange(120), order[: round(caught * 120)])
    low, high = (getattr(cells.obsm["spatial"], side)(axis=0) for side in ("min", "max"))
    numbers = np.floor((high - low) / spacing).astype(int) + 1
    starts = (low + high - (numbers - 1) * spacing) / 2
    grid = np.array(
        [
            (starts[0] + spacing * x, starts[1] + spacing * y)
            for y in range(numbers[1])
            for x in range(numbers[0])
        ]
    )
    expected = naive(cells, drawn, grid, wide * spacing)
    kept = [number for number, one in enumerate(expected) if one[2] >= min_cells]
    np.testing.assert_allclose(made.spots.obsm["spatial"], grid[kept])
    assert made.spots.obs["n_cells"].tolist() == [expected[number][2] for number in kept]
    assert made.spots.X.toarray().tolist() == [expected[number][0] for number in kept]
    table = made.spots.obsm["composition"]
    np.testing.assert_allclose(table.sum(axis=1), 1)
    for row, number in enumerate(kept):
        assert {kind: share for kind, share in table.iloc[row].items() if share} == pytest.approx(
            expected[number][1]
        )
    inside = [
        drawn[n] and (np.hypot(*(grid[kept] - p).T) <= wide * spacing).any()
        for n, p in enumerate(cells.obsm["spatial"])
    ]
    assert made.cells.obs["caught"].tolist() == inside


def test_boxes_of_a_hand_computed_case() -> None:
    # a grid of 10 x 8, boxes of half of the step: 2.5 along the first axis and 2 along the second
    places = np.array([[0.0, 0.0], [2.5, 2.0], [2.6, 0.0], [0.0, 2.1], [10.0, 8.0], [7.5, 6.0], [5.0, 4.0]])
    made = ad.AnnData(np.diag(np.arange(1.0, 8.0)).astype(np.float32), obsm={"spatial": places})
    made.obs["cell_type"] = list("AABBABA")
    found = pseudo_spots(made, grid=(2, 2), shape="boxes", width=0.5, min_cells=1)
    assert found.spots.obsm["spatial"].tolist() == [[0.0, 0.0], [10.0, 8.0]]
    np.testing.assert_array_equal(found.spots.X.toarray(), [[1, 2, 0, 0, 0, 0, 0], [0, 0, 0, 0, 5, 6, 0]])
    assert found.spots.obsm["composition"].to_numpy().tolist() == [[1, 0], [0.5, 0.5]]
    assert found.cells.obs["caught"].tolist() == [True, True, False, False, True, True, False]
    assert found.parameters == {
        "shape": "boxes",
        "spacing": [10.0, 8.0],
        "width": 0.5,
        "caught": 1.0,
        "min_cells": 1,
        "seed": 0,
    }


@pytest.mark.parametrize(("width", "caught", "seed"), [(0.55, None, 0), (0.2, 0.7, 3), (1.0, 1.0, 5)])
def test_boxes_equal_a_naive_loop(width: float, caught: float | None, seed: int) -> None:
    cells = tissue(200, seed=seed)
    made = pseudo_spots(cells, grid=(7, 5), shape="boxes", width=width, caught=caught, min_cells=1, seed=seed)
    order = pseudospots.numpy_stream(seed, "caught cells").permutation(200)
    drawn = np.isin(np.arange(200), order[: round((caught or 1.0) * 200)])
    places, counts = cells.obsm["spatial"], cells.X.toarray()
    low, high = places.min(axis=0), places.max(axis=0)
    sides = width * (high - low) / [6, 4]
    seen = np.zeros(200, dtype=bool)
    expected = []
    for y in np.linspace(low[1], high[1], 5):
        for x in np.linspace(low[0], high[0], 7):
            inside = [
                cell
                for cell in range(200)
                if drawn[cell]
                and abs(places[cell, 0] - x) <= sides[0] / 2 * (1 + 1e-9)
                and abs(places[cell, 1] - y) <= sides[1] / 2 * (1 + 1e-9)
            ]
            if inside:
                seen[inside] = True
                expected.append(((x, y), counts[inside].sum(axis=0)))
    np.testing.assert_allclose(made.spots.obsm["spatial"], [place for place, _ in expected])
    np.testing.assert_array_equal(made.spots.X.toarray(), [total for _, total in expected])
    assert made.cells.obs["caught"].tolist() == seen.tolist()


def test_pseudo_spots_and_their_cells_make_a_pair(cells: ad.AnnData) -> None:
    made = pseudo_spots(cells, spacing=15)
    both = pair(made.cells, made.spots)
    assert both.st.scale == "raw"
    assert both.spacing == pytest.approx(15)
    assert sp.issparse(made.spots.X)
    assert made.spots.X.dtype == np.float32
    assert made.spots.var["length"].tolist() == [0, 1, 2, 3, 4]
    assert made.spots.obs["n_cells"].min() >= 3
    assert list(made.spots.obsm["composition"].columns) == ["A", "B", "C/D"]
    assert made.spots.obsm["composition"].index.equals(made.spots.obs_names)
    assert made.cells.obs["caught"].dtype == bool
    assert 0 < made.cells.obs["caught"].mean() <= 0.6
    np.testing.assert_array_equal(made.cells.X.toarray(), cells.X.toarray())


def test_by_default_no_cell_is_in_two_spots_and_inputs_are_unchanged(cells: ad.AnnData) -> None:
    before = cells.copy()
    for setting in ({"spacing": 20}, {"grid": (4, 9)}):
        made = pseudo_spots(cells, caught=1, min_cells=1, **setting)
        assert made.spots.obs["n_cells"].sum() == made.cells.obs["caught"].sum()
        assert made.spots.X.sum() == cells.X[made.cells.obs["caught"].to_numpy()].sum()
    assert list(cells.obs) == list(before.obs)
    assert set(cells.obsm) == {"spatial"}
    made.cells.obsm["spatial_true"][:] = 0
    np.testing.assert_array_equal(cells.obsm["spatial"], before.obsm["spatial"])


def test_a_grid_extends_from_edge_to_edge(cells: ad.AnnData) -> None:
    made = pseudo_spots(cells, grid=(3, 5), radius=30, caught=1, min_cells=1)
    assert made.spots.n_obs == 15
    for axis in (0, 1):
        ends = made.spots.obsm["spatial"][:, axis]
        assert np.unique(ends).size == (3, 5)[axis]
        assert (ends.min(), ends.max()) == pytest.approx(
            (cells.obsm["spatial"][:, axis].min(), cells.obsm["spatial"][:, axis].max())
        )


def test_cells_on_a_line_give_one_row_of_spots() -> None:
    line = tissue(50)
    line.obsm["spatial"][:, 1] = 7
    for setting in ({"grid": (5, 4)}, {"spacing": 24}):
        made = pseudo_spots(line, caught=1, min_cells=1, **setting)
        assert set(made.spots.obsm["spatial"][:, 1]) == {7}
        assert made.spots.n_obs == 5


@pytest.mark.parametrize("caught", [0.5, 0.7, 1.0])
def test_the_share_of_cells_in_spots(caught: float) -> None:
    made = pseudo_spots(tissue(1000), spacing=5, radius=5, caught=caught, min_cells=1)
    # circles of this radius overlap and cover everything except at the edge
    assert made.cells.obs["caught"].mean() == pytest.approx(caught, abs=0.03)


def test_the_seed_determines_the_drawn_cells(cells: ad.AnnData) -> None:
    one, again, other = (pseudo_spots(cells, spacing=20, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.spots.X.toarray(), again.spots.X.toarray())
    assert (one.cells.obs["caught"] != other.cells.obs["caught"]).any()


def test_dense_backed_views_and_blocks_give_the_same(
    cells: ad.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = pseudo_spots(cells, spacing=20)
    dense = cells.copy()
    dense.X = cells.X.toarray()
    cells.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    monkeypatch.setattr(pseudospots, "READ_BYTES", 500)
    for kind in (dense, cells[np.arange(300)], backed, backed[np.arange(300)]):
        made = pseudo_spots(kind, spacing=20)
        np.testing.assert_array_equal(made.spots.X.toarray(), expected.spots.X.toarray())
        pd.testing.assert_frame_equal(made.spots.obsm["composition"], expected.spots.obsm["composition"])
        assert not made.cells.isbacked


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({}, SettingError, "spacing: expected either a spacing or a grid, got neither"),
        (
            {"spacing": 9, "grid": (2, 2)},
            SettingError,
            "spacing: expected either a spacing or a grid, got both",
        ),
        ({"spacing": 0}, SettingError, "spacing: expected a number"),
        ({"spacing": 1e-9}, SettingError, "spacing: expected a grid of at most 100,000,000 points"),
        ({"grid": (1, 5)}, SettingError, "grid: expected a whole number >= 2"),
        ({"grid": 30}, SettingError, "grid: expected numbers of grid points along the two axes"),
        ({"spacing": 9, "radius": 0}, SettingError, "radius: expected a number"),
        (
            {"spacing": 9, "shape": "box"},
            SettingError,
            "shape: expected one of 'discs', 'boxes', got 'box'. Did you mean 'boxes'",
        ),
        (
            {"spacing": 9, "shape": "boxes", "width": 0},
            SettingError,
            "width: expected a number from 1e-09 to 1",
        ),
        (
            {"spacing": 9, "shape": "boxes", "radius": 3},
            SettingError,
            "radius: expected no radius with boxes, which have a width, got 3",
        ),
        ({"spacing": 9, "caught": 0}, SettingError, "caught: expected a share above 0"),
        ({"spacing": 9, "caught": 1.2}, SettingError, "caught: expected a number from 0 to 1"),
        ({"spacing": 9, "min_cells": 0}, SettingError, "min_cells: expected a whole number >= 1"),
        ({"spacing": 9, "seed": -1}, SettingError, "seed: expected a whole number >= 0"),
        (
            {"spacing": 9, "radius": 1e-6},
            InputError,
            "spots: expected at least one spot with 3 or more captured cells, got none of",
        ),
        ({"spacing": 9, "labels": "typ"}, KeyMissingError, "labels='typ': expected a column of obs of cells"),
        ({"spacing": 9, "coordinates": "obsm:x"}, KeyMissingError, "coordinates='obsm:x'"),
        (
            {"spacing": 9, "coordinates": "none"},
            InputError,
            "expected coordinates in two dimensions, got none",
        ),
    ],
)
def test_bad_settings(cells: ad.AnnData, changes: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        pseudo_spots(cells, **changes)


def test_bad_cells(cells: ad.AnnData) -> None:
    bare = cells.copy()
    del bare.obsm["spatial"]
    with pytest.raises(KeyMissingError, match="cells: expected coordinates of the cells"):
        pseudo_spots(bare, spacing=9)
    bare = cells.copy()
    del bare.obs["cell_type"]
    with pytest.raises(KeyMissingError, match=r"cells\.obs: expected a column with cell types"):
        pseudo_spots(bare, spacing=9)
    bare = cells.copy()
    bare.obsm["spatial"] = np.ones((300, 2))
    with pytest.raises(InputError, match="expected cells at different positions"):
        pseudo_spots(bare, spacing=9)
    bare.obsm["spatial"] = np.random.default_rng(0).normal(size=(300, 3))
    with pytest.raises(InputError, match="expected coordinates in two dimensions, got 3 dimensions"):
        pseudo_spots(bare, spacing=9)


@pytest.mark.parametrize(("change", "got"), [("log", "log"), ("negative", "scaled"), ("nan", "NaN")])
def test_values_that_cannot_be_summed(cells: ad.AnnData, change: str, got: str) -> None:
    bad = cells.copy()
    values = bad.X.toarray()
    totals = values.sum(axis=1, keepdims=True)
    bad.X = {
        "log": np.log1p(values / totals * 1e4),
        "negative": values - 1.5,
        "nan": np.where(values == 3, np.nan, values),
    }[change]
    for function in (lambda: pseudo_spots(bad, spacing=9), lambda: add_noise(bad, 0.2)):
        with pytest.raises(ScaleError, match=f"cells.X: expected raw counts.* got {got}"):
            function()


def test_resolutions_are_the_published_ones() -> None:
    assert RESOLUTIONS == (55, 40, 22, 10)


# Noise


def log_normalised(cells: ad.AnnData) -> np.ndarray:
    counts = cells.X.toarray().astype(float)
    totals = counts.sum(axis=1, keepdims=True)
    return np.log1p(counts / np.where(totals > 0, totals, 1) * 1e4)


def test_without_noise_only_the_normalisation_remains(cells: ad.AnnData) -> None:
    made = add_noise(cells, 0)
    np.testing.assert_allclose(made.X, log_normalised(cells), rtol=TOLERANCE)
    assert made.X.dtype == np.float32
    assert not made.layers
    assert list(made.obs) == ["cell_type"]
    made.obsm["spatial"][:] = 0
    assert cells.obsm["spatial"].max() > 0


@pytest.mark.parametrize("level", [0.2, 0.8])
def test_noise_has_the_requested_variance(level: float) -> None:
    large = tissue(4000)
    clean, noisy = log_normalised(large), add_noise(large, level, seed=1).X
    assert noisy.min() == 0
    for gene in range(5):
        # nothing is clipped far above zero
        high = clean[:, gene] > 6
        added = noisy[high, gene] - clean[high, gene]
        expected = level * clean[:, gene].var()
        assert added.var() == pytest.approx(expected, rel=0.1)
        assert added.mean() == pytest.approx(0, abs=5 * math.sqrt(expected / high.sum()))


def test_noise_by_blocks_and_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = tissue(50)
    cells.X = sp.csr_matrix(np.vstack([np.zeros(5), cells.X.toarray()[1:]]).astype(np.float32))
    one, other = add_noise(cells, 0.4, seed=1).X, add_noise(cells, 0.4, seed=2).X
    assert (one != other).any()
    assert np.isfinite(one).all()  # a cell without counts contains only noise
    monkeypatch.setattr(pseudospots, "READ_BYTES", 300)
    # the variance of a gene is summed in blocks, in another order
    np.testing.assert_allclose(add_noise(cells, 0.4, seed=1).X, one, rtol=TOLERANCE)


def test_a_noisy_reference_is_a_pair(cells: ad.AnnData) -> None:
    made = pseudo_spots(cells, spacing=15)
    both = pair(add_noise(made.cells, 0.6), made.spots, sc_scale="log")
    assert both.sc.scale == "log"


@pytest.mark.parametrize("level", [-0.1, math.inf])
def test_bad_settings_of_noise(cells: ad.AnnData, level: float) -> None:
    with pytest.raises(SettingError, match="level: expected a number >= 0"):
        add_noise(cells, level)


def test_embryo_gives_about_the_published_spots(shared_data: Path) -> None:
    cells = ad.read_h5ad(shared_data / "embryo_benchmark_sc.h5ad")
    published = ad.read_h5ad(shared_data / "embryo_benchmark_st.h5ad")
    made = pseudo_spots(cells, coordinates="obs:x_global,y_global", grid=(30, 40), caught=1)
    # the same grid: all published positions are crossing points of it
    steps = np.unique(published.obsm["spatial"][:, 0])
    assert np.diff(steps).min() == pytest.approx(made_spacing(made.spots)[0], rel=1e-3)
    assert made.spots.n_obs == pytest.approx(published.n_obs, rel=0.2)


def made_spacing(spots: ad.AnnData) -> tuple[float, float]:
    return tuple(float(np.diff(np.unique(axis)).min()) for axis in spots.obsm["spatial"].T)


def test_the_boxes_of_the_paper_contain_three_in_ten_cells_of_the_embryo(shared_data: Path) -> None:
    cells = ad.read_h5ad(shared_data / "embryo_benchmark_sc.h5ad")
    published = ad.read_h5ad(shared_data / "embryo_benchmark_st.h5ad")
    made = pseudo_spots(cells, coordinates="obs:x_global,y_global", grid=(30, 40), shape="boxes", min_cells=1)
    # the file has 6 in 10 of the cells that the published spots were summed from
    distance, place = cKDTree(made.spots.obsm["spatial"]).query(published.obsm["spatial"])
    there = distance < 0.1
    assert there.mean() > 0.95
    shared = [gene for gene in published.var_names if gene in cells.var_names]
    theirs = published[there, shared].X.toarray()
    own = made.spots[place[there], shared].X.toarray()
    assert (own <= theirs).all(axis=1).mean() > 0.8
    assert own.sum() / theirs.sum() == pytest.approx(0.61, abs=0.03)
