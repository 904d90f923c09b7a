"""stImpute: every equation in naive loops, training rounds, independence of predictions, and learning."""

import math
from dataclasses import replace
from itertools import combinations
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cellweft._compute import torch_stream
from cellweft._errors import SettingError
from cellweft.nn.config import NeighborScale, SimilarityMean, StImputeSettings
from cellweft.nn.gene_graph import GeneGraph, GeneTable
from cellweft.nn.neighbors import ExactNeighbors
from cellweft.nn.stimpute import (
    AutoEncoder,
    StImputeModel,
    assemble,
    encode,
    find_neighbors,
    measured_mean,
    neighbor_scale,
    new_networks,
    predict_block,
    reconstruction_loss,
    similarity_loss,
    train,
)

# float32 networks against float64 loops: a few dozen sums, each accurate to 6e-8 for values around 1
NETWORK_TOLERANCE = 1e-5
# cosines of centred values: an untrained network hardly varies, so centring magnifies rounding errors
LOSS_TOLERANCE = 3e-4
# the same float32 sums in another order, because products of other shapes are summed in other blocks
ORDER_TOLERANCE = 2e-6

TINY = StImputeSettings(
    k=2,
    latent=4,
    hidden=3,
    epochs=1,
    ae_epochs=1,
    rounds=1,
    batch=64,
    ae_batch=64,
    batch_genes=64,
    batch_sources=64,
)
"""One batch per epoch: the loss of an epoch is that of the networks before the epoch."""


class Toy:
    """A small case: 4 spatial cells, 4 reference cells, 3 panel genes, 2 more genes, k = 2."""

    rng = np.random.default_rng(7)
    measured = rng.gamma(1.0, size=(4, 3)).astype(np.float32)
    reference = rng.gamma(1.0, size=(4, 5)).astype(np.float32)
    panel = np.array([4, 0, 2])
    sources = np.array([0, 3, 4, 1])

    @classmethod
    def graph(cls) -> GeneGraph:
        return GeneGraph(sources=cls.sources, source_expression=cls.reference[:, cls.sources])

    @classmethod
    def train(cls, device: torch.device, *, seed: int = 0, **changes) -> StImputeModel:
        return train(
            cls.measured,
            cls.reference[:, cls.panel],
            cls.panel,
            graph=cls.graph(),
            settings=replace(TINY, **changes),
            seed=seed,
            device=device,
        )

    @classmethod
    def start(cls, device: torch.device, **changes) -> StImputeModel:
        """Return the model before training, as initialised with seed 0."""
        networks = new_networks(replace(TINY, **changes), 3, torch_stream(0, "stimpute.start"))
        return assemble(
            networks,
            cls.reference[:, cls.panel],
            graph=cls.graph(),
            settings=replace(TINY, **changes),
            neighbor_scale=1.0,
            seed=0,
            device=device,
        )

    @classmethod
    def predict(cls, model: StImputeModel, genes: np.ndarray) -> np.ndarray:
        table = GeneTable.build(model.graph, genes, cls.reference[:, genes], device=model.device)
        return predict_block(model, find_neighbors(model, cls.measured), [table])


# Naive versions: plain lists of Python floats, one function per equation.


def layer(weights, inputs):
    """Return W x + b, one number at a time."""
    weight, bias = (one.detach().cpu().double().tolist() for one in (weights.weight, weights.bias))
    return [
        math.fsum(w * x for w, x in zip(row, inputs, strict=True)) + b
        for row, b in zip(weight, bias, strict=True)
    ]


def relu(values):
    return [max(value, 0.0) for value in values]


def unit(values):
    length = math.sqrt(math.fsum(value * value for value in values))
    return [value / length for value in values] if length else values


def cosine(left, right):
    return math.fsum(a * b for a, b in zip(unit(list(left)), unit(list(right)), strict=True))


