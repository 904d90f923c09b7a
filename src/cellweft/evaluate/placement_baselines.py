"""Methods that place cells: their interface, simple baselines, and all methods by name.

A baseline is called as ``baseline(pair, seed=0)``, with its own settings, and returns an object with the
interface of `Placed`. Cells and spots are compared by log-normalised values of the shared genes, each side as
normalised by `cellweft.pair`. Computations use blocks of cells, without a matrix of cells x spots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, cast, runtime_checkable

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cellweft._compute import BLOCK_BYTES, READ_ROWS, numpy_stream, row_blocks, rows_within
from cellweft._errors import check_choice, check_range
from cellweft._statistics import row_shares
from cellweft._typing import DoubleArray, IntArray, PlacerPreset
from cellweft.data._pair import Labels, Pair, coordinates_of, labels_of
from cellweft.evaluate.imputation_baselines import Directions, Space
from cellweft.evaluate.methods import Baseline, Method, Setting, labelled_methods
from cellweft.place.cell_graph import by_rows

Weights: TypeAlias = Literal["variance", "uniform"]
"""Weights of genes in a fit: the inverse of their variance over the cells, or equal weights."""
_SHAKE = 1e-9  # relative to the tissue's extent: separates cells at one position without moving others


@dataclass(frozen=True, kw_only=True, eq=False)
class MappedCells:
    """Cells with positions, each mapped to a few spots.

    Attributes
    ----------
    pair
        The cells and spots.
    places
        (n_cells, 2 or 3)
    mapping
        (n_cells, n_spots) share of each cell in each spot.
    first
        (n_cells,) the spot with the largest share of each cell; it determines the cell's slice.
    seed
        Seed for separating cells at the same position.
    """

    pair: Pair
    places: DoubleArray
    mapping: sp.csr_matrix
    first: IntArray
    seed: int

    def coordinates(self) -> DoubleArray:
        """Return the position of each cell, (n_cells, 2 or 3), in the unit of the spots' coordinates."""
        return self.places

    def deconvolve(self, labels: Labels = None) -> pd.DataFrame:
        """Return the share of each type among the cells mapped to each spot.

        Parameters
        ----------
        labels
            Types of the cells: a column of their ``obs``, (n_cells,) values, or None for ``pair.labels``.

        Returns
        -------
        (n_spots, n_types), with sorted types and rows that sum to 1. A spot without cells gets the shares of
        the types among all cells.

        Raises
        ------
        KeyMissingError, InputError
            There are no such labels, or not one per cell.

        Notes
        -----
        Rows of the mapping are summed by type, as in "Performance evaluation" of Hao et al. 2024 (STEM), and
        each spot is then normalised to 1.
        """
        types, codes = np.unique(labels_of(self.pair, labels), return_inverse=True)
        is_type = by_rows(np.ones((len(codes), 1)), codes[:, None], n_columns=len(types))
        mass = (self.mapping.T @ is_type).toarray()  # n_spots x n_types
        return _shares(mass, self.pair, types, codes)

    def neighbors(self, k: int) -> sp.csr_matrix:
        """Return the ``k`` cells placed nearest to each cell, from its own slice if there are enough.

        Parameters
        ----------
        k
            From 1 to all other cells.

        Returns
        -------
        (n_cells, n_cells) with ``k`` entries per row: 1 / (1 + distance in spot spacings). Among cells at the
        same position, the choice is random, because their order in the file may depend on their position.

        Raises
        ------
        SettingError
            ``k`` out of range.
        """
        n_cells = len(self.places)
        check_range("k", k, low=1, high=n_cells - 1, integer=True)
        places = self._apart()
        spacing = self.pair.spacing or 1.0
        tree = cKDTree(places)
        neighbors, values = np.empty((n_cells, k), dtype=np.int64), np.empty((n_cells, k))
        for rows in row_blocks(n_cells, rows_within(BLOCK_BYTES, 32 * (k + 1))):
            distances, nearest = map(np.asarray, tree.query(places[rows], k=k + 1))  # b x (k + 1)
            is_self = nearest == np.arange(rows.start, rows.stop)[:, None]
            is_self[~is_self.any(axis=1), -1] = True  # too many cells at one position: use any k of them
            neighbors[rows] = nearest[~is_self].reshape(-1, k)
            values[rows] = 1 / (1 + distances[~is_self].reshape(-1, k) / spacing)
        return by_rows(values, neighbors, n_columns=n_cells)

    def _apart(self) -> DoubleArray:
        """Return positions without ties, and with slices far from each other."""
        extent = float(np.ptp(coordinates_of(self.pair), axis=0).max()) or 1.0
        stream = numpy_stream(self.seed, "cells at one place")
        places = self.places - self.places.mean(axis=0)
        places = places + _SHAKE * extent * stream.standard_normal(places.shape)
        if self.pair.slices is not None:
            _, codes = np.unique(self.pair.slices, return_inverse=True)
            places[:, 0] += 10 * extent * codes[self.first]
        return np.asarray(places)


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedSpots:
    """Spots with a composition fitted to mean profiles of cell types; cells are not placed.

    Attributes
    ----------
    pair
        The cells and spots.
    weights
        Weights of genes.
    """

    pair: Pair
    weights: Weights

    def coordinates(self) -> None:
        """Return None, because cells are not placed."""

    def neighbors(self, k: int) -> None:
        """Return None for any ``k``, because cells are not placed."""

    def deconvolve(self, labels: Labels = None) -> pd.DataFrame:
        """Return the composition that best fits the profile of each spot.

        Parameters
        ----------
        labels
            Types of the cells: a column of their ``obs``, (n_cells,) values, or None for ``pair.labels``.

        Returns
        -------
        (n_spots, n_types), with sorted types and rows that sum to 1. A spot that fits no type gets the shares
        of the types among all cells.

        Raises
        ------
        KeyMissingError, InputError
            There are no such labels, or not one per cell.

        Notes
        -----
        Profiles are means of normalised counts (not their logarithms) of the shared genes over the cells of a
        type, normalised to a sum of 1.
        """
        from scipy.optimize import nnls

        types, codes = np.unique(labels_of(self.pair, labels), return_inverse=True)
        profiles, spread = self._profiles(codes, n_types=len(types))  # n_types x n_shared, n_shared
        scale = np.ones_like(spread)
        if self.weights == "variance":
            scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
        # least squares over genes equals that over the rows of R, which are as few as the types
        q, r = np.linalg.qr(profiles.T * scale[:, None])  # n_shared x n_rows, n_rows x n_types
        fitted = np.zeros((self.pair.st.n_cells, len(types)))
        for rows in row_blocks(self.pair.st.n_cells, READ_ROWS):
            spots = np.expm1(self.pair.st.dense(rows, self.pair.st_shared).astype(np.float64))
            for place, projected in zip(range(rows.start, rows.stop), (spots * scale) @ q, strict=True):
                fitted[place] = nnls(r, projected)[0]
        return _shares(fitted, self.pair, types, codes)

    def _profiles(self, codes: IntArray, *, n_types: int) -> tuple[DoubleArray, DoubleArray]:
        """Return the mean profile of each type, with sum 1, and each gene's standard deviation over cells."""
        from sklearn.preprocessing import StandardScaler

        sc, genes = self.pair.sc, self.pair.sc_shared
        total, moments = np.zeros((n_types, len(genes))), StandardScaler()
        for rows in row_blocks(sc.n_cells, READ_ROWS):
            values = np.expm1(sc.dense(rows, genes).astype(np.float64))
            moments.partial_fit(values)
            is_type = by_rows(np.ones((len(values), 1)), codes[rows, None], n_columns=n_types)
            total += is_type.T @ values
        sums = total.sum(axis=1, keepdims=True)
        return total / np.where(sums > 0, sums, 1.0), np.sqrt(moments.var_)


