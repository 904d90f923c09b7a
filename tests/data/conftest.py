"""Small inputs that the tests of the package `data` share."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp


@pytest.fixture(scope="session")
def write_as() -> Callable[[anndata.AnnData, Path, str], Path]:
    """Function that writes an AnnData to a folder in a format that cellweft reads, and returns the path."""

    def write(data: anndata.AnnData, folder: Path, kind: str) -> Path:
        path = folder / f"data.{kind}"
        if kind == "h5ad":
            data.write_h5ad(path)
        elif kind in ("zarr", "v3.zarr"):
            # AnnData warns that the default format will change, whichever format is chosen.
            chosen = anndata.settings.override(zarr_write_format=3 if kind == "v3.zarr" else 2)
            with chosen, warnings.catch_warnings(action="ignore"):
                data.write_zarr(path)
        elif kind == "parquet":
            data.to_df().to_parquet(path)
        elif kind in ("csv", "csv.gz", "tsv"):
            data.to_df().to_csv(path, sep="\t" if kind == "tsv" else ",")
        elif kind == "h5":
            write_10x(data, path)
        elif kind == "xenium.h5":
            write_10x(
                data,
                path,
                ["Gene Expression", "Negative Control Probe"] + ["Gene Expression"] * (data.n_vars - 2),
            )
        elif kind == "mtx":
            write_mtx(data, path)
        return path

    return write


def write_10x(data: anndata.AnnData, path: Path, kinds: list[str] | None = None) -> None:
    matrix = sp.csr_matrix(data.X)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(list(data.obs_names), dtype="S")
        group["data"], group["indices"] = matrix.data.astype(np.int32), matrix.indices
        group["indptr"], group["shape"] = matrix.indptr, np.array(matrix.shape[::-1])
        features: Any = group.create_group("features")
        features["id"] = np.array([f"ENSG{number:011d}" for number in range(data.n_vars)], dtype="S")
        features["name"] = np.array(list(data.var_names), dtype="S")
        features["feature_type"] = np.array(kinds or ["Gene Expression"] * data.n_vars, dtype="S")


def write_mtx(data: anndata.AnnData, path: Path) -> None:
    path.mkdir()
    scipy.io.mmwrite(path / "matrix.mtx", sp.coo_matrix(data.X.T).astype(np.int64))
    (path / "barcodes.tsv").write_text("\n".join(data.obs_names) + "\n")
    rows = [f"ENSG{number:011d}\t{name}\tGene Expression" for number, name in enumerate(data.var_names)]
    (path / "features.tsv").write_text("\n".join(rows) + "\n")
