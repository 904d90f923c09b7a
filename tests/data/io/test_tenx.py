"""Folders of 10x files from public series, and files of several genomes: one complete sample is read."""

import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from cellweft._errors import FormatError, KeyMissingError, SettingError
from cellweft.data._pair import pair
from cellweft.data.io.backed_matrix import open_rows
from cellweft.data.io.read import open_input

GENES = ["Gad1", "Sst", "Vip"]


def write(folder: Path, names: str, *, n_cells: int, what: str = "mbf", turned: bool = False) -> np.ndarray:
    """Write the files of a sample with names of the pattern `names`; return the counts, cells x genes."""
    counts = np.random.default_rng(n_cells).poisson(2.0, (n_cells, 3))
    folder.mkdir(exist_ok=True)
    if "m" in what:
        stored = counts if turned else counts.T
        scipy.io.mmwrite(folder / (names.format("matrix") + ".mtx"), sp.coo_matrix(stored))
    if "b" in what:
        text = "".join(f"{names.format('')}c{one}\n" for one in range(n_cells))
        (folder / (names.format("barcodes") + ".tsv")).write_text(text)
    if "f" in what:
        text = "".join(f"ENSG{number}\t{name}\tGene Expression\n" for number, name in enumerate(GENES))
        (folder / (names.format("features") + ".tsv")).write_text(text)
    return counts


def values(path: Path, sample: str | None = None) -> np.ndarray:
    data = open_input(path, argument="sc", sample=sample)
    return np.asarray(open_rows(data.values(None, argument="sc_layer")).read(slice(None)).toarray())


@pytest.mark.parametrize(
    "names",
    ["GSM1_{}", "GSM1_brain.{}", "{}_MH001", "a-{}-b", "filtered_feature_bc_{}", "count_matrix_{}", "{}"],
)
def test_one_common_prefix_or_suffix_is_accepted(names: str, tmp_path: Path) -> None:
    counts = write(tmp_path, names, n_cells=5)
    (tmp_path / "cell_metadata.csv").write_text("no\n")
    (tmp_path / "gene_metadata.csv").write_text("no\n")
    np.testing.assert_array_equal(values(tmp_path), counts)


@pytest.mark.parametrize("names", ["GSM{}_{{}}", "{{}}_MH00{}", "GSM{}-{{}}-x"])
def test_several_samples_are_named_and_chosen(names: str, tmp_path: Path) -> None:
    counts = [write(tmp_path, names.format(one), n_cells=4 + one) for one in (1, 2)]
    with pytest.raises(
        FormatError, match=r"expected the files of a single sample, got 2: .*1.*2.*sc_sample='"
    ) as error:
        open_input(tmp_path, argument="sc")
    chosen = str(error.value).split("sc_sample='")[1].split("'")[0]
    np.testing.assert_array_equal(values(tmp_path, chosen), counts[0])
    np.testing.assert_array_equal(values(tmp_path, chosen.replace("1", "2")), counts[1])
    with pytest.raises(
        KeyMissingError, match=r"sc_sample='GSM7': expected a sample of sc .*(Did you mean|Known)"
    ):
        open_input(tmp_path, argument="sc", sample="GSM7")


@pytest.mark.parametrize("lacking", ["bf", "mf", "mb", "b", "f", "m"])
def test_names_of_one_sample_are_never_given_to_another(lacking: str, tmp_path: Path) -> None:
    write(tmp_path, "GSM1_{}", n_cells=4, what=lacking)
    write(tmp_path, "GSM2_{}", n_cells=4, what="".join(one for one in "mbf" if one not in lacking))
    with pytest.raises(
        FormatError, match=r"expected the files of a single sample, got 2: 'GSM1', 'GSM2'.* lacks "
    ):
        open_input(tmp_path, argument="sc")
    chosen = "GSM1" if len(lacking) == 2 else "GSM2"
    with pytest.raises(FormatError, match=r"got a folder without "):
        open_input(tmp_path, argument="sc", sample=chosen)


