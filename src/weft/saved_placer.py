"""A fitted Placer on disk: what of it goes into a model folder, and back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from weft._compute import torch_stream
from weft._errors import check_choice, check_range
from weft._typing import PlacerPreset
from weft.core.settings import StemSettings
from weft.core.stem import CellEncoder, StemModel
from weft.folder import ModelFolder, part_of


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedPlacer:
    """What a model folder holds: all of a fitted Placer but its data.

    Attributes
    ----------
    preset, seed
        As it was made with.
    model
        What was trained, on the CPU.
    genes
        (n_genes,) names of the model's genes, as the reference spells them.
    totals
        What the totals of cells and of spots were brought to.
    fit_seconds
        How long learning took.
    """

    preset: PlacerPreset
    seed: int
    model: StemModel
    genes: NDArray[np.str_]
    totals: tuple[float, float]
    fit_seconds: float


def folder_of(saved: SavedPlacer) -> ModelFolder:
    """Return what is written of a Placer."""
    model = saved.model
    return ModelFolder(
        config={
            "kind": "placer",
            "preset": saved.preset,
            "settings": asdict(model.settings),
            "seed": int(saved.seed),
            "fit_seconds": saved.fit_seconds,
            "totals": list(map(float, saved.totals)),
            "dropout": float(model.dropout),
            "history": [list(one) for one in model.history],
        },
        tensors={
            f"encoder.{number}.{name}": one
            for number, encoder in enumerate(model.encoders)
            for name, one in encoder.state_dict().items()
        },
        genes=pd.DataFrame({"gene": saved.genes.astype(str)}),
    )


def placer_from(folder: ModelFolder) -> SavedPlacer:
    """Return what was saved of a Placer; what is wrong with the folder raises ValueError or KeyError."""
    config = folder.config
    settings = StemSettings(**config["settings"])
    check_choice("preset", config["preset"], get_args(PlacerPreset))
    check_range("seed", config["seed"], low=0, integer=True)
    encoders = []
    for number in range(settings.models):
        encoder = CellEncoder(len(folder.genes), settings, torch_stream(0, "load"))  # overwritten at once
        encoder.load_state_dict(part_of(folder.tensors, f"encoder.{number}"))
        encoders.append(encoder.eval())
    first, second = config["totals"]
    return SavedPlacer(
        preset=config["preset"],
        seed=config["seed"],
        model=StemModel(
            encoders=tuple(encoders),
            settings=settings,
            dropout=float(config["dropout"]),
            history=tuple(config["history"]),
            device=torch.device("cpu"),
        ),
        genes=np.asarray(folder.genes["gene"].astype(str).tolist()),
        totals=(float(first), float(second)),
        fit_seconds=float(config.get("fit_seconds", 0.0)),
    )
