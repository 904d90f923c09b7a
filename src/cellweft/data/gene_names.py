"""Matching the gene names of two sides.

Names are compared exactly, then ignoring case (mouse `Gad1`, human `GAD1`), then by the spellings that tools
use for one name (`HLA-A`, R's `HLA.A`, `GRCh38_HLA-A`). If few match, they are matched through columns of
`var` with other gene names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellweft._errors import GeneError, check_known
from cellweft._text import shorten
from cellweft._typing import IntArray
from cellweft.data.io.columns import plain_name
from cellweft.data.io.sanitize import GENE_NAMES

_ENSEMBL = r"^ENS[A-Z]{0,5}G\d{6,}(?:\.\d+)?$"

_SYMBOL_COLUMNS = (
    "gene_symbol", "gene_symbols", "symbol", "symbols", "gene_name", "gene_names", "feature_name",
    "feature_names", "gene_short_name", "genesymbol", "genename", "external_gene_name", "hgnc_symbol",
    "mgi_symbol", "gene", "genes", "name", "names",
)  # fmt: skip

_ID_COLUMNS = ("gene_ids", "gene_id", "ensembl_id", "ensembl_ids", "ensembl", "ensembl_gene_id", "feature_id")
_ENTREZ_COLUMNS = (
    "entrez",
    "entrez_id",
    "entrez_ids",
    "entrezid",
    "entrez_gene_id",
    "ncbi_gene_id",
    "gene_entrez_id",
)

_GENOME = re.compile(
    r"^(?:(?:GRC[a-z]\d+|hg\d+|mm\d+|rn\d+|danRer\d+|dm\d+|ce\d+|T2T|mRatBN\d|Rnor)"
    r"(?:[A-Za-z0-9.\-]*_+|[:\-]+)|(?:gene|rna)[-_:]+)(?=.)",
    re.IGNORECASE,
)
_ID_BESIDE = re.compile(
    r"^ENS[A-Z]{0,5}G\d{6,}(?:\.\d+)?[-_|:; ]+(?!PAR_)(?=[A-Za-z])"
    r"|(?<=.)[-_.|:; ]+\(?ENS[A-Z]{0,5}G\d{6,}.*$"
)
"""An Ensembl ID before or after a symbol in one name."""
_NUMBERED = re.compile(r"^(?:V|X|Unnamed: |col(?:umn)?[-_. ]?|var[-_. ]?)?(\d+)(?:\.0)?$")
_NUMBERED_GENE = re.compile(r"^(?:gene|feature|target|transcript|g)s?[-_. ]?(\d+)$", re.IGNORECASE)
_CELL_NAME = re.compile(
    r"^(?:.*[ACGTN]{10,}.*|(?:.*[-_. ])?(?:cell|spot|bin|nucleus)[-_. ]?\w*\d+|c(?:_\d+)+|[a-p]{8}-\d+|\d+)$",
    re.IGNORECASE,
)

_FEW = 0.5
"""If a smaller share of the smaller side matches by name, other gene names are searched."""


ORTHOLOG_OF = "ortholog_of"
"""Column of ``var`` with the original names of genes that were renamed to their orthologs."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneMatch:
    """The genes that two sides share.

    Attributes
    ----------
    first, second
        (n_shared,) positions of each shared gene on both sides, in the order of the first side's names.
    by_case
        Pairs of names that differ only in case.
    by_spelling
        Pairs of names that are spellings of one name: separators, a genome prefix, the version of an ID.
    ambiguous
        Names of the first side left out because several names of a side differ from them only in case or
        spelling.
    bridge
        The columns of ``var`` used for matching, as text; empty if the names themselves matched.
    """

    first: IntArray
    second: IntArray
    by_case: tuple[tuple[str, str], ...]
    by_spelling: tuple[tuple[str, str], ...] = ()
    ambiguous: tuple[str, ...]
    bridge: str = ""


