"""Genes that vary along an axis: a regression spline per gene and cell type, with test and band."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy import stats
from scipy.linalg import solve_triangular

from cellweft._compute import BLOCK_VALUES, progress_callback, row_blocks, rows_within
from cellweft._errors import (
    GeneError,
    InputError,
    KeyMissingError,
    array_of,
    check_array,
    check_range,
    checks_kinds,
)
from cellweft._statistics import centred, unit_length
from cellweft._text import NotebookText, many, near, shorten
from cellweft._typing import BoolArray, DoubleArray, IntArray, Matrix, ProgressOption
from cellweft.tl._spatial_axis import natural_basis, quantile_knots

COLUMNS = ("type", "gene", "n_cells", "f", "p", "fdr", "r2", "peak", "rho")
"""Columns of `Trends.table`."""

_ALL = "all"  # the type of all cells without labels


@dataclass(frozen=True, kw_only=True, eq=False)
class TypeFit:
    """The regressions of all genes in the cells of one type.

    Attributes
    ----------
    n_cells
        Number of cells of the type.
    knots
        (n_knots,) positions of the spline's knots.
    at_knots
        (n_knots, n_genes) the fitted mean expression at the knots: the spline's coefficients.
    root
        (n_knots, n_knots) R of the design's QR decomposition.
    variance
        (n_genes,) variance of the residuals, with ``n_cells - n_knots`` degrees of freedom.
    grid
        (n_points,) positions from the first to the last cell, at which curves are evaluated.
    nonnegative
        (n_genes,) whether no value of the gene is below 0, as with log-normalised expression.
    """

    n_cells: int
    knots: DoubleArray
    at_knots: DoubleArray
    root: DoubleArray
    variance: DoubleArray
    grid: DoubleArray
    nonnegative: BoolArray

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the residuals."""
        return self.n_cells - len(self.knots)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Trends(NotebookText):
    """Variation of genes along an axis, for each cell type.

    Attributes
    ----------
    table
        One row per type and gene, with types in alphabetical order and genes by increasing p. Columns:
        ``type``, ``gene``; ``n_cells`` of the type; ``f`` and ``p`` of the F-test against a constant;
        ``fdr``, the p-value adjusted over the genes of the type (Benjamini-Hochberg); ``r2``, the share of
        variance that the trend explains, 0 to 1; ``peak``, the position where the fitted mean is highest;
        ``rho``, the Spearman correlation of expression and position, -1 to 1.
    left_out
        Types that were not tested, with the reason.
    genes
        (n_genes,) names, in the order of the input.
    level
        Level of the confidence bands.
    fits
        The regressions of every tested type.
    """

    table: pd.DataFrame
    left_out: dict[str, str]
    genes: NDArray[np.str_]
    level: float
    fits: dict[str, TypeFit]

    def __repr__(self) -> str:
        n_found = int((self.table["fdr"] < 0.05).sum())
        left_out = f", {len(self.left_out)} left out" if self.left_out else ""
        return (
            f"Trends({many(len(self.genes), 'gene')} in {many(len(self.fits), 'cell type')}{left_out}; "
            f"{n_found:,} with FDR below 0.05; see .table)"
        )

    def _details(self) -> str:
        return "\n".join(f"left out: {name}, {reason}" for name, reason in self.left_out.items())

    @checks_kinds
    def curves(self, gene: str, cell_type: str | None = None) -> pd.DataFrame:
        """Return the fitted mean of a gene along the axis, with its confidence band.

        Parameters
        ----------
        gene
            One of `genes`.
        cell_type
            A tested type. May be omitted if there is only one.

        Returns
        -------
        DataFrame
            ``position``, ``mean``, ``lower`` and ``upper``, in units of the expression, at positions from the
            first to the last cell of the type. The band contains the mean at each single position with the
            stated level (Student's t). It is not a simultaneous band for the whole curve, and not a band for
            single cells.

        Raises
        ------
        GeneError
            No such gene.
        KeyMissingError
            The type does not exist or was left out, or there are several and you did not name one.
        """
        fit = self._fit(cell_type)
        at = np.flatnonzero(self.genes == gene)
        if len(at) == 0:
            raise GeneError(
                "gene", expected="a gene of these trends", got=repr(gene), fix=near(str(gene), self.genes)
            )
        basis = natural_basis(fit.grid, fit.knots)  # n_points x n_knots
        mean = basis @ fit.at_knots[:, at[0]]
        # the mean's variance at b is variance * b' (R'R)^-1 b = variance * |R'^-1 b|^2
        leverage = (solve_triangular(fit.root, basis.T, trans="T") ** 2).sum(axis=0)
        half = stats.t.ppf((1 + self.level) / 2, fit.freedom) * np.sqrt(fit.variance[at[0]] * leverage)
        return pd.DataFrame({"position": fit.grid, "mean": mean, "lower": mean - half, "upper": mean + half})

    @checks_kinds
    def means(self, cell_type: str | None = None) -> pd.DataFrame:
        """Return the fitted means of all genes along the axis.

        Parameters
        ----------
        cell_type
            A tested type. May be omitted if there is only one.

        Returns
        -------
        DataFrame
            (n_points, n_genes), with positions as the index.

        Raises
        ------
        KeyMissingError
            As in `curves`.
        """
        fit = self._fit(cell_type)
        index = pd.Index(fit.grid, name="position")
        return pd.DataFrame(
            natural_basis(fit.grid, fit.knots) @ fit.at_knots, index=index, columns=self.genes
        )

    def _fit(self, cell_type: str | None) -> TypeFit:
        if cell_type is None and len(self.fits) == 1:
            return next(iter(self.fits.values()))
        if cell_type not in self.fits:
            why = self.left_out.get(str(cell_type))
            raise KeyMissingError(
                "cell_type",
                expected="a type with fitted trends",
                got=repr(cell_type) if why is None else f"{cell_type!r}, which was left out: {why}",
                fix=near(str(cell_type), self.fits),
            )
        return self.fits[cell_type]


