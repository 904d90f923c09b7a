"""UniProt's REST service: finds the proteins of genes in batches, and stores each answer on disk."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import logging
import re
import shutil
import urllib.parse
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from cellweft._typing import Progress, no_progress
from cellweft.data.io.atomic_output import output_errors, partial_output
from cellweft.genes.proteins.http_client import PASSING, Answer, Service, words_of
from cellweft.genes.proteins.proteome import Protein

logger = logging.getLogger("cellweft")

URL = "https://rest.uniprot.org"
"""Address of the service."""

Source: TypeAlias = Literal["Gene_Name", "Ensembl", "search"]
Part: TypeAlias = Literal["UniProtKB-Swiss-Prot", "UniProtKB"]

_FIELDS = "accession,id,gene_names,organism_id,sequence"
_PAGE = 500  # entries; the most that the service returns at once
_JOB = 1000  # names per ID mapping job; the service accepts up to 100,000
_SEARCH = 80  # names per search; the service accepts up to 100
_JOB_ATTEMPTS = 3
_LONGEST_JOB = 1800.0  # seconds
_POLL = 1.0  # seconds until a job is checked again; increases by half each time, up to
_LONGEST_POLL = 20.0
_FORMAT = 1  # version of the files in the cache
_NEXT = re.compile(r'<([^>]+)>\s*;\s*rel="?next"?')
_LABELS = {"Gene_Name": "names", "Ensembl": "Ensembl IDs", "search": "synonyms"}


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question to UniProt for many keys at once.

    Attributes
    ----------
    source
        Kind of the keys: gene names, or Ensembl IDs without version, through ID mapping; or names to search
        among all gene names, including synonyms.
    part
        Where to search: only in the reviewed part, or everywhere.
    taxon
        The organism; 0 for Ensembl IDs, which imply one.
    """

    source: Source
    part: Part
    taxon: int

    @property
    def label(self) -> str:
        """Name of the question in progress reports."""
        where = "reviewed" if self.part == "UniProtKB-Swiss-Prot" else "all"
        return f"asking UniProt ({_LABELS[self.source]}, {where})"


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers of UniProt.

    Attributes
    ----------
    found
        The proteins of each key, possibly none; keys without an answer are missing.
    releases
        The releases of UniProt in the answers.
    """

    found: dict[str, list[Protein]]
    releases: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class UniProt:
    """UniProt's REST service with a cache.

    Parameters
    ----------
    service
        The service itself.
    cache
        Folder for answers; created with the first one.
    offline
        Whether to use only the cache.

    Notes
    -----
    For ID mapping, a job is submitted and checked until it is finished, and its results are read page by
    page. The service gives identical jobs the same number, and keeps them for a week. Each page, and each
    complete batch of keys, is stored immediately, so that an interrupted run resumes at the page where it
    stopped. See https://www.uniprot.org/help/id_mapping_prog and https://www.uniprot.org/help/pagination.
    """

    service: Service
    cache: Path
    offline: bool = False

    def ask(self, question: Question, keys: Sequence[str], *, progress: Progress = no_progress) -> Answers:
        """Return the proteins of each answered key.

        Parameters
        ----------
        question
            The question.
        keys
            Unique keys.
        progress
            Called with the number of keys answered so far.

        Returns
        -------
        Answers
            Answers for all keys; offline, for those in the cache.

        Raises
        ------
        ServiceError
            The service did not answer; earlier answers are stored.
        OutputError
            The cache cannot be written.
        """
        if not keys:
            return Answers(found={}, releases=frozenset())
        host = urllib.parse.quote(self.service.url.partition("://")[2], safe=".")
        folder = self.cache / host / f"{question.source}-{question.part}-{question.taxon}"
        wanted, proteins_by_key, releases = set(keys), dict[str, list[Protein]](), set[str]()
        for stored in _read_batches(folder):
            those = {key: proteins for key, proteins in stored.found.items() if key in wanted}
            proteins_by_key |= those
            releases |= stored.releases if those else set()

        def report(done: int) -> None:
            progress(question.label, len(proteins_by_key) + done, len(keys))

        left = [] if self.offline else [key for key in keys if key not in proteins_by_key]
        size = _SEARCH if question.source == "search" else _JOB
        for start in range(0, len(left), size):
            batch = left[start : start + size]
            answered = self._batch(question, batch, folder=folder, report=report)
            proteins_by_key |= answered.found
            releases |= answered.releases
        progress(question.label, len(keys), len(keys))
        return Answers(found=proteins_by_key, releases=frozenset(releases))

    def _batch(
        self, question: Question, keys: Sequence[str], *, folder: Path, report: Callable[[int], None]
    ) -> Answers:
        """Request some keys, and store the answer."""
        name = hashlib.sha256(",".join(keys).encode()).hexdigest()[:20]
        pages = folder / f"{name}.pages"
        report(0)
        path = _search_path(question, keys) if question.source == "search" else self._job(question, keys)
        rows, release = list[dict[str, Any]](), ""
        for page in self._pages(path, pages):
            rows += page["rows"]
            release = page["release"]
            report(int(len(rows) / max(1, page["total"]) * len(keys)))
        proteins_by_key = _by_key(question, keys, rows)
        plain = {key: [dataclasses.asdict(protein) for protein in proteins_by_key[key]] for key in keys}
        _write(folder / f"{name}.json.gz", {"format": _FORMAT, "release": release, "found": plain})
        shutil.rmtree(pages, ignore_errors=True)
        return Answers(found=proteins_by_key, releases=frozenset({release} - {""}))

    def _job(self, question: Question, keys: Sequence[str]) -> str:
        """Run an ID mapping job, and return the path of its results."""
        form = {"from": question.source, "to": question.part, "ids": ",".join(keys)}
        if question.source == "Gene_Name":
            form["taxId"] = str(question.taxon)
        for _ in range(_JOB_ATTEMPTS):
            submitted = self.service.post("/idmapping/run", form).data
            if not isinstance(submitted, dict) or "jobId" not in submitted:
                raise self.service.refused("/idmapping/run", f"no job ID{words_of(submitted)}")
            job = urllib.parse.quote(str(submitted["jobId"]), safe="")
            if self._is_finished(job):
                query = urllib.parse.urlencode({"fields": _FIELDS, "format": "json", "size": _PAGE})
                return f"/idmapping/uniprotkb/results/{job}?{query}"
        raise self.service.refused("/idmapping/status", f"a job that failed {_JOB_ATTEMPTS} times")

    def _is_finished(self, job: str) -> bool:
        """Wait for a job, and return whether it succeeded."""
        path, waited, pause = f"/idmapping/status/{job}", 0.0, _POLL
        while waited < _LONGEST_JOB:
            # A new job may be unknown for a moment, so 400 and 404 are ignored.
            answer = self.service.get(path, good=_is_status, passing=PASSING | {400, 404})
            state = answer.data.get("jobStatus", "") if isinstance(answer.data, dict) else ""
            if state == "ERROR":
                return False
            if answer.status >= 400:
                raise self.service.refused(path, f"a job that failed{words_of(answer.data)}")
            if state not in ("NEW", "RUNNING"):  # "see other", that is, the results
                return True
            self.service.wait(pause)
            waited, pause = waited + pause, min(1.5 * pause, _LONGEST_POLL)
        raise self.service.refused(path, f"a job that does not finish ({waited / 60:,.0f} min)")

    def _pages(self, path: str, folder: Path) -> Iterator[dict[str, Any]]:
        """Yield the pages of a result; stored pages are read from disk."""
        number = seen = 0
        while path:
            file = folder / f"{number:05}.json.gz"
            page = _read(file)
            if page is None or page.get("path") != path:
                page = self._page(path, seen)
                _write(file, page)
            yield page
            number, seen, path = number + 1, seen + len(page["rows"]), page["next"]

    def _page(self, path: str, seen: int) -> dict[str, Any]:
        """Request a page of a result, after ``seen`` entries."""
        answer = self.service.get(path, good=lambda reply: _is_whole(reply, seen))
        link = _NEXT.search(answer.headers.get("Link", ""))
        following = urllib.parse.urlsplit(link[1])._replace(scheme="", netloc="").geturl() if link else ""
        try:
            rows = [_row(entry) for entry in answer.data["results"]]
        except (KeyError, TypeError, AttributeError) as error:
            raise self.service.refused(path, f"entries in another format ({error!r})") from error
        return {
            "path": path,
            "rows": rows,
            "next": following.removeprefix(urllib.parse.urlsplit(self.service.url).path),
            "total": _total(answer) or len(rows),
            "release": answer.headers.get("X-UniProt-Release", ""),
        }


def protein_of(entry: dict[str, Any]) -> Protein:
    """Return the protein of a UniProtKB entry, from its JSON.

    Examples
    --------
    >>> protein = protein_of({
    ...     "entryType": "UniProtKB reviewed (Swiss-Prot)", "primaryAccession": "P48318",
    ...     "uniProtkbId": "DCE1_MOUSE", "organism": {"taxonId": 10090}, "sequence": {"value": "MASS"},
    ...     "genes": [{"geneName": {"value": "Gad1"}, "synonyms": [{"value": "Gad67"}]}],
    ... })
    >>> protein.reviewed, protein.names, protein.synonyms
    (True, ('Gad1',), ('Gad67',))
    """
    genes, accession = entry.get("genes", []), entry["primaryAccession"]
    kinds = ("synonyms", "orderedLocusNames", "orfNames")
    return Protein(
        accession=accession,
        entry_name=entry.get("uniProtkbId", ""),
        names=tuple(gene["geneName"]["value"] for gene in genes if "geneName" in gene),
        synonyms=tuple(
            synonym["value"] for gene in genes for kind in kinds for synonym in gene.get(kind, [])
        ),
        reviewed="unreviewed" not in entry["entryType"] and "reviewed" in entry["entryType"],
        canonical="-" not in accession,
        taxon=int(entry.get("organism", {}).get("taxonId", 0)),
        sequence=entry.get("sequence", {}).get("value", ""),
    )


def is_askable(name: str) -> bool:
    """Return whether a name can be sent to the service: no blank, comma, semicolon, quote or wildcard."""
    return re.fullmatch(r'[^\s,;"*?\\]+', name) is not None


def _search_path(question: Question, keys: Sequence[str]) -> str:
    names = " OR ".join(f'gene_exact:"{key}"' for key in keys)
    query = f"({names}) AND (organism_id:{question.taxon})"
    form = {"query": query, "fields": _FIELDS, "format": "json", "size": _PAGE}
    return f"/uniprotkb/search?{urllib.parse.urlencode(form)}"


def _is_status(answer: Answer) -> bool:
    data = answer.data if isinstance(answer.data, dict) else {}
    return answer.is_good or answer.status == 303 or "jobStatus" in data or "errors" in data


def _is_whole(answer: Answer, seen: int) -> bool:
    """Return whether a page has the expected number of entries, and a link if there are more."""
    if not answer.is_good or not isinstance(answer.data, dict) or "results" not in answer.data:
        return False
    total = _total(answer)
    if total is None:
        return True
    n_rows = len(answer.data["results"])
    leads_on = _NEXT.search(answer.headers.get("Link", "")) is not None
    return n_rows == min(_PAGE, total - seen) and leads_on == (seen + n_rows < total)


def _total(answer: Answer) -> int | None:
    total = answer.headers.get("X-Total-Results", "")
    return int(total) if total.isdecimal() else None


def _row(result: dict[str, Any]) -> dict[str, Any]:
    """Return the stored part of a result, with its key for ID mapping, and without for a search."""
    mapped = "to" in result
    protein = protein_of(result["to"] if mapped else result)
    return {"from": result["from"] if mapped else "", "protein": dataclasses.asdict(protein)}


def _by_key(
    question: Question, keys: Sequence[str], rows: Sequence[dict[str, Any]]
) -> dict[str, list[Protein]]:
    """Return the proteins of each key; the service may return keys in another case, or with a version."""
    proteins_by_key: dict[str, list[Protein]] = {key: [] for key in keys}
    folded: dict[str, list[str]] = {}
    for key in keys:
        folded.setdefault(key.lower(), []).append(key)
    for row in rows:
        protein, row_key = _protein(row["protein"]), row["from"].lower()
        if question.source == "search":
            names = {name.lower() for name in (*protein.names, *protein.synonyms)}
        else:
            names = {row_key if row_key in folded else row_key.partition(".")[0]}
        for key in (key for name in names & folded.keys() for key in folded[name]):
            proteins_by_key[key].append(protein)
    return proteins_by_key


def _protein(entry: dict[str, Any]) -> Protein:
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
    }
    return Protein(**values)


def _read_batches(folder: Path) -> Iterator[Answers]:
    """Yield all answers that a folder of the cache contains."""
    for file in sorted(folder.glob("*.json.gz")):
        stored = _read(file)
        try:
            if stored is None or stored["format"] != _FORMAT:
                raise KeyError("format")
            proteins_by_key = {
                key: [_protein(entry) for entry in proteins] for key, proteins in stored["found"].items()
            }
            yield Answers(found=proteins_by_key, releases=frozenset({stored["release"]} - {""}))
        except (KeyError, TypeError, AttributeError):
            logger.warning("%s is damaged or of another version, and is requested again.", file)


def _read(file: Path) -> dict[str, Any] | None:
    """Return the contents of a cache file; None if it is missing or damaged."""
    try:
        stored = json.loads(gzip.decompress(file.read_bytes()))
    except (OSError, EOFError, ValueError, zlib.error):
        return None
    return stored if isinstance(stored, dict) else None


def _write(file: Path, content: dict[str, Any]) -> None:
    """Write a file to the cache, complete or not at all."""
    with output_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    with partial_output(file, overwrite=True, is_shared=True) as partial:
        partial.write_bytes(gzip.compress(json.dumps(content).encode(), compresslevel=5, mtime=0))
