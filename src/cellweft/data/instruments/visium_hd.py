"""Folders of Visium HD (10x Genomics): one of the sizes of bins that Space Ranger writes."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

from cellweft._errors import FormatError, arg, check_known
from cellweft._text import shorten
from cellweft.data.instruments.visium import Visium
from cellweft.data.io.lazy_input import Input

_BINNED = "binned_outputs"
_USUAL = 8  # um: the size that Space Ranger analyses itself


@dataclass(frozen=True)
class VisiumHD:
    """Reads ``binned_outputs/square_008um``, or the folder of another size where that is named.

    Places are pixels of the full image. Bins with ``in_tissue`` 0 are left out.
    """

    name: str = "Visium HD"

    def open(self, path: Path, where: str, sample: str | None = None) -> Input | None:
        """Open a run; parameters as `Instrument.open`."""
        size = _bin_size(path) if path.is_dir() else None
        if size is not None:
            run = Visium(name=self.name).open(path, where, sample)
            return run and dataclasses.replace(run, instrument=f"{self.name}, bins of {size} um")
        binned = path if path.name == _BINNED else path / _BINNED
        sizes = {} if not binned.is_dir() else {_bin_size(one): one for one in sorted(binned.iterdir())}
        sizes.pop(None, None)
        if sample is not None and sizes:
            known = {one.name: one for one in sizes.values()}
            argument = arg(f"{where.partition(' ')[0]}_sample", sample)
            check_known(sample, known, argument, expected=f"bins of {where}", got="no such ones")
            return self.open(known[sample], where)
        if not sizes:
            if not any(path.glob("*feature_slice.h5")):
                return None
            there = shorten(sorted(one.name for one in path.iterdir()), most=8)
            raise FormatError(
                where,
                expected=f"a run of {self.name}, with {_BINNED}/square_{_USUAL:03}um",
                got=f"a folder without {_BINNED}/: {there}",
                fix="Copy the missing folder into it.",
            )
        if len(sizes) > 1 and _USUAL not in sizes:
            raise FormatError(
                where,
                expected=f"bins of {_USUAL} um, or of one size",
                got=f"bins of {_listed(sizes)}",
                fix=f"Name the folder of one: {str(next(iter(sizes.values())))!r}.",
            )
        size = _USUAL if _USUAL in sizes else next(iter(sizes))
        run = Visium(name=self.name).open(sizes.pop(size), where)
        others = f"; others in the folder: {_listed(sizes)}" if sizes else ""
        if (binned.parent / "segmented_outputs").is_dir():
            others += "; the cells of segmented_outputs are not read"
        return run and dataclasses.replace(run, instrument=f"{self.name}, bins of {size} um{others}")


def _bin_size(path: Path) -> int | None:
    """Return the side of the bins in micrometres that a folder's name tells."""
    found = re.fullmatch(r"square_(\d+)um", path.resolve().name)
    return None if found is None else int(found[1])


def _listed(sizes: dict[int | None, Path]) -> str:
    return ", ".join(f"{size} um" for size in sizes)
