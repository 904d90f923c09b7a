"""Reads, checks and writes FASTA files of proteins."""

from __future__ import annotations

import contextlib
import gzip
import io
import logging
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cellweft._errors import FormatError, InputError, MissingFileError, checks_kinds
from cellweft._text import near, shorten
from cellweft._typing import PathLike
from cellweft.data.io.atomic_output import partial_output

logger = logging.getLogger("cellweft")

AMINO_ACIDS = "ABCDEFGHIKLMNOPQRSTUVWXYZ"
"""Letters of a protein: the 20 amino acids, the rare U and O, and the ambiguous B, Z and X."""

_STRANGE = re.compile(f"[^{AMINO_ACIDS}]")
_NUCLEOTIDES = re.compile("[ACGTUN]*")
_MOST_NUCLEOTIDES = 100  # a longer file with only these letters is not a protein
_GZIP = b"\x1f\x8b"
_ARCHIVES = {
    b"PK\x03\x04": "a zip archive",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
}
_START = 4096  # bytes used to recognise a file
_MOST_SHOWN = 60  # characters of an unexpected first line


@dataclass(frozen=True, kw_only=True)
class FastaRecord:
    """One protein of a FASTA file.

    Attributes
    ----------
    name
        The first word of the header, without the ``>``.
    description
        The rest of the header; may be empty.
    sequence
        The amino acids in upper case, at least one, without a ``*`` at the end.
    """

    name: str
    description: str
    sequence: str


@checks_kinds
def read_fasta(path: PathLike) -> list[FastaRecord]:
    r"""Read the proteins of a FASTA file, plain or gzipped.

    Parameters
    ----------
    path
        The file. It may contain lower-case letters, blank lines, a ``*`` at the end of a sequence, and
        duplicate names.

    Returns
    -------
    list of FastaRecord
        In the order of the file; at least one.

    Raises
    ------
    MissingFileError
        The path does not exist.
    FormatError
        The file is not a FASTA file (binary, a web page, other text, empty), is truncated, or contains
        nucleotides.
    InputError
        A sequence is empty, or has a letter that is not an amino acid.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "proteins.fa")
    ...     _ = path.write_text(">Gad1 P48318\nMASST\nPSPAT\n")
    ...     read_fasta(path)
    [FastaRecord(name='Gad1', description='P48318', sequence='MASSTPSPAT')]
    """
    return list(iter_fasta(path))


def iter_fasta(path: PathLike, *, skip_stops: bool = False) -> Iterator[FastaRecord]:
    """Yield the proteins of a FASTA file one by one, as `read_fasta` reads them.

    Empty sequences, and nucleotides instead of amino acids, are raised after the last protein. With
    ``skip_stops``, proteins with a ``*`` inside are left out, and counted in a warning.
    """
    file = Path(path)
    empty: list[str] = []
    stopped = 0
    letters, nucleotides = 0, True
    with _opened(file) as lines:
        for line, header, sequence in _sections(lines):
            name, _, description = header.partition(" ")
            if not name:
                raise _no_fasta(file, f"a header without a name in line {line}", "Name every protein: >Gad1.")
            if not sequence:
                empty.append(name)
                continue
            if skip_stops and "*" in sequence:
                stopped += 1
                continue
            _check_letters(sequence, f"{file}, protein {name!r} (line {line})")
            nucleotides = nucleotides and _NUCLEOTIDES.fullmatch(sequence) is not None
            letters += len(sequence)
            yield FastaRecord(name=name, description=description.strip(), sequence=sequence)
    if stopped:
        logger.warning("%s: proteins left out because of an internal stop (*): %d.", file, stopped)
    if empty:
        raise InputError(
            str(file),
            expected="a sequence for every header",
            got=f"none for {shorten(empty)}",
            fix="Remove these headers, or add their sequences.",
        )
    if nucleotides and letters >= _MOST_NUCLEOTIDES:
        raise _no_fasta(file, "nucleotides (only A, C, G, T, U and N)", "Use the protein file instead.")


