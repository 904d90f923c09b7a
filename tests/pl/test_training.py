from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

import cellweft
from cellweft import pl
from cellweft._errors import GeneError, InputError, KeyMissingError, NotFittedError, SettingError

TRUTH = np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0], [3.0, np.nan]])


def bounds(low, high):
    return np.full(TRUTH.shape, low), np.full(TRUTH.shape, high)


def test_coverage_of_all_measured_entries_and_of_each_gene():
    ax = pl.calibration(TRUTH, {0.9: bounds(0, 5), 0.5: bounds(0, 1)})
    line = ax.lines[1]
    assert line.get_xdata().tolist() == [0.5, 0.9]
    assert line.get_ydata().tolist() == pytest.approx([2 / 7, 1.0])  # of seven entries
    (bars,) = ax.collections
    # first gene one half, second none
    assert bars.get_segments()[0][:, 1].tolist() == pytest.approx([0.125, 0.375])


def test_coverage_of_layers_matched_by_gene_names():
    low, high = bounds(0, 1)
    found = ad.AnnData(low, var=pd.DataFrame(index=["b", "a"]), layers={"lower": low, "upper": high})
    truth = pd.DataFrame(TRUTH, columns=["a", "b"])
    assert pl.calibration(truth, {0.5: found}).lines[1].get_ydata().tolist() == pytest.approx([2 / 7])
    with pytest.raises(GeneError, match="'c'"):
        pl.calibration(truth.rename(columns={"b": "c"}), {0.5: found})
    del found.layers["upper"]
    with pytest.raises(KeyMissingError, match="upper"):
        pl.calibration(truth, {0.5: found})


def test_several_lines_have_their_own_colours_and_names():
    ax = pl.calibration(TRUTH, {0.5: bounds(0, 1)}, label="one")
    pl.calibration(TRUTH, {0.5: bounds(0, 2)}, label="other", ax=ax)
    assert len(ax.lines) == 3
    assert ax.lines[1].get_color() != ax.lines[2].get_color()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "other"]


@pytest.mark.parametrize(
    ("truth", "given", "error", "match"),
    [
        (TRUTH, {}, InputError, "at least one level"),
        (TRUTH, {1.0: bounds(0, 1)}, SettingError, "levels between 0 and 1"),
        (TRUTH * np.nan, {0.5: bounds(0, 1)}, InputError, "only NaN"),
        (TRUTH[:, 0], {0.5: bounds(0, 1)}, InputError, "cells x genes"),
        (TRUTH[:2], {0.5: bounds(0, 1)}, InputError, "like the truth"),
    ],
)
def test_errors_of_calibration_name_what_is_wrong(truth, given, error, match):
    with pytest.raises(error, match=match):
        pl.calibration(truth, given)


# Training history


def test_a_stage_has_a_panel_and_an_encoder_a_line():
    stages = pl.history({"autoencoder": [3.0, 2.0], "network": [1.0, 0.5, 0.25]})
    assert [ax.get_title() for ax in stages] == ["autoencoder", "network"]
    assert stages[1].lines[0].get_xdata().tolist() == [1, 2, 3]
    (ax,) = pl.history([[3.0, 2.0], [2.0, 1.0]])
    assert [line.get_ydata().tolist() for line in ax.lines] == [[3, 2], [2, 1]]
    assert ax.lines[0].get_xdata().tolist() == [50, 100]
    assert pl.history([1000.0, 1.0])[0].get_yscale() == "log"


def test_fitted_estimators_are_drawn(imputer, placer):
    axes = pl.history(imputer)
    assert [ax.get_title() for ax in axes] == list(imputer.model_.history)
    (ax,) = pl.history(placer)
    assert [line.get_ydata().tolist() for line in ax.lines] == [list(one) for one in placer.model_.history]


def test_errors_of_history_name_what_is_wrong():
    with pytest.raises(NotFittedError, match="Call fit first"):
        pl.history(cellweft.Placer())
    with pytest.raises(NotFittedError, match="Call fit first"):
        pl.history(cellweft.Imputer())
    loaded = SimpleNamespace(fit=None, model_=SimpleNamespace(history=()))
    with pytest.raises(InputError, match="fit again to plot them"):
        pl.history(loaded)
    with pytest.raises(InputError, match="losses of the training"):
        pl.history({})
    with pytest.raises(InputError, match="2 matplotlib Axes"):
        pl.history({"a": [1.0], "b": [1.0]}, axes=plt.subplots()[1])


def test_a_legend_of_many_encoders_counts_omitted_ones():
    (ax,) = pl.history([[2.0 + n, 1.0] for n in range(11)])
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert (len(names), names[0], names[-1]) == (9, "encoder 1", "and 3 more")
