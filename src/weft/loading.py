"""From a model folder to an estimator."""

from __future__ import annotations

from weft._typing import PathLike
from weft.imputer import Imputer
from weft.save import read_model


def load(path: PathLike, *, device: str = "auto") -> Imputer:
    """Read a saved model; give it data with `Imputer.attach` before it imputes.

    Parameters
    ----------
    path
        The folder that `Imputer.save` wrote.
    device
        Where it shall work.

    Raises
    ------
    MissingFileError
        There is no model at the path.
    FormatError
        Its files are damaged, or of another schema.
    """
    return Imputer.restore(read_model(path), device=device)
