"""FASTA files: reading every variant, errors, and writing."""

import gzip
import logging
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._errors import FormatError, InputError, MissingFileError, OutputExistsError
from cellweft.genes.proteins.fasta import AMINO_ACIDS, FastaRecord, iter_fasta, read_fasta, write_fasta

GAD1 = FastaRecord(name="Gad1", description="P48318 DCE1_MOUSE", sequence="MASSTPSPAT")
SST = FastaRecord(name="Sst", description="", sequence="MLSCRLQ")


def saved(tmp_path: Path, content: str | bytes, name: str = "proteins.fa") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def naive(text: str) -> list[tuple[str, str]]:
    """Return header and sequence of every record, with a simple loop."""
    found: list[list[str]] = []
    for line in text.split("\n"):
        if line.startswith(">"):
            found.append([line[1:], ""])
        else:
            found[-1][1] += line
    return [(header, sequence) for header, sequence in found]


@pytest.mark.parametrize(
    "content",
    [
        ">Gad1 P48318 DCE1_MOUSE\nMASSTPSPAT\n>Sst\nMLSCRLQ\n",
        ">Gad1 P48318 DCE1_MOUSE\nMASST\nPSPAT\n\n>Sst\nMLS\nCRLQ",
        "\ufeff>Gad1 P48318 DCE1_MOUSE\r\nMASST\r\nPSPAT*\r\n>Sst\r\nMLSCRLQ*\r\n",
        "\n\n> Gad1\tP48318  DCE1_MOUSE\nmasst PSPAT\n>Sst \nmlscrlq\n",
        gzip.compress(b">Gad1 P48318 DCE1_MOUSE\nMASSTPSPAT\n>Sst\nMLSCRLQ\n"),
    ],
    ids=["plain", "wrapped", "windows", "loose", "gzip"],
)
def test_the_layout_of_a_file_does_not_matter(tmp_path: Path, content: str | bytes) -> None:
    assert read_fasta(saved(tmp_path, content)) == [GAD1, SST]


def test_names_may_repeat_and_letters_may_be_rare(tmp_path: Path) -> None:
    found = read_fasta(saved(tmp_path, f">a\n{AMINO_ACIDS}\n>a\nMX\n"))
    assert [(one.name, one.sequence) for one in found] == [("a", AMINO_ACIDS), ("a", "MX")]


words = st.text("abcXYZ09|=_.-", min_size=1, max_size=8)
records = st.builds(
    lambda name, words, sequence: FastaRecord(name=name, description=" ".join(words), sequence=sequence),
    words,
    st.lists(words, max_size=3),
    st.text(AMINO_ACIDS, min_size=1, max_size=200),
)


@settings(max_examples=30, deadline=None)
@given(
    made=st.lists(records, min_size=1, max_size=6),
    width=st.integers(1, 90),
    name=st.sampled_from(["a.fa", "a.gz"]),
)
def test_written_files_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, made: list[FastaRecord], width: int, name: str
) -> None:
    path = tmp_path_factory.mktemp("fasta") / name
    assert write_fasta(made, path, width=width) == path.resolve()
    # A file of only these letters would be taken for nucleotides.
    if sum(len(one.sequence) for one in made) < 100 or re.search("[^ACGTUN]", made[0].sequence):
        assert read_fasta(path) == made
    content = path.read_bytes()
    text = (gzip.decompress(content) if name.endswith("gz") else content).decode()
    assert max(len(line) for line in text.split("\n") if not line.startswith(">")) <= width
    expected = [(f"{one.name} {one.description}".rstrip(), one.sequence) for one in made]
    assert naive(text) == expected


def test_lines_have_60_letters_and_equal_proteins_give_equal_files(tmp_path: Path) -> None:
    long = FastaRecord(name="a", description="", sequence="M" * 125)
    assert write_fasta([long], tmp_path / "a.fa").read_text() == f">a\n{'M' * 60}\n{'M' * 60}\nMMMMM\n"
    first, second = (write_fasta([long], tmp_path / name).read_bytes() for name in ("b.gz", "c.gz"))
    assert first == second


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    path = saved(tmp_path, "earlier")
    with pytest.raises(OutputExistsError, match=r"an existing output\. .*overwrite=True"):
        write_fasta([GAD1], path)
    assert path.read_text() == "earlier"
    write_fasta([GAD1], path, overwrite=True)
    assert read_fasta(path) == [GAD1]


