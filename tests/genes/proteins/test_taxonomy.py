"""Organisms by name."""

import pytest

from cellweft._errors import SettingError
from cellweft.genes.proteins.taxonomy import ORGANISMS, organism_name, taxon_of


@pytest.mark.parametrize("asked", ["mouse", " Mouse", "Mus musculus", "mus_musculus", "10090", 10090])
def test_an_organism_may_be_named_in_many_ways(asked: str | int) -> None:
    assert taxon_of(asked) == 10090


def test_every_name_belongs_to_a_single_taxon() -> None:
    taxa = [taxon_of(name) for name in ORGANISMS]
    assert len(set(taxa)) == len(ORGANISMS)
    assert taxa == [taxon_of(scientific) for scientific, _ in ORGANISMS.values()]
    assert organism_name(taxon_of("fly")) == "fly (taxon 7227)"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("mosue", r"got 'mosue'\. Did you mean 'mouse'"),
        ("Homo sapien", "Did you mean 'Homo sapiens'"),
        ("unicorn", r"Known: .* and 33 more\. Look up any other taxon number at https"),
        ("0", "the name of an organism or its taxon number"),
        (-3, "got -3"),
        ("", "got ''"),
    ],
)
def test_an_unknown_organism(asked: str | int, words: str) -> None:
    with pytest.raises(SettingError, match=f"organism: .*{words}"):
        taxon_of(asked)
