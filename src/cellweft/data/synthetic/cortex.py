"""A simulated piece of mouse cortex with known truth: curved layers, white matter, vessels, a ventricle."""

from __future__ import annotations

from dataclasses import dataclass

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cellweft._compute import numpy_stream, row_blocks
from cellweft._errors import check_range, check_seed
from cellweft._typing import BoolArray, DoubleArray, IntArray
from cellweft.data.synthetic.tissue import SimulatedTissue, numbered_names

_SPACING = 14.0  # um between neighbouring cells at the highest density
_RADIUS, _WAVE = 3.2, 0.1  # radius of the pial surface, and amplitude of its waves, in cortical thicknesses
_ANGLES: tuple[float, float] = (np.deg2rad(40.0), np.deg2rad(140.0))  # the part of the arc in the slice
_MIDDLE = (_ANGLES[0] + _ANGLES[1]) / 2
_DEEPEST = 1.8  # largest depth of the slice, in cortical thicknesses
_LUMEN = (1.44, 0.15, 0.34)  # of the ventricle: depth, half its depth, half its angle
_LINING = 1.35  # radius of the ependyma, in radii of the lumen
_SURFACE = 0.025  # depth of the pia
_N_VESSELS, _VESSEL = 7, 0.035  # entering from the surface; half width including the wall
_NEIGHBOURS = 6  # number of cells that spill into a cell
_BLOCK = 8192  # cells per block of rates
_AREA = 120.0  # um^2, of a typical cell

_REGIONS = ("L1", "L2/3", "L4", "L5", "L6", "WM", "Striatum")
_EDGES = np.array([0.10, 0.32, 0.45, 0.68, 1.0, 1.22])  # depths of their borders
_DENSITY = np.array([0.35, 0.95, 1.0, 0.75, 0.85, 0.65, 0.8])  # of cells, relative

