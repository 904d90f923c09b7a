r"""Panel genes, estimated from their measurement and their prediction together.

With x the count of gene g in cell c, z its pattern carried by attention with the gene hidden, and s the
cell's size without the gene, the mean of the rate and the spread around it are learned for each gene from
cells of the tissue: the mean by a negative binomial regression, the spread as a mixture of gamma
distributions around multiples q_k of the mean, with the shares pi that make the counts most likely:

.. math::

    \mu_{gc} = e^{\alpha_g + \beta_g z_{gc}} s_{gc}^{\gamma_g} + 0.1 \, \bar x_g s_{gc}, \qquad
    \mathrm{rate}_{gc} \sim \sum_k \pi_{gk} \, \mathrm{Gamma}(\mathrm{mean}\ q_k \mu_{gc},
    \mathrm{shape}\ \kappa_k), \qquad x_{gc} \sim \mathrm{Poisson}(\mathrm{rate}_{gc}).

The estimate is the mean of the rate given the count. It shrinks the measurement towards the prediction by the
errors of both (empirical Bayes; Robbins, 1956; the mixture follows Kiefer and Wolfowitz, 1956): within a
component,

.. math::

    E[\mathrm{rate} \mid x] = w x + (1 - w) \, q \mu, \qquad w = \frac{q \mu}{q \mu + \kappa},

and the weight of a component is its share times the likelihood of x. A high count that was not predicted is
not shrunk: a tenth of the gene's mean count is added to every prediction, multiples reach 10,000, and one
cell with equal shares is added to the cells from which the shares are learned.

The measurement of a gene is not used twice: a fifth of the panel is hidden at a time, on both sides, as in
training, and the share of detected genes and the size are computed without it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import gammaln

from cellweft._compute import numpy_stream, row_blocks, rows_within
from cellweft._errors import NotFittedError, ScaleError, SettingError, arg
from cellweft._typing import DoubleArray, FloatArray, IntArray
from cellweft.data._pair import Pair
from cellweft.data.digest import digest_of
from cellweft.data.side import Side, relative_sizes
from cellweft.impute.attention import FittedAttention
from cellweft.impute.base import FittedMethod, Predictor
from cellweft.impute.training_data import panel_of
from cellweft.nn.attention import AttentionModel, CellMap, Moments, queries_of, with_metacells
from cellweft.nn.config import SAMPLE_CELLS
from cellweft.nn.platform_effects import GeneLevels

PARTS = 5
"""Number of parts of the panel, hidden one after another."""

_SMALLEST_PANEL = 3
_STEPS, _EM_STEPS = 12, 100  # of the regression, and of the search for shares
_MULTIPLES = np.append(np.geomspace(0.01, 1e4, 61), 1.0)  # q; the last one is for predictions without error
_SHAPES = np.append(np.full(61, 16.0), 1e4)  # kappa: width equal to the spacing of the multiples
_LEAST_MEAN = 0.1  # of a gene, relative to its mean count, so that no count is impossible
_CELLS_OF_PRIOR = 1.0  # with equal shares of all components
_RIDGE = 1e-3  # on the coefficients of a gene, in units of the information of one cell
_MOST_PATTERN, _MOST_LOG = 5.0, 15.0
_LEAST_SIZE = 1e-3  # relative to the median cell
_VALUES = 2**20  # carried at once


@dataclass(frozen=True, kw_only=True, eq=False)
class PanelBlend:
    """The fitted model of each panel gene.

    Attributes
    ----------
    genes
        (n_panel,) positions of the genes in the reference, in the order of the panel.
    part
        (n_panel,) part in which each gene is hidden, 0 to 4.
    coefficients
        (n_panel, 3) alpha, beta and gamma of the module's equation.
    least
        (n_panel,) 0.1 times the mean count of the gene.
    shares
        (n_panel, n_components) pi; the sum of a row is 1.
    weight
        (n_panel,) mean weight of the measurement over the sample's cells, 0 to 1: the increase of the
        estimate for one more count.
    sample
        (n_sample, n_panel) log-normalised cells over which patterns are standardised.
    """

    genes: IntArray
    part: IntArray
    coefficients: DoubleArray
    least: DoubleArray
    shares: DoubleArray
    weight: DoubleArray
    sample: FloatArray

    @property
    def mark(self) -> str:
        """A text that identifies the blend."""
        return digest_of(self.genes, self.part, self.coefficients, self.least, self.shares, self.sample)

    def weights(self, genes: IntArray) -> DoubleArray:
        """Return the mean weight of the measurement of genes, (n_genes,): NaN for genes not on the panel."""
        weights = np.full(len(genes), np.nan)
        places = _places(self.genes, genes)
        weights[places >= 0] = self.weight[places[places >= 0]]
        return weights

    def prepare(self, fitted: FittedMethod, genes: IntArray) -> BlendedGenes:
        """Return the predictor of some genes, which blends those of the panel.

        Parameters
        ----------
        fitted
            The method that was used to fit the blend.
        genes
            (n_genes,) positions in the reference.
        """
        places = _places(self.genes, genes)
        hidden = []
        for part in np.unique(self.part[places[places >= 0]]):
            columns = np.flatnonzero((places >= 0) & (self.part[places] == part))
            out = np.flatnonzero(self.part == part)
            hidden_genes = HiddenGenes.of(
                _attention(fitted), self.genes, sample=self.sample, out=out, genes=places[columns]
            )
            hidden.append((columns, hidden_genes))
        return BlendedGenes(plain=fitted.prepare(genes), hidden=tuple(hidden), blend=self)

    def counts(
        self,
        patterns: DoubleArray,
        x: DoubleArray,
        *,
        sizes: DoubleArray,
        genes: IntArray,
        depth: float = 1.0,
    ) -> DoubleArray:
        """Return blended counts: (n_cells, n_genes).

        Parameters
        ----------
        patterns, x, sizes
            (n_cells, n_genes) patterns, measured counts, and sizes without the gene.
        genes
            (n_genes,) positions among the panel's genes.
        depth
            Depth of the tissue, relative to the tissue of the fit.
        """
        means = depth * _means(self.coefficients[genes], self.least[genes], patterns, sizes / depth)
        blended = np.empty(means.shape)
        for column, gene in enumerate(genes):
            blended[:, column] = posterior(self.shares[gene], means[:, column], x[:, column])[0]
        return blended


@dataclass(frozen=True, kw_only=True, eq=False)
class BlendedGenes:
    """Some genes, ready for prediction; those of the panel are blended.

    Attributes
    ----------
    plain
        Predictor of all of them.
    hidden
        Columns of panel genes, and their predictor with a part of the panel hidden.
    blend
        The fitted model of the panel genes.
    """

    plain: Predictor
    hidden: tuple[tuple[IntArray, HiddenGenes], ...]
    blend: PanelBlend

    def values(self, measured: FloatArray) -> FloatArray:
        """See `cellweft.impute.base.Predictor`; only predictions."""
        return self.plain.values(measured)

    def blended(self, measured: FloatArray, side: Side, rows: slice) -> list[tuple[IntArray, DoubleArray]]:
        """Return blended counts of panel genes: their columns, and the counts, (n_cells, n_columns).

        Parameters
        ----------
        measured
            (n_cells, n_panel) log-normalised panel.
        side, rows
            The spatial data, and the positions of these cells.
        """
        size = relative_sizes(side)[rows][:, None]
        blended_parts = []
        for columns, hidden in self.hidden:
            x = np.expm1(measured[:, hidden.genes].astype(np.float64)) * size
            patterns, sizes = hidden.patterns(measured), sizes_without(x, size, side)
            blended = self.blend.counts(patterns, x, sizes=sizes, genes=hidden.genes, depth=side.depth)
            blended_parts.append((columns, blended))
        return blended_parts


@dataclass(frozen=True, kw_only=True, eq=False)
class HiddenGenes:
    """Panel genes, ready to be carried by attention in which they are hidden.

    Attributes
    ----------
    model
        The attention model with the part of the panel hidden on both sides.
    out
        (n_hidden,) positions, on the panel, of the hidden genes.
    genes
        (n_genes,) the hidden genes that are carried.
    expression, levels
        Reference values and levels of these, as in `cellweft.impute.attention.CarriedGenes`.
    """

    model: AttentionModel
    out: IntArray
    genes: IntArray
    expression: torch.Tensor
    levels: GeneLevels

    @classmethod
    def of(
        cls, fitted: FittedAttention, panel: IntArray, *, sample: FloatArray, out: IntArray, genes: IntArray
    ) -> HiddenGenes:
        """Hide a part of the panel from a fitted method, and carry some of its genes to the sample.

        Parameters
        ----------
        fitted, panel
            The method, and (n_panel,) positions of the panel's genes in the reference.
        sample
            (n_sample, n_panel) log-normalised cells.
        out, genes
            Positions, on the panel, of the hidden and of the carried genes.
        """
        columns, whole = fitted.attending.columns, fitted.model
        seen = torch.from_numpy(~np.isin(whole.inputs, out)).to(whole.device, torch.float32)
        cells = HidingMap(whole.cells, seen)
        input_values = torch.from_numpy(sample[:, whole.inputs]).to(whole.device)
        reference = torch.from_numpy(columns.dense(panel[whole.inputs])).to(whole.device)
        with torch.no_grad():
            keys = cells(reference, whole.reference.standard(reference))
            share = ((input_values > 0) * seen).mean(dim=1, keepdim=True)
            detected = Moments.of(share)
            model = replace(
                whole,
                cells=cells,
                keys=keys,
                sample=queries_of(cells, input_values, whole.spatial),
                detected=detected,
                sample_detection=detected.standard(share)[:, 0],
            )
            model = with_metacells(model, whole.metacells)
            values = torch.from_numpy(columns.dense(panel[genes])).to(whole.device)
            levels = GeneLevels.of(model, values)[0]
        return cls(model=model, out=out, genes=genes, expression=model.at_keys(values), levels=levels)

    def patterns(self, measured: FloatArray) -> DoubleArray:
        """Return standardised patterns of the genes, (n_cells, n_genes).

        Parameters
        ----------
        measured
            (n_cells, n_panel) log-normalised panel.
        """
        visible = measured.copy()
        visible[:, self.out] = 0  # for the share of detected genes; the map ignores them
        all_patterns = np.empty((len(visible), len(self.genes)))
        for rows in row_blocks(len(visible), rows_within(_VALUES, max(all_patterns.shape[1], 1))):
            carried = self.model.mapping(self.model.queries(visible[rows])).apply(self.expression)
            seen = self.model.detection(visible[rows])
            patterns = self.levels.patterns(carried, seen, self.model.cells.detection_weight)
            all_patterns[rows] = patterns.cpu().double().numpy()
        return all_patterns.clip(-_MOST_PATTERN, _MOST_PATTERN)


class HidingMap(CellMap):
    """A trained map with some genes always hidden.

    Parameters
    ----------
    whole
        The map; parameters are shared with it.
    seen
        (P,) 0 for genes that are hidden, else 1.
    """

    def __init__(self, whole: CellMap, seen: torch.Tensor) -> None:
        torch.nn.Module.__init__(self)
        self.of_logs, self.of_scores, self.shares = whole.of_logs, whole.of_scores, whole.shares
        self.log_sharpness, self.detection = whole.log_sharpness, whole.detection
        self.hidden_from = seen

    def forward(
        self, logs: torch.Tensor, scores: torch.Tensor, seen: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See `CellMap.forward`."""
        both = self.hidden_from if seen is None else self.hidden_from * seen
        return super().forward(logs, scores, both)


