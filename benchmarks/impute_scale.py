"""Time, peak memory and throughput of imputing at scale: 77 genes from 300, or thousands of genes.

Data of the Xenium tonsil's shape and sparsity (`scale_data`). Every case runs in a separate process, with a
limit on its address space where one is given; its stages are timed, its peak memory is that of the whole
process, and the planned figures are given for comparison. The machine's matrix-product rate is measured in
the same process, before and after. Each case is stored when it is finished, so that the table can be made in
parts.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from scale_data import held_out_genes, tonsil

from common import peak_of_this_process, write

LIMIT = "4 GB"


def case(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one case in this process, and return its time and memory."""
    start = time.perf_counter()
    import torch

    import cellweft

    rates = [product_rate()]
    told: dict[str, float] = {"import": time.perf_counter() - start}
    last = time.perf_counter()

    def took(stage: str) -> None:
        nonlocal last
        told[stage] = time.perf_counter() - last
        last = time.perf_counter()

    panel, held = held_out_genes()
    pair = cellweft.pair(*arguments.files).panel(panel)
    took("open")
    genes = held if arguments.genes == 77 else list(pair.sc.genes[: arguments.genes])
    imputer = cellweft.Imputer(preset=arguments.preset, reliability=False, device="cpu")
    plan = imputer.plan(genes, pair=pair, memory=LIMIT, sparse=arguments.sparse)
    took("plan")
    imputer.fit(pair)
    took("fit")
    path = imputer.impute_to(
        arguments.output,
        genes=genes,
        memory=LIMIT,
        overwrite=True,
        dtype=arguments.dtype,
        sparse=arguments.sparse,
    )
    took("impute")
    size = sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    peak, virtual = peak_of_this_process(), peak_virtual()
    rates.append(product_rate())
    return {
        "preset": arguments.preset,
        "cells": pair.st.n_cells,
        "genes": len(genes),
        "dtype": arguments.dtype,
        "sparse": arguments.sparse,
        "limit": arguments.virtual,
        "threads": torch.get_num_threads(),
        "stages": told,
        "seconds": sum(told.values()),
        "peak": peak,
        "virtual": virtual,
        "planned_peak": plan.peak_bytes,
        "planned_size": plan.output_bytes,
        "size": size,
        "rate": float(np.mean(rates)),
        "products": products(pair, imputer, len(genes)),
        "pearson": accuracy(arguments.files[1], path, genes) if arguments.genes == 77 else None,
    }


def product_rate() -> float:
    """Return the CPU's current operations per second for matrix products of attention's shape."""
    import torch

    stream = torch.Generator().manual_seed(0)
    left, right = (torch.rand(*size, generator=stream) for size in ((512, 300), (300, 8192)))
    left @ right
    done, start = 0.0, time.perf_counter()
    while (taken := time.perf_counter() - start) < 0.2:
        left @ right
        done += 2.0 * 512 * 300 * 8192
    return done / taken


def peak_virtual() -> int:
    """Return the largest address space of this process, in bytes; 0 where it is unknown."""
    status = Path("/proc/self/status")
    lines = status.read_text().split("\n") if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmPeak")), 0)


def products(pair: Any, imputer: Any, n_genes: int) -> float:
    """Return the operations of the matrix products needed to predict, without any repetition."""
    n_panel = len(pair.shared_genes)
    if imputer.preset == "auto":
        n_keys = imputer.model_.n_keys
        each = n_keys * 2.0 * (n_panel + n_genes) + 4.0 * n_panel**2
    else:
        one = imputer.settings_
        layers = 4.0 * one.k**2 * (n_panel + 2 * n_genes)
        wide = 2.0 * n_genes * (2 * one.hidden * one.k + 2 * one.hidden**2 + one.hidden)
        each = 2.0 * pair.sc.n_cells * one.latent + layers + wide + 2.0 * n_genes * n_panel * one.k
    return pair.st.n_cells * each


def accuracy(spatial: str, path: Path, genes: list[str], n_cells: int = 20_000) -> float:
    """Return the median over genes of the Pearson correlation with what was measured, in the first cells."""
    import anndata
    import zarr

    from cellweft.data.io.backed_matrix import open_rows

    file = anndata.read_h5ad(spatial, backed="r")
    rows = slice(0, min(n_cells, file.n_obs))
    counts = open_rows(file.X).read(rows).toarray()
    truth = np.log1p(
        counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * np.median(counts.sum(axis=1))
    )
    found = open_rows(zarr.open_group(path, mode="r")["X"]).read(rows)
    found = found if isinstance(found, np.ndarray) else found.toarray()
    columns = [file.var_names.get_loc(gene) for gene in genes]
    with np.errstate(invalid="ignore"):  # a gene without values in a sparse result: counts as 0
        known = [np.corrcoef(found[:, i], truth[:, j])[0, 1] for i, j in enumerate(columns)]
    return float(np.median(np.nan_to_num(known)))


