"""Estimates against scipy, closed forms, and simulated sweeps whose truth is known."""

from typing import Any

import numpy as np
import pytest
from helpers.results import simulated
from scipy import stats

from l2jax.results.estimates import differences_to_first, estimate, holm, nanmean, standard_error


def test_intervals_are_those_of_scipy():
    values = np.random.default_rng(0).normal(0.1, 1, (4, 6))
    ours = estimate(values)
    for i, row in enumerate(values):
        test: Any = stats.ttest_1samp(row, 0)
        np.testing.assert_allclose([ours.low[i], ours.high[i]], test.confidence_interval(0.95))
        np.testing.assert_allclose([ours.mean[i], ours.se[i], ours.p[i]], [row.mean(), stats.sem(row), test.pvalue])


def test_missing_values_are_left_out():
    values = np.array([[1.0, 2.0, np.nan, 4.0], [1.0, np.nan, np.nan, 2.0], [np.nan] * 4])
    ours = estimate(values)
    test = stats.ttest_1samp([1.0, 2.0, 4.0], 0)
    np.testing.assert_allclose([ours.low[0], ours.high[0]], test.confidence_interval(0.95))
    np.testing.assert_array_equal(ours.num, [3, 2, 0])
    np.testing.assert_allclose(ours.mean, [7 / 3, 1.5, np.nan])
    np.testing.assert_allclose(ours.se[1], stats.sem([1.0, 2.0]))
    assert np.isnan([ours.low[1:], ours.high[1:], ours.p[1:]]).all() and np.isnan(ours.se[2])


def test_equal_values_have_no_interval():
    accuracies = np.float32([[0.9025, 0.885, 0.9225], [0.9, 0.8825, 0.92]]).astype(np.float64)
    ours = estimate(accuracies[0] - accuracies[1])  # one example of 400 for each seed
    assert ours.mean == pytest.approx(0.0025, rel=1e-4) and np.isnan([ours.low, ours.high, ours.p]).all()


def test_folds_have_the_standard_error_of_nadeau_and_bengio():
    # 5 folds of 100 examples, twice: n_val / n_train = 20 / 80, J = 10
    values = np.random.default_rng(1).normal(size=10)
    expected = np.sqrt((1 / 10 + 20 / 80) * values.var(ddof=1))
    np.testing.assert_allclose(standard_error(values, 5), expected)
    np.testing.assert_allclose(standard_error(values), stats.sem(values))
    ours = estimate(values, 5)
    half = stats.t.ppf(0.975, 9) * expected
    np.testing.assert_allclose([ours.low, ours.high], [values.mean() - half, values.mean() + half])


def test_intervals_cover_dependent_folds():
    """Values that correlate as Nadeau and Bengio assume: the corrected interval covers 95%, the plain one does not."""
    num_folds, trials, rng = 5, 10, np.random.default_rng(2)
    correlation = 1 / num_folds  # n_val / (n_val + n_train)
    shared, own = rng.normal(size=(20_000, 1)), rng.normal(size=(20_000, trials))
    values = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
    corrected, plain = estimate(values, num_folds), estimate(values)
    assert ((corrected.low < 0) & (corrected.high > 0)).mean() == pytest.approx(0.95, abs=0.006)  # 4 standard errors
    assert ((plain.low < 0) & (plain.high > 0)).mean() < 0.8


def test_holm_on_worked_examples():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.02, np.nan, 0.5, 0.6])), [0.06, np.nan, 1, 1])
    np.testing.assert_allclose(holm(np.array([0.3])), [0.3])
    assert np.isnan(holm(np.array([np.nan, np.nan]))).all() and holm(np.zeros(0)).shape == (0,)


def test_holm_rejects_as_its_definition_says():
    for p in np.random.default_rng(3).uniform(0, 0.05, (50, 6)):
        rejected = set()
        for rank, index in enumerate(np.argsort(p)):
            if p[index] > 0.05 / (len(p) - rank):
                break
            rejected.add(index)
        assert set(np.flatnonzero(holm(p) <= 0.05)) == rejected


@pytest.mark.parametrize("trials", [3, pytest.param(5, marks=pytest.mark.slow), 10])
def test_fewer_than_1_in_20_null_sweeps_claim_anything(trials):
    _, p = differences_to_first(simulated(100_000, 8, trials))  # so many, because the rate is close to 1 in 20
    assert 0.04 < (p < 0.05).any(-1).mean() < 0.05
    _, p = differences_to_first(simulated(20_000, 2, trials))  # one comparison: exactly 1 in 20
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.0062)  # 4 standard errors


def test_a_true_effect_is_found():
    ours, p = differences_to_first(simulated(1000, 8, 5, effect=-0.1))
    assert (p[:, 2] < 0.05).mean() > 0.99
    assert (np.delete(p, 2, 1) < 0.05).any(-1).mean() <= 0.05
    assert (ours.mean[:, 2] < 0).all()
    assert ((ours.low < -0.1) & (ours.high > -0.1))[:, 2].mean() == pytest.approx(0.95, abs=0.03)


def test_the_mean_of_nothing_is_not_a_number():
    np.testing.assert_array_equal(nanmean(np.array([[1.0, np.nan, 4.0], [np.nan] * 3])), [2.5, np.nan])
    assert np.isnan(nanmean(np.zeros((0,))))
