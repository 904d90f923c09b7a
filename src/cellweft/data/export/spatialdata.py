"""SpatialData, in both directions: reads a table with positions, and adds a result to its source."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData

from cellweft._compute import progress_callback
from cellweft._errors import InputError, MissingFileError, OutputExistsError, checks_kinds, require
from cellweft._text import shorten
from cellweft._typing import DoubleArray, PathLike, Progress, ProgressOption
from cellweft.data.io.atomic_output import check_apart, check_output, output_errors, partial_output
from cellweft.data.io.backed_matrix import open_rows
from cellweft.data.io.copy import copy_matrix
from cellweft.data.io.journal import partial_of
from cellweft.data.io.keys import COORDINATES, PLACES
from cellweft.data.io.lazy_input import Input
from cellweft.data.io.read import open_input
from cellweft.data.io.results import open_result
from cellweft.data.io.sanitize import storable
from cellweft.data.io.spatialdata_regions import (
    ATTRIBUTES,
    TABLES,
    Link,
    centroids,
    chosen_table,
    is_spatialdata,
    opened,
    system_of,
)
from cellweft.data.io.zarr_store import MANIFEST, quiet_zarr, write_quietly

logger = logging.getLogger("cellweft")

OWN_SYSTEM = "cellweft"
"""Coordinate system of placed cells if no system of the store matches the coordinates of the tissue."""

_NEAR = 1e-3  # relative to the extent: closer positions are considered equal


@checks_kinds
def read_spatialdata(
    source: Any, *, table: str | None = None, coordinate_system: str | None = None
) -> AnnData:
    """Read a table of SpatialData, with the positions of its cells.

    Parameters
    ----------
    source
        SpatialData, or the path of its zarr store.
    table
        Name of the table; by default the only one, not counting tables that cellweft has written.
    coordinate_system
        Coordinate system of the positions, which are then the centres of the shapes or labels that the table
        annotates. By default, ``obsm["spatial"]`` of the table is used or, if there is none, the centres in
        "global".

    Returns
    -------
    AnnData
        A copy of the table with ``obsm["spatial"]``, (n_cells, 2 or 3), and the origin of the positions in
        ``uns["cellweft_coordinates"]``. SpatialData names coordinate systems, but rarely their unit. For
        Xenium data from spatialdata-io, positions of the table are in micrometres, and "global" is in pixels.

    Raises
    ------
    MissingFileError, FormatError
        The path does not exist; there is no table; or there are several and you did not choose one.
    KeyMissingError
        No such table or coordinate system.
    InputError
        The table annotates nothing, or an element that does not exist.
    MissingExtraError
        Centres are needed, but the package spatialdata is not installed.

    Notes
    -----
    You only need this function to choose a coordinate system. ``cellweft.pair`` and the commands accept
    SpatialData and paths of stores, ``sample.zarr`` or ``sample.zarr/tables/NAME``, and read tables in
    blocks.
    """
    data = _table(source, table)
    tissue = source.tables[data.source].copy() if is_spatialdata(source) else anndata.read_zarr(data.source)
    link = Link.of(tissue.uns)
    if coordinate_system is None and "spatial" in tissue.obsm:
        tissue.uns[COORDINATES] = {"source": "obsm['spatial'] of the table"}
        return tissue
    if link is None:
        raise InputError(
            data.where,
            expected="a table that annotates shapes or labels",
            got="a table that annotates nothing",
            fix="Pass the positions yourself, in obsm['spatial'].",
        )
    whole = opened(source)
    system = system_of(whole, link.regions[0], coordinate_system, where=data.where)
    tissue.obsm["spatial"] = centroids(whole, link, data.obs, where=data.where, system=system)
    tissue.uns[COORDINATES] = {"source": f"middles of {', '.join(link.regions)}", "coordinate_system": system}
    return tissue


def _table(source: Any, name: str | None) -> Input:
    """Open a table of SpatialData or of a store; its `source` is its name or path."""
    if is_spatialdata(source):
        where = "SpatialData in memory"
        chosen = chosen_table(source.tables, name, where=where, argument="table={!r}".format)
        data = open_input(source.tables[chosen], argument="source")
        return dataclasses.replace(data, where=f"{where}, table {chosen!r}", source=chosen)
    path = Path(source)
    return open_input(path if name is None else path / TABLES / name, argument="source")


@checks_kinds
def to_spatialdata(
    result: AnnData | PathLike,
    into: Any,
    *,
    name: str | None = None,
    annotates: str | None = None,
    output: PathLike | None = None,
    overwrite: bool = False,
    progress: ProgressOption = True,
) -> Any:
    """Add a result to the SpatialData store that it was computed from. Existing elements are not changed.

    Parameters
    ----------
    result
        Imputed genes, which are added as a table that annotates the same regions, or placed cells, which are
        added as points. AnnData, or its file.
    into
        SpatialData, or the path of its zarr store.
    name
        Name of the new element; by default "imputed", or "placed" for placed cells.
    annotates
        The table that the result was computed from; by default the only one, not counting tables that
        cellweft has written.
    output
        If ``into`` is a path: a new ``.zarr`` store, a copy of the whole store with the new element. By
        default, the element is added to the store at ``into``.
    overwrite
        Whether to replace ``output`` if it exists. Elements are never replaced.
    progress
        As in `cellweft.Imputer.fit`; a callback is called while rows are written into a store.

    Returns
    -------
    SpatialData or Path
        SpatialData that shares all other elements with ``into``, or the path of the store.

    Raises
    ------
    OutputExistsError
        An element with this name exists.
    InputError
        The result has cells that are not in the table.
    KeyMissingError, FormatError
        There is no such table, or there are several and you did not choose one.
    MissingExtraError
        For placed cells, the package spatialdata is not installed.
    OutputError
        Writing failed; the store is unchanged.

    Notes
    -----
    Cells are matched by name. Cells of the store that are not in the result get no row in the new table,
    which SpatialData allows; their number is logged. Genes are written to a store in blocks of rows, so
    memory does not depend on their number; for SpatialData in memory they are loaded. Points get the
    coordinate system of the tissue's coordinates, with the transformation of its regions if there is one. If
    no coordinate system matches, they get their own, "cellweft".
    """
    opened_result = open_result(result, argument="result")
    is_placed = PLACES in opened_result.obsm
    name = name or ("placed" if is_placed else "imputed")
    if is_spatialdata(into):
        _check_new(name, [element for _, element, _ in into.gen_elements()], "SpatialData")
        kinds = ("images", "labels", "shapes", "points", "tables", "attrs")
        elements = {kind: dict(getattr(into, kind)) for kind in kinds}
        if is_placed:
            elements["points"][name] = _points(opened_result, into, annotates)
        else:
            elements["tables"][name] = _as_table(result, opened_result, _table(into, annotates))
        return type(into)(**elements)
    store = Path(into)
    if not store.is_dir():
        raise MissingFileError(
            str(store), expected="a SpatialData store", got="no folder at this path", fix="Check the path."
        )
    _check_new(
        name,
        [element.name for part in store.iterdir() if part.is_dir() for element in part.iterdir()],
        str(store),
    )
    if output is None:
        with progress_callback(progress) as report:
            _add(opened_result, store, name, annotates, progress=report)
        return store
    target = check_output(output, overwrite=overwrite, suffixes=(".zarr",))
    check_apart([target], [store, result])
    with partial_output(target, overwrite=overwrite) as partial, progress_callback(progress) as report:
        shutil.copytree(store, partial)
        _add(opened_result, partial, name, annotates, progress=report)
    return target


def _check_new(name: str, existing: list[str], where: str) -> None:
    if name in existing:
        raise OutputExistsError(
            f"{where}, {name!r}",
            expected="an unused name",
            got="an existing element",
            fix="Choose another name: existing elements are never replaced.",
        )


def _add(opened_result: Input, store: Path, name: str, annotates: str | None, *, progress: Progress) -> None:
    if PLACES in opened_result.obsm:
        data = opened(store)
        data[name] = _points(opened_result, store, annotates)
        try:
            data.write_element(name)
        except BaseException:
            shutil.rmtree(store / "points" / name, ignore_errors=True)
            raise
        return
    source = _table(store, annotates)
    aside = partial_of(store.with_name(f"{store.name}.{name}"))
    with output_errors(store), contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, aside, ignore_errors=True)
        _write_table(aside, opened_result, source, progress=progress)
        aside.rename(store / TABLES / name)
    _consolidate(store)


def _consolidate(store: Path) -> None:
    """Update the store's list of contents, if it has one."""
    import zarr

    group = zarr.open_group(str(store), mode="r+")
    if group.metadata.consolidated_metadata is not None:
        with quiet_zarr():
            zarr.consolidate_metadata(group.store)


