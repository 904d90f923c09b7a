"""Organisms by name, with their numbers in NCBI's taxonomy, which UniProt also uses."""

from __future__ import annotations

from cellweft._errors import SettingError
from cellweft._text import near

ORGANISMS: dict[str, tuple[str, int]] = {
    "human": ("Homo sapiens", 9606),
    "mouse": ("Mus musculus", 10090),
    "rat": ("Rattus norvegicus", 10116),
    "rhesus macaque": ("Macaca mulatta", 9544),
    "crab-eating macaque": ("Macaca fascicularis", 9541),
    "marmoset": ("Callithrix jacchus", 9483),
    "chimpanzee": ("Pan troglodytes", 9598),
    "pig": ("Sus scrofa", 9823),
    "cow": ("Bos taurus", 9913),
    "sheep": ("Ovis aries", 9940),
    "dog": ("Canis lupus familiaris", 9615),
    "rabbit": ("Oryctolagus cuniculus", 9986),
    "chicken": ("Gallus gallus", 9031),
    "zebrafish": ("Danio rerio", 7955),
    "frog": ("Xenopus tropicalis", 8364),
    "fly": ("Drosophila melanogaster", 7227),
    "worm": ("Caenorhabditis elegans", 6239),
    "yeast": ("Saccharomyces cerevisiae", 559292),
    "thale cress": ("Arabidopsis thaliana", 3702),
}
"""Scientific name and taxon of organisms, by common name."""


def taxon_of(organism: str | int) -> int:
    """Return the taxon of an organism.

    Parameters
    ----------
    organism
        A name in `ORGANISMS`, common or scientific, in any case; or the number of any taxon.

    Raises
    ------
    SettingError
        The name is not known, or the number is not above 0.

    Examples
    --------
    >>> taxon_of("mouse"), taxon_of("Homo sapiens"), taxon_of("7955")
    (10090, 9606, 7955)
    >>> taxon_of("mosue")
    Traceback (most recent call last):
    cellweft.errors.SettingError: organism: expected ..., got 'mosue'. Did you mean 'mouse' ...
    """
    text = " ".join(str(organism).replace("_", " ").split()).lower()
    if text.isdecimal() and int(text):
        return int(text)
    names = {plain: taxon for plain, (_, taxon) in ORGANISMS.items()} | dict(ORGANISMS.values())
    taxa = {name.lower(): taxon for name, taxon in names.items()}
    if text not in taxa:
        raise SettingError(
            "organism",
            expected="the name of an organism or its taxon number",
            got=repr(organism),
            fix=f"{near(text, names)} Look up any other taxon number at https://www.uniprot.org/taxonomy.",
        )
    return taxa[text]


def organism_name(taxon: int) -> str:
    """Return the common name of a taxon with its number, or only the number.

    Examples
    --------
    >>> organism_name(10090), organism_name(1)
    ('mouse (taxon 10090)', 'taxon 1')
    """
    plain = {number: name for name, (_, number) in ORGANISMS.items()}
    return f"{plain[taxon]} (taxon {taxon})" if taxon in plain else f"taxon {taxon}"
