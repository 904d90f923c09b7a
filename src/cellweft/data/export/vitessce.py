"""A view of a result for Vitessce: a configuration for its web page and its Python package."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from cellweft._errors import FormatError, InputError, arg, check_known, checks_kinds
from cellweft._typing import PathLike
from cellweft.data.io.atomic_output import check_apart, check_output, partial_output
from cellweft.data.io.columns import column_of
from cellweft.data.io.keys import MEASURED, RELIABLE
from cellweft.data.io.lazy_input import Input
from cellweft.data.io.results import open_result, place_key
from cellweft.data.io.zarr_store import copy_store, format_of
from cellweft.data.spatial import find_labels

SCHEMA = "1.0.18"
"""Version of Vitessce's configuration; newer versions of Vitessce also read it."""

_EMBEDDINGS = {"X_umap": "UMAP", "X_tsne": "t-SNE", "X_pca": "PCA"}
_TISSUE = "Tissue"  # name of the positions
_FIRST_GENES = (RELIABLE, MEASURED)
_FORMAT: Final = 2  # zarr format that Vitessce reads
_DATASET = "A"


@checks_kinds
def vitessce_config(
    result: PathLike,
    *,
    url: str | None = None,
    columns: Sequence[str] = (),
    gene: str | None = None,
    title: str | None = None,
) -> dict[str, Any]:
    """Return a Vitessce configuration for a result: cells in space, genes, heat map and groups of cells.

    Parameters
    ----------
    result
        A zarr store with genes, such as an imputed result.
    url
        Address of the store for the web page; by default that of a local server for its folder at port 8000.
    columns
        Columns of ``obs`` with groups of cells; by default a column with a recognised name for cell types, if
        there is one.
    gene
        Gene that colours the cells at first; by default they are coloured by group or, if there are no
        groups, by the first gene.
    title
        Title of the view; by default the name of the store.

    Returns
    -------
    dict
        You can write it as JSON, or pass it to ``vitessce.VitessceConfig.from_dict``.

    Raises
    ------
    FormatError
        The result is not a zarr store in format 2, the only one that Vitessce reads; `write_vitessce`
        converts it.
    InputError
        There are no genes, or no positions.
    KeyMissingError
        No such column or gene.

    Notes
    -----
    Genes marked by ``var["reliable"]`` or, if it is missing, ``var["measured"]`` are loaded first for the
    heat map; you can search for all genes. Vitessce loads the positions of all cells at once, and genes on
    request.
    """
    config, has_other_format = _config(Path(result), url=url, columns=columns, gene=gene, title=title)
    if has_other_format:
        raise FormatError(
            str(result),
            expected=f"a store in zarr format {_FORMAT}, the only one that Vitessce reads",
            got="a store in another format",
            fix="Call write_vitessce, which makes a converted copy.",
        )
    return config


def _config(
    path: Path, *, url: str | None, columns: Sequence[str], gene: str | None, title: str | None
) -> tuple[dict[str, Any], bool]:
    """Return a configuration, and whether the store has a format that Vitessce cannot read."""
    if path.suffix != ".zarr":
        raise FormatError(
            str(path),
            expected="a .zarr store, which Vitessce can read in pieces",
            got=f"a file named {path.name!r}",
            fix="Write the result again, with a name ending in .zarr.",
        )
    data = open_result(path, argument="result")
    places = place_key(data)
    if places is None or data.matrix is None or not len(data.var):
        raise InputError(
            data.where,
            expected="genes, and cell positions in obsm['spatial']",
            got="no positions" if places is None else "no genes",
            fix="Export an imputed result, or spots with transferred genes.",
        )
    groups = _groups(data, columns)
    if gene is not None:
        check_known(
            gene, data.var.index, arg("gene", gene), expected=f"a gene of {data.where}", got="no such gene"
        )
    elif not groups:
        gene = str(data.var.index[0])
    scopes = _coordination(groups, gene)
    file = {
        "fileType": "anndata.zarr",
        "url": url or _url(path),
        "options": _options(data, places, groups),
        "coordinationValues": {"obsType": "cell", "featureType": "gene", "featureValueType": "expression"},
    }
    name = title or path.stem
    config = {
        "version": SCHEMA,
        "name": name,
        "description": f"{len(data.obs):,} cells, {len(data.var):,} genes",
        "datasets": [{"uid": _DATASET, "name": name, "files": [file]}],
        "coordinationSpace": scopes,
        "layout": _layout(has_groups=bool(groups), scopes=scopes),
        "initStrategy": "auto",
    }
    return config, format_of(data.source) != _FORMAT


