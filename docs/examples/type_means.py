"""A toy imputation method: each spatial cell gets the mean expression of the cell types that it resembles."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellweft import Pair


def unit_rows(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return rows centred and scaled to length 1, so that their products are correlations."""
    centred = values - values.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return centred / np.where(length > 0, length, 1.0)


@dataclass
class TypeMeans:
    """Mean expression of the most similar types, weighted by ``exp(sharpness * correlation)``."""

    sharpness: float = 20.0

    def fit(self, pair: Pair) -> TypeMeans:
        """Learn the mean expression of every type of the reference."""
        types, code = np.unique(pair.labels, return_inverse=True)
        values = pair.sc.dense(slice(None), np.arange(pair.sc.n_genes))  # n_reference_cells x n_genes
        self.means_ = np.stack([values[code == number].mean(axis=0) for number in range(len(types))])
        return self

    def predict(self, genes: Iterable[str], pair: Pair) -> NDArray[np.float32]:
        """Return log-normalised values, n_spatial_cells x n_genes, for the named genes."""
        measured = pair.st.dense(slice(None), pair.st_shared)  # n_spatial_cells x n_panel
        panel_means = self.means_[:, pair.sc_shared]  # n_types x n_panel
        weights = np.exp(self.sharpness * (unit_rows(measured) @ unit_rows(panel_means).T))
        weights /= weights.sum(axis=1, keepdims=True)  # n_spatial_cells x n_types
        return (weights @ self.means_[:, pair.find_genes(genes)]).astype(np.float32)