def naive_reconstruction(autoencoder, cells):
    return [relu(layer(autoencoder.decoder, relu(layer(autoencoder.encoder, cell)))) for cell in cells]


def naive_neighbors(autoencoder, cells, reference, k):
    embedded = [relu(layer(autoencoder.encoder, cell)) for cell in reference]
    found = []
    for cell in cells:
        likeness = [cosine(relu(layer(autoencoder.encoder, cell)), one) for one in embedded]
        found.append(sorted(range(len(reference)), key=lambda one: (-likeness[one], one))[:k])
    return found


def naive_network(network, near, genes, *, normalise=True, senders=Toy.sources):
    """Predict genes in a cell with the neighbours `near`: Eq. 7-9, one node at a time.

    The second layer gets messages from `senders`, the first from all sources.
    """
    finish = unit if normalise else list
    values = Toy.reference.astype(float)

    def mean(gene, sources, states):  # (7)
        row = [0.0 if gene == one else max(cosine(values[:, gene], values[:, one]), 0.0) for one in sources]
        return [
            math.fsum(weight * state[place] for weight, state in zip(row, states, strict=True))
            / math.fsum(row)
            for place in range(len(near))
        ]

    def inputs(gene):
        return [values[cell, gene] for cell in near]

    def first(gene):  # (8)
        around = mean(gene, Toy.sources, [inputs(one) for one in Toy.sources])
        return finish(relu(layer(network.first.linear, [*inputs(gene), *around])))

    def predict(gene):
        around = mean(gene, senders, [first(one) for one in senders])
        state = finish(relu(layer(network.second.linear, [*first(gene), *around])))
        *hidden, last = network.layers
        for one in hidden:
            state = relu(layer(one, state))
        return math.log1p(math.exp(layer(last, state)[0]))  # (9)

    return [predict(gene) for gene in genes]


def naive_loss(predicted, measured, mean="overall", training=None):
    """Return the three terms of Eq. 10: cells, genes, residual.

    The subtracted mean is that of `training`, all measured cells; by default these are the cells of the loss.
    """
    n_cells, n_genes = len(measured), len(measured[0])
    training = measured if training is None else training

    def average(values):
        values = list(values)
        return math.fsum(values) / len(values)

    def less(matrix, cell, gene):
        if mean == "overall":
            return matrix[cell][gene] - average(value for row in training for value in row)
        if mean == "gene":
            return matrix[cell][gene] - average(row[gene] for row in training)
        assert mean == "each"
        return matrix[cell][gene] - average(value for row in matrix for value in row)

    def apart(places):
        left, right = ([matrix[c][g] for c, g in places] for matrix in (predicted, measured))
        if mean == "profile":
            left, right = ([value - average(side) for value in side] for side in (left, right))
        else:
            left, right = ([less(matrix, c, g) for c, g in places] for matrix in (predicted, measured))
        return 1 - cosine(left, right)

    cells = average(apart([(cell, gene) for gene in range(n_genes)]) for cell in range(n_cells))
    genes = average(apart([(cell, gene) for cell in range(n_cells)]) for gene in range(n_genes))
    squares = [
        (a - b) ** 2 for rows in zip(predicted, measured, strict=True) for a, b in zip(*rows, strict=True)
    ]
    return cells, genes, average(squares)


def naive_scale(near_each):
    """Return the factor of the neighbours' mean that fits the measured panel best by least squares."""
    pairs = [
        (float(value), math.fsum(Toy.reference[near, gene].tolist()) / len(near))
        for near, cell in zip(near_each, Toy.measured, strict=True)
        for gene, value in zip(Toy.panel, cell, strict=True)
    ]
    return math.fsum(value * mean for value, mean in pairs) / math.fsum(mean * mean for _, mean in pairs)


def naive_panel(model: StImputeModel, near, *, senders=Toy.sources):
    return [naive_network(model.network, one, Toy.panel, senders=senders) for one in near]


