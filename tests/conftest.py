"""Fixtures that the tests of all packages share."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cellweft import _compute
from cellweft.data._pair import Pair, pair
from cellweft.data.synthetic.tissue import SimulatedTissue, simulate_tissue
from cellweft.genes.embeddings import EmbeddingTable
from cellweft.impute.imputer import Imputer
from cellweft.place.placement import Placement
from cellweft.place.placer import Placer

Maker = Callable[..., anndata.AnnData]

QUICK = {"k": 8, "hidden": 8, "epochs": 1, "ae_epochs": 2}
"""Settings for very fast training. The results are poor, but every contract must hold for them."""

QUICK_PLACER = {"steps": 8, "hidden": 16, "middle": 12, "latent": 6, "models": 2}
"""The same for placement."""


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real datasets; tests that need it are skipped if it does not exist."""
    folder = Path(os.environ.get("CELLWEFT_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real datasets are not at {folder}; set CELLWEFT_SHARED_DATA to their folder")
    return folder


BROWSERS = (os.environ.get("CELLWEFT_CHROMIUM", "chromium"), "chromium-browser", "google-chrome", "chrome")

BROWSER_OPTIONS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
"""Render WebGL in software, and keep the browser from contacting the servers of its vendor."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium, driven by Playwright; tests that need it are skipped if none is installed."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium is on the PATH; install it, or set CELLWEFT_CHROMIUM to its path")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=BROWSER_OPTIONS)
        yield chromium
        chromium.close()


AXE = Path(__file__).parents[1] / "viewer" / "node_modules" / "axe-core" / "axe.min.js"


@pytest.fixture(scope="session")
def serious_faults() -> Callable[[Any], list[str]]:
    """Return the accessibility problems of a page that axe-core rates as serious or critical."""
    if not AXE.is_file():
        pytest.skip("axe-core is not installed; run npm ci in viewer/")
    rules = AXE.read_text(encoding="utf-8")

    def faults(page: Any) -> list[str]:
        page.evaluate(rules)
        found = page.evaluate("axe.run().then(found => found.violations)")
        return [
            f"{one['id']}: {node['target']} {node['failureSummary']}"
            for one in found
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]

    return faults


@pytest.fixture(scope="session")
def quick() -> dict[str, Any]:
    """Settings of the Imputer for very fast training."""
    return dict(QUICK)


@pytest.fixture(scope="session")
def tissue() -> SimulatedTissue:
    """90 spatial cells, 100 reference cells and 28 genes, 12 of them on the panel; tests must not change it.

    Spatial cell 5 and reference cell 7 have no counts. The last two genes off the panel have no counts in the
    reference.
    """
    made = simulate_tissue(n_spatial=90, n_reference=100, n_genes=28, n_panel=12, seed=1)
    counts = made.st.X.toarray()
    counts[5] = 0
    made.st.X = type(made.st.X)(counts)
    counts = made.sc.X.toarray()
    counts[7] = 0
    counts[:, np.flatnonzero(~made.sc.var_names.isin(made.st.var_names))[-2:]] = 0
    made.sc.X = type(made.sc.X)(counts)
    return made


@pytest.fixture(scope="session")
def tissue_pair(tissue: SimulatedTissue) -> Pair:
    """The tissue as a checked pair."""
    return pair(tissue.sc, tissue.st)


@pytest.fixture(scope="session", autouse=True)
def plain_process() -> Iterator[None]:
    """Fix the memory of the process that plans count, so that they do not depend on earlier tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_compute, "_resident_bytes", lambda: 0.0)
        patch.setattr(_compute, "_WORK_BYTES", 0.0)
        yield


