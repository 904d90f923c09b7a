"""The Snakemake wrappers and Nextflow modules: their files, and the results of their runs."""

import ast
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import typer
import yaml

import cellweft
from cellweft.cli import app
from cellweft.data.synthetic.tissue import SimulatedTissue

ROOT = Path(__file__).parents[1]
SNAKEMAKE, NEXTFLOW = ROOT / "pipelines" / "snakemake", ROOT / "pipelines" / "nextflow"
PAGE = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
WRAPPERS = ("check", "impute", "place")
MODULES = ("impute", "place")
FEW_STEPS = {
    "impute": "--set steps=5 --set level_steps=5 --no-reliability",
    "place": "--set steps=5 --set models=1",
}

MADE = {
    "impute": {"brain.zarr": "imputed.zarr"},
    "place": {"brain.placed.h5ad": "placed.h5ad", "brain.spots.h5ad": "spots.h5ad"},
}
"""Outputs of a module, and the file in `inputs` that each must equal."""

each_wrapper = pytest.mark.parametrize("name", WRAPPERS)
each_module = pytest.mark.parametrize("name", MODULES)


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


# Files


@each_wrapper
def test_a_wrapper_matches_its_description(name: str) -> None:
    meta = read_yaml(SNAKEMAKE / name / "meta.yaml")
    source = (SNAKEMAKE / name / "wrapper.py").read_text(encoding="utf-8")
    ast.parse(source)
    assert meta["name"] == f"cellweft {name}"
    assert f"cellweft {name} " in source
    for kind in ("input", "output", "params"):
        used = set(re.findall(rf'snakemake\.{kind}\.(?:get\("(\w+)"|(\w+))', source))
        used_names = {one or other for one, other in used} - {"get"}
        described = {key for entry in meta[kind] for key in entry}
        if kind == "output" and name == "check":
            assert "snakemake.output[0]" in source
        else:
            assert used_names == described


def environments() -> list[Path]:
    return [*SNAKEMAKE.rglob("environment.yaml"), *NEXTFLOW.rglob("environment.yml")]


def test_environments_install_cellweft_from_the_source_of_the_user() -> None:
    found = environments()
    assert len(found) == len(WRAPPERS) + len(MODULES)
    assert len({one.read_bytes() for one in found}) == 1
    # With the name alone it would be looked up on a package index, where anyone may register it.
    assert read_yaml(found[0])["dependencies"][-1] == {"pip": ["${CELLWEFT_SOURCE}"]}


@each_module
def test_a_module_matches_its_description(name: str) -> None:
    meta = read_yaml(NEXTFLOW / "modules" / "cellweft" / name / "meta.yml")
    source = module(name)
    assert meta["name"] == f"cellweft_{name}"
    assert source.startswith(f"process CELLWEFT_{name.upper()} {{")
    inputs = source.partition("input:")[2].partition("output:")[0]
    described = [key for entry in meta["input"] for one in _listed(entry) for key in one]
    assert re.findall(r"(?:val|path)[( ](\w+)", inputs) == described
    assert re.findall(r"emit: (\w+)", source) == list(meta["output"])
    # A heredoc ends at a line without indentation, which only works if no value contains a line break.
    assert source.count("<<-END_VERSIONS > versions.yml") == 2
    sections = re.findall(r"^    (\w+):$", source, flags=re.MULTILINE)
    assert sections == ["input", "output", "when", "script", "stub"]


def _listed(entry: Any) -> list[Any]:
    return entry if isinstance(entry, list) else [entry]


def module(name: str) -> str:
    return (NEXTFLOW / "modules" / "cellweft" / name / "main.nf").read_text(encoding="utf-8")


def commands() -> list[str]:
    text = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)).replace("\\\n", " ")
    return [line for line in text.splitlines() if line.startswith("cellweft ")]


@pytest.mark.parametrize("line", commands())
def test_the_commands_of_the_page_are_valid(line: str) -> None:
    understood(line.split()[1:])


def understood(words: list[str]) -> dict[str, Any]:
    """Return the parameters that the command line parses from words."""
    command = typer.main.get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    params: dict[str, Any] = command.make_context(words[0], list(words[1:])).params
    return params


def test_the_page_names_existing_files() -> None:
    paths = re.findall(r"`(pipelines/[^` ]+)`", PAGE)
    assert paths
    assert not [one for one in paths if not (ROOT / one).exists()]


# Runs


