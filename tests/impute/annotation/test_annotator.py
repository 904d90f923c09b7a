"""Labels of the reference transferred to the tissue: the table, several columns, calibration, and errors."""

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

import cellweft
from cellweft.data._pair import Pair, pair
from cellweft.impute.imputer import Imputer

TYPES = np.array(["Astro", "Excitatory", "Inhibitory"])
SHORT = {"steps": 20, "level_steps": 2, "fold_steps": 2}
KINDS: dict[str, dict[str, Any]] = {
    "attention": {"settings": SHORT},
    "metacells": {"settings": SHORT | {"most_keys": 60}},
    "stimpute": {"preset": "stimpute", "settings": {"k": 8, "hidden": 4, "ae_epochs": 4, "epochs": 1}},
}


def side(n_cells: int, seed: int, depth: float) -> anndata.AnnData:
    """Cells of three types; each type has four marker genes among 15."""
    draw = np.random.default_rng(seed)
    codes = draw.integers(3, size=n_cells)
    rates = np.ones((3, 15))
    for code in range(3):
        rates[code, 4 * code : 4 * code + 4] = 8
    counts = draw.poisson(depth * rates[codes] / rates.sum(axis=1, keepdims=True)[codes])
    obs = pd.DataFrame({"subclass": TYPES[codes]}, index=[f"{seed}-{number}" for number in range(n_cells)])
    obs["class"] = np.where(codes == 0, "Glia", "Neuron")
    made = anndata.AnnData(counts.astype(np.float32), obs=obs)
    made.var_names = [f"Gene{number:02d}" for number in range(15)]
    return made


@pytest.fixture(scope="module")
def sides() -> tuple[anndata.AnnData, anndata.AnnData]:
    reference, tissue = side(240, 1, 200.0), side(150, 2, 60.0)
    tissue.X[7] = 0
    tissue.obsm["spatial"] = np.random.default_rng(3).random((150, 2)) * 100
    reference.obs.loc[reference.obs_names[:5], "subclass"] = np.nan
    return reference, tissue[:, :13].copy()


@pytest.fixture(scope="module")
def data(sides: tuple[anndata.AnnData, anndata.AnnData]) -> Pair:
    return pair(*sides)


@pytest.fixture(scope="module", params=KINDS)
def imputer(request: pytest.FixtureRequest, data: Pair) -> Imputer:
    return Imputer(reliability=False, **KINDS[request.param]).fit(data, progress=False)


@pytest.fixture(scope="module")
def fitted(data: Pair) -> Imputer:
    return Imputer(reliability=False, settings=SHORT).fit(data, progress=False)


