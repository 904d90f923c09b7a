"""Cautions about odd inputs: values, coordinates, slices and names that measured data do not have."""

import re
from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from cellweft._errors import FormatError, GeneError, ScaleError
from cellweft.data._pair import Pair, pair

GENES = [f"Gene{name}" for name in "ABCDEFGHIJKLMNOPQRSTUVWX"]
N_CELLS = 60
Counts = NDArray[np.float64]


@pytest.fixture
def counts() -> Counts:
    stream = np.random.default_rng(0)
    return stream.poisson(stream.gamma(1, 2, (N_CELLS, len(GENES)))).astype(np.float64)


def side(values: Counts, genes: list[str] = GENES) -> ad.AnnData:
    names = pd.DataFrame(index=[f"s{number}" for number in range(len(values))])
    places = np.random.default_rng(2).uniform(0, 1000, (len(values), 2))
    data = ad.AnnData(values.astype(np.float32), obs=names, var=pd.DataFrame(index=genes))
    data.obsm["spatial"] = places
    return data


def reference() -> ad.AnnData:
    stream = np.random.default_rng(1)
    genes = [*GENES, *(f"Other{number}x" for number in range(20))]
    return side(stream.poisson(stream.gamma(1, 2, (80, len(genes)))).astype(np.float64), genes)


def said(made: Pair, text: str) -> bool:
    return any(re.search(text, caution) for caution in made.cautions)


def per_cell(values: Counts) -> Counts:
    return np.asarray(values / values.sum(axis=1, keepdims=True))


def test_plain_counts_give_no_caution(counts: Counts) -> None:
    odd = (
        "zero, as|about|different scales|alternative spelling|copies|the same position|on a line|farther "
        "apart"
    )
    assert not said(pair(reference(), side(counts)), odd)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda x: np.rint(per_cell(x) * 1e6), "every cell has about 1,000,00. counts, as with ranks"),
        (lambda x: np.rint(per_cell(x) * 1e4), "every cell has about 10,00. counts, as with ranks"),
        (lambda x: np.log2(x + 1) + 5, "no value is zero, as in smoothed, imputed or shifted data"),
        (
            lambda x: np.vstack([np.log1p(per_cell(x[:30]) * 1e4), x[30:]]),
            "many cells contain whole counts, and ot",
        ),
        (
            lambda x: np.vstack([per_cell(x[:30]) * 1e4, x[30:]]),
            "others contain values that look like counts divided by",
        ),
    ],
)
def test_values_that_are_not_measured_counts_are_reported(
    counts: Counts, change: Callable[[Counts], Counts], text: str
) -> None:
    assert said(pair(reference(), side(change(counts))), f"Spatial: .*{text}")


def test_counts_above_zero_everywhere_are_reported() -> None:
    """Counts to which 1 was added, as before taking logarithms."""
    counts = np.random.default_rng(4).poisson(2.0, (40, 120)) + 1
    names = [f"Gene{number}" for number in range(120)]
    sc = ad.AnnData(counts.astype(np.float32), var=pd.DataFrame(index=names))
    st = ad.AnnData(counts[:, :60] - 1.0, var=pd.DataFrame(index=names[:60]))
    st.obsm["spatial"] = np.random.default_rng(5).random((40, 2))
    made = pair(sc, st)
    assert said(made, "Reference: no value is zero, as in smoothed, imputed or shifted data")
    assert not said(made, "Spatial: no value is zero")


def test_counts_with_background_removed_in_some_cells_have_one_scale(counts: Counts) -> None:
    ambient = np.random.default_rng(3).uniform(0, 0.08, counts.shape)
    ambient[30:] = 0
    assert not said(
        pair(reference(), side(np.clip(counts - ambient, 0, None))), "on different scales are combined"
    )


