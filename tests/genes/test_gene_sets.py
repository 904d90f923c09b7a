"""Gene sets: GMT files by hand and against a naive loop, invalid files, and genes found by name."""

import gzip
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._errors import FormatError, GeneError, InputError, MissingFileError
from cellweft.genes.gene_sets import GeneSets, read_gene_sets

GMT = "GABA\thttp://x\tGad1\tGad2\tSlc32a1\nneuron\t\tGad1\tGad2\tSst\tSst\t\n\nall\tna\tGad1\tGad2\tSlc32a1\tSst\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "sets.gmt"
    path.write_text(GMT)
    return path


def as_dict(sets: GeneSets) -> dict[int, set[str]]:
    members = sets.members.toarray() > 0
    return {column: set(sets.genes[members[:, column]]) for column in range(members.shape[1])}


def test_a_gmt_by_hand(path: Path) -> None:
    sets = read_gene_sets(path)
    assert sets.genes.tolist() == ["Gad1", "Gad2", "Slc32a1", "Sst"]
    assert as_dict(sets) == {0: {"Gad1", "Gad2", "Slc32a1"}, 1: {"Gad1", "Gad2", "Sst"}, 2: set(sets.genes)}
    assert set(sets.members.data) == {1.0}, "a set counts a gene once"
    np.testing.assert_allclose(sets.information, [math.log(4 / 3), math.log(4 / 3), 0])
    assert repr(sets) == f"GeneSets(4 genes in 3 sets from {path})"


def test_gzip_weights_after_commas_and_carriage_returns(tmp_path: Path) -> None:
    path = tmp_path / "sets.gmt.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbfGABA\t\tGad1,1.0\tGad2,0.5\r\n"))
    assert read_gene_sets(path).genes.tolist() == ["Gad1", "Gad2"]


def test_sets_in_memory_equal_those_of_a_file(path: Path) -> None:
    given_ = {
        "GABA": ["Gad1", "Gad2", "Slc32a1"],
        "neuron": ("Gad1", "Gad2", "Sst"),
        "all": ["Gad1", "Gad2", "Slc32a1", "Sst"],
    }
    first, second = read_gene_sets(path), read_gene_sets(given_)
    np.testing.assert_array_equal(first.members.toarray(), second.members.toarray())
    np.testing.assert_array_equal(first.information, second.information)
    assert second.source == "memory"
    assert read_gene_sets(first) is first


def test_several_sources_are_combined(path: Path) -> None:
    together = read_gene_sets([path, {"glia": ["Gfap", "Gad1"]}])
    assert as_dict(together)[3] == {"Gfap", "Gad1"}
    assert together.members.shape == (5, 4)
    np.testing.assert_allclose(together.information[2], math.log(5 / 4))
    assert together.source == f"{path}, memory"
    again = read_gene_sets([read_gene_sets(path), {"glia": ["Gfap", "Gad1"]}])
    assert as_dict(again) == as_dict(together)


@settings(max_examples=25, deadline=None)
@given(
    sets=st.dictionaries(
        st.text("abc", min_size=1), st.lists(st.sampled_from("ABCDEFG"), min_size=1), min_size=1
    )
)
def test_information_equals_a_naive_loop(sets: dict[str, list[str]]) -> None:
    found = read_gene_sets(sets)
    n_genes = len({gene for genes in sets.values() for gene in genes})
    assert len(found.genes) == n_genes
    for column, genes in enumerate(sets.values()):
        assert as_dict(found)[column] == set(genes)
        assert found.information[column] == pytest.approx(-math.log(len(set(genes)) / n_genes), abs=1e-12)
        assert found.information[column] >= 0


def test_genes_are_found_by_name_then_ignoring_case(path: Path) -> None:
    known, members = read_gene_sets(path).aligned(["SST", "Other", "Gad2"])
    assert known.tolist() == [True, False, True]
    assert members.toarray().tolist() == [[0, 1, 1], [0, 0, 0], [1, 1, 1]]


def test_sets_of_other_genes_are_refused_with_examples_of_both_sides(path: Path) -> None:
    expected = r"sets\.gmt: expected sets of genes such as 'ENSMUSG1', 'ENSMUSG2', got none.*'Gad1', 'Gad2'"
    with pytest.raises(GeneError, match=expected):
        read_gene_sets(path).aligned(["ENSMUSG1", "ENSMUSG2"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got an empty file"),
        (b"\x00\x01\x02", "got a binary file"),
        (b"GABA,x,Gad1,Gad2\n", r"line 1: expected the name of a set.*got 1 field"),
        (b"GABA\tx\tGad1\nneuron\tGad1\n", r"line 2: .*got 2 field"),
        (b"GABA\tx\tGad1\nneuron\tx\t\t\n", r"line 2: .*at least one gene"),
        (b"\tx\tGad1\n", r"line 1: expected the name of a set"),
        (b"Gad1 Gad2 0.5\n", r"line 1: .*a list of gene pairs as edges="),
        (b"GABA\tx\tGad\xff1\n", "not UTF-8 text"),
    ],
)
def test_files_that_are_not_gmt_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "sets.gmt"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message):
        read_gene_sets(path)


def test_an_invalid_byte_far_into_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sets.gmt"
    path.write_bytes(b"GABA\tx\tGad1\n" * 9000 + b"late\tx\tGad\xff\n")
    with pytest.raises(FormatError, match="not UTF-8 text"):
        read_gene_sets(path)


def test_missing_and_empty_files_are_reported(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"a GMT file .*got nothing at this path"):
        read_gene_sets(tmp_path / "sets.gmt")
    for nothing in ({}, [], {"empty": []}):
        with pytest.raises(InputError, match="expected genes in sets"):
            read_gene_sets(nothing)
    with pytest.raises(InputError, match=r"gene_sets\['GABA'\]: expected a list of genes, got 'Gad1'"):
        read_gene_sets({"GABA": "Gad1"})
