"""The training loop: what it minimises, its history, progress, batches and random stream."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft.nn.training import fit_epochs, fit_steps, linear, shuffled

# a hand-computed step of Adam against torch's, in float32
STEP_TOLERANCE = 1e-6


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(*batches: list[int]) -> list[torch.Tensor]:
    return [torch.tensor(batch) for batch in batches]


class TestFitEpochs:
    @staticmethod
    def fit(loss_of, batches, *, start=(1.0, -2.0), epochs=1, lr=0.1, progress=lambda done, total: None):
        parameter = torch.nn.Parameter(torch.tensor(start))
        history = fit_epochs(
            [parameter],
            lambda batch: loss_of(parameter, batch),
            lambda: iter(batches),
            epochs=epochs,
            lr=lr,
            progress=progress,
        )
        return parameter.detach().numpy(), history

    def test_the_first_step_of_adam_has_the_length_of_the_learning_rate(self) -> None:
        learned, history = self.fit(lambda p, _: (p**2).sum(), rows([0, 1]))
        np.testing.assert_allclose(learned, [0.9, -1.9], atol=STEP_TOLERANCE)
        assert history == [5.0]

    def test_the_history_has_the_mean_loss_of_the_batches_of_every_epoch(self) -> None:
        _, history = self.fit(lambda p, batch: 0 * p.sum() + batch.sum(), rows([1, 2], [3, 4]), epochs=3)
        assert history == [5.0, 5.0, 5.0]

    def test_the_loss_falls(self) -> None:
        learned, history = self.fit(lambda p, _: (p**2).sum(), rows([0, 1]), epochs=60)
        assert history[-1] < 1e-2 * history[0]
        assert np.abs(learned).max() < 0.2

    def test_progress_is_called_after_every_epoch(self) -> None:
        calls: list[tuple[int, int]] = []
        self.fit(
            lambda p, _: p.sum(),
            rows([0, 1]),
            epochs=3,
            progress=lambda done, total: calls.append((done, total)),
        )
        assert calls == [(1, 3), (2, 3), (3, 3)]

    def test_zero_epochs_change_nothing(self) -> None:
        learned, history = self.fit(lambda p, _: p.sum(), rows([0, 1]), epochs=0)
        assert history == []
        assert learned.tolist() == [1.0, -2.0]

    def test_an_epoch_without_a_batch_has_loss_nan_and_changes_nothing(self) -> None:
        learned, history = self.fit(lambda p, _: p.sum(), [], epochs=2)
        assert [math.isnan(one) for one in history] == [True, True]
        assert learned.tolist() == [1.0, -2.0]

    def test_gradients_do_not_add_up_from_batch_to_batch(self) -> None:
        # After gradients 1 and -1, Adam's second step goes back; after 1 and their sum 0, it would go on.
        signs = rows([1], [-1])
        learned, _ = self.fit(lambda p, batch: (p * batch).sum(), signs, start=(0.0, 0.0))
        first, second = -0.1, 0.1 * (0.1 / 0.19 - 0.09 / 0.19)
        np.testing.assert_allclose(learned, [first + second] * 2, atol=STEP_TOLERANCE)


class TestFitSteps:
    @staticmethod
    def fit(loss_at, *, start=1.0, steps=4, halve_at=99, lr=0.1, progress=lambda done, total: None):
        parameter = torch.nn.Parameter(torch.tensor([start]))
        optimiser = torch.optim.SGD([parameter], lr=lr)
        history = fit_steps(
            optimiser,
            lambda step: loss_at(parameter, step),
            steps=steps,
            rate=lambda step: 0.5 if step >= halve_at else 1.0,
            progress=progress,
        )
        return float(parameter.detach()[0]), history

    def test_each_step_has_its_own_loss(self) -> None:
        # Gradients are 0, 1, 2 and 3, and are not added up.
        learned, history = self.fit(lambda p, step: (step * p).sum(), start=1.0)
        assert learned == pytest.approx(1 - 0.1 * (0 + 1 + 2 + 3))
        np.testing.assert_allclose(history, [0, 1, 2 * 0.9, 3 * 0.7], atol=STEP_TOLERANCE)

    @pytest.mark.parametrize(
        ("halve_at", "expected"), [(0, 4 * 0.05), (2, 2 * 0.1 + 2 * 0.05), (3, 0.35), (4, 0.4), (99, 0.4)]
    )
    def test_the_learning_rate_is_halved_once(self, halve_at: int, expected: float) -> None:
        learned, _ = self.fit(lambda p, _: p.sum(), start=0.0, halve_at=halve_at)
        assert learned == pytest.approx(-expected)

    @pytest.mark.parametrize("steps", [0, 1, 5, 20, 21, 50])
    def test_the_history_has_means_over_twentieths_of_training(self, steps: int) -> None:
        _, history = self.fit(lambda p, step: 0 * p.sum() + step, steps=steps)
        if steps <= 20:
            assert history == list(range(steps))
        else:
            assert len(history) == 20
            assert history == sorted(history)
            sizes = [len(part) for part in np.array_split(np.arange(steps), 20)]
            assert np.average(history, weights=sizes) == pytest.approx((steps - 1) / 2)

    def test_the_loss_falls(self) -> None:
        learned, history = self.fit(lambda p, _: (p**2).sum(), steps=40)
        assert history[-1] < 1e-2 * history[0]
        assert abs(learned) < 0.01

    def test_progress_is_called_after_every_step(self) -> None:
        calls: list[tuple[int, int]] = []
        self.fit(lambda p, _: p.sum(), steps=3, progress=lambda done, total: calls.append((done, total)))
        assert calls == [(1, 3), (2, 3), (3, 3)]


class TestShuffled:
    @settings(max_examples=25, deadline=None)
    @given(
        n_rows=st.integers(0, 40),
        size=st.integers(2, 12),
        most=st.none() | st.integers(2, 50),
        seed=st.integers(0, 9),
    )
    def test_every_row_occurs_once_except_a_single_last_one(self, n_rows, size, most, seed) -> None:
        batches = list(shuffled(n_rows, size=size, most=most, generator=stream(seed)))
        drawn = n_rows if most is None else min(n_rows, most)
        seen = [row for batch in batches for row in batch.tolist()]
        assert len(seen) == drawn - (drawn % size == 1)
        assert len(set(seen)) == len(seen)
        assert set(seen) <= set(range(n_rows))
        assert all(2 <= len(batch) <= size for batch in batches)
        assert all(len(batch) == size for batch in batches[:-1])

    @pytest.mark.parametrize(
        ("n_rows", "lengths"), [(7, [3, 3]), (8, [3, 3, 2]), (9, [3, 3, 3]), (1, []), (0, [])]
    )
    def test_a_last_batch_of_one_is_left_out(self, n_rows: int, lengths: list[int]) -> None:
        assert [len(batch) for batch in shuffled(n_rows, size=3, generator=stream())] == lengths

    def test_the_order_is_random_and_changes_every_epoch(self) -> None:
        generator = stream()
        first, second = (
            torch.cat(list(shuffled(50, size=10, generator=generator))).tolist() for _ in range(2)
        )
        assert first != sorted(first)
        assert first != second

    def test_most_samples_other_rows_in_each_epoch(self) -> None:
        generator = stream()
        drawn = {
            row
            for _ in range(30)
            for batch in shuffled(20, size=4, most=4, generator=generator)
            for row in batch.tolist()
        }
        assert drawn == set(range(20))

    def test_one_stream_gives_one_order(self) -> None:
        orders = [[batch.tolist() for batch in shuffled(20, size=6, generator=stream(3))] for _ in range(2)]
        assert orders[0] == orders[1]


class TestLinear:
    def test_weights_are_uniform_within_torchs_bound(self) -> None:
        layer = linear(400, 50, stream())
        assert tuple(layer.weight.shape) == (50, 400)
        values = layer.weight.detach().numpy()
        assert np.abs(values).max() <= 1 / 20
        # A uniform draw has standard deviation bound / sqrt(3); 20,000 values estimate it to about one
        # percent.
        assert values.std() == pytest.approx(1 / 20 / math.sqrt(3), rel=0.02)
        assert np.abs(layer.bias.detach().numpy()).max() <= 1 / 20

    def test_it_is_initialised_only_from_its_own_stream(self) -> None:
        before = torch.get_rng_state()
        first, again, other = (linear(5, 4, stream(seed)) for seed in (1, 1, 2))
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.equal(first.weight, again.weight)
        assert torch.equal(first.bias, again.bias)
        assert not torch.equal(first.weight, other.weight)

    def test_it_can_be_trained(self) -> None:
        layer = linear(3, 2, stream())
        assert all(one.requires_grad and one.device.type == "cpu" for one in layer.parameters())


def test_training_stops_early_and_returns_to_the_best_weights() -> None:
    """The weight moves from 3 to below 1, where the judge's loss is smallest, and is set back to there."""
    weight = torch.nn.Parameter(torch.tensor([3.0]))
    seen: list[float] = []

    def judge() -> torch.Tensor:
        seen.append(float(weight))
        return (weight - 1).abs().sum()

    history = fit_epochs(
        [weight],
        lambda rows: weight.sum() + 0 * rows.sum(),
        lambda: iter([torch.arange(2)]),
        epochs=100,
        lr=0.25,
        progress=lambda done, total: None,
        patience=3,
        judge=judge,
    )
    best = min(seen, key=lambda one: abs(one - 1))
    assert float(weight.detach()) == best
    assert len(history) == len(seen) == seen.index(best) + 4 < 100


@pytest.mark.parametrize("given", [{}, {"patience": 2}, {"judge": lambda: torch.tensor(1.0)}])
def test_without_patience_or_judge_training_goes_to_the_end(given: dict[str, Any]) -> None:
    weight = torch.nn.Parameter(torch.tensor([3.0]))
    told: list[int] = []
    fit_epochs(
        [weight],
        lambda rows: weight.sum() + 0 * rows.sum(),
        lambda: iter([torch.arange(2)]),
        epochs=7,
        lr=0.25,
        progress=lambda done, total: told.append(done),
        **given,
    )
    assert told == [1, 2, 3, 4, 5, 6, 7]
    assert float(weight.detach()) < 1.5
