"""Settings of the methods: plain values, checked when they are made, free of torch."""

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
"""Tissue cells that learned attention standardises genes over, and judges them by, at most."""

_WORTH = 4  # times fewer metacells than cells, or there are none: what they save is not worth what they cost

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
    """Settings that look at their own values."""

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
        unchecked: Any = settings  # whatever a user passes
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
    """Settings of stImpute; `published` gives the paper's for so many cells.

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
    neighbor_scale
        "panel" multiplies the mean of the neighbours in Eq. 12 by the factor that brings it nearest to the
        measured panel, by least squares over the training cells; "none" leaves it on the reference's scale.
    lr
        Learning rate of both networks.
    residual, cell_similarity, gene_similarity
        Weights of the three terms of Eq. 10.
    similarity_mean
        What L_sim subtracts from prediction and measurement before it takes cosines (Eq. 10): the mean of all
        measured values ("overall") or that of every measured gene ("gene"), the same from both; from each
        side its own overall mean ("each"), as the authors' release; or from every cell and gene of each side
        its own ("profile"), which makes the cosines correlations.
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
        Panel genes per step of the gene network at most, drawn again each time.
    batch_sources
        Source genes per step at most, likewise.
    cells_per_epoch
        Cells that the gene network sees per epoch at most, drawn again each time; by default a single batch.
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
        """Return the paper's settings for spatial data of a size ("Implementation Details").

        Parameters
        ----------
        n_cells
            Cells of the spatial data: under 10,000 is small.

        Notes
        -----
        What the authors' release does otherwise, and how to set it, is in docs/stimpute.md.
        """
        return cls() if n_cells < 10_000 else cls(epochs=32, alpha=0.5)

    def graph_shares(self, given: Collection[str] = ()) -> dict[RelationKind, float]:
        """Return the relations that the gene graph is made of, and how much each counts; none for no graph.

        Parameters
        ----------
        given
            Those of "embedding", "gene_sets" and "edges" that there is something of.

        Raises
        ------
        SettingError
            ``graph`` names what is not given, or takes a distance if there is none.

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
    """Return how much memory a cell of a block takes in `predict_block`, for ``n_genes`` genes at once."""
    inputs = 6.0 * settings.k * (n_sources + n_genes)
    widest = (3 * settings.k + 4 * settings.hidden) * n_genes
    return 4 * (inputs + widest)


def keys_of(n_cells: int, *, most: int) -> int:
    """Return what attention looks at in a reference of ``n_cells``: its cells, or ``most`` metacells."""
    return most if n_cells > _WORTH * most else n_cells


EVIDENCE_AXES = 256
"""Numbers at most of a cell, and of a spot, by which placing compares their expression directly."""


@dataclass(frozen=True, kw_only=True)
class StemSettings(_Settings):
    """Settings of STEM; those by default are the paper's, `of` gives those of a preset.

    Attributes
    ----------
    hidden, middle, latent
        Widths of the encoder's layers (n_genes -> hidden -> middle -> latent).
    n_genes
        Highly variable genes that are used where the panel has more.
    slice_genes
        Those of several slices: the "union" of the ``n_genes`` of each, as the paper, or the ``n_genes`` that
        are variable in most slices ("common").
    total
        What the totals of counts are brought to before log1p: "median", on each side the median of its own;
        "common", on both that of the cells; or a number, the multiple of the cells' median that both take.
    dropout
        Share of the spots' values that are set to zero in a step, from 0 to below 1; None takes the
        formula that brings both sides to the same sparsity.
    dropout_rescale
        Whether the values that are kept are multiplied by 1 / (1 - dropout), as the paper's dropout layer
        does, so that their mean stays what it is without dropout.
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
    expression_counts
        Counts of a cell by which its expression is compared with that of every spot directly, beside the
        encoders; 0 takes the encoders alone, as the paper does.
    composition
        What a spot is made of: the cells that it is mapped to ("spots", the paper's C^ T), or the mean of
        that and of the cells that are mapped to it ("both").
    location
        Where a cell lies: at the "mean" of the places that it is mapped to (the paper's C Y), or at their
        geometric "median" under flattened weights.
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
        """Return the settings of a preset: "stem", the published ones, or "auto", cellweft's own.

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
            dropout_rescale=False,  # DEVIATION: settings were chosen without it (docs/stem.md)
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
    level_cell_genes
        Smallest panel for which a gene's level also depends on the cell: on what it detects, and on the
        pattern. In smaller panels, each gene has much of a cell's total, and what is learned from genes of
        the panel does not hold for others.
    folds
        Parts of the panel; each is predicted without it, which levels, reliability and intervals are
        learned from. Fewer than 2 genes per fold, and there are none of these.
    fold_steps, fold_lr, fold_cells, fold_reference
        Training without a part: as ``steps``, ``lr``, ``batch_cells`` and ``batch_reference``, but shorter.
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
        """Return the settings that training without a part of the panel goes by."""
        return replace(
            self,
            steps=self.fold_steps,
            lr=self.fold_lr,
            batch_cells=self.fold_cells,
            batch_reference=self.fold_reference,
        )
