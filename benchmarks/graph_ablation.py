"""What the gene graph contributes on held-out genes of a real pair: none, expression, ESM-2, or both.

Every method is run with several seeds; each gene's mean over the seeds is compared with its mean without a
graph, by Wilcoxon's signed-rank test over genes, with control of the false discovery rate over all tests of
the table. Scores are kept per method and seed in a folder, so that an interrupted run can be resumed.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, wilcoxon

import cellweft

from common import DATA, EMBEDDING, PAIRS, markdown, write

BASE = "no graph"
METHODS: dict[str, dict[str, Any]] = {
    BASE: {"graph": "none"},
    "expression": {"graph": "expression"},
    "ESM-2": {"graph": "embedding"},
    "ESM-2 and expression": {"graph": "embedding+expression"},
    "expression, nearest 5": {"graph": "expression", "graph_neighbors": 5},
    "ESM-2, nearest 5": {"graph": "embedding", "graph_neighbors": 5},
    "ESM-2 and expression, nearest 5": {"graph": "embedding+expression", "graph_neighbors": 5},
    "ESM-2 less its mean, nearest 5": {"graph": "embedding", "graph_neighbors": 5},
}
METRICS = ("pearson", "spearman", "cosine", "mse")


def scored(name: str, methods: list[str], seeds: int, kept: Path) -> tuple[pd.DataFrame, list[str]]:
    """Return every gene's scores (method, seed, item, metric, value), and the genes with an embedding."""
    sc, st, options = PAIRS[name]
    pair = cellweft.pair(DATA / sc, DATA / st, size_factor=options[1] if options else None)
    embedding = cellweft.genes.read_embedding(DATA / EMBEDDING)
    vectors = np.asarray(embedding.values)
    centred = cellweft.genes.EmbeddingTable(
        genes=embedding.genes, values=vectors - vectors.mean(axis=0), source="-"
    )
    known = [str(gene) for gene in pair.shared_genes[embedding.match(pair.shared_genes)[0]]]
    tables = []
    for seed in range(seeds):
        for method in methods:
            path = kept / f"{name}, {method}, {seed}.csv"
            if not path.exists():
                start = time.perf_counter()
                imputer = cellweft.Imputer(
                    preset="stimpute",
                    settings=METHODS[method],
                    embedding=centred if "less its mean" in method else embedding,
                    reliability=False,
                )
                table = cellweft.evaluate_imputation(pair, [imputer], seeds=[seed], cluster=False)
                genes = table[(table["level"] == "gene") & table["metric"].isin(METRICS)]
                partial = path.with_suffix(".partial")
                genes.assign(method=method).to_csv(partial, index=False)
                partial.rename(path)
                print(f"{name}, {method}, seed {seed}: {time.perf_counter() - start:.0f} s", flush=True)
            tables.append(pd.read_csv(path))
    return pd.concat(tables), known


def compared(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row per method: medians over genes, differences from no graph, and their q-values."""
    medians = table.groupby(["method", "seed", "metric"], sort=False)["value"].median()
    genes = table.groupby(["method", "metric", "item"], sort=False)["value"].mean()
    rows: dict[str, dict[str, float]] = {}
    tests: dict[tuple[str, str], float] = {}
    for method in table["method"].unique():
        rows[method] = {metric: medians[method, :, metric].mean() for metric in METRICS}
        for metric in METRICS if method != BASE else ():
            difference = (genes[method, metric] - genes[BASE, metric]).dropna()
            rows[method][f"{metric}, difference"] = difference.median()
            tests[method, metric] = wilcoxon(difference).pvalue
    adjusted = dict(zip(tests, false_discovery_control(np.array(list(tests.values()))), strict=True))
    for (method, metric), q in adjusted.items():
        rows[method][f"{metric}, q"] = q
    columns = [*METRICS, *(f"{metric}, {what}" for metric in METRICS for what in ("difference", "q"))]
    return pd.DataFrame(rows).T[columns]


def by_seed(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the median difference to no graph over genes, a row per method and a column per seed.

    Chance in one training affects all genes of a fold, which the test over genes does not account for: trust
    a difference only if it has the same sign for every seed.
    """
    wide = table[table["metric"] == metric].pivot_table(
        index=["seed", "item"], columns="method", values="value", sort=False
    )
    others = [method for method in table["method"].unique() if method != BASE]
    differences = wide[others].sub(wide[BASE], axis=0).groupby("seed").median().T
    return differences.rename(columns=lambda seed: f"seed {seed}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pair", choices=list(PAIRS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--kept", type=Path, default=Path(tempfile.gettempdir()) / "cellweft-graph-cut")
    asked = parser.parse_args()
    asked.kept.mkdir(exist_ok=True)
    methods = [method for method in METHODS if method == BASE or method in asked.methods]
    table, known = scored(asked.pair, methods, asked.seeds, asked.kept)
    n_genes = table["item"].nunique()
    text = f"# The gene graph on {asked.pair}: held-out genes, {asked.seeds} seed(s)\n\n"
    scores = compared(table)
    text += f"{markdown(scores[list(METRICS)])}\n\nAgainst {BASE}:\n\n"
    text += f"{markdown(scores.drop(columns=list(METRICS)).drop(index=BASE))}\n\n"
    text += (
        f"`stimpute`, 5 folds of {n_genes} genes, of which {len(known)} have an ESM-2 embedding. Scores are "
        "medians over genes, averaged over seeds; the mse is better when lower. Differences are medians over "
        f"genes of each gene's mean over the seeds, against {BASE}; q is from Wilcoxon's signed-rank test "
        "over genes, with the false discovery rate (Benjamini, Hochberg) over all tests of the table. It "
        "treats genes as independent, although they are trained together. Seed by seed, the median "
        "differences are\n\n"
    )
    for metric in ("pearson", "mse"):
        text += f"{metric}:\n\n{markdown(by_seed(table, metric))}\n\n"
    write(f"graph_{asked.pair}", text, seeds=range(asked.seeds), protocol="cut")


if __name__ == "__main__":
    main()
