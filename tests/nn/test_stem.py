"""STEM: losses against hand-computed values and loops, training, and combinations of several encoders."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._compute import numpy_stream, torch_stream
from cellweft.nn.config import StemSettings
from cellweft.nn.stem import (
    Batch,
    CellEncoder,
    StemModel,
    drop_values,
    extraction_loss,
    matching_dropout,
    mean_discrepancy,
    total_loss,
    train,
    transition_loss,
)

# float32 sums in another order than those of a loop in float64
TOLERANCE = 1e-5

SMALL = StemSettings(hidden=12, middle=8, latent=4, steps=6, models=1)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def rows_of_one(n: int, seed: int = 0) -> torch.Tensor:
    drawn = np.random.default_rng(seed).random((n, n)) ** 2
    return torch.from_numpy((drawn / drawn.sum(axis=1, keepdims=True)).astype(np.float32))


CELLS, SPOTS, ADJACENCY = random(4, 2, seed=1), random(3, 2, seed=2), rows_of_one(3)
"""Four cells and three spots."""


def softmax(row: list[float]) -> list[float]:
    total = sum(math.exp(one) for one in row)
    return [math.exp(one) / total for one in row]


def dot(one: torch.Tensor, two: torch.Tensor) -> float:
    return sum(float(a) * float(b) for a, b in zip(one, two, strict=True))


class TestExtraction:
    def test_it_equals_a_plain_loop(self) -> None:
        losses = []
        for spot in range(3):
            weights = softmax([dot(SPOTS[spot], SPOTS[other]) for other in range(3)])
            losses.append(
                -sum(float(ADJACENCY[spot, other]) * math.log(weights[other]) for other in range(3))
            )
        assert float(extraction_loss(SPOTS, ADJACENCY)) == pytest.approx(sum(losses) / 3, abs=TOLERANCE)

    def test_by_hand(self) -> None:
        # With embeddings of zero all weights are 1/4, for any adjacency.
        assert float(extraction_loss(torch.zeros(4, 2), rows_of_one(4))) == pytest.approx(math.log(4))
        # Spots are far apart in the embedding, and each is only near itself.
        assert float(extraction_loss(100 * torch.eye(4), torch.eye(4))) == pytest.approx(0)

    def test_it_is_smallest_if_the_weights_equal_the_adjacency(self) -> None:
        weights = torch.softmax(SPOTS @ SPOTS.T, dim=1)
        entropy = float(-(weights * weights.log()).sum(dim=1).mean())
        assert float(extraction_loss(SPOTS, weights)) == pytest.approx(entropy, abs=TOLERANCE)
        assert float(extraction_loss(1.1 * SPOTS, weights)) > entropy


class TestTransition:
    @staticmethod
    def ways() -> tuple[list[list[float]], list[list[float]], list[list[float]]]:
        """Return C, C^ and their product, which goes from spot to spot over all cells."""
        to_spots = [softmax([dot(cell, spot) for spot in SPOTS]) for cell in CELLS]
        to_cells = [softmax([dot(cell, spot) for cell in CELLS]) for spot in SPOTS]
        around = [
            [sum(to_cells[first][cell] * to_spots[cell][second] for cell in range(4)) for second in range(3)]
            for first in range(3)
        ]
        return to_spots, to_cells, around

    def test_it_equals_a_plain_loop(self) -> None:
        around = self.ways()[2]
        assert all(sum(row) == pytest.approx(1) for row in around)
        losses = [
            -sum(float(ADJACENCY[first, second]) * math.log(around[first][second]) for second in range(3))
            for first in range(3)
        ]
        found = float(transition_loss(CELLS, SPOTS, ADJACENCY))
        assert found == pytest.approx(sum(losses) / 3, abs=TOLERANCE)

    @pytest.mark.parametrize("visit", [0.3, 1.0])
    def test_it_equals_a_plain_loop_with_the_visit_term(self, visit: float) -> None:
        to_cells = self.ways()[1]
        visited = [sum(row[cell] for row in to_cells) / 3 for cell in range(4)]
        expected = float(transition_loss(CELLS, SPOTS, ADJACENCY))
        expected -= visit * sum(math.log(one) for one in visited) / 4
        found = float(transition_loss(CELLS, SPOTS, ADJACENCY, visit=visit))
        assert found == pytest.approx(expected, abs=TOLERANCE)

    def test_the_visit_term_is_smallest_for_equal_shares(self) -> None:
        """The mean of -log of n shares that sum to 1 is smallest, log n, if all are 1 / n."""
        alike = torch.zeros(4, 2)
        shared = transition_loss(alike, SPOTS, ADJACENCY, visit=1.0) - transition_loss(
            alike, SPOTS, ADJACENCY
        )
        assert float(shared) == pytest.approx(math.log(4), abs=TOLERANCE)

    def test_a_transition_with_probability_zero_has_a_finite_loss(self) -> None:
        far = 1000 * torch.eye(3)
        loss = transition_loss(far, far, torch.full((3, 3), 1 / 3), visit=1.0)
        assert loss.isfinite()


class TestDiscrepancy:
    def test_it_equals_a_plain_loop(self) -> None:
        both = [*CELLS.double(), *SPOTS.double()]
        squares = [[float(((one - two) ** 2).sum()) for two in both] for one in both]
        width = sum(map(sum, squares)) / 49
        kernel = [
            [sum(math.exp(-one / (width * wide)) for wide in (0.25, 0.5, 1, 2, 4)) for one in row]
            for row in squares
        ]
        within_cells = sum(kernel[i][j] for i in range(4) for j in range(4)) / 16
        within_spots = sum(kernel[i][j] for i in range(4, 7) for j in range(4, 7)) / 9
        between = sum(kernel[i][j] for i in range(4) for j in range(4, 7)) / 12
        found = float(mean_discrepancy(CELLS, SPOTS))
        assert found == pytest.approx(within_cells + within_spots - 2 * between, abs=TOLERANCE)

    def test_the_discrepancy_of_a_sample_to_itself_is_zero(self) -> None:
        assert float(mean_discrepancy(CELLS, CELLS)) == pytest.approx(0, abs=TOLERANCE)
        assert float(mean_discrepancy(CELLS, CELLS.repeat(3, 1))) == pytest.approx(0, abs=TOLERANCE)

    @settings(max_examples=20, deadline=None)
    @given(
        seed=st.integers(0, 99),
        sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
        scale=st.floats(0.01, 100),
    )
    def test_it_is_symmetric_not_negative_and_independent_of_scale(
        self, seed: int, sizes: tuple[int, int], scale: float
    ) -> None:
        one, two = (random(size, 3, seed=seed + place) for place, size in enumerate(sizes))
        found = float(mean_discrepancy(one, two))
        assert found >= -TOLERANCE
        assert float(mean_discrepancy(two, one)) == pytest.approx(found, abs=TOLERANCE)
        assert float(mean_discrepancy(scale * one, scale * two)) == pytest.approx(found, abs=20 * TOLERANCE)

    def test_it_grows_with_the_distance(self) -> None:
        cells = random(40, 3, seed=1)
        found = [float(mean_discrepancy(cells, random(40, 3, seed=2) + shift)) for shift in (0.0, 1.0, 3.0)]
        assert found[0] < 0.5 * found[1]
        assert found[1] < found[2]

    def test_identical_points_have_discrepancy_zero(self) -> None:
        nowhere = torch.zeros(3, 2, requires_grad=True)
        loss = mean_discrepancy(nowhere, torch.zeros(4, 2))
        loss.backward()
        assert loss.item() == 0
        assert nowhere.grad is not None
        assert nowhere.grad.isfinite().all()


class TestDropout:
    @pytest.mark.parametrize(
        ("cells", "spots", "expected"),
        [(100, 250, 0.6), (250, 250, 0), (300, 250, 0), (1, 4, 0.75), (5, 0, 0), (0, 0, 0), (0, 9, 0.99)],
    )
    def test_the_formula(self, cells: float, spots: float, expected: float) -> None:
        assert matching_dropout(cells, spots) == pytest.approx(expected)

    @given(cells=st.floats(0, 1e5), spots=st.floats(0, 1e5))
    def test_the_rate_is_at_least_zero_and_below_one(self, cells: float, spots: float) -> None:
        assert 0 <= matching_dropout(cells, spots) < 1

    @pytest.mark.parametrize("rescale", [True, False])
    def test_kept_values_equal_a_plain_loop(self, rescale: bool) -> None:
        values, share = random(6, 4).abs() + 1, 0.3
        found = drop_values(values, share, torch.Generator().manual_seed(5), rescale=rescale)
        draws = torch.rand(6, 4, generator=torch.Generator().manual_seed(5))
        for row in range(6):
            for gene in range(4):
                kept = float(values[row, gene]) / (0.7 if rescale else 1.0)
                expected = kept if draws[row, gene] >= share else 0.0
                assert float(found[row, gene]) == pytest.approx(expected, rel=1e-6)

    def test_rescaling_keeps_the_mean_like_a_dropout_layer(self) -> None:
        ones, share = torch.ones(1000, 200), 0.58
        found = drop_values(ones, share, torch.Generator().manual_seed(0), rescale=True)
        layer = torch.nn.Dropout(share)(ones)
        assert set(found.unique().tolist()) == set(layer.unique().tolist())
        assert float(found.mean()) == pytest.approx(1.0, abs=0.01)
        assert float(drop_values(ones, share, torch.Generator(), rescale=False).mean()) == pytest.approx(
            1 - share, abs=0.01
        )

    def test_no_dropout_leaves_the_values(self) -> None:
        values = random(3, 4)
        for rescale in (True, False):
            assert torch.equal(drop_values(values, 0.0, torch.Generator(), rescale=rescale), values)


class TestRamp:
    settings = StemSettings(steps=100, ramp_start=0.2, ramp_end=0.6, alpha=0.5, beta=2.0, visit=0.3)

    def loss(self, step: int, **changes: float) -> float:
        one = dataclasses.replace(self.settings, **changes)
        return float(total_loss(CELLS, SPOTS, ADJACENCY, step=step, settings=one))

    @pytest.mark.parametrize(
        ("step", "ramp"), [(0, 0), (19, 0), (20, 0), (30, 0.25), (40, 0.5), (60, 1), (61, 1), (99, 1)]
    )
    def test_the_weight_of_the_transition_loss_increases_slowly(self, step: int, ramp: float) -> None:
        expected = float(extraction_loss(SPOTS, ADJACENCY)) + 0.5 * float(mean_discrepancy(CELLS, SPOTS))
        expected += ramp * 2.0 * float(transition_loss(CELLS, SPOTS, ADJACENCY, visit=0.3))
        assert self.loss(step) == pytest.approx(expected, abs=TOLERANCE)

    def test_the_published_ramp_goes_from_step_50_to_the_end_of_400(self) -> None:
        published = {
            "steps": 400,
            "ramp_start": 0.125,
            "ramp_end": 1.0,
            "alpha": 0.0,
            "visit": 0.0,
            "beta": 1.0,
        }
        start = float(extraction_loss(SPOTS, ADJACENCY))
        transition = float(transition_loss(CELLS, SPOTS, ADJACENCY))
        assert self.loss(50, **published) == pytest.approx(start)
        assert self.loss(225, **published) == pytest.approx(start + transition / 2)
        assert self.loss(399, **published) == pytest.approx(start + transition * 349 / 350)

    def test_a_ramp_of_length_zero_is_a_step(self) -> None:
        at_once = {"ramp_start": 0.5, "ramp_end": 0.5, "alpha": 0.0}
        start = float(extraction_loss(SPOTS, ADJACENCY))
        assert self.loss(50, **at_once) == pytest.approx(start)
        assert self.loss(51, **at_once) > start

    def test_weights_of_zero_leave_a_loss_out(self) -> None:
        start = float(extraction_loss(SPOTS, ADJACENCY))
        assert self.loss(99, alpha=0.0, beta=0.0) == pytest.approx(start)


def test_the_discrepancy_of_a_large_batch_uses_evenly_spaced_rows() -> None:
    cells, spots = random(1500, 2, seed=1), random(256, 2, seed=2)
    found = total_loss(cells, spots, rows_of_one(256), step=0, settings=StemSettings(alpha=1.0))
    expected = extraction_loss(spots, rows_of_one(256)) + mean_discrepancy(cells[::3], spots)
    assert float(found) == pytest.approx(float(expected), abs=TOLERANCE)


def encoder(n_genes: int = 5, seed: int = 0, **changes: int) -> CellEncoder:
    return CellEncoder(n_genes, dataclasses.replace(SMALL, **changes), torch_stream(seed, "test"))


class TestEncoder:
    def test_the_embedding_of_a_row_does_not_depend_on_other_rows(self) -> None:
        made, values = encoder(), random(9, 5).abs()
        whole = made(values)
        assert whole.shape == (9, 4)
        for row in range(9):
            np.testing.assert_allclose(
                made(values[row : row + 1])[0].detach(), whole[row].detach(), atol=TOLERANCE
            )

    def test_its_layers_are_as_published(self) -> None:
        made = CellEncoder(100, StemSettings(), torch_stream(0, "test"))
        shapes = [tuple(one.weight.shape) for one in made.layers if isinstance(one, torch.nn.Linear)]
        assert shapes == [(512, 100), (256, 512), (128, 256)]

    def test_it_is_initialised_only_from_its_stream(self) -> None:
        before = torch.get_rng_state()
        one, same, other = (encoder(seed=seed).state_dict() for seed in (1, 1, 2))
        assert torch.equal(torch.get_rng_state(), before)
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert not torch.equal(one["layers.0.weight"], other["layers.0.weight"])

    def test_permuting_genes_with_their_weights_changes_nothing(self) -> None:
        made, values = encoder(), random(9, 5).abs()
        order = torch.randperm(5, generator=torch_stream(0, "order"))
        moved = encoder()
        state = made.state_dict()
        moved.load_state_dict(state | {"layers.0.weight": state["layers.0.weight"][:, order]})
        np.testing.assert_allclose(moved(values[:, order]).detach(), made(values).detach(), atol=TOLERANCE)


def model_of(*encoders: CellEncoder) -> StemModel:
    return StemModel(encoders=encoders, settings=SMALL, dropout=0.0, history=(), device=torch.device("cpu"))


class TestSeveralEncoders:
    cells, spots = random(6, 5, seed=3).abs(), random(7, 5, seed=4).abs()

    def test_the_softmax_of_their_products_is_the_geometric_mean_of_their_mappings(self) -> None:
        several = [encoder(seed=seed) for seed in range(3)]
        model = model_of(*several)
        with torch.no_grad():
            found = torch.softmax(model.queries(self.cells) @ model.keys(self.spots).T, dim=1).double()
            each = [torch.softmax(one(self.cells) @ one(self.spots).T, dim=1).double() for one in several]
        mean = (each[0] * each[1] * each[2]) ** (1 / 3)
        np.testing.assert_allclose(found, mean / mean.sum(dim=1, keepdim=True), atol=TOLERANCE)

    def test_one_encoder_and_copies_of_it_give_the_same_mapping(self) -> None:
        one = model_of(encoder())
        with torch.no_grad():
            assert torch.equal(one.queries(self.cells), one.keys(self.cells))
            copies = model_of(encoder(), encoder())
            products = [made.queries(self.cells) @ made.keys(self.spots).T for made in (one, copies)]
        np.testing.assert_allclose(products[1], products[0], atol=TOLERANCE)

    def test_gradients_flow_through_the_queries(self) -> None:
        values = self.cells.clone().requires_grad_(True)
        model_of(encoder(), encoder(seed=1)).queries(values).sum().backward()
        assert values.grad is not None
        assert (values.grad != 0).any()


class Line:
    """Cells and spots on a line: genes are peaks along it, and cells have half of their expression."""

    n_genes = 12

    def __init__(self, n_cells: int = 60, n_spots: int = 40) -> None:
        stream = np.random.default_rng(5)
        self.places = np.sort(stream.random(n_cells)), np.linspace(0, 1, n_spots)
        self.cells, self.spots = (
            torch.from_numpy(self.profiles(place).astype(np.float32)) for place in self.places
        )
        self.spots = self.spots * 2
        apart = np.abs(self.places[1][:, None] - self.places[1][None, :]) * (n_spots - 1)
        near = np.exp(-0.5 * apart**2)
        self.adjacency = torch.from_numpy((near / near.sum(axis=1, keepdims=True)).astype(np.float32))

    def profiles(self, place: np.ndarray) -> np.ndarray:
        middles = np.linspace(0, 1, self.n_genes)
        return np.exp(-(((place[:, None] - middles) / 0.15) ** 2))

    def draw(self, model: int, step: int, device: str = "cpu") -> Batch:
        rows = torch.from_numpy(numpy_stream(model, f"step {step}").choice(60, 40, replace=False))
        parts = (self.cells[rows], self.spots, self.adjacency)
        return Batch(
            **dict(zip(("cells", "spots", "adjacency"), (one.to(device) for one in parts), strict=True))
        )

    def fit(
        self,
        *,
        seed: int = 0,
        dropout: float = 0.2,
        device: str = "cpu",
        n_devices: int = 1,
        progress=None,
        **changes,
    ) -> StemModel:
        return train(
            self.draw,
            n_genes=self.n_genes,
            dropout=dropout,
            settings=dataclasses.replace(SMALL, **changes),
            seed=seed,
            devices=[torch.device(device)] * n_devices,
            progress=progress or (lambda done, total: None),
        )


@pytest.fixture(scope="module")
def line() -> Line:
    return Line()


def weights_of(model: StemModel) -> torch.Tensor:
    return torch.cat(
        [one.flatten().cpu() for encoder in model.encoders for one in encoder.state_dict().values()]
    )


class TestTraining:
    @pytest.mark.slow
    def test_it_learns_the_positions_of_cells(self, line: Line, device: torch.device) -> None:
        at_once = {"ramp_start": 0.0, "ramp_end": 0.0}  # so that the loss is the same from the start
        model = line.fit(steps=120, hidden=32, middle=16, latent=8, device=str(device), **at_once)
        assert model.history[0][-1] < 0.75 * model.history[0][0]
        with torch.no_grad():
            queries, keys = model.queries(line.cells.to(device)), model.keys(line.spots.to(device))
            found = torch.softmax(queries @ keys.T, dim=1).cpu().double().numpy() @ line.places[1]
        # A random position is wrong by .25 on average, and so is the middle of the line.
        assert np.abs(found - line.places[0]).mean() < 0.08

    def test_a_seed_gives_the_same_bits_and_another_gives_others(self, line: Line) -> None:
        first, same, other = (line.fit(seed=seed, models=2) for seed in (0, 0, 1))
        assert torch.equal(weights_of(first), weights_of(same))
        assert first.history == same.history
        assert not torch.equal(weights_of(first), weights_of(other))

    def test_each_encoder_has_its_own_initialisation(self, line: Line) -> None:
        both = line.fit(models=2)
        assert not torch.equal(weights_of(model_of(both.encoders[0])), weights_of(model_of(both.encoders[1])))
        # The initialisation does not depend on whether other encoders follow.
        assert torch.equal(weights_of(model_of(both.encoders[0])), weights_of(line.fit(models=1)))

    def test_global_random_states_are_neither_read_nor_written(self, line: Line) -> None:
        before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
        first = line.fit()
        after = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
        assert torch.equal(before[0], after[0])
        assert before[1] == after[1]
        with torch.random.fork_rng(devices=[]):
            torch.rand(7)
            assert torch.equal(weights_of(line.fit()), weights_of(first))

    @pytest.mark.parametrize(("steps", "length"), [(0, 0), (1, 1), (7, 7), (20, 20), (33, 20)])
    def test_each_entry_of_the_history_is_a_twentieth_of_the_training(
        self, line: Line, steps: int, length: int
    ) -> None:
        model = line.fit(steps=steps, models=2)
        assert [len(one) for one in model.history] == [length, length]
        assert all(math.isfinite(one) for history in model.history for one in history)

    def test_progress_counts_the_steps_of_all_encoders(self, line: Line) -> None:
        told: list[tuple[int, int]] = []
        line.fit(steps=3, models=2, progress=lambda done, total: told.append((done, total)))
        assert told == [(step, 6) for step in range(1, 7)]

    def test_inputs_are_not_changed(self, line: Line) -> None:
        fresh = Line()
        line.fit(dropout=0.5)
        for name in ("cells", "spots", "adjacency"):
            assert torch.equal(getattr(line, name), getattr(fresh, name))

    @pytest.mark.parametrize("rescale", [True, False])
    def test_dropout_only_affects_spots(
        self, line: Line, monkeypatch: pytest.MonkeyPatch, rescale: bool
    ) -> None:
        seen: list[torch.Tensor] = []
        forward = CellEncoder.forward

        def watched(self: CellEncoder, values: torch.Tensor) -> torch.Tensor:
            seen.append(values)
            return forward(self, values)

        monkeypatch.setattr(CellEncoder, "forward", watched)
        line.fit(steps=20, dropout=0.6, dropout_rescale=rescale)
        spots, cells = torch.stack(seen[0::2]), torch.stack(seen[1::2])
        assert spots.shape[1] == 40
        values = line.spots / 0.4 if rescale else line.spots
        assert bool(((spots == 0) | (spots - values).abs().le(TOLERANCE)).all())
        kept = float((spots[:, line.spots > 0] != 0).double().mean())
        assert kept == pytest.approx(0.4, abs=0.02)
        assert float((cells == 0).double().mean()) < 0.1
        assert not torch.equal(spots[0] == 0, spots[1] == 0)  # a new mask is drawn in every step

    def test_a_single_cell_and_spot(self) -> None:
        one = Batch(cells=random(1, 5), spots=random(1, 5, seed=1), adjacency=torch.ones(1, 1))
        model = train(
            lambda model, step, device: one,
            n_genes=5,
            dropout=0.0,
            settings=SMALL,
            seed=0,
            devices=[torch.device("cpu")],
            progress=lambda done, total: None,
        )
        assert weights_of(model).isfinite().all()

    def test_rows_of_zeros_give_finite_weights(self, line: Line) -> None:
        empty = Batch(cells=torch.zeros(5, 12), spots=torch.zeros(4, 12), adjacency=rows_of_one(4))
        model = train(
            lambda model, step, device: empty,
            n_genes=12,
            dropout=0.0,
            settings=SMALL,
            seed=0,
            devices=[torch.device("cpu")],
            progress=lambda done, total: None,
        )
        assert weights_of(model).isfinite().all()
        assert all(math.isfinite(one) for one in model.history[0])