class TestEquations:
    def test_equations_1_and_2_the_autoencoder(self, device: torch.device) -> None:
        model = Toy.start(device)
        made = model.autoencoder(torch.from_numpy(Toy.measured).to(device)).detach().cpu()
        naive = naive_reconstruction(model.autoencoder, Toy.measured.tolist())
        np.testing.assert_allclose(made, naive, atol=NETWORK_TOLERANCE)
        embedded = [relu(layer(model.autoencoder.encoder, cell)) for cell in Toy.measured.tolist()]
        np.testing.assert_allclose(encode(model.autoencoder, Toy.measured), embedded, atol=NETWORK_TOLERANCE)

    def test_equation_3_the_loss_of_the_autoencoder(self, device: torch.device) -> None:
        history = Toy.train(device).history["autoencoder 1"]
        made = naive_reconstruction(Toy.start(device).autoencoder, Toy.measured.tolist())
        naive = math.fsum((a - b) ** 2 for a, b in zip(np.ravel(made), Toy.measured.ravel(), strict=True)) / 4
        assert history == pytest.approx([naive], rel=NETWORK_TOLERANCE)

    def test_neighbours_are_the_most_similar_in_the_embedding(self, device: torch.device) -> None:
        model = Toy.train(device, ae_epochs=3)
        naive = naive_neighbors(
            model.autoencoder, Toy.measured.tolist(), Toy.reference[:, Toy.panel].tolist(), 2
        )
        assert find_neighbors(model, Toy.measured).tolist() == naive

    @pytest.mark.parametrize("normalise", [True, False])
    def test_equations_7_to_9_the_gene_network(self, device: torch.device, *, normalise: bool) -> None:
        model = Toy.train(device, alpha=1, normalise=normalise, epochs=3)
        near, genes = find_neighbors(model, Toy.measured), np.arange(5)
        naive = [naive_network(model.network, one, genes, normalise=normalise) for one in near.tolist()]
        np.testing.assert_allclose(Toy.predict(model, genes), naive, atol=NETWORK_TOLERANCE)

    @pytest.mark.parametrize(
        ("cells", "genes", "residual"), [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (0.5, 2, 3)]
    )
    @pytest.mark.parametrize("mean", get_args(SimilarityMean))
    def test_equation_10_the_loss_of_the_gene_network(
        self, device: torch.device, mean, cells, genes, residual
    ) -> None:
        weights = {"cell_similarity": cells, "gene_similarity": genes, "residual": residual}
        trained = Toy.train(device, ae_epochs=0, similarity_mean=mean, **weights)
        history = trained.history["gene network 1"]
        start = Toy.start(device)
        near = find_neighbors(start, Toy.measured).tolist()
        terms = naive_loss(naive_panel(start, near), Toy.measured.tolist(), mean)
        naive = math.fsum(w * term for w, term in zip((cells, genes, residual), terms, strict=True))
        assert history == pytest.approx([naive], abs=LOSS_TOLERANCE)

    @pytest.mark.parametrize("mean", get_args(SimilarityMean))
    def test_equation_10_over_sampled_genes(self, device: torch.device, mean) -> None:
        """The overall mean is still that of the whole panel."""
        trained = Toy.train(device, ae_epochs=0, batch_genes=2, similarity_mean=mean)
        loss = trained.history["gene network 1"][0]
        start = Toy.start(device)
        predicted = np.array(naive_panel(start, find_neighbors(start, Toy.measured).tolist()))
        pairs = ([0, 1], [0, 2], [1, 2])
        naive = [
            sum(
                naive_loss(
                    predicted[:, two].tolist(),
                    Toy.measured[:, two].tolist(),
                    mean,
                    (Toy.measured if mean == "overall" else Toy.measured[:, two]).tolist(),
                )
            )
            for two in pairs
        ]
        assert any(loss == pytest.approx(one, abs=LOSS_TOLERANCE) for one in naive)

    def test_equation_7_over_sampled_sources(self, device: torch.device) -> None:
        weights = {"cell_similarity": 0, "gene_similarity": 0}
        loss = Toy.train(device, ae_epochs=0, batch_sources=3, **weights).history["gene network 1"][0]
        start = Toy.start(device)
        near = find_neighbors(start, Toy.measured).tolist()
        naive = [
            naive_loss(naive_panel(start, near, senders=three), Toy.measured.tolist())[2]
            for three in combinations(Toy.sources, 3)
        ]
        assert any(loss == pytest.approx(one, rel=NETWORK_TOLERANCE) for one in naive)

    def test_equation_11_the_second_round_trains_on_the_mean_of_both_networks(
        self, device: torch.device
    ) -> None:
        once, twice = Toy.train(device), Toy.train(device, rounds=2)
        predicted = naive_panel(once, find_neighbors(once, Toy.measured).tolist())
        made = naive_reconstruction(once.autoencoder, Toy.measured.tolist())
        naive = math.fsum(
            (x - (a + g) / 2) ** 2
            for x, a, g in zip(Toy.measured.ravel(), np.ravel(made), np.ravel(predicted), strict=True)
        )
        assert twice.history["autoencoder 2"] == pytest.approx([naive / 4], rel=NETWORK_TOLERANCE)

    def test_the_second_round_continues_with_new_neighbours(self, device: torch.device) -> None:
        once, twice = (Toy.train(device, rounds=rounds, lr=0.3) for rounds in (1, 2))
        near = find_neighbors(twice, Toy.measured).tolist()
        assert near != find_neighbors(once, Toy.measured).tolist(), (
            "the neighbours do not change in this case"
        )
        naive = sum(naive_loss(naive_panel(once, near), Toy.measured.tolist()))
        assert twice.history["gene network 2"] == pytest.approx([naive], abs=LOSS_TOLERANCE)

    @pytest.mark.parametrize("alpha", [0, 0.3, 1])
    @pytest.mark.parametrize("scale", ["none", "panel"])
    def test_equation_12_the_blend(self, device: torch.device, scale: NeighborScale, alpha: float) -> None:
        model = Toy.train(device, alpha=alpha, neighbor_scale=scale)
        near_each, naive = find_neighbors(model, Toy.measured).tolist(), []
        factor = 1.0 if scale == "none" else naive_scale(near_each)
        for near in near_each:
            predicted = naive_network(model.network, near, range(5))
            means = [factor * math.fsum(Toy.reference[near, gene].tolist()) / 2 for gene in range(5)]
            naive.append([alpha * a + (1 - alpha) * b for a, b in zip(predicted, means, strict=True)])
        np.testing.assert_allclose(Toy.predict(model, np.arange(5)), naive, atol=NETWORK_TOLERANCE)


