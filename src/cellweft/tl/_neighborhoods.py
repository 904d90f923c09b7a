"""Neighbourhoods: enrichment of neighbouring cell types, and the hollow structure of embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial import cKDTree

from cellweft._compute import numpy_stream, progress_callback
from cellweft._errors import InputError, array_of, check_array, check_range, check_seed
from cellweft._typing import DoubleArray, IntArray, Matrix, ProgressOption
from cellweft.tl._gene_trends import label_codes
from cellweft.tl._spatial_axis import check_places

_MOST_QUERIES = 5_000  # enough cells to estimate a mean distance
_N_RATIOS = 101


def neighborhood_enrichment(
    adjacency: Matrix,
    labels: NDArray[Any],
    *,
    n_permutations: int = 1000,
    seed: int = 0,
    progress: ProgressOption = True,
) -> pd.DataFrame:
    """Return how much more often cells of two types are neighbours than expected by chance.

    Parameters
    ----------
    adjacency
        (n_cells, n_cells) graph of neighbours, preferably sparse. A nonzero entry means that the cell of the
        column is a neighbour of the cell of the row. Weights are ignored.
    labels
        (n_cells,) type of every cell.
    n_permutations
        Number of random permutations of the labels, at least 2.
    seed
        Random seed of the permutations.
    progress
        As in `cellweft.Imputer.fit`; a callback is called after each permutation.

    Returns
    -------
    DataFrame
        (n_types, n_types) z-scores, with the type of the cell in rows and that of its neighbour in columns,
        both sorted. Above 0, such neighbours are more frequent than expected by chance. Symmetric if the
        graph is.

    Raises
    ------
    InputError
        The graph is not square, has no edge or contains NaN, or the number of labels differs from that of the
        cells.
    SettingError
        ``n_permutations`` below 2.

    Notes
    -----
    z = (count - mean) / sd, where the count is that of edges between two types, and mean and standard
    deviation (of the population) are those of the counts after the labels are permuted. This is the
    definition of squidpy's ``nhood_enrichment``, which the STEM paper uses: counts are equal, and z-scores
    only differ in the random permutations. You can also run squidpy on ``obsp["spatial_connectivities"]`` of
    a placement's AnnData. If no permutation changes a count, for example with a single type, the z-score is
    0; squidpy gives NaN.

    Examples
    --------
    >>> line = sp.diags([1.0, 1.0], [-1, 1], shape=(6, 6), format="csr")
    >>> z = neighborhood_enrichment(line, np.array(list("aaabbb")))
    >>> bool(z.loc["a", "a"] > 0 > z.loc["a", "b"])
    True
    """
    check_range("n_permutations", n_permutations, low=2, high=10**6, integer=True)
    begins, ends, n_cells = _edges(adjacency)
    types, codes = label_codes(labels, n_cells)

    def count(order: IntArray) -> IntArray:
        return _pair_counts(order[begins], order[ends], shape=(len(types), len(types)))

    stream = numpy_stream(seed, "niches.cells")
    return pd.DataFrame(
        _z_scores(*_permuted(count, codes, n=n_permutations, stream=stream, progress=progress)),
        index=pd.Index(types, name="type"),
        columns=pd.Index(types, name="neighbor"),
    )


def region_enrichment(
    places: NDArray[Any],
    labels: NDArray[Any],
    *,
    region_places: NDArray[Any],
    region_labels: NDArray[Any],
    k: int = 6,
    n_permutations: int = 1000,
    seed: int = 0,
    progress: ProgressOption = True,
) -> pd.DataFrame:
    """Return in which regions the cells of each type were placed more often than expected by chance.

    Parameters
    ----------
    places
        (n_cells, 2 or 3) positions of the placed cells, such as `Placement.coordinates`; one slice at a time.
    labels
        (n_cells,) type of every cell.
    region_places
        (n_spots, 2 or 3) coordinates of the spots, in the same unit.
    region_labels
        (n_spots,) region of every spot.
    k
        Number of nearest spots of each cell whose regions are counted, at most all spots.
    n_permutations
        Number of random permutations of the types, at least 2.
    seed
        Random seed of the permutations.
    progress
        As in `cellweft.Imputer.fit`; a callback is called after each permutation.

    Returns
    -------
    DataFrame
        One row per type and region, both sorted: ``type``, ``region``; ``count`` of spots of the region among
        the nearest spots of the type's cells; ``expected``, its mean over the permutations; ``z`` = (count -
        mean) / sd; ``p``, the probability of a count at least as far from the mean in either direction;
        ``fdr``, p adjusted over all rows (Benjamini-Hochberg). ``table.pivot(index="type", columns="region",
        values="z")`` gives a heat map.

    Raises
    ------
    InputError
        Coordinates have a wrong shape, or are NaN or infinite; the number of labels does not match; there are
        no cells or no spots.
    SettingError
        ``k`` or ``n_permutations`` is out of range.

    Notes
    -----
    The enrichment between two datasets of STEM's Fig. 4c, by the definition of `neighborhood_enrichment`: the
    types of cells are permuted, while positions and regions stay the same. p = (1 + permutations at least as
    far) / (1 + permutations), so that its smallest value is 1 / (1 + ``n_permutations``). If no permutation
    changes a count, z = 0 and p = 1. DEVIATION: the paper scales its map by row, which hides the effect size.

    Examples
    --------
    >>> places = np.column_stack([np.arange(8.0), np.zeros(8)])
    >>> table = region_enrichment(
    ...     places,
    ...     np.array(list("aaaabbbb")),
    ...     region_places=places,
    ...     region_labels=np.array(["left"] * 4 + ["right"] * 4),
    ...     k=1,
    ... )
    >>> table[["type", "region", "count"]].iloc[:2].to_numpy().tolist()
    [['a', 'left', 4], ['a', 'right', 0]]
    """
    check_range("n_permutations", n_permutations, low=2, high=10**6, integer=True)
    places, spots = check_places(places, "places"), check_places(region_places, "region_places")
    if places.shape[1] != spots.shape[1] or 0 in (len(places), len(spots)):
        raise InputError(
            "region_places",
            expected="coordinates with the same number of dimensions as places, and at least one row in each",
            got=f"shapes {places.shape} (places) and {spots.shape} (region_places)",
            fix="Pass the coordinates of cells and spots of the same slice.",
        )
    check_range("k", k, low=1, high=len(spots), integer=True)
    types, codes = label_codes(labels, len(places))
    regions, region_codes = label_codes(region_labels, len(spots), where="region_labels")
    nearest = np.asarray(cKDTree(spots).query(places, k=[*range(1, k + 1)])[1])  # n_cells x k
    around = region_codes[nearest].ravel()

    def count(order: IntArray) -> IntArray:
        return _pair_counts(np.repeat(order, k), around, shape=(len(types), len(regions)))

    stream = numpy_stream(seed, "niches.regions")
    observed, permuted = _permuted(count, codes, n=n_permutations, stream=stream, progress=progress)
    p = _p_values(observed, permuted).ravel()
    return pd.DataFrame(
        {
            "type": np.repeat(types, len(regions)),
            "region": np.tile(regions, len(types)),
            "count": observed.ravel(),
            "expected": permuted.mean(axis=0).ravel(),
            "z": _z_scores(observed, permuted).ravel(),
            "p": p,
            "fdr": stats.false_discovery_control(p),
        }
    )


def hollow_structure(
    embeddings: NDArray[Any], *, radii: NDArray[Any] | None = None, seed: int = 0
) -> pd.DataFrame:
    """Return the number of cells in a growing sphere around the mean embedding.

    Parameters
    ----------
    embeddings
        (n_cells, n_latent) finite, in any unit.
    radii
        Normalised radii R/D, at least 0, in any order; by default 101 values from 0 to the radius that
        contains all cells. Use the same radii to compare embeddings.
    seed
        Seed for subsampling cells if there are more than 5,000.

    Returns
    -------
    DataFrame
        ``radius_ratio``, R/D, and ``share``, the share of cells no farther than R from the mean embedding, 0
        to 1. In a hollow structure it stays near 0 at small radii.

    Raises
    ------
    InputError
        The embeddings are not a matrix, have fewer than two cells, contain NaN or infinity, or are all the
        same; or ``radii`` are invalid.

    Notes
    -----
    "Examining the hollow structure" in the Methods of STEM. Its D, "the distance of the nearest neighbor", is
    interpreted as the mean Euclidean distance of a cell to its nearest neighbour. If it were the distance of
    the cell nearest to the centre, a hollow structure would fill up early, not late as the paper says.
    Identical cells count as one cell for D. D decreases with the number of cells, so only compare embeddings
    of the same cells. If there are more than 5,000 cells, D is the mean over 5,000 random cells.

    Examples
    --------
    >>> angle = np.linspace(0.0, 2 * np.pi, 60, endpoint=False)
    >>> ring = np.column_stack([np.cos(angle), np.sin(angle)])  # D = 2 sin(pi / 60) = .105
    >>> hollow_structure(ring, radii=np.array([5.0, 10.0]))["share"].tolist()
    [0.0, 1.0]
    """
    ratios = _radius_ratios(embeddings, seed)
    if radii is None:
        radius_ratios = np.linspace(0.0, ratios.max(), _N_RATIOS)
    else:
        radius_ratios = array_of(
            "radii", radii, fix="Pass multiples of the distance between nearest neighbours."
        )
        if radius_ratios.ndim != 1 or not np.isfinite(radius_ratios).all() or (radius_ratios < 0).any():
            raise InputError(
                "radii",
                expected="finite numbers of at least 0",
                got=f"shape {radius_ratios.shape}"
                if radius_ratios.ndim != 1
                else "NaN, infinity or numbers below 0",
                fix="Pass multiples of the distance between nearest neighbours.",
            )
    share = np.searchsorted(np.sort(ratios), radius_ratios, side="right") / len(ratios)
    return pd.DataFrame({"radius_ratio": radius_ratios, "share": share})


def radial_concentration(embeddings: NDArray[Any], *, share: float = 0.1, seed: int = 0) -> float:
    """Return the normalised radius R/D at which `hollow_structure` reaches a share of the cells.

    Parameters
    ----------
    embeddings
        (n_cells, n_latent) finite, in any unit.
    share
        Share of the cells, 0 to 1.
    seed
        Seed for subsampling cells if there are more than 5,000.

    Returns
    -------
    At least 0. Larger values mean a more hollow structure.

    Raises
    ------
    InputError
        As in `hollow_structure`.
    SettingError
        ``share`` is not a number from 0 to 1.

    Notes
    -----
    The paper only shows the curve of `hollow_structure`. This is the radius at one point of that curve.

    Examples
    --------
    >>> round(radial_concentration(np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])), 3)
    0.707
    """
    check_range("share", share, low=0.0, high=1.0)
    return float(np.quantile(_radius_ratios(embeddings, seed), share, method="inverted_cdf"))


def _edges(adjacency: Matrix) -> tuple[IntArray, IntArray, int]:
    """Return the cells at both ends of the edges, and the number of cells."""
    fix = "Pass a square matrix, such as obsp['spatial_connectivities']."
    matrix: Any = adjacency if sp.issparse(adjacency) else array_of("adjacency", adjacency, fix=fix)
    if matrix.ndim != 2:
        expected = "a graph of cells x cells"
        raise InputError("adjacency", expected=expected, got=f"shape {matrix.shape}", fix=fix)
    graph: Any = sp.coo_matrix(matrix)
    if graph.shape[0] != graph.shape[1]:
        raise InputError(
            "adjacency", expected="a graph of cells x cells", got=f"shape {graph.shape}", fix=fix
        )
    check_array("adjacency", graph.data, expected="finite weights", fix="Check how the graph was computed.")
    is_edge = graph.data != 0
    if not is_edge.any():
        fix = "Pass a graph in which cells have neighbours."
        raise InputError("adjacency", expected="at least one edge", got="none", fix=fix)
    return graph.row[is_edge].astype(np.int64), graph.col[is_edge].astype(np.int64), int(graph.shape[0])


def _permuted(
    count: Callable[[IntArray], IntArray],
    codes: IntArray,
    *,
    n: int,
    stream: np.random.Generator,
    progress: ProgressOption,
) -> tuple[IntArray, IntArray]:
    """Return the counts for the codes, and for each of n permutations of the codes."""
    counted = []
    with progress_callback(progress) as report:
        for done in range(1, n + 1):
            counted.append(count(stream.permutation(codes)))
            report("permutations", done, n)
    return count(codes), np.stack(counted)


def _pair_counts(first: IntArray, second: IntArray, *, shape: tuple[int, int]) -> IntArray:
    """Return how often each pair of codes occurs."""
    return np.bincount(first * shape[1] + second, minlength=shape[0] * shape[1]).reshape(shape)


def _z_scores(count: IntArray, permuted: IntArray) -> DoubleArray:
    """Return (count - mean) / sd over the first axis of the permuted counts; 0 if sd is 0."""
    spread = permuted.std(axis=0)
    apart = count - permuted.mean(axis=0)
    return np.asarray(np.divide(apart, spread, out=np.zeros_like(apart), where=spread > 0))


def _p_values(count: IntArray, permuted: IntArray) -> DoubleArray:
    """Return the two-sided p-value of each count."""
    mean = permuted.mean(axis=0)
    # counts are integers, so a tolerance below 1 only corrects rounding
    as_far = np.abs(permuted - mean) >= np.abs(count - mean) - 1e-9 * (1 + mean)
    return np.asarray((1 + as_far.sum(axis=0)) / (1 + len(permuted)))


def _radius_ratios(embeddings: NDArray[Any], seed: int) -> DoubleArray:
    """Return distances from the mean embedding, in units of the mean nearest-neighbour distance; (n,)."""
    check_seed(seed)
    cells = array_of("embeddings", embeddings, fix="Pass a matrix, such as obsm of a placement.")
    check_array(
        "embeddings",
        cells,
        fits=cells.ndim == 2 and len(cells) >= 2,
        expected="finite values, cells x latent, of at least 2 cells",
        fix="Check how the embeddings were computed.",
    )
    if (cells == cells[0]).all():
        raise InputError(
            "embeddings",
            expected="cells that differ",
            got=f"{len(cells):,} identical cells",
            fix="Check how the embeddings were computed.",
        )
    # centred, so that distances are exact
    centred = cells - cells.mean(axis=0)
    return np.asarray(np.linalg.norm(centred, axis=1) / _nearest_distance(centred, seed))


def _nearest_distance(cells: DoubleArray, seed: int) -> float:
    """Return the mean distance of a cell to its nearest neighbour that is not identical to it."""
    from sklearn.neighbors import NearestNeighbors

    distinct = np.unique(cells, axis=0)
    queries = distinct
    if len(distinct) > _MOST_QUERIES:
        draw = numpy_stream(seed, "niches.nearest").choice(len(distinct), _MOST_QUERIES, replace=False)
        queries = distinct[np.sort(draw)]
    # brute force works in blocks, without a cells x cells matrix; trees do not help in 128 dimensions
    index = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(distinct)
    two = distinct[index.kneighbors(queries, return_distance=False)]  # n_queries x 2 x n_latent
    # one of the two is the cell itself; differences give exact distances even for close cells
    return float(np.linalg.norm(two - queries[:, None], axis=2).max(axis=1).mean())
