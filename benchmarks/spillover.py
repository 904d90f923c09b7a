"""Spill-over between cells: `cellweft.tl.spillover` compared with known amounts, and on real tissues.

Known amounts: the simulated cortex at several levels, and tissues, simulated and real, into which transcripts
were moved: in each cell a different share of the counts (beta-distributed, many near 0) is replaced by a draw
from the counts of its six nearest neighbours.

Real tissues: pairs of genes that exclude each other, chosen from the reference alone. Cells with a high
estimated share are compared with cells of about the same total and a low one: with shares estimated from the
whole panel, and with shares estimated from one half of the panel and pairs from the other, so that no count
is used twice. In the control, shares are estimated after shuffling the cells' positions within their slices.

Run: python benchmarks/spillover.py [--seeds 0] [--parts cortex,moved,real]
"""

import argparse
import dataclasses

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.spatial import cKDTree
from scipy.stats import spearmanr

import cellweft
from cellweft.data._pair import Pair

from common import DATA, write

PAIRS = {
    "hypothalamus": (
        "hypo_ref_10x_sc134",
        "hypo_merfish_animal1_bregma-0.29_st",
        {"size_factor": "nUMI_all_genes"},
    ),
    "osmFISH": ("osmfish_ref_allen_ssp_sc33", "osmfish_benchmark_st", {}),
    "molcart + MOp": ("mop_ref_10x_sc500", "cortex_molcart100_st", {"labels": "subclass"}),
}
LEVELS = (0.0, 0.06, 0.2, 0.35)
MEAN_SHARES = (0.0, 0.05, 0.15, 0.3)
EXCLUSIVE = 0.3  # of the co-detection expected of independent genes
DETECTED = 0.03  # least share of reference cells with a gene of a pair
FEWEST = 10  # co-detections expected of independent genes in the reference


def opened(name: str) -> tuple[anndata.AnnData, anndata.AnnData, dict[str, str]]:
    """Return both sides of a real pair, and options."""
    sc_name, st_name, options = PAIRS[name]
    return *(anndata.read_h5ad(DATA / f"{one}.h5ad") for one in (sc_name, st_name)), options


def moved(st: anndata.AnnData, mean: float, *, seed: int) -> tuple[anndata.AnnData, np.ndarray]:
    """Return a slice with a share of each cell's counts replaced by its neighbours', and the shares."""
    rng = np.random.default_rng(seed)
    counts = np.asarray(st.X.toarray() if sp.issparse(st.X) else st.X).astype(np.int64)
    shares = rng.beta(0.5, 0.5 * (1 - mean) / mean, len(counts)) if mean else np.zeros(len(counts))
    kept = rng.binomial(counts, 1 - shares[:, None])
    lost, places = counts.sum(axis=1) - kept.sum(axis=1), np.asarray(st.obsm["spatial"], dtype=float)
    near = cKDTree(places).query(places, 7)[1][:, 1:]
    for cell in np.flatnonzero(lost):
        pool = counts[near[cell]].sum(axis=0)
        kept[cell] += rng.multinomial(lost[cell], pool / max(pool.sum(), 1)) if pool.sum() else 0
    changed = st.copy()
    changed.X = sp.csr_matrix(kept.astype(np.float32))
    changed.layers.clear()
    return changed, lost / np.maximum(counts.sum(axis=1), 1)


def agreement(truth: np.ndarray, told: pd.Series) -> dict[str, float]:
    """Return how well estimated shares agree with the true ones."""
    known = told.notna().to_numpy()
    truth, found = truth[known], told.to_numpy()[known]
    varies = truth.std() > 0
    high = found >= np.quantile(found, 0.9)
    return {
        "true mean": truth.mean(),
        "estimated mean": found.mean(),
        "bias": (found - truth).mean(),
        "mean absolute error": np.abs(found - truth).mean(),
        "Pearson": np.corrcoef(truth, found)[0, 1] if varies else np.nan,
        "Spearman": spearmanr(truth, found)[0] if varies else np.nan,
        "true mean of the tenth with the highest estimates": truth[high].mean(),
    }


