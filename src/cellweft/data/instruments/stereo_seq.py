"""Tables of Stereo-seq (STOmics): counts of genes by position on the chip, summed by cell or bin."""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.sparse as sp
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv

from cellweft._errors import FormatError, SettingError, arg
from cellweft._text import shorten
from cellweft._typing import IntArray
from cellweft.data.instruments.tables import BLOCK_BYTES, named_as
from cellweft.data.io.columns import OBSM_KEYS
from cellweft.data.io.features import only_genes
from cellweft.data.io.lazy_input import Input
from cellweft.data.io.obs_table import HeldTable

_ENDINGS = re.compile(r"\.(gem|tsv|txt)(\.gz)?$", re.IGNORECASE)
_COLUMNS = {
    "gene": ("geneid", "gene"),
    "symbol": ("genename",),
    "x": ("x",),
    "y": ("y",),
    "count": ("midcount", "midcounts", "umicount", "umicounts"),
    "cell": ("cellid", "cell_id", "cell", "label"),
}
"""Names of the columns, in lower case; some files have no symbols or cells."""
_NO_CELL = ("", "0", "-1", "nan", "NA")
_MOST_COMMENTS = 100


@dataclass(frozen=True)
class StereoSeq:
    """Reads a ``.gem`` table, compressed or not, or a ``.tsv`` or ``.txt`` with the same columns.

    A row is a gene at a position of the chip (a DNB): ``geneID``, ``x``, ``y``, ``MIDCount``. Counts are
    summed by cell if there is a column of cells, otherwise by bins; the caller passes their size as a sample,
    "bin50". Coordinates are in DNB, which are 0.5 or 0.715 um apart: centres of bins, and centres of mass of
    cells.
    """

    name: str = "Stereo-seq"

    def open(self, path: Path, where: str, sample: str | None = None) -> Input | None:
        """Open a table, or the folder that contains it; parameters as in `Instrument.open`."""
        if path.is_dir():
            tables = [table for table in sorted(path.iterdir()) if re.search(r"\.gem(\.gz)?$", table.name)]
            if len(tables) > 1:
                raise FormatError(
                    where,
                    expected=f"a single table of {self.name}",
                    got=f"{len(tables)}: {shorten([table.name for table in tables])}",
                    fix=f"Choose one: {str(tables[0])!r}.",
                )
            return self.open(tables[0], where, sample) if tables else None
        if not _ENDINGS.search(path.name):
            return None
        n_comments, header = _header(path)
        places = {
            role: next((header.index(name) for name in names if name in header), -1)
            for role, names in _COLUMNS.items()
        }
        if any(places[key] < 0 for key in ("gene", "x", "y", "count")):
            return None
        size = _bin_size(sample, where, has_cells=places["cell"] >= 0)
        if size is not None:
            places["cell"] = -1
        parts = _read(path, where, n_comments + 1, len(header), places)
        how = f"bins of {size} x {size} DNB" if size else f"cells of the column {header[places['cell']]!r}"
        return _summed(parts, size, where=where, source=path, instrument=f"{self.name}, {how}")


def _header(path: Path) -> tuple[int, list[str]]:
    """Return the number of comment lines above the header, and its columns in lower case."""
    opener: Any = gzip.open if path.suffix.lower() == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            for number in range(_MOST_COMMENTS):
                line = file.readline(10_000)
                if not line.startswith("#"):
                    return number, [
                        column.strip().lower() for column in next(csv.reader([line], delimiter="\t"), [])
                    ]
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile):  # another reader reports the error
        pass
    return 0, []


def _bin_size(sample: str | None, where: str, *, has_cells: bool) -> int | None:
    """Return the requested size of the bins; None for cells."""
    argument = f"{where.partition(' ')[0]}_sample"
    match = None if sample is None else re.fullmatch(r"bin_?([1-9]\d*)", sample.strip().lower())
    if match:
        return int(match[1])
    if sample is not None:
        raise SettingError(
            argument,
            expected="a bin size, such as 'bin50'",
            got=repr(sample),
            fix="Write bin followed by the side length of a bin, as a number of DNBs.",
        )
    if not has_cells:
        raise FormatError(
            where,
            expected="a column with cell names (CellID), or a bin size",
            got="a Stereo-seq table without cells: counts by position on the chip",
            fix="Specify the bin size: " + arg(argument, "bin50") + " adds up squares of 50 x 50 DNB.",
        )
    return None


