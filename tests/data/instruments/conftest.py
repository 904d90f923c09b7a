"""Small run folders with the file names and columns of each instrument, all of the same tissue and panel."""

import gzip
import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp
import zarr

N_CELLS, N_GENES = 24, 8
GENES = [f"Gene{number}" for number in range(N_GENES)]
COUNTS = np.random.default_rng(1).poisson(3.0, (N_CELLS, N_GENES)).astype(np.int32) + 1
XY = np.stack([np.arange(N_CELLS) % 6 * 12.5 + 0.25, np.arange(N_CELLS) // 6 * 11.0 + 4.5], axis=1)


def write_10x(
    path: Path, cells: Sequence[str], counts: np.ndarray = COUNTS, *, features: Sequence[tuple[str, str]] = ()
) -> None:
    """Write the .h5 file of Cell Ranger 3 and later; features that are not genes follow the genes."""
    names = [*GENES, *(name for name, _ in features)]
    kinds = ["Gene Expression"] * N_GENES + [kind for _, kind in features]
    more = np.ones((len(counts), len(features)), dtype=np.int32)
    by_cell = sp.csr_matrix(np.column_stack([counts, more]))
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array([one.encode() for one in cells])
        group["data"], group["indices"] = by_cell.data, by_cell.indices
        group["indptr"], group["shape"] = by_cell.indptr, by_cell.shape[::-1]
        parts = {"id": [f"ENS{one}" for one in names], "name": names, "feature_type": kinds}
        for key, values in (parts | {"genome": ["GRCh38"] * len(names)}).items():
            group[f"features/{key}"] = np.array([one.encode() for one in values])


def write_10x_folder(folder: Path, cells: Sequence[str], counts: np.ndarray = COUNTS) -> None:
    """Write matrix.mtx.gz, barcodes.tsv.gz and features.tsv.gz."""
    folder.mkdir(parents=True)
    with gzip.open(folder / "matrix.mtx.gz", "wb") as file:
        scipy.io.mmwrite(file, sp.coo_matrix(counts.T))
    lines = {
        "barcodes.tsv.gz": cells,
        "features.tsv.gz": [f"ENS{one}\t{one}\tGene Expression" for one in GENES],
    }
    for name, texts in lines.items():
        with gzip.open(folder / name, "wt") as file:
            file.write("".join(f"{one}\n" for one in texts))


XENIUM_CELLS = [f"aaaab{'abcdefghijklmnopqrstuvwx'[number]}cd-1" for number in range(N_CELLS)]
XENIUM_FEATURES = (
    ("NegControlProbe_00042", "Negative Control Probe"),
    ("NegControlCodeword_0500", "Negative Control Codeword"),
    ("UnassignedCodeword_0001", "Unassigned Codeword"),
    ("DeprecatedCodeword_0321", "Deprecated Codeword"),
)


def xenium_cells() -> pd.DataFrame:
    """Return the table of cells as Xenium Onboard Analysis 3 writes it."""
    totals = COUNTS.sum(axis=1)
    return pd.DataFrame(
        {
            "cell_id": XENIUM_CELLS,
            "x_centroid": XY[:, 0],
            "y_centroid": XY[:, 1],
            "transcript_counts": totals,
            "control_probe_counts": 1,
            "genomic_control_counts": 0,
            "control_codeword_counts": 1,
            "unassigned_codeword_counts": 1,
            "deprecated_codeword_counts": 1,
            "total_counts": totals + 4,
            "cell_area": 40.0 + np.arange(N_CELLS),
            "nucleus_area": [np.nan, *(20.0 + np.arange(N_CELLS - 1))],
            "nucleus_count": 1,
            "segmentation_method": "Segmented by boundary stain (ATP1A1+CD45+E-Cadherin)",
        }
    )


def make_xenium(folder: Path) -> Path:
    write_10x(folder / "cell_feature_matrix.h5", XENIUM_CELLS, features=XENIUM_FEATURES)
    specs = {"analysis_sw_version": "xenium-3.0.0.15", "pixel_size": 0.2125, "num_cells": N_CELLS}
    (folder / "experiment.xenium").write_text(json.dumps(specs))
    # The table need not follow the order of the counts.
    xenium_cells().iloc[::-1].to_parquet(folder / "cells.parquet", index=False)
    (folder / "analysis").mkdir()
    return folder


def make_merscope(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    cells = [str(1_234_567_890_123_400_000 + number) for number in range(N_CELLS)]
    counts = pd.DataFrame(COUNTS, columns=GENES, index=pd.Index(cells, name="cell"))
    counts.assign(**{"Blank-1": 5, "Blank-22": 3}).to_csv(folder / "cell_by_gene.csv")
    x, y = XY.T
    places = {"fov": 3, "volume": 500.0 + np.arange(N_CELLS), "center_x": x, "center_y": y}
    places |= {"min_x": x - 4, "min_y": y - 4, "max_x": x + 4, "max_y": y + 4, "anisotropy": 1.2}
    places |= {"transcript_count": COUNTS.sum(axis=1), "perimeter_area_ratio": 0.4, "solidity": 0.9}
    places |= {"DAPI_raw": 1e7, "DAPI_high_pass": 1e6}
    table = pd.DataFrame(places, index=pd.Index(cells, name="EntityID"))
    table.iloc[::-1].to_csv(folder / "cell_metadata.csv")
    (folder / "images").mkdir()
    np.savetxt(folder / "images" / "micron_to_mosaic_pixel_transform.csv", [[9, 0, 5], [0, 9, 7], [0, 0, 1]])
    return folder


COSMX_FOV = np.repeat([1, 2], N_CELLS // 2)
COSMX_CELL = np.tile(np.arange(1, N_CELLS // 2 + 1), 2)


def make_cosmx(folder: Path, *, packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    ending = ".csv.gz" if packed else ".csv"
    counts = pd.DataFrame(COUNTS, columns=GENES).assign(NegPrb3=2, Negative01=1, SystemControl12=1)
    keys = {"fov": COSMX_FOV, "cell_ID": COSMX_CELL}
    counts = pd.concat([pd.DataFrame(keys), counts], axis=1)
    outside = counts.iloc[[0, N_CELLS // 2]].assign(cell_ID=0, Gene0=9_999)
    pd.concat([outside, counts]).sort_values(["fov", "cell_ID"]).to_csv(
        folder / f"Run1_exprMat_file{ending}", index=False
    )
    local = {"CenterX_local_px": XY[:, 0], "CenterY_local_px": XY[:, 1]}
    places = {"CenterX_global_px": XY[:, 0] + COSMX_FOV * 4_000, "CenterY_global_px": XY[:, 1]}
    names = [f"c_1_{fov}_{cell}" for fov, cell in zip(COSMX_FOV, COSMX_CELL, strict=True)]
    measured = {"Area": 800 + np.arange(N_CELLS), "AspectRatio": 0.9, "Width": 30, "Height": 28}
    stains = {"Mean.PanCK": 100.0, "Max.PanCK": 200, "Mean.DAPI": 300.0, "Max.DAPI": 900}
    pd.DataFrame(keys | {"cell_id": names} | measured | local | places | stains).to_csv(
        folder / f"Run1_metadata_file{ending}", index=False
    )
    pd.DataFrame({"FOV": [1, 2], "x_global_px": [4_000, 8_000], "y_global_px": [0, 0]}).to_csv(
        folder / f"Run1_fov_positions_file{ending}", index=False
    )
    return folder


def make_visium(folder: Path, *, header: bool = True, raw: bool = False) -> Path:
    """Write a Visium run with 24 spots in the tissue, and with `raw` two more outside it."""
    spots = [f"AAACAAGTATCT{number:04}-1" for number in range(N_CELLS)]
    rows = {"in_tissue": 1, "array_row": np.arange(N_CELLS) // 6, "array_col": np.arange(N_CELLS) % 6}
    rows |= {"pxl_row_in_fullres": XY[:, 1], "pxl_col_in_fullres": XY[:, 0]}
    table = pd.DataFrame({"barcode": spots} | rows)
    outside = table.iloc[:2].assign(barcode=["TTTT0-1", "TTTT1-1"], in_tissue=0)
    (folder / "spatial").mkdir(parents=True)
    name = "tissue_positions.csv" if header else "tissue_positions_list.csv"
    pd.concat([outside, table]).to_csv(folder / "spatial" / name, index=False, header=header)
    factors = {"tissue_hires_scalef": 0.5, "tissue_lowres_scalef": 0.1, "spot_diameter_fullres": 4.0}
    (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    if raw:
        counts = np.concatenate([np.full((2, N_GENES), 7, dtype=np.int32), COUNTS])
        write_10x(folder / "raw_feature_bc_matrix.h5", ["TTTT0-1", "TTTT1-1", *spots], counts)
    else:
        write_10x(folder / "filtered_feature_bc_matrix.h5", spots)
    return folder


def make_visium_hd(folder: Path, sizes: Sequence[int] = (2, 8, 16)) -> Path:
    for size in sizes:
        bins = [f"s_{size:03}um_{number:05}_00001-1" for number in range(N_CELLS)]
        inside = folder / "binned_outputs" / f"square_{size:03}um"
        write_10x(inside / "filtered_feature_bc_matrix.h5", bins)
        rows = {"in_tissue": 1, "array_row": 0, "array_col": np.arange(N_CELLS)}
        rows |= {"pxl_row_in_fullres": XY[:, 1] * size, "pxl_col_in_fullres": XY[:, 0] * size}
        (inside / "spatial").mkdir()
        pd.DataFrame({"barcode": bins} | rows).to_parquet(inside / "spatial" / "tissue_positions.parquet")
    (folder / "feature_slice.h5").touch()
    return folder


def make_xenium_archives(folder: Path) -> Path:
    """Write only the files of Xenium Explorer: zipped zarr stores, with counts by feature."""
    (folder / "experiment.xenium").parent.mkdir(parents=True, exist_ok=True)
    (folder / "experiment.xenium").write_text("{}")
    numbers = np.stack([np.arange(N_CELLS) * 37 + 0xABCDEF, np.ones(N_CELLS)], axis=1).astype(np.uint32)
    names = [*GENES, *(name for name, _ in XENIUM_FEATURES)]
    kinds = ["Gene Expression"] * N_GENES + [kind for _, kind in XENIUM_FEATURES]
    more = np.ones((N_CELLS, len(XENIUM_FEATURES)), dtype=np.int32)
    by_feature = sp.csr_matrix(np.column_stack([COUNTS, more]).T)
    store = zarr.open_group(str(folder / "counts"), mode="w", zarr_format=2)
    group = store.create_group("cell_features")
    group.attrs.update({"feature_keys": names, "feature_ids": [f"ENS{one}" for one in names]})
    group.attrs.update({"feature_types": kinds, "number_cells": N_CELLS, "number_features": len(names)})
    for name in ("data", "indices", "indptr"):
        group.create_array(name, data=getattr(by_feature, name).astype(np.uint32))
    group.create_array("cell_id", data=numbers)
    store = zarr.open_group(str(folder / "places"), mode="w", zarr_format=2)
    store.create_array("cell_id", data=numbers)
    summary = np.column_stack([XY, np.full(N_CELLS, 40.0), XY, np.full((N_CELLS, 3), 1.0)])
    store.create_array("cell_summary", data=summary)
    for made, name in (("counts", "cell_feature_matrix.zarr"), ("places", "cells.zarr")):
        shutil.make_archive(str(folder / name), "zip", folder / made)
        shutil.rmtree(folder / made)
    return folder


BARCODES = [f"ACGTACGTAC{one}{two}TT" for one in "ACGTN" for two in "ACGTN"][:N_CELLS]


def make_slide_seq(folder: Path, *, later: bool = False) -> Path:
    """Write counts by gene, and the positions of the beads, one of which has no counts."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = pd.DataFrame(COUNTS.T, columns=BARCODES, index=pd.Index(GENES, name="GENE"))
    beads = pd.DataFrame({"barcodes": [*BARCODES[::-1], "TTTTTTTTTTTTTT"]})
    beads[["xcoord", "ycoord"]] = np.concatenate([XY[::-1], [[1.0, 2.0]]])
    if later:
        counts.to_csv(folder / "Puck_200115_08.digital_expression.txt.gz", sep="\t")
        beads.rename(columns={"barcodes": "barcode"}).to_csv(
            folder / "Puck_200115_08_bead_locations.csv", index=False
        )
    else:
        counts.to_csv(folder / "MappedDGEForR.csv")
        beads.to_csv(folder / "BeadLocationsForR.csv", index=False)
    return folder


def make_stereo_seq(folder: Path, *, cells: bool = True, columns: Sequence[str] = ()) -> Path:
    """Write a table of counts by position: two DNBs around each position, and some outside any cell."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for cell in range(N_CELLS):
        x, y = (XY[cell] * 4).astype(int)
        for gene, count in zip(GENES, COUNTS[cell], strict=True):
            rows += [(gene, x - 1, y, count - 1, cell + 1), (gene, x - 1 + count, y, 1, cell + 1)]
    rows += [("Gene0", 3, 900, 5, 0)] * cells
    table = pd.DataFrame(rows, columns=["geneID", "x", "y", "MIDCount", "CellID"])
    table = table[table["MIDCount"] > 0].sort_values(["geneID", "CellID"])
    table = table if cells else table.drop(columns="CellID")
    table.columns = pd.Index(columns) if columns else table.columns
    text = "#FileFormat=GEMv0.1\n#BinSize=1\n#OffsetX=0\n" + table.to_csv(sep="\t", index=False)
    with gzip.open(folder / "SS200000135TL_D1.cellbin.gem.gz", "wt") as file:
        file.write(text)
    return folder


MAKERS: dict[str, Callable[..., Path]] = {
    "xenium": make_xenium,
    "merscope": make_merscope,
    "cosmx": make_cosmx,
    "visium": make_visium,
    "visium_hd": make_visium_hd,
    "xenium_archives": make_xenium_archives,
    "slide_seq": make_slide_seq,
    "stereo_seq": make_stereo_seq,
}
UNITS = {"spatialdata": "", "xenium": "um", "merscope": "um", "xenium_archives": "um", "stereo_seq": "DNB"}


def make_spatialdata(folder: Path) -> Path:
    """Write a SpatialData store with one table whose cells have coordinates."""
    region = pd.Categorical(["cells"] * N_CELLS)
    obs = pd.DataFrame({"region": region, "cell_id": np.arange(N_CELLS)}, index=XENIUM_CELLS)
    table = anndata.AnnData(sp.csr_matrix(COUNTS), obs=obs, var=pd.DataFrame(index=pd.Index(GENES)))
    table.obsm["spatial"] = XY
    told = {"region": "cells", "region_key": "region", "instance_key": "cell_id"}
    table.uns["spatialdata_attrs"] = told
    store = folder.with_suffix(".zarr")
    zarr.open_group(store, mode="w", zarr_format=2).create_group("tables")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about changes in later versions of anndata
        table.write_zarr(store / "tables" / "table")
    return store


def xenium_name(number: int) -> str:
    """Return the name of a cell: eight hexadecimal digits written as a to p, and the dataset."""
    return "".join(chr(ord("a") + (number >> 4 * digit) % 16) for digit in range(7, -1, -1)) + "-1"


@dataclass(frozen=True)
class Expected:
    """The contents of every run, in the order of its counts."""

    counts: np.ndarray
    places: np.ndarray
    genes: list[str]
    names: list[str]
    unit: str


def expected(instrument: str) -> Expected:
    """Return the contents of the run that `make_run` writes without options."""
    names = {
        "xenium": XENIUM_CELLS,
        "merscope": [str(1_234_567_890_123_400_000 + number) for number in range(N_CELLS)],
        "cosmx": [f"{cell}_{fov}" for fov, cell in zip(COSMX_FOV, COSMX_CELL, strict=True)],
        "visium": [f"AAACAAGTATCT{number:04}-1" for number in range(N_CELLS)],
        "visium_hd": [f"s_008um_{number:05}_00001-1" for number in range(N_CELLS)],
        "xenium_archives": [xenium_name(number * 37 + 0xABCDEF) for number in range(N_CELLS)],
        "slide_seq": BARCODES,
        "stereo_seq": [str(cell + 1) for cell in range(N_CELLS)],
        "spatialdata": XENIUM_CELLS,
    }[instrument]
    places = XY + np.stack([COSMX_FOV * 4_000, COSMX_FOV * 0], axis=1) if instrument == "cosmx" else XY
    return Expected(
        counts=COUNTS,
        places=places * {"visium_hd": 8, "stereo_seq": 4}.get(instrument, 1),
        genes=GENES,
        names=names,
        unit=UNITS.get(instrument, "px"),
    )


@pytest.fixture(params=list(MAKERS))
def instrument(request: pytest.FixtureRequest) -> str:
    """Each of the instruments."""
    return str(request.param)


@pytest.fixture
def truth() -> Callable[[str], Expected]:
    """Function that returns the contents of a run."""
    return expected


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Function that writes the folder of a run."""

    def make(instrument: str, name: str = "run", **options: Any) -> Path:
        makers = MAKERS | {"spatialdata": make_spatialdata}
        return makers[instrument](tmp_path / name, **options)

    return make


@pytest.fixture
def write_counts() -> Callable[..., None]:
    """Function that writes a 10x .h5 file."""
    return write_10x


@pytest.fixture
def write_counts_folder() -> Callable[..., None]:
    """Function that writes a 10x folder."""
    return write_10x_folder


@pytest.fixture
def reference() -> anndata.AnnData:
    """Cells with the panel and as many further genes."""
    rng = np.random.default_rng(0)
    genes = [*GENES, *(f"More{number}" for number in range(N_GENES))]
    counts = sp.csr_matrix(rng.poisson(4.0, (40, len(genes))).astype(np.float32))
    obs = pd.DataFrame({"cell_type": rng.choice(["A", "B"], 40)}, index=[f"cell{n}" for n in range(40)])
    return anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=genes))