def fit_panel_blend(fitted: FittedMethod, pair: Pair) -> PanelBlend:
    """Fit the blend of panel genes.

    Parameters
    ----------
    fitted
        The fitted method.
    pair
        The pair of the fit, or the attached one.

    Raises
    ------
    SettingError
        The method does not support hidden genes, or the panel is too small.
    ScaleError
        The spatial data are not counts.
    """
    method, n_panel = _attention(fitted), len(pair.shared_genes)
    check_blend(pair)
    part = numpy_stream(method.seed, "panel blend").permutation(n_panel) % min(PARTS, n_panel)
    cells = method.sample
    sample, size = panel_of(pair, cells), relative_sizes(pair.st)[cells][:, None]
    counts = np.expm1(sample.astype(np.float64)) * size
    sizes, patterns = sizes_without(counts, size, pair.st), np.empty(counts.shape)
    for fold in np.unique(part):
        out = np.flatnonzero(part == fold)
        hidden = HiddenGenes.of(method, pair.sc_shared, sample=sample, out=out, genes=out)
        patterns[:, out] = hidden.patterns(sample)
    features = _features(patterns, sizes)
    coefficients = np.stack(
        [fit_negative_binomial(features[:, gene], counts[:, gene])[0] for gene in range(n_panel)]
    )
    least, weight = _LEAST_MEAN * counts.mean(axis=0), np.empty(n_panel)
    means = _means(coefficients, least, patterns, sizes)
    shares = np.stack([fit_shares(means[:, gene], counts[:, gene]) for gene in range(n_panel)])
    for gene in range(n_panel):
        weight[gene] = posterior(shares[gene], means[:, gene], counts[:, gene])[1].mean()
    return PanelBlend(
        genes=pair.sc_shared,
        part=part,
        coefficients=coefficients,
        least=least,
        shares=shares,
        weight=weight,
        sample=sample,
    )


