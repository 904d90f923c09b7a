"""The corpus: one small, valid file of every kind that cellweft reads, generated from a seed."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import scipy.io
import scipy.sparse as sp
import zarr

GENES = [f"Gene{number}" for number in range(12)]
CELLS = [f"cell{number}" for number in range(24)]


def counts() -> sp.csr_matrix:
    """Return counts of 24 cells x 12 genes; no cell or gene is empty."""
    values = np.random.default_rng(0).poisson(2.0, size=(len(CELLS), len(GENES))).astype(np.float32)
    values[:, 0] += 1
    return sp.csr_matrix(values)


def tissue(*, dense: bool = False) -> anndata.AnnData:
    """Return a tissue with everything that an AnnData may contain."""
    rng, values = np.random.default_rng(1), counts()
    data = anndata.AnnData(values.toarray() if dense else values)
    data.obs_names, data.var_names = pd.Index(CELLS), pd.Index(GENES)
    data.obs["type"] = pd.Categorical(rng.choice(["a", "b", "c"], len(CELLS)))
    data.obs["area"] = rng.random(len(CELLS))
    data.obs["inside"] = rng.random(len(CELLS)) > 0.5
    data.obs["number"] = pd.array([None, *range(len(CELLS) - 1)], dtype="Int64")
    data.var["gene_ids"] = [f"ENSG{number:011d}" for number in range(len(GENES))]
    data.var["measured"] = np.arange(len(GENES)) % 2 == 0
    data.obsm["spatial"] = rng.random((len(CELLS), 2)) * 100
    data.layers["counts"] = values.copy()
    data.uns["note"] = {"text": "a", "values": np.arange(3)}
    data.raw = data.copy()
    return data


def make(folder: Path, names: Collection[str]) -> dict[str, Path]:
    """Write the corpus into a folder and return the path of each kind.

    Parameters
    ----------
    folder
        An existing, empty folder.
    names
        Kinds that are needed; others may be written with them.
    """
    made: dict[str, Path] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for some in (_tables, _gene_files, _scores, _hdf5_of_others, _anndata_files, _runs, _results):
            if not made.keys() >= set(names):
                made |= some(folder)
    return made


def _anndata_files(folder: Path) -> dict[str, Path]:
    kinds = ("sparse_h5ad", "dense_h5ad", "sparse_zarr", "dense_zarr", "by_gene_h5ad")
    made = {name: folder / ".".join(name.rsplit("_", 1)) for name in kinds}
    tissue().write_h5ad(made["sparse_h5ad"])
    tissue(dense=True).write_h5ad(made["dense_h5ad"])
    tissue().write_zarr(made["sparse_zarr"])
    tissue(dense=True).write_zarr(made["dense_zarr"], chunks=(7, 5))
    by_gene = tissue()
    by_gene.X = sp.csc_matrix(by_gene.X)
    by_gene.write_h5ad(made["by_gene_h5ad"])
    made["zarr_v3"] = folder / "third.zarr"
    anndata.io.write_elem(zarr.open_group(made["zarr_v3"], mode="w", zarr_format=3), "/", tissue())
    made["spatialdata"] = folder / "spatialdata.zarr"
    whole = zarr.open_group(made["spatialdata"], mode="w", zarr_format=3)
    anndata.io.write_elem(whole, "tables/cells", tissue(dense=True))
    made["h5mu"] = folder / "two.h5mu"
    with h5py.File(made["h5mu"], "w") as file:
        one = tissue()
        one.raw = None
        anndata.io.write_elem(file, "mod/rna", one)
        anndata.io.write_elem(file, "obs", one.obs)
        anndata.io.write_elem(file, "var", one.var)
    return made


def _tables(folder: Path) -> dict[str, Path]:
    """Write tables of 6 cells x 5 genes, since reading takes time per column, and 10x folders."""
    cells = pd.Index(CELLS[:6], name="cell")
    table = pd.DataFrame(counts().toarray()[:6, :5].astype(int), index=cells, columns=GENES[:5])
    table["x"], table["y"] = np.arange(len(cells)) * 1.5, np.arange(len(cells)) % 5
    table["type"] = ["a", "b"] * (len(cells) // 2)
    names = {"csv": "table.csv", "tsv": "table.tsv", "csv_gz": "packed.csv.gz", "parquet": "table.parquet"}
    made = {kind: folder / name for kind, name in names.items()}
    table.to_csv(made["csv"])
    table.to_csv(made["tsv"], sep="\t")
    table.to_csv(made["csv_gz"])
    table.to_parquet(made["parquet"])
    made |= {"mtx": folder / "mtx", "mtx_gz": folder / "mtx_gz"}
    features = [f"ENSG{number:011d}\t{gene}\tGene Expression" for number, gene in enumerate(GENES)]
    for kind, ending, opener in (("mtx", "", open), ("mtx_gz", ".gz", gzip.open)):
        made[kind].mkdir()
        with opener(made[kind] / f"matrix.mtx{ending}", "wb") as file:
            scipy.io.mmwrite(file, sp.coo_matrix(counts().T.astype(int)))
        for name, lines in (("barcodes", CELLS), ("features", features)):
            with opener(made[kind] / f"{name}.tsv{ending}", "wb") as file:
                file.write("".join(f"{line}\n" for line in lines).encode())
    made["gem"] = folder / "tissue.gem"
    rng = np.random.default_rng(2)
    drawn = (rng.integers(60, size=40) for _ in range(4))
    lines = [
        f"{GENES[d % 12]}\t{a}\t{b}\t{1 + c % 3}\t{1 + d % 24}" for a, b, c, d in zip(*drawn, strict=True)
    ]
    made["gem"].write_text("geneID\tx\ty\tMIDCount\tcell\n" + "\n".join(lines) + "\n")
    return made


def _hdf5_of_others(folder: Path) -> dict[str, Path]:
    made = {"tenx_h5": folder / "matrix.h5", "tenx_v2_h5": folder / "old.h5", "loom": folder / "table.loom"}
    by_cell, text = counts(), h5py.string_dtype()
    parts = {"data": by_cell.data.astype(np.int32), "indices": by_cell.indices, "indptr": by_cell.indptr}
    ids = [f"ENSG{number:011d}" for number in range(len(GENES))]
    for kind, name in (("tenx_h5", "matrix"), ("tenx_v2_h5", "GRCh38")):
        with h5py.File(made[kind], "w") as file:
            group = file.create_group(name)
            for key, values in (parts | {"shape": np.array([len(GENES), len(CELLS)])}).items():
                group.create_dataset(key, data=values, compression="gzip")
            group.create_dataset("barcodes", data=np.array(CELLS, dtype="S"))
            if kind == "tenx_h5":
                for key, texts in (
                    ("id", ids),
                    ("name", GENES),
                    ("feature_type", ["Gene Expression"] * len(GENES)),
                    ("genome", ["GRCh38"] * len(GENES)),
                ):
                    group.create_dataset(f"features/{key}", data=np.array(texts, dtype="S"))
            else:
                group.create_dataset("genes", data=np.array(ids, dtype="S"))
                group.create_dataset("gene_names", data=np.array(GENES, dtype="S"))
    with h5py.File(made["loom"], "w") as file:
        file.create_dataset("matrix", data=by_cell.toarray().T, chunks=(6, 8), compression="gzip")
        file.create_dataset("layers/spliced", data=by_cell.toarray().T)
        file.create_dataset("row_attrs/Gene", data=np.array(GENES, dtype=object), dtype=text)
        file.create_dataset("col_attrs/CellID", data=np.array(CELLS, dtype=object), dtype=text)
        file.create_dataset("col_attrs/x", data=np.arange(len(CELLS)) * 1.0)
        file.create_dataset("col_attrs/y", data=np.arange(len(CELLS)) % 5 * 1.0)
    return made


def _gene_files(folder: Path) -> dict[str, Path]:
    rng = np.random.default_rng(3)
    values = rng.random((len(GENES), 4)).astype(np.float32)
    vectors = pd.DataFrame(values, index=GENES, columns=["e0", "e1", "e2", "e3"])
    names = {
        "embedding_csv": "vectors.csv",
        "embedding_parquet": "vectors.parquet",
        "embedding_npz": "vectors.npz",
        "embedding_h5ad": "vectors.h5ad",
        "gmt": "sets.gmt",
        "interactions": "pairs.tsv",
        "orthologs": "orthologs.tsv",
        "fasta": "proteins.fasta",
        "fasta_gz": "packed.fasta.gz",
    }
    made = {kind: folder / name for kind, name in names.items()}
    vectors.to_csv(made["embedding_csv"])
    vectors.to_parquet(made["embedding_parquet"])
    np.savez(made["embedding_npz"], genes=np.array(GENES), embeddings=vectors.to_numpy())
    anndata.AnnData(vectors).write_h5ad(made["embedding_h5ad"])
    made["gmt"].write_text("".join(f"set{n}\tabout\t" + "\t".join(GENES[n : n + 4]) + "\n" for n in range(8)))
    pairs = [f"{GENES[n]}\t{GENES[(n * 5 + 1) % 12]}\t{n / 12:.2f}" for n in range(12)]
    made["interactions"].write_text("gene1\tgene2\tscore\n" + "\n".join(pairs) + "\n")
    made["orthologs"].write_text("mouse\thuman\n" + "".join(f"{one}\t{one.upper()}\n" for one in GENES))
    amino = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
    chains = ["".join(rng.choice(amino, 30)) for _ in GENES]
    records = "".join(f">sp|P0000{n}|G OS=x GN={GENES[n]}\n{chain}\n" for n, chain in enumerate(chains))
    made["fasta"].write_text(records)
    made["fasta_gz"].write_bytes(gzip.compress(records.encode()))
    return made


def makers() -> dict[str, Any]:
    """Return the functions of the tests that write a small run of each instrument."""
    path = Path(__file__).resolve().parents[1] / "tests" / "data" / "instruments" / "conftest.py"
    described = importlib.util.spec_from_file_location("runs_of_instruments", path)
    assert described is not None
    assert described.loader is not None
    module = importlib.util.module_from_spec(described)
    sys.modules[described.name] = module
    described.loader.exec_module(module)
    return dict(module.MAKERS)


def _runs(folder: Path) -> dict[str, Path]:
    return {f"run_{name}": make(folder / f"run_{name}") for name, make in makers().items()}


def _results(folder: Path) -> dict[str, Path]:
    """Write models and results of cellweft itself."""
    import cellweft

    simulated = cellweft.datasets.simulate_tissue(n_spatial=40, n_reference=50, n_genes=16, n_panel=8, seed=1)
    both = cellweft.pair(simulated.sc, simulated.st)
    made = {}
    settings = {"auto": {"steps": 2}, "stimpute": {"k": 4, "hidden": 8, "epochs": 1, "ae_epochs": 2}}
    for preset, quick in settings.items():
        model = cellweft.Imputer(preset=preset, settings=quick, reliability=False).fit(both)
        made[f"model_{preset}"] = model.save(folder / f"{preset}.model")
        if preset == "auto":
            made["result_h5ad"] = model.impute_to(folder / "imputed.h5ad")
            made["result_zarr"] = model.impute_to(folder / "imputed.zarr")
    quick = {"steps": 4, "hidden": 8, "middle": 6, "latent": 4, "models": 1}
    made["model_placer"] = cellweft.Placer(settings=quick).fit(both).save(folder / "placer.model")
    return made


def _scores(folder: Path) -> dict[str, Path]:
    """Write a table of scores."""
    table = pd.DataFrame(
        {
            "method": ["auto", "uniform"] * 2,
            "seed": [0] * 4,
            "fold": [0] * 4,
            "level": ["gene"] * 4,
            "item": ["Gene0", "Gene0", "Gene1", "Gene1"],
            "metric": ["pearson"] * 4,
            "value": [0.5, 0.1, 0.4, 0.0],
        }
    )
    made = {"scores_csv": folder / "scores.csv", "scores_parquet": folder / "scores.parquet"}
    table.to_csv(made["scores_csv"], index=False)
    table.to_parquet(made["scores_parquet"])
    (folder / "scores.json").write_text(json.dumps({"seed": 0}))
    return made
