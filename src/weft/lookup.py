"""Genes looked up in files of proteins or at UniProt, and the row of the table that comes of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

from weft._errors import MissingFileError, arg, shorten
from weft._typing import Progress
from weft.organisms import organism_name
from weft.proteome import Protein, choose
from weft.uniprot import URL, Part, Question, UniProt, is_askable
from weft.wanted import Wanted

Match: TypeAlias = Literal["exact", "case", "Ensembl", "synonym"]
"""How a gene was found: by its very name, by its name in another case, by its Ensembl ID, or by a synonym."""

_CERTAIN: frozenset[Match] = frozenset({"exact", "Ensembl"})
_UNASKED = "not in the cache and, offline, not asked for"
_NAMELESS = "its name has a blank, or a character that UniProt does not take"

Candidates: TypeAlias = dict[str, list[tuple[Match, Protein]]]
"""Proteins of each gene, with how they were found."""


def in_files(wanted: Iterable[Wanted], proteins: Iterable[Protein]) -> Candidates:
    """Look genes up among proteins."""
    tables: dict[Match, dict[str, list[Protein]]] = {"Ensembl": {}, "exact": {}, "case": {}}
    for protein in proteins:
        for one in protein.ids:
            tables["Ensembl"].setdefault(one, []).append(protein)
        for name in protein.names:
            tables["exact"].setdefault(name, []).append(protein)
            tables["case"].setdefault(name.lower(), []).append(protein)
    keys = {
        gene.name: {"Ensembl": gene.ensembl, "exact": gene.symbol, "case": gene.symbol.lower()}
        for gene in wanted
    }
    return {
        name: [(how, one) for how, table in tables.items() for one in table.get(of_gene[how], [])]
        for name, of_gene in keys.items()
    }


def in_uniprot(
    wanted: Sequence[Wanted], uniprot: UniProt, *, taxon: int, progress: Progress
) -> tuple[Candidates, set[str], set[str]]:
    """Ask UniProt in steps, each for the genes that are still open.

    Reviewed proteins come first, as a gene that has one needs no other.

    Parameters
    ----------
    wanted
        The genes.
    uniprot
        The service with its cache.
    taxon
        The organism.
    progress
        Called with (stage, done, total) as answers come.

    Returns
    -------
    candidates
        Proteins of each gene, with how they were found.
    unasked
        Genes that the cache had no answer for, where the network may not be used.
    releases
        Releases of UniProt that answered.

    Raises
    ------
    MissingFileError
        The network may not be used, and the cache has no answer at all.
    ServiceError, OutputError
        As `weft.uniprot.UniProt.ask`.
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
            expected=f"answers of UniProt for these genes of {organism_name(taxon)}",
            got="none",
            fix=without_network(taxon),
        )
    return candidates, unasked - settled, releases


def _steps(wanted: Sequence[Wanted], taxon: int) -> list[tuple[Question, dict[str, str]]]:
    """Return what UniProt is asked in turn, with the key of each gene that it concerns."""
    ids = {gene.name: gene.ensembl for gene in wanted if gene.by_id}
    names = {gene.name: gene.symbol for gene in wanted if gene.symbol and is_askable(gene.symbol)}
    more_ids = {gene.name: gene.ensembl for gene in wanted if gene.ensembl and not gene.by_id}
    reviewed: Part = "UniProtKB-Swiss-Prot"
    everything: Part = "UniProtKB"
    steps = [
        (Question(source="Ensembl", part=reviewed, taxon=0), ids),
        (Question(source="Ensembl", part=everything, taxon=0), ids),
        (Question(source="Gene_Name", part=reviewed, taxon=taxon), names),
        (Question(source="Gene_Name", part=everything, taxon=taxon), names),
        (Question(source="Ensembl", part=everything, taxon=0), more_ids),
        (Question(source="search", part=everything, taxon=taxon), names),
    ]
    return [(question, keys) for question, keys in steps if keys]


def _how(name: str, protein: Protein) -> Match:
    if name in protein.names:
        return "exact"
    return "case" if name.lower() in map(str.lower, protein.names) else "synonym"


def row_of(
    gene: Wanted, candidates: Sequence[tuple[Match, Protein]], *, taxon: int, unasked: set[str]
) -> dict[str, object]:
    """Return the gene's row of the table."""
    if len(gene.name.split()) != 1:  # in a FASTA the name ends at the first blank
        return _empty(gene, _NAMELESS, 0)
    usable: dict[Match, dict[str, Protein]] = {}
    for place, (how, protein) in enumerate(candidates):
        if protein.sequence and protein.taxon in (0, taxon):
            usable.setdefault(how, {})[protein.accession or str(place)] = protein
    order: tuple[Match, ...] = ("exact", "case", "Ensembl", "synonym")
    for how in sorted(order, key=lambda one: (one != "Ensembl") if gene.by_id else 0):
        those = list(usable.get(how, {}).values())
        owners = _owners(those) if how == "synonym" else []
        if len(owners) > 1:
            return _empty(gene, f"a synonym of several genes ({shorten(owners)})", len(those))
        if those:
            protein, reason = choose(those)
            return {
                "gene": gene.name,
                "accession": protein.accession,
                "entry_name": protein.entry_name,
                "reviewed": protein.reviewed,
                "canonical": protein.canonical,
                "length": len(protein.sequence),
                "matched": how,
                "gene_name": _name_of(gene, protein),
                "candidates": len(those),
                "reason": reason,
                "sequence": protein.sequence,
            }
    return _empty(gene, _why_none(gene, [one for _, one in candidates], taxon, unasked), 0)


def _owners(proteins: Sequence[Protein]) -> list[str]:
    """Return the genes that proteins found by a synonym belong to; of reviewed ones, where there are any."""
    reviewed = [one for one in proteins if one.reviewed]
    names = {(one.names or (one.accession,))[0] for one in reviewed or proteins}
    return sorted({name.lower(): name for name in sorted(names)}.values())


def _name_of(gene: Wanted, protein: Protein) -> str:
    """Return what the database calls the gene: of several names of a protein the one that fits."""
    fitting = [name for name in protein.names if name.lower() == gene.symbol.lower()]
    return next(iter([*fitting, *protein.names]), "")


def _empty(gene: Wanted, reason: str, n_candidates: int) -> dict[str, object]:
    texts = dict.fromkeys(("accession", "entry_name"), "")
    return {
        "gene": gene.name,
        **texts,
        "reviewed": False,
        "canonical": False,
        "length": 0,
        "matched": "",
        "gene_name": "",
        "candidates": n_candidates,
        "reason": reason,
        "sequence": "",
    }


def _why_none(gene: Wanted, proteins: Sequence[Protein], taxon: int, unasked: set[str]) -> str:
    if gene.name in unasked:
        return _UNASKED
    others = {one.taxon for one in proteins if one.taxon not in (0, taxon)}
    if others:
        return f"its proteins are of {organism_name(min(others))}"
    if proteins:
        return "its entries were deleted"
    if not gene.ensembl and not is_askable(gene.symbol):
        return _NAMELESS
    return "no protein of this name" if not gene.by_id else "no protein of this Ensembl ID"


def without_network(taxon: int) -> str:
    """Return how to find an organism's proteins without a network, as sentences."""
    return (
        "To work without a network, download the organism's proteins elsewhere, from "
        f"{URL}/uniprotkb/stream?format=fasta&compressed=true&query=organism_id:{taxon} "
        "or from https://www.uniprot.org/proteomes, and name the file: " + arg("proteome", "FILE") + "."
    )
