"""The Placer: from a pair to the place of every cell in the tissue.

It holds the contract (checks, devices, streaming, results); the method is `weft.core.stem`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from weft._compute import resolve_devices, return_memory
from weft._errors import InputError, NotFittedError, check_choice, check_range
from weft._typing import DoubleArray, IntArray, PathLike, PlacerPreset, Progress, silent
from weft.batches import (
    BatchSource,
    ModelInput,
    check_counts,
    model_genes,
    model_inputs,
    slice_members,
    totals_of,
)
from weft.core import stem
from weft.core.settings import StemSettings
from weft.core.stem import StemModel
from weft.data.needs import coordinates_of, inputs_of
from weft.data.pair import Pair
from weft.data.stream import row_blocks
from weft.folder import write_folder
from weft.location import slices_of
from weft.placement import Placement
from weft.plan import PlacingPlan, plan_placing
from weft.record import provenance, timed
from weft.saved_placer import SavedPlacer, folder_of

_READ_ROWS = 4096  # cells that are embedded at once


@dataclass(kw_only=True, eq=False)
class Placer:
    """Find where in a tissue the cells of a single-cell reference lived.

    Parameters
    ----------
    preset
        "stem" is the published method with its settings; "auto", the default, is what weft's own
        measurements say is best: both sides brought to one small total, every cell visited by the spots'
        mapping, three encoders averaged, places as geometric medians, and compositions from both
        mappings.
    settings
        Settings that differ from the preset's, by the names of `weft.core.settings.StemSettings`.
    seed
        Of every random draw: same seed, device and version give the same bits on the CPU.
    device
        "auto", "cpu", "cuda", "cuda:1", "mps". Of several, as "cuda:0,cuda:1" or "all" GPUs, each trains an
        encoder at a time, and the first one places.

    Attributes
    ----------
    model_
        What the method learned.
    genes_
        (n_genes,) names of the genes that the model sees.
    pair_
        The data it was fitted to, or given by `attach`.

    Examples
    --------
    >>> import weft
    >>> tissue = weft.simulate_tissue(n_spatial=80, n_reference=60, n_genes=24, n_panel=12, seed=0)
    >>> placer = weft.Placer(settings={"steps": 5, "models": 1})
    >>> placer.fit(weft.pair(tissue.sc, tissue.st)).place().coordinates().shape
    (60, 2)
    """

    preset: PlacerPreset = "auto"
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        check_choice("preset", self.preset, ("auto", "stem"))
        check_range("seed", self.seed, low=0, integer=True)
        self.settings = dict(self.settings)
        StemSettings.of(self.preset).override(self.settings)  # so that a wrong name shows before any work
        self.model_: StemModel | None = None
        self.genes_: NDArray[np.str_] | None = None
        self.pair_: Pair | None = None
        self._totals = (0.0, 0.0)
        self._fit_seconds = 0.0

    def fit(self, pair: Pair, *, progress: Progress = silent) -> Self:
        """Learn from a pair.

        Parameters
        ----------
        pair
            Cells, and spots with coordinates; spots of several slices are trained on jointly.
        progress
            Called as training goes on.

        Raises
        ------
        KeyMissingError
            The spots have no coordinates.
        InputError
            No two spots at different places, or no cell or spot with counts.
        """
        settings = StemSettings.of(self.preset).override(self.settings)
        devices = resolve_devices(self.device)
        return_memory()  # of the files' reading
        start = time.monotonic()
        coordinates, spacing = _checked_places(pair)
        genes = model_genes(pair, settings, seed=self.seed)
        totals = totals_of(pair, settings)
        source = BatchSource(
            model_inputs(pair, genes, totals),
            coordinates,
            members=_members_with_counts(pair),
            spacing=spacing,
            settings=settings,
            seed=self.seed,
        )
        self.model_ = stem.train(
            source.draw,
            n_genes=len(genes),
            dropout=source.dropout(),
            settings=settings,
            seed=self.seed,
            devices=devices,
            progress=lambda done, total: progress("training", done, total),
        )
        self.genes_, self.pair_, self._totals = genes, pair, totals
        self._fit_seconds = round(time.monotonic() - start, 3)
        return_memory()  # of the training
        return self

    def plan(self, *, pair: Pair | None = None, memory: str | int | None = None) -> PlacingPlan:
        """Return what fitting and placing will take; before `fit` too, given the pair.

        Parameters
        ----------
        pair
            The data; by default those it was fitted to.
        memory
            Budget for the whole process, as "4 GB"; none by default.

        Raises
        ------
        MemoryBudgetError
            It does not fit in the budget.
        """
        pair = self._pair() if pair is None else pair
        settings = StemSettings.of(self.preset).override(self.settings)
        return plan_placing(pair, settings=settings, memory=memory)

    def place(self, pair: Pair | None = None, *, progress: Progress = silent) -> Placement:
        """Return where the cells lived, as operators that are carried out when they are asked for.

        Parameters
        ----------
        pair
            The cells to place and the spots to place them on, which need not be those of the fit; those by
            default. `weft.pair` makes it, with ``weft.with_reference`` for other cells on the same spots.
        progress
            Called as cells and spots are embedded.

        Raises
        ------
        GeneError
            The pair lacks genes that the model sees.
        KeyMissingError, InputError
            As in `fit`.

        Notes
        -----
        What is held is an embedding per cell and per spot.
        """
        start = time.monotonic()
        model, genes = self._fitted()
        pair = self._pair() if pair is None else pair
        _checked_places(pair)
        cells, spots = model_inputs(pair, genes, self._totals)
        n_rows = (pair.sc.n_cells, pair.st.n_cells)

        def told(done: int) -> None:
            progress("embedding", done, sum(n_rows))

        keys = _embedded(spots, model.keys, device=model.device, told=told)
        seen = keys.any(dim=1).cpu().numpy()
        check_counts(spots, seen.sum())
        groups = {name: found[seen[found]] for name, found in slice_members(pair).items()}
        groups = {name: found for name, found in groups.items() if len(found)}
        queries = _embedded(
            cells, model.queries, device=model.device, told=lambda done: told(n_rows[1] + done)
        )
        check_counts(cells, int(queries.any(dim=1).sum()))
        return Placement(
            pair=pair,
            model=model,
            inputs=(cells, spots),
            cells=queries,
            spots=keys,
            spot_groups=groups,
            slice_of_cells=slices_of(queries, keys, groups.values()),
            genes=genes,
            record=timed(self._record(pair), start),
        )

    def attach(self, pair: Pair) -> Self:
        """Give a loaded Placer its data, or a fitted one other data with the model's genes.

        Parameters
        ----------
        pair
            Cells and spots.

        Raises
        ------
        GeneError
            The pair lacks genes that the model sees.
        """
        genes = self._fitted()[1]
        model_inputs(pair, genes, self._totals)
        self.pair_ = pair
        return self

    def save(self, path: PathLike, *, overwrite: bool = False) -> Path:
        """Write the model to a folder, without the data; `weft.load` reads it.

        Parameters
        ----------
        path
            The folder, made anew.
        overwrite
            Whether a model that is there may be replaced.

        Returns
        -------
        Path
            Where it lies.

        Raises
        ------
        OutputExistsError, OutputError
            The folder is there already, or could not be written.
        """
        model, genes = self._fitted()
        saved = SavedPlacer(
            preset=self.preset,
            seed=self.seed,
            model=model,
            genes=genes,
            totals=self._totals,
            fit_seconds=self._fit_seconds,
        )
        return write_folder(folder_of(saved), path, overwrite=overwrite)

    @classmethod
    def restore(cls, saved: SavedPlacer, *, device: str = "auto") -> Self:
        """Return the Placer that was saved; it has no data until `attach`. See `weft.load`."""
        placer = cls(
            preset=saved.preset, settings=asdict(saved.model.settings), seed=saved.seed, device=device
        )
        where = resolve_devices(device)[0]
        encoders = tuple(encoder.to(where) for encoder in saved.model.encoders)
        placer.model_ = replace(saved.model, encoders=encoders, device=where)
        placer.genes_, placer._totals = saved.genes, saved.totals
        placer._fit_seconds = saved.fit_seconds
        return placer

    def _fitted(self) -> tuple[StemModel, NDArray[np.str_]]:
        if self.model_ is None or self.genes_ is None:
            raise NotFittedError(
                "Placer", expected="a fitted Placer", got="one that is not", fix="Call fit(pair) first."
            )
        return self.model_, self.genes_

    def _pair(self) -> Pair:
        if self.pair_ is None:
            call = "fit(pair)" if self.model_ is None else "attach(pair)"
            raise NotFittedError(
                "Placer", expected="a Placer with data", got="one without", fix=f"Call {call} first."
            )
        return self.pair_

    def _record(self, pair: Pair) -> dict[str, Any]:
        model, genes = self._fitted()
        record = provenance(
            "placed",
            preset=self.preset,
            settings=model.settings,
            seed=self.seed,
            device=str(model.device),
            inputs=inputs_of(pair),
            fit_seconds=self._fit_seconds,
        )
        return record | {"n_genes": len(genes), "dropout": float(model.dropout)}


def _embedded(
    side: ModelInput,
    embed: Callable[[torch.Tensor], torch.Tensor],
    *,
    device: torch.device,
    told: Callable[[int], None],
) -> torch.Tensor:
    """Return the embeddings of all rows of a side, zero where the model's genes have no counts."""
    embedded = torch.empty(0)
    with torch.no_grad():
        for rows in row_blocks(side.side.n_cells, _READ_ROWS):
            values = torch.from_numpy(side.values(rows)).to(device)
            block = embed(values) * values.any(dim=1, keepdim=True)
            if rows.start == 0:  # blocks that are put together at the end would be there twice
                embedded = block.new_empty(side.side.n_cells, block.shape[1])
            embedded[rows] = block
            told(rows.stop)
    return embedded


