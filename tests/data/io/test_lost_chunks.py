"""A chunk that a zarr store lost is not read as zeros: refused where zeros cannot be, a caution elsewhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr
from typer.testing import CliRunner

import cellweft
from cellweft._errors import FormatError
from cellweft.cli import app
from cellweft.data.io.lost_chunks import lost_regions
from cellweft.data.io.read import open_input
from cellweft.data.io.write import ResultWriter
from cellweft.data.io.zarr_store import quiet_zarr

GENES = [f"g{number}" for number in range(6)]
NAMES = ("zarr.json", ".zarray", ".zattrs", ".zgroup")


def counts(n_cells: int = 8) -> np.ndarray:
    """Every cell has counts of every gene but g0, which no cell of the first half has."""
    made = np.random.default_rng(0).poisson(3.0, (n_cells, len(GENES))).astype(np.float32) + 1
    made[: n_cells // 2, 0] = 0
    return made


def chunk_files(path: Path) -> list[Path]:
    return sorted(one for one in path.rglob("*") if one.is_file() and one.name not in NAMES)


def consolidate(root: Any) -> None:
    with quiet_zarr():
        zarr.consolidate_metadata(root.store)


@pytest.fixture(params=[2, 3])
def write(request: Any, tmp_path: Path) -> Callable[..., Path]:
    """Function that writes a store of small chunks in either format of zarr."""

    def store(values: Any, name: str = "sc", *, chunks: tuple[int, int] = (4, 3), **obsm: Any) -> Path:
        obs = pd.DataFrame({"type": pd.Categorical(["a"] * 4 + ["b"] * 4)}, index=[f"c{n}" for n in range(8)])
        path = tmp_path / f"{name}.zarr"
        data = anndata.AnnData(obs=obs, var=pd.DataFrame(index=GENES), obsm=obsm)
        with anndata.settings.override(zarr_write_format=request.param), quiet_zarr():
            data.write_zarr(path)
        root = zarr.open_group(path, mode="r+", use_consolidated=False)
        shape = values.shape
        if not sp.issparse(values):
            array = root.create_array(
                "X", shape=shape, chunks=chunks, dtype="f4", fill_value=0, overwrite=True
            )
            array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
            array[:] = values
        else:
            if "X" in root:
                del root["X"]
            group = root.create_group("X")
            kind = f"{values.format}_matrix"
            group.attrs.update({"encoding-type": kind, "encoding-version": "0.1.0", "shape": list(shape)})
            for part in ("data", "indices", "indptr"):
                held = getattr(values, part)
                array = group.create_array(
                    part, shape=held.shape, chunks=(5,), dtype=held.dtype, fill_value=0
                )
                array[:] = held
        consolidate(root)
        return path

    return store


@pytest.fixture
def tissue() -> anndata.AnnData:
    made = anndata.AnnData(counts(), var=pd.DataFrame(index=GENES))
    made.obsm["spatial"] = np.arange(16.0).reshape(8, 2)
    return made


def test_chunks_of_zeros_are_left_out_and_fine_where_no_cell_is_empty(write: Any, tissue: Any) -> None:
    path = write(counts(), chunks=(4, 1))
    assert len(chunk_files(path / "X")) == 11  # of 12: g0 of the first half is zero
    made = cellweft.pair(path, tissue)
    assert any("missing, read as zeros: rows 0 to 3 x genes 'g0' to 'g0'" in one for one in made.cautions)


@pytest.mark.parametrize("place", range(4))
def test_a_lost_chunk_of_a_dense_matrix_is_a_caution_with_its_rows_and_genes(
    write: Any, tissue: Any, place: int
) -> None:
    path = write(counts())
    assert not any("chunk" in one for one in cellweft.pair(path, tissue).cautions)
    chunk_files(path / "X")[place].unlink()
    rows, genes = (("0 to 3", "4 to 7")[place // 2], ("'g0' to 'g2'", "'g3' to 'g5'")[place % 2])
    said = f"Reference: 1 chunk of the matrix missing, read as zeros: rows {rows} x genes {genes}"
    assert any(one.startswith(said) for one in cellweft.pair(path, tissue).cautions)


@pytest.mark.parametrize("chunks", [(4, 6), (4, 3), (8, 6)])
def test_cells_emptied_by_lost_chunks_are_refused_unless_accepted(
    write: Any, tissue: Any, chunks: Any
) -> None:
    path = write(counts(), chunks=chunks)
    for file in chunk_files(path / "X")[: 1 if chunks[1] == 6 else 2]:
        file.unlink()
    message = r"sc\.zarr\)\.X: expected counts in every cell .* missing, and [48] cells without any counts"
    with pytest.raises(FormatError, match=message + r".*missing_chunks='zeros'"):
        cellweft.pair(path, tissue)
    if chunks[0] == 4:
        made = cellweft.pair(path, tissue, missing_chunks="zeros")
        assert made.sc.empty_cells.sum() == 4
        assert any("missing" in one for one in made.cautions)


def test_the_same_holds_for_new_cells_and_for_a_tissue(write: Any, tissue: Any) -> None:
    path = write(counts(), spatial=np.arange(16.0).reshape(8, 2), chunks=(4, 6))
    chunk_files(path / "X")[0].unlink()
    made = cellweft.pair(tissue, tissue)
    with pytest.raises(FormatError, match="4 cells without any counts"):
        made.with_reference(path)
    assert made.with_reference(path, missing_chunks="zeros").sc.empty_cells.sum() == 4
    with pytest.raises(FormatError, match=r"st \(.*4 cells without any counts"):
        cellweft.pair(tissue, path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix])
@pytest.mark.parametrize("part", ["data", "indices", "indptr"])
def test_every_lost_chunk_of_a_sparse_matrix_is_refused(
    write: Any, tissue: Any, kind: Any, part: str
) -> None:
    path = write(kind(counts()))
    assert cellweft.pair(path, tissue).sc.gene_cells.tolist() == [4, 8, 8, 8, 8, 8]
    for file in chunk_files(path / "X" / part):
        held = file.read_bytes()
        file.unlink()
        with pytest.raises(
            FormatError, match=f"X: expected all chunks of a sparse .*1 chunk of {part} missing"
        ):
            cellweft.pair(path, tissue, missing_chunks="zeros")
        with pytest.raises(FormatError, match=f"1 chunk of {part} missing"):
            open_input(path, argument="sc").matrix and lost_regions(zarr.open_group(path)["X"], where="X")
        file.write_bytes(held)


def test_a_sparse_matrix_whose_zeros_were_left_out_is_taken(write: Any, tissue: Any) -> None:
    values = counts()
    values[:, 1:] = 0
    values[:, 0] = 2.0  # one value a cell, all of the first gene: no chunk of the places is written
    path = write(sp.csr_matrix(values))
    assert not chunk_files(path / "X" / "indices")
    made = cellweft.pair(path, tissue)
    assert made.sc.gene_cells.tolist() == [8, 0, 0, 0, 0, 0]
    assert any("chunks of the matrix missing" in one for one in made.cautions)
    early = np.zeros_like(values)
    early[6:] = counts()[6:]  # the first chunk of the starts is of zeros, and true
    made = cellweft.pair(write(sp.csr_matrix(early), "early"), tissue)
    assert made.sc.empty_cells.tolist() == [True] * 6 + [False] * 2


def test_lost_coordinates_are_refused_unless_accepted(write: Any, tissue: Any) -> None:
    path = write(counts(), "st", spatial=np.arange(16.0).reshape(8, 2))
    cellweft.pair(tissue, path)
    for file in chunk_files(path / "obsm" / "spatial"):
        file.unlink()
    with pytest.raises(
        FormatError, match=r"obsm\['spatial'\]: expected all chunks of the coord.*rows 0 to 7"
    ):
        cellweft.pair(tissue, path)
    with pytest.raises(FormatError, match=r"obsm\['spatial'\]: expected all chunks"):
        cellweft.pair(tissue, path, coordinates="obsm:spatial")
    assert cellweft.pair(tissue, path, coordinates="none").coordinates is None


def test_an_omitted_mask_of_a_table_of_coordinates_is_no_loss(write: Any, tissue: Any) -> None:
    values = {"x": np.arange(1, 9), "y": np.arange(2, 10)}
    table = pd.DataFrame({key: pd.array(held, dtype="Int64") for key, held in values.items()})
    path = write(counts(), "st", spatial=table.set_axis([f"c{n}" for n in range(8)]))
    masks = list((path / "obsm" / "spatial").rglob("mask"))
    assert masks
    assert not any(chunk_files(mask) for mask in masks)
    np.testing.assert_array_equal(cellweft.pair(tissue, path).coordinates[:, 1], values["y"])
    for file in chunk_files(path / "obsm" / "spatial" / "y"):
        file.unlink()
    with pytest.raises(FormatError, match=r"obsm\['spatial'\]: expected all chunks of the coordinates"):
        cellweft.pair(tissue, path)


def test_a_flat_tissue_is_taken(tmp_path: Path, write: Any, tissue: Any) -> None:
    places = np.column_stack([np.arange(1.0, 17.0).reshape(8, 2), np.zeros(8)])
    path = write(counts(), "st", spatial=places)
    root = zarr.open_group(path, mode="r+", use_consolidated=False)
    array = root.create_array(
        "obsm/spatial", shape=(8, 3), chunks=(4, 1), dtype="f8", fill_value=0, overwrite=True
    )
    array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    array[:] = places
    consolidate(root)
    assert len(chunk_files(path / "obsm" / "spatial")) == 4  # the third coordinate is zero everywhere
    np.testing.assert_array_equal(cellweft.pair(tissue, path).coordinates, places)
    chunk_files(path / "obsm" / "spatial")[0].unlink()
    with pytest.raises(FormatError, match=r"1 chunk missing \(rows 0 to 3\)"):
        cellweft.pair(tissue, path)


def test_coordinates_in_columns_are_looked_at_too(write: Any, tissue: Any) -> None:
    path = write(counts(), "st")
    root = zarr.open_group(path, mode="r+", use_consolidated=False)
    for name in ("x", "y"):
        array = root["obs"].create_array(name, shape=(8,), chunks=(4,), dtype="f8", fill_value=0)
        array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        array[:] = np.arange(1.0, 9.0)
    root["obs"].attrs["column-order"] = ["type", "x", "y"]
    consolidate(root)
    cellweft.pair(tissue, path)
    chunk_files(path / "obs" / "y")[1].unlink()
    for asked in (None, "obs:x,y"):
        with pytest.raises(FormatError, match=r"obs\['y'\]: .*rows 4 to 7.*missing_chunks='zeros'"):
            cellweft.pair(tissue, path, coordinates=asked)
    assert cellweft.pair(tissue, path, missing_chunks="zeros").coordinates[-1, 1] == 0


@pytest.mark.parametrize("table", ["obs", "var"])
def test_lost_names_are_refused(write: Any, table: str) -> None:
    path = write(counts())
    chunk_files(path / table / "_index")[0].unlink()
    with pytest.raises(FormatError, match=f"{table}_names: expected all chunks of the names, got 1 chunk"):
        open_input(path, argument="sc")


def test_annotation_of_one_category_is_no_loss(write: Any, tissue: Any) -> None:
    path = write(counts())
    for file in chunk_files(path / "obs" / "type" / "codes"):
        file.unlink()  # as zarr leaves them out where all cells are of the first category
    assert not any("chunk" in one for one in cellweft.pair(path, tissue).cautions)


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """A store of cellweft's, with a manifest; the cells have no counts in a chunk that was never written."""
    path = tmp_path / "made.zarr"
    obs, var = pd.DataFrame(index=[f"c{n}" for n in range(8)]), pd.DataFrame(index=GENES)
    values = counts()
    values[:4] = 0
    with ResultWriter(path, obs=obs, var=var, uns={}, chunk=(4, 6)) as writer:
        writer.write(slice(0, 8), slice(0, 6), values)
    return path


