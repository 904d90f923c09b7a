"""Abundant types are subsampled, and all other cells are kept."""

from typing import Any

import anndata as ad
import numpy as np
import pytest

from cellweft._errors import InputError, KeyMissingError, SettingError
from cellweft.tl._subsample import subsample_types


def liver() -> ad.AnnData:
    cells = ad.AnnData(np.arange(170, dtype=np.float32)[:, None])
    types = ["Endothelial"] * 100 + ["Kupffer"] * 40 + ["Hepatocyte"] * 10 + ["Stellate"] * 12 + ["T"] * 8
    cells.obs["cell_type"] = np.random.default_rng(0).permutation(types)
    return cells


def test_types_with_more_than_three_times_the_median_are_subsampled() -> None:
    cells = liver()
    found = subsample_types(cells)  # the median type has 12 cells
    counts = found.obs["cell_type"].value_counts().to_dict()
    assert counts == {"Endothelial": 30, "Kupffer": 12, "Hepatocyte": 10, "Stellate": 12, "T": 8}
    assert cells.n_obs == 170
    order = found.X[:, 0]
    assert (np.diff(order) > 0).all()  # the order of cells is kept
    others = ~cells.obs["cell_type"].isin(["Endothelial", "Kupffer"]).to_numpy()
    assert set(cells.X[others, 0]) <= set(order)


def test_chosen_types_and_separate_draws_for_each_type() -> None:
    cells = liver()
    one = subsample_types(cells, "cell_type", types=["Endothelial"], rate=0.5, seed=3)
    assert one.obs["cell_type"].value_counts()["Endothelial"] == 50
    both = subsample_types(cells, types=["Endothelial", "Kupffer"], rate=0.5, seed=3)
    own = [set(each[each.obs["cell_type"] == "Endothelial"].X[:, 0]) for each in (one, both)]
    assert own[0] == own[1]
    other = subsample_types(cells, types=["Endothelial"], rate=0.5, seed=4)
    assert set(other[other.obs["cell_type"] == "Endothelial"].X[:, 0]) != own[0]
    assert subsample_types(cells, rate=1).n_obs == 170
    assert subsample_types(cells, types=["T"], rate=0.01).obs["cell_type"].value_counts()["T"] == 1


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"rate": 0}, SettingError, "rate: expected a fraction above 0, got 0"),
        ({"rate": 1.2}, SettingError, "rate: expected a number from 0 to 1"),
        ({"times": 0.5}, SettingError, "times: expected a number >= 1"),
        ({"seed": -1}, SettingError, "seed: expected a whole number >= 0"),
        ({"labels": "typ"}, KeyMissingError, "labels='typ': expected a column of obs of cells"),
        ({"types": ["Kupfer"]}, KeyMissingError, "types: expected a type of 'cell_type', got 'Kupfer'. Did"),
    ],
)
def test_bad_settings(changes: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        subsample_types(liver(), **changes)


def test_bad_cells() -> None:
    with pytest.raises(InputError, match="cells: expected an AnnData, got a ndarray"):
        subsample_types(np.ones((3, 2)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="labels: expected a column of obs with cell types, got none"):
        subsample_types(ad.AnnData(np.ones((3, 2), dtype=np.float32)))
