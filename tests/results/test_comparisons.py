"""Questions to results: against scipy, plain loops, and sweeps whose truth is known."""

import itertools
from typing import Any

import numpy as np
import xarray as xr
from helpers.results import STRENGTHS, grid_of_methods, synthetic
from scipy import stats

from l2jax.results import comparisons
from l2jax.results.estimates import holm
from l2jax.results.replicates import replicate_labels
from l2jax.results.results import Results


def test_compare_pairs_trials_of_the_same_seed():
    results = synthetic(seeds=5, diverged=[(0.0, 2, 3), (0.1, 0, 1), (0.1, 1, 1), (0.1, 3, 1)])
    shuffled = Results(results.data.isel(l2=[5, 0, 7, 2, 1, 6, 3, 4], seed=[3, 1, 0, 4, 2]), {})
    last = results.data["val_loss"].isel(epoch=-1).astype(np.float64)
    for ordered in (results, shuffled):
        table = comparisons.compare(comparisons.outcomes(ordered))
        assert table.index.tolist() == list(STRENGTHS[1:])
        for l2, row in table.loc[:1e-2].to_dict("index").items():
            test: Any = stats.ttest_rel(*(last.sel(l2=strength, seed=[0, 1, 3, 4]).values for strength in (l2, 0.0)))
            np.testing.assert_allclose([row["low"], row["high"]], test.confidence_interval(), rtol=1e-6)
            np.testing.assert_allclose(row["p"], test.pvalue, rtol=1e-6)
            assert row["num"] == 4
        assert table["num"][0.1] == 1 and np.isnan(table["p_holm"][0.1])
        np.testing.assert_allclose(table["p_holm"], holm(table["p"].to_numpy()))


def test_compare_pairs_seeds_and_folds():
    folds = [synthetic(noise=noise).data for noise in (0.01, 0.02, 0.03)]
    data = xr.concat(folds, xr.Variable("fold", range(3))).transpose("epoch", "seed", "fold", "l2")
    last = data["val_loss"].isel(epoch=-1).astype(np.float64)
    row = comparisons.compare(comparisons.outcomes(Results(data, {}))).loc[0.01].to_dict()
    differences = (last.sel(l2=0.01) - last.sel(l2=0.0)).values.ravel()
    half = stats.t.ppf(0.975, 8) * np.sqrt((1 / 9 + 1 / 2) * differences.var(ddof=1))
    assert row["num"] == 9
    np.testing.assert_allclose([row["low"], row["high"]], [differences.mean() - half, differences.mean() + half])


def test_overfitting_is_gap_and_rise():
    results = synthetic(diverged=[(0.1, 1, 4)])
    outcomes, data = comparisons.outcomes(results), results.data
    for l2, seed in itertools.product(range(8), range(3)):
        trial = {"l2": l2, "seed": seed}
        curves = {
            name: data[name][trial].values.astype(np.float64)
            for name in ("val_loss", "val_accuracy", "train_loss", "train_accuracy")
        }
        expected = {
            "gap": curves["val_loss"][-1] - curves["train_loss"][-1],
            "accuracy_gap": curves["val_accuracy"][-1] - curves["train_accuracy"][-1],
            "rise": curves["val_loss"][-1] - curves["val_loss"].min(),
            "fall": curves["val_accuracy"].max() - curves["val_accuracy"][-1],
        }
        for name, value in expected.items():
            np.testing.assert_allclose(outcomes[name][trial], value, atol=1e-12, err_msg=name)
    table = comparisons.summary(outcomes, "gap")
    np.testing.assert_allclose(table.loc[list(STRENGTHS), "mean"], results.settings_table()["gap"])
    np.testing.assert_allclose(table["se"], results.settings_table()["gap_se"], rtol=1e-5)  # of differences in float32
    np.testing.assert_array_equal(table["num"], [3] * 7 + [2])


def test_an_interval_of_rises_ends_at_0():
    outcomes = comparisons.outcomes(synthetic()).assign(rise=(("l2", "seed"), [[0.1, 0.2, 0.3], [0.0, 0.0, 0.3]] * 4))
    table = comparisons.summary(outcomes, "rise")
    for row, rises in enumerate(outcomes["rise"].values):
        low, high = stats.ttest_1samp(rises, 0).confidence_interval()
        np.testing.assert_allclose(table.iloc[row][["low", "high"]].tolist(), [max(low, 0), high])
    assert (table["low"] == 0).any()


def test_early_stopped_trials_are_at_their_best_epochs():
    results = synthetic(noise=0.04, diverged=[(0.1, 1, 4), (0.0, 0, 1)])
    stopped = comparisons.early_stopped(results)
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


def test_methods_are_compared_at_their_best_settings():
    results = grid_of_methods()
    table = comparisons.methods(results)
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
        np.testing.assert_allclose([row["val_loss"], row["val_loss_se"]], [values.mean(), stats.sem(values)])
        if method != "none":
            none = results.data["val_loss"].sel(l2=0, weight_decay=0, learning_rate=0.001).isel(epoch=-1)
            test = stats.ttest_rel(values, none.values.astype(np.float64))
            np.testing.assert_allclose([row["low"], row["high"]], test.confidence_interval(), rtol=1e-5)
    assert table["change"].isna().tolist() == [True, False, False, False, False]
    assert table["test_loss"].notna().tolist() == [True, True, True, False, False]


def test_methods_of_a_sweep_over_l2_alone():
    assert list(comparisons.methods(synthetic()).index) == ["none", "L2", "none stopped early", "L2 stopped early"]
    assert list(comparisons.methods(synthetic(STRENGTHS[1:])).index) == ["L2", "L2 stopped early"]
    scalar = Results(synthetic().data.assign_coords(weight_decay=0.1), {})
    assert list(comparisons.methods(scalar).index) == ["weight decay"]


def test_methods_without_a_finished_setting_are_left_out():
    results = synthetic((0.0, 0.1), diverged=[(0.0, 0, 2)])
    table = comparisons.methods(results)
    assert list(table.index) == ["L2", "L2 stopped early"]
    assert "change" not in table  # there is nothing to compare them with


def test_clear_differences_are_those_after_the_correction():
    compared = comparisons.compare(comparisons.outcomes(synthetic(seeds=5)))
    np.testing.assert_array_equal(comparisons.is_clear(compared), compared["p_holm"] < 0.05)


def test_trials_are_flattened_in_the_order_of_their_labels():
    folds = [synthetic(noise=noise).data for noise in (0.01, 0.02)]
    data = xr.concat(folds, xr.Variable("fold", [0, 1])).transpose("epoch", "fold", "l2", "seed")
    labels = replicate_labels(data)
    assert labels[:3] == ["seed 0, fold 0", "seed 0, fold 1", "seed 1, fold 0"] and len(labels) == 6
    values = comparisons.by_strength(data["val_loss"], "epoch")
    assert values.shape == (8, 6, 20) and values.dtype == np.float64
    for trial, (seed, fold) in enumerate(itertools.product(range(3), range(2))):
        expected = data["val_loss"].sel(seed=seed, fold=fold).transpose("l2", "epoch")
        np.testing.assert_array_equal(values[:, trial], expected)
    assert comparisons.by_strength(data["diverged"]).dtype == bool
    assert replicate_labels(synthetic(seeds=2).data) == ["seed 0", "seed 1"]
