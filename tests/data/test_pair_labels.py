"""Labels and coordinates that placement needs from a pair, and errors if they are missing."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from cellweft._errors import InputError, KeyMissingError
from cellweft.data._pair import Pair, coordinates_of, labels_of, pair
from cellweft.data.synthetic.tissue import SimulatedTissue


class TestLabels:
    def test_labels_of_the_pair_take_precedence(self, tissue: SimulatedTissue, tissue_pair: Pair) -> None:
        expected = tissue.sc.obs["cell_type"].astype(str).to_numpy()
        np.testing.assert_array_equal(labels_of(tissue_pair), expected)
        np.testing.assert_array_equal(labels_of(tissue_pair, None), expected)

    def test_a_column_or_values(self, tissue: SimulatedTissue, tissue_pair: Pair) -> None:
        expected = tissue.sc.obs["cell_type"].astype(str).to_numpy()
        np.testing.assert_array_equal(labels_of(tissue_pair, "cell_type"), expected)
        column = tissue.sc.obs["cell_type"]
        for given in (expected, list(expected), column, column.astype(str), column.cat.codes.to_numpy()):
            found = labels_of(tissue_pair, given)
            assert all(type(one) is str for one in found)
            assert found.shape == (100,)
            np.testing.assert_array_equal(found, np.asarray(given).astype(str))

    def test_missing_types_of_any_form_are_unknown(self, tissue: SimulatedTissue) -> None:
        sc = tissue.sc.copy()
        sc.obs["cell_type"] = sc.obs["cell_type"].astype(object)
        sc.obs.loc[sc.obs_names[3], "cell_type"] = None
        one = pair(sc, tissue.st)
        for given in (None, "cell_type", sc.obs["cell_type"], sc.obs["cell_type"].astype("category")):
            found = labels_of(one, given)
            assert found[3] == "unknown"
            assert found[4] == sc.obs["cell_type"].iloc[4]

    def test_a_pair_without_labels(self, tissue_pair: Pair) -> None:
        bare = dataclasses.replace(tissue_pair, labels=None)
        with pytest.raises(KeyMissingError, match=r"labels: expected a type for every cell.*labels='COLUMN'"):
            labels_of(bare)
        assert len(labels_of(bare, "cell_type")) == 100

    def test_an_unknown_column_suggests_a_similar_one(self, tissue_pair: Pair) -> None:
        with pytest.raises(KeyMissingError, match=r"labels='cell_typ'.*Did you mean 'cell_type'\?"):
            labels_of(tissue_pair, "cell_typ")

    @pytest.mark.parametrize("wrong", [["a"] * 99, np.zeros((100, 2)), np.array("a"), []])
    def test_a_wrong_number_of_labels_is_refused(self, tissue_pair: Pair, wrong: object) -> None:
        with pytest.raises(
            InputError, match=r"labels: expected one type per cell for the 100 cells, got shape"
        ):
            labels_of(tissue_pair, wrong)  # type: ignore[arg-type]


class TestCoordinates:
    def test_coordinates_of_the_pair(self, tissue: SimulatedTissue, tissue_pair: Pair) -> None:
        np.testing.assert_array_equal(coordinates_of(tissue_pair), tissue.st.obsm["spatial"])

    def test_missing_coordinates_say_how_to_give_them(self, tissue: SimulatedTissue) -> None:
        bare = pair(tissue.sc, tissue.st, coordinates="none")
        with pytest.raises(
            KeyMissingError, match=r"coordinates: expected spots with coordinates.*coordinates='obsm:KEY'"
        ):
            coordinates_of(bare)


def test_labels_of_a_series_are_matched_by_cell_names(tissue: SimulatedTissue, tissue_pair: Pair) -> None:
    """An index of row numbers means the order of cells; an index with other cell names is refused."""
    labels = pd.Series(tissue.sc.obs["cell_type"].astype(str))
    for one in (labels, labels[::-1], labels.reset_index(drop=True)):
        np.testing.assert_array_equal(labels_of(tissue_pair, one), tissue_pair.labels)  # type: ignore[arg-type]
    for names in ([f"x{number}" for number in range(100)], ["same"] * 100, [*tissue.sc.obs_names[:99], "x"]):
        with pytest.raises(InputError, match="labels: expected an index with the names of the 100 cells"):
            labels_of(tissue_pair, labels.set_axis(names))  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["names", "numbers", "fractions", "few fractions"])
def test_names_of_cells_and_measurements_are_not_labels(how: str, tissue: SimulatedTissue) -> None:
    sc, n_cells = tissue.sc.copy(), tissue.sc.n_obs
    values = {
        "names": sc.obs_names.to_numpy(),
        "numbers": np.arange(n_cells),
        "fractions": np.arange(n_cells) / 7,
        "few fractions": np.arange(n_cells) // 5 / 7,
    }
    sc.obs["odd"] = values[how]
    said = rf"obs\['odd'\]: expected a cell type that several cells share, got {20 if 'few' in how else 100} "
    with pytest.raises(InputError, match=said + "different values for 100 cells"):
        pair(sc, tissue.st, labels="odd")
    one = pair(sc, tissue.st)
    assert one.findings["reference"]["labels"] == "cell_type"
    for given in ("odd", values[how]):
        with pytest.raises(InputError, match=r"labels(='odd')?: expected a cell type that several cells"):
            labels_of(one, given)
    sc.obs["cell_type"] = values[how]
    assert pair(sc, tissue.st).labels is None


def test_a_slice_for_every_cell_is_refused(tissue: SimulatedTissue) -> None:
    st = tissue.st.copy()
    st.obs["name"] = st.obs_names
    with pytest.raises(InputError, match=r"obs\['name'\]: expected a slice that several cells share"):
        pair(tissue.sc, st, slices="name")


def test_groups_named_by_numbers_are_labels(tissue: SimulatedTissue) -> None:
    """Clusters from R are floats, and subclusters may be called 1.1 and 1.2."""
    sc = tissue.sc.copy()
    sc.obs["cell_type"] = sc.obs["cell_type"].cat.codes / 10 + 1
    assert pair(sc, tissue.st).findings["reference"]["labels"] == "cell_type"
