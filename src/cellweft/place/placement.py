"""The Placement: the positions of all cells, as operators that are evaluated on request."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch
from anndata import AnnData
from numpy.typing import NDArray

from cellweft._compute import numpy_of, parse_memory, progress_callback
from cellweft._errors import (
    InputError,
    MemoryBudgetError,
    SettingError,
    arg,
    check_choice,
    check_range,
    checks_kinds,
    positions_of,
)
from cellweft._statistics import row_shares
from cellweft._text import NotebookText, enough_bytes, human_bytes, shorten
from cellweft._typing import BoolArray, DoubleArray, FloatArray, IntArray, ProgressOption
from cellweft.data._pair import Labels, Pair, coordinates_of, labels_of, pictures_of
from cellweft.data.cell_values import column_values, given_values, mean_of
from cellweft.data.io.keys import EMBEDDING, PLACES, PREFIX, PROPORTIONS, RECORD
from cellweft.data.side import gene_table
from cellweft.nn.clustered_mapping import AnyMapping, make_mapping
from cellweft.nn.mapping import Mapping
from cellweft.nn.stem import StemModel
from cellweft.place.assignment import assign_cells
from cellweft.place.cell_graph import knn_matrix, nearest_by_overlap, nearest_by_product, spot_nearness
from cellweft.place.locations import (
    KEPT_SPOTS,
    Places,
    encoder_mappings,
    find_places,
    heaviest_of,
    place_radius,
    sparse_weights,
)
from cellweft.place.training_data import ModelInput

Which: TypeAlias = Literal["cells", "spots"]
"""One of the two sides of a mapping."""

Nearness: TypeAlias = Literal["place", "embedding"]
"""What defines neighbours: the positions of cells, or the product of their embeddings."""

AXES = ("x", "y", "z")
_OVERLAP_SPOTS = 50  # spots per cell in the proximity of two cells
_READ_KEYS = 2048  # cells per read when genes are transferred to spots


@dataclass(frozen=True, kw_only=True, eq=False)
class Placement(NotebookText):
    """Cells mapped to the spots of a tissue. Returned by `cellweft.Placer.place`.

    The mapping matrices are never kept in memory; all methods compute them in blocks. `coordinates`, `table`
    and the 64 largest weights of each cell, which `topk`, `assign` and `neighbors` use, are computed together
    once and then kept.

    Attributes
    ----------
    pair
        The pair that was placed: the cells as its reference, and the spots.
    model
        The fitted model.
    inputs
        Model inputs of cells and spots.
    cells, spots
        (n_cells, n_latent) and (n_spots, n_latent) embeddings from the encoders, joined with the expression
        that is compared directly. Their products are the logarithms of the mapping's weights. Rows without
        counts in the model's genes are zero.
    spot_groups
        Indices of the spots of each slice, by slice name; spots without counts are left out.
    slice_of_cells
        (n_cells,) number of the slice, in `spot_groups`, that fits each cell best.
    genes
        (n_genes,) names of the genes that the model uses.
    record
        Record of how it was made.

    Notes
    -----
    C, from cells to spots, is the softmax over the spots of *one* slice, the one that fits the cell best:
    coordinates of different slices are never mixed. C^, from spots to cells, is the softmax over all cells. A
    cell without counts in the model's genes is mapped equally to all spots of the first slice, with
    confidence 0. A spot without such counts is mapped equally to all cells, and no cell is mapped to it.

    If a slice has more than 16,384 spots and more than 2^30 pairs of a cell and a spot, small weights are
    summarised by groups of spots (`cellweft.nn.clustered_mapping`), in C and in C^. Radii and `impute` use
    all weights.
    """

    pair: Pair
    model: StemModel
    inputs: tuple[ModelInput, ModelInput]
    cells: torch.Tensor
    spots: torch.Tensor
    spot_groups: dict[str, IntArray]
    slice_of_cells: IntArray
    genes: NDArray[np.str_]
    record: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"Placement({len(self.cells):,} cells on {len(self.spots):,} spots"
            f"{f' of {len(self.spot_groups)} slices' if len(self.spot_groups) > 1 else ''})"
        )

    def _details(self) -> str:
        labels = self.pair.labels
        types = "none" if labels is None else f"{len(np.unique(labels)):,}"
        return "\n".join(
            (
                f"genes of the model   {len(self.genes):,}",
                f"types of the cells   {types}",
                f"cells without counts {int(self._blank.sum()):,}",
                "places: .coordinates(); confidence: .table(); spots: .deconvolve(); to write: .to_anndata()",
            )
        )

    def values(self, rows: IntArray | slice) -> FloatArray:
        """Return the model input of some cells: log-normalised expression, (n_rows, n_genes) float32.

        Parameters
        ----------
        rows
            Positions of cells, or a slice.
        """
        return self.inputs[0].values(positions_of("rows", rows, self.pair.sc.n_cells, what="cell"))

    @overload
    def coordinates(self) -> DoubleArray: ...

    @overload
    def coordinates(self, *, interval: float) -> tuple[DoubleArray, DoubleArray]: ...

    def coordinates(self, *, interval: float | None = None) -> DoubleArray | tuple[DoubleArray, DoubleArray]:
        """Return the position of every cell and, if requested, its uncertainty as a radius.

        Parameters
        ----------
        interval
            Also return a radius that contains the true position for this share of the cells, 0.01 to 0.999,
            for example 0.9.

        Returns
        -------
        places : ndarray
            (n_cells, 2 or 3) in the unit of the spots' coordinates: C Y, the mean of the positions that a
            cell is mapped to, or their geometric median (the setting ``location``).
        radius : ndarray
            Only with ``interval``: (n_cells,) in the same unit.

        Raises
        ------
        SettingError
            ``interval`` is out of range.

        Notes
        -----
        The radius is a quantile of the distances between the returned position and the possible positions of
        the cell. These are the spots, with the flattened weights that each encoder gives them. The radius is
        what the model considers possible, not a guarantee. docs/stem.md shows how often it contained the true
        position. With several slices, it assumes that the cell came from the slice in which it is placed.

        Examples
        --------
        >>> import cellweft
        >>> tissue = cellweft.datasets.simulate_tissue(n_spatial=80, n_reference=60, n_genes=24, n_panel=12)
        >>> placer = cellweft.Placer(settings={"steps": 5, "models": 1})
        >>> placed = placer.fit(cellweft.pair(tissue.sc, tissue.st)).place()
        >>> places, radius = placed.coordinates(interval=0.9)
        >>> places.shape, radius.shape
        ((60, 2), (60,))
        """
        places = self._places[0].copy()
        if interval is None:
            return places
        check_range("interval", interval, low=0.01, high=0.999)
        coordinates, radius = coordinates_of(self.pair), np.empty(len(places))
        for cells, spots, mapping in self._groups:
            radius[cells] = place_radius(
                encoder_mappings(mapping, self.model.settings.models, self.model.n_encoded),
                coordinates[spots],
                places[cells],
                share=interval,
                spacing=self.pair.spacing or 1.0,
            )
        return places, radius

    def table(self) -> pd.DataFrame:
        """Return a table with one row per cell: position, confidence and spread.

        Returns
        -------
        DataFrame
            ``x``, ``y`` (and ``z``): as in `coordinates`. ``slice``: if there are several. ``spot``: name of
            the spot with the largest weight. ``weight``: that weight, 0 to 1. ``entropy``: of the cell's
            weights, in nats. ``confidence``: 1 - entropy / log(spots of the slice), from 0 (all spots equal)
            to 1 (a single spot). ``spread``: root mean squared distance of the positions that the cell is
            mapped to from their mean C Y, in the unit of the coordinates.
        """
        places, spread = self._places
        table = pd.DataFrame(places, columns=list(AXES[: places.shape[1]]), index=self.pair.sc.obs_names)
        if self.pair.slices is not None:
            table["slice"] = np.array(list(self.spot_groups))[self.slice_of_cells]
        best, entropy, confidence = (np.zeros(len(places)) for _ in range(3))
        spot = np.zeros(len(places), dtype=np.int64)
        for (cells, spots, _), places_there in zip(self._groups, self._found, strict=True):
            spot[cells], best[cells] = spots[places_there.spots[:, 0]], places_there.weights[:, 0]
            entropy[cells] = places_there.entropy
            most = np.log(max(len(spots), 2))
            confidence[cells] = np.clip(1 - entropy[cells] / most, 0.0, 1.0)
        confidence[self._blank] = 0.0
        table["spot"] = self.pair.st.obs_names[spot]
        return table.assign(weight=best, entropy=entropy, confidence=confidence, spread=spread)

    def topk(self, k: int, *, of: Which = "cells") -> sp.csr_matrix:
        """Return the largest weights of a mapping.

        Parameters
        ----------
        k
            Number of entries per row, at least 1; fewer if there are not that many.
        of
            "cells": the spots that each cell is mapped to, rows of C. "spots": the cells that each spot is
            mapped to, rows of C^.

        Returns
        -------
        csr_matrix
            (n_cells, n_spots) or (n_spots, n_cells), float32. Weights are not rescaled, so a row sums to the
            share of the total weight in its ``k`` entries. Ties are broken arbitrarily.
        """
        check_choice("of", of, ("cells", "spots"))
        check_range("k", k, low=1, integer=True)
        shape = (len(self.cells), len(self.spots))
        if of == "spots":
            return sparse_weights([self._back[:2]], [heaviest_of(self._back[2], k)], shape=shape[::-1])
        best = [
            (there.weights[:, :k], there.spots[:, :k]) if k <= KEPT_SPOTS else heaviest_of(mapping, k)
            for there, (_, _, mapping) in zip(self._found, self._groups, strict=True)
        ]
        return sparse_weights([group[:2] for group in self._groups], best, shape=shape)

    def deconvolve(self, labels: Labels = None) -> pd.DataFrame:
        """Return the cell-type composition of every spot.

        Parameters
        ----------
        labels
            Cell types: a column of the cells' ``obs``, (n_cells,) values, or None for ``pair.labels``.

        Returns
        -------
        DataFrame
            (n_spots, n_types), types sorted; rows sum to 1.

        Raises
        ------
        KeyMissingError, InputError
            The labels do not exist, do not have one value per cell, or are all the same.

        Notes
        -----
        The mapping from cells to spots times the indicator of each type; if the setting ``composition`` is
        "both", the mean of this and of the weight that the cells of each type give to the spot.
        """
        types = labels_of(self.pair, labels)
        if len(np.unique(types)) < 2:
            raise InputError(
                "labels",
                expected="cells of at least 2 types",
                got=f"{str(types[0])!r} for all {len(types):,} cells",
                fix="Choose another column of obs: " + arg("labels", "COLUMN") + ".",
            )
        composition: pd.DataFrame = self.transfer(types, to="spots")
        if self.model.settings.composition == "both":
            composition = (composition + self._received(types)) / 2
        return composition

    def transfer(self, values: str | NDArray[Any] | pd.DataFrame, *, to: Which) -> Any:
        """Transfer values from spots to cells, C v, or from cells to spots, C^ v.

        Parameters
        ----------
        values
            A column of ``obs`` of the other side, or an array or DataFrame with a row for each of its cells
            or spots. Numbers are averaged; text becomes shares.
        to
            The side that receives the values: "cells" or "spots".

        Returns
        -------
        ndarray or DataFrame
            For numbers, an array (n, ...) or a DataFrame, as ``values``. For text, a DataFrame with the share
            of each value; rows sum to 1.

        Raises
        ------
        KeyMissingError, InputError
            The column does not exist, the number of rows does not match, or there are NaN values.
        """
        check_choice("to", to, ("cells", "spots"))
        giver, taker = (self.pair.st, self.pair.sc) if to == "cells" else (self.pair.sc, self.pair.st)
        source_values = (
            column_values(giver, values, argument="values")
            if isinstance(values, str)
            else given_values(giver, values)
        )
        numbers = source_values.read(slice(0, source_values.n_columns))
        return source_values.table(
            mean_of(numbers, lambda block: self._carried(block, to=to)), taker.obs_names
        )

    @checks_kinds
    def impute(
        self, genes: Iterable[str], *, memory: str | int = "4 GB", progress: ProgressOption = True
    ) -> AnnData:
        """Transfer genes from the cells to the spots, C^ X: imputation by placement.

        Parameters
        ----------
        genes
            Names of genes of the reference.
        memory
            Budget for the result and the blocks that are read.
        progress
            As in `cellweft.Imputer.fit`; a callback is called while cells are read.

        Returns
        -------
        AnnData
            ``X``: (n_spots, n_genes) weighted means of log-normalised expression, float32, as from
            `cellweft.Imputer`. ``obs`` and ``obsm["spatial"]`` of the spots are carried over.

        Raises
        ------
        GeneError
            A gene is not in the reference.
        MemoryBudgetError
            The result does not fit in the budget.
        """
        positions = self.pair.find_genes([genes] if isinstance(genes, str) else list(genes))
        n_spots = len(self.spots)
        needed = 4.0 * len(positions) * (2 * len(self.spots) + 3 * _READ_KEYS)
        if needed > parse_memory(memory):
            raise MemoryBudgetError(
                "memory",
                expected=f"at least {enough_bytes(needed)} for {len(positions):,} genes in {n_spots:,} spots",
                got=human_bytes(parse_memory(memory)),
                fix="Request fewer genes at once, or raise the budget.",
            )
        _, cells, mapping = self._back

        def read(keys: slice) -> torch.Tensor:
            block = self.pair.sc.dense(cells[keys], positions)
            report("cells", keys.stop, len(cells))
            return torch.from_numpy(block).to(self.cells.device)

        # each cell is read once, by blocks
        mapping = Mapping(queries=mapping.queries, keys=mapping.keys)
        with progress_callback(progress) as report:
            imputed = mapping.gather(read, len(positions), most_keys=_READ_KEYS).cpu().numpy()
        result = AnnData(
            imputed,
            obs=self.pair.st.obs.copy(),
            var=gene_table(self.pair.sc, positions),
            uns={RECORD: deepcopy(self.record) | {"kind": "spots"}, **pictures_of(self.pair)},
        )
        result.obsm["spatial"] = coordinates_of(self.pair).copy()
        return result

    def assign(self, *, capacity: int | None = None, candidates: int = 30) -> IntArray:
        """Return one spot for every cell, (n_cells,): the index of the spot, or -1 for none.

        Parameters
        ----------
        capacity
            Maximum number of cells per spot. Without it, every cell is assigned to the spot with its largest
            weight. With it, the assignment maximises the sum of log weights over each cell's best
            ``candidates``; cells that do not fit get -1.
        candidates
            Number of spots that are considered for each cell if there is a capacity.

        Raises
        ------
        SettingError
            ``capacity`` or ``candidates`` below 1.
        """
        check_range("candidates", candidates, low=1, integer=True)
        return assign_cells(self.topk(1 if capacity is None else candidates), capacity=capacity)

    def neighbors(self, k: int = 15, *, by: Nearness = "place") -> sp.csr_matrix:
        """Return the probable neighbours of every cell in the tissue, the sparse SC-SC adjacency.

        Parameters
        ----------
        k
            Number of neighbours of each cell, from 1 to the number of other cells.
        by
            "place": cells with the largest expected proximity, computed from the largest mapping weights of
            both cells. "embedding": cells with the largest product of their embeddings, as in STEM
            (DEVIATION: not the default, because it finds fewer of the true neighbours; see docs/stem.md).

        Returns
        -------
        csr_matrix
            (n_cells, n_cells) with ``k`` entries per row and an empty diagonal. Entries decrease with rank,
            from 1 for the nearest cell to 1 / k.
        """
        check_range("k", k, low=1, high=len(self.cells) - 1, integer=True)
        check_choice("by", by, ("place", "embedding"))
        if by == "embedding":
            return knn_matrix(nearest_by_product(self.cells[:, : self.model.n_encoded], k))
        coordinates, width = coordinates_of(self.pair), self.pair.spacing or 1.0
        near = spot_nearness(coordinates, self.spot_groups.values(), width=width)
        return knn_matrix(nearest_by_overlap(self.topk(_OVERLAP_SPOTS), near, k))

    @checks_kinds
    def to_anndata(
        self,
        *,
        of: Which = "cells",
        neighbors: int = 15,
        genes: Iterable[str] = (),
        embedding: bool = True,
        memory: str | int = "4 GB",
        progress: ProgressOption = True,
    ) -> AnnData:
        """Return the placed cells, or the spots with their composition, as AnnData.

        Parameters
        ----------
        of
            "cells" or "spots".
        neighbors
            Number of neighbours of each cell in ``obsp``; 0 for no graph.
        genes
            Genes to transfer to the spots, as in `impute`.
        embedding
            Whether to include the embeddings z in ``obsm["cellweft_embedding"]``. Cells and spots share one
            space; several encoders are concatenated. A million cells take half a gigabyte per encoder.
        memory
            Budget for the genes.
        progress
            As in `impute`.

        Returns
        -------
        AnnData
            For cells: no matrix; ``obs`` with their annotation and the columns of `table` with the prefix
            ``cellweft_``; the coordinates in ``obsm["cellweft_spatial"]`` and ``obsm["spatial"]``; the
            neighbour graph in ``obsp["spatial_connectivities"]`` and ``obsp["spatial_distances"]``, as
            squidpy expects it. For spots: the genes in ``X``; their ``obs`` and ``obsm["spatial"]``; their
            composition in ``obsm["cellweft_proportions"]``, if the cells have labels. ``uns["cellweft"]``
            records how the result was made.

        Raises
        ------
        GeneError, MemoryBudgetError
            As in `impute`.
        SettingError
            ``genes`` is given for cells, whose result has no matrix.
        """
        check_choice("of", of, ("cells", "spots"))
        genes = [genes] if isinstance(genes, str) else list(genes)
        parse_memory(memory)
        if genes and of == "cells":
            fix = "Pass " + arg("of", "spots") + ", or omit the genes."
            raise SettingError(
                "genes", expected="no genes for cells", got=shorten(list(map(str, genes))), fix=fix
            )
        if of == "spots":
            spots = self.impute(genes, memory=memory, progress=progress)
            if embedding:
                spots.obsm[EMBEDDING] = embeddings_of(self, "spots")
            if self.pair.labels is not None and len(np.unique(self.pair.labels)) > 1:
                spots.obsm[PROPORTIONS] = self.deconvolve()
            return spots
        places, table = self.coordinates(), self.table().add_prefix(PREFIX)
        placed = AnnData(
            obs=pd.concat([self.pair.sc.obs.drop(columns=table.columns, errors="ignore"), table], axis=1),
            obsm={PLACES: places, "spatial": places.copy()},
            uns={RECORD: deepcopy(self.record)},
        )
        if embedding:
            placed.obsm[EMBEDDING] = embeddings_of(self, "cells")
        check_range("neighbors", neighbors, low=0, integer=True)
        if neighbors:
            graph = self.neighbors(min(neighbors, len(places) - 1))
            rows = np.repeat(np.arange(len(places)), np.diff(graph.indptr))
            apart = np.linalg.norm(places[rows] - places[graph.indices], axis=1)
            distances = sp.csr_matrix((apart, graph.indices, graph.indptr), shape=graph.shape)
            placed.obsp["spatial_connectivities"], placed.obsp["spatial_distances"] = graph, distances
            placed.uns["spatial_neighbors"] = {
                "connectivities_key": "spatial_connectivities",
                "distances_key": "spatial_distances",
                "params": {"n_neighbors": int(neighbors), "coord_type": "generic"},
            }
        return placed

    @cached_property
    def _blank(self) -> BoolArray:
        """Which cells have no counts in the model's genes, (n_cells,)."""
        blank: BoolArray = ~self.cells.any(dim=1).cpu().numpy()
        return blank

    @cached_property
    def _groups(self) -> list[tuple[IntArray, IntArray, AnyMapping]]:
        """Cells and spots of each slice, and the mapping C between them."""
        groups = []
        for number, spots in enumerate(self.spot_groups.values()):
            cells = np.flatnonzero(self.slice_of_cells == number)
            if len(cells):
                mapping = make_mapping(self._rows(self.cells, cells), self._rows(self.spots, spots))
                groups.append((cells, spots, mapping))
        return groups

    @cached_property
    def _back(self) -> tuple[IntArray, IntArray, AnyMapping]:
        """All spots, the cells with counts, and the mapping C^ between them."""
        cells = np.flatnonzero(~self._blank)
        mapping = make_mapping(self.spots, self._rows(self.cells, cells))
        return np.arange(len(self.spots)), cells, mapping

    @cached_property
    def _found(self) -> list[Places]:
        """Summaries of the cells of each slice, from one pass over its mapping."""
        coordinates, spacing = coordinates_of(self.pair), self.pair.spacing or 1.0
        groups = self._groups
        return [find_places(mapping, coordinates[spots], spacing=spacing) for _, spots, mapping in groups]

    @cached_property
    def _places(self) -> tuple[DoubleArray, DoubleArray]:
        """Coordinates of the cells, and their spread."""
        n_axes = coordinates_of(self.pair).shape[1]
        places, spread = np.empty((len(self.cells), n_axes)), np.empty(len(self.cells))
        for (cells, _, _), there in zip(self._groups, self._found, strict=True):
            places[cells], spread[cells] = there.mean, there.spread
            if self.model.settings.location == "median":
                # Cells without counts are mapped to all spots; the median uses only some of these.
                places[cells] = np.where(self._blank[cells, None], there.mean, there.median)
        return places, spread

    def _received(self, types: NDArray[np.str_]) -> pd.DataFrame:
        """Return the share of each type in the weight that a spot receives from cells, (n_spots, n_types).

        Cells without counts are ignored.
        """
        names, codes = np.unique(types, return_inverse=True)
        numbers = np.eye(len(names))[codes] * ~self._blank[:, None]
        mass = np.zeros((len(self.spots), numbers.shape[1]))
        for cells, spots, mapping in self._groups:
            mass[spots] = numpy_of(mapping.apply_transpose(self._tensor(numbers[cells])))
        shares = row_shares(mass, numbers.sum(axis=0) / numbers.sum())
        return pd.DataFrame(shares, index=self.pair.st.obs_names, columns=pd.Index(names.tolist()))

    def _carried(self, numbers: DoubleArray, *, to: Which) -> DoubleArray:
        carried = np.empty((len(self.cells if to == "cells" else self.spots), numbers.shape[1]))
        for takers, givers, mapping in self._groups if to == "cells" else [self._back]:
            carried[takers] = numpy_of(mapping.apply(self._tensor(numbers[givers])))
        return carried

    def _tensor(self, values: DoubleArray) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self.cells.device)

    def _rows(self, embeddings: torch.Tensor, rows: IntArray) -> torch.Tensor:
        is_whole = len(rows) == len(embeddings)
        return embeddings if is_whole else embeddings[torch.from_numpy(rows).to(embeddings.device)]


def embeddings_of(placed: Placement, of: Which) -> FloatArray:
    """Return the embeddings z of the cells or of the spots, in one space.

    Parameters
    ----------
    placed
        A placement.
    of
        "cells" or "spots".

    Returns
    -------
    (n_cells, n_latent) or (n_spots, n_latent) float32; several encoders are concatenated. Zero for rows
    without counts in the model's genes. The mean over encoders of the product of a cell's and a spot's
    embeddings, plus the evidence from expression, is the logarithm of the mapping weight, up to a constant
    per cell.
    """
    encoded = slice(placed.model.n_encoded)
    if of == "spots":
        return placed.spots[:, encoded].cpu().numpy().astype(np.float32, copy=True)
    cells = placed.cells[:, encoded] * placed.model.settings.models
    return cells.cpu().numpy().astype(np.float32, copy=False)
