"""Maps values of reference cells to values of other cells, without storing the cells x reference matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from cellweft._typing import BoolArray


class ReferenceOperator(Protocol):
    """Linear map from values of reference cells (genes, labels, layers) to values of other cells.

    Rows of the matrix sum to 1, so that one-hot labels become shares.
    """

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells, and of reference cells."""

    def apply(self, values: torch.Tensor) -> torch.Tensor:
        """Return weighted means of the reference's values for each cell.

        Parameters
        ----------
        values
            (n_reference, n_columns), on the device of the operator.

        Returns
        -------
        (n_cells, n_columns)
        """

    def apply_transpose(self, values: torch.Tensor) -> torch.Tensor:
        """Return the cells' values, spread over the reference.

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
    """An operator on some cells of a reference, extended to all cells; the other cells have weight 0.

    Attributes
    ----------
    part
        The operator on these cells.
    cells
        (n_seen,) positions of these cells in the reference.
    n_reference
        Number of reference cells.
    """

    part: ReferenceOperator
    cells: torch.Tensor
    n_reference: int

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells, and of reference cells."""
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
    """Return an operator on the usable cells of a reference, (n_reference,), extended to all its cells."""
    cells = torch.from_numpy(usable).to(device).nonzero()[:, 0]
    return part if usable.all() else PartOfReference(part=part, cells=cells, n_reference=len(usable))
