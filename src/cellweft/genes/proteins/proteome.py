"""Proteins from databases, and the choice of one protein per gene."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cellweft._errors import InputError
from cellweft._typing import Progress, no_progress
from cellweft.genes.proteins.fasta import FastaRecord, iter_fasta
from cellweft.genes.proteins.taxonomy import organism_name

_UNIPROT = re.compile(r"(sp|tr)\|([^|\s]+)\|(\S+)")
_FIELD = re.compile(r"(?:^|\s)(OS|OX|GN|PE|SV)=(.*?)(?=\s(?:OS|OX|GN|PE|SV)=|$)")
_ENSEMBL_FIELD = re.compile(r"(?:^|\s)(gene|gene_symbol):(\S+)")
_GENCODE_PARTS = 8  # protein|transcript|gene|two of Havana|transcript's name|symbol|length
_ISOFORM = re.compile(r"-\d+$")


@dataclass(frozen=True, kw_only=True)
class Protein:
    """A protein from a database.

    Attributes
    ----------
    accession, entry_name
        Accession and name in the database, such as P48318 and DCE1_MOUSE; may be empty.
    names, synonyms
        Names of its gene or genes, and their synonyms.
    ids
        Ensembl IDs of its gene, without version.
    reviewed
        Whether it is in UniProt's reviewed part; False if the source does not state it.
    canonical
        Whether it is the canonical isoform of its gene.
    taxon
        Taxon of its organism; 0 if the source does not state it.
    sequence
        Its amino acids; empty if the entry was deleted.
    """

    accession: str
    entry_name: str = ""
    names: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    reviewed: bool = False
    canonical: bool = True
    taxon: int = 0
    sequence: str


def choose(proteins: Sequence[Protein]) -> tuple[Protein, str]:
    """Return the protein that represents a gene, and the reason.

    Reviewed proteins are preferred to unreviewed ones, canonical ones to isoforms, then the longest, then the
    first accession.

    Parameters
    ----------
    proteins
        Proteins of the gene, at least one.

    Examples
    --------
    >>> short, long = Protein(accession="A", sequence="MA"), Protein(accession="B", sequence="MAS")
    >>> protein, reason = choose([short, long])
    >>> protein.accession, reason
    ('B', 'the longest of 2')
    """
    left, description = list(proteins), f"{len(proteins)}"
    if len(left) == 1:
        return left[0], "the only one"
    for kind in ("reviewed", "canonical"):
        those = [protein for protein in left if getattr(protein, kind)]
        if those and len(those) < len(left):
            left = those
            if len(left) == 1:
                return left[0], f"the only {kind} of {description}"
            description = f"{len(left)} {kind} of {description}"
    longest = max(len(protein.sequence) for protein in left)
    left = [protein for protein in left if len(protein.sequence) == longest]
    if len(left) == 1:
        return left[0], f"the longest of {description}"
    return min(
        left, key=lambda protein: protein.accession
    ), f"the first accession of {len(left)} longest of {description}"


def read_proteome(paths: Sequence[Path], *, taxon: int, progress: Progress = no_progress) -> list[Protein]:
    """Read the proteins of an organism from FASTA files.

    Parameters
    ----------
    paths
        FASTA files, plain or gzipped, of one of these kinds: UniProt (gene in ``GN=``), Ensembl (``gene:``,
        ``gene_symbol:``), GENCODE (parts between ``|``), or any other with headers that start with the gene.
    taxon
        The organism; proteins of other organisms (``OX=``) are left out.
    progress
        Called with the number of files read so far.

    Returns
    -------
    list of Protein
        Proteins in the order of the files, each accession once.

    Raises
    ------
    MissingFileError, FormatError, InputError
        As in `cellweft.genes.read_fasta`, or if there is no protein of the organism.
    """
    proteins_by_key: dict[str, Protein] = {}
    others: Counter[int] = Counter()
    for number, path in enumerate(paths):
        progress("reading proteins", number, len(paths))
        # Ensembl lists genes with internal stop codons: pseudogenes, and genes that are rearranged later.
        first = next(iter_fasta(path, skip_stops=True), None)
        is_ensembl = first is not None and _ENSEMBL_FIELD.search(first.description) is not None
        for place, record in enumerate(iter_fasta(path, skip_stops=is_ensembl)):
            protein = parse_record(record)
            if protein.taxon in (0, taxon):
                proteins_by_key.setdefault(protein.accession or f"{number}:{place}", protein)
            else:
                others[protein.taxon] += 1
    progress("reading proteins", len(paths), len(paths))
    if not proteins_by_key:
        raise InputError(
            ", ".join(str(path) for path in paths),
            expected=f"proteins of {organism_name(taxon)}",
            got=(
                f"{others.total():,} from others, such as "
                f"{organism_name(max(others, key=others.__getitem__))}"
            ),
            fix="Change the organism, or use a file for this organism.",
        )
    return list(proteins_by_key.values())


def parse_record(record: FastaRecord) -> Protein:
    """Return the protein of a FASTA record, from its header.

    Examples
    --------
    >>> header = "Glutamate decarboxylase 1 OS=Mus musculus OX=10090 GN=Gad1 PE=1 SV=2"
    >>> record = FastaRecord(name="sp|P48318|DCE1_MOUSE", description=header, sequence="MASSTPSPATS")
    >>> protein = parse_record(record)
    >>> protein.accession, protein.names, protein.reviewed, protein.taxon
    ('P48318', ('Gad1',), True, 10090)
    """
    fields = dict(_FIELD.findall(record.description))
    uniprot = _UNIPROT.fullmatch(record.name)
    gencode = record.name.split("|")
    ensembl = dict(_ENSEMBL_FIELD.findall(record.description))
    if uniprot is not None or "GN" in fields:
        part, accession, entry_name = uniprot.groups() if uniprot else ("", record.name, "")
        return Protein(
            accession=accession,
            entry_name=entry_name,
            names=(fields["GN"],) if fields.get("GN") else (),
            reviewed=part == "sp",
            canonical=not _ISOFORM.search(accession) and not record.description.startswith("Isoform "),
            taxon=int(fields["OX"]) if fields.get("OX", "").isdecimal() else 0,
            sequence=record.sequence,
        )
    if "gene" in ensembl:
        names = (ensembl["gene_symbol"],) if "gene_symbol" in ensembl else ()
        return _of_ensembl(record, record.name, ensembl["gene"], names)
    if len(gencode) >= _GENCODE_PARTS and gencode[0].startswith("ENS"):
        return _of_ensembl(record, gencode[0], gencode[2], (gencode[6],))
    return Protein(accession="", names=(record.name,), sequence=record.sequence)


def _of_ensembl(record: FastaRecord, accession: str, gene: str, names: tuple[str, ...]) -> Protein:
    return Protein(accession=accession, names=names, ids=(gene.partition(".")[0],), sequence=record.sequence)
