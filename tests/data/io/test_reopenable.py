"""The pair does not depend on how an input is stored, and data on disk can be read in another process."""

import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import cloudpickle
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr

from cellweft._errors import FormatError, MissingFileError
from cellweft.data._pair import Pair, pair
from cellweft.data.io.backed_matrix import open_rows

Given = anndata.AnnData | Path
ROWS = [slice(None), slice(3, 9), np.array([11, 0, 0, 5]), np.array([], dtype=np.int64)]
GENES = [None, np.array([2, 0])]


def spatial() -> anndata.AnnData:
    counts = np.random.default_rng(5).poisson(1.0, (30, 6)).astype(np.float32)
    counts[:, 0] += 1
    counts[4] = 0
    made = anndata.AnnData(sp.csr_matrix(counts), var=pd.DataFrame(index=list("ABCDEF")))
    made.obs_names = [f"cell{number:03d}" for number in range(30)]
    made.obs["cell_type"] = pd.Categorical([None, *"xyy" * 9, "z", "z"])
    made.obs["section"] = ["one", "two"] * 15
    made.obs["total"] = counts.sum(axis=1)
    made.obsm["spatial"] = np.random.default_rng(6).random((30, 2))
    made.obsm["table"] = pd.DataFrame({"a": range(30)}, index=made.obs_names)
    made.uns["palette"] = {"x": np.array(["#000000"])}
    return made


def with_values(change: Callable[[sp.csr_matrix], Any]) -> anndata.AnnData:
    made = spatial()
    made.X = change(made.X)
    return made


def in_h5ad(folder: Path, made: anndata.AnnData, **how: Any) -> Path:
    made.write_h5ad(folder / "data.h5ad", **how)
    return folder / "data.h5ad"


def in_zarr(folder: Path, made: anndata.AnnData, form: int) -> Path:
    chosen = anndata.settings.override(zarr_write_format=form)
    with chosen, warnings.catch_warnings(action="ignore"):
        made.write_zarr(folder / "data.zarr")
    return folder / "data.zarr"


def in_shards(folder: Path) -> Path:
    group = zarr.open_group(in_zarr(folder, spatial(), 3), mode="r+", use_consolidated=False)["X"]
    for name in ("data", "indices", "indptr"):
        values = group[name][:]
        del group[name]
        group.create_array(name, data=values, chunks=(8,), shards=(24,))
    with warnings.catch_warnings(action="ignore"):
        zarr.consolidate_metadata(group.store)
    return folder / "data.zarr"


def backed(folder: Path, made: anndata.AnnData) -> anndata.AnnData:
    return anndata.read_h5ad(in_h5ad(folder, made), backed="r")


def view(made: anndata.AnnData) -> anndata.AnnData:
    return made[np.arange(30), list("ABCDEF")]


def of_dask(change: Callable[[sp.csr_matrix], Any]) -> anndata.AnnData:
    array = pytest.importorskip("dask.array")
    whole = change(spatial().X)
    blocks = [
        array.from_delayed(
            _delayed(whole[start : start + 7]), shape=(min(7, 30 - start), 6), dtype=np.float32
        )
        for start in range(0, 30, 7)
    ]
    made = spatial()
    made.X = array.concatenate(blocks, axis=0)
    return made


def _delayed(block: Any) -> Any:
    from dask import delayed

    return delayed(block, traverse=False)


KINDS: dict[str, Callable[[Path], Given]] = {
    "memory, sparse": lambda _: spatial(),
    "memory, dense": lambda _: with_values(lambda one: one.toarray()),
    "memory, by gene": lambda _: with_values(sp.csc_matrix),
    "memory, view": lambda _: view(spatial()),
    "memory, dense view": lambda _: view(with_values(lambda one: one.toarray())),
    "h5ad, sparse": lambda folder: in_h5ad(folder, spatial()),
    "h5ad, packed": lambda folder: in_h5ad(folder, spatial(), compression="gzip"),
    "h5ad, dense": lambda folder: in_h5ad(folder, with_values(lambda one: one.toarray())),
    "h5ad, by gene": lambda folder: in_h5ad(folder, with_values(sp.csc_matrix)),
    "backed, sparse": lambda folder: backed(folder, spatial()),
    "backed, dense": lambda folder: backed(folder, with_values(lambda one: one.toarray())),
    "backed, view": lambda folder: view(backed(folder, spatial())),
    "zarr v2": lambda folder: in_zarr(folder, spatial(), 2),
    "zarr v3": lambda folder: in_zarr(folder, spatial(), 3),
    "zarr v3, dense": lambda folder: in_zarr(folder, with_values(lambda one: one.toarray()), 3),
    "zarr v3, shards": in_shards,
    "Dask, dense": lambda _: of_dask(lambda one: one.toarray()),
    "Dask, sparse": lambda _: of_dask(lambda one: one),
}


