import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba

from cellweft import pl
from cellweft._errors import GeneError, InputError, KeyMissingError, ScaleError, SettingError
from cellweft._provenance import SCHEMA_VERSION
from cellweft.data._pair import pair
from cellweft.data.io.write import write_anndata

GREY = to_rgba("#D0D0D0")


def dots(ax):
    """Return positions, numbers and colours of the dots in the order of drawing."""
    (found,) = ax.collections
    found.update_scalarmappable()
    places = np.asarray(found.get_offsets())
    return places, found.get_array(), found.get_facecolors()


def test_a_gene_is_drawn_where_its_cells_are(cells):
    ax = pl.spatial(cells, "Gad1")
    places, numbers, _ = dots(ax)
    assert numbers.tolist() == [0, 1, 2, 3, 4, 5]  # high values are drawn last, above the others
    assert (places == cells.obsm["spatial"]).all()
    assert ax.get_title() == "Gad1"
    assert ax.get_aspect() == 1.0
    assert ax.collections[0].get_rasterized()


def test_labels_have_their_colours_and_missing_ones_are_grey(cells):
    ax = pl.spatial(cells, "type")
    places, _, colors = dots(ax)
    known = pl.label_colors(cells, "type")
    by_place = {tuple(place): tuple(color) for place, color in zip(places, colors, strict=True)}
    for place, label in zip(cells.obsm["spatial"], cells.obs["type"], strict=True):
        assert by_place[tuple(place)] == (GREY if pd.isna(label) else to_rgba(known[label]))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["c", "b", "a", "unknown"]


def test_values_of_a_series_are_matched_by_cell_names(cells):
    values = pd.Series(np.arange(float(cells.n_obs)), index=cells.obs_names)
    by_place = []
    for one in (values, values.sample(frac=1, random_state=0)):
        places, numbers, _ = dots(pl.spatial(cells, one))
        by_place.append(dict(zip(map(tuple, places), numbers, strict=True)))
    assert by_place[0] == by_place[1]
    with pytest.raises(InputError, match="color: expected an index with the names of the 6 cells"):
        pl.spatial(cells, values.set_axis([f"x{one}" for one in range(cells.n_obs)]))


def test_labels_without_a_name_have_a_legend_too(cells):
    labels = np.where(np.arange(cells.n_obs) % 2, "odd", "even")
    legend = pl.spatial(cells, labels).get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["even", "odd"]


def test_the_legend_names_only_labels_that_occur(cells):
    ax = pl.spatial(cells[[1, 5]], "type")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a"]
    assert pl.spatial(cells, "type", legend=False).get_legend() is None


def test_nan_is_grey_and_below_the_others(cells):
    places, numbers, colors = dots(pl.spatial(cells, "depth"))
    assert np.ma.getmaskarray(np.ma.masked_invalid(numbers)).tolist() == [True] + 5 * [False]
    assert places[0].tolist() == [2, 0]
    assert tuple(colors[0]) == GREY


