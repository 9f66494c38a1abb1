"""Run folders that workers and one process continue for each other."""

import numpy as np
import pytest
from helpers import tiny_run
from helpers.at_once import AtOnce

import l2jax
from l2jax import cli
from l2jax.errors import SweepWarning
from l2jax.run.options import RunOptions

pytestmark = pytest.mark.usefixtures("not_drawn")

OPTIONS = {"batch_size": 16, "train_size": 40, "val_size": 32, "trials_at_once": 2, "keep": "all"}


def sweep(run_dir=None, l2=(0.0, 1e-2), seeds=2, epochs=3, **options):
    words = {"dataset": tiny_run.dataset(), "model": tiny_run.mlp, "epochs": epochs, "run_dir": run_dir}
    return l2jax.sweep(l2, seeds, **words, **OPTIONS, **options)


def assert_same_outcome(results, expected):
    assert results.data.identical(expected.data)
    for l2 in expected.data["l2"].values:
        for seed in expected.data["seed"].values:
            for path, values in expected.params(l2=l2, seed=seed).items():
                np.testing.assert_array_equal(results.params(l2=l2, seed=seed)[path], values)


MORE = [{"epochs": 5}, {"seeds": 3}, {"l2": (0.0, 1e-3, 1e-2)}, {"epochs": 5, "seeds": 3}]


@pytest.mark.parametrize("more", MORE, ids=str)
@pytest.mark.parametrize("first", ["workers", "one process"])
def test_the_other_extends_the_run(more, first, tmp_path):
    by_workers, here = {"executor": AtOnce()}, {}
    before, after = (by_workers, here) if first == "workers" else (here, by_workers)
    sweep(tmp_path / "run", **before)
    assert_same_outcome(sweep(tmp_path / "run", **more, **after), sweep(**more))
    assert_same_outcome(l2jax.load_results(tmp_path / "run"), sweep(**more))


def test_both_take_turns(tmp_path):
    for epochs, options in enumerate([{}, {"executor": AtOnce()}] * 2, start=1):
        sweep(tmp_path / "run", epochs=epochs, **options)
    assert_same_outcome(l2jax.load_results(tmp_path / "run"), sweep(epochs=4))


def test_a_storage_is_found_again(tmp_path):
    sweep(tmp_path / "run", executor=AtOnce(), storage=tmp_path / "elsewhere")
    assert not (tmp_path / "run" / "chunks").exists()
    assert len(list((tmp_path / "elsewhere").glob("*/ledger.npz"))) == 2
    assert_same_outcome(sweep(tmp_path / "run", epochs=4), sweep(epochs=4))


def test_files_are_those_of_one_process(tmp_path):
    for name, options in {"here": {}, "there": {"executor": AtOnce()}}.items():
        sweep(tmp_path / name, **options)
    for name in ("results.nc", "summary.csv"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()
    names = [{path.name for path in (tmp_path / name).iterdir()} for name in ("here", "there")]
    assert names[0] ^ names[1] == {"checkpoints", "chunks"}


def test_what_is_given_up_is_told_and_tried_again(tmp_path):
    class Loses(AtOnce):
        def submit(self, fn, /, *args, **kwargs):
            if args[-1] == (2, 3):
                return super().submit(min, 1)  # a TypeError
            return super().submit(fn, *args, **kwargs)

    with pytest.warns(SweepWarning, match=r"given up, and tried again by the same call: trials 3-4 \(TypeError"):
        results = sweep(tmp_path / "run", executor=Loses())
    assert np.isfinite(results.data["val_loss"].sel(l2=0.0)).all()
    assert np.isnan(results.data["val_loss"].sel(l2=1e-2)).all()
    assert_same_outcome(sweep(tmp_path / "run", executor=AtOnce()), sweep())


def test_a_sweep_of_which_nothing_trains_says_why(tmp_path):
    class Loses(AtOnce):
        def submit(self, fn, /, *args, **kwargs):
            return super().submit(*(fn, *args) if isinstance(args[-1], float) else (min, 1))

    with pytest.raises(l2jax.errors.NothingTrainedError, match=r"trials 1-2 \(TypeError.*; trials 3-4"):
        sweep(executor=Loses())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ray": "auto", "profile": "p"}, "profile: got p; accepted: none with --ray"),
        ({"ray": "auto", "resume": "r", "storage": "s"}, "storage: got s; accepted: none with --resume"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(l2jax.InputError) as error:
        RunOptions(**options)
    assert str(error.value).startswith(message)


def test_a_storage_without_a_cluster_is_refused(tmp_path, capfd):
    assert cli.main(["--storage", "s3://bucket", "--run-dir", str(tmp_path / "run")]) == 2
    assert capfd.readouterr().err == "error: --storage: got s3://bucket; accepted: none without --ray\n"
    assert not (tmp_path / "run").exists()
