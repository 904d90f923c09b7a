"""Digests depend on the values alone: not on where data are stored, nor on how they are read."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

import cellweft
from cellweft.data import digest
from cellweft.data._pair import Pair
from cellweft.data.digest import digest_of, values_digest
from cellweft.data.io.write import write_anndata
from cellweft.data.side import Side
from cellweft.data.synthetic.tissue import SimulatedTissue
from cellweft.genes.embeddings import EmbeddingTable
from cellweft.genes.network import Network
from cellweft.impute.fingerprint import network_digests


def changed(data: AnnData, change: Callable[[np.ndarray], None]) -> AnnData:
    """Return data in memory, whose counts can be changed in place, as an array."""
    counts = data.X.toarray() if sp.issparse(data.X) else data.X.copy()
    change(counts)
    return AnnData(counts, obs=data.obs, var=data.var, obsm=dict(data.obsm))


def swapped(counts: np.ndarray) -> None:
    """Swap two counts of a cell, so that no total changes."""
    row = next(row for row in counts if len(set(row[:2])) == 2)
    row[:2] = row[1::-1]


@pytest.mark.parametrize("suffix", ["", ".h5ad", ".zarr"])
@pytest.mark.parametrize("kind", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_the_same_values_have_one_digest_in_any_storage(
    tissue: SimulatedTissue,
    tissue_pair: Pair,
    tmp_path: Path,
    suffix: str,
    kind: Callable[[np.ndarray], np.ndarray | sp.spmatrix],
) -> None:
    sides: list[Path | AnnData] = []
    for name, data in (("sc", tissue.sc), ("st", tissue.st)):
        there = data.copy()
        there.X = kind(changed(data, lambda _: None).X)
        path = tmp_path / f"{name}{suffix}"
        sides.append(write_anndata(there, path) if suffix else there)
    again = cellweft.pair(*sides)
    assert values_digest(again.sc) == values_digest(tissue_pair.sc)
    assert values_digest(again.st) == values_digest(tissue_pair.st)


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_block_size_does_not_matter(tissue_pair: Pair, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    whole = values_digest(tissue_pair.st)
    monkeypatch.setattr(digest, "block_rows", lambda _: rows)
    assert values_digest(tissue_pair.cells(np.arange(tissue_pair.st.n_cells)).st) == whole


def test_one_changed_value_name_or_size_changes_the_digest(
    tissue: SimulatedTissue, tissue_pair: Pair
) -> None:
    known = values_digest(tissue_pair.st)
    names = tissue.st.var_names.tolist()
    renamed = tissue.st.copy()
    renamed.var_names = [names[1], names[0], *names[2:]]
    sized = tissue.st.copy()
    sized.obs["size"] = np.arange(1.0, 1 + sized.n_obs)
    others = [
        cellweft.pair(tissue.sc, changed(tissue.st, swapped)).st,
        cellweft.pair(tissue.sc, renamed).st,
        cellweft.pair(tissue.sc, sized, st_size_factor="size").st,
        cellweft.pair(tissue.sc, tissue.st, st_scale="normalised").st,
        tissue_pair.cells(np.arange(tissue_pair.st.n_cells)[::-1]).st,
        tissue_pair.sc,
    ]
    assert len({known, *map(values_digest, others)}) == 7


def test_values_are_read_only_once(tissue_pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    side = tissue_pair.cells(np.arange(50)).st
    known = values_digest(side)
    monkeypatch.setattr(Side, "stored", None)
    assert values_digest(side) == known


def test_a_side_without_cells_has_a_digest(tissue_pair: Pair) -> None:
    none, one = (values_digest(tissue_pair.cells(np.arange(count)).st) for count in (0, 1))
    assert none != one


def test_the_digest_separates_parts() -> None:
    texts = [("ab", "c"), ("a", "bc"), ("abc",), (np.array(["ab", "c"]),), (np.array(["a", "bc"]),)]
    numbers = [(1,), (1.0,), (None,), (np.zeros(4),), (np.zeros((2, 2)),), (np.zeros(4, dtype=np.float32),)]
    assert len({digest_of(*one) for one in [*texts, *numbers]}) == 11


def test_the_digest_of_gene_relations_depends_on_their_values(embeddings: EmbeddingTable) -> None:
    other = dataclasses.replace(embeddings, values=np.add(embeddings.values, 1))
    moved = dataclasses.replace(embeddings, source="elsewhere.parquet")
    table, more, same = (network_digests(Network(embedding=one)) for one in (embeddings, other, moved))
    assert table == same != more
    sets = [cellweft.genes.read_gene_sets({"GABA": ["Gad1", gene]}) for gene in ("Gad2", "Sst")]
    assert network_digests(Network(gene_sets=sets[0])) != network_digests(Network(gene_sets=sets[1]))
    edges = [cellweft.genes.read_edges(pd.DataFrame([["Gad1", "Gad2", weight]])) for weight in (0.5, 0.75)]
    assert network_digests(Network(edges=edges[0])) != network_digests(Network(edges=edges[1]))
    assert network_digests(Network()) == {}
