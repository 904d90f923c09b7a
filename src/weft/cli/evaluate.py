"""``weft evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from weft._compute import human_bytes
from weft.cli.options import Embedding, Overwrite, PairOptions, Reference, RunOptions, Spatial
from weft.cli.screen import Screen, told_errors
from weft.cli.words import (
    cautions_of,
    check_device,
    read_seeds,
    score_table,
    shown_scores,
)

if TYPE_CHECKING:
    from weft.data.pair import Pair
    from weft.peers.methods import Method

_PROCESS_BYTES = 600e6  # Python with its libraries loaded, the graph of the cells, and a block of scores
_TABLES = 8  # matrices of float32 over the scored genes: truth, prediction, clusters' copies in float64

_Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="OUT",
        help="Where the scores go: .csv or .parquet; versions and parameters go to a .json beside it.",
        show_default=False,
    ),
]
_By = Annotated[
    Literal["genes", "cells", "fraction"],
    typer.Option(
        help="What is held out: folds of genes; folds of cells, scored on the genes that --keep leaves out; "
        "or one part of the genes (fraction)."
    ),
]
_Methods = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="Methods between commas: auto, stimpute, mean, knn, attention; or with settings, "
        "such as knn:k=20+space=log.",
    ),
]
_Folds = Annotated[int, typer.Option(help="Folds of genes or cells.")]
_Keep = Annotated[
    float,
    typer.Option(help="Part of the shared genes that methods may learn from, by cells and by fraction."),
]
_Seeds = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBERS", help="Several seeds between commas, in place of --seed.", show_default=False
    ),
]
_Reliability = Annotated[
    bool,
    typer.Option(
        "--reliability", help="Test too whether the genes that are called reliable are predicted better."
    ),
]
_NoClusters = Annotated[
    bool, typer.Option("--no-clusters", help="Do not compare clusters of cells and modules of genes.")
]


def evaluate(
    sc: Reference,
    st: Spatial,
    *,
    output: _Output,
    by: _By = "genes",
    methods: _Methods = "auto,mean,knn,attention",
    folds: _Folds = 5,
    keep: _Keep = 0.8,
    seeds: _Seeds = None,
    embedding: Embedding = None,
    reliability: _Reliability = False,
    no_clusters: _NoClusters = False,
    overwrite: Overwrite = False,
    data: PairOptions,
    run: RunOptions,
) -> None:
    """Hide what the spatial side measured, let methods predict it, and score them against it."""
    with told_errors(as_json=run.as_json):
        screen = Screen(run)
        _check_outputs(output, overwrite=overwrite)
        all_seeds = [run.seed] if seeds is None else read_seeds(seeds)
        check_device(run.device)
        from weft import evaluation
        from weft.data.embeddings import read_embedding
        from weft.peers.methods import resolve_methods

        table = None if embedding is None else read_embedding(embedding)
        names = [name.strip() for name in methods.split(",") if name.strip()]
        found = resolve_methods(names, embedding=table, reliability=reliability, device=run.device)
        pair = data.pair(sc, st, output=output)
        plan = _plan(pair, found, n_runs=len(all_seeds) * (1 if by == "fraction" else folds))
        screen.announce(pair, f"{plan['said']} ({', '.join(names)})")
        with screen.progress() as progress:
            scores = evaluation.evaluate(
                pair,
                names,
                by=by,
                folds=folds,
                keep=keep,
                seeds=all_seeds,
                cluster=not no_clusters,
                reliability=reliability,
                embedding=table,
                device=run.device,
                progress=progress,
            )
        written, beside = evaluation.write_scores(scores, output, overwrite=overwrite)
        screen.show(score_table(scores, title=_title(by, folds, keep)))
        screen.finish(
            f"Scores -> {output}, versions and parameters -> {output.with_suffix('.json')}",
            {
                "command": "evaluate",
                "output": str(written),
                "parameters": str(beside),
                "scores": shown_scores(scores),
                "plan": {"fits": plan["fits"], "peak_bytes": plan["peak_bytes"]},
                "cautions": cautions_of(pair),
            },
        )


def _check_outputs(output: Path, *, overwrite: bool) -> None:
    """Raise unless the table and the file beside it can be put where they shall lie."""
    from weft.data.output import check_output

    check_output(output, overwrite=overwrite, suffixes=(".csv", ".parquet"))
    check_output(output.with_suffix(".json"), overwrite=overwrite)


def _plan(pair: Pair, methods: Sequence[Method], *, n_runs: int) -> dict[str, Any]:
    """Return the number of fits, and an estimate of peak memory: of the hungriest method, and the tables."""
    from weft.data.cautions import many
    from weft.imputer import Imputer

    n_shared = len(pair.shared_genes)
    needs = [_PROCESS_BYTES + 16.0 * pair.sc.n_cells * n_shared]
    for method in methods:
        made = method.make(0)
        if isinstance(made, Imputer):
            needs.append(made.plan(pair.shared_genes.tolist(), pair=pair, memory="1000 TB").peak_bytes)
    peak, fits = max(needs) + 4.0 * _TABLES * pair.st.n_cells * n_shared, n_runs * len(methods)
    said = f"{many(fits, 'fit')}; peak memory about {human_bytes(peak)}"
    return {"fits": fits, "peak_bytes": peak, "said": said}


def _title(by: str, folds: int, keep: float) -> str:
    held = {
        "genes": f"Held-out genes, {folds} folds",
        "cells": f"Held-out cells, {folds} folds, {keep:.0%} of the genes kept",
        "fraction": f"Held-out genes, {keep:.0%} kept",
    }
    return f"{held[by]}: medians, and agreement of groups. Higher is better, except mse."
