"""Settings of the methods: plain values, checked on creation, without torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Self, get_args

from cellweft._errors import SettingError, arg, check_choice, check_flag, check_known, check_range
from cellweft._typing import GraphKind, Kernel, PlacerPreset, RelationKind

Measure = Literal["similarity", "distance"]
Sources = Literal["auto", "all", "panel"]
NeighborScale = Literal["panel", "none"]
SimilarityMean = Literal["overall", "gene", "each", "profile"]
Search = Literal["auto", "exact", "approximate"]
Precision = Literal["float32", "bfloat16"]
Composition = Literal["spots", "both"]
SliceGenes = Literal["union", "common"]
Location = Literal["mean", "median"]

SAMPLE_CELLS = 2000
"""Largest number of tissue cells over which learned attention standardises and evaluates genes."""

_WORTH = 4  # metacells are used only if they are this many times fewer than cells

_RELATIONS: tuple[RelationKind, ...] = get_args(RelationKind)
_LACKING = {"embedding": "an embedding table", "gene_sets": "gene sets", "edges": "a list of edges"}


def _number(default: float | None, *, low: float, high: float = float("inf"), optional: bool = False) -> Any:
    """Return a field that is a number within a range, or None if it is optional."""
    return field(default=default, metadata={"range": {"low": low, "high": high}, "optional": optional})


def _whole(default: int | None, *, low: int, optional: bool = False) -> Any:
    """Return a field that is a whole number, or None if it is optional."""
    return field(default=default, metadata={"range": {"low": low, "integer": True}, "optional": optional})


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """Settings that check their own values."""

    _method: ClassVar[str]

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if "options" in setting.metadata:
                check_choice(setting.name, value, setting.metadata["options"])
            elif "range" in setting.metadata and not (value is None and setting.metadata["optional"]):
                check_range(setting.name, value, **setting.metadata["range"])
            elif isinstance(setting.default, bool):
                check_flag(setting.name, value)

    def override(self, settings: Mapping[str, Any]) -> Self:
        """Return the settings with some of them changed.

        Raises
        ------
        SettingError
            An unknown name, or a value out of range.
        """
        unchecked: Any = settings  # users may pass anything
        if not isinstance(unchecked, Mapping):
            got, fix = repr(unchecked), "For example settings={'k': 20}."
            raise SettingError("settings", expected="a mapping from names to values", got=got, fix=fix)
        names, expected = [setting.name for setting in fields(self)], f"a setting of {self._method}"
        for name in settings:
            where = arg("settings", key=name)
            check_known(name, names, where, expected=expected, got="no such name", error=SettingError)
        try:
            return replace(self, **settings)
        except SettingError as error:
            if error.where not in settings:
                raise
            where = arg("settings", key=error.where)
            raise SettingError(where, expected=error.expected, got=error.got, fix=error.fix) from None


@dataclass(frozen=True, kw_only=True)
class StImputeSettings(_Settings):
    """Settings of stImpute; `published` returns the paper's settings for a number of cells.

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
        Number of times that neighbours are found and the gene network is trained.
    alpha
        Weight of the gene network against the mean of the neighbours (Eq. 12), 0 to 1.
    neighbor_scale
        "panel" multiplies the mean of the neighbours in Eq. 12 by the factor that fits it best to the
        measured panel (least squares over the training cells); "none" leaves it on the reference's scale.
    lr
        Learning rate of both networks.
    residual, cell_similarity, gene_similarity
        Weights of the three terms of Eq. 10.
    similarity_mean
        What L_sim subtracts from prediction and measurement before it computes cosines (Eq. 10): from both,
        the mean of all measured values ("overall") or of each measured gene ("gene"); from each side, its own
        overall mean ("each"), as in the authors' release; or from each cell and gene of each side, its own
        mean ("profile"), which makes the cosines correlations.
    graph
        Source of the gene-gene weights: "embedding", "expression", "gene_sets", "edges", or several of them,
        such as "embedding+expression", or with weights, such as "embedding:2+expression". "auto" uses those
        of embedding, gene_sets and edges that are given, otherwise expression; "none" uses no graph.
    measure
        Cosine "similarity" (the paper) or "distance" (its release); gene sets and edges have no distance.
    graph_neighbors
        Number of largest weights to keep per gene and relation; all by default.
    sources
        Genes that send messages: "all" genes of the reference, or the "panel"; "auto" uses all if there are
        at most `most_sources`.
    most_sources
        Largest number of genes with which "auto" uses all as sources.
    normalise
        Whether node features are scaled to unit length after each GraphSAGE layer.
    batch, ae_batch
        Cells per step of the gene network and of the autoencoder.
    batch_genes
        Largest number of panel genes per step of the gene network; each step draws new ones.
    batch_sources
        Largest number of source genes per step, also drawn anew in each step.
    cells_per_epoch
        Largest number of cells per epoch of the gene network, drawn again for each epoch; by default, one
        batch.
    training_cells
        Largest number of spatial cells used for training.
    search
        How neighbours are found: "exact", by blocks; "approximate", with a faiss index that searches a part
        of the reference (extra ``index``); "auto" is exact for up to 100,000 reference cells, and approximate
        beyond if faiss is installed.
    patience
        Training stops after this many epochs without a lower loss on a validation set, a tenth of the cells.
        0, as published, trains on all cells for all epochs.
    """

    _method: ClassVar[str] = "stImpute"
    k: int = _whole(50, low=1)
    latent: int = _whole(100, low=1)
    hidden: int = _whole(50, low=1)
    epochs: int = _whole(10, low=0)
    ae_epochs: int = _whole(30, low=0)
    rounds: int = _whole(2, low=1)
    alpha: float = _number(0.7, low=0, high=1)
    neighbor_scale: NeighborScale = field(default="panel", metadata={"options": get_args(NeighborScale)})
    lr: float = _number(0.01, low=1e-9, high=10)
    residual: float = _number(1.0, low=0)
    cell_similarity: float = _number(1.0, low=0)
    gene_similarity: float = _number(1.0, low=0)
    similarity_mean: SimilarityMean = field(default="overall", metadata={"options": get_args(SimilarityMean)})
    graph: GraphKind = "auto"
    measure: Measure = field(default="similarity", metadata={"options": get_args(Measure)})
    graph_neighbors: int | None = _whole(None, low=1, optional=True)
    sources: Sources = field(default="auto", metadata={"options": get_args(Sources)})
    most_sources: int = _whole(1000, low=1)
    normalise: bool = True
    batch: int = _whole(640, low=2)
    batch_genes: int = _whole(32, low=2)
    batch_sources: int = _whole(64, low=1)
    ae_batch: int = _whole(256, low=2)
    cells_per_epoch: int = _whole(640, low=2)
    training_cells: int = _whole(20_000, low=2)
    search: Search = field(default="auto", metadata={"options": get_args(Search)})
    patience: int = _whole(0, low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.graph not in ("auto", "none"):
            _check_measure(_parsed_graph(self.graph), self.measure)

    @classmethod
    def published(cls, n_cells: int) -> StImputeSettings:
        """Return the paper's settings for spatial data of this size ("Implementation Details").

        Parameters
        ----------
        n_cells
            Number of spatial cells; fewer than 10,000 count as a small dataset.

        Notes
        -----
        docs/stimpute.md lists the differences of the authors' release, and how to set them.
        """
        return cls() if n_cells < 10_000 else cls(epochs=32, alpha=0.5)

    def graph_shares(self, given: Collection[str] = ()) -> dict[RelationKind, float]:
        """Return the relations of the gene graph and the share of each; empty for no graph.

        Parameters
        ----------
        given
            The available sources among "embedding", "gene_sets" and "edges".

        Raises
        ------
        SettingError
            ``graph`` names a source that is not given, or ``measure`` is a distance that a source does not
            define.

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
        name = next((relation for relation in _RELATIONS if relation == text), None)
        try:
            value = float(share) if colon else 1.0
        except ValueError:
            value = 0.0
        if name is None or name in shares or not 0 < value < float("inf"):
            raise SettingError(
                "graph",
                expected=(
                    "relations joined by +, each once, optionally with a weight above 0, such as embedding:2"
                ),
                got=repr(graph),
                fix="For example graph='embedding+expression'; 'auto' and 'none' cannot be combined.",
            )
        shares[name] = value
    return shares


