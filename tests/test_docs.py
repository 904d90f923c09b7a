"""The documentation site: tables of contents, valid commands, code that runs, and valid links."""

import ast
import importlib.util
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer

import cellweft
from cellweft.cli import app
from cellweft.data.synthetic.tissue import simulate_tissue
from cellweft.genes.esm.embedder import checked_proteins

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
IMPUTER = "api/generated/cellweft.Imputer"
MADE = ("_build", "results", "generated")
PAGES = sorted(
    path
    for kind in ("md", "rst", "ipynb")
    for path in DOCS.rglob(f"*.{kind}")
    if not {*MADE, "_templates"} & set(path.relative_to(DOCS).parts)
)
NOTEBOOKS = [path for path in PAGES if "{code-cell}" in path.read_text(encoding="utf-8")]
PAGE = (DOCS / "networks.md").read_text(encoding="utf-8")
NAMES = ["Gad1", "Gad2", "Slc32a1"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def named(path: Path) -> str:
    return path.relative_to(DOCS).as_posix()


def commands() -> list[str]:
    """Return all lines of the pages that call cellweft, with continued lines joined."""
    texts = [path.read_text(encoding="utf-8").replace("\\\n", " ") for path in PAGES]
    blocks = [block for text in texts for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)]
    lines = [line.split("#")[0] for line in "\n".join(blocks).splitlines()]
    found = {re.sub(r"^OMP_NUM_THREADS=\d+ ", "", line) for line in lines}
    return sorted(line for line in found if line.startswith("cellweft "))


@pytest.mark.parametrize("line", commands())
def test_the_commands_are_valid(line: str) -> None:
    command = typer.main.get_command(app)
    name, *arguments = shlex.split(line)[1:]
    command.commands[name].make_context(name, arguments)  # type: ignore[attr-defined]


def cells_of(page: Path) -> list[str]:
    """Return the code of a page that runs when the site is built."""
    text = page.read_text(encoding="utf-8")
    cells = re.findall(r"```\{code-cell\} ipython3\n(.*?)```", text, flags=re.DOTALL)
    return [re.sub(r"^(:\S+:.*\n)+", "", cell) for cell in cells]


@pytest.mark.parametrize("page", NOTEBOOKS, ids=named)
def test_the_code_of_a_page_parses_and_its_names_exist(page: Path) -> None:
    tree = ast.parse("\n".join(cells_of(page)))
    used = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    assert any(name.startswith("cellweft.") for name in used)
    for name in used:
        if not re.fullmatch(r"cellweft(\.\w+)+", name):
            continue
        found: Any = cellweft
        for part in name.split(".")[1:]:
            found = getattr(found, part)  # the error names the missing attribute


def test_every_page_is_in_a_table_of_contents() -> None:
    found = {"index"}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        trees = re.findall(r"```\{toctree\}\n(.*?)```", text, flags=re.DOTALL)
        trees += re.findall(r"\.\. toctree::\n((?:[ ]{3}.*\n|\n)+)", text)
        for line in "\n".join(trees).split():
            if not line.startswith(":"):
                found.add((page.parent / line).relative_to(DOCS).as_posix())
    assert {path.relative_to(DOCS).with_suffix("").as_posix() for path in PAGES} <= found


def documented() -> Counter[str]:
    """Return the names on the pages of public names, each with its module."""
    names: Counter[str] = Counter()
    for page in (DOCS / "api").glob("*.rst"):
        module, inside = "", False
        for line in page.read_text(encoding="utf-8").splitlines():
            if directive := re.match(r"\.\. (\w+)::\s*(\S*)", line):
                kind, what = directive.groups()
                module = what if kind in ("currentmodule", "module") else module
                inside = kind == "autosummary"
                names.update([f"{module}.{what}"] if kind.startswith("auto") and what else [])
            elif inside and (entry := re.fullmatch(r"   (\w+)", line)):
                names[f"{module}.{entry[1]}"] += 1
    return names


def test_every_public_name_is_documented_once() -> None:
    names = documented()
    namespaces = [name for name in cellweft.__all__ if inspect.ismodule(getattr(cellweft, name))]
    public = {f"cellweft.{name}" for name in cellweft.__all__ if name not in namespaces}
    for namespace in namespaces:
        public |= {f"cellweft.{namespace}.{name}" for name in getattr(cellweft, namespace).__all__}
    public.remove("cellweft.errors.CellweftError")  # listed with the top-level names
    assert public <= set(names)
    assert [name for name, count in names.items() if count > 1] == []
    own = [name for name in names if name.split(".")[1] in namespaces or name.count(".") == 1]
    assert [name for name in own if name not in public] == []


def test_every_namespace_is_documented() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.rst"))
    modules = re.findall(r"^\.\. module:: (\S+)$", text, flags=re.MULTILINE)
    namespaces = [name for name in cellweft.__all__ if inspect.ismodule(getattr(cellweft, name))]
    assert sorted(modules) == ["cellweft", *(f"cellweft.{name}" for name in namespaces)]


def test_the_page_on_the_code_names_existing_files() -> None:
    package = Path(cellweft.__file__).parent
    there = {name for path in package.rglob("*.py") for name in (path.stem, path.parent.name)}
    page = (DOCS / "house.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`[^|]+) \|", page, flags=re.MULTILINE)
    named = [name for cell in cells for name in re.findall(r"`(\w+)/?`", cell)]
    assert len(named) > 80
    assert [name for name in named if name not in there] == []


def test_the_version_is_shown() -> None:
    assert "cellweft.__version__" in (DOCS / "api" / "index.rst").read_text(encoding="utf-8")


def test_nothing_is_loaded_from_elsewhere() -> None:
    assets = [*(DOCS / "_static").glob("*.css"), *(DOCS / "_templates").rglob("*.rst"), DOCS / "conf.py"]
    for path in assets:
        assert "://" not in path.read_text(encoding="utf-8"), f"{path} names an address"


