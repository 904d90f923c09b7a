"""Looks up genes in protein files or at UniProt, and creates their rows of the table.

The genes come from a list, a text file, or a dataset.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import pandas as pd
from anndata import AnnData

from cellweft._errors import FormatError, GeneError, MissingFileError, Placeholder, arg
from cellweft._text import shorten
from cellweft._typing import PathLike, Progress
from cellweft.data import gene_names
from cellweft.data.io.columns import column_of
from cellweft.data.io.read import open_input
from cellweft.genes.proteins.fasta import near_path
from cellweft.genes.proteins.proteome import Protein, choose
from cellweft.genes.proteins.taxonomy import organism_name
from cellweft.genes.proteins.uniprot import URL, Part, Question, Source, UniProt, is_askable

Match: TypeAlias = Literal["exact", "case", "Ensembl", "synonym"]
"""How a gene was found: by exact name, by name ignoring case, by Ensembl ID, or by a synonym."""

_CERTAIN: frozenset[Match] = frozenset({"exact", "Ensembl"})
_UNASKED = "not in the cache, and not requested because of offline mode"
_NAMES = "a text file with one gene per line"
_NAMELESS = "its name contains a space, or a character that UniProt does not accept"

Candidates: TypeAlias = dict[str, list[tuple[Match, Protein]]]
"""Proteins of each gene, with how they were found."""

_NONE = Protein(accession="", canonical=False, sequence="")
_TEXTS = (".txt", ".csv", ".tsv", ".list", "")
_MOST_SHOWN = 60  # characters of a name in a message


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A gene for which a protein is requested.

    Attributes
    ----------
    name
        Name in the dataset.
    symbol
        The name to search; empty if only an Ensembl ID is known.
    ensembl
        The Ensembl ID, without version; may be empty.
    by_id
        Whether the name in the dataset is its Ensembl ID.
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
        Names; the path of a text file with one name per line (empty lines and lines starting with # are
        ignored); or an AnnData, or a file that cellweft reads as one. A column of `var` with the other kind
        of name, Ensembl IDs or symbols, is also used.
    gene_column
        Column of `var` with the names; by default those of `var` itself.

    Returns
    -------
    list of Wanted
        Genes in the given order; at least one.

    Raises
    ------
    MissingFileError, FormatError
        The path does not exist, or does not contain genes.
    GeneError
        There is no gene, a duplicate gene, or a name with spaces or commas in a list.
    KeyMissingError
        No such column.

    Examples
    --------
    >>> [one.symbol or one.ensembl for one in wanted_genes(["Gad1", "ENSMUSG00000070880.11"])]
    ['Gad1', 'ENSMUSG00000070880']
    """
    where = "genes"
    if isinstance(genes, AnnData):
        where = f"genes (AnnData {f'backed by {genes.filename}' if genes.isbacked else 'in memory'})"
        return _of_names(genes.var, where=where, column=gene_column)
    if isinstance(genes, str | os.PathLike):
        path = Path(genes).expanduser()
        if not _is_text(path):
            data = open_input(path, argument="genes")
            return _of_names(data.var, where=data.where, column=gene_column)
        where = f"genes ({path})"
        fix = "Pass a text file, or a dataset by its full name with its extension, such as .h5ad."
        genes = read_names(path, where=where, fix=fix)
    names = [str(name) for name in genes]
    strange = [name for name in names if len(name.split()) != 1 or "," in name]
    if strange:
        raise GeneError(
            where,
            expected="gene names, one per line",
            got=f"names with spaces or commas: {shorten([name[:_MOST_SHOWN] for name in strange])}",
            fix="Write each name on its own line.",
        )
    return _of_names(pd.DataFrame(index=names), where=where)


def _is_text(path: Path) -> bool:
    """Return whether a file is a list, not a table; a missing file counts as a list."""
    if path.is_dir() or path.suffix.lower() not in _TEXTS:
        return False
    if not path.is_file():
        return True
    with path.open("rb") as file:
        return not any(mark in file.readline() for mark in (b",", b"\t"))


