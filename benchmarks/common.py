"""What all benchmarks share: the real pairs, and running and measuring a command."""

import os
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from cellweft._provenance import versions

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DATA = Path(os.environ.get("CELLWEFT_SHARED_DATA", ROOT.parent / "shared" / "data"))

# reference, spatial data, options
PAIRS = {
    "osmfish": ("osmfish_ref_allen_ssp_sc33.h5ad", "osmfish_benchmark_st.h5ad", []),
    "hypothalamus": (
        "hypo_ref_10x_sc134.h5ad",
        "hypo_merfish_animal1_bregma-0.29_st.h5ad",
        ["--size-factor", "nUMI_all_genes"],
    ),
    "hypothalamus-plain": ("hypo_ref_10x_sc134.h5ad", "hypo_merfish_animal1_bregma-0.29_st.h5ad", []),
    "starmap": ("mop_ref_10x_sc500.h5ad", "visp_starmap1020_st.h5ad", []),
}
EMBEDDING = "esm2_gene_embeddings.h5ad"
PARTS = ("cellweft", "python", "anndata", "numpy", "scipy", "scikit-learn", "torch")
"""Packages whose versions are given at the head of a table."""


@dataclass
class Run:
    """A command that was run, as a user would type it, with its time and memory."""

    command: str
    seconds: float
    peak_bytes: int  # largest process of the command, Python and its libraries included


def cellweft(arguments: list[str]) -> Run:
    """Run the ``cellweft`` command in the data folder, measuring the whole process."""
    command = [sys.executable, "-m", "cellweft", *arguments]
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=DATA)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    factor = 1 if sys.platform == "darwin" else 1024
    shown = " ".join("OUTPUT.csv" if str(one).endswith(".csv") else str(one) for one in arguments)
    return Run(command=f"cellweft {shown}", seconds=seconds, peak_bytes=usage.ru_maxrss * factor)


def evaluate(pair: str, methods: list[str], output: Path, *options: str) -> tuple[pd.DataFrame, Run]:
    """Run ``cellweft evaluate`` on a real pair; return its tidy table and the run."""
    sc, st, own = PAIRS[pair]
    run = cellweft(
        [
            "evaluate",
            sc,
            st,
            "-o",
            str(output),
            "--methods",
            ",".join(methods),
            *own,
            *options,
            "--overwrite",
            "--quiet",
        ]
    )
    return pd.read_csv(output), run


def summary(table: pd.DataFrame, wanted: list[tuple[str, str]]) -> pd.DataFrame:
    """Return the mean over seeds of some (item, metric) of the summary rows, a row per method in order."""
    rows = table[table["level"] == "summary"].set_index(["item", "metric"]).sort_index(kind="stable")
    columns = {
        f"{metric}, {item}": rows.loc[[(item, metric)]].groupby("method", sort=False)["value"].mean()
        for item, metric in wanted
        if (item, metric) in rows.index
    }
    return pd.DataFrame(columns)


def markdown(table: pd.DataFrame) -> str:
    """Return a table as Markdown, numbers to three digits."""
    head = ["method", *map(str, table.columns)]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for name, row in table.iterrows():
        lines.append("| " + " | ".join([str(name), *(f"{value:.3f}" for value in row)]) + " |")
    return "\n".join(lines)


def write(name: str, text: str, *, seeds: Iterable[int] | None = None, protocol: str = "") -> None:
    """Write a result to the results folder, with its provenance below the title.

    Parameters
    ----------
    name
        File name without its extension.
    text
        Markdown that begins with the title.
    seeds
        Seeds of the methods, if any.
    protocol
        How genes were held out, as `cellweft.evaluate_imputation` names it; empty where none were.
    """
    RESULTS.mkdir(exist_ok=True)
    title, _, body = text.partition("\n")
    path = RESULTS / f"{name}.md"
    head = "\n".join(f"- {line}" for line in head_lines(seeds=seeds, protocol=protocol))
    path.write_text(f"{title}\n\n{head}\n\n{body.strip()}\n")
    print(f"wrote {path}")


def head_lines(*, seeds: Iterable[int] | None, protocol: str) -> list[str]:
    """Return the head of every table: command, date, versions, machine, seeds, protocol."""
    typed = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    found = versions()
    said = ", ".join(f"{part} {found[part]}" for part in PARTS if part in found)
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    lines = [
        f"made: {datetime.now(UTC):%Y-%m-%d} by `python benchmarks/{typed}`",
        f"versions: {said}",
        f"machine: {os.cpu_count()} cores (threads: {threads})",
    ]
    if seeds is not None:
        lines.append(f"seeds: {', '.join(map(str, seeds))}")
    return lines + [f"held-out genes: protocol `{protocol}`"] * bool(protocol)


def peak_of_this_process() -> int:
    """Return the peak memory of this process in bytes."""
    factor = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * factor
