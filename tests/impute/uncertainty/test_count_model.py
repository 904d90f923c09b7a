"""The count model: mean counts, families, fits to simulated counts, and draws."""

import numpy as np
import pytest

from cellweft._errors import InputError
from cellweft.impute.uncertainty import count_model
from cellweft.impute.uncertainty.count_model import (
    FAMILIES,
    CountModel,
    _Entries,
    dispersions_of,
    fit_count_model,
    frailty_at,
    frailty_points,
    plain_counts,
)

N_CELLS, N_GENES = 600, 24


def simulated(frailty: str, *, seed: int = 0, dispersion: float = 1.5) -> tuple[np.ndarray, ...]:
    """Simulate predictions, counts and cell sizes of a panel with frailties of one family."""
    stream = np.random.default_rng(seed)
    sizes = np.exp(0.5 * stream.standard_normal((N_CELLS, 1))) * np.ones(N_GENES)
    rates = np.exp(stream.normal(0.5, 0.6, (N_CELLS, N_GENES)))
    scores = stream.standard_normal(rates.shape)
    means = 2 * rates * sizes * frailty_at(scores, FAMILIES.index(frailty), dispersion=dispersion, zeros=0.3)
    return np.log1p(rates), stream.poisson(means).astype(float), sizes


def test_mean_counts_by_hand() -> None:
    model = CountModel(
        rate=np.array([np.log(2.0), 0.5, 0.5]),
        level_sd=np.zeros(1),
        family=np.zeros(1),
        dispersion=np.zeros(1),
        zeros=np.zeros(1),
    )
    counts = model.means(np.log1p([[9.0, 0.0], [4.0, 1.0]]), np.array([4.0, 0.0]))
    np.testing.assert_allclose(counts, [[2 * 3 * 2, 0], [0, 0]], atol=1e-12)
    predicted, sizes = np.log1p(np.array([[9.0, 0.0], [4.0, 1.0]], dtype=np.float32)), np.array([4.0, 0.0])
    upper = predicted + np.float32(1)
    scaled = model.scaled(predicted, sizes, bounds=(np.zeros_like(predicted), upper))
    np.testing.assert_allclose(scaled[0], counts, rtol=1e-6)
    np.testing.assert_allclose(scaled[2], np.expm1(upper) * sizes[:, None], rtol=1e-6)
    assert (scaled[1] <= scaled[0]).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dispersion", [0.3, 2.0])
def test_a_frailty_has_mean_1_and_the_requested_variance(family: str, dispersion: float) -> None:
    number, scores = FAMILIES.index(family), np.random.default_rng(0).standard_normal(400_000)
    drawn = frailty_at(scores, number, dispersion=dispersion, zeros=0.2)
    assert drawn.mean() == pytest.approx(1, abs=0.02)
    assert drawn.var() == pytest.approx(0 if family == "poisson" else dispersion, rel=0.06)
    points = frailty_points(number, dispersion, 0.2)
    assert points.mean() == pytest.approx(1)
    assert (np.diff(points) >= 0).all()
    shares = np.sort(drawn).reshape(len(points), -1).mean(axis=1)
    np.testing.assert_allclose(points[:-2], shares[:-2], atol=0.05)
    if family == "zero-inflated":
        assert (drawn == 0).mean() == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_family_of_simulated_counts_is_recovered(family: str) -> None:
    model = fit_count_model(*simulated(family)[:2], sizes=simulated(family)[2])
    assert model.name == family
    bias, power, exponent = model.rate
    assert bias == pytest.approx(np.log(2), abs=0.15)
    assert power == pytest.approx(1, abs=0.15)
    assert exponent == pytest.approx(1, abs=0.15)
    if family != "poisson":
        assert model.dispersion[0] == pytest.approx(1.5, rel=0.25)


def test_families_are_compared_by_five_fold_cross_validation_over_genes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts, likelihood = [], count_model._likelihood

    def noted(means: np.ndarray, counts: np.ndarray, points: np.ndarray) -> np.ndarray:
        parts.append(means[0].tolist())
        return likelihood(means, counts, points)

    monkeypatch.setattr(count_model, "_likelihood", noted)
    means = np.tile(np.arange(1.0, 13.0), (4, 1))  # 12 genes, identified by their means
    count_model._chosen(means, np.ones((4, 12)) * [[0], [9], [50], [2]])
    assert parts[:5] == [[1, 6, 11], [2, 7, 12], [3, 8], [4, 9], [5, 10]]
    assert parts[5:10] == parts[:5]
    assert len(parts) == 5 * (3 + len(count_model._SHARES_OF_ZEROS))