def match_genes(
    first: Sequence[str] | NDArray[np.str_], second: Sequence[str] | NDArray[np.str_]
) -> GeneMatch:
    """Match names exactly, then the others ignoring case, and then by spelling.

    Parameters
    ----------
    first, second
        Names of the genes of both sides, each without exact duplicates.

    Examples
    --------
    >>> found = match_genes(["Gad1", "Sst", "Vip", "HLA-A"], ["VIP", "Gad1", "Lamp5", "HLA.A"])
    >>> found.first, found.second, found.by_case, found.by_spelling
    (array([0, 2, 3]), array([1, 0, 3]), (('Vip', 'VIP'),), (('HLA-A', 'HLA.A'),))
    """
    pairs: list[tuple[int, int]] = []
    used: tuple[set[int], set[int]] = set(), set()
    by_key: dict[Callable[[str], str], list[tuple[str, str]]] = {}
    ambiguous: list[str] = []
    for key in _KEYS:
        left = _by_key(first, key, used[0]), _by_key(second, key, used[1])
        by_key[key] = []
        for same in left[0].keys() & left[1].keys():
            ones, twos = left[0][same], left[1][same]
            used[0].update(ones)
            used[1].update(twos)
            if len(ones) == len(twos) == 1:
                pairs.append((ones[0], twos[0]))
                by_key[key].append((str(first[ones[0]]), str(second[twos[0]])))
            else:
                ambiguous += [str(first[place]) for place in ones]
    pairs.sort()
    return GeneMatch(
        first=np.array([place for place, _ in pairs], dtype=np.int64),
        second=np.array([two for _, two in pairs], dtype=np.int64),
        by_case=tuple(sorted(by_key[str.lower])),
        by_spelling=tuple(sorted(by_key[spelling_free])),
        ambiguous=tuple(sorted(ambiguous)),
    )


def spelling_free(name: str) -> str:
    """Return a name without the changes that tools make.

    Removed are blanks and quotes at its ends, the b of bytes written as text, a genome prefix (or ``gene-``,
    ``rna_``), an Ensembl ID next to a symbol, the version of an Ensembl ID, the ``.0`` of a number, and the X
    that R adds before a digit; ``-``, ``_``, ``.``, other hyphens and blanks are treated as the same
    character.

    Examples
    --------
    >>> [spelling_free(name) for name in ("GRCh38_HLA-A", "HLA.A ", "X1700020I14Rik", "ENSG00000139618.14")]
    ['hla-a', 'hla-a', '1700020i14rik', 'ensg00000139618']
    >>> [spelling_free(name) for name in ("mm10-Gad1", "gene-Gad1", "ENSMUSG00000070880|Gad1")]
    ['gad1', 'gad1', 'gad1']
    """
    bare = _GENOME.sub("", re.sub(r"^b(?=['\"])", "", name.strip()).strip("'\"\ufeff").strip())
    if re.match(_ENSEMBL, bare):
        bare = bare.partition(".")[0]
    bare = re.sub(r"^(\d+)\.0$", r"\1", _ID_BESIDE.sub("", bare))
    return re.sub(r"[-_. \u2010-\u2015]", "-", re.sub(r"^x(?=\d)", "", bare.lower()))


_KEYS: tuple[Callable[[str], str], ...] = (str, str.lower, spelling_free)
"""Functions for comparing names, from strict to loose."""


def genomes_of(names: Iterable[str]) -> list[str]:
    """Return the genomes that occur as a prefix of at least one gene name in a hundred.

    Examples
    --------
    >>> genomes_of(["hg38_GAD1", "hg38_SST", "mm10___Gad1"]), genomes_of(["gene-GAD1", "HLA-A"])
    (['hg38', 'mm10'], [])
    """
    texts = [*map(str, names)]
    counts = Counter(match[0].rstrip("_-:") for match in map(_GENOME.match, texts) if match)
    return sorted(
        name for name, times in counts.items() if times >= len(texts) / 100 and name not in ("gene", "rna")
    )


