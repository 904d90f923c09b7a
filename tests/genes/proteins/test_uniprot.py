"""The service of UniProt: a local server answers as UniProt does, including its failures."""

import dataclasses
import gzip
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pandas as pd
import pytest
from typer.testing import CliRunner

from cellweft._errors import MissingFileError, OutputError, ServiceError, SettingError
from cellweft.cli import app
from cellweft.genes.proteins import uniprot
from cellweft.genes.proteins.fasta import read_fasta
from cellweft.genes.proteins.http_client import Service
from cellweft.genes.proteins.table import find_proteins
from cellweft.genes.proteins.uniprot import Question, UniProt

MOUSE, HUMAN = 10090, 9606
ALL = Question(source="Gene_Name", part="UniProtKB", taxon=MOUSE)
REVIEWED = Question(source="Gene_Name", part="UniProtKB-Swiss-Prot", taxon=MOUSE)
SEARCH = Question(source="search", part="UniProtKB", taxon=MOUSE)


def entry(accession: str, gene: str, length: int, **more: Any) -> dict[str, Any]:
    """Return an entry of UniProtKB in its JSON format, limited to the requested fields."""
    kind = "unreviewed (TrEMBL)" if accession.startswith("A") else "reviewed (Swiss-Prot)"
    names: dict[str, Any] = {"geneName": {"value": gene}} if gene else {}
    for key in ("synonyms", "orfNames", "orderedLocusNames"):
        if key in more:
            names[key] = [{"value": value} for value in more[key]]
    made = {
        "entryType": f"UniProtKB {kind}",
        "primaryAccession": accession,
        "uniProtkbId": f"{accession}_MOUSE",
        "organism": {"scientificName": "Mus musculus", "taxonId": more.get("taxon", MOUSE)},
        "genes": [names, *({"geneName": {"value": other}} for other in more.get("genes", []))],
        "sequence": {"value": "MA" * (length // 2), "length": length},
        "ensembl": more.get("ensembl"),
    }
    if more.get("deleted"):
        made |= {"entryType": "Inactive", "inactiveReason": {"inactiveReasonType": "DELETED"}}
        del made["sequence"], made["uniProtkbId"]
    return made


ENTRIES = [
    entry("P48318", "Gad1", 20, synonyms=["Gad67"], ensembl="ENSMUSG00000070880"),
    entry("A2AQ51", "Gad1", 24),
    entry("A2AQ52", "Gad1", 8),
    entry("P60041", "Sst", 12, ensembl="ENSMUSG00000004366"),
    entry("A0A001", "Vip", 16),
    entry("A0A002", "Vip", 18),
    entry("P03888", "Mtnd1", 30, synonyms=["mt-Nd1", "Nd1"]),
    entry("P00001", "Foo1", 10, synonyms=["Foo"]),
    entry("P00002", "Foo2", 10, synonyms=["Foo"]),
    entry("P84243", "H3-3a", 14, genes=["H3-3b"]),
    entry("Q00001", "Gone", 10, deleted=True),
    entry("P99999", "GAD2", 40, taxon=HUMAN, ensembl="ENSG00000136750"),
    entry("Q00002", "", 22, orfNames=["Kiaa0001"], orderedLocusNames=["MM_1"]),
]


class FakeUniProt(ThreadingHTTPServer):
    """A server with ID mapping jobs, their pages and a search, like https://rest.uniprot.org.

    It follows the source of the service, github.com/ebi-uniprot/uniprot-rest-api: equal jobs have equal
    numbers, a finished job is "303 see other", and a failed job is "500" with its state in JSON.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.entries = list(ENTRIES)
        self.log: list[tuple[str, str]] = []
        self.headers: list[Any] = []
        self.forms: list[dict[str, str]] = []
        self.jobs: dict[str, dict[str, str]] = {}
        self.polls: dict[str, int] = {}
        self.n_polls = 1
        self.troubles: dict[str, list[Any]] = {}
        self.base = ""
        self.done = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print no errors about clients that disconnected."""

    def asked(self, part: str) -> list[str]:
        """Return the paths of the requests that contain `part`."""
        return [path for _, path in self.log if part in path]

    def mapped(self, form: dict[str, str]) -> list[dict[str, Any]]:
        found = []
        for key in form["ids"].split(","):
            for one in self.entries:
                names = [gene["geneName"]["value"] for gene in one["genes"] if "geneName" in gene]
                fits = one["ensembl"] == key if form["from"] == "Ensembl" else key in names
                if form["from"] == "Gene_Name" and str(one["organism"]["taxonId"]) != form["taxId"]:
                    continue
                if form["to"] == "UniProtKB-Swiss-Prot" and "unreviewed" in one["entryType"]:
                    continue
                found += [{"from": key, "to": told(one)}] if fits else []
        return found

    def searched(self, query: str) -> list[dict[str, Any]]:
        names = {name.lower() for name in re.findall(r'gene_exact:"([^"]+)"', query)}
        taxon = int(re.findall(r"organism_id:(\d+)", query)[0])
        return [
            told(one)
            for one in self.entries
            if one["organism"]["taxonId"] == taxon
            and names & {name.lower() for name in re.findall(r'"value": "([^"]+)"', json.dumps(one["genes"]))}
        ]


def told(one: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in one.items() if key != "ensembl"}


class Handler(BaseHTTPRequestHandler):
    server: FakeUniProt

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Print no log."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = {key: values[0] for key, values in parse_qs(body).items()}
        if self.begun():
            return
        self.server.forms.append(form)
        if not self.path.endswith("/idmapping/run") or form["from"] not in ("Gene_Name", "Ensembl"):
            self.answer({"messages": ["invalid request"]}, status=400)
            return
        job = hashlib.sha1(body.encode()).hexdigest()
        self.server.jobs[job] = form
        self.answer({"jobId": job})

    def do_GET(self) -> None:
        if self.begun():
            return
        parts = urlsplit(self.path)
        path, query = parts.path.removeprefix(self.server.base), parse_qs(parts.query)
        if path.startswith("/idmapping/status/"):
            self.status(path.rpartition("/")[2])
        elif path.startswith("/idmapping/uniprotkb/results/"):
            form = self.server.jobs[path.rpartition("/")[2]]
            found = self.server.mapped(form)
            failed = sorted(set(form["ids"].split(",")) - {one["from"] for one in found})
            self.page(found, query, {"failedIds": failed} if failed else {})
        elif path == "/uniprotkb/search":
            self.page(self.server.searched(query["query"][0]), query, {})
        else:
            self.answer({"messages": ["Resource not found"]}, status=404)

    def begun(self) -> bool:
        """Record the request, and simulate the next failure of its path."""
        self.server.log.append((self.command, self.path))
        self.server.headers.append(self.headers)
        for part, troubles in self.server.troubles.items():
            if part in self.path and troubles:
                return self.trouble(troubles.pop(0))
        return False

    def trouble(self, kind: Any) -> bool:
        if isinstance(kind, dict):
            self.answer(kind.get("data"), status=kind["status"], headers=kind.get("headers", {}))
        elif kind == "html":
            self.answer(b"<html>Bad gateway</html>", status=502)
        elif kind == "page of words":
            self.answer(b"<html>Please log in to this network</html>")
        elif kind == "drop":
            self.connection.shutdown(socket.SHUT_RDWR)
        elif kind == "hang":
            self.server.done.wait(5)
        else:  # one of "truncate", "short" and "rows"
            self.damage = kind
            return False
        return True

    def status(self, job: str) -> None:
        server = self.server
        server.polls[job] = server.polls.get(job, 0) + 1
        if server.polls[job] <= server.n_polls:
            self.answer({"jobStatus": "NEW" if server.polls[job] == 1 else "RUNNING"})
        else:  # like UniProt's, the address is the public one, even on a mirror
            place = f"https://rest.uniprot.org/idmapping/uniprotkb/results/{job}"
            self.answer({"jobStatus": "FINISHED"}, status=303, headers={"Location": place})

    def page(self, rows: list[Any], query: dict[str, list[str]], more: dict[str, Any]) -> None:
        assert query["fields"] == ["accession,id,gene_names,organism_id,sequence"]
        assert query["format"] == ["json"]
        size, start = int(query["size"][0]), int(query.get("cursor", ["0"])[0])
        headers = {"X-Total-Results": str(len(rows)), "X-UniProt-Release": "2025_01"}
        if start + size < len(rows):
            path = self.path.partition("&cursor=")[0]
            headers["Link"] = f'<https://rest.uniprot.org{path}&cursor={start + size}>; rel="next"'
        shown = rows[start : start + size]
        if getattr(self, "damage", "") == "rows":
            shown = shown[:-1]
        self.answer({"results": shown, **more}, headers=headers)

    def answer(self, data: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = data if isinstance(data, bytes) else json.dumps(data).encode() if data is not None else b""
        damage = getattr(self, "damage", "")
        headers = dict(headers or {})
        if "gzip" in self.headers.get("Accept-Encoding", "") and status == 200:
            body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
        self.send_response(status)
        if damage != "short":  # otherwise the end of the connection marks the end of the answer
            headers["Content-Length"] = str(len(body))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if damage in ("truncate", "short") else body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeUniProt]:
    """A server like UniProt's for one test; its pages have 2 entries, its jobs 3 names."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(uniprot, "_PAGE", 2)
    monkeypatch.setattr(uniprot, "_JOB", 3)
    made = FakeUniProt()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield made
    made.done.set()
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waiting times in seconds; nothing actually waits."""
    seconds: list[float] = []
    monkeypatch.setattr(Service, "wait", lambda self, one: seconds.append(one))
    return seconds


@pytest.fixture
def client(server: FakeUniProt, waits: list[float], tmp_path: Path) -> UniProt:
    service = Service(url=server.url, name="UniProt", fix="Do this.", timeout=5, attempts=4)
    return UniProt(service=service, cache=tmp_path / "cache")


def accessions(found: dict[str, Any]) -> dict[str, list[str]]:
    return {key: [one.accession for one in proteins] for key, proteins in found.items()}


def files(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.rglob("*") if one.is_file())


# The client


def test_names_are_mapped_in_batches_page_by_page(
    client: UniProt, server: FakeUniProt, waits: list[float]
) -> None:
    steps: list[tuple[str, int, int]] = []
    names = ["Gad1", "Sst", "None", "Vip", "H3-3b"]
    answers = client.ask(ALL, names, progress=lambda *one: steps.append(one))
    assert accessions(answers.found) == {
        "Gad1": ["P48318", "A2AQ51", "A2AQ52"],
        "Sst": ["P60041"],
        "None": [],
        "Vip": ["A0A001", "A0A002"],
        "H3-3b": ["P84243"],
    }
    assert answers.releases == {"2025_01"}
    assert answers.found["H3-3b"][0].names == ("H3-3a", "H3-3b")
    assert [form["ids"] for form in server.forms] == ["Gad1,Sst,None", "Vip,H3-3b"]
    assert all(
        (form["from"], form["to"], form["taxId"]) == ("Gene_Name", "UniProtKB", "10090")
        for form in server.forms
    )
    assert len(server.asked("/results/")) == 4  # 4 and 3 entries, 2 per page
    assert waits == [1.0, 1.0]  # each job was checked twice
    assert {label for label, _, _ in steps} == {"asking UniProt (names, all)"}
    done = [number for _, number, _ in steps]
    assert done == sorted(done)
    assert (done[0], steps[-1]) == (0, ("asking UniProt (names, all)", 5, 5))
    assert server.headers[0]["User-Agent"].startswith("cellweft/")


def test_one_section_of_uniprot_and_other_kinds_of_keys(client: UniProt, server: FakeUniProt) -> None:
    assert accessions(client.ask(REVIEWED, ["Gad1", "Vip"]).found) == {"Gad1": ["P48318"], "Vip": []}
    question = Question(source="Ensembl", part="UniProtKB", taxon=0)
    found = client.ask(question, ["ENSMUSG00000070880", "ENSG00000136750"]).found
    assert accessions(found) == {"ENSMUSG00000070880": ["P48318"], "ENSG00000136750": ["P99999"]}
    assert found["ENSG00000136750"][0].taxon == HUMAN
    assert "taxId" not in server.forms[-1]
    found = client.ask(SEARCH, ["MT-ND1", "Foo", "kiaa0001", "MM_1", "None"]).found
    assert accessions(found) == {
        "MT-ND1": ["P03888"],
        "Foo": ["P00001", "P00002"],
        "kiaa0001": ["Q00002"],
        "MM_1": ["Q00002"],
        "None": [],
    }


def test_a_version_or_another_case_in_the_answer_is_accepted(client: UniProt, server: FakeUniProt) -> None:
    server.mapped = lambda form: [  # type: ignore[method-assign]
        {"from": "GAD1", "to": told(ENTRIES[0])},
        {"from": "ENSMUSG00000004366.5", "to": told(ENTRIES[3])},
    ]
    found = client.ask(ALL, ["Gad1", "ENSMUSG00000004366"]).found
    assert accessions(found) == {"Gad1": ["P48318"], "ENSMUSG00000004366": ["P60041"]}


def test_a_service_below_a_path(server: FakeUniProt, tmp_path: Path, waits: list[float]) -> None:
    server.base = "/mirror/uniprot"
    service = Service(url=f"{server.url}/mirror/uniprot", name="UniProt", fix="Do this.")
    found = UniProt(service=service, cache=tmp_path).ask(ALL, ["Gad1"]).found
    assert accessions(found) == {"Gad1": ["P48318", "A2AQ51", "A2AQ52"]}


def test_waiting_times_for_long_jobs_increase(
    client: UniProt, server: FakeUniProt, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.n_polls = 10
    client.ask(ALL, ["Gad1"])
    assert len(waits) == 10
    assert waits[:3] == [1.0, 1.5, 2.25]
    assert max(waits) == 20.0
    server.n_polls = 10_000
    with pytest.raises(ServiceError, match=r"a job that does not finish \(30 min\)\. Do this\."):
        client.ask(ALL, ["Sst"])


FAILED = {"status": 500, "data": {"jobStatus": "ERROR"}}
LIMIT = {"status": 400, "data": {"errors": [{"code": 40, "message": "Id Mapping API is limited"}]}}


def test_a_job_that_failed_is_submitted_again(client: UniProt, server: FakeUniProt) -> None:
    server.troubles["/status/"] = [FAILED, FAILED]
    assert accessions(client.ask(ALL, ["Sst"]).found) == {"Sst": ["P60041"]}
    assert len(server.asked("/idmapping/run")) == 3
    server.troubles["/status/"] = [FAILED] * 3
    with pytest.raises(ServiceError, match=r"expected a response, got a job that failed 3 times\. Do this\."):
        client.ask(ALL, ["Vip"])
    server.troubles["/status/"] = [LIMIT]
    with pytest.raises(ServiceError, match=r"a job that failed \(Id Mapping API is limited\)"):
        client.ask(ALL, ["Vip"])


def test_a_job_may_be_unknown_for_a_moment(client: UniProt, server: FakeUniProt) -> None:
    server.troubles["/status/"] = [{"status": 400, "data": None}, {"status": 404, "data": None}]
    assert accessions(client.ask(ALL, ["Sst"]).found) == {"Sst": ["P60041"]}


def test_a_job_state_without_a_name_means_finished(client: UniProt, server: FakeUniProt) -> None:
    server.troubles["/status/"] = [{"status": 200, "data": {"results": [], "failedIds": ["None"]}}]
    assert client.ask(ALL, ["None"]).found == {"None": []}


# Failures of the service

BUSY = {"status": 429, "headers": {"Retry-After": "7"}}
DOWN = {"status": 503, "data": {"messages": ["Service unavailable"]}}
each_place = pytest.mark.parametrize("place", ["/idmapping/run", "/idmapping/status/", "/results/", "search"])


@each_place
@pytest.mark.parametrize(
    "kind",
    [BUSY, DOWN, {"status": 500}, "html", "page of words", "drop", "hang", "truncate", "short"],
    ids=str,
)
def test_temporary_failures_are_retried(
    client: UniProt, server: FakeUniProt, waits: list[float], place: str, kind: Any
) -> None:
    question = SEARCH if place == "search" else ALL
    if kind == "hang":
        client = dataclasses.replace(client, service=dataclasses.replace(client.service, timeout=0.3))
    server.n_polls = 0
    server.troubles[place] = [kind]
    assert accessions(client.ask(question, ["Gad1"]).found) == {"Gad1": ["P48318", "A2AQ51", "A2AQ52"]}
    # If the state of a job breaks off, "see other" is enough.
    enough = (place, kind) == ("/idmapping/status/", "short")
    assert waits[:1] == ([] if enough else [7.0 if kind is BUSY else 1.0])
    assert len(waits) < 2 or kind == "hang"  # a busy machine may answer late twice


@pytest.mark.parametrize("question", [ALL, SEARCH], ids=["job", "search"])
def test_a_page_with_too_few_entries_is_requested_again(
    client: UniProt, server: FakeUniProt, question: Question
) -> None:
    part = "search" if question is SEARCH else "/results/"
    server.troubles[part] = ["rows"]
    server.troubles["cursor="] = ["rows"]
    assert accessions(client.ask(question, ["Gad1"]).found) == {"Gad1": ["P48318", "A2AQ51", "A2AQ52"]}
    assert len(server.asked(part)) == 4
    server.troubles[part] = ["rows"] * 4
    with pytest.raises(ServiceError, match=r"got an incomplete response \(4 attempts\)"):
        client.ask(question, ["Vip"])


def test_waiting_times_increase_and_retries_end(
    client: UniProt, server: FakeUniProt, waits: list[float]
) -> None:
    server.troubles["/run"] = [DOWN] * 4
    message = (
        r"^UniProt \(http://127\.0\.0\.1:\d+/idmapping/run\): expected a response, "
        r"got HTTP 503 \(Service unavailable\) \(4 attempts\)\. Do this\.$"
    )
    with pytest.raises(ServiceError, match=message):
        client.ask(ALL, ["Gad1"])
    assert waits == [1.0, 2.0, 4.0]


def test_a_network_with_a_login_page(client: UniProt, server: FakeUniProt) -> None:
    server.troubles["/run"] = ["page of words"] * 4
    with pytest.raises(ServiceError, match=r"a web page instead of data \(does the network require a login"):
        client.ask(ALL, ["Gad1"])


def test_a_date_to_wait_for(client: UniProt, server: FakeUniProt, waits: list[float]) -> None:
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    server.troubles["/run"] = [
        {"status": 503, "headers": {"Retry-After": until}},
        {"status": 503, "headers": {"Retry-After": "soon"}},
    ]
    server.n_polls = 0
    client.ask(ALL, ["Gad1"])
    assert 85 < waits[0] <= 90
    assert waits[1:] == [2.0]


def test_a_wait_of_hours_is_refused(client: UniProt, server: FakeUniProt, waits: list[float]) -> None:
    server.troubles["/run"] = [{"status": 429, "headers": {"Retry-After": "7200"}}]
    with pytest.raises(ServiceError, match=r"got HTTP 429 and the request to wait 7,200 s\. Do this"):
        client.ask(ALL, ["Gad1"])
    assert waits == []


def test_permanent_failures_are_not_retried(client: UniProt, server: FakeUniProt, waits: list[float]) -> None:
    server.troubles["/run"] = [{"status": 400, "data": {"messages": ["'taxId' is invalid"]}}]
    with pytest.raises(ServiceError, match=r"got HTTP 400 \('taxId' is invalid\)\. Do this"):
        client.ask(ALL, ["Gad1"])
    server.troubles["/run"] = [{"status": 200, "data": {"message": "no jobs today"}}]
    with pytest.raises(ServiceError, match=r"got no job ID \(no jobs today\)"):
        client.ask(ALL, ["Gad1"])
    server.troubles["/results/"] = [{"status": 200, "data": {"results": [{"from": "Gad1", "to": "P48318"}]}}]
    with pytest.raises(ServiceError, match=r"entries in another format \(AttributeError"):
        client.ask(ALL, ["Gad1"])
    assert waits == [1.0]  # for the job


def test_no_network(tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    service = Service(url="http://nowhere.invalid", name="UniProt", fix="Do this.")
    with pytest.raises(ServiceError, match=r"the host name cannot be resolved \(2 attempts\)\. Do this"):
        UniProt(service=service, cache=tmp_path).ask(ALL, ["Gad1"])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        service = Service(
            url=f"http://127.0.0.1:{taken.getsockname()[1]}", name="UniProt", fix="Do this.", attempts=3
        )
        with pytest.raises(ConnectionError, match=r"no connection \(.*refused\) \(3 attempts\)\. Do this"):
            service.get("/")


@pytest.mark.parametrize("url", ["file:///etc", "rest.uniprot.org", "ftp://uniprot.org"])
def test_an_address_of_another_kind(url: str) -> None:
    with pytest.raises(SettingError, match="expected an address with http or https"):
        Service(url=url, name="UniProt", fix="Do this.")


# The cache


def test_no_question_is_sent_twice(client: UniProt, server: FakeUniProt, tmp_path: Path) -> None:
    first = client.ask(ALL, ["Gad1", "None", "Vip", "Sst"])
    n_requests = len(server.log)
    again = client.ask(ALL, ["Sst", "Vip", "None", "Gad1"])
    assert again == first
    assert len(server.log) == n_requests
    more = client.ask(ALL, ["Gad1", "Foo1", "Sst"])
    assert accessions(more.found)["Foo1"] == ["P00001"]
    assert server.forms[-1]["ids"] == "Foo1"
    assert files(tmp_path) == [name for name in files(tmp_path) if re.fullmatch(r"\w{20}\.json\.gz", name)]
    assert {one.parent.name for one in tmp_path.rglob("*.gz")} == {"Gene_Name-UniProtKB-10090"}


def test_another_question_has_its_own_cached_answers(client: UniProt, server: FakeUniProt) -> None:
    client.ask(ALL, ["Gad1"])
    human = Question(source="Gene_Name", part="UniProtKB", taxon=HUMAN)
    assert accessions(client.ask(human, ["Gad1", "GAD2"]).found) == {"Gad1": [], "GAD2": ["P99999"]}


@pytest.mark.parametrize("question", [ALL, SEARCH], ids=["job", "search"])
def test_an_interrupted_run_continues_where_it_stopped(
    client: UniProt, server: FakeUniProt, monkeypatch: pytest.MonkeyPatch, question: Question
) -> None:
    monkeypatch.setattr(uniprot, "_SEARCH", 3)
    names = ["Gad1", "Sst", "Vip", "H3-3a", "Foo1", "Foo2", "Mtnd1"]
    whole = UniProt(service=client.service, cache=client.cache / "whole").ask(question, names)
    needed = server.asked("fields=")
    assert len(needed) == 6  # 6, 3 and 1 entries
    server.log.clear()
    server.troubles["cursor=4"] = ["drop"] * 4  # the last page of the first batch
    with pytest.raises(ServiceError, match="no connection"):
        client.ask(question, names)
    assert len(files(client.cache)) - len(files(client.cache / "whole")) == 2  # pages
    server.troubles["cursor=2"] = [{"status": 500}] * 4  # a page of the second batch
    with pytest.raises(ServiceError, match="HTTP 500"):
        client.ask(question, names)

    def stop(stage: str, done: int, total: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.ask(question, names, progress=stop)
    assert client.ask(question, names) == whole
    answered = server.asked("fields=")
    # Successful requests were sent once; requests that failed four times were sent five times.
    failed = [path for path in needed if answered.count(path) > 1]
    assert sorted(set(answered)) == sorted(set(needed))
    assert [answered.count(path) for path in failed] == [5, 5]
    assert not list(client.cache.rglob("*.pages"))


def test_a_damaged_file_is_requested_again(
    client: UniProt, server: FakeUniProt, caplog: pytest.LogCaptureFixture
) -> None:
    first = client.ask(ALL, ["Gad1", "Sst"])
    (file,) = client.cache.rglob("*.json.gz")
    for content in (file.read_bytes()[:50], gzip.compress(b"[]"), gzip.compress(b'{"format": 0}')):
        file.write_bytes(content)
        n_requests = len(server.log)
        assert client.ask(ALL, ["Gad1", "Sst"]) == first
        assert len(server.log) > n_requests
    assert "is damaged or of another version, and is requested again" in caplog.text


def test_offline_the_cache_answers(client: UniProt, server: FakeUniProt) -> None:
    first = client.ask(ALL, ["Gad1", "None"])
    server.log.clear()
    offline = UniProt(service=client.service, cache=client.cache, offline=True)
    assert offline.ask(ALL, ["Gad1", "None", "Sst"]) == first
    assert server.log == []


def test_a_cache_that_cannot_be_written(client: UniProt) -> None:
    client.cache.write_text("a file")
    with pytest.raises(OutputError, match="cache"):
        client.ask(ALL, ["Gad1"])


# From genes to proteins


@pytest.fixture
def find(server: FakeUniProt, waits: list[float], tmp_path: Path) -> Callable[..., Any]:
    def run(*genes: str, **others: Any) -> Any:
        others = {"organism": "mouse", "url": server.url, "cache": tmp_path / "cache"} | others
        return find_proteins(list(genes), **others)

    return run


def test_every_gene_has_its_row(find: Any) -> None:
    names = ["Gad1", "SST", "Vip", "Gad67", "mt-Nd1", "Foo", "Gone", "H3-3b", "Malat1", "Nd1"]
    found = find(*names)
    table = found.table.set_index("gene")
    assert list(table.index) == names
    columns = ["accession", "matched", "gene_name", "candidates", "reason"]
    assert table[columns].apply(tuple, axis=1).to_dict() == {
        "Gad1": ("P48318", "exact", "Gad1", 1, "the only one"),
        "SST": ("P60041", "case", "Sst", 1, "the only one"),
        "Vip": ("A0A002", "exact", "Vip", 2, "the longest of 2"),
        "Gad67": ("P48318", "synonym", "Gad1", 1, "the only one"),
        "mt-Nd1": ("P03888", "synonym", "Mtnd1", 1, "the only one"),
        "Foo": ("", "", "", 2, "a synonym of several genes ('Foo1', 'Foo2')"),
        "Gone": ("", "", "", 0, "its entries were deleted"),
        "H3-3b": ("P84243", "exact", "H3-3b", 1, "the only one"),
        "Malat1": ("", "", "", 0, "no protein with this name"),
        "Nd1": ("P03888", "synonym", "Mtnd1", 1, "the only one"),
    }
    assert list(table["length"]) == [20, 12, 18, 20, 30, 0, 0, 14, 0, 30]
    assert list(table["sequence"].str.len()) == list(table["length"])
    assert found.source == "UniProt 2025_01"
    assert found.missing == ["Foo", "Gone", "Malat1"]
    assert found.counts == {
        "genes": 10,
        "found": 7,
        "missing": 3,
        "reviewed": 6,
        "exact": 3,
        "case": 1,
        "ensembl": 0,
        "synonym": 3,
    }
    assert found.cautions == [
        "1 gene without a protein, a synonym of several genes: 'Foo'.",
        "1 gene without a protein, its entries were deleted: 'Gone'.",
        "1 gene without a protein, no protein with this name: 'Malat1'.",
        "3 genes found by a synonym, such as 'Gad67', which the database calls 'Gad1'.",
        "4 genes share a protein: 'Gad1', 'Gad67', 'mt-Nd1', 'Nd1'.",
    ]


def test_only_missing_genes_are_requested_in_the_next_step(find: Any, server: FakeUniProt) -> None:
    find("Gad1", "Vip", "Sst", "Malat1")
    asked = [(form["to"], form["ids"]) for form in server.forms]
    assert asked == [
        ("UniProtKB-Swiss-Prot", "Gad1,Vip,Sst"),
        ("UniProtKB-Swiss-Prot", "Malat1"),
        ("UniProtKB", "Vip,Malat1"),
    ]
    (search,) = server.asked("search")
    assert "Malat1" in search
    assert "Gad1" not in search


def test_ensembl_ids(find: Any, server: FakeUniProt) -> None:
    names = ["ENSMUSG00000070880.11", "ENSG00000136750", "ENSMUSG00000000001"]
    found = find(*names)
    table = found.table.set_index("gene")
    assert list(table["accession"]) == ["P48318", "", ""]
    assert list(table["matched"]) == ["Ensembl", "", ""]
    assert list(table["reason"]) == [
        "the only one",
        "its proteins are from human (taxon 9606)",
        "no protein with this Ensembl ID",
    ]
    assert {form["from"] for form in server.forms} == {"Ensembl"}
    assert [one.name for one in found.records()] == ["ENSMUSG00000070880.11"]


def test_symbols_of_a_dataset_are_completed_by_its_ids(
    server: FakeUniProt, waits: Any, tmp_path: Path, tissue: Any
) -> None:
    data = tissue.st[:3, :4].copy()
    data.var_names = ["Old", "Sst", "Mystery", "ENSMUSG00000004366"]
    data.var["gene_ids"] = ["ENSMUSG00000070880.2", "ENSMUSG00000004366", "ENSMUSG00000000001", "x"]
    before = data.copy()
    found = find_proteins(data, organism="mouse", url=server.url, cache=tmp_path)
    assert list(found.table["accession"]) == ["P48318", "P60041", "", "P60041"]
    assert list(found.table["matched"]) == ["Ensembl", "exact", "", "Ensembl"]
    pd.testing.assert_frame_equal(data.var, before.var)


def test_genes_of_ids_with_symbols(server: FakeUniProt, waits: Any, tmp_path: Path, tissue: Any) -> None:
    data = tissue.st[:3, :3].copy()
    data.var_names = ["ENSMUSG00000070880", "ENSMUSG00000000002", "ENSMUSG00000000003"]
    data.var["gene_symbol"] = ["Vip", "sst", float("nan")]
    found = find_proteins(data, organism="mouse", url=server.url, cache=tmp_path)
    assert list(found.table["accession"]) == ["P48318", "P60041", ""]
    assert list(found.table["matched"]) == ["Ensembl", "case", ""]


def test_names_that_cannot_be_requested(find: Any, server: FakeUniProt, tissue: Any, tmp_path: Path) -> None:
    data = tissue.st[:3, :3].copy()
    data.var_names = ["Gad1", "MT ND1", "a;b"]
    found = find_proteins(data, organism="mouse", url=server.url, cache=tmp_path)
    assert found.missing == ["MT ND1", "a;b"]
    assert set(found.table["reason"][1:]) == {
        "its name contains a space, or a character that UniProt does not accept"
    }
    assert {form["ids"] for form in server.forms} == {"Gad1"}


def test_other_genes_and_their_order_do_not_matter(find: Any, tmp_path: Path) -> None:
    names = ["Gad1", "SST", "Vip", "Gad67", "Malat1"]
    alone = pd.concat(
        [find("Sst", name, cache=tmp_path / name).table.query("gene == @name") for name in names],
        ignore_index=True,
    )
    together = find(*names).table
    pd.testing.assert_frame_equal(alone, together)
    turned = find(*names[::-1], cache=tmp_path / "turned").table[::-1].reset_index(drop=True)
    pd.testing.assert_frame_equal(turned, together)


def test_offline(find: Any, server: FakeUniProt, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"cache .*got none\. To work without a network.*proteome="):
        find("Gad1", "Sst", offline=True)
    online = find("Gad1", "Vip", "Malat1").table
    server.log.clear()
    found = find("Gad1", "Vip", "Malat1", "Sst", offline=True)
    assert server.log == []
    pd.testing.assert_frame_equal(found.table[:3], online)
    assert found.table["reason"][3] == "not in the cache, and not requested because of offline mode"
    assert found.source == "UniProt 2025_01"


def test_without_a_network_the_error_advises_to_pass_a_file(
    find: Any, server: FakeUniProt, tmp_path: Path
) -> None:
    find("Gad1")
    server.troubles["/run"] = ["drop"] * 6
    words = (
        rf"no connection .*\(6 attempts\)\. The responses received so far are kept in {tmp_path / 'cache'}\. "
        r"Run again to continue\. To work without a network, .*query=organism_id:10090 .*proteome=FILE"
    )
    with pytest.raises(ServiceError, match=words):
        find("Gad1", "Sst")
    assert find("Gad1", "Sst").found == ["Gad1", "Sst"]


# The command


@pytest.fixture
def call(server: FakeUniProt, waits: Any, tmp_path: Path, monkeypatch: Any) -> Callable[..., Any]:
    """Function that runs `cellweft proteins` in an empty folder, with its cache in a temporary folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))

    def run(*arguments: Any) -> Any:
        asked = ["proteins", "--organism", "mouse", "--url", server.url, *map(str, arguments)]
        return CliRunner().invoke(app, asked)

    return run


def test_the_command_asks_uniprot(call: Any, tmp_path: Path) -> None:
    result = call("--genes", "Gad1,Vip,Malat1", "-o", "proteins.fa")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "Plan: one protein for every gene of Gad1,Vip,Malat1, from UniProt, over the network"
    assert lines[1] == "  - 1 gene without a protein, no protein with this name: 'Malat1'."
    assert lines[2].startswith(
        "Found proteins for 2 of 3 genes in UniProt 2025_01 (1 reviewed, 2 by name) -> "
    )
    assert "-> proteins.fa, proteins.tsv (" in lines[2]
    assert [one.name for one in read_fasta("proteins.fa")] == ["Gad1", "Vip"]
    assert files(tmp_path / "here") == ["proteins.fa", "proteins.tsv"]
    assert list((tmp_path / "caches" / "cellweft" / "uniprot").iterdir())


def test_the_command_continues_after_a_failure(call: Any, server: FakeUniProt, tmp_path: Path) -> None:
    server.troubles["cursor=2"] = [{"status": 500}] * 6
    asked = ("--genes", "Gad1,Vip,Sst", "-o", "proteins.fa", "--cache", tmp_path / "cache")
    server.entries = [one for one in server.entries if one["primaryAccession"] != "P48318"]
    result = call(*asked, "--json")
    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert (error["kind"], error["got"]) == ("ServiceError", "HTTP 500 (6 attempts)")
    assert "Run again to continue" in error["fix"]
    assert files(tmp_path / "here") == []
    offline = call(*asked, "--offline")
    assert offline.exit_code == 0  # Sst was already answered
    server.log.clear()
    result = call(*asked, "--json", "--overwrite")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["found"] == 3
    assert [path for path in server.asked("/results/") if "cursor" not in path] == []
