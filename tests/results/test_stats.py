"""What the numbers support: against scipy, closed forms, plain loops, and sweeps with a known truth."""

import itertools
from typing import Any

import numpy as np
import pytest
import xarray as xr
from helpers.results import STRENGTHS, grid_of_methods, simulated, synthetic
from scipy import stats as scipy_stats

from l2jax import stats
from l2jax.results.results import Results


def test_intervals_are_those_of_scipy():
    values = np.random.default_rng(0).normal(0.1, 1, (4, 6))
    of = stats.estimate(values)
    for i, row in enumerate(values):
        test: Any = scipy_stats.ttest_1samp(row, 0)
        np.testing.assert_allclose([of.low[i], of.high[i]], test.confidence_interval(0.95))
        np.testing.assert_allclose([of.mean[i], of.se[i], of.p[i]], [row.mean(), scipy_stats.sem(row), test.pvalue])


def test_what_is_missing_is_left_out():
    values = np.array([[1.0, 2.0, np.nan, 4.0], [1.0, np.nan, np.nan, 2.0], [np.nan] * 4])
    of = stats.estimate(values)
    test = scipy_stats.ttest_1samp([1.0, 2.0, 4.0], 0)
    np.testing.assert_allclose([of.low[0], of.high[0]], test.confidence_interval(0.95))
    np.testing.assert_array_equal(of.num, [3, 2, 0])
    np.testing.assert_allclose(of.mean, [7 / 3, 1.5, np.nan])
    np.testing.assert_allclose(of.se[1], scipy_stats.sem([1.0, 2.0]))
    assert np.isnan([of.low[1:], of.high[1:], of.p[1:]]).all() and np.isnan(of.se[2])


def test_values_that_are_all_the_same_have_no_interval():
    accuracies = np.float32([[0.9025, 0.885, 0.9225], [0.9, 0.8825, 0.92]]).astype(np.float64)
    of = stats.estimate(accuracies[0] - accuracies[1])  # one example of 400 for each seed
    assert of.mean == pytest.approx(0.0025, rel=1e-4) and np.isnan([of.low, of.high, of.p]).all()


def test_standard_error_with_folds_is_that_of_nadeau_and_bengio():
    # 5 folds of 100 examples, twice: n_val / n_train = 20 / 80, J = 10
    values = np.random.default_rng(1).normal(size=10)
    expected = np.sqrt((1 / 10 + 20 / 80) * values.var(ddof=1))
    np.testing.assert_allclose(stats.standard_error(values, 5), expected)
    np.testing.assert_allclose(stats.standard_error(values), scipy_stats.sem(values))
    of = stats.estimate(values, 5)
    half = scipy_stats.t.ppf(0.975, 9) * expected
    np.testing.assert_allclose([of.low, of.high], [values.mean() - half, values.mean() + half])


def test_intervals_with_folds_hold_where_folds_depend_on_each_other():
    """Values that correlate as Nadeau and Bengio assume: the corrected interval covers 95 %, the plain one does not."""
    num_folds, trials, rng = 5, 10, np.random.default_rng(2)
    correlation = 1 / num_folds  # n_val / (n_val + n_train)
    shared, own = rng.normal(size=(20_000, 1)), rng.normal(size=(20_000, trials))
    values = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
    covered = [
        ((of.low < 0) & (of.high > 0)).mean() for of in (stats.estimate(values, num_folds), stats.estimate(values))
    ]
    assert covered[0] == pytest.approx(0.95, abs=0.006)  # 4 standard errors
    assert covered[1] < 0.8


