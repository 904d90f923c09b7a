"""How much the quality of a reference matters: joined, small, shallow, with doublets, of another platform.

All scores are of held-out genes. Ways to join references are compared with ``auto`` before any training,
which takes seconds, for several seeds; the remaining ways, and everything else, with ``auto`` after a
shortened training, the same for all rows. Real references are joined or changed; only donors are simulated.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.model_selection import KFold

import cellweft

from common import DATA, markdown, write

SETTINGS = {"steps": 100, "fold_steps": 60, "level_steps": 80, "batch_reference": 1000}
FEW_GENES = 40  # with fewer, all five folds are predicted; else only the first
UNTRAINED = {"steps": 0, "fold_steps": 0, "level_steps": 0}
COLUMN = "batch"


@dataclass
class Trial:
    """A reference and a tissue, and their name in a row of the table."""

    name: str
    sc: ad.AnnData
    st: ad.AnnData
    change: Callable[[cellweft.Pair], cellweft.Pair] = lambda pair: pair
    batches: bool = False
    cells: np.ndarray | None = None  # spatial cells that are scored; all by default


def cells_of(name: str, most: int, seed: int) -> ad.AnnData:
    """Return cells of a file that have counts, or a draw of these, with names of genes in capitals."""
    data = ad.read_h5ad(DATA / f"{name}.h5ad")
    data.var_names = data.var_names.str.upper()
    data = data[np.asarray(data.X.sum(axis=1)).ravel() > 0, ~data.var_names.duplicated()]
    drawn = np.random.default_rng(seed).permutation(data.n_obs)[:most]
    part = data[np.sort(drawn)]
    matrix = sp.csr_matrix(part.X, dtype=np.float32)
    return ad.AnnData(matrix, obs=part.obs.astype(str), var=pd.DataFrame(index=part.var_names))


def joined(st: ad.AnnData, *parts: ad.AnnData) -> tuple[ad.AnnData, ad.AnnData]:
    """Return the joined references, and the tissue, with the genes that all of them share."""
    names = set(st.var_names).intersection(*(part.var_names for part in parts))
    genes = sorted(names)
    numbered = [part[:, genes] for part in parts]
    sc = ad.concat(numbered, label=COLUMN, keys=[str(n) for n in range(len(parts))], index_unique="-")
    return sc[np.asarray(sc.X.sum(axis=1)).ravel() > 0].copy(), st[:, genes].copy()


def thinned(cells: ad.AnnData, seed: int, *, depth: float = 0.25, spread: float = 0.7) -> ad.AnnData:
    """Return cells as a less sensitive platform would count them, with gene-specific detection rates."""
    stream = np.random.default_rng(seed)
    chance = np.clip(depth * np.exp(spread * stream.standard_normal(cells.n_vars)), 0, 1)
    counts = stream.binomial(cells.X.toarray().astype(np.int64), chance)
    return ad.AnnData(sp.csr_matrix(counts, dtype=np.float32), obs=cells.obs, var=cells.var)


def halves(cells: ad.AnnData, seed: int, *, lacks_types: bool) -> tuple[ad.AnnData, ad.AnnData]:
    """Return two halves, the second one thinned, and without half of the types if requested."""
    stream = np.random.default_rng(seed)
    is_first = stream.random(cells.n_obs) < 0.5
    if lacks_types:
        kinds = stream.permutation(sorted(cells.obs["cell_type"].unique()))
        is_first |= ~cells.obs["cell_type"].isin(kinds[: len(kinds) // 2]).to_numpy()
    return cells[is_first], thinned(cells[~is_first], seed)


def own_depths(pair: cellweft.Pair) -> cellweft.Pair:
    """Normalise each batch to its own median total, and leave the levels of its genes unchanged."""
    return changed(pair, levels=np.ones_like(pair.sc.batches.levels))


def one_depth(pair: cellweft.Pair) -> cellweft.Pair:
    """Bring the genes of all batches to one level, at the median total of all cells."""
    return changed(pair, depths=np.ones_like(pair.sc.batches.depths))


def plain_means(pair: cellweft.Pair) -> cellweft.Pair:
    """Bring each gene of a batch to its mean over all cells of the largest one, whatever their types."""
    batches = pair.sc.batches
    values = np.expm1(replace(pair.sc, batches=None).dense(slice(None)).astype(np.float64))
    means = np.array([values[batches.codes == code].mean(axis=0) for code in range(len(batches.names))])
    largest = means[np.bincount(batches.codes).argmax()]
    ratios = np.divide(largest, means, out=np.ones_like(means), where=(means > 0) & (largest > 0))
    return changed(pair, levels=np.clip(ratios, 1 / 30, 30).astype(np.float32))


def changed(pair: cellweft.Pair, **parts: np.ndarray) -> cellweft.Pair:
    return replace(pair, sc=replace(pair.sc, batches=replace(pair.sc.batches, **parts)))


def scores(trial: Trial, seed: int, settings: dict[str, int]) -> pd.DataFrame:
    """Return Pearson, Spearman and squared error, a row per predicted gene."""
    column = COLUMN if trial.batches else None
    pair = trial.change(cellweft.pair(trial.sc, trial.st, coordinates="none", reference_batch=column))
    folds = list(KFold(5, shuffle=True, random_state=0).split(pair.shared_genes))
    rows = []
    for _, held in folds if len(pair.shared_genes) < FEW_GENES else folds[:1]:
        genes = pair.shared_genes[held]
        part = pair.hold_out(genes)
        imputer = cellweft.Imputer(settings=settings, reliability=False, seed=seed)
        predicted = imputer.fit(part, progress=False).predict(genes, part)
        truth = pair.st.dense(slice(0, pair.st.n_cells), pair.st_shared[held])
        some = slice(None) if trial.cells is None else trial.cells
        named = {name: getattr(cellweft.metrics, name) for name in ("pearson", "spearman", "mse")}
        rows.append(
            pd.DataFrame({name: score(truth[some], predicted[some]) for name, score in named.items()}, genes)
        )
    return pd.concat(rows)


def joins(most: int, seed: int) -> Iterator[Trial]:
    """Yield real joined references: the first alone, both as they are, and brought to one level."""
    yield from (trial for trial in real_joins(most, seed) if "tried" not in trial.name)


def real_joins(most: int, seed: int) -> Iterator[Trial]:
    """Yield the same references, brought to one level in further ways."""
    osm, star, mol = "osmfish_benchmark_st", "visp_starmap1020_st", "cortex_molcart100_st"
    allen, mop = "osmfish_ref_allen_ssp_sc33", "mop_ref_10x_sc500"
    half = most // 2
    for name, tissue, parts in (
        ("osmFISH: SMART-seq + 10x", osm, (allen, mop)),
        ("osmFISH: SMART-seq + STARmap", osm, (allen, star)),
        ("Molecular Cartography: 10x + STARmap", mol, (mop, star)),
        ("STARmap: 10x + Molecular Cartography", star, (mop, mol)),
    ):
        refs = [cells_of(part, half, seed) for part in parts]
        yield from _ways(name, cells_of(tissue, most, seed), *refs)


def candidates(most: int, seed: int) -> Iterator[Trial]:
    """Yield all ways of joining real references, and some of which one part was thinned."""
    yield from real_joins(most, seed)
    tissue = cells_of("hypo_merfish_animal1_bregma-0.29_st", most, seed)
    reference = cells_of("hypo_ref_10x_sc134", most, seed)
    yield from _ways("hypothalamus, half thinned", tissue, *halves(reference, seed, lacks_types=False))
    name = "hypothalamus, half thinned, without half of the types"
    yield from _ways(name, tissue, *halves(reference, seed, lacks_types=True))
    made = cellweft.datasets.simulate_cortex(n_spatial=most, n_reference=most, n_genes=60, seed=seed)
    donor = (made.sc.obs["donor"] == "donor1").to_numpy()
    parts = made.sc[~donor], thinned(made.sc[donor], seed)
    yield from _ways("simulated, one of three donors thinned", made.st, *parts)


def _ways(name: str, tissue: ad.AnnData, *parts: ad.AnnData) -> Iterator[Trial]:
    sc, st = joined(tissue, *parts)
    first = sc[sc.obs[COLUMN] == "0"].copy()
    yield Trial(f"{name} | first alone", first, st)
    yield Trial(f"{name} | joined as they are", sc, st)
    yield Trial(f"{name} | reference_batch", sc, st, batches=True)
    yield Trial(f"{name} | tried: own depths alone", sc, st, own_depths, batches=True)
    yield Trial(f"{name} | tried: levels alone", sc, st, one_depth, batches=True)
    yield Trial(f"{name} | tried: plain means as levels", sc, st, plain_means, batches=True)


def qualities(most: int, seed: int) -> Iterator[Trial]:
    """Yield references that are smaller, shallower, of another platform, or with doublets or other donors."""
    stream = np.random.default_rng(seed)
    for name, tissue, reference in (
        ("hypothalamus", "hypo_merfish_animal1_bregma-0.29_st", "hypo_ref_10x_sc134"),
        ("STARmap", "visp_starmap1020_st", "mop_ref_10x_sc500"),
    ):
        sc, st = joined(cells_of(tissue, most, seed), cells_of(reference, most, seed))
        order = stream.permutation(sc.n_obs)
        for share in (1.0, 0.5, 0.2, 0.1, 0.03):
            part = sc[np.sort(order[: round(share * sc.n_obs)])].copy()
            yield Trial(f"{name}, cells | {share:.0%} ({part.n_obs:,})", part, st)
        for depth in (0.25, 0.06):
            part = _filled(thinned(sc, seed, depth=depth, spread=0))
            yield Trial(f"{name}, depth | counts thinned to {depth:.0%}", part, st)
        for share in (0.1, 0.3):
            yield Trial(f"{name}, doublets | {share:.0%} of the cells", _doublets(sc, share, stream), st)
    yield from _missing_types(most, seed)
    refs = {
        "SMART-seq": "osmfish_ref_allen_ssp_sc33",
        "10x": "mop_ref_10x_sc500",
        "STARmap": "visp_starmap1020_st",
    }
    parts = {name: cells_of(file, min(most, 900), seed) for name, file in refs.items()}
    sc, st = joined(cells_of("osmfish_benchmark_st", most, seed), *parts.values())
    for number, name in enumerate(parts):
        yield Trial(f"osmFISH, platform | {name}", sc[sc.obs[COLUMN] == str(number)].copy(), st)
    for n_donors in (1, 3, 10):
        made = cellweft.datasets.simulate_cortex(
            n_spatial=most, n_reference=most, n_genes=60, n_donors=n_donors, seed=seed
        )
        yield Trial(f"simulated, donors | {n_donors}", made.sc, made.st)
        if n_donors > 1:
            sc = made.sc.copy()
            sc.obs[COLUMN] = sc.obs["donor"].astype(str)
            yield Trial(f"simulated, donors | {n_donors}, reference_batch", sc, made.st, batches=True)


def _filled(cells: ad.AnnData) -> ad.AnnData:
    return cells[np.asarray(cells.X.sum(axis=1)).ravel() > 0].copy()


def _doublets(cells: ad.AnnData, share: float, stream: np.random.Generator) -> ad.AnnData:
    """Return cells, a share of which also contain another cell's counts."""
    made = cells.copy()
    both = stream.permutation(cells.n_obs)[: round(share * cells.n_obs)]
    counts = made.X.tolil()
    counts[both] = cells.X[both] + cells.X[stream.integers(cells.n_obs, size=len(both))]
    made.X = sp.csr_matrix(counts, dtype=np.float32)
    return made


