"""Spatially dominant genes: hand-computed cases, scipy's test one segment at a time, and comparisons."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._errors import InputError, SettingError
from cellweft.tl import _dominant_genes as room
from cellweft.tl._attribution import Attribution, attribute
from cellweft.tl._dominant_genes import compare_with_expression, dominant_genes


def made(values: np.ndarray) -> Attribution:
    """Return an attribution with these values."""
    return made_of(values, np.array([f"Gene{number}" for number in range(values.shape[1])]))


def made_of(values: np.ndarray, genes: np.ndarray) -> Attribution:
    n_cells = len(values)
    cells = np.arange(n_cells)
    return Attribution(
        values=values.astype(np.float32),
        genes=genes,
        cells=cells,
        cell_names=cells.astype(str),
        spot=cells,
        spot_names=cells.astype(str),
        explained=np.zeros(n_cells),
        completeness_gap=np.zeros(n_cells),
        record={},
    )


def tissue(n_cells: int = 60, n_genes: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Draw values with ties, where Gene0 is constant and Gene1 high in segment "b"; also return segments."""
    rng = np.random.default_rng(0)
    segments = rng.choice(["a", "b", "c"], n_cells)
    values = rng.poisson(0.7, (n_cells, n_genes)).astype(np.float32)
    values[:, 0] = 1.0
    values[:, 1] += 2 * (segments == "b")
    return values, segments


def test_dominant_genes_by_hand() -> None:
    # ranks of the segment are 3, 4 and 5 of 5: U = 12 - 6, all pairs won, standard deviation sqrt(6 * 6 / 12)
    values = np.array([[9.0], [7.0], [8.0], [1.0], [2.0]])
    table = dominant_genes(made(values), ["in", "in", "in", "out", "out"], fdr=0.2)
    first = table[table.segment == "in"].iloc[0]
    assert first.auc == 1.0
    assert first.difference == pytest.approx(8 - 1.5)
    assert first.statistic == pytest.approx((6 - 3 - 0.5) / np.sqrt(3))
    assert first.p == pytest.approx(2 * scipy.stats.norm.sf(first.statistic))
    assert first.fdr == first.p  # there is only one gene
    assert list(table.dominant) == [True, False]  # in "out" the gene is equally significant, but lower


@dataclass(kw_only=True)
class Placed:
    """The parts of a placement that attribution needs; the query of a cell is its first gene."""

    inputs: np.ndarray
    spots: torch.Tensor

    model = SimpleNamespace(queries=lambda values: values[:, :1] + 0 * values.sum(dim=1, keepdim=True))
    genes = np.array(["First", "Second"])

    @property
    def pair(self) -> SimpleNamespace:
        cells, spots = (pd.Index(list(map(str, range(len(one))))) for one in (self.inputs, self.spots))
        return SimpleNamespace(sc=SimpleNamespace(obs_names=cells), st=SimpleNamespace(obs_names=spots))

    @property
    def spot_groups(self) -> dict[str, np.ndarray]:
        return {"": np.arange(len(self.spots))}

    @property
    def slice_of_cells(self) -> np.ndarray:
        return np.zeros(len(self.inputs), dtype=np.int64)

    def values(self, rows: Any) -> np.ndarray:
        return self.inputs[rows]


def placed() -> Placed:
    inputs = np.array([[9.0, 1.0], [7.0, 0.0], [8.0, 2.0], [1.0, 3.0], [2.0, 3.0]], dtype=np.float32)
    return Placed(inputs=inputs, spots=torch.tensor([[0.5], [2.0]]))


