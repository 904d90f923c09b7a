"""Cell types of the reference on the tissue: `Imputer.annotate`, nearest neighbours, logistic regression.

The second table has pairs from one experiment: two sections, the left and the right half of a section, or two
random halves of its cells. One side is the reference, and its places are not used.

Types of both sides are mapped by hand where their names differ; the maps are below and in the table. Cells of
the tissue whose type has no counterpart are not scored. With --left-out 3, only the most frequent type of the
tissue, the least frequent and the one in the middle are left out of the reference in turn, not every type.

Run: python benchmarks/annotate.py [--seeds 0] [--left-out 3]
"""

import argparse
from collections.abc import Callable, Mapping

import anndata
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier

import cellweft
from cellweft.data._pair import Pair
from cellweft.impute.annotation import annotator
from cellweft.impute.annotation.calibration import calibration_error, reliability_bins

from common import DATA, write

LEAST = 10  # fewest cells of a type in the tissue for its F1 to be reported

OLIGO = "Mature oligodendrocyte"
PAIRS = {
    "hypothalamus": (
        "hypo_ref_10x_sc134",
        "hypo_merfish_animal1_bregma-0.29_st",
        "cell_type",
        {"size_factor": "nUMI_all_genes"},
    ),
    "embryo z5 to z2": ("seqfish_embryo_e1z5", "seqfish_embryo_e1z2", "cell_type", {}),
    "STARmap + MOp": ("mop_ref_10x_sc500", "visp_starmap1020_st", "subclass", {}),
}
ONE_EXPERIMENT = {
    "embryo z2 to z5": ("seqfish_embryo_e1z2", "seqfish_embryo_e1z5"),
    "embryo z5, left to right": "seqfish_embryo_e1z5",
    "hypothalamus MERFISH, left to right": "hypo_merfish_animal1_bregma-0.29_st",
    "osmFISH, left to right": "osmfish_ss_cortex_st",
    "osmFISH, random halves": "osmfish_ss_cortex_st",
    "STARmap, random halves": "visp_starmap1020_st",
}
NO_TYPES = {"Ambiguous", "Unstable", "Low quality", "unlabelled", "Excluded", "Unclassified", "nan"}
"""Labels of the references that are not cell types; their cells are left out."""
OF_REFERENCE: dict[str, dict[str, str]] = {
    "STARmap + MOp": {
        **dict.fromkeys(["L5 IT", "L5 ET", "L5 NP"], "L5"),
        **dict.fromkeys(["L6 CT", "L6 IT", "L6 NP"], "L6"),
        "L2/3 IT": "L2/3",
        "Macrophage": "Micro",
    }
}
OF_TISSUE: dict[str, dict[str, str | None]] = {
    "hypothalamus": {
        "Astrocyte": "Astrocytes",
        **dict.fromkeys(["Endothelial 1", "Endothelial 2", "Endothelial 3"], "Endothelial"),
        **dict.fromkeys([f"OD Mature {n}" for n in range(1, 5)], OLIGO),
        "OD Immature 1": "Immature oligodendrocyte",
        "OD Immature 2": "Newly formed oligodendrocyte",
        "Pericytes": "Mural",
        "Ambiguous": None,
    },
    "STARmap + MOp": {
        "eL2_3": "L2/3",
        "eL5": "L5",
        "eL6": "L6",
        "PVALB": "Pvalb",
        "SST": "Sst",
        "VIP": "Vip",
        "Reln": "Lamp5",
        **dict.fromkeys(["eL4", "HPC", "Smc"]),
    },
    "embryo z5 to z2": {"Low quality": None, "Blood progenitors": None},
}


def scores(truth: np.ndarray, found: np.ndarray, confidence: np.ndarray) -> dict[str, float]:
    """Return macro F1, accuracy and expected calibration error of cells that have a true type."""
    types = [
        name for name, count in zip(*np.unique(truth, return_counts=True), strict=True) if count >= LEAST
    ]
    bins = reliability_bins(confidence, found == truth, np.ones(len(truth)))
    return {
        "macro F1": f1_score(truth, found, labels=types, average="macro"),
        "accuracy": float((found == truth).mean()),
        "calibration error": calibration_error(bins),
    }


