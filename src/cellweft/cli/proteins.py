"""``cellweft proteins``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cellweft.cli.console import running
from cellweft.cli.options import Overwrite, RunOptions
from cellweft.cli.parsing import check_device

if TYPE_CHECKING:
    from cellweft.genes.proteins.table import ProteinTable

_MOST_SHOWN = 100  # characters of the requested genes


def proteins(
    *,
    genes: Annotated[str, typer.Option(metavar="DATA|FILE|NAMES")],
    organism: Annotated[str, typer.Option(metavar="NAME|TAXON")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FASTA")],
    proteome: Annotated[list[Path] | None, typer.Option(metavar="FASTA")] = None,
    table: Annotated[Path | None, typer.Option(metavar="TABLE")] = None,
    gene_column: Annotated[str | None, typer.Option(metavar="COLUMN")] = None,
    cache: Annotated[Path | None, typer.Option(metavar="DIR")] = None,
    offline: bool = False,
    url: Annotated[str | None, typer.Option(metavar="URL")] = None,
    overwrite: Overwrite = False,
    run: RunOptions,
) -> None:
    """Find one protein for each gene, as input for cellweft embed.

    Parameters
    ----------
    genes
        Genes: a dataset (.h5ad, .zarr and the other formats), a text file with one name per line, or names
        separated by commas. Symbols and Ensembl IDs are recognised.
    organism
        Organism: a name, such as mouse or human, or any NCBI taxon ID.
    output
        Output file for the proteins, each named after its gene: .fa or .fasta, plus .gz to compress it.
    proteome
        FASTA file of the organism's proteins from UniProt, Ensembl or GENCODE (may be .gz). May be repeated.
        Without it, cellweft queries UniProt over the network.
    table
        Table of all genes with their protein and why it was chosen, or why there is none: .tsv, .csv or
        .parquet. Default: a .tsv file named like the output.
    gene_column
        Column of var with the gene names. Default: var_names.
    cache
        Folder for cached responses from UniProt, so that nothing is requested twice. Default: cellweft's
        folder in your cache directory.
    offline
        Do not use the network. Use only cached responses from UniProt.
    url
        URL of a mirror of the UniProt service.
    overwrite, run
        Options that are shared by several commands.
    """
    with running(run) as screen:
        check_device(run.device)
        source = _source(genes)
        beside = _beside(output) if table is None else table
        inputs = [*(proteome or []), *([source] if isinstance(source, Path) else [])]
        _check_outputs(output, beside, inputs, overwrite=overwrite)
        from cellweft.genes.proteins.table import find_proteins
        from cellweft.genes.proteins.uniprot import URL

        files = ", ".join(str(path) for path in proteome or [])
        where = files or ("cached UniProt responses" if offline else "UniProt, over the network")
        screen.say(
            f"Plan: one protein for every gene of {genes if len(genes) < _MOST_SHOWN else 'the list'}, "
            f"from {where}"
        )
        with screen.progress() as progress:
            protein_table = find_proteins(
                source,
                organism=organism,
                proteome=proteome or None,
                gene_column=gene_column,
                cache=cache,
                offline=offline,
                url=url or URL,
                progress=progress,
            )
        screen.say_each(protein_table.cautions)
        protein_table.write(output, table=beside, overwrite=overwrite)
        screen.finish(f"{_said(protein_table)} -> {output}, {beside}", _record(protein_table, output, beside))


def _source(genes: str) -> Path | list[str]:
    """Return the path of a dataset or a list, or the names separated by commas."""
    path = Path(genes).expanduser()
    is_there = os.path.exists(path)  # noqa: PTH110 (of a list longer than any path may be, Path.exists raises)
    if is_there or ("," not in genes and (path.suffix in _ENDINGS or "/" in genes)):
        return path
    return [name.strip() for name in genes.split(",") if name.strip()]


_ENDINGS = (".h5ad", ".zarr", ".h5", ".parquet", ".txt", ".csv", ".tsv", ".list", ".gz")


def _beside(output: Path) -> Path:
    """Return the default path of the table."""
    plain = output.with_suffix("") if output.suffix == ".gz" else output
    return plain.with_suffix(".tsv") if plain.name else plain


def _check_outputs(output: Path, table: Path, inputs: list[Path], *, overwrite: bool) -> None:
    """Raise unless the outputs can be written, without replacing an input."""
    from cellweft.data.io.atomic_output import check_apart, check_outputs
    from cellweft.genes.proteins.table import FASTA_SUFFIXES, TABLE_SUFFIXES

    check_apart([output, table], inputs)
    check_outputs({"output": (output, FASTA_SUFFIXES), "table": (table, TABLE_SUFFIXES)}, overwrite=overwrite)


def _said(protein_table: ProteinTable) -> str:
    counts = protein_table.counts
    ways = [f"{counts[key]:,} {words}" for key, words in _WAYS.items() if counts[key]]
    genes = f"{counts['found']:,} of {counts['genes']:,} genes"
    return f"Found proteins for {genes} in {protein_table.source} ({', '.join(ways)})"


_WAYS = {
    "reviewed": "reviewed",
    "exact": "by name",
    "case": "by name in another case",
    "ensembl": "by Ensembl ID",
    "synonym": "by synonym",
}


def _record(protein_table: ProteinTable, output: Path, table: Path) -> dict[str, object]:
    return {
        "command": "proteins",
        "output": output.resolve(),
        "table": table.resolve(),
        "taxon": protein_table.taxon,
        "source": protein_table.source,
        **protein_table.counts,
        "genes_without": protein_table.missing,
        "cautions": protein_table.cautions,
    }