class TestLosses:
    predicted = torch.tensor([[1.0, 2.0, 4.0], [3.0, 1.0, 1.0]])
    measured = torch.tensor([[0.0, 2.0, 1.0], [1.0, 0.0, 2.0]])

    @pytest.mark.parametrize("weights", [(1, 0), (0, 1), (1, 1), (2, 0.5), (0, 0)])
    @pytest.mark.parametrize("mean", get_args(SimilarityMean))
    def test_similarity_equals_a_naive_loop(
        self, device: torch.device, mean: SimilarityMean, weights: tuple[float, float]
    ) -> None:
        terms = naive_loss(self.predicted.tolist(), self.measured.tolist(), mean)[:2]
        predicted, measured = self.predicted.to(device), self.measured.to(device)
        subtracted = measured_mean(measured, mean)
        loss = similarity_loss(predicted, measured, mean=subtracted, cells=weights[0], genes=weights[1])
        naive = math.fsum(weight * term for weight, term in zip(weights, terms, strict=True))
        assert float(loss) == pytest.approx(naive, abs=NETWORK_TOLERANCE)

    @pytest.mark.parametrize("mean", get_args(SimilarityMean))
    def test_similarity_by_hand(self, mean: SimilarityMean) -> None:
        # The two cells are opposite, and so are the two genes. All means are 1/2.
        left, right = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        subtracted = measured_mean(right, mean)
        assert float(similarity_loss(left, right, mean=subtracted)) == pytest.approx(4)
        loss = similarity_loss(left, left, mean=subtracted)
        assert float(loss) == pytest.approx(0, abs=NETWORK_TOLERANCE)

    def test_the_mean_of_the_measurements_is_subtracted_from_both_sides(self) -> None:
        # Measurements have mean 1, so (3, 2) and (0, 2) are compared as (2, 1) and (-1, 1).
        predicted, measured = torch.tensor([[3.0, 2.0]]), torch.tensor([[0.0, 2.0]])
        loss = similarity_loss(predicted, measured, mean=measured_mean(measured, "overall"), genes=0)
        assert float(loss) == pytest.approx(1 - (-2 + 1) / math.sqrt(5 * 2))

    def test_the_subtracted_means(self) -> None:
        assert measured_mean(self.measured, "overall").tolist() == [[1, 1, 1]]
        assert measured_mean(self.measured, "gene").tolist() == [[0.5, 1, 1.5]]
        assert [measured_mean(self.measured, one) for one in ("each", "profile")] == ["each", "profile"]

    @pytest.mark.parametrize("mean", get_args(SimilarityMean))
    def test_a_shift_only_matters_with_the_mean_of_the_measurements(self, mean: SimilarityMean) -> None:
        subtracted = measured_mean(self.measured, mean)
        loss = similarity_loss(3 * self.measured + 2, self.measured, mean=subtracted)
        if mean in ("each", "profile"):
            assert float(loss) == pytest.approx(0, abs=NETWORK_TOLERANCE)
        else:
            assert float(loss) > 0.1

    @pytest.mark.parametrize("constant", [0.0, 2.0])
    @pytest.mark.parametrize("mean", get_args(SimilarityMean))
    def test_constant_cells_and_genes_have_a_finite_loss_and_gradient(
        self, mean: SimilarityMean, constant: float
    ) -> None:
        predicted = torch.full((3, 4), constant, requires_grad=True)
        measured = torch.zeros(3, 4)
        measured[0, 0] = 1
        loss = similarity_loss(predicted, measured, mean=measured_mean(measured, mean))
        if mean in ("each", "profile"):
            assert float(loss.detach()) == pytest.approx(2)
        assert bool(loss.isfinite())
        loss.backward()
        assert predicted.grad is not None
        assert bool(predicted.grad.isfinite().all())

    def test_reconstruction_by_hand(self) -> None:
        assert float(reconstruction_loss(self.predicted, self.measured, None)) == pytest.approx((10 + 6) / 2)
        # The mean of the reconstruction and the prediction equals the measurement.
        other = 2 * self.measured - self.predicted
        assert float(reconstruction_loss(self.predicted, self.measured, other)) == pytest.approx(0)
        # Half the distance gives a quarter of the squares.
        loss = reconstruction_loss(self.predicted, self.measured, self.measured)
        assert float(loss) == pytest.approx((10 + 6) / 2 / 4)


