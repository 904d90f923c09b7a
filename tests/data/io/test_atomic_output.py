"""An output file is complete under its final name, or does not exist."""

import contextlib
import errno
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from cellweft._errors import OutputError, OutputExistsError, SettingError
from cellweft.data.io.atomic_output import ForgivingFile, check_output, output_errors, partial_output


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


@pytest.fixture
def locked_folder() -> Iterator[Path]:
    """Return a folder that the user of this test may enter, but not write to."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)  # the administrator may write everywhere
    yield folder
    os.seteuid(before)
    folder.chmod(0o755)
    shutil.rmtree(folder)


def test_a_free_path_is_returned_as_absolute_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert check_output("scores.csv") == tmp_path / "scores.csv"
    assert names(tmp_path) == []


def test_an_existing_file_is_refused_and_may_be_replaced_on_request(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("old")
    with pytest.raises(OutputExistsError, match=r"got an existing output\. .*overwrite=True"):
        check_output(path)
    assert check_output(path, overwrite=True) == path


@pytest.mark.parametrize(
    ("name", "kind"), [("a.zarr", "a file"), ("a.h5ad", "a folder that is neither a zarr store")]
)
def test_a_path_of_another_kind_is_never_replaced(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    if kind == "a file":
        path.write_text("mine")
    else:
        path.mkdir()
        (path / "thesis.tex").write_text("mine")
    with pytest.raises(OutputExistsError, match=f"got {kind}"):
        check_output(path, overwrite=True)


def test_a_folder_that_is_not_a_store_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "home.zarr"
    path.mkdir()
    (path / "thesis.tex").write_text("mine")
    with pytest.raises(OutputExistsError, match="a folder that is neither a zarr store"):
        check_output(path, overwrite=True)


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"a name ending in \.zarr or \.h5ad, got '\.loom'"):
        check_output(tmp_path / "a.loom", suffixes=(".zarr", ".h5ad"))


def test_a_missing_folder_is_named_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"results: expected the output's folder.*mkdir -p"):
        check_output(tmp_path / "results" / "a.csv")


def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(OutputError, match="results: expected a folder, got a file"):
        check_output(tmp_path / "results" / "a.csv")
    with pytest.raises(OutputError, match=r"expected the output's folder|Not a directory"):
        check_output(tmp_path / "results" / "deeper" / "a.csv")


def test_a_folder_without_permission_is_named(locked_folder: Path) -> None:
    with pytest.raises(OutputError, match="a writable folder, got no permission to write"):
        check_output(locked_folder / "a.csv")


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "a.csv"
    link.symlink_to(tmp_path / "disk" / "a.csv")
    with partial_output(link) as partial:
        partial.write_text("new")
    assert link.is_symlink()
    assert (tmp_path / "disk" / "a.csv").read_text() == "new"


def test_a_partial_file_gets_its_final_name_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    with partial_output(path) as partial:
        partial.write_text("new")
        assert sorted([partial.name, ".scores.csv.cellweft-lock"]) == sorted(names(tmp_path))
        assert re.fullmatch(r"\.scores\.csv\.[0-9a-f]{8}-\d+-[0-9a-f]{8}\.cellweft-partial", partial.name)
    assert names(tmp_path) == ["scores.csv"]


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt()])
def test_a_failure_keeps_the_old_output_and_leaves_no_partial_file(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("old")

    def work() -> None:
        with partial_output(path, overwrite=True) as partial:
            partial.write_text("new")
            raise error

    with pytest.raises(type(error)):
        work()
    assert names(tmp_path) == ["scores.csv"]
    assert path.read_text() == "old"


def store(path: Path, text: str) -> None:
    path.mkdir()
    (path / ".zgroup").write_text(text)


def test_a_store_is_replaced_completely(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    store(path, "old")
    (path / "extra").write_text("old")
    (tmp_path / "a.zarr.partial").mkdir()  # a folder of the user
    (tmp_path / "a.zarr.replaced").mkdir()
    with partial_output(path, overwrite=True) as partial:
        store(partial, "new")
    assert names(tmp_path) == ["a.zarr", "a.zarr.partial", "a.zarr.replaced"]
    assert names(path) == [".zgroup"]
    assert (path / ".zgroup").read_text() == "new"


def test_the_old_store_is_restored_if_the_new_one_cannot_replace_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zarr"
    store(path, "old")
    rename = Path.rename

    def fail_on_partial(self: Path, target: Path) -> Path:
        if self.suffix == ".cellweft-partial":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_on_partial)

    def work() -> None:
        with partial_output(path, overwrite=True) as partial:
            store(partial, "new")

    with pytest.raises(OutputError, match="Input/output error"):
        work()
    assert names(tmp_path) == ["a.zarr"]
    assert (path / ".zgroup").read_text() == "old"


def test_a_system_error_names_path_space_and_next_step() -> None:
    with (
        pytest.raises(
            OutputError, match=r"a\.csv: .* up to 3 MB, .*No space left.* free in .*Free some space"
        ),
        output_errors("missing/a.csv", needed=3e6),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_errors_of_cellweft_pass_unchanged() -> None:
    with pytest.raises(OutputExistsError, match="x: expected y, got z"), output_errors("a.csv"):
        raise OutputExistsError("x", expected="y", got="z", fix="w.")


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    with contextlib.closing(ForgivingFile(tmp_path / "a")) as file:
        assert file.write(memoryview(b"abcdef")) == 6
        assert file.seek(2) == 2
        buffer = bytearray(3)
        assert file.readinto(memoryview(buffer)) == 3
        assert bytes(buffer) == b"cde"
        assert file.tell() == 5
        file.truncate(4)
        file.sync()
        assert file.failure is None
    assert (tmp_path / "a").read_bytes() == b"abcd"


class Full(io.BytesIO):
    """A file that writes at most five bytes at a time, and fails once it holds ten."""

    def write(self, data: memoryview) -> int:
        if self.tell() >= 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(bytes(data)[:5])


def test_after_a_failure_writes_are_accepted_and_can_be_read_back(tmp_path: Path) -> None:
    file = ForgivingFile(tmp_path / "a")
    file.close()
    file._file = full = Full()
    assert file.write(memoryview(b"x" * 8)) == 8
    assert file.failure is None
    assert file.write(memoryview(b"y" * 8)) == 8
    assert isinstance(file.failure, OSError)
    first = file.failure
    assert file.write(memoryview(b"z" * 8)) == 8
    assert file.truncate(100) == 100
    assert file.failure is first
    assert full.getvalue() == b"x" * 8 + b"y" * 5
    # HDF5 reads back what it wrote before the failure is raised, and crashes if it finds anything else
    file.seek(6)
    buffer = bytearray(b"?" * 20)
    assert file.readinto(memoryview(buffer)) == 20
    assert bytes(buffer) == b"xx" + b"y" * 5 + b"z" * 8 + bytes(5)


def test_an_interrupt_does_not_unwind_through_hdf5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ForgivingFile(tmp_path / "a.h5")

    class Interrupted(io.BytesIO):
        def write(self, data: memoryview) -> int:
            raise KeyboardInterrupt

    file._file.close()
    monkeypatch.setattr(file, "_file", Interrupted())
    with h5py.File(file, "w") as root:
        root["x"] = np.ones(10)
    assert isinstance(file.failure, KeyboardInterrupt)
