"""Text tables in many forms: read correctly and with a report, or refused with advice."""

import bz2
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cellweft._errors import FormatError
from cellweft.data.io.delimited import read_rows
from cellweft.data.io.dialect import dialect_of
from cellweft.data.io.lazy_input import Input
from cellweft.data.io.read import open_input

COUNTS = pd.DataFrame(
    [[0.0, 2.5, 1.0], [3.25, 0.0, 0.125], [1.0, 1.5, 0.5], [0.5, 4.0, 2.0]],
    index=["s1", "s2", "s3", "s4"],
    columns=["Gad1", "Sst", "Vip"],
)
TYPES = ["Größe µ", "b", "c", "d"]


def opened(folder: Path, name: str, content: bytes) -> Input:
    path = folder / name
    path.write_bytes(content)
    return open_input(path, argument="st")


def values(data: Input) -> Any:
    return np.asarray(data.matrix)


@pytest.mark.parametrize(
    ("name", "how", "note"),
    [
        ("a.csv", {"sep": ";"}, "columns are separated by semicolons."),
        (
            "a.csv",
            {"sep": ";", "decimal": ","},
            "columns are separated by semicolons; numbers have decimal commas.",
        ),
        ("a.tsv", {"sep": "\t", "decimal": ","}, "numbers have decimal commas."),
        ("a.csv", {"sep": "\t"}, "columns are separated by tabs."),
        ("a.tsv", {"sep": ","}, "columns are separated by commas."),
        ("a.txt", {"sep": " ", "quoting": 2}, "columns are separated by blanks."),
        ("a.csv", {"sep": "|"}, "columns are separated by bars."),
    ],
)
def test_separators_are_detected_and_reported(
    name: str, how: dict[str, Any], note: str, tmp_path: Path
) -> None:
    text = COUNTS.assign(kind=["a", "b b", "c,c", "d"]).to_csv(**how)
    data = opened(tmp_path, name, text.encode())
    np.testing.assert_array_equal(values(data), COUNTS)
    assert list(data.var.index) == list(COUNTS.columns)
    assert list(data.obs.names()) == list(COUNTS.index)
    assert note in data.notes


@pytest.mark.parametrize(
    ("encoding", "note"),
    [
        ("utf-8", ""),
        ("utf-8-sig", ""),
        ("utf-16", "the text is UTF-16."),
        ("utf-16-le", "the text is UTF-16-LE."),
        ("utf-32", "the text is UTF-32."),
        ("cp1252", "the text is not UTF-8 and was read as Windows-1252"),
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress])
def test_encodings_are_detected_and_reported(encoding: str, note: str, pack: Any, tmp_path: Path) -> None:
    text = COUNTS.assign(kind=TYPES).rename_axis("cell").to_csv().encode(encoding)
    ending = {gzip.compress: ".gz", bz2.compress: ".bz2"}.get(pack, "")
    data = opened(tmp_path, f"a.csv{ending}", pack(text))
    np.testing.assert_array_equal(values(data), COUNTS)
    assert list(data.obs["kind"]) == TYPES
    assert list(data.obs.names()) == list(COUNTS.index)
    assert any(one.startswith(note) for one in data.notes) if note else not data.notes


def test_a_letter_far_down_reveals_the_encoding(tmp_path: Path) -> None:
    text = "cell,Gad1,kind\n" + "".join(f"s{number},{number % 5},a\n" for number in range(200_000))
    data = opened(tmp_path, "a.csv", text.encode() + "last,1,Müller\n".encode("cp1252"))
    assert data.obs["kind"].iloc[-1] == "Müller"
    assert "Windows-1252" in data.notes[0]


def test_a_table_of_r_without_a_first_name_in_any_form(tmp_path: Path) -> None:
    text = COUNTS.to_csv(sep=" ", quoting=2).replace('"" ', "", 1)
    data = opened(tmp_path, "a.txt", text.encode())
    np.testing.assert_array_equal(values(data), COUNTS)
    assert list(data.var.index) == list(COUNTS.columns)


def test_comments_above_the_header_are_reported(tmp_path: Path) -> None:
    data = opened(tmp_path, "a.csv", b"# made by hand\n# today\n" + COUNTS.to_csv().encode())
    np.testing.assert_array_equal(values(data), COUNTS)
    assert "2 lines of comments above the header skipped." in data.notes


def test_a_header_may_begin_with_a_comment_character(tmp_path: Path) -> None:
    data = opened(tmp_path, "a.tsv", COUNTS.rename_axis("#cell").to_csv(sep="\t").encode())
    assert list(data.obs.names()) == list(COUNTS.index)
    assert not data.notes