def gene_trends(
    values: Matrix,
    position: NDArray[Any],
    *,
    genes: NDArray[Any],
    labels: NDArray[Any] | None = None,
    knots: int = 5,
    level: float = 0.95,
    n_points: int = 50,
    min_cells: int = 30,
    progress: ProgressOption = True,
) -> Trends:
    """Find the genes that vary along an axis, in each cell type.

    Parameters
    ----------
    values
        (n_cells, n_genes) log-normalised expression, dense or sparse, finite.
    position
        (n_cells,) pseudo-position of every cell, finite, in any unit: `cellweft.tl.Axis.position`.
    genes
        (n_genes,) unique names of the columns.
    labels
        (n_cells,) type of every cell; all cells are one type, "all", by default.
    knots
        Number of knots of the natural cubic spline, at least 2, which is the number of coefficients including
        the constant. Two give straight lines.
    level
        Level of the confidence bands, above 0 and below 1.
    n_points
        Number of positions at which curves are evaluated, at least 2.
    min_cells
        Types with fewer cells are left out.
    progress
        As in `cellweft.Imputer.fit`; a callback is called after each type.

    Returns
    -------
    Trends

    Raises
    ------
    InputError
        Shapes do not match, a gene name occurs twice, a cell has no label, or values are NaN or infinite.
    SettingError
        ``knots``, ``level``, ``n_points`` or ``min_cells`` is out of range.

    Notes
    -----
    The mean is fitted by ordinary least squares, with one design matrix for all genes of a type. Knots are
    quantiles of the type's positions (`cellweft.tl._spatial_axis.quantile_knots`). F = (explained / (knots -
    1)) / (residual / (n_cells - knots)). A gene that is constant in a type gets f = 0, p = 1, r2 = 0, rho = 0
    and the first position as peak, and counts as a test in the adjustment. A type is left out if it has fewer
    cells than ``min_cells``, no more cells than knots, or all cells at one position.

    The p-values assume that cells are independent and positions are known. Neighbours in a tissue are not
    fully independent, and positions from a placement were determined from expression. In that case, use
    p-values to rank genes; they do not prove a gradient. DEVIATION: the STEM paper draws polynomials of
    degree 3 without a test.

    Examples
    --------
    >>> position = np.linspace(0.0, 1.0, 40)
    >>> values = np.column_stack([3 * position, np.ones(40)])
    >>> trends = gene_trends(values, position, genes=np.array(["Rising", "Even"]))
    >>> trends.table[["gene", "p", "peak", "rho"]].round(3)
         gene    p  peak  rho
    0  Rising  0.0   1.0  1.0
    1    Even  1.0   0.0  0.0
    >>> trends.curves("Rising")["mean"].iloc[[0, -1]].round(3).tolist()
    [0.0, 3.0]
    """
    check_range("knots", knots, low=2, integer=True)
    check_range("level", level, low=1e-6, high=1 - 1e-6)
    check_range("n_points", n_points, low=2, high=10**6, integer=True)
    check_range("min_cells", min_cells, low=1, integer=True)
    matrix, position, names = _check_input(values, position, genes)
    labels = np.full(len(position), _ALL) if labels is None else labels
    types, codes = label_codes(labels, len(position))
    fits: dict[str, TypeFit] = {}
    tables, left_out = [], {}
    with progress_callback(progress) as report:
        for number, name in enumerate(map(str, types)):
            cells = np.flatnonzero(codes == number)
            at = quantile_knots(position[cells], knots)
            reason = _reason_against(len(cells), len(at), min_cells)
            if reason:
                left_out[name] = reason
            else:
                fits[name], table = _fit_type(matrix, position, cells=cells, knots=at, n_points=n_points)
                tables.append(table.assign(type=name, gene=names))
            report("cell types", number + 1, len(types))
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(COLUMNS))
    order = ["type", "p", "r2", "gene"]
    table = table.sort_values(order, ascending=[True, True, False, True], ignore_index=True)
    return Trends(table=table[list(COLUMNS)], left_out=left_out, genes=names, level=level, fits=fits)


