"""Run folders: cells, genes, counts and coordinates are those of the files; omitted rows are reported."""

import gzip
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp

import cellweft
from cellweft._errors import FormatError, GeneError, KeyMissingError, SettingError
from cellweft.data._pair import Pair, inputs_of
from cellweft.data.io.read import open_input
from cellweft.data.io.results import open_result, result_kind


def stored(pair: Pair) -> np.ndarray:
    """Return the counts of the spatial side."""
    values = pair.st.stored(slice(0, pair.st.n_cells))
    return values.toarray() if sp.issparse(values) else np.asarray(values)


def test_a_run_is_read_by_its_path(
    instrument: str, make_run: Any, truth: Any, reference: anndata.AnnData
) -> None:
    known = truth(instrument)
    folder = make_run(instrument)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for path in (folder, str(folder)):
        pair = cellweft.pair(reference, path)
        assert pair.st.obs_names.tolist() == known.names
        assert pair.st.genes.tolist() == known.genes
        np.testing.assert_array_equal(stored(pair), known.counts)
        np.testing.assert_allclose(pair.coordinates, known.places)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert pair.findings["coordinates"]["unit"] == known.unit
    assert inputs_of(pair)["spatial"]["unit"] == known.unit
    assert f" {known.unit}: median distance" in pair.summary()
    blocks = [pair.st.stored(np.array([3, 0, 3])), pair.st.stored(slice(4, 9))]
    np.testing.assert_array_equal(blocks[0].toarray(), known.counts[[3, 0, 3]])
    np.testing.assert_array_equal(blocks[1].toarray(), known.counts[4:9])
    again = pickle.loads(pickle.dumps(pair.st))
    np.testing.assert_array_equal(again.stored(slice(4, 9)).toarray(), known.counts[4:9])


def test_the_summary_names_the_instrument(instrument: str, make_run: Any, reference: Any) -> None:
    told = cellweft.pair(reference, make_run(instrument)).findings["spatial"]["instrument"]
    assert told == {
        "xenium": "Xenium",
        "merscope": "MERSCOPE",
        "cosmx": "CosMx",
        "visium": "Visium",
        "visium_hd": "Visium HD, bins of 8 um; others in the folder: 2 um, 16 um",
        "xenium_archives": "Xenium",
        "slide_seq": "Slide-seq",
        "stereo_seq": "Stereo-seq, cells of the column 'cellid'",
    }.get(instrument)


@pytest.mark.parametrize(
    ("instrument", "kinds"),
    [
        ("merscope", {"blank": ["Blank-1", "Blank-22"]}),
        ("cosmx", {"negative control": ["NegPrb3", "Negative01"], "system control": ["SystemControl12"]}),
    ],
)
def test_controls_are_reported_and_left_out(
    instrument: str, kinds: dict[str, list[str]], make_run: Any, reference: Any
) -> None:
    pair = cellweft.pair(reference, make_run(instrument))
    assert pair.findings["spatial"]["features_left_out"] == kinds
    # Controls do not count towards the total of a cell either.
    np.testing.assert_array_equal(pair.st.totals, stored(pair).sum(axis=1))


def test_columns_of_the_cells_are_kept(make_run: Any, reference: Any) -> None:
    pair = cellweft.pair(reference, make_run("xenium"), st_size_factor="cell_area")
    assert {"cell_area", "nucleus_area", "segmentation_method"} <= set(pair.st.obs.columns)
    np.testing.assert_array_equal(pair.st.totals, 40.0 + np.arange(pair.st.n_cells))
    volume = cellweft.pair(reference, make_run("merscope", "other"), st_size_factor="volume")
    np.testing.assert_array_equal(volume.st.totals, 500.0 + np.arange(pair.st.n_cells))


# Ways to name a run, and variants of its files


@pytest.mark.parametrize(
    ("instrument", "name"),
    [
        ("xenium", "cell_feature_matrix.h5"),
        ("xenium", "cells.parquet"),
        ("xenium", "experiment.xenium"),
        ("merscope", "cell_by_gene.csv"),
        ("merscope", "cell_metadata.csv"),
        ("cosmx", "Run1_exprMat_file.csv"),
        ("cosmx", "Run1_metadata_file.csv"),
        ("visium", "filtered_feature_bc_matrix.h5"),
        ("visium", "spatial/tissue_positions.csv"),
        ("visium", "spatial"),
        ("xenium_archives", "cell_feature_matrix.zarr.zip"),
        ("xenium_archives", "cells.zarr.zip"),
        ("slide_seq", "MappedDGEForR.csv"),
        ("slide_seq", "BeadLocationsForR.csv"),
        ("stereo_seq", "SS200000135TL_D1.cellbin.gem.gz"),
        ("visium_hd", "binned_outputs"),
        ("visium_hd", "binned_outputs/square_008um"),
        ("visium_hd", "binned_outputs/square_008um/filtered_feature_bc_matrix.h5"),
    ],
)
def test_a_run_can_be_named_by_any_of_its_files(
    instrument: str, name: str, make_run: Any, truth: Any, reference: Any
) -> None:
    pair = cellweft.pair(reference, make_run(instrument) / name)
    assert pair.st.obs_names.tolist() == truth(instrument).names
    np.testing.assert_allclose(pair.coordinates, truth(instrument).places)