def on_the_cortex(seeds: list[int]) -> pd.DataFrame:
    """Return the agreement on the simulated cortex, with one level, and with transcripts moved."""
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in seeds:
        for level in LEVELS:
            made = cellweft.datasets.simulate_cortex(spill_over=level, seed=seed)
            told = cellweft.tl.spillover(cellweft.pair(made.sc, made.st), seed=seed, progress=False)
            truth = made.truth.obs["spill_over"].to_numpy()
            rows.setdefault(f"cortex, every cell {level:g}", []).append(agreement(truth, told))
        made = cellweft.datasets.simulate_cortex(spill_over=0.0, seed=seed)
        for mean in MEAN_SHARES[1:]:
            st, truth = moved(made.st, mean, seed=seed)
            told = cellweft.tl.spillover(cellweft.pair(made.sc, st), seed=seed, progress=False)
            rows.setdefault(f"cortex, moved {mean:g}", []).append(agreement(truth, told))
    return pd.DataFrame({name: pd.DataFrame(one).mean() for name, one in rows.items()}).T


def on_hypothalamus() -> pd.DataFrame:
    """Return the agreement on a real tissue into which transcripts were moved."""
    sc, st, options = opened("hypothalamus")
    rows = {}
    for mean in MEAN_SHARES:
        changed, truth = moved(st, mean, seed=0)
        told = cellweft.tl.spillover(cellweft.pair(sc, changed, **options), progress=False)
        rows[f"hypothalamus, moved {mean:g} in addition to its own"] = agreement(truth, told)
    return pd.DataFrame(rows).T


def exclusive_pairs(pair: Pair) -> list[tuple[int, int]]:
    """Return pairs of panel genes that exclude each other in the reference."""
    seen = np.asarray(pair.sc.dense(slice(0, pair.sc.n_cells), pair.sc_shared) > 0, dtype=np.float64)
    both, single = seen.T @ seen, seen.sum(axis=0)
    expected = np.outer(single, single) / len(seen)
    often = single >= DETECTED * len(seen)
    first, second = np.nonzero(
        np.triu(both < EXCLUSIVE * expected, 1) & np.outer(often, often) & (expected >= FEWEST)
    )
    return list(zip(first.tolist(), second.tolist(), strict=True))