class TestNeighborScale:
    """The factor that scales the mean of the neighbours to the tissue."""

    reference = np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 0.0]], dtype=np.float32)  # 3 cells x 2 genes
    graph = GeneGraph(sources=np.arange(2), source_expression=reference)

    def factor(self, device: torch.device, measured: list[list[float]], near: list[list[int]]) -> float:
        panel = GeneTable.build(self.graph, np.arange(2), self.reference, device=device)
        cells = torch.tensor(measured, device=device)
        return neighbor_scale(cells, torch.tensor(near, device=device), panel)

    def test_by_hand(self, device: torch.device) -> None:
        # The means of the neighbours are (2, 1) and (3, 0): (2 x 4 + 1 x 1 + 3 x 3) / (4 + 1 + 9).
        made = self.factor(device, [[4.0, 1.0], [3.0, 5.0]], [[0, 1], [1, 1]])
        assert made == pytest.approx(18 / 14)

    def test_neighbours_and_cells_of_zeros(self, device: torch.device) -> None:
        assert self.factor(device, [[4.0, 1.0]], [[2, 2]]) == 1
        assert self.factor(device, [[0.0, 0.0]], [[0, 1]]) == 0

    def test_a_tissue_on_another_scale_gets_its_factor(self, device: torch.device) -> None:
        """The tissue is a quarter of the reference; most nearest cells are the true ones."""
        tissue = Tissue()
        tissue.measured = 0.25 * tissue.reference[:90, :10]
        nearest = tissue.fit(device, k=1, epochs=0)
        assert nearest.neighbor_scale == pytest.approx(0.25, rel=0.2)
        assert tissue.fit(device, epochs=0, neighbor_scale="none").neighbor_scale == 1


