"""Training data of a pair: the genes of the model, its inputs, and batches of cells and spots."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cellweft._errors import GeneError, InputError, SettingError
from cellweft.data._pair import Pair, pair
from cellweft.data.synthetic.tissue import SimulatedTissue, simulate_tissue
from cellweft.nn.config import StemSettings
from cellweft.place import training_data as room
from cellweft.place.training_data import (
    KERNELS,
    BatchSource,
    model_genes,
    model_inputs,
    slice_members,
    spatial_adjacency,
    totals_of,
)

CPU = torch.device("cpu")

# float32 logarithms of values scaled to another total
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def sliced(tissue_pair: Pair) -> Pair:
    """The tissue in three overlapping slices of 60, 29 and 1 spots."""
    slices = np.array(["b"] * 60 + ["a"] * 29 + ["c"])
    return dataclasses.replace(tissue_pair, slices=slices)


def source(of: Pair, *, seed: int = 0, **changes: Any) -> BatchSource:
    chosen = StemSettings(**changes)
    members = [spots[~of.st.empty_cells[spots]] for spots in slice_members(of).values()]
    return BatchSource(
        model_inputs(of, of.shared_genes, totals_of(of, chosen)),
        of.coordinates,
        members=[spots for spots in members if len(spots) > 1],
        spacing=of.spacing,
        settings=chosen,
        seed=seed,
    )


class TestTotals:
    @pytest.mark.parametrize(
        ("total", "expected"), [("median", (1, None)), ("common", (1, 1)), (0.25, (0.25, 0.25)), (3, (3, 3))]
    )
    def test_totals_of_both_sides(self, tissue_pair: Pair, total: Any, expected: tuple) -> None:
        found = totals_of(tissue_pair, StemSettings(total=total))
        assert found[0] == pytest.approx(expected[0] * tissue_pair.sc.target)
        spots = tissue_pair.st.target if expected[1] is None else expected[1] * tissue_pair.sc.target
        assert found[1] == pytest.approx(spots)


class TestInputs:
    def test_values_are_log_counts_of_the_total(self, tissue: SimulatedTissue, tissue_pair: Pair) -> None:
        inputs = model_inputs(tissue_pair, tissue_pair.shared_genes, (50.0, 7.0))
        for side, data, total in zip(inputs, (tissue.sc, tissue.st), (50.0, 7.0), strict=True):
            counts = data.X.toarray().astype(float)
            sizes = counts.sum(axis=1, keepdims=True)
            scaled = np.log1p(total * counts / np.where(sizes > 0, sizes, 1))
            columns = [data.var_names.get_loc(gene) for gene in tissue_pair.shared_genes]
            found = side.values(slice(None))
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, scaled[:, columns], rtol=0, atol=TOLERANCE)
            np.testing.assert_array_equal(side.values(np.array([7, 3, 7])), found[[7, 3, 7]])

    def test_genes_are_in_the_requested_order_ignoring_case(self, tissue_pair: Pair) -> None:
        asked = [name.upper() for name in tissue_pair.shared_genes[[5, 0, 3]]]
        some, whole = (
            model_inputs(tissue_pair, asked, (9.0, 9.0)),
            model_inputs(tissue_pair, tissue_pair.shared_genes, (9.0, 9.0)),
        )
        for one, every in zip(some, whole, strict=True):
            np.testing.assert_array_equal(one.values(slice(0, 20)), every.values(slice(0, 20))[:, [5, 0, 3]])

    def test_genes_off_the_panel_are_refused(self, tissue_pair: Pair) -> None:
        with pytest.raises(GeneError, match=r"'Sst'"):
            model_inputs(tissue_pair, ["Sst"], (9.0, 9.0))

    def test_logarithms_are_unchanged(self, tissue: SimulatedTissue) -> None:
        sc = tissue.sc.copy()
        sc.X = sc.X.log1p()
        logs = pair(sc, tissue.st, sc_scale="log")
        values = model_inputs(logs, logs.shared_genes, (1e-3, 1e-3))[0].values(slice(None))
        np.testing.assert_array_equal(values, logs.sc.dense(slice(None), logs.sc_shared))

    @settings(max_examples=10, deadline=None)
    @given(read=st.integers(1, 60), rows=st.lists(st.integers(0, 89), max_size=60))
    def test_sparse_rows_equal_dense_rows_for_any_block_size(
        self, tissue_pair: Pair, read: int, rows: list[int]
    ) -> None:
        side = model_inputs(tissue_pair, tissue_pair.shared_genes, (9.0, 9.0))[1]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(room, "READ_ROWS", read)
            found = side.sparse(np.array([0, *rows]))
        np.testing.assert_array_equal(found.toarray(), side.values(np.array([0, *rows])))


class TestGenes:
    def test_all_of_a_small_panel(self, tissue_pair: Pair) -> None:
        found = model_genes(tissue_pair, StemSettings(n_genes=12), seed=0)
        np.testing.assert_array_equal(found, tissue_pair.shared_genes)

    def test_the_most_variable_genes_of_a_large_panel(self) -> None:
        """Half of the genes vary between spots; the others only have noise."""
        made = simulate_tissue(n_spatial=150, n_reference=40, n_genes=60, n_panel=60, seed=2)
        counts, stream = made.st.X.toarray(), np.random.default_rng(0)
        counts[:, ::2] = stream.poisson(counts[:, ::2].mean(axis=0), counts[:, ::2].shape)
        made.st.X = type(made.st.X)(counts)
        one = pair(made.sc, made.st)
        found = model_genes(one, StemSettings(n_genes=30), seed=0)
        assert len(found) == 30
        assert set(found) <= set(one.shared_genes)
        assert found.tolist() == sorted(found)
        flat = set(made.st.var_names[::2])
        assert len(flat & set(found)) < 8
        np.testing.assert_array_equal(model_genes(one, StemSettings(n_genes=30), seed=0), found)

    def test_the_number_of_threads_is_not_changed(self, tissue_pair: Pair) -> None:
        threads = torch.get_num_threads()
        try:
            for wanted in (1, 2, 3):
                torch.set_num_threads(wanted)
                model_genes(tissue_pair, StemSettings(n_genes=5), seed=0)
                assert torch.get_num_threads() == wanted
        finally:
            torch.set_num_threads(threads)

    def test_several_slices_with_common_genes(self, sliced: Pair, tissue_pair: Pair) -> None:
        two = sliced.cells(np.arange(80))
        found = model_genes(two, StemSettings(n_genes=5, slice_genes="common"), seed=0)
        assert len(found) == 5
        assert set(found) <= set(tissue_pair.shared_genes)

    def test_the_union_of_the_genes_of_every_slice(self) -> None:
        """Other genes vary in each of three slices, so no gene is selected in more slices than others."""
        stream = np.random.default_rng(0)
        slices = np.repeat(["a", "b", "c"], 60)
        counts = stream.poisson(4.0, (180, 30)).astype(np.float32)
        for number, name in enumerate("abc"):
            rows = slices == name
            counts[np.ix_(rows, np.arange(30) % 3 == number)] = stream.poisson(
                stream.gamma(0.3, 4 / 0.3, (60, 10))
            )
        genes = [f"Gene{gene:02d}" for gene in range(30)]
        st = AnnData(counts, obsm={"spatial": stream.random((180, 2))})
        st.obs["slide"], st.var_names = slices, genes
        sc = AnnData(stream.poisson(4.0, (20, 30)).astype(np.float32))
        sc.var_names = genes
        both = pair(sc, st, slices="slide")
        found = model_genes(both, StemSettings(n_genes=6), seed=0)
        # naive loop: combine the genes of each slice
        expected: set[str] = set()
        for name in "abc":
            one = both.cells(np.flatnonzero(slices == name))
            expected |= set(model_genes(one, StemSettings(n_genes=6, slice_genes="common"), seed=0))
        assert set(found) == expected
        assert found.tolist() == sorted(found)
        numbers = {int(gene[-2:]) % 3 for gene in found}
        assert numbers == {0, 1, 2}
        assert 12 < len(found) <= 18
        common = model_genes(both, StemSettings(n_genes=6, slice_genes="common"), seed=0)
        assert len(common) == 6

    def test_genes_are_chosen_on_a_sample_of_spots(
        self, tissue_pair: Pair, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(room, "_GENE_ROWS", 40)
        first, same = (model_genes(tissue_pair, StemSettings(n_genes=5), seed=0) for _ in range(2))
        assert len(first) == 5
        np.testing.assert_array_equal(first, same)

    def test_genes_of_two_spots(self, tissue_pair: Pair) -> None:
        """No gene is detected in three spots, and still some genes have to be chosen."""
        found = model_genes(tissue_pair.cells(np.array([0, 1])), StemSettings(n_genes=2), seed=0)
        assert 1 <= len(found) <= 2


def test_spots_of_slices(tissue_pair: Pair, sliced: Pair) -> None:
    assert {name: spots.tolist() for name, spots in slice_members(tissue_pair).items()} == {
        "": list(range(90))
    }
    found = slice_members(sliced)
    assert list(found) == ["a", "b", "c"]
    assert [len(spots) for spots in found.values()] == [29, 60, 1]
    assert sorted(np.concatenate(list(found.values()))) == list(range(90))


def rows_in(block: torch.Tensor, values: np.ndarray) -> list[int]:
    """Return the indices of a block's rows in the values."""
    places = []
    for row in block.numpy():
        same = np.flatnonzero((values == row).all(axis=1))
        assert len(same), "a row that is not in the input"
        places.append(int(same[0]))
    return places


