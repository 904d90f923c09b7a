"""From genes to proteins with files alone; test_uniprot.py does the same with UniProt."""

import gzip
import re
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellweft._errors import (
    FormatError,
    GeneError,
    InputError,
    MissingFileError,
    OutputError,
    OutputExistsError,
    SettingError,
)
from cellweft.genes.proteins import table as proteins_module
from cellweft.genes.proteins.fasta import read_fasta
from cellweft.genes.proteins.http_client import Service
from cellweft.genes.proteins.table import ProteinTable, default_cache, find_proteins

PROTEOME = """\
>sp|P48318|DCE1_MOUSE Glutamate decarboxylase 1 OS=Mus musculus OX=10090 GN=Gad1 PE=1 SV=2
MASSTPSPAT
>tr|A2AQ51|A2AQ51_MOUSE Glutamate decarboxylase 1 OS=Mus musculus OX=10090 GN=Gad1 PE=1 SV=1
MASSTPSPATSSNAG
>sp|P48318-2|DCE1_MOUSE Isoform 2 of Glutamate decarboxylase 1 OS=Mus musculus OX=10090 GN=Gad1
MASSTPSPATSSN
>tr|B2|B2_MOUSE x OS=Mus musculus OX=10090 GN=Vip PE=1 SV=1
MEARSK
>tr|B1|B1_MOUSE x OS=Mus musculus OX=10090 GN=Vip PE=1 SV=1
MEARSR
>tr|B3|B3_MOUSE x OS=Mus musculus OX=10090 GN=Vip PE=1 SV=1
MEA
>sp|Q1|DL_MOUSE as dorsal of the fly OS=Mus musculus OX=10090 GN=dl PE=1 SV=1
MAAA
>sp|Q2|DELTA_MOUSE as Delta of the fly OS=Mus musculus OX=10090 GN=Dl PE=1 SV=1
MCCC
>sp|P9|SST_HUMAN Somatostatin OS=Homo sapiens OX=9606 GN=Sst PE=1 SV=1
MLSCRLQ
>sp|P8|NONE_MOUSE without a gene OS=Mus musculus OX=10090 PE=1 SV=1
MLSC
"""


@pytest.fixture
def proteome(tmp_path: Path) -> Path:
    path = tmp_path / "mouse.fasta"
    path.write_text(PROTEOME)
    return path


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if anything is requested over the network."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a request")

    monkeypatch.setattr(Service, "_ask", refuse)


def find(*genes: str, **others: Any) -> ProteinTable:
    return find_proteins(list(genes), **({"organism": "mouse"} | others))


def test_every_choice_is_recorded(proteome: Path) -> None:
    found = find("Gad1", "VIP", "Dl", "dl", "DL", "Sst", "Malat1", proteome=proteome)
    assert found.table.drop(columns=["sequence", "entry_name"]).to_numpy().tolist() == [
        ["Gad1", "P48318", True, True, 10, "exact", "Gad1", 3, "the only canonical of 2 reviewed of 3"],
        ["VIP", "B1", False, True, 6, "case", "Vip", 3, "the first accession of 2 longest of 3"],
        ["Dl", "Q2", True, True, 4, "exact", "Dl", 1, "the only one"],
        ["dl", "Q1", True, True, 4, "exact", "dl", 1, "the only one"],
        ["DL", "Q1", True, True, 4, "case", "dl", 2, "the first accession of 2 longest of 2"],
        ["Sst", "", False, False, 0, "", "", 0, "no protein with this name"],
        ["Malat1", "", False, False, 0, "", "", 0, "no protein with this name"],
    ]
    assert list(found.table.columns) == [
        "gene",
        "accession",
        "entry_name",
        "reviewed",
        "canonical",
        "length",
        "matched",
        "gene_name",
        "candidates",
        "reason",
        "sequence",
    ]
    assert list(found.table["sequence"].str.len()) == list(found.table["length"])
    assert (found.found, found.missing) == (["Gad1", "VIP", "Dl", "dl", "DL"], ["Sst", "Malat1"])
    assert repr(found) == "ProteinTable(5 of 7 genes of mouse (taxon 10090) from mouse.fasta)"
    assert found.cautions == [
        "2 genes without a protein, no protein with this name: 'Sst', 'Malat1'.",
        "2 genes share a protein: 'dl', 'DL'.",
    ]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(genes=st.permutations(["Gad1", "gad1", "Vip", "Dl", "Sst", "Malat1"]), kept=st.integers(1, 6))
