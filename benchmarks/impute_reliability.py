"""Reliability of genes that neither the imputation nor the reliability network saw, and under added noise.

`cellweft evaluate --reliability` refits both in every fold without the held-out genes, whose score is
compared with their true cosine. Noise of several sizes is added to the predictions of one fold's genes.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.model_selection import KFold

import cellweft

from common import DATA, PAIRS, evaluate, markdown, write

NOISE = (0.0, 0.5, 1.0, 2.0)


def held_out(pair: str) -> tuple[dict[str, float], str]:
    """Return true scores of all genes and of the more reliable half, and the command."""
    with tempfile.TemporaryDirectory() as folder:
        table, run = evaluate(
            pair, ["stimpute"], Path(folder) / "scores.csv", "--reliability", "--no-clusters"
        )
    genes = table[table["level"] == "gene"].pivot_table(index="item", columns="metric", values="value")
    best = genes[genes["reliability"] >= genes["reliability"].median()]
    row = {}
    for metric in ("cosine", "pearson"):
        row[f"{metric}, all genes"] = genes[metric].median()
        row[f"{metric}, more reliable half"] = best[metric].median()
    row["rank correlation of score and cosine"] = spearmanr(genes["reliability"], genes["cosine"]).statistic
    return row, run.command


def under_noise(name: str) -> dict[str, float]:
    """Return the mean reliability of one fold's held-out genes with noise of several sizes added."""
    sc, st, options = PAIRS[name]
    pair = cellweft.pair(DATA / sc, DATA / st, size_factor=options[1] if options else None)
    folds = KFold(5, shuffle=True, random_state=0).split(pair.shared_genes)
    _, held = next(folds)
    genes = pair.shared_genes[held]
    panel = pair.hold_out(genes)
    imputer = cellweft.Imputer(preset="stimpute").fit(panel)
    predicted = imputer.predict(genes, panel)
    noise = np.random.default_rng(0).standard_normal(predicted.shape) * predicted.std(axis=0)
    return {
        f"noise of {level:g} sd": float(
            imputer.reliability_of(genes, judged=predicted + np.float32(level) * noise).mean()
        )
        for level in NOISE
    }


def main(pairs: list[str]) -> None:
    scores, noise, commands = {}, {}, []
    for pair in pairs:
        scores[pair], command = held_out(pair)
        noise[pair] = under_noise(pair)
        commands.append(f"    {command}")
    text = "# Reliability of genes that neither model saw\n\nMedian true score of the held-out genes:\n\n"
    text += (
        markdown(pd.DataFrame(scores).T) + "\n\nMean reliability of a fold's held-out genes, noise added to "
    )
    text += "their predictions (in standard deviations of the prediction):\n\n" + markdown(
        pd.DataFrame(noise).T
    )
    write("reliability", text + "\n\n" + "\n".join(commands), seeds=[0], protocol="cut")


if __name__ == "__main__":
    main(sys.argv[1:] or list(PAIRS))
