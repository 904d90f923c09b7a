"""The fit that a run keeps beside its output until that is complete, for the case that it is killed."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from weft._typing import PathLike
from weft.data.output import output_errors
from weft.data.pair import Pair
from weft.data.resume import resume_folder
from weft.folder import ModelFolder, read_folder
from weft.imputer import Imputer
from weft.marks import data_mark, machine_mark

_MODEL, _REQUEST = "model", "request.json"


def keep_fit(imputer: Imputer, pair: Pair, output: PathLike) -> None:
    """Keep a fit beside the output that it is for, until that is complete.

    Parameters
    ----------
    imputer
        Fitted to the pair.
    pair
        The data.
    output
        Where the result shall lie.
    """
    folder = resume_folder(Path(output).resolve())
    shutil.rmtree(folder, ignore_errors=True)  # of another run
    try:
        with output_errors(folder):
            folder.mkdir()
            imputer.save(folder / _MODEL)
            (folder / _REQUEST).write_text(json.dumps(_request(imputer, pair)))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def kept_fit(imputer: Imputer, pair: Pair, output: PathLike) -> Imputer | None:
    """Return the fit that a killed run has left beside its output, or None where there is none of this kind.

    Parameters
    ----------
    imputer
        As it would be fitted anew.
    pair
        The data.
    output
        Where the result shall lie.
    """
    folder = resume_folder(Path(output).resolve())
    try:
        known = json.loads((folder / _REQUEST).read_text())
    except (OSError, ValueError):
        return None
    if known != _request(imputer, pair):
        return None

    def parse(kept: ModelFolder) -> Imputer:
        return type(imputer).restore(kept, device=imputer.device)

    return read_folder(folder / _MODEL, parse).attach(pair)


@contextlib.contextmanager
def kept_until_failure(output: PathLike, *, resume: bool) -> Iterator[None]:
    """Remove a fit that is kept where the work inside fails, unless the run shall be resumed.

    Parameters
    ----------
    output
        As in `keep_fit`.
    resume
        Whether to keep it nevertheless.
    """
    try:
        yield
    except BaseException:
        if not resume:
            shutil.rmtree(resume_folder(Path(output).resolve()), ignore_errors=True)
        raise


def _request(imputer: Imputer, pair: Pair) -> Mapping[str, Any]:
    """Return what a fit depends on, as JSON gives it back."""
    sources = [repr(one) for one in (imputer.embedding, imputer.gene_sets, imputer.edges)]
    request = {
        "preset": imputer.preset,
        "settings": {name: str(value) for name, value in imputer.settings.items()},
        "sources": sources,
        "reliability": imputer.reliability,
        "seed": int(imputer.seed),
        "device": imputer.device,
        **machine_mark(),
        **data_mark(pair),
    }
    return dict(json.loads(json.dumps(request)))