@pytest.mark.slow
def test_dominant_genes_of_a_placement_use_the_product() -> None:
    one, segments = placed(), ["in", "in", "in", "out", "out"]
    # the second spot has the largest weight for every cell, so the product is 2 x the first gene
    by_hand = np.column_stack([2 * one.inputs[:, 0], np.zeros(5)])
    table = dominant_genes(one, segments, fdr=0.3, progress=False)
    pd.testing.assert_frame_equal(table, dominant_genes(made_of(by_hand, one.genes), segments, fdr=0.3))
    first = table[(table.segment == "in") & (table.gene == "First")].iloc[0]
    assert first.difference == pytest.approx(2 * (8 - 1.5))
    for what in ("product", "weight", "log weight"):
        why = attribute(one, what=what, progress=False)
        same = dominant_genes(one, segments, what=what, progress=False)
        pd.testing.assert_frame_equal(dominant_genes(why, segments), same)
        pd.testing.assert_frame_equal(dominant_genes(why, segments, what=what), same)
    some = dominant_genes(one, segments[1:], cells=[1, 2, 3, 4], progress=False)
    assert some[some.segment == "in"].difference.max() == pytest.approx(2 * (7.5 - 1.5))
    by_both = compare_with_expression(one, None, segments, progress=False).table
    assert set(by_both.columns) >= {"difference_attribution", "difference_expression"}
    pd.testing.assert_frame_equal(
        by_both, compare_with_expression(attribute(one, what="product"), one.inputs, segments).table
    )


def test_an_attribution_cannot_explain_another_quantity() -> None:
    one, segments = placed(), ["in", "in", "in", "out", "out"]
    why = attribute(one, what="weight", progress=False)
    with pytest.raises(
        SettingError, match=r"what: expected 'weight', which the attribution explains, got 'product'"
    ):
        dominant_genes(why, segments, what="product")
    with pytest.raises(SettingError, match="cells: expected a placement to choose from, got an attribution"):
        dominant_genes(why, segments[1:], cells=[1, 2, 3, 4])
    with pytest.raises(SettingError, match=r"what: expected one of .*Did you mean 'product'"):
        dominant_genes(one, segments, what="products")  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [np.ones((5, 2)), "placed.h5ad", None, pd.DataFrame({"a": [1.0]})])
def test_other_objects_than_placements_and_attributions_are_refused(wrong: Any) -> None:
    message = (
        r"attribution: expected a placement, or an attribution of its cells, got an? \w+\. Pass the result of"
    )
    with pytest.raises(InputError, match=message):
        dominant_genes(wrong, ["a", "a", "b", "b", "b"])
    with pytest.raises(InputError, match=message):
        compare_with_expression(wrong, None, ["a", "a", "b", "b", "b"])


def test_dominant_genes_equal_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "BLOCK_VALUES", 180)  # three genes per block
    values, segments = tissue()
    table = dominant_genes(made(values), segments)
    values = values.astype(np.float64)
    assert len(table) == 3 * 8
    for segment in "abc":
        inside, outside = values[segments == segment], values[segments != segment]
        rows = table[table.segment == segment].set_index("gene").loc[[f"Gene{gene}" for gene in range(8)]]
        u, p = scipy.stats.mannwhitneyu(inside[:, 1:], outside[:, 1:], axis=0, method="asymptotic")
        np.testing.assert_allclose(rows.p.iloc[1:], p, rtol=1e-9)
        np.testing.assert_allclose(rows.auc.iloc[1:], u / (len(inside) * len(outside)), rtol=1e-12)
        np.testing.assert_allclose(rows.difference, inside.mean(axis=0) - outside.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(rows.fdr, scipy.stats.false_discovery_control(rows.p), rtol=1e-12)
        # the gene is constant
        assert (rows.p.iloc[0], rows.auc.iloc[0], rows.statistic.iloc[0]) == (1.0, 0.5, 0.0)
    found = table[table.dominant]
    assert list(zip(found.segment, found.gene, strict=True)) == [("b", "Gene1")]


def test_dominant_genes_are_sorted() -> None:
    values, segments = tissue()
    table = dominant_genes(made(values), pd.Categorical(segments, categories=["c", "a", "b"]))
    assert list(table.segment.unique()) == ["c", "a", "b"]
    for _, rows in table.groupby("segment", observed=True):
        assert rows.statistic.is_monotonic_decreasing
    numbered = dominant_genes(made(values), np.where(segments == "a", 10, 9))
    assert list(numbered.segment.unique()) == [9, 10]


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999))
def test_dominant_genes_do_not_depend_on_the_order_of_cells(seed: int) -> None:
    values, segments = tissue()
    order = np.random.default_rng(seed).permutation(len(values))
    expected = dominant_genes(made(values), segments)
    pd.testing.assert_frame_equal(dominant_genes(made(values[order]), segments[order]), expected, atol=1e-12)


