"""``cellweft demo``: simulate files, impute genes, place cells, and write a report."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import numpy as np
import typer
from numpy.typing import NDArray

from cellweft._errors import OutputExistsError, arg, require, sentence
from cellweft._typing import FloatArray, PathLike, Progress, no_progress
from cellweft.cli.console import running
from cellweft.cli.options import Overwrite, RunOptions
from cellweft.cli.parsing import check_device
from cellweft.cli.score_tables import placement_table, score_table, shown_placement, shown_scores
from cellweft.data.io import keys
from cellweft.data.io.atomic_output import check_output, output_errors, partial_output

if TYPE_CHECKING:
    import anndata
    import pandas as pd

    from cellweft.data._pair import Pair
    from cellweft.data.synthetic.tissue import SimulatedTissue
    from cellweft.place.placement import Placement

_NEXT = """To do the same with your own data:
  cellweft check    atlas.h5ad tissue.h5ad
  cellweft impute   atlas.h5ad tissue.h5ad -o imputed.zarr
  cellweft place    atlas.h5ad tissue.h5ad -o placed.zarr
  cellweft evaluate atlas.h5ad tissue.h5ad -o scores.csv
  cellweft report   imputed.zarr placed.zarr scores.csv -o report.html"""

FILES = {
    "atlas": "atlas.h5ad",
    "tissue": "tissue.h5ad",
    "truth": "truth.h5ad",
    "imputed": "imputed.zarr",
    "scores": "scores.csv",
    "truth_scores": "truth_scores.csv",
    "placed": "placed.h5ad",
    "place_scores": "place_scores.csv",
    "report": "report.html",
}
"""Files of the demonstration by content. Each table of scores comes with a .json file."""

PICTURES = {
    "gene": "pictures/gene.png",
    "reliability": "pictures/reliability.png",
    "methods": "pictures/methods.png",
    "placed": "pictures/placed.png",
}
"""Pictures of the demonstration by content."""

INTERVAL = 0.9
"""Share of true values that should lie inside the intervals of the imputed genes."""

SETTINGS = {"steps": 110, "fold_steps": 70, "level_steps": 110}
"""Settings of the Imputer: a third of the default's steps, to be quick."""

PLACER_SETTINGS = {"models": 1, "steps": 150}
"""One encoder instead of several, with a shorter training."""

_FOLDS = 3
"""Parts of the panel that are hidden in turn; `cellweft evaluate` has five, which takes longer."""
_BASELINES = ("mean", "knn", "attention")
_PLACE_BASELINES = ("cosine", "knn-regression", "random", "centre")
_MARK = "demo.json"
_PANEL, _GENES, _PER_CELL = 60, 250, 0.8  # the last one: reference cells per spatial cell


def demo(
    *,
    out: Annotated[Path, typer.Option(metavar="DIR")] = Path("cellweft-demo"),
    cells: int = 2000,
    overwrite: Overwrite = False,
    run: RunOptions,
) -> None:
    """Try cellweft without your own data: simulate a tissue, impute genes, place cells, show the accuracy.

    Parameters
    ----------
    out
        Folder for the files of the demo.
    cells
        Number of spatial cells to simulate.
    overwrite, run
        Options that are shared by several commands.
    """
    with running(run) as screen:
        check_device(run.device)
        with screen.progress() as progress:
            results = run_demo(
                out,
                n_cells=cells,
                seed=run.seed,
                device=run.device,
                overwrite=overwrite,
                say=screen.say,
                progress=progress,
            )
        screen.say("")
        screen.show(
            score_table(_by_preset(results.held_out), title="Panel genes, one third hidden at a time")
        )
        off_panel = _by_preset(results.against_truth)
        screen.show(score_table(off_panel, title="Genes outside the panel, compared with the truth"))
        screen.say(
            "Medians over genes and cells, and agreement between clusters. Higher is better, except mse.\n"
            "Even a method that predicts one constant per gene (mean) has a high cosine: look at pearson "
            "instead.\n"
            "The reliable half is the half of the genes with the highest reliability. auto is trained for "
            "a third of its usual steps:\n"
            f"{_method(SETTINGS)}.\n"
        )
        places = _by_preset(results.places)
        screen.show(placement_table(places, title="Positions of the atlas cells, compared with the truth"))
        screen.say(
            "Distance from the true position, in the unit of the coordinates, and hits: how many of a\n"
            f"cell's 25 nearest cells are found. auto is {_method(PLACER_SETTINGS)} here.\n"
        )
        screen.say(_NEXT)
        screen.say("")
        screen.finish(
            f"The demonstration is in {out}, with a report in {results.report}: "
            f"{', '.join(FILES.values())}, {', '.join(PICTURES.values())}",
            {
                "command": "demo",
                "folder": results.folder,
                "files": {key: results.folder / name for key, name in FILES.items()},
                "pictures": {key: results.folder / name for key, name in PICTURES.items()},
                "held_out": shown_scores(results.held_out),
                "against_truth": shown_scores(results.against_truth),
                "places": shown_placement(results.places),
            },
        )


