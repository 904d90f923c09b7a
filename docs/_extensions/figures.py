"""The pictures of the gallery on the pages of the functions that draw them."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

_DOCS = Path(__file__).parents[1]
_GALLERY, _FIGURES = _DOCS / "gallery.ipynb", _DOCS / "api" / "figures"


def _drawn() -> dict[str, str]:
    """Return the last picture of each cell of the gallery, base64 of a PNG, by the function that draws it."""
    pictures = {}
    for cell in json.loads(_GALLERY.read_text(encoding="utf-8"))["cells"]:
        found = re.findall(r"^cellweft\.pl\.(\w+)\(", "".join(cell["source"]), flags=re.MULTILINE)
        outputs = [output.get("data", {}) for output in cell.get("outputs", [])]
        drawn = [data["image/png"] for data in outputs if "image/png" in data]
        if found and drawn:
            pictures[found[-1]] = drawn[-1]
    return pictures


def _write(app: Sphinx) -> None:
    _FIGURES.mkdir(exist_ok=True)
    for name, picture in _drawn().items():
        (_FIGURES / f"{name}.png").write_bytes(base64.b64decode(picture))


def _show(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Put the picture below the docstring of a function of ``cellweft.pl``."""
    place = name.removeprefix("cellweft.pl.")
    if place != name and (_FIGURES / f"{place}.png").is_file():
        lines += ["", f".. figure:: /api/figures/{place}.png", f"   :alt: Example of {name}", ""]
        lines += ["   For the code, see the :doc:`/gallery`.", ""]


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx when to write the pictures and where to show them."""
    app.connect("builder-inited", _write)
    app.connect("autodoc-process-docstring", _show, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
