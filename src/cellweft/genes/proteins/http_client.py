"""Requests to a service that answers in JSON: patient with its troubles, clear where it does not answer."""

from __future__ import annotations

import email.utils
import gzip
import http.client
import importlib.metadata
import json
import logging
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from operator import attrgetter
from typing import IO, Any, TypeAlias

from cellweft._errors import ServiceError, SettingError

logger = logging.getLogger("cellweft")

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses of troubles that pass."""

_TROUBLES = (
    OSError,  # no network, no such host, dropped connections, time-outs
    http.client.HTTPException,  # answers that break off
    EOFError,
    zlib.error,
    json.JSONDecodeError,
)
_LONGEST_WAIT = 600.0  # seconds that a service may ask for before we rather give up
_MOST_TOLD = 300  # characters of the service's own words


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a service answered: the HTTP status, the headers, and the JSON, None where there was none."""

    status: int
    headers: Message
    data: Any

    @property
    def is_good(self) -> bool:
        """Whether the request was granted."""
        return 200 <= self.status < 300


IsGood: TypeAlias = Callable[[Answer], bool]
"""Says whether an answer is one."""
_IS_GRANTED: IsGood = attrgetter("is_good")


@dataclass(frozen=True, kw_only=True)
class Service:
    """A service that answers in JSON.

    Parameters
    ----------
    url
        Its address, which the paths of requests are put behind; http or https.
    name
        What messages call it.
    fix
        What to do when it does not answer, as a sentence.
    timeout
        Seconds that a connection may be silent.
    attempts
        How often a request is made at most. A host name that nobody knows is given up sooner.
    pause
        Seconds before the second attempt; each further pause is twice as long, up to a minute. A service
        that names a longer one (``Retry-After``) gets it.
    """

    url: str
    name: str
    fix: str
    timeout: float = 60.0
    attempts: int = 6
    pause: float = 1.0

    def __post_init__(self) -> None:
        if urllib.parse.urlsplit(self.url).scheme not in ("http", "https"):
            raise SettingError(
                "url", expected="an address with http or https", got=repr(self.url), fix="Change the address."
            )

    def get(self, path: str, *, good: IsGood = _IS_GRANTED, passing: Container[int] = PASSING) -> Answer:
        """Return the answer to a GET request.

        Parameters
        ----------
        path
            Path and query, starting with a slash.
        good
            Says whether an answer is one; by default, where its status says so.
        passing
            HTTP statuses after which the same request may be granted later.

        Raises
        ------
        ServiceError
            There was no answer after all attempts, or the service refused.
        """
        return self._ask(path, None, good=good, passing=passing)

    def post(self, path: str, form: Mapping[str, str]) -> Answer:
        """Return the answer to a POST request with a form; raises as `get`."""
        return self._ask(path, urllib.parse.urlencode(form).encode())

    def wait(self, seconds: float) -> None:
        """Do nothing for a while."""
        time.sleep(seconds)

    def refused(self, path: str, got: str) -> ServiceError:
        """Return the error for an answer that is of no use."""
        return ServiceError(
            f"{self.name} ({self.url}{path.partition('?')[0]})", expected="an answer", got=got, fix=self.fix
        )

    def _ask(
        self, path: str, body: bytes | None, good: IsGood = _IS_GRANTED, passing: Container[int] = PASSING
    ) -> Answer:
        pause, attempt = self.pause, 0
        while True:
            attempt += 1
            wait, last = pause, attempt >= self.attempts
            try:
                answer = self._once(path, body)
            except _TROUBLES as error:
                trouble = _in_words(error)
                # these seldom pass: there is no network, or someone stands in between
                is_lasting = isinstance(_reason(error), socket.gaierror | ssl.SSLCertVerificationError)
                last = last or (is_lasting and attempt > 1)
            else:
                if good(answer):
                    return answer
                whole = "an answer that is not whole" if answer.is_good else f"HTTP {answer.status}"
                trouble = whole + words_of(answer.data)
                wait = max(pause, _asked_wait(answer.headers))
                if wait > _LONGEST_WAIT:
                    trouble += f" and the wish to wait {wait:,.0f} s"
                last = last or wait > _LONGEST_WAIT or not (answer.is_good or answer.status in passing)
            if last:
                times = "" if attempt == 1 else f" ({attempt} attempts)"
                raise self.refused(path, trouble + times)
            logger.warning("%s: %s. Trying again in %.0f s.", self.name, trouble, wait)
            self.wait(wait)
            pause = min(2 * pause, 60.0)

    def _once(self, path: str, body: bytes | None) -> Answer:
        request = urllib.request.Request(
            self.url + path,
            data=body,
            headers={
                "User-Agent": f"cellweft/{importlib.metadata.version('cellweft')}",
                "Accept": "application/json",
                "Accept-Encoding": "gzip",
            },
        )
        try:
            with _OPENER.open(request, timeout=self.timeout) as response:
                return _answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return _answer(error.code, error.headers, error.read())


class _NoSeeOther(urllib.request.HTTPRedirectHandler):
    """Leaves "see other" to the caller, for whom it is an answer."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        return None if code == 303 else super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_NoSeeOther)


def _answer(status: int, headers: Message, body: bytes) -> Answer:
    if headers.get("Content-Encoding", "") == "gzip":
        body = gzip.decompress(body)
    try:
        data = json.loads(body) if body.strip() else None
    except ValueError:
        if 200 <= status < 300:
            raise
        data = None  # a page of words about the error
    return Answer(status=status, headers=headers, data=data)


def _in_words(error: BaseException) -> str:
    reason = _reason(error)
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    if isinstance(reason, json.JSONDecodeError) and reason.doc.lstrip().startswith("<"):
        return "a web page instead of data (a network that asks for a login?)"
    if isinstance(reason, http.client.IncompleteRead | EOFError | json.JSONDecodeError | zlib.error):
        return "an answer that breaks off"
    if isinstance(reason, socket.gaierror):
        return "no connection: the name of the host is not known here"
    return f"no connection ({reason})"


def _reason(error: BaseException) -> BaseException | str:
    return error.reason if isinstance(error, urllib.error.URLError) else error


def words_of(data: Any) -> str:
    """Return what a service itself says of an error, in brackets; nothing where it says nothing."""
    if not isinstance(data, dict):
        return ""
    said = data.get("messages") or data.get("errors") or data.get("message") or ""
    parts = said if isinstance(said, list) else [said]
    words = "; ".join(str(one.get("message", one) if isinstance(one, dict) else one) for one in parts)
    return f" ({words[:_MOST_TOLD]})" if words else ""


def _asked_wait(headers: Message) -> float:
    """Return the seconds that the service asks to wait, in numbers or as a date; 0 where it does not."""
    asked = headers.get("Retry-After", "").strip()
    if asked.isdecimal():
        return float(asked)
    try:
        until = email.utils.parsedate_to_datetime(asked)
    except ValueError:
        return 0.0
    return max(0.0, (until.astimezone(UTC) - datetime.now(UTC)).total_seconds())