def test_the_manifest_of_a_result_is_checked_when_it_is_an_input(result: Path, tissue: Any) -> None:
    made = cellweft.pair(result, tissue)  # the manifest tells that the absent chunk was never written
    assert made.sc.empty_cells.sum() == 4
    assert not any("missing" in one for one in made.cautions)
    chunk_files(result / "X")[0].unlink()
    with pytest.raises(FormatError, match=r"X: expected all 1 chunks that were written, got 1 missing"):
        cellweft.pair(result, tissue)


def test_check_deep_compares_the_checksums(result: Path, tissue: Any, tmp_path: Path) -> None:
    def run(*arguments: Any) -> Any:
        return CliRunner().invoke(app, [str(one) for one in arguments])

    whole = run("check", result, "--deep")
    assert whole.exit_code == 0
    assert "all identical to what was written" in whole.stdout
    tissue.write_h5ad(tmp_path / "st.h5ad")
    both = run("check", result, tmp_path / "st.h5ad", "--deep")
    assert both.exit_code == 0
    assert "st.h5ad: no checksums" in both.stdout
    damaged = chunk_files(result / "X")[0]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    for arguments in ((result,), (result, tmp_path / "st.h5ad")):
        changed = run("check", *arguments, "--deep")
        assert changed.exit_code == 2
        assert "chunks with the bytes that were written" in changed.stderr
    alone = run("check", tmp_path / "st.h5ad", "--deep")
    assert alone.exit_code == 2
    assert "got no checksums" in alone.stderr
    without = run("check", result)
    assert without.exit_code == 2
    assert "check a single store: --deep." in without.stderr