def match_sides(
    first: NDArray[np.str_], second: NDArray[np.str_], *, first_var: pd.DataFrame, second_var: pd.DataFrame
) -> GeneMatch:
    """Match two sides by name, or, if few names match, through columns of `var` with other names.

    Parameters
    ----------
    first, second
        (n_genes,) names of both sides.
    first_var, second_var
        The annotation of these genes, row by row.
    """
    best = match_genes(first, second)
    if looks_like_ensembl(first) and looks_like_ensembl(second):
        bare = without_version(first), without_version(second)
        by_name = len(best.first) - len(best.by_spelling)
        best = _better(best, *bare, "Ensembl IDs without their version", most=by_name)
    if len(best.first) >= _FEW * min(len(first), len(second)):
        return best
    for column, names in _other_names(first, first_var):
        for other_column, other_names in _other_names(second, second_var):
            if column or other_column:
                how = _bridge((names, column, "reference"), (other_names, other_column, "spatial data"))
                best = _better(best, names, other_names, how)
    if len(best.first) >= _FEW * min(len(first), len(second)):
        return best
    return _without_common_parts(best, first, second)


def _without_common_parts(best: GeneMatch, first: NDArray[np.str_], second: NDArray[np.str_]) -> GeneMatch:
    """Match names without their common prefix or suffix, and use this match if it shares more genes."""
    bare = _without_common_part(first), _without_common_part(second)
    for first_names, second_names in ((bare[0], second), (first, bare[1]), bare):
        match = match_genes(first_names, second_names)
        if len(match.first) > len(best.first):
            pairs = zip(first[match.first].tolist(), second[match.second].tolist(), strict=True)
            best = replace(match, by_case=(), by_spelling=tuple(sorted(pairs)))
    return best


def _without_common_part(names: NDArray[np.str_]) -> NDArray[np.str_]:
    """Return names without their common prefix and suffix, up to a separator: ``mouse_`` or ``-1``."""
    texts = [str(name) for name in names]
    for _ in range(2 if len(texts) > 1 else 0):  # at both ends
        least, most = min(texts), max(texts)
        pairs = zip(least, most, strict=False)  # all others are between them
        common = "".join(character for character, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        n_common = 1 + max(common.rfind(sign) for sign in "-_.:|/ ")
        texts = [text[n_common:][::-1] for text in texts]
    return names if are_numbers(texts) else _text(texts)


_Named = tuple[NDArray[np.str_], str, str]  # names, their column of var, and the input


def _bridge(first: _Named, second: _Named) -> str:
    """Return a text with the columns of `var` used for matching."""
    if first[1] and second[1]:
        return f"var[{first[1]!r}] of the {first[2]} and var[{second[1]!r}] of the {second[2]}"
    (names, _, side), (_, column, other) = (first, second) if second[1] else (second, first)
    kind = "Ensembl IDs" if looks_like_ensembl(names) else "numbers" if are_numbers(names) else "symbols"
    return f"{kind} of the {side} matched through var[{column!r}] of the {other}"


def _other_names(names: NDArray[np.str_], var: pd.DataFrame) -> Iterator[tuple[str, NDArray[np.str_]]]:
    """Yield the gene names, and those in each column of `var` that may contain names, with the column."""
    yield "", names
    usual = [*_SYMBOL_COLUMNS, *_ID_COLUMNS]
    columns = sorted(name_columns(var), key=lambda name: _rank(plain_name(name), usual))
    for column in columns:
        values = _column_text(var[column])
        yield column, without_version(values) if looks_like_ensembl(values) else values


def name_columns(var: pd.DataFrame) -> list[str]:
    """Return the columns of ``var`` that may contain gene names: text with few duplicates, or Entrez IDs."""
    columns = []
    for name in var.columns[~var.columns.duplicated()]:
        column = var[name]
        is_text = not (pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column))
        if plain_name(str(name)) in _ENTREZ_COLUMNS or (is_text and column.nunique() > 0.5 * len(column)):
            columns.append(name)
    return columns


def names_in(var: pd.DataFrame) -> list[NDArray[np.str_]]:
    """Return the names in each of these columns, as text."""
    return [var[name].astype(str).to_numpy(np.str_) for name in name_columns(var)]


def _rank(name: str, usual: Sequence[str]) -> int:
    return usual.index(name) if name in usual else len(usual)


def are_numbers(names: Iterable[str]) -> bool:
    """Return whether all names are whole numbers, as Entrez gene IDs are."""
    texts = [str(name) for name in names]
    return bool(texts) and all(re.fullmatch(r"\d+(?:\.0)?", text) for text in texts)


