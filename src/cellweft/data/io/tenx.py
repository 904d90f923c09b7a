"""What 10x instruments write: the .h5 of Cell Ranger and Xenium, and the folder with matrix.mtx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from cellweft._errors import FormatError
from cellweft._text import shorten
from cellweft._typing import IntArray
from cellweft.data.io.backed_matrix import transposed_rows
from cellweft.data.io.lazy_input import Input, not_as_named
from cellweft.data.io.obs_table import HeldTable, StoredTable


def open_10x(path: Path, where: str) -> Input:
    """Open a 10x file of Cell Ranger 3 and later (also Xenium's), or of an earlier one with one genome."""
    file = h5py.File(path.absolute(), "r")
    group = file["matrix"] if "matrix" in file else next(iter(file.values()), None)
    if not isinstance(group, h5py.Group) or any(name not in group for name in ("data", "barcodes", "indptr")):
        raise FormatError(
            where,
            expected="a 10x file with a matrix and its barcodes",
            got=f"an HDF5 file with {shorten(sorted(file)) or 'nothing in it'}",
            fix="If AnnData wrote it, its name must end in .h5ad.",
        )
    if "features" in group:
        features = group["features"]
        parts = {"gene_ids": _texts(features["id"]), "feature_types": _texts(features["feature_type"])}
        names = _texts(features["name"])
    else:
        parts, names = {"gene_ids": _texts(group["genes"])}, _texts(group["gene_names"])
    var, columns = _only_genes(pd.DataFrame(parts, index=pd.Index(names)))
    return Input(
        where=where,
        source=str(path),
        matrix=transposed_rows(group["data"], group["indices"], group["indptr"], n_genes=len(names)),
        obs=StoredTable(group["barcodes"], {}),
        var=var,
        columns=columns,
    )


def read_mtx(path: Path, where: str) -> Input:
    """Read a 10x folder: matrix.mtx, barcodes.tsv and features.tsv (or genes.tsv), perhaps prefixed."""
    from scipy.io import mmread

    values, cells = _part(path, "matrix.mtx"), _part(path, "barcodes.tsv")
    features = _part(path, "features.tsv") or _part(path, "genes.tsv")
    if values is None or cells is None or features is None:
        missing = "barcodes.tsv" if cells is None else "features.tsv (or genes.tsv)"
        there = shorten(sorted(one.name for one in path.iterdir()))
        expected = "matrix.mtx, barcodes.tsv and features.tsv"
        raise FormatError(
            where, expected=expected, got=f"a folder without {missing}: {there}", fix="Add the missing file."
        )
    table = pd.read_csv(features, sep="\t", header=None, dtype=str, keep_default_na=False)
    barcodes = pd.read_csv(cells, sep="\t", header=None, dtype=str, keep_default_na=False)[0]
    try:
        matrix = sp.csr_matrix(mmread(values).T)  # stored genes x cells
    except ValueError as error:
        raise not_as_named(path, where, str(error)) from error
    if matrix.shape != (len(barcodes), len(table)):
        raise FormatError(
            where,
            expected=f"{len(barcodes):,} cells x {len(table):,} genes, as barcodes and features say",
            got=f"a matrix of {matrix.shape[0]:,} cells x {matrix.shape[1]:,} genes",
            fix="Take the three files from the same run.",
        )
    var = pd.DataFrame(
        {"gene_ids": table[0].to_numpy()}, index=pd.Index(table[min(1, table.shape[1] - 1)].to_numpy())
    )
    if table.shape[1] > 2:
        var["feature_types"] = table[2].to_numpy()
    var, columns = _only_genes(var)
    obs = HeldTable(pd.DataFrame(index=pd.Index(barcodes.to_numpy())))
    return Input(where=where, source=str(path), matrix=matrix, obs=obs, var=var, columns=columns)


def _part(folder: Path, name: str) -> Path | None:
    return next(iter(sorted(folder.glob(f"*{name}*"))), None)


def _only_genes(var: pd.DataFrame) -> tuple[pd.DataFrame, IntArray | None]:
    """Leave out what 10x counts beside genes: antibodies, negative controls, blank codewords."""
    if "feature_types" not in var:
        return var, None
    kinds = var["feature_types"].to_numpy()
    columns = np.flatnonzero(kinds == "Gene Expression")
    return (var, None) if len(columns) in (0, len(kinds)) else (var.iloc[columns], columns)


def _texts(dataset: Any) -> list[str]:
    return [one.decode() if isinstance(one, bytes) else str(one) for one in dataset[:]]