def test_holm_on_worked_examples():
    np.testing.assert_allclose(stats.holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(stats.holm(np.array([0.02, np.nan, 0.5, 0.6])), [0.06, np.nan, 1, 1])
    np.testing.assert_allclose(stats.holm(np.array([0.3])), [0.3])
    assert np.isnan(stats.holm(np.array([np.nan, np.nan]))).all() and stats.holm(np.zeros(0)).shape == (0,)


def test_holm_rejects_as_its_definition_says():
    for p in np.random.default_rng(3).uniform(0, 0.05, (50, 6)):
        rejected = set()
        for rank, index in enumerate(np.argsort(p)):
            if p[index] > 0.05 / (len(p) - rank):
                break
            rejected.add(index)
        assert set(np.flatnonzero(stats.holm(p) <= 0.05)) == rejected


@pytest.mark.parametrize("trials", [3, pytest.param(5, marks=pytest.mark.slow), 10])
def test_where_l2_does_nothing_fewer_than_1_in_20_sweeps_claim_anything(trials):
    _, p = stats.differences_to_first(simulated(100_000, 8, trials))  # so many as the rate is close to 1 in 20
    assert 0.04 < (p < 0.05).any(-1).mean() < 0.05
    _, p = stats.differences_to_first(simulated(20_000, 2, trials))  # one comparison: exactly 1 in 20
    assert (p < 0.05).mean() == pytest.approx(0.05, abs=0.0062)  # 4 standard errors


def test_a_true_effect_is_found():
    of, p = stats.differences_to_first(simulated(1000, 8, 5, effect=-0.1))
    assert (p[:, 2] < 0.05).mean() > 0.99
    assert (np.delete(p, 2, 1) < 0.05).any(-1).mean() <= 0.05
    assert (of.mean[:, 2] < 0).all() and ((of.low < -0.1) & (of.high > -0.1))[:, 2].mean() == pytest.approx(
        0.95, abs=0.03
    )


def test_compare_pairs_trials_of_the_same_seed():
    results = synthetic(seeds=5, diverged=[(0.0, 2, 3), (0.1, 0, 1), (0.1, 1, 1), (0.1, 3, 1)])
    shuffled = Results(results.data.isel(l2=[5, 0, 7, 2, 1, 6, 3, 4], seed=[3, 1, 0, 4, 2]), {})
    last = results.data["val_loss"].isel(epoch=-1).astype(np.float64)
    for of in (results, shuffled):
        table = stats.compare(stats.outcomes(of))
        assert table.index.tolist() == list(STRENGTHS[1:])
        for l2, row in table.loc[:1e-2].to_dict("index").items():
            test: Any = scipy_stats.ttest_rel(*(last.sel(l2=at, seed=[0, 1, 3, 4]).values for at in (l2, 0.0)))
            np.testing.assert_allclose([row["low"], row["high"]], test.confidence_interval(), rtol=1e-6)
            np.testing.assert_allclose(row["p"], test.pvalue, rtol=1e-6)
            assert row["num"] == 4
        assert table["num"][0.1] == 1 and np.isnan(table["p_holm"][0.1])
        np.testing.assert_allclose(table["p_holm"], stats.holm(table["p"].to_numpy()))


def test_compare_pairs_seeds_and_folds():
    folds = [synthetic(noise=noise).data for noise in (0.01, 0.02, 0.03)]
    data = xr.concat(folds, xr.Variable("fold", range(3))).transpose("epoch", "seed", "fold", "l2")
    last = data["val_loss"].isel(epoch=-1).astype(np.float64)
    row = stats.compare(stats.outcomes(Results(data, {}))).loc[0.01].to_dict()
    differences = (last.sel(l2=0.01) - last.sel(l2=0.0)).values.ravel()
    half = scipy_stats.t.ppf(0.975, 8) * np.sqrt((1 / 9 + 1 / 2) * differences.var(ddof=1))
    assert row["num"] == 9
    np.testing.assert_allclose([row["low"], row["high"]], [differences.mean() - half, differences.mean() + half])


def test_overfitting_is_the_gap_and_the_rise_after_the_best_epoch():
    results = synthetic(diverged=[(0.1, 1, 4)])
    ended, data = stats.outcomes(results), results.data
    for l2, seed in itertools.product(range(8), range(3)):
        at = {"l2": l2, "seed": seed}
        curves = {
            name: data[name][at].values.astype(np.float64)
            for name in ("val_loss", "val_accuracy", "train_loss", "train_accuracy")
        }
        expected = {
            "gap": curves["val_loss"][-1] - curves["train_loss"][-1],
            "accuracy_gap": curves["val_accuracy"][-1] - curves["train_accuracy"][-1],
            "rise": curves["val_loss"][-1] - curves["val_loss"].min(),
            "fall": curves["val_accuracy"].max() - curves["val_accuracy"][-1],
        }
        for name, value in expected.items():
            np.testing.assert_allclose(ended[name][at], value, atol=1e-12, err_msg=name)
    table = stats.summary(ended, "gap")
    np.testing.assert_allclose(table.loc[list(STRENGTHS), "mean"], results.settings_table()["gap"])
    np.testing.assert_allclose(table["se"], results.settings_table()["gap_se"], rtol=1e-5)  # of differences in float32
    np.testing.assert_array_equal(table["num"], [3] * 7 + [2])


def test_an_interval_of_rises_ends_at_0():
    ended = stats.outcomes(synthetic()).assign(rise=(("l2", "seed"), [[0.1, 0.2, 0.3], [0.0, 0.0, 0.3]] * 4))
    table = stats.summary(ended, "rise")
    for row, rises in enumerate(ended["rise"].values):
        low, high = scipy_stats.ttest_1samp(rises, 0).confidence_interval()
        np.testing.assert_allclose(table.iloc[row][["low", "high"]].tolist(), [max(low, 0), high])
    assert (table["low"] == 0).any()


def test_early_stopped_trials_are_at_their_own_best_epoch():
    results = synthetic(noise=0.04, diverged=[(0.1, 1, 4), (0.0, 0, 1)])
    stopped = stats.early_stopped(results)
    assert stopped.data["val_loss"].sizes["epoch"] == 1
    for l2, seed in itertools.product(range(8), range(3)):
        trial = results.data.isel(l2=l2, seed=seed)
        epoch = max(int(trial["best_epoch"]), 1)
        for name in ("train_loss", "val_loss", "val_accuracy", "kernel_sum_of_squares"):
            now = stopped.data[name].isel(l2=l2, seed=seed, epoch=0).item()
            np.testing.assert_equal(now, trial[name].sel(epoch=epoch).item())
    np.testing.assert_array_equal(stopped.data["diverged"], results.data["diverged"])
    np.testing.assert_array_equal(stopped.data["best_epoch"], results.data["best_epoch"])
    assert np.isnan(stopped.data["test_loss"]).all()
    lowest = results.data["val_loss"].min("epoch").astype(np.float64).mean("seed").drop_sel(l2=[0.0, 0.1])
    assert stopped.best() == lowest.idxmin("l2")


def test_methods_stand_at_their_best_settings():
    results = grid_of_methods()
    table = stats.methods(results)
    assert list(table.index) == ["none", "L2", "weight decay", "none stopped early", "L2 stopped early"]
    assert table["settings"].tolist() == [2, 2, 2, 2, 2]
    rate = {"none": 0.001, "L2": 0.01, "weight decay": 0.01, "none stopped early": 0.001, "L2 stopped early": 0.01}
    for method, row in table.to_dict("index").items():
        method = str(method)
        assert row["learning_rate"] == rate[method], method
        assert (row["l2"], row["weight_decay"]) == (0.01 * ("L2" in method), 0.1 * (method == "weight decay"))
        curves = results.data.sel(l2=row["l2"], weight_decay=row["weight_decay"], learning_rate=row["learning_rate"])
        curves = curves["val_loss"].astype(np.float64)
        values = (curves.min("epoch") if "early" in method else curves.isel(epoch=-1)).values
        np.testing.assert_allclose([row["val_loss"], row["val_loss_se"]], [values.mean(), scipy_stats.sem(values)])
        if method != "none":
            none = results.data["val_loss"].sel(l2=0, weight_decay=0, learning_rate=0.001).isel(epoch=-1)
            test = scipy_stats.ttest_rel(values, none.values.astype(np.float64))
            np.testing.assert_allclose([row["low"], row["high"]], test.confidence_interval(), rtol=1e-5)
    assert table["change"].isna().tolist() == [True, False, False, False, False]
    assert table["test_loss"].notna().tolist() == [True, True, True, False, False]


def test_methods_of_a_sweep_along_l2_alone():
    assert list(stats.methods(synthetic()).index) == ["none", "L2", "none stopped early", "L2 stopped early"]
    assert list(stats.methods(synthetic(STRENGTHS[1:])).index) == ["L2", "L2 stopped early"]
    scalar = Results(synthetic().data.assign_coords(weight_decay=0.1), {})
    assert list(stats.methods(scalar).index) == ["weight decay"]
