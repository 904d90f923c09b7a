"""``cellweft report``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cellweft._errors import FormatError, SettingError, arg
from cellweft._text import human_bytes
from cellweft.cli.console import cautions_of, running
from cellweft.cli.options import Output, Overwrite, PairOptions, RunOptions
from cellweft.cli.parsing import check_device, read_genes

if TYPE_CHECKING:
    from cellweft.data._pair import Pair

_made = partial(typer.Option, rich_help_panel="Results")
_known = partial(typer.Option, rich_help_panel="Inputs and truth")


def report(
    results: Annotated[list[Path] | None, typer.Argument(metavar="RESULT")] = None,
    *,
    output: Output,
    scores: Annotated[list[Path] | None, _made(metavar="FILE")] = None,
    place_scores: Annotated[list[Path] | None, _made(metavar="FILE")] = None,
    spots: Annotated[Path | None, _made(metavar="FILE")] = None,
    check_inputs: Annotated[tuple[Path, Path] | None, _known(metavar="SC ST")] = None,
    truth: Annotated[Path | None, _known(metavar="ST")] = None,
    true_places: Annotated[str | None, _known(metavar="PLACE")] = None,
    genes: Annotated[str | None, typer.Option(metavar="NAMES|FILE")] = None,
    title: Annotated[str, typer.Option(metavar="TEXT")] = "cellweft report",
    overwrite: Overwrite = False,
    data: PairOptions,
    run: RunOptions,
) -> None:
    """Write a report on your results as a single HTML file: inputs, methods, accuracy, plots and caveats.

    Parameters
    ----------
    results
        Outputs of cellweft, in any order: imputed genes, placed cells or spots (.zarr or .h5ad), and tables
        of scores or cell types (.csv or .parquet, each with its .json).
    output
        Output file (.html).
    scores
        Scores from cellweft evaluate. May be repeated.
    place_scores
        Scores from cellweft evaluate --by place. May be repeated.
    spots
        Spots from cellweft place --spots.
    check_inputs
        The two inputs. They are checked again, and measured values are shown next to imputed ones.
    truth
        Measurements of genes that were not on the panel, in the same cells, if you have any. Requires
        --check-inputs.
    true_places
        True positions of the placed cells, if known: obs:X,Y or obsm:KEY of SC, or of the placed cells if
        --check-inputs is not used.
    genes
        Genes to plot, in addition to the most and the least reliable: names separated by commas, or a text
        file with one name per line.
    title
        Title of the report.
    overwrite, data, run
        Options that are shared by several commands.
    """
    with running(run) as screen:
        from cellweft.data.io.atomic_output import check_apart, check_output

        check_output(output, overwrite=overwrite, suffixes=(".html", ".htm"))
        paths = [*(results or []), *(scores or []), *(place_scores or []), *([spots] if spots else [])]
        check_apart([output], [*paths, *(check_inputs or ()), truth])
        check_device(run.device)
        names = _asked_genes(genes)
        pair = None if check_inputs is None else data.pair(*check_inputs)
        measured = _measured(truth, check_inputs, data)
        from cellweft import reports

        try:
            with screen.progress() as progress:
                written = reports.report(
                    output,
                    *paths,
                    *([] if pair is None else [pair]),
                    genes=names,
                    truth=measured,
                    true_places=true_places,
                    title=title,
                    overwrite=overwrite,
                    progress=progress,
                )
        except FormatError as error:
            error.add_note("Pass the two inputs with --check-inputs.")
            raise
        size = written.stat().st_size
        record = {
            "command": "report",
            "output": written,
            "bytes": size,
            "results": paths,
            "cautions": [] if pair is None else cautions_of(pair),
        }
        screen.finish(f"Report -> {output}, {human_bytes(size)}", record)


def _asked_genes(genes: str | None) -> list[str]:
    """Return the additional genes to plot."""
    if genes is None:
        return []
    names = read_genes(genes)
    if names is None:
        expected, fix = "a few genes, because each one is plotted", "List the genes that you want to plot."
        raise SettingError(arg("genes", "all"), expected=expected, got="all", fix=fix)
    return names


def _measured(truth: Path | None, inputs: tuple[Path, Path] | None, data: PairOptions) -> Pair | None:
    """Return measurements of genes that were not on the panel, with the reference."""
    if truth is None:
        return None
    if inputs is None:
        raise SettingError(
            "truth",
            expected=arg("check_inputs") + " too, because values are normalised together with the reference",
            got="none",
            fix="Add " + arg("check_inputs") + " SC ST.",
        )
    return data.pair(inputs[0], truth)
