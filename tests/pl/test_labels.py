"""The reliability diagram of labels."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import cellweft

BINS = {"confidence": [0.6, 0.9], "share_right": [0.5, 0.95], "weight": [0.3, 0.7]}
TOLD = {
    "labels": {
        "class": {"calibration": BINS, "calibration_error": 0.065},
        "subclass": {"calibration": BINS | {"share_right": [0.4, 0.8]}, "calibration_error": 0.13},
    }
}


def test_points_are_the_bins_of_the_finest_column() -> None:
    table = pd.DataFrame({"label": ["a"]})
    table.attrs["cellweft"] = TOLD
    ax = cellweft.pl.label_calibration(table)
    points = ax.collections[0]
    np.testing.assert_allclose(points.get_offsets(), [[0.6, 0.4], [0.9, 0.8]])
    assert points.get_sizes()[1] > points.get_sizes()[0]
    assert ax.get_title().startswith("subclass: calibration error 0.130")
    own = plt.figure().add_subplot()
    assert cellweft.pl.label_calibration(TOLD, "class", ax=own) is own
    np.testing.assert_allclose(own.collections[0].get_offsets()[:, 1], [0.5, 0.95])
    plt.close("all")


def test_tables_without_calibration_are_refused() -> None:
    with pytest.raises(
        cellweft.errors.KeyMissingError, match=r"labels: expected a result of Imputer\.annotate"
    ):
        cellweft.pl.label_calibration(pd.DataFrame({"label": ["a"]}))
    with pytest.raises(
        cellweft.errors.KeyMissingError, match=r"column: expected a column of labels.*'class'"
    ):
        cellweft.pl.label_calibration(TOLD, "clas")