def only_count(names: Iterable[str]) -> bool:
    """Return whether names only count the columns, from 0 or from 1: 0, 1, 2 ... or R's V1, V2 ...

    Numbers with gaps also count columns if they include 0, because no gene has this ID.

    Examples
    --------
    >>> only_count(["0", "1", "2"]), only_count(["V1", "V2"]), only_count(["2571", "6750"])
    (True, True, False)
    """
    matches = [_NUMBERED.match(str(name)) for name in names]
    numbers = [int(match[1]) for match in matches if match]
    if len(numbers) < len(matches) or len(numbers) < 2:
        return False
    least, most = min(numbers), max(numbers)
    return least == 0 or (least == 1 and most == len(numbers))


def only_number(names: Iterable[str]) -> bool:
    """Return whether names are a word followed by all numbers from 0 or 1: gene_0, gene_1 ...

    Examples
    --------
    >>> only_number(["Gene2", "Gene1"]), only_number(["Gene2", "Gene7"]), only_number(["Gad1", "Gad2"])
    (True, False, False)
    """
    matches = [_NUMBERED_GENE.match(str(name)) for name in names]
    numbers = sorted({int(match[1]) for match in matches if match})
    return (
        len(numbers) == len(matches) > 1
        and numbers[0] in (0, 1)
        and numbers[-1] - numbers[0] + 1 == len(numbers)
    )


def are_one_series(names: Iterable[str]) -> bool:
    """Return whether names are one word followed by numbers: S1, S2, S3.

    Examples
    --------
    >>> are_one_series(["S1", "S2", "S10"]), are_one_series(["Gad1", "Gad2", "Sst"])
    (True, False)
    """
    words = {re.fullmatch(r"(.*?)\d+", str(name)) for name in names}
    return bool(words) and None not in words and len({match[1] for match in words if match}) == 1


def holds_gene_names(column: str) -> bool:
    """Return whether a column has a name that suggests gene symbols or IDs."""
    return plain_name(column) in (*_SYMBOL_COLUMNS, *_ID_COLUMNS)


def look_like_cells(names: Iterable[str]) -> bool:
    """Return whether most names look like those of cells: barcodes, cell_12, numbers.

    Examples
    --------
    >>> look_like_cells(["AAACCTGAGAAACCAT-1", "AAACCTGAGAAACCGC-1"]), look_like_cells(["Gad1", "CELA3A"])
    (True, False)
    """
    texts = [str(name) for name in names]
    return bool(texts) and sum(bool(_CELL_NAME.match(text)) for text in texts) > 0.5 * len(texts)


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneNames:
    """The names of the genes of a side.

    Attributes
    ----------
    names
        (n_genes,) names in the pair.
    input_names
        (n_genes,) names in the input.
    symbols, gene_ids
        (n_genes,) symbols and IDs, empty if neither side contains them.
    """

    names: NDArray[np.str_]
    input_names: NDArray[np.str_]
    symbols: NDArray[np.str_]
    gene_ids: NDArray[np.str_]


def own_names(names: NDArray[np.str_], var: pd.DataFrame) -> GeneNames:
    """Return the names of the genes of one side, with its own spelling; ``var`` is their annotation."""
    symbols, gene_ids = symbols_and_ids(names, var)
    input_names = _text(var[ORTHOLOG_OF]) if ORTHOLOG_OF in var else names
    return GeneNames(names=names, input_names=input_names, symbols=symbols, gene_ids=gene_ids)


def other_names(var: pd.DataFrame) -> list[NDArray[np.str_]]:
    """Return the other gene names in the table of a result, each (n_genes,)."""
    return [_column_text(var[name]) for name in GENE_NAMES if name in var]


def shown_names(var: pd.DataFrame) -> list[str]:
    """Return names of a result's genes for display: the symbol if the name is an ID.

    Examples
    --------
    >>> shown_names(pd.DataFrame({"symbol": ["GAD1", ""]}, index=["ENSG00000128683", "ENSG00000157005"]))
    ['GAD1', 'ENSG00000157005']
    """
    names = var.index.astype(str).to_numpy(dtype=object)
    if "symbol" not in var or not (looks_like_ensembl(names) or are_numbers(names)):
        return [*map(str, names)]
    symbols = _column_text(var["symbol"]).astype(object)
    is_clear = (symbols != "") & ~pd.Index(symbols).duplicated(keep=False)
    return [*map(str, np.where(is_clear, symbols, names))]


