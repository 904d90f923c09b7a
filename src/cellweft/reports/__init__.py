"""A report in one HTML file: inputs, methods, accuracy, plots and caveats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from cellweft._errors import checks_kinds
from cellweft._typing import PathLike, ProgressOption

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from cellweft.data._pair import Pair
    from cellweft.place.placement import Placement

__all__ = ["report"]


def __dir__() -> list[str]:
    return __all__


@checks_kinds
def report(
    path: PathLike,
    *results: AnnData | Placement | Pair | pd.DataFrame | PathLike,
    genes: Sequence[str] | None = None,
    truth: Pair | None = None,
    true_places: str | NDArray[Any] | None = None,
    title: str = "cellweft report",
    overwrite: bool = False,
    progress: ProgressOption = True,
) -> Path:
    """Write a report on results in one HTML file that opens anywhere and loads nothing from the network.

    Parameters
    ----------
    path
        Path of the report, ending in .html.
    results
        What to report on, in any order: imputed genes, placed cells and spots (at most one of each; AnnData,
        in memory or backed, a Placement, or a path of .zarr or .h5ad); tables of scores from
        `cellweft.evaluate_imputation` and `cellweft.evaluate_placement` (DataFrame, or a path of .csv or
        .parquet with its .json); a table of cell types from `cellweft.Imputer.annotate` (in the same forms);
        and the `cellweft.pair` that they were made from, to show the check of the inputs and the measured
        values. At least one result or table is required. Cell types are drawn in the tissue if the imputed
        result, the spots or the pair have positions of the same cells, matched by name.
    genes
        Genes to plot in the tissue, in addition to the most and the least reliable ones.
    truth
        ``cellweft.pair(reference, truth)`` with measurements of genes that are not on the panel, in the same
        cells. Intervals are tested against them.
    true_places
        True positions of the placed cells, as in `cellweft.pl.placed`: ``"obsm:KEY"``, ``"obs:X,Y"``, or
        values.
    title
        The title.
    overwrite
        Whether to replace an existing file.
    progress
        As in `cellweft.Imputer.fit`; a callback is called after each section.

    Returns
    -------
    Path
        Path of the report.

    Raises
    ------
    FormatError, MissingFileError, InputError
        A file does not exist or is not a result of cellweft; there are no results, or two of the same kind; a
        table of cell types is damaged or has no record.
    GeneError
        A gene that was not imputed.
    SettingError
        ``path`` does not end in .html.
    OutputError, OutputExistsError
        The report cannot be written, or already exists.
    MissingExtraError
        The extra ``report`` is not installed.

    Notes
    -----
    Every number on the page is taken from the given tables or records, is a count of their rows, or is the
    mean of a score over several seeds. Hover over a number to see its source. The same input gives the same
    bytes, with the same versions of cellweft and matplotlib. Only the imputed genes that are plotted are
    read.

    Examples
    --------
    >>> import tempfile
    >>> import pandas as pd
    >>> rows = [("auto", 0.6), ("mean", 0.0)]
    >>> scores = pd.DataFrame(rows, columns=["method", "value"]).assign(
    ...     seed=0, fold=-1, level="summary", item="median over genes", metric="pearson"
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = report(f"{folder}/report.html", scores)
    ...     "0.600" in written.read_text(encoding="utf-8")
    True
    """
    from cellweft._compute import progress_callback
    from cellweft._errors import require
    from cellweft.data.io.atomic_output import check_output

    for module in ("jinja2", "PIL", "matplotlib"):
        require(module, "report")
    from cellweft.reports.inputs import checked_genes, given_of
    from cellweft.reports.render import write_page
    from cellweft.reports.sections import page_of

    check_output(path, overwrite=overwrite, suffixes=(".html", ".htm"))
    given = given_of(results)
    genes = checked_genes(given, genes or ())
    with progress_callback(progress) as said:
        page = page_of(given, title=title, genes=genes, truth=truth, true_places=true_places, progress=said)
    return write_page(page, path, overwrite=overwrite)
