"""Training data of STEM: model inputs of both sides, and batches of cells and spots."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from cellweft._compute import READ_ROWS, numpy_stream, row_blocks, sample_rows
from cellweft._errors import InputError, check_choice, check_range
from cellweft._typing import DoubleArray, FloatArray, IntArray, Kernel
from cellweft.data._pair import Pair
from cellweft.data.io.backed_matrix import Rows
from cellweft.data.side import Side
from cellweft.nn.config import StemSettings
from cellweft.nn.stem import Batch, matching_dropout

KERNELS: tuple[Kernel, ...] = ("gaussian", "exponential", "knn")
_SAMPLE = 5000  # cells and spots used for means and axes of expression
_GENE_ROWS = 5000  # spots used to choose variable genes
_LEAST_ROWS = 3  # a gene detected in fewer is rare, not variable
_NUMBA = threading.Lock()  # numba, used by scanpy, supports one calling thread at a time
_SIGMA_WHOLE, _SIGMA_PART = (0.5, 0.8)  # in spot spacings: slices that fit in a batch, larger ones


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelInput:
    """One side as input of the encoder.

    Attributes
    ----------
    side
        The side, normalised to the total used in training.
    genes
        (n_genes,) positions of the model's genes in ``side.genes``.
    """

    side: Side
    genes: IntArray

    def values(self, rows: Rows) -> FloatArray:
        """Return log-normalised values, (n_rows, n_genes) float32."""
        return self.side.dense(rows, self.genes)

    def sparse(self, rows: IntArray) -> sp.csr_matrix:
        """Return the same for many rows, read by blocks, as a sparse matrix."""
        parts = row_blocks(len(rows), READ_ROWS)
        blocks = [sp.csr_matrix(self.side.block(rows[part], self.genes)) for part in parts]
        return sp.csr_matrix(sp.vstack(blocks, format="csr"))


def totals_of(pair: Pair, settings: StemSettings) -> tuple[float, float]:
    """Return the totals to which cells and spots are normalised, according to ``settings.total``."""
    if settings.total == "median":
        return pair.sc.target, pair.st.target
    multiple = 1.0 if isinstance(settings.total, str) else float(settings.total)
    return multiple * pair.sc.target, multiple * pair.sc.target


def model_inputs(
    pair: Pair, genes: Iterable[str], totals: tuple[float, float]
) -> tuple[ModelInput, ModelInput]:
    """Return cells and spots as inputs of the encoder.

    Parameters
    ----------
    pair
        The data.
    genes
        Names of the model's genes, all of them shared genes.
    totals
        Totals to which cells and spots are normalised.

    Raises
    ------
    GeneError
        A gene that is not shared.

    Notes
    -----
    Values that are already logarithms are not changed. If the reference has batches, their genes are at one
    level, and all totals at that of the cells.
    """
    places = pair.find_shared(genes, where="genes of the model")
    batches = None if pair.sc.batches is None else pair.sc.batches.at_one_depth()
    cells = ModelInput(side=replace(pair.sc, target=totals[0], batches=batches), genes=pair.sc_shared[places])
    return cells, ModelInput(side=replace(pair.st, target=totals[1]), genes=pair.st_shared[places])


def model_genes(pair: Pair, settings: StemSettings, *, seed: int) -> NDArray[np.str_]:
    """Return the genes of the encoder: the panel, or its most variable genes.

    Parameters
    ----------
    pair
        The data.
    settings
        ``n_genes`` is the largest number of genes; with several slices, ``slice_genes`` applies.
    seed
        Seed of the sample of spots.

    Notes
    -----
    Uses scanpy's dispersions (flavour "seurat") of the spots. In the paper ("Data preprocessing"), the union
    of 2,000 genes of each of the liver's four sections has 4,866 genes.
    """
    if len(pair.shared_genes) <= settings.n_genes:
        return pair.shared_genes
    side = ModelInput(side=pair.st, genes=pair.st_shared)
    spots = np.flatnonzero(~pair.st.empty_cells)
    if settings.slice_genes == "union" and pair.slices is not None:
        parts = [spots[pair.slices[spots] == name] for name in np.unique(pair.slices[spots])]
        scores = [_dispersion(side, part, slices=None, seed=seed) for part in parts]
    else:
        scores = [_dispersion(side, spots, slices=pair.slices, seed=seed)]
    chosen = np.zeros(len(pair.shared_genes), dtype=np.bool_)
    for score in scores:
        usable = int(np.isfinite(score).sum())
        chosen[np.argsort(-score, kind="stable")[: min(settings.n_genes, usable)]] = True
    names: NDArray[np.str_] = pair.shared_genes[chosen]
    return names


def _dispersion(
    side: ModelInput, rows: IntArray, *, slices: NDArray[np.str_] | None, seed: int
) -> DoubleArray:
    """Return the variability of each gene, (n_genes,), higher for more variable ones; -inf for rare genes."""
    import scanpy as sc
    from anndata import AnnData

    rows = sample_rows(rows, _GENE_ROWS, numpy_stream(seed, "variable genes"))
    values = side.sparse(rows)
    n_seen = np.diff(values.tocsc().indptr)
    seen = np.flatnonzero(n_seen >= max(min(_LEAST_ROWS, n_seen.max()), 1))
    data, batch = AnnData(values[:, seen]), None
    if slices is not None and len(np.unique(slices[rows])) > 1:
        data.obs["slice"], batch = pd.Categorical(slices[rows]), "slice"
    with _NUMBA, _threads_kept():
        table = sc.pp.highly_variable_genes(data, flavor="seurat", batch_key=batch, inplace=False)
    dispersions = table["dispersions_norm"].fillna(table["dispersions_norm"].min()).fillna(0.0).to_numpy()
    if batch is not None:  # sort by the number of slices in which a gene is variable
        dispersions = dispersions + 1e3 * table["highly_variable_nbatches"].to_numpy()
    score = np.full(len(n_seen), -np.inf)
    score[seen] = dispersions
    return score


def slice_members(pair: Pair) -> dict[str, IntArray]:
    """Return the positions of the spots of each slice, by name, in the order of the names."""
    if pair.slices is None:
        return {"": np.arange(pair.st.n_cells)}
    return {str(name): np.flatnonzero(pair.slices == name) for name in np.unique(pair.slices)}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Slice:
    rows: sp.csr_matrix  # n_drawn x n_genes
    coordinates: DoubleArray
    n_spots: int  # in the slice, drawn or not


class BatchSource:
    """Batches of cells and of spots for training, from sparse samples of both sides of limited size.

    Parameters
    ----------
    inputs
        Cells and spots as inputs of the encoder.
    coordinates
        (n_spots, 2 or 3)
    members
        Positions of the spots of every slice.
    spacing
        Spacing of the spots, in the unit of the coordinates.
    settings, seed
        Settings of the training, and the random seed.

    Notes
    -----
    If a slice has more spots than a batch, a batch is drawn from the whole slice, and the width of the kernel
    increases with the distance between the drawn spots. With batches of neighbouring spots, the encoder would
    learn to distinguish a position from its surroundings, but not from the rest of the tissue.
    """

    def __init__(
        self,
        inputs: tuple[ModelInput, ModelInput],
        coordinates: DoubleArray,
        *,
        members: list[IntArray],
        spacing: float,
        settings: StemSettings,
        seed: int,
    ) -> None:
        self._settings, self._seed = settings, seed
        stream = numpy_stream(seed, "stem training rows")
        cells = sample_rows(np.flatnonzero(~inputs[0].side.empty_cells), settings.training_cells, stream)
        self._cells = inputs[0].sparse(cells)
        check_counts(inputs[0], self._cells.nnz)
        n_spots = sum(map(len, members))
        self._slices = []
        for spots in members:
            ordered = spots[np.lexsort(coordinates[spots].T)]  # independent of their order in the file
            most = -(-settings.training_spots * len(spots) // n_spots)
            drawn = ordered[sample_rows(np.arange(len(ordered)), most, stream)]
            back = np.argsort(np.argsort(drawn))  # rows are read in file order
            rows = inputs[1].sparse(np.sort(drawn))[back]
            self._slices.append(_Slice(rows=rows, coordinates=coordinates[drawn], n_spots=len(spots)))
        check_counts(inputs[1], sum(section.rows.nnz for section in self._slices))
        self._shares = np.array([len(spots) for spots in members]) / n_spots
        self._spacing = spacing
        self._whole: dict[tuple[int, torch.device], tuple[torch.Tensor, torch.Tensor]] = {}
        self._streams: dict[int, np.random.Generator] = {}

    def dropout(self) -> float:
        """Return the share of the spots' values to drop, from the settings or the formula."""
        if self._settings.dropout is not None:
            return self._settings.dropout
        spots = np.concatenate([np.diff(section.rows.indptr) for section in self._slices])
        return matching_dropout(float(np.median(np.diff(self._cells.indptr))), float(np.median(spots)))

    def sample(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a sample of cells and of spots of all slices, dense, at most 5,000 of each, on the CPU."""
        spots = sp.vstack([section.rows for section in self._slices], format="csr")
        stream = numpy_stream(self._seed, "stem sample")
        drawn = [
            rows[sample_rows(np.arange(rows.shape[0]), _SAMPLE, stream)] for rows in (self._cells, spots)
        ]
        return _tensor(drawn[0], torch.device("cpu")), _tensor(drawn[1], torch.device("cpu"))

    def draw(self, model: int, step: int, device: torch.device) -> Batch:
        """Return the batch of a step: any cells, spots of one slice. Several models may draw in parallel.

        Parameters
        ----------
        model
            Number of the encoder; each has its own random stream.
        step
            Number of the step, from 0, in increasing order.
        device
            Device of the batch.
        """
        if step == 0 or model not in self._streams:
            self._streams[model] = numpy_stream(self._seed, f"stem batches {model}")
        stream = self._streams[model]
        number = int(stream.choice(len(self._slices), p=self._shares))
        n_cells = self._cells.shape[0]
        rows = stream.choice(n_cells, min(self._settings.batch_cells, n_cells), replace=False)
        spots, adjacency = self._spots(number, stream, device)
        return Batch(cells=_tensor(self._cells[rows], device), spots=spots, adjacency=adjacency)

    def _spots(
        self, number: int, stream: np.random.Generator, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        one, settings = self._slices[number], self._settings
        if (number, device) in self._whole:
            return self._whole[number, device]
        drawn = sample_rows(np.arange(len(one.coordinates)), settings.batch_spots, stream)
        coordinates = one.coordinates[drawn]
        spacing = self._spacing * (one.n_spots / len(drawn)) ** (1 / coordinates.shape[1])  # of drawn spots
        sigma = settings.sigma
        if sigma is None:
            sigma = _SIGMA_WHOLE if len(drawn) == one.n_spots else _SIGMA_PART
        adjacency = spatial_adjacency(
            coordinates, kernel=settings.kernel, width=sigma * spacing, k=settings.kernel_neighbors
        )
        spots = _tensor(one.rows[drawn], device), torch.from_numpy(adjacency).to(device)
        if len(one.coordinates) <= settings.batch_spots:
            self._whole[number, device] = spots
        return spots


def spatial_adjacency(
    coordinates: DoubleArray, *, kernel: Kernel = "gaussian", width: float = 1.0, k: int = 6
) -> FloatArray:
    """Return S of STEM: the adjacency of spots of one slice.

    Parameters
    ----------
    coordinates
        (n_spots, 2 or 3) coordinates of a batch; the result is n_spots x n_spots.
    kernel
        "gaussian", exp(-d^2 / (2 width^2)); "exponential", exp(-d / width); "knn", 1 for the ``k`` nearest
        spots, the spot itself included, else 0.
    width
        Sigma, or the scale of the exponential, in the unit of the coordinates, above 0.
    k
        Number of neighbours of the "knn" kernel; all spots if there are fewer.

    Returns
    -------
    (n_spots, n_spots) float32, not negative; rows sum to 1.

    Raises
    ------
    SettingError
        An unknown kernel, or a width or k out of range.

    Notes
    -----
    STEM, "Spatial adjacency matrix" and "Constructing ground truth ST spatial adjacency".

    Examples
    --------
    >>> spatial_adjacency(np.array([[0.0, 0.0], [1.0, 0.0]]), kernel="exponential").round(2)
    array([[0.73, 0.27],
           [0.27, 0.73]], dtype=float32)
    """
    check_choice("kernel", kernel, KERNELS)
    check_range("k", k, low=1, integer=True)
    check_range("width", width, low=np.finfo(float).tiny)
    n_spots = len(coordinates)
    if kernel == "knn":
        nearest = cKDTree(coordinates).query(coordinates, k=min(k, n_spots))[1].reshape(n_spots, -1)
        near = np.zeros((n_spots, n_spots))
        np.put_along_axis(near, nearest, 1.0, axis=1)
    else:
        distances = cdist(coordinates, coordinates) / width
        near = np.exp(-0.5 * distances**2 if kernel == "gaussian" else -distances)
    return np.asarray(near / near.sum(axis=1, keepdims=True), dtype=np.float32)


def _tensor(rows: sp.csr_matrix, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(rows.toarray()).to(device)


def check_counts(side: ModelInput, n_values: int) -> None:
    """Raise `InputError` if a side has no counts in the model's genes."""
    if not n_values:
        raise InputError(
            f"the {side.side.name} data",
            expected="cells with counts of the model's genes",
            got=f"none in {side.side.n_cells:,} cells",
            fix="Check the layer, and the genes that both inputs share.",
        )


@contextlib.contextmanager
def _threads_kept() -> Iterator[None]:
    """Keep torch's number of threads, because numba, used by scanpy, sets it for the whole process.

    Otherwise, the speed of training and the order of sums would depend on earlier work in the process.
    """
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