def baselines(pair: Pair, types: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return best labels and their probabilities by methods that see the log-normalised panel."""
    has_counts = ~pair.sc.empty_cells
    known = pair.sc.dense(np.flatnonzero(has_counts), pair.sc_shared)
    asked, types = pair.st.dense(slice(0, pair.st.n_cells), pair.st_shared), types[has_counts]

    def z_scored(values: np.ndarray) -> np.ndarray:
        spread = values.std(axis=0)
        scored = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)
        return scored / np.maximum(np.linalg.norm(scored, axis=1, keepdims=True), 1e-9)

    def same(values: np.ndarray) -> np.ndarray:
        return values

    ways: dict[str, tuple[object, Callable[[np.ndarray], np.ndarray]]] = {
        "50 neighbours, log": (KNeighborsClassifier(50), same),
        "50 neighbours, z-scored, cosine": (KNeighborsClassifier(50), z_scored),
        "logistic regression, log": (LogisticRegression(max_iter=300), same),
        "logistic regression, z-scored": (LogisticRegression(max_iter=300), z_scored),
    }
    found = {}
    for name, (model, prepare) in ways.items():
        table = model.fit(prepare(known), types).predict_proba(prepare(asked))
        found[name] = model.classes_[table.argmax(axis=1)], table.max(axis=1)
    return found


def scored_methods(
    name: str, pair: Pair, table: pd.DataFrame, types: np.ndarray, truth: np.ndarray
) -> pd.DataFrame:
    """Return the scores of the annotated table and of all other methods, for cells of known types."""
    is_scored = np.isin(truth, np.unique(types))
    labels = baselines(pair, types)
    labels["auto"] = table["label"].astype(str).to_numpy(), table["confidence"].to_numpy()
    rows = {
        f"{name}: {method}": scores(truth[is_scored], label[is_scored], confidence[is_scored])
        for method, (label, confidence) in labels.items()
    }
    return pd.DataFrame(rows).T


def with_and_without_panel(
    name: str, imputer: cellweft.Imputer, types: np.ndarray, truth: np.ndarray
) -> pd.DataFrame:
    """Return macro F1 with the panel classifier for no pair and for every pair, and the spread of levels.

    `annotate` uses it where the spread is below log 2.
    """
    is_scored, measure = np.isin(truth, np.unique(types)), annotator.platform_spread
    limit, row = annotator.ALIKE, {}

    def spread(*args: object, **options: object) -> float:
        row["spread of gene levels"] = measure(*args, **options)
        return row["spread of gene levels"]

    annotator.platform_spread = spread
    for said, annotator.ALIKE in (("never", -1.0), ("always", np.inf)):
        table = imputer.annotate(types, progress=False)[is_scored]
        found, confidence = table["label"].astype(str).to_numpy(), table["confidence"].to_numpy()
        row[said] = scores(truth[is_scored], found, confidence)["macro F1"]
    annotator.platform_spread, annotator.ALIKE = measure, limit
    return pd.DataFrame({name: row}).T


def types_to_leave_out(truth: np.ndarray, most: int | None) -> list[str]:
    """Return types of the scored cells, most frequent first: at most ``most`` of them, evenly spaced."""
    counts = pd.Series(truth).value_counts()
    types = sorted(counts[counts >= LEAST].index, key=lambda one: (-counts[one], one))
    if most is None or most >= len(types):
        return types
    return [types[place] for place in np.linspace(0, len(types) - 1, most).round().astype(int)]


def run(name: str, seed: int, most_left_out: int | None) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the scores of all methods, the panel classifier's effect, and unknown cells.

    The last with types left out in turn.
    """
    sc_name, st_name, column, options = PAIRS[name]
    sc, st = (anndata.read_h5ad(DATA / f"{one}.h5ad") for one in (sc_name, st_name))
    sc = sc[~sc.obs[column].isin(NO_TYPES)].copy()
    types = renamed(sc.obs[column], OF_REFERENCE.get(name, {}))
    truth = renamed(st.obs["cell_type"], OF_TISSUE[name])
    pair = cellweft.pair(sc, st, **options)
    imputer = cellweft.Imputer(reliability=False, seed=seed).fit(pair, progress=False)
    table = imputer.annotate(types, progress=False)
    scored = scored_methods(name, pair, table, types, truth)
    is_scored = np.isin(truth, np.unique(types))
    others = table["unknown"][is_scored].mean()
    left_out = {"none": {"its cells marked unknown": np.nan, "other cells marked unknown": others}}
    for one in types_to_leave_out(truth[is_scored], most_left_out):
        few = imputer.annotate(np.where(types == one, "unknown", types), progress=False)["unknown"]
        is_it = truth == one
        left_out[one] = {
            "its cells marked unknown": few[is_it].mean(),
            "other cells marked unknown": few[is_scored & ~is_it].mean(),
        }
    missing = pd.DataFrame(left_out).T
    missing = missing.set_axis([f"{name}: {one}" for one in missing.index])
    return scored, with_and_without_panel(name, imputer, types, truth), missing


def run_one_experiment(name: str, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the scores of all methods on a pair from one experiment, and the panel classifier's effect."""
    sources = ONE_EXPERIMENT[name]
    if isinstance(sources, tuple):
        sc, st = (anndata.read_h5ad(DATA / f"{one}.h5ad") for one in sources)
    else:
        whole = anndata.read_h5ad(DATA / f"{sources}.h5ad")
        across = np.asarray(whole.obsm["spatial"])[:, 0]
        if "random" in name:
            across = np.random.default_rng(seed).permutation(whole.n_obs)
        is_left = across < np.median(across)
        sc, st = whole[is_left].copy(), whole[~is_left].copy()
    del sc.obsm
    sc, st = (one[~one.obs["cell_type"].astype(str).isin(NO_TYPES)].copy() for one in (sc, st))
    types, truth = (one.obs["cell_type"].astype(str).to_numpy() for one in (sc, st))
    pair = cellweft.pair(sc, st)
    imputer = cellweft.Imputer(reliability=False, seed=seed).fit(pair, progress=False)
    table = imputer.annotate(types, progress=False)
    scored = scored_methods(name, pair, table, types, truth)
    return scored, with_and_without_panel(name, imputer, types, truth)


def renamed(labels: pd.Series, names: Mapping[str, str | None]) -> np.ndarray:
    """Return labels by their names in the map, "no counterpart" where the map has none."""
    return np.array([names.get(one, one) or "no counterpart" for one in labels.astype(str)])


def main() -> None:
    """Run the pairs one by one; the table is written after each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--left-out", type=int, help="types left out per pair, by default every type")
    asked = parser.parse_args()
    seeds = [int(one) for one in asked.seeds.split(",")]
    scored, missing, alike, panel = [], [], [], []
    for name in ONE_EXPERIMENT:
        results, effect = mean_of([run_one_experiment(name, seed) for seed in seeds])
        alike.append(results)
        panel.append(effect)
        print(results, effect, flush=True)
    for name in PAIRS:
        results, effect, unknown = mean_of([run(name, seed, asked.left_out) for seed in seeds])
        scored.append(results)
        panel.append(effect)
        missing.append(unknown)
        print(results, effect, unknown, flush=True)
        write("annotate", text_of(scored, alike, panel, missing, asked.left_out), seeds=seeds)


def mean_of(runs: list[tuple[pd.DataFrame, ...]]) -> list[pd.DataFrame]:
    """Return the mean over runs of each of their tables."""
    return [sum(tables) / len(tables) for tables in zip(*runs, strict=True)]


def text_of(
    scored: list[pd.DataFrame],
    alike: list[pd.DataFrame],
    panel: list[pd.DataFrame],
    missing: list[pd.DataFrame],
    most_left_out: int | None,
) -> str:
    """Return the tables of the pairs that were run, as Markdown."""
    maps = [
        f"- {name}, {side}: " + "; ".join(f"{old} -> {new or '(not scored)'}" for old, new in names.items())
        for side, known in (("reference", OF_REFERENCE), ("tissue", OF_TISSUE))
        for name, names in known.items()
    ]
    which = (
        "each type with 10 or more scored cells"
        if most_left_out is None
        else f"{most_left_out} of the types with 10 or more scored cells, evenly spaced by frequency"
    )
    return (
        "# Cell types of the reference on the tissue\n\nMacro F1 over types with 10 or more cells in the "
        "tissue, accuracy, and expected calibration error (10 bins). The sharpness of attention, the penalty "
        "of the classifier and the weights of the votes were chosen on these same pairs with their true "
        "labels; the other methods have scikit-learn's defaults.\n\n"
        + table_of(pd.concat(scored), "method")
        + "\n\n## Both sides from one experiment\n\nSections of one embryo, the left and the right half of a "
        "section, or random halves of its cells.\n\n"
        + table_of(pd.concat(alike), "method")
        + "\n\n## Panel classifier\n\nMacro F1 of `annotate` if the panel classifier is used for no pair, "
        "and for every pair. It is used where the spread of gene levels is below log 2 = 0.69.\n\n"
        + table_of(pd.concat(panel)[["spread of gene levels", "never", "always"]], "pair")
        + "\n\n## Unknown cells, with one type left out of the reference\n\nThe share of the cells of that "
        f"type, and of all other scored cells, that are marked unknown. Left out in turn: {which}.\n\n"
        + table_of(pd.concat(missing), "left out")
        + "\n\n## Types mapped by hand\n\n"
        + "\n".join(maps)
    )


def table_of(table: pd.DataFrame, first: str) -> str:
    """Return a table as Markdown."""
    lines = [f"| {first} | " + " | ".join(table.columns) + " |", "| --- " * (len(table.columns) + 1) + "|"]
    for name, row in table.iterrows():
        lines.append(f"| {name} | " + " | ".join("" if np.isnan(one) else f"{one:.3f}" for one in row) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
