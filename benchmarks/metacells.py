"""Costs and savings of condensing the reference of the default Imputer to metacells.

Held-out genes of real pairs, KFold(5, shuffle, random_state=0) over the sorted shared genes, one seed. Every
fold is trained once and stored in a folder; then its reference is condensed to fewer and fewer metacells.
Time is measured on an artificial reference of the tonsil atlas' size: cells of the motor cortex, each
repeated several times with thinned counts; the tissue consists of other motor cortex cells, thinned more
strongly.
"""

import argparse
import pickle
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from sklearn.cluster import MiniBatchKMeans
from sklearn.model_selection import KFold

import cellweft
from cellweft.data.gene_major import GeneColumns
from cellweft.evaluate.metrics import METRICS
from cellweft.impute.attention import AttentionPredictor, fit_attending, sample_cells
from cellweft.impute.base import FitContext
from cellweft.nn.attention import AttentionModel, with_metacells
from cellweft.nn.config import AttentionSettings
from cellweft.nn.mapping import Mapping
from cellweft.nn.metacells import Metacells, group_cells
from impute_auto import MORE

from common import DATA, PAIRS, markdown, write

SIZES = (4000, 2000, 1000, 500)
SCORES = ["pearson", "spearman", "cosine", "mse"]
TRIED = 500  # metacells with which other ways of making them are compared
ARTIFICIAL = {"reference": 26_717, "tissue": 20_000, "panel": 300, "held": 77}


def opened(name: str) -> cellweft.Pair:
    sc, st, options = (PAIRS | MORE)[name]
    return cellweft.pair(DATA / sc, DATA / st, size_factor=options[1] if options else None)


def artificial() -> cellweft.Pair:
    """Return a pair of the tonsil atlas' size, made of thinned counts of disjoint real cells."""
    stream = np.random.default_rng(0)
    source = ad.read_h5ad(DATA / PAIRS["starmap"][0])
    counts = source.X.toarray().astype(np.int64)
    order, half = stream.permutation(len(counts)), len(counts) // 2
    genes = np.sort(
        np.argsort(-counts.var(axis=0), kind="stable")[: ARTIFICIAL["panel"] + ARTIFICIAL["held"]]
    )
    sides = []
    for cells, size, kept in (
        (order[:half], ARTIFICIAL["reference"], 0.7),
        (order[half:], ARTIFICIAL["tissue"], 0.3),
    ):
        drawn = stream.binomial(counts[np.resize(cells, size)][:, genes], kept).astype(np.float32)
        side = ad.AnnData(drawn)
        side.var_names = source.var_names[genes]
        sides.append(side)
    return cellweft.pair(*sides, coordinates="none")


def trained(pair: cellweft.Pair, kept: np.ndarray, path: Path) -> tuple[AttentionPredictor, cellweft.Pair]:
    """Return the predictor that uses each reference cell, and the pair it was fitted to."""
    panel = pair.hold_out(np.delete(pair.shared_genes, kept))
    columns = GeneColumns.load(pair.sc)
    if not path.exists():
        attending, _ = fit_attending(
            panel,
            columns,
            sample_cells(panel, 0),
            settings=AttentionSettings(),
            work=FitContext(seed=0, devices=(torch.device("cpu"),)),
        )
        path.write_bytes(pickle.dumps((attending.model, attending.levels)))
        print(f"trained {path.name}", flush=True)
    model, levels = pickle.loads(path.read_bytes())
    model = with_metacells(model, None)
    return AttentionPredictor(model=model, levels=levels, columns=columns, queries=np.arange(0)), panel


