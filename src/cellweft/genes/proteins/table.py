"""From genes to proteins: one sequence for every gene, every choice written down.

Proteins come from FASTA files on the disk, such as UniProt's of an organism, or from UniProt's service.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pandas as pd
from anndata import AnnData

from cellweft._compute import progress_callback
from cellweft._errors import GeneError, checks_kinds
from cellweft._text import many, shorten
from cellweft._typing import PathLike, ProgressOption
from cellweft.data.io.atomic_output import check_outputs, partial_output
from cellweft.genes.proteins import lookup
from cellweft.genes.proteins.fasta import FastaRecord, write_fasta
from cellweft.genes.proteins.http_client import Service
from cellweft.genes.proteins.proteome import read_proteome
from cellweft.genes.proteins.taxonomy import organism_name, taxon_of
from cellweft.genes.proteins.uniprot import URL, UniProt

FASTA_SUFFIXES = (".fa", ".faa", ".fasta", ".gz")
TABLE_SUFFIXES = (".tsv", ".csv", ".parquet")


@dataclass(frozen=True, kw_only=True, eq=False)
class ProteinTable:
    """One protein for every gene, and how it was chosen.

    Attributes
    ----------
    table
        A row for every gene, in the order asked for:

        - ``gene``: the name, as the dataset spells it
        - ``accession``, ``entry_name``: the protein's names in the database; empty where there is none
        - ``reviewed``: whether it stands in UniProt's reviewed part
        - ``canonical``: whether it stands for the isoforms of its gene
        - ``length``: its amino acids; 0 where there is no protein
        - ``matched``: "exact", "case", "Ensembl" or "synonym"; empty where there is none
        - ``gene_name``: what the database calls the gene
        - ``candidates``: proteins that it was chosen from; of those that UniProt's service has, the reviewed
          ones alone, where there is one
        - ``reason``: why this one, or why none
        - ``sequence``: the amino acids, one letter each; empty where there is no protein
    taxon
        The organism.
    source
        Where the proteins come from: files, or UniProt with its release.
    """

    table: pd.DataFrame
    taxon: int
    source: str

    @property
    def found(self) -> list[str]:
        """Genes with a protein."""
        return list(self.table.loc[self.table["length"] > 0, "gene"])

    @property
    def missing(self) -> list[str]:
        """Genes without one."""
        return list(self.table.loc[self.table["length"] == 0, "gene"])

    @property
    def counts(self) -> dict[str, int]:
        """Number of genes, of those found and missing, of reviewed proteins, and of each kind of match."""
        matched = Counter(self.table["matched"])
        return {
            "genes": len(self.table),
            "found": len(self.found),
            "missing": len(self.missing),
            "reviewed": int(self.table["reviewed"].sum()),
            **{kind.lower(): matched[kind] for kind in get_args(lookup.Match)},
        }

    @property
    def cautions(self) -> list[str]:
        """What one should know before the proteins are used, a sentence each."""
        told = []
        without = self.table[self.table["length"] == 0]
        for reason, genes in without["gene"].groupby(without["reason"].str.replace(r" \(.*", "", regex=True)):
            those = f"{many(len(genes), 'gene')} without a protein"
            told.append(f"{those}, {reason}: {shorten(list(genes), most=3)}.")
        synonyms = self.table[self.table["matched"] == "synonym"]
        if len(synonyms):
            first = synonyms.iloc[0]
            told.append(
                f"{many(len(synonyms), 'gene')} found by a synonym, such as {first['gene']!r}, "
                f"which the database calls {first['gene_name']!r}."
            )
        shared = self.table[(self.table["accession"] != "") & self.table["accession"].duplicated(keep=False)]
        if len(shared):
            those = f"{many(len(shared), 'gene')} share a protein"
            told.append(f"{those}: {shorten(list(shared['gene']), most=4)}.")
        return told

    def __repr__(self) -> str:
        genes = f"{many(len(self.table), 'gene')} of {organism_name(self.taxon)}"
        return f"ProteinTable({len(self.found):,} of {genes} from {self.source})"

    def records(self) -> list[FastaRecord]:
        """Return the proteins as FASTA records, named by their genes as the dataset spells them."""
        those = self.table[self.table["length"] > 0]
        columns = ("gene", "accession", "entry_name", "sequence")
        return [
            FastaRecord(name=gene, description=f"{accession} {entry}".strip(), sequence=sequence)
            for gene, accession, entry, sequence in zip(*(those[one] for one in columns), strict=True)
        ]

    @checks_kinds
    def write(self, fasta: PathLike, *, table: PathLike | None = None, overwrite: bool = False) -> None:
        """Write the proteins to a FASTA file, and all genes to a table; both are there, or none.

        Parameters
        ----------
        fasta
            A name ending in .fa, .fasta or .faa, or in .gz, to be packed.
        table
            A name ending in .tsv, .csv or .parquet; None for no table.
        overwrite
            Whether files that are there may be replaced.

        Raises
        ------
        SettingError
            Another ending.
        OutputExistsError, OutputError
            A file exists, or cannot be written.
        """
        check_outputs(
            {"fasta": (fasta, FASTA_SUFFIXES), "table": (table, TABLE_SUFFIXES)}, overwrite=overwrite
        )
        if table is None:
            write_fasta(self.records(), fasta, overwrite=overwrite)
            return
        suffix = Path(table).suffix
        with partial_output(table, overwrite=overwrite) as partial:
            if suffix == ".parquet":
                self.table.to_parquet(partial, index=False)
            else:
                self.table.to_csv(partial, sep="\t" if suffix == ".tsv" else ",", index=False)
            write_fasta(self.records(), fasta, overwrite=overwrite)


@checks_kinds
def find_proteins(
    genes: Sequence[str] | AnnData | PathLike,
    *,
    organism: str | int,
    proteome: PathLike | Sequence[PathLike] | None = None,
    gene_column: str | None = None,
    cache: PathLike | None = None,
    offline: bool = False,
    url: str = URL,
    progress: ProgressOption = True,
) -> ProteinTable:
    r"""Find one protein for every gene.

    A gene is known by its exact name, else by its name in another case, else by its Ensembl ID, else by a
    synonym, which only UniProt's service tells. Where the dataset names its genes by ID, the ID comes first.
    Of a gene's proteins the reviewed come before the unreviewed, the canonical before isoforms, then the
    longest, then the first accession.

    Parameters
    ----------
    genes
        Names or Ensembl IDs; the path of a text file with one a line; or an AnnData, or a path of one. Where
        its `var` has both symbols and Ensembl IDs, both are used.
    organism
        Such as "mouse" or "Homo sapiens", or the number of a taxon of NCBI.
    proteome
        FASTA files to look in instead of asking UniProt: of UniProt, Ensembl or GENCODE, or any whose headers
        start with the gene; gzipped or not.
    gene_column
        Column of `var` with the names; by default those of `var` itself.
    cache
        Folder where UniProt's answers are kept; by default cellweft's in the user's folder for caches. What
        is there is not asked for again: remove the folder for UniProt's next release.
    offline
        Never use the network: UniProt's answers come from the cache alone.
    url
        Address of UniProt's service, or of a copy.
    progress
        True shows a bar in terminals and notebooks, False shows nothing; a function is called with
        (stage, done, total) as work goes on.

    Returns
    -------
    ProteinTable
        A row for every gene, those without a protein too.

    Raises
    ------
    SettingError
        The organism is not known.
    GeneError
        No gene, a duplicate gene, or none that has a protein.
    MissingFileError
        Nothing lies at a path; or offline, the cache has no answer for any of the genes.
    FormatError, InputError
        A file is not what it should be, or holds proteins of other organisms alone.
    ServiceError
        UniProt did not answer; what it did answer is kept, and the next run resumes from there.

    Notes
    -----
    stImpute's paper takes the sequences from "protein databases (such as UniProt)" and finds none for about
    3 % of its genes; which protein of a gene it takes is not said.

    A synonym that belongs to several genes tells none of them apart: such genes are left without a protein.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "mouse.fasta")
    ...     _ = path.write_text(
    ...         ">sp|P48318|DCE1_MOUSE Glutamate decarboxylase 1 OX=10090 GN=Gad1 PE=1\nMASSTPSPAT\n"
    ...         ">tr|A2AQ51|A2AQ51_MOUSE Glutamate decarboxylase OX=10090 GN=Gad1 PE=1\nMASSTPSPATSS\n"
    ...     )
    ...     found = find_proteins(["GAD1", "Malat1"], organism="mouse", proteome=path)
    >>> found.table[["gene", "accession", "matched", "reason"]]
         gene accession matched                reason
    0    GAD1    P48318    case    the only reviewed of 2
    1  Malat1                      no protein of this name
    """
    taxon = taxon_of(organism)
    wanted = lookup.wanted_genes(genes, gene_column=gene_column)
    if proteome is not None:
        files = [proteome] if isinstance(proteome, str | os.PathLike) else proteome
        paths = [Path(one) for one in files]
        with progress_callback(progress) as report:
            candidates = lookup.in_files(wanted, read_proteome(paths, taxon=taxon, progress=report))
        source, unasked = ", ".join(path.name for path in paths), set[str]()
    else:
        folder = default_cache() if cache is None else Path(cache).expanduser()
        fix = f"The answers received so far are kept in {folder}. Run again to continue. "
        fix += lookup.without_network(taxon)
        service = Service(url=url.rstrip("/"), name="UniProt", fix=fix)
        uniprot = UniProt(service=service, cache=folder, offline=offline)
        with progress_callback(progress) as report:
            candidates, unasked, releases = lookup.in_uniprot(wanted, uniprot, taxon=taxon, progress=report)
        source = f"UniProt {', '.join(sorted(releases))}".strip()
    rows = [lookup.row_of(gene, candidates[gene.name], taxon=taxon, unasked=unasked) for gene in wanted]
    found = ProteinTable(table=pd.DataFrame(rows), taxon=taxon, source=source)
    if not found.found:
        raise _none_found(found, wanted)
    return found


def default_cache() -> Path:
    """Return cellweft's folder in the user's folder for caches, ``XDG_CACHE_HOME`` or the system's."""
    home = Path.home()
    places = {
        "win32": Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local"),
        "darwin": home / "Library" / "Caches",
    }
    caches = Path(os.environ.get("XDG_CACHE_HOME") or places.get(sys.platform, home / ".cache"))
    return caches / "cellweft" / "uniprot"


def _none_found(found: ProteinTable, wanted: Sequence[lookup.Wanted]) -> GeneError:
    by_id = all(gene.by_id and not gene.symbol for gene in wanted)
    fix = (
        "The genes are Ensembl IDs, which UniProt's files do not contain. Use Ensembl's peptide file, or "
        "a dataset with a column gene_symbol in var."
        if by_id and not found.source.startswith("UniProt ")
        else "Check the organism, and that the names are gene symbols or Ensembl gene IDs."
    )
    return GeneError(
        "genes",
        expected=f"genes of {organism_name(found.taxon)} in {found.source}",
        got=f"no protein for any of {len(wanted):,}: {shorten([gene.name for gene in wanted], most=3)}",
        fix=fix,
    )
