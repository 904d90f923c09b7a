"""``weft impute``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weft._compute import parse_memory
from weft._errors import SettingError, arg, check_range
from weft._keys import MEASURED, RELIABILITY
from weft._typing import OutputType, Preset
from weft.cli.console import Screen, cautions_of, told_errors
from weft.cli.options import (
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
from weft.cli.parsing import check_device, read_genes, read_settings

if TYPE_CHECKING:
    import pandas as pd

    from weft._typing import Progress
    from weft.data.pair import Pair
    from weft.imputer import Imputer

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
        _check_outputs(output, save_model, writing)
        parse_memory(memory)
        names, chosen = read_genes(genes), read_settings(preset, settings or [])
        _check_interval(interval, preset, no_reliability=no_reliability)
        check_device(run.device)
        from weft.imputer import Imputer

        imputer = Imputer(
            preset=preset,
            settings=chosen,
            **network.read(),
            reliability=not no_reliability,
            seed=run.seed,
            device=run.device,
        )
        pair = data.pair(sc, st, output=output)
        plan = imputer.plan(names, pair=pair, memory=memory, interval=interval, sparse=writing.sparse)
        screen.announce(pair, str(plan))
        with (
            screen.progress() as progress,
            _fitted(imputer, pair, output, resume=writing.resume, progress=progress) as imputer,
        ):
            _tell_network(screen, imputer, pair)
            path = imputer.impute_to(
                output, genes=names, interval=interval, memory=memory, progress=progress, **writing.asked()
            )
            model = save_model and imputer.save(save_model, overwrite=writing.overwrite)
        said, made = _made(path, plan.n_cells)
        told = {"network": imputer.network_, "plan": asdict(plan), "cautions": cautions_of(pair)}
        files = {"output": str(path), "model": None if model is None else str(model)}
        screen.finish(f"Imputed {said} -> {output}", {"command": "impute", **files, **made, **told})


def _check_outputs(output: Path, save_model: Path | None, writing: WritingOptions) -> None:
    """Raise unless the outputs can be put where they shall lie, in the way that is asked for."""
    from weft.data.output import check_output
    from weft.data.resume import check_resumable
    from weft.data.sparse_output import check_cut

    target = check_output(output, overwrite=writing.overwrite, suffixes=(".zarr", ".h5ad"))
    check_resumable(target, resume=writing.resume)
    check_cut("sparse", writing.sparse)
    if save_model is not None:
        check_output(save_model, overwrite=writing.overwrite)
    if writing.dask is not None:
        from weft.distributed import check_cluster

        check_cluster(writing.dask, output, ask=True)


@contextlib.contextmanager
def _fitted(
    imputer: Imputer, pair: Pair, output: Path, *, resume: bool, progress: Progress
) -> Iterator[Imputer]:
    """Lend the Imputer fitted, or as a killed run has left it; a fit is kept until the output is there."""
    from weft.resuming import keep_fit, kept_fit, kept_until_failure

    kept = kept_fit(imputer, pair, output) if resume else None
    if kept is None:
        imputer.fit(pair, progress=progress)
        if output.suffix == ".zarr":
            keep_fit(imputer, pair, output)
    with kept_until_failure(output, resume=resume):
        yield imputer if kept is None else kept


def _check_interval(interval: float | None, preset: Preset, *, no_reliability: bool) -> None:
    """Raise unless the intervals that are asked for can be had, before any work."""
    if interval is None:
        return
    check_range("interval", interval, low=0.01, high=0.999)
    if preset != "auto" or no_reliability:
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


def _made(path: Path, n_cells: int) -> tuple[str, dict[str, Any]]:
    """Return what the result holds, in words and as values."""
    from weft.data.cautions import many
    from weft.data.read import open_input

    var: pd.DataFrame = open_input(path, argument="output").var
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
