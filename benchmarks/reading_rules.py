"""Processor time of the checks of input while two files are read and paired.

A rule is any check of the names, columns, scales, slices or indices that were read. Each is timed where it is
called, in a process whose files are in the disk cache; seconds are processor time. Reading is all of
``cellweft.pair``, which reads every value once.
"""

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

import cellweft
import cellweft.data._pair
import cellweft.data.io.read
import cellweft.data.validation

from common import write

RULES = {
    "which features are genes": ["cellweft.data.validation.only_genes", "cellweft.data.io.tenx.only_genes"],
    "names of cells and genes": ["cellweft.data._pair.check_cells", "cellweft.data._pair.gene_names"],
    "match and orientation": ["cellweft.data._pair.match_sides", "cellweft.data._pair.check_orientation"],
    "coordinates and slices": [
        "cellweft.data._pair.find_coordinates",
        "cellweft.data._pair.find_slices",
        "cellweft.data._pair.guess_slices",
        "cellweft.data._pair.sections_in_names",
        "cellweft.data._pair.find_batches",
    ],
    "scale of the values": ["cellweft.data.validation.judge_scale"],
    "genes that parts did not measure": [
        "cellweft.data.expression_scale.SliceGenes.add",
        "cellweft.data.expression_scale.SliceGenes.unmeasured",
    ],
    "indices of sparse matrices": ["cellweft.data.io.backed_matrix._check_indices"],
    "cautions": ["cellweft.data._pair.cautions_of"],
}


def timed(rule: str, place: str, spent: dict[str, float]) -> None:
    """Time a function, or a method of a class, from now on."""
    holder: Any = None
    parts = place.split(".")
    for number in range(len(parts) - 1, 0, -1):
        holder = sys.modules.get(".".join(parts[:number]))
        if holder is not None:
            break
    for part in parts[number:-1]:
        holder = getattr(holder, part)
    function = getattr(holder, parts[-1])

    def run(*positional: Any, **named: Any) -> Any:
        start = time.process_time()
        try:
            return function(*positional, **named)
        finally:
            spent[rule] += time.process_time() - start

    setattr(holder, parts[-1], run)


def made(path: Path, n_cells: int, n_genes: int, *, is_tissue: bool) -> Path:
    """Write a file of counts, compressed as usual for AnnData, with slices in ``obs``."""
    random = np.random.default_rng(int(is_tissue))
    blocks = [
        sp.random(rows, n_genes, density=0.1, format="csr", random_state=random, dtype=np.float32)
        for rows in [10_000] * (n_cells // 10_000)
    ]
    counts = sp.csr_matrix(sp.vstack(blocks))
    counts.data = np.ceil(counts.data * 5)
    obs = pd.DataFrame(
        {"batch": np.repeat([*"abcdefghij"], n_cells // 10)}, index=[f"cell{n}" for n in range(n_cells)]
    )
    var = pd.DataFrame(index=[f"Gene{n}" for n in range(n_genes)])
    data = anndata.AnnData(counts, obs=obs, var=var)
    if is_tissue:
        data.obsm["spatial"] = random.uniform(0, n_cells**0.5, (n_cells, 2))
    data.write_h5ad(path, compression="gzip")
    return path


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=50_000, help="cells on each side, a multiple of 10,000")
    parser.add_argument("--genes", type=int, nargs=2, default=[8_000, 500], help="of reference and tissue")
    parser.add_argument("--repeats", type=int, default=3, help="of which the median is shown")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sc, st = (
            made(Path(folder, f"{name}.h5ad"), asked.cells, n_genes, is_tissue=name == "st")
            for name, n_genes in zip(("sc", "st"), asked.genes, strict=True)
        )
        spent: dict[str, float] = defaultdict(float)
        for rule, places in RULES.items():
            for place in places:
                timed(rule, place, spent)
        cellweft.pair(sc, st)  # fills the disk cache, and loads what is imported lazily
        runs = []
        for _ in range(asked.repeats):
            spent.clear()
            start = time.process_time()
            cellweft.pair(sc, st)
            runs.append({**spent, "all": time.process_time() - start})
    found = pd.DataFrame(runs).fillna(0).median()
    rules = found.drop("all").reindex(RULES, fill_value=0.0)
    lines = [f"| {rule} | {seconds:.3f} | {seconds / found['all']:.2%} |" for rule, seconds in rules.items()]
    lines += [
        f"| all of these | {rules.sum():.3f} | {rules.sum() / found['all']:.2%} |",
        f"| pairing the two files | {found['all']:.2f} | 100% |",
    ]
    write(
        "reading_rules",
        "# Time of the checks of input\n\n"
        f"{asked.cells:,} cells on each side, {asked.genes[0]:,} and {asked.genes[1]:,} genes, a tenth of "
        f"the values above zero, .h5ad with gzip; median of {asked.repeats} runs, processor seconds.\n\n"
        "| rule | seconds | share of pairing |\n| --- | --- | --- |\n" + "\n".join(lines),
    )


if __name__ == "__main__":
    main()
