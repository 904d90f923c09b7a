"""Controls and annotation of cells are not genes, in any format."""

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from cellweft.data._pair import pair
from cellweft.data.io.features import annotation_columns, feature_kinds
from cellweft.data.io.read import open_input

GENES = [
    "Gad1", "Sst", "Vip", "Pvalb", "Lamp5", "NEGR1", "CTRL", "ERCC1", "NEK1", "MAX", "ID1", "AREL1", "NTC",
    "DIST1", "MEDIAG", "SUMO1",
]  # fmt: skip

CONTROLS = [
    "Blank-1", "BLANK_0006", "blank12", "NegPrb3", "NegProbe-WTX", "Negative01", "Negative",
    "NegControlProbe_00042", "NegControlCodeword_0500", "antisense_BCL2L15",
    "UnassignedCodeword_0001", "DeprecatedCodeword_0123", "SystemControl12", "FalseCode3",
    "Intergenic_Region_12", "ERCC-00002", "CD3_TotalSeqB", "N_unmapped",
    "CD45 (Antibody Capture)", "CD3_prot",
    "adt_CD4", "CD8-ADT", "Hashtag-1", "HTO_1", "Hashtag3",
    "Blank-A1", "blank_1_2", "BLANK1A", "NTC_1", "Empty-1", "Dummy2", "decoy-3", "NonTargeting_3",
    "notarget-2", "Scramble_1", "DEPRECATED_ENSG00000128683",
]  # fmt: skip

MEASURES = [
    "fov", "cell_ID", "EntityID", "volume", "min_x", "max_y", "CenterX_global_px", "x_slide_mm", "Area.um2",
    "AspectRatio", "Mean.PanCK", "Max.DAPI", "Anti-Rat_raw", "transcript_counts", "control_probe_counts",
    "nCount_RNA", "nFeature_Spatial", "percent.mt", "n_genes_by_counts", "log1p_total_counts", "Unnamed: 0",
    "Mean.MembraneStain_B2M", "qcFlagsRNACounts", "ISH.concentration",
    "nCell", "Neuron_cluster_ID", "sex",
    "S.Score", "seurat_clusters", "RNA_snn_res.0.8", "cell_area", "nucleus_area", "perimeter_area_ratio",
    "z_level", "hull_area", "bbox-0", "major_axis_length", "equivalent_diameter", "intensity_mean-0",
    "CD45_mean", "PanCK_sum", "DAPI", "dist_to_edge", "distance_um", "nearest_fov_dist",
    "RNA_quantile_0.75", "median_RNA", "lifespan", "Num Detections", "max_cluster_frac",
]  # fmt: skip


def test_names_of_controls_and_measurements_are_not_genes() -> None:
    assert feature_kinds(GENES).tolist() == [""] * len(GENES)
    assert [name for name, kind in zip(CONTROLS, feature_kinds(CONTROLS), strict=True) if not kind] == []
    assert {*feature_kinds(MEASURES)} == {"annotation of cells"}
    assert feature_kinds(["Blank-1", "NegPrb3"]).tolist() == ["blank", "negative control"]


@pytest.mark.parametrize(
    ("column", "values", "kinds"),
    [
        ("feature_types", ["Gene Expression", "Antibody Capture"], ["", "Antibody Capture"]),
        ("feature_types", ["Gene Expression", None], ["", ""]),
        ("feature_types", ["Custom", "Panel"], ["", ""]),
        ("Feature_Type", pd.Categorical(["Gene Expression", "Peaks"]), ["", "Peaks"]),
        ("CodeClass", ["Endogenous", "Negative"], ["", "Negative"]),
        ("feature_biotype", ["gene", "spike-in"], ["", "spike-in"]),
        ("gene_type", ["protein_coding", "lncRNA"], ["", ""]),
        ("is_control", [False, True], ["", "control"]),
        ("is_control", ["False", "True"], ["", "control"]),
        ("control", [0, 1], ["", "control"]),
        ("probe_type", ["endogenous", "sys_ctrl"], ["", "sys_ctrl"]),
        ("feature_type", ["gene_expression", "Antibody_Capture"], ["", "Antibody_Capture"]),
        ("Probe.Class", ["target", "negative control"], ["", "negative control"]),
        ("control_type", ["", "blank"], ["", "blank"]),
        ("neg_probe", [False, True], ["", "control"]),
        ("is_control_probe", ["no", "yes"], ["", "control"]),
        ("is_gene", [True, False], ["", "is_gene is false"]),
        ("endogenous", [1.0, 0.0], ["", "endogenous is false"]),
        ("gene", ["Gad1", "Sst"], ["", ""]),
        ("is_gene", [False, False], ["", ""]),
        ("neg_log_p", [True, False], ["", ""]),
    ],
)
def test_annotation_of_features_identifies_genes(column: str, values: Any, kinds: list[str]) -> None:
    var = pd.DataFrame({column: values}, index=["Gad1", "Sst"])
    assert feature_kinds(var.index, var).tolist() == kinds


