"""What the simple methods of placing find: cells mapped to spots, or spots with a composition alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from weft._compute import BLOCK_BYTES, READ_ROWS, numpy_stream, row_blocks, rows_within
from weft._errors import check_range
from weft._typing import DoubleArray, IntArray
from weft.data.needs import Labels, coordinates_of, labels_of
from weft.data.pair import Pair
from weft.data.sparse import by_rows, row_shares

Weights: TypeAlias = Literal["variance", "uniform"]
"""How much genes count in a fit: by one over their variance over the cells, or all the same."""

_SHAKE = 1e-9  # of the tissue's extent: tells cells at one place apart, and moves no other


@dataclass(frozen=True, kw_only=True, eq=False)
class MappedCells:
    """Cells with places, each mapped to a few spots.

    Attributes
    ----------
    pair
        The cells and spots.
    places
        (n_cells, 2 or 3)
    mapping
        (n_cells, n_spots) share of each cell in each spot.
    first
        (n_cells,) the spot that each cell is mapped to most; its slice is the cell's.
    seed
        Of the draws that tell cells at one place apart.
    """

    pair: Pair
    places: DoubleArray
    mapping: sp.csr_matrix
    first: IntArray
    seed: int

    def coordinates(self) -> DoubleArray:
        """Return the place of every cell, (n_cells, 2 or 3), in the unit of the spots' coordinates."""
        return self.places

    def deconvolve(self, labels: Labels = None) -> pd.DataFrame:
        """Return the share of each type among the cells that are mapped to each spot.

        Parameters
        ----------
        labels
            Types of the cells: a column of their ``obs``, (n_cells,) values, or None for ``pair.labels``.

        Returns
        -------
        (n_spots, n_types), types sorted, rows summing to 1. A spot without any cell gets the shares of the
        types among all cells.

        Raises
        ------
        KeyMissingError, InputError
            No such labels, or not one for each cell.

        Notes
        -----
        Rows of the mapping summed by type, as in "Performance evaluation" of Hao et al. 2024 (STEM), and then
        each spot brought to 1.
        """
        types, codes = np.unique(labels_of(self.pair, labels), return_inverse=True)
        is_type = by_rows(np.ones((len(codes), 1)), codes[:, None], n_columns=len(types))
        mass = (self.mapping.T @ is_type).toarray()  # n_spots x n_types
        return _shares(mass, self.pair, types, codes)

    def neighbors(self, k: int) -> sp.csr_matrix:
        """Return the ``k`` cells that were placed nearest to each cell, in its slice as far as there are any.

        Parameters
        ----------
        k
            From 1 to all other cells.

        Returns
        -------
        (n_cells, n_cells), ``k`` entries a row: 1 / (1 + distance in spot spacings). Which of the cells at
        one place are taken is drawn at random: their order in the file may tell where they lived.

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
        found, values = np.empty((n_cells, k), dtype=np.int64), np.empty((n_cells, k))
        for rows in row_blocks(n_cells, rows_within(BLOCK_BYTES, 32 * (k + 1))):
            distances, nearest = map(np.asarray, tree.query(places[rows], k=k + 1))  # b x (k + 1)
            is_self = nearest == np.arange(rows.start, rows.stop)[:, None]
            is_self[~is_self.any(axis=1), -1] = True  # too many cells at one place: any k of them will do
            found[rows] = nearest[~is_self].reshape(-1, k)
            values[rows] = 1 / (1 + distances[~is_self].reshape(-1, k) / spacing)
        return by_rows(values, found, n_columns=n_cells)

    def _apart(self) -> DoubleArray:
        """Return the places with no two cells at the very same one, and slices far from each other."""
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
    """Spots whose composition is fitted to the mean profiles of cell types; cells are not placed.

    Attributes
    ----------
    pair
        The cells and spots.
    weights
        How much genes count.
    """

    pair: Pair
    weights: Weights

    def coordinates(self) -> None:
        """Return None: no cell is placed."""

    def neighbors(self, k: int) -> None:
        """Return None, whatever ``k``: no cell is placed."""

    def deconvolve(self, labels: Labels = None) -> pd.DataFrame:
        """Return the composition of each spot that fits its profile best.

        Parameters
        ----------
        labels
            Types of the cells: a column of their ``obs``, (n_cells,) values, or None for ``pair.labels``.

        Returns
        -------
        (n_spots, n_types), types sorted, rows summing to 1. A spot that no type fits gets the shares of the
        types among all cells.

        Raises
        ------
        KeyMissingError, InputError
            No such labels, or not one for each cell.

        Notes
        -----
        Profiles are means over the cells of a type of the normalised counts (not their logarithms) of the
        shared genes, each profile brought to sum 1.
        """
        from scipy.optimize import nnls

        types, codes = np.unique(labels_of(self.pair, labels), return_inverse=True)
        profiles, spread = self._profiles(codes, n_types=len(types))  # n_types x n_shared, n_shared
        scale = np.ones_like(spread)
        if self.weights == "variance":
            scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 0)
        # least squares over genes are those over the rows of R, which are as few as the types
        q, r = np.linalg.qr(profiles.T * scale[:, None])  # n_shared x n_rows, n_rows x n_types
        fitted = np.zeros((self.pair.st.n_cells, len(types)))
        for rows in row_blocks(self.pair.st.n_cells, READ_ROWS):
            spots = np.expm1(self.pair.st.dense(rows, self.pair.st_shared).astype(np.float64))
            for place, projected in zip(range(rows.start, rows.stop), (spots * scale) @ q, strict=True):
                fitted[place] = nnls(r, projected)[0]
        return _shares(fitted, self.pair, types, codes)

    def _profiles(self, codes: IntArray, *, n_types: int) -> tuple[DoubleArray, DoubleArray]:
        """Return the mean profile of each type, summing to 1, and each gene's deviation over the cells."""
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
    """Return rows of sum 1 as a table; where there is nothing, the shares of the types among all cells."""
    overall = np.bincount(codes, minlength=len(types)) / len(codes)
    return pd.DataFrame(row_shares(mass, overall), index=pair.st.obs_names, columns=pd.Index(types.tolist()))