class Tissue:
    """Cells of three types along a gradient, measured with noise and a platform effect per gene."""

    n_types, n_genes, n_panel = 3, 16, 10

    def __init__(self, *, n_reference: int = 120, n_spatial: int = 90) -> None:
        rng = np.random.default_rng(3)
        profiles = rng.gamma(0.8, size=(self.n_types, self.n_genes))
        gain = rng.uniform(0.3, 2.5, self.n_genes)

        def draw(n_cells):
            mix = rng.dirichlet(np.full(self.n_types, 0.5), n_cells)
            return mix @ profiles + 0.2 * np.abs(rng.standard_normal((n_cells, self.n_genes)))

        self.reference = draw(n_reference).astype(np.float32)
        self.truth = (draw(n_spatial) * gain).astype(np.float32)
        self.panel = np.arange(self.n_panel)
        self.measured = self.truth[:, self.panel].copy()

    def fit(self, device: torch.device, *, seed: int = 0, progress=None, **changes) -> StImputeModel:
        used = {"k": 10, "latent": 16, "hidden": 16, "epochs": 3, "ae_epochs": 5, "batch": 64, **changes}
        graph = GeneGraph(sources=np.arange(self.n_genes), source_expression=self.reference)
        return train(
            self.measured,
            self.reference[:, self.panel],
            self.panel,
            graph=graph,
            settings=StImputeSettings(**used),
            seed=seed,
            device=device,
            progress=progress or (lambda stage, done, total: None),
        )

    def predict(
        self, model: StImputeModel, genes=None, *, cells=slice(None), block: int = 10_000
    ) -> np.ndarray:
        genes = np.arange(self.n_genes) if genes is None else np.asarray(genes)
        table = GeneTable.build(model.graph, genes, self.reference[:, genes], device=model.device)
        measured = self.measured[cells]
        parts = [
            predict_block(model, find_neighbors(model, measured[start : start + block]), [table])
            for start in range(0, len(measured), block)
        ]
        return np.concatenate(parts)


@pytest.fixture(scope="module")
def tissue() -> Tissue:
    return Tissue()


@pytest.fixture(scope="module")
def model(tissue: Tissue, device: torch.device) -> StImputeModel:
    return tissue.fit(device)


@pytest.fixture(scope="module")
def every(tissue: Tissue, model: StImputeModel) -> np.ndarray:
    """Predictions of all genes in all cells at once."""
    return tissue.predict(model)


