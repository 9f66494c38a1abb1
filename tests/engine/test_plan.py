"""Plans for memory: against arithmetic, against a whole sweep, and under artificial limits."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from helpers.compare import mlp

import l2jax
from l2jax.engine import plan as planning
from l2jax.engine.plan import fit_chunks
from l2jax.engine.sweep import Sweep

pytestmark = pytest.mark.usefixtures("compiled_quickly")

MB = 10**6
TWO = (SimpleNamespace(platform="cpu"),) * 2


@pytest.fixture(scope="module")
def small_sweep(small):
    """Makes a sweep of nine trials. Its programs for all, and for chunks of 3, are those of test_engine.py."""

    def make(**options):
        config = l2jax.SweepConfig((0.0, 1e-3, 1.0), 3, epochs=2, train_size=None, val_size=40, **options)
        return Sweep(config, small, model=mlp)

    return make


def program(fixed, slope):
    """Stands for compiled programs that need `fixed` + `slope` bytes for each trial, on each of two devices."""
    compiled = []

    def compile_for(num_trials):
        compiled.append(num_trials)
        needed = fixed + slope * -(-num_trials // 2)
        memory = SimpleNamespace(
            argument_size_in_bytes=needed, output_size_in_bytes=50, alias_size_in_bytes=50, temp_size_in_bytes=0
        )
        return SimpleNamespace(train_epoch=SimpleNamespace(memory_analysis=lambda: memory))

    return compile_for, compiled


def test_what_fits_is_compiled_once():
    compile_for, compiled = program(10 * MB, MB)
    plan = fit_chunks(compile_for, 24, devices=TWO, steps=1)
    assert (plan.trials_at_once, plan.num_chunks, plan.bytes_needed) == (24, 1, 2 * 22 * MB)
    assert compiled == [24]


@pytest.mark.parametrize(("free", "at_once", "num_chunks"), [(60, 37, 7), (40, 20, 13), (22, 2, 128), (1, 2, 128)])
def test_what_does_not_fit_is_cut_into_equal_chunks(monkeypatch, free, at_once, num_chunks):
    monkeypatch.setattr(planning, "free_memory", lambda _: free * MB)
    compile_for, compiled = program(10 * MB, MB)
    plan = fit_chunks(compile_for, 256, devices=TWO, steps=1)
    assert (plan.trials_at_once, plan.num_chunks) == (at_once, num_chunks)
    assert plan.bytes_needed <= free * MB or plan.trials_at_once == len(TWO)
    assert compiled == [256, 2, at_once]


@pytest.mark.parametrize(("steps", "at_once"), [(13, 256), (1719, 8), (10**6, 2)])
def test_chunks_on_cpu_are_small_where_epochs_are_long(steps, at_once):
    compile_for, compiled = program(10 * MB, MB)
    plan = fit_chunks(compile_for, 256, devices=TWO, steps=steps)
    assert (plan.trials_at_once, plan.num_chunks) == (at_once, 256 / at_once)
    assert compiled == [at_once]
    gpus = (SimpleNamespace(platform="gpu", memory_stats=lambda: {"bytes_limit": 10**9, "bytes_in_use": 0}),) * 2
    assert fit_chunks(compile_for, 256, devices=gpus, steps=steps).trials_at_once == 256


def test_an_option_overrides_the_plan():
    compile_for, compiled = program(10 * MB, MB)
    plan = fit_chunks(compile_for, 24, devices=TWO, trials_at_once=10, steps=10**6)
    assert (plan.trials_at_once, plan.num_chunks) == (8, 3)  # equal chunks, none larger than 10
    assert compiled == [8]


@pytest.fixture(scope="module")
def whole(small_sweep):
    sweep = small_sweep()
    epochs = list(sweep.epochs())
    assert [len(record.indices) for record in epochs] == [9, 9]
    return sweep.results()


@pytest.mark.parametrize("trials_at_once", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_chunks_change_nothing(whole, small_sweep, trials_at_once):
    sweep = small_sweep(trials_at_once=trials_at_once)
    assert sweep.compile().trials_at_once <= trials_at_once
    list(sweep.epochs())
    assert sweep.results().data.identical(whole.data)


def test_an_artificial_limit_makes_chunks(small_sweep, monkeypatch):
    needed = small_sweep(trials_at_once=4).compile().fit.bytes_needed  # three chunks of 3
    monkeypatch.setattr(planning, "free_memory", lambda _: needed)
    plan = small_sweep().compile().fit
    assert plan.num_chunks == 3 and plan.bytes_needed <= needed


def test_out_of_memory_halves_the_chunk(whole, small_sweep):
    sweep = small_sweep()
    plan = sweep.compile()
    calls = []

    def runs_out(*args):
        calls.append(args)
        if len(calls) == 2:  # in the second epoch: what the chunk has done is done again
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte.")
        return plan.fit.programs.train_epoch(*args)

    programs = plan.fit.programs._replace(train_epoch=runs_out)
    sweep.compiled = plan._replace(fit=plan.fit._replace(programs=programs))
    list(sweep.epochs())
    assert len(calls) == 2 and sweep.compile().trials_at_once == 5
    assert sweep.results().data.identical(whole.data)


def test_interrupted_between_chunks(whole, small_sweep):
    sweep = small_sweep(trials_at_once=4)
    epochs = sweep.epochs()
    for _ in range(3):  # the first chunk, and one epoch of the second
        next(epochs)
    data, all_of_it = sweep.results().data, whole.data
    flat = {name: data[name].values.reshape(9, -1) for name in ("val_loss", "test_loss", "diverged", "best_epoch")}
    expected = all_of_it["val_loss"].values.reshape(9, -1)
    size = sweep.compile().trials_at_once
    np.testing.assert_array_equal(flat["val_loss"][:size], expected[:size])
    np.testing.assert_array_equal(flat["val_loss"][size : 2 * size, 0], expected[size : 2 * size, 0])
    assert np.isnan(flat["val_loss"][size : 2 * size, 1]).all() and np.isnan(flat["val_loss"][2 * size :]).all()
    assert np.isfinite(flat["test_loss"][: 2 * size]).all() and not flat["diverged"].any()


def test_what_the_compiler_has_no_memory_for_is_halved():
    """To compile for a GPU, XLA tries ways to compute in the device's memory."""
    compile_for, _ = program(10 * MB, MB)
    tried = []

    def compile_in_little_memory(num_trials):
        tried.append(num_trials)
        if num_trials > 70:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Failed to get configs for: 3 out of 42 instructions")
        return compile_for(num_trials)

    plan = fit_chunks(compile_in_little_memory, 256, devices=TWO, steps=1)
    assert (tried, plan.trials_at_once, plan.num_chunks) == ([256, 128, 64], 64, 4)
