"""A killed run resumes where it stopped, with the same result as an uninterrupted run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

import cellweft
from cellweft._errors import OutputError, OutputExistsError, SettingError
from cellweft.data._pair import Pair
from cellweft.data.io.journal import MARK, PARTIAL, claim, kept_mark, resume_folder
from cellweft.data.io.sparse_write import SparseParts, kept_values
from cellweft.data.io.write import ResultWriter
from cellweft.data.io.zarr_store import check_manifest
from cellweft.data.synthetic.tissue import SimulatedTissue
from cellweft.genes.embeddings import EmbeddingTable
from cellweft.impute.attention import AttentionMethod
from cellweft.impute.imputer import Imputer
from cellweft.impute.stimpute import StImputeMethod
from cellweft.impute.tiling import Imputation

QUICK = {"steps": 5, "level_steps": 5, "fold_steps": 5}


@pytest.fixture(scope="module")
def auto(tissue_pair: Pair) -> Imputer:
    return Imputer(settings=QUICK, device="cpu").fit(tissue_pair)


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellweft.impute.planning._tile", lambda *_, **__: (16, 5))


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Simulate a full disk at the 8th block; clear the list to free space again."""
    write, left = ResultWriter.write, [7]

    def fail(
        self: ResultWriter, rows: slice, columns: slice, block: np.ndarray, *, layer: str | None = None
    ) -> None:
        if left:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(28, "No space left on device")
        write(self, rows, columns, block, layer=layer)

    monkeypatch.setattr(ResultWriter, "write", fail)
    return left


def partial_in(path: Path) -> Path:
    """Return the path of the incomplete output of a killed or failed run."""
    (partial,) = resume_folder(path).glob(f".*{PARTIAL}")
    return partial


def values_of(data: anndata.AnnData) -> np.ndarray:
    return data.X.toarray() if sp.issparse(data.X) else data.X


def same(one: anndata.AnnData, other: anndata.AnnData) -> None:
    np.testing.assert_array_equal(values_of(one), values_of(other))
    assert set(one.layers) == set(other.layers)
    for name in set(one.layers) - {None}:  # anndata 0.13 lists X as the layer None
        np.testing.assert_array_equal(one.layers[name], other.layers[name])
    pd.testing.assert_frame_equal(one.var, other.var)
    pd.testing.assert_frame_equal(one.obs, other.obs)


