"""Types of other libraries in signatures link to their documentation."""

import sys
from pathlib import Path

import pytest

EXTENSIONS = Path(__file__).parents[1] / "docs" / "_extensions"


def test_an_address_ends_with_the_name_of_the_type(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sphinx", reason="Sphinx is not installed; scripts/docs installs it")
    monkeypatch.syspath_prepend(str(EXTENSIONS))
    pages = __import__("other_sites").PAGES
    sys.modules.pop("other_sites")
    for name, page in pages.items():
        assert page.startswith("https://")
        assert page.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1], name
