import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba

from cellweft import pl
from cellweft._errors import InputError, KeyMissingError, SettingError


def offsets(ax):
    return np.asarray(ax.collections[0].get_offsets())


@pytest.fixture
def shares():
    return pd.DataFrame({"a": [1.0, 0.5, 0.0], "b": [0.0, 0.25, 1.0], "c": [0.0, 0.25, 0.0]})


PLACES = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])


def test_placed_cells_are_drawn_at_their_positions(cells):
    cells.obsm["cellweft_spatial"] = cells.obsm["spatial"] + 10
    (ax,) = pl.placed(cells, "Gad1")
    assert (offsets(ax) == cells.obsm["cellweft_spatial"]).all()
    assert ax.get_title() == "placed, Gad1"


def test_true_positions_have_the_same_scale_and_colours(cells):
    truth = cells.obsm["spatial"] * 3
    true, found = pl.placed(cells, "depth", truth=truth)
    assert sorted(map(tuple, offsets(true))) == sorted(map(tuple, truth))
    assert true.get_xlim() == found.get_xlim()
    assert true.get_ylim() == found.get_ylim()
    assert true.collections[0].get_clim() == found.collections[0].get_clim()
    median = np.median(np.linalg.norm(truth - cells.obsm["spatial"], axis=1))
    assert f"median error {median:.3g}" in found.get_title()


def test_lines_go_from_true_to_predicted_positions(cells):
    truth = cells.obsm["spatial"] + [5, 0]
    (ax,) = pl.placed(cells, "type", truth=truth, kind="lines")
    lines = np.array(ax.collections[1].get_segments())
    assert sorted(map(tuple, lines[:, 0])) == sorted(map(tuple, truth))
    assert (lines[:, 1] == lines[:, 0] - [5, 0]).all()
    assert (
        len(pl.placed(cells, truth=truth, kind="lines", most_lines=2)[0].collections[1].get_segments()) == 2
    )


def test_a_truth_may_be_a_slot_or_a_table_with_cell_names(cells):
    cells.obsm["lived"] = cells.obsm["spatial"] + 1
    table = pd.DataFrame(cells.obsm["lived"], index=cells.obs_names)
    for truth in ("obsm:lived", table.iloc[::-1], cells.obsm["lived"]):
        assert sorted(map(tuple, offsets(pl.placed(cells, truth=truth)[0]))) == sorted(
            map(tuple, cells.obsm["lived"])
        )
    with pytest.raises(InputError, match="one row for each of the placed cells"):
        pl.placed(cells, truth=table.iloc[1:])
    with pytest.raises(KeyMissingError, match="truth='obsm:lve'"):
        pl.placed(cells, truth="obsm:lve")
    with pytest.raises(InputError, match="6 rows of 2 or 3"):
        pl.placed(cells, truth=np.zeros((4, 2)))
    with pytest.raises(SettingError, match="'beside', 'lines'"):
        pl.placed(cells, kind="arrows")
    with pytest.raises(InputError, match="2 matplotlib Axes"):
        pl.placed(cells, truth="obsm:lived", axes=plt.subplots()[1])


def test_a_placement_and_its_anndata_give_the_same_plot(placement):
    (ax,) = pl.placed(placement)
    (stored,) = pl.placed(placement.to_anndata(neighbors=0))
    assert (offsets(ax) == offsets(stored)).all()
    assert sorted(map(tuple, offsets(ax))) == sorted(map(tuple, placement.coordinates()))
    (by,) = pl.placed(placement, "confidence")
    assert sorted(by.collections[0].get_array()) == sorted(placement.table()["confidence"])
    assert len(pl.placed(placement, truth="obsm:spatial_true")) == 2


