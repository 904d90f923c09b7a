"""Synthetic tissue with known truth: a layered slice, its panel measurement, and a matching reference."""

from __future__ import annotations

from dataclasses import dataclass

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from cellweft._compute import numpy_stream, row_blocks
from cellweft._errors import check_range, check_seed
from cellweft._typing import BoolArray, DoubleArray, IntArray

_SPACING = 15.0  # um between cells
_LAYER_EDGES = np.array([0.12, 0.35, 0.55, 0.8])  # relative depths in the tissue
_N_LAYERS = len(_LAYER_EDGES) + 1
_N_STATES = 5  # programmes that vary within a type: activity, stress, cycle
_N_FIELDS = _N_LAYERS + 1  # a gradient along each layer, and one around a focus
_BLOCK = 8192  # cells per block of rates


@dataclass(frozen=True, kw_only=True, eq=False)
class SimulatedTissue:
    """Simulated inputs for cellweft, with the truth. All matrices are raw counts, CSR in float32.

    Parameters
    ----------
    sc
        Reference, n_reference x n_genes, with ``obs["cell_type"]``; ``obsm["spatial_true"]`` contains
        the true position of each cell (um).
    st
        Spatial data, n_spatial x n_panel, with ``obs["cell_type"]``, ``obs["layer"]``, ``obsm["spatial"]``
        (um).
    truth
        The spatial cells with all genes, as the spatial platform would count them. For panel genes, it equals
        ``st``. ``var["panel"]`` marks the panel, ``var["pattern"]`` is the expression pattern of the gene:
        ``"shared"`` (by several types), ``"specific"`` (to one type), ``"lateral"`` (a gradient along one
        layer) or ``"radial"`` (around a focus).
    """

    sc: anndata.AnnData
    st: anndata.AnnData
    truth: anndata.AnnData


def simulate_tissue(
    *,
    n_spatial: int = 2000,
    n_reference: int = 1500,
    n_genes: int = 300,
    n_panel: int = 60,
    n_types: int = 8,
    dropout: float = 0.3,
    platform_effect: float = 0.5,
    seed: int = 0,
) -> SimulatedTissue:
    """Simulate a layered tissue, a panel measurement of it, and a reference of dissociated cells.

    Parameters
    ----------
    n_spatial, n_reference
        Number of cells in each input. They are different cells of the same tissue.
    n_genes, n_panel
        Number of genes in the reference, and how many of them the spatial panel measures.
    n_types
        Number of cell types. About half of them occur in a single layer, the others are distributed more
        widely.
    dropout
        Probability, from 0 to 1, that the reference misses a gene with a low rate in a cell. It decreases
        with the rate.
    platform_effect
        Standard deviation over genes of the log-ratio between the yields of the spatial platform and the
        reference.
    seed
        Random seed.

    Returns
    -------
    SimulatedTissue
        Reference, spatial data and truth.

    Raises
    ------
    SettingError
        A setting is out of range.

    Notes
    -----
    The log rate of a gene in a cell is the sum of the level of the gene, the programmes of the cell's type
    and family of types, states that vary within types, spatial fields, the size of the cell, and the effect
    of the platform on the gene. Counts are gamma-Poisson. Marker genes are more likely to be on the panel, as
    in real panels.

    Examples
    --------
    >>> tissue = simulate_tissue(n_spatial=200, n_reference=100, n_genes=50, n_panel=10)
    >>> tissue.sc.shape, tissue.st.shape, tissue.truth.shape
    ((100, 50), (200, 10), (200, 50))
    """
    check_range("n_spatial", n_spatial, low=2, high=10**8, integer=True)
    check_range("n_reference", n_reference, low=2, high=10**8, integer=True)
    check_range("n_genes", n_genes, low=2, high=10**8, integer=True)
    check_range("n_panel", n_panel, low=1, high=n_genes, integer=True)
    check_range("n_types", n_types, low=1, high=10**6, integer=True)
    check_range("dropout", dropout, low=0, high=1)
    check_range("platform_effect", platform_effect, low=0)
    check_seed(seed)

    programmes = _draw_programmes(n_genes, n_types, numpy_stream(seed, "programmes"))
    panel = _draw_panel(programmes, n_panel, numpy_stream(seed, "panel"))
    composition = _draw_composition(n_types, numpy_stream(seed, "composition"))
    extent = _SPACING * np.sqrt(n_spatial)  # the extent follows from the number of spatial cells

    spatial = _draw_cells(n_spatial, extent, composition, numpy_stream(seed, "spatial cells"))
    stream = numpy_stream(seed, "spatial counts")
    effect = platform_effect * stream.standard_normal(n_genes)
    truth = _measure(spatial, programmes, effect, stream)

    # Dissociation loses some types more than others.
    survival = np.exp(0.4 * numpy_stream(seed, "survival").standard_normal(n_types))
    reference = _draw_cells(
        n_reference, extent, composition * survival, numpy_stream(seed, "reference cells")
    )
    stream = numpy_stream(seed, "reference counts")
    counts = _measure(reference, programmes, np.full(n_genes, np.log(1.5)), stream, dropout=dropout)
    return _assemble(spatial, truth, reference, counts, programmes, panel)


