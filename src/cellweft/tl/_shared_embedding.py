"""Both sides in the space in which a fitted Imputer compares them; mixing, and presence of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from sklearn.neighbors import NearestNeighbors

from cellweft._compute import READ_ROWS, numpy_stream, row_blocks, sample_rows
from cellweft._errors import InputError, check_array, check_kind, check_range
from cellweft._typing import DoubleArray, FloatArray
from cellweft.data._pair import labels_of
from cellweft.data.io.keys import SHARED_EMBEDDING, SIDE
from cellweft.tl._fitted import fitted_with_data

if TYPE_CHECKING:
    from cellweft.data._pair import Labels, Pair
    from cellweft.data.side import SideName
    from cellweft.impute.base import FittedMethod
    from cellweft.impute.imputer import Imputer

_SIDES = ("reference", "spatial")
_SCORED = 5000  # cells of each side used to score mixing


def shared_embedding(imputer: Imputer, *, pair: Pair | None = None) -> AnnData:
    """Return the cells of reference and tissue in the space in which the Imputer compares them.

    Parameters
    ----------
    imputer
        A fitted Imputer.
    pair
        The data; by default those passed to `fit` or `attach`.

    Returns
    -------
    AnnData
        Without a matrix: the reference's cells, then the spatial ones. ``obsm["X_cellweft"]``: (n_cells,
        n_latent) float32, of unit length, or zero for cells without counts in the panel; with "auto" the
        output of the learned map, with "stimpute" the latent space of its autoencoder. ``obs["side"]``:
        "reference" or "spatial"; ``obs["label"]``: the cell types, if there are any. A spatial cell with the
        same name as a reference cell gets a number appended. The order is that of the pair.

    Raises
    ------
    NotFittedError
        The Imputer is not fitted.

    Notes
    -----
    To plot it: ``scanpy.pp.neighbors(both, use_rep="X_cellweft")``, ``scanpy.tl.umap(both)`` and
    ``scanpy.pl.umap(both, color=["side", "label"])``.

    Examples
    --------
    >>> import cellweft
    >>> tissue = cellweft.datasets.simulate_tissue(n_spatial=80, n_reference=60, n_genes=24, n_panel=12)
    >>> imputer = cellweft.Imputer(settings={"steps": 5, "level_steps": 5}, reliability=False)
    >>> both = shared_embedding(imputer.fit(cellweft.pair(tissue.sc, tissue.st)))
    >>> both.obsm["X_cellweft"].shape
    (140, 12)
    """
    fitted, pair = _fitted(imputer, pair)
    parts = [_embedded(fitted, pair, "reference"), _embedded(fitted, pair, "spatial")]
    sizes, sides = [len(values) for values in parts], [*_SIDES]
    names = [*map(str, pair.sc.obs_names), *map(str, pair.st.obs_names)]
    obs = pd.DataFrame({SIDE: pd.Categorical(np.repeat(sides, sizes), categories=sides)}, index=names)
    labels = (pair.labels, pair.st_labels)
    if any(values is not None for values in labels):
        side_labels = [
            np.full(size, "unknown", dtype=object) if values is None else values
            for values, size in zip(labels, sizes, strict=True)
        ]
        obs["label"] = pd.Categorical(np.concatenate(side_labels).astype(str))
    embedding = AnnData(obs=obs, obsm={SHARED_EMBEDDING: np.concatenate(parts)})
    embedding.obs_names_make_unique()
    return embedding


def mixing(both: AnnData, *, k: int = 30, seed: int = 0) -> float:
    """Return how well reference and tissue are mixed in the shared embedding.

    Parameters
    ----------
    both
        Result of `shared_embedding`.
    k
        Number of neighbours of each cell.
    seed
        Random seed for subsampling: the same number of cells from each side is compared, at most 5,000.

    Returns
    -------
    The mean share of neighbours that are from the other input, divided by the share expected by chance: 0 if
    none are, 1 if both sides are mixed at random.

    Raises
    ------
    InputError
        ``both`` is not a result of `shared_embedding`, or has no cells with counts on one of the sides.
    SettingError
        ``k`` out of range.

    Notes
    -----
    A type that occurs in only one of the two inputs lowers the score. Good mixing does not prove that the
    embedding is right.
    """
    check_kind(
        "both", both, AnnData, expected="an AnnData", fix="Pass the result of cellweft.tl.shared_embedding."
    )
    if SHARED_EMBEDDING not in both.obsm or SIDE not in both.obs:
        raise InputError(
            "both",
            expected=f"obsm[{SHARED_EMBEDDING!r}] and obs[{SIDE!r}]",
            got="an AnnData without them",
            fix="Pass the result of cellweft.tl.shared_embedding.",
        )
    embedded = np.asarray(both.obsm[SHARED_EMBEDDING])
    fix = "Pass the result of cellweft.tl.shared_embedding, with cells of both sides."
    where = f"both.obsm[{SHARED_EMBEDDING!r}]"
    check_array(where, embedded, expected="finite numbers, a row for each cell", fix=fix)
    side, has_counts = both.obs[SIDE].astype(str).to_numpy(), embedded.any(axis=1)
    is_spatial = (side == "spatial") & has_counts
    sides = [np.flatnonzero((side == "reference") & has_counts), np.flatnonzero(is_spatial)]
    n_each = min(*map(len, sides), _SCORED)
    if not n_each:
        got = " and ".join(f"{len(part):,} {name}" for part, name in zip(sides, _SIDES, strict=True))
        raise InputError(
            "both", expected=f"cells with counts of both sides in obs[{SIDE!r}]", got=got, fix=fix
        )
    check_range("k", k, low=1, high=max(2 * n_each - 1, 1), integer=True)
    drawn = [sample_rows(rows, n_each, numpy_stream(seed, "mixing")) for rows in sides]
    cells = np.concatenate(drawn)
    near = NearestNeighbors(n_neighbors=k).fit(embedded[cells]).kneighbors(return_distance=False)
    is_other = is_spatial[cells][near] != is_spatial[cells][:, None]
    expected = n_each / (2 * n_each - 1)
    return float(is_other.mean() / expected)


def presence(
    imputer: Imputer, labels: Labels = None, *, pair: Pair | None = None
) -> tuple[pd.Series[float], pd.DataFrame]:
    """Return how much of the weight each cell and each type of the reference gets from the tissue.

    Parameters
    ----------
    imputer
        A fitted Imputer.
    labels
        Cell types of the reference: a column of its ``obs``, (n_sc,) values, or None for ``pair.labels``.
    pair
        The data; by default those passed to `fit` or `attach`.

    Returns
    -------
    cells : Series
        (n_sc,) the weight that each reference cell gets from all spatial cells with counts, relative to the
        mean: 1 is average, 0 means that the cell is never used.
    types : DataFrame
        One row per type, sorted by ``presence``, highest first: ``share`` of the weights, summing to 1;
        ``in_reference``, its share of the reference cells; ``presence``, the ratio of the two.

    Raises
    ------
    NotFittedError
        The Imputer is not fitted.
    KeyMissingError, InputError
        No such labels, or not one for each cell.

    Notes
    -----
    Weights are diffuse: even types that are missing from the tissue get some. Compare types only within one
    tissue.
    """
    fitted, pair = _fitted(imputer, pair)
    kinds = labels_of(pair, labels).astype(str)
    mass: DoubleArray = np.zeros(pair.sc.n_cells)
    for rows in row_blocks(pair.st.n_cells, READ_ROWS):
        measured = pair.st.dense(rows, pair.st_shared)
        counts = torch.from_numpy(measured.any(axis=1).astype(np.float32))[:, None].to(fitted.device)
        mass += fitted.operator(measured).apply_transpose(counts)[:, 0].cpu().double().numpy()
    share = pd.Series(mass / max(mass.sum(), 1e-300)).groupby(kinds).sum()
    in_reference = pd.Series(kinds).value_counts(normalize=True)
    types = pd.DataFrame({"share": share, "in_reference": in_reference.reindex(share.index)})
    types["presence"] = types["share"] / types["in_reference"]
    cells = pd.Series(mass / max(mass.mean(), 1e-300), index=pair.sc.obs_names, name="presence")
    return cells, types.sort_values("presence", ascending=False, kind="stable").rename_axis("type")


def _fitted(imputer: Imputer, pair: Pair | None) -> tuple[FittedMethod, Pair]:
    if not hasattr(imputer, "fitted_"):
        fix = "Fit one: cellweft.Imputer().fit(pair)."
        raise InputError("imputer", expected="a fitted Imputer", got=f"a {type(imputer).__name__}", fix=fix)
    return fitted_with_data(imputer, pair)


def _embedded(fitted: FittedMethod, pair: Pair, of: SideName) -> FloatArray:
    """Return the embeddings of a side, (n_cells, n_latent)."""
    side, genes = (pair.sc, pair.sc_shared) if of == "reference" else (pair.st, pair.st_shared)
    blocks = row_blocks(side.n_cells, READ_ROWS)
    return np.concatenate([fitted.embed(side.dense(rows, genes), of=of) for rows in blocks])
