"""A check that plots change no settings, and cells to plot."""

from collections.abc import Iterator

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("agg")


@pytest.fixture(autouse=True)
def settings_are_left_alone() -> Iterator[None]:
    """Check that a test leaves Matplotlib's settings unchanged, and close its figures."""
    from matplotlib import pyplot as plt

    before = dict(mpl.rcParams)
    yield
    plt.close("all")
    assert dict(mpl.rcParams) == before


@pytest.fixture
def cells() -> ad.AnnData:
    """Six cells with two genes, labels (one missing) and a numeric column (one NaN)."""
    values = np.array([[0, 1], [1, 0], [2, 5], [3, 0], [4, 2], [5, 0]], dtype=np.float32)
    obs = pd.DataFrame(
        {
            "type": pd.Categorical(["b", "a", "b", None, "c", "a"], categories=["c", "b", "a"]),
            "depth": [0.0, 1.0, np.nan, 3.0, 4.0, 5.0],
        },
        index=[f"cell{n}" for n in range(6)],
    )
    made = ad.AnnData(values, obs=obs, var=pd.DataFrame(index=["Gad1", "Sst"]))
    made.obsm["spatial"] = np.array([[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]], dtype=np.float64)
    made.layers["lower"], made.layers["upper"] = values * 0.5, values * 2
    return made
