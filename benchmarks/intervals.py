"""Whether intervals cover held-out genes as stated, and how far tests on imputed genes can be trusted.

Five folds of genes, KFold(5, shuffle, random_state=0) over the sorted shared genes; intervals are learned
in every fold from the other genes alone. Differential expression is between six groups of cells, each against
the rest: k-means of the panel's principal components, and of the coordinates.
"""

import argparse

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.stats import false_discovery_control, t, ttest_ind
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

import cellweft
from cellweft._compute import numpy_stream
from cellweft.impute.uncertainty.prediction_intervals import fit_intervals
from held_out_genes import folds, options
from impute_auto import pair_of

from common import markdown, write

LEVELS = (0.5, 0.8, 0.9, 0.95)
IMPUTATIONS = 20


class Fold:
    """Held-out genes: predicted, measured, bounds at every level, and several imputations."""

    def __init__(self, pair, fit, *, seed):
        self.predicted, self.truth = fit["predicted"].astype(float), fit["truth"].astype(float)
        self.reference, similarity = fit["expression"], fit["similarity"]
        intervals = fit_intervals(
            fit["panel_predicted"], fit["panel_truth"], similarity=fit["panel_similarity"], seed=seed
        )
        self.bounds = {
            level: intervals.bounds(self.predicted, similarity=similarity, level=level) for level in LEVELS
        }
        self.chance = intervals.detected(self.predicted, similarity=similarity)
        panel = pair.hold_out(list(fit["genes"]))
        measured = panel.st.dense(slice(0, panel.st.n_cells), panel.st_shared)
        self.draws = draws_of(intervals, fit, seed=seed, state=intervals.state(measured))
        n_groups = min(6, measured.shape[1])
        self.groups = {"types": groups_of(PCA(n_groups, random_state=0).fit_transform(measured))}
        if pair.coordinates is not None:
            self.groups["places"] = groups_of(pair.coordinates)

    def inside(self, level):
        """Return whether measured values lie within the bounds."""
        lower, upper = self.bounds[level]
        return (self.truth >= lower) & (self.truth <= upper)


def draws_of(intervals, fit, *, seed, state):
    """Return imputations of the held-out genes, as `cellweft.tl.multiple_imputations` draws them."""
    results = []
    for number in range(IMPUTATIONS):
        columns = [
            intervals.draw(
                fit["predicted"][:, [place]],
                similarity=fit["similarity"],
                generator=numpy_stream(seed, f"imputation.{number}.{gene}"),
                state=state,
            )
            for place, gene in enumerate(fit["genes"])
        ]
        results.append(AnnData(np.hstack(columns), var=pd.DataFrame(index=fit["genes"].astype(object))))
    return results


def groups_of(values):
    return KMeans(6, n_init=1, random_state=0).fit_predict(values).astype(str)


def joined(folds, one):
    return np.concatenate([one(fold).ravel() for fold in folds])


def coverage(folds):
    """Return coverage and mean width at every level, and those of one half-width for all entries."""
    row, plain = {}, {}
    predicted, truth = (joined(folds, lambda fold, of=of: getattr(fold, of)) for of in ("predicted", "truth"))
    error, above = np.abs(truth - predicted), truth > 0
    half = np.quantile(error, 0.9)
    for level in LEVELS:
        row[f"{level:.0%}"] = joined(folds, lambda fold, at=level: fold.inside(at)).mean()
        plain[f"{level:.0%}"] = (error <= np.quantile(error, level)).mean()
    inside = joined(folds, lambda fold: fold.inside(0.9))
    row["90%, above zero"], plain["90%, above zero"] = inside[above].mean(), (error <= half)[above].mean()
    row["90%, zeros"], plain["90%, zeros"] = inside[~above].mean(), (error <= half)[~above].mean()
    lower, upper = (joined(folds, lambda fold, end=end: fold.bounds[0.9][end]) for end in (0, 1))
    row["width at 90%"] = (upper - lower).mean()
    plain["width at 90%"] = (predicted + half - np.maximum(predicted - half, 0)).mean()
    row["excluding 0"], plain["excluding 0"] = (lower > 0).mean(), (predicted > half).mean()
    of_gene = np.concatenate([fold.inside(0.9).mean(axis=0) for fold in folds])
    row["sd between genes"] = of_gene.std()
    return row, plain


def detection(folds):
    """Return how good the detection probability is, and the share detected by fifths of it."""
    chance, above = joined(folds, lambda fold: fold.chance), joined(folds, lambda fold: fold.truth > 0)
    place = np.minimum((chance * 5).astype(int), 4)
    row = {
        "detected": above.mean(),
        "mean predicted probability": chance.mean(),
        "Brier score": np.mean((chance - above) ** 2),
        "Brier score of a constant probability": above.mean() * (1 - above.mean()),
    }
    for one in range(5):
        some = place == one
        row[f"detected at {one / 5:.1f} to {(one + 1) / 5:.1f}"] = (
            above[some].mean() if some.any() else np.nan
        )
    return row


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
        {str(one + 1): inside[(place == one) & ~zeros].mean() for one in range(10)},
        {str(one + 1): zeros[place == one].mean() for one in range(10)},
        {str(one + 1): of_gene[rank == one].mean() for one in range(10)},
    )


def differences(values, labels):
    """Return the table of one matrix, treated as measured: Welch's test of every group against the rest."""
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
    """Return the results of tests on imputed genes, compared with the measured differences."""
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


SECTIONS = [
    "Share of measured values inside, at several levels:",
    "The detection probability:",
    "Inside at 90 %, by decile of the prediction:",
    "Of values above zero, inside at 90 %, by decile of the prediction:",
    "Share of zeros there (an interval that includes 0 covers at least these):",
    "Inside at 90 %, by decile of genes' mean in the reference (a tenth of the genes each):",
]


def looked_at(name: str, seed: int, asked: argparse.Namespace) -> list[pd.DataFrame]:
    """Return the rows that one pair and seed add to each section, and the tests."""
    pair = pair_of(name)
    each = [Fold(pair, fit, seed=seed) for fit in folds(name, seed, asked)]
    overall, plain = coverage(each)
    half = pd.DataFrame({name: overall, f"{name}: one half-width, chosen on the truth": plain}).T
    rows = [pd.DataFrame({name: one}).T for one in (detection(each), *deciles(each))]
    return [half, *rows, tests(each)]


def main() -> None:
    asked = options(__doc__, seeds=3).parse_args()
    parts: list[list[pd.DataFrame]] = [[] for _ in SECTIONS]
    tested = ""
    for name in asked.pairs:
        runs = [looked_at(name, seed, asked) for seed in range(asked.seeds)]
        *tables, tests_of_pair = (
            sum(one[1:], one[0]) / len(one) for one in zip(*runs, strict=True)
        )  # means over seeds
        for part, table in zip(parts, tables, strict=True):
            part.append(table)
        tested += f"### {name}\n\n{markdown(tests_of_pair)}\n\n"
        print(name, tables[0].iloc[0].to_dict(), flush=True)
    text = f"# Intervals on held-out genes\n\nMeans over seeds; {asked.folds} of five folds.\n\n"
    for title, part in zip(SECTIONS, parts, strict=True):
        text += f"{title}\n\n{markdown(pd.concat(part))}\n\n"
    text += "## Differential expression of held-out genes\n\nAgainst the differences of measured values:\n\n"
    write("intervals", text + tested, seeds=range(asked.seeds), protocol="cut")


if __name__ == "__main__":
    main()
