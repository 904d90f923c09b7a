"""Names and annotation stored as bytes are decoded as UTF-8; errors name the table and the column."""

from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from cellweft._errors import FormatError
from cellweft.data._pair import pair
from cellweft.data.io.obs_table import table_with_text
from cellweft.data.io.read import open_input
from cellweft.genes.embeddings import read_embedding

LATIN = "é".encode("latin-1")
GENES = [f"Gene{number}" for number in range(4)]


def _cells(**columns: Any) -> anndata.AnnData:
    counts = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    return anndata.AnnData(
        counts, var=pd.DataFrame(columns, index=GENES), obs=pd.DataFrame(index=list("abc"))
    )


def test_a_table_with_bytes_becomes_text_and_the_input_is_unchanged() -> None:
    given = pd.DataFrame(
        {"symbol": [b"Gad1", None, "Sst"], "kind": pd.Categorical([b"a", "a", b"b"]), "number": [1, 2, 3]},
        index=pd.Index([b"x", b"y", b"z"], name="gene"),
    )
    before = given.copy()
    table = table_with_text(given, "sc.var")
    assert table["symbol"].fillna("missing").tolist() == ["Gad1", "missing", "Sst"]
    assert table["kind"].tolist() == ["a", "a", "b"]
    assert table["kind"].cat.categories.tolist() == ["a", "b"]
    assert table["number"].dtype == np.int64
    assert table.index.tolist() == ["x", "y", "z"]
    assert table.index.name == "gene"
    pd.testing.assert_frame_equal(given, before)


def test_columns_with_the_same_name_stay_separate() -> None:
    given = pd.DataFrame([[b"x", 1], [b"y", 2]], columns=["a", "a"])
    assert table_with_text(given, "sc.var").to_numpy().tolist() == [["x", 1], ["y", 2]]


def test_a_table_without_bytes_is_returned_unchanged() -> None:
    given = pd.DataFrame({"symbol": ["a", 1, None]})
    assert table_with_text(given, "sc.var") is given


def test_bytes_in_memory_are_names_of_genes() -> None:
    ids = [f"ENSG{number:011d}" for number in range(4)]
    st = _cells()
    st.var_names = pd.Index(ids)
    st.obs_names = pd.Index(["p", "q", "r"])
    sc = _cells(gene_ids=[one.encode() for one in ids])
    assert len(pair(sc, st, coordinates="none").shared_genes) == 4
    assert sc.var["gene_ids"].tolist() == [one.encode() for one in ids]


@pytest.mark.parametrize("slot", ["var", "obs", "raw"])
def test_bytes_in_memory_that_are_not_utf8(slot: str) -> None:
    sc = _cells(symbol=[LATIN, b"b", b"c", b"d"])
    said = r"var\['symbol'\]"
    if slot == "obs":
        sc = _cells()
        sc.obs["type"] = [b"a", LATIN, b"c"]
        said = r"obs\['type'\]"
    if slot == "raw":
        raw, sc = sc, _cells()
        sc.raw = raw
        said = r"raw.var\['symbol'\]"
    with pytest.raises(FormatError, match=said + ": expected text in UTF-8, got bytes that are not"):
        pair(sc, _cells(), sc_layer="raw" if slot == "raw" else None)


@pytest.mark.parametrize(
    ("element", "said"),
    [
        ("var/symbol", r"\.var\['symbol'\]: expected text in UTF-8"),
        ("obs/type", r"\.obs\['type'\]: expected text in UTF-8"),
        ("obs/_index", r"\.obs_names: expected an element that can be read, got UnicodeDecodeError"),
        ("var/_index", r"\.var_names: expected text in UTF-8"),
    ],
)
def test_names_in_a_file_that_are_not_utf8(element: str, said: str, tmp_path: Path) -> None:
    cells = _cells(symbol=list("wxyz"))
    cells.obs["type"] = list("abc")
    cells.write_h5ad(tmp_path / "a.h5ad", convert_strings_to_categoricals=False)
    with h5py.File(tmp_path / "a.h5ad", "a") as file:
        n_rows = 4 if element.startswith("var") else 3
        values = np.array([LATIN + bytes([97 + n]) for n in range(n_rows)], dtype="S")
        del file[element]
        file[element] = values
        file[element].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    with pytest.raises(FormatError, match=said):
        open_input(tmp_path / "a.h5ad", argument="sc").obs.frame()


def test_bytes_of_parquet_tables(tmp_path: Path) -> None:
    table = pd.DataFrame(np.ones((3, 4)), columns=GENES)
    table.insert(0, "cell", [b"a", b"b", b"c"])
    table.to_parquet(tmp_path / "t.parquet")
    assert open_input(tmp_path / "t.parquet", argument="st").obs.names().tolist() == ["a", "b", "c"]
    table["cell"] = [b"a", LATIN, b"c"]
    table.to_parquet(tmp_path / "t.parquet")
    with pytest.raises(FormatError, match=r"t.parquet\)\['cell'\]: expected text in UTF-8"):
        open_input(tmp_path / "t.parquet", argument="st")


def test_bytes_of_gene_embeddings(tmp_path: Path) -> None:
    values = np.ones((2, 3), dtype=np.float32)
    np.savez(tmp_path / "e.npz", genes=np.array([b"Gad1", b"Sst"]), embeddings=values)
    assert read_embedding(tmp_path / "e.npz").genes.tolist() == ["Gad1", "Sst"]
    np.savez(tmp_path / "e.npz", genes=np.array([b"Gad1", LATIN]), embeddings=values)
    with pytest.raises(FormatError, match="gene names: expected text in UTF-8"):
        read_embedding(tmp_path / "e.npz")
    frame = pd.DataFrame(values, index=[b"Gad1", b"Sst"])
    assert read_embedding(frame).genes.tolist() == ["Gad1", "Sst"]