def test_an_incomplete_sample_next_to_a_complete_one_is_reported(tmp_path: Path) -> None:
    counts = write(tmp_path, "GSM1_{}", n_cells=4)
    write(tmp_path, "GSM2_{}", n_cells=5, what="bf")
    with pytest.raises(FormatError, match=r"'GSM2' lacks matrix\.mtx\. Choose one: sc_sample='GSM1'"):
        open_input(tmp_path, argument="sc")
    np.testing.assert_array_equal(values(tmp_path, "GSM1"), counts)


def test_features_of_a_series_are_used_for_its_samples(tmp_path: Path) -> None:
    counts = [write(tmp_path, f"GSM{one}_{{}}", n_cells=4 + one, what="mb") for one in (1, 2)]
    write(tmp_path, "GSE9_{}", n_cells=4, what="f")
    np.testing.assert_array_equal(values(tmp_path, "GSM2"), counts[1])
    with pytest.raises(FormatError, match=r"got 2: 'GSM1', 'GSM2'"):
        open_input(tmp_path, argument="sc")


def test_a_square_matrix_is_read_as_10x_writes_it_with_a_caution(tmp_path: Path) -> None:
    counts = write(tmp_path, "{}", n_cells=len(GENES))
    np.testing.assert_array_equal(values(tmp_path), counts)
    said = open_input(tmp_path, argument="sc").notes
    assert said == (
        "there are as many cells as genes. The matrix is read as genes x cells, as 10x writes it.",
    )


def test_matrices_of_cells_by_genes_are_transposed(tmp_path: Path) -> None:
    counts = write(tmp_path, "{}", n_cells=5, turned=True)
    np.testing.assert_array_equal(values(tmp_path), counts)


def test_folders_of_samples_are_suggested(tmp_path: Path) -> None:
    write(tmp_path / "GSM1", "{}", n_cells=4)
    with pytest.raises(FormatError, match=r"Pass one of its folders: '.*GSM1'"):
        open_input(tmp_path, argument="sc")


def test_samples_are_chosen_by_pair(tmp_path: Path, make_side: Any) -> None:
    for one in (1, 2):
        write(tmp_path, f"GSM{one}_{{}}", n_cells=4 + one)
    tissue = make_side(GENES, spatial=True)
    assert pair(tmp_path, tissue, sc_sample="GSM2").sc.n_cells == 6
    assert pair(tissue, tmp_path, st_sample="GSM1", coordinates="none").st.n_cells == 5
    assert pair(tissue, tissue).with_reference(tmp_path, sc_sample="GSM1").sc.n_cells == 5
    with pytest.raises(
        SettingError, match=r"sc_sample: expected a folder with several samples.*Omit it\. To use the"
    ):
        pair(tissue, tissue, sc_sample="GSM1")


def genomes(path: Path, names: list[str], *, version: int) -> None:
    with h5py.File(path, "w") as file:
        for number, genome in enumerate(names if version == 2 else ["matrix"]):
            group = file.create_group(genome)
            matrix = sp.csr_matrix(np.full((4, 3), number + 1))
            group["barcodes"] = np.array([f"c{one}" for one in range(4)], dtype="S")
            group["data"], group["indices"], group["indptr"] = matrix.data, matrix.indices, matrix.indptr
            if version == 2:
                group["genes"], group["gene_names"] = np.array(["a", "b", "c"], "S"), np.array(GENES, "S")
            else:
                features: Any = group.create_group("features")
                features["id"], features["name"] = np.array(["a", "b", "c"], "S"), np.array(GENES, "S")
                features["feature_type"] = np.array(["Gene Expression"] * 3, "S")
                features["genome"] = np.array([names[0], names[1], names[0]], "S")


def test_several_genomes_of_an_earlier_file_need_a_choice(tmp_path: Path) -> None:
    genomes(tmp_path / "a.h5", ["GRCh38", "mm10"], version=2)
    with pytest.raises(
        FormatError, match=r"expected a single genome, got 2: 'GRCh38', 'mm10'.*sc_sample='GRCh38'"
    ):
        open_input(tmp_path / "a.h5", argument="sc")
    assert values(tmp_path / "a.h5", "mm10").max() == 2
    with pytest.raises(
        KeyMissingError, match=r"sc_sample='mm9': expected a genome of .*Known: 'GRCh38', 'mm10'"
    ):
        open_input(tmp_path / "a.h5", argument="sc", sample="mm9")


