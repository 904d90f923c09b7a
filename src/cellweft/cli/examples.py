"""Text below the help of each command: examples that fit 80 columns, and the page to read next."""

from __future__ import annotations


def _epilog(document: str, *lines: str) -> str:
    """Return the text below a command's help; an empty line keeps two lines apart."""
    return "\n\n".join(["Examples:", *lines, f"See also: {document}"])


EXAMPLES = {
    "cellweft": _epilog(
        "docs/start.md",
        "cellweft demo",
        "cellweft check reference.h5ad xenium_run/",
        "cellweft COMMAND --help",
    ),
    "check": _epilog(
        "docs/inputs.md",
        "cellweft check reference.h5ad tissue.h5ad",
        "cellweft check reference.h5ad xenium_run/ --labels cell_type",
    ),
    "impute": _epilog(
        "docs/tutorials/imputation.md",
        "cellweft impute reference.h5ad tissue.h5ad -o imputed.zarr",
        "cellweft impute reference.h5ad xenium_run/ -o imputed.zarr --interval 0.9",
    ),
    "annotate": _epilog(
        "docs/labels.md",
        "cellweft annotate reference.h5ad tissue.h5ad -o types.csv --labels cell_type",
        "cellweft annotate sc.h5ad st.h5ad -o types.csv --columns class,subclass",
    ),
    "place": _epilog(
        "docs/tutorials/placing.md",
        "cellweft place reference.h5ad tissue.h5ad -o placed.h5ad",
        "cellweft place cells.h5ad visium_run/ -o placed.h5ad --spots spots.h5ad",
    ),
    "evaluate": _epilog(
        "docs/tutorials/trust.md",
        "cellweft evaluate reference.h5ad tissue.h5ad -o scores.csv",
        "cellweft evaluate reference.h5ad tissue.h5ad -o scores.csv --seeds 0,1,2",
    ),
    "report": _epilog(
        "docs/tutorials/trust.md", "cellweft report imputed.zarr --scores scores.csv -o report.html"
    ),
    "view": _epilog(
        "docs/view.md",
        "cellweft view imputed.zarr",
        "cellweft view imputed.zarr --tissue tissue.h5ad --no-open --port 8000",
    ),
    "export": _epilog("docs/formats.md", "cellweft export imputed.h5ad --to cellxgene -o cells.h5ad"),
    "proteins": _epilog(
        "docs/networks.md", "cellweft proteins --genes tissue.h5ad --organism mouse -o proteins.fa"
    ),
    "embed": _epilog("docs/networks.md", "cellweft embed proteins.fa -o proteins.parquet"),
    "demo": _epilog("docs/start.md", "cellweft demo"),
}
"""Text by command."""
