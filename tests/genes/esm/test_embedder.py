"""Protein embeddings: equal to one protein at a time, resumed runs, models from a hub, and errors."""

# ruff: noqa: PD011 - tables of embeddings are no data frames

import copy
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cellweft.genes.esm.model
from cellweft._errors import (
    FormatError,
    GeneError,
    InputError,
    MemoryBudgetError,
    MissingExtraError,
    MissingFileError,
    OutputError,
    OutputExistsError,
    SettingError,
)
from cellweft.genes.embeddings import read_embedding
from cellweft.genes.esm.embedder import ProteinEmbedder, embed_proteins, work_folder
from cellweft.genes.esm.hub import find_model
from cellweft.genes.esm.model import load_model, spans
from cellweft.genes.proteins.fasta import FastaRecord

transformers = pytest.importorskip("transformers")

ALPHABET = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>"]
"""The letters of ESM-2, in the order of their tokens."""
SHAPE = {
    "vocab_size": 33,
    "mask_token_id": 32,
    "pad_token_id": 1,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "position_embedding_type": "rotary",
    "emb_layer_norm_before": False,
    "token_dropout": True,
    "layer_norm_eps": 1e-5,
    "initializer_range": 0.3,  # so that residues and proteins differ by far more than rounding
}
TOLERANCE = 1e-5
"""For float32: batches of other shapes are summed in another order."""
LETTERS = "ACDEFGHIKLMNPQRSTVWYXBUZO"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def save_model(folder: Path, **changes: Any) -> Path:
    """Save a random network with the architecture of ESM-2 and its tokenizer, like a folder of the Hub."""
    folder.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = transformers.EsmForMaskedLM(transformers.EsmConfig(**SHAPE | changes))
    network.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(ALPHABET))
    transformers.EsmTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: Any) -> Path:
    """Folder of a model with two layers; tests must not change it."""
    return save_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def broken(tiny: Path, tmp_path: Path) -> Path:
    """Copy of that folder, which tests may damage."""
    return Path(shutil.copytree(tiny, tmp_path / "broken"))