@pytest.mark.slow
@pytest.mark.usefixtures("small_tiles")
def test_a_resumed_run_does_not_score_the_genes_again(
    auto: Imputer, tmp_path: Path, failing: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "imputed.zarr"
    with pytest.raises(OutputError, match="No space left"):
        auto.impute_to(path, resume=True)
    failing.clear()
    whole = auto.impute()
    monkeypatch.setattr(Imputation, "var", None)
    made = anndata.read_zarr(auto.impute_to(path, resume=True))
    np.testing.assert_array_equal(made.X, whole.X)
    pd.testing.assert_frame_equal(made.var, whole.var, check_names=False)
    check_manifest(path, deep=True)


@pytest.mark.slow
@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("interval", [None, 0.9])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_failed_run_can_be_resumed(
    auto: Imputer,
    tmp_path: Path,
    failing: list[int],
    interval: float | None,
    dtype: cellweft._typing.OutputType,
) -> None:
    path = tmp_path / "imputed.zarr"
    with pytest.raises(OutputError, match=r"No space left.*all finished work is kept"):
        auto.impute_to(path, interval=interval, dtype=dtype, resume=True)
    written = (resume_folder(path) / "tiles.txt").read_text().split()
    assert len(written) == (7 if interval is None else 2)
    failing.clear()
    torn = partial_in(path) / "X" / "0.0.deadbeef.partial"
    torn.touch()
    blocks: list[str] = []
    auto.impute_to(
        path, interval=interval, dtype=dtype, resume=True, progress=lambda *step: blocks.append(step[0])
    )
    assert not list(path.rglob("*.partial"))
    assert blocks.count("impute") == 36 - len(written)
    auto.impute_to(tmp_path / "whole.zarr", interval=interval, dtype=dtype)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["imputed.zarr", "whole.zarr"]
    again, whole = (anndata.read_zarr(tmp_path / name) for name in ("imputed.zarr", "whole.zarr"))
    same(again, whole)
    assert again.X.dtype == dtype


def files_of(path: Path) -> dict[str, bytes]:
    """Return all arrays of a matrix X on disk."""
    matrix = path / "X"
    return {str(one.relative_to(matrix)): one.read_bytes() for one in matrix.rglob("*") if one.is_file()}


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a sparse matrix of 22 bands of 6 parts, in chunks of 100 values."""
    monkeypatch.setattr("cellweft.data.io.sparse_write._BAND_VALUES", 140)
    monkeypatch.setattr("cellweft.data.io.sparse_write._CHUNK", 100)


@pytest.mark.slow
@pytest.mark.usefixtures("small_tiles", "small_parts")
@pytest.mark.parametrize(
    ("interval", "dtype", "cut"), [(None, "float32", 0.05), (0.9, "float16", 0.3), (None, "float32", 0)]
)
def test_a_sparse_result_equals_the_dense_one_after_the_cut(
    auto: Imputer, tmp_path: Path, interval: float | None, dtype: cellweft._typing.OutputType, cut: float
) -> None:
    options: dict[str, Any] = {"interval": interval, "dtype": dtype}
    dense = anndata.read_zarr(auto.impute_to(tmp_path / "dense.zarr", **options))
    dense.X = np.where(kept_values(dense.X, cut), dense.X, 0).astype(np.float32)
    for suffix in (".zarr", ".h5ad"):
        path = auto.impute_to(tmp_path / f"sparse{suffix}", sparse=cut, **options)
        sparse = anndata.read_zarr(path) if suffix == ".zarr" else anndata.read_h5ad(path)
        assert sp.isspmatrix_csr(sparse.X)
        assert sparse.X.has_canonical_format
        same(sparse, dense)
        assert sparse.X.nnz == np.count_nonzero(dense.X)
        assert sparse.uns["cellweft"]["sparse"] == cut
        assert set(sparse.layers) - {None} == (set() if interval is None else {"lower", "upper"})
        assert (
            cellweft.pair(path, path, sc_scale="log", st_scale="log").sc.n_genes == 28
        )  # as for any other input
    assert "sparse" not in dense.uns["cellweft"]


@pytest.mark.slow
@pytest.mark.usefixtures("small_tiles", "small_parts")
def test_a_failed_sparse_run_can_be_resumed(auto: Imputer, tmp_path: Path, failing: list[int]) -> None:
    path = tmp_path / "imputed.zarr"
    with pytest.raises(OutputError, match="No space left"):
        auto.impute_to(path, sparse=0.1, resume=True)
    parts = resume_folder(path) / "parts"
    assert len(list(parts.iterdir())) == 6 * 4 + 2
    (parts / "0123.partial").touch()
    failing.clear()
    steps: list[str] = []
    auto.impute_to(path, sparse=0.1, resume=True, progress=lambda *step: steps.append(step[0]))
    assert (steps.count("impute"), steps.count("joining")) == (36 - 7, 22)
    whole = auto.impute_to(tmp_path / "whole.zarr", sparse=0.1)
    assert files_of(path) == files_of(whole)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["imputed.zarr", "whole.zarr"]


@pytest.mark.slow
@pytest.mark.usefixtures("small_tiles", "small_parts")
@pytest.mark.parametrize(("at", "resume"), [(0, True), (21, True), (11, False)])
def test_a_run_that_failed_while_joining_parts_can_be_resumed(
    auto: Imputer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, resume: bool
) -> None:
    path, read, left = tmp_path / "imputed.zarr", SparseParts._read, [at]

    def fail(self: SparseParts, band: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        return read(self, band)

    with monkeypatch.context() as patch:
        patch.setattr(SparseParts, "_read", fail)
        with pytest.raises(OutputError, match="No space left"):
            auto.impute_to(path, sparse=0.1, resume=resume)
    assert path.exists() is False
    if not resume:
        assert list(tmp_path.iterdir()) == []
        return
    steps: list[str] = []
    auto.impute_to(path, sparse=0.1, resume=True, progress=lambda *step: steps.append(step[0]))
    assert set(steps) == {"joining"}
    assert files_of(path) == files_of(auto.impute_to(tmp_path / "whole.zarr", sparse=0.1))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["imputed.zarr", "whole.zarr"]


@pytest.mark.slow
@pytest.mark.usefixtures("small_tiles")
def test_another_cut_starts_again(
    auto: Imputer, tmp_path: Path, failing: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "imputed.zarr"
    with pytest.raises(OutputError, match="No space left"):
        auto.impute_to(path, sparse=0.1, resume=True)
    failing.clear()
    auto.impute_to(path, sparse=0.2, resume=True)
    assert "another sparse" in caplog.text
    assert anndata.read_zarr(path).X.data.min() >= 0.2


KILLED = """
import os, signal
import cellweft, cellweft.impute.planning
from cellweft.data.io import sparse_write

cellweft.impute.planning._tile = lambda *_, **__: (16, 5)
sparse_write._BAND_VALUES, sparse_write._CHUNK = 140, 100

def progress(stage, n_done, n_values):
    if (stage, n_done) == ("joining", 15):
        os.kill(os.getpid(), signal.SIGKILL)

imputer = cellweft.load("model", device="cpu").attach(cellweft.pair("sc.h5ad", "st.h5ad"))
imputer.impute_to("imputed.zarr", sparse=0.1, resume=True, progress=progress)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("small_tiles", "small_parts")
def test_a_run_killed_while_joining_parts_can_be_resumed(
    tissue: SimulatedTissue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tissue.sc.write_h5ad("sc.h5ad")
    tissue.st.write_h5ad("st.h5ad")
    imputer = Imputer(settings=QUICK, reliability=False, device="cpu").fit(
        cellweft.pair("sc.h5ad", "st.h5ad")
    )
    imputer.save("model")
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED], env=os.environ | threads, capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (partial_in(Path("imputed.zarr")) / "X" / "data").is_dir()
    steps: list[str] = []
    path = imputer.impute_to(
        "imputed.zarr", sparse=0.1, resume=True, progress=lambda *step: steps.append(step[0])
    )
    assert set(steps) == {"joining"}
    assert files_of(path) == files_of(imputer.impute_to("whole.zarr", sparse=0.1))


@pytest.mark.slow
@pytest.mark.usefixtures("small_tiles")
def test_without_resume_nothing_remains(auto: Imputer, tmp_path: Path, failing: list[int]) -> None:
    with pytest.raises(OutputError, match="Nothing incomplete was left"):
        auto.impute_to(tmp_path / "imputed.zarr")
    assert failing
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("small_tiles")
def test_different_work_starts_again(
    auto: Imputer, tmp_path: Path, failing: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "imputed.zarr"
    with pytest.raises(OutputError, match="No space left"):
        auto.impute_to(path, resume=True)
    failing.clear()
    auto.impute_to(path, genes=["Gene03", "Gene21"], resume=True)
    assert "another genes" in caplog.text
    assert anndata.read_zarr(path).shape == (90, 2)


@pytest.mark.slow
def test_a_larger_budget_keeps_the_tiles(
    auto: Imputer, tmp_path: Path, failing: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "imputed.zarr"
    with monkeypatch.context() as patch:
        patch.setattr("cellweft.impute.planning._tile", lambda *_, **__: (16, 5))
        with pytest.raises(OutputError, match="No space left"):
            auto.impute_to(path, resume=True)
        assert kept_mark(path)["tiles"] == [16, 5]
    failing.clear()
    told: list[int] = []
    auto.impute_to(path, resume=True, progress=lambda _, done, total: told.append(done))
    assert told[0] > 16 * 5  # finished tiles are included
    np.testing.assert_allclose(anndata.read_zarr(path).X, auto.impute().X, rtol=0, atol=5e-6)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the name of the method whenever one is fitted."""
    fits: list[str] = []
    for method in (AttentionMethod, StImputeMethod):

        def fit(self: Any, *given: Any, learn: Any = method.fit) -> Any:
            fits.append(type(self).__name__)
            return learn(self, *given)

        monkeypatch.setattr(method, "fit", fit)
    return fits


@pytest.mark.slow
def test_a_fit_is_read_from_its_checkpoint(
    auto: Imputer, tissue_pair: Pair, tmp_path: Path, fits: list[str]
) -> None:
    folder = tmp_path / "fit"
    imputers = [Imputer(settings=QUICK, device="cpu").fit(tissue_pair, checkpoint=folder) for _ in range(2)]
    assert len(fits) == 1
    for imputer in imputers:
        np.testing.assert_array_equal(imputer.impute().X, auto.impute().X)
        assert imputer.impute().uns["cellweft"]["settings"] == auto.impute().uns["cellweft"]["settings"]
    assert sorted(one.name for one in folder.iterdir()) == sorted(["model", "request.json", MARK])
    (folder / "request.json").write_text("{")
    Imputer(settings=QUICK, device="cpu").fit(tissue_pair, checkpoint=folder)
    assert len(fits) == 2


@pytest.mark.slow
def test_a_checkpoint_of_different_work_is_not_used(
    tissue: SimulatedTissue, tissue_pair: Pair, tmp_path: Path, fits: list[str]
) -> None:
    def fit(on: Pair = tissue_pair, **options: Any) -> None:
        options = {"settings": QUICK, "device": "cpu", "reliability": False} | options
        Imputer(**options).fit(on, checkpoint=tmp_path / "fit")

    fit()
    for number, options in enumerate(({"seed": 1}, {"settings": QUICK | {"steps": 6}}), start=2):
        fit(**options)
        assert len(fits) == number
    known = tissue_pair.st.totals
    names, counts = tissue.st.var_names.tolist(), tissue.st.X.copy()
    relabelled, moved = tissue.st.copy(), tissue.st.copy()
    relabelled.var_names = [names[1], names[0], *names[2:]]
    counts = counts.toarray() if sp.issparse(counts) else counts
    counts[:, [0, 1]] = counts[:, [1, 0]]
    moved.X = counts
    for number, other in enumerate((relabelled, moved), start=4):
        pair = cellweft.pair(tissue.sc, other)
        np.testing.assert_array_equal(pair.st.totals, known)  # only the values differ
        fit(pair)
        assert len(fits) == number
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.get_num_threads", lambda: 77)  # the last bits of a fit depend on it
        fit(pair)
    assert len(fits) == 6


def test_gene_relations_with_other_values_start_again(
    tissue_pair: Pair, embeddings: EmbeddingTable, quick: dict[str, Any], tmp_path: Path, fits: list[str]
) -> None:
    table = tmp_path / "esm.parquet"
    for number, factor in enumerate((1, -1, -1), start=1):
        values = np.multiply(embeddings.values, np.linspace(1, factor, 16))
        frame = pd.DataFrame(values, index=embeddings.genes)
        frame.rename(columns=str).to_parquet(table)
        imputer = Imputer(preset="stimpute", settings=quick, embedding=table, reliability=False, device="cpu")
        imputer.fit(tissue_pair, checkpoint=tmp_path / "fit")
        assert len(fits) == min(number, 2)


def test_a_checkpoint_is_not_put_in_an_unrelated_folder(
    auto: Imputer, tissue_pair: Pair, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    with pytest.raises(OutputExistsError, match="mine: expected nothing at this path"):
        Imputer(device="cpu").fit(tissue_pair, checkpoint=tmp_path / "mine")
    with pytest.raises(OutputError, match="expected the output's folder, got nothing at this path"):
        Imputer(device="cpu").fit(tissue_pair, checkpoint=tmp_path / "no" / "fit")


@pytest.mark.parametrize("is_new", [True, False])
def test_a_checkpoint_that_cannot_be_written(
    tissue_pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_new: bool
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    folder = tmp_path / "fit"
    if not is_new:
        claim(folder)
        (folder / "tiles.txt").write_text("3\n")
    monkeypatch.setattr("cellweft._model_folder.save_file", fail)
    with pytest.raises(OutputError, match="No space left"):
        Imputer(settings=QUICK, reliability=False, device="cpu").fit(tissue_pair, checkpoint=folder)
    left = sorted(one.name for one in folder.iterdir()) if folder.exists() else []
    assert left == ([] if is_new else sorted(["tiles.txt", MARK]))


@pytest.mark.slow
@pytest.mark.usefixtures("small_tiles")
def test_tiles_of_other_values_start_again(
    tissue: SimulatedTissue, tmp_path: Path, failing: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Between the runs two genes of the tissue swap their names. The fit is the same, but no tile is."""
    path, names = tmp_path / "imputed.zarr", tissue.st.var_names.tolist()
    relabelled = tissue.st.copy()
    relabelled.var_names = [names[1], names[0], *names[2:]]
    first, second = cellweft.pair(tissue.sc, tissue.st), cellweft.pair(tissue.sc, relabelled)
    imputer = Imputer(settings=QUICK, reliability=False, device="cpu").fit(first)
    with pytest.raises(OutputError, match="No space left"):
        imputer.impute_to(path, resume=True)
    failing.clear()
    imputer.impute_to(path, pair=second, resume=True)
    assert "another spatial data: starting over" in caplog.text
    np.testing.assert_array_equal(anndata.read_zarr(path).X, imputer.impute(pair=second).X)


def test_only_a_store_can_be_resumed(auto: Imputer, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"resume: expected a \.zarr store"):
        auto.impute_to(tmp_path / "imputed.h5ad", resume=True)
    with pytest.raises(SettingError, match="dtype: expected"):
        auto.impute_to(tmp_path / "imputed.zarr", dtype="float64")  # type: ignore[arg-type]


@pytest.mark.slow
def test_half_precision_takes_half_the_space(auto: Imputer, tmp_path: Path) -> None:
    for suffix in (".zarr", ".h5ad"):
        half = auto.impute_to(tmp_path / f"half{suffix}", dtype="float16")
        read = anndata.read_zarr if suffix == ".zarr" else anndata.read_h5ad
        values = read(half).X
        assert values.dtype == np.float16
        np.testing.assert_allclose(values, auto.impute().X, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_a_killed_command_can_be_resumed(tmp_path: Path) -> None:
    """The system kills the command in the middle of its work."""
    tissue = cellweft.datasets.simulate_tissue(
        n_spatial=24_000, n_reference=60, n_genes=24, n_panel=12, seed=0
    )
    files = [str(tmp_path / name) for name in ("sc.h5ad", "st.h5ad")]
    tissue.sc.write_h5ad(files[0])
    tissue.st.write_h5ad(files[1])
    sets = [word for name in QUICK for word in ("--set", f"{name}=5")]
    command = [sys.executable, "-m", "cellweft", "impute", *files, "--device", "cpu", "--json", *sets]
    path = tmp_path / "imputed.zarr"
    tiles = resume_folder(path) / "tiles.txt"
    process = subprocess.Popen([*command, "-o", str(path)], stdout=subprocess.DEVNULL)
    while process.poll() is None and not (tiles.exists() and tiles.read_text()):
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert partial_in(path).exists()
    assert (resume_folder(path) / "model").is_dir()
    told = subprocess.run([*command, "-o", str(path), "--resume"], check=True, capture_output=True, text=True)
    assert json.loads(told.stdout)["cells"] == 24_000
    subprocess.run([*command, "-o", str(tmp_path / "whole.zarr")], check=True, stdout=subprocess.DEVNULL)
    same(anndata.read_zarr(path), anndata.read_zarr(tmp_path / "whole.zarr"))
    left = sorted(one.name for one in tmp_path.iterdir())
    assert left == ["imputed.zarr", "sc.h5ad", "st.h5ad", "whole.zarr"]
