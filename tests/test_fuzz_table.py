"""The table of `scripts/fuzz --table`: later runs are added, and no file is counted twice."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

_FILE = Path(__file__).parents[1] / "fuzz" / "table.py"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_table", _FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fuzz_table", module)  # dataclasses look up their module
    spec.loader.exec_module(module)
    return module


def test_a_later_run_adds_its_files_faults_and_seconds(table: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "fuzz.md"
    table.add_to_table(path, "csv", table.Row(first=1_000_000, last=1_002_043, n_faults=2, seconds=30))
    table.add_to_table(path, "gmt", table.Row(first=0, last=9, n_faults=0, seconds=1))
    table.add_to_table(path, "csv", table.Row(first=1_002_044, last=1_002_999, n_faults=0, seconds=1_000))
    assert table.read_table(path) == {
        "csv": table.Row(first=1_000_000, last=1_002_999, n_faults=2, seconds=1_030),
        "gmt": table.Row(first=0, last=9, n_faults=0, seconds=1),
    }
    text = path.read_text()
    assert "| csv | 3,000 | 1,000,000 to 1,002,999 | 2 | 1,030 |" in text
    assert "- in all: 3,010 files, 2 faults" in text


def test_no_file_is_counted_twice(table: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "fuzz.md"
    table.add_to_table(path, "csv", table.Row(first=0, last=9, n_faults=0, seconds=1))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"csv: expected the first seed 10, got 5, in .*fuzz\.md"):
        table.add_to_table(path, "csv", table.Row(first=5, last=20, n_faults=0, seconds=1))
    assert path.read_bytes() == before


def test_another_file_is_not_overwritten(table: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "notes.md"
    path.write_text("# Notes\n")
    with pytest.raises(ValueError, match=r"expected a table of scripts/fuzz, got other text, in .*notes\.md"):
        table.add_to_table(path, "csv", table.Row(first=0, last=9, n_faults=0, seconds=1))
    assert path.read_text() == "# Notes\n"
