"""stImpute: autoencoder, neighbours, GraphSAGE over genes (Zeng et al., Commun Biol 2024, Eq. 1-12).

The file follows the paper: the two networks, the losses, the alternating training, prediction. All functions
work on arrays; the caller reads the data and stores the predictions.

Letters: B cells of a block, P panel genes, S source genes of the graph, R requested genes, k neighbours, d
latent numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from cellweft._compute import torch_stream
from cellweft._typing import DoubleArray, FloatArray, IntArray, Progress, no_progress
from cellweft.nn.config import SimilarityMean, StImputeSettings
from cellweft.nn.device import to_device
from cellweft.nn.gene_graph import GeneFeatures, GeneGraph, GeneTable
from cellweft.nn.neighbors import NeighborSearch, neighbor_search
from cellweft.nn.similarity import centred
from cellweft.nn.training import EpochProgress, fit_epochs, linear, shuffled

_JUDGED_STEP, _FEWEST_JUDGED, _MOST_JUDGED = 10, 20, 1000  # of validation cells, for early stopping


class AutoEncoder(torch.nn.Module):
    """ReLU encoder and decoder of one layer each: Eq. 1-2."""

    def __init__(self, n_panel: int, latent: int, generator: torch.Generator) -> None:
        super().__init__()
        self.encoder = linear(n_panel, latent, generator)
        self.decoder = linear(latent, n_panel, generator)

    def encode(self, cells: torch.Tensor) -> torch.Tensor:
        """Return the embedding of cells: (B, P) -> (B, d)."""
        return F.relu(self.encoder(cells))

    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        """Return the reconstruction of cells: (B, P) -> (B, P)."""
        return F.relu(self.decoder(self.encode(cells)))


class SageLayer(torch.nn.Module):
    """One GraphSAGE layer: h_v = relu(W [h_v, h_N(v)]), at unit length (Eq. 7-8)."""

    def __init__(self, n_in: int, n_out: int, generator: torch.Generator, *, normalise: bool) -> None:
        super().__init__()
        self.linear = linear(2 * n_in, n_out, generator)
        self.normalise = normalise

    def forward(self, own: torch.Tensor, neighbors: torch.Tensor) -> torch.Tensor:
        """Return new node features: (genes, B, n_in) twice -> (genes, B, n_out)."""
        of_own, of_neighbors = self.linear.weight.tensor_split(2, dim=1)
        features = F.relu(F.linear(own, of_own, self.linear.bias) + F.linear(neighbors, of_neighbors))
        return F.normalize(features, dim=-1) if self.normalise else features


class GeneNetwork(torch.nn.Module):
    """Two GraphSAGE layers and a multilayer perceptron: Eq. 7-9."""

    def __init__(self, k: int, hidden: int, generator: torch.Generator, *, normalise: bool) -> None:
        super().__init__()
        self.first = SageLayer(k, k, generator, normalise=normalise)
        self.second = SageLayer(k, k, generator, normalise=normalise)
        widths = (k, 2 * hidden, hidden, 1)
        self.layers = torch.nn.ModuleList(linear(n_in, n_out, generator) for n_in, n_out in pairwise(widths))

    def forward(self, features: GeneFeatures, source_states: torch.Tensor) -> torch.Tensor:
        """Return the expression of genes in cells: (B, R), at least 0.

        Parameters
        ----------
        features
            Features of the requested genes.
        source_states
            (S, B, k) output of the layer `first` for the sources.
        """
        own = self.first(features.own, features.neighbors)  # (R, B, k)
        messages = torch.tensordot(features.weights, source_states, dims=1)  # (R, S) x (S, B, k) -> (R, B, k)
        states = self.second(own, messages)
        for layer in self.layers[:-1]:
            states = F.relu(layer(states))
        # DEVIATION: softplus; the paper does not specify the activation. With ReLU, some genes stayed at
        # zero.
        return F.softplus(self.layers[-1](states).squeeze(-1)).T


@dataclass(frozen=True, kw_only=True, eq=False)
class StImputeModel:
    """The trained networks, and the parts of the reference that prediction needs.

    Attributes
    ----------
    settings
        The settings of the training.
    autoencoder, network
        The two networks, on the device.
    graph
        Gene-gene weights; its sources are fixed.
    sources
        The graph's sources as a table.
    search
        Search for the nearest reference cells in the embedding.
    neighbor_scale
        Factor of the neighbours' mean in Eq. 12: see `neighbor_scale`.
    history
        Mean loss per epoch of each stage.
    """

    settings: StImputeSettings
    autoencoder: AutoEncoder
    network: GeneNetwork
    graph: GeneGraph
    sources: GeneTable
    search: NeighborSearch
    neighbor_scale: float
    history: dict[str, list[float]]

    @property
    def device(self) -> torch.device:
        """Device of the networks."""
        return self.search.device

    def to(self, device: torch.device) -> StImputeModel:
        """Return a copy on a device."""
        return to_device(self, device, "autoencoder", "network", "graph", "sources", "search")


def similarity_loss(
    predicted: torch.Tensor,
    measured: torch.Tensor,
    *,
    mean: torch.Tensor | Literal["each", "profile"],
    cells: float = 1.0,
    genes: float = 1.0,
) -> torch.Tensor:
    """Return L_sim of Eq. 10: 1 - cosine of rows and of columns after subtracting a mean, each averaged.

    Parameters
    ----------
    predicted, measured
        (B, P) expression.
    mean
        What is subtracted: from both, (1, P) means of the measured genes, see `measured_mean`; from each, its
        overall mean ("each"); or from each row or column, its own mean ("profile").
    cells, genes
        Weights of the two terms.
    """
    loss = predicted.new_zeros(())
    for weight, axis in ((cells, 1), (genes, 0)):
        if weight:
            left, right = (_less(values, mean, axis) for values in (predicted, measured))
            loss = loss + weight * (1 - F.cosine_similarity(left, right, dim=axis)).mean()
    return loss


def _less(values: torch.Tensor, mean: torch.Tensor | Literal["each", "profile"], axis: int) -> torch.Tensor:
    if isinstance(mean, torch.Tensor):
        return values - mean
    return values - values.mean() if mean == "each" else centred(values, dim=axis)


def measured_mean(cells: torch.Tensor, reading: SimilarityMean) -> torch.Tensor | Literal["each", "profile"]:
    """Return X_mean_t of Eq. 10, as in `similarity_loss`.

    Parameters
    ----------
    cells
        (n_training, P) measured expression.
    reading
        "overall" returns the mean of all values for each gene, "gene" that of the gene; the others are
        computed in each batch.
    """
    if reading == "overall":
        return cells.mean().expand(1, cells.shape[1])
    return cells.mean(dim=0, keepdim=True) if reading == "gene" else reading


def reconstruction_loss(
    reconstructed: torch.Tensor, measured: torch.Tensor, predicted: torch.Tensor | None
) -> torch.Tensor:
    """Return Eq. 3, or Eq. 11 if the gene network's prediction is given: squares summed over genes."""
    if predicted is not None:
        reconstructed = (reconstructed + predicted) / 2
    return ((measured - reconstructed) ** 2).sum(dim=1).mean()


