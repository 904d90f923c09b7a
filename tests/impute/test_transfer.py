"""Columns, tables and layers of the reference, transferred by the weights of a fitted method."""

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

import cellweft
from cellweft.data._pair import Pair, pair
from cellweft.data.synthetic.tissue import SimulatedTissue
from cellweft.impute.imputer import Imputer

SHORT = {"steps": 4, "level_steps": 4, "fold_steps": 4}
KINDS: dict[str, dict[str, Any]] = {
    "attention": {"settings": SHORT},
    "metacells": {"settings": SHORT | {"most_keys": 20}},
    "stimpute": {"preset": "stimpute", "settings": {"k": 8, "hidden": 8, "ae_epochs": 2, "epochs": 1}},
}
ROUNDING = 2e-6
"""float32 sums of values below 10, in blocks of another shape."""


@pytest.fixture(scope="module")
def reference(tissue: SimulatedTissue) -> anndata.AnnData:
    """The reference with a score, two types, proteins, an embedding and a layer."""
    data, draw = tissue.sc.copy(), np.random.default_rng(0)
    data.obs["score"] = 1e6 + draw.random(data.n_obs)
    data.obs["age"] = draw.integers(1, 9, data.n_obs)
    data.obs["kind"] = pd.Categorical(np.where(np.arange(data.n_obs) % 3, "early", "late"))
    data.obsm["protein"] = pd.DataFrame(
        draw.poisson(4, (data.n_obs, 2)).astype(float), index=data.obs_names, columns=["CD3", "CD19"]
    )
    data.obsm["X_pca"] = draw.standard_normal((data.n_obs, 3))
    data.layers["spliced"] = sp.csr_matrix(draw.poisson(1, data.shape).astype(np.float32))
    return data


@pytest.fixture(scope="module")
def data(reference: anndata.AnnData, tissue: SimulatedTissue) -> Pair:
    return pair(reference, tissue.st)


@pytest.fixture(scope="module", params=KINDS)
def imputer(request: pytest.FixtureRequest, data: Pair) -> Imputer:
    return Imputer(reliability=False, **KINDS[request.param]).fit(data, progress=False)


def weights_of(imputer: Imputer, data: Pair) -> np.ndarray:
    """Return the weights, spatial cells x reference cells."""
    measured = data.st.dense(slice(0, data.st.n_cells), data.st_shared)
    return imputer.fitted_.operator(measured).apply(torch.eye(data.sc.n_cells)).double().numpy()


def test_a_column_of_numbers_gives_weighted_means(imputer: Imputer, data: Pair) -> None:
    carried = imputer.transfer(obs="score")
    expected = weights_of(imputer, data) @ (data.sc.obs["score"].to_numpy() - 1e6) + 1e6
    assert carried.shape == (90,)
    np.testing.assert_allclose(carried, expected, rtol=0, atol=ROUNDING)
    both = imputer.transfer(obs=["age", "score"])
    assert list(both.columns) == ["age", "score"]
    assert both.index.equals(data.st.obs_names)
    np.testing.assert_allclose(both["score"], expected, rtol=0, atol=ROUNDING)


def test_text_gives_proportions(imputer: Imputer, data: Pair) -> None:
    shares = imputer.transfer(obs="kind")
    assert list(shares.columns) == ["early", "late"]
    late = weights_of(imputer, data) @ (data.sc.obs["kind"] == "late").to_numpy()
    np.testing.assert_allclose(shares["late"], late, rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=0, atol=ROUNDING)


def test_tables_and_arrays_of_obsm_keep_their_type(imputer: Imputer, data: Pair) -> None:
    proteins, places = imputer.transfer(obsm="protein"), imputer.transfer(obsm="X_pca")
    assert list(proteins.columns) == ["CD3", "CD19"]
    weights = weights_of(imputer, data)
    np.testing.assert_allclose(proteins, weights @ data.sc.obsm["protein"], rtol=0, atol=10 * ROUNDING)
    assert isinstance(places, np.ndarray)
    np.testing.assert_allclose(places, weights @ data.sc.obsm["X_pca"], rtol=0, atol=ROUNDING)
    given = imputer.transfer(data.sc.obsm["X_pca"])
    np.testing.assert_array_equal(given, places)
    np.testing.assert_array_equal(imputer.transfer(sp.csr_matrix(data.sc.obsm["X_pca"])), places)


