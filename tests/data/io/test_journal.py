"""The journal next to an output: only the same run can resume from it."""

import logging
import os
from pathlib import Path

import pytest

from cellweft._errors import OutputError, OutputExistsError
from cellweft.data.io.atomic_output import partial_output
from cellweft.data.io.journal import MARK as OURS
from cellweft.data.io.journal import (
    Journal,
    check_own,
    claim,
    kept_mark,
    kept_until_failure,
    partial_of,
    remove_own,
    remove_stale,
    replaced_of,
    resume_folder,
)

MARK = {"seed": 0, "tiles": [4, 2], "interval": None}


def killed(target: Path, *numbers: int) -> Path:
    """Leave the files of a killed run, and return the path of its partial output."""
    journal = Journal(target, MARK)
    journal.begin()
    journal.partial.mkdir()
    journal.start()
    for number in numbers:
        journal.add(number)
    return journal.partial


def test_recorded_tiles_are_found_again(tmp_path: Path) -> None:
    target = tmp_path / "a.zarr"
    killed(target, 3, 0, 11)
    again = Journal(target, MARK, resume=True)
    assert again.is_started
    assert again.done == {0, 3, 11}
    assert kept_mark(target) == MARK
    again.add(5)
    assert Journal(target, MARK, resume=True).done == {0, 3, 5, 11}
    again.remove()
    assert not resume_folder(target).exists()
    assert kept_mark(target) == {}


def test_an_incomplete_line_is_ignored(tmp_path: Path) -> None:
    target = tmp_path / "a.zarr"
    killed(target, 3, 11)
    tiles = resume_folder(target) / "tiles.txt"
    tiles.write_text(tiles.read_text() + "12")  # the start of 123
    assert Journal(target, MARK, resume=True).done == {3, 11}


def test_different_work_starts_again_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    target = tmp_path / "a.zarr"
    killed(target, 3)
    with caplog.at_level(logging.WARNING, logger="cellweft"):
        other = Journal(target, MARK | {"seed": 1}, resume=True)
    assert "another seed: starting over" in caplog.text
    assert (other.done, other.is_started) == (frozenset(), False)


def test_a_journal_without_its_output_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    target = tmp_path / "a.zarr"
    killed(target, 3).rmdir()
    assert Journal(target, MARK, resume=True).done == frozenset()
    assert "its output is gone" in caplog.text


@pytest.mark.parametrize("text", ["", "{", "[1]", '"x"'])
def test_damaged_journals_are_ignored(tmp_path: Path, text: str) -> None:
    target = tmp_path / "a.zarr"
    killed(target, 3)
    (resume_folder(target) / "run.json").write_text(text)
    assert Journal(target, MARK, resume=True).done == frozenset()
    assert kept_mark(target) == {}


def test_a_run_without_resume_ignores_the_journal(tmp_path: Path) -> None:
    killed(tmp_path / "a.zarr", 3)
    assert Journal(tmp_path / "a.zarr", MARK).done == frozenset()


def fail(target: Path, journal: Journal) -> None:
    """Write a tile, then fail because the disk is full."""
    with partial_output(target, journal=journal) as partial:
        partial.mkdir()
        journal.start()
        journal.add(7)
        raise OSError(28, "No space left on device")


def test_a_failed_run_keeps_its_work_only_with_resume(tmp_path: Path) -> None:
    for resume in (False, True):
        target = tmp_path / f"{resume}.zarr"
        with pytest.raises(OutputError, match="No space left"):
            fail(target, Journal(target, MARK, resume=resume))
        assert resume_folder(target).exists() == resume
        assert sorted(one.name for one in tmp_path.iterdir()) == ([f"{resume}.zarr.resume"] if resume else [])
    assert Journal(tmp_path / "True.zarr", MARK, resume=True).done == {7}


