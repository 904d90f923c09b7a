"""Scales in `pair`: logarithms and square roots are undone on either side, for any storage of the matrix."""

import pickle
import re
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import scipy.sparse as sp

import cellweft
from cellweft._errors import InputError, SettingError
from cellweft.data._pair import pair

GENES = [f"Gene{number}" for number in range(30)]


@pytest.fixture
def sc(make_side: Any) -> anndata.AnnData:
    return make_side(GENES, n_cells=80, seed=1)


@pytest.fixture
def tissue(make_side: Any) -> anndata.AnnData:
    return make_side(GENES[:20], n_cells=60, spatial=True, seed=2)


def changed(data: anndata.AnnData, change: Any) -> anndata.AnnData:
    new = data.copy()
    new.X = sp.csr_matrix(change(new.X.toarray().astype(np.float64)).astype(np.float32))
    return new


def millions(counts: Any) -> Any:
    return counts / counts.sum(axis=1, keepdims=True) * 1e6


@pytest.mark.parametrize("kind", ["memory", "h5ad", "zarr", "csv", "dense"])
def test_logarithms_of_counts_are_undone_exactly(
    kind: str, sc: Any, tissue: Any, tmp_path: Path, write_as: Any
) -> None:
    plain = pair(sc, tissue)
    logs = changed(sc, np.log1p), changed(tissue, lambda x: np.log2(x + 1))
    given: list[Any] = list(logs)
    if kind == "dense":
        for one in given:
            one.X = one.X.toarray()
    elif kind != "memory":
        if kind == "csv":
            logs[1].obs[["x", "y"]] = logs[1].obsm["spatial"]
        (tmp_path / "st").mkdir()
        given[0] = write_as(logs[0], tmp_path, kind)
        given[1] = logs[1] if kind == "csv" else write_as(logs[1], tmp_path / "st", kind)
    made = pair(*given)
    assert (made.sc.scale, made.st.scale) == ("raw", "raw")
    for side, known in ((made.sc, plain.sc), (made.st, plain.st)):
        np.testing.assert_array_equal(side.dense(slice(None)), known.dense(slice(None)))
        np.testing.assert_array_equal(side.totals, known.totals)
        assert side.target == known.target
    said = "\n".join(made.cautions)
    assert (
        "Reference: the values look like log-transformed counts, ln(count + 1); the counts are recovered"
        in said
    )
    assert "Spatial: the values look like log2-transformed counts, log2(count + 1)" in said
    assert "specify the scale: sc_scale=SCALE" in said
    assert "specify the scale: st_scale=SCALE" in said
    assert "different scales" not in said
    assert "values        log-transformed counts, ln(count + 1), " in made.summary()


def test_binary_logarithms_of_millions_become_natural_ones(sc: Any, tissue: Any) -> None:
    made = pair(
        changed(sc, lambda x: np.log2(millions(x) + 1)), changed(tissue, lambda x: np.log10(millions(x) + 1))
    )
    natural = pair(
        changed(sc, lambda x: np.log1p(millions(x))), changed(tissue, lambda x: np.log1p(millions(x)))
    )
    for side, known in ((made.sc, natural.sc), (made.st, natural.st)):
        assert side.scale == known.scale == "log"
        np.testing.assert_allclose(side.dense(slice(None)), known.dense(slice(None)), rtol=1e-6)  # float32
    said = "\n".join(made.cautions)
    assert (
        "log2(x + 1); converted to natural logarithms. If this is wrong, specify the scale: sc_scale=" in said
    )
    assert (
        "log10(x + 1); converted to natural logarithms. If this is wrong, specify the scale: st_scale="
        in said
    )


def test_a_given_scale_is_used(sc: Any, tissue: Any) -> None:
    logs = changed(sc, np.log1p)
    made = pair(logs, tissue, sc_scale="log")
    assert made.sc.scale == "log"
    np.testing.assert_array_equal(made.sc.dense(slice(None)), logs.X.toarray())
    assert not any("something else" in one for one in made.cautions)
    roots = changed(sc, lambda x: np.sqrt(x * 1.5))
    np.testing.assert_allclose(
        pair(roots, tissue, sc_scale="sqrt_raw").sc.totals,
        np.asarray(sc.X.sum(axis=1)).ravel() * 1.5,
        rtol=1e-6,
    )


def test_values_too_large_for_logarithms_are_refused(sc: Any, tissue: Any) -> None:
    said = r"sc_scale: .*because the scale is given as 'log2_raw', got values up to 1e\+30 in"
    with pytest.raises(SettingError, match=said):
        pair(changed(sc, lambda x: x * 100), tissue, sc_scale="log2_raw")
    with pytest.raises(InputError, match=r"expected counts.* below 1e\+09, got values up to 1e\+30"):
        pair(changed(sc, lambda x: np.where(x > 2, 1e30, x)), tissue)