def _shares(mass: DoubleArray, pair: Pair, types: NDArray[np.str_], codes: IntArray) -> pd.DataFrame:
    """Return rows with sum 1 as a table; empty rows become the shares of the types among all cells."""
    overall = np.bincount(codes, minlength=len(types)) / len(codes)
    return pd.DataFrame(row_shares(mass, overall), index=pair.st.obs_names, columns=pd.Index(types.tolist()))


PRESETS: tuple[PlacerPreset, ...] = ("auto", "stem")


@runtime_checkable
class Placed(Protocol):
    """The interface of placed cells; `cellweft.Placement` has it."""

    def coordinates(self) -> DoubleArray | None:
        """Return the position of each cell, (n_cells, 2 or 3); None if the method does not place cells."""

    def deconvolve(self, labels: Labels = None) -> pd.DataFrame:
        """Return the share of each type of cell in each spot, (n_spots, n_types); rows sum to 1."""

    def neighbors(self, k: int) -> sp.csr_matrix | None:
        """Return ``k`` neighbours of each cell, the nearest with the largest values, or None."""


@runtime_checkable
class PlaceMethod(Protocol):
    """The interface of placement methods; `cellweft.Placer` has it, and your own method may have it."""

    def fit(self, pair: Pair) -> PlaceMethod:
        """Learn from the cells and the spots; return the fitted method."""

    def place(self) -> Placed:
        """Place the cells of the pair."""


def best_cosine(pair: Pair, *, seed: int = 0, space: Space = "log") -> Placed:
    """Place each cell on the most similar spot, by cosine.

    Parameters
    ----------
    pair
        Cells, and spots with coordinates.
    seed
        Seed for neighbours among cells at the same position.
    space
        ``"log"`` compares log-normalised values, ``"zscore"`` their z-scores.

    Raises
    ------
    SettingError
        ``space`` is unknown.
    KeyMissingError
        The spots have no coordinates.

    Notes
    -----
    If spots are sums of the same cells that are placed, as in a semi-simulation, this is hard to beat.
    """
    return knn_regression(pair, seed=seed, k=1, space=space)


