"""How many shared genes imputing needs: the same held-out genes, predicted from ever smaller panels.

The first fold of the published split is held out; panels are drawn from the other genes at random, and the
smaller ones are subsets of the larger.
"""

import argparse

import numpy as np
import pandas as pd
from sklearn.model_selection import KFold

import cellweft
from cellweft.evaluate.methods import resolve_methods
from cellweft.nn.config import AttentionSettings

from common import DATA, PAIRS, markdown, write

METHODS = ["auto", "knn", "attention:space=log+temperature=0.05"]
BY_CELL = "auto:level_cell_genes=0"  # levels depend on the cell for any panel, not only for 24 genes and more
SIZES = [5, 10, 20, 40, 80]


def held_and_others(pair: cellweft.Pair) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the held-out genes and of those that panels are drawn from."""
    others, held = next(KFold(5, shuffle=True, random_state=0).split(pair.shared_genes))
    return held, others


def scored(pair: cellweft.Pair, method: str, panel: np.ndarray, held: np.ndarray, seed: int) -> pd.Series:
    """Return the medians over the held-out genes, predicted from a panel."""
    small = pair.hold_out(np.delete(pair.shared_genes, panel))
    (found,) = resolve_methods([method])
    predicted = found.make(seed).fit(small).predict(pair.shared_genes[held], small)
    truth = pair.st.dense(slice(0, pair.st.n_cells), pair.st_shared[held])
    scores = {
        name: getattr(cellweft.metrics, name)(truth, predicted) for name in ("pearson", "spearman", "mse")
    }
    return pd.Series({name: np.median(value) for name, value in scores.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pairs", nargs="*", default=["hypothalamus", "starmap"])
    parser.add_argument("--draws", type=int, default=3)
    asked = parser.parse_args()
    text = "# How many shared genes imputing needs\n\n"
    for name in asked.pairs:
        sc, st, options = PAIRS[name]
        pair = cellweft.pair(DATA / sc, DATA / st, size_factor=options[1] if options else None)
        held, others = held_and_others(pair)
        rows: dict[str, pd.Series] = {}
        for size in [*(size for size in SIZES if size < len(others)), len(others)]:
            draws = asked.draws if size < len(others) else 1
            for method in [*METHODS, BY_CELL] if size < AttentionSettings().level_cell_genes else METHODS:
                runs = []
                for draw in range(draws):
                    order = np.random.default_rng(draw).permutation(others)
                    runs.append(scored(pair, method, order[:size], held, seed=draw))
                rows[f"{method}, {size} genes"] = pd.DataFrame(runs).mean()
            print(name, size, flush=True)
        text += f"## {name}\n\n{markdown(pd.DataFrame(rows).T)}\n\n"
    text += f"Medians over the genes of one fold, mean over {asked.draws} draws of the panel (one for the "
    text += "whole panel). Reliability was not learned.\n"
    write("panel_size", text, seeds=range(asked.draws), protocol="cut")


if __name__ == "__main__":
    main()