def check_blend(pair: Pair) -> None:
    """Raise if measurements and predictions of a pair's panel cannot be blended."""
    if pair.st.scale != "raw":
        raise ScaleError(
            "measured",
            expected="spatial counts, whose noise is known, with " + arg("measured", "blend"),
            got="values that are not counts",
            fix="Read the counts, or leave " + arg("measured") + " out.",
        )
    if len(pair.shared_genes) < _SMALLEST_PANEL:
        raise SettingError(
            "measured",
            expected=f"a panel of at least {_SMALLEST_PANEL} genes, because some are hidden at a time",
            got=f"{len(pair.shared_genes)}",
            fix="Leave " + arg("measured") + " out.",
        )


def blend_bytes(pair: Pair) -> float:
    """Return the approximate memory of a blend in bytes: keys of the reference for each part."""
    n_panel = len(pair.shared_genes)
    return 4.0 * n_panel * (PARTS * pair.sc.n_cells + 2 * PARTS * SAMPLE_CELLS)


def fit_negative_binomial(features: DoubleArray, counts: DoubleArray) -> tuple[DoubleArray, float]:
    """Return coefficients (n_features,) and dispersion of a negative binomial regression with log link.

    Parameters
    ----------
    features
        (n_cells, n_features); the first one is constant.
    counts
        (n_cells,) at least 0.

    Notes
    -----
    Iterated weighted least squares, with the dispersion from the variance around the means of the previous
    step. The mean of a gene without counts is close to 0.

    Examples
    --------
    >>> x = np.linspace(-1, 1, 500)
    >>> mean = np.exp(1 + 0.5 * x)
    >>> fitted, dispersion = fit_negative_binomial(np.column_stack([np.ones(500), x]), mean)
    >>> fitted.round(2).tolist(), dispersion
    ([1.0, 0.5], 0.0)
    """
    coefficients, dispersion = np.zeros(features.shape[1]), 0.0
    coefficients[0] = np.log(max(counts.mean(), np.exp(-_MOST_LOG)))
    ridge = _RIDGE * np.eye(len(coefficients))
    ridge[0, 0] = 0
    for _ in range(_STEPS):
        logs = (features @ coefficients).clip(-_MOST_LOG, _MOST_LOG)
        means = np.exp(logs)
        dispersion = float(
            (((counts - means) ** 2 - means).sum() / max(float((means**2).sum()), 1e-12)).clip(0, 100)
        )
        weight = means / (1 + dispersion * means)
        target = logs + ((counts - means) / means).clip(-_MOST_LOG, _MOST_LOG)
        weighted = features * weight[:, None]
        information = features.T @ weighted + ridge * max(float(weight.sum()), 1e-12)
        step = np.linalg.lstsq(information, weighted.T @ target, rcond=None)[0]
        coefficients = coefficients + (step - coefficients).clip(-2, 2)
    return coefficients, dispersion


