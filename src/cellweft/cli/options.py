"""The options of the commands, with the help that a biologist reads."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import shlex
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_type_hints

import typer
from typer.models import ArgumentInfo

from cellweft._errors import Argument, Message
from cellweft._typing import Duplicates, Scale

if TYPE_CHECKING:
    from cellweft.data._pair import Pair

_SC, _ST, _RUN = "Reading the reference", "Reading the spatial data", "Running"
_NETWORK = "Gene network"


def option(
    text: str, metavar: str | None = None, *, panel: str | None = None, names: Sequence[str] = ()
) -> Any:
    """Return an option with its help, where there is no default to show."""
    return typer.Option(*names, help=text, metavar=metavar, rich_help_panel=panel, show_default=False)


def argument(text: str, metavar: str) -> Any:
    """Return an argument with its help."""
    return typer.Argument(help=text, metavar=metavar, show_default=False)


def output(text: str, metavar: str = "OUT") -> Any:
    """Return the option that says where the output goes."""
    return option(text, metavar, names=("--output", "-o"))


Reference: TypeAlias = Annotated[
    Path,
    argument(
        "Single-cell reference: .h5ad, .zarr, 10x .h5 or folder, or a table (.csv, .tsv, .parquet).", "SC"
    ),
]
Spatial: TypeAlias = Annotated[Path, argument("Spatial data, in any of the same formats.", "ST")]
Memory: TypeAlias = Annotated[str, typer.Option(metavar="SIZE", help="Memory that may be used, such as 4GB.")]
SaveModel: TypeAlias = Annotated[
    Path | None, option("Save what was learned, for cellweft.load in Python.", "DIR")
]
Overwrite: TypeAlias = Annotated[bool, typer.Option("--overwrite", help="Replace an output that is there.")]


@dataclass(frozen=True, kw_only=True)
class PairOptions:
    """How the two inputs are read: the options of `cellweft.pair`."""

    labels: Annotated[
        str | None,
        option("Column of obs with the cell types. Default: a usual one, if any.", "COLUMN", panel=_SC),
    ] = None
    sc_layer: Annotated[
        str | None, option("Layer that holds the counts. Default: the main matrix, X.", "LAYER", panel=_SC)
    ] = None
    sc_scale: Annotated[
        Scale | None, option("What the values are, if they are not recognised rightly.", panel=_SC)
    ] = None
    size_factor: Annotated[
        str | None,
        option(
            "Column of obs with each cell's total count, if the file holds only some genes.",
            "COLUMN",
            panel=_SC,
        ),
    ] = None
    sc_gene_column: Annotated[
        str | None,
        option("Column of var with the gene names. Default: the names of var.", "COLUMN", panel=_SC),
    ] = None
    coordinates: Annotated[
        str | None,
        option(
            "Where the positions are: obsm:KEY, obs:X,Y or obs:X,Y,Z; none goes on without. "
            "Default: the usual places.",
            "PLACE",
            panel=_ST,
        ),
    ] = None
    slices: Annotated[
        str | None,
        option(
            "Column of obs that tells tissue slices apart. Default: a usual one, if any.", "COLUMN", panel=_ST
        ),
    ] = None
    st_labels: Annotated[
        str | None,
        option("Column of obs with the cell types. Default: a usual one, if any.", "COLUMN", panel=_ST),
    ] = None
    st_layer: Annotated[
        str | None, option("Layer that holds the counts. Default: the main matrix, X.", "LAYER", panel=_ST)
    ] = None
    st_scale: Annotated[
        Scale | None, option("What the values are, if they are not recognised rightly.", panel=_ST)
    ] = None
    st_size_factor: Annotated[
        str | None, option("Column of obs with each cell's size, such as its volume.", "COLUMN", panel=_ST)
    ] = None
    st_gene_column: Annotated[
        str | None,
        option("Column of var with the gene names. Default: the names of var.", "COLUMN", panel=_ST),
    ] = None
    duplicates: Annotated[
        Duplicates,
        typer.Option(
            help="A gene name that stands twice in an input: stop with an error, or keep its first column.",
            rich_help_panel="Reading both",
        ),
    ] = "error"

    def pair(self, sc: Path, st: Path, *, output: Path | None = None) -> Pair:
        """Open, check and match the two inputs; refuse an output that would take the place of one."""
        from cellweft.data._pair import check_not_input, pair

        found = pair(sc, st, **{field.name: getattr(self, field.name) for field in fields(self)})
        if output is not None:
            check_not_input(output, found)
        return found


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """What the gene network is made from; several kinds are put together."""

    embedding: Annotated[
        Path | None,
        option(
            "Table of gene embeddings, from cellweft embed or elsewhere (.parquet, .npz, .h5ad, .csv or "
            ".tsv): "
            "genes with similar proteins inform each other. Without any of these three options, genes with "
            "similar expression do; with several, all count alike, unless the method's setting graph says "
            "otherwise, as graph=embedding:2+expression.",
            "FILE",
            panel=_NETWORK,
        ),
    ] = None
    gene_sets: Annotated[
        list[Path] | None,
        option(
            "GMT file (.gz too) of gene sets, such as those of GO or Reactome: genes inform each other that "
            "share sets, small sets above all. May be repeated.",
            "FILE",
            panel=_NETWORK,
        ),
    ] = None
    edges: Annotated[
        list[Path] | None,
        option(
            "Text file (.gz too) of pairs of genes that inform each other: two names of genes, and a weight "
            "or none, between tabs, commas or spaces. STRING's protein IDs have to be turned into names. "
            "May be repeated.",
            "FILE",
            panel=_NETWORK,
        ),
    ] = None

    def read(self) -> dict[str, Any]:
        """Return what is given, read, by the names of the Imputer's arguments."""
        from cellweft.genes.network import read_network

        given = {one.name: getattr(self, one.name) for one in fields(self)}
        given = {name: source for name, source in given.items() if source}
        network = read_network(given, **given)
        return {name: getattr(network, name) for name in given}


