"""Results: the choice of a strength and tables, against plain numpy, scipy and pandas."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers.results import CURVES, STRENGTHS, swept_twice, synthetic, with_last
from scipy import stats

from l2jax.errors import InputError
from l2jax.results.results import Results


def test_the_two_rules_follow_their_definitions():
    results = synthetic(noise=0.04)
    last = results.data["val_loss"].values[:, :, -1].astype(np.float64)
    mean, best = last.mean(1), last.mean(1).argmin()
    limit = mean[best] + last[best].std(ddof=1) / np.sqrt(3)
    assert 0 < best < len(STRENGTHS) - 1
    assert results.best() == results.best("val_loss", "min") == STRENGTHS[best]
    assert results.best(rule="1se") == max(l2 for l2, m in zip(STRENGTHS, mean, strict=True) if m <= limit)


def test_the_standard_error_is_that_of_the_best_strength():
    values = [[3.0, 3.0, 3.0], [0.9, 1.0, 1.1], [1.0, 1.05, 1.1]]  # the limit is 1 + 0.1 / sqrt(3) = 1.0577
    results = with_last("val_loss", values)
    assert (results.best(), results.best(rule="1se")) == (0.01, 0.1)
    values[2] = [0.0, 1.06, 2.12]  # a mean of 1.06: beyond the limit, whatever its own standard error
    assert with_last("val_loss", values).best(rule="1se") == 0.01


def test_the_highest_accuracy_is_best():
    values = [[0.90, 0.92, 0.94], [0.95, 0.96, 0.97], [0.955, 0.955, 0.955]]
    results = with_last("val_accuracy", values)
    assert (results.best("val_accuracy"), results.best("val_accuracy", "1se")) == (0.01, 0.1)


def test_the_order_of_strengths_does_not_matter():
    results = synthetic(noise=0.04)
    shuffled = Results(results.data.isel(l2=[5, 0, 7, 2, 1, 6, 3, 4]).transpose("epoch", "seed", "l2"), results.config)
    pd.testing.assert_frame_equal(shuffled.settings_table(), results.settings_table())
    assert shuffled.best(rule="1se") == results.best(rule="1se")


def test_the_stronger_of_equal_means_is_best():
    assert with_last("val_accuracy", [[0.5, 0.7], [0.9, 0.9], [0.9, 0.9]]).best("val_accuracy") == 0.1


def test_the_rules_coincide_for_one_seed():
    results = synthetic(seeds=1)
    assert results.best() == results.best(rule="1se") == STRENGTHS[results.data["val_loss"].values[:, 0, -1].argmin()]


def test_a_strength_with_a_diverged_trial_is_never_best():
    best = synthetic().best()
    results = synthetic(diverged=[(best, 1, 5)])
    others = results.data["val_loss"].isel(epoch=-1).mean("seed").drop_sel(l2=best)
    assert results.best() == others.idxmin("l2")
    assert best not in {
        results.best(metric, rule) for metric in ("val_loss", "val_accuracy") for rule in ("min", "1se")
    }


def test_no_strength_is_best_if_each_has_a_diverged_trial():
    results = synthetic((0.0, 0.1), diverged=[(0.0, 0, 1), (0.1, 2, 3)])
    assert results.best_setting_or_none() is None
    with pytest.raises(ValueError, match="every strength has a diverged trial"):
        results.best()


@pytest.mark.parametrize(
    "kwargs", [{"metric": "loss"}, {"metric": "test_loss"}, {"metric": "penalty"}, {"rule": "max"}]
)
def test_errors_name_the_accepted_metrics_and_rules(kwargs):
    with pytest.raises(InputError, match=r"val_accuracy|1se"):
        synthetic().best(**kwargs)


def test_table_has_means_and_errors_of_the_last_epoch():
    results = synthetic()
    table = results.settings_table()
    assert table.index.name == "l2" and tuple(table.index) == STRENGTHS
    last = {name: results.data[name].values[:, :, -1].astype(np.float64) for name in CURVES}
    last |= {name: results.data[name].values.astype(np.float64) for name in ("test_loss", "test_accuracy")}
    last["gap"] = last["val_loss"] - last["train_loss"]
    for name, values in last.items():
        np.testing.assert_allclose(table[name], values.mean(1), rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(table[f"{name}_se"], stats.sem(values, axis=1), rtol=1e-4, atol=1e-7, err_msg=name)
    np.testing.assert_array_equal(table["best_epoch"], np.median(results.data["best_epoch"], axis=1))
    assert (table["num_diverged"] == 0).all()


def test_table_counts_diverged_trials_and_leaves_them_out():
    table = synthetic((0.0, 0.1), diverged=[(0.0, 1, 4), *((0.1, seed, 2) for seed in range(3))]).settings_table()
    last = synthetic((0.0, 0.1)).data["val_loss"].values[0, [0, 2], -1].astype(np.float64)
    assert table["val_loss"][0.0] == pytest.approx(last.mean())
    assert table["val_loss_se"][0.0] == pytest.approx(stats.sem(last))
    assert table.loc[[0.1]].drop(columns="num_diverged").isna().to_numpy().all()
    assert table["num_diverged"].tolist() == [1, 3]


def test_one_seed_has_no_standard_error():
    table = synthetic(seeds=1).settings_table()
    assert table["val_loss"].notna().all() and table["val_loss_se"].isna().all()


def test_means_over_folds_take_them_as_dependent():
    """Nadeau and Bengio: the variance of a mean of n is 1/n + (validation part over training part) of one's."""
    results = synthetic(noise=0.04)
    folds = [results.data, results.data.isel(l2=slice(None, None, -1)).assign_coords(l2=list(STRENGTHS))]
    data = xr.concat(folds, pd.Index([0, 1], name="fold"))
    expected = data["val_loss"].isel(epoch=-1).astype(np.float64).transpose("l2", ...).values.reshape(8, 6)
    table = Results(data, {}).settings_table()
    np.testing.assert_allclose(table["val_loss"], expected.mean(1), rtol=1e-6)
    standard_error = expected.std(1, ddof=1) * np.sqrt(1 / 6 + 1 / 1)  # two folds: one is trained on, one held out
    np.testing.assert_allclose(table["val_loss_se"], standard_error, rtol=1e-4)


