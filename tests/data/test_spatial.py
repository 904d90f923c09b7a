"""Coordinates, slices and labels: how they are found and checked, and the spacing of cells."""

import re

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._errors import InputError, KeyMissingError, SettingError
from cellweft.data import spatial
from cellweft.data.io.columns import OBS_KEYS, text_labels
from cellweft.data.spatial import (
    find_coordinates,
    find_labels,
    find_slices,
    find_tissue,
    guess_slices,
    spot_spacing,
)

PLACES = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])


def table(**columns: object) -> pd.DataFrame:
    return pd.DataFrame(columns, index=pd.Index(["a", "b", "c"]))


@pytest.mark.parametrize("key", ["spatial", "X_spatial"])
def test_obsm_takes_precedence(key: str) -> None:
    coordinates, found = find_coordinates(
        table(x=[9, 9, 9], y=[9, 9, 9]), {"X_pca": PLACES * 2, key: PLACES}, None
    )
    np.testing.assert_array_equal(coordinates, PLACES)
    assert found == f"obsm[{key!r}]"


@pytest.mark.parametrize("keys", OBS_KEYS, ids=str)
@pytest.mark.parametrize("upper", [False, True])
def test_usual_columns_are_found_in_any_case(keys: tuple[str, str, str], upper: bool) -> None:
    columns = [key.upper() if upper else key for key in keys if key]
    places = np.column_stack([PLACES, [7.0, 8.0, 9.0]])[:, : len(columns)]
    obs = table(area=[1, 2, 3]).join(pd.DataFrame(places, index=list("abc"), columns=columns))
    coordinates, found = find_coordinates(obs, {}, None)
    np.testing.assert_array_equal(coordinates, places)
    assert found.startswith("obs[")


def test_a_constant_or_text_third_column_is_not_a_dimension() -> None:
    for z in ([2, 2, 2], ["a", "b", "c"]):
        coordinates, _ = find_coordinates(table(x=PLACES[:, 0], y=PLACES[:, 1], z=z), {}, None)
        assert coordinates is not None
        assert coordinates.shape == (3, 2)


def test_coordinates_may_be_named() -> None:
    obs = table(left=[1, 2, 3], down=[4, 5, 6], deep=[7, 8, 9])
    assert find_coordinates(obs, {"spatial": PLACES}, "obs:left, down, deep")[0].shape == (3, 3)
    assert find_coordinates(obs, {"spatial": PLACES, "um": PLACES * 2}, "obsm:um")[0][2, 1] == 10
    assert find_coordinates(obs, {"um": sp.csr_matrix(PLACES)}, "obsm:um")[1] == "obsm['um']"
    assert find_coordinates(obs, {"um": pd.DataFrame(PLACES)}, "obsm:um")[0].shape == (3, 2)
    assert find_coordinates(obs, {"spatial": PLACES}, "none") == (None, "none, as requested")


def test_bad_coordinates_are_refused() -> None:
    with pytest.raises(
        KeyMissingError, match=r"st: expected coordinates.*obsm with 'X_pca'.*coordinates='none'"
    ):
        find_coordinates(table(area=[1, 2, 3]), {"X_pca": PLACES}, None)
    with pytest.raises(
        KeyMissingError, match=r"got obsm with nothing, obs with nothing.*the reference comes"
    ):
        find_coordinates(table(), {}, None, hint="The reference comes first.".replace("The r", "the r"))
    with pytest.raises(KeyMissingError, match=r"coordinates='obsm:um'.*no such key\. Did you mean 'X_um'"):
        find_coordinates(table(), {"X_um": PLACES}, "obsm:um")
    with pytest.raises(KeyMissingError, match=r"coordinates='xx'.*no such column.*Did you mean 'x'"):
        find_coordinates(table(x=[1, 2, 3], y=[1, 2, 3]), {}, "obs:xx,y")
    for wrong in ("spatial", "obs:x", "obs:a,b,c,d", "obsm:"):
        with pytest.raises(SettingError, match=r"coordinates: expected 'obsm:KEY'"):
            find_coordinates(table(x=[1, 2, 3]), {"spatial": PLACES}, wrong)
    for width in (1, 4):
        with pytest.raises(InputError, match=rf"expected 2 or 3 columns.*got shape \(3, {width}\)"):
            find_coordinates(table(), {"spatial": np.ones((3, width))}, None)
    for bad in (np.nan, np.inf):
        with pytest.raises(InputError, match=r"NaN or infinity for 1 of 3 cells, the first at row 1\. Drop"):
            find_coordinates(table(x=[0.0, bad, 1.0], y=[0.0, 1.0, 1.0]), {}, None)
    with pytest.raises(
        InputError, match=r"st\.obs\['x', 'y'\]: expected numbers, got values that are not numbers"
    ):
        find_coordinates(table(x=["left", "b", "c"], y=[0, 1, 2]), {}, None)


