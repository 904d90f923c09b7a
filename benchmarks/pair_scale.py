"""Time per stage and peak memory of ``cellweft.pair`` over files, as the spatial cells grow in number.

Every size is opened, checked and then read by a separate process, whose peak memory includes Python and its
libraries. Seconds are processor time, which depends little on other work on the machine; the stages are timed
where they are called, and their sum is less than the total.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pandas as pd

from scale_data import FORMS, tonsil

from common import peak_of_this_process, write

STAGES = {
    "open": ["cellweft.data._pair.open_input"],
    "names": ["cellweft.data._pair.check_cells"],
    "coordinates": ["cellweft.data._pair.find_coordinates"],
    "labels": ["cellweft.data._pair.find_labels", "cellweft.data._pair.find_slices"],
    "values": ["cellweft.data._pair.make_side"],
    "spacing": ["cellweft.data._pair.spot_spacing"],
    "summary": ["cellweft.data._pair.findings_of", "cellweft.data._pair.cautions_of"],
}


def timed(name: str, place: str, spent: dict[str, float]) -> None:
    """Time a function of a module from now on."""
    module, _, attribute = place.rpartition(".")
    function = getattr(sys.modules[module], attribute)

    def run(*positional: Any, **named: Any) -> Any:
        start = time.process_time()
        try:
            return function(*positional, **named)
        finally:
            spent[name] += time.process_time() - start

    setattr(sys.modules[module], attribute, run)


def measure(sc_path: str, st_path: str) -> dict[str, float]:
    """Make a pair, load the reference by gene, read the panel of all cells, and return the time of each."""
    import cellweft.data._pair
    from cellweft.data.gene_major import GeneColumns

    spent: dict[str, float] = defaultdict(float)
    before = peak_of_this_process()
    for name, places in STAGES.items():
        for place in places:
            timed(name, place, spent)
    start, clock = time.process_time(), time.perf_counter()
    pair = cellweft.pair(sc_path, st_path)
    found = {f"{name}, s": spent[name] for name in STAGES}
    found |= {"pair, s": time.process_time() - start, "pair by the clock, s": time.perf_counter() - clock}
    peak, held = peak_of_this_process(), resident()
    start = time.process_time()
    columns = GeneColumns.load(pair.sc)
    loading = time.process_time() - start
    loaded = peak_of_this_process()
    start = time.process_time()
    for first in range(0, pair.st.n_cells, 25_000):
        pair.st.block(slice(first, min(first + 25_000, pair.st.n_cells)), pair.st_shared)
    found |= {
        "imports, MB": before / 1e6,
        "pair peak, MB": peak / 1e6,
        "held after, MB": held / 1e6,
        "reference by gene, s": loading,
        "size of this copy, MB": columns.nbytes / 1e6,
        "peak with this copy, MB": loaded / 1e6,
        "all blocks, s": time.process_time() - start,
        "peak at the end, MB": peak_of_this_process() / 1e6,
    }
    return found


def resident() -> float:
    """Return the current memory of this process in bytes; NaN where it is unknown."""
    status = Path("/proc/self/statm")
    return (
        int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else float("nan")
    )


def table(rows: dict[str, dict[str, float]]) -> str:
    """Return sizes as columns, what was measured as rows."""
    found = pd.DataFrame(rows)
    lines = ["| " + " | ".join(["", *found.columns]) + " |", "| --- " * (1 + found.shape[1]) + "|"]
    for name, row in found.iterrows():
        shown = [f"{value:.2f}" if str(name).endswith(", s") else f"{value:,.0f}" for value in row]
        lines.append("| " + " | ".join([str(name), *shown]) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder", type=Path, nargs="?", help="where the simulated files lie or are to be made"
    )
    parser.add_argument("--cells", type=int, nargs="*", default=[1_000_000, 4_000_000])
    parser.add_argument("--form", choices=FORMS, default="h5ad")
    parser.add_argument("--compression", choices=["gzip", "lzf", "none"], default="gzip")
    parser.add_argument("--name", default="pair_scale", help="of the table that is written")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(*asked.measure)))
        return
    compression = None if asked.compression == "none" else asked.compression
    rows = {}
    for n_cells in asked.cells:
        paths = tonsil(asked.folder, n_cells, form=asked.form, compression=compression)
        command = [sys.executable, __file__, "--measure", *map(str, paths)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows[f"{n_cells:,} cells"] = json.loads(said.splitlines()[-1])
        print(table(rows), flush=True)
    text = f"# `cellweft.pair` as the cells grow ({asked.form}, {asked.compression})\n\n{table(rows)}\n"
    write(asked.name, text)


if __name__ == "__main__":
    main()
