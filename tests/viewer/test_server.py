"""Requests to a running server: every route, refused requests, parallel requests, and shutdown."""

import _thread
import contextlib
import http.client
import json
import logging
import signal
import socket
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from anndata import AnnData
from typer.testing import CliRunner

from cellweft._errors import FormatError, GeneError, InputError, MissingFileError, SettingError
from cellweft.cli.options import expanded
from cellweft.cli.view import view as view_command
from cellweft.viewer import Viewer, view
from cellweft.viewer.api import Api
from cellweft.viewer.dataset import Dataset
from cellweft.viewer.region_markers import GoneError

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def viewer(stores: dict[str, Path]) -> Iterator[Viewer]:
    """A server with a zarr store, an h5ad file, placed cells and the tissue."""
    results = (stores["zarr"], stores["h5ad"], stores["placed"])
    with view(*results, tissue=stores["tissue"], open_browser=False, block=False) as made:
        yield made


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A built page, with a secret file next to its folder."""
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "page"
    (folder / "assets" / "deep").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html>page")
    (folder / "mark.svg").write_text("<svg/>")
    (folder / "assets" / "index-1a2b.js").write_text("export {}")
    (folder / "assets" / "odd name.bin").write_bytes(b"\0\1")
    (folder / "assets" / "deep" / "inner.js").write_text("inner")
    (folder / "assets" / "link.js").symlink_to(tmp_path / "secret.txt")
    return folder


@pytest.fixture
def paged(page: Path) -> Iterator[Viewer]:
    with Viewer(Api([], version="1", page=page)) as made:
        yield made


class Line(http.client.HTTPConnection):
    """A connection to a viewer that sends the token."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__("127.0.0.1", viewer.port, timeout=20)
        self.token = viewer.token

    def putrequest(self, *arguments: Any, **options: Any) -> None:
        super().putrequest(*arguments, **options)
        self.putheader("Authorization", f"token {self.token}")


def open_socket(viewer: Viewer) -> http.client.HTTPConnection:
    return Line(viewer)


def answered(line: http.client.HTTPConnection) -> bytes:
    line.request("GET", "/api/session")
    return line.getresponse().read()


def visit(viewer: Viewer, path: str, **headers: str) -> tuple[int, str]:
    """Return status and cookie of a reply to a browser without a token, except in `headers`."""
    line = http.client.HTTPConnection("127.0.0.1", viewer.port, timeout=20)
    line.request("GET", path, headers=headers)
    reply = line.getresponse()
    reply.read()
    line.close()
    return reply.status, reply.headers.get("Set-Cookie", "")


def test_the_session_lists_the_datasets(viewer: Viewer, ask: Ask) -> None:
    reply = ask(viewer, "/api/session")
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.told["cellweft"]
    assert [(one["id"], one["title"], one["kind"]) for one in reply.told["datasets"]] == [
        (0, "imputed.zarr", "imputed"),
        (1, "imputed.h5ad", "imputed"),
        (2, "placed.h5ad", "placed"),
    ]
    assert reply.told["datasets"][0]["layers"] == ["measured", "imputed", "uncertainty"]


def test_values_equal_those_of_the_file(viewer: Viewer, ask: Ask, imputed: AnnData) -> None:
    for number in (0, 1):
        for place, gene in enumerate(imputed.var_names):
            reply = ask(viewer, f"/api/datasets/{number}/values?gene={gene}&layer=imputed")
            np.testing.assert_array_equal(reply.values(), np.asarray(imputed.X)[:, place])
            assert reply.headers["X-Cellweft-Low"] == "0.0"
            assert float(reply.headers["X-Cellweft-High"]) > 0
    reply = ask(viewer, "/api/datasets/0/values?layer=measured&gene=Gene0")
    assert np.isnan(reply.values()[:3]).all()
    assert (reply.values()[3:] >= 0).all()


