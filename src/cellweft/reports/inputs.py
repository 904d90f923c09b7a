"""The inputs of a report: results and tables of scores, recognised by their contents, read piece by piece."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from anndata import AnnData

from cellweft._errors import FormatError, GeneError, InputError, MissingFileError
from cellweft._text import near, shorten
from cellweft.data._pair import Pair
from cellweft.data.gene_names import other_names
from cellweft.data.io.cell_labels import LabelTable, holds_labels, read_cell_labels, table_columns
from cellweft.data.io.damaged import reading
from cellweft.data.io.dialect import EXACT
from cellweft.data.io.keys import (
    CONFIDENCE,
    INTERVAL,
    MEASURED,
    PLACES,
    PROPORTIONS,
    RECORD,
    RELIABILITY,
    RELIABILITY_LOWER,
    RELIABILITY_UPPER,
    RELIABLE,
    SPILLOVER,
    SPREAD,
    WEIGHT,
)
from cellweft.data.io.lazy_input import Input
from cellweft.data.io.obs_table import table_with_text
from cellweft.data.io.results import ResultKind, gene_columns, open_result, result_kind
from cellweft.data.spatial import find_labels
from cellweft.evaluate.score_table import COLUMNS, check_items
from cellweft.reports.document import Form, Number
from cellweft.reports.records import checked_record

_TABLES = (".csv", ".parquet")
_WANTED = (
    "imputed genes, placed cells or spots as cellweft makes them (AnnData, .zarr or .h5ad), "
    "a table of scores or of cell types (DataFrame, .csv or .parquet), or a Pair"
)


@runtime_checkable
class Placed(Protocol):
    """A placement that has not been written yet."""

    def to_anndata(self, *, neighbors: int = 15) -> AnnData:
        """Return the placed cells."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """A result of cellweft that is read piece by piece.

    Attributes
    ----------
    kind, name
        Kind of result, and its name on the page.
    data
        The opened file, or AnnData.
    """

    kind: ResultKind
    name: str
    data: Input

    @property
    def n_cells(self) -> int:
        """Number of cells or spots."""
        return len(self.data.obs)

    def number(self, value: float, what: str, form: Form = "count") -> Number:
        """Return a number of the result, with its source."""
        return Number(value, form, f"{self.name}: {what}")

    @property
    def genes(self) -> list[str]:
        """Names of the genes."""
        return [str(name) for name in self.data.var.index]

    @cached_property
    def record(self) -> dict[str, Any]:
        """How it was made, as plain values; empty without a record."""
        uns = self.data.uns
        stored = uns[RECORD] if isinstance(uns, Mapping) and RECORD in uns else None
        return checked_record(stored, f"{self.data.where}.uns[{RECORD!r}]")

    @cached_property
    def label_column(self) -> str | None:
        """Column of ``obs`` with the types of the cells, if any."""
        _, name = find_labels(self.data.obs, None, where=self.name, argument="labels")
        return name or None

    def column(self, name: str) -> pd.Series[Any] | None:
        """Return a column of ``obs``, if it exists."""
        return self.data.obs[name] if name in self.data.obs.columns else None

    def few(self, genes: Sequence[str] = (), *, columns: Iterable[str] = ()) -> AnnData:
        """Return an AnnData of all cells with a few genes and columns, and all other elements.

        Parameters
        ----------
        genes
            Genes to read from ``X`` and the layers.
        columns
            Columns of ``obs`` to read; missing ones are ignored.
        """
        places = pd.Index(self.genes).get_indexer(pd.Index(list(genes))).astype(np.int64)
        obs = pd.DataFrame(
            {name: self.data.obs[name].to_numpy() for name in columns if name in self.data.obs.columns},
            index=self.data.obs.names().astype(str),
        )
        obsm = {key: np.asarray(self.data.obsm[key]) for key in self.data.obsm if "spatial" in key}
        uns = {key: self.data.uns[key] for key in self.data.uns if key == RECORD or key.endswith("_colors")}
        subset = AnnData(obs=obs, var=self.data.var.iloc[places], obsm=obsm, uns=uns)
        if len(places):
            subset.X = gene_columns(self.data, places)
            for name in INTERVAL:
                if name in self.data.layers:
                    subset.layers[name] = gene_columns(self.data, places, layer=name)
        return subset


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """A table of scores and its record.

    Attributes
    ----------
    name
        Name on the page.
    table
        A table with the columns of `cellweft.evaluate.score_table.COLUMNS`.
    record
        Versions, parameters, seeds and findings about the inputs, if known.
    """

    name: str
    table: pd.DataFrame
    record: dict[str, Any]

    def number(self, value: float, what: str, form: Form = "count") -> Number:
        """Return a number of the table, with its source."""
        return Number(value, form, f"{self.name}: {what}")

    @property
    def by(self) -> str:
        """What was held out: genes, cells, fraction, place; "truth" if other genes were known."""
        metrics = set(self.table["metric"])
        if any(str(metric).startswith(("location_error", "hits@", "celltype_pcc")) for metric in metrics):
            return "place"
        if "truth" in self.record:
            return "truth"
        return str(self.record.get("parameters", {}).get("by", "genes"))

    def summary(self, item: str, metric: str, *, method: str) -> float:
        """Return a summary score, averaged over seeds; NaN if there is none."""
        return float(self._summary.get((method, item, metric), np.nan))

    @cached_property
    def _summary(self) -> dict[Any, float]:
        rows = self.table[self.table["level"] == "summary"]
        return rows.groupby(["method", "item", "metric"], sort=False)["value"].mean().to_dict()

    def each(self, level: str, metric: str) -> pd.DataFrame:
        """Return a score of each item of a level for each method, averaged over seeds.

        Parameters
        ----------
        level, metric
            "gene", "cell" or "type", and the score.

        Returns
        -------
        items x methods
        """
        rows = self.table[(self.table["level"] == level) & (self.table["metric"] == metric)]
        pivoted = rows.pivot_table(index="item", columns="method", values="value", sort=False)
        return pivoted.reindex(columns=[name for name in self.methods if name in pivoted.columns])

    @cached_property
    def methods(self) -> list[str]:
        """The methods, in the order of the table."""
        return [str(name) for name in self.table["method"].unique()]

    @property
    def n_seeds(self) -> int:
        """Number of seeds of the methods."""
        return int(self.table["seed"].nunique())


@dataclass(frozen=True, kw_only=True, eq=False)
class CellTypes:
    """A table of cell types.

    Attributes
    ----------
    table
        Cells and their labels, checked.
    record
        How it was made, checked.
    """

    table: LabelTable
    record: dict[str, Any]
    kind: Literal["labels"] = "labels"

    @property
    def name(self) -> str:
        """What the page calls it."""
        return self.table.name

    @property
    def n_cells(self) -> int:
        """Cells."""
        return len(self.table.cells)

    def number(self, value: float, what: str, form: Form = "count") -> Number:
        """Return a number of the table or its record, with its source."""
        return Number(value, form, f"{self.name}: {what}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """All inputs of a report.

    Attributes
    ----------
    imputed, placed, spots
        Results, if given.
    labels
        Cell types, if given.
    scores
        Tables of scores.
    pair
        The checked inputs, if given.
    """

    imputed: Result | None
    placed: Result | None
    spots: Result | None
    labels: CellTypes | None
    scores: tuple[Scores, ...]
    pair: Pair | None

    @property
    def results(self) -> tuple[Result | CellTypes, ...]:
        """The results that were given."""
        results = (self.imputed, self.labels, self.placed, self.spots)
        return tuple(result for result in results if result is not None)

    def scored(self, *, place: bool) -> tuple[Scores, ...]:
        """Return the tables of scores for positions, or for expression."""
        return tuple(scores for scores in self.scores if (scores.by == "place") is place)


def given_of(results: Sequence[Any]) -> Given:
    """Sort arguments into results, tables of scores and a pair.

    Parameters
    ----------
    results
        Arguments in any order; at least one result or table.

    Raises
    ------
    FormatError
        An argument is of another kind.
    InputError
        There is nothing to report on, two results of the same kind, or a table without the columns of scores
        or cell types.
    MissingFileError
        A path does not exist.
    """
    by_kind: dict[str, Any] = {}
    scores: list[Scores] = []
    for result in results:
        opened = _opened(result, "results", n_scores=len(scores))
        if isinstance(opened, Scores):
            scores.append(opened)
            continue
        kind = "pair" if isinstance(opened, Pair) else opened.kind
        if kind in by_kind:
            raise InputError(
                "results", expected=f"one {_SAID[kind]}", got="two", fix="Make a report of each."
            )
        by_kind[kind] = opened
    if not scores and not by_kind.keys() - {"pair"}:
        raise InputError(
            "results",
            expected="at least one result or table of scores",
            got="none" if not by_kind else "the inputs alone",
            fix=f"Pass {_WANTED}.",
        )
    return Given(scores=tuple(scores), **{key: by_kind.get(key) for key in _SAID})


_SAID = {
    "imputed": "table of imputed genes",
    "placed": "table of placed cells",
    "spots": "table of spots",
    "labels": "table of cell types",
    "pair": "Pair",
}


def checked_genes(given: Given, genes: Sequence[str]) -> list[str]:
    """Return genes by their names in the result; raise `GeneError` for genes that were not imputed."""
    if not genes:
        return []
    gene_names = [] if given.imputed is None else given.imputed.genes
    spelled = {name: name for name in gene_names}
    if given.imputed is not None:
        for names in other_names(given.imputed.data.var):
            spelled = dict(zip(names, gene_names, strict=True)) | spelled
    unknown = [name for name in genes if name not in spelled]
    if unknown:
        fix = near(unknown[0], gene_names) if gene_names else "Pass the imputed genes too."
        raise GeneError("genes", expected="genes that were imputed", got=shorten(unknown), fix=fix)
    return [spelled[name] for name in genes]


def _opened(source: Any, where: str, *, n_scores: int) -> Result | CellTypes | Scores | Pair:
    if isinstance(source, Pair):
        return source
    if isinstance(source, pd.DataFrame) and _is_of_labels(source.columns, source.attrs.get(RECORD)):
        return _cell_types(source, where)
    if isinstance(source, pd.DataFrame):
        name = "scores" if not n_scores else f"scores, table {n_scores + 1}"
        return _scores(source, name, source.attrs.get(RECORD), where)
    if not isinstance(source, AnnData) and isinstance(source, Placed):
        source = source.to_anndata(neighbors=0)
    if not isinstance(source, AnnData | str) and not hasattr(source, "__fspath__"):
        raise FormatError(where, expected=_WANTED, got=type(source).__name__, fix="Leave it out.")
    if not isinstance(source, AnnData) and Path(source).suffix in _TABLES:
        return _read_table(Path(source).expanduser(), where)
    data = open_result(source, argument=where)
    kind = _kind_of(data, where)
    result = Result(kind=kind, name=kind if isinstance(source, AnnData) else Path(source).name, data=data)
    _check_result(result)
    return result


def _check_result(result: Result) -> None:
    """Raise `InputError` if a part of a result that reports read is not as cellweft writes it."""
    var = result.data.var
    result.record  # noqa: B018  (it is checked where it is read first)
    where, fix = f"{result.data.where}.var", "Use the result as cellweft wrote it."
    if not var.index.is_unique:
        same = shorten(var.index[var.index.duplicated()].unique().astype(str).tolist())
        raise InputError(
            f"{where}_names", expected="every gene once", got=f"several columns of {same}", fix=fix
        )
    for name in (RELIABILITY, RELIABILITY_LOWER, RELIABILITY_UPPER):
        if name in var.columns and not pd.api.types.is_numeric_dtype(var[name]):
            _refuse_column(f"{where}[{name!r}]", "numbers", var[name], fix)
    for name in (MEASURED, RELIABLE):
        if name in var.columns and not pd.api.types.is_bool_dtype(var[name]):
            _refuse_column(f"{where}[{name!r}]", "True and False", var[name], fix)
    for name in (CONFIDENCE, SPREAD, WEIGHT, SPILLOVER):
        if name in result.data.obs.columns and not pd.api.types.is_numeric_dtype(result.data.obs[name]):
            at = f"{result.data.where}.obs[{name!r}]"
            _refuse_column(at, "numbers", result.data.obs[name], fix)


def _refuse_column(where: str, expected: str, column: pd.Series[Any], fix: str) -> None:
    some = shorten(column.drop_duplicates().head(3).astype(str).tolist())
    raise InputError(where, expected=expected, got=f"{column.dtype} ({some})", fix=fix)


def _kind_of(data: Input, where: str) -> ResultKind:
    kind = result_kind(data)
    if kind is not None and (kind != "imputed" or data.matrix is not None):
        return kind
    raise FormatError(
        f"{where} ({data.source})",
        expected=f"a result of cellweft: imputed genes (var['{MEASURED}']), placed cells "
        f"(obsm['{PLACES}']) or spots (obsm['{PROPORTIONS}'])",
        got=f"an AnnData with {shorten([*data.var.columns, *data.obsm]) or 'none of these'}",
        fix="Pass results of cellweft. Pass the two inputs together, as a pair.",
    )


def _is_of_labels(columns: Iterable[Any], record: Any) -> bool:
    """Return whether a table contains cell types, complete or not, by its columns or record."""
    names = {str(name) for name in columns}
    if names >= set(COLUMNS):
        return False
    return holds_labels(names) or (isinstance(record, Mapping) and record.get("kind") == "labels")


def _cell_types(source: pd.DataFrame | Path, where: str) -> CellTypes:
    """Return a table of cell types with its record, which reports need."""
    table = read_cell_labels(source, argument=where)
    if not table.record:
        missing = "no .json file next to the table" if isinstance(source, Path) else "none in attrs"
        raise InputError(
            f"{table.where}, its record",
            expected="the record of Imputer.annotate, with the calibration",
            got=missing,
            fix="Keep the .json file that cellweft annotate wrote next to the table, or pass what "
            "Imputer.annotate returned.",
        )
    return CellTypes(table=table, record=checked_record(table.record, f"record of {table.where}"))


def _read_table(path: Path, where: str) -> Scores | CellTypes:
    if not path.is_file():
        raise MissingFileError(
            f"{where} ({path})",
            expected="a table of scores or of cell types",
            got="nothing at this path",
            fix="Check the path.",
        )
    fix = "Pass a table from evaluate_imputation, evaluate_placement or Imputer.annotate."
    with reading(f"{where} ({path})", expected="a table of scores or of cell types", fix=fix):
        columns = table_columns(path)
    if _is_of_labels(columns, _beside(path)):
        return _cell_types(path, where)
    with reading(f"{where} ({path})", expected="a table of scores", fix=fix):
        if path.suffix == ".csv":
            names = dict.fromkeys(("method", "level", "item", "metric"), str)
            absent = {"value": ["", "nan"]}
            table = pd.read_csv(
                path, dtype=names, keep_default_na=False, na_values=absent, float_precision=EXACT
            )
        else:
            table = table_with_text(pd.read_parquet(path), f"{where} ({path})")
    return _scores(table, path.name, _beside(path), f"{where} ({path})")


def _beside(path: Path) -> dict[str, Any]:
    """Return the record in the file next to a table, if there is one."""
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return {}
    try:
        record = json.loads(beside.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _scores(table: pd.DataFrame, name: str, record: Any, where: str) -> Scores:
    missing = [column for column in COLUMNS if column not in table.columns]
    fix = "Create it with cellweft.evaluate_imputation or cellweft.evaluate_placement. Cell types come from "
    fix += "Imputer.annotate."
    if missing or table.empty:
        expected = f"a table of scores, with the columns {shorten(COLUMNS, most=9)}"
        got = f"none of {shorten(missing)}" if missing else "no row"
        raise InputError(where, expected=expected, got=got, fix=fix)
    check_items(table, where)
    if not pd.api.types.is_numeric_dtype(table["value"]):
        got = str(table["value"].dtype)
        raise InputError(where, expected="numbers in the column 'value'", got=got, fix=fix)
    names = {key: table[key].astype(str) for key in ("method", "level", "item", "metric")}
    checked = checked_record(record, f"record of {where}")
    return Scores(name=name, table=table.assign(**names)[list(COLUMNS)], record=checked)
