"""Placement baselines against naive loops, baselines by name, and user-defined methods."""

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from cellweft._errors import InputError, KeyMissingError, NotFittedError, SettingError
from cellweft.data._pair import Pair, pair
from cellweft.data.synthetic.pseudospots import pseudo_spots
from cellweft.data.synthetic.tissue import simulate_tissue
from cellweft.evaluate import imputation_baselines, placement_baselines
from cellweft.evaluate.placement_baselines import (
    PLACERS,
    MappedCells,
    PlaceBaselineMethod,
    Placed,
    PlaceMethod,
    best_cosine,
    knn_regression,
    nnls_composition,
    random_spot,
    resolve_placers,
    tissue_centre,
)
from cellweft.place.cell_graph import by_rows

# float32 cosines and sums in another order
TOLERANCE = 1e-5
PLACE_CELLS = [name for name in PLACERS if name != "nnls"]


@pytest.fixture(scope="module")
def tissue() -> Pair:
    """Cells of a simulated tissue, and spots that are sums of these cells."""
    cells = simulate_tissue(n_spatial=260, n_genes=60, n_panel=30, seed=1).st
    made = pseudo_spots(cells, spacing=40, radius=25)
    return pair(made.cells, made.spots)


@pytest.fixture(scope="module")
def sliced(tissue: Pair) -> Pair:
    """The same with the spots in two overlapping slices."""
    slices = np.where(np.arange(tissue.st.n_cells) % 3, "front", "back")
    return dataclasses.replace(tissue, slices=slices)


