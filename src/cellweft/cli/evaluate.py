"""``cellweft evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cellweft._errors import FormatError, SettingError, arg
from cellweft._text import human_bytes
from cellweft._typing import ResultScale, SpotShape
from cellweft.cli import options
from cellweft.cli.console import cautions_of, running
from cellweft.cli.parsing import check_device, read_numbers
from cellweft.cli.score_tables import ScoreTable, placement_table, score_table, shown_placement, shown_scores

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData

    from cellweft.data._pair import Pair
    from cellweft.data.synthetic.pseudospots import PseudoSpots
    from cellweft.evaluate.methods import Method

_PROCESS_BYTES = 600e6  # Python with its libraries, the graph of the cells, and a block of scores
_NEIGHBOR_BYTES = 48.0  # index and distance of a neighbour, their order, and copies of each
_TABLES = 8  # matrices of float32 over the scored genes: truth, prediction, clusters' copies in float64

_METHODS = "auto,mean,knn,attention"
_PLACERS = "auto,cosine,knn-regression,random,centre,nnls"

_place = partial(typer.Option, rich_help_panel="Evaluating placement")


@dataclass(frozen=True, kw_only=True)
class HeldOutOptions:
    """Options for every ``--by`` except ``place``.

    Attributes
    ----------
    scale
        Score log-normalised values (log), or also counts (counts). counts requires counts in ST.
    protocol
        Remove held-out genes before cells are normalised (cut), or include them in the totals (published).
    folds
        Number of folds.
    keep
        Fraction of the shared genes that methods may learn from (--by cells or fraction).
    leave_out_batch
        Also leave out each batch of the reference (--reference-batch) in turn, and score the same genes.
    reliability
        Also test whether genes with a high reliability are predicted better.
    no_clusters
        Skip the comparison of cell clusters and gene modules.
    """

    scale: ResultScale = "log"
    protocol: Literal["cut", "published"] = "cut"
    folds: int = 5
    keep: float = 0.8
    leave_out_batch: bool = False
    reliability: bool = False
    no_clusters: bool = False

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `cellweft.evaluate_imputation`."""
        values = {name: value for name, value in vars(self).items() if name != "no_clusters"}
        return values | {"cluster": not self.no_clusters}


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
        Numbers of neighbours K. The score is the share of each cell's K true neighbours that is found.
    caught
        Cells of SC that lie within a spot, to be scored separately: obs:COLUMN of SC, or boxes for all cells
        within a box around a spot that is 0.55 grid spacings wide.
    pseudo_spots
        First sum the cells of SC into spots, so that positions and composition are known: boxes, as in the
        paper, or discs. Pass the same file as ST; --coordinates and --labels select the positions and types
        of its cells. Use it instead of --truth.
    grid
        Number of pseudo-spots along the two axes, from edge to edge: 30,40 as in the paper.
    spacing
        Distance between pseudo-spots in the unit of the coordinates, instead of --grid.
    """

    truth: Annotated[str | None, _place(metavar="PLACE")] = None
    truth_composition: Annotated[str | None, _place(metavar="PLACE")] = None
    hits: Annotated[str, _place(metavar="NUMBERS")] = "25,120"
    caught: Annotated[str | None, _place(metavar="PLACE")] = None
    pseudo_spots: Annotated[SpotShape | None, _place()] = None
    grid: Annotated[str | None, _place(metavar="NUMBERS")] = None
    spacing: Annotated[float | None, _place()] = None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of `cellweft.evaluate_placement`; hits must be numbers."""
        truths = {name: getattr(self, name) for name in ("truth", "truth_composition", "caught")}
        return truths | {"hits": read_numbers("hits", self.hits, low=1, example="25,120")}

    def spots(self, sc: Path, st: Path, data: options.PairOptions) -> PseudoSpots | None:
        """Return the requested pseudo-spots, summed from the cells of SC."""
        from cellweft.data.synthetic.pseudospots import pseudo_spots

        for name in ("grid", "spacing") if self.pseudo_spots is None else ("truth", "truth_composition"):
            if getattr(self, name) is not None:
                got = "no " if self.pseudo_spots is None else ""
                raise SettingError(
                    name,
                    expected="pseudo-spots, which have a grid" if got else "none with pseudo-spots",
                    got=got + arg("pseudo_spots"),
                    fix="Use only one of them.",
                )
        if self.pseudo_spots is None:
            return None
        other = {name for name, value in vars(data).items() if value != getattr(options.PairOptions(), name)}
        if st.resolve() != sc.resolve() or other - {"labels", "coordinates"}:
            wrong = sorted(other - {"labels", "coordinates"})
            raise SettingError(
                "pseudo_spots",
                expected="the same cells as SC and ST, and no options for reading data except "
                + (arg("labels") + " and " + arg("coordinates")),
                got=f"{wrong[0]}" if wrong else f"{st}",
                fix="Pass the same file twice. Its main matrix must contain the counts.",
            )
        axes = None if self.grid is None else [axis.strip() for axis in self.grid.split(",")]
        if axes is not None and (len(axes) != 2 or not all(axis.isdecimal() for axis in axes)):
            fix = "Write " + arg("grid", "30,40") + "."
            raise SettingError("grid", expected="two whole numbers", got=repr(self.grid), fix=fix)
        return pseudo_spots(
            _cells_of(sc),
            coordinates=data.coordinates,
            labels=data.labels,
            spacing=self.spacing,
            grid=None if axes is None else (int(axes[0]), int(axes[1])),
            shape=self.pseudo_spots,
        )


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
        of the genes; or the positions of the cells of SC (place), given by --truth.
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
        from cellweft.data.io.atomic_output import check_apart, check_outputs

        _check_applies(context, by)
        outputs = {
            "output": (output, (".csv", ".parquet")),
            "parameters": (output.with_suffix(".json") if output.name else output, (".json",)),
        }
        targets = check_outputs(outputs, overwrite=overwrite)
        check_apart(targets, [sc, st, *network.files()])
        screen.hold(*targets)
        all_seeds = [run.seed] if seeds is None else read_numbers("seeds", seeds, low=0, example="0,1,2")
        arguments = place.arguments() if by == "place" else {"by": by, **held_out.arguments()}
        check_device(run.device)
        from cellweft.evaluate.imputation import evaluate_imputation
        from cellweft.evaluate.placement import evaluate_placement
        from cellweft.evaluate.score_table import write_scores

        sources, names = network.read(), _names(methods, by)
        resolved = _resolved(names, by, sources, held_out=held_out, device=run.device)
        pseudo_spots = place.spots(sc, st, data) if by == "place" else None
        pair = data.pair(sc, st, *targets) if pseudo_spots is None else pseudo_spots.pair()
        n_runs = len(all_seeds) * (held_out.folds if by in _APPLIES["folds"] else 1)
        if held_out.leave_out_batch and pair.sc.batches is not None:
            n_runs *= 1 + len(pair.findings["reference"]["batch_counts"])
        plan, said = _plan(pair, resolved, n_runs=n_runs, n_neighbors=max(arguments.get("hits", [0])))
        screen.announce(pair, f"{said} ({', '.join(names)})")
        scored: Callable[..., pd.DataFrame] = evaluate_placement if by == "place" else evaluate_imputation
        with screen.progress() as progress:
            arguments |= {"seeds": all_seeds, "device": run.device, "progress": progress}
            scores = scored(pseudo_spots or pair, names, **arguments, **sources)
        written, beside = write_scores(scores, output, overwrite=overwrite)
        table, values = _shown(scores, by, held_out)
        screen.show(table)
        record = {
            "command": "evaluate",
            "output": written,
            "parameters": beside,
            "protocol": arguments.get("protocol"),
            "scores": values,
            "plan": plan,
            "cautions": cautions_of(pair),
        }
        screen.finish(f"Scores -> {output}, versions and parameters -> {output.with_suffix('.json')}", record)