def joined_names(first: GeneNames, second: GeneNames, match: GeneMatch) -> GeneNames:
    """Return the names of the first side's genes in the spelling of the second, so that results match it.

    Parameters
    ----------
    first, second
        Names of both sides, with their own spelling.
    match
        Match of the two sides.

    Returns
    -------
    GeneNames
        Names of the first side. A shared gene has the name of the second side. If the sides were matched
        through a column of ``var``, other genes have a name of the same kind, symbol or ID. Symbols and IDs
        that the first side lacks are from the second.
    """
    symbols, gene_ids = first.symbols.astype(object), first.gene_ids.astype(object)
    for mine, theirs in ((symbols, second.symbols), (gene_ids, second.gene_ids)):
        lacks = mine[match.first] == ""
        mine[match.first[lacks]] = theirs[match.second[lacks]]
    names = first.names.astype(object)
    if match.bridge:
        same_kind = gene_ids if looks_like_ensembl(second.names) else symbols
        names = np.where(same_kind != "", same_kind, names)
    names[match.first] = second.names[match.second]
    is_shared = np.zeros(len(names), dtype=bool)
    is_shared[match.first] = True
    twice = pd.Index(names).duplicated(keep=False)
    # A name shared by several genes identifies none
    names[twice & ~is_shared] = first.names[twice & ~is_shared]
    if pd.Index(names).has_duplicates:
        names = first.names
    return GeneNames(
        names=_text(names), input_names=first.input_names, symbols=_text(symbols), gene_ids=_text(gene_ids)
    )


def find_names(
    names: Iterable[str],
    known: Sequence[str] | NDArray[np.str_],
    *,
    where: str,
    others: Sequence[NDArray[np.str_]] = (),
) -> IntArray:
    """Return the positions of names among known names: exact, then ignoring case, then by spelling.

    Parameters
    ----------
    names
        Names to find; a text is one name.
    known
        Names to search.
    where
        Name of the argument in errors.
    others
        Other names of the same genes, each as long as ``known``, which are searched afterwards; empty names
        are ignored.

    Raises
    ------
    GeneError
        A name is unknown or ambiguous.

    Examples
    --------
    >>> find_names(["gad1", "Sst"], ["Sst", "Gad1"], where="genes")
    array([1, 0])
    >>> find_names(["Gad1"], ["ENSMUSG00000070880"], where="genes", others=[np.array(["Gad1"])])
    array([0])
    """
    spelled = [known, *others]
    ways = [(key, known_names) for key in _KEYS for known_names in spelled]
    indices: dict[int, dict[str, list[int]]] = {}
    positions = []
    for name in [names] if isinstance(names, str) else map(str, names):
        places: list[int] = []
        for number, (key, known_names) in enumerate(ways):
            if number not in indices:
                indices[number] = _by_key(known_names, key, set())
            places = indices[number].get(key(name), []) if name else []
            if places:
                break
        if not places:
            there = {str(alias) for some in spelled for alias in some} - {""}
            check_known(name, there - {name}, where, expected="an existing gene", error=GeneError)
        if len(places) > 1:
            got = f"{name!r}, which may be {shorten([str(known[place]) for place in places])}"
            raise GeneError(where, expected="one gene", got=got, fix="Use the exact name.")
        positions.append(places[0])
    return np.array(positions, dtype=np.int64)


def duplicates_of(names: Iterable[str]) -> list[str]:
    """Return the names that occur more than once, in order.

    Examples
    --------
    >>> duplicates_of(["a", "b", "a"])
    ['a']
    """
    return [name for name, times in Counter(map(str, names)).items() if times > 1]


def looks_like_ensembl(names: Iterable[str]) -> bool:
    """Return whether most of the names are Ensembl gene IDs.

    Examples
    --------
    >>> looks_like_ensembl(["ENSG00000139618.14", "ENSMUSG00000017167"])
    True
    """
    text = pd.Series(list(names), dtype=object).astype(str)
    return bool(len(text)) and float(text.str.match(_ENSEMBL).mean()) > 0.5


