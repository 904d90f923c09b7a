"""Differential expression between groups of cells, from several imputations, with their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control, t

from cellweft._compute import BLOCK_GENES, progress_callback, row_blocks
from cellweft._errors import InputError, SettingError, array_of, check_array, check_known
from cellweft._typing import DoubleArray, ProgressOption
from cellweft.data.io.columns import in_order_of
from cellweft.data.io.keys import MEASURED

_COLUMNS = [
    "group", "gene", "difference", "standard_error", "statistic", "degrees_of_freedom", "pvalue", "fdr",
    "missing_information",
]  # fmt: skip

TEST_MEASUREMENT = "This gene was measured: test the measurement."
"""Advice for a gene that the panel measured."""


def pool(estimates: DoubleArray, variances: DoubleArray, degrees_of_freedom: DoubleArray) -> pd.DataFrame:
    """Pool estimates from several imputations by Rubin's rules.

    Parameters
    ----------
    estimates, variances
        (n_imputations, n_genes) from each imputation, treated as measured values.
    degrees_of_freedom
        (n_genes,) degrees of freedom if all values were measured.

    Returns
    -------
    DataFrame
        One row per gene: ``estimate``, the mean over imputations, and its ``standard_error``, including the
        uncertainty of missing values; ``degrees_of_freedom`` of the t-distribution of the estimate divided by
        its standard error; ``missing_information``, the share of information lost because values are imputed,
        0 to 1.

    Notes
    -----
    Rubin, Multiple Imputation for Nonresponse in Surveys (1987), 3.1; degrees of freedom by Barnard and
    Rubin, Biometrika 86 (1999), 948-955.

    Examples
    --------
    >>> import numpy as np
    >>> pooled = pool(np.array([[1.0], [3.0]]), np.array([[1.0], [1.0]]), np.array([100.0]))
    >>> float(pooled.estimate[0]), float(pooled.standard_error[0])  # between: 2, so 1 + 1.5 * 2
    (2.0, 2.0)
    """
    m = len(estimates)
    within, between = variances.mean(axis=0), (1 + 1 / m) * estimates.var(axis=0, ddof=1)
    total = within + between
    share = np.divide(between, total, out=np.zeros(len(total)), where=total > 0)
    degrees = degrees_of_freedom
    observed = (degrees + 1) / (degrees + 3) * degrees * (1 - share)
    with np.errstate(divide="ignore"):
        drawn = (m - 1) / share**2  # infinite if imputations do not differ
    # the harmonic sum, which is 0 if either is 0
    freedom = np.divide(1, 1 / drawn + 1 / np.maximum(observed, 1e-12))
    ratio = np.divide(between, within, out=np.full(len(total), np.inf), where=within > 0)
    ratio[between <= 0] = 0
    with np.errstate(invalid="ignore"):
        missing = np.where(np.isinf(ratio), 1.0, (ratio + 2 / (freedom + 3)) / (ratio + 1))
    return pd.DataFrame(
        {
            "estimate": estimates.mean(axis=0),
            "standard_error": np.sqrt(total),
            "degrees_of_freedom": freedom,
            "missing_information": missing,
        }
    )


def differential_expression(
    imputations: Sequence[AnnData],
    groups: str | ArrayLike,
    *,
    reference: str | None = None,
    progress: ProgressOption = True,
) -> pd.DataFrame:
    """Test which genes differ between groups of cells, over several imputations.

    Parameters
    ----------
    imputations
        Draws from `cellweft.tl.multiple_imputations`: at least 2, with the same cells and genes.
    groups
        Column of ``obs``, or (n_cells,) labels. Cells without a label are left out. The index of a pandas
        Series must contain the cell names, unless it only numbers the rows.
    reference
        Group to compare the others with; by default, each group is compared with all other labelled cells.
    progress
        As in `cellweft.Imputer.fit`; a callback is called after each imputation.

    Returns
    -------
    DataFrame
        One row per group and gene: ``difference`` of the mean log-normalised expression, group minus
        reference; its ``standard_error``, ``statistic``, ``degrees_of_freedom`` and ``pvalue`` (two-sided);
        ``fdr`` (Benjamini-Hochberg over the genes of a group); ``missing_information``, the share of the
        information that is lost because the gene was not measured, 0 to 1; ``advice``, "This gene was
        measured: test the measurement." for panel genes (``var["measured"]`` of the imputations), otherwise
        empty.

    Raises
    ------
    InputError
        Cells or genes differ between imputations, values are not finite, or there are too few imputations.
    KeyMissingError
        The column of ``obs`` does not exist.
    SettingError
        The reference is not one of the groups, or a group has fewer than two cells.

    Notes
    -----
    Each imputation gives a difference with Welch's standard error, as for measured values. Rubin's rules add
    the disagreement between imputations (see `pool`). A test on a single imputed matrix ignores this
    disagreement, so that every gene becomes significant if there are enough cells. A panel often contains too
    little information about an unmeasured gene to reach a false discovery rate of 5 %. This is the correct
    answer, and no reason to test a single matrix. Cells are treated as independent, as in any test without
    replicates, so the result only applies to this tissue.

    Examples
    --------
    >>> import numpy as np
    >>> from anndata import AnnData
    >>> stream = np.random.default_rng(0)
    >>> kind = np.repeat(["a", "b"], 50)
    >>> draws = [AnnData(stream.normal(np.arange(2) * (kind == "a")[:, None], 1)) for _ in range(5)]
    >>> table = differential_expression(draws, kind, reference="b")
    >>> table[["group", "gene"]].to_numpy().tolist(), (table["pvalue"] < 0.001).tolist()
    ([['a', '0'], ['a', '1']], [False, True])
    """
    _check_imputations(imputations)
    labels = _labels(imputations[0], groups)
    names = sorted({str(label) for label in labels if label})
    compared = _comparisons(labels, names, reference)
    members = sp.csr_matrix(np.stack([labels == name for name in names]).astype(np.float64))
    count = np.asarray(members.sum(axis=1)).ravel()
    sums = []
    with progress_callback(progress) as report:
        for one in imputations:
            sums.append(_sums(one, members))
            report("imputations", len(sums), len(imputations))
    var = imputations[0].var
    is_measured = var[MEASURED].astype(bool) if MEASURED in var else np.zeros(len(var), dtype=np.bool_)
    advice = np.where(is_measured, TEST_MEASUREMENT, "")
    tables = []
    for name in compared:
        own = np.array([name == one for one in names])
        other = ~own if reference is None else np.array([reference == one for one in names])
        results = [
            _welch(_moments(total, squares, count, own), _moments(total, squares, count, other))
            for total, squares in sums
        ]
        difference, variance, freedom = (np.stack(part) for part in zip(*results, strict=True))
        pooled = pool(difference, variance, freedom.mean(axis=0))
        tables.append(_table(name, imputations[0].var_names.astype(str), pooled).assign(advice=advice))
    return pd.concat(tables, ignore_index=True)


Moments = tuple[float, DoubleArray, DoubleArray]
"""Number of cells of a group, and mean and variance of its genes."""


def _moments(
    total: DoubleArray, squares: DoubleArray, count: DoubleArray, groups: NDArray[np.bool_]
) -> Moments:
    """Return the moments of all cells of some groups, from sums, (n_groups, n_genes)."""
    n_cells = float(count[groups].sum())
    mean = total[groups].sum(axis=0) / n_cells
    variance = (squares[groups].sum(axis=0) - n_cells * mean**2) / (n_cells - 1)
    return n_cells, mean, variance.clip(min=0)


def _welch(one: Moments, other: Moments) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
    """Return the difference of means, its variance and Welch's degrees of freedom."""
    (n_one, mean, variance), (n_other, other_mean, other_variance) = one, other
    left, right = variance / n_one, other_variance / n_other
    total = left + right
    parts = left**2 / (n_one - 1) + right**2 / (n_other - 1)
    freedom = np.divide(total**2, parts, out=np.full(len(total), n_one + n_other - 2), where=parts > 0)
    return mean - other_mean, total, freedom


