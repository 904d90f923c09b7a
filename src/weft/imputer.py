"""The Imputer: from a pair to the genes that the panel missed, in every spatial cell.

It holds the contract (checks, devices, streaming, results); the method is `weft.core.stimpute`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from anndata import AnnData

from weft._compute import resolve_device
from weft._errors import InputError, NotFittedError, SettingError, check_choice
from weft._typing import DoubleArray, FloatArray, IntArray, PathLike, Preset, Progress, silent
from weft.core import stimpute
from weft.core.settings import StImputeSettings
from weft.core.stimpute import StImputeModel
from weft.data.columns import GeneColumns
from weft.data.edges import EdgeSource, read_edges
from weft.data.embeddings import EmbeddingTable
from weft.data.genesets import GeneSetSource, read_gene_sets
from weft.data.network import Network, network_bytes, read_network
from weft.data.pair import Pair, check_not_input
from weft.data.stream import row_blocks
from weft.data.write import ResultWriter, check_output
from weft.plan import Plan, make_plan
from weft.record import provenance
from weft.reliability import Reliability, TissueSample, fit_reliability
from weft.save import SavedImputer, saved_from, write_model
from weft.streaming import (
    Job,
    asked_genes,
    check_data,
    check_k,
    gene_graph,
    gene_relations,
    network_record,
    places_of,
    predict_genes,
    predictions,
    reference_mark,
    train_part,
)

DEFAULT_MEMORY = "4 GB"


@dataclass(kw_only=True, eq=False)
class Imputer:
    """Predict genes of a single-cell reference in every cell of a spatial dataset.

    Parameters
    ----------
    preset
        "stimpute" is the published method with its settings; "auto", the default, is what weft's own
        measurements say is best (until something better is built: stImpute).
    settings
        Settings that differ from the preset's, by the names of `weft.core.settings.StImputeSettings`.
    embedding
        Protein embeddings of genes (a table or its path), which the gene graph is made from.
    gene_sets
        Sets of genes (the path of a GMT file of GO or Reactome, say, a mapping from set to genes, or several
        of these), likewise; genes belong together that share sets.
    edges
        Pairs of genes that belong together (the path of a text file, from STRING say, a table, or several),
        likewise. Where more than one of the three is given, the graph is their union; ``settings["graph"]``
        says otherwise, as "embedding+expression" or "edges".
    reliability
        Whether to learn how far each gene can be trusted; it takes as long as five more fits.
    seed
        Of every random draw: same seed, device and version give the same bits on the CPU.
    device
        "auto", "cpu", "cuda", "cuda:1", "mps".

    Attributes
    ----------
    model_
        What the method learned.
    settings_
        All settings that were used.
    pair_
        The data it was fitted to, or given by `attach`.
    reliability_
        What is known of reliability, or None.
    network_
        Relations that the gene graph is made of: the share of each, where it came from, and how many genes of
        the reference it knows; expression stands in for the others.

    Examples
    --------
    >>> import weft
    >>> tissue = weft.simulate_tissue(n_spatial=80, n_reference=80, n_genes=24, n_panel=12, seed=0)
    >>> imputer = weft.Imputer(settings={"k": 5, "epochs": 1}, reliability=False)
    >>> imputed = imputer.fit(weft.pair(tissue.sc, tissue.st)).impute(["Gene03", "Gene07"])
    >>> imputed.shape
    (80, 2)
    """

    preset: Preset = "auto"
    settings: Mapping[str, Any] = field(default_factory=dict)
    embedding: PathLike | EmbeddingTable | None = None
    gene_sets: GeneSetSource | Sequence[GeneSetSource] | None = None
    edges: EdgeSource | Sequence[EdgeSource] | None = None
    reliability: bool = True
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        check_choice("preset", self.preset, ("auto", "stimpute"))
        if isinstance(self.seed, bool) or not isinstance(self.seed, int | np.integer) or self.seed < 0:
            raise SettingError(
                "seed", expected="a whole number >= 0", got=repr(self.seed), fix="Use seed=0, say."
            )
        self.settings = dict(self.settings)
        if isinstance(self.gene_sets, Mapping):
            self.gene_sets = read_gene_sets(self.gene_sets)
        if isinstance(self.edges, pd.DataFrame):
            self.edges = read_edges(self.edges)
        # so that a wrong name shows before any work, and a graph of what is not given
        StImputeSettings().override(self.settings).graph_shares(self._given())
        self.settings_: StImputeSettings | None = None
        self.model_: StImputeModel | None = None
        self.pair_: Pair | None = None
        self.reliability_: Reliability | None = None
        self.network_: dict[str, dict[str, Any]] | None = None
        self._columns: GeneColumns | None = None
        self._restored: SavedImputer | None = None

    def fit(self, pair: Pair, *, progress: Progress = silent) -> Self:
        """Learn from a pair.

        Parameters
        ----------
        pair
            The data; its panel is what is learned from.
        progress
            Called as training goes on.

        Raises
        ------
        SettingError
            k is larger than the reference.
        MissingFileError, FormatError, InputError
            The embedding table, gene sets or edges cannot be read.
        GeneError
            One of them holds none of the reference's genes.
        """
        settings = self._settings(pair)
        device = resolve_device(self.device)
        network = self._network(settings)
        parts = gene_relations(network, pair.sc.genes, settings=settings)
        columns = GeneColumns.load(pair.sc)
        check_k(settings, columns)

        def train(part: Pair, name: str) -> StImputeModel:
            return train_part(
                part,
                columns,
                graph=gene_graph(part, columns, settings=settings, parts=parts),
                settings=settings,
                seed=self.seed,
                device=device,
                progress=lambda stage, done, total: progress(f"{name}{stage}", done, total),
            )

        self.model_ = train(pair, "")
        self.network_ = network_record(self.model_.graph, network, pair.sc.n_genes)
        self.settings_, self.pair_, self._columns, self._restored = settings, pair, columns, None
        self.reliability_ = None
        if self.reliability:

            def without(part: Pair, genes: IntArray, cells: Pair) -> FloatArray:
                return predict_genes(train(part, "reliability: "), columns, cells, genes=genes)

            self.reliability_ = fit_reliability(pair, columns, without, seed=self.seed, progress=progress)
        return self

    def plan(
        self,
        genes: Iterable[str] | None = None,
        *,
        pair: Pair | None = None,
        memory: str | int = DEFAULT_MEMORY,
    ) -> Plan:
        """Return what an imputation will take; before `fit` too, given the pair.

        Parameters
        ----------
        genes
            Names, or all of the reference by default.
        pair
            The data; by default those it was fitted to.
        memory
            Budget for the whole process.

        Raises
        ------
        MemoryBudgetError
            It does not fit in the budget.
        """
        pair = self._pair() if pair is None else pair
        settings = self.settings_ or self._settings(pair)
        n_genes = len(asked_genes(pair, genes))
        return make_plan(pair, n_genes, settings=settings, memory=memory, network=self._network_bytes())

    def predict(self, genes: IntArray, pair: Pair) -> FloatArray:
        """Return predictions alone.

        Parameters
        ----------
        genes
            (n_genes,) positions in ``pair.sc.genes``.
        pair
            The pair it was fitted to, or the same with other spatial cells.

        Returns
        -------
        (n_cells, n_genes) log-normalised expression, at least 0.
        """
        model, columns = self._fitted()
        self._check(pair)
        return predict_genes(model, columns, pair, genes=genes)

    def impute(
        self,
        genes: Iterable[str] | None = None,
        *,
        pair: Pair | None = None,
        memory: str | int = DEFAULT_MEMORY,
        progress: Progress = silent,
    ) -> AnnData:
        """Return imputed genes as a new AnnData.

        Parameters
        ----------
        genes
            Names of genes of the reference; all by default.
        pair
            Data to impute; by default those it was fitted to.
        memory
            Budget for the whole process, the result included.
        progress
            Called as blocks are done.

        Returns
        -------
        AnnData
            ``X``: (n_cells, n_genes) log-normalised expression, float32. ``var``: ``measured``, whether the
            gene was on the panel, and ``reliability``, NaN where it is not known. ``obs`` and
            ``obsm["spatial"]``: carried over. ``uns["weft"]``: how it was made.

        Raises
        ------
        GeneError
            A gene that the reference does not have.
        MemoryBudgetError
            The result does not fit in the budget: use `impute_to`.
        """
        job = self._job(pair, genes, memory=memory, in_memory=True)
        values = np.empty((job.plan.n_cells, job.plan.n_genes), dtype=np.float32)
        for rows, places, block in predictions(job, progress):
            values[rows, places] = block
        imputed = AnnData(
            values, obs=job.pair.st.obs.copy(), var=self._var(job), uns={"weft": self._record(job)}
        )
        imputed.obsm.update(places_of(job.pair))
        return imputed

    def impute_to(
        self,
        path: PathLike,
        *,
        genes: Iterable[str] | None = None,
        pair: Pair | None = None,
        memory: str | int = DEFAULT_MEMORY,
        overwrite: bool = False,
        progress: Progress = silent,
    ) -> Path:
        """Write imputed genes to a file as they are made, within a memory budget.

        Parameters
        ----------
        path
            A ``.zarr`` store or an ``.h5ad`` file; it is there only once it is complete.
        genes, pair, memory, progress
            As in `impute`.
        overwrite
            Whether an output that is there may be replaced.

        Returns
        -------
        Path
            Where it lies, holding what `impute` returns.

        Raises
        ------
        OutputExistsError, OutputError
            The output is there already, or could not be written.
        GeneError, MemoryBudgetError
            As in `impute`.
        """
        check_output(path, overwrite=overwrite, suffixes=(".zarr", ".h5ad"))
        job = self._job(pair, genes, memory=memory)
        check_not_input(path, job.pair)
        with ResultWriter(
            path,
            obs=job.pair.st.obs,
            var=self._var(job),
            obsm=places_of(job.pair),
            uns={"weft": self._record(job)},
            overwrite=overwrite,
        ) as writer:
            for rows, places, block in predictions(job, progress):
                writer.write(rows, places, block)
        return writer.path

    def reliability_of(self, genes: IntArray, *, judged: FloatArray | None = None) -> DoubleArray:
        """Return how far genes can be trusted.

        Parameters
        ----------
        genes
            (n_genes,) positions in the reference's genes.
        judged
            (n_cells, n_genes) predictions to judge in place of the Imputer's own, in all cells of `pair_`.

        Returns
        -------
        (n_genes,) the expected cosine similarity between prediction and measurement, 0 to 1; NaN where the
        Imputer was made without reliability, or the panel was too small for it.

        Raises
        ------
        InputError
            ``judged`` has another shape.

        Notes
        -----
        Eq. 13 of stImpute. A panel gene gets the score of its prediction made without it, by a net that was
        not trained on it.
        """
        columns = self._fitted()[1]
        pair, known = self._pair(), self.reliability_
        shape = (pair.st.n_cells, len(genes))
        if judged is not None and judged.shape != shape:
            raise InputError(
                "judged",
                expected=f"{shape[0]} cells x {shape[1]} genes",
                got=f"an array of shape {judged.shape}",
                fix="Pass the predictions of these genes in all cells of the pair.",
            )
        if known is None:
            return np.full(len(genes), np.nan)
        names = pair.sc.genes[genes]
        if judged is not None:
            predicted = np.asarray(judged, dtype=np.float32)[known.sample.cells]
            return known.score(predicted, columns.dense(genes), names)
        predicted = self.predict(genes, pair.cells(known.sample.cells))
        scores = known.score(predicted, columns.dense(genes), names)
        return np.array(
            [known.nets.panel_scores.get(str(name), score) for name, score in zip(names, scores, strict=True)]
        )

    def attach(self, pair: Pair) -> Self:
        """Give a loaded Imputer its data, or a fitted one other spatial data: a pair with the same reference.

        Parameters
        ----------
        pair
            With the reference that the model was fitted with, and spatial data with the same panel.

        Raises
        ------
        InputError
            The reference or the panel is another one.
        """
        known = None if self.reliability_ is None else self.reliability_.nets
        if self._restored is None:
            self._fitted()
            self._check(pair)
        else:
            kept, known = self._restored, self._restored.reliability
            pair = pair.panel(kept.panel)
            check_data(pair, panel=kept.panel, reference=kept.reference)
            columns, network = GeneColumns.load(pair.sc), self._network(kept.settings)
            parts = gene_relations(network, pair.sc.genes, settings=kept.settings)
            self.model_ = stimpute.assemble(
                kept.networks,
                columns.dense(pair.sc_shared),
                graph=gene_graph(pair, columns, settings=kept.settings, parts=parts),
                settings=kept.settings,
                device=resolve_device(self.device),
            )
            self.network_ = network_record(self.model_.graph, network, pair.sc.n_genes)
            self.settings_, self._columns = kept.settings, columns
        if known is not None:
            self.reliability_ = Reliability(nets=known, sample=TissueSample.draw(pair, self.seed))
        self.pair_ = pair
        return self

    def save(self, path: PathLike, *, overwrite: bool = False) -> Path:
        """Write the model to a folder, without the data; `weft.load` reads it.

        Parameters
        ----------
        path
            The folder, made anew.
        overwrite
            Whether a model that is there may be replaced.

        Returns
        -------
        Path
            Where it lies.
        """
        saved = saved_from(
            self._fitted()[0], self._pair(), preset=self.preset, seed=self.seed, reliability=self.reliability_
        )
        return write_model(saved, path, overwrite=overwrite)

    @classmethod
    def restore(cls, saved: SavedImputer, *, device: str = "auto") -> Self:
        """Return the Imputer that was saved; it has no data until `attach`. See `weft.load`."""
        imputer = cls(
            preset=saved.preset,
            settings=asdict(saved.settings),
            embedding=saved.network.embedding,
            gene_sets=saved.network.gene_sets,
            edges=saved.network.edges,
            reliability=saved.reliability is not None,
            seed=saved.seed,
            device=device,
        )
        imputer._restored = saved
        return imputer

    def _settings(self, pair: Pair) -> StImputeSettings:
        return StImputeSettings.published(pair.st.n_cells, pair.st.n_genes).override(self.settings)

    def _given(self) -> list[str]:
        """Return what is given besides expression."""
        return [name for name in ("embedding", "gene_sets", "edges") if getattr(self, name) is not None]

    def _network_bytes(self) -> float:
        return network_bytes(self.embedding, self.gene_sets, self.edges)

    def _network(self, settings: StImputeSettings) -> Network:
        """Read what the gene graph uses of what is given."""
        return read_network(
            settings.graph_shares(self._given()),
            embedding=self.embedding,
            gene_sets=self.gene_sets,
            edges=self.edges,
        )

    def _fitted(self) -> tuple[StImputeModel, GeneColumns]:
        if self.model_ is None or self._columns is None:
            is_loaded = self._restored is not None
            raise NotFittedError(
                "Imputer",
                expected="a fitted Imputer",
                got="one that was loaded and has no data yet" if is_loaded else "one that is not",
                fix="Call attach(pair) first." if is_loaded else "Call fit(pair) first.",
            )
        return self.model_, self._columns

    def _pair(self) -> Pair:
        if self.pair_ is None:
            raise NotFittedError(
                "Imputer", expected="a fitted Imputer", got="one without data", fix="Call fit(pair) first."
            )
        return self.pair_

    def _check(self, pair: Pair) -> None:
        known = self._pair()
        if pair is not known:
            check_data(pair, panel=known.shared_genes, reference=reference_mark(known))

    def _job(
        self, pair: Pair | None, genes: Iterable[str] | None, *, memory: str | int, in_memory: bool = False
    ) -> Job:
        model, columns = self._fitted()
        pair = self._pair() if pair is None else pair
        self._check(pair)
        asked = asked_genes(pair, genes)
        plan = make_plan(
            pair,
            len(asked),
            settings=model.settings,
            memory=memory,
            in_memory=in_memory,
            network=self._network_bytes(),
        )
        return Job(model=model, columns=columns, pair=pair, genes=asked, plan=plan)

    def _var(self, job: Job) -> pd.DataFrame:
        var = pd.DataFrame(index=pd.Index(job.pair.sc.genes[job.genes].astype(str)))
        var["measured"] = np.isin(job.genes, job.pair.sc_shared)
        blocks = row_blocks(len(job.genes), job.plan.genes_per_block)
        parts = [self.reliability_of(job.genes[part]) for part in blocks]
        var["reliability"] = np.concatenate([np.empty(0), *parts])
        return var

    def _record(self, job: Job) -> dict[str, Any]:
        record = provenance(
            preset=self.preset,
            settings=job.model.settings,
            seed=self.seed,
            device=str(job.model.device),
            findings=job.pair.findings,
        )
        network = self.network_ or {}
        record["embedding"] = network.get("embedding", {"source": "none"})["source"]
        record["network"] = network
        record["scale"] = "log-normalised: log1p(counts / total * median total), as the reference"
        return record
