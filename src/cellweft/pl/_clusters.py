"""Groups of cells and genes: UMAPs of measured and imputed genes, gene modules, neighbouring cell types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba_array
from numpy.typing import NDArray

from cellweft._compute import numpy_stream, row_blocks, sample_rows
from cellweft._errors import InputError, KeyMissingError, SettingError, check_known, check_range, checks_kinds
from cellweft._statistics import centred, unit_length
from cellweft._typing import BoolArray, DoubleArray, FloatArray, IntArray, PathLike
from cellweft.data.gene_names import find_names
from cellweft.data.io.backed_matrix import Rows, open_rows
from cellweft.data.io.lazy_input import Input
from cellweft.pl._axes import PLAIN, SMALL, color_bar, heat_map, panel, panels, tidy
from cellweft.pl._colors import MISSING, natural_order, number_map
from cellweft.pl._inputs import Shade, given_shade, logged, of_layer, opened, shade_of, values_of
from cellweft.pl._spatial import shade_legend
from cellweft.tl._clustering import coexpression_modules

if TYPE_CHECKING:
    from anndata import AnnData

    from cellweft.place.placement import Placement

_N_PCS = 50
_VARIABLE = 2_000  # most variable genes, used for the PCA
_BLOCK_ROWS = 2_000
_NAMED = 30  # largest number of genes with names
_STEPS = 200  # of UMAP
_OF_MODULE = 3  # genes in the name of a module
_WRITTEN = 20  # largest number of types with values on the diagonal
_SPOTS = "#d9d9d9"
_REGION_COLUMNS = ("type", "region", "z")


@checks_kinds
def umap(
    measured: AnnData | PathLike | Placement,
    imputed: AnnData | PathLike | None = None,
    *,
    label: str | NDArray[Any] | pd.Series,
    neighbors: int = 15,
    seed: int = 0,
    most_cells: int = 20_000,
    colors: Mapping[str, str] | None = None,
    legend: bool = True,
    axes: Sequence[Axes] | NDArray[Any] | None = None,
) -> tuple[Axes, Axes]:
    """Plot UMAPs of the cells by label, from measured genes and from imputed genes.

    For a placement, the UMAPs are those of the expression and of the embeddings, of cells and spots together.

    Parameters
    ----------
    measured
        Measured data: AnnData or path, log-normalised as in `cellweft.pair`. Or a placement.
    imputed
        Result of `cellweft.Imputer.impute` for the same cells in the same order, or its path. None for a
        placement.
    label
        A column of ``obs`` of either input, or (n_cells,) labels. For a placement, labels of the placed
        cells; the spots are grey.
    neighbors
        Number of neighbours in the graph, including the cell itself, at least 2.
    seed
        Random seed of the PCA, the UMAP and the subsampling of cells.
    most_cells
        Maximum number of cells. If there are more, a random sample is drawn, the same in both panels.
    colors
        Colour of each label; by default those of `label_colors`.
    legend
        Whether to draw the legend.
    axes
        Two axes to draw on; a new figure by default.

    Returns
    -------
    tuple of Axes
        Measured and imputed; for a placement, expression and embedding. The coordinates have no meaning, and
        the two layouts are independent.

    Raises
    ------
    KeyMissingError
        The column does not exist.
    InputError
        The numbers of cells differ, there are fewer than four cells, or nothing was imputed.

    Notes
    -----
    For a placement, this is Fig. 3a of Hao et al. 2024 (STEM) with both cells and spots, so that it also
    shows how different the platforms are before and after. Expression is that of the genes that the model
    uses.

    As in scanpy: 50 principal components (fewer if there are fewer genes or cells), its graph of neighbours,
    and UMAP. Unlike scanpy's default, neighbours are exact (scikit-learn), because the approximate search
    takes longer to compile than the exact search takes for the cells of a plot. The layout starts from the
    first two components and takes 200 steps.
    """
    check_range("neighbors", neighbors, low=2, integer=True)
    check_range("most_cells", most_cells, low=neighbors + 1, integer=True)
    if hasattr(measured, "spot_groups"):
        return _umap_of_placement(
            measured,
            label=label,
            neighbors=neighbors,
            seed=seed,
            most_cells=most_cells,
            colors=colors,
            legend=legend,
            axes=axes,
        )
    if imputed is None:
        fix = "Pass the result of cellweft.Imputer.impute, or only a placement."
        raise InputError("imputed", expected="the imputed genes of these cells", got="none", fix=fix)
    sides = opened(measured, "measured"), opened(imputed, "imputed")
    n_cells = len(sides[0].obs)
    if len(sides[1].obs) != n_cells or n_cells <= neighbors:
        raise InputError(
            "imputed",
            expected=f"the {n_cells:,} cells of the measured data, more than neighbors={neighbors}",
            got=f"{len(sides[1].obs):,}",
            fix="Pass the same cells in both, in the same order; for few cells, use fewer neighbors.",
        )
    shade = _labels(sides, label, colors)
    rows = sample_rows(np.arange(n_cells), most_cells, numpy_stream(seed, "pl.umap"))
    pair_of = panels(axes, 2, size=(3.8, 3.6))
    layouts = [
        _layout(_variable(logged(sides[0]).dense, rows, n_genes=len(sides[0].var)), neighbors, seed),
        _layout(_variable(_reader(sides[1]), rows, n_genes=len(sides[1].var)), neighbors, seed),
    ]
    codes = np.asarray(shade.codes)[rows]
    table = to_rgba_array([*(shade.colors or {}).values(), MISSING])
    for ax, layout, name in zip(pair_of, layouts, ("measured", "imputed"), strict=True):
        _draw_layout(ax, layout, table[codes], first=codes < 0, title=name)
    if legend:
        shade_legend(pair_of[1], shade, codes, title=shade.name)
    return pair_of[0], pair_of[1]


def _umap_of_placement(
    placed: Any,
    *,
    label: str | NDArray[Any] | pd.Series,
    neighbors: int,
    seed: int,
    most_cells: int,
    colors: Mapping[str, str] | None,
    legend: bool,
    axes: Sequence[Axes] | NDArray[Any] | None,
) -> tuple[Axes, Axes]:
    """Draw the UMAP of cells and spots from their expression, and from their embeddings."""
    from cellweft.place.placement import Which, embeddings_of

    n_cells, n_spots = len(placed.cells), len(placed.spots)
    if n_cells + n_spots <= neighbors:
        expected = f"more than neighbors={neighbors} cells and spots"
        fix = "Use fewer neighbors."
        raise InputError("neighbors", expected=expected, got=f"{n_cells + n_spots:,}", fix=fix)
    obs = placed.pair.sc.obs
    if isinstance(label, str):
        check_known(label, obs.columns, f"label={label!r}", expected="a column of obs", got="no such column")
        label = obs[label]
    is_number = pd.api.types.is_numeric_dtype(pd.Series(label).dtype)
    shade = given_shade(pd.Series(label).astype(str) if is_number else label, n_cells, colors=colors)
    stream = numpy_stream(seed, "pl.umap")
    cells = sample_rows(np.arange(n_cells), most_cells, stream)
    spots = sample_rows(np.arange(n_spots), most_cells, stream)
    expression = np.concatenate([placed.values(cells), placed.inputs[1].values(spots)])
    sides: tuple[tuple[Which, IntArray], ...] = (("cells", cells), ("spots", spots))
    embeddings = np.concatenate([embeddings_of(placed, of)[rows] for of, rows in sides])
    pair_of = panels(axes, 2, size=(3.8, 3.6))
    codes = np.asarray(shade.codes)[cells]
    table = to_rgba_array([*(shade.colors or {}).values(), MISSING])
    of_spots = np.tile(to_rgba_array(_SPOTS), (len(spots), 1))
    all_colors = np.concatenate([table[codes], of_spots])
    first = np.arange(len(all_colors)) >= len(cells)
    for ax, values, name in zip(pair_of, (expression, embeddings), ("expression", "embedding"), strict=True):
        layout = _layout(values, neighbors, seed, reduced=name == "embedding")
        _draw_layout(ax, layout, all_colors, first=first, title=name)
    if legend:
        shade_legend(pair_of[1], shade, codes, title=shade.name or "spots: grey")
    return pair_of[0], pair_of[1]


def _draw_layout(
    ax: Axes, layout: DoubleArray, colors: NDArray[Any], *, first: BoolArray, title: str
) -> None:
    """Draw points in their colours, those of ``first`` below the others."""
    order = np.lexsort((*layout.T, ~first))
    size = float(np.clip(9000 / len(layout), 1.0, 25.0))
    ax.scatter(layout[order, 0], layout[order, 1], c=colors[order], s=size, lw=0, rasterized=True)
    tidy(ax, title=title, x="UMAP 1", y="UMAP 2")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_box_aspect(1)


@checks_kinds
def modules(
    data: AnnData | PathLike | pd.DataFrame,
    modules: pd.Series | None = None,
    *,
    genes: Sequence[str] | None = None,
    layer: str | None = None,
    seed: int = 0,
    most_genes: int = 2_000,
    ax: Axes | None = None,
) -> Axes:
    """Plot the correlations of genes as a heat map, sorted by module.

    Parameters
    ----------
    data
        Log-normalised expression: AnnData, path, or a table of cells x genes.
    modules
        Module of every gene, from `cellweft.tl.coexpression_modules`; by default computed from ``data``. Pass
        the modules of measured values to see whether imputed values preserve them.
    genes
        Genes to draw; by default all, or those of ``modules`` if given.
    layer
        Layer of the AnnData; ``X`` by default.
    seed
        Random seed for computing modules.
    most_genes
        Maximum number of genes, because more would not be readable.
    ax
        Axes to draw on; a new figure by default.

    Returns
    -------
    Axes
        (n_genes, n_genes) Pearson correlations, -1 to 1. Genes are ordered by module and, within a module, by
        their mean correlation with it. Lines separate the modules. If there is room, each is labelled with
        its number, its size and the three genes that correlate with it most; the axis shows how many are not
        labelled. Up to 30 genes are all named at the bottom.

    Raises
    ------
    GeneError
        A gene is not in the data.
    InputError
        There are too many genes or fewer than two, or values are NaN.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> up, down = np.arange(6.0), np.array([1.0, -1.0, 0.0, 0.0, -1.0, 1.0])
    >>> table = pd.DataFrame({"a": up, "b": 2 * up, "c": down, "d": 3 * down})
    >>> modules(table).images[0].get_array().round(1).tolist()[0]
    [1.0, 1.0, 0.0, 0.0]
    """
    check_range("most_genes", most_genes, low=2, integer=True)
    values, names = _expression(
        data, genes if modules is None or genes is not None else modules.index, layer, most_genes
    )
    if modules is None:
        modules = coexpression_modules(values, names, seed=seed)
    of_gene = modules.set_axis(modules.index.astype(str)).reindex(pd.Index(names))
    if of_gene.isna().any():
        raise KeyMissingError(
            "modules",
            expected="a module for every plotted gene",
            got=f"none for {str(of_gene.index[of_gene.isna()][0])!r}",
            fix="List the genes to plot with genes=, or compute the modules of all of them.",
        )
    correlations = _correlations(values)
    group: IntArray = np.asarray(of_gene, dtype=np.int64)
    order = _module_order(correlations, group)
    ax = panel(ax, size=(6.6, 4.4))
    ordered = correlations[np.ix_(order, order)]
    image = ax.imshow(
        ordered, cmap=number_map("RdBu_r"), vmin=-1, vmax=1, interpolation="nearest", aspect="equal"
    )
    tidy(ax, title=f"{len(names):,} genes, {len(set(group.tolist()) - {-1}):,} modules")
    ax.spines[:].set_visible(False)
    _module_names(ax, group[order], [names[gene] for gene in order])
    if len(names) <= _NAMED:
        ax.set_xticks(range(len(names)), [names[gene] for gene in order], rotation=90)
    else:
        ax.set_xticks([])
    color_bar(image, ax, label="Pearson correlation")
    return ax


@checks_kinds
def enrichment(
    table: pd.DataFrame,
    *,
    fdr: float = 0.05,
    limit: float | None = None,
    cmap: str = "RdBu_r",
    ax: Axes | None = None,
) -> Axes:
    """Plot which cell types are neighbours, or in which regions they are placed, compared with chance.

    Parameters
    ----------
    table
        z-scores of `cellweft.tl.neighborhood_enrichment` (n_types x n_types), or the table of
        `cellweft.tl.region_enrichment`.
    fdr
        For a region table, a dot marks entries with a lower false discovery rate.
    limit
        Absolute z-score at both ends of the colour scale; by default the largest one between different types,
        because pairs of the same type would dominate the scale. White is 0.
    cmap
        A diverging matplotlib colour map.
    ax
        Axes to draw on; a new figure by default.

    Returns
    -------
    Axes
        Types of cells in rows; types of their neighbours, or regions, in columns. Values of pairs of the same
        type that exceed the colour scale are written in the plot, for up to 20 types.

    Raises
    ------
    InputError
        ``table`` is neither of the two, is empty, or contains values that are not numbers.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("agg")
    >>> z = pd.DataFrame([[3.0, -2.0], [-2.0, 1.0]], index=["a", "b"], columns=["a", "b"])
    >>> enrichment(z).images[0].get_clim()
    (-2.0, 2.0)
    """
    check_range("fdr", fdr, low=0, high=1)
    if limit is not None:
        check_range("limit", limit, low=1e-12)
    z, marked, columns_are = _fields(table, fdr)
    values = z.to_numpy(dtype=np.float64)
    rows, columns = [str(label) for label in z.index], [str(label) for label in z.columns]
    is_own = (np.array(rows)[:, None] == np.array(columns)) & (columns_are != "region")
    others = np.abs(values[~is_own & np.isfinite(values)]).max(initial=0.0)
    limit = float(others) if limit is None and others > 0 else limit
    ax = panel(ax, size=(1.9 + 0.34 * len(columns), 1.2 + 0.3 * len(rows)))
    heat_map(
        ax,
        values,
        rows=rows,
        columns=columns,
        marked=marked,
        limit=limit,
        cmap=number_map(cmap),
        names=(columns_are, "type of the cell"),
        label="enrichment (z-score)",
    )
    if limit is not None and len(rows) <= _WRITTEN:
        for row, column in zip(*np.nonzero(is_own & (np.abs(values) > limit)), strict=True):
            look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 6.5, "color": "white"}
            ax.text(column, row, f"{values[row, column]:.0f}", **look)
    return ax


def _labels(sides: tuple[Input, Input], label: Any, colors: Mapping[str, str] | None) -> Shade:
    if isinstance(label, str):
        names = [name for side in sides for name in side.obs.columns]
        check_known(label, names, f"label={label!r}", expected="a column of obs", got="no such column")
        side = next(side for side in sides if label in side.obs.columns)
        series = side.obs[label]
        if not pd.api.types.is_numeric_dtype(series):
            return shade_of(side, f"obs:{label}", colors=colors)
        label = series.astype(str)
    texts = label if isinstance(label, pd.Series | pd.Categorical) else pd.Series(np.asarray(label))
    is_number = pd.api.types.is_numeric_dtype(texts.dtype)
    return given_shade(texts.astype(str) if is_number else texts, len(sides[0].obs), colors=colors)


def _reader(data: Input) -> Any:
    """Return a function that reads unchanged values as arrays."""
    source = open_rows(data.values(None, argument="layer"), where=data.where)

    def read(rows: Rows, columns: IntArray | None = None) -> FloatArray:
        block: Any = source.read(rows, columns)
        return np.asarray(block.toarray() if hasattr(block, "toarray") else block, dtype=np.float32)

    return read


def _variable(read: Any, rows: IntArray, *, n_genes: int) -> FloatArray:
    """Return some cells with their most variable genes, read block by block."""
    sums, squares = np.zeros(n_genes), np.zeros(n_genes)
    for part in row_blocks(len(rows), _BLOCK_ROWS):
        block = read(rows[part]).astype(np.float64)
        sums += block.sum(axis=0)
        squares += (block**2).sum(axis=0)
    variance = squares / len(rows) - (sums / len(rows)) ** 2
    genes = np.sort(np.argsort(-variance, kind="stable")[:_VARIABLE])
    return np.concatenate([read(rows[part], genes) for part in row_blocks(len(rows), _BLOCK_ROWS)])


def _layout(values: FloatArray, neighbors: int, seed: int, *, reduced: bool = False) -> DoubleArray:
    """Return scanpy's UMAP, (n_cells, 2), of values or, unless they are ``reduced``, of their components."""
    import scanpy as sc
    from anndata import AnnData
    from sklearn.neighbors import KNeighborsTransformer

    cells, seed = AnnData(values), seed % 2**32  # the largest seed of NumPy and scikit-learn
    n_pcs = min(_N_PCS, min(values.shape) - 1)
    start = "random"
    if n_pcs >= 2:
        sc.pp.pca(cells, n_comps=n_pcs, random_state=seed)
        start = "start"
        cells.obsm[start] = cells.obsm["X_pca"][:, :2]
    use = "X_pca" if not reduced and min(values.shape) > _N_PCS else "X"
    # one neighbour fewer, because the cell itself counts
    exact = KNeighborsTransformer(n_neighbors=neighbors - 1, algorithm="brute")
    sc.pp.neighbors(cells, n_neighbors=neighbors, random_state=seed, use_rep=use, transformer=exact)
    sc.tl.umap(cells, random_state=seed, init_pos=start, maxiter=_STEPS)
    return np.asarray(cells.obsm["X_umap"], dtype=np.float64)


