"""All errors that cellweft raises on purpose; `cellweft.errors` re-exports them and shows their tree.

Each message states what was expected, what was found, where, and the next step. It names Python arguments; if
it was composed with `arg`, other interfaces, such as the command line, can show them in their own form.
"""

from __future__ import annotations

import errno
import functools
import importlib
import inspect
import numbers
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from cellweft._text import near, shorten

if TYPE_CHECKING:
    from numpy.typing import NDArray

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Argument:
    """An argument in a message: with a value, with a key, or only its name.

    Examples
    --------
    >>> [str(one) for one in (Argument("k", 3), Argument("k"), Argument("settings", key="k"))]
    ['k=3', 'k=', "settings['k']"]
    """

    name: str
    value: object = ...
    key: str | None = None

    def __str__(self) -> str:
        if self.key is not None:
            return f"{self.name}[{self.key!r}]"
        return f"{self.name}={'' if self.value is ... else repr(self.value)}"


class Message(str):
    """Text that keeps Python arguments separate from the words around them, also after `+`.

    Parameters
    ----------
    parts
        Words and arguments, in their order.

    Examples
    --------
    >>> fix = "Replace it: " + arg("overwrite", True) + "."
    >>> fix
    'Replace it: overwrite=True.'
    >>> fix.render(lambda argument: f"--{argument.name}")
    'Replace it: --overwrite.'
    """

    parts: tuple[str | Argument, ...]

    def __new__(cls, *parts: str | Argument) -> Message:
        message = super().__new__(cls, "".join(map(str, parts)))
        message.parts = parts
        return message

    def __getnewargs__(self) -> tuple[Any, ...]:
        return self.parts

    def __add__(self, other: str) -> Message:
        return Message(*self.parts, *_parts(other))

    def __radd__(self, other: str) -> Message:
        return Message(*_parts(other), *self.parts)

    def render(self, style: Callable[[Argument], str]) -> str:
        """Return the text with each argument formatted by ``style``."""
        return "".join(style(part) if isinstance(part, Argument) else part for part in self.parts)


class Placeholder(str):
    """A placeholder for a value, shown without quotes: ``sc_layer=NAME``."""

    __repr__ = str.__str__


def _parts(text: str) -> tuple[str | Argument, ...]:
    return text.parts if isinstance(text, Message) else (text,)


def arg(name: str, value: object = ..., *, key: str | None = None) -> Message:
    """Return an argument for a message, ``name=value`` in Python; `+` joins it with words.

    Parameters
    ----------
    name
        Name of the Python argument.
    value
        Value to suggest; omitted if the name is enough.
    key
        Key of the entry, if the argument is a dictionary.
    """
    return Message(Argument(name, value, key))


def sentence(text: str, *arguments: Message) -> Message:
    """Return text for a message, with arguments in the places of its ``{}``.

    Parameters
    ----------
    text
        Text with ``{}`` for each argument.
    arguments
        Results of `arg`, one for each place.

    Examples
    --------
    >>> sentence("Name it, {}, or do without: {}.", arg("labels"), arg("labels", "none"))
    "Name it, labels=, or do without: labels='none'."
    """
    first, *words = text.split("{}")
    message = Message(first)
    for argument, following in zip(arguments, words, strict=True):
        message = message + argument + following
    return message


class CellweftError(Exception):
    """Base of all errors of cellweft.

    Parameters
    ----------
    where
        The argument, slot, key or file that the error is about.
    expected, got
        What was expected and what was found, as phrases.
    fix
        The next step, as a sentence.

    Attributes
    ----------
    argument
        Python name of the argument that the error is about; None if it is about something else.

    Examples
    --------
    >>> str(CellweftError("k", expected="at most 10", got="50", fix="Choose a smaller k."))
    'k: expected at most 10, got 50. Choose a smaller k.'
    >>> from cellweft._errors import arg
    >>> error = CellweftError("memory", expected="4 GB", got="1 GB", fix="Raise " + arg("memory") + ".")
    >>> error.argument, error.fields(lambda argument: f"--{argument.name}")["fix"]
    ('memory', 'Raise --memory.')
    """

    __module__ = "cellweft.errors"  # where users find it

    def __init_subclass__(cls) -> None:
        cls.__module__ = "cellweft.errors"

    def __init__(self, where: str, *, expected: str, got: str, fix: str) -> None:
        self.where, self.expected, self.got, self.fix = where, expected, got, fix
        self.message = f"{where}: expected {expected}, got {got}. {fix}"
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message  # KeyError and OSError would otherwise print their own form

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.where, self.expected, self.got, self.fix)

    @property
    def argument(self) -> str | None:
        """Python name of the argument that the error is about, if there is one."""
        first = _parts(self.where)[0]
        if isinstance(first, Argument):
            return first.name
        return first if first.isidentifier() and first.islower() else None

    def fields(self, style: Callable[[Argument], str] = str) -> dict[str, str]:
        """Return ``where``, ``expected``, ``got`` and ``fix``, with every argument as ``style`` shows it."""
        where = self.where
        if style is not str and where == self.argument:  # a name only
            where = arg(where)
        texts = {"where": where, "expected": self.expected, "got": self.got, "fix": self.fix}
        return {name: Message(*_parts(text)).render(style) for name, text in texts.items()}


