"""Clusters of cells and modules of genes in an expression matrix, and the agreement of two clusterings."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from cellweft._errors import InputError, array_of, check_array, check_range, check_seed, require
from cellweft._statistics import centred, unit_length
from cellweft._typing import DoubleArray, IntArray

_N_PCS = 50
_N_NEIGHBORS = 15  # including the cell itself; both are scanpy's defaults


def cluster_scores(labels: NDArray[Any], clusters: NDArray[Any]) -> dict[str, float]:
    """Score the agreement between clusters and labels.

    Parameters
    ----------
    labels, clusters
        (n_cells,) each: the true label and the cluster of every cell.

    Returns
    -------
    ``ari``
        Adjusted Rand index, at most 1; 0 is expected by chance.
    ``fmi``
        Fowlkes-Mallows index, 0 to 1; not adjusted for chance.
    ``completeness``
        0 to 1; 1 if all cells of each label are in the same cluster, which also holds if there is only one
        cluster.
    ``nmi``
        Normalised mutual information, 0 to 1; not adjusted for chance, so it increases with the number of
        clusters.

    Raises
    ------
    InputError
        The two have different lengths, or are empty.

    Examples
    --------
    >>> import numpy as np
    >>> cluster_scores(np.array(["a", "a", "b", "b"]), np.array([1, 1, 0, 0]))["ari"]
    1.0
    """
    from sklearn import metrics

    fix = "Pass labels and clusters of the same cells."
    labels = array_of("labels", labels, fix=fix, numbers=False)
    clusters = array_of("clusters", clusters, fix=fix, numbers=False)
    if labels.ndim != 1 or labels.shape != clusters.shape or len(labels) == 0:
        raise InputError(
            "clusters",
            expected=f"one cluster for each of the {labels.size} labels (at least one)",
            got=f"{len(clusters)}" if clusters.ndim == labels.ndim == 1 else f"shape {clusters.shape}",
            fix=fix,
        )
    scores = {
        "ari": metrics.adjusted_rand_score,
        "fmi": metrics.fowlkes_mallows_score,
        "completeness": metrics.completeness_score,
        "nmi": metrics.normalized_mutual_info_score,
    }
    return {name: float(score(labels, clusters)) for name, score in scores.items()}


def leiden_clusters(expression: NDArray[Any], *, seed: int, resolution: float = 1.0) -> IntArray:
    """Cluster cells with the Leiden algorithm.

    Parameters
    ----------
    expression
        Log-normalised, n_cells x n_genes, finite.
    seed
        Seed of the PCA and of the Leiden algorithm. The global random state is neither read nor written.
    resolution
        Higher values give more clusters.

    Returns
    -------
    Cluster of every cell, (n_cells,), numbered from 0 by decreasing size. If all cells are identical, or
    there are fewer than three, all get 0.

    Raises
    ------
    InputError
        ``expression`` is not a matrix, is empty or contains NaN.
    SettingError
        ``resolution`` is not a number above 0.
    MissingExtraError
        graspologic-native is not installed.

    Notes
    -----
    Uses scanpy's defaults: 50 principal components (fewer if there are fewer genes or cells), 15 nearest
    neighbours including the cell itself, UMAP's weights (McInnes et al. 2018, section 3.1), and two
    iterations of the Leiden algorithm on modularity. The algorithm is that of graspologic-native (extra
    ``clustering``); that of igraph, which scanpy uses, gives clusters that agree with cell types equally well
    (docs/house.md). The weights are computed here because umap-learn compiles itself for 10 to 50 seconds in
    a new process, and the neighbours are exact because its index depends on the number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> leiden_clusters(np.ones((4, 2)), seed=0)
    array([0, 0, 0, 0])
    """
    from sklearn.decomposition import PCA

    check_seed(seed)
    expression = _check_expression(expression)
    check_range("resolution", resolution, low=1e-9)
    n_cells, n_genes = expression.shape
    if n_cells < 3 or np.all(expression == expression[0]):
        return np.zeros(n_cells, dtype=np.int64)
    if min(n_cells, n_genes) > _N_PCS:
        expression = PCA(_N_PCS, random_state=seed % 2**32).fit_transform(expression)
    graph = _cell_graph(expression, k=min(_N_NEIGHBORS, n_cells) - 1)
    return _leiden(graph, seed=seed, resolution=resolution)


def _cell_graph(positions: NDArray[Any], *, k: int) -> sp.csr_matrix:
    """Return UMAP's symmetric n_cells x n_cells weights, over the k nearest other cells of each cell."""
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(positions)
    distances, neighbors = index.kneighbors()  # n_cells x k, without the cell itself
    n_cells = len(distances)
    # the distance to the nearest cell that is not identical, at which weights start to decrease from 1
    nearest = np.where(distances > 0, distances, np.inf).min(axis=1)
    nearest[np.isinf(nearest)] = 0.0
    beyond = np.maximum(distances - nearest[:, None], 0.0)
    width = _kernel_widths(beyond, np.log2(k + 1))
    # UMAP's lower bound: a thousandth of the mean distance of this cell, or of all cells if all its
    # neighbours are copies
    own, overall = distances.mean(axis=1) * k / (k + 1), distances.mean() * k / (k + 1)
    width = np.maximum(width, 1e-3 * np.where(nearest > 0, own, overall))
    weights = np.exp(-beyond / np.where(width > 0, width, 1.0)[:, None])
    one_way = sp.csr_matrix(
        (weights.ravel(), neighbors.ravel(), np.arange(0, n_cells * k + 1, k)), shape=(n_cells, n_cells)
    )
    return sp.csr_matrix(one_way + one_way.T - one_way.multiply(one_way.T))


