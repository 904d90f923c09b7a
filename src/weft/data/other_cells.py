"""Other cells for the spots of a pair: a fitted model places them without being trained anew."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
from anndata import AnnData

from weft._errors import GeneError, shorten
from weft._typing import Duplicates, PathLike, Scale
from weft.data.checks import Wish, check_cells, gene_names, make_side
from weft.data.genes import match_sides
from weft.data.pair import Pair
from weft.data.read import open_input
from weft.data.space import LABEL_KEYS, find_labels
from weft.data.summary import side_findings


def with_reference(
    pair: Pair,
    sc: AnnData | PathLike,
    *,
    labels: str | None = None,
    sc_layer: str | None = None,
    size_factor: str | None = None,
    sc_gene_column: str | None = None,
    sc_scale: Scale | None = None,
    duplicates: Duplicates = "error",
) -> Pair:
    """Return a pair with the same spots and panel, and other cells as its reference.

    Parameters
    ----------
    pair
        The known pair.
    sc
        The cells, as `weft.pair` takes them; they must have all genes of the pair's panel.
    labels, sc_layer, size_factor, sc_gene_column, sc_scale, duplicates
        As in `weft.pair`.

    Raises
    ------
    GeneError
        The cells lack genes of the panel.
    MissingFileError, FormatError, KeyMissingError, InputError, ScaleError
        As in `weft.pair`.

    Examples
    --------
    >>> import weft
    >>> tissue = weft.simulate_tissue(n_spatial=40, n_reference=40, n_genes=12, n_panel=6, seed=0)
    >>> known = weft.pair(tissue.sc, tissue.st)
    >>> weft.with_reference(known, tissue.sc[:10].copy()).sc.n_cells
    10
    """
    wish = Wish(
        name="reference",
        layer=sc_layer,
        gene_column=sc_gene_column,
        size_factor=size_factor,
        scale=sc_scale,
        duplicates=duplicates,
    )
    columns = [*LABEL_KEYS, *(name for name in (labels, size_factor) if name is not None)]
    data = open_input(sc, argument="sc", obs_columns=columns)
    check_cells(data)
    genes = gene_names(data, wish)
    match = match_sides(
        genes.names,
        pair.shared_genes,
        first_var=data.var.iloc[genes.places],
        second_var=pd.DataFrame(index=pair.shared_genes),
    )
    lacking = np.setdiff1d(np.arange(len(pair.shared_genes)), match.second)
    if len(lacking):
        raise GeneError(
            f"{data.where}.var_names",
            expected=f"all {len(pair.shared_genes):,} genes of the panel",
            got=f"{len(lacking):,} that are not there: {shorten(pair.shared_genes[lacking].tolist())}",
            fix="Pass cells that were measured for these genes, or fit to a pair with these cells.",
        )
    shared = match.first[np.argsort(match.second)]
    side, scan = make_side(data, genes, wish, panel=shared)
    types, found = find_labels(data.obs, labels, where=data.where, argument="labels")
    findings = side_findings(side, scan, wish, n_left_out=genes.n_left_out, labels=types, found=found)
    n_off_panel = side.n_genes - len(pair.shared_genes)
    return dataclasses.replace(
        pair,
        sc=side,
        sc_shared=shared,
        labels=types,
        findings=pair.findings | {"reference": findings, "genes_to_impute": n_off_panel},
        cautions=tuple(one for one in pair.cautions if not one.startswith("Reference: ")),  # of other cells
    )
