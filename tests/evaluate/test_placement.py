"""Cells of known place: what the table says of a placement, and what is refused."""

import inspect
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import cellweft
from cellweft._errors import InputError, KeyMissingError, SettingError
from cellweft.data._pair import Pair, pair
from cellweft.data.synthetic.pseudospots import PseudoSpots, pseudo_spots
from cellweft.data.synthetic.tissue import simulate_tissue
from cellweft.evaluate.ground_truth import caught_cells, true_composition, true_places
from cellweft.evaluate.imputation import evaluate_imputation
from cellweft.evaluate.placement import evaluate_placement
from cellweft.evaluate.placement_baselines import best_cosine, nnls_composition
from cellweft.evaluate.placement_metrics import composition_pcc, hit_number, location_errors, type_groups
from cellweft.evaluate.score_table import COLUMNS, write_scores

TRUTH: dict[str, Any] = {"truth": "obsm:spatial_true", "truth_composition": "obsm:composition"}
GROUPS = ("caught", "uncaught")
CELL_METRICS = ["location_error_mean", "location_error_median", "hits@5", "hits@20"]


@pytest.fixture(scope="module")
def made() -> PseudoSpots:
    cells = simulate_tissue(n_spatial=500, n_genes=200, n_panel=120, n_types=12, seed=3).st
    return pseudo_spots(cells, spacing=32, radius=20)


@pytest.fixture(scope="module")
def tissue(made: PseudoSpots) -> Pair:
    return pair(made.cells, made.spots)


@pytest.fixture(scope="module")
def table(tissue: Pair) -> pd.DataFrame:
    methods = ["cosine", "random", "centre", "nnls"]
    return evaluate_placement(tissue, methods, **TRUTH, hits=(5, 20), seeds=(0, 1), major=4)


@dataclass
class Oracle:
    """Knows the truth, notes what it was given, and may answer wrongly."""

    made: PseudoSpots
    seed: int = 0
    wrong: str = ""
    shown: list = field(default_factory=list)

    def __deepcopy__(self, _: dict) -> "Oracle":
        return self

    def fit(self, pair: Pair) -> "Oracle":
        self.pair_ = pair
        self.shown.append(pair)
        return self

    def place(self) -> "Oracle":
        if self.wrong == "raises":
            raise ZeroDivisionError("a bug")
        return self

    def coordinates(self) -> np.ndarray:
        places = self.pair_.sc.obsm["spatial_true"]
        return {"shape": places[:5], "nan": np.where(places > 50, np.nan, places)}.get(self.wrong, places)

    def neighbors(self, k: int) -> sp.csr_matrix:
        places = self.pair_.sc.obsm["spatial_true"]
        distance = np.linalg.norm(places[:, None] - places[None], axis=2)
        np.fill_diagonal(distance, 0.0 if self.wrong == "self" else np.inf)
        found = np.argsort(distance, axis=1)[:, : k - (self.wrong == "fewer")]
        # nearest last: only the values may tell
        found = found[:, ::-1]
        values = 1 / (1 + np.take_along_axis(distance, found, axis=1))
        starts = np.arange(0, found.size + 1, found.shape[1])
        return sp.csr_matrix((values.ravel(), found.ravel(), starts), shape=distance.shape)

    def deconvolve(self, labels: Any = None) -> pd.DataFrame:
        assert set(labels) == set(self.pair_.labels)
        shares = self.made.spots.obsm["composition"]
        if self.wrong == "types":
            return shares.iloc[:, 1:]
        return shares[::-1] if self.wrong == "order" else shares


def value(table: pd.DataFrame, metric: str, item: str, **where: Any) -> float:
    where = {"level": "summary", "seed": 0, "method": "cosine"} | where
    for column, wanted in (where | {"metric": metric, "item": item}).items():
        table = table[table[column] == wanted]
    (found,) = table["value"]
    return float(found)


