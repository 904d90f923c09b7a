"""Figures of `cellweft.pl` as images embedded in the page, with the same bytes for the same data."""

from __future__ import annotations

import base64
import io
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from cellweft.reports.document import Part, Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = {"png": 132, "svg": 96}
_PAGE_DPI = 80  # pixels of the page per inch of a figure
_STYLE: Any = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "cellweft",
    "svg.fonttype": "path",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}

Draw = Callable[[], Any]
"""Draws with `cellweft.pl` and returns the Axes, or several."""


def picture(draw: Draw, *, alt: str, caption: Sequence[Part], form: Literal["png", "svg"] = "png") -> Picture:
    """Return a figure as a picture of the page.

    Parameters
    ----------
    draw
        Function that draws the figure.
    alt
        Description of the image, for readers who cannot see it.
    caption
        Text below.
    form
        "png" for cells in space, "svg" for figures with few marks.
    """
    with quiet_figure(draw) as figure:
        data = encoded(figure, form=form)
    width, height = (round(side * _PAGE_DPI) for side in _inches(data, form))
    kind = "image/svg+xml" if form == "svg" else "image/png"
    uri = f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return Picture(data=uri, alt=alt, caption=tuple(caption), width=width, height=height)


def png(draw: Draw, *, dpi: int = 110) -> bytes:
    """Return a figure as the bytes of a PNG file.

    Parameters
    ----------
    draw
        Function that draws the figure.
    dpi
        Pixels per inch.
    """
    with quiet_figure(draw) as figure:
        return encoded(figure, form="png", dpi=dpi)


@contextmanager
def quiet_figure(draw: Draw) -> Iterator[Figure]:
    """Provide the drawn figure, in the style of the page and without a screen; it is closed afterwards."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    before = mpl.get_backend()
    with mpl.rc_context(_STYLE):
        plt.switch_backend("agg")
        try:
            axes = draw()
            figure = (axes if hasattr(axes, "figure") else axes[0]).figure
            yield figure
            plt.close(figure)
        finally:
            plt.switch_backend(before)


def encoded(figure: Figure, *, form: Literal["png", "svg"], dpi: int | None = None) -> bytes:
    """Return a figure as an image file, without time stamp and program name.

    Parameters
    ----------
    figure
        The drawn figure.
    form
        Format of the file.
    dpi
        Pixels per inch; by default those of the page.
    """
    file = io.BytesIO()
    stamp = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
    figure.savefig(
        file, format=form, dpi=dpi or _DPI[form], bbox_inches="tight", pad_inches=0.06, metadata=stamp
    )
    return file.getvalue() if form == "svg" else _fewer_colors(file)


def _inches(data: bytes, form: Literal["png", "svg"]) -> tuple[float, float]:
    """Return width and height of an image."""
    if form == "svg":
        match = re.search(rb'width="([\d.]+)pt" height="([\d.]+)pt"', data)
        return (float(match[1]) / 72, float(match[2]) / 72) if match else (4.0, 3.0)
    width, height = struct.unpack(">II", data[16:24])  # the first chunk of every PNG file
    return width / _DPI["png"], height / _DPI["png"]


def _fewer_colors(file: io.BytesIO) -> bytes:
    """Return a PNG file with 256 colours, which looks nearly the same at a third of the size."""
    from PIL import Image  # installed with matplotlib

    with Image.open(file) as image:
        fewer = image.convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    small = io.BytesIO()
    fewer.save(small, "PNG", optimize=True)
    return small.getvalue()