@dataclass(frozen=True, kw_only=True)
class ShownOptions:
    """What is printed."""

    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one JSON object and nothing else on standard output.", rich_help_panel=_RUN
        ),
    ] = False
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Print the last line only, and no progress.", rich_help_panel=_RUN)
    ] = False


@dataclass(frozen=True, kw_only=True)
class RunOptions(ShownOptions):
    """What every command takes that computes."""

    seed: Annotated[
        int,
        typer.Option(
            help="Seed of all random draws; the same seed gives the same result.", rich_help_panel=_RUN
        ),
    ] = 0
    device: Annotated[
        str,
        typer.Option(
            help="auto, cpu, cuda, cuda:1 or mps; several between commas, as cuda:0,cuda:1, or all for every "
            "GPU, train beside each other.",
            rich_help_panel=_RUN,
        ),
    ] = "auto"


def expanded(function: Callable[..., None]) -> Callable[..., None]:
    """Return a command whose parameters that are dataclasses of options became their fields, for typer."""
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if dataclasses.is_dataclass(kind)}
    parameters = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name in groups:
            kinds = get_type_hints(groups[name], include_extras=True)
            parameters += [
                inspect.Parameter(
                    one.name, parameter.KEYWORD_ONLY, default=one.default, annotation=kinds[one.name]
                )
                for one in fields(groups[name])
            ]
        else:
            parameters.append(parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=hints[name]))

    options = _names_of(parameters)

    @functools.wraps(function)
    def flat(**values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{one.name: values.pop(one.name) for one in fields(kind)})
        before = _OPTIONS.set(options)
        try:
            function(**values)
        finally:
            _OPTIONS.reset(before)

    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.option_names = options  # type: ignore[attr-defined]
    flat.__annotations__ = {one.name: one.annotation for one in parameters}
    return flat


_OPTIONS: ContextVar[dict[str, str]] = ContextVar("_OPTIONS", default={})  # noqa: B039 (never changed)
"""What the command that runs calls its parameters: ``--sc-layer`` for sc_layer, ``SC`` for sc."""


def _names_of(parameters: Iterable[inspect.Parameter]) -> dict[str, str]:
    names = {}
    for one in parameters:
        if not hasattr(one.annotation, "__metadata__"):
            continue  # typer's context
        told = one.annotation.__metadata__[0]
        spellings = (told.default, *(told.param_decls or ()))  # typer puts the first into the default
        long = [text.partition("/")[0] for text in spellings if str(text).startswith("--")]
        names[one.name] = long[0] if long else f"--{one.name.replace('_', '-')}"
        if isinstance(told, ArgumentInfo):
            names[one.name] = told.metavar or one.name
    return names


def as_option(argument: Argument) -> str:
    """Return an argument of Python as the option of the command that runs, if it has one."""
    options, name, value = _OPTIONS.get(), argument.name, argument.value
    if name not in options:
        off = options.get(f"no_{name}")
        return str(argument) if off is None else off if value is False else f"no {off}"
    if argument.key is not None:
        return f"{options[name]} {argument.key}"
    if value is ... or value is True:
        return options[name]
    text = ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    return f"{options[name]} {shlex.quote(text)}"


def in_options(text: str) -> str:
    """Return a message with the arguments of Python as options of the command that runs."""
    return text.render(as_option) if isinstance(text, Message) else text