def run(arguments: argparse.Namespace, kept: Path, *, n_cells: int, preset: str) -> None:
    """Run one case in a separate process, and store its time and memory."""
    name = f"{preset}-{n_cells}-{arguments.genes}-{arguments.dtype}-{arguments.virtual or 'free'}"
    name += "" if arguments.sparse is None else f"-sparse{arguments.sparse:g}"
    result = kept / f"{name}.json"
    if result.exists() and not arguments.again:
        return
    files = [str(one) for one in tonsil(arguments.folder, n_cells)]
    output = arguments.folder / f"{name}.zarr"
    command = [sys.executable, __file__, "--case", str(result), "--files", *files, "--output", str(output)]
    command += ["--presets", preset, "--genes", str(arguments.genes), "--dtype", arguments.dtype]

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (arguments.virtual, arguments.virtual))

    if arguments.virtual:
        command += ["--virtual", str(arguments.virtual)]
    if arguments.sparse is not None:
        command += ["--sparse", str(arguments.sparse)]
    ended = subprocess.run(command, preexec_fn=limited if arguments.virtual else None, check=False).returncode
    shutil.rmtree(output, ignore_errors=True)
    if ended:
        print(f"{name} ended with {ended}")
        result.write_text(json.dumps({"preset": preset, "cells": n_cells, "ended": ended}))
    else:
        print(result.read_text())


def table(kept: Path) -> str:
    """Return all stored cases, as text."""
    head = (
        "| preset | cells x genes | open | fit | impute | total | peak | planned "
        "| result | planned | million values per second | share of the matrix-product rate | Pearson |"
    )
    lines = [head, "| --- " * (head.count("|") - 1) + "|"]
    found = [json.loads(one.read_text()) for one in sorted(kept.glob("*.json"))]
    for one in sorted(found, key=lambda row: (row.get("genes", 0), row["preset"], row["cells"])):
        if "ended" in one:
            lines.append(f"| {one['preset']} | {one['cells']:,} | ended with {one['ended']} |")
            continue
        stages, n_values = one["stages"], one["cells"] * one["genes"]
        limit = f" under a limit of {one['limit'] / 1e9:.2f} GB" if one["limit"] else ""
        form = ", float16" if one["dtype"] == "float16" else ""
        form += "" if one.get("sparse") is None else f", sparse {one['sparse']:g}"
        lines.append(
            f"| {one['preset']} | {one['cells']:,} x {one['genes']:,}{form}{limit} | {stages['open']:.0f} s "
            f"| {stages['fit']:.0f} s | {stages['impute']:.0f} s "
            f"| {one['seconds'] / 60:.1f} min "
            f"| {one['peak'] / 1e9:.2f} GB | {one['planned_peak'] / 1e9:.2f} GB "
            f"| {one['size'] / 1e6:,.0f} MB | {one['planned_size'] / 1e6:,.0f} MB "
            f"| {n_values / stages['impute'] / 1e6:.2f} "
            f"| {one['products'] / stages['impute'] / one['rate']:.0%} of {one['rate'] / 1e9:.0f} GFLOP/s "
            f"| {'' if one['pearson'] is None else format(one['pearson'], '.3f')} |"
        )
    return "\n".join(lines)


def growth(kept: Path) -> str:
    """Return how time and memory grow from one million cells to four, for presets measured at both."""
    rows = {}
    for one in (json.loads(path.read_text()) for path in kept.glob("*.json")):
        plain = not one.get("limit") and one.get("dtype") == "float32" and one.get("sparse") is None
        if one.get("genes") == 77 and plain:
            rows[one["preset"], one["cells"]] = one
    lines = []
    for preset in ("auto", "stimpute"):
        small, large = rows.get((preset, 10**6)), rows.get((preset, 4 * 10**6))
        if small and large:
            lines.append(
                f"`{preset}`, 1 M to 4 M cells: time x {large['seconds'] / small['seconds']:.2f}, "
                f"peak memory x {large['peak'] / small['peak']:.2f}."
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=Path("scale"), help="where data lie and results are tried"
    )
    parser.add_argument("--cells", type=int, nargs="*", default=[10_000, 100_000, 1_000_000, 4_000_000])
    parser.add_argument("--presets", nargs="+", default=["auto", "stimpute"])
    parser.add_argument("--genes", type=int, default=77)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--sparse", type=float, help="cut of a sparse result")
    parser.add_argument("--virtual", type=int, help="limit of the address space, in bytes")
    parser.add_argument("--again", action="store_true", help="run cases that are kept, too")
    parser.add_argument("--case", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--files", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        arguments.preset = arguments.presets[0]
        arguments.case.write_text(json.dumps(case(arguments)))
        return
    kept = arguments.folder / "impute_scale"
    kept.mkdir(parents=True, exist_ok=True)
    for n_cells in arguments.cells:
        for preset in arguments.presets:
            run(arguments, kept, n_cells=n_cells, preset=preset)
    text = "# Imputing at scale\n\n" + table(kept) + "\n\n" + growth(kept)
    write("impute_scale", text)


if __name__ == "__main__":
    main()
