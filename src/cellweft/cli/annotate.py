"""``cellweft annotate``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cellweft._typing import Preset
from cellweft.cli import options
from cellweft.cli.console import cautions_of, running
from cellweft.cli.parsing import check_device, read_settings
from cellweft.data.io.keys import CELL, LABEL, RECORD, UNKNOWN


def annotate(
    sc: options.Reference,
    st: options.Spatial,
    *,
    output: options.Output,
    columns: Annotated[str | None, typer.Option(metavar="COLUMNS")] = None,
    preset: Preset = "auto",
    settings: options.Settings = None,
    memory: options.Memory = "4GB",
    save_model: options.SaveModel = None,
    overwrite: options.Overwrite = False,
    data: options.PairOptions,
    run: options.RunOptions,
) -> None:
    """Assign a cell type from the reference to every spatial cell, with its probability.

    Parameters
    ----------
    output
        Output table: .csv or .parquet. A .json file with the same name shows how well the probabilities are
        calibrated.
    columns
        Columns of obs in SC that contain the labels, separated by commas, such as class,subclass. The labels
        of a cell are consistent with each other. Default: the column of --labels, or one with a recognised
        name, such as cell_type.
    preset
        The method: cellweft's own (auto), or stImpute as published (stimpute).
    settings
        Change a setting of the method, such as steps=500 or k=20. May be repeated.
    sc, st, memory, save_model, overwrite, data, run
        Options that are shared by several commands.
    """
    with running(run) as screen:
        from cellweft.data.io.atomic_output import Asked, check_apart, check_outputs

        outputs: Asked = {
            "output": (output, (".csv", ".parquet")),
            "parameters": (output.with_suffix(".json") if output.name else output, (".json",)),
            "save_model": (save_model, "model"),
        }
        targets = check_outputs(outputs, overwrite=overwrite)
        check_apart(targets, [sc, st])
        screen.hold(*targets)
        chosen = read_settings(preset, settings or [])
        check_device(run.device)
        from cellweft.evaluate.score_table import write_scores
        from cellweft.impute.annotation.reference_labels import read_labels
        from cellweft.impute.imputer import Imputer

        pair = data.pair(sc, st, *targets)
        labels = (
            None if columns is None else [column.strip() for column in columns.split(",") if column.strip()]
        )
        reference_labels = read_labels(pair, labels, argument="labels" if labels is None else "columns")
        screen.announce(pair, f"{reference_labels.names.shape[1]:,} labels in {pair.st.n_cells:,} cells")
        imputer = Imputer(preset=preset, settings=chosen, reliability=False, seed=run.seed, device=run.device)
        # The plan includes training: if the budget is too small, it fails before training starts.
        imputer.plan(pair.shared_genes[:1].tolist(), pair=pair, memory=memory)
        with screen.progress() as progress:
            imputer.fit(pair, progress=progress)
            table = imputer.annotate(labels, memory=memory, progress=progress)
            model = save_model and imputer.save(save_model, overwrite=overwrite)
        record: dict[str, Any] = table.attrs[RECORD]
        written = table.rename_axis(CELL).reset_index()
        written.attrs[RECORD] = record
        path, beside = write_scores(written, output, overwrite=overwrite)
        finest = list(record["labels"])[-1]
        before = "" if len(record["labels"]) == 1 else f"{finest}_"
        n_unknown = int(table[before + UNKNOWN].sum())
        counts = {str(name): int(count) for name, count in table[before + LABEL].value_counts().items()}
        said = f"Assigned {len(counts):,} labels to {len(table):,} cells, {n_unknown:,} unknown -> {output}"
        about = {"model": model, "cells": len(table), "unknown": n_unknown, "labels": counts}
        more = {"output": path, "parameters": beside, "calibration": record, "cautions": cautions_of(pair)}
        screen.finish(said, {"command": "annotate", **about, **more})