@dataclass(frozen=True, kw_only=True)
class _Programmes:
    """Log effects on genes, and the pattern of each gene."""

    level: DoubleArray  # n_genes
    types: DoubleArray  # n_types x n_genes, family and type together
    states: DoubleArray  # _N_STATES x n_genes
    fields: DoubleArray  # _N_FIELDS x n_genes
    pattern: NDArray[np.str_]  # n_genes


@dataclass(frozen=True, kw_only=True)
class _Cells:
    """Cells in the tissue, before they are measured."""

    place: DoubleArray  # n_cells x 2, um
    layer: IntArray  # n_cells
    type: IntArray  # n_cells
    states: DoubleArray  # n_cells x _N_STATES
    fields: DoubleArray  # n_cells x _N_FIELDS
    log_size: DoubleArray  # n_cells


def _draw_programmes(n_genes: int, n_types: int, stream: np.random.Generator) -> _Programmes:
    kinds = np.array(["shared", "specific", "lateral", "radial"])
    pattern = stream.permutation(np.resize(np.repeat(kinds, [9, 8, 2, 1]), n_genes))

    n_families = max(2, n_types // 3)
    families = stream.normal(0, 1.2, (n_families, n_genes)) * (stream.random((n_families, n_genes)) < 0.5)
    types = families[np.arange(n_types) % n_families] * np.where(pattern == "specific", 0.3, 1.0)
    marked = stream.integers(n_types, size=n_genes)  # the type of a specific gene
    specific = np.flatnonzero(pattern == "specific")
    types[marked[specific], specific] += stream.uniform(1.5, 3.0, len(specific))
    types += stream.normal(0, 0.25, types.shape)  # so that no two types are identical

    states = stream.normal(0, 0.45, (_N_STATES, n_genes)) * (stream.random((_N_STATES, n_genes)) < 0.3)
    fields = np.zeros((_N_FIELDS, n_genes))
    lateral, radial = np.flatnonzero(pattern == "lateral"), np.flatnonzero(pattern == "radial")
    fields[np.arange(len(lateral)) % _N_LAYERS, lateral] = 1.5 * stream.choice([-1, 1], len(lateral))
    fields[-1, radial] = stream.uniform(1.5, 2.5, len(radial))
    return _Programmes(
        level=stream.normal(-0.9, 0.8, n_genes), types=types, states=states, fields=fields, pattern=pattern
    )


def _draw_panel(programmes: _Programmes, n_panel: int, stream: np.random.Generator) -> IntArray:
    """Draw the panel genes; genes that distinguish types are more likely, nearly silent ones less likely."""
    rates = np.exp(programmes.level + programmes.types)  # n_types x n_genes
    contrast = np.std(np.log1p(rates), axis=0) + 0.5 * np.abs(programmes.fields).max(axis=0)
    weight = (0.1 + contrast) ** 2
    return np.sort(stream.choice(len(weight), n_panel, replace=False, p=weight / weight.sum()))


def _draw_composition(n_types: int, stream: np.random.Generator) -> DoubleArray:
    """Draw the share of each type in each layer, _N_LAYERS x n_types."""
    edges = np.concatenate([[0.0], _LAYER_EDGES, [1.0]])
    middles = (edges[1:] + edges[:-1]) / 2
    at_home = np.arange(n_types) < (n_types + 1) // 2
    home = np.where(at_home, middles[np.arange(n_types) % _N_LAYERS], stream.random(n_types))
    width = np.where(at_home, 0.08, 0.45)
    share: DoubleArray = np.exp(-(((middles[:, None] - home) / width) ** 2) / 2) * np.where(
        at_home, 1.0, 0.35
    )
    share /= share.sum(axis=1, keepdims=True)
    return share


def _draw_cells(n_cells: int, extent: float, composition: DoubleArray, stream: np.random.Generator) -> _Cells:
    place = _draw_places(n_cells, extent, stream)
    across, depth = (place / extent).T
    wavy = depth + 0.03 * np.sin(3 * np.pi * across)  # wavy layers
    layer = np.searchsorted(_LAYER_EDGES, wavy)
    chance = np.cumsum(composition, axis=1)
    drawn = stream.random(n_cells) * chance[layer, -1]
    kind = (chance[layer] <= drawn[:, None]).sum(axis=1)

    fields = np.zeros((n_cells, _N_FIELDS))
    fields[np.arange(n_cells), layer] = 2 * across - 1  # from -1 to 1 along the layer, 0 elsewhere
    fields[:, -1] = np.exp(-(((across - 0.65) ** 2 + (depth - 0.45) ** 2) / (2 * 0.15**2)))
    return _Cells(
        place=place,
        layer=layer,
        type=kind,
        states=stream.standard_normal((n_cells, _N_STATES)),
        fields=fields,
        log_size=0.35 * stream.standard_normal(n_cells),
    )


def _draw_places(n_cells: int, extent: float, stream: np.random.Generator) -> DoubleArray:
    """Draw positions with a minimum distance, as between cells: a jittered grid with holes, n_cells x 2."""
    side = int(np.ceil(np.sqrt(n_cells * 1.1)))
    sites = np.sort(stream.choice(side**2, n_cells, replace=False))
    corner = np.column_stack([sites % side, sites // side])
    place: DoubleArray = (corner + stream.uniform(0.15, 0.85, (n_cells, 2))) * (extent / side)
    return place


def _measure(
    cells: _Cells,
    programmes: _Programmes,
    log_yield: DoubleArray,
    stream: np.random.Generator,
    *,
    dropout: float = 0.0,
) -> sp.csr_matrix:
    """Draw counts of the cells, n_cells x n_genes, in blocks to limit memory."""
    blocks = []
    for rows in row_blocks(len(cells.place), _BLOCK):
        log_rate = programmes.types[cells.type[rows]]  # block x n_genes
        log_rate += cells.states[rows] @ programmes.states + cells.fields[rows] @ programmes.fields
        log_rate += programmes.level + log_yield + cells.log_size[rows, None]
        rate = np.exp(np.minimum(log_rate, 6.0))  # so that no gene dominates a cell
        counts = stream.poisson(rate * stream.standard_gamma(5.0, rate.shape) / 5.0)
        if dropout > 0:
            counts[stream.random(rate.shape) < dropout * np.exp(-rate)] = 0
        blocks.append(sp.csr_matrix(counts, dtype=np.float32))
    return sp.csr_matrix(sp.vstack(blocks, format="csr"))


def _assemble(
    spatial: _Cells,
    truth: sp.csr_matrix,
    reference: _Cells,
    counts: sp.csr_matrix,
    programmes: _Programmes,
    panel: IntArray,
) -> SimulatedTissue:
    n_genes, n_types = len(programmes.level), len(programmes.types)
    genes = numbered_names("Gene", n_genes)
    types, layers = numbered_names("Type", n_types), numbered_names("Layer", _N_LAYERS)
    on_panel: BoolArray = np.isin(np.arange(n_genes), panel)
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical.from_codes(spatial.type, types),
            "layer": pd.Categorical.from_codes(spatial.layer, layers),
        },
        index=numbered_names("cell", len(spatial.type)),
    )
    var = pd.DataFrame({"panel": on_panel, "pattern": pd.Categorical(programmes.pattern)}, index=genes)
    full = anndata.AnnData(truth, obs=obs, var=var, obsm={"spatial": spatial.place})
    st = anndata.AnnData(
        truth[:, panel], obs=obs.copy(), var=var.loc[on_panel, []], obsm={"spatial": spatial.place.copy()}
    )
    sc = anndata.AnnData(
        counts,
        obs=pd.DataFrame(
            {"cell_type": pd.Categorical.from_codes(reference.type, types)},
            index=numbered_names("ref", len(reference.type)),
        ),
        var=pd.DataFrame(index=genes),
        obsm={"spatial_true": reference.place},
    )
    return SimulatedTissue(sc=sc, st=st, truth=full)


def numbered_names(word: str, count: int) -> pd.Index:
    """Return ``count`` numbered names, from 1, all with the same number of digits."""
    digits = len(str(count))
    return pd.Index([f"{word}{number:0{digits}d}" for number in range(1, count + 1)])