def test_the_composition_of_spots_is_a_panel_per_type_in_the_same_colours(shares):
    axes = pl.composition(shares, places=PLACES)
    assert [ax.get_title() for ax in axes] == ["a", "b", "c"]
    assert {ax.collections[0].get_clim() for ax in axes} == {(0, 1)}
    assert sorted(axes[1].collections[0].get_array()) == [0, 0.25, 1]
    assert [ax.get_title() for ax in pl.composition(shares, places=PLACES, labels=["c", "a"])] == ["c", "a"]


def test_only_the_largest_types_are_mapped_unless_named():
    many = pd.DataFrame(np.tile(np.arange(1.0, 12), (3, 1)), columns=[f"t{n}" for n in range(11)])
    assert [ax.get_title() for ax in pl.composition(many, places=PLACES)] == [f"t{n}" for n in range(3, 11)]


def area(polygon):
    x, y = polygon.T
    return abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2


def test_areas_of_pie_slices_match_the_proportions(shares):
    (ax,) = pl.composition(shares, kind="pies", places=PLACES, colors={"b": "red"}, size=2.0)
    wedges = {
        tuple(one.get_facecolor()[0]): [area(path.vertices[:-1]) / np.pi for path in one.get_paths()]
        for one in ax.collections
        if len(one.get_paths())
    }
    # an arc consists of twelve lines, so areas are a little too small
    assert wedges[to_rgba("red")] == pytest.approx([0.25, 1.0], rel=0.05)
    assert wedges[to_rgba(pl.palette(1)[0])] == pytest.approx([1.0, 0.5], rel=0.05)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b", "c"]


def test_omitted_types_are_the_grey_rest_of_a_pie(shares):
    (ax,) = pl.composition(shares, kind="pies", places=PLACES, labels=["a"])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "other"]


def test_the_composition_of_a_placement_is_drawn(placement):
    table = placement.deconvolve()
    spots = placement.to_anndata(of="spots")
    for given in (placement, spots):
        (ax,) = pl.composition(given, labels=[table.columns[0]])
        assert sorted(ax.collections[0].get_array()) == pytest.approx(sorted(table.iloc[:, 0]))


def test_errors_of_compositions_name_what_is_wrong(shares, cells):
    with pytest.raises(InputError, match="the coordinates of the spots"):
        pl.composition(shares)
    with pytest.raises(InputError, match="3 rows of 2 or 3"):
        pl.composition(shares, places=PLACES[:2])
    with pytest.raises(InputError, match="values below 0"):
        pl.composition(-shares, places=PLACES)
    with pytest.raises(InputError, match="got none"):
        pl.composition(shares.iloc[:0], places=PLACES[:0])
    with pytest.raises(KeyMissingError, match="cell types in the spots, got 'd'"):
        pl.composition(shares, places=PLACES, labels=["d"])
    with pytest.raises(KeyMissingError, match="cellweft_proportions"):
        pl.composition(cells)
    with pytest.raises(InputError, match="3 matplotlib Axes"):
        pl.composition(shares, places=PLACES, axes=plt.subplots()[1])


def test_maps_of_a_composition_count_omitted_types():
    names = [f"T{n}" for n in range(1, 13)]
    shares = pd.DataFrame(np.full((3, 12), 1 / 12), columns=sorted(names))
    places = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    maps = pl.composition(shares, places=places)
    assert [ax.get_title() for ax in maps[:2]] == ["T1", "T2"]
    assert [text.get_text() for text in maps[-1].texts] == ["and 4 more types"]
    assert maps[-1].get_xlabel() == "x →"


def test_positions_that_would_not_be_used_are_refused(cells, shares):
    with pytest.raises(SettingError, match=r"coordinates: expected none with a table, got str\. Pass pl"):
        pl.composition(shares, places=PLACES, coordinates="obsm:nothing")
    cells.obsm["cellweft_proportions"] = pd.DataFrame({"a": np.ones(6)}, index=cells.obs_names)
    with pytest.raises(SettingError, match="places: expected none with an AnnData, got ndarray"):
        pl.composition(cells, places=PLACES)