def fit_shares(means: DoubleArray, counts: DoubleArray) -> DoubleArray:
    """Return the shares of the components of a gene's rates, (n_components,) with a sum of 1.

    Parameters
    ----------
    means, counts
        (n_cells,) for the gene.

    Notes
    -----
    Maximum likelihood, by expectation and maximisation, starting from equal shares. One cell with equal
    shares is added at the end: the components of the rarest cells may be missing from the sample.
    """
    logs = _log_likelihoods(means, counts)
    likelihood = np.exp(logs - logs.max(axis=1, keepdims=True))
    shares = np.full(len(_MULTIPLES), 1 / len(_MULTIPLES))
    for _ in range(_EM_STEPS):
        mixed = likelihood @ shares
        shares = shares * (likelihood.T @ (1 / mixed)) / len(mixed)
    held = len(counts) * shares / shares.sum() + _CELLS_OF_PRIOR / len(shares)
    return np.asarray(held / held.sum())


def posterior(
    shares: DoubleArray, means: DoubleArray, counts: DoubleArray
) -> tuple[DoubleArray, DoubleArray]:
    """Return the mean of a gene's rate given the count, and its increase for one more count.

    Parameters
    ----------
    shares
        (n_components,) for the gene.
    means, counts
        (n_cells,) for the gene.

    Returns
    -------
    estimate, weight : ndarray
        (n_cells,) each; the weight is the variance of the rate divided by its mean, at most 1.
    """
    logs = _log_likelihoods(means, counts) + np.log(np.maximum(shares, 1e-300))
    parts = np.exp(logs - logs.max(axis=1, keepdims=True))
    parts /= parts.sum(axis=1, keepdims=True)
    expected = means[:, None] * _MULTIPLES
    factor, total = expected / (expected + _SHAPES), counts[:, None] + _SHAPES
    first = (parts * total * factor).sum(axis=1)
    second = (parts * total * (total + 1) * factor**2).sum(axis=1)
    return first, (second / first - first).clip(0, 1)


