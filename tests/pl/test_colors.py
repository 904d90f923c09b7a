import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_rgb

from cellweft._errors import InputError, KeyMissingError, SettingError
from cellweft.pl._colors import chosen_colors, label_colors, number_map, palette


def _lab(rgb):
    """Convert sRGB colours, (n, 3), to CIELAB (D65)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    xyz = linear @ to_xyz.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@pytest.mark.parametrize(("n", "least"), [(7, 26), (20, 26), (60, 14)])
def test_colours_are_distinct_in_cielab(n, least):
    lab = _lab(np.array([to_rgb(one) for one in palette(n)]))
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)
    assert apart[~np.eye(n, dtype=bool)].min() > least


def test_no_colour_is_close_to_black_white_or_the_grey_of_missing_values():
    colors, others = (
        _lab(np.array([to_rgb(one) for one in some])) for some in (palette(60), ["black", "white", "#D0D0D0"])
    )
    assert np.linalg.norm(colors[:, None] - others[None], axis=-1).min() > 18
    assert colors[:, 0].min() > 20  # lightness, out of 100


def test_the_first_colours_are_fixed_and_repeat_from_the_sixty_first_on():
    assert palette(3) == palette(70)[:3]
    assert len(set(palette(60))) == 60
    assert palette(61)[60] == palette(1)[0]
    assert palette(0) == []


def test_categories_sorted_as_text_are_shown_in_natural_order_and_keep_their_colours(cells):
    cells.obs["layer"] = pd.Categorical(["L10", "L2", "L1", "L2", "L10", "L1"])  # stored as L1, L10, L2
    assert list(label_colors(cells, "layer")) == ["L1", "L2", "L10"]
    assert label_colors(cells, "layer")["L2"] == palette(2)[1].lower()
    cells.uns["layer_colors"] = ["red", "lime", "blue"]
    assert label_colors(cells, "layer") == {"L1": "#ff0000", "L2": "#0000ff", "L10": "#00ff00"}
    assert label_colors(cells, "layer", keep=True)
    assert cells.uns["layer_colors"] == ["#ff0000", "#00ff00", "#0000ff"]
    ordered = pd.Categorical(["L10", "L2"] * 3, categories=["L1", "L10", "L2"], ordered=True)
    cells.obs["ordered"] = ordered
    assert list(label_colors(cells, "ordered")) == ["L1", "L10", "L2"]


def test_categories_keep_their_order_and_text_is_in_natural_order(cells):
    assert list(label_colors(cells, "type")) == ["c", "b", "a"]
    cells.obs["text"] = ["T10", "T2", "T1", "T2", "T2", "T10"]
    assert list(label_colors(cells, "text")) == ["T1", "T2", "T10"]


def test_colours_stored_by_scanpy_are_used(cells):
    cells.uns["type_colors"] = np.array(["red", "#00ff00", "blue"])
    assert label_colors(cells, "type") == {"c": "#ff0000", "b": "#00ff00", "a": "#0000ff"}


def test_stored_colours_of_fewer_labels_are_not_used(cells):
    cells.uns["type_colors"] = ["red"]
    assert label_colors(cells, "type")["c"] == palette(1)[0].lower()


def test_invalid_colours_are_refused(cells):
    cells.uns["type_colors"] = ["red", "reddish", "blue"]
    with pytest.raises(InputError, match="reddish"):
        label_colors(cells, "type")


def test_colours_are_only_stored_on_request(cells):
    found = label_colors(cells, "type")
    assert "type_colors" not in cells.uns
    assert label_colors(cells, "type", keep=True) == found
    assert cells.uns["type_colors"] == list(found.values())


def test_colours_cannot_be_stored_in_a_file_or_a_view(cells, tmp_path):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    assert label_colors(tmp_path / "cells.h5ad", "type") == label_colors(cells, "type")
    with pytest.raises(SettingError, match="an AnnData to write colours to"):
        label_colors(tmp_path / "cells.h5ad", "type", keep=True)
    with pytest.raises(InputError, match="a view"):
        label_colors(cells[:3], "type", keep=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning")
def test_scanpy_draws_the_stored_colours(cells):
    import scanpy as sc

    found = label_colors(cells, "type", keep=True)
    figure = sc.pl.embedding(cells, basis="spatial", color="type", show=False, return_fig=True)
    drawn = {tuple(np.round(one[:3], 3)) for one in figure.axes[0].collections[0].get_facecolors()}
    assert {tuple(np.round(to_rgb(one), 3)) for one in found.values()} <= drawn


def test_unknown_columns_are_named(cells):
    with pytest.raises(KeyMissingError, match="Did you mean 'type'"):
        label_colors(cells, "tpye")


def test_given_colours_are_checked_and_others_filled_in():
    assert chosen_colors(["a", "b"], {"b": "red"}) == {"a": palette(1)[0].lower(), "b": "#ff0000"}
    with pytest.raises(SettingError, match=r"colors\['a'\]: expected a colour, got 'reddish'"):
        chosen_colors(["a"], {"a": "reddish"})
    with pytest.raises(SettingError, match="viridis"):
        number_map("viridiss")


def test_labels_of_numbers_as_text():
    data = AnnData(np.zeros((2, 1)), obs=pd.DataFrame({"cluster": [10, 2]}, index=["a", "b"]))
    assert list(label_colors(data, "cluster")) == ["2", "10"]
