"""Accuracy, time and peak memory of placing the embryo's cells on the paper's own pseudo-spots."""

import argparse
import tempfile
from pathlib import Path

import pandas as pd

from common import cellweft, markdown, summary, write

SC, ST = "embryo_benchmark_sc.h5ad", "embryo_benchmark_st.h5ad"
TRUTH = [
    "--truth",
    "obs:x_global,y_global",
    "--truth-composition",
    "obsm:celltype_prop",
    "--caught",
    "boxes",
    "--hits",
    "25,120",
]
METHODS = [
    "auto",
    "stem",
    "stem:dropout=0.3+dropout_rescale=false",
    "cosine",
    "knn-regression",
    "random",
    "centre",
    "nnls",
]
WANTED = [
    ("all cells", "location_error_mean"),
    ("all cells", "location_error_median"),
    ("all cells", "hits@25"),
    ("all cells", "hits@120"),
    ("all cells", "hits_embedding@25"),
    ("all cells", "hits_embedding@120"),
    ("caught cells", "location_error_mean_caught"),
    ("caught cells", "location_error_median_caught"),
    ("uncaught cells", "location_error_mean_uncaught"),
    ("uncaught cells", "location_error_median_uncaught"),
    ("all types", "celltype_pcc"),
    ("14 most frequent types", "celltype_pcc@14"),
    ("major types", "celltype_pcc"),
    ("moderate types", "celltype_pcc"),
    ("rare types", "celltype_pcc"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "scores.csv"
        command = ["evaluate", SC, ST, "-o", str(output), "--by", "place", *TRUTH]
        command += ["--methods", ",".join(METHODS), "--seeds", ",".join(map(str, range(asked.seeds)))]
        run = cellweft([*command, "--quiet"])
        table = pd.read_csv(output)
        alone = {}
        for preset in ("auto", "stem"):
            placed = str(Path(folder) / f"{preset}.h5ad")
            alone[preset] = cellweft(["place", SC, ST, "-o", placed, "--preset", preset, "--quiet"])
    text = "# Placing the embryo's cells on the paper's pseudo-spots\n\n"
    text += f"Mean of {asked.seeds} seed(s); errors in the units of `x_global`.\n\n"
    text += f"{markdown(summary(table, WANTED))}\n\n## Every seed\n\n"
    for seed in range(asked.seeds):
        one = table[(table["seed"] == seed) & table["method"].str.startswith(("auto", "stem"))]
        text += f"Seed {seed}:\n\n{markdown(summary(one, WANTED))}\n\n"
    text += (
        f"    {run.command}\n\n## Time and memory of `cellweft place`, including outputs and neighbours\n\n"
    )
    for preset, one in alone.items():
        text += f"- `{preset}`: {one.seconds:.0f} s, peak memory {one.peak_bytes / 1e6:.0f} MB\n"
    write("place_embryo", text, seeds=range(asked.seeds))


if __name__ == "__main__":
    main()
