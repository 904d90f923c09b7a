"""The pictures of README and of the home page, from real data.

Shown are genes that were hidden, and cells whose place is known. ``python benchmarks/pictures.py`` writes
docs/pictures/cortex.png and docs/pictures/embryo.png. The genes are not chosen by hand: each of the panel is
hidden once, in the published five folds, and those at the best, the upper quartile and the median of the
correlation with the measurement are drawn.
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
QUANTILES = {"best": 1.0, "upper quartile": 0.75, "median": 0.5}


def cortex() -> None:
    """Hide each gene of the osmFISH panel, impute it, and draw measured above imputed."""
    sc = ad.read_h5ad(DATA / "osmfish_ref_allen_ssp_sc33.h5ad")
    st = ad.read_h5ad(DATA / "osmfish_ss_cortex_st.h5ad")
    st = st[st.obs["region"].notna()].copy()
    whole = cellweft.pair(sc, st)
    measured = whole.st.dense(slice(0, whole.st.n_cells), whole.st_shared)  # n_cells x n_shared
    imputed = np.empty_like(measured)
    for kept, held in KFold(5, shuffle=True, random_state=0).split(whole.shared_genes):
        pair = cellweft.pair(sc, st[:, whole.shared_genes[kept]].copy())
        imputer = cellweft.Imputer(seed=0, reliability=False).fit(pair)
        imputed[:, held] = imputer.predict(whole.shared_genes[held], pair)
    scores = cellweft.metrics.pearson(measured, imputed)
    order = np.argsort(scores)
    figure, axes = plt.subplots(2, len(QUANTILES), figsize=(10.5, 9), layout="constrained")
    obsm = {"spatial": st.obsm["spatial"]}
    for column, (name, quantile) in zip(axes.T, QUANTILES.items(), strict=True):
        place = order[round(quantile * (len(order) - 1))]
        gene = str(whole.shared_genes[place])
        for ax, values in zip(column, (measured, imputed), strict=True):
            shown = ad.AnnData(values[:, [place]], obs=st.obs[[]].copy(), obsm=obsm)
            shown.var_names = [gene]
            cellweft.pl.spatial(shown, gene, y="up", ax=ax)
        column[0].set_title(f"{gene}: measured, then hidden")
        column[1].set_title(f"{gene}: imputed\n({name}, r = {scores[place]:.2f})")
    figure.savefig(PICTURES / "cortex.png", dpi=100, bbox_inches="tight")
    print(f"cortex: {len(scores)} genes, median r {np.median(scores):.3f}", flush=True)


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
    parser.add_argument("names", nargs="*", default=["embryo", "cortex"])
    mpl.use("agg")
    for name in parser.parse_args().names:
        {"cortex": cortex, "embryo": embryo}[name]()


if __name__ == "__main__":
    main()
