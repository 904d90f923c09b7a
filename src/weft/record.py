"""What is recorded with a result, so that it can be made again: versions, parameters, what came in."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from weft.core.settings import AttentionSettings, StemSettings, StImputeSettings

_PACKAGES = ("weft", "anndata", "igraph", "numpy", "pandas", "scikit-learn", "scipy", "torch")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that the numbers depend on."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **found}


def provenance(
    *,
    preset: str,
    settings: AttentionSettings | StImputeSettings | StemSettings,
    seed: int,
    device: str,
    findings: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the record of a result as plain values that every format stores.

    Parameters
    ----------
    preset, settings, seed, device
        How it was made.
    findings
        What came in, of `weft.data.pair.Pair`.
    """
    plain = {name: "none" if value is None else value for name, value in asdict(settings).items()}
    return {
        "preset": preset,
        "settings": plain,
        "seed": int(seed),
        "device": device,
        "reference": str(findings.get("reference", {}).get("source", "")),
        "spatial": str(findings.get("spatial", {}).get("source", "")),
        "versions": versions(),
    }
