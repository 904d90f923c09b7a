"""The Imputer with gene sets and edges: what is used, recorded, saved and loaded, and errors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cellweft
from cellweft._errors import FormatError, GeneError, InputError, MissingFileError, SettingError
from cellweft.data._pair import Pair
from cellweft.data.synthetic.tissue import SimulatedTissue
from cellweft.genes.embeddings import EmbeddingTable
from cellweft.genes.gene_sets import read_gene_sets
from cellweft.genes.interactions import read_edges
from cellweft.impute.imputer import Imputer

ROUNDING = 2e-6
"""float32 sums may be taken in another order in blocks of another shape; values are below 8."""

FILES = ["config.json", "genes.parquet", "weights.safetensors"]
Fit = Callable[..., Imputer]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A GMT file and an edge list with some genes of the tissue."""
    folder = tmp_path_factory.mktemp("network")
    sets = [
        f"set {number}\t\t" + "\t".join(f"Gene{gene:02}" for gene in range(1, 24) if gene % number == 0)
        for number in range(2, 8)
    ]
    (folder / "sets.gmt").write_text("\n".join(sets))
    edges = [f"GENE{gene:02} GENE{gene * 2:02} {100 * gene}" for gene in range(1, 10)]
    edges = ["protein1 protein2 combined_score", "GENE01 GENE01 9", *edges]
    (folder / "edges.txt").write_text("\n".join(edges))
    return {"gene_sets": folder / "sets.gmt", "edges": folder / "edges.txt"}


@pytest.fixture(scope="module")
def fitted(fit_quickly: Fit, embeddings: EmbeddingTable, files: dict[str, Path]) -> Imputer:
    """An Imputer with all sources, and the nearest 4 genes of each."""
    return fit_quickly(embedding=embeddings, settings={"graph_neighbors": 4}, **files)


def weights(imputer: Imputer, pair: Pair) -> np.ndarray:
    """The weights of the gene graph for all genes."""
    assert imputer.model_ is not None
    expression = pair.sc.dense(np.flatnonzero(~pair.sc.empty_cells))
    return imputer.model_.graph.weights(np.arange(pair.sc.n_genes), expression)


# Sources that are used


def test_all_given_sources_are_used_together(
    fitted: Imputer, fit_quickly: Fit, embeddings: EmbeddingTable, files: dict[str, Path], tissue_pair: Pair
) -> None:
    union = fit_quickly(
        embedding=embeddings, settings={"graph": "embedding+gene_sets+edges", "graph_neighbors": 4}, **files
    )
    np.testing.assert_array_equal(union.impute().X, fitted.impute().X)
    alone = np.zeros((28, 28))
    for one in ("embedding", "gene_sets", "edges"):
        chosen = {"graph": one, "graph_neighbors": 4}
        alone += weights(fit_quickly(embedding=embeddings, settings=chosen, **files), tissue_pair)
    mean = alone / np.maximum(alone.sum(axis=1, keepdims=True), 1e-9)
    np.testing.assert_allclose(weights(fitted, tissue_pair), mean, atol=1e-6)


def test_the_graph_has_the_edges_of_an_edge_list(
    fit_quickly: Fit, files: dict[str, Path], tissue_pair: Pair
) -> None:
    graph = weights(fit_quickly(edges=files["edges"]), tissue_pair)
    # Gene02 has edges to Gene01 (100) and Gene04 (200), and to no other gene in the list.
    named, row = {*range(1, 11), 12, 14, 16, 18}, graph[1]
    assert row[3] / row[0] == pytest.approx(2, rel=1e-5)
    assert {gene for gene in named if row[gene - 1] > 0} == {1, 4}
    assert all(row[gene - 1] > 0 for gene in (11, 13, 15, 17, 19)), (
        "genes outside the list are connected by expression"
    )


def test_genes_outside_the_lists_are_connected_by_expression(
    fit_quickly: Fit, imputer: Imputer, files: dict[str, Path], tissue_pair: Pair
) -> None:
    plain, known = weights(imputer, tissue_pair), weights(fit_quickly(edges=files["edges"]), tissue_pair)
    np.testing.assert_array_equal(known[18:], plain[18:])
    assert np.abs(known[:18] - plain[:18]).max() > 1e-3