def test_genomes_of_a_file_are_reported_and_chosen(tmp_path: Path) -> None:
    genomes(tmp_path / "a.h5", ["GRCh38", "mm10"], version=3)
    both = open_input(tmp_path / "a.h5", argument="st")
    assert both.var.index.tolist() == GENES
    assert "several genomes ('GRCh38', 'mm10')" in both.notes[0]
    assert "st_sample='GRCh38'" in both.notes[0]
    one = open_input(tmp_path / "a.h5", argument="st", sample="GRCh38")
    assert one.var.index.tolist() == ["Gad1", "Vip"]
    assert one.left_out == {"genes other than of GRCh38": ("Sst",)}


def test_a_first_word_chooses_a_sample(tmp_path: Path) -> None:
    counts = [write(tmp_path, f"GSM{one}_Brain_{one}_{{}}", n_cells=4 + one) for one in (1, 2)]
    np.testing.assert_array_equal(values(tmp_path, "GSM2"), counts[1])
    with pytest.raises(KeyMissingError, match="sc_sample='Brain': expected a sample of sc"):
        open_input(tmp_path, argument="sc", sample="Brain")


def test_a_sample_without_a_name_has_none(tmp_path: Path) -> None:
    write(tmp_path, "{}", n_cells=4)
    with pytest.raises(KeyMissingError, match=r"no such sample.*no name: leave sc_sample= out"):
        open_input(tmp_path, argument="sc", sample="GSM1")
    write(tmp_path, "raw_{}", n_cells=6)
    with pytest.raises(FormatError, match=r"got 2: '', 'raw'\. Choose one: sc_sample='raw'"):
        open_input(tmp_path, argument="sc")


def test_a_missing_matrix_is_named(tmp_path: Path) -> None:
    write(tmp_path, "{}", n_cells=4, what="bf")
    with pytest.raises(FormatError, match=r"got a folder without matrix\.mtx: 'barcodes"):
        open_input(tmp_path, argument="sc")


def test_headers_of_names_are_not_cells(tmp_path: Path) -> None:
    counts = write(tmp_path, "{}", n_cells=4)
    for name, header in (("barcodes.tsv", "x\n"), ("features.tsv", "gene_id\tgene_name\ttype\n")):
        (tmp_path / name).write_text(header + (tmp_path / name).read_text())
    np.testing.assert_array_equal(values(tmp_path), counts)
    data = open_input(tmp_path, argument="sc")
    assert data.obs.names()[0] == "c0"
    assert data.var.index.tolist() == GENES


def test_samples_in_folders_next_to_the_files_are_reported(tmp_path: Path) -> None:
    write(tmp_path, "GSM1_{}", n_cells=4)
    write(tmp_path / "GSM2", "{}", n_cells=5)
    notes = open_input(tmp_path, argument="sc").notes
    assert notes == ("its folders contain further matrices, which were not read: 'GSM2'.",)


def as_lines(*rows: list[str], sep: str, quote: str = '"') -> str:
    return "".join(sep.join(f"{quote}{one}{quote}" for one in row) + "\n" for row in rows)


IDS = [f"ENSMUSG0000000000{number}" for number in range(3)]
NUMBERS = ["1", "2", "3"]


@pytest.mark.parametrize(
    "text",
    [
        as_lines(["", "x"], *zip(NUMBERS, GENES, strict=True), sep=","),  # R's write.csv
        as_lines(["x"], *zip(NUMBERS, GENES, strict=True), sep=" "),  # write.table
        as_lines(["x"], *zip(NUMBERS, GENES, strict=True), sep="\t", quote=""),
        as_lines(*zip(NUMBERS, GENES, strict=True), sep="\t"),
        as_lines(["", "gene_id", "gene_name"], *zip("012", IDS, GENES, strict=True), sep=","),
        as_lines(["", "gene_ids", "kind"], *zip(GENES, IDS, NUMBERS, strict=True), sep="\t"),
        as_lines(*([g] for g in GENES), sep=","),
        as_lines(["gene_id", "gene_name"], *zip(IDS, GENES, strict=True), sep=";"),
    ],
)  # fmt: skip
def test_names_that_r_and_pandas_wrote(text: str, tmp_path: Path) -> None:
    """Row numbers, headers and quotes are not part of names, and columns may have any separator."""
    counts = write(tmp_path, "{}", n_cells=4, what="m")
    (tmp_path / "genes.tsv").write_text(text)
    cells = [f"ACGTACGTAC-{one}" for one in range(4)]
    (tmp_path / "barcodes.tsv").write_text(
        as_lines(["", "x"], *zip("1234", cells, strict=True), sep="," if "," in text else "\t")
    )
    data = open_input(tmp_path, argument="sc")
    assert data.var.index.tolist() == GENES
    assert data.var["gene_ids"].tolist() == (IDS if IDS[0] in text else GENES)
    assert data.obs.names().tolist() == cells
    np.testing.assert_array_equal(values(tmp_path), counts)