def test_positions_genes_and_columns(viewer: Viewer, ask: Ask, imputed: AnnData) -> None:
    places = ask(viewer, "/api/datasets/1/positions").values().reshape(-1, 2)
    np.testing.assert_array_equal(places, imputed.obsm["spatial"][:, :2].astype(np.float32))
    assert np.isnan(ask(viewer, "/api/datasets/2/positions").values()[4:]).all()
    assert ask(viewer, "/api/datasets/0/genes").told["names"] == list(imputed.var_names)
    assert ask(viewer, "/api/datasets/0/column?name=region").values("<u2").tolist() == [1, 0] * 30 + [1]
    assert np.isnan(ask(viewer, "/api/datasets/0/column?name=size").values()[5])
    assert ask(viewer, "/api/datasets/1/cell?index=7").told["name"] == "cell7"


def test_compare(viewer: Viewer, ask: Ask, imputed: AnnData) -> None:
    inside = np.arange(61) < 20
    body = np.packbits(inside, bitorder="little").tobytes()
    told = ask(viewer, "/api/datasets/0/compare", data=body).told
    assert (told["inside"], told["outside"], told["layer"]) == (20, 41, "imputed")
    assert len(told["genes"]) == 9
    one = next(gene for gene in told["genes"] if gene["name"] == "Gene2")
    values = np.asarray(imputed.X)[:, 2].astype(np.float64)
    assert one["inside"] == pytest.approx(values[inside].mean())
    assert one["difference"] == pytest.approx(values[inside].mean() - values[~inside].mean())
    assert (one["reliability"], one["measured"]) == (None, True)
    assert told == ask(viewer, "/api/datasets/1/compare", data=body).told


@pytest.mark.parametrize(
    ("path", "status", "word"),
    [
        ("/api/datasets/0/values?gene=gene1&layer=imputed", 404, "Did you mean 'Gene1'"),
        ("/api/datasets/0/values?gene=Gene1&layer=lower", 404, "no such layer"),
        ("/api/datasets/2/values?gene=Gene1&layer=imputed", 404, "a dataset with genes"),
        ("/api/datasets/0/values?gene=Gene1", 400, "gene= and layer="),
        ("/api/datasets/0/values?gene=Gene1&gene=Gene2", 400, "gene= and layer="),
        ("/api/datasets/0/values?gene=%ff&layer=imputed", 400, "gene= and layer="),
        ("/api/datasets/0/column", 400, "name="),
        ("/api/datasets/0/cell?index=61", 400, "from 0 to 60"),
        ("/api/datasets/0/cell?index=-1", 400, "from 0 to 60"),
        ("/api/datasets/0/cell?index=x", 400, "from 0 to 60"),
        ("/api/datasets/0/column?name=nothing", 404, "no such column"),
        ("/api/datasets/0/compare", 405, "POST"),
        ("/api/datasets/3/genes", 404, "an address of cellweft view"),
        ("/api/datasets/-1/genes", 404, "an address of cellweft view"),
        ("/api/datasets/99999/genes", 404, "an address of cellweft view"),
        ("/api/datasets/0/genes/", 404, "an address of cellweft view"),
        ("/api", 404, "an address of cellweft view"),
    ],
)
def test_errors_are_json(viewer: Viewer, ask: Ask, path: str, status: int, word: str) -> None:
    reply = ask(viewer, path)
    assert reply.status == status
    assert reply.headers["Content-Type"] == "application/json"
    told = reply.told["error"]
    assert set(told) == {"where", "expected", "got", "fix"}
    assert word in " ".join(told.values())


def test_the_page_and_its_files(paged: Viewer, ask: Ask) -> None:
    reply = ask(paged, "/")
    assert (reply.status, reply.body) == (200, b"<!doctype html>page")
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    reply = ask(paged, "/assets/index-1a2b.js")
    assert reply.body == b"export {}"
    assert reply.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert ask(paged, "/mark.svg").headers["Content-Type"] == "image/svg+xml"
    assert ask(paged, "/assets/odd%20name.bin").headers["Content-Type"] == "application/octet-stream"
    assert ask(paged, "/?d=0").status == 200
    assert ask(paged, "//assets/index-1a2b.js").status == 200  # a double slash counts as one


