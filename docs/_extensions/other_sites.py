"""Links from types of other libraries to their pages, whose addresses stand here: nothing is fetched."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

_ANNDATA = "https://anndata.readthedocs.io/en/stable/generated/anndata.AnnData.html#anndata.AnnData"
_AXES = "https://matplotlib.org/stable/api/_as_gen/matplotlib.axes.Axes.html#matplotlib.axes.Axes"
_NUMPY = "https://numpy.org/doc/stable/reference/"
_PANDAS = "https://pandas.pydata.org/docs/reference/api/"
_DATA_FRAME, _SERIES = (f"{_PANDAS}pandas.{name}.html#pandas.{name}" for name in ("DataFrame", "Series"))
_SCIPY = "https://docs.scipy.org/doc/scipy/reference/generated/"

PAGES = {
    "AnnData": _ANNDATA,
    "anndata.AnnData": _ANNDATA,
    "anndata._core.anndata.AnnData": _ANNDATA,
    "Axes": _AXES,
    "matplotlib.axes.Axes": _AXES,
    "matplotlib.axes._axes.Axes": _AXES,
    "DataFrame": _DATA_FRAME,
    "pd.DataFrame": _DATA_FRAME,
    "pandas.core.frame.DataFrame": _DATA_FRAME,
    "Series": _SERIES,
    "pd.Series": _SERIES,
    "pandas.core.series.Series": _SERIES,
    "numpy.ndarray": f"{_NUMPY}generated/numpy.ndarray.html#numpy.ndarray",
    "numpy.dtype": f"{_NUMPY}generated/numpy.dtype.html#numpy.dtype",
    "NDArray": f"{_NUMPY}typing.html#numpy.typing.NDArray",
    "ArrayLike": f"{_NUMPY}typing.html#numpy.typing.ArrayLike",
    "scipy.sparse._csr.csr_matrix": f"{_SCIPY}scipy.sparse.csr_matrix.html#scipy.sparse.csr_matrix",
    "torch.Tensor": "https://docs.pytorch.org/docs/stable/tensors.html#torch.Tensor",
}
"""Address of each, by the names under which signatures and docstrings mention it."""


def _linked(app: Sphinx, env: Any, node: nodes.Element, shown: nodes.Element) -> nodes.Element | None:
    """Return a link to the page of a type of another library; None where there is none."""
    page = PAGES.get(node.get("reftarget", "")) if node.get("refdomain") == "py" else None
    return None if page is None else nodes.reference("", "", shown, refuri=page, internal=False)


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx what to ask about names that it does not know."""
    app.connect("missing-reference", _linked)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
