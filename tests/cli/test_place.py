"""The command `cellweft place`: its outputs, what it prints, its errors, and files after an error."""

import hashlib
import json
import re
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from typer.testing import CliRunner

import cellweft
from cellweft.cli import app
from cellweft.data.synthetic.tissue import SimulatedTissue
from cellweft.place.placer import Placer

QUICK = {"steps": 8, "hidden": 16, "middle": 12, "latent": 6, "models": 2}
SETTINGS = [part for name, value in QUICK.items() for part in ("--set", f"{name}={value}")]


@pytest.fixture(scope="module")
def inputs(tissue: SimulatedTissue, tmp_path_factory: Any) -> Path:
    """Folder with the two inputs; the tests must not change it."""
    folder: Path = tmp_path_factory.mktemp("inputs")
    tissue.sc.write_h5ad(folder / "atlas.h5ad")
    tissue.st.write_h5ad(folder / "tissue.h5ad")
    return folder


@pytest.fixture
def both(inputs: Path) -> tuple[Path, Path]:
    """Paths of the two inputs."""
    return inputs / "atlas.h5ad", inputs / "tissue.h5ad"


@pytest.fixture
def place(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Function that runs `cellweft place` in an empty folder and checks that the inputs are unchanged."""
    before = fingerprints(inputs)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: Any) -> Any:
        return CliRunner().invoke(app, ["place", *map(str, arguments)])

    yield run
    assert fingerprints(inputs) == before
    assert not [one for one in tmp_path.rglob("*") if "partial" in one.suffix]


def fingerprints(folder: Path) -> dict[str, str]:
    return {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in sorted(folder.iterdir())}


def one_object(result: Any) -> dict[str, Any]:
    assert result.exit_code in (0, 2), result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def last_line(text: str) -> str:
    return text.rstrip("\n").rpartition("\n")[2]


def assert_refused(result: Any, *words: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.output
    for word in words:
        assert word in result.stderr


def read(path: Path) -> anndata.AnnData:
    return anndata.read_zarr(path) if path.suffix == ".zarr" else anndata.read_h5ad(path)


# Outputs


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_it_writes_the_result_of_the_placer(place: Any, both: Any, tmp_path: Path, suffix: str) -> None:
    outputs = ("-o", f"placed{suffix}", "--spots", f"spots{suffix}", "--genes", "Gene03,gene11")
    result = place(*both, *outputs, "--neighbors", 4, "--save-model", "model", "--seed", 3, *SETTINGS)
    assert result.exit_code == 0, result.output
    # no progress bars without a terminal
    assert re.fullmatch(r"([\w ]+: [\d,]+ of [\d,]+\n)*", result.stderr)
    lines = result.stdout.splitlines()
    assert lines[0].startswith("Inputs: 100 reference cells x 28 genes, 90 spatial cells")
    assert any(
        line.startswith("Plan: 100 cells on 90 spots by 12 genes, 16 training steps") for line in lines
    )
    assert last_line(result.stdout).startswith("Placed 100 cells on 90 spots, median confidence 0.")
    assert f"placed{suffix}, spots{suffix} (" in last_line(result.stdout)
    assert {one.name for one in tmp_path.iterdir()} == {f"placed{suffix}", f"spots{suffix}", "model"}

    pair = cellweft.pair(*both)
    placement = cellweft.Placer(settings=QUICK, seed=3).fit(pair).place()
    cells, spots = read(tmp_path / f"placed{suffix}"), read(tmp_path / f"spots{suffix}")
    np.testing.assert_array_equal(cells.obsm["cellweft_spatial"], placement.coordinates())
    table = placement.table()
    for name in table:
        assert cells.obs[f"cellweft_{name}"].tolist() == table[name].tolist()
    assert (cells.obsp["spatial_connectivities"] != placement.neighbors(4)).nnz == 0
    np.testing.assert_array_equal(spots.X, placement.impute(["Gene03", "Gene11"]).X)
    assert spots.var_names.tolist() == ["Gene03", "Gene11"]
    np.testing.assert_array_equal(spots.obsm["cellweft_proportions"], placement.deconvolve())
    for made in (cells, spots):
        assert made.uns["cellweft"]["seed"] == 3
        assert made.uns["cellweft"]["inputs"]["reference"]["path"] == str(both[0])
        assert made.uns["cellweft"]["settings"]["hidden"] == 16

    loaded = cellweft.load(tmp_path / "model")
    assert isinstance(loaded, Placer)
    np.testing.assert_array_equal(loaded.attach(pair).place().coordinates(), placement.coordinates())


@pytest.mark.slow
def test_as_json(place: Any, both: Any, tmp_path: Path) -> None:
    arguments = ("--spots", "spots.h5ad", "--preset", "stem", "--neighbors", 0, "--json", *SETTINGS)
    found = one_object(place(*both, "-o", "placed.h5ad", *arguments))
    assert set(found) == {
        "command", "output", "spots", "model", "cells", "n_spots", "slices", "model_genes",
        "median_confidence", "median_spread", "plan", "cautions", "seconds", "peak_bytes",
    }  # fmt: skip
    assert (found["command"], found["output"], found["spots"]) == ("place", "placed.h5ad", "spots.h5ad")
    assert (found["cells"], found["n_spots"], found["slices"], found["model_genes"]) == (100, 90, 1, 12)
    assert found["model"] is None
    assert 0 < found["median_confidence"] < 1
    assert found["median_spread"] > 0
    assert found["plan"]["steps"] == 16
    assert found["plan"]["peak_bytes"] > 4e8
    assert len(found["cautions"]) == len(cellweft.pair(*both).cautions)
    placed = anndata.read_h5ad(tmp_path / "placed.h5ad")
    assert len(placed.obsp) == 0
    assert placed.uns["cellweft"]["preset"] == "stem"
    assert placed.obs["cellweft_confidence"].median() == pytest.approx(found["median_confidence"])
    assert anndata.read_h5ad(tmp_path / "spots.h5ad").shape == (90, 0)


def test_quiet(place: Any, both: Any, tmp_path: Path) -> None:
    result = place(*both, "-o", "placed.h5ad", "--quiet", *SETTINGS)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Placed 100 cells on 90 spots")
    assert result.stdout.count("\n") == 1
    assert [one.name for one in tmp_path.iterdir()] == ["placed.h5ad"]


@pytest.mark.slow
def test_several_slices_in_three_dimensions(
    place: Any, both: Any, tissue: SimulatedTissue, tmp_path: Path
) -> None:
    spots = tissue.st.copy()
    spots.obs["slide"] = np.where(np.arange(90) < 50, "front", "back")
    spots.obsm["places"] = np.column_stack([spots.obsm.pop("spatial"), np.arange(90) % 5])
    spots.obsm["places"][:50] += 1e4
    spots.write_h5ad("slides.h5ad")
    arguments = ("--slices", "slide", "--coordinates", "obsm:places", "--spots", "spots.h5ad", *SETTINGS)
    result = place(both[0], "slides.h5ad", "-o", "placed.h5ad", *arguments)
    assert result.exit_code == 0, result.output
    assert "Placed 100 cells on 90 spots of 2 slices, median" in result.stdout
    placed = anndata.read_h5ad("placed.h5ad")
    assert placed.obsm["cellweft_spatial"].shape == (100, 3)
    assert {"cellweft_x", "cellweft_y", "cellweft_z", "cellweft_slice"} <= set(placed.obs)
    assert ((placed.obsm["cellweft_spatial"][:, 0] > 5e3) == (placed.obs["cellweft_slice"] == "front")).all()
    assert anndata.read_h5ad("spots.h5ad").obsm["spatial"].shape == (90, 3)


@pytest.mark.slow
def test_genes_come_from_a_file(place: Any, both: Any, tmp_path: Path) -> None:
    (tmp_path / "genes.txt").write_text("# asked for\nGene03\n\ngene11\n")
    result = place(*both, "-o", "placed.h5ad", "--spots", "spots.h5ad", "--genes", "genes.txt", *SETTINGS)
    assert result.exit_code == 0, result.output
    assert anndata.read_h5ad("spots.h5ad").var_names.tolist() == ["Gene03", "Gene11"]


@pytest.mark.slow
def test_cells_without_types_give_no_proportions(place: Any, both: Any, tissue: SimulatedTissue) -> None:
    for number, types in enumerate((None, ["all"] * 100)):
        cells = tissue.sc.copy()
        del cells.obs["cell_type"]
        if types:
            cells.obs["kind"] = types
        cells.write_h5ad("bare.h5ad")
        arguments = ("--spots", f"spots{number}.h5ad", *(["--labels", "kind"] if types else []), *SETTINGS)
        result = place("bare.h5ad", both[1], "-o", f"placed{number}.h5ad", *arguments)
        assert result.exit_code == 0, result.output
        assert "cellweft_proportions" not in anndata.read_h5ad(f"spots{number}.h5ad").obsm


@pytest.mark.slow
def test_the_same_seed_gives_the_same_positions(place: Any, both: Any) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        assert place(*both, "-o", f"{name}.h5ad", "--seed", seed, "--neighbors", 0, *SETTINGS).exit_code == 0
    a, b, c = (anndata.read_h5ad(f"{name}.h5ad").obsm["cellweft_spatial"] for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.01


# Errors


def write(data: anndata.AnnData, **changes: Any) -> Path:
    """Write a copy of an input, with some slots changed, to the working folder."""
    data = data.copy()
    for slot, value in changes.items():
        setattr(data, slot, value)
    data.write_h5ad("bad.h5ad")
    return Path("bad.h5ad").absolute()


def off_panel(data: anndata.AnnData, panel: pd.Index) -> sp.csr_matrix:
    """Return counts that are zero for all genes of the panel."""
    counts = data.X.toarray()
    counts[:, data.var_names.isin(panel)] = 0
    counts[:, ~data.var_names.isin(panel)] += 1
    return sp.csr_matrix(counts)


BAD_SPATIAL: dict[str, tuple[Callable[[SimulatedTissue], Path], list[str], tuple[str, ...]]] = {
    "without coordinates": (
        lambda made: write(made.st, obsm={}),
        [],
        ("coordinates", "--coordinates obsm:KEY"),
    ),
    "coordinates none": (
        lambda made: write(made.st),
        ["--coordinates", "none"],
        ("coordinates: expected spots with coordinates, to place cells on", "--coordinates obsm:KEY"),
    ),
    "one spot": (lambda made: write(made.st[:1]), [], ("at least 2 cells", "got 1 cell")),
    "identical coordinates": (
        lambda made: write(made.st, obsm={"spatial": np.full((90, 2), 7.0)}),
        [],
        ("expected cells at different positions", "got all 90 at (7, 7)"),
    ),
    "a slice for each spot": (
        lambda made: write(made.st, obs=pd.DataFrame({"own": made.st.obs_names}, index=made.st.obs_names)),
        ["--slices", "own"],
        (".obs['own']", "Choose a column in which all cells of a slice have the same value"),
    ),
    "NaN coordinates": (
        lambda made: write(
            made.st, obsm={"spatial": np.where(np.arange(180).reshape(90, 2) == 5, np.nan, 1.0)}
        ),
        [],
        ("spatial", "NaN"),
    ),
    "no shared genes": (
        lambda made: write(made.st, var_names=[f"Other{n}" for n in range(12)]),
        [],
        ("no shared gene", "same species"),
    ),
    "all spots empty": (
        lambda made: write(made.st, X=sp.csr_matrix(made.st.shape, dtype=np.float32)),
        [],
        ("all of them empty",),
    ),
    "one spot with counts": (
        lambda made: write(made.st[[4, 5]]),
        [],
        ("at least 2 spots with counts in a slice", "got 1 with counts in 2 spots"),
    ),
}


@pytest.mark.parametrize("name", BAD_SPATIAL)
def test_bad_spatial_data(place: Any, both: Any, tissue: SimulatedTissue, tmp_path: Path, name: str) -> None:
    make, options, words = BAD_SPATIAL[name]
    bad = make(tissue)
    before = bad.read_bytes()
    outputs = ("-o", "placed.h5ad", "--spots", "spots.zarr", "--save-model", "model")
    assert_refused(place(both[0], bad, *outputs, *options, *SETTINGS), *words)
    assert list(tmp_path.iterdir()) == [bad]
    assert bad.read_bytes() == before


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda made: write(made.sc, X=0 * made.sc.X), [], ("sc (", "all of them empty")),
        (
            lambda made: write(made.sc, X=off_panel(made.sc, made.st.var_names)),
            [],
            ("the reference data: expected cells with counts of the model's genes", "none in 100 cells"),
        ),
        (
            lambda made: write(made.sc),
            ["--labels", "cell_typ"],
            ("--labels cell_typ", "Did you mean 'cell_type'"),
        ),
        (lambda made: write(made.sc[:1]), [], ("sc (", "got 1 cell")),
    ],
    ids=["all cells empty", "empty in the shared genes", "labels missing", "one cell"],
)
def test_bad_reference(
    place: Any,
    both: Any,
    tissue: SimulatedTissue,
    tmp_path: Path,
    make: Any,
    options: list[str],
    words: tuple[str, ...],
) -> None:
    bad = make(tissue)
    assert_refused(place(bad, both[1], "-o", "placed.h5ad", *options, *SETTINGS), *words)
    assert list(tmp_path.iterdir()) == [bad]


BAD_OPTIONS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "dropout above 1": (["--set", "dropout=1.5"], ("dropout: expected a number from 0 to 0.99, got 1.5",)),
    "unknown setting": (["--set", "sigm=2"], ("--set sigm: expected a setting of STEM", "'sigma'")),
    "setting of the imputer": (["--set", "k=5"], ("--set k: expected a setting of STEM",)),
    "setting without a value": (["--set", "steps"], ("--set steps", "key=value")),
    "setting twice": (["--set", "steps=3", "--set", "steps=4"], ("each key once",)),
    "setting of another kind": (["--set", "steps=few"], ("steps: expected a whole number",)),
    "same file twice": (["--spots", "./placed.h5ad"], ("--spots: expected a separate path",)),
    "model in the place of an output": (
        ["-o", "a.zarr", "--save-model", "a.zarr"],
        ("--save-model: expected a separate path",),
    ),
    "genes without spots": (["--genes", "Gene01"], ("--genes Gene01", "no --spots", "--spots spots.h5ad")),
    "all genes": (
        ["--spots", "spots.h5ad", "--genes", "all"],
        ("--genes all", "To get all genes, run cellweft impute"),
    ),
    "unknown gene": (["--spots", "spots.h5ad", "--genes", "Gene01,Gene99"], ("'Gene99'", "Did you mean")),
    "gene twice": (["--spots", "spots.h5ad", "--genes", "Gene01,Gene01"], ("more than once",)),
    "missing file of genes": (["--spots", "spots.h5ad", "--genes", "genes.txt"], ("nothing at this path",)),
    "memory": (["--memory", "plenty"], ("memory: expected a size", "'plenty'")),
    "too little memory": (["--memory", "1MB"], ("memory: expected at least 4", "got 1 MB")),
    "suffix": (["-o", "out.csv"], (".zarr or .h5ad",)),
    "suffix of the spots": (["--spots", "spots.csv"], ("spots.csv", ".zarr or .h5ad")),
    "folder": (["-o", "no/such/out.zarr"], ("mkdir -p",)),
    "folder of the spots": (["--spots", "no/such/out.zarr"], ("mkdir -p",)),
    "folder of the model": (["--save-model", "no/such/model"], ("mkdir -p",)),
    "device": (["--device", "abacus"], ("device", "'abacus'")),
    "seed": (["--seed", "-1"], ("seed: expected a whole number",)),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_bad_options(place: Any, both: Any, tmp_path: Path, name: str) -> None:
    arguments, words = BAD_OPTIONS[name]
    assert_refused(place(*both, "-o", "placed.h5ad", *arguments), *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["--preset", "stim"], ["--neighbors", "-1"], ["--colour"], []])
def test_wrong_usage_exits_with_2(place: Any, both: Any, tmp_path: Path, arguments: list[str]) -> None:
    result = place(*both, *(["-o", "placed.h5ad", *arguments] if arguments else []))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert not list(tmp_path.iterdir())


def test_existing_outputs_are_refused_before_any_work(place: Any, tmp_path: Path) -> None:
    (tmp_path / "there.h5ad").write_text("earlier")
    (tmp_path / "model").mkdir()
    missing = ("missing.h5ad", "missing.h5ad")  # the command stops before it looks for them
    for outputs in (
        ("-o", "there.h5ad"),
        ("-o", "a.zarr", "--spots", "there.h5ad"),
        ("-o", "a.zarr", "--save-model", "model"),
    ):
        assert_refused(place(*missing, *outputs), "an existing output", "--overwrite")
    assert (tmp_path / "there.h5ad").read_text() == "earlier"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["model", "there.h5ad"]


@pytest.mark.slow
def test_outputs_are_replaced_on_request(place: Any, both: Any, tmp_path: Path) -> None:
    for name in ("placed.h5ad", "spots.h5ad"):
        (tmp_path / name).write_text("earlier")
    arguments = (
        "-o",
        "placed.h5ad",
        "--spots",
        "spots.h5ad",
        "--save-model",
        "model",
        "--overwrite",
        *SETTINGS,
    )
    for _ in range(2):
        assert place(*both, *arguments).exit_code == 0
    assert anndata.read_h5ad("placed.h5ad").shape == (100, 0)
    assert anndata.read_h5ad("spots.h5ad").shape == (90, 0)


@pytest.mark.parametrize("option", ["-o", "--spots"])
@pytest.mark.parametrize("victim", [0, 1])
def test_an_input_is_never_overwritten(
    place: Any, tissue: SimulatedTissue, tmp_path: Path, option: str, victim: int
) -> None:
    tissue.sc.write_h5ad("sc.h5ad")
    tissue.st.write_h5ad("st.h5ad")
    before = fingerprints(tmp_path)
    name = ("sc.h5ad", "st.h5ad")[victim]
    outputs = ("-o", name) if option == "-o" else ("-o", "placed.h5ad", "--spots", name)
    result = place("sc.h5ad", "st.h5ad", *outputs, "--overwrite", *SETTINGS)
    assert_refused(result, "a separate path", "cellweft never changes its inputs")
    assert fingerprints(tmp_path) == before


def test_a_result_that_needs_too_much_memory_leaves_nothing(place: Any, both: Any, tmp_path: Path) -> None:
    """The plan fits the budget, but imputing the requested genes on the spots does not."""
    genes = ("--spots", "spots.h5ad", "--genes", "Gene01")

    def refused(*_: object, **__: object) -> None:
        raise cellweft.errors.MemoryBudgetError(
            "memory", expected="at least 9 GB", got="4 GB", fix="Request fewer."
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellweft.Placement.impute", refused)
        assert_refused(place(*both, "-o", "placed.h5ad", *genes, *SETTINGS), "memory: expected at least 9 GB")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """Function that limits the size of files, to simulate a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("output", ["placed.zarr", "placed.h5ad"])
def test_a_full_disk(place: Any, both: Any, tmp_path: Path, small_files: Any, output: str) -> None:
    small_files(2000)
    result = place(*both, "-o", output, *SETTINGS)
    small_files(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    assert_refused(result, output, "the system error", "run again")
    assert not list(tmp_path.iterdir())


def test_an_interrupt_exits_with_130_and_leaves_nothing(
    place: Any, both: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cellweft.nn.stem.total_loss", interrupt)
    result = place(*both, "-o", "placed.zarr", *SETTINGS)
    assert result.exit_code == 130
    assert result.stderr == "Interrupted. Nothing incomplete was left behind.\n"
    assert not list(tmp_path.iterdir())


def test_an_error_as_json(place: Any, both: Any) -> None:
    result = place(*both, "-o", "placed.h5ad", "--coordinates", "none", "--json", *SETTINGS)
    error = one_object(result)["error"]
    assert list(error) == ["kind", "argument", "where", "expected", "got", "fix"]
    assert (error["kind"], error["argument"], error["where"]) == (
        "KeyMissingError",
        "coordinates",
        "--coordinates",
    )
    assert_refused(result, error["fix"])


def test_it_has_help_and_the_common_options(place: Any) -> None:
    result = place("--help")
    assert result.exit_code == 0
    assert "Estimate where each cell came from in the tissue" in result.stdout
    for option in ("--seed", "--device", "--json", "--quiet", "--spots", "--genes", "--save-model", "--set"):
        assert option in result.stdout
