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
        Where it goes, ending in .html.
    results
        What there is, in any order, at least one result or table: imputed genes, placed cells and spots (of
        each one at most; AnnData, in memory or backed, a Placement, or paths of .zarr or .h5ad), tables of
        scores of `cellweft.evaluate_imputation` and `cellweft.evaluate_placement` (DataFrame, or paths of
        .csv or .parquet, with the .json beside it), a table of cell types of `cellweft.Imputer.annotate` (in
        the same forms), and the `cellweft.pair` that they were made from, for what the check found and for
        the measured values. Cell types are mapped where their cells have positions in the imputed result, in
        the spots or in the pair, by the names of the cells.
    genes
        Genes to draw in the tissue, besides the most and the least reliable ones.
    truth
        ``cellweft.pair(reference, truth)`` with measurements, in the same cells, of genes that the panel did
        not have: where they are known, intervals are tested against them.
    true_places
        Where the placed cells lived, as `cellweft.pl.placed` takes it: ``"obsm:KEY"``, ``"obs:X,Y"``, or
        values.
    title
        The title.
    overwrite
        Whether a file that is there may be replaced.
    progress
        As in `cellweft.Imputer.fit`; a function is called as sections are made.

    Returns
    -------
    Path
        Of the report.

    Raises
    ------
    FormatError, MissingFileError, InputError
        Not a result of cellweft, no file at a path, no results, or two of the same kind; a table of cell
        types that is damaged or has no record.
    GeneError
        A gene that was not imputed.
    SettingError
        A name that does not end in .html.
    OutputError, OutputExistsError
        It could not be written, or it exists.
    MissingExtraError
        The extra ``report`` is not installed.

    Notes
    -----
    Every number of the page is one of the given tables or records, a count of their rows, or the mean of a
    score over several seeds; its source is told where the pointer rests on it. The same input gives the same
    bytes, with the same versions of cellweft and matplotlib. Of imputed genes only those that are drawn are
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