def read_names(path: Path, *, where: str, fix: str) -> list[str]:
    """Return the names in a text file, one per line, without empty lines and lines starting with #.

    Parameters
    ----------
    path
        The file.
    where, fix
        Its name in errors, and what to do if it is not a text file.

    Raises
    ------
    MissingFileError, FormatError
        The file does not exist, or is not a text file.
    """
    if not path.is_file():
        raise MissingFileError(where, expected=_NAMES, got="nothing at this path", fix=near_path(path))
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise FormatError(where, expected=_NAMES, got="a file that is not a text file", fix=fix) from error
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _of_names(var: pd.DataFrame, *, where: str, column: str | None = None) -> list[Wanted]:
    """Check names, and separate Ensembl IDs from symbols; columns of ``var`` may contain the other names."""
    values: Iterable[object] = var.index
    if column is not None:
        values = column_of(var, column, where=where, argument="gene_column", slot="var")
    names = [str(name) for name in values]
    twice = gene_names.duplicates_of(names)
    if not names or twice:
        once = "List each gene once; for a dataset, use adata[:, ~adata.var_names.duplicated()]."
        raise GeneError(
            where,
            expected="unique genes",
            got=f"{shorten(twice)} more than once" if twice else "none",
            fix=once if twice else "List at least one gene.",
        )
    blank = pd.Series("", index=var.index)
    ids, symbols = (
        blank if name_column is None else var[name_column].astype(object).fillna("")
        for name_column in (gene_names.id_column(var), gene_names.symbol_column(var))
    )
    all_ids, wanted = gene_names.looks_like_ensembl(names), []
    plain_names, other_ids = gene_names.without_version(names), gene_names.without_version(ids)
    for name, plain, other_id, symbol in zip(names, plain_names, other_ids, map(str, symbols), strict=True):
        if name.startswith("ENS") and (all_ids or gene_names.looks_like_ensembl([name])):
            symbol = "" if symbol.startswith("ENS") else symbol  # the ID was a placeholder
            wanted.append(Wanted(name=name, symbol=symbol, ensembl=str(plain), by_id=True))
        else:
            ensembl_id = str(other_id) if other_id.startswith("ENS") else ""
            wanted.append(Wanted(name=name, symbol=name, ensembl=ensembl_id))
    return wanted


def in_files(wanted: Iterable[Wanted], proteins: Iterable[Protein]) -> Candidates:
    """Look up genes among proteins."""
    tables: dict[Match, dict[str, list[Protein]]] = {"Ensembl": {}, "exact": {}, "case": {}}
    for protein in proteins:
        for gene_id in protein.ids:
            tables["Ensembl"].setdefault(gene_id, []).append(protein)
        for name in protein.names:
            tables["exact"].setdefault(name, []).append(protein)
            tables["case"].setdefault(name.lower(), []).append(protein)
    candidates: Candidates = {}
    for gene in wanted:
        keys = zip(tables.items(), (gene.ensembl, gene.symbol, gene.symbol.lower()), strict=True)
        candidates[gene.name] = [
            (how, protein) for (how, table), key in keys for protein in table.get(key, [])
        ]
    return candidates


def in_uniprot(
    wanted: Sequence[Wanted], uniprot: UniProt, *, taxon: int, progress: Progress
) -> tuple[Candidates, set[str], set[str]]:
    """Query UniProt in steps, each for the genes that are not found yet.

    Reviewed proteins are first, because a gene with a reviewed protein needs no other.

    Parameters
    ----------
    wanted
        The genes.
    uniprot
        The service with its cache.
    taxon
        The organism.
    progress
        Called with (stage, done, total) after each answer.

    Returns
    -------
    candidates
        Proteins of each gene, with how they were found.
    unasked
        Genes without an answer in the cache, if the network may not be used.
    releases
        Releases of UniProt in the answers.

    Raises
    ------
    MissingFileError
        The network may not be used, and the cache has no answers.
    ServiceError, OutputError
        As in `cellweft.genes.proteins.uniprot.UniProt.ask`.
    """
    candidates: Candidates = {gene.name: [] for gene in wanted}
    settled, unasked, releases = set[str](), set[str](), set[str]()
    for question, keys in _steps(wanted, taxon):
        open_keys = {name: key for name, key in keys.items() if name not in settled}
        answers = uniprot.ask(question, list(dict.fromkeys(open_keys.values())), progress=progress)
        releases |= answers.releases
        for name, key in open_keys.items():
            if key not in answers.found:
                unasked.add(name)
                continue
            for protein in answers.found[key]:
                how: Match = "Ensembl" if question.source == "Ensembl" else _how(key, protein)
                candidates[name].append((how, protein))
                is_certain = how in _CERTAIN or (how == "case" and question.part == "UniProtKB")
                if is_certain and protein.sequence and protein.taxon == taxon:
                    settled.add(name)
    if uniprot.offline and len(unasked) == len(wanted) and not any(candidates.values()):
        raise MissingFileError(
            f"cache ({uniprot.cache})",
            expected=f"cached UniProt responses for these genes of {organism_name(taxon)}",
            got="none",
            fix=without_network(taxon),
        )
    return candidates, unasked - settled, releases


