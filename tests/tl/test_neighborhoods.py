"""Niches: counts by hand and in a naive loop, z-scores against theory and squidpy, and hollow rings."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._errors import InputError, SettingError
from cellweft.tl._neighborhoods import (
    _p_values,
    _pair_counts,
    _radius_ratios,
    _z_scores,
    hollow_structure,
    neighborhood_enrichment,
    radial_concentration,
    region_enrichment,
)

ROUNDING = 1e-9
"""Rounding of float64."""

DRAW = 0.2
"""Largest deviation of a z-score of some thousand permutations; its sd has an error of 1 / sqrt(2 n)."""


def tissue(n_cells: int = 240, seed: int = 0) -> tuple[np.ndarray, np.ndarray, sp.csr_matrix]:
    """Draw positions and types of cells (one type on the left), and the graph of 5 nearest neighbours."""
    from sklearn.neighbors import kneighbors_graph

    rng = np.random.default_rng(seed)
    places = rng.uniform(0, 1, (n_cells, 2))
    types = np.where(places[:, 0] < 0.3, "left", rng.choice(["b", "c"], n_cells, p=[0.7, 0.3]))
    return places, types, kneighbors_graph(places, 5, mode="distance")


def naive_counts(graph: sp.csr_matrix, types: np.ndarray) -> np.ndarray:
    names = sorted(set(types))
    counts = np.zeros((len(names), len(names)))
    dense = graph.toarray()
    for cell in range(len(types)):
        for other in range(len(types)):
            if dense[cell, other] != 0:
                counts[names.index(types[cell]), names.index(types[other])] += 1
    return counts


# Neighbours


def test_neighbors_of_a_hand_computed_case() -> None:
    # two neighbouring cells and a single one; two of the three have type a. The 3 orders of the labels give
    # 2, 0 and 0 edges aa, and one edge ab each way in the last two
    graph = sp.csr_matrix(np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]]))
    z = neighborhood_enrichment(graph, np.array(["a", "a", "b"]), n_permutations=5000)
    # counts of aa: 2 with 1/3, else 0, mean 2/3, sd sqrt(8)/3; ab: 0 with 1/3, else 1, mean 2/3, sd sqrt(2)/3
    expected = [[4 / np.sqrt(8), -np.sqrt(2)], [-np.sqrt(2), 0]]
    np.testing.assert_allclose(z, expected, atol=0.1)
    assert z.loc["b", "b"] == 0  # a single cell has no edge bb
    assert list(z.index) == list(z.columns) == ["a", "b"]
    assert (z.index.name, z.columns.name) == ("type", "neighbor")


def test_neighbors_equal_a_naive_loop() -> None:
    _, types, graph = tissue(60)
    rng = np.random.default_rng(5)
    codes = np.unique(types, return_inverse=True)[1]
    coo = graph.tocoo()
    counts = _pair_counts(codes[coo.row], codes[coo.col], shape=(3, 3))
    np.testing.assert_array_equal(counts, naive_counts(graph, types))
    permuted = np.array([naive_counts(graph, rng.permutation(types)) for _ in range(300)])
    expected = (counts - permuted.mean(axis=0)) / permuted.std(axis=0)
    found = neighborhood_enrichment(graph, types, n_permutations=3000)
    # both are estimates, the naive one from 300 permutations
    np.testing.assert_allclose(found, expected, rtol=0.15, atol=0.3)


def test_types_that_lie_together_are_enriched() -> None:
    _, types, graph = tissue()
    z = neighborhood_enrichment(graph, types)
    assert z.loc["left", "left"] > 10
    assert z.loc["left", "b"] < -5
    assert z.loc["b", "left"] < -5


@pytest.mark.slow
def test_random_types_are_not_enriched() -> None:
    rng = np.random.default_rng(0)
    _, _, graph = tissue(400)
    z = np.array(
        [
            neighborhood_enrichment(graph, rng.choice(list("ab"), 400), n_permutations=200, seed=seed)
            for seed in range(150)
        ]
    )
    assert np.abs(z.mean(axis=0)).max() < 0.3
    np.testing.assert_allclose(z.std(axis=0), 1, atol=0.2)


def test_a_symmetric_graph_gives_symmetric_scores() -> None:
    _, types, graph = tissue()
    z = neighborhood_enrichment(graph + graph.T, types, n_permutations=50)
    np.testing.assert_allclose(z, z.T, atol=ROUNDING)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 9999))
def test_order_of_cells_does_not_matter(seed: int) -> None:
    _, types, graph = tissue(80)
    order, n_drawn = np.random.default_rng(seed).permutation(80), 1500
    expected = neighborhood_enrichment(graph, types, n_permutations=n_drawn)
    found = neighborhood_enrichment(graph[order][:, order], types[order], n_permutations=n_drawn)
    # On both sides, mean and sd from n draws have errors of 1 / sqrt(n) and 1 / sqrt(2 n) standard
    # deviations.
    error = np.sqrt(2 * (1 + expected**2 / 2) / n_drawn)
    assert ((found - expected).abs() < 5 * error).all(axis=None)


def test_weights_and_stored_zeros_do_not_matter() -> None:
    _, types, graph = tissue(80)
    expected = neighborhood_enrichment((graph != 0).astype(float), types, n_permutations=20)
    stored = graph.tolil()
    stored[0, 7] = 1.0
    stored = stored.tocsr()
    stored.data[stored.data == 1.0] = 0.0
    for same in (graph, -graph, graph.toarray(), graph.tocsc(), sp.csr_array(graph), stored):
        found = neighborhood_enrichment(same, types, n_permutations=20)
        pd.testing.assert_frame_equal(found, expected, atol=ROUNDING)


def test_the_seed_determines_the_permutations() -> None:
    _, types, graph = tissue(80)
    state = np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002
    one, again, other = (neighborhood_enrichment(graph, types, n_permutations=20, seed=s) for s in (0, 0, 1))
    pd.testing.assert_frame_equal(one, again)
    assert not one.equals(other)
    np.testing.assert_array_equal(np.random.get_state(legacy=False)["state"]["key"], state)  # noqa: NPY002


def test_a_single_type_has_a_z_score_of_zero() -> None:
    _, _, graph = tissue(40)
    z = neighborhood_enrichment(graph, np.full(40, "a"), n_permutations=10)
    assert z.to_numpy().tolist() == [[0.0]]


@pytest.mark.filterwarnings("ignore")  # warnings of squidpy's dependencies
def test_neighbors_equal_squidpy() -> None:
    squidpy = pytest.importorskip("squidpy")
    import anndata

    _, types, graph = tissue()
    data = anndata.AnnData(np.zeros((240, 1)), obs=pd.DataFrame({"type": pd.Categorical(types)}))
    data.obsp["spatial_connectivities"] = graph
    theirs = squidpy.gr.nhood_enrichment(
        data, "type", n_perms=2000, seed=0, copy=True, show_progress_bar=False
    )
    scores, counts = np.asarray(theirs[0]), np.asarray(theirs[1])
    np.testing.assert_array_equal(counts, naive_counts(graph, types))
    found = neighborhood_enrichment(graph, types, n_permutations=2000)
    # both estimate the mean to 1 / sqrt(2,000) sd, and the sd relatively to about half of that, times sqrt(2)
    np.testing.assert_allclose(found, scores, rtol=0.1, atol=DRAW)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (np.ones((3, 4)), r"adjacency: expected a graph of cells x cells, got shape \(3, 4\)"),
        (np.zeros((3, 3)), "adjacency: expected at least one edge, got none"),
        (np.full((3, 3), np.nan), "adjacency: expected finite weights, got NaN or infinity"),
        (np.ones((2, 2)), r"labels: expected one label for each of the 2 cells, got shape \(3,\)"),
    ],
)
def test_invalid_graphs_are_refused(graph: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        neighborhood_enrichment(sp.csr_matrix(graph), np.array(["a", "b", "c"]))


def test_missing_labels_are_refused() -> None:
    with pytest.raises(InputError, match=r"labels: expected one label .* got 1 missing"):
        neighborhood_enrichment(sp.eye(2, format="csr"), np.array(["a", None]))


@pytest.mark.parametrize("n_permutations", [1, 0, 2.5])
def test_too_few_permutations(n_permutations: float) -> None:
    places, types, graph = tissue(40)
    with pytest.raises(SettingError, match="n_permutations: expected a whole number from 2 "):
        neighborhood_enrichment(graph, types, n_permutations=n_permutations)
    with pytest.raises(SettingError, match="n_permutations: expected a whole number from 2 "):
        region_enrichment(
            places, types, region_places=places, region_labels=types, n_permutations=n_permutations
        )


# Regions


def layers(n_cells: int = 150, n_spots: int = 100) -> dict[str, np.ndarray]:
    """Draw cells of two types over three layers of spots: type a in the first layer, b everywhere."""
    rng = np.random.default_rng(0)
    spots = rng.uniform(0, 3, (n_spots, 2))
    cells = rng.uniform(0, 3, (n_cells, 2))
    types = np.full(n_cells, "b")
    types[: n_cells // 3] = "a"
    cells[: n_cells // 3, 0] /= 3
    return {
        "places": cells,
        "labels": types,
        "region_places": spots,
        "region_labels": np.array(["L1", "L2", "L3"])[spots[:, 0].astype(int)],
    }


def test_regions_of_a_hand_computed_case() -> None:
    # four cells on a line, each next to its own spot; both cells of type a are in the first region
    places = np.column_stack([np.arange(4.0), np.zeros(4)])
    table = region_enrichment(
        places,
        np.array(list("aabb")),
        region_places=places + 0.1,
        region_labels=np.array(["in", "in", "out", "out"]),
        k=1,
        n_permutations=6000,
    )
    # of the 6 orders, 1 puts both a in the region, 4 put one and 1 none: mean 1, variance 1/3
    assert table["count"].tolist() == [2, 0, 0, 2]
    np.testing.assert_allclose(table["expected"], 1, atol=0.03)
    np.testing.assert_allclose(table["z"], [np.sqrt(3), -np.sqrt(3), -np.sqrt(3), np.sqrt(3)], atol=0.1)
    np.testing.assert_allclose(table["p"], 1 / 3, atol=0.03)
    np.testing.assert_allclose(table["fdr"], 1 / 3, atol=0.03)
    assert table["type"].tolist() == ["a", "a", "b", "b"]
    assert table["region"].tolist() == ["in", "out", "in", "out"]


@pytest.mark.parametrize("k", [1, 6])
def test_regions_have_the_exact_mean_and_variance(k: int) -> None:
    # a sum over n_t cells drawn without replacement from n: mean n_t m, variance n_t (1 - n_t / n) s^2
    given_ = layers()
    table = region_enrichment(k=k, n_permutations=4000, **given_).set_index(["type", "region"])
    apart = np.linalg.norm(given_["places"][:, None] - given_["region_places"], axis=2)
    nearest = np.argsort(apart, axis=1)[:, :k]
    for (one, region), row in table.iterrows():
        around = (given_["region_labels"][nearest] == region).sum(axis=1)
        chosen = given_["labels"] == one
        mean = chosen.sum() * around.mean()
        spread = np.sqrt(chosen.sum() * (1 - chosen.mean()) * around.var(ddof=1))
        assert row["count"] == around[chosen].sum()
        assert row["expected"] == pytest.approx(mean, abs=0.1 * spread)
        assert row["z"] == pytest.approx((row["count"] - mean) / spread, rel=0.05, abs=0.1)


def test_types_are_enriched_in_their_regions() -> None:
    table = region_enrichment(**layers())
    z = table.pivot_table(index="type", columns="region", values="z")
    assert z.loc["a", "L1"] > 5
    assert z.loc["a", ["L2", "L3"]].max() < -3
    assert z.loc["b", "L1"] < -5
    assert (table["fdr"] < 0.05).all()
    assert table["p"].min() == 1 / 1001


@pytest.mark.slow
def test_random_types_are_not_enriched_in_regions() -> None:
    given_ = layers()
    rng = np.random.default_rng(0)
    p = []
    for seed in range(100):
        mixed = given_ | {"labels": rng.permutation(given_["labels"])}
        p.append(region_enrichment(n_permutations=199, seed=seed, **mixed)["p"].to_numpy())
    # 100 draws; in each, the two types are complementary and the three regions have a constant sum
    assert np.mean(np.array(p) <= 0.05) < 0.1
    assert np.mean(np.array(p) <= 0.5) == pytest.approx(0.5, abs=0.12)


def test_order_of_cells_and_spots_does_not_matter() -> None:
    given_ = layers()
    rng = np.random.default_rng(1)
    rows, spots = rng.permutation(150), rng.permutation(100)
    moved = {key: value[spots] if key.startswith("region") else value[rows] for key, value in given_.items()}
    one, other = (region_enrichment(n_permutations=3000, **each) for each in (given_, moved))
    pd.testing.assert_frame_equal(one[["type", "region", "count"]], other[["type", "region", "count"]])
    np.testing.assert_allclose(one["z"], other["z"], rtol=0.1, atol=DRAW)


def test_a_single_region_gives_no_enrichment() -> None:
    table = region_enrichment(**(layers() | {"region_labels": np.full(100, "all")}))
    assert table["z"].tolist() == [0, 0]
    assert table["p"].tolist() == [1, 1]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 9999))
def test_z_and_p_equal_naive_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, permuted = rng.integers(0, 4, (2, 3)), rng.integers(0, 4, (9, 2, 3))
    permuted[:, 0, 0] = 2
    z, p = _z_scores(count, permuted), _p_values(count, permuted)
    for at in np.ndindex(2, 3):
        draws = [int(draw) for draw in permuted[(slice(None), *at)]]
        mean = sum(draws) / 9
        spread = (sum((draw - mean) ** 2 for draw in draws) / 9) ** 0.5
        far = sum(abs(9 * draw - sum(draws)) >= abs(9 * int(count[at]) - sum(draws)) for draw in draws)
        assert z[at] == pytest.approx((count[at] - mean) / spread if spread else 0, abs=ROUNDING)
        assert p[at] == pytest.approx((1 + far) / 10)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        (
            {"places": np.zeros((150, 4))},
            InputError,
            r"^places: expected 2 or 3 columns, one row per cell, got shape \(150, 4\)",
        ),
        (
            {"places": np.zeros((0, 2))},
            InputError,
            r"at least one row in each, got shapes \(0, 2\) \(places\)",
        ),
        ({"places": np.zeros((150, 3))}, InputError, r"region_places: .* dimensions as places"),
        ({"region_places": np.full((9, 2), np.nan)}, InputError, "region_places: expected a finite number"),
        ({"labels": np.array(["a"])}, InputError, "^labels: expected one label for each of the 150"),
        (
            {"region_labels": np.array(["a"])},
            InputError,
            "region_labels: expected one label for each of the 100",
        ),
        ({"k": 0}, SettingError, "k: expected a whole number from 1 to 100, got 0"),
        ({"k": 101}, SettingError, "k: expected a whole number from 1 to 100, got 101"),
    ],
)
def test_invalid_regions_are_refused(changes: dict[str, object], kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        region_enrichment(**(layers() | changes))


# Hollow structure


def test_hollow_structure_of_a_hand_computed_case() -> None:
    # on a line: 0, 1, 3 and 8; centre 3, distances 3, 2, 0, 5; nearest neighbours 1, 1, 2, 5: D = 9/4
    line = np.array([[0.0], [1.0], [3.0], [8.0]])
    np.testing.assert_allclose(_radius_ratios(line, 0), np.array([3, 2, 0, 5]) / 2.25)
    table = hollow_structure(line, radii=np.array([0.0, 2, 2.5, 3, 5]) / 2.25)
    assert list(table.columns) == ["radius_ratio", "share"]
    assert table["share"].tolist() == [0.25, 0.5, 0.5, 0.75, 1.0]
    assert radial_concentration(line, share=0.5) == pytest.approx(2 / 2.25)
    assert radial_concentration(line, share=0.0) == 0
    assert radial_concentration(line, share=1.0) == pytest.approx(5 / 2.25)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 9999), n_cells=st.integers(3, 30))
def test_hollow_structure_equals_a_naive_loop(seed: int, n_cells: int) -> None:
    cells = np.random.default_rng(seed).normal(size=(n_cells, 5))
    centre = cells.mean(axis=0)
    nearest = [
        min(float(np.linalg.norm(one - other)) for j, other in enumerate(cells) if i != j)
        for i, one in enumerate(cells)
    ]
    expected = np.linalg.norm(cells - centre, axis=1) / np.mean(nearest)
    np.testing.assert_allclose(_radius_ratios(cells, 0), expected)
    table = hollow_structure(cells)
    naive = [np.mean(expected <= ratio + ROUNDING) for ratio in table["radius_ratio"]]
    np.testing.assert_allclose(table["share"], naive)


def test_a_ring_is_hollow_and_a_disc_is_not() -> None:
    rng = np.random.default_rng(0)
    angle, radius = rng.uniform(0, 2 * np.pi, 800), np.sqrt(rng.uniform(0, 1, 800))
    disc = np.column_stack([np.cos(angle), np.sin(angle)]) * radius[:, None]
    ring = np.column_stack([np.cos(angle), np.sin(angle)]) * (0.9 + 0.1 * radius[:, None])
    assert radial_concentration(ring) > 3 * radial_concentration(disc)
    curves = [hollow_structure(cells, radii=np.linspace(0, 30, 31))["share"] for cells in (disc, ring)]
    assert (curves[1] <= curves[0]).all()
    assert curves[1][10] == 0 < curves[0][10]


def test_the_curve_ends_with_all_cells() -> None:
    table = hollow_structure(np.random.default_rng(0).normal(size=(50, 8)))
    assert len(table) == 101
    assert table["radius_ratio"][0] == 0
    assert table["share"].iloc[-1] == 1
    assert table["share"].is_monotonic_increasing


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 9999), scale=st.floats(1e-3, 1e3), offset=st.floats(-100, 100))
def test_order_units_and_copies_do_not_matter(seed: int, scale: float, offset: float) -> None:
    rng = np.random.default_rng(seed)
    cells = rng.normal(size=(30, 4))
    order = rng.permutation(30)
    expected = _radius_ratios(cells, 0)
    np.testing.assert_allclose(_radius_ratios(cells[order], 0), expected[order], rtol=1e-6)
    np.testing.assert_allclose(_radius_ratios(scale * cells + offset, 0), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(_radius_ratios(np.vstack([cells, cells]), 0)[:30], expected, rtol=1e-6)


def test_near_cells_far_from_zero() -> None:
    # float32 products of such numbers would lose distances of 1e-3
    cells = 1000 + np.arange(6.0)[:, None] * np.array([[1e-3, 0.0]])
    np.testing.assert_allclose(_radius_ratios(cells, 0), [2.5, 1.5, 0.5, 0.5, 1.5, 2.5], rtol=1e-6)


def test_many_cells_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = np.random.default_rng(0).normal(size=(900, 3)).astype(np.float32)
    whole = radial_concentration(cells)
    monkeypatch.setattr("cellweft.tl._neighborhoods._MOST_QUERIES", 300)
    # a mean over 300 distances that vary by about 40 %
    assert radial_concentration(cells) == pytest.approx(whole, rel=0.1)
    assert (
        radial_concentration(cells, seed=1)
        == radial_concentration(cells, seed=1)
        != radial_concentration(cells)
    )


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (np.zeros(5), r"embeddings: expected finite values, cells x latent, .* got shape \(5,\)"),
        (np.zeros((1, 5)), r"of at least 2 cells, got shape \(1, 5\)"),
        (np.full((3, 2), np.nan), "embeddings: expected finite values"),
        (np.ones((3, 2)), "expected cells that differ, got 3 identical cells"),
    ],
)
def test_invalid_embeddings_are_refused(cells: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        hollow_structure(cells)
    with pytest.raises(InputError, match=message):
        radial_concentration(cells)


@pytest.mark.parametrize(
    ("radii", "got"), [([[1.0]], r"shape \(1, 1\)"), ([np.nan], "NaN, infinity"), ([-1.0], "numbers below 0")]
)
def test_invalid_radii_are_refused(radii: list[float], got: str) -> None:
    with pytest.raises(InputError, match=f"radii: expected finite numbers of at least 0, got .*{got}"):
        hollow_structure(np.eye(3), radii=np.array(radii))


def test_an_invalid_share_is_refused() -> None:
    with pytest.raises(SettingError, match=r"share: expected a number from 0 to 1, got 1.5"):
        radial_concentration(np.eye(3), share=1.5)
