"""The entry point of cellweft: turns two inputs into one checked `Pair`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from cellweft._errors import (
    GeneError,
    InputError,
    KeyMissingError,
    Message,
    Placeholder,
    arg,
    array_of,
    check_choice,
    checks_kinds,
    positions_of,
    sentence,
)
from cellweft._text import NotebookText, shorten
from cellweft._typing import (
    BoolArray,
    DoubleArray,
    Duplicates,
    IntArray,
    MissingChunks,
    PathLike,
    StoredScale,
)
from cellweft.data.batches import find_reference_batches
from cellweft.data.cautions import cautions_of
from cellweft.data.digest import values_digest
from cellweft.data.gene_names import (
    GeneMatch,
    GeneNames,
    find_names,
    joined_names,
    looks_like_ensembl,
    match_sides,
    names_in,
    only_count,
    own_names,
)
from cellweft.data.hold_out import check_as_measured, cut_tissue, side_counts
from cellweft.data.io.atomic_output import check_apart
from cellweft.data.io.columns import LABEL_KEYS, OBSM_KEYS, SLICE_KEYS, cell_types, column_of, in_order_of
from cellweft.data.io.lazy_input import RAW, Input
from cellweft.data.io.read import open_input
from cellweft.data.io.sanitize import storable_mapping
from cellweft.data.orthologs import by_orthologs, read_orthologs
from cellweft.data.side import CellBatches, Side, names_beside
from cellweft.data.spatial import (
    find_batches,
    find_coordinates,
    find_labels,
    find_slices,
    find_tissue,
    guess_slices,
    sections_in_names,
    spot_spacing,
)
from cellweft.data.summary import CheckResults, findings_of, side_findings, summary_text
from cellweft.data.validation import (
    CheckedSide,
    Genes,
    ReadOptions,
    check_cells,
    check_orientation,
    counts_in,
    gene_names,
    make_side,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair(NotebookText):
    """A reference and a spatial dataset, checked and matched. Returned by `pair`.

    Attributes
    ----------
    sc, st
        The reference and the spatial side.
    shared_genes
        (n_shared,) the panel: genes of both inputs that can be used for training, sorted, with the spelling
        of the spatial data.
    sc_shared, st_shared
        (n_shared,) their positions in ``sc.genes`` and ``st.genes``.
    coordinates
        (n_st, 2 or 3) in the unit of the file, or None.
    slices
        (n_st,) the slice of every spatial cell, or None if there is only one slice.
    labels, st_labels
        (n_sc,) and (n_st,) cell types, "unknown" where missing, or None.
    spacing
        Median distance of a spatial cell to its nearest neighbour in its slice, in the unit of the
        coordinates.
    findings
        The contents of the summary as plain values, suitable for JSON.
    cautions
        Cautions: problems that are not errors.
    blank_cells
        (n_st,) spatial cells without counts in any shared gene. Predictions for them are meaningless.
    """

    sc: Side
    st: Side
    shared_genes: NDArray[np.str_]
    sc_shared: IntArray
    st_shared: IntArray
    coordinates: DoubleArray | None
    slices: NDArray[np.str_] | None
    labels: NDArray[np.str_] | None
    st_labels: NDArray[np.str_] | None
    spacing: float | None
    findings: dict[str, Any]
    cautions: tuple[str, ...]
    blank_cells: BoolArray

    def __repr__(self) -> str:
        return (
            f"Pair({self.sc.n_cells:,} reference cells x {self.sc.n_genes:,} genes, "
            f"{self.st.n_cells:,} spatial cells x {self.st.n_genes:,} genes, "
            f"{len(self.shared_genes):,} shared, cautions: {len(self.cautions)}; see .summary())"
        )

    def _details(self) -> str:
        return self.summary()

    def summary(self) -> str:
        """Return a summary of the inputs as text."""
        return summary_text(self.findings, self.cautions)

    @checks_kinds
    def find_genes(self, names: Iterable[str]) -> IntArray:
        """Return positions of genes in ``sc.genes``, by exact name, ignoring case, or by other spellings.

        Parameters
        ----------
        names
            Names of genes of the reference, as in either input: symbols or IDs.

        Raises
        ------
        GeneError
            A gene is not in the reference.
        """
        return find_names(names, self.sc.genes, where="genes", others=names_beside(self.sc))

    @checks_kinds
    def find_shared(self, names: Iterable[str], *, where: str = "genes") -> IntArray:
        """Return positions of genes in ``shared_genes``, by any of their names, as `find_genes` does.

        Parameters
        ----------
        names
            Names of shared genes.
        where
            How error messages refer to them.

        Raises
        ------
        GeneError
            A gene that is not shared.
        """
        others = [aliases[self.sc_shared] for aliases in names_beside(self.sc)]
        return find_names(names, self.shared_genes, where=where, others=others)

    @checks_kinds
    def panel(self, genes: Iterable[str]) -> Pair:
        """Return the same pair with only some of the shared genes as its panel.

        The normalisation remains that of the whole panel, as in the published protocol for held-out genes. To
        test predictions of measured genes, use `hold_out`, which leaves no trace of them.

        Parameters
        ----------
        genes
            Names of shared genes (symbols or IDs), as in either input, in upper or lower case.

        Raises
        ------
        GeneError
            A gene that is not shared.
        """
        positions = np.unique(self.find_shared(genes, where="panel genes"))
        return dataclasses.replace(
            self,
            shared_genes=self.shared_genes[positions],
            sc_shared=self.sc_shared[positions],
            st_shared=self.st_shared[positions],
            findings=self.findings | {"shared_genes": len(positions)},
        )

    @checks_kinds
    def hold_out(self, genes: Iterable[str]) -> Pair:
        """Return the same pair as if some of the shared genes had never been measured in the tissue.

        Parameters
        ----------
        genes
            Names of shared genes, as in either input, in upper or lower case.

        Returns
        -------
        Pair
            The spatial data contain only the other shared genes, and are normalised by their sum. Scale, cell
            sizes, empty cells and genes are determined again. Labels, ``obs``, ``obsm``, ``uns`` and size
            factors of the spatial data are removed, because they may depend on all genes. Coordinates, slices
            and the reference stay the same.

        Raises
        ------
        GeneError
            A gene is not shared, or fewer than two genes are left.
        InputError
            No cell has counts in the remaining genes, or spill-over was removed from the counts.

        Examples
        --------
        >>> import cellweft
        >>> tissue = cellweft.datasets.simulate_tissue(n_spatial=40, n_reference=40, n_genes=12, n_panel=6)
        >>> whole = cellweft.pair(tissue.sc, tissue.st)
        >>> part = whole.hold_out(whole.shared_genes[:2])
        >>> part.st.n_genes, bool((part.st.totals <= whole.st.totals).all())
        (4, True)
        """
        check_as_measured(self.findings)
        held = np.unique(self.find_shared(genes))
        rest = np.delete(np.arange(len(self.shared_genes)), held)
        if len(rest) < 2:
            raise GeneError(
                "genes",
                expected=f"genes that leave at least 2 of the {len(self.shared_genes)} shared genes",
                got=f"{len(held)}, which leave {len(rest)}",
                fix="Hold out fewer genes.",
            )
        about = self.findings["spatial"]
        side = cut_tissue(self.st, self.st_shared[rest], detect_scale=about["scale_detected"])
        findings = {"spatial": about | side_counts(side), "shared_genes": len(rest), "genes_only_spatial": []}
        findings["genes_to_impute"] = self.sc.n_genes - len(rest)
        return dataclasses.replace(
            self,
            st=side,
            shared_genes=self.shared_genes[rest],
            sc_shared=self.sc_shared[rest],
            st_shared=np.arange(len(rest)),
            st_labels=None,
            findings=self.findings | findings,
        )

    def cells(self, cells: IntArray) -> Pair:
        """Return the same pair with some of the spatial cells, in the given order.

        Parameters
        ----------
        cells
            (n_kept,) positions of spatial cells, or (n_st,) booleans.
        """
        positions = positions_of("cells", cells, self.st.n_cells, what="cell")
        side = self.st.subset(positions)
        counted = {"cells": side.n_cells, "empty_cells": int(side.empty_cells.sum())}
        return dataclasses.replace(
            self,
            st=side,
            coordinates=None if self.coordinates is None else self.coordinates[positions],
            slices=None if self.slices is None else self.slices[positions],
            st_labels=None if self.st_labels is None else self.st_labels[positions],
            blank_cells=self.blank_cells[positions],
            findings=self.findings | {"spatial": self.findings["spatial"] | counted},
        )

    @checks_kinds
    def with_reference(
        self,
        sc: AnnData | PathLike,
        *,
        labels: str | None = None,
        sc_layer: str | None = None,
        sc_sample: str | None = None,
        size_factor: str | None = None,
        reference_batch: str | None = None,
        sc_gene_column: str | None = None,
        sc_scale: StoredScale | None = None,
        duplicates: Duplicates = "error",
        orthologs: PathLike | None = None,
        missing_chunks: MissingChunks = "error",
    ) -> Pair:
        """Return a pair with the same spots and panel, and with other cells as the reference.

        Parameters
        ----------
        sc
            The cells, in any form that `cellweft.pair` accepts, with all genes of the pair's panel.
        labels, sc_layer, sc_sample, size_factor, reference_batch, sc_gene_column, sc_scale
            As in `cellweft.pair`.
        duplicates, orthologs, missing_chunks
            As in `cellweft.pair`.

        Raises
        ------
        GeneError
            The cells lack genes of the panel.
        MissingFileError, FormatError, KeyMissingError, InputError, ScaleError
            As in `cellweft.pair`.

        Examples
        --------
        >>> import cellweft
        >>> tissue = cellweft.datasets.simulate_tissue(n_spatial=40, n_reference=40, n_genes=12, n_panel=6)
        >>> known = cellweft.pair(tissue.sc, tissue.st)
        >>> known.with_reference(tissue.sc[:10].copy()).sc.n_cells
        10
        """
        check_choice("duplicates", duplicates, ("error", "first"))
        check_choice("missing_chunks", missing_chunks, ("error", "zeros"))
        wish = ReadOptions(
            name="reference",
            labels=labels,
            layer=sc_layer,
            gene_column=sc_gene_column,
            size_factor=size_factor,
            scale=sc_scale,
            batch=reference_batch,
            duplicates=duplicates,
            missing_chunks=missing_chunks,
        )
        data, wish = _opened(sc, wish, argument="sc", sample=sc_sample)
        genes = gene_names(data, wish)
        if orthologs is not None:
            tissue = [self.shared_genes, *(aliases[self.sc_shared] for aliases in names_beside(self.sc))]
            data, genes = by_orthologs(data, genes, read_orthologs(orthologs), tissue=tissue)
        var = data.var.iloc[genes.places]
        panel = _panel_names(self)
        panel_var = pd.DataFrame({"symbol": panel.symbols, "gene_id": panel.gene_ids})
        match = match_sides(genes.names, self.shared_genes, first_var=var, second_var=panel_var)
        lacking = np.setdiff1d(np.arange(len(self.shared_genes)), match.second)
        if len(lacking):
            raise GeneError(
                f"{data.where}.var_names",
                expected=f"all {len(self.shared_genes):,} genes of the panel",
                got=f"{len(lacking):,} that are missing: {shorten(self.shared_genes[lacking].tolist())}",
                fix="Pass cells in which these genes were measured, or fit to a pair with these cells.",
            )
        shared = match.first[np.argsort(match.second)]
        names = joined_names(own_names(genes.names, var), panel, match)
        batches = _named_batches(data, wish)
        checked = _checked_side(data, wish, genes, _labels(data, wish), shared, names=names, batches=batches)
        n_off_panel = checked.side.n_genes - len(self.shared_genes)
        findings = {"reference": side_findings(checked), "genes_to_impute": n_off_panel}
        about_others = [caution for caution in self.cautions if not caution.startswith("Reference: ")]
        return dataclasses.replace(
            self,
            sc=checked.side,
            sc_shared=shared,
            labels=checked.labels,
            findings=self.findings | findings,
            cautions=tuple(about_others),
        )


@checks_kinds
def pair(
    sc: AnnData | PathLike,
    st: AnnData | PathLike,
    *,
    labels: str | None = None,
    st_labels: str | None = None,
    sc_layer: str | None = None,
    st_layer: str | None = None,
    sc_sample: str | None = None,
    st_sample: str | None = None,
    size_factor: str | None = None,
    st_size_factor: str | None = None,
    reference_batch: str | None = None,
    sc_gene_column: str | None = None,
    st_gene_column: str | None = None,
    coordinates: str | None = None,
    slices: str | None = None,
    sc_scale: StoredScale | None = None,
    st_scale: StoredScale | None = None,
    duplicates: Duplicates = "error",
    orthologs: PathLike | None = None,
    missing_chunks: MissingChunks = "error",
) -> Pair:
    """Check a reference and a spatial dataset, and match their genes. Neither is changed.

    Parameters
    ----------
    sc
        The scRNA-seq reference: AnnData (in memory or backed), or the path of an .h5ad or .zarr of AnnData, a
        10x .h5, a 10x folder with matrix.mtx, or a .csv, .tsv or .parquet table of cells x genes with cell
        names in the first column.
    st
        The spatial data, in any of these formats, or the output folder of a Xenium, MERSCOPE, CosMx, Visium,
        Visium HD or Slide-seq run, or a Stereo-seq table (.gem). The columns x and y of a table (or other
        recognised names) are its coordinates.
    labels, st_labels
        Column of ``obs`` with cell types; by default a column with a recognised name (cell_type, cluster,
        ...), if there is one.
    sc_layer, st_layer
        Layer with the counts, or "raw" for the ``raw`` slot with its own genes; by default X. If there is no
        X, the layer with counts or ``raw`` is used, with a caution.
    sc_sample, st_sample
        Sample to read if a 10x folder contains several: the common part of its file names (``GSM1`` for
        ``GSM1_matrix.mtx``). Also selects the genome of a 10x .h5, the modality of an .h5mu, the bin size of
        Stereo-seq (``bin50``) or Visium HD (``square_016um``), or the cells of Visium HD
        (``segmented_outputs``).
    size_factor, st_size_factor
        Numeric column of ``obs`` with the size of each cell, such as its whole-transcriptome total, if the
        matrix contains only some of the genes. By default, the size of a cell is its sum over all genes of
        the matrix.
    reference_batch
        Column of ``obs`` of the reference with the donor, technology or atlas of each cell, if the reference
        combines several that differ in how well they detect genes. Expression is rescaled gene by gene to
        make them comparable.
    sc_gene_column, st_gene_column
        Column of ``var`` with the gene names; by default ``var_names``.
    coordinates
        ``"obsm:KEY"``, ``"obs:X,Y"`` or ``"obs:X,Y,Z"``, or ``"none"`` for no coordinates; by default
        ``obsm["spatial"]``, or columns with recognised names.
    slices
        Column of ``obs`` of the spatial data with the slice of each cell, or "none" for a single slice. By
        default, a column with a recognised name and several values is used. Otherwise, a column such as
        "batch" or "region" is used, with a caution, if cells with different values overlap in space or are
        clearly separated.
    sc_scale, st_scale
        Scale of the values; detected by default. "raw": counts. "normalised": counts divided by a size
        factor. "log", "log2", "log10" (of normalised counts plus 1), "sqrt" and "arcsinh": of normalised
        counts. "log_raw", "log2_raw", "log10_raw", "sqrt_raw" and "arcsinh_raw": of counts, which are
        recovered.
    duplicates
        What to do with a gene name that occurs twice in an input: raise an "error", or keep the "first".
    orthologs
        If the inputs are from two species: "human:mouse" or "mouse:human", with the species of the reference
        first, or the path of a table (.tsv or .csv, also .gz) with two columns, reference genes and their
        orthologs. Reference genes without a one-to-one ortholog are left out; the others get the names of
        the tissue's species.
    missing_chunks
        What to do if a zarr store lacks chunks and zeros in their place are implausible (cells without any
        counts in a dense matrix, or coordinates): raise an "error", or treat them as "zeros".

    Returns
    -------
    Pair
        Both inputs, their shared genes, and a `summary`.

    Raises
    ------
    MissingFileError, FormatError
        The path does not exist; the content of a file does not match its name; a zarr store lacks chunks that
        cannot be zeros.
    GeneError
        There are fewer than two shared genes, or duplicate genes.
    KeyMissingError
        There are no coordinates, or a layer or column does not exist.
    InputError
        An input contains NaN, no data, a single cell, duplicate names of spatial cells, unusable coordinates,
        labels or slices that are unique to nearly every cell, or batches that cannot be compared.
    ScaleError
        There are negative values: the data are scaled.

    Notes
    -----
    Genes are matched by exact name, then ignoring case, then by alternative spellings (``HLA-A``, R's
    ``HLA.A``). If few match, columns of ``var`` that contain other gene names are tried, such as symbols next
    to Ensembl IDs. Shared genes are named as in the spatial data, so that results can be joined with them.
    The values are read once, in blocks of rows, so that files larger than memory can be checked.

    Spots with 0 in the column ``in_tissue`` are left out. Genes that were not measured in some slices, for
    example because two panels were concatenated, are left out of the panel and of the totals of the cells.
    Such genes are NaN in a whole slice, or zero although other slices suggest that they should not be.
    Cautions report both.

    ``reference_batch`` compares similar cells of two batches (mutual nearest neighbours), and therefore never
    cells of types that one batch lacks. All values of a gene in a batch are multiplied by one factor, so that
    similar cells have the values of the largest batch. A factor from few cells is shrunk towards 1.

    Examples
    --------
    >>> import anndata as ad, pandas as pd
    >>> counts = np.random.default_rng(0).poisson(2.0, (6, 3)).astype("float32")
    >>> sc = ad.AnnData(counts, var=pd.DataFrame(index=["Gad1", "Sst", "Vip"]))
    >>> st = ad.AnnData(counts[:4, :2], var=pd.DataFrame(index=["SST", "GAD1"]))
    >>> st.obsm["spatial"] = np.arange(8.0).reshape(4, 2)
    >>> pair(sc, st).shared_genes.tolist()
    ['GAD1', 'SST']
    """
    check_choice("duplicates", duplicates, ("error", "first"))
    check_choice("missing_chunks", missing_chunks, ("error", "zeros"))
    both: dict[str, Any] = {"duplicates": duplicates, "missing_chunks": missing_chunks}
    sc_wish = ReadOptions(
        name="reference",
        labels=labels,
        layer=sc_layer,
        gene_column=sc_gene_column,
        size_factor=size_factor,
        scale=sc_scale,
        batch=reference_batch,
        **both,
    )
    st_wish = ReadOptions(
        name="spatial",
        labels=st_labels,
        layer=st_layer,
        gene_column=st_gene_column,
        size_factor=st_size_factor,
        scale=st_scale,
        **both,
    )
    sc_data, sc_wish = _opened(sc, sc_wish, argument="sc", sample=sc_sample, columns=SLICE_KEYS)
    st_data, st_wish = _opened(st, st_wish, argument="st", sample=st_sample, columns=(*SLICE_KEYS, slices))
    sc_genes, st_genes = gene_names(sc_data, sc_wish), gene_names(st_data, st_wish)
    if orthologs is not None:
        tissue = [st_genes.names, *names_in(st_data.var.iloc[st_genes.places])]
        sc_data, sc_genes = by_orthologs(sc_data, sc_genes, read_orthologs(orthologs), tissue=tissue)
    match = _matched(sc_data, sc_genes, st_data, st_genes)
    places = _places(st_data, coordinates, hint=_exchange_hint(sc_data), missing_chunks=missing_chunks)
    st_data, found_slices, guess = _slices(st_data, slices, places[0])
    sc_types, st_types = _labels(sc_data, sc_wish), _labels(st_data, st_wish)
    cells = find_tissue(st_data.obs, where=st_data.where)
    if cells is not None:
        places, found_slices, st_types = _of(cells, places), _of(cells, found_slices), _of(cells, st_types)
    read = (sc_data, sc_wish, sc_genes, sc_types), (st_data, st_wish, st_genes, st_types)
    return _paired(*read, match=match, places=places, slices=found_slices, slices_guess=guess, cells=cells)


def _places(data: Input, setting: str | None, **more: Any) -> tuple[DoubleArray | None, str]:
    """Return the coordinates of the spatial cells, and their location in the input."""
    return find_coordinates(data.obs, data.obsm, setting, where=data.where, **more)


_A = TypeVar("_A", bound=np.generic)


def _of(cells: IntArray, with_source: tuple[NDArray[_A] | None, str]) -> tuple[NDArray[_A] | None, str]:
    """Return the coordinates of some cells only, and their location in the input."""
    values, source = with_source
    return None if values is None else values[cells], source


def _opened(
    source: AnnData | PathLike,
    wish: ReadOptions,
    *,
    argument: str,
    sample: str | None,
    columns: Iterable[str | None] = (),
) -> tuple[Input, ReadOptions]:
    """Return an input with its counts located and its cells checked, and the requested options."""
    columns = _given(*LABEL_KEYS, *columns, wish.labels, wish.size_factor, wish.batch)
    data, wish = counts_in(open_input(source, argument=argument, obs_columns=columns, sample=sample), wish)
    return check_cells(data, is_reference=wish.name == "reference"), wish


_Types: TypeAlias = tuple[NDArray[np.str_] | None, str]  # names of the cells, and their column


def _panel_names(pair: Pair) -> GeneNames:
    return GeneNames(
        names=pair.shared_genes,
        input_names=pair.shared_genes,
        symbols=pair.sc.symbols[pair.sc_shared],
        gene_ids=pair.sc.gene_ids[pair.sc_shared],
    )


def _slices(data: Input, setting: str | None, places: DoubleArray | None) -> tuple[Input, _Types, str]:
    """Return the slices and their column, and the column that was guessed, if any.

    If no column, but names of cells may contain the slices, a note is added to the input.
    """
    slices_and_column = find_slices(data.obs, setting, where=data.where)
    if setting is not None or slices_and_column[0] is not None or places is None:
        return data, slices_and_column, ""
    slices, guess = guess_slices(data.obs, places)
    parts = "" if guess else sections_in_names(data.obs.names(), places)
    if parts:
        note = (
            f"the names of the cells {parts}, but no column identifies the sections. If there are "
            "several, copy that part of the names to a column of obs and specify it: "
        )
        note += arg("slices", Placeholder("COLUMN")) + "."
        data = dataclasses.replace(data, notes=(*data.notes, note))
    return data, (slices, guess if slices is not None else ""), guess


def _labels(data: Input, wish: ReadOptions) -> _Types:
    return find_labels(data.obs, wish.labels, where=data.where, argument=wish.argument("labels"))


def _named_batches(data: Input, wish: ReadOptions) -> CellBatches | None:
    return None if wish.batch is None else find_reference_batches(data.obs, wish.batch, where=data.where)


_Read: TypeAlias = tuple[Input, ReadOptions, Genes, _Types]


def _paired(
    sc: _Read,
    st: _Read,
    *,
    match: GeneMatch,
    places: tuple[DoubleArray | None, str],
    slices: tuple[NDArray[np.str_] | None, str],
    slices_guess: str,
    cells: IntArray | None,
) -> Pair:
    """Return the pair of two sides, given their genes, coordinates, slices and labels."""
    named = _named_batches(*sc[:2])
    names = [own_names(genes.names, data.var.iloc[genes.places]) for data, _, genes, _ in (sc, st)]
    joined = joined_names(names[0], names[1], match)
    order = np.argsort(joined.names[match.first], kind="stable")
    match = dataclasses.replace(match, first=match.first[order], second=match.second[order])
    tissue = _checked_side(*st, match.second, names=names[1], cells=cells, slices=slices[0], is_tissue=True)
    partly, match = _measured_everywhere(match, st, tissue.scan.unmeasured, slices[0])
    shared = match.first, match.second
    batches = find_batches(sc[0].obs) if named is None else (named.of_each_cell(), named.column)
    reference = _checked_side(*sc, shared[0], names=joined, slices=batches[0], batches=named)
    results = CheckResults(
        sides=(reference, tissue),
        match=match,
        partly=partly,
        sc_partly=_unmeasured_in(reference.scan.unmeasured, sc[2], batches[0]),
        batches_column=batches[1],
        coordinates=places[0],
        coordinates_source=places[1],
        slices=slices[0],
        slices_column=slices[1],
        slices_guess=slices_guess,
        spacing=None if places[0] is None else spot_spacing(places[0], slices[0]),
    )
    return Pair(
        sc=results.sides[0].side,
        st=results.sides[1].side,
        shared_genes=joined.names[shared[0]],
        sc_shared=shared[0],
        st_shared=shared[1],
        coordinates=results.coordinates,
        slices=results.slices,
        labels=results.sides[0].labels,
        st_labels=results.sides[1].labels,
        spacing=results.spacing,
        findings=findings_of(results),
        cautions=cautions_of(results),
        blank_cells=tissue.scan.panel_totals == 0,
    )


def _measured_everywhere(
    match: GeneMatch, st: _Read, unmeasured: BoolArray, slices: NDArray[np.str_] | None
) -> tuple[dict[str, list[str]], GeneMatch]:
    """Return the genes that some slices did not measure, with these slices, and the match of the others."""
    data, _, genes, _ = st
    partly = _unmeasured_in(unmeasured, genes, slices)
    if not partly:
        return {}, match
    everywhere = ~np.asarray(unmeasured.any(axis=0))[genes.places[match.second]]
    if everywhere.sum() < 2:
        raise GeneError(
            f"{data.where}.X",
            expected="at least 2 shared genes that were measured in all slices",
            got=f"{everywhere.sum()}; without values in some slices are {shorten(list(partly))}",
            fix="Impute each slice separately.",
        )
    return partly, dataclasses.replace(match, first=match.first[everywhere], second=match.second[everywhere])


def _unmeasured_in(
    unmeasured: BoolArray, genes: Genes, slices: NDArray[np.str_] | None
) -> dict[str, list[str]]:
    """Return the genes that some slices or batches did not measure, with these slices or batches."""
    names = ["all"] if slices is None else [str(name) for name in pd.unique(slices)]
    unmeasured = unmeasured[:, genes.places]
    return {
        str(genes.names[place]): [names[code] for code in np.flatnonzero(unmeasured[:, place])]
        for place in np.flatnonzero(unmeasured.any(axis=0))
    }


def _checked_side(
    data: Input, wish: ReadOptions, genes: Genes, types: _Types, shared: IntArray, **more: Any
) -> CheckedSide:
    side, scan = make_side(data, genes, wish, panel=shared, **more)
    return CheckedSide(
        data=data, wish=wish, genes=genes, side=side, scan=scan, labels=types[0], labels_column=types[1]
    )


def check_not_input(path: PathLike, pair: Pair) -> None:
    """Raise `OutputExistsError` if an output would replace one of the inputs, or be inside it.

    Parameters
    ----------
    path
        Path of the output.
    pair
        The pair of the inputs.
    """
    check_apart([path], [side.source.removeprefix("AnnData backed by ") for side in (pair.sc, pair.st)])


def _matched(sc: Input, sc_genes: Genes, st: Input, st_genes: Genes) -> GeneMatch:
    """Match the genes of both sides; raise `GeneError` if fewer than two match."""
    match = match_sides(
        sc_genes.names,
        st_genes.names,
        first_var=sc.var.iloc[sc_genes.places],
        second_var=st.var.iloc[st_genes.places],
    )
    check_orientation((sc, sc_genes), (st, st_genes), match)
    for data, genes, argument in ((sc, sc_genes, "sc_gene_column"), (st, st_genes, "st_gene_column")):
        if only_count(genes.names):
            raise GeneError(
                f"{data.where}.var_names",
                expected="names of genes",
                got=f"numbers that only index the columns ({_some(genes)})",
                fix=sentence(
                    "Specify the column of var that contains the gene names, {}. In a table, put the "
                    "names in the first row; transpose a table of genes x cells."
                    + " They may be in its raw slot: {}."
                    * data.has_raw,
                    arg(argument, Placeholder("NAME")),
                    *[arg(f"{argument[:2]}_layer", RAW)] * data.has_raw,
                ),
            )
    n_shared = len(match.first)
    if n_shared >= 2:
        return match
    got = "no shared gene" if n_shared == 0 else f"1 shared gene ({str(sc_genes.names[match.first[0]])!r})"
    names = f"; {sc.where} has {_some(sc_genes)}, {st.where} has {_some(st_genes)}"
    fix: str | Message = _way_out(sc_genes, st_genes)
    if match.ambiguous:
        got += f" ({len(match.ambiguous):,} left out, because several genes have this name)"
        fix = (
            "Several genes have the same name, apart from case or spelling: "
            f"{shorten(list(match.ambiguous), most=6)}. Keep one of each; if the matrix combines cells of "
            "two species, keep the genes of one."
        )
    raise GeneError("genes", expected="at least 2 genes in both inputs", got=got + names, fix=fix)


def _way_out(sc_genes: Genes, st_genes: Genes) -> str:
    """Return a likely reason why no genes match."""
    ensembl = [looks_like_ensembl(genes.names) for genes in (sc_genes, st_genes)]
    if ensembl[0] != ensembl[1]:
        side = "sc" if ensembl[0] else "st"
        column = arg(f"{side}_gene_column", Placeholder("NAME"))
        return "One input uses Ensembl IDs: specify its column of var with gene symbols, " + column + "."
    return sentence(
        "Check that both inputs are from the same species and use the same kind of name (symbols or "
        "Ensembl IDs). {} and {} read the names from a column of var; {} is for two species.",
        arg("sc_gene_column"),
        arg("st_gene_column"),
        arg("orthologs", "human:mouse"),
    )


def _given(*names: str | None) -> list[str]:
    return [name for name in names if name is not None]


def _some(genes: Genes) -> str:
    return shorten([str(name) for name in genes.names], most=3) if len(genes.names) else "no genes"


def _exchange_hint(sc: Input) -> str:
    hint = "The reference has coordinates: the reference comes first, the spatial data second."
    return hint if any(key in sc.obsm for key in OBSM_KEYS) else ""


Labels: TypeAlias = str | NDArray[Any] | None
"""Type of each reference cell: a column of its ``obs``, (n_cells,) values, or None for the pair's labels."""


