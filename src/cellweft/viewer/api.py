"""Answers the requests of the page: maps paths to datasets and to the files of the page."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from cellweft._errors import CellweftError, KeyMissingError, SettingError
from cellweft._text import near
from cellweft._typing import PathLike
from cellweft.viewer.dataset import Dataset
from cellweft.viewer.region_markers import GoneError

PAGE = Path(__file__).parent / "page"
"""The built page."""

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".map": "application/json",
    ".md": "text/plain; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
}
_JSON, _BYTES = "application/json", "application/octet-stream"
_ROUTE = re.compile(r"/api/datasets/([0-9]{1,4})/(positions|genes|values|column|cell|compare)")
_MOST_QUERY = 8_192  # characters: gene and column names are shorter, and errors repeat them
_NO_PAGE = (
    "<!doctype html><title>cellweft view</title><h1>The page of cellweft view is missing</h1>"
    "<p>This copy of cellweft was installed without it. The data are still served, under "
    '<a href="/api/session">/api/session</a>; reinstall cellweft, or build the page from the folder viewer '
    "of its sources (npm ci, npm run build).</p>"
)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer to a request.

    Attributes
    ----------
    status
        HTTP status.
    kind
        Media type of the body.
    body
        Bytes, or an object that provides them.
    headers
        Further headers.
    """

    status: int = 200
    kind: str = _JSON
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)


def error_answer(error: CellweftError, *, status: int) -> Answer:
    """Return an error in the form that the page reads."""
    return Answer(status=status, body=_as_json({"error": error.fields()}))


