"""Detects the instrument that wrote a folder or file: the first one that recognises it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cellweft.data.instruments.base import Instrument
from cellweft.data.instruments.chromium import Chromium
from cellweft.data.instruments.cosmx import Cosmx
from cellweft.data.instruments.merscope import Merscope
from cellweft.data.instruments.slide_seq import SlideSeq
from cellweft.data.instruments.stereo_seq import StereoSeq
from cellweft.data.instruments.visium import Visium
from cellweft.data.instruments.visium_hd import VisiumHD
from cellweft.data.instruments.xenium import Xenium
from cellweft.data.io.lazy_input import Input

INSTRUMENTS: tuple[Instrument, ...] = (
    Xenium(), Merscope(), Cosmx(), SlideSeq(), VisiumHD(), Visium(), Chromium(), StereoSeq(),
)  # fmt: skip


def open_run(path: Path, where: str, sample: str | None = None) -> Input | None:
    """Open the run of an instrument.

    Parameters
    ----------
    path, where
        A folder or one of its files, and its name in errors.
    sample
        The sample to read if a folder contains several.

    Returns
    -------
    Input or None
        None if it is not a run of any of the `INSTRUMENTS`.

    Raises
    ------
    FormatError
        It is a run, but a file is missing or has other contents.
    """
    for instrument in INSTRUMENTS:
        run = instrument.open(path, where, sample)
        if run is not None:
            return dataclasses.replace(run, source=str(path))
    return None


def looks_like_run(path: Path) -> bool:
    """Return whether a folder contains files of an instrument, like ``outs`` of Space Ranger."""
    return any(any(path.glob(mark)) for mark in _MARKS)


_MARKS = (
    "experiment.xenium", "*cell_by_gene*.csv*", "*exprMat_file.csv*", "binned_outputs",
    "segmented_outputs", "*_feature_cell_matrix*",
    "*filtered_feature_bc_matrix*", "*raw_feature_bc_matrix*", "*cell_feature_matrix.h5",
    "*MappedDGEForR.csv*", "*MoleculesPerMatchedBead.mtx*", "*.gem", "*.gem.gz",
)  # fmt: skip