def _expression(data: Any, genes: Any, layer: str | None, most: int) -> tuple[DoubleArray, NDArray[np.str_]]:
    """Return the values of the genes to draw, and their names."""
    if isinstance(data, pd.DataFrame) and layer is not None:
        fix = "Omit it, or pass the AnnData."
        raise SettingError("layer", expected="None with a table", got=repr(layer), fix=fix)
    source = data if isinstance(data, pd.DataFrame) else of_layer(opened(data), layer)
    names = source.columns if isinstance(source, pd.DataFrame) else source.var.index
    gene_names = names.astype(str).to_numpy(dtype=np.str_)
    places = (
        np.arange(len(gene_names)) if genes is None else find_names(list(genes), gene_names, where="genes")
    )
    if not 2 <= len(places) <= most:
        raise InputError(
            "genes",
            expected=f"2 to {most:,} genes",
            got=f"{len(places):,}",
            fix="List the genes to plot with genes=, such as the reliable or the most variable ones.",
        )
    if isinstance(source, pd.DataFrame):
        values = source.iloc[:, places].to_numpy(dtype=np.float64)
    else:
        values = values_of(source, places, layer=layer)
    if len(values) < 2 or not np.isfinite(values).all():
        raise InputError(
            "data",
            expected="finite values of at least two cells",
            got=f"{len(values):,} cells" if len(values) < 2 else "NaN or infinity",
            fix="Remove cells and genes without values.",
        )
    return values, gene_names[places]