def test_other_genes_and_their_order_do_not_matter(proteome: Path, genes: list[str], kept: int) -> None:
    whole = find(*sorted(genes), proteome=proteome).table.set_index("gene")
    asked = ["Gad1", *(gene for gene in genes[:kept] if gene != "Gad1")]
    pd.testing.assert_frame_equal(
        find(*asked, proteome=proteome).table.set_index("gene"), whole.loc[asked], check_index_type=False
    )


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_order_of_the_file_does_not_matter(proteome: Path, data: st.DataObject) -> None:
    blocks = [f">{block}" for block in PROTEOME.split(">")[1:]]
    genes = ("Gad1", "VIP", "Dl", "Malat1")
    expected = find(*genes, proteome=proteome).table
    turned = proteome.with_name("turned.fasta")
    turned.write_text("".join(data.draw(st.permutations(blocks))))
    pd.testing.assert_frame_equal(find(*genes, proteome=turned).table, expected)


def test_a_compressed_file_and_several_files(proteome: Path) -> None:
    packed = proteome.with_suffix(".fasta.gz")
    packed.write_bytes(gzip.compress(PROTEOME.encode()))
    own = proteome.with_name("own.fa")
    own.write_text(">Transgene made here\nMASK\n")
    found = find("Gad1", "Transgene", proteome=[packed, own])
    assert list(found.table["accession"]) == ["P48318", ""]
    assert list(found.table["length"]) == [10, 4]
    assert found.source == "mouse.fasta.gz, own.fa"
    assert [one.description for one in found.records()] == ["P48318 DCE1_MOUSE", ""]


def test_in_other_files_the_first_word_is_the_gene(tmp_path: Path) -> None:
    path = tmp_path / "own.fa"
    path.write_text(">Gad1 short\nMAS\n>Gad1 long\nMASS\n>Sst\nML\n")
    found = find("Gad1", "SST", proteome=path, organism=4242)
    assert found.table[["matched", "candidates", "reason", "sequence"]].to_numpy().tolist() == [
        ["exact", 2, "the longest of 2", "MASS"],
        ["case", 1, "the only one", "ML"],
    ]


ENSEMBL = """\
>ENSMUSP00000001.1 pep chromosome:GRCm39:2:1:2:1 gene:ENSMUSG00000070880.11 gene_symbol:Gad1
MASS
>ENSMUSP00000002.1 pep chromosome:GRCm39:2:1:2:1 gene:ENSMUSG00000070880.11 gene_symbol:Gad1
MASSTP
>ENSMUSP00000003.1 pep chromosome:GRCm39:2:1:2:1 gene:ENSMUSG00000004366.5 gene_symbol:Sst
MLSC
"""


def test_ensembl_ids_in_ensembls_file(tmp_path: Path) -> None:
    path = tmp_path / "pep.all.fa"
    path.write_text(ENSEMBL)
    found = find("ENSMUSG00000070880.2", "Sst", "ENSMUSG00000099999", proteome=path)
    assert list(found.table["accession"]) == ["ENSMUSP00000002.1", "ENSMUSP00000003.1", ""]
    assert list(found.table["matched"]) == ["Ensembl", "exact", ""]
    assert found.table["reason"][2] == "no protein with this Ensembl ID"


def test_a_dataset_with_ids_and_symbols(proteome: Path, tmp_path: Path) -> None:
    var = pd.DataFrame({"gene_symbol": ["Gad1", "vip", None]}, index=["ENSMUSG00000070880", "ENSMUSG1", "Dl"])
    var.index = ["ENSMUSG00000070880", "ENSMUSG00000000009", "ENSMUSG00000000008"]
    data = anndata.AnnData(np.ones((2, 3), dtype=np.float32), var=var)
    data.write_h5ad(tmp_path / "atlas.h5ad")
    found = find_proteins(tmp_path / "atlas.h5ad", organism="mouse", proteome=proteome)
    assert list(found.table["gene"]) == list(var.index)
    assert list(found.table["matched"]) == ["exact", "case", ""]
    by_symbol = find_proteins(data[:, :2], organism="mouse", proteome=proteome, gene_column="gene_symbol")
    assert [one.name for one in by_symbol.records()] == ["Gad1", "vip"]


def test_a_name_with_a_space_cannot_be_written_to_a_fasta(tmp_path: Path) -> None:
    path = tmp_path / "mouse.fasta"
    path.write_text(PROTEOME.replace("GN=dl", "GN=Tcr beta"))
    data = anndata.AnnData(np.ones((2, 2), dtype=np.float32), var=pd.DataFrame(index=["Tcr beta", "Gad1"]))
    found = find_proteins(data, organism="mouse", proteome=path)
    assert [one.name for one in found.records()] == ["Gad1"]
    assert (
        found.table["reason"][0] == "its name contains a space, or a character that UniProt does not accept"
    )


@pytest.mark.parametrize(
    ("genes", "words"),
    [
        (
            ["Malat1", "Xist"],
            "genes: expected genes of mouse (taxon 10090) in mouse.fasta, got no protein for any of 2: "
            "'Malat1', 'Xist'. Check the organism, and that the names are gene symbols or Ensembl gene IDs.",
        ),
        (
            ["ENSMUSG00000070880", "ENSMUSG00000004366"],
            "The genes are Ensembl IDs, which UniProt's files do not contain. Use Ensembl's peptide file",
        ),
    ],
)
def test_no_gene_has_a_protein(proteome: Path, genes: list[str], words: str) -> None:
    with pytest.raises(GeneError, match=re.escape(words)):
        find(*genes, proteome=proteome)


