"""From a pair to the networks of stImpute: training cells, the gene graph, and independence of blocks."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._errors import GeneError, InputError, OutputExistsError, SettingError
from cellweft.data._pair import Pair, check_not_input
from cellweft.data.gene_major import GeneColumns
from cellweft.genes.embeddings import EmbeddingTable
from cellweft.genes.gene_sets import read_gene_sets
from cellweft.genes.interactions import EdgeList
from cellweft.genes.network import Network
from cellweft.impute.base import predict_all
from cellweft.impute.fingerprint import check_data, reference_mark
from cellweft.impute.imputer import Imputer
from cellweft.impute.stimpute import NetworkGenes, check_k, gene_graph, gene_relations, network_record
from cellweft.impute.training_data import asked_genes, places_of, training_cells
from cellweft.nn.config import StImputeSettings
from cellweft.nn.gene_graph import EmbeddingRelation, ExpressionRelation

ROUNDING = 2e-6
"""float32 sums may be taken in another order in blocks of another shape; values are below 8."""

Predict = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def columns(tissue_pair: Pair) -> GeneColumns:
    return GeneColumns.load(tissue_pair.sc)


@pytest.fixture(scope="module")
def network(embeddings: EmbeddingTable) -> Network:
    """Every source of gene relations for the tissue's genes."""
    edges = EdgeList(
        genes=np.array(["Gene01", "Gene02", "gene03", "GENE04", "Other"]),
        pairs=np.array([[0, 1], [2, 3], [0, 4]]),
        weights=np.array([0.5, 0.25, 1.0], dtype=np.float32),
        source="a file",
    )
    sets = {"first": ["Gene01", "Gene05", "Foreign1"], "second": ["Gene05", "Gene06"]}
    return Network(embedding=embeddings, gene_sets=read_gene_sets(sets), edges=edges)


@pytest.fixture(scope="module")
def predict(imputer: Imputer, tissue_pair: Pair, columns: GeneColumns) -> Predict:
    """Function that predicts all genes, in blocks of a given size."""

    def run(*, cells: int = 256, genes: int = 256, tables: int = 128, block: float = 64e6) -> np.ndarray:
        assert imputer.model_ is not None
        asked = np.arange(tissue_pair.sc.n_genes)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("cellweft.impute.base.READ_ROWS", cells)
            patch.setattr("cellweft.impute.base.BLOCK_GENES", genes)
            patch.setattr("cellweft.impute.stimpute.TABLE_GENES", tables)
            patch.setattr("cellweft.impute.stimpute.BLOCK_BYTES", block)
            return predict_all(partial(NetworkGenes.of, imputer.model_, columns), tissue_pair, asked)

    return run


