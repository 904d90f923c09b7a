"""The options of the commands. Their help texts are the docstrings of the commands and option classes."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import re
import shlex
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo

from cellweft._errors import Argument, Message
from cellweft._typing import Duplicates, MissingChunks, StoredScale

if TYPE_CHECKING:
    from cellweft.data._pair import Pair

_sc = functools.partial(typer.Option, rich_help_panel="Reading the reference")
_st = functools.partial(typer.Option, rich_help_panel="Reading the spatial data")
_both = functools.partial(typer.Option, rich_help_panel="Reading both")
_network = functools.partial(typer.Option, rich_help_panel="Gene network")
_run = functools.partial(typer.Option, rich_help_panel="Running")

Output: TypeAlias = Annotated[Path, typer.Option("--output", "-o", metavar="OUT")]
Reference: TypeAlias = Annotated[
    Path,
    typer.Argument(
        metavar="SC",
        help="Single-cell reference: .h5ad, .zarr, 10x .h5 or folder, or a table (.csv, .tsv, .parquet).",
    ),
]
Spatial: TypeAlias = Annotated[
    Path,
    typer.Argument(
        metavar="ST",
        help="Spatial data, in any of these formats, or the output folder of a Xenium, MERSCOPE, CosMx or "
        "Visium run.",
    ),
]
Memory: TypeAlias = Annotated[str, typer.Option(metavar="SIZE", help="Memory budget, such as 4GB.")]
SaveModel: TypeAlias = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Save the fitted model. To load it in Python, use cellweft.load."),
]
Settings: TypeAlias = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE")]
Overwrite: TypeAlias = Annotated[bool, typer.Option(help="Replace an existing output.")]


@dataclass(frozen=True, kw_only=True)
class PairOptions:
    """Options for reading the two inputs: those of `cellweft.pair`.

    Attributes
    ----------
    labels, st_labels
        Column of obs with the cell types. Default: a column with a recognised name, such as cell_type, if
        there is one.
    sc_layer, st_layer
        Layer that contains the counts, or raw for the raw slot. Default: the main matrix, X.
    sc_sample, st_sample
        Sample to read if a 10x folder contains several, such as GSM1 for GSM1_matrix.mtx. Also selects the
        genome of a 10x .h5 file, the modality of an .h5mu file, or the bin size of Stereo-seq, such as bin50.
    sc_scale, st_scale
        Scale of the values, if it is not detected correctly: counts (raw), counts divided by a size factor
        (normalised), or log, log2, log10, sqrt or arcsinh of normalised counts or, with _raw, of raw counts.
    size_factor
        Column of obs with each cell's total count, if the file contains only some of the genes.
    reference_batch
        Column of obs with the donor, technology or atlas of each cell, if the reference combines several that
        differ in how well they detect genes. Expression is rescaled gene by gene to make them comparable.
    sc_gene_column, st_gene_column
        Column of var with the gene names. Default: var_names.
    coordinates
        Where to find the coordinates: obsm:KEY, obs:X,Y or obs:X,Y,Z, or none for no coordinates. Default:
        obsm["spatial"], or columns with recognised names, such as x and y.
    slices
        Column of obs with the tissue slice of each cell; none for a single slice. Default: a column with a
        recognised name, such as slice, if there is one.
    st_size_factor
        Column of obs with each cell's size, such as cell_area (Xenium) or volume (MERSCOPE).
    duplicates
        If a gene name occurs twice in an input: stop with an error, or keep the first column.
    orthologs
        If the inputs are from two species: human:mouse or mouse:human, with the species of the reference
        first, or a table with two columns, reference genes and their one-to-one orthologs.
    missing_chunks
        If chunks are missing from a zarr store where zeros are implausible (whole cells without counts, or
        coordinates): stop with an error, or treat them as zeros.
    """

    labels: Annotated[str | None, _sc(metavar="COLUMN")] = None
    sc_layer: Annotated[str | None, _sc(metavar="LAYER")] = None
    sc_sample: Annotated[str | None, _sc(metavar="NAME")] = None
    sc_scale: Annotated[StoredScale | None, _sc()] = None
    size_factor: Annotated[str | None, _sc(metavar="COLUMN")] = None
    reference_batch: Annotated[str | None, _sc(metavar="COLUMN")] = None
    sc_gene_column: Annotated[str | None, _sc(metavar="COLUMN")] = None
    coordinates: Annotated[str | None, _st(metavar="PLACE")] = None
    slices: Annotated[str | None, _st(metavar="COLUMN")] = None
    st_labels: Annotated[str | None, _st(metavar="COLUMN")] = None
    st_layer: Annotated[str | None, _st(metavar="LAYER")] = None
    st_sample: Annotated[str | None, _st(metavar="NAME")] = None
    st_scale: Annotated[StoredScale | None, _st()] = None
    st_size_factor: Annotated[str | None, _st(metavar="COLUMN")] = None
    st_gene_column: Annotated[str | None, _st(metavar="COLUMN")] = None
    duplicates: Annotated[Duplicates, _both()] = "error"
    orthologs: Annotated[str | None, _both(metavar="A:B|FILE")] = None
    missing_chunks: Annotated[MissingChunks, _both()] = "error"

    def pair(self, sc: Path, st: Path, *outputs: Path | None) -> Pair:
        """Open, check and match the two inputs; refuse ``outputs`` that would replace one of them."""
        from cellweft.data._pair import check_not_input, pair

        pair_of = pair(sc, st, **vars(self))
        for path in outputs:
            if path is not None:
                check_not_input(path, pair_of)
        return pair_of


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """Sources of the gene network. Several can be combined.

    Attributes
    ----------
    embedding
        Table of gene embeddings, from cellweft embed or elsewhere (.parquet, .npz, .h5ad, .csv or .tsv).
        Genes with similar proteins share information. Without any of these three options, genes with similar
        expression share information. If you use several, they have equal weight, unless you change the
        setting graph, as in graph=embedding:2+expression.
    gene_sets
        GMT file of gene sets, such as those of GO or Reactome (may be .gz). Genes in the same sets share
        information, and small sets have the largest weights. May be repeated.
    edges
        Text file of pairs of genes that share information (may be .gz): two gene names and optionally a
        weight, separated by tabs, commas or spaces. Convert STRING's protein IDs to gene names first. May be
        repeated.
    """

    embedding: Annotated[Path | None, _network(metavar="FILE")] = None
    gene_sets: Annotated[list[Path] | None, _network(metavar="FILE")] = None
    edges: Annotated[list[Path] | None, _network(metavar="FILE")] = None

    def files(self) -> list[Path]:
        """Return the paths that are given."""
        return [
            *([] if self.embedding is None else [self.embedding]),
            *(self.gene_sets or []),
            *(self.edges or []),
        ]

    def read(self) -> dict[str, Any]:
        """Read the given sources, and return them by the names of the Imputer's arguments."""
        from cellweft.genes.network import read_network

        sources = {name: source for name, source in vars(self).items() if source}
        network = read_network(sources, **sources)
        return {name: getattr(network, name) for name in sources}


