"""Files of loompy: .loom, genes x cells, transposed when read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from cellweft._compute import READ_BYTES, row_blocks, rows_within
from cellweft._errors import FormatError
from cellweft._text import shorten
from cellweft.data.io.damaged import group_in, open_hdf5, reading
from cellweft.data.io.features import only_genes
from cellweft.data.io.lazy_input import Input
from cellweft.data.io.obs_table import HeldTable, table_with_text
from cellweft.data.io.reopenable import LazyMapping

_FIX = "The file is damaged or incomplete: write it again with the program that created it."
_PARTS = ("matrix", "row_attrs", "col_attrs")
_GENES = (
    "Gene",
    "gene",
    "Genes",
    "GeneName",
    "gene_name",
    "gene_names",
    "gene_symbol",
    "Symbol",
    "var_names",
)
_CELLS = ("CellID", "cell_id", "Cell", "cell_names", "obs_names", "barcode", "Barcode", "cell_barcode")


def open_loom(path: Path, where: str) -> Input:
    """Open a .loom file; the matrix is loaded as sparse, layers only on request.

    Parameters
    ----------
    path, where
        The file, and its name in errors.
    """
    file = open_hdf5(path)
    if any(part not in file for part in _PARTS):
        raise FormatError(
            where,
            expected=f"a loompy file, with {', '.join(_PARTS)}",
            got=f"an HDF5 file with {shorten(sorted(file)) or 'nothing in it'}",
            fix="Check the name: an AnnData file ends in .h5ad, a 10x file in .h5.",
        )
    n_genes, n_cells = file["matrix"].shape
    var, _ = _attributes(file["row_attrs"], n_genes, _GENES, f"{where}.row_attrs")
    obs, arrays = _attributes(file["col_attrs"], n_cells, _CELLS, f"{where}.col_attrs")
    numbered = "the file has no cell names (CellID), so cells are numbered from 0."
    notes = (numbered,) * isinstance(obs.index, pd.RangeIndex)
    obs.index = obs.index.astype(str)
    return only_genes(
        Input(
            where=where,
            source=str(path),
            matrix=_by_cell(file["matrix"]),
            layers=_Layers(group_in(file, "layers", where), where, (n_genes, n_cells)),
            obs=HeldTable(obs),
            var=var.rename(columns={"Accession": "gene_ids"}),
            obsm=arrays,
            notes=notes,
        )
    )


@dataclass(frozen=True, eq=False)
class _Layers(LazyMapping):
    """Other matrices, each transposed on request."""

    where: str
    shape: tuple[int, int]

    def __getitem__(self, key: str) -> Any:
        if key not in self.held:
            raise KeyError(key)
        element = f".layers[{key!r}]"
        with reading(self.where, element, expected="a matrix of genes x cells"):
            stored = self.held[key]
            if stored.shape != self.shape:
                raise FormatError(
                    self.where + element,
                    expected=f"{self.shape[0]:,} genes x {self.shape[1]:,} cells, the shape of the matrix",
                    got=f"shape {stored.shape}",
                    fix=_FIX,
                )
            return _by_cell(stored)


def _by_cell(stored: h5py.Dataset) -> sp.csr_matrix:
    """Return a matrix of genes x cells as cells x genes, read by whole chunks of cells."""
    chunk = (stored.chunks or (1, 1))[1]
    n_rows = rows_within(READ_BYTES, 4.0 * stored.shape[0])
    blocks = [
        sp.csr_matrix(stored[:, cells].T.astype(np.float32))
        for cells in row_blocks(stored.shape[1], max(n_rows // chunk, 1) * chunk)
    ]
    return sp.csr_matrix(sp.vstack(blocks, format="csr") if blocks else (0, stored.shape[0]))


def _attributes(
    group: h5py.Group, n_values: int, names: tuple[str, ...], where: str
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return attributes of rows or columns as a table indexed by one of them, and as arrays."""
    values = {
        str(name): array for name, array in group.items() if isinstance(array, h5py.Dataset) and array.shape
    }
    for name, array in values.items():
        if len(array) != n_values:
            raise FormatError(
                f"{where}[{name!r}]",
                expected=f"{n_values:,} values, as many as the matrix has",
                got=f"{len(array):,}",
                fix=_FIX,
            )
    values = {name: _plain(array[()]) for name, array in values.items()}
    columns = {name: array for name, array in values.items() if array.ndim == 1}
    table = pd.DataFrame(columns, index=pd.RangeIndex(n_values))
    key = next((name for name in names if name in table), None)
    if key is not None:
        table = table.set_index(table.pop(key).astype(str)).rename_axis(None)
    return table_with_text(table, where), {name: array for name, array in values.items() if array.ndim == 2}


def _plain(values: Any) -> Any:
    """Return bytes as text."""
    if getattr(values, "dtype", None) is None or values.dtype.kind not in "SO":
        return values
    texts = [value.decode() if isinstance(value, bytes) else str(value) for value in values.ravel()]
    return np.array(texts, dtype=object).reshape(values.shape)