def knn_regression(pair: Pair, *, seed: int = 0, k: int = 5, space: Space = "log") -> Placed:
    """Place each cell at the mean position of the ``k`` most similar spots, by cosine.

    Parameters
    ----------
    pair
        Cells, and spots with coordinates.
    seed
        Seed for neighbours among cells at the same position.
    k
        Number of spots, from 1 to all. Spots in another slice than the best one are ignored.
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
    """Place each cell on a random spot.

    Parameters
    ----------
    pair
        Cells, and spots with coordinates.
    seed
        Seed of the draws.

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
    """Place each cell at the mean position of the spots or, with several slices, of the largest slice.

    Parameters
    ----------
    pair
        Cells, and spots with coordinates.
    seed
        Seed for neighbours, as all cells are at the same position.

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
    # all cells are mapped equally to all spots, so all spots have the same composition
    nowhere = sp.csr_matrix((n_cells, len(places)), dtype=np.float64)
    return MappedCells(pair=pair, places=centre, mapping=nowhere, first=first, seed=seed)


def nnls_composition(pair: Pair, *, seed: int = 0, weights: Weights = "variance") -> Placed:
    """Fit the composition of each spot by non-negative least squares, without placing cells.

    Parameters
    ----------
    pair
        Cells with types, and spots.
    seed
        Not used.
    weights
        ``"variance"`` weights genes by the inverse of their variance over the cells, so that a few highly
        expressed genes do not dominate; ``"uniform"`` weights them equally.

    Raises
    ------
    SettingError
        ``weights`` is unknown.
    """
    check_choice("weights", weights, ("variance", "uniform"))
    return FittedSpots(pair=pair, weights=weights)


PlaceBaseline: TypeAlias = Callable[..., Placed]
"""A function of (pair, seed=..., own settings); see this module."""
PLACERS: dict[str, PlaceBaseline] = {
    "cosine": best_cosine,
    "knn-regression": knn_regression,
    "random": random_spot,
    "centre": tissue_centre,
    "nnls": nnls_composition,
}
"""The baselines, by their name in `cellweft.evaluate_placement`."""


@dataclass(kw_only=True)
class PlaceBaselineMethod(Baseline):
    """A baseline of `PLACERS` with its settings, with the interface of a method."""

    functions = PLACERS

    def place(self) -> Placed:
        """Place the cells of the pair."""
        return PLACERS[self.name](self.fitted_pair, seed=self.seed, **self.settings)


def resolve_placers(
    methods: Sequence[str | PlaceMethod], *, device: str = "auto"
) -> list[Method[PlaceMethod]]:
    """Return the requested methods, in order.

    Parameters
    ----------
    methods
        Names, of `PLACERS` or ``"auto"`` and ``"stem"`` for a `cellweft.Placer`, with settings as in
        ``"knn-regression:k=10"``; or unfitted objects that fit and place.
    device
        Passed to Placers given by name; objects are not changed.

    Returns
    -------
    Methods with unique labels: the name as given; for an object, its preset or class, numbered if it occurs
    twice.

    Raises
    ------
    SettingError
        There is no method, an unknown method or setting, or a duplicate name.
    InputError
        An object does not have ``fit`` and ``place``.
    """

    def placer(name: str, settings: dict[str, Setting], seed: int) -> PlaceMethod:
        from cellweft.place.placer import Placer

        return Placer(preset=cast(PlacerPreset, name), settings=settings, seed=seed, device=device)

    return labelled_methods(
        methods,
        presets=PRESETS,
        preset=placer,
        baseline=PlaceBaselineMethod,
        kind=PlaceMethod,
        acts="fit(pair) and place()",
        example="['auto', 'cosine']",
    )


def _similar_spots(pair: Pair, k: int, space: Space) -> IntArray:
    """Return the ``k`` spots with the largest cosine for each cell, the largest first, n_cells x k."""
    check_choice("space", space, ("log", "zscore"))
    to_spots = Directions.of(pair.st, pair.st_shared, space)
    to_cells = Directions.of(pair.sc, pair.sc_shared, space)
    n_cells, n_spots = pair.sc.n_cells, pair.st.n_cells
    spots = to_spots.rows(pair.st.dense(slice(0, n_spots), pair.st_shared))  # n_spots x n_shared
    best = np.empty((n_cells, k), dtype=np.int64)
    # cosines, their order in int64, and one temporary copy
    for rows in row_blocks(n_cells, rows_within(BLOCK_BYTES, 16 * n_spots)):
        cosine = to_cells.rows(pair.sc.dense(rows, pair.sc_shared)) @ spots.T  # b x n_spots
        candidates = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(cosine, candidates, axis=1), axis=1, kind="stable")
        best[rows] = np.take_along_axis(candidates, order, axis=1)
    return best
