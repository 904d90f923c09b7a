"""``cellweft view``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cellweft.cli.console import running
from cellweft.cli.options import ShownOptions


def view(
    results: Annotated[list[Path], typer.Argument(metavar="RESULT")],
    *,
    tissue: Annotated[Path | None, typer.Option(metavar="ST")] = None,
    labels: Annotated[Path | None, typer.Option(metavar="FILE")] = None,
    port: int = 0,
    memory: Annotated[str, typer.Option(metavar="SIZE")] = "512MB",
    open_browser: Annotated[bool, typer.Option("--open/--no-open")] = True,
    token: Annotated[bool, typer.Option("--token/--no-token")] = True,
    shown: ShownOptions,
) -> None:
    """Show results in the browser. The page can only be opened on this machine.

    Parameters
    ----------
    results
        Outputs of cellweft impute or cellweft place: .zarr stores or .h5ad files.
    tissue
        The spatial data, to show measured values next to imputed ones.
    labels
        Table of cell types from cellweft annotate (.csv or .parquet), to colour the cells by their label, its
        confidence, and whether they are unknown.
    port
        Port on this machine. 0 for any free port.
    memory
        Memory for caching genes, such as 512MB.
    open_browser
        Open the page in the browser.
    token
        Allow access only with the token in the page's address. Without it, every user of this machine can
        read the results.
    shown
        Options for what is printed.
    """
    with running(shown) as screen:
        from cellweft.viewer import view as start

        served: dict[str, Any] = {"tissue": tissue, "labels": labels, "port": port, "memory": memory}
        viewer = start(*results, **served, token=token, open_browser=False, block=False)
        with viewer:
            names = [str(path) for path in results]
            record = {"command": "view", "url": viewer.url, "port": viewer.port, "results": names}
            for_whom = "on this machine only" if token else "to every user of this machine"
            screen.finish(
                f"Showing {', '.join(names)} {for_whom} until you press Ctrl-C: {viewer.url} ",
                record | {"tissue": tissue and str(tissue), "labels": labels and str(labels)},
            )
            if open_browser and not viewer.open():
                screen.say("No browser was found. Open the address yourself.")
            viewer.wait()
        screen.say("Viewer closed.")
