"""Reliability of ``preset="auto"`` against the true Pearson correlation of genes that were held out.

Held-out genes as published: KFold(5, shuffle, random_state=0) over the sorted shared genes; the folds of a
pair are put together, as a reader of one table of genes would. Two plain rankings stand beside it, and the
ceiling: genes ranked by their true correlation.
"""

import argparse

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.model_selection import KFold

import cellweft
from cellweft import metrics

from common import DATA, PAIRS, markdown, write

FURTHER = {
    "molcart": ("mop_ref_10x_sc500.h5ad", "cortex_molcart100_st.h5ad", []),
    "embryo": ("seqfish_embryo_e1z5.h5ad", "seqfish_embryo_e1z2.h5ad", []),
}
RANKINGS = {
    "reliability": "reliability",
    "spread": "spread of the prediction alone",
    "expression": "expression in the reference alone",
    "pearson": "true Pearson (ceiling)",
}
COLUMNS = ["reliability", "reliability_lower", "reliability_upper", "reliable"]


def held_out(name: str, seed: int) -> pd.DataFrame:
    """Return a row per shared gene: what was said of it without its measurement, and what is true."""
    sc, st, options = (PAIRS | FURTHER)[name]
    pair = cellweft.pair(DATA / sc, DATA / st, size_factor=options[1] if options else None)
    parts = []
    for _, held in KFold(5, shuffle=True, random_state=0).split(pair.shared_genes):
        imputer = cellweft.Imputer(preset="auto", seed=seed).fit(pair.hold_out(pair.shared_genes[held]))
        imputed = imputer.impute(list(pair.sc.genes[pair.sc_shared[held]]))
        predicted = np.asarray(imputed.X)
        truth = pair.st.dense(slice(0, pair.st.n_cells), pair.st_shared[held])
        reference = pair.sc.dense(slice(0, pair.sc.n_cells), pair.sc_shared[held])
        part = imputed.var[COLUMNS].reset_index(names="gene")
        part["pearson"] = metrics.pearson(truth, predicted)
        part["spread"] = predicted.std(axis=0, dtype=np.float64)
        part["expression"] = reference.mean(axis=0, dtype=np.float64)
        parts.append(part)
    return pd.concat(parts, ignore_index=True).assign(seed=seed)


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
    """Return how the intervals cover, and what the cut selects, of the genes of all seeds."""
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="*", default=[*PAIRS, "molcart"])
    parser.add_argument("--seeds", type=int, default=1)
    asked = parser.parse_args()
    text, coverage = "# Reliability of held-out genes\n", {}
    for name in asked.pairs:
        genes = pd.concat([held_out(name, seed) for seed in range(asked.seeds)], ignore_index=True)
        coverage[name] = covered(genes)
        table = markdown(ranked(genes)).replace("| method |", "| ranking |", 1)
        text += f"\n## {name}\n\n{table}\n"
    text += "\n## Intervals of nominal 90 %, and the genes called reliable\n\n"
    text += markdown(pd.DataFrame(coverage)).replace("| method |", "| |", 1)
    write("predictability", text, seeds=range(asked.seeds), protocol="cut")


if __name__ == "__main__":
    main()
