"""Gene names of a table or set matched with those of the reference."""

from __future__ import annotations

from collections.abc import Iterable

from cellweft._errors import GeneError
from cellweft._text import shorten

SAME_NAMES = "Take one of the same species, with names of the same kind (symbols or Ensembl IDs)."
"""What to do where no gene is known."""


def check_any_known(
    n_known: int,
    asked: Iterable[object],
    there: Iterable[object],
    *,
    source: str,
    kind: str,
    fix: str = SAME_NAMES,
) -> None:
    """Raise `GeneError` with examples of both namings, where none of the genes is known.

    Parameters
    ----------
    n_known
        How many are known.
    asked, there
        Names of the dataset's genes, and of the source's.
    source
        Where the source is.
    kind
        What it holds, for the message.
    fix
        The next step.

    Raises
    ------
    GeneError
        None is known.
    """
    if not n_known:
        names = [[str(one) for one, _ in zip(some, range(3), strict=False)] for some in (asked, there)]
        raise GeneError(
            source,
            expected=f"{kind} of genes such as {shorten(names[0])}",
            got=f"none of them; its genes are such as {shorten(names[1])}",
            fix=fix,
        )
