"""The requested genes: lists, text files and datasets; symbols and Ensembl IDs."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cellweft._errors import FormatError, GeneError, KeyMissingError, MissingFileError
from cellweft.genes.proteins.lookup import Wanted, wanted_genes

ID, OTHER = "ENSMUSG00000070880", "ENSMUSG00000004366"


def symbol(name: str, ensembl: str = "") -> Wanted:
    return Wanted(name=name, symbol=name, ensembl=ensembl)


def by_id(name: str, ensembl: str, known_as: str = "") -> Wanted:
    return Wanted(name=name, symbol=known_as, ensembl=ensembl, by_id=True)


def test_symbols_and_ids_are_distinguished() -> None:
    assert wanted_genes(["Gad1", "Sst", f"{ID}.11"]) == [symbol("Gad1"), symbol("Sst"), by_id(f"{ID}.11", ID)]
    # Most names are IDs; a name that is not an ID is kept.
    assert wanted_genes([ID, f"{OTHER}.2", "ERCC-00002"]) == [
        by_id(ID, ID),
        by_id(f"{OTHER}.2", OTHER),
        symbol("ERCC-00002"),
    ]
    assert wanted_genes(["ENSA", "Gad1"]) == [symbol("ENSA"), symbol("Gad1")]  # a symbol, not an ID


@pytest.mark.parametrize("name", ["genes.txt", "genes", "genes.csv", "genes.tsv"])
def test_a_text_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\xef\xbb\xbf# my genes\r\nGad1\r\n\r\n Sst \r\n")
    assert wanted_genes(path) == wanted_genes(str(path)) == [symbol("Gad1"), symbol("Sst")]


def test_a_dataset_in_memory_and_on_disk(tissue: Any, tmp_path: Path) -> None:
    names = [str(name) for name in tissue.sc.var_names]
    tissue.sc.write_h5ad(tmp_path / "atlas.h5ad")
    pd.DataFrame(tissue.st.X.toarray(), index=tissue.st.obs_names, columns=tissue.st.var_names).to_csv(
        tmp_path / "tissue.csv"
    )
    assert [one.name for one in wanted_genes(tissue.sc)] == names
    assert [one.name for one in wanted_genes(tmp_path / "atlas.h5ad")] == names
    assert [one.name for one in wanted_genes(tmp_path / "tissue.csv")] == list(tissue.st.var_names)


def test_a_dataset_with_both_kinds_of_names(tissue: Any) -> None:
    data = tissue.st[:2, :3].copy()
    data.var_names = ["Gad1", "Sst", "Own"]
    data.var["gene_ids"] = [f"{ID}.11", OTHER, float("nan")]
    expected = [symbol("Gad1", ID), symbol("Sst", OTHER), symbol("Own")]
    assert wanted_genes(data) == expected
    data.var["gene_symbol"] = data.var_names
    data.var_names = [f"{ID}.11", OTHER, "Own"]
    assert wanted_genes(data) == [by_id(f"{ID}.11", ID, "Gad1"), by_id(OTHER, OTHER, "Sst"), symbol("Own")]
    assert wanted_genes(data, gene_column="gene_symbol") == expected


def test_an_id_instead_of_a_symbol_is_not_a_symbol(tissue: Any) -> None:
    data = tissue.st[:2, :2].copy()
    data.var_names = [ID, OTHER]
    data.var["gene_name"] = ["Gad1", OTHER]
    assert wanted_genes(data) == [by_id(ID, ID, "Gad1"), by_id(OTHER, OTHER)]


@pytest.mark.parametrize(
    ("genes", "words"),
    [
        (["Gad1", "Sst", "Gad1"], "genes: expected unique genes, got 'Gad1' more than once"),
        ([], "genes: expected unique genes, got none"),
        (["Gad1,Sst"], "names with spaces or commas: 'Gad1,Sst'. Write each name on its own line"),
        (["Gad1", "  "], "names with spaces or commas: '  '"),
    ],
)
def test_bad_lists(genes: list[str], words: str) -> None:
    with pytest.raises(GeneError, match=re.escape(words)):
        wanted_genes(genes)


def test_bad_files(tmp_path: Path, tissue: Any) -> None:
    path = tmp_path / "genes.txt"
    path.write_text("Gad1\nSst\nGad1\n")
    with pytest.raises(GeneError, match=r"genes \(.*genes\.txt\): .*got 'Gad1' more than once"):
        wanted_genes(path)
    path.write_text("# none\n\n")
    with pytest.raises(GeneError, match="got none"):
        wanted_genes(path)
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(
        FormatError, match="a text file with one gene per line, got a file that is not a text file"
    ):
        wanted_genes(path)
    with pytest.raises(MissingFileError, match=r"nothing at this path\. Did you mean 'genes\.txt'"):
        wanted_genes(tmp_path / "gene.txt")
    with pytest.raises(MissingFileError, match=r"The folder .*nowhere' does not exist either"):
        wanted_genes(tmp_path / "nowhere" / "genes.txt")
    with pytest.raises(MissingFileError, match=r"genes \(.*atlas\.h5ad\): expected a file"):
        wanted_genes(tmp_path / "atlas.h5ad")
    with pytest.raises(KeyMissingError, match=r"gene_column='symbol': .*a column of var of genes \(AnnData"):
        wanted_genes(tissue.sc, gene_column="symbol")


def test_a_duplicate_gene_in_a_dataset(tissue: Any) -> None:
    data = tissue.st[:2, :3].copy()
    data.var["name"] = ["Gad1", "Gad1", "Sst"]
    with pytest.raises(GeneError, match=r"genes \(AnnData in memory\): .*'Gad1' more than once"):
        wanted_genes(data, gene_column="name")
