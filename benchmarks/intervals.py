"""Whether intervals hold what they say, of genes held out, and what tests on imputed genes are worth.

Five folds of genes, KFold(5, shuffle, random_state=0) over the sorted shared genes; intervals are learned
in every fold from the other genes alone. Differential expression is between six groups of cells, each against
the rest: k-means of the panel's principal components, and of the coordinates.
"""

import argparse

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, t, ttest_ind
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.model_selection import KFold

import cellweft

from common import DATA, PAIRS, markdown, write

LEVELS = (0.5, 0.8, 0.9, 0.95)
IMPUTATIONS = 20


class Fold:
    """Genes held out: predicted, measured, bounds at every level, and several imputations."""

    def __init__(self, pair, held, *, seed, imputations):
        kept, names = np.delete(pair.shared_genes, held), [str(one) for one in pair.shared_genes[held]]
        panel = pair.hold_out(names)
        imputer = cellweft.Imputer(preset="auto", seed=seed).fit(panel)
        found = {level: imputer.impute(names, interval=level) for level in LEVELS}
        self.bounds = {
            level: (one[:, names].layers["lower"], one[:, names].layers["upper"])
            for level, one in found.items()
        }
        self.predicted = np.asarray(found[0.9][:, names].X, dtype=np.float64)
        self.truth = pair.st.dense(slice(None), pair.st_shared[held]).astype(np.float64)
        self.reference = pair.sc.dense(slice(None), pair.sc_shared[held]).mean(axis=0, dtype=np.float64)
        draws = cellweft.tl.multiple_imputations(imputer, names, n=imputations, seed=seed)
        self.draws = [one[:, names].copy() for one in draws]
        measured = panel.st.dense(slice(None), panel.st_shared)
        self.groups = {"types": groups_of(PCA(min(6, len(kept)), random_state=0).fit_transform(measured))}
        if pair.coordinates is not None:
            self.groups["places"] = groups_of(pair.coordinates)

    def inside(self, level):
        """Return whether measured values lie within the bounds."""
        lower, upper = self.bounds[level]
        return (self.truth >= lower) & (self.truth <= upper)


def groups_of(values):
    return KMeans(6, n_init=1, random_state=0).fit_predict(values).astype(str)


def folds_of(pair, *, seed, imputations=IMPUTATIONS):
    splits = KFold(5, shuffle=True, random_state=0).split(pair.shared_genes)
    return [Fold(pair, held, seed=seed, imputations=imputations) for _, held in splits]


def joined(folds, one):
    return np.concatenate([one(fold).ravel() for fold in folds])


def coverage(folds):
    """Return coverage and mean width at every level, beside one symmetric half-width for all entries."""
    row, plain = {}, {}
    predicted = joined(folds, lambda fold: fold.predicted)
    error = np.abs(joined(folds, lambda fold: fold.truth) - predicted)
    for level in LEVELS:
        row[f"{level:.0%}"] = joined(folds, lambda fold, at=level: fold.inside(at)).mean()
        plain[f"{level:.0%}"] = (error <= np.quantile(error, level)).mean()
    half = np.quantile(error, 0.9)
    row["width at 90%"] = joined(folds, lambda fold: fold.bounds[0.9][1] - fold.bounds[0.9][0]).mean()
    plain["width at 90%"] = (predicted + half - np.maximum(predicted - half, 0)).mean()
    of_gene = np.concatenate([fold.inside(0.9).mean(axis=0) for fold in folds])
    row["sd between genes"] = of_gene.std()
    return row, plain


def deciles(folds):
    """Return coverage at 90 % by deciles of predictions, and of genes by their mean in the reference."""
    inside = joined(folds, lambda fold: fold.inside(0.9))
    predicted = joined(folds, lambda fold: fold.predicted)
    zeros = joined(folds, lambda fold: fold.truth) == 0
    place = np.searchsorted(np.quantile(predicted, np.arange(1, 10) / 10), predicted, side="right")
    of_gene = np.concatenate([fold.inside(0.9).mean(axis=0) for fold in folds])
    level = np.concatenate([fold.reference for fold in folds])
    rank = np.argsort(np.argsort(level)) * 10 // len(level)
    return (
        {str(one + 1): inside[place == one].mean() for one in range(10)},
        {str(one + 1): zeros[place == one].mean() for one in range(10)},
        {str(one + 1): of_gene[rank == one].mean() for one in range(10)},
    )


