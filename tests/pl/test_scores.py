import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from cellweft import pl
from cellweft._errors import InputError, KeyMissingError


def table(methods, *, metric="pearson", level="gene", seed=0):
    """Return scores from a list of values per method."""
    rows = [
        (method, seed, -1, level, f"item{number}", metric, value)
        for method, values in methods.items()
        for number, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["method", "seed", "fold", "level", "item", "metric", "value"])


def names(ax):
    return [text.get_text() for text in ax.get_yticklabels()]


def test_methods_are_ordered_by_median_and_show_quartiles():
    scores = table({"bad": [0.0, 0.1, 0.2], "good": [0.5, 0.6, 0.9]})
    ax = pl.methods(scores)
    assert names(ax) == ["good", "bad"]
    boxes = [(one.get_x(), one.get_width()) for one in ax.patches]
    assert boxes == [pytest.approx((0.55, 0.2)), pytest.approx((0.05, 0.1))]
    dots = [one for one in ax.collections if len(one.get_offsets()) == 3]
    assert dots[0].get_offsets()[:, 0].tolist() == [0.5, 0.6, 0.9]
    assert [text.get_text() for text in ax.texts] == ["0.6", "0.1", "median"]
    assert ax.get_title() == "3 genes"
    assert ax.get_xlabel() == "Pearson correlation"


def test_small_errors_are_better():
    scores = table({"far": [30.0, 40.0], "near": [1.0, 2.0]}, metric="location_error", level="cell")
    ax = pl.methods(scores, metric="location_error")
    assert names(ax) == ["near", "far"]
    assert "lower is better" in ax.get_xlabel()
    assert ax.get_title() == "2 cells"


def test_seeds_are_averaged_item_by_item_and_rows_may_be_in_any_order():
    scores = pd.concat([table({"a": [0.0, 1.0]}), table({"a": [1.0, 2.0]}, seed=1)])
    for one in (scores, scores.sample(frac=1, random_state=0)):
        ax = pl.methods(one)
        (dots,) = [one for one in ax.collections if len(one.get_offsets()) == 2]
        assert dots.get_offsets()[:, 0].tolist() == [0.5, 1.5]


def test_levels_are_not_mixed():
    scores = pd.concat([table({"a": [0.1, 0.2]}), table({"a": [0.5, 0.6, 0.7]}, level="cell")])
    assert pl.methods(scores).get_title() == "2 genes"
    assert pl.methods(scores, level="cell").get_title() == "3 cells"
    with pytest.raises(KeyMissingError, match="a level with 'pearson'"):
        pl.methods(scores, level="type")


def test_very_many_items_are_drawn_as_boxes_only():
    ax = pl.methods(table({"a": np.linspace(0, 1, 600)}))
    assert not [one for one in ax.collections if len(one.get_offsets()) == 600]


def test_chosen_methods_are_drawn_in_their_order():
    scores = table({"a": [0.1], "b": [0.2], "c": [np.nan]})
    assert names(pl.methods(scores, order=["a", "b"])) == ["a", "b"]
    with pytest.raises(KeyMissingError, match="methods of the table, got 'd'"):
        pl.methods(scores, order=["d"])


def test_other_objects_than_a_table_of_scores_are_refused():
    with pytest.raises(InputError, match="expected a table of scores"):
        pl.methods(pd.DataFrame({"a": [1]}))
    with pytest.raises(InputError, match="no rows"):
        pl.methods(table({}))
    with pytest.raises(KeyMissingError, match="Did you mean 'pearson'"):
        pl.methods(table({"a": [1.0]}), metric="pearsn")


def test_a_gene_that_pandas_read_as_missing_is_refused():
    read = table({"a": [1.0, 2.0]})
    read.loc[0, "item"] = None
    message = r"in every row of the column 'item', got 1 missing\. .*called NA.*keep_default_na=False"
    with pytest.raises(InputError, match=message):
        pl.methods(read)


# Reliability


def test_reliability_is_compared_with_the_scores_of_the_same_genes():
    expected = pd.DataFrame(
        {
            "reliability": [0.8, 0.2, 0.5, 0.9],
            "reliability_lower": [0.6, 0.0, 0.3, 0.8],
            "reliability_upper": [1.0, 0.4, 0.7, 1.0],
        },
        index=["item2", "item0", "item1", "elsewhere"],
    )
    ax = pl.reliability(expected, table({"auto": [0.1, 0.6, 0.7], "mean": [0, 0, 0]}))
    bars, dots = ax.collections
    assert dots.get_offsets().tolist() == [[0.2, 0.1], [0.5, 0.6], [0.8, 0.7]]
    assert bars.get_segments()[0].tolist() == [[0.0, 0.1], [0.4, 0.1]]
    assert ax.lines[0].get_xdata().tolist() == ax.lines[0].get_ydata().tolist()
    assert ax.texts[0].get_text() == "Spearman 1.00, 3 genes"


def test_spearman_equals_scipy():
    stream = np.random.default_rng(0)
    x, y = np.round(stream.random((2, 40)), 1)
    expected = pd.Series(x, index=[f"item{n}" for n in range(40)])
    ax = pl.reliability(expected, table({"auto": y}))
    assert ax.texts[0].get_text() == f"Spearman {spearmanr(x, y).statistic:.2f}, 40 genes"


def test_reliability_of_an_evaluation_and_names_of_the_worst_genes():
    scores = pd.concat([table({"m": [0.1, 0.6]}), table({"m": [0.5, 0.5]}, metric="reliability")])
    ax = pl.reliability(None, scores, name_worst=1)
    assert ax.texts[0].get_text() == "Spearman not defined, 2 genes"
    assert ax.texts[1].get_text() == "item0"


def test_reliability_of_a_result(cells):
    scores = table({"auto": [0.3, 0.6]}).replace({"item0": "Gad1", "item1": "Sst"})
    with pytest.raises(KeyMissingError, match="var\\['reliability'\\]"):
        pl.reliability(cells, scores)
    cells.var["reliability"] = [0.2, np.nan]
    assert pl.reliability(cells, scores).collections[0].get_offsets().tolist() == [[0.2, 0.3]]


def test_errors_of_reliability_name_what_is_wrong():
    scores = table({"a": [0.3], "b": [0.6]})
    with pytest.raises(KeyMissingError, match="the method whose reliability is shown"):
        pl.reliability(pd.Series({"item0": 0.5}), scores)
    with pytest.raises(InputError, match="none with both"):
        pl.reliability(pd.Series({"other": 0.5}), scores, method="a")
    with pytest.raises(KeyMissingError, match="metric"):
        pl.reliability(None, scores, method="a")


def test_long_names_of_methods_are_written_over_several_lines():
    scores = table({"auto:models=1+steps=150": [0.0, 0.1], "mean": [0.5, 0.6]})
    assert [text.get_text() for text in pl.methods(scores).get_yticklabels()] == [
        "mean",
        "auto:\nmodels=1+\nsteps=150",
    ]
