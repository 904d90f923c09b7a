"""Finds the coordinates, slices and labels of a tissue, and computes the spacing of its cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cellweft._compute import TABLE_ROWS, row_blocks
from cellweft._errors import InputError, KeyMissingError, Message, SettingError, arg, check_known, sentence
from cellweft._text import shorten
from cellweft._typing import DoubleArray, IntArray, MissingChunks
from cellweft.data.io.columns import (
    BATCH_KEYS,
    LABEL_KEYS,
    OBSM_KEYS,
    REGION_KEYS,
    SECTION_KEYS,
    SECTION_WORDS,
    SLICE_KEYS,
    check_groups,
    column_of,
    likely_coordinates,
    most_groups,
    plain_name,
    text_labels,
    type_labels,
    usual_columns,
)
from cellweft.data.io.lost_chunks import refuse_lost_places
from cellweft.data.io.obs_table import Annotation, HeldTable

_OUTSIDE = ("0", "no", "n", "f", "outside", "background")
FAR_WIDTHS = 10
"""A cell is far if it is this many widths of its slice outside the slice."""
_FEWEST_FOR_FAR = 20  # cells of a slice
_FARTHEST = 1e9  # in any unit; larger coordinates are placeholders
_MOST_QUERIES = 100_000  # number of cells used for the spacing, enough for a median
_MOST_JUDGED = 20_000  # number of cells used to distinguish sections from parts of one section
_MIXED = 0.2  # fraction of cells with a neighbour from another group, far more than along borders
_APART = 3.0  # times the spacing of the cells
_BARCODE = r"[ACGTN]{8}"
_NAME_PARTS = {
    "end": r"^(?P<rest>.+)[-_.:#|/ ](?P<part>[A-Za-z0-9]+)$",
    "begin": r"^(?P<part>[A-Za-z0-9.-]+?)[-_.:#|/ ](?P<rest>.+)$",
}
"""Further parts of cell names, in addition to barcodes."""


def find_coordinates(
    obs: pd.DataFrame | Annotation,
    obsm: Mapping[str, Any],
    asked: str | None,
    *,
    where: str = "st",
    argument: str = "coordinates",
    hint: str = "",
    missing_chunks: MissingChunks | None = None,
) -> tuple[DoubleArray | None, str]:
    """Return the coordinates of the cells, and their location in the input.

    Parameters
    ----------
    obs, obsm
        Table of the spatial side.
    asked
        ``"obsm:KEY"``, ``"obs:X,Y"`` or ``"obs:X,Y,Z"``, or ``"none"`` for no coordinates; None searches
        common names.
    where, argument
        Names of this side and of the argument in errors.
    hint
        A sentence for the error if there are no coordinates.
    missing_chunks
        What to do if a zarr store lacks chunks of coordinates: "error" and None raise an error ("error" means
        that the caller has this argument), "zeros" accepts them.

    Returns
    -------
    coordinates : ndarray or None
        (n_cells, 2 or 3), float64, in the unit of the file.
    found : str
        For example ``"obsm['spatial']"``.

    Raises
    ------
    KeyMissingError
        There are no coordinates, or the key does not exist.
    InputError
        There are not 2 or 3 columns, or values are NaN, infinite or not numbers.
    FormatError
        A zarr store lacks chunks of coordinates.
    SettingError
        ``asked`` has another form.

    Examples
    --------
    >>> obs = pd.DataFrame({"X": [0.0, 1.0], "Y": [0.0, 2.0]})
    >>> find_coordinates(obs, {}, None)
    (array([[0., 0.],
           [1., 2.]]), "obs['X', 'Y']")
    """
    if asked == "none":
        return None, "none, as requested"
    table = _as_table(obs)
    if asked is not None:
        return _asked_coordinates(table, obsm, asked, where, argument, missing_chunks)
    for key in OBSM_KEYS:
        if key in obsm:
            refuse_lost_places(obsm, key, where=f"{where}.obsm[{key!r}]", missing_chunks=missing_chunks)
            return _checked(obsm[key], f"{where}.obsm[{key!r}]"), f"obsm[{key!r}]"
    columns = usual_columns(table)
    if columns is not None:
        return _from_obs(table, columns, where, missing_chunks)
    likely = likely_coordinates(table, obsm)
    start: str | Message = ""
    if likely:
        start = sentence(
            "{} "
            + f"looks like them{' (others: ' + shorten(likely[1:], most=2) + ')' if likely[1:] else ''}. ",
            arg("coordinates", likely[0]),
        )
    raise KeyMissingError(
        where,
        expected="coordinates of the cells, in obsm['spatial'] or in obs columns such as 'x' and 'y'",
        got=f"obsm with {shorten(sorted(map(str, obsm))) or 'nothing'}, "
        f"obs with {shorten(table.columns, most=8) or 'nothing'}",
        fix=start
        + sentence(
            "Specify them, {} or {}, or continue without coordinates: {}." + (f" {hint}" if hint else ""),
            *(arg("coordinates", form) for form in ("obsm:KEY", "obs:X,Y", "none")),
        ),
    )


def find_tissue(obs: pd.DataFrame | Annotation, *, where: str = "st") -> IntArray | None:
    """Return the positions of spots on tissue; None if this is unknown, or all spots are.

    Parameters
    ----------
    obs
        Table of the spatial side. Space Ranger's column ``in_tissue`` is 0 for spots of the background.
    where
        Name of the input in errors.

    Raises
    ------
    InputError
        No spot is on tissue.
    """
    table = _as_table(obs)
    name = tissue_column(table)
    if name is None:
        return None
    codes, kinds = pd.factorize(table[name])
    is_outside = np.array([_plain_value(kind) in _OUTSIDE for kind in kinds], dtype=bool)
    outside = np.append(is_outside, False)[codes]  # missing values have code -1
    if outside.all():
        raise InputError(
            f"{where}.obs[{name!r}]",
            expected="spots on tissue",
            got=f"{kinds[0]} for all {len(table):,} spots, which marks background",
            fix="Correct the column, or remove it.",
        )
    return np.flatnonzero(~outside) if outside.any() else None


def tissue_column(obs: Annotation) -> str | None:
    """Return the column that marks spots on tissue: ``in_tissue``, or ``tissue`` if it is 0 and 1."""
    columns = {plain_name(name).replace("_", ""): name for name in reversed(obs.columns)}
    if "intissue" in columns:
        return columns["intissue"]
    for name in (columns[plain] for plain in ("ontissue", "tissue") if plain in columns):
        if {_plain_value(value) for value in pd.unique(obs[name].dropna())} == {"0", "1"}:
            return name  # in other files it is the kind of tissue
    return None


def _plain_value(value: object) -> str:
    text = str(value).lower().removesuffix(".0")
    return {"true": "1", "false": "0"}.get(text, text)


def find_slices(
    obs: pd.DataFrame | Annotation, asked: str | None, *, where: str = "st"
) -> tuple[NDArray[np.str_] | None, str]:
    """Return the slice of each cell and its column of `obs`; None if there is only one slice.

    Parameters
    ----------
    obs
        Table of the spatial side.
    asked
        A column, or "none" for one slice; None searches for a column with a common name and several values,
        mostly repeated.
    where
        Name of the input in errors.

    Raises
    ------
    KeyMissingError
        No such column.
    InputError
        The column has different values in nearly all cells.
    """
    if asked == "none":
        return None, ""
    return _labels(obs, asked, where, "slices", SLICE_KEYS, _most_slices(len(obs)))


def _most_slices(n_cells: int) -> int:
    return max(n_cells // 10, 2)


def guess_slices(
    obs: pd.DataFrame | Annotation, coordinates: DoubleArray
) -> tuple[NDArray[np.str_] | None, str]:
    """Return the slices in a column of `obs` without a common name, and the column.

    Sections in one coordinate frame overlap or are apart; parts of one section touch along their borders.

    Parameters
    ----------
    obs
        Table of the spatial side.
    coordinates
        (n_cells, 2 or 3)

    Returns
    -------
    slices : ndarray or None
        (n_cells,) if the coordinates are those of several sections.
    column : str
        The column, also if the coordinates are inconclusive but the column usually contains sections; empty
        if there is none.
    """
    table = _as_table(obs)
    columns = {plain_name(name): name for name in reversed(table.columns)}
    candidate = ""
    for key in (*SECTION_KEYS, *REGION_KEYS):
        if key not in columns:
            continue
        values = text_labels(table[columns[key]])
        if not 1 < len(pd.unique(values)) <= _most_slices(len(table)):
            continue
        if _are_sections(coordinates, pd.factorize(values)[0]):
            return values, columns[key]
        candidate = candidate or (columns[key] if key in SECTION_KEYS else "")
    return None, candidate or _other_sections(table, coordinates)


def _other_sections(table: Annotation, coordinates: DoubleArray) -> str:
    """Return the first other column with coordinates like those of several sections, or nothing."""
    tissue = tissue_column(table)
    for name in table.columns:
        if name == tissue or not SECTION_WORDS.search(plain_name(name)):
            continue
        values = text_labels(table[name])
        is_few = 1 < len(pd.unique(values)) <= _most_slices(len(table))
        if is_few and _are_sections(coordinates, pd.factorize(values)[0]):
            return name
    return ""


def _are_sections(coordinates: DoubleArray, codes: IntArray) -> bool:
    """Return whether groups of cells overlap, or are further apart than cells of a tissue."""
    stride = max(len(coordinates) // _MOST_JUDGED, 1)
    places, codes = coordinates[::stride], codes[::stride]
    distances, nearest = map(np.asarray, cKDTree(places).query(places, k=2))
    is_self = nearest[:, 0] == np.arange(len(places))
    nearest = np.where(is_self, nearest[:, 1], nearest[:, 0])
    mixed = float((codes[nearest] != codes).mean())
    if mixed > 0:
        return mixed > _MIXED
    spacing = float(np.median(distances[:, 1]))
    for code in range(int(codes.max()) + 1):
        is_mine = codes == code
        if is_mine.any() and not is_mine.all():
            gaps = np.asarray(cKDTree(places[is_mine]).query(places[~is_mine])[0])
            if gaps.min() < _APART * spacing:
                return False
    return True


def find_labels(
    obs: pd.DataFrame | Annotation, asked: str | None, *, where: str, argument: str
) -> tuple[NDArray[np.str_] | None, str]:
    """Return the type of each cell and its column of `obs`; None if no common column exists.

    Parameters
    ----------
    obs
        Table of the side.
    asked
        A column; None searches for a column with a common name (in any case) and at least two values, but not
        a value per cell, or measurements.
    where, argument
        Names of the side and of the argument in errors.

    Raises
    ------
    KeyMissingError
        No such column.
    InputError
        The column has different values in nearly all cells.
    """
    return _labels(obs, asked, where, argument, LABEL_KEYS, len(obs) - 1)


def find_batches(obs: Annotation) -> tuple[NDArray[np.str_] | None, str]:
    """Return the batch (dataset, donor) of each reference cell, and its column; None if there is only one.

    Parameters
    ----------
    obs
        Table of the reference.
    """
    name, values = next(batch_columns(obs), ("", None))
    return values, name


def batch_columns(obs: Annotation) -> Iterator[tuple[str, NDArray[np.str_]]]:
    """Yield columns with a name for batches and several values, with the batch of each cell."""
    columns = {plain_name(name): name for name in reversed(obs.columns)}
    for name in (columns[key] for key in BATCH_KEYS if key in columns):
        values = text_labels(obs[name])
        if 1 < len(pd.unique(values)) <= _most_slices(len(obs)):
            yield name, values


def sections_in_names(names: pd.Index[Any], coordinates: DoubleArray) -> str:
    """Describe the prefixes or suffixes of cell names if they distinguish sections; otherwise return nothing.

    Parameters
    ----------
    names
        (n_cells,) names such as ``ACGTACGTACGT-2`` or ``sample1_ACGTACGTACGT``.
    coordinates
        (n_cells, 2 or 3)

    Examples
    --------
    >>> cells = pd.Index([f"{cell}-{part}" for part in (1, 2) for cell in ("ACGTACGTA", "TTGTACGTA")])
    >>> sections_in_names(cells, np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.1], [1.0, 0.1]]))
    "end like those of 2 samples ('1', '2')"
    """
    texts = pd.Series(names.astype(str))
    for where, pattern in _NAME_PARTS.items():
        parts = texts.str.extract(pattern)
        codes, kinds = pd.factorize(parts["part"])
        if (codes < 0).any() or not 1 < len(kinds) <= _most_slices(len(texts)):
            continue
        are_barcodes = bool(parts["rest"].str.contains(_BARCODE).all())
        if are_barcodes or (not _are_numbers(kinds) and _are_sections(coordinates, codes)):
            return f"{where} like those of {len(kinds)} samples ({shorten([*map(str, kinds)], most=3)})"
    return ""


def _are_numbers(texts: pd.Index[Any]) -> bool:
    """Return whether all texts are numbers, as in names from coordinates: ``1200_3400``."""
    return bool(texts.str.fullmatch(r"\d+").all())


def _labels(
    obs: pd.DataFrame | Annotation,
    column_name: str | None,
    where: str,
    argument: str,
    usual: Sequence[str],
    most: int,
) -> tuple[NDArray[np.str_] | None, str]:
    """Return the requested column, or the first common one with 2 to ``most`` values, and its name."""
    table = _as_table(obs)
    as_text = text_labels if argument == "slices" else type_labels
    if column_name is not None:
        column = column_of(table, column_name, where=where, argument=argument)
        kind = "slice" if argument == "slices" else "cell type"
        check_groups(column, f"{where}.obs[{column_name!r}]", what=kind)
        return as_text(column), column_name
    columns = {name.lower(): name for name in table.columns}
    for name in (columns[key] for key in usual if key in columns):
        values = as_text(table[name])
        if 1 < len(pd.unique(values)) <= min(most, most_groups(len(table), table[name])):
            return values, name
    return None, ""


def _as_table(obs: pd.DataFrame | Annotation) -> Annotation:
    return HeldTable(obs) if isinstance(obs, pd.DataFrame) else obs


def spot_spacing(coordinates: DoubleArray, slices: NDArray[np.str_] | None = None) -> float | None:
    """Return the median distance of a cell to its nearest neighbour in the same slice.

    Parameters
    ----------
    coordinates
        (n_cells, 2 or 3)
    slices
        (n_cells,) slice of each cell; one slice by default.

    Returns
    -------
    float or None
        In the unit of the coordinates. Cells at exactly the same position count as one; None if no slice has
        two positions.

    Notes
    -----
    With more than 200,000 cells, the median is over at least about 100,000 of them, drawn by their
    coordinates and not by their order; each is compared with all others, by blocks.

    Examples
    --------
    >>> spot_spacing(np.array([[0.0, 0.0], [3.0, 4.0], [100.0, 0.0]]))
    5.0
    """
    stride = max(len(coordinates) // _MOST_QUERIES, 1)
    codes = np.zeros(1, dtype=np.int64) if slices is None else pd.factorize(slices)[0]
    distances = []
    for code in range(int(codes.max(initial=-1)) + 1):
        places = coordinates if slices is None else coordinates[codes == code]
        nearest = _nearest_other(_drawn(places, stride), places)
        distances.append(nearest[np.isfinite(nearest)])
    nearest_distances = np.concatenate(distances) if distances else np.empty(0)
    return float(np.median(nearest_distances)) if len(nearest_distances) else None


def _drawn(places: DoubleArray, stride: int) -> DoubleArray:
    """Return about one in ``stride`` distinct places, chosen only by their coordinates."""
    drawn = [places[:0]]
    for rows in row_blocks(len(places), TABLE_ROWS):
        block = places[rows]
        drawn.append(block[place_hashes(block) % np.uint64(stride) == 0])
    return pd.DataFrame(np.concatenate(drawn) + 0.0).drop_duplicates().to_numpy()


def place_hashes(places: DoubleArray, codes: IntArray | None = None) -> NDArray[np.uint64]:
    """Return a hash per place: equal for equal places, and nearly always different for others.

    Parameters
    ----------
    places
        (n_cells, 2 or 3)
    codes
        (n_cells,) further codes that distinguish places.
    """
    hashes = np.zeros(len(places), dtype=np.uint64)
    for part in [*places.T, *([] if codes is None else [codes.astype(np.float64)])]:
        # adding 0.0 merges both zeros; hashing again makes the position matter
        hashes = pd.util.hash_array(hashes ^ pd.util.hash_array(part + 0.0))
    return hashes


def _nearest_other(queries: DoubleArray, places: DoubleArray) -> DoubleArray:
    """Return the distance from each query to the nearest other place, by blocks; infinite without one."""
    nearest = np.full(len(queries), np.inf)
    for rows in row_blocks(len(places), TABLE_ROWS):
        block = pd.DataFrame(places[rows] + 0.0).drop_duplicates().to_numpy()  # adding 0.0 merges both zeros
        near = np.asarray(cKDTree(block).query(queries, k=2)[0])
        near[near == 0] = np.inf  # the place itself
        np.minimum(nearest, near.min(axis=1), out=nearest)
    return nearest


def _asked_coordinates(
    obs: Annotation,
    obsm: Mapping[str, Any],
    asked: str,
    where: str,
    argument: str,
    missing_chunks: MissingChunks | None,
) -> tuple[DoubleArray | None, str]:
    slot, _, key = asked.partition(":")
    names = [name.strip() for name in key.split(",")]
    if slot == "obsm" and key:
        check_known(key, obsm, arg(argument, asked), expected=f"a key of obsm of {where}", got="no such key")
        refuse_lost_places(obsm, key, where=f"{where}.obsm[{key!r}]", missing_chunks=missing_chunks)
        return _checked(obsm[key], f"{where}.obsm[{key!r}]", argument), f"obsm[{key!r}]"
    if slot == "obs" and len(names) in (2, 3):
        for name in names:
            column_of(obs, name, where=where, argument=argument)
        return _from_obs(obs, names, where, missing_chunks, argument)
    fix = "For example, use " + arg(argument, "obsm:spatial") + "."
    raise SettingError(
        argument, expected="'obsm:KEY', 'obs:X,Y', 'obs:X,Y,Z' or 'none'", got=repr(asked), fix=fix
    )


def _from_obs(
    obs: Annotation,
    columns: list[str],
    where: str,
    missing_chunks: MissingChunks | None,
    argument: str = "coordinates",
) -> tuple[DoubleArray, str]:
    source = f"obs[{', '.join(map(repr, columns))}]"
    for name in columns[:2]:  # the third may be zero everywhere
        refuse_lost_places(obs, name, where=f"{where}.obs[{name!r}]", missing_chunks=missing_chunks)
    places = pd.DataFrame({name: obs[name].array for name in columns})
    return _checked(places, f"{where}.{source}", argument), source


def _checked(values: Any, where: str, argument: str = "coordinates") -> DoubleArray:
    """Return coordinates as numbers, after the checks of `find_coordinates`."""
    if isinstance(values, pd.DataFrame):
        frame = HeldTable(values)
        likely = [name.removeprefix("obs:").split(",") for name in likely_coordinates(frame, {})]
        columns = usual_columns(frame) or next(iter(likely), None)  # in the order of the axes
        values = (values if columns is None else values[columns]).to_numpy()
    try:
        if np.iscomplexobj(values):
            raise TypeError("complex numbers")
        coordinates = np.array(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            where,
            expected="numbers",
            got=f"values that are not numbers ({error})",
            fix="Correct the coordinates.",
        ) from error
    other_columns = "Keep only the coordinate columns, or choose others: " + arg(argument, "obs:X,Y") + "."
    without = (
        ", or continue without coordinates: " + arg(argument, "none") if argument == "coordinates" else ""
    )
    check_coordinates(coordinates, where, fixes=(other_columns, "Drop these cells" + without + "."))
    if len(coordinates) > 1 and not np.ptp(coordinates, axis=0).any():
        raise InputError(
            where,
            expected="cells at different positions",
            got=f"all {len(coordinates):,} at ({', '.join(f'{number:g}' for number in coordinates[0])})",
            fix="Specify the columns with the coordinates" + without + ".",
        )
    return coordinates


def far_cells(coordinates: DoubleArray, slices: NDArray[np.str_] | None = None) -> IntArray:
    """Return the rows of the few cells that are far from all others of their slice.

    Parameters
    ----------
    coordinates
        (n_cells, 2 or 3)
    slices
        (n_cells,) slice of each cell; one slice by default.

    Returns
    -------
    ndarray
        At most one in twenty cells of a slice. Along some axis, they are outside the central 90 % range by
        more than `FAR_WIDTHS` times this range. None in slices with fewer than 20 cells.

    Examples
    --------
    >>> places = np.random.default_rng(0).random((1000, 2))
    >>> places[7] = 1e7
    >>> far_cells(places)
    array([7])
    """
    codes = np.zeros(len(coordinates), dtype=np.int64) if slices is None else pd.factorize(slices)[0]
    is_far = np.zeros(len(coordinates), dtype=np.bool_)
    for code in range(int(codes.max(initial=-1)) + 1):
        rows = np.flatnonzero(codes == code)
        if len(rows) < _FEWEST_FOR_FAR:
            continue
        places = coordinates[rows]
        low = np.quantile(places, 0.05, axis=0, method="higher")
        high = np.quantile(places, 0.95, axis=0, method="lower")
        beyond = np.maximum(low - places, places - high)
        width = high - low
        is_far[rows] = ((beyond > FAR_WIDTHS * width) & (width > 0)).any(axis=1)
    return np.flatnonzero(is_far)


def check_coordinates(
    coordinates: DoubleArray, where: str, *, fixes: tuple[str | Message, str | Message]
) -> None:
    """Raise `InputError` unless each cell has 2 or 3 finite coordinates.

    Parameters
    ----------
    coordinates
        (n_cells, 2 or 3)
    where
        Name of the coordinates in errors.
    fixes
        The next step for a wrong shape, and for values that are not finite.
    """
    if coordinates.ndim != 2 or coordinates.shape[1] not in (2, 3):
        raise InputError(
            where, expected="2 or 3 columns, one row per cell", got=f"shape {coordinates.shape}", fix=fixes[0]
        )
    bad = np.flatnonzero(~np.isfinite(coordinates).all(axis=1))
    if len(bad):
        got = f"NaN or infinity for {len(bad):,} of {len(coordinates):,} cells, the first at row {bad[0]}"
        raise InputError(where, expected="a finite number for every cell", got=got, fix=fixes[1])
    far = np.flatnonzero((np.abs(coordinates) > _FARTHEST).any(axis=1))
    if len(far):
        got = f"{coordinates[far[0]].tolist()} at row {far[0]}, one of {len(far):,} such rows"
        raise InputError(where, expected=f"coordinates within ±{_FARTHEST:g}", got=got, fix=fixes[1])
