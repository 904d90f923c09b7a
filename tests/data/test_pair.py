"""`pair`: what it finds in the inputs, the values that it returns, and its errors and cautions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._errors import (
    FormatError,
    GeneError,
    InputError,
    KeyMissingError,
    MissingFileError,
    ScaleError,
    SettingError,
)
from cellweft.data._pair import Pair, pair

Write = Callable[[anndata.AnnData, Path, str], Path]
GENES = ["Gad1", "Sst", "Vip", "Pvalb", "Lamp5"]
REAL = [
    ("osmfish_ref_allen_ssp_sc33", "osmfish_benchmark_st", {}, 33),
    ("osmfish_ref_allen_ssp_sc33", "osmfish_ss_cortex_st", {}, 33),
    ("hypo_ref_10x_sc134", "hypo_merfish_animal1_bregma-0.29_st", {"size_factor": "nUMI_all_genes"}, 134),
    ("mop_ref_10x_sc500", "visp_starmap1020_st", {}, 142),
    ("mop_ref_10x_sc500", "cortex_molcart100_st", {}, 41),
    ("embryo_benchmark_sc", "embryo_benchmark_st", {}, 350),
    ("seqfish_embryo_e1z5", "seqfish_embryo_e1z2", {}, 351),
    ("pdac_a_sc", "pdac_a_st", {}, 19738),
]


@pytest.fixture
def sc(make_side: Any) -> anndata.AnnData:
    return make_side(GENES, seed=1)


@pytest.fixture
def tissue(make_side: Any) -> anndata.AnnData:
    return make_side(["SST", "Gad1", "Fos", "Vip"], n_cells=9, spatial=True, seed=2)


def with_values(data: anndata.AnnData, values: Any) -> anndata.AnnData:
    changed = data.copy()
    changed.X = values
    return changed


def test_shared_genes_are_sorted_and_spelled_by_the_tissue(sc: Any, tissue: Any) -> None:
    made = pair(sc, tissue)
    assert made.shared_genes.tolist() == ["Gad1", "SST", "Vip"]
    assert made.sc.genes.tolist() == ["Gad1", "SST", "Vip", "Pvalb", "Lamp5"]
    assert made.sc.input_names.tolist() == GENES
    assert made.sc.genes[made.sc_shared].tolist() == ["Gad1", "SST", "Vip"]
    assert made.st.genes[made.st_shared].tolist() == ["Gad1", "SST", "Vip"]
    assert made.spacing == 10.0
    assert made.coordinates is not None
    assert (made.slices, made.labels, made.st_labels) == (None, None, None)
    assert "3 shared" in repr(made)


@pytest.mark.parametrize("kind", ["h5ad", "zarr", "csv", "h5", "mtx", "parquet"])
def test_paths_equal_memory(kind: str, tmp_path: Path, sc: Any, tissue: Any, write_as: Write) -> None:
    tissue.obs[["x", "y"]] = tissue.obsm["spatial"]
    eager = pair(sc, tissue)
    lazy = pair(write_as(sc, tmp_path, kind), tissue)
    rows = np.array([5, 0, 0, 11])
    np.testing.assert_array_equal(lazy.sc.dense(rows), eager.sc.dense(rows))
    np.testing.assert_array_equal(lazy.sc.totals, eager.sc.totals)
    assert lazy.cautions == eager.cautions
    assert lazy.sc.target == eager.sc.target


def test_raw_counts_get_the_published_normalisation() -> None:
    counts = np.array([[2.0, 2.0, 4.0], [0.0, 0.0, 0.0], [1.0, 0.0, 1.0]], dtype=np.float32)
    data = anndata.AnnData(counts, var=pd.DataFrame(index=["a", "b", "c"]), obsm={"spatial": np.eye(3)})
    side = pair(data, data).st
    assert side.totals.tolist() == [8, 0, 2]
    assert side.target == 5  # the median of 8 and 2; the empty cell does not count
    np.testing.assert_allclose(
        side.dense(slice(None)), np.log1p([[1.25, 1.25, 2.5], [0, 0, 0], [2.5, 0, 2.5]])
    )
    assert side.empty_cells.tolist() == [False, True, False]


def test_size_factors_are_used_as_cell_sizes(sc: Any, tissue: Any) -> None:
    sc.obs["nUMI"] = np.arange(1.0, 13.0) * 100
    tissue.obs["volume"] = 2.0
    made = pair(sc, tissue, size_factor="nUMI", st_size_factor="volume")
    expected = np.log1p(sc.X.toarray() / sc.obs[["nUMI"]].to_numpy() * 650)
    np.testing.assert_allclose(made.sc.dense(slice(None)), expected, rtol=1e-6)  # float32 rounding
    np.testing.assert_allclose(made.st.dense(slice(None)), np.log1p(tissue.X.toarray()), rtol=1e-6)
    assert "cell sizes    obs['nUMI'], 650 in a typical cell" in made.summary()


def test_normalised_and_log_values_are_not_normalised_again(sc: Any, tissue: Any) -> None:
    shares = tissue.X.toarray() / tissue.X.toarray().sum(axis=1, keepdims=True) * 1e4
    made = pair(with_values(sc, sc.X.log1p()), with_values(tissue, shares), sc_scale="log")
    assert (made.sc.scale, made.st.scale) == ("log", "normalised")
    np.testing.assert_array_equal(made.sc.dense(slice(None)), sc.X.log1p().toarray())
    np.testing.assert_allclose(made.st.dense(slice(None)), np.log1p(shares), rtol=1e-6)  # float32 rounding
    text = made.summary()
    assert "log-transformed normalised counts, ln(x + 1), as specified" in text
    assert "The two inputs are on different scales" in text


@settings(max_examples=25, deadline=None)
@given(data=st.data(), sparse=st.booleans())
def test_blocks_equal_parts_of_the_whole_matrix(data: st.DataObject, sparse: bool) -> None:
    counts = np.random.default_rng(3).poisson(1.0, (10, 6)).astype(np.float32) + np.eye(
        10, 6, dtype=np.float32
    )
    made = anndata.AnnData(
        sp.csr_matrix(counts) if sparse else counts,
        var=pd.DataFrame(index=list("abcdef")),
        obsm={"spatial": np.random.default_rng(0).normal(size=(10, 2))},
    )
    side = pair(made, made).sc
    whole = side.dense(slice(None))
    rows = np.array(data.draw(st.lists(st.integers(0, 9), max_size=12)), dtype=np.int64)
    genes = np.array(data.draw(st.lists(st.integers(0, 5), max_size=8)), dtype=np.int64)
    block = side.block(rows, genes)
    assert sp.issparse(block) == sparse
    np.testing.assert_array_equal(side.dense(rows, genes), whole[rows][:, genes])
    kept = np.array(data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=12)), dtype=np.int64)
    part = side.subset(kept)
    inner = np.arange(len(kept))[::-1]
    assert (part.n_cells, part.target, part.obs_names.tolist()) == (
        len(kept),
        side.target,
        side.obs_names[kept].tolist(),
    )
    np.testing.assert_array_equal(part.dense(inner, genes), whole[kept[inner]][:, genes])


def test_order_of_cells_and_genes_does_not_matter(sc: Any, tissue: Any) -> None:
    cells, genes = np.random.default_rng(0).permutation(12), [3, 0, 4, 1, 2]
    one, two = pair(sc, tissue), pair(sc[cells, genes], tissue)
    assert one.shared_genes.tolist() == two.shared_genes.tolist()
    np.testing.assert_array_equal(
        one.sc.dense(slice(None), one.sc_shared)[cells], two.sc.dense(slice(None), two.sc_shared)
    )


def test_inputs_are_not_changed(sc: Any, tissue: Any) -> None:
    before = sc.copy(), tissue.copy()
    made = pair(sc, tissue)
    made.sc.dense(slice(None)), made.st.block(slice(0, 3)).data.fill(0)
    made.sc.obs["new"] = 1
    for now, old in zip((sc, tissue), before, strict=True):
        np.testing.assert_array_equal(now.X.toarray(), old.X.toarray())
        pd.testing.assert_frame_equal(now.obs, old.obs)
        assert now.var_names.tolist() == old.var_names.tolist()


def test_subsets_of_genes_or_cells_keep_the_normalisation(sc: Any, tissue: Any) -> None:
    tissue.obs["section"] = ["one"] * 5 + ["two"] * 4
    tissue.obs["cell_type"] = list("aabbccddd")
    made = pair(sc, tissue)
    fewer = made.panel(["vip", "Gad1"])
    assert fewer.shared_genes.tolist() == ["Gad1", "Vip"]
    assert fewer.st.genes[fewer.st_shared].tolist() == ["Gad1", "Vip"]
    assert fewer.st is made.st
    assert "shared genes  2" in fewer.summary()
    with pytest.raises(GeneError, match=r"panel genes: expected an existing gene, got 'Fos'"):
        made.panel(["Fos"])
    kept = np.array([8, 2])
    part = made.cells(kept)
    assert made.coordinates is not None
    np.testing.assert_array_equal(part.coordinates, made.coordinates[kept])
    np.testing.assert_array_equal(part.st.dense(slice(None)), made.st.dense(kept))
    assert part.slices is not None
    assert part.st_labels is not None
    assert (part.slices.tolist(), part.st_labels.tolist()) == (["two", "one"], ["d", "b"])
    assert made.cells(np.arange(9) > 6).st.obs_names.tolist() == ["cell7", "cell8"]


def test_genes_of_the_reference_are_found_by_name(sc: Any, tissue: Any) -> None:
    made = pair(sc, tissue)
    assert made.find_genes(["Lamp5", "sst"]).tolist() == [4, 1]
    with pytest.raises(
        GeneError, match=r"genes: expected an existing gene, got 'Lamp'.*Did you mean 'Lamp5'"
    ):
        made.find_genes(["Lamp"])


def test_summary_answers_the_questions_of_a_biologist(sc: Any, tissue: Any) -> None:
    sc.obs["cell_type"] = ["Astro", "Neuron", "Neuron"] * 4
    tissue.obs["section"] = ["one"] * 5 + ["two"] * 4
    tissue.obs["Section2"] = "x"
    made = pair(sc, tissue)
    text = made.summary()
    for line in (
        "Reference: AnnData in memory",
        "  cells         12\n",
        "  genes         5\n",
        "  cell types    2, from obs['cell_type']; most frequent: Neuron, Astro",
        "  coordinates   2-D, from obsm['spatial'], 20 x 20 in the file's unit",
        "  spot spacing  10: median distance",
        "  slices        2, from obs['section']: one (5), two (4)",
        "  shared genes  3 of the panel's 4",
        "  to impute     2 genes that only the reference has",
        "  not usable    1 gene that only the spatial panel has",
        "  - Only 3 genes are shared",
        "'Fos'",
        "1 gene matched only when case is ignored ('Sst/SST')",
    ):
        assert line in text
    assert json.loads(json.dumps(made.findings)) == made.findings


def changed(data: anndata.AnnData, what: str) -> anndata.AnnData:
    made = data.copy()
    values = made.X.toarray()
    if what == "nan":
        values[2, 1] = np.nan
    elif what == "negative":
        values[2, 1] = -1
    elif what == "z-scored":
        values = (values - values.mean(axis=0)) / values.std(axis=0)
    elif what == "empty":
        values[:] = 0
    made.X = values if what != "nan sparse" else sp.csr_matrix(values)
    return made


BAD_VALUES = [
    (
        "nan",
        InputError,
        r"\.X: expected a number for every cell and gene, got NaN.*1 of them.*'cell2', gene '\w+'\)\. Remove",
    ),
    ("negative", ScaleError, r"\.X: expected raw counts.*got values below zero.*Correct the counts"),
    (
        "z-scored",
        ScaleError,
        r"\.X: .*as in z-scored \(scaled\) data, or logarithms of values below 1\. Pass the counts as",
    ),
    ("empty", InputError, r"\.X: expected cells with counts, got \d+ cells, all of them empty"),
]


@pytest.mark.parametrize("side", ["sc", "st"])
@pytest.mark.parametrize(("what", "error", "message"), BAD_VALUES, ids=[one for one, _, _ in BAD_VALUES])
def test_bad_values_are_refused(side: str, what: str, error: Any, message: str, sc: Any, tissue: Any) -> None:
    inputs = {"sc": sc, "st": tissue}
    inputs[side] = changed(inputs[side], what)
    with pytest.raises(error, match=rf"^{side} \(AnnData in memory\){message}"):
        pair(inputs["sc"], inputs["st"])


def test_scaled_values_name_the_layers_that_exist(sc: Any, tissue: Any) -> None:
    scaled = changed(sc, "z-scored")
    scaled.layers["lognorm"] = sc.X.log1p()
    with pytest.raises(
        ScaleError, match=r"Pass the layer with raw counts, sc_layer=NAME\. Available layers: 'lognorm'"
    ):
        pair(scaled, tissue)
    scaled.layers["counts"] = sc.X
    with pytest.raises(ScaleError, match=r"sc_layer='counts'\. Available layers: 'lognorm', 'counts'"):
        pair(scaled, tissue)
    assert pair(scaled, tissue, sc_layer="counts").sc.scale == "raw"
    raw = changed(tissue, "z-scored")
    raw.raw = tissue
    with pytest.raises(ScaleError, match=r"Its raw slot may contain the counts: st_layer='raw'\."):
        pair(sc, raw)
    with pytest.raises(ScaleError, match=r"below zero"):
        pair(changed(sc, "z-scored"), tissue, sc_scale="log")


@pytest.mark.parametrize("side", ["sc", "st"])
def test_bad_names_and_sizes_are_refused(side: str, sc: Any, tissue: Any) -> None:
    def made(change: Callable[[anndata.AnnData], anndata.AnnData], **more: Any) -> Pair:
        inputs = {"sc": sc, "st": tissue}
        inputs[side] = change(inputs[side].copy())
        return pair(inputs["sc"], inputs["st"], **more)

    def same_cells(data: anndata.AnnData) -> anndata.AnnData:
        data.obs_names = ["a", "a", *data.obs_names[2:]]
        return data

    def same_genes(data: anndata.AnnData) -> anndata.AnnData:
        data.var_names = [*data.var_names[:-1], data.var_names[0]]
        return data

    if side == "sc":  # imputation does not use the names of reference cells
        assert any(
            "1 name of cells that occur more than once ('a')" in one for one in made(same_cells).cautions
        )
    else:
        with pytest.raises(
            InputError, match=rf"^{side} .*\.obs_names: expected.*duplicate names .1.: 'a'.*_make_unique"
        ):
            made(same_cells)
    with pytest.raises(GeneError, match=rf"^{side} .*var_names: expected each gene once.*duplicates='first'"):
        made(same_genes)
    assert any("1 column left out" in one for one in made(same_genes, duplicates="first").cautions)
    with pytest.raises(InputError, match=rf"^{side} .*\.obs: expected at least 2 cells, got 1 cell\."):
        made(lambda data: data[:1].copy())
    with pytest.raises(InputError, match=r"got no cell\."):
        made(lambda data: data[:0].copy())


def test_duplicates_keep_the_first_column(sc: Any, tissue: Any) -> None:
    sc.var_names = ["Gad1", "Sst", "Vip", "Gad1", "Lamp5"]
    made = pair(sc, tissue, duplicates="first")
    assert made.sc.input_names.tolist() == ["Gad1", "Sst", "Vip", "Lamp5"]
    np.testing.assert_array_equal(made.sc.totals, sc.X.toarray().sum(axis=1))
    expected = np.log1p(sc.X.toarray() / made.sc.totals[:, None] * made.sc.target)[:, [0, 1, 2, 4]]
    np.testing.assert_allclose(made.sc.dense(slice(None)), expected, rtol=1e-6)  # float32 rounding
    with pytest.raises(SettingError, match=r"duplicates: expected one of 'error', 'first', got 'last'"):
        pair(sc, tissue, duplicates="last")  # type: ignore[arg-type]


def test_too_few_shared_genes_are_refused(make_side: Any, tissue: Any) -> None:
    with pytest.raises(
        GeneError, match=r"at least 2 genes.*got no shared gene; sc .* has 'A', 'B', 'C' and 1 more, st"
    ):
        pair(make_side(["A", "B", "C", "D"]), tissue)
    with pytest.raises(GeneError, match=r"got 1 shared gene \('VIP'\).*same species"):
        pair(make_side(["A", "VIP"]), tissue)
    with pytest.raises(GeneError, match=r"One input uses Ensembl IDs: .*sc_gene_column=NAME"):
        pair(make_side([f"ENSG{number:011d}" for number in range(4)]), tissue)
    turned = make_side(["cell1", "cell2"], n_cells=4)
    turned.obs_names = ["Gad1", "SST", "Vip", "Fos"]
    with pytest.raises(GeneError, match=r"The rows of sc .* are named like genes: transpose it"):
        pair(turned, tissue)


def test_genes_match_through_ids_and_columns(make_side: Any, tissue: Any) -> None:
    ids = [f"ENSMUSG{number:011d}" for number in range(4)]
    reference = make_side([one + ".1" for one in ids])
    tissue.var["gene_ids"] = ids[::-1]
    made = pair(reference, tissue)
    assert made.shared_genes.tolist() == ["Fos", "Gad1", "SST", "Vip"]
    assert made.sc.genes.tolist() == ["Vip", "Fos", "Gad1", "SST"]
    assert made.sc.input_names.tolist() == [one + ".1" for one in ids]
    assert made.st.genes[made.st_shared].tolist() == ["Fos", "Gad1", "SST", "Vip"]
    assert "matched by    Ensembl IDs of the reference matched through var['gene_ids']" in made.summary()
    reference.var["symbol"] = ["Gad1", "Sst", "Vip", "Pvalb"]
    assert pair(reference, tissue, sc_gene_column="symbol").shared_genes.tolist() == ["Gad1", "SST", "Vip"]
    with pytest.raises(
        KeyMissingError, match=r"sc_gene_column='symbols': expected a column of var.*'symbol'"
    ):
        pair(reference, tissue, sc_gene_column="symbols")


def test_missing_coordinates_layers_and_columns_are_named(sc: Any, tissue: Any) -> None:
    bare = tissue.copy()
    del bare.obsm["spatial"]
    with pytest.raises(KeyMissingError, match=r"^st .*: expected coordinates of the cells"):
        pair(sc, bare)
    with pytest.raises(KeyMissingError, match=r"the reference comes first, the spatial data second"):
        pair(tissue, with_values(bare, bare.X))
    without = pair(sc, bare, coordinates="none")
    assert (without.coordinates, without.spacing) == (None, None)
    assert "coordinates   none" in without.summary()
    tissue.obsm["spatial"][3, 0] = np.nan
    with pytest.raises(InputError, match=r"NaN or infinity for 1 of 9 cells, the first at row 3"):
        pair(sc, tissue)
    for argument in (
        "labels",
        "st_labels",
        "slices",
        "size_factor",
        "st_size_factor",
        "sc_layer",
        "st_layer",
    ):
        with pytest.raises(
            KeyMissingError, match=rf"{argument}='nope': expected a (column of obs|layer) of s"
        ):
            pair(sc, bare, coordinates="none", **{argument: "nope"})


def test_bad_size_factors_and_scales_are_refused(sc: Any, tissue: Any) -> None:
    sc.obs["text"], sc.obs["zero"] = "many", 0.0
    with pytest.raises(
        InputError, match=r"sc .*obs\['text'\]: expected a number for every cell.*no number for 12 of 12"
    ):
        pair(sc, tissue, size_factor="text")
    with pytest.raises(
        InputError, match=r"obs\['zero'\]: expected a size above zero.*zero or less for 12 cells"
    ):
        pair(sc, tissue, size_factor="zero")
    with pytest.raises(SettingError, match=r"st_scale: expected one of 'raw', 'normalised', 'log'"):
        pair(sc, tissue, st_scale="counts")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r"sc_scale: expected logarithms.*got values up to .*look raw"):
        pair(with_values(sc, sc.X * 100), tissue, sc_scale="log")


def test_paths_that_do_not_exist(tmp_path: Path, tissue: Any) -> None:
    with pytest.raises(MissingFileError, match=r"sc \(.*\): expected a file, got nothing"):
        pair(tmp_path / "no.h5ad", tissue)
    (tmp_path / "text.h5ad").write_text("no")
    with pytest.raises(FormatError, match=r"got a text file"):
        pair(tmp_path / "text.h5ad", tissue)


def test_a_matrix_whose_shape_differs_from_its_annotation(
    tmp_path: Path, sc: Any, tissue: Any, write_as: Write
) -> None:
    import h5py

    path = write_as(sc, tmp_path, "h5ad")
    with h5py.File(path, "a") as file:
        file["X"].attrs["shape"] = (11, 5)
        del file["X/indptr"]
        file["X/indptr"] = np.zeros(12, dtype=np.int64)
    with pytest.raises(FormatError, match=r"expected 12 cells x 5 genes, as obs and var state, got 11 x 5"):
        pair(path, tissue)


def test_cautions_are_raised_for_unusual_inputs(sc: Any, tissue: Any, tmp_path: Path) -> None:
    counts = sc.X.toarray()
    counts[4], counts[:, 4], counts[5, :3] = 0, 0, 0
    sc.obs["nCount_RNA"] = 1e4
    reference = with_values(sc, sp.csc_matrix(counts))
    reference.write_h5ad(tmp_path / "by_gene.h5ad")
    values = tissue.X.toarray() * 100
    values[8] = 0
    tissue.obsm["spatial"][1] = tissue.obsm["spatial"][0]
    said = "\n".join(pair(tmp_path / "by_gene.h5ad", with_values(tissue, values)).cautions)
    for part in (
        "Reference: 1 cell has no counts at all",
        "Spatial: 1 cell has no counts at all",
        "Reference: 1 gene has no counts in any cell: 'Lamp5'",
        "Reference: 1 cell without counts in the shared genes",
        "fold difference",
        "size_factor='nCount_RNA'",
        "by gene (CSC), so it was loaded into memory completely (",
        "Spatial: 1 cell at exactly the same position as another cell; if they are from several slices",
    ):
        assert part in said


@pytest.mark.parametrize(("slices", "same"), [(None, 3), (list("aabbab"), 2)])
def test_cells_at_the_same_position_are_counted_within_their_slice(
    make_side: Any, slices: Any, same: int
) -> None:
    tissue = make_side(GENES, n_cells=6, spatial=True)
    tissue.obsm["spatial"] = np.array([[0.0, 1], [-0.0, 1], [0, 1], [1, 0], [2, 2], [1, 0]])
    if slices:
        tissue.obs["section"] = slices
    made = pair(make_side(GENES), tissue, slices="section" if slices else None)
    assert [one for one in made.cautions if f"{same} cell" in one and "exactly the same position" in one]


def test_a_few_fractional_values_do_not_change_the_scale_of_counts(make_side: Any, tissue: Any) -> None:
    reference = make_side(GENES, n_cells=200)
    reference.X.data[7] += 0.5
    made = pair(reference, tissue)
    assert made.sc.scale == "raw"
    assert any("Reference: 1 of the counts above zero" in one for one in made.cautions)


def test_logarithms_suggest_the_layer_of_raw_counts(make_side: Any, tissue: Any) -> None:
    counts = make_side(GENES, n_cells=200)
    reference = with_values(counts, counts.X.log1p())
    reference.raw = counts
    assert any(
        "raw slot may contain the raw counts: sc_layer='raw'" in one
        for one in pair(reference, tissue).cautions
    )
    reference.layers["counts"] = counts.X
    assert any(
        "may contain the raw counts: sc_layer='counts'" in one for one in pair(reference, tissue).cautions
    )


@pytest.mark.slow
@pytest.mark.parametrize(("reference", "spatial", "more", "shared"), REAL, ids=[one[1] for one in REAL])
def test_real_pairs(shared_data: Path, reference: str, spatial: str, more: Any, shared: int) -> None:
    made = pair(shared_data / f"{reference}.h5ad", shared_data / f"{spatial}.h5ad", **more)
    assert (len(made.shared_genes), made.sc.scale, made.st.scale) == (shared, "raw", "raw")
    assert made.spacing is not None
    assert made.spacing > 0
    assert sorted(made.shared_genes) == made.shared_genes.tolist()
    genes = made.st_shared[:50]
    block = made.st.dense(slice(0, 200), genes)
    whole = anndata.read_h5ad(shared_data / f"{spatial}.h5ad").X
    sizes = np.asarray(whole.sum(axis=1), dtype=np.float64).ravel()
    target = np.median(sizes[sizes > 0])
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = np.log1p(whole[:200].toarray()[:, genes] / sizes[:200, None] * target)
    np.testing.assert_allclose(block, np.nan_to_num(expected), rtol=1e-5)  # float32 rounding
    assert json.dumps(made.findings)
    assert made.summary().startswith("Reference: ")


def test_real_slices_and_size_factors_are_used(shared_data: Path) -> None:
    made = pair(shared_data / "mop_ref_10x_sc500.h5ad", shared_data / "cortex_molcart100_st.h5ad")
    assert made.slices is not None
    assert np.unique(made.slices).tolist() == ["A1", "A2", "B1"]
    hypo = pair(
        shared_data / "hypo_ref_10x_sc134.h5ad",
        shared_data / "hypo_merfish_animal1_bregma-0.29_st.h5ad",
        size_factor="nUMI_all_genes",
    )
    assert int(hypo.sc.empty_cells.sum()) == 4
    assert not hypo.sc.dense(np.flatnonzero(hypo.sc.empty_cells)).any()
    # approximate, because the median depends on empty cells
    assert hypo.sc.target == pytest.approx(4740, rel=0.01)


def test_guessed_slices_are_reported_and_can_be_disabled(make_side: Any) -> None:
    tissue = make_side(GENES, n_cells=40, spatial=True)
    tissue.obsm["spatial"] = np.concatenate([np.random.default_rng(0).uniform(0, 9, (20, 2))] * 2)
    tissue.obs["batch"] = ["a"] * 20 + ["b"] * 20
    made = pair(make_side(GENES), tissue)
    assert made.slices is not None
    assert made.findings["slices"] == {"found": "batch", "cells": {"a": 20, "b": 20}}
    said = (
        "Spatial: obs['batch'] identifies 2 sections that share one coordinate frame ('a', 'b'). They are "
        "treated"
    )
    assert any(one.startswith(said) and "slices='none'" in one for one in made.cautions)
    without = pair(make_side(GENES), tissue, slices="none")
    assert without.slices is None
    assert not any("batch" in one for one in without.cautions)
    tissue.obsm["spatial"] = np.arange(80.0).reshape(40, 2)
    expected = "Spatial: obs['batch'] may identify sections. If it does, specify it: slices='batch'."
    open_case = pair(make_side(GENES), tissue)
    assert open_case.slices is None
    assert expected in open_case.cautions


_BARCODES = [f"ACGTACGT{one}{two}" for one in "ACGT" for two in "ACGT"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([f"{_BARCODES[cell]}-{part}" for part in (1, 2) for cell in range(16)], "end"),
        ([f"s{part}_{_BARCODES[cell]}-1" for part in (1, 2) for cell in range(16)], "begin"),
        ([f"{cell}-left{part}" for part in (1, 2) for cell in range(16)], "end"),
        ([f"mouse{part}#{cell}" for part in (1, 2) for cell in range(16)], "begin"),
    ],
    ids=["aggregated", "sample in front", "word behind", "word in front"],
)  # fmt: skip
def test_sections_indicated_only_by_cell_names_are_reported(names: Any, said: str, make_side: Any) -> None:
    tissue = make_side(GENES, n_cells=32, spatial=True)
    tissue.obs_names = names
    tissue.obsm["spatial"] = np.concatenate([np.random.default_rng(0).uniform(0, 9, (16, 2))] * 2)
    made = pair(make_side(GENES), tissue)
    start = f"Spatial: the names of the cells {said} like those of 2 samples ("
    assert [one.startswith(start) and "slices=COLUMN" in one for one in made.cautions].count(True) == 1
    assert made.slices is None
    without = pair(make_side(GENES), tissue, slices="none")
    assert not any("names of the cells" in one for one in without.cautions)
    tissue.obs["section"] = ["a"] * 16 + ["b"] * 16
    assert not any("names of the cells" in one for one in pair(make_side(GENES), tissue).cautions)


@pytest.mark.parametrize(
    "names",
    [
        [f"{row}_{column}" for row in range(6) for column in range(6)],
        [f"s_008um_{row:05}_{column:05}-1" for row in range(6) for column in range(6)],
        [f"ACGTACGT{'ACGTN-'[row]}{'ACGTN-'[column]}-1" for row in range(6) for column in range(6)],
        [f"spot{row}x{column}" for row in range(6) for column in range(6)],
        [f"{['left', 'right'][column // 3]}_{row}{column}" for row in range(6) for column in range(6)],
        [str(number) for number in range(36)],
    ],
    ids=["places", "bins", "one suffix", "old spots", "halves that touch", "numbers"],
)
def test_other_cell_names_do_not_indicate_sections(names: Any, make_side: Any) -> None:
    tissue = make_side(GENES, n_cells=36, spatial=True)
    tissue.obs_names = names
    tissue.obsm["spatial"] = np.indices((6, 6)).reshape(2, 36).T.astype(float)
    made = pair(make_side(GENES), tissue)
    assert not any("names of the cells" in one for one in made.cautions)