def test_expected_counts_are_normalised_by_their_totals(sc: Any, tissue: Any) -> None:
    made = pair(changed(sc, lambda x: np.where(x > 2, x - 0.37, x)), tissue)
    assert made.sc.scale == "raw"
    said = "\n".join(made.cautions)
    assert "not whole numbers, as after decontamination (SoupX)" in said
    assert "If they were divided by a size factor, specify the scale: sc_scale='normalised'." in said
    assert "divided by a size factor (normalised)" not in said


def test_a_size_that_is_not_used_for_logarithms_is_reported(sc: Any, tissue: Any) -> None:
    logs = changed(sc, lambda x: np.log1p(millions(x)))
    logs.obs["nCount"] = 1000.0
    said = pair(logs, tissue, size_factor="nCount").cautions
    assert any("the cell sizes (size_factor='nCount') are ignored" in one for one in said)


def test_a_guess_is_reported(sc: Any, tissue: Any) -> None:
    draws = np.random.default_rng(0)
    made = pair(changed(sc, lambda x: draws.uniform(0, 8, x.shape)), tissue)
    assert any("was guessed only from the size of the values" in one for one in made.cautions)


def test_a_side_that_undoes_logarithms_can_be_pickled(
    sc: Any, tissue: Any, tmp_path: Path, write_as: Any
) -> None:
    made = pair(write_as(changed(sc, np.log1p), tmp_path, "h5ad"), tissue)
    sent = pickle.loads(pickle.dumps(made.sc))
    np.testing.assert_array_equal(sent.dense(slice(3, 9)), made.sc.dense(slice(3, 9)))


@pytest.mark.slow
def test_imputation_does_not_depend_on_how_counts_were_stored(sc: Any, tissue: Any) -> None:
    settings = {"steps": 5, "level_steps": 5}
    plain, undone = (
        cellweft.Imputer(settings=settings, reliability=False).fit(one, progress=False).impute(progress=False)
        for one in (pair(sc, tissue), pair(changed(sc, np.log1p), changed(tissue, np.sqrt)))
    )
    np.testing.assert_array_equal(plain.X, undone.X)
    inputs = undone.uns["cellweft"]["inputs"]
    assert (inputs["reference"]["scale"], inputs["spatial"]["scale"]) == ("log_raw", "sqrt_raw")


def test_smoothed_logarithms_are_reported(sc: Any, tissue: Any) -> None:
    def smoothed(counts: Any) -> Any:
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        near = (shares + np.roll(shares, 1, axis=0) + np.roll(shares, 2, axis=0)) / 3
        return np.log1p(near * 1e4)

    said = "within a cell, the values are not multiples of the smallest"
    assert any(one.startswith(f"Reference: {said}") for one in pair(changed(sc, smoothed), tissue).cautions)
    as_usual = changed(sc, lambda counts: np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4))
    assert not any(said in one for one in pair(as_usual, tissue).cautions)


def test_small_totals_are_not_rounded_to_zero(sc: Any, tissue: Any) -> None:
    volumes = np.random.default_rng(4).uniform(100, 900, (60, 1))
    made = pair(sc, changed(tissue, lambda counts: counts / volumes), st_scale="raw")
    assert re.search(r"raw counts, 0\.\d+ in a typical cell", made.summary())
    assert any("of the counts above zero (all of them) are not whole" in one for one in made.cautions)


def test_implausible_cell_sizes_are_reported(sc: Any, tissue: Any) -> None:
    sc.obs["same"], sc.obs["log"] = 1.0, np.log1p(np.asarray(sc.X.sum(axis=1)).ravel())
    sc.obs["total"] = np.asarray(sc.X.sum(axis=1)).ravel() * 3
    told = {name: " ".join(pair(sc, tissue, size_factor=name).cautions) for name in ("same", "log", "total")}
    assert "obs['same'], the cell sizes, is the same for all cells and" in told["same"]
    assert "obs['log'], the cell sizes, looks like the logarithm of the total counts" in told["log"]
    assert "the cell sizes, " not in told["total"]


def test_a_reference_of_two_scales_or_sums_is_reported(sc: Any, tissue: Any) -> None:
    def joined(first: Any, second: Any) -> Any:
        def change(counts: Any) -> Any:
            shares = counts / counts.sum(axis=1, keepdims=True)
            return np.concatenate([first(shares[:40]), second(shares[40:])])

        return pair(changed(sc, change), tissue).cautions

    said = joined(lambda x: x * 1e6, lambda x: np.log1p(x * 1e4))
    assert any("not log-transformed, and others contain values that look like log" in one for one in said)
    said = joined(lambda x: np.log1p(x * 1e4), lambda x: np.log1p(x * 1e6))
    assert any(
        "Reference: the values of each cell sum to 10,000 or 1,000,000, which happens if" in one
        for one in said
    )
