"""Every public function refuses odd values of every argument, with an error that says what it expected.

Each test is one argument of one function, which gets the values of `ODD` in turn. A value without an error
must be one that the argument accepts by its documentation: a number among numbers, None as the default, or
text if any text is allowed (`FREE`).
"""

import inspect
import numbers
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import cellweft
from cellweft import datasets, genes, io, metrics, pl, tl
from cellweft.errors import CellweftError

mpl.use("Agg")


class Stranger:
    """An object that no function accepts."""

    def __repr__(self) -> str:
        return "Stranger()"


ODD: dict[str, Any] = {
    "None": None,
    "three": 3,
    "minus one": -1,
    "one and a half": 1.5,
    "NaN": np.nan,
    "infinity": np.inf,
    "2**64": 2**64,
    "10**30": 10**30,
    "True": True,
    "text": "x",
    "no text": "",
    "surrogate": "\udc80x",
    "long text": "y" * 300,
    "NUL": "a\0b",
    "bytes": b"x",
    "list": [1, 2],
    "empty list": [],
    "dictionary": {"a": 1},
    "set": {1, 2},
    "function": len,
    "stranger": Stranger(),
    "empty array": np.zeros(0),
    "three axes": np.zeros((2, 3, 4)),
    "complex": np.ones((30, 2)) * 1j,
    "array of text": np.array([["a", "b"]] * 30),
    "array of NaN": np.full((30, 2), np.nan),
    "array of strangers": np.array([Stranger()] * 3, dtype=object),
}

FREE = {
    ("pl.composition", "unit"),
    ("pl.placed", "unit"),
    ("pl.trends", "axis"),
    ("pl.spatial", "title"),
    ("io.vitessce_config", "title"),
}
FREE |= {("io.vitessce_config", "url"), ("pl.calibration", "label"), ("Pair.find_shared", "where")}
FREE |= {("pl.gene", "unit"), ("pl.spatial", "unit"), ("Imputer.save", "path")}
FREE |= {(name, "device") for name in ("Imputer", "Placer", "load", "evaluate_imputation")}
"""Arguments that accept any text: it is displayed, is the name of an output, or is resolved when it is used
(a device may belong to another machine).
"""


