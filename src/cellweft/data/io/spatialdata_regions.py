"""Tables of SpatialData: which one to read, what it annotates, and the coordinates of its regions.

A table is an AnnData that links its rows to instances (cells, spots, bins) of regions, which are shapes or
labels in the store. Tables are read like any AnnData; the package spatialdata is only needed to compute
centroids of shapes and labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cellweft._errors import FormatError, InputError, KeyMissingError, arg, check_known, require, sentence
from cellweft._text import near, shorten
from cellweft._typing import DoubleArray
from cellweft.data.io.columns import OBSM_KEYS, column_of, usual_columns
from cellweft.data.io.keys import RECORD
from cellweft.data.io.obs_table import Annotation
from cellweft.data.io.reopenable import LazyMapping

TABLES = "tables"
ATTRIBUTES = "spatialdata_attrs"
SYSTEM = "global"
"""Default coordinate system of SpatialData's elements."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """The elements that a table annotates.

    Attributes
    ----------
    regions
        Names of the shapes or labels, in order.
    region_key, instance_key
        Columns of ``obs`` with the region of each row, and its instance in the region.
    """

    regions: tuple[str, ...]
    region_key: str
    instance_key: str

    @classmethod
    def of(cls, uns: Mapping[str, Any]) -> Link | None:
        """Return the link in ``uns`` of a table; None if the table annotates nothing."""
        attributes = uns.get(ATTRIBUTES, {})
        region = attributes.get("region")
        if region is None or attributes.get("region_key") is None or attributes.get("instance_key") is None:
            return None
        names = [region] if isinstance(region, str) else np.atleast_1d(np.asarray(region)).tolist()
        return cls(
            regions=tuple(map(str, names)),
            region_key=str(attributes["region_key"]),
            instance_key=str(attributes["instance_key"]),
        )

    def instances(self, obs: Annotation, *, where: str) -> pd.DataFrame:
        """Return the region and instance of each row, as columns ``region`` and ``instance``."""
        columns = {
            name: column_of(obs, key, where=where, argument=f"{ATTRIBUTES}.{name}_key").to_numpy()
            for name, key in (("region", self.region_key), ("instance", self.instance_key))
        }
        return pd.DataFrame(columns).astype({"region": str})


def is_spatialdata(value: Any) -> bool:
    """Return whether a value is an object of the package spatialdata, which need not be installed."""
    return type(value).__module__.split(".")[0] == "spatialdata" and hasattr(value, TABLES)


def chosen_table(
    tables: Mapping[str, Any], asked: str | None, *, where: str, argument: Callable[[str], str]
) -> str:
    """Return the name of the requested table.

    Parameters
    ----------
    tables
        All tables of the store by name, as AnnData or as groups.
    asked
        A name; by default the only table, not counting those written by cellweft.
    where, argument
        Name of the store in errors, and the text with which a table is chosen.

    Raises
    ------
    FormatError
        No table, or several and none was chosen.
    KeyMissingError
        No table with this name.
    """
    names = sorted(tables)
    if asked is not None:
        check_known(asked, names, argument(asked), expected=f"a table of {where}", got="no such table")
        return asked
    measured = [name for name in names if RECORD not in _uns(tables[name])]
    candidates = measured or names
    if len(candidates) != 1:
        raise FormatError(
            where,
            expected="a SpatialData store with one table",
            got=f"{len(candidates)} tables ({shorten(candidates)})" if candidates else "none",
            fix=f"Choose one: {' or '.join(argument(candidate) for candidate in candidates[:3])}."
            if candidates
            else "Cellweft reads tables of counts, not images or points.",
        )
    return candidates[0]


def _uns(table: Any) -> Any:
    return table.uns if hasattr(table, "uns") else table.get("uns", {})


def store_of(table: Path) -> Path | None:
    """Return the SpatialData store that contains a table's folder; None if there is none."""
    store = table.parent.parent
    is_one = table.parent.name == TABLES and any((store / name).exists() for name in ("zarr.json", ".zgroup"))
    return store if is_one else None


@dataclass(frozen=True, eq=False)
class WithCentroids(LazyMapping):
    """Arrays of a table without coordinates, with the centroids of its regions as ``spatial``.

    Attributes
    ----------
    held
        The arrays of the table.
    source
        SpatialData, or the path of its store, which is opened when centroids are requested.
    link, obs
        What the table annotates, and its rows.
    where
        Name of the table in errors.
    """

    source: Any
    link: Link
    obs: Annotation
    where: str
    _found: dict[str, DoubleArray] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Any:
        if key != OBSM_KEYS[0]:
            return self.held[key]
        if key not in self._found:
            self._found[key] = centroids(self.source, self.link, self.obs, where=self.where)
        return self._found[key]

    def __contains__(self, key: object) -> bool:
        return key == OBSM_KEYS[0] or key in self.held  # does not compute it

    def __iter__(self) -> Iterator[str]:
        yield from self.held
        yield OBSM_KEYS[0]

    def __len__(self) -> int:
        return len(self.held) + 1


