"""Changes that must not change a result: order of genes, cells and spots, array types, budgets and threads.

One fitted model of each kind is applied to the same data in another form. That a model fitted to such data is
also the same is tested with each method (tests/impute, tests/place).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
import torch

import cellweft

EXACT = 0.0
"""Nothing is computed in another order: the same values are read, cell by cell."""

SUMS = 2e-5
"""float32 sums over genes or spots in another order.

Rounding steps are 6e-8 of a value; this allows some hundred steps for values of a few units.
"""

CELLS = np.random.default_rng(3).permutation(30)


def reversed_genes(data: anndata.AnnData) -> anndata.AnnData:
    return data[:, ::-1].copy()


def other_order(data: anndata.AnnData) -> anndata.AnnData:
    return data[CELLS].copy()


def held_as(make: Callable[[Any], Any]) -> Callable[[anndata.AnnData], anndata.AnnData]:
    def changed(data: anndata.AnnData) -> anndata.AnnData:
        made = data.copy()
        made.X = make(np.asarray(made.X.toarray() if sp.issparse(made.X) else made.X))
        return made

    return changed


CHANGES: dict[str, tuple[Callable[[anndata.AnnData], anndata.AnnData], float]] = {
    "genes in another order": (reversed_genes, SUMS),
    "cells in another order": (other_order, SUMS),
    "csr": (held_as(sp.csr_matrix), EXACT),
    "csc": (held_as(sp.csc_matrix), EXACT),
    "csr_array": (held_as(sp.csr_array), EXACT),
    "dense": (held_as(np.asarray), EXACT),
    "float64": (held_as(lambda values: values.astype(np.float64)), EXACT),
    "int32": (held_as(lambda values: values.astype(np.int32)), EXACT),
    "uint16, by column": (held_as(lambda values: np.asfortranarray(values.astype(np.uint16))), EXACT),
}


@pytest.fixture(scope="module")
def imputers(world: Any) -> dict[str, cellweft.Imputer]:
    quick = {"k": 4, "hidden": 8, "epochs": 1, "ae_epochs": 1}
    stimpute = cellweft.Imputer(preset="stimpute", settings=quick, reliability=False)
    return {"auto": world.imputer, "stimpute": stimpute.fit(world.pair, progress=False)}


def imputed(imputer: cellweft.Imputer, pair: Any, **options: Any) -> np.ndarray:
    return np.asarray(imputer.impute(pair=pair, progress=False, **options).X)


def places(placer: cellweft.Placer, pair: Any) -> np.ndarray:
    return placer.attach(pair).place(progress=False).coordinates()


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("preset", ["auto", "stimpute"])
def test_imputation_does_not_depend_on_the_form_of_the_tissue(
    preset: str, change: str, world: Any, imputers: Any
) -> None:
    make, tolerance = CHANGES[change]
    expected = imputed(imputers[preset], world.pair)
    found = imputed(imputers[preset], cellweft.pair(world.sc, make(world.st)))
    if make is other_order:
        expected = expected[CELLS]
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("change", CHANGES)
def test_placement_does_not_depend_on_the_form_of_the_data(change: str, world: Any) -> None:
    """Each change is applied to the spots and, except for the order of cells, also to the placed cells.

    For dense values the sums over genes of a cell are computed in another order than for sparse ones.
    """
    make, _ = CHANGES[change]
    width = float(np.ptp(world.pair.coordinates, axis=0).max())
    expected = places(world.placer, world.pair)
    sc = world.sc if make is other_order else make(world.sc)
    found = places(world.placer, cellweft.pair(sc, make(world.st)))
    world.placer.attach(world.pair)
    np.testing.assert_allclose(found, expected, rtol=0, atol=SUMS * width)


@pytest.mark.parametrize("preset", ["auto", "stimpute"])
def test_budgets_change_no_bit(preset: str, world: Any, imputers: Any) -> None:
    small, large = (imputed(imputers[preset], world.pair, memory=memory) for memory in ("2 GB", "20 GB"))
    assert (small == large).all()


@pytest.mark.parametrize("preset", ["auto", "stimpute"])
def test_threads_only_change_the_order_of_sums(preset: str, world: Any, imputers: Any) -> None:
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(imputed(imputers[preset], world.pair))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(*found, rtol=0, atol=SUMS)


@pytest.mark.parametrize("preset", ["auto", "stimpute"])
def test_half_precision_gives_rounded_values(preset: str, world: Any, imputers: Any, tmp_path: Path) -> None:
    """A float16 has 11 bits, so rounding to nearest changes a value by at most 2**-11 of it."""
    path = imputers[preset].impute_to(tmp_path / "half.zarr", dtype="float16", progress=False)
    half = np.asarray(anndata.read_zarr(path).X, dtype=np.float32)
    np.testing.assert_array_equal(half, imputed(imputers[preset], world.pair).astype(np.float16))
