import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

import cellweft
from cellweft import pl
from cellweft._errors import GeneError, InputError, KeyMissingError, SettingError


@pytest.fixture(scope="module")
def found():
    """Trends of two genes in two types."""
    stream = np.random.default_rng(0)
    position = stream.random(120)
    values = np.column_stack([3 * position, np.ones(120)]) + stream.normal(0, 0.1, (120, 2))
    return cellweft.tl.gene_trends(
        values, position, genes=np.array(["Rising", "Even"]), labels=np.repeat(["T10", "T2"], 60)
    )


@pytest.fixture
def why():
    values = np.array([[3, 0, 1], [2, 1, 1], [0, 0, 1], [0, 5, 1]], dtype=np.float32)
    cells = np.arange(4)
    return cellweft.tl.Attribution(
        values=values,
        genes=np.array(["Shh", "Xist", "Even"]),
        cells=cells,
        cell_names=cells.astype(str),
        spot=cells,
        spot_names=cells.astype(str),
        explained=values.sum(axis=1),
        completeness_gap=np.zeros(4),
        record={},
    )


SEGMENTS = ["top", "top", "base", "base"]


def test_a_trend_is_a_line_per_type_with_its_band(found):
    (ax,) = pl.trends(found, "Rising", axis="depth (µm)")
    assert [line.get_label() for line in ax.lines] == ["T2", "T10"]
    curve = found.curves("Rising", "T10")
    assert ax.lines[1].get_xdata().tolist() == curve["position"].tolist()
    assert ax.lines[1].get_ydata().tolist() == curve["mean"].tolist()
    band = ax.collections[1].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(curve["lower"].min())
    assert band[:, 1].max() == pytest.approx(curve["upper"].max())
    assert ax.get_xlabel() == "depth (µm)"


def test_genes_and_types_can_be_chosen(found):
    assert [ax.get_title() for ax in pl.trends(found)] == ["Rising", "Even"]
    (ax,) = pl.trends(found, ["Even"], types=["T2"], colors={"T2": "red"})
    assert [to_hex(line.get_color()) for line in ax.lines] == ["#ff0000"]
    assert ax.get_legend() is None


def test_errors_of_trends_name_what_is_wrong(found):
    with pytest.raises(GeneError, match="Did you mean 'Rising'"):
        pl.trends(found, "Risin")
    with pytest.raises(KeyMissingError, match="got 'T3'"):
        pl.trends(found, "Rising", types=["T3"])
    with pytest.raises(KeyMissingError, match="got none"):
        pl.trends(found, [])
    with pytest.raises(InputError, match="2 matplotlib Axes"):
        pl.trends(found, ["Rising", "Even"], axes=plt.subplots()[1])


def test_attributions_are_means_by_segment(why):
    ax = pl.attribution(why, SEGMENTS, genes=["Xist", "Shh"])
    assert ax.images[0].get_array().tolist() == [[2.5, 0.5], [0, 2.5]]
    assert ax.images[0].get_clim() == (-2.5, 2.5)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["base", "top"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["Xist", "Shh"]
    scaled = pl.attribution(why, SEGMENTS, genes=["Xist", "Even"], scale="gene")
    assert scaled.images[0].get_array().tolist() == [[1, 0.2], [1, 1]]


def test_the_most_dominant_genes_of_each_segment_are_drawn_and_marked():
    stream = np.random.default_rng(0)
    values = stream.normal(0, 0.1, (60, 4)).astype(np.float32)
    values[:30, 1] += 1
    values[30:, 2] += 1
    cells = np.arange(60)
    why = cellweft.tl.Attribution(
        values=values,
        genes=np.array(list("abcd")),
        cells=cells,
        cell_names=cells.astype(str),
        spot=cells,
        spot_names=cells.astype(str),
        explained=values.sum(axis=1),
        completeness_gap=np.zeros(60),
        record={},
    )
    segments = pd.Series(np.repeat(["left", "right"], 30))
    ax = pl.attribution(why, segments, n_genes=1)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["b", "c"]
    assert {tuple(one) for one in ax.collections[0].get_offsets().astype(int).tolist()} == {(0, 0), (1, 1)}


def test_errors_of_attribution_name_what_is_wrong(why):
    with pytest.raises(GeneError, match="Did you mean 'Shh'"):
        pl.attribution(why, SEGMENTS, genes=["Shhh"])
    with pytest.raises(InputError, match="at least one gene"):
        pl.attribution(why, SEGMENTS, genes=[])
    with pytest.raises(SettingError, match="scale"):
        pl.attribution(why, SEGMENTS, scale="row")
    with pytest.raises(InputError, match="one for each of the 4 cells"):
        pl.attribution(why, SEGMENTS[:3])


def test_trends_of_expression_stop_at_zero_and_those_of_other_values_do_not():
    position = np.linspace(0.0, 1.0, 60)
    step = np.where(position > 0.8, 5.0, 0.0)
    made = cellweft.tl.gene_trends(
        np.column_stack([step, step - 5]), position, genes=np.array(["Step", "Below"]), progress=False
    )
    assert made.curves("Step")["lower"].min() < 0
    above, below = pl.trends(made, ["Step", "Below"])
    assert above.lines[0].get_ydata().min() == 0
    assert above.collections[0].get_paths()[0].vertices[:, 1].min() == 0
    assert below.lines[0].get_ydata().min() < -4


@pytest.mark.slow
def test_a_legend_of_trends_counts_omitted_entries():
    position = np.tile(np.linspace(0.0, 1.0, 6), 65)
    labels = np.repeat([f"T{n}" for n in range(1, 66)], 6)
    made = cellweft.tl.gene_trends(
        position[:, None],
        position,
        genes=np.array(["Rising"]),
        labels=labels,
        knots=2,
        min_cells=5,
        progress=False,
    )
    (ax,) = pl.trends(made, "Rising")
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert (names[:2], names[-1]) == (["T1", "T2"], "and 5 more")
