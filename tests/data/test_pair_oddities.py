"""Odd inputs: each is corrected with a caution, or refused with advice."""

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import cellweft
from cellweft._errors import FormatError, InputError
from cellweft.data._pair import pair

GENES = [f"Gene{number}" for number in range(12)]
SETTINGS = {"steps": 5, "level_steps": 5}


@pytest.fixture
def sc(make_side: Any) -> anndata.AnnData:
    return make_side(GENES, n_cells=30, seed=1)


@pytest.fixture
def tissue(make_side: Any) -> anndata.AnnData:
    return make_side(GENES[:8], n_cells=20, spatial=True, seed=2)


def fitted(sc: Any, tissue: Any, **more: Any) -> cellweft.Imputer:
    made = pair(sc, tissue, **more)
    return cellweft.Imputer(settings=SETTINGS, reliability=False).fit(made, progress=False)


@pytest.mark.parametrize("order", [["y", "x"], ["array_row", "array_col"], ["extra", "Y", "X"]])
def test_data_frames_of_coordinates_are_read_by_column_name(order: list[str], sc: Any, tissue: Any) -> None:
    places = np.column_stack([np.arange(20.0), np.arange(20.0)[::-1] * 2 + 7])
    values = {"x": places[:, 0], "y": places[:, 1], "array_col": places[:, 0], "array_row": places[:, 1]}
    frame = {name: values.get(name.lower(), np.ones(20)) for name in order}
    tissue.obsm["spatial"] = pd.DataFrame(frame, index=tissue.obs_names)
    np.testing.assert_array_equal(pair(sc, tissue).coordinates, places)
    np.testing.assert_array_equal(pair(sc, tissue, coordinates="obsm:spatial").coordinates, places)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (np.zeros((20, 2)), r"expected cells at different positions, got all 20 at \(0, 0\)"),
        (np.full((20, 2), 1e30), r"expected coordinates within ±1e\+09"),
        (np.linspace(0, 1e30, 40).reshape(20, 2), r"expected coordinates within ±1e\+09, got \["),
        (
            np.arange(40).reshape(20, 2) + 1j,
            r"expected numbers, got values that are not numbers \(complex numbers\)",
        ),
    ],
    ids=["zeros", "one far place", "far", "complex"],
)
def test_invalid_coordinates_are_refused(places: Any, message: str, sc: Any, tissue: Any) -> None:
    tissue.obsm["spatial"] = places
    with pytest.raises(InputError, match=message):
        pair(sc, tissue)
    assert pair(sc, tissue, coordinates="none").coordinates is None


def test_cells_on_one_line_are_reported(sc: Any, tissue: Any) -> None:
    tissue.obsm["spatial"] = np.column_stack([np.arange(20.0), np.zeros(20)])
    assert any("all cells lie on a line" in one for one in pair(sc, tissue).cautions)


def test_genes_without_names_match_nothing(sc: Any, tissue: Any) -> None:
    for data, column in ((sc, ["nan", ""]), (tissue, [np.nan, ""])):
        data.var["name"] = [*column, *data.var_names[2:]]
    made = pair(sc, tissue, sc_gene_column="name", st_gene_column="name")
    assert made.shared_genes.tolist() == GENES[2:8]
    for side in ("Reference", "Spatial"):
        assert any(f"{side}: 2 genes without a name (empty, 'nan') left out" in one for one in made.cautions)
    np.testing.assert_array_equal(made.st.totals, np.asarray(tissue.X.sum(axis=1)).ravel())


@pytest.mark.slow
def test_duplicate_reference_barcodes_are_reported_and_refused_for_placement(sc: Any, tissue: Any) -> None:
    sc.obs_names = ["AAAC-1", "AAAC-1", *sc.obs_names[2:]]
    made = pair(sc, tissue)
    assert any(
        "Reference: 1 name of cells that occur more than once ('AAAC-1')" in one for one in made.cautions
    )
    assert fitted(sc, tissue).impute(progress=False).shape == (20, 12)
    with pytest.raises(InputError, match=r"expected a unique name for every cell, got duplicate names"):
        cellweft.Placer(settings={"steps": 2, "models": 1}).fit(made, progress=False)
    tissue.obs_names = ["AAAC-1", "AAAC-1", *tissue.obs_names[2:]]
    with pytest.raises(InputError, match=r"st .*obs_names: expected a unique name"):
        pair(sc, tissue)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memory", "zarr", "h5ad"])
