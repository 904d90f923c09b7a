"""Results and tissues for the tests of the viewer, in every form that AnnData stores."""

import http.client
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

from cellweft._provenance import SCHEMA_VERSION
from cellweft.data.io.write import ResultWriter
from cellweft.viewer import Viewer

N_CELLS, N_GENES, N_PANEL = 61, 9, 4


@dataclass
class Reply:
    """The response to a request."""

    status: int
    headers: Any
    body: bytes

    @property
    def told(self) -> Any:
        return json.loads(self.body)

    def values(self, kind: str = "<f4") -> np.ndarray:
        return np.frombuffer(self.body, dtype=kind)


def known(viewer: Viewer) -> dict[str, str]:
    """Return the header with the token of a viewer."""
    return {"Authorization": f"token {viewer.token}"}


@pytest.fixture
def ask() -> Callable[..., Reply]:
    """Function that sends a request to a viewer, without any proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def send(viewer: Viewer, path: str, **options: Any) -> Reply:
        headers = known(viewer) | options.pop("headers", {})
        request = urllib.request.Request(viewer.origin + path, headers=headers, **options)
        try:
            with opener.open(request, timeout=20) as reply:
                return Reply(reply.status, reply.headers, reply.read())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.headers, error.read())

    return send


@pytest.fixture
def ask_plainly() -> Callable[..., Reply]:
    """Function that sends a path unchanged, which ordinary clients would normalise."""

    def send(viewer: Viewer, path: bytes, *, method: bytes = b"GET", lines: bytes | None = None) -> Reply:
        host = f"Host: 127.0.0.1:{viewer.port}\r\n".encode() if lines is None else lines
        with socket.create_connection(("127.0.0.1", viewer.port), timeout=20) as line:
            token = f"Authorization: token {viewer.token}\r\nConnection: close\r\n\r\n".encode()
            line.sendall(method + b" " + path + b" HTTP/1.1\r\n" + host + token)
            reply = http.client.HTTPResponse(line)
            reply.begin()
            return Reply(reply.status, reply.headers, reply.read())

    return send


@pytest.fixture(scope="session")
def imputed() -> AnnData:
    """A result of 61 cells and 9 genes, 4 of them measured, with intervals."""
    random = np.random.default_rng(0)
    values = np.maximum(random.normal(0.3, 1, (N_CELLS, N_GENES)), 0).astype(np.float32)
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical.from_codes(random.integers(-1, 3, N_CELLS), ["b", "a", "c"]),
            "region": np.where(np.arange(N_CELLS) % 2, "left", "right"),
            "barcode": [f"AC{number:03d}" for number in range(N_CELLS)],
            "size": np.where(np.arange(N_CELLS) == 5, np.nan, np.arange(N_CELLS, dtype=float)),
            "count": np.arange(N_CELLS) + 7,
            "edge": np.arange(N_CELLS) % 3 == 0,
            "section": np.repeat([1, 2], [30, 31]),
        },
        index=[f"cell{number}" for number in range(N_CELLS)],
    )
    var = pd.DataFrame(
        {
            "measured": np.arange(N_GENES) < N_PANEL,
            "reliability": [0.9, 0.8, np.nan, 0.1, -0.2, 0.5, 0.6, 0.7, 0.3],
        },
        index=[f"Gene{number}" for number in range(N_GENES)],
    )
    return AnnData(
        values,
        obs=obs,
        var=var,
        obsm={"spatial": random.uniform(0, 100, (N_CELLS, 3))},
        uns={
            "cellweft": {"schema_version": SCHEMA_VERSION, "interval": 0.9},
            "cell_type_colors": np.array(["#111111", "red", "#333333"]),
        },
        layers={"lower": values / 2, "upper": values * 2 + 1},
    )


@pytest.fixture(scope="session")
def counts(imputed: AnnData) -> AnnData:
    """Counts of the panel and two more genes in CSR, with cells in another order and some missing."""
    random = np.random.default_rng(1)
    order = random.permutation(np.arange(3, N_CELLS))
    genes = ["Other1", "GENE2", "Gene0", "Other2", "Gene3", "Gene1"]
    values = random.poisson(1.5, (len(order) + 1, len(genes))).astype(np.float32)
    values[4] = 0
    values[:, 2] *= 200  # so that values need two bytes
    names = [*imputed.obs_names[order], "stranger"]
    return AnnData(sp.csr_matrix(values), obs=pd.DataFrame(index=names), var=pd.DataFrame(index=genes))


def write(result: AnnData, path: Path, **options: Any) -> Path:
    """Write a result in the format of `cellweft impute`, with small chunks."""
    layers = [name for name in result.layers if name is not None]  # anndata 0.13 lists X as the layer None
    with ResultWriter(
        path,
        obs=result.obs,
        var=result.var,
        obsm=dict(result.obsm),
        uns=dict(result.uns),
        layers=tuple(layers),
        **({"chunk": (16, 4)} | options),
    ) as writer:
        for layer in (None, *layers):
            values = np.asarray(result.X if layer is None else result.layers[layer])
            writer.write(slice(0, result.n_obs), slice(0, result.n_vars), values, layer=layer)
    return path


@pytest.fixture
def write_result() -> Callable[..., Path]:
    """Function that writes a result in the format of `cellweft impute`."""
    return write


@pytest.fixture(scope="session")
def stores(imputed: AnnData, counts: AnnData, tmp_path_factory: Any) -> dict[str, Path]:
    """Paths of the result and the tissue in every form, by name; tests must not change them."""
    folder: Path = tmp_path_factory.mktemp("stores")
    sparse = imputed.copy()
    sparse.X = sp.csr_matrix(imputed.X)
    by_gene = imputed.copy()
    by_gene.X = sp.csc_matrix(imputed.X)
    imputed.write_h5ad(folder / "plain.h5ad")
    sparse.write_h5ad(folder / "sparse.h5ad")
    by_gene.write_h5ad(folder / "by_gene.h5ad")
    dense = counts.copy()
    dense.X = counts.X.toarray()
    dense.write_h5ad(folder / "tissue_dense.h5ad")
    counts.write_h5ad(folder / "tissue.h5ad")
    placed = AnnData(
        obs=pd.DataFrame({"cellweft_confidence": [0.5, 1.0, 0.25]}, index=list("xyz")),
        obsm={
            "cellweft_spatial": np.array([[0.0, 1], [2, 3], [np.nan, np.nan]]),
            "spatial": np.zeros((3, 2)),
        },
    )
    placed.write_h5ad(folder / "placed.h5ad")
    return {
        "zarr": write(imputed, folder / "imputed.zarr"),
        "low chunks": write(imputed, folder / "low.zarr", chunk=(7, 4)),
        "h5ad": write(imputed, folder / "imputed.h5ad"),
        "h5ad without chunks": folder / "plain.h5ad",
        "h5ad CSR": folder / "sparse.h5ad",
        "h5ad CSC": folder / "by_gene.h5ad",
        "tissue": folder / "tissue.h5ad",
        "tissue dense": folder / "tissue_dense.h5ad",
        "placed": folder / "placed.h5ad",
    }
