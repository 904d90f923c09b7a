"""Text files: their first lines, and files that are not text."""

import gzip
from pathlib import Path

import pytest

from cellweft._errors import FormatError, MissingFileError
from cellweft.genes.text_files import head_of, open_bytes, text_errors


def test_the_first_lines_are_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("Gad1\nSst\nPvalb", encoding="utf-8-sig")
    assert head_of(path, kind="a list") == ["Gad1", "Sst", "Pvalb"]
    monkeypatch.setattr("cellweft.genes.text_files._HEAD_BYTES", 12)
    assert head_of(path, kind="a list") == ["Gad1", "Sst"]
    monkeypatch.setattr("cellweft.genes.text_files._HEAD_BYTES", 5)
    assert head_of(path, kind="a list") == ["Ga"]


def test_a_character_may_be_cut_at_the_end_of_the_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("GABA\nµm\n", encoding="utf-8")
    monkeypatch.setattr("cellweft.genes.text_files._HEAD_BYTES", 6)
    assert head_of(path, kind="a list") == ["GABA"]


def test_gzip_is_recognised_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt.gz"
    path.write_bytes(gzip.compress(b"Gad1\nSst\n", mtime=0))
    assert head_of(path, kind="a list") == ["Gad1", "Sst"]
    with open_bytes(path) as file:
        assert file.read() == b"Gad1\nSst\n"


@pytest.mark.parametrize(
    ("name", "content", "got"),
    [
        ("empty.txt", b"", "an empty file"),
        ("blank.txt", b" \n\n", "an empty file"),
        ("binary.txt", b"\x89HDF\r\n\0\0", "a binary file"),
        ("latin.txt", "Straße\n".encode("latin-1"), "a file that is not UTF-8 text"),
        ("plain.txt.gz", b"Gad1\n", "a damaged gzip file"),
        ("cut.txt.gz", gzip.compress(b"Gad1\n" * 99, mtime=0)[:-9], "a damaged gzip file"),
        ("empty.txt.gz", gzip.compress(b"", mtime=0), "an empty file"),
    ],
)
def test_files_that_are_not_text_are_refused(tmp_path: Path, name: str, content: bytes, got: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=rf"{name}: expected a list of genes, got {got}"):
        head_of(tmp_path / name, kind="a list of genes")


def test_missing_files_are_reported(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"nowhere: expected a list, got nothing at this path"):
        head_of(tmp_path / "nowhere", kind="a list")
    with pytest.raises(MissingFileError, match="got a folder"):
        head_of(tmp_path, kind="a list")


def test_other_errors_are_not_changed(tmp_path: Path) -> None:
    with pytest.raises(KeyError), text_errors(tmp_path, kind="a list"):
        raise KeyError("x")
