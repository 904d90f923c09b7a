"""Round trips through the tools that read files of cellweft; scripts/test-formats runs them."""

import json
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr

import cellweft
from cellweft._errors import FormatError, InputError, KeyMissingError
from cellweft._provenance import SCHEMA_VERSION
from cellweft.data.export.cellxgene import check_cellxgene, write_cellxgene
from cellweft.data.export.spatialdata import OWN_SYSTEM, read_spatialdata, to_spatialdata
from cellweft.data.export.vitessce import write_vitessce
from cellweft.data.io.read import open_input
from cellweft.data.io.vendors import read_platform
from cellweft.data.io.write import write_anndata
from cellweft.data.spatial import find_coordinates
from cellweft.data.synthetic.tissue import SimulatedTissue

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # warnings of other packages
]


@pytest.fixture(scope="session")
def spatialdata() -> Any:
    """The package spatialdata."""
    with warnings.catch_warnings(action="ignore"):
        return pytest.importorskip("spatialdata", reason="runs in the environment of scripts/test-formats")


ROOT = Path(__file__).parents[1]
SCALE, SHIFT = 4.0, 100.0  # from the micrometres of the cells to "global"


@pytest.fixture
def make_sample(spatialdata: Any, tissue: SimulatedTissue) -> Callable[..., Any]:
    """Function that makes SpatialData from the tissue: circles or labels, and a table that annotates them."""
    from spatialdata.models import Labels2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Affine

    affine = Affine(
        [[SCALE, 0, SHIFT], [0, SCALE, 0], [0, 0, 1]], input_axes=("x", "y"), output_axes=("x", "y")
    )

    def make(*, kind: str = "circles", places: bool = True, systems: tuple[str, ...] = ("global",)) -> Any:
        cells = tissue.st.copy()
        xy = np.asarray(cells.obsm["spatial"], dtype=float)
        ids = np.arange(1, len(xy) + 1)[::-1].copy()  # in another order than the rows
        told = dict.fromkeys(systems, affine)
        if kind == "circles":
            shapes = ShapesModel.parse(
                xy, geometry=0, radius=1.0, index=pd.Index(ids), transformations=told
            ).sort_index()
            elements: dict[str, Any] = {"shapes": {"cells": shapes}}
        else:
            labels = np.zeros((200, 200), dtype=np.uint16)
            spots = np.stack(np.unravel_index(np.arange(len(xy)) * 400 + 5, labels.shape), axis=1)
            labels[spots[:, 0], spots[:, 1]] = ids
            xy = spots[:, ::-1] + 0.5
            elements = {
                "labels": {"cells": Labels2DModel.parse(labels, dims=("y", "x"), transformations=told)}
            }
        cells.obs["region"] = pd.Categorical(["cells"] * len(cells))
        cells.obs["cell_id"] = ids
        cells.obsm = {"spatial": xy} if places else {}
        table = TableModel.parse(cells, region="cells", region_key="region", instance_key="cell_id")
        return spatialdata.SpatialData(tables={"table": table}, **elements), xy

    return make


@pytest.fixture
def imputed(tissue: SimulatedTissue) -> anndata.AnnData:
    """A result of imputation: more genes, log-normalised, for all cells except the first two."""
    cells = tissue.st[2:]
    rng = np.random.default_rng(0)
    return anndata.AnnData(
        np.log1p(rng.poisson(2.0, (cells.n_obs, tissue.sc.n_vars))).astype(np.float32),
        obs=cells.obs.assign(cell_type=pd.Categorical(rng.choice(["A", "B", "C"], cells.n_obs))),
        var=pd.DataFrame({"measured": tissue.sc.var_names.isin(cells.var_names)}, index=tissue.sc.var_names),
        obsm={"spatial": np.asarray(cells.obsm["spatial"])},
        uns={"cellweft": {"schema_version": SCHEMA_VERSION, "seed": 0}},
    )


# Input: SpatialData -> cellweft


