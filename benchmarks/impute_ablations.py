"""What each part of stImpute contributes on held-out genes of the real pairs, by the same command.

--seeds sets the number of seeds (default 1); differences from the full method are paired over genes and
seeds.
"""

import argparse
import tempfile
from pathlib import Path

import pandas as pd
from scipy.stats import wilcoxon

from common import EMBEDDING, PAIRS, evaluate, markdown, summary, write

PARTS = {
    "stimpute": "as published, graph of ESM-2 embeddings",
    "stimpute:graph=expression": "graph of expression alone",
    "stimpute:graph=none": "no graph",
    "stimpute:measure=distance": "cosine distance for similarity, as the authors' release",
    "stimpute:residual=0": "without L_res",
    "stimpute:cell_similarity=0": "without the cells' part of L_sim",
    "stimpute:gene_similarity=0": "without the genes' part of L_sim",
    "stimpute:cell_similarity=0+gene_similarity=0": "without L_sim",
    "stimpute:rounds=1": "1 round",
    "stimpute:rounds=3": "3 rounds",
    "stimpute:alpha=0": "neighbours' mean alone (Eq. 12 with alpha 0)",
    "stimpute:alpha=1": "gene network alone (Eq. 12 with alpha 1)",
}
WANTED = [("median over genes", one) for one in ("pearson", "spearman", "cosine", "mse")]
WANTED += [("median over cells", "cosine")]


def paired(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the median difference from the full method over genes and seeds, with Wilcoxon's p."""
    genes = table[(table["level"] == "gene") & (table["metric"] == metric)]
    wide = genes.pivot_table(index=["seed", "item"], columns="method", values="value", sort=False)
    rows = {}
    for method in PARTS:
        if method != "stimpute":
            difference = (wide[method] - wide["stimpute"]).dropna()
            p = wilcoxon(difference).pvalue if difference.abs().sum() > 0 else 1.0
            rows[method] = {f"{metric} against the full method": difference.median(), f"p ({metric})": p}
    return pd.DataFrame(rows).T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="*", default=list(PAIRS))
    parser.add_argument("--seeds", type=int, default=1)
    asked = parser.parse_args()
    for pair in asked.pairs:
        options = [
            "--seeds",
            ",".join(map(str, range(asked.seeds))),
            "--embedding",
            EMBEDDING,
            "--no-clusters",
        ]
        with tempfile.TemporaryDirectory() as folder:
            table, run = evaluate(pair, list(PARTS), Path(folder) / "scores.csv", *options)
        scores = summary(table, WANTED).join(paired(table, "pearson")).join(paired(table, "mse"))
        scores.index = [f"{PARTS[name]} (`{name}`)" for name in scores.index]
        text = f"# What each part of stImpute contributes on {pair}: held-out genes, "
        text += f"{asked.seeds} seed(s)\n\n"
        text += f"{markdown(scores)}\n\nDifferences are medians over genes and seeds, p is from Wilcoxon's "
        text += f"signed-rank test.\n\n    {run.command}\n\n{run.seconds:.0f} s.\n"
        write(f"ablations_{pair}", text, seeds=range(asked.seeds), protocol="cut")


if __name__ == "__main__":
    main()
