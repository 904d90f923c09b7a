"""The Imputer: from a pair to the genes that the panel missed, in every spatial cell.

This file contains what all methods share (checks, devices, streaming, results); each method has its own file.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from cellweft._compute import progress_callback, resolve_devices, return_memory
from cellweft._errors import (
    InputError,
    NotFittedError,
    SettingError,
    arg,
    check_choice,
    check_device_name,
    check_flag,
    check_seed,
    checks_kinds,
)
from cellweft._model_folder import FolderModel, ModelFolder
from cellweft._provenance import timed
from cellweft._text import NotebookText
from cellweft._typing import (
    DoubleArray,
    FloatArray,
    IntArray,
    OutputType,
    PanelValues,
    PathLike,
    Preset,
    Progress,
    ProgressOption,
    ResultScale,
    no_progress,
)
from cellweft.data._pair import Labels, Pair, check_not_input, pictures_of
from cellweft.data.io.journal import Journal, kept_until_failure
from cellweft.data.io.keys import RECORD, RELIABILITY
from cellweft.data.io.output_request import OutputRequest, check_cut, check_interval, check_measured
from cellweft.data.io.write import ResultWriter
from cellweft.data.side import gene_table, relative_sizes
from cellweft.genes.embeddings import EmbeddingTable
from cellweft.genes.gene_sets import GeneSetSource, read_gene_sets
from cellweft.genes.interactions import EdgeSource, read_edges
from cellweft.genes.network import read_network
from cellweft.impute.annotation.annotator import annotate_cells
from cellweft.impute.attention import AttentionMethod, SavedAttention
from cellweft.impute.base import FitContext, FittedMethod, ImputerSettings, Method, predict_all
from cellweft.impute.checkpoint import read_checkpoint, write_checkpoint
from cellweft.impute.cluster.client import connect, write_tiles_over
from cellweft.impute.fingerprint import (
    cells_mark,
    check_data,
    data_like,
    data_mark,
    machine_mark,
    network_digests,
    normalised_as,
    reading_of,
    reference_mark,
    saved_marks,
    spatial_mark,
)
from cellweft.impute.panel_blend import check_blend, fit_panel_blend
from cellweft.impute.planning import Plan, make_plan, share_kept
from cellweft.impute.stimpute import SavedStImpute, StImputeMethod
from cellweft.impute.tiling import Imputation, fitted_record, in_tiles_of, similarity_for, write_tiles
from cellweft.impute.training_data import asked_genes, places_of
from cellweft.impute.transfer import transfer_values, values_to_transfer
from cellweft.impute.uncertainty.count_model import check_counts, plain_counts
from cellweft.impute.uncertainty.prediction_intervals import Intervals
from cellweft.nn.config import AttentionSettings

DEFAULT_MEMORY = "4 GB"


@dataclass(kw_only=True, eq=False, repr=False)
class Imputer(NotebookText, FolderModel):
    """Predict genes of a single-cell reference in every cell of a spatial dataset.

    Parameters
    ----------
    preset
        "auto", the default, is cellweft's own method: learned attention, with the level of each
        gene adapted to the spatial platform (docs/auto.md).
        "stimpute" is the published method with its settings.
    settings
        Settings that differ from those of the preset, named as in `cellweft.nn.config.AttentionSettings` or
        `cellweft.nn.config.StImputeSettings`. They are copied.
    embedding
        Protein embeddings of genes for stImpute's gene graph: a table or its path.
    gene_sets
        Gene sets for the gene graph: the path of a GMT file, for example of GO or Reactome, a mapping from
        set to genes, or several of these. Genes in the same sets are connected.
    edges
        Pairs of genes for the gene graph: the path of a text file, for example from STRING, a table, or
        several of these. If you pass more than one of the three, the graph is their union, unless you change
        ``settings["graph"]``, as in "embedding+expression" or "edges".
    reliability
        Whether to learn the reliability of genes and, with "auto", intervals. With "stimpute", this takes as
        long as five more fits.
    seed
        Random seed. The same seed, device and version give the same result, bit for bit, on the CPU.
    device
        "auto", "cpu", "cuda", "cuda:1" or "mps". If you give several, such as "cuda:0,cuda:1", or "all" for
        all GPUs, each trains one network at a time, and the first one predicts. With
        ``impute_to(dask="local")``, all of them predict.

    Attributes
    ----------
    pair_
        The data of `fit` or `attach`.
    fitted_
        The fitted method, or None.
    model_, settings_
        The fitted model of the method, and all settings that were used.
    intervals_
        The fitted distribution of measured values around predictions, or None.
    network_
        Edge types of stImpute's gene graph: for each, its weight, its source, and how many reference genes it
        covers. For the other genes, expression is used. Empty for "auto".

    Notes
    -----
    You may assign any parameter after construction, and change settings in place. The next `fit` or `plan`
    validates and uses them; until then, the fitted model does not change. A fitted or loaded Imputer contains
    everything it needs from the embedding, gene sets and edges; only `fit` reads these files.

    Examples
    --------
    >>> import cellweft
    >>> tissue = cellweft.datasets.simulate_tissue(n_spatial=80, n_reference=80, n_genes=24, n_panel=12)
    >>> imputer = cellweft.Imputer(settings={"steps": 5, "level_steps": 5}, reliability=False)
    >>> imputed = imputer.fit(cellweft.pair(tissue.sc, tissue.st)).impute(["Gene03", "Gene07"])
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
        self._method = self._chosen()
        self.settings = dict(self.settings)
        self.pair_: Pair | None = None
        self.fitted_: FittedMethod | None = None
        self.model_: Any = None
        self.settings_: ImputerSettings | None = None
        self.intervals_: Intervals | None = None
        self.network_: dict[str, dict[str, Any]] | None = None
        self._restored: ModelFolder | None = None
        self._fit_seconds = 0.0

    def __repr__(self) -> str:
        state = "not fitted" if self._restored is None else "loaded, without data"
        if self.fitted_ is not None and self.pair_ is not None:
            state = f"fitted to {self.pair_!r}"
        arguments = self._sources | {"settings": dict(self.settings) or None}
        said = "".join(f"{name}={value!r}, " for name, value in arguments.items() if value is not None)
        said += "" if self.reliability else "reliability=False, "
        return f"Imputer(preset={self.preset!r}, seed={self.seed}, {said}{state})"

    def _details(self) -> str:
        rows: dict[str, Any] = {"device": self.device, "reliability": self.reliability}
        rows |= {f"settings: {name}": value for name, value in self.settings.items()}
        if self.fitted_ is not None:
            rows |= {f"network: {name}": part["source"] for name, part in (self.network_ or {}).items()}
            rows |= {"intervals": self.intervals_ is not None, "seconds of fit": self._fit_seconds}
        return "\n".join(f"{name:<24} {value}" for name, value in rows.items())

    @checks_kinds
    def fit(self, pair: Pair, *, checkpoint: PathLike | None = None, progress: ProgressOption = True) -> Self:
        """Learn from a pair.

        Parameters
        ----------
        pair
            The data to learn from.
        checkpoint
            Folder in which to keep the fit; created if it is missing. If it contains a matching fit, that fit
            is loaded instead of training again. A fit matches if the values of both inputs, protein
            embeddings, gene sets, edges, settings, seed, versions and number of threads are the same. To
            compare the values, the data are read once more.
        progress
            True shows a bar in terminals and notebooks, False shows nothing; a callback is called with
            (stage, done, total) during training.

        Raises
        ------
        SettingError
            k is larger than the number of reference cells.
        MissingFileError, FormatError, InputError
            The embedding table, gene sets or edges are unreadable.
        GeneError
            One of them contains no gene of the reference.
        OutputExistsError, OutputError
            The checkpoint folder contains other files, or is not writable.
        """
        return_memory()  # used to read the files
        method, devices = self._chosen(), resolve_devices(self.device)
        start = time.monotonic()
        request = {} if checkpoint is None else self._request(pair)
        fitted: FittedMethod | None = None
        if checkpoint is not None:
            fitted = read_checkpoint(
                checkpoint, request, lambda folder: method.restore(folder, pair, devices[0])
            )
        if fitted is None:
            with progress_callback(progress) as report:
                work = FitContext(
                    seed=int(self.seed), devices=devices, reliability=bool(self.reliability), progress=report
                )
                fitted = method.fit(pair, work)
            if checkpoint is not None:
                write_checkpoint(checkpoint, request, _folder_of(fitted, pair))
        self._method, self._restored = method, None
        self._fit_seconds = round(time.monotonic() - start, 3)
        return self._keep(fitted, pair)

    @checks_kinds
    def plan(
        self,
        genes: Iterable[str] | None = None,
        *,
        pair: Pair | None = None,
        memory: str | int = DEFAULT_MEMORY,
        interval: float | None = None,
        scale: ResultScale = "log",
        measured: PanelValues = "predict",
        sparse: float | None = None,
        in_memory: bool = False,
    ) -> Plan:
        """Return the plan of a run: blocks, memory and size. Before `fit`, pass the pair.

        Parameters
        ----------
        genes
            Names of genes; by default all genes of the reference.
        pair
            The data; by default those passed to `fit` or `attach`.
        memory
            Budget for the whole process.
        interval
            As in `impute`. Intervals add two matrices of the size of the result.
        scale, measured
            As in `impute`. Counts and blended panel genes take more memory.
        sparse
            As in `impute_to`. The number of values that are kept is estimated from a sample of cells.
        in_memory
            Whether to plan `impute`, which keeps the result in memory, or `impute_to`.

        Raises
        ------
        SettingError
            ``interval`` or ``sparse`` is out of range, or ``sparse`` is used for a result in memory, which is
            dense; an unknown ``scale`` or ``measured``.
        MemoryBudgetError
            The run does not fit in the budget.
        """
        check_cut(sparse)
        check_choice("scale", scale, get_args(ResultScale))
        check_measured(measured, interval)
        if sparse is not None and in_memory:
            raise SettingError(
                "sparse",
                expected="None with in_memory=True, because impute returns dense matrices",
                got=repr(sparse),
                fix="Omit in_memory= for the plan of impute_to, or omit sparse=.",
            )
        method = self._chosen()
        is_of_fit = type(method) is type(self._method) and method.changes == self._method.changes
        pair = self._pair() if pair is None else pair
        positions = asked_genes(pair, genes)
        used = self.settings_ if is_of_fit else None
        plan = make_plan(
            pair,
            len(positions),
            settings=used or method.settings(pair),
            memory=memory,
            interval=interval,
            scale=scale,
            measured=measured,
            in_memory=in_memory,
            network=method.network_bytes,
            trainings=len(resolve_devices(self.device)),
        )
        return plan if sparse is None else plan.sparse(share_kept(pair, positions, sparse))

    @checks_kinds
    def predict(self, genes: Iterable[str], pair: Pair, *, scale: ResultScale = "log") -> FloatArray:
        """Return only the predictions, as an array.

        Parameters
        ----------
        genes
            (n_genes,) names of genes of the reference, one for each column of the result.
        pair
            The pair passed to `fit` or `attach`, or the same pair with other spatial cells.
        scale
            As in `impute`.

        Returns
        -------
        (n_cells, n_genes) log-normalised expression, or mean counts, at least 0.

        Raises
        ------
        GeneError
            A gene is not in the reference.
        SettingError
            An unknown scale.
        ScaleError
            Counts were requested, but the spatial data are not counts.
        """
        fitted = self._fitted()
        check_counts(pair, scale)
        pair = self._data(pair)
        values = predict_all(fitted.prepare, pair, _positions(genes, pair))
        if scale == "log":
            return values
        model = fitted.count_model or plain_counts()
        return model.scaled(values, relative_sizes(pair.st), depth=pair.st.depth)[0]

    @checks_kinds
    def impute(
        self,
        genes: Iterable[str] | None = None,
        *,
        pair: Pair | None = None,
        interval: float | None = None,
        scale: ResultScale = "log",
        measured: PanelValues = "predict",
        memory: str | int = DEFAULT_MEMORY,
        progress: ProgressOption = True,
    ) -> AnnData:
        """Return imputed genes as a new AnnData.

        Parameters
        ----------
        genes
            Names of genes of the reference; all by default.
        pair
            Data to impute; by default those passed to `fit` or `attach`. Counts of another tissue are
            rescaled to the depth of the tissue used for fitting, and results on the scale of counts are
            scaled back.
        interval
            Also return intervals that contain this share of the measured values, 0.01 to 0.999, for example
            0.9; none by default. With 0.9, they contain 87 % of the values above zero, and therefore more
            than 90 % of all values of genes that few cells express. Requires ``preset="auto"`` and
            reliability.
        scale
            "log" for log-normalised expression, or "counts" for the count expected in each cell: the rate of
            the gene times the size of the cell (see `cellweft.impute.uncertainty.count_model`). Intervals are
            on the same scale. Counts require spatial data that are counts.
        measured
            Values of panel genes: "predict" for their predictions, as for any other gene, or "blend" to
            combine measurement and prediction (see `cellweft.impute.panel_blend`). "blend" requires
            ``preset="auto"`` and spatial data that are counts, and gives no intervals.
        memory
            Budget for the whole process, including the result.
        progress
            As in `fit`; a callback is called after each block.

        Returns
        -------
        AnnData
            - ``X``: (n_cells, n_genes) log-normalised expression, or expected counts, float32.
            - ``layers["lower"]``, ``layers["upper"]``: the interval, if requested.
            - ``obs["cellweft_similarity"]``: how similar the reference is to each cell.
            - ``var``, named as in the tissue. ``symbol``, ``gene_id``, ``reference_name``: other names,
              empty if unknown. ``measured``: whether the gene is on the panel. ``reliability``: with "auto"
              the expected Pearson correlation, with its 90 % range in ``reliability_lower`` and
              ``reliability_upper``, and ``reliable``; with "stimpute" the expected cosine; NaN if unknown.
              ``measurement_weight``: for blended genes, 0 to 1.
            - ``obs``, ``obsm["spatial"]`` and ``uns["spatial"]`` (Visium's images): copied from the input.
            - ``uns["cellweft"]``: how the result was made; see `cellweft._provenance.provenance`.

        Raises
        ------
        GeneError
            A gene is not in the reference.
        SettingError, NotFittedError
            An interval is out of range, or the Imputer has not learned intervals; the scale is unknown; the
            method cannot blend.
        ScaleError
            Counts or blended genes were requested, but the spatial data are not counts.
        MemoryBudgetError
            The result does not fit in the budget: use `impute_to`.
        """
        check_interval(interval)
        check_measured(measured, interval)
        start = time.monotonic()
        job = self._job(
            pair, genes, interval=interval, scale=scale, measured=measured, memory=memory, in_memory=True
        )
        record = job.record(fit_seconds=self._fit_seconds)
        shape = job.plan.n_cells, job.plan.n_genes
        matrices = {name: np.empty(shape, dtype=np.float32) for name in (None, *job.layers)}
        with progress_callback(progress) as report:
            for tile, blocks in job.made(report):
                for name, block in blocks.items():
                    matrices[name][tile.rows, tile.places] = block
        values = matrices.pop(None)
        imputed = AnnData(values, obs=job.obs().frame().copy(), var=job.var)
        imputed.obsm.update({name: places.copy() for name, places in places_of(job.pair).items()})
        imputed.layers.update({str(name): matrix for name, matrix in matrices.items()})
        imputed.uns.update({RECORD: timed(record, start), **pictures_of(job.pair)})
        return imputed

    @checks_kinds
    def impute_to(
        self,
        path: PathLike,
        *,
        genes: Iterable[str] | None = None,
        pair: Pair | None = None,
        interval: float | None = None,
        scale: ResultScale = "log",
        measured: PanelValues = "predict",
        memory: str | int = DEFAULT_MEMORY,
        dtype: OutputType = "float32",
        sparse: float | None = None,
        resume: bool = False,
        dask: str | None = None,
        overwrite: bool = False,
        progress: ProgressOption = True,
    ) -> Path:
        """Impute genes and write them to a file in tiles, within a memory budget.

        Parameters
        ----------
        path
            A ``.zarr`` store or an ``.h5ad`` file. It appears only when it is complete.
        genes, pair, interval, scale, measured, memory, progress
            As in `impute`.
        dtype
            Data type of the stored values. "float16" takes half the space and keeps three digits. Counts
            require "float32".
        sparse
            Omit values of ``X`` below this threshold, 0 to 1, for example 0.05, and write ``X`` as a sparse
            matrix (CSR). 0 omits only zeros. By default, ``X`` is dense. Layers are always dense. With
            "float16", values are rounded to float16 but stored as float32, because scipy has no sparse
            float16 matrix.
        resume
            Whether to resume an interrupted run with the same data and options, and to keep what has been
            written if this run fails. Only for zarr stores. The result is the same to the last bit. If there
            is nothing to resume, or the earlier run differs, the run starts from the beginning.
        dask
            Compute on the workers of a Dask scheduler, given its address, for example "tcp://host:8786", or
            on processes of this machine, with "local" or "local:4". By default, everything is computed in
            this process. Only for zarr stores on a disk that all workers share. If all processors are of the
            same type, the result is the same to the last bit.
        overwrite
            Whether to replace an existing output.

        Returns
        -------
        Path
            Path of the output, which contains what `impute` returns. ``uns["cellweft"]["sparse"]`` is the
            threshold, if you used one.

        Raises
        ------
        OutputExistsError, OutputError
            The output exists, or could not be written.
        GeneError, SettingError, ScaleError, NotFittedError, MemoryBudgetError
            As in `impute`.
        MissingExtraError, ServiceError
            Dask is not installed; no scheduler answers, or no workers are left.
        """
        request = OutputRequest(
            path=path,
            overwrite=overwrite,
            dtype=dtype,
            sparse=sparse,
            interval=interval,
            scale=scale,
            measured=measured,
            resume=resume,
            dask=dask,
            memory=memory,
        )
        self._fitted()
        pair = self._pair() if pair is None else pair
        check_not_input(path, pair)
        with progress_callback(progress) as report:
            write_imputation(self, pair, request, genes=genes, progress=report)
        return request.target

    @checks_kinds
    def transfer(
        self,
        values: NDArray[Any] | pd.DataFrame | pd.Series[Any] | None = None,
        *,
        obs: str | Sequence[str] | None = None,
        obsm: str | None = None,
        layer: str | None = None,
        genes: Iterable[str] | None = None,
        pair: Pair | None = None,
        memory: str | int = DEFAULT_MEMORY,
        progress: ProgressOption = True,
    ) -> Any:
        """Transfer values of the reference cells to the spatial cells, as means with the fitted weights.

        Parameters
        ----------
        values
            An array or DataFrame with a row for each reference cell. The index of a pandas object must
            contain the cell names, unless it only numbers the rows. Pass exactly one of ``values``, ``obs``,
            ``obsm`` and ``layer``.
        obs
            A column of the reference's ``obs``, such as a score, or a list of numeric columns.
        obsm
            A key of the reference's ``obsm``, such as an embedding or a table of proteins.
        layer
            A layer of the reference. Its values are averaged without normalisation.
        genes
            Genes of the layer; all by default.
        pair
            Data to transfer to; by default those passed to `fit` or `attach`.
        memory
            Budget for the whole process, including the result.
        progress
            As in `fit`; a callback is called after each block of cells.

        Returns
        -------
        ndarray or DataFrame
            For numbers, an array of shape (n_cells,) or (n_cells, n_columns) if ``values`` is an array or a
            single column; otherwise a DataFrame with a row for each spatial cell. For text, a DataFrame with
            the share of each label; rows sum to 1.

        Raises
        ------
        KeyMissingError, InputError, FormatError
            The column, key or layer does not exist; the number of rows differs from the reference; the values
            contain NaN; the shape of the layer differs; a protein table has negative values.
        SettingError
            None or more than one of ``values``, ``obs``, ``obsm`` and ``layer`` was passed.
        GeneError, NotFittedError, MemoryBudgetError
            As in `impute`.

        Notes
        -----
        Every cell gets a weighted mean over the reference, with the weights that are used to impute genes:
        the softmax weights of attention with "auto", the k neighbours with "stimpute". Levels and the gene
        network are not applied. With "auto", a spatial cell without counts in the panel gets the mean over
        the reference. For the most likely cell type, use `annotate`, which calibrates its probabilities.
        """
        fitted, pair = self._fitted(), self._data(pair)
        source_values = values_to_transfer(pair, values, obs=obs, obsm=obsm, layer=layer, genes=genes)
        with progress_callback(progress) as report:
            carried = transfer_values(fitted, pair, source_values, memory=memory, progress=report)
        return source_values.table(carried, pair.st.obs_names)

    @checks_kinds
    def annotate(
        self,
        labels: Labels | Sequence[str] = None,
        *,
        pair: Pair | None = None,
        memory: str | int = DEFAULT_MEMORY,
        progress: ProgressOption = True,
    ) -> pd.DataFrame:
        """Assign a cell type from the reference to every spatial cell.

        Parameters
        ----------
        labels
            A column of the reference's ``obs``, such as "cell_type"; a list of several, such as ["class",
            "subclass"], whose labels are then consistent; an array with a label for each reference cell; or
            None for the labels of the pair. Reference cells without a label are not used, nor are those
            labelled "unknown", "unassigned", "undefined", "NA" and the like, in upper or lower case.
        pair
            Data to annotate; by default those passed to `fit` or `attach`.
        memory
            Budget for the whole process, including the result.
        progress
            As in `fit`; a callback is called after each block of cells and each part of the calibration.

        Returns
        -------
        DataFrame
            One row per spatial cell. ``label``: the most probable label, never "unknown". ``confidence``: its
            calibrated probability, 0 to 1. ``unknown``: whether the type of the cell seems to be missing from
            the reference, or the cell has no counts in the panel. ``probability_NAME``: the probability of
            each label; rows sum to 1. With several columns, these names have the column and ``_`` as a
            prefix; the column with the fewest labels is assigned first, and the others are consistent with
            it. ``attrs["cellweft"]`` records how the table was made (see `cellweft._provenance.provenance`)
            and, for each column under ``labels``, how well the confidence agreed with the truth in held-out
            cells (``calibration_error``, and ``calibration`` for `cellweft.pl.label_calibration`) and the
            number of reference cells with each label (``reference_cells``).

        Raises
        ------
        KeyMissingError, InputError
            The column does not exist; there are no labels; all cells have the same label.
        NotFittedError, MemoryBudgetError
            As in `impute`.

        Notes
        -----
        Probabilities are the geometric mean of two estimates: the share of each label in the weights that the
        cell gives to the reference, rescaled (vector scaling, Guo et al. 2017), and logistic regression in
        the shared embedding. They are calibrated on held-out reference cells that are adapted to the panel,
        the gene levels and the depth of the tissue; see docs/labels.md. Unknown cells are detected by a model
        that is trained on the same cells, leaving one label at a time out of the reference. Similar
        cells are grouped by about 30. A group is marked as unknown if more than 30 % of its cells look
        unknown, and if this share is more than 2.5 times that of the whole tissue.
        """
        start, fitted, pair = time.monotonic(), self._fitted(), self._data(pair)
        with progress_callback(progress) as report:
            table = annotate_cells(fitted, pair, labels, memory=memory, progress=report)
        record = fitted_record("labels", fitted, pair, fit_seconds=self._fit_seconds)
        table.attrs[RECORD] = timed(record, start) | table.attrs[RECORD]
        return table

    @checks_kinds
    def reliability_of(self, genes: Iterable[str], *, judged: FloatArray | None = None) -> DoubleArray:
        """Return the reliability of genes.

        Parameters
        ----------
        genes
            (n_genes,) names of genes of the reference.
        judged
            (n_cells, n_genes) predictions to evaluate instead of the Imputer's own, in all cells of `pair_`.

        Returns
        -------
        (n_genes,) the expected correlation of prediction and measurement: Pearson with "auto", cosine
        similarity with "stimpute". NaN if the Imputer has no reliability, or the panel was too small for it.

        Raises
        ------
        GeneError
            A gene is not in the reference.
        InputError
            ``judged`` has another shape.

        Notes
        -----
        A panel gene gets the score of the prediction that was made without it. "stimpute": Eq. 13 of the
        paper.
        """
        fitted, pair = self._fitted(), self._pair()
        places = _positions(genes, pair)
        shape = (pair.st.n_cells, len(places))
        judged = None if judged is None else np.asarray(judged)
        if judged is not None and judged.shape != shape:
            raise InputError(
                "judged",
                expected=f"{shape[0]} cells x {shape[1]} genes",
                got=f"an array of shape {judged.shape}",
                fix="Pass the predictions of these genes in all cells of the pair.",
            )
        scores = fitted.score_reliability(places, pair=pair, judged=judged)[RELIABILITY]
        return np.asarray(scores.to_numpy(), dtype=np.float64)

    @checks_kinds
    def attach(self, pair: Pair) -> Self:
        """Set the data of a loaded Imputer, or other spatial data with the same reference.

        Parameters
        ----------
        pair
            A pair with the reference that the model was fitted to, and spatial data with the same panel.

        Raises
        ------
        InputError
            The reference differs from that of the fit, for example in its genes.
        GeneError
            The panel lacks genes of the model.

        Notes
        -----
        Nothing is learned, and no files are read except those of the pair: the model contains the embedding,
        gene sets and edges that it was fitted with.
        """
        folder = self._folder() if self._restored is None else self._restored
        panel = np.asarray(folder.genes["gene"].astype(str).tolist())
        pair, (spatial, cells) = pair.panel(panel), saved_marks(folder.config)
        check_data(
            pair,
            panel=panel,
            reference=folder.config["reference"],
            cells=cells,
            reading=folder.config.get("reading"),
        )
        pair = normalised_as(pair, spatial)
        return self._keep(self._method.restore(folder, pair, resolve_devices(self.device)[0]), pair)

    @classmethod
    def restore(cls, folder: ModelFolder, *, device: str = "auto") -> Self:
        """Return a saved Imputer, without data until you call `attach`. See `cellweft.load`."""
        config = folder.config
        check_choice("preset", config["preset"], ("auto", "stimpute"))
        check_seed(config["seed"])
        saved_marks(config)
        saved = SavedAttention.of(folder) if config["preset"] == "auto" else SavedStImpute.of(folder)
        imputer = cls(
            preset=config["preset"],
            settings=config["settings"],
            reliability=saved.reliability is not None,
            seed=config["seed"],
            device=device,
            **({} if isinstance(saved, SavedAttention) else vars(saved.network)),
        )
        imputer._restored, imputer._fit_seconds = folder, float(config.get("fit_seconds", 0.0))
        return imputer

    def _chosen(self) -> Method:
        """Return the method, after checking the hyper-parameters, which may have been assigned."""
        check_choice("preset", self.preset, get_args(Preset))
        check_seed(self.seed)
        check_device_name(self.device)
        check_flag("reliability", self.reliability)
        if isinstance(self.gene_sets, Mapping):
            self.gene_sets = read_gene_sets(self.gene_sets)
        if isinstance(self.edges, pd.DataFrame):
            self.edges = read_edges(self.edges)
        sources = self._sources
        if self.preset == "stimpute":
            chosen = StImputeMethod(changes=self.settings, sources=sources)
            chosen.check()
            return replace(chosen, changes=dict(self.settings))
        AttentionSettings().override(self.settings)
        for name, source in sources.items():
            if source is not None:
                raise SettingError(
                    name,
                    expected="a preset with a gene graph",
                    got=arg("preset", self.preset)
                    + ", which has none, because no gene graph improved its accuracy",
                    fix="Use " + arg("preset", "stimpute") + ", or leave " + arg(name) + " out.",
                )
        return AttentionMethod(changes=dict(self.settings))

    @property
    def _sources(self) -> dict[str, Any]:
        """Inputs of the gene relations, by the name of the parameter."""
        return {"embedding": self.embedding, "gene_sets": self.gene_sets, "edges": self.edges}

    def _keep(self, fitted: FittedMethod, pair: Pair) -> Self:
        self.fitted_, self.pair_ = fitted, pair
        self.model_, self.settings_ = fitted.model, fitted.settings
        self.intervals_, self.network_ = fitted.intervals, fitted.network
        return_memory()  # used by the training
        return self

    def _folder(self) -> ModelFolder:
        return _folder_of(self._fitted(), self._pair(), fit_seconds=self._fit_seconds)

    def _fitted(self) -> FittedMethod:
        if self.fitted_ is None:
            is_loaded = self._restored is not None
            raise NotFittedError(
                "Imputer",
                expected="a fitted Imputer",
                got="a loaded one without data" if is_loaded else "an unfitted one",
                fix="Call attach(pair) first." if is_loaded else "Call fit(pair) first.",
            )
        return self.fitted_

    def _pair(self) -> Pair:
        if self.pair_ is None:
            raise NotFittedError(
                "Imputer",
                expected="a fitted Imputer",
                got="an Imputer without data",
                fix="Call fit(pair) first.",
            )
        return self.pair_

    def _request(self, pair: Pair) -> dict[str, Any]:
        """Return all that a fit to a pair depends on, by name, as values that JSON can store."""
        sources = self._sources
        return {
            "preset": self.preset,
            "settings": {name: str(value) for name, value in self.settings.items()},
            "network": network_digests(read_network(sources, **sources)),
            "reliability": self.reliability,
            "seed": int(self.seed),
            "device": self.device,
            **machine_mark(),
            **data_mark(pair),
        }

    def _data(self, pair: Pair | None) -> Pair:
        return data_like(self._pair(), pair)

    def _job(
        self,
        pair: Pair | None,
        genes: Iterable[str] | None,
        *,
        interval: float | None,
        scale: ResultScale = "log",
        measured: PanelValues = "predict",
        memory: str | int,
        in_memory: bool = False,
    ) -> Imputation:
        fitted = self._fitted()
        check_counts(self._pair() if pair is None else pair, scale)
        pair = self._data(pair)
        positions = asked_genes(pair, genes)
        plan = make_plan(
            pair,
            len(positions),
            settings=fitted.settings,
            memory=memory,
            interval=interval,
            scale=scale,
            measured=measured,
            in_memory=in_memory,
            network=self._method.network_bytes,
        )
        blend = None
        if measured == "blend":
            check_blend(pair)
            blend = fit_panel_blend(fitted, self._pair())
        return Imputation(
            fitted=fitted,
            pair=pair,
            known=self._pair(),
            genes=positions,
            plan=plan,
            interval=interval,
            similarity=similarity_for(fitted, pair, interval),
            scale=scale,
            blend=blend,
        )