def test_the_best_setting_of_several_hyperparameters():
    results = swept_twice()
    assert results.swept == ["l2", "learning_rate"]
    assert results.best_setting() == results.best_setting_or_none() == {"l2": 1e-2, "learning_rate": 0.1}
    assert results.best() == 1e-2
    table = results.settings_table()
    assert table.index.names == ["l2", "learning_rate"]
    assert len(table) == 6
    assert table["val_loss"][1e-3, 0.01] == pytest.approx(2.0)


def test_one_standard_error_is_taken_along_l2():
    """1.0001 at the other learning rate is within one standard error, too: only l2 may differ."""
    results = swept_twice()
    results.data["val_loss"][{"l2": 2}] += 0.3  # now 1.2 is the lowest, 1.3 within 0.17 of it
    assert results.best_setting() == {"l2": 1e-3, "learning_rate": 0.1}
    assert results.best_setting(rule="1se") == {"l2": 1e-2, "learning_rate": 0.1}


def test_along_l2_holds_the_others_at_their_best_values():
    line = swept_twice().along_l2()
    assert line.swept == ["l2"]
    assert line.fixed == {"learning_rate": 0.1}
    np.testing.assert_allclose(line.settings_table()["val_loss"], [3.0, 1.2, 1.0])
    assert synthetic().along_l2() == synthetic()
    assert synthetic().fixed == {}


def test_results_are_checked_when_they_are_made():
    results = synthetic()
    with pytest.raises(ValueError, match="val_loss"):
        Results(results.data.drop_vars("val_loss"), {})
    with pytest.raises(ValueError, match="epoch"):
        Results(results.data.isel(epoch=slice(0)), {})
    with pytest.raises(TypeError):
        Results(results.data, {"model": object()})


def test_making_results_does_not_change_the_arrays():
    data = synthetic().data.drop_attrs()
    Results(data, {})
    assert not data["val_loss"].attrs


def test_old_names_of_the_tables_warn():
    results = synthetic()
    with pytest.warns(DeprecationWarning, match="settings_table"):
        pd.testing.assert_frame_equal(results.table(), results.settings_table())
    with pytest.warns(DeprecationWarning, match="trials_table"):
        pd.testing.assert_frame_equal(results.trials(), results.trials_table())


def test_diverged_is_a_mask_whatever_it_was():
    data = synthetic(diverged=[(1e-3, 1, 3)]).data
    from_numbers = Results(data.assign(diverged=data["diverged"].astype(float)), {})
    assert from_numbers.data["diverged"].identical(data["diverged"])