@checks_kinds
def write_vitessce(
    result: PathLike,
    output: PathLike,
    *,
    url: str | None = None,
    columns: Sequence[str] = (),
    gene: str | None = None,
    title: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a Vitessce configuration as JSON (see `vitessce_config`).

    A result in zarr format 3, as cellweft writes it, is copied to format 2, the only one that Vitessce reads.
    The copy is ``NAME-v2.zarr`` next to a configuration ``NAME.json``; the web page needs access to this
    copy.

    Parameters
    ----------
    result, url, columns, gene, title
        As in `vitessce_config`.
    output
        Path of the new ``.json`` file.
    overwrite
        Whether to replace an existing file, and an existing copy of the result.

    Returns
    -------
    Path
        Path of the file.

    Raises
    ------
    FormatError, InputError, KeyMissingError
        As in `vitessce_config`.
    OutputExistsError, OutputError
        As in `cellweft.data.io.atomic_output.check_output`.
    """
    target = check_output(output, overwrite=overwrite, suffixes=(".json",))
    store, copy = Path(result), target.with_name(f"{target.stem}-v2.zarr")
    check_apart([target], [store])
    config, has_other_format = _config(store, url=url, columns=columns, gene=gene, title=title)
    if has_other_format:
        check_apart([copy], [store])
        with partial_output(copy, overwrite=overwrite) as partial:
            copy_store(store, partial, zarr_format=_FORMAT)
        config["datasets"][0]["files"][0]["url"] = url or _url(copy)
    with partial_output(target, overwrite=overwrite) as partial:
        partial.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return target


def _url(store: Path) -> str:
    return f"http://127.0.0.1:8000/{store.name}"


def _groups(data: Input, columns: Sequence[str]) -> list[str]:
    for name in columns:
        values = column_of(data.obs, name, where=data.where, argument="column")
        if not isinstance(values.dtype, pd.CategoricalDtype):
            raise InputError(
                f"{data.where}.obs[{name!r}]",
                expected="categories",
                got=f"values of type {values.dtype}",
                fix="Choose a categorical column.",
            )
    if len(columns):
        return list(columns)
    usual = find_labels(data.obs, None, where=data.where, argument="column")[1]
    return [usual] if usual and isinstance(data.obs[usual].dtype, pd.CategoricalDtype) else []


def _options(data: Input, places: str, groups: Sequence[str]) -> dict[str, Any]:
    """Return the paths, within the store, of all that Vitessce shows."""
    matrix: dict[str, Any] = {"path": "X"}
    first = next((name for name in _FIRST_GENES if name in data.var and data.var[name].any()), None)
    if first is not None:
        matrix["initialFeatureFilterPath"] = f"var/{first}"
    others = [key for key in _EMBEDDINGS if key in data.obsm]
    options: dict[str, Any] = {
        "obsFeatureMatrix": matrix,
        "obsLocations": {"path": f"obsm/{places}"},
        "obsEmbedding": [
            {"path": f"obsm/{key}", "dims": [0, 1], "embeddingType": _EMBEDDINGS.get(key, _TISSUE)}
            for key in [places, *others]
        ],
    }
    if groups:
        options["obsSets"] = [{"name": name, "path": f"obs/{name}"} for name in groups]
    return options


def _coordination(groups: Sequence[str], gene: str | None) -> dict[str, Any]:
    """Return the settings that the views share."""
    space: dict[str, Any] = {
        "dataset": {_DATASET: _DATASET},
        "obsType": {"A": "cell"},
        "featureType": {"A": "gene"},
        "featureValueType": {"A": "expression"},
        "embeddingType": {"A": _TISSUE},
        "obsColorEncoding": {"A": "cellSetSelection" if groups and gene is None else "geneSelection"},
    }
    if gene is not None:
        space["featureSelection"] = {"A": [gene]}
    return space


def _layout(*, has_groups: bool, scopes: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the views: the tissue on the left, genes and groups on the right, the heat map below."""
    places = {"scatterplot": (0, 0, 7, 8), "featureList": (7, 0, 3 if has_groups else 5, 8)}
    if has_groups:
        places["obsSets"] = (10, 0, 2, 8)
    places["heatmap"] = (0, 8, 12, 4)
    views = []
    for component, place in places.items():
        kinds = [kind for kind in scopes if kind != "embeddingType" or component == "scatterplot"]
        view = {"component": component, "coordinationScopes": dict.fromkeys(kinds, "A")}
        views.append(view | dict(zip("xywh", place, strict=True)))
    return views
