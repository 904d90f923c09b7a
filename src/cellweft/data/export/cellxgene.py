"""Export of results for cellxgene, following CELLxGENE's schema as far as possible."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from cellweft._compute import progress_callback
from cellweft._errors import InputError, arg, check_known, checks_kinds
from cellweft._text import shorten
from cellweft._typing import DoubleArray, PathLike, Progress, ProgressOption
from cellweft.data.gene_names import looks_like_ensembl
from cellweft.data.io.atomic_output import check_apart, check_output, hdf5_output, partial_output
from cellweft.data.io.backed_matrix import RowSource, open_rows
from cellweft.data.io.copy import blocks_of, chunk_of, copy_sparse, zero_share
from cellweft.data.io.keys import PLACES, RECORD
from cellweft.data.io.lazy_input import Input
from cellweft.data.io.read import open_input
from cellweft.data.io.results import open_result
from cellweft.data.io.sanitize import storable
from cellweft.data.io.write import ResultWriter

logger = logging.getLogger("cellweft")

_PLACES = {PLACES: "X_placed", "spatial": "X_tissue", "X_spatial": "X_tissue"}
"""Names of coordinates for cellxgene, the first one to show first; its validator rejects X_spatial."""

_ADDED_BY_DISCOVER = (
    "assay", "cell_type", "development_stage", "disease", "organism", "self_reported_ethnicity", "sex",
    "tissue",
)  # fmt: skip
_WANTED_OBS = (
    "assay_ontology_term_id", "cell_type_ontology_term_id", "development_stage_ontology_term_id",
    "disease_ontology_term_id", "donor_id", "is_primary_data", "self_reported_ethnicity_ontology_term_id",
    "sex_ontology_term_id", "suspension_type", "tissue_ontology_term_id", "tissue_type",
)  # fmt: skip
_UNKNOWN, _GREY = "unknown", "#c0c0c0"


@dataclass(frozen=True, kw_only=True)
class CellxgeneFindings:
    """What is wrong with a file for cellxgene, or missing.

    Attributes
    ----------
    view
        What prevents cellxgene from showing it correctly; empty if nothing does.
    submission
        What CELLxGENE Discover also requires, which only the authors of the data can provide.
    """

    view: tuple[str, ...]
    submission: tuple[str, ...]


@checks_kinds
def write_cellxgene(
    result: AnnData | PathLike,
    output: PathLike,
    *,
    title: str | None = None,
    embedding: str | None = None,
    overwrite: bool = False,
    progress: ProgressOption = True,
) -> Path:
    """Write a result as an h5ad file for cellxgene.

    Parameters
    ----------
    result
        AnnData with genes, such as an imputed result, or its file. It is read in blocks of rows.
    output
        Path of the new ``.h5ad`` file.
    title
        Title of the data; by default the name of the file.
    embedding
        Embedding that is shown first, such as ``"X_umap"``; by default the positions of the cells.
    overwrite
        Whether to replace an existing file.
    progress
        As in `cellweft.Imputer.fit`; a callback is called while rows are written.

    Returns
    -------
    Path
        Path of the file.

    Raises
    ------
    InputError
        There are no genes, or neither positions nor an embedding to show.
    KeyMissingError
        No such embedding.
    OutputExistsError, OutputError
        As in `cellweft.data.io.atomic_output.check_output`.

    Notes
    -----
    ``X`` is float32, sparse (CSR) if at least half of it is zero, as CELLxGENE's schema 7.1 requires, and
    dense otherwise. ``obsm["spatial"]`` is renamed to ``X_tissue``, because CELLxGENE's validator rejects
    ``X_spatial``. Other arrays of ``obsm`` are kept if they are embeddings (``X_...``, with at least two
    columns). Text is converted to categories, missing values to "unknown". Layers and ``raw`` are left out,
    because cellxgene only shows ``X``, and genes that were not measured have no raw counts. Memory is limited
    to a few blocks of rows and the tables of cells and genes, regardless of the size of the matrix. In
    cellxgene the y axis points up, so the tissue is mirrored compared with images.

    References
    ----------
    CELLxGENE schema 7.1.0, github.com/chanzuckerberg/single-cell-curation.
    """
    target = check_output(output, overwrite=overwrite, suffixes=(".h5ad",))
    check_apart([output], [result])
    data = open_result(result, argument="result")
    if data.matrix is None or not len(data.var):
        fix = "Export an imputed result, or spots with transferred genes."
        raise InputError(data.where, expected="genes to show", got="none", fix=fix)
    arrays = _embeddings(data)
    default_embedding = _shown(embedding, arrays, data)
    obs = _ready_table(data.obs.frame(), "obs")
    name = "cellweft result" if data.source.startswith("AnnData") else Path(data.source).stem
    uns = _kept_uns(data.uns, obs) | {
        "title": title or name,
        "default_embedding": default_embedding,
        "X_approximate_distribution": "normal",
    }
    parts: dict[str, Any] = {"obs": obs, "var": _ready_table(data.var, "var"), "obsm": arrays, "uns": uns}
    source = open_rows(data.matrix, where=data.where)
    with progress_callback(progress) as report:
        if zero_share(source) < 0.5:
            with ResultWriter(target, overwrite=overwrite, chunk=chunk_of(source.shape), **parts) as writer:
                for rows, block in blocks_of(source, report):
                    dense = block if isinstance(block, np.ndarray) else block.toarray()
                    writer.write(rows, slice(0, source.shape[1]), dense)
        else:
            _write_sparse(target, source, parts, overwrite=overwrite, progress=report)
    return target


def _write_sparse(
    target: Path, source: RowSource, parts: dict[str, Any], *, overwrite: bool, progress: Progress
) -> None:
    with partial_output(target, overwrite=overwrite) as partial, hdf5_output(partial) as root:
        anndata.io.write_elem(root, "/", AnnData(**parts))
        for key in {"raw", "X"} & set(root):
            del root[key]  # older readers do not support stored None
        copy_sparse(source, root, "X", progress=progress)


def _embeddings(data: Input) -> dict[str, DoubleArray]:
    """Return the arrays of ``obsm`` that cellxgene can show, positions first."""
    names = {key: shown_name for key, shown_name in _PLACES.items() if key in data.obsm}
    if "spatial" in names:
        names.pop("X_spatial", None)  # an alias
    names |= {key: key for key in data.obsm if key.startswith("X_") and key not in _PLACES}
    arrays = {shown_name: _as_embedding(data.obsm[key]) for key, shown_name in names.items()}
    embeddings = {key: values for key, values in arrays.items() if values is not None}
    left = sorted(set(data.obsm) - {key for key, shown_name in names.items() if shown_name in embeddings})
    if left:
        logger.info("obsm has %s, which cellxgene does not show; left out.", shorten(left))
    return embeddings


def _as_embedding(values: Any) -> DoubleArray | None:
    """Return the values in the form that cellxgene reads, or None if they are not an embedding."""
    array = np.asarray(values)
    if array.ndim != 2 or array.shape[1] < 2 or not np.issubdtype(array.dtype, np.number):
        return None
    array = array.astype(np.float64)
    return None if np.isinf(array).any() or np.isnan(array).all() else array


def _shown(embedding: str | None, arrays: Mapping[str, Any], data: Input) -> str:
    if not arrays:
        raise InputError(
            f"{data.where}.obsm",
            expected="positions of the cells, 'spatial', or an embedding, 'X_...'",
            got=shorten(sorted(data.obsm)) if len(data.obsm) else "nothing",
            fix="Add one, for example with scanpy.tl.umap.",
        )
    name = embedding or next(iter(arrays))
    check_known(
        name,
        arrays,
        arg("embedding", name),
        expected=f"an embedding of {data.where}",
        got="no such embedding",
    )
    return name


def _ready_table(table: pd.DataFrame, where: str) -> pd.DataFrame:
    """Return a table with names, categories without missing values, numbers and booleans only."""
    stored = storable(table, where)
    ready = {}
    for name, column in stored.items():
        key = str(name).lstrip("_") or "column" if str(name).startswith("__") else str(name)
        if key != name:
            logger.warning("%s: column %r is written as %r: names may not start with '__'.", where, name, key)
        ready[key] = _without_gaps(column)
    return pd.DataFrame(ready, index=stored.index)


def _without_gaps(column: pd.Series[Any]) -> Any:
    """Return a column with text categories that are never missing, or with plain numbers."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        values = column.cat.rename_categories(column.cat.categories.astype(str).tolist())
        if values.isna().any():
            if _UNKNOWN not in values.cat.categories:
                values = values.cat.add_categories(_UNKNOWN)
            values = values.fillna(_UNKNOWN)
        return values.cat.remove_unused_categories() if _UNKNOWN in values.cat.categories else values
    if pd.api.types.is_extension_array_dtype(column.dtype):
        if pd.api.types.is_bool_dtype(column.dtype) and not column.isna().any():
            return column.to_numpy(dtype=bool)
        if pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_bool_dtype(column.dtype):
            return column.to_numpy(dtype=np.float64, na_value=np.nan)
        return pd.Categorical(column.astype(object).fillna(_UNKNOWN).astype(str))
    return column.to_numpy()