def test_values_and_colours_may_be_given(cells):
    _, numbers, _ = dots(pl.spatial(cells, np.arange(6) * 2))
    assert numbers.tolist() == [0, 2, 4, 6, 8, 10]
    ax = pl.spatial(cells, ["x", "y"] * 3, colors={"y": "red"})
    assert to_rgba("red") in {tuple(one) for one in dots(ax)[2]}
    assert len(dots(pl.spatial(cells))[0]) == 6


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(st.permutations(range(6)))
def test_the_order_of_the_cells_does_not_matter(order):
    made = ad.AnnData(np.arange(6.0).reshape(6, 1) // 2, var=pd.DataFrame(index=["g"]))
    made.obs["type"] = list("ababab")
    made.obsm["spatial"] = np.array([[0, 0], [0, 0], [2, 0], [0, 1], [1, 1], [2, 1]], dtype=np.float64)
    for color in ("g", "type"):
        one, other = dots(pl.spatial(made, color)), dots(pl.spatial(made[list(order)].copy(), color))
        assert (one[0] == other[0]).all()
        assert (one[2] == other[2]).all()
    plt.close("all")


def test_limits_are_the_smallest_value_and_a_high_quantile():
    values = np.append(np.linspace(0, 1, 999), 50.0)
    made = ad.AnnData(values[:, None], var=pd.DataFrame(index=["g"]))
    made.obsm["spatial"] = np.random.default_rng(0).random((1000, 2))
    ax = pl.spatial(made, "g")
    assert ax.collections[0].get_clim() == (0, pytest.approx(np.quantile(values, 0.995), rel=1e-5))
    assert ax.collections[0].colorbar.extend == "max"
    assert pl.spatial(made, "g", limits=(0, 60)).collections[0].colorbar.extend == "neither"
    assert pl.spatial(made, values - 0.5).collections[0].get_clim()[0] == pytest.approx(-0.495, abs=0.002)


def test_rare_and_constant_genes_have_limits(cells):
    rare = np.zeros(6)
    rare[0] = 3
    assert pl.spatial(cells, rare).collections[0].get_clim()[1] > 0
    assert pl.spatial(cells, np.ones(6)).collections[0].get_clim() == (1, 2)
    assert pl.spatial(cells, np.full(6, np.nan)).collections[0].get_clim() == (0, 1)


def test_the_y_axis_points_down_by_default_with_a_note(cells):
    down, up = pl.spatial(cells, "Gad1"), pl.spatial(cells, "Gad1", y="up")
    assert down.get_ylim()[0] > down.get_ylim()[1]
    assert up.get_ylim()[0] < up.get_ylim()[1]
    assert (down.get_ylabel(), up.get_ylabel()) == ("y ↓", "y ↑")


def test_the_scale_bar_has_a_round_length():
    made = ad.AnnData(np.zeros((2, 1)), obsm={"spatial": np.array([[0.0, 0.0], [1000.0, 800.0]])})
    ax = pl.spatial(made, unit="µm")
    (bar,) = ax.lines
    assert np.ptp(bar.get_xdata()) == pytest.approx(500)
    assert [text.get_text() for text in ax.texts] == ["500 µm"]


def test_a_size_is_in_the_unit_of_the_coordinates(cells):
    one, two = (pl.spatial(cells, "Gad1", size=size).collections[0].get_sizes()[0] for size in (0.1, 0.2))
    # the map also has to fit the larger dot, so it is drawn slightly smaller
    assert 2.5 < two / one < 4


def test_one_cell_is_drawn(cells):
    for color in ("Gad1", "type", "depth", None):
        places, _, _ = dots(pl.spatial(cells[:1], color))
        assert places.tolist() == [[0, 0]]


def test_layers_and_slots(cells):
    assert dots(pl.spatial(cells, "Gad1", layer="upper"))[1].max() == 10
    cells.obs["Gad1"] = "label"
    with pytest.raises(InputError, match="a name that both have"):
        pl.spatial(cells, "Gad1")
    assert dots(pl.spatial(cells, "gene:Gad1"))[1].max() == 5
    assert dots(pl.spatial(cells, "obs:Gad1"))[1] is None


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"color": "Gad2"}, GeneError, "Did you mean 'Gad1'"),
        ({"color": "tpye"}, GeneError, "Did you mean 'type'"),
        ({"color": "Gad1", "layer": "uper"}, KeyMissingError, "Did you mean 'upper'"),
        ({"color": [1, 2]}, InputError, "one value for each of the 6 cells"),
        ({"color": [np.inf] * 6}, InputError, "finite values"),
        ({"coordinates": "obsm:X"}, KeyMissingError, "a key of obsm"),
        ({"coordinates": "none"}, InputError, "positions to plot"),
        ({"y": "left"}, SettingError, "'down', 'up'"),
        ({"size": 0}, SettingError, "size"),
        ({"limits": (2, 1)}, SettingError, "the smaller first"),
        ({"cmap": "viridi"}, SettingError, "viridis"),
        ({"most_dots": -1}, SettingError, "most_dots"),
        ({"ax": "here"}, InputError, "one matplotlib Axes, got a str"),
    ],
)
def test_errors_name_what_is_wrong(cells, arguments, error, match):
    with pytest.raises(error, match=match):
        pl.spatial(cells, **{"color": "Gad1"} | arguments)
    assert not plt.get_fignums()


