"""Batches of a reference: how they are compared, how values change, and cautions and errors."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from typer.testing import CliRunner

import cellweft
from cellweft._errors import InputError, KeyMissingError
from cellweft.cli import app
from cellweft.data._pair import inputs_of
from cellweft.data.batches import with_batches
from cellweft.data.digest import values_digest
from cellweft.data.hold_out import panel_reference
from cellweft.place.training_data import model_inputs

GENES = [f"Gene{number}" for number in range(30)]
_SAMPLING = 0.3  # sampling error of a log factor from some hundred cells


def rates(n_types: int = 3) -> np.ndarray:
    """Return the mean count of each gene in each type; every type has ten marker genes."""
    levels = np.full((n_types, len(GENES)), 2.0)
    for number in range(n_types):
        levels[number, number * 10 : number * 10 + 10] = 20.0
    return levels


def cells(types: np.ndarray, detection: np.ndarray | float = 1.0, *, seed: int = 0) -> sp.csr_matrix:
    """Return counts of cells of given types on a platform with unequal detection of genes."""
    counts = np.random.default_rng(seed).poisson(rates()[types] * detection)
    return sp.csr_matrix(counts.astype(np.float32))


def reference(*parts: sp.csr_matrix, names: str = "abcdefgh") -> anndata.AnnData:
    """Return the batches concatenated, with the column `donor`."""
    matrix = sp.csr_matrix(sp.vstack(parts))
    donor = np.repeat(list(names)[: len(parts)], [part.shape[0] for part in parts])
    obs = pd.DataFrame({"donor": donor}, index=[f"cell{number}" for number in range(matrix.shape[0])])
    return anndata.AnnData(matrix, obs=obs, var=pd.DataFrame(index=GENES))


def tissue(n: int = 60) -> anndata.AnnData:
    """Return a tissue that measured every second gene."""
    counts = cells(np.arange(n) % 3, seed=9)[:, ::2]
    places = np.random.default_rng(0).random((n, 2))
    return anndata.AnnData(counts, var=pd.DataFrame(index=GENES[::2]), obsm={"spatial": places})


TYPES = np.arange(240) % 3
DETECTION = np.exp(np.random.default_rng(5).normal(0, 0.8, len(GENES)))


@pytest.fixture(scope="module")
def joined() -> anndata.AnnData:
    """Two batches of similar cells; the second detects genes unequally."""
    return reference(cells(TYPES), cells(TYPES[:150], DETECTION, seed=1))


def test_genes_of_similar_cells_are_brought_to_one_level(joined: anndata.AnnData) -> None:
    side = cellweft.pair(joined, tissue(), reference_batch="donor").sc
    assert side.batches is not None
    assert side.batches.names.tolist() == ["a", "b"]
    assert (side.batches.levels[0] == 1).all()  # the batch with most cells
    side = dataclasses.replace(side, batches=side.batches.at_one_depth())
    values = np.expm1(side.dense(slice(None)))
    before = np.expm1(dataclasses.replace(side, batches=None).dense(slice(None)))
    for kind in range(3):
        first, second = values[:240][kind == TYPES], values[240:][TYPES[:150] == kind]
        assert np.abs(np.log(second.mean(axis=0) / first.mean(axis=0))).mean() < _SAMPLING
    np.testing.assert_array_equal(values[:240], before[:240])
    apart = np.abs(np.log(before[240:].mean(axis=0) / before[:240].mean(axis=0)))
    left = np.abs(np.log(values[240:].mean(axis=0) / values[:240].mean(axis=0)))
    assert left.mean() < 0.25 * apart.mean()


def test_a_block_is_the_uncorrected_block_times_the_factor(joined: anndata.AnnData) -> None:
    counts = joined.X.toarray().astype(np.float64)
    totals = counts.sum(axis=1)
    scaled = counts / totals[:, None] * np.median(totals)
    logs = anndata.AnnData(np.log1p(scaled).astype(np.float32), obs=joined.obs, var=joined.var)
    dense = anndata.AnnData(joined.X.toarray(), obs=joined.obs, var=joined.var)
    for data, scale in ((joined, None), (dense, None), (logs, "log")):
        side = cellweft.pair(data, tissue(), reference_batch="donor", sc_scale=scale).sc
        assert side.batches is not None
        factors = side.batches.levels[side.batches.codes]
        depths = [np.median(totals[:240]), np.median(totals[240:])] / np.median(totals)
        np.testing.assert_allclose(side.batches.depths, [1, 1] if scale else depths, rtol=1e-6)
        expected = np.log1p(scaled * factors * side.batches.depths[side.batches.codes][:, None])
        np.testing.assert_allclose(side.dense(slice(None)), expected, rtol=1e-5, atol=1e-6)
        rows, genes = np.array([300, 2, 2]), np.array([7, 0])
        np.testing.assert_allclose(
            side.dense(rows, genes), expected[np.ix_(rows, genes)], rtol=1e-5, atol=1e-6
        )
        part = side.subset(rows)
        np.testing.assert_allclose(part.dense(slice(1, None)), expected[rows[1:]], rtol=1e-5, atol=1e-6)


def test_types_that_a_batch_lacks_are_ignored() -> None:
    """A ratio of plain means would mistake the markers of the missing type for poorly detected genes."""
    without = TYPES[TYPES != 2]
    side = cellweft.pair(
        reference(cells(TYPES), cells(without, seed=1)), tissue(), reference_batch="donor"
    ).sc
    assert side.batches is not None
    logs = np.log(side.batches.levels[1])
    assert np.abs(logs).max() < _SAMPLING
    plain = np.expm1(dataclasses.replace(side, batches=None).dense(slice(None)))
    assert np.abs(np.log(plain[:240].mean(axis=0) / plain[240:].mean(axis=0))).max() > 3 * _SAMPLING


def test_genes_seen_in_few_cells_are_hardly_corrected() -> None:
    matrix = cells(TYPES[:150], DETECTION, seed=1).tolil()
    matrix[4:, 3] = 0
    side = cellweft.pair(reference(cells(TYPES), sp.csr_matrix(matrix)), tissue(), reference_batch="donor").sc
    assert side.batches is not None
    assert 1 < side.batches.levels[1, 3] < 6  # the means differ by a factor of more than 30
    matrix[:, 3] = 0  # the batch did not measure the gene
    side = cellweft.pair(reference(cells(TYPES), sp.csr_matrix(matrix)), tissue(), reference_batch="donor").sc
    assert side.batches is not None
    assert side.batches.levels[1, 3] == 1
    assert np.isfinite(side.dense(slice(None))).all()


def test_the_order_of_the_cells_does_not_matter(joined: anndata.AnnData) -> None:
    order = np.random.default_rng(0).permutation(joined.n_obs)
    first = cellweft.pair(joined, tissue(), reference_batch="donor").sc
    second = cellweft.pair(joined[order].copy(), tissue(), reference_batch="donor").sc
    assert first.batches is not None
    assert second.batches is not None
    np.testing.assert_allclose(first.batches.levels, second.batches.levels, rtol=1e-6)


def test_without_the_option_nothing_changes(joined: anndata.AnnData) -> None:
    plain = cellweft.pair(joined, tissue())
    assert plain.sc.batches is None
    assert "batches" not in plain.summary()
    assert inputs_of(plain)["reference"]["batch"] == ""
    named = cellweft.pair(joined, tissue(), reference_batch="donor")
    assert inputs_of(named)["reference"]["batch"] == "donor"
    assert (
        "  batches       2, from obs['donor']: a (240), b (150); adjusted to the same level"
        in named.summary()
    )
    assert named.findings["reference"]["batch_counts"] == {"a": 240, "b": 150}
    json.dumps(named.findings)
    assert values_digest(plain.sc) != values_digest(named.sc)


def test_a_file_and_memory_agree(joined: anndata.AnnData, tmp_path: Path) -> None:
    joined.write_h5ad(tmp_path / "sc.h5ad")
    first = cellweft.pair(joined, tissue(), reference_batch="donor").sc
    second = cellweft.pair(tmp_path / "sc.h5ad", tissue(), reference_batch="donor").sc
    np.testing.assert_array_equal(first.dense(slice(None)), second.dense(slice(None)))
    assert values_digest(first) == values_digest(second)


def test_several_kinds_of_columns(joined: anndata.AnnData) -> None:
    data = joined.copy()
    data.obs["number"] = (data.obs["donor"] == "b").astype(int)
    data.obs["mixed"] = [7 if one == "b" else "a" for one in data.obs["donor"]]
    data.obs["category"] = pd.Categorical(data.obs["donor"], categories=["z", "b", "a"])
    expected = cellweft.pair(data, tissue(), reference_batch="donor").sc.dense(slice(None))
    for name, names in (("number", ["0", "1"]), ("mixed", ["7", "a"]), ("category", ["a", "b"])):
        side = cellweft.pair(data, tissue(), reference_batch=name).sc
        assert side.batches is not None
        assert side.batches.names.tolist() == names
        np.testing.assert_array_equal(side.dense(slice(None)), expected)


def test_a_small_batch_is_not_corrected_and_reported() -> None:
    data = reference(cells(TYPES), cells(TYPES[:150], DETECTION, seed=1), cells(TYPES[:6], 0.2, seed=2))
    pair = cellweft.pair(data, tissue(), reference_batch="donor")
    assert pair.sc.batches is not None
    assert (pair.sc.batches.levels[2] == 1).all()
    said = [one for one in pair.cautions if "too few to compare" in one]
    assert said == [
        "Reference: 'c' of obs['donor'] has fewer than 20 cells with counts, too few to compare with the "
        "others. Their values are not changed."
    ]


def test_unequal_depths_without_the_option_are_reported() -> None:
    deep = reference(cells(TYPES), cells(TYPES[:150], 0.1, seed=1))
    (said,) = [one for one in cellweft.pair(deep, tissue()).cautions if "reference_batch" in one]
    assert said.startswith("Reference: a typical cell of 'a' has 10 times as many counts as one of 'b'")
    assert said.endswith("specify the column to equalise the levels of their genes: reference_batch='donor'.")
    for name in ("orig.ident", "Assay", "dataset"):
        renamed = deep.copy()
        renamed.obs = renamed.obs.rename(columns={"donor": name})
        cautions = cellweft.pair(renamed, tissue()).cautions
        assert any(f"reference_batch={name!r}" in one for one in cautions)
    assert not any(
        "reference_batch" in one for one in cellweft.pair(deep, tissue(), reference_batch="donor").cautions
    )
    alike = reference(cells(TYPES), cells(TYPES[:150], 0.6, seed=1))
    assert not any("reference_batch" in one for one in cellweft.pair(alike, tissue()).cautions)


def _with(data: anndata.AnnData, **columns: Any) -> anndata.AnnData:
    changed = data.copy()
    for name, values in columns.items():
        changed.obs[name] = values
    return changed


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("donr", KeyMissingError, r"reference_batch='donr': expected a column .* Did you mean 'donor'\?"),
        ("one", InputError, (
            r"obs\['one'\]: expected at least two batches, got a single one, 'x', for all cells. Omit"
        )),
        ("gaps", InputError, r"obs\['gaps'\]: expected a batch for every cell, got 2 cells without one"),
        ("blank", InputError, r"obs\['blank'\]: expected a batch for every cell, got 1 cell without one"),
        ("words", InputError, r"obs\['words'\]: expected a batch for every cell, got 3 cells without one"),
        ("each", InputError, (
            r"obs\['each'\]: expected a batch that several cells share, "
            r"got 390 different values for 390 cells"
        )),
        ("depth", InputError, r"obs\['depth'\]: expected a batch that several cells share"),
        ("small", InputError, (
            r"obs\['small'\]: expected at least two batches with 20 or more cells, to compare their "
            r"levels, got 'x' \(381\), 'y' \(9\). Choose a column with larger batches"
        )),
    ],
)  # fmt: skip
def test_columns_that_are_not_batches_are_refused(
    joined: anndata.AnnData, name: str, error: type[Exception], message: str
) -> None:
    n_cells = joined.n_obs
    data = _with(
        joined,
        one="x",
        gaps=[None, np.nan, *["x", "y"] * ((n_cells - 2) // 2)],
        blank=["  ", *["x", "y"] * (n_cells // 2)][:n_cells],
        words=["nan", "N/A", "None", *["x", "y"] * (n_cells // 2)][:n_cells],
        each=[f"name{number}" for number in range(n_cells)],
        depth=np.random.default_rng(0).random(n_cells),
        small=["x"] * (n_cells - 9) + ["y"] * 9,
    )
    before = data.copy()
    with pytest.raises(error, match=message):
        cellweft.pair(data, tissue(), reference_batch=name)
    pd.testing.assert_frame_equal(data.obs, before.obs)


def test_other_cells_for_the_same_tissue(joined: anndata.AnnData) -> None:
    pair = cellweft.pair(joined, tissue())
    named = pair.with_reference(joined, reference_batch="donor")
    assert named.sc.batches is not None
    expected = cellweft.pair(joined, tissue(), reference_batch="donor").sc
    np.testing.assert_array_equal(named.sc.dense(slice(None)), expected.dense(slice(None)))
    with pytest.raises(KeyMissingError, match="reference_batch='dono'"):
        pair.with_reference(joined, reference_batch="dono")


def test_batches_of_fewer_genes_are_compared_again(joined: anndata.AnnData) -> None:
    pair = cellweft.pair(joined, tissue(), reference_batch="donor")
    cut = panel_reference(pair.sc, pair.sc_shared)
    alone = anndata.AnnData(joined.X[:, ::2], obs=joined.obs, var=joined.var.iloc[::2])
    expected = cellweft.pair(alone, tissue(), reference_batch="donor")
    np.testing.assert_allclose(
        cut.dense(slice(None)), expected.sc.dense(slice(None), expected.sc_shared), rtol=1e-5
    )


def test_a_single_remaining_batch_is_not_corrected(joined: anndata.AnnData) -> None:
    side = cellweft.pair(joined, tissue(), reference_batch="donor").sc
    assert side.batches is not None
    rest = np.flatnonzero(side.batches.codes == 1)
    left = with_batches(side.subset(rest), side.batches.of_cells(rest))
    assert left.batches is None
    alone = cellweft.pair(joined[rest].copy(), tissue()).sc
    np.testing.assert_allclose(left.dense(slice(None)), alone.dense(slice(None)), rtol=1e-6)


@pytest.mark.slow
def test_models_record_their_batches(joined: anndata.AnnData, tmp_path: Path) -> None:
    settings = {"steps": 5, "level_steps": 5}
    pair = cellweft.pair(joined, tissue(), reference_batch="donor")
    plain = cellweft.pair(joined, tissue())
    imputer = cellweft.Imputer(settings=settings, reliability=False).fit(pair, progress=False)
    made = imputer.impute(progress=False)
    assert made.uns["cellweft"]["inputs"]["reference"]["batch"] == "donor"
    cellweft.report(tmp_path / "report.html", made)
    assert "--reference-batch donor" in (tmp_path / "report.html").read_text(encoding="utf-8")
    imputer.save(tmp_path / "model")
    again = cellweft.load(tmp_path / "model").attach(pair)
    np.testing.assert_array_equal(again.impute(progress=False).X, made.X)
    with pytest.raises(InputError, match=r"with reference_batch=.donor."):
        cellweft.load(tmp_path / "model").attach(plain)
    other = cellweft.Imputer(settings=settings, reliability=False).fit(plain, progress=False)
    assert not np.array_equal(other.impute(progress=False).X, made.X)
    imputer.impute_to(tmp_path / "out.zarr", memory="1 GB", progress=False)
    np.testing.assert_array_equal(anndata.read_zarr(tmp_path / "out.zarr").X, made.X)


def test_placement_brings_all_batches_to_one_total(joined: anndata.AnnData) -> None:
    pair = cellweft.pair(joined, tissue(), reference_batch="donor")
    assert pair.sc.batches is not None
    placed, _ = model_inputs(pair, pair.shared_genes, (1000.0, 1000.0))
    scaled = joined.X.toarray() / np.asarray(joined.X.sum(axis=1)) * 1000
    expected = np.log1p(scaled * pair.sc.batches.levels[pair.sc.batches.codes])[:, pair.sc_shared]
    np.testing.assert_allclose(placed.values(slice(None)), expected, rtol=1e-5, atol=1e-6)


def test_the_command_line_accepts_the_column(joined: anndata.AnnData, tmp_path: Path) -> None:
    joined.write_h5ad(tmp_path / "sc.h5ad")
    tissue().write_h5ad(tmp_path / "st.h5ad")
    files = [str(tmp_path / "sc.h5ad"), str(tmp_path / "st.h5ad")]
    shown = CliRunner().invoke(app, ["check", *files, "--reference-batch", "donor"])
    assert shown.exit_code == 0, shown.output
    assert "batches       2, from obs['donor']" in shown.output
    refused = CliRunner().invoke(app, ["check", *files, "--reference-batch", "dnor"])
    assert refused.exit_code == 2
    assert "--reference-batch dnor" in " ".join(refused.output.split())