def labels_of(pair: Pair, labels: Labels = None, *, argument: str = "labels") -> NDArray[np.str_]:
    """Return the type of each reference cell, (n_cells,), "unknown" if it is missing.

    Parameters
    ----------
    pair
        The pair with the cells.
    labels
        A column of their ``obs``, (n_cells,) values, or None for ``pair.labels``.
    argument
        Name of the argument in errors.

    Raises
    ------
    KeyMissingError
        The pair has no labels, or no such column.
    InputError
        Not one value per cell, or different values for nearly all cells.
    """
    if labels is None:
        if pair.labels is None:
            raise KeyMissingError(
                "labels",
                expected="a type for every cell of the reference",
                got="a pair without labels",
                fix="Specify the column of obs when you create the pair: " + arg("labels", "COLUMN") + ".",
            )
        return pair.labels
    if isinstance(labels, str):
        where = f"the reference ({pair.sc.source})"
        column = column_of(pair.sc.obs, labels, where=where, argument=argument)
        return cell_types(column, arg(argument, labels))
    fix = "Pass the types of the reference cells, in the same order."
    ordered = in_order_of(labels, pair.sc.obs_names, argument="labels")
    values = array_of("labels", ordered, fix=fix, numbers=False)
    if values.shape != (pair.sc.n_cells,):
        raise InputError(
            "labels",
            expected=f"one type per cell for the {pair.sc.n_cells:,} cells",
            got=f"shape {values.shape}",
            fix=fix,
        )
    return cell_types(pd.Series(values), "labels")