def test_a_layer_is_averaged_without_normalisation(
    imputer: Imputer, data: Pair, reference: anndata.AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = list(data.sc.genes[[20, 3, 11]])
    carried = imputer.transfer(layer="spliced", genes=names)
    assert list(carried.columns) == names
    counts = reference[:, names].layers["spliced"].toarray()
    np.testing.assert_allclose(carried, weights_of(imputer, data) @ counts, rtol=0, atol=10 * ROUNDING)
    whole = imputer.transfer(layer="spliced")
    assert whole.shape == (90, 28)
    monkeypatch.setattr("cellweft.impute.transfer.columns_at_once", lambda *_, **__: 5)
    monkeypatch.setattr("cellweft.impute.transfer.READ_ROWS", 17)
    np.testing.assert_allclose(imputer.transfer(layer="spliced"), whole, rtol=0, atol=10 * ROUNDING)


def test_a_loaded_model_and_files_give_the_same(
    imputer: Imputer, reference: anndata.AnnData, tissue: SimulatedTissue, tmp_path: Path
) -> None:
    reference.write_h5ad(tmp_path / "sc.h5ad")
    loaded = cellweft.load(imputer.save(tmp_path / "model")).attach(pair(tmp_path / "sc.h5ad", tissue.st))
    for asked in ({"obs": "score"}, {"obsm": "protein"}, {"layer": "spliced"}):
        np.testing.assert_allclose(
            loaded.transfer(**asked), imputer.transfer(**asked), rtol=0, atol=10 * ROUNDING
        )


def test_other_spatial_cells(imputer: Imputer, data: Pair) -> None:
    some = data.cells(np.arange(10, 30))
    carried = imputer.transfer(obs="age", pair=some)
    np.testing.assert_allclose(carried, imputer.transfer(obs="age")[10:30], rtol=0, atol=ROUNDING)


def test_inputs_are_not_changed_and_progress_is_reported(imputer: Imputer, data: Pair) -> None:
    table, seen = data.sc.obsm["X_pca"], list[tuple[str, int, int]]()
    before = table.copy()
    imputer.transfer(table, progress=lambda *one: seen.append(one))
    np.testing.assert_array_equal(table, before)
    assert seen[-1] == ("cells", 90, 90)


@pytest.fixture(scope="module")
def fitted(data: Pair) -> Imputer:
    return Imputer(reliability=False, settings=SHORT).fit(data, progress=False)


def test_only_one_element_can_be_transferred_at_a_time(fitted: Imputer) -> None:
    with pytest.raises(cellweft.errors.SettingError, match=r"one of obs, obsm, layer and values, got none"):
        fitted.transfer()
    with pytest.raises(cellweft.errors.SettingError, match=r"got 'obs=', 'layer='"):
        fitted.transfer(obs="age", layer="spliced")
    with pytest.raises(
        cellweft.errors.SettingError, match=r"genes: expected layer=, which has genes, got obs="
    ):
        fitted.transfer(obs="age", genes=["Gene03"])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"obs": "scor"}, r"obs='scor': expected a column of obs of the reference data.*'score'"),
        ({"obs": ["age", "kind"]}, r"obs: expected columns of numbers.*text in 'kind' of 2 columns"),
        ({"obsm": "proteins"}, r"obsm='proteins': expected a key of obsm.*'protein'"),
        ({"layer": "splice"}, r"layer='splice': expected a layer of the reference.*'spliced'"),
        (
            {"values": np.zeros((99, 2))},
            r"values: expected 100 rows, in one or more columns, got shape \(99, 2\)",
        ),
        (
            {"values": np.zeros((100, 2, 2))},
            r"values: expected 100 rows, in one or more columns, got shape \(100, 2, 2\)",
        ),
        (
            {"values": np.zeros((100, 0))},
            r"values: expected 100 rows, in one or more columns, got shape \(100, 0\)",
        ),
        ({"values": np.r_[np.zeros(99), np.nan]}, r"finite numbers, got NaN or infinity in 1 row"),
        ({"values": "score"}, r"values: expected an array or table, got text.*obs='score'"),
        ({"values": np.ones(100) * 1j}, r"values: expected numbers or text, got values of type complex"),
        ({"values": np.full((100, 2), np.datetime64("2020"))}, r"got values of type datetime64"),
        ({"values": np.ma.masked_less(np.arange(100.0), 2)}, r"expected an array, got one with 2 masked"),
        ({"values": np.array([None] * 100)}, r"values: expected values of cells, got no value in any row"),
        ({"values": np.array([1.5, None] * 50)}, r"got NaN or infinity in 50 rows"),
        (
            {"values": pd.Series(1.0, [f"x{one}" for one in range(100)])},
            r"an index that has 0 of them, such as 'x0'",
        ),
        ({"obs": []}, r"obs: expected one or more columns of obs, got none"),
        ({"layer": "spliced", "genes": ["Nowhere"]}, r"Nowhere"),
        ({"layer": "spliced", "memory": "1 MB"}, r"memory: expected at least .* for 28 columns in 90 cells"),
    ],
)
def test_elements_that_cannot_be_transferred(fitted: Imputer, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(cellweft.CellweftError, match=message):
        fitted.transfer(**asked)


def test_invalid_elements_of_the_reference_are_refused(
    reference: anndata.AnnData, tissue: SimulatedTissue
) -> None:
    wrong = reference.copy()
    wrong.obsm["protein"].iloc[4, 1] = -2.0
    wrong.obs["hole"] = np.where(np.arange(100) == 3, np.nan, 1.0)
    wrong.layers["holes"] = np.where(np.arange(100)[:, None] == 3, np.nan, np.ones(wrong.shape))
    imputer = Imputer(reliability=False, settings=SHORT).fit(pair(wrong, tissue.st), progress=False)
    with pytest.raises(
        cellweft.errors.InputError,
        match=r"protein abundances of 0 or more, got values below zero in 1 column, down to -2 .*'CD19'",
    ):
        imputer.transfer(obsm="protein")
    assert imputer.transfer(wrong.obsm["protein"])["CD19"].notna().all()
    with pytest.raises(cellweft.errors.InputError, match="obs: expected finite numbers, got NaN"):
        imputer.transfer(obs="hole")
    with pytest.raises(
        cellweft.errors.InputError, match=r"layer='holes': expected finite numbers.*in 1 cell"
    ):
        imputer.transfer(layer="holes")


def test_a_layer_of_another_shape(
    reference: anndata.AnnData, tissue: SimulatedTissue, tmp_path: Path
) -> None:
    import h5py

    reference.write_h5ad(tmp_path / "sc.h5ad")
    with h5py.File(tmp_path / "sc.h5ad", "a") as file:
        file["layers/short"] = np.ones((100, 5), dtype=np.float32)
    data = pair(tmp_path / "sc.h5ad", tissue.st)
    imputer = Imputer(reliability=False, settings=SHORT).fit(data, progress=False)
    with pytest.raises(
        cellweft.errors.FormatError, match=r"layer='short': expected 100 cells x 28 genes.*100 x 5"
    ):
        imputer.transfer(layer="short")


def test_transfer_before_a_fit_is_refused() -> None:
    with pytest.raises(cellweft.errors.NotFittedError, match="Call fit"):
        Imputer().transfer(obs="age")


def test_tables_are_matched_by_cell_names(fitted: Imputer, data: Pair) -> None:
    order = np.random.default_rng(0).permutation(data.sc.n_cells)
    table, score = data.sc.obsm["protein"], data.sc.obs["score"]
    pd.testing.assert_frame_equal(fitted.transfer(table.iloc[order]), fitted.transfer(obsm="protein"))
    np.testing.assert_array_equal(fitted.transfer(score.iloc[order]), fitted.transfer(obs="score"))
    more = pd.concat([score.iloc[order], pd.Series([9.0], index=["of another cell"])])
    np.testing.assert_array_equal(fitted.transfer(more), fitted.transfer(obs="score"))
    counted = score.reset_index(drop=True)
    np.testing.assert_array_equal(fitted.transfer(counted), fitted.transfer(obs="score"))


def test_numbers_and_text_are_distinguished_by_their_values(fitted: Imputer, data: Pair) -> None:
    age, kind = data.sc.obs["age"], data.sc.obs["kind"]
    np.testing.assert_array_equal(fitted.transfer(age.to_numpy(object)), fitted.transfer(obs="age"))
    shares = fitted.transfer(age.astype("category"))
    assert list(shares.columns) == [str(one) for one in sorted(age.unique())]
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=0, atol=ROUNDING)
    for one in (kind.to_frame(), kind.astype(object)):
        pd.testing.assert_frame_equal(fitted.transfer(one), fitted.transfer(obs="kind"))
    pd.testing.assert_frame_equal(fitted.transfer(obs=["kind"]), fitted.transfer(obs="kind"))
    with pytest.raises(cellweft.errors.InputError, match="got text in 'age' of 2 columns"):
        fitted.transfer(pd.DataFrame({"age": age.astype("category"), "score": data.sc.obs["score"]}))


def test_the_reference_must_have_the_cells_of_the_fit(
    fitted: Imputer, reference: anndata.AnnData, tissue: SimulatedTissue, tmp_path: Path
) -> None:
    other = pair(reference[::-1].copy(), tissue.st)
    message = (
        "pair: expected the reference .* in the same order, got 100 different cells, or a different order"
    )
    with pytest.raises(cellweft.errors.InputError, match=message):
        fitted.transfer(obs="score", pair=other)
    with pytest.raises(cellweft.errors.InputError, match=message):
        cellweft.load(fitted.save(tmp_path / "model")).attach(other)
    dense = reference.copy()
    dense.X = dense.X.toarray().astype(np.float64)
    same = fitted.transfer(obs="score", pair=pair(dense, tissue.st))
    np.testing.assert_allclose(same, fitted.transfer(obs="score"), rtol=1e-6)
