"""Short texts that tell data and models from others: what a run goes on with has to be the same."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch

from weft.data.digest import digest_of, values_digest
from weft.data.pair import Pair
from weft.folder import ModelFolder
from weft.record import versions


def machine_mark() -> dict[str, Any]:
    """Return what the last bits of a fit hang on besides data and settings, by name."""
    return {**versions(), "threads": torch.get_num_threads()}


def data_mark(pair: Pair) -> dict[str, str]:
    """Return texts that tell one pair from another, by name: both sides are read, unless they were before."""
    about = pair.st_labels, pair.slices, pair.coordinates, np.asarray(pair.st.obs_names, dtype=object)
    return {
        "reference": values_digest(pair.sc),
        "spatial data": digest_of(values_digest(pair.st), *about),
        "panel": digest_of(pair.shared_genes),
    }


def model_mark(folder: ModelFolder) -> str:
    """Return a text that tells one model from another."""
    tensors = [part for name in sorted(folder.tensors) for part in (name, folder.tensors[name].cpu().numpy())]
    genes = [part for name, column in folder.genes.items() for part in (str(name), column.to_numpy())]
    return digest_of(json.dumps(folder.config, sort_keys=True, default=str), *tensors, *genes)
