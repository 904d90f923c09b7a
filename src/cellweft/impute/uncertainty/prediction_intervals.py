"""Prediction intervals: the distribution of measured values for similar out-of-fold predictions.

Panel genes, each predicted without its measurement, show the distribution of measured values around a
prediction. Entries (cell x gene) are grouped by the level of the prediction and by the similarity of the
reference to the cell. Each group has two parts, interpolated between levels: the probability that the gene is
detected, and the quantiles of the detected values.

For a new gene, the whole column may have a common error. Therefore, each panel gene is also compared with
groups computed without it, and the quantiles are stretched until the detected values of the left-out genes
are distributed as expected. Random draws apply this error to the column as a whole, and to kinds of cells,
not only to single cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_ndtr, ndtr, ndtri

from cellweft._compute import numpy_stream
from cellweft._errors import InputError, check_range
from cellweft._typing import DoubleArray, FloatArray, IntArray
from cellweft.impute.uncertainty.expected_correlation import StoredArrays, check_shape

SMALLEST_PANEL = 6
"""Smallest number of panel genes from which intervals for a new gene can be learned."""
_LEVELS = 12
_SIMILARITIES = 3
_GROUP = 200  # smallest mean number of entries per group
_FEW = 50  # with fewer positive values, a group uses all of its level
_FINER = 4  # knots per level; bounds are linear in between
_STEPS = 400  # of probability
_FOLDS = 10
_STARTS = 41  # candidates for the shortest interval
_TRUST = 10.0  # genes with which the stretch of a level and of all levels have equal weight
_COMPONENTS = 10  # of the measured panel
_MOST_ENTRIES = 2_000_000
_PROBABILITIES = np.linspace(0, 1, _STEPS + 1)
_SCORING_STEPS = 4
MISSED_IF_DETECTED = 1.25
"""Largest ratio of the miss rate of values above zero to the miss rate of all values."""
_MOST_SHARES = 0.95  # leaves some variance for single cells
_MOST = 3.0  # largest effect, and largest score it multiplies, in standard deviations


@dataclass(frozen=True, kw_only=True, eq=False)
class Intervals(StoredArrays):
    """Distributions of measured values around predictions, in groups.

    Attributes
    ----------
    edges
        (n_similarities - 1,) limits between groups of cells; a similarity equal to a limit is in the group
        above.
    levels
        (n_levels,) predictions that represent the groups, increasing.
    zeros
        (n_similarities, n_levels) share of zeros, 0 to 1.
    quantiles
        (n_similarities, n_levels, 401) quantiles of the values above zero, for evenly spaced probabilities
        from 0 to 1.
    effects
        (2 + n_components,) shares of the variance of normal scores that are common to all cells of a gene:
        its shift, its slope with the prediction, and one effect per component of the panel.
    centre, loadings
        (n_panel,) and (n_panel, n_components): transform the measured panel to standardised components; see
        `state`.

    Notes
    -----
    Guarantee: for genes like those of the panel, and cells with predictions and similarities in the same
    group, the mean share of measurements inside the interval is at least about the requested level. For
    measurements above zero, the miss rate is at most `MISSED_IF_DETECTED` times that of all measurements.
    This is an average over genes: nearly all measurements of a single gene may be outside, because the gene
    was never measured. There is no guarantee for genes unlike those of the panel.

    This is cross-conformal prediction (Vovk, Annals of Mathematics and Artificial Intelligence 74, 4015) with
    exchangeable genes, within groups of entries (Mondrian). The lower bound of its coverage is weaker than
    that of split-conformal prediction, which would reserve a probability of ``1 / (n_panel + 1)`` for unseen
    genes (Lee, Barber and Willett, 2023): for 30 genes, a third of the miss rate.

    The two goals cannot both be met exactly if zeros are common. With a probability p of detection, an
    interval that contains 0 and a share c of the detected values contains 1 - p (1 - c) of all values. To
    contain exactly ``level`` of all, it would need c = 1 - (1 - level) / p: for a gene detected in a fifth of
    the cells, half of the detected values at a level of 0.9. Therefore c has a minimum, and intervals of such
    genes contain more than was requested.
    """

    edges: DoubleArray
    levels: DoubleArray
    zeros: DoubleArray
    quantiles: DoubleArray
    effects: DoubleArray
    centre: DoubleArray
    loadings: DoubleArray

    def state(self, panel: ArrayLike) -> DoubleArray:
        """Return the position of cells in the principal components of the measured panel.

        Parameters
        ----------
        panel
            (n_cells, n_panel) log-normalised measured values, genes in the order of the fit.

        Returns
        -------
        (n_cells, n_components) principal components, of unit variance in the cells of the fit.
        """
        return (np.asarray(panel, dtype=np.float64) - self.centre) @ self.loadings

    def bounds(
        self, predicted: ArrayLike, *, similarity: ArrayLike, level: float = 0.9
    ) -> tuple[FloatArray, FloatArray]:
        """Return intervals that contain the measurements with probability ``level``.

        Parameters
        ----------
        predicted
            (n_cells, n_genes) predictions, log-normalised.
        similarity
            (n_cells,) similarity of the reference to each cell, as in the fit; NaN is below all others.
        level
            Probability, 0.001 to 0.999.

        Returns
        -------
        lower, upper : ndarray
            Each (n_cells, n_genes), float32, ``0 <= lower <= predicted <= upper``.

        Raises
        ------
        SettingError
            ``level`` is out of range.
        InputError
            Inconsistent shapes.

        Notes
        -----
        The shortest interval that contains ``level`` of the group's distribution, and 1 -
        `MISSED_IF_DETECTED` (1 - ``level``) of its detected values. It excludes 0 only if the probability of
        detection is at least ``level``. The bounds of a cell depend only on its own prediction and
        similarity.
        """
        check_range("level", level, low=0.001, high=0.999)
        values, group = self._checked(predicted, similarity)
        knots, low, high = self._shortest(level)
        lower, upper = np.empty(values.shape, dtype=np.float32), np.empty(values.shape, dtype=np.float32)
        for number in np.unique(group):
            rows = group == number
            lower[rows] = np.interp(values[rows], knots, low[number])
            upper[rows] = np.interp(values[rows], knots, high[number])
        nonnegative = np.maximum(values, 0).astype(np.float32)
        return np.minimum(lower, nonnegative), np.maximum(upper, nonnegative)

    def detected(self, predicted: ArrayLike, *, similarity: ArrayLike) -> FloatArray:
        """Return the probability that genes are detected, that is, measured above zero.

        Parameters
        ----------
        predicted
            (n_cells, n_genes) predictions, log-normalised.
        similarity
            (n_cells,) as in `bounds`.

        Returns
        -------
        (n_cells, n_genes) float32, 0 to 1.

        Raises
        ------
        InputError
            Inconsistent shapes.
        """
        values, group = self._checked(predicted, similarity)
        chance = np.empty(values.shape, dtype=np.float32)
        for number in np.unique(group):
            rows = group == number
            chance[rows] = 1 - np.interp(values[rows], self.levels, self.zeros[number])
        return chance

    def draw(
        self,
        predicted: ArrayLike,
        *,
        similarity: ArrayLike,
        generator: np.random.Generator,
        state: ArrayLike | None = None,
    ) -> FloatArray:
        """Return random values, as they might have been measured.

        Parameters
        ----------
        predicted
            (n_cells, n_genes) predictions for all cells that are analysed together.
        similarity
            (n_cells,) as in `bounds`.
        generator
            Random generator.
        state
            (n_cells, n_components) from `state`; without it, errors are not shared by cells of a kind.

        Returns
        -------
        (n_cells, n_genes) float32, at least 0, with the expected share of zeros.

        Raises
        ------
        InputError
            Inconsistent shapes.

        Notes
        -----
        The value of an entry is the quantile of its group at Phi(z), so that each entry has the distribution
        used for `bounds`. z is a gene's shift, plus its slope times the standardised prediction, plus its
        effects times the components of the cell, plus noise of the cell, all normal, divided by the standard
        deviation of this sum in the cell. The effects of a gene are the same for all cells: its mean, and its
        difference between kinds of cells, vary between draws by as much as those of panel genes were wrong.
        """
        values, group = self._checked(predicted, similarity)
        component_scores = np.zeros((len(values), 0))
        if state is not None:
            component_scores = np.asarray(state, dtype=np.float64)
            check_shape("state", component_scores, (len(values), self.loadings.shape[1]))
        shares = self.effects[: 2 + component_scores.shape[1]]
        noise = 1 - shares.sum()
        drawn = np.empty(values.shape, dtype=np.float32)
        for gene, column in enumerate(values.T):
            basis = basis_of(column, component_scores)
            effects = generator.standard_normal(len(shares)) * np.sqrt(shares)
            scores = basis @ effects + np.sqrt(noise) * generator.standard_normal(len(column))
            scores /= np.sqrt(basis**2 @ shares + noise)
            drawn[:, gene] = self._values(ndtr(scores), column, group)
        return drawn

    def _checked(self, predicted: ArrayLike, similarity: ArrayLike) -> tuple[DoubleArray, IntArray]:
        values, likeness = np.asarray(predicted, dtype=np.float64), np.asarray(similarity, dtype=np.float64)
        check_shape("predicted", values, (len(likeness), values.shape[-1] if values.ndim else 0))
        return values, _group_of(likeness, self.edges)

    def _values(self, probabilities: DoubleArray, column: DoubleArray, group: IntArray) -> DoubleArray:
        """Return the quantiles of one gene's entries at the given probabilities."""
        below, part = _position(column, self.levels)
        above = np.minimum(below + 1, len(self.levels) - 1)
        zeros = self.zeros[group, below] * (1 - part) + self.zeros[group, above] * part
        steps = ((probabilities - zeros) / np.maximum(1 - zeros, 1e-12)).clip(0, 1) * _STEPS
        step = np.minimum(steps.astype(np.int64), _STEPS - 1)
        values = np.zeros(len(column))
        for knot, weight in ((below, 1 - part), (above, part)):
            low, high = self.quantiles[group, knot, step], self.quantiles[group, knot, step + 1]
            values += weight * (low + (high - low) * (steps - step))
        return np.where(probabilities <= zeros, 0.0, values)

    def _shortest(self, level: float) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
        """Return a fine grid of predictions, and the shortest intervals there, (n_similarities, n_knots)."""
        knots, starts = _knots(self.levels), np.linspace(0, 1 - level, _STARTS)
        least = max(1 - MISSED_IF_DETECTED * (1 - level), 0)
        low, high = np.empty((2, len(self.zeros), len(knots)))
        for number in range(len(self.zeros)):
            group = np.full(len(knots), number)
            zeros = np.interp(knots, self.levels, self.zeros[number])
            lower = np.stack([self._values(np.full(len(knots), start), knots, group) for start in starts])
            upper = np.stack([self._values(np.full(len(knots), end), knots, group) for end in starts + level])
            enough = self._values(zeros + (1 - zeros) * least, knots, group)
            upper = np.where(lower > 0, upper, np.maximum(upper, enough))
            best = np.argmin(upper - lower, axis=0), np.arange(len(knots))
            low[number], high[number] = lower[best], upper[best]
        return knots, low, high