def without_version(names: Iterable[str]) -> NDArray[np.str_]:
    """Return Ensembl IDs without the version after the dot; other names are unchanged."""
    text = pd.Series(list(names), dtype=object).astype(str)
    is_id = text.str.match(_ENSEMBL)
    return _text(text.where(~is_id, text.str.partition(".")[0]))


def without_genome(names: Iterable[str]) -> NDArray[np.str_]:
    """Return names without a genome prefix (``GRCh38_``, ``mm10___``).

    Examples
    --------
    >>> without_genome(["GRCh38_GAD1", "SST"]).tolist()
    ['GAD1', 'SST']
    """
    return _text(_GENOME.sub("", str(name)) for name in names)


def id_column(var: pd.DataFrame) -> str | None:
    """Return the first column of ``var`` that contains Ensembl IDs, or None."""
    texts = [name for name in var.columns if not pd.api.types.is_numeric_dtype(var[name])]
    return next((name for name in texts if looks_like_ensembl(var[name])), None)


def symbols_and_ids(names: NDArray[np.str_], var: pd.DataFrame) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """Return symbols and IDs of genes, from their names and annotation; empty if unknown.

    Parameters
    ----------
    names
        (n_genes,) names, which are the IDs if they are Ensembl IDs, otherwise the symbols.
    var
        The annotation of these genes, row by row. IDs are in a column with a common name, or in one that
        contains Ensembl IDs.

    Examples
    --------
    >>> symbols_and_ids(np.array(["Gad1"]), pd.DataFrame({"gene_ids": ["ENSMUSG00000070880"]}))
    (array(['Gad1'], dtype='<U4'), array(['ENSMUSG00000070880'], dtype='<U18'))
    """
    is_ids = looks_like_ensembl(names) or are_numbers(names)
    columns = {plain_name(name): name for name in var.columns}
    column = next((columns[name] for name in _ID_COLUMNS if name in columns), None)
    column = symbol_column(var) if is_ids else id_column(var) if column is None else column
    other = np.full(len(names), "") if column is None else _column_text(var[column])
    return (other, names) if is_ids else (names, other)


def symbol_column(var: pd.DataFrame) -> str | None:
    """Return the column of ``var`` with a name that suggests gene symbols, or None."""
    columns = {plain_name(name): name for name in var.columns}
    return next((columns[name] for name in _SYMBOL_COLUMNS if name in columns), None)


def _better(
    best: GeneMatch,
    first: NDArray[np.str_],
    second: NDArray[np.str_],
    bridge: str,
    *,
    most: int | None = None,
) -> GeneMatch:
    """Match other names of the same genes, and use this match if it shares more than ``most`` genes.

    By default, ``most`` is the number of genes in the best match so far.

    Names that occur twice on a side are ambiguous and ignored, as are empty names.
    """
    sides = (first, second)
    twice = [pd.Index(names).duplicated(keep=False) for names in sides]
    places = [np.flatnonzero(~again & (names != "")) for names, again in zip(sides, twice, strict=True)]
    match = match_genes(first[places[0]], second[places[1]])
    if len(match.first) <= (len(best.first) if most is None else most):
        return best
    repeated = {
        str(name)
        for names, again, other in zip(sides, twice, reversed(sides), strict=True)
        for name in set(names[again].tolist()) & set(other.tolist()) - {""}
    }
    return replace(
        match,
        first=places[0][match.first],
        second=places[1][match.second],
        bridge=bridge,
        ambiguous=tuple(sorted({*match.ambiguous, *repeated})),
    )


def _by_key(
    names: Sequence[str] | NDArray[np.str_], key: Callable[[str], str], used: set[int]
) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        if number not in used:
            places.setdefault(key(str(name)), []).append(number)
    return places


def _column_text(column: pd.Series[Any]) -> NDArray[np.str_]:
    """Return a column of names as text, empty for missing names; whole numbers without ``.0``."""
    values = column.astype("Int64") if pd.api.types.is_float_dtype(column) else column
    missing = values.isna() | values.astype(str).str.strip().isin(("nan", "NaN", "NA", "<NA>", "None"))
    return _text(["" if gone else value for value, gone in zip(values, missing, strict=True)])


def _text(values: Iterable[object]) -> NDArray[np.str_]:
    return np.array([str(value) for value in values], dtype=np.str_)