@pytest.mark.parametrize("depth", [1e4, 1e6])
@pytest.mark.parametrize("decimals", [2, 3])
def test_rounded_logarithms_are_logarithms(counts: Counts, depth: float, decimals: int) -> None:
    made = pair(reference(), side(np.round(np.log1p(per_cell(counts) * depth), decimals)))
    assert made.st.judgement.scale == "log"


def test_logarithms_of_values_below_one_are_refused(counts: Counts) -> None:
    with pytest.raises(ScaleError, match=r"as in z-scored .*, or logarithms of values below 1"):
        pair(reference(), side(np.log2(counts + 0.01)))


def test_columns_with_far_larger_values_than_genes_are_reported(counts: Counts) -> None:
    odd = np.random.default_rng(4).integers(10, 30, (N_CELLS, 1))
    made = pair(reference(), side(np.hstack([counts, odd]), [*GENES, "thickness"]))
    assert said(made, "columns that are not in the reference make up 3.% of a typical cell's values")


@pytest.mark.parametrize("place", [0.0, -1.0])
def test_cells_at_a_placeholder_position_are_reported(counts: Counts, place: float) -> None:
    tissue = side(counts)
    tissue.obsm["spatial"][:9] = place
    made = pair(reference(), tissue)
    assert said(
        made, re.escape(f"9 are at ({place}, {place}), which may mean a missing position: remove those")
    )


@pytest.mark.parametrize("slope", [0.0, 1.0, -2.5])
def test_cells_on_any_line_are_reported(counts: Counts, slope: float) -> None:
    tissue = side(counts)
    tissue.obsm["spatial"][:, 1] = slope * tissue.obsm["spatial"][:, 0] + 3
    assert said(pair(reference(), tissue), "all cells lie on a line")


def test_slices_in_two_units_or_on_two_scales_are_reported(counts: Counts) -> None:
    tissue = side(counts)
    tissue.obs["section"] = np.repeat(["a", "b"], 30)
    assert not said(pair(reference(), tissue), "farther apart|typical cell of")
    tissue.obsm["spatial"][30:] /= 1000
    assert said(
        pair(reference(), tissue), "the cells of 'a' are .* times farther apart than those of 'b', as when"
    )
    tissue.X[30:] *= 100
    assert said(
        pair(reference(), tissue), "a typical cell of 'b' has .* times as many counts as one of 'a', as when"
    )


def test_copies_whose_names_were_made_unique_are_reported(counts: Counts) -> None:
    genes = [*GENES[:21], "GeneA-1", "GeneA.2", "GeneB_1"]
    made = pair(reference(), side(counts, genes))
    assert said(made, "Spatial: 'GeneA-1', 'GeneA.2', 'GeneB_1' may be further copies of shared genes")


@pytest.mark.parametrize("name", ["1-MAR", "2020-03-01", "3/1/2020", "2.31E+13", "Sep-02", "01. Mrz"])
def test_names_that_a_spreadsheet_changed_are_reported(counts: Counts, name: str) -> None:
    made = pair(reference(), side(counts, [*GENES[:-1], name]))
    assert said(made, f"'{re.escape(name)}' may be genes whose names a spreadsheet converted")


def test_names_in_the_form_of_python_bytes_match_with_a_caution(counts: Counts) -> None:
    made = pair(reference(), side(counts, [f"b'{gene}'" for gene in GENES]))
    assert len(made.shared_genes) == len(GENES)
    assert said(made, "matched only by an alternative spelling")


def test_two_species_in_one_matrix_are_reported(counts: Counts) -> None:
    both = np.hstack([counts, counts])
    genes = [*(f"mm10_{gene}" for gene in GENES), *(f"GRCh38_{gene.upper()}" for gene in GENES)]
    message = (
        r"no shared gene .* left out, because several genes have this name.*combines cells of two species"
    )
    with pytest.raises(GeneError, match=message):
        pair(side(both, genes), side(counts))


