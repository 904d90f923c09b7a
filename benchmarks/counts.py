"""Imputed counts of held-out genes: the mean counts of `auto` and of baselines, and draws of counts.

Held-out genes as published: KFold(5, shuffle, random_state=0) over the sorted shared genes, removed before
anything else is done. A baseline's counts are expm1 of its prediction times the cell's total of the remaining
genes. Draws are assessed twice: around mean counts that are scaled to each gene's own mean, by their variance
and their share of zeros; and unscaled, by whether nine in ten measured counts lie within their interval. The
last line is the share of draws within their own interval, which is above 0.9 because many draws equal its
bounds: counts are whole numbers, mostly 0. Each fold is kept in a folder, so that an interrupted run can be
resumed.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold

import cellweft
from cellweft import metrics
from cellweft.data.side import relative_sizes
from cellweft.evaluate.imputation_baselines import attention, knn

from common import DATA, PAIRS, markdown, write

MORE = {"molcart": ("mop_ref_10x_sc500.h5ad", "cortex_molcart100_st.h5ad", [])}
NAMES = ["osmfish", "hypothalamus-plain", "starmap", "molcart"]
DRAWS = 60


def one_fold(name: str, fold: int, seed: int, kept: Path) -> dict[str, np.ndarray]:
    """Return counts of the held-out genes of a fold, measured, predicted and drawn."""
    path = kept / f"{name}, {fold}, {seed}.npz"
    if not path.exists():
        sc, st, options = (PAIRS | MORE)[name]
        pair = cellweft.pair(DATA / sc, DATA / st, size_factor=options[1] if options else None)
        held = list(KFold(5, shuffle=True, random_state=0).split(pair.shared_genes))[fold][1]
        genes = pair.shared_genes[held]
        panel = pair.hold_out(genes)
        imputer = cellweft.Imputer(seed=seed).fit(panel, progress=False)
        found = imputer.impute(genes, scale="counts", interval=0.9, progress=False)[:, list(genes)]
        sizes, places = relative_sizes(panel.st)[:, None], panel.find_genes(genes)
        stored = pair.st.stored(slice(0, pair.st.n_cells), pair.st_shared[held])
        model = imputer.fitted_.count_model
        draws = cellweft.tl.multiple_imputations(
            imputer, genes, n=DRAWS, scale="counts", seed=seed, progress=False
        )
        drawn = np.sort([np.asarray(one[:, list(genes)].X) for one in draws], axis=0)
        truth = np.asarray(stored.toarray() if hasattr(stored, "toarray") else stored)
        own = np.asarray(found.X, dtype=np.float64)
        own *= truth.mean(axis=0) / own.mean(axis=0)
        values = {
            "truth": truth,
            "auto": np.asarray(found.X),
            "auto, expm1 x total": np.expm1(imputer.predict(genes, panel)) * sizes,
            "attention x total": np.expm1(attention(panel, panel, places)) * sizes,
            "knn x total": np.expm1(knn(panel, panel, places)) * sizes,
            "attention": np.expm1(attention(panel, panel, places)),
            "lower": found.layers["lower"],
            "upper": found.layers["upper"],
            "drawn lower": drawn[round(0.05 * DRAWS)],
            "drawn upper": drawn[-1 - round(0.05 * DRAWS)],
            "own inside": (
                (drawn >= drawn[round(0.05 * DRAWS)]) & (drawn <= drawn[-1 - round(0.05 * DRAWS)])
            ).mean(axis=0),
            "drawn": model.draw(own, generator=np.random.default_rng(seed), own_level=True),
            "family": np.full(truth.shape[1], model.name),
        }
        np.savez_compressed(path.with_suffix(".partial.npz"), **values)
        path.with_suffix(".partial.npz").rename(path)
        print(f"{name}, fold {fold}, seed {seed}", flush=True)
    return dict(np.load(path))


def score(name: str, seed: int, kept: Path, folds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return Pearson correlations of mean counts, and how well calibrated draws and intervals are."""
    parts = [one_fold(name, fold, seed, kept) for fold in range(folds)]
    every = {key: np.concatenate([part[key] for part in parts], axis=-1) for key in parts[0]}
    truth, drawn = every["truth"], every["drawn"]
    means = [key for key in every if key.startswith(("auto", "attention", "knn"))]
    pearson = {key: float(np.median(metrics.pearson(truth, every[key]))) for key in means}
    level = np.abs(np.log(every["auto"].mean(axis=0) / truth.mean(axis=0)))
    plain = np.abs(np.log(every["auto, expm1 x total"].mean(axis=0) / truth.mean(axis=0)))
    zeros = (truth == 0).mean(axis=0)
    families, number = np.unique(every["family"], return_counts=True)
    slack = 1e-3 * (1 + truth)  # bounds went through a logarithm in float32
    inside = (truth >= every["lower"] - slack) & (truth <= every["upper"] + slack)
    drawn_inside = (truth >= every["drawn lower"]) & (truth <= every["drawn upper"])
    fit = {
        "mean off by a factor of": float(np.exp(np.median(level))),
        "expm1 x total, off by": float(np.exp(np.median(plain))),
        "variance of draws / measured": float(np.median(drawn.var(axis=0) / truth.var(axis=0))),
        "zeros of draws / measured": float(
            np.median((drawn == 0).mean(axis=0)[zeros > 0] / zeros[zeros > 0])
        ),
        "inside the 90 % interval": float(inside.mean()),
        "inside 90 % of draws": float(drawn_inside.mean()),
        "draws inside 90 % of draws": float(every["own inside"].mean()),
    }
    print(name, seed, pearson, fit, families[np.argmax(number)], flush=True)
    return pearson, fit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="*", default=NAMES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folds", type=int, default=5, choices=range(1, 6), help="of five; the first ones")
    parser.add_argument("--kept", type=Path, default=Path(tempfile.gettempdir()) / "cellweft-counts")
    asked = parser.parse_args()
    asked.kept.mkdir(parents=True, exist_ok=True)
    pearson, fits = {}, {}
    for name in asked.pairs:
        runs = [score(name, seed, asked.kept, asked.folds) for seed in range(asked.seeds)]
        pearson[name], fits[name] = (pd.DataFrame(one).mean() for one in zip(*runs, strict=True))
    text = (
        "# Counts of held-out genes\n\nPearson correlation on counts, median over genes, mean over seeds:\n\n"
    )
    text += markdown(pd.DataFrame(pearson))
    text += "\n\nLevels, draws and intervals of `auto` (medians over genes; shares over all values):\n\n"
    text += markdown(pd.DataFrame(fits))
    if asked.folds < 5:
        text += f"\n\nOnly {asked.folds} of the 5 folds.\n"
    write("counts", text, seeds=range(asked.seeds), protocol="cut")


if __name__ == "__main__":
    main()