def test_no_cells_and_no_coordinates(cells):
    with pytest.raises(InputError, match="at least one cell"):
        pl.spatial(cells[:0], "Gad1")
    del cells.obsm["spatial"]
    with pytest.raises(KeyMissingError, match="coordinates of the cells"):
        pl.spatial(cells, "Gad1")


@pytest.mark.slow
def test_files_backed_data_views_and_sparse_data_give_the_same_plot(cells, tmp_path):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    write_anndata(cells, tmp_path / "cells.zarr")
    sparse = cells.copy()
    sparse.X = sp.csr_matrix(sparse.X)
    write_anndata(sparse, tmp_path / "sparse.zarr")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    given = (tmp_path / "cells.h5ad", str(tmp_path / "cells.zarr"), tmp_path / "sparse.zarr", sparse, backed)
    for color in ("Gad1", "type", "depth"):
        expected = dots(pl.spatial(cells, color))
        for one in given:
            found = dots(pl.spatial(one, color))
            assert (found[0] == expected[0]).all()
            assert (found[2] == expected[2]).all()
    assert len(dots(pl.spatial(backed[:3], "Gad1"))[0]) == 3
    backed.file.close()


def test_the_input_is_not_changed(cells):
    before = cells.copy()
    pl.spatial(cells, "type")
    pl.gene(cells, "Gad1", measured=cells)
    pd.testing.assert_frame_equal(cells.obs, before.obs)
    assert (cells.X == before.X).all()
    assert not cells.uns
    assert set(cells.obsm) == {"spatial"}


def test_a_given_axes_is_used(cells):
    figure, ax = plt.subplots()
    assert pl.spatial(cells, "type", ax=ax) is ax
    assert figure.get_size_inches().tolist() == plt.rcParams["figure.figsize"]


def test_many_cells_are_drawn_as_pixels_of_means(cells):
    ax = pl.spatial(cells, "Gad1", most_dots=5)
    grey, image = ax.images
    assert not ax.collections
    assert 0 <= image.get_array().min() <= image.get_array().max() <= 5
    assert image.colorbar is not None
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    assert image.get_extent() == grey.get_extent()
    assert pl.spatial(cells, "depth", most_dots=5).images[0].get_array().shape[-1] == 4


def test_pixels_of_labels_have_their_colours():
    places = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0)), axis=-1).reshape(-1, 2)
    made = ad.AnnData(np.zeros((400, 1)), obsm={"spatial": places})
    made.obs["side"] = np.where(places[:, 0] < 10, "left", "right")
    (image,) = pl.spatial(made, "side", most_dots=100).images
    colors = pl.label_colors(made, "side")
    array = image.get_array()
    assert (array[:, 0] == np.round(np.array(to_rgba(colors["left"])) * 255)).all()
    assert (array[:, -1] == np.round(np.array(to_rgba(colors["right"])) * 255)).all()


@pytest.mark.slow
def test_a_plot_of_a_million_cells_is_a_small_file(tmp_path):
    stream = np.random.default_rng(0)
    made = ad.AnnData(stream.random((1_000_000, 1), dtype=np.float32), var=pd.DataFrame(index=["g"]))
    made.obs["type"] = pd.Categorical.from_codes(stream.integers(0, 12, 1_000_000), list("abcdefghijkl"))
    made.obsm["spatial"] = stream.random((1_000_000, 2)) * [10_000, 7_000]
    for color in ("g", "type"):
        pl.spatial(made, color).figure.savefig(tmp_path / "map.pdf")
        assert (tmp_path / "map.pdf").stat().st_size < 2_000_000


# Genes and their uncertainty


