"""Genes of one species called by their one-to-one orthologs in another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from cellweft._errors import FormatError, GeneError, MissingFileError, SettingError, arg, check_path
from cellweft._text import many, near, shorten
from cellweft._typing import PathLike
from cellweft.data.gene_names import ORTHOLOG_OF, without_version
from cellweft.data.io.damaged import reading
from cellweft.data.io.lazy_input import Input
from cellweft.data.io.sanitize import GENE_NAMES
from cellweft.data.validation import Genes

TABLES = Path(__file__).parent / "ortholog_tables"


@dataclass(frozen=True, kw_only=True)
class Orthologs:
    """Pairs of genes of two species, each gene in one pair alone.

    Attributes
    ----------
    name
        What the table is called: "human:mouse", or the path of a file.
    kinds
        Tables of the same pairs, of symbols or of IDs; columns: the species of the reference, that of the
        tissue.
    n_ambiguous
        Genes of the table that were left out, as they stand in several pairs.
    """

    name: str
    kinds: tuple[pd.DataFrame, ...]
    n_ambiguous: int


def read_orthologs(orthologs: PathLike) -> Orthologs:
    """Return a table of orthologs.

    Parameters
    ----------
    orthologs
        The species of the reference and of the tissue, "human:mouse" or "mouse:human"; or the path of a table
        (.tsv or .csv, also .gz) of two columns: a gene of the reference's species, its ortholog in the
        tissue's. Genes that stand in several pairs are left out.

    Raises
    ------
    SettingError
        No table of these species comes with cellweft.
    MissingFileError, FormatError
        Nothing lies at the path, or no table of two columns.
    """
    check_path("orthologs", orthologs)
    text = str(orthologs)
    path = Path(orthologs).expanduser()
    species = text.split(":")
    if len(species) == 2 and not path.exists():
        return _shipped(species)
    where = arg("orthologs", text)
    if not path.is_file():
        there = sorted(one.name for one in path.parent.iterdir()) if path.parent.is_dir() else []
        raise MissingFileError(
            where,
            expected="two species, such as human:mouse, or a table of two columns",
            got="nothing at this path",
            fix=near(path.name, there) if there else "Check the path.",
        )
    suffixes = [one.lower() for one in path.suffixes if one.lower() != ".gz"]
    with reading(where, expected="a table of two columns of genes"):
        table = pd.read_csv(
            path,
            sep="," if suffixes[-1:] == [".csv"] else "\t",
            header=None,
            dtype=str,
            keep_default_na=False,
            comment="#",
        )
    if table.shape[1] < 2:
        raise FormatError(
            where,
            expected="two columns: a gene of the reference's species, and its ortholog in the tissue's",
            got=f"{many(table.shape[1], 'column')}: {shorten(table.iloc[:2, 0].tolist())}",
            fix="Separate them by tabs, or by commas in a .csv.",
        )
    pairs = table.iloc[:, :2].apply(lambda column: column.str.strip())
    pairs = pairs[(pairs != "").all(axis=1)].drop_duplicates()
    is_single = ~pairs.apply(lambda column: column.duplicated(keep=False)).any(axis=1)
    n_ambiguous = pairs[~is_single][0].nunique()
    return Orthologs(name=text, kinds=(pairs[is_single],), n_ambiguous=n_ambiguous)


def _shipped(species: list[str]) -> Orthologs:
    names = [one.strip().lower() for one in species]
    path = TABLES / f"{'_'.join(sorted(names))}.tsv.gz"
    if names[0] == names[1] or not path.is_file():
        known = [
            one.name.removesuffix(".tsv.gz").replace("_", ":") for one in sorted(TABLES.glob("*.tsv.gz"))
        ]
        raise SettingError(
            arg("orthologs", ":".join(species)),
            expected=f"species of a table that comes with cellweft ({shorten(known)}, either way round)",
            got=repr(":".join(species)),
            fix="Give the path of a table of two columns: genes of the reference, and their orthologs.",
        )
    table = pd.read_csv(path, sep="\t", dtype=str)
    kinds = (table[names], table[[f"{one}_id" for one in names]])
    return Orthologs(name=":".join(names), kinds=kinds, n_ambiguous=0)


def by_orthologs(data: Input, genes: Genes, orthologs: Orthologs) -> tuple[Input, Genes]:
    """Return a reference whose genes go by their orthologs in the species of the tissue.

    Parameters
    ----------
    data, genes
        The opened reference, and its genes by their names.
    orthologs
        The pairs. Where more genes of the reference stand in their second column than in the first, they are
        taken the other way round.

    Returns
    -------
    data : Input
        Its ``var`` has names of the tissue's species, where there is an ortholog, and ``ortholog_of``.
    genes : Genes
        Those that have an ortholog. The others still count in the totals of the cells.

    Raises
    ------
    GeneError
        No gene of the reference is in the table.
    """
    keys = pd.Index(without_version(genes.names))
    hits = np.array([[kind.iloc[:, side].isin(keys).sum() for side in (0, 1)] for kind in orthologs.kinds])
    number, side = map(int, np.unravel_index(hits.argmax(), hits.shape))
    if not hits.any():
        raise GeneError(
            f"{data.where}.var_names",
            expected=f"genes of the orthologs {orthologs.name!r}",
            got=f"none of them, but {shorten(genes.names.tolist(), most=3) or 'no gene'}",
            fix="Name species that are those of the inputs, or a table with their genes.",
        )
    row_of = pd.Index(orthologs.kinds[number].iloc[:, side]).get_indexer(keys)
    kept = np.flatnonzero(row_of >= 0)
    others = [kind.iloc[row_of[kept], 1 - side].to_numpy(dtype=np.str_) for kind in orthologs.kinds]
    names = np.full((len(data.var), 1 + len(others)), "", dtype=object)
    names[genes.places[kept]] = np.column_stack([genes.names[kept], *others])
    columns = [ORTHOLOG_OF, *(GENE_NAMES[:2] if len(others) > 1 else ["ortholog"])]
    swapped = (
        "the pairs of orthologs were taken the other way round, as its genes stand in their second column."
    )
    ambiguous = f"{many(orthologs.n_ambiguous, 'gene')} in several pairs of orthologs left out."
    notes = [genes.note, swapped * side, ambiguous * bool(orthologs.n_ambiguous)]
    translated = replace(
        genes,
        names=others[0],
        places=genes.places[kept],
        note=" ".join(filter(None, notes)),
        orthologs=orthologs.name,
        n_without_ortholog=len(keys) - len(kept),
    )
    return replace(data, var=pd.DataFrame(names, index=data.var.index, columns=columns)), translated
