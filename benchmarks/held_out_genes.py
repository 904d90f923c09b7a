"""Genes held out of real pairs: what a fit without them learns from, and its predictions of them.

The tables of intervals and of reliability use the same fits. Each is kept in a folder, so that an interrupted
run can be resumed, and a table can be made again without fitting.
"""

import argparse
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import KFold

from cellweft._compute import READ_ROWS, row_blocks
from cellweft.data.gene_major import GeneColumns
from cellweft.impute.attention import fit_attending, sample_cells
from cellweft.impute.base import FitContext
from cellweft.impute.uncertainty.expected_correlation import correlate, summaries
from cellweft.nn.config import AttentionSettings
from impute_auto import pair_of

PAIRS = ["osmfish", "hypothalamus", "starmap", "molcart"]


def options(description: str, *, seeds: int) -> argparse.ArgumentParser:
    """Return the arguments shared by the tables."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("pairs", nargs="*", default=PAIRS)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--folds", type=int, default=5, help="how many of the five folds to look at")
    parser.add_argument("--kept", type=Path, default=Path(tempfile.gettempdir()) / "cellweft-held-out-cut")
    return parser


def folds(name: str, seed: int, asked: argparse.Namespace) -> Iterator[dict[str, np.ndarray]]:
    """Return the first of the five folds of a pair's shared genes, as published: see `held_out`."""
    pair = pair_of(name)
    splits = KFold(5, shuffle=True, random_state=0).split(pair.shared_genes)
    for number, (_, held) in enumerate(islice(splits, asked.folds)):
        yield held_out(pair, held, seed=seed, path=asked.kept / f"{name}, fold {number}, {seed}.npz")


def small_panels(name: str, size: int, draw: int, kept: Path) -> dict[str, np.ndarray] | None:
    """Return predictions of all genes from a few drawn ones; None for too few genes."""
    pair = pair_of(name)
    n_genes = len(pair.shared_genes)
    if n_genes < size + 8:
        return None
    held = np.sort(np.random.default_rng(draw).permutation(n_genes)[size:])
    return held_out(pair, held, seed=draw, path=kept / f"{name}, {size} genes, {draw}.npz")


def held_out(pair, held: np.ndarray, *, seed: int, path: Path) -> dict[str, np.ndarray]:
    """Return arrays of one fit without some genes.

    ``panel_predicted``, ``panel_truth`` (cells of the sample x genes of the panel), ``panel_similarity``,
    ``panel_features``: what intervals and reliability are learned from. ``predicted``, ``truth`` (cells x
    genes held out), ``similarity``, ``features``, ``pearson``: what these are compared with.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, **fitted_without(pair, held, seed))
        partial.rename(path)
        print(path.stem, flush=True)
    return dict(np.load(path)) | {"held": held, "genes": pair.shared_genes[held].astype(str)}


def fitted_without(pair, held: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Fit attention without genes, as the Imputer does, and predict them."""
    names = [str(one) for one in pair.shared_genes[held]]
    panel = pair.hold_out(names)
    columns, sample = GeneColumns.load(panel.sc), sample_cells(panel, seed)
    work = FitContext(seed=seed, devices=(torch.device("cpu"),), reliability=True)
    attending, own = fit_attending(panel, columns, sample, settings=AttentionSettings(), work=work)
    positions = {str(gene): place for place, gene in enumerate(panel.sc.genes)}
    genes = np.array([positions[name] for name in names])
    predictor, parts = attending.prepare(genes), []
    for rows in row_blocks(panel.st.n_cells, READ_ROWS):
        parts.append(predictor.values(panel.st.dense(rows, panel.st_shared)))
    predicted = np.concatenate(parts)
    truth = pair.st.dense(slice(0, pair.st.n_cells), pair.st_shared[held])
    reference = columns.dense(genes)
    judged, carried, within = attending.sampled(genes)
    of_fit = {"queries": attending.queries}
    return {
        "panel_predicted": own.predicted,
        "panel_truth": own.truth,
        "panel_similarity": attending.model.similarity(attending.model.sample),
        "panel_pearson": correlate(own.predicted, own.truth),
        "panel_features": summaries(
            own.predicted, own.carried, reference=columns.dense(panel.sc_shared), within=own.within, **of_fit
        ),
        "predicted": predicted,
        "truth": truth,
        "similarity": attending.similarity(panel),
        "pearson": correlate(predicted, truth),
        "features": summaries(judged, carried, reference=reference, within=within, **of_fit),
        "expression": reference.mean(axis=0, dtype=np.float64),
    }
