r"""Counts that a panel would have measured: from predicted logarithms to mean counts, and to draws.

A prediction p of ``log1p(x / s)``, where s is a cell's total (or size factor) over that of the median cell,
is a mean of logarithms: ``r = expm1(p)`` is less than the mean of x / s, and not proportional to it. With x
the count of gene g in cell c, the model is

.. math::

    \mu_{gc} = \exp(a) \, r_{gc}^{b} \, s_c^{e}, \qquad
    x_{gc} \sim \mathrm{Poisson}(\mu_{gc} \, l_g \, w_{gc}), \qquad E[l_g] = E[w_{gc}] = 1.

``l`` is the error of the level of a whole gene; it is log-normal. ``w``, the frailty of a gene in a cell,
makes counts vary more than a Poisson distribution: given the gene's own mean, ``var(x | mu) = mu + dispersion
mu^2``. It is one of

- "poisson": w = 1
- "negative binomial": gamma
- "log-normal": more high counts than the gamma, and fewer zeros, at the same variance
- "zero-inflated": 0 in a share of the cells, gamma in the others

b and e maximise the likelihood of a negative binomial distribution in which each panel gene, predicted
without its measurement, has its own mean. a and the spread of l are estimated from the errors of these means.
The dispersion of each family is that of the median panel gene. The chosen family has the highest likelihood
for panel genes that were not used to fit it.

Reference: smearing of a retransformed mean, Duan (1983), here with a model instead of residuals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import gammaln, ndtr, ndtri, xlogy
from scipy.stats import gamma

from cellweft._compute import numpy_stream, row_blocks, rows_within
from cellweft._errors import InputError, Placeholder, ScaleError, arg, check_choice, sentence
from cellweft._typing import DoubleArray, FloatArray, ResultScale
from cellweft.data._pair import Pair
from cellweft.impute.uncertainty.expected_correlation import StoredArrays, check_shape
from cellweft.impute.uncertainty.prediction_intervals import SMALLEST_PANEL, basis_of

FAMILIES = ("poisson", "negative binomial", "log-normal", "zero-inflated")
"""Distributions of the frailty, by index."""

_NAMES = {"normalised": "normalised values", "log": "logarithms of normalised values"}
_BLOCK_VALUES = 2**18  # converted to counts at once
_SHARES_OF_ZEROS = (0.05, 0.1, 0.2, 0.3, 0.5)  # candidates for the zero-inflated family
_FOLDS = 5
_MOST_ENTRIES = 60_000  # used in likelihoods
_ROUNDS = 4  # of a search for the dispersion
_POINTS = 50  # of a frailty in a likelihood
_KNOTS, _MOST_SCORE = 1601, 6.0  # of gamma quantiles by normal score, and the largest score
_TINY = 1e-12
_LEAST_RATE = 1e-3  # of a gene's mean rate; smaller predictions are raised to it
_EXPONENTS = ((0.05, 3.0), (0.0, 2.0))  # of the rate and of the size
_MOST_DISPERSION = 100.0
_MOST_LEVEL = 2.0  # standard deviation of a gene's log level


@dataclass(frozen=True, kw_only=True, eq=False)
class CountModel(StoredArrays):
    """The distribution of counts, given predicted logarithms.

    Attributes
    ----------
    rate
        (3,) a, b and e of the module's equation.
    level_sd
        (1,) standard deviation of a gene's log level.
    family
        (1,) index in `FAMILIES`.
    dispersion, zeros
        (1,) each: variance of the frailty, and share of cells with an excess zero.

    Examples
    --------
    >>> model = plain_counts()
    >>> model.means(np.log1p([[2.0], [2.0]]), np.array([1.0, 0.5])).round(3).tolist()
    [[2.0], [1.0]]
    """

    rate: DoubleArray
    level_sd: DoubleArray
    family: DoubleArray
    dispersion: DoubleArray
    zeros: DoubleArray

    @property
    def name(self) -> str:
        """Name of the family."""
        return FAMILIES[int(self.family[0])]

    def means(self, predicted: ArrayLike, sizes: ArrayLike, *, depth: float = 1.0) -> DoubleArray:
        """Return mean counts, (n_cells, n_genes), at least 0.

        Parameters
        ----------
        predicted
            (n_cells, n_genes) log-normalised predictions, at least 0.
        sizes
            (n_cells,) totals or size factors over that of the median cell; 0 for cells without counts, whose
            mean counts are 0.
        depth
            Depth of the tissue, relative to the tissue of the fit: the median of ``sizes``.
        """
        bias, power, exponent = self.rate
        size = np.asarray(sizes, dtype=np.float64)[:, None]
        means: DoubleArray = np.expm1(np.asarray(predicted, dtype=np.float64).clip(min=0)) ** power
        factor = depth * np.exp(bias) * np.maximum(size / depth, _TINY) ** exponent
        return means * np.where(size > 0, factor, 0.0)

    def draw(
        self,
        means: ArrayLike,
        *,
        generator: np.random.Generator,
        effects: ArrayLike | None = None,
        state: ArrayLike | None = None,
        own_level: bool = False,
    ) -> FloatArray:
        """Return random counts, as they might have been measured.

        Parameters
        ----------
        means
            (n_cells, n_genes) from `means`, for all cells that are analysed together.
        generator
            Random generator.
        effects
            (2 + n_components,) as in `Intervals`: shares of the variance of a gene's errors that cells have
            in common. The first one is the gene's level, which is drawn separately.
        state
            (n_cells, n_components) from `Intervals.state`.
        own_level
            Whether the level of each gene is known, so that no level is drawn.

        Returns
        -------
        (n_cells, n_genes) whole numbers, float32.
        """
        mean = np.asarray(means, dtype=np.float64)
        family, dispersion, zeros = int(self.family[0]), float(self.dispersion[0]), float(self.zeros[0])
        shares = np.zeros(0) if effects is None else np.asarray(effects, dtype=np.float64)[1:]
        component_scores = np.zeros((len(mean), 0)) if state is None else np.asarray(state, dtype=np.float64)
        shares = shares[: 1 + component_scores.shape[1]]
        noise, sd = 1 - shares.sum(), 0.0 if own_level else float(self.level_sd[0])
        drawn = np.empty(mean.shape, dtype=np.float32)
        for gene, column in enumerate(mean.T):
            level = np.exp(sd * generator.standard_normal() - sd**2 / 2)
            scores = np.sqrt(noise) * generator.standard_normal(len(column))
            if len(shares):
                basis = basis_of(column, component_scores)[:, 1:]
                scores += basis @ (generator.standard_normal(len(shares)) * np.sqrt(shares))
                scores /= np.sqrt(basis**2 @ shares + noise)
            frailty = frailty_at(scores, family, dispersion=dispersion, zeros=zeros)
            drawn[:, gene] = generator.poisson(np.minimum(column * level * frailty, 1e9))
        return drawn

    def scaled(
        self,
        predicted: FloatArray,
        sizes: DoubleArray,
        *,
        depth: float = 1.0,
        bounds: tuple[FloatArray, ...] = (),
    ) -> tuple[FloatArray, ...]:
        """Return mean counts, and bounds of logarithms as bounds of counts, each (n_cells, n_genes) float32.

        Parameters
        ----------
        predicted, sizes, depth
            As in `means`.
        bounds
            Lower and upper bounds of log-normalised measurements, or none. A bound is converted to a count as
            its ``expm1`` times the size, so that the same measurements are inside.
        """
        counts = tuple(np.empty(predicted.shape, dtype=np.float32) for _ in (predicted, *bounds))
        for rows in row_blocks(len(predicted), rows_within(_BLOCK_VALUES, predicted.shape[1])):
            means, size = self.means(predicted[rows], sizes[rows], depth=depth), sizes[rows][:, None]
            counts[0][rows] = means
            for scaled_bound, bound, outer in zip(counts[1:], bounds, (np.minimum, np.maximum), strict=False):
                scaled_bound[rows] = outer(np.expm1(bound[rows].astype(np.float64)) * size, means)
        return counts


def check_counts(pair: Pair, scale: str) -> None:
    """Raise if a pair does not support a scale of results: counts require counts in the tissue.

    Raises
    ------
    SettingError
        The scale is unknown.
    ScaleError
        The spatial data are not counts.
    """
    check_choice("scale", scale, get_args(ResultScale))
    if scale == "counts" and pair.st.scale != "raw":
        raise ScaleError(
            "scale",
            expected="spatial counts, for a result on the scale of counts",
            got=f"{_NAMES[pair.st.scale]}, from which the counts cannot be recovered",
            fix=sentence(
                "Read the counts, for example from another layer, {}, or leave {} out.",
                arg("st_layer", Placeholder("NAME")),
                arg("scale"),
            ),
        )


def plain_counts() -> CountModel:
    """Return a model without a fit: Poisson, with mean ``expm1`` of the prediction times the size."""
    zero = np.zeros(1)
    return CountModel(rate=np.array([0.0, 1.0, 1.0]), level_sd=zero, family=zero, dispersion=zero, zeros=zero)


def fit_count_model(predicted: ArrayLike, counts: ArrayLike, *, sizes: ArrayLike) -> CountModel:
    """Fit the distribution of counts, given predictions.

    Parameters
    ----------
    predicted
        (n_cells, n_panel) log-normalised predictions of panel genes, each made without the gene.
    counts
        (n_cells, n_panel) measured counts, at least 0.
    sizes
        (n_cells, n_panel) sizes of the cells, relative to the median cell; without the gene itself if they
        are totals. Cells without counts have size 0 and are ignored.

    Raises
    ------
    InputError
        Fewer than `SMALLEST_PANEL` genes with counts, or inconsistent shapes.

    Examples
    --------
    >>> stream = np.random.default_rng(0)
    >>> sizes = stream.uniform(0.5, 2, (400, 1)) * np.ones(12)
    >>> rates = stream.gamma(4, 0.5, (400, 12))
    >>> model = fit_count_model(np.log1p(rates), stream.poisson(rates * sizes), sizes=sizes)
    >>> model.name, bool(np.abs(model.rate - [0, 1, 1]).max() < 0.1)
    ('poisson', True)
    """
    data = _Entries.of(predicted, counts, sizes)
    power, exponent = _exponents(data)
    plain = data.means(power, exponent)
    bias = np.log(data.own) - np.log(np.maximum(plain.mean(axis=0), _TINY))
    centre = float(np.median(bias))
    # with the median, because a few genes have very large errors
    level_sd = min(float(np.median(np.abs(bias - centre)) / ndtri(0.75)), _MOST_LEVEL)
    right = plain * np.exp(bias)
    family, dispersion, zeros = _chosen(right, data.counts)
    return CountModel(
        rate=np.array([centre, power, exponent]),
        level_sd=np.array([level_sd]),
        family=np.array([float(family)]),
        dispersion=np.array([dispersion]),
        zeros=np.array([zeros]),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Entries:
    """Log rates, log sizes and counts, (n_cells, n_genes), of genes with counts; their own means."""

    rates: DoubleArray
    sizes: DoubleArray
    counts: DoubleArray
    own: DoubleArray

    @classmethod
    def of(cls, predicted: ArrayLike, counts: ArrayLike, sizes: ArrayLike) -> _Entries:
        values, measured, size = (np.asarray(array, dtype=np.float64) for array in (predicted, counts, sizes))
        check_shape("counts", measured, values.shape)
        check_shape("sizes", size, values.shape)
        filled = size.min(axis=1, initial=np.inf) > 0
        every = slice(None, None, max(-(-values.size // _MOST_ENTRIES), 1))
        values, measured, size = (array[filled][every] for array in (values, measured, size))
        rates = np.expm1(values.clip(min=0))
        usable = (measured.sum(axis=0) > 0) & (rates.sum(axis=0) > 0)
        if usable.sum() < SMALLEST_PANEL:
            raise InputError(
                "counts",
                expected=f"at least {SMALLEST_PANEL} genes with counts",
                got=f"{int(usable.sum())}",
                fix="A smaller panel is not enough to learn how counts relate to predictions.",
            )
        rates, measured, size = rates[:, usable], measured[:, usable], size[:, usable]
        floor = _LEAST_RATE * rates.mean(axis=0)
        return cls(
            rates=np.log(rates + floor), sizes=np.log(size), counts=measured, own=measured.mean(axis=0)
        )

    def means(self, power: float, exponent: float) -> DoubleArray:
        """Return mean counts without the bias a."""
        return np.exp(power * self.rates + exponent * self.sizes)


def _exponents(data: _Entries) -> tuple[float, float]:
    """Return the exponents of rate and size, from a negative binomial with one mean per gene."""

    def loss(at: DoubleArray) -> float:
        means = data.means(at[0], at[1])
        means *= data.own / means.mean(axis=0)
        shape = np.exp(-at[2].clip(-8, 5))  # of the gamma: 1 / dispersion
        share = np.log1p(means / shape)
        likelihood = gammaln(data.counts + shape) - gammaln(shape) - (data.counts + shape) * share
        likelihood += xlogy(data.counts, means / shape)
        outside = sum(
            max(low - exponent, exponent - high, 0.0)
            for exponent, (low, high) in zip(at, _EXPONENTS, strict=False)
        )
        return float(-likelihood.mean() + outside)

    start = np.array([[0.8, 0.8, 0.0], [1.0, 0.8, 0.0], [0.8, 1.0, 0.0], [0.8, 0.8, 1.0]])
    options: Any = {"initial_simplex": start, "maxiter": 150, "xatol": 0.005, "fatol": 1e-6}
    best = minimize(loss, start[0], method="Nelder-Mead", options=options).x
    (least, most), (smallest, largest) = _EXPONENTS
    return float(np.clip(best[0], least, most)), float(np.clip(best[1], smallest, largest))


def dispersions_of(means: DoubleArray, counts: DoubleArray) -> DoubleArray:
    """Return the variance of each gene's frailty, (n_genes,) at least 0, from the variance of its counts.

    Parameters
    ----------
    means, counts
        (n_cells, n_genes), with the same mean over the cells.
    """
    beyond = counts.var(axis=0) - means.var(axis=0) - means.mean(axis=0)
    dispersions: DoubleArray = beyond / np.maximum((means**2).mean(axis=0), _TINY)
    return dispersions.clip(0, _MOST_DISPERSION)


def _chosen(means: DoubleArray, counts: DoubleArray) -> tuple[int, float, float]:
    """Return the family with the highest held-out likelihood, its dispersion and its share of zeros."""
    of_gene = dispersions_of(means, counts)
    n_genes = len(of_gene)
    fold = np.arange(n_genes) % min(_FOLDS, n_genes)
    overall = float(np.median(of_gene))
    tried = [(0, 0.0)]
    if overall > _TINY:
        tried += [(1, 0.0), (2, 0.0), *((3, zeros) for zeros in _SHARES_OF_ZEROS)]
    scores = []
    for family, zeros in tried:
        likelihoods = [
            _likelihood(
                means[:, fold == part],
                counts[:, fold == part],
                frailty_points(family, float(np.median(of_gene[fold != part])), zeros),
            )
            for part in np.unique(fold)
        ]
        scores.append(float(np.concatenate(likelihoods).mean()))
    family, zeros = tried[int(np.argmax(scores))]
    return family, _calibrated(means, overall, family, zeros) if family else 0.0, zeros


def _calibrated(means: DoubleArray, wanted: float, family: int, zeros: float) -> float:
    """Return the dispersion for which draws have the ``wanted`` dispersion in the median gene.

    With a long tail, the variance in a few hundred cells is, for most genes, less than in all cells.
    """
    generator, dispersion = numpy_stream(0, "count model"), wanted
    scores = generator.standard_normal(means.shape)
    for _ in range(_ROUNDS):
        drawn = generator.poisson(means * frailty_at(scores, family, dispersion=dispersion, zeros=zeros))
        scaled = means * (drawn.mean(axis=0) / means.mean(axis=0))
        reached = float(np.median(dispersions_of(scaled, drawn.astype(np.float64))))
        dispersion = min(dispersion * float(np.clip(wanted / max(reached, _TINY), 0.5, 2)), _MOST_DISPERSION)
    return dispersion


def _likelihood(means: DoubleArray, counts: DoubleArray, points: DoubleArray) -> DoubleArray:
    """Return the mean log likelihood of each gene's counts, (n_genes,), without the factorials."""
    total = np.full(means.shape, -np.inf)
    for point in points:
        rate = np.maximum(means * point, _TINY)
        np.logaddexp(total, counts * np.log(rate) - rate, out=total)
    likelihood: DoubleArray = (total - np.log(_POINTS)).mean(axis=0)
    return likelihood