class TestBatches:
    def test_batches_have_any_cells_and_spots_of_one_slice_with_adjacency(self, sliced: Pair) -> None:
        made = source(sliced, batch_cells=40, batch_spots=16, sigma=0.8)
        cells, spots = (
            one.values(slice(None))
            for one in model_inputs(sliced, sliced.shared_genes, (sliced.sc.target, sliced.st.target))
        )
        seen = set()
        for step in range(12):
            batch = made.draw(0, step, CPU)
            assert all(one.dtype == torch.float32 for one in (batch.cells, batch.spots, batch.adjacency))
            assert batch.cells.shape == (40, 12)
            assert len(batch.spots) == 16
            places = rows_in(batch.spots, spots)
            slices = set(sliced.slices[places])
            assert len(slices) == 1
            seen |= slices
            n_slice = 29 if slices == {"a"} else 59  # one of the 60 has no counts
            # spacing of the sampled spots, in two dimensions
            spacing = sliced.spacing * (n_slice / 16) ** 0.5
            expected = spatial_adjacency(sliced.coordinates[places], width=0.8 * spacing)
            np.testing.assert_allclose(batch.adjacency, expected, rtol=0, atol=TOLERANCE)
            drawn = rows_in(batch.cells, cells)
            assert len(set(drawn)) == 40
        assert seen == {"a", "b"}  # a slice of one spot has no neighbours to learn from

    def test_slices_are_drawn_in_proportion_to_their_size(self, sliced: Pair) -> None:
        made = source(sliced, batch_spots=100)
        sizes = [len(made.draw(0, step, CPU).spots) for step in range(400)]
        assert set(sizes) == {59, 29}  # whole slices, except for a spot without counts
        assert sizes.count(59) / 400 == pytest.approx(59 / 88, abs=0.08)

    def test_a_sample_of_a_slice_has_a_wider_kernel_by_default(self, tissue_pair: Pair) -> None:
        """Spots are sampled over the whole tissue, so S must reach farther to include as many of them."""
        whole = source(tissue_pair, sigma=None).draw(0, 0, CPU)
        filled = tissue_pair.coordinates[~tissue_pair.st.empty_cells]
        filled = filled[np.lexsort(filled.T)]  # in any order of the file
        expected = spatial_adjacency(filled, width=0.5 * tissue_pair.spacing)
        np.testing.assert_array_equal(whole.adjacency, expected)
        made = source(tissue_pair, sigma=None, batch_spots=30)
        spots = model_inputs(tissue_pair, tissue_pair.shared_genes, totals_of(tissue_pair, StemSettings()))[1]
        places = tissue_pair.coordinates[rows_in(made.draw(0, 0, CPU).spots, spots.values(slice(None)))]
        spacing = tissue_pair.spacing * (89 / 30) ** 0.5
        expected = spatial_adjacency(places, width=0.8 * spacing)
        np.testing.assert_allclose(made.draw(0, 0, CPU).adjacency, expected, rtol=0, atol=TOLERANCE)
        assert (np.ptp(places, axis=0) > 0.6 * np.ptp(filled, axis=0)).all()

    @pytest.mark.parametrize("kernel", ["exponential", "knn"])
    def test_other_kernels(self, tissue_pair: Pair, kernel: Any) -> None:
        batch = source(tissue_pair, kernel=kernel, kernel_neighbors=4, sigma=0.5).draw(0, 0, CPU)
        filled = tissue_pair.coordinates[~tissue_pair.st.empty_cells]
        expected = spatial_adjacency(
            filled[np.lexsort(filled.T)], kernel=kernel, width=0.5 * tissue_pair.spacing, k=4
        )
        np.testing.assert_array_equal(batch.adjacency, expected)
        np.testing.assert_allclose(batch.adjacency.sum(dim=1), 1, atol=TOLERANCE)

    def test_batches_depend_on_the_seed_and_the_model(self, tissue_pair: Pair) -> None:
        small: dict[str, Any] = {"batch_cells": 10, "batch_spots": 10}

        def batches(model: int, seed: int = 0, of: BatchSource | None = None) -> torch.Tensor:
            made = of or source(tissue_pair, seed=seed, **small)
            return torch.cat(
                [
                    torch.cat([one.cells, one.spots])
                    for one in (made.draw(model, 0, CPU), made.draw(model, 1, CPU))
                ]
            )

        assert torch.equal(batches(0), batches(0))
        assert not torch.equal(batches(0)[:10], batches(1)[:10])
        assert not torch.equal(batches(0)[:10], batches(0, seed=1)[:10])
        # Batches do not depend on batches drawn for another model, and can be drawn again from the first
        # step.
        made = source(tissue_pair, **small)
        batches(1, of=made)
        assert torch.equal(batches(0, of=made), batches(0))
        assert torch.equal(batches(0, of=made), batches(0))

    def test_training_uses_a_bounded_sample_of_both_sides(self, sliced: Pair) -> None:
        made = source(sliced, training_cells=15, training_spots=30, batch_cells=1000, batch_spots=1000)
        cells, spots = (
            one.values(slice(None))
            for one in model_inputs(sliced, sliced.shared_genes, (sliced.sc.target, sliced.st.target))
        )
        drawn = [made.draw(0, step, CPU) for step in range(20)]
        assert {tuple(rows_in(one.cells, cells)) != () and len(one.cells) for one in drawn} == {15}
        assert len({row for one in drawn for row in rows_in(one.cells, cells)}) == 15
        of_spots = {row for one in drawn for row in rows_in(one.spots, spots)}
        assert 30 <= len(of_spots) <= 31  # the share of each slice, rounded up
        assert {*sliced.slices[list(of_spots)]} == {"a", "b"}

    def test_dropout_by_the_formula_or_as_set(self, tissue: SimulatedTissue, tissue_pair: Pair) -> None:
        panel = tissue_pair.shared_genes
        expressed = [
            np.median((data[:, panel].X.toarray()[data.X.sum(axis=1).A1 > 0] > 0).sum(axis=1))
            for data in (tissue.sc, tissue.st)
        ]
        assert source(tissue_pair).dropout() == pytest.approx(max(0, 1 - expressed[0] / expressed[1]))
        assert source(tissue_pair, dropout=0.37).dropout() == 0.37

    def test_global_random_states_are_not_changed(self, tissue_pair: Pair) -> None:
        before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
        source(tissue_pair).draw(0, 0, CPU)
        assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before  # noqa: NPY002

    def test_sides_without_counts_of_the_genes_of_the_model(
        self, tissue: SimulatedTissue, fit_placer: Callable[..., Any]
    ) -> None:
        """The sides have counts, but not in the shared genes."""
        shared = tissue.sc.var_names.isin(tissue.st.var_names)
        empty = tissue.sc.copy()
        counts = empty.X.toarray()
        counts[:, shared] = 0
        counts[:, ~shared] += 1
        empty.X = type(empty.X)(counts)
        with pytest.raises(
            InputError, match=r"the reference data: expected cells with counts of the model's genes"
        ):
            fit_placer(on=pair(empty, tissue.st))
        spots = tissue.truth.copy()
        counts = spots.X.toarray()
        counts[:, shared] = 0
        spots.X = type(spots.X)(counts)
        few = tissue.sc[:, shared].copy()
        with pytest.raises(
            InputError, match=r"the spatial data: expected cells with counts of the model's genes"
        ):
            fit_placer(on=pair(few, spots))