def _members_with_counts(pair: Pair) -> list[IntArray]:
    """Return the spots of every slice that have counts, of slices with two or more, or raise `InputError`."""
    members = [spots[~pair.st.empty_cells[spots]] for spots in slice_members(pair).values()]
    members = [spots for spots in members if len(spots) > 1]
    if not members:
        raise InputError(
            "the spatial side",
            expected="at least 2 spots with counts in a slice",
            got=f"{int((~pair.st.empty_cells).sum()):,} with counts in {pair.st.n_cells:,} spots",
            fix="Check the layer that is read, and what tells slices apart (slices=).",
        )
    return members


def _checked_places(pair: Pair) -> tuple[DoubleArray, float]:
    """Return the spots' coordinates and their spacing, or raise where cells cannot be placed."""
    coordinates = coordinates_of(pair)
    if pair.spacing is None:
        slices = "" if pair.slices is None else " in the same slice"
        raise InputError(
            "coordinates",
            expected=f"at least 2 spots at different places{slices}",
            got=f"{pair.st.n_cells:,} spots at {len(np.unique(coordinates, axis=0)):,} places",
            fix="Check which coordinates are read (coordinates=) and what tells slices apart (slices=).",
        )
    for side in (pair.sc, pair.st):
        if side.empty_cells.all():
            raise InputError(
                f"the {side.name} side",
                expected="cells with counts of the shared genes",
                got=f"none in {side.n_cells:,} cells",
                fix="Check the layer that is read.",
            )
    return coordinates, pair.spacing