def _correlations(values: DoubleArray) -> DoubleArray:
    """Return the n_genes x n_genes Pearson correlations, 0 for constants."""
    columns = unit_length(centred(values))
    return np.asarray(np.clip(columns.T @ columns, -1.0, 1.0))


def _module_order(correlations: DoubleArray, group: IntArray) -> IntArray:
    """Return genes sorted by module (genes without one are last) and by mean correlation with the module."""
    within = np.zeros(len(group))
    for module in np.unique(group):
        members = np.flatnonzero(group == module)
        within[members] = correlations[np.ix_(members, members)].mean(axis=1)
    last = np.where(group < 0, group.max(initial=0) + 1, group)
    return np.lexsort((np.arange(len(group)), -within, last)).astype(np.int64)


def _module_names(ax: Axes, group: IntArray, genes: Sequence[str]) -> None:
    """Draw lines between modules, and name those with enough space by their first genes."""
    starts = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
    ends = np.append(starts[1:], len(group))
    for start in starts[1:]:
        ax.axhline(start - 0.5, color="white", lw=1.2)
        ax.axvline(start - 0.5, color="white", lw=1.2)
    has_room = (ends - starts) >= 0.035 * len(group)
    names = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        first = ", ".join(genes[start : min(end, start + _OF_MODULE)])
        first += ", …" if end - start > _OF_MODULE else ""
        names.append(
            f"none ({end - start:,})" if group[start] < 0 else f"{group[start]} ({end - start:,}): {first}"
        )
    at = (starts + ends - 1) / 2
    ax.set_yticks(
        at[has_room], [name for name, fits in zip(names, has_room, strict=True) if fits], fontsize=SMALL
    )
    ax.tick_params(axis="both", length=0)
    left_out = int((~has_room).sum())
    ax.set_ylabel("module (genes)" + f"; and {left_out:,} small ones" * (left_out > 0), fontsize=PLAIN)