@pytest.mark.parametrize("title", ["Run 12, exported 2024", "Run 12\n\nExported 2024", "\nCounts"])
@pytest.mark.parametrize("separator", [",", "\t"])
def test_titles_above_the_header_are_skipped(title: str, separator: str, tmp_path: Path) -> None:
    wide = pd.concat([COUNTS, COUNTS.add_prefix("Other")], axis=1).rename_axis("cell")
    data = opened(tmp_path, "a.csv", f"{title}\n{wide.to_csv(sep=separator)}".encode())
    assert list(data.obs.names()) == list(COUNTS.index)
    assert list(data.var.index) == list(wide.columns)
    n_lines = len(title.splitlines())
    told = "1 line" if n_lines == 1 else f"{n_lines} lines"
    assert f"{told} of comments above the header skipped" in data.notes[0]


@pytest.mark.parametrize("other", [["0,5", "0.5"], ["1,5", "2.25"]])
def test_decimal_points_with_decimal_commas_are_refused(other: list[str], tmp_path: Path) -> None:
    text = f"cell;Gad1;Sst\na;{other[0]};1\nb;{other[1]};2\nc;3;1\n"
    with pytest.raises(FormatError, match=rf"column 'Gad1'.*got '{other[0]}' for cell 'a'"):
        opened(tmp_path, "a.csv", text.encode())


@pytest.mark.parametrize(
    "mark",
    ["1,234", "1.234,5", "1 234", "1'234", "~5", ">100", "12%", "3 counts", "1\u202f234", "+-3", "4_000"],
)
def test_numbers_in_other_notations_are_refused(mark: str, tmp_path: Path) -> None:
    text = f'cell,Gad1,Sst\na,"{mark}",1\nb,2,2\nc,3,1\n'
    with pytest.raises(FormatError, match=r"column 'Gad1'.*for cell 'a'"):
        opened(tmp_path, "a.csv", text.encode())


def test_thousands_separators_in_every_cell_are_refused(tmp_path: Path) -> None:
    text = 'cell,Gad1,Sst\na,"1,234",1\nb,"2,001",2\nc,"1,000",1\n'
    with pytest.raises(FormatError, match="column 'Gad1': expected a number for every cell, got '1,234'"):
        opened(tmp_path, "a.csv", text.encode())


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_numbers_stored_as_text_are_reported(kind: str, tmp_path: Path) -> None:
    if kind == "csv":  # a decimal point, though the first lines have commas
        rows = [f"c{number};0,5;{number % 3}" for number in range(50)] + ["d;1;1.5"]
        data = opened(tmp_path, "a.csv", "\n".join(["cell;Gad1;Sst", *rows]).encode())
    else:
        COUNTS.astype({"Sst": str}).to_parquet(tmp_path / "a.parquet")
        data = open_input(tmp_path / "a.parquet", argument="st")
    assert said_as_annotation("Sst") in data.notes


def said_as_annotation(name: str) -> str:
    said = "columns with numbers that are not counts, or with some text, were treated as annotation of "
    return f"{said}the cells, not as genes: {name!r}."


@pytest.mark.parametrize(
    ("header", "row"),
    [
        (
            ",barcode_id,global_x,global_y,global_z,x,y,fov,gene,transcript_id",
            "{0},{1},{0}.5,2,0.0,3,4,1,{2},E",
        ),
        ("fov,cell_ID,x_global_px,y_global_px,z,target,CellComp", "1,{0},{0},2,0,{2},Nuclear"),
        ("transcript_id,cell_id,feature_name,x_location,y_location,qv", "{0},aaaa-1,{2},1.5,2.5,40"),
    ],
)
def test_a_table_of_molecules_is_refused_with_advice(header: str, row: str, tmp_path: Path) -> None:
    """Tables of MERSCOPE, CosMx and Xenium, passed instead of the counts."""
    names = ["Gad1", "Sst", "Vip", "Pvalb", "Lamp5"]
    rows = [row.format(number, number % 5, names[number % 5]) for number in range(60)]
    with pytest.raises(FormatError, match=r"expected a row per cell.*one molecule, count by cell first"):
        opened(tmp_path, "a.csv", "\n".join([header, *rows]).encode())


@pytest.mark.parametrize("mark", ["bdl", "low", "TRUE", "0x10", "Excluded"])
def test_text_among_the_numbers_of_a_column_is_reported(mark: str, tmp_path: Path) -> None:
    data = opened(tmp_path, "a.csv", f"cell,Gad1,Sst\na,{mark},1\nb,2,2\nc,3,1\n".encode())
    assert said_as_annotation("Gad1") in data.notes


