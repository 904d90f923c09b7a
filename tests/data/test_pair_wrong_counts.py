"""Sums, wrong counts, ranks and dates among the counts of a table: each is refused or reported."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cellweft._errors import FormatError, InputError
from cellweft.data._pair import Pair, pair

GENES = ["Gad1", "Gad2", "Pvalb", "Sst", "Vip", "Lamp5", "Rorb", "Mbp", "Marchf1", "Septin2"]
N_CELLS = 40


@pytest.fixture
def counts() -> pd.DataFrame:
    stream = np.random.default_rng(0)
    values = stream.poisson(stream.gamma(1, 3, (N_CELLS, len(GENES))))
    return pd.DataFrame(values, index=[f"s{number}" for number in range(N_CELLS)], columns=GENES)


def paired(counts: pd.DataFrame, folder: Path) -> Pair:
    stream = np.random.default_rng(1)
    reference = ad.AnnData(
        stream.poisson(stream.gamma(1, 3, (N_CELLS, len(GENES)))).astype(np.float32),
        obs=pd.DataFrame(index=[f"c{number}" for number in range(N_CELLS)]),
        var=pd.DataFrame(index=GENES),
    )
    counts.to_csv(folder / "st.csv")
    return pair(reference, folder / "st.csv", coordinates="none")


def said(made: Pair, text: str) -> bool:
    return any(text in caution for caution in made.cautions)


@pytest.mark.parametrize("name", ["Total", "sum", "all"])
def test_a_column_of_totals_is_annotation(counts: pd.DataFrame, tmp_path: Path, name: str) -> None:
    plain = paired(counts, tmp_path)
    counts[name] = counts.sum(axis=1)
    made = paired(counts, tmp_path)
    np.testing.assert_array_equal(made.st.totals, plain.st.totals)
    assert name not in made.st.genes
    assert said(made, "treated as annotation of the cells") == (name == "all")
    assert name in made.st.obs


@pytest.mark.parametrize("name", ["Total", "s40"])
def test_a_row_of_sums_is_refused(counts: pd.DataFrame, tmp_path: Path, name: str) -> None:
    counts.loc[name] = counts.sum()
    with pytest.raises(
        FormatError, match=f"row '{name}': expected a row per cell, got (the sums|rows named)"
    ):
        paired(counts, tmp_path)


def as_anndata(counts: pd.DataFrame) -> ad.AnnData:
    return ad.AnnData(sp.csr_matrix(counts, dtype=np.float32), obs=counts[[]], var=counts.T[[]])


REFERENCE = sorted({*GENES, "Aqp4", "Cldn5"})


def reference() -> ad.AnnData:
    stream = np.random.default_rng(1)
    values = stream.poisson(stream.gamma(1, 3, (N_CELLS, len(REFERENCE))))
    return as_anndata(
        pd.DataFrame(values, index=[f"c{number}" for number in range(N_CELLS)], columns=REFERENCE)
    )


@pytest.mark.parametrize("place", [0, 17, N_CELLS])
def test_a_row_of_sums_is_refused_at_any_position(counts: pd.DataFrame, place: int) -> None:
    rows = counts.T.to_dict("list")
    names = [*rows]
    names.insert(place, "odd")
    counts = pd.DataFrame({**rows, "odd": counts.sum()}, index=GENES)[names].T
    with pytest.raises(FormatError, match=r"st \(AnnData in memory\), row 'odd'.*the sums of all other rows"):
        pair(reference(), as_anndata(counts), coordinates="none")
    with pytest.raises(FormatError, match=r"sc \(AnnData in memory\), row 'odd'.*the sums of all other rows"):
        pair(as_anndata(counts), as_anndata(counts.drop(index="odd")), coordinates="none")


@pytest.mark.parametrize("name", ["Total", "SUM", "Mean", "grand total", "Average", "<total>"])
def test_rows_named_like_statistics_are_refused(counts: pd.DataFrame, name: str) -> None:
    counts.loc[name] = 1
    with pytest.raises(FormatError, match=f"row '{name}': expected a row per cell, got rows named like sums"):
        pair(reference(), as_anndata(counts), coordinates="none")


def test_a_column_of_sums_is_refused_with_any_name(counts: pd.DataFrame) -> None:
    counts["odd"] = counts.sum(axis=1)
    with pytest.raises(FormatError, match=r"st .*, column 'odd': expected a gene, got the sums of all other"):
        pair(reference(), as_anndata(counts), coordinates="none")


@pytest.mark.parametrize("name", ["Total", "sum", "nCount_RNA", "counts", "Mean"])
def test_columns_named_like_sums_are_not_genes(counts: pd.DataFrame, name: str) -> None:
    plain = pair(reference(), as_anndata(counts), coordinates="none")
    counts[name] = 7
    made = pair(reference(), as_anndata(counts), coordinates="none")
    np.testing.assert_array_equal(made.st.totals, plain.st.totals)
    assert made.findings["spatial"]["features_left_out"] == {"annotation of cells": [name]}


def test_a_cell_with_half_of_all_counts_is_kept(counts: pd.DataFrame) -> None:
    total = counts.to_numpy().sum()
    counts.loc["large"] = [int(total), *[0] * (len(GENES) - 1)]
    assert pair(reference(), as_anndata(counts), coordinates="none").st.n_cells == N_CELLS + 1


@pytest.mark.parametrize(
    ("wrong", "message"), [(-3, "values below zero"), (np.inf, "NaN or infinite values")]
)
def test_one_wrong_count_does_not_make_a_gene_annotation(
    counts: pd.DataFrame, tmp_path: Path, wrong: float, message: str
) -> None:
    counts = counts.astype(float)
    counts.iloc[5, 0] = wrong
    with pytest.raises(InputError, match=message):
        paired(counts, tmp_path)


def test_binary_values_are_reported(counts: pd.DataFrame, tmp_path: Path) -> None:
    assert said(paired((counts > 0).astype(int), tmp_path), "all values are 0 or 1")
    assert not said(paired(counts, tmp_path), "all values are 0 or 1")


def test_ranks_are_reported(counts: pd.DataFrame, tmp_path: Path) -> None:
    ranks = counts.rank(axis=1, method="first").astype(int)
    assert said(paired(ranks, tmp_path), "every cell has 55 counts, as with ranks")


def test_dates_of_spreadsheets_are_reported(counts: pd.DataFrame, tmp_path: Path) -> None:
    made = paired(counts.rename(columns={"Marchf1": "1-Mar", "Septin2": "2-Sep"}), tmp_path)
    assert said(made, "'1-Mar', '2-Sep' may be genes whose names a spreadsheet converted to dates")


@pytest.mark.parametrize("values", [["low", "high"], [True, False], ["2020-01-01", "2020-01-02"]])
def test_annotation_named_like_genes_of_the_other_side_is_reported(
    counts: pd.DataFrame, tmp_path: Path, values: list[object]
) -> None:
    counts["Mbp"] = values * (N_CELLS // 2)
    made = paired(counts, tmp_path)
    assert "Mbp" not in made.st.genes
    assert said(
        made, "Spatial: 'Mbp', in obs or not recognised as genes, has the name of a gene of the other"
    )


def test_genes_of_the_other_side_with_another_feature_type_are_reported(counts: pd.DataFrame) -> None:
    tissue = as_anndata(counts)
    tissue.var["feature_types"] = ["Gene Expression"] * 8 + ["Custom"] * 2
    made = pair(reference(), tissue, coordinates="none")
    assert said(made, "Spatial: 'Marchf1', 'Septin2', in obs or not recognised as genes, have names of genes")
