"""Settings of the methods: plain values, checked when they are made, free of torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar, get_args

from cellweft._errors import SettingError, arg, check_choice, check_known, check_range
from cellweft._typing import GraphKind, Kernel, PlacerPreset, RelationKind

Measure = Literal["similarity", "distance"]
Sources = Literal["auto", "all", "panel"]
Search = Literal["auto", "exact", "approximate"]
Precision = Literal["float32", "bfloat16"]

SAMPLE_CELLS = 2000
"""Tissue cells that learned attention standardises genes over, and judges them by, at most."""

_WORTH = 4  # times fewer metacells than cells, or there are none: what they save is not worth what they cost

_RELATIONS: tuple[RelationKind, ...] = get_args(RelationKind)
_LACKING = {"embedding": "an embedding table", "gene_sets": "gene sets", "edges": "a list of edges"}


@dataclass(frozen=True, kw_only=True)
class StImputeSettings:
    """Settings of stImpute; `published` gives the paper's for data of a size.

    Attributes
    ----------
    k
        Neighbours of a spatial cell in the reference.
    latent
        Width of the autoencoder's hidden layer, which is the embedding.
    hidden
        Width h of the last hidden layer of the multilayer perceptron (k -> 2h -> h -> 1).
    epochs, ae_epochs
        Passes over the training cells of the gene network, and of the autoencoder, per round.
    rounds
        How often neighbours are found and the gene network is trained.
    alpha
        Weight of the gene network against the mean of the neighbours (Eq. 12), 0 to 1.
    lr
        Learning rate of both networks.
    residual, cell_similarity, gene_similarity
        Weights of the three terms of Eq. 10.
    graph
        Where the gene-gene weights come from: "embedding", "expression", "gene_sets", "edges", or several of
        them as "embedding+expression", with shares as "embedding:2+expression". "auto" is all of embedding,
        gene_sets and edges that are given, and expression where none is; "none" is no graph.
    measure
        Cosine "similarity" (the paper) or "distance" (its release); gene sets and edges have no distance.
    graph_neighbors
        Keep so many of the largest weights per gene, by each relation; all by default.
    sources
        Genes that messages come from: "all" of the reference, or the "panel"; "auto" takes all up to
        `most_sources` genes.
    most_sources
        Genes up to which "auto" takes all as sources.
    normalise
        Whether node features are brought to unit length after each GraphSAGE layer.
    batch, ae_batch
        Cells per step of the gene network and of the autoencoder.
    batch_genes
        Panel genes per step of the gene network at most, drawn anew each time.
    batch_sources
        Source genes per step at most, likewise.
    cells_per_epoch
        Cells that the gene network sees per epoch at most, drawn anew each time.
    training_cells
        Spatial cells that training draws from at most.
    search
        How neighbours are found: "exact", by blocks; "approximate", by an index of faiss that looks at a
        part of the reference (extra ``index``); "auto" is exact up to 100,000 reference cells, and beyond
        approximate where faiss is installed.
    patience
        Epochs without a lower loss of cells that are not trained on, a tenth of them, after which training
        ends; 0, as published, trains to the end on all.
    """

    k: int = 50
    latent: int = 100
    hidden: int = 256
    epochs: int = 10
    ae_epochs: int = 30
    rounds: int = 2
    alpha: float = 0.7
    lr: float = 0.01
    residual: float = 1.0
    cell_similarity: float = 1.0
    gene_similarity: float = 1.0
    graph: GraphKind = "auto"
    measure: Measure = "similarity"
    graph_neighbors: int | None = None
    sources: Sources = "auto"
    most_sources: int = 1000
    normalise: bool = True
    batch: int = 64
    batch_genes: int = 32
    batch_sources: int = 64
    ae_batch: int = 256
    cells_per_epoch: int = 640
    training_cells: int = 20_000
    search: Search = "auto"
    patience: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "ae_epochs", "patience"):
            check_range(name, getattr(self, name), low=0, integer=True)
        for name in ("k", "latent", "hidden", "rounds", "most_sources", "batch_sources"):
            check_range(name, getattr(self, name), low=1, integer=True)
        for name in ("batch", "batch_genes", "ae_batch", "cells_per_epoch", "training_cells"):
            check_range(name, getattr(self, name), low=2, integer=True)
        check_range("alpha", self.alpha, low=0, high=1)
        check_range("lr", self.lr, low=1e-9, high=10)
        for name in ("residual", "cell_similarity", "gene_similarity"):
            check_range(name, getattr(self, name), low=0)
        if self.graph_neighbors is not None:
            check_range("graph_neighbors", self.graph_neighbors, low=1, integer=True)
        check_choice("measure", self.measure, ("similarity", "distance"))
        check_choice("sources", self.sources, ("auto", "all", "panel"))
        check_choice("search", self.search, get_args(Search))
        if self.graph not in ("auto", "none"):
            _check_measure(_parsed_graph(self.graph), self.measure)

    @classmethod
    def published(cls, n_cells: int, n_genes: int) -> StImputeSettings:
        """Return the published settings for spatial data of a size.

        Parameters
        ----------
        n_cells, n_genes
            Size of the spatial data: under 10,000 cells and 500 genes is small.

        Notes
        -----
        "Implementation Details" of the paper, with the widths of its release.
        """
        if n_cells < 10_000 and n_genes < 500:
            return cls()
        return cls(k=20, hidden=32, epochs=32, alpha=0.5)

    def override(self, settings: Mapping[str, Any]) -> StImputeSettings:
        """Return the settings with some of them changed.

        Raises
        ------
        SettingError
            An unknown name, or a value out of its range.
        """
        return _overridden(self, settings, method="stImpute")

    def graph_shares(self, given: Collection[str] = ()) -> dict[RelationKind, float]:
        """Return the relations that the gene graph is made of, and how much each counts; none for no graph.

        Parameters
        ----------
        given
            Those of "embedding", "gene_sets" and "edges" that there is something of.

        Raises
        ------
        SettingError
            ``graph`` names what is not given, or takes a distance where there is none.

        Examples
        --------
        >>> StImputeSettings(graph="embedding:2+expression").graph_shares(["embedding"])
        {'embedding': 2.0, 'expression': 1.0}
        """
        if self.graph == "auto":
            there = [name for name in _RELATIONS if name in _LACKING and name in given]
            shares = dict.fromkeys(there, 1.0) or {"expression": 1.0}
        else:
            shares = {} if self.graph == "none" else _parsed_graph(self.graph)
        for name in shares:
            if name in _LACKING and name not in given:
                raise SettingError(
                    f"graph={self.graph!r}",
                    expected=_LACKING[name],
                    got="none",
                    fix="Pass " + arg(name) + ", or use graph='expression'.",
                )
        _check_measure(shares, self.measure)
        return shares


def _parsed_graph(graph: str) -> dict[RelationKind, float]:
    shares: dict[RelationKind, float] = {}
    for part in str(graph).split("+"):
        text, colon, share = part.partition(":")
        check_choice("graph", text, (*_RELATIONS, "auto", "none"))
        name = next((one for one in _RELATIONS if one == text), None)
        try:
            value = float(share) if colon else 1.0
        except ValueError:
            value = 0.0
        if name is None or name in shares or not 0 < value < float("inf"):
            raise SettingError(
                "graph",
                expected="relations joined by +, each once, or with a share above 0 as embedding:2",
                got=repr(graph),
                fix="Write graph='embedding+expression', say; 'auto' and 'none' stand alone.",
            )
        shares[name] = value
    return shares


def _check_measure(relations: Collection[RelationKind], measure: Measure) -> None:
    without = [name for name in relations if name in ("gene_sets", "edges")]
    if measure == "distance" and without:
        raise SettingError(
            "measure",
            expected=f"'similarity' in a graph of {' and '.join(without)}, which have no distance",
            got="'distance'",
            fix="Leave it out, or use graph='embedding' or 'expression'.",
        )


def bytes_per_cell(settings: StImputeSettings, n_sources: int, n_genes: int) -> float:
    """Return how much memory a cell of a block takes in `predict_block`, for ``n_genes`` genes at once."""
    inputs = 6.0 * settings.k * (n_sources + n_genes)
    widest = (3 * settings.k + 4 * settings.hidden) * n_genes
    return 4 * (inputs + widest)


def keys_of(n_cells: int, *, most: int) -> int:
    """Return what attention looks at in a reference of ``n_cells``: its cells, or ``most`` metacells."""
    return most if n_cells > _WORTH * most else n_cells


@dataclass(frozen=True, kw_only=True)
class StemSettings:
    """Settings of STEM; those by default are the paper's, `of` gives those of a preset.

    Attributes
    ----------
    hidden, middle, latent
        Widths of the encoder's layers (n_genes -> hidden -> middle -> latent).
    n_genes
        Highly variable genes that are used where the panel has more.
    total
        What the totals of counts are brought to before log1p: "median", on each side the median of its own;
        "common", on both that of the cells; or a number, the multiple of the cells' median that both take.
    dropout
        Share of the spots' values that are set to zero in a step, from 0 to below 1; None takes the
        formula that brings both sides to the same sparsity.
    kernel
        Form of the spots' adjacency: "gaussian", "exponential" or "knn".
    sigma
        Width of the Gaussian or exponential kernel, in multiples of the spacing of a batch's spots; None
        takes 0.5 for a slice whose spots fit in a batch, 0.8 for a larger one, of which a batch sees a part.
    kernel_neighbors
        Neighbours of a spot in the "knn" kernel, itself included.
    alpha, beta
        Weights of L_MMD and of L_trans.
    visit
        Weight, relative to L_trans, of the term that has every cell visited by the spots' mapping.
    ramp_start, ramp_end
        Parts of the training between which the weight of L_trans rises from 0 to ``beta``.
    steps
        Steps of training, each over a batch of cells and a batch of spots.
    lr, weight_decay
        Of AdamW.
    halve_at
        Part of the training after which the learning rate is halved.
    batch_cells, batch_spots
        Cells and spots per step at most.
    training_cells, training_spots
        Cells and spots that training draws from at most.
    models
        Encoders, each from its own start; their mappings are averaged geometrically.
    composition
        What a spot is made of: the cells that it is mapped to ("spots", the paper's C^ T), or the mean of
        that and of the cells that are mapped to it ("both").
    location
        Where a cell lies: at the "mean" of the places that it is mapped to (the paper's C Y), or at their
        geometric "median" under flattened weights.
    """

    hidden: int = 512
    middle: int = 256
    latent: int = 128
    n_genes: int = 2000
    total: float | Literal["median", "common"] = "median"
    dropout: float | None = None
    kernel: Kernel = "gaussian"
    sigma: float | None = 0.5
    kernel_neighbors: int = 6
    alpha: float = 0.5
    beta: float = 1.0
    visit: float = 0.0
    ramp_start: float = 0.125
    ramp_end: float = 1.0
    steps: int = 400
    lr: float = 0.002
    weight_decay: float = 0.01
    halve_at: float = 0.5
    batch_cells: int = 1024
    batch_spots: int = 1024
    training_cells: int = 100_000
    training_spots: int = 100_000
    models: int = 1
    composition: Literal["spots", "both"] = "spots"
    location: Literal["mean", "median"] = "mean"

    def __post_init__(self) -> None:
        for name in ("hidden", "middle", "latent", "kernel_neighbors", "models"):
            check_range(name, getattr(self, name), low=1, integer=True)
        for name in ("n_genes", "batch_cells", "batch_spots", "training_cells", "training_spots"):
            check_range(name, getattr(self, name), low=2, integer=True)
        check_range("steps", self.steps, low=0, integer=True)
        if isinstance(self.total, str):
            check_choice("total", self.total, ("median", "common"))
        else:
            check_range("total", self.total, low=1e-6)
        if self.dropout is not None:
            check_range("dropout", self.dropout, low=0, high=0.99)
        for name in ("alpha", "beta", "visit", "weight_decay"):
            check_range(name, getattr(self, name), low=0)
        for name in ("ramp_start", "ramp_end", "halve_at"):
            check_range(name, getattr(self, name), low=0, high=1)
        check_range("lr", self.lr, low=1e-9, high=10)
        if self.sigma is not None:
            check_range("sigma", self.sigma, low=1e-6)
        check_choice("kernel", self.kernel, ("gaussian", "exponential", "knn"))
        check_choice("composition", self.composition, ("spots", "both"))
        check_choice("location", self.location, ("mean", "median"))

    @classmethod
    def from_preset(cls, preset: PlacerPreset) -> StemSettings:
        """Return the settings of a preset: "stem", the published ones, or "auto", cellweft's own.

        Parameters
        ----------
        preset
            Its name.
        """
        if preset == "stem":
            # DEVIATION: the formula's dropout places worse on the paper's own data (docs/stem.md).
            return cls(dropout=0.3)
        return cls(
            total=0.15,
            sigma=None,
            alpha=0.0,
            visit=1.0,
            steps=480,
            batch_cells=512,
            models=3,
            composition="both",
            location="median",
        )

    def override(self, settings: Mapping[str, Any]) -> StemSettings:
        """Return the settings with some of them changed.

        Raises
        ------
        SettingError
            An unknown name, or a value out of its range.
        """
        return _overridden(self, settings, method="STEM")


@dataclass(frozen=True, kw_only=True)
class AttentionSettings:
    """Settings of cellweft's own method, learned attention; the defaults are those of ``preset="auto"``.

    Attributes
    ----------
    temperature
        Of the softmax over reference cells before training, above 0; lower looks at fewer cells.
    detection
        How much the share of its panel genes that a cell detects counts beside the carried pattern, before
        training, in standard deviations.
    hide_least, hide_most
        Part of the panel that a step hides, drawn between these: 0 to 1.
    steps, lr
        Steps of training, and the largest learning rate; it rises over 20 steps and falls to 0 by a cosine.
    pull
        How strongly the learned maps are held to where they start, the identity.
    batch_cells, batch_reference
        Spatial and reference cells per step.
    most_inputs
        Panel genes that cells are compared by at most: the most variable.
    training_cells
        Spatial cells that training draws from at most.
    most_keys
        A reference of more than four times as many cells is condensed to so many metacells, once trained.
    precision
        Of the products of cells' embeddings while predicting: "float32", or "bfloat16", which is faster on
        processors and GPUs that have instructions for it.
    level_steps, level_lr, level_hidden
        Steps, learning rate and width of the networks that give a gene its level.
    level_pattern
        Weight of 1 - Pearson beside the squared error in their loss.
    level_pull
        How strongly they are held to the level that the gene has in the reference.
    folds
        Parts of the panel; each is predicted without it, which levels, reliability and intervals are
        learned from. Fewer than 2 genes per fold, and there are none of these.
    fold_steps, fold_lr, fold_cells, fold_reference
        Training without a part: as ``steps``, ``lr``, ``batch_cells`` and ``batch_reference``, but shorter.
    """

    temperature: float = 0.125
    detection: float = 0.3
    hide_least: float = 0.05
    hide_most: float = 0.3
    steps: int = 300
    lr: float = 0.002
    pull: float = 0.001
    batch_cells: int = 512
    batch_reference: int = 1500
    most_inputs: int = 500
    training_cells: int = 20_000
    most_keys: int = 4000
    precision: Precision = "float32"
    level_steps: int = 300
    level_lr: float = 0.005
    level_hidden: int = 24
    level_pattern: float = 0.3
    level_pull: float = 0.02
    folds: int = 3
    fold_steps: int = 200
    fold_lr: float = 0.003
    fold_cells: int = 256
    fold_reference: int = 1000

    def __post_init__(self) -> None:
        check_range("temperature", self.temperature, low=1e-3, high=1e3)
        for name in ("detection", "pull", "level_pattern", "level_pull"):
            check_range(name, getattr(self, name), low=0)
        check_choice("precision", self.precision, get_args(Precision))
        check_range("hide_least", self.hide_least, low=0, high=1)
        check_range("hide_most", self.hide_most, low=self.hide_least, high=1)
        for name in ("steps", "fold_steps", "level_steps"):
            check_range(name, getattr(self, name), low=0, integer=True)
        for name in ("batch_cells", "batch_reference", "fold_cells", "fold_reference"):
            check_range(name, getattr(self, name), low=2, integer=True)
        for name in ("most_inputs", "training_cells", "folds"):
            check_range(name, getattr(self, name), low=2, integer=True)
        for name in ("level_hidden", "most_keys"):
            check_range(name, getattr(self, name), low=1, integer=True)
        for name in ("lr", "fold_lr", "level_lr"):
            check_range(name, getattr(self, name), low=1e-9, high=10)

    def without_part(self) -> AttentionSettings:
        """Return the settings that training without a part of the panel goes by."""
        return replace(
            self,
            steps=self.fold_steps,
            lr=self.fold_lr,
            batch_cells=self.fold_cells,
            batch_reference=self.fold_reference,
        )

    def override(self, settings: Mapping[str, Any]) -> AttentionSettings:
        """Return the settings with some of them changed.

        Raises
        ------
        SettingError
            An unknown name, or a value out of its range.
        """
        return _overridden(self, settings, method="preset='auto'")


_Settings = TypeVar("_Settings", StImputeSettings, StemSettings, AttentionSettings)


def _overridden(settings: _Settings, changes: Mapping[str, Any], *, method: str) -> _Settings:
    if not isinstance(changes, Mapping):
        got, fix = repr(changes), "Write settings={'k': 20}, say."
        raise SettingError("settings", expected="a mapping from names to values", got=got, fix=fix)
    known = [field.name for field in fields(settings)]
    for name in changes:
        check_known(
            name,
            known,
            arg("settings", key=name),
            expected=f"a setting of {method}",
            got="no such name",
            error=SettingError,
        )
    try:
        return replace(settings, **changes)
    except SettingError as error:
        if error.where not in changes:
            raise
        where = arg("settings", key=error.where)
        raise SettingError(where, expected=error.expected, got=error.got, fix=error.fix) from None
