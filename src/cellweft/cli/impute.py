"""``cellweft impute``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellweft._errors import SettingError, arg
from cellweft._typing import OutputType, Preset
from cellweft.cli.console import Screen, cautions_of, told_errors
from cellweft.cli.options import (
    Memory,
    NetworkOptions,
    Overwrite,
    PairOptions,
    Reference,
    RunOptions,
    SaveModel,
    Spatial,
    option,
    output,
)
from cellweft.cli.parsing import check_device, read_genes, read_settings
from cellweft.data.io.keys import MEASURED, RELIABILITY

if TYPE_CHECKING:
    import pandas as pd

    from cellweft.data._pair import Pair
    from cellweft.data.io.output_request import OutputRequest
    from cellweft.impute.imputer import Imputer

_Output = Annotated[Path, output("Where the imputed genes go: a .zarr store or an .h5ad file.")]
_Genes = Annotated[
    str,
    typer.Option(
        metavar="NAMES|FILE|all",
        help="Genes to impute: names between commas, a text file with one name a line, or all.",
    ),
]
_Preset = Annotated[
    Preset, typer.Option(help="The method: the best we know (auto), or stImpute as published.")
]
_Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one setting of the method, such as steps=500 or k=20; may be repeated.",
    ),
]
_Interval = Annotated[
    float | None,
    option(
        "Write intervals too, layers lower and upper, that hold so many of the values: 0.9, say.", "SHARE"
    ),
]
_NoReliability = Annotated[
    bool,
    typer.Option(
        "--no-reliability",
        help="Do not learn how far predictions can be trusted; stImpute takes a sixth of the time.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class WritingOptions:
    """How the result is written: options of `Imputer.impute_to`."""

    dtype: Annotated[
        OutputType, typer.Option("--dtype", help="Type of the numbers: float16 takes half the space.")
    ] = "float32"
    sparse: Annotated[
        float | None,
        option(
            "Leave out values below it, 0.05, say, and write a sparse matrix; intervals stay dense.", "CUT"
        ),
    ] = None
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with a run that was killed or failed, and keep what is written if this one fails; "
            "OUT must be a .zarr store.",
        ),
    ] = False
    dask: Annotated[
        str | None,
        option(
            "Make the result by the workers of a Dask cluster, tcp://HOST:PORT, or by processes of this "
            "machine, local or local:4; OUT must be a .zarr store that all share.",
            "ADDRESS",
        ),
    ] = None
    overwrite: Overwrite = False

    def asked(self) -> dict[str, Any]:
        """Return them by the names of the arguments."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


def impute(
    sc: Reference,
    st: Spatial,
    *,
    output: _Output,
    genes: _Genes = "all",
    memory: Memory = "4GB",
    preset: _Preset = "auto",
    settings: _Settings = None,
    interval: _Interval = None,
    no_reliability: _NoReliability = False,
    save_model: SaveModel = None,
    writing: WritingOptions,
    network: NetworkOptions,
    data: PairOptions,
    run: RunOptions,
) -> None:
    """Impute genes that the spatial panel did not measure, in every spatial cell."""
    with told_errors(as_json=run.as_json):
        screen = Screen(run)
        request = _request(output, save_model, interval=interval, memory=memory, writing=writing)
        names, chosen = read_genes(genes), read_settings(preset, settings or [])
        _check_interval(interval, preset, no_reliability=no_reliability)
        check_device(run.device)
        from cellweft.data._pair import check_not_input
        from cellweft.impute.imputer import Imputer, write_imputation

        imputer = Imputer(
            preset=preset,
            settings=chosen,
            **network.read(),
            reliability=not no_reliability,
            seed=run.seed,
            device=run.device,
        )
        pair = data.pair(sc, st)
        check_not_input(request.path, pair)
        plan = imputer.plan(names, pair=pair, memory=memory, interval=interval, sparse=writing.sparse)
        screen.announce(pair, str(plan))
        with screen.progress() as progress:
            imputer.fit(pair, checkpoint=request.checkpoint, progress=progress)
            _tell_network(screen, imputer, pair)
            job = write_imputation(imputer, pair, request, genes=names, progress=progress)
            model = save_model and imputer.save(save_model, overwrite=writing.overwrite)
        said, made = _made(job.var, plan.n_cells)
        told = {"network": imputer.network_, "plan": asdict(plan), "cautions": cautions_of(pair)}
        files = {"output": str(request.target), "model": None if model is None else str(model)}
        screen.finish(f"Imputed {said} -> {output}", {"command": "impute", **files, **made, **told})


def _request(
    output: Path, save_model: Path | None, *, interval: float | None, memory: str, writing: WritingOptions
) -> OutputRequest:
    """Return how the result is written, after a look at where all outputs go, before any input is read."""
    from cellweft.data.io.atomic_output import check_output
    from cellweft.data.io.output_request import OutputRequest

    request = OutputRequest(path=output, interval=interval, memory=memory, **writing.asked())
    if save_model is not None:
        check_output(save_model, overwrite=writing.overwrite)
    if writing.dask is not None:
        from cellweft.impute.cluster.client import check_scheduler

        check_scheduler(writing.dask)
    return request


def _check_interval(interval: float | None, preset: Preset, *, no_reliability: bool) -> None:
    """Raise unless the intervals that are asked for can be had, before any work."""
    if interval is not None and (preset != "auto" or no_reliability):
        raise SettingError(
            "interval",
            expected=arg("preset", "auto") + " with reliability",
            got=arg("reliability", False) if no_reliability else arg("preset", preset),
            fix="Leave that option out, or " + arg("interval") + ".",
        )


def _tell_network(screen: Screen, imputer: Imputer, pair: Pair) -> None:
    """Say what the gene network was made of, where there is one, and how many genes each part knows."""
    if imputer.preset != "stimpute":
        return
    given = {"embedding": imputer.embedding, "gene_sets": imputer.gene_sets, "edges": imputer.edges}
    parts = [
        f"{name} of {part['known_genes']:,} of {pair.sc.n_genes:,} genes"
        + (f" ({given[name]!r})" if given.get(name) is not None else "")
        for name, part in (imputer.network_ or {}).items()
    ]
    screen.say(f"Network: {'; '.join(parts) or 'none'}")


def _made(var: pd.DataFrame, n_cells: int) -> tuple[str, dict[str, Any]]:
    """Return what the result holds, in words and as values."""
    from cellweft._text import many

    measured, median = int(var[MEASURED].sum()), None
    said = f"{many(len(var), 'gene')} ({measured:,} of the panel) in {many(n_cells, 'cell')}"
    if var[RELIABILITY].notna().any():
        median = float(var[RELIABILITY].median())
        said += f", median reliability {median:.2f}"
    return said, {
        "cells": n_cells,
        "genes": len(var),
        "measured_genes": measured,
        "median_reliability": median,
    }
