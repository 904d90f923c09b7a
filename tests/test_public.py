"""The public names, and the examples in the README."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import cellweft
from cellweft.cli import app
from cellweft.data.synthetic.tissue import simulate_tissue

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    """Return all lines of the README that call cellweft, with continued lines joined."""
    text = "\n".join(blocks("sh")).replace("\\\n", " ")
    return [line.partition("#")[0] for line in text.splitlines() if line.startswith("cellweft ")]


@pytest.mark.parametrize("name", cellweft.__all__)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(cellweft, name) is not None
    assert name in dir(cellweft)


def test_the_errors_of_cellweft_are_all_public() -> None:
    def kinds(one: type) -> set[type]:
        return {one}.union(*(kinds(below) for below in one.__subclasses__()))

    own = [one for one in kinds(cellweft.CellweftError) if one.__module__ == "cellweft.errors"]
    assert {one.__name__ for one in own} == set(cellweft.errors.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="No cellweft attribute imputed"):
        cellweft.imputed  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.slow
def test_importing_a_module_does_not_overwrite_a_public_name() -> None:
    script = (
        "import cellweft, cellweft.data._pair, cellweft.evaluate.imputation; "
        "assert callable(cellweft.pair) and callable(cellweft.evaluate_imputation)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("code", ["import cellweft", "import cellweft.cli"])
def test_importing_cellweft_loads_nothing_heavy(code: str) -> None:
    heavy = {"torch", "matplotlib", "dask", "scanpy", "pandas", "anndata"}
    script = f"import sys; {code}; sys.stdout.write(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert not heavy & set(loaded.split())


def test_the_session_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Minimal training, without changing the text of the session.
    published, placer = cellweft.Imputer, cellweft.Placer

    def quick(**options: object) -> cellweft.Imputer:
        return published(settings={"steps": 3, "fold_steps": 3, "level_steps": 3}, **options)  # type: ignore[arg-type]

    def quick_placer(**options: object) -> cellweft.Placer:
        return placer(settings={"hidden": 8, "middle": 8, "latent": 4, "models": 1, "steps": 2}, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(cellweft, "Imputer", quick)
    monkeypatch.setattr(cellweft, "Placer", quick_placer)
    tissue = simulate_tissue(n_spatial=60, n_reference=60, n_genes=24, n_panel=12)
    for data in (tissue.sc, tissue.st):
        data.var_names = [
            re.sub("Gene0?4$", "Gad1", re.sub("Gene0?9$", "Sst", one)) for one in data.var_names
        ]
    tissue.st.obs["zonation"] = tissue.st.obsm["spatial"][:, 0]
    tissue.sc.write_h5ad("atlas.h5ad")
    tissue.st.write_h5ad("tissue.h5ad")
    session: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), session)
    assert (tmp_path / "imputed.zarr").is_dir()
    assert (tmp_path / "placed.h5ad").is_file()


@pytest.mark.parametrize("line", commands())
def test_the_commands_of_the_readme_are_valid(line: str) -> None:
    command = typer.main.get_command(app)
    name, *arguments = line.split()[1:]
    command.commands[name].make_context(name, arguments)  # type: ignore[attr-defined]


def test_the_readme_names_commands() -> None:
    assert {line.split()[1] for line in commands()} >= {"check", "impute", "place", "evaluate", "demo"}


@pytest.mark.parametrize(
    "path", ["scripts/demo", "scripts/test", "scripts/check", "scripts/test-slow", ".ci/run"]
)
def test_the_scripts_can_be_run_from_anywhere(path: str) -> None:
    script = ROOT / path
    assert script.stat().st_mode & 0o111, f"{path} is not executable"
    subprocess.run(["sh", "-n", script], check=True)
    assert 'dirname -- "$0"' in script.read_text()