@pytest.mark.parametrize("corner", ["", "cell", "index"])
def test_rows_that_end_in_a_separator_are_not_shifted(corner: str, tmp_path: Path) -> None:
    header, *rows = COUNTS.rename_axis(corner).to_csv().splitlines()
    data = opened(tmp_path, "a.csv", "\n".join([header, *(f"{row}," for row in rows)]).encode())
    np.testing.assert_array_equal(values(data), COUNTS)
    assert list(data.var.index) == list(COUNTS.columns)
    assert list(data.obs.names()) == list(COUNTS.index)


def test_a_single_row_with_an_extra_field_is_refused(tmp_path: Path) -> None:
    header, *rows = COUNTS.rename_axis("cell").to_csv().splitlines()
    many_rows = [f"{row}," for row in rows * 20] + [f"{rows[0]},7"]
    with pytest.raises(FormatError, match="some rows have one field more than the header"):
        opened(tmp_path, "a.csv", "\n".join([header, *many_rows]).encode())


def test_empty_rows_are_omitted_and_reported(tmp_path: Path) -> None:
    data = opened(tmp_path, "a.csv", COUNTS.to_csv().encode() + b",,,\n,,,\n")
    np.testing.assert_array_equal(values(data), COUNTS)
    assert data.notes == ("2 empty rows left out.",)


def test_a_table_without_a_header_is_refused(tmp_path: Path) -> None:
    table = pd.DataFrame(np.eye(5), index=list("abcde"), dtype=int)
    with pytest.raises(FormatError, match="first row: expected names of genes, got numbers, with duplicates"):
        opened(tmp_path, "a.csv", table.to_csv(header=False).encode())


def test_tables_below_each_other_are_refused(tmp_path: Path) -> None:
    text = COUNTS.rename_axis("cell").to_csv()
    said = r"row 'cell': expected column names only in the first row, got the same names again"
    with pytest.raises(FormatError, match=said):
        opened(tmp_path, "a.csv", (text + text).encode())


@pytest.mark.parametrize("gene", ["gene", "feature_name", "Gene Name"])
def test_a_row_for_each_gene_of_a_cell_is_refused(gene: str, tmp_path: Path) -> None:
    table = COUNTS.rename_axis("cell").reset_index().melt("cell", var_name=gene, value_name="count")
    with pytest.raises(
        FormatError, match="If each row is one gene in one cell, or one molecule, count by cell"
    ):
        opened(tmp_path, "a.csv", table.to_csv(index=False).encode())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            b"<!DOCTYPE html><html>404</html>",
            "got a web page .* the address leads to a page about it",
        ),
        ("a.h5ad", b"<html><body>404</body></html>", "got a web page"),
        ("a.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 5\n", "git lfs pull"),
        ("a.h5ad", b"version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 5\n", "git lfs pull"),
        ("a.csv", gzip.compress(b"cell,Gad1\na,1\n", mtime=0), r"got a gzip-compressed file .* \(gunzip\)"),
        ("a.csv", b"PK\x03\x04rest", r"got a zip archive .* \(unzip\)"),
        (
            "a.csv.gz",
            gzip.compress(COUNTS.to_csv().encode(), mtime=0)[:-9],
            "gzip file that is damaged or incomplete",
        ),
    ],
)
def test_files_that_are_not_tables_are_refused(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(FormatError, match=message):
        opened(tmp_path, name, content)


def test_a_given_separator_is_used(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('cell,Gad1,kind\na,1,"x;y"\nb,2,"z;w"\n')
    assert dialect_of(path, separator=",").separator == ","
    path.write_text("cell,Gad1\na,1\nb,2,3\n")
    assert dialect_of(path, separator=",").separator == ","


def test_zstandard_files_must_be_unpacked_first(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"got a compressed file \(.zst\).*Unpack it"):
        opened(tmp_path, "a.csv.zst", b"\x28\xb5\x2f\xfd")


def test_numbers_are_read_exactly_and_long_exponents_do_not_crash(tmp_path: Path) -> None:
    path = tmp_path / "cells.csv"
    path.write_text("cell,A,B\na,0.1234567890123456,9.5\nb,0.30000000000000004,1\n")
    table = read_rows(path, dialect=dialect_of(path, separator=","))
    assert table["A"].tolist() == [0.1234567890123456, 0.30000000000000004]
    path.write_text("cell,A,B\na,1,9999999991e4009999999999999\nb,2,1\n")
    value = str(
        read_rows(path, dialect=dialect_of(path, separator=","))["B"].iloc[0]
    )  # pandas 3 reads infinity
    assert value in ("9999999991e4009999999999999", "inf")