@pytest.mark.slow
@given(
    cells=st.integers(1, 100), genes=st.integers(1, 30), tables=st.integers(1, 30), block=st.floats(1, 1e6)
)
@settings(max_examples=8, deadline=None)
def test_block_size_does_not_matter(
    predict: Predict, cells: int, genes: int, tables: int, block: float
) -> None:
    again = predict(cells=cells, genes=genes, tables=tables, block=block)
    np.testing.assert_allclose(again, predict(), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_block_size_of_reading_changes_no_bit_of_a_fit(
    fit_quickly: Callable[..., Imputer], imputer: Imputer, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr("cellweft.impute.training_data.READ_ROWS", rows)
    monkeypatch.setattr("cellweft.data.gene_major._BLOCK_ROWS", rows)
    again = fit_quickly().impute().X
    np.testing.assert_array_equal(again, imputer.impute().X)


def test_training_uses_cells_with_counts(tissue_pair: Pair) -> None:
    measured = training_cells(tissue_pair, 20_000, 0)
    kept = np.delete(np.arange(tissue_pair.st.n_cells), 5)
    np.testing.assert_array_equal(measured, tissue_pair.st.dense(kept, tissue_pair.st_shared))


def test_training_samples_many_cells_by_the_seed(tissue_pair: Pair) -> None:
    first, again, other = (training_cells(tissue_pair, 20, seed) for seed in (0, 0, 1))
    assert first.shape == (20, 12)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    everything = {row.tobytes() for row in training_cells(tissue_pair, 20_000, 0)}
    assert {row.tobytes() for row in first} <= everything


@pytest.mark.parametrize(
    ("chosen", "n_sources"),
    [
        ({"sources": "all"}, 28),
        ({"sources": "panel"}, 12),
        ({"sources": "auto"}, 28),
        ({"sources": "auto", "most_sources": 27}, 12),
        ({"sources": "auto", "most_sources": 28}, 28),
    ],
)
def test_the_sources_are_all_genes_or_the_panel(
    tissue_pair: Pair, columns: GeneColumns, chosen: dict[str, Any], n_sources: int
) -> None:
    graph = gene_graph(tissue_pair, columns, settings=StImputeSettings(**chosen), parts=())
    assert len(graph.sources) == n_sources
    np.testing.assert_array_equal(graph.source_expression, columns.dense(graph.sources))
    assert set(tissue_pair.sc_shared) <= set(graph.sources)


def test_the_graph_none_has_no_weights(tissue_pair: Pair, columns: GeneColumns) -> None:
    none = StImputeSettings(graph="none")
    parts = gene_relations(Network(), tissue_pair.sc.genes, settings=none)
    graph = gene_graph(tissue_pair, columns, settings=none, parts=parts)
    assert not graph.weights(np.arange(3), columns.dense(np.arange(3))).any()


def test_vectors_are_matched_to_genes_ignoring_case(tissue_pair: Pair, embeddings: EmbeddingTable) -> None:
    names = np.array([name.upper() for name in embeddings.genes[::-1]])
    table = EmbeddingTable(genes=names, values=embeddings.values[::-1], source="shouted")
    network = Network(embedding=table)
    (part,) = gene_relations(network, tissue_pair.sc.genes, settings=StImputeSettings())
    assert isinstance(part.relation, EmbeddingRelation)
    place = {name: number for number, name in enumerate(embeddings.genes)}
    for gene, row in zip(tissue_pair.sc.genes, part.relation.rows, strict=True):
        assert (row >= 0) == (gene in place)
        if row >= 0:
            np.testing.assert_array_equal(part.relation.vectors[row], embeddings.values[place[gene]])


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ("auto", {"embedding": 1, "gene_sets": 1, "edges": 1}),
        ("none", {}),
        ("expression", {"expression": 1}),
        ("edges:3+expression", {"edges": 3, "expression": 1}),
    ],
)
def test_the_settings_choose_the_relations_and_their_shares(
    tissue_pair: Pair, network: Network, graph: str, expected: dict[str, float]
) -> None:
    parts = gene_relations(network, tissue_pair.sc.genes, settings=StImputeSettings(graph=graph))
    assert {part.name: part.share for part in parts} == expected


def test_without_other_sources_the_graph_uses_expression(tissue_pair: Pair) -> None:
    (part,) = gene_relations(Network(), tissue_pair.sc.genes, settings=StImputeSettings())
    assert isinstance(part.relation, ExpressionRelation)


def test_only_the_nearest_embeddings_are_compared_if_only_they_are_kept(
    tissue_pair: Pair, embeddings: EmbeddingTable
) -> None:
    for chosen, nearest in (
        ({}, None),
        ({"graph_neighbors": 3}, 3),
        ({"graph_neighbors": 3, "measure": "distance"}, None),  # the largest distances are the farthest genes
    ):
        settings = StImputeSettings(**chosen)
        (part,) = gene_relations(Network(embedding=embeddings), tissue_pair.sc.genes, settings=settings)
        assert isinstance(part.relation, EmbeddingRelation)
        assert part.relation.nearest == nearest


