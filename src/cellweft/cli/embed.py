"""``cellweft embed``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from cellweft._typing import Pooling
from cellweft.cli.console import running
from cellweft.cli.options import Output, Overwrite, RunOptions


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The protein language model and its settings: options of `cellweft.genes.ProteinEmbedder`.

    Attributes
    ----------
    model
        ESM model on the Hugging Face Hub, or the folder that you downloaded it to. The stImpute paper used
        facebook/esm2_t36_3B_UR50D.
    revision
        Branch, tag or commit on the Hub. Default: the latest.
    layer
        Layer to take the output from. Negative numbers count from the last.
    pooling
        Mean or maximum (max) over the residues of a protein, or the classification token (cls) that precedes
        them.
    dtype
        Data type of the stored numbers. float16 takes half the space.
    precision
        Precision of matrix products. auto uses bfloat16 on a GPU that supports it.
    window
        Maximum number of residues in one pass. Longer proteins are split into windows.
    overlap
        Minimum overlap of neighbouring windows, in residues.
    tokens_per_batch
        Maximum number of tokens in one batch. Fewer tokens need less memory. Default: depends on the device.
    offline
        Use a model that is already on this machine, and do not contact the Hub.
    """

    model: Annotated[str, typer.Option(metavar="NAME|FOLDER")] = "facebook/esm2_t33_650M_UR50D"
    revision: str | None = None
    layer: int = -1
    pooling: Pooling = "mean"
    dtype: Literal["float32", "float16"] = "float32"
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    window: int = 1022
    overlap: int = 256
    tokens_per_batch: Annotated[int | None, typer.Option(metavar="N")] = None
    offline: bool = False


def embed(
    proteins: Annotated[Path, typer.Argument(metavar="PROTEINS")],
    *,
    output: Output,
    overwrite: Overwrite = False,
    model: ModelOptions,
    run: RunOptions,
) -> None:
    """Embed proteins with ESM-2, one vector per gene. To resume an interrupted run, repeat the command.

    Parameters
    ----------
    proteins
        FASTA file with one protein per gene (may be .gz).
    output
        Output file (.parquet). Pass it to cellweft impute with --embedding.
    overwrite, model, run
        Options that are shared by several commands, and those of the model.
    """
    with running(run) as screen:
        _quiet_downloads(no_progress=run.quiet or run.as_json)
        from cellweft._text import many
        from cellweft.data.io.atomic_output import check_output
        from cellweft.genes.esm.embedder import ProteinEmbedder, checked_proteins, work_folder

        target = check_output(output, overwrite=overwrite, suffixes=(".parquet",))
        embedder = ProteinEmbedder(**vars(model), device=run.device)
        sequences = checked_proteins(proteins)
        plan = embedder.plan(sequences, work_dir=work_folder(target))
        screen.say(f"Plan: {plan}")
        with _told_interrupt(work_folder(target)), screen.progress() as progress:
            path = embedder.embed_to(sequences, target, overwrite=overwrite, progress=progress)
        screen.finish(
            f"Embedded {many(plan.n_proteins, 'protein')}, {plan.n_dimensions:,} numbers each -> {output}",
            {
                "command": "embed",
                "output": path,
                "proteins": plan.n_proteins,
                "dimensions": plan.n_dimensions,
                "pooling": model.pooling,
                "dtype": model.dtype,
                "plan": asdict(plan),
            },
        )


def _quiet_downloads(*, no_progress: bool) -> None:
    """Turn off the Hub's progress bars outside a terminal; it reads the environment when it is loaded."""
    if no_progress or not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@contextmanager
def _told_interrupt(folder: Path) -> Iterator[None]:
    """Print what an interrupted run has saved."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        note = f"; finished proteins are in {folder}" if folder.exists() else ""
        typer.echo(f"Interrupted{note}. Run the same command again to resume.", err=True)
        raise typer.Exit(130) from interrupt