def _sums(imputation: AnnData, members: sp.csr_matrix) -> tuple[DoubleArray, DoubleArray]:
    """Return sums and sums of squares of genes in groups: (n_groups, n_genes) each."""
    total, squares = np.empty((2, members.shape[0], imputation.n_vars))
    for some in row_blocks(imputation.n_vars, BLOCK_GENES):
        part = imputation.X[:, some]
        values = np.asarray(part.toarray() if hasattr(part, "toarray") else part, dtype=np.float64)
        total[:, some], squares[:, some] = members @ values, members @ values**2
    fix = "Use the matrices of cellweft.tl.multiple_imputations unchanged."
    check_array("imputations", squares, expected="finite values", fix=fix)
    return total, squares


def _table(group: str, genes: pd.Index, pooled: pd.DataFrame) -> pd.DataFrame:
    difference, error, freedom = (pooled[name].to_numpy() for name in pooled.columns[:3])
    there = error > 0
    # a gene that is constant over all cells and imputations has no difference
    statistic = np.divide(difference, error, out=np.zeros(len(genes)), where=there)
    pvalue = np.where(there, 2 * t.sf(np.abs(statistic), freedom), 1.0)
    table = pooled.rename(columns={"estimate": "difference"}).assign(
        group=group,
        gene=np.asarray(genes),
        statistic=statistic,
        pvalue=pvalue,
        fdr=false_discovery_control(pvalue) if len(pvalue) else pvalue,
    )
    return table[_COLUMNS]


