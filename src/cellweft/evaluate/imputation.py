"""Evaluation of imputation: predictions of held-out genes, in cells used for training or held out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from cellweft._errors import (
    KeyMissingError,
    SettingError,
    arg,
    check_array,
    check_choice,
    check_range,
    checks_kinds,
    sentence,
)
from cellweft._typing import DoubleArray, FloatArray, IntArray, ProgressOption, ResultScale
from cellweft.data._pair import Pair
from cellweft.data.batches import without_batches
from cellweft.data.hold_out import panel_reference, whole_genes
from cellweft.data.io.keys import RELIABILITY
from cellweft.data.side import Side, relative_sizes
from cellweft.evaluate.methods import Predictor, Reliable, makes_counts, resolve_methods
from cellweft.evaluate.metrics import METRICS
from cellweft.evaluate.score_table import COLUMNS as COLUMNS
from cellweft.evaluate.score_table import score_methods, score_rows
from cellweft.genes.embeddings import EmbeddingSource
from cellweft.genes.gene_sets import GeneSets, GeneSetSource, read_gene_sets
from cellweft.genes.interactions import EdgeSource
from cellweft.genes.network import read_network
from cellweft.impute.uncertainty.count_model import check_counts, plain_counts
from cellweft.tl._clustering import cluster_scores, coexpression_modules, leiden_clusters, require_leiden

HoldOut: TypeAlias = Literal["genes", "cells", "fraction"]
"""What is held out: folds of genes; folds of cells, and some genes of all cells; some genes."""
Protocol: TypeAlias = Literal["cut", "published"]
"""Whether held-out genes are removed first, or still contribute to the totals of the whole panel."""
_PROTOCOLS: dict[str, str] = {
    "cut": (
        "held-out genes are removed before any method sees the data, and cells are normalised by the "
        "remaining genes."
    ),
    "published": "cells are normalised by the whole panel, held-out genes included, as published.",
}
_SPLIT_SEED = 0  # of the published protocol; folds do not depend on the seeds of the methods
COUNTS_SUFFIX = "_counts"
"""Suffix of the names of scores of counts."""
_FOLDS, _KEEP = 5, 0.8
_MODULE_GENES = 3  # fewer genes do not form modules
_UNKNOWN = "unknown"  # a missing label in a pair


@checks_kinds
def evaluate_imputation(
    pair: Pair,
    methods: Sequence[str | Predictor],
    *,
    by: HoldOut = "genes",
    protocol: Protocol = "cut",
    scale: ResultScale = "log",
    folds: int = _FOLDS,
    keep: float = _KEEP,
    seeds: Sequence[int] = (0,),
    leave_out_batch: bool = False,
    cluster: bool = True,
    reliability: bool = False,
    embedding: EmbeddingSource | None = None,
    gene_sets: GeneSetSource | Sequence[GeneSetSource] | None = None,
    edges: EdgeSource | Sequence[EdgeSource] | None = None,
    device: str = "auto",
    progress: ProgressOption = True,
) -> pd.DataFrame:
    """Hide panel genes, predict them with several methods, and score the predictions.

    `evaluate_placement` does the same for methods that place cells.

    Parameters
    ----------
    pair
        Reference and spatial data.
    methods
        Names (``"auto"``, ``"stimpute"``, ``"mean"``, ``"knn"``, ``"attention"``, with settings as in
        ``"knn:k=20+space=log"``) or unfitted objects with ``fit(pair)`` and ``predict(genes, pair)``.
    by
        ``"genes"``: folds of the shared genes, each predicted from the other genes. ``"cells"``: folds of the
        spatial cells; a method is fitted to the kept genes of the other cells, and predicts the remaining
        genes of the held-out cells from their kept genes. ``"fraction"``: a method is fitted to the kept
        genes of all cells and predicts the others.
    protocol
        ``"cut"``: held-out genes are removed first, as in `Pair.hold_out`, and cells are normalised by their
        totals over the remaining genes. ``"published"``: cells are normalised by the totals of the whole
        panel. Held-out genes leave a trace in these totals, from which an abundant gene can be predicted.
    scale
        ``"log"``: score log-normalised values. ``"counts"``: also score counts; the names of these scores end
        in ``_counts``, for example ``"pearson_counts"``. The counts of a method are the result of
        ``predict(genes, pair, scale="counts")``. If its ``predict`` has no ``scale``, as for the baselines,
        they are ``expm1`` of its prediction times the cell's total divided by that of the median cell.
    folds
        Number of folds, at least 2, for ``"genes"`` and ``"cells"``.
    keep
        Fraction of the shared genes to keep, between 0 and 1, for ``"cells"`` and ``"fraction"``.
    seeds
        Random seeds; every method is run with each of them. Folds and kept genes are always the same.
    leave_out_batch
        Whether to predict the same genes again without each batch (donor, technology, atlas) of the
        reference. Requires a pair with ``reference_batch``, and takes one more fit per fold and batch.
    cluster
        Whether to compare clusters of cells with the labels of the spatial data, if there are any, and gene
        modules with those of the measured values. Requires the extra ``clustering``. The search for
        neighbours is exact, and slow above about 100,000 cells.
    reliability
        Whether to add the expected reliability of each gene, from methods that provide it, and the scores of
        the more reliable half.
    embedding
        Gene embeddings for Imputers that are given by name: a path, or a table in memory.
    gene_sets, edges
        Gene sets and pairs of genes for these Imputers, as in `cellweft.Imputer`.
    device
        Device for Imputers that are given by name. If you give several, such as "cuda:0,cuda:1", or "all" for
        all GPUs, methods, seeds and folds run in parallel, one fit per device.
    progress
        True shows a bar in terminals and notebooks, False shows nothing; a callback is called with
        (stage, done, total) before each fit and at the end.

    Returns
    -------
    One row per score: ``method``, as given; ``seed``; ``fold``, -1 for all folds; ``level``, "gene", "cell",
    "summary" or "batch"; ``item``; ``metric``; ``value``. Genes and cells are scored over all predictions of
    a method and seed, with every score of `cellweft.metrics`. Items of the summary are "median over genes",
    "mean over genes", "median over cells", "mean over cells", "clusters", "modules" and "most reliable half".
    At the level "batch", the item is the batch that was left out, and the value is the median over genes.
    ``attrs["cellweft"]`` contains versions, parameters, seeds and a description of the pair.

    Raises
    ------
    KeyMissingError
        ``leave_out_batch`` is used with a pair without batches.
    SettingError
        A method or option does not exist, is out of range, or does not apply to ``by``.
    ScaleError
        Scores of counts were requested, but the spatial data are not counts.
    InputError
        A method returned an array of the wrong shape, or NaN.
    MissingExtraError
        ``cluster`` is used without the extra ``clustering``.

    Notes
    -----
    Gene folds are those of the published protocol: ``KFold(folds, shuffle=True, random_state=0)`` over the
    sorted shared genes.

    With ``"cut"``, the spatial data that methods get contain only the kept genes, normalised by their sum.
    They have no labels, ``obs``, ``obsm``, ``uns`` or size factors, because these may depend on all genes.
    The reference contains only the shared genes, including the held-out ones, so that the result does not
    depend on other genes. A reference of counts with fewer than 2,000 genes and no size factors is normalised
    by its totals over the shared genes, and the weights of gene sets are computed from these genes only. If
    the reference is larger, they are computed from all of its genes. The truth, which no method sees, is the
    same in all folds: ``log1p(x / total * target)``, with each cell's sum over all shared genes and the
    median of these sums. With ``"published"``, both inputs and the truth are normalised as in
    `cellweft.pair`.

    If a method raises an error, the evaluation stops. A note on the error names the method, seed and fold.

    Examples
    --------
    >>> import anndata as ad
    >>> import cellweft.data._pair
    >>> counts = np.random.default_rng(0).poisson(2.0, (30, 6)).astype("float32")
    >>> cells = ad.AnnData(counts, var=pd.DataFrame(index=["Gad1", "Gad2", "Pvalb", "Sst", "Vip", "Lamp5"]))
    >>> pair = cellweft.pair(cells, cells[:20].copy(), coordinates="none")
    >>> table = evaluate_imputation(pair, ["mean", "knn:k=3"], folds=3, cluster=False)
    >>> table[table.item == "median over genes"].pivot(index="method", columns="metric", values="value").shape
    (2, 7)
    """
    check_choice("by", by, get_args(HoldOut))
    check_choice("protocol", protocol, get_args(Protocol))
    check_counts(pair, scale)
    if leave_out_batch:
        _check_batches(pair)
    splits = _splits(len(pair.shared_genes), pair.st.n_cells, by, folds=folds, keep=keep)
    _check_used(by, folds=folds, keep=keep)
    if cluster:  # fail before any method is fitted
        require_leiden(otherwise=sentence("Or skip the comparison of clusters: {}.", arg("cluster", False)))
    source_names = ("embedding", "gene_sets", "edges")
    network = read_network(source_names, embedding=embedding, gene_sets=gene_sets, edges=edges)
    if protocol == "cut":
        genes = whole_genes(pair.sc, pair.sc_shared)
        network = replace(network, gene_sets=_sets_of(network.gene_sets, genes))
        methods = [_with_sets_of(method, genes) for method in methods]
    job = _Job.of(
        pair,
        splits,
        protocol=protocol,
        counts=scale == "counts",
        leave_out_batch=leave_out_batch,
        cluster=cluster,
        reliability=reliability,
    )
    parameters: dict[str, Any] = {"by": by, "protocol": protocol, "folds": folds, "keep": keep}
    parameters |= {"scale": scale, "cluster": cluster, "leave_out_batch": leave_out_batch}
    parameters |= {name: network.sources.get(name) for name in source_names}
    return score_methods(
        pair,
        methods,
        resolve=partial(resolve_methods, network=network, reliability=reliability, counts=scale == "counts"),
        fit=partial(_predict, job),
        score=partial(_scores, job),
        n_steps=len(splits) * (1 + len(job.left_out)),
        step_name=job.step_name,
        seeds=seeds,
        parameters=parameters | {"reliability": reliability},
        device=device,
        progress=progress,
    )


def _counts(pair: Pair, genes: IntArray) -> FloatArray:
    """Return counts of shared genes, given by their positions, in all spatial cells."""
    stored = pair.st.stored(slice(0, pair.st.n_cells), pair.st_shared[genes])
    return np.asarray(stored.toarray() if sp.issparse(stored) else stored, dtype=np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Split:
    """One fit: positions among the shared genes and among the spatial cells."""

    kept: IntArray  # genes for training
    held: IntArray  # genes to predict
    seen: IntArray | None = None  # cells for training, None for all
    cells: IntArray | None = None  # cells to predict, None for all


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    """What is the same for all methods."""

    pair: Pair
    splits: list[_Split]
    shown: list[Pair]  # input of the methods, in all cells, one per split
    scored: IntArray  # positions among the shared genes of the columns of truth
    truth: FloatArray  # n_st x n_scored
    counts: FloatArray | None  # the same as counts, if counts are scored
    left_out: dict[str, tuple[Side, IntArray]]  # references without a batch, and their cells
    cluster: bool
    reliability: bool

    @classmethod
    def of(
        cls,
        pair: Pair,
        splits: list[_Split],
        *,
        protocol: Protocol,
        counts: bool,
        leave_out_batch: bool,
        cluster: bool,
        reliability: bool,
    ) -> _Job:
        """Return the job of some fits, with the truth for the protocol."""
        scored = np.unique(np.concatenate([split.held for split in splits]))
        whole = pair if protocol == "published" else _panel_alone(pair)
        return cls(
            pair=pair,
            splits=splits,
            shown=_shown(whole, splits, protocol),
            scored=scored,
            truth=whole.st.dense(slice(0, pair.st.n_cells), whole.st_shared[scored]),
            counts=_counts(pair, scored) if counts else None,
            left_out=without_batches(whole.sc) if leave_out_batch else {},
            cluster=cluster,
            reliability=reliability,
        )

    def step(self, number: int) -> tuple[int, str]:
        """Return the fold of a step, and the batch left out of its reference, or nothing."""
        turn, fold = divmod(number, len(self.splits))
        return fold, ["", *self.left_out][turn]

    def step_name(self, number: int) -> str:
        """Return the name of a step in errors."""
        fold, batch = self.step(number)
        return f"fold {fold}" + f", without the batch {batch!r}" * bool(batch)

    def folds(self) -> tuple[IntArray, IntArray]:
        """Return the fold of each scored gene and of each cell, -1 if all folds predicted it."""
        genes = np.full(self.truth.shape[1], -1, dtype=np.int64)
        cells = np.full(self.truth.shape[0], -1, dtype=np.int64)
        for number, split in enumerate(self.splits):
            if split.cells is None:
                genes[np.searchsorted(self.scored, split.held)] = number
            else:
                cells[split.cells] = number
        return genes, cells


def _check_used(by: HoldOut, *, folds: int, keep: float) -> None:
    """Raise `SettingError` for an option that does not apply to ``by``."""
    for name, value, default, unused in (
        ("folds", folds, _FOLDS, "fraction"),
        ("keep", keep, _KEEP, "genes"),
    ):
        if by == unused and value != default:
            first, second = (other for other in get_args(HoldOut) if other != unused)
            raise SettingError(
                name,
                expected=arg("by", first) + " or " + arg("by", second) + ", to which it applies",
                got=arg("by", by),
                fix="Leave out " + arg(name) + ", or change " + arg("by") + ".",
            )


def _splits(n_genes: int, n_cells: int, by: HoldOut, *, folds: int, keep: float) -> list[_Split]:
    """Return the fits, each with sorted genes."""
    from sklearn.model_selection import KFold, ShuffleSplit

    check_range("folds", folds, low=2, high=n_cells if by == "cells" else n_genes, integer=True)
    check_range("keep", keep, low=0, high=1)
    cutter = KFold(folds, shuffle=True, random_state=_SPLIT_SEED)
    if by == "genes":
        splits = [_Split(kept=kept, held=held) for kept, held in cutter.split(np.arange(n_genes))]
    else:
        n_kept = round(keep * n_genes)
        if not 2 <= n_kept < n_genes:
            raise SettingError(
                "keep",
                expected=(
                    f"a fraction of the {n_genes} shared genes that keeps at least 2 and holds out at least 1"
                ),
                got=f"{keep:g}, which keeps {n_kept}",
                fix="Change " + arg("keep") + ".",
            )
        draw = ShuffleSplit(1, train_size=n_kept, test_size=n_genes - n_kept, random_state=_SPLIT_SEED)
        kept, held = (np.sort(part) for part in next(draw.split(np.arange(n_genes))))
        splits = [_Split(kept=kept, held=held)]
        if by == "cells":
            parts = cutter.split(np.arange(n_cells))
            splits = [_Split(kept=kept, held=held, seen=seen, cells=cells) for seen, cells in parts]
    fewest = min(len(split.kept) for split in splits)
    if fewest < 2:
        raise SettingError(
            "folds",
            expected=f"folds that leave at least 2 of the {n_genes} shared genes for training",
            got=f"{folds}, which leave {fewest}",
            fix="Raise " + arg("folds") + ", or use a pair with more shared genes.",
        )
    return splits


def _panel_alone(pair: Pair) -> Pair:
    """Return a pair with only its shared genes on both sides, so that other genes do not affect scores."""
    part = pair.hold_out([])
    reference = panel_reference(pair.sc, pair.sc_shared)
    return replace(part, sc=reference, sc_shared=np.arange(len(pair.shared_genes)))


def _with_sets_of(method: str | Predictor, genes: NDArray[np.str_]) -> str | Predictor:
    """Return a method; an `Imputer` with gene sets gets them restricted to genes that the reference has."""
    from cellweft.impute.imputer import Imputer

    if not isinstance(method, Imputer) or method.gene_sets is None:
        return method
    return replace(method, gene_sets=_sets_of(read_gene_sets(method.gene_sets), genes))


def _sets_of(sets: GeneSets | None, genes: NDArray[np.str_]) -> GeneSets | None:
    return None if sets is None else sets.of_genes(genes)


def _shown(pair: Pair, splits: list[_Split], protocol: Protocol) -> list[Pair]:
    """Return the part of a pair that methods may use in each split: its kept genes, in all cells."""
    if protocol == "published":
        return [pair.panel(pair.shared_genes[split.kept]) for split in splits]
    parts: dict[bytes, Pair] = {}  # folds of cells have the same genes
    for split in splits:
        if (key := split.held.tobytes()) not in parts:
            parts[key] = pair.hold_out(pair.shared_genes[split.held])
    return [parts[split.held.tobytes()] for split in splits]


def protocol_text(record: Mapping[str, Any]) -> str:
    """Return a text on how genes were held out, for tables and reports; empty if unknown.

    Parameters
    ----------
    record
        ``attrs["cellweft"]`` of a table of scores.

    Examples
    --------
    >>> protocol_text({"parameters": {"protocol": "published"}})
    'Protocol published: cells are normalised by the whole panel, held-out genes included, as published.'
    """
    protocol = record.get("parameters", {}).get("protocol")
    if not isinstance(protocol, str) or protocol not in _PROTOCOLS:
        return ""
    sizes = record.get("pair", {}).get("spatial", {}).get("size_factor")
    said = f"Protocol {protocol}: {_PROTOCOLS[protocol]}"
    return said + f" obs[{sizes!r}] of the spatial data is not used." * bool(sizes and protocol == "cut")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Prediction:
    """Predictions of one fit, (cells x genes of the split), or of all fits together."""

    logs: FloatArray
    counts: FloatArray | None  # if counts are scored
    reliability: DoubleArray | None  # of the genes, if the method provides it


def _predict(job: _Job, method: Predictor, number: int) -> _Prediction:
    """Fit a method to a split, with the whole reference or without a batch, and predict the rest."""
    number, batch = job.step(number)
    split, pair = job.splits[number], job.shown[number]
    train = test = _without(pair, job.left_out[batch]) if batch else pair
    if split.seen is not None and split.cells is not None:
        train, test = train.cells(split.seen), train.cells(split.cells)
    genes, reliability, counts = job.pair.shared_genes[split.held], None, None
    fitted = method.fit(train)
    block = _checked(fitted.predict(genes, test), test, genes)
    if job.counts is not None:
        if makes_counts(fitted):
            own: Any = fitted  # predict may take a scale
            counts = _checked(own.predict(genes, test, scale="counts"), test, genes)
        else:
            counts = plain_counts().scaled(block, relative_sizes(test.st))[0]
    if job.reliability and isinstance(fitted, Reliable):
        reliability = np.asarray(fitted.reliability_of(genes))
    return _Prediction(logs=block, counts=counts, reliability=reliability)


def _without(pair: Pair, part: tuple[Side, IntArray]) -> Pair:
    """Return a pair with a part of its reference."""
    side, cells = part
    return replace(pair, sc=side, labels=None if pair.labels is None else pair.labels[cells])


def _checked(prediction: Any, test: Pair, genes: NDArray[np.str_]) -> FloatArray:
    """Return the prediction of a method as an array, after checking it."""
    block, shape = np.asarray(prediction), (test.st.n_cells, len(genes))
    check_array(
        "prediction",
        block,
        fits=block.shape == shape,
        expected=f"finite values, {shape[0]} cells x {shape[1]} genes",
        fix="Check what predict(genes, pair) of the method returns.",
    )
    return block


def _put_together(job: _Job, predictions: Iterable[_Prediction]) -> _Prediction:
    """Return the combined predictions of all folds, n_st x n_scored, and the reliability of genes, if any."""
    predicted = np.full(job.truth.shape, np.nan, dtype=np.float32)
    counts = None if job.counts is None else np.full_like(predicted, np.nan)
    reliable, times = np.zeros(len(job.scored)), np.zeros(len(job.scored))
    for split, prediction in zip(job.splits, predictions, strict=True):
        columns = np.searchsorted(job.scored, split.held)
        cells = np.arange(job.pair.st.n_cells) if split.cells is None else split.cells
        predicted[np.ix_(cells, columns)] = prediction.logs
        if counts is not None:
            counts[np.ix_(cells, columns)] = prediction.counts
        if prediction.reliability is not None:
            reliable[columns] += prediction.reliability
            times[columns] += 1
    reliability = reliable / times if times.all() else None
    return _Prediction(logs=predicted, counts=counts, reliability=reliability)


def _scores(job: _Job, predictions: Iterable[_Prediction], seed: int) -> pd.DataFrame:
    """Return all rows of one method and seed, without their names."""
    predictions = iter(predictions)
    together = _put_together(job, islice(predictions, len(job.splits)))
    predicted, reliable = together.logs, together.reliability
    gene_folds, cell_folds = job.folds()
    by_gene, by_cell = _metrics(job.truth, predicted), _metrics(job.truth.T, predicted.T)
    if job.counts is not None and together.counts is not None:
        by_gene |= _metrics(job.counts, together.counts, suffix=COUNTS_SUFFIX)
        by_cell |= _metrics(job.counts.T, together.counts.T, suffix=COUNTS_SUFFIX)
    summary: dict[str, dict[str, float]] = {}
    for level, values in (("genes", by_gene), ("cells", by_cell)):
        for how, middle in (("median", np.median), ("mean", np.mean)):
            summary[f"{how} over {level}"] = {name: float(middle(each)) for name, each in values.items()}
    if job.cluster:
        summary |= _group_scores(job, predicted, seed=seed)
    if reliable is not None:
        best = np.argsort(-reliable, kind="stable")[: (len(reliable) + 1) // 2]
        summary["most reliable half"] = {
            name: float(np.median(gene_scores[best])) for name, gene_scores in by_gene.items()
        }
        by_gene[RELIABILITY] = reliable
    genes, cells = job.pair.shared_genes[job.scored], job.pair.st.obs_names
    rows = [
        *(_rows("gene", genes, gene_folds, by_gene)),
        *(_rows("cell", cells, cell_folds, by_cell)),
        *(row for item, scores in summary.items() for row in _rows("summary", [item], -1, scores)),
        *(
            row
            for name in job.left_out
            for row in _batch_rows(job, name, islice(predictions, len(job.splits)))
        ),
    ]
    return pd.concat(rows, ignore_index=True)


def _batch_rows(job: _Job, name: str, predictions: Iterable[_Prediction]) -> list[pd.DataFrame]:
    """Return rows with the medians over genes of predictions without a batch."""
    together = _put_together(job, predictions)
    scores = _metrics(job.truth, together.logs)
    if job.counts is not None and together.counts is not None:
        scores |= _metrics(job.counts, together.counts, suffix=COUNTS_SUFFIX)
    return _rows("batch", [name], -1, {metric: float(np.median(each)) for metric, each in scores.items()})


def _check_batches(pair: Pair) -> None:
    if pair.sc.batches is None:
        raise KeyMissingError(
            "leave_out_batch",
            expected="a reference with batches, so that each can be left out in turn",
            got="a pair that was created without " + arg("reference_batch"),
            fix="Specify the column of obs when you create the pair: "
            + arg("reference_batch", "COLUMN")
            + ".",
        )


def _metrics(truth: FloatArray, predicted: FloatArray, *, suffix: str = "") -> dict[str, DoubleArray]:
    """Return all scores of the columns by name."""
    return {name + suffix: score(truth, predicted) for name, score in METRICS.items()}


def _rows(level: str, items: Any, folds: IntArray | int, scores: Mapping[str, Any]) -> list[pd.DataFrame]:
    return [score_rows(level, items, folds, metric=name, values=values) for name, values in scores.items()]


def _group_scores(job: _Job, predicted: FloatArray, *, seed: int) -> dict[str, dict[str, float]]:
    """Return the agreement of predicted clusters with labels, and of predicted modules with measured ones."""
    scores, labels = {}, job.pair.st_labels
    if labels is not None and (has_label := labels != _UNKNOWN).any():
        clusters = leiden_clusters(predicted, seed=seed)
        scores["clusters"] = cluster_scores(labels[has_label], clusters[has_label])
    if len(job.scored) >= _MODULE_GENES:
        genes = job.pair.shared_genes[job.scored]
        measured, imputed = (
            coexpression_modules(values, genes, seed=seed).to_numpy() for values in (job.truth, predicted)
        )
        agreement = cluster_scores(measured, imputed)
        scores["modules"] = {name: agreement[name] for name in ("ari", "nmi")}
    return scores
