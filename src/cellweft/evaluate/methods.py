"""Creates unfitted methods from names with optional settings."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, Self, TypeAlias, TypeVar, cast, runtime_checkable

from cellweft._errors import InputError, NotFittedError, SettingError, arg, check_known
from cellweft._text import near, shorten
from cellweft._typing import DoubleArray, FloatArray, Preset
from cellweft.data._pair import Pair
from cellweft.evaluate.imputation_baselines import BASELINES
from cellweft.genes.network import Network

Setting: TypeAlias = int | float | bool | str | None

M = TypeVar("M")

PRESETS: tuple[Preset, ...] = ("auto", "stimpute")

_NOTHING = Network()


@runtime_checkable
class Predictor(Protocol):
    """The interface of methods to evaluate; `cellweft.Imputer` has it, and your own method may have it."""

    def fit(self, pair: Pair) -> Predictor:
        """Learn from the reference and the panel of the spatial side; return the fitted method."""

    def predict(self, genes: Iterable[str], pair: Pair) -> FloatArray:
        """Return log-normalised values of the pair's spatial cells; genes named as in ``pair.sc.genes``."""


@runtime_checkable
class Reliable(Protocol):
    """The additional interface of methods with a reliability."""

    def reliability_of(self, genes: Iterable[str]) -> DoubleArray:
        """Return the expected accuracy of each gene, named as in ``pair.sc.genes``."""


@dataclass(frozen=True, kw_only=True)
class Method(Generic[M]):
    """A method with its name in tables.

    Attributes
    ----------
    label
        The name as it was given.
    make
        Returns a new, unfitted method for a seed.
    """

    label: str
    make: Callable[[int], M]


@dataclass(kw_only=True)
class Baseline:
    """A baseline with its settings: a method that only stores the pair."""

    functions: ClassVar[Mapping[str, Callable[..., Any]]] = {}

    name: str
    settings: dict[str, Setting] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        check_settings(self.name, self.settings, function=self.functions[self.name])

    def fit(self, pair: Pair) -> Self:
        """Store the pair."""
        self.pair_ = pair
        return self

    @property
    def fitted_pair(self) -> Pair:
        """The stored pair; NotFittedError if there is none."""
        if not hasattr(self, "pair_"):
            raise NotFittedError(
                self.name,
                expected="a fitted method",
                got="a method that is not fitted",
                fix="Call fit(pair) first.",
            )
        return self.pair_


@dataclass(kw_only=True)
class BaselineMethod(Baseline):
    """An imputation baseline with its settings, with the interface of a method."""

    functions = BASELINES

    def predict(self, genes: Iterable[str], pair: Pair) -> FloatArray:
        """Return the baseline's prediction of named genes for the spatial cells: (n_cells, n_genes)."""
        train = self.fitted_pair
        places = train.find_genes(genes)
        return BASELINES[self.name](train, pair, places, seed=self.seed, **self.settings)


def parse_method(
    spec: str, *, known: Sequence[str] = (*PRESETS, *BASELINES)
) -> tuple[str, dict[str, Setting]]:
    """Split the name of a method from its settings.

    Parameters
    ----------
    spec
        ``"name"`` or ``"name:key=value+key=value"``. Values are read as whole numbers, numbers, ``True`` or
        ``False`` in any case, ``None`` (in this case), otherwise as text, which may contain ``+``.
    known
        The known names. Default: the imputation methods.

    Raises
    ------
    SettingError
        The name is unknown, or the settings are not of this form.

    Examples
    --------
    >>> parse_method("stimpute:graph=none+rounds=1+alpha=0.5")
    ('stimpute', {'graph': 'none', 'rounds': 1, 'alpha': 0.5})
    >>> parse_method("auto:graph=embedding:2+expression+k=20")
    ('auto', {'graph': 'embedding:2+expression', 'k': 20})
    """
    name, colon, text = spec.partition(":")
    check_known(name, known, "methods", expected=f"one of {shorten(known, most=20)}", error=SettingError)
    settings: dict[str, Setting] = {}
    # Only a setting's name starts a new setting, because values may contain +, as in
    # graph=embedding+expression.
    for part in re.split(r"\+(?=[^+=]*=)", text) if colon else ():
        key, equals, value = part.partition("=")
        if not (key and equals and all(value.split("+"))) or key in settings:
            expected = "settings as name:key=value+key=value, each once"
            raise SettingError("methods", expected=expected, got=repr(spec), fix=f"Check {part!r}.")
        settings[key] = _value(value)
    return name, settings


def resolve_methods(
    methods: Sequence[str | Predictor],
    *,
    network: Network = _NOTHING,
    reliability: bool = False,
    counts: bool = False,
    device: str = "auto",
) -> list[Method[Predictor]]:
    """Return the requested methods, in order.

    Parameters
    ----------
    methods
        Names, as in `parse_method`, or unfitted objects that fit and predict.
    network
        Embedding, gene sets and edges for Imputers given by name with a gene graph.
    reliability, device
        Passed to Imputers given by name; objects are not changed.
    counts
        Whether counts will be scored. Imputers that support a count model, which is part of reliability, then
        learn one.

    Returns
    -------
    Methods with unique labels: the name as given; for an object, its preset or class, numbered if it occurs
    twice.

    Raises
    ------
    SettingError
        There is no method, an unknown method or setting, or a duplicate name.
    InputError
        An object does not have ``fit`` and ``predict``.
    """
    _check_used(methods, network)

    def imputer(name: str, settings: dict[str, Setting], seed: int) -> Predictor:
        from cellweft.impute.imputer import Imputer

        gene_network = network if name == "stimpute" else _NOTHING
        return Imputer(
            preset=cast(Preset, name),
            settings=settings,
            embedding=gene_network.embedding,
            gene_sets=gene_network.gene_sets,
            edges=gene_network.edges,
            reliability=reliability or (counts and name == "auto"),
            seed=seed,
            device=device,
        )

    return labelled_methods(
        methods,
        presets=PRESETS,
        preset=imputer,
        baseline=BaselineMethod,
        kind=Predictor,
        acts="fit(pair) and predict(genes, pair)",
        example="['auto', 'knn']",
    )