def _missing_types(most: int, seed: int) -> Iterator[Trial]:
    """Yield references with all types and without one, scored in the tissue's cells of that type."""
    tissue = cells_of("hypo_merfish_animal1_bregma-0.29_st", most, seed)
    sc, st = joined(tissue, cells_of("hypo_ref_10x_sc134", most, seed))
    for in_tissue, in_reference in (
        ("Astrocyte", "Astrocytes"),
        ("Inhibitory", "Inhibitory"),
        ("Endothelial", "Endothelial"),
    ):
        is_type = st.obs["cell_type"].str.startswith(in_tissue).to_numpy()
        is_there = (sc.obs["cell_type"] == in_reference).to_numpy()
        for name, part in (("all types there", sc), ("without it", sc[~is_there].copy())):
            title = f"hypothalamus, {in_tissue.lower()} cells"
            yield Trial(f"{title} | in these, {name}", part, st, cells=is_type)
            yield Trial(f"{title} | in the others, {name}", part, st, cells=~is_type)


def tables(part: str, most: int, seeds: Iterable[int]) -> str:
    """Return a table per comparison: means over seeds of medians and means over genes."""
    rows: dict[str, list[pd.Series]] = {}
    n_genes: dict[str, int] = {}
    trials, settings = {
        "candidates": (candidates, UNTRAINED),
        "joins": (joins, SETTINGS),
        "qualities": (qualities, SETTINGS),
    }[part]
    for seed in seeds:
        for trial in trials(most, seed):
            found = scores(trial, seed, settings)
            row = pd.concat([found.median().add_prefix("median "), found.mean().add_prefix("mean ")])
            rows.setdefault(trial.name, []).append(row)
            n_genes[trial.name] = len(found)
            print(seed, trial.name, row.round(3).to_dict(), flush=True)
    text = ""
    means = pd.DataFrame({name: pd.DataFrame(each).mean() for name, each in rows.items()}).T
    for title in dict.fromkeys(name.partition(" | ")[0] for name in means.index):
        rows_here = means[[name.partition(" | ")[0] == title for name in means.index]]
        n_scored = n_genes[rows_here.index[0]]
        rows_here = rows_here.rename(index=lambda name: name.partition(" | ")[2])
        text += f"## {title} ({n_scored} genes)\n\n{markdown(rows_here)}\n\n"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=1200, help="of each side, at most")
    parser.add_argument("--seeds", type=int, default=3, help="0, 1, ...")
    parser.add_argument("--parts", default="candidates,joins,qualities")
    asked = parser.parse_args()
    said = ", ".join(f"{name} {value}" for name, value in SETTINGS.items())
    folds = f"; all five folds of genes below {FEW_GENES} shared genes, else the first fold"
    for part, name, title in (
        ("candidates", "reference_batches_tried", "Several references joined: ways tested"),
        ("joins", "reference_batches", "Several references joined"),
        ("qualities", "reference_quality", "How much the quality of a reference matters"),
    ):
        if part in asked.parts.split(","):
            text = f"# {title}\n\n" + tables(part, asked.cells, range(asked.seeds))
            how = "before any training" if part == "candidates" else f"after a shortened training ({said})"
            text += f"`auto` {how}{folds}. At most {asked.cells:,} cells per side. Means over the seeds.\n"
            write(name, text, seeds=range(asked.seeds), protocol="cut")


if __name__ == "__main__":
    main()