def _by_preset(scores: pd.DataFrame) -> pd.DataFrame:
    """Return scores without settings in the names of methods, which would be too long for a screen."""
    return scores.assign(method=scores["method"].str.partition(":")[0])


@dataclass(frozen=True, kw_only=True, eq=False)
class Demo:
    """The results of a demonstration.

    Attributes
    ----------
    folder
        Folder of its files.
    pair
        The simulated inputs, as they were read.
    held_out
        Scores on held-out panel genes, from `cellweft.evaluate_imputation`, as on real data.
    against_truth
        Scores on the genes that the panel did not measure, in the same columns.
    places
        Scores of the positions of the atlas cells, in the same columns.
    report
        The report on all of this.
    """

    folder: Path
    pair: Pair
    held_out: pd.DataFrame
    against_truth: pd.DataFrame
    places: pd.DataFrame
    report: Path


def run_demo(
    folder: PathLike,
    *,
    n_cells: int = 2000,
    seed: int = 0,
    device: str = "auto",
    overwrite: bool = False,
    say: Callable[[str], None] | None = None,
    progress: Progress = no_progress,
) -> Demo:
    """Simulate a tissue, impute its genes, place the cells of an atlas, and score both.

    Parameters
    ----------
    folder
        Folder for the files; created if it does not exist.
    n_cells
        Spatial cells of the tissue.
    seed
        Seed of the simulation and of the methods.
    device
        Device of the methods.
    overwrite
        Whether to replace files of these names that cellweft demo did not write. Files of an earlier
        demonstration are always replaced, files with other names never.
    say
        Called with a line at the start of each step.
    progress
        Called during the run.

    Raises
    ------
    OutputExistsError
        The folder contains files of these names that cellweft demo did not write.
    OutputError
        The folder could not be written to.
    MissingExtraError
        The extra ``clustering`` or ``report`` is not installed.
    """
    from cellweft.data._pair import pair
    from cellweft.data.synthetic.cortex import simulate_cortex
    from cellweft.evaluate.imputation import evaluate_imputation
    from cellweft.evaluate.score_table import write_scores
    from cellweft.impute.imputer import Imputer

    for module in ("graspologic_native", "jinja2", "PIL", "matplotlib"):
        require(module, "clustering,report")
    folder = _prepare(Path(folder), overwrite=overwrite)
    say = say or (lambda line: None)
    path = {key: folder / name for key, name in FILES.items()}
    say(
        f"1. Simulate a mouse cortex of {n_cells:,} cells with a panel of {_PANEL} genes, and an atlas of "
        f"{_GENES} genes."
    )
    tissue = simulate_cortex(
        n_spatial=n_cells, n_reference=round(_PER_CELL * n_cells), n_genes=_GENES, n_panel=_PANEL, seed=seed
    )
    _write_inputs(tissue, path)
    data = pair(path["atlas"], path["tissue"])
    say("2. Impute all genes of the atlas in every cell of the tissue.")
    imputer = Imputer(settings=SETTINGS, seed=seed, device=device).fit(data, progress=progress)
    imputer.impute_to(path["imputed"], interval=INTERVAL, overwrite=True, progress=progress)
    say("3. Hide a third of the panel at a time, predict it from the rest, and compare.")
    held_out = evaluate_imputation(
        data, [_method(SETTINGS), *_BASELINES], folds=_FOLDS, seeds=[seed], device=device, progress=progress
    )
    write_scores(held_out, path["scores"], overwrite=True)
    say("4. Compare the genes that the panel did not measure with the simulated truth.")
    against_truth = _score_truth(data, path, seed=seed, device=device)
    write_scores(against_truth, path["truth_scores"], overwrite=True)
    say("5. Place the cells of the atlas in the tissue, and compare with their simulated positions.")
    places = _place(data, path, seed=seed, device=device, progress=progress)
    say("6. Plot the results, and write the report.")
    _draw(data, path, folder, tables=(held_out, against_truth))
    report_path = _report(data, path)
    return Demo(
        folder=folder,
        pair=data,
        held_out=held_out,
        against_truth=against_truth,
        places=places,
        report=report_path,
    )


