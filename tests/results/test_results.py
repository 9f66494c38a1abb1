"""Results: the choice of a strength, tables and files, against plain numpy, scipy and pandas."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers.results import METRICS, STRENGTHS, swept_twice, synthetic, with_last
from scipy import stats

from l2jax.atomic import write_whole
from l2jax.errors import InputError
from l2jax.results.results import Results, load_results


def test_the_lowest_mean_is_best_and_one_standard_error_goes_to_the_strongest_within_it():
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


def test_of_equal_means_the_stronger_is_best():
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


def test_no_strength_is_best_where_all_diverged():
    results = synthetic((0.0, 0.1), diverged=[(0.0, 0, 1), (0.1, 2, 3)])
    with pytest.raises(ValueError, match="every strength has a diverged trial"):
        results.best()


@pytest.mark.parametrize(
    "kwargs", [{"metric": "loss"}, {"metric": "test_loss"}, {"metric": "penalty"}, {"rule": "max"}]
)
def test_unknown_metric_and_rule_name_what_is_accepted(kwargs):
    with pytest.raises(InputError, match=r"val_accuracy|1se"):
        synthetic().best(**kwargs)


def test_table_has_means_and_standard_errors_of_the_last_epoch():
    results = synthetic()
    table = results.settings_table()
    assert table.index.name == "l2" and tuple(table.index) == STRENGTHS
    last = {name: results.data[name].values[:, :, -1].astype(np.float64) for name in METRICS}
    last |= {name: results.data[name].values.astype(np.float64) for name in ("test_loss", "test_accuracy")}
    last["gap"] = last["val_loss"] - last["train_loss"]
    for name, values in last.items():
        np.testing.assert_allclose(table[name], values.mean(1), rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(table[f"{name}_se"], stats.sem(values, axis=1), rtol=1e-4, atol=1e-7, err_msg=name)
    np.testing.assert_array_equal(table["best_epoch"], np.median(results.data["best_epoch"], axis=1))
    assert (table["num_diverged"] == 0).all()


def test_table_leaves_diverged_trials_out_and_counts_them():
    table = synthetic((0.0, 0.1), diverged=[(0.0, 1, 4), *((0.1, seed, 2) for seed in range(3))]).settings_table()
    last = synthetic((0.0, 0.1)).data["val_loss"].values[0, [0, 2], -1].astype(np.float64)
    assert table["val_loss"][0.0] == pytest.approx(last.mean())
    assert table["val_loss_se"][0.0] == pytest.approx(stats.sem(last))
    assert table.loc[[0.1]].drop(columns="num_diverged").isna().to_numpy().all()
    assert table["num_diverged"].tolist() == [1, 3]


def test_standard_errors_of_one_seed_are_not_numbers():
    table = synthetic(seeds=1).settings_table()
    assert table["val_loss"].notna().all() and table["val_loss_se"].isna().all()


def test_folds_are_averaged_over_and_are_not_independent():
    """Nadeau and Bengio: the variance of a mean of n is 1/n + (validation part over training part) of one's."""
    results = synthetic(noise=0.04)
    folds = [results.data, results.data.isel(l2=slice(None, None, -1)).assign_coords(l2=list(STRENGTHS))]
    data = xr.concat(folds, pd.Index([0, 1], name="fold"))
    expected = data["val_loss"].isel(epoch=-1).astype(np.float64).transpose("l2", ...).values.reshape(8, 6)
    table = Results(data, {}).settings_table()
    np.testing.assert_allclose(table["val_loss"], expected.mean(1), rtol=1e-6)
    standard_error = expected.std(1, ddof=1) * np.sqrt(1 / 6 + 1 / 1)  # two folds: one is trained on, one held out
    np.testing.assert_allclose(table["val_loss_se"], standard_error, rtol=1e-4)


def test_of_several_hyperparameters_the_best_setting_is_chosen():
    results = swept_twice()
    assert results.swept == ["l2", "learning_rate"]
    assert results.best_setting() == {"l2": 1e-2, "learning_rate": 0.1}
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


def test_along_l2_the_others_are_at_their_best():
    line = swept_twice().along_l2()
    assert line.swept == ["l2"]
    assert line.fixed == {"learning_rate": 0.1}
    np.testing.assert_allclose(line.settings_table()["val_loss"], [3.0, 1.2, 1.0])
    assert synthetic().along_l2() == synthetic()
    assert synthetic().fixed == {}