def _cells_of(path: Path) -> AnnData:
    """Return the cells of a file, in memory."""
    import anndata

    from cellweft.data.io.damaged import read_whole_h5ad, reading
    from cellweft.data.io.read import open_input

    open_input(path, argument="sc")  # raises an error for anything else
    if path.suffix not in (".h5ad", ".zarr"):
        fix = "Write the cells with AnnData, including their positions and types."
        raise FormatError(str(path), expected="an .h5ad or .zarr file of cells", got=path.name, fix=fix)
    with reading(str(path)):
        return read_whole_h5ad(path) if path.suffix == ".h5ad" else anndata.read_zarr(path)


def _check_applies(context: typer.Context, by: str) -> None:
    """Raise `SettingError` for an option that this evaluation does not use."""
    for name, choices in _APPLIES.items():
        source = context.get_parameter_source(name)
        if by not in choices and source is not None and source.name == "COMMANDLINE":
            option = f"--{name.replace('_', '-')}"
            raise SettingError(
                option,
                expected=f"--by {' or '.join(choices)}, to which it applies",
                got=f"--by {by}",
                fix=f"Leave out {option}, or change --by.",
            )


def _names(methods: str | None, by: str) -> list[str]:
    """Return the names of the methods, or the default ones."""
    if methods is None:
        methods = _PLACERS if by == "place" else _METHODS
    return [name.strip() for name in methods.split(",") if name.strip()]


