"""Files of a run folder: written, read, damaged, and left behind by older versions."""

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers.results import CURVES, STRENGTHS, synthetic

from l2jax.atomic import write_whole
from l2jax.errors import InvalidInputError
from l2jax.results.files import CONFIG, DATA, config_json, read_config
from l2jax.results.metrics import METRICS
from l2jax.results.results import Results, load_results


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


def test_other_programs_read_a_run_folder(tmp_path):
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
        for name in CURVES:
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
def test_a_damaged_run_folder_is_one_line(tmp_path, damage):
    synthetic().save(tmp_path)
    damage(tmp_path)
    with pytest.raises(InvalidInputError) as raised:
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


def write_as_version_0_1(folder, without=()):
    """Writes results as version 0.1 did, and returns what they should be read as."""
    results = synthetic()
    new = Results(results.data.drop_vars(without), results.config | {"model": "cnn"})
    old = new.data.rename(kernel_sum_of_squares="l2_norm")
    (folder / CONFIG).write_bytes(config_json(new.config))
    (folder / DATA).write_bytes(bytes(old.to_netcdf(engine="scipy")))
    return new


def test_results_of_version_0_1_load(tmp_path):
    new = write_as_version_0_1(tmp_path)
    assert load_results(tmp_path) == new
    assert "kernel_sum_of_squares_se" in load_results(tmp_path).settings_table()
    assert read_config(tmp_path).l2 == STRENGTHS


def test_results_without_the_later_metrics_load(tmp_path):
    optional = [name for name, metric in METRICS.items() if metric.optional and name in synthetic().data]
    assert optional == ["running_objective", "running_accuracy"]
    new = write_as_version_0_1(tmp_path, optional)
    loaded = load_results(tmp_path)
    assert loaded == new and loaded.best() == synthetic().best()