class TinyEmbedder:
    """A stand-in for a model of 650 million weights, with three numbers per protein."""

    def embed_to(self, proteins: str, output: str) -> None:
        genes = list(checked_proteins(proteins))
        values = np.random.default_rng(0).random((len(genes), 3), dtype=np.float32)
        pd.DataFrame(values, index=genes, columns=["0", "1", "2"]).to_parquet(output)


def test_the_python_sessions_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tissue = simulate_tissue(n_spatial=60, n_reference=60, n_genes=24, n_panel=12)
    names = dict(zip(tissue.sc.var_names[:3], NAMES, strict=True))
    for path, data in (("atlas.h5ad", tissue.sc), ("tissue.h5ad", tissue.st)):
        data.var_names = [names.get(one, one) for one in data.var_names]
        data.write_h5ad(path)
    Path("mouse.fa").write_text("".join(f">{name} x\nMASSTPSPAT\n" for name in NAMES))
    write_string(NAMES)

    published, find = cellweft.Imputer, cellweft.genes.find_proteins

    def quick(settings: dict[str, Any], **options: Any) -> cellweft.Imputer:
        blink = {"k": 5, "hidden": 4, "epochs": 1, "ae_epochs": 1}
        return published(settings=settings | blink, reliability=False, **options)

    def in_file(genes: str, organism: str) -> cellweft.genes.ProteinTable:
        return find(genes, organism=organism, proteome="mouse.fa")

    monkeypatch.setattr(cellweft, "Imputer", quick)
    monkeypatch.setattr(cellweft.genes, "find_proteins", in_file)
    monkeypatch.setattr(cellweft.genes, "ProteinEmbedder", TinyEmbedder)
    session: dict[str, Any] = {}
    first, *others = blocks("python")
    for block in (*others, first):  # the first block uses the edges of a later one
        exec(compile(block, "networks.md", "exec"), session)
    edges = cellweft.genes.read_edges("string.tsv")
    assert {frozenset(edges.genes[pair]) for pair in edges.pairs} == {frozenset(NAMES[:2])}
    np.testing.assert_allclose(edges.weights, [0.9])
    known = {name: part["known_genes"] for name, part in session["imputer"].network_.items()}
    assert known == {"embedding": 3, "gene_sets": 3, "edges": 2, "expression": 24}
    assert session["imputer"].network_["embedding"]["share"] == 2


def write_string(names: list[str]) -> None:
    """Write files in the format of STRING: a strong edge, a weak one, and one of a protein without a name."""
    ids = [f"10090.ENSMUSP{number:011}" for number in range(4)]
    info = pd.DataFrame({"#string_protein_id": ids[:3], "preferred_name": names, "annotation": 'a "b'})
    info.to_csv("10090.protein.info.v12.0.txt.gz", sep="\t", index=False, quoting=3)
    pairs = [(ids[0], ids[1], 900), (ids[1], ids[0], 900), (ids[0], ids[2], 400), (ids[0], ids[3], 950)]
    links = pd.DataFrame(pairs, columns=["protein1", "protein2", "combined_score"])
    links.to_csv("10090.protein.links.v12.0.txt.gz", sep=" ", index=False)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_point_to_existing_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [one for one in targets if "://" not in one and not (page.parent / one).exists()]
    assert not missing


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site without the output of its tutorials; the build fails on a warning."""
    if importlib.util.find_spec("sphinx") is None or importlib.util.find_spec("myst_nb") is None:
        pytest.skip("Sphinx is not installed; scripts/docs installs it")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-d", str(folder / "trees")]
    built = subprocess.run(
        [*command, "docs", str(folder / "html")],
        cwd=ROOT,
        env=os.environ | {"CELLWEFT_DOCS_EXECUTION": "off"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    return folder / "html"


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(site: Path) -> None:
    for page in PAGES:
        assert (site / page.relative_to(DOCS)).with_suffix(".html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize(
    "page", ["index", "auto", "stem", "cli", "tutorials/trust", "api/generated/cellweft.Imputer"]
)
def test_a_page_is_displayed_correctly(site: Path, browser: Any, page: str, width: int, scheme: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab, asked, said = context.new_page(), [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto((site / f"{page}.html").as_uri())
    assert said == []
    assert [url for url in asked if not url.startswith(("file://", "data:"))] == []
    # only tables and code may scroll sideways
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    lightness = tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]")
    assert (lightness > 200) == (scheme == "light")
    context.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", ["index", "start", "inputs", "accuracy", "api/generated/cellweft.Imputer"])
def test_a_page_is_accessible(site: Path, browser: Any, serious_faults: Any, page: str, scheme: str) -> None:
    context = browser.new_context(color_scheme=scheme)
    tab = context.new_page()
    tab.goto((site / f"{page}.html").as_uri())
    assert serious_faults(tab) == []
    context.close()


@pytest.mark.parametrize(
    ("question", "page", "answer"),
    [
        ("What is it?", "README.md", "weaves single cells into tissue"),
        ("What do I need?", "README.md", "You need Python 3.11 or newer"),
        ("How do I run it on my Xenium folder?", "docs/inputs.md", "cellweft impute atlas.h5ad output-XETG"),
        ("Can I trust it?", "docs/tutorials/trust.md", "cellweft evaluate atlas.h5ad tissue.h5ad"),
        ("Where is the API?", "docs/api/index.rst", "analysis of results"),
    ],
)
def test_questions_are_answered_on_pages_linked_from_the_readme(
    question: str, page: str, answer: str
) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert page in [*links, "README.md"]
    assert answer in (ROOT / page).read_text(encoding="utf-8")
