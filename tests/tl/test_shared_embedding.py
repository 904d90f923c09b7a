"""Both sides in the shared embedding, their mixing, and the presence of reference cells in the tissue."""

from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch

import cellweft
from cellweft.data._pair import Pair
from cellweft.impute.imputer import Imputer

KINDS: dict[str, dict[str, Any]] = {
    "auto": {"settings": {"steps": 4, "level_steps": 4}},
    "stimpute": {"preset": "stimpute", "settings": {"k": 8, "hidden": 8, "ae_epochs": 2, "epochs": 1}},
}


@pytest.fixture(scope="module", params=KINDS)
def imputer(request: pytest.FixtureRequest, tissue_pair: Pair) -> Imputer:
    return Imputer(reliability=False, **KINDS[request.param]).fit(tissue_pair, progress=False)


def test_both_sides_are_in_one_embedding(imputer: Imputer, tissue_pair: Pair) -> None:
    both = cellweft.tl.shared_embedding(imputer)
    assert both.shape == (190, 0)
    assert both.obs["side"].tolist() == ["reference"] * 100 + ["spatial"] * 90
    embedded = both.obsm["X_cellweft"]
    assert embedded.dtype == np.float32
    sizes = np.linalg.norm(embedded, axis=1)
    blank = ~tissue_pair.sc.dense(slice(0, 100), tissue_pair.sc_shared).any(axis=1)
    assert blank.sum() > tissue_pair.sc.empty_cells.sum() > 0  # one cell has counts, but none on the panel
    np.testing.assert_allclose(sizes[sizes > 0], 1, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(sizes == 0, np.r_[blank, tissue_pair.blank_cells])
    if imputer.preset == "auto":
        keys = imputer.model_.keys.numpy()[~blank[~tissue_pair.sc.empty_cells]]
        np.testing.assert_allclose(embedded[:100][~blank], keys, rtol=0, atol=1e-5)


def test_mixing_of_mixed_and_of_separate_sides() -> None:
    draw = np.random.default_rng(0)
    sides = pd.Categorical(np.repeat(["reference", "spatial"], [300, 200]))
    values = draw.standard_normal((500, 4)).astype(np.float32)
    obs = pd.DataFrame({"side": sides}, index=[str(number) for number in range(500)])
    both = anndata.AnnData(obs=obs, obsm={"X_cellweft": values})
    assert cellweft.tl.mixing(both) == pytest.approx(1, abs=0.06)
    both.obsm["X_cellweft"][:300] += 100
    assert cellweft.tl.mixing(both) == 0


def test_presence_is_the_sum_of_the_weights(imputer: Imputer, tissue_pair: Pair) -> None:
    kinds = np.where(np.arange(100) % 4, "many", "few")
    cells, types = cellweft.tl.presence(imputer, kinds)
    measured = tissue_pair.st.dense(slice(0, 90), tissue_pair.st_shared)
    weights = imputer.fitted_.operator(measured).apply(torch.eye(100)).double().numpy()
    mass = weights[measured.any(axis=1)].sum(axis=0)
    np.testing.assert_allclose(cells, mass / mass.mean(), rtol=1e-4, atol=1e-5)
    assert cells.index.equals(tissue_pair.sc.obs_names)
    assert types["share"].sum() == pytest.approx(1)
    assert types.loc["few", "share"] == pytest.approx(mass[kinds == "few"].sum() / mass.sum(), rel=1e-4)
    assert types.loc["few", "presence"] == pytest.approx(types.loc["few", "share"] / 0.25)


def test_wrong_arguments_are_refused(tissue_pair: Pair) -> None:
    with pytest.raises(cellweft.errors.NotFittedError, match="Call fit"):
        cellweft.tl.shared_embedding(Imputer())
    with pytest.raises(cellweft.errors.InputError, match="imputer: expected a fitted Imputer, got a int"):
        cellweft.tl.presence(3)
    with pytest.raises(cellweft.errors.InputError, match="both: expected obsm"):
        cellweft.tl.mixing(anndata.AnnData(np.ones((3, 2))))
    with pytest.raises(cellweft.errors.InputError, match="both: expected an AnnData, got a dict"):
        cellweft.tl.mixing({})


def test_mixing_needs_cells_of_both_sides() -> None:
    obs = pd.DataFrame({"side": ["reference"] * 4 + ["spatial"] * 4}, index=[str(one) for one in range(8)])
    both = anndata.AnnData(obs=obs, obsm={"X_cellweft": np.eye(8, dtype=np.float32)})
    assert np.isfinite(cellweft.tl.mixing(both, k=3))
    for part in (both[4:].copy(), both[:0].copy()):
        with pytest.raises(
            cellweft.errors.InputError, match="both: expected cells with counts of both sides"
        ):
            cellweft.tl.mixing(part, k=1)
    both.obsm["X_cellweft"][0] = np.nan
    with pytest.raises(cellweft.errors.InputError, match=r"X_cellweft.*: expected finite numbers"):
        cellweft.tl.mixing(both, k=1)


def test_other_data_must_match_those_of_the_fit(imputer: Imputer, tissue: Any) -> None:
    fewer = cellweft.pair(tissue.sc, tissue.st[:, :10].copy())
    for run in (cellweft.tl.shared_embedding, cellweft.tl.presence):
        with pytest.raises(cellweft.errors.InputError, match="pair: expected the panel of 12 genes"):
            run(imputer, pair=fewer)