def _positions(genes: Iterable[str], pair: Pair) -> IntArray:
    """Return positions of named genes in the reference, in the requested order."""
    return pair.find_genes([genes] if isinstance(genes, str) else genes)


def _folder_of(fitted: FittedMethod, pair: Pair, *, fit_seconds: float = 0.0) -> ModelFolder:
    """Return the contents of the model folder for a fit to a pair."""
    folder = fitted.folder(pair)
    folder.config.update(
        kind="imputer",
        preset=fitted.preset,
        seed=fitted.seed,
        reference=reference_mark(pair),
        reference_cells=cells_mark(pair),
        reading=reading_of(pair),
        spatial=spatial_mark(pair),
        fit_seconds=fit_seconds,
    )
    return folder


def write_imputation(
    imputer: Imputer,
    pair: Pair,
    request: OutputRequest,
    *,
    genes: Iterable[str] | None = None,
    spillover: DoubleArray | None = None,
    progress: Progress = no_progress,
) -> Imputation:
    """Write imputed genes for a request that was already checked.

    Parameters
    ----------
    imputer
        A fitted Imputer.
    pair, genes, progress
        As in `Imputer.impute_to`.
    request
        Path and options of the output.
    spillover
        (n_cells,) additional column for the cells, ``obs["cellweft_spillover"]``.

    Returns
    -------
    The imputation.
    """
    target, resume, start = request.target, request.resume, time.monotonic()
    with kept_until_failure(target, resume=resume):
        job = imputer._job(
            pair,
            genes,
            interval=request.interval,
            scale=request.scale,
            measured=request.measured,
            memory=request.memory,
        )
        job = replace(job, spillover=spillover)
        job = in_tiles_of(job, target) if resume else job
        cut = None if request.sparse is None else float(request.sparse)
        journal = None
        if target.suffix == ".zarr":
            journal = Journal(target, job.mark(dtype=request.dtype, sparse=cut), resume=resume)
        goes_on = journal is not None and journal.is_started  # with the written table of genes
        record = job.record(fit_seconds=imputer._fit_seconds) | ({} if cut is None else {"sparse": cut})
        writer = ResultWriter(
            target,
            obs=job.obs(),
            var=gene_table(job.pair.sc, job.genes) if goes_on else job.var,
            obsm=places_of(job.pair),
            uns={RECORD: record, **pictures_of(job.pair)},
            at_end=lambda: {f"uns/{RECORD}/duration": timed(record, start)["duration"]},
            layers=job.layers,
            dtype=request.dtype,
            sparse=cut,
            overwrite=request.overwrite,
            chunk=job.plan.chunk,
            shard=job.plan.shard,
            journal=journal,
            progress=progress,
        )
        if request.dask is None or journal is None:
            write_tiles(job, writer, journal, progress=progress)
            return job
        devices = [str(device) for device in resolve_devices(imputer.device)]
        several = devices if len(devices) > 1 else ()
        with connect(
            request.dask, memory=request.memory, device=job.fitted.device, devices=several
        ) as cluster:
            write_tiles_over(job, writer, journal, cluster=cluster, progress=progress)
    return job
