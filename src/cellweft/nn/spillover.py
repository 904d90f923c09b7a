r"""The share of a cell's counts that its neighbours explain better than any cell of the reference.

With x the count of gene g in cell i, n the cell's total over the panel, p the profiles of the reference
(groups of its cells, each with a sum of 1 over the panel), z the profile of the cell, and s the share that
spilled into it, the model is

.. math::

    x_{ig} \mid z_i = k, s_i = s \sim \mathrm{NB}\bigl(n_i \,
    [(1 - s) ((1 - e) \, p_{kg} + e \, r_{ikg}) + s \, q_{ikg}], \ \alpha_g\bigr), \qquad
    p_{kg} \propto f_g P_{kg}.

f is the relative detection of a gene by the spatial platform and the reference, and alpha the gene's
dispersion. q is the mean profile of the nearest cells, r that of cells farther away, around them:

.. math::

    q_{ik} = \sum_l m_{il} \, p_{l(k)}, \qquad m_{il} \propto \sum_{j \ne i} w_{ij} \, n_j \, P(z_j = l),

    l(k) = k \ \text{where} \ p_l \ \text{is like} \ p_k, \ \text{else} \ l,

with w the weight of a neighbour by its distance. This avoids three errors. The profile of a neighbour comes
from the reference, not from its measurement, which itself contains counts of other cells. A neighbour similar
to the cell is treated as the cell itself, because spill-over between such cells cannot be distinguished. And
a part e of what is not spill-over is attributed to the wider surroundings. Otherwise, expression that cells
of a region share, but the reference lacks, would look like spill-over; only what the adjacent cells explain
better is counted.

s and e have a few discrete values. The frequency of each pair of values in the tissue, and of each profile,
is learned together with f and alpha from a sample of cells by expectation and maximisation (empirical Bayes;
Robbins, 1956). The estimate for a cell is the mean of s given its counts. If the counts carry little
information, the estimate is close to the mean of the tissue.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.special import gammaln

from cellweft._compute import row_blocks, rows_within
from cellweft._typing import BoolArray, DoubleArray, FloatArray, IntArray

SHARES = np.array([0.0, 0.03, 0.07, 0.12, 0.2, 0.3, 0.45, 0.6, 0.8])
"""Values that the share of a cell may have."""

BACKGROUNDS = np.array([0.1, 0.3, 0.6])
"""Values of e, the part of the rest attributed to the wider surroundings. Without the first value, the
estimate for the simulated cortex without spill-over is .06."""

CANDIDATES = 4
"""Largest number of profiles considered for a cell; all others are much less likely."""

_ALIKE = 0.7  # profiles are similar if the correlation of their square roots is at least this
_STEPS, _INNER_STEPS = 6, 20  # of expectation and maximisation; of the frequencies within each
_LEAST_MEAN = 1e-6  # counts
_DISPERSIONS = (0.02, 20.0)
_CLIMB = (0.6, 1.0, 1.6)  # factors on the dispersion that a step tries
_PSEUDO_COUNTS = 1.0  # per gene; they keep the factor of a gene without counts near 1
_PSEUDO_CELLS = 5.0  # cells without spill-over, added to the sample
_EXPECTED_SHARE = 0.1  # mean of the first guess of the shares
_VALUES = 2**16  # of means in memory


@dataclass(frozen=True, kw_only=True, eq=False)
class Surroundings:
    """The surroundings of cells, as shares of profiles.

    Attributes
    ----------
    near, wide
        (n_cells, n_profiles) m of the nearest cells, and of cells farther away. A row's sum is 1, or 0 for a
        cell without such cells.
    """

    near: DoubleArray
    wide: DoubleArray

    def __getitem__(self, rows: slice) -> Surroundings:
        return Surroundings(near=self.near[rows], wide=self.wide[rows])

    @classmethod
    def none(cls, n_cells: int, n_profiles: int) -> Surroundings:
        """Return the surroundings of isolated cells."""
        empty = np.zeros((n_cells, n_profiles))
        return cls(near=empty, wide=empty)


@dataclass(frozen=True, kw_only=True, eq=False)
class CellPosterior:
    """Posterior distributions of cells, given their counts.

    Attributes
    ----------
    candidates, of_profile
        (n_cells, n_candidates) indices of profiles, and the probability of each; a cell's sum is 1.
    of_share, likelihood
        (n_cells, n_shares) probability of each of `SHARES`, and (n_cells, n_backgrounds, n_shares) likelihood
        of each pair of `BACKGROUNDS` and `SHARES`, relative to the cell's largest.
    expected
        (n_cells, n_genes) mean share of each gene among a cell's counts.
    """

    candidates: IntArray
    of_profile: DoubleArray
    of_share: DoubleArray
    likelihood: DoubleArray
    expected: DoubleArray

    @property
    def share(self) -> DoubleArray:
        """(n_cells,) mean share, 0 to below 1."""
        return np.asarray(self.of_share @ SHARES)


@dataclass(frozen=True, kw_only=True, eq=False)
class SpilloverModel:
    """Profiles of cells on the spatial platform, and the distribution of spill-over shares.

    Attributes
    ----------
    profiles
        (n_profiles, n_genes) p of the module's equation; a row's sum is 1.
    dispersion
        (n_genes,) alpha.
    frequency
        (n_profiles,) share of the tissue's cells with each profile; the sum is 1.
    prior
        (n_backgrounds, n_shares) frequency of each pair of `BACKGROUNDS` and `SHARES`; the sum is 1.
    """

    profiles: DoubleArray
    dispersion: DoubleArray
    frequency: DoubleArray
    prior: DoubleArray

    @classmethod
    def of_reference(cls, means: DoubleArray, sizes: DoubleArray) -> SpilloverModel:
        """Return the initial model, without data of the tissue.

        Parameters
        ----------
        means
            (n_profiles, n_genes) mean expression of groups of reference cells, at least 0.
        sizes
            (n_profiles,) number of cells in each group; one average cell is added to each.
        """
        average = sizes @ means / sizes.sum()
        held = (means * sizes[:, None] + average) / (sizes[:, None] + 1)
        prior = np.exp(-SHARES / _EXPECTED_SHARE)
        return cls(
            profiles=_as_shares(held + _LEAST_MEAN * max(float(average.mean()), _LEAST_MEAN)),
            dispersion=np.ones(means.shape[1]),
            frequency=np.full(len(means), 1 / len(means)),
            prior=np.tile(prior / prior.sum() / len(BACKGROUNDS), (len(BACKGROUNDS), 1)),
        )

    def candidates(self, counts: FloatArray) -> IntArray:
        """Return the candidate profiles of cells, (n_cells, n_candidates).

        Parameters
        ----------
        counts
            (n_cells, n_genes) counts of the panel.

        Notes
        -----
        The most likely profiles if the spill-over were the tissue's mean, for totals rounded to a power of
        the square root of 2, so that a few tables of profiles x genes are enough for all cells.
        """
        share = float(self.prior.sum(axis=0) @ SHARES)
        profiles = (1 - share) * self.profiles + share * (self.frequency @ self.profiles)
        level = np.round(2 * np.log2(np.maximum(counts.sum(axis=1, dtype=np.float64), 1))).astype(np.int64)
        n_candidates = min(CANDIDATES, len(profiles))
        candidates = np.empty((len(counts), n_candidates), dtype=np.int64)
        for this_level in np.unique(level):
            means = np.maximum(2 ** (this_level / 2) * profiles, _LEAST_MEAN)
            spread = np.log1p(self.dispersion * means)
            cells = np.flatnonzero(level == this_level)
            logs = counts[cells] @ (np.log(means) - spread).T  # cells of this total x n_profiles
            logs += np.log(self.frequency) - spread @ (1 / self.dispersion)
            candidates[cells] = np.argsort(-logs, axis=1, kind="stable")[:, :n_candidates]
        return candidates

    def posterior(
        self, counts: FloatArray, around: Surroundings, candidates: IntArray | None = None
    ) -> CellPosterior:
        """Return the posterior of cells given their counts.

        Parameters
        ----------
        counts
            (n_cells, n_genes) counts of the panel.
        around
            Surroundings of the cells. The share of a cell without near cells is 0.
        candidates
            The result of `candidates`, if it is known.
        """
        candidates = self.candidates(counts) if candidates is None else candidates
        n_cells, n_genes = counts.shape
        shape = n_cells, len(SHARES)
        posterior = CellPosterior(
            candidates=candidates,
            of_profile=np.empty(candidates.shape),
            of_share=np.empty(shape),
            likelihood=np.empty((n_cells, len(BACKGROUNDS), len(SHARES))),
            expected=np.empty((n_cells, n_genes)),
        )
        for rows in row_blocks(n_cells, rows_within(_VALUES, n_genes * candidates.shape[1])):
            joint, posterior.likelihood[rows], posterior.expected[rows] = self._joint(
                counts[rows], around[rows], candidates[rows]
            )
            posterior.of_profile[rows], posterior.of_share[rows] = (
                joint.sum(axis=(2, 3)),
                joint.sum(axis=(1, 2)),
            )
        return posterior

    def own_counts(self, counts: FloatArray, around: Surroundings) -> FloatArray:
        """Return how many of the counts are expected to be the cells' own, (n_cells, n_genes) float32.

        Parameters
        ----------
        counts, around
            As in `posterior`.

        Notes
        -----
        Given profile, s and e, a count is the cell's own with probability (1 - s) times the share of its gene
        in the cell and its region, over the share of the gene in the whole mixture.
        """
        own_counts, candidates = np.empty(counts.shape, dtype=np.float32), self.candidates(counts)
        size = counts.shape[1] * candidates.shape[1]
        for rows in row_blocks(len(counts), rows_within(_VALUES, size)):
            joint = self._joint(counts[rows], around[rows], candidates[rows])[0]
            own, near, wide = self._mixtures(around[rows], candidates[rows])
            part = np.zeros(counts[rows].shape)
            for place, background in enumerate(BACKGROUNDS):
                rest = (1 - background) * own + background * wide
                for number, share in enumerate(SHARES):
                    mixed = np.maximum((1 - share) * rest + share * near, 1e-12)
                    part += np.einsum("cp,cpg->cg", joint[:, :, place, number] * (1 - share), rest / mixed)
            own_counts[rows] = counts[rows] * part.clip(0, 1)
        return own_counts

    def fit(self, counts: FloatArray, around: Surroundings) -> SpilloverModel:
        """Return the model fitted to a sample of cells; parameters as in `posterior`."""
        model, candidates = self, self.candidates(counts)
        for _ in range(_STEPS if len(counts) else 0):
            model = model._improved(counts, around, candidates)
        return model

    @cached_property
    def _unlike(self) -> BoolArray:
        """(n_profiles, n_profiles) pairs of profiles that can be distinguished."""
        roots = np.sqrt(self.profiles)
        roots = roots - roots.mean(axis=1, keepdims=True)
        roots /= np.maximum(np.linalg.norm(roots, axis=1, keepdims=True), 1e-12)
        return np.asarray(roots @ roots.T < _ALIKE)

    def _joint(
        self, counts: FloatArray, around: Surroundings, candidates: IntArray
    ) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
        """Return joint probabilities of profiles and (s, e), likelihoods of (s, e), expected gene shares."""
        own, near, wide = self._mixtures(around, candidates)
        has_wide = around.wide.any(axis=1)
        has_near: BoolArray = np.asarray(around.near.any(axis=1))
        logs = np.full((*candidates.shape, len(BACKGROUNDS), len(SHARES)), -np.inf)
        for place, background in enumerate(BACKGROUNDS[: None if has_wide.any() else 1].astype(np.float32)):
            rest = (1 - background) * own + background * wide
            for number, share in enumerate(SHARES[: None if has_near.any() else 1].astype(np.float32)):
                mixed = (1 - share) * rest + share * near
                logs[:, :, place, number] = _log_likelihood(counts, mixed, self.dispersion)
        logs[~has_near, :, :, 1:] = -np.inf
        logs += np.log(self.frequency[candidates])[:, :, None, None]
        likelihood = np.exp(logs - logs.max(axis=(1, 2, 3), keepdims=True))
        joint = likelihood * self.prior
        joint /= joint.sum(axis=(1, 2, 3), keepdims=True)
        of_rest = joint @ (1 - SHARES)  # n_cells x n_candidates x n_backgrounds
        expected = np.einsum("cp,cpg->cg", of_rest @ (1 - BACKGROUNDS), own)
        expected += np.einsum("cp,cpg->cg", of_rest @ BACKGROUNDS, wide)
        expected += np.einsum("cp,cpg->cg", joint.sum(axis=2) @ SHARES, near)
        return joint, likelihood.sum(axis=1), expected

    def _mixtures(
        self, around: Surroundings, candidates: IntArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return profiles of candidates, neighbours and region: (n_cells, n_candidates, n_genes) each."""
        own = self.profiles.astype(np.float32)[candidates]
        near, wide = (self._mixed(weights, candidates, own) for weights in (around.near, around.wide))
        has_wide = np.asarray(around.wide.any(axis=1))[:, None, None]
        return own, near, np.where(has_wide, wide, own)

    def _mixed(self, shares: DoubleArray, candidates: IntArray, own: FloatArray) -> FloatArray:
        """Return mean profiles of surroundings; profiles similar to the candidate are replaced by it.

        Parameters
        ----------
        shares
            (n_cells, n_profiles) shares of the surroundings.
        candidates, own
            (n_cells, n_candidates) candidates of the cells, and (n_cells, n_candidates, n_genes) their
            profiles.
        """
        others = (shares[:, None] * self._unlike[candidates]).astype(np.float32)
        same = (shares.sum(axis=1)[:, None] - others.sum(axis=2)).astype(np.float32)
        return np.asarray(others @ self.profiles.astype(np.float32) + same[:, :, None] * own)

    def _improved(self, counts: FloatArray, around: Surroundings, candidates: IntArray) -> SpilloverModel:
        """Return the model after one step of expectation and maximisation."""
        posterior = self.posterior(counts, around, candidates)
        totals = counts.sum(axis=1, dtype=np.float64)[:, None]
        means = np.maximum(totals * posterior.expected, 1e-9)  # n_cells x n_genes
        precision = 1 / (1 + self.dispersion * means)
        measured, predicted = (precision * counts).sum(axis=0), (precision * means).sum(axis=0)
        frequency = np.ones(len(self.profiles))
        np.add.at(frequency, candidates, posterior.of_profile)
        return replace(
            self,
            profiles=_as_shares(self.profiles * (measured + _PSEUDO_COUNTS) / (predicted + _PSEUDO_COUNTS)),
            dispersion=_better_dispersion(counts, means, self.dispersion),
            frequency=frequency / frequency.sum(),
            prior=_share_frequencies(posterior.likelihood[around.near.any(axis=1)], self.prior),
        )


