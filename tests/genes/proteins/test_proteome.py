"""Proteins of a file: what is read from headers, and which protein of a gene is chosen."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._errors import InputError
from cellweft.genes.proteins.fasta import FastaRecord
from cellweft.genes.proteins.proteome import Protein, choose, parse_record, read_proteome

MOUSE = 10090
UNIPROT = "OS=Mus musculus OX=10090"


def record(header: str, sequence: str = "MASS") -> FastaRecord:
    name, _, description = header.partition(" ")
    return FastaRecord(name=name, description=description, sequence=sequence)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            f"sp|P48318|DCE1_MOUSE Glutamate decarboxylase 1 {UNIPROT} GN=Gad1 PE=1 SV=2",
            Protein(
                accession="P48318",
                entry_name="DCE1_MOUSE",
                names=("Gad1",),
                reviewed=True,
                taxon=MOUSE,
                sequence="MASS",
            ),
        ),
        (
            f"tr|A2AQ51|A2AQ51_MOUSE Glutamate decarboxylase 1 (Fragment) {UNIPROT} GN=Gad1 PE=4 SV=1",
            Protein(
                accession="A2AQ51", entry_name="A2AQ51_MOUSE", names=("Gad1",), taxon=MOUSE, sequence="MASS"
            ),
        ),
        (
            f"sp|P48318-2|DCE1_MOUSE Isoform 2 of Glutamate decarboxylase 1 {UNIPROT} GN=Gad1",
            Protein(
                accession="P48318-2",
                entry_name="DCE1_MOUSE",
                names=("Gad1",),
                reviewed=True,
                canonical=False,
                taxon=MOUSE,
                sequence="MASS",
            ),
        ),
        (
            f"tr|A0A0|A0A0_MOUSE T-cell receptor {UNIPROT} GN=Tcr beta-1 PE=3 SV=1",
            Protein(
                accession="A0A0", entry_name="A0A0_MOUSE", names=("Tcr beta-1",), taxon=MOUSE, sequence="MASS"
            ),
        ),
        (
            f"sp|P01864|GCAB_MOUSE Ig gamma-2A chain {UNIPROT} PE=1 SV=1",
            Protein(accession="P01864", entry_name="GCAB_MOUSE", reviewed=True, taxon=MOUSE, sequence="MASS"),
        ),
        (
            "ENSMUSP00000070880.11 pep chromosome:GRCm39:2:70391128:70432359:1 gene:ENSMUSG00000070880.11 "
            "transcript:ENSMUST00000077127.11 gene_biotype:protein_coding gene_symbol:Gad1 description:x",
            Protein(
                accession="ENSMUSP00000070880.11",
                names=("Gad1",),
                ids=("ENSMUSG00000070880",),
                sequence="MASS",
            ),
        ),
        (
            "ENSMUSP00000099999.1 pep gene:ENSMUSG00000099999.1 transcript:ENSMUST00000099999.1",
            Protein(accession="ENSMUSP00000099999.1", ids=("ENSMUSG00000099999",), sequence="MASS"),
        ),
        (
            "ENSMUSP00000065393.8|ENSMUST00000070533.5|ENSMUSG00000051951.6|OTTMUSG1|OTTMUST1|Xkr4-201|Xkr4|647",
            Protein(
                accession="ENSMUSP00000065393.8",
                names=("Xkr4",),
                ids=("ENSMUSG00000051951",),
                sequence="MASS",
            ),
        ),
        ("Gad1 my own protein", Protein(accession="", names=("Gad1",), sequence="MASS")),
        (
            "P48318 my own OX=10090 GN=Gad1",
            Protein(accession="P48318", names=("Gad1",), taxon=MOUSE, sequence="MASS"),
        ),
    ],
    ids=[
        "reviewed",
        "unreviewed",
        "isoform",
        "blank",
        "no gene",
        "ensembl",
        "no symbol",
        "gencode",
        "plain",
        "GN",
    ],
)
def test_headers(header: str, expected: Protein) -> None:
    assert parse_record(record(header)) == expected


def protein(accession: str, length: int, *, reviewed: bool = False, canonical: bool = True) -> Protein:
    return Protein(accession=accession, reviewed=reviewed, canonical=canonical, sequence="M" * length)


@pytest.mark.parametrize(
    ("proteins", "accession", "reason"),
    [
        ([protein("A", 5)], "A", "the only one"),
        ([protein("A", 9), protein("P", 5, reviewed=True)], "P", "the only reviewed of 2"),
        (
            [
                protein("P-2", 9, reviewed=True, canonical=False),
                protein("P", 5, reviewed=True),
                protein("A", 99),
            ],
            "P",
            "the only canonical of 2 reviewed of 3",
        ),
        ([protein("A", 9, canonical=False), protein("B", 5)], "B", "the only canonical of 2"),
        # A reviewed isoform takes precedence over an unreviewed canonical protein.
        (
            [protein("P-2", 5, reviewed=True, canonical=False), protein("A", 9)],
            "P-2",
            "the only reviewed of 2",
        ),
        ([protein("A", 5), protein("B", 7), protein("C", 6)], "B", "the longest of 3"),
        (
            [protein("P", 5, reviewed=True), protein("Q", 6, reviewed=True), protein("A", 9)],
            "Q",
            "the longest of 2 reviewed of 3",
        ),
        ([protein("C", 5), protein("B", 5), protein("A", 4)], "B", "the first accession of 2 longest of 3"),
    ],
)
def test_the_choice_and_its_reason(proteins: list[Protein], accession: str, reason: str) -> None:
    chosen, told = choose(proteins)
    assert (chosen.accession, told) == (accession, reason)


some = st.builds(
    lambda accession, length, reviewed, canonical: protein(
        accession, length, reviewed=reviewed, canonical=canonical
    ),
    st.text("ABCDE", min_size=3, max_size=3),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(proteins=st.lists(some, min_size=1, max_size=8, unique_by=lambda one: one.accession), data=st.data())
def test_the_choice_does_not_depend_on_the_order_of_proteins(
    proteins: list[Protein], data: st.DataObject
) -> None:
    naive = sorted(
        proteins, key=lambda one: (not one.reviewed, not one.canonical, -len(one.sequence), one.accession)
    )[0]
    turned = data.draw(st.permutations(proteins))
    assert choose(turned)[0] == choose(proteins)[0] == naive
    assert choose(turned)[1] == choose(proteins)[1]


def fasta(path: Path, *headers: str) -> Path:
    text = "".join(f">{header}\nMASS\n" for header in headers).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def test_several_files_and_each_accession_once(tmp_path: Path) -> None:
    first = fasta(tmp_path / "a.fasta", f"sp|P1|P1_MOUSE x {UNIPROT} GN=A", "Own", "Own")
    second = fasta(
        tmp_path / "b.fasta.gz",
        f"sp|P1|P1_MOUSE x {UNIPROT} GN=A",
        f"tr|A1|A1_MOUSE x {UNIPROT} GN=A",
        "sp|P2|P2_HUMAN x OX=9606 GN=A",
    )
    steps: list[tuple[str, int, int]] = []
    found = read_proteome([first, second], taxon=MOUSE, progress=lambda *one: steps.append(one))
    assert [one.accession for one in found] == ["P1", "", "", "A1"]
    assert steps == [("reading proteins", number, 2) for number in range(3)]


def test_only_proteins_of_other_organisms_are_refused(tmp_path: Path) -> None:
    headers = (
        "sp|P1|P1_HUMAN x OX=9606 GN=A",
        "sp|P2|P2_HUMAN x OX=9606 GN=B",
        "sp|P3|P3_RAT x OX=10116 GN=B",
    )
    path = fasta(tmp_path / "human.fasta", *headers)
    message = (
        r"human\.fasta: expected proteins of mouse \(taxon 10090\), got 3 from others, such as human "
        r"\(taxon 9606\)\. Change the organism"
    )
    with pytest.raises(InputError, match=message):
        read_proteome([path], taxon=MOUSE)


def test_an_internal_stop_is_only_accepted_from_ensembl(tmp_path: Path) -> None:
    header = "ENSMUSP1.1 pep gene:ENSMUSG00000000001.1"
    path = tmp_path / "pep.fa"
    path.write_text(f">{header}\nMA*S\n>{header.replace('SP1', 'SP2')}\nMAS\n")
    assert [one.accession for one in read_proteome([path], taxon=MOUSE)] == ["ENSMUSP2.1"]
    path.write_text(">Gad1\nMA*S\n>Sst\nMAS\n")
    with pytest.raises(InputError, match=r"protein 'Gad1' \(line 1\): .* got '\*' at position 3"):
        read_proteome([path], taxon=MOUSE)
