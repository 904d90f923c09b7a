"""What is embedded: proteins of a FASTA file, a mapping or records, checked before any work is done."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from weft._errors import GeneError, InputError, shorten
from weft._typing import PathLike
from weft.fasta import AMINO_ACIDS, FastaRecord, read_fasta

Proteins: TypeAlias = "PathLike | Mapping[str, str] | Sequence[FastaRecord]"
"""Path of a FASTA file, from name to sequence, or records."""

_STRANGE = re.compile(f"[^{AMINO_ACIDS}]")


def checked_proteins(proteins: Proteins) -> dict[str, str]:
    """Return the sequence of every name, in upper case and of amino acids alone.

    Parameters
    ----------
    proteins
        Lower-case letters, and a ``*`` at the end of a sequence, are taken as they are meant.

    Raises
    ------
    MissingFileError, FormatError
        As `weft.fasta.read_fasta`.
    InputError
        No protein, an empty sequence, a letter that is no amino acid.
    GeneError
        A name stands twice.

    Examples
    --------
    >>> checked_proteins({"Gad1": "masst*"})
    {'Gad1': 'MASST'}
    """
    if isinstance(proteins, Mapping):
        where, pairs = "proteins", list(proteins.items())
    elif isinstance(proteins, str | os.PathLike):
        where, pairs = str(proteins), [(one.name, one.sequence) for one in read_fasta(proteins)]
    else:
        where, pairs = "proteins", [(one.name, one.sequence) for one in proteins]
    times = Counter(name for name, _ in pairs)
    twice = [str(name) for name, count in times.items() if count > 1]
    if twice:
        raise GeneError(
            where,
            expected="every name once",
            got=f"{shorten(twice)} more than once",
            fix="Keep one protein per gene; weft.find_proteins chooses the reviewed, canonical, longest one.",
        )
    sequences = {str(name): sequence.strip().upper().removesuffix("*") for name, sequence in pairs}
    empty = [name for name, sequence in sequences.items() if not sequence]
    if empty or not sequences:
        raise InputError(
            where,
            expected="a sequence for every name" if empty else "at least one protein",
            got=f"none for {shorten(empty)}" if empty else "none",
            fix="Leave these names out, or find their sequences." if empty else "Name the proteins to embed.",
        )
    for name, sequence in sequences.items():
        strange = _STRANGE.search(sequence)
        if strange is not None:
            raise InputError(
                f"{where}, {name!r}",
                expected=f"letters of amino acids, {AMINO_ACIDS}",
                got=f"{strange[0]!r} at position {strange.start() + 1}",
                fix="Correct the sequence, or leave the protein out.",
            )
    return sequences
