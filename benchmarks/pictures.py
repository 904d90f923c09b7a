"""The pictures of README and of the home page, from real data.

Shown are genes that were hidden, and cells whose place is known. ``python benchmarks/pictures.py`` writes
docs/pictures/hypothalamus.png and docs/pictures/embryo.png. The genes are not chosen by hand: of one fifth of
the panel that was hidden, drawn by a seed, the best and the median one by the correlation with
the measurement.
"""

import argparse

import anndata as ad
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import KFold

import cellweft

from common import DATA, ROOT

PICTURES = ROOT / "docs" / "pictures"
QUANTILES = {"best": 1.0, "median": 0.5}
FOLD = 0  # of the published five


def hypothalamus() -> None:
    """Hide a fifth of the MERFISH panel, impute it, and draw measured beside imputed."""
    sc = ad.read_h5ad(DATA / "hypo_ref_10x_sc134.h5ad")
    st = ad.read_h5ad(DATA / "hypo_merfish_animal1_bregma-0.29_st.h5ad")
    whole = cellweft.pair(sc, st)
    folds = KFold(5, shuffle=True, random_state=0).split(whole.shared_genes)
    kept, held = list(folds)[FOLD]
    pair = cellweft.pair(sc, st[:, whole.shared_genes[kept]].copy())
    imputer = cellweft.Imputer(seed=0).fit(pair)
    hidden = whole.shared_genes[held]
    imputed = imputer.impute(hidden)
    measured = whole.st.dense(slice(0, whole.st.n_cells), whole.st_shared[held])
    scores = [np.corrcoef(measured[:, n], imputed.X[:, n])[0, 1] for n in range(len(held))]
    order = np.argsort(scores)
    figure, axes = plt.subplots(len(QUANTILES), 2, figsize=(9.5, 4.1 * len(QUANTILES)), layout="constrained")
    for row, (name, quantile) in zip(axes, QUANTILES.items(), strict=True):
        place = order[round(quantile * (len(order) - 1))]
        gene = str(imputed.var_names[place])
        drawn = cellweft.pl.gene(imputed, gene, measured=whole, uncertainty=False, unit="µm", axes=row)
        expected = imputed.var["reliability"].iloc[place]
        drawn[0].set_title(f"{gene}: measured, hidden from cellweft")
        drawn[1].set_title(f"{gene}: imputed ({name}: r = {scores[place]:.2f}, expected {expected:.2f})")
    figure.savefig(PICTURES / "hypothalamus.png", dpi=110, bbox_inches="tight")
    print(f"hypothalamus: {len(held)} hidden genes, median r {np.median(scores):.3f}", flush=True)


def embryo() -> None:
    """Place the embryo's cells on its pseudo-spots, and draw where they lived and where they were placed."""
    pair = cellweft.pair(
        DATA / "embryo_benchmark_sc.h5ad", DATA / "embryo_benchmark_st.h5ad", labels="cell_type"
    )
    placement = cellweft.Placer(seed=0).fit(pair).place()
    figure, axes = plt.subplots(1, 2, figsize=(11, 6.4), layout="constrained")
    cellweft.pl.placed(placement, "cell_type", truth="obs:x_global,y_global", axes=axes)
    axes[0].set_title("where 6,116 cells lived")
    axes[1].set_title("where cellweft placed them")
    figure.savefig(PICTURES / "embryo.png", dpi=110, bbox_inches="tight")
    lived = pair.sc.obs[["x_global", "y_global"]].to_numpy()
    error = np.linalg.norm(placement.coordinates() - lived, axis=1)
    width = np.ptp(lived, axis=0).max()
    print(f"embryo: median error {np.median(error):.2f} of a width of {width:.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=["embryo", "hypothalamus"])
    mpl.use("agg")
    for name in parser.parse_args().names:
        {"hypothalamus": hypothalamus, "embryo": embryo}[name]()


if __name__ == "__main__":
    main()