def train(
    measured: FloatArray,
    reference: FloatArray,
    panel: IntArray,
    *,
    graph: GeneGraph,
    settings: StImputeSettings,
    seed: int,
    device: torch.device,
    progress: Progress = no_progress,
) -> StImputeModel:
    """Train the autoencoder and the gene network in alternating rounds.

    Parameters
    ----------
    measured
        (n_training, P) log-normalised expression of spatial cells.
    reference
        (n_sc, P) the same genes in the reference.
    panel
        (P,) positions of these genes in the reference.
    graph
        Gene-gene weights.
    settings, seed, device, progress
        Settings of the training, random seed, device, and a progress callback.

    Notes
    -----
    Rounds: autoencoder, neighbours, gene network; then the autoencoder against the mean of its reconstruction
    and the gene network's prediction (Eq. 11), neighbours, gene network again.

    DEVIATION: an epoch of the gene network uses at most ``cells_per_epoch`` cells instead of all. A step
    predicts at most ``batch_genes`` genes, with messages from at most ``batch_sources`` genes, as GraphSAGE
    samples neighbourhoods. Prediction uses all sources.
    """
    stages = "start", "autoencoder", "network"
    streams = {stage: torch_stream(seed, f"stimpute.{stage}") for stage in stages}
    autoencoder, network = new_networks(settings, len(panel), streams["start"])
    autoencoder, network = autoencoder.to(device), network.to(device)
    cells = torch.from_numpy(measured).to(device)
    sources = GeneTable.build(graph, graph.sources, graph.source_expression, device=device)
    genes = GeneTable.build(graph, panel, reference, device=device)
    history: dict[str, list[float]] = {}
    predicted: torch.Tensor | None = None
    for round_ in range(1, settings.rounds + 1):
        stage = f"autoencoder {round_}"
        history[stage] = _fit_autoencoder(
            autoencoder, cells, predicted, settings, streams["autoencoder"], partial(progress, stage)
        )
        search = neighbor_search(encode(autoencoder, reference), settings, seed=seed, device=device)
        neighbors = torch.from_numpy(search.search(encode(autoencoder, measured), settings.k)).to(device)
        stage = f"gene network {round_}"
        history[stage] = _fit_network(
            network,
            cells,
            neighbors,
            (sources, genes),
            settings,
            streams["network"],
            partial(progress, stage),
        )
        if round_ < settings.rounds:
            predicted = _network_only(network, neighbors, sources, genes)
    return StImputeModel(
        settings=settings,
        autoencoder=autoencoder,
        network=network,
        graph=graph,
        sources=sources,
        search=search,
        neighbor_scale=neighbor_scale(cells, neighbors, genes) if settings.neighbor_scale == "panel" else 1.0,
        history=history,
    )


