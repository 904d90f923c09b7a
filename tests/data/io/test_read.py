"""Every format gives the same values; files in another format than their name says are refused."""

import gzip
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr

from cellweft._errors import FormatError, KeyMissingError, MissingFileError, SettingError
from cellweft.data.io.backed_matrix import open_rows
from cellweft.data.io.read import open_input

Write = Callable[[anndata.AnnData, Path, str], Path]
KINDS = ["h5ad", "zarr", "v3.zarr", "h5", "mtx", "csv", "csv.gz", "tsv", "parquet"]
ON_DISK = {"h5ad", "zarr", "v3.zarr", "h5"}


def values(data: Any) -> Any:
    found = open_input(data, argument="sc")
    block = open_rows(found.values(None, argument="sc_layer")).read(slice(None), found.columns)
    return block.toarray() if sp.issparse(block) else block


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same(kind: str, tmp_path: Path, make_side: Any, write_as: Write) -> None:
    data = make_side(["Gad1", "Sst", "NA"])
    path = write_as(data, tmp_path, kind)
    found = open_input(str(path), argument="sc")
    assert found.obs.names().tolist() == data.obs_names.tolist()
    assert found.var.index.tolist() == ["Gad1", "Sst", "NA"]
    assert (found.source, found.where) == (str(path), f"sc ({path})")
    assert isinstance(found.matrix, np.ndarray | sp.csr_matrix) != (kind in ON_DISK)
    np.testing.assert_array_equal(values(path), data.X.toarray())


def test_anndata_is_read_unchanged(tmp_path: Path, make_side: Any, write_as: Write) -> None:
    data = make_side(["Gad1", "Sst", "Vip"])
    np.testing.assert_array_equal(values(data[[3, 1], ["Vip", "Gad1"]]), data.X.toarray()[[3, 1]][:, [2, 0]])
    backed = anndata.read_h5ad(write_as(data, tmp_path, "h5ad"), backed="r")
    np.testing.assert_array_equal(values(backed), data.X.toarray())
    np.testing.assert_array_equal(
        values(backed[[3, 1], ["Vip", "Gad1"]]), data.X.toarray()[[3, 1]][:, [2, 0]]
    )
    np.testing.assert_array_equal(values(backed[2:5, 1:]), data.X.toarray()[2:5, 1:])
    assert "backed by" in open_input(backed, argument="sc").where


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_layers_obsm_and_raw_are_found(kind: str, tmp_path: Path, make_side: Any, write_as: Write) -> None:
    data = make_side(["Gad1", "Sst"], spatial=True)
    data.layers["counts"] = data.X * 2
    data.obsm["frame"] = pd.DataFrame({"a": range(12)}, index=data.obs_names)
    data.raw = data.copy()
    data.X = None
    found = open_input(write_as(data, tmp_path, kind), argument="st")
    assert found.has_raw
    assert set(found.obsm) == {"spatial", "frame"}
    assert len(found.obsm) == 2
    np.testing.assert_array_equal(found.obsm["spatial"], data.obsm["spatial"])
    layer = open_rows(found.values("counts", argument="st_layer")).read(slice(None))
    np.testing.assert_array_equal(layer.toarray(), data.layers["counts"].toarray())
    with pytest.raises(
        KeyMissingError, match=r"\.X: expected a matrix.*Choose a layer with st_layer=.*'counts'"
    ):
        found.values(None, argument="st_layer")
    with pytest.raises(
        KeyMissingError, match=r"st_layer='count': expected a layer of st .*Did you mean 'counts'"
    ):
        found.values("count", argument="st_layer")


def test_files_of_the_oldest_anndata_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "old.h5ad", "w") as file:
        group = file.create_group("X")
        group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = "csr", (2, 3)
        group["data"], group["indices"], group["indptr"] = np.ones(2, np.float32), [0, 2], [0, 1, 2]
        file["obs"] = np.array([(b"a",), (b"b",)], dtype=[("index", "S1")])
        file["var"] = np.array([(b"x",), (b"y",), (b"z",)], dtype=[("index", "S1")])
    with pytest.warns(anndata.OldFormatWarning):
        assert values(tmp_path / "old.h5ad").tolist() == [[1, 0, 0], [0, 0, 1]]


