"""The genes whose proteins are wanted: from a list, a text file, or a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from anndata import AnnData

from weft._errors import FormatError, GeneError, MissingFileError, near, shorten
from weft._typing import PathLike
from weft.data.genes import duplicates_of, id_column, looks_like_ensembl, symbol_column, without_version
from weft.data.read import open_input
from weft.data.space import column_of

_TEXTS = (".txt", ".csv", ".tsv", ".list", "")
_MOST_SHOWN = 60  # characters of a name in a message


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A gene whose protein is wanted.

    Attributes
    ----------
    name
        As the dataset spells it.
    symbol
        The name to look for; empty where only an Ensembl ID is known.
    ensembl
        The Ensembl ID, without version; may be empty.
    by_id
        Whether the dataset names the gene by its Ensembl ID.
    """

    name: str
    symbol: str = ""
    ensembl: str = ""
    by_id: bool = False


def wanted_genes(
    genes: Sequence[str] | AnnData | PathLike, *, gene_column: str | None = None
) -> list[Wanted]:
    """Return the genes of a list, a text file or a dataset.

    Parameters
    ----------
    genes
        Names; the path of a text file with one name a line (empty lines and those that start with # do not
        count); or an AnnData, or a file that weft reads as one. A column of `var` with the other kind of
        name, Ensembl IDs or symbols, is used too.
    gene_column
        Column of `var` with the names; by default those of `var` itself.

    Returns
    -------
    list of Wanted
        In the order given; at least one.

    Raises
    ------
    MissingFileError, FormatError
        Nothing lies at the path, or something else than genes.
    GeneError
        No gene, one that stands twice, or in a list, names with blanks or commas.
    KeyMissingError
        No such column.

    Examples
    --------
    >>> [one.symbol or one.ensembl for one in wanted_genes(["Gad1", "ENSMUSG00000070880.11"])]
    ['Gad1', 'ENSMUSG00000070880']
    """
    if isinstance(genes, AnnData):
        return _of_dataset(genes, gene_column)
    if isinstance(genes, str | Path) or hasattr(genes, "__fspath__"):
        path = Path(genes).expanduser()
        if _is_text(path):
            return _of_list(_read_names(path), where=f"genes ({path})")
        return _of_dataset(path, gene_column)
    return _of_list([str(name) for name in genes], where="genes")


def _is_text(path: Path) -> bool:
    """Say whether a file is a list, not a table; nothing there counts as a list."""
    if path.is_dir() or path.suffix.lower() not in _TEXTS:
        return False
    if not path.is_file():
        return True
    with path.open("rb") as file:
        return not any(mark in file.readline() for mark in (b",", b"\t"))


def _read_names(path: Path) -> list[str]:
    if not path.is_file():
        there = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
        raise MissingFileError(
            f"genes ({path})",
            expected="a list of genes or a dataset",
            got="nothing at this path",
            fix=near(path.name, there) if there else f"The folder {str(path.parent)!r} is not there either.",
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise FormatError(
            f"genes ({path})",
            expected="a text file with one gene a line",
            got="a file that is no text",
            fix="Name a text file, or a dataset by its full name with its ending, such as .h5ad.",
        ) from error
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _of_dataset(data: AnnData | Path, gene_column: str | None) -> list[Wanted]:
    found = open_input(data, argument="genes")
    names = [str(name) for name in found.var.index]
    if gene_column is not None:
        column = column_of(found.var, gene_column, where=found.where, argument="gene_column", slot="var")
        names = [str(name) for name in column]
    ids, symbols = id_column(found.var), symbol_column(found.var)
    return _of_names(
        names,
        where=found.where,
        ids=None if ids is None else found.var[ids],
        symbols=None if symbols is None else found.var[symbols],
    )


def _of_list(names: Sequence[str], *, where: str) -> list[Wanted]:
    strange = [name for name in names if len(name.split()) != 1 or "," in name]
    if strange:
        raise GeneError(
            where,
            expected="names of genes, one a line",
            got=f"names with blanks or commas: {shorten([name[:_MOST_SHOWN] for name in strange])}",
            fix="Write every name in a line of its own.",
        )
    return _of_names(names, where=where)


def _of_names(
    names: Sequence[str], *, where: str, ids: pd.Series | None = None, symbols: pd.Series | None = None
) -> list[Wanted]:
    """Check names, and tell Ensembl IDs from others; ``ids`` and ``symbols`` say more of the same genes."""
    twice = duplicates_of(names)
    if not names or twice:
        raise GeneError(
            where,
            expected="genes, each once",
            got=f"{shorten(twice)} more than once" if twice else "none",
            fix="Take each gene once; of a dataset, adata[:, ~adata.var_names.duplicated()]."
            if twice
            else "Name at least one gene.",
        )
    bare = without_version(names)
    all_ids = looks_like_ensembl(names)
    other_ids = [""] * len(names) if ids is None else [str(one) for one in without_version(ids)]
    other_symbols = (
        [""] * len(names) if symbols is None else ["" if pd.isna(one) else str(one) for one in symbols]
    )
    wanted = []
    for name, plain, other_id, symbol in zip(names, bare, other_ids, other_symbols, strict=True):
        if name.startswith("ENS") and (all_ids or looks_like_ensembl([name])):
            symbol = "" if symbol.startswith("ENS") else symbol  # where none is known, the ID stands in
            wanted.append(Wanted(name=name, symbol=symbol, ensembl=str(plain), by_id=True))
        else:
            known = other_id if other_id.startswith("ENS") else ""
            wanted.append(Wanted(name=name, symbol=name, ensembl=known))
    return wanted
