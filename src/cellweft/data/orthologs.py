"""Renames genes of one species to their one-to-one orthologs in another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from cellweft._errors import FormatError, GeneError, MissingFileError, SettingError, arg, check_path
from cellweft._text import many, near, shorten
from cellweft._typing import PathLike
from cellweft.data.gene_names import ORTHOLOG_OF, name_columns, without_genome, without_version
from cellweft.data.io.damaged import reading
from cellweft.data.io.dialect import dialect_of
from cellweft.data.io.lazy_input import Input
from cellweft.data.io.sanitize import GENE_NAMES
from cellweft.data.validation import Genes

TABLES = Path(__file__).parent / "ortholog_tables"


@dataclass(frozen=True, kw_only=True)
class Orthologs:
    """Pairs of genes of two species.

    Attributes
    ----------
    name
        Name of the table: "human:mouse", or the path of a file.
    kinds
        Tables of the same pairs, as symbols or as IDs, with a column for the species of the reference and one
        for that of the tissue. A user's table may have more columns.
    is_shipped
        Whether the table is part of cellweft, and one-to-one.
    """

    name: str
    kinds: tuple[pd.DataFrame, ...]
    is_shipped: bool = False


def read_orthologs(orthologs: PathLike) -> Orthologs:
    """Return a table of orthologs.

    Parameters
    ----------
    orthologs
        The species of the reference and of the tissue, "human:mouse" or "mouse:human"; or the path of a table
        (.tsv or .csv, also .gz) with two columns: a gene of the reference's species, its ortholog in the
        tissue's.

    Raises
    ------
    SettingError
        cellweft contains no table for these species.
    MissingFileError, FormatError
        The path does not exist, or is not a table with two columns.
    """
    check_path("orthologs", orthologs)
    text = str(orthologs)
    path = Path(orthologs).expanduser()
    species = text.split(":")
    if len(species) == 2 and not path.exists():
        return _shipped(species)
    where = arg("orthologs", text)
    if not path.is_file():
        there = sorted(entry.name for entry in path.parent.iterdir()) if path.parent.is_dir() else []
        raise MissingFileError(
            where,
            expected="two species, such as human:mouse, or a table of two columns",
            got="nothing at this path",
            fix=near(path.name, there) if there else "Check the path.",
        )
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    with reading(where, expected="a table of two columns of genes"):
        dialect = dialect_of(path, separator="," if suffixes[-1:] == [".csv"] else "\t")
        table = pd.read_csv(
            path,
            header=None,
            names=range(max(dialect.n_columns, 1)),
            dtype=str,
            keep_default_na=False,
            comment="#",
            **dialect.options,
        )
    if table.shape[1] < 2:
        raise FormatError(
            where,
            expected=(
                "two columns: genes of the reference's species, and their orthologs in the tissue's species"
            ),
            got=f"{many(table.shape[1], 'column')}: {shorten(table.iloc[:2, 0].tolist())}",
            fix="Separate them by tabs, or by commas in a .csv.",
        )
    return Orthologs(name=text, kinds=(table.fillna("").apply(lambda column: column.str.strip()),))


def _shipped(species: list[str]) -> Orthologs:
    names = [name.strip().lower() for name in species]
    path = TABLES / f"{'_'.join(sorted(names))}.tsv.gz"
    if names[0] == names[1] or not path.is_file():
        available = [
            table_path.name.removesuffix(".tsv.gz").replace("_", ":")
            for table_path in sorted(TABLES.glob("*.tsv.gz"))
        ]
        raise SettingError(
            arg("orthologs", ":".join(species)),
            expected=f"species of a table that comes with cellweft ({shorten(available)}, in either order)",
            got=repr(":".join(species)),
            fix="Pass the path of a table with two columns: genes of the reference, and their orthologs.",
        )
    table = pd.read_csv(path, sep="\t", dtype=str)
    kinds = (table[names], table[[f"{name}_id" for name in names]])
    return Orthologs(name=":".join(names), kinds=kinds, is_shipped=True)


def by_orthologs(
    data: Input, genes: Genes, orthologs: Orthologs, *, tissue: Sequence[Iterable[str]]
) -> tuple[Input, Genes]:
    """Return a reference with genes renamed to their orthologs in the species of the tissue.

    Parameters
    ----------
    data, genes
        The opened reference, and its genes.
    orthologs
        The pairs. The columns with the most genes of the reference and of the tissue are used; genes in
        several pairs are left out.
    tissue
        Names of the tissue's genes, of one or several kinds.

    Returns
    -------
    data : Input
        Its ``var`` has names of the tissue's species for genes with an ortholog, and a column
        ``ortholog_of``.
    genes : Genes
        Genes with an ortholog. The others still contribute to the totals of the cells.

    Raises
    ------
    GeneError
        No gene of the reference, or of the tissue, is in the table.
    """
    keys, column = _names_in(data, genes, orthologs)
    hits = [[kind[gene_column].isin(keys).sum() for gene_column in kind] for kind in orthologs.kinds]
    number = int(np.argmax([max(counts) for counts in hits]))
    kind, side = orthologs.kinds[number], int(np.argmax(hits[number]))
    if not hits[number][side]:
        raise GeneError(
            f"{data.where}.var_names",
            expected=f"genes of the orthologs {orthologs.name!r}",
            got=f"none of them, but {shorten(genes.names.tolist(), most=3) or 'no gene'}",
            fix="Specify the species of the inputs, or pass a table with their genes.",
        )
    other = 1 - side if orthologs.is_shipped else _other_side(orthologs, side, tissue)
    notes = [f"orthologs are looked up by var[{column!r}]." if column else ""]
    if len(kind.columns) > 2:
        notes.append(f"columns {side + 1} and {other + 1} of the table of orthologs were used.")
    elif side:
        notes.append(
            "the columns of the table of orthologs were swapped, because the reference's genes are in its "
            "second column."
        )
    kinds = list(orthologs.kinds)
    if not orthologs.is_shipped:
        pairs, n_ambiguous = _one_to_one(kind.iloc[:, [side, other]])
        said = f"{many(n_ambiguous, 'gene')} in several pairs of orthologs left out."
        notes.append(said * bool(n_ambiguous))
        kinds, side, other = [pairs], 0, 1
    row_of = pd.Index(kinds[number].iloc[:, side]).get_indexer(keys)
    with_ortholog = np.flatnonzero(row_of >= 0)
    others = [pair_table.iloc[row_of[with_ortholog], other].to_numpy(dtype=np.str_) for pair_table in kinds]
    names = np.full((len(data.var), 1 + len(others)), "", dtype=object)
    names[genes.places[with_ortholog]] = np.column_stack([genes.names[with_ortholog], *others])
    columns = [ORTHOLOG_OF, *(GENE_NAMES[:2] if len(others) > 1 else ["ortholog"])]
    translated = replace(
        genes,
        names=others[0],
        places=genes.places[with_ortholog],
        note=" ".join(filter(None, [genes.note, *notes])),
        orthologs=orthologs.name,
        n_without_ortholog=len(keys) - len(with_ortholog),
    )
    return replace(data, var=pd.DataFrame(names, index=data.var.index, columns=columns)), translated


def _one_to_one(pairs: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Return the pairs of genes that occur in no other pair, and how many genes of the first column do."""
    pairs = pairs[(pairs != "").all(axis=1)].drop_duplicates()
    is_single = ~pairs.apply(lambda column: column.duplicated(keep=False)).any(axis=1)
    return pairs[is_single], pairs[~is_single].iloc[:, 0].nunique()


