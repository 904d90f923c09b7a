"""Time and peak memory of the sparse gene graph of 35,000 proteins: the 20 most similar of 2560 numbers each.

The vectors are simulated to resemble those of ESM-2: families around a common mean, so that most cosines are
near 1. They are written to a file first, and one process reads the file and finds the neighbours; time and
memory are that process's, Python and its libraries included. A sample is compared with float64.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from common import markdown, write

DIM, NEAREST, SAMPLE, FAMILY = 2560, 20, 200, 10


def make(path: Path, n_genes: int) -> None:
    """Write the vectors of ``n_genes`` genes."""
    generator = np.random.default_rng(0)
    values = generator.standard_normal((n_genes, DIM), dtype=np.float32)
    families = generator.standard_normal((n_genes // FAMILY + 1, DIM), dtype=np.float32)
    for start in range(0, n_genes, 1000):  # 1000 at a time, to avoid a second copy
        part = slice(start, start + 1000)
        values[part] += families[np.arange(n_genes)[part] // FAMILY]
    values += 6 * generator.standard_normal(DIM, dtype=np.float32)
    np.savez(path, genes=np.array([f"Gene{gene}" for gene in range(n_genes)]), embeddings=values)


def build(path: Path, result: Path) -> None:
    """Read the vectors, find the nearest of each, and keep them with the time that both took."""
    from cellweft.genes.embeddings import read_embedding
    from cellweft.nn.similarity import nearest_rows

    start = time.perf_counter()
    table = read_embedding(path)
    read = time.perf_counter()
    near = nearest_rows(table.values, most=NEAREST)
    np.savez(
        result, places=near.places, cosines=near.cosines, seconds=[read - start, time.perf_counter() - read]
    )


def checked(path: Path, result: Path) -> tuple[float, float]:
    """Return how many of the true neighbours of a sample were found, and the largest error of a cosine."""
    values = np.load(path)["embeddings"]
    found = np.load(result)
    lengths = np.sqrt(np.einsum("gd,gd->g", values, values, dtype=np.float64))
    same, wrong = [], 0.0
    for gene in np.random.default_rng(1).choice(len(values), min(SAMPLE, len(values)), replace=False):
        cosines = np.empty(len(values))
        for start in range(0, len(values), 5000):
            part = slice(start, start + 5000)
            cosines[part] = values[part].astype(np.float64) @ values[gene].astype(np.float64)
        cosines /= lengths * lengths[gene]
        cosines[gene] = -np.inf
        true = np.argsort(-cosines, kind="stable")[:NEAREST]
        same.append(np.isin(true, found["places"][gene]).mean())
        wrong = max(wrong, float(np.abs(cosines[true] - found["cosines"][gene]).max()))
    return float(np.mean(same)), wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--genes", type=int, nargs="*", default=[5000, 35000])
    parser.add_argument("--build", nargs=2, type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.build:
        build(*asked.build)
        return
    rows, wrong = {}, 0.0
    for n_genes in asked.genes:
        with tempfile.TemporaryDirectory() as folder:
            path, result = Path(folder) / "vectors.npz", Path(folder) / "nearest.npz"
            make(path, n_genes)
            start = time.perf_counter()
            process = subprocess.Popen([sys.executable, __file__, "--build", str(path), str(result)])
            _, status, usage = os.wait4(process.pid, 0)
            whole = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise SystemExit(f"building ended with {process.returncode}")
            reading, finding = np.load(result)["seconds"]
            same, error = checked(path, result)
            wrong = max(wrong, error)
        factor = 1 if sys.platform == "darwin" else 1024
        rows[f"{n_genes:,} genes"] = {
            "whole process, s": whole,
            "reading, s": reading,
            "finding, s": finding,
            "peak memory, MB": usage.ru_maxrss * factor / 1e6,
            "true neighbours found": same,
        }
        print(rows, flush=True)
    text = f"# The sparse gene graph: {NEAREST} nearest of {DIM} numbers each\n\n"
    text += markdown(pd.DataFrame(rows).T).replace("method", "", 1)
    text += (
        f"\n\nOf {SAMPLE} genes drawn at random, neighbours and cosines were compared with those in float64; "
    )
    text += f"the largest error of a cosine is {wrong:.0e}.\n"
    write("graph_scale", text)


if __name__ == "__main__":
    main()
