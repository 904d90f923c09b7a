"""Positions from a mapping: mean, geometric median and radius, in blocks and against the full matrix."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from cellweft.nn.clustered_mapping import CoarseMapping, group_keys
from cellweft.nn.mapping import Mapping
from cellweft.place import locations as room
from cellweft.place.locations import FLATTEN, encoder_mappings, find_places, place_radius

# float32 products and sums in blocks of another shape, of values of the order of 1
TOLERANCE = 1e-5
# relative width of a bin at common radii
BIN = 0.01


def drawn(*shape: int, seed: int, scale: float = 1.0) -> torch.Tensor:
    values = np.random.default_rng(seed).standard_normal(shape) * scale
    return torch.from_numpy(values.astype(np.float32))


def make(n_cells: int = 17, n_spots: int = 13, *, n_latent: int = 6, block: int = 2**22) -> Mapping:
    return Mapping(
        queries=drawn(n_cells, n_latent, seed=1), keys=drawn(n_spots, n_latent, seed=2), block_entries=block
    )


def spots_of(n_spots: int = 13, n_axes: int = 2) -> np.ndarray:
    return np.random.default_rng(3).uniform(100, 120, (n_spots, n_axes))


def of_weights(*rows: list[float]) -> Mapping:
    """Return a mapping with these weights: keys are unit vectors, queries the logarithms of the weights."""
    weights = torch.tensor(rows)
    return Mapping(queries=weights.clamp_min(1e-30).log(), keys=torch.eye(weights.shape[1]))


def weights_of(mapping: Mapping, *, flatten: float = 1.0) -> np.ndarray:
    products = flatten * mapping.queries.double().numpy() @ mapping.keys.double().numpy().T
    weights = np.exp(products - products.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def naive_radius(weights: np.ndarray, distances: np.ndarray, share: float) -> float:
    """Add spots, the nearest first, until their weights reach the share."""
    order = np.argsort(distances)
    held = 0.0
    for spot in order:
        held += weights[spot]
        if held >= share - 1e-9:
            return float(distances[spot])
    return float(distances[order[-1]])


def mean_places(mapping: Mapping, spots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = find_places(mapping, spots, spacing=1.0)
    return found.mean, found.spread


def median_places(
    mapping: Mapping, spots: np.ndarray, *, spacing: float, flatten: float = FLATTEN
) -> np.ndarray:
    return find_places(mapping, spots, spacing=spacing, flatten=flatten).median


class TestMean:
    def test_by_hand(self) -> None:
        places, spread = mean_places(of_weights([0.75, 0.25]), np.array([[10.0, 0.0], [14.0, 0.0]]))
        np.testing.assert_allclose(places, [[11, 0]], atol=TOLERANCE)
        assert spread[0] == pytest.approx(math.sqrt(0.75 * 1 + 0.25 * 9), abs=TOLERANCE)

    @pytest.mark.parametrize("n_axes", [2, 3])
    def test_it_equals_the_weighted_mean(self, n_axes: int) -> None:
        mapping, spots = make(), spots_of(n_axes=n_axes)
        weights = weights_of(mapping)
        places, spread = mean_places(mapping, spots)
        np.testing.assert_allclose(places, weights @ spots, rtol=TOLERANCE)
        for cell in range(17):
            squares = ((spots - weights[cell] @ spots) ** 2).sum(axis=1)
            assert spread[cell] == pytest.approx(math.sqrt(weights[cell] @ squares), rel=1e-4)

    def test_spots_at_the_same_position(self) -> None:
        places, spread = mean_places(make(), np.full((13, 2), 7.0))
        np.testing.assert_allclose(places, 7)
        np.testing.assert_allclose(spread, 0)


class TestAllInOneGo:
    def test_entropy_and_heaviest_spots(self) -> None:
        mapping, spots = make(), spots_of()
        weights = weights_of(mapping)
        found = find_places(mapping, spots, spacing=1.0, keep=4)
        np.testing.assert_allclose(
            found.entropy, -(weights * np.log(weights)).sum(axis=1), rtol=10 * TOLERANCE
        )
        np.testing.assert_allclose(found.weights, -np.sort(-weights, axis=1)[:, :4], atol=TOLERANCE)
        np.testing.assert_allclose(
            np.take_along_axis(weights, found.spots, axis=1), found.weights, atol=TOLERANCE
        )
        assert found.weights.dtype == np.float32
        assert found.spots.dtype == np.int32

    @pytest.mark.parametrize("share", [0.0, 0.05])
    def test_a_coarse_search(self, share: float) -> None:
        """The result is the same if all spots are visited, and close if some are estimated by groups."""
        mapping, spots = make(n_spots=200), spots_of(200)
        groups = group_keys(mapping.queries, mapping.keys, most=40)
        searched = CoarseMapping(
            queries=mapping.queries, keys=mapping.keys, groups=groups, least_share=share, most_visited=1.0
        )
        assert share == 0 or max(len(visit.columns) for visit in searched.visits()) < 200
        whole, found = (find_places(one, spots, spacing=1.0, heaviest=8) for one in (mapping, searched))
        tolerance = 20 * TOLERANCE if share == 0 else 0.3
        for name in ("mean", "median", "spread", "entropy"):
            np.testing.assert_allclose(getattr(found, name), getattr(whole, name), atol=tolerance)
        np.testing.assert_allclose(found.weights[:, :3], whole.weights[:, :3], atol=tolerance / 10)


class TestMedian:
    def test_by_hand(self) -> None:
        """On a line the median divides the weight in half; the mean is pulled to the far spot."""
        spots = np.array([[0.0, 0.0], [1.0, 0.0], [100.0, 0.0]])
        mapping = of_weights([0.35, 0.45, 0.2])
        found = median_places(mapping, spots, spacing=0.01, flatten=1.0)
        np.testing.assert_allclose(found, [[1, 0]], atol=0.05)
        assert mean_places(mapping, spots)[0][0, 0] > 20

    @pytest.mark.parametrize("n_axes", [2, 3])
    @pytest.mark.parametrize("flatten", [1.0, 0.5])
    def test_no_point_has_a_smaller_expected_distance(self, flatten: float, n_axes: int) -> None:
        mapping, spots, spacing = make(), spots_of(n_axes=n_axes), 2.0
        weights = weights_of(mapping, flatten=flatten)
        found = median_places(mapping, spots, spacing=spacing, flatten=flatten)
        for cell in range(17):

            def expected(place: np.ndarray, row: np.ndarray = weights[cell]) -> float:
                squares = ((spots - place) ** 2).sum(axis=1) + n_axes * spacing**2 / 12
                return float(row @ np.sqrt(squares))

            best = minimize(expected, weights[cell] @ spots, method="Nelder-Mead").fun
            assert expected(found[cell]) == pytest.approx(best, rel=1e-3)

    def test_cells_in_several_blocks(self) -> None:
        mapping, spots = make(), spots_of()
        whole = median_places(mapping, spots, spacing=1.0)
        np.testing.assert_allclose(median_places(make(block=20), spots, spacing=1.0), whole, rtol=TOLERANCE)

    def test_the_heaviest_spots_give_nearly_the_same_median(self) -> None:
        """In a concentrated mapping a few spots have nearly all of the weight."""
        mapping, spots = make(), spots_of()
        mapping = Mapping(queries=mapping.queries * 9, keys=mapping.keys)
        whole = find_places(mapping, spots, spacing=1.0).median
        few = find_places(mapping, spots, spacing=1.0, heaviest=8).median
        np.testing.assert_allclose(few, whole, atol=0.2)

    def test_one_spot_and_no_cells(self) -> None:
        one = Mapping(queries=drawn(3, 6, seed=1), keys=drawn(1, 6, seed=2))
        np.testing.assert_allclose(median_places(one, np.array([[5.0, 6.0]]), spacing=1.0), [[5, 6]] * 3)
        assert median_places(make(0), spots_of(), spacing=1.0).shape == (0, 2)

    @given(seed=st.integers(0, 999))
    @settings(max_examples=15, deadline=None)
    def test_the_order_of_cells_and_spots_does_not_matter(self, seed: int) -> None:
        stream, mapping, spots = np.random.default_rng(seed), make(), spots_of()
        cells, order = stream.permutation(17), stream.permutation(13)
        moved = Mapping(queries=mapping.queries[cells], keys=mapping.keys[order])
        found = median_places(moved, spots[order], spacing=1.0)
        np.testing.assert_allclose(found, median_places(mapping, spots, spacing=1.0)[cells], rtol=TOLERANCE)


class TestRadius:
    def test_by_hand(self) -> None:
        """Spots at 0, 1 and 10 have weights .5, .3 and .2."""
        mapping = of_weights([0.5, 0.3, 0.2])
        spots = np.array([[0.0, 0.0], [1.0, 0.0], [10.0, 0.0]])
        for share, expected in ((0.4, 0.0), (0.6, 1.0), (0.79, 1.0), (0.9, 10.0)):
            found = place_radius([mapping], spots, np.zeros((1, 2)), share=share, spacing=1e-9)
            assert found[0] == pytest.approx(expected, rel=0.02, abs=0.01)

    def test_a_cell_at_a_single_spot_is_spread_over_its_square(self) -> None:
        """The mean squared distance from the centre of a square with side 6 is 6."""
        spots = np.array([[0.0, 0.0], [6.0, 0.0]])
        found = place_radius([of_weights([1.0, 0.0])], spots, np.zeros((1, 2)), share=0.9, spacing=6.0)
        assert found[0] == pytest.approx(math.sqrt(6), rel=0.02)
        cubes = np.pad(spots, ((0, 0), (0, 1)))
        found = place_radius([of_weights([1.0, 0.0])], cubes, np.zeros((1, 3)), share=0.9, spacing=6.0)
        assert found[0] == pytest.approx(3, rel=0.02)

    @pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
    @pytest.mark.parametrize("n_mappings", [1, 3])
    def test_it_is_the_quantile_of_distances(self, n_mappings: int, share: float) -> None:
        mappings = [
            Mapping(queries=drawn(17, 6, seed=number), keys=drawn(60, 6, seed=9))
            for number in range(n_mappings)
        ]
        spots = spots_of(60)
        weights = np.mean([weights_of(one) for one in mappings], axis=0)
        places = weights @ spots
        found = place_radius(mappings, spots, places, share=share, spacing=1.0)
        for cell in range(17):
            distances = np.sqrt(((spots - places[cell]) ** 2).sum(axis=1) + 1 / 6)
            expected = naive_radius(weights[cell], distances, share)
            assert found[cell] == pytest.approx(expected, rel=2 * BIN)

    @pytest.mark.parametrize("most_keys", [4, 2**15])
    def test_block_size_does_not_matter(self, monkeypatch: pytest.MonkeyPatch, most_keys: int) -> None:
        spots, places = spots_of(), spots_of(17)
        whole = place_radius([make()], spots, places, share=0.8, spacing=1.0)
        monkeypatch.setattr("cellweft.nn.mapping._MOST_KEYS", most_keys)
        monkeypatch.setattr(room, "_ROWS", 5)
        again = place_radius([make(block=9)], spots, places, share=0.8, spacing=1.0)
        np.testing.assert_allclose(again, whole, rtol=1e-3)

    @given(seed=st.integers(0, 999))
    @settings(max_examples=15, deadline=None)
    def test_a_larger_share_has_a_larger_radius(self, seed: int) -> None:
        places = np.random.default_rng(seed).uniform(100, 120, (17, 2))
        found = [
            place_radius([make()], spots_of(), places, share=share, spacing=1.0)
            for share in (0.01, 0.3, 0.6, 0.9, 0.999)
        ]
        assert (np.diff(found, axis=0) >= 0).all()
        assert np.isfinite(found).all()

    def test_the_unit_and_the_origin_do_not_matter(self) -> None:
        spots, places = spots_of(), spots_of(17)
        plain = place_radius([make()], spots, places, share=0.8, spacing=1.0)
        moved = place_radius([make()], spots * 50 + 1e6, places * 50 + 1e6, share=0.8, spacing=50.0)
        np.testing.assert_allclose(moved, 50 * plain, rtol=1e-3)

    def test_spots_at_the_same_position_and_no_cells(self) -> None:
        at_one = np.full((13, 2), 7.0)
        found = place_radius([make()], at_one, np.full((17, 2), 7.0), share=0.9, spacing=1.0)
        np.testing.assert_allclose(found, math.sqrt(1 / 6), rtol=BIN)
        assert place_radius([make(0)], spots_of(), np.zeros((0, 2)), share=0.9, spacing=1.0).shape == (0,)


class TestEncoders:
    @pytest.mark.parametrize("n_encoded", [3, 0])
    def test_their_geometric_mean_is_the_mapping(self, n_encoded: int) -> None:
        mapping = make()
        parts = encoder_mappings(mapping, 3, n_encoded or mapping.keys.shape[1], flatten=1.0)
        products = [np.log(weights_of(one)) for one in parts]
        mean = np.exp(np.mean(products, axis=0))
        np.testing.assert_allclose(mean / mean.sum(axis=1, keepdims=True), weights_of(mapping), rtol=1e-5)

    def test_flattened_mappings(self) -> None:
        mapping = make()
        (one,) = encoder_mappings(mapping, 1, mapping.keys.shape[1], flatten=0.5)
        roots = np.sqrt(weights_of(mapping))
        np.testing.assert_allclose(weights_of(one), roots / roots.sum(axis=1, keepdims=True), rtol=1e-5)
        assert encoder_mappings(make(block=7), 2, 4)[1].block_entries == 7