def test_counts_without_a_file_of_positions_are_read_as_plain_counts(make_run: Any, reference: Any) -> None:
    folder = make_run("xenium")
    (folder / "cells.parquet").unlink()
    with pytest.raises(KeyMissingError, match="expected coordinates of the cells"):
        cellweft.pair(reference, folder / "cell_feature_matrix.h5")
    pair = cellweft.pair(reference, folder / "cell_feature_matrix.h5", coordinates="none")
    assert pair.coordinates is None
    assert pair.findings["spatial"]["instrument"] == ""


def test_older_and_compressed_forms_of_xenium(
    make_run: Any, truth: Any, reference: Any, write_counts_folder: Any
) -> None:
    folder = make_run("xenium")
    table = pd.read_parquet(folder / "cells.parquet")
    known = truth("xenium")
    table.to_csv(folder / "cells.csv.gz", index=False)
    for name in ("cells.parquet", "cell_feature_matrix.h5"):
        (folder / name).unlink()
    write_counts_folder(folder / "cell_feature_matrix", known.names)
    for path in (folder, folder / "cell_feature_matrix"):
        pair = cellweft.pair(reference, path)
        np.testing.assert_allclose(pair.coordinates, known.places)
        np.testing.assert_array_equal(stored(pair), known.counts)


def test_later_files_of_slide_seq(make_run: Any, truth: Any, reference: Any) -> None:
    known, folder = truth("slide_seq"), make_run("slide_seq", later=True)
    for path in (folder, folder / "Puck_200115_08_bead_locations.csv"):
        pair = cellweft.pair(reference, path)
        assert pair.st.obs_names.tolist() == known.names
        np.testing.assert_array_equal(stored(pair), known.counts)
        np.testing.assert_allclose(pair.coordinates, known.places)
    (folder / "Puck_200115_08_bead_locations.csv").unlink()
    with pytest.raises(GeneError, match="no shared gene"):
        cellweft.pair(reference, folder / "Puck_200115_08.digital_expression.txt.gz")


def test_stereo_seq_is_summed_by_cells_or_bins(make_run: Any, truth: Any, reference: Any) -> None:
    with_cells, known = make_run("stereo_seq", "cells"), truth("stereo_seq")
    pair = cellweft.pair(reference, with_cells)
    assert pair.findings["spatial"]["cells_left_out"] == ["5 counts outside cells"]
    bare = make_run("stereo_seq", "bare", cells=False)
    with pytest.raises(FormatError, match=r"a column with cell names \(CellID\).*st_sample='bin50' adds up"):
        cellweft.pair(reference, bare)
    with pytest.raises(SettingError, match=r"st_sample: expected a bin size, such as 'bin50'"):
        cellweft.pair(reference, bare, st_sample="50")
    for folder in (bare, with_cells):
        made = cellweft.pair(reference, folder, st_sample="bin10")
        assert made.findings["spatial"]["instrument"] == "Stereo-seq, bins of 10 x 10 DNB"
        assert made.st.totals.sum() == known.counts.sum() + 5 * (folder == with_cells)
        assert made.coordinates is not None
        corners = made.coordinates - 5
        np.testing.assert_array_equal(corners % 10, 0)
        assert made.st.obs_names.tolist() == [f"{int(x)}_{int(y)}" for x, y in corners]


def test_names_of_columns_of_stereo_seq(make_run: Any, reference: Any) -> None:
    for number, columns in enumerate(
        (["geneID", "x", "y", "MIDCounts", "label"], ["geneID", "x", "y", "UMICount", "cell"])
    ):
        pair = cellweft.pair(reference, make_run("stereo_seq", f"run{number}", columns=columns))
        assert pair.findings["spatial"]["instrument"].endswith(f"cells of the column {columns[-1]!r}")
    path = make_run("stereo_seq", "last") / "SS200000135TL_D1.cellbin.gem.gz"
    text = gzip.decompress(path.read_bytes()).decode()
    table = path.with_name("E9.5_E1S1_GEM_bin1.tsv")  # without comments, and with symbols next to IDs
    lines = [one.split("\t") for one in text.splitlines() if not one.startswith("#")]
    ids = [f"ENSMUSG{one[0].removeprefix('Gene').rjust(11, '0')}" for one in lines[1:]]
    lines = [["geneID", "geneName", *lines[0][1:]]] + [
        [one, *line] for one, line in zip(ids, lines[1:], strict=True)
    ]
    table.write_text("\n".join("\t".join(one) for one in lines) + "\n")
    pair = cellweft.pair(reference, table)
    assert pair.st.genes.tolist()[:2] == ["Gene0", "Gene1"]
    assert pair.st.gene_ids.tolist()[:2] == ["ENSMUSG00000000000", "ENSMUSG00000000001"]