def test_measured_and_imputed_share_limits_and_one_colour_bar(cells):
    measured = cells.copy()
    measured.X = np.array([[0, 1], [9, 0], [2, 5], [3, 0], [4, 2], [5, 0]], dtype=np.float32)
    axes = pl.gene(cells, "Gad1", measured=measured)
    assert [ax.get_title() for ax in axes] == ["Gad1, measured", "Gad1, imputed", "Gad1, width of interval"]
    assert axes[0].collections[0].get_clim() == axes[1].collections[0].get_clim()
    assert len(axes[0].figure.axes) == 5  # three panels and two colour bars
    assert dots(axes[2])[1].tolist() == pytest.approx([0, 1.5, 3, 4.5, 6, 7.5])


def test_measured_counts_are_log_normalised_as_in_a_pair(tissue):
    both = pair(tissue.sc, tissue.st)
    gene = str(both.shared_genes[0])
    values = both.st.dense(slice(None), both.st_shared[:1])[:, 0]
    imputed = tissue.st.copy()
    imputed.X = np.log1p(imputed.X.toarray())
    for given_as in (tissue.st, both, values):
        left, _ = pl.gene(imputed, gene, measured=given_as)
        assert np.allclose(np.sort(dots(left)[1]), np.sort(values))


def test_panels_of_a_gene_can_be_chosen(cells):
    assert len(pl.gene(cells, "gad1")) == 2
    assert len(pl.gene(cells, "Gad1", uncertainty=False)) == 1
    _, axes = plt.subplots(1, 3)
    assert pl.gene(cells, "Gad1", measured=np.arange(6), axes=axes) == tuple(axes)
    with pytest.raises(InputError, match="3 matplotlib Axes, one for each panel, got 2"):
        pl.gene(cells, "Gad1", measured=np.arange(6), axes=axes[:2])
    del cells.layers["lower"]
    assert len(pl.gene(cells, "Gad1")) == 1
    with pytest.raises(KeyMissingError, match="the layers 'lower' and 'upper', got 'upper'"):
        pl.gene(cells, "Gad1", uncertainty=True)
    with pytest.raises(KeyMissingError, match="Impute with an interval"):
        pl.uncertainty(cells, "Gad1")


def test_a_measurement_of_other_cells_is_refused(cells):
    with pytest.raises(InputError, match="the 6 cells of the imputed result, in the same order, got 5"):
        pl.gene(cells, "Gad1", measured=cells[:5])
    with pytest.raises(InputError, match="a different order"):
        pl.gene(cells, "Gad1", measured=cells[::-1])
    with pytest.raises(InputError, match="one value for each"):
        pl.gene(cells, "Gad1", measured=np.arange(4))
    with pytest.raises(GeneError, match="Did you mean 'Gad1'"):
        pl.gene(cells, "Gad2")


def test_uncertainty_is_the_width_of_the_interval(cells):
    ax = pl.uncertainty(cells, "Gad1")
    assert dots(ax)[1].tolist() == pytest.approx([0, 1.5, 3, 4.5, 6, 7.5])
    assert ax.collections[0].get_cmap().name == "cividis"


@pytest.mark.parametrize(
    ("color", "label"),
    [
        ("Gad1", "Gad1 (counts)"),
        ("depth", "depth"),
        ("cellweft_confidence", "confidence (0 to 1)"),
        ("cellweft_spread", "spread (µm)"),
        (np.arange(6) / 7, "value"),
    ],
)
def test_every_colour_bar_says_what_it_shows(cells, color, label):
    cells.obs["cellweft_confidence"] = cells.obs["cellweft_spread"] = np.linspace(0, 1, 6)
    drawn = pl.spatial(cells, color, unit="µm").collections[0]
    assert drawn.colorbar.ax.get_ylabel().replace("\n", " ") == label


def test_colour_bars_name_the_scale_of_a_gene_if_it_is_known(cells):
    def label(**more):
        bar = pl.spatial(cells, "Gad1", **more).collections[0].colorbar
        return bar.ax.get_ylabel().replace("\n", " ")

    assert label(layer="lower") == "Gad1 (as stored in layer 'lower')"
    cells.var["measured"] = True
    assert label() == "Gad1 (log-normalised expression)"
    assert label(layer="lower") == "Gad1 (lower bound, log-normalised expression)"
    width = pl.uncertainty(cells, "Gad1").collections[0].colorbar
    assert width.ax.get_ylabel().replace("\n", " ") == "upper - lower (log-normalised expression)"


