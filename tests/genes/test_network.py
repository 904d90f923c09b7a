"""Sources of a gene graph: only sources that are used are read."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cellweft._errors import MissingFileError
from cellweft.genes.embeddings import EmbeddingTable
from cellweft.genes.network import Network, read_network


def table() -> EmbeddingTable:
    values = np.eye(2, dtype=np.float32)
    return EmbeddingTable(genes=np.array(["Gad1", "Gad2"]), values=values, source="made up")


def test_all_three_sources_are_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "esm.npz", genes=["Gad1", "Gad2"], embeddings=np.eye(2))
    (tmp_path / "sets.gmt").write_text("GABA\t\tGad1\tGad2\n")
    (tmp_path / "edges.txt").write_text("Gad1 Gad2\n")
    found = read_network(
        ["embedding", "gene_sets", "edges"],
        embedding=tmp_path / "esm.npz",
        gene_sets=[tmp_path / "sets.gmt"],
        edges=tmp_path / "edges.txt",
    )
    assert found.embedding is not None
    assert found.gene_sets is not None
    assert found.edges is not None
    assert found.sources == {
        "embedding": str(tmp_path / "esm.npz"),
        "gene_sets": str(tmp_path / "sets.gmt"),
        "edges": str(tmp_path / "edges.txt"),
    }


def test_unused_sources_are_not_read(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    given_ = {"embedding": nowhere, "gene_sets": nowhere, "edges": nowhere}
    assert read_network(["expression"], **given_).sources == {}
    for name in given_:
        with pytest.raises(MissingFileError, match="nowhere"):
            read_network([name], **given_)
    assert read_network(["embedding", "edges"]).sources == Network().sources == {}


def test_sources_in_memory_are_kept() -> None:
    given_ = table()
    found = read_network(
        ["embedding", "gene_sets", "edges"],
        embedding=given_,
        gene_sets={"GABA": ["Gad1", "Gad2"]},
        edges=pd.DataFrame([["Gad1", "Gad2"]]),
    )
    assert found.embedding is given_
    assert found.sources == {"embedding": "made up", "gene_sets": "memory", "edges": "memory"}
