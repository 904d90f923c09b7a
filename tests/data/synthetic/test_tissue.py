"""The simulated tissue: its documented properties, and that it separates good methods from poor ones."""

from typing import Any

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._errors import SettingError
from cellweft.data.synthetic.tissue import SimulatedTissue, simulate_tissue

SMALL: dict[str, Any] = {"n_spatial": 300, "n_reference": 200, "n_genes": 60, "n_panel": 20}


@pytest.fixture(scope="module")
def tissue() -> SimulatedTissue:
    return simulate_tissue()


def log_normalised(adata: anndata.AnnData) -> np.ndarray:
    counts = adata.X.toarray().astype(float)
    totals = counts.sum(axis=1, keepdims=True)
    return np.log1p(counts / np.maximum(totals, 1) * np.median(totals))


def pearson(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Return the correlation of each column, 0 for a constant."""
    a, b = truth - truth.mean(axis=0), prediction - prediction.mean(axis=0)
    size = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
    return np.where(size > 1e-9, (a * b).sum(axis=0) / np.maximum(size, 1e-9), 0.0)


def nearest_50(tissue: SimulatedTissue) -> np.ndarray:
    """Predict all genes by the mean of the 50 nearest reference cells, by cosine of z-scored panel genes."""
    panel = tissue.truth.var["panel"].to_numpy()
    reference, query = log_normalised(tissue.sc), log_normalised(tissue.st)

    def units(matrix: np.ndarray) -> np.ndarray:
        scaled = (matrix - matrix.mean(axis=0)) / np.maximum(matrix.std(axis=0), 1e-9)
        return scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-9)

    similarity = units(query) @ units(reference[:, panel]).T
    nearest = np.argpartition(-similarity, 50, axis=1)[:, :50]
    return reference[nearest].mean(axis=1)


def test_shapes_names_and_slots(tissue: SimulatedTissue) -> None:
    assert tissue.sc.shape == (1500, 300)
    assert tissue.st.shape == (2000, 60)
    assert tissue.truth.shape == (2000, 300)
    assert list(tissue.sc.var_names[:2]) == ["Gene001", "Gene002"]
    assert list(tissue.sc.var_names) == list(tissue.truth.var_names)
    assert list(tissue.st.obs_names) == list(tissue.truth.obs_names)
    assert set(tissue.st.var_names) < set(tissue.sc.var_names)
    assert list(tissue.st.obs) == ["cell_type", "layer"]
    assert tissue.st.obsm["spatial"].shape == (2000, 2)
    assert tissue.sc.obsm["spatial_true"].shape == (1500, 2)
    for side in (tissue.sc, tissue.st, tissue.truth):
        assert side.obs_names.is_unique
        assert side.var_names.is_unique


def test_counts_are_raw_and_sparse(tissue: SimulatedTissue) -> None:
    for side in (tissue.sc, tissue.st, tissue.truth):
        assert sp.issparse(side.X)
        assert side.X.dtype == np.float32
        assert (side.X.data > 0).all()
        assert (side.X.data == np.round(side.X.data)).all()
    for side in (tissue.sc, tissue.st):
        assert 0.3 < 1 - side.X.nnz / np.prod(side.shape) < 0.8


def test_the_truth_contains_the_panel_and_more_genes(tissue: SimulatedTissue) -> None:
    panel = tissue.truth.var["panel"].to_numpy()
    assert panel.sum() == 60
    assert (tissue.truth[:, panel].X != tissue.st.X).nnz == 0
    np.testing.assert_array_equal(tissue.truth.obsm["spatial"], tissue.st.obsm["spatial"])


def test_the_same_seed_gives_the_same_bits_and_the_global_state_is_not_used() -> None:
    np.random.seed(1)  # noqa: NPY002 - to see that nobody moves it
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second, other = (simulate_tissue(**SMALL, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert (first.sc.X != second.sc.X).nnz == 0
    assert (first.truth.X != second.truth.X).nnz == 0
    np.testing.assert_array_equal(first.st.obsm["spatial"], second.st.obsm["spatial"])
    assert (first.sc.X != other.sc.X).nnz > 0


def test_layers_are_bands(tissue: SimulatedTissue) -> None:
    depth = tissue.st.obsm["spatial"][:, 1]
    layer = tissue.st.obs["layer"].cat.codes.to_numpy()
    middle = [depth[layer == one].mean() for one in range(5)]
    assert middle == sorted(middle)
    spread = [depth[layer == one].std() for one in range(5)]
    assert max(spread) < 0.12 * np.ptp(depth)
    # Each band has its own mixture of types.
    types = tissue.st.obs["cell_type"].cat.codes.to_numpy()
    shares = np.array(
        [np.bincount(types[layer == one], minlength=8) / (layer == one).sum() for one in range(5)]
    )
    distance = np.abs(shares[:, None] - shares[None]).sum(axis=2) / 2
    assert distance[np.triu_indices(5, 1)].min() > 0.2


def test_cells_keep_a_minimum_distance(tissue: SimulatedTissue) -> None:
    from scipy.spatial import cKDTree

    place = tissue.st.obsm["spatial"]
    nearest = cKDTree(place).query(place, k=2)[0][:, 1]
    assert nearest.min() > 2
    assert 7 < np.median(nearest) < 15


def test_gradients_run_along_their_layer_and_around_the_focus(tissue: SimulatedTissue) -> None:
    values, pattern = log_normalised(tissue.truth), tissue.truth.var["pattern"].to_numpy()
    across, depth = (tissue.st.obsm["spatial"] / tissue.st.obsm["spatial"].max(axis=0)).T
    layer = tissue.st.obs["layer"].cat.codes.to_numpy()
    lateral = values[:, pattern == "lateral"]
    strength = [
        np.abs(
            pearson(lateral[layer == one], across[layer == one, None] + np.zeros_like(lateral[layer == one]))
        )
        for one in range(5)
    ]
    assert np.median(np.max(strength, axis=0)) > 0.3
    near = np.hypot(across - 0.65, depth - 0.45) < 0.1
    radial = values[:, pattern == "radial"]
    assert np.median(radial[near].mean(axis=0) - radial[~near].mean(axis=0)) > 0.5


def test_types_share_programmes_and_have_their_own(tissue: SimulatedTissue) -> None:
    values, pattern = log_normalised(tissue.truth), tissue.truth.var["pattern"].to_numpy()
    types = tissue.truth.obs["cell_type"].cat.codes.to_numpy()
    means = np.array([values[types == one].mean(axis=0) for one in range(8)])
    top, second = np.sort(means, axis=0)[[-1, -2]]
    assert np.median((top - second)[pattern == "specific"]) > 3 * np.median(
        (top - second)[pattern == "shared"]
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_50_neighbours_predict_hidden_genes_and_a_constant_does_not(seed: int) -> None:
    tissue = simulate_tissue(seed=seed)
    held_back = ~tissue.truth.var["panel"].to_numpy()
    truth = log_normalised(tissue.truth)[:, held_back]
    score = np.median(pearson(truth, nearest_50(tissue)[:, held_back]))
    assert 0.3 < score < 0.6
    constant = np.broadcast_to(log_normalised(tissue.sc).mean(axis=0)[held_back], truth.shape)
    assert np.median(pearson(truth, constant)) == 0
    # Cell types alone predict less well: there is more to find than types.
    reference = log_normalised(tissue.sc)[:, held_back]
    kinds = tissue.sc.obs["cell_type"].cat.codes.to_numpy()
    means = np.array([reference[kinds == one].mean(axis=0) for one in range(8)])
    of_type = means[tissue.truth.obs["cell_type"].cat.codes.to_numpy()]
    assert np.median(pearson(truth, of_type)) < score


def test_the_panel_prefers_markers(tissue: SimulatedTissue) -> None:
    values, panel = log_normalised(tissue.truth), tissue.truth.var["panel"].to_numpy()
    types = tissue.truth.obs["cell_type"].cat.codes.to_numpy()
    contrast = np.std([values[types == one].mean(axis=0) for one in range(8)], axis=0)
    assert np.median(contrast[panel]) > np.median(contrast[~panel])


def test_dropout_and_platform_effect_have_their_documented_effect() -> None:
    plain, dropped = (simulate_tissue(**SMALL, dropout=rate, platform_effect=0.0) for rate in (0.0, 0.8))
    assert dropped.sc.X.nnz < 0.8 * plain.sc.X.nnz
    assert (dropped.truth.X != plain.truth.X).nnz == 0
    shifted = simulate_tissue(**SMALL, dropout=0.0, platform_effect=1.0)
    assert (shifted.sc.X != plain.sc.X).nnz == 0
    ratio = np.log(shifted.truth.X.mean(axis=0) / plain.truth.X.mean(axis=0))
    assert 0.7 < np.std(ratio) < 1.3


@given(
    n_spatial=st.integers(2, 40),
    n_reference=st.integers(2, 40),
    n_genes=st.integers(2, 30),
    n_types=st.integers(1, 12),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=15, deadline=None)
def test_every_size_works(n_spatial: int, n_reference: int, n_genes: int, n_types: int, seed: int) -> None:
    tissue = simulate_tissue(
        n_spatial=n_spatial, n_reference=n_reference, n_genes=n_genes, n_panel=1, n_types=n_types, seed=seed
    )
    assert tissue.sc.shape == (n_reference, n_genes)
    assert tissue.st.shape == (n_spatial, 1)
    assert np.isfinite(tissue.st.obsm["spatial"]).all()
    assert len(tissue.st.obs["cell_type"].cat.categories) == n_types


def test_all_genes_may_be_on_the_panel() -> None:
    assert simulate_tissue(**SMALL | {"n_panel": 60}).st.shape == (300, 60)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"n_panel": 61}, "n_panel: expected a whole number from 1 to 60, got 61"),
        ({"n_types": 0}, "n_types: expected a whole number from 1 to .*, got 0"),
        ({"n_spatial": 1}, "n_spatial: expected a whole number from 2 to .*, got 1"),
        ({"n_reference": 2.5}, r"n_reference: expected a whole number from 2 to .*, got 2\.5"),
        ({"dropout": 1.5}, r"dropout: expected a number from 0 to 1, got 1\.5"),
        ({"platform_effect": -1}, "platform_effect: expected a number >= 0, got -1"),
        ({"seed": -1}, "seed: expected a whole number >= 0, got -1"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        simulate_tissue(**SMALL | setting)


@pytest.mark.slow
def test_a_large_tissue_is_usable() -> None:
    tissue = simulate_tissue(n_spatial=100_000, n_reference=20_000)
    assert tissue.truth.shape == (100_000, 300)