def label_codes(
    labels: NDArray[Any], n_cells: int, *, where: str = "labels"
) -> tuple[NDArray[np.str_], IntArray]:
    """Return the types, sorted, and the index of each cell's type.

    Parameters
    ----------
    labels
        (n_cells,) labels of any kind that can be converted to text.
    n_cells
        Required number of labels.
    where
        Name of the labels in errors.

    Raises
    ------
    InputError
        Not one label per cell, or missing labels.

    Examples
    --------
    >>> label_codes(np.array(["Neuron", "Glia", "Neuron"]), 3)
    (array(['Glia', 'Neuron'], dtype='<U6'), array([1, 0, 1]))
    """
    # pandas recognises every kind of missing value
    values = array_of(where, labels, fix="Pass the labels of these cells.", numbers=False)
    column = pd.Series(values) if values.ndim == 1 else None
    n_missing = 0 if column is None else int(column.isna().sum())
    if column is None or len(column) != n_cells or n_missing:
        raise InputError(
            where,
            expected=f"one label for each of the {n_cells:,} cells",
            got=f"{n_missing:,} missing" if n_missing else f"shape {values.shape}",
            fix="Pass the labels of these cells; write 'unknown' where one is missing.",
        )
    types, codes = np.unique(column.astype(str).to_numpy(dtype=np.str_), return_inverse=True)
    return types, codes.astype(np.int64)


def _check_input(
    values: Matrix, position: NDArray[Any], genes: NDArray[Any]
) -> tuple[Matrix, DoubleArray, NDArray[np.str_]]:
    fix = "Pass arrays: expression as cells x genes, and the positions of these cells."
    matrix: Matrix = sp.csr_matrix(values) if sp.issparse(values) else array_of("values", values, fix=fix)
    along = array_of("position", position, fix=fix)
    names = array_of("genes", genes, fix="Pass the names of these genes.", numbers=False).astype(np.str_)
    if matrix.ndim != 2 or along.shape != matrix.shape[:1] or names.shape != matrix.shape[1:]:
        raise InputError(
            "values",
            expected="cells x genes, with one position per cell and one name per gene",
            got=f"shapes {matrix.shape} (values), {along.shape} (position) and {names.shape} (genes)",
            fix="Pass the positions of these cells and the names of these genes, in the same order.",
        )
    if len(along) == 0 or not np.isfinite(along).all():
        raise InputError(
            "position",
            expected="a finite position for every cell, and at least one cell",
            got=f"{int((~np.isfinite(along)).sum()):,} of {len(along):,} NaN or infinite",
            fix="Remove the cells without a position.",
        )
    twice = sorted({str(name) for name in names[pd.Index(names).duplicated()]})
    if twice:
        got = f"{shorten(twice)} more than once"
        raise InputError("genes", expected="unique names", got=got, fix="Rename or drop them.")
    return matrix, along, names


