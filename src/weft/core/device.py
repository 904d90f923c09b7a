"""Copies of tensors and networks on a device: what the ``to`` of every model is made of."""

from __future__ import annotations

import copy
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

_Part = TypeVar("_Part", bound="torch.Tensor | torch.nn.Module | NDArray[np.float32]")


def to_device(part: _Part, device: torch.device) -> _Part:
    """Return a copy of a tensor or network on a device; the copy of a NumPy array stays in memory.

    Parameters
    ----------
    part
        A tensor, network or array.
    device
        Where the copy shall be.

    Notes
    -----
    It is a copy on the same device too: how an array lies in memory decides the last bit of products, and
    what came from another process lies anywhere.

    Examples
    --------
    >>> to_device(torch.ones(2), torch.device("meta")).device
    device(type='meta')
    """
    copied: Any
    if isinstance(part, torch.Tensor):
        copied = part.to(device, copy=True)
    elif isinstance(part, torch.nn.Module):
        copied = copy.deepcopy(part).to(device)  # `Module.to` itself works in place
    else:
        copied = part.copy()
    return cast(_Part, copied)