def test_images_of_visium_are_kept_in_results(
    kind: str, sc: Any, tissue: Any, tmp_path: Path, write_as: Any
) -> None:
    image = np.random.default_rng(0).integers(0, 255, (4, 5, 3), dtype=np.uint8)
    scales = {"tissue_hires_scalef": 0.2, "spot_diameter_fullres": 80.0}
    tissue.uns["spatial"] = {
        "V1": {"images": {"hires": image}, "scalefactors": scales, "metadata": {"v": "1"}}
    }
    imputer = fitted(sc, tissue if kind == "memory" else write_as(tissue, tmp_path, "h5ad"))
    if kind == "memory":
        imputed = imputer.impute(progress=False)
        assert imputed.uns["spatial"]["V1"]["images"]["hires"] is not image
    else:
        path = imputer.impute_to(tmp_path / f"imputed.{kind}", progress=False)
        imputed = (anndata.read_zarr if kind == "zarr" else anndata.read_h5ad)(path)
    found = imputed.uns["spatial"]["V1"]
    np.testing.assert_array_equal(found["images"]["hires"], image)
    assert {name: float(one) for name, one in found["scalefactors"].items()} == scales


@pytest.mark.slow
def test_annotation_that_cannot_be_written_is_reported_and_omitted(
    sc: Any, tissue: Any, tmp_path: Path
) -> None:
    tissue.obs["flag"] = [True, None] * 10
    tissue.obs["when"] = pd.to_datetime(["2026-01-01"] * 20)
    tissue.obs["mix"] = [1, "a"] * 10
    tissue.obs["bin"] = pd.cut(np.arange(20), 4)
    tissue.obs[""] = 1
    tissue.obs["."] = 2
    tissue.uns["spatial"] = {"V1": {"odd": object()}}
    made = pair(sc, tissue)
    said = [one for one in made.cautions if "cannot be written unchanged" in one]
    assert len(said) == 1
    assert said[0].startswith("Spatial: 5 columns of obs cannot be written unchanged: ")
    imputer = cellweft.Imputer(settings=SETTINGS, reliability=False).fit(made, progress=False)
    for kind, read in (("zarr", anndata.read_zarr), ("h5ad", anndata.read_h5ad)):
        found = read(imputer.impute_to(tmp_path / f"a.{kind}", progress=False))
        assert list(found.obs)[:6] == ["flag", "when", "mix", "bin", "unnamed", "unnamed_1"]
        assert found.obs["flag"].tolist() == [True, pd.NA] * 10
        assert found.obs["mix"].tolist() == ["1", "a"] * 10
    assert not any(
        "cannot be written" in one for one in pair(sc, sc[:20, :8].copy(), coordinates="none").cautions
    )


@pytest.mark.slow
def test_an_imputer_given_other_cell_sizes_names_the_argument(sc: Any, tissue: Any, tmp_path: Path) -> None:
    sc.obs["nUMI"] = np.linspace(500, 900, 30)
    fitted(sc, tissue, size_factor="nUMI").save(tmp_path / "model")
    loaded = cellweft.load(tmp_path / "model")
    with pytest.raises(
        InputError, match=r"Create the pair in the same way as for the fit, with size_factor='nUMI'\."
    ):
        loaded.attach(pair(sc, tissue))
    loaded.attach(pair(sc, tissue, size_factor="nUMI"))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_without_names_of_cells_is_numbered(kind: str, sc: Any, tissue: Any, tmp_path: Path) -> None:
    table = sc.to_df().astype(int)
    path = tmp_path / f"counts.{kind}"
    table.to_csv(path, index=False) if kind == "csv" else table.reset_index(drop=True).to_parquet(path)
    made = pair(path, tissue)
    assert made.sc.n_genes == 12
    np.testing.assert_array_equal(made.sc.totals, np.asarray(sc.X.sum(axis=1)).ravel())
    assert any("no column with cell names, so cells are numbered from 0" in one for one in made.cautions)


