"""Held-out genes and cells: what a method sees of the data, and the table of scores."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import KFold

from cellweft._errors import InputError, OutputError, OutputExistsError, ScaleError, SettingError
from cellweft.data._pair import Pair, pair
from cellweft.data.hold_out import panel_reference
from cellweft.data.synthetic.tissue import simulate_tissue
from cellweft.evaluate import metrics
from cellweft.evaluate.imputation import COLUMNS, evaluate_imputation
from cellweft.evaluate.imputation_baselines import knn, reference_mean
from cellweft.evaluate.score_table import write_scores
from cellweft.tl._clustering import cluster_scores, coexpression_modules, leiden_clusters

GENE_ITEMS = ["median over genes", "mean over genes"]
ITEMS = [*GENE_ITEMS, "median over cells", "mean over cells", "clusters", "modules"]


@pytest.fixture(scope="module")
def tissue() -> Pair:
    simulated = simulate_tissue(n_spatial=90, n_reference=80, n_genes=24, n_panel=12, seed=2)
    return pair(simulated.sc, simulated.st)


@pytest.fixture(scope="module")
def table(tissue: Pair) -> pd.DataFrame:
    return evaluate_imputation(tissue, ["mean", "knn:k=5"], seeds=(0, 1))


@dataclass
class Spy:
    """A method that predicts the truth with given reliability, and records the data that it was fitted to."""

    truth: Pair
    seed: int = 0
    shown: list = field(default_factory=list)
    broken: str = ""

    def __deepcopy__(self, _: dict) -> "Spy":
        return self  # all copies share one list

    def fit(self, pair: Pair) -> "Spy":
        self.shown.append({"genes": set(pair.shared_genes), "cells": list(pair.st.obs_names)})
        return self

    def predict(self, genes: np.ndarray, pair: Pair) -> np.ndarray:
        asked = {"asked": set(genes), "for": list(pair.st.obs_names), "seed": self.seed}
        self.shown[-1] |= asked | {"panel": set(pair.shared_genes), "pair": pair}
        if self.broken == "raises":
            raise ZeroDivisionError("a bug")
        where = dict(zip(self.truth.shared_genes, self.truth.st_shared, strict=True))
        cells = self.truth.st.obs_names.get_indexer(pair.st.obs_names)
        values = self.truth.st.dense(cells, np.array([where[gene] for gene in genes]))
        if self.broken == "shape":
            return values.T
        values[0, 0] = np.nan if self.broken == "nan" else values[0, 0]
        return values

    def reliability_of(self, genes: np.ndarray) -> np.ndarray:
        where = dict(zip(self.truth.shared_genes, self.truth.sc_shared, strict=True))
        return np.array([where[gene] for gene in genes], dtype=float)


def naive_predictions(tissue: Pair, method: object) -> np.ndarray:
    genes = np.sort(tissue.shared_genes)
    predicted = np.zeros((tissue.st.n_cells, len(genes)), dtype=np.float32)
    for _, held in KFold(5, shuffle=True, random_state=0).split(genes):
        train = hold_out(tissue, genes[held])
        predicted[:, held] = method(train, train, train.find_genes(genes[held]))
    return predicted


def hold_out(tissue: Pair, genes: np.ndarray) -> Pair:
    """Return the tissue without some genes, and the reference with only the genes of the whole panel."""
    reference = panel_reference(tissue.sc, tissue.sc_shared)
    return replace(tissue, sc=reference, sc_shared=np.arange(len(tissue.shared_genes))).hold_out(genes)


def truth_of(tissue: Pair) -> np.ndarray:
    return tissue.st.dense(slice(0, tissue.st.n_cells), tissue.st_shared)


def values(table: pd.DataFrame, **where: object) -> pd.Series:
    for column, wanted in where.items():
        table = table[table[column] == wanted]
    return table.set_index("item" if "metric" in where else "metric")["value"]


def test_table_is_tidy(tissue: Pair, table: pd.DataFrame) -> None:
    assert tuple(table.columns) == COLUMNS
    assert set(table.method) == {"mean", "knn:k=5"}
    assert set(table.seed) == {0, 1}
    assert table.value.dtype == np.float64
    assert np.isfinite(table.value).all()
    assert not table.duplicated([*COLUMNS[:-1]]).any()
    gene, cell, summary = (table[table.level == level] for level in ("gene", "cell", "summary"))
    assert len(gene) == 4 * 12 * len(metrics.METRICS)
    assert len(cell) == 4 * 90 * len(metrics.METRICS)
    assert set(gene.item) == set(tissue.shared_genes)
    assert set(cell.item) == set(tissue.st.obs_names)
    assert set(summary.item) == set(ITEMS)
    assert set(gene.fold) == set(range(5))
    assert set(cell.fold) == set(summary.fold) == {-1}


@pytest.mark.parametrize(("label", "method"), [("mean", reference_mean), ("knn:k=5", None)])
def test_scores_equal_a_naive_loop(tissue: Pair, table: pd.DataFrame, label: str, method: object) -> None:
    method = method or (lambda train, test, genes: knn(train, test, genes, k=5))
    predicted, truth = naive_predictions(tissue, method), truth_of(tissue)
    for name, score in metrics.METRICS.items():
        by_gene = values(table, method=label, seed=0, level="gene", metric=name)
        np.testing.assert_array_equal(by_gene[tissue.shared_genes], score(truth, predicted))
        by_cell = values(table, method=label, seed=0, level="cell", metric=name)
        np.testing.assert_array_equal(by_cell[tissue.st.obs_names], score(truth.T, predicted.T))
        summary = values(table, method=label, seed=0, level="summary", metric=name)
        assert summary["median over genes"] == np.median(by_gene)
        assert summary["mean over cells"] == pytest.approx(np.mean(by_cell))
    found = values(table, method=label, seed=0, level="summary", item="clusters")
    assert dict(found) == cluster_scores(tissue.st_labels, leiden_clusters(predicted, seed=0))
    modules = [coexpression_modules(one, tissue.shared_genes, seed=0) for one in (truth, predicted)]
    found = values(table, method=label, seed=0, level="summary", item="modules")
    assert set(found.index) == {"ari", "nmi"}
    assert found["ari"] == cluster_scores(*(one.to_numpy() for one in modules))["ari"]


def test_folds_are_the_published_ones(tissue: Pair, table: pd.DataFrame) -> None:
    fold = table[table.level == "gene"].drop_duplicates("item").set_index("item").fold
    genes = np.sort(tissue.shared_genes)
    for number, (_, held) in enumerate(KFold(5, shuffle=True, random_state=0).split(genes)):
        assert set(fold.index[fold == number]) == set(genes[held])


def test_the_mean_has_correlation_zero(table: pd.DataFrame) -> None:
    summary = values(table, method="mean", seed=0, level="summary", item="median over genes")
    assert summary["pearson"] == summary["spearman"] == 0.0
    assert summary["cosine"] > 0.5
    for item in ("clusters", "modules"):
        assert values(table, method="mean", seed=0, item=item)["ari"] == 0.0


def test_a_perfect_prediction(tissue: Pair) -> None:
    found = evaluate_imputation(tissue, [Spy(tissue)])
    best = {"mse": 0.0, "rmse_z": 0.0, "js": 0.0}
    for item in ITEMS[:4]:
        for name, value in values(found, item=item).items():
            assert value == pytest.approx(best.get(name, 1.0), abs=1e-6)
    assert values(found, item="modules")["ari"] == 1.0


def test_by_genes_shows_no_held_out_gene(tissue: Pair) -> None:
    spy = Spy(tissue)
    evaluate_imputation(tissue, [spy], cluster=False)
    assert len(spy.shown) == 5
    assert set.union(*(one["asked"] for one in spy.shown)) == set(tissue.shared_genes)
    for one in spy.shown:
        assert one["genes"] == one["panel"] == set(tissue.shared_genes) - one["asked"]
        assert one["cells"] == one["for"] == list(tissue.st.obs_names)


def test_by_cells_shows_neither_held_out_genes_nor_cells(tissue: Pair) -> None:
    spy = Spy(tissue)
    found = evaluate_imputation(tissue, [spy], by="cells", folds=3, keep=0.75, cluster=False)
    assert len(spy.shown) == 3
    assert sorted(cell for one in spy.shown for cell in one["for"]) == sorted(tissue.st.obs_names)
    for one in spy.shown:
        assert set(one["cells"]) == set(tissue.st.obs_names) - set(one["for"])
        assert len(one["genes"]) == 9
        assert one["genes"] == one["panel"] == set(tissue.shared_genes) - one["asked"]
    gene, cell = (found[found.level == level] for level in ("gene", "cell"))
    assert set(gene.item) == spy.shown[0]["asked"]
    assert set(gene.fold) == {-1}
    fold = cell.drop_duplicates("item").set_index("item").fold
    assert all(set(fold[one["for"]]) == {number} for number, one in enumerate(spy.shown))
    assert values(found, item="median over genes")["pearson"] == pytest.approx(1.0)


@pytest.mark.parametrize(("keep", "n_kept"), [(0.5, 6), (0.8, 10)])
def test_by_fraction_keeps_a_fraction_of_the_genes(tissue: Pair, keep: float, n_kept: int) -> None:
    spy = Spy(tissue)
    found = evaluate_imputation(tissue, [spy], by="fraction", keep=keep)
    (one,) = spy.shown
    assert len(one["genes"]) == n_kept
    assert one["asked"] == set(tissue.shared_genes) - one["genes"]
    gene = found[found.level == "gene"]
    assert set(gene.item) == one["asked"]
    assert set(gene.fold) == {0}
    assert ("modules" in set(found.item)) == (12 - n_kept >= 3)


@pytest.mark.parametrize("by", ["genes", "cells", "fraction"])
def test_splits_do_not_depend_on_the_seed(tissue: Pair, by: str) -> None:
    spy = Spy(tissue)
    evaluate_imputation(
        tissue, [spy], by=by, **{} if by == "fraction" else {"folds": 2}, seeds=(3, 8), cluster=False
    )
    half = len(spy.shown) // 2
    first, second = spy.shown[:half], spy.shown[half:]
    assert [one["asked"] for one in first] == [one["asked"] for one in second]
    assert [one["for"] for one in first] == [one["for"] for one in second]


def test_the_same_call_gives_the_same_table(tissue: Pair, table: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(evaluate_imputation(tissue, ["mean", "knn:k=5"], seeds=(0, 1)), table)


def test_without_labels_or_clusters(tissue: Pair) -> None:
    simulated = simulate_tissue(n_spatial=90, n_reference=80, n_genes=24, n_panel=12, seed=2)
    bare = simulated.st[:, :].copy()
    bare.obs = bare.obs[[]]
    assert "clusters" not in set(evaluate_imputation(pair(simulated.sc, bare), ["mean"]).item)
    assert not {"clusters", "modules"} & set(evaluate_imputation(tissue, ["mean"], cluster=False).item)


def test_reliability(tissue: Pair) -> None:
    found = evaluate_imputation(tissue, [Spy(tissue), "mean"], cluster=False, reliability=True)
    told = found[found.metric == "reliability"]
    assert set(told.method) == {"Spy"}
    assert set(told.level) == {"gene"}
    by_gene = told.set_index("item").value
    np.testing.assert_array_equal(by_gene[tissue.shared_genes], tissue.sc_shared)
    best = by_gene.sort_values(ascending=False).index[:6]
    half = values(found, method="Spy", item="most reliable half")
    for name in metrics.METRICS:
        scores = values(found, method="Spy", level="gene", metric=name)
        assert half[name] == pytest.approx(np.median(scores[best]))
    assert "reliability" not in set(evaluate_imputation(tissue, [Spy(tissue)], cluster=False).metric)


def test_progress_counts_every_fit(tissue: Pair) -> None:
    calls = []
    evaluate_imputation(
        tissue,
        ["mean", "knn"],
        folds=2,
        seeds=(0, 1),
        cluster=False,
        progress=lambda *call: calls.append(call),
    )
    assert calls == [("evaluate", done, 8) for done in range(9)]


@pytest.mark.parametrize(
    ("broken", "kind", "message"),
    [
        ("raises", ZeroDivisionError, "a bug"),
        ("shape", InputError, r"prediction: expected finite values, 90 cells x 3 genes, got shape \(3, 90\)"),
        ("nan", InputError, "prediction: expected finite values, 90 cells x 3 genes, got NaN or infinity"),
    ],
)
def test_a_method_that_fails_stops_the_evaluation(
    tissue: Pair, broken: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        evaluate_imputation(tissue, ["mean", Spy(tissue, broken=broken)], seeds=(4,))
    assert caught.value.__notes__ == ["while evaluating 'Spy', seed 4, fold 0"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "gene"}, r"by: expected one of .* got 'gene'.*'genes'"),
        ({"folds": 1}, "folds: expected a whole number from 2 to 12, got 1"),
        ({"folds": 13}, "folds: expected a whole number from 2 to 12, got 13"),
        ({"by": "cells", "folds": 91}, "folds: expected a whole number from 2 to 90, got 91"),
        ({"keep": 1.5}, r"keep: expected a number from 0 to 1, got 1\.5"),
        (
            {"by": "fraction", "keep": 0.1},
            r"keep: expected a fraction of the 12 shared genes .* got 0\.1, which keeps 1",
        ),
        (
            {"by": "cells", "keep": 1.0},
            "keep: expected a fraction of the 12 shared genes .* got 1, which keeps 12",
        ),
        (
            {"by": "fraction", "folds": 3},
            r"folds: expected by='genes' or by='cells', to which it applies, got by='fraction'",
        ),
        (
            {"by": "genes", "keep": 0.5},
            r"keep: expected by='cells' or by='fraction', to which it applies, got by='genes'\. Leave out",
        ),
        ({"seeds": ()}, "seeds: expected unique whole numbers"),
        ({"seeds": (1, 1)}, "seeds: expected unique whole numbers"),
        ({"seeds": (0.5,)}, r"seeds: expected a whole number >= 0, got 0\.5"),
        ({"methods": ["nn"]}, "methods: expected one of .* got 'nn'"),
    ],
)
def test_options_are_checked(tissue: Pair, options: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        evaluate_imputation(tissue, **{"methods": ["mean"]} | options)


def test_too_few_genes_to_hold_out(tissue: Pair) -> None:
    with pytest.raises(
        SettingError, match="folds: expected folds that leave at least 2 of the 3 shared genes"
    ):
        evaluate_imputation(tissue.panel(tissue.shared_genes[:3]), ["mean"], folds=2)


def test_table_records_how_it_was_computed(tissue: Pair, table: pd.DataFrame) -> None:
    told = table.attrs["cellweft"]
    assert told["seeds"] == [0, 1]
    assert told["parameters"] == {
        "by": "genes",
        "protocol": "cut",
        "scale": "log",
        "folds": 5,
        "keep": 0.8,
        "leave_out_batch": False,
        "cluster": True,
        "reliability": False,
        "embedding": None,
        "gene_sets": None,
        "edges": None,
        "device": "auto",
        "methods": {"mean": "mean", "knn:k=5": "knn:k=5"},
    }
    assert {"python", "cellweft", "numpy", "graspologic-native"} <= told["versions"].keys()
    assert told["pair"] == tissue.findings


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_scores_are_read_back_from_disk(tmp_path: Path, table: pd.DataFrame, suffix: str) -> None:
    path, beside = write_scores(table, tmp_path / f"scores.{suffix}")
    assert (path.name, beside.name) == (f"scores.{suffix}", "scores.json")
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted([path.name, beside.name])
    back = pd.read_csv(path, float_precision="round_trip") if suffix == "csv" else pd.read_parquet(path)
    pd.testing.assert_frame_equal(back, table)
    assert json.loads(beside.read_text(encoding="utf-8")) == table.attrs["cellweft"]


def test_scores_do_not_overwrite_others(tmp_path: Path, table: pd.DataFrame) -> None:
    path = tmp_path / "scores.csv"
    (tmp_path / "scores.json").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"scores\.json: expected a path that does not exist yet"):
        write_scores(table, path)
    assert [one.name for one in tmp_path.iterdir()] == ["scores.json"]
    write_scores(table, path, overwrite=True)
    assert json.loads((tmp_path / "scores.json").read_text())["seeds"] == [0, 1]
    with pytest.raises(OutputExistsError, match=r"scores\.json: expected paths that do not exist yet"):
        write_scores(table, path)


def test_scores_of_another_format(tmp_path: Path, table: pd.DataFrame) -> None:
    with pytest.raises(SettingError, match=r"scores\.xlsx: expected a name ending in \.csv or \.parquet"):
        write_scores(table, tmp_path / "scores.xlsx")


def test_nothing_remains_if_the_disk_is_full(
    tmp_path: Path, table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_scores(table, tmp_path / "scores.csv")
    assert not list(tmp_path.iterdir())


# On the scale of counts


def counts_of(tissue: Pair) -> np.ndarray:
    stored = tissue.st.stored(slice(0, tissue.st.n_cells), tissue.st_shared)
    return np.asarray(stored.toarray(), dtype=np.float64)


def test_counts_are_scored_in_addition_to_logs(tissue: Pair, table: pd.DataFrame) -> None:
    both = evaluate_imputation(tissue, ["mean", "knn:k=5"], scale="counts", seeds=(0, 1))
    is_count = both.metric.str.endswith("_counts")
    pd.testing.assert_frame_equal(
        both[~is_count].reset_index(drop=True), table, check_exact=True
    )  # the scores of log values are identical to the last bit
    assert set(both.metric[is_count & (both.level == "gene")]) == {f"{one}_counts" for one in metrics.METRICS}
    counts, genes = counts_of(tissue), np.sort(tissue.shared_genes)
    predicted = naive_predictions(tissue, lambda train, test, genes: knn(train, test, genes, k=5))
    for number, (_, held) in enumerate(KFold(5, shuffle=True, random_state=0).split(genes)):
        rest = np.delete(counts, held, axis=1).sum(axis=1)
        made = np.expm1(predicted[:, held].astype(float)) * (rest / np.median(rest[rest > 0]))[:, None]
        rows = both[(both.method == "knn:k=5") & (both.fold == number) & (both.seed == 0)]
        told = rows[rows.metric == "pearson_counts"].set_index("item")["value"]
        expected = metrics.pearson(counts[:, held], made)
        np.testing.assert_allclose(told[genes[held]], expected, atol=1e-5)


def test_a_method_may_predict_counts_itself(tissue: Pair) -> None:
    class Counting(Spy):
        def predict(self, genes: np.ndarray, pair: Pair, scale: str = "log") -> np.ndarray:
            if scale == "log":
                return super().predict(genes, pair)
            where = list(self.truth.shared_genes)
            return counts_of(self.truth)[:, [where.index(gene) for gene in genes]]

    table = evaluate_imputation(tissue, [Counting(truth=tissue)], scale="counts", cluster=False)
    assert (values(table, level="gene", metric="pearson_counts") > 0.999).all()
    assert (values(table, level="gene", metric="mse_counts") == 0).all()
    assert table.attrs["cellweft"]["parameters"]["scale"] == "counts"


def test_counts_cannot_be_scored_for_a_tissue_without_counts() -> None:
    simulated = simulate_tissue(n_spatial=60, n_reference=60, n_genes=24, n_panel=12, seed=2)
    logs = simulated.st.copy()
    logs.X = np.log1p(logs.X.toarray() / logs.X.toarray().sum(axis=1, keepdims=True) * 50)
    with pytest.raises(ScaleError, match=r"scale: expected spatial counts.*got logarithms"):
        evaluate_imputation(pair(simulated.sc, logs), ["mean"], scale="counts")
    with pytest.raises(SettingError, match=r"scale: expected one of 'log', 'counts', got 'raw'"):
        evaluate_imputation(pair(simulated.sc, simulated.st), ["mean"], scale="raw")  # type: ignore[arg-type]
