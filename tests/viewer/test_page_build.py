"""The built page matches the sources in viewer/, is complete, and loads nothing from elsewhere."""

import filecmp
import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import cellweft

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "viewer"
PAGE = Path(cellweft.__file__).parent / "viewer" / "page"
PARTS = [
    "index.html",
    "package-lock.json",
    "package.json",
    "public",
    "src",
    "tsconfig.json",
    "vite.config.ts",
]

pytestmark = pytest.mark.skipif(not SOURCES.is_dir(), reason="the sources of the page are not available")


def sources_hash() -> str:
    """Return the hash that vite.config.ts writes to the page."""
    files = [
        file for part in PARTS for file in [SOURCES / part, *(SOURCES / part).rglob("*")] if file.is_file()
    ]
    told = hashlib.sha256()
    for name, file in sorted((file.relative_to(SOURCES).as_posix(), file) for file in files):
        told.update(name.encode() + b"\0" + file.read_bytes() + b"\0")
    return told.hexdigest()


def page_files(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def test_page_was_built_from_these_sources():
    recorded = re.search(
        r'name="cellweft-sources" content="(\w+)"', (PAGE / "index.html").read_text(encoding="utf-8")
    )
    assert recorded
    assert recorded[1] == sources_hash(), "viewer/ has changed since the page was built: run scripts/viewer"


def test_page_is_complete_and_loads_nothing_from_elsewhere():
    index = (PAGE / "index.html").read_text(encoding="utf-8")
    named = re.findall(r'(?:src|href)="\./([^"]+)"', index)
    assert len(named) >= 3
    assert all((PAGE / name).is_file() for name in named)
    assert not re.search(r"https?://|<style|\bstyle=|<script(?![^>]*\bsrc=)|\bon\w+=", index)
    assert "licenses.md" in page_files(PAGE)
    for script in PAGE.rglob("*.js"):
        text = script.read_text(encoding="utf-8")
        assert not re.search(r"\beval\(|new Function\(", text)
        addresses = set(re.findall(r"https?://[\w.-]+", text)) - {"http://www.w3.org"}  # XML namespaces
        assert addresses == set()


@pytest.mark.slow
def test_build_is_reproducible(tmp_path):
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    copy = tmp_path / "viewer"
    shutil.copytree(SOURCES, copy, ignore=shutil.ignore_patterns("node_modules"))
    built = tmp_path / "page"
    for command in (["npm", "ci", "--no-fund", "--no-audit"], ["npm", "run", "build"]):
        subprocess.run(
            command, cwd=copy, env=os.environ | {"CELLWEFT_PAGE": str(built)}, check=True, capture_output=True
        )
    assert page_files(built) == page_files(PAGE)
    _, different, failed = filecmp.cmpfiles(built, PAGE, page_files(PAGE), shallow=False)
    assert (different, failed) == ([], [])