def _share_frequencies(likelihood: DoubleArray, prior: DoubleArray) -> DoubleArray:
    """Return a prior with a higher likelihood; shapes as in the model and the posterior."""
    for _ in range(_INNER_STEPS if len(likelihood) else 0):
        mixed = np.maximum(np.tensordot(likelihood, prior), 1e-300)
        prior = prior * np.tensordot(1 / mixed, likelihood, axes=1)
        of_background = prior.sum(axis=1)
        prior[:, 0] += _PSEUDO_CELLS * of_background / of_background.sum()
        prior = np.maximum(prior / prior.sum(), 1e-12)
    return np.asarray(prior / prior.sum())


def _better_dispersion(counts: FloatArray, means: DoubleArray, dispersion: DoubleArray) -> DoubleArray:
    """Return the most likely of a few dispersions of each gene, (n_genes,); arrays as in the model."""
    tried = np.stack([factor * dispersion for factor in _CLIMB]).clip(*_DISPERSIONS)
    logs = np.empty(tried.shape)
    for number, alpha in enumerate(tried):
        shape = 1 / alpha
        over = 1 + alpha * means
        parts = gammaln(counts + shape) + counts * np.log(alpha * means / over) - shape * np.log(over)
        logs[number] = parts.sum(axis=0) - len(counts) * gammaln(shape)
    return np.asarray(np.take_along_axis(tried, logs.argmax(axis=0)[None], axis=0)[0])


def _log_likelihood(counts: FloatArray, shares: FloatArray, dispersion: DoubleArray) -> FloatArray:
    """Return log likelihoods (n_cells, n_profiles) of counts, without terms that do not depend on the means.

    Parameters
    ----------
    counts, shares, dispersion
        (n_cells, n_genes) counts, (n_cells, n_profiles, n_genes) share of each gene, (n_genes,).
    """
    alpha = dispersion.astype(np.float32)
    means = np.maximum(counts.sum(axis=1)[:, None, None] * shares, np.float32(_LEAST_MEAN))
    over = 1 + alpha * means
    from_counts = np.log(means / over) @ counts[:, :, None]  # n_cells x n_profiles x 1
    return np.asarray(from_counts[:, :, 0] - np.log(over) @ (1 / alpha))


def _as_shares(values: DoubleArray) -> DoubleArray:
    return np.asarray(values / values.sum(axis=1, keepdims=True))
