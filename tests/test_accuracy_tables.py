"""Every accuracy in the README and its page is that of a stored table, which one command makes.

The rule: a comment above a table gives `numbers:`, the stored tables (their names in benchmarks/results, with
a section after `#`), `columns:` and `rows:`, in the order of the page. The first rows of the table are the
rows of the comment. Its columns are those of the comment, for each stored table in turn. A dash is not a
number.
"""

import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
MARK = re.compile(r"<!-- numbers:(?P<tables>.*?)columns:(?P<columns>.*?)rows:(?P<rows>.*?)-->", re.DOTALL)
HEAD = ("made", "versions", "machine")

Cells = list[list[str]]


def table_after(text: str) -> Cells:
    """Return the cells of the first Markdown table in a text, without bold, with the header first."""
    block = re.search(r"(?:^\|.*\|[ ]*\n?)+", text, re.MULTILINE)
    assert block is not None
    lines = block[0].strip().splitlines()
    return [[cell.strip(" *`") for cell in line.strip().strip("|").split("|")] for line in lines]


def stored(name: str) -> dict[str, dict[str, float]]:
    """Return the first table of a stored file, or of one of its sections: numbers by row and column."""
    file, _, section = name.partition("#")
    text = (RESULTS / f"{file}.md").read_text(encoding="utf-8")
    if section:
        text = text[text.index(f"\n## {section}\n") :]
    head, _, *rows = table_after(text)
    return {row[0]: dict(zip(head[1:], map(float, row[1:]), strict=True)) for row in rows}


def split(text: str, separator: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split(separator)]


def differences(readme: str) -> list[str]:
    """Return the differences between a text and the tables that its comments name."""
    found = []
    for mark in MARK.finditer(readme):
        names, columns, rows = (
            split(mark["tables"], ","),
            split(mark["columns"], ";"),
            split(mark["rows"], ";"),
        )
        tables = [stored(name) for name in names]
        shown = [line for line in table_after(readme[mark.end() :]) if any(map(is_number, line[1:]))]
        for row, cells in zip(rows, shown, strict=False):
            wanted = [
                (name, one[row][column])
                for name, one in zip(names, tables, strict=True)
                for column in columns
            ]
            for (name, value), cell in zip(wanted, cells[1:], strict=True):
                if cell == "-":
                    continue
                digits = len(cell.partition(".")[2])
                if abs(float(cell) - value) > 0.5 * 10**-digits + 1e-9:
                    found.append(f"{name}, {row}: the page says {cell}, the table {value}")
        if len(shown) < len(rows):
            found.append(f"{names[0]}: the page shows {len(shown)} of {len(rows)} rows")
    return found


def is_number(cell: str) -> bool:
    return re.fullmatch(r"-?\d*\.?\d+", cell) is not None


@pytest.fixture(scope="module", params=["README.md", "docs/accuracy.md", "docs/auto.md", "docs/counts.md"])
def page(request: pytest.FixtureRequest) -> str:
    return (ROOT / request.param).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        path = ROOT / "benchmarks" / "make_tables.py"
        spec = importlib.util.spec_from_file_location("make_tables", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules["make_tables"] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def test_pages_show_the_numbers_of_the_tables(page: str) -> None:
    assert len(MARK.findall(page)) >= 2
    assert differences(page) == []


def test_a_number_that_differs_is_found(page: str) -> None:
    start = MARK.search(page).end()
    cell = next(one for one in table_after(page[start:])[3][1:] if is_number(one))
    place = page.index(cell, start)
    changed = page[:place] + f"{float(cell) + 0.01:.3f}" + page[place + len(cell) :]
    assert len(differences(changed)) == 1


def test_a_row_that_is_missing_is_found(page: str) -> None:
    mark = MARK.search(page)
    rows = split(mark["rows"], ";")
    last = [line for line in table_after(page[mark.end() :]) if any(map(is_number, line[1:]))][-1]
    lines = page.splitlines(keepends=True)
    lines.remove(next(line for line in lines if line.strip(" |*`").startswith(last[0])))
    assert differences("".join(lines)) == [
        f"{split(mark['tables'], ',')[0]}: the page shows {len(rows) - 1} of {len(rows)} rows"
    ]


def test_one_command_makes_the_tables(maker: ModuleType, page: str) -> None:
    tables = {table.name: table for table in maker.TABLES}
    assert len(tables) == len(maker.TABLES)
    assert [table.minutes for table in maker.TABLES] == sorted(table.minutes for table in maker.TABLES)
    for table in tables.values():
        assert (ROOT / "benchmarks" / shlex.split(table.command)[0]).is_file()
    for mark in MARK.finditer(page):
        for name in split(mark["tables"], ","):
            assert name in tables


def test_headers_of_tables_are_complete(maker: ModuleType) -> None:
    for table in maker.TABLES:
        if table.made in ("-", "old"):
            continue
        head = (RESULTS / f"{table.name}.md").read_text(encoding="utf-8").split("\n\n")[1]
        said = [line.removeprefix("- ").partition(":")[0] for line in head.splitlines()]
        assert said[:3] == list(HEAD)
        assert "cellweft " in head
        assert set(said[3:]) <= {"seeds", "held-out genes"}
