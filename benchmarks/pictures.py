"""The pictures of README, of the home page and of the page about plots and viewer, from real data.

They show held-out genes and cells of known position. ``python benchmarks/pictures.py`` writes all of
docs/pictures; give names of pictures to make only some. The genes are not chosen by hand: in the cortex, each
gene of the panel is held out once, in the published five folds, and those with the best, upper quartile and
median correlation with the measurement are drawn; in the hypothalamus every fifth gene is held out, and the
best is drawn. The viewer is photographed in Chromium.
"""

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata as ad
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from playwright.sync_api import Page, sync_playwright
from sklearn.model_selection import KFold

import cellweft
from view_browser import OPTIONS, SETTLED

from common import DATA, ROOT

PICTURES = ROOT / "docs" / "pictures"
QUANTILES = {"best": 1.0, "upper quartile": 0.75, "median": 0.5}


def cortex() -> None:
    """Hold out each gene of the osmFISH panel, impute it, and draw measured above imputed."""
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


def placement() -> cellweft.Placement:
    """Place the embryo's cells on its pseudo-spots."""
    cells, spots = DATA / "embryo_benchmark_sc.h5ad", DATA / "embryo_benchmark_st.h5ad"
    return cellweft.Placer(seed=0).fit(cellweft.pair(cells, spots, labels="cell_type")).place()


def embryo() -> None:
    """Draw the true positions of the embryo's cells, and the places found."""
    placed = placement()
    figure, axes = plt.subplots(1, 2, figsize=(11, 6.4), layout="constrained")
    cellweft.pl.placed(placed, "cell_type", truth="obs:x_global,y_global", axes=axes)
    axes[0].set_title("where 6,116 cells lived")
    axes[1].set_title("where cellweft placed them")
    figure.savefig(PICTURES / "embryo.png", dpi=110, bbox_inches="tight")
    lived = placed.pair.sc.obs[["x_global", "y_global"]].to_numpy()
    error = np.linalg.norm(placed.coordinates() - lived, axis=1)
    width = np.ptp(lived, axis=0).max()
    print(f"embryo: median error {np.median(error):.2f} of a width of {width:.0f}", flush=True)


def hypothalamus(folder: Path) -> tuple[Path, Path, str]:
    """Hold out every fifth gene of the hypothalamus and impute it; return result, tissue and a gene."""
    reference = ad.read_h5ad(DATA / "hypo_ref_10x_sc134.h5ad")
    tissue = DATA / "hypo_merfish_animal1_bregma-0.29_st.h5ad"
    measured = ad.read_h5ad(tissue)
    whole = cellweft.pair(reference, measured, size_factor="nUMI_all_genes")
    hidden = whole.shared_genes[::5]
    cut = measured[:, ~measured.var_names.isin(hidden)].copy()
    pair = cellweft.pair(reference, cut, size_factor="nUMI_all_genes")
    imputed = cellweft.Imputer(seed=0).fit(pair).impute(list(whole.shared_genes), interval=0.9)
    imputed.obs["cell_type"] = measured.obs["cell_type"]
    imputed.write_h5ad(folder / "hypothalamus.h5ad")
    places = whole.st_shared[::5]
    truth = whole.st.dense(slice(0, whole.st.n_cells), places)
    scores = cellweft.metrics.pearson(truth, imputed[:, hidden].X)
    place = np.argmax(scores)
    print(f"hypothalamus: {len(hidden)} genes, median r {np.median(scores):.3f}", flush=True)
    panels = cellweft.pl.gene(imputed, hidden[place], measured=truth[:, place], y="up", unit="µm")
    panels[0].figure.savefig(PICTURES / "gene.png", dpi=100, bbox_inches="tight")
    return folder / "hypothalamus.h5ad", tissue, str(hidden[place])


@contextmanager
def page(address: str, **options: Any) -> Iterator[Page]:
    """Open a page of the viewer, and wait until it is drawn."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=OPTIONS)
        shown = browser.new_page(**{"viewport": {"width": 1280, "height": 800}} | options)
        shown.goto(address)
        settle(shown)
        yield shown
        browser.close()


def settle(shown: Page) -> None:
    """Wait until everything is drawn."""
    shown.wait_for_function(SETTLED)


def save(shown: Page, name: str) -> None:
    """Photograph the page."""
    settle(shown)
    shown.screenshot(path=PICTURES / f"viewer_{name}.png")


def select(shown: Page, corners: list[tuple[float, float]]) -> None:
    """Draw around cells of the imputed panel; corners are parts of its width and height."""
    box = shown.locator(".panel[data-layer=imputed] canvas").bounding_box()
    assert box is not None
    shown.locator("#lasso").click()
    for number, (x, y) in enumerate(corners):
        shown.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
        if number == 0:
            shown.mouse.down()
    shown.mouse.up()
    shown.locator("#compare tbody tr").first.wait_for()


def viewer() -> None:
    """Photograph the viewer with the imputed genes of the hypothalamus."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        imputed, tissue, gene = hypothalamus(folder)
        with cellweft.view(imputed, tissue=tissue, open_browser=False, block=False) as served:
            start = f"{served.url}#d=0&g={gene}"
            with page(start) as shown:
                save(shown, "panels")
                shown.keyboard.press("/")
                shown.keyboard.type(gene[:2])
                shown.keyboard.press("ArrowDown")
                save(shown, "search")
            with page(f"{start}&m=imputed") as shown:
                select(shown, [(0.42, 0.1), (0.58, 0.1), (0.58, 0.9), (0.42, 0.9)])
                save(shown, "region")
            with page(start, color_scheme="dark") as shown:
                save(shown, "dark")
            with page(start, viewport={"width": 390, "height": 760}) as shown:
                save(shown, "narrow")


def placed_viewer() -> None:
    """Photograph the viewer with the placed cells of the embryo."""
    placed = placement().to_anndata()
    with cellweft.view(placed, open_browser=False, block=False) as served, page(served.url) as shown:
        shown.locator("#color").select_option("cell_type")
        save(shown, "placed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    makers = {"cortex": cortex, "embryo": embryo, "viewer": viewer, "placed-viewer": placed_viewer}
    parser.add_argument("names", nargs="*", default=list(makers), metavar="NAME", help=", ".join(makers))
    mpl.use("agg")
    for name in parser.parse_args().names:
        makers[name]()


if __name__ == "__main__":
    main()