def test_bad_input(proteome: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="Did you mean 'mouse'"):
        find("Gad1", proteome=proteome, organism="mous")
    with pytest.raises(GeneError, match="'Gad1' more than once"):
        find("Gad1", "Gad1", proteome=proteome)
    with pytest.raises(
        InputError, match=r"expected proteins of zebrafish \(taxon 7955\), got 10 from others"
    ):
        find("Gad1", proteome=proteome, organism="zebrafish")
    with pytest.raises(MissingFileError, match=r"Did you mean 'mouse\.fasta'"):
        find("Gad1", proteome=tmp_path / "mose.fasta")
    proteome.write_text("<html>")
    with pytest.raises(FormatError, match="got a web page"):
        find("Gad1", proteome=proteome)
    with pytest.raises(SettingError, match="url: expected an address with http"):
        find("Gad1", url="rest.uniprot.org")


def test_proteins_are_named_as_the_dataset_spells_its_genes(proteome: Path, tmp_path: Path) -> None:
    found = find("GAD1", "Malat1", "Vip", proteome=proteome)
    found.write(tmp_path / "proteins.fa")
    assert (tmp_path / "proteins.fa").read_text() == (
        ">GAD1 P48318 DCE1_MOUSE\nMASSTPSPAT\n>Vip B1 B1_MOUSE\nMEARSR\n"
    )
    assert read_fasta(tmp_path / "proteins.fa") == found.records()


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("table.tsv", lambda path: pd.read_csv(path, sep="\t", keep_default_na=False)),
        ("table.csv", lambda path: pd.read_csv(path, keep_default_na=False)),
        ("table.parquet", pd.read_parquet),
    ],
)
def test_the_table_is_read_back(proteome: Path, tmp_path: Path, name: str, read: Any) -> None:
    found = find("Gad1", "Malat1", "nan", proteome=proteome)
    found.write(tmp_path / "proteins.fasta.gz", table=tmp_path / name)
    pd.testing.assert_frame_equal(read(tmp_path / name), found.table, check_dtype=False)


def test_both_files_are_written_or_neither(
    proteome: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, folder = find("Gad1", proteome=proteome), tmp_path / "out"
    folder.mkdir()
    fasta, table = folder / "proteins.fa", folder / "proteins.tsv"
    with pytest.raises(
        SettingError, match=r"a name ending in \.fa or \.faa or \.fasta or \.gz, got '\.h5ad'"
    ):
        found.write(folder / "proteins.h5ad")
    with pytest.raises(SettingError, match=r"a name ending in \.tsv or \.csv or \.parquet, got '\.xlsx'"):
        found.write(fasta, table=folder / "proteins.xlsx")
    with pytest.raises(OutputError, match="the output's folder, got nothing at this path"):
        found.write(fasta, table=folder / "nowhere" / "proteins.tsv")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(proteins_module, "write_fasta", fail)
        with pytest.raises(OutputError, match="No space left"):
            found.write(fasta, table=table)
    assert not list(folder.iterdir())
    table.write_text("earlier")
    with pytest.raises(OutputExistsError, match=r"proteins\.tsv: .*an existing output"):
        found.write(fasta, table=table)
    assert [one.name for one in folder.iterdir()] == ["proteins.tsv"]
    found.write(fasta, table=table, overwrite=True)
    assert sorted(one.name for one in folder.iterdir()) == ["proteins.fa", "proteins.tsv"]


def test_inputs_are_not_changed(proteome: Path) -> None:
    genes, before = ["Gad1", "Vip"], proteome.read_bytes()
    find_proteins(genes, organism="mouse", proteome=proteome)
    assert genes == ["Gad1", "Vip"]
    assert proteome.read_bytes() == before


def test_the_cache_is_in_the_cache_folder_of_the_system(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "cellweft" / "uniprot"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    for platform, parts in (("linux", ".cache"), ("darwin", "Library/Caches")):
        monkeypatch.setattr("sys.platform", platform)
        assert default_cache() == tmp_path / parts / "cellweft" / "uniprot"


def test_genes_of_a_real_dataset(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "hypo_merfish_animal1_bregma-0.29_st.h5ad"
    names = list(anndata.read_h5ad(path, backed="r").var_names)
    file = tmp_path / "mouse.fasta"
    lines = [f">sp|P{number}|X_MOUSE x OX=10090 GN={name}\nMASS\n" for number, name in enumerate(names[5:])]
    file.write_text("".join(lines))
    found = find_proteins(path, organism="mouse", proteome=file)
    assert list(found.table["gene"]) == names
    assert found.missing == names[:5]