def by_totals(told: np.ndarray, totals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cells in the highest and in the lowest quarter among cells of about their total."""
    table = pd.DataFrame(
        {"told": told, "group": pd.qcut(pd.Series(totals).rank(method="first"), 20, labels=False)}
    )
    rank = table.groupby("group")["told"].rank(pct=True, method="average").to_numpy()
    return rank > 0.75, rank <= 0.25


def shuffled(pair: Pair, seed: int) -> Pair:
    """Return the pair with the positions of its cells shuffled within their slices."""
    order, rng = np.arange(pair.st.n_cells), np.random.default_rng(seed)
    slices = np.zeros(len(order)) if pair.slices is None else pair.slices
    for one in np.unique(slices):
        cells = np.flatnonzero(slices == one)
        order[cells] = rng.permutation(cells)
    return dataclasses.replace(pair, coordinates=pair.coordinates[order])


def together(pair: Pair, told: np.ndarray) -> tuple[float, float, int]:
    """Return how often cells with a high and a low share express exclusive pairs, and the number of pairs."""
    pairs = exclusive_pairs(pair)
    counts = pair.st.stored(slice(0, pair.st.n_cells), pair.st_shared)
    seen = np.asarray(counts.toarray() if sp.issparse(counts) else counts)
    totals, seen = seen.sum(axis=1), seen > 0
    usable = np.flatnonzero(np.isfinite(told) & (totals > 0))
    sums = np.zeros((2, 2))
    for number, group in enumerate(by_totals(told[usable], totals[usable])):
        for a, b in pairs:
            one, other = seen[usable[group], a], seen[usable[group], b]
            sums[number] += (one & other).sum(), (one | other).sum()
    high, low = sums[:, 0] / np.maximum(sums[:, 1], 1)
    return high, low, len(pairs)


def halves(pair: Pair, seed: int) -> tuple[float, float]:
    """Return the ratio of co-expression, high to low, with no count used twice, and the halves' agreement."""
    genes = np.random.default_rng(seed).permutation(pair.shared_genes)
    parts = [pair.panel(one) for one in np.array_split(genes, 2)]
    told = [cellweft.tl.spillover(one, seed=seed, progress=False).to_numpy() for one in parts]
    found = [together(part, shares)[:2] for part, shares in zip(parts, told[::-1], strict=True)]
    known = np.isfinite(told[0]) & np.isfinite(told[1])
    high, low = np.sum(found, axis=0)
    ratio = high / low if low else np.nan  # no pair has both genes in the same half
    return ratio, spearmanr(told[0][known], told[1][known])[0]


def real_tissue(name: str, seeds: list[int]) -> pd.Series:
    """Return the shares and the co-expression of exclusive pairs on a real tissue."""
    sc, st, options = opened(name)
    pair = cellweft.pair(sc, st, **options)
    control = shuffled(pair, 0)
    row: dict[str, float] = {}
    for title, one in (("", pair), (", coordinates shuffled", control)):
        told = cellweft.tl.spillover(one, progress=False)
        high, low, n_pairs = together(one, told.to_numpy())
        row["exclusive pairs"] = n_pairs
        row["estimated mean" + title] = told.mean()
        row["both: high share" + title], row["low share" + title] = high, low
    for title, one in (("", pair), (", coordinates shuffled", control)):
        parts = np.mean([halves(one, seed) for seed in seeds], axis=0)
        row["high to low, other half" + title], row["halves' Spearman" + title] = parts
    return pd.Series(row)


def table_of(table: pd.DataFrame, first: str) -> str:
    """Return a table as Markdown."""
    lines = [f"| {first} | " + " | ".join(table.columns) + " |", "| --- " * (len(table.columns) + 1) + "|"]
    for name, row in table.iterrows():
        lines.append(f"| {name} | " + " | ".join("" if np.isnan(one) else f"{one:.3f}" for one in row) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure part by part; the table is written after each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--parts", default="cortex,moved,real", help="cortex, moved (hypothalamus), real")
    asked = parser.parse_args()
    seeds, parts = [int(one) for one in asked.seeds.split(",")], asked.parts.split(",")
    known, real = [], dict[str, pd.Series]()
    for part in parts:
        if part == "real":
            for name in PAIRS:
                real[name] = real_tissue(name, seeds)
                write("spillover", text_of(known, real), seeds=seeds)
        else:
            known.append(on_the_cortex(seeds) if part == "cortex" else on_hypothalamus())
            write("spillover", text_of(known, real), seeds=seeds)


def text_of(known: list[pd.DataFrame], real: dict[str, pd.Series]) -> str:
    """Return the tables as Markdown."""
    text = "# Spill-over between cells"
    if known:
        text += (
            "\n\n## Known amounts\n\nShares of a cell's panel counts: of the simulated cortex with one level "
            "for every cell (a small cell among large ones has a larger share), and with transcripts moved "
            "so that the share differs between cells. In real tissue, moved transcripts add to the "
            "tissue's own spill-over, which is unknown: the row without moved transcripts gives its "
            "estimate.\n\n"
        ) + table_of(pd.concat(known), "tissue")
    if real:
        text += (
            "\n\n## Pairs of genes that exclude each other\n\nGenes that are found together in the reference "
            f"less than {EXCLUSIVE:g} times as often as independent ones. Of the cells with either gene, the "
            "share with both: in the quarter of the cells with the highest estimated shares, and in the "
            'quarter with the lowest, among cells of the same total. "Other half": shares from one half of '
            'the panel, pairs of the other. "Halves\' Spearman": how well the shares estimated from the two '
            "halves agree.\n\n"
        ) + table_of(pd.DataFrame(real), "")
    return text


if __name__ == "__main__":
    main()