def test_names_with_spaces_are_kept(tmp_path: Path) -> None:
    write(tmp_path, "{}", n_cells=4, what="m")
    (tmp_path / "genes.tsv").write_text("HLA A\nHLA B\nHLA C\n")
    (tmp_path / "barcodes.tsv").write_text("cell 1\ncell 2\ncell 3\ncell 4\n")
    data = open_input(tmp_path, argument="sc")
    assert data.var.index.tolist() == ["HLA A", "HLA B", "HLA C"]
    assert data.obs.names()[0] == "cell 1"


def test_files_of_parse_biosciences(tmp_path: Path) -> None:
    counts = write(tmp_path / "parse", "{}", n_cells=5, what="m", turned=True)
    (tmp_path / "parse" / "matrix.mtx").rename(tmp_path / "parse" / "DGE.mtx")
    genes = "".join(f"ENSG{number},{name},hg38\n" for number, name in enumerate(GENES))
    (tmp_path / "parse" / "all_genes.csv").write_text(f"gene_id,gene_name,genome\n{genes}")
    cells = "".join(f"01_02_{one:02},sample{one}\n" for one in range(5))
    (tmp_path / "parse" / "cell_metadata.csv").write_text(f"bc_wells,sample\n{cells}")
    np.testing.assert_array_equal(values(tmp_path / "parse"), counts)
    data = open_input(tmp_path / "parse", argument="sc")
    assert data.obs.names().tolist() == [f"01_02_{one:02}" for one in range(5)]
    assert data.var.index.tolist() == GENES


@pytest.mark.parametrize("lacking", ["feature_type", "name", "genome"])
def test_files_without_optional_parts(lacking: str, tmp_path: Path) -> None:
    counts = sp.csr_matrix(np.random.default_rng(0).poisson(2.0, (5, 3)))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array([f"c{one}" for one in range(5)], dtype="S")
        group["data"], group["indices"], group["indptr"] = counts.data, counts.indices, counts.indptr
        group["shape"] = counts.shape[::-1]
        features = {
            "id": GENES,
            "name": GENES,
            "feature_type": ["Gene Expression"] * 3,
            "genome": ["mm10"] * 3,
        }
        for key, texts in features.items():
            if key != lacking:
                group[f"features/{key}"] = np.array(texts, dtype="S")
    np.testing.assert_array_equal(values(tmp_path / "a.h5"), counts.toarray())
    assert open_input(tmp_path / "a.h5", argument="sc").var.index.tolist() == GENES


@pytest.mark.parametrize("kind", [np.dtype("(2,)f8"), h5py.vlen_dtype(np.int64), np.dtype([("a", "i4")])])
def test_lists_instead_of_names_are_refused_quickly(kind: np.dtype, tmp_path: Path) -> None:
    genomes(tmp_path / "a.h5", ["hg38", "mm10"], version=3)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        features = file["matrix/features"]
        key = "name" if "name" in features else "id"
        del features[key]
        features.create_dataset(key, shape=(2**20,), dtype=kind, chunks=(4096,))
    started = time.process_time()
    with pytest.raises(
        FormatError, match=r"a\.h5.*expected .*, got ValueError: names of shape \(1048576,.*type"
    ):
        open_input(tmp_path / "a.h5", argument="sc")
    assert time.process_time() - started < 5.0  # seconds; converting each to text takes more than 20