@pytest.mark.parametrize("slot", ["obs", "var"])
def test_names_of_several_levels_are_refused(counts: Counts, slot: str) -> None:
    tissue = side(counts)
    table: Any = getattr(tissue, slot)
    table.index = pd.MultiIndex.from_arrays([table.index, table.index])
    with pytest.raises(
        FormatError, match=rf"st \(AnnData\).{slot}_names: expected one name per entry, got names with"
    ):
        pair(reference(), tissue)


def test_names_that_a_spreadsheet_changed_in_the_reference_are_reported(counts: Counts) -> None:
    sc = reference()
    sc.var_names = ["1-Mar", *sc.var_names[1:]]
    assert said(pair(sc, side(counts)), "Reference: '1-Mar' may be genes whose names a spreadsheet converted")


def test_genes_of_two_genomes_are_reported(counts: Counts) -> None:
    sc = reference()
    half = sc.n_vars // 2
    sc.var_names = [f"{'hg38' if n < half else 'mm10'}_{name}" for n, name in enumerate(sc.var_names)]
    text = r"Reference: genes of several genomes \('hg38', 'mm10'\) all contribute to a cell's total count"
    assert said(pair(sc, side(counts)), text)


def test_droplets_without_a_cell_are_reported(counts: Counts) -> None:
    random, names = np.random.default_rng(0), [*reference().var_names]
    n_more = 2_400 - len(names)
    var = pd.DataFrame(index=[*names, *(f"More{number}" for number in range(n_more))])
    droplets = random.poisson(0.005, (60, len(var)))
    droplets[:20] += random.poisson(0.2, (20, len(var)))
    text = "Reference: 40 of 60 cells have fewer than 50 counts in 2,400 genes, as empty droplets"
    assert said(pair(ad.AnnData(droplets.astype(np.float32), var=var), side(counts)), text)
    assert not said(pair(ad.AnnData(droplets[:30].astype(np.float32), var=var), side(counts)), "droplets")


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_counts_at_the_limit_of_their_integer_type_are_reported(counts: Counts, kind: type) -> None:
    most = np.iinfo(kind).max
    values = counts.clip(0, 100)
    values[:3, :2] = most
    st = side(values)
    assert not said(pair(reference(), st), "the type of the matrix")
    st.X = values.astype(kind)
    assert said(pair(reference(), st), f"Spatial: the largest value is {most}, and the type of the matrix")


def test_a_third_coordinate_with_few_values_or_row_numbers_is_reported(counts: Counts) -> None:
    st = side(counts)
    places, n_cells = st.obsm["spatial"], st.n_obs
    st.obsm["spatial"] = np.column_stack([places, np.repeat([0.0, 10.0], n_cells // 2)])
    assert said(pair(reference(), st), "the third coordinate has only 2 values, as in a stack of sections")
    st.obs["plane"] = np.repeat(["a", "b"], n_cells // 2)
    assert not said(pair(reference(), st, slices="plane"), "third coordinate")
    st.obsm["spatial"] = np.column_stack([np.arange(n_cells), places])
    assert said(pair(reference(), st), "column 1 of the coordinates only numbers the cells")


def test_a_gene_with_more_counts_than_all_others_is_reported(counts: Counts) -> None:
    values = counts.copy()
    values[:, 3] = values[:, 3] * 500 + 40
    assert said(
        pair(reference(), side(values)),
        r"Spatial: 'GeneD' makes up about 9\d% of all values. Check that they are",
    )
    assert not said(pair(reference(), side(counts)), "of all values")


def test_rows_and_columns_of_a_staggered_grid_are_reported(counts: Counts) -> None:
    st = side(counts)
    del st.obsm["spatial"]
    rows, columns = np.divmod(np.arange(N_CELLS), 6)
    st.obs["array_row"], st.obs["array_col"] = rows, 2 * columns + rows % 2
    assert said(
        pair(reference(), st), "In such a grid, rows are 1.73 times farther apart than these numbers suggest"
    )
    st.obs["array_col"] = columns
    assert not said(pair(reference(), st), "In such a grid")
