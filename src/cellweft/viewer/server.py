"""The local server: loopback only, read-only, with a token, and one thread per connection."""

from __future__ import annotations

import contextlib
import errno
import hmac
import logging
import os
import re
import secrets
import select
import socket
import threading
import time
import webbrowser
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs

from cellweft._errors import CellweftError, SettingError, check_range
from cellweft.viewer.api import Answer, Api, error_answer, natural, not_found
from cellweft.viewer.region_markers import GoneError

_log = logging.getLogger("cellweft")

_HOST = "127.0.0.1"
_POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_IDLE_SECONDS = 60  # time limit to send a whole request, or to receive a whole answer
_MOST_CONNECTIONS = 64
_NO_TOKEN = (
    "<!doctype html><title>cellweft view</title><h1>This page needs its token</h1>"
    "<p>Open the full address that <code>cellweft view</code> printed when it started, including "
    "<code>?token=</code> and everything after it. The token changes at every start.</p>"
)
_TOKEN = re.compile(r"(token=)[^&\s\"]*")
_MOST_DROPPED = 2**20  # bytes of an unread body
_WAIT_SECONDS = 0.2  # between checks for the end


class Viewer:
    """A server of the page; use it in a ``with`` statement, or close it.

    Parameters
    ----------
    api
        Answers the requests.
    port
        Port to listen on, 0 to 65535; 0 for any free port.
    on_close
        Called at the end, after the last answer.
    token
        Whether requests need a token, which is random and new for each server.

    Attributes
    ----------
    port
        Port of the server.
    token
        Token of requests: as ``?token=`` in the page's address, as the cookie that the page then receives, or
        in a header, ``Authorization: token ...``. None without a token.
    origin
        Address of the server, without the token.
    url
        Address of the page, with the token.

    Raises
    ------
    SettingError
        The port is out of range, taken, or not allowed.

    Notes
    -----
    It listens only on the loopback address, and writes nothing. It only answers requests with its own address
    as the host, so that other pages cannot reach it through another name (DNS rebinding). Other users of the
    machine can reach the same address; the token protects the data from them.
    """

    def __init__(
        self, api: Api, *, port: int = 0, on_close: Callable[[], None] = lambda: None, token: bool = True
    ) -> None:
        check_range("port", port, low=0, high=65535, integer=True)
        self.token = secrets.token_urlsafe(32) if token else None
        if self.token is None:
            _log.warning("cellweft view without a token: every user of this machine can read these results.")
        try:
            self._server = _Server(api, int(port), self.token)
        except OSError as error:
            raise _no_port(port, error) from error
        self.port = int(self._server.server_address[1])
        self.origin = f"http://{_HOST}:{self.port}"
        self.url = f"{self.origin}/" if self.token is None else f"{self.origin}/?token={self.token}"
        self._on_close, self._lock, self._closed = on_close, threading.Lock(), False
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_WAIT_SECONDS,), name="cellweft-view", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Viewer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Viewer({'closed' if self.closed else self.url})"

    def _repr_html_(self) -> str:
        if self.closed:
            return "cellweft view (closed)"
        return f'<a href="{self.url}" target="_blank" rel="noopener">{self.url}</a>'

    @property
    def closed(self) -> bool:
        """Whether the server is closed."""
        return self._closed

    def open(self) -> bool:
        """Open the page in the browser; return whether one was found.

        Other users can see the address with which a browser is started, so it is valid for a single visit.
        """
        try:
            return webbrowser.open(self.url if self.token is None else self._server.address_once())
        except webbrowser.Error:
            return False

    def wait(self) -> None:
        """Serve until an interrupt (Ctrl-C) or `close`, then close."""
        with contextlib.suppress(KeyboardInterrupt):
            while self._thread.is_alive():
                self._thread.join(_WAIT_SECONDS)
        self.close()

    def close(self) -> None:
        """Stop serving and close the files; a second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = self._server.is_closing = True
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.hang_up()
        self._on_close()


def _no_port(port: int, error: OSError) -> SettingError:
    got = f"{port}, on which the server cannot listen ({error.strerror})"
    if error.errno == errno.EADDRINUSE:
        got = f"{port}, which another program is using"
    elif error.errno in (errno.EACCES, errno.EPERM):
        got = f"{port}, which you are not allowed to use"
    return SettingError("port", expected="a free port", got=got, fix="Choose another, or 0 for any.")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = os.name == "posix"  # on other systems it would allow others to take over the port
    request_queue_size = 64

    def __init__(self, api: Api, port: int, token: str | None) -> None:
        self.api, self.token, self.is_closing = api, token, False
        self._open: dict[socket.socket, float] = {}  # deadline for each to send a request
        self._once: set[str] = set()  # tokens that are valid for a single visit
        self._lock = threading.Lock()
        super().__init__((_HOST, port), _Handler)
        number = self.server_address[1]
        self.cookie = f"cellweft-view-{number}"  # cookies are shared by all ports
        self.hosts = {f"{name}:{number}" for name in ("localhost", _HOST, "[::1]")}

    def server_bind(self) -> None:
        """Bind without looking up the machine's name, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = _HOST, int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Store the connection; if there are too many, close the one that has waited longest."""
        with self._lock:
            is_full = len(self._open) >= _MOST_CONNECTIONS
            oldest = min(self._open, key=self._open.__getitem__) if is_full else None
            if oldest is not None and self._open[oldest] == float("inf"):  # all are being answered
                super().shutdown_request(request)
                return
            if oldest is not None:
                self._drop(oldest)
            self._open[request] = time.monotonic() + _IDLE_SECONDS
        super().process_request(request, client_address)

    def address_once(self) -> str:
        """Return an address of the page that is valid for a single visit."""
        once = secrets.token_urlsafe(32)
        with self._lock:
            self._once.add(once)
        return f"http://{_HOST}:{self.server_port}/?token={once}"

    def lets_in(self, given: str) -> bool:
        """Return whether a token gives access to the page; some are valid only once."""
        with self._lock:
            once = [token for token in self._once if _is(token, given)]
            self._once.difference_update(once)
        return bool(once) or (self.token is not None and _is(self.token, given))

    def await_request(self, request: Any) -> None:
        """Set the deadline for a connection to send a whole request, or the rest of one."""
        with self._lock:
            if request in self._open:
                self._open[request] = time.monotonic() + _IDLE_SECONDS

    def answering(self, request: Any) -> None:
        """Remove the deadline of a connection while it is answered."""
        with self._lock:
            if request in self._open:
                self._open[request] = float("inf")

    def service_actions(self) -> None:
        """Close connections after their deadline, even if they still send data."""
        with self._lock:
            for connection in [
                connection for connection, end in self._open.items() if end < time.monotonic()
            ]:
                self._drop(connection)

    def _drop(self, request: socket.socket) -> None:
        """Close a connection, which also ends its thread."""
        self._open.pop(request)
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        """Remove the connection."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Close all open connections, which also ends their threads."""
        with self._lock:
            for connection in list(self._open):
                self._drop(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log the error of a connection, which is usually caused by the client."""
        _log.debug("cellweft view: a connection failed", exc_info=True)


def _is(token: str, candidate: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(token.encode(), candidate.encode("utf-8", "surrogatepass"))


def _from_query(query: str) -> str:
    try:
        (token,) = parse_qs(query, max_num_fields=8).get("token", [""])
    except ValueError:
        return ""
    return token


def _from_cookies(lines: list[str], name: str) -> str:
    """Return the cookie with a name; browsers send the cookies of all ports of this machine together."""
    for cookie in ";".join(lines).split(";"):
        key, _, value = cookie.strip().partition("=")
        if key == name:
            return value
    return ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "cellweft", ""
    timeout = _IDLE_SECONDS
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        self._respond(lambda: self.server.api.get(self.path))

    do_HEAD = do_GET  # noqa: N815 - the base's way to name methods

    def do_POST(self) -> None:
        self._respond(lambda: self.server.api.compare(self.path, self._body, is_gone=self._is_gone))

    def do_OTHER(self) -> None:
        def refuse() -> Answer:
            if not self.server.api.is_known(self.path):
                return not_found(self.path)
            got = f"{self.command}: a request to write"
            error = SettingError("method", expected="GET or HEAD", got=got, fix="Read only.")
            return replace(error_answer(error, status=405), headers={"Allow": "GET, HEAD"})

        self._respond(refuse)

    do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = do_OTHER  # noqa: N815

    def parse_request(self) -> bool:
        """Return whether a request is valid; HTTP/0.9 is refused, as it has no headers."""
        is_valid = super().parse_request()
        if is_valid and self.request_version == "HTTP/0.9":
            self.send_error(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/0.9")
            return False
        return is_valid

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer an invalid request, in the same form as other errors."""
        self.close_connection = True
        got = message or HTTPStatus(code).phrase
        self._send(
            error_answer(SettingError("request", expected="HTTP", got=got, fix="Go to /."), status=int(code))
        )

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        said = _TOKEN.sub(r"\1...", format % args)  # a log must not give access
        _log.debug("cellweft view: %s", ascii(said))

    def _respond(self, answer: Callable[[], Answer]) -> None:
        self.server.answering(self.connection)
        try:
            self._answer(answer)
        finally:
            self.server.await_request(self.connection)

    def _answer(self, answer: Callable[[], Answer]) -> None:
        self._unread = self._length()
        try:
            reply = self._refusal() or self._entrance() or answer()
        except (GoneError, ConnectionError, TimeoutError):
            self.close_connection = True
            return
        except Exception as error:  # a failed request does not end others
            if self.server.is_closing:  # the files are being closed
                self.close_connection = True
                return
            _log.exception("cellweft view: %s failed", self.path[:200])
            wrong = CellweftError(
                "cellweft view",
                expected="a response",
                got=f"{type(error).__name__}: {str(error)[:300]}",
                fix="Reload the page; if it happens again, restart cellweft view.",
            )
            reply = error_answer(wrong, status=500)
        if self._unread:
            self.close_connection = True
            if self._unread > 0:
                self._read(min(self._unread, _MOST_DROPPED))  # otherwise the answer would be lost
        # A client that does not read may be dropped in favour of others
        self.server.await_request(self.connection)
        with contextlib.suppress(ConnectionError, TimeoutError):
            self._send(reply)

    def _refusal(self) -> Answer | None:
        """Refuse requests with another host name, or from another page."""
        hosts = self.headers.get_all("Host", [])
        origin = self.headers.get("Origin")
        allowed = self.server.hosts
        if len(hosts) != 1 or hosts[0].lower() not in allowed:
            got = f"host {', '.join(hosts)[:100]!r}"
        elif self.command == "POST" and origin is not None and origin.removeprefix("http://") not in allowed:
            got = f"origin {origin[:100]!r}"
        else:
            return None
        self.close_connection = True
        fix = f"Go to http://{_HOST}:{self.server.server_port}/; forward the same port from another machine."
        return error_answer(
            SettingError("Host", expected="this machine's own address", got=got, fix=fix), status=403
        )

    def _entrance(self) -> Answer | None:
        """Require the token; if the address of the page contains it, also set it as a cookie."""
        token, (path, _, query) = self.server.token, self.path.partition("?")
        if token is None or path.startswith("/assets/"):
            return None
        if path == "/" and self.command == "GET" and self.server.lets_in(_from_query(query)):
            cookie = f"{self.server.cookie}={token}; Path=/; HttpOnly; SameSite=Lax"
            return Answer(status=303, headers={"Location": "/", "Set-Cookie": cookie})
        kind, _, offered = self.headers.get("Authorization", "").partition(" ")
        if _is(token, _from_cookies(self.headers.get_all("Cookie", []), self.server.cookie)) or (
            kind.lower() == "token" and _is(token, offered.strip())
        ):
            return None
        self.close_connection = True
        if path == "/" and self.command == "GET":
            return Answer(status=403, kind="text/html; charset=utf-8", body=_NO_TOKEN.encode())
        fix = "Open the address that cellweft view printed when it started."
        return error_answer(
            SettingError(
                "token",
                expected="the token of this cellweft view",
                got="no token, or a different one",
                fix=fix,
            ),
            status=403,
        )

    def _length(self) -> int:
        """Return the length of the body; -1 if it is ambiguous."""
        lengths = self.headers.get_all("Content-Length", ["0"])
        if "Transfer-Encoding" in self.headers or len(lengths) > 1:  # ambiguous end
            return -1
        return natural(lengths[0])

    def _body(self, length: int) -> bytes:
        if self._unread != length:
            raise SettingError(
                "body",
                expected=f"{length} bytes, one bit per cell",
                got=f"{self._unread}" if self._unread >= 0 else "a body without its length",
                fix="Send all cells of the dataset.",
            )
        body = self._read(length)
        self._unread = 0
        return body

    def _read(self, length: int) -> bytes:
        """Read from a body, which must arrive before the deadline."""
        self.server.await_request(self.connection)
        body = self.rfile.read(length)
        self.server.answering(self.connection)
        if len(body) < length:
            raise ConnectionError("the body did not arrive")
        return body

    def _is_gone(self) -> bool:
        try:
            ready, _, _ = select.select([self.connection], [], [], 0)
            return bool(ready) and not self.connection.recv(1, socket.MSG_PEEK)
        except ValueError:  # more open files than select supports
            return False
        except OSError:
            return True

    def _send(self, answer: Answer) -> None:
        body = memoryview(answer.body).cast("B")
        self.send_response(answer.status)
        headers = {"Content-Type": answer.kind, "Content-Length": str(len(body)), **_HEADERS}
        for name, value in ({"Cache-Control": "no-store"} | headers | answer.headers).items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if getattr(self, "command", None) != "HEAD":
            self.wfile.write(body)
