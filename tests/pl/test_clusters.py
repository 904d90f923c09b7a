import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import cellweft
from cellweft import pl
from cellweft._errors import GeneError, InputError, KeyMissingError, SettingError
from cellweft.place.placement import embeddings_of


@pytest.fixture
def two_modules():
    """Five genes: two modules of two, and a constant gene."""
    up, down = np.arange(6.0), np.array([1.0, -1.0, 0.0, 0.0, -1.0, 1.0])
    return pd.DataFrame({"a": up, "c": down, "flat": 1.0, "b": 2 * up, "d": 3 * down})


def test_genes_are_ordered_by_module_and_coloured_by_correlation(two_modules):
    ax = pl.modules(two_modules)
    expected = [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 0]]
    assert np.allclose(ax.images[0].get_array(), expected, atol=1e-12)
    assert ax.images[0].get_clim() == (-1, 1)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["a", "b", "c", "d", "flat"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["0 (2): a, b", "1 (2): c, d", "none (1)"]


def test_correlations_equal_numpy_for_any_input(two_modules):
    values = np.random.default_rng(0).random((30, 5)).astype(np.float32)
    made = AnnData(values, var=pd.DataFrame(index=list("vwxyz")))
    group = pd.Series([0, 1, 0, 1, 0], index=list("vwxyz"))
    found = np.asarray(pl.modules(made, group).images[0].get_array())
    wanted = np.corrcoef(values.T.astype(np.float64))
    assert np.allclose(np.sort(found.ravel()), np.sort(wanted.ravel()))
    assert np.allclose(found[:3, :3].sum(), wanted[np.ix_([0, 2, 4], [0, 2, 4])].sum())
    assert pl.modules(made, group, genes=["v", "w"]).images[0].get_array().shape == (2, 2)
    assert pl.modules(made, group.iloc[:3]).images[0].get_array().shape == (3, 3)


def test_errors_of_modules_name_what_is_wrong(two_modules):
    with pytest.raises(GeneError, match="'gad'"):
        pl.modules(two_modules, genes=["a", "gad"])
    with pytest.raises(InputError, match="2 to 3 genes"):
        pl.modules(two_modules, most_genes=3)
    with pytest.raises(InputError, match="NaN or infinity"):
        pl.modules(two_modules * np.nan)
    with pytest.raises(KeyMissingError, match="none for 'b'"):
        pl.modules(two_modules, pd.Series({"a": 0}), genes=["a", "b"])


def test_enrichment_of_neighbours_is_symmetric_around_white():
    z = pd.DataFrame([[3.0, -7.0], [np.nan, 1.0]], index=["a", "b"], columns=["a", "b"])
    ax = pl.enrichment(z)
    assert ax.images[0].get_clim() == (-7, 7)
    assert ax.images[0].get_array().tolist()[0] == [3, -7]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"]
    limited = pl.enrichment(z, limit=2).images[0]
    assert limited.get_clim() == (-2, 2)
    assert limited.colorbar.extend == "both"


def test_enrichment_of_regions_marks_what_is_significant():
    places = np.column_stack([np.arange(40.0), np.zeros(40)])
    labels = np.array(["a"] * 20 + ["b"] * 20)
    table = cellweft.tl.region_enrichment(
        places, labels, region_places=places, region_labels=np.repeat(["l", "m", "r"], [18, 4, 18]), k=1
    )
    ax = pl.enrichment(table.sample(frac=1, random_state=1).sort_values(["type", "region"]))
    z = table.pivot_table(index="type", columns="region", values="z")
    assert np.allclose(ax.images[0].get_array(), z)
    dots = {tuple(one) for one in ax.collections[0].get_offsets().astype(int).tolist()}
    low = table[table["fdr"] < 0.05]
    assert dots == {("lmr".index(r), "ab".index(t)) for t, r in zip(low["type"], low["region"], strict=True)}
    assert ax.get_xlabel() == "region"


def test_errors_of_enrichment_name_what_is_wrong():
    with pytest.raises(InputError, match="an empty table"):
        pl.enrichment(pd.DataFrame())
    with pytest.raises(InputError, match="columns of text"):
        pl.enrichment(pd.DataFrame({"a": ["x"]}))
    with pytest.raises(InputError, match="ndarray"):
        pl.enrichment(np.zeros((2, 2)))
    with pytest.raises(SettingError, match="fdr"):
        pl.enrichment(pd.DataFrame({"a": [1.0]}), fdr=2)


def test_errors_of_umap_are_raised_before_any_work(cells):
    with pytest.raises(InputError, match="more than neighbors=15"):
        pl.umap(cells, cells, label="type")
    with pytest.raises(KeyMissingError, match="Did you mean 'type'"):
        pl.umap(cells, cells, label="tpye", neighbors=3)
    with pytest.raises(SettingError, match="neighbors"):
        pl.umap(cells, cells, label="type", neighbors=1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_umap_draws_the_same_cells_on_both_sides():
    tissue = cellweft.datasets.simulate_tissue(n_spatial=120, n_reference=60, n_genes=80, n_panel=60, seed=0)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    one, other = pl.umap(tissue.st, tissue.truth, label="cell_type", seed=3)
    again, _ = pl.umap(tissue.st, tissue.truth, label="cell_type", seed=3)
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    assert (one.collections[0].get_offsets() == again.collections[0].get_offsets()).all()
    assert len(one.collections[0].get_offsets()) == len(other.collections[0].get_offsets()) == 120
    colors = [sorted(map(tuple, ax.collections[0].get_facecolors())) for ax in (one, other)]
    assert colors[0] == colors[1]
    fewer, _ = pl.umap(tissue.st, tissue.truth, label=tissue.st.obs["cell_type"], most_cells=50)
    assert len(fewer.collections[0].get_offsets()) == 50


def two_components(values, neighbors, seed, *, reduced=False):
    """A stand-in for UMAP, which takes long to compile: the first two columns."""
    return np.asarray(values[:, :2], dtype=np.float64) + reduced


def test_umap_of_a_placement_draws_cells_and_spots(placement, monkeypatch):
    monkeypatch.setattr("cellweft.pl._clusters._layout", two_components)
    expression, embedding = pl.umap(placement, label="cell_type")
    assert (expression.get_title(), embedding.get_title()) == ("expression", "embedding")
    n_cells, n_spots = len(placement.cells), len(placement.spots)
    for ax, cells, spots in (
        (expression, placement.values(slice(0, n_cells)), placement.inputs[1].values(slice(0, n_spots))),
        (embedding, embeddings_of(placement, "cells") + 1, embeddings_of(placement, "spots") + 1),
    ):
        drawn, shown = ax.collections[0].get_offsets(), ax.collections[0].get_facecolors()
        assert len(drawn) == n_cells + n_spots
        both = np.concatenate([cells[:, :2], spots[:, :2]])
        np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(both, axis=0), rtol=1e-6)
        grey = np.ptp(shown[:, :3], axis=1) < 1e-6
        assert grey[:n_spots].all()  # the spots are grey, below the cells
        np.testing.assert_allclose(np.sort(drawn[:n_spots], axis=0), np.sort(spots[:, :2], axis=0), rtol=1e-6)
    own = np.arange(n_cells) % 3
    first, _ = pl.umap(placement, label=own, most_cells=20)
    assert len(first.collections[0].get_offsets()) == 40
    with pytest.raises(KeyMissingError, match=r"label='cell_typ'.*Did you mean 'cell_type'"):
        pl.umap(placement, label="cell_typ")
    with pytest.raises(InputError, match="expected one value for each of the 100 cells"):
        pl.umap(placement, label=own[:5])


def test_umap_needs_the_result_of_imputation(cells):
    with pytest.raises(InputError, match="imputed: expected the imputed genes of these cells, got none"):
        pl.umap(cells, label="type")


def test_modules_are_named_by_their_most_typical_genes():
    random = np.random.default_rng(0)
    values = np.repeat(random.normal(size=(60, 2)), [4, 1], axis=1)
    values[:, 1:4] += random.normal(size=(60, 3)) * [0.1, 0.5, 1.0]
    table = pd.DataFrame(values, columns=["a", "b", "c", "d", "e"])
    ax = pl.modules(table, pd.Series([0, 0, 0, 0, 1], index=list("abcde")))
    first, second = [text.get_text() for text in ax.get_yticklabels()]
    assert first.startswith("0 (4): ")
    assert set(first[7:].removesuffix(", …").split(", ")) == {"a", "b", "c"}
    assert first.endswith(", …")
    assert second == "1 (1): e"


def test_modules_without_room_for_a_name_are_counted():
    values = np.random.default_rng(0).normal(size=(20, 60))
    names = [f"g{n}" for n in range(60)]
    group = pd.Series([0] * 58 + [1, 2], index=names)
    ax = pl.modules(pd.DataFrame(values, columns=names), group)
    assert ax.get_ylabel() == "module (genes); and 2 small ones"


def test_the_diagonal_does_not_determine_the_colour_limits_of_enrichment():
    types = ["T1", "T10", "T2"]
    z = pd.DataFrame([[90.0, 3.0, -4.0], [3.0, 70.0, 1.0], [-4.0, 1.0, 2.0]], index=types, columns=types)
    ax = pl.enrichment(z)
    assert ax.images[0].get_clim() == (-4, 4)
    assert ax.images[0].colorbar.extend == "both"
    assert [text.get_text() for text in ax.get_yticklabels()] == ["T1", "T2", "T10"]
    assert np.diag(ax.images[0].get_array()).tolist() == [90, 2, 70]
    assert [(text.get_text(), text.get_position()) for text in ax.texts] == [("90", (0, 0)), ("70", (2, 2))]
    alone = pl.enrichment(pd.DataFrame([[5.0]], index=["a"], columns=["a"]))
    assert alone.images[0].get_clim() == (-5, 5)


def test_a_missing_layer_is_refused(two_modules):
    with pytest.raises(SettingError, match="layer: expected None with a table, got 'counts'"):
        pl.modules(two_modules, layer="counts")
    made = AnnData(two_modules.to_numpy(), var=pd.DataFrame(index=two_modules.columns))
    with pytest.raises(KeyMissingError, match="layer='counts'"):
        pl.modules(made, layer="counts")