def _fields(table: pd.DataFrame, fdr: float) -> tuple[pd.DataFrame, BoolArray, str]:
    """Return z-scores as a table of types x others, which fields to mark, and the label of the columns."""
    if not isinstance(table, pd.DataFrame) or table.empty:
        raise InputError(
            "table",
            expected="the table of cellweft.tl.neighborhood_enrichment or cellweft.tl.region_enrichment",
            got="an empty table" if isinstance(table, pd.DataFrame) else type(table).__name__,
            fix="Pass the result of one of these functions.",
        )
    if set(_REGION_COLUMNS) <= set(map(str, table.columns)):
        z = _pivoted(table, "z")
        low: BoolArray = np.zeros(z.shape, dtype=np.bool_)
        if "fdr" in table:
            low = np.asarray(_pivoted(table, "fdr") < fdr, dtype=np.bool_)
        return z, low, "region"
    if not all(pd.api.types.is_numeric_dtype(one) for one in table.dtypes):
        raise InputError(
            "table",
            expected="z-scores of types x types, or the columns 'type', 'region' and 'z'",
            got="columns of text",
            fix="Pass the result of cellweft.tl.neighborhood_enrichment or cellweft.tl.region_enrichment.",
        )
    rows, columns = (natural_order(one) for one in (table.index, table.columns))
    sorted_table = table.set_axis(table.index.astype(str)).set_axis(table.columns.astype(str), axis=1)
    z = sorted_table.loc[rows, columns]
    return z, np.zeros(z.shape, dtype=np.bool_), "type of the neighbour"


def _pivoted(table: pd.DataFrame, values: str) -> pd.DataFrame:
    """Return a column as a table of types x regions, in natural order or in order of appearance."""
    pivoted = table.pivot_table(index="type", columns="region", values=values, observed=True)
    pivoted = pivoted.set_axis(pivoted.index.astype(str)).set_axis(pivoted.columns.astype(str), axis=1)
    rows, columns = (natural_order(pd.unique(table[column])) for column in ("type", "region"))
    return pivoted.reindex(index=rows, columns=columns)
