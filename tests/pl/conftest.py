"""What every plot must leave as it was, and cells to draw."""

from collections.abc import Iterator

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("agg")


@pytest.fixture(autouse=True)
def settings_are_left_alone() -> Iterator[None]:
    """Matplotlib's settings after a test are those before it; its figures are closed."""
    from matplotlib import pyplot as plt

    before = dict(mpl.rcParams)
    yield
    plt.close("all")
    assert dict(mpl.rcParams) == before


@pytest.fixture
def cells() -> ad.AnnData:
    """Six cells, two genes, labels of which one is missing, a number of which one is NaN."""
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