def write_fasta(
    records: Iterable[FastaRecord], path: PathLike, *, overwrite: bool = False, width: int = 60
) -> Path:
    """Write proteins to a FASTA file, which appears only when it is complete.

    Parameters
    ----------
    records
        The proteins.
    path
        Path of the file; gzipped if the name ends in ``.gz``.
    overwrite
        Whether to replace an existing file.
    width
        Letters per line.

    Returns
    -------
    Path
        The absolute path.

    Raises
    ------
    OutputExistsError, OutputError
        As in `cellweft.data.io.atomic_output.partial_output`.
    """
    with partial_output(path, overwrite=overwrite) as partial, partial.open("wb") as plain:
        # Without a time or name in the gzip header, equal proteins give equal files.
        packed = None
        if str(path).endswith(".gz"):
            packed = gzip.GzipFile(fileobj=plain, mode="wb", mtime=0, filename="")
        with io.TextIOWrapper(packed or plain, encoding="utf-8", newline="\n") as text:
            for record in records:
                text.write(f">{record.name} {record.description}".rstrip() + "\n")
                text.writelines(
                    f"{record.sequence[start : start + width]}\n"
                    for start in range(0, len(record.sequence), width)
                )
    return Path(path).resolve()


def near_path(path: Path) -> str:
    """Return a hint with names similar to that of a missing file."""
    names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    return near(path.name, names) if names else f"The folder {str(path.parent)!r} does not exist either."


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[io.TextIOWrapper]:
    """Open the lines of a file, after checking that its first bytes may be those of a FASTA file."""
    if not path.is_file():
        got = "a folder" if path.is_dir() else "nothing at this path"
        raise MissingFileError(str(path), expected="a FASTA file", got=got, fix=near_path(path))
    try:
        with path.open("rb") as plain:
            is_gzip = plain.read(len(_GZIP)) == _GZIP
            plain.seek(0)
            file: BinaryIO = gzip.GzipFile(fileobj=plain) if is_gzip else plain  # type: ignore[assignment]
            _check_start(file.read(_START), path)
            file.seek(0)
            with io.TextIOWrapper(file, encoding="utf-8-sig", errors="replace") as lines:
                yield lines
    except (EOFError, zlib.error, gzip.BadGzipFile, PermissionError) as error:
        is_closed = isinstance(error, PermissionError)
        raise FormatError(
            str(path),
            expected="a readable file" if is_closed else "a complete file",
            got="no permission" if is_closed else f"a file that is truncated or damaged ({error})",
            fix="Change its permissions." if is_closed else "Download it again.",
        ) from error


def _check_start(start: bytes, path: Path) -> None:
    text = start.lstrip(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b">") and b"\0" not in start:
        return
    got = next((kind for mark, kind in _ARCHIVES.items() if start.startswith(mark)), "")
    fix = "Unpack it first. Only .gz is read directly."
    if not text:
        got, fix = "an empty file", "Download it again, or pass another file."
    elif not got and b"\0" in start:
        got, fix = "a binary file", "Pass the FASTA file itself."
    elif text.startswith(b"<"):
        got = "a web page or XML"
        fix = "The link leads to a page about the file: download the FASTA file itself."
    elif not got:
        first = text.splitlines()[0].decode("utf-8", "replace")
        beginning = repr(first if len(first) <= _MOST_SHOWN else f"{first[:_MOST_SHOWN]}...")
        got, fix = f"a file that starts with {beginning}", "Every protein starts with a line such as >Gad1."
    raise _no_fasta(path, got, fix)


def _sections(lines: Iterable[str]) -> Iterator[tuple[int, str, str]]:
    """Yield the line number of each header, the header, and the text below it."""
    start, header, parts = 0, "", list[str]()
    for number, line in enumerate(lines, start=1):
        if not line.startswith(">"):
            parts.append(line.strip())
            continue
        if start:
            yield start, header, _joined(parts)
        start, header, parts = number, " ".join(line[1:].split()), []
    yield start, header, _joined(parts)


def _joined(parts: list[str]) -> str:
    return "".join("".join(parts).split()).upper().removesuffix("*")


def _check_letters(sequence: str, where: str) -> None:
    strange = _STRANGE.search(sequence)
    if strange is None:
        return
    letter = strange[0]
    gaps = "Remove the gaps of the alignment."
    stop = "A stop inside a protein often comes from a translation in the wrong frame."
    fixes = {"*": stop, "-": gaps, ".": gaps}
    raise InputError(
        where,
        expected="only amino acids",
        got=f"{letter!r} at position {strange.start() + 1}",
        fix=fixes.get(letter, f"Letters may be {AMINO_ACIDS}, and * at the end."),
    )


def _no_fasta(path: Path, got: str, fix: str) -> FormatError:
    return FormatError(str(path), expected="a FASTA file of proteins", got=got, fix=fix)
