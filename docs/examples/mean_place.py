"""A toy placement method: each cell gets the weighted mean position of the spots that it resembles most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.neighbors import kneighbors_graph
from sklearn.preprocessing import StandardScaler

from cellweft import Pair


@dataclass
class Placed:
    """The result of ``place``: cells with positions."""

    pair: Pair
    weights: NDArray[np.float64]  # n_cells x n_spots, rows sum to 1

    def coordinates(self) -> NDArray[np.float64]:
        """Return the position of every cell, n_cells x 2 (or 3), in the unit of the spots' coordinates."""
        return self.weights @ self.pair.coordinates

    def deconvolve(self, labels: NDArray[np.str_] | None = None) -> pd.DataFrame:
        """Return the share of each type in each spot, n_spots x n_types; rows sum to 1."""
        labels = self.pair.labels if labels is None else labels
        types = np.unique(labels)
        share = np.stack([self.weights[labels == name].sum(axis=0) for name in types], axis=1) + 1e-12
        share /= share.sum(axis=1, keepdims=True)
        return pd.DataFrame(share, index=self.pair.st.obs_names, columns=types)

    def neighbors(self, k: int) -> sp.csr_matrix:
        """Return the ``k`` nearest cells of each, n_cells x n_cells; the nearest has the largest value."""
        graph = kneighbors_graph(self.coordinates(), k, mode="distance")
        graph.data = 1 / (1 + graph.data)
        return sp.csr_matrix(graph)


@dataclass
class MeanPlace:
    """Softmax over the spots of the mean product of standardised values of the shared genes."""

    sharpness: float = 10.0

    def fit(self, pair: Pair) -> MeanPlace:
        """Store the cells and spots. This toy learns nothing else."""
        self.pair_ = pair
        return self

    def place(self) -> Placed:
        """Place every cell of the pair."""
        pair = self.pair_
        cells = StandardScaler().fit_transform(pair.sc.dense(slice(None), pair.sc_shared))
        spots = StandardScaler().fit_transform(pair.st.dense(slice(None), pair.st_shared))
        score = self.sharpness * (cells @ spots.T).astype(np.float64) / cells.shape[1]  # n_cells x n_spots
        weights = np.exp(score - score.max(axis=1, keepdims=True))
        return Placed(pair=pair, weights=weights / weights.sum(axis=1, keepdims=True))