def test_table_is_tidy(tissue: Pair, table: pd.DataFrame) -> None:
    assert tuple(table.columns) == COLUMNS
    assert set(table.method) == {"cosine", "random", "centre", "nnls"}
    assert set(table.seed) == {0, 1}
    assert set(table.fold) == {-1}
    assert np.isfinite(table.value).all()
    assert not table.duplicated([*COLUMNS[:-1]]).any()
    cell, kind, summary = (table[table.level == level] for level in ("cell", "type", "summary"))
    assert set(cell.metric) == {"location_error"}
    assert set(cell.item) == set(tissue.sc.obs_names)
    assert set(cell.method) == {"cosine", "random", "centre"}  # nnls places none
    assert len(cell) == 2 * 3 * tissue.sc.n_cells
    assert set(kind.metric) == {"celltype_pcc"}
    assert len(kind) == 2 * 4 * len(set(kind.item))
    items = summary.groupby("item").metric.agg(lambda one: sorted(set(one))).to_dict()
    cells = {"all cells": sorted(CELL_METRICS)}
    cells |= {f"{group} cells": sorted(f"{one}_{group}" for one in CELL_METRICS) for group in GROUPS}
    types = {f"{group} types": ["celltype_pcc"] for group in ("all", "major", "moderate", "rare")}
    assert items == cells | types | {"4 most frequent types": ["celltype_pcc@4"]}
    assert {"location_error_mean", "hits@5"}.isdisjoint(summary[summary.method == "nnls"].metric)


def test_scores_are_those_of_the_metrics(made: PseudoSpots, tissue: Pair, table: pd.DataFrame) -> None:
    true, placed = made.cells.obsm["spatial_true"], best_cosine(tissue, seed=1)
    errors = location_errors(true, placed.coordinates())
    cell = table[(table.level == "cell") & (table.method == "cosine") & (table.seed == 1)]
    np.testing.assert_array_equal(cell.set_index("item").value[tissue.sc.obs_names], errors)
    assert value(table, "location_error_mean", "all cells", seed=1) == pytest.approx(errors.mean())
    assert value(table, "location_error_median", "all cells", seed=1) == np.median(errors)
    caught = made.cells.obs["caught"].to_numpy()
    for group, cells in (("caught", caught), ("uncaught", ~caught)):
        mean = value(table, f"location_error_mean_{group}", f"{group} cells", seed=1)
        assert mean == pytest.approx(errors[cells].mean())
        median = value(table, f"location_error_median_{group}", f"{group} cells", seed=1)
        assert median == np.median(errors[cells])
    graph = placed.neighbors(20)
    ranked = np.array([row.indices[np.argsort(-row.data)] for row in graph])
    for k in (5, 20):
        assert value(table, f"hits@{k}", "all cells", seed=1) == hit_number(true, ranked[:, :k])
    split = [value(table, f"hits@5_{group}", f"{group} cells", seed=1) for group in GROUPS]
    weighted = split[0] * caught.mean() + split[1] * (1 - caught.mean())
    assert value(table, "hits@5", "all cells", seed=1) == pytest.approx(weighted)


@pytest.mark.parametrize(("name", "method"), [("cosine", best_cosine), ("nnls", nnls_composition)])
def test_types_are_those_of_the_metrics(tissue: Pair, table: pd.DataFrame, name: str, method: Any) -> None:
    truth, predicted = true_composition(tissue, "obsm:composition"), method(tissue).deconvolve()
    types = [one for one in truth.columns if truth[one].any()]
    scores = pd.Series(composition_pcc(truth[types].to_numpy(), predicted[types].to_numpy()), types)
    rows = table[(table.level == "type") & (table.method == name) & (table.seed == 0)].set_index("item").value
    pd.testing.assert_series_equal(rows[types], scores, check_names=False)
    assert value(table, "celltype_pcc", "all types", method=name) == pytest.approx(scores.mean())
    counts = pd.Series(tissue.labels).value_counts()[types]
    assert counts.is_unique  # ties would rank by name
    frequent = scores[counts.nlargest(4).index].mean()
    assert value(table, "celltype_pcc@4", "4 most frequent types", method=name) == pytest.approx(frequent)
    groups = type_groups(counts.to_numpy())
    for group in ("major", "moderate", "rare"):
        expected = scores[groups == group].mean()
        assert value(table, "celltype_pcc", f"{group} types", method=name) == pytest.approx(expected)