def test_a_page_that_was_not_built(tmp_path: Path, ask: Ask) -> None:
    with Viewer(Api([], version="1", page=tmp_path / "nothing")) as made:
        reply = ask(made, "/")
        assert reply.status == 503
        assert b"page of cellweft view is missing" in reply.body
        assert ask(made, "/assets/index.js").status == 404
        assert ask(made, "/api/session").told == {"cellweft": "1", "datasets": []}


@pytest.mark.parametrize(
    "path",
    [
        b"/../secret.txt",
        b"/assets/../../secret.txt",
        b"/assets/../index.html",
        b"/%2e%2e/secret.txt",
        b"/assets/%2e%2e/%2e%2e/secret.txt",
        b"/assets/..%2f..%2fsecret.txt",
        b"/assets/..%5c..%5csecret.txt",
        b"/assets/%252e%252e/secret.txt",
        b"/assets//index-1a2b.js",
        b"/assets/deep/inner.js",
        b"/assets/deep",
        b"/assets/",
        b"/assets",
        b"/assets/link.js",
        b"/assets/index-1a2b.js%00",
        b"/assets/%00",
        b"/assets/index-1a2b.js/",
        b"/assets/INDEX-1A2B.JS",
        b"/etc/passwd",
        b"//etc/passwd",
        b"http://127.0.0.1/index.html",
        b"file:///etc/passwd",
        b"*",
        b"/assets/" + b"a" * 30_000,
        b"/%c3%28",
        b"/\xff\xfe",
        b"/.",
        b"/..",
    ],
)
def test_no_path_leaves_the_page(paged: Viewer, ask_plainly: Ask, path: bytes) -> None:
    reply = ask_plainly(paged, path)
    assert reply.status == 404
    assert b"secret" not in reply.body or b"secret" in path
    assert len(reply.body) < 1000


def test_absolute_paths_stay_in_the_page(paged: Viewer, page: Path, ask: Ask) -> None:
    assert ask(paged, f"{page.parent / 'secret.txt'}").status == 404
    assert ask(paged, f"/{page.parent / 'secret.txt'}").status == 404
    assert ask(paged, f"/assets/{page.parent / 'secret.txt'}").status == 404


def test_a_very_long_address(paged: Viewer, ask_plainly: Ask) -> None:
    reply = ask_plainly(paged, b"/" + b"a" * 70_000)
    assert reply.status == 414
    assert set(reply.told["error"]) == {"where", "expected", "got", "fix"}


@pytest.mark.parametrize("lines", [b"X-%d: a\r\n" * 200, b"X: " + b"a" * 70_000 + b"\r\n"])
def test_too_many_and_too_long_headers(viewer: Viewer, ask_plainly: Ask, lines: bytes) -> None:
    reply = ask_plainly(viewer, b"/api/session", lines=lines)
    assert reply.status == 431
    assert set(reply.told["error"]) == {"where", "expected", "got", "fix"}


@pytest.mark.parametrize("what", ["values?layer=imputed&gene=", "column?name=", "cell?index="])
def test_huge_queries_get_a_short_answer(viewer: Viewer, ask: Ask, what: str) -> None:
    start = time.monotonic()
    reply = ask(viewer, f"/api/datasets/0/{what}{'A' * 60_000}")
    assert reply.status in (400, 404)
    assert len(reply.body) < 2_000
    assert time.monotonic() - start < 5
    many = "&".join(f"name={number}" for number in range(5_000))
    assert ask(viewer, f"/api/datasets/0/column?{many}").status == 400