def _kept_uns(uns: Mapping[str, Any], obs: pd.DataFrame) -> dict[str, Any]:
    """Return cellweft's record and the colours of categories, if they exist."""
    entries: dict[str, Any] = {}
    if RECORD in uns:
        entries[RECORD] = _filled(uns[RECORD])
    for name in obs.select_dtypes("category"):
        key = f"{name}_colors"
        entries[key] = _whole_colors(uns[key], obs[name].cat.categories) if key in uns else None
    return {key: value for key, value in entries.items() if value is not None and len(value)}


def _whole_colors(values: Any, categories: pd.Index[Any]) -> NDArray[Any] | None:
    """Return a colour for each category, grey for missing values; None if other colours are missing."""
    colors = [str(color)[:7] for color in np.atleast_1d(np.asarray(values))]
    if len(colors) == len(categories) - 1 and categories[-1] == _UNKNOWN:
        colors.append(_GREY)
    fits = len(colors) >= len(categories) and all(
        color.startswith("#") and len(color) == 7 for color in colors
    )
    return np.array(colors, dtype=object) if fits else None


def _filled(value: Any) -> Any:
    """Return a record without None and empty values, which older readers and the schema reject."""
    if not isinstance(value, Mapping):
        return value
    parts = {key: _filled(part) for key, part in value.items() if part is not None}
    return {key: part for key, part in parts.items() if not isinstance(part, Mapping) or len(part)}