def test_a_perfect_placement(made: PseudoSpots, tissue: Pair) -> None:
    oracle = Oracle(made)
    found = evaluate_placement(tissue, [oracle], **TRUTH, hits=[3, 25])
    for item, ending in (("all cells", ""), ("caught cells", "_caught"), ("uncaught cells", "_uncaught")):
        assert value(found, f"location_error_mean{ending}", item, method="Oracle") == 0
        assert value(found, f"hits@25{ending}", item, method="Oracle") == 25
        assert value(found, f"hits@3{ending}", item, method="Oracle") == 3  # the nearest of the 25
    assert value(found, "celltype_pcc", "all types", method="Oracle") == pytest.approx(1)
    assert value(found, "celltype_pcc@14", "14 most frequent types", method="Oracle") == pytest.approx(1)
    assert oracle.shown == [tissue]


def test_baselines_are_what_they_are_known_for(table: pd.DataFrame) -> None:
    error, hits = (
        {m: value(table, name, "all cells", method=m) for m in ("cosine", "random", "centre")}
        for name in ("location_error_mean", "hits@20")
    )
    assert error["cosine"] < error["centre"] < error["random"]
    chance = 20 * 20 / 499
    assert hits["cosine"] > 3 * chance
    assert hits["random"] == pytest.approx(chance, abs=0.2)
    assert hits["centre"] == pytest.approx(chance, abs=0.2)
    assert value(table, "celltype_pcc", "all types", method="centre") == 0
    assert value(table, "celltype_pcc", "all types", method="nnls") > 0.5


def test_seeds_and_the_record(tissue: Pair, table: pd.DataFrame) -> None:
    drawn = [value(table, "location_error_mean", "all cells", method="random", seed=seed) for seed in (0, 1)]
    assert drawn[0] != drawn[1]
    record = table.attrs["cellweft"]
    assert record["seeds"] == [0, 1]
    assert record["parameters"] == {
        "by": "place",
        **TRUTH,
        "hits": [5, 20],
        "major": 4,
        "device": "auto",
        "methods": {name: name for name in ("cosine", "random", "centre", "nnls")},
    }
    assert record["pair"] == tissue.findings
    assert json.dumps(record)


def test_progress_is_reported_and_the_table_written(
    tissue: Pair, table: pd.DataFrame, tmp_path: Path
) -> None:
    methods, seen = ["cosine", "random", "centre", "nnls"], []
    found = evaluate_placement(
        tissue, methods, **TRUTH, hits=(5, 20), seeds=(0, 1), progress=lambda *one: seen.append(one)
    )
    same = found.item != "14 most frequent types"
    pd.testing.assert_frame_equal(
        found[same].reset_index(drop=True),
        table[table.item != "4 most frequent types"].reset_index(drop=True),
    )
    assert seen == [("evaluate", done, 8) for done in range(9)]
    assert cellweft.evaluate_placement is evaluate_placement
    written, beside = write_scores(found, tmp_path / "scores.csv")
    assert pd.read_csv(written).shape == found.shape
    assert json.loads(beside.read_text())["parameters"]["by"] == "place"