def _kernel_widths(beyond: DoubleArray, target: float) -> DoubleArray:
    """Return, for each row, the width w with sum_j exp(-beyond_j / w) = target, by bisection; (n_cells,)."""
    low, high = np.zeros(len(beyond)), np.full(len(beyond), np.inf)
    width = np.ones(len(beyond))
    for _ in range(64):
        total = np.exp(-beyond / width[:, None]).sum(axis=1)
        if np.all(np.abs(total - target) < 1e-5):
            break
        high = np.where(total > target, width, high)
        low = np.where(total > target, low, width)
        width = np.where(np.isinf(high), 2 * width, (low + np.minimum(high, 1e300)) / 2)
    return width


def coexpression_modules(
    expression: NDArray[Any], genes: NDArray[Any], *, seed: int, k: int = 5, resolution: float = 1.0
) -> pd.Series[int]:
    """Group genes into modules of co-expression.

    Parameters
    ----------
    expression
        Log-normalised, n_cells x n_genes, finite.
    genes
        Names of the columns, (n_genes,).
    seed
        Seed of the Leiden algorithm. The global random state is neither read nor written.
    k
        Number of genes that each gene is linked to: those with the highest correlation, if it is above 0.
    resolution
        Higher values give more modules.

    Returns
    -------
    Module of every gene, by name, numbered from 0 by decreasing size. Genes that correlate with no other
    gene, such as constants, get -1.

    Raises
    ------
    InputError
        ``expression`` is not a matrix, is empty or contains NaN, or the number of names does not match.
    SettingError
        ``k`` is below 1, or ``resolution`` is not above 0.
    MissingExtraError
        graspologic-native is not installed (extra ``clustering``).

    Notes
    -----
    Links are weighted by the Pearson correlation. Leiden maximises modularity. Needs memory for n_genes x
    n_genes numbers.

    Examples
    --------
    >>> import numpy as np
    >>> up, down = np.arange(6.0), np.array([1.0, -1.0, 0.0, 0.0, -1.0, 1.0])
    >>> expression = np.column_stack([up, 2 * up, down, 3 * down, np.ones(6)])
    >>> coexpression_modules(expression, np.array(list("abcde")), seed=0, k=1).to_dict()
    {'a': 0, 'b': 0, 'c': 1, 'd': 1, 'e': -1}
    """
    expression = _check_expression(expression)
    check_range("k", k, low=1, integer=True)
    check_range("resolution", resolution, low=1e-9)
    n_genes = expression.shape[1]
    fix = "Pass one name per column of the matrix."
    names = array_of("genes", genes, fix=fix, numbers=False)
    if names.shape != (n_genes,):
        got = f"{len(names)}" if names.ndim == 1 else f"shape {names.shape}"
        raise InputError("genes", expected=f"{n_genes} names, one per column", got=got, fix=fix)
    graph = _gene_graph(expression, k=min(k, n_genes - 1))
    modules = np.full(n_genes, -1, dtype=np.int64)
    linked = np.flatnonzero(np.asarray(graph.sum(axis=0)).ravel() > 0)
    if linked.size:
        modules[linked] = _leiden(graph[linked][:, linked], seed=seed, resolution=resolution)
    return pd.Series(modules, index=pd.Index(names, name="gene"), name="module")


def _gene_graph(expression: NDArray[Any], *, k: int) -> sp.csr_matrix:
    """Return symmetric n_genes x n_genes weights: the k highest correlations of each gene, if above 0."""
    columns = unit_length(centred(expression))  # constant genes are zeros, without correlations
    correlation = columns.T @ columns
    n_genes = len(correlation)
    np.fill_diagonal(correlation, -np.inf)  # no gene is its own neighbour
    best = np.argsort(-correlation, axis=1, kind="stable")[:, :k]  # n_genes x k
    rows = np.repeat(np.arange(n_genes), k)
    weights = correlation[rows, best.ravel()]
    # ignore correlations due to rounding
    keep = weights > 1e-9
    graph = sp.csr_matrix(
        (weights[keep], (rows[keep], best.ravel()[keep])), shape=(n_genes, n_genes), dtype=np.float64
    )
    return sp.csr_matrix(graph.maximum(graph.T))


def _leiden(weights: sp.csr_matrix, *, seed: int, resolution: float) -> IntArray:
    """Return the Leiden group of each node of a symmetric graph without loops; the largest group is 0."""
    check_seed(seed)
    _, group_of = require_leiden().leiden_csr(
        weights.indptr.astype(np.int64),
        weights.indices.astype(np.int32),
        weights.data.astype(np.float64),
        weights.shape[0],
        resolution=resolution,
        iterations=2,
        use_modularity=True,
        seed=seed,
    )
    groups = np.array([group_of[node] for node in range(weights.shape[0])])
    # renumbered by decreasing size, ties by their first member
    _, first, inverse, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    return np.asarray(np.argsort(np.lexsort((first, -sizes)))[inverse])


def require_leiden(*, otherwise: str = "") -> ModuleType:
    """Import the package with the Leiden algorithm, or raise `MissingExtraError`."""
    return require("graspologic_native", "clustering", otherwise=otherwise)


def _check_expression(expression: NDArray[Any]) -> NDArray[Any]:
    fix = "Pass a matrix of cells x genes, such as X or a layer of an AnnData."
    expression = array_of("expression", expression, fix=fix)
    check_array(
        "expression",
        expression,
        fits=expression.ndim == 2 and expression.size > 0,
        expected="a matrix of finite values, cells x genes, with at least one of each",
        fix="Check how the matrix was computed.",
    )
    return expression