_MARKERS = {  # per type: class, relative area, marker genes
    "L2/3 IT": ("glutamatergic", 1.3, "Cux2 Cux1 Otof Rasgrf2 Calb1 Stard8 Cdh13"),
    "L4 IT": ("glutamatergic", 1.1, "Rorb Scnn1a Rspo1 Kcnh5 Whrn"),
    "L5 IT": ("glutamatergic", 1.7, "Etv1 Deptor Tshz2 Fam19a2 Tmem91"),
    "L5 ET": ("glutamatergic", 2.2, "Fezf2 Bcl11b Pou3f1 Crym Parm1 Bcl6"),
    "L6 CT": ("glutamatergic", 1.3, "Foxp2 Syt6 Tle4 Rprm Crym Hs3st4"),
    "L6b": ("glutamatergic", 1.2, "Ccn2 Cplx3 Nxph4 Moxd1"),
    "Pvalb": ("GABAergic", 1.5, "Pvalb Kcnc1 Tac1 Syt2 Btbd11"),
    "Sst": ("GABAergic", 1.4, "Sst Crh Chodl Grin3a Elfn1"),
    "Vip": ("GABAergic", 1.0, "Vip Calb2 Cck Htr3a Crispld2"),
    "Lamp5": ("GABAergic", 1.1, "Lamp5 Npy Reln Ndnf Gad1"),
    "MSN": ("GABAergic", 1.2, "Drd1 Drd2 Ppp1r1b Penk Adora2a Gpr88 Rgs9"),
    "Astrocyte": ("glia", 0.9, "Aqp4 Gja1 Aldh1l1 Slc1a3 Slc1a2 Gfap Fgfr3 Apoe"),
    "Oligodendrocyte": ("oligodendroglia", 0.6, "Mbp Plp1 Mog Mobp Cnp Opalin Mag Ugt8a"),
    "OPC": ("oligodendroglia", 0.7, "Pdgfra Cspg4 C1ql1 Gpr17 Neu4"),
    "Microglia": ("immune", 0.5, "Cx3cr1 P2ry12 Tmem119 C1qa Csf1r Aif1 Hexb Ctss"),
    "Endothelial": ("vascular", 0.6, "Cldn5 Pecam1 Flt1 Kdr Ly6c1 Slco1a4 Cdh5"),
    "Mural": ("vascular", 0.6, "Acta2 Rgs5 Pdgfrb Vtn Kcnj8 Myl9"),
    "VLMC": ("vascular", 0.7, "Dcn Col1a1 Col1a2 Lum Igf2 Slc6a13"),
    "Ependymal": ("glia", 0.7, "Foxj1 Ccdc153 Tmem212 Rarres2 Dnah11"),
}
_CLASS_MARKERS = {
    "glutamatergic": "Slc17a7 Neurod6 Satb2 Nrgn Camk2a Tbr1 Neurod2",
    "GABAergic": "Gad1 Gad2 Slc32a1 Dlx1 Erbb4",
    "glia": "Sox9 S100b Slc4a4 Mlc1",
    "oligodendroglia": "Olig1 Olig2 Sox10 Bcas1",
    "immune": "Cd68 Trem2 Laptm5 Tyrobp",
    "vascular": "Bgn Igfbp7 Sparc Foxc1",
}
_NEURONAL = "Snap25 Syt1 Rbfox3 Stmn2 Thy1 Gria2 Grin1 Snhg11"
_DEPTH = "Cux2 Lmo4 Nr4a2 Rorb Pcp4 Igfbp4 Cdh8 Efna5 Nefm Sema3e Lpl Wfs1 Trp53i11 Kitl Kcnn2"
_LATERAL = "Lypd1 Nr2f1 Lmo3 Epha7 Cdh6 Bhlhe22 Tenm3 Pcdh10 Sstr2 Cbln2 Tnnc1 Zmat4 Rxfp1 Nnat Wnt7b"
_STATE = "Fos Arc Egr1 Junb Nr4a1 Npas4 Fosb Btg2 Hspa1a Hspa5 Dusp1 Ier2"
_COMMON = (
    "Actb Malat1 Calm1 Calm2 Tubb5 Eef1a1 Gapdh Ubb Hsp90ab1 Ywhae Atp1b1 Cst3 Ckb Aldoa Tmsb4x Ppia "
    "Cox4i1 Ndufa4 Rpl13 Rps3 Rpl4 Rps18 Fth1 Ftl1 Itm2b Itm2c Psap Cpe Scd2 Mt1 Mt3 Sepw1 Dbi Selenop "
    "Ttr Nfib Nfia Meis2 Tcf4 Zbtb20 Auts2 Dlgap1 Nrxn1 Nrxn3 Nlgn1 Lsamp Opcml Cadm2 Ntm Pcdh9 Fgf14 "
    "Kcnip4 Kcnma1 Kcnq3 Cacna1e Grik2 Gabra1 Gabrb1 Ptprd Csmd1 Macrod2 Rbfox1 Celf2 Ank3 Map1b Map2 "
    "Mapt Nefl Syn1 Syp Vamp2 Stx1a Dnm1 Atp6v0c"
)

_EXCITATORY = {
    "L1": {},
    "L2/3": {"L2/3 IT": 0.62},
    "L4": {"L4 IT": 0.56, "L2/3 IT": 0.06},
    "L5": {"L5 IT": 0.34, "L5 ET": 0.14, "L4 IT": 0.04},
    "L6": {"L6 CT": 0.5, "L5 IT": 0.06, "L6b": 0.08},
    "WM": {"L6b": 0.03},
    "Striatum": {"MSN": 0.7},
}
_OTHERS = {  # types in several regions, in the order of _REGIONS
    "Pvalb": (0, 0.05, 0.08, 0.08, 0.05, 0, 0.02),
    "Sst": (0, 0.03, 0.04, 0.08, 0.05, 0.004, 0.02),
    "Vip": (0.02, 0.08, 0.04, 0.02, 0.02, 0, 0),
    "Lamp5": (0.3, 0.04, 0.01, 0.01, 0.02, 0, 0),
    "Astrocyte": (0.45, 0.1, 0.09, 0.1, 0.1, 0.2, 0.1),
    "Oligodendrocyte": (0.02, 0.03, 0.06, 0.1, 0.12, 0.6, 0.08),
    "OPC": (0.06, 0.03, 0.03, 0.03, 0.03, 0.07, 0.03),
    "Microglia": (0.12, 0.05, 0.05, 0.05, 0.05, 0.09, 0.05),
    "Endothelial": (0.05, 0.04, 0.04, 0.04, 0.03, 0.02, 0.03),
}


