"""Imputation under spill-over: whether it helps to correct the panel for it, or to train on it.

Tissues with known amounts are those of `spillover.py`: the simulated cortex at several levels, and real
tissues in which transcripts were moved between neighbours. Genes that the method does not see are compared
with the cells' own transcripts (the cortex without spill-over, the tissue before any were moved), and with
what is measured. Five designs, `auto` unchanged, and:

- queries: trained on the unchanged panel; predictions see the panel without the counts that the model of
  `cellweft.tl.spillover` expects to come from neighbours (each count times the expected share of its cell);
- panel: training sees that corrected panel, too;
- added: each step of training mixes the neighbours' mean into the cells that are compared with the reference,
  with shares drawn from those of the tissue, while the genes to be predicted stay as measured;
- loss: each step predicts the cells and their neighbours, mixes these by the cells' shares, and compares the
  mixture with what was measured.

The first table is of attention alone, without levels, which a gene's Pearson correlation hardly needs. The
second is of the whole method (without reliability), and has errors and cells' correlations.

Run: python benchmarks/spillover_training.py [--tissues cortex,hypothalamus,starmap] [--seeds 0,1,2]
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

import cellweft
import spillover
from cellweft._compute import torch_stream
from cellweft.data._pair import Pair
from cellweft.nn import attention
from cellweft.nn.attention import CellMap, Moments, correlation_loss, queries_of
from cellweft.nn.config import AttentionSettings
from cellweft.nn.training import fit_steps, warm_cosine
from cellweft.tl import _spillover

from common import write

spillover.PAIRS["starmap"] = ("mop_ref_10x_sc500", "visp_starmap1020_st", {})
LEVELS = {"cortex": spillover.LEVELS, "hypothalamus": spillover.MEAN_SHARES, "starmap": (0.0, 0.15, 0.3)}
CELLS = 2000  # of each side of the cortex
HELD_OUT = 0.3  # of the shared genes of a real tissue
DESIGNS = ("unchanged", "queries", "panel", "added", "loss")
WHOLE = {"cortex": (0.0, 0.2, 0.35), "hypothalamus": (0.0, 0.3)}  # levels of the second table
LOSS_STEPS, LOSS_CELLS = 200, 200  # each cell comes with its neighbours


@dataclass(frozen=True, kw_only=True)
class Tissue:
    """A tissue without some genes, and the values of these genes.

    Attributes
    ----------
    pair
        Without the genes.
    genes
        Their names.
    own, measured
        (n_cells, n_genes) log-normalised: of the cells' own transcripts, and of all that were measured.
    """

    pair: Pair
    genes: list[str]
    own: np.ndarray
    measured: np.ndarray


def logarithms(counts: np.ndarray, totals: np.ndarray, target: float) -> np.ndarray:
    """Return log-normalised values; zeros where the total is 0."""
    rates = np.divide(counts, totals[:, None], out=np.zeros(counts.shape), where=totals[:, None] > 0)
    return np.log1p(target * rates).astype(np.float32)


def simulated(level: float, seed: int) -> Tissue:
    """Return the cortex at one level, with genes off its panel."""
    made, clean = (
        cellweft.datasets.simulate_cortex(n_spatial=CELLS, n_reference=CELLS, spill_over=one, seed=seed)
        for one in (level, 0.0)
    )
    pair = cellweft.pair(made.sc, made.st)
    on_panel = made.truth.var["panel"].to_numpy()
    genes = [gene for gene in made.truth.var_names[~on_panel] if gene in made.sc.var_names]
    places = made.truth.var_names.get_indexer(genes)
    own, measured = (
        logarithms(counts[:, places], counts[:, on_panel].sum(axis=1), pair.st.target)
        for counts in (clean.truth.X.toarray(), made.truth.X.toarray())
    )
    return Tissue(pair=pair, genes=genes, own=own, measured=measured)


def real(name: str, mean: float, seed: int) -> Tissue:
    """Return a real tissue into which transcripts were moved, without a part of its genes."""
    sc, st, options = spillover.opened(name)
    moved, _ = spillover.moved(st, mean, seed=seed)
    whole, changed = (cellweft.pair(sc, side, **options) for side in (st, moved))
    shuffled = np.random.default_rng(seed).permutation(whole.shared_genes)
    genes = shuffled[: round(HELD_OUT * len(shuffled))].tolist()
    pair = changed.hold_out(genes)

    def truth(of: Pair) -> np.ndarray:
        counts, places = panel_counts(of), of.find_shared(genes)
        totals = np.delete(counts, places, axis=1).sum(axis=1)
        return logarithms(counts[:, places], totals, pair.st.target)

    return Tissue(pair=pair, genes=genes, own=truth(whole), measured=truth(changed))


def panel_counts(pair: Pair) -> np.ndarray:
    """Return the counts of the panel, (n_cells, n_panel)."""
    stored = pair.st.stored(slice(0, pair.st.n_cells), pair.st_shared)
    return np.asarray(stored.toarray() if sp.issparse(stored) else stored, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Spilled:
    """The estimated spill-over of a tissue.

    Attributes
    ----------
    share
        (n_cells,) as estimated by `cellweft.tl.spillover`.
    pair
        The pair without the estimated spill-over, by `cellweft.tl.remove_spillover`.
    neighbors, weights
        (n_cells, 6) the nearest cells, and their weights; a row's sum is 1, or 0 for a cell alone.
    """

    share: np.ndarray
    pair: Pair
    neighbors: np.ndarray
    weights: np.ndarray


def told(pair: Pair, seed: int) -> Spilled:
    """Return what the model of spill-over estimates for a pair."""
    estimate = _spillover._estimate(pair, 6, None, n_profiles=100, seed=seed, memory="1 GB", progress=False)
    every, totals = np.arange(pair.st.n_cells), estimate.cells.totals
    weights = estimate.neighborhoods._weights(every)[0].multiply(totals[None]).tolil()
    neighbors, by_weight = np.zeros((len(every), 6), dtype=np.int64), np.zeros((len(every), 6))
    for cell, (others, values) in enumerate(zip(weights.rows, weights.data, strict=True)):
        neighbors[cell, : len(others)] = others
        by_weight[cell, : len(others)] = np.array(values) / max(sum(values), 1e-9)
    own = cellweft.tl.remove_spillover(pair, seed=seed, progress=False)
    return Spilled(share=estimate.share, pair=own, neighbors=neighbors, weights=by_weight)


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained map with what it was trained on."""

    cells: CellMap
    spatial: Moments
    reference: Moments
    atlas: torch.Tensor  # n_sc x n_panel

    def patterns(self, queries: np.ndarray, genes: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Return patterns of genes, (n_cells, n_genes), standardised, with the share of detection.

        Parameters
        ----------
        queries, seen
            (n_cells, n_panel) log-normalised: for the predictions, and for what a cell detects.
        genes
            (n_sc, n_genes) values in the reference.
        """
        with torch.no_grad():
            keys = self.cells(self.atlas, self.reference.standard(self.atlas))
            sought = queries_of(self.cells, torch.from_numpy(queries), self.spatial)
            parts = [
                torch.softmax(block @ keys.T, 1) @ torch.from_numpy(genes) for block in sought.split(500)
            ]
            detected = attention._standard((torch.from_numpy(seen) > 0).float().sum(dim=1, keepdim=True))
            return (attention._standard(torch.cat(parts)) + self.cells.detection * detected).numpy()


def trained(
    tissue: np.ndarray, atlas: np.ndarray, *, design: str, spilled: Spilled, linear: np.ndarray, seed: int
) -> Trained:
    """Return attention trained by one of the designs, as `cellweft.nn.attention.train` does.

    Parameters
    ----------
    tissue, atlas
        (n_cells, n_panel) and (n_sc, n_panel) log-normalised.
    linear
        (n_cells, n_panel) what the logarithms were taken of, for the neighbours' mean.
    """
    settings, stream = AttentionSettings(), torch_stream(seed, "attention")
    of_tissue, of_atlas = torch.from_numpy(tissue), torch.from_numpy(atlas)
    moments = Moments.of(of_tissue), Moments.of(of_atlas)
    cells, n_genes = CellMap(tissue.shape[1], settings), tissue.shape[1]
    shares = torch.from_numpy(spilled.share.astype(np.float32))[:, None]
    neighbors = torch.from_numpy(spilled.neighbors)
    weights = torch.from_numpy(spilled.weights.astype(np.float32))[:, :, None]
    values, is_loss = torch.from_numpy(linear.astype(np.float32)), design == "loss"
    steps, n_cells = (LOSS_STEPS, LOSS_CELLS) if is_loss else (settings.steps, settings.batch_cells)

    def loss_at(_: int) -> torch.Tensor:
        drawn = torch.randint(len(tissue), (min(n_cells, len(tissue)),), generator=stream)
        rows = torch.randint(len(atlas), (min(settings.batch_reference, len(atlas)),), generator=stream)
        part = settings.hide_least + (settings.hide_most - settings.hide_least) * torch.rand(
            1, generator=stream
        )
        n_hidden = int((part * n_genes).round().clamp(1, n_genes - 2))
        hidden = torch.randperm(n_genes, generator=stream)[:n_hidden]
        seen = torch.ones(n_genes)
        seen[hidden] = 0
        keys = cells(of_atlas[rows], moments[1].standard(of_atlas[rows]), seen)

        def carried(logs: torch.Tensor, genes: torch.Tensor) -> torch.Tensor:
            sought = cells.log_sharpness.exp() * cells(logs, moments[0].standard(logs), seen)
            return torch.softmax(sought @ keys.T, dim=1) @ genes

        logs, genes = of_tissue[drawn], of_atlas[rows][:, hidden]
        if design == "added":
            share = shares[torch.randint(len(shares), (len(drawn),), generator=stream)]
            near = (values[neighbors[drawn]] * weights[drawn]).sum(dim=1)
            logs = torch.log1p((1 - share) * values[drawn] + share * near)
        if is_loss:
            around = carried(of_tissue[neighbors[drawn].ravel()], genes.expm1())
            around = (around.reshape(len(drawn), -1, n_hidden) * weights[drawn]).sum(dim=1)
            mixed = (1 - shares[drawn]) * carried(logs, genes.expm1()) + shares[drawn] * around
            pattern = torch.log1p(mixed)
        else:
            pattern = carried(logs, genes)
        truth = of_tissue[drawn]
        detected = attention._standard(((truth > 0) * seen).sum(dim=1, keepdim=True))
        predicted = attention._standard(pattern) + cells.detection * detected
        return correlation_loss(predicted, truth[:, hidden]) + settings.pull * cells.drift()

    optimiser = torch.optim.Adam(cells.parameters(), lr=settings.lr, betas=(0.9, 0.99))
    fit_steps(optimiser, loss_at, steps=steps, rate=warm_cosine(steps), progress=lambda *_: None)
    return Trained(cells=cells, spatial=moments[0], reference=moments[1], atlas=of_atlas)


def by_design(tissue: Tissue, spilled: Spilled, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each design with the patterns of the genes that it did not see."""
    pair, usable = tissue.pair, np.flatnonzero(~tissue.pair.sc.empty_cells)
    atlas = pair.sc.dense(usable, pair.sc_shared)
    genes = pair.sc.dense(usable, pair.find_genes(tissue.genes))
    every = slice(0, pair.st.n_cells)
    raw = pair.st.dense(every, pair.st_shared)
    clean = spilled.pair.st.dense(every, spilled.pair.st_shared)
    plain = None
    for design in DESIGNS:
        sees_clean = design in ("queries", "panel")
        model = plain
        if design != "queries":
            source = clean if design == "panel" else raw
            model = trained(source, atlas, design=design, spilled=spilled, linear=np.expm1(raw), seed=seed)
        plain = model if design == "unchanged" else plain
        yield design, model.patterns(clean if sees_clean else raw, genes, raw)


def pearson_of(truth: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Return the median and the mean over genes."""
    scores = cellweft.metrics.pearson(truth, values)
    return float(np.nanmedian(scores)), float(np.nanmean(scores))


def of_attention(tissue: Tissue, spilled: Spilled, seed: int) -> dict[tuple[str, str], float]:
    """Return the scores of all designs."""
    scores = {("estimated mean", ""): float(spilled.share.mean())}
    for design, patterns in by_design(tissue, spilled, seed):
        for truth in ("own", "measured"):
            scores[truth, design] = pearson_of(getattr(tissue, truth), patterns)
    return scores


def of_the_method(tissue: Tissue, spilled: Spilled, seed: int) -> pd.DataFrame:
    """Return the scores of the whole method for the designs that need no other training."""
    clean, rows = spilled.pair, {}
    fits = [
        cellweft.Imputer(seed=seed, reliability=False).fit(one, progress=False)
        for one in (tissue.pair, clean)
    ]
    designs = {"unchanged": (fits[0], tissue.pair), "queries": (fits[0], clean), "panel": (fits[1], clean)}
    for design, (imputer, sees) in designs.items():
        values = imputer.predict(tissue.genes, sees)
        used = tissue.own.any(axis=1)
        rows[design] = {
            "genes' Pearson, median": pearson_of(tissue.own, values)[0],
            "genes' Pearson, mean": pearson_of(tissue.own, values)[1],
            "cells' Pearson, median": pearson_of(tissue.own[used].T, values[used].T)[0],
            "mean squared error": float(((values - tissue.own) ** 2).mean()),
        }
    return pd.DataFrame(rows).T


def text_of(scores: dict[str, list[dict]], whole: dict[str, pd.DataFrame]) -> str:
    """Return the tables as Markdown."""
    text = (
        "# Imputation under spill-over\n\nThe designs are described in `benchmarks/spillover_training.py`.\n"
    )
    for truth, title in (("own", "the cells' own transcripts"), ("measured", "what is measured")):
        text += f"\n## Attention alone, against {title}\n\nPearson correlation of unseen genes, "
        text += "median / mean over genes, mean over seeds:\n\n| tissue | seeds | estimated mean | "
        text += " | ".join(DESIGNS)
        text += " |\n" + "| --- " * (len(DESIGNS) + 3) + "|\n"
        for name, of_seeds in scores.items():
            mean = np.mean([one["estimated mean", ""] for one in of_seeds])
            cells = [np.mean([one[truth, design] for one in of_seeds], axis=0) for design in DESIGNS]
            said = " | ".join(f"{median:.4f} / {average:.4f}" for median, average in cells)
            text += f"| {name} | {len(of_seeds)} | {mean:.3f} | {said} |\n"
    if whole:
        text += "\n## The whole method, against the cells' own transcripts\n\nOne seed:\n\n"
        rows = [
            one.rename(index=lambda design, name=name: f"{name}, {design}") for name, one in whole.items()
        ]
        text += spillover.table_of(pd.concat(rows), "tissue, design") + "\n"
    return text


def main() -> None:
    """Measure seed by seed; the tables are written after each tissue."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tissues", default="cortex,hypothalamus,starmap")
    parser.add_argument("--seeds", default="0,1,2")
    asked = parser.parse_args()
    seeds, tissues = [int(one) for one in asked.seeds.split(",")], asked.tissues.split(",")
    scores: dict[str, list[dict]] = {}
    whole: dict[str, pd.DataFrame] = {}
    for seed in seeds:
        for name in tissues:
            for level in LEVELS[name]:
                tissue = simulated(level, seed) if name == "cortex" else real(name, level, seed)
                title = f"{name}, " + ("every cell" if name == "cortex" else "moved") + f" {level:g}"
                spilled = told(tissue.pair, seed)
                scores.setdefault(title, []).append(of_attention(tissue, spilled, seed))
                if seed == seeds[0] and level in WHOLE.get(name, ()):
                    whole[title] = of_the_method(tissue, spilled, seed)
                print(title, seed, scores[title][-1], whole.get(title), flush=True)
            write("spillover_training", text_of(scores, whole), seeds=seeds[: seeds.index(seed) + 1])


if __name__ == "__main__":
    main()
