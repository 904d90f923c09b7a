"""Copies of models and of their parts on a device; the ``to`` method of each model uses them."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch

_Model = TypeVar("_Model")


def to_device(model: _Model, device: torch.device, *parts: str) -> _Model:
    """Return a copy of a model, a dataclass, with some of its parts on a device, and the others unchanged.

    Parameters
    ----------
    model
        The model to copy.
    device
        Device of the copied parts.
    parts
        Names of the fields to copy: tensors, networks, models with a ``to`` of their own, tuples of these, or
        None. A NumPy array is copied and stays in memory.

    Notes
    -----
    Parts are copied even if they are on the device already: the alignment of an array in memory affects the
    last bit of products, and arrays from another process have any alignment.
    """
    whole: Any = model
    copied: _Model = replace(whole, **{name: _copy_of(getattr(whole, name), device) for name in parts})
    return copied


def _copy_of(part: Any, device: torch.device) -> Any:
    if part is None or isinstance(part, np.ndarray):
        return copy.copy(part)
    if isinstance(part, tuple):
        return tuple(_copy_of(item, device) for item in part)
    if isinstance(part, torch.Tensor):
        return part.to(device, copy=True)
    if isinstance(part, torch.nn.Module):
        part = copy.deepcopy(part)  # `Module.to` works in place
    return part.to(device)
