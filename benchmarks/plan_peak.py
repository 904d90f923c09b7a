"""Planned and measured peak memory of imputing and placing, at three sizes, with tight budgets.

Every case runs in a separate process. Its budget is the least that the plan needs, plus a margin: the run
must stay within it, and a lower budget must be refused before any work is done.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import peak_of_this_process, write

SIZES = ((1_000, 1_000, 500, 100), (2_000, 2_000, 1_000, 120), (4_000, 3_000, 1_500, 150))
"""Numbers of spatial cells, reference cells, genes, and genes on the panel."""
KINDS = ("auto", "stimpute", "place")
ROOM = 1.1
"""Budget, as a multiple of the least that is needed."""


def make(folder: Path, n_spatial: int, n_reference: int, n_genes: int, n_panel: int) -> None:
    """Write the inputs, in a separate process whose memory does not count towards a case."""
    import cellweft

    made = cellweft.datasets.simulate_tissue(
        n_spatial=n_spatial, n_reference=n_reference, n_genes=n_genes, n_panel=n_panel, seed=1
    )
    made.sc.write_h5ad(folder / "sc.h5ad")
    made.st.write_h5ad(folder / "st.h5ad")


def case(kind: str, folder: Path) -> dict[str, Any]:
    """Run one case in this process, and return planned and measured memory."""
    import cellweft

    pair = cellweft.pair(folder / "sc.h5ad", folder / "st.h5ad")
    if kind == "place":
        placer = cellweft.Placer(settings={"steps": 3, "models": 1})
        least = budget = planned = placer.plan(pair=pair).peak_bytes
        placer.fit(pair, progress=False).place(progress=False)
    else:
        steps = {"auto": ("steps", "fold_steps", "level_steps"), "stimpute": ("epochs", "ae_epochs")}
        imputer = cellweft.Imputer(preset=kind, settings=dict.fromkeys(steps[kind], 2))
        least = least_of(imputer, pair)
        budget = ROOM * least
        planned = imputer.plan(pair=pair, memory=int(budget)).peak_bytes
        imputer.fit(pair, progress=False)
        imputer.impute_to(folder / "out.zarr", memory=int(budget), overwrite=True, progress=False)
    return {"minimum": least, "budget": budget, "planned": planned, "peak": peak_of_this_process()}


def least_of(imputer: Any, pair: Any) -> float:
    """Return the least budget that is accepted, as given by the error message."""
    import cellweft

    try:
        imputer.plan(pair=pair, memory="1 MB")
    except cellweft.errors.MemoryBudgetError as error:
        number, unit = re.search(r"at least ([\d.,]+) (MB|GB)", str(error)).groups()
        return float(number.replace(",", "")) * {"MB": 1e6, "GB": 1e9}[unit]
    raise SystemExit("a budget of 1 MB was not refused")


def run(*words: str) -> str:
    """Run this script in a separate process, and return what it printed."""
    command = [sys.executable, __file__, *words]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def main() -> None:
    """Run all cases, or one, in separate processes, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--make", nargs=5, help="folder, spatial cells, reference cells, genes, panel")
    parser.add_argument("--case", nargs=2, help="kind and folder")
    parser.add_argument("--sizes", type=int, default=len(SIZES), help="the first so many sizes")
    options = parser.parse_args()
    if options.make:
        make(Path(options.make[0]), *map(int, options.make[1:]))
        return
    if options.case:
        print(json.dumps(case(options.case[0], Path(options.case[1]))))
        return
    rows = {}
    for size in SIZES[: options.sizes]:
        with tempfile.TemporaryDirectory() as folder:
            run("--make", folder, *map(str, size))
            for kind in KINDS:
                found = json.loads(run("--case", kind, folder).splitlines()[-1])
                print(kind, size, found, flush=True)
                rows[f"{kind}, {size[0]:,} x {size[1]:,} cells, {size[2]:,} genes"] = found
    write_table(rows)


def write_table(rows: dict[str, dict[str, Any]]) -> None:
    """Write the table of all cases, from what each returned."""
    names = ("minimum", "budget", "planned", "peak")
    heads = [*(f"{name}, MB" for name in names), "peak / planned"]
    lines = ["|  | " + " | ".join(heads) + " |", "| --- " * (len(heads) + 1) + "|"]
    for name, found in rows.items():
        numbers = [f"{found[one] / 1e6:,.0f}" for one in names]
        lines.append(f"| {name} | {' | '.join(numbers)} | {found['peak'] / found['planned']:.2f} |")
    title = "# Planned and measured peak memory\n"
    write("plan_peak", title + "\n".join(lines))


if __name__ == "__main__":
    main()
