"""Pairs of connected genes, with or without weights, from a file (such as STRING) or from memory."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from cellweft._errors import FormatError, InputError, arg, checks_kinds, path_of
from cellweft._text import many
from cellweft._typing import BoolArray, FloatArray, IntArray, PathLike
from cellweft.data.io.dialect import EXACT
from cellweft.genes.matching import SAME_NAMES, match_known
from cellweft.genes.text_files import head_of, text_errors

logger = logging.getLogger("cellweft")

_KIND = "a list of edges (per line: two genes, and optionally a weight)"
_SCORE, _SCORE_SCALE = "combined_score", 1000.0  # STRING's name for its score, and its scale
_STRING_ID = re.compile(r"\d+\.\S+")  # taxon and protein, such as 10090.ENSMUSP00000000001
_NAMES_OF_STRING = "Replace STRING's IDs by gene names; they are in its file protein.info."
_HEADER_WORDS = {"a", "b", "from", "gene", "genea", "geneb", "node", "protein", "source", "target", "to"}


@dataclass(frozen=True, kw_only=True, eq=False)
class EdgeList:
    """Pairs of connected genes with their weights, symmetric.

    Parameters
    ----------
    genes
        (n_genes,) unique names, spelled as in the source.
    pairs
        (n_edges, 2) positions of two different genes in ``genes``, each pair once.
    weights
        (n_edges,) weights of the pairs, above 0; `read_edges` scales them to 1 at most.
    source
        Origin of the edges, for messages and records.
    n_self_loops, n_repeated
        Number of edges of the source that were left out: self-loops, and repeated edges, of which only the
        largest weight is kept.

    Raises
    ------
    InputError
        There is no edge, a weight is not above 0, or the arrays do not match.

    Examples
    --------
    >>> edges = read_edges(pd.DataFrame([["Gad1", "Gad2", 0.5], ["Gad2", "Gad1", 0.75]]))
    >>> edges
    EdgeList(1 edge between 2 genes from memory; 1 repeated edge left out)
    >>> known, weights = edges.aligned(["GAD2", "Sst", "Gad1"])
    >>> known.tolist(), weights.toarray().tolist()
    ([True, False, True], [[0.0, 0.0, 0.75], [0.0, 0.0, 0.0], [0.75, 0.0, 0.0]])
    """

    genes: NDArray[np.str_]
    pairs: IntArray
    weights: FloatArray
    source: str
    n_self_loops: int = 0
    n_repeated: int = 0

    def __post_init__(self) -> None:
        pairs, weights = self.pairs, self.weights
        fits = pairs.shape == (len(weights), 2) and len(weights) > 0
        if not fits or pairs.min() < 0 or pairs.max() >= len(self.genes) or not (weights > 0).all():
            raise InputError(
                self.source,
                expected="edges between two different genes, with weights above 0",
                got="none" if not len(weights) else "pairs, genes and weights that do not match",
                fix="Pass at least one such edge.",
            )

    def __repr__(self) -> str:
        said = f"{many(len(self.weights), 'edge')} between {many(len(self.genes), 'gene')} from {self.source}"
        if self.n_self_loops:
            said += f"; {many(self.n_self_loops, 'self-loop')} left out"
        if self.n_repeated:
            said += f"; {many(self.n_repeated, 'repeated edge')} left out"
        return f"EdgeList({said})"

    def aligned(self, genes: Sequence[str] | NDArray[Any]) -> tuple[BoolArray, sp.csr_matrix]:
        """Return the edges between the genes of a dataset, matched by exact name or ignoring case.

        Parameters
        ----------
        genes
            (n_asked,) unique names.

        Returns
        -------
        known
            (n_asked,) which of them are in the list.
        edges
            (n_asked, n_asked) symmetric weights, 0 if there is no edge; sparse.

        Raises
        ------
        GeneError
            None of the genes are in the list.
        """
        fix = _NAMES_OF_STRING if _STRING_ID.fullmatch(str(self.genes[0])) else SAME_NAMES
        match, is_known = match_known(genes, self.genes, source=self.source, kind="edges", fix=fix)
        place = np.full(len(self.genes), -1, dtype=np.int64)
        place[match.second] = match.first
        pairs = place[self.pairs]
        there = (pairs >= 0).all(axis=1)
        ones, others = pairs[there].T
        edges = sp.csr_matrix((self.weights[there], (ones, others)), shape=(len(genes), len(genes)))
        return is_known, sp.csr_matrix(edges + edges.T)


EdgeSource: TypeAlias = "PathLike | pd.DataFrame | EdgeList"


@checks_kinds
def read_edges(source: EdgeSource | Sequence[EdgeSource]) -> EdgeList:
    """Read edges between genes from text files, or from memory.

    Parameters
    ----------
    source
        The path of a text file (may be ``.gz``) with two columns of genes and optionally a weight, separated
        by tabs, commas or spaces, with or without a header. If there are more columns, combined_score is the
        weight. Or a DataFrame with two or three such columns. You can pass several of these, which are
        combined.

    Returns
    -------
    EdgeList
        Unique edges, for the argument ``edges`` of `cellweft.Imputer`.

    Raises
    ------
    MissingFileError
        The path does not exist.
    FormatError
        The file is not a list of edges: it is empty or binary, or a line lacks a column.
    InputError
        A weight is negative or not a number, or there is no edge between two different genes.

    Notes
    -----
    Weights are scaled to 0-1: STRING's combined_score is divided by 1000, other weights above 1 by the
    largest. Edges without weights have weight 1. Edges are undirected. If an edge occurs several times, for
    example in both directions in STRING's files, the largest weight is used. A weight of 0 means no edge.
    Self-loops are left out. Names are not converted: STRING's protein IDs, such as 10090.ENSMUSP00000000001,
    are not gene names, which are in its file protein.info (docs/networks.md).

    Examples
    --------
    >>> read_edges(pd.DataFrame({"a": ["Gad1", "Sst"], "b": ["Gad2", "Sst"], "combined_score": [940, 1000]}))
    EdgeList(1 edge between 3 genes from memory; 1 self-loop left out)
    """
    edges = _joined(source) if isinstance(source, list | tuple) else _read(cast(EdgeSource, source))
    if edges.n_self_loops or edges.n_repeated:
        logger.info("%r", edges)
    return edges


def _joined(source: Sequence[EdgeSource]) -> EdgeList:
    """Return the combined edges of several sources."""
    parts = [_read(part) for part in source]
    names = pd.Index([]).append([pd.Index(part.genes) for part in parts]).unique()
    pairs = [names.get_indexer(pd.Index(part.genes))[part.pairs] for part in parts]
    edges = _edge_list(
        names,
        np.concatenate([np.empty((0, 2), dtype=np.int64), *pairs]),
        np.concatenate([np.empty(0), *(part.weights for part in parts)]),
        source=", ".join(part.source for part in parts) or "no source",
    )
    return replace(
        edges,
        n_self_loops=sum(part.n_self_loops for part in parts),
        n_repeated=edges.n_repeated + sum(part.n_repeated for part in parts),
    )


def _read(source: EdgeSource) -> EdgeList:
    if isinstance(source, EdgeList):
        return source
    if isinstance(source, pd.DataFrame):
        return _from_frame(source, "memory", first_line=0)
    path = Path(path_of("edges", source, expected="a table of pairs of genes, or its path"))
    separator, names, used, n_before = _layout(head_of(path, kind=_KIND), path)
    with text_errors(path, kind=_KIND), warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # it would leave out what does not fit
        try:
            frame = pd.read_csv(
                path,
                sep=separator,
                header=None,
                names=names,
                usecols=None if used == names else used,
                skiprows=n_before,
                dtype=dict.fromkeys(names[:2], "category"),
                float_precision=EXACT,
                index_col=False,
                keep_default_na=False,
                skip_blank_lines=False,
                skipinitialspace=True,
                quoting=0 if separator == "," else 3,  # csv.QUOTE_MINIMAL, csv.QUOTE_NONE
                encoding="utf-8-sig",
            )
        except pd.errors.ParserWarning as error:
            raise _wrong(
                str(path), f"rows with more than the {len(names)} columns of its first line"
            ) from error
        except pd.errors.ParserError as error:
            raise _wrong(str(path), str(error).splitlines()[0]) from error
    return _from_frame(frame[used], str(path), first_line=n_before + 1)


def _layout(lines: list[str], path: Path) -> tuple[str, list[str], list[str], int]:
    """Detect the layout of a file from its first lines.

    Returns its separator, the names of all columns and of those used, and the number of lines before the
    first edge.
    """
    n_before = next((number for number, line in enumerate(lines) if line.strip() and line[0] != "#"), None)
    if n_before is None:
        raise _wrong(str(path), "only comments")
    first = lines[n_before]
    separator = next((sign for sign in ("\t", ",") if sign in first), r"\s+")

    def split(line: str) -> list[str]:
        parts = line.split() if separator == r"\s+" else line.split(separator)
        return [part.strip().strip('"') for part in parts]

    fields, header = split(first), split(lines[max(n_before - 1, 0)].lstrip("#"))
    if not (n_before and len(header) == len(fields) and _is_header(header)):  # "#node1 ...", as STRING writes
        header = fields if _is_header(fields) else []
        n_before += bool(header)
    names = [f"column {number + 1}" for number in range(len(fields))]
    weight = 2
    if _SCORE in header:
        weight = header.index(_SCORE)
        names[weight] = _SCORE
    if len(fields) < 2 or (len(fields) > 3 and names[weight] != _SCORE):
        raise _wrong(f"{path}, line {n_before + 1}", f"{len(fields)} column(s): {first.strip()[:60]!r}")
    return separator, names, [*names[:2], *names[weight : weight + 1]], n_before


def _is_header(fields: list[str]) -> bool:
    """Return whether a line is a header: its third field is not a number, or its first two mean genes."""
    if len(fields) > 2 and _SCORE not in fields:
        try:
            float(fields[2] or "nan")
        except ValueError:
            return True
    words = [field.lower().rstrip("12").strip("_ ") for field in fields[:2]]
    return _SCORE in fields or (len(fields) > 1 and all(word in _HEADER_WORDS for word in words))


def _from_frame(frame: pd.DataFrame, source: str, *, first_line: int) -> EdgeList:
    """Return the edges of a table of two or three columns; rows are counted from ``first_line``."""
    if frame.shape[1] not in (2, 3):
        raise _wrong(source, f"{frame.shape[1]} column(s)")
    ones, others = (frame.iloc[:, column].astype("category") for column in (0, 1))
    texts = [pd.Index(names_column.cat.categories.astype(str).str.strip()) for names_column in (ones, others)]
    names = texts[0].append(texts[1]).unique().difference(pd.Index([""]), sort=False)
    columns = [
        np.append(names.get_indexer(text), -1)[names_column.cat.codes]
        for text, names_column in zip(texts, (ones, others), strict=True)
    ]
    pairs = np.stack(columns, axis=1).astype(np.int64)
    lacks = pairs < 0
    weights, is_blank = np.ones(len(frame)), lacks.all(axis=1)
    if frame.shape[1] == 3:
        is_blank &= (frame.iloc[:, 2].astype(str) == "").to_numpy()
        weights = _weights(frame.iloc[:, 2], source, first_line=first_line, ignored=is_blank)
    bad = np.flatnonzero(lacks.any(axis=1) & ~is_blank)
    if len(bad):
        raise _wrong(_place(source, first_line, bad[0]), "a column that is missing")
    is_kept = ~is_blank
    return _edge_list(names, pairs[is_kept], weights[is_kept], source=source)


def _weights(
    column: pd.Series[Any], source: str, *, first_line: int, ignored: BoolArray
) -> NDArray[np.float64]:
    """Return weights from 0 to 1; raise if a weight is negative or not a number."""
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    numbers = np.where(ignored, 0, numbers)
    bad = np.flatnonzero(~(np.isfinite(numbers) & (numbers >= 0)))
    if len(bad):
        value = str(column.iloc[bad[0]])
        raise InputError(
            _place(source, first_line, bad[0]),
            expected="a weight of 0 or more",
            got="none" if value == "" else repr(value),
            fix=f"Correct or drop such edges; there are {len(bad):,} of them.",
        )
    most = numbers.max(initial=0)
    scale = _SCORE_SCALE if column.name == _SCORE and most <= _SCORE_SCALE else most
    return numbers / scale if most > 1 else numbers


def _edge_list(names: pd.Index[Any], pairs: IntArray, weights: NDArray[Any], *, source: str) -> EdgeList:
    """Return each edge once, without those of a gene with itself."""
    is_loop = pairs[:, 0] == pairs[:, 1]
    pairs, weights = np.sort(pairs[~is_loop], axis=1), weights[~is_loop]
    order = np.lexsort((-weights, pairs[:, 1], pairs[:, 0]))
    pairs, weights = pairs[order], weights[order]
    is_first = np.ones(len(pairs), dtype=bool)
    is_first[1:] = (np.diff(pairs, axis=0) != 0).any(axis=1)
    is_kept = is_first & (weights > 0)
    return EdgeList(
        genes=names.to_numpy(dtype=np.str_),
        pairs=pairs[is_kept],
        weights=weights[is_kept].astype(np.float32),
        source=source,
        n_self_loops=int(is_loop.sum()),
        n_repeated=int((~is_first).sum()),
    )


def _place(source: str, first_line: int, row: int) -> str:
    return f"{source}, {'line' if first_line else 'row'} {first_line + int(row)}"


def _wrong(where: str, got: str) -> FormatError:
    return FormatError(
        where,
        expected=f"{_KIND}, separated by tabs, commas or spaces",
        got=got,
        fix="Keep two or three columns. Pass a GMT file as " + arg("gene_sets") + ".",
    )