@pytest.fixture(scope="module")
def inputs(tissue: SimulatedTissue, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the two inputs and the results of the command line."""
    folder: Path = tmp_path_factory.mktemp("pair")
    tissue.sc.write_h5ad(folder / "atlas.h5ad")
    tissue.st.write_h5ad(folder / "tissue.h5ad")
    both = ["atlas.h5ad", "tissue.h5ad"]
    succeed(["cellweft", "impute", *both, "-o", "imputed.zarr", *FEW_STEPS["impute"].split()], folder)
    outputs = ["-o", "placed.h5ad", "--spots", "spots.h5ad"]
    succeed(["cellweft", "place", *both, *outputs, *FEW_STEPS["place"].split()], folder)
    return folder


def surroundings(folder: Path, *, first: Path | None = None) -> dict[str, str]:
    """Return an environment in which `cellweft` is the one of the tests, or the program in `first`."""
    paths = [str(first)] if first else []
    paths += [str(Path(sys.executable).parent), os.environ["PATH"]]
    own = {"PATH": os.pathsep.join(paths), "XDG_CACHE_HOME": str(folder / ".cache"), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own}


def succeed(words: list[str], folder: Path, **others: Any) -> str:
    run = subprocess.run(
        words,
        cwd=folder,
        env=surroundings(folder, **others),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout
    return run.stdout


def assert_same(made: Path, expected: Path) -> None:
    read = anndata.read_zarr if made.suffix == ".zarr" else anndata.read_h5ad
    one, other = read(made), read(expected)
    np.testing.assert_array_equal(one.X, other.X)
    assert one.obs.equals(other.obs)
    assert one.var.equals(other.var)
    assert set(one.obsm) == set(other.obsm)
    for key in one.obsm:
        np.testing.assert_array_equal(np.asarray(one.obsm[key]), np.asarray(other.obsm[key]))


@pytest.fixture
def snakemake() -> str:
    """The program of Snakemake."""
    found = shutil.which("snakemake")
    if found is None:
        pytest.skip("Snakemake is not on the PATH; scripts/test-pipelines brings one")
    return found


@pytest.mark.slow
def test_the_workflow_gives_the_results_of_the_command_line(
    snakemake: str, inputs: Path, tmp_path: Path
) -> None:
    config = read_yaml(SNAKEMAKE / "config.yaml") | FEW_STEPS | {"threads": 1, "mem_mb": 4000}
    config["pairs"] = {"brain": {"sc": str(inputs / "atlas.h5ad"), "st": str(inputs / "tissue.h5ad")}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    succeed([snakemake, "--cores", "1", "--snakefile", str(SNAKEMAKE / "Snakefile")], tmp_path)
    results = tmp_path / "results"
    assert_same(results / "brain.imputed.zarr", inputs / "imputed.zarr")
    assert_same(results / "brain.placed.h5ad", inputs / "placed.h5ad")
    assert_same(results / "brain.spots.h5ad", inputs / "spots.h5ad")
    assert json.loads((results / "brain.check.json").read_text())["command"] == "check"
    assert "Imputed 28 genes" in (tmp_path / "logs" / "brain.impute.log").read_text()


RECORDER = """#!/bin/sh
# In place of cellweft: writes down how it was called and what it finds, makes the output; dies once if asked
# to.
for word in "$@"; do printf '%s\\n' "$word"; done >> calls.txt
printf '%s\\n' "threads $OMP_NUM_THREADS" >> calls.txt
while [ $# -gt 0 ]; do
    case $1 in
    --output) output=$2 ;;
    --save-model) mkdir "$2" ;;
    --spots) touch "$2" ;;
    esac
    shift
done
if [ -d "$output.resume" ]; then touch went-on; fi
if [ -e die ]; then
    rm die
    mkdir -p "$output.resume"
    exit 137
fi
case $output in *.zarr) mkdir "$output" ;; ?*) touch "$output" ;; esac
rm -rf "$output.resume"
"""

RULES = """
rule impute:
    input:
        sc="a reference.h5ad", st="tissue.h5ad", genes="genes.txt", embedding="esm.parquet",
        gene_sets=["go.gmt", "own.gmt"], edges="string.tsv",
    output:
        imputed=directory("out/imputed.zarr"), model=directory("out/model"),
    log: "impute.log"
    params: extra="--preset stimpute --seed 3"
    threads: 2
    resources: mem_mb=lambda wildcards, attempt: attempt * 1000
    wrapper: "file:WRAPPERS/impute"

rule place:
    input: sc="a reference.h5ad", st="tissue.h5ad", genes="genes.txt"
    output: "out/placed.h5ad", spots="out/spots.h5ad"
    wrapper: "file:WRAPPERS/place"
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """Folder with rules, their inputs, which are empty, and a program that replaces cellweft."""
    (tmp_path / "Snakefile").write_text(RULES.replace("WRAPPERS", str(SNAKEMAKE)))
    for name in (
        "a reference.h5ad",
        "tissue.h5ad",
        "genes.txt",
        "esm.parquet",
        "go.gmt",
        "own.gmt",
        "string.tsv",
    ):
        (tmp_path / name).touch()
    write_recorder(tmp_path / "bin")
    return tmp_path


