"""Whether training on a sample of the cells is enough: accuracy and time by the number of cells drawn.

Data of the Xenium tonsil's shape (`scale_data`): a model is fitted to 300 genes of the panel, and predicts
the 77 that were held out in the last cells. stImpute also with early stopping (`patience`).
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scale_data import held_out_genes, tonsil

from common import markdown, write

SIZES = (2_000, 20_000, 80_000)
JUDGED = 20_000


def scores(imputer: Any, part: Any, truth: np.ndarray, held: list[str]) -> dict[str, float]:
    """Return medians over the held-out genes, in the last cells."""
    from cellweft.evaluate.metrics import cosine, mse, pearson

    predicted = imputer.predict(held, part.cells(last_cells(part)))
    found = {"Pearson": pearson, "cosine": cosine, "MSE": mse}
    return {name: float(np.nanmedian(score(truth, predicted))) for name, score in found.items()}


def last_cells(pair: Any) -> np.ndarray:
    return np.arange(pair.st.n_cells - JUDGED, pair.st.n_cells)


def main() -> None:
    import cellweft

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("scale"), help="where the data lie")
    parser.add_argument("--cells", type=int, default=100_000)
    arguments = parser.parse_args()
    whole = cellweft.pair(*tonsil(arguments.folder, arguments.cells))
    _, held = held_out_genes()
    part = whole.hold_out(held)
    order = np.argsort(whole.st.genes)
    columns = order[np.searchsorted(whole.st.genes, held, sorter=order)]
    truth = whole.st.dense(last_cells(whole), columns)
    rows: dict[str, dict[str, float]] = {}
    for preset in ("auto", "stimpute"):
        plans: list[dict[str, int]] = [{"training_cells": size} for size in SIZES]
        plans += [{"training_cells": SIZES[1], "patience": 3}] if preset == "stimpute" else []
        for settings in plans:
            start = time.perf_counter()
            imputer = cellweft.Imputer(preset=preset, settings=settings, reliability=False, device="cpu").fit(
                part
            )
            seconds = time.perf_counter() - start
            name = f"{preset}, {settings['training_cells']:,} cells" + (
                ", early stopping" if "patience" in settings else ""
            )
            rows[name] = scores(imputer, part, truth, held) | {"fit, s": seconds}
            print(name, rows[name], flush=True)
    text = "# Training on a sample of the cells\n\n" + markdown(pd.DataFrame(rows).T)
    write("training_size", text + f"\n\nOf {arguments.cells:,} cells; medians over 77 held-out genes.")


if __name__ == "__main__":
    main()