def test_the_table_of_one_column(imputer: Imputer, data: Pair) -> None:
    told = list[tuple[str, int, int]]()
    table = imputer.annotate("subclass", progress=lambda *one: told.append(one))
    names = [f"probability_{name}" for name in TYPES]
    assert list(table.columns) == ["label", "confidence", "unknown", *names]
    assert table.index.equals(data.st.obs_names)
    np.testing.assert_allclose(table[names].sum(axis=1), 1, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(table["confidence"], table[names].max(axis=1))
    np.testing.assert_array_equal(table["label"].astype(str), TYPES[table[names].to_numpy().argmax(axis=1)])
    has_counts = np.arange(150) != 7
    truth = data.st.obs["subclass"].to_numpy()
    assert (table["label"].astype(str) == truth)[has_counts].mean() > 0.9
    assert table["unknown"].iloc[7]
    assert table["unknown"].dtype == bool
    assert table["unknown"].mean() < 0.35
    assert {one[0] for one in told} == {"cells", "held-out cells"}


def test_the_record_of_the_calibration(fitted: Imputer) -> None:
    record = fitted.annotate("subclass", progress=False).attrs["cellweft"]
    assert record["reference_cells_without_label"] == 5
    assert record["held_out_cells"] == 235
    assert 0.03 <= record["depth"] <= 1
    told = record["labels"]["subclass"]
    assert 0 <= told["calibration_error"] < 0.2
    assert sum(told["calibration"]["weight"]) == pytest.approx(1)
    labels = fitted.pair_.sc.obs["subclass"].value_counts()
    assert sum(told["reference_cells"].values()) == labels.sum()
    assert told["reference_cells"] == {name: labels[name] for name in sorted(labels.index)}
    assert (record["kind"], record["preset"], record["seed"]) == ("labels", "auto", 0)
    assert record["inputs"]["spatial"]["cells"] == fitted.pair_.st.n_cells
    assert record["duration"]["run"] > 0


def test_the_panel_is_classified_only_if_the_platforms_are_similar(
    sides: tuple[anndata.AnnData, anndata.AnnData], fitted: Imputer
) -> None:
    assert fitted.annotate("subclass", progress=False).attrs["cellweft"]["platforms_alike"]
    reference, tissue = sides[0], sides[1].copy()
    found = np.resize([1.0, 0.5, 0.25, 0.12], tissue.n_vars)  # detected fraction of each gene's counts
    tissue.X = np.random.default_rng(0).binomial(tissue.X.astype(int), found).astype(np.float32)
    tissue = tissue[np.asarray(tissue.X.sum(axis=1)).ravel() > 0].copy()
    other = Imputer(reliability=False, settings=SHORT).fit(pair(reference, tissue), progress=False)
    table = other.annotate("subclass", progress=False)
    assert not table.attrs["cellweft"]["platforms_alike"]
    assert (table["label"].astype(str) == tissue.obs["subclass"]).mean() > 0.8


def test_labels_of_several_columns_agree(fitted: Imputer) -> None:
    table = fitted.annotate(["subclass", "class"], progress=False)
    assert list(table.columns[:3]) == ["class_label", "class_confidence", "class_unknown"]
    glia = table["class_label"].astype(str) == "Glia"
    np.testing.assert_array_equal(glia, table["subclass_label"].astype(str) == "Astro")
    np.testing.assert_allclose(
        table["class_probability_Neuron"],
        table["subclass_probability_Excitatory"] + table["subclass_probability_Inhibitory"],
        rtol=0,
        atol=1e-9,
    )
    assert (table["subclass_confidence"] <= table["class_confidence"] + 1e-9).all()
    assert table["subclass_unknown"][table["class_unknown"]].all()


def test_a_loaded_model_gives_the_same_table(
    imputer: Imputer, sides: tuple[anndata.AnnData, anndata.AnnData], tmp_path: Path
) -> None:
    before = [one.X.copy() for one in sides]
    loaded = cellweft.load(imputer.save(tmp_path / "model")).attach(pair(*sides))
    pd.testing.assert_frame_equal(
        loaded.annotate("class", progress=False), imputer.annotate("class", progress=False), rtol=1e-4
    )
    for one, values in zip(sides, before, strict=True):
        np.testing.assert_array_equal(one.X, values)


def test_arrays_and_the_labels_of_the_pair(
    fitted: Imputer, data: Pair, sides: tuple[anndata.AnnData, anndata.AnnData]
) -> None:
    by_name = fitted.annotate("class", progress=False)
    given = fitted.annotate(data.sc.obs["class"].to_numpy(), progress=False)
    pd.testing.assert_frame_equal(given, by_name)
    labelled = pair(*sides, labels="class")
    pd.testing.assert_frame_equal(fitted.annotate(pair=labelled, progress=False), by_name)


def test_columns_of_labels_never_collide(fitted: Imputer, data: Pair) -> None:
    odd = np.where(data.sc.obs["class"] == "Glia", "label", "unknown?")
    table = fitted.annotate(odd, progress=False)
    assert list(table.columns[3:]) == ["probability_label", "probability_unknown?"]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("subclas", r"labels='subclas': expected a column of obs.*'subclass'"),
        (np.full(240, "Astro"), r"labels: expected cells of at least 2 types.*'Astro' for all 240 cells"),
        (np.full(240, None), r"labels: expected cells of at least 2 types.*none for any of its 240 cells"),
        (np.full(239, "Astro"), r"labels: expected one type per cell for the 240 cells"),
        ([], r"labels: expected one or more columns of obs, got none"),
        (["Astro", "Neuron"] * 120, r"labels: expected a list of columns of obs, or an array.*np.array"),
        (pd.Series("Astro", [f"x{one}" for one in range(240)]), r"an index that has 0 of them, such as 'x0'"),
        (None, r"labels: expected a type for every cell of the reference, got a pair without labels"),
    ],
)
def test_invalid_labels_are_refused(
    fitted: Imputer, sides: tuple[anndata.AnnData, anndata.AnnData], labels: Any, message: str
) -> None:
    reference = sides[0].copy()
    if labels is None:
        reference.obs = reference.obs.rename(columns={"subclass": "a", "class": "b"})
    with pytest.raises(cellweft.CellweftError, match=message):
        fitted.annotate(labels, pair=pair(reference, sides[1]), progress=False)