def _names_in(data: Input, genes: Genes, orthologs: Orthologs) -> tuple[pd.Index[str], str]:
    """Return the names of the reference's genes with the most matches in the table, and their column of var.

    The column is empty if these are the genes' own names, with or without a genome prefix.
    """
    var = data.var.iloc[genes.places]
    ways: list[tuple[Iterable[str], str]] = [(genes.names, ""), (without_genome(genes.names), "")]
    ways += [(var[name].astype(str), str(name)) for name in name_columns(var)]
    keys = [(pd.Index(without_version(names)), column) for names, column in ways]
    table_genes = {str(gene) for kind in orthologs.kinds for column in kind for gene in kind[column]}
    n_known = [int(index.isin(table_genes).sum()) for index, _ in keys]
    if n_known[0] >= 0.5 * len(genes.names):
        return keys[0]
    best_names, column = keys[int(np.argmax(n_known))]
    again = best_names.duplicated(keep=False)  # a duplicate name identifies no gene
    return (best_names.where(~again, "") if column else best_names), column


def _other_side(orthologs: Orthologs, side: int, tissue: Sequence[Iterable[str]]) -> int:
    """Return the column of a table with the most genes of the tissue, other than that of the reference."""
    table = orthologs.kinds[0]
    names = [{name.lower() for name in without_version(map(str, kind))} for kind in tissue]
    hits = [max(table[column].str.lower().isin(genes).sum() for genes in names) for column in table]
    hits[side] = -1
    other = int(np.argmax(hits))
    if not hits[other]:
        first = without_version(map(str, tissue[0]))[:3].tolist()
        raise GeneError(
            arg("orthologs", orthologs.name),
            expected="a column with genes of the tissue next to the reference's genes",
            got=f"{shorten(table.iloc[1:4, other].tolist(), most=3)}, where the tissue has {shorten(first)}",
            fix="Pass a table of the two species that uses the same kind of gene names as the inputs.",
        )
    return other