class TestPrediction:
    """The prediction of a gene in a cell depends only on the model, the gene and the cell."""

    def test_shape_dtype_and_range(self, tissue: Tissue, every: np.ndarray) -> None:
        assert every.shape == (len(tissue.measured), tissue.n_genes)
        assert every.dtype == np.float32
        assert np.isfinite(every).all()
        assert every.min() >= 0

    @settings(max_examples=15, deadline=None)
    @given(data=st.data())
    def test_other_requested_genes_and_their_order_do_not_matter(self, data, tissue, model, every) -> None:
        genes = data.draw(st.lists(st.integers(0, tissue.n_genes - 1), min_size=1, max_size=20))
        np.testing.assert_allclose(tissue.predict(model, genes), every[:, genes], atol=ORDER_TOLERANCE)

    @settings(max_examples=15, deadline=None)
    @given(block=st.integers(1, 100))
    def test_block_size_does_not_matter(self, block: int, tissue, model, every) -> None:
        np.testing.assert_allclose(tissue.predict(model, block=block), every, atol=ORDER_TOLERANCE)

    @settings(max_examples=15, deadline=None)
    @given(seed=st.integers(0, 999), n_cells=st.integers(1, 90))
    def test_other_cells_and_their_order_do_not_matter(self, seed, n_cells, tissue, model, every) -> None:
        cells = np.random.default_rng(seed).permutation(len(tissue.measured))[:n_cells]
        np.testing.assert_allclose(tissue.predict(model, cells=cells), every[cells], atol=ORDER_TOLERANCE)

    def test_the_order_of_the_sources_does_not_matter(
        self, tissue: Tissue, model: StImputeModel, every
    ) -> None:
        order = np.random.default_rng(0).permutation(tissue.n_genes)
        graph = GeneGraph(sources=order, source_expression=tissue.reference[:, order])
        again = assemble(
            (model.autoencoder, model.network),
            tissue.reference[:, tissue.panel],
            graph=graph,
            settings=model.settings,
            neighbor_scale=model.neighbor_scale,
            seed=0,
            device=model.device,
        )
        np.testing.assert_allclose(tissue.predict(again), every, atol=ORDER_TOLERANCE)

    def test_a_reassembled_model_predicts_the_same_bits(self, tissue, model, every) -> None:
        again = assemble(
            (model.autoencoder, model.network),
            tissue.reference[:, tissue.panel],
            graph=model.graph,
            settings=model.settings,
            neighbor_scale=model.neighbor_scale,
            seed=0,
            device=model.device,
        )
        assert (tissue.predict(again) == every).all()


def copies(n_panel: int) -> tuple[AutoEncoder, np.ndarray, np.ndarray]:
    """Make a reference with one cell copied to both ends; products round the last rows differently."""
    rng = np.random.default_rng(0)
    reference = rng.random((203, n_panel)).astype(np.float32)
    same = np.r_[1:6, 198:203]
    reference[same] = reference[1]
    queries = np.abs(reference[1] + 0.1 * rng.standard_normal((60, n_panel))).astype(np.float32)
    return AutoEncoder(n_panel, 100, torch_stream(0, "copies")), reference, queries


@pytest.mark.parametrize("n_panel", [10, 33, 60])
def test_copies_of_a_cell_have_equal_embeddings_and_neighbours(n_panel: int) -> None:
    autoencoder, reference, queries = copies(n_panel)
    embedded = encode(autoencoder, reference)
    assert (embedded[198:] == embedded[1]).all()
    search = ExactNeighbors.build(embedded)
    whole = search.search(encode(autoencoder, queries), 7)
    single = [search.search(encode(autoencoder, query[None]), 7)[0] for query in queries]
    assert (whole == np.array(single)).all()