def write_recorder(folder: Path) -> None:
    folder.mkdir()
    recorder = folder / "cellweft"
    recorder.write_text(RECORDER)
    recorder.chmod(recorder.stat().st_mode | stat.S_IXUSR)


def calls(folder: Path) -> list[list[str]]:
    """Return the words of each call of the program that replaces cellweft; the last gives the threads."""
    lines = (folder / "calls.txt").read_text().splitlines()
    ends = [place + 1 for place, line in enumerate(lines) if line.startswith("threads ")]
    return [lines[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@pytest.mark.slow
def test_inputs_and_resources_become_options(snakemake: str, rules: Path) -> None:
    succeed([snakemake, "--cores", "2", "impute", "place"], rules, first=rules / "bin")
    imputed, placed = sorted(calls(rules))
    assert imputed.pop() == "threads 2"
    found = understood(imputed)
    assert (found["sc"], found["st"]) == (Path("a reference.h5ad"), Path("tissue.h5ad"))
    assert (found["output"], found["save_model"]) == (Path("out/imputed.zarr"), Path("out/model"))
    assert (found["memory"], found["genes"], found["embedding"]) == (
        "1000MB",
        "genes.txt",
        Path("esm.parquet"),
    )
    assert [str(one) for one in found["gene_sets"]] == ["go.gmt", "own.gmt"]
    assert [str(one) for one in found["edges"]] == ["string.tsv"]
    assert (found["preset"], found["seed"]) == ("stimpute", 3)
    assert placed.pop() == "threads 1"
    found = understood(placed)
    assert (found["output"], found["spots"]) == (Path("out/placed.h5ad"), Path("out/spots.h5ad"))
    assert (found["genes"], found["memory"]) == ("genes.txt", "4GB")


@pytest.mark.slow
def test_a_killed_job_resumes(snakemake: str, rules: Path) -> None:
    (rules / "die").touch()
    succeed([snakemake, "--cores", "2", "--retries", "1", "impute"], rules, first=rules / "bin")
    first, second = calls(rules)
    assert "--resume" in first
    assert second == ["2000MB" if word == "1000MB" else word for word in first]
    assert (rules / "went-on").exists()
    assert {one.name for one in (rules / "out").iterdir()} == {"imputed.zarr", "model"}


@pytest.mark.slow
def test_the_nextflow_workflow_gives_the_results_of_the_command_line(inputs: Path, tmp_path: Path) -> None:
    nextflow = shutil.which("nextflow")
    if nextflow is None:
        pytest.skip("Nextflow is not on the PATH; see https://www.nextflow.io/docs/latest/install.html")
    table = f"id,sc,st\nbrain,{inputs / 'atlas.h5ad'},{inputs / 'tissue.h5ad'}\n"
    (tmp_path / "pairs.csv").write_text(table)
    given = {"input": "pairs.csv", "impute_args": FEW_STEPS["impute"], "place_args": FEW_STEPS["place"]}
    (tmp_path / "params.json").write_text(json.dumps(given))
    (tmp_path / "small.config").write_text("process { cpus = 1; memory = 4.GB }\n")
    words = [nextflow, "run", str(NEXTFLOW / "main.nf"), "-params-file", "params.json", "-c", "small.config"]
    succeed([*words, "-stub-run", "--outdir", "stubs"], tmp_path)
    assert {one.name for one in (tmp_path / "stubs").iterdir()} == {
        "brain.zarr", "brain.placed.h5ad", "brain.spots.h5ad", "versions.yml"
    }  # fmt: skip
    succeed(words, tmp_path)
    results = tmp_path / "results"
    for one, expected in (MADE["impute"] | MADE["place"]).items():
        assert_same(results / one, inputs / expected)
    assert f"cellweft: {cellweft.__version__}" in (results / "versions.yml").read_text()


# What Nextflow does with a module can partly be seen without it: its language is Groovy, and a section of a
# process ends in the text of a Bash script, whose common indentation is taken away.

RENDER = """
def (path, section, given) = [args[0], args[1], new groovy.json.JsonSlurper().parseText(args[2])]
def text = new File(path).text
def (head, script, stub) = text.substring(0, text.lastIndexOf('}')).split('script:|stub:')
def body = section == 'script' ? script : stub
new GroovyShell().parse(head + section + ':' + body + '}')
if (given.task.memory) {
    def mega = given.task.memory
    given.task.memory = [toMega: { mega }]
}
print new GroovyShell(new Binding(given)).evaluate(body).toString().stripIndent()
"""


@pytest.fixture
def groovy(tmp_path: Path) -> Any:
    """Function that renders the Bash script of a section of a module with given inputs."""
    program, java = shutil.which("groovy"), shutil.which("java")
    if program is None or java is None:
        pytest.skip("Groovy, which reads the modules without Nextflow, is not on the PATH")
    (tmp_path / "render.groovy").write_text(RENDER)

    def render(name: str, section: str, given: Mapping[str, Any]) -> str:
        source = NEXTFLOW / "modules" / "cellweft" / name / "main.nf"
        run = subprocess.run(
            [program, str(tmp_path / "render.groovy"), str(source), section, json.dumps(given)],
            env={**os.environ, "JAVA_HOME": str(Path(java).resolve().parents[1])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    return render


def given(**others: Any) -> dict[str, Any]:
    """Return the variables that Nextflow passes to a section."""
    task = {"process": "CELLWEFT", "cpus": 1, "memory": 4000, "attempt": 1, "ext": {}} | others.pop(
        "task", {}
    )
    files = {"sc": "reference/atlas.h5ad", "st": "spatial/tissue.h5ad", "genes": []}
    return {
        "meta": {"id": "brain"},
        "task": task,
        "embedding": [],
        "gene_sets": [],
        "edges": [],
        **files,
    } | others


@pytest.mark.slow
@each_module
def test_scripts_of_the_modules_give_the_results_of_the_command_line(
    groovy: Any, inputs: Path, tmp_path: Path, name: str
) -> None:
    for folder, file in (("reference", "atlas.h5ad"), ("spatial", "tissue.h5ad")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).symlink_to(inputs / file)
    script = groovy(name, "script", given(task={"ext": {"args": FEW_STEPS[name]}}))
    succeed(["bash", "-euo", "pipefail", "-c", script], tmp_path)
    for one, expected in MADE[name].items():
        assert_same(tmp_path / one, inputs / expected)
    assert read_yaml(tmp_path / "versions.yml") == {"CELLWEFT": {"cellweft": cellweft.__version__}}


@pytest.mark.slow
def test_stubs_make_the_declared_outputs(groovy: Any, tmp_path: Path) -> None:
    for name in MODULES:
        succeed(["bash", "-euo", "pipefail", "-c", groovy(name, "stub", given())], tmp_path)
        for pattern in re.findall(r"path\('([^']+)'\)", module(name)):
            assert len(list(tmp_path.glob(pattern))) == 1
        assert read_yaml(tmp_path / "versions.yml") == {"CELLWEFT": {"cellweft": cellweft.__version__}}


@pytest.mark.slow
def test_inputs_of_a_module_become_options(groovy: Any, tmp_path: Path) -> None:
    network = {
        "embedding": "esm.parquet",
        "gene_sets": ["gene_sets/go.gmt", "gene_sets/own.gmt"],
        "edges": [],
    }
    task = {"cpus": 3, "memory": 2048, "ext": {"args": "--preset stimpute", "prefix": "brain_1"}}
    write_recorder(tmp_path / "bin")
    script = groovy("impute", "script", given(task=task, genes="genes.txt", **network))
    succeed(["bash", "-euo", "pipefail", "-c", script], tmp_path, first=tmp_path / "bin")
    words = calls(tmp_path)[0]
    assert words.pop() == "threads 3"
    found = understood(words)
    assert (found["output"], found["memory"], found["genes"]) == (Path("brain_1.zarr"), "2048MB", "genes.txt")
    assert found["embedding"] == Path("esm.parquet")
    assert [str(one) for one in found["gene_sets"]] == network["gene_sets"]
    assert not found["edges"]
    script = groovy("impute", "script", given(task={"memory": None}))
    assert "--memory" not in script


@pytest.mark.slow
@pytest.mark.parametrize("left", [True, False])
def test_a_second_attempt_resumes_the_first(groovy: Any, tmp_path: Path, left: bool) -> None:
    before, now = tmp_path / "before", tmp_path / "now"
    now.mkdir()
    if left:
        (before / "brain.zarr.resume").mkdir(parents=True)
    task = {"attempt": 2, "memory": 8000, "previousTrace": {"workdir": str(before)}}
    script = groovy("impute", "script", given(task=task))
    write_recorder(tmp_path / "bin")
    succeed(["bash", "-euo", "pipefail", "-c", script], now, first=tmp_path / "bin")
    assert "--resume" in calls(now)[0]
    assert (now / "went-on").exists() == left
    assert not left or not list(before.iterdir())