def check_cellxgene(data: AnnData | PathLike) -> CellxgeneFindings:
    """Check whether cellxgene can show a file, and what CELLxGENE Discover would also require.

    Parameters
    ----------
    data
        AnnData or a file. The matrix is read once, in blocks.

    Returns
    -------
    CellxgeneFindings
        What is wrong or missing, as sentences.

    Notes
    -----
    Covers the parts of CELLxGENE's schema that can be checked without ontologies. To check ontology terms,
    use ``cellxgene-schema validate``.
    """
    source = open_input(data, argument="data")
    return CellxgeneFindings(view=tuple(_wrong(source)), submission=tuple(_lacking(source)))


def _wrong(data: Input) -> Iterator[str]:
    """Yield what prevents cellxgene from showing the data."""
    if not any(key.startswith("X_") and _as_embedding(data.obsm[key]) is not None for key in data.obsm):
        yield "obsm contains no two-column embedding whose name starts with X_."
    for name in data.obs.columns:
        column = data.obs[name]
        if name.startswith("__"):
            yield f"obs[{name!r}]: names may not start with '__'."
        if isinstance(column.dtype, pd.CategoricalDtype) and column.isna().any():
            yield f"obs[{name!r}] has cells without a category."
    if "title" not in data.uns:
        yield "uns['title'] is missing."
    if "default_embedding" in data.uns and str(data.uns["default_embedding"]) not in data.obsm:
        yield "uns['default_embedding'] is not an embedding in obsm."
    if data.var.index.has_duplicates or not data.obs.names().is_unique:
        yield "Names of cells and of genes must be unique."
    if data.matrix is None or not len(data.var):
        yield "X has no genes."
        return
    if str(getattr(data.matrix, "dtype", "float32")) != "float32":
        yield "X is not float32."
    source = open_rows(data.matrix, where=data.where)
    if isinstance(source.read(slice(0, 0)), np.ndarray) and zero_share(source) >= 0.5:
        yield "At least half of X is zero: it must be sparse, by rows (CSR)."


def _lacking(data: Input) -> Iterator[str]:
    """Yield what a submission lacks."""
    lacking = [name for name in _WANTED_OBS if name not in data.obs.columns]
    reserved = [name for name in _ADDED_BY_DISCOVER if name in data.obs.columns]
    if "X_spatial" in data.obsm:
        yield (
            "obsm['X_spatial'] has a name that CELLxGENE does not accept. Rename it, for example to X_tissue."
        )
    if lacking:
        yield f"obs lacks {', '.join(lacking)}: ontology terms that only you can provide."
    if reserved:
        yield (
            f"obs has {', '.join(reserved)}, which Discover adds itself. Rename it, for example to "
            f"author_{reserved[0]}."
        )
    if "organism_ontology_term_id" not in data.uns:
        yield "uns['organism_ontology_term_id'] is missing, such as NCBITaxon:10090."
    if not looks_like_ensembl(data.var.index.to_numpy(dtype=str)):
        yield "the genes in var are not named by Ensembl IDs."
    if not data.has_raw:
        yield (
            "raw.X is missing: Discover requires raw counts of every gene, which imputed genes do not "
            "have. Submit the measured data, and share the imputed file separately."
        )
