"""Every tool refuses arguments of a wrong type with an error of cellweft that names the argument."""

import inspect
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import cellweft
from cellweft.errors import CellweftError

VALUES = np.arange(12.0).reshape(6, 2) ** 2
LABELS = np.array(list("aabbcc"))
NAMES = np.array(["A", "B"])

CALLS: dict[str, dict[str, Any]] = {
    "coexpression_modules": {"expression": VALUES, "genes": NAMES, "seed": 0},
    "leiden_clusters": {"expression": VALUES, "seed": 0},
    "gene_trends": {"values": VALUES, "position": VALUES[:, 0], "genes": NAMES, "min_cells": 2, "knots": 2},
    "neighborhood_enrichment": {"adjacency": np.ones((6, 6)), "labels": LABELS, "n_permutations": 3},
    "region_enrichment": {
        "places": VALUES,
        "labels": LABELS,
        "region_places": VALUES,
        "region_labels": LABELS,
        "k": 2,
        "n_permutations": 3,
    },
    "hollow_structure": {"embeddings": VALUES},
    "radial_concentration": {"embeddings": VALUES},
    "fit_axis": {"coordinates": np.random.default_rng(0).random((30, 2))},
    "axis_of_score": {"score": VALUES[:, 0]},
    "axis_bins": {"position": VALUES[:, 0], "bins": 2},
    "differential_expression": {
        "imputations": [ad.AnnData(VALUES), ad.AnnData(VALUES + 1)],
        "groups": LABELS,
    },
    "multiple_imputations": {"imputer": None},
    "subsample_types": {"cells": None},
    "attribute": {"placed": None},
    "dominant_genes": {"attribution": None, "segments": LABELS},
    "compare_with_expression": {"attribution": None, "values": VALUES, "segments": LABELS},
    "regional_genes": {"placed": None, "regions": LABELS},
    "regions_of": {"placed": None, "column": "region"},
    "near_type": {"placed": None, "cell_type": "a"},
    "shared_embedding": {"imputer": None},
    "mixing": {"both": None},
    "presence": {"imputer": None},
    "spillover": {"pair": None},
    "remove_spillover": {"pair": None},
}
WRONG = [
    None,
    "text",
    5,
    np.array(["x", "y"], dtype=object),
    np.ones((2, 2, 2)),
    np.array([np.nan]),
    ad.AnnData(np.ones((2, 2), dtype=np.float32)),
    pd.DataFrame({"a": ["x"]}),
    {"a": 1},
    [1, [2]],
    object(),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CALLS)
def test_arguments_of_a_wrong_type_raise_errors_of_cellweft(name: str) -> None:
    function, usual = getattr(cellweft.tl, name), CALLS[name]
    refused = 0
    for argument in inspect.signature(function).parameters:
        if argument == "progress":
            continue
        for wrong in WRONG:
            try:
                function(**usual | {argument: wrong})
            except CellweftError:
                refused += 1
    assert refused


def test_every_tool_is_tested_here() -> None:
    kinds = {"Attribution", "Axis", "GeneComparison", "Trends"}
    assert set(cellweft.tl.__all__) - kinds == set(CALLS)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cellweft.tl.fit_axis(VALUES, kind="polynom"), "kind: .* Did you mean 'polynomial'"),
        (lambda: cellweft.tl.fit_axis(VALUES, rotate="no"), "rotate: expected True or False, got 'no'"),
        (lambda: cellweft.tl.axis_of_score(LABELS), "score: expected an array of numbers, got a ndarray"),
        (
            lambda: cellweft.tl.leiden_clusters(ad.AnnData(np.ones((2, 2), dtype=np.float32)), seed=0),
            "expression: expected an array, got a AnnData.* such as X or a layer of an AnnData",
        ),
        (lambda: cellweft.tl.leiden_clusters(VALUES, seed=-1), "seed: expected a whole number >= 0"),
        (
            lambda: cellweft.tl.gene_trends(VALUES, LABELS, genes=NAMES),
            "position: expected an array of numbers",
        ),
        (
            lambda: cellweft.tl.differential_expression([VALUES, VALUES], LABELS),
            "imputations: expected a list of AnnData, got a list",
        ),
        (lambda: cellweft.tl.multiple_imputations(VALUES), "imputer: expected an Imputer, got a nd"),
        (lambda: cellweft.metrics.pearson("a", VALUES), "truth: expected an array of numbers"),
        (lambda: cellweft.metrics.location_errors(LABELS, VALUES), "true: expected an array of numbers"),
        (lambda: cellweft.metrics.cluster_scores(None, LABELS), "clusters: expected one cluster for each"),
    ],
)
def test_the_message_names_the_argument(call: Any, message: str) -> None:
    with pytest.raises(CellweftError, match=message):
        call()