class TestSeeds:
    def test_a_seed_gives_the_same_bits_and_another_gives_others(self, tissue: Tissue) -> None:
        cpu = torch.device("cpu")
        first, again, other = (tissue.fit(cpu, seed=seed) for seed in (0, 0, 1))
        assert first.history == again.history
        assert (tissue.predict(first) == tissue.predict(again)).all()
        for one, two in zip(first.network.parameters(), again.network.parameters(), strict=True):
            assert torch.equal(one, two)
        assert first.history != other.history
        assert not (tissue.predict(first) == tissue.predict(other)).all()

    def test_global_random_states_are_neither_read_nor_written(
        self, tissue: Tissue, device: torch.device
    ) -> None:
        before = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
        first = tissue.fit(device)
        after = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
        assert torch.equal(before[0], after[0])
        assert (before[1][1] == after[1][1]).all()
        assert before[1][2:] == after[1][2:]
        with torch.random.fork_rng(devices=[]):
            torch.rand(5)
            second = tissue.fit(device)
        if device.type == "cpu":
            assert first.history == second.history

    def test_inputs_are_not_changed(self, tissue: Tissue, device: torch.device) -> None:
        fresh = Tissue()
        tissue.predict(tissue.fit(device))
        assert (tissue.measured == fresh.measured).all()
        assert (tissue.reference == fresh.reference).all()


def test_history_and_progress_have_every_epoch_of_every_stage(tissue: Tissue, device: torch.device) -> None:
    calls: list[tuple[str, int, int]] = []
    trained = tissue.fit(device, rounds=3, epochs=2, ae_epochs=4, progress=lambda *call: calls.append(call))
    stages = {
        f"{net} {number}": n for number in (1, 2, 3) for net, n in (("autoencoder", 4), ("gene network", 2))
    }
    assert {stage: len(losses) for stage, losses in trained.history.items()} == stages
    assert all(math.isfinite(loss) for losses in trained.history.values() for loss in losses)
    assert calls == [(stage, done + 1, n) for stage, n in stages.items() for done in range(n)]


@pytest.mark.parametrize("epochs", [{"epochs": 0}, {"ae_epochs": 0}])
def test_untrained_networks_give_predictions(tissue: Tissue, device: torch.device, epochs) -> None:
    assert np.isfinite(tissue.predict(tissue.fit(device, **epochs))).all()


def test_cells_and_genes_of_zeros_give_finite_predictions(device: torch.device) -> None:
    tissue = Tissue()
    tissue.measured[:20] = 0
    tissue.measured[:, 2] = 0
    tissue.reference[:30] = 0
    tissue.reference[:, [3, 12]] = 0
    trained = tissue.fit(device)
    assert all(math.isfinite(loss) for losses in trained.history.values() for loss in losses)
    predicted = tissue.predict(trained)
    assert np.isfinite(predicted).all()
    assert predicted.min() >= 0


def test_a_k_larger_than_the_reference(device: torch.device) -> None:
    with pytest.raises(SettingError, match=r"^k: expected from 1 to 4 .*got 5"):
        Toy.train(device, k=5)


class TestLearning:
    @pytest.mark.slow
    def test_training_lowers_every_loss(self, tissue: Tissue, device: torch.device) -> None:
        history = tissue.fit(device, epochs=15, ae_epochs=30).history
        assert history["autoencoder 1"][-1] < 0.5 * history["autoencoder 1"][0]
        assert history["gene network 1"][-1] < 0.6 * history["gene network 1"][0]
        assert history["gene network 2"][-1] < history["gene network 1"][0]

    @pytest.mark.slow
    def test_a_trained_network_beats_the_mean_of_the_neighbours(self, device: torch.device) -> None:
        # One platform detects half of what the other does: the network can learn this, a mean cannot.
        tissue = Tissue()
        tissue.truth = np.float32(0.5) * tissue.reference[:90]
        tissue.measured = tissue.truth[:, tissue.panel].copy()
        trained = tissue.fit(device, epochs=60, ae_epochs=30, alpha=1.0)
        held_out = np.arange(tissue.n_panel, tissue.n_genes)
        near = find_neighbors(trained, tissue.measured)
        mean = tissue.reference[:, held_out][near].mean(axis=1)
        errors = [
            float(((one - tissue.truth[:, held_out]) ** 2).mean())
            for one in (tissue.predict(trained, held_out), mean)
        ]
        assert errors[0] < 0.7 * errors[1]
