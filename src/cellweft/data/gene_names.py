"""Matching the gene names of two sides, without renaming anything.

Names are compared exactly first, then without case (mouse `Gad1`, human `GAD1`). Where one side is named by
Ensembl IDs and the other is not, a column of `var` that holds the other kind of name is the bridge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellweft._errors import GeneError, check_known
from cellweft._text import shorten
from cellweft._typing import IntArray

_ENSEMBL = r"^ENS[A-Z]{0,5}G\d{6,}(?:\.\d+)?$"

_SYMBOL_COLUMNS = (
    "gene_symbol", "gene_symbols", "symbol", "gene_name", "gene_names", "feature_name", "gene_short_name",
)  # fmt: skip

_ID_COLUMNS = ("gene_ids", "gene_id", "ensembl_id", "ensembl_ids", "ensembl", "ensembl_gene_id", "feature_id")


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneMatch:
    """The genes that two sides share.

    Attributes
    ----------
    first, second
        (n_shared,) positions of each shared gene on both sides, in the order of the first side's names.
    by_case
        Pairs of names that differ in case alone.
    ambiguous
        Names of the first side left out because several names of a side differ from them in case alone.
    bridge
        How Ensembl IDs were matched, in words; empty where the names themselves matched.
    """

    first: IntArray
    second: IntArray
    by_case: tuple[tuple[str, str], ...]
    ambiguous: tuple[str, ...]
    bridge: str = ""


def match_genes(
    first: Sequence[str] | NDArray[np.str_], second: Sequence[str] | NDArray[np.str_]
) -> GeneMatch:
    """Match names exactly, and those that are left without case.

    Parameters
    ----------
    first, second
        Names of the genes of both sides, each without exact duplicates.

    Examples
    --------
    >>> found = match_genes(["Gad1", "Sst", "Vip"], ["VIP", "Gad1", "Lamp5"])
    >>> found.first, found.second, found.by_case
    (array([0, 2]), array([1, 0]), (('Vip', 'VIP'),))
    """
    place = {str(name): number for number, name in enumerate(second)}
    pairs = [(number, place[str(name)]) for number, name in enumerate(first) if str(name) in place]
    taken_first, taken_second = {one for one, _ in pairs}, {two for _, two in pairs}
    left_first = _by_lower(first, taken_first)
    left_second = _by_lower(second, taken_second)
    by_case, ambiguous = [], []
    for lower in left_first.keys() & left_second.keys():
        ones, twos = left_first[lower], left_second[lower]
        if len(ones) == len(twos) == 1:
            pairs.append((ones[0], twos[0]))
            by_case.append((str(first[ones[0]]), str(second[twos[0]])))
        else:
            ambiguous += [str(first[one]) for one in ones]
    pairs.sort()
    return GeneMatch(
        first=np.array([one for one, _ in pairs], dtype=np.int64),
        second=np.array([two for _, two in pairs], dtype=np.int64),
        by_case=tuple(sorted(by_case)),
        ambiguous=tuple(sorted(ambiguous)),
    )


def match_sides(
    first: NDArray[np.str_], second: NDArray[np.str_], *, first_var: pd.DataFrame, second_var: pd.DataFrame
) -> GeneMatch:
    """Match two sides by name, or where one is named by Ensembl IDs and the other not, through `var`.

    Parameters
    ----------
    first, second
        (n_genes,) names of both sides.
    first_var, second_var
        The annotation of these genes, row by row.
    """
    best = match_genes(first, second)
    first_ids, second_ids = looks_like_ensembl(first), looks_like_ensembl(second)
    if first_ids and second_ids:
        bare = without_version(first), without_version(second)
        return _better(best, *bare, "Ensembl IDs without their version")
    if first_ids == second_ids:
        return best
    sides = (first, first_var, "reference"), (second, second_var, "spatial data")
    (names, var, side), (other, other_var, other_side) = sides if first_ids else sides[::-1]
    column = id_column(other_var)
    if column is not None:
        keys, ids = without_version(names), without_version(other_var[column])
        how = f"Ensembl IDs of the {side} matched through var[{column!r}] of the {other_side}"
        best = _better(best, *((keys, ids) if first_ids else (ids, keys)), how)
    column = symbol_column(var)
    if column is not None:
        symbols = _text(var[column])
        how = f"symbols of the {other_side} matched through var[{column!r}] of the {side}"
        best = _better(best, *((symbols, other) if first_ids else (other, symbols)), how)
    return best


def find_names(names: Iterable[str], known: Sequence[str] | NDArray[np.str_], *, where: str) -> IntArray:
    """Return the positions of names among the known ones: exact first, then without case.

    Parameters
    ----------
    names
        Those to find.
    known
        Those to find them among.
    where
        What errors call the names.

    Raises
    ------
    GeneError
        A name is unknown, or stands for several known names that differ in case alone.

    Examples
    --------
    >>> find_names(["gad1", "Sst"], ["Sst", "Gad1"], where="genes")
    array([1, 0])
    """
    exact = {str(name): number for number, name in enumerate(known)}
    lower: dict[str, list[int]] | None = None
    found = []
    for name in names:
        if name in exact:
            found.append(exact[name])
            continue
        lower = _by_lower(known, set()) if lower is None else lower
        places = lower.get(str(name).lower(), [])
        if not places:
            check_known(str(name), exact, where, expected="a gene that is there", error=GeneError)
        if len(places) > 1:
            got = f"{str(name)!r}, which may be {shorten([str(known[place]) for place in places])}"
            raise GeneError(where, expected="one gene", got=got, fix="Spell it exactly.")
        found.append(places[0])
    return np.array(found, dtype=np.int64)


def duplicates_of(names: Iterable[str]) -> list[str]:
    """Return the names that stand more than once, in order.

    Examples
    --------
    >>> duplicates_of(["a", "b", "a"])
    ['a']
    """
    return [name for name, times in Counter(map(str, names)).items() if times > 1]


def looks_like_ensembl(names: Iterable[str]) -> bool:
    """Say whether most of the names are Ensembl gene IDs.

    Examples
    --------
    >>> looks_like_ensembl(["ENSG00000139618.14", "ENSMUSG00000017167"])
    True
    """
    text = pd.Series(list(names), dtype=object).astype(str)
    return bool(len(text)) and float(text.str.match(_ENSEMBL).mean()) > 0.5


def without_version(names: Iterable[str]) -> NDArray[np.str_]:
    """Return Ensembl IDs without the version behind the dot; other names as they are."""
    text = pd.Series(list(names), dtype=object).astype(str)
    is_id = text.str.match(_ENSEMBL)
    return _text(text.where(~is_id, text.str.partition(".")[0]))


def id_column(var: pd.DataFrame) -> str | None:
    """Return the first column of ``var`` that holds Ensembl IDs, or None."""
    texts = [name for name in var.columns if not pd.api.types.is_numeric_dtype(var[name])]
    return next((name for name in texts if looks_like_ensembl(var[name])), None)


def symbols_and_ids(names: NDArray[np.str_], var: pd.DataFrame) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """Return symbols and IDs of genes, as far as their names and annotation tell them; empty elsewhere.

    Parameters
    ----------
    names
        (n_genes,) names, which are the IDs where they are of Ensembl, else the symbols.
    var
        The annotation of these genes, row by row: IDs stand in a column of a usual name, or in one that holds
        Ensembl IDs.

    Examples
    --------
    >>> symbols_and_ids(np.array(["Gad1"]), pd.DataFrame({"gene_ids": ["ENSMUSG00000070880"]}))
    (array(['Gad1'], dtype='<U4'), array(['ENSMUSG00000070880'], dtype='<U18'))
    """
    is_ids = looks_like_ensembl(names)
    known = {str(name).lower(): name for name in var.columns}
    column = next((known[name] for name in _ID_COLUMNS if name in known), None)
    column = symbol_column(var) if is_ids else id_column(var) if column is None else column
    other = np.full(len(names), "") if column is None else _text(var[column].astype(object).fillna(""))
    return (other, names) if is_ids else (names, other)


def symbol_column(var: pd.DataFrame) -> str | None:
    """Return the column of ``var`` that by its name holds gene symbols, or None."""
    known = {str(name).lower(): name for name in var.columns}
    return next((known[name] for name in _SYMBOL_COLUMNS if name in known), None)


def _better(best: GeneMatch, first: NDArray[np.str_], second: NDArray[np.str_], bridge: str) -> GeneMatch:
    """Match other names of the same genes, and keep that match where it shares more.

    Names that stand twice on a side cannot tell which gene is meant and are taken out.
    """
    places = [np.flatnonzero(~pd.Index(names).duplicated(keep=False)) for names in (first, second)]
    found = match_genes(first[places[0]], second[places[1]])
    if len(found.first) <= len(best.first):
        return best
    return replace(found, first=places[0][found.first], second=places[1][found.second], bridge=bridge)


def _by_lower(names: Sequence[str] | NDArray[np.str_], taken: set[int]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        if number not in taken:
            places.setdefault(str(name).lower(), []).append(number)
    return places


def _text(values: Iterable[object]) -> NDArray[np.str_]:
    return np.array([str(value) for value in values], dtype=np.str_)
