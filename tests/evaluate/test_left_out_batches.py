"""References without one of their batches: what remains, its scores, and the text of tables and errors."""

from pathlib import Path
from typing import Any, ClassVar

import anndata
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import cellweft
from cellweft._errors import KeyMissingError
from cellweft._typing import FloatArray
from cellweft.cli import app
from cellweft.data._pair import Pair

GENES = [f"Gene{number}" for number in range(12)]


@pytest.fixture(scope="module")
def made() -> tuple[anndata.AnnData, anndata.AnnData]:
    """Three donors, the last of which detects genes unequally, and a tissue with the same types."""
    stream = np.random.default_rng(0)
    levels = stream.gamma(1.0, 6.0, (3, len(GENES)))
    kinds = np.arange(90) % 3
    counts = stream.poisson(levels[kinds]).astype(np.float32)
    counts[60:] = stream.poisson(levels[kinds[60:]] * stream.gamma(2.0, 0.5, len(GENES)))
    obs = pd.DataFrame(
        {"donor": np.repeat(["a", "b", "c"], 30), "cell_type": np.array(["x", "y", "z"])[kinds]},
        index=[f"cell{number}" for number in range(90)],
    )
    sc = anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=GENES))
    st = anndata.AnnData(
        stream.poisson(levels[np.arange(40) % 3]).astype(np.float32), var=pd.DataFrame(index=GENES)
    )
    st.obsm["spatial"] = stream.random((40, 2))
    return sc, st


class Watching:
    """A method that predicts the mean of each gene, and records the references that it was fitted to."""

    # fits use copies, so the record belongs to the class
    seen: ClassVar[list[tuple[int, int, set[str]]]] = []

    def fit(self, pair: Pair) -> "Watching":
        labels = set() if pair.labels is None else set(map(str, pair.labels))
        assert pair.labels is None or len(pair.labels) == pair.sc.n_cells
        names = set() if pair.sc.batches is None else set(pair.sc.batches.of_each_cell().tolist())
        self.seen.append((pair.sc.n_cells, len(labels), names))
        self.means = pair.sc.dense(slice(None)).mean(axis=0)
        self.genes = pair.sc.genes.tolist()
        return self

    def predict(self, genes: Any, pair: Pair) -> FloatArray:
        row = self.means[[self.genes.index(str(gene)) for gene in genes]]
        return np.tile(row, (pair.st.n_cells, 1)).astype(np.float32)


def test_each_batch_is_left_out_in_turn(made: tuple[anndata.AnnData, anndata.AnnData]) -> None:
    pair = cellweft.pair(*made, reference_batch="donor")
    method = Watching()
    table = cellweft.evaluate_imputation(
        pair, [method, "knn:k=10"], folds=2, leave_out_batch=True, cluster=False, progress=False
    )
    whole = (90, 3, {"a", "b", "c"})
    others = [(60, 3, {"b", "c"}), (60, 3, {"a", "c"}), (60, 3, {"a", "b"})]
    assert method.seen == [one for one in (whole, *others) for _ in range(2)]
    rows = table[table["level"] == "batch"]
    assert rows.groupby("method", sort=False)["item"].unique().map(list).tolist() == [["a", "b", "c"]] * 2
    assert set(rows["metric"]) == set(table[table["level"] == "gene"]["metric"])
    found = rows[(rows["method"] == "knn:k=10") & (rows["metric"] == "pearson")].set_index("item")["value"]
    assert found.nunique() == 3
    assert found.between(0.5, 1).all()
    assert table.attrs["cellweft"]["parameters"]["leave_out_batch"] is True


@pytest.mark.parametrize("protocol", ["cut", "published"])
def test_a_row_equals_a_run_with_only_the_other_donors(
    made: tuple[anndata.AnnData, anndata.AnnData], protocol: Any
) -> None:
    sc, st = made
    options: dict[str, Any] = {"folds": 2, "cluster": False, "progress": False, "protocol": protocol}
    pair = cellweft.pair(sc, st, reference_batch="donor")
    table = cellweft.evaluate_imputation(pair, ["knn:k=10"], leave_out_batch=True, **options)
    plain = cellweft.evaluate_imputation(pair, ["knn:k=10"], **options)
    pd.testing.assert_frame_equal(table[table["level"] != "batch"].reset_index(drop=True), plain)
    rest = sc[sc.obs["donor"] != "b"].copy()
    alone = cellweft.pair(rest, st, reference_batch="donor")
    expected = cellweft.evaluate_imputation(alone, ["knn:k=10"], **options)
    expected = expected[expected["item"] == "median over genes"].set_index("metric")["value"]
    found = table[(table["level"] == "batch") & (table["item"] == "b")].set_index("metric")["value"]
    np.testing.assert_allclose(found, expected[found.index], rtol=1e-5)


def test_without_batches_none_is_left_out(made: tuple[anndata.AnnData, anndata.AnnData]) -> None:
    with pytest.raises(
        KeyMissingError, match=r"leave_out_batch.*created without reference_batch=.*reference_batch='COLUMN'"
    ):
        cellweft.evaluate_imputation(cellweft.pair(*made), ["mean"], leave_out_batch=True)


def test_an_error_names_the_batch(made: tuple[anndata.AnnData, anndata.AnnData]) -> None:
    pair = cellweft.pair(*made, reference_batch="donor")
    with pytest.raises(Exception, match="70") as caught:
        cellweft.evaluate_imputation(
            pair, ["knn:k=70"], folds=2, leave_out_batch=True, cluster=False, progress=False
        )
    assert caught.value.__notes__ == ["while evaluating 'knn:k=70', seed 0, fold 0, without the batch 'a'"]


def test_the_command_line_shows_a_row_per_batch(
    made: tuple[anndata.AnnData, anndata.AnnData], tmp_path: Path
) -> None:
    made[0].write_h5ad(tmp_path / "sc.h5ad")
    made[1].write_h5ad(tmp_path / "st.h5ad")
    words = ["evaluate", str(tmp_path / "sc.h5ad"), str(tmp_path / "st.h5ad"), "-o", str(tmp_path / "s.csv")]
    words += ["--methods", "mean", "--folds", "2", "--no-clusters", "--leave-out-batch"]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert "--reference-batch COLUMN" in " ".join(refused.output.split())
    done = CliRunner().invoke(app, [*words, "--reference-batch", "donor"])
    assert done.exit_code == 0, done.output
    assert "8 fits" in done.output
    for name in ("a", "b", "c"):
        assert f"mean, without {name}" in done.output
    table = pd.read_csv(tmp_path / "s.csv")
    assert table[table["level"] == "batch"]["item"].unique().tolist() == ["a", "b", "c"]