def differences(values, labels):
    """Return the table of one matrix, taken as measured: Welch's test of every group against the rest."""
    parts = []
    for group in sorted(set(labels)):
        inside, rest = values[labels == group], values[labels != group]
        test = ttest_ind(inside, rest, equal_var=False)
        pvalue = np.nan_to_num(test.pvalue, nan=1.0)
        parts.append(
            pd.DataFrame(
                {
                    "difference": inside.mean(axis=0) - rest.mean(axis=0),
                    "standard_error": np.sqrt(
                        inside.var(axis=0, ddof=1) / len(inside) + rest.var(axis=0, ddof=1) / len(rest)
                    ),
                    "degrees_of_freedom": test.df,
                    "pvalue": pvalue,
                    "fdr": false_discovery_control(pvalue),
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def tests(folds):
    """Return what tests on imputed genes say, held against the measured differences."""
    found = {}
    for fold in folds:
        for name, labels in fold.groups.items():
            truth = differences(fold.truth, labels)["difference"]
            tables = {
                "the prediction": differences(fold.predicted, labels),
                "one imputation": differences(np.asarray(fold.draws[0].X, dtype=np.float64), labels),
                f"{len(fold.draws)} imputations": cellweft.tl.differential_expression(fold.draws, labels),
            }
            for method, table in tables.items():
                reach = t.ppf(0.975, table["degrees_of_freedom"]) * table["standard_error"]
                right = np.sign(table["difference"]) == np.sign(truth)
                found.setdefault(f"{name}: {method}", []).append(
                    pd.DataFrame(
                        {
                            "95 % interval holds": (table["difference"] - truth).abs() <= reach,
                            "p < .05": table["pvalue"] < 0.05,
                            "fdr < .05": table["fdr"] < 0.05,
                            "right": right,
                        }
                    )
                )
    rows = {}
    for method, parts in found.items():
        table = pd.concat(parts)
        row = table[["95 % interval holds", "p < .05", "fdr < .05"]].mean().to_dict()
        for call in ("p < .05", "fdr < .05"):
            row[f"right sign where {call}"] = table.loc[table[call], "right"].mean()
        row["right sign, all"] = table["right"].mean()
        rows[method] = row
    return pd.DataFrame(rows).T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="*", default=list(PAIRS))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    overall, levels, zeros, genes, tested = {}, {}, {}, {}, ""
    for name in asked.pairs:
        sc, st, options = PAIRS[name]
        pair = cellweft.pair(DATA / sc, DATA / st, size_factor=options[1] if options else None)
        folds = folds_of(pair, seed=asked.seed)
        overall[name], overall[f"{name}: one half-width, chosen on the truth"] = coverage(folds)
        levels[name], zeros[name], genes[name] = deciles(folds)
        tested += f"### {name}\n\n{markdown(tests(folds))}\n\n"
        print(name, overall[name], flush=True)
    text = "# Intervals on genes held out\n\nShare of measured values inside, at several levels:\n\n"
    text += markdown(pd.DataFrame(overall).T)
    text += "\n\nInside at 90 %, by decile of the prediction:\n\n" + markdown(pd.DataFrame(levels).T)
    text += "\n\nShare of zeros there (an interval that holds 0 holds at least these):\n\n"
    text += markdown(pd.DataFrame(zeros).T)
    text += "\n\nInside at 90 %, by decile of genes' mean in the reference (a tenth of the genes each):\n\n"
    text += markdown(pd.DataFrame(genes).T)
    text += (
        "\n\n## Differential expression of held-out genes\n\nAgainst the differences of measured values:\n\n"
    )
    write("intervals", text + tested, seeds=[asked.seed], protocol="cut")


if __name__ == "__main__":
    main()
