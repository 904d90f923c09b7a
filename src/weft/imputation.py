"""One imputation: which genes in which cells, and what comes of it: blocks, tables, record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from weft._errors import NotFittedError, check_range
from weft._typing import DoubleArray, FloatArray, IntArray, Progress
from weft.data.pair import Pair
from weft.data.stream import row_blocks
from weft.imputing import FittedMethod
from weft.plan import Plan
from weft.record import provenance

_LAYERS = ("lower", "upper")

Block: TypeAlias = tuple[slice, slice, str | None, FloatArray]
"""Cells, genes, layer (None for X), and values."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Imputation:
    """Genes to predict in the spatial cells of a pair.

    Attributes
    ----------
    fitted
        What predicts.
    pair, known
        The pair whose cells are predicted, and the one that was fitted to.
    genes
        (n_genes,) positions in the reference.
    plan
        Sizes of the blocks.
    interval
        Share of measured values that the intervals shall hold, or None for no intervals.
    similarity
        (n_cells,) how near the reference comes to each cell, where there are intervals.
    """

    fitted: FittedMethod
    pair: Pair
    known: Pair
    genes: IntArray
    plan: Plan
    interval: float | None
    similarity: DoubleArray | None

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the matrices beside X."""
        return () if self.interval is None else _LAYERS

    def blocks(self, progress: Progress) -> Iterator[Block]:
        """Yield blocks of the result as they are made."""
        intervals = self.fitted.intervals
        for rows, places, block in self.fitted.predictions(
            self.pair, self.genes, plan=self.plan, progress=progress
        ):
            yield rows, places, None, block
            if self.interval is not None and self.similarity is not None and intervals is not None:
                bounds = intervals.bounds(block, similarity=self.similarity[rows], level=self.interval)
                for name, bound in zip(_LAYERS, bounds, strict=True):
                    yield rows, places, name, bound

    def obs(self) -> pd.DataFrame:
        """Return the table of the cells."""
        obs = self.pair.st.obs.copy()
        return obs if self.similarity is None else obs.assign(weft_similarity=self.similarity)

    def var(self) -> pd.DataFrame:
        """Return the table of the genes: ``measured``, and what is known of reliability."""
        var = pd.DataFrame(index=pd.Index(self.pair.sc.genes[self.genes].astype(str)))
        var["measured"] = np.isin(self.genes, self.pair.sc_shared)
        parts = [
            self.fitted.judge(self.genes[part], pair=self.known)
            for part in row_blocks(len(self.genes), self.plan.genes_per_block)
        ]
        known = pd.concat(parts or [self.fitted.judge(self.genes, pair=self.known)])
        return var.assign(**{str(name): column.to_numpy() for name, column in known.items()})

    def record(self, *, preset: str, seed: int) -> dict[str, Any]:
        """Return how it is made, as values that every format stores."""
        record = provenance(
            preset=preset,
            settings=self.fitted.settings,
            seed=seed,
            device=str(self.fitted.device),
            findings=self.pair.findings,
        )
        network = self.fitted.network
        record["embedding"] = network.get("embedding", {"source": "none"})["source"]
        record["network"] = network
        record["scale"] = "log-normalised: log1p(counts / total * median total), as the reference"
        if self.interval is not None:
            record["interval"] = float(self.interval)
        return record


def similarity_for(fitted: FittedMethod, pair: Pair, interval: float | None) -> DoubleArray | None:
    """Return what intervals need to know of cells, after a look at whether there can be any.

    Parameters
    ----------
    fitted, pair
        What predicts, and whose cells.
    interval
        Share of measured values that the intervals shall hold, or None for no intervals.

    Raises
    ------
    SettingError
        The interval is out of its range.
    NotFittedError
        The method has learned none.
    """
    if interval is None:
        return None
    check_range("interval", interval, low=0.01, high=0.999)
    similarity = None if fitted.intervals is None else fitted.similarity(pair)
    if similarity is None:
        raise NotFittedError(
            "interval",
            expected="an Imputer that has learned intervals",
            got="one without",
            fix="Use preset='auto' with reliability=True, and a panel of at least 6 genes.",
        )
    return similarity