@pytest.mark.parametrize("header", ["", "cell_id", "EntityID"])
def test_numbers_of_cells_are_their_names(header: str, sc: Any, tissue: Any, tmp_path: Path) -> None:
    table = sc.to_df().astype(int)
    table.index = pd.Index(np.arange(30) * 7 + 1000, name=header or None)
    table.to_csv(tmp_path / "counts.csv")
    made = pair(tmp_path / "counts.csv", tissue)
    assert made.sc.obs_names[1] == "1007"
    assert not any("numbered from 0" in one for one in made.cautions)


@pytest.mark.parametrize("mark", ["-", "--", "n.a.", "<1", "1,5", "not detected", "#DIV/0!", "?"])
def test_placeholders_among_numbers_are_refused(mark: str, sc: Any, tissue: Any, tmp_path: Path) -> None:
    table = sc.to_df().astype(int).astype(object)
    table.iloc[3, 2] = mark
    table["cell_type"] = ["A", "-"] * 15
    table["cluster"] = ["1", "-"] * 15
    table.to_csv(tmp_path / "counts.csv")
    with pytest.raises(
        FormatError, match=r"column 'Gene2': expected a number for every cell, got .* for cell"
    ):
        pair(tmp_path / "counts.csv", tissue)


def test_dense_counts_equal_sparse_counts_with_explicit_zeros(sc: Any, tissue: Any) -> None:
    stored = sp.csr_matrix(sc.X)
    stored.data[:3] = 0
    one, two = sc.copy(), sc.copy()
    one.X, two.X = stored, stored.toarray()
    np.testing.assert_array_equal(
        pair(one, tissue).sc.dense(slice(None)), pair(two, tissue).sc.dense(slice(None))
    )


def test_a_few_cells_far_from_all_others_are_reported(sc: Any, make_side: Any) -> None:
    st = make_side(GENES[:8], n_cells=200, spatial=True, seed=2)
    st.obsm["spatial"] = np.random.default_rng(0).random((200, 2)) * 1000
    assert not any("far from all others" in one for one in pair(sc, st).cautions)
    st.obsm["spatial"][17] = (1e7, 3)
    told = next(one for one in pair(sc, st).cautions if "far from all others" in one)
    assert "1 cell far from all others, the first at row 17 (1e+07, 3)" in told
    assert "more than 10 times the width of the tissue" in told
    st.obsm["spatial"][:100] += 1e6  # two distant pieces of tissue give no caution
    st.obsm["spatial"][17] = 500
    assert not any("far from all others" in one for one in pair(sc, st).cautions)


def test_cell_types_that_differ_only_in_case_or_spaces_are_reported(sc: Any, tissue: Any) -> None:
    names = ["CD4+ T", "CD4- T", "B", "B ", "b"]
    sc.obs["cell_type"] = [names[number % 5] for number in range(sc.n_obs)]
    said = [one for one in pair(sc, tissue).cautions if "differ only in case or spaces" in one]
    assert said == [
        "Reference: cell types of obs['cell_type'] differ only in case or spaces ('B'/'b'). They are "
        "treated as different types."
    ]


def test_a_coordinate_that_only_numbers_the_cells_is_reported(sc: Any, tissue: Any) -> None:
    tissue.obsm["spatial"] = np.column_stack([np.arange(tissue.n_obs), tissue.obsm["spatial"][:, 1]])
    assert any(
        "column 1 of the coordinates only numbers the cells" in one for one in pair(sc, tissue).cautions
    )


@pytest.mark.parametrize("side", ["sc", "st"])
@pytest.mark.parametrize("slot", ["obs_names", "var_names"])
def test_names_that_no_format_can_store_are_refused(sc: Any, tissue: Any, side: str, slot: str) -> None:
    inputs = {"sc": sc, "st": tissue}
    names = ["a\ud800", *getattr(inputs[side], slot)[1:]]
    setattr(inputs[side], slot, pd.Index(names, dtype=object))  # pandas 3 has no other dtype for such names
    message = rf"^{side}.*\.{slot}: expected names that UTF-8 can encode, got half of .* in 'a\\ud800'"
    with pytest.raises(InputError, match=message):
        pair(**inputs)
