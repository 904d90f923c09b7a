"""The gene graph: Eq. 4-6 against a naive loop, properties of its weights, unions, and gene tables."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft.nn.gene_graph import (
    EdgeRelation,
    EmbeddingRelation,
    ExpressionRelation,
    GeneGraph,
    GeneTable,
    GraphPart,
)
from cellweft.nn.similarity import cosine_columns

# weights are float32; the naive loop is float64
WEIGHT_TOLERANCE = 1e-6
N_CELLS, N_GENES, N_DIM = 9, 8, 5
SOURCES = np.array([5, 0, 2, 7, 3])
ROWS = np.array([3, -1, 0, -1, 4, 1, -1, 2])
"""Row of the embedding for each gene; genes 1, 3 and 6 have none, and gene 3 is a source."""


def expression(seed: int = 0) -> np.ndarray:
    """Draw expression of all genes in the reference, where gene 6 and one cell are zero."""
    values = np.random.default_rng(seed).gamma(1.0, size=(N_CELLS, N_GENES)).astype(np.float32)
    values[:, 6] = 0
    values[4] = 0
    return values


def embedding(seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, 1]).standard_normal((5, N_DIM)).astype(np.float32)


def make(
    values: np.ndarray, sources: np.ndarray = SOURCES, *, vectors: np.ndarray | None = None, **options
) -> GeneGraph:
    """Return the graph of expression, or of some vectors."""
    if vectors is not None:
        options["parts"] = (GraphPart(name="embedding", relation=proteins(vectors)),)
    return GeneGraph(sources=sources, source_expression=values[:, sources], **options)


def proteins(vectors: np.ndarray, **options) -> EmbeddingRelation:
    return EmbeddingRelation(vectors=vectors, rows=ROWS, **options)


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    left, right = left.astype(float), right.astype(float)
    length = math.sqrt(math.fsum(a * a for a in left)) * math.sqrt(math.fsum(b * b for b in right))
    return math.fsum(a * b for a, b in zip(left, right, strict=True)) / length if length else 0.0


def naive_weights(values, *, sources=SOURCES, vectors=None, measure="similarity", most=None) -> np.ndarray:
    """Return the weights of all genes, one edge at a time."""
    result = np.zeros((values.shape[1], len(sources)))
    for gene in range(values.shape[1]):
        row = []
        for source in sources:
            if vectors is not None and ROWS[gene] >= 0 and ROWS[source] >= 0:
                likeness = cosine(vectors[ROWS[gene]], vectors[ROWS[source]])
            else:
                likeness = cosine(values[:, gene], values[:, source])
            weight = 1 - likeness if measure == "distance" else likeness
            row.append(0.0 if gene == source else max(weight, 0.0))
        if most is not None:
            largest = sorted(range(len(row)), key=lambda place: (-row[place], place))[:most]
            row = [weight if place in largest else 0.0 for place, weight in enumerate(row)]
        total = math.fsum(row)
        result[gene] = [weight / total for weight in row] if total > 0 else row
    return result


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 999),
    measure=st.sampled_from(["similarity", "distance"]),
    most=st.none() | st.integers(1, 6),
    has_embedding=st.booleans(),
)
def test_weights_equal_a_naive_loop(seed, measure, most, has_embedding) -> None:
    values, vectors = expression(seed), embedding(seed) if has_embedding else None
    graph = make(values, vectors=vectors, measure=measure, n_neighbors=most)
    weights = graph.weights(np.arange(N_GENES), values)
    naive = naive_weights(values, vectors=vectors, measure=measure, most=most)
    np.testing.assert_allclose(weights, naive, atol=WEIGHT_TOLERANCE)
    assert weights.dtype == np.float32
    assert weights.min() >= 0
    sums = weights.sum(axis=1)
    assert np.minimum(np.abs(sums), np.abs(sums - 1)).max() < WEIGHT_TOLERANCE
    assert not weights[SOURCES, np.arange(len(SOURCES))].any(), "a gene is a neighbour of itself"


def test_by_hand() -> None:
    # The angle between genes 0 and 1 is 45 degrees, between 0 and 2 it is 90, and between 1 and 2 it is 45.
    values = np.array([[1, 1, 0], [0, 1, 1]], dtype=np.float32)
    weights = make(values, np.arange(3)).weights(np.arange(3), values)
    np.testing.assert_allclose(weights, [[0, 1, 0], [0.5, 0, 0.5], [0, 1, 0]], atol=WEIGHT_TOLERANCE)
    weights = make(values, np.arange(3), measure="distance").weights(np.arange(3), values)
    far = 1 - math.sqrt(0.5)
    row = np.array([0, far, 1]) / (1 + far)
    np.testing.assert_allclose(weights, [row, [0.5, 0, 0.5], row[::-1]], atol=WEIGHT_TOLERANCE)


def test_distance_is_one_minus_similarity() -> None:
    values = expression()
    # This gene is not a source, so no edge to itself has to be removed.
    gene = np.array([1])
    likeness = cosine_columns(values[:, gene], values[:, SOURCES])
    weights = make(values, measure="distance").weights(gene, values[:, gene])
    np.testing.assert_allclose(weights, (1 - likeness) / (1 - likeness).sum(), atol=WEIGHT_TOLERANCE)


def test_the_embedding_is_only_used_between_two_genes_that_have_one() -> None:
    values = expression()
    genes = np.array([4, 1])  # one gene with an embedding, one without
    likeness = [
        make(values, vectors=vectors).weights(genes, values[:, genes])
        for vectors in (embedding(0), embedding(1))
    ]
    alone = make(values).weights(genes, values[:, genes])
    np.testing.assert_array_equal(likeness[0][1], alone[1])
    np.testing.assert_array_equal(likeness[1][1], alone[1])
    has_one = ROWS[SOURCES] >= 0
    naive = [
        [cosine(embedding()[ROWS[4]], embedding()[ROWS[one]]) for one in SOURCES[has_one]],
        [cosine(values[:, 4], values[:, one]) for one in SOURCES[~has_one]],
    ]
    unscaled = np.empty(len(SOURCES))
    unscaled[has_one], unscaled[~has_one] = np.maximum(naive[0], 0), naive[1]
    np.testing.assert_allclose(likeness[0][0], unscaled / unscaled.sum(), atol=WEIGHT_TOLERANCE)


def test_the_length_of_an_embedding_does_not_matter() -> None:
    values, lengths = expression(), np.array([[1], [2], [0.5], [8], [4]], dtype=np.float32)
    first, second = (
        make(values, vectors=one).weights(np.arange(N_GENES), values)
        for one in (embedding(), embedding() * lengths)
    )
    np.testing.assert_allclose(first, second, atol=WEIGHT_TOLERANCE)


@pytest.mark.parametrize("measure", ["similarity", "distance"])
def test_genes_of_zeros_have_a_defined_weight(measure: str) -> None:
    values, vectors = np.zeros((3, N_GENES), dtype=np.float32), np.zeros((5, N_DIM), dtype=np.float32)
    for options in ({}, {"vectors": vectors}):
        weights = make(values, measure=measure, **options).weights(np.arange(N_GENES), values)
        if measure == "similarity":
            assert not weights.any()
        else:
            # All distances are 1, so every source except the gene itself has the same weight.
            is_self = np.arange(N_GENES)[:, None] == SOURCES
            others = (~is_self).sum(axis=1, keepdims=True)
            np.testing.assert_allclose(weights, np.where(is_self, 0, 1 / others), atol=WEIGHT_TOLERANCE)


def test_a_gene_of_zeros_has_no_neighbour_and_is_not_a_neighbour() -> None:
    values = expression()
    weights = make(values, np.arange(N_GENES)).weights(np.arange(N_GENES), values)
    assert not weights[6].any()
    assert not weights[:, 6].any()


def test_an_empty_graph_has_no_weight() -> None:
    weights = make(expression(), parts=()).weights(np.arange(N_GENES), expression())
    assert weights.shape == (N_GENES, len(SOURCES))
    assert weights.dtype == np.float32
    assert not weights.any()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), most=st.none() | st.integers(1, 4), data=st.data())
def test_permuting_sources_permutes_weights(seed, most, data) -> None:
    values = expression(seed)
    order = np.array(data.draw(st.permutations(range(len(SOURCES)))))
    options = {"vectors": embedding(seed), "n_neighbors": most}
    # Gene 6 is all zero, so its weights tie, and ties are broken by position.
    genes = np.delete(np.arange(N_GENES), 6)
    weights = make(values, **options).weights(genes, values[:, genes])
    permuted = make(values, SOURCES[order], **options).weights(genes, values[:, genes])
    np.testing.assert_allclose(permuted, weights[:, order], atol=WEIGHT_TOLERANCE)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), data=st.data())
def test_weights_of_a_gene_do_not_depend_on_the_request(seed, data) -> None:
    values = expression(seed)
    asked = np.array(data.draw(st.lists(st.integers(0, N_GENES - 1), min_size=1, max_size=12)))
    graph = make(values, vectors=embedding(seed), n_neighbors=3)
    every = graph.weights(np.arange(N_GENES), values)
    np.testing.assert_allclose(graph.weights(asked, values[:, asked]), every[asked], atol=WEIGHT_TOLERANCE)


def test_permuting_cells_of_the_reference_changes_nothing() -> None:
    values, order = expression(), np.random.default_rng(0).permutation(N_CELLS)
    weights = [make(one).weights(np.arange(N_GENES), one) for one in (values, values[order])]
    np.testing.assert_allclose(weights[0], weights[1], atol=WEIGHT_TOLERANCE)


def test_inputs_are_not_changed() -> None:
    values, vectors = expression(), embedding()
    make(values, vectors=vectors, n_neighbors=2).weights(np.arange(N_GENES), values)
    assert (values == expression()).all()
    assert (vectors == embedding()).all()


# Unions of relations


PAIRS = sp.csr_matrix(np.diag([0.5, 0, 0, 0.2, 0, 0, 0], 1) + np.diag([0.5, 0, 0, 0.2, 0, 0, 0], -1))
"""Edges between genes 0 and 1, and between genes 3 and 4; the list also contains gene 7."""


def several(*shares: float) -> tuple[GraphPart, ...]:
    edges = EdgeRelation(known=np.isin(np.arange(N_GENES), [0, 1, 3, 4, 7]), edges=PAIRS)
    return (
        GraphPart(name="embedding", relation=proteins(embedding()), share=shares[0]),
        GraphPart(name="expression", relation=ExpressionRelation(), share=shares[1]),
        GraphPart(name="edges", relation=edges, share=shares[2]),
    )


@pytest.mark.parametrize("most", [None, 2])
@pytest.mark.parametrize("shares", [(1.0, 1.0, 1.0), (2.0, 0.5, 1.0)])
def test_a_union_is_the_mean_of_rows_weighted_by_shares(shares, most) -> None:
    values, parts = expression(), several(*shares)
    union = make(values, parts=parts, n_neighbors=most).weights(np.arange(N_GENES), values)
    alone = [
        make(values, parts=(one,), n_neighbors=most).weights(np.arange(N_GENES), values) for one in parts
    ]
    for gene in range(N_GENES):
        row = [
            math.fsum(share * float(one[gene, place]) for share, one in zip(shares, alone, strict=True))
            for place in range(len(SOURCES))
        ]
        total = math.fsum(row)
        mean = [weight / total if total else 0.0 for weight in row]
        np.testing.assert_allclose(union[gene], mean, atol=WEIGHT_TOLERANCE)


def test_the_scale_of_shares_and_weights_does_not_matter_in_a_union() -> None:
    values = expression()
    larger = GraphPart(
        name="edges", share=4.0, relation=EdgeRelation(known=np.ones(N_GENES, dtype=bool), edges=PAIRS * 0.1)
    )
    plain = GraphPart(name="edges", relation=EdgeRelation(known=np.ones(N_GENES, dtype=bool), edges=PAIRS))
    other = {"name": "expression", "relation": ExpressionRelation()}
    first, second = (
        make(values, parts=(one, GraphPart(share=share, **other))).weights(np.arange(N_GENES), values)
        for one, share in ((plain, 1.0), (larger, 4.0))
    )
    np.testing.assert_allclose(first, second, atol=WEIGHT_TOLERANCE)


def test_a_union_of_a_graph_with_itself_is_the_same_graph() -> None:
    values, part = expression(), GraphPart(name="embedding", relation=proteins(embedding()))
    once, twice = (
        make(values, parts=parts).weights(np.arange(N_GENES), values) for parts in ((part,), (part, part))
    )
    np.testing.assert_allclose(once, twice, atol=WEIGHT_TOLERANCE)


@settings(max_examples=25, deadline=None)
@given(asked=st.lists(st.integers(0, N_GENES - 1), min_size=1, max_size=12))
def test_a_union_does_not_depend_on_the_request(asked: list[int]) -> None:
    values, genes = expression(), np.array(asked)
    graph = make(values, parts=several(1.0, 1.0, 1.0), n_neighbors=3)
    every = graph.weights(np.arange(N_GENES), values)
    np.testing.assert_allclose(graph.weights(genes, values[:, genes]), every[genes], atol=WEIGHT_TOLERANCE)


def test_a_graph_of_few_neighbours_is_sparse() -> None:
    values, device = expression(), torch.device("cpu")
    for graph, is_sparse in (
        (make(values), False),
        (make(values, vectors=embedding()), False),
        (make(values, n_neighbors=2), True),
        (make(values, parts=several(1.0, 1.0, 1.0)), True),
        (make(values, parts=()), False),
    ):
        assert graph.is_sparse is is_sparse
        table = GeneTable.build(graph, SOURCES, values[:, SOURCES], device=device)
        assert table.is_sparse is is_sparse


def test_the_graph_counts_the_genes_of_each_relation() -> None:
    graph = make(expression(), parts=several(1.0, 1.0, 1.0))
    assert graph.known_genes(N_GENES) == {"embedding": 5, "expression": 8, "edges": 5}


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), most=st.integers(1, 6))
def test_only_the_nearest_embeddings_give_the_same_graph(seed: int, most: int) -> None:
    """The largest weights are always among the nearest proteins and the sources without an embedding."""
    values = expression(seed)
    dense, sparse = (
        make(values, n_neighbors=most, parts=(GraphPart(name="embedding", relation=one),)).weights(
            np.arange(N_GENES), values
        )
        for one in (proteins(embedding(seed)), proteins(embedding(seed), nearest=most))
    )
    np.testing.assert_allclose(dense, sparse, atol=WEIGHT_TOLERANCE)


class TestGeneTable:
    genes = np.array([1, 5, 6])

    def table(self, device: torch.device) -> GeneTable:
        values = expression()
        return GeneTable.build(make(values), self.genes, values[:, self.genes], device=device)

    def test_the_neighbourhood_is_the_weighted_mean_of_the_sources(self, device: torch.device) -> None:
        table, weights = self.table(device), naive_weights(expression())
        for cell in range(N_CELLS):
            for place, gene in enumerate(self.genes):
                mean = math.fsum(
                    w * expression()[cell, one] for w, one in zip(weights[gene], SOURCES, strict=True)
                )
                assert float(table.aggregated[place, cell]) == pytest.approx(mean, abs=1e-5)
        assert table.weights.device.type == device.type

    def test_gather_takes_every_gene_in_every_neighbour(self, device: torch.device) -> None:
        table, near = self.table(device), torch.tensor([[0, 3], [8, 3], [4, 4], [1, 0]], device=device)
        features = table.gather(near)
        assert tuple(features.own.shape) == (3, 4, 2)
        for cell, gene, place in np.ndindex(4, 3, 2):
            row = int(near[cell, place])
            assert float(features.own[gene, cell, place]) == expression()[row, self.genes[gene]]
            assert features.neighbors[gene, cell, place] == table.aggregated[gene, row]
        assert features.weights is table.weights

    def test_gather_of_some_genes_is_a_subset_of_all(self, device: torch.device) -> None:
        table, near = self.table(device), torch.tensor([[0, 3], [8, 3]], device=device)
        every, some = table.gather(near), table.gather(near, torch.tensor([2, 0], device=device))
        assert torch.equal(some.own, every.own[[2, 0]])
        assert torch.equal(some.neighbors, every.neighbors[[2, 0]])
        assert torch.equal(some.weights, every.weights[[2, 0]])

    @pytest.mark.parametrize("drawn", [[0], [3, 1], [4, 0, 2], [2, 4, 1, 0, 3]])
    def test_weights_of_a_subset_of_sources_are_renormalised(
        self, device: torch.device, drawn: list[int]
    ) -> None:
        features = self.table(device).gather(torch.tensor([[0, 3]], device=device))
        some = features.from_sources(torch.tensor(drawn, device=device)).weights.cpu().numpy()
        for row, every in zip(some, features.weights.cpu().numpy(), strict=True):
            kept = [float(every[one]) for one in drawn]
            naive = [weight / math.fsum(kept) if math.fsum(kept) else 0.0 for weight in kept]
            np.testing.assert_allclose(row, naive, atol=WEIGHT_TOLERANCE)