@pytest.mark.parametrize("kind", ["circles", "labels"])
@pytest.mark.parametrize("from_disk", [False, True])
def test_centroids_of_regions_are_coordinates(
    kind: str, *, from_disk: bool, make_sample: Any, tissue: SimulatedTissue, tmp_path: Path
) -> None:
    sample, xy = make_sample(kind=kind, places=False)
    if from_disk:
        sample.write(tmp_path / "sample.zarr")
        sample = tmp_path / "sample.zarr"
    pair = cellweft.pair(tissue.sc, sample)
    assert pair.coordinates is not None
    np.testing.assert_allclose(pair.coordinates, xy * SCALE + [SHIFT, 0], rtol=1e-5)
    made = read_spatialdata(sample)
    np.testing.assert_allclose(made.obsm["spatial"], pair.coordinates)
    assert made.uns["cellweft_coordinates"] == {"source": "middles of cells", "coordinate_system": "global"}


def test_coordinates_of_the_table_take_precedence(
    make_sample: Any, tissue: SimulatedTissue, tmp_path: Path
) -> None:
    sample, xy = make_sample()
    sample.write(tmp_path / "sample.zarr")
    for one in (sample, tmp_path / "sample.zarr", tmp_path / "sample.zarr" / "tables" / "table"):
        pair = cellweft.pair(tissue.sc, one)
        np.testing.assert_array_equal(pair.coordinates, xy)
    made = read_spatialdata(tmp_path / "sample.zarr", coordinate_system="global")
    np.testing.assert_allclose(made.obsm["spatial"], xy * SCALE + [SHIFT, 0], rtol=1e-5)
    with pytest.raises(KeyMissingError, match=r"coordinate_system='globl'.*Did you mean 'global'"):
        read_spatialdata(sample, coordinate_system="globl")


def test_coordinate_systems_can_be_chosen(make_sample: Any) -> None:
    sample, xy = make_sample(places=False, systems=("left", "right"))
    with pytest.raises(KeyMissingError, match="expected a coordinate system of 'cells', got none"):
        read_spatialdata(sample)
    assert read_spatialdata(sample, coordinate_system="right").obsm["spatial"].shape == xy.shape
    alone, _ = make_sample(places=False, systems=("left",))
    assert read_spatialdata(alone).uns["cellweft_coordinates"]["coordinate_system"] == "left"


def test_rows_that_annotate_nothing_are_reported(make_sample: Any) -> None:
    sample, _ = make_sample(places=False)
    sample.tables["table"].obs["cell_id"] += 50
    found = open_input(sample, argument="st")
    with pytest.raises(
        InputError, match=r"cell_id: expected instances of 'cells', got 50 that the region does not have"
    ):
        find_coordinates(found.obs, found.obsm, None)


# Output: SpatialData -> cellweft -> SpatialData


@pytest.fixture
def round_trip(make_sample: Any, imputed: anndata.AnnData, tmp_path: Path) -> Path:
    """A store with the imputed table next to the measured one."""
    sample, _ = make_sample()
    sample.write(tmp_path / "sample.zarr")
    write_anndata(imputed, tmp_path / "imputed.zarr")
    path: Path = to_spatialdata(
        tmp_path / "imputed.zarr", tmp_path / "sample.zarr", output=tmp_path / "both.zarr"
    )
    return path


def test_the_store_opens_with_both_tables(
    spatialdata: Any, round_trip: Path, imputed: anndata.AnnData
) -> None:
    both = spatialdata.read_zarr(round_trip)
    made = both.tables["imputed"]
    np.testing.assert_array_equal(made.X, imputed.X)
    assert made.obs_names.tolist() == imputed.obs_names.tolist()
    theirs = both.tables["table"].obs.loc[made.obs_names, ["region", "cell_id"]]
    assert made.obs["cell_id"].tolist() == theirs["cell_id"].tolist()
    assert made.obs["region"].tolist() == theirs["region"].tolist()
    spatialdata.models.TableModel().validate(made)
    elements, _ = spatialdata.join_spatialelement_table(
        sdata=both, spatial_element_names=["cells"], table_name="imputed", how="right"
    )
    assert elements["cells"].index.tolist() == made.obs["cell_id"].tolist()
    values = spatialdata.get_values(
        "Gene003" if "Gene003" in made.var_names else made.var_names[0],
        sdata=both,
        element_name="cells",
        table_name="imputed",
    )
    assert len(values) == len(imputed)


def test_in_memory_all_other_elements_are_shared(make_sample: Any, imputed: anndata.AnnData) -> None:
    sample, _ = make_sample()
    both = to_spatialdata(imputed, sample)
    assert set(sample.tables) == {"table"}
    assert both.shapes["cells"] is sample.shapes["cells"]
    np.testing.assert_array_equal(both.tables["imputed"].X, imputed.X)
    assert cellweft.pair(imputed[:, :5].copy(), both).st.n_cells == 90


