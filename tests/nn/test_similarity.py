"""Similarity of genes against naive loops, ties, zeros and blocks; the nearest proteins are related."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._errors import SettingError
from cellweft.genes.embeddings import read_embedding
from cellweft.nn.similarity import cosine_columns, keep_largest, nearest_rows, replace_where

# a few dozen float64 products
TOLERANCE = 1e-12


def expression(seed: int) -> np.ndarray:
    """Draw expression of genes in the reference, where gene 6 and one cell are zero."""
    values = np.random.default_rng(seed).gamma(1.0, size=(9, 8)).astype(np.float32)
    values[:, 6] = 0
    values[4] = 0
    return values


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    left, right = left.astype(float), right.astype(float)
    length = math.sqrt(math.fsum(a * a for a in left)) * math.sqrt(math.fsum(b * b for b in right))
    return math.fsum(a * b for a, b in zip(left, right, strict=True)) / length if length else 0.0


def test_cosine_columns_equal_a_naive_loop() -> None:
    left, right = expression(0), expression(1)[:, :3]
    naive = [[cosine(one, other) for other in right.T] for one in left.T]
    np.testing.assert_allclose(cosine_columns(left, right), naive, atol=TOLERANCE)
    assert not cosine_columns(left, right)[6].any()


def test_replace_where_by_hand() -> None:
    made = replace_where(
        np.zeros((2, 3)), np.ones((2, 3)), np.array([True, False]), np.array([True, False, True])
    )
    assert made.tolist() == [[1, 0, 1], [0, 0, 0]]


class TestKeepLargest:
    def test_ties_are_broken_by_position(self) -> None:
        weights = np.array([[0.2, 0.5, 0.2, 0.2], [0.0, 0.0, 0.0, 0.0], [0.1, 0.4, 0.3, 0.2]])
        kept = keep_largest(weights, 2)
        assert kept.tolist() == [[0.2, 0.5, 0, 0], [0, 0, 0, 0], [0, 0.4, 0.3, 0]]
        assert weights[0].tolist() == [0.2, 0.5, 0.2, 0.2]

    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 999), most=st.integers(1, 9))
    def test_it_keeps_the_given_number_of_largest_values(self, seed: int, most: int) -> None:
        weights = np.random.default_rng(seed).random((4, 7))
        kept = keep_largest(weights, most)
        assert ((kept > 0).sum(axis=1) == min(most, 7)).all()
        assert ((kept == weights) | (kept == 0)).all()
        for row, dropped in zip(kept, np.where(kept > 0, -1, weights), strict=True):
            assert row[row > 0].min() > dropped.max()


def vectors(seed: int, n_rows: int, n_dim: int = 4) -> np.ndarray:
    """Draw vectors, some of them copies of others, and one of zeros."""
    generator = np.random.default_rng(seed)
    values = generator.standard_normal((n_rows, n_dim)).astype(np.float32)
    values = values[generator.integers(0, max(n_rows * 2 // 3, 1), n_rows)] if n_rows else values
    values[: n_rows // 6] = 0
    return values


def naive_nearest(rows: np.ndarray, others: np.ndarray, *, most: int, within: bool) -> list[list[int]]:
    """Return the most similar rows of every row, pair by pair; ties within rounding by position."""
    found = []
    for number, row in enumerate(rows):
        places = [place for place in range(len(others)) if not (within and place == number)]
        places.sort(key=lambda place: (-round(cosine(row, others[place]), 9), place))
        found.append(places[:most])
    return found


class TestNearestRows:
    @pytest.mark.slow
    @settings(max_examples=40, deadline=None)
    @given(
        seed=st.integers(0, 999), n_rows=st.integers(1, 40), most=st.integers(1, 12), block=st.integers(1, 50)
    )
    def test_it_equals_a_naive_loop_for_any_block_size(self, seed, n_rows, most, block) -> None:
        rows = vectors(seed, n_rows)
        near = nearest_rows(rows, most=most, block=block)
        naive = naive_nearest(rows, rows, most=most, within=True)
        assert near.places.shape == near.cosines.shape == (n_rows, min(most, n_rows - 1))
        for row, (places, cosines) in enumerate(zip(near.places, near.cosines, strict=True)):
            expected = [cosine(rows[row], rows[place]) for place in naive[row]]
            np.testing.assert_allclose(cosines, expected, atol=TOLERANCE)
            # Copies of a row may differ in the last bit of their cosine, so compare cosines instead of
            # positions.
            np.testing.assert_allclose([cosine(rows[row], rows[one]) for one in places], expected, atol=1e-9)
            assert row not in places
            assert len(set(places)) == len(places)

    @settings(max_examples=40, deadline=None)
    @given(
        seed=st.integers(0, 999),
        n_others=st.integers(1, 40),
        most=st.integers(1, 12),
        block=st.integers(1, 9),
    )
    def test_nearest_rows_of_another_matrix(self, seed, n_others, most, block) -> None:
        rows, others = vectors(seed, 7), vectors(seed + 1, n_others)
        near = nearest_rows(rows, others, most=most, block=block)
        naive = naive_nearest(rows, others, most=most, within=False)
        expected = [
            [cosine(row, others[one]) for one in places] for row, places in zip(rows, naive, strict=True)
        ]
        np.testing.assert_allclose(near.cosines, np.reshape(expected, near.cosines.shape), atol=TOLERANCE)

    @pytest.mark.slow
    @pytest.mark.parametrize("block", [1, 7, 64, 2048])
    def test_blocks_change_no_bit(self, block: int) -> None:
        rows = np.random.default_rng(0).standard_normal((150, 64)).astype(np.float32)
        whole, parts = nearest_rows(rows, most=9), nearest_rows(rows, most=9, block=block)
        np.testing.assert_array_equal(parts.places, whole.places)
        np.testing.assert_array_equal(parts.cosines, whole.cosines)

    def test_by_hand(self) -> None:
        rows = np.array([[1, 0], [2, 0], [1, 1], [-1, 0], [0, 0]], dtype=np.float32)
        near = nearest_rows(rows, most=3)
        assert near.places[0].tolist() == [1, 2, 4]
        np.testing.assert_allclose(near.cosines[0], [1, math.sqrt(0.5), 0], atol=TOLERANCE)
        assert near.places[3].tolist() == [4, 2, 0]
        assert near.cosines[3, 0] == 0
        assert near.places[4].tolist() == [0, 1, 2], (
            "a row of zeros has equal cosines, and ties are broken by position"
        )

    def test_many_copies_are_ordered_by_position(self) -> None:
        rows = np.tile(np.array([[3, 1, 2]], dtype=np.float32), (40, 1))
        near = nearest_rows(rows, most=3, block=16)
        assert near.places[0].tolist() == [1, 2, 3]
        assert near.places[2].tolist() == [0, 1, 3]
        assert near.places[39].tolist() == [0, 1, 2]

    def test_permuting_rows_permutes_the_result(self) -> None:
        rows = np.random.default_rng(0).standard_normal((60, 8)).astype(np.float32)
        order = np.random.default_rng(1).permutation(60)
        near, permuted = nearest_rows(rows, most=5), nearest_rows(rows[order], most=5)
        np.testing.assert_array_equal(order[permuted.places], near.places[order])

    def test_few_rows_or_none(self) -> None:
        assert nearest_rows(np.ones((1, 3), dtype=np.float32), most=2).places.shape == (1, 0)
        assert nearest_rows(np.empty((0, 3), dtype=np.float32), most=2).cosines.shape == (0, 0)
        empty = np.empty((0, 3), dtype=np.float32)
        assert nearest_rows(np.ones((2, 3), dtype=np.float32), empty, most=2).places.shape == (2, 0)

    def test_inputs_are_not_changed_and_may_be_read_only(self) -> None:
        rows = vectors(0, 20)
        rows.flags.writeable = False
        nearest_rows(rows, most=3)
        np.testing.assert_array_equal(rows, vectors(0, 20))

    @pytest.mark.parametrize(("options", "name"), [({"most": 0}, "most"), ({"most": 1, "block": 0}, "block")])
    def test_sizes_are_checked(self, options: dict[str, int], name: str) -> None:
        with pytest.raises(SettingError, match=f"{name}: expected a whole number >= 1, got 0"):
            nearest_rows(np.ones((2, 2), dtype=np.float32), **options)


# Real proteins

RELATIVES = [
    ("Crhr1", {"Crhr2"}),
    ("Pdgfra", {"Flt1", "Csf1r"}),
    ("Flt1", {"Pdgfra", "Csf1r"}),
    ("Slc17a6", {"Slc17a7", "Slc17a8"}),
    ("Slc17a7", {"Slc17a6", "Slc17a8"}),
    ("Rgs5", {"Rgs1", "Rgs2"}),
    ("Fezf1", {"Fezf2"}),
    ("Sox8", {"Sox10"}),
    ("Cbln1", {"Cbln2"}),
    ("Sema3c", {"Sema4d"}),
    ("Gabra1", {"Gabrg1"}),
    ("Avpr1a", {"Avpr2"}),
    ("Cckbr", {"Cckar"}),
    ("Oprk1", {"Oprd1"}),
    ("Npy1r", {"Npy2r"}),
    ("Sst", {"Cort"}),
]
"""Genes and members of their family; Kit is not in the table."""


@pytest.fixture(scope="module")
def proteins(shared_data: Path) -> dict[str, list[str]]:
    """The nearest 5 genes of every gene, by real protein embeddings."""
    table = read_embedding(shared_data / "esm2_gene_embeddings.h5ad")
    near = nearest_rows(table.values, most=5).places
    return {str(gene): table.genes[places].tolist() for gene, places in zip(table.genes, near, strict=True)}


@pytest.mark.parametrize(("gene", "relatives"), RELATIVES)
def test_the_nearest_proteins_of_a_gene_are_its_family(
    proteins: dict[str, list[str]], gene: str, relatives: set[str]
) -> None:
    assert relatives <= set(proteins[gene][:2])


def test_genes_with_similar_names_have_similar_proteins(proteins: dict[str, list[str]]) -> None:
    """A gene's nearest protein has a similar name (Slc17a6, Slc17a7) far more often than by chance."""
    stems = {gene: gene.rstrip("0123456789").upper() for gene in proteins}
    stems = {gene: stem for gene, stem in stems.items() if len(stem) > 2 and not stem.startswith("GM")}
    sizes = {stem: list(stems.values()).count(stem) for stem in stems.values()}
    related = [gene for gene, stem in stems.items() if sizes[stem] > 1 and stem != gene.upper()]
    hits = np.mean([stems[gene] in [stems.get(one) for one in proteins[gene]] for gene in related])
    by_chance = np.mean([5 * (sizes[stems[gene]] - 1) / len(proteins) for gene in related])
    assert len(related) > 50
    assert hits > 0.3 > 10 * by_chance


def test_the_gene_labelled_gad1_in_the_table_is_not_near_gad2(proteins: dict[str, list[str]]) -> None:
    """The two are paralogues and should be close. In this table Gad1 is wrongly near Sox6 and Omp."""
    assert "Gad2" not in proteins["Gad1"]
    assert "Gad1" not in proteins["Gad2"]
