"""Tiny inputs, models and results that the robustness tests share; tests must not change them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import pytest

import cellweft
from cellweft.data._pair import Pair

AUTO = {"steps": 2, "level_steps": 2}
PLACER = {"steps": 4, "hidden": 8, "middle": 6, "latent": 4, "models": 1}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("robust")


@dataclass(frozen=True)
class World:
    """A reference of 40 cells, a tissue of 30, 14 genes (8 on the panel), and models and results of them."""

    folder: Path
    sc: anndata.AnnData
    st: anndata.AnnData
    pair: Pair
    imputer: cellweft.Imputer
    placer: cellweft.Placer
    placement: Any
    imputed: anndata.AnnData
    placed: anndata.AnnData


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    made = cellweft.datasets.simulate_tissue(n_spatial=30, n_reference=40, n_genes=14, n_panel=8, seed=1)
    both = cellweft.pair(made.sc, made.st)
    imputer = cellweft.Imputer(settings=AUTO, reliability=False).fit(both, progress=False)
    placer = cellweft.Placer(settings=PLACER).fit(both, progress=False)
    placement = placer.place(progress=False)
    made.sc.write_h5ad(folder / "atlas.h5ad")
    made.st.write_h5ad(folder / "tissue.h5ad")
    imputer.save(folder / "auto.model")
    placer.save(folder / "placer.model")
    imputer.impute_to(folder / "imputed.zarr", progress=False)
    return World(
        folder=folder,
        sc=made.sc,
        st=made.st,
        pair=both,
        imputer=imputer,
        placer=placer,
        placement=placement,
        imputed=imputer.impute(progress=False),
        placed=placement.to_anndata(progress=False),
    )
