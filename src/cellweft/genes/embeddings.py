"""Embedding tables: one vector per gene, for example of its protein, from a file or from memory."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import anndata
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellweft._errors import FormatError, GeneError, InputError, MissingFileError, checks_kinds, path_of
from cellweft._text import many, shorten
from cellweft._typing import FloatArray, IntArray, PathLike
from cellweft.data.gene_names import duplicates_of
from cellweft.data.io.damaged import read_whole_h5ad, reading
from cellweft.data.io.delimited import read_rows
from cellweft.data.io.dialect import dialect_of
from cellweft.data.io.obs_table import table_with_text, with_text

_PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".joblib")
_PICKLE_STARTS = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
_TORCH_MEMBER = "data.pkl"  # a file in archives of torch.save
_WAY_OUT = """cellweft never unpickles files, because that can run any code. If you trust it, convert it:
    import {modules}; table = {load}
    table = {{str(gene): [float(x) for x in vector] for gene, vector in table.items()}}
    pandas.DataFrame.from_dict(table, orient="index").rename(columns=str).to_parquet({target!r})"""


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddingTable:
    """One vector for each gene.

    Parameters
    ----------
    genes
        (n_genes,) unique names, spelled as in the source.
    values
        (n_genes, n_dimensions) the vectors: finite, none of them zero.
    source
        Origin of the table, for messages and records.
    metadata
        Metadata of the source, as strings.

    Raises
    ------
    InputError
        Vectors are missing, not finite or zero, or the shapes do not match.
    GeneError
        Duplicate names.

    Examples
    --------
    >>> genes, vectors = np.array(["Gad1", "Sst"]), np.eye(2, dtype=np.float32)
    >>> table = EmbeddingTable(genes=genes, values=vectors, source="example")
    >>> positions, vectors = table.match(["SST", "Pvalb"])
    >>> positions.tolist(), vectors.tolist()
    ([0], [[0.0, 1.0]])
    """

    genes: NDArray[Any]
    values: FloatArray
    source: str
    metadata: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or not self.values.size or len(self.genes) != len(self.values):
            raise InputError(
                self.source,
                expected="a table of genes x numbers",
                got=f"{len(self.genes)} genes and values of shape {self.values.shape}",
                fix="Pass one row per gene, with at least one gene and one column.",
            )
        twice = duplicates_of(self.genes)
        if twice:
            raise GeneError(
                self.source,
                expected="each gene once",
                got=f"{shorten(twice)} more than once",
                fix="Keep one vector per gene, such as table.groupby(level=0).mean() in pandas.",
            )
        finite, zeros = np.isfinite(self.values).all(axis=1), ~self.values.any(axis=1)
        self._check_rows(~finite, "finite numbers", "NaN or infinite values", "Drop these genes")
        fix = (
            "A vector of zeros has no similarity to any other and often marks a missing vector: drop "
            "these genes"
        )
        self._check_rows(zeros, "vectors that are not zero", "only zeros", fix)

    def __repr__(self) -> str:
        return f"EmbeddingTable({len(self.genes)} genes x {self.values.shape[1]} from {self.source})"

    def match(self, genes: Sequence[str] | NDArray[Any]) -> tuple[IntArray, FloatArray]:
        """Find the vectors of genes, by exact name or ignoring case.

        Parameters
        ----------
        genes
            (n_asked,) names.

        Returns
        -------
        positions
            (n_found,) positions in ``genes`` of those with a vector, ascending.
        values
            (n_found, n_dimensions) their vectors.

        Raises
        ------
        GeneError
            None of the genes has a vector.
        """
        gene_names = pd.Index(np.asarray(genes, dtype=object)).astype(str)
        names = pd.Index(self.genes)
        rows = names.get_indexer(gene_names)
        folded = names.str.upper()
        first = ~folded.duplicated()  # if names differ only in case, the first is used for the others
        matches = folded[first].get_indexer(gene_names.str.upper())
        by_case = np.where(matches < 0, -1, np.flatnonzero(first)[matches])
        rows = np.where(rows < 0, by_case, rows)
        positions = np.flatnonzero(rows >= 0)
        if not len(positions):
            raise GeneError(
                self.source,
                expected=f"vectors for genes such as {shorten(list(gene_names[:3]))}",
                got=f"none of them; its genes are {shorten([str(name) for name in names], most=3)}",
                fix="Use a table of the same species, with the same kind of names (symbols or Ensembl IDs).",
            )
        return positions.astype(np.int64), self.values[rows[positions]]

    def _check_rows(self, bad: Any, expected: str, got: str, fix: str) -> None:
        if bad.any():
            names = [str(name) for name in self.genes[bad]]
            raise InputError(
                self.source,
                expected=expected,
                got=f"{got} for {many(len(names), 'gene')}: {shorten(names)}",
                fix=f"{fix} from the table; cellweft uses expression for genes without a vector.",
            )


EmbeddingSource: TypeAlias = "PathLike | pd.DataFrame | anndata.AnnData | EmbeddingTable"


@checks_kinds
def read_embedding(source: EmbeddingSource) -> EmbeddingTable:
    """Read an embedding table from a file or from memory.

    Parameters
    ----------
    source
        A DataFrame (index = genes), an AnnData (``obs_names`` = genes, ``X`` = vectors), or a path:

        - ``.parquet``: genes in the index or in the first column with text; the other columns are
          numbers, or one column of lists.
        - ``.csv``, ``.tsv`` (also ``.gz``): the same, genes in the first column.
        - ``.npz``: arrays ``genes`` (strings, not objects) and ``embeddings`` or ``values``.
        - ``.h5ad``: as an AnnData.

    Returns
    -------
    EmbeddingTable
        Vectors in float32.

    Raises
    ------
    MissingFileError
        The path does not exist.
    FormatError
        The file is a pickle, which is never opened, has an unsupported format, or is damaged.
    InputError, GeneError
        As in `EmbeddingTable`: zeros, NaN, values that are not numbers, duplicate names.

    Examples
    --------
    >>> read_embedding(pd.DataFrame([[1.0, 0.5], [0.2, 3.0]], index=["Gad1", "Sst"]))
    EmbeddingTable(2 genes x 2 from a DataFrame in memory)
    """
    if isinstance(source, EmbeddingTable):
        return source
    if isinstance(source, pd.DataFrame):
        return _from_frame(source, "a DataFrame in memory", {})
    if isinstance(source, anndata.AnnData):
        return _from_anndata(source, "an AnnData in memory")
    path = Path(path_of("embedding", source, expected="a table of embeddings, or its path"))
    fix = "Check that the file is complete and matches its name."
    with reading(str(path), expected=f"a readable {path.suffix} table", fix=fix):
        return _reader(path)(path)


def _reader(path: Path) -> Callable[[Path], EmbeddingTable]:
    if not path.is_file():
        got = "a folder" if path.is_dir() else "nothing at this path"
        raise MissingFileError(str(path), expected="an embedding table", got=got, fix="Check the path.")
    with path.open("rb") as file:
        start = file.read(2)
    if path.suffix in _PICKLES or start in _PICKLE_STARTS or _is_torch_zip(path):
        raise FormatError(
            str(path), expected="a parquet, npz, h5ad or csv table", got="a pickle", fix=_way_out(path)
        )
    for suffix, reader in _READERS.items():
        if path.name.lower().endswith(suffix):
            return reader
    raise FormatError(
        str(path),
        expected=f"a name ending in one of {', '.join(_READERS)}",
        got=repr(path.suffix),
        fix="Convert the table, or rename it to match its format.",
    )


def _way_out(path: Path) -> str:
    name = str(path)
    modules, load = "pandas", f"pandas.read_pickle({name!r}, compression=None)"
    if path.suffix in (".pt", ".pth") or _is_torch_zip(path):
        modules, load = "pandas, torch", f"torch.load({name!r}, weights_only=True)"
    return _WAY_OUT.format(modules=modules, load=load, target=str(path.with_suffix(".converted.parquet")))


def _is_torch_zip(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as members:
        return any(Path(name).name == _TORCH_MEMBER for name in members.namelist())


def _from_parquet(path: Path) -> EmbeddingTable:
    import pyarrow.parquet as pq

    about = pq.read_schema(path).metadata or {}
    own = (b"pandas", b"ARROW:schema")
    metadata = {key.decode(): value.decode() for key, value in about.items() if key not in own}
    return _from_frame(pd.read_parquet(path), str(path), metadata)


def _from_csv(path: Path) -> EmbeddingTable:
    separator = "\t" if ".tsv" in path.suffixes else ","
    return _from_frame(read_rows(path, dialect=dialect_of(path, separator=separator)), str(path), {})


def _from_npz(path: Path) -> EmbeddingTable:
    with np.load(path, allow_pickle=False) as arrays:
        key = next((name for name in ("embeddings", "values") if name in arrays), None)
        if key is None or "genes" not in arrays:
            raise FormatError(
                str(path),
                expected="arrays 'genes' and 'embeddings' (or 'values')",
                got=shorten(arrays.files) or "none",
                fix="Save it with numpy.savez(path, genes=..., embeddings=...).",
            )
        try:
            genes, values = arrays["genes"], arrays[key]
        except ValueError as error:
            if "allow_pickle" not in str(error):
                raise
            raise FormatError(
                str(path),
                expected="arrays of strings and numbers",
                got="an array of objects, which is a pickle",
                fix="Save it again with genes=np.asarray(genes, dtype=str).",
            ) from error
        others = {name: arrays[name] for name in arrays.files if name not in ("genes", key)}
        about = {name: str(value) for name, value in others.items() if value.ndim == 0}
    return _table(genes, values, str(path), about)


def _from_anndata(adata: anndata.AnnData, source: str) -> EmbeddingTable:
    values = adata.X.toarray() if hasattr(adata.X, "toarray") else np.asarray(adata.X)
    metadata = {key: value for key, value in adata.uns.items() if isinstance(value, str)}
    return _table(adata.obs_names.to_numpy(), values, source, metadata)


def _from_frame(frame: pd.DataFrame, source: str, metadata: dict[str, str]) -> EmbeddingTable:
    frame = table_with_text(frame, source)
    if isinstance(frame.index, pd.RangeIndex):  # names are in a column
        text = next((name for name in frame if pd.api.types.infer_dtype(frame[name]) == "string"), None)
        if text is None:
            raise InputError(
                source,
                expected="gene names in the index or in a column",
                got=f"rows numbered from 0 and columns {shorten([str(name) for name in frame])}",
                fix="Set the index to the gene names.",
            )
        frame = frame.set_index(text)
    if frame.shape[1] == 1 and not pd.api.types.is_numeric_dtype(frame.dtypes.iloc[0]):  # lists, or text
        return _table(frame.index.to_numpy(), _stack_lists(frame.iloc[:, 0], source), source, metadata)
    for name, column in frame.items():
        if not pd.api.types.is_numeric_dtype(column):
            raise _not_numbers(source, f"column {name!r} of type {column.dtype}")
    return _table(frame.index.to_numpy(), frame.to_numpy(dtype=np.float32), source, metadata)


def _stack_lists(column: pd.Series[Any], source: str) -> NDArray[Any]:
    lengths = {len(vector) if isinstance(vector, list | tuple | np.ndarray) else -1 for vector in column}
    if -1 in lengths or len(lengths) != 1:
        kind = "values that are not lists" if -1 in lengths else f"lists of lengths {sorted(lengths)}"
        raise _not_numbers(source, f"column {column.name!r} with {kind}")
    return np.stack([np.asarray(vector) for vector in column])


def _table(
    genes: NDArray[Any], values: NDArray[Any], source: str, metadata: dict[str, str]
) -> EmbeddingTable:
    if values.dtype.kind not in "fiu":
        raise _not_numbers(source, f"values of type {values.dtype}")
    names = pd.Series(genes, dtype=object)
    unnamed = np.flatnonzero(names.isna())
    if len(unnamed):
        raise InputError(
            source,
            expected="a gene name in every row",
            got=f"{len(unnamed):,} missing, the first in row {unnamed[0]}",
            fix="Name them or drop the rows. pandas reads a gene called NA as missing. Read text files with "
            "pandas.read_csv(path, keep_default_na=False).",
        )
    return EmbeddingTable(
        genes=np.asarray([str(gene) for gene in with_text(names, f"{source}, gene names")]),
        values=np.ascontiguousarray(values, dtype=np.float32),
        source=source,
        metadata=metadata,
    )


def _not_numbers(source: str, got: str) -> InputError:
    fix = "Drop the columns that are not part of the vectors."
    return InputError(source, expected="only gene names and numbers", got=got, fix=fix)


_READERS: dict[str, Callable[[Path], EmbeddingTable]] = {
    ".parquet": _from_parquet,
    ".npz": _from_npz,
    ".h5ad": lambda path: _from_anndata(read_whole_h5ad(path), str(path)),
    **dict.fromkeys((".csv", ".csv.gz", ".tsv", ".tsv.gz"), _from_csv),
}
