"""Other cells for the spots of an existing pair: what is kept, what is replaced, and errors."""

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from cellweft._errors import GeneError, InputError, KeyMissingError, MissingFileError, ScaleError
from cellweft.data._pair import Pair, pair
from cellweft.data.synthetic.tissue import SimulatedTissue

with_reference = Pair.with_reference


def panel_values(of: Pair) -> np.ndarray:
    return of.sc.dense(slice(None), of.sc_shared)


def test_the_same_cells_are_the_same_pair(tissue: SimulatedTissue, tissue_pair: Pair) -> None:
    again = with_reference(tissue_pair, tissue.sc)
    np.testing.assert_array_equal(panel_values(again), panel_values(tissue_pair))
    np.testing.assert_array_equal(again.labels, tissue_pair.labels)  # type: ignore[arg-type]
    assert again.findings == tissue_pair.findings


def test_the_spots_and_the_panel_are_kept(tissue: SimulatedTissue, tissue_pair: Pair) -> None:
    other = with_reference(tissue_pair, tissue.sc[:10].copy())
    assert other.st is tissue_pair.st
    assert other.coordinates is tissue_pair.coordinates
    assert other.spacing == tissue_pair.spacing
    np.testing.assert_array_equal(other.shared_genes, tissue_pair.shared_genes)
    np.testing.assert_array_equal(other.st_shared, tissue_pair.st_shared)


def test_the_cells_are_replaced(tissue: SimulatedTissue, tissue_pair: Pair) -> None:
    """The new cells are in another order, with their genes in another order and in other case."""
    order = np.random.default_rng(0).permutation(tissue.sc.n_obs)[:40]
    cells = tissue.sc[order].copy()[:, ::-1].copy()
    cells.var_names = [name.upper() for name in cells.var_names]
    other = with_reference(tissue_pair, cells)
    assert other.sc.obs_names.tolist() == cells.obs_names.tolist()
    assert [name.lower() for name in other.sc.genes[other.sc_shared]] == [
        name.lower() for name in tissue_pair.shared_genes
    ]
    assert other.labels.tolist() == cells.obs["cell_type"].astype(str).tolist()  # type: ignore[union-attr]
    # The same values except for the target size, which is the median of these cells.
    plain = np.expm1(panel_values(tissue_pair)[order]) / tissue_pair.sc.target
    np.testing.assert_allclose(np.expm1(panel_values(other)) / other.sc.target, plain, rtol=1e-5, atol=1e-9)


def test_the_summary_is_of_the_new_cells(tissue: SimulatedTissue, tissue_pair: Pair) -> None:
    assert any(one.startswith("Reference: 1 cell has no counts") for one in tissue_pair.cautions)
    other = with_reference(tissue_pair, tissue.sc[10:50, tissue_pair.sc_shared].copy())
    assert other.findings["reference"]["cells"] == 40
    assert other.findings["genes_to_impute"] == 0
    assert other.findings["spatial"] == tissue_pair.findings["spatial"]
    assert not any("Reference: 1 cell" in one for one in other.cautions)
    assert any(one.startswith("Spatial: 1 cell has no counts") for one in other.cautions)
    assert "cells         40" in other.summary()


def test_more_genes_than_the_panel_are_accepted(tissue: SimulatedTissue) -> None:
    known = pair(tissue.sc[:, :20].copy(), tissue.st)
    other = with_reference(known, tissue.sc)
    assert (known.sc.n_genes, other.sc.n_genes) == (20, 28)
    np.testing.assert_array_equal(other.sc.genes[other.sc_shared], known.shared_genes)


def test_a_smaller_panel_is_kept(tissue: SimulatedTissue, tissue_pair: Pair) -> None:
    fewer = tissue_pair.panel(tissue_pair.shared_genes[2:7])
    other = with_reference(fewer, tissue.sc[:30].copy())
    np.testing.assert_array_equal(other.shared_genes, tissue_pair.shared_genes[2:7])


def test_the_reference_may_be_a_path(tissue: SimulatedTissue, tissue_pair: Pair, tmp_path: Path) -> None:
    tissue.sc[:20].copy().write_h5ad(tmp_path / "cells.h5ad")
    before = (tmp_path / "cells.h5ad").read_bytes()
    other = with_reference(tissue_pair, tmp_path / "cells.h5ad")
    assert other.sc.n_cells == 20
    assert other.findings["reference"]["source"].endswith("cells.h5ad")
    assert (tmp_path / "cells.h5ad").read_bytes() == before


def test_labels_and_layers_are_chosen(tissue: SimulatedTissue, tissue_pair: Pair) -> None:
    cells = tissue.sc[:20].copy()
    cells.obs["mine"] = ["a", "b"] * 10
    cells.layers["counts"] = cells.X
    cells.X = cells.X * 0.5
    other = with_reference(tissue_pair, cells, labels="mine", sc_layer="counts")
    assert other.labels.tolist() == ["a", "b"] * 10  # type: ignore[union-attr]
    assert other.findings["reference"]["layer"] == "counts"
    plain = with_reference(tissue_pair, tissue.sc[:20].copy())
    np.testing.assert_array_equal(panel_values(other), panel_values(plain))


def test_neither_the_pair_nor_the_cells_are_changed(tissue: SimulatedTissue, tissue_pair: Pair) -> None:
    before = tissue.sc.X.toarray(), tissue_pair.findings["reference"].copy(), tissue_pair.cautions
    with_reference(tissue_pair, tissue.sc[:5].copy())
    with_reference(tissue_pair, tissue.sc)
    np.testing.assert_array_equal(tissue.sc.X.toarray(), before[0])
    assert (tissue_pair.findings["reference"], tissue_pair.cautions) == before[1:]
    assert tissue_pair.sc.n_cells == 100


def test_genes_of_the_panel_that_are_missing_are_named(tissue: SimulatedTissue, tissue_pair: Pair) -> None:
    first = tissue_pair.shared_genes[0]
    lacking = tissue.sc[:, tissue.sc.var_names != first].copy()
    with pytest.raises(GeneError, match=rf"all 12 genes of the panel, got 1 that are missing: '{first}'"):
        with_reference(tissue_pair, lacking)
    foreign = tissue.sc.copy()
    foreign.var_names = [f"Other{number}" for number in range(28)]
    with pytest.raises(
        GeneError,
        match=r"got 12 that are missing: .* and 7 more\. Pass cells in which these genes were measured",
    ):
        with_reference(tissue_pair, foreign)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (lambda x: x - 3, ScaleError, "below zero"),
        (lambda x: np.where(x > 3, np.nan, x), InputError, "NaN or infinite values"),
        (lambda x: 0 * x, InputError, "all of them empty"),
    ],
)
def test_errors_of_pair_are_raised(
    tissue: SimulatedTissue, tissue_pair: Pair, values: object, error: type, message: str
) -> None:
    cells = tissue.sc.copy()
    cells.X = sp.csr_matrix(values(cells.X.toarray()).astype(np.float32))  # type: ignore[operator]
    with pytest.raises(error, match=message):
        with_reference(tissue_pair, cells)


def test_wrong_arguments_are_named(tissue: SimulatedTissue, tissue_pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(KeyMissingError, match=r"labels='cell_typ'.*Did you mean 'cell_type'\?"):
        with_reference(tissue_pair, tissue.sc, labels="cell_typ")
    with pytest.raises(MissingFileError, match=r"nowhere\.h5ad"):
        with_reference(tissue_pair, tmp_path / "nowhere.h5ad")
    with pytest.raises(InputError, match="at least 2 cells, got 1 cell"):
        with_reference(tissue_pair, tissue.sc[:1].copy())
