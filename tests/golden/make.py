"""Write the golden files of a version once, at its release, to a new folder with its name."""

import sys
from pathlib import Path

import cellweft

SETTINGS = {
    "auto": {"steps": 5, "level_steps": 5},
    "stimpute": {"k": 4, "hidden": 6, "epochs": 1, "ae_epochs": 1},
}
PLACER = {"steps": 4, "hidden": 8, "middle": 6, "latent": 4, "models": 1}


def main(folder: Path) -> None:
    """Fit every preset to a small tissue, and write inputs, models and predictions."""
    folder.mkdir(parents=True, exist_ok=True)
    made = cellweft.datasets.simulate_tissue(n_spatial=20, n_reference=24, n_genes=12, n_panel=6, seed=3)
    made.sc.write_h5ad(folder / "sc.h5ad", compression="gzip")
    made.st.write_h5ad(folder / "st.h5ad", compression="gzip")
    both = cellweft.pair(made.sc, made.st)
    for preset, settings in SETTINGS.items():
        imputer = cellweft.Imputer(preset=preset, settings=settings, reliability=False, device="cpu")
        imputer.fit(both, progress=False).save(folder / f"{preset}.model")
        imputer.impute_to(folder / f"{preset}.h5ad", progress=False)
    placer = cellweft.Placer(settings=PLACER, device="cpu").fit(both, progress=False)
    placer.save(folder / "placer.model")
    placer.place(progress=False).to_anndata(neighbors=0, progress=False).write_h5ad(
        folder / "placed.h5ad", compression="gzip"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