def test_security_headers_restrict_the_page(viewer: Viewer, paged: Viewer, ask: Ask) -> None:
    for reply in (ask(paged, "/"), ask(viewer, "/api/session"), ask(viewer, "/nothing")):
        policy = reply.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'self';")
        assert "unsafe" not in policy
        assert "http" not in policy
        assert "frame-ancestors 'none'" in policy
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in reply.headers
    assert ask(viewer, "/api/session").headers["Cache-Control"] == "no-store"
    assert "Python" not in ask(viewer, "/api/session").headers["Server"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("LOCALHOST:{port}", 200),
        ("[::1]:{port}", 200),
        ("evil.example:{port}", 403),
        ("127.0.0.1", 403),
        ("127.0.0.1:1", 403),
        ("localhost.evil.example:{port}", 403),
        ("localhost:{port}@evil.example", 403),
        ("", 403),
    ],
)
def test_the_host_must_be_this_machine(viewer: Viewer, ask_plainly: Ask, host: str, status: int) -> None:
    line = f"Host: {host.format(port=viewer.port)}\r\n".encode()
    assert ask_plainly(viewer, b"/api/session", lines=line).status == status


def test_no_host_and_two_hosts(viewer: Viewer, ask_plainly: Ask) -> None:
    good = f"Host: localhost:{viewer.port}\r\n".encode()
    assert ask_plainly(viewer, b"/api/session", lines=b"").status == 403
    assert ask_plainly(viewer, b"/api/session", lines=good + b"Host: evil.example\r\n").status == 403


def test_pages_of_other_sites_cannot_post(viewer: Viewer, ask: Ask) -> None:
    body = bytes([1, *[0] * 7])
    path = "/api/datasets/0/compare"
    assert ask(viewer, path, data=body, headers={"Origin": viewer.origin}).status == 200
    for origin in ("http://evil.example", "null", f"https://localhost:{viewer.port}"):
        assert ask(viewer, path, data=body, headers={"Origin": origin}).status == 403


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_can_be_written(viewer: Viewer, ask: Ask, method: str) -> None:
    for path in ("/", "/api/session", "/api/datasets/0/compare", "/api/datasets/0/genes"):
        reply = ask(viewer, path, method=method, data=b"x" * 1000)
        assert reply.status == 405
        assert reply.headers["Allow"] == "GET, HEAD"
    assert ask(viewer, "/elsewhere", method=method).status == 404


def test_only_compare_accepts_posts(viewer: Viewer, ask: Ask) -> None:
    for path in ("/", "/api/session", "/api/datasets/0/genes", "/api/datasets/7/compare", "/index.html"):
        assert ask(viewer, path, data=b"x").status == 404
    assert ask(viewer, "/api/session", method="MOVE").status == 501


@pytest.mark.parametrize("body", [b"", b"\1" * 7, b"\1" * 9, b"\0" * 8, b"\xff" * 8, b"\1" * 3_000_000])
def test_bodies_of_wrong_size_are_refused(viewer: Viewer, ask: Ask, body: bytes) -> None:
    try:
        reply = ask(viewer, "/api/datasets/0/compare", data=body)
    except (ConnectionError, urllib.error.URLError):  # the server does not wait for the end of a large body
        assert len(body) > 2**20
        return
    assert reply.status == 400
    assert reply.told["error"]["where"] == "body"


def test_a_body_without_its_length(viewer: Viewer) -> None:
    for headers in ({"Transfer-Encoding": "chunked"}, {"Content-Length": "-1"}, {"Content-Length": "x"}):
        line = open_socket(viewer)
        line.putrequest("POST", "/api/datasets/0/compare")
        for name, value in headers.items():
            line.putheader(name, value)
        line.endheaders()
        reply = line.getresponse()
        assert reply.status == 400
        assert "without its length" in json.loads(reply.read())["error"]["got"]
        line.close()


def test_no_body_can_hide_a_second_request(viewer: Viewer) -> None:
    hidden = f"GET /api/session HTTP/1.1\r\nHost: localhost:{viewer.port}\r\n\r\n"
    for lengths in (("0", str(len(hidden))), (str(len(hidden)), "0")):
        line = open_socket(viewer)
        line.putrequest("GET", "/api/session")
        for one in lengths:
            line.putheader("Content-Length", one)
        line.endheaders(hidden.encode())
        reply = line.getresponse()
        assert reply.status == 200
        assert reply.headers["Connection"] == "close"
        reply.read()
        line.close()


