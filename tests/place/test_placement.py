"""Placement: every read-out, computed in blocks, against the full matrices."""

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cellweft._errors import GeneError, InputError, KeyMissingError, MemoryBudgetError, SettingError
from cellweft.data._pair import Pair, pair
from cellweft.data.io.write import write_anndata
from cellweft.data.synthetic.tissue import SimulatedTissue
from cellweft.nn.clustered_mapping import CoarseMapping
from cellweft.nn.config import StemSettings
from cellweft.nn.mapping import Mapping
from cellweft.place.locations import FLATTEN, slices_of
from cellweft.place.placement import Placement, embeddings_of
from cellweft.place.placer import Placer

# float32 products and sums in blocks of another shape, of values of the order of 1
TOLERANCE = 1e-5

KINDS = ("plain", "spots", "sliced", "sharp")

# Factors for the products. With larger ones, spreads would be small differences of large squares.
SURER = {"sliced": 3, "sharp": 4}
FitPlacer = Callable[..., Placer]


def sliced_input(tissue: SimulatedTissue) -> anndata.AnnData:
    """Return the spots in three dimensions and three slices, which are far from each other."""
    spots = tissue.st.copy()
    spots.obs["section"] = pd.Categorical(["left"] * 40 + ["right"] * 30 + ["middle"] * 20)
    places = np.column_stack([spots.obsm["spatial"], np.arange(90) % 7 * 3.0])
    places[40:70] += 1e5
    places[70:] -= 1e5
    spots.obsm["spatial"] = places
    return spots


@pytest.fixture(scope="module")
def sliced_pair(tissue: SimulatedTissue) -> Pair:
    """The tissue in three slices and three dimensions."""
    return pair(tissue.sc, sliced_input(tissue))


@pytest.fixture(scope="module")
def placements(
    tissue_pair: Pair, sliced_pair: Pair, fit_placer: FitPlacer, placement: Placement
) -> dict[str, Placement]:
    """Placements with both kinds of composition, with several slices, and with cells of certain position."""
    return {
        "plain": placement,
        "spots": fit_placer(preset="stem").place(),
        "sliced": sharper(fit_placer(on=sliced_pair).place(), SURER["sliced"]),
        "sharp": sharper(placement, SURER["sharp"]),
    }


def sharper(placed: Placement, times: float) -> Placement:
    """Concentrate a placement, as long training would."""
    cells = times * placed.cells
    slices = slices_of(cells, placed.spots, placed.spot_groups.values())
    return dataclasses.replace(placed, cells=cells, slice_of_cells=slices)


@pytest.fixture(params=KINDS)
def placed(request: pytest.FixtureRequest, placements: dict[str, Placement]) -> Placement:
    """Each of the placements."""
    return placements[request.param]


def located(placed: Placement, location: str) -> Placement:
    """Return the placement with another read-out of positions."""
    model = placed.model
    changed = dataclasses.replace(model.settings, location=location)
    return dataclasses.replace(placed, model=dataclasses.replace(model, settings=changed))


