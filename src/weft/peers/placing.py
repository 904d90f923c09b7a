"""Methods that place cells: what each must do, simple ones that every other must beat, and all by name.

A baseline is called as ``baseline(pair, seed=0)``, with settings of its own, and gives what `Placed` says.
Cells and spots are compared by the log-normalised values of the shared genes, each side as `weft.pair` has
normalised it. Work goes by blocks of cells; nothing of the size cells x spots is held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, cast, runtime_checkable

import numpy as np
import pandas as pd
import scipy.sparse as sp

from weft._compute import BLOCK_BYTES, numpy_stream, row_blocks, rows_within
from weft._errors import NotFittedError, check_choice, check_range
from weft._typing import DoubleArray, IntArray, PlacerPreset
from weft.data.needs import Labels, coordinates_of
from weft.data.pair import Pair
from weft.data.sparse import by_rows
from weft.peers.baselines import Directions, Space
from weft.peers.methods import (
    Method,
    Setting,
    check_object,
    check_settings,
    copier,
    labelled_methods,
    parse_method,
)
from weft.peers.placed import FittedSpots, MappedCells, Weights

PRESETS: tuple[PlacerPreset, ...] = ("auto", "stem")


@runtime_checkable
class Placed(Protocol):
    """Cells that a method has placed; `weft.placement.Placement` is one."""

    def coordinates(self) -> DoubleArray | None:
        """Return the place of every cell, (n_cells, 2 or 3); None where the method places none."""

    def deconvolve(self, labels: Labels = None) -> pd.DataFrame:
        """Return the share of each type of cell in each spot, (n_spots, n_types); rows sum to 1."""

    def neighbors(self, k: int) -> sp.csr_matrix | None:
        """Return ``k`` others of each cell, the nearest with the largest values; or None."""


@runtime_checkable
class PlaceMethod(Protocol):
    """What a method must do to have its placement evaluated; `weft.Placer` does, and so may yours."""

    def fit(self, pair: Pair) -> PlaceMethod:
        """Learn from the cells and the spots; return what places."""

    def place(self) -> Placed:
        """Place the cells of the pair."""


def best_cosine(pair: Pair, *, seed: int = 0, space: Space = "log") -> Placed:
    """Place every cell on the spot that is most similar by cosine.

    Parameters
    ----------
    pair
        Cells, and spots with coordinates.
    seed
        For the neighbours among cells at one place.
    space
        ``"log"`` compares log-normalised values, ``"zscore"`` their z-scores.

    Raises
    ------
    SettingError
        ``space`` is another.
    KeyMissingError
        The spots have no coordinates.

    Notes
    -----
    Where a spot is the sum of a few of the very cells that are placed, as in a semi-simulation, this is hard
    to beat.
    """
    return knn_regression(pair, seed=seed, k=1, space=space)


def knn_regression(pair: Pair, *, seed: int = 0, k: int = 5, space: Space = "log") -> Placed:
    """Place every cell in the middle of the ``k`` spots that are most similar by cosine.

    Parameters
    ----------
    pair
        Cells, and spots with coordinates.
    seed
        For the neighbours among cells at one place.
    k
        Spots, from 1 to all. Those in another slice than the best one do not count.
    space
        ``"log"`` compares log-normalised values, ``"zscore"`` their z-scores.

    Raises
    ------
    SettingError
        ``k`` or ``space`` out of range.
    KeyMissingError
        The spots have no coordinates.
    """
    places = coordinates_of(pair)
    check_range("k", k, low=1, high=len(places), integer=True)
    best = _similar_spots(pair, k, space)  # n_cells x k
    weights = np.ones(best.shape)
    if pair.slices is not None:
        weights[pair.slices[best] != pair.slices[best[:, :1]]] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    mapping = by_rows(weights, best, n_columns=len(places))
    return MappedCells(
        pair=pair, places=np.asarray(mapping @ places), mapping=mapping, first=best[:, 0], seed=seed
    )


def random_spot(pair: Pair, *, seed: int = 0) -> Placed:
    """Place every cell on a spot drawn at random.

    Parameters
    ----------
    pair
        Cells, and spots with coordinates.
    seed
        Of the draws.

    Raises
    ------
    KeyMissingError
        The spots have no coordinates.
    """
    places = coordinates_of(pair)
    drawn = numpy_stream(seed, "random spots").integers(len(places), size=pair.sc.n_cells)
    mapping = by_rows(np.ones((len(drawn), 1)), drawn[:, None], n_columns=len(places))
    return MappedCells(pair=pair, places=places[drawn], mapping=mapping, first=drawn, seed=seed)


def tissue_centre(pair: Pair, *, seed: int = 0) -> Placed:
    """Place every cell at the mean place of the spots, or where there are slices, of the largest slice.

    Parameters
    ----------
    pair
        Cells, and spots with coordinates.
    seed
        For the neighbours: all cells are at one place.

    Raises
    ------
    KeyMissingError
        The spots have no coordinates.
    """
    places, n_cells = coordinates_of(pair), pair.sc.n_cells
    spots = np.arange(len(places))
    if pair.slices is not None:
        _, codes, sizes = np.unique(pair.slices, return_inverse=True, return_counts=True)
        spots = np.flatnonzero(codes == np.argmax(sizes))
    centre = np.repeat(places[spots].mean(axis=0)[None], n_cells, axis=0)
    first = np.full(n_cells, spots[0], dtype=np.int64)
    # no cell is nearer to one spot than the others are: none has a composition of its own
    nowhere = sp.csr_matrix((n_cells, len(places)), dtype=np.float64)
    return MappedCells(pair=pair, places=centre, mapping=nowhere, first=first, seed=seed)


def nnls_composition(pair: Pair, *, seed: int = 0, weights: Weights = "variance") -> Placed:
    """Fit the composition of every spot by non-negative least squares; place no cell.

    Parameters
    ----------
    pair
        Cells with types, and spots.
    seed
        Not used.
    weights
        ``"variance"`` lets genes count by one over their variance over the cells, so that the few that are
        expressed most do not decide alone; ``"uniform"`` all the same.

    Raises
    ------
    SettingError
        ``weights`` is another.
    """
    check_choice("weights", weights, ("variance", "uniform"))
    return FittedSpots(pair=pair, weights=weights)


PlaceBaseline: TypeAlias = Callable[..., Placed]
"""A function of (pair, seed=..., and settings of its own) as this module describes it."""

PLACERS: dict[str, PlaceBaseline] = {
    "cosine": best_cosine,
    "knn-regression": knn_regression,
    "random": random_spot,
    "centre": tissue_centre,
    "nnls": nnls_composition,
}
"""The baselines by the name that `weft.evaluate_placement` takes."""


@dataclass(kw_only=True)
class PlaceBaselineMethod:
    """A baseline of `PLACERS` with its settings, to be fitted like any other method."""

    name: str
    settings: dict[str, Setting] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        check_settings(self.name, self.settings, function=PLACERS[self.name])

    def fit(self, pair: Pair) -> PlaceBaselineMethod:
        """Keep the pair of cells and spots."""
        self.pair_ = pair
        return self

    def place(self) -> Placed:
        """Place the cells of the pair."""
        if not hasattr(self, "pair_"):
            raise NotFittedError(
                self.name, expected="a fitted method", got="one that is not", fix="Call fit(pair) first."
            )
        return PLACERS[self.name](self.pair_, seed=self.seed, **self.settings)


def resolve_placers(
    methods: Sequence[str | PlaceMethod], *, device: str = "auto"
) -> list[Method[PlaceMethod]]:
    """Return the methods that are meant, in order.

    Parameters
    ----------
    methods
        Names, of `PLACERS` or ``"auto"`` and ``"stem"`` for a `weft.Placer`, with settings as in
        ``"knn-regression:k=10"``; or unfitted objects that fit and place.
    device
        Given to the Placers that are named; objects stay as they are.

    Returns
    -------
    Each with a label of its own: the name as given; for an object its preset or class, numbered where it
    would stand twice.

    Raises
    ------
    SettingError
        No method, an unknown one, a setting that it does not have, or a name that stands twice.
    InputError
        An object that cannot fit and place.
    """

    def named(spec: str) -> Callable[[int], PlaceMethod]:
        return _maker(spec, device=device)

    def own(method: object) -> Callable[[int], PlaceMethod]:
        check_object(method, PlaceMethod, acts="fit(pair) and place()")
        return copier(cast(PlaceMethod, method))

    return labelled_methods(methods, named=named, own=own, example="['auto', 'cosine']")


def _maker(spec: str, *, device: str) -> Callable[[int], PlaceMethod]:
    name, settings = parse_method(spec, known=(*PRESETS, *PLACERS))
    preset = next((one for one in PRESETS if one == name), None)

    def make(seed: int) -> PlaceMethod:
        if preset is None:
            return PlaceBaselineMethod(name=name, settings=settings, seed=seed)
        from weft.placer import Placer  # here, for it brings torch

        return Placer(preset=preset, settings=settings, seed=seed, device=device)

    return make


def _similar_spots(pair: Pair, k: int, space: Space) -> IntArray:
    """Return the ``k`` spots of the largest cosine for every cell, the largest first, n_cells x k."""
    check_choice("space", space, ("log", "zscore"))
    to_spots = Directions.of(pair.st, pair.st_shared, space)
    to_cells = Directions.of(pair.sc, pair.sc_shared, space)
    n_cells, n_spots = pair.sc.n_cells, pair.st.n_cells
    spots = to_spots.rows(pair.st.dense(slice(0, n_spots), pair.st_shared))  # n_spots x n_shared
    best = np.empty((n_cells, k), dtype=np.int64)
    # cosines, their order in int64, and one copy on the way
    for rows in row_blocks(n_cells, rows_within(BLOCK_BYTES, 16 * n_spots)):
        cosine = to_cells.rows(pair.sc.dense(rows, pair.sc_shared)) @ spots.T  # b x n_spots
        found = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(cosine, found, axis=1), axis=1, kind="stable")
        best[rows] = np.take_along_axis(found, order, axis=1)
    return best