def test_truths_may_be_given_and_one_is_enough(made: PseudoSpots, tissue: Pair, table: pd.DataFrame) -> None:
    places, shares = made.cells.obsm["spatial_true"], made.spots.obsm["composition"]
    first = evaluate_placement(tissue, ["cosine", "nnls"], truth=places, hits=[5])
    assert set(first.method) == {"cosine"}  # the other places no cell
    assert set(first.level) == {"cell", "summary"}
    assert value(first, "hits@5", "all cells") == value(table, "hits@5", "all cells")
    assert first.attrs["cellweft"]["parameters"]["truth"] == "given"
    second = evaluate_placement(tissue, ["cosine", "nnls"], truth_composition=shares[::-1])
    assert set(second.level) == {"type", "summary"}
    expected = value(table, "celltype_pcc", "all types")
    assert value(second, "celltype_pcc", "all types") == pytest.approx(expected)


def test_cells_that_are_not_told_apart(made: PseudoSpots) -> None:
    plain = made.cells.copy()
    unclear = plain.obs["caught"].astype("boolean")
    unclear.iloc[3] = pd.NA
    for caught in (np.where(plain.obs["caught"], "yes", "no"), unclear):
        plain.obs["caught"] = caught
        found = evaluate_placement(pair(plain, made.spots), ["cosine"], **TRUTH, hits=[5])
        assert set(found[found.metric.str.startswith("hits@5")].item) == {"all cells"}
    plain.obs["caught"] = True
    found = evaluate_placement(pair(plain, made.spots), ["cosine"], **TRUTH, hits=[5])
    assert set(found[found.metric.str.startswith("hits@5")].metric) == {"hits@5", "hits@5_caught"}


def test_which_cells_are_in_a_spot(made: PseudoSpots, tissue: Pair) -> None:
    true = made.cells.obsm["spatial_true"]
    errors = location_errors(true, best_cosine(tissue, seed=0).coordinates())
    by_hand = np.zeros(len(true), dtype=bool)
    lines = [np.unique(axis) for axis in made.spots.obsm["spatial"].T]
    halves = [0.4 * np.diff(axis).min() / 2 for axis in lines]
    for cell, place in enumerate(true):
        for middle in made.spots.obsm["spatial"]:
            inside = [abs(place[axis] - middle[axis]) <= halves[axis] for axis in (0, 1)]
            by_hand[cell] |= all(inside)
    assert 0 < by_hand.sum() < len(true)
    named = made.cells.copy()
    named.obs["summed"] = by_hand
    for one, caught in ((tissue, by_hand), (tissue, "boxes:0.4"), (pair(named, made.spots), "obs:summed")):
        found = evaluate_placement(one, ["cosine"], truth=TRUTH["truth"], caught=caught, hits=[5])
        for group, cells in (("caught", by_hand), ("uncaught", ~by_hand)):
            mean = value(found, f"location_error_mean_{group}", f"{group} cells")
            assert mean == pytest.approx(errors[cells].mean())
    default = evaluate_placement(tissue, ["cosine"], truth=TRUTH["truth"], caught="boxes", hits=[5])
    same = evaluate_placement(tissue, ["cosine"], truth=TRUTH["truth"], caught="boxes:0.55", hits=[5])
    pd.testing.assert_frame_equal(default, same)


