"""The work folder: what is kept in it, which folders are refused, and that only its own files are removed."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._errors import FormatError, OutputError, OutputExistsError
from cellweft.data.io.journal import partial_of
from cellweft.genes.esm.checkpoint import read_parts, remove_parts, vector_key, write_part

VECTORS = {"a": np.array([1.0, 2], dtype=np.float32), "b": np.array([3.0, -1], dtype=np.float32)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A work folder with one part."""
    write_part(tmp_path / "parts", VECTORS)
    return tmp_path / "parts"


def part_of(folder: Path) -> Path:
    return next(folder.glob("part-*.npz"))


def test_parts_are_read_back(folder: Path) -> None:
    write_part(folder, {"c": np.ones(3, dtype=np.float32)})  # from another model
    write_part(folder, VECTORS)  # writing the same part again replaces the first
    assert len(list(folder.glob("part-*"))) == 2
    found = read_parts(folder, {"b", "c", "none"})
    assert sorted(found) == ["b", "c"]
    np.testing.assert_array_equal(found["b"], VECTORS["b"])
    assert read_parts(folder.with_name("nowhere"), {"a"}) == {}


def test_removal_keeps_files_of_other_programs(folder: Path) -> None:
    partial_of(folder / "part-0.npz").write_text("of a run that was killed")
    (folder / "notes.txt").write_text("mine")
    remove_parts(folder)
    assert [one.name for one in folder.iterdir()] == ["notes.txt"]
    (folder / "notes.txt").unlink()
    remove_parts(folder)
    assert not folder.exists()
    remove_parts(folder)


def test_a_new_folder_of_a_killed_run_can_be_used(tmp_path: Path) -> None:
    partial_of(tmp_path / "cellweft-embedding.json").write_text("")
    assert read_parts(tmp_path, {"a"}) == {}
    write_part(tmp_path, VECTORS)
    assert sorted(read_parts(tmp_path, VECTORS)) == ["a", "b"]


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1), st.text(min_size=1), st.integers(), st.integers())
def test_keys_are_equal_only_for_equal_inputs(first: str, second: str, one: int, other: int) -> None:
    is_equal = (first, one) == (second, other)
    assert (vector_key(first, {"layer": one}) == vector_key(second, {"layer": other})) == is_equal
    assert vector_key(first, {"a": one, "b": other}) == vector_key(first, {"b": other, "a": one})


def with_arrays(folder: Path, **arrays: Any) -> None:
    np.savez(part_of(folder), **arrays)


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda one: part_of(one).write_bytes(b""), r"part-\w+\.npz: .*got EOFError"),
        (lambda one: part_of(one).write_bytes(b"nonsense"), r"ValueError.*Remove this file and run again"),
        (lambda one: with_arrays(one, keys=["a"]), r"KeyError"),
        (lambda one: with_arrays(one, keys=["a"], values=np.ones((2, 2), np.float32)), r"1 keys and values"),
        (lambda one: with_arrays(one, keys=["a"], values=np.ones((1, 2))), r"of type float64"),
        (
            lambda one: with_arrays(one, keys=["a"], values=np.array([[1, np.nan]], np.float32)),
            r"NaN or infinite values",
        ),
        (lambda one: with_arrays(one, keys=np.array(["a"], object), values=np.ones((1, 2))), r"allow_pickle"),
        (
            lambda one: (one / "cellweft-embedding.json").write_text("{"),
            r"cellweft-embedding\.json: .*JSONDecodeError.*Remove the folder .*parts and start again",
        ),
        (
            lambda one: (one / "cellweft-embedding.json").write_text('{"schema": 9}'),
            r"schema 9 of another version",
        ),
    ],
)
def test_damaged_parts_are_refused(folder: Path, damage: Any, match: str) -> None:
    damage(folder)
    with pytest.raises(FormatError, match=match):
        read_parts(folder, {"a"})


def test_a_flipped_bit_is_found(folder: Path) -> None:
    content = bytearray(part_of(folder).read_bytes())
    content[content.index(VECTORS["b"].tobytes())] ^= 1
    part_of(folder).write_bytes(bytes(content))
    with pytest.raises(FormatError, match=r"Bad CRC-32"):
        read_parts(folder, {"a"})


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_text("")
    with pytest.raises(
        OutputExistsError,
        match=rf"{re.escape(str(tmp_path))}: .*a folder with 'photo\.jpg'.*Move it elsewhere",
    ):
        read_parts(tmp_path, {"a"})
    with pytest.raises(OutputExistsError, match=r"got a file"):
        read_parts(tmp_path / "photo.jpg", {"a"})


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"parts: expected to write it"):
        write_part(tmp_path / "nowhere" / "parts", VECTORS)