def test_columns_with_values_that_cannot_be_counts_are_annotation() -> None:
    rng = np.random.default_rng(0)
    counts = pd.DataFrame(rng.poisson(2.0, (30, 12)), columns=[f"Gene{one}" for one in range(12)])
    table = counts.assign(
        number=np.arange(30), far=rng.normal(size=30), big=2**40 + rng.integers(0, 5, 30), kind=["a"] * 30
    )
    is_annotation, by_values = annotation_columns(table)
    assert table.columns[is_annotation].tolist() == ["number", "far", "big", "kind"]
    assert by_values == ["number", "far", "big"]
    shuffled = np.random.default_rng(1).permutation(60)
    many = pd.DataFrame(rng.poisson(2.0, (60, 12))).assign(number=shuffled, reads=rng.permutation(60) * 1000)
    assert annotation_columns(many)[1] == ["number"]  # read counts can all be different, too
    expected = counts.astype(float)  # like RSEM's expected counts: some genes are fractional in most cells
    expected.iloc[:, 0] += 0.25
    expected.iloc[3, 1:6] += 0.5
    assert not annotation_columns(expected)[0].any()
    normalised = counts / counts.sum(axis=1).to_numpy()[:, None]
    assert not annotation_columns(normalised)[0].any()
    assert not annotation_columns(counts.iloc[:3])[0].any()
    same = pd.DataFrame(rng.poisson(2.0, (60, 12))).assign(dose=3, row=rng.permutation(60) // 9, col=1)
    is_annotation, by_values = annotation_columns(same)
    assert (same.columns[is_annotation].tolist(), by_values) == (["dose", "row", "col"], ["dose"])


def table_of(n_cells: int = 30) -> pd.DataFrame:
    """A table in the style of MERSCOPE and CosMx: counts between measurements of cells and controls."""
    rng = np.random.default_rng(1)
    counts = pd.DataFrame(rng.poisson(2.0, (n_cells, 5)), columns=GENES[:5])
    return pd.DataFrame(
        {
            "cell": [f"c{one}" for one in range(n_cells)],
            "fov": rng.integers(1, 4, n_cells),
            "cell_ID": np.arange(n_cells) * 7 + 3,
            "volume": rng.uniform(500, 900, n_cells),
            "min_x": rng.uniform(0, 9000, n_cells),
            "is_edge": rng.random(n_cells) > 0.5,
            **counts,
            "Blank-1": 1,
            "NegPrb2": 2,
            "x": rng.uniform(0, 9000, n_cells),
            "y": rng.uniform(0, 9000, n_cells),
        }
    )


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "tsv", "parquet"])
def test_only_genes_of_tables_are_counted(suffix: str, tmp_path: Path) -> None:
    table, path = table_of(), tmp_path / f"cells.{suffix}"
    if suffix == "parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, sep="\t" if suffix == "tsv" else ",", index=False)
    found = open_input(path, argument="st")
    assert found.var.index.tolist() == GENES[:5]
    assert found.obs.columns == ["fov", "cell_ID", "volume", "min_x", "is_edge", "x", "y"]
    assert found.left_out == {"blank": ("Blank-1",), "negative control": ("NegPrb2",)}
    both = pair(path, path)
    np.testing.assert_array_equal(both.st.totals, table[GENES[:5]].sum(axis=1))
    expected = r"left out      2 features not counted as genes: blank \(1: 'Blank-1'\), negative control \(1"
    assert pd.Series(both.summary().splitlines()).str.contains(expected).sum() == 2


@pytest.mark.parametrize("kind", ["memory", "h5ad", "zarr"])
def test_only_genes_of_anndata_are_counted(kind: str, tmp_path: Path, write_as: Any) -> None:
    counts = np.random.default_rng(2).poisson(2.0, (12, 6)).astype(np.float32)
    names = ["Gad1", "Blank-1", "Sst", "CD3", "Vip", "volume"]
    types = ["Gene Expression"] * 3 + ["Antibody Capture"] + ["Gene Expression"] * 2
    data = ad.AnnData(counts, var=pd.DataFrame({"feature_types": types}, index=names))
    data.obs_names = [f"c{one}" for one in range(12)]
    data.obsm["spatial"] = counts[:, :2] + np.arange(12)[:, None]
    source = data if kind == "memory" else write_as(data, tmp_path, kind)
    both = pair(source, source)
    assert both.shared_genes.tolist() == ["Gad1", "Sst", "Vip"]
    for side in (both.sc, both.st):
        np.testing.assert_array_equal(side.totals, counts[:, [0, 2, 4]].sum(axis=1))
        np.testing.assert_array_equal(side.stored(slice(None)), counts[:, [0, 2, 4]])
    assert both.findings["spatial"]["features_left_out"] == {
        "Antibody Capture": ["CD3"], "annotation of cells": ["volume"], "blank": ["Blank-1"],
    }  # fmt: skip
    assert data.n_vars == 6
    np.testing.assert_array_equal(data.X, counts)


def test_columns_taken_as_annotation_by_their_values_are_reported(tmp_path: Path) -> None:
    table = table_of().rename(columns={"volume": "my_measure"})
    table.to_csv(tmp_path / "cells.csv", index=False)
    said = pair(tmp_path / "cells.csv", tmp_path / "cells.csv").cautions
    expected = (
        "Spatial: columns with numbers that are not counts, or with some text, were treated as annotation "
        "of the cells, not as genes: "
    )
    assert any(one.startswith(expected + "'my_measure'") for one in said)
