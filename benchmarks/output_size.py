"""Size of a result on disk, dense and sparse, and the accuracy lost by leaving out small values.

Sizes and times are of imputed genes of the Xenium tonsil's shape (`scale_data`), written by
`cellweft.Imputer.impute_to` in every form in turn; the shorter of two times is used. Accuracy is that of
held-out genes, as predicted and with small values left out: of real pairs every gene of the panel is
predicted without it, a fifth of them at a time; of the tonsil's shape these are the 77 that are off the
panel.
"""

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scale_data import held_out_genes, tonsil

from common import DATA, PAIRS, write

CUTS = (0.01, 0.05, 0.1)
FORMS: dict[str, dict[str, Any]] = {
    "dense, float32": {},
    "dense, float16": {"dtype": "float16"},
    "sparse, zeros left out": {"sparse": 0.0},
    **{f"sparse, from {cut:g}": {"sparse": cut} for cut in CUTS},
    "sparse, from 0.05, float16": {"sparse": 0.05, "dtype": "float16"},
}
FOLDS = 5


def size_of(path: Path) -> int:
    """Return the bytes of the matrix in a store."""
    return sum(one.stat().st_size for one in (path / "X").rglob("*") if one.is_file())


def sizes(folder: Path, n_cells: int, n_genes: int, preset: str) -> pd.DataFrame:
    """Write results in all forms, and return the size and time of each, a row per form."""
    import cellweft

    pair = cellweft.pair(*tonsil(folder, n_cells)).panel(held_out_genes()[0])
    genes = list(pair.sc.genes[:n_genes])
    imputer = cellweft.Imputer(preset=preset, reliability=False, device="cpu").fit(pair)
    seconds: dict[str, list[float]] = {form: [] for form in FORMS}
    path, rows, whole = folder / "size.zarr", {}, np.empty(0)
    for turn in range(2):
        for form, options in FORMS.items():
            start = time.perf_counter()
            imputer.impute_to(path, genes=genes, overwrite=True, **options)
            seconds[form].append(time.perf_counter() - start)
            if turn:
                continue
            values = anndata.read_zarr(path).X
            values = values.toarray() if sp.issparse(values) else values.astype(np.float32)
            whole = values if form == "dense, float32" else whole
            rows[form] = {
                "bytes per value": f"{size_of(path) / values.size:.2f}",
                "values kept": f"{np.mean(values != 0):.0%}",
                "as planned": "",
                "largest and mean change": f"{np.abs(whole - values).max():.2g}, "
                f"{np.abs(whole - values).mean():.4f}",
            }
            if "sparse" in options:
                kept = imputer.plan(genes, sparse=options["sparse"]).kept
                rows[form]["as planned"] = f"{kept:.0%}"
    shutil.rmtree(path)
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.assign(seconds=[f"{min(seconds[form]):.1f}" for form in table.index])


def real_pair(name: str) -> Any:
    """Return a real pair."""
    import cellweft

    sc, st, options = PAIRS[name]
    return cellweft.pair(DATA / sc, DATA / st, **({"size_factor": options[1]} if options else {}))


def planned(name: str, preset: str) -> dict[str, str]:
    """Return the share of all genes' values that are kept from 0.05 on, as planned and as predicted."""
    import cellweft

    pair = real_pair(name)
    imputer = cellweft.Imputer(preset=preset, reliability=False, device="cpu").fit(pair)
    cells = np.unique(np.linspace(0, pair.st.n_cells - 1, 1000).astype(int))
    found = imputer.predict(pair.sc.genes, pair.cells(cells))
    kept = imputer.plan(sparse=0.05).kept
    return {"genes": str(pair.sc.n_genes), "planned": f"{kept:.0%}", "kept": f"{np.mean(found >= 0.05):.0%}"}


def held_out(name: str, preset: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return measured genes of a pair, and the prediction of each without it, cells x genes."""
    import cellweft

    if name == "tonsil":
        whole = cellweft.pair(*tonsil(folder, 10_000))
        held_by = [np.isin(whole.shared_genes, held_out_genes()[1])]
    else:
        whole = real_pair(name)
        held_by = [np.arange(len(whole.shared_genes)) % FOLDS == fold for fold in range(FOLDS)]
    predicted = np.zeros((whole.st.n_cells, len(whole.shared_genes)), dtype=np.float32)
    for held in held_by:
        part = whole.hold_out(whole.shared_genes[held])
        imputer = cellweft.Imputer(preset=preset, reliability=False, device="cpu").fit(part)
        predicted[:, held] = imputer.predict(whole.shared_genes[held], part)
    scored = np.any(held_by, axis=0)
    return whole.st.dense(slice(None), whole.st_shared[scored]), predicted[:, scored]


def accuracy(name: str, preset: str, folder: Path) -> pd.DataFrame:
    """Return scores of held-out genes with small values left out, a row per threshold."""
    from cellweft.evaluate.metrics import mse, pearson, spearman

    truth, predicted = held_out(name, preset, folder)
    rows = {}
    for cut in (None, *CUTS):
        kept = predicted if cut is None else np.where(predicted >= cut, predicted, 0)
        before, after = pearson(truth, predicted), pearson(truth, kept)
        rows[f"{name}, {preset}, " + ("all values" if cut is None else f"from {cut:g}")] = {
            "values kept": f"{np.mean(kept != 0):.0%}",
            "Pearson": f"{np.median(after):.4f}",
            "Spearman": f"{np.median(spearman(truth, kept)):.4f}",
            "MSE": f"{np.mean(mse(truth, kept)):.5f}",
            "loss of Pearson, mean and largest of a gene": f"{np.mean(before - after):.4f}, "
            f"{np.max(before - after):.3f}",
            "loss of Spearman": f"{np.mean(spearman(truth, predicted) - spearman(truth, kept)):.4f}",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def markdown(table: pd.DataFrame, head: str) -> str:
    """Return a table of texts as Markdown."""
    lines = [f"| {' | '.join([head, *table.columns])} |", "| --- " * (1 + table.shape[1]) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in table.itertuples())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=Path("scale"), help="where data lie, results are tried"
    )
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--genes", type=int, default=2_000)
    parser.add_argument("--pairs", default="osmfish,hypothalamus,tonsil", help="between commas")
    arguments = parser.parse_args()
    parts = [f"# Size of a result\n\n{arguments.genes:,} genes in {arguments.cells:,} cells."]
    for preset in ("auto", "stimpute"):
        table = sizes(arguments.folder, arguments.cells, arguments.genes, preset)
        parts += [f'`preset="{preset}"`:', markdown(table, "form")]
    parts.append(
        "## Accuracy lost by leaving out small values\n\nMedians over held-out genes (MSE: mean), each "
        "predicted without its own values."
    )
    for name in arguments.pairs.split(","):
        tables = [accuracy(name, preset, arguments.folder) for preset in ("auto", "stimpute")]
        parts.append(markdown(pd.concat(tables), "pair, preset, values"))
    parts.append("All genes of the reference, from 0.05:")
    rows = {
        f"{name}, {preset}": planned(name, preset)
        for name in arguments.pairs.split(",")
        if name in PAIRS
        for preset in ("auto", "stimpute")
    }
    parts.append(markdown(pd.DataFrame.from_dict(rows, orient="index"), "pair, preset"))
    write("output_size", "\n\n".join(parts), protocol="cut")


if __name__ == "__main__":
    main()