def test_archives_of_xenium_that_are_damaged(make_run: Any, reference: Any) -> None:
    folder = make_run("xenium_archives")
    (folder / "cells.zarr.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(FormatError, match=r"cells\.zarr\.zip: expected content that matches its name"):
        cellweft.pair(reference, folder)
    (folder / "cells.zarr.zip").unlink()
    with pytest.raises(FormatError, match=r"a folder without cells\.parquet"):
        cellweft.pair(reference, folder)


@pytest.mark.parametrize("kind", ["bytes", "numbers"])
def test_cell_names_are_text_in_any_storage(
    kind: str, make_run: Any, truth: Any, reference: Any, write_counts: Any
) -> None:
    folder, known = make_run("xenium"), truth("xenium")
    table = pd.read_parquet(folder / "cells.parquet")
    names = known.names
    if kind == "numbers":  # as the first versions wrote them
        names = [str(number + 1) for number in range(len(known.names))]
        table["cell_id"] = np.arange(len(names), 0, -1)
        write_counts(folder / "cell_feature_matrix.h5", names)
    else:
        table["cell_id"] = table["cell_id"].str.encode("utf-8")
    table.to_parquet(folder / "cells.parquet")
    pair = cellweft.pair(reference, folder)
    assert pair.st.obs_names.tolist() == names
    np.testing.assert_allclose(pair.coordinates, known.places)


def test_compressed_files_of_cosmx(make_run: Any, truth: Any, reference: Any) -> None:
    pair = cellweft.pair(reference, make_run("cosmx", packed=True))
    np.testing.assert_array_equal(stored(pair), truth("cosmx").counts)
    np.testing.assert_allclose(pair.coordinates, truth("cosmx").places)


def test_a_table_of_merscope_whose_cells_have_no_header(make_run: Any, truth: Any, reference: Any) -> None:
    folder = make_run("merscope")
    table = pd.read_csv(folder / "cell_metadata.csv", index_col=0).rename_axis(None)
    table.to_csv(folder / "cell_metadata.csv")
    assert (folder / "cell_metadata.csv").read_text().startswith(",fov")
    pair = cellweft.pair(reference, folder)
    assert pair.st.obs_names.tolist() == truth("merscope").names
    np.testing.assert_allclose(pair.coordinates, truth("merscope").places)


def test_positions_without_a_header(make_run: Any, truth: Any, reference: Any) -> None:
    pair = cellweft.pair(reference, make_run("visium", header=False))
    np.testing.assert_allclose(pair.coordinates, truth("visium").places)
    assert {"array_row", "array_col"} <= set(pair.st.obs.columns)


def test_files_with_a_sample_prefix_as_in_public_archives(make_run: Any, truth: Any, reference: Any) -> None:
    folder = make_run("visium", header=False)
    (folder / "filtered_feature_bc_matrix.h5").rename(folder / "GSM1_filtered_feature_bc_matrix.h5")
    positions = folder / "spatial" / "tissue_positions_list.csv"
    with gzip.open(folder / "GSM1_tissue_positions_list.csv.gz", "wb") as file:
        file.write(positions.read_bytes())
    shutil.rmtree(folder / "spatial")
    pair = cellweft.pair(reference, folder)
    np.testing.assert_allclose(pair.coordinates, truth("visium").places)


def test_matrices_of_several_samples_with_positions(
    make_run: Any, truth: Any, reference: Any, write_counts_folder: Any
) -> None:
    folder, known = make_run("visium", header=False), truth("visium")
    write_counts_folder(folder / "parts", known.names, known.counts + 1)
    positions = folder / "spatial" / "tissue_positions_list.csv"
    for sample in ("GSM1", "GSM2"):
        for path in (folder / "parts").iterdir():
            shutil.copy(path, folder / f"{sample}_{path.name}")
        shutil.copy(positions, folder / f"{sample}_tissue_positions_list.csv")
    shutil.rmtree(folder / "spatial")
    shutil.rmtree(folder / "parts")
    (folder / "filtered_feature_bc_matrix.h5").unlink()
    with pytest.raises(FormatError, match="several samples: 'GSM1_matrix"):
        cellweft.pair(reference, folder)
    pair = cellweft.pair(reference, folder, st_sample="GSM2")
    np.testing.assert_array_equal(stored(pair), known.counts + 1)
    np.testing.assert_allclose(pair.coordinates, known.places)


@pytest.mark.parametrize(("sizes", "taken"), [((2, 8, 16), 8), ((16,), 16)])
def test_the_bins_of_visium_hd(sizes: Any, taken: int, make_run: Any, truth: Any, reference: Any) -> None:
    folder = make_run("visium_hd", sizes=sizes)
    pair = cellweft.pair(reference, folder)
    np.testing.assert_allclose(pair.coordinates, truth("visium").places * taken)
    assert f"bins of {taken} um" in pair.summary()
    one = cellweft.pair(reference, folder / "binned_outputs" / f"square_{sizes[-1]:03}um")
    np.testing.assert_allclose(one.coordinates, truth("visium").places * sizes[-1])
    assert one.findings["spatial"]["instrument"] == f"Visium HD, bins of {sizes[-1]} um"
    again = cellweft.pair(reference, folder, st_sample=f"square_{sizes[-1]:03}um")
    np.testing.assert_allclose(again.coordinates, one.coordinates)


def test_several_bin_sizes_without_the_usual_one_need_a_choice(make_run: Any, reference: Any) -> None:
    with pytest.raises(
        FormatError, match=r"bins of 2 um, 16 um\. Pass the folder of one size: .*square_002um"
    ):
        cellweft.pair(reference, make_run("visium_hd", sizes=(2, 16)))


def test_the_reference_may_be_a_folder_of_cell_ranger(
    make_run: Any, reference: Any, tmp_path: Path, write_counts: Any
) -> None:
    outs = tmp_path / "sample" / "outs"
    write_counts(outs / "filtered_feature_bc_matrix.h5", [f"c{number}-1" for number in range(24)])
    write_counts(outs / "raw_feature_bc_matrix.h5", [f"r{number}-1" for number in range(24)])
    pair = cellweft.pair(outs, make_run("xenium"))
    assert pair.sc.obs_names[0] == "c0-1"
    assert pair.findings["reference"]["instrument"] == "Chromium"
    with pytest.raises(FormatError, match=r"Pass one of its folders: '.*outs'"):
        cellweft.pair(outs.parent, make_run("xenium", "again"))
    with pytest.raises(KeyMissingError, match=r"without spatial/tissue_positions\.csv: expected coordinates"):
        cellweft.pair(reference, outs)


# Omitted rows


def left_out(pair: Pair) -> list[str]:
    return list(pair.findings["spatial"]["cells_left_out"])


def test_cell_0_of_cosmx_is_not_a_cell(make_run: Any, reference: Any) -> None:
    pair = cellweft.pair(reference, make_run("cosmx"))
    assert left_out(pair) == ["2 cells numbered 0, for transcripts outside cells"]
    assert "  left out      2 cells numbered 0, for transcripts outside cells" in pair.summary()
    assert stored(pair).max() < 9_999


def test_spots_outside_tissue(make_run: Any, truth: Any, reference: Any) -> None:
    pair = cellweft.pair(reference, make_run("visium", raw=True))
    assert left_out(pair) == ["2 cells outside tissue (in_tissue 0)"]
    np.testing.assert_array_equal(stored(pair), truth("visium").counts)


def test_cells_without_coordinates_or_a_row(make_run: Any, truth: Any, reference: Any) -> None:
    folder, known = make_run("merscope"), truth("merscope")
    table = pd.read_csv(folder / "cell_metadata.csv", dtype={"EntityID": str}).set_index("EntityID")
    table.loc[known.names[2], "center_y"] = np.nan
    table.drop(index=known.names[5]).to_csv(folder / "cell_metadata.csv")
    pair = cellweft.pair(reference, folder)
    assert left_out(pair) == ["1 cell without a row in cell_metadata.csv", "1 cell without coordinates"]
    rest = np.delete(np.arange(len(known.names)), [2, 5])
    np.testing.assert_array_equal(stored(pair), known.counts[rest])
    np.testing.assert_allclose(pair.coordinates, known.places[rest])


def test_unassigned_transcripts_are_not_a_cell(
    make_run: Any, truth: Any, reference: Any, write_counts: Any
) -> None:
    folder, known = make_run("xenium"), truth("xenium")
    counts = np.concatenate([known.counts, np.full((1, len(known.genes)), 500, dtype=np.int32)])
    write_counts(folder / "cell_feature_matrix.h5", [*known.names, "UNASSIGNED"], counts)
    pair = cellweft.pair(reference, folder)
    assert left_out(pair) == ["1 cell called 'unassigned'"]
    np.testing.assert_array_equal(stored(pair), known.counts)


# Errors


@pytest.mark.parametrize(
    ("instrument", "lost", "message"),
    [
        (
            "xenium",
            ["cells.parquet"],
            r"expected a run of Xenium, with cell_feature_matrix\.h5 and cells\.parquet",
        ),
        ("xenium", ["cell_feature_matrix.h5"], r"got a folder without cell_feature_matrix\.h5"),
        ("merscope", ["cell_metadata.csv"], r"MERSCOPE.*got a folder without cell_metadata\.csv"),
        ("merscope", ["cell_by_gene.csv"], r"MERSCOPE.*got a folder without cell_by_gene\.csv"),
        ("cosmx", ["Run1_metadata_file.csv"], r"CosMx.*got a folder without metadata_file\.csv.*'Run1'"),
        ("cosmx", ["Run1_exprMat_file.csv"], r"CosMx.*got a folder without exprMat_file\.csv"),
        (
            "visium",
            ["spatial/tissue_positions.csv"],
            r"Visium.*got a folder without spatial/tissue_positions",
        ),
        ("visium", ["filtered_feature_bc_matrix.h5"], r"got a folder without filtered_feature_bc_matrix\.h5"),
        (
            "visium_hd",
            ["binned_outputs/square_008um/spatial/tissue_positions.parquet"],
            r"Visium HD.*got a folder without spatial/tissue_positions",
        ),
    ],
)
def test_a_missing_file_is_named(
    instrument: str, lost: list[str], message: str, make_run: Any, reference: Any
) -> None:
    folder = make_run(instrument)
    if instrument == "visium_hd":  # recognised by its folder even if only that is left
        (folder / "binned_outputs" / "square_008um" / "spatial" / "scalefactors_json.json").touch()
    for name in lost:
        (folder / name).unlink()
    with pytest.raises(FormatError, match=f"(?s){message}"):
        cellweft.pair(reference, folder)


def test_visium_hd_without_bins(make_run: Any, reference: Any) -> None:
    folder = make_run("visium_hd")
    shutil.rmtree(folder / "binned_outputs")
    with pytest.raises(FormatError, match=r"Visium HD.*got a folder without binned_outputs/"):
        cellweft.pair(reference, folder)


def test_several_samples_need_a_choice(make_run: Any, truth: Any, reference: Any) -> None:
    folder = make_run("cosmx")
    for name in ("exprMat_file.csv", "metadata_file.csv"):
        shutil.copy(folder / f"Run1_{name}", folder / f"Run2_{name}")
    with pytest.raises(
        FormatError, match=r"several samples: 'Run1_exprMat_file\.csv', 'Run2_exprMat_file\.csv'"
    ):
        cellweft.pair(reference, folder)
    with pytest.raises(FormatError, match=r"Choose one, st_sample='Run2', or its counts: '.*Run2_expr"):
        cellweft.pair(reference, folder)
    for path, sample in ((folder / "Run2_exprMat_file.csv", None), (folder, "Run2")):
        pair = cellweft.pair(reference, path, st_sample=sample)
        assert pair.st.obs_names.tolist() == truth("cosmx").names
    with pytest.raises(KeyMissingError, match=r"st_sample='Run3': expected a sample.*Did you mean 'Run"):
        cellweft.pair(reference, folder, st_sample="Run3")


def test_files_of_two_samples_are_never_mixed(make_run: Any, reference: Any) -> None:
    folder = make_run("cosmx")
    (folder / "Run1_metadata_file.csv").rename(folder / "Run2_metadata_file.csv")
    with pytest.raises(
        FormatError, match=r"without metadata_file\.csv.*under the name of the sample, 'Run1'"
    ):
        cellweft.pair(reference, folder)


def test_a_table_of_other_cells_is_refused(make_run: Any, reference: Any) -> None:
    folder = make_run("xenium")
    table = pd.read_parquet(folder / "cells.parquet")
    table.assign(cell_id="z" + table["cell_id"]).to_parquet(folder / "cells.parquet")
    with pytest.raises(
        FormatError, match=r"cells\.parquet.*such as 'aaaabacd-1'.*Use both files from the same"
    ):
        cellweft.pair(reference, folder)
    table.assign(cell_id="a").to_parquet(folder / "cells.parquet")
    with pytest.raises(FormatError, match=r"duplicate cells \(1\): 'a'"):
        cellweft.pair(reference, folder)
    table.drop(columns="y_centroid").to_parquet(folder / "cells.parquet")
    with pytest.raises(FormatError, match=r"cells\.parquet: expected a column 'y_centroid'"):
        cellweft.pair(reference, folder)


@pytest.mark.parametrize("mark", ["1,234.5", "12,5", "12 um", "-"])
def test_positions_in_an_unexpected_form_are_refused(mark: str, make_run: Any, reference: Any) -> None:
    folder = make_run("merscope")
    table = pd.read_csv(folder / "cell_metadata.csv", dtype={"center_x": str})
    table.loc[3, "center_x"] = mark
    table.to_csv(folder / "cell_metadata.csv", index=False)
    with pytest.raises(FormatError, match=rf"column 'center_x': expected numbers, got '{mark}' for cell"):
        cellweft.pair(reference, folder)


@pytest.mark.parametrize("name", ["cell_by_gene.csv", "cell_metadata.csv"])
def test_tables_that_a_spreadsheet_wrote_are_refused_with_advice(
    name: str, make_run: Any, reference: Any
) -> None:
    folder = make_run("merscope")
    text = (folder / name).read_text()
    (folder / name).write_text(text.replace(",", ";"))
    with pytest.raises(
        FormatError, match=rf"{name}: expected columns separated by ',', got a header with ';'"
    ):
        cellweft.pair(reference, folder)
    (folder / name).write_text(text, encoding="utf-16")
    with pytest.raises(FormatError, match=rf"{name}.* not UTF-8 but UTF-16 .*iconv -f UTF-16 -t UTF-8"):
        cellweft.pair(reference, folder)


def add_cells_of_visium_hd(folder: Path, write_counts: Any, truth: Any) -> None:
    """Write the cells that Space Ranger 4 segments: outlines around the positions, in another order."""
    inside = folder / "segmented_outputs"
    (inside / "spatial").mkdir(parents=True)
    (inside / "spatial" / "scalefactors_json.json").write_text("{}")
    places = truth("visium").places
    names = [f"cellid_{number + 1:09}-1" for number in range(len(places))]
    write_counts(inside / "filtered_feature_cell_matrix.h5", names)
    features: list[Any] = []
    for number, (x, y) in enumerate(places):
        corners = [[x - 2, y - 1], [x + 2, y - 1], [x + 2, y + 1], [x, y + 1], [x - 2, y + 1], [x - 2, y - 1]]
        ring: Any = [corners] if number % 2 else [[corners], [[[0, 0], [9, 0], [9, 9], [0, 0]]]]
        geometry = {"type": "Polygon" if number % 2 else "MultiPolygon", "coordinates": ring}
        properties = {"cell_id": number + 1}
        features.insert(0, {"type": "Feature", "geometry": geometry, "properties": properties})
    text = json.dumps({"type": "FeatureCollection", "features": features})
    (inside / "cell_segmentations.geojson").write_text(text)
    (inside / "nucleus_segmentations.geojson").write_text("{}")
    (inside / "graphclust_annotated_cell_segmentations.geojson").write_text("{}")


@pytest.mark.parametrize("how", ["folder", "sample", "file", "alone"])
def test_the_cells_of_visium_hd(
    how: str, make_run: Any, truth: Any, write_counts: Any, reference: Any
) -> None:
    folder = make_run("visium_hd")
    add_cells_of_visium_hd(folder, write_counts, truth)
    assert "; its cells are in segmented_outputs" in cellweft.pair(reference, folder).summary()
    inside = folder / "segmented_outputs"
    if how == "alone":
        shutil.rmtree(folder / "binned_outputs")
    path = {"folder": inside, "file": inside / "filtered_feature_cell_matrix.h5"}.get(how, folder)
    pair = cellweft.pair(reference, path, st_sample="segmented_outputs" if how == "sample" else None)
    known = truth("visium")
    np.testing.assert_array_equal(stored(pair), known.counts)
    np.testing.assert_allclose(pair.coordinates, known.places)
    assert pair.st.obs_names[0] == "cellid_000000001-1"
    assert (pair.st.obs["cell_area"] == 8).all()
    assert pair.findings["spatial"]["instrument"] == "Visium HD, cells"
    assert pair.findings["coordinates"]["unit"] == "px"


@pytest.mark.parametrize("lacking", ["filtered_feature_cell_matrix.h5", "cell_segmentations.geojson"])
def test_cells_of_visium_hd_that_lack_a_file(
    lacking: str, make_run: Any, truth: Any, write_counts: Any, reference: Any
) -> None:
    folder = make_run("visium_hd")
    add_cells_of_visium_hd(folder, write_counts, truth)
    (folder / "segmented_outputs" / "graphclust_annotated_cell_segmentations.geojson").unlink()
    (folder / "segmented_outputs" / lacking).unlink()
    with pytest.raises(FormatError, match=rf"Visium HD, cells.*got a folder without .*{lacking}"):
        cellweft.pair(reference, folder / "segmented_outputs")


@pytest.mark.parametrize("text", ["", "[]", '{"features": []}', '{"features": [{"properties": {}}]}'])
def test_invalid_outlines_are_refused(
    text: str, make_run: Any, truth: Any, write_counts: Any, reference: Any
) -> None:
    folder = make_run("visium_hd")
    add_cells_of_visium_hd(folder, write_counts, truth)
    (folder / "segmented_outputs" / "cell_segmentations.geojson").write_text(text)
    with pytest.raises(FormatError, match=r"cell_segmentations\.geojson"):
        cellweft.pair(reference, folder, st_sample="segmented_outputs")


@pytest.mark.parametrize("content", [b"", b"cell,Gene0\n1,-\n", b"\x80\x04", b"cell\n"])
def test_invalid_counts_are_refused(content: bytes, make_run: Any, reference: Any) -> None:
    folder = make_run("merscope")
    (folder / "cell_by_gene.csv").write_bytes(content)
    with pytest.raises(FormatError, match=r"cell_by_gene\.csv"):
        cellweft.pair(reference, folder)


def test_a_folder_of_an_unknown_kind_is_refused(tmp_path: Path, reference: Any) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(
        FormatError, match="expected a zarr store, the folder of an instrument's run, or a 10x"
    ):
        cellweft.pair(reference, tmp_path)


def test_a_run_is_not_accepted_as_a_result(make_run: Any) -> None:
    assert result_kind(open_result(make_run("xenium"), argument="result")) is None


def test_large_counts_are_read_in_blocks(
    make_run: Any, truth: Any, reference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellweft.data.instruments.tables.BLOCK_BYTES", 100)
    data = open_input(make_run("merscope"), argument="st")
    assert data.matrix.shape[0] == len(truth("merscope").names)
    np.testing.assert_array_equal(stored(cellweft.pair(reference, data.source)), truth("merscope").counts)


def test_a_compressed_part_must_be_unpacked_first(make_run: Any, reference: Any) -> None:
    folder = make_run("xenium")
    (folder / "cell_feature_matrix.h5").unlink()
    (folder / "cell_feature_matrix.tar.gz").touch()
    with pytest.raises(FormatError, match=r"Unpack '.*cell_feature_matrix\.tar\.gz'"):
        cellweft.pair(reference, folder)


def test_missing_counts_of_a_run_are_reported(make_run: Any, reference: Any) -> None:
    folder = make_run("cosmx")
    (folder / "Run1_exprMat_file.csv").unlink()
    with pytest.raises(FormatError, match=r"without exprMat_file\.csv: .*of the sample, 'Run1'"):
        cellweft.pair(reference, folder)


def test_a_sample_of_a_run_without_samples_is_refused(make_run: Any, reference: Any) -> None:
    with pytest.raises(
        KeyMissingError,
        match=r"without a sample in their names\. This is the folder of a single run: leave st_sample=",
    ):
        cellweft.pair(reference, make_run("xenium"), st_sample="S1")


def test_a_run_with_all_spots_outside_tissue_is_refused(make_run: Any, reference: Any) -> None:
    folder = make_run("visium")
    path = folder / "spatial" / "tissue_positions.csv"
    pd.read_csv(path).assign(in_tissue=0).to_csv(path, index=False)
    with pytest.raises(FormatError, match=r"got 24 cells outside tissue \(in_tissue 0\)\. Correct"):
        cellweft.pair(reference, folder)


def test_a_run_two_folders_below_is_suggested(make_run: Any, reference: Any) -> None:
    folder = make_run("cosmx")
    (folder / "flatFiles" / "Run1").mkdir(parents=True)
    for path in folder.glob("*.csv"):
        path.rename(folder / "flatFiles" / "Run1" / path.name)
    with pytest.raises(FormatError, match=r"Pass one of its folders: '.*flatFiles/Run1'"):
        cellweft.pair(reference, folder)


def test_ids_of_merscope_may_be_in_any_column(make_run: Any, truth: Any, reference: Any) -> None:
    folder = make_run("merscope")
    table = pd.read_csv(folder / "cell_metadata.csv", dtype={"EntityID": str})
    table[[*table.columns[1:], "EntityID"]].to_csv(folder / "cell_metadata.csv", index=False)
    np.testing.assert_allclose(cellweft.pair(reference, folder).coordinates, truth("merscope").places)


@pytest.mark.parametrize("name", ["cell_by_gene.csv", "cell_metadata.csv"])
def test_row_numbers_are_not_ids_of_merscope(name: str, make_run: Any, truth: Any, reference: Any) -> None:
    folder = make_run("merscope")
    table = pd.read_csv(folder / name, dtype={"EntityID": str, "cell": str})
    # pandas writes row numbers in the first column
    table.iloc[::-1].reset_index(drop=True).to_csv(folder / name)
    pair = cellweft.pair(reference, folder)
    assert sorted(pair.st.obs_names) == truth("merscope").names
    assert pair.st.n_genes == len(truth("merscope").genes)
    order = np.argsort(pair.st.obs_names.to_numpy())
    np.testing.assert_allclose(pair.coordinates[order], truth("merscope").places)
    np.testing.assert_array_equal(stored(pair)[order], truth("merscope").counts)


@pytest.mark.parametrize("ending", ["", "-2"])
def test_barcodes_may_differ_in_their_number_suffix(
    ending: str, make_run: Any, truth: Any, reference: Any
) -> None:
    folder = make_run("visium")
    path = folder / "spatial" / "tissue_positions.csv"
    table = pd.read_csv(path)
    table["barcode"] = table["barcode"].str.removesuffix("-1") + ending
    table.to_csv(path, index=False)
    pair = cellweft.pair(reference, folder)
    np.testing.assert_allclose(pair.coordinates, truth("visium").places)
    assert any("matched by name, without the number at the end ('AAAC" in one for one in pair.cautions)
    twice = pd.concat([table, table.assign(barcode=table["barcode"].str.removesuffix(ending) + "-7")])
    twice.to_csv(path, index=False)  # now the suffixes distinguish cells
    with pytest.raises(FormatError, match="Use both files from the same run"):
        cellweft.pair(reference, folder)


@pytest.mark.parametrize("lost", ["rows", "places"])
def test_a_caution_if_most_cells_are_omitted(lost: str, make_run: Any, reference: Any) -> None:
    folder = make_run("xenium")
    table = pd.read_parquet(folder / "cells.parquet")
    if lost == "rows":
        table = table.iloc[:10]
    else:
        table.loc[10:, "x_centroid"] = np.nan
    table.to_parquet(folder / "cells.parquet")
    pair = cellweft.pair(reference, folder)
    assert pair.st.n_cells == 10
    said = "14 of 24 cells, more than half, have no position in cells.parquet and are left out"
    assert any(said in one for one in pair.cautions)


def test_part_of_a_sample_name_is_enough(make_run: Any, truth: Any, reference: Any) -> None:
    folder = make_run("cosmx")
    for name in ("exprMat_file.csv", "metadata_file.csv"):
        shutil.copy(folder / f"Run1_{name}", folder / f"GSM2_Lung_{name}")
        (folder / f"Run1_{name}").rename(folder / f"GSM1_Lung_{name}")
    assert cellweft.pair(reference, folder, st_sample="GSM2").st.obs_names.tolist() == truth("cosmx").names
    with pytest.raises(KeyMissingError, match=r"st_sample='Lung': expected a sample"):
        cellweft.pair(reference, folder, st_sample="Lung")


@pytest.mark.parametrize("column", ["cell_ID", "fov"])
def test_numbers_of_cosmx_may_be_written_in_other_forms(
    column: str, make_run: Any, truth: Any, reference: Any
) -> None:
    folder = make_run("cosmx")
    path = folder / "Run1_exprMat_file.csv"
    table = pd.read_csv(path)
    table[column] = table[column].map("F{:03}".format) if column == "fov" else table[column].astype(float)
    table.to_csv(path, index=False)
    pair = cellweft.pair(reference, folder)
    assert pair.st.obs_names.tolist() == truth("cosmx").names
    assert left_out(pair)[0] == "2 cells numbered 0, for transcripts outside cells"


def test_positions_of_stereo_seq_may_be_negative(make_run: Any, reference: Any) -> None:
    folder = make_run("stereo_seq", cells=False)
    path = next(folder.glob("*.gem.gz"))
    plain = cellweft.pair(reference, folder, st_sample="bin10")
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    rows = [line.split("\t") for line in lines[4:]]
    moved = ["\t".join([gene, str(int(x) - 100), str(int(y) - 100), *more]) for gene, x, y, *more in rows]
    path.write_bytes(gzip.compress("\n".join([*lines[:4], *moved, ""]).encode()))
    pair = cellweft.pair(reference, folder, st_sample="bin10")
    np.testing.assert_allclose(pair.coordinates, plain.coordinates - 100)
    np.testing.assert_array_equal(stored(pair), stored(plain))
    assert pair.st.obs_names[0] == "_".join(str(int(one) - 5) for one in pair.coordinates[0])


def test_compressed_positions_of_visium_must_be_unpacked_first(make_run: Any, reference: Any) -> None:
    folder = make_run("visium")
    shutil.rmtree(folder / "spatial")
    (folder / "spatial.tar.gz").touch()
    with pytest.raises(FormatError, match=r"Unpack '.*spatial\.tar\.gz'"):
        cellweft.pair(reference, folder)


def test_the_counts_of_a_cell_ranger_multi_sample_are_suggested(
    tmp_path: Path, reference: Any, write_counts: Any
) -> None:
    below = tmp_path / "run" / "outs" / "per_sample_outs" / "S1" / "count"
    write_counts(below / "sample_filtered_feature_bc_matrix.h5", [f"ACGT{one}-1" for one in range(24)])
    with pytest.raises(FormatError, match=r"Pass one of its folders: '.*/per_sample_outs/S1/count'"):
        cellweft.pair(reference, tmp_path / "run")
    shutil.move(below / "sample_filtered_feature_bc_matrix.h5", tmp_path / "GSM1_A.h5")
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(FormatError, match=r"Pass one of its files: '.*GSM1_A\.h5'"):
        cellweft.pair(reference, tmp_path)


@pytest.mark.parametrize("columns", [("x", "y"), ("xcoord", "ycoord")])
def test_a_run_of_curio(columns: tuple[str, str], tmp_path: Path, truth: Any, reference: Any) -> None:
    known = truth("slide_seq")
    scipy.io.mmwrite(tmp_path / "S1_MoleculesPerMatchedBead.mtx", sp.coo_matrix(known.counts.T))
    (tmp_path / "S1_barcodes.tsv").write_text("\n".join(known.names) + "\n")
    (tmp_path / "S1_genes.tsv").write_text("\n".join(known.genes) + "\n")
    beads = pd.DataFrame(known.places, columns=columns, index=pd.Index(known.names))
    beads.iloc[::-1].to_csv(tmp_path / "S1_MatchedBeadLocation.csv")
    pair = cellweft.pair(reference, tmp_path)
    np.testing.assert_array_equal(stored(pair), known.counts)
    np.testing.assert_allclose(pair.coordinates, known.places)
    assert "read as       Curio Seeker" in pair.summary()
    assert pair.findings["coordinates"]["unit"] == ""
    (tmp_path / "S1_MatchedBeadLocation.csv").unlink()
    with pytest.raises(FormatError, match=r"without .*MatchedBeadLocation\.csv|without BeadLocationsForR"):
        cellweft.pair(reference, tmp_path)


@pytest.mark.parametrize(
    ("instrument", "name"),
    [
        ("merscope", "cell_metadata.csv"),
        ("merscope", "cell_by_gene.csv"),
        ("cosmx", "Run1_metadata_file.csv"),
    ],
)
def test_a_comma_at_the_end_of_rows_does_not_shift_columns(
    instrument: str, name: str, make_run: Any, reference: Any
) -> None:
    folder = make_run(instrument)
    (path,) = folder.rglob(name)
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *(f"{row}," for row in rows)]) + "\n")
    with pytest.raises(FormatError, match=r"comma|fields|columns"):
        cellweft.pair(reference, folder)
