"""Costs and savings of half precision: attention in bfloat16 compared with float32, on held-out genes.

One fold of each real pair is fitted once and predicted in both precisions; for data of the Xenium tonsil's
shape (`scale_data`), the held-out genes of some cells. Times are of predicting alone, alternating between
both in one process.
"""

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scale_data import held_out_genes, tonsil

from common import DATA, PAIRS, markdown, write


def both(part: Any, whole: Any, held: np.ndarray) -> dict[str, float]:
    """Fit a panel, and predict other genes in either precision."""
    import cellweft
    from cellweft.evaluate.metrics import pearson

    imputer = cellweft.Imputer(reliability=False, device="cpu").fit(part)
    fitted = imputer.fitted_
    order = np.argsort(whole.shared_genes)
    columns = whole.st_shared[order[np.searchsorted(whole.shared_genes, held, sorter=order)]]
    truth, row = whole.st.dense(slice(None), columns), {}
    genes, found = part.find_genes(held), {}
    for precision in ("float32", "bfloat16"):
        settings = dataclasses.replace(fitted.settings, precision=precision)
        model = dataclasses.replace(fitted.model, settings=settings)
        predictor = dataclasses.replace(fitted.attending, model=model).prepare(genes)
        measured = part.st.dense(slice(None), part.st_shared)
        predictor.values(measured[:500])
        start = time.perf_counter()
        found[precision] = predictor.values(measured)
        row[f"{precision}, s"] = time.perf_counter() - start
        row[f"Pearson, {precision}"] = float(np.nanmedian(pearson(truth, found[precision])))
    row["mean change of a value"] = float(np.abs(found["bfloat16"] - found["float32"]).mean())
    return row


def main() -> None:
    import cellweft

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("scale"), help="where the simulated data lie")
    arguments = parser.parse_args()
    rows = {}
    for name in ("osmfish", "hypothalamus-plain", "starmap"):
        whole = cellweft.pair(*(DATA / one for one in PAIRS[name][:2]))
        held = whole.shared_genes[::5]
        rows[name] = both(whole.hold_out(held), whole, held)
    whole = cellweft.pair(*tonsil(arguments.folder, 100_000)).cells(np.arange(20_000))
    held = np.array(held_out_genes()[1])
    rows["tonsil, 20,000 cells"] = both(whole.hold_out(held), whole, held)
    write("precision", "# Half precision\n\n" + markdown(pd.DataFrame(rows).T), protocol="cut")


if __name__ == "__main__":
    main()