def test_tables_keep_coordinates_and_text_as_annotation(tmp_path: Path) -> None:
    path = tmp_path / "spatial.csv"
    path.write_text("cell,X,Y,region,Gad1,Sst,cluster,Gad1\n1,0.5,2,L1,3,0,7,1\n2,1.5,4,L2,0,1,8,2\n")
    found = open_input(path, argument="st", obs_columns=["cluster"])
    assert found.obs.columns == ["X", "Y", "region", "cluster"]
    assert found.var.index.tolist() == ["Gad1", "Sst", "Gad1"]
    assert found.obs.names().tolist() == ["1", "2"]
    np.testing.assert_array_equal(found.matrix, [[3, 0, 1], [0, 1, 2]])


def test_a_single_column_x_is_a_gene_and_missing_numbers_are_kept(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("\tx\tGad1\na\t1\t\nb\t2\t5\n")
    found = open_input(tmp_path / "t.tsv", argument="st")
    assert found.var.index.tolist() == ["x", "Gad1"]
    assert np.isnan(found.matrix[0, 1])


WORDS = ["NA", "nan", "None", "null", "TRUE", "007", "1e3", "N/A"]
"""Names that a reader of tables takes for a missing value, a truth value or a number."""


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "tsv", "r.csv"])
def test_names_and_labels_are_kept_as_written(tmp_path: Path, kind: str) -> None:
    path, separator = tmp_path / f"t.{kind}", "\t" if kind == "tsv" else ","
    header = [*(["cell"] if kind != "r.csv" else []), *WORDS, "type"]  # R omits the first column name
    rows = [[word, *map(str, range(len(WORDS))), word] for word in WORDS]
    rows += [["cell 9", *["2"] * len(WORDS), ""]]
    text = "".join(separator.join(row) + "\n" for row in [header, *rows])
    path.write_bytes(gzip.compress(text.encode()) if kind.endswith("gz") else text.encode())
    found = open_input(path, argument="st")
    assert found.obs.names().tolist() == [*WORDS, "cell 9"]
    assert found.var.index.tolist() == WORDS
    labels = found.obs["type"]
    assert labels.tolist()[:-1] == WORDS
    assert labels.isna().tolist() == [False] * len(WORDS) + [True]
    np.testing.assert_array_equal(found.matrix, [list(range(len(WORDS)))] * len(WORDS) + [[2] * len(WORDS)])


