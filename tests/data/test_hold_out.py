"""A tissue with held-out genes equals a file that lacks these genes."""

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cellweft._errors import GeneError, InputError
from cellweft.data._pair import Pair, pair
from cellweft.data.hold_out import panel_reference, whole_genes
from cellweft.data.synthetic.tissue import simulate_tissue

GENES = ["A", "B", "C", "D"]
HELD = ["B", "E"]


def counts_of(n_cells: int, n_genes: int, *, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).poisson(3.0, (n_cells, n_genes)).astype(np.float32)


def data(values: np.ndarray, genes: list[str]) -> ad.AnnData:
    made = ad.AnnData(sp.csr_matrix(values), var=pd.DataFrame(index=genes))
    made.obsm["spatial"] = np.random.default_rng(0).random((len(values), 2))
    return made


@pytest.fixture
def sc() -> ad.AnnData:
    return data(counts_of(12, 6, seed=1), [*"ABCDEX"])


@pytest.fixture
def tissue() -> ad.AnnData:
    made = data(counts_of(9, 6, seed=2), [*"EDCBAY"])
    made.obs["cell_type"] = ["one", "two", "two"] * 3
    made.obs["section"] = ["s1"] * 4 + ["s2"] * 5
    return made


def values(one: Pair) -> np.ndarray:
    return one.st.dense(slice(None), one.st_shared)


def assert_alike(part: Pair, cut: Pair) -> None:
    """Check that both pairs have the same panel, values and findings."""
    assert part.shared_genes.tolist() == cut.shared_genes.tolist()
    np.testing.assert_array_equal(values(part), values(cut))
    assert (part.st.scale, part.st.target, part.st.sparsity) == (cut.st.scale, cut.st.target, cut.st.sparsity)
    np.testing.assert_array_equal(part.st.totals, cut.st.totals)
    np.testing.assert_array_equal(part.st.empty_cells, cut.st.empty_cells)
    found = [dict(zip(one.st.genes, one.st.gene_cells, strict=True)) for one in (part, cut)]
    assert found[0] == found[1]


def test_values_are_normalised_by_the_remaining_genes() -> None:
    st = data(np.array([[1, 3, 6], [2, 0, 5], [0, 0, 7]], dtype=np.float32), ["A", "B", "C"])
    part = pair(data(counts_of(5, 3, seed=1), ["A", "B", "C"]), st).hold_out(["C"])
    assert part.st.totals.tolist() == [4, 2, 0]
    assert part.st.target == 3  # the median of 4 and 2
    expected = np.log1p([[1 / 4 * 3, 3 / 4 * 3], [2 / 2 * 3, 0], [0, 0]])
    np.testing.assert_allclose(values(part), expected, rtol=1e-6)
    assert part.st.empty_cells.tolist() == [False, False, True]
    assert part.findings["spatial"]["empty_cells"] == 1
    assert part.findings["spatial"]["genes"] == part.findings["shared_genes"] == 2


@pytest.mark.parametrize("kind", ["dense", "csr", "h5ad"])
def test_it_equals_a_file_that_lacks_the_genes(
    sc: ad.AnnData, tissue: ad.AnnData, kind: str, tmp_path: Path
) -> None:
    st = tissue.copy()
    if kind == "dense":
        st.X = st.X.toarray()
    if kind == "h5ad":
        st.write_h5ad(tmp_path / "tissue.h5ad")
    part = pair(sc, tmp_path / "tissue.h5ad" if kind == "h5ad" else st).hold_out([*HELD])
    assert_alike(part, pair(sc, tissue[:, ["A", "C", "D"]].copy()))


def test_subsets_of_cells_before_or_after_holding_out(sc: ad.AnnData, tissue: ad.AnnData) -> None:
    whole, rows = pair(sc, tissue), np.array([7, 2, 5])
    first, later = whole.cells(rows).hold_out(HELD), whole.hold_out(HELD).cells(rows)
    np.testing.assert_array_equal(first.st.totals, later.st.totals)
    assert first.st.obs_names.tolist() == later.st.obs_names.tolist() == ["7", "2", "5"]


@pytest.mark.parametrize("logarithms", [False, True])
def test_normalised_values_are_normalised_again_by_the_remaining_genes(
    sc: ad.AnnData, tissue: ad.AnnData, logarithms: bool
) -> None:
    counts = tissue.X.toarray()
    counts[:, 0] = np.arange(1, 10) * 20  # the first gene, E, is most of every total
    normal = counts / counts.sum(axis=1, keepdims=True) * 1000
    st = tissue.copy()
    st.X = sp.csr_matrix(np.log1p(normal) if logarithms else normal)
    raw = tissue.copy()
    raw.X = sp.csr_matrix(counts)
    scale = "log" if logarithms else "normalised"
    part, of_counts = pair(sc, st, st_scale=scale).hold_out(HELD), pair(sc, raw).hold_out(HELD)
    assert part.st.scale == scale
    shares = [np.expm1(values(one)) / one.st.target for one in (part, of_counts)]
    np.testing.assert_allclose(shares[0], shares[1], rtol=1e-5)
    np.testing.assert_allclose(shares[0].sum(axis=1), 1, rtol=1e-5)


def test_the_scale_is_judged_by_the_remaining_genes(sc: ad.AnnData, tissue: ad.AnnData) -> None:
    st = tissue.copy()
    st.X = st.X.toarray()
    st.X[:, 0] = 1000.5 - st.X[:, 1:].sum(axis=1)  # gene E makes all totals equal
    whole = pair(sc, st)
    assert whole.st.scale == "normalised"
    assert whole.hold_out(["E"]).st.scale == "raw"
    assert pair(sc, st, st_scale="normalised").hold_out(["E"]).st.scale == "normalised"
    counts = tissue.X.toarray()
    st.X = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * 1e4
    assert pair(sc, st).st.scale == "normalised"
    assert pair(sc, st).hold_out(["B"]).st.scale == "normalised"