def test_head_gives_only_the_headers(viewer: Viewer, ask: Ask) -> None:
    path = "/api/datasets/0/values?gene=Gene1&layer=imputed"
    head, whole = ask(viewer, path, method="HEAD"), ask(viewer, path)
    assert (head.status, head.body) == (200, b"")
    for name in ("Content-Length", "X-Cellweft-High", "Content-Type"):
        assert head.headers[name] == whole.headers[name]
    assert ask(viewer, "/nothing", method="HEAD").status == 404


def test_a_connection_serves_many_requests(viewer: Viewer) -> None:
    line = open_socket(viewer)
    for path in ("/api/session", "/nothing", "/api/datasets/0/positions"):
        line.request("GET", path)
        assert line.getresponse().read()
    assert line.sock is not None
    line.close()


def test_several_requests_at_once(viewer: Viewer, ask: Ask, imputed: AnnData) -> None:
    def one(number: int) -> bool:
        gene, dataset = number % 9, number % 2
        reply = ask(viewer, f"/api/datasets/{dataset}/values?gene=Gene{gene}&layer=imputed")
        return bool(np.array_equal(reply.values(), np.asarray(imputed.X)[:, gene]))

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(one, range(72)))


def test_a_failure_only_ends_one_request(
    viewer: Viewer, ask: Ask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Any) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(Dataset, "genes", fail)
    with caplog.at_level(logging.CRITICAL, logger="cellweft"):
        reply = ask(viewer, "/api/datasets/0/genes")
    assert reply.status == 500
    assert reply.told["error"]["got"] == "ZeroDivisionError: a mistake"
    assert ask(viewer, "/api/session").status == 200


