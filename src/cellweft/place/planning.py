"""The memory of a placement, estimated before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from cellweft._compute import READ_ROWS, SPARSE_BYTES, parse_memory, process_bytes
from cellweft._errors import MemoryBudgetError
from cellweft._text import NotebookText, enough_bytes, human_bytes
from cellweft.data._pair import Pair
from cellweft.nn.config import EVIDENCE_AXES, StemSettings

_WEIGHT_COPIES = 8  # tensors of the size of a batch's products in a step, including gradients
_PLACED_BYTES = 1600.0  # a placed cell: largest weights with their spots, positions
_GROUPED_BYTES = 1000.0  # a spot, while spots are grouped
_NAMED_BYTES = 500.0  # name and annotation of a cell or spot
_KERNEL_COPIES = 12  # the same for the kernels of the discrepancy


@dataclass(frozen=True, kw_only=True, repr=False)
class PlacingPlan(NotebookText):
    """The plan of a placement: memory and training steps.

    Attributes
    ----------
    n_cells, n_spots, n_genes
        Numbers of cells to place, of spots, and of genes in the model.
    steps
        Training steps of all encoders.
    peak_bytes
        Estimated peak memory of the whole process.
    """

    n_cells: int
    n_spots: int
    n_genes: int
    steps: int
    peak_bytes: float

    def __repr__(self) -> str:
        return f"PlacingPlan({self})"

    def __str__(self) -> str:
        return (
            f"{self.n_cells:,} cells on {self.n_spots:,} spots by {self.n_genes:,} genes, "
            f"{self.steps:,} training steps; peak memory about {human_bytes(self.peak_bytes)}"
        )


def plan_placing(
    pair: Pair, *, settings: StemSettings, memory: str | int | None = None, trainings: int = 1
) -> PlacingPlan:
    """Plan a placement.

    Parameters
    ----------
    pair
        The data.
    settings
        Settings of the method.
    memory
        Budget for the whole process, for example "4 GB"; none by default.
    trainings
        Number of trainings at the same time, on several devices.

    Raises
    ------
    MemoryBudgetError
        The work does not fit in the budget; the error states the required memory.
    """
    n_slices = 1 if pair.slices is None or settings.slice_genes == "common" else len(set(pair.slices))
    n_genes = min(len(pair.shared_genes), n_slices * settings.n_genes)
    drawn = [
        (side, min(side.n_cells, most))
        for side, most in ((pair.sc, settings.training_cells), (pair.st, settings.training_spots))
    ]
    held = sum(SPARSE_BYTES * (1 - side.sparsity) * rows * n_genes for side, rows in drawn)
    cells, spots = min(drawn[0][1], settings.batch_cells), min(drawn[1][1], settings.batch_spots)
    layers = (cells + spots) * (n_genes + 4 * (settings.hidden + settings.middle + settings.latent))
    products = (_WEIGHT_COPIES * (cells + spots) * spots) + _KERNEL_COPIES * (cells + spots) ** 2
    n_cells, n_spots = pair.sc.n_cells, pair.st.n_cells
    training = 2 * held + 4.0 * min(trainings, settings.models) * (layers + products)
    width = settings.latent * settings.models
    width += min(EVIDENCE_AXES, n_genes) if settings.expression_counts > 0 else 0
    embeddings = 2 * 4.0 * (n_cells + n_spots) * width  # including a copy while they are written
    # products and weights of a block of cells
    visits = 16.0 * min(max(2**22, 64 * n_spots), n_cells * n_spots)
    placing = embeddings + _PLACED_BYTES * n_cells + visits + _GROUPED_BYTES * n_spots
    names = _NAMED_BYTES * (n_cells + n_spots)
    peak = process_bytes() + names + max(training, placing) + 12.0 * READ_ROWS * n_genes
    if memory is not None and peak > parse_memory(memory):
        raise MemoryBudgetError(
            "memory",
            expected=f"at least {enough_bytes(peak)}",
            got=human_bytes(parse_memory(memory)),
            fix="Raise the budget, or set fewer training_cells, training_spots or models.",
        )
    steps = settings.steps * settings.models
    return PlacingPlan(n_cells=n_cells, n_spots=n_spots, n_genes=n_genes, steps=steps, peak_bytes=peak)
