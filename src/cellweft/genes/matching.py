"""Gene names of a table or set matched with those of the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellweft._errors import GeneError
from cellweft._text import shorten
from cellweft._typing import BoolArray
from cellweft.data.gene_names import GeneMatch, match_genes

SAME_NAMES = "Use one from the same species, with the same kind of names (symbols or Ensembl IDs)."
"""What to do where no gene is known."""


def match_known(
    asked: Sequence[str] | NDArray[Any],
    there: NDArray[np.str_],
    *,
    source: str,
    kind: str,
    fix: str = SAME_NAMES,
) -> tuple[GeneMatch, BoolArray]:
    """Match genes by name, or raise `GeneError` with examples of both namings, where none is known.

    Parameters
    ----------
    asked, there
        Names of the dataset's genes, and of the source's.
    source
        Where the source is.
    kind
        What it contains, for the message.
    fix
        The next step.

    Returns
    -------
    match, known
        The matched positions, and (n_asked,) which of the genes are known.

    Raises
    ------
    GeneError
        None is known.
    """
    match = match_genes(asked, there)
    if not len(match.first):
        names = [[str(name) for name in some[:3]] for some in (asked, there)]
        raise GeneError(
            source,
            expected=f"{kind} of genes such as {shorten(names[0])}",
            got=f"none of them; it has genes such as {shorten(names[1])}",
            fix=fix,
        )
    is_known = np.zeros(len(asked), dtype=bool)
    is_known[match.first] = True
    return match, is_known
