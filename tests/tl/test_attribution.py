"""Attributions of positions: a small placement against a mapping that is computed in full."""

# An Attribution has the attribute `values`, like a DataFrame, but is not one.
# ruff: noqa: PD011

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from cellweft._errors import InputError, MemoryBudgetError, SettingError
from cellweft.nn.training import linear
from cellweft.tl import _attribution as room
from cellweft.tl._attribution import Attribution, attribute

# float32 gradients in blocks of another shape
TOLERANCE = 1e-5


class Encoder(torch.nn.Module):
    """A small encoder with the layers of STEM's encoder."""

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.last = linear(n_genes, 12, generator), linear(12, 4, generator)
        self.norm = torch.nn.LayerNorm(12)

    def queries(self, values: torch.Tensor) -> torch.Tensor:
        return 3 * self.last(torch.tanh(self.norm(self.first(values))))


@dataclass(kw_only=True)
class Placed:
    """The parts of a placement that attribution needs."""

    inputs: np.ndarray
    model: Encoder
    spots: torch.Tensor
    slice_of_cells: np.ndarray
    spot_groups: dict[str, np.ndarray]
    read: list[np.ndarray] = field(default_factory=list)  # the rows that were requested

    @property
    def genes(self) -> np.ndarray:
        return np.array([f"Gene{number}" for number in range(self.inputs.shape[1])])

    @property
    def pair(self) -> SimpleNamespace:
        cells, spots = (
            pd.Index([f"{name}{number}" for number in range(many)])
            for name, many in (("cell", len(self.inputs)), ("spot", len(self.spots)))
        )
        return SimpleNamespace(sc=SimpleNamespace(obs_names=cells), st=SimpleNamespace(obs_names=spots))

    def values(self, rows: np.ndarray) -> np.ndarray:
        self.read.append(rows)
        return self.inputs[rows]


def place(n_cells: int = 9, n_spots: int = 7, n_genes: int = 6, *, n_slices: int = 1) -> Placed:
    """Place random cells on random spots; the last cell has no counts."""
    rng = np.random.default_rng(0)
    inputs = (rng.poisson(1.0, (n_cells, n_genes)) * rng.random((n_cells, n_genes))).astype(np.float32)
    inputs[-1] = 0.0
    model = Encoder(n_genes)
    with torch.no_grad():
        spots = model.queries(torch.from_numpy(rng.random((n_spots, n_genes)).astype(np.float32) * 2))
    groups = {f"slice{number}": np.arange(n_spots)[number::n_slices] for number in range(n_slices)}
    slices = np.arange(n_cells) % n_slices
    return Placed(inputs=inputs, model=model, spots=spots, slice_of_cells=slices, spot_groups=groups)


def weights(placed: Placed, cell: int, values: torch.Tensor) -> torch.Tensor:
    """Return the mapping of a cell, computed over the whole row: 0 outside its slice."""
    products = placed.model.queries(values[None])[0] @ placed.spots.T
    own = list(placed.spot_groups.values())[placed.slice_of_cells[cell]]
    inside = torch.full_like(products, -torch.inf)
    inside[torch.from_numpy(own)] = 0.0
    return torch.softmax(products + inside, dim=0)


def naive(placed: Placed, cell: int, steps: int = 150) -> tuple[int, float, np.ndarray]:
    """Return spot, difference and attributions of one cell, by the midpoint rule."""
    values = torch.from_numpy(placed.inputs[cell])
    with torch.no_grad():
        row = weights(placed, cell, values)
        spot = int(row.argmax())
        difference = float(row[spot] - weights(placed, cell, torch.zeros_like(values))[spot])
    total = np.zeros(len(values))
    for step in range(steps):
        point = (values * (step + 0.5) / steps).requires_grad_(True)
        weights(placed, cell, point)[spot].backward()
        total += point.grad.numpy() * values.numpy() / steps
    return spot, difference, total


