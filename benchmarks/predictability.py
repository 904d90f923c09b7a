"""Reliability of ``preset="auto"`` compared with the true Pearson correlation of held-out genes.

Held-out genes as published: KFold(5, shuffle, random_state=0) over the sorted shared genes; the folds of a
pair are pooled, as in one table of genes. It is compared with two simple rankings, and with the upper bound:
genes ranked by their true correlation. Small panels are drawn from the shared genes, and all others are held
out.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from cellweft.impute.uncertainty.expected_correlation import fit_predictability
from cellweft.nn.config import AttentionSettings
from held_out_genes import folds, options, small_panels

from common import markdown, write

RANKINGS = {
    "reliability": "reliability",
    "spread": "spread of the prediction alone",
    "expression": "expression in the reference alone",
    "pearson": "true Pearson (ceiling)",
}
SIZES = (16, 33, 50)


def judged(fit: dict[str, np.ndarray], seed: int) -> pd.DataFrame:
    """Return a row per held-out gene: what was estimated without its measurement, and what is true."""
    n_panel = len(fit["panel_pearson"])
    seen = n_panel * (1 - 1 / AttentionSettings().folds)
    known = fit_predictability(fit["panel_features"], fit["panel_pearson"], n_seen=seen)
    score, lower, upper = known.score(fit["features"])
    return pd.DataFrame(
        {
            "gene": fit["genes"],
            "reliability": score,
            "reliability_lower": lower,
            "reliability_upper": upper,
            "reliable": known.reliable(score),
            "pearson": fit["pearson"],
            "spread": fit["predicted"].std(axis=0, dtype=np.float64),
            "expression": fit["expression"],
            "seed": seed,
        }
    )


def of_folds(name: str, asked: argparse.Namespace) -> pd.DataFrame:
    """Return the rows of all shared genes of a pair, for every seed."""
    return pd.concat(
        [judged(fit, seed) for seed in range(asked.seeds) for fit in folds(name, seed, asked)],
        ignore_index=True,
    )


def of_small_panels(name: str, draws: int, kept: Path) -> dict[str, dict[str, float]]:
    """Return bias, coverage and ranking for panels of some sizes, as means over draws."""
    rows = {}
    for size in SIZES:
        fits = [small_panels(name, size, draw, kept) for draw in range(draws)]
        parts = [judged(fit, draw) for draw, fit in enumerate(fits) if fit is not None]
        if parts:
            genes = pd.concat(parts)
            inside = genes["pearson"].between(genes["reliability_lower"], genes["reliability_upper"])
            ranks = [spearmanr(one["reliability"], one["pearson"]).statistic for one in parts]
            rows[f"{name}, {size} genes"] = {
                "draws": len(parts),
                "genes held out": np.mean([len(one) for one in parts]),
                "mean Pearson": genes["pearson"].mean(),
                "mean score - truth": (genes["reliability"] - genes["pearson"]).mean(),
                "coverage": inside.mean(),
                "Spearman with true Pearson": np.mean(ranks),
            }
    return rows


def ranked(genes: pd.DataFrame) -> pd.DataFrame:
    """Return how each ranking of the genes agrees with their true correlation, as means over seeds."""
    rows = {}
    for column, label in RANKINGS.items():
        scores = []
        for _, one in genes.groupby("seed"):
            upper = one[one[column] >= one[column].median()]
            scores.append(
                {
                    "Spearman with true Pearson": spearmanr(one[column], one["pearson"]).statistic,
                    "median Pearson, upper half": upper["pearson"].median(),
                    "median Pearson, all": one["pearson"].median(),
                    "upper half / all": upper["pearson"].median() / one["pearson"].median(),
                }
            )
        rows[label] = pd.DataFrame(scores).mean()
    return pd.DataFrame(rows).T


def covered(genes: pd.DataFrame) -> dict[str, float]:
    """Return the coverage of intervals, and what the threshold selects, over the genes of all seeds."""
    inside = genes["pearson"].between(genes["reliability_lower"], genes["reliability_upper"])
    thirds = genes["reliability"].rank(method="first", pct=True).mul(3).clip(upper=2.999).astype(int)
    kept, rest = (genes.loc[genes["reliable"] == one, "pearson"] for one in (True, False))
    row = {"genes": genes["gene"].nunique(), "coverage": inside.mean()}
    for third, label in enumerate(["lower", "middle", "upper"]):
        row[f"coverage, {label} third"] = inside[thirds == third].mean()
    row["median width"] = (genes["reliability_upper"] - genes["reliability_lower"]).median()
    row["mean score - truth"] = (genes["reliability"] - genes["pearson"]).mean()
    row["share reliable"] = genes["reliable"].mean()
    row["median Pearson, reliable"], row["median Pearson, rest"] = kept.median(), rest.median()
    row["Pearson above 0.1, reliable"], row["Pearson above 0.1, rest"] = (
        (kept > 0.1).mean(),
        (rest > 0.1).mean(),
    )
    return row


def main() -> None:
    parser = options(__doc__, seeds=1)
    parser.add_argument("--draws", type=int, default=3, help="of each size of small panels")
    asked = parser.parse_args()
    text, coverage, small = "# Reliability of held-out genes\n", {}, {}
    text += f"\n{asked.folds} of five folds.\n"
    for name in asked.pairs:
        genes = of_folds(name, asked)
        coverage[name] = covered(genes)
        small |= of_small_panels(name, asked.draws, asked.kept)
        table = markdown(ranked(genes)).replace("| method |", "| ranking |", 1)
        text += f"\n## {name}\n\n{table}\n"
    text += "\n## Intervals of nominal 90 %, and genes classified as reliable\n\n"
    text += markdown(pd.DataFrame(coverage)).replace("| method |", "| |", 1)
    text += "\n\n## Small panels\n\nPanels drawn from the shared genes, all others held out:\n\n"
    text += markdown(pd.DataFrame(small).T).replace("| method |", "| panel |", 1)
    write("predictability", text, seeds=range(asked.seeds), protocol="cut")


if __name__ == "__main__":
    main()