def _write_table(path: Path, opened_result: Input, source: Input, *, progress: Progress) -> None:
    """Write a result as a table of SpatialData, in the form of its source table."""
    import zarr

    theirs = zarr.open_group(source.source, mode="r")
    root = zarr.open_group(str(path), mode="w", zarr_format=theirs.metadata.zarr_format)
    obs, link = _linked(opened_result, source)
    parts = AnnData(
        obs=storable(obs, "obs"),
        var=storable(opened_result.var, "var"),
        obsm=dict(opened_result.obsm),
        uns=_uns(opened_result, link),
    )
    write_quietly(root, "/", parts)
    matrices = {"X": opened_result.matrix} | {
        f"layers/{key}": opened_result.layers[key] for key in opened_result.layers
    }
    for key, matrix in matrices.items():
        if key in root:
            del root[key]
        copy_matrix(open_rows(matrix, where=f"{opened_result.where}.{key}"), root, key, progress=progress)
    attributes = {
        key: value for key, value in dict(theirs.attrs).items() if not key.startswith(("encoding-", MANIFEST))
    }
    if link is not None:
        attributes |= _attributes(link)
    zarr.open_group(str(path), mode="r+").attrs.update(attributes)  # reopened, to list existing attributes


def _attributes(link: Link) -> dict[str, Any]:
    region = link.regions[0] if len(link.regions) == 1 else list(link.regions)
    return {"region": region, "region_key": link.region_key, "instance_key": link.instance_key}


