"""``cellweft impute``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellweft._errors import SettingError, arg
from cellweft._typing import OutputType, PanelValues, Preset, ResultScale
from cellweft.cli import options
from cellweft.cli.console import Screen, cautions_of, running
from cellweft.cli.parsing import check_device, read_genes, read_settings
from cellweft.data.io.keys import MEASURED, RECORD, RELIABILITY

if TYPE_CHECKING:
    import pandas as pd

    from cellweft.data._pair import Pair
    from cellweft.data.io.output_request import OutputRequest
    from cellweft.impute.imputer import Imputer


@dataclass(frozen=True, kw_only=True)
class WritingOptions:
    """Options for writing the result: those of `Imputer.impute_to`.

    Attributes
    ----------
    scale
        Write log-normalised expression (log), or the counts expected in each cell (counts). counts requires
        counts in ST.
    measured
        Write panel genes as predicted (predict), or combine measurement and prediction (blend). blend
        requires counts in ST.
    dtype
        Data type of the values. float16 takes half the space.
    sparse
        Omit values below this threshold, for example 0.05, and write a sparse matrix. Intervals remain dense.
    resume
        Resume a run that was killed or that failed, and keep what has been written if this run fails too. OUT
        must be a .zarr store.
    dask
        Use the workers of a Dask cluster, tcp://HOST:PORT, or processes on this machine, local or local:4.
        OUT must be a .zarr store on a shared disk.
    """

    scale: ResultScale = "log"
    measured: PanelValues = "predict"
    dtype: OutputType = "float32"
    sparse: Annotated[float | None, typer.Option(metavar="CUT")] = None
    resume: bool = False
    dask: Annotated[str | None, typer.Option(metavar="ADDRESS")] = None
    overwrite: options.Overwrite = False


def impute(
    sc: options.Reference,
    st: options.Spatial,
    *,
    output: options.Output,
    genes: Annotated[str, typer.Option(metavar="NAMES|FILE|all")] = "all",
    memory: options.Memory = "4GB",
    preset: Preset = "auto",
    settings: options.Settings = None,
    interval: Annotated[float | None, typer.Option(metavar="SHARE")] = None,
    no_reliability: bool = False,
    spillover: bool = False,
    remove_spillover: bool = False,
    save_model: options.SaveModel = None,
    writing: WritingOptions,
    network: options.NetworkOptions,
    data: options.PairOptions,
    run: options.RunOptions,
) -> None:
    """Impute genes that are not on the spatial panel, in every spatial cell.

    Parameters
    ----------
    output
        Output for the imputed genes: a .zarr store or an .h5ad file.
    genes
        Genes to impute: names separated by commas, a text file with one name per line, or all.
    preset
        The method: cellweft's own (auto), or stImpute as published (stimpute).
    settings
        Change a setting of the method, such as steps=500 or k=20. May be repeated.
    interval
        Also write intervals (layers lower and upper) that contain this share of the values, for example 0.9.
    no_reliability
        Do not learn the reliability of each gene. stImpute then takes a sixth of the time.
    spillover
        Also write the share of each cell's counts that spilled over from its neighbours
        (obs["cellweft_spillover"]). Requires counts in ST.
    remove_spillover
        Remove the estimated spill-over from the counts of the panel before training. See docs/counts.md for
        when this helps. Requires counts in ST.
    sc, st, memory, save_model, writing, network, data, run
        Options that are shared by several commands.
    """
    with running(run) as screen:
        from cellweft.data.io.atomic_output import check_apart

        request = _request(output, save_model, interval=interval, memory=memory, writing=writing)
        check_apart([output, save_model], [sc, st, *network.files()])
        screen.hold(*(one for one in (output, save_model) if one is not None))
        names, chosen = read_genes(genes), read_settings(preset, settings or [])
        _check_interval(interval, preset, no_reliability=no_reliability)
        _check_measured(writing.measured, preset)
        check_device(run.device)
        from cellweft.impute.imputer import Imputer, write_imputation

        imputer = Imputer(
            preset=preset,
            settings=chosen,
            **network.read(),
            reliability=not no_reliability,
            seed=run.seed,
            device=run.device,
        )
        pair = data.pair(sc, st, output, save_model)
        _check_counts(pair, writing, spillover=spillover or remove_spillover)
        result_options: Any = {"interval": interval, "sparse": writing.sparse, "measured": writing.measured}
        plan = imputer.plan(names, pair=pair, memory=memory, scale=writing.scale, **result_options)
        screen.announce(pair, str(plan))
        with screen.progress() as progress:
            how: Any = {"seed": run.seed, "memory": memory, "progress": progress}
            pair, column, spilled = _spilled(screen, pair, report=spillover, remove=remove_spillover, how=how)
            imputer.fit(pair, checkpoint=request.checkpoint, progress=progress)
            _tell_network(screen, imputer, pair)
            job = write_imputation(imputer, pair, request, genes=names, spillover=column, progress=progress)
            model = save_model and imputer.save(save_model, overwrite=writing.overwrite)
        said, summary = _made(job.var, plan.n_cells)
        about = {"network": imputer.network_, "plan": asdict(plan), "cautions": cautions_of(pair)} | spilled
        about["cautions"] += [caution for caution in [spilled.get("spillover", {}).get("caution")] if caution]
        files = {"output": request.target, "model": model}
        said += ", on the scale of counts" * (writing.scale == "counts")
        screen.finish(f"Imputed {said} -> {output}", {"command": "impute", **files, **summary, **about})


def _request(
    output: Path, save_model: Path | None, *, interval: float | None, memory: str, writing: WritingOptions
) -> OutputRequest:
    """Return the output request, after checking all output paths, before any input is read."""
    from cellweft.data.io.atomic_output import RESULT_SUFFIXES, Asked, check_outputs
    from cellweft.data.io.output_request import OutputRequest

    outputs: Asked = {"output": (output, RESULT_SUFFIXES), "save_model": (save_model, "model")}
    check_outputs(outputs, overwrite=writing.overwrite)
    request = OutputRequest(path=output, interval=interval, memory=memory, **vars(writing))
    if writing.dask is not None:
        from cellweft.impute.cluster.client import check_scheduler

        check_scheduler(writing.dask)
    return request


def _check_interval(interval: float | None, preset: Preset, *, no_reliability: bool) -> None:
    """Raise if the requested intervals are not available, before any work."""
    if interval is not None and (preset != "auto" or no_reliability):
        raise SettingError(
            "interval",
            expected=arg("preset", "auto") + " with reliability",
            got=arg("reliability", False) if no_reliability else arg("preset", preset),
            fix="Omit that option, or " + arg("interval") + ".",
        )


def _check_measured(measured: PanelValues, preset: Preset) -> None:
    """Raise if the requested values of panel genes are not available, before any work."""
    if measured == "blend" and preset != "auto":
        raise SettingError(
            "measured",
            expected=arg("preset", "auto") + ", which can compare cells without using the gene itself",
            got=arg("preset", preset),
            fix="Omit that option, or " + arg("measured") + ".",
        )


def _check_counts(pair: Pair, writing: WritingOptions, *, spillover: bool) -> None:
    """Raise if the spatial data do not support the requested options, before any training."""
    from cellweft.impute.panel_blend import check_blend
    from cellweft.impute.uncertainty.count_model import check_counts
    from cellweft.tl._spillover import check_spillover

    check_counts(pair, writing.scale)
    if writing.measured == "blend":
        check_blend(pair)
    if spillover:
        check_spillover(pair)


def _tell_network(screen: Screen, imputer: Imputer, pair: Pair) -> None:
    """Print the parts of the gene network, if there is one, and how many genes each of them covers."""
    if imputer.preset != "stimpute":
        return
    sources = {"embedding": imputer.embedding, "gene_sets": imputer.gene_sets, "edges": imputer.edges}
    parts = [
        f"{name} of {part['known_genes']:,} of {pair.sc.n_genes:,} genes"
        + (f" ({sources[name]!r})" if sources.get(name) is not None else "")
        for name, part in (imputer.network_ or {}).items()
    ]
    screen.say(f"Network: {'; '.join(parts) or 'none'}")


def _spilled(
    screen: Screen, pair: Pair, *, report: bool, remove: bool, how: dict[str, Any]
) -> tuple[Pair, Any, dict[str, Any]]:
    """Return the pair to use, the estimated shares if requested, and entries for the record."""
    from cellweft import tl

    column, entries = None, dict[str, Any]()
    if report:
        shares = tl.spillover(pair, **how)
        column, entries["spillover"] = shares.to_numpy(), shares.attrs[RECORD]
        mean, caution = entries["spillover"]["mean"], entries["spillover"]["caution"]
        screen.say(f"Spill-over: neighbours explain {mean:.0%} of a cell's counts better, on average")
        screen.say_each([caution] if caution else [])
    if remove:
        pair = tl.remove_spillover(pair, **how)
        screen.say_each(pair.cautions[-1:])
        entries["spillover_removed"] = pair.findings["spillover_removed"]
    return pair, column, entries


def _made(var: pd.DataFrame, n_cells: int) -> tuple[str, dict[str, Any]]:
    """Return a summary of the result, as text and as values."""
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