@dataclass(frozen=True, kw_only=True)
class ShownOptions:
    """Options for what is printed.

    Attributes
    ----------
    as_json
        Print one JSON object and nothing else to standard output.
    quiet
        Print only the last line, and no progress bar.
    """

    as_json: Annotated[bool, _run("--json")] = False
    quiet: Annotated[bool, _run()] = False


@dataclass(frozen=True, kw_only=True)
class RunOptions(ShownOptions):
    """Options of all commands that compute.

    Attributes
    ----------
    seed
        Random seed. The same seed gives the same result.
    device
        auto, cpu, cuda, cuda:1 or mps. To train independent models in parallel, give several devices,
        separated by commas, or all for every GPU.
    """

    seed: Annotated[int, _run()] = 0
    device: Annotated[str, _run()] = "auto"


def expanded(function: Callable[..., None]) -> Callable[..., None]:
    """Return a command for typer, in which dataclasses of options are replaced by their fields.

    An option without a help text takes it from the docstring of the command or the dataclass.
    """
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if dataclasses.is_dataclass(kind)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        owner = groups.get(name, function)
        members = inspect.signature(owner).parameters.values() if name in groups else [parameter]
        kinds, helps = get_type_hints(owner, include_extras=True), _helps_of(owner)
        parameters += [_described(member, kinds[member.name], helps.get(member.name)) for member in members]
    options = _names_of(parameters)

    @functools.wraps(function)
    def flat(**values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{option.name: values.pop(option.name) for option in fields(kind)})
        before = _OPTIONS.set(options)
        try:
            function(**values)
        finally:
            _OPTIONS.reset(before)

    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.option_names = options  # type: ignore[attr-defined]
    flat.__annotations__ = {member.name: member.annotation for member in parameters}
    flat.__doc__ = (function.__doc__ or "").partition("\n\n")[0]
    return flat


def _helps_of(owner: Any) -> dict[str, str]:
    """Return the docstring text of each parameter or attribute, including those of base classes."""
    helps: dict[str, str] = {}
    for base in reversed(getattr(owner, "__mro__", (owner,))):
        for names, said in re.findall(r"^(\w.*)\n((?: .*\n?)+)", inspect.getdoc(base) or "", re.MULTILINE):
            helps |= dict.fromkeys(names.split(", "), " ".join(said.split()))
    return helps


def _described(parameter: inspect.Parameter, kind: Any, said: str | None) -> inspect.Parameter:
    """Return a parameter as an option with its help. A parameter that is False becomes a flag."""
    if kind is not typer.Context:
        plain, *infos = get_args(kind) if get_origin(kind) is Annotated else (kind,)
        info = copy.copy(infos[0]) if infos else typer.Option()
        info.help = info.help or said
        if parameter.default is False and info.default is ...:
            info.default = f"--{parameter.name.replace('_', '-')}"  # typer stores the first spelling here
        kind = Annotated[plain, info]
    return parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=kind)


_OPTIONS: ContextVar[dict[str, str]] = ContextVar("_OPTIONS", default={})  # noqa: B039 (never changed)
"""Names of the running command's options by parameter: ``--sc-layer`` for sc_layer, ``SC`` for sc."""


def _names_of(parameters: Iterable[inspect.Parameter]) -> dict[str, str]:
    names = {}
    for parameter in parameters:
        if not hasattr(parameter.annotation, "__metadata__"):
            continue  # typer's context
        info = parameter.annotation.__metadata__[0]
        spellings = (info.default, *(info.param_decls or ()))  # typer stores the first one as the default
        long = [text.partition("/")[0] for text in spellings if str(text).startswith("--")]
        names[parameter.name] = long[0] if long else f"--{parameter.name.replace('_', '-')}"
        if isinstance(info, ArgumentInfo):
            names[parameter.name] = info.metavar or parameter.name
    return names


def as_option(argument: Argument) -> str:
    """Return a Python argument as the option of the running command, if it has one."""
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
    """Return a message in which Python arguments are replaced by options of the running command."""
    return text.render(as_option) if isinstance(text, Message) else text
