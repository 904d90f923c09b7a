"""From values of reference cells to values of others: a matrix, cells x reference, that is never held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from cellweft._typing import BoolArray


class ReferenceOperator(Protocol):
    """From values of reference cells (genes, labels, layers) to values of other cells, linearly.

    Rows of the matrix sum to 1: of one-hot labels come shares.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """Cells, and cells of the reference."""

    def apply(self, values: torch.Tensor) -> torch.Tensor:
        """Return what the reference holds, brought to the cells.

        Parameters
        ----------
        values
            (n_reference, n_columns), on the device of the operator.

        Returns
        -------
        (n_cells, n_columns)
        """

    def apply_transpose(self, values: torch.Tensor) -> torch.Tensor:
        """Return what the cells hold, spread over the reference.

        Parameters
        ----------
        values
            (n_cells, n_columns), on the device of the operator.

        Returns
        -------
        (n_reference, n_columns)
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class PartOfReference:
    """An operator that sees some cells of a reference, as one on all of them: the others count nothing.

    Attributes
    ----------
    part
        On the cells that it sees.
    cells
        (n_seen,) their positions in the reference.
    n_reference
        Cells of the reference.
    """

    part: ReferenceOperator
    cells: torch.Tensor
    n_reference: int

    @property
    def shape(self) -> tuple[int, int]:
        """Cells, and cells of the reference."""
        return self.part.shape[0], self.n_reference

    def apply(self, values: torch.Tensor) -> torch.Tensor:
        """See `ReferenceOperator`."""
        return self.part.apply(values[self.cells])

    def apply_transpose(self, values: torch.Tensor) -> torch.Tensor:
        """See `ReferenceOperator`."""
        spread = values.new_zeros(self.n_reference, values.shape[1])
        spread[self.cells] = self.part.apply_transpose(values)
        return spread


def on_all_cells(part: ReferenceOperator, usable: BoolArray, device: torch.device) -> ReferenceOperator:
    """Return an operator on the usable cells of a reference, (n_reference,), as one on all of its cells."""
    cells = torch.from_numpy(usable).to(device).nonzero()[:, 0]
    return part if usable.all() else PartOfReference(part=part, cells=cells, n_reference=len(usable))