def _read(
    path: Path, where: str, n_skipped: int, n_columns: int, places: Mapping[str, int]
) -> dict[str, NDArray[Any]]:
    """Yield the columns of a table in blocks: whole numbers, and codes of texts with the texts."""
    columns = [str(number) for number in range(n_columns)]
    texts = {str(places[key]) for key in ("gene", "symbol", "cell") if places[key] >= 0}
    numbers = {str(places[key]) for key in ("x", "y", "count")}
    kinds = dict.fromkeys(texts, pa.string()) | dict.fromkeys(numbers, pa.int32())
    text_codes: dict[str, dict[str, int]] = {key: {} for key in ("gene", "symbol", "cell")}
    blocks: dict[str, list[NDArray[Any]]] = {role: [] for role, place in places.items() if place >= 0}
    with named_as(path, where):
        reader = arrow_csv.open_csv(
            path,
            read_options=arrow_csv.ReadOptions(
                column_names=columns, skip_rows=n_skipped, block_size=BLOCK_BYTES
            ),
            parse_options=arrow_csv.ParseOptions(delimiter="\t"),
            convert_options=arrow_csv.ConvertOptions(column_types=kinds, include_columns=[*kinds]),
        )
        for batch in reader:
            for role, block in blocks.items():
                column = batch.column(str(places[role]))
                block.append(_codes(column, text_codes[role]) if role in text_codes else column.to_numpy())
    arrays = {role: np.concatenate(parts) for role, parts in blocks.items()}
    return arrays | {f"{role}s": np.array([*codes], dtype=object) for role, codes in text_codes.items()}


def _codes(column: pa.Array, text_codes: dict[str, int]) -> IntArray:
    """Return the code of each text; new texts are added to the known ones."""
    encoded = column.fill_null("").dictionary_encode()
    numbers = [text_codes.setdefault(text, len(text_codes)) for text in encoded.dictionary.to_pylist()]
    return np.asarray(np.array(numbers, dtype=np.int64)[encoded.indices.to_numpy()])


def _summed(
    parts: Mapping[str, NDArray[Any]], size: int | None, *, where: str, source: Path, instrument: str
) -> Input:
    """Sum counts by bin, or by cell if no size is given."""
    x, y, counts, genes = (parts[key] for key in ("x", "y", "count", "gene"))
    left_out: tuple[str, ...] = ()
    if size is None:
        is_none = np.isin(parts["cells"].astype(str), _NO_CELL)[parts["cell"]]
        if is_none.any():
            left_out = (f"{int(counts[is_none].sum()):,} counts outside cells",)
        keys, x, y, counts, genes = (values[~is_none] for values in (parts["cell"], x, y, counts, genes))
    else:
        first = [int(axis.min(initial=0)) // size for axis in (x, y)]  # negative if the chip was shifted
        keys = (x // size - first[0]).astype(np.int64) << 32 | (y // size - first[1])
    if not len(keys):
        raise FormatError(
            where,
            expected="counts in cells",
            got="a table without any such counts",
            fix="Specify a bin size.",
        )
    spots, codes = np.unique(keys, return_inverse=True)
    totals = np.bincount(codes, weights=counts)
    middles = [np.bincount(codes, weights=axis * counts) / np.maximum(totals, 1) for axis in (x, y)]
    names = parts["cells"][spots] if size is None else []
    if size is not None:
        corners = (np.stack([spots >> 32, spots & 0xFFFFFFFF], axis=1) + first) * size
        middles = [*(corners.T + size / 2)]
        names = [f"{left}_{top}" for left, top in corners]
    symbols = parts["genes"]
    var = pd.DataFrame(index=pd.Index(symbols.astype(str)))
    if "symbol" in parts:
        var = _named(var, parts)
    matrix = sp.csr_matrix((counts.astype(np.float32), (codes, genes)), shape=(len(spots), len(symbols)))
    return only_genes(
        Input(
            where=where,
            source=str(source),
            matrix=matrix,
            obs=HeldTable(pd.DataFrame(index=pd.Index([*map(str, names)]))),
            var=var,
            obsm={OBSM_KEYS[0]: np.stack(middles, axis=1).astype(np.float64)},
            unit="DNB",
            instrument=instrument,
            cells_left_out=left_out,
        )
    )


def _named(var: pd.DataFrame, parts: Mapping[str, NDArray[Any]]) -> pd.DataFrame:
    """Return genes named by symbol, with their IDs; a duplicate symbol is replaced by the ID."""
    _, first = np.unique(parts["gene"], return_index=True)
    symbols = pd.Series(parts["symbols"][parts["symbol"][first]]).astype(str)
    is_name = (symbols != "") & ~symbols.duplicated(keep=False)
    ids = var.index.to_numpy()
    return pd.DataFrame({"gene_ids": ids}, index=pd.Index(np.where(is_name, symbols, ids)))