@pytest.fixture
def read_windows(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Record the sequences that the network reads, batch by batch."""
    seen: list[list[str]] = []
    residues = cellweft.genes.esm.model.ProteinModel.residues

    def counted(self: Any, sequences: Any) -> torch.Tensor:
        seen.append(list(sequences))
        return residues(self, sequences)

    monkeypatch.setattr(cellweft.genes.esm.model.ProteinModel, "residues", counted)
    return seen


def names_in(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def flat(batches: list[list[str]]) -> list[str]:
    return [one for batch in batches for one in batch]


def some_proteins(seed: int = 0, lengths: tuple[int, ...] = (30, 7, 55, 1, 7, 41, 18)) -> dict[str, str]:
    random = np.random.default_rng(seed)
    return {
        f"Gene{number}": "".join(random.choice(list(LETTERS), size=length))
        for number, length in enumerate(lengths)
    }


def one_by_one(
    folder: Path, proteins: dict[str, str], *, pooling: str = "mean", layer: int = -1, **windows: int
) -> np.ndarray:
    """Embed each protein by itself, in float64, with the tokenizer and the hidden states of transformers."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    network = transformers.EsmModel.from_pretrained(folder, add_pooling_layer=False).eval().double()
    vectors = []
    for sequence in proteins.values():
        of_residue: list[list[Any]] = [[] for _ in sequence]
        starts = []
        for start, stop in spans(len(sequence), **({"window": 1022, "overlap": 256} | windows)):
            tokens = tokenizer(sequence[start:stop], return_tensors="pt")
            with torch.no_grad():
                states = network(**tokens, output_hidden_states=True).hidden_states[layer][0].numpy()
            starts.append(states[0])
            for place, state in zip(range(start, stop), states[1:-1], strict=True):
                of_residue[place].append(state)
        residues = np.array([np.mean(states, axis=0) for states in of_residue])
        pooled = {"mean": residues.mean(axis=0), "max": residues.max(axis=0), "cls": np.mean(starts, axis=0)}
        vectors.append(pooled[pooling])
    return np.array(vectors)


class TestValues:
    @pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
    @pytest.mark.parametrize("windows", [{}, {"window": 16, "overlap": 5}])
    def test_batches_give_the_same_as_one_protein_at_a_time(
        self, tiny: Path, pooling: Any, windows: dict[str, int]
    ) -> None:
        proteins = some_proteins()
        table = embed_proteins(proteins, model=str(tiny), pooling=pooling, tokens_per_batch=70, **windows)
        assert table.genes.tolist() == list(proteins)
        assert table.values.dtype == np.float32
        expected = one_by_one(tiny, proteins, pooling=pooling, **windows)
        np.testing.assert_allclose(table.values, expected, atol=TOLERANCE)
        assert np.ptp(expected, axis=0).max() > 0.1  # otherwise the test would prove little

    @pytest.mark.slow
    @settings(max_examples=12, deadline=None)
    @given(
        seed=st.integers(0, 99),
        lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6),
        tokens=st.integers(1, 200),
        window=st.integers(5, 30),
        overlap=st.integers(0, 4),
    )
    def test_a_vector_depends_only_on_its_sequence(
        self, tiny: Path, seed: int, lengths: list[int], tokens: int, window: int, overlap: int
    ) -> None:
        proteins = some_proteins(seed, tuple(lengths))
        embedder = ProteinEmbedder(
            model=str(tiny), window=window, overlap=overlap, tokens_per_batch=tokens, device="cpu"
        )
        together = embedder.embed(proteins)
        backwards = embedder.embed(dict(reversed(proteins.items())))
        np.testing.assert_allclose(together.values, backwards.values[::-1], atol=TOLERANCE)
        name = next(iter(proteins))
        alone = embedder.embed({name: proteins[name]})
        np.testing.assert_allclose(together.values[:1], alone.values, atol=TOLERANCE)

    @pytest.mark.parametrize("layer", [0, 1, 2, -1, -2, -3])
    def test_layers(self, tiny: Path, layer: int) -> None:
        proteins = some_proteins()
        table = embed_proteins(proteins, model=str(tiny), layer=layer)
        np.testing.assert_allclose(
            table.values, one_by_one(tiny, proteins, layer=layer), atol=TOLERANCE, rtol=TOLERANCE
        )
        assert table.metadata["layer"] == str(layer % 3)

    def test_identical_sequences_are_read_once(self, tiny: Path, read_windows: Any) -> None:
        table = embed_proteins({"A": "MASST", "B": "MKT", "C": "masst*"}, model=str(tiny))
        assert sorted(flat(read_windows)) == ["MASST", "MKT"]
        np.testing.assert_array_equal(table.values[0], table.values[2])

    def test_records_a_file_and_a_mapping_give_the_same_table(self, tiny: Path, tmp_path: Path) -> None:
        proteins = some_proteins()
        records = [FastaRecord(name=name, description="", sequence=one) for name, one in proteins.items()]
        path = tmp_path / "proteins.fa"
        path.write_text("".join(f">{name} about it\n{one}\n" for name, one in proteins.items()))
        tables = [embed_proteins(one, model=str(tiny)) for one in (proteins, records, path, str(path))]
        for table in tables:
            np.testing.assert_array_equal(table.values, tables[0].values)

    def test_bfloat16_equals_autocast_of_float32_weights(self, tiny: Path) -> None:
        sequences = list(some_proteins().values())
        source, device = find_model(str(tiny)), torch.device("cpu")
        half = load_model(source, layer=2, device=device, is_bfloat16=True)
        full = load_model(source, layer=2, device=device)
        made = half.residues(sequences)
        object.__setattr__(full, "is_bfloat16", True)  # float32 weights, under autocast
        assert torch.equal(made, full.residues(sequences))
        assert half.network.encoder.layer[0].intermediate.dense.weight.dtype == torch.bfloat16

    def test_bfloat16_is_near_float32(self, tiny: Path) -> None:
        near = embed_proteins(some_proteins(), model=str(tiny), precision="bfloat16")
        exact = embed_proteins(some_proteins(), model=str(tiny), precision="float32")
        assert near.metadata["precision"] == "bfloat16"
        cosine = (near.values * exact.values).sum(axis=1) / (
            np.linalg.norm(near.values, axis=1) * np.linalg.norm(exact.values, axis=1)
        )
        assert cosine.min() > 0.999
        assert np.abs(near.values - exact.values).max() < 0.05

    def test_weights_are_frozen_and_the_global_random_state_is_unchanged(self, broken: Path) -> None:
        drop_weights(broken, "contact_head")  # initialised at random, and never used
        before = torch.get_rng_state()
        model = load_model(find_model(str(broken)), layer=2, device=torch.device("cpu"))
        assert torch.equal(torch.get_rng_state(), before)
        assert not model.network.training
        assert not any(one.requires_grad for one in model.network.parameters())
        assert model.residues(["MASST"]).is_inference()

    def test_every_letter_has_the_token_of_the_tokenizer(self, tiny: Path) -> None:
        model = load_model(find_model(str(tiny)), layer=2, device=torch.device("cpu"))
        assert [ALPHABET[model.tokens[ord(one)]] for one in LETTERS] == list(LETTERS)
        assert (ALPHABET[model.first], ALPHABET[model.last]) == ("<cls>", "<eos>")
        assert ALPHABET[model.padding] == "<pad>"

    @pytest.mark.gpu
    def test_values_on_a_gpu(self, tiny: Path) -> None:
        proteins = some_proteins()
        exact = embed_proteins(proteins, model=str(tiny), device="cuda", precision="float32")
        np.testing.assert_allclose(exact.values, one_by_one(tiny, proteins), atol=TOLERANCE)
        near = embed_proteins(proteins, model=str(tiny), device="cuda")
        assert near.metadata["precision"] == "bfloat16"
        np.testing.assert_allclose(near.values, exact.values, atol=0.05)