def _prepare(folder: Path, *, overwrite: bool) -> Path:
    """Create the folder, and refuse to replace files that cellweft demo did not write."""
    check_output(folder.with_name(folder.name + ".partial"))  # whether the parent folder is writable
    with output_errors(folder):
        folder.mkdir(exist_ok=True)
        mark = folder / _MARK
        names = [*FILES.values(), "scores.json", "truth_scores.json", "place_scores.json", *PICTURES.values()]
        foreign = [name for name in names if (folder / name).exists()]
        if foreign and not overwrite and not mark.exists():
            replace = arg("overwrite", True)
            raise OutputExistsError(
                str(folder),
                expected="a new folder, or the folder of an earlier demonstration",
                got=f"a folder with a {foreign[0]} that cellweft demo did not write",
                fix=sentence("Choose another folder, {}, or replace its files: {}.", arg("out"), replace),
            )
        mark.write_text(json.dumps({"written by": "cellweft demo", "files": names}, indent=2) + "\n")
    return folder


def _write_inputs(tissue: SimulatedTissue, path: dict[str, Path]) -> None:
    for key, data in (("atlas", tissue.sc), ("tissue", tissue.st), ("truth", tissue.truth)):
        with partial_output(path[key], overwrite=True) as partial:
            data.write_h5ad(partial)


def _method(settings: Mapping[str, int]) -> str:
    """Return the label of the method in tables."""
    changes = "+".join(f"{key}={value}" for key, value in settings.items())
    return f"auto:{changes}" if changes else "auto"


