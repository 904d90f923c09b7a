"""True positions and compositions: where they are read from, and errors."""

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cellweft._errors import InputError, KeyMissingError, SettingError
from cellweft.data._pair import Pair, pair
from cellweft.evaluate.ground_truth import true_composition, true_places

PLACES = np.column_stack([np.arange(12.0), 10 - np.arange(12.0)])
SHARES = np.array([[1.0, 0.0], [0.25, 0.75], [0.0, 0.0]])


@pytest.fixture
def both(make_side: Any) -> tuple[ad.AnnData, ad.AnnData]:
    sc, st = make_side(["A", "B", "C"]), make_side(["A", "B", "C"], n_cells=3, spatial=True)
    sc.obsm["lived"] = PLACES.copy()
    sc.obs[["gx", "gy"]] = PLACES
    st.obs_names = ["s1", "s2", "s3"]
    st.obsm["shares"] = SHARES.copy()
    st.uns["shares_names"] = np.array(["T/1", "T2"], dtype=object)
    return sc, st


@pytest.fixture
def found(both: Any) -> Pair:
    return pair(*both)


@pytest.mark.parametrize(
    "truth",
    [
        "obsm:lived",
        "obs:gx,gy",
        "obs: gx, gy",
        PLACES,
        PLACES.tolist(),
        pd.DataFrame(PLACES, index=[f"cell{number}" for number in range(12)])[::-1],
    ],
    ids=["obsm", "obs", "obs with spaces", "array", "lists", "table in another order"],
)
def test_true_positions(found: Pair, truth: Any) -> None:
    places = true_places(found, truth)
    np.testing.assert_array_equal(places, PLACES)
    assert places.dtype == np.float64


def test_true_positions_from_a_file_and_of_some_cells(both: Any, tmp_path: Path) -> None:
    sc, st = both
    sc.write_h5ad(tmp_path / "sc.h5ad")
    np.testing.assert_array_equal(true_places(pair(tmp_path / "sc.h5ad", st), "obsm:lived"), PLACES)


@pytest.mark.parametrize(
    ("truth", "error", "message"),
    [
        (
            "obsm:livd",
            KeyMissingError,
            r"truth='obsm:livd': expected a key of obsm of the reference .*'lived'",
        ),
        ("obs:gx,gz", KeyMissingError, r"truth='gz': expected a column of obs of the reference"),
        ("obs:gx", SettingError, r"truth='obs:gx': expected 'obs:X,Y', 'obs:X,Y,Z' or 'obsm:KEY'"),
        ("lived", SettingError, "truth='lived': expected 'obs:X,Y', 'obs:X,Y,Z' or 'obsm:KEY'"),
        ("none", SettingError, "truth='none': expected"),
        ("obsm:", SettingError, "truth='obsm:': expected"),
        (PLACES[:5], InputError, r"truth: expected 12 cells x 2 coordinates, .* got shape \(5, 2\)"),
        (np.ones((12, 3)), InputError, r"truth: expected 12 cells x 2 coordinates, .* got shape \(12, 3\)"),
        (PLACES + np.nan, InputError, "truth: expected finite numbers"),
        (np.full((12, 2), "here"), InputError, "truth: expected numbers"),
        (
            pd.DataFrame(PLACES),
            InputError,
            "truth: expected one row for each of the 12 cells.* none for 'cell0'",
        ),
    ],
)
def test_invalid_true_positions_are_refused(found: Pair, truth: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        true_places(found, truth)
    assert "coordinates=" not in str(raised.value)


def test_bad_true_positions_in_the_file(both: Any) -> None:
    sc, st = both
    sc.obsm["lived"][4, 1] = np.nan
    sc.obsm["deep"] = np.arange(36.0).reshape(12, 3)
    with pytest.raises(InputError, match=r"obsm\['lived'\]: expected a finite number .* Drop these cells\.$"):
        true_places(pair(sc, st), "obsm:lived")
    with pytest.raises(InputError, match=r"truth='obsm:deep': expected 12 cells x 2 coordinates"):
        true_places(pair(sc, st), "obsm:deep")


def test_true_positions_need_spots_with_coordinates(both: Any) -> None:
    with pytest.raises(KeyMissingError, match="coordinates: expected spots with coordinates"):
        true_places(pair(*both, coordinates="none"), "obsm:lived")


def test_composition_of_an_array_and_of_tables(both: Any) -> None:
    sc, st = both
    table = pd.DataFrame(SHARES, index=st.obs_names, columns=["T/1", "T2"])
    st.obsm["table"] = table.rename(columns={"T/1": "T1"})
    st.obsm["sparse"], st.uns["sparse_names"] = sp.csr_matrix(SHARES), ["T/1", "T2"]
    found = pair(sc, st)
    for truth in ("obsm:shares", "obsm:sparse", table, table[::-1], 7 * table):
        pd.testing.assert_frame_equal(true_composition(found, truth), table)
    assert list(true_composition(found, "obsm:table").columns) == ["T1", "T2"]


def test_composition_from_a_file_and_of_some_spots(both: Any, tmp_path: Path) -> None:
    sc, st = both
    st.write_h5ad(tmp_path / "st.h5ad")
    found = pair(sc, tmp_path / "st.h5ad").cells(np.array([2, 1]))
    composition = true_composition(found, "obsm:shares")
    assert composition.index.tolist() == ["s3", "s2"]
    np.testing.assert_array_equal(composition["T2"], [0.0, 0.75])


@pytest.mark.parametrize(
    ("truth", "error", "message"),
    [
        ("obsm:share", KeyMissingError, r"truth_composition='obsm:share': expected a key of obsm.*'shares'"),
        ("obs:shares", SettingError, "truth_composition='obs:shares': expected 'obsm:KEY'"),
        ("obsm:spatial", KeyMissingError, r"expected the cell types .*in uns\['spatial_names'\].* got none"),
        (SHARES, InputError, "truth_composition: expected a string or a table of spots, got ndarray"),
        (pd.DataFrame(SHARES), InputError, "expected one row for each of the 3 spots.* got none for 's1'"),
        (pd.DataFrame(SHARES, index=list("aab")), InputError, "expected one row for each of the 3 spots"),
        (
            pd.DataFrame(np.vstack([SHARES, SHARES]), index=["s1", "s2", "s3"] * 2),
            InputError,
            "expected one row for each of the 3 spots, by name, got duplicate names",
        ),
        (pd.DataFrame(-SHARES, index=["s1", "s2", "s3"]), InputError, "expected non-negative proportions"),
        (pd.DataFrame(SHARES + np.nan, index=["s1", "s2", "s3"]), InputError, "expected finite numbers"),
        (pd.DataFrame({"A": list("xyz")}, index=["s1", "s2", "s3"]), InputError, "expected numbers"),
        (
            pd.DataFrame(SHARES, index=["s1", "s2", "s3"], columns=["T", "T"]),
            InputError,
            "expected each type once, got 'T' twice",
        ),
    ],
)
def test_invalid_compositions_are_refused(found: Pair, truth: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        true_composition(found, truth)


def test_a_wrong_number_of_type_names_is_refused(both: Any) -> None:
    sc, st = both
    st.uns["shares_names"] = ["T1"]
    with pytest.raises(
        InputError, match=r"expected a column for each of the 1 names in uns\['shares_names'\]"
    ):
        true_composition(pair(sc, st), "obsm:shares")