def simulate_cortex(
    *,
    n_spatial: int = 3000,
    n_reference: int = 2500,
    n_genes: int = 250,
    n_panel: int = 60,
    n_donors: int = 3,
    spill_over: float = 0.06,
    dropout: float = 0.3,
    platform_effect: float = 0.5,
    seed: int = 0,
) -> SimulatedTissue:
    """Simulate a slice of mouse cortex, a panel measurement of it, and an atlas of dissociated cells.

    Parameters
    ----------
    n_spatial, n_reference
        Number of cells in each input. They are different cells of the same tissue. The size of the slice
        grows with the number of cells.
    n_genes, n_panel
        Number of genes in the atlas, and how many of them the spatial panel measures.
    n_donors
        Number of donors in the atlas. Each has its own effect on every gene.
    spill_over
        Fraction, at least 0 and below 1, of a spatial cell's transcripts that come from its six nearest
        neighbours.
    dropout
        Probability, from 0 to 1, that the atlas misses a gene with a low rate in a cell.
    platform_effect
        Standard deviation over genes of the log-ratio between the yields of the spatial platform and the
        atlas.
    seed
        Random seed.

    Returns
    -------
    SimulatedTissue
        ``st`` and ``truth``: ``obs["cell_type"]``, ``obs["region"]`` (layers, white matter, striatum),
        ``obs["depth"]`` (0 at the pia, 1 at the white matter), ``obs["cell_area"]`` (um^2), and
        ``obsm["spatial"]`` (um). ``sc``: ``obs["cell_type"]``, ``obs["donor"]``, ``obsm["spatial_true"]``.
        ``truth.var["pattern"]``: the expression pattern of a gene, "marker", "depth", "lateral", "state" or
        "common". ``truth.obs["spill_over"]``: the fraction of a cell's expected panel counts that comes from
        its neighbours. It is larger than ``spill_over`` for a small cell among large ones.

    Raises
    ------
    SettingError
        A setting is out of range.

    Notes
    -----
    The slice is an arc of cortex with a wavy surface. Layers follow the depth. Below them are white matter
    and part of the striatum, which contain a ventricle lined by ependyma. Vessels enter from the surface;
    their walls, and the surface, have their own cell types. The log rate of a gene in a cell is the sum of
    the level of the gene, effects of the cell's class and type (markers are named as in the literature, their
    strengths are random), a gradient over depth in glutamatergic neurons, a gradient along the cortex, and
    states that vary within types. Counts are gamma-Poisson. The capture efficiency of a spatial cell
    increases with its area. Atlas cells differ in depth and donor. No parameter was fitted to data.

    Examples
    --------
    >>> cortex = simulate_cortex(n_spatial=300, n_reference=200, n_genes=120, n_panel=30)
    >>> cortex.sc.shape, cortex.st.shape, cortex.truth.shape
    ((200, 120), (300, 30), (300, 120))
    >>> "Cux2" in cortex.sc.var_names
    True
    """
    check_range("n_spatial", n_spatial, low=10, high=10**8, integer=True)
    check_range("n_reference", n_reference, low=2, high=10**8, integer=True)
    check_range("n_genes", n_genes, low=2, high=10**8, integer=True)
    check_range("n_panel", n_panel, low=1, high=n_genes, integer=True)
    check_range("n_donors", n_donors, low=1, high=10**6, integer=True)
    check_range("spill_over", spill_over, low=0, high=0.99)
    check_range("dropout", dropout, low=0, high=1)
    check_range("platform_effect", platform_effect, low=0)
    check_seed(seed)
    programmes = _draw_programmes(n_genes, numpy_stream(seed, "cortex: programmes"))
    panel = _draw_panel(programmes, n_panel, numpy_stream(seed, "cortex: panel"))
    thickness = _thickness(n_spatial)
    vessels = _draw_vessels(numpy_stream(seed, "cortex: vessels"))

    stream = numpy_stream(seed, "cortex: spatial cells")
    spatial = _draw_cells(n_spatial, thickness, vessels, stream)
    effect = platform_effect * stream.standard_normal(n_genes)
    efficiency = 0.25 * stream.standard_normal(n_spatial) + np.log(spatial.area / _AREA)
    truth, spilled = _measure(
        spatial, programmes, effect, efficiency, stream, spill_over=spill_over, panel=panel
    )

    stream = numpy_stream(seed, "cortex: reference cells")
    reference = _draw_cells(n_reference, thickness, vessels, stream, loss=0.4)
    donor = stream.integers(n_donors, size=n_reference)
    by_donor = 0.15 * stream.standard_normal((n_donors, n_genes)) + np.log(1.5)
    depth = 0.4 * stream.standard_normal(n_reference) + 0.5 * np.log(reference.area / _AREA)
    counts, _ = _measure(reference, programmes, by_donor[donor], depth, stream, dropout=dropout, panel=panel)
    simulated = _assemble(spatial, truth, reference, counts, programmes, panel=panel, donor=donor)
    simulated.truth.obs["spill_over"] = spilled
    return simulated


