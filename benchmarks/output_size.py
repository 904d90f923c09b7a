"""What a result takes on the disk: float32, float16, and as a sparse matrix once small values are cut.

Imputed genes of the Xenium tonsil's shape (`scale_data`), as zarr stores that `weft impute` writes; the other
forms are written by AnnData, from the values of at least a limit. What the limit costs is the largest and the
mean change of a value.
"""

import argparse
import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp

from scale_data import held_out_genes, tonsil

from common import write


def size_of(path: Path) -> int:
    """Return the bytes of the matrix in a store."""
    return sum(one.stat().st_size for one in (path / "X").rglob("*") if one.is_file())


def main() -> None:
    import weft

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=Path("scale"), help="where data lie and results are tried"
    )
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--genes", type=int, default=2_000)
    arguments = parser.parse_args()
    pair = weft.pair(*tonsil(arguments.folder, arguments.cells)).panel(held_out_genes()[0])
    genes = list(pair.sc.genes[: arguments.genes])
    rows = []
    for preset in ("auto", "stimpute"):
        imputer = weft.Imputer(preset=preset, reliability=False, device="cpu").fit(pair)
        sizes: dict[str, int] = {}
        for dtype in ("float32", "float16"):
            path = arguments.folder / f"{dtype}.zarr"
            imputer.impute_to(path, genes=genes, dtype=dtype, overwrite=True)
            sizes[dtype] = size_of(path)
        values = anndata.read_zarr(arguments.folder / "float32.zarr").X
        for name, size in sizes.items():
            rows.append((preset, f"dense, {name}", size, np.mean(values > 0), ""))
        for least in (0.01, 0.05, 0.1):
            kept = np.where(values >= least, values, 0)
            path = arguments.folder / "sparse.zarr"
            with anndata.settings.override(zarr_write_format=2):
                anndata.AnnData(sp.csr_matrix(kept)).write_zarr(path)
            change = f"{(values - kept).max():.2f}, {(values - kept).mean():.4f}"
            rows.append((preset, f"sparse float32, from {least}", size_of(path), np.mean(kept > 0), change))
            path = arguments.folder / "cut.zarr"
            with anndata.settings.override(zarr_write_format=2):
                anndata.AnnData(kept).write_zarr(path, chunks=(4096, 256))
            rows.append((preset, f"dense float32, from {least}", size_of(path), np.mean(kept > 0), change))
        for name in ("float32", "float16", "sparse", "cut"):
            shutil.rmtree(arguments.folder / f"{name}.zarr", ignore_errors=True)
    head = "| preset | form | bytes a value | not zero | largest and mean change |"
    lines = [head, "| --- " * 5 + "|"]
    n_values = arguments.cells * arguments.genes
    for preset, form, size, share, change in pd.DataFrame(rows).itertuples(index=False):
        lines.append(f"| {preset} | {form} | {size / n_values:.2f} | {share:.0%} | {change} |")
    text = f"{arguments.genes:,} genes in {arguments.cells:,} cells.\n\n" + "\n".join(lines)
    write("output_size", "# Size of a result\n\n" + text)


if __name__ == "__main__":
    main()