def predicted(
    attending: AttentionPredictor, panel: cellweft.Pair, genes: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return predictions of genes in all cells, and the seconds of computing, without reading."""
    measured = panel.st.dense(slice(0, panel.st.n_cells), panel.st_shared)
    start = time.process_time()
    found = attending.prepare(genes).values(measured)
    return found, time.process_time() - start


class Scored:
    """Predictions of all folds by one form of attention."""

    def __init__(self) -> None:
        self.carried, self.levelled = [], []
        self.seconds = np.zeros(3)  # grouping, predicting, predicting with levels

    def add(
        self, attending: AttentionPredictor, panel: cellweft.Pair, genes: np.ndarray, *, grouping: float
    ) -> None:
        """Add a fold."""
        carried, alone = predicted(replace(attending, levels=None), panel, genes)
        levelled, both = predicted(attending, panel, genes)
        self.carried.append(carried)
        self.levelled.append(levelled)
        self.seconds += grouping, alone, both

    def row(self, truth: np.ndarray, exact: "Scored") -> dict[str, float]:
        """Return medians over genes, and how they compare with using all cells."""
        carried, levelled, whole = (np.hstack(one) for one in (self.carried, self.levelled, exact.levelled))
        row = {f"attention alone, {name}": np.median(METRICS[name](truth, carried)) for name in SCORES[:3]}
        row |= {name: np.median(METRICS[name](truth, levelled)) for name in SCORES}
        change = 1000 * (METRICS["pearson"](truth, levelled) - METRICS["pearson"](truth, whole))
        row |= {"change": change.mean(), "its standard error": change.std(ddof=1) / len(change) ** 0.5}
        alike = METRICS["pearson"](whole, levelled)
        row |= {"agreement with all cells": np.median(alike), "lowest tenth": np.quantile(alike, 0.1)}
        row |= {"grouping, s": self.seconds[0] / len(self.carried)}
        shares = self.seconds[1:] / exact.seconds[1:]
        row |= {"attention alone, relative time": shares[0], "with levels, relative time": shares[1]}
        return {key: float(value) for key, value in row.items()}


def of_pair(
    name: str, pair: cellweft.Pair, splits: list[tuple[np.ndarray, np.ndarray]], kept: Path
) -> pd.DataFrame:
    """Return scores of one pair, a row for all cells and for each number of metacells."""
    scored: dict[str, Scored] = {}
    truth = []
    for number, (panel_genes, held) in enumerate(splits):
        exact, panel = trained(pair, panel_genes, kept / f"{name}, {number}.pickle")
        genes = pair.sc_shared[held]
        truth.append(pair.st.dense(slice(0, pair.st.n_cells), pair.st_shared[held]))
        scored.setdefault("all cells", Scored()).add(exact, panel, genes, grouping=0)
        for size in (one for one in SIZES if 2 * one < exact.columns.n_cells):
            start = time.process_time()
            model = exact.model.condensed(most=size, seed=0)
            model.mapping(model.sample[:1])  # makes the keys of the metacells
            grouping = time.process_time() - start
            one = scored.setdefault(str(size), Scored())
            one.add(replace(exact, model=model), panel, genes, grouping=grouping)
        print(f"{name}, fold {number}", flush=True)
    joined = np.hstack(truth)
    return pd.DataFrame({way: one.row(joined, scored["all cells"]) for way, one in scored.items()}).T


def tried(
    name: str, pair: cellweft.Pair, splits: list[tuple[np.ndarray, np.ndarray]], kept: Path
) -> pd.DataFrame:
    """Return how close other ways of making metacells come to attention over all cells, on the first fold."""
    panel_genes, held = splits[0]
    exact, _ = trained(pair, panel_genes, kept / f"{name}, 0.pickle")
    model, keys = exact.model, exact.model.keys.numpy()
    values = torch.from_numpy(exact.columns.dense(pair.sc_shared[held]))
    whole = model.mapping(model.sample)
    carried, total = whole.apply(values).numpy(), whole.log_total

    def against(one: AttentionModel, mapping: Mapping) -> dict[str, float]:
        alike = METRICS["pearson"](carried, mapping.apply(one.at_keys(values)).numpy())
        error = mapping.log_total - total
        return {
            "agreement with all cells": float(np.median(alike)),
            "worst gene": float(alike.min()),
            "log total, mean error": float(error.mean()),
            "its standard deviation": float(error.std()),
        }

    def grouped(groups: np.ndarray) -> AttentionModel:
        return with_metacells(model, Metacells(groups=np.unique(groups, return_inverse=True)[1]))

    def sizes_alone(one: AttentionModel) -> Mapping:
        mapping, sizes = one.mapping(model.sample), torch.from_numpy(np.log(one.metacells.sizes))
        keys = torch.cat([mapping.keys[:, :-1], sizes.float()[:, None]], dim=1)
        return Mapping(queries=mapping.queries, keys=keys)

    ways: dict[str, Callable[[], AttentionModel]] = {
        "default": lambda: model.condensed(most=TRIED, seed=0),
        "of the keys, cells alike": lambda: with_metacells(model, group_cells(keys, most=TRIED, seed=0)),
        "the same by mini-batches": lambda: grouped(
            MiniBatchKMeans(TRIED, init="random", n_init=1, batch_size=4096, random_state=0).fit_predict(keys)
        ),
        "at random": lambda: grouped(np.random.default_rng(0).integers(TRIED, size=len(keys))),
    }
    rows = {}
    for way, make in ways.items():
        one = make()
        rows[way] = against(one, one.mapping(model.sample))
        rows[f"{way}, sizes alone"] = against(one, sizes_alone(one))
    return pd.DataFrame(rows).T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "pairs", nargs="*", default=["starmap", "molcart", "embryo", "hypothalamus", "thinned"]
    )
    parser.add_argument("--result", default="metacells")
    parser.add_argument("--kept", type=Path, default=Path(tempfile.gettempdir()) / "cellweft-metacells")
    asked = parser.parse_args()
    asked.kept.mkdir(parents=True, exist_ok=True)
    text = f"# The reference as metacells, on held-out genes\n\n{EXPLAINED}\n\n"
    for name in asked.pairs:
        pair = artificial() if name == "thinned" else opened(name)
        n_genes = len(pair.shared_genes)
        splits = list(KFold(5, shuffle=True, random_state=0).split(np.arange(n_genes)))
        if name == "thinned":
            splits = splits[:1]
        table = of_pair(name, pair, splits, asked.kept)
        text += f"## {name}: {pair.st.n_cells} cells, {pair.sc.n_cells} of the reference, {n_genes} genes\n\n"
        text += markdown(table) + "\n\n"
        text += f"{TRIED} metacells made in other ways, first fold, attention alone:\n\n"
        text += markdown(tried(name, pair, splits, asked.kept)) + "\n\n"
    write(asked.result, text)


EXPLAINED = """Medians over genes of all folds. `attention alone`: without levels; the others: with levels.
`change`: mean over genes of the gain in Pearson over all cells, in thousandths, and its standard error.
`agreement with all cells`: Pearson correlation, over the cells, of a gene as predicted over metacells and
over all cells: median, and lowest tenth. Times are processor times over all threads. `grouping`: seconds
per fold for the groups and their keys. `relative time`: predicting without reading, relative to the same over
all cells; the thinned pair is the most relevant. `log total`: the logarithm of the sum that weights are
divided by. `sizes alone`: without the spread of the weights within a metacell."""


if __name__ == "__main__":
    main()
