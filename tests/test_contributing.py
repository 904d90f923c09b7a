"""The guide for contributors and the workflows match the repository."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import cellweft

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TEXTS = [ROOT / name for name in ("CONTRIBUTING.md", "CODE_OF_CONDUCT.md", "SECURITY.md")]
SCRIPTS = {path.name for path in (ROOT / "scripts").iterdir() if "." not in path.name and path.name[0] != "_"}
PLACEHOLDER = "github.com/OWNER/cellweft"


def jobs(path: Path) -> dict[str, dict]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_only_call_scripts_of_the_project(path: Path) -> None:
    steps = [step for job in jobs(path).values() for step in job["steps"]]
    for step in steps:
        assert ("run" in step) != ("uses" in step)
        if "run" in step:
            assert step["run"].removeprefix("scripts/") in SCRIPTS


def test_every_script_of_checks_has_a_workflow() -> None:
    run = {step.get("run") for path in WORKFLOWS for job in jobs(path).values() for step in job["steps"]}
    # `check` runs the tests, which include the demonstration; notebooks need data from outside the
    # repository.
    inside = {"demo", "test", "notebooks"}
    assert {f"scripts/{name}" for name in SCRIPTS - inside} <= run


def test_the_versions_of_python_are_those_of_the_classifiers() -> None:
    told = [one.removeprefix("Programming Language :: Python :: ") for one in PROJECT["classifiers"]]
    versions = [one for one in told if re.fullmatch(r"3\.\d+", one)]
    tests = jobs(ROOT / ".github" / "workflows" / "tests.yml")["check"]
    assert tests["strategy"]["matrix"]["python"] == versions
    assert PROJECT["requires-python"] == f">={versions[0]}"


def test_only_the_publishing_job_gets_a_token() -> None:
    for path in WORKFLOWS:
        whole = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert whole["permissions"] == {"contents": "read"}
        for name, job in whole["jobs"].items():
            assert job.get("permissions", {}) == ({"id-token": "write"} if name == "publish" else {})


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    """The lower bound of every package of the default suite is pinned exactly."""
    lines = (ROOT / "scripts" / "oldest.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    extras = PROJECT["optional-dependencies"]
    named = ("clustering", "dask", "datasets", "esm", "explain", "index", "plot", "report")
    texts = [*PROJECT["dependencies"], *(text for name in named for text in extras[name])]
    bounds = [Requirement(text) for text in texts if not text.startswith("cellweft")]
    pinned = {canonicalize_name(name): version for name, version in pins.items()}
    assert {canonicalize_name(one.name) for one in bounds} == pinned.keys()
    for one in bounds:
        (bound,) = (spec.version for spec in one.specifier if spec.operator == ">=")
        version = pinned[canonicalize_name(one.name)]
        assert Version(version) == Version(bound), f"{one} is pinned to {version}"


def test_the_pinned_versions_satisfy_the_requirements() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    for requirement in map(Requirement, PROJECT["dependencies"]):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


def test_every_script_is_documented() -> None:
    told = set(re.findall(r"`scripts/([\w-]+)`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    assert told >= SCRIPTS - {"demo"}
    assert told <= SCRIPTS


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        name, _, heading = target.partition("#")
        assert (ROOT / name).is_file(), target
        if heading:
            titles = re.findall(r"^#+ (.+)$", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def test_the_only_invented_address_is_the_placeholder() -> None:
    files = [
        *TEXTS,
        ROOT / "CITATION.cff",
        *(path for path in (ROOT / ".github").rglob("*") if path.is_file()),
    ]
    known = ("https://download.pytorch.org", f"https://{PLACEHOLDER}")
    for path in files:
        addresses = re.findall(r"https?://[^\s)\"']+", path.read_text(encoding="utf-8"))
        assert [one for one in addresses if not one.startswith(known)] == [], path
    assert "`OWNER` stands for it" in TEXTS[0].read_text(encoding="utf-8")


def test_the_diagram_names_existing_packages() -> None:
    picture = TEXTS[0].read_text(encoding="utf-8").partition("```mermaid")[2].partition("```")[0]
    package = Path(cellweft.__file__).parent
    names = {name for label in re.findall(r'\["([^"<]+)', picture)[1:] for name in label.split(", ")}
    assert {path.name for path in package.iterdir() if (path / "__init__.py").is_file()} <= names
    for name in names:
        assert (package / name).is_dir() or (package / f"{name}.py").is_file()


def test_the_citation_has_this_version_and_both_papers() -> None:
    about = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(about["version"]) == PROJECT["version"]
    assert about["license"] == PROJECT["license"]
    papers = {one["doi"]: one["authors"][0]["family-names"] for one in about["references"]}
    assert papers == {"10.1038/s42003-024-06964-2": "Zeng", "10.1038/s42003-023-05640-1": "Hao"}


@pytest.mark.parametrize("name", ["bug", "idea"])
def test_issue_forms_ask_questions(name: str) -> None:
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= form.keys()
    assert all(part["attributes"]["label"] for part in form["body"])


def test_fragments_of_the_changelog_have_a_kind_and_a_sentence() -> None:
    fragments = [path for path in (ROOT / "changelog.d").iterdir() if path.name != "README.md"]
    for path in fragments:
        assert re.fullmatch(r"\+[a-z0-9-]+\.(added|changed|fixed)\.md", path.name), path.name
        assert path.read_text(encoding="utf-8").strip().endswith("."), path.name