@dataclass(frozen=True, kw_only=True)
class _Programmes:
    """Log effects on genes, and the pattern of each gene."""

    genes: NDArray[np.str_]  # n_genes
    level: DoubleArray  # n_genes
    types: DoubleArray  # n_types x n_genes, class and type together
    depth: DoubleArray  # n_genes, over the depth of the cortex, in glutamatergic neurons
    lateral: DoubleArray  # _N_FIELDS x n_genes, along the cortex, most in neurons
    states: DoubleArray  # n_states x n_genes
    pattern: NDArray[np.str_]  # n_genes


@dataclass(frozen=True, kw_only=True)
class _Cells:
    """Cells in the tissue, before they are measured."""

    place: DoubleArray  # n_cells x 2, um
    region: IntArray  # n_cells
    type: IntArray  # n_cells
    depth: DoubleArray  # n_cells, 0 at the pia, 1 at the white matter
    along: DoubleArray  # n_cells, from -1 to 1 along the cortex
    area: DoubleArray  # n_cells, um^2
    states: DoubleArray  # n_cells x n_states


_N_STATES, _N_FIELDS = 4, 3
_TYPES = tuple(_MARKERS)
_CLASS_OF = np.array([kind for kind, _, _ in _MARKERS.values()])
_IS_NEURON = np.isin(_CLASS_OF, ["glutamatergic", "GABAergic"])


def _named_genes(n_genes: int) -> tuple[list[str], dict[str, str]]:
    """Return gene names, starting with known markers of types, and the pattern of each gene."""
    markers = [
        names.split()
        for names in (*(marker_names for _, _, marker_names in _MARKERS.values()), *_CLASS_MARKERS.values())
    ]
    longest = max(map(len, markers))
    by_turns = [
        marker_names[turn] for turn in range(longest) for marker_names in markers if turn < len(marker_names)
    ]
    groups = (
        ("marker", [*by_turns, *_NEURONAL.split()]),
        ("depth", _DEPTH.split()),
        ("lateral", _LATERAL.split()),
        ("state", _STATE.split()),
        ("common", _COMMON.split()),
    )
    pattern: dict[str, str] = {}
    for name, genes in groups:
        for gene in genes:
            pattern.setdefault(gene, name)
    kinds = pd.Series(pattern)
    rank = kinds.groupby(kinds).cumcount() / kinds.groupby(kinds).transform(
        "size"
    )  # the best markers of each type first
    names = kinds.index[np.sort(np.argsort(rank.to_numpy(), kind="stable")[:n_genes])].tolist()
    more = numbered_names("Gene", max(n_genes - len(names), 0)).tolist()
    return [*names, *more], pattern


