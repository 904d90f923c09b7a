"""``cellweft evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cellweft._errors import SettingError
from cellweft._text import human_bytes
from cellweft.cli import options
from cellweft.cli.console import cautions_of, running
from cellweft.cli.parsing import check_device, read_numbers
from cellweft.cli.score_tables import placement_table, score_table, shown_placement, shown_scores

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from cellweft.data._pair import Pair
    from cellweft.evaluate.methods import Method

_PROCESS_BYTES = 600e6  # Python with its libraries, the graph of the cells, and a block of scores
_NEIGHBOR_BYTES = 48.0  # index and distance of a neighbour, their order, and copies of each
_TABLES = 8  # matrices of float32 over the scored genes: truth, prediction, clusters' copies in float64

_METHODS = "auto,mean,knn,attention"
_PLACERS = "auto,cosine,knn-regression,random,centre,nnls"

_place = partial(typer.Option, rich_help_panel="Evaluating by place")


@dataclass(frozen=True, kw_only=True)
class HeldOutOptions:
    """Options for every ``--by`` except ``place``.

    Attributes
    ----------
    folds
        Number of folds of genes or cells.
    keep
        Fraction of the shared genes that methods may learn from (--by cells or fraction).
    reliability
        Also test whether genes with a high reliability are predicted better.
    no_clusters
        Skip the comparison of clusters of cells and modules of genes.
    """

    folds: int = 5
    keep: float = 0.8
    reliability: bool = False
    no_clusters: bool = False

    def arguments(self) -> dict[str, Any]:
        """Return those of `cellweft.evaluate_imputation`."""
        kept = {"folds": self.folds, "keep": self.keep, "reliability": self.reliability}
        return kept | {"cluster": not self.no_clusters}


@dataclass(frozen=True, kw_only=True)
class PlaceOptions:
    """Options for ``--by place``.

    Attributes
    ----------
    truth
        True positions of the cells: obs:X,Y or obsm:KEY of SC.
    truth_composition
        True composition of the spots: obsm:KEY of ST, with the cell types as columns of a table or in
        uns[KEY_names].
    hits
        Numbers K of neighbours: how many of each cell's K true neighbours are found.
    """

    truth: Annotated[str | None, _place(metavar="PLACE")] = None
    truth_composition: Annotated[str | None, _place(metavar="PLACE")] = None
    hits: Annotated[str, _place(metavar="NUMBERS")] = "25,120"

    def arguments(self) -> dict[str, Any]:
        """Return those of `cellweft.evaluate_placement`; raise `SettingError` where hits are not numbers."""
        return vars(self) | {"hits": read_numbers("hits", self.hits, low=1, example="25,120")}


_HELD_OUT = fields(HeldOutOptions) + fields(options.NetworkOptions)
_APPLIES: dict[str, tuple[str, ...]] = {
    **{option.name: ("genes", "cells", "fraction") for option in _HELD_OUT},
    **{option.name: ("place",) for option in fields(PlaceOptions)},
    "folds": ("genes", "cells"),
    "keep": ("cells", "fraction"),
}
"""Options that only apply to some values of ``--by``, and these values."""


def evaluate(
    sc: options.Reference,
    st: options.Spatial,
    *,
    context: typer.Context,
    output: options.Output,
    by: Literal["genes", "cells", "fraction", "place"] = "genes",
    methods: Annotated[str | None, typer.Option(metavar="NAMES")] = None,
    seeds: Annotated[str | None, typer.Option(metavar="NUMBERS")] = None,
    held_out: HeldOutOptions,
    overwrite: options.Overwrite = False,
    place: PlaceOptions,
    network: options.NetworkOptions,
    data: options.PairOptions,
    run: options.RunOptions,
) -> None:
    """Hide measured genes or known positions, let methods predict them, and score the predictions.

    Parameters
    ----------
    output
        Output file for the scores: .csv or .parquet. Versions and parameters are written to a .json file with
        the same name.
    by
        What to hide: folds of genes; folds of cells, scored on the genes that --keep leaves out; a fraction
        of the genes; or the positions of the cells of SC (place), which --truth names.
    methods
        Methods, separated by commas: auto, stimpute, mean, knn, attention; with --by
        place auto, stem, cosine, knn-regression, random, centre, nnls. Add settings as in
        knn:k=20+space=log. Default: auto,mean,knn,attention; with --by place
        auto,cosine,knn-regression,random,centre,nnls.
    seeds
        Several seeds, separated by commas, instead of --seed.
    sc, st, context, held_out, overwrite, place, network, data, run
        Options that are shared by several commands, and groups of options.
    """
    with running(run) as screen:
        from cellweft.data.io.atomic_output import check_output

        _check_applies(context, by)
        check_output(output, overwrite=overwrite, suffixes=(".csv", ".parquet"))
        check_output(output.with_suffix(".json"), overwrite=overwrite)
        all_seeds = [run.seed] if seeds is None else read_numbers("seeds", seeds, low=0, example="0,1,2")
        arguments = place.arguments() if by == "place" else {"by": by, **held_out.arguments()}
        check_device(run.device)
        from cellweft.evaluate.imputation import evaluate_imputation
        from cellweft.evaluate.placement import evaluate_placement
        from cellweft.evaluate.score_table import write_scores

        sources, names = network.read(), _names(methods, by)
        resolved = _resolved(names, by, sources, reliability=held_out.reliability, device=run.device)
        pair = data.pair(sc, st, output)
        n_runs = len(all_seeds) * (held_out.folds if by in _APPLIES["folds"] else 1)
        plan, said = _plan(pair, resolved, n_runs=n_runs, n_neighbors=max(arguments.get("hits", [0])))
        screen.announce(pair, f"{said} ({', '.join(names)})")
        scored: Callable[..., pd.DataFrame] = evaluate_placement if by == "place" else evaluate_imputation
        with screen.progress() as progress:
            arguments |= {"seeds": all_seeds, "device": run.device, "progress": progress}
            scores = scored(pair, names, **arguments, **sources)
        written, beside = write_scores(scores, output, overwrite=overwrite)
        shown, values = _shown(scores, by, folds=held_out.folds, keep=held_out.keep)
        screen.show(shown)
        record = {
            "command": "evaluate",
            "output": written,
            "parameters": beside,
            "scores": values,
            "plan": plan,
            "cautions": cautions_of(pair),
        }
        screen.finish(f"Scores -> {output}, versions and parameters -> {output.with_suffix('.json')}", record)


def _check_applies(context: typer.Context, by: str) -> None:
    """Raise `SettingError` for an option that this evaluation does not use."""
    for name, choices in _APPLIES.items():
        source = context.get_parameter_source(name)
        if by not in choices and source is not None and source.name == "COMMANDLINE":
            option = f"--{name.replace('_', '-')}"
            raise SettingError(
                option,
                expected=f"--by {' or '.join(choices)}, where it is used",
                got=f"--by {by}",
                fix=f"Leave out {option}, or change --by.",
            )


def _names(methods: str | None, by: str) -> list[str]:
    """Return the names of the methods, or the default ones."""
    if methods is None:
        methods = _PLACERS if by == "place" else _METHODS
    return [name.strip() for name in methods.split(",") if name.strip()]


def _resolved(
    names: list[str], by: str, sources: dict[str, Any], *, reliability: bool, device: str
) -> list[Method[Any]]:
    """Return the named methods, for placement or for imputation."""
    from cellweft.evaluate.methods import resolve_methods
    from cellweft.evaluate.placement_baselines import resolve_placers
    from cellweft.genes.network import Network

    if by == "place":
        return list(resolve_placers(names, device=device))
    return list(resolve_methods(names, network=Network(**sources), reliability=reliability, device=device))


def _plan(
    pair: Pair, methods: Sequence[Method[Any]], *, n_runs: int, n_neighbors: int
) -> tuple[dict[str, Any], str]:
    """Return the number of fits, and an estimate of peak memory: the largest method plus the tables."""
    from cellweft._text import many
    from cellweft.impute.imputer import Imputer
    from cellweft.place.placer import Placer

    n_shared = len(pair.shared_genes)
    needs = [_PROCESS_BYTES + 16.0 * pair.sc.n_cells * n_shared]
    for method in methods:
        made = method.make(0)
        if isinstance(made, Imputer):
            needs.append(made.plan(pair.shared_genes.tolist(), pair=pair, memory="1000 TB").peak_bytes)
        elif isinstance(made, Placer):
            needs.append(made.plan(pair=pair).peak_bytes)
    tables = 4.0 * _TABLES * pair.st.n_cells * n_shared + _NEIGHBOR_BYTES * pair.sc.n_cells * n_neighbors
    peak, fits = max(needs) + tables, n_runs * len(methods)
    said = f"{many(fits, 'fit')}; peak memory about {human_bytes(peak)}"
    return {"fits": fits, "peak_bytes": peak}, said


def _shown(scores: pd.DataFrame, by: str, *, folds: int, keep: float) -> tuple[Table, dict[str, Any]]:
    """Return the table for the screen, and what JSON says of it."""
    if by == "place":
        title = "Cells of known position. Lower is better for location_error, higher for all others."
        return placement_table(scores, title=title), shown_placement(scores)
    held = {
        "genes": f"Held-out genes, {folds} folds",
        "cells": f"Held-out cells, {folds} folds, {keep:.0%} of the genes kept",
        "fraction": f"Held-out genes, {keep:.0%} kept",
    }
    title = f"{held[by]}: medians, and agreement of groups. Higher is better, except mse."
    return score_table(scores, title=title), shown_scores(scores)