def new_networks(
    settings: StImputeSettings, n_panel: int, generator: torch.Generator
) -> tuple[AutoEncoder, GeneNetwork]:
    """Return the two networks before training, on the CPU."""
    autoencoder = AutoEncoder(n_panel, settings.latent, generator)
    return autoencoder, GeneNetwork(settings.k, settings.hidden, generator, normalise=settings.normalise)


def assemble(
    networks: tuple[AutoEncoder, GeneNetwork],
    reference: FloatArray,
    *,
    graph: GeneGraph,
    settings: StImputeSettings,
    neighbor_scale: float,
    seed: int,
    device: torch.device,
) -> StImputeModel:
    """Combine trained networks and a reference into a model, as `train` does.

    Parameters
    ----------
    networks
        The two trained networks.
    reference
        (n_sc, P) log-normalised expression of the panel in the reference.
    neighbor_scale
        The fitted factor.
    graph, settings, seed, device
        As in `train`.
    """
    autoencoder, network = networks[0].to(device), networks[1].to(device)
    return StImputeModel(
        settings=settings,
        autoencoder=autoencoder,
        network=network,
        graph=graph,
        sources=GeneTable.build(graph, graph.sources, graph.source_expression, device=device),
        search=neighbor_search(encode(autoencoder, reference), settings, seed=seed, device=device),
        neighbor_scale=neighbor_scale,
        history={},
    )


def _fit_autoencoder(
    autoencoder: AutoEncoder,
    cells: torch.Tensor,
    predicted: torch.Tensor | None,
    settings: StImputeSettings,
    generator: torch.Generator,
    progress: EpochProgress,
) -> list[float]:
    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        batch = cells[rows]
        return reconstruction_loss(autoencoder(batch), batch, None if predicted is None else predicted[rows])

    trained, judged = _parted(cells, settings)
    return fit_epochs(
        autoencoder.parameters(),
        lambda rows: loss_of(trained[rows]),
        partial(shuffled, len(trained), size=settings.ae_batch, generator=generator),
        epochs=settings.ae_epochs,
        lr=settings.lr,
        progress=progress,
        patience=settings.patience,
        judge=(lambda: loss_of(judged)) if len(judged) else None,
    )


def _parted(cells: torch.Tensor, settings: StImputeSettings) -> tuple[torch.Tensor, torch.Tensor]:
    """Return positions of training cells and, with early stopping, of a tenth for validation."""
    every = torch.arange(len(cells), device=cells.device)
    if not settings.patience or len(cells) < _FEWEST_JUDGED * 2:
        return every, every[:0]
    return every[every % _JUDGED_STEP > 0], every[::_JUDGED_STEP][:_MOST_JUDGED]


def _fit_network(
    network: GeneNetwork,
    cells: torch.Tensor,
    neighbors: torch.Tensor,
    tables: tuple[GeneTable, GeneTable],
    settings: StImputeSettings,
    generator: torch.Generator,
    progress: EpochProgress,
) -> list[float]:
    sources, genes = tables
    mean = measured_mean(cells, settings.similarity_mean)

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        near = neighbors[rows]
        drawn = _draw(cells.shape[1], settings.batch_genes, generator, cells.device)
        features = genes.gather(near, drawn)
        senders = None
        if not sources.is_sparse:  # of a few neighbours, a draw keeps nearly none
            senders = _draw(len(sources.weights), settings.batch_sources, generator, cells.device)
        if senders is not None:
            features = features.from_sources(senders)
        predicted = network(features, source_states(network, sources, near, drawn=senders))
        measured = cells[rows] if drawn is None else cells[rows][:, drawn]
        return error(predicted, measured, drawn)

    def error(
        predicted: torch.Tensor, measured: torch.Tensor, drawn: torch.Tensor | None = None
    ) -> torch.Tensor:
        similarity = similarity_loss(
            predicted,
            measured,
            mean=mean if drawn is None or isinstance(mean, str) else mean[:, drawn],
            cells=settings.cell_similarity,
            genes=settings.gene_similarity,
        )
        return similarity + settings.residual * F.mse_loss(predicted, measured)  # (10)

    def held() -> torch.Tensor:
        return error(_network_only(network, neighbors[judged], sources, genes), cells[judged])

    trained, judged = _parted(cells, settings)
    return fit_epochs(
        network.parameters(),
        lambda rows: loss_of(trained[rows]),
        partial(
            shuffled, len(trained), size=settings.batch, generator=generator, most=settings.cells_per_epoch
        ),
        epochs=settings.epochs,
        lr=settings.lr,
        progress=progress,
        patience=settings.patience,
        judge=held if len(judged) else None,
    )


