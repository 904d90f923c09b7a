"""Loads an estimator from a model folder."""

from __future__ import annotations

from cellweft._errors import check_choice, checks_kinds
from cellweft._model_folder import ModelFolder, read_folder
from cellweft._typing import PathLike
from cellweft.impute.imputer import Imputer
from cellweft.place.placer import Placer


@checks_kinds
def load(path: PathLike, *, device: str = "auto") -> Imputer | Placer:
    """Load a saved model. Call its ``attach`` with data before you impute or place.

    Parameters
    ----------
    path
        The folder that `Imputer.save` or `Placer.save` wrote.
    device
        Device to run on.

    Raises
    ------
    MissingFileError
        There is no model at the path.
    FormatError
        The files of the model are damaged, or have another schema version.
    """

    def parse(folder: ModelFolder) -> Imputer | Placer:
        check_choice("kind", folder.config["kind"], ("imputer", "placer"))
        if folder.config["kind"] == "placer":
            return Placer.restore(folder, device=device)
        return Imputer.restore(folder, device=device)

    return read_folder(path, parse)
