"""The Placer: from a pair to the position of each cell in the tissue.

This file contains checks, devices, streaming and results; the method is `cellweft.nn.stem`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Self, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cellweft._compute import (
    READ_ROWS,
    progress_callback,
    resolve_devices,
    return_memory,
    row_blocks,
    torch_stream,
)
from cellweft._errors import (
    InputError,
    NotFittedError,
    arg,
    check_choice,
    check_device_name,
    check_seed,
    checks_kinds,
)
from cellweft._model_folder import FolderModel, ModelFolder, check_width, named, part_of
from cellweft._provenance import provenance, timed
from cellweft._text import NotebookText, many
from cellweft._typing import DoubleArray, IntArray, PlacerPreset, ProgressOption
from cellweft.data._pair import Pair, coordinates_of, inputs_of
from cellweft.data.validation import check_unique_names
from cellweft.nn import stem
from cellweft.nn.config import StemSettings
from cellweft.nn.expression_evidence import ExpressionEvidence
from cellweft.nn.stem import CellEncoder, StemModel
from cellweft.place.locations import slices_of
from cellweft.place.placement import Placement
from cellweft.place.planning import PlacingPlan, plan_placing
from cellweft.place.training_data import (
    BatchSource,
    ModelInput,
    check_counts,
    model_genes,
    model_inputs,
    slice_members,
    totals_of,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedPlacer:
    """Contents of a model folder: a fitted Placer without its data.

    Attributes
    ----------
    preset, seed
        Preset and seed of the fit.
    model
        The trained model, on the CPU.
    genes
        (n_genes,) names of the model's genes in the reference.
    totals
        Totals to which cells and spots were normalised.
    fit_seconds
        Duration of the training.
    """

    preset: PlacerPreset
    seed: int
    model: StemModel
    genes: NDArray[np.str_]
    totals: tuple[float, float]
    fit_seconds: float

    @classmethod
    def of(cls, folder: ModelFolder) -> Self:
        """Read from a folder; damaged contents raise the errors that `read_folder` handles."""
        config = folder.config
        # models saved before these settings existed were trained this way
        former = {"dropout_rescale": False, "slice_genes": "common", "expression_counts": 0.0}
        settings = StemSettings(**former | config["settings"])
        check_choice("preset", config["preset"], get_args(PlacerPreset))
        check_seed(config["seed"])
        for layer, width in ((0, "hidden"), (3, "middle"), (6, "latent")):
            name = f"encoder.0.layers.{layer}.weight"
            check_width(folder.tensors, name, getattr(settings, width), what=width)
        encoders = []
        for number in range(settings.models):
            # Overwritten immediately
            encoder = CellEncoder(len(folder.genes), settings, torch_stream(0, "load"))
            encoder.load_state_dict(part_of(folder.tensors, f"encoder.{number}"))
            encoders.append(encoder.eval())
        evidence = None
        if settings.expression_counts > 0:
            counts, total = settings.expression_counts, float(config["evidence_total"])
            evidence = ExpressionEvidence(**part_of(folder.tensors, "evidence"), counts=counts, total=total)
        first, second = config["totals"]
        model = StemModel(
            encoders=tuple(encoders),
            settings=settings,
            dropout=float(config["dropout"]),
            history=tuple(config["history"]),
            device=torch.device("cpu"),
            evidence=evidence,
        )
        return cls(
            preset=config["preset"],
            seed=config["seed"],
            model=model,
            genes=np.asarray(folder.genes["gene"].astype(str).tolist()),
            totals=(float(first), float(second)),
            fit_seconds=float(config.get("fit_seconds", 0.0)),
        )

    def folder(self) -> ModelFolder:
        """Return the contents of its model folder."""
        config = {
            "kind": "placer",
            "preset": self.preset,
            "settings": asdict(self.model.settings),
            "seed": int(self.seed),
            "fit_seconds": self.fit_seconds,
            "totals": list(map(float, self.totals)),
            "dropout": float(self.model.dropout),
            "history": [list(losses) for losses in self.model.history],
        }
        tensors: dict[str, torch.Tensor] = {}
        for number, encoder in enumerate(self.model.encoders):
            tensors |= named(f"encoder.{number}", encoder.state_dict())
        if self.model.evidence is not None:
            config["evidence_total"] = self.model.evidence.total
            tensors |= named("evidence", self.model.evidence.tensors())
        genes = pd.DataFrame({"gene": self.genes.astype(str)})
        return ModelFolder(config=config, tensors=tensors, genes=genes)


@dataclass(kw_only=True, eq=False, repr=False)
class Placer(NotebookText, FolderModel):
    """Estimate where the cells of a single-cell reference came from in a tissue.

    Parameters
    ----------
    preset
        "stem" is the published method with its settings. "auto", the default, is the variant that was most
        accurate in our benchmarks: both inputs are normalised to the same small total, the mapping from spots
        to cells gives every cell the same total weight, three encoders are averaged and combined with a
        direct comparison of expression, positions are geometric medians, and compositions use both mappings.
    settings
        Settings that differ from those of the preset, named as in `cellweft.nn.config.StemSettings`. They are
        copied.
    seed
        Random seed. The same seed, device and version give the same result, bit for bit, on the CPU.
    device
        "auto", "cpu", "cuda", "cuda:1" or "mps". If you give several, such as "cuda:0,cuda:1", or "all" for
        all GPUs, each trains one encoder at a time, and the first one places the cells.

    Attributes
    ----------
    model_
        The fitted model.
    genes_
        (n_genes,) names of the genes that the model uses.
    pair_
        The data of `fit` or `attach`.

    Notes
    -----
    You may assign any parameter after construction, and change settings in place. The next `fit` or `plan`
    validates and uses them; until then, the fitted model does not change.

    Examples
    --------
    >>> import cellweft
    >>> tissue = cellweft.datasets.simulate_tissue(n_spatial=80, n_reference=60, n_genes=24, n_panel=12)
    >>> placer = cellweft.Placer(settings={"steps": 5, "models": 1})
    >>> placer.fit(cellweft.pair(tissue.sc, tissue.st)).place().coordinates().shape
    (60, 2)
    """

    preset: PlacerPreset = "auto"
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        self._checked_settings()  # so that wrong names are reported immediately
        self.settings = dict(self.settings)
        self.model_: StemModel | None = None
        self.genes_: NDArray[np.str_] | None = None
        self.pair_: Pair | None = None
        self._saved: SavedPlacer | None = None

    def __repr__(self) -> str:
        state = "not fitted" if self.model_ is None else "loaded, without data"
        if self.model_ is not None and self.pair_ is not None:
            state = f"fitted to {self.pair_!r}"
        said = f"settings={dict(self.settings)!r}, " if self.settings else ""
        return f"Placer(preset={self.preset!r}, seed={self.seed}, {said}{state})"

    def _details(self) -> str:
        rows: dict[str, Any] = {"device": self.device}
        rows |= {f"settings: {name}": value for name, value in self.settings.items()}
        if self.model_ is not None:
            rows["encoders"] = len(self.model_.encoders)
        return "\n".join(f"{name:<24} {value}" for name, value in rows.items())

    @checks_kinds
    def fit(self, pair: Pair, *, progress: ProgressOption = True) -> Self:
        """Learn from a pair.

        Parameters
        ----------
        pair
            Cells, and spots with coordinates. Several slices are used for training together.
        progress
            True shows a bar in terminals and notebooks, False shows nothing; a callback is called with
            (stage, done, total) during training.

        Raises
        ------
        KeyMissingError
            The spots have no coordinates.
        InputError
            All spots have the same position, or no cell or no spot has counts.
        """
        settings = self._checked_settings()
        devices = resolve_devices(self.device)
        return_memory()  # used to read the files
        start = time.monotonic()
        coordinates, spacing = _checked_places(pair)
        check_unique_names(pair.sc)
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
        with progress_callback(progress) as report:
            model = stem.train(
                source.draw,
                n_genes=len(genes),
                dropout=source.dropout(),
                settings=settings,
                seed=self.seed,
                devices=devices,
                progress=partial(report, "training"),
            )
        if settings.expression_counts > 0:
            evidence = ExpressionEvidence.learn(*source.sample(), counts=settings.expression_counts)
            model = replace(model, evidence=evidence.to(model.device))
        self.pair_ = pair
        return_memory()  # used by the training
        return self._keep(
            SavedPlacer(
                preset=self.preset,
                seed=int(self.seed),
                model=model,
                genes=genes,
                totals=totals,
                fit_seconds=round(time.monotonic() - start, 3),
            )
        )

    @checks_kinds
    def plan(self, *, pair: Pair | None = None, memory: str | int | None = None) -> PlacingPlan:
        """Return the plan of a run: blocks and memory. Before `fit`, pass the pair.

        Parameters
        ----------
        pair
            The data; by default those passed to `fit` or `attach`.
        memory
            Budget for the whole process, for example "4 GB"; none by default.

        Raises
        ------
        MemoryBudgetError
            The run does not fit in the budget.
        """
        pair = self._pair() if pair is None else pair
        settings = self._checked_settings()
        trainings = len(resolve_devices(self.device))
        return plan_placing(pair, settings=settings, memory=memory, trainings=trainings)

    @checks_kinds
    def place(self, pair: Pair | None = None, *, progress: ProgressOption = True) -> Placement:
        """Return the placed cells. The mapping is lazy and computed on request.

        Parameters
        ----------
        pair
            The cells to place and the spots to place them on; by default those passed to `fit` or `attach`.
            To place other cells on the same spots, use `Pair.with_reference`.
        progress
            As in `fit`; a callback is called while cells and spots are embedded.

        Raises
        ------
        GeneError
            The pair lacks genes that the model uses.
        KeyMissingError, InputError
            As in `fit`.

        Notes
        -----
        Only an embedding per cell and per spot is kept in memory.
        """
        start = time.monotonic()
        fitted = self._fitted()
        model = fitted.model
        pair = self._pair() if pair is None else pair
        _checked_places(pair)
        check_unique_names(pair.sc)
        cells, spots = model_inputs(pair, fitted.genes, fitted.totals)
        n_spots, n_rows = pair.st.n_cells, pair.sc.n_cells + pair.st.n_cells
        with progress_callback(progress) as report:
            keys = _embedded(
                spots, model.keys, device=model.device, report=lambda done: report("embedding", done, n_rows)
            )
            seen = keys.any(dim=1).cpu().numpy()
            check_counts(spots, seen.sum())
            queries = _embedded(
                cells,
                model.queries,
                device=model.device,
                report=lambda done: report("embedding", n_spots + done, n_rows),
            )
        check_counts(cells, int(queries.any(dim=1).sum()))
        groups = {name: spots_of[seen[spots_of]] for name, spots_of in slice_members(pair).items()}
        groups = {name: spots_of for name, spots_of in groups.items() if len(spots_of)}
        record = provenance(
            "placed",
            preset=fitted.preset,
            settings=model.settings,
            seed=fitted.seed,
            device=str(model.device),
            inputs=inputs_of(pair),
            fit_seconds=fitted.fit_seconds,
        )
        record |= {"n_genes": len(fitted.genes), "dropout": float(model.dropout)}
        return Placement(
            pair=pair,
            model=model,
            inputs=(cells, spots),
            cells=queries,
            spots=keys,
            spot_groups=groups,
            slice_of_cells=slices_of(queries, keys, groups.values()),
            genes=fitted.genes,
            record=timed(record, start),
        )

    @checks_kinds
    def attach(self, pair: Pair) -> Self:
        """Set the data of a loaded Placer, or other data with the genes of the model.

        Parameters
        ----------
        pair
            Cells and spots.

        Raises
        ------
        GeneError
            The pair lacks genes that the model uses.
        """
        fitted = self._fitted()
        model_inputs(pair, fitted.genes, fitted.totals)
        self.pair_ = pair
        return self

    @classmethod
    def restore(cls, folder: ModelFolder, *, device: str = "auto") -> Self:
        """Return a saved Placer, without data until you call `attach`. See `cellweft.load`."""
        saved = SavedPlacer.of(folder)
        placer = cls(
            preset=saved.preset, settings=asdict(saved.model.settings), seed=saved.seed, device=device
        )
        return placer._keep(replace(saved, model=saved.model.to(resolve_devices(device)[0])))

    def _checked_settings(self) -> StemSettings:
        """Return all settings of the preset with the changes, after checking them."""
        check_choice("preset", self.preset, get_args(PlacerPreset))
        check_seed(self.seed)
        check_device_name(self.device)
        return StemSettings.from_preset(self.preset).override(self.settings)

    def _keep(self, saved: SavedPlacer) -> Self:
        self._saved, self.model_, self.genes_ = saved, saved.model, saved.genes
        return self

    def _folder(self) -> ModelFolder:
        return self._fitted().folder()

    def _fitted(self) -> SavedPlacer:
        if self._saved is None:
            raise NotFittedError(
                "Placer",
                expected="a fitted Placer",
                got="a Placer that is not fitted",
                fix="Call fit(pair) first.",
            )
        return self._saved

    def _pair(self) -> Pair:
        if self.pair_ is None:
            call = "fit(pair)" if self.model_ is None else "attach(pair)"
            raise NotFittedError(
                "Placer",
                expected="a Placer with data",
                got="a Placer without data",
                fix=f"Call {call} first.",
            )
        return self.pair_


def _embedded(
    side: ModelInput,
    embed: Callable[[torch.Tensor], torch.Tensor],
    *,
    device: torch.device,
    report: Callable[[int], None],
) -> torch.Tensor:
    """Return the embeddings of all rows of a side; zero for rows without counts in the model's genes."""
    embedded = torch.empty(0)
    with torch.no_grad():
        for rows in row_blocks(side.side.n_cells, READ_ROWS):
            values = torch.from_numpy(side.values(rows)).to(device)
            block = embed(values) * values.any(dim=1, keepdim=True)
            if rows.start == 0:  # joining blocks at the end would need twice the memory
                embedded = block.new_empty(side.side.n_cells, block.shape[1])
            embedded[rows] = block
            report(rows.stop)
    return embedded