def _rebuild(kind: type[CellweftError], where: str, expected: str, got: str, fix: str) -> CellweftError:
    return kind(where, expected=expected, got=got, fix=fix)


class InputError(CellweftError, ValueError):
    """Data that cannot be used."""


class FormatError(InputError):
    """A file whose content does not match its name, or an unsupported format."""


class ScaleError(InputError):
    """Values that are neither counts, normalised counts nor their logarithm."""


class GeneError(InputError, KeyError):
    """Genes that are unknown, unmatched or ambiguous."""


class KeyMissingError(CellweftError, KeyError):
    """No such layer, column or slot."""


class SettingError(CellweftError, ValueError):
    """A setting or option that is out of range."""


class MissingFileError(CellweftError, FileNotFoundError):
    """A path that does not exist."""


class OutputExistsError(CellweftError, FileExistsError):
    """The output exists and must not be replaced."""


class OutputError(CellweftError, OSError):
    """The output could not be written."""


class MemoryBudgetError(CellweftError, MemoryError):
    """The run does not fit into the memory budget."""


class NotFittedError(CellweftError, RuntimeError):
    """A result was requested before ``fit``."""


class ServiceError(CellweftError, ConnectionError):
    """An online service that did not answer or refused the request."""


class MissingExtraError(CellweftError, ImportError):
    """An optional dependency is not installed."""

    argument = None  # it is about a module


LARGEST_SEED = 2**63 - 1
"""Files store seeds as signed 64-bit integers."""


def check_seed(seed: object) -> None:
    """Raise `SettingError` unless a seed is a whole number from 0 to `LARGEST_SEED`."""
    check_range("seed", seed, low=0, integer=True)  # type: ignore[arg-type]
    if seed > LARGEST_SEED:  # type: ignore[operator]
        expected = "a whole number from 0 to 2**63 - 1"
        raise SettingError("seed", expected=expected, got=repr(seed), fix="Choose a smaller seed.")


def check_device_name(device: object) -> None:
    """Raise `SettingError` unless a device is named as text; whether it exists is checked on use."""
    if not isinstance(device, str):
        fix = "For example " + arg("device", "cpu") + "."
        raise SettingError("device", expected="the name of a device", got=repr(device)[:60], fix=fix)


def checks_kinds(function: Callable[P, R]) -> Callable[P, R]:
    """Make a public function check the kinds of its arguments by their annotations, before any work.

    Only simple annotations are checked: text, paths, booleans, mappings, iterables, and classes of cellweft
    and pandas. Numbers and options are checked where their range is known.

    Parameters
    ----------
    function
        A function with annotations as text (``from __future__ import annotations``).

    Examples
    --------
    >>> @checks_kinds
    ... def load(path: PathLike, *, strict: bool = True) -> None:
    ...     pass
    >>> load(3)
    Traceback (most recent call last):
    ...
    cellweft.errors.SettingError: path: expected a path, got 3 (int). Pass a path.
    """
    signature = inspect.signature(function)
    notes = {name: str(one.annotation) for name, one in signature.parameters.items()}
    kinds = {name: _kinds_in(one) for name, one in notes.items()}
    paths = [name for name, one in notes.items() if "PathLike" in one or "Source" in one]

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            arguments = signature.bind(*args, **kwargs).arguments
        except TypeError:  # Python's own error is best
            arguments = {}
        for name, value in arguments.items():
            _check_kinds(name, value, kinds[name])
        for name in [argument for argument in paths if argument in arguments]:
            several = isinstance(arguments[name], list | tuple)
            for value in arguments[name] if several else [arguments[name]]:
                if isinstance(value, str | os.PathLike):
                    check_path(name, value)
        return function(*args, **kwargs)

    return checked


def check_path(where: str, path: str | os.PathLike[str]) -> None:
    """Raise `SettingError` if the system cannot process a path, whether or not it exists.

    Parameters
    ----------
    where
        Name of the argument in errors.
    path
        Path of a file or folder, which may exist or not.
    """
    text, got = os.fspath(path), ""
    try:
        text.encode()
        os.stat(text)  # noqa: PTH116
    except UnicodeEncodeError:
        got = "bytes that are not UTF-8"
    except ValueError as error:
        got = f"a path that no file can have ({error})"
    except OSError as error:
        reasons = {errno.ENAMETOOLONG: "a path that is too long", errno.ELOOP: "links that form a loop"}
        got = reasons.get(error.errno or 0, "")
    if got:
        path_text = text.encode(errors="replace").decode().replace("\0", "?")
        path_text = path_text if len(path_text) < 80 else f"{path_text[:60]}..."
        fix = "Rename it, or pass another path."
        raise SettingError(
            f"{where} ({path_text})", expected="the path of a file or folder", got=got, fix=fix
        )