@pytest.fixture
def placed(tissue: SimulatedTissue) -> anndata.AnnData:
    """A result of placement."""
    rng = np.random.default_rng(1)
    cells = anndata.AnnData(obs=tissue.sc.obs.assign(cellweft_confidence=rng.random(tissue.sc.n_obs)))
    cells.obsm["cellweft_spatial"] = np.asarray(tissue.st.obsm["spatial"])[
        rng.integers(0, 90, tissue.sc.n_obs)
    ]
    return cells


@pytest.mark.parametrize(
    ("shift", "places", "system"), [(0.0, True, "global"), (1000.0, True, OWN_SYSTEM), (0.0, False, "global")]
)
def test_placed_cells_are_points_in_the_coordinates_of_the_tissue(
    shift: float,
    *,
    places: bool,
    system: str,
    spatialdata: Any,
    make_sample: Any,
    placed: Any,
    tmp_path: Path,
) -> None:
    sample, xy = make_sample(places=places)
    if shift:
        sample.tables["table"].obsm["spatial"] = xy + [shift, 0] * np.array([1.0, 2.0]) + xy[::-1]
    sample.write(tmp_path / "sample.zarr")
    to_spatialdata(placed, tmp_path / "sample.zarr")
    both = spatialdata.read_zarr(tmp_path / "sample.zarr")
    points = both.points["placed"]
    assert points["cell"].compute().tolist() == placed.obs_names.tolist()
    assert set(spatialdata.transformations.get_transformation(points, get_all=True)) == {system}
    moved = spatialdata.transform(points, to_coordinate_system=system).compute()[["x", "y"]].to_numpy()
    if system == OWN_SYSTEM or not places:  # cellweft read coordinates that were already "global"
        np.testing.assert_allclose(moved, placed.obsm["cellweft_spatial"])
    else:
        np.testing.assert_allclose(moved, placed.obsm["cellweft_spatial"] * SCALE + [SHIFT, 0])
    in_memory = to_spatialdata(placed, sample)
    assert in_memory.points["placed"]["cell"].compute().tolist() == placed.obs_names.tolist()


# Other tools


def test_squidpy_accepts_the_imputed_table(spatialdata: Any, round_trip: Path) -> None:
    squidpy = pytest.importorskip("squidpy")
    table = spatialdata.read_zarr(round_trip).tables["imputed"]
    squidpy.gr.spatial_neighbors(table, coord_type="generic", n_neighs=6)
    squidpy.gr.nhood_enrichment(table, cluster_key="cell_type", n_perms=20, seed=0, show_progress_bar=False)
    assert np.isfinite(table.uns["cell_type_nhood_enrichment"]["zscore"]).all()
    squidpy.gr.spatial_autocorr(table, mode="moran", genes=table.var_names[:5].tolist())
    assert len(table.uns["moranI"]) == 5


