"""One imputation: its genes and cells, and its results: tiles, tables, record."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cellweft._compute import BLOCK_GENES, row_blocks
from cellweft._errors import NotFittedError, arg
from cellweft._provenance import provenance
from cellweft._typing import DoubleArray, FloatArray, IntArray, Progress, ResultScale
from cellweft.data._pair import Pair, inputs_of
from cellweft.data.digest import digest_of
from cellweft.data.io.journal import Journal, kept_mark
from cellweft.data.io.keys import (
    INTERVAL,
    MEASURED,
    MEASUREMENT_WEIGHT,
    NO_COUNTS,
    SCALE_TEXTS,
    SIMILARITY,
    SPILLOVER,
)
from cellweft.data.io.obs_table import Annotation, ExtendedTable, HeldTable
from cellweft.data.io.prefetch import BackgroundWriter, prefetch
from cellweft.data.io.write import ResultWriter
from cellweft.data.side import gene_table, relative_sizes
from cellweft.impute.base import FittedMethod, Predictor
from cellweft.impute.fingerprint import data_mark, machine_mark, model_mark
from cellweft.impute.panel_blend import BlendedGenes, PanelBlend
from cellweft.impute.planning import Plan
from cellweft.impute.uncertainty.count_model import plain_counts

Values: TypeAlias = dict[str | None, FloatArray]
"""Values of a tile, by layer (None for X)."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A part of a result that is computed and written at once.

    Attributes
    ----------
    number
        Its index among the tiles; cells vary fastest, then genes.
    rows, places
        Positions of its cells, and of its genes in the request.
    """

    number: int
    rows: slice
    places: slice

    @property
    def n_values(self) -> int:
        """Number of cells times genes."""
        n_cells, n_genes = (part.stop - part.start for part in (self.rows, self.places))
        return int(n_cells * n_genes)


@dataclass(frozen=True, kw_only=True, eq=False)
class Imputation:
    """Genes to predict in the spatial cells of a pair.

    Attributes
    ----------
    fitted
        The fitted method.
    pair, known
        The pair with the cells to predict, and the pair of the fit.
    genes
        (n_genes,) positions in the reference.
    plan
        Sizes of the tiles.
    interval
        Share of measured values that the intervals should contain, or None for no intervals.
    similarity
        (n_cells,) similarity of each cell to the reference, if there are intervals.
    scale
        Scale of the values, "log" or "counts".
    blend
        Blend of panel genes with their measurement, or None if they are only predicted.
    spillover
        (n_cells,) share of each cell's counts that spilled over, or None to omit it.
    """

    fitted: FittedMethod
    pair: Pair
    known: Pair
    genes: IntArray
    plan: Plan
    interval: float | None
    similarity: DoubleArray | None
    scale: ResultScale = "log"
    blend: PanelBlend | None = None
    spillover: DoubleArray | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the matrices in addition to X."""
        return () if self.interval is None else INTERVAL

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """All tiles of the result."""
        plan = self.plan
        rows = list(row_blocks(plan.n_cells, plan.cells_per_block))
        parts = product(row_blocks(plan.n_genes, plan.genes_per_block), rows)
        return tuple(
            Tile(number=number, rows=cells, places=genes) for number, (genes, cells) in enumerate(parts)
        )

    def made(self, progress: Progress, *, done: Collection[int] = ()) -> Iterator[tuple[Tile, Values]]:
        """Compute the tiles, and yield each with its values; cells are read ahead.

        Parameters
        ----------
        progress
            Called after each tile.
        done
            Numbers of tiles that exist.
        """
        left = [tile for tile in self.tiles if tile.number not in done]
        n_values = self.plan.n_values
        n_done = n_values - sum(tile.n_values for tile in left)
        places, predictor = None, None
        for tile, measured in zip(left, prefetch(self.read(tile) for tile in left), strict=True):
            if predictor is None or tile.places != places:
                places, predictor = tile.places, None  # free the old one before creating the new one
                predictor = self.prepare(tile)
            yield tile, self.values(tile, predictor, measured)
            n_done += tile.n_values
            progress("impute", n_done, n_values)

    def prepare(self, tile: Tile) -> Predictor:
        """Return the predictor of the genes of a tile."""
        genes = self.genes[tile.places]
        return self.fitted.prepare(genes) if self.blend is None else self.blend.prepare(self.fitted, genes)

    def read(self, tile: Tile) -> FloatArray:
        """Return the panel of the cells of a tile, (n_rows, n_panel)."""
        return self.pair.st.dense(tile.rows, self.pair.st_shared)

    def values(self, tile: Tile, predictor: Predictor, measured: FloatArray) -> Values:
        """Return the values of a tile. They depend only on the fit, its cells and its genes.

        Parameters
        ----------
        tile, predictor, measured
            An element of `tiles`, and the results of `prepare` and `read` for it.
        """
        values: Values = {None: predictor.values(measured)}
        intervals = self.fitted.intervals
        if self.interval is not None and self.similarity is not None and intervals is not None:
            bounds = intervals.bounds(
                values[None], similarity=self.similarity[tile.rows], level=self.interval
            )
            values.update(zip(INTERVAL, bounds, strict=True))
        if self.scale == "counts":
            model, predicted = self.fitted.count_model or plain_counts(), values.pop(None)
            counts = model.scaled(
                predicted, self._sizes[tile.rows], depth=self.pair.st.depth, bounds=tuple(values.values())
            )
            values = dict(zip((None, *values), counts, strict=True))
        if isinstance(predictor, BlendedGenes):
            sizes = self._sizes[tile.rows][:, None]
            for columns, blended in predictor.blended(measured, self.pair.st, tile.rows):
                logs = np.log1p(np.divide(blended, sizes, out=np.zeros_like(blended), where=sizes > 0))
                updated = np.where(
                    sizes > 0, blended if self.scale == "counts" else logs, values[None][:, columns]
                )
                values[None][:, columns] = updated
        return values

    @cached_property
    def _sizes(self) -> DoubleArray:
        return relative_sizes(self.pair.st)

    def obs(self) -> Annotation:
        """Return the table of the cells, read column by column if it is in a file."""
        side = self.pair.st
        table = side.table if side.rows is None else HeldTable(side.obs)
        more: dict[str, NDArray[Any]] = {}
        if self.pair.blank_cells.any():
            more[NO_COUNTS] = self.pair.blank_cells
        if self.similarity is not None:
            more[SIMILARITY] = self.similarity
        if self.spillover is not None:
            more[SPILLOVER] = self.spillover
        return ExtendedTable(table, more)

    @cached_property
    def var(self) -> pd.DataFrame:
        """The table of the genes: other names, ``measured``, and columns of reliability."""
        var = gene_table(self.pair.sc, self.genes)
        var[MEASURED] = np.isin(self.genes, self.pair.sc_shared)
        parts = [self.genes[part] for part in row_blocks(len(self.genes), BLOCK_GENES)] or [self.genes]
        scores = pd.concat([self.fitted.score_reliability(part, pair=self.known) for part in parts])
        if self.blend is not None:
            var[MEASUREMENT_WEIGHT] = self.blend.weights(self.genes)
        return var.assign(**{str(name): column.to_numpy() for name, column in scores.items()})

    def mark(self, *, dtype: str, sparse: float | None) -> dict[str, Any]:
        """Return all that the values of the tiles depend on, by name, for resuming a run.

        Parameters
        ----------
        dtype, sparse
            Data type of the values, and the threshold of a sparse result.
        """
        more = {} if self.spillover is None else {"spillover": digest_of(self.spillover)}
        return {
            **more,
            "preset": self.fitted.preset,
            "seed": self.fitted.seed,
            "dtype": dtype,
            "sparse": sparse,
            **machine_mark(),
            "settings": asdict(self.fitted.settings),
            "device": str(self.fitted.device),
            "model": model_mark(self.fitted.folder(self.known)),
            **data_mark(self.pair),
            "depth": self.pair.st.depth,
            "genes": digest_of(self.genes),
            "interval": self.interval,
            "scale": self.scale,
            "measured": "predict" if self.blend is None else self.blend.mark,
            "tiles": [self.plan.cells_per_block, self.plan.genes_per_block],
        }

    def record(self, *, fit_seconds: float) -> dict[str, Any]:
        """Return the record of the imputation, as values that any format can store."""
        record = fitted_record("imputed", self.fitted, self.pair, fit_seconds=fit_seconds)
        network = self.fitted.network
        record["embedding"] = network.get("embedding", {"source": "none"})["source"]
        record["network"] = network
        record["scale"] = SCALE_TEXTS[self.scale]
        if self.scale == "counts":
            learned = self.fitted.count_model
            record["count_model"] = "none learned" if learned is None else learned.name
        if self.blend is not None:
            record["measured"] = "blend"
        if self.interval is not None:
            record["interval"] = float(self.interval)
        return record


