"""Matches the gene names of a table or set with those of the reference."""

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
"""Next step if no gene matches."""


def match_known(
    asked: Sequence[str] | NDArray[Any],
    there: NDArray[np.str_],
    *,
    source: str,
    kind: str,
    fix: str = SAME_NAMES,
) -> tuple[GeneMatch, BoolArray]:
    """Match genes by name; raise `GeneError` with examples of both sides if none matches.

    Parameters
    ----------
    asked, there
        Gene names of the dataset, and of the source.
    source
        Name of the source in errors.
    kind
        Contents of the source, for the message.
    fix
        The next step.

    Returns
    -------
    match, known
        The matched positions, and (n_asked,) which of the genes are known.

    Raises
    ------
    GeneError
        None matches.
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
