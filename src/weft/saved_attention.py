"""Learned attention on disk: what of a fit goes into a model folder, and back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import torch

from weft._compute import torch_stream
from weft._typing import FloatArray, IntArray
from weft.attending import Attending
from weft.core.attention import AttentionModel, CellMap, Moments, condensed_if_large
from weft.core.levels import LevelNet, Levels
from weft.core.settings import AttentionSettings
from weft.data.columns import GeneColumns
from weft.data.pair import Pair
from weft.folder import ModelFolder, part_of
from weft.intervals import Intervals
from weft.predictability import Predictability
from weft.trust import Trust

_NETS = 2  # one by the gene alone, one by cell too
_MOMENTS = ("spatial", "reference", "detected")


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedAttention:
    """What a model folder holds of learned attention: all of a fit but its data.

    Attributes
    ----------
    settings, inputs, queries
        As of the model, and of `weft.attending.Attending`.
    cells
        The map, on the CPU.
    moments
        Of the two sides and of detection, by name.
    sample, sample_detection
        Queries of the cells that genes are standardised over, and their standardised detection.
    levels, intervals, trust
        What was learned besides, if anything was.
    """

    settings: AttentionSettings
    inputs: IntArray
    queries: IntArray
    cells: CellMap
    moments: dict[str, Moments]
    sample: torch.Tensor
    sample_detection: torch.Tensor
    levels: Levels | None
    intervals: Intervals | None
    trust: Trust | None

    @classmethod
    def of(cls, folder: ModelFolder) -> Self:
        """Read it from a folder; what is wrong with that raises as `read_folder` expects."""
        config, tensors = folder.config, folder.tensors
        settings = AttentionSettings(**config["settings"])
        inputs = tensors["inputs"].numpy()
        cells = CellMap(min(len(folder.genes), settings.most_inputs), settings)
        cells.load_state_dict(part_of(tensors, "cells"))
        intervals, known = (_arrays(tensors, name) for name in ("intervals", "trust"))
        panel = np.asarray(folder.genes["gene"].astype(str).tolist())
        return cls(
            settings=settings,
            inputs=inputs,
            queries=tensors["queries"].numpy(),
            cells=cells,
            moments={name: _moments(tensors, name) for name in _MOMENTS},
            sample=tensors["sample"],
            sample_detection=tensors["sample_detection"],
            levels=_levels(tensors, settings),
            intervals=Intervals.from_arrays(intervals) if intervals else None,
            trust=Trust(known=Predictability.from_arrays(known), panel=panel) if known else None,
        )

    def attending(
        self, columns: GeneColumns, reference: FloatArray, *, device: torch.device, seed: int
    ) -> Attending:
        """Return what predicts, given the data.

        Parameters
        ----------
        columns
            The reference by gene.
        reference
            (n_sc, P) the inputs in it.
        device
            Where it shall work.
        seed
            Of the fit: the same metacells come of it.
        """
        cells = self.cells.to(device)
        moments = {name: one.to(device) for name, one in self.moments.items()}
        logs = torch.from_numpy(np.ascontiguousarray(reference)).to(device)
        with torch.no_grad():
            keys = cells(logs, moments["reference"].standard(logs))
        levels = None if self.levels is None else self.levels.to(device)
        model = AttentionModel(
            settings=self.settings,
            inputs=self.inputs,
            cells=cells,
            keys=keys,
            sample=self.sample.to(device),
            sample_detection=self.sample_detection.to(device),
            spatial=moments["spatial"],
            reference=moments["reference"],
            detected=moments["detected"],
        )
        model = condensed_if_large(model, seed=seed)
        return Attending(model=model, levels=levels, columns=columns, queries=self.queries)


def folder_of(
    attending: Attending, pair: Pair, *, intervals: Intervals | None, trust: Trust | None
) -> ModelFolder:
    """Return what has to be written of a fit.

    Parameters
    ----------
    attending, intervals, trust
        What was learned.
    pair
        The data it was fitted to.
    """
    model, levels = attending.model, attending.levels
    tensors = {
        "inputs": torch.from_numpy(model.inputs),
        "queries": torch.from_numpy(attending.queries),
        "sample": model.sample,
        "sample_detection": model.sample_detection,
    }
    tensors |= {f"cells.{name}": one for name, one in model.cells.state_dict().items()}
    moments = {name: getattr(model, name) for name in _MOMENTS}
    if levels is not None:
        moments["levels"] = levels.features
        for number, net in enumerate(levels.nets):
            tensors |= {f"levels.{number}.{name}": one for name, one in net.state_dict().items()}
    for name, one in moments.items():
        tensors |= {f"{name}.mean": one.mean, f"{name}.spread": one.spread}
    arrays = (
        {} if intervals is None else {f"intervals.{key}": one for key, one in intervals.to_arrays().items()}
    )
    if trust is not None:
        arrays |= {f"trust.{key}": one for key, one in trust.known.to_arrays().items()}
    tensors |= {name: torch.from_numpy(np.ascontiguousarray(one)) for name, one in arrays.items()}
    config = {"settings": asdict(model.settings)}
    genes = pd.DataFrame({"gene": pair.shared_genes.astype(str)})
    return ModelFolder(config=config, tensors=tensors, genes=genes)


def _moments(tensors: dict[str, torch.Tensor], name: str) -> Moments:
    return Moments(mean=tensors[f"{name}.mean"], spread=tensors[f"{name}.spread"])


def _arrays(tensors: dict[str, torch.Tensor], name: str) -> dict[str, Any]:
    return {key: one.numpy() for key, one in part_of(tensors, name).items()}


def _levels(tensors: dict[str, torch.Tensor], settings: AttentionSettings) -> Levels | None:
    if "levels.mean" not in tensors:
        return None
    start = torch_stream(0, "load")  # every weight drawn from it is overwritten at once
    nets = [LevelNet(settings.level_hidden, start, by_cell=bool(number)) for number in range(_NETS)]
    for number, net in enumerate(nets):
        net.load_state_dict(part_of(tensors, f"levels.{number}"))
    return Levels(nets=tuple(net.eval() for net in nets), features=_moments(tensors, "levels"))