@pytest.fixture
def napari_spatialdata(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package napari-spatialdata, without a display."""
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    pytest.importorskip("napari", reason="runs in the environment of scripts/test-formats")
    from pyqtgraph.Qt import QtCore

    if not hasattr(QtCore, "pyqtSignal"):  # the PyQt name of the class, which version 0.7 needs
        QtCore.pyqtSignal = QtCore.Signal
    return pytest.importorskip("napari_spatialdata")


def test_napari_reads_the_store(
    spatialdata: Any, napari_spatialdata: Any, round_trip: Path, placed: anndata.AnnData
) -> None:
    import napari
    from napari_spatialdata.utils._utils import get_elements_meta_mapping

    to_spatialdata(placed, round_trip)
    reader = napari_spatialdata.get_reader(str(round_trip))
    assert reader(str(round_trip)) == [(None,)]
    napari.current_viewer().close()
    both = spatialdata.read_zarr(round_trip)
    found, _ = get_elements_meta_mapping([both], ["global"], [])
    kinds = {one["original_name"]: one["element_type"] for one in found.values()}
    assert kinds == {"cells": "shapes", "placed": "points"}


def test_scanpy_accepts_the_imputed_file(imputed: anndata.AnnData, tmp_path: Path) -> None:
    scanpy = pytest.importorskip("scanpy")
    pytest.importorskip("squidpy", reason="runs in the environment of scripts/test-formats")
    write_anndata(imputed, tmp_path / "imputed.h5ad")
    made = scanpy.read_h5ad(tmp_path / "imputed.h5ad")
    scanpy.tl.rank_genes_groups(made, "cell_type", method="wilcoxon")
    assert scanpy.get.rank_genes_groups_df(made, "A").shape[0] == imputed.n_vars
    axes = scanpy.pl.dotplot(made, made.var_names[:4].tolist(), groupby="cell_type", show=False)
    assert axes


def run_in(environment: str, code: str, *arguments: Path) -> Any:
    """Run code in an environment of scripts/test-formats, and return the JSON that it prints."""
    python = ROOT / ".venv-formats" / environment / "bin" / "python"
    if not python.exists():
        pytest.skip(f"{environment} is installed by scripts/test-formats")
    asked = [str(python), "-W", "ignore", "-c", code, *map(str, arguments)]
    run = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_vitessce_reads_the_configuration(imputed: anndata.AnnData, tmp_path: Path) -> None:
    write_anndata(imputed, tmp_path / "imputed.zarr")
    path = write_vitessce(tmp_path / "imputed.zarr", tmp_path / "view.json", columns=["cell_type"])
    code = """
import json, sys, vitessce
read = vitessce.VitessceConfig.from_dict(json.load(open(sys.argv[1])))
kinds = (vitessce.ViewType, vitessce.CoordinationType, vitessce.FileType)
print(json.dumps([read.to_dict(base_url=""), *([one.value for one in kind] for kind in kinds)]))
"""
    again, views, coordination, files = run_in("vitessce", code, path)
    config = json.loads(path.read_text())
    for key in ("version", "name", "datasets", "coordinationSpace", "initStrategy"):
        assert again[key] == config[key]
    assert [one["component"] for one in again["layout"]] == [one["component"] for one in config["layout"]]
    assert {one["component"] for one in config["layout"]} <= set(views)
    assert set(config["coordinationSpace"]) <= set(coordination)
    assert config["datasets"][0]["files"][0]["fileType"] in files


@pytest.mark.parametrize("kind", ["few zeros", "many zeros"])
def test_the_validator_of_cellxgene_finds_only_reported_problems(
    kind: str, imputed: anndata.AnnData, tmp_path: Path
) -> None:
    imputed.X = imputed.X + 1 if kind == "few zeros" else np.where(imputed.X > 1.2, imputed.X, 0)
    imputed.obs = imputed.obs.rename(columns={"cell_type": "author_cell_type"})
    path = write_cellxgene(imputed, tmp_path / "shown.h5ad")
    code = """
import json, sys
from cellxgene_schema.validate import validate
valid, errors, *_ = validate(sys.argv[1])
print(json.dumps([valid, errors]))
"""
    valid, errors = run_in("cellxgene-schema", code, path)
    assert not valid
    told = " ".join(check_cellxgene(path).submission)
    expected = (
        "organism",
        "ontology_term_id",
        "donor_id",
        "is_primary_data",
        "suspension_type",
        "tissue_type",
        "raw",
        "feature_is_filtered",
        "feature_id",
        "gene ID",
        "Raw",
    )
    assert [one for one in errors if not any(word in one for word in expected)] == []
    assert "organism_ontology_term_id" in told


def test_cellxgene_files_open_in_scanpy(imputed: anndata.AnnData, tmp_path: Path) -> None:
    scanpy = pytest.importorskip("scanpy")
    pytest.importorskip("squidpy", reason="runs in the environment of scripts/test-formats")
    made = scanpy.read_h5ad(write_cellxgene(imputed, tmp_path / "shown.h5ad"))
    axes = scanpy.pl.embedding(made, "X_tissue", color="cell_type", show=False)
    assert axes


# Folders of vendors

GENES, N_CELLS = ["Gad1", "Sst", "Vip"], 6
COUNTS = np.random.default_rng(3).poisson(2.0, (N_CELLS, 3)) + 1
XY = np.random.default_rng(4).random((N_CELLS, 2)) * 50


def write_10x(path: Path, cells: list[str]) -> None:
    """Write the counts in the format of 10x Genomics' software."""
    matrix = sp.csr_matrix(COUNTS)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(cells, dtype="S")
        group["data"], group["indices"] = matrix.data.astype(np.int32), matrix.indices
        group["indptr"], group["shape"] = matrix.indptr, np.array(matrix.shape[::-1], dtype=np.int32)
        features: Any = group.create_group("features")
        for key, values in {
            "id": [f"ENSG{number:011d}" for number in range(3)],
            "name": GENES,
            "feature_type": ["Gene Expression"] * 3,
            "genome": ["GRCh38"] * 3,
        }.items():
            features[key] = np.array(values, dtype="S")
        features["_all_tag_keys"] = np.array(["genome"], dtype="S")
        file.attrs["library_ids"] = np.array(["here"], dtype="S")


def make_xenium(folder: Path) -> None:
    # Prefixes 0, 1, 2 ... in hexadecimal, with 0 to f written as a to p.
    cells = [f"aaaaaaa{'abcdef'[number]}-1" for number in range(N_CELLS)]
    write_10x(folder / "cell_feature_matrix.h5", cells)
    specs = {"analysis_sw_version": "xenium-2.0.0.6", "pixel_size": 0.2125}
    (folder / "experiment.xenium").write_text(json.dumps(specs))
    table = pd.DataFrame(
        {"cell_id": cells, "x_centroid": XY[:, 0], "y_centroid": XY[:, 1], "cell_area": 50.0}
    )
    table.to_parquet(folder / "cells.parquet")
    store = zarr.storage.ZipStore(folder / "cells.zarr.zip", mode="w")
    root = zarr.create_group(store, zarr_format=2)
    ids = np.stack([np.arange(N_CELLS), np.ones(N_CELLS)], axis=1).astype(np.uint32)
    root.create_array("cell_id", data=ids)
    summary = root.create_array("cell_summary", data=np.column_stack([XY, np.full(N_CELLS, 2.0)]))
    summary.attrs["column_names"] = ["cell_centroid_x", "cell_centroid_y", "z_level"]
    store.close()


def make_merscope(folder: Path) -> None:
    cells = [str(number) for number in range(1000, 1000 + N_CELLS)]
    counts = pd.DataFrame(COUNTS, columns=GENES, index=pd.Index(cells, name="cell")).assign(**{"Blank-1": 0})
    counts.to_csv(folder / "cell_by_gene.csv")
    places = {"fov": 0, "volume": 500.0, "center_x": XY[:, 0], "center_y": XY[:, 1]}
    pd.DataFrame(places, index=pd.Index(cells, name="EntityID")).to_csv(folder / "cell_metadata.csv")
    (folder / "images").mkdir()
    np.savetxt(folder / "images" / "micron_to_mosaic_pixel_transform.csv", [[9, 0, 5], [0, 9, 7], [0, 0, 1]])


def make_cosmx(folder: Path) -> None:
    import tifffile

    keys = {"fov": [1] * 3 + [2] * 3, "cell_ID": [1, 2, 3] * 2}
    pd.DataFrame(keys | {name: COUNTS[:, place] for place, name in enumerate(GENES)}).to_csv(
        folder / "run_exprMat_file.csv", index=False
    )
    local = XY / 5
    places = {
        "CenterX_local_px": local[:, 0],
        "CenterY_local_px": local[:, 1],
        "CenterX_global_px": local[:, 0] + np.array(keys["fov"]) * 100,
        "CenterY_global_px": local[:, 1],
    }
    pd.DataFrame(keys | places).to_csv(folder / "run_metadata_file.csv", index=False)
    pd.DataFrame({"fov": [1, 2], "x_global_px": [100, 200], "y_global_px": [0, 0]}).to_csv(
        folder / "run_fov_positions_file.csv", index=False
    )
    for name in ("CellComposite", "CellLabels"):
        (folder / name).mkdir()
        for fov in (1, 2):
            shape = (20, 20, 3) if name == "CellComposite" else (20, 20)
            tifffile.imwrite(folder / name / f"{name}_F{fov:03d}.tif", np.ones(shape, dtype=np.uint8))


def make_visium(folder: Path) -> None:
    from PIL import Image

    cells = [f"AAAC{number}-1" for number in range(N_CELLS)]
    write_10x(folder / "filtered_feature_bc_matrix.h5", cells)
    spatial = folder / "spatial"
    spatial.mkdir()
    rows = {"in_tissue": 1, "array_row": range(N_CELLS), "array_col": range(N_CELLS)}
    rows |= {"pxl_row_in_fullres": XY[:, 1], "pxl_col_in_fullres": XY[:, 0]}
    pd.DataFrame(rows, index=pd.Index(cells, name="barcode")).to_csv(spatial / "tissue_positions.csv")
    factors = {"tissue_hires_scalef": 0.5, "tissue_lowres_scalef": 0.1, "spot_diameter_fullres": 4.0}
    (spatial / "scalefactors_json.json").write_text(json.dumps(factors | {"fiducial_diameter_fullres": 6.0}))
    for name in ("hires", "lowres"):
        Image.new("RGB", (16, 16)).save(spatial / f"tissue_{name}_image.png")


def make_visium_hd(folder: Path) -> None:
    bins = folder / "binned_outputs" / "square_008um"
    (bins / "spatial").mkdir(parents=True)
    cells = [f"s_008um_{number:05d}_{number + 3:05d}-1" for number in range(N_CELLS)]
    write_10x(bins / "filtered_feature_bc_matrix.h5", cells)
    rows = {"barcode": cells, "in_tissue": 1, "array_row": range(N_CELLS), "array_col": range(3, 3 + N_CELLS)}
    rows |= {"pxl_row_in_fullres": XY[:, 1], "pxl_col_in_fullres": XY[:, 0]}
    pd.DataFrame(rows).to_parquet(bins / "spatial" / "tissue_positions.parquet", index=False)
    factors = {"tissue_hires_scalef": 0.5, "tissue_lowres_scalef": 0.1, "spot_diameter_fullres": 4.0}
    factors |= {"bin_size_um": 8.0, "microns_per_pixel": 2.0}
    (bins / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    layout = json.dumps({"file_format": "1.0", "transform": np.eye(3).ravel().tolist()})
    with h5py.File(folder / "feature_slice.h5", "w") as file:
        file.attrs["metadata_json"] = json.dumps({"hd_layout_json": layout})


MAKERS = {
    "xenium": make_xenium,
    "merscope": make_merscope,
    "cosmx": make_cosmx,
    "visium": make_visium,
    "visium_hd": make_visium_hd,
}


@pytest.mark.parametrize("platform", list(MAKERS))
def test_vendors_folders_are_read(platform: Any, tmp_path: Path, spatialdata: Any) -> None:
    pytest.importorskip("spatialdata_io")
    folder = tmp_path / "slide" / "region_0"
    folder.mkdir(parents=True)
    MAKERS[platform](folder)
    sample = read_platform(platform, folder)
    (table,) = sample.tables.values()
    counts = table.X.toarray() if sp.issparse(table.X) else np.asarray(table.X)
    np.testing.assert_array_equal(counts, COUNTS)
    assert table.var_names.tolist() == GENES
    places = XY / 5 + np.array([[100, 0]] * 3 + [[200, 0]] * 3) if platform == "cosmx" else XY
    np.testing.assert_allclose(table.obsm["spatial"], places, rtol=1e-5)
    sample.write(tmp_path / "sample.zarr")
    reference = anndata.AnnData(COUNTS.astype(np.float32), var=pd.DataFrame(index=GENES))
    for one in (sample, tmp_path / "sample.zarr"):
        pair = cellweft.pair(reference, one)
        assert pair.st.n_cells == N_CELLS
        np.testing.assert_allclose(pair.coordinates, places, rtol=1e-5)
    ours = cellweft.pair(reference, folder)  # by the path, without spatialdata-io
    names = table.obs["cell_id"].astype(str) if platform == "xenium" else table.obs_names
    assert ours.st.obs_names.tolist() == names.tolist()
    assert ours.st.genes.tolist() == table.var_names.tolist()
    np.testing.assert_array_equal(ours.st.stored(slice(0, N_CELLS)).toarray(), counts)
    np.testing.assert_allclose(ours.coordinates, table.obsm["spatial"], rtol=1e-5)


def test_folders_that_cannot_be_read_are_reported(tmp_path: Path, spatialdata: Any) -> None:
    pytest.importorskip("spatialdata_io")
    make_visium(tmp_path)
    (tmp_path / "spatial" / "tissue_positions.csv").unlink()
    with pytest.raises(FormatError, match="spatialdata-io reads as visium, got the error: Cannot find"):
        read_platform("visium", tmp_path)