def _uns(opened_result: Input, link: Link | None) -> dict[str, Any]:
    entries = {key: opened_result.uns[key] for key in opened_result.uns if key != ATTRIBUTES}
    return entries if link is None else entries | {ATTRIBUTES: _attributes(link)}


def _linked(opened_result: Input, source: Input) -> tuple[pd.DataFrame, Link | None]:
    """Return the table of the result's cells with their regions and instances, and what it annotates."""
    obs = opened_result.obs.frame().copy()
    places = _matched(opened_result, source)
    link = Link.of(source.uns)
    if link is None:
        return obs, None
    rows = link.instances(source.obs, where=source.where).iloc[places]
    regions = [name for name in link.regions if (rows["region"] == name).any()]
    obs[link.region_key] = pd.Categorical(rows["region"].to_numpy(), categories=regions)
    obs[link.instance_key] = rows["instance"].to_numpy()
    return obs, Link(regions=tuple(regions), region_key=link.region_key, instance_key=link.instance_key)


def _matched(opened_result: Input, source: Input) -> Any:
    """Return the row in the source of each cell of the result; raise `InputError` if there is none."""
    theirs = source.obs.names().astype(str)
    names = opened_result.obs.names().astype(str)
    if theirs.has_duplicates:
        raise InputError(
            source.where,
            expected="a unique name for every cell",
            got=f"{theirs[theirs.duplicated()][0]!r} more than once",
            fix="Make them unique before imputing.",
        )
    places = theirs.get_indexer(names)
    if (places < 0).any():
        raise InputError(
            opened_result.where,
            expected=f"cells of {source.where}",
            got=(
                f"{int((places < 0).sum()):,} other cells, such as "
                f"{shorten(names[places < 0].tolist(), most=3)}"
            ),
            fix="Pass the store and the table that the result was computed from.",
        )
    if len(names) < len(theirs):
        left = len(theirs) - len(names)
        logger.info("%s cells of %s are not in the result. They get no row.", f"{left:,}", source.where)
    return places


