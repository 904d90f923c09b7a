"""How much of the learned levels, and of a second look at the reference, the default should use.

Five folds of held-out genes, one seed. Every outer fold is fitted once. Then the weight of the learned levels
against those of the reference is set to several values and to the one chosen by the fit; and the pattern is
averaged with that of a baseline, with the weight that best predicts the genes left out within the fit.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from cellweft.evaluate import imputation_baselines as baselines
from cellweft.evaluate import metrics
from cellweft.evaluate.imputation import _panel_alone, _splits
from cellweft.impute.attention import AttentionSettings, GeneColumns, OutOfFold, fit_attending, sample_cells
from cellweft.impute.base import FitContext
from impute_auto import pair_of

from common import markdown, write

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)  # of a second prediction, relative to 1 for attention
LOOKS: dict[str, Callable] = {
    "50 neighbours": baselines.knn,
    "50 neighbours, logarithms": lambda *where: baselines.knn(*where, space="log"),
    "attention, z-scores": baselines.attention,
    "attention, logarithms": lambda *where: baselines.attention(*where, space="log", temperature=0.05),
}
SCORES = ("pearson", "spearman", "cosine", "mse", "ssim")


@dataclass
class Fold:
    """One outer fold: predictions of its genes, (n_cells, n_genes), by what they are made with."""

    held: np.ndarray
    predicted: dict[str, np.ndarray]
    chosen: dict[str, float]


def standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-6)


def averaged(values: np.ndarray, look: np.ndarray, weight: float) -> np.ndarray:
    """Average the pattern of values with a second prediction; each gene's mean and spread are unchanged."""
    if weight == 0:
        return values
    pattern = standard(standard(values) + weight * standard(look))
    return values.mean(axis=0) + values.std(axis=0) * pattern


def within(part, held_out: OutOfFold, cells: np.ndarray, look: Callable) -> np.ndarray:
    """Return a second prediction of the panel's genes, each without the genes of its inner fold."""
    found, few = np.zeros_like(held_out.truth), part.cells(cells)
    for fold in np.unique(held_out.fold):
        out = np.flatnonzero(held_out.fold == fold)
        without = few.panel(part.shared_genes[held_out.fold != fold])
        found[:, out] = look(without, without, without.find_genes(part.shared_genes[out]))
    return found


def fold_of(pair, held: np.ndarray, seed: int) -> Fold:
    names = pair.shared_genes[held]
    part = pair.hold_out(names)
    work = FitContext(seed=seed, devices=(torch.device("cpu"),), reliability=True)
    cells = sample_cells(part, seed)
    fitted, held_out = fit_attending(
        part, GeneColumns.load(part.sc), cells, settings=AttentionSettings(), work=work
    )
    genes, measured = part.find_genes(names), part.st.dense(slice(None), part.st_shared)

    def with_share(share: float) -> np.ndarray:
        levels = replace(fitted.levels, share=share)
        return replace(fitted, levels=levels).prepare(genes).values(measured)

    predicted = {f"share {share:g}": with_share(share) for share in SHARES}
    own = predicted["share chosen"] = with_share(fitted.levels.share)
    chosen = {"share chosen": fitted.levels.share}
    for name, look in LOOKS.items():
        inner, label = within(part, held_out, cells, look), f"and {name}"
        gained = [
            metrics.pearson(held_out.truth, averaged(held_out.predicted, inner, weight)).mean()
            for weight in WEIGHTS
        ]
        chosen[label] = WEIGHTS[int(np.argmax(gained))]
        predicted[label] = averaged(own, look(part, part, genes), chosen[label])
    return Fold(held=held, predicted=predicted, chosen=chosen)


def section(name: str, seed: int) -> str:
    pair = _panel_alone(pair_of(name))
    splits = _splits(len(pair.shared_genes), pair.st.n_cells, "genes", folds=5, keep=0.8)
    folds = [fold_of(pair, split.held, seed) for split in splits]
    truth, rows = pair.st.dense(slice(None), pair.st_shared), {}
    for label in folds[0].predicted:
        values = np.zeros_like(truth)
        for fold in folds:
            values[:, fold.held] = fold.predicted[label]
        scores = {score: np.nanmedian(getattr(metrics, score)(truth, values)) for score in SCORES}
        scores["pearson, mean"] = np.nanmean(metrics.pearson(truth, values))
        scores["mse, mean"] = metrics.mse(truth, values).mean()
        scores["pearson of cells"] = np.nanmedian(metrics.pearson(truth.T.copy(), values.T.copy()))
        rows[label] = scores
    text = f"## {name}\n\n{markdown(pd.DataFrame(rows).T)}\n\n"
    for label in folds[0].chosen:
        text += f"{label}: {', '.join(f'{fold.chosen[label]:g}' for fold in folds)}; "
    print(text, flush=True)
    return text.removesuffix("; ") + ".\n\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    everything = ["osmfish", "hypothalamus-plain", "starmap", "molcart", "pdac, spots as reference"]
    parser.add_argument("pairs", nargs="*", default=everything)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    text = "# The share of learned levels, and second looks at the reference\n\n"
    text += (
        "Medians over held-out genes (or cells) of five folds, where not said otherwise. `share chosen` is "
    )
    text += "the default. The choices of the outer folds are below each table.\n\n"
    for name in asked.pairs:
        text += section(name, asked.seed)
    write("level_share", text, seeds=[asked.seed], protocol="cut")


if __name__ == "__main__":
    main()
