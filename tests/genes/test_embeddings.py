"""Embedding tables: every format gives the same table, and invalid tables are refused with the next step."""

import pickle
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._errors import FormatError, GeneError, InputError, MissingFileError
from cellweft.genes.embeddings import EmbeddingTable, read_embedding

GENES = ["Gad1", "NA", "Sst"]
VALUES = np.array([[1.0, 0.5], [0.25, -3.0], [0.0, 2.0]], dtype=np.float32)


def frame() -> pd.DataFrame:
    return pd.DataFrame(VALUES.copy(), index=GENES, columns=["d0", "d1"])


def write_npz(path: Path, **changes: Any) -> Path:
    np.savez(path, **({"genes": np.array(GENES), "embeddings": VALUES} | changes))
    return path


def write(folder: Path, kind: str) -> Path:
    path = folder / f"table.{kind.partition(' ')[0]}"
    if kind == "parquet":
        frame().to_parquet(path)
    elif kind == "parquet with a column of genes":
        frame().rename_axis("gene").reset_index().to_parquet(path)
    elif kind == "parquet with lists":
        pd.DataFrame({"gene": GENES, "embedding": [list(row) for row in VALUES]}).to_parquet(path)
    elif kind in ("csv", "csv.gz", "tsv"):
        frame().to_csv(path, sep="\t" if kind == "tsv" else ",")
    elif kind == "npz":
        write_npz(path, model=np.array("esm2"))
    elif kind == "npz with values":
        np.savez(path, genes=np.array(GENES), values=VALUES.astype(float))
    elif kind == "h5ad":
        anndata.AnnData(VALUES, obs=pd.DataFrame(index=GENES), uns={"note": "esm2"}).write_h5ad(path)
    elif kind == "h5ad sparse":
        anndata.AnnData(sp.csr_matrix(VALUES), obs=pd.DataFrame(index=GENES)).write_h5ad(path)
    return path