def test_saved_results_load_as_they_were(tmp_path):
    results = synthetic(diverged=[(1e-3, 1, 3), (1e-1, 0, 1)], test=False)
    results.save(tmp_path / "a" / "run")
    loaded = load_results(tmp_path / "a" / "run")
    assert loaded == results
    assert loaded.config["sweep"]["l2"] == list(STRENGTHS)
    for name in results.data.data_vars:
        assert loaded.data[name].dtype.kind == results.data[name].dtype.kind, name
    assert loaded.data["val_loss"].dtype == np.float32
    assert loaded != Results(results.data, {}) and loaded != synthetic(test=False)
    assert {path.name for path in (tmp_path / "a" / "run").iterdir()} == {
        "SHA256SUMS",
        "config.json",
        "results.nc",
        "summary.csv",
    }


def test_a_run_folder_is_read_without_this_package(tmp_path):
    results = synthetic(diverged=[(1e-1, 0, 7)])
    results.save(tmp_path)
    with xr.open_dataset(tmp_path / "results.nc") as data:
        xr.testing.assert_equal(data, results.data)
        assert data["diverged"].dtype == bool
        assert data["val_loss"].attrs["units"] == "nat" and "validation" in data["val_loss"].attrs["long_name"]
        assert all({"units", "long_name"} <= set(variable.attrs) for variable in data.variables.values())
        assert data["val_loss"].sel(l2=1e-3).shape == (3, 20)
    assert json.loads((tmp_path / "config.json").read_text())["model"] == "CNN"

    summary = pd.read_csv(tmp_path / "summary.csv").set_index(["l2", "seed"])
    assert len(summary) == 24
    for l2, seed in [(0.0, 0), (1e-2, 2), (1e-1, 0)]:
        trial, row = results.data.sel(l2=l2, seed=seed), summary.loc[(l2, seed)]
        for name in METRICS:
            np.testing.assert_allclose(row[name], trial[name].values[-1], rtol=1e-6, err_msg=name)
        assert row["best_val_loss"] == pytest.approx(np.nanmin(trial["val_loss"].values))
        assert row["best_epoch"] == np.nanargmin(trial["val_loss"].values) + 1
        assert row["diverged"] == (l2 == 1e-1)
        np.testing.assert_allclose(row["test_loss"], trial["test_loss"].item(), rtol=1e-6)


def _cut(run_dir, name, keep):
    path = run_dir / name
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])


@pytest.mark.parametrize(
    "damage",
    [
        lambda run_dir: (run_dir / "results.nc").unlink(),
        lambda run_dir: (run_dir / "config.json").unlink(),
        lambda run_dir: (run_dir / "config.json").write_text("{"),
        lambda run_dir: (run_dir / "config.json").write_bytes(b"\xff\xfe{"),
        lambda run_dir: (run_dir / "results.nc").write_bytes(b"not NetCDF"),
        lambda run_dir: _cut(run_dir, "results.nc", 0),
        lambda run_dir: _cut(run_dir, "results.nc", 0.01),
        lambda run_dir: _cut(run_dir, "results.nc", 0.2),
        lambda run_dir: _cut(run_dir, "results.nc", 0.9),
        lambda run_dir: xr.Dataset({"a": 1}).to_netcdf(run_dir / "results.nc", engine="scipy"),
    ],
)
def test_a_missing_or_damaged_run_folder_is_one_line(tmp_path, damage):
    synthetic().save(tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError) as raised:
        load_results(tmp_path)
    assert (raised.value.option, raised.value.given) == ("run_dir", tmp_path)
    assert "config.json and results.nc" in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("step", ["os.fsync", "os.replace"])
def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch, step):
    path = tmp_path / "file"
    write_whole(path, b"before")

    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr(step, full_disk)
    with pytest.raises(OSError, match="no space"):
        write_whole(path, b"after")
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]


def test_results_are_checked_where_they_are_made():
    results = synthetic()
    with pytest.raises(ValueError, match="val_loss"):
        Results(results.data.drop_vars("val_loss"), {})
    with pytest.raises(ValueError, match="epoch"):
        Results(results.data.isel(epoch=slice(0)), {})
    with pytest.raises(TypeError):
        Results(results.data, {"model": object()})


def test_making_results_leaves_the_given_arrays_alone():
    data = synthetic().data.drop_attrs()
    Results(data, {})
    assert not data["val_loss"].attrs