@pytest.mark.parametrize(
    ("caught", "error", "message"),
    [
        ("boxs", SettingError, r"caught='boxs': expected 'obs:COLUMN', 'boxes' or 'boxes:0.55'"),
        (
            "boxes:wide",
            SettingError,
            "expected a width above 0 and at most 1, as a fraction of the grid spacing, got 'wide'",
        ),
        (
            "boxes:0",
            SettingError,
            "expected a width above 0 and at most 1, as a fraction of the grid spacing, got '0'",
        ),
        (
            "boxes:1.2",
            SettingError,
            "expected a width above 0 and at most 1, as a fraction of the grid spacing, got '1.2'",
        ),
        (
            "boxes:nan",
            SettingError,
            "expected a width above 0 and at most 1, as a fraction of the grid spacing, got 'nan'",
        ),
        ("obs:summed", KeyMissingError, r"caught='summed': expected a column of obs of the reference"),
        ("obs:cell_type", InputError, "caught='obs:cell_type': expected True or False for each of 500 cells"),
        (np.ones(3, dtype=bool), InputError, r"caught: expected True or False .* got bool values of shape"),
        (np.ones(500), InputError, "caught: expected True or False for each of 500 cells, got float64"),
    ],
)
def test_what_says_nothing_of_the_cells_in_spots(
    tissue: Pair, caught: Any, error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        evaluate_placement(tissue, ["cosine"], truth=TRUTH["truth"], caught=caught)


def test_cells_in_spots_need_true_places_and_boxes_a_grid(made: PseudoSpots, tissue: Pair) -> None:
    with pytest.raises(SettingError, match="caught: expected the true positions as well, got no truth"):
        evaluate_placement(tissue, ["nnls"], truth_composition=TRUTH["truth_composition"], caught="boxes")
    row = made.spots[made.spots.obsm["spatial"][:, 1] == made.spots.obsm["spatial"][0, 1]].copy()
    with pytest.raises(
        InputError, match=r"spots on a two-dimensional grid, got 2 dimensions, .* \d+ and 1 lines"
    ):
        evaluate_placement(pair(made.cells, row), ["cosine"], truth=TRUTH["truth"], caught="boxes")


@pytest.mark.parametrize("shape", ["discs", "boxes"])
def test_pseudo_spots_are_evaluated_as_they_are(shape: Any) -> None:
    cells = simulate_tissue(n_spatial=200, n_genes=40, n_panel=20, seed=1).st
    made = pseudo_spots(cells, spacing=40, shape=shape)
    found = evaluate_placement(made, ["cosine"], hits=[5])
    expected = evaluate_placement(pair(made.cells, made.spots), ["cosine"], **TRUTH, hits=[5])
    pd.testing.assert_frame_equal(found, expected)
    parameters = found.attrs["cellweft"]["parameters"]
    assert parameters["pseudo_spots"] == made.parameters
    assert (made.parameters["shape"], made.parameters["spacing"]) == (shape, [40.0, 40.0])
    assert json.dumps(parameters)
    assert {"location_error_mean_caught", "hits@5_uncaught"} <= set(found.metric)


def test_what_is_no_pair_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"pair: expected a Pair or a PseudoSpots, got a AnnData\. Create one"
    ):
        evaluate_placement(simulate_tissue(n_spatial=60).st, ["cosine"], truth="obsm:spatial")  # type: ignore[arg-type]


@pytest.mark.slow
def test_hits_by_embedding_are_those_of_the_largest_products(made: PseudoSpots, tissue: Pair) -> None:
    found = evaluate_placement(
        tissue, [cellweft.Placer(preset="stem", settings={"steps": 3})], **TRUTH, hits=[4, 9]
    )
    placed = cellweft.Placer(preset="stem", settings={"steps": 3}).fit(tissue).place()
    embeddings, true = placed.cells.numpy(), made.cells.obsm["spatial_true"]
    counts = {4: [], 9: []}
    for cell in range(len(true)):
        others = [one for one in range(len(true)) if one != cell]
        by_product = sorted(others, key=lambda one: -float(embeddings[cell] @ embeddings[one]))
        by_place = sorted(others, key=lambda one: float(np.hypot(*(true[cell] - true[one]))))
        for k in counts:
            counts[k].append(len({*by_product[:k]} & {*by_place[:k]}))
    caught = made.cells.obs["caught"].to_numpy()
    for k, each in counts.items():
        label = found.method.iloc[0]
        mean = value(found, f"hits_embedding@{k}", "all cells", method=label)
        assert mean == pytest.approx(np.mean(each), abs=0.05)
        apart = value(found, f"hits_embedding@{k}_caught", "caught cells", method=label)
        assert apart == pytest.approx(np.mean(np.array(each)[caught]), abs=0.05)
    assert "hits@4" in set(found.metric)


