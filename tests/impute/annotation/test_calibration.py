"""Label proportions as probabilities, reliability bins, and cells of types missing in the reference."""

import numpy as np
import pytest

from cellweft.impute.annotation.calibration import (
    Anchors,
    LabelScale,
    Middle,
    Novelty,
    calibration_error,
    joined,
    profile_fit,
    reliability_bins,
    unknown_together,
    without_label,
    z_scores,
)


def test_the_scale_recovers_the_slope_of_flattened_proportions() -> None:
    draw = np.random.default_rng(0)
    probabilities = draw.dirichlet([0.6] * 3, 20_000)
    codes = (probabilities.cumsum(axis=1) > draw.random((20_000, 1))).argmax(axis=1)
    flat = np.sqrt(np.sqrt(probabilities))
    scale = LabelScale.fit(flat / flat.sum(axis=1, keepdims=True), codes, np.full(20_000, 1 / 20_000))
    assert scale.slope == pytest.approx(4, abs=0.2)
    assert np.abs(scale.offsets).max() < 0.1
    made = scale.probabilities(flat)
    np.testing.assert_allclose(made.sum(axis=1), 1, rtol=0, atol=1e-12)
    bins = reliability_bins(made.max(axis=1), made.argmax(axis=1) == codes, np.ones(len(codes)))
    assert calibration_error(bins) < 0.02


def test_offsets_correct_labels_with_too_large_proportions() -> None:
    shares = np.tile([[0.7, 0.3]], (1000, 1))
    codes = np.repeat([0, 1], 500)
    scale = LabelScale.fit(shares, codes, np.full(1000, 1e-3))
    np.testing.assert_allclose(scale.probabilities(shares)[0], 0.5, rtol=0, atol=0.02)


def test_without_offsets_the_best_label_stays_the_same() -> None:
    draw = np.random.default_rng(0)
    shares = draw.dirichlet([1.0] * 3, 500)
    codes = draw.integers(2, size=500)  # the last label never occurs
    scale = LabelScale.fit(shares, codes, np.full(500, 1 / 500), with_offsets=False)
    np.testing.assert_array_equal(scale.offsets, 0)
    np.testing.assert_array_equal(scale.probabilities(shares).argmax(axis=1), shares.argmax(axis=1))


def test_bins_and_their_error_by_hand() -> None:
    bins = reliability_bins(
        np.array([0.95, 0.97, 0.55, 1.0]), np.array([True, False, True, True]), np.array([1.0, 1, 1, 1])
    )
    np.testing.assert_allclose(bins, [[0.55, 1, 0.25], [(0.95 + 0.97 + 1) / 3, 2 / 3, 0.75]])
    expected = 0.25 * 0.45 + 0.75 * ((0.95 + 0.97 + 1) / 3 - 2 / 3)
    assert calibration_error(bins) == pytest.approx(expected)


def test_the_probability_of_an_omitted_label_goes_to_the_others() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2]])
    np.testing.assert_allclose(without_label(probabilities, 0), [[0, 0.6, 0.4]])
    np.testing.assert_array_equal(probabilities, [[0.5, 0.3, 0.2]])


def test_the_geometric_mean_of_two_tables() -> None:
    found = joined([np.array([[0.9, 0.1]]), np.array([[0.4, 0.6]])], (0.5, 0.5))
    np.testing.assert_allclose(found, [[0.6 / (0.6 + 0.06**0.5), 0.06**0.5 / (0.6 + 0.06**0.5)]])


def test_tables_are_combined_by_weighted_logarithms() -> None:
    tables = [np.array([[0.5, 0.5]]), np.array([[0.2, 0.8]])]
    np.testing.assert_allclose(joined(tables, (1.0, 0.0)), tables[0])
    odds = 4**0.75
    np.testing.assert_allclose(joined(tables, (0.25, 0.75)), [[1 / (1 + odds), odds / (1 + odds)]])


def test_nearness_can_exclude_the_cell_itself_and_a_label() -> None:
    anchors = Anchors(embedded=np.eye(3, dtype=np.float32), codes=np.array([0, 1, 1]))
    cells = np.eye(3, dtype=np.float32)[:1]
    assert anchors.nearness(cells)[0] == pytest.approx(1 / 3)
    assert anchors.nearness(cells, without=0)[0] == 0
    assert anchors.nearness(cells, without=1)[0] == 1
    assert anchors.nearness(cells, own=np.array([0]))[0] == pytest.approx(-1 / 3)


def test_z_scores_profile_fit_and_centre_by_hand() -> None:
    values = np.array([[1.0, 5.0], [3.0, 5.0]], dtype=np.float32)
    scores = z_scores(values, values.mean(axis=0), (values**2).mean(axis=0))
    np.testing.assert_allclose(scores, [[-1, 0], [1, 0]])
    fits = profile_fit(scores, np.array([[1.0, 0], [0, 1.0]]), np.array([[-2.0, 0], [0, 1.0]]))
    np.testing.assert_allclose(fits, [1, 0])
    middle = Middle.of(np.array([1.0, 2.0, 3.0, 4.0, 100.0]))
    assert (middle.value, middle.spread) == (3, 1)
    assert middle.standard(np.array([100.0]))[0] == 10


def test_cells_of_a_type_missing_in_the_reference_are_unknown() -> None:
    """Four types have one direction each; the tissue has cells of a fifth."""
    draw = np.random.default_rng(1)
    profiles = np.eye(5)[:, :5] * 3

    def cells(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        scores = profiles[codes] + draw.standard_normal((len(codes), 5))
        embedded = (scores / np.linalg.norm(scores, axis=1, keepdims=True)).astype(np.float32)
        likely = np.exp(scores[:, :4] * 2)
        return scores, embedded, likely / likely.sum(axis=1, keepdims=True)

    codes = np.repeat(np.arange(4), 100)
    scores, embedded, probabilities = cells(codes)
    novelty = Novelty.fit(
        probabilities,
        scores,
        embedded,
        anchors=Anchors(embedded=embedded, codes=codes),
        weights=np.full(400, 1 / 400),
    )
    there = np.repeat(np.arange(5), [200, 200, 200, 200, 80])
    scores, embedded, probabilities = cells(there)
    unknown = novelty.unknown(
        probabilities,
        novelty.anchors.nearness(embedded),
        profile_fit(scores, probabilities, novelty.profiles),
    )
    assert unknown[there == 4].mean() > 0.5
    assert unknown[there < 4].mean() < 0.15


def test_similar_cells_are_unknown_together() -> None:
    looks = np.zeros(40, dtype=np.bool_)
    looks[[0, 1, 4, 8, 39]] = True
    groups = np.repeat([0, 1, 2, 9], [4, 4, 31, 1])  # look unknown: 2 of 4, 1 of 4, 1 of 31, 1 of 1
    expected = np.repeat([True, False, False, True], [4, 4, 31, 1])
    np.testing.assert_array_equal(unknown_together(looks, groups), expected)


def test_no_group_is_unknown_if_most_cells_of_all_groups_look_unknown() -> None:
    looks = np.tile([True, True, False], 20)
    assert not unknown_together(looks, np.arange(60) // 6).any()
