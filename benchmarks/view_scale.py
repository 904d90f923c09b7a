"""Time and memory of the server of `cellweft view`, from its start to a comparison.

Results like those written by `cellweft impute`, with 58 % zeros, are made once in the folder: all 77 held-out
genes of the tonsil's shape (`scale_data`) in many cells, and 5,000 genes in fewer. A server in a separate
process is queried over loopback, as by the page; the files are in the system's cache. "of its chunk" is a
gene next to the first one, "of another chunk" one that has not been read yet, "measured" includes waiting for
the single pass over the tissue, which starts with the server. Peak memory is that of the server, Python and
its libraries included.
"""

import argparse
import http.client
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scale_data import cell_names, held_out_genes, tonsil

from common import write

SERVE = """
import re, resource, sys
from pathlib import Path
from cellweft.viewer import view

path, tissue, memory = sys.argv[1:]
with view(path, tissue=tissue or None, memory=memory, open_browser=False, block=False) as viewer:
    print(viewer.port, viewer.token, flush=True)
    sys.stdin.readline()
# Linux counts the process that started this one into its usage, but not here.
status = Path("/proc/self/status")
if status.exists():
    print(1024 * int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]))
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""
BLOCK = 2**14  # cells made at once


def result(folder: Path, n_cells: int, genes: list[str], *, ending: str, layers: bool) -> Path:
    """Return the path of a result, made unless it is there."""
    from cellweft._provenance import SCHEMA_VERSION
    from cellweft.data.io.write import ResultWriter

    path = folder / f"result_{n_cells}x{len(genes)}{'_intervals' if layers else ''}{ending}"
    if path.exists():
        return path
    random = np.random.default_rng(0)
    wide = int(np.ceil(np.sqrt(n_cells)))
    cells = np.arange(n_cells)
    places = 9.0 * (np.column_stack([cells % wide, cells // wide]) + random.uniform(0.1, 0.9, (n_cells, 2)))
    labels = pd.Categorical.from_codes(
        random.integers(0, 14, n_cells), [f"type {one:02d}" for one in range(14)]
    )
    obs = pd.DataFrame(
        {"cell_type": labels, "total_counts": random.gamma(3, 50, n_cells)},
        index=cell_names(1, n_cells + 1).astype(str),
    )
    reliability = random.uniform(0, 1, len(genes))
    var = pd.DataFrame({"measured": False, "reliability": reliability}, index=genes)
    level = random.gamma(2, 0.5, len(genes)).astype(np.float32)
    names = ("lower", "upper") if layers else ()
    tables: dict[str, Any] = {"obs": obs, "var": var, "obsm": {"spatial": places}, "layers": names}
    with ResultWriter(
        path, uns={"cellweft": {"schema_version": SCHEMA_VERSION, "preset": "auto"}}, **tables
    ) as writer:
        for start in range(0, n_cells, BLOCK):
            rows = slice(start, min(start + BLOCK, n_cells))
            values = random.standard_normal((rows.stop - rows.start, len(genes)), dtype=np.float32)
            values = np.maximum(values - np.float32(0.2), 0) * level
            writer.write(rows, slice(0, len(genes)), values)
            for name, factor in zip(names, (0.5, 1.5), strict=False):
                writer.write(rows, slice(0, len(genes)), values * np.float32(factor), layer=name)
    return path


class Session:
    """A server in a separate process, and its response times."""

    def __init__(self, path: Path, tissue: Path | None, memory: str) -> None:
        self.start = time.perf_counter()
        command = [sys.executable, "-c", SERVE, str(path), str(tissue or ""), memory]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        port, token = self.process.stdout.readline().split()
        self.line = http.client.HTTPConnection("127.0.0.1", int(port), timeout=600)
        self.headers = {"Authorization": f"token {token}"}

    def ask(self, path: str, body: bytes | None = None) -> tuple[float, bytes]:
        """Return the seconds a response took, and the response."""
        start = time.perf_counter()
        self.line.request("GET" if body is None else "POST", path, body=body, headers=self.headers)
        reply = self.line.getresponse()
        answer = reply.read()
        if reply.status != 200:
            raise SystemExit(f"{path}: {reply.status} {answer[:300]!r}")
        return time.perf_counter() - start, answer

    def end(self) -> float:
        """End the server and return its peak memory in bytes."""
        self.line.close()
        told, _ = self.process.communicate("\n")
        return float(told)


def measured(path: Path, tissue: Path | None, memory: str) -> dict[str, float | None]:
    """Return the seconds by step and the memory in bytes of one session."""
    session = Session(path, tissue, memory)
    told = json.loads(session.ask("/api/session")[1])["datasets"][0]
    row: dict[str, float | None] = {"session": time.perf_counter() - session.start}
    names = json.loads(session.ask("/api/datasets/0/genes")[1])["names"]

    def gene(number: int, layer: str = "imputed") -> float:
        return session.ask(f"/api/datasets/0/values?gene={names[number]}&layer={layer}")[0]

    row["positions"] = session.ask("/api/datasets/0/positions")[0]
    row["first gene"] = gene(0)
    row["gene of its chunk"] = gene(1)
    row["gene of another chunk"] = gene(len(names) - 1) if len(names) > 256 else None
    has_tissue, has_bounds = ("measured" in told["layers"], "uncertainty" in told["layers"])
    row["measured"] = gene(1, "measured") if has_tissue else None
    row["next measured"] = gene(2, "measured") if has_tissue else None
    row["uncertainty"] = gene(0, "uncertainty") if has_bounds else None
    inside = np.arange(told["cells"]) < told["cells"] // 10
    row["compare"] = session.ask("/api/datasets/0/compare", np.packbits(inside, bitorder="little").tobytes())[
        0
    ]
    row["peak memory"] = session.end()
    return row


def shown(name: str, value: float | None) -> str:
    """Return a figure as formatted for the table."""
    if value is None:
        return ""
    if name == "peak memory":
        return f"{value / 1e9:.2f} GB"
    return f"{value:.2f} s" if value >= 0.1 else f"{1000 * value:.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("scale"), help="where the tonsil lies or is made")
    parser.add_argument("--results", type=Path, default=Path("scale"), help="where results are made")
    parser.add_argument("--many", type=int, default=1_000_000, help="cells with few genes")
    parser.add_argument("--fewer", type=int, default=100_000, help="cells with many genes")
    parser.add_argument("--memory", default="512 MB")
    parser.add_argument("--repeats", type=int, default=3, help="sessions, of which the median is reported")
    arguments = parser.parse_args()
    arguments.results.mkdir(parents=True, exist_ok=True)
    few, many = held_out_genes()[1], [f"GENE{number:05d}" for number in range(5000)]
    rows = {}
    for n_cells, genes, ending, with_tissue in (
        (arguments.fewer, many, ".zarr", False),
        (arguments.fewer, many, ".h5ad", False),
        (arguments.fewer, few, ".zarr", True),
        (arguments.many, few, ".zarr", False),
        (arguments.many, few, ".h5ad", False),
        (arguments.many, few, ".zarr", True),
    ):
        path = result(arguments.results, n_cells, genes, ending=ending, layers=with_tissue)
        tissue = tonsil(arguments.folder, n_cells)[1] if with_tissue else None
        every = [measured(path, tissue, arguments.memory) for _ in range(arguments.repeats)]
        told = f"{n_cells:,} x {len(genes):,}, {ending[1:]}" + (
            " with intervals and tissue" if tissue else ""
        )
        rows[told] = {
            name: None if value is None else float(np.median([one[name] for one in every]))
            for name, value in every[0].items()
        }
        print(told, {name: shown(name, one) for name, one in rows[told].items()}, flush=True)
    names = list(next(iter(rows.values())))
    lines = ["| cells x genes, file | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|"]
    lines += [
        f"| {told} | " + " | ".join(shown(name, row[name]) for name in names) + " |"
        for told, row in rows.items()
    ]
    load = f"load of the machine at the end {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    text = f"Median of {arguments.repeats} sessions; `memory` {arguments.memory}; {load}.\n\n"
    text += "\n".join(lines)
    write("view_scale", "# The server of `cellweft view`\n\n" + text)


if __name__ == "__main__":
    main()