def labelled_methods(
    methods: Sequence[object],
    *,
    presets: Sequence[str],
    preset: Callable[[str, dict[str, Setting], int], M],
    baseline: type[Baseline],
    kind: Any,
    acts: str,
    example: str,
) -> list[Method[M]]:
    """Return methods with unique labels; see `resolve_methods`.

    Parameters
    ----------
    methods
        Names, with or without settings, and objects.
    presets, preset
        Names of cellweft's own methods, and a function that creates one from name, settings and seed.
    baseline
        Function that creates the other named methods.
    kind, acts
        Protocol that objects must implement (runtime-checkable), and a description of it for errors.
    example
        Example list of names, for errors.

    Raises
    ------
    SettingError
        There is no method, an unknown method or setting, or a duplicate name.
    InputError
        An object does not implement the protocol.
    """
    if isinstance(methods, str) or not len(methods):
        raise SettingError(
            "methods", expected="a list of methods", got=repr(methods), fix=f"Write methods={example}."
        )

    def maker(spec: str) -> Callable[[int], M]:
        name, settings = parse_method(spec, known=(*presets, *baseline.functions))
        if name in presets:
            return lambda seed: preset(name, settings, seed)
        return lambda seed: cast(M, baseline(name=name, settings=settings, seed=seed))

    labelled: list[Method[M]] = []
    for method in methods:
        labels = [earlier.label for earlier in labelled]
        if isinstance(method, str):
            if method in labels:
                raise SettingError(
                    "methods", expected="unique names", got=f"{method!r} twice", fix="Remove one of them."
                )
            make = maker(method)
            make(0)  # reports wrong settings before hours of work
            labelled.append(Method(label=method, make=make))
            continue
        if isinstance(method, type) or not isinstance(method, kind):
            got = f"the class {method.__name__}" if isinstance(method, type) else f"a {type(method).__name__}"
            raise InputError(
                "methods",
                expected=f"names, or objects with {acts}",
                got=got,
                fix="Add these two methods, or use one of cellweft's methods.",
            )
        labelled.append(Method(label=_own_label(method, labels), make=copier(cast(M, method))))
    return labelled


def check_settings(name: str, settings: dict[str, Setting], *, function: Callable[..., Any]) -> None:
    """Raise `SettingError` unless all settings are keyword parameters of a baseline's function.

    Parameters
    ----------
    name, settings
        The baseline and its settings.
    function
        The function of the baseline; its ``seed`` is not a setting.
    """
    parameters = inspect.signature(function).parameters.values()
    setting_names = [
        parameter.name
        for parameter in parameters
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name != "seed"
    ]
    for setting in settings:
        if setting not in setting_names:
            raise SettingError(
                f"{name}:{setting}",
                expected=f"a setting of {name!r}",
                got=repr(setting),
                fix=near(setting, setting_names) if setting_names else "It has no settings.",
            )


def makes_counts(method: Predictor) -> bool:
    """Return whether a method supports ``predict(genes, pair, scale="counts")``."""
    return "scale" in inspect.signature(method.predict).parameters


def copier(method: M) -> Callable[[int], M]:
    """Return a function that copies an object, unfitted, and sets the seed of the copy if it has one."""

    def fresh(seed: int) -> M:
        if dataclasses.is_dataclass(method) and not isinstance(method, type):
            # created again, unfitted, before copying
            has_seed = any(part.name == "seed" for part in dataclasses.fields(method))
            return cast(M, copy.deepcopy(dataclasses.replace(method, **({"seed": seed} if has_seed else {}))))
        copied: Any = copy.deepcopy(method)
        if hasattr(copied, "seed"):
            copied.seed = seed
        return cast(M, copied)

    return fresh


def _check_used(methods: Sequence[str | Predictor], network: Network) -> None:
    """Raise if inputs of a gene graph are given, but no named method has one."""
    named = [method.partition(":")[0] for method in methods if isinstance(method, str)]
    for name in ("embedding", "gene_sets", "edges"):
        if getattr(network, name) is not None and "stimpute" not in named:
            raise SettingError(
                name,
                expected="a method with a gene graph",
                got=f"methods {shorten(named)}" if named else "no built-in method",
                fix="Add 'stimpute' to the methods, or leave " + arg(name) + " out.",
            )


def _own_label(method: object, used_labels: list[str]) -> str:
    label = str(getattr(method, "preset", type(method).__name__))
    settings = getattr(method, "settings", None)
    if isinstance(settings, Mapping) and settings:
        label += ":" + "+".join(f"{key}={value}" for key, value in settings.items())
    numbered = itertools.chain([label], (f"{label} ({number})" for number in itertools.count(2)))
    return next(candidate for candidate in numbered if candidate not in used_labels)


def _value(text: str) -> Setting:
    constants: dict[str, Setting] = {"true": True, "false": False}
    if text == "None":  # "none" is the name of an option
        return None
    if text.lower() in constants:
        return constants[text.lower()]
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text
