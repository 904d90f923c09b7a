"""Packaging: licences, extras, and the error if an extra is missing."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import cellweft
from cellweft.cli.demo import run_demo
from cellweft.errors import MissingExtraError

ROOT = Path(__file__).parents[1]
PACKAGE = Path(cellweft.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
FOR_DEVELOPERS = {"all", "dev", "docs"}

COPYLEFT = re.compile(
    r"\b[AL]?GPL|GNU (Affero |Lesser |Library )?(Library or Lesser )?General Public", re.IGNORECASE
)
"""Licences that no dependency of a BSD-licensed package may have; the Mozilla Public License is allowed."""

DISTRIBUTION_OF = {"PIL": "pillow", "sklearn": "scikit-learn", "markupsafe": "jinja2", "jinja2": "jinja2"}
"""Distributions with another name than the module; jinja2 installs markupsafe."""


def required() -> Iterator[metadata.Distribution]:
    """Yield every distribution that a plain install of cellweft installs, including indirect dependencies."""
    waiting, done = [Requirement(one) for one in PROJECT["dependencies"]], set()
    while waiting:
        requirement = waiting.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in done:
            continue
        done.add(key)
        distribution = metadata.distribution(requirement.name)
        yield distribution
        for text in distribution.requires or ():
            needed = Requirement(text)
            extras = requirement.extras or {""}
            if needed.marker is None or any(needed.marker.evaluate({"extra": one}) for one in extras):
                waiting.append(needed)


def licence_of(distribution: metadata.Distribution) -> str:
    """Return the licence in the metadata: the expression, or else the classifiers and the first line of the
    licence.

    The whole text is not used: the one of scipy mentions libraries of the compiler that are under the GPL
    with an exception for compiled programs.
    """
    about = distribution.metadata
    if about.get("License-Expression"):
        return about["License-Expression"]
    classifiers = [one for one in about.get_all("Classifier", []) if one.startswith("License ::")]
    first_line = (about.get("License") or "").strip().split("\n")[0]
    return "; ".join([*classifiers, first_line])


def test_no_required_package_has_a_copyleft_licence() -> None:
    licences = {one.metadata["Name"]: licence_of(one) for one in required()}
    assert len(licences) > 30
    assert not {name: licence for name, licence in licences.items() if COPYLEFT.search(licence)}


def test_copyleft_licences_are_recognised() -> None:
    assert "GPL" in licence_of(metadata.distribution("igraph"))
    for text in ("GPL-3.0-or-later", "LGPLv3+", "AGPL-3.0", "GNU Lesser General Public License v3"):
        assert COPYLEFT.search(text), text
    for text in ("MPL-2.0 AND MIT", "BSD-3-Clause", "Apache Software License", "PSF-2.0"):
        assert not COPYLEFT.search(text), text


def test_the_extra_all_contains_every_extra_for_users() -> None:
    (everything,) = (Requirement(one) for one in EXTRAS["all"])
    assert everything.name == "cellweft"
    assert everything.extras == EXTRAS.keys() - FOR_DEVELOPERS


def test_the_page_on_installing_lists_every_extra() -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE)) == EXTRAS.keys() - {"dev", "docs"}


def test_extras_named_in_messages_exist() -> None:
    sources = [path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")]
    calls = [re.findall(r"\brequire\(\s*[\w\".]+, (?:extra=)?\"([\w,]+)\"", text) for text in sources]
    named = {extra for found in calls for names in found for extra in names.split(",")}
    assert {"plot", "report", "clustering", "dask", "esm"} <= named <= EXTRAS.keys()


def module_imports(path: Path) -> Iterator[str]:
    """Yield the packages that a file imports at the top level."""

    def visit(nodes: list[ast.stmt]) -> Iterator[str]:
        for node in nodes:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                yield node.module or ""
            elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
                yield from visit(node.body)

    for name in visit(ast.parse(path.read_text(encoding="utf-8")).body):
        yield name.partition(".")[0]


@pytest.mark.slow
def test_packages_of_extras_are_only_imported_where_needed() -> None:
    """Files of `pl` import matplotlib, the report imports jinja2, and no other file imports extras."""
    needed = {canonicalize_name(Requirement(one).name) for one in PROJECT["dependencies"]}
    allowed = {"pl": {"matplotlib", "natsort"}, "reports": {"jinja2"}}
    for path in PACKAGE.rglob("*.py"):
        folder = path.relative_to(PACKAGE).parts[0]
        names = {name for name in module_imports(path) if name not in sys.stdlib_module_names}
        packages = {canonicalize_name(DISTRIBUTION_OF.get(name, name)) for name in names - {"cellweft"}}
        assert packages <= needed | allowed.get(folder, set()), path


def small_pair() -> cellweft.Pair:
    counts = np.random.default_rng(0).poisson(2.0, (30, 6)).astype("float32")
    cells = anndata.AnnData(counts)
    cells.var_names = [f"Gene{number}" for number in range(6)]
    return cellweft.pair(cells, cells[:20].copy(), coordinates="none")


class TestMissingExtras:
    def test_a_plot_without_matplotlib(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(MissingExtraError, match=r'matplotlib.*pip install "cellweft\[plot\]"'):
            cellweft.pl.gene  # noqa: B018

    def test_a_plot_that_does_not_exist(self) -> None:
        with pytest.raises(AttributeError, match="heatmap"):
            cellweft.pl.heatmap  # type: ignore[attr-defined]  # noqa: B018

    @pytest.mark.parametrize("module", ["jinja2", "matplotlib", "PIL"])
    def test_the_report_without_its_extra(
        self, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingExtraError, match=rf'^{module}: .*pip install "cellweft\[report\]"'):
            cellweft.report(tmp_path / "report.html", pd.DataFrame())

    def test_the_viewer_without_its_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(MissingExtraError, match=r'pip install "cellweft\[plot\]"'):
            cellweft.view("result.zarr", open_browser=False, block=False)

    def test_clusters_without_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "graspologic_native", None)
        with pytest.raises(MissingExtraError, match=r'pip install "cellweft\[clustering\]"'):
            cellweft.tl.leiden_clusters(np.random.default_rng(0).normal(size=(20, 5)), seed=0)

    def test_an_evaluation_reports_a_missing_extra_before_it_fits(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "graspologic_native", None)
        pair, way_out = small_pair(), r'pip install "cellweft\[clustering\]"\. Or .*: cluster=False\.$'
        with pytest.raises(MissingExtraError, match=way_out) as caught:
            cellweft.evaluate_imputation(pair, ["no such method"], folds=3)
        assert "--no-clusters" in caught.value.fields(lambda one: "--no-clusters")["fix"]
        assert len(cellweft.evaluate_imputation(pair, ["mean"], folds=3, cluster=False))

    def test_the_demonstration_without_its_extra(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "jinja2", None)
        with pytest.raises(MissingExtraError, match=r'pip install "cellweft\[clustering,report\]"'):
            run_demo(tmp_path / "demo")
        assert not (tmp_path / "demo").exists()