def path_of(where: str, source: object, *, expected: str) -> str:
    """Return a path as text, or raise `InputError` if it is not a path.

    Parameters
    ----------
    where
        Name of the argument in errors.
    source
        A value from the user that may be a path.
    expected
        What is accepted, as a phrase.
    """
    if not isinstance(source, str | os.PathLike) or isinstance(os.fspath(source), bytes):
        fix = "Pass a path, or the object that you would read from it."
        raise InputError(where, expected=expected, got=f"a {type(source).__name__}", fix=fix)
    check_path(where, source)
    return os.fspath(source)


_PLAIN_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "None": ((type(None),), "None"),
    "str": ((str,), "text"),
    "bool": ((bool,), "True or False"),
    "PathLike": ((str, os.PathLike), "a path"),
    "Mapping": ((Mapping,), "a dictionary"),
    "Iterable": ((Iterable,), "a list"),
    "Sequence": ((Iterable,), "a list"),
    "int": ((numbers.Integral,), "a whole number"),
    "float": ((numbers.Real,), "a number"),
}
_CLASSES = {"Pair", "Imputer", "Placement", "Attribution", "Trends", "AnnData", "PseudoSpots"}
_CLASSES |= {"pd.DataFrame", "pd.Series"}


def _kinds_in(annotation: str) -> tuple[str, ...]:
    """Return the kinds that an annotation allows; none if it cannot be checked simply."""
    parts = re.sub(r"\[[^][]*(\[[^][]*\][^][]*)*\]", "", annotation).split(" | ")
    has_own_check = {*parts} <= {"int", "float", "None"} or {"AnnData", "PathLike"} <= {*parts}
    is_plain = all(part in _PLAIN_KINDS or part in _CLASSES for part in parts)
    return tuple(parts) if is_plain and not has_own_check else ()


_MADE_BY = {
    "Pair": "Create one with cellweft.pair(sc, st).",
    "Placement": "Place the cells first, with cellweft.Placer().fit(pair).place().",
}
"""How to create an object of a class, if a command or call does so."""


def _check_kinds(name: str, value: object, kinds: tuple[str, ...]) -> None:
    """Raise unless a value is of one of the kinds from `_kinds_in`; anything is allowed if there are none."""
    bases = {kind.__name__ for kind in type(value).__mro__}
    if not kinds or any(
        kind.rpartition(".")[2] in bases if kind in _CLASSES else isinstance(value, _PLAIN_KINDS[kind][0])
        for kind in kinds
    ):
        return
    names = [kind.rpartition(".")[2] for kind in kinds]
    said = [
        _PLAIN_KINDS[kind][1] if kind in _PLAIN_KINDS else f"{'an' if plain[0] in 'AI' else 'a'} {plain}"
        for kind, plain in zip(kinds, names, strict=True)
    ]
    expected = " or ".join(dict.fromkeys(said))
    value_text = repr(value) if isinstance(value, str | int | float | complex | type(None)) else ""
    got = f"{value_text[:60]} ({type(value).__name__})" if value_text else f"a {type(value).__name__}"
    is_data = any(kind in _CLASSES for kind in kinds)
    fix = next((_MADE_BY[kind] for kind in names if kind in _MADE_BY), f"Pass {expected}.")
    raise (InputError if is_data else SettingError)(name, expected=expected, got=got, fix=fix)


def check_kind(where: str, value: object, kinds: type | tuple[type, ...], *, expected: str, fix: str) -> None:
    """Raise `InputError` unless ``value`` is of one of the types."""
    if not isinstance(value, kinds):
        name = type(value).__name__
        article = "an" if name[:1].lower() in "aeiou" else "a"
        raise InputError(where, expected=expected, got=f"{article} {name}", fix=fix)


def check_choice(where: str, value: str, choices: Sequence[str]) -> None:
    """Raise `SettingError` unless ``value`` is one of ``choices``."""
    check_known(value, choices, where, expected=f"one of {shorten(choices, most=20)}", error=SettingError)


def check_known(
    name: object,
    known: Collection[Any],
    where: str | Message,
    *,
    expected: str,
    got: str | None = None,
    error: type[CellweftError] = KeyMissingError,
) -> None:
    """Raise an error with the nearest known names unless ``name`` is one of them."""
    try:
        is_known = name in known
    except (TypeError, ValueError, NotImplementedError):  # arrays and similar objects cannot be compared
        is_known, name = False, f"a {type(name).__name__}"
        got = got or name
    if not is_known:
        raise error(where, expected=expected, got=got or repr(name), fix=near(str(name), known))