def test_a_comparison_stops_if_the_client_disconnects(
    viewer: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, ended = threading.Event(), threading.Event()

    def compare(self: Any, body: bytes, *, is_gone: Callable[[], bool]) -> dict[str, Any]:
        started.set()
        assert not is_gone()
        for _ in range(200):
            if is_gone():
                ended.set()
                raise GoneError
            time.sleep(0.02)
        return {}

    monkeypatch.setattr(Dataset, "compare", compare)
    line = open_socket(viewer)
    line.request("POST", "/api/datasets/0/compare", body=bytes([1, *[0] * 7]))
    assert started.wait(10)
    time.sleep(0.1)
    line.close()
    assert ended.wait(10)


def test_nothing_is_written_next_to_the_files(stores: dict[str, Path], ask: Ask) -> None:
    folder = stores["zarr"].parent

    def state() -> dict[Path, tuple[int, int]]:
        return {one: (one.stat().st_size, one.stat().st_mtime_ns) for one in folder.rglob("*")}

    before = state()
    results = [stores[one] for one in ("zarr", "h5ad", "h5ad CSR", "placed")]
    with view(*results, tissue=stores["tissue"], open_browser=False, block=False) as made:
        for number in range(4):
            for what in ("genes", "positions", "values?gene=Gene1&layer=imputed", "column?name=region"):
                ask(made, f"/api/datasets/{number}/{what}")
            ask(made, f"/api/datasets/{number}/compare", data=bytes([1, *[0] * 7]))
    assert state() == before


def test_it_only_listens_on_loopback(viewer: Viewer) -> None:
    assert viewer._server.socket.getsockname() == ("127.0.0.1", viewer.port)
    assert viewer.url == f"http://127.0.0.1:{viewer.port}/?token={viewer.token}"


def test_a_port_in_use(viewer: Viewer, stores: dict[str, Path]) -> None:
    with pytest.raises(SettingError, match=f"expected a free port, got {viewer.port}, which another program"):
        view(stores["placed"], port=viewer.port, open_browser=False, block=False)
    for port in (-1, 65_536, 1.5):
        with pytest.raises(SettingError, match="port: expected a whole number from 0 to 65535"):
            view(stores["placed"], port=port, open_browser=False, block=False)  # type: ignore[arg-type]


def test_closing(stores: dict[str, Path], ask: Ask) -> None:
    made = view(stores["h5ad"], open_browser=False, block=False)
    line = open_socket(made)
    reply = answered(line)
    assert reply
    assert made.url in made._repr_html_()
    made.close()
    made.close()
    assert made.closed
    assert (repr(made), made._repr_html_()) == ("Viewer(closed)", "cellweft view (closed)")
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        answered(line)
    line.close()
    with pytest.raises(OSError, match="refused"):
        ask(made, "/api/session")
    again = view(stores["h5ad"], port=made.port, open_browser=False, block=False)
    assert again.port == made.port
    again.close()


def test_closing_during_a_request_logs_nothing(
    stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    started, closed, ended = (threading.Event() for _ in range(3))

    def wait(self: Any) -> None:
        started.set()
        closed.wait(10)
        ended.set()
        raise ValueError("the file is closed")

    monkeypatch.setattr(Dataset, "genes", wait)
    made = view(stores["h5ad"], open_browser=False, block=False)
    line = open_socket(made)
    line.request("GET", "/api/datasets/0/genes")
    assert started.wait(10)
    made.close()
    closed.set()
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        line.getresponse()
    assert ended.wait(10)
    line.close()
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


def test_an_interrupt_ends_it(stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    waits = Viewer.wait

    def wait(self: Viewer) -> None:
        threading.Timer(0.2, _thread.interrupt_main).start()
        waits(self)

    monkeypatch.setattr(Viewer, "wait", wait)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # test runs in the background ignore it
    try:
        made = view(stores["placed"], open_browser=False)
    finally:
        signal.signal(signal.SIGINT, before)
    assert made.closed


def test_the_browser_is_opened(stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: bool(opened.append(url)) or True)
    with view(stores["placed"], block=False) as made:
        assert opened[0].startswith(f"{made.origin}/?token=")
        assert str(made.token) not in opened[0]  # other users may see the address, so it works only once
        assert [visit(made, opened[0].removeprefix(made.origin))[0] for _ in range(2)] == [303, 403]


def test_data_that_cannot_be_shown(stores: dict[str, Path], counts: AnnData, tmp_path: Path) -> None:
    quiet: Any = {"open_browser": False, "block": False}
    with pytest.raises(SettingError, match="at least one result"):
        view(**quiet)
    with pytest.raises(MissingFileError, match=r"result .*nothing at this path"):
        view(tmp_path / "none.zarr", **quiet)
    with pytest.raises(FormatError, match=r"Pass the tissue with tissue="):
        view(stores["tissue"], **quiet)
    with pytest.raises(SettingError, match=r"expected an imputed result, .* got placed only"):
        view(stores["placed"], tissue=stores["tissue"], **quiet)
    with pytest.raises(GeneError, match="none of them"):
        view(stores["zarr"], tissue=counts[:, ["Other1", "Other2"]].copy(), **quiet)
    strangers = counts.copy()
    strangers.obs_names = [f"other{number}" for number in range(counts.n_obs)]
    with pytest.raises(InputError, match="other names"):
        view(stores["zarr"], tissue=strangers, **quiet)
    with pytest.raises(SettingError, match="memory"):
        view(stores["zarr"], memory="much", **quiet)


def run(*arguments: Any) -> Any:
    app = typer.Typer()
    app.command("view")(expanded(view_command))
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each server was closed when the command would wait; instead of waiting, it continues."""
    seen: list[bool] = []
    monkeypatch.setattr(Viewer, "wait", lambda self: seen.append(self.closed))
    monkeypatch.setattr("webbrowser.open", lambda url: False)
    return seen


def test_the_command(stores: dict[str, Path], waits: list[bool]) -> None:
    found = run(stores["zarr"], stores["placed"], "--tissue", stores["tissue"])
    assert found.exit_code == 0, found.output
    assert ": http://127.0.0.1:" in found.output
    assert "No browser was found" in found.output
    assert waits == [False]


def test_the_command_in_json(stores: dict[str, Path], waits: list[bool]) -> None:
    found = run(stores["placed"], "--json", "--no-open")
    told = json.loads(found.stdout)
    assert told["url"].startswith(f"http://127.0.0.1:{told['port']}/?token=")
    assert told["results"] == [str(stores["placed"])]
    found = run(stores["tissue"], "--json", "--no-open")
    assert found.exit_code == 2
    assert json.loads(found.stdout)["error"]["kind"] == "FormatError"
    assert len(waits) == 1


# The token


API = (
    "session",
    *(f"datasets/0/{what}" for what in ("positions", "genes", "column?name=region", "cell?index=1")),
)


@pytest.mark.parametrize("path", ["/", "/index.html", "/nothing", *(f"/api/{one}" for one in API)])
def test_nothing_is_answered_without_the_token(viewer: Viewer, path: str) -> None:
    wrong = str(viewer.token)[:-1] + ("A" if str(viewer.token)[-1] != "A" else "B")
    cookie = f"cellweft-view-{viewer.port}="
    for headers in (
        {},
        {"Authorization": f"token {wrong}"},
        {"Authorization": str(viewer.token)},
        {"Authorization": "token "},
        {"Cookie": cookie},
        {"Cookie": cookie + wrong},
        {"Cookie": f"cellweft-view-1={viewer.token}"},
    ):
        assert visit(viewer, path, **headers) == (403, "")
    join = "&" if "?" in path else "?"
    if path != "/":  # only the address of the page accepts it
        assert visit(viewer, f"{path}{join}token={viewer.token}") == (403, "")
    assert visit(viewer, f"{path}{join}token={wrong}") == (403, "")


def test_comparing_needs_the_token_too(viewer: Viewer) -> None:
    line = http.client.HTTPConnection("127.0.0.1", viewer.port, timeout=20)
    line.request("POST", "/api/datasets/0/compare", body=bytes([1, *[0] * 7]))
    reply = line.getresponse()
    assert reply.status == 403
    told = json.loads(reply.read())["error"]
    assert told["where"] == "token"
    assert "Open the address that cellweft view printed" in told["fix"]
    line.close()


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT"])
def test_no_method_is_answered_without_the_token(viewer: Viewer, method: str) -> None:
    for path in ("/", f"/?token={viewer.token}", "/api/session", "/api/datasets/0/compare", "/nothing"):
        line = http.client.HTTPConnection("127.0.0.1", viewer.port, timeout=20)
        line.request(method, path)
        reply = line.getresponse()
        assert (reply.status, reply.headers.get("Set-Cookie")) == (403, None)
        reply.read()
        line.close()


def test_no_other_protocol_bypasses_the_token(viewer: Viewer) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    assert visit(viewer, "/api/session", **upgrade)[0] == 403
    assert visit(viewer, "/api/session", **upgrade, Authorization=f"token {viewer.token}")[0] == 200
    with socket.create_connection(("127.0.0.1", viewer.port), timeout=20) as line:
        line.sendall(b"GET /api/session\r\n\r\n")  # HTTP/0.9
        assert b'"got":"HTTP/0.9"' in line.makefile("rb").read()


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../api/session",
        "/assets/%2e%2e/api/session",
        "//api/session",
        "/API/session",
        "/api/session/",
        "/%61pi/session",
        "http://localhost/api/session",
        "/assets/../index.html",
        "/api/session;x",
        "/api/session%00",
    ],
)
def test_no_other_form_of_a_path_bypasses_the_token(viewer: Viewer, path: str) -> None:
    line = http.client.HTTPConnection("127.0.0.1", viewer.port, timeout=20)
    line.request("GET", path)
    reply = line.getresponse()
    assert reply.status in (403, 404)
    assert b"datasets" not in reply.read()
    line.close()


def test_a_token_given_twice_is_refused(viewer: Viewer) -> None:
    assert visit(viewer, f"/?token=x&token={viewer.token}") == (403, "")
    assert visit(viewer, f"/?token={viewer.token}&token={viewer.token}") == (403, "")
    many = "&".join("a=1" for _ in range(5_000))
    assert visit(viewer, f"/?token={viewer.token}&{many}") == (403, "")


def test_the_token_is_in_no_log(viewer: Viewer, ask_plainly: Ask, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", logger="cellweft"):
        visit(viewer, f"/?token={viewer.token}&d=0")
        ask_plainly(viewer, b"/api/session\x1b[2J")
    assert "?token=...&d=0" in caplog.text
    assert str(viewer.token) not in caplog.text
    assert "\x1b" not in caplog.text


def test_the_page_sets_the_token_as_a_cookie(viewer: Viewer, imputed: AnnData) -> None:
    status, cookie = visit(viewer, f"/?token={viewer.token}")
    assert status == 303
    assert cookie == f"cellweft-view-{viewer.port}={viewer.token}; Path=/; HttpOnly; SameSite=Lax"
    sent = "other=1; " + cookie.partition(";")[0]
    for path in ("/", "/api/session", "/api/datasets/0/values?gene=Gene1&layer=imputed"):
        assert visit(viewer, path, Cookie=sent)[0] == 200


def test_every_viewer_has_a_new_long_token(viewer: Viewer, stores: dict[str, Path]) -> None:
    with view(stores["placed"], open_browser=False, block=False) as other:
        assert other.token != viewer.token
        assert len(str(other.token)) >= 43  # 32 bytes
        assert visit(other, "/api/session", Authorization=f"token {viewer.token}")[0] == 403


def test_disabling_the_token_gives_a_warning(
    stores: dict[str, Path], caplog: pytest.LogCaptureFixture, waits: list[bool]
) -> None:
    with view(stores["placed"], open_browser=False, block=False, token=False) as made:
        assert (made.token, made.url) == (None, f"http://127.0.0.1:{made.port}/")
        assert visit(made, "/api/session")[0] == 200
    assert "every user of this machine can read these results" in caplog.text
    found = run(stores["placed"], "--no-token", "--no-open")
    assert "to every user of this machine until you press Ctrl-C: http:" in found.output
    assert "?token=" in run(stores["placed"], "--no-open").output


# Connections


def test_slow_clients_are_dropped(stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellweft.viewer.server._IDLE_SECONDS", 0.5)
    with view(stores["placed"], open_browser=False, block=False) as made:
        lines = [socket.create_connection(("127.0.0.1", made.port), timeout=10) for _ in range(2)]
        lines[0].sendall(b"GET /api/session HTTP/1.1\r\n")  # followed by a character now and then
        head = f"POST /api/datasets/0/compare HTTP/1.1\r\nHost: localhost:{made.port}\r\n"
        head += f"Authorization: token {made.token}\r\nContent-Length: 1\r\n\r\n"
        lines[1].sendall(head.encode())  # the body is never sent
        for _ in range(12):
            time.sleep(0.1)
            with contextlib.suppress(OSError):  # the connection may have ended
                lines[0].sendall(b"X")
        for line in lines:
            with contextlib.suppress(ConnectionError):
                assert line.recv(10) == b""
        for line in lines:
            line.close()


def test_connections_are_bounded(stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch, ask: Ask) -> None:
    monkeypatch.setattr("cellweft.viewer.server._MOST_CONNECTIONS", 4)
    with view(stores["placed"], open_browser=False, block=False) as made:
        before = threading.active_count()
        idle = [socket.create_connection(("127.0.0.1", made.port), timeout=10) for _ in range(20)]
        time.sleep(0.5)
        assert threading.active_count() - before <= 5
        assert ask(made, "/api/session").status == 200  # the connection that has waited longest is closed
        for line in idle:
            line.close()


def test_clients_that_read_no_answer_are_dropped(
    stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch, page: Path, ask: Ask
) -> None:
    monkeypatch.setattr("cellweft.viewer.server._MOST_CONNECTIONS", 4)
    (page / "assets" / "large.js").write_bytes(b" " * 2**25)
    with Viewer(Api([], version="1", page=page)) as made:
        slow = [socket.create_connection(("127.0.0.1", made.port), timeout=10) for _ in range(4)]
        for line in slow:
            line.sendall(f"GET /assets/large.js HTTP/1.1\r\nHost: localhost:{made.port}\r\n\r\n".encode())
            assert line.recv(8) == b"HTTP/1.1"  # and reads no more
        assert ask(made, "/api/session").status == 200
        for line in slow:
            line.close()