def calls(world: Any, folder: Path) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Return every public function with valid arguments."""
    rng = np.random.default_rng(0)
    values, places, groups = rng.random((30, 5)), rng.random((30, 2)), np.array(list("abc") * 10)
    names, position = np.array(list("vwuzt")), np.linspace(0, 1, 30)
    near = sp.csr_matrix((rng.random((30, 30)) < 0.2).astype(float))
    ranks, lists = np.arange(5), np.arange(15).reshape(5, 3)
    quiet: dict[str, Any] = {"progress": False}
    trends = tl.gene_trends(values, position, genes=names, min_cells=10, **quiet)
    scores = pd.DataFrame(
        {"method": ["auto", "uniform"], "seed": 0, "fold": 0, "level": "gene", "item": "Gene00"}
        | {"metric": "pearson", "value": [0.5, 0.1]}
    )
    imputer, placer, placement, pair = world.imputer, world.placer, world.placement, world.pair
    panel = pair.shared_genes.tolist()
    first = {"genes": [panel[0]], **quiet}
    made = {
        "pair": (cellweft.pair, {"sc": world.sc, "st": world.st}),
        "Pair.cells": (pair.cells, {"cells": np.array([0, 1, 2])}),
        "Pair.find_genes": (pair.find_genes, {"names": panel}),
        "Pair.find_shared": (pair.find_shared, {"names": panel}),
        "Pair.hold_out": (pair.hold_out, {"genes": panel[:1]}),
        "Pair.panel": (pair.panel, {"genes": panel[:5]}),
        "Pair.with_reference": (pair.with_reference, {"sc": world.sc}),
        "Imputer": (cellweft.Imputer, {}),
        "Imputer.attach": (imputer.attach, {"pair": pair}),
        "Imputer.impute": (imputer.impute, first),
        "Imputer.impute_to": (imputer.impute_to, {"path": folder / "a.zarr", "overwrite": True, **first}),
        "Imputer.plan": (imputer.plan, {}),
        "Imputer.predict": (imputer.predict, {"genes": panel[:1], "pair": pair}),
        "Imputer.reliability_of": (imputer.reliability_of, {"genes": panel[:1]}),
        "Imputer.save": (imputer.save, {"path": folder / "a.model", "overwrite": True}),
        "Placer": (cellweft.Placer, {}),
        "Placer.attach": (placer.attach, {"pair": pair}),
        "Placer.place": (placer.place, quiet),
        "Placer.plan": (placer.plan, {}),
        "Placement.assign": (placement.assign, {}),
        "Placement.coordinates": (placement.coordinates, {}),
        "Placement.deconvolve": (placement.deconvolve, {}),
        "Placement.impute": (placement.impute, first),
        "Placement.neighbors": (placement.neighbors, {"k": 3}),
        "Placement.to_anndata": (placement.to_anndata, {"neighbors": 3, **quiet}),
        "Placement.topk": (placement.topk, {"k": 3}),
        "Placement.transfer": (placement.transfer, {"values": np.ones(40), "to": "spots"}),
        "Placement.values": (placement.values, {"rows": np.array([0])}),  # noqa: PD011
        "load": (cellweft.load, {"path": world.folder / "auto.model"}),
        "evaluate_imputation": (
            cellweft.evaluate_imputation,
            {"pair": pair, "methods": ["mean"], "folds": 2, "cluster": False, **quiet},
        ),
        "evaluate_placement": (cellweft.evaluate_placement, {"pair": pair, "methods": ["uniform"], **quiet}),
        "tl.axis_bins": (tl.axis_bins, {"position": position}),
        "tl.axis_of_score": (tl.axis_of_score, {"score": position}),
        "tl.differential_expression": (
            tl.differential_expression,
            {"imputations": [world.imputed, world.imputed], "groups": groups, **quiet},
        ),
        "tl.fit_axis": (tl.fit_axis, {"coordinates": places}),
        "tl.gene_trends": (
            tl.gene_trends,
            {"values": values, "position": position, "genes": names, "min_cells": 10, **quiet},
        ),
        "tl.neighborhood_enrichment": (
            tl.neighborhood_enrichment,
            {"adjacency": near, "labels": groups, "n_permutations": 9, **quiet},
        ),
        "tl.region_enrichment": (
            tl.region_enrichment,
            {"places": places, "labels": groups, "region_places": places, "region_labels": groups}
            | {"k": 3, "n_permutations": 9, **quiet},
        ),
        "tl.regional_genes": (tl.regional_genes, {"placed": placement, "regions": np.array(["a", "b"] * 20)}),
        "tl.subsample_types": (tl.subsample_types, {"cells": world.sc}),
        "tl.coexpression_modules": (
            tl.coexpression_modules,
            {"expression": values, "genes": names, "seed": 0, "k": 2},
        ),
        "tl.hollow_structure": (tl.hollow_structure, {"embeddings": values}),
        "tl.near_type": (tl.near_type, {"placed": placement, "cell_type": "Type1"}),
        "tl.regions_of": (tl.regions_of, {"placed": placement, "column": "cell_type"}),
        "tl.Trends.curves": (trends.curves, {"gene": "v"}),
        "tl.Trends.means": (trends.means, {}),
        "tl.radial_concentration": (tl.radial_concentration, {"embeddings": values}),
        "pl.calibration": (pl.calibration, {"truth": values, "bounds": {0.9: (values - 1, values + 1)}}),
        "pl.composition": (
            pl.composition,
            {"spots": pd.DataFrame({"a": np.full(30, 0.5), "b": np.full(30, 0.5)}), "places": places},
        ),
        "pl.label_colors": (pl.label_colors, {"data": world.st.copy(), "column": "cell_type"}),
        "pl.modules": (pl.modules, {"data": pd.DataFrame(values, columns=list("vwuzt"))}),
        "pl.placed": (pl.placed, {"placement": world.placed}),
        "pl.gene": (pl.gene, {"imputed": world.imputed, "gene": panel[0]}),
        "pl.methods": (pl.methods, {"scores": scores}),
        "pl.palette": (pl.palette, {"n": 3}),
        "pl.spatial": (pl.spatial, {"data": world.st}),
        "pl.trends": (pl.trends, {"trends": trends}),
        "io.check_cellxgene": (io.check_cellxgene, {"data": world.imputed}),
        "io.write_scores": (io.write_scores, {"table": scores, "path": folder / "s.csv", "overwrite": True}),
        "io.vitessce_config": (io.vitessce_config, {"result": world.folder / "imputed.zarr"}),
        "genes.read_edges": (genes.read_edges, {"source": pd.DataFrame({"a": ["x"], "b": ["y"]})}),
        "genes.read_embedding": (genes.read_embedding, {"source": pd.DataFrame([[1.0, 2.0]], index=["a"])}),
        "genes.read_fasta": (genes.read_fasta, {"path": "x"}),
        "genes.read_gene_sets": (genes.read_gene_sets, {"source": {"a": ["x", "y"]}}),
        "metrics.cluster_scores": (metrics.cluster_scores, {"labels": groups, "clusters": groups}),
        "metrics.composition_pcc": (metrics.composition_pcc, {"true": values, "predicted": values}),
        "metrics.hits": (metrics.hits, {"true": ranks, "neighbors": lists}),
        "metrics.hit_number": (metrics.hit_number, {"true": ranks, "neighbors": lists}),
        "metrics.location_errors": (metrics.location_errors, {"true": places, "predicted": places}),
        "metrics.type_groups": (metrics.type_groups, {"frequencies": np.array([1.0, 2, 3])}),
        "datasets.add_noise": (datasets.add_noise, {"cells": world.sc, "level": 0.1}),
        "datasets.pseudo_spots": (datasets.pseudo_spots, {"cells": world.st, "min_cells": 1}),
        "datasets.simulate_tissue": (
            datasets.simulate_tissue,
            {"n_spatial": 20, "n_reference": 20, "n_genes": 8, "n_panel": 4, "n_types": 2},
        ),
        "datasets.simulate_cortex": (
            datasets.simulate_cortex,
            {"n_spatial": 20, "n_reference": 20, "n_genes": 8, "n_panel": 4},
        ),
    }
    for name in ("cosine", "js", "mse", "pearson", "rmse_z", "spearman", "ssim"):
        made[f"metrics.{name}"] = (getattr(metrics, name), {"truth": values, "prediction": values + 0.1})
    return made


# Names only, because pytest needs the names of tests before the fixture `world` exists.
ARGUMENTS = [
    (name, argument)
    for name, function in {
        **{f"Pair.{one}": getattr(cellweft.Pair, one) for one in ("cells", "find_genes", "find_shared")},
        **{f"Pair.{one}": getattr(cellweft.Pair, one) for one in ("hold_out", "panel", "with_reference")},
        **{f"Imputer.{one}": getattr(cellweft.Imputer, one) for one in ("attach", "impute", "impute_to")},
        **{f"Imputer.{one}": getattr(cellweft.Imputer, one) for one in ("plan", "predict", "save")},
        "Imputer.reliability_of": cellweft.Imputer.reliability_of,
        **{f"Placer.{one}": getattr(cellweft.Placer, one) for one in ("attach", "place", "plan")},
        **{f"Placement.{one}": getattr(cellweft.Placement, one) for one in ("assign", "coordinates")},
        **{f"Placement.{one}": getattr(cellweft.Placement, one) for one in ("deconvolve", "impute")},
        **{f"Placement.{one}": getattr(cellweft.Placement, one) for one in ("neighbors", "to_anndata")},
        **{f"Placement.{one}": getattr(cellweft.Placement, one) for one in ("topk", "transfer", "values")},
        **{one: getattr(cellweft, one) for one in ("pair", "Imputer", "Placer", "load")},
        **{one: getattr(cellweft, one) for one in ("evaluate_imputation", "evaluate_placement")},
        **{f"tl.{one}": getattr(tl, one) for one in ("axis_bins", "axis_of_score", "fit_axis")},
        **{f"tl.{one}": getattr(tl, one) for one in ("differential_expression", "gene_trends")},
        **{f"tl.{one}": getattr(tl, one) for one in ("neighborhood_enrichment", "region_enrichment")},
        **{f"tl.{one}": getattr(tl, one) for one in ("regional_genes", "subsample_types")},
        **{f"tl.{one}": getattr(tl, one) for one in ("radial_concentration", "hollow_structure")},
        **{f"tl.{one}": getattr(tl, one) for one in ("coexpression_modules", "near_type", "regions_of")},
        **{f"tl.Trends.{one}": getattr(tl.Trends, one) for one in ("curves", "means")},
        **{f"pl.{one}": getattr(pl, one) for one in ("calibration", "gene", "methods", "palette")},
        **{f"pl.{one}": getattr(pl, one) for one in ("spatial", "trends", "composition", "label_colors")},
        **{f"pl.{one}": getattr(pl, one) for one in ("modules", "placed")},
        **{f"io.{one}": getattr(io, one) for one in ("check_cellxgene", "write_scores", "vitessce_config")},
        **{f"genes.{one}": getattr(genes, one) for one in ("read_edges", "read_embedding", "read_fasta")},
        "genes.read_gene_sets": genes.read_gene_sets,
        **{f"metrics.{one}": getattr(metrics, one) for one in metrics.__all__},
        **{f"datasets.{one}": getattr(datasets, one) for one in ("add_noise", "pseudo_spots")},
        **{f"datasets.{one}": getattr(datasets, one) for one in ("simulate_tissue", "simulate_cortex")},
    }.items()
    for argument in inspect.signature(function).parameters
    if argument not in ("self", "progress", "ax", "axes", "adata")
]


@pytest.fixture(scope="module")
def table(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return calls(world, tmp_path_factory.mktemp("outputs"))


def may_take(name: str, argument: str, value: Any, default: Any, valid: Any) -> bool:
    """Say whether an argument may accept a value: one of the type of its default or valid value."""
    if value is None:
        return default is None
    if argument == "memory":  # a number of bytes; without a unit, at least a megabyte
        return isinstance(value, int) and not isinstance(value, bool) and value >= 10**6
    if argument in ("genes", "names") and isinstance(value, np.ndarray):
        return value.size == 0  # no genes, like an empty list
    of_numbers = isinstance(value, numbers.Real)
    if (name, argument) in FREE and isinstance(value, str):
        return True
    if of_numbers and not isinstance(value, bool):
        return isinstance(valid, numbers.Real) or isinstance(default, numbers.Real) or default is None
    if isinstance(value, bool):
        return isinstance(default, bool) or default is None
    if isinstance(value, np.ndarray):
        return isinstance(valid, np.ndarray) or default is None
    if isinstance(value, list):
        return isinstance(valid, np.ndarray | list | Mapping) or isinstance(default, tuple) or default is None
    if isinstance(value, dict):
        return isinstance(default, dict) or default is None
    return False


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS, ids=[".".join(one) for one in ARGUMENTS])
@pytest.mark.filterwarnings("ignore")
def test_odd_values_are_refused_by_name(
    name: str, argument: str, table: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    function, given = table[name]
    default = inspect.signature(function).parameters[argument].default
    faults = []
    for what, value in ODD.items():
        try:
            function(**given | {argument: value})
        except CellweftError as error:
            if "expected" not in str(error) or ", got " not in str(error):
                faults.append(f"{what}: the error says too little: {error}")
        except Exception as error:
            faults.append(f"{what}: {type(error).__name__}: {error}")
        else:
            valid = given.get(argument)
            faults += [] if may_take(name, argument, value, default, valid) else [f"{what} was taken"]
        finally:
            mpl.pyplot.close("all")
    assert not faults


def test_many_arguments_are_tested() -> None:
    assert len(ARGUMENTS) * len(ODD) >= 5000