@pytest.fixture(scope="session")
def cell_types() -> Callable[..., pd.DataFrame]:
    """Function that makes a table of cell types for given cells, as annotation returns it.

    The types alternate. With one column they are A, B and C; with several, those of the second are A1, A2 and
    so on. Every tenth cell is unknown.
    """

    def make(names: Any, columns: tuple[str, ...] = ("cell_type",), **record: Any) -> pd.DataFrame:
        table, told, number = pd.DataFrame(index=pd.Index(names)), {}, np.arange(len(names))
        for place, column in enumerate(columns):
            before = f"{column}_" if len(columns) > 1 else ""
            kinds = [f"{one}{two}" for one in "ABC" for two in ("12" if place else [""])]
            codes = number % 3 * len(kinds) // 3 + (number % 2 if place else 0)
            table[f"{before}label"] = pd.Categorical.from_codes(codes, kinds)
            table[f"{before}confidence"] = 0.5 + number % 50 / 100
            table[f"{before}unknown"] = number % 10 == 0
            for kind in kinds:
                table[f"{before}probability_{kind}"] = 1 / len(kinds)
            bins = {"confidence": [0.55, 0.9], "share_right": [0.5, 0.95], "weight": [0.25, 0.75]}
            told[column] = {
                "calibration": bins,
                "calibration_error": 0.04375,
                "share_right": 0.8125,
                "cut": 0.3,
                "reference_cells": dict.fromkeys(kinds, 20) | {"Absent": 5},
            }
        table.attrs["cellweft"] = {
            "kind": "labels",
            "labels": told,
            "depth": 0.5,
            "held_out_cells": 65,
            "reference_cells_without_label": 4,
            "known_called_unknown": 0.1,
            "preset": "auto",
            "seed": 5,
            "device": "cpu",
            "settings": {"steps": 23},
            "date": "2026-03-04T05:06:07+01:00",
            "duration": {"fit": 6.5, "run": 1.75},
            "command_line": "",
            "versions": {"cellweft": "0.1.0"},
            "inputs": {
                "reference": {"path": "atlas.h5ad", "cells": 80, "genes": 24, "digest": "ab12"},
                "spatial": {
                    "path": "tissue.h5ad",
                    "cells": len(names),
                    "genes": 12,
                    "digest": "cd34",
                    "scale": "raw",
                },
            },
            **record,
        }
        return table

    return make


@pytest.fixture(scope="session")
def embeddings(tissue: SimulatedTissue) -> EmbeddingTable:
    """Made-up protein embeddings of two thirds of the tissue's genes, and of two other genes."""
    names = [name for number, name in enumerate(tissue.sc.var_names) if number % 3]
    values = np.random.default_rng(3).standard_normal((len(names) + 2, 16)).astype(np.float32)
    return EmbeddingTable(genes=np.array([*names, "Foreign1", "Foreign2"]), values=values, source="made up")


@pytest.fixture(scope="session")
def fit_quickly(tissue_pair: Pair) -> Callable[..., Imputer]:
    """Function that fits stImpute to the tissue, by default without reliability."""

    def fit(*, on: Pair = tissue_pair, settings: dict[str, Any] | None = None, **others: Any) -> Imputer:
        given = {"preset": "stimpute", "reliability": False} | others
        return Imputer(settings=QUICK | (settings or {}), **given).fit(on)

    return fit


@pytest.fixture(scope="session")
def imputer(fit_quickly: Callable[..., Imputer]) -> Imputer:
    """An Imputer fitted to the tissue, without reliability; tests must not change it."""
    return fit_quickly()


@pytest.fixture(scope="session")
def reliable_imputer(fit_quickly: Callable[..., Imputer], embeddings: EmbeddingTable) -> Imputer:
    """An Imputer with protein embeddings and reliability, fitted to the tissue; tests must not change it."""
    return fit_quickly(reliability=True, embedding=embeddings)


@pytest.fixture(scope="session")
def fit_placer(tissue_pair: Pair) -> Callable[..., Placer]:
    """Function that fits a Placer to the tissue."""

    def fit(*, on: Pair = tissue_pair, settings: dict[str, Any] | None = None, **others: Any) -> Placer:
        return Placer(settings=QUICK_PLACER | (settings or {}), **others).fit(on)

    return fit


@pytest.fixture(scope="session")
def placer(fit_placer: Callable[..., Placer]) -> Placer:
    """A Placer fitted to the tissue; tests must not change it."""
    return fit_placer()


@pytest.fixture(scope="session")
def placement(placer: Placer) -> Placement:
    """The placement of the tissue's reference; tests must not change it."""
    return placer.place()


def make(genes: list[str], *, n_cells: int = 12, spatial: bool = False, seed: int = 0) -> anndata.AnnData:
    """Poisson counts without empty cells or genes; spatial data also get coordinates on a grid."""
    counts = np.random.default_rng(seed).poisson(2.0, (n_cells, len(genes))).astype(np.float32)
    counts[:, 0] += 1
    counts[0] += 1
    made = anndata.AnnData(
        sp.csr_matrix(counts),
        obs=pd.DataFrame(index=pd.Index([f"cell{number}" for number in range(n_cells)])),
        var=pd.DataFrame(index=pd.Index(genes)),
    )
    if spatial:
        made.obsm["spatial"] = np.column_stack([np.arange(n_cells) // 3, np.arange(n_cells) % 3]) * 10.0
    return made


@pytest.fixture(scope="session")
def make_side() -> Maker:
    """Function that makes a small input."""
    return make
