"""``cellweft view``: a local page that shows results, read from disk on request."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py

from cellweft._compute import parse_memory
from cellweft._errors import InputError, SettingError, checks_kinds, require
from cellweft._text import shorten
from cellweft._typing import PathLike
from cellweft.data.io.cell_labels import LabelTable, read_cell_labels
from cellweft.data.io.keys import INTERVAL
from cellweft.data.io.lazy_input import Input
from cellweft.data.io.obs_table import StoredTable
from cellweft.data.io.read import open_input
from cellweft.data.io.results import open_result
from cellweft.viewer.api import Api
from cellweft.viewer.cache import StripeCache
from cellweft.viewer.columns import Column, label_columns
from cellweft.viewer.dataset import Dataset, kind_of
from cellweft.viewer.matrix import Means
from cellweft.viewer.measured import MeasuredGenes
from cellweft.viewer.server import Viewer

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

__all__ = ["Viewer", "view"]

_MOST_THREADS = 8


def __dir__() -> list[str]:
    return __all__


@checks_kinds
def view(
    *results: AnnData | PathLike,
    tissue: AnnData | PathLike | None = None,
    labels: pd.DataFrame | PathLike | None = None,
    port: int = 0,
    memory: str | int = "512 MB",
    open_browser: bool = True,
    block: bool = True,
    token: bool = True,
) -> Viewer:
    """Show results in the browser. The page can only be opened on this machine.

    Parameters
    ----------
    *results
        Results of `Imputer.impute_to`, `cellweft impute` or `cellweft place`: at least one path of a .zarr
        store or .h5ad file, or AnnData. They are read when the page needs them, and never changed.
    tissue
        The spatial data, AnnData or path, to show its panel next to the imputed genes: log-normalised as in
        `cellweft.pair`, or as counts if the result contains counts. Cells and genes are matched by name;
        missing cells have no value.
    labels
        Result of `cellweft.Imputer.annotate`, or the path of the table from ``cellweft annotate``, to colour
        cells and spots by label, confidence, and whether they are unknown. Cells are matched by name; missing
        cells have no value.
    port
        Port to listen on, 0 to 65535; 0 for any free port.
    memory
        Memory for caching genes, such as "512 MB". Neighbouring genes are read together and are then shown
        immediately. Other memory does not depend on the number of genes.
    open_browser
        Whether to open the page.
    block
        Whether to serve until you interrupt it (Ctrl-C). Otherwise the call returns immediately, as in
        notebooks.
    token
        Whether to require a token, which is part of the page's address. Without it, every user of this
        machine can read the results.

    Returns
    -------
    Viewer
        Has the ``url`` of the page; ``close()`` stops serving. Already closed if ``block`` is true.

    Raises
    ------
    SettingError
        There is no result; the port is out of range or in use; ``tissue`` is given without an imputed result,
        or ``labels`` without an imputed result or spots.
    MissingFileError, FormatError
        A file does not exist, its content does not match its name, or it is not a result of cellweft.
    KeyMissingError, InputError, GeneError
        A result has no positions; the tissue shares no cell or no gene with the result; the table of labels
        is damaged, or shares no cell with a result.
    MissingExtraError
        The extra ``plot`` is not installed.

    Notes
    -----
    The page is only accessible from this machine, with the token in its address. To open it from another
    machine, use an SSH tunnel with the same port: ``ssh -L 8080:localhost:8080 machine`` with ``port=8080``.
    If a file is moved, replaced or truncated while you view it, the page shows a message instead of its
    values (status 410).

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from anndata import AnnData
    >>> genes = pd.DataFrame({"measured": [True]}, index=["Gad1"])
    >>> result = AnnData(np.ones((2, 1), dtype="float32"), var=genes, obsm={"spatial": np.eye(2)})
    >>> with view(result, open_browser=False, block=False) as viewer:
    ...     viewer.url.startswith("http://127.0.0.1:")
    True
    """
    if not results:
        raise SettingError(
            "results", expected="at least one result", got="none", fix="Pass imputed genes or placed cells."
        )
    require("matplotlib", "plot")  # for the colours of labels
    types = None if labels is None else read_cell_labels(labels, argument="labels")
    opened = [open_result(item, argument="result") for item in results]
    measured = None if tissue is None else open_input(tissue, argument="tissue")
    files = [item for item in (*opened, measured) if item is not None]
    pool = ThreadPoolExecutor(_threads(), thread_name_prefix="cellweft-view-read")
    cache = StripeCache(parse_memory(memory))

    def let_go() -> None:
        pool.shutdown(cancel_futures=True)
        cache.clear()
        for source, file in zip((*results, tissue), files, strict=False):
            if isinstance(source, str | os.PathLike):
                _close(file)

    try:
        n_matrices = sum(_matrices(item) for item in opened) + sum(1 for item in opened if measured)
        means = Means(cache=cache, share=cache.budget // max(n_matrices, 1), pool=pool, threads=_threads())
        added = [[] for _ in opened] if types is None else _label_columns(types, opened)
        datasets = _datasets(opened, _titles(results), measured, means, added)
        viewer = Viewer(Api(datasets, version=version("cellweft")), port=port, on_close=let_go, token=token)
    except BaseException:
        let_go()
        raise
    _read_ahead(datasets)
    if open_browser:
        viewer.open()
    if block:
        viewer.wait()
    return viewer


def _datasets(
    opened: Sequence[Input],
    titles: Sequence[str],
    tissue: Input | None,
    means: Means,
    added: Sequence[Sequence[Column]],
) -> list[Dataset]:
    kinds = [kind_of(result) for result in opened]
    if tissue is not None and "imputed" not in kinds:
        raise SettingError(
            "tissue",
            expected="an imputed result, whose cells are those of the tissue",
            got=f"{' and '.join(sorted(set(kinds)))} only",
            fix="Pass the imputed result too, or omit the tissue.",
        )
    return [
        Dataset(
            result,
            title=title,
            means=means,
            tissue=MeasuredGenes(tissue, result, means) if tissue is not None and kind == "imputed" else None,
            more=more,
        )
        for result, title, kind, more in zip(opened, titles, kinds, added, strict=True)
    ]


def _label_columns(labels: LabelTable, opened: Sequence[Input]) -> list[list[Column]]:
    """Return the columns that a table of cell types adds to each result with cells or spots of the tissue."""
    kinds = [kind_of(result) for result in opened]
    of_tissue = [result for result, kind in zip(opened, kinds, strict=True) if kind != "placed"]
    if not of_tissue:
        raise SettingError(
            "labels",
            expected="an imputed result or spots, whose cells are those of the table",
            got="placed only",
            fix="Pass the imputed result too, or omit the labels.",
        )
    added = [
        [] if kind == "placed" else label_columns(labels, result)
        for result, kind in zip(opened, kinds, strict=True)
    ]
    if any(added):
        return added
    names = next(of_tissue[0].obs.name_blocks())[:4].astype(str).tolist()
    raise InputError(
        labels.where,
        expected=f"the cells of {of_tissue[0].where}, by their names",
        got=f"other names ({shorten(labels.cells[:4].tolist(), most=3)}), where the result has "
        f"{shorten(names, most=3)}",
        fix="Pass the table of the same tissue, or omit it.",
    )


def _matrices(opened: Input) -> int:
    return sum(name in opened.layers for name in INTERVAL) + (opened.matrix is not None)


def _titles(results: Sequence[Any]) -> list[str]:
    return [
        Path(result).resolve().name if isinstance(result, str | os.PathLike) else f"result {number}"
        for number, result in enumerate(results, 1)
    ]


def _threads() -> int:
    return min(os.cpu_count() or 1, _MOST_THREADS)


def _read_ahead(datasets: Sequence[Dataset]) -> None:
    """Read the tissue while the page is loading; errors are reported when a gene is requested."""

    def read() -> None:
        for dataset in datasets:
            if dataset.measured is not None:
                with suppress(Exception):  # for example, the file was closed in the meantime
                    dataset.measured.read()

    if any(dataset.measured is not None for dataset in datasets):
        threading.Thread(target=read, name="cellweft-view-tissue", daemon=True).start()


def _close(opened: Input) -> None:
    """Close an HDF5 file."""
    table = opened.obs
    held = [opened.matrix, table.index if isinstance(table, StoredTable) else None]
    for handle in held:
        if isinstance(handle, h5py.Dataset | h5py.Group) and handle:
            handle.file.close()
            return
