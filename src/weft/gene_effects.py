"""By how much predictions of a gene err together: its shift, its slope, and its error in kinds of cells."""

from __future__ import annotations

import numpy as np
from scipy.special import log_ndtr, ndtri

from weft._typing import DoubleArray, IntArray

_SCORING_STEPS = 4
_MOST_SHARES = 0.95  # so that something is left for the single cell
_MOST = 3.0  # standard deviations that an effect, or what it multiplies, is away from 0


def effect_shares(
    predicted: DoubleArray,
    truth: DoubleArray,
    *,
    ranks: DoubleArray,
    zeros: DoubleArray,
    part_of: IntArray,
    n_components: int,
) -> DoubleArray:
    """Return the shares of the variance of normal scores that belong to genes: shift, slope, components.

    Parameters
    ----------
    predicted, truth
        (n_cells, n_panel) predictions of panel genes without them, and what was measured.
    ranks
        (n_cells, n_panel) where measured values fall in their distributions, 0 to 1.
    zeros
        (n_cells, n_panel) shares of zeros in these.
    part_of
        (n_panel,) genes that are left out of the panel together, when its components are made.
    n_components
        Of the panel.

    Returns
    -------
    (2 + n_components,) at least 0, and less than 1 together.

    Notes
    -----
    Every gene's scores are regressed on components of a panel without it; what chance gives to squared
    coefficients is taken off their mean over genes. The variance that is left for single cells is not known
    beforehand: it is first all, then what the first answer leaves.
    """
    n_cells, n_panel = ranks.shape
    shares = np.zeros(2 + n_components)
    if n_cells <= len(shares):
        return shares
    scores, cuts = (ndtri(one.clip(1e-4, 1 - 1e-4)) for one in (ranks, zeros))
    cuts[truth > 0] = np.nan
    known = {}
    for part in np.unique(part_of):
        panel = truth[:, part_of != part]
        centre, loadings = components(panel, n_components)
        known[part] = (panel - centre) @ loadings
    for _ in range(2):
        noise, total = 1 - shares.sum(), np.zeros(len(shares))
        for gene in range(n_panel):
            basis = basis_of(predicted[:, gene], known[part_of[gene]])
            total += _squared_effects(basis, scores[:, gene], cuts[:, gene], noise=noise)
        shares = (total / n_panel).clip(min=0)
        shares *= min(1.0, _MOST_SHARES / max(float(shares.sum()), 1e-12))
    return shares


def _squared_effects(
    basis: DoubleArray, scores: DoubleArray, cut: DoubleArray, *, noise: float
) -> DoubleArray:
    """Return squared effects of the columns of a basis on normal scores, without what chance gives.

    Parameters
    ----------
    basis
        (n_cells, n_effects), each column counting for what those before it leave.
    scores
        (n_cells,) of measured values.
    cut
        (n_cells,) NaN, or where zero was measured, what the score is below of: no more is known of it.
    noise
        Variance of the scores around their mean.

    Returns
    -------
    (n_effects,)

    Notes
    -----
    Fisher's scoring of a censored normal variable, from no effects on.
    """
    orthogonal = np.linalg.qr(basis)[0] * np.sqrt(len(basis))
    none, sd = ~np.isnan(cut), noise**0.5
    effects = np.zeros(basis.shape[1])
    for _ in range(_SCORING_STEPS):
        mean = orthogonal @ effects
        residual, weight = (scores - mean) / sd, np.ones(len(scores))
        below = ((cut[none] - mean[none]) / sd).clip(-6, 6)
        hazard = np.exp(-(below**2) / 2 - log_ndtr(below)) / np.sqrt(2 * np.pi)
        residual[none], weight[none] = -hazard, hazard * (hazard + below)
        information = (orthogonal * weight[:, None]).T @ orthogonal / noise + np.eye(len(effects))
        step = np.linalg.solve(information, orthogonal.T @ residual / sd - effects)
        effects = (effects + step).clip(-_MOST, _MOST)
    squares: DoubleArray = effects**2 - np.diag(np.linalg.inv(information))
    return squares


def basis_of(column: DoubleArray, known: DoubleArray) -> DoubleArray:
    """Return what a gene's effects multiply: 1, its standardised prediction, components of the cells."""
    own = (column - column.mean()) / max(column.std(), 1e-12) if len(column) else column
    return np.column_stack([np.ones(len(column)), own, known]).clip(-_MOST, _MOST)


def components(panel: DoubleArray, n_components: int) -> tuple[DoubleArray, DoubleArray]:
    """Return the mean of a panel (n_panel,), and what makes standard components of the rest."""
    centre = panel.mean(axis=0)
    rest = (panel - centre) / np.sqrt(len(panel))
    if rest.shape[1] <= rest.shape[0]:
        values, vectors = (one[..., ::-1] for one in np.linalg.eigh(rest.T @ rest))
    else:
        _, sizes, rows = np.linalg.svd(rest, full_matrices=False)
        values, vectors = sizes**2, rows.T
    values, vectors = values[:n_components], vectors[:, :n_components]
    there = values > 1e-9 * max(float(values.max(initial=0)), 1e-12)
    return centre, np.where(there, vectors / np.sqrt(np.where(there, values, 1.0)), 0.0)
