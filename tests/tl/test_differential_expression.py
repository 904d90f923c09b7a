"""Differential expression over imputations: Rubin's rules by hand, and calibrated p-values."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, ttest_ind

from cellweft._errors import InputError, KeyMissingError, SettingError
from cellweft.tl._differential_expression import differential_expression, pool

# sums of squares instead of squared differences
TOLERANCE = 1e-8


def matrices(n: int = 4, *, n_cells: int = 30, n_genes: int = 3, seed: int = 0) -> list[AnnData]:
    stream = np.random.default_rng(seed)
    base = stream.gamma(2, size=(n_cells, n_genes))
    return [AnnData(np.abs(base + stream.standard_normal(base.shape))) for _ in range(n)]


LABELS = np.repeat(["a", "b", "c"], [8, 10, 12])


class TestPool:
    def test_by_hand(self) -> None:
        """Three estimates 1, 2, 3 with variances .5, .5, .8, and 20 degrees of freedom with complete data."""
        found = pool(np.array([[1.0], [2], [3]]), np.array([[0.5], [0.5], [0.8]]), np.array([20.0]))
        within, between = 0.6, 4 / 3 * 1.0
        total = within + between
        share = between / total
        old = 2 / share**2
        observed = 21 / 23 * 20 * (1 - share)
        freedom = old * observed / (old + observed)
        ratio = between / within
        assert found.estimate[0] == 2
        assert found.standard_error[0] == pytest.approx(math.sqrt(total))
        assert found.degrees_of_freedom[0] == pytest.approx(freedom)
        assert found.missing_information[0] == pytest.approx((ratio + 2 / (freedom + 3)) / (ratio + 1))

    def test_no_missing_information(self) -> None:
        """Equal imputations are like one sample: its variance, and nearly all of its degrees of freedom."""
        found = pool(np.ones((5, 1)), np.full((5, 1), 4.0), np.array([1e6]))
        assert found.standard_error[0] == 2
        assert found.degrees_of_freedom[0] == pytest.approx(1e6, rel=1e-4)
        assert found.missing_information[0] == pytest.approx(0, abs=1e-5)

    def test_only_missing_information(self) -> None:
        """Without variance within imputations, all information is missing."""
        found = pool(np.array([[1.0], [3.0]]), np.zeros((2, 1)), np.array([10.0]))
        assert found.missing_information[0] == 1
        assert found.degrees_of_freedom[0] == pytest.approx(0, abs=1e-9)


class TestTable:
    @pytest.mark.parametrize("reference", [None, "b"])
    def test_it_equals_a_naive_loop(self, reference: str | None) -> None:
        imputations = matrices()
        table = differential_expression(imputations, LABELS, reference=reference).set_index(["group", "gene"])
        assert list(table.index.unique("group")) == (["a", "b", "c"] if reference is None else ["a", "c"])
        for group, gene in table.index:
            estimates, variances, freedoms = [], [], []
            for one in imputations:
                values = one.X[:, int(gene)]
                inside = values[group == LABELS]
                other = values[(group != LABELS) if reference is None else (reference == LABELS)]
                left, right = inside.var(ddof=1) / len(inside), other.var(ddof=1) / len(other)
                estimates.append(inside.mean() - other.mean())
                variances.append(left + right)
                freedoms.append(ttest_ind(inside, other, equal_var=False).df)
            expected = pool(
                np.array(estimates)[:, None], np.array(variances)[:, None], np.array([np.mean(freedoms)])
            )
            row = table.loc[(group, gene)]
            assert row["difference"] == pytest.approx(expected.estimate[0], abs=TOLERANCE)
            assert row["standard_error"] == pytest.approx(expected.standard_error[0], rel=TOLERANCE)
            assert row["degrees_of_freedom"] == pytest.approx(expected.degrees_of_freedom[0], rel=TOLERANCE)
            assert row["missing_information"] == pytest.approx(expected.missing_information[0], rel=1e-6)
        for _, part in table.groupby("group"):
            np.testing.assert_allclose(part["fdr"], false_discovery_control(part["pvalue"]))

    def test_equal_imputations_give_welch_s_test(self) -> None:
        one = matrices(1, n_cells=3000)[0]
        labels = np.tile(["a", "b", "c"], 1000)
        table = differential_expression([one, one], labels, reference="c")
        for group in ("a", "b"):
            plain = ttest_ind(one.X[labels == group], one.X[labels == "c"], equal_var=False)
            found = table[table["group"] == group]
            np.testing.assert_allclose(found["pvalue"], plain.pvalue, rtol=0.01)
            np.testing.assert_allclose(found["statistic"], plain.statistic, rtol=TOLERANCE)

    @pytest.mark.slow
    @given(seed=st.integers(0, 99))
    @settings(max_examples=10, deadline=None)
    def test_the_order_of_cells_genes_and_imputations_does_not_matter(self, seed: int) -> None:
        stream = np.random.default_rng(seed)
        imputations = matrices()
        table = differential_expression(imputations, LABELS)
        cells, genes, order = stream.permutation(30), stream.permutation(3), stream.permutation(4)
        moved = [imputations[one][cells][:, genes].copy() for one in order]
        again = differential_expression(moved, LABELS[cells])
        again = again.sort_values(["group", "gene"], ignore_index=True)
        pd.testing.assert_frame_equal(again, table, rtol=1e-6)

    def test_sparse_matrices_and_a_column_of_obs(self) -> None:
        imputations = matrices()
        table = differential_expression(imputations, LABELS)
        sparse = [AnnData(sp.csr_matrix(one.X)) for one in imputations]
        sparse[0].obs["type"] = pd.Categorical(LABELS)
        pd.testing.assert_frame_equal(differential_expression(sparse, "type"), table)

    def test_cells_without_a_label_are_left_out(self) -> None:
        imputations = matrices()
        labels = np.where(LABELS == "c", None, LABELS)
        kept = [one[LABELS != "c"].copy() for one in imputations]
        pd.testing.assert_frame_equal(
            differential_expression(imputations, labels), differential_expression(kept, LABELS[LABELS != "c"])
        )

    def test_a_gene_without_expression(self) -> None:
        imputations = matrices()
        for one in imputations:
            one.X[:, 1] = 0
        row = differential_expression(imputations, LABELS).query("gene == '1'").iloc[0]
        assert (row["difference"], row["statistic"], row["pvalue"]) == (0, 0, 1)
        assert not row[["degrees_of_freedom", "missing_information", "fdr"]].isna().any()

    def test_no_genes(self) -> None:
        assert len(differential_expression(matrices(n_genes=0), LABELS)) == 0


class TestPromise:
    def test_a_single_imputation_gives_false_positives(self) -> None:
        """Groups do not differ. Predictions have errors by group, and the draws vary by the size of these
        errors.

        A test on one matrix takes the error for a difference; Rubin's rules do not.
        """
        stream = np.random.default_rng(0)
        n_genes, labels = 400, np.repeat(["a", "b"], 100)
        inside = (labels == "a")[:, None]
        # error of the predicted difference; the true difference is 0
        error = 0.5 * stream.standard_normal(n_genes)
        draws = [
            AnnData(
                inside * (error + 0.5 * stream.standard_normal(n_genes))
                + stream.standard_normal((200, n_genes))
            )
            for _ in range(20)
        ]
        table = differential_expression(draws, labels, reference="b")
        alone = ttest_ind(draws[0].X[labels == "a"], draws[0].X[labels == "b"], equal_var=False).pvalue
        assert (alone < 0.05).mean() > 0.5
        assert (table["pvalue"] < 0.05).mean() == pytest.approx(0.05, abs=0.025)
        assert (table["fdr"] < 0.05).sum() <= 2
        assert table["missing_information"].mean() > 0.8

    def test_a_true_difference_is_found(self) -> None:
        stream = np.random.default_rng(1)
        labels = np.repeat(["a", "b"], 100)
        shift = np.repeat([0.0, 2.0], 20) * (labels == "a")[:, None]
        draws = [
            AnnData(shift + 0.2 * stream.standard_normal(40) + stream.standard_normal((200, 40)))
            for _ in range(10)
        ]
        found = differential_expression(draws, labels, reference="b")["fdr"].to_numpy() < 0.05
        assert found[20:].all()
        assert found[:20].sum() <= 2


class TestErrors:
    @pytest.mark.parametrize("given", ["one", "list"])
    def test_a_single_matrix_is_refused(self, given: str) -> None:
        one = matrices(1)
        with pytest.raises(
            InputError, match=r"at least 2 imputations.*p-values are far too small\. Draw several"
        ):
            differential_expression(one[0] if given == "one" else one, LABELS)  # type: ignore[arg-type]

    def test_other_cells_or_genes(self) -> None:
        imputations = matrices()
        with pytest.raises(InputError, match=r"imputations\[1\]: expected the cells and genes"):
            differential_expression([imputations[0], imputations[1][:, ::-1].copy()], LABELS)

    def test_values_that_are_not_finite(self) -> None:
        imputations = matrices()
        imputations[2].X[3, 1] = np.nan
        with pytest.raises(InputError, match="imputations: expected finite values"):
            differential_expression(imputations, LABELS)

    def test_groups_that_do_not_exist(self) -> None:
        imputations = matrices()
        imputations[0].obs["cell_type"] = LABELS
        with pytest.raises(KeyMissingError, match=r"got 'celltype'\. Did you mean 'cell_type'"):
            differential_expression(imputations, "celltype")
        with pytest.raises(InputError, match="expected 30 labels, one per cell, got 3"):
            differential_expression(imputations, ["a", "b", "c"])
        with pytest.raises(SettingError, match="reference: expected one of the groups"):
            differential_expression(imputations, LABELS, reference="d")

    def test_groups_that_are_too_small(self) -> None:
        with pytest.raises(SettingError, match="got 1 cell in 'b'"):
            differential_expression(matrices(), np.array(["a"] * 29 + ["b"]))
        with pytest.raises(SettingError, match="at least 2 groups of at least 2 cells each, got 1 groups"):
            differential_expression(matrices(), np.array(["a"] * 30))


def test_measured_genes_must_be_tested_with_their_measurements() -> None:
    draws = matrices()
    assert set(differential_expression(draws, LABELS)["advice"]) == {""}
    for one in draws:
        one.var["measured"] = [False, True, False]
    table = differential_expression(draws, LABELS)
    advice = dict(zip(table["gene"], table["advice"], strict=True))
    assert advice == {"0": "", "1": "This gene was measured: test the measurement.", "2": ""}


def test_labels_of_a_series_are_matched_by_cell_names() -> None:
    given, labels = matrices(), pd.Series(LABELS, index=[str(one) for one in range(30)])
    for one in given:
        one.obs_names = [f"cell {number}" for number in range(30)]
    labels.index = given[0].obs_names
    expected = differential_expression(given, LABELS)
    shuffled = labels.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(differential_expression(given, shuffled), expected)
    with pytest.raises(InputError, match="groups: expected an index with the names of the 30 cells"):
        differential_expression(given, labels.rename("x").set_axis([f"x{one}" for one in range(30)]))
