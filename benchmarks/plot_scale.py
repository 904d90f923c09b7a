"""Time and file size of plots and reports of very many cells, drawn as pixels and as dots.

Results as `cellweft impute` writes them are made once in the folder (`view_scale`). A case is one picture,
from the path of the result to the saved file: reading, drawing, saving, as the median of three; the files are
in the system's cache. Above 200,000 cells pixels are drawn, below that dots. The report is that of the same
result, made once.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from scale_data import held_out_genes
from view_scale import result

from common import write

COLOURS = {"cell types": "cell_type", "a column of numbers": "total_counts", "a gene": ""}
KINDS = {"pixels": 0, "dots": 10**9}  # number of cells up to which dots are drawn


def drawn(path: Path, color: str, *, most_dots: int, file: Path) -> tuple[float, int]:
    """Return the seconds of a picture and the bytes of its file."""
    from matplotlib import pyplot

    import cellweft

    start = time.perf_counter()
    axes: Any = cellweft.pl.spatial(path, color, most_dots=most_dots)
    axes.figure.savefig(file)
    pyplot.close(axes.figure)
    return time.perf_counter() - start, file.stat().st_size


def reported(path: Path, file: Path) -> str:
    """Return time and size of the report of a result, as a row of the table."""
    import cellweft

    start = time.perf_counter()
    cellweft.report(file, path)
    seconds, size = time.perf_counter() - start, file.stat().st_size
    file.unlink()
    return f"{seconds:.1f} s | {size / 1e3:,.0f} kB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("scale"), help="where results are made")
    parser.add_argument("--cells", type=int, nargs="+", default=[100_000, 1_000_000])
    arguments = parser.parse_args()
    matplotlib.use("agg")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    genes = held_out_genes()[1]
    reports = ["| cells | report | |", "| --- " * 3 + "|"]
    lines = ["| cells | coloured by | drawn as | PNG | | PDF | |", "| --- " * 7 + "|"]
    for n_cells in arguments.cells:
        path = result(arguments.folder, n_cells, genes, ending=".zarr", layers=False)
        for said, color in COLOURS.items():
            for kind, most_dots in KINDS.items():
                found = []
                for ending in ("png", "pdf"):
                    file = arguments.folder / f"plot.{ending}"
                    times = [drawn(path, color or genes[0], most_dots=most_dots, file=file) for _ in range(3)]
                    found.append(
                        f"{np.median([one for one, _ in times]):.2f} s | {times[-1][1] / 1e3:,.0f} kB"
                    )
                    file.unlink()
                lines.append(f"| {n_cells:,} | {said} | {kind} | {' | '.join(found)} |")
                print(lines[-1], flush=True)
        reports.append(f"| {n_cells:,} | {reported(path, arguments.folder / 'report.html')} |")
    write("plot_scale", "# Plots of very many cells\n\n" + "\n".join([*lines, "", *reports]))


if __name__ == "__main__":
    main()