def test_slices_are_found_if_they_distinguish_cells() -> None:
    obs = pd.DataFrame({"sample": ["one"] * 40, "Section": [1] * 20 + [2] * 20, "slice_id": range(40)})
    slices, found = find_slices(obs, None)
    assert slices is not None
    assert (slices.tolist(), found) == (["1"] * 20 + ["2"] * 20, "Section")
    assert find_slices(obs[["sample", "slice_id"]], None) == (None, "")
    assert find_slices(obs, "sample")[1] == "sample"
    with pytest.raises(KeyMissingError, match=r"slices='sections'.*Did you mean 'Section'"):
        find_slices(obs, "sections")


def test_labels_are_found_and_missing_ones_are_unknown() -> None:
    obs = table(CellType=pd.Categorical(["A", None, "A"]), cluster=[1, 1, 2])
    labels, found = find_labels(obs, None, where="sc", argument="labels")
    assert labels is not None
    assert (labels.tolist(), found) == (["A", "unknown", "A"], "CellType")
    chosen, _ = find_labels(obs, "cluster", where="sc", argument="labels")
    assert chosen is not None
    assert chosen.tolist() == ["1", "1", "2"]
    assert find_labels(table(area=[1, 2, 3]), None, where="sc", argument="labels") == (None, "")
    with pytest.raises(
        KeyMissingError, match=r"st_labels='celltyp': expected a column of obs of st, got no such"
    ):
        find_labels(obs, "celltyp", where="st", argument="st_labels")


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), three=st.booleans())
def test_spacing_equals_a_naive_loop(seed: int, three: bool) -> None:
    random = np.random.default_rng(seed)
    places, slices = random.normal(size=(30, 3 if three else 2)), random.choice(["a", "b"], 30)
    nearest = []
    for cell in range(30):
        others = [one for one in range(30) if one != cell and slices[one] == slices[cell]]
        nearest += [min(np.linalg.norm(places[one] - places[cell]) for one in others)] if others else []
    order = random.permutation(30)
    assert spot_spacing(places, slices) == pytest.approx(np.median(nearest))
    assert spot_spacing(places[order], slices[order]) == pytest.approx(np.median(nearest))


def test_spacing_of_cells_at_one_position() -> None:
    assert spot_spacing(np.zeros((4, 2))) is None
    assert spot_spacing(np.array([[0.0, 0.0], [0.0, 0.0], [3.0, 4.0]])) == 5.0
    assert spot_spacing(PLACES, np.array(["a", "b", "c"])) is None


@pytest.mark.parametrize("block", [1, 7, 40])
def test_the_block_size_of_the_search_does_not_matter(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    random = np.random.default_rng(4)
    places = np.concatenate([random.normal(size=(30, 2)), np.zeros((5, 2)), -np.zeros((5, 2))])
    expected = spot_spacing(places)
    monkeypatch.setattr(spatial, "TABLE_ROWS", block)
    assert spot_spacing(places) == expected


def test_a_sample_of_many_cells_depends_only_on_their_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(5)
    places = random.random((20_000, 2))
    whole = spot_spacing(places)
    monkeypatch.setattr(spatial, "_MOST_QUERIES", 2_000)
    drawn = spot_spacing(places)
    assert drawn == spot_spacing(random.permutation(places))
    assert drawn != whole
    assert drawn == pytest.approx(whole, rel=0.05)  # the standard error of this median is 0.01
    assert 1_800 < len(spatial._drawn(places, 10)) < 2_200


def test_labels_of_any_type_are_the_text_of_their_values() -> None:
    for values in (
        pd.Series(["b", None, "a", "b"]),
        pd.Series(pd.Categorical(["b", None, "a", "b"])),
        pd.Series([1.5, np.nan, 2.0, 1.5]),
        pd.Series([1, 2, 1]),
        pd.Series([True, False]),
        pd.Series([1, "1", "unknown", None], dtype=object),
        pd.Series([], dtype=object),
        pd.Series(np.array([0.1, 0.2], dtype=np.float32)),
    ):
        found = text_labels(values)
        assert found.tolist() == ["unknown" if pd.isna(one) else str(one) for one in values]
        assert len({id(one) for one in found}) == len(set(found))


def test_anndata_is_read_unchanged() -> None:
    data = anndata.AnnData(np.ones((3, 2), dtype=np.float32), obs=table(), obsm={"spatial": PLACES})
    assert find_coordinates(data.obs, data.obsm, None)[1] == "obsm['spatial']"


def square(n_cells: int, seed: int, *, start: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 100, (n_cells, 2)) + np.array([start, 0.0])


SECTION_COLUMNS = [
    "batch",
    "region",
    "orig.ident",
    "sample_name",
    "Slide",
    "slideID",
    "mouse_id",
    "ROI",
    "donor",
    "fov",
]


@pytest.mark.parametrize("column", SECTION_COLUMNS)
@pytest.mark.parametrize("start", [0.0, 150.0])
def test_sections_in_one_coordinate_frame_are_found(column: str, start: float) -> None:
    names = ["a"] * 60 + ["b"] * 60
    places = np.concatenate([square(60, 1), square(60, 2, start=start)])
    found, name = guess_slices(pd.DataFrame({"n": range(120), column: names}), places)
    assert found is not None
    assert (found.tolist(), name) == (names, column)


def test_sections_with_identical_positions_are_found() -> None:
    places = np.concatenate([square(60, 1)] * 2)
    assert guess_slices(pd.DataFrame({"batch": [0] * 60 + [1] * 60}), places)[1] == "batch"


def test_parts_of_one_section_are_not_slices() -> None:
    places = square(400, 3)
    layers = np.where(places[:, 0] < 50, "L1", "L2")
    assert guess_slices(pd.DataFrame({"region": layers}), places) == (None, "")
    assert guess_slices(pd.DataFrame({"batch": layers}), places) == (None, "batch")  # to be reported
    assert guess_slices(pd.DataFrame({"batch": ["a"] * 400}), places) == (None, "")
    assert guess_slices(pd.DataFrame({"batch": [str(one) for one in range(400)]}), places) == (None, "")
    assert guess_slices(pd.DataFrame({"kind": ["a", "b"] * 200}), places) == (None, "")


def test_one_slice_can_be_requested() -> None:
    obs = pd.DataFrame({"section": ["a", "b"] * 20})
    assert find_slices(obs, None)[1] == "section"
    assert find_slices(obs, "none") == (None, "")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["x_slide_mm", "y_slide_mm"], "obs:x_slide_mm,y_slide_mm"),
        (["CenterX_local_px", "CenterY_local_px"], "obs:CenterX_local_px,CenterY_local_px"),
        (["xcoord", "ycoord"], "obs:xcoord,ycoord"),
        (["x_FOV_px", "y_FOV_px", "x_slide_mm", "y_slide_mm"], "obs:x_slide_mm,y_slide_mm"),
        (["min_x", "min_y", "pos_X", "pos_Y"], "obs:pos_X,pos_Y"),
        (["row", "col"], "obs:col,row"),
        (["SPATIAL_1", "SPATIAL_2"], "obs:SPATIAL_1,SPATIAL_2"),
    ],
)
def test_columns_that_look_like_coordinates_are_suggested(columns: list[str], expected: str) -> None:
    obs = pd.DataFrame(np.zeros((3, len(columns))), columns=columns)
    obs["umap_x"], obs["umap_y"], obs["max_intensity"], obs["xname"], obs["yname"] = 0.0, 0.0, 1.0, "a", "b"
    with pytest.raises(
        KeyMissingError, match=rf"\. coordinates='{re.escape(expected)}' looks like them.* Specify them"
    ):
        find_coordinates(obs, {"X_umap": PLACES}, None)