def _as_table(result: AnnData | PathLike, opened_result: Input, source: Input) -> AnnData:
    """Return a result in memory as a table of SpatialData."""
    obs, link = _linked(opened_result, source)
    if isinstance(result, AnnData):
        matrix, layers = result.X, dict(opened_result.layers)
    else:
        matrix = open_rows(opened_result.matrix, where=opened_result.where).read(slice(None))
        layers = {key: open_rows(opened_result.layers[key]).read(slice(None)) for key in opened_result.layers}
    return AnnData(
        matrix,
        obs=obs,
        var=opened_result.var,
        obsm=dict(opened_result.obsm),
        layers=layers,
        uns=_uns(opened_result, link),
    )


def _points(opened_result: Input, into: Any, annotates: str | None) -> Any:
    """Return placed cells as points, in the coordinate system of the tissue."""
    models = require("spatialdata.models", "spatialdata")
    places = np.asarray(opened_result.obsm[PLACES], dtype=np.float64)
    axes = list("xyz"[: places.shape[1]])
    table = storable(opened_result.obs.frame().drop(columns=axes, errors="ignore"), "obs")
    table.insert(0, "cell", table.index.to_numpy())
    table = pd.concat([pd.DataFrame(places, columns=axes, index=table.index), table], axis=1)
    transformations = _transformations(_table(into, annotates), opened(into))
    named = {axis: axis for axis in axes}
    table = table.reset_index(drop=True)
    return models.PointsModel.parse(table, coordinates=named, transformations=transformations)


def _transformations(source: Input, data: Any) -> Mapping[str, Any]:
    """Return the transformations from the tissue's coordinates to the store's coordinate systems."""
    module = require("spatialdata.transformations", "spatialdata")
    identity = module.Identity()
    link = Link.of(source.uns)
    try:
        if link is not None and "spatial" not in source.obsm:
            return {system_of(data, link.regions[0], None, where=source.where): identity}
        if link is not None:
            coordinates = np.asarray(source.obsm["spatial"], dtype=np.float64)
            transformations = module.get_transformation(data[link.regions[0]], get_all=True)
            for system, theirs in transformations.items():
                middles = centroids(data, link, source.obs, where=source.where, system=system)
                if _are_same(_moved(coordinates, theirs), middles):
                    return dict(transformations)  # the regions' own coordinates
                if _are_same(coordinates, middles):
                    return {system: identity}
    except (KeyError, InputError) as error:
        logger.warning("The positions of the placed cells in SpatialData are unknown: %s", error)
    logger.warning(
        "Placed cells get their own coordinate system, %r, because the coordinates of %s match none of "
        "those of its regions.",
        OWN_SYSTEM,
        source.where,
    )
    return {OWN_SYSTEM: identity}


def _moved(places: DoubleArray, transformation: Any) -> DoubleArray:
    axes = tuple("xyz"[: places.shape[1]])
    affine = np.asarray(transformation.to_affine_matrix(input_axes=axes, output_axes=axes))
    return np.asarray(places @ affine[:-1, :-1].T + affine[:-1, -1])


def _are_same(first: DoubleArray, second: DoubleArray) -> bool:
    """Return whether most positions are the same, within a thousandth of their extent."""
    extent = float(np.ptp(second, axis=0).max(initial=0.0)) or 1.0
    is_alike = first.shape == second.shape
    return is_alike and bool(np.median(np.abs(first - second).max(axis=1)) <= _NEAR * extent)
