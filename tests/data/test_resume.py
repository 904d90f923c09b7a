"""The journal beside an output: what is noted is known again, by the same run alone."""

import logging
from pathlib import Path

import pytest

from weft._errors import OutputError, SettingError
from weft.data.output import partial_output
from weft.data.resume import Journal, check_resumable, kept_mark, partial_of, resume_folder

MARK = {"seed": 0, "tiles": [4, 2], "interval": None}


def killed(target: Path, *numbers: int) -> None:
    """Leave the traces of a run that was killed."""
    partial_of(target).mkdir()
    journal = Journal(target, MARK)
    journal.start()
    for number in numbers:
        journal.add(number)


def test_what_is_noted_is_known_again(tmp_path: Path) -> None:
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


def test_a_torn_line_is_no_tile(tmp_path: Path) -> None:
    target = tmp_path / "a.zarr"
    killed(target, 3, 11)
    tiles = resume_folder(target) / "tiles.txt"
    tiles.write_text(tiles.read_text() + "12")  # of 123, say
    assert Journal(target, MARK, resume=True).done == {3, 11}


def test_other_work_starts_anew_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    target = tmp_path / "a.zarr"
    killed(target, 3)
    with caplog.at_level(logging.WARNING, logger="weft"):
        other = Journal(target, MARK | {"seed": 1}, resume=True)
    assert "another seed: starting anew" in caplog.text
    assert (other.done, other.is_started) == (frozenset(), False)


def test_without_its_output_a_journal_is_worth_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "a.zarr"
    killed(target, 3)
    partial_of(target).rmdir()
    assert Journal(target, MARK, resume=True).done == frozenset()
    assert "its output is gone" in caplog.text


@pytest.mark.parametrize("text", ["", "{", "[1]", '"x"'])
def test_damaged_traces_are_no_traces(tmp_path: Path, text: str) -> None:
    target = tmp_path / "a.zarr"
    killed(target, 3)
    (resume_folder(target) / "run.json").write_text(text)
    assert Journal(target, MARK, resume=True).done == frozenset()
    assert kept_mark(target) == {}


def test_who_does_not_resume_does_not_look(tmp_path: Path) -> None:
    killed(tmp_path / "a.zarr", 3)
    assert Journal(tmp_path / "a.zarr", MARK).done == frozenset()


def fail(target: Path, journal: Journal) -> None:
    """Write a tile, and find the disk full."""
    with partial_output(target, journal=journal) as partial:
        partial.mkdir()
        journal.start()
        journal.add(7)
        raise OSError(28, "No space left on device")


def test_a_failed_run_keeps_its_work_only_where_it_is_asked_to(tmp_path: Path) -> None:
    for resume in (False, True):
        target = tmp_path / f"{resume}.zarr"
        with pytest.raises(OutputError, match="No space left"):
            fail(target, Journal(target, MARK, resume=resume))
        assert partial_of(target).exists() == resume_folder(target).exists() == resume
    assert Journal(tmp_path / "True.zarr", MARK, resume=True).done == {7}


def test_a_complete_output_needs_no_journal(tmp_path: Path) -> None:
    target = tmp_path / "a.zarr"
    killed(target, 3)
    journal = Journal(target, MARK, resume=True)
    with partial_output(target, journal=journal) as partial:
        assert partial.is_dir()  # what was written is still there
    assert [one.name for one in tmp_path.iterdir()] == ["a.zarr"]


def test_a_run_that_does_not_resume_drops_the_traces(tmp_path: Path) -> None:
    target = tmp_path / "a.zarr"
    killed(target, 3)
    (partial_of(target) / "old").touch()
    with partial_output(target, journal=Journal(target, MARK)) as partial:
        assert not partial.exists()
        partial.mkdir()
    assert [one.name for one in tmp_path.iterdir()] == ["a.zarr"]
    assert not (target / "old").exists()


def test_a_file_cannot_be_resumed() -> None:
    check_resumable(Path("a.zarr"), resume=True)
    check_resumable(Path("a.h5ad"), resume=False)
    with pytest.raises(SettingError, match=r"resume: expected a \.zarr store.*got 'a\.h5ad'"):
        check_resumable(Path("a.h5ad"), resume=True)
