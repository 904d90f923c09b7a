import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellweft.pl._rasterize import cell_width, grid_of, pixel_means, pixel_modes


def random_cells(n, seed=0):
    stream = np.random.default_rng(seed)
    return stream.uniform(0, 10, (n, 2)) * [1, 0.6], stream


def test_the_cell_width_on_a_grid_is_its_pitch_despite_holes():
    grid = np.stack(np.meshgrid(np.arange(60.0), np.arange(60.0)), axis=-1).reshape(-1, 2) * 3
    assert cell_width(grid) == pytest.approx(3, rel=0.1)
    ring = grid[np.linalg.norm(grid - 90, axis=1) > 60]
    assert cell_width(ring) == pytest.approx(3, rel=0.15)


@pytest.mark.parametrize("places", [[[2.0, 3.0]], [[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 5.0]]])
def test_few_cells_have_a_width_and_pixels(places):
    places = np.array(places)
    assert 0 < cell_width(places) < np.inf
    grid = grid_of(places)
    assert (grid.pixel >= 0).all()
    assert (grid.pixel < grid.size).all()


def test_pixels_are_where_the_cells_are():
    places, _ = random_cells(500)
    grid = grid_of(places)
    row, column = np.divmod(grid.pixel, grid.shape[1])
    side = (grid.extent[1] - grid.extent[0]) / grid.shape[1]
    left, low = grid.extent[0] + column * side, grid.extent[2] + row * side
    assert (left <= places[:, 0] + 1e-9).all()
    assert (places[:, 0] <= left + side + 1e-9).all()
    assert (low <= places[:, 1] + 1e-9).all()
    assert (places[:, 1] <= low + side + 1e-9).all()
    assert len(places) / len(np.unique(grid.pixel)) == pytest.approx(2.5, rel=0.3)


def test_the_number_of_pixels_is_bounded():
    places, _ = random_cells(2000)
    assert max(grid_of(places, most=7).shape) == 7


@pytest.mark.slow
@given(st.integers(0, 100))
def test_means_and_modes_equal_a_naive_loop(seed):
    places, stream = random_cells(60, seed)
    values, codes = stream.normal(size=60), stream.integers(-1, 3, 60)
    values[stream.random(60) < 0.3] = np.nan
    grid = grid_of(places)
    means, shown = pixel_means(grid, values)
    modes, shown_too = pixel_modes(grid, codes)
    assert (shown == shown_too).all()
    for pixel in np.unique(grid.pixel):
        here = grid.pixel == pixel
        there = values[here][~np.isnan(values[here])]
        assert means.ravel()[pixel] == pytest.approx(there.mean() if len(there) else np.nan, nan_ok=True)
        counts = {code: (codes[here] == code).sum() for code in (0, 1, 2, -1)}
        assert modes.ravel()[pixel] == max(counts, key=counts.get)  # the first of several equal ones
        assert shown.ravel()[pixel]


@given(st.integers(0, 20))
def test_the_order_of_the_cells_does_not_matter(seed):
    places, stream = random_cells(80, seed)
    values, codes, order = stream.normal(size=80), stream.integers(-1, 3, 80), stream.permutation(80)
    one, other = grid_of(places), grid_of(places[order])
    assert np.allclose(pixel_means(one, values)[0], pixel_means(other, values[order])[0], equal_nan=True)
    assert (pixel_modes(one, codes)[0] == pixel_modes(other, codes[order])[0]).all()


def test_enclosed_pixels_are_filled_and_open_ones_are_not():
    places = np.stack(np.meshgrid(np.arange(9.0), np.arange(9.0)), axis=-1).reshape(-1, 2)
    hole = (places == [4, 4]).all(axis=1)
    corner = (places >= 6).all(axis=1)
    kept = places[~hole & ~corner]
    grid = grid_of(kept, per_pixel=1.0)
    if grid.shape == (9, 9):
        _, shown = pixel_means(grid, np.ones(len(kept)))
        assert shown[4, 4]
        assert not shown[8, 8]