def naive_product(placed: Placed, cell: int, spot: int, steps: int = 150) -> np.ndarray:
    """Return attributions of z_cell z_spot of one cell, by the midpoint rule."""
    total = np.zeros(placed.inputs.shape[1])
    for step in range(steps):
        point = torch.from_numpy(placed.inputs[cell] * (step + 0.5) / steps).requires_grad_(True)
        query = placed.model.queries(point[None])[0]
        sum(query[latent] * placed.spots[spot, latent] for latent in range(len(query))).backward()
        total += point.grad.numpy() * placed.inputs[cell] / steps
    return total


@pytest.mark.slow
@pytest.mark.parametrize("n_slices", [1, 2])
def test_the_product_equals_a_naive_loop(n_slices: int) -> None:
    placed = place(n_slices=n_slices)
    why, by_weight = attribute(placed, what="product", tolerance=1e-4), attribute(placed)
    assert why.record["what"] == "product"
    np.testing.assert_array_equal(why.spot, by_weight.spot)
    for cell in range(9):
        spot = int(why.spot[cell])
        both = placed.model.queries(torch.from_numpy(np.stack([placed.inputs[cell], np.zeros(6, "float32")])))
        products = (both @ placed.spots[spot]).detach()
        assert why.explained[cell] == pytest.approx(float(products[0] - products[1]), abs=TOLERANCE)
        np.testing.assert_allclose(why.values[cell], naive_product(placed, cell, spot), atol=2e-3)


def test_the_product_does_not_depend_on_other_spots() -> None:
    placed = place()
    why = attribute(placed, [0], what="product")
    alone = place()
    alone.spots, alone.spot_groups = placed.spots[why.spot], {"slice0": np.arange(1)}
    np.testing.assert_allclose(
        attribute(alone, [0], what="product").values, why.values, rtol=0, atol=TOLERANCE
    )
    assert not attribute(alone, [0]).values.any()  # the weight of the only spot is always 1


@pytest.mark.slow
@pytest.mark.parametrize("n_slices", [1, 2])
def test_the_weight_equals_a_naive_loop(n_slices: int) -> None:
    placed = place(n_slices=n_slices)
    why = attribute(placed, tolerance=1e-4)
    for cell in range(9):
        spot, difference, values = naive(placed, cell)
        assert why.spot[cell] == spot
        assert why.spot_names[cell] == f"spot{spot}"
        assert why.explained[cell] == pytest.approx(difference, abs=TOLERANCE)
        np.testing.assert_allclose(why.values[cell], values, atol=1e-4)


def test_attributions_sum_to_what_they_explain() -> None:
    why = attribute(place())
    miss = np.abs(why.values.sum(axis=1, dtype=np.float64) - why.explained)
    np.testing.assert_allclose(why.completeness_gap, miss, atol=1e-6)
    assert (why.relative_gap <= 0.01).all()
    np.testing.assert_allclose(why.relative_gap[:-1], miss[:-1] / np.abs(why.explained[:-1]), atol=1e-6)
    assert why.values.dtype == np.float32
    assert "9 cells x 6 genes; completeness gap: median 0.0" in repr(why)


def test_relative_gap_if_there_is_nothing_to_explain() -> None:
    why = made(np.zeros((3, 1)), explained=[0.0, 0.0, -2.0], gap=[0.0, 0.1, 0.5])
    np.testing.assert_array_equal(why.relative_gap, [0.0, np.inf, 0.25])


def test_log_weight() -> None:
    placed = place()
    why = attribute(placed, what="log weight")
    row = weights(placed, 0, torch.from_numpy(placed.inputs[0])).detach()
    none = weights(placed, 0, torch.zeros(6)).detach()
    assert why.explained[0] == pytest.approx(float((row.log() - none.log())[row.argmax()]), abs=1e-5)
    assert why.record["what"] == "log weight"


