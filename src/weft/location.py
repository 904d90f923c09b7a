"""Where a mapping puts cells: the mean of their possible places, how far these are spread, and a radius."""

from __future__ import annotations

import numpy as np
import torch

from weft._typing import DoubleArray
from weft.core.mapping import Mapping
from weft.data.stream import row_blocks

FLATTEN = 0.6
"""What the logarithms of weights are multiplied by for the median and the radius: encoders are too sure.

One number for all data; docs/stem.md says what it was chosen on.
"""

_MEDIAN_SPOTS = 500  # of a cell: those with the largest weights, all of them in a smaller slice
_MEDIAN_STEPS = 20
_BINS = 1024  # of distances, narrow near the place and wide far from it
_ROWS = 2048  # cells whose bins, or heaviest spots, are there at once: 8 MB for each number of them
_BLOCK_ENTRIES = 2**19  # weights that are there at once with their distances and bins, of 8 bytes


def encoder_mappings(mapping: Mapping, n_encoders: int, *, flatten: float = FLATTEN) -> list[Mapping]:
    """Return the mapping of each encoder by itself, of several that stand side by side in the embeddings.

    Parameters
    ----------
    mapping
        Their geometric mean: queries stand side by side and are divided by the number of encoders, keys stand
        side by side.
    n_encoders
        How many.
    flatten
        What the logarithms of the weights are multiplied by, above 0; below 1 flattens.
    """
    queries, keys = (part.tensor_split(n_encoders, dim=1) for part in (mapping.queries, mapping.keys))
    parts = [
        Mapping(queries=query, keys=key, block_entries=mapping.block_entries)
        for query, key in zip(queries, keys, strict=True)
    ]
    return [_part(one, slice(None), flatten=flatten * n_encoders) for one in parts]