def _members_with_counts(pair: Pair) -> list[IntArray]:
    """Return the spots with counts of each slice with two or more of them, or raise `InputError`."""
    members = [spots[~pair.st.empty_cells[spots]] for spots in slice_members(pair).values()]
    members = [spots for spots in members if len(spots) > 1]
    if not members:
        raise InputError(
            "the spatial data",
            expected="at least 2 spots with counts in a slice",
            got=f"{int((~pair.st.empty_cells).sum()):,} with counts in {pair.st.n_cells:,} spots",
            fix="Check the layer, and the column that separates slices (" + arg("slices") + ").",
        )
    return members


def _checked_places(pair: Pair) -> tuple[DoubleArray, float]:
    """Return the coordinates and spacing of the spots, or raise if cells cannot be placed."""
    coordinates = coordinates_of(pair)
    if pair.spacing is None:
        slices = "" if pair.slices is None else " in the same slice"
        raise InputError(
            "coordinates",
            expected=f"at least 2 spots at different positions{slices}",
            got=f"{many(pair.st.n_cells, 'spot')} at {many(len(np.unique(coordinates, axis=0)), 'position')}",
            fix="Check the coordinates ("
            + arg("coordinates")
            + ") and the column that separates slices ("
            + arg("slices")
            + ").",
        )
    for side in (pair.sc, pair.st):
        if side.empty_cells.all():
            raise InputError(
                f"the {side.name} data",
                expected="cells with counts of the shared genes",
                got=f"none in {side.n_cells:,} cells",
                fix="Check the layer.",
            )
    return coordinates, pair.spacing