def test_a_column_with_only_words_for_missing_values(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("cell,Gad1,Sst,type\na,1,NA,None\nb,2,,null\n")
    found = open_input(tmp_path / "t.csv", argument="st")
    assert found.obs["type"].tolist() == ["None", "null"]
    assert found.var.index.tolist() == ["Gad1", "Sst"]  # its values are missing, which `pair` refuses
    assert np.isnan(found.matrix[:, 1]).all()


@pytest.mark.parametrize("name", ["__index_level_0__", "barcode", "cell_id", "EntityID"])
def test_parquet_finds_the_column_of_names_at_any_position(name: str, tmp_path: Path) -> None:
    kind, number = ["B", "B"], [2**60 + 1, 2**60] if name == "EntityID" else ["b", "a"]
    table = pd.DataFrame({"kind": kind, "Gad1": [1, 2], "Sst": [0, 1], name: number})
    table.to_parquet(tmp_path / "t.parquet")
    found = open_input(tmp_path / "t.parquet", argument="sc")
    assert found.obs.names().tolist() == [*map(str, number)]
    assert (found.obs.columns, found.var.index.tolist()) == (["kind"], ["Gad1", "Sst"])


def test_names_of_cells_after_a_first_column_with_duplicates(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("cell_type,cell_id,Gad1,Sst\nA,c1,1,2\nA,c2,0,4\nB,c3,2,2\n")
    found = open_input(tmp_path / "t.csv", argument="sc")
    assert found.obs.names().tolist() == ["c1", "c2", "c3"]
    assert found.obs["cell_type"].tolist() == ["A", "A", "B"]
    assert found.notes == (
        "cell names are taken from the column 'cell_id', because the first column has duplicates.",
    )


def test_a_broken_link_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.h5ad").symlink_to(tmp_path / "annex" / "content")
    with pytest.raises(MissingFileError, match=r"a link to '.*annex/content', which does not exist"):
        open_input(tmp_path / "a.h5ad", argument="sc")


@pytest.mark.parametrize("name", ["a.csv.xz", "a.rar"])
def test_other_archives_must_be_unpacked_first(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(FormatError, match="Unpack it"):
        open_input(tmp_path / name, argument="sc")


def test_parquet_uses_its_first_text_column_as_names(tmp_path: Path) -> None:
    pd.DataFrame({"barcode": ["a", "b"], "Gad1": [1, 2], "Sst": [0, 1]}).to_parquet(tmp_path / "t.parquet")
    found = open_input(tmp_path / "t.parquet", argument="sc")
    assert found.obs.names().tolist() == ["a", "b"]
    assert found.var.index.tolist() == ["Gad1", "Sst"]


def test_10x_features_that_are_not_genes_are_left_out(
    tmp_path: Path, make_side: Any, write_as: Write
) -> None:
    data = make_side(["Gad1", "NegControl1", "Sst"])
    path = write_as(data, tmp_path, "xenium.h5")
    found = open_input(path, argument="st")
    assert found.var.index.tolist() == ["Gad1", "Sst"]
    assert found.columns is not None
    assert found.columns.tolist() == [0, 2]
    np.testing.assert_array_equal(values(path), data.X.toarray()[:, [0, 2]])


def test_missing_files_suggest_similar_names(tmp_path: Path) -> None:
    (tmp_path / "atlas.h5ad").touch()
    with pytest.raises(
        MissingFileError, match=r"sc \(.*atlass\.h5ad\): expected a file, got nothing.*'atlas\.h5ad'"
    ):
        open_input(tmp_path / "atlass.h5ad", argument="sc")
    with pytest.raises(MissingFileError, match=r"The folder '.*nowhere' does not exist either"):
        open_input(tmp_path / "nowhere" / "atlas.h5ad", argument="sc")


@pytest.mark.parametrize(
    ("name", "content", "looks"),
    [
        ("text.h5ad", b"a,b\n1,2\n", "a text file"),
        ("text.h5", b"a,b\n1,2\n", "a text file"),
        ("pickle.h5ad", pickle.dumps({"a": 1}), "a pickle, which cellweft never reads"),
        ("packed.h5ad", gzip.compress(b"x", mtime=0), r"a gzip-compressed file.*Unpack it first \(gunzip\)"),
        ("zipped.h5ad", b"PK\x03\x04" + bytes(9), r"a zip archive.*Unpack it first \(unzip\)"),
        ("empty.h5ad", b"", "an empty file"),
        ("cut.h5ad", b"\x89HDF\r\n\x1a\n" + bytes(40), "an HDF5 file that is damaged or incomplete"),
        ("text.parquet", b"a,b\n1,2\n", "a text file"),
        ("bytes.csv", b"\xff\xfe\x00\x01" * 9, "a file that cannot be read in this format"),
        ("empty.csv", b"", "an empty file"),
    ],
)
def test_files_in_another_format_than_their_name_says(
    tmp_path: Path, name: str, content: bytes, looks: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        FormatError, match=rf"sc \(.*{name}\): expected content that matches its name.*got {looks}"
    ):
        open_input(tmp_path / name, argument="sc")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.pkl", r"got a pickle, which can run any code.*write_h5ad"),
        ("a.rds", r"expected \.h5ad, \.zarr.*got a file named 'a\.rds'.*In R, convert"),
        ("matrix.mtx.gz", r"Pass the folder that contains it"),
        ("a.xlsx", r"got a file named 'a\.xlsx'\. Write it as text: pandas\.read_excel"),
        ("a.docx", r"got a file named 'a\.docx'\. Convert the data to \.h5ad"),
        ("a.RData", r"In R, convert it with the package anndataR"),
        ("a.zarr.zip", r"Unpack it, and pass the file or folder"),
        ("a.tar.gz", r"Unpack it, and pass the file or folder"),
        ("a.gef", r"Convert it with stereopy"),
        ("a.gem", r"Its header lacks geneID, x, y or MIDCount"),
        ("a.loom.gz", r"got a compressed file \(\.gz\)\. Unpack it, and pass the file"),
        ("a.cloupe", r"pass the filtered_feature_bc_matrix\.h5"),
        ("a.h5ad.gz", r"got a compressed file \(\.gz\)\. Unpack it, and pass the file"),
        ("a.h5.gz", r"got a compressed file \(\.gz\)\. Unpack it, and pass the file"),
        ("a", r"got a file named 'a'"),
    ],
)
def test_formats_that_are_not_read(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(FormatError, match=message):
        open_input(tmp_path / name, argument="sc")


@pytest.mark.parametrize("address", ["https://a.org/b.h5ad", "s3://bucket/b.zarr", "gs://b", "ftp://c/d.csv"])
def test_addresses_are_not_paths(address: str) -> None:
    scheme = address.partition(":")[0]
    with pytest.raises(
        FormatError, match=rf"expected a path on this machine, got an address \({scheme}\)\. Down"
    ):
        open_input(address, argument="sc")


def test_a_file_address_must_be_given_as_a_path() -> None:
    with pytest.raises(FormatError, match=r"got an address \(file\)\. Pass only the path"):
        open_input("file:///data/a.h5ad", argument="sc")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            BlockingIOError(11, "unable to lock file"),
            r"got a file that is open elsewhere.*HDF5_USE_FILE_LOCKING",
        ),
        (
            OSError("Unable to open file (unable to lock file, errno = 11, ...)"),
            r"got a file that is open elsewhere",
        ),
        (
            OSError(37, "No locks available"),
            r"got a file that is open elsewhere, or on a disk that cannot lock",
        ),
        (OSError(5, "Input/output error"), r"got a system error while reading it.*local disk.*may be fine"),
        (OSError(24, "Too many open files"), r"got a system error while reading it"),
        (PermissionError(13, "Permission denied"), r"got no permission to read it\. Change its permissions"),
    ],
)
def test_errors_of_the_system_are_not_reported_as_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, message: str
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    path = tmp_path / "a.h5ad"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(40))
    monkeypatch.setattr(h5py, "File", refuse)
    with pytest.raises(FormatError, match=message):
        open_input(path, argument="sc")