def _draw_programmes(n_genes: int, stream: np.random.Generator) -> _Programmes:
    names, kinds = _named_genes(n_genes)
    place = {name: number for number, name in enumerate(names)}
    pattern = np.array([kinds.get(name, "common") for name in names])
    is_broad = pattern != "marker"

    def at(text: str) -> IntArray:
        return np.array([place[name] for name in text.split() if name in place], dtype=np.int64)

    classes = sorted(set(_CLASS_OF))
    broad = stream.normal(0, 0.6, (len(classes), n_genes)) * (stream.random((len(classes), n_genes)) < 0.5)
    types = broad[np.searchsorted(classes, _CLASS_OF)] * np.where(is_broad, 1.0, 0.3)
    types += stream.normal(0, 0.2, types.shape)
    for number, (kind, _, markers) in enumerate(_MARKERS.values()):
        own, shared = at(markers), at(_CLASS_MARKERS[kind])
        types[number, own] += stream.uniform(1.8, 3.4, len(own))
        types[number, shared] += stream.uniform(1.5, 2.8, len(shared))
    neuronal = at(_NEURONAL)
    types[np.ix_(np.flatnonzero(_IS_NEURON), neuronal)] += stream.uniform(1.0, 2.0, len(neuronal))
    depth, lateral = np.zeros(n_genes), np.zeros((_N_FIELDS, n_genes))
    depth[at(_DEPTH)] = stream.uniform(1.2, 2.4, len(at(_DEPTH))) * stream.choice([-1, 1], len(at(_DEPTH)))
    graded = at(_LATERAL)
    lateral[np.arange(len(graded)) % _N_FIELDS, graded] = stream.uniform(1.2, 2.0, len(graded))
    states = stream.normal(0, 0.3, (_N_STATES, n_genes)) * (stream.random((_N_STATES, n_genes)) < 0.25)
    states[0, at(_STATE)] = stream.uniform(0.8, 1.3, len(at(_STATE)))
    level = np.where(is_broad, stream.normal(-0.3, 0.9, n_genes), stream.normal(-1.3, 0.5, n_genes))
    return _Programmes(
        genes=np.array(names),
        level=level,
        types=types,
        depth=depth,
        lateral=lateral,
        states=states,
        pattern=pattern,
    )


def _draw_panel(programmes: _Programmes, n_panel: int, stream: np.random.Generator) -> IntArray:
    """Draw the panel genes; genes that distinguish types are more likely, as on real panels."""
    contrast = np.std(np.log1p(np.exp(programmes.level + programmes.types)), axis=0)
    graded = np.abs(programmes.depth) + np.abs(programmes.lateral).sum(axis=0)
    weight = (0.1 + contrast + 0.3 * graded) ** 2
    return np.sort(stream.choice(len(weight), n_panel, replace=False, p=weight / weight.sum()))


def _thickness(n_cells: int) -> float:
    """Return the thickness of the cortex (um) for which the slice has space for the cells."""
    inner, angle = _RADIUS - _DEEPEST, _ANGLES[1] - _ANGLES[0]
    area = angle * (_RADIUS**2 - inner**2) / 2  # in squared thicknesses
    return float(_SPACING * np.sqrt(1.5 * n_cells / area))


def _draw_vessels(stream: np.random.Generator) -> DoubleArray:
    """Return angle, sway, phase and depth of each vessel, n_vessels x 4."""
    angles = np.linspace(_ANGLES[0], _ANGLES[1], _N_VESSELS + 2)[1:-1] + stream.uniform(
        -0.08, 0.08, _N_VESSELS
    )
    sway, phase = stream.uniform(0.01, 0.04, _N_VESSELS), stream.uniform(0, 6, _N_VESSELS)
    return np.column_stack([angles, sway, phase, stream.uniform(0.5, 1.15, _N_VESSELS)])


