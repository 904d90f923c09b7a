"""Integrated gradients: hand-computed cases, a naive loop, completeness, and blocks of limited size."""

import importlib.util
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from cellweft._errors import MissingExtraError, SettingError
from cellweft.nn import integrated_gradients as gradients_module
from cellweft.nn.integrated_gradients import PathFunction, integrated_gradients, mapping_weight
from cellweft.nn.training import linear

# float32 sums of a few dozen terms of size 1 in another order
TOLERANCE = 1e-5


class Encoder(torch.nn.Module):
    """A small encoder with the layers of STEM's encoder."""

    def __init__(self, n_genes: int = 6, n_latent: int = 4) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.last = linear(n_genes, 16, generator), linear(16, n_latent, generator)
        self.norm = torch.nn.LayerNorm(16)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return 3 * self.last(torch.tanh(self.norm(self.first(values))))


def cells(n_rows: int, n_genes: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.rand(n_rows, n_genes, generator=torch.Generator().manual_seed(seed)) * 2


def small_mapping(n_rows: int = 7, n_keys: int = 5, **options: Any) -> tuple[PathFunction, torch.Tensor]:
    """Return the weight of a small mapping as a function, and the cells that it applies to."""
    encoder, inputs = Encoder(), cells(n_rows)
    keys = encoder(cells(n_keys, seed=1)).detach()
    target = torch.arange(n_rows) % n_keys
    return mapping_weight(encoder, keys, target, **options), inputs


def naive(function: PathFunction, inputs: torch.Tensor, steps: int) -> np.ndarray:
    """Compute the quadrature in float64, one gradient at a time."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    found = np.zeros(inputs.shape)
    for row, cell in enumerate(inputs):
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            point = (cell * node).clone().requires_grad_(True)
            function(point[None], torch.tensor([row]))[0].backward()
            found[row] += weight * point.grad.double().numpy() * cell.double().numpy()
    return found


def test_linear_by_hand(device: torch.device) -> None:
    slope = torch.tensor([2.0, 0.0, -1.0], device=device)
    inputs = torch.tensor([[1.0, 5.0, 3.0], [0.0, 0.0, 0.0]], device=device)
    found = integrated_gradients(lambda points, rows: points @ slope + 7, inputs, steps=3)
    np.testing.assert_allclose(found.attributions, [[2, 0, -3], [0, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(found.explained, [-1, 0])
    np.testing.assert_allclose(found.gap, 0, atol=1e-6)
    assert found.attributions.dtype == np.float32
    assert found.explained.dtype == found.gap.dtype == np.float64


def test_product_by_hand() -> None:
    # along the path d(ab)/da is s b, so each factor gets half of the product
    inputs = torch.tensor([[3.0, 4.0, 9.0]])
    found = integrated_gradients(lambda points, rows: points[:, 0] * points[:, 1], inputs, steps=2)
    np.testing.assert_allclose(found.attributions, [[6, 6, 0]], rtol=1e-6)


def test_every_row_has_its_own_function() -> None:
    slopes = torch.tensor([1.0, 10.0, 100.0])
    found = integrated_gradients(lambda points, rows: slopes[rows] * points[:, 0], torch.ones(3, 1), block=2)
    np.testing.assert_allclose(found.attributions[:, 0], slopes, rtol=1e-6)


@pytest.mark.parametrize("what", ["weight", "log weight"])
def test_equals_naive_loop(what: str) -> None:
    function, inputs = small_mapping(what=what)
    found = integrated_gradients(function, inputs, steps=6, most_steps=6)
    np.testing.assert_allclose(found.attributions, naive(function, inputs, 6), atol=TOLERANCE)


@pytest.mark.slow
def test_equals_a_fine_riemann_sum() -> None:
    function, inputs = small_mapping()
    fine = torch.zeros_like(inputs)
    for step in range(1000):
        points = (inputs * (step + 0.5) / 1000).requires_grad_(True)
        function(points, torch.arange(len(inputs))).sum().backward()
        fine += points.grad * inputs / 1000
    found = integrated_gradients(function, inputs)
    np.testing.assert_allclose(found.attributions, fine, atol=1e-4)
    np.testing.assert_allclose(found.attributions.sum(axis=1), found.explained, atol=found.gap.max() + 1e-6)


def cliff(points: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """A function that rises within a twentieth of the path."""
    return torch.sigmoid(200 * (points.sum(dim=1) - 0.3))


def test_gap_shrinks_with_steps() -> None:
    def slope(points: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(20 * (points[:, 0] - 0.3))

    found = [integrated_gradients(slope, torch.ones(1, 1), steps=one, most_steps=one) for one in (4, 16, 64)]
    gaps = [float(one.gap[0]) for one in found]
    assert gaps[0] > 2 * gaps[1] > 100 * gaps[2]


def test_the_path_of_a_row_is_halved_until_its_gap_is_small() -> None:
    rough = integrated_gradients(cliff, torch.ones(1, 2), steps=10, most_steps=10)
    fine = integrated_gradients(cliff, torch.ones(1, 2), steps=10, most_steps=10_000, tolerance=0.001)
    assert rough.gap[0] > 0.1 > 0.001 >= fine.gap[0]
    np.testing.assert_allclose(fine.attributions, 0.5, atol=0.001)


def test_only_steep_parts_of_rows_are_refined() -> None:
    seen = []

    def counted(points: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        seen.append(rows)
        return torch.where(rows == 1, cliff(points, rows), points.sum(dim=1))

    integrated_gradients(counted, torch.ones(3, 1), steps=10, most_steps=10_000, tolerance=0.001)
    points = np.bincount(torch.cat(seen).numpy())
    assert points[0] == points[2] == 10 + 4  # both ends are evaluated twice: for the row and for the part
    assert points[0] < points[1] < 500


def test_the_remaining_gap_is_reported() -> None:
    found = integrated_gradients(cliff, torch.ones(1, 1), steps=4, most_steps=8, tolerance=0.0)
    gap = abs(found.attributions.sum(dtype=np.float64) - found.explained[0])
    assert found.gap[0] == pytest.approx(gap, abs=1e-6)
    assert found.gap[0] > 0.01


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(block=st.integers(1, 400), entries=st.integers(1, 60))
def test_block_size_does_not_matter(block: int, entries: int) -> None:
    function, inputs = small_mapping()
    whole = integrated_gradients(function, inputs, steps=8, most_steps=32)
    tiled, _ = small_mapping(tile_entries=entries)
    found = integrated_gradients(tiled, inputs, steps=8, most_steps=32, block=block)
    np.testing.assert_allclose(found.attributions, whole.attributions, atol=TOLERANCE)
    np.testing.assert_allclose(found.explained, whole.explained, atol=TOLERANCE)
    np.testing.assert_allclose(found.gap, whole.gap, atol=TOLERANCE)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(order=st.lists(st.integers(0, 6), max_size=12))
def test_rows_are_independent(order: list[int]) -> None:
    """Rows may come in any order, may repeat, and there may be none."""
    encoder, inputs = Encoder(), cells(7)
    keys, target = encoder(cells(5, seed=1)).detach(), torch.arange(7) % 5
    rows = torch.tensor(order, dtype=torch.int64)
    whole = integrated_gradients(mapping_weight(encoder, keys, target), inputs, steps=8)
    some = integrated_gradients(mapping_weight(encoder, keys, target[rows]), inputs[rows], steps=8)
    np.testing.assert_allclose(some.attributions, whole.attributions[order], atol=TOLERANCE)
    np.testing.assert_allclose(some.gap, whole.gap[order], atol=TOLERANCE)


def test_a_row_at_the_baseline_has_nothing_to_explain() -> None:
    function, inputs = small_mapping()
    inputs[2] = 0.0
    found = integrated_gradients(function, inputs)
    assert not found.attributions[2].any()
    assert found.explained[2] == found.gap[2] == 0.0


def test_baseline() -> None:
    function, inputs = small_mapping()
    for baseline in (0.5, torch.full((6,), 0.5), torch.full((7, 6), 0.5)):
        found = integrated_gradients(function, inputs, baseline=baseline, tolerance=1e-4)
        with torch.no_grad():
            rows = torch.arange(7)
            difference = function(inputs, rows) - function(torch.full_like(inputs, 0.5), rows)
        np.testing.assert_allclose(found.attributions.sum(axis=1), difference, atol=1e-4)
    two = (
        integrated_gradients(function, inputs / 2),
        integrated_gradients(function, inputs, baseline=inputs / 2),
    )
    np.testing.assert_allclose(
        two[0].attributions + two[1].attributions,
        integrated_gradients(function, inputs, tolerance=1e-4).attributions,
        atol=1e-3,
    )


@pytest.mark.parametrize("entries", [1, 7, 2**22])
def test_mapping_weight_is_the_dense_softmax(device: torch.device, entries: int) -> None:
    encoder = Encoder().to(device)
    points = cells(9).to(device).requires_grad_(True)
    keys, target = encoder(cells(11, seed=1).to(device)).detach(), torch.arange(9, device=device) % 3
    rows = torch.arange(8, -1, -1, device=device)
    dense = torch.softmax(encoder(points) @ keys.T, dim=1).gather(1, target[rows, None])[:, 0]
    for what, value in (("weight", dense), ("log weight", dense.log())):
        (expected,) = torch.autograd.grad(value.sum(), points, retain_graph=True)
        function = mapping_weight(encoder, keys, target, what=what, tile_entries=entries)
        found = function(points, rows)
        torch.testing.assert_close(found, value, atol=TOLERANCE, rtol=1e-5)
        (gradient,) = torch.autograd.grad(found.sum(), points)
        torch.testing.assert_close(gradient, expected, atol=TOLERANCE, rtol=1e-5)


def test_mapping_weight_of_very_different_products() -> None:
    """exp() of products of several thousand overflows in float32; the weights do not."""
    keys = torch.tensor([[1000.0], [0.0], [-1000.0]])
    points = torch.tensor([[2.0], [-3.0], [0.0]], requires_grad=True)
    function = mapping_weight(lambda values: values, keys, torch.tensor([0, 0, 0]), tile_entries=2)
    weights = function(points, torch.arange(3))
    np.testing.assert_allclose(weights.detach(), [1, 0, 1 / 3], atol=1e-6)
    (gradient,) = torch.autograd.grad(weights.sum(), points)
    assert torch.isfinite(gradient).all()


def test_inputs_and_model_are_not_changed() -> None:
    encoder, inputs = Encoder(), cells(3)
    before, keys = inputs.clone(), encoder(cells(4, seed=1)).detach()
    function = mapping_weight(encoder, keys, torch.zeros(3, dtype=torch.int64))
    with torch.no_grad():  # gradients are computed anyway
        integrated_gradients(function, inputs)
    torch.testing.assert_close(inputs, before)
    assert not inputs.requires_grad
    assert all(one.grad is None for one in encoder.parameters())


class Largest(TorchDispatchMode):
    """Records the size of the largest tensor that is created."""

    entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else [made]:
            if isinstance(one, torch.Tensor):
                self.entries = max(self.entries, one.numel())
        return made


def test_the_matrix_points_x_keys_is_never_built() -> None:
    encoder, inputs = Encoder(), cells(40)
    keys = encoder(cells(3000, seed=1)).detach()
    function = mapping_weight(encoder, keys, torch.arange(40), tile_entries=6000)
    with Largest() as largest:
        integrated_gradients(function, inputs, steps=20, block=400)
    # 40 x 3,000 would be 120,000, and 400 x 3,000 would be 1,200,000
    assert largest.entries <= max(6000, keys.numel())


def test_settings_are_checked() -> None:
    function, inputs = small_mapping()
    with pytest.raises(SettingError, match="steps: expected a whole number >= 1, got 0"):
        integrated_gradients(function, inputs, steps=0)
    with pytest.raises(SettingError, match="most_steps: expected a whole number >= 50, got 10"):
        integrated_gradients(function, inputs, most_steps=10)
    with pytest.raises(SettingError, match=r"tolerance: expected a number from 0 to .*, got -1"):
        integrated_gradients(function, inputs, tolerance=-1)
    with pytest.raises(SettingError, match="block: expected a whole number >= 1, got 0"):
        integrated_gradients(function, inputs, block=0)


def test_without_captum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    function, inputs = small_mapping()
    with pytest.raises(MissingExtraError, match=r'Install it with: pip install "cellweft\[explain\]"'):
        integrated_gradients(function, inputs)


def test_captum_is_loaded_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("captum", "matplotlib"):  # captum loads matplotlib
        monkeypatch.setitem(sys.modules, name, None)
    spec = importlib.util.spec_from_file_location("gradients_again", gradients_module.__file__)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look modules up there
    spec.loader.exec_module(module)


def test_the_product_is_the_one_of_a_query_and_its_key() -> None:
    stream = torch.Generator().manual_seed(3)
    points, keys = torch.randn(5, 4, generator=stream), torch.randn(3, 4, generator=stream)
    target, rows = torch.tensor([2, 0, 1, 1, 2]), torch.tensor([0, 2, 4])
    found = mapping_weight(lambda values: 2 * values, keys, target, what="product")(points[rows], rows)
    expected = [2 * float(points[row] @ keys[target[row]]) for row in rows]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