def test_a_file_that_is_open_elsewhere(tmp_path: Path, make_side: Any, write_as: Write) -> None:
    path = write_as(make_side(["Gad1"]), tmp_path, "h5ad")
    code = "import h5py, sys; file = h5py.File(sys.argv[1], 'a'); print(flush=True); sys.stdin.read()"
    other = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(other, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(
            FormatError,
            match=r"expected a file that no other program is writing, got a file that is open else",
        ):
            open_input(path, argument="sc")
        writer.communicate(b"")
    assert open_input(path, argument="sc").var.index.tolist() == ["Gad1"]


def test_other_objects_are_refused() -> None:
    with pytest.raises(FormatError, match=r"sc: expected an AnnData or a path, got DataFrame"):
        open_input(pd.DataFrame(), argument="sc")  # type: ignore[arg-type]


def test_hdf5_files_of_the_other_kind(tmp_path: Path, make_side: Any, write_as: Write) -> None:
    write_as(make_side(["Gad1"]), tmp_path, "h5ad").rename(tmp_path / "a.h5")
    with pytest.raises(FormatError, match=r"expected a 10x file.*its name must end in \.h5ad"):
        open_input(tmp_path / "a.h5", argument="sc")
    write_as(make_side(["Gad1"]), tmp_path, "h5").rename(tmp_path / "a.h5ad")
    with pytest.raises(
        FormatError, match=r"expected an AnnData file.*got an HDF5 file with 'matrix'.*end in \.h5\."
    ):
        open_input(tmp_path / "a.h5ad", argument="sc")


def test_folders_that_are_not_an_input(tmp_path: Path, make_side: Any, write_as: Write) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match=r"got a folder with nothing in it\. Pass the file itself"):
        open_input(tmp_path / "empty", argument="sc")
    folder = write_as(make_side(["Gad1"]), tmp_path, "mtx")
    (folder / "barcodes.tsv").rename(tmp_path / "kept.tsv")
    with pytest.raises(
        FormatError, match=r"got a folder without barcodes\.tsv: 'features\.tsv', 'matrix\.mtx'"
    ):
        open_input(folder, argument="sc")
    (folder / "barcodes.tsv").write_text("one\ntwo\n")
    with pytest.raises(FormatError, match=r"expected 2 cells x 1 genes.*got a matrix of 12 cells x 1 genes"):
        open_input(folder, argument="sc")
    (folder / "matrix.mtx").write_text("nothing\n")
    with pytest.raises(FormatError, match=r"matrix\.mtx: expected a matrix of Matrix Market, got .*Line 1"):
        open_input(folder, argument="sc")