class TestTable:
    def test_the_file_is_read_back_unchanged(self, tiny: Path, tmp_path: Path) -> None:
        proteins = some_proteins()
        embedder = ProteinEmbedder(model=str(tiny), pooling="max", window=20, overlap=3)
        path = embedder.embed_to(proteins, tmp_path / "esm.parquet")
        read, made = read_embedding(path), embedder.embed(proteins)
        assert read.genes.tolist() == list(proteins)
        np.testing.assert_array_equal(read.values, made.values)
        assert read.metadata == made.metadata
        expected = {
            "model": str(tiny),
            "layer": "2",
            "pooling": "max",
            "dtype": "float32",
            "precision": "float32",
            "window": "20",
            "overlap": "3",
            "cellweft_version": cellweft.__version__,
            "transformers_version": transformers.__version__,
        }
        assert expected.items() <= read.metadata.items()
        assert re.fullmatch("sha256:[0-9a-f]{16}", read.metadata["revision"])
        assert names_in(tmp_path) == ["esm.parquet"]

    def test_float16_halves_the_file_and_is_rounded_in_memory_too(self, tiny: Path, tmp_path: Path) -> None:
        half = ProteinEmbedder(model=str(tiny), dtype="float16")
        read = read_embedding(half.embed_to(some_proteins(), tmp_path / "half.parquet"))
        made, full = half.embed(some_proteins()), embed_proteins(some_proteins(), model=str(tiny))
        np.testing.assert_array_equal(read.values, made.values)
        np.testing.assert_array_equal(made.values, full.values.astype(np.float16))
        assert set(pd.read_parquet(tmp_path / "half.parquet").dtypes) == {np.dtype(np.float16)}
        assert read.metadata["dtype"] == "float16"

    def test_values_too_large_for_float16_are_refused(self, broken: Path) -> None:
        scale_weights(broken, "emb_layer_norm_after.weight", 1e6)
        with pytest.raises(SettingError, match=r"^dtype: expected numbers up to 65,504.*Use float32\."):
            embed_proteins(some_proteins(), model=str(broken), dtype="float16")

    def test_the_plan(self, tiny: Path, tmp_path: Path) -> None:
        embedder = ProteinEmbedder(model=str(tiny), window=16, overlap=4, device="cpu")
        proteins = {"A": "M" * 5, "B": "M" * 5, "C": "K" * 20}
        plan = embedder.plan(proteins, work_dir=tmp_path / "parts")
        assert (plan.n_proteins, plan.n_different, plan.n_finished, plan.n_windows) == (3, 2, 0, 3)
        assert plan.n_tokens == 7 + 2 * 18
        assert (plan.layer, plan.n_dimensions, plan.precision, plan.device) == (2, 32, "float32", "cpu")
        embedder.embed({"A": "M" * 5}, work_dir=tmp_path / "parts")
        later = embedder.plan(proteins, work_dir=tmp_path / "parts")
        assert (later.n_finished, later.n_windows) == (1, 2)
        assert "3 proteins (2 different, 1 of them already embedded), 36 tokens in 2 windows" in str(later)
        assert re.search(r"layer 2, 32 numbers each; float32 on cpu; peak memory about \d+ MB", str(plan))


class InterruptedHereError(Exception):
    """Raised by tests in the middle of the work."""


def stop_after(batches: int) -> Callable[[str, int, int], None]:
    calls = iter(range(batches))  # the first call comes before any batch

    def progress(_stage: str, _done: int, _total: int) -> None:
        if next(calls, None) is None:
            raise InterruptedHereError

    return progress