# float32 copies of float64 results
ADJACENCY_TOLERANCE = 1e-6

LINE = np.array([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
"""Three spots; their distances are 1, 2 and 3."""


def of_one(row: list[float]) -> list[float]:
    return [one / sum(row) for one in row]


class TestKernels:
    @pytest.mark.parametrize("width", [0.5, 1.0, 7.0])
    @pytest.mark.parametrize(
        ("kernel", "form"),
        [("gaussian", lambda d: math.exp(-(d**2) / 2)), ("exponential", lambda d: math.exp(-d))],
    )
    def test_by_hand(self, kernel, form, width: float) -> None:
        apart = [[0, 1, 3], [1, 0, 2], [3, 2, 0]]
        expected = [of_one([form(one / width) for one in row]) for row in apart]
        found = spatial_adjacency(LINE, kernel=kernel, width=width)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=ADJACENCY_TOLERANCE)

    @pytest.mark.parametrize(
        ("k", "expected"),
        [
            (1, [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
            (2, [[1 / 2, 1 / 2, 0], [1 / 2, 1 / 2, 0], [0, 1 / 2, 1 / 2]]),
            (3, np.full((3, 3), 1 / 3)),
            (9, np.full((3, 3), 1 / 3)),
        ],
    )
    def test_nearest_neighbours_by_hand(self, k: int, expected) -> None:
        np.testing.assert_allclose(
            spatial_adjacency(LINE, kernel="knn", k=k), expected, atol=ADJACENCY_TOLERANCE
        )

    @pytest.mark.parametrize("dimensions", [2, 3])
    def test_nearest_neighbours_equal_a_plain_loop(self, dimensions: int) -> None:
        places = np.random.default_rng(0).random((30, dimensions))
        found = spatial_adjacency(places, kernel="knn", k=6)
        for spot in range(30):
            nearest = sorted(range(30), key=lambda other: math.dist(places[spot], places[other]))[:6]
            assert set(np.flatnonzero(found[spot])) == set(nearest)
            np.testing.assert_allclose(found[spot, nearest], 1 / 6, atol=ADJACENCY_TOLERANCE)

    @settings(max_examples=40, deadline=None)
    @given(
        places=arrays.arrays(
            np.float64,
            st.tuples(st.integers(1, 12), st.sampled_from([2, 3])),
            elements=st.floats(-1e4, 1e4, width=32),
        ),
        kernel=st.sampled_from(KERNELS),
        width=st.floats(1e-3, 1e6),
        k=st.integers(1, 15),
    )
    def test_rows_sum_to_one_without_negative_values(self, places, kernel, width: float, k: int) -> None:
        """Also with spots at the same position or far apart, or with a single spot."""
        found = spatial_adjacency(places, kernel=kernel, width=width, k=k)
        assert found.shape == (len(places), len(places))
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=10 * ADJACENCY_TOLERANCE)
        assert found.min() >= 0

    @settings(max_examples=15, deadline=None)
    @given(seed=st.integers(0, 999), kernel=st.sampled_from(KERNELS))
    def test_order_origin_and_unit_do_not_matter(self, seed: int, kernel) -> None:
        stream = np.random.default_rng(seed)
        places, order = stream.random((10, 2)), stream.permutation(10)
        found = spatial_adjacency(places, kernel=kernel, width=0.3, k=4)
        permuted = spatial_adjacency(places[order], kernel=kernel, width=0.3, k=4)
        np.testing.assert_allclose(permuted, found[np.ix_(order, order)], atol=ADJACENCY_TOLERANCE)
        turned = 100 * places @ np.array([[0.6, -0.8], [0.8, 0.6]]) + 50
        elsewhere = spatial_adjacency(turned, kernel=kernel, width=30, k=4)
        np.testing.assert_allclose(elsewhere, found, atol=ADJACENCY_TOLERANCE)

    def test_a_wider_kernel_reaches_farther(self) -> None:
        own = [spatial_adjacency(LINE, width=width)[0, 0] for width in (0.1, 1.0, 10.0)]
        assert own == sorted(own, reverse=True)
        assert own[0] == pytest.approx(1)
        assert own[2] == pytest.approx(1 / 3, abs=0.02)

    def test_coordinates_are_not_changed(self) -> None:
        places = LINE.copy()
        for kernel in KERNELS:
            spatial_adjacency(places, kernel=kernel)
        np.testing.assert_array_equal(places, LINE)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"kernel": "gauss"}, r"kernel: expected one of .*got 'gauss'\. Did you mean 'gaussian'"),
            ({"width": 0.0}, r"width: expected a number"),
            ({"width": float("nan")}, r"width: expected a number"),
            ({"k": 0}, r"k: expected a whole number >= 1, got 0"),
        ],
    )
    def test_settings_out_of_range(self, wrong: dict, message: str) -> None:
        with pytest.raises(SettingError, match=message):
            spatial_adjacency(LINE, **wrong)
