"""``cellweft view``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellweft.cli.console import Screen, told_errors
from cellweft.cli.options import ShownOptions, argument, option

_Results = Annotated[
    list[Path],
    argument("What cellweft impute or cellweft place wrote: .zarr stores or .h5ad files.", "RESULT"),
]
_Tissue = Annotated[
    Path | None,
    option("The spatial data that were imputed: what was measured is shown beside what was imputed.", "ST"),
]
_Port = Annotated[int, typer.Option(help="Where to listen on this machine; 0 takes any free port.")]
_Memory = Annotated[str, typer.Option(metavar="SIZE", help="Memory for genes that were read, such as 512MB.")]
_Open = Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")]


def view(
    results: _Results,
    *,
    tissue: _Tissue = None,
    port: _Port = 0,
    memory: _Memory = "512MB",
    open_browser: _Open = True,
    shown: ShownOptions,
) -> None:
    """Show results on a page in the browser, served from this machine to this machine alone."""
    with told_errors(as_json=shown.as_json):
        screen = Screen(shown)
        from cellweft.viewer import view as start

        viewer = start(*results, tissue=tissue, port=port, memory=memory, open_browser=False, block=False)
        with viewer:
            names = [str(path) for path in results]
            record = {"command": "view", "url": viewer.url, "port": viewer.port, "results": names}
            screen.finish(
                f"{', '.join(names)} at {viewer.url}, for this machine alone; Ctrl-C ends it",
                record | {"tissue": None if tissue is None else str(tissue)},
            )
            if open_browser and not viewer.open():
                screen.say("No browser was found: open the address in one.")
            viewer.wait()
        screen.say("Ended.")
