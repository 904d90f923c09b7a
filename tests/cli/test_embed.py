"""The command `cellweft embed`: its table, what it prints, its errors, and how it resumes."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import cellweft
import cellweft.genes.esm.model
from cellweft.cli import app
from cellweft.genes.esm.embedder import embed_proteins

transformers = pytest.importorskip("transformers")

PROTEINS = {"Gad1": "MASSTPSPATSSNAGADPNTTN", "Sst": "MLSCRLQCALAALCIVL", "Vip": "MEARSKPQFLAILTLFSVLFS"}
TOKENS = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: Any) -> Path:
    """Folder with a FASTA file and a random network with the architecture of ESM-2."""
    folder: Path = tmp_path_factory.mktemp("inputs")
    (folder / "proteins.fa").write_text(
        "".join(f">{name} of mice\n{one}\n" for name, one in PROTEINS.items())
    )
    config = transformers.EsmConfig(
        vocab_size=33,
        mask_token_id=32,
        pad_token_id=1,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        position_embedding_type="rotary",
        emb_layer_norm_before=False,
        token_dropout=True,
    )
    transformers.EsmModel(config, add_pooling_layer=False).save_pretrained(folder / "tiny")
    (folder / "tiny" / "vocab.txt").write_text("\n".join(TOKENS))
    return folder


@pytest.fixture
def call(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Function that runs `cellweft embed` on the proteins in an empty folder."""
    monkeypatch.chdir(tmp_path)
    # restored after the test; the command would set it for the whole process
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")

    def run(*arguments: Any, proteins: Path = inputs / "proteins.fa") -> Any:
        asked = ["embed", proteins, "-o", "esm.parquet", "--model", inputs / "tiny", *arguments]
        return CliRunner().invoke(app, [str(one) for one in asked])

    return run


def assert_refused(result: Any, *words: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ")
    for word in words:
        assert word in result.stderr


def test_the_command_writes_the_same_table_as_python(call: Any, inputs: Path, tmp_path: Path) -> None:
    result = call("--pooling", "max", "--layer", 0, "--window", 9, "--overlap", 2, "--tokens-per-batch", 30)
    assert result.exit_code == 0, result.output
    plan, last = result.stdout.splitlines()
    assert plan.startswith("Plan: 3 proteins (3 different), 99 tokens in 9 windows; ")
    assert last.startswith("Embedded 3 proteins, 16 numbers each -> esm.parquet (")
    assert result.stderr == ""
    read = cellweft.genes.read_embedding(tmp_path / "esm.parquet")
    made = embed_proteins(
        PROTEINS, model=str(inputs / "tiny"), pooling="max", layer=0, window=9, overlap=2, tokens_per_batch=30
    )
    np.testing.assert_array_equal(read.values, made.values)
    assert read.metadata == made.metadata
    assert [one.name for one in tmp_path.iterdir()] == ["esm.parquet"]


def test_as_json_and_quiet(call: Any, tmp_path: Path) -> None:
    result = call("--dtype", "float16", "--precision", "bfloat16", "--offline", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["command"], found["proteins"], found["dimensions"]) == ("embed", 3, 16)
    assert found["output"] == str(tmp_path / "esm.parquet")
    assert found["plan"]["precision"] == "bfloat16"
    assert re.fullmatch("sha256:[0-9a-f]{16}", found["plan"]["revision"])
    quiet = call("--quiet", "--overwrite")
    assert quiet.stdout.count("\n") == 1
    assert cellweft.genes.read_embedding("esm.parquet").metadata["dtype"] == "float32"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "./nowhere"], ("model ./nowhere", "nothing at this path")),
        (["--revision", "main"], ("revision", "is a folder")),
        (["--layer", "2"], ("layer: expected a whole number from -2 to 1", "got 2")),
        (["--window", "0"], ("window",)),
        (["--overlap", "2000"], ("overlap: expected a whole number from 0 to 1021",)),
        (["--device", "abacus"], ("device", "'abacus'")),
        (["-o", "esm.csv"], ("a name ending in .parquet",)),
        (["-o", "no/such/esm.parquet"], ("mkdir -p",)),
    ],
)
def test_bad_options(call: Any, tmp_path: Path, arguments: list[str], words: tuple[str, ...]) -> None:
    assert_refused(call(*arguments), *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no FASTA", ("bad.fa: expected a FASTA file of proteins", "starts with 'no FASTA'")),
        (">Gad1\n>Sst\nMLS\n", ("a sequence for every header", "'Gad1'")),
        (">Gad1\nMLS#\n", ("only amino acids", "'#' at position 4")),
        (">Gad1\nMLS\n>Gad1\nMLS\n", ("each name once", "'Gad1' more than once")),
    ],
)
def test_bad_proteins(call: Any, tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    (tmp_path / "bad.fa").write_text(text)
    assert_refused(call(proteins=tmp_path / "bad.fa"), *words)
    assert [one.name for one in tmp_path.iterdir()] == ["bad.fa"]
    assert_refused(call(proteins=tmp_path / "missing.fa"), "missing.fa", "nothing at this path")


def test_an_existing_output_or_folder_is_refused(call: Any, tmp_path: Path) -> None:
    (tmp_path / "esm.parquet").write_text("earlier")
    assert_refused(call(), "an existing output", "--overwrite")
    (tmp_path / "esm.parquet").unlink()
    (tmp_path / "esm.parquet.parts").mkdir()
    (tmp_path / "esm.parquet.parts" / "mine.txt").write_text("")
    assert_refused(call(), "esm.parquet.parts", "a folder with 'mine.txt'")


def test_an_interrupt_says_what_is_kept_and_the_same_command_resumes(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    residues, seen = cellweft.genes.esm.model.ProteinModel.residues, []

    def interrupted(self: Any, sequences: Any) -> Any:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(list(sequences))
        return residues(self, sequences)

    with monkeypatch.context() as patched:
        patched.setattr(cellweft.genes.esm.model.ProteinModel, "residues", interrupted)
        result = call("--tokens-per-batch", 1)
    assert result.exit_code == 130
    assert result.stderr == (
        f"Interrupted; finished proteins are in {tmp_path / 'esm.parquet.parts'}. "
        "Run the same command again to resume.\n"
    )
    again = call("--tokens-per-batch", 1)
    assert again.exit_code == 0, again.output
    assert "3 proteins (3 different, 2 of them already embedded), 19 tokens in 1 window;" in again.stdout
    assert [one.name for one in tmp_path.iterdir()] == ["esm.parquet"]
