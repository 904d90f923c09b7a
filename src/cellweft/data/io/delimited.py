"""Tables of cells x genes: .csv, .tsv and .parquet."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from cellweft._errors import FormatError
from cellweft._text import shorten
from cellweft.data.io.columns import OBS_KEYS
from cellweft.data.io.lazy_input import Input, not_as_named
from cellweft.data.io.obs_table import HeldTable

SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}


def read_table(path: Path, *, where: str, suffix: str, obs_columns: Iterable[str]) -> Input:
    """Read a table of cells x genes; text, coordinates and ``obs_columns`` become annotation."""
    try:
        if suffix == ".parquet":
            table = pd.read_parquet(path)
            if isinstance(table.index, pd.RangeIndex) and pd.api.types.is_string_dtype(table.iloc[:, 0]):
                table = table.set_index(table.columns[0])
        else:
            sep = SEPARATORS[suffix]
            table = pd.read_csv(path, sep=sep, index_col=0)
            # pandas tells equal names apart by a suffix, which would hide genes that stand twice
            header = pd.read_csv(path, sep=sep, header=None, nrows=1, dtype=str, keep_default_na=False)
            header_names = header.iloc[0].tolist()[-table.shape[1] :]
            table.columns = pd.Index([str(name) for name in header_names][: table.shape[1]])
    except (ValueError, IndexError) as error:  # of pandas, pyarrow and the decoding of text alike
        raise not_as_named(path, where, str(error)) from error
    names = table.columns.astype(str)
    lower = names.str.lower()
    coordinates = {name for triple in OBS_KEYS if {*triple[:2]} <= {*lower} for name in triple}
    is_number = [pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes]
    is_gene = np.array(is_number, dtype=bool) & ~lower.isin(coordinates) & ~names.isin([*obs_columns])
    if not is_gene.any():
        raise FormatError(
            where,
            expected="a row per cell, names in the first column and a column of numbers per gene",
            got=f"columns {shorten(list(map(str, table.columns))) or '(none)'} without numbers",
            fix="Check the separator (comma in .csv, tab in .tsv) and the header.",
        )
    table.index = table.index.astype(str)
    return Input(
        where=where,
        source=str(path),
        matrix=table.loc[:, is_gene].to_numpy(dtype=np.float32, na_value=np.nan),
        obs=HeldTable(table.loc[:, ~is_gene]),
        var=pd.DataFrame(index=pd.Index([str(name) for name in table.columns[is_gene]])),
    )