def with_centroids(
    held: Mapping[str, Any], uns: Mapping[str, Any], obs: Annotation, *, source: Any, where: str
) -> Mapping[str, Any]:
    """Return the arrays of a table, with the centroids of its regions if it has no coordinates.

    Parameters
    ----------
    held, uns, obs
        ``obsm``, ``uns`` and ``obs`` of the table.
    source
        SpatialData, or the path of its store; None for a table without a store.
    where
        Name of the table in errors.
    """
    link = Link.of(uns)
    has_places = any(key in held for key in OBSM_KEYS) or usual_columns(obs) is not None
    if source is None or link is None or has_places:
        return held
    return WithCentroids(held, source, link, obs, where)


def opened(source: Any) -> Any:
    """Return SpatialData; if a path is given, it is read without tables and images.

    Raises
    ------
    MissingExtraError
        A path is given, but the package spatialdata is not installed.
    """
    if is_spatialdata(source):
        return source
    spatialdata = require("spatialdata", "spatialdata")
    return spatialdata.read_zarr(source, selection=("shapes", "labels", "points"))


def centroids(
    source: Any, link: Link, obs: Annotation, *, where: str, system: str | None = None
) -> DoubleArray:
    """Return the centroid of the instance that each row of a table annotates.

    Parameters
    ----------
    source
        SpatialData, or the path of its store.
    link, obs
        What the table annotates, and its rows.
    where
        Name of the table in errors.
    system
        Coordinate system; by default "global" if the regions have it, otherwise their only one.

    Returns
    -------
    ndarray
        (n_cells, 2 or 3), float64, in the unit of the coordinate system.

    Raises
    ------
    KeyMissingError
        No such region or coordinate system.
    InputError
        Rows annotate instances that do not exist.
    MissingExtraError
        The package spatialdata is not installed.
    """
    data = opened(source)
    spatialdata = require("spatialdata", "spatialdata")
    rows = link.instances(obs, where=where)
    fix = sentence("Pass the positions yourself, {}, or repair the table.", arg("coordinates"))
    places: DoubleArray | None = None
    for region in link.regions:
        chosen = system_of(data, region, system, where=where)
        is_here = (rows["region"] == region).to_numpy()
        points = spatialdata.get_centroids(data[region], coordinate_system=chosen).compute()
        axes = [axis for axis in "xyz" if axis in points]
        order = pd.Index(points.index).get_indexer(pd.Index(rows["instance"][is_here]))
        if (order < 0).any():
            lost = rows["instance"][is_here].to_numpy()[order < 0]
            got = f"{len(lost):,} that the region does not have, such as {str(lost[0])!r}"
            raise InputError(
                f"{where}, {link.instance_key}", expected=f"instances of {region!r}", got=got, fix=fix
            )
        if places is None:
            places = np.full((len(rows), len(axes)), np.nan)
        places[is_here] = points[axes].to_numpy(dtype=np.float64)[order]
    if places is None or np.isnan(places).any():
        expected = f"rows of the regions {shorten(link.regions)}"
        raise InputError(f"{where}, {link.region_key}", expected=expected, got="others", fix=fix)
    return places


def system_of(data: Any, region: str, asked: str | None, *, where: str) -> str:
    """Return the name of the coordinate system for a region.

    Parameters
    ----------
    data
        SpatialData.
    region, asked
        The region's element, and the coordinate system; by default "global" if it exists, otherwise the only
        one.
    where
        Name of the table in errors.

    Raises
    ------
    KeyMissingError
        No such region or coordinate system, or several and none was chosen.
    """
    transformations = require("spatialdata.transformations", "spatialdata")
    names, place = [name for _, name, _ in data.gen_elements()], f"{where}, region {region!r}"
    check_known(region, names, place, expected="shapes or labels of the store", got="no such element")
    systems = transformations.get_transformation(data[region], get_all=True)
    if asked is None and (SYSTEM in systems or len(systems) == 1):
        return SYSTEM if SYSTEM in systems else str(next(iter(systems)))
    if asked is None or asked not in systems:
        raise KeyMissingError(
            f"coordinate_system={asked!r}",
            expected=f"a coordinate system of {region!r}",
            got="none" if asked is None else "no such coordinate system",
            fix=near(asked or "", systems),
        )
    return asked