def test_zarr_stores_that_are_not_anndata(tmp_path: Path, make_side: Any, write_as: Write) -> None:
    zarr.open_group(tmp_path / "other.zarr", mode="w", zarr_format=2)
    with pytest.raises(
        FormatError, match=r"expected a zarr store written by AnnData.*got a store with nothing"
    ):
        open_input(tmp_path / "other.zarr", argument="st")


@pytest.mark.parametrize("kind", ["zarr", "v3.zarr"])
def test_a_table_of_spatialdata_is_found(kind: str, tmp_path: Path, make_side: Any, write_as: Write) -> None:
    store = tmp_path / "sd.zarr"
    root = zarr.open_group(store, mode="w", zarr_format=3 if kind.startswith("v3") else 2)
    tables = root.create_group("tables")
    with pytest.raises(FormatError, match=r"expected a SpatialData store with one table, got none"):
        open_input(store, argument="st")
    table = write_as(make_side(["Gad1"]), store / "tables", kind)
    assert open_input(table, argument="st").var.index.tolist() == ["Gad1"]
    found = open_input(store, argument="st")
    assert found.var.index.tolist() == ["Gad1"]
    assert (found.source, found.where) == (str(table), f"st ({table})")
    imputed = make_side(["Gad1", "Sst"])
    imputed.uns["cellweft"] = {"seed": 0}  # results that cellweft has written are not counted
    write_as(imputed, store / "tables", kind).rename(store / "tables" / "kept")
    write_as(make_side(["Gad1"]), store / "tables", kind)
    (store / "tables" / "kept").rename(store / "tables" / "imputed")
    assert sorted(tables) == [table.name, "imputed"]
    assert open_input(store, argument="st").var.index.tolist() == ["Gad1"]
    assert len(open_input(store / "tables" / "imputed", argument="st").var) == 2
    table.rename(store / "tables" / "cells")
    write_as(make_side(["Gad1"]), store / "tables", kind)
    with pytest.raises(
        FormatError, match=r"got 2 tables \('cells', 'data.*'\)\. Choose one: .*sd\.zarr/tables/cells or"
    ):
        open_input(store, argument="st")
    with pytest.raises(MissingFileError, match="Did you mean 'cells'"):
        open_input(store / "tables" / "cell", argument="st")