def content(made: Pair) -> dict[str, Any]:
    """Everything that can be read from the spatial side of a pair, as arrays."""
    side = made.st
    blocks = [side.dense(rows, genes) for rows in ROWS for genes in GENES]
    blocks += [side.subset(np.array([8, 2])).dense(slice(None))]
    obs = side.obs
    return {
        **{f"block{number}": block for number, block in enumerate(blocks)},
        "shared": made.shared_genes,
        "places": np.concatenate([made.sc_shared, made.st_shared]),
        "coordinates": np.asarray(made.coordinates),
        "slices": np.asarray(made.slices, dtype=str),
        "types": np.asarray(made.st_labels, dtype=str),
        "totals": side.totals,
        "sizes": np.array([side.n_cells, side.target, side.sparsity, made.spacing]),
        "empty": side.empty_cells,
        "filled": side.gene_cells,
        "names": side.obs_names.to_numpy(dtype=str),
        "table": obs.astype(str).to_numpy(dtype=str),
        "columns": np.array([*map(str, obs.columns), *map(str, obs.index)]),
        "obsm": side.obsm["spatial"],
        "obsm table": side.obsm["table"].to_numpy(),
        "uns": np.array([str(one) for one in side.uns["palette"]["x"]]),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stored")


@pytest.fixture(scope="module")
def pairs(folder: Path) -> dict[str, Pair]:
    """A pair with the spatial side stored in every way that is available here."""
    import importlib.util

    sc = anndata.AnnData(
        np.random.default_rng(3).poisson(2.0, (25, 7)).astype(np.float32) + 1,
        obs=pd.DataFrame(index=[f"r{number}" for number in range(25)]),
        var=pd.DataFrame(index=list("FBACXYZ")),
    )
    made = {}
    for kind, make in KINDS.items():
        if kind.startswith("Dask") and importlib.util.find_spec("dask") is None:
            continue
        place = folder / kind.replace(", ", "_").replace(" ", "_")
        place.mkdir()
        made[kind] = pair(sc, make(place))
    return made


CHILD = """
import pickle, sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[2])
from test_reopenable import content
for path in Path(sys.argv[1]).glob("*.pickle"):
    with path.open("rb") as file:
        np.savez(path.with_suffix(".npz"), **content(pickle.load(file)))
"""


@pytest.fixture(scope="module")
def elsewhere(pairs: dict[str, Pair], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What another process, in another folder, reads from the pairs that were sent to it."""
    sent = tmp_path_factory.mktemp("sent")
    for number, made in enumerate(pairs.values()):
        (sent / f"{number}.pickle").write_bytes(pickle.dumps(made))
        (sent / f"{number}c.pickle").write_bytes(cloudpickle.dumps(made))
    here = str(Path(__file__).parent)
    command = [sys.executable, "-W", "ignore", "-c", CHILD, str(sent), here]
    subprocess.run(command, check=True, cwd=sent)
    return sent


@pytest.mark.parametrize("kind", list(KINDS)[1:])
def test_every_kind_gives_the_same_pair(kind: str, pairs: dict[str, Pair]) -> None:
    if kind not in pairs:
        pytest.skip("Dask is not installed")
    expected, found = content(pairs["memory, sparse"]), content(pairs[kind])
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    told = [
        {key: value for key, value in made.findings["spatial"].items() if key != "source"}
        for made in (pairs["memory, sparse"], pairs[kind])
    ]
    assert told[0] == told[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", ["", "c"], ids=["pickle", "cloudpickle"])
def test_another_process_reads_the_same(kind: str, by: str, pairs: dict[str, Pair], elsewhere: Path) -> None:
    if kind not in pairs:
        pytest.skip("Dask is not installed")
    found = np.load(elsewhere / f"{list(pairs).index(kind)}{by}.npz")
    for name, values in content(pairs[kind]).items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_data_on_disk_are_sent_as_a_path(tmp_path: Path) -> None:
    stream = np.random.default_rng(0)
    values = sp.csr_array(stream.random((3000, 50)) * (stream.random((3000, 50)) < 0.3))
    anndata.AnnData(values.astype(np.float32)).write_h5ad(tmp_path / "x.h5ad")
    with h5py.File(tmp_path / "x.h5ad") as file:
        sent = pickle.dumps(open_rows(file["X"]))
    assert len(sent) < 2000
    np.testing.assert_array_equal(
        pickle.loads(sent).read(np.array([7, 3])).toarray(), values[[7, 3]].toarray().astype(np.float32)
    )


def test_a_file_that_no_longer_exists_is_named(tmp_path: Path) -> None:
    path = in_h5ad(tmp_path, spatial())
    with h5py.File(path) as file:
        sent = pickle.dumps(open_rows(file["X"]))
    path.rename(tmp_path / "moved.h5ad")
    with pytest.raises(MissingFileError, match=r"data\.h5ad.*got nothing at this path.*at the same path"):
        pickle.loads(sent)
    with h5py.File(path, "w") as file:
        file["Y"] = 1
    with pytest.raises(FormatError, match=r"data\.h5ad: expected '/X/.*got no such element"):
        pickle.loads(sent)
