"""Sums, wrong counts, ranks and dates among the counts of a table: refused or said, never taken as is."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

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
    assert said(made, "taken as annotation of cells")


@pytest.mark.parametrize("name", ["Total", "s40"])
def test_a_row_of_sums_is_refused(counts: pd.DataFrame, tmp_path: Path, name: str) -> None:
    counts.loc[name] = counts.sum()
    with pytest.raises(
        FormatError, match=f"row '{name}': expected a row per cell, got the sums of all other rows"
    ):
        paired(counts, tmp_path)


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


def test_what_is_only_detected_or_not_is_said(counts: pd.DataFrame, tmp_path: Path) -> None:
    assert said(paired((counts > 0).astype(int), tmp_path), "all values are 0 or 1")
    assert not said(paired(counts, tmp_path), "all values are 0 or 1")


def test_ranks_are_said(counts: pd.DataFrame, tmp_path: Path) -> None:
    ranks = counts.rank(axis=1, method="first").astype(int)
    assert said(paired(ranks, tmp_path), "every cell has 55 counts, as ranks have")


def test_dates_of_spreadsheets_are_said(counts: pd.DataFrame, tmp_path: Path) -> None:
    made = paired(counts.rename(columns={"Marchf1": "1-Mar", "Septin2": "2-Sep"}), tmp_path)
    assert said(made, "'1-Mar', '2-Sep' may be genes whose names a spreadsheet took for dates")