def test_arrays_that_look_like_coordinates_are_suggested() -> None:
    with pytest.raises(
        KeyMissingError, match=r"\. coordinates='obsm:spatial_fov' looks like them\. Specify them"
    ):
        find_coordinates(table(area=[1, 2, 3]), {"X_umap": PLACES, "spatial_fov": PLACES}, None)
    with pytest.raises(KeyMissingError, match=r"'area'\. Specify them, coordinates='obsm:KEY' or"):
        find_coordinates(table(area=[1, 2, 3]), {"X_umap": PLACES}, None)


@pytest.mark.parametrize(
    "column",
    [
        "sampleID",
        "Run_Tissue_name",
        "image_id",
        "condition",
        "z_level",
        "well",
        "scan_id",
        "fov_set",
        "library_key",
        "experiment_name",
        "area_name",
        "treatment",
        "panel_version",
        "coverslip",
        "embryo",
    ],
)
def test_other_columns_whose_cells_lie_in_separate_sections_are_named(column: str) -> None:
    places = np.concatenate([square(60, 1), square(60, 2)])
    obs = pd.DataFrame({"sample_type": ["x", "y"] * 60, column: [1] * 60 + [2] * 60})
    assert guess_slices(obs, places) == (None, column)
    halves = np.sort(square(120, 1), axis=0)  # the halves touch
    assert guess_slices(obs, halves) == (None, "")


def test_a_column_of_spots_on_tissue_does_not_indicate_sections() -> None:
    places = np.concatenate([square(60, 1), square(60, 2)])
    assert guess_slices(pd.DataFrame({"in_tissue": [0, 1] * 60}), places) == (None, "")


@pytest.mark.parametrize("names", [("row", "col"), ("ypos", "xpos"), ("array_row", "array_col")])
def test_data_frames_with_rows_first_are_reordered(names: tuple[str, str]) -> None:
    places = pd.DataFrame({names[0]: [5.0, 6.0, 7.0], names[1]: [1.0, 3.0, 2.0]})
    found, _ = find_coordinates(pd.DataFrame(index=range(3)), {"spatial": places}, None)
    np.testing.assert_array_equal(found, [[1, 5], [3, 6], [2, 7]])


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("in_tissue", ["no", "yes", "yes"], [1, 2]),
        ("inTissue", [True, False, True], [0, 2]),
        ("tissue", [0, 1, 1], [1, 2]),
        ("on_tissue", [False, True, False], [1]),
        ("tissue", ["brain", "0", "1"], None),
        ("tissue", [1, 1, 1], None),
    ],
)
def test_columns_that_mark_the_background(
    column: str, values: list[object], expected: list[int] | None
) -> None:
    found = find_tissue(pd.DataFrame({column: values}))
    assert (None if found is None else found.tolist()) == expected