def _log_likelihoods(means: DoubleArray, counts: DoubleArray) -> DoubleArray:
    """Return log likelihoods of counts in each component, (n_cells, n_components), without factorials."""
    expected, x = means[:, None] * _MULTIPLES, counts[:, None]
    own = gammaln(x + _SHAPES) - gammaln(_SHAPES) - x * np.log(_SHAPES)
    logs: DoubleArray = own + x * np.log(expected) - (x + _SHAPES) * np.log1p(expected / _SHAPES)
    return logs


def sizes_without(counts: DoubleArray, size: DoubleArray, side: Side) -> DoubleArray:
    """Return relative sizes of cells without each gene, (n_cells, n_genes).

    Parameters
    ----------
    counts
        (n_cells, n_genes) counts of the genes.
    size
        (n_cells, 1) relative sizes.
    side
        The side of the cells. Size factors given by the user are not changed.
    """
    own = 0.0 if side.has_sizes else counts / side.target
    return np.broadcast_to(np.maximum(size - own, _LEAST_SIZE), counts.shape)


def _features(patterns: DoubleArray, sizes: DoubleArray) -> DoubleArray:
    return np.stack([np.ones(patterns.shape), patterns, np.log(sizes)], axis=-1)


def _means(
    coefficients: DoubleArray, least: DoubleArray, patterns: DoubleArray, sizes: DoubleArray
) -> DoubleArray:
    logs = (_features(patterns, sizes) * coefficients).sum(axis=-1)
    return np.asarray(np.exp(logs.clip(-_MOST_LOG, _MOST_LOG)) + least * sizes)


def _places(panel: IntArray, genes: IntArray) -> NDArray[np.int64]:
    """Return the position of each gene on the panel, -1 for genes that are not on it."""
    order = np.argsort(panel)
    ranks = np.searchsorted(panel, genes, sorter=order).clip(max=len(panel) - 1)
    places = order[ranks]
    return np.where(panel[places] == genes, places, -1)


def _attention(fitted: FittedMethod) -> FittedAttention:
    if not isinstance(fitted, FittedAttention):
        raise NotFittedError(
            "measured",
            expected="an Imputer whose method can compare cells without using the gene itself",
            got=arg("preset", fitted.preset),
            fix="Use " + arg("preset", "auto") + ", or leave " + arg("measured") + " out.",
        )
    return fitted