def test_a_segment_of_one_cell_is_not_tested() -> None:
    values, segments = tissue()
    alone = np.where(np.arange(60) == 7, "z", segments)
    table = dominant_genes(made(values), alone)
    assert list(table.segment.unique()) == ["a", "b", "c"]
    outside = alone != "a"  # the cell of segment "z" still counts as outside the others
    rows = table[table.segment == "a"].set_index("gene")
    expected = values[~outside, 1].mean(dtype=float) - values[outside, 1].mean(dtype=float)
    assert rows.loc["Gene1", "difference"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        (["a"] * 4, r"segments: expected at least two segments with 2 or more cells, got 'a \(4\)'"),
        (["a", "a", "a", "b"], r"segments: expected at least two segments .* got 'a \(3\)', 'b \(1\)'"),
        (["a", "b"], "segments: expected one for each of the 4 cells of the attribution, got 2"),
        (["a", "a", "b", None], "segments: expected one for each .* got 4, 1 of them missing"),
    ],
)
def test_segments_are_checked(segments: list[Any], message: str) -> None:
    values = np.arange(8.0).reshape(4, 2)
    with pytest.raises(InputError, match=message):
        dominant_genes(made(values), segments)
    with pytest.raises(InputError, match=message):
        compare_with_expression(made(values), values, segments)


def test_fdr_is_checked() -> None:
    values, segments = tissue()
    with pytest.raises(SettingError, match="fdr: expected a number from 0 to 1, got 2"):
        dominant_genes(made(values), segments, fdr=2)
    with pytest.raises(SettingError, match="fdr: expected a number from 0 to 1, got 2"):
        compare_with_expression(made(values), values, segments, fdr=2)


def test_no_cells_give_no_segments() -> None:
    with pytest.raises(InputError, match=r"segments: expected at least two segments .* got none"):
        dominant_genes(made(np.empty((0, 3))), [])


def test_comparison_with_expression() -> None:
    """Gene1 is high in "b" in both, Gene2 only in the attribution, Gene3 only in expression."""
    expression, segments = tissue()
    values = expression.copy()
    values[:, 2] += 2 * (segments == "b")
    expression[:, 3] += 2 * (segments == "b")
    found = compare_with_expression(made(values), expression, segments)
    by_name = found.table[found.table.segment == "b"].set_index("gene").found_by
    assert list(by_name[["Gene1", "Gene2", "Gene3", "Gene4"]]) == [
        "both",
        "attribution",
        "expression",
        "neither",
    ]
    assert dict(found.summary.loc["b"]) == {
        "both": 1,
        "attribution": 1,
        "expression": 1,
        "neither": 5,
        "overlap": pytest.approx(1 / 3),
    }
    assert (found.summary.loc["a", "overlap"], found.summary.loc["a", "neither"]) == (0.0, 8)
    for name, of in (("attribution", values), ("expression", expression)):
        alone = dominant_genes(made(of), segments).set_index(["segment", "gene"])
        beside = found.table.set_index(["segment", "gene"]).loc[alone.index]
        for column in ("statistic", "auc", "difference", "p", "fdr"):
            np.testing.assert_array_equal(beside[f"{column}_{name}"], alone[column])


def test_comparison_accepts_sparse_expression(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "BLOCK_VALUES", 180)
    expression, segments = tissue()
    dense = compare_with_expression(made(expression), expression, segments)
    sparse = compare_with_expression(made(expression), sp.csr_matrix(expression), segments)
    pd.testing.assert_frame_equal(sparse.table, dense.table)
    pd.testing.assert_frame_equal(sparse.summary, dense.summary)
    assert set(dense.table.found_by) == {"both", "neither"}


def test_comparison_checks_expression() -> None:
    values, segments = tissue()
    message = "values: expected finite values of the attribution's cells x genes, 60 x 8, got"
    with pytest.raises(InputError, match=rf"{message} shape \(60, 7\)"):
        compare_with_expression(made(values), values[:, 1:], segments)
    values[0, 0] = np.nan
    with pytest.raises(InputError, match=rf"{message} NaN or infinity"):
        compare_with_expression(made(values), values, segments)