class TestGoingOn:
    @pytest.mark.parametrize("batches", [1, 3])
    def test_a_resumed_run_repeats_nothing_and_loses_nothing(
        self, tiny: Path, tmp_path: Path, read_windows: list[list[str]], batches: int
    ) -> None:
        proteins = some_proteins(lengths=(30, 60, 12, 25, 25, 9, 31, 14))
        embedder = ProteinEmbedder(model=str(tiny), tokens_per_batch=64)
        output = tmp_path / "esm.parquet"
        with pytest.raises(InterruptedHereError):
            embedder.embed_to(proteins, output, progress=stop_after(batches))
        assert len(read_windows) == batches
        assert names_in(tmp_path) == ["esm.parquet.parts"]
        finished = len(flat(read_windows))
        told: list[tuple[int, int]] = []
        embedder.embed_to(proteins, output, progress=lambda _, *counts: told.append(counts))
        assert sorted(flat(read_windows)) == sorted(proteins.values())  # each of them once
        assert told[0] == (finished, 8)
        assert told[-1] == (8, 8)
        assert names_in(tmp_path) == ["esm.parquet"]
        np.testing.assert_allclose(
            read_embedding(output).values, embedder.embed(proteins).values, atol=TOLERANCE
        )

    def test_a_protein_in_many_windows(self, tiny: Path, tmp_path: Path, read_windows: Any) -> None:
        # The first protein fills three batches; an incomplete protein is not kept.
        proteins = some_proteins(lengths=(100, 10, 10))
        embedder = ProteinEmbedder(model=str(tiny), window=10, overlap=2, tokens_per_batch=60, pooling="max")
        with pytest.raises(InterruptedHereError):
            embedder.embed_to(proteins, tmp_path / "esm.parquet", progress=stop_after(2))
        assert [len(batch) for batch in read_windows] == [5, 5]
        embedder.embed_to(proteins, tmp_path / "esm.parquet")
        expected = one_by_one(tiny, proteins, pooling="max", window=10, overlap=2)
        np.testing.assert_allclose(read_embedding(tmp_path / "esm.parquet").values, expected, atol=TOLERANCE)

    def test_vectors_of_other_settings_are_never_reused(
        self, tiny: Path, tmp_path: Path, read_windows: list[list[str]]
    ) -> None:
        other_model = save_model(tmp_path / "other", initializer_range=0.2)
        own = {"model": str(tiny), "window": 50, "overlap": 5}
        changes = [
            {},
            {"model": str(other_model)},
            {"layer": 1},
            {"pooling": "max"},
            {"precision": "bfloat16"},
            {"window": 49},
            {"overlap": 6},
        ]
        for n_done, change in enumerate(changes):
            assert len(read_windows) == n_done
            embed_proteins({"A": "MASST"}, work_dir=tmp_path / "parts", **(own | change))
        embed_proteins({"B": "MASST"}, work_dir=tmp_path / "parts", **own, dtype="float16", layer=2)
        assert len(read_windows) == len(changes)

    def test_a_copy_of_the_same_model_resumes(
        self, tiny: Path, broken: Path, tmp_path: Path, read_windows: list[list[str]]
    ) -> None:
        for folder in (tiny, broken):
            embed_proteins({"A": "MASST"}, model=str(folder), work_dir=tmp_path / "parts")
        assert len(read_windows) == 1

    def test_if_the_output_cannot_be_written_nothing_is_lost(
        self, tiny: Path, tmp_path: Path, read_windows: list[list[str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        embedder, output = ProteinEmbedder(model=str(tiny)), tmp_path / "esm.parquet"

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr("pyarrow.parquet.write_table", full)
            with pytest.raises(OutputError, match="No space left"):
                embedder.embed_to(some_proteins(), output)
        assert names_in(tmp_path) == ["esm.parquet.parts"]
        assert len(read_windows) == 1
        embedder.embed_to(some_proteins(), output)
        assert len(read_windows) == 1
        assert names_in(tmp_path) == ["esm.parquet"]

    @pytest.mark.slow
    def test_a_killed_process_resumes(self, tiny: Path, tmp_path: Path, read_windows: Any) -> None:
        proteins = some_proteins(lengths=(30, 60, 12, 25, 25, 9))
        script = f"""
import os, signal
from cellweft.genes.esm.embedder import ProteinEmbedder
calls = iter(range(3))
def progress(*_):
    if next(calls, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
embedder = ProteinEmbedder(model={str(tiny)!r}, tokens_per_batch=64)
embedder.embed_to({proteins!r}, {str(tmp_path / "esm.parquet")!r}, progress=progress)
"""
        run = subprocess.run([sys.executable, "-c", script], env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert run.returncode == -signal.SIGKILL
        parts = list((tmp_path / "esm.parquet.parts").glob("part-*.npz"))
        assert len(parts) == 3
        kept = sum(len(np.load(one)["keys"]) for one in parts)
        embedder = ProteinEmbedder(model=str(tiny), tokens_per_batch=64)
        embedder.embed_to(proteins, tmp_path / "esm.parquet")
        assert len(flat(read_windows)) == len(proteins) - kept
        assert names_in(tmp_path) == ["esm.parquet"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("proteins", "kind", "match"),
        [
            ({}, InputError, r"^proteins: expected at least one protein, got none"),
            ({"A": "M", "B": " "}, InputError, r"a sequence for every name, got none for 'B'"),
            ({"A": "MK-LV"}, InputError, r"^proteins, 'A': expected amino acid letters.*'-' at position 3"),
            ({"A": "MKJLV"}, InputError, r"'J' at position 3"),
            (
                [FastaRecord(name="Gad1", description="", sequence=one) for one in ("MK", "ML")],
                GeneError,
                r"each name once, got 'Gad1' more than once.*cellweft.genes.find_proteins",
            ),
        ],
    )
    def test_proteins(self, tiny: Path, proteins: Any, kind: Any, match: str) -> None:
        with pytest.raises(kind, match=match):
            embed_proteins(proteins, model=str(tiny))

    @pytest.mark.parametrize(
        ("text", "match"),
        [
            ("gene,sequence\nGad1,MASST\n", r"a FASTA file of proteins, got a file that starts with 'gene,"),
            (">Gad1\nMASST\n>Sst\n>Vip\nMK\n", r"a sequence for every header, got none for 'Sst'"),
            (">Gad1\nMAS1T\n", r"'Gad1'.*only amino acids, got '1' at position 4"),
            (">Gad1\nMASST\n>Gad1\nMASST\n", r"proteins\.fa: expected each name once, got 'Gad1'"),
        ],
    )
    def test_files(self, tiny: Path, tmp_path: Path, text: str, match: str) -> None:
        path = tmp_path / "proteins.fa"
        path.write_text(text)
        with pytest.raises(InputError, match=match):
            ProteinEmbedder(model=str(tiny)).embed_to(path, tmp_path / "esm.parquet")
        assert names_in(tmp_path) == ["proteins.fa"]

    @pytest.mark.parametrize(
        ("settings", "match"),
        [
            ({"pooling": "sum"}, r"^pooling: expected one of 'mean', 'cls', 'max', got 'sum'"),
            ({"dtype": "float64"}, r"^dtype: expected one of"),
            ({"precision": "float16"}, r"^precision: expected one of"),
            ({"layer": 3}, r"^layer: expected a whole number from -3 to 2, the layers of .*got 3"),
            ({"layer": -4}, r"^layer: .*got -4"),
            ({"layer": 1.5}, r"^layer: expected a whole number"),
            ({"window": 0}, r"^window: expected a whole number >= 1"),
            ({"window": 8, "overlap": 8}, r"^overlap: expected a whole number from 0 to 7, got 8"),
            ({"tokens_per_batch": 0}, r"^tokens_per_batch: expected a whole number >= 1"),
            ({"device": "abacus"}, r"^device: expected 'auto' or a device"),
            ({"revision": "main"}, r"^revision: expected none, as .* is a folder, got 'main'"),
        ],
    )
    def test_settings(self, tiny: Path, settings: dict[str, Any], match: str) -> None:
        with pytest.raises(SettingError, match=match):
            embed_proteins({"A": "MASST"}, model=str(tiny), **settings)

    def test_an_existing_output_is_refused_before_any_work(self, tiny: Path, tmp_path: Path) -> None:
        output = tmp_path / "esm.parquet"
        output.write_text("earlier")
        embedder = ProteinEmbedder(model=str(tiny))
        with pytest.raises(OutputExistsError, match=r"an existing output.*overwrite=True"):
            embedder.embed_to("missing.fa", output)
        embedder.embed_to({"A": "MASST"}, output, overwrite=True)
        assert read_embedding(output).genes.tolist() == ["A"]
        with pytest.raises(SettingError, match=r"a name ending in \.parquet, got '\.csv'"):
            embedder.embed_to({"A": "MASST"}, tmp_path / "esm.csv")

    def test_a_damaged_work_folder(self, tiny: Path, tmp_path: Path) -> None:
        embedder, output = ProteinEmbedder(model=str(tiny), tokens_per_batch=40), tmp_path / "esm.parquet"
        with pytest.raises(InterruptedHereError):
            embedder.embed_to(some_proteins(), output, progress=stop_after(3))
        parts = sorted(work_folder(output).glob("part-*"))
        parts[0].write_bytes(parts[0].read_bytes()[:-40])
        with pytest.raises(
            FormatError,
            match=rf"{parts[0].name}: expected an intact file of an earlier run.*Remove this file",
        ):
            embedder.embed_to(some_proteins(), output)
        parts[0].unlink()  # as the message advises
        embedder.embed_to(some_proteins(), output)
        expected = one_by_one(tiny, some_proteins())
        np.testing.assert_allclose(read_embedding(output).values, expected, atol=TOLERANCE)

    def test_out_of_memory(self, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise torch.OutOfMemoryError

        monkeypatch.setattr(cellweft.genes.esm.model.ProteinModel, "residues", full)
        with pytest.raises(
            MemoryBudgetError, match=r"^a batch of 399 tokens: .*memory of cpu.*tokens_per_batch="
        ):
            embed_proteins(some_proteins(), model=str(tiny), device="cpu")

    def test_without_transformers(self, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "transformers", None)
        with pytest.raises(MissingExtraError, match=r'^transformers: .*pip install "cellweft\[esm\]"'):
            embed_proteins({"A": "MASST"}, model=str(tiny))


def drop_weights(folder: Path, part: str) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    save_file(
        {name: one for name, one in load_file(path).items() if part not in name}, path, {"format": "pt"}
    )


def scale_weights(folder: Path, part: str, factor: float) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    scaled = {name: one * (factor if part in name else 1) for name, one in load_file(path).items()}
    save_file(scaled, path, {"format": "pt"})


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def remove(folder: Path, name: str) -> None:
    (folder / name).unlink()


DAMAGED_MODELS: dict[str, tuple[Callable[[Path], object], Any, str]] = {
    "no config": (lambda one: remove(one, "config.json"), MissingFileError, "no config.json, but 'model.saf"),
    "no weights": (lambda one: remove(one, "model.safetensors"), MissingFileError, "no 'model.safetensors'"),
    "no vocabulary": (lambda one: remove(one, "vocab.txt"), MissingFileError, "no 'vocab.txt'"),
    "JSON": (
        lambda one: change_config(one, model_type="bert"),
        FormatError,
        r"an ESM model, got a model of type 'bert'\. Use one of 'facebook/esm2_t6_8M_UR50D'",
    ),
    "esmfold": (lambda one: change_config(one, is_folding_model=True), FormatError, "of type 'esmfold'"),
    "no shape": (
        lambda one: change_config(one, hidden_size=None),
        FormatError,
        "no whole number for 'hidden_size'",
    ),
    "config cut off": (
        lambda one: (one / "config.json").write_text('{"model_type": "esm'),
        FormatError,
        r"config\.json: expected a model file, got JSONDecodeError",
    ),
    "config in another format": (
        lambda one: (one / "config.json").write_text("[]"),
        FormatError,
        "JSON of another structure",
    ),
    "weights cut off": (
        lambda one: (one / "model.safetensors").write_bytes((one / "model.safetensors").read_bytes()[:-99]),
        FormatError,
        "the files of an ESM model, got SafetensorError",
    ),
    "weights lacking": (
        lambda one: drop_weights(one, "layer.1.output"),
        FormatError,
        r"all weights of the network, got none for '(esm\.)?encoder\.layer\.1\.output",
    ),
    "a different vocabulary": (
        lambda one: (one / "vocab.txt").write_text("\n".join(ALPHABET[:-9])),
        FormatError,
        "a vocabulary with one token for each of ABC",
    ),
    "NaN": (lambda one: scale_weights(one, "word_emb", float("nan")), FormatError, "finite numbers from its"),
    "shard lacking": (
        lambda one: (
            (one / "model.safetensors").rename(one / "model-00001-of-00002.safetensors"),
            (one / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "model-00001-of-00002.safetensors", '
                '"b": "model-00002-of-00002.safetensors"}}'
            ),
        ),
        MissingFileError,
        "no 'model-00002-of-00002.safetensors'.*existing files are kept",
    ),
}


class TestModels:
    @pytest.mark.parametrize("name", DAMAGED_MODELS)
    def test_a_damaged_folder(self, broken: Path, name: str) -> None:
        damage, kind, match = DAMAGED_MODELS[name]
        damage(broken)
        with pytest.raises(kind, match=match):
            embed_proteins({"A": "MASST"}, model=str(broken))

    @pytest.mark.parametrize("model", ["./nowhere", "~/nowhere", "a/b/c", "C:\\models"])
    def test_a_path_that_does_not_exist(self, model: str) -> None:
        with pytest.raises(MissingFileError, match=r"^model .*nothing at this path.*config\.json"):
            embed_proteins({"A": "MASST"}, model=model)

    def test_a_file_and_an_empty_folder(self, tmp_path: Path) -> None:
        (tmp_path / "esm2.pt").write_bytes(b"\x80")
        (tmp_path / "empty").mkdir()
        with pytest.raises(MissingFileError, match=r"a folder with the files of a model.*got a file"):
            embed_proteins({"A": "MASST"}, model=str(tmp_path / "esm2.pt"))
        with pytest.raises(MissingFileError, match=r"got an empty folder"):
            embed_proteins({"A": "MASST"}, model=str(tmp_path / "empty"))

    def test_pickled_weights_in_shards_are_read_without_unpickling_code(
        self, tiny: Path, broken: Path
    ) -> None:
        from safetensors.torch import load_file

        weights = load_file(broken / "model.safetensors")
        (broken / "model.safetensors").unlink()
        names = sorted(weights)
        shards = {
            "pytorch_model-00001-of-00002.bin": names[::2],
            "pytorch_model-00002-of-00002.bin": names[1::2],
        }
        for shard, own in shards.items():
            torch.save({name: weights[name] for name in own}, broken / shard)
        weight_map = {name: shard for shard, own in shards.items() for name in own}
        index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
        (broken / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        table = embed_proteins(some_proteins(), model=str(broken))
        np.testing.assert_array_equal(table.values, embed_proteins(some_proteins(), model=str(tiny)).values)

    def test_models_with_limited_positions(self, tmp_path: Path) -> None:
        # As in ESM-1b: the longest window that the network can read works, and one residue more is refused.
        model = save_model(tmp_path / "esm1", position_embedding_type="absolute", max_position_embeddings=30)
        most = find_model(str(model)).most_residues
        proteins = some_proteins(lengths=(most, most + 7))
        table = embed_proteins(proteins, model=str(model), window=most, overlap=2)
        expected = one_by_one(model, proteins, window=most, overlap=2)
        np.testing.assert_allclose(table.values, expected, atol=TOLERANCE)
        with pytest.raises(SettingError, match=rf"^window: expected at most {most} residues.*got {most + 1}"):
            embed_proteins(proteins, model=str(model), window=most + 1, overlap=2)

    def test_the_number_of_parameters_of_the_published_model(self, broken: Path) -> None:
        shape = {"hidden_size": 2560, "num_hidden_layers": 36, "intermediate_size": 10240}
        change_config(broken, **shape)
        source = find_model(str(broken))
        assert (source.n_layers, source.n_dimensions) == (36, 2560)
        assert source.n_parameters == pytest.approx(2.84e9, rel=0.01)


class Hub:
    """A server that answers like the Hugging Face Hub for a single model, `lab/tiny`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cuts: list[int] = []  # byte positions at which the next downloads of weights break off
        self.requests: list[str] = []
        self.sent: Counter[str] = Counter()  # bytes of each file

        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, handler: Any, *, body: bool) -> None:
        path = handler.path.partition("?")[0]
        self.requests.append(f"{handler.command} {path}")
        found = re.fullmatch(r"/(?:api/models/)?lab/tiny/(revision|tree|resolve)/(\w+)/?(.*)", path)
        if found is None:
            return self.send(handler, 401, b"{}", {"X-Error-Code": "RepoNotFound"}, body=body)
        kind, revision, name = found.groups()
        if revision not in ("main", COMMIT):
            return self.send(handler, 404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body=body)
        files = sorted(one for one in self.folder.iterdir())
        if kind == "revision":
            answer = {"id": "lab/tiny", "sha": COMMIT, "siblings": [{"rfilename": one.name} for one in files]}
        elif kind == "tree":
            answer = [
                {"type": "file", "path": one.name, "size": one.stat().st_size, "oid": one.name}
                for one in files
            ]
        else:
            return self.send_file(handler, self.folder / name, body=body)
        return self.send(
            handler, 200, json.dumps(answer).encode(), {"Content-Type": "application/json"}, body=body
        )

    def send_file(self, handler: Any, path: Path, *, body: bool) -> None:
        content = path.read_bytes()
        head = {"ETag": f'"{path.name}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range") or "")
        start = int(asked[1]) if asked else 0
        if asked:
            head["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cut = self.cuts.pop(0) if self.cuts and path.suffix == ".safetensors" and body else len(content)
        self.sent[path.name] += body * max(0, cut - start)
        handler.close_connection = cut < len(content)
        self.send(handler, 206 if asked else 200, content[start:], head, body=body, upto=max(0, cut - start))

    def send(
        self,
        handler: Any,
        status: int,
        content: bytes,
        head: dict[str, str],
        *,
        body: bool,
        upto: int | None = None,
    ) -> None:
        handler.send_response(status)
        for name, value in (head | {"Content-Length": str(len(content))}).items():
            handler.send_header(name, value)
        handler.end_headers()
        if body:
            handler.wfile.write(content[:upto])
            handler.wfile.flush()


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no response from the Hub; gives the cache."""
    constants = pytest.importorskip("huggingface_hub.constants")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def hub(tiny: Path, no_hub: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with the tiny model, and an empty cache."""
    served = Hub(tiny)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.address)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        served.address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    yield served
    served.stop()


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry without waiting, in pieces far smaller than the Hub's ten megabytes."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)


class TestHub:
    def test_a_model_is_downloaded_once_and_then_needs_no_network(
        self, hub: Hub, tiny: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = embed_proteins(some_proteins(), model="lab/tiny")
        assert made.metadata["model"] == "lab/tiny"
        assert made.metadata["revision"] == COMMIT
        np.testing.assert_array_equal(made.values, embed_proteins(some_proteins(), model=str(tiny)).values)
        asked = len(hub.requests)
        again = embed_proteins(some_proteins(), model="lab/tiny", offline=True)
        assert len(hub.requests) == asked
        assert again.metadata == made.metadata
        hub.stop()
        assert embed_proteins(some_proteins(), model="lab/tiny").metadata == made.metadata
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        assert embed_proteins(some_proteins(), model="lab/tiny").metadata == made.metadata

    def test_a_model_that_does_not_exist(self, hub: Hub) -> None:
        with pytest.raises(
            SettingError,
            match=r"^model esm2_t33_650M_UR50D: .*a name that is neither\. Did you mean 'facebook/",
        ):
            embed_proteins({"A": "MASST"}, model="esm2_t33_650M_UR50D")

    def test_an_invalid_name_of_a_model(self, hub: Hub) -> None:
        with pytest.raises(SettingError, match=r"^model ESM 2!: expected a model on the Hugging Face Hub"):
            embed_proteins({"A": "MASST"}, model="ESM 2!")
        assert not hub.requests

    def test_a_revision_that_does_not_exist(self, hub: Hub) -> None:
        with pytest.raises(
            SettingError, match=r"^revision: expected a branch, tag or commit of lab/tiny, got 'v9'"
        ):
            embed_proteins({"A": "MASST"}, model="lab/tiny", revision="v9")

    @pytest.mark.parametrize("way", ["no network", "offline", "environment"])
    def test_offline_with_an_empty_cache(
        self, no_hub: Path, way: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if way == "environment":
            monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        why = "no response from the Hub" if way == "no network" else "offline mode"
        with pytest.raises(
            MissingFileError,
            match=rf"^model lab/tiny: expected .*{re.escape(str(no_hub))}, got {why}.* and nothing in the "
            r"cache.*hf download lab/tiny --local-dir tiny.*huggingface-cli download.*'tiny', offline=True",
        ):
            embed_proteins({"A": "MASST"}, model="lab/tiny", offline=way == "offline")

    def test_a_broken_download_continues_where_it_stopped(
        self, hub: Hub, quick_retries: None, tiny: Path
    ) -> None:
        whole = (tiny / "model.safetensors").stat().st_size
        hub.cuts = [whole // 2, whole // 2 + 20_000]
        embed_proteins({"A": "MASST"}, model="lab/tiny")
        assert not hub.cuts
        assert hub.sent["model.safetensors"] < whole + 2_000  # the last chunk before each break is sent twice

    def test_an_interrupted_download_keeps_complete_files(
        self, hub: Hub, quick_retries: None, tiny: Path
    ) -> None:
        hub.cuts = [1_000] * 9
        with pytest.raises(
            MissingFileError,
            match=r"got an interrupted download .*run again: files that were downloaded completely are kept",
        ):
            embed_proteins({"A": "MASST"}, model="lab/tiny")
        with pytest.raises(MissingFileError, match=r"offline mode and some of its files in the cache"):
            embed_proteins({"A": "MASST"}, model="lab/tiny", offline=True)
        hub.cuts, hub.requests, hub.sent = [], [], Counter()
        embed_proteins({"A": "MASST"}, model="lab/tiny")
        assert [one for one in hub.requests if one.startswith("GET /lab")] == [
            f"GET /lab/tiny/resolve/{COMMIT}/model.safetensors"
        ]


def test_settings_are_not_changed_by_use(tiny: Path) -> None:
    embedder = ProteinEmbedder(model=str(tiny))
    before = copy.deepcopy(embedder)
    embedder.embed({"A": "MASST"})
    assert embedder == before
