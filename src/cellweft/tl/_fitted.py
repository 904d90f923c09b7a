"""A fitted Imputer with its data, or the error for one without."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cellweft._errors import NotFittedError
from cellweft.impute.fingerprint import data_like

if TYPE_CHECKING:
    from cellweft.data._pair import Pair
    from cellweft.impute.base import FittedMethod
    from cellweft.impute.imputer import Imputer


def fitted_with_data(imputer: Imputer, pair: Pair | None) -> tuple[FittedMethod, Pair]:
    """Return the fitted method and the data: ``pair``, or those of the fit.

    Parameters
    ----------
    imputer, pair
        The arguments of the caller.

    Raises
    ------
    NotFittedError
        The Imputer is not fitted, or was loaded and has no data yet.
    InputError
        The panel, reference or scale of the pair differs from those of the fit.
    """
    fitted, own_pair = imputer.fitted_, imputer.pair_
    if fitted is None or own_pair is None:
        raise NotFittedError(
            "Imputer",
            expected="a fitted Imputer",
            got="an unfitted one, or one without data",
            fix="Call fit(pair) first, or attach(pair) if it was loaded.",
        )
    return fitted, data_like(own_pair, pair)