def test_a_setting_can_exclude_given_sources(
    fit_quickly: Fit, imputer: Imputer, tmp_path: Path, tissue_pair: Pair
) -> None:
    nowhere = tmp_path / "nowhere"
    ignored = fit_quickly(settings={"graph": "expression"}, gene_sets=nowhere, edges=nowhere)
    np.testing.assert_array_equal(ignored.impute().X, imputer.impute().X)
    none = fit_quickly(settings={"graph": "none"}, edges=nowhere)
    assert none.network_ == {}
    assert not weights(none, tissue_pair).any()


def test_files_and_memory_give_the_same(fit_quickly: Fit, files: dict[str, Path]) -> None:
    frame = pd.read_csv(files["edges"], sep=" ")
    lines = [line.split("\t") for line in files["gene_sets"].read_text().splitlines()]
    from_files = fit_quickly(**files).impute().X
    in_memory = fit_quickly(edges=frame, gene_sets={name: genes for name, _, *genes in lines}).impute().X
    read = fit_quickly(edges=[read_edges(frame)], gene_sets=[read_gene_sets(files["gene_sets"])]).impute().X
    np.testing.assert_array_equal(in_memory, from_files)
    np.testing.assert_array_equal(read, from_files)


@pytest.mark.slow
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(st.integers(1, 28), min_size=1, max_size=9, unique=True))
def test_a_prediction_does_not_depend_on_the_request(fitted: Imputer, asked: list[int]) -> None:
    every, names = fitted.impute(), [f"Gene{gene:02}" for gene in asked]
    np.testing.assert_allclose(fitted.impute(names).X, every[:, names].X, rtol=0, atol=ROUNDING)


@pytest.mark.slow
def test_reliability_is_learned_with_the_same_relations(fit_quickly: Fit, files: dict[str, Path]) -> None:
    imputer = fit_quickly(reliability=True, **files)
    assert imputer.impute(["Gene02"]).var["reliability"].between(0, 1).all()


def test_with_few_neighbours_training_steps_use_all_sources(
    fit_quickly: Fit, imputer: Imputer, files: dict[str, Path]
) -> None:
    few, all_ = (fit_quickly(settings={"batch_sources": most}, edges=files["edges"]) for most in (2, 28))
    np.testing.assert_array_equal(few.impute().X, all_.impute().X)
    assert np.abs(fit_quickly(settings={"batch_sources": 2}).impute().X - imputer.impute().X).max() > 1e-4


# Records


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".zarr", ".h5ad"])
def test_a_result_records_the_sources_of_the_graph(
    fitted: Imputer, files: dict[str, Path], tmp_path: Path, suffix: str
) -> None:
    path = fitted.impute_to(tmp_path / f"imputed{suffix}", genes=["Gene02"])
    written = anndata.read_zarr(path) if suffix == ".zarr" else anndata.read_h5ad(path)
    for record in (fitted.impute(["Gene02"]).uns["cellweft"], written.uns["cellweft"]):
        assert record["network"] == {
            "embedding": {"share": 1.0, "source": "made up", "known_genes": 18},
            "gene_sets": {"share": 1.0, "source": str(files["gene_sets"]), "known_genes": 17},
            "edges": {"share": 1.0, "source": str(files["edges"]), "known_genes": 14},
        }
        assert record["embedding"] == "made up"
        assert record["settings"]["graph"] == "auto"


def test_expression_alone_and_no_graph_are_recorded(
    imputer: Imputer, fit_quickly: Fit, tmp_path: Path
) -> None:
    record = imputer.impute(["Gene02"]).uns["cellweft"]
    assert record["network"] == {"expression": {"share": 1.0, "source": "reference", "known_genes": 28}}
    assert record["embedding"] == "none"
    path = fit_quickly(settings={"graph": "none"}).impute_to(tmp_path / "imputed.h5ad", genes=["Gene02"])
    assert anndata.read_h5ad(path).uns["cellweft"].get("network", {}) == {}