def coordinates_of(pair: Pair, *, expected: str = "spots with coordinates, to place cells on") -> DoubleArray:
    """Return the coordinates of spots or cells, (n_st, 2 or 3), or raise `KeyMissingError`."""
    if pair.coordinates is None:
        forms = [arg("coordinates", form) for form in ("obsm:KEY", "obs:X,Y")]
        raise KeyMissingError(
            "coordinates",
            expected=expected,
            got="a pair without coordinates",
            fix=sentence("Specify them when you create the pair: {} or {}.", *forms),
        )
    return pair.coordinates


def pictures_of(pair: Pair) -> dict[str, Any]:
    """Return ``uns["spatial"]`` of the tissue, Visium's images and their scales, for a result."""
    pictures = pair.st.uns.get("spatial")
    return {"spatial": storable_mapping(pictures, "uns['spatial']")} if isinstance(pictures, Mapping) else {}


def inputs_of(pair: Pair) -> dict[str, dict[str, Any]]:
    """Return the record of the two inputs, as plain values that any format can store.

    Parameters
    ----------
    pair
        The data.

    Returns
    -------
    dict
        For "reference" and "spatial": ``path`` ("memory" if there is none), ``bytes`` of the file or folder
        (0 in memory), ``cells``, ``genes``, ``digest`` (`cellweft.data.digest.values_digest`, of the values
        as read, not of the bytes of the file), ``layer`` ("X" by default), ``scale`` (detected or given),
        ``labels`` and ``size_factor`` (columns of ``obs``, empty if there are none). For the spatial side
        also the source of ``coordinates`` and ``slices``, and the ``unit`` of the coordinates (empty if
        unknown); for the reference also ``orthologs``, the table used, and ``batch``, the column of its
        batches, if one was given.
    """
    records: dict[str, dict[str, Any]] = {}
    for side in (pair.sc, pair.st):
        findings = pair.findings[side.name]
        path = side.source.removeprefix("AnnData backed by ")
        records[side.name] = {
            "path": "memory" if path == "AnnData in memory" else path,
            "bytes": _size(Path(path)),
            "cells": side.n_cells,
            "genes": side.n_genes,
            "digest": values_digest(side),
            "layer": str(findings["layer"] or "X"),
            "scale": side.judgement.scale,
            "labels": str(findings["labels"] or ""),
            "size_factor": str(findings["size_factor"] or ""),
        }
    for name in ("coordinates", "slices"):
        records["spatial"][name] = str(pair.findings[name]["found"] or "")
    records["reference"]["orthologs"] = str(pair.findings["reference"]["orthologs"])
    records["reference"]["batch"] = "" if pair.sc.batches is None else pair.sc.batches.column
    records["spatial"]["unit"] = str(pair.findings["coordinates"]["unit"])
    return records


def _size(path: Path) -> int:
    """Return the size of a file, or of all files in a folder, in bytes; 0 if it does not exist."""
    if not path.is_dir():
        return path.stat().st_size if path.is_file() else 0
    return sum(Path(folder, name).stat().st_size for folder, _, names in os.walk(path) for name in names)
