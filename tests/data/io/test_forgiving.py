"""The file under HDF5 keeps its failure and takes everything afterwards."""

import contextlib
import errno
import io
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from cellweft.data.io.atomic_output import ForgivingFile


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
    """Takes five bytes at a time, and fails once it holds ten."""

    def write(self, data: memoryview) -> int:
        if self.tell() >= 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(bytes(data)[:5])


def test_after_a_failure_everything_is_taken_and_can_be_read_back(tmp_path: Path) -> None:
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
    # HDF5 reads back what it wrote before the failure is raised, and crashes on anything else
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