def natural(text: str) -> int:
    """Return the number in a request; -1 if it is not a plain number."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else -1


def not_found(path: str) -> Answer:
    """Return the answer for an unknown path."""
    error = KeyMissingError(
        path[:200],
        expected="an address of cellweft view",
        got="an unknown address",
        fix="Go to / for the page.",
    )
    return error_answer(error, status=404)


class Api:
    """Answers requests, without HTTP.

    Parameters
    ----------
    datasets
        Datasets by number.
    version
        Version of cellweft.
    page
        Folder with the built page.
    """

    def __init__(self, datasets: Sequence[Dataset], *, version: str, page: PathLike = PAGE) -> None:
        self._datasets, self._version, self._page = list(datasets), version, Path(page)

    def get(self, target: str) -> Answer:
        """Return the answer to a GET request.

        Parameters
        ----------
        target
            Path and query, as stored in the request.
        """
        path, _, query = target.partition("?")
        if path == "/api/session":
            return _unless_changed(self._session, self._datasets)
        match = _ROUTE.fullmatch(path)
        if match is None:
            return self._file(path)
        return self._of_dataset(int(match[1]), path, lambda dataset: self._data(dataset, match[2], query))

    def compare(self, target: str, body: Callable[[int], bytes], *, is_gone: Callable[[], bool]) -> Answer:
        """Return the answer to a POST request.

        Parameters
        ----------
        target
            Path, as stored in the request.
        body
            Function that returns the body, given the length that it must have.
        is_gone
            Called now and then; returns whether the client has disconnected.

        Raises
        ------
        GoneError
            The client has disconnected.
        """
        match = _ROUTE.fullmatch(target)
        number = -1 if match is None or match[2] != "compare" else int(match[1])

        def answer(dataset: Dataset) -> Answer:
            inside = body(-(-dataset.n_cells // 8))
            return Answer(body=_as_json(dataset.compare(inside, is_gone=is_gone)))

        return self._of_dataset(number, target, answer)

    def is_known(self, target: str) -> bool:
        """Return whether the path exists, for any method."""
        path = target.partition("?")[0]
        return path in ("/", "/api/session") or _ROUTE.fullmatch(path) is not None

    def _session(self) -> Answer:
        datasets = [{"id": number} | dataset.session() for number, dataset in enumerate(self._datasets)]
        return Answer(body=_as_json({"cellweft": self._version, "datasets": datasets}))

    def _of_dataset(self, number: int, path: str, answer: Callable[[Dataset], Answer]) -> Answer:
        if not 0 <= number < len(self._datasets):
            return not_found(path)
        dataset = self._datasets[number]
        return _unless_changed(lambda: answer(dataset), [dataset])

    def _data(self, dataset: Dataset, resource: str, query: str) -> Answer:
        if resource == "positions":
            return _values(dataset.positions())
        if resource == "genes":
            return Answer(body=_as_json(dataset.genes()))
        if resource == "column":
            (name,) = _asked(query, "name")
            return _values(dataset.column(name))
        if resource == "cell":
            (index,) = _asked(query, "index")
            return Answer(body=_as_json(dataset.cell(natural(index))))
        if resource == "values":
            gene, layer = _asked(query, "gene", "layer")
            values, low, high = dataset.values(gene, layer)
            return _values(values, {"X-Cellweft-Low": repr(low), "X-Cellweft-High": repr(high)})
        error = SettingError(
            "method", expected="POST, with the cells that are inside", got="GET", fix="Send one bit per cell."
        )
        return error_answer(error, status=405)

    def _file(self, path: str) -> Answer:
        """Return a file of the page; its name must match a file in the folder exactly."""
        folder, name = self._page, unquote(path).removeprefix("/")
        if path == "/":
            name = "index.html"
        elif name.startswith("assets/"):
            folder, name = folder / "assets", name.removeprefix("assets/")
        if not folder.is_dir():
            if path == "/":
                return Answer(status=503, kind=_TYPES[".html"], body=_NO_PAGE.encode())
            return not_found(path)
        there = {file.name: file for file in folder.iterdir() if file.is_file() and not file.is_symlink()}
        if name not in there:
            return not_found(path)
        kind = _TYPES.get(there[name].suffix, _BYTES)
        return Answer(kind=kind, body=there[name].read_bytes(), headers={"Cache-Control": "no-cache"})


def _unless_changed(answer: Callable[[], Answer], datasets: Sequence[Dataset]) -> Answer:
    """Return an answer, or an error if a file that it was read from has changed."""

    def changed(*, closely: bool) -> Answer | None:
        changes = (one.change(closely=closely) for one in datasets)
        error = next((one for one in changes if one is not None), None)
        return None if error is None else error_answer(error, status=410)

    try:
        result = answer()
    except GoneError:
        raise
    except CellweftError as error:
        return changed(closely=True) or error_answer(error, status=_status(error))
    except Exception:
        changed_answer = changed(closely=True)
        if changed_answer is None:
            raise
        return changed_answer
    return changed(closely=False) or result


def _asked(query: str, *names: str) -> list[str]:
    """Return the parameters of a query; each name must occur once."""
    try:
        values_of = parse_qs(query, keep_blank_values=True, max_num_fields=len(names), errors="strict")
    except ValueError:
        values_of = {}
    values_of = values_of if len(query) <= _MOST_QUERY else {}
    if sorted(values_of) != sorted(names) or any(len(values) > 1 for values in values_of.values()):
        raise SettingError(
            "query",
            expected=" and ".join(f"{name}=" for name in names),
            got=repr(query[:200]),
            fix=near(next(iter(values_of), ""), names),
        )
    return [values_of[name][0] for name in names]


def _values(values: Any, headers: dict[str, str] | None = None) -> Answer:
    ordered = values.astype(values.dtype.newbyteorder("<"), order="C", copy=False)
    return Answer(kind=_BYTES, body=ordered, headers=headers or {})


def _as_json(values: Any) -> bytes:
    return json.dumps(values, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()


def _status(error: CellweftError) -> int:
    if isinstance(error, KeyMissingError) or error.where.startswith("gene="):
        return 404
    return 400 if isinstance(error, SettingError) else 500
