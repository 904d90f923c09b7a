"""Positions of cells from a mapping: slice, mean and median of the possible positions, spread, and radius."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from cellweft._compute import numpy_of, row_blocks
from cellweft._typing import DoubleArray, FloatArray, IntArray
from cellweft.nn.clustered_mapping import AnyMapping, CoarseMapping, largest, make_mapping, visits_of
from cellweft.nn.mapping import Mapping

FLATTEN = 0.6
"""Factor on log weights for the median and the radius, because the encoders are overconfident.

It is the same for all data; docs/stem.md describes how it was chosen.
"""

KEPT_SPOTS = 64
"""Number of spots per cell that are kept with their weights; more are computed again on request."""

MEDIAN_SPOTS = 500
"""Number of spots, those with the largest weights, in the geometric median of a cell."""

MEDIAN_SPOTS_COARSE = 128
"""The same for mappings in which distant spots are summarised by groups."""

_MEDIAN_STEPS = 20
_BINS = 1024  # of distances, narrow near the position and wide far from it
_ROWS = 2048  # cells with bins in memory: 8 MB per number
_BLOCK_ENTRIES = 2**19  # weights in memory with their distances and bins, of 8 bytes


def encoder_mappings(
    mapping: AnyMapping, n_encoders: int, n_encoded: int, *, flatten: float = FLATTEN
) -> list[Mapping]:
    """Return the mapping of each encoder, from embeddings in which several encoders are concatenated.

    Parameters
    ----------
    mapping
        Geometric mean of the encoders' mappings: queries are concatenated and divided by the number of
        encoders, keys are concatenated.
    n_encoders
        Number of encoders.
    n_encoded
        Number of columns of the encoders. The columns after them, evidence from expression, are added to each
        encoder.
    flatten
        Factor on the log weights, above 0; values below 1 flatten the weights.
    """

    def apart(rows: torch.Tensor) -> list[torch.Tensor]:
        encoded, evidence = rows[:, :n_encoded], rows[:, n_encoded:]
        return [torch.cat([own, evidence], dim=1) for own in encoded.tensor_split(n_encoders, dim=1)]

    scale = torch.ones(mapping.queries.shape[1], device=mapping.queries.device)
    scale[:n_encoded] = n_encoders
    queries, keys = apart(mapping.queries * scale), apart(mapping.keys)
    whole = mapping
    if isinstance(whole, CoarseMapping):
        whole = Mapping(queries=whole.queries, keys=whole.keys)
    parts = [replace(whole, queries=query, keys=key) for query, key in zip(queries, keys, strict=True)]
    return [_part(part, slice(None), flatten=flatten) for part in parts]


@dataclass(frozen=True, kw_only=True, eq=False)
class Places:
    """Positions of cells from a mapping, with their uncertainty and largest weights.

    Attributes
    ----------
    mean
        (n_cells, 2 or 3) mean position, C Y.
    median
        (n_cells, 2 or 3) geometric median of the positions to which a cell is mapped.
    spread
        (n_cells,) root mean squared distance of a cell's possible positions from their mean.
    entropy
        (n_cells,) entropy of the weights, in nats.
    weights, spots
        (n_cells, k) the largest weights, largest first, float32, and the positions of their spots, int32.
    """

    mean: DoubleArray
    median: DoubleArray
    spread: DoubleArray
    entropy: DoubleArray
    weights: FloatArray
    spots: NDArray[np.int32]


def find_places(
    mapping: AnyMapping,
    coordinates: DoubleArray,
    *,
    spacing: float,
    keep: int = KEPT_SPOTS,
    heaviest: int | None = None,
    flatten: float = FLATTEN,
) -> Places:
    """Return all summaries of a mapping's rows, computed in one pass.

    Parameters
    ----------
    mapping
        Mapping of n_cells to n_spots.
    coordinates
        (n_spots, 2 or 3)
    spacing
        Spacing of the spots, above 0. A cell is assumed to be in the square (or cube) around its spot.
    keep
        Number of spots per cell to keep with their weights; fewer if there are fewer spots.
    heaviest
        Number of spots, those with the largest weights, in the median; by default `MEDIAN_SPOTS` or
        `MEDIAN_SPOTS_COARSE`.
    flatten
        Factor on the log weights for the median, above 0.

    Notes
    -----
    The geometric median minimises the expected distance, whereas the mean minimises the expected squared
    distance. A second possible position far away therefore has little effect on the median.
    """
    (n_cells, n_spots), n_axes = mapping.shape, coordinates.shape[1]
    there, centre, extent = _scaled(coordinates)
    both = _tensor(np.column_stack([there, (there**2).sum(axis=1)]), mapping.keys)
    groups = mapping.groups if isinstance(mapping, CoarseMapping) else None
    far_both = both[:0] if groups is None else groups.average(both)
    sizes = both.new_zeros(0) if groups is None else groups.sizes
    within = n_axes * (spacing / extent) ** 2 / 12
    usual = MEDIAN_SPOTS if groups is None else MEDIAN_SPOTS_COARSE
    keep, heaviest = min(keep, n_spots), min(usual if heaviest is None else heaviest, n_spots)
    means, medians, entropy = np.empty((n_cells, n_axes + 1)), np.empty((n_cells, n_axes)), np.empty(n_cells)
    weights, spots = np.empty((n_cells, keep), np.float32), np.empty((n_cells, keep), np.int32)
    for visit in visits_of(mapping, least=max(keep, heaviest)):
        rows, (near, far) = visit.rows.cpu().numpy(), visit.weights
        means[rows] = numpy_of(near @ both[visit.columns] + far @ far_both)
        entropy[rows] = numpy_of(visit.entropy(sizes))
        # By product, not by weight, because small weights are zero in float32.
        products, order = largest(visit.products, max(keep, heaviest))
        ordered = visit.columns[order]
        weights[rows] = near.gather(1, order[:, :keep]).cpu().numpy()
        spots[rows] = ordered[:, :keep].cpu().numpy()
        flat = torch.softmax(flatten * products[:, :heaviest], dim=1)
        medians[rows] = numpy_of(_medians(both[:, :-1][ordered[:, :heaviest]], flat, within=within))
    variance = means[:, -1] - (means[:, :-1] ** 2).sum(axis=1)
    return Places(
        mean=means[:, :-1] * extent + centre,
        median=medians * extent + centre,
        spread=np.sqrt(variance.clip(min=0)) * extent,
        entropy=entropy,
        weights=weights,
        spots=spots,
    )


def heaviest_of(mapping: AnyMapping, k: int) -> tuple[FloatArray, IntArray]:
    """Return the largest weights of each row of a mapping, and their positions.

    Parameters
    ----------
    mapping
        Mapping of n_rows to n_columns.
    k
        Number of weights; all if there are fewer.

    Returns
    -------
    weights, positions : ndarray
        Each (n_rows, k), largest first.
    """
    weights, indices = mapping.topk(min(k, mapping.shape[1]))
    return weights.cpu().numpy(), indices.cpu().numpy()


def sparse_weights(
    groups: list[tuple[IntArray, IntArray]],
    heaviest: list[tuple[FloatArray, NDArray[Any]]],
    *,
    shape: tuple[int, int],
) -> sp.csr_matrix:
    """Return the largest weights of all rows as a sparse matrix.

    Parameters
    ----------
    groups
        Rows and columns of each group; each group has its own mapping.
    heaviest
        Results of `heaviest_of` for each group, with positions within the group's columns.
    shape
        Shape of the matrix; a row belongs to at most one group.

    Examples
    --------
    >>> group = np.array([1]), np.array([0, 2])
    >>> heaviest = np.array([[0.7, 0.3]], dtype=np.float32), np.array([[1, 0]])
    >>> sparse_weights([group], [heaviest], shape=(2, 3)).toarray()
    array([[0. , 0. , 0. ],
           [0.3, 0. , 0.7]], dtype=float32)
    """
    counts = np.zeros(shape[0] + 1, dtype=np.int64)
    for (rows, _), (weights, _) in zip(groups, heaviest, strict=True):
        counts[rows + 1] = weights.shape[1]
    starts = np.cumsum(counts)
    values, places = np.empty(starts[-1], dtype=np.float32), np.empty(starts[-1], dtype=np.int32)
    for (rows, columns), (weights, positions) in zip(groups, heaviest, strict=True):
        into = starts[rows, None] + np.arange(weights.shape[1])
        values[into], places[into] = weights, columns[positions]
    return sp.csr_matrix((values, places, starts), shape=shape)


def _medians(places: torch.Tensor, weights: torch.Tensor, *, within: float) -> torch.Tensor:
    """Return weighted geometric medians, (n_rows, n_axes), of places, (n_rows, n_places, n_axes).

    Weiszfeld's iteration (1937), starting from the mean. Distances include the square around a spot, as in
    `place_radius`, so that none is 0.
    """
    axes = [axis.contiguous() for axis in places.unbind(dim=2)]  # each n_rows x n_places
    pulls = weights
    for _ in range(_MEDIAN_STEPS):
        total = pulls.sum(dim=1)
        middle = [(pulls * axis).sum(dim=1) / total for axis in axes]
        squares = torch.full_like(weights, within)
        for axis, median in zip(axes, middle, strict=True):
            squares += (axis - median[:, None]) ** 2
        pulls = weights * squares.rsqrt()
    return torch.stack(middle, dim=1)


def slices_of(cells: torch.Tensor, spots: torch.Tensor, groups: Iterable[IntArray]) -> IntArray:
    """Return the best slice of each cell: the one with the largest sum of exp(product).

    Parameters
    ----------
    cells, spots
        (n_cells, n_latent) and (n_spots, n_latent) embeddings.
    groups
        Positions of the spots of every slice.

    Returns
    -------
    (n_cells,) indices of slices; 0, the first, for cells with a zero embedding.
    """
    groups = list(groups)
    if len(groups) == 1:
        return np.zeros(len(cells), dtype=np.int64)
    totals = [
        make_mapping(cells, spots[torch.from_numpy(group).to(spots.device)]).log_total for group in groups
    ]
    best = torch.stack(totals, dim=1).argmax(dim=1) * cells.any(dim=1)
    return np.asarray(best.cpu().numpy(), dtype=np.int64)


def place_radius(
    mappings: list[Mapping], coordinates: DoubleArray, places: DoubleArray, *, share: float, spacing: float
) -> DoubleArray:
    """Return the radius around each position that contains a share of the cell's possible positions.

    Parameters
    ----------
    mappings
        One or several mappings of n_cells to n_spots; possible positions are drawn equally from each.
    coordinates
        (n_spots, 2 or 3)
    places
        (n_cells, 2 or 3) centres of the radii.
    share
        Share of possible positions, above 0 and below 1.
    spacing
        Spacing of the spots. A cell is assumed to be in the square (or cube) around its spot.

    Returns
    -------
    (n_cells,) in the unit of the coordinates, at least 0.

    Notes
    -----
    The radius is a quantile of the distances, weighted by spot. Distances are counted in bins, so that rows
    are not stored; bin indices are proportional to the root of the distance, and quantiles are interpolated
    within a bin. The square around a spot adds its mean squared distance from the centre to the squared
    distance.
    """
    there, centre, extent = _scaled(coordinates)
    around = (places - centre) / extent
    within = coordinates.shape[1] * (spacing / extent) ** 2 / 12  # of a square with this side
    spots, cells = (_tensor(points, mappings[0].keys) for points in (there, around))
    corner = float(np.max(np.abs(np.concatenate([there, around])), axis=0) @ np.ones(there.shape[1]))
    most = 2 * corner + np.sqrt(within)  # the largest possible distance
    radius = np.empty(len(places))
    for rows in row_blocks(len(places), _ROWS):
        mass = cells.new_zeros(rows.stop - rows.start, _BINS)
        for mapping in mappings:
            for some, columns, weights in _part(mapping, rows).blocks():
                squares = _squares(cells[rows][some], spots[columns]) + within
                bins = (squares.pow(0.25) * (_BINS / most**0.5)).long().clamp_(max=_BINS - 1)
                mass[some].scatter_add_(1, bins, weights)
        radius[rows] = _quantile(numpy_of(mass), share) * most * extent
    return radius


def _part(mapping: Mapping, rows: slice, *, flatten: float = 1.0) -> Mapping:
    """Return the mapping of some queries, with log weights multiplied by ``flatten``."""
    entries = min(mapping.block_entries, _BLOCK_ENTRIES)
    return Mapping(queries=mapping.queries[rows] * flatten, keys=mapping.keys, block_entries=entries)


def _quantile(mass: DoubleArray, share: float) -> DoubleArray:
    """Return where each row of bins reaches a share of its mass, 0 to 1; bin b starts at (b / n)^2."""
    below = np.cumsum(mass, axis=1)
    wanted = share * below[:, -1]
    bins = (below < wanted[:, None]).sum(axis=1).clip(max=_BINS - 1)
    rows = np.arange(len(mass))
    inside = mass[rows, bins]
    part = 1 - (below[rows, bins] - wanted) / np.where(inside > 0, inside, 1.0)
    low, high = (bins / _BINS) ** 2, ((bins + 1) / _BINS) ** 2
    return np.asarray(low + part.clip(0, 1) * (high - low))


def _squares(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return squared distances, summed over axes, because products lose digits for small distances."""
    squares = one.new_zeros(len(one), len(other))
    for axis in range(one.shape[1]):
        squares += (one[:, axis, None] - other[None, :, axis]) ** 2
    return squares


def _scaled(coordinates: DoubleArray) -> tuple[DoubleArray, DoubleArray, float]:
    """Return coordinates scaled to -1 to 1 for float32, with their centre and extent."""
    centre = coordinates.mean(axis=0)
    extent = float(np.abs(coordinates - centre).max()) or 1.0
    return (coordinates - centre) / extent, centre, extent


def _tensor(values: DoubleArray, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(like.device)