def _score_truth(data: Pair, path: dict[str, Path], *, seed: int, device: str) -> pd.DataFrame:
    """Score the written genes that were not on the panel, and the baselines."""
    import anndata
    import pandas as pd

    from cellweft.data._pair import pair
    from cellweft.evaluate.methods import resolve_methods
    from cellweft.evaluate.score_table import COLUMNS

    truth = pair(path["atlas"], path["truth"]).st  # log-normalised, like the inputs
    imputed = anndata.read_zarr(path["imputed"])
    # Also indices into the atlas, because all its genes were imputed
    hidden = np.flatnonzero(~imputed.var[keys.MEASURED].to_numpy())
    names = data.sc.genes[hidden]
    columns = pd.Index(truth.genes).get_indexer(pd.Index(names))
    measured = truth.dense(slice(0, truth.n_cells), columns)  # n_cells x n_hidden
    own = np.asarray(imputed.X)[:, hidden]
    reliable = imputed.var[keys.RELIABILITY].to_numpy()[hidden]
    best = np.argsort(-reliable, kind="stable")[: (len(hidden) + 1) // 2]
    rows = _truth_rows(names, measured, own) + _medians("most reliable half", measured[:, best], own[:, best])
    rows += _coverage(imputed[:, hidden], measured)
    tables = [table.assign(method=_method(SETTINGS)) for table in rows]
    for method in resolve_methods(_BASELINES, device=device):
        predicted = method.make(seed).fit(data).predict(names, data)
        tables += [table.assign(method=method.label) for table in _truth_rows(names, measured, predicted)]
    scores = pd.concat(tables, ignore_index=True).assign(seed=seed)[list(COLUMNS)]
    scores.attrs[keys.RECORD] = {"truth": str(path["truth"]), "seeds": [seed], "settings": SETTINGS}
    return scores


def _coverage(imputed: anndata.AnnData, measured: FloatArray) -> list[pd.DataFrame]:
    """Return the share of true values inside the intervals, for each gene and overall."""
    from cellweft.evaluate.score_table import score_rows

    inside = (imputed.layers[keys.LOWER] <= measured) & (measured <= imputed.layers[keys.UPPER])
    shares = (("gene", imputed.var_names, inside.mean(axis=0)), ("summary", ["all values"], inside.mean()))
    metric = f"coverage@{INTERVAL:g}"
    return [score_rows(level, items, -1, metric=metric, values=values) for level, items, values in shares]


class _Placed:
    """A placement as a method to evaluate, so that it is scored without a second training."""

    preset, settings = "auto", PLACER_SETTINGS  # its label in tables

    def __init__(self, placement: Placement) -> None:
        self.placement = placement

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def fit(self, pair: Pair) -> Self:  # noqa: ARG002 (as methods are called)
        """Return itself: it was fitted to this pair."""
        return self

    def place(self) -> Placement:
        """Return the placement."""
        return self.placement


def _place(data: Pair, path: dict[str, Path], *, seed: int, device: str, progress: Progress) -> pd.DataFrame:
    """Place the cells of the atlas, write them, and score them and the baselines."""
    from cellweft.data.io.write import write_anndata
    from cellweft.evaluate.placement import evaluate_placement
    from cellweft.evaluate.score_table import write_scores
    from cellweft.place.placer import Placer

    placer = Placer(settings=PLACER_SETTINGS, seed=seed, device=device)
    placement = placer.fit(data, progress=progress).place(progress=progress)
    write_anndata(placement.to_anndata(), path["placed"], overwrite=True)
    scores = evaluate_placement(
        data,
        [_Placed(placement), *_PLACE_BASELINES],
        truth="obsm:spatial_true",
        hits=(min(25, data.sc.n_cells - 1),),
        seeds=[seed],
        device=device,
        progress=progress,
    )
    write_scores(scores, path["place_scores"], overwrite=True)
    return scores


def _truth_rows(names: NDArray[np.str_], truth: FloatArray, predicted: FloatArray) -> list[pd.DataFrame]:
    """Return the scores of each gene, and their median."""
    from cellweft.evaluate.metrics import METRICS
    from cellweft.evaluate.score_table import score_rows

    scores = {name: score(truth, predicted) for name, score in METRICS.items()}
    genes = [score_rows("gene", names, -1, metric=name, values=each) for name, each in scores.items()]
    genes += _medians("median over genes", truth, predicted)
    return genes + _medians("median over cells", truth.T, predicted.T)


def _medians(item: str, truth: FloatArray, predicted: FloatArray) -> list[pd.DataFrame]:
    from cellweft.evaluate.metrics import METRICS
    from cellweft.evaluate.score_table import score_rows

    medians = {name: float(np.median(score(truth, predicted))) for name, score in METRICS.items()}
    return [score_rows("summary", [item], -1, metric=name, values=median) for name, median in medians.items()]


def _draw(data: Pair, path: dict[str, Path], folder: Path, *, tables: tuple[pd.DataFrame, ...]) -> None:
    """Plot a gene that the panel did not measure, the accuracy of the methods, and the placed cells."""
    import anndata

    from cellweft import pl
    from cellweft.data._pair import pair
    from cellweft.reports.figures import png

    held_out, against_truth = tables
    imputed, placed = anndata.read_zarr(path["imputed"]), anndata.read_h5ad(path["placed"])
    truth = pair(path["atlas"], path["truth"])
    best = _gene_to_show(imputed.var.join(anndata.read_h5ad(path["truth"], backed="r").var["pattern"]))
    place = int(np.flatnonzero(truth.st.genes == best)[0])
    true_values = truth.st.dense(slice(0, truth.st.n_cells), np.array([place]))[:, 0]

    def gene() -> object:
        axes = pl.gene(imputed, best, measured=true_values)
        axes[0].set_title(f"{best}, simulated truth")
        return axes

    drawn: dict[str, Callable[[], object]] = {
        "gene": gene,
        "reliability": lambda: pl.reliability(imputed, against_truth, method=_method(SETTINGS)),
        "methods": lambda: pl.methods(held_out),
        "placed": lambda: pl.placed(placed, "cell_type", truth=data.sc.obsm["spatial_true"]),
    }
    for key, draw in drawn.items():
        target = folder / PICTURES[key]
        with output_errors(target):
            target.parent.mkdir(exist_ok=True)
        with partial_output(target, overwrite=True) as partial:
            partial.write_bytes(png(draw))


def _gene_to_show(var: pd.DataFrame) -> str:
    """Return the most reliable gene that is not on the panel and not specific to one cell type."""
    reliabilities = var[~var[keys.MEASURED]][keys.RELIABILITY].fillna(-1.0)
    in_space = reliabilities[var["pattern"] != "specific"]
    return str((reliabilities if in_space.empty else in_space).idxmax())


def _report(data: Pair, path: dict[str, Path]) -> Path:
    """Write the report on all results."""
    from cellweft.data._pair import pair
    from cellweft.reports import report

    paths = [path[key] for key in ("imputed", "placed", "scores", "truth_scores", "place_scores")]
    return report(
        path["report"],
        *paths,
        data,
        truth=pair(path["atlas"], path["truth"]),
        true_places="obsm:spatial_true",
        title="cellweft demo: a simulated tissue",
        overwrite=True,
    )
