"""Short texts that tell data and models from others: what a run goes on with has to be the same."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from weft.data.pair import Pair
from weft.folder import ModelFolder
from weft.record import versions
from weft.streaming import reference_mark


def bytes_mark(values: NDArray[Any]) -> str:
    """Return a short text that tells one array from another."""
    return f"{zlib.crc32(np.ascontiguousarray(values).tobytes()):08x}"


def machine_mark() -> dict[str, Any]:
    """Return what the last bits of a fit hang on besides data and settings, by name."""
    return {**versions(), "threads": torch.get_num_threads()}


def data_mark(pair: Pair) -> dict[str, str]:
    """Return texts that tell one pair from another, by name."""
    panel = "\n".join(pair.shared_genes.tolist()).encode()
    return {
        "reference": reference_mark(pair),
        "spatial data": f"{pair.st.n_cells} cells, totals {bytes_mark(pair.st.totals)}",
        "panel": f"{len(pair.shared_genes)} genes, {zlib.crc32(panel):08x}",
    }


def weights_mark(folder: ModelFolder) -> str:
    """Return a text that tells one model from another."""
    parts = [f"{name} {bytes_mark(folder.tensors[name].cpu().numpy())}" for name in sorted(folder.tensors)]
    return f"{zlib.crc32(chr(10).join(parts).encode()):08x}"
