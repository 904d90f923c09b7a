"""Scores of placements: error of positions, and accuracy of compositions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from cellweft._errors import InputError, SettingError, arg, check_kind, check_range, checks_kinds
from cellweft._text import shorten
from cellweft._typing import BoolArray, DoubleArray, IntArray, ProgressOption
from cellweft.data._pair import Pair, labels_of
from cellweft.data.synthetic.pseudospots import PseudoSpots
from cellweft.evaluate.ground_truth import caught_cells, true_composition, true_places
from cellweft.evaluate.placement_baselines import Placed, PlaceMethod, resolve_placers
from cellweft.evaluate.placement_metrics import GROUPS, composition_pcc, location_errors, type_groups
from cellweft.evaluate.placement_metrics import hits as hits_of
from cellweft.evaluate.score_table import check_numbers, score_methods, score_rows
from cellweft.place.placement import Placement

HITS = (25, 120)
"""Default numbers of neighbours for the hit number."""

MAJOR = 14
"""Number of most frequent types in ``celltype_pcc@14``, as published."""

MOST_EMBEDDED = 20_000
"""Largest number of cells for ``hits_embedding@K``, which compares all pairs of embeddings."""


@checks_kinds
def evaluate_placement(
    pair: Pair | PseudoSpots,
    methods: Sequence[str | PlaceMethod],
    *,
    truth: str | NDArray[Any] | pd.DataFrame | None = None,
    truth_composition: str | pd.DataFrame | None = None,
    caught: str | NDArray[Any] | None = None,
    seeds: Sequence[int] = (0,),
    hits: Sequence[int] = HITS,
    major: int = MAJOR,
    device: str = "auto",
    progress: ProgressOption = True,
) -> pd.DataFrame:
    """Place cells with known positions using several methods, and score the results.

    Parameters
    ----------
    pair
        Cells to place, and spots with coordinates; or the result of `cellweft.datasets.pseudo_spots`, which
        contains the true positions and compositions.
    methods
        Names (``"auto"``, ``"stem"``, and of the baselines ``"cosine"``, ``"knn-regression"``, ``"random"``,
        ``"centre"``, ``"nnls"``, with settings as in ``"knn-regression:k=10"``) or unfitted objects with
        ``fit(pair)`` and ``place()``.
    truth
        True positions of the cells: ``"obs:X,Y"`` or ``"obsm:KEY"`` of the reference, or (n_cells, 2 or 3)
        values, in the unit of the spots' coordinates.
    truth_composition
        True composition of the spots: ``"obsm:KEY"`` of the spatial data, with the types as columns of a
        table or in ``uns[KEY + "_names"]``, or a table of spots x types. Requires a pair with labels. At
        least one of ``truth`` and ``truth_composition`` is required.
    caught
        Which cells are in a spot, to score them separately: ``"obs:COLUMN"`` of the reference or (n_cells,)
        booleans; or ``"boxes"`` for the cells whose true position is in a box, 0.55 grid spacings wide,
        around a spot, as in the paper (``"boxes:0.4"`` for another width). By default, the boolean column
        ``caught`` of ``obs``, if there is one.
    seeds
        Random seeds; every method is run with each of them.
    hits
        Numbers of neighbours K for the hit number, from 1 to the number of other cells.
    major
        Number of most frequent types over which ``celltype_pcc@14`` averages; its name contains this number.
    device
        Device for Placers that are given by name. If you give several, such as "cuda:0,cuda:1", or "all" for
        all GPUs, each fits and scores one method with one seed at a time.
    progress
        True shows a bar in terminals and notebooks, False shows nothing; a callback is called with
        (stage, done, total) before each fit and at the end.

    Returns
    -------
    One row per score: ``method``, as given; ``seed``; ``fold``, always -1; ``level``, "cell", "type" or
    "summary"; ``item``; ``metric``; ``value``. ``attrs["cellweft"]`` contains versions, parameters, seeds and
    a description of the pair.

    =======  ==========================  ===============================================================
    level    item                        metrics
    =======  ==========================  ===============================================================
    cell     name of the cell            ``location_error``
    type     name of the type            ``celltype_pcc``
    summary  all cells                   ``location_error_mean``, ``location_error_median``; ``hits@K``, for
                                         neighbours by position; ``hits_embedding@K``, for neighbours by
                                         embedding in a `cellweft.Placement` of up to 20,000 cells
    summary  caught cells                the same with the suffix ``_caught``, if it is known which cells
                                         are in a spot
    summary  uncaught cells              the same with the suffix ``_uncaught``
    summary  all types                   ``celltype_pcc``: the mean over the types
    summary  14 most frequent types      ``celltype_pcc@14``
    summary  major, moderate, rare       ``celltype_pcc``: ranks 1 to 5, 6 to 10, and others, by the cells
             types                       of the reference
    =======  ==========================  ===============================================================

    Raises
    ------
    SettingError
        There is no truth, a method does not exist, or a setting is out of range.
    KeyMissingError, InputError
        A truth is missing or does not match the data; there are no labels; a method returned something other
        than positions of cells or compositions of spots.

    Notes
    -----
    The metrics are those of Hao et al. 2024 (STEM), "Performance evaluation": the mean location error (their
    MAE, in the unit of the coordinates), the hit number (theirs is that by embedding), and the Pearson
    correlation of each type's shares over the spots. Only types that are in the reference and in the true
    composition are scored. A method that places no cells (``"nnls"``) has no location error and no hits, and
    no rows at all if the composition is unknown.

    Examples
    --------
    >>> from cellweft.data._pair import pair
    >>> from cellweft.data.synthetic.pseudospots import pseudo_spots
    >>> from cellweft.data.synthetic.tissue import simulate_tissue
    >>> cells = simulate_tissue(n_spatial=300, n_genes=40, n_panel=20).st
    >>> made = pseudo_spots(cells, spacing=45, radius=30)
    >>> table = evaluate_placement(
    ...     pair(made.cells, made.spots), ["cosine", "centre"], truth="obsm:spatial_true", hits=[10]
    ... )
    >>> table[table.item == "all cells"].metric.unique().tolist()
    ['location_error_mean', 'location_error_median', 'hits@10']
    >>> boxes = pseudo_spots(cells, spacing=45, shape="boxes")
    >>> table = evaluate_placement(boxes, ["cosine"], hits=[10])
    >>> table[table.item == "uncaught cells"].metric.iloc[0]
    'location_error_mean_uncaught'
    """
    parameters: dict[str, Any] = {"by": "place"}
    if isinstance(pair, PseudoSpots):
        parameters["pseudo_spots"] = pair.parameters
        truth = "obsm:spatial_true" if truth is None else truth
        truth_composition = "obsm:composition" if truth_composition is None else truth_composition
        pair = pair.pair()
    check_kind(
        "pair", pair, Pair, expected="a pair, or pseudo-spots", fix="Create it with cellweft.pair(sc, st)."
    )
    expected = "unique numbers of neighbours"
    check_numbers("hits", hits, expected=expected, example=HITS, low=1, high=pair.sc.n_cells - 1)
    check_range("major", major, low=1, integer=True)
    _check_truths(truth, truth_composition, caught)
    hits, major = [int(k) for k in hits], int(major)
    scorers: list[Callable[[Placed], list[pd.DataFrame]]] = []
    if truth_composition is not None:
        labels = labels_of(pair)
        composition, frequencies = _shared_types(true_composition(pair, truth_composition), labels)
        scorers.append(lambda placed: _type_rows(placed.deconvolve(labels), composition, frequencies, major))
    if truth is not None:
        true = true_places(pair, truth)
        groups = _groups(pair, caught_cells(pair, caught, true))
        scorers.insert(0, lambda placed: _cell_rows(placed, pair, true, groups=groups, hits=hits))

    def score(method: PlaceMethod, _: int) -> pd.DataFrame | None:
        placed = method.fit(pair).place()
        rows = [row for scorer in scorers for row in scorer(placed)]
        return pd.concat(rows, ignore_index=True) if rows else None

    named = {"truth": truth, "truth_composition": truth_composition}
    named |= {} if caught is None else {"caught": caught}
    for name, value in named.items():
        parameters[name] = value if value is None or isinstance(value, str) else "given"
    return score_methods(
        pair,
        methods,
        resolve=resolve_placers,
        fit=score,
        score=lambda results, _: next(results),
        seeds=seeds,
        parameters=parameters | {"hits": hits, "major": major},
        device=device,
        progress=progress,
    )


def _check_truths(truth: Any, truth_composition: Any, caught: Any) -> None:
    """Raise `SettingError` unless there is a truth, and true positions if ``caught`` is given."""
    if truth is None and truth_composition is None:
        places = arg("truth", "obs:X,Y") + " or " + arg("truth", "obsm:KEY")
        spots = arg("truth_composition", "obsm:KEY")
        raise SettingError(
            "truth",
            expected="the true positions of the cells, or the composition of the spots",
            got="neither",
            fix="Write " + places + " (of the reference), or " + spots + " (of the spatial data).",
        )
    if truth is None and caught is not None:
        fix = "Pass the true positions, or leave " + arg("caught") + " out."
        raise SettingError("caught", expected="the true positions as well", got="no truth", fix=fix)


def _groups(pair: Pair, caught: BoolArray | None) -> dict[str, BoolArray]:
    """Return groups of cells, by the suffix of the names of their metrics."""
    groups = {"": np.ones(pair.sc.n_cells, dtype=np.bool_)}
    if caught is not None:
        groups |= {"caught": caught, "uncaught": ~caught}
    return {name: cells for name, cells in groups.items() if cells.any()}


def _shared_types(truth: pd.DataFrame, labels: NDArray[np.str_]) -> tuple[pd.DataFrame, IntArray]:
    """Return the true shares of the types that both sides have, and the number of cells of each."""
    names, counts = np.unique(labels, return_counts=True)
    cells = dict(zip(names.tolist(), counts.tolist(), strict=True))
    types = [name for name in truth.columns[(truth > 0).any()] if name in cells]
    if not types:
        example = arg("labels", "COLUMN")
        raise InputError(
            "truth_composition",
            expected="at least one cell type that occurs both in the reference and in the spots",
            got=f"{_some(list(truth.columns))} (spots), {_some(names.tolist())} (cells)",
            fix="Specify the column of obs with these types when you create the pair: " + example + ".",
        )
    return truth[types], np.array([cells[name] for name in types], dtype=np.int64)


def _cell_rows(
    placed: Placed, pair: Pair, true: DoubleArray, *, groups: dict[str, BoolArray], hits: Sequence[int]
) -> list[pd.DataFrame]:
    """Return the error of each cell, and the summary of each group; empty if cells are not placed."""
    coordinates = placed.coordinates()
    if coordinates is None:
        return []
    errors = location_errors(true, np.asarray(coordinates))
    rows = [score_rows("cell", pair.sc.obs_names, -1, metric="location_error", values=errors)]
    cell_hits = dict[str, IntArray]()
    for name, graph in (
        ("hits", placed.neighbors(max(hits))),
        ("hits_embedding", _by_embedding(placed, max(hits), n_cells=len(errors))),
    ):
        if graph is not None:
            neighbors = _nearest_first(graph, len(errors), max(hits))
            cell_hits |= {f"{name}@{k}": hits_of(true, neighbors[:, :k]) for k in hits}
    for group, cells in groups.items():
        values = {
            "location_error_mean": float(np.mean(errors[cells])),
            "location_error_median": float(np.median(errors[cells])),
        }
        values |= {name: float(np.mean(each[cells])) for name, each in cell_hits.items()}
        ending = f"_{group}" if group else ""
        rows.append(
            _summary(f"{group or 'all'} cells", {f"{metric}{ending}": values[metric] for metric in values})
        )
    return rows


def _by_embedding(placed: Placed, k: int, *, n_cells: int) -> sp.csr_matrix | None:
    """Return neighbours by embedding, if the placement has embeddings and is not too large."""
    if isinstance(placed, Placement) and n_cells <= MOST_EMBEDDED:
        return placed.neighbors(k, by="embedding")
    return None


def _nearest_first(graph: sp.csr_matrix, n_cells: int, k: int) -> IntArray:
    """Return the neighbours of each cell, those with the largest values first, n_cells x k."""
    graph = sp.csr_matrix(graph)
    if graph.shape != (n_cells, n_cells) or bool((np.diff(graph.indptr) != k).any()):
        raise InputError(
            "neighbors",
            expected=f"a matrix of {n_cells:,} x {n_cells:,} cells with {k} entries in each row",
            got=f"shape {graph.shape}, {np.diff(graph.indptr).min(initial=0)} to "
            f"{np.diff(graph.indptr).max(initial=0)} entries",
            fix="Check what neighbors(k) of the method returns.",
        )
    order = np.argsort(-graph.data.reshape(n_cells, k), axis=1, kind="stable")
    return np.take_along_axis(graph.indices.reshape(n_cells, k).astype(np.int64), order, axis=1)


def _type_rows(
    predicted: pd.DataFrame, truth: pd.DataFrame, frequencies: IntArray, major: int
) -> list[pd.DataFrame]:
    """Return the correlation of each type, and the means over groups of types.

    ``frequencies`` is the number of reference cells of each type in the truth.
    """
    lost = [name for name in truth.columns if name not in predicted.columns]
    if lost or not predicted.index.equals(truth.index):
        raise InputError(
            "composition",
            expected=f"{len(truth):,} spots, in their order, x cell types",
            got=f"no column for {_some(lost)}" if lost else "different spots, or a different order",
            fix="Check what deconvolve(labels) of the method returns.",
        )
    scores = composition_pcc(truth.to_numpy(), predicted[truth.columns].to_numpy(dtype=np.float64))
    rows = [score_rows("type", truth.columns, -1, metric="celltype_pcc", values=scores)]
    frequent = np.argsort(-frequencies, kind="stable")[:major]
    groups = type_groups(frequencies)
    parts = {
        "all types": ("celltype_pcc", scores),
        f"{major} most frequent types": (f"celltype_pcc@{major}", scores[frequent]),
    } | {
        f"{group} types": ("celltype_pcc", scores[groups == group])
        for group in GROUPS
        if (groups == group).any()
    }
    return rows + [_summary(item, {name: float(np.mean(part))}) for item, (name, part) in parts.items()]


def _summary(item: str, values: dict[str, float]) -> pd.DataFrame:
    rows = pd.DataFrame({"metric": list(values), "value": np.array(list(values.values()), dtype=np.float64)})
    return rows.assign(fold=-1, level="summary", item=item)


def _some(names: list[str]) -> str:
    return shorten([str(name) for name in names], most=3)
