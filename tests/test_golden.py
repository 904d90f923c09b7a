"""Models and results of earlier versions can be read, and models predict the same as before."""

from pathlib import Path

import anndata
import numpy as np
import pytest

import cellweft
from cellweft.data.io.results import open_result, result_kind

VERSIONS = sorted((Path(__file__).parent / "golden").glob("[0-9]*"))


@pytest.fixture(params=VERSIONS, ids=lambda folder: folder.name)
def golden(request: pytest.FixtureRequest) -> Path:
    """Folder of the golden files of one version."""
    folder: Path = request.param
    return folder


def test_there_are_golden_files() -> None:
    assert VERSIONS[0].name == "0.1"


@pytest.mark.parametrize("preset", ["auto", "stimpute"])
def test_models_of_earlier_versions_impute_the_same(preset: str, golden: Path) -> None:
    both = cellweft.pair(golden / "sc.h5ad", golden / "st.h5ad")
    model = cellweft.load(golden / f"{preset}.model", device="cpu")
    assert isinstance(model, cellweft.Imputer)
    imputed = model.attach(both).impute(progress=False)
    expected = anndata.read_h5ad(golden / f"{preset}.h5ad")
    assert imputed.var_names.tolist() == expected.var_names.tolist()
    # Processors and versions of torch sum products in different orders.
    np.testing.assert_allclose(imputed.X, expected.X, rtol=1e-4, atol=1e-5)


def test_placers_of_earlier_versions_give_the_same_positions(golden: Path) -> None:
    both = cellweft.pair(golden / "sc.h5ad", golden / "st.h5ad")
    model = cellweft.load(golden / "placer.model", device="cpu")
    assert isinstance(model, cellweft.Placer)
    placed = model.attach(both).place(progress=False)
    expected = anndata.read_h5ad(golden / "placed.h5ad").obsm["cellweft_spatial"]
    np.testing.assert_allclose(placed.coordinates(), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("name", "kind"), [("auto.h5ad", "imputed"), ("placed.h5ad", "placed")])
def test_results_of_earlier_versions_are_recognised(name: str, kind: str, golden: Path) -> None:
    assert result_kind(open_result(golden / name, argument="result")) == kind