def _steps(wanted: Sequence[Wanted], taxon: int) -> list[tuple[Question, dict[str, str]]]:
    """Return the questions to UniProt in order, with the key of each gene concerned."""
    ids = {gene.name: gene.ensembl for gene in wanted if gene.by_id}
    names = {gene.name: gene.symbol for gene in wanted if gene.symbol and is_askable(gene.symbol)}
    more_ids = {gene.name: gene.ensembl for gene in wanted if gene.ensembl and not gene.by_id}
    steps: list[tuple[Source, Part, dict[str, str]]] = [
        ("Ensembl", "UniProtKB-Swiss-Prot", ids),
        ("Ensembl", "UniProtKB", ids),
        ("Gene_Name", "UniProtKB-Swiss-Prot", names),
        ("Gene_Name", "UniProtKB", names),
        ("Ensembl", "UniProtKB", more_ids),
        ("search", "UniProtKB", names),
    ]
    return [
        (Question(source=source, part=part, taxon=0 if source == "Ensembl" else taxon), keys)
        for source, part, keys in steps
        if keys
    ]


def _how(name: str, protein: Protein) -> Match:
    if name in protein.names:
        return "exact"
    return "case" if name.lower() in map(str.lower, protein.names) else "synonym"


def row_of(
    gene: Wanted, candidates: Sequence[tuple[Match, Protein]], *, taxon: int, unasked: set[str]
) -> dict[str, object]:
    """Return the gene's row of the table."""
    if len(gene.name.split()) != 1:  # names in FASTA files end at the first blank
        return _row(gene, _NAMELESS)
    usable: dict[Match, dict[str, Protein]] = {}
    for place, (how, protein) in enumerate(candidates):
        if protein.sequence and protein.taxon in (0, taxon):
            usable.setdefault(how, {})[protein.accession or str(place)] = protein
    order: tuple[Match, ...] = ("exact", "case", "Ensembl", "synonym")
    for how in sorted(order, key=lambda match: (match != "Ensembl") if gene.by_id else 0):
        those = list(usable.get(how, {}).values())
        owners = _owners(those) if how == "synonym" else []
        if len(owners) > 1:
            return _row(gene, f"a synonym of several genes ({shorten(owners)})", n_candidates=len(those))
        if those:
            protein, reason = choose(those)
            return _row(gene, reason, protein, matched=how, n_candidates=len(those))
    return _row(gene, _why_none(gene, [protein for _, protein in candidates], taxon, unasked))


def _owners(proteins: Sequence[Protein]) -> list[str]:
    """Return the genes of proteins found by a synonym; only of reviewed proteins, if there are any."""
    reviewed = [protein for protein in proteins if protein.reviewed]
    names = {(protein.names or (protein.accession,))[0] for protein in reviewed or proteins}
    return sorted({name.lower(): name for name in sorted(names)}.values())


def _row(
    gene: Wanted, reason: str, protein: Protein = _NONE, *, matched: str = "", n_candidates: int = 0
) -> dict[str, object]:
    # the name of the gene in the database: the matching one if a protein has several
    fitting = [name for name in protein.names if name.lower() == gene.symbol.lower()]
    return {
        "gene": gene.name,
        "accession": protein.accession,
        "entry_name": protein.entry_name,
        "reviewed": protein.reviewed,
        "canonical": protein.canonical,
        "length": len(protein.sequence),
        "matched": matched,
        "gene_name": next(iter([*fitting, *protein.names]), ""),
        "candidates": n_candidates,
        "reason": reason,
        "sequence": protein.sequence,
    }


def _why_none(gene: Wanted, proteins: Sequence[Protein], taxon: int, unasked: set[str]) -> str:
    if gene.name in unasked:
        return _UNASKED
    others = {protein.taxon for protein in proteins if protein.taxon not in (0, taxon)}
    if others:
        return f"its proteins are from {organism_name(min(others))}"
    if proteins:
        return "its entries were deleted"
    if not gene.ensembl and not is_askable(gene.symbol):
        return _NAMELESS
    return "no protein with this name" if not gene.by_id else "no protein with this Ensembl ID"


def without_network(taxon: int) -> str:
    """Return how to find an organism's proteins without a network, as sentences."""
    file = arg("proteome", Placeholder("FILE"))
    return (
        "To work without a network, download the organism's proteins elsewhere, from "
        f"{URL}/uniprotkb/stream?format=fasta&compressed=true&query=organism_id:{taxon} "
        "or from https://www.uniprot.org/proteomes, and pass the file: " + file + "."
    )
