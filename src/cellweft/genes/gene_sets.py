"""Sets of genes, such as GO terms and Reactome pathways, from GMT files or from memory."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from cellweft._errors import FormatError, InputError, arg, checks_kinds, path_of
from cellweft._text import many
from cellweft._typing import BoolArray, DoubleArray, PathLike
from cellweft.genes.matching import match_known
from cellweft.genes.text_files import head_of, open_bytes, text_errors

_KIND = "a GMT file (per line: name, description and genes, separated by tabs)"


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneSets:
    """Gene sets: their members and the information content of each set.

    Parameters
    ----------
    genes
        (n_genes,) unique names, spelled as in the source.
    members
        (n_genes, n_sets) 1 if a gene is in a set, otherwise 0; sparse.
    information
        (n_sets,) information content of every set in nats, at least 0: -log of the share of the source's
        genes that are in it.
    source
        Origin of the sets, for messages and records.

    Raises
    ------
    InputError
        There is no gene or no set, or the shapes do not match.

    Examples
    --------
    >>> sets = read_gene_sets({"GABA": ["Gad1", "Gad2"], "neuron": ["Gad1", "Gad2", "Sst"]})
    >>> sets.information.round(2).tolist()
    [0.41, 0.0]
    >>> known, members = sets.aligned(["SST", "Gfap"])
    >>> known.tolist(), members.toarray().tolist()
    ([True, False], [[0.0, 1.0], [0.0, 0.0]])
    """

    genes: NDArray[np.str_]
    members: sp.csr_matrix
    information: DoubleArray
    source: str

    def __post_init__(self) -> None:
        shape = (len(self.genes), len(self.information))
        if not all(shape) or self.members.shape != shape:
            raise InputError(
                self.source,
                expected="genes in sets",
                got=f"{shape[0]} genes, {shape[1]} sets and members of shape {self.members.shape}",
                fix="Pass at least one set with genes.",
            )

    def __repr__(self) -> str:
        n_genes, n_sets = self.members.shape
        return f"GeneSets({many(n_genes, 'gene')} in {many(n_sets, 'set')} from {self.source})"

    def aligned(self, genes: Sequence[str] | NDArray[Any]) -> tuple[BoolArray, sp.csr_matrix]:
        """Return the sets of the genes of a dataset, matched by exact name or ignoring case.

        Parameters
        ----------
        genes
            (n_asked,) unique names.

        Returns
        -------
        known
            (n_asked,) which of them are in any set.
        members
            (n_asked, n_sets) 1 if a gene is in a set; sparse.

        Raises
        ------
        GeneError
            None of the genes is in a set.
        """
        match, is_known = match_known(genes, self.genes, source=self.source, kind="sets")
        places = sp.csr_matrix(
            (np.ones(len(match.first), dtype=np.float32), (match.first, match.second)),
            shape=(len(genes), len(self.genes)),
        )
        members = sp.csr_matrix(places @ self.members)
        members.sort_indices()  # sums over them are identical after reading and after loading
        return is_known, members

    def of_genes(self, genes: Sequence[str] | NDArray[Any]) -> GeneSets:
        """Return the same sets with only some genes, and their information content for these genes.

        Parameters
        ----------
        genes
            (n_asked,) unique names; genes that are in no set are ignored.

        Raises
        ------
        GeneError
            None of the genes is in a set.

        Examples
        --------
        >>> sets = read_gene_sets({"GABA": ["Gad1", "Gad2"], "neuron": ["Gad1", "Gad2", "Sst"]})
        >>> sets.of_genes(["Gad1", "Sst"]).information.round(2).tolist()
        [0.69, 0.0]
        """
        match, _ = match_known(genes, self.genes, source=self.source, kind="sets")
        rows = np.sort(match.second)
        members = sp.csr_matrix(self.members[rows])
        sizes = np.maximum(np.asarray(members.sum(axis=0), dtype=np.float64).ravel(), 1)
        return GeneSets(
            genes=self.genes[rows], members=members, information=np.log(len(rows) / sizes), source=self.source
        )


GeneSetSource: TypeAlias = "PathLike | Mapping[str, Iterable[str]] | GeneSets"


@checks_kinds
def read_gene_sets(source: GeneSetSource | Sequence[GeneSetSource]) -> GeneSets:
    """Read gene sets from GMT files, or from memory.

    Parameters
    ----------
    source
        The path of a GMT file (``.gmt`` or ``.gmt.gz``: GO, Reactome and others at MSigDB or Enrichr), a
        mapping from the name of a set to its genes, or several of these, which are combined.

    Returns
    -------
    GeneSets
        The sets in the order of the source, for the argument ``gene_sets`` of `cellweft.Imputer`.

    Raises
    ------
    MissingFileError
        The path does not exist.
    FormatError
        The file is not a GMT file: it is binary or damaged, or a line has no genes.
    InputError
        There is no set with genes, or a set's genes are a string instead of a list.

    Notes
    -----
    Each line is a set: its name, a description and its genes, separated by tabs. Text after a comma in a
    gene, such as the weights in some Enrichr files, is removed. A gene counts once in a set. The information
    content of a set is -log(n_genes of the set / n_genes in any set), which is 0 for a set that contains all
    genes. Sets are not propagated: if a gene of a GO term should also be in its parent terms, the file must
    list it there.

    Examples
    --------
    >>> read_gene_sets([{"GABA": ["Gad1", "Gad2"]}, {"neuron": ["Gad1", "Gad2", "Sst"]}])
    GeneSets(3 genes in 2 sets from memory, memory)
    """
    if isinstance(source, GeneSets):
        return source
    sources = source if isinstance(source, list | tuple) else [source]
    sets = [genes for part in sources for genes in _sets_of(part)]
    return _gene_sets(sets, ", ".join(map(_name_of, sources)) or "no source")


def _sets_of(source: GeneSetSource | Sequence[GeneSetSource]) -> list[list[str]]:
    """Return the genes of each set."""
    if isinstance(source, GeneSets):
        by_set = sp.csc_matrix(source.members)
        return [genes.tolist() for genes in np.split(source.genes[by_set.indices], by_set.indptr[1:-1])]
    if isinstance(source, Mapping):
        for name, genes in source.items():
            if isinstance(genes, str) or not isinstance(genes, Iterable):
                where, fix = f"gene_sets[{name!r}]", "Pass a list of names."
                raise InputError(where, expected="a list of genes", got=repr(genes), fix=fix)
        return [[str(gene) for gene in genes] for genes in source.values()]
    path = Path(path_of("gene_sets", source, expected="a mapping from sets to genes, or a path"))
    head_of(path, kind=_KIND)
    with text_errors(path, kind=_KIND), open_bytes(path) as file:
        lines = io.TextIOWrapper(file, encoding="utf-8-sig")
        return [_genes_of(line, path, number) for number, line in enumerate(lines, start=1) if line.strip()]


def _genes_of(line: str, path: Path, number: int) -> list[str]:
    name, *others = line.rstrip("\r\n").split("\t")
    genes = [gene.partition(",")[0].strip() for gene in others[1:]]
    if not name.strip() or not any(genes):
        raise FormatError(
            f"{path}, line {number}",
            expected="the name of a set, a description and at least one gene, separated by tabs",
            got=f"{len(others) + 1} field(s): {line.strip()[:60]!r}",
            fix="Pass a GMT file. Pass a list of gene pairs as " + arg("edges") + ".",
        )
    return [gene for gene in genes if gene]


def _gene_sets(sets: list[list[str]], source: str) -> GeneSets:
    place: dict[str, int] = {}
    columns = [sorted({place.setdefault(gene, len(place)) for gene in genes}) for genes in sets]
    starts = np.concatenate([[0], np.cumsum([len(column) for column in columns], dtype=np.int64)])
    rows = np.array([row for column in columns for row in column], dtype=np.int64)
    shape = (len(place), len(sets))
    members = sp.csc_matrix((np.ones(len(rows), dtype=np.float32), rows, starts), shape=shape)
    sizes = np.maximum(np.diff(starts), 1)
    return GeneSets(
        genes=np.array(list(place), dtype=np.str_),
        members=sp.csr_matrix(members),
        information=np.log(max(len(place), 1) / sizes),
        source=source,
    )


def _name_of(source: object) -> str:
    if isinstance(source, GeneSets):
        return source.source
    return "memory" if isinstance(source, Mapping) else str(source)