def test_types_of_one_side_do_not_count(made: PseudoSpots, tissue: Pair) -> None:
    shares = made.spots.obsm["composition"].assign(Foreign=0.1)
    first = shares.columns[0]
    nowhere = shares.assign(**{first: 0.0})
    found = evaluate_placement(tissue, ["cosine"], truth_composition=nowhere)
    assert set(found[found.level == "type"].item) == set(shares.columns) - {"Foreign", first}
    with pytest.raises(
        InputError,
        match=(
            "truth_composition: expected at least one cell type that occurs both in .* got 'Foreign' "
            r"\(spots\)"
        ),
    ):
        evaluate_placement(tissue, ["cosine"], truth_composition=shares[["Foreign"]])


def test_order_of_the_cells_does_not_matter(made: PseudoSpots, tissue: Pair) -> None:
    order = np.random.default_rng(0).permutation(made.cells.n_obs)
    moved = pair(made.cells[order], made.spots)
    one, other = (
        evaluate_placement(each, ["knn-regression"], **TRUTH, hits=[20]) for each in (tissue, moved)
    )
    columns = ["level", "item", "metric"]
    one, other = (each.sort_values(columns, ignore_index=True) for each in (one, other))
    hits = one.metric.str.startswith("hits@20")  # cells at one place are told apart at random
    assert one[columns].equals(other[columns])
    np.testing.assert_allclose(other.value[~hits], one.value[~hits], rtol=1e-9)  # sums in another order
    np.testing.assert_allclose(other.value[hits], one.value[hits], rtol=0.2)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"truth": None, "truth_composition": None}, SettingError, "truth: expected the true positions"),
        (
            {"truth": "obsm:lived"},
            KeyMissingError,
            "truth='obsm:lived': expected a key of obsm of the reference",
        ),
        ({"truth_composition": "obsm:spatial"}, KeyMissingError, "truth_composition='obsm:spatial'"),
        ({"hits": ()}, SettingError, "hits: expected unique numbers of neighbours"),
        ({"hits": (3, 3)}, SettingError, "hits: expected unique numbers of neighbours"),
        ({"hits": (0,)}, SettingError, "hits: expected a whole number from 1 to 499"),
        ({"hits": (500,)}, SettingError, "hits: expected a whole number from 1 to 499, got 500"),
        ({"major": 0}, SettingError, "major: expected a whole number >= 1"),
        ({"seeds": ()}, SettingError, "seeds: expected unique whole numbers"),
        ({"methods": ["knn"]}, SettingError, "methods: expected one of 'auto', 'stem'"),
        (
            {"methods": ["nnls"], "truth_composition": None},
            InputError,
            "methods: expected a method that predicts",
        ),
    ],
)
def test_bad_settings(tissue: Pair, changes: dict[str, Any], error: type, message: str) -> None:
    arguments = {"methods": ["cosine"], "hits": [5]} | TRUTH | changes
    with pytest.raises(error, match=message):
        evaluate_placement(tissue, arguments.pop("methods"), **arguments)


def test_a_pair_without_labels_or_places(made: PseudoSpots) -> None:
    bare = made.cells.copy()
    bare.obs = bare.obs[["caught"]]
    with pytest.raises(KeyMissingError, match="labels: expected a type for every cell of the reference"):
        evaluate_placement(pair(bare, made.spots), ["cosine"], **TRUTH)
    with pytest.raises(KeyMissingError, match="coordinates: expected spots with coordinates"):
        evaluate_placement(pair(made.cells, made.spots, coordinates="none"), ["cosine"], **TRUTH)


