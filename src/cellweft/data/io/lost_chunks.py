"""Missing chunks of zarr arrays: which may be zeros, and which may not.

zarr omits chunks that contain only the fill value, and reads missing chunks as this value. A missing chunk
may therefore contain zeros, or be lost. If zeros are impossible, it is an error here; otherwise the caller
reports which parts are read as zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from anndata.abc import CSCDataset, CSRDataset
from numpy.typing import NDArray

from cellweft._errors import FormatError, Message, arg
from cellweft._text import many, shorten
from cellweft._typing import BoolArray, IntArray, MissingChunks
from cellweft.data.io.damaged import reading
from cellweft.data.io.reopenable import LazyMapping
from cellweft.data.io.zarr_store import absent_chunks

_SPARSE = ("data", "indices", "indptr")
_COPY = "Copy the whole store again from the original, or create it again."


@dataclass(frozen=True)
class Region:
    """Rows and columns of a matrix in one or more missing chunks.

    Attributes
    ----------
    rows, columns
        Position in the matrix.
    is_dense
        Whether the values themselves are missing; in a sparse matrix, only their positions are.
    """

    rows: slice
    columns: slice
    is_dense: bool = True


def lost_regions(matrix: Any, *, where: str) -> tuple[Region, ...]:
    """Return the parts of a matrix that are read as zeros because their chunks are missing.

    Parameters
    ----------
    matrix
        A zarr array, or the group of a sparse matrix in zarr; other matrices have no missing chunks.
    where
        Name of the matrix in errors.

    Raises
    ------
    FormatError
        The missing chunks of a sparse matrix cannot be zeros: starts of rows decrease or do not match the
        number of values, a row contains a gene twice, or values are zero although their positions are stored.
    """
    with reading(where):
        return _lost_regions(matrix, where)


def _lost_regions(matrix: Any, where: str) -> tuple[Region, ...]:
    if isinstance(matrix, CSRDataset | CSCDataset):
        matrix = matrix.group
    if isinstance(matrix, zarr.Array) and matrix.ndim == 2:
        return tuple(Region(part[0], part[1]) for part in absent_chunks(matrix))
    parts = [matrix.get(name) for name in _SPARSE] if isinstance(matrix, zarr.Group) else []
    if not parts or not all(isinstance(part, zarr.Array) for part in parts):
        return ()
    spans, first = _lost_in_sparse(*parts, where=where), slice(0, 1)
    by_gene = str(matrix.attrs.get("encoding-type", "")).startswith("csc")
    return tuple(Region(first, span, False) if by_gene else Region(span, first, False) for span in spans)


def refuse_lost_cells(
    regions: tuple[Region, ...],
    empty: BoolArray,
    *,
    where: str,
    names: Any,
    missing_chunks: MissingChunks = "error",
) -> None:
    """Raise `FormatError` if cells have no counts and chunks of their rows are missing.

    Parameters
    ----------
    regions
        Result of `lost_regions`.
    empty
        (n_cells,) which cells have no counts at all.
    where
        Name of the matrix in errors.
    names
        Function that returns the names of cells by their positions.
    missing_chunks
        The requested treatment: "zeros" accepts them.
    """
    regions = tuple(region for region in regions if region.is_dense)
    if not regions or missing_chunks == "zeros":
        return
    lost = np.zeros(len(empty), dtype=bool)
    for region in regions:
        lost[region.rows] = True
    cells = np.flatnonzero(lost & empty)
    if len(cells):
        first = [str(name) for name in names(cells[:3])]
        raise FormatError(
            where,
            expected="counts in every cell for which chunks are missing from the store",
            got=(
                f"{many(len(regions), 'chunk')} missing, and {many(len(cells), 'cell')} without any "
                f"counts there ({shorten(first, most=3)}, rows {cells[0]:,} to {cells[-1]:,})"
            ),
            fix=_fix("these cells really are empty"),
        )


def refuse_lost_places(
    held: Any, key: str, *, where: str, missing_chunks: MissingChunks | None = None
) -> None:
    """Raise `FormatError` if chunks of coordinates are missing, which would place cells at zero.

    Parameters
    ----------
    held, key
        ``obsm`` or ``obs`` of an input, and its key with coordinates.
    where
        Name of the coordinates in errors.
    missing_chunks
        The requested treatment: "zeros" accepts them; None if the caller has no such argument.

    Notes
    -----
    A third coordinate that is missing completely is zero everywhere: a flat tissue.
    """
    if missing_chunks == "zeros":
        return
    for array, parts in _lost_arrays(_element(held, key)):
        if array.ndim == 2 and array.shape[1] == 3:
            flat = {(part[0].start, part[0].stop) for part in parts if part[1] == slice(2, 3)}
            if sum(stop - start for start, stop in flat) == array.shape[0]:
                parts = [part for part in parts if part[1] != slice(2, 3)]
        if parts:
            fix: str = _fix("the positions really are zero") if missing_chunks else _COPY
            raise FormatError(
                where,
                expected="all chunks of the coordinates",
                got=(
                    f"{many(len(parts), 'chunk')} missing ({_rows_text(part[0] for part in parts)}), "
                    "which would place these cells at zero"
                ),
                fix=fix,
            )


def refuse_lost_names(element: Any, *, where: str) -> None:
    """Raise `FormatError` if chunks of cell or gene names are missing, which would make names empty."""
    for _, parts in _lost_arrays(element):
        raise FormatError(
            where,
            expected="all chunks of the names",
            got=f"{many(len(parts), 'chunk')} missing ({_rows_text(part[0] for part in parts)})",
            fix=_COPY,
        )


def regions_text(regions: tuple[Region, ...], genes: NDArray[Any]) -> str:
    """Return which rows and columns are read as zeros, for a caution.

    Parameters
    ----------
    regions
        At least one.
    genes
        (n_columns,) names of the columns.
    """
    said = []
    for one in regions[:3]:
        columns = genes[one.columns]
        all_genes = len(columns) == len(genes)
        names = "all genes" if all_genes else f"genes {str(columns[0])!r} to {str(columns[-1])!r}"
        said.append(
            f"{_rows_text([one.rows])} x {names} (columns {one.columns.start:,} to {one.columns.stop - 1:,})"
        )
    more = f"; and {len(regions) - 3:,} more" if len(regions) > 3 else ""
    return "; ".join(said) + more


def _fix(meant: str) -> Message:
    return _COPY + " If " + meant + ": " + arg("missing_chunks", "zeros") + "."


def _rows_text(rows: Any) -> str:
    spans = sorted({(part.start, part.stop) for part in rows})
    said = [f"{start:,} to {stop - 1:,}" for start, stop in spans[:3]]
    return f"rows {', '.join(said)}" + (f" and {len(spans) - 3:,} more spans" if len(spans) > 3 else "")


def _element(held: Any, key: str) -> Any:
    """Return a stored element of an input without reading it; None if it is not in zarr."""
    elements = getattr(held, "elements", None)  # of a stored table
    if isinstance(elements, Mapping):
        return elements.get(key)
    while isinstance(held, LazyMapping):
        held = held.held
    return held.get(key) if isinstance(held, zarr.Group) else None


def _lost_arrays(element: Any) -> Iterator[tuple[zarr.Array[Any], list[tuple[slice, ...]]]]:
    """Yield arrays of an element with their missing chunks; masks may well be False everywhere."""
    nodes = [element]
    if isinstance(element, zarr.Group):
        nodes = [node for _, node in element.members(max_depth=None)]
    for node in nodes:
        if isinstance(node, zarr.Array) and node.dtype.kind != "b" and (parts := absent_chunks(node)):
            yield node, parts


def _lost_in_sparse(data: Any, indices: Any, indptr: Any, *, where: str) -> tuple[slice, ...]:
    """Return the rows with missing positions that may be zero; raise if they cannot be."""
    absent = {array.basename: absent_chunks(array) for array in (data, indices, indptr)}
    if not any(absent.values()):
        return ()
    lacking = " and ".join(
        f"{many(len(parts), 'chunk')} of {name}" for name, parts in absent.items() if parts
    )
    starts, n_values = indptr[:].astype(np.int64), int(data.shape[0])
    fits = len(starts) > 0 and starts[0] == 0 and starts[-1] == n_values == indices.shape[0]
    if not fits or (np.diff(starts) < 0).any():
        raise _contradiction(where, lacking, f"row starts that do not fit the {n_values:,} values")
    if absent["data"]:
        raise _contradiction(where, lacking, "zeros at positions that are stored as non-zero")
    spans = [_rows_of(starts, part[0]) for part in absent["indices"]]
    starting = [slice(0, min(part[0].stop, len(starts) - 1)) for part in absent["indptr"] if n_values]
    for rows in spans + starting:
        if not _increases(indices, starts[rows.start : rows.stop + 1]):
            said = (
                f"duplicate genes in a row, or genes out of order, in rows {rows.start:,} to "
                f"{rows.stop - 1:,}"
            )
            raise _contradiction(where, lacking, said)
    return tuple(spans)


def _rows_of(starts: IntArray, entries: slice) -> slice:
    """Return the rows that contain some entries of a sparse matrix."""
    first = int(np.searchsorted(starts, entries.start, side="right")) - 1
    return slice(first, int(np.searchsorted(starts, entries.stop, side="left")))


def _increases(indices: Any, starts: IntArray) -> bool:
    """Return whether positions increase within each row, so that none occurs twice."""
    places = indices[int(starts[0]) : int(starts[-1])].astype(np.int64)
    rises = np.diff(places) > 0
    borders = starts[1:-1] - starts[0] - 1  # step from one row to the next
    rises[borders[(borders >= 0) & (borders < len(rises))]] = True
    return bool(rises.all())


def _contradiction(where: str, lacking: str, got: str) -> FormatError:
    return FormatError(
        where,
        expected="all chunks of a sparse matrix, or a matrix that lacks only chunks of zeros",
        got=f"{lacking} missing; read as zeros, they give {got}",
        fix=_COPY,
    )
