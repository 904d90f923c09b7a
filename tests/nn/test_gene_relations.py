"""Relations of genes, each against a naive loop, and expression as the fallback for other genes."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft.nn.gene_graph import (
    EdgeRelation,
    EmbeddingRelation,
    ExpressionRelation,
    GeneRelation,
    GeneSetRelation,
)

# a few dozen float64 products; edges are float32
TOLERANCE = 1e-12
EDGE_TOLERANCE = 1e-6

N_GENES = 9
GENES = np.arange(N_GENES)
SOURCES = np.array([5, 0, 2, 7, 3])


def by_expression(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((N_GENES, len(SOURCES)))


def gene_sets(seed: int = 0, n_sets: int = 6) -> GeneSetRelation:
    """Draw random gene sets; gene 8 is in none, and the first set has all others and is uninformative."""
    members = np.random.default_rng(seed).random((N_GENES, n_sets)) < 0.3
    members[:, 0], members[8] = True, False
    information = np.random.default_rng([seed, 1]).gamma(1.0, size=n_sets)
    information[0] = 0
    return GeneSetRelation(
        known=members.any(axis=1), members=sp.csr_matrix(members.astype(np.float32)), information=information
    )


def edge_list(seed: int = 0) -> EdgeRelation:
    """Draw random edges; gene 8 is not in the list, and gene 1 has no edge."""
    weights = np.triu(np.random.default_rng(seed).random((N_GENES, N_GENES)), 1)
    weights[weights < 0.6] = 0
    weights[[1, 8]] = weights[:, [1, 8]] = 0
    edges = sp.csr_matrix((weights + weights.T).astype(np.float32))
    return EdgeRelation(known=GENES < 8, edges=edges)


def vectors(seed: int = 0) -> EmbeddingRelation:
    rows = np.array([3, -1, 0, -1, 4, 1, -1, 2, 5])
    values = np.random.default_rng(seed).standard_normal((6, 5)).astype(np.float32)
    return EmbeddingRelation(vectors=values, rows=rows)


RELATIONS = {
    "expression": lambda seed: ExpressionRelation(),
    "embedding": vectors,
    "gene sets": gene_sets,
    "edges": edge_list,
}
each = pytest.mark.parametrize("make", RELATIONS.values(), ids=RELATIONS)


def naive_simgic(relation: GeneSetRelation, one: int, other: int) -> float:
    """Return the information of shared sets divided by that of all sets, one set at a time."""
    both, either = [], []
    for column, information in enumerate(relation.information):
        is_in = [relation.members[gene, column] > 0 for gene in (one, other)]
        both += [information] if all(is_in) else []
        either += [information] if any(is_in) else []
    return math.fsum(both) / math.fsum(either) if math.fsum(either) else 0.0


def naive_cosine(relation: EmbeddingRelation, one: int, other: int) -> float:
    left, right = (relation.vectors[relation.rows[gene]].astype(float) for gene in (one, other))
    return math.fsum(left * right) / math.sqrt(math.fsum(left * left) * math.fsum(right * right))


def naive_edge(relation: EdgeRelation, one: int, other: int) -> float:
    return float(relation.edges[one, other])


def naive(relation: GeneRelation, pair_weight, expression: np.ndarray, *, sparse: bool) -> np.ndarray:
    """Compute Eq. 6 one pair at a time."""
    knows = relation.knows(GENES)
    result = expression.copy()
    for gene in GENES:
        others = [
            pair_weight(relation, gene, source) if knows[gene] and source != gene else 0 for source in SOURCES
        ]
        for place, source in enumerate(SOURCES):
            if knows[gene] and knows[source] and (not sparse or any(others)):
                result[gene, place] = pair_weight(relation, gene, source)
    return result


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999))
@pytest.mark.parametrize(
    ("make", "pair_weight", "sparse"),
    [(vectors, naive_cosine, False), (gene_sets, naive_simgic, True), (edge_list, naive_edge, True)],
    ids=["embedding", "gene sets", "edges"],
)
def test_weights_equal_a_naive_loop(make, pair_weight, sparse, seed) -> None:
    relation, expression = make(seed), by_expression(seed)
    weights = relation.weights(GENES, SOURCES, expression)
    expected = naive(relation, pair_weight, expression, sparse=sparse)
    is_other = GENES[:, None] != SOURCES  # the weight of a gene with itself is not used
    np.testing.assert_allclose(weights[is_other], expected[is_other], atol=EDGE_TOLERANCE)
    assert weights.dtype == np.float64


def test_expression_is_returned_unchanged() -> None:
    expression = by_expression()
    assert ExpressionRelation().weights(GENES, SOURCES, expression) is expression
    assert ExpressionRelation().knows(GENES).all()


def test_sets_by_hand() -> None:
    # Genes 0 and 1 share a rare set, genes 0 and 2 a common one; gene 2 is in no other set.
    members = sp.csr_matrix(np.array([[1, 1], [1, 0], [0, 1], [0, 0]], dtype=np.float32))
    information = np.array([math.log(8), math.log(2)])
    relation = GeneSetRelation(known=members.getnnz(axis=1) > 0, members=members, information=information)
    genes = np.arange(4)
    weights = relation.weights(genes, genes, np.full((4, 4), 0.5))
    np.testing.assert_allclose(weights[0], [1, 3 / 4, 1 / 4, 0.5], atol=TOLERANCE)
    np.testing.assert_allclose(weights[1], [3 / 4, 1, 0, 0.5], atol=TOLERANCE)
    assert weights[3].tolist() == [0.5] * 4, "gene 3 is in no set"


def test_simgic_is_symmetric_and_one_for_the_same_sets() -> None:
    members = np.random.default_rng(0).random((N_GENES, 5)) < 0.5
    members[3] = members[2]
    members[:, 4] = True  # so that all genes share a set
    relation = GeneSetRelation(
        known=np.ones(N_GENES, dtype=bool),
        members=sp.csr_matrix(members.astype(np.float32)),
        information=np.array([1, 2, 0.5, 1, 0.1]),
    )
    weights = relation.weights(GENES, GENES, np.full((N_GENES, N_GENES), np.nan))
    np.testing.assert_allclose(weights, weights.T, atol=TOLERANCE)
    np.testing.assert_allclose(np.diag(weights), 1, atol=TOLERANCE)
    assert weights[2, 3] == pytest.approx(1)
    assert weights.min() > 0


def test_a_gene_without_a_neighbour_uses_expression() -> None:
    relation, expression = edge_list(), by_expression()
    assert relation.knows(np.array([1])).all()
    np.testing.assert_array_equal(relation.weights(GENES, SOURCES, expression)[1], expression[1])
    # An edge from the gene to itself is not a neighbour.
    alone = EdgeRelation(
        known=np.ones(N_GENES, dtype=bool), edges=sp.csr_matrix(np.eye(N_GENES, dtype=np.float32))
    )
    np.testing.assert_array_equal(alone.weights(GENES, SOURCES, expression), expression)


@each
def test_a_gene_without_the_relation_uses_expression_as_gene_and_as_source(make) -> None:
    relation, expression = make(0), by_expression()
    knows = relation.knows(GENES)
    weights = relation.weights(GENES, SOURCES, expression)
    np.testing.assert_array_equal(weights[~knows], expression[~knows])
    np.testing.assert_array_equal(weights[:, ~knows[SOURCES]], expression[:, ~knows[SOURCES]])


@each
@settings(max_examples=20, deadline=None)
@given(asked=st.lists(st.integers(0, N_GENES - 1), max_size=12), seed=st.integers(0, 99))
def test_weights_do_not_depend_on_the_request(make, asked, seed) -> None:
    relation, expression, genes = make(seed), by_expression(seed), np.array(asked, dtype=np.int64)
    every = relation.weights(GENES, SOURCES, expression)
    some = relation.weights(genes, SOURCES, expression[genes])
    np.testing.assert_allclose(some, every[genes], atol=TOLERANCE)
    assert relation.knows(genes).shape == genes.shape


@each
@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(len(SOURCES))), seed=st.integers(0, 99))
def test_permuting_sources_permutes_weights(make, order, seed) -> None:
    relation, expression = make(seed), by_expression(seed)
    weights = relation.weights(GENES, SOURCES, expression)
    permuted = relation.weights(GENES, SOURCES[order], expression[:, order])
    np.testing.assert_allclose(permuted, weights[:, order], atol=TOLERANCE)


@pytest.mark.parametrize("nearest", [1, 2, 5, 50])
def test_only_the_nearest_embeddings(nearest: int) -> None:
    dense, expression = vectors(), np.full((N_GENES, len(SOURCES)), 0.0)
    sparse = EmbeddingRelation(vectors=dense.vectors, rows=dense.rows, nearest=nearest)
    every, some = (one.weights(GENES, SOURCES, expression) for one in (dense, sparse))
    kept = some != 0
    np.testing.assert_allclose(some[kept], every[kept], atol=TOLERANCE)
    for gene in GENES[dense.knows(GENES)]:
        others = (gene != SOURCES) & dense.knows(SOURCES)
        best = np.sort(every[gene, others])[::-1][:nearest]
        assert set(best.round(9)) <= set(some[gene, others].round(9))
        assert kept[gene].sum() <= nearest + 1


def test_inputs_are_not_changed() -> None:
    for make in RELATIONS.values():
        expression = by_expression()
        make(0).weights(GENES, SOURCES, expression)[:] = make(0).weights(GENES, SOURCES, expression)
        np.testing.assert_array_equal(expression, by_expression())
