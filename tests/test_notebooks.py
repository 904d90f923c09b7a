"""Notebooks on real data are stored after a complete run, without errors, and are small."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

import cellweft

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = sorted([*DOCS.glob("*.ipynb"), *DOCS.glob("tutorials/*.ipynb")])
LARGEST = 3_000_000
"""Largest size in bytes of a notebook with its figures."""


def code_cells(path: Path) -> list[dict[str, Any]]:
    """Return the code cells of a notebook."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_the_gallery_shows_every_plot() -> None:
    drawn = set()
    for cell in code_cells(DOCS / "gallery.ipynb"):
        found = re.findall(r"^cellweft\.pl\.(\w+)\(", "".join(cell["source"]), flags=re.MULTILINE)
        if any("image/png" in output.get("data", {}) for output in cell["outputs"]):
            drawn.update(found)
    assert drawn == set(cellweft.pl.__all__) - {"label_colors", "palette"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_was_run_in_order_and_completely(path: Path) -> None:
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert "error" not in kinds
    assert path.stat().st_size < LARGEST


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_says_when_it_was_made_and_with_which_version(path: Path) -> None:
    printed = "".join(code_cells(path)[0]["outputs"][0]["text"])
    assert re.fullmatch(r"cellweft \d+\.\d+\.\d+, run on \d{4}-\d{2}-\d{2}\n", printed)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_shows_no_warnings_and_no_paths(path: Path) -> None:
    outputs = [output for cell in code_cells(path) for output in cell["outputs"]]
    said = ["".join(output["text"]) for output in outputs if output.get("name") == "stderr"]
    assert said == []
    texts = [text for output in outputs for text in output.get("data", {}).get("text/plain", [])]
    assert not re.search(r"(/tmp|/home|/root|/Users)/", "".join(texts))