def _check_measure(relations: Collection[RelationKind], measure: Measure) -> None:
    without = [name for name in relations if name in ("gene_sets", "edges")]
    if measure == "distance" and without:
        raise SettingError(
            "measure",
            expected=f"'similarity' in a graph of {' and '.join(without)}, which define no distance",
            got="'distance'",
            fix="Leave it out, or use graph='embedding' or 'expression'.",
        )


def bytes_per_cell(settings: StImputeSettings, n_sources: int, n_genes: int) -> float:
    """Return the bytes that `predict_block` needs per cell, for ``n_genes`` genes at once."""
    inputs = 6.0 * settings.k * (n_sources + n_genes)
    widest = (3 * settings.k + 4 * settings.hidden) * n_genes
    return 4 * (inputs + widest)


def keys_of(n_cells: int, *, most: int) -> int:
    """Return the number of keys for a reference of ``n_cells``: its cells, or ``most`` metacells."""
    return most if n_cells > _WORTH * most else n_cells


EVIDENCE_AXES = 256
"""Largest number of dimensions in which placement compares expression directly."""


@dataclass(frozen=True, kw_only=True)
class StemSettings(_Settings):
    """Settings of STEM. The defaults are the paper's; `from_preset` returns those of a preset.

    Attributes
    ----------
    hidden, middle, latent
        Widths of the encoder's layers (n_genes -> hidden -> middle -> latent).
    n_genes
        Number of highly variable genes to use, if the panel has more.
    slice_genes
        Variable genes of several slices: the "union" of the ``n_genes`` of each, as in the paper, or the
        ``n_genes`` that are variable in most slices ("common").
    total
        Target of the normalisation of totals before log1p: "median", each side's own median; "common", the
        median of the cells on both sides; or a number, by which the cells' median is multiplied to give the
        target of both sides.
    dropout
        Share of the spots' values that a step sets to zero, at least 0 and below 1; None uses the formula
        that gives both sides the same sparsity.
    dropout_rescale
        Whether the remaining values are multiplied by 1 / (1 - dropout), as in the paper's dropout layer, so
        that dropout does not change their mean.
    kernel
        Form of the spots' adjacency: "gaussian", "exponential" or "knn".
    sigma
        Width of the Gaussian or exponential kernel, in multiples of the spacing of a batch's spots; None is
        0.5 for a slice that fits in a batch, and 0.8 for a larger slice, which a batch samples.
    kernel_neighbors
        Neighbours of a spot in the "knn" kernel, itself included.
    alpha, beta
        Weights of L_MMD and of L_trans.
    visit
        Weight, relative to L_trans, of the term that makes the spots' mapping visit each cell.
    ramp_start, ramp_end
        The weight of L_trans rises from 0 to ``beta`` between these fractions of the training.
    steps
        Steps of training, each over a batch of cells and a batch of spots.
    lr, weight_decay
        Learning rate and weight decay of AdamW.
    halve_at
        Fraction of the training after which the learning rate is halved.
    batch_cells, batch_spots
        Largest number of cells and of spots per step.
    training_cells, training_spots
        Largest number of cells and of spots used for training.
    models
        Number of encoders, each with its own initial weights; their mappings are averaged geometrically.
    expression_counts
        Number of counts per cell in the direct comparison of its expression with that of each spot, which is
        added to the encoders; 0 uses the encoders alone, as the paper does.
    composition
        How the composition of a spot is computed: from the cells to which it is mapped ("spots", the paper's
        C^ T), or as the mean of this and of the cells that are mapped to it ("both").
    location
        How the location of a cell is computed: the "mean" of the locations to which it is mapped (the paper's
        C Y), or their geometric "median" with flattened weights.
    """

    _method: ClassVar[str] = "STEM"
    hidden: int = _whole(512, low=1)
    middle: int = _whole(256, low=1)
    latent: int = _whole(128, low=1)
    n_genes: int = _whole(2000, low=2)
    slice_genes: SliceGenes = field(default="union", metadata={"options": get_args(SliceGenes)})
    total: float | Literal["median", "common"] = "median"
    dropout: float | None = _number(None, low=0, high=0.99, optional=True)
    dropout_rescale: bool = True
    kernel: Kernel = field(default="gaussian", metadata={"options": get_args(Kernel)})
    sigma: float | None = _number(0.5, low=1e-6, optional=True)
    kernel_neighbors: int = _whole(6, low=1)
    alpha: float = _number(0.5, low=0)
    beta: float = _number(1.0, low=0)
    visit: float = _number(0.0, low=0)
    ramp_start: float = _number(0.125, low=0, high=1)
    ramp_end: float = _number(1.0, low=0, high=1)
    steps: int = _whole(400, low=0)
    lr: float = _number(0.002, low=1e-9, high=10)
    weight_decay: float = _number(0.01, low=0)
    halve_at: float = _number(0.5, low=0, high=1)
    batch_cells: int = _whole(1024, low=2)
    batch_spots: int = _whole(1024, low=2)
    training_cells: int = _whole(100_000, low=2)
    training_spots: int = _whole(100_000, low=2)
    models: int = _whole(1, low=1)
    expression_counts: float = _number(0.0, low=0)
    composition: Composition = field(default="spots", metadata={"options": get_args(Composition)})
    location: Location = field(default="mean", metadata={"options": get_args(Location)})

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.total, str):
            check_choice("total", self.total, ("median", "common"))
        else:
            check_range("total", self.total, low=1e-6)

    @classmethod
    def from_preset(cls, preset: PlacerPreset) -> StemSettings:
        """Return the settings of a preset: "stem" for the published ones, "auto" for cellweft's own.

        Parameters
        ----------
        preset
            Its name.
        """
        if preset == "stem":
            return cls()
        return cls(
            slice_genes="common",
            total=0.15,
            dropout_rescale=False,  # DEVIATION: the settings were chosen without it (docs/stem.md)
            sigma=None,
            alpha=0.0,
            visit=1.0,
            steps=480,
            batch_cells=512,
            models=3,
            expression_counts=8.0,
            composition="both",
            location="median",
        )