def fitted_record(kind: str, fitted: FittedMethod, pair: Pair, *, fit_seconds: float) -> dict[str, Any]:
    """Return the record of a result of a fitted method; see `cellweft._provenance.provenance`.

    Parameters
    ----------
    kind
        Kind of result: "imputed" or "labels".
    fitted, pair
        The method and the data.
    fit_seconds
        Duration of the fit.
    """
    return provenance(
        kind,
        preset=fitted.preset,
        settings=fitted.settings,
        seed=fitted.seed,
        device=str(fitted.device),
        inputs=inputs_of(pair),
        fit_seconds=fit_seconds,
    )


def in_tiles_of(job: Imputation, target: Path) -> Imputation:
    """Return an imputation with the tiles of an interrupted run, if they are not larger than its own.

    Parameters
    ----------
    job
        The imputation.
    target
        Path of the output.
    """
    cells, genes = kept_mark(target).get("tiles", (0, 0))
    plan = job.plan
    if not (0 < cells <= plan.cells_per_block and 0 < genes <= plan.genes_per_block):
        return job
    return replace(job, plan=replace(plan, cells_per_block=cells, genes_per_block=genes))


def write_tiles(
    job: Imputation, writer: ResultWriter, journal: Journal | None, *, progress: Progress
) -> Path:
    """Compute an imputation and write it, tile by tile; reading, computing and writing run in parallel.

    Parameters
    ----------
    job
        The imputation.
    writer
        Writer of the whole result, not yet entered.
    journal
        Journal of the written tiles, if the run can be resumed.
    progress
        Called after each tile.

    Returns
    -------
    Path
        Path of the result.
    """

    def put(tile: Tile, values: Values) -> None:
        for name, block in values.items():
            writer.write(tile.rows, tile.places, block, layer=name)
        if journal is not None:
            journal.add(tile.number)

    done = frozenset() if journal is None else journal.done
    with writer, BackgroundWriter(put) as behind:
        for tile in job.tiles:
            if tile.number in done:
                writer.note(tile.rows, tile.places)
        if journal is not None and done:
            journal.remove_torn()
        for tile, values in job.made(progress, done=done):
            behind(tile, values)
    return writer.path


def similarity_for(fitted: FittedMethod, pair: Pair, interval: float | None) -> DoubleArray | None:
    """Return the similarities that intervals need, after checking that intervals are possible.

    Parameters
    ----------
    fitted, pair
        The fitted method, and the pair with the cells.
    interval
        Share of measured values that the intervals should contain, or None for no intervals.

    Raises
    ------
    NotFittedError
        The method has not learned intervals.
    """
    if interval is None:
        return None
    similarity = None if fitted.intervals is None else fitted.similarity(pair)
    if similarity is None:
        raise NotFittedError(
            "interval",
            expected="an Imputer that has learned intervals",
            got="one that has not",
            fix="Use "
            + arg("preset", "auto")
            + " with "
            + arg("reliability", True)
            + ", and a panel of at least 6 genes.",
        )
    return similarity
