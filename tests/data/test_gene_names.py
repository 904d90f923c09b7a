"""Gene names match exactly, then ignoring case, then through Ensembl IDs; genes are never renamed."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._errors import GeneError
from cellweft.data.gene_names import (
    duplicates_of,
    find_names,
    id_column,
    looks_like_ensembl,
    match_genes,
    match_sides,
    symbols_and_ids,
    without_version,
)

IDS = [f"ENSMUSG{number:011d}" for number in range(4)]
SYMBOLS = ["Gad1", "Sst", "Vip", "Pvalb"]


def names(*values: str) -> np.ndarray:
    return np.array(values, dtype=np.str_)


def var(genes: list[str], **columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(columns, index=pd.Index(genes))


def test_exact_names_come_before_case() -> None:
    found = match_genes(["gad1", "Gad1"], ["GAD1", "Gad1"])
    assert found.first.tolist() == [0, 1]
    assert found.second.tolist() == [0, 1]
    assert found.by_case == (("gad1", "GAD1"),)


def test_ambiguous_names_are_left_out_and_reported() -> None:
    found = match_genes(["Gad1", "Sst"], ["GAD1", "gad1", "Sst"])
    assert found.first.tolist() == [1]
    assert found.ambiguous == ("Gad1",)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_match_is_symmetric_and_follows_the_order(data: st.DataObject) -> None:
    pool = ["A", "a", "B", "b", "C", "d", "D", "e"]
    first = data.draw(st.lists(st.sampled_from(pool), unique=True))
    second = data.draw(st.lists(st.sampled_from(pool), unique=True))
    one, two = match_genes(first, second), match_genes(second, first)
    pairs = list(zip(one.first.tolist(), one.second.tolist(), strict=True))
    assert sorted(pairs) == pairs
    assert {(b, a) for a, b in pairs} == set(zip(two.first.tolist(), two.second.tolist(), strict=True))
    assert all(first[a].lower() == second[b].lower() for a, b in pairs)
    assert {first[a] for a, b in pairs if first[a] == second[b]} == set(first) & set(second)


def test_ids_on_the_first_side_match_through_the_second() -> None:
    found = match_sides(
        names(*(one + ".3" for one in IDS)),
        names(*SYMBOLS[::-1]),
        first_var=var(IDS),
        second_var=var(SYMBOLS[::-1], kind=list("abcd"), gene_ids=IDS[::-1]),
    )
    assert found.first.tolist() == [0, 1, 2, 3]
    assert found.second.tolist() == [3, 2, 1, 0]
    assert found.bridge == "Ensembl IDs of the reference matched through var['gene_ids'] of the spatial data"


def test_ids_on_the_second_side_match_through_the_first() -> None:
    found = match_sides(
        names(*SYMBOLS), names(*IDS[1:]), first_var=var(SYMBOLS, ensembl=IDS), second_var=var(IDS[1:])
    )
    assert found.first.tolist() == [1, 2, 3]
    assert found.second.tolist() == [0, 1, 2]
    assert found.bridge == "Ensembl IDs of the spatial data matched through var['ensembl'] of the reference"


def test_symbols_next_to_ids_match_too() -> None:
    found = match_sides(
        names(*IDS),
        names("VIP", "GAD1"),
        first_var=var(IDS, feature_name=SYMBOLS),
        second_var=var(["VIP", "GAD1"]),
    )
    assert found.first.tolist() == [0, 2]
    assert found.second.tolist() == [1, 0]
    assert found.by_case == (("Gad1", "GAD1"), ("Vip", "VIP"))
    assert found.bridge == "symbols of the spatial data matched through var['feature_name'] of the reference"


def test_duplicate_symbols_next_to_ids_are_not_used_for_matching() -> None:
    found = match_sides(
        names(*IDS),
        names("Gad1", "Sst"),
        first_var=var(IDS, symbol=["Gad1", "Gad1", "Sst", "Vip"]),
        second_var=var(["Gad1", "Sst"]),
    )
    assert found.first.tolist() == [2]
    assert found.second.tolist() == [1]


def test_versions_of_ids_do_not_matter() -> None:
    found = match_sides(
        names(*IDS), names(IDS[2] + ".7", IDS[0] + ".1"), first_var=var(IDS), second_var=var(IDS[:2])
    )
    assert found.first.tolist() == [0, 2]
    assert found.bridge == "Ensembl IDs without their version"


def test_find_names_is_exact_and_then_ignores_case() -> None:
    assert find_names(["sst", "Gad1"], ["Gad1", "Sst"], where="genes").tolist() == [1, 0]
    assert find_names([], ["Gad1"], where="genes").tolist() == []


def test_unknown_and_ambiguous_names_are_errors() -> None:
    with pytest.raises(
        GeneError, match=r"genes: expected an existing gene, got 'Gda1'\. Did you mean 'Gad1'"
    ):
        find_names(["Gda1"], ["Gad1", "Sst"], where="genes")
    with pytest.raises(
        GeneError, match=r"expected one gene, got 'gad1', which may be 'Gad1', 'GAD1'\. Use the exact name"
    ):
        find_names(["gad1"], ["Gad1", "GAD1"], where="genes")


def test_ensembl_ids_are_recognised() -> None:
    assert looks_like_ensembl(IDS)
    assert not looks_like_ensembl(SYMBOLS)
    assert not looks_like_ensembl([])
    assert id_column(var(SYMBOLS, chrom=list("1234"), ids=IDS)) == "ids"
    assert id_column(var(SYMBOLS, chrom=list("1234"))) is None
    assert without_version([IDS[0] + ".12", "Nkx2.1"]).tolist() == [IDS[0], "Nkx2.1"]
    assert duplicates_of(["b", "a", "b", "a", "c"]) == ["b", "a"]


@pytest.mark.parametrize(
    ("names", "var", "symbols", "ids"),
    [
        (["Gad1", "Sst"], {}, ["Gad1", "Sst"], ["", ""]),
        (["Gad1", "Sst"], {"Gene_IDs": ["a1", None], "n": [1, 2]}, ["Gad1", "Sst"], ["a1", ""]),
        (["Gad1", "Sst"], {"what": ["ENSG00000128683", "ENSG00000157005"]}, ["Gad1", "Sst"], None),
        (["ENSG00000128683", "ENSG00000157005"], {}, ["", ""], None),
        (["ENSG00000128683", "ENSG00000157005"], {"symbol": ["GAD1", "SST"]}, ["GAD1", "SST"], None),
        (["Gad1", "Sst"], {"gene_id": pd.Categorical(["a1", "a2"])}, ["Gad1", "Sst"], ["a1", "a2"]),
    ],
)
def test_symbols_and_ids(
    names: list[str], var: dict[str, list[object]], symbols: list[str], ids: list[str] | None
) -> None:
    found = symbols_and_ids(np.array(names), pd.DataFrame(var, index=names))
    assert [one.tolist() for one in found] == [symbols, ids or ["ENSG00000128683", "ENSG00000157005"]]


@pytest.mark.parametrize("change", ["{}_mm10", "mouse_{}", "{}-1", "MM-{}_RNA", "Mus.musculus_{}", "{}.1"])
@pytest.mark.parametrize("side", [0, 1])
def test_a_common_prefix_or_suffix_of_names_does_not_matter(change: str, side: int) -> None:
    genes = np.array(["Gad1", "Sst", "H2-K1", "Sox2ot"])
    sides = [genes[:3], genes[1:]]
    sides[side] = np.array([change.format(one) for one in sides[side]])
    match = match_sides(*sides, first_var=pd.DataFrame(), second_var=pd.DataFrame())
    assert (match.first.tolist(), match.second.tolist()) == ([1, 2], [0, 1])
    assert match.by_spelling == tuple(sorted((str(sides[0][one + 1]), str(sides[1][one])) for one in (0, 1)))


def test_numbers_after_different_words_do_not_match() -> None:
    sides = np.array(["geneA-1", "geneA-2"]), np.array(["probe-1", "probe-2"])
    match = match_sides(*sides, first_var=pd.DataFrame(), second_var=pd.DataFrame())
    assert len(match.first) == 0


def test_numeric_ids_with_a_decimal_part_match() -> None:
    match = match_genes(["14415.0", "20604.0"], ["20604", "14415"])
    assert match.second.tolist() == [1, 0]
