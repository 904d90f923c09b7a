"""The tables of benchmarks/results as pages of the site; links to the files on a code host lead to these."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

_HERE = Path(__file__).parents[1]
_TABLES = _HERE.parent / "benchmarks" / "results"
_COPIES = _HERE / "results"

_INDEX = """# Tables of the benchmarks

Each page contains the tables that a script in `benchmarks/` wrote, and the command that made them.

```{{toctree}}
:maxdepth: 1

{pages}
```
"""


def _copy(app: Sphinx, config: Config) -> None:
    shutil.rmtree(_COPIES, ignore_errors=True)
    _COPIES.mkdir()
    names = sorted(path.stem for path in _TABLES.glob("*.md"))
    for name in names:
        shutil.copyfile(_TABLES / f"{name}.md", _COPIES / f"{name}.md")
    (_COPIES / "index.md").write_text(_INDEX.format(pages="\n".join(names)), encoding="utf-8")


def _link(app: Sphinx, docname: str, source: list[str]) -> None:
    up = "../" * docname.count("/")
    text = re.sub(r"\]\((?:\.\./)+benchmarks/results/([^)]+)\)", rf"]({up}results/\1)", source[0])
    source[0] = re.sub(r"\]\((?:\.\./)+benchmarks/results/?\)", f"]({up}results/index.md)", text)


def setup(app: Sphinx) -> dict[str, Any]:
    """Copy the tables before pages are looked for, and turn links as pages are read."""
    app.connect("config-inited", _copy)
    app.connect("source-read", _link)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
