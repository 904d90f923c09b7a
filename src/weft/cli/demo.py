"""``weft demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from weft.cli.options import Overwrite, RunOptions
from weft.cli.score_tables import placement_table, score_table, shown_placement, shown_scores
from weft.cli.screen import Screen, told_errors
from weft.cli.words import check_device

_Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder for the files of the demonstration.")]
_Cells = Annotated[int, typer.Option(help="Spatial cells to simulate.")]

_NEXT = """The same with your own data:
  weft check    atlas.h5ad tissue.h5ad
  weft impute   atlas.h5ad tissue.h5ad -o imputed.zarr
  weft place    atlas.h5ad tissue.h5ad -o placed.zarr
  weft evaluate atlas.h5ad tissue.h5ad -o scores.csv
  weft report   imputed.zarr placed.zarr scores.csv -o report.html"""


def demo(
    *, out: _Out = Path("weft-demo"), cells: _Cells = 1500, overwrite: Overwrite = False, run: RunOptions
) -> None:
    """Simulate a tissue, impute its genes, place cells in it, and show how good that is; needs no data."""
    with told_errors(as_json=run.as_json):
        screen = Screen(run)
        check_device(run.device)
        from weft.demo import FILES, PICTURES, run_demo

        with screen.progress() as progress:
            made = run_demo(
                out,
                n_cells=cells,
                seed=run.seed,
                device=run.device,
                overwrite=overwrite,
                say=screen.say,
                progress=progress,
            )
        screen.say("")
        screen.show(
            score_table(made.held_out, title="Genes of the panel, hidden a fifth at a time; as on real data")
        )
        screen.show(
            score_table(made.against_truth, title="Genes that were not on the panel, against the truth")
        )
        screen.say(
            "Medians over genes and over cells, and agreement of groups; higher is better, except mse.\n"
            "A method that predicts one constant per gene (mean) has a high cosine too: look at pearson.\n"
            "The reliable half are the genes whose imputation the method itself trusts more.\n"
        )
        screen.show(
            placement_table(made.places, title="Where the cells of the atlas lived, against the truth")
        )
        screen.say(
            "Distances from the true place, in the unit of the coordinates, and hits: how many of a cell's\n"
            "25 nearest cells are found.\n"
        )
        screen.say(_NEXT)
        screen.say("")
        screen.finish(
            f"The demonstration lies in {out}, and {made.report} tells of it: "
            f"{', '.join(FILES.values())}, {', '.join(PICTURES.values())}",
            {
                "command": "demo",
                "folder": str(made.folder),
                "files": {what: str(made.folder / name) for what, name in FILES.items()},
                "pictures": {what: str(made.folder / name) for what, name in PICTURES.items()},
                "held_out": shown_scores(made.held_out),
                "against_truth": shown_scores(made.against_truth),
                "places": shown_placement(made.places),
            },
        )