PACKED = gzip.compress(b">a\n" + bytes(range(65, 91)) * 200, mtime=0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "a FASTA file of proteins, got an empty file. Download it again"),
        (b" \n\n", "got an empty file"),
        (gzip.compress(b"", mtime=0), "got an empty file"),
        (b"<!DOCTYPE html>\n<html>", "got a web page or XML. The link leads to a page about the file"),
        (b"\x89HDF\r\n\x1a\n\0\0\0", "got a binary file"),
        (b">Gad1\0\0\1MASS", "got a binary file"),
        (b"PK\x03\x04\x14\0", "got a zip archive. Unpack it first"),
        (b"gene,sequence\nGad1,MASS\n", "got a file that starts with 'gene,sequence'"),
        (b"M" * 200, f"starts with '{'M' * 60}...'. Every protein starts with a line such as >Gad1"),
        (b">Gad1\nMASS\n>\nMLSC\n", "got a header without a name in line 3"),
        (PACKED[:-30], "expected a complete file, got a file that is truncated or damaged"),
        (PACKED[:40] + b"\xff\xff\xff\xff" + PACKED[44:], "got a file that is truncated or damaged"),
        (b">a\n" + b"ACGT" * 20 + b"\n>b\n" + b"GGCUN" * 10, "got nucleotides"),
    ],
)
def test_files_that_are_not_fasta_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = saved(tmp_path, content)
    with pytest.raises(FormatError, match=re.escape(words)) as caught:
        read_fasta(path)
    assert str(caught.value).startswith(f"{path}: expected ")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (">Gad1\n>Sst\nMLSC\n>Vip\n\n", "for every header, got none for 'Gad1', 'Vip'"),
        (">Gad1\n*\n", "got none for 'Gad1'"),
        (
            ">Sst\nML\n>Gad1 P48318\nMAS\nST1P\n",
            "protein 'Gad1' (line 3): expected only amino acids, got '1' at position 6",
        ),
        (
            ">Gad1\nMAJS\n",
            "got 'J' at position 3. Letters may be ABCDEFGHIKLMNOPQRSTUVWXYZ, and * at the end",
        ),
        (">Gad1\nMA*S*\n", "got '*' at position 3. A stop inside a protein"),
        (">Gad1\nMA--S\n", "got '-' at position 3. Remove the gaps of the alignment"),
        (">Gad1\nMAÄS\n", "got 'Ä' at position 3"),
        (b">Gad1\nMA\xffS\n", "got '\ufffd' at position 3"),
    ],
)
def test_invalid_sequences_are_refused(tmp_path: Path, content: str | bytes, words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        read_fasta(saved(tmp_path, content))


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    saved(tmp_path, ">a\nM\n")
    with pytest.raises(MissingFileError, match=r"nothing at this path\. Did you mean 'proteins\.fa'"):
        read_fasta(tmp_path / "protein.fa")
    with pytest.raises(MissingFileError, match=r"a FASTA file, got a folder"):
        read_fasta(tmp_path)
    with pytest.raises(MissingFileError, match=r"The folder .*nowhere' does not exist either"):
        read_fasta(tmp_path / "nowhere" / "a.fa")


def test_a_short_sequence_of_nucleotide_letters_may_be_a_protein(tmp_path: Path) -> None:
    assert read_fasta(saved(tmp_path, ">a\nGATTACA\n"))[0].sequence == "GATTACA"


def test_proteins_with_an_internal_stop_can_be_omitted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(tmp_path, ">a\nMA*S\n>b\nMAS*\n>c\nM*\n")
    with caplog.at_level(logging.WARNING, logger="cellweft"):
        assert [one.name for one in iter_fasta(path, skip_stops=True)] == ["b", "c"]
    assert "proteins left out because of an internal stop (*): 1." in caplog.text