def values(tissue: Pair, space: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the values by which cells and spots are compared, from their definition."""
    cells = tissue.sc.dense(slice(0, tissue.sc.n_cells), tissue.sc_shared).astype(float)
    spots = tissue.st.dense(slice(0, tissue.st.n_cells), tissue.st_shared).astype(float)
    if space == "log":
        return cells, spots
    return tuple((one - one.mean(axis=0)) / one.std(axis=0) for one in (cells, spots))


def ranked_spots(tissue: Pair, space: str) -> list[np.ndarray]:
    """Return the spots in the order of falling cosine, one cell at a time."""
    cells, spots = values(tissue, space)
    cosines = [spots @ cell / np.linalg.norm(spots, axis=1) / np.linalg.norm(cell) for cell in cells]
    return [np.argsort(-one, kind="stable") for one in cosines]


@pytest.mark.parametrize("space", ["log", "zscore"])
@pytest.mark.parametrize("k", [1, 4])
def test_nearest_spots_equal_a_naive_loop(tissue: Pair, k: int, space: str) -> None:
    found = best_cosine(tissue, space=space) if k == 1 else knn_regression(tissue, k=k, space=space)
    expected = [tissue.coordinates[one[:k]].mean(axis=0) for one in ranked_spots(tissue, space)]
    np.testing.assert_allclose(found.coordinates(), expected, rtol=TOLERANCE)


def test_slices_are_never_mixed(sliced: Pair) -> None:
    found = knn_regression(sliced, k=6)
    for place, ranked in zip(found.coordinates(), ranked_spots(sliced, "log"), strict=True):
        best = ranked[:6][sliced.slices[ranked[:6]] == sliced.slices[ranked[0]]]
        np.testing.assert_allclose(place, sliced.coordinates[best].mean(axis=0), rtol=TOLERANCE)
    slices = sliced.slices[found.first]
    graph = found.neighbors(5)
    for cell in range(sliced.sc.n_cells):
        assert set(slices[graph[cell].indices]) == {slices[cell]}


def test_random_and_central_positions(tissue: Pair, sliced: Pair) -> None:
    drawn = [random_spot(tissue, seed=seed).coordinates() for seed in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()
    assert {tuple(place) for place in drawn[0]} <= {tuple(place) for place in tissue.coordinates}
    centre = tissue_centre(tissue).coordinates()
    assert centre.shape == (tissue.sc.n_cells, 2)
    np.testing.assert_allclose(centre, np.broadcast_to(tissue.coordinates.mean(axis=0), centre.shape))
    largest = sliced.coordinates[sliced.slices == "front"].mean(axis=0)
    np.testing.assert_allclose(tissue_centre(sliced).coordinates()[0], largest)


@pytest.mark.parametrize("name", ["cosine", "knn-regression"])
def test_composition_equals_a_naive_loop(tissue: Pair, name: str) -> None:
    found = PLACERS[name](tissue)
    composition = found.deconvolve()
    k = 1 if name == "cosine" else 5
    mass = {spot: dict.fromkeys(np.unique(tissue.labels), 0.0) for spot in range(tissue.st.n_cells)}
    for label, ranked in zip(tissue.labels, ranked_spots(tissue, "log"), strict=True):
        for spot in ranked[:k]:
            mass[spot][label] += 1 / k
    overall = pd.Series(tissue.labels).value_counts(normalize=True)
    for spot, row in enumerate(mass.values()):
        total = sum(row.values())
        for label, one in row.items():
            expected = one / total if total else overall[label]
            assert composition.iloc[spot][label] == pytest.approx(expected)


@pytest.mark.parametrize("name", PLACERS)
def test_compositions_are_tables(tissue: Pair, name: str) -> None:
    found = PLACERS[name](tissue)
    composition = found.deconvolve()
    assert composition.index.equals(tissue.st.obs_names)
    assert composition.columns.tolist() == sorted(set(tissue.labels))
    assert composition.to_numpy().min() >= 0
    np.testing.assert_allclose(composition.sum(axis=1), 1)
    pd.testing.assert_frame_equal(found.deconvolve("cell_type"), composition)
    halves = np.arange(tissue.sc.n_cells) % 2
    assert found.deconvolve(halves).columns.tolist() == ["0", "1"]
    # a label that all cells share fills all spots
    np.testing.assert_allclose(found.deconvolve(np.zeros(tissue.sc.n_cells)), 1)


def test_the_centre_gives_the_overall_composition(tissue: Pair) -> None:
    composition = tissue_centre(tissue).deconvolve()
    overall = pd.Series(tissue.labels).value_counts(normalize=True).sort_index()
    np.testing.assert_allclose(composition, np.broadcast_to(overall, composition.shape))


@pytest.mark.parametrize("weights", ["variance", "uniform"])
def test_nnls_equals_a_naive_loop(tissue: Pair, weights: str) -> None:
    composition = nnls_composition(tissue, weights=weights).deconvolve()
    cells, spots = (np.expm1(one) for one in values(tissue, "log"))
    types = np.unique(tissue.labels)
    profiles = np.array([cells[tissue.labels == kind].mean(axis=0) for kind in types])
    profiles /= profiles.sum(axis=1, keepdims=True)
    scale = 1 / cells.std(axis=0) if weights == "variance" else 1
    for spot, row in zip(spots, composition.to_numpy(), strict=True):
        fitted = nnls((profiles * scale).T, spot * scale)[0]
        np.testing.assert_allclose(row, fitted / fitted.sum(), atol=1e-6)  # two algorithms for the same fit


def test_nnls_recovers_the_composition_of_spots() -> None:
    stream = np.random.default_rng(0)
    profiles = stream.gamma(1.0, 2.0, (3, 40))
    types = np.repeat(list("ABC"), 60)
    cells = ad.AnnData(stream.poisson(profiles[np.arange(180) // 60] * 5).astype(np.float32))
    cells.obs["cell_type"] = types
    shares = stream.dirichlet(np.ones(3), 50)
    # proportions of counts, because all profiles have the same sum
    mixed = shares @ (profiles / profiles.sum(axis=1, keepdims=True))
    spots = ad.AnnData(stream.poisson(mixed * 30_000).astype(np.float32))
    spots.obsm["spatial"] = stream.normal(size=(50, 2))
    cells.var_names = spots.var_names = [f"Gene{n}" for n in range(40)]
    found = nnls_composition(pair(cells, spots))
    assert found.coordinates() is found.neighbors(3) is None
    np.testing.assert_allclose(found.deconvolve(), shares, atol=0.05)


def test_nnls_of_similar_types(tissue: Pair) -> None:
    twins = np.array([f"{kind} {number % 2}" for number, kind in enumerate(tissue.labels)])
    assert np.isfinite(nnls_composition(tissue).deconvolve(twins)).all(axis=None)
    nothing = dataclasses.replace(tissue, st=dataclasses.replace(tissue.st, totals=tissue.st.totals * 0))
    overall = pd.Series(tissue.labels).value_counts(normalize=True).sort_index()
    np.testing.assert_allclose(nnls_composition(nothing).deconvolve().iloc[0], overall)


# Nearest neighbours


def naive_neighbors(places: np.ndarray, k: int) -> list[set[int]]:
    found = []
    for cell, place in enumerate(places):
        distance = np.linalg.norm(places - place, axis=1)
        distance[cell] = np.inf
        found.append(set(np.argsort(distance)[:k]))
    return found


def mapped(tissue: Pair, places: np.ndarray, *, seed: int = 0) -> MappedCells:
    nowhere = sp.csr_matrix((len(places), tissue.st.n_cells))
    return MappedCells(
        pair=tissue, places=places, mapping=nowhere, first=np.zeros(len(places), dtype=int), seed=seed
    )


@pytest.mark.parametrize("block", [1.0, 64e6])
def test_neighbors_equal_a_naive_loop(tissue: Pair, monkeypatch: pytest.MonkeyPatch, block: float) -> None:
    monkeypatch.setattr(placement_baselines, "BLOCK_BYTES", block)
    places = np.random.default_rng(0).uniform(0, 200, (90, 2))
    graph = mapped(tissue, places).neighbors(7)
    assert graph.shape == (90, 90)
    assert (np.diff(graph.indptr) == 7).all()
    expected = naive_neighbors(places, 7)
    for cell in range(90):
        row = graph[cell]
        assert set(row.indices) == expected[cell]
        distance = np.linalg.norm(places[row.indices] - places[cell], axis=1)
        np.testing.assert_allclose(
            row.data, 1 / (1 + distance / tissue.spacing), rtol=1e-6
        )  # positions have a tiny random shift


@settings(max_examples=30, deadline=None)
@given(data=st.data(), n_cells=st.integers(2, 20))
def test_every_cell_has_k_neighbours(tissue: Pair, data: Any, n_cells: int) -> None:
    k = data.draw(st.integers(1, n_cells - 1))
    places = np.array(
        data.draw(st.lists(st.tuples(*[st.integers(0, 2)] * 2), min_size=n_cells, max_size=n_cells))
    )
    graph = mapped(tissue, places.astype(float)).neighbors(k)
    for cell in range(n_cells):
        others = graph[cell].indices
        assert len(set(others) - {cell}) == k
        distance = np.linalg.norm(places - places[cell], axis=1)
        farthest = np.sort(np.delete(distance, cell))[k - 1]
        assert distance[others].max() <= farthest


def test_cells_at_the_same_position_have_random_neighbours(tissue: Pair) -> None:
    places = np.ones((400, 2))
    graphs = [mapped(tissue, places, seed=seed).neighbors(20) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(graphs[0].indices, graphs[1].indices)
    assert (graphs[0].indices != graphs[2].indices).any()
    # the file order must not matter; neighbours by file order would differ by about 10
    gaps = np.abs(graphs[0].indices.reshape(400, 20) - np.arange(400)[:, None])
    assert gaps.mean() == pytest.approx(400 / 3, rel=0.1)


@pytest.mark.parametrize("k", [0, 90, 2.5])
def test_neighbors_out_of_range(tissue: Pair, k: float) -> None:
    with pytest.raises(SettingError, match="k: expected a whole number from 1 to 89"):
        mapped(tissue, np.zeros((90, 2))).neighbors(k)


# Contracts


@pytest.mark.parametrize("name", ["cosine", "knn-regression", "nnls"])
def test_permuting_cells_permutes_positions(tissue: Pair, name: str) -> None:
    order = np.random.default_rng(0).permutation(tissue.sc.n_cells)
    moved = dataclasses.replace(tissue, sc=tissue.sc.subset(order), labels=tissue.labels[order])
    one, other = PLACERS[name](tissue), PLACERS[name](moved)
    if name != "nnls":
        np.testing.assert_allclose(other.coordinates(), one.coordinates()[order])
    np.testing.assert_allclose(other.deconvolve(), one.deconvolve(), atol=1e-9)  # sums in another order


@pytest.mark.parametrize("name", ["cosine", "knn-regression", "nnls"])
def test_block_size_does_not_matter(tissue: Pair, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    space = {} if name == "nnls" else {"space": "zscore"}
    expected = PLACERS[name](tissue, **space)
    places, composition = expected.coordinates(), expected.deconvolve()
    monkeypatch.setattr(placement_baselines, "BLOCK_BYTES", 5000)
    for module in (imputation_baselines, placement_baselines):
        monkeypatch.setattr(module, "READ_ROWS", 17)
    found = PLACERS[name](tissue, **space)
    if places is not None:
        np.testing.assert_allclose(found.coordinates(), places, rtol=TOLERANCE)
    np.testing.assert_allclose(found.deconvolve(), composition, atol=1e-9)  # sums in another order


def test_empty_cells_and_spots_are_placed(tissue: Pair) -> None:
    cells = simulate_tissue(n_spatial=80, n_genes=30, n_panel=15).st
    made = pseudo_spots(cells, spacing=40, radius=30)
    for side in (made.cells, made.spots):
        dense = side.X.toarray()
        dense[3] = 0
        side.X = dense
    empty = pair(made.cells, made.spots)
    for name in PLACERS:
        found = PLACERS[name](empty)
        assert np.isfinite(found.deconvolve()).all(axis=None)
        places = found.coordinates()
        assert places is None or np.isfinite(places).all()
    # an empty spot is the least similar spot for every cell
    assert 3 not in best_cosine(empty).first[np.arange(80) != 3]


@pytest.mark.parametrize("name", PLACE_CELLS)
def test_spots_without_coordinates(tissue: Pair, name: str) -> None:
    lost = dataclasses.replace(tissue, coordinates=None)
    with pytest.raises(KeyMissingError, match="coordinates: expected spots with coordinates"):
        PLACERS[name](lost)
    assert nnls_composition(lost).deconvolve().shape[0] == tissue.st.n_cells


@pytest.mark.parametrize("name", PLACERS)
def test_labels(tissue: Pair, name: str) -> None:
    bare = dataclasses.replace(tissue, labels=None)
    found = PLACERS[name](bare)
    with pytest.raises(KeyMissingError, match="labels: expected a type for every cell"):
        found.deconvolve()
    with pytest.raises(KeyMissingError, match=r"labels='cell_typ': expected a column.*'cell_type'"):
        found.deconvolve("cell_typ")
    with pytest.raises(InputError, match=r"labels: expected one type per cell for the 260 cells.* \(3,\)"):
        found.deconvolve(np.array(["a", "b", "c"]))
    pd.testing.assert_frame_equal(found.deconvolve("cell_type"), PLACERS[name](tissue).deconvolve())


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("cosine", {"space": "lin"}, "space: expected one of 'log', 'zscore', got 'lin'"),
        ("knn-regression", {"k": 0}, "k: expected a whole number from 1 to"),
        ("knn-regression", {"k": 10_000}, "k: expected a whole number from 1 to"),
        ("nnls", {"weights": "some"}, "weights: expected one of 'variance', 'uniform'"),
    ],
)
def test_settings_out_of_range(tissue: Pair, name: str, setting: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        PLACERS[name](tissue, **setting)


def test_rows_are_put_into_a_sparse_matrix() -> None:
    made = by_rows(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[2, 0], [1, 2]]), n_columns=3)
    assert made.toarray().tolist() == [[2, 0, 1], [0, 3, 4]]


# Baselines by name


@dataclass(frozen=True)
class Frozen:
    seed: int = 0
    preset: str = "auto"
    settings: dict = field(default_factory=dict)

    def fit(self, pair: Pair) -> "Frozen":
        return self

    def place(self) -> Placed:
        return self.seed


class Fake(Frozen):
    """Records the arguments that a Placer would get."""

    built: ClassVar[list[dict]] = []

    def __init__(self, **given: object) -> None:
        self.built.append(given)


def test_every_baseline_by_name(tissue: Pair) -> None:
    for method in resolve_placers(list(PLACERS)):
        found = method.make(4).fit(tissue).place()
        assert isinstance(found, Placed)
        expected = PLACERS[method.label](tissue, seed=4)
        np.testing.assert_array_equal(found.coordinates(), expected.coordinates())
        pd.testing.assert_frame_equal(found.deconvolve(), expected.deconvolve())


def test_settings_by_name(tissue: Pair) -> None:
    (method,) = resolve_placers(["knn-regression:k=3+space=zscore"])
    assert method.label == "knn-regression:k=3+space=zscore"
    np.testing.assert_array_equal(
        method.make(0).fit(tissue).place().coordinates(),
        knn_regression(tissue, k=3, space="zscore").coordinates(),
    )


def test_presets_become_placers(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("cellweft.place.placer")
    module.Placer = Fake
    monkeypatch.setitem(sys.modules, "cellweft.place.placer", module)
    found = resolve_placers(["auto", "stem:steps=10"], device="cpu")
    assert [one.label for one in found] == ["auto", "stem:steps=10"]
    assert len(Fake.built) == 2  # one Placer per name, so that settings that it refuses raise immediately
    for method, preset, given_settings in zip(found, ["auto", "stem"], [{}, {"steps": 10}], strict=True):
        method.make(9)
        assert Fake.built[-1] == {"preset": preset, "settings": given_settings, "seed": 9, "device": "cpu"}


def test_objects_are_copied_and_given_the_seed(tissue: Pair) -> None:
    own = Frozen()
    found = resolve_placers([own, "centre", own])
    assert [one.label for one in found] == ["auto", "centre", "auto (2)"]
    assert found[0].make(5).fit(tissue).place() == 5
    assert own.seed == 0
    assert isinstance(own, PlaceMethod)


@pytest.mark.parametrize(
    ("methods", "error", "message"),
    [
        (["cosin"], SettingError, r"methods: expected one of 'auto', 'stem', 'cosine'.* 'cosine'\?"),
        (["knn"], SettingError, "methods: expected one of"),
        (["stimpute"], SettingError, "methods: expected one of"),
        (["cosine:k=3"], SettingError, r"cosine:k: expected a setting of 'cosine', got 'k'.*'space'"),
        (
            ["random:seed=3"],
            SettingError,
            r"random:seed: expected a setting of 'random'.* It has no settings",
        ),
        (["centre", "centre"], SettingError, "methods: expected unique names"),
        ([], SettingError, r"methods: expected a list of methods.*\['auto', 'cosine'\]"),
        ("cosine", SettingError, "methods: expected a list of methods"),
        ([3], InputError, r"methods: expected names, or objects with fit\(pair\) and place\(\), got a int"),
        ([Frozen], InputError, "got the class Frozen"),
    ],
)
def test_objects_that_are_not_methods(methods: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        resolve_placers(methods)


def test_baseline_before_fit() -> None:
    with pytest.raises(NotFittedError, match="centre: expected a fitted method"):
        PlaceBaselineMethod(name="centre").place()


# Real data


def test_embryo(shared_data: Path) -> None:
    """A spot is the sum of some of the cells, so the most similar spot is near."""
    embryo = pair(shared_data / "embryo_benchmark_sc.h5ad", shared_data / "embryo_benchmark_st.h5ad")
    true = embryo.sc.obs[["x_global", "y_global"]].to_numpy()
    errors = {
        name: np.linalg.norm(PLACERS[name](embryo).coordinates() - true, axis=1).mean()
        for name in ("cosine", "random", "centre")
    }
    # measured: 12.18, 88.99 and 66.12
    assert errors["cosine"] == pytest.approx(12.2, abs=0.2)
    assert errors["random"] > 80
    assert errors["centre"] == pytest.approx(66.1, abs=0.1)
