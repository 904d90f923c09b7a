"""Finds one protein sequence for each gene, and documents each choice.

Proteins are from FASTA files, such as UniProt's proteome of an organism, or from UniProt's service.
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
    """One protein for each gene, and how it was chosen.

    Attributes
    ----------
    table
        One row per gene, in the requested order:

        - ``gene``: the name, as in the dataset
        - ``accession``, ``entry_name``: the names of the protein in the database; empty if there is none
        - ``reviewed``: whether it is in the reviewed part of UniProt
        - ``canonical``: whether it is the canonical isoform of its gene
        - ``length``: number of amino acids; 0 if there is no protein
        - ``matched``: "exact", "case", "Ensembl" or "synonym"; empty if there is no protein
        - ``gene_name``: the name of the gene in the database
        - ``candidates``: number of proteins that it was chosen from; with UniProt's service, only reviewed
          ones if there are any
        - ``reason``: why this protein was chosen, or why there is none
        - ``sequence``: the amino acids, one letter each; empty if there is no protein
    taxon
        The organism.
    source
        Origin of the proteins: files, or UniProt with its release.
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
        """Genes without a protein."""
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
        """What you should know before you use the proteins, one sentence each."""
        cautions = []
        without = self.table[self.table["length"] == 0]
        for reason, genes in without["gene"].groupby(without["reason"].str.replace(r" \(.*", "", regex=True)):
            those = f"{many(len(genes), 'gene')} without a protein"
            cautions.append(f"{those}, {reason}: {shorten(list(genes), most=3)}.")
        synonyms = self.table[self.table["matched"] == "synonym"]
        if len(synonyms):
            first = synonyms.iloc[0]
            cautions.append(
                f"{many(len(synonyms), 'gene')} found by a synonym, such as {first['gene']!r}, "
                f"which the database calls {first['gene_name']!r}."
            )
        shared = self.table[(self.table["accession"] != "") & self.table["accession"].duplicated(keep=False)]
        if len(shared):
            those = f"{many(len(shared), 'gene')} share a protein"
            cautions.append(f"{those}: {shorten(list(shared['gene']), most=4)}.")
        return cautions

    def __repr__(self) -> str:
        genes = f"{many(len(self.table), 'gene')} of {organism_name(self.taxon)}"
        return f"ProteinTable({len(self.found):,} of {genes} from {self.source})"

    def records(self) -> list[FastaRecord]:
        """Return the proteins as FASTA records, with the gene names of the dataset."""
        those = self.table[self.table["length"] > 0]
        columns = ("gene", "accession", "entry_name", "sequence")
        return [
            FastaRecord(name=gene, description=f"{accession} {entry}".strip(), sequence=sequence)
            for gene, accession, entry, sequence in zip(*(those[column] for column in columns), strict=True)
        ]

    @checks_kinds
    def write(self, fasta: PathLike, *, table: PathLike | None = None, overwrite: bool = False) -> None:
        """Write the proteins to a FASTA file, and all genes to a table. Either both are written or neither.

        Parameters
        ----------
        fasta
            A path ending in .fa, .fasta or .faa; add .gz to compress the file.
        table
            A path ending in .tsv, .csv or .parquet; None for no table.
        overwrite
            Whether to replace existing files.

        Raises
        ------
        SettingError
            A path has another ending.
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
    r"""Find one protein for each gene.

    Genes are matched by exact name, then ignoring case, then by Ensembl ID, then by synonym (only with
    UniProt's service). If the dataset uses IDs as gene names, the ID comes first. If a gene has several
    proteins, reviewed ones are preferred to unreviewed ones, canonical ones to other isoforms, then the
    longest, then the first accession.

    Parameters
    ----------
    genes
        Names or Ensembl IDs; the path of a text file with one per line; or AnnData or its path. If its `var`
        has both symbols and Ensembl IDs, both are used.
    organism
        A name such as "mouse" or "Homo sapiens", or an NCBI taxon number.
    proteome
        FASTA files to use instead of UniProt's service: from UniProt, Ensembl or GENCODE, or any file whose
        headers start with the gene name; may be gzipped.
    gene_column
        Column of `var` with the names; by default those of `var` itself.
    cache
        Folder for cached responses from UniProt; by default cellweft's folder in your cache directory.
        Nothing that is cached is requested again. To use a newer release of UniProt, remove the folder.
    offline
        Whether to use only cached responses from UniProt, and never the network.
    url
        URL of the UniProt service, or of a mirror.
    progress
        True shows a bar in terminals and notebooks, False shows nothing; a callback is called with (stage,
        done, total) during the search.

    Returns
    -------
    ProteinTable
        One row per gene, including genes without a protein.

    Raises
    ------
    SettingError
        The organism is unknown.
    GeneError
        There is no gene, a gene occurs twice, or no gene has a protein.
    MissingFileError
        A path does not exist or, in offline mode, the cache contains no response for any of the genes.
    FormatError, InputError
        A file has the wrong format, or contains only proteins of other organisms.
    ServiceError
        UniProt did not respond. Responses received so far are kept, and the next run resumes from there.

    Notes
    -----
    The stImpute paper uses sequences from "protein databases (such as UniProt)" and finds none for about 3 %
    of its genes. It does not say which protein of a gene it uses.

    A synonym that belongs to several genes is ambiguous; such genes get no protein.

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
         gene accession matched                     reason
    0    GAD1    P48318    case     the only reviewed of 2
    1  Malat1                    no protein with this name
    """
    taxon = taxon_of(organism)
    wanted = lookup.wanted_genes(genes, gene_column=gene_column)
    if proteome is not None:
        files = [proteome] if isinstance(proteome, str | os.PathLike) else proteome
        paths = [Path(file) for file in files]
        with progress_callback(progress) as report:
            candidates = lookup.in_files(wanted, read_proteome(paths, taxon=taxon, progress=report))
        source, unasked = ", ".join(path.name for path in paths), set[str]()
    else:
        folder = default_cache() if cache is None else Path(cache).expanduser()
        fix = f"The responses received so far are kept in {folder}. Run again to continue. "
        fix += lookup.without_network(taxon)
        service = Service(url=url.rstrip("/"), name="UniProt", fix=fix)
        uniprot = UniProt(service=service, cache=folder, offline=offline)
        with progress_callback(progress) as report:
            candidates, unasked, releases = lookup.in_uniprot(wanted, uniprot, taxon=taxon, progress=report)
        source = f"UniProt {', '.join(sorted(releases))}".strip()
    rows = [lookup.row_of(gene, candidates[gene.name], taxon=taxon, unasked=unasked) for gene in wanted]
    protein_table = ProteinTable(table=pd.DataFrame(rows), taxon=taxon, source=source)
    if not protein_table.found:
        raise _none_found(protein_table, wanted)
    return protein_table


def default_cache() -> Path:
    """Return cellweft's folder in the user's cache directory, ``XDG_CACHE_HOME`` or the system's."""
    home = Path.home()
    places = {
        "win32": Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local"),
        "darwin": home / "Library" / "Caches",
    }
    caches = Path(os.environ.get("XDG_CACHE_HOME") or places.get(sys.platform, home / ".cache"))
    return caches / "cellweft" / "uniprot"


def _none_found(protein_table: ProteinTable, wanted: Sequence[lookup.Wanted]) -> GeneError:
    by_id = all(gene.by_id and not gene.symbol for gene in wanted)
    fix = (
        "The genes are Ensembl IDs, which UniProt's files do not contain. Use Ensembl's peptide file, or "
        "a dataset with a column gene_symbol in var."
        if by_id and not protein_table.source.startswith("UniProt ")
        else "Check the organism, and that the names are gene symbols or Ensembl gene IDs."
    )
    return GeneError(
        "genes",
        expected=f"genes of {organism_name(protein_table.taxon)} in {protein_table.source}",
        got=f"no protein for any of {len(wanted):,}: {shorten([gene.name for gene in wanted], most=3)}",
        fix=fix,
    )
