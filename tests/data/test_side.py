"""Parts of an input that are read only when used, and subsets of a side."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata.io import read_elem

from cellweft.data._pair import pair
from cellweft.data.io import damaged


@pytest.fixture
def both(make_side: Any) -> tuple[anndata.AnnData, anndata.AnnData]:
    """Two inputs; obsm of the reference has a table, a sparse matrix and an array, and uns has an entry."""
    sc, st = make_side(["A", "B", "C"], n_cells=9), make_side(["A", "B", "C"], spatial=True)
    sc.obsm["lived"] = np.arange(18.0).reshape(9, 2)
    sc.obsm["table"] = pd.DataFrame({"x": np.arange(9)}, index=sc.obs_names)
    sc.obsm["sparse"] = sp.csr_matrix(np.eye(9))
    sc.uns["lived_names"] = np.array(["x", "y"])
    return sc, st


def as_given(data: anndata.AnnData, _: Path) -> anndata.AnnData:
    return data


def as_h5ad(data: anndata.AnnData, folder: Path) -> Path:
    data.write_h5ad(folder / "data.h5ad")
    return folder / "data.h5ad"


def as_backed(data: anndata.AnnData, folder: Path) -> anndata.AnnData:
    return anndata.read_h5ad(as_h5ad(data, folder), backed="r")


@pytest.mark.parametrize("given", [as_given, as_h5ad, as_backed])
def test_obsm_and_uns_follow_the_cells(both: Any, tmp_path: Path, given: Callable[..., Any]) -> None:
    sc, st = both
    side = pair(given(sc, tmp_path), st).sc
    assert set(side.obsm) == {"lived", "table", "sparse"}
    assert len(side.obsm) == 3
    np.testing.assert_array_equal(side.obsm["lived"], sc.obsm["lived"])
    assert list(side.uns["lived_names"]) == ["x", "y"]
    part = side.subset(np.array([7, 2])).subset(np.array([True, False]))
    np.testing.assert_array_equal(part.obsm["lived"], sc.obsm["lived"][[7]])
    np.testing.assert_array_equal(part.obsm["sparse"].toarray(), np.eye(9)[[7]])
    assert part.obsm["table"].index.tolist() == ["cell7"]
    assert "other" not in part.obsm


def test_returned_values_are_copies(both: Any) -> None:
    sc, st = both
    side = pair(sc, st).sc
    side.obsm["lived"][:] = -1
    assert sc.obsm["lived"].min() == 0


def test_nothing_is_read_before_it_is_used(
    both: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sc, st = both
    path, asked = as_h5ad(sc, tmp_path), []

    def spy(element: Any) -> Any:
        asked.append(element.name)
        return read_elem(element)

    monkeypatch.setattr(damaged, "read_elem", spy)
    side = pair(path, st).sc
    assert "/obsm/lived" not in asked
    assert "/uns/lived_names" not in asked
    assert side.obsm["lived"].shape == (9, 2)
    assert side.uns["lived_names"].tolist() == ["x", "y"]
    assert asked[-2:] == ["/obsm/lived", "/uns/lived_names"]


@pytest.mark.parametrize("kind", ["csv", "h5", "mtx", "zarr"])
def test_formats_without_them_have_none(both: Any, write_as: Any, tmp_path: Path, kind: str) -> None:
    sc, st = both
    plain = anndata.AnnData(sc.X, obs=sc.obs, var=sc.var)
    side = pair(write_as(plain, tmp_path, kind), st).sc
    assert len(side.obsm) == len(side.uns) == 0