def _resolved(
    names: list[str], by: str, sources: dict[str, Any], *, held_out: HeldOutOptions, device: str
) -> list[Method[Any]]:
    """Return the named methods, for placement or for imputation."""
    from cellweft.evaluate.methods import resolve_methods
    from cellweft.evaluate.placement_baselines import resolve_placers
    from cellweft.genes.network import Network

    if by == "place":
        return list(resolve_placers(names, device=device))
    counts, reliability = held_out.scale == "counts", held_out.reliability
    network = Network(**sources)
    return list(
        resolve_methods(names, network=network, reliability=reliability, counts=counts, device=device)
    )


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
        estimator = method.make(0)
        if isinstance(estimator, Imputer):
            needs.append(estimator.plan(pair.shared_genes.tolist(), pair=pair, memory="1000 TB").peak_bytes)
        elif isinstance(estimator, Placer):
            needs.append(estimator.plan(pair=pair).peak_bytes)
    tables = 4.0 * _TABLES * pair.st.n_cells * n_shared + _NEIGHBOR_BYTES * pair.sc.n_cells * n_neighbors
    peak, fits = max(needs) + tables, n_runs * len(methods)
    said = f"{many(fits, 'fit')}; peak memory about {human_bytes(peak)}"
    return {"fits": fits, "peak_bytes": peak}, said


def _shown(scores: pd.DataFrame, by: str, held_out: HeldOutOptions) -> tuple[ScoreTable, dict[str, Any]]:
    """Return the table for the screen, and its content for JSON."""
    if by == "place":
        title = "Cells of known position. Lower is better for location_error, higher for all others."
        return placement_table(scores, title=title), shown_placement(scores)
    from cellweft.data.io.keys import RECORD
    from cellweft.evaluate.imputation import protocol_text

    folds, keep = held_out.folds, held_out.keep
    held = {
        "genes": f"Held-out genes, {folds} folds",
        "cells": f"Held-out cells, {folds} folds, {keep:.0%} of the genes kept",
        "fraction": f"Held-out genes, {keep:.0%} kept",
    }
    title = f"{held[by]}: medians, and agreement of groups. Higher is better, except mse.\n"
    title += protocol_text(scores.attrs[RECORD])
    return score_table(scores, title=title), shown_scores(scores)