KINDS = [
    "parquet",
    "parquet with a column of genes",
    "parquet with lists",
    "csv",
    "csv.gz",
    "tsv",
    "npz",
    "npz with values",
    "h5ad",
    "h5ad sparse",
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_table(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path, kind)
    table = read_embedding(path)
    assert list(table.genes) == GENES
    assert table.values.dtype == np.float32  # noqa: PD011 - no DataFrame
    np.testing.assert_array_equal(table.values, VALUES)
    assert table.source == str(path)


@pytest.mark.parametrize("header", ["gene,d0,d1", ",d0,d1", "d0,d1"])  # the last is the form of R
def test_genes_keep_names_that_look_like_something_else(tmp_path: Path, header: str) -> None:
    names = ["NA", "nan", "None", "null", "TRUE", "FALSE", "007", "1e3"]
    path = tmp_path / "table.csv"
    path.write_text("\n".join([header, *(f"{name},{row},1" for row, name in enumerate(names))]) + "\n")
    table = read_embedding(path)
    assert list(table.genes) == names
    np.testing.assert_array_equal(table.values, [[row, 1] for row in range(len(names))])


def test_a_gene_that_pandas_read_as_missing_is_refused(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "table.csv")
    read = pd.read_csv(tmp_path / "table.csv", index_col=0)
    with pytest.raises(
        InputError, match=r"a gene name in every row, got 1 missing, the first in row 1\. .*NA"
    ):
        read_embedding(read)


def test_memory_gives_the_same_table_and_is_not_changed() -> None:
    asked = frame()
    table = read_embedding(asked)
    np.testing.assert_array_equal(table.values, VALUES)
    pd.testing.assert_frame_equal(asked, frame())
    adata = anndata.AnnData(VALUES.copy(), obs=pd.DataFrame(index=GENES))
    np.testing.assert_array_equal(read_embedding(adata).values, VALUES)
    assert read_embedding(table) is table


def test_metadata_of_the_source_are_kept(tmp_path: Path) -> None:
    assert read_embedding(write(tmp_path, "h5ad")).metadata == {"note": "esm2"}
    assert read_embedding(write(tmp_path, "npz")).metadata == {"model": "esm2"}
    assert read_embedding(write(tmp_path, "parquet")).metadata == {}


def test_names_match_exactly_and_then_ignoring_case() -> None:
    table = EmbeddingTable(
        genes=np.array(["GAD1", "Gad1", "Sst"]),
        values=np.arange(1, 7, dtype=np.float32).reshape(3, 2),
        source="t",
    )
    positions, values = table.match(["sst", "Gad1", "Pvalb", "gad1"])
    assert positions.tolist() == [0, 1, 3]
    assert values.tolist() == [[5, 6], [3, 4], [1, 2]]
    assert positions.dtype == np.int64


@given(st.lists(st.sampled_from(["gad1", "GAD1", "Sst", "na", "Pvalb", "Vip"]), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_matching_equals_a_loop(asked: list[str]) -> None:
    table = read_embedding(frame())
    by_name = {gene.upper(): row for gene, row in zip(GENES, VALUES, strict=True)}
    expected = [(i, by_name[gene.upper()]) for i, gene in enumerate(asked) if gene.upper() in by_name]
    if not expected:
        with pytest.raises(GeneError, match="none of them"):
            table.match(asked)
        return
    positions, values = table.match(np.array(asked))
    assert positions.tolist() == [i for i, _ in expected]
    np.testing.assert_array_equal(values, [row for _, row in expected])


def test_other_genes_are_refused_with_examples_of_both_sides() -> None:
    with pytest.raises(
        GeneError, match=r"'ENSMUSG1'.*none of them; its genes are 'Gad1', 'NA', 'Sst'.*species"
    ):
        read_embedding(frame()).match(["ENSMUSG1", "ENSMUSG2"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (0.0, r"vectors that are not zero, got only zeros for 1 gene: 'NA'\. .*drop these genes"),
        (np.nan, r"expected finite numbers, got NaN or infinite values for 1 gene: 'NA'"),
        (np.inf, r"expected finite numbers, got NaN or infinite values for 1 gene: 'NA'"),
    ],
)
@pytest.mark.parametrize("kind", ["frame", "csv", "npz"])
def test_bad_vectors_are_named(tmp_path: Path, change: float, message: str, kind: str) -> None:
    bad = frame()
    bad.loc["NA"] = change
    source: Any = bad
    if kind == "csv":
        source = tmp_path / "bad.csv"
        bad.to_csv(source, na_rep="nan")
    elif kind == "npz":
        source = write_npz(tmp_path / "bad.npz", embeddings=bad.to_numpy())
    with pytest.raises(InputError, match=message):
        read_embedding(source)


def test_a_duplicate_gene_is_named() -> None:
    with pytest.raises(GeneError, match="each gene once, got 'Gad1' more than once"):
        read_embedding(pd.concat([frame(), frame().iloc[:1]]))


def test_values_that_are_not_numbers_are_named(tmp_path: Path) -> None:
    said = r"only gene names and numbers, got column 'species' of type (object|str)"
    with pytest.raises(InputError, match=said):
        read_embedding(frame().assign(species="mouse"))
    with pytest.raises(InputError, match=r"column 'e' with lists of lengths \[1, 2\]"):
        read_embedding(pd.DataFrame({"e": [[1.0], [1.0, 2.0]]}, index=["a", "b"]))
    with pytest.raises(InputError, match="column 'e' with values that are not lists"):
        read_embedding(pd.DataFrame({"e": ["x", "y"]}, index=["a", "b"]))
    with pytest.raises(InputError, match="values of type <U1"):
        read_embedding(write_npz(tmp_path / "a.npz", embeddings=np.array([["a"], ["b"], ["c"]])))


def test_a_table_without_names_or_rows_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"gene names in the index or in a column, got rows numbered.*'d0', 'd1'"
    ):
        read_embedding(frame().reset_index(drop=True))
    with pytest.raises(InputError, match=r"genes x numbers, got 0 genes and values of shape \(0, 2\)"):
        read_embedding(frame().iloc[:0])
    with pytest.raises(InputError, match=r"2 genes and values of shape \(3, 2\)"):
        EmbeddingTable(genes=np.array(["a", "b"]), values=VALUES, source="t")


def test_missing_and_unknown_files_are_reported(tmp_path: Path) -> None:
    with pytest.raises(
        MissingFileError, match=r"esm\.parquet: expected an embedding table, got nothing at this path"
    ):
        read_embedding(tmp_path / "esm.parquet")
    with pytest.raises(MissingFileError, match="got a folder"):
        read_embedding(tmp_path)
    (tmp_path / "esm.xlsx").write_text("gene")
    with pytest.raises(FormatError, match=r"one of \.parquet, .*got '\.xlsx'"):
        read_embedding(tmp_path / "esm.xlsx")
    np.savez(tmp_path / "a.npz", names=np.array(GENES))
    with pytest.raises(FormatError, match=r"expected arrays 'genes' and 'embeddings' .*got 'names'"):
        read_embedding(tmp_path / "a.npz")


@pytest.mark.parametrize("suffix", [".parquet", ".npz", ".h5ad"])
def test_a_damaged_file_is_reported(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"table{suffix}"
    path.write_text("gene,d0\nGad1,1")
    with pytest.raises(FormatError, match=rf"expected a readable \{suffix} table, got "):
        read_embedding(path)


def test_an_npz_with_a_damaged_directory_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    np.savez(path, genes=np.array(GENES), embeddings=np.ones((len(GENES), 2)))
    path.write_bytes(path.read_bytes().replace(b"PK\1\2", b"PK\1\3"))
    with pytest.raises(FormatError, match=r"expected a readable \.npz table, got BadZipFile"):
        read_embedding(path)


class Trap:
    """An object that creates a file if it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["esm.pkl", "esm.pickle", "esm.parquet", "esm.npz", "esm.csv"])
def test_a_pickle_is_refused_unopened_with_advice(tmp_path: Path, name: str) -> None:
    trap = tmp_path / "sprung"
    (tmp_path / name).write_bytes(pickle.dumps({"Gad1": Trap(trap)}))
    with pytest.raises(FormatError, match=r"got a pickle\. cellweft never unpickles(.|\n)*to_parquet"):
        read_embedding(tmp_path / name)
    assert not trap.exists()


@pytest.mark.parametrize("name", ["esm.pt", "esm.npz"])
def test_a_torch_file_is_refused_with_advice(tmp_path: Path, name: str) -> None:
    torch.save({"Gad1": torch.ones(2)}, tmp_path / name)
    with pytest.raises(FormatError, match=r"got a pickle\. cellweft never unpickles(.|\n)*to_parquet"):
        read_embedding(tmp_path / name)


def test_an_array_of_objects_is_not_unpickled(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "a.npz", genes=np.array(GENES, dtype=object))
    with pytest.raises(FormatError, match=r"an array of objects, which is a pickle\. .*dtype=str"):
        read_embedding(path)


@pytest.mark.parametrize("name", ["esm.pkl", "esm.pt"])
def test_the_advice_works(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "esm.pkl":
        path.write_bytes(pickle.dumps(dict(zip(GENES, VALUES, strict=True))))
    else:
        torch.save({gene: torch.tensor(row) for gene, row in zip(GENES, VALUES, strict=True)}, path)
    with pytest.raises(FormatError, match="got a pickle") as told:
        read_embedding(path)
    exec("\n".join(line.strip() for line in str(told.value).splitlines()[1:]))
    table = read_embedding(tmp_path / "esm.converted.parquet")
    np.testing.assert_array_equal(table.values, VALUES)
    assert list(table.genes) == GENES


def test_real_vectors_cover_the_real_panels(shared_data: Path) -> None:
    table = read_embedding(shared_data / "esm2_gene_embeddings.h5ad")
    assert table.values.shape == (575, 2560)  # noqa: PD011 - no DataFrame
    assert "esm2_t36_3B" in table.metadata["note"]
    for name, n_found in {"osmfish_ref_allen_ssp_sc33": 33, "hypo_ref_10x_sc134": 134}.items():
        genes = anndata.read_h5ad(shared_data / f"{name}.h5ad", backed="r").var_names
        assert len(table.match(genes.to_numpy())[0]) == n_found


def test_groups_that_contain_themselves_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "h5ad")
    with h5py.File(path, "r+") as file:
        file["uns/again"] = file["uns"]
    with pytest.raises(FormatError, match=r"got ValueError: a group that links to itself"):
        read_embedding(path)