def fit_intervals(
    predicted: ArrayLike, truth: ArrayLike, *, similarity: ArrayLike, seed: int = 0
) -> Intervals:
    """Learn the distribution of measured values around predictions.

    Parameters
    ----------
    predicted
        (n_cells, n_panel) log-normalised predictions of panel genes, each made without the gene. About two
        thousand cells are enough.
    truth
        (n_cells, n_panel) measured values, at least 0.
    similarity
        (n_cells,) any score that is higher for cells better covered by the reference; NaN is below all.
    seed
        Seed of the folds of left-out genes, and of the ranks of zeros.

    Raises
    ------
    InputError
        Fewer than `SMALLEST_PANEL` genes, inconsistent shapes, or values that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> stream = np.random.default_rng(0)
    >>> predicted = stream.uniform(1, 2, (200, 20))
    >>> truth = predicted + stream.uniform(-0.5, 0.5, predicted.shape)
    >>> fitted = fit_intervals(predicted, truth, similarity=np.ones(200))
    >>> lower, upper = fitted.bounds([[1.5]], similarity=[1.0], level=0.9)
    >>> bool(abs(upper - lower - 0.9) < 0.1)
    True
    """
    data = _Entries.of(predicted, truth, similarity)
    stream = numpy_stream(seed, "intervals")
    n_panel = data.truth.shape[1]
    part_of = stream.permutation(n_panel) % min(_FOLDS, n_panel)
    places, zeros = np.empty((2, *data.truth.shape))
    for part in np.unique(part_of):
        left_out = part_of == part
        other_genes = _table(data.genes(~left_out))
        places[:, left_out], zeros[:, left_out] = _places(other_genes, data.genes(left_out))
    table = _table(data)
    stretch = _stretches(table, data, places)
    # The rank of a zero is random within the share of zeros.
    ranks = np.where(data.truth > 0, zeros + (1 - zeros) * places, zeros * stream.random(zeros.shape))
    n_components = min(_COMPONENTS, len(data.truth) // 20, n_panel // 2)
    centre, loadings = components(data.truth, n_components)
    return Intervals(
        edges=table.edges,
        levels=table.levels,
        zeros=table.zeros,
        quantiles=_stretched(table.quantiles, stretch),
        effects=effect_shares(
            data.predicted, data.truth, ranks=ranks, zeros=zeros, part_of=part_of, n_components=n_components
        ),
        centre=centre,
        loadings=loadings,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Entries:
    """Predictions and measurements, (n_cells, n_panel), groups of cells, and limits between the groups."""

    predicted: DoubleArray
    truth: DoubleArray
    group: IntArray
    edges: DoubleArray

    @classmethod
    def of(cls, predicted: ArrayLike, truth: ArrayLike, similarity: ArrayLike) -> Self:
        values, measured = np.asarray(predicted, dtype=np.float64), np.asarray(truth, dtype=np.float64)
        likeness = np.asarray(similarity, dtype=np.float64)
        n_panel = values.shape[-1] if values.ndim else 0
        check_shape("predicted", values, (len(likeness), n_panel))
        check_shape("truth", measured, values.shape)
        if n_panel < SMALLEST_PANEL or not len(values):
            raise InputError(
                "predicted",
                expected=f"cells, and at least {SMALLEST_PANEL} genes",
                got=f"an array of shape {values.shape}",
                fix="Intervals cannot be learned from a smaller panel. Impute without them.",
            )
        if not (np.isfinite(values).all() and np.isfinite(measured).all()):
            raise InputError(
                "predicted and truth",
                expected="finite values",
                got="NaN or infinite values",
                fix="Remove these cells or genes.",
            )
        every = slice(None, None, -(-values.size // _MOST_ENTRIES))
        values, measured, likeness = values[every], measured[every], likeness[every]
        n_groups = int(np.clip(len(values) // 100, 1, _SIMILARITIES))
        edges = _edges(likeness[~np.isnan(likeness)], n_groups)
        return cls(predicted=values, truth=measured, group=_group_of(likeness, edges), edges=edges)

    def genes(self, kept: NDArray[np.bool_]) -> _Entries:
        return _Entries(
            predicted=self.predicted[:, kept], truth=self.truth[:, kept], group=self.group, edges=self.edges
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Table:
    """The first attributes of `Intervals`, and ``bounds``, the predictions between levels."""

    edges: DoubleArray
    bounds: DoubleArray
    levels: DoubleArray
    zeros: DoubleArray
    quantiles: DoubleArray


def _table(data: _Entries) -> _Table:
    """Return the distributions of groups, without stretching."""
    n_groups = len(data.edges) + 1
    n_levels = int(np.clip(data.truth.size // (n_groups * _GROUP), 1, _LEVELS))
    bounds = _edges(data.predicted.ravel(), n_levels)
    level = np.searchsorted(bounds, data.predicted, side="right")
    filled_levels = np.unique(level)  # levels may be empty if many predictions are equal
    bounds = bounds[filled_levels[1:] - 1]
    levels, zeros = np.empty(len(filled_levels)), np.empty((n_groups, len(filled_levels)))
    quantiles = np.empty((n_groups, len(filled_levels), _STEPS + 1))
    everything = data.truth[data.truth > 0]
    for place, filled_level in enumerate(filled_levels):
        at_level = level == filled_level
        levels[place] = np.median(data.predicted[at_level])
        pooled = data.truth[at_level]
        for group in range(n_groups):
            values = data.truth[at_level & (data.group == group)[:, None]]
            zeros[group, place] = np.mean((values if len(values) >= _GROUP // 4 else pooled) <= 0)
            parts = [part[part > 0] for part in (values, pooled)] + [everything]
            above = next((part for part in parts if len(part) >= _FEW), everything)
            quantiles[group, place] = np.quantile(above, _PROBABILITIES) if len(above) else 0.0
    return _Table(edges=data.edges, bounds=bounds, levels=levels, zeros=zeros, quantiles=quantiles)


def _places(table: _Table, data: _Entries) -> tuple[DoubleArray, DoubleArray]:
    """Return the ranks of measurements above zero in a table's quantiles, 0 to 1, and its shares of zeros.

    The rank of a zero is NaN.
    """
    knots = _knots(table.levels)
    middles = (knots[1:] + knots[:-1]) / 2
    nearest = np.searchsorted(middles, data.predicted)
    below, part = _position(knots, table.levels)
    above = np.minimum(below + 1, len(table.levels) - 1)
    places, shares = np.empty((2, *data.truth.shape))
    for group in range(len(table.edges) + 1):
        rows = data.group == group
        values, knot_of = data.truth[rows], nearest[rows]
        ranks, share = np.empty((2, *values.shape))
        for knot in np.unique(knot_of):
            ends, mix = [below[knot], above[knot]], np.array([1 - part[knot], part[knot]])
            some = knot_of == knot
            share[some] = mix @ table.zeros[group, ends]
            ranks[some] = np.interp(values[some], mix @ table.quantiles[group, ends], _PROBABILITIES)
        places[rows], shares[rows] = np.where(values > 0, ranks, np.nan), share
    return places, shares


def _stretches(table: _Table, data: _Entries, places: DoubleArray) -> DoubleArray:
    """Return corrected probabilities for those of a table, (n_levels, 401), and correct ``places`` in place.

    The ranks of left-out genes would be uniform if all genes were alike. Their quantiles give the probability
    in the table to use for each probability. A level with few genes is shrunk towards all levels.
    """
    level = np.searchsorted(table.bounds, data.predicted, side="right")
    there = ~np.isnan(places)
    everywhere = np.quantile(places[there], _PROBABILITIES) if there.any() else _PROBABILITIES
    stretch = np.tile(everywhere, (len(table.levels), 1))
    for number in range(len(table.levels)):
        some = there & (level == number)
        if some.any():
            of_gene = some.sum(axis=0, dtype=np.float64)
            n_genes = of_gene.sum() ** 2 / (of_gene**2).sum()
            trust = n_genes / (n_genes + _TRUST)
            stretch[number] = trust * np.quantile(places[some], _PROBABILITIES) + (1 - trust) * everywhere
            places[some] = np.interp(places[some], stretch[number], _PROBABILITIES)
    return stretch


def _stretched(quantiles: DoubleArray, stretch: DoubleArray) -> DoubleArray:
    """Return quantiles, (n_similarities, n_levels, 401), after a stretch, (n_levels, 401)."""
    return np.stack(
        [
            [np.interp(places, _PROBABILITIES, own) for own, places in zip(group, stretch, strict=True)]
            for group in quantiles
        ]
    )


def _edges(values: DoubleArray, n_groups: int) -> DoubleArray:
    """Return limits between groups of about equal size; fewer if values are tied."""
    if n_groups < 2 or not len(values):
        return np.empty(0)
    return np.asarray(np.unique(np.quantile(values, np.arange(1, n_groups) / n_groups)))


def _group_of(similarity: DoubleArray, edges: DoubleArray) -> IntArray:
    return np.searchsorted(edges, np.where(np.isnan(similarity), -np.inf, similarity), side="right")


def _knots(levels: DoubleArray) -> DoubleArray:
    """Return levels with evenly spaced knots between them."""
    fine = np.arange((len(levels) - 1) * _FINER + 1) / _FINER
    return np.interp(fine, np.arange(len(levels)), levels)


def _position(values: DoubleArray, levels: DoubleArray) -> tuple[IntArray, DoubleArray]:
    """Return the level below each value, and the fraction of the way to the next, clipped to 0 to 1."""
    place = np.interp(values, levels, np.arange(len(levels), dtype=np.float64))
    below = place.astype(np.int64)
    return below, place - below


def effect_shares(
    predicted: DoubleArray,
    truth: DoubleArray,
    *,
    ranks: DoubleArray,
    zeros: DoubleArray,
    part_of: IntArray,
    n_components: int,
) -> DoubleArray:
    """Return the shares of the variance of normal scores that are common to a gene: shift, slope, components.

    Parameters
    ----------
    predicted, truth
        (n_cells, n_panel) out-of-fold predictions of panel genes, and measured values.
    ranks
        (n_cells, n_panel) ranks of measured values in their distributions, 0 to 1.
    zeros
        (n_cells, n_panel) shares of zeros in these distributions.
    part_of
        (n_panel,) part of each gene; genes of a part are left out of the panel together to compute its
        components.
    n_components
        Number of components of the panel.

    Returns
    -------
    (2 + n_components,) at least 0, with a sum below 1.

    Notes
    -----
    The scores of each gene are regressed on components of a panel without it. The contribution of chance to
    squared coefficients is subtracted from their mean over genes. The variance of single cells is not known
    beforehand: the first pass assumes that it is all variance, the second uses the result of the first.
    """
    n_cells, n_panel = ranks.shape
    shares = np.zeros(2 + n_components)
    if n_cells <= len(shares):
        return shares
    scores, cuts = (ndtri(values.clip(1e-4, 1 - 1e-4)) for values in (ranks, zeros))
    cuts[truth > 0] = np.nan
    component_scores = {}
    for part in np.unique(part_of):
        panel = truth[:, part_of != part]
        centre, loadings = components(panel, n_components)
        component_scores[part] = (panel - centre) @ loadings
    for _ in range(2):
        noise, total = 1 - shares.sum(), np.zeros(len(shares))
        for gene in range(n_panel):
            basis = basis_of(predicted[:, gene], component_scores[part_of[gene]])
            total += _squared_effects(basis, scores[:, gene], cuts[:, gene], noise=noise)
        shares = (total / n_panel).clip(min=0)
        shares *= min(1.0, _MOST_SHARES / max(float(shares.sum()), 1e-12))
    return shares


def _squared_effects(
    basis: DoubleArray, scores: DoubleArray, cut: DoubleArray, *, noise: float
) -> DoubleArray:
    """Return squared effects of the columns of a basis on normal scores, without the contribution of chance.

    Parameters
    ----------
    basis
        (n_cells, n_effects); each column explains the remainder of those before it.
    scores
        (n_cells,) scores of measured values.
    cut
        (n_cells,) NaN, or, if zero was measured, the upper limit of the score, which is all that is known of
        it.
    noise
        Variance of the scores around their mean.

    Returns
    -------
    (n_effects,)

    Notes
    -----
    Fisher scoring for a censored normal variable, starting from zero effects.
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


def basis_of(column: DoubleArray, component_scores: DoubleArray) -> DoubleArray:
    """Return the factors of a gene's effects: 1, its standardised prediction, components of the cells."""
    own = (column - column.mean()) / max(column.std(), 1e-12) if len(column) else column
    return np.column_stack([np.ones(len(column)), own, component_scores]).clip(-_MOST, _MOST)


def components(panel: DoubleArray, n_components: int) -> tuple[DoubleArray, DoubleArray]:
    """Return the mean of a panel, (n_panel,), and the loadings of its standardised components."""
    centre = panel.mean(axis=0)
    rest = (panel - centre) / np.sqrt(len(panel))
    if rest.shape[1] <= rest.shape[0]:
        values, vectors = (array[..., ::-1] for array in np.linalg.eigh(rest.T @ rest))
    else:
        _, sizes, rows = np.linalg.svd(rest, full_matrices=False)
        values, vectors = sizes**2, rows.T
    values, vectors = values[:n_components], vectors[:, :n_components]
    there = values > 1e-9 * max(float(values.max(initial=0)), 1e-12)
    return centre, np.where(there, vectors / np.sqrt(np.where(there, values, 1.0)), 0.0)
