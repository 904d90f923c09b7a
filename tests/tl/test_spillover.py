"""Spill-over of cells: known amounts, cells without an estimate, and errors."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import cellweft
from cellweft._errors import InputError
from cellweft.data._pair import Pair
from cellweft.data.synthetic.tissue import SimulatedTissue
from cellweft.tl import _spillover


def made(spill_over: float) -> SimulatedTissue:
    return cellweft.datasets.simulate_cortex(
        n_spatial=500, n_reference=500, n_genes=90, n_panel=45, spill_over=spill_over
    )


@pytest.fixture(scope="module")
def cortex() -> SimulatedTissue:
    return made(0.3)


@pytest.fixture(scope="module")
def cortex_pair(cortex: SimulatedTissue) -> Pair:
    return cellweft.pair(cortex.sc, cortex.st)


def told(pair: Pair, **options: object) -> np.ndarray:
    return cellweft.tl.spillover(pair, progress=False, **options).to_numpy()


def test_a_known_amount_is_recovered_and_is_zero_without_spill_over(
    cortex: SimulatedTissue, cortex_pair: Pair
) -> None:
    share = cellweft.tl.spillover(cortex_pair, progress=False)
    truth = cortex.truth.obs["spill_over"].to_numpy()
    assert share.name == "cellweft_spillover"
    assert share.index.equals(cortex_pair.st.obs_names)
    assert share.between(0, 1).all()
    assert share.mean() == pytest.approx(truth.mean(), abs=0.12)
    record = share.attrs["cellweft"]
    assert record["mean"] == pytest.approx(share.mean())
    assert record["caution"].startswith("Spatial: ")
    assert sum(record["frequencies"].values()) == pytest.approx(1)
    clean = made(0.0)
    without = cellweft.tl.spillover(cellweft.pair(clean.sc, clean.st), progress=False)
    assert without.mean() < 0.04
    assert without.attrs["cellweft"]["caution"] == ""


@pytest.mark.slow
def test_blocks_seeds_and_formats_of_the_matrix_do_not_matter(
    cortex: SimulatedTissue, cortex_pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = told(cortex_pair)
    np.testing.assert_array_equal(share, told(cortex_pair))
    dense = cortex.st.copy()
    dense.X = dense.X.toarray()
    np.testing.assert_array_equal(share, told(cellweft.pair(cortex.sc, dense)))
    monkeypatch.setattr(_spillover, "READ_ROWS", 77)
    np.testing.assert_allclose(told(cortex_pair), share, rtol=0, atol=1e-4)  # float32 sums


def panel_shares(pair: Pair) -> np.ndarray:
    """Share of each panel gene in the panel counts of each cell."""
    stored = pair.st.stored(slice(None), pair.st_shared)
    counts = np.asarray(stored.toarray() if sp.issparse(stored) else stored, dtype=np.float64)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-9)


def test_counts_without_spill_over_are_closer_to_the_cells_own(
    cortex: SimulatedTissue, cortex_pair: Pair
) -> None:
    clean = made(0.0)  # the same cells
    own = cellweft.tl.remove_spillover(cortex_pair, progress=False)
    types = cortex.truth.obs["cell_type"].to_numpy()  # individual cells have too few counts to compare
    truth, before, after = (
        pd.DataFrame(panel_shares(pair)).groupby(types).mean()
        for pair in (cellweft.pair(clean.sc, clean.st), cortex_pair, own)
    )
    assert (after - truth).abs().to_numpy().mean() < 0.9 * (before - truth).abs().to_numpy().mean()
    removed = own.findings["spillover_removed"]
    assert removed == pytest.approx(cortex.truth.obs["spill_over"].mean(), abs=0.12)
    assert own.cautions == (*cortex_pair.cautions, own.cautions[-1])
    assert f"removed from the counts, {removed:.0%} of a cell on average" in own.cautions[-1]
    imputer = cellweft.Imputer(settings={"steps": 3, "level_steps": 3}, reliability=False)
    assert np.isfinite(imputer.fit(own, progress=False).impute([cortex_pair.sc.genes[0]]).X).all()
    assert own.st.n_genes == len(own.shared_genes) == len(own.st.input_names)
    with pytest.raises(InputError, match="expected counts as measured, because a trace of held-out genes"):
        own.hold_out(own.shared_genes[:3])


def test_size_factors_are_not_reduced(cortex: SimulatedTissue) -> None:
    st = cortex.st.copy()
    st.obs["area"] = np.linspace(50, 90, st.n_obs)
    pair = cellweft.pair(cortex.sc, st, st_size_factor="area")
    own = cellweft.tl.remove_spillover(pair, progress=False)
    np.testing.assert_array_equal(own.st.totals, pair.st.totals)


def test_a_pair_without_some_cells_keeps_their_names_and_positions(cortex: SimulatedTissue) -> None:
    st = cortex.st.copy()
    st.X = sp.csr_matrix(st.X)
    st.obs["in_tissue"] = np.arange(st.n_obs) % 5 > 0  # cells outside the tissue are dropped
    pair = cellweft.pair(cortex.sc, st)
    own = cellweft.tl.remove_spillover(pair, progress=False)
    assert own.st.rows is not None
    assert own.st.obs_names.equals(pair.st.obs_names)
    before, after = panel_shares(pair), panel_shares(own)
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.9
    counts = [one.st.stored(slice(None), one.st_shared).toarray() for one in (pair, own)]
    assert (counts[1] <= counts[0] + 1e-4).all()
    assert (own.st.totals <= pair.st.totals).all()
    assert own.st.totals[3] == pytest.approx(counts[1][3].sum(), rel=1e-4)


def test_neighbours_are_in_the_same_slice(cortex: SimulatedTissue) -> None:
    st, order = cortex.st.copy(), np.random.default_rng(0).permutation(500)
    st.obs["slice"] = np.where(np.arange(500) < 400, "first", "second")
    places = st.obsm["spatial"].copy()
    places[400:] = places[:100]  # the second slice overlaps the first
    st.obsm["spatial"] = places
    pair = cellweft.pair(cortex.sc, st, slices="slice")
    hoods = _spillover._Neighborhoods.of(pair, 6, 3 * pair.spacing)
    near, wide = hoods._weights(order)
    for table in (near, wide):
        assert table.shape == (500, 500)
        first, second = table.nonzero()
        assert ((order[first] < 400) == (second < 400)).all()
        assert (order[first] != second).all()
    assert near.getnnz(axis=1).max() == 6
    assert (near.multiply(wide)).nnz == 0


def test_hand_computed_weights_of_neighbours() -> None:
    places = np.array([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [50.0, 0.0]])
    st = anndata.AnnData(np.ones((4, 2), np.float32), obsm={"spatial": places})
    st.var_names = ["A", "B"]
    sc = anndata.AnnData(np.array([[3.0, 1.0], [1.0, 3.0]], np.float32), var=st.var)
    pair = cellweft.pair(sc, st)
    near, wide = _spillover._Neighborhoods.of(pair, 2, 4.0)._weights(np.arange(4))
    spacing = pair.spacing  # 1.5: the median of 1, 1, 2 and 47
    weights = [[0, 1 / spacing, 1 / 3, 0], [1 / spacing, 0, 1 / 2, 0], [1 / 3, 1 / 2, 0, 0], [0] * 4]
    np.testing.assert_allclose(near.toarray(), weights)
    np.testing.assert_array_equal(wide.toarray() > 0, np.array([[0, 0, 0, 1]] * 3 + [[1, 1, 1, 0]], bool))


@pytest.mark.slow
def test_single_empty_and_remote_cells(cortex: SimulatedTissue, cortex_pair: Pair) -> None:
    assert told(cortex_pair.cells(np.array([3]))).tolist() == [0]
    st = cortex.st.copy()
    values = st.X.toarray()
    values[7] = 0
    st.X = sp.csr_matrix(values)
    share = told(cellweft.pair(cortex.sc, st))
    assert np.isnan(share).tolist() == [number == 7 for number in range(500)]
    places = st.obsm["spatial"].copy()
    places[9] = places.max(axis=0) + 1000
    st.obsm["spatial"] = places
    assert told(cellweft.pair(cortex.sc, st))[9] == 0


def test_every_label_of_the_reference_has_its_own_profile(cortex: SimulatedTissue) -> None:
    pair = cellweft.pair(cortex.sc, cortex.st, labels="cell_type")
    few = cellweft.tl.spillover(pair, n_profiles=2, progress=False)
    n_types = len(np.unique(pair.labels))
    assert few.attrs["cellweft"]["n_profiles"] >= n_types
    assert few.between(0, 1).all()


def test_progress_is_reported(cortex_pair: Pair) -> None:
    steps: list[tuple[int, int]] = []
    cellweft.tl.spillover(cortex_pair, progress=lambda stage, done, total: steps.append((done, total)))
    assert steps == [(500, 1500), (1000, 1500), (1500, 1500)]


def test_wrong_arguments_are_refused(cortex: SimulatedTissue, cortex_pair: Pair) -> None:
    with pytest.raises(cellweft.errors.InputError, match="pair"):
        cellweft.tl.spillover(cortex.st)
    nowhere = cellweft.pair(cortex.sc, cortex.st, coordinates="none")
    with pytest.raises(
        cellweft.errors.KeyMissingError, match="coordinates: expected positions of the spatial"
    ):
        cellweft.tl.spillover(nowhere)
    logs = cortex.st.copy()
    values = logs.X.toarray()
    logs.X = np.log1p(values / np.maximum(values.sum(axis=1, keepdims=True), 1) * 100)
    with pytest.raises(cellweft.errors.ScaleError, match="st: expected spatial counts"):
        cellweft.tl.spillover(cellweft.pair(cortex.sc, logs))
    heap = cortex.st.copy()
    heap.obs["slice"] = np.where(np.arange(500) % 2, "odd", "even")
    heap.obsm["spatial"] = np.repeat(np.arange(500) % 2, 2).reshape(500, 2).astype(float)
    with pytest.raises(cellweft.errors.InputError, match="500 cells at the same position in their slice"):
        cellweft.tl.spillover(cellweft.pair(cortex.sc, heap, slices="slice"))
    for setting, value in (("n_neighbors", 0), ("n_profiles", 1), ("radius", -1.0), ("seed", -1)):
        with pytest.raises(cellweft.errors.SettingError, match=setting):
            cellweft.tl.spillover(cortex_pair, **{setting: value})
    with pytest.raises(cellweft.errors.SettingError, match=r"radius: expected at least .* nearest neighbour"):
        cellweft.tl.spillover(cortex_pair, radius=0.9 * cortex_pair.spacing)
    with pytest.raises(cellweft.errors.MemoryBudgetError, match="memory: expected at least"):
        cellweft.tl.spillover(cortex_pair, memory="20 KB")
