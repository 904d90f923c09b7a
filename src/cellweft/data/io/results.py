"""Opens results of cellweft: their kind, coordinates of cells, and values of genes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import h5py
import numpy as np

from cellweft._compute import BLOCK_BYTES, row_blocks, rows_within
from cellweft._errors import FormatError
from cellweft._provenance import SCHEMA_VERSION, refuse_former_name
from cellweft._typing import FloatArray, IntArray, ResultScale
from cellweft.data.io.backed_matrix import open_rows
from cellweft.data.io.columns import OBSM_KEYS
from cellweft.data.io.damaged import reading
from cellweft.data.io.keys import MEASURED, PLACES, PROPORTIONS, RECORD
from cellweft.data.io.lazy_input import Input
from cellweft.data.io.read import open_input

ResultKind: TypeAlias = Literal["imputed", "placed", "spots"]

PLACE_KEYS = (PLACES, *OBSM_KEYS)
"""Keys of `obsm` with coordinates: first those of placed cells, then measured ones."""


def open_result(result: Any, *, argument: str) -> Input:
    """Open a result of cellweft: AnnData, or its file.

    Parameters
    ----------
    result, argument
        As in `cellweft.data.io.read.open_input`. Other data are also opened.

    Raises
    ------
    MissingFileError, FormatError
        As in `cellweft.data.io.read.open_input`; a result in the format of another version; a store with
        missing parts.
    """
    data = open_input(result, argument=argument)
    check_record(data)
    return data


def check_record(data: Input) -> None:
    """Raise `FormatError` if the record of a result has another schema, or the former name of cellweft.

    Parameters
    ----------
    data
        An opened input. Without a record, nothing is checked.
    """
    refuse_former_name([*data.uns, *data.obsm], data.where)
    if RECORD not in data.uns:
        return
    record = data.uns[RECORD]
    schema: Any = record.get("schema_version", 1) if isinstance(record, Mapping) else 1
    if np.ndim(schema) or not isinstance(schema, int | np.integer):
        where, expected = f"{data.where}.uns[{RECORD!r}]", "the number of a schema in schema_version"
        raise FormatError(where, expected=expected, got=repr(schema), fix="Compute the result again.")
    if schema != SCHEMA_VERSION:
        newer = schema > SCHEMA_VERSION
        raise FormatError(
            data.where,
            expected=f"a result of schema {SCHEMA_VERSION}",
            got=f"a result of schema {schema}, from {'a newer' if newer else 'an older'} version of cellweft",
            fix="Update cellweft." if newer else "Compute the result again with this version.",
        )


def result_kind(data: Input) -> ResultKind | None:
    """Return the kind of a result, None if it is not from cellweft.

    Spots have ``obsm["cellweft_proportions"]``, placed cells ``obsm["cellweft_spatial"]``, imputed genes
    ``var["measured"]``.
    """
    if PROPORTIONS in data.obsm:
        return "spots"
    if PLACES in data.obsm:
        return "placed"
    return "imputed" if MEASURED in data.var.columns else None


def result_scale(data: Input) -> ResultScale:
    """Return the scale of an imputed result from its record; logarithms by default."""
    record: Any = data.uns.get(RECORD)
    said = record.get("scale") if isinstance(record, Mapping) else None
    return "counts" if str(said).startswith("counts") else "log"


def coordinate_unit(data: Input) -> str:
    """Return the unit of the cells' coordinates, "um", "px" or "mm"; empty if unknown.

    The record of a result contains it if the tissue was read from the folder of an instrument.
    """
    record: Any = data.uns.get(RECORD)
    for key in ("inputs", "spatial", "unit"):
        record = record.get(key) if isinstance(record, Mapping) else None
    return data.unit or (str(record) if isinstance(record, str) else "")


def place_key(data: Input) -> str | None:
    """Return the key of `obsm` with the coordinates of the cells; None if there are none."""
    return next((key for key in PLACE_KEYS if key in data.obsm), None)


def gene_columns(data: Input, genes: IntArray, *, layer: str | None = None) -> FloatArray:
    """Return some genes of all cells.

    Parameters
    ----------
    data
        An opened input.
    genes
        (n_genes,) rows of the genes in ``var``.
    layer
        A layer, or None for ``X``.

    Returns
    -------
    ndarray
        (n_cells, n_genes) float32. For a chunked array (zarr, HDF5), only the chunks with these genes are
        read, each once; for other matrices, all rows, block by block.

    Raises
    ------
    KeyMissingError
        There is no such layer, or no ``X``.
    """
    columns = np.asarray(genes if data.columns is None else data.columns[genes], dtype=np.int64)
    matrix = data.values(layer, argument="layer")
    chunked = matrix if isinstance(matrix, h5py.Dataset) and matrix.chunks else None
    chunked = getattr(matrix, "oindex", chunked)  # zarr
    if chunked is not None and len(columns):
        sorted_columns, places = np.unique(columns, return_inverse=True)  # HDF5 only accepts this order
        with reading(data.where, ".X" if layer is None else f".layers[{layer!r}]"):
            return np.asarray(chunked[:, sorted_columns], dtype=np.float32)[:, places]
    source = open_rows(matrix, where=data.where + (".X" if layer is None else f".layers[{layer!r}]"))
    values = np.empty((source.shape[0], len(columns)), dtype=np.float32)
    for rows in row_blocks(len(values), rows_within(BLOCK_BYTES, source.row_bytes)):
        block = source.read(rows, columns)
        values[rows] = block if isinstance(block, np.ndarray) else block.toarray()
    return values
