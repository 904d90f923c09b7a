"""How many operations learning and predicting take: from these, and the machine's rate, a time beforehand."""

from __future__ import annotations

from dataclasses import dataclass

from weft.core.settings import SAMPLE_CELLS, AttentionSettings, StImputeSettings
from weft.data.pair import Pair

# What an operation other than a multiplication within a matrix product costs, in such: measured on the CPU.
_VALUE_READ = 3000.0  # a value of a sparse matrix from the disk, unpacked and normalised
_WEIGHT = 150.0  # a weight of attention: exponential, sum, division
_LEVELLED = 5000.0  # a value that is given its level
_COMPARED = 800.0  # a reference cell that may be among the nearest
_NETWORK = 600.0  # a value that a layer of the gene network gathers, normalises and passes on
_LEVEL_STEP = 5e7  # a step of the networks of levels
_GROUPED = 9.0  # passes over the reference while it is condensed: three, in float64
_CELL = 2e6  # a cell, besides: prepared, put together, compressed and written
_BACKWARD = 4.5  # forward, backward and the optimiser's step, in forward


@dataclass(frozen=True, kw_only=True)
class Effort:
    """Operations, in those of a matrix product.

    Attributes
    ----------
    learning, predicting
        Of the fit, and of all predictions with reading and writing.
    """

    learning: float
    predicting: float


def attention_effort(pair: Pair, n_genes: int, settings: AttentionSettings, *, n_keys: int) -> Effort:
    """Return what learned attention takes.

    Parameters
    ----------
    pair, n_genes
        The data, and genes that are asked for.
    settings
        Of the method.
    n_keys
        Cells or metacells of the reference that attention looks at.
    """
    n_panel, n_sc = len(pair.shared_genes), pair.sc.n_cells
    inputs = min(n_panel, settings.most_inputs)

    def training(steps: int, cells: int, reference: int, width: int) -> float:
        products = 2.4 * cells * reference * width + 4.0 * (cells + reference) * width**2
        return steps * _BACKWARD * (products + _WEIGHT * cells * reference)

    learning = training(settings.steps, settings.batch_cells, settings.batch_reference, inputs)
    if n_panel >= 2 * settings.folds:
        kept = inputs * (settings.folds - 1) // settings.folds
        learning += settings.folds * training(
            settings.fold_steps, settings.fold_cells, settings.fold_reference, kept
        )
        learning += (settings.folds + 1) * 2 * settings.level_steps * _LEVEL_STEP
        learning += SAMPLE_CELLS * n_sc * (2.0 * inputs + _WEIGHT) * settings.folds
    if n_keys < n_sc:
        learning += _GROUPED * n_sc * n_keys * 2.0 * inputs
    per_cell = n_keys * (2.0 * inputs + _WEIGHT + 2.0 * n_genes) + 8.0 * inputs**2 + _LEVELLED * n_genes
    return Effort(
        learning=learning + _reading(pair, reference=True),
        predicting=pair.st.n_cells * (per_cell + _CELL) + _reading(pair),
    )


def stimpute_effort(pair: Pair, n_genes: int, settings: StImputeSettings, *, n_sources: int) -> Effort:
    """Return what stImpute takes.

    Parameters
    ----------
    pair, n_genes
        The data, and genes that are asked for.
    settings
        Of the method.
    n_sources
        Genes that the graph's messages come from.
    """
    n_panel, n_sc, k = len(pair.shared_genes), pair.sc.n_cells, settings.k
    cells = min(pair.st.n_cells, settings.training_cells)
    near = n_sc * (2.0 * settings.latent + _COMPARED)

    def network(genes: int, sources: int) -> float:
        gathered = (sources + 2 * genes) * k * (4.0 * k + _NETWORK)
        wide = genes * (2.0 * settings.hidden * (k * 2 + settings.hidden * 2) + _NETWORK * settings.hidden)
        return gathered + 2.0 * genes * sources * k + wide

    step = network(min(n_panel, settings.batch_genes), min(n_sources, settings.batch_sources))
    seen = settings.epochs * min(cells, settings.cells_per_epoch) * step
    embedded = settings.ae_epochs * cells * (4.0 * n_panel * settings.latent + _NETWORK * n_panel)
    learning = settings.rounds * (_BACKWARD * (seen + embedded) + cells * near)
    learning += (settings.rounds - 1) * cells * network(n_panel, n_sources)
    tables = 2.0 * n_sc * n_sources * (n_genes + n_panel + n_sources)
    return Effort(
        learning=learning + _reading(pair, reference=True),
        predicting=pair.st.n_cells * (near + network(n_genes, n_sources) + _CELL) + tables + _reading(pair),
    )


def _reading(pair: Pair, *, reference: bool = False) -> float:
    side = pair.sc if reference else pair.st
    return _VALUE_READ * (1 - side.sparsity) * side.n_cells * side.matrix.shape[1]
