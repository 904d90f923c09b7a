"""weft: weave single cells into tissue.

The public names are these, and no others; each is loaded when it is first used, so that ``import weft`` is
quick::

    pair, Pair, with_reference              two inputs, checked and matched; other cells on the same spots
    Imputer, load                           genes that the panel missed
    multiple_imputations,
    differential_expression                 plausible matrices, and tests that count what is not known
    Placer, Placement                       where in the tissue every cell lived
    attribute, dominant_genes,
    compare_with_expression                 the genes that decide a place
    fit_axis, axis_of_score, gene_trends    cells along an axis, and genes that vary along it
    neighborhood_enrichment,
    region_enrichment, hollow_structure,
    hollowness                              who lives beside whom, and how embeddings lie
    evaluate_imputation,
    evaluate_placement, write_scores,
    metrics                                 how good predictions and placements are
    pl, report, view                        plots; a page that tells all of a result; tissue in the browser
    cluster_scores, leiden_clusters,
    coexpression_modules                    groups of cells and of genes
    find_proteins, ProteinTable,
    read_fasta, FastaRecord                 one protein per gene
    embed_proteins, ProteinEmbedder,
    read_embedding, EmbeddingTable          one vector per gene
    read_gene_sets, GeneSets,
    read_edges, EdgeList                    sets and pairs of genes that belong together
    read_spatialdata, to_spatialdata,
    read_platform, write_cellxgene,
    check_cellxgene, write_vitessce,
    vitessce_config, write_explorer_groups  from and for other programs
    simulate_tissue, SimulatedTissue,
    pseudo_spots, PseudoSpots, add_noise    data with known truth
    WeftError and its kinds                 everything that weft raises on purpose
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from weft._errors import (
    FormatError,
    GeneError,
    InputError,
    KeyMissingError,
    MemoryBudgetError,
    MissingExtraError,
    MissingFileError,
    NotFittedError,
    OutputError,
    OutputExistsError,
    ScaleError,
    ServiceError,
    SettingError,
    WeftError,
)

if TYPE_CHECKING:
    from weft import metrics, pl
    from weft.attribution import Attribution, attribute
    from weft.axis import Axis, axis_of_score, fit_axis
    from weft.clusters import cluster_scores, coexpression_modules, leiden_clusters
    from weft.data.cellxgene import check_cellxgene, write_cellxgene
    from weft.data.edges import EdgeList, read_edges
    from weft.data.embeddings import EmbeddingTable, read_embedding
    from weft.data.explorer import write_explorer_groups
    from weft.data.genesets import GeneSets, read_gene_sets
    from weft.data.other_cells import with_reference
    from weft.data.pair import Pair, pair
    from weft.data.platforms import read_platform
    from weft.data.pseudospots import PseudoSpots, add_noise, pseudo_spots
    from weft.data.simulate import SimulatedTissue, simulate_tissue
    from weft.data.spatialdata import read_spatialdata, to_spatialdata
    from weft.data.vitessce import vitessce_config, write_vitessce
    from weft.differential import differential_expression
    from weft.dominance import GeneComparison, compare_with_expression, dominant_genes
    from weft.esm import ProteinEmbedder, embed_proteins
    from weft.evaluation import evaluate_imputation, write_scores
    from weft.evaluation_place import evaluate_placement
    from weft.fasta import FastaRecord, read_fasta
    from weft.imputer import Imputer
    from weft.loading import load
    from weft.multiple import multiple_imputations
    from weft.niches import hollow_structure, hollowness, neighborhood_enrichment, region_enrichment
    from weft.placement import Placement
    from weft.placer import Placer
    from weft.proteins import ProteinTable, find_proteins
    from weft.reporting import report
    from weft.trends import Trends, gene_trends
    from weft.viewer import view

    __version__: str

__all__ = [
    "Attribution",
    "Axis",
    "EdgeList",
    "EmbeddingTable",
    "FastaRecord",
    "FormatError",
    "GeneComparison",
    "GeneError",
    "GeneSets",
    "Imputer",
    "InputError",
    "KeyMissingError",
    "MemoryBudgetError",
    "MissingExtraError",
    "MissingFileError",
    "NotFittedError",
    "OutputError",
    "OutputExistsError",
    "Pair",
    "Placement",
    "Placer",
    "ProteinEmbedder",
    "ProteinTable",
    "PseudoSpots",
    "ScaleError",
    "ServiceError",
    "SettingError",
    "SimulatedTissue",
    "Trends",
    "WeftError",
    "__version__",
    "add_noise",
    "attribute",
    "axis_of_score",
    "check_cellxgene",
    "cluster_scores",
    "coexpression_modules",
    "compare_with_expression",
    "differential_expression",
    "dominant_genes",
    "embed_proteins",
    "evaluate_imputation",
    "evaluate_placement",
    "find_proteins",
    "fit_axis",
    "gene_trends",
    "hollow_structure",
    "hollowness",
    "leiden_clusters",
    "load",
    "metrics",
    "multiple_imputations",
    "neighborhood_enrichment",
    "pair",
    "pl",
    "pseudo_spots",
    "read_edges",
    "read_embedding",
    "read_fasta",
    "read_gene_sets",
    "read_platform",
    "read_spatialdata",
    "region_enrichment",
    "report",
    "simulate_tissue",
    "to_spatialdata",
    "view",
    "vitessce_config",
    "with_reference",
    "write_cellxgene",
    "write_explorer_groups",
    "write_scores",
    "write_vitessce",
]

_HOMES = {
    "Attribution": "weft.attribution",
    "Axis": "weft.axis",
    "EdgeList": "weft.data.edges",
    "EmbeddingTable": "weft.data.embeddings",
    "FastaRecord": "weft.fasta",
    "GeneComparison": "weft.dominance",
    "GeneSets": "weft.data.genesets",
    "Imputer": "weft.imputer",
    "Pair": "weft.data.pair",
    "Placement": "weft.placement",
    "Placer": "weft.placer",
    "ProteinEmbedder": "weft.esm",
    "ProteinTable": "weft.proteins",
    "PseudoSpots": "weft.data.pseudospots",
    "SimulatedTissue": "weft.data.simulate",
    "Trends": "weft.trends",
    "add_noise": "weft.data.pseudospots",
    "attribute": "weft.attribution",
    "axis_of_score": "weft.axis",
    "check_cellxgene": "weft.data.cellxgene",
    "cluster_scores": "weft.clusters",
    "coexpression_modules": "weft.clusters",
    "compare_with_expression": "weft.dominance",
    "differential_expression": "weft.differential",
    "dominant_genes": "weft.dominance",
    "embed_proteins": "weft.esm",
    "evaluate_imputation": "weft.evaluation",
    "evaluate_placement": "weft.evaluation_place",
    "find_proteins": "weft.proteins",
    "fit_axis": "weft.axis",
    "gene_trends": "weft.trends",
    "hollow_structure": "weft.niches",
    "hollowness": "weft.niches",
    "leiden_clusters": "weft.clusters",
    "load": "weft.loading",
    "multiple_imputations": "weft.multiple",
    "neighborhood_enrichment": "weft.niches",
    "pair": "weft.data.pair",
    "pseudo_spots": "weft.data.pseudospots",
    "read_edges": "weft.data.edges",
    "read_embedding": "weft.data.embeddings",
    "read_fasta": "weft.fasta",
    "read_gene_sets": "weft.data.genesets",
    "read_platform": "weft.data.platforms",
    "read_spatialdata": "weft.data.spatialdata",
    "region_enrichment": "weft.niches",
    "report": "weft.reporting",
    "simulate_tissue": "weft.data.simulate",
    "to_spatialdata": "weft.data.spatialdata",
    "view": "weft.viewer",
    "vitessce_config": "weft.data.vitessce",
    "with_reference": "weft.data.other_cells",
    "write_cellxgene": "weft.data.cellxgene",
    "write_explorer_groups": "weft.data.explorer",
    "write_scores": "weft.evaluation",
    "write_vitessce": "weft.data.vitessce",
}
"""Module of each public name that is loaded on first use."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in ("metrics", "pl"):
        value = importlib.import_module(f"weft.{name}")
    elif name == "__version__":
        from importlib.metadata import version

        value = version("weft")
    else:
        raise AttributeError(f"module 'weft' has no attribute {name!r}")
    globals()[name] = value  # found without this function from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