# Saved models


@pytest.mark.parametrize("graph", ["auto", "gene_sets", "edges:2+expression", "embedding+edges", "none"])
def test_a_loaded_model_needs_no_other_file(
    fit_quickly: Fit,
    embeddings: EmbeddingTable,
    files: dict[str, Path],
    tissue_pair: Pair,
    tmp_path: Path,
    graph: str,
) -> None:
    copies = {name: tmp_path / path.name for name, path in files.items()}
    for name, path in files.items():
        copies[name].write_text(path.read_text())
    imputer = fit_quickly(embedding=embeddings, settings={"graph": graph, "graph_neighbors": 5}, **copies)
    folder = imputer.save(tmp_path / "model")
    for path in copies.values():
        path.unlink()
    loaded = cellweft.load(folder).attach(tissue_pair)
    np.testing.assert_array_equal(loaded.impute().X, imputer.impute().X)
    assert sorted(one.name for one in folder.iterdir()) == FILES
    again = loaded.save(tmp_path / "again")
    for name in ("genes.parquet", "weights.safetensors"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()
    assert json.loads((again / "config.json").read_text()) == json.loads((folder / "config.json").read_text())
    assert loaded.network_ == imputer.network_


@pytest.mark.slow
@pytest.mark.parametrize("fate", ["deleted", "made anew"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_fitted_model_no_longer_needs_its_files(
    fit_quickly: Fit, files: dict[str, Path], tissue_pair: Pair, tmp_path: Path, fate: str, dtype: str
) -> None:
    names, draw = tissue_pair.sc.genes[4:], np.random.default_rng(7)
    values = draw.standard_normal((len(names), 16)).astype(dtype)
    copies = {name: tmp_path / path.name for name, path in files.items()}
    for name, path in files.items():
        copies[name].write_text(path.read_text())
    copies["embedding"] = tmp_path / "esm.parquet"
    pd.DataFrame(values, index=names).rename(columns=str).to_parquet(copies["embedding"])
    imputer = fit_quickly(**copies, settings={"graph": "embedding+gene_sets+edges"}, reliability=True)
    before = imputer.impute()
    folder = imputer.save(tmp_path / "model")
    for path in copies.values():
        path.unlink()
    if fate == "made anew":
        pd.DataFrame(values[::-1], index=names).rename(columns=str).to_parquet(copies["embedding"])
        copies["gene_sets"].write_text("all\t\tGene01\tGene02")
        copies["edges"].write_text("Gene01 Gene02 5")
    half = tissue_pair.cells(np.arange(0, 90, 2))
    for model in (imputer, cellweft.load(folder)):
        there = model.attach(tissue_pair).impute()
        np.testing.assert_array_equal(there.X, before.X)
        pd.testing.assert_frame_equal(there.var, before.var)
        assert there.uns["cellweft"]["network"] == before.uns["cellweft"]["network"]
        np.testing.assert_allclose(model.attach(half).impute().X, before.X[::2], rtol=0, atol=ROUNDING)
    if fate == "made anew":  # the next fit reads the new file
        assert (imputer.fit(tissue_pair).impute().X != before.X).any()


def test_embeddings_in_memory_may_have_any_precision(
    fit_quickly: Fit, tissue_pair: Pair, tmp_path: Path
) -> None:
    names = tissue_pair.sc.genes[4:]
    values = np.random.default_rng(7).standard_normal((len(names), 16))
    imputer = fit_quickly(embedding=EmbeddingTable(genes=names, values=values, source="float64"))
    loaded = cellweft.load(imputer.save(tmp_path / "model")).attach(tissue_pair)
    np.testing.assert_array_equal(loaded.model_.sources.weights, imputer.model_.sources.weights)


@pytest.mark.parametrize("key", ["gene_set_genes", "edge_genes"])
@pytest.mark.parametrize("value", [["Gene01"], None, []])
def test_names_that_contradict_the_saved_network_are_detected(
    fitted: Imputer, tmp_path: Path, key: str, value: Any
) -> None:
    folder = fitted.save(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(FormatError, match="the files of a saved model"):
        cellweft.load(folder)


# Memory


def test_a_plan_counts_tables_in_memory(
    embeddings: EmbeddingTable, files: dict[str, Path], tissue_pair: Pair
) -> None:
    plain = Imputer(preset="stimpute").plan(pair=tissue_pair).peak_bytes
    edges, sets = read_edges(files["edges"]), read_gene_sets(files["gene_sets"])
    for given_, expected in (
        ({"embedding": embeddings}, 2 * np.asarray(embeddings.values).nbytes),
        ({"edges": edges}, 2 * (edges.pairs.nbytes + edges.weights.nbytes)),
        ({"gene_sets": sets}, 2 * (sets.members.data.nbytes + sets.members.indices.nbytes)),
        (dict(files), 0),
    ):
        assert Imputer(preset="stimpute", **given_).plan(pair=tissue_pair).peak_bytes == pytest.approx(
            plain + expected
        )


# Errors


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ("gene_sets", r"graph='gene_sets': expected gene sets, got none\. Pass gene_sets="),
        ("embedding+edges", r"graph='embedding\+edges': expected a list of edges, got none\. Pass edges="),
    ],
)
def test_a_graph_of_missing_sources_is_refused_at_construction(
    embeddings: EmbeddingTable, graph: str, message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        Imputer(preset="stimpute", embedding=embeddings, settings={"graph": graph})


def test_a_distance_of_edges_is_refused_at_construction(files: dict[str, Path]) -> None:
    with pytest.raises(
        SettingError, match=r"measure: expected 'similarity' in a graph of gene_sets and edges"
    ):
        Imputer(preset="stimpute", settings={"measure": "distance"}, **files)


def test_invalid_sources_in_memory_are_refused_at_construction() -> None:
    with pytest.raises(InputError, match="expected edges between two different genes"):
        Imputer(preset="stimpute", edges=pd.DataFrame([["Gene01", "Gene01"]]))
    with pytest.raises(InputError, match="expected genes in sets"):
        Imputer(preset="stimpute", gene_sets={})
    pairs = pd.DataFrame([["Gene01", "Gene02"]])
    given_ = Imputer(preset="stimpute", gene_sets={"set": ["Gene01"]}, edges=pairs)
    assert "gene_sets=GeneSets(1 gene in 1 set from memory)" in repr(given_)
    assert "edges=EdgeList(1 edge between 2 genes from memory)" in repr(given_)


def test_files_of_other_genes_and_no_files_are_refused(fit_quickly: Fit, tmp_path: Path) -> None:
    (tmp_path / "edges.txt").write_text("10090.ENSMUSP1 10090.ENSMUSP2 700\n")
    (tmp_path / "sets.gmt").write_text("set\t\tENSMUSG1\tENSMUSG2\n")
    with pytest.raises(GeneError, match=r"edges of genes such as 'Gene01'.*'10090\.ENSMUSP1'.*protein\.info"):
        fit_quickly(edges=tmp_path / "edges.txt")
    with pytest.raises(GeneError, match=r"sets of genes such as 'Gene01'.*'ENSMUSG1', 'ENSMUSG2'"):
        fit_quickly(gene_sets=[tmp_path / "sets.gmt"])
    for name in ("gene_sets", "edges"):
        with pytest.raises(MissingFileError, match="nowhere"):
            fit_quickly(**{name: tmp_path / "nowhere"})
        with pytest.raises(InputError, match=f"{name}: expected .*, got a int. Pass a path"):
            fit_quickly(**{name: 5})


# The command line


QUICK = [
    "--preset",
    "stimpute",
    "--set",
    "k=8",
    "--set",
    "hidden=8",
    "--set",
    "epochs=1",
    "--set",
    "ae_epochs=2",
    "--no-reliability",
]


@pytest.fixture
def run(tissue: SimulatedTissue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Function that runs a command on the tissue."""
    from typer.testing import CliRunner

    from cellweft.cli import app

    monkeypatch.chdir(tmp_path)
    tissue.sc.write_h5ad("sc.h5ad")
    tissue.st.write_h5ad("st.h5ad")

    def call(command: str, *arguments: Any) -> Any:
        return CliRunner().invoke(app, [command, "sc.h5ad", "st.h5ad", *map(str, arguments)])

    return call


@pytest.mark.slow
def test_impute_accepts_gene_sets_and_edges(
    run: Callable[..., Any], files: dict[str, Path], fit_quickly: Fit
) -> None:
    Path("more.txt").write_text("Gene20,Gene21\n")
    networks = ["--gene-sets", files["gene_sets"], "--edges", files["edges"], "--edges", "more.txt"]
    result = run("impute", "-o", "out.h5ad", *networks, *QUICK)
    assert result.exit_code == 0, result.output
    assert "Network: gene_sets of 17 of 28 genes (GeneSets(" in result.stdout
    assert "; edges of 16 of 28 genes (EdgeList(10 edges" in result.stdout
    assert "1 self-loop left out" in result.stdout
    made = fit_quickly(gene_sets=files["gene_sets"], edges=[files["edges"], "more.txt"]).impute()
    np.testing.assert_array_equal(anndata.read_h5ad("out.h5ad").X, made.X)


def test_impute_describes_the_network_as_json(run: Callable[..., Any], files: dict[str, Path]) -> None:
    edges = ["--edges", files["edges"], "--set", "graph=edges", "--genes", "Gene01"]
    result = run("impute", "-o", "out.h5ad", *edges, "--json", *QUICK)
    assert result.exit_code == 0, result.output
    network = json.loads(result.stdout)["network"]
    assert network == {"edges": {"share": 1.0, "source": str(files["edges"]), "known_genes": 14}}


@pytest.mark.slow
def test_a_union_is_chosen_on_the_command_line(run: Callable[..., Any], files: dict[str, Path]) -> None:
    edges = ["--edges", files["edges"], "--set", "graph=edges:2+expression", "--genes", "Gene01"]
    result = run("impute", "-o", "out.h5ad", *edges, "--json", *QUICK)
    assert result.exit_code == 0, result.output
    network = json.loads(result.stdout)["network"]
    assert {name: (one["share"], one["known_genes"]) for name, one in network.items()} == {
        "edges": (2.0, 14),
        "expression": (1.0, 28),
    }


@pytest.mark.slow
def test_evaluate_accepts_gene_sets_and_edges(run: Callable[..., Any], files: dict[str, Path]) -> None:
    quick = "+".join(QUICK[3:10:2])
    methods = [
        f"stimpute:graph={graph}+{quick}" for graph in ("none", "edges", "edges+gene_sets:2+expression")
    ]
    networks = ["--gene-sets", files["gene_sets"], "--edges", files["edges"]]
    options = ["--methods", ",".join(methods), "--folds", "2", "--no-clusters", *networks]
    result = run("evaluate", "-o", "scores.csv", *options)
    assert result.exit_code == 0, result.output
    scores = pd.read_csv("scores.csv")
    median = scores[(scores["item"] == "median over genes") & (scores["metric"] == "mse")]
    assert median["method"].tolist() == methods
    assert median["value"].nunique() == 3
    parameters = json.loads(Path("scores.json").read_text())["parameters"]
    assert parameters["embedding"] is None
    assert parameters["gene_sets"] == str(files["gene_sets"])
    assert parameters["edges"] == str(files["edges"])


@pytest.mark.parametrize("command", ["impute", "evaluate"])
@pytest.mark.parametrize(
    ("option", "text", "words"),
    [
        ("--edges", "Gad1\tGad2\t-3\n", "expected a weight of 0 or more, got '-3'"),
        ("--edges", "", "got an empty file"),
        ("--gene-sets", "Gad1 Gad2\n", "expected the name of a set"),
    ],
)
def test_bad_files_are_refused_before_any_work(
    run: Callable[..., Any], command: str, option: str, text: str, words: str
) -> None:
    Path("network.txt").write_text(text)
    result = run(command, "-o", "out.h5ad" if command == "impute" else "out.csv", option, "network.txt")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: network.txt")
    assert words in result.stderr
    assert not list(Path().glob("out.*"))