def mean_places(mapping: Mapping, coordinates: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """Return C Y, and how far the places that it is the mean of are spread.

    Parameters
    ----------
    mapping
        Of n_cells to n_spots.
    coordinates
        (n_spots, 2 or 3)

    Returns
    -------
    places : ndarray
        (n_cells, 2 or 3)
    spread : ndarray
        (n_cells,) root of the mean squared distance of a cell's places from their mean.
    """
    there, centre, extent = _scaled(coordinates)
    both = np.column_stack([there, (there**2).sum(axis=1)])
    pulled = mapping.pull(_tensor(both, mapping.keys)).cpu().double().numpy()
    variance = pulled[:, -1] - (pulled[:, :-1] ** 2).sum(axis=1)
    return pulled[:, :-1] * extent + centre, np.sqrt(variance.clip(min=0)) * extent


def median_places(
    mapping: Mapping, coordinates: DoubleArray, *, spacing: float, flatten: float = FLATTEN
) -> DoubleArray:
    """Return the geometric median of the places that each cell is mapped to.

    Parameters
    ----------
    mapping
        Of n_cells to n_spots.
    coordinates
        (n_spots, 2 or 3)
    spacing
        Of the spots, above 0: a cell lies somewhere in the square (the cube) around its spot.
    flatten
        What the logarithms of the weights are multiplied by, above 0.

    Returns
    -------
    (n_cells, 2 or 3)

    Notes
    -----
    The point with the least expected distance, where the mean has the least expected squared distance: a
    second, far place that a cell may also come from hardly moves it. Weiszfeld's iteration (1937) from the
    mean on; distances count the square around a spot as `place_radius` does, so that none is 0.
    """
    there, centre, extent = _scaled(coordinates)
    within = coordinates.shape[1] * (spacing / extent) ** 2 / 12
    spots = _tensor(there, mapping.keys)
    places = np.empty((len(mapping.queries), there.shape[1]))
    for rows in row_blocks(len(places), _ROWS):
        part = _part(mapping, rows, flatten=flatten)
        weights, found = part.topk(min(_MEDIAN_SPOTS, len(spots)))
        axes = [spots[:, axis][found] for axis in range(spots.shape[1])]  # each n_rows x k
        pulls = weights
        for _ in range(_MEDIAN_STEPS):
            total = pulls.sum(dim=1)
            middle = [(pulls * axis).sum(dim=1) / total for axis in axes]
            squares = torch.full_like(weights, within)
            for axis, one in zip(axes, middle, strict=True):
                squares += (axis - one[:, None]) ** 2
            pulls = weights * squares.rsqrt()
        places[rows] = torch.stack(middle, dim=1).cpu().double().numpy()
    return places * extent + centre


def place_radius(
    mappings: list[Mapping], coordinates: DoubleArray, places: DoubleArray, *, share: float, spacing: float
) -> DoubleArray:
    """Return the radius around every place within which a share of the cell's possible places lies.

    Parameters
    ----------
    mappings
        Of n_cells to n_spots, one or several; possible places are drawn from each alike.
    coordinates
        (n_spots, 2 or 3)
    places
        (n_cells, 2 or 3) what the radius is around.
    share
        Above 0 and below 1.
    spacing
        Of the spots: a cell lies somewhere in the square (the cube) around its spot.

    Returns
    -------
    (n_cells,) in the unit of the coordinates, at or above 0.

    Notes
    -----
    The quantile of the distances, each with the weight of its spot, which are counted in bins so that no row
    need be held whole: they grow with the root of the distance, and within one the quantile is interpolated.
    The square around a spot adds its mean squared distance from its middle to the squared distance.
    """
    there, centre, extent = _scaled(coordinates)
    around = (places - centre) / extent
    within = coordinates.shape[1] * (spacing / extent) ** 2 / 12  # of a square of that side
    spots, cells = (_tensor(one, mappings[0].keys) for one in (there, around))
    corner = float(np.max(np.abs(np.concatenate([there, around])), axis=0) @ np.ones(there.shape[1]))
    most = 2 * corner + np.sqrt(within)  # no distance is larger
    radius = np.empty(len(places))
    for rows in row_blocks(len(places), _ROWS):
        mass = cells.new_zeros(rows.stop - rows.start, _BINS)
        for mapping in mappings:
            for some, columns, weights in _part(mapping, rows).blocks():
                squares = _squares(cells[rows][some], spots[columns]) + within
                bins = (squares.pow(0.25) * (_BINS / most**0.5)).long().clamp_(max=_BINS - 1)
                mass[some].scatter_add_(1, bins, weights)
        radius[rows] = _quantile(mass.cpu().double().numpy(), share) * most * extent
    return radius


def _part(mapping: Mapping, rows: slice, *, flatten: float = 1.0) -> Mapping:
    """Return the mapping of some queries, its logarithms multiplied."""
    queries = mapping.queries[rows] * flatten
    return Mapping(
        queries=queries, keys=mapping.keys, block_entries=min(mapping.block_entries, _BLOCK_ENTRIES)
    )


def _quantile(mass: DoubleArray, share: float) -> DoubleArray:
    """Return where each row of bins reaches a share of its mass, from 0 to 1: bin b begins at (b / n)^2."""
    below = np.cumsum(mass, axis=1)
    wanted = share * below[:, -1]
    found = (below < wanted[:, None]).sum(axis=1).clip(max=_BINS - 1)
    rows = np.arange(len(mass))
    inside = mass[rows, found]
    part = 1 - (below[rows, found] - wanted) / np.where(inside > 0, inside, 1.0)
    low, high = (found / _BINS) ** 2, ((found + 1) / _BINS) ** 2
    return np.asarray(low + part.clip(0, 1) * (high - low))


def _squares(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return squared distances, axis by axis: by products, those of near places would lose their digits."""
    squares = one.new_zeros(len(one), len(other))
    for axis in range(one.shape[1]):
        squares += (one[:, axis, None] - other[None, :, axis]) ** 2
    return squares


def _scaled(coordinates: DoubleArray) -> tuple[DoubleArray, DoubleArray, float]:
    """Return coordinates around 0, at most 1, so that float32 keeps their digits; their centre and extent."""
    centre = coordinates.mean(axis=0)
    extent = float(np.abs(coordinates - centre).max()) or 1.0
    return (coordinates - centre) / extent, centre, extent


def _tensor(values: DoubleArray, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(like.device)
