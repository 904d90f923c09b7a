"""The command `cellweft proteins` without a network: its files, what it prints, and errors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from cellweft.cli import app
from cellweft.genes.proteins.fasta import read_fasta

PROTEOME = """\
>sp|P48318|DCE1_MOUSE Glutamate decarboxylase 1 OS=Mus musculus OX=10090 GN=Gad1 PE=1 SV=2
MASSTPSPAT
>tr|A2AQ51|A2AQ51_MOUSE Glutamate decarboxylase 1 OS=Mus musculus OX=10090 GN=Gad1 PE=1 SV=1
MASSTPSPATSSNAG
>sp|P60041|SMS_MOUSE Somatostatin OS=Mus musculus OX=10090 GN=Sst PE=1 SV=1
MLSCRLQ
"""


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Function that runs `cellweft proteins` in a folder with a proteome."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    Path("mouse.fasta").write_text(PROTEOME)

    def run(*arguments: Any, organism: str = "mouse", proteome: str = "mouse.fasta") -> Any:
        files = ("--proteome", proteome) if proteome else ()
        asked = ["proteins", "--organism", organism, *files, *map(str, arguments)]
        return CliRunner().invoke(app, asked)

    return run


def assert_refused(result: Any, *words: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.output
    for word in words:
        assert word in result.stderr


def there() -> list[str]:
    return sorted(one.name for one in Path().iterdir())


def test_proteins_and_their_table_are_written(call: Any) -> None:
    result = call("--genes", "Gad1,SST,Malat1", "-o", "proteins.fa")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[:2] == [
        "Plan: one protein for every gene of Gad1,SST,Malat1, from mouse.fasta",
        "  - 1 gene without a protein, no protein with this name: 'Malat1'.",
    ]
    ways = "2 reviewed, 1 by name, 1 by name in another case"
    said = f"Found proteins for 2 of 3 genes in mouse.fasta ({ways}) -> proteins.fa, proteins.tsv ("
    assert lines[2].startswith(said)
    assert result.stderr == ""
    assert [(one.name, one.sequence) for one in read_fasta("proteins.fa")] == [
        ("Gad1", "MASSTPSPAT"),
        ("SST", "MLSCRLQ"),
    ]
    table = pd.read_csv("proteins.tsv", sep="\t", keep_default_na=False)
    assert list(table["reason"]) == ["the only reviewed of 2", "the only one", "no protein with this name"]
    assert there() == ["mouse.fasta", "proteins.fa", "proteins.tsv"]


@pytest.mark.parametrize("kind", ["names", "list", "h5ad"])
def test_genes_from_datasets_lists_and_files(call: Any, tissue: Any, kind: str) -> None:
    data = tissue.st[:2, :2].copy()
    data.var_names = ["Gad1", "Sst"]
    data.write_h5ad("tissue.h5ad")
    Path("genes").write_text("Gad1\nSst\n")
    asked = {"names": "Gad1, Sst", "list": "genes", "h5ad": "tissue.h5ad"}[kind]
    result = call("--genes", asked, "-o", "p.fasta.gz", "--table", "t.parquet", "--quiet")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1
    assert [one.name for one in read_fasta("p.fasta.gz")] == ["Gad1", "Sst"]
    assert list(pd.read_parquet("t.parquet")["gene"]) == ["Gad1", "Sst"]


def test_a_long_list_of_genes_is_accepted(call: Any) -> None:
    names = ",".join(f"Gene{number}" for number in range(2000))  # longer than any path may be
    result = call("--genes", f"Gad1,{names}", "-o", "proteins.fa", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["missing"] == 2000


def test_as_json(call: Any, tmp_path: Path) -> None:
    result = call("--genes", "Gad1,Malat1", "-o", "proteins.fa.gz", "--json")
    record = json.loads(result.stdout)
    assert record.pop("seconds") >= 0
    record.pop("peak_bytes")
    assert record == {
        "command": "proteins",
        "output": str(tmp_path / "proteins.fa.gz"),
        "table": str(tmp_path / "proteins.tsv"),
        "taxon": 10090,
        "source": "mouse.fasta",
        "genes": 2,
        "found": 1,
        "missing": 1,
        "reviewed": 1,
        "exact": 1,
        "case": 0,
        "ensembl": 0,
        "synonym": 0,
        "genes_without": ["Malat1"],
        "cautions": ["1 gene without a protein, no protein with this name: 'Malat1'."],
    }


def test_outputs_are_only_replaced_on_request(call: Any) -> None:
    Path("proteins.tsv").write_text("earlier")
    asked = ("--genes", "Gad1", "-o", "proteins.fa")
    assert_refused(
        call(*asked), "proteins.tsv: ", "an existing output", "replace the existing output: --overwrite."
    )
    assert there() == ["mouse.fasta", "proteins.tsv"]
    assert call(*asked, "--overwrite").exit_code == 0
    Path("proteins.tsv").unlink()
    assert_refused(call(*asked), "proteins.fa: ", "an existing output")


@pytest.mark.parametrize(
    ("outputs", "fix"),
    [
        (("-o", "mouse.fasta"), "cellweft never changes its inputs"),
        (("-o", "p.fa", "--table", "genes.csv"), "cellweft never changes its inputs"),
        (("-o", "p.fa", "--table", "./p.fa"), "each output needs its own"),
    ],
)
def test_an_output_never_replaces_an_input_or_the_other_output(
    call: Any, outputs: tuple[str], fix: str
) -> None:
    Path("genes.csv").write_text("Gad1\n")
    assert_refused(
        call("--genes", "genes.csv", *outputs, "--overwrite"), "a separate path for each output", fix
    )
    assert Path("mouse.fasta").read_text() == PROTEOME
    assert there() == ["genes.csv", "mouse.fasta"]


@pytest.mark.parametrize(
    ("genes", "others", "words"),
    [
        ("Gad1", {"organism": "mous"}, ("organism: ", "Did you mean 'mouse'")),
        ("Gad1,Gad1", {}, ("'Gad1' more than once",)),
        ("nowhere.h5ad", {}, ("genes (nowhere.h5ad)", "nothing at this path")),
        ("./nowhere", {}, ("nothing at this path",)),
        (" , ", {}, ("unique genes, got none",)),
        ("Xist", {}, ("got no protein for any of 1: 'Xist'", "Check the organism")),
        ("Gad1", {"proteome": "muose.fasta"}, ("nothing at this path", "Did you mean 'mouse.fasta'")),
        ("Gad1", {"proteome": "page.fasta"}, ("a web page", "download the FASTA file itself")),
        (
            "Gad1",
            {"proteome": "strange.fasta"},
            ("protein 'sp|P1|X_MOUSE' (line 1)", "got '1' at position 3"),
        ),
        ("Gad1", {"organism": "rat"}, ("expected proteins of rat (taxon 10116), got 3 from others",)),
    ],
)
def test_bad_input(call: Any, genes: str, others: dict[str, str], words: tuple[str, ...]) -> None:
    Path("page.fasta").write_text("<!DOCTYPE html>")
    Path("strange.fasta").write_text(">sp|P1|X_MOUSE x GN=Gad1\nMA1\n")
    before = there()
    assert_refused(call("--genes", genes, "-o", "proteins.fa", **others), *words)
    assert there() == before


def test_offline_without_a_cache_says_what_to_do(call: Any) -> None:
    result = call(
        "--genes", "Gad1", "-o", "p.fa", "--offline", "--cache", "answers", proteome="", organism="human"
    )
    assert_refused(
        result,
        "cache (answers): expected cached UniProt responses for these genes of human (taxon 9606), got none",
        "https://rest.uniprot.org/uniprotkb/stream?format=fasta&compressed=true&query=organism_id:9606",
        "and pass the file: --proteome FILE.",
    )
    assert there() == ["mouse.fasta"]


def test_the_help_names_the_common_options() -> None:
    result = CliRunner().invoke(app, ["proteins", "--help"], env={"COLUMNS": "120"})
    assert result.exit_code == 0
    for option in (
        "--genes",
        "--organism",
        "--proteome",
        "--offline",
        "--cache",
        "--json",
        "--quiet",
        "--overwrite",
    ):
        assert option in result.stdout
