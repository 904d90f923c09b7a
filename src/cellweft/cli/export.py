"""``cellweft export``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cellweft._errors import SettingError, arg
from cellweft.cli.console import Screen, running
from cellweft.cli.options import Overwrite, ShownOptions

_explorer = partial(typer.Option, rich_help_panel="Xenium Explorer")
_vitessce = partial(typer.Option, rich_help_panel="Vitessce")
_spatialdata = partial(typer.Option, rich_help_panel="SpatialData")


@dataclass(frozen=True, kw_only=True)
class ExplorerOptions:
    """Options for ``--to explorer``.

    Attributes
    ----------
    ids
        Column of obs with the cell IDs of the Xenium run. Default: cell_id if there is one, otherwise the
        names of obs.
    """

    ids: Annotated[str | None, _explorer(metavar="COLUMN")] = None


@dataclass(frozen=True, kw_only=True)
class VitessceOptions:
    """Options for ``--to vitessce``.

    Attributes
    ----------
    url
        URL from which the Vitessce page loads RESULT. Default: port 8000 on this machine.
    gene
        Gene by which the cells are coloured at first. Default: colour by group.
    """

    url: Annotated[str | None, _vitessce()] = None
    gene: Annotated[str | None, _vitessce()] = None


@dataclass(frozen=True, kw_only=True)
class SpatialDataOptions:
    """Options for ``--to spatialdata``.

    Attributes
    ----------
    into
        SpatialData store that RESULT was computed from. With -o, the new element is added to a copy.
    table
        Name of the new element. Default: imputed or placed.
    annotates
        Table in STORE that RESULT was computed from. Default: the only one.
    """

    into: Annotated[Path | None, _spatialdata(metavar="STORE")] = None
    table: Annotated[str | None, _spatialdata(metavar="NAME")] = None
    annotates: Annotated[str | None, _spatialdata(metavar="NAME")] = None


def export(
    result: Annotated[Path, typer.Argument(metavar="RESULT")],
    *,
    to: Literal["cellxgene", "vitessce", "explorer", "spatialdata"],
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="OUT")] = None,
    column: Annotated[str | None, typer.Option(metavar="COLUMN")] = None,
    title: str | None = None,
    overwrite: Overwrite = False,
    spatialdata: SpatialDataOptions,
    vitessce: VitessceOptions,
    explorer: ExplorerOptions,
    shown: ShownOptions,
) -> None:
    """Export a result to another program: cellxgene, Vitessce, Xenium Explorer, or SpatialData.

    Parameters
    ----------
    result
        Output of cellweft impute or cellweft place: a .zarr store or an .h5ad file.
    to
        Program to export to: cellxgene (.h5ad), vitessce (.json, for a .zarr RESULT), explorer (cell groups
        as .csv), or spatialdata (for squidpy and napari).
    output
        Output file. Not needed for spatialdata, which adds to the store of --into.
    column
        Column of obs with the cell groups. Required for explorer. Default for vitessce: detected
        automatically.
    title
        Title of the dataset. Default: the name of the file.
    overwrite, spatialdata, vitessce, explorer, shown
        Options that are shared by several commands, and those of single programs.
    """
    with running(shown) as screen:
        option_values = (
            {"column": column, "title": title} | vars(spatialdata) | vars(vitessce) | vars(explorer)
        )
        _check_options(to, output, option_values)
        if to == "spatialdata":
            from cellweft.data.export.spatialdata import to_spatialdata

            with screen.progress() as progress:
                path = to_spatialdata(
                    result,
                    spatialdata.into,
                    name=spatialdata.table,
                    annotates=spatialdata.annotates,
                    output=output,
                    overwrite=overwrite,
                    progress=progress,
                )
        elif to == "vitessce":
            from cellweft.data.export.vitessce import write_vitessce

            columns = [] if column is None else [column]
            path = write_vitessce(
                result, str(output), columns=columns, title=title, overwrite=overwrite, **vars(vitessce)
            )
        elif to == "explorer":
            from cellweft.data.export.xenium_explorer import write_explorer_groups

            path = write_explorer_groups(
                result, str(output), column=str(column), ids=explorer.ids, overwrite=overwrite
            )
        else:
            path = _cellxgene(result, str(output), title, screen, overwrite=overwrite)
        screen.finish(f"Exported {result} to {to} -> {path}", {"command": "export", "to": to, "output": path})


_TAKES = {
    "cellxgene": ("title",),
    "vitessce": ("column", "title", "url", "gene"),
    "explorer": ("column", "ids"),
    "spatialdata": ("into", "table", "annotates"),
}
_NEEDS = {"cellxgene": (), "vitessce": (), "explorer": ("column",), "spatialdata": ("into",)}


def _check_options(to: str, output: Path | None, option_values: dict[str, Any]) -> None:
    """Raise if a required option is missing, or if one would be ignored."""
    if output is None and to != "spatialdata":
        raise SettingError("output", expected=f"an output file for {to}", got="none", fix="Add -o OUT.")
    for name in _NEEDS[to]:
        if option_values[name] is None:
            raise SettingError(
                name,
                expected="a value, which is required by " + arg("to", to),
                got="none",
                fix="Add " + arg(name, "STORE" if name == "into" else "cell_type") + ".",
            )
    for name, value in option_values.items():
        if value is not None and name not in _TAKES[to]:
            takes = [other for other, names in _TAKES.items() if name in names]
            expected = arg("to") + f" {' or '.join(takes)}"
            raise SettingError(name, expected=expected, got=arg("to", to), fix="Omit " + arg(name) + ".")


def _cellxgene(result: Path, output: str, title: str | None, screen: Screen, *, overwrite: bool) -> Path:
    from cellweft.data.export.cellxgene import check_cellxgene, write_cellxgene

    with screen.progress() as progress:
        path = write_cellxgene(result, output, title=title, overwrite=overwrite, progress=progress)
    findings = check_cellxgene(path)
    screen.say_each(findings.view)
    if findings.submission:
        screen.say("Only for a submission to CELLxGENE Discover:")
        screen.say_each(findings.submission)
    return path