def _reason_against(n_cells: int, n_knots: int, min_cells: int) -> str:
    """Return the reason that a type cannot be fitted, or an empty text."""
    if n_cells < min_cells:
        return f"{n_cells:,} cells, fewer than min_cells={min_cells:,}"
    if n_knots < 2:
        return f"its {n_cells:,} cells are all at one position"
    if n_cells <= n_knots:
        return f"{n_cells:,} cells, not more than the {n_knots} knots"
    return ""


def _fit_type(
    matrix: Matrix, position: DoubleArray, *, cells: IntArray, knots: DoubleArray, n_points: int
) -> tuple[TypeFit, pd.DataFrame]:
    """Return the regressions of all genes in some cells, and the table of results without names."""
    along = position[cells]
    n_cells, n_knots = len(cells), len(knots)
    # the basis contains constants, so the explained variance of centred values is that of the F-test
    orthonormal, root = np.linalg.qr(natural_basis(along, knots))  # n_cells x n_knots, n_knots x n_knots
    ranks = unit_length(centred(stats.rankdata(along)))
    parts = []
    for block in _gene_blocks(matrix, cells):
        mean, deviation = block.mean(axis=0), centred(block)
        within = orthonormal.T @ deviation  # n_knots x n_block
        explained = (within**2).sum(axis=0)
        residual = ((deviation - orthonormal @ within) ** 2).sum(axis=0)
        at_knots = solve_triangular(root, within) + mean
        rho = np.clip(ranks @ unit_length(centred(stats.rankdata(block, axis=0))), -1.0, 1.0)
        parts.append(np.vstack([at_knots, explained, residual, rho, block.min(axis=0)]))
    fits = np.concatenate(parts, axis=1) if parts else np.empty((n_knots + 4, 0))
    at_knots, (explained, residual, rho, smallest) = fits[:n_knots], fits[n_knots:]
    fit = TypeFit(
        n_cells=n_cells,
        knots=knots,
        at_knots=at_knots,
        root=root,
        variance=residual / (n_cells - n_knots),
        grid=np.linspace(along.min(), along.max(), n_points),
        nonnegative=smallest >= 0,
    )
    return fit, _tested(fit, explained, residual).assign(rho=rho)


def _tested(fit: TypeFit, explained: DoubleArray, residual: DoubleArray) -> pd.DataFrame:
    """Return the F-test, its adjusted p-value, R2 and the peak of each gene."""
    numerator = explained / (len(fit.knots) - 1)
    # 0 without variance, infinite without residuals
    without_noise = np.where(explained > 0, np.inf, 0.0)
    f = np.divide(numerator, fit.variance, out=without_noise, where=fit.variance > 0)
    p = stats.f.sf(f, len(fit.knots) - 1, fit.freedom)
    total = explained + residual
    # relative to the first knot, so that the curve of a constant is exactly flat; n_points x n_genes
    curves = natural_basis(fit.grid, fit.knots) @ (fit.at_knots - fit.at_knots[0])
    return pd.DataFrame(
        {
            "n_cells": fit.n_cells,
            "f": f,
            "p": p,
            "fdr": stats.false_discovery_control(p) if len(p) else p,
            "r2": np.divide(explained, total, out=np.zeros_like(total), where=total > 0),
            "peak": fit.grid[curves.argmax(axis=0)],
        }
    )


def _gene_blocks(matrix: Matrix, cells: IntArray) -> Iterator[DoubleArray]:
    """Yield the dense expression of some cells in blocks of genes, (n_cells, n_block)."""
    by_gene: Any = sp.csc_matrix(matrix[cells]) if sp.issparse(matrix) else matrix
    for columns in row_blocks(matrix.shape[1], rows_within(BLOCK_VALUES, len(cells))):
        part = by_gene[:, columns].toarray() if sp.issparse(matrix) else by_gene[cells, columns]
        block = part.astype(np.float64)
        check_array("values", block, expected="finite values", fix="Check how the matrix was computed.")
        yield block