def test_a_cell_without_counts_has_nothing_to_explain() -> None:
    why = attribute(place())
    assert not why.values[-1].any()
    assert why.explained[-1] == why.completeness_gap[-1] == why.relative_gap[-1] == 0.0


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    order=st.permutations(range(9)),
    rows=st.integers(1, 9),
    points=st.integers(1, 300),
    kept=st.integers(0, 9),
)
def test_a_cell_does_not_depend_on_blocks_order_or_other_cells(
    order: list[int], rows: int, points: int, kept: int
) -> None:
    placed, cells = place(n_slices=2), order[:kept]
    whole = attribute(placed, steps=10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "_MOST_POINTS", points)
        patch.setattr(room, "_MOST_ROWS", rows)
        patch.setattr(room, "BLOCK_ENTRIES", points)
        some = attribute(placed, cells, steps=10)
    np.testing.assert_array_equal(some.spot, whole.spot[cells])
    np.testing.assert_allclose(some.values, whole.values[cells], atol=TOLERANCE)
    np.testing.assert_allclose(some.explained, whole.explained[cells], atol=TOLERANCE)
    np.testing.assert_allclose(some.completeness_gap, whole.completeness_gap[cells], atol=TOLERANCE)
    assert list(some.cell_names) == [f"cell{cell}" for cell in cells]


def test_a_slice_is_explained_by_its_own_spots() -> None:
    placed = place(n_slices=2)
    both = attribute(placed)
    alone = place()
    alone.spots, alone.spot_groups = placed.spots[1::2], {"slice": np.arange(3)}
    one = attribute(alone, [1, 3])
    np.testing.assert_array_equal(both.spot[[1, 3]], 2 * one.spot + 1)
    np.testing.assert_allclose(both.values[[1, 3]], one.values, atol=TOLERANCE)


def test_ways_to_name_cells() -> None:
    placed = place()
    mask = np.zeros(9, dtype=bool)
    mask[[2, 4]] = True
    some = anndata.AnnData(np.ones((2, 1), dtype=np.float32), obs=pd.DataFrame(index=["cell2", "cell4"]))
    for asked in ([2, 4], np.array([2, 4], dtype=np.int32), mask, list(mask), ["cell2", "cell4"], some):
        assert list(attribute(placed, asked).cells) == [2, 4]
    assert list(attribute(placed, pd.Index(["cell4", "cell2"])).cells) == [4, 2]
    none = attribute(placed, [])
    assert none.values.shape == (0, 6)
    assert repr(none) == "Attribution(0 cells x 6 genes)"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([9], "cells: expected positions from 0 to 8, each once, got 9"),
        ([-1], "cells: expected positions from 0 to 8, each once, got -1"),
        ([1, 1], "cells: expected positions from 0 to 8, each once, got some cells more than once"),
        (["cell1", "cel2"], r"cells: expected names .* got 'cel2', which no cell has. Did you mean 'cell2'"),
        (
            [True, False],
            r"cells: expected positions, names, an AnnData or 9 booleans, got bool of shape \(2,\)",
        ),
        ([0.5], "cells: expected positions, names, an AnnData or 9 booleans, got float64"),
        ([[1]], r"cells: expected positions, names, an AnnData or 9 booleans, got int64 of shape \(1, 1\)"),
    ],
)
def test_cells_that_are_not_placed(asked: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        attribute(place(), asked)


def test_a_name_of_two_cells_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    placed = place()
    pair = placed.pair
    pair.sc.obs_names = pd.Index(["a", "a", *"bcdefgh"])
    monkeypatch.setattr(Placed, "pair", pair)
    assert list(attribute(placed, ["c", "b"]).cells) == [3, 2]
    with pytest.raises(InputError, match=r"got 'a', which several cells have. Use positions"):
        attribute(placed, ["a"])


def test_settings_are_checked() -> None:
    with pytest.raises(
        SettingError, match="what: expected one of 'product', 'weight', 'log weight', got 'odds'"
    ):
        attribute(place(), what="odds")  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="steps: expected a whole number >= 1, got 0"):
        attribute(place(), steps=0)
    with pytest.raises(SettingError, match=r"got 'log_weight'\. Did you mean 'log weight' or 'weight'"):
        attribute(place(), what="log_weight")  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [np.ones((3, 2)), "placed.h5ad", None, anndata.AnnData(np.ones((2, 2)))])
def test_other_objects_than_a_placement_are_refused(wrong: Any) -> None:
    with pytest.raises(
        InputError, match=r"placed: expected a placement, got an? \w+\. Place the cells first"
    ):
        attribute(wrong)


