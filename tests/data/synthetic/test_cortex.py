"""The simulated cortex: where cell types lie, what the two platforms measure, and the recipe."""

from typing import Any

import numpy as np
import pytest

import cellweft
from cellweft.datasets import SimulatedTissue, simulate_cortex


@pytest.fixture(scope="module")
def cortex() -> SimulatedTissue:
    return simulate_cortex(n_spatial=1500, n_reference=1200, seed=1)


def test_the_cortex_depends_on_the_seed(cortex: SimulatedTissue) -> None:
    again = simulate_cortex(n_spatial=1500, n_reference=1200, seed=1)
    other = simulate_cortex(n_spatial=1500, n_reference=1200, seed=2)
    for one, two, three in ((cortex.st, again.st, other.st), (cortex.sc, again.sc, other.sc)):
        assert (one.X != two.X).nnz == 0
        assert list(one.var_names) == list(two.var_names)
        assert one.shape != three.shape or (one.X != three.X).nnz > 0


def test_layers_follow_the_depth_and_types_their_layers(cortex: SimulatedTissue) -> None:
    obs = cortex.st.obs
    depth = obs.groupby("region", observed=True)["depth"].mean()
    assert depth.loc[["L1", "L2/3", "L4", "L5", "L6", "WM", "Striatum"]].is_monotonic_increasing
    share = obs.groupby("cell_type", observed=True)["region"].value_counts(normalize=True).unstack()
    for kind, home in (("L2/3 IT", "L2/3"), ("L5 ET", "L5"), ("L6 CT", "L6"), ("MSN", "Striatum")):
        assert share.loc[kind].idxmax() == home
    assert obs.loc[obs["cell_type"] == "VLMC", "depth"].median() < 0.05
    assert obs.loc[obs["cell_type"] == "L5 ET", "cell_area"].mean() > 2 * (
        obs.loc[obs["cell_type"] == "Microglia", "cell_area"].mean()
    )


def test_the_ventricle_is_empty_and_lined_by_ependyma(cortex: SimulatedTissue) -> None:
    places = cortex.st.obsm["spatial"]
    lining = places[(cortex.st.obs["cell_type"] == "Ependymal").to_numpy()]
    assert len(lining) > 5
    middle = (lining.min(axis=0) + lining.max(axis=0)) / 2
    nearest = np.linalg.norm(places - middle, axis=1).min()
    typical = np.median(cellweft.pair(cortex.sc, cortex.st).spacing)
    assert nearest > 1.5 * typical


@pytest.mark.parametrize(
    ("gene", "kind"),
    [("Slc17a7", "L6 CT"), ("Mbp", "Oligodendrocyte"), ("Cldn5", "Endothelial"), ("Gad2", "Sst")],
)
def test_markers_are_highest_where_the_literature_has_them(
    cortex: SimulatedTissue, gene: str, kind: str
) -> None:
    assert gene in cortex.sc.var_names
    types = cortex.sc.obs["cell_type"].to_numpy()
    counts = cortex.sc[:, gene].X.toarray()[:, 0]
    assert counts[types == kind].mean() > 2 * counts[types == "Microglia"].mean()


def test_the_panel_equals_the_truth_and_the_atlas_has_all_genes_and_donors(cortex: SimulatedTissue) -> None:
    panel = cortex.truth.var_names[cortex.truth.var["panel"]]
    assert list(panel) == list(cortex.st.var_names)
    assert (cortex.truth[:, panel].X != cortex.st.X).nnz == 0
    assert list(cortex.sc.var_names) == list(cortex.truth.var_names)
    assert cortex.sc.obs["donor"].nunique() == 3
    assert cortex.sc.obsm["spatial_true"].shape == (1200, 2)


def test_spill_over_brings_transcripts_of_the_neighbours() -> None:
    def myelin(spill_over: float) -> tuple[float, float]:
        made = simulate_cortex(n_spatial=3000, n_reference=50, spill_over=spill_over, seed=3).truth
        counts = made[:, ["Mbp", "Plp1", "Mog", "Mobp", "Cnp"]].X.mean(axis=1).A1
        types = made.obs["cell_type"].to_numpy()
        others = (made.obs["region"] == "WM").to_numpy() & (types != "Oligodendrocyte") & (types != "OPC")
        return counts[types == "Oligodendrocyte"].mean(), counts[others].mean()

    (own, others), (mixed_own, mixed_others) = myelin(0.0), myelin(0.4)
    assert mixed_own < 0.9 * own
    assert mixed_others > 2 * others


def test_the_share_of_spilled_counts_is_given_for_every_cell() -> None:
    def share(spill_over: float) -> Any:
        made = simulate_cortex(n_spatial=400, n_reference=50, spill_over=spill_over, seed=3).truth
        return made.obs["spill_over"].groupby(made.obs["cell_type"], observed=True).mean()

    assert (share(0.0) == 0).all()
    by_type = share(0.3)
    assert by_type.between(0.05, 0.9).all()
    assert by_type["Microglia"] > 0.3 > by_type["L5 ET"]  # small and large cells


@pytest.mark.parametrize("n_genes", [20, 100, 400])
def test_gene_names_are_unique_for_any_number_of_genes(n_genes: int) -> None:
    made = simulate_cortex(n_spatial=60, n_reference=50, n_genes=n_genes, n_panel=10)
    assert made.sc.n_vars == n_genes
    assert made.sc.var_names.is_unique


@pytest.mark.parametrize(
    ("setting", "value"),
    [("n_spatial", 1), ("n_genes", 1), ("n_panel", 0), ("n_donors", 0), ("spill_over", 1.0), ("dropout", 2)],
)
def test_a_setting_out_of_range_is_refused(setting: str, value: float) -> None:
    with pytest.raises(cellweft.errors.SettingError, match=setting):
        simulate_cortex(**{setting: value})  # type: ignore[arg-type]