def _draw_cells(
    n_cells: int, thickness: float, vessels: DoubleArray, stream: np.random.Generator, *, loss: float = 0.0
) -> _Cells:
    """Draw cells: a jittered grid, thinned to the density of each region; some types are lost more often."""
    survival = np.minimum(np.exp(loss * stream.standard_normal(len(_TYPES)) - loss), 1.0)
    parts: list[tuple[DoubleArray, IntArray]] = []
    while sum(len(kind) for _, kind in parts) < n_cells:
        place = _shaken_grid(_SPACING / thickness, stream)
        angle, depth = _polar(place)
        in_arc = (depth > 0) & (depth < _DEEPEST) & (angle > _ANGLES[0]) & (angle < _ANGLES[1])
        is_dense = stream.random(len(place)) < _DENSITY[np.searchsorted(_EDGES, depth)]
        place = place[in_arc & is_dense & (_lumen(angle, depth) > 1)]
        kind = _draw_types(*_polar(place), vessels, stream)
        alive = stream.random(len(kind)) < survival[kind]
        parts.append((place[alive], kind[alive]))
    place, kind = (
        np.concatenate([places for places, _ in parts]),
        np.concatenate([kinds for _, kinds in parts]),
    )
    drawn = np.sort(stream.choice(len(place), n_cells, replace=False))
    place, kind = place[drawn], kind[drawn]
    angle, depth = _polar(place)
    relative = np.array([size for _, size, _ in _MARKERS.values()])[kind]
    corner = np.array([_RADIUS * np.cos(_ANGLES[1]), _RADIUS + _WAVE])  # to the left of and above all cells
    return _Cells(
        place=np.abs(place - corner) * thickness,  # y points down, as in images
        region=np.searchsorted(_EDGES, depth),
        type=kind,
        depth=depth,
        along=2 * (angle - _MIDDLE) / (_ANGLES[1] - _ANGLES[0]),
        area=_AREA * relative * np.exp(0.25 * stream.standard_normal(n_cells)),
        states=stream.standard_normal((n_cells, _N_STATES)),
    )


def _shaken_grid(spacing: float, stream: np.random.Generator) -> DoubleArray:
    """Return positions with a minimum distance, as between cells, over the arc, in thicknesses; n x 2."""
    width, high = _RADIUS * np.cos(_ANGLES[0]) + _WAVE, _RADIUS + _WAVE
    across = np.arange(-width, width, spacing)
    up = np.arange((_RADIUS - _DEEPEST - _WAVE) * np.sin(_ANGLES[0]), high, spacing)
    grid = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
    return np.asarray(grid + stream.uniform(-0.35, 0.35, grid.shape) * spacing)