def test_the_sources_of_a_graph_are_recorded(
    tissue_pair: Pair, columns: GeneColumns, network: Network
) -> None:
    chosen = StImputeSettings(graph="embedding:2+expression+edges")
    parts = gene_relations(network, tissue_pair.sc.genes, settings=chosen)
    graph = gene_graph(tissue_pair, columns, settings=chosen, parts=parts)
    assert network_record(graph, network, 28) == {
        "embedding": {"share": 2.0, "source": "made up", "known_genes": 18},
        "expression": {"share": 1.0, "source": "reference", "known_genes": 28},
        "edges": {"share": 1.0, "source": "a file", "known_genes": 4},
    }


def test_genes_are_found_once_in_the_requested_order(tissue_pair: Pair) -> None:
    assert asked_genes(tissue_pair, None).tolist() == list(range(28))
    assert asked_genes(tissue_pair, "all").tolist() == list(range(28))
    assert asked_genes(tissue_pair, "gene03").tolist() == [2]
    assert asked_genes(tissue_pair, ["Gene09", "Gene02", "GENE09"]).tolist() == [8, 1]
    assert asked_genes(tissue_pair, []).dtype == np.int64
    with pytest.raises(GeneError, match="'Nowhere'"):
        asked_genes(tissue_pair, ["Nowhere"])


def test_coordinates_are_those_of_the_pair(tissue_pair: Pair) -> None:
    np.testing.assert_array_equal(places_of(tissue_pair)["spatial"], tissue_pair.coordinates)
    assert places_of(dataclasses.replace(tissue_pair, coordinates=None)) == {}


def test_k_is_checked_against_usable_cells(columns: GeneColumns) -> None:
    check_k(StImputeSettings(k=99), columns.n_cells)
    with pytest.raises(
        SettingError, match=r"^settings\['k'\]: expected at most 99, the number of reference cells with"
    ):
        check_k(StImputeSettings(k=100), columns.n_cells)


def test_data_are_checked_against_panel_and_reference(tissue_pair: Pair) -> None:
    mark = reference_mark(tissue_pair)
    check_data(tissue_pair.cells(np.arange(4)), panel=tissue_pair.shared_genes, reference=mark)
    assert mark.startswith("100 cells x 28 genes (")
    fewer = tissue_pair.panel(tissue_pair.shared_genes[:3])
    with pytest.raises(InputError, match=r"panel of 12 genes.*got 3 shared genes, 3 of them on that panel"):
        check_data(fewer, panel=tissue_pair.shared_genes, reference=mark)
    names = tissue_pair.sc.genes[::-1]
    swapped = dataclasses.replace(tissue_pair.sc, genes=names, input_names=names)
    other = dataclasses.replace(tissue_pair, sc=swapped)
    with pytest.raises(InputError, match="expected the reference that the model was fitted with, 100 cells"):
        check_data(other, panel=tissue_pair.shared_genes, reference=mark)


def test_an_output_at_the_path_of_an_input_is_refused(tissue_pair: Pair, tmp_path: Path) -> None:
    from_file = dataclasses.replace(
        tissue_pair, st=dataclasses.replace(tissue_pair.st, source=str(tmp_path / "st.h5ad"))
    )
    check_not_input(tmp_path / "imputed.h5ad", from_file)
    with pytest.raises(OutputExistsError, match=r"st\.h5ad: .*the data that are read"):
        check_not_input(tmp_path / "." / "st.h5ad", from_file)


def test_an_output_that_contains_an_input_is_refused(tissue_pair: Pair, tmp_path: Path) -> None:
    inside = str(tmp_path / "sample.zarr" / "tables" / "table")
    from_store = dataclasses.replace(tissue_pair, st=dataclasses.replace(tissue_pair.st, source=inside))
    check_not_input(tmp_path / "sample2.zarr", from_store)
    with pytest.raises(OutputExistsError, match=r"sample\.zarr: .* got a folder that contains the input"):
        check_not_input(tmp_path / "sample.zarr", from_store)