def test_annotation_that_may_depend_on_held_out_genes_is_removed(sc: ad.AnnData, tissue: ad.AnnData) -> None:
    st = tissue.copy()
    st.obs["size"] = st.X.sum(axis=1)
    st.obsm["X_pca"], st.uns["colors"] = np.ones((9, 3)), {"B": [1]}
    whole = pair(sc, st, st_size_factor="size")
    part = whole.hold_out(HELD)
    assert part.st.obs.shape == (9, 0)
    assert not dict(part.st.obsm)
    assert not dict(part.st.uns)
    assert part.st_labels is None
    assert not part.st.has_sizes
    assert part.findings["spatial"]["size_factor"] is None
    assert part.st.obs_names.tolist() == whole.st.obs_names.tolist()
    assert part.slices.tolist() == whole.slices.tolist()
    np.testing.assert_array_equal(part.coordinates, whole.coordinates)
    assert part.st.genes.tolist() == ["A", "C", "D"]  # Y is only in the tissue
    assert part.sc is whole.sc
    assert whole.st.obs.columns.tolist() == ["cell_type", "section", "size"]  # the input is unchanged


@pytest.mark.parametrize(
    ("held", "kind", "message"),
    [
        (["Q"], GeneError, "genes: expected an existing gene, got 'Q'"),
        ([*"ABCD"], GeneError, "genes: expected genes that leave at least 2 of the 5 shared genes, got 4"),
        (
            [*"ABC"],
            InputError,
            "genes: expected held-out genes that leave counts in at least one cell, got 9 cells",
        ),
    ],
)
def test_genes_that_cannot_be_held_out_are_refused(
    sc: ad.AnnData, tissue: ad.AnnData, held: list[str], kind: type[Exception], message: str
) -> None:
    st = tissue.copy()
    st.X = st.X.toarray()
    st.X[:, [0, 1]] = 0  # E and D
    with pytest.raises(kind, match=message):
        pair(sc, st).hold_out(held)


def test_a_reference_of_few_genes_is_normalised_by_the_panel(sc: ad.AnnData, tissue: ad.AnnData) -> None:
    whole = pair(sc, tissue)
    reference = panel_reference(whole.sc, whole.sc_shared)
    np.testing.assert_array_equal(reference.totals, sc[:, [*"ABCDE"]].X.sum(axis=1).A1)
    assert reference.target == np.median(reference.totals)
    assert reference.genes.tolist() == [*"ABCDE"]
    assert whole_genes(whole.sc, whole.sc_shared).tolist() == [*"ABCDE"]


def test_other_references_keep_their_cell_sizes(sc: ad.AnnData, tissue: ad.AnnData) -> None:
    sized = sc.copy()
    sized.obs["size"] = np.arange(12) + 40.0
    others = [f"G{number}" for number in range(2000)]
    large = ad.concat([sc, data(counts_of(12, 2000, seed=3), others)], axis=1)
    for one in (pair(sized, tissue, size_factor="size"), pair(large, tissue)):
        reference = panel_reference(one.sc, one.sc_shared)
        assert reference.totals is one.sc.totals
        assert reference.genes.tolist() == [*"ABCDE"]
        np.testing.assert_array_equal(reference.dense(slice(None)), one.sc.dense(slice(None), one.sc_shared))
    assert len(whole_genes(one.sc, one.sc_shared)) == 2006


def twin(side: ad.AnnData, gene: str, name: str) -> ad.AnnData:
    """Return the data with a copy of a gene under another name."""
    copy = side[:, [gene]].copy()
    copy.var_names = [name]
    return ad.concat([side, copy], axis=1, merge="first")


def test_a_copy_on_both_sides_is_reported(sc: ad.AnnData, tissue: ad.AnnData) -> None:
    made = pair(twin(sc, "B", "Copy"), twin(tissue, "B", "Copy"))
    assert "Copy" in made.shared_genes
    said = [one for one in made.cautions if "same values in every cell of both inputs: 'B', 'Copy'." in one]
    assert len(said) == 1
    for one_side in (
        pair(twin(sc, "B", "Copy"), tissue),
        pair(sc, twin(tissue, "B", "Copy")),
        pair(twin(sc, "A", "Copy"), twin(tissue, "B", "Copy")),
    ):
        assert not any("same values" in one for one in one_side.cautions)


def test_genes_without_counts_are_not_copies(sc: ad.AnnData, tissue: ad.AnnData) -> None:
    empty = tissue.copy()
    empty.X = empty.X.toarray()
    empty.X[:, :2] = 0
    assert not any("same values" in one for one in pair(sc, empty).cautions)


@pytest.mark.parametrize("both", [False, True])
def test_a_copy_whose_name_differs_in_case_is_reported(
    sc: ad.AnnData, tissue: ad.AnnData, both: bool
) -> None:
    made = pair(twin(sc, "B", "b") if both else sc, twin(tissue, "B", "b"))
    told = [one for one in made.cautions if "gene names differ only in case ('B/b')" in one]
    assert [one.partition(":")[0] for one in told] == ["Reference", "Spatial"][not both :]


def test_simulated_tissue_has_no_such_caution() -> None:
    tissue = simulate_tissue(n_spatial=40, n_reference=40, n_genes=24, n_panel=12)
    assert not any(
        "same values" in one or "only in case" in one for one in pair(tissue.sc, tissue.st).cautions
    )