def frailty_points(family: int, dispersion: float, zeros: float) -> DoubleArray:
    """Return a frailty as (50,) increasing values of equal probability, with mean 1.

    Each value is the mean of its part of the distribution. For a gamma of shape k, partial means follow from
    the gamma of shape k + 1; for a log-normal, from the log-normal shifted by its variance.

    Parameters
    ----------
    family
        Position in `FAMILIES`.
    dispersion
        Variance of the frailty, at least 0.
    zeros
        Share of cells with frailty 0, for the zero-inflated family.
    """
    edges = np.linspace(0, 1, _POINTS + 1)
    if FAMILIES[family] == "poisson" or dispersion <= _TINY:
        return np.ones(_POINTS)
    if FAMILIES[family] == "log-normal":
        below = ndtr(ndtri(edges) - np.sqrt(np.log1p(dispersion)))
    else:
        shape, zeros = _gamma_of(family, dispersion, zeros)
        below = gamma.cdf(gamma.ppf(((edges - zeros) / (1 - zeros)).clip(0, 1), shape), shape + 1)
    return np.asarray(np.diff(below) * _POINTS)


def frailty_at(scores: DoubleArray, family: int, *, dispersion: float, zeros: float) -> DoubleArray:
    """Return the frailty quantiles for standard normal scores; the frailty has mean 1.

    Parameters
    ----------
    scores
        Standard normal scores.
    family, dispersion, zeros
        As in `frailty_points`.
    """
    if FAMILIES[family] == "poisson" or dispersion <= _TINY:
        return np.ones(scores.shape)
    if FAMILIES[family] == "log-normal":
        sd = np.sqrt(np.log1p(dispersion))
        return np.asarray(np.exp(sd * scores - sd**2 / 2))
    shape, zeros = _gamma_of(family, dispersion, zeros)
    knots = np.linspace(-_MOST_SCORE, _MOST_SCORE, _KNOTS)
    inside = ((ndtr(knots) - zeros) / (1 - zeros)).clip(0, 1)
    return np.asarray(np.interp(scores, knots, gamma.ppf(inside, shape) / (shape * (1 - zeros))))


def _gamma_of(family: int, dispersion: float, zeros: float) -> tuple[float, float]:
    """Return the shape of the gamma in cells with a positive frailty, and the share of the other cells."""
    zeros = zeros if FAMILIES[family] == "zero-inflated" else 0.0
    return 1 / max((1 + dispersion) * (1 - zeros) - 1, 1e-3), zeros