def test_the_label_of_a_short_colour_bar_is_wrapped(cells):
    cells.var["measured"] = True
    cells.obsm["spatial"] = np.column_stack([np.linspace(0, 10, 6), np.linspace(0, 3, 6)])
    bar = pl.spatial(cells, "Gad1", layer="lower").collections[0].colorbar
    assert bar.ax.get_ylabel() == "Gad1 (lower bound,\nlog-normalised\nexpression)"
    figure = bar.ax.figure
    figure.draw_without_rendering()
    written, drawn = bar.ax.yaxis.label.get_window_extent(), figure.bbox
    assert drawn.y0 <= written.y0 < written.y1 <= drawn.y1


def test_counts_are_called_counts_and_shown_with_measured_counts(tissue):
    imputed = tissue.st.copy()
    imputed.var["measured"] = True
    imputed.uns["cellweft"] = {"scale": "counts: means", "schema_version": SCHEMA_VERSION}
    gene = str(imputed.var_names[0])
    imputed.layers["lower"], imputed.layers["upper"] = imputed.X, imputed.X
    left, right, _ = pl.gene(imputed, gene, measured=tissue.st)
    expected = np.sort(tissue.st.X.toarray()[:, 0])
    assert np.allclose(np.sort(dots(left)[1]), expected)
    assert np.allclose(np.sort(dots(right)[1]), expected)
    assert pl.spatial(imputed, gene).collections[0].colorbar.ax.get_ylabel() == f"{gene} (counts)"
    width = pl.uncertainty(imputed, gene).collections[0].colorbar
    assert width.ax.get_ylabel() == "upper - lower (counts)"
    logs = tissue.st.copy()
    counts = logs.X.toarray()
    logs.X = np.log1p(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * 50)
    with pytest.raises(ScaleError, match="measured: expected counts, like the imputed result"):
        pl.gene(imputed, gene, measured=logs)


def test_a_legend_of_many_labels_counts_omitted_ones(cells):
    many = np.array([f"L{n}" for n in range(1, 73)])
    made = ad.AnnData(np.zeros((72, 1)), obs=pd.DataFrame({"layer": many}, index=many))
    made.obsm["spatial"] = np.random.default_rng(0).random((72, 2))
    names = [text.get_text() for text in pl.spatial(made, "layer").get_legend().get_texts()]
    assert names[:3] == ["L1", "L2", "L3"]
    assert len(names) == 61
    assert names[-1] == "and 12 more"


@pytest.mark.parametrize("color", ["type", "depth", "Gad1", None, np.arange(6)])
def test_a_missing_layer_is_refused_for_every_plot(cells, color):
    with pytest.raises(KeyMissingError, match=r"layer='lowr'.*no such layer.*'lower'"):
        pl.spatial(cells, color, layer="lowr")


def test_an_existing_layer_may_be_combined_with_a_column(cells):
    assert pl.spatial(cells, "type", layer="lower").get_title() == "type"


def test_raw_is_read_with_its_own_genes(cells):
    whole = cells.copy()
    whole.var_names = ["Other", "Gad1"]
    cells.raw = whole
    assert dots(pl.spatial(cells, "Other", layer="raw"))[1].tolist() == [0, 1, 2, 3, 4, 5]
    assert dots(pl.spatial(cells, "Gad1", layer="raw"))[1].tolist() == [0, 0, 0, 1, 2, 5]


def test_only_colours_of_other_labels_are_refused(cells):
    with pytest.raises(SettingError, match="colors: expected colours of labels in the plot, got 'A'"):
        pl.spatial(cells, "type", colors={"A": "red"})
    assert pl.spatial(cells, "type", colors={"a": "red", "further": "blue"}).get_title() == "type"