def _draw(n_genes: int, most: int, generator: torch.Generator, device: torch.device) -> torch.Tensor | None:
    """Return positions of ``most`` genes drawn at random, or None if there are no more than that."""
    if n_genes <= most:
        return None
    return torch.randperm(n_genes, generator=generator)[:most].to(device)


def encode(autoencoder: AutoEncoder, cells: FloatArray) -> DoubleArray:
    """Return the embedding of cells: (n_cells, P) -> (n_cells, d).

    It is computed in float64 and rounded to float32, so that it does not depend on the number of cells
    embedded at once, and copies of a cell have the same embedding. The last bit of a product depends on its
    shape.
    """
    weight, bias = (
        parameter.detach().cpu().numpy().astype(np.float64) for parameter in autoencoder.encoder.parameters()
    )
    latent = np.maximum(cells.astype(np.float64) @ weight.T + bias, 0)
    return latent.astype(np.float32).astype(np.float64)


def source_states(
    network: GeneNetwork, sources: GeneTable, neighbors: torch.Tensor, *, drawn: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the first layer's output for all or the drawn sources: (B, k) neighbours -> (S, B, k)."""
    features = sources.gather(neighbors, drawn)
    states: torch.Tensor = network.first(features.own, features.neighbors)
    return states


def find_neighbors(model: StImputeModel, measured: FloatArray) -> IntArray:
    """Return the k most similar reference cells of spatial cells: (n_cells, P) -> (n_cells, k)."""
    return model.search.search(encode(model.autoencoder, measured), model.settings.k)


def neighbor_scale(cells: torch.Tensor, neighbors: torch.Tensor, panel: GeneTable) -> float:
    """Return the factor that fits the mean of the neighbours best to the measured values.

    Parameters
    ----------
    cells
        (n_training, P) measured expression.
    neighbors
        (n_training, k) their neighbours.
    panel
        The P genes, in the reference.

    Returns
    -------
    The s that minimises the sum of (measured - s mean)^2; 1 if the neighbours express no panel gene.

    Notes
    -----
    DEVIATION: Eq. 12 adds the network, which predicts on the scale of the tissue, and the mean of the
    neighbours, which is on that of the reference. The authors' release scales the mean by the largest values
    among the requested genes. A factor from the panel does not depend on the requested genes.
    """
    both = squared = 0.0
    for rows, measured in zip(torch.split(neighbors, 256), torch.split(cells, 256), strict=True):
        mean = panel.gather(rows).own.mean(dim=2).T.double()
        both += float((mean * measured).sum())
        squared += float((mean * mean).sum())
    return both / squared if squared > 0 else 1.0


def predict_block(model: StImputeModel, neighbors: IntArray, tables: Sequence[GeneTable]) -> FloatArray:
    """Predict genes in a block of spatial cells: Eq. 12.

    Parameters
    ----------
    model
        A trained model.
    neighbors
        (B, k) from `find_neighbors`.
    tables
        Tables that together contain the R requested genes.

    Returns
    -------
    (B, R) log-normalised expression, at least 0.
    """
    rows, alpha = torch.from_numpy(neighbors).to(model.device), model.settings.alpha
    predicted = np.empty((len(neighbors), sum(len(table.weights) for table in tables)), dtype=np.float32)
    done = 0
    with torch.no_grad():
        states = source_states(model.network, model.sources, rows) if alpha > 0 else None
        for table in tables:
            features = table.gather(rows)
            blended = (1 - alpha) * model.neighbor_scale * features.own.mean(dim=2).T
            if states is not None:
                blended += alpha * model.network(features, states)
            predicted[:, done : done + blended.shape[1]] = blended.cpu().numpy()
            done += blended.shape[1]
    return predicted


def _network_only(
    network: GeneNetwork, neighbors: torch.Tensor, sources: GeneTable, genes: GeneTable
) -> torch.Tensor:
    """Return the gene network's prediction for all training cells, by blocks: (n_training, P)."""
    predicted = neighbors.new_empty(len(neighbors), len(genes.weights), dtype=torch.float32)
    with torch.no_grad():
        for rows, block in zip(torch.split(neighbors, 256), torch.split(predicted, 256), strict=True):
            block[:] = network(genes.gather(rows), source_states(network, sources, rows))
    return predicted
