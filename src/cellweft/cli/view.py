"""``cellweft view``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellweft.cli.console import running
from cellweft.cli.options import ShownOptions


def view(
    results: Annotated[list[Path], typer.Argument(metavar="RESULT")],
    *,
    tissue: Annotated[Path | None, typer.Option(metavar="ST")] = None,
    port: int = 0,
    memory: Annotated[str, typer.Option(metavar="SIZE")] = "512MB",
    open_browser: Annotated[bool, typer.Option("--open/--no-open")] = True,
    shown: ShownOptions,
) -> None:
    """Show results on a page in the browser, served from this machine to this machine alone.

    Parameters
    ----------
    results
        What cellweft impute or cellweft place wrote: .zarr stores or .h5ad files.
    tissue
        The spatial data that were imputed: what was measured is shown beside what was imputed.
    port
        Where to listen on this machine; 0 takes any free port.
    memory
        Memory for genes that were read, such as 512MB.
    open_browser
        Open the page in the browser.
    shown
        What is printed.
    """
    with running(shown) as screen:
        from cellweft.viewer import view as start

        viewer = start(*results, tissue=tissue, port=port, memory=memory, open_browser=False, block=False)
        with viewer:
            names = [str(path) for path in results]
            record = {"command": "view", "url": viewer.url, "port": viewer.port, "results": names}
            screen.finish(
                f"{', '.join(names)} for this machine alone, until Ctrl-C: {viewer.url} ",
                record | {"tissue": None if tissue is None else str(tissue)},
            )
            if open_browser and not viewer.open():
                screen.say("No browser was found: open the address in one.")
            viewer.wait()
        screen.say("Ended.")