def check_all_known(
    names: Sequence[str], known: Collection[Any], where: str | Message, *, expected: str
) -> None:
    """Raise `KeyMissingError` with the nearest known names unless all ``names`` are known, at least one."""
    for name in names:
        check_known(name, known, where, expected=expected)
    if not names:
        raise KeyMissingError(where, expected=expected, got="none", fix=near("", known))


def check_range(
    where: str, value: float, *, low: float, high: float = float("inf"), integer: bool = False
) -> None:
    """Raise `SettingError` unless ``low <= value <= high``, finite (and whole if ``integer``)."""
    kind = "a whole number" if integer else "a number"
    bound = f">= {low:g}" if high == float("inf") else f"from {low:g} to {high:g}"
    is_number = isinstance(value, numbers.Integral if integer else numbers.Real)
    is_inside = is_number and low <= value <= high and value != float("inf")
    if not is_inside or isinstance(value, bool):
        raise SettingError(where, expected=f"{kind} {bound}", got=repr(value), fix="Change the setting.")


def check_flag(where: str, value: object) -> None:
    """Raise `SettingError` unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise SettingError(where, expected="True or False", got=repr(value), fix="Change the setting.")


def array_of(where: str, values: Any, *, fix: str, numbers: bool = True) -> NDArray[Any]:
    """Return values as an array, of float64 numbers unless ``numbers`` is false, or raise `InputError`."""
    import numpy as np

    if hasattr(values, "obs_names"):  # NumPy would iterate over an AnnData cell by cell
        raise InputError(where, expected="an array", got=f"a {type(values).__name__}", fix=fix)
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        n_masked = int(np.ma.getmaskarray(values).sum())
        raise InputError(where, expected="an array", got=f"one with {n_masked:,} masked values", fix=fix)
    try:
        if numbers and np.iscomplexobj(values):
            raise TypeError("complex numbers")  # NumPy would drop the imaginary part
        return np.asarray(values, dtype=np.float64 if numbers else None)
    except (TypeError, ValueError) as error:
        expected = "an array of numbers" if numbers else "an array"
        got = f"a {type(values).__name__} ({error})"
        raise InputError(where, expected=expected, got=got, fix=fix) from error


def check_array(where: str, values: Any, *, expected: str, fix: str, fits: bool = True) -> None:
    """Raise `InputError` unless an array (or sparse matrix) ``fits`` and contains finite numbers."""
    import numpy as np

    stored = values.data if hasattr(values, "tocsr") else values
    is_number = stored.dtype.kind in "biufc"
    if not fits or not is_number or not np.isfinite(stored).all():
        got = "NaN or infinity" if is_number else f"values of type {stored.dtype}"
        got = got if fits else f"shape {values.shape}"
        raise InputError(where, expected=expected, got=got, fix=fix)


def positions_of(where: str, rows: Any, n_rows: int, *, what: str) -> NDArray[Any]:
    """Return positions as an array of whole numbers from 0, or raise `InputError`.

    Parameters
    ----------
    where
        Name of the argument in errors.
    rows
        Positions, negative ones counted from the end; a slice; or one boolean per row.
    n_rows
        Number of rows.
    what
        What a row is, for example "cell".
    """
    import numpy as np

    fix = f"Pass positions from 0 to {n_rows - 1:,}, a slice, or one boolean per row."
    places = rows if isinstance(rows, slice) else array_of(where, rows, fix=fix, numbers=False)
    if not isinstance(places, slice) and places.size == 0 and places.ndim == 1:
        places = places.astype(np.int64)  # NumPy turns an empty list into floats
    try:
        if not isinstance(places, slice) and (places.ndim != 1 or places.dtype.kind not in "iub"):
            raise IndexError(f"an array of {places.dtype} and shape {places.shape}")
        return np.arange(n_rows)[places]
    except (IndexError, TypeError, ValueError) as error:
        raise InputError(
            where, expected=f"positions of {n_rows:,} {what}s", got=str(error), fix=fix
        ) from None


def require(module: str, extra: str, *, otherwise: str = "") -> ModuleType:
    """Import an optional dependency, or raise `MissingExtraError` that names how to install it.

    Parameters
    ----------
    module
        Name of the module to import.
    extra
        The extra of cellweft that installs it.
    otherwise
        How to work without it, as a sentence, for the end of the message.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        fix = f'Install it with: pip install "cellweft[{extra}]"'
        if otherwise:
            fix = f"{fix}. " + otherwise
        raise MissingExtraError(
            module, expected=f"the optional package {module!r}", got=f"no such module ({error})", fix=fix
        ) from error
