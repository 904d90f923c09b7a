"""``cellweft report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cellweft._errors import FormatError, SettingError, arg
from cellweft._text import human_bytes
from cellweft.cli.console import Screen, cautions_of, told_errors
from cellweft.cli.options import Overwrite, PairOptions, RunOptions, argument, option, output
from cellweft.cli.parsing import check_device, read_genes

if TYPE_CHECKING:
    from cellweft.data._pair import Pair

_MADE, _KNOWN = "What was made", "What it was made from, and what is known"

_Results = Annotated[
    list[Path] | None,
    argument(
        "What cellweft has written, in any order: imputed genes, placed cells, spots (.zarr or .h5ad), "
        "tables of scores (.csv or .parquet).",
        "RESULTS...",
    ),
]
_Output = Annotated[Path, output("Where the report goes: an .html file.")]
_Scores = Annotated[
    list[Path] | None,
    option("Scores that cellweft evaluate has written; may be repeated.", "FILE", panel=_MADE),
]
_PlaceScores = Annotated[
    list[Path] | None, option("Scores of places likewise (--by place); may be repeated.", "FILE", panel=_MADE)
]
_Spots = Annotated[Path | None, option("Spots that cellweft place --spots has written.", "FILE", panel=_MADE)]
_Inputs = Annotated[
    tuple[Path, Path] | None,
    option(
        "The two inputs: they are checked again, and measured values stand beside imputed ones.",
        "SC ST",
        panel=_KNOWN,
    ),
]
_Truth = Annotated[
    Path | None,
    option(
        "Measurements, in the same cells, of genes that the panel did not have, if there are any; with "
        "--check-inputs.",
        "ST",
        panel=_KNOWN,
    ),
]
_TruePlaces = Annotated[
    str | None,
    option(
        "Where the placed cells lived, if known: obs:X,Y or obsm:KEY of SC (of the placed cells, "
        "without --check-inputs).",
        "PLACE",
        panel=_KNOWN,
    ),
]
_Genes = Annotated[
    str | None,
    option(
        "Genes to draw in the tissue, besides the most and the least reliable: names between commas, "
        "or a text file with one name a line.",
        "NAMES|FILE",
    ),
]
_Title = Annotated[str, typer.Option(metavar="TEXT", help="What stands above.")]


def report(
    results: _Results = None,
    *,
    output: _Output,
    scores: _Scores = None,
    place_scores: _PlaceScores = None,
    spots: _Spots = None,
    check_inputs: _Inputs = None,
    truth: _Truth = None,
    true_places: _TruePlaces = None,
    genes: _Genes = None,
    title: _Title = "cellweft report",
    overwrite: Overwrite = False,
    data: PairOptions,
    run: RunOptions,
) -> None:
    """Write one HTML file on what was made, how, how good it is, and what to keep in mind."""
    with told_errors(as_json=run.as_json):
        screen = Screen(run)
        from cellweft.data.io.atomic_output import check_output

        check_output(output, overwrite=overwrite, suffixes=(".html", ".htm"))
        check_device(run.device)
        names = _asked_genes(genes)
        pair = None if check_inputs is None else data.pair(*check_inputs)
        known = _known(truth, check_inputs, data)
        from cellweft import reports

        given = [*(results or []), *(scores or []), *(place_scores or []), *([spots] if spots else [])]
        try:
            written = reports.report(
                output,
                *given,
                *([] if pair is None else [pair]),
                genes=names,
                truth=known,
                true_places=true_places,
                title=title,
                overwrite=overwrite,
            )
        except FormatError as error:
            error.add_note("The two inputs themselves go to --check-inputs.")
            raise
        size = written.stat().st_size
        record: dict[str, Any] = {
            "command": "report",
            "output": str(written),
            "bytes": size,
            "results": [str(one) for one in given],
            "cautions": [] if pair is None else cautions_of(pair),
        }
        screen.finish(f"Report -> {output}, {human_bytes(size)}", record)


def _asked_genes(genes: str | None) -> list[str]:
    """Return the genes that are drawn besides."""
    if genes is None:
        return []
    names = read_genes(genes)
    if names is None:
        raise SettingError(
            arg("genes", "all"),
            expected="a few genes, as each is drawn",
            got="all",
            fix="Name those that you want to see.",
        )
    return names


def _known(truth: Path | None, inputs: tuple[Path, Path] | None, data: PairOptions) -> Pair | None:
    """Return measurements of genes that the panel did not have, with the reference."""
    if truth is None:
        return None
    if inputs is None:
        raise SettingError(
            "truth",
            expected=arg("check_inputs") + " too, as values are brought to the scale of the reference",
            got="none",
            fix="Add " + arg("check_inputs") + " SC ST.",
        )
    return data.pair(inputs[0], truth)
