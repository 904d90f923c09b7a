"""Edge lists: every supported layout, weights, repeated edges, invalid input, and genes found by name."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._errors import FormatError, GeneError, InputError, MissingFileError
from cellweft.genes.interactions import EdgeList, read_edges

# weights are float32
TOLERANCE = 1e-6

WEIGHTED = {("Gad1", "Gad2"): 0.9, ("Gad2", "Sst"): 0.45}
PLAIN = {("Gad1", "Gad2"): 1.0, ("Gad2", "Sst"): 1.0}


def as_dict(edges: EdgeList) -> dict[tuple[str, ...], float]:
    return {
        tuple(sorted(edges.genes[pair].tolist())): float(weight)
        for pair, weight in zip(edges.pairs, edges.weights, strict=True)
    }


def written(folder: Path, text: str, name: str = "edges.txt") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Gad1\tGad2\nGad2\tSst\n", PLAIN),
        ("Gad1,Gad2\nGad2,Sst", PLAIN),
        ("Gad1 Gad2\n\nGad2   Sst\n\n", PLAIN),
        ("gene1\tgene2\nGad1\tGad2\nGad2\tSst\n", PLAIN),
        ("source target\nGad1 Gad2\nGad2 Sst\n", PLAIN),
        ("# two comments\n# from somewhere\nGad1\tGad2\nGad2\tSst\n", PLAIN),
        ("Gad1\tGad2\t0.9\nGad2\tSst\t0.45\n", WEIGHTED),
        ("Gad1\tGad2\t0.9\r\n\r\nGad2\tSst\t0.45\r\n", WEIGHTED),
        ("\ufeffa,b,weight\nGad1, Gad2, 0.9\n Gad2,Sst ,0.45\n", WEIGHTED),
        ('"a","b","weight"\n"Gad1","Gad2",0.9\n"Gad2","Sst",0.45\n', WEIGHTED),
        ("Gad1 Gad2 2\nGad2 Sst 1\n", {("Gad1", "Gad2"): 1.0, ("Gad2", "Sst"): 0.5}),
        ("protein1 protein2 combined_score\nGad1 Gad2 900\nGad2 Sst 450\n", WEIGHTED),
        (
            "protein1 protein2 neighborhood textmining combined_score\nGad1 Gad2 0 1 900\nGad2 Sst 9 9 450\n",
            WEIGHTED,
        ),
        (
            "#node1\tnode2\tnode1_string_id\tcombined_score\nGad1\tGad2\t10090.X\t0.9\nGad2\tSst\t10090.Y\t0.45\n",
            WEIGHTED,
        ),
    ],
    ids=range(14),
)
def test_every_layout_is_read(tmp_path: Path, text: str, expected: dict[tuple[str, ...], float]) -> None:
    found = read_edges(written(tmp_path, text))
    assert set(found.genes) == {"Gad1", "Gad2", "Sst"}
    assert as_dict(found) == pytest.approx(expected, abs=TOLERANCE)
    assert (found.n_self_loops, found.n_repeated) == (0, 0)


def test_gzip_and_a_gene_named_na(tmp_path: Path) -> None:
    path = tmp_path / "edges.tsv.gz"
    path.write_bytes(gzip.compress(b"NA\tnan\t0.5\nGad1\tNA\t0.25\n"))
    assert as_dict(read_edges(path)) == {("NA", "nan"): 0.5, ("Gad1", "NA"): 0.25}


@pytest.mark.parametrize("separator", ["\t", ",", " "])
def test_names_that_look_like_something_else(tmp_path: Path, separator: str) -> None:
    names = ["NA", "nan", "None", "null", "TRUE", "007", "1e3"]
    path = tmp_path / "edges.txt"
    path.write_text("".join(separator.join(["Gad1", name, "0.5"]) + "\n" for name in names))
    table = read_edges(path)
    assert sorted(table.genes) == sorted(["Gad1", *names])
    assert len(table.pairs) == len(names)


def test_names_are_kept_unchanged(tmp_path: Path) -> None:
    found = read_edges(written(tmp_path, "10090.ENSMUSP1 10090.ENSMUSP2 700\n"))
    assert found.genes.tolist() == ["10090.ENSMUSP1", "10090.ENSMUSP2"]
    assert found.weights.tolist() == [1.0], "only a column called combined_score is on STRING's scale"


def test_edges_are_undirected_and_the_largest_weight_is_used(tmp_path: Path) -> None:
    text = "Gad1 Gad2 0.5\nGad2 Gad1 0.75\nGad1 Gad2 0.25\nSst Sst 1\nSst Vip 0\nVip Gad1 0.125\n"
    found = read_edges(written(tmp_path, text))
    assert as_dict(found) == {("Gad1", "Gad2"): 0.75, ("Gad1", "Vip"): 0.125}
    assert (found.n_self_loops, found.n_repeated) == (1, 2)
    assert set(found.genes) == {"Gad1", "Gad2", "Sst", "Vip"}, "genes without an edge are included"
    path = tmp_path / "edges.txt"
    assert repr(found) == (
        f"EdgeList(2 edges between 4 genes from {path}; 1 self-loop left out; 2 repeated edges left out)"
    )


def test_omitted_edges_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path, "Gad1 Gad1\nGad1 Gad2\n")
    with caplog.at_level("INFO", logger="cellweft"):
        read_edges(path)
        read_edges([path])
        read_edges(pd.DataFrame([["Gad1", "Gad2"]]))
    assert [record.message.count("1 self-loop left out") for record in caplog.records] == [1, 1]


def test_a_table_in_memory_gives_the_same_as_a_file(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": ["Gad1", "Gad2"], "b": ["Gad2", "Sst"], "weight": [0.9, 0.45]})
    before = frame.copy()
    found = read_edges(frame)
    assert as_dict(found) == pytest.approx(WEIGHTED, abs=TOLERANCE)
    assert found.source == "memory"
    assert as_dict(read_edges(frame[["a", "b"]])) == PLAIN
    pd.testing.assert_frame_equal(frame, before)
    assert read_edges(found) is found


def test_several_sources_are_combined(tmp_path: Path) -> None:
    path = written(tmp_path, "Gad1 Gad2 900\nGad2 Sst 450\nSst Sst 1\n")
    frame = pd.DataFrame({"a": ["Sst", "Vip"], "b": ["Gad2", "Sst"], "weight": [0.75, 0.25]})
    found = read_edges([path, frame])
    assert as_dict(found) == pytest.approx(
        {("Gad1", "Gad2"): 1.0, ("Gad2", "Sst"): 0.75, ("Sst", "Vip"): 0.25}, abs=TOLERANCE
    )
    assert (found.n_self_loops, found.n_repeated) == (1, 1)
    assert found.source == f"{path}, memory"
    assert as_dict(read_edges([path])) == as_dict(read_edges(path))


@settings(max_examples=50, deadline=None)
@given(
    edges=st.lists(
        st.tuples(st.sampled_from("ABCDE"), st.sampled_from("ABCDE"), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
    )
)
def test_reading_equals_a_naive_loop(edges: list[tuple[str, str, float]]) -> None:
    naive: dict[tuple[str, ...], float] = {}
    for one, other, weight in edges:
        key = tuple(sorted((one, other)))
        if one != other:
            naive[key] = max(naive.get(key, 0), weight)
    naive = {key: weight for key, weight in naive.items() if weight > 0}
    frame = pd.DataFrame(edges, columns=["a", "b", "weight"])
    if not naive:
        with pytest.raises(InputError, match="expected edges between two different genes"):
            read_edges(frame)
        return
    found = read_edges(frame)
    assert as_dict(found) == naive
    genes = ["E", "D", "C", "B", "A", "Z"]
    known, matrix = found.aligned(genes)
    assert known.tolist() == [gene in {name for edge in edges for name in edge[:2]} for gene in genes]
    dense = matrix.toarray()
    np.testing.assert_array_equal(dense, dense.T)
    for (one, other), weight in naive.items():
        assert dense[genes.index(one), genes.index(other)] == weight
    assert (dense > 0).sum() == 2 * len(naive)


def test_genes_are_found_by_name_then_ignoring_case() -> None:
    found = read_edges(pd.DataFrame({"a": ["GAD1", "GAD2"], "b": ["GAD2", "SST"]}))
    known, edges = found.aligned(["Sst", "Vip", "Gad1", "GAD2"])
    assert known.tolist() == [True, False, True, True]
    assert edges.toarray().tolist() == [[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1], [1, 0, 1, 0]]


def test_edges_of_other_genes_are_refused_with_examples_of_both_sides(tmp_path: Path) -> None:
    found = read_edges(written(tmp_path, "10090.ENSMUSP1 10090.ENSMUSP2 700\n"))
    expected = r"edges\.txt: expected edges of genes such as 'Gad1', 'Gad2', 'Sst', got none.*'10090\.E"
    with pytest.raises(
        GeneError,
        match=rf"{expected}.*Replace STRING's IDs by gene names; they are in its file protein\.info",
    ):
        found.aligned(["Gad1", "Gad2", "Sst", "Vip"])
    with pytest.raises(GeneError, match=r"such as 'TP53', 'lacZ'\. Use one from the same species"):
        read_edges(pd.DataFrame([["TP53", "lacZ"]])).aligned(["Gad1"])


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (b"", FormatError, "got an empty file"),
        (b"\x89HDF\0\0", FormatError, "got a binary file"),
        (b"# nothing\n# here\n", FormatError, "only comments"),
        (b"Gad1\nGad2\n", FormatError, r"line 1: .*got 1 column\(s\): 'Gad1'"),
        (b"Gad1\tGad2\nGad2\n", FormatError, r"line 2: .*got a column that is missing"),
        (b"Gad1\tGad2\nGad2\t\n", FormatError, r"line 2: .*got a column that is missing"),
        (b"a\tb\tw\nGad1\tGad2\t1\n\n\tSst\t1\n", FormatError, r"line 4: .*got a column that is missing"),
        (b"a\tb\tw\nGad1\tGad2\t1\nGad2\tSst\n", InputError, r"line 3: expected a weight.*got none"),
        (b"Gad1\tGad2\nGad2\tSst\t0.5\n", FormatError, r"Expected 2 fields in line 2, saw 3"),
        (b"GABA\tx\tGad1\tGad2\n", FormatError, r"got 4 column\(s\).*a GMT file as gene_sets="),
        (b"Gad1\tGad2\t0.5\nGad2\tSst\t-1\n", InputError, r"line 2: expected a weight of 0 or more, got '-1"),
        (b"Gad1\tGad2\t0.5\nGad2\tSst\tNaN\n", InputError, r"line 2: .*got 'NaN'.*there are 1 of them"),
        (b"a\tb\tw\nGad1\tGad2\tinf\nGad2\tSst\thigh\n", InputError, r"line 2: .*got 'inf'.*there are 2"),
        (b"Gad1\tGad2\tNaN\n", InputError, r"line 1: .*got 'NaN'"),
        (b"Gad1\tGad1\nSst\tSst\n", InputError, r"expected edges between two different genes"),
        (b"Gad1\tGad2\t0\n", InputError, r"with weights above 0, got none"),
        (b"Gad1\tGad2\xff\n", FormatError, "not UTF-8 text"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, kind: type[Exception], message: str) -> None:
    path = tmp_path / "edges.txt"
    path.write_bytes(content)
    with pytest.raises(kind, match=message):
        read_edges(path)


def test_bad_tables_and_paths(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": ["Gad1", None], "b": ["Gad2", "Sst"], "weight": [1.0, 1.0]})
    with pytest.raises(FormatError, match=r"memory, row 1: .*a column that is missing"):
        read_edges(frame)
    with pytest.raises(InputError, match=r"memory, row 0: expected a weight of 0 or more, got '-1\.0'"):
        read_edges(frame.assign(weight=[-1.0, np.nan]))
    for columns in (["a"], ["a", "b", "weight", "more"]):
        with pytest.raises(FormatError, match=rf"memory: .*got {len(columns)} column"):
            read_edges(frame.reindex(columns=columns))
    with pytest.raises(MissingFileError, match=r"a list of edges .*got nothing at this path"):
        read_edges(tmp_path / "nowhere.tsv")
    with pytest.raises(InputError, match="expected edges"):
        read_edges([])


def test_arrays_of_wrong_shape_are_refused() -> None:
    genes, weights = np.array(["a", "b"]), np.ones(1, dtype=np.float32)
    for pairs, given_ in (([[0, 2]], weights), ([[0, 1]], -weights), ([[0, 1], [1, 0]], weights)):
        with pytest.raises(InputError, match="pairs, genes and weights that do not match"):
            EdgeList(genes=genes, pairs=np.array(pairs), weights=given_, source="made up")


@pytest.mark.parametrize(
    "text", ["gene1\tgene2\nGad1\tGad2\t0.9\nGad2\tSst\t0.4\n", "Gad1,Gad2\nGad2,Sst,0.4\n", "A B\nC D E\n"]
)
def test_columns_missing_in_the_first_line_are_not_dropped(text: str, tmp_path: Path) -> None:
    message = r"got (rows with more than the 2 columns|.*Expected 2 fields in line 2, saw 3)"
    with pytest.raises(FormatError, match=message):
        read_edges(written(tmp_path, text))