@pytest.mark.parametrize("family", FAMILIES)
def test_draws_have_the_variance_and_the_zeros_of_counts(family: str) -> None:
    predicted, counts, sizes = simulated(family)
    model = fit_count_model(predicted, counts, sizes=sizes)
    means = model.means(predicted, sizes[:, 0])
    means *= counts.mean(axis=0) / means.mean(axis=0)
    drawn = model.draw(means, generator=np.random.default_rng(1), own_level=True)
    assert (drawn == np.rint(drawn)).all()
    assert (drawn >= 0).all()
    assert np.median(drawn.var(axis=0) / counts.var(axis=0)) == pytest.approx(1, abs=0.1)
    assert np.median((drawn == 0).mean(axis=0) / (counts == 0).mean(axis=0)) == pytest.approx(1, abs=0.1)


def test_the_spread_of_levels_matches_the_panel() -> None:
    predicted, counts, sizes = simulated("negative binomial")
    factors = np.exp(0.5 * np.random.default_rng(3).standard_normal(N_GENES))
    rates = np.expm1(predicted) / factors  # predictions with wrong levels
    model = fit_count_model(np.log1p(rates), counts, sizes=sizes)
    logs = np.log(factors)
    # the standard deviation of a normal distribution
    robust = np.median(np.abs(logs - np.median(logs))) / 0.6745
    assert model.level_sd[0] == pytest.approx(robust, abs=0.15)
    means = np.full((500, 200), 3.0)
    drawn = model.draw(means, generator=np.random.default_rng(0)).mean(axis=0)
    assert np.log(drawn).std() == pytest.approx(model.level_sd[0], rel=0.25)


def test_shared_effects_do_not_change_the_marginal_distribution() -> None:
    model = CountModel(
        rate=plain_counts().rate,
        level_sd=np.zeros(1),
        family=np.ones(1),
        dispersion=np.ones(1),
        zeros=np.zeros(1),
    )
    means, state = np.full((2000, 300), 2.0), np.random.default_rng(1).standard_normal((2000, 1))
    effects = np.array([0.3, 0.0, 0.5])
    drawn = model.draw(means, generator=np.random.default_rng(0), effects=effects, state=state)
    assert drawn.mean() == pytest.approx(2, rel=0.05)
    assert drawn.var() == pytest.approx(2 + 4, rel=0.1)
    slopes = state[:, 0] @ drawn / len(state)  # genes vary along the component more than by chance
    alone = model.draw(means, generator=np.random.default_rng(0))
    assert slopes.std() > 4 * (state[:, 0] @ alone / len(state)).std()


def test_drawn_levels_have_mean_1() -> None:
    one, none = np.ones(1), np.zeros(1)
    model = CountModel(rate=plain_counts().rate, level_sd=one, family=none, dispersion=none, zeros=none)
    drawn = model.draw(np.full((1, 5_000), 100.0), generator=np.random.default_rng(0))
    assert drawn.mean() == pytest.approx(100, rel=0.1)
    assert np.log(drawn.clip(1)).mean() == pytest.approx(np.log(100) - 0.5, abs=0.05)


def test_a_model_is_stored_as_arrays() -> None:
    model = fit_count_model(*simulated("log-normal")[:2], sizes=simulated("log-normal")[2])
    again = CountModel.from_arrays(model.to_arrays())
    assert again.name == model.name
    shapes = {name: value.shape for name, value in model.to_arrays().items()}
    assert shapes == {name: value.shape for name, value in plain_counts().to_arrays().items()}
    for name, value in model.to_arrays().items():
        np.testing.assert_array_equal(getattr(again, name), value)


def test_dispersions_match_the_variance() -> None:
    means = np.full((4, 1), 2.0)
    assert dispersions_of(means, np.array([[0.0], [0.0], [4.0], [4.0]]))[0] == pytest.approx((4 - 2) / 4)
    assert dispersions_of(means, means)[0] == 0


def test_too_few_genes_with_counts_are_refused() -> None:
    predicted, counts, sizes = simulated("poisson")
    counts[:, 5:] = 0
    with pytest.raises(InputError, match="counts: expected at least 6 genes with counts, got 5"):
        fit_count_model(predicted, counts, sizes=sizes)
    with pytest.raises(InputError, match="sizes"):
        fit_count_model(predicted, counts, sizes=sizes[:-1])


def test_rates_have_a_floor_of_a_thousandth_of_their_genes_mean() -> None:
    predicted = np.log1p(np.tile([[0.0], [4.0]], (1, 12)))
    counts = np.tile([[1.0], [2.0]], (1, 12))
    found = _Entries.of(predicted, counts, np.ones((2, 12)))
    np.testing.assert_allclose(np.exp(found.rates[:, 0]), [0.002, 4.002], rtol=1e-9)
    np.testing.assert_array_equal(found.own, np.full(12, 1.5))