def _check_imputations(imputations: Sequence[AnnData]) -> None:
    is_list = isinstance(imputations, Sequence) and all(
        isinstance(imputation, AnnData) for imputation in imputations
    )
    if not is_list and not isinstance(imputations, AnnData):
        raise InputError(
            "imputations",
            expected="a list of AnnData",
            got=f"a {type(imputations).__name__}",
            fix="Draw them with cellweft.tl.multiple_imputations.",
        )
    if isinstance(imputations, AnnData) or len(imputations) < 2:
        raise InputError(
            "imputations",
            expected="at least 2 imputations",
            got="one matrix" if isinstance(imputations, AnnData) else f"{len(imputations)}",
            fix=(
                "A single matrix does not show its own uncertainty, so its p-values are far too small. "
                "Draw several with cellweft.tl.multiple_imputations."
            ),
        )
    first = imputations[0]
    for number, imputation in enumerate(imputations):
        if not (
            imputation.obs_names.equals(first.obs_names) and imputation.var_names.equals(first.var_names)
        ):
            raise InputError(
                f"imputations[{number}]",
                expected="the cells and genes of imputations[0], in the same order",
                got=f"different ones ({imputation.n_obs} cells x {imputation.n_vars} genes)",
                fix="Use the matrices from a single call of cellweft.tl.multiple_imputations.",
            )


def _labels(imputation: AnnData, groups: str | ArrayLike) -> NDArray[np.str_]:
    """Return the group of each cell, "" for none."""
    if isinstance(groups, str):
        check_known(groups, imputation.obs, "groups", expected="a column of obs, or a label per cell")
        groups = imputation.obs[groups]
    fix = "Pass the labels of the imputed cells, in their order."
    ordered = in_order_of(groups, imputation.obs_names, argument="groups")
    values = array_of("groups", ordered, fix=fix, numbers=False)
    if values.ndim != 1:
        expected = f"{imputation.n_obs} labels, one per cell"
        raise InputError("groups", expected=expected, got=f"shape {values.shape}", fix=fix)
    labels = pd.Series(values, dtype=object)
    if len(labels) != imputation.n_obs:
        raise InputError(
            "groups",
            expected=f"{imputation.n_obs} labels, one per cell",
            got=f"{len(labels)}",
            fix="Pass the labels of the imputed cells, in the same order.",
        )
    return np.asarray(labels.where(labels.notna(), "").astype(str), dtype=np.str_)


def _comparisons(labels: NDArray[np.str_], names: list[str], reference: str | None) -> list[str]:
    """Return the groups to compare with the reference."""
    if reference is not None:
        expected = "one of the groups, or None for all other cells"
        check_known(reference, names, "reference", expected=expected, error=SettingError)
    sizes = {name: int((labels == name).sum()) for name in names}
    small = next((name for name, size in sizes.items() if size < 2), None)
    if small is not None or len(names) < 2:
        raise SettingError(
            "groups",
            expected="at least 2 groups of at least 2 cells each",
            got=f"{len(names)} groups" if small is None else f"{sizes[small]} cell in {small!r}",
            fix="Merge small groups, or set the label of their cells to None.",
        )
    return [name for name in names if name != reference]