@dataclass(frozen=True, kw_only=True)
class AttentionSettings(_Settings):
    """Settings of cellweft's own method, learned attention; the defaults are those of ``preset="auto"``.

    Attributes
    ----------
    temperature
        Temperature of the softmax over reference cells before training, above 0; a lower temperature gives
        weight to fewer cells.
    detection
        Weight, before training, of the share of panel genes that a cell detects, relative to the
        attention-weighted mean of the reference, in standard deviations.
    hide_least, hide_most
        Smallest and largest share of the panel that a step hides, 0 to 1.
    steps, lr
        Steps of training, and the largest learning rate, which rises over 20 steps and falls to 0 along a
        cosine.
    pull
        Strength of the penalty that keeps the learned maps near the identity, where they start.
    batch_cells, batch_reference
        Spatial and reference cells per step.
    most_inputs
        Largest number of panel genes used to compare cells: the most variable ones.
    training_cells
        Largest number of spatial cells used for training.
    most_keys
        Number of metacells. A reference with more than four times as many cells is grouped after training.
    precision
        Precision of the products of embeddings during prediction: "float32", or "bfloat16", which is faster
        on processors and GPUs that support it.
    level_steps, level_lr, level_hidden
        Steps, learning rate and width of the networks that predict the level of a gene.
    level_pattern
        Weight of 1 - Pearson relative to the squared error in their loss.
    level_pull
        Strength of the penalty that keeps them near the gene's level in the reference.
    level_cell_genes
        Smallest panel with which a gene's level also depends on the cell: on its detection, and on the
        pattern. In smaller panels, each gene is a large part of a cell's total, and what is learned from
        panel genes does not apply to other genes.
    folds
        Number of parts into which the panel is divided. Each part is predicted without its own genes; levels,
        reliability and intervals are learned from these predictions. With fewer than 2 genes per fold, none
        of these is learned.
    fold_steps, fold_lr, fold_cells, fold_reference
        The same as ``steps``, ``lr``, ``batch_cells`` and ``batch_reference``, for the shorter training
        without a part.
    """

    _method: ClassVar[str] = "preset='auto'"
    temperature: float = _number(0.125, low=1e-3, high=1e3)
    detection: float = _number(0.3, low=0)
    hide_least: float = _number(0.05, low=0, high=1)
    hide_most: float = 0.3
    steps: int = _whole(300, low=0)
    lr: float = _number(0.002, low=1e-9, high=10)
    pull: float = _number(0.001, low=0)
    batch_cells: int = _whole(512, low=2)
    batch_reference: int = _whole(1500, low=2)
    most_inputs: int = _whole(500, low=2)
    training_cells: int = _whole(20_000, low=2)
    most_keys: int = _whole(4000, low=1)
    precision: Precision = field(default="float32", metadata={"options": get_args(Precision)})
    level_steps: int = _whole(300, low=0)
    level_lr: float = _number(0.005, low=1e-9, high=10)
    level_hidden: int = _whole(24, low=1)
    level_pattern: float = _number(0.3, low=0)
    level_pull: float = _number(0.02, low=0)
    level_cell_genes: int = _whole(24, low=0)
    folds: int = _whole(3, low=2)
    fold_steps: int = _whole(200, low=0)
    fold_lr: float = _number(0.003, low=1e-9, high=10)
    fold_cells: int = _whole(256, low=2)
    fold_reference: int = _whole(1000, low=2)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("hide_most", self.hide_most, low=self.hide_least, high=1)

    def without_part(self) -> AttentionSettings:
        """Return the settings for training without a part of the panel."""
        return replace(
            self,
            steps=self.fold_steps,
            lr=self.fold_lr,
            batch_cells=self.fold_cells,
            batch_reference=self.fold_reference,
        )
