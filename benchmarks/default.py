"""The default of the Imputer compared with stImpute and every baseline: all pairs, scores and ranks.

Besides the real pairs, pairs with a poor reference are included: few reference cells, spots instead of cells,
or a reference of another region. Scores are stored in the same files as those of `impute_auto.py`.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from impute_auto import BASELINES, CELL_METRICS, METRICS, POOR, SEEDED, scored

from common import markdown, write

GOOD = ["osmfish", "hypothalamus-plain", "starmap", "molcart"]
COLUMNS = [("gene", metric) for metric in METRICS] + [("cell", CELL_METRICS[0])]
DRAWS = 2000  # of the bootstrap


def name_of(level: str, metric: str) -> str:
    return metric if level == "gene" else f"{metric} of cells"


def per_item(runs: list[pd.DataFrame], level: str, metric: str) -> pd.Series:
    """Return the mean over seeds of a score of each gene, or of each cell."""
    rows = pd.concat([run[(run["level"] == level) & (run["metric"] == metric)] for run in runs])
    return rows.groupby("item", sort=True)["value"].mean()


def interval(differences: pd.Series) -> tuple[float, float, float]:
    """Return the median of paired differences and its 95 % interval: bootstrap over genes or cells."""
    values = differences.dropna().to_numpy()
    drawn = np.random.default_rng(0).integers(len(values), size=(DRAWS, len(values)))
    low, high = np.quantile(np.median(values[drawn], axis=1), [0.025, 0.975])
    return float(np.median(values)), float(low), float(high)


def section(name: str, seeds: int, kept: Path) -> tuple[str, dict[str, float], float]:
    """Return the text of one pair, the rank of auto in each score, and its mean rank."""
    runs = {
        method: [scored(name, method, seed, kept) for seed in range(seeds if method in SEEDED else 1)]
        for method in [*SEEDED, *BASELINES]
    }
    scores = pd.DataFrame(
        {
            name_of(level, metric): {
                method: float(
                    np.mean(
                        [
                            run.loc[(run["level"] == level) & (run["metric"] == metric), "value"].median()
                            for run in each
                        ]
                    )
                )
                for method, each in runs.items()
            }
            for level, metric in COLUMNS
        }
    )
    ranks = pd.DataFrame(
        {column: scores[column].rank(ascending=column == "mse") for column in scores.columns}
    )
    scores["mean rank"] = ranks.mean(axis=1)
    lines = ["| score | best other | auto - other, paired | 95 % interval |", "| --- | --- | --- | --- |"]
    for level, metric in COLUMNS:
        column = name_of(level, metric)
        others = scores[column].drop("auto")
        other = others.idxmin() if metric == "mse" else others.idxmax()
        own, theirs = (per_item(runs[method], level, metric) for method in ("auto", other))
        middle, low, high = interval(own - theirs)
        lines.append(f"| {column} | {other} | {middle:+.3f} | {low:+.3f} to {high:+.3f} |")
    text = f"## {name}\n\n{markdown(scores)}\n\n" + "\n".join(lines) + "\n\n"
    return text, ranks.loc["auto"].to_dict(), float(scores.loc["auto", "mean rank"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="*", default=[*GOOD, *POOR])
    parser.add_argument(
        "--seeds", type=int, default=3, help="of the pairs with a good reference; others have 1"
    )
    parser.add_argument("--kept", type=Path, default=Path(tempfile.gettempdir()) / "cellweft-impute-auto-cut")
    asked = parser.parse_args()
    asked.kept.mkdir(parents=True, exist_ok=True)
    body, places = "", {}
    for name in asked.pairs:
        text, ranks, mean = section(name, 1 if name in POOR else asked.seeds, asked.kept)
        body += text
        places[name] = ranks | {"mean rank": mean}
    text = "# The default of the Imputer on held-out genes: all pairs\n\n"
    text += "Rank of `auto` among the seven methods in each score (1 is the best):\n\n"
    text += markdown(pd.DataFrame(places).T).replace("| method |", "| pair |", 1) + "\n\n"
    text += (
        "Medians over genes (or cells), mean over seeds; mse is better when lower. Paired differences are of "
    )
    text += (
        "the same gene or cell, with `auto` averaged over seeds; the interval is a bootstrap over genes or "
    )
    text += "cells. Baselines are deterministic and have one seed.\n\n"
    write("default", text + body, seeds=range(asked.seeds), protocol="cut")


if __name__ == "__main__":
    main()