def _polar(place: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """Return the angle of positions (rad), and their depth below the wavy surface, in thicknesses."""
    angle = np.arctan2(place[:, 1], place[:, 0])
    return angle, _RADIUS + _WAVE * np.sin(5 * angle) - np.hypot(*place.T)


def _lumen(angle: DoubleArray, depth: DoubleArray) -> DoubleArray:
    """Return the distance of positions from the centre of the ventricle, in radii of its lumen."""
    middle, half_depth, half_angle = _LUMEN
    return np.asarray(np.hypot((angle - _MIDDLE) / half_angle, (depth - middle) / half_depth))


def _draw_types(
    angle: DoubleArray, depth: DoubleArray, vessels: DoubleArray, stream: np.random.Generator
) -> IntArray:
    """Draw the type of cells, given their positions; n_cells."""
    region = np.searchsorted(_EDGES, depth)
    chance = np.cumsum(_composition(), axis=1)
    kind: IntArray = (chance[region] <= stream.random(len(region))[:, None]).sum(axis=1)
    turn = stream.random(len(kind))
    for middle, sway, phase, deep in vessels:
        apart = np.abs(angle - middle - sway * np.sin(6 * depth + phase)) * (_RADIUS - depth)
        on_vessel = (apart < _VESSEL) & (depth < deep)
        kind[on_vessel] = np.where(turn < 0.6, _TYPES.index("Endothelial"), _TYPES.index("Mural"))[on_vessel]
    kind[(depth < _SURFACE) & (turn < 0.9)] = _TYPES.index("VLMC")
    kind[(_lumen(angle, depth) < _LINING) & (turn < 0.85)] = _TYPES.index("Ependymal")
    return kind


def _composition() -> DoubleArray:
    """Return the share of each type in each region, n_regions x n_types."""
    share = np.zeros((len(_REGIONS), len(_TYPES)))
    for number, region in enumerate(_REGIONS):
        for name, part in _EXCITATORY[region].items():
            share[number, _TYPES.index(name)] = part
        for name, parts in _OTHERS.items():
            share[number, _TYPES.index(name)] = parts[number]
    return np.asarray(share / share.sum(axis=1, keepdims=True))


def _measure(
    cells: _Cells,
    programmes: _Programmes,
    log_yield: DoubleArray,
    log_depth: DoubleArray,
    stream: np.random.Generator,
    *,
    spill_over: float = 0.0,
    dropout: float = 0.0,
    panel: IntArray,
) -> tuple[sp.csr_matrix, DoubleArray]:
    """Draw counts of the cells, n_cells x n_genes, in blocks to limit memory.

    ``log_yield`` is per gene, (n_genes,), or per cell and gene, (n_cells, n_genes). The second result is the
    share of each cell's expected panel counts that comes from its neighbours, (n_cells,).
    """
    blocks, shares = [], np.zeros(len(cells.place))
    near: IntArray | None = None
    if spill_over:
        near = np.asarray(cKDTree(cells.place).query(cells.place, _NEIGHBOURS + 1)[1])[:, 1:]
    for rows in row_blocks(len(cells.place), _BLOCK):
        numbers = np.arange(rows.start, rows.stop)

        def rates(which: IntArray) -> DoubleArray:
            gain = log_yield if log_yield.ndim == 1 else log_yield[which]
            return np.exp(
                np.minimum(_log_rates(cells, programmes, which) + gain + log_depth[which, None], 6.0)
            )

        rate = rates(numbers)
        if near is not None:
            spilled = sum(rates(near[rows, turn]) for turn in range(near.shape[1])) / near.shape[1]
            rate = (1 - spill_over) * rate + spill_over * spilled
            shares[rows] = spill_over * spilled[:, panel].sum(axis=1) / rate[:, panel].sum(axis=1)
        counts = stream.poisson(rate * stream.standard_gamma(5.0, rate.shape) / 5.0)
        if dropout > 0:
            counts[stream.random(rate.shape) < dropout * np.exp(-rate)] = 0
        blocks.append(sp.csr_matrix(counts, dtype=np.float32))
    return sp.csr_matrix(sp.vstack(blocks, format="csr")), shares


def _log_rates(cells: _Cells, programmes: _Programmes, which: IntArray) -> DoubleArray:
    """Return the log rate of each gene in some cells, (n_which, n_genes)."""
    kind = cells.type[which]
    is_deep = (_CLASS_OF == "glutamatergic")[kind] * (np.minimum(cells.depth[which], 1.1) - 0.5)
    rate = programmes.level + programmes.types[kind] + cells.states[which] @ programmes.states
    along = cells.along[which]
    fields = np.stack([along, np.cos(np.pi * along), np.sin(np.pi * along)], axis=1)  # which x _N_FIELDS
    fields *= np.where(_IS_NEURON[kind], 1.0, 0.4)[:, None]
    rate += is_deep[:, None] * programmes.depth + fields @ programmes.lateral
    return np.asarray(rate)


def _assemble(
    spatial: _Cells,
    truth: sp.csr_matrix,
    reference: _Cells,
    counts: sp.csr_matrix,
    programmes: _Programmes,
    *,
    panel: IntArray,
    donor: IntArray,
) -> SimulatedTissue:
    genes, types = pd.Index(programmes.genes), pd.Index(_TYPES)
    on_panel: BoolArray = np.isin(np.arange(len(genes)), panel)
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical.from_codes(spatial.type, types),
            "region": pd.Categorical.from_codes(spatial.region, pd.Index(_REGIONS)),
            "depth": spatial.depth,
            "cell_area": spatial.area,
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
            {
                "cell_type": pd.Categorical.from_codes(reference.type, types),
                "donor": pd.Categorical.from_codes(donor, numbered_names("donor", int(donor.max()) + 1)),
            },
            index=numbered_names("ref", len(reference.type)),
        ),
        var=pd.DataFrame(index=genes),
        obsm={"spatial_true": reference.place},
    )
    return SimulatedTissue(sc=sc, st=st, truth=full)
