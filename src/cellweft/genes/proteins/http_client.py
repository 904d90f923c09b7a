"""Requests to a JSON service, with retries for temporary failures, and clear errors."""

from __future__ import annotations

import importlib.metadata
import logging
import time
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeAlias

import requests
from urllib3.exceptions import InvalidHeader, NameResolutionError
from urllib3.util import Retry

from cellweft._errors import ServiceError, SettingError

logger = logging.getLogger("cellweft")

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses of temporary failures."""

_LONGEST_WAIT = 600.0  # longest requested wait in seconds before we give up
_MOST_TOLD = 300  # characters of the service's message


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer of a service: HTTP status, headers, and JSON, None if there is none."""

    status: int
    headers: Mapping[str, str]
    data: Any

    @property
    def is_good(self) -> bool:
        """Whether the request succeeded."""
        return 200 <= self.status < 300


IsGood: TypeAlias = Callable[[Answer], bool]
"""Returns whether an answer is valid."""
_IS_GRANTED: IsGood = attrgetter("is_good")


@dataclass(frozen=True, kw_only=True)
class Service:
    """A service that answers in JSON.

    Parameters
    ----------
    url
        Its address (http or https), to which the paths of requests are appended.
    name
        Its name in messages.
    fix
        What to do if it does not answer, as a sentence.
    timeout
        Seconds without data before a connection fails.
    attempts
        Largest number of attempts per request. An unknown host name fails sooner.
    pause
        Seconds before the second attempt; each further pause is twice as long, up to a minute. A longer pause
        requested by the service (``Retry-After``) is respected.
    """

    url: str
    name: str
    fix: str
    timeout: float = 60.0
    attempts: int = 6
    pause: float = 1.0

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
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
            Returns whether an answer is valid; by default, judged by its status.
        passing
            HTTP statuses after which the same request may succeed later.

        Raises
        ------
        ServiceError
            There was no answer after all attempts, or the service refused.
        """
        return self._ask(path, None, good=good, passing=passing)

    def post(self, path: str, form: Mapping[str, str]) -> Answer:
        """Return the answer to a POST request with a form; raises as `get`."""
        return self._ask(path, form)

    def wait(self, seconds: float) -> None:
        """Do nothing for a while."""
        time.sleep(seconds)

    def refused(self, path: str, got: str) -> ServiceError:
        """Return the error for an unusable answer."""
        return ServiceError(
            f"{self.name} ({self.url}{path.partition('?')[0]})", expected="a response", got=got, fix=self.fix
        )

    def _ask(
        self,
        path: str,
        form: Mapping[str, str] | None,
        good: IsGood = _IS_GRANTED,
        passing: Container[int] = PASSING,
    ) -> Answer:
        pause, attempt = self.pause, 0
        while True:
            attempt += 1
            wait, last = pause, attempt >= self.attempts
            try:
                answer = self._once(path, form)
            except (requests.RequestException, OSError) as error:
                trouble = _in_words(error)
                # these rarely recover: there is no network, or something intercepts it
                is_lasting = _is_unknown_host(error) or isinstance(error, requests.exceptions.SSLError)
                last = last or (is_lasting and attempt > 1)
            else:
                if good(answer):
                    return answer
                whole = "an incomplete response" if answer.is_good else f"HTTP {answer.status}"
                trouble = whole + words_of(answer.data)
                wait = max(pause, _asked_wait(answer.headers))
                if wait > _LONGEST_WAIT:
                    trouble += f" and the request to wait {wait:,.0f} s"
                last = last or wait > _LONGEST_WAIT or not (answer.is_good or answer.status in passing)
            if last:
                times = "" if attempt == 1 else f" ({attempt} attempts)"
                raise self.refused(path, trouble + times)
            logger.warning("%s: %s. Trying again in %.0f s.", self.name, trouble, wait)
            self.wait(wait)
            pause = min(2 * pause, 60.0)

    def _once(self, path: str, form: Mapping[str, str] | None) -> Answer:
        headers = {
            "User-Agent": f"cellweft/{importlib.metadata.version('cellweft')}",
            "Accept": "application/json",
        }
        with _Session() as session:
            response = session.request(
                "GET" if form is None else "POST",
                self.url + path,
                data=form,
                headers=headers,
                timeout=self.timeout,
            )
        try:
            data = response.json() if response.content.strip() else None
        except requests.JSONDecodeError:
            if response.ok and response.status_code < 300:
                raise
            data = None  # an error page
        return Answer(status=response.status_code, headers=response.headers, data=data)


class _Session(requests.Session):
    """A session that returns "see other" to the caller as an answer."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return the redirect target of a response."""
        return None if resp.status_code == 303 else super().get_redirect_target(resp)


def _in_words(error: BaseException) -> str:
    if isinstance(error, requests.Timeout):
        return "no response in time"
    if isinstance(error, requests.JSONDecodeError) and error.doc.lstrip().startswith("<"):
        return "a web page instead of data (does the network require a login?)"
    if isinstance(error, requests.ConnectionError):
        if _is_unknown_host(error):
            return "no connection: the host name cannot be resolved"
        return f"no connection ({_cause(error)})"
    return "a truncated response"


def _is_unknown_host(error: BaseException) -> bool:
    return isinstance(getattr(error.args[0], "reason", None) if error.args else None, NameResolutionError)


def _cause(error: BaseException) -> BaseException:
    """Return the original error of the system, inside those of urllib3 and requests."""
    while (below := error.__cause__ or error.__context__) is not None:
        error = below
    return error


def words_of(data: Any) -> str:
    """Return the service's own message about an error, in brackets; empty if there is none."""
    if not isinstance(data, dict):
        return ""
    said = data.get("messages") or data.get("errors") or data.get("message") or ""
    parts = said if isinstance(said, list) else [said]
    words = "; ".join(str(part.get("message", part) if isinstance(part, dict) else part) for part in parts)
    return f" ({words[:_MOST_TOLD]})" if words else ""


def _asked_wait(headers: Mapping[str, str]) -> float:
    """Return the seconds to wait as requested by the service, as a number or a date; 0 if not requested."""
    try:
        return Retry().parse_retry_after(headers.get("Retry-After", "").strip())
    except InvalidHeader:
        return 0.0