def test_tables_without_numbers(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,low\n")
    with pytest.raises(FormatError, match=r"expected a row per cell.*Check the separator"):
        open_input(tmp_path / "t.csv", argument="sc")


def write_mudata(path: Path, modalities: dict[str, anndata.AnnData]) -> Path:
    """Write modalities in the format of MuData, next to a table of all cells."""
    names = next(iter(modalities.values())).obs_names
    table = pd.DataFrame({"rna:type": 1, "wnn_cluster": 2}, index=names)
    store: Any = (
        zarr.open_group(str(path), mode="w", zarr_format=2)
        if path.suffix == ".zarr"
        else h5py.File(path, "w")
    )
    for name, data in modalities.items():
        anndata.io.write_elem(store.require_group("mod"), name, data)
    anndata.io.write_elem(store, "obs", table)
    anndata.io.write_elem(store, "var", pd.DataFrame(index=["g"]))
    if path.suffix != ".zarr":
        store.close()
    return path


@pytest.mark.parametrize("kind", ["h5mu", "zarr"])
def test_a_modality_of_mudata(kind: str, tmp_path: Path, make_side: Any) -> None:
    rna, atac = make_side(["Gad1", "Sst", "Vip"], spatial=True), make_side(["peak1", "peak2"])
    one = write_mudata(tmp_path / f"one.{kind}", {"rna": rna})
    np.testing.assert_array_equal(values(one), rna.X.toarray())
    both = write_mudata(tmp_path / f"both.{kind}", {"atac": atac, "rna": rna})
    with pytest.raises(
        FormatError, match=r"expected a single modality, got 2: 'rna', 'atac'.*st_sample='rna'"
    ):
        open_input(both, argument="st")
    found = open_input(both, argument="st", sample="rna")
    assert found.var.index.tolist() == ["Gad1", "Sst", "Vip"]
    assert found.notes == ("columns of obs that apply to all modalities were not read: 'wnn_cluster'.",)
    np.testing.assert_array_equal(found.obsm["spatial"], rna.obsm["spatial"])
    assert open_input(both, argument="st", sample="atac").var.index.tolist() == ["peak1", "peak2"]
    with pytest.raises(KeyMissingError, match=r"expected a modality of st"):
        open_input(both, argument="st", sample="protein")


@pytest.mark.parametrize("kind", ["h5ad", "zarr", "csv", "loom"])
def test_a_sample_is_refused_for_inputs_without_samples(
    kind: str, tmp_path: Path, make_side: Any, write_as: Write
) -> None:
    data = make_side(["Gad1", "Sst"])
    path = write_loom(tmp_path / "a.loom", data) if kind == "loom" else write_as(data, tmp_path, kind)
    with pytest.raises(
        SettingError, match=r"sc_sample: expected a folder with several samples.*got 'one' with"
    ):
        open_input(path, argument="sc", sample="one")
    with pytest.raises(SettingError, match=r"got 'one' with AnnData"):
        open_input(data, argument="sc", sample="one")


def write_loom(path: Path, data: anndata.AnnData, *, names: str = "CellID", genes: str = "Gene") -> Path:
    """Write a loom file: genes x cells in chunks, with the names as bytes."""
    with h5py.File(path, "w") as file:
        counts = data.X.toarray().T
        file.create_dataset("matrix", data=counts, chunks=(1, 3), compression="gzip")
        file.create_dataset("layers/spliced", data=counts * 2)
        file[f"row_attrs/{genes}"] = np.array([one.encode() for one in data.var_names])
        file["row_attrs/Accession"] = np.array([f"ENS{one}".encode() for one in data.var_names])
        if names:
            file[f"col_attrs/{names}"] = np.array([one.encode() for one in data.obs_names])
        for column in data.obs:
            file[f"col_attrs/{column}"] = data.obs[column].to_numpy()
        file["col_attrs/X_umap"] = np.zeros((data.n_obs, 2))
        file.attrs["LOOM_SPEC_VERSION"] = "3.0.0"
    return path


@pytest.mark.parametrize("column", ["X", "age"])
def test_columns_of_loom_that_pandas_cannot_use_are_refused(
    column: str, tmp_path: Path, make_side: Any
) -> None:
    path = write_loom(tmp_path / "a.loom", make_side(["Gad1", "Sst"], n_cells=23))
    with h5py.File(path, "r+") as file:
        file[f"col_attrs/{column}"] = np.zeros(23, dtype="V8")
        file["col_attrs/Y"] = np.arange(23.0, dtype=">f8")
    with pytest.raises(FormatError, match=rf"col_attrs\['{column}'\]: expected .* got values of type \|V8"):
        open_input(path, argument="st")


@pytest.mark.parametrize(("names", "genes"), [("CellID", "Gene"), ("obs_names", "var_names")])
def test_loom_is_transposed(names: str, genes: str, tmp_path: Path, make_side: Any) -> None:
    data = make_side(["Gad1", "Sst", "NA", "Blank-1"], n_cells=23)
    data.obs["X"], data.obs["Y"] = np.arange(23.0), np.arange(23.0)[::-1]
    path = write_loom(tmp_path / "a.loom", data, names=names, genes=genes)
    found = open_input(path, argument="sc")
    assert found.obs.names().tolist() == data.obs_names.tolist()
    assert found.var.index.tolist() == ["Gad1", "Sst", "NA"]
    assert found.var["gene_ids"].tolist() == ["ENSGad1", "ENSSst", "ENSNA"]
    assert found.left_out == {"blank": ("Blank-1",)}
    np.testing.assert_array_equal(values(path), data.X.toarray()[:, :3])
    spliced = open_rows(found.values("spliced", argument="sc_layer")).read(slice(2, 9)).toarray()
    np.testing.assert_array_equal(spliced, 2 * data.X.toarray()[2:9])
    assert [*found.obsm] == ["X_umap"]
    assert found.notes == ()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("layers/spliced", None, r"\.layers\['spliced'\]: expected a matrix of genes x cells, got Attribute"),
        (
            "layers/spliced",
            np.zeros((2, 3)),
            r"\.layers\['spliced'\]: expected 4 genes x 12 cells, .* \(2, 3\)",
        ),
        ("layers", np.zeros(3), r"\.layers: expected elements by their names, got a single array"),
        ("col_attrs/CellID", [b"a", b"b"], r"\.col_attrs\['CellID'\]: expected 12 values, .*, got 2"),
        ("row_attrs/Gene", [b"Gad1"], r"\.row_attrs\['Gene'\]: expected 4 values, .*, got 1"),
        ("row_attrs", 1.0, r"expected content that matches its name 'a.loom'"),
        ("matrix", np.zeros((4, 12), "S1"), r"expected content that matches its name 'a.loom'"),
    ],
)
def test_loom_with_other_elements(key: str, value: Any, said: str, tmp_path: Path, make_side: Any) -> None:
    data = make_side(["Gad1", "Sst", "NA", "Blank-1"])
    path = write_loom(tmp_path / "a.loom", data)
    with h5py.File(path, "r+") as file:
        del file[key]
        if value is None:
            file.create_group(key)
        else:
            file[key] = value

    def read() -> None:
        open_input(path, argument="sc").values("spliced", argument="sc_layer")

    with pytest.raises(FormatError, match=said):
        read()


def test_loom_without_names_of_cells(tmp_path: Path, make_side: Any) -> None:
    path = write_loom(tmp_path / "a.loom", make_side(["Gad1", "Sst"], n_cells=4), names="")
    found = open_input(path, argument="sc")
    assert found.obs.names().tolist() == ["0", "1", "2", "3"]
    assert found.notes == ("the file has no cell names (CellID), so cells are numbered from 0.",)
    path.rename(tmp_path / "b.h5ad")
    with pytest.raises(FormatError, match="expected an AnnData file, with obs and var"):
        open_input(tmp_path / "b.h5ad", argument="sc")
    with h5py.File(tmp_path / "c.loom", "w") as file:
        file["X"] = [1]
    with pytest.raises(FormatError, match=r"expected a loompy file, with matrix, row_attrs, col_attrs"):
        open_input(tmp_path / "c.loom", argument="sc")
