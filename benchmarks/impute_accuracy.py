"""Accuracy, time and peak memory of imputation on the real pairs, compared with the baselines.

Held-out genes as published: KFold(5, shuffle, random_state=0) over the sorted shared genes.
"""

import argparse
import tempfile
from pathlib import Path

from common import EMBEDDING, PAIRS, evaluate, markdown, summary, write

METHODS = ["stimpute", "mean", "knn", "attention"]
WANTED = [
    ("median over genes", "pearson"),
    ("median over genes", "spearman"),
    ("median over genes", "cosine"),
    ("median over genes", "mse"),
    ("median over cells", "pearson"),
    ("median over cells", "cosine"),
    ("clusters", "ari"),
    ("clusters", "fmi"),
    ("clusters", "completeness"),
    ("clusters", "nmi"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="*", default=list(PAIRS))
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    for pair in asked.pairs:
        options = ["--seeds", ",".join(map(str, range(asked.seeds))), "--embedding", EMBEDDING]
        with tempfile.TemporaryDirectory() as folder:
            table, run = evaluate(pair, METHODS, Path(folder) / "scores.csv", *options)
            _, once = evaluate(pair, ["stimpute"], Path(folder) / "once.csv", *options[2:])
        scores = summary(table, WANTED)
        text = (
            f"# Imputation on {pair}: held-out genes, mean of {asked.seeds} seed(s)\n\n{markdown(scores)}\n\n"
        )
        text += f"    {run.command}\n\n{run.seconds:.0f} s, peak memory {run.peak_bytes / 1e6:.0f} MB.\n\n"
        text += f"stImpute alone, one seed, 5 folds: {once.seconds:.0f} s, "
        text += f"peak memory {once.peak_bytes / 1e6:.0f} MB.\n\n"
        text += f"    {once.command}\n"
        write(f"impute_{pair}", text, seeds=range(asked.seeds), protocol="cut")


if __name__ == "__main__":
    main()