def test_a_complete_output_needs_no_journal(tmp_path: Path) -> None:
    target = tmp_path / "a.zarr"
    known = killed(target, 3)
    journal = Journal(target, MARK, resume=True)
    with partial_output(target, journal=journal) as partial:
        assert partial == known
        assert partial.is_dir()  # the earlier work still exists
    assert [one.name for one in tmp_path.iterdir()] == ["a.zarr"]


def test_a_run_without_resume_deletes_earlier_work(tmp_path: Path) -> None:
    target = tmp_path / "a.zarr"
    known = killed(target, 3)
    (known / "old").touch()
    with partial_output(target, journal=Journal(target, MARK)) as partial:
        assert not partial.exists()
        assert not known.exists()
        partial.mkdir()
    assert [one.name for one in tmp_path.iterdir()] == ["a.zarr"]
    assert not (target / "old").exists()


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def test_the_error_says_what_a_failed_run_leaves(tmp_path: Path) -> None:
    for resume, told in ((True, "all finished work is kept"), (False, "Nothing incomplete was left")):
        target = tmp_path / f"{resume}.zarr"
        with pytest.raises(OutputError, match=told):
            fail(target, Journal(target, MARK, resume=resume))
        assert bool(kept_mark(target)) == resume


def test_a_run_records_what_it_keeps(tmp_path: Path) -> None:
    target = tmp_path / "a.zarr"
    claim(resume_folder(target))
    with (
        pytest.raises(KeyboardInterrupt, match=r"is kept in .*a\.zarr\.resume"),
        kept_until_failure(target, resume=True),
    ):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt) as caught, kept_until_failure(target, resume=False):
        raise KeyboardInterrupt
    assert not hasattr(caught.value, "__notes__")
    assert names(tmp_path) == []


def test_folders_of_other_programs_are_not_touched(tmp_path: Path) -> None:
    target = tmp_path / "a.zarr"
    theirs = resume_folder(target)
    theirs.mkdir()
    check_own(theirs)  # accepted as long as it is empty
    (theirs / "thesis.tex").write_text("mine")
    for refused in (lambda: Journal(target, MARK), lambda: claim(theirs)):
        with pytest.raises(OutputExistsError, match=rf"got a folder without {OURS}\. Move it away"):
            refused()
    remove_own(theirs)
    with pytest.raises(ZeroDivisionError), kept_until_failure(target, resume=False):
        raise ZeroDivisionError
    assert (theirs / "thesis.tex").read_text() == "mine"
    resume_folder(tmp_path / "b.zarr").write_text("a file")
    with pytest.raises(OutputExistsError, match="got a file"):
        Journal(tmp_path / "b.zarr", MARK)


DEAD = 2**22 + 1  # no system assigns this process number


def left_by(process: int, target: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Leave a partial file and a partial folder, as a killed process does."""
    with monkeypatch.context() as patch:
        patch.setattr("os.getpid", lambda: process)
        left = [partial_of(target), partial_of(target)]
    left[0].write_text("half")
    left[1].mkdir()
    (left[1] / "0.0").touch()
    return left


def test_the_next_run_removes_partial_files_of_killed_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "scores [1].csv"
    dead, alive = left_by(DEAD, target, monkeypatch), left_by(os.getpid(), target, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr("socket.gethostname", lambda: "elsewhere")
        afar = left_by(DEAD, target, monkeypatch)
    others = [tmp_path / name for name in (f"{target.name}.partial", f".{target.name}.old.cellweft-partial")]
    others += left_by(DEAD, tmp_path / "scores.csv", monkeypatch)
    for one in others[:2]:
        one.write_text("mine")
    with partial_output(target) as partial:
        partial.write_text("new")
    assert not any(one.exists() for one in dead)
    assert all(one.exists() for one in (*alive, *afar, *others, target))


def test_the_old_output_is_removed_only_after_the_new_one_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.zarr"
    with monkeypatch.context() as patch:
        patch.setattr("os.getpid", lambda: DEAD)
        old = replaced_of(target)
    old.mkdir()
    remove_stale(target)
    assert old.exists()
    target.mkdir()
    remove_stale(target)
    assert names(tmp_path) == ["a.zarr"]