def softmax(products: np.ndarray) -> np.ndarray:
    weights = np.exp(products - products.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def blank(placed: Placement) -> np.ndarray:
    return ~placed.cells.any(dim=1).numpy()


def to_spots(placed: Placement) -> np.ndarray:
    """Compute C, (n_cells, n_spots), one cell at a time, over the non-empty spots of the best slice."""
    cells, spots = placed.cells.double().numpy(), placed.spots.double().numpy()
    names = np.array([""] * len(spots)) if placed.pair.slices is None else placed.pair.slices
    seen = spots.any(axis=1)
    members = [np.flatnonzero((names == name) & seen) for name in np.unique(names)]
    weights = np.zeros((len(cells), len(spots)))
    for number, cell in enumerate(cells):
        found = [np.log(np.exp(spots[one] @ cell).sum()) for one in members]
        own = members[0] if not cell.any() else members[int(np.argmax(found))]
        weights[number, own] = softmax(spots[own] @ cell)
    return weights


def to_cells(placed: Placement) -> np.ndarray:
    """Compute C^, (n_spots, n_cells), over all cells with counts."""
    products = (placed.spots.double() @ placed.cells.double().T).numpy()
    products[:, blank(placed)] = -np.inf
    return softmax(products)


def digest(data: anndata.AnnData) -> str:
    found = hashlib.sha256(repr(sorted(data.uns)).encode())
    for array in (data.X.data, data.X.indices, data.X.indptr, *data.obsm.values()):
        found.update(np.ascontiguousarray(array).tobytes())
    for table in (data.obs, data.var):
        found.update(table.to_csv().encode())
    return found.hexdigest()


class TestAgainstTheMatrix:
    def test_rows_of_the_matrices_sum_to_one(self, placed: Placement) -> None:
        for weights in (to_spots(placed), to_cells(placed)):
            np.testing.assert_allclose(weights.sum(axis=1), 1)
        assert (to_spots(placed)[:, 5] == 0).all()  # the spot has no counts

    def test_coordinates(self, placed: Placement) -> None:
        coordinates = placed.pair.coordinates
        assert coordinates is not None
        found = located(placed, "mean").coordinates()
        assert found.dtype == np.float64
        extent = np.ptp(coordinates[:40], axis=0).max()
        np.testing.assert_allclose(found, to_spots(placed) @ coordinates, rtol=0, atol=TOLERANCE * extent)
        own = placed.model.settings.location
        np.testing.assert_array_equal(located(placed, own).coordinates(), placed.coordinates())

    def test_the_median_has_the_smallest_expected_distance(self, placed: Placement) -> None:
        coordinates, spacing = placed.pair.coordinates, placed.pair.spacing
        assert coordinates is not None
        assert spacing is not None
        weights = to_spots(placed) ** FLATTEN
        weights /= weights.sum(axis=1, keepdims=True)
        found = located(placed, "median").coordinates()
        extent = np.ptp(coordinates[:40], axis=0).max()
        within = coordinates.shape[1] * spacing**2 / 12
        stream = np.random.default_rng(0)
        for cell in np.flatnonzero(~blank(placed)):

            def expected(place: np.ndarray, row: np.ndarray = weights[cell]) -> float:
                return float(row @ np.sqrt(((coordinates - place) ** 2).sum(axis=1) + within))

            least = expected(found[cell])
            assert least <= expected(weights[cell] @ coordinates) * (1 + 1e-4)
            for _ in range(10):
                aside = found[cell] + 0.03 * extent * stream.standard_normal(coordinates.shape[1])
                assert least <= expected(aside) * (1 + 1e-4)
        np.testing.assert_allclose(found[blank(placed)], located(placed, "mean").coordinates()[blank(placed)])

    @pytest.mark.parametrize("interval", [0.5, 0.9])
    def test_the_radius_contains_its_share_of_the_weight(self, placed: Placement, interval: float) -> None:
        coordinates, spacing = placed.pair.coordinates, placed.pair.spacing
        assert coordinates is not None
        assert spacing is not None
        places, radius = placed.coordinates(interval=interval)
        np.testing.assert_array_equal(places, placed.coordinates())
        n_encoders, n_encoded = placed.model.settings.models, placed.model.n_encoded
        parts = zip(
            placed.cells[:, :n_encoded].tensor_split(n_encoders, dim=1),
            placed.spots[:, :n_encoded].tensor_split(n_encoders, dim=1),
            strict=True,
        )
        evidence = (placed.cells[:, n_encoded:].double() @ placed.spots[:, n_encoded:].double().T).numpy()
        alone = np.zeros((100, 90))
        there = to_spots(placed) > 0
        for queries, keys in parts:
            products = FLATTEN * (n_encoders * (queries.double() @ keys.double().T).numpy() + evidence)
            alone += softmax(np.where(there, products, -np.inf)) / n_encoders
        within = coordinates.shape[1] * spacing**2 / 12
        apart = np.sqrt(((coordinates[None] - places[:, None]) ** 2).sum(axis=2) + within)
        for cell in range(100):
            inner = alone[cell][apart[cell] <= radius[cell] * 0.98].sum()
            outer = alone[cell][apart[cell] <= radius[cell] * 1.02].sum()
            assert inner <= interval + TOLERANCE
            assert outer >= interval - TOLERANCE

    def test_table(self, placed: Placement) -> None:
        weights, coordinates = to_spots(placed), placed.pair.coordinates
        assert coordinates is not None
        extent = np.ptp(coordinates[:40], axis=0).max()
        table = placed.table()
        assert table.index.tolist() == placed.pair.sc.obs_names.tolist()
        axes = ["x", "y", "z"][: coordinates.shape[1]]
        np.testing.assert_array_equal(table[axes], placed.coordinates())
        n_possible = (weights > 0).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = -np.nansum(weights * np.log(weights), axis=1)
        certain = (
            1 - entropy / np.log([len(one) for one in placed.spot_groups.values()])[placed.slice_of_cells]
        )
        certain[blank(placed)] = 0
        np.testing.assert_allclose(table["weight"], weights.max(axis=1), rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(table["entropy"], entropy, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(table["confidence"], certain.clip(0, 1), rtol=0, atol=TOLERANCE)
        spread = [
            math.sqrt((row * ((coordinates - row @ coordinates) ** 2).sum(axis=1)).sum()) for row in weights
        ]
        np.testing.assert_allclose(table["spread"], spread, rtol=0, atol=TOLERANCE * extent)
        chosen = weights[np.arange(100), placed.pair.st.obs_names.get_indexer(table["spot"])]
        np.testing.assert_allclose(chosen, weights.max(axis=1), rtol=0, atol=TOLERANCE)
        assert n_possible.min() > 0

    @pytest.mark.parametrize("of", ["cells", "spots"])
    @pytest.mark.parametrize("k", [1, 5, 1000])
    def test_topk(self, placed: Placement, k: int, of: Any) -> None:
        weights = to_spots(placed) if of == "cells" else to_cells(placed)
        found = placed.topk(k, of=of)
        assert found.shape == weights.shape
        assert found.dtype == np.float32
        for row in range(len(weights)):
            part = slice(found.indptr[row], found.indptr[row + 1])
            columns, values = found.indices[part], found.data[part]
            group = (
                placed.spot_groups.get(list(placed.spot_groups)[placed.slice_of_cells[row]])
                if of == "cells"
                else None
            )
            n_there = (~blank(placed)).sum() if group is None else len(group)
            assert len(columns) == len(set(columns)) == min(k, n_there)
            np.testing.assert_allclose(values, weights[row, columns], rtol=0, atol=TOLERANCE)
            held = -np.sort(-weights[row])[: len(columns)].sum()
            assert values.sum() == pytest.approx(held, abs=TOLERANCE)  # no other spots have more weight
            assert values.sum() <= 1 + TOLERANCE
        if k == 1000:
            np.testing.assert_allclose(found.sum(axis=1), 1, atol=TOLERANCE)

    def test_deconvolve(self, placed: Placement) -> None:
        labels = placed.pair.labels
        assert labels is not None
        types = sorted(set(labels))
        is_type = np.array([[label == one for one in types] for label in labels], dtype=float)
        composition = to_cells(placed) @ is_type
        if placed.model.settings.composition == "both":
            is_type[blank(placed)] = 0
            given = to_spots(placed).T @ is_type
            total = given.sum(axis=1, keepdims=True)
            overall = is_type.sum(axis=0) / is_type.sum()
            with np.errstate(invalid="ignore"):
                composition = (composition + np.where(total > 0, given / total, overall)) / 2
        found = placed.deconvolve()
        assert found.columns.tolist() == types
        assert found.index.tolist() == placed.pair.st.obs_names.tolist()
        np.testing.assert_allclose(found, composition, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=TOLERANCE)
        assert (found.to_numpy() >= 0).all()
        for same in ("cell_type", labels, list(labels)):
            pd.testing.assert_frame_equal(placed.deconvolve(same), found)

    @pytest.mark.parametrize("to", ["cells", "spots"])
    def test_transfer(self, placed: Placement, to: Any) -> None:
        weights = to_spots(placed) if to == "cells" else to_cells(placed)
        giver, taker = (placed.pair.st, placed.pair.sc)[:: 1 if to == "cells" else -1]
        stream = np.random.default_rng(0)
        table = pd.DataFrame(stream.standard_normal((giver.n_cells, 2)), columns=["b", "a"])
        numbers = table.to_numpy()
        expected = weights @ numbers
        for values, shape in (
            (numbers, expected),
            (numbers[:, 0], expected[:, 0]),
            (table["b"], expected[:, 0]),
        ):
            found = placed.transfer(values, to=to)
            assert isinstance(found, np.ndarray)
            assert found.shape == shape.shape
            np.testing.assert_allclose(found, shape, rtol=0, atol=TOLERANCE)
        of_table = placed.transfer(table, to=to)
        assert of_table.columns.tolist() == ["b", "a"]
        assert of_table.index.tolist() == taker.obs_names.tolist()
        np.testing.assert_allclose(of_table, expected, rtol=0, atol=TOLERANCE)
        flags = placed.transfer(numbers[:, 0] > 0, to=to)
        np.testing.assert_allclose(flags, weights @ (numbers[:, 0] > 0), rtol=0, atol=TOLERANCE)
        words = np.array(["red", "green", "blue"])[stream.integers(0, 3, giver.n_cells)]
        shares = np.column_stack([weights @ (words == one) for one in ("blue", "green", "red")])
        for values in (
            words,
            list(words),
            pd.Categorical(words),
            pd.Series(words),
            pd.Series(words, dtype="category"),
        ):
            found = placed.transfer(values, to=to)
            assert found.columns.tolist() == ["blue", "green", "red"]
            assert found.index.tolist() == taker.obs_names.tolist()
            np.testing.assert_allclose(found, shares, rtol=0, atol=TOLERANCE)
            np.testing.assert_allclose(found.sum(axis=1), 1, atol=TOLERANCE)

    def test_impute(self, placed: Placement) -> None:
        genes = ["Gene05", "gene02", "Gene28"]
        found = placed.impute(genes)
        assert found.var_names.tolist() == ["Gene05", "Gene02", "Gene28"]
        columns = [placed.pair.sc.genes.tolist().index(name) for name in found.var_names]
        expected = to_cells(placed) @ placed.pair.sc.dense(slice(None), np.array(columns)).astype(float)
        assert found.X.dtype == np.float32
        np.testing.assert_allclose(found.X, expected, rtol=0, atol=TOLERANCE)
        assert found.obs["layer"].tolist() == placed.pair.st.obs["layer"].tolist()
        np.testing.assert_array_equal(found.obsm["spatial"], placed.pair.coordinates)
        assert found.uns["cellweft"] == placed.record | {"kind": "spots"}

    def test_assign(self, placed: Placement) -> None:
        weights = to_spots(placed)
        best = placed.assign()
        np.testing.assert_allclose(weights[np.arange(100), best], weights.max(axis=1), rtol=0, atol=TOLERANCE)
        for capacity in (1, 2, 3):
            found = placed.assign(capacity=capacity, candidates=1000)
            there = found >= 0
            assert np.bincount(found[there]).max() <= capacity
            seen = sum(len(one) for one in placed.spot_groups.values())
            if len(placed.spot_groups) == 1:  # otherwise one slice may be full and another not
                assert there.sum() == min(100, capacity * seen)
            assert (weights[there, found[there]] > 0).all() or placed.cells.abs().max() > 5

    def test_neighbors_by_embedding(self, placed: Placement) -> None:
        encoded = placed.cells[:, : placed.model.n_encoded].double()
        products = (encoded @ encoded.T).numpy()
        np.fill_diagonal(products, -np.inf)
        found = placed.neighbors(4, by="embedding")
        assert np.diff(found.indptr).tolist() == [4] * 100
        for cell in range(100):
            row = found[cell].toarray()[0]
            nearest = np.argsort(-row)[:4]
            np.testing.assert_allclose(row[nearest], 1 / np.arange(1, 5))
            np.testing.assert_allclose(
                products[cell, nearest],
                -np.sort(-products[cell])[:4],
                rtol=0,
                atol=TOLERANCE * np.abs(products[np.isfinite(products)]).max(),
            )

    def test_neighbors_by_position(self, placed: Placement, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("cellweft.place.placement._OVERLAP_SPOTS", 1000)
        coordinates, weights = placed.pair.coordinates, to_spots(placed)
        assert coordinates is not None
        assert placed.pair.spacing is not None
        apart = np.linalg.norm(coordinates[:, None] - coordinates[None], axis=2) / placed.pair.spacing
        near = np.where(apart <= 3, np.exp(-(apart**2) / 2), 0)
        if placed.pair.slices is not None:
            near *= placed.pair.slices[:, None] == placed.pair.slices[None]
        overlap = weights @ near @ weights.T
        np.fill_diagonal(overlap, -np.inf)
        found = placed.neighbors(6)
        assert np.diff(found.indptr).tolist() == [6] * 100
        assert found.diagonal().max() == 0
        for cell in range(100):
            row = found[cell].toarray()[0]
            nearest = np.argsort(-row)[:6]
            np.testing.assert_allclose(row[nearest], 1 / np.arange(1, 7), rtol=TOLERANCE)
            np.testing.assert_allclose(
                overlap[cell, nearest], -np.sort(-overlap[cell])[:6], rtol=0, atol=TOLERANCE
            )

    @pytest.mark.slow
    @settings(max_examples=5, deadline=None)
    @given(block=st.integers(20, 400), keys=st.integers(10, 100), read=st.integers(10, 60))
    @pytest.mark.parametrize("kind", ["plain", "sliced"])
    def test_block_size_does_not_matter(
        self, placements: dict[str, Placement], kind: str, block: int, keys: int, read: int
    ) -> None:
        """Blocks of a few weights, keys in several blocks, and genes of a few cells at a time."""
        whole = placements[kind]
        table, shares = (
            whole.table(),
            whole.deconvolve(),
        )  # compute before any change, because a placement caches results
        places, radius = whole.coordinates(interval=0.7)
        genes, top = whole.impute(["Gene02"]).X, whole.topk(3).toarray()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("cellweft.nn.mapping._MOST_KEYS", keys)
            patch.setattr("cellweft.place.placement._READ_KEYS", read)
            again = dataclasses.replace(whole)
            for _, _, mapping in (*again._groups, again._back):
                object.__setattr__(mapping, "block_entries", block)
            np.testing.assert_allclose(again.coordinates(), places, rtol=TOLERANCE)
            np.testing.assert_allclose(again.coordinates(interval=0.7)[1], radius, rtol=1e-3)
            numbers = table.select_dtypes("number").columns
            np.testing.assert_allclose(
                again.table()[numbers], table[numbers], rtol=10 * TOLERANCE, atol=TOLERANCE
            )
            np.testing.assert_allclose(again.deconvolve(), shares, atol=TOLERANCE)
            np.testing.assert_allclose(again.impute(["Gene02"]).X, genes, atol=TOLERANCE)
            found, filled = again.topk(3).toarray(), whole.cells.any(dim=1).numpy()
            np.testing.assert_allclose(found[filled], top[filled], atol=TOLERANCE)
            # A cell without counts has equal weights everywhere, so any three spots may be chosen.
            np.testing.assert_allclose(np.sort(found), np.sort(top), atol=TOLERANCE)


class TestCoarseSearch:
    @pytest.mark.parametrize("kind", ["plain", "sliced"])
    def test_read_outs_are_the_same(
        self, placements: dict[str, Placement], kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Results are the same if all spots are visited, and every read-out works."""
        whole = placements[kind]
        expected = whole.table(), whole.deconvolve(), whole.topk(3), whole.coordinates(interval=0.7)[1]
        for name, value in (("_LEAST_KEYS", 0), ("_LEAST_PRODUCTS", 0), ("_GROUP_SIZE", 5)):
            monkeypatch.setattr(f"cellweft.nn.clustered_mapping.{name}", value)
        defaults = CoarseMapping.__init__.__kwdefaults__ | {"least_share": 0.0, "most_visited": 1.0}
        monkeypatch.setattr(CoarseMapping.__init__, "__kwdefaults__", defaults)
        found = dataclasses.replace(whole)
        assert all(isinstance(mapping, CoarseMapping) for *_, mapping in (*found._groups, found._back))
        numbers = expected[0].select_dtypes("number").columns
        np.testing.assert_allclose(found.table()[numbers], expected[0][numbers], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.deconvolve(), expected[1], atol=1e-4)
        top = found.topk(3)
        np.testing.assert_allclose(top.sum(axis=1), expected[2].sum(axis=1), atol=1e-4)
        np.testing.assert_allclose(found.coordinates(interval=0.7)[1], expected[3], rtol=1e-2)
        assert found.impute(["Gene02"]).X.shape == (90, 1)
        assert np.diff(found.topk(70).indptr).min() > 0
        groups = list(whole.spot_groups.values())
        assert slices_of(whole.cells, whole.spots, groups).tolist() == whole.slice_of_cells.tolist()

    def test_more_spots_of_a_cell_than_are_cached(
        self, placements: dict[str, Placement], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = placements["sliced"]
        filled = ~blank(whole)  # without empty cells, for which any spots of equal weight may be chosen
        expected = whole.topk(8).toarray()[filled]
        monkeypatch.setattr("cellweft.place.placement.KEPT_SPOTS", 2)
        found = dataclasses.replace(whole).topk(8).toarray()[filled]
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)


class TestSlices:
    def test_a_cell_lies_within_its_slice(self, placements: dict[str, Placement]) -> None:
        placed = placements["sliced"]
        coordinates, slices = placed.pair.coordinates, placed.pair.slices
        assert coordinates is not None
        assert slices is not None
        table = placed.table()
        assert set(table["slice"]) <= {"left", "middle", "right"}
        assert len(set(table["slice"])) > 1
        for cell in range(100):
            own = coordinates[slices == table["slice"].iloc[cell]]
            place = placed.coordinates()[cell]
            assert (place >= own.min(axis=0) - 1e-6).all()
            assert (place <= own.max(axis=0) + 1e-6).all()
            spot = placed.pair.st.obs_names.get_loc(table["spot"].iloc[cell])
            assert slices[spot] == table["slice"].iloc[cell]

    def test_no_weight_goes_to_another_slice(self, placements: dict[str, Placement]) -> None:
        placed = placements["sliced"]
        slices = placed.pair.slices
        assert slices is not None
        top = placed.topk(1000).tocoo()
        np.testing.assert_array_equal(slices[top.col], placed.table()["slice"].to_numpy()[top.row])
        zones = placed.transfer(slices, to="cells")
        assert set(np.unique(zones)) <= {0.0, *zones.to_numpy()[zones.to_numpy() > 1 - TOLERANCE]}

    def test_neighbours_by_position_are_in_the_same_slice(self, placements: dict[str, Placement]) -> None:
        placed = placements["sliced"]
        own = placed.table()["slice"].to_numpy()
        sizes = pd.Series(own).value_counts()
        graph = placed.neighbors(int(min(sizes.min() - 1, 5)) or 1).tocoo()
        many = np.array([sizes[one] for one in own])[graph.row] > 5
        np.testing.assert_array_equal(own[graph.row][many], own[graph.col][many])

    def test_a_cell_is_in_the_slice_with_the_largest_weight(self, placements: dict[str, Placement]) -> None:
        placed = placements["sliced"]
        for cell in range(100):
            sums = [
                float(torch.logsumexp(placed.spots[one].double() @ placed.cells[cell].double(), dim=0))
                for one in placed.spot_groups.values()
            ]
            expected = 0 if blank(placed)[cell] else int(np.argmax(sums))
            assert placed.slice_of_cells[cell] == expected

    def test_the_order_of_the_spots_does_not_matter(
        self,
        tissue: SimulatedTissue,
        placements: dict[str, Placement],
        sliced_pair: Pair,
        fit_placer: FitPlacer,
    ) -> None:
        order = np.random.default_rng(0).permutation(90)
        placer = fit_placer(on=sliced_pair)
        moved = sharper(placer.place(pair(tissue.sc, sliced_input(tissue)[order].copy())), SURER["sliced"])
        plain = placements["sliced"]
        np.testing.assert_allclose(moved.coordinates(), plain.coordinates(), rtol=TOLERANCE)
        np.testing.assert_allclose(moved.deconvolve(), plain.deconvolve().iloc[order], atol=TOLERANCE)
        assert moved.table()["slice"].tolist() == plain.table()["slice"].tolist()


class TestWithoutCounts:
    def test_a_cell_has_equal_weights_and_no_confidence(self, placement: Placement) -> None:
        row = placement.table().iloc[7]
        seen = np.delete(np.arange(90), 5)
        coordinates = placement.pair.coordinates
        assert coordinates is not None
        np.testing.assert_allclose(
            row[["x", "y"]].astype(float), coordinates[seen].mean(axis=0), rtol=TOLERANCE
        )
        assert row["confidence"] == 0
        assert row["weight"] == pytest.approx(1 / 89)
        assert row["entropy"] == pytest.approx(math.log(89), abs=TOLERANCE)

    def test_a_cell_without_counts_on_the_panel(self, placed: Placement) -> None:
        """The cell has counts, but none in the genes of the model."""
        bare = blank(placed) & ~placed.pair.sc.empty_cells
        assert bare.any()
        assert (placed.table()["confidence"][bare] == 0).all()

    def test_a_spot_has_the_mean_composition_and_no_cells_are_mapped_to_it(self, placed: Placement) -> None:
        there = ~blank(placed)
        labels = placed.pair.labels
        assert labels is not None
        mean = pd.Series(labels[there]).value_counts(normalize=True).sort_index()
        found = placed.deconvolve().iloc[5]
        np.testing.assert_allclose(found[mean.index], mean, rtol=0, atol=TOLERANCE)
        assert placed.topk(1000)[:, 5].sum() == 0
        assert 5 not in placed.assign()

    def test_all_results_are_finite(self, placed: Placement) -> None:
        numbers = placed.table().select_dtypes("number")
        assert np.isfinite(numbers).to_numpy().all()
        assert numbers["confidence"].between(0, 1).all()
        assert (numbers["spread"] >= 0).all()
        assert (placed.coordinates(interval=0.9)[1] >= 0).all()
        assert np.isfinite(placed.deconvolve()).to_numpy().all()
        assert np.isfinite(placed.impute(["Gene02"]).X).all()
        assert np.isfinite(placed.neighbors(3).data).all()


class TestRefusals:
    @pytest.mark.parametrize(
        ("call", "error", "message"),
        [
            (lambda p: p.topk(0), SettingError, r"k: expected a whole number >= 1, got 0"),
            (
                lambda p: p.topk(2, of="genes"),
                SettingError,
                r"of: expected one of 'cells', 'spots', got 'genes'",
            ),
            (
                lambda p: p.coordinates(interval=0),
                SettingError,
                r"interval: expected a number from 0.01 to 0.999, got 0\.",
            ),
            (lambda p: p.coordinates(interval=90), SettingError, r"interval: .*got 90"),
            (lambda p: p.neighbors(0), SettingError, r"k: expected a whole number from 1 to 99, got 0"),
            (lambda p: p.neighbors(100), SettingError, r"k: expected a whole number from 1 to 99, got 100"),
            (lambda p: p.neighbors(3, by="places"), SettingError, r"by: .*Did you mean 'place'"),
            (lambda p: p.assign(capacity=0), SettingError, r"capacity: expected a whole number >= 1, got 0"),
            (lambda p: p.assign(capacity=1, candidates=0), SettingError, r"whole number >= 1, got 0"),
            (lambda p: p.impute(["Gene7"]), GeneError, r"'Gene7'.*Did you mean"),
            (
                lambda p: p.impute(["Gene02"], memory="1 KB"),
                MemoryBudgetError,
                r"for 1 genes in 90 spots, got 1 KB",
            ),
            (lambda p: p.to_anndata(of="genes"), SettingError, r"of: expected one of 'cells', 'spots'"),
            (lambda p: p.to_anndata(of="spots", genes=["Gene7"]), GeneError, r"'Gene7'"),
            (lambda p: p.to_anndata(of="spots", genes=["Gene02"], memory="9 B"), MemoryBudgetError, "memory"),
            (
                lambda p: p.transfer("layr", to="cells"),
                KeyMissingError,
                r"values='layr'.*Did you mean 'layer'",
            ),
            (
                lambda p: p.transfer("layer", to="spots"),
                KeyMissingError,
                r"values='layer': expected a column of obs",
            ),
            (lambda p: p.transfer(np.ones(90), to="genes"), SettingError, r"to: expected one of"),
            (
                lambda p: p.transfer(np.ones(100), to="cells"),
                InputError,
                r"expected 90 rows, in one or more columns, got shape \(100,\)",
            ),
            (lambda p: p.transfer(np.ones((90, 2, 2)), to="cells"), InputError, r"got shape \(90, 2, 2\)"),
            (lambda p: p.transfer(np.array(3.0), to="cells"), InputError, r"got shape \(\)"),
            (
                lambda p: p.transfer(np.array([*np.ones(89), np.nan]), to="cells"),
                InputError,
                r"finite numbers, got NaN or infinity in 1 row",
            ),
            (
                lambda p: p.transfer(np.array([["a", "b"]] * 90), to="cells"),
                InputError,
                r"got text in .0., .1. of 2 columns\. Transfer one column of text at a time",
            ),
            (lambda p: p.deconvolve("typ"), KeyMissingError, r"labels='typ'"),
            (lambda p: p.deconvolve(["a"] * 3), InputError, r"one type per cell for the 100 cells"),
            (
                lambda p: p.deconvolve(["a"] * 100),
                InputError,
                r"labels: expected cells of at least 2 types, got 'a' for all 100 cells",
            ),
        ],
    )
    def test_invalid_arguments_are_refused(
        self, placement: Placement, call: Any, error: type, message: str
    ) -> None:
        with pytest.raises(error, match=message):
            call(placement)

    def test_a_pair_without_labels(self, placement: Placement) -> None:
        bare = dataclasses.replace(placement, pair=dataclasses.replace(placement.pair, labels=None))
        with pytest.raises(KeyMissingError, match=r"labels: expected a type for every cell"):
            bare.deconvolve()
        assert "cellweft_proportions" not in bare.to_anndata(of="spots").obsm
        pd.testing.assert_frame_equal(bare.deconvolve("cell_type"), placement.deconvolve())


class TestColumns:
    def test_columns_of_the_other_side(self, tissue: SimulatedTissue, placer: Placer) -> None:
        spots, cells = tissue.st.copy(), tissue.sc.copy()
        spots.obs["zonation"] = np.linspace(0, 1, 90)
        spots.obs["flag"] = np.arange(90) % 3 == 0
        spots.obs["whole"] = pd.array(np.arange(90), dtype="Int64")
        cells.obs["age"] = np.arange(100.0)
        placed = placer.place(pair(cells, spots))
        weights = to_spots(placed)
        np.testing.assert_allclose(
            placed.transfer("zonation", to="cells"), weights @ spots.obs["zonation"], atol=TOLERANCE
        )
        np.testing.assert_allclose(
            placed.transfer("flag", to="cells"), weights @ spots.obs["flag"], atol=TOLERANCE
        )
        np.testing.assert_allclose(
            placed.transfer("whole", to="cells"), weights @ np.arange(90), rtol=TOLERANCE
        )
        np.testing.assert_allclose(
            placed.transfer("age", to="spots"), to_cells(placed) @ np.arange(100), rtol=TOLERANCE
        )
        layers = placed.transfer("layer", to="cells")
        assert layers.columns.tolist() == sorted(set(spots.obs["layer"]))

    def test_missing_values_of_columns(self, tissue: SimulatedTissue, placer: Placer) -> None:
        """Missing text becomes "unknown"; missing numbers are an error."""
        spots = tissue.st.copy()
        spots.obs["zone"] = ["a", None, "b"] * 30
        spots.obs["score"] = pd.array([1, None, 3] * 30, dtype="Int64")
        placed = placer.place(pair(tissue.sc, spots))
        assert placed.transfer("zone", to="cells").columns.tolist() == ["a", "b", "unknown"]
        with pytest.raises(InputError, match=r"finite numbers, got NaN or infinity in 30 rows"):
            placed.transfer("score", to="cells")

    def test_numbers_far_from_zero_keep_their_digits(self, placement: Placement) -> None:
        values = 1e6 + np.arange(90.0)
        found = placement.transfer(values, to="cells")
        np.testing.assert_allclose(found, to_spots(placement) @ values, rtol=0, atol=90 * TOLERANCE)


@pytest.fixture(scope="module")
def of_cells(placement: Placement) -> anndata.AnnData:
    """The AnnData of placed cells; tests must not change it."""
    return placement.to_anndata(neighbors=6)


class TestResults:
    def test_the_placed_cells(self, placement: Placement, of_cells: anndata.AnnData) -> None:
        assert of_cells.shape == (100, 0)
        assert of_cells.obs["cell_type"].tolist() == placement.pair.sc.obs["cell_type"].tolist()
        table = placement.table()
        for name in table:
            assert of_cells.obs[f"cellweft_{name}"].tolist() == table[name].tolist()
        for key in ("cellweft_spatial", "spatial"):
            np.testing.assert_array_equal(of_cells.obsm[key], placement.coordinates())
        graph, distances = (of_cells.obsp[f"spatial_{one}"] for one in ("connectivities", "distances"))
        assert (graph != placement.neighbors(6)).nnz == 0
        places = placement.coordinates()
        for cell in (0, 50, 99):
            others = distances.indices[distances.indptr[cell] : distances.indptr[cell + 1]]
            expected = [math.dist(places[cell], places[other]) for other in others]
            np.testing.assert_allclose(distances[cell, others].toarray()[0], expected)
            assert set(others) == set(graph[cell].indices)
        found = of_cells.uns["spatial_neighbors"]
        assert found["connectivities_key"] in of_cells.obsp
        assert found["distances_key"] in of_cells.obsp
        assert found["params"]["n_neighbors"] == 6

    def test_without_a_graph(self, placement: Placement) -> None:
        bare = placement.to_anndata(neighbors=0)
        assert len(bare.obsp) == 0
        assert list(bare.uns) == ["cellweft"]

    def test_more_neighbours_than_cells(self, tissue: SimulatedTissue, placer: Placer) -> None:
        few = placer.place(placer.pair_.with_reference(tissue.sc[:4].copy()))
        assert few.to_anndata().obsp["spatial_connectivities"].nnz == 4 * 3

    def test_the_spots(self, placement: Placement) -> None:
        spots = placement.to_anndata(of="spots", genes=["Gene02", "Gene11"])
        np.testing.assert_array_equal(spots.X, placement.impute(["Gene02", "Gene11"]).X)
        pd.testing.assert_frame_equal(spots.obsm["cellweft_proportions"], placement.deconvolve())
        assert placement.to_anndata(of="spots").shape == (90, 0)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("kind", "suffix"), [("plain", ".h5ad"), ("sliced", ".h5ad"), ("sliced", ".zarr")]
    )
    def test_they_are_written_and_read_back(
        self, placements: dict[str, Placement], tmp_path: Path, suffix: str, kind: str
    ) -> None:
        placed = placements[kind]
        for made in (placed.to_anndata(neighbors=4), placed.to_anndata(of="spots", genes=["Gene03"])):
            path = write_anndata(made, tmp_path / f"out{suffix}", overwrite=True)
            read = anndata.read_zarr(path) if suffix == ".zarr" else anndata.read_h5ad(path)
            assert read.shape == made.shape
            assert read.obs_names.tolist() == made.obs_names.tolist()
            assert read.obs.columns.tolist() == made.obs.columns.tolist()
            for name in made.obs:
                assert read.obs[name].tolist() == made.obs[name].tolist()
            for key, value in made.obsm.items():
                np.testing.assert_array_equal(read.obsm[key], value)
            for key, value in made.obsp.items():
                assert (read.obsp[key] != value).nnz == 0
            assert read.uns["cellweft"]["settings"]["steps"] == 8
            assert read.uns["cellweft"]["seed"] == 0
            assert read.uns["cellweft"]["n_genes"] == 12
            if made.n_vars:
                np.testing.assert_array_equal(read.X, made.X)

    def test_the_result_owns_its_arrays(self, tissue: SimulatedTissue, placement: Placement) -> None:
        before = digest(tissue.sc), digest(tissue.st)
        places, record = placement.coordinates().copy(), repr(placement.record)
        for made in (placement.to_anndata(neighbors=3), placement.to_anndata(of="spots", genes=["Gene02"])):
            made.obs["cell_type"] = "lost"
            for value in made.obsm.values():
                value[:] = -1
            made.uns["cellweft"]["settings"]["steps"] = -1
            made.uns["cellweft"]["seed"] = 99
        table = placement.table()
        table.loc[:, table.select_dtypes("number").columns] = 0
        table["spot"] = "lost"
        placement.coordinates()[:] = 0
        np.testing.assert_array_equal(placement.coordinates(), places)
        assert repr(placement.record) == record
        assert (digest(tissue.sc), digest(tissue.st)) == before

    def test_a_result_can_be_used_as_input(
        self, tissue: SimulatedTissue, placer: Placer, of_cells: anndata.AnnData
    ) -> None:
        """The columns of the first placement are replaced, not duplicated."""
        cells = tissue.sc.copy()
        cells.obs = cells.obs.join(of_cells.obs.filter(like="cellweft_") * 1)
        cells.obs["cellweft_x"] = -5.0
        again = placer.place(pair(cells, tissue.st)).to_anndata(neighbors=0)
        assert again.obs.columns.is_unique
        np.testing.assert_array_equal(again.obs["cellweft_x"], of_cells.obs["cellweft_x"])

    def test_repr_and_attributes(self, placements: dict[str, Placement]) -> None:
        assert repr(placements["plain"]) == "Placement(100 cells on 90 spots)"
        assert repr(placements["sliced"]) == "Placement(100 cells on 90 spots of 3 slices)"
        assert placements["plain"].genes.tolist() == placements["plain"].pair.shared_genes.tolist()
        np.testing.assert_array_equal(
            placements["plain"].values(np.array([3, 1])),
            placements["plain"].inputs[0].values(slice(None))[[3, 1]],
        )


def brute_force(weights: np.ndarray, capacity: int) -> float:
    """Return the largest product of weights of four cells over all assignments to spots."""
    n_spots = weights.shape[1]
    ways = (
        spots
        for spots in itertools.product(range(n_spots), repeat=len(weights))
        if max(map(spots.count, spots)) <= capacity
    )
    return max(math.prod(weights[cell, spot] for cell, spot in enumerate(spots)) for spots in ways)


@pytest.mark.parametrize("capacity", [1, 2])
def test_no_other_assignment_is_better(tissue: SimulatedTissue, placer: Placer, capacity: int) -> None:
    placed = placer.place(pair(tissue.sc[:4].copy(), tissue.st[[0, 1, 2, 3, 40]].copy()))
    found = placed.assign(capacity=capacity)
    weights = to_spots(placed)
    assert math.prod(weights[np.arange(4), found]) == pytest.approx(brute_force(weights, capacity), rel=1e-4)


class TestSlicesOf:
    def test_by_hand(self) -> None:
        cells = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
        spots = torch.tensor([[2.0, 0.0], [0.0, 3.0], [0.0, 3.0]])
        groups = [np.array([0]), np.array([1, 2])]
        # The sums are e^2 and 2; 1 and 2 e^3; a cell of zeros goes to the first slice; e^2 and 2 e^3.
        assert slices_of(cells, spots, groups).tolist() == [0, 1, 0, 1]
        assert slices_of(cells, spots, iter(groups)).tolist() == [0, 1, 0, 1]
        assert slices_of(cells, spots, [np.arange(3)]).tolist() == [0] * 4


class LargestTensor(TorchDispatchMode):
    """Records the largest number of elements of a tensor that is created."""

    n_elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        sizes = [one.numel() for one in tree_leaves(made) if isinstance(one, torch.Tensor)]
        self.n_elements = max([self.n_elements, *sizes])
        return made


def side(name: str, count: int) -> SimpleNamespace:
    names = pd.Index([f"{name}{number}" for number in range(count)])
    obs = pd.DataFrame(index=names)
    return SimpleNamespace(name=name, source="made up", n_cells=count, obs_names=names, obs=obs)


@pytest.mark.slow
def test_the_matrix_of_cells_and_spots_is_never_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of read-outs is measured by benchmarks/place_scale.py."""
    n_cells, n_spots, stream = 1000, 4000, np.random.default_rng(0)
    monkeypatch.setattr(
        "cellweft.place.placement.make_mapping",
        lambda *sides: Mapping(queries=sides[0], keys=sides[1], block_entries=2**15),
    )
    cells = torch.from_numpy(stream.standard_normal((n_cells, 4), dtype=np.float32))
    spots = torch.from_numpy(stream.standard_normal((n_spots, 4), dtype=np.float32))
    given = SimpleNamespace(
        sc=side("reference", n_cells),
        st=side("spatial", n_spots),
        coordinates=stream.random((n_spots, 2)) * 1000,
        slices=None,
        labels=np.array([f"type{number}" for number in stream.integers(0, 20, n_cells)]),
        spacing=7.0,
    )
    placed = Placement(
        pair=cast(Any, given),
        model=cast(Any, SimpleNamespace(settings=StemSettings(composition="both"), n_encoded=cells.shape[1])),
        inputs=cast(Any, (None, None)),
        cells=cells,
        spots=spots,
        spot_groups={"": np.arange(n_spots)},
        genes=np.array([]),
        slice_of_cells=np.zeros(n_cells, dtype=np.int64),
    )
    with LargestTensor() as largest:
        places, radius = placed.coordinates(interval=0.9)
        table = placed.table()
        composition = placed.deconvolve()
    # the largest tensors are the distance bins of each cell
    assert largest.n_elements < n_cells * n_spots / 3
    assert np.isfinite(places).all()
    assert np.isfinite(radius).all()
    assert table["confidence"].between(0, 1).all()
    np.testing.assert_allclose(composition.sum(axis=1), 1, atol=1e-4)
    some = torch.softmax(cells[-5:].double() @ spots.double().T, dim=1).numpy()
    np.testing.assert_allclose(places[-5:], some @ given.coordinates, rtol=1e-4)


# Embeddings


def test_embeddings_of_both_sides_equal_those_of_the_encoders(placement: Placement) -> None:
    encoders = placement.model.encoders
    for of, side in (("cells", 0), ("spots", 1)):
        found = embeddings_of(placement, of)  # type: ignore[arg-type]
        values = placement.inputs[side].values(slice(0, len(found)))
        expected = []
        for encoder in encoders:  # layer by layer
            hidden = torch.from_numpy(values)
            for layer in encoder.layers:
                hidden = layer(hidden)
            expected.append(hidden.detach().numpy())
        counted = values.any(axis=1)
        np.testing.assert_allclose(
            found[counted], np.concatenate(expected, axis=1)[counted], rtol=1e-4, atol=1e-5
        )
        assert found.dtype == np.float32
        assert not found[~counted].any()
    products = embeddings_of(placement, "cells") @ embeddings_of(placement, "spots").T / len(encoders)
    evidence = slice(placement.model.n_encoded, None)
    products += (placement.cells[:, evidence] @ placement.spots[:, evidence].T).numpy()
    np.testing.assert_allclose(products, (placement.cells @ placement.spots.T).numpy(), rtol=1e-4, atol=1e-5)


def test_embeddings_are_written_with_both_sides(placement: Placement) -> None:
    for of in ("cells", "spots"):
        made = placement.to_anndata(of=of)  # type: ignore[arg-type]
        np.testing.assert_array_equal(made.obsm["cellweft_embedding"], embeddings_of(placement, of))  # type: ignore[arg-type]
        assert "cellweft_embedding" not in placement.to_anndata(of=of, embedding=False).obsm  # type: ignore[arg-type]