@pytest.mark.slow
def test_the_memory_budget_is_respected() -> None:
    placed = place()
    whole = attribute(placed)
    small = attribute(placed, memory="3 kB")  # two points at a time
    np.testing.assert_allclose(small.values, whole.values, atol=TOLERANCE)
    with pytest.raises(
        MemoryBudgetError, match=r"memory: expected at least 2.04 KB, to explain 9 cells, got 1 KB"
    ):
        attribute(placed, memory="1 kB")
    attribute(placed, memory="2.05 KB")  # the budget in the message is sufficient


class Largest(TorchDispatchMode):
    """Records the size of the largest tensor that is created."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else [made]:
            if isinstance(one, torch.Tensor):
                self.entries = max(self.entries, one.numel())
        return made


def test_the_matrix_cells_x_spots_is_never_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "BLOCK_ENTRIES", 8000)
    monkeypatch.setattr(room, "_MOST_POINTS", 500)
    placed = place(n_cells=60, n_spots=2000)
    with Largest() as largest:
        attribute(placed, steps=10, most_steps=20)
    assert largest.entries <= placed.spots.numel() == 8000  # cells x spots would be 120,000


def test_cells_are_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_MOST_ROWS", 4)
    placed, told = place(), []
    attribute(placed, progress=lambda *one: told.append(one))
    assert [len(rows) for rows in placed.read] == [4, 4, 1]
    assert told == [("attribute", 4, 9), ("attribute", 8, 9), ("attribute", 9, 9)]


def test_inputs_are_not_changed() -> None:
    placed = place()
    inputs, spots = placed.inputs.copy(), placed.spots.clone()
    attribute(placed)
    np.testing.assert_array_equal(placed.inputs, inputs)
    torch.testing.assert_close(placed.spots, spots)
    assert all(one.grad is None for one in placed.model.parameters())


def test_to_anndata(tmp_path: Path) -> None:
    why = attribute(place(), [3, 1])
    cells = why.to_anndata()
    cells.write_h5ad(tmp_path / "why.h5ad")
    again = anndata.read_h5ad(tmp_path / "why.h5ad")
    np.testing.assert_array_equal(again.X, why.values)
    assert list(again.obs_names) == ["cell3", "cell1"]
    assert list(again.var_names) == list(why.genes)
    assert list(again.obs["spot"]) == list(why.spot_names)
    np.testing.assert_array_equal(again.obs["completeness_gap"], why.completeness_gap)
    np.testing.assert_array_equal(again.obs["relative_gap"], why.relative_gap)
    np.testing.assert_array_equal(again.obs["explained"], why.explained)
    assert (again.uns["cellweft"]["what"], again.uns["cellweft"]["steps"]) == ("weight", 50)
    assert {"cellweft", "torch", "captum"} <= again.uns["cellweft"]["versions"].keys()


def made(
    values: np.ndarray, *, explained: list[float] | None = None, gap: list[float] | None = None
) -> Attribution:
    """Return an attribution with these values."""
    n_cells, n_genes = values.shape
    cells = np.arange(n_cells)
    return Attribution(
        values=values.astype(np.float32),
        genes=np.array([f"Gene{number}" for number in range(n_genes)]),
        cells=cells,
        cell_names=cells.astype(str),
        spot=cells,
        spot_names=cells.astype(str),
        explained=np.zeros(n_cells) if explained is None else np.array(explained),
        completeness_gap=np.zeros(n_cells) if gap is None else np.array(gap),
        record={},
    )


def test_mean_by() -> None:
    why = made(np.array([[1.0, 0.0], [3.0, 1.0], [5.0, 0.0]]))
    means = why.mean_by(["b", "a", "b"])
    assert list(means.index) == ["a", "b"]
    assert list(means.columns) == ["Gene0", "Gene1"]
    np.testing.assert_array_equal(means, [[3, 1], [3, 0]])
    ordered = why.mean_by(pd.Categorical(["b", "a", "b"], categories=["none", "b", "a"]))
    assert list(ordered.index) == ["b", "a"]
    with pytest.raises(
        InputError, match=r"labels: expected one for each of the 3 cells .* got 3, 1 of them missing"
    ):
        why.mean_by(["a", None, "b"])