def test_placeholders_for_missing_types_are_ignored(fitted: Imputer, data: Pair) -> None:
    truth = data.sc.obs["class"].to_numpy(object)
    left_out = np.arange(240) < 60
    expected = fitted.annotate(np.where(left_out, None, truth), progress=False)
    words = np.array(
        ["Unknown", "UNASSIGNED ", "", " ", "nan", "N/A", "<NA>", "None", "unlabeled", "undefined"]
    )
    told = fitted.annotate(np.where(left_out, words[np.arange(240) % 10], truth), progress=False)
    pd.testing.assert_frame_equal(told, expected)
    assert told.attrs["cellweft"]["reference_cells_without_label"] == 60


def test_spaces_and_decimal_parts_do_not_create_labels(fitted: Imputer, data: Pair) -> None:
    truth = data.sc.obs["class"].to_numpy(object)
    spaced = np.where(np.arange(240) % 2, truth + " ", truth)
    expected = fitted.annotate("class", progress=False)
    pd.testing.assert_frame_equal(fitted.annotate(spaced, progress=False), expected)
    numbers = np.where(truth == "Glia", 1.0, 12.0)
    numbers[:3] = np.nan
    assert list(fitted.annotate(numbers, progress=False)["label"].cat.categories) == ["1", "12"]


def test_labels_of_a_series_are_matched_by_cell_names(fitted: Imputer, data: Pair) -> None:
    shuffled = data.sc.obs["class"].sample(frac=1, random_state=0)
    expected = fitted.annotate("class", progress=False)
    pd.testing.assert_frame_equal(fitted.annotate(shuffled, progress=False), expected)


def test_labels_of_few_cells_each_raise_no_warning(fitted: Imputer) -> None:
    table = fitted.annotate(np.array([f"type {one % 100}" for one in range(240)]), progress=False)
    assert len(table["label"].cat.categories) == 100


def test_two_columns_of_the_same_name_are_refused(
    fitted: Imputer, sides: tuple[anndata.AnnData, anndata.AnnData]
) -> None:
    reference = sides[0].copy()
    reference.obs = pd.concat([reference.obs, reference.obs[["class"]]], axis=1)
    with pytest.raises(cellweft.errors.InputError, match=r"labels='class': expected a single column.*got 2"):
        fitted.annotate("class", pair=pair(reference, sides[1]), progress=False)


def test_the_tissue_is_read_as_often_for_one_column_as_for_several(
    fitted: Imputer, data: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_read: list[int] = []
    dense = type(data.st).dense
    monkeypatch.setattr(
        type(data.st), "dense", lambda side, *given: n_read.append(side is data.st) or dense(side, *given)
    )
    counts = []
    for columns in ("class", ["class", "subclass"]):
        n_read.clear()
        fitted.annotate(columns, progress=False)
        counts.append(sum(n_read))
    assert counts[0] == counts[1]