def test_each_evaluation_has_only_the_parameters_that_it_uses(tissue: Pair) -> None:
    imputation, placement = (
        set(inspect.signature(one).parameters) for one in (evaluate_imputation, evaluate_placement)
    )
    assert imputation & placement == {"pair", "methods", "seeds", "device", "progress"}
    assert "evaluate" not in cellweft.__all__
    with pytest.raises(TypeError, match="unexpected keyword argument 'truth'"):
        evaluate_imputation(tissue, ["mean"], truth=TRUTH["truth"])  # type: ignore[call-arg]
    with pytest.raises(SettingError, match="by: expected one of 'genes', 'cells', 'fraction', got 'place'"):
        evaluate_imputation(tissue, ["mean"], by="place")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ("raises", ZeroDivisionError, "a bug"),
        ("shape", InputError, r"predicted: expected positions of the same shape .* got shape \(5, 2\)"),
        ("nan", InputError, "predicted: expected finite positions"),
        ("fewer", InputError, "neighbors: expected a matrix of 500 x 500 cells with 5 entries in each row"),
        ("self", InputError, "neighbors: expected .* a cell that is its own neighbour"),
        ("types", InputError, "composition: expected .* got no column for"),
        ("order", InputError, "composition: expected .* got different spots, or a different order"),
    ],
)
def test_methods_that_answer_wrongly(
    made: PseudoSpots, tissue: Pair, wrong: str, error: type, message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        evaluate_placement(tissue, [Oracle(made, wrong=wrong)], **TRUTH, hits=[5], seeds=[2])
    assert "while evaluating 'Oracle', seed 2" in raised.value.__notes__


# Real data


@pytest.mark.slow
def test_embryo(shared_data: Path) -> None:
    """Baselines on the published pseudo-spots; the errors are in units of x_global."""
    embryo = pair(shared_data / "embryo_benchmark_sc.h5ad", shared_data / "embryo_benchmark_st.h5ad")
    found = evaluate_placement(
        embryo,
        ["cosine", "centre", "nnls"],
        truth="obs:x_global,y_global",
        truth_composition="obsm:celltype_prop",
        caught="boxes",
        hits=[120],
    )
    # 28 % of the cells are in a spot
    assert caught_cells(embryo, "boxes", true_places(embryo, "obs:x_global,y_global")).sum() == 1726
    assert value(found, "location_error_mean_caught", "caught cells") == pytest.approx(1.9, abs=0.1)
    assert value(found, "location_error_mean_uncaught", "uncaught cells") == pytest.approx(16.2, abs=0.1)
    assert value(found, "location_error_mean", "all cells") == pytest.approx(12.2, abs=0.2)
    assert value(found, "location_error_median", "all cells") == pytest.approx(4.2, abs=0.2)
    assert value(found, "hits@120", "all cells") == pytest.approx(60, abs=1)
    assert value(found, "celltype_pcc@14", "14 most frequent types") == pytest.approx(0.915, abs=0.005)
    nnls = value(found, "celltype_pcc@14", "14 most frequent types", method="nnls")
    assert nnls == pytest.approx(0.872, abs=0.005)
    # by chance 120 * 120 / 6115 = 2.35
    assert value(found, "hits@120", "all cells", method="centre") == pytest.approx(2.35, abs=0.15)
    # one type has no cell in any spot
    assert found[found.level == "type"].item.nunique() == 22


@pytest.mark.slow
def test_embryo_by_knn_regression_and_three_seeds(shared_data: Path) -> None:
    embryo = pair(shared_data / "embryo_benchmark_sc.h5ad", shared_data / "embryo_benchmark_st.h5ad")
    found = evaluate_placement(
        embryo, ["knn-regression", "random"], truth="obs:x_global,y_global", seeds=(0, 1, 2)
    )
    for seed in (0, 1, 2):
        near = value(found, "location_error_mean", "all cells", method="knn-regression", seed=seed)
        assert near == pytest.approx(16.7, abs=0.2)
        far = value(found, "location_error_mean", "all cells", method="random", seed=seed)
        assert far == pytest.approx(89.5, abs=2)
