"""Ways of computing the same: they agree, and the fastest is kept."""

import jax
import numpy as np
import pytest
from helpers.compare import mlp

import l2jax
from l2jax.engine import plan as planning
from l2jax.engine import tuning
from l2jax.engine.describe import Computation, devices
from l2jax.engine.sweep import Sweep
from l2jax.engine.tuning import Tuning, candidates

ONE_BY_ONE = Tuning(1)


def small_sweep(small, **options):
    """A sweep of the same shapes as in test_sweep.py, whose programs are compiled already."""
    config = l2jax.SweepConfig((0.0, 1e-2, 0.3), 3, train_size=None, val_size=40, **options)
    return Sweep(config, small, model=mlp)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def run(choice=ONE_BY_ONE, **options):
    options = {"l2": (0.0, 0.1), "seeds": 2, "epochs": 1, "train_size": 70, "val_size": 32, **options}
    config = l2jax.SweepConfig(**options)
    sweep = Sweep(config, l2jax.load_dataset("mnist_small"))
    sweep.computation = Computation(config.num_trials, choice, *devices(sweep.setup))
    list(sweep.epochs())
    return sweep


def assert_equal_up_to_rounding(actual, expected, tolerance):
    for name in ("train_loss", "val_loss", "kernel_sum_of_squares", "test_loss"):
        np.testing.assert_allclose(actual.data[name], expected.data[name], rtol=tolerance)


@pytest.mark.slow  # a larger network; a small one is below
def test_side_by_side_equals_one_after_the_other():
    """On accelerators the trial axis is vmapped, and each product is a batch of matrix products."""
    both = [run(choice=Tuning(n)).results() for n in (1, 2)]  # of 4 trials, each device has 2
    assert_equal_up_to_rounding(*both, 2e-5)


@pytest.mark.slow
def test_bfloat16_stays_near_float32():
    rounded, exact = (run(bfloat16=option).results() for option in (True, False))
    # 8 bits of mantissa in every product, float32 sums and parameters: the loss moves in its third digit.
    assert_equal_up_to_rounding(rounded, exact, 0.02)
    assert not rounded.data["val_loss"].identical(exact.data["val_loss"])


def test_the_fastest_is_kept_and_remembered(cache):
    times = {1: 3.0, 2: 1.0, 4: 2.0, 6: 5.0}
    measured = []

    def seconds(choice):
        measured.append(choice)
        return times[choice.side_by_side] + (choice.few_products == 0)

    assert tuning.autotune("a device", candidates(jax.devices("cpu")[0], 6), seconds) == Tuning(2)
    assert {choice.side_by_side for choice in measured} == set(times)
    measured.clear()
    assert tuning.autotune("a device", candidates(jax.devices("cpu")[0], 6), seconds) == Tuning(2) and not measured
    (cache / "l2jax" / "tuning.json").write_text("{")  # damaged: measured again
    assert tuning.autotune("a device", candidates(jax.devices("cpu")[0], 6), seconds) == Tuning(2) and measured


@pytest.mark.usefixtures("compiled_quickly")
def test_trials_side_by_side_train_the_same(small, cache, monkeypatch):
    """A CPU core takes one trial after the other; accelerators take blocks of them at once. 5 is no multiple of 2."""
    monkeypatch.setattr(planning, "candidates", lambda *_: [Tuning(2)])
    in_blocks, usual = small_sweep(small, epochs=2, autotune=True), small_sweep(small, epochs=2)
    for sweep in in_blocks, usual:
        list(sweep.epochs())
    assert in_blocks.description()["tuning"]["side_by_side"] == 2 and (cache / "l2jax" / "tuning.json").exists()
    assert_equal_up_to_rounding(in_blocks.results(), usual.results(), 1e-6)


@pytest.mark.usefixtures("compiled_quickly")
def test_profile_writes_a_trace(small, tmp_path):
    list(small_sweep(small, epochs=2).epochs(profile=tmp_path / "trace"))
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))
