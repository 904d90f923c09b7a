"""Multiple imputation: several matrices that might have been measured, instead of their mean."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from anndata import AnnData

from cellweft._compute import READ_ROWS, numpy_stream, parse_memory, progress_callback, row_blocks
from cellweft._errors import (
    InputError,
    MemoryBudgetError,
    NotFittedError,
    arg,
    check_range,
    check_seed,
    checks_kinds,
)
from cellweft._text import enough_bytes
from cellweft._typing import ProgressOption
from cellweft.data.io.keys import RECORD
from cellweft.impute.uncertainty.count_model import check_counts
from cellweft.tl._fitted import fitted_with_data

if TYPE_CHECKING:
    from cellweft._typing import DoubleArray, FloatArray, ResultScale
    from cellweft.data._pair import Pair
    from cellweft.impute.base import FittedMethod
    from cellweft.impute.imputer import Imputer
    from cellweft.impute.uncertainty.count_model import CountModel
    from cellweft.impute.uncertainty.prediction_intervals import Intervals


@checks_kinds
def multiple_imputations(
    imputer: Imputer,
    genes: Iterable[str] | None = None,
    *,
    n: int = 5,
    scale: ResultScale = "log",
    pair: Pair | None = None,
    seed: int = 0,
    memory: str | int = "4 GB",
    progress: ProgressOption = True,
) -> list[AnnData]:
    """Draw several matrices of plausible measurements.

    Parameters
    ----------
    imputer
        A fitted Imputer with intervals.
    genes
        Names of genes of the reference; all by default.
    n
        Number of draws, at least 2. `cellweft.tl.differential_expression` gains power up to about 20.
    scale
        "log" for log-normalised expression, or "counts" for whole numbers from the fitted count model, for
        tools that expect counts. "counts" requires spatial data that are counts.
    pair
        Data to impute; by default those passed to `fit` or `attach`.
    seed
        Random seed. The draws of a gene depend only on the seed, its name and its prediction, not on the
        other genes or on ``n``.
    memory
        Budget for the whole process, including all results.
    progress
        True shows a bar in terminals and notebooks, False shows nothing; a callback is called with (stage,
        done, total) while genes are imputed, and after each matrix.

    Returns
    -------
    list of AnnData
        As from `Imputer.impute`, with the draws in ``X`` (float32, on the requested scale, including zeros).
        ``uns["cellweft"]["imputation"]`` contains the number of the draw and of all draws.

    Raises
    ------
    NotFittedError
        The Imputer has no intervals, or no count model.
    ScaleError
        Counts were requested, but the spatial data are not counts.
    GeneError
        A gene is not in the reference.
    MemoryBudgetError
        The results do not fit in the budget.
    SettingError
        ``n`` or ``seed`` is out of range.

    Notes
    -----
    Rubin (1987). See `cellweft.impute.uncertainty.prediction_intervals.Intervals.draw`. Most of the error of
    a gene is drawn for the gene as a whole, for its slope and for groups of cells, not cell by cell. The
    errors are as large as those of panel genes that were predicted from the others. Repeat your analysis with
    each matrix; the spread of the results is part of the answer. Panel genes are drawn around their
    predictions too. Use the measurement of such genes instead.

    Counts are drawn by `cellweft.impute.uncertainty.count_model.CountModel.draw`: a level for the gene as a
    whole, the same errors of slope and of groups of cells, and a count for each cell. The distribution is
    Poisson, negative binomial, Poisson log-normal or zero-inflated, whichever had the highest likelihood for
    held-out panel genes; ``uns["cellweft"]["count_model"]`` names it.

    Examples
    --------
    >>> import cellweft
    >>> tissue = cellweft.datasets.simulate_tissue(n_spatial=120, n_reference=80, n_genes=24, n_panel=12)
    >>> imputer = cellweft.Imputer(settings={"steps": 5, "level_steps": 5})
    >>> draws = multiple_imputations(imputer.fit(cellweft.pair(tissue.sc, tissue.st)), ["Gene03"], n=2)
    >>> [one.shape for one in draws]
    [(120, 1), (120, 1)]
    """
    check_range("n", n, low=2, integer=True)
    if not hasattr(imputer, "fitted_"):
        got = f"a {type(imputer).__name__}"
        fix = "Fit one: cellweft.Imputer().fit(pair)."
        raise InputError("imputer", expected="a fitted Imputer", got=got, fix=fix)
    check_seed(seed)
    fitted, intervals, pair = _fitted(imputer, pair)
    check_counts(pair, scale)
    counts = _count_model(fitted) if scale == "counts" else None
    with progress_callback(progress) as report:
        imputed = imputer.impute(genes, pair=pair, scale=scale, memory=memory, progress=report)
        _check_memory(imputed, n, memory)
        predicted, similarity, state = np.asarray(imputed.X), fitted.similarity(pair), _state(intervals, pair)
        if similarity is None:
            similarity = np.full(imputed.n_obs, np.nan)
        results, drawn = [], {} if counts is None else {"scale": "counts: as they might have been measured"}
        for number in range(n):
            imputation = AnnData(
                np.empty(imputed.shape, dtype=np.float32),
                obs=imputed.obs.copy(),
                var=imputed.var.copy(),
                obsm={key: value.copy() for key, value in imputed.obsm.items()},
                uns={
                    RECORD: imputed.uns[RECORD]
                    | drawn
                    | {"imputation": {"number": number, "of": n, "seed": seed}}
                },
            )
            for place, gene in enumerate(imputed.var_names):
                column = predicted[:, place : place + 1]
                generator = numpy_stream(seed, f"imputation.{number}.{gene}")
                imputation.X[:, place] = (
                    intervals.draw(column, similarity=similarity, generator=generator, state=state)
                    if counts is None
                    else counts.draw(column, generator=generator, effects=intervals.effects, state=state)
                )[:, 0]
            results.append(imputation)
            report("draw imputations", number + 1, n)
    return results


def _fitted(imputer: Imputer, pair: Pair | None) -> tuple[FittedMethod, Intervals, Pair]:
    fitted, pair = fitted_with_data(imputer, pair)
    if fitted.intervals is None:
        preset = arg("preset", "auto")
        raise NotFittedError(
            "Imputer.intervals_",
            expected="intervals, from which the matrices are drawn",
            got=f"none of preset={imputer.preset!r} with reliability={imputer.reliability}",
            fix="Use " + preset + " with " + arg("reliability", True) + ", and a panel of at least 6 genes.",
        )
    return fitted, fitted.intervals, pair


def _count_model(fitted: FittedMethod) -> CountModel:
    if fitted.count_model is None:
        raise NotFittedError(
            "scale",
            expected="an Imputer that has learned a count model from counts of the panel",
            got="one without",
            fix="Fit it to spatial counts with at least 6 panel genes that have counts.",
        )
    return fitted.count_model


def _check_memory(imputed: AnnData, n: int, memory: str | int) -> None:
    need = (n + 1) * 4 * imputed.n_obs * imputed.n_vars
    if need > parse_memory(memory):
        raise MemoryBudgetError(
            "memory",
            expected=f"at least {enough_bytes(need)} for {n} matrices and their mean",
            got=str(memory),
            fix="Raise the budget, or request fewer genes or imputations.",
        )


def _state(intervals: Intervals, pair: Pair) -> DoubleArray:
    """Return the cells' principal components of the measured panel, (n_cells, n_components)."""
    parts = [np.empty((0, intervals.loadings.shape[1]))]
    for rows in row_blocks(pair.st.n_cells, READ_ROWS):
        measured: FloatArray = pair.st.dense(rows, pair.st_shared)
        parts.append(intervals.state(measured))
    return np.concatenate(parts)
