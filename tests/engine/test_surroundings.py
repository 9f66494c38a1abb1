"""Sweeps in programs and processes that are set up for something else."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from helpers import tiny_run

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@contextlib.contextmanager
def mesh_of(num_devices, axis_type=jax.sharding.AxisType.Explicit):
    devices = jax.devices()[:num_devices]
    with jax.set_mesh(jax.make_mesh((num_devices,), ("x",), axis_types=(axis_type,), devices=devices)):
        yield


SETTINGS = {
    "x64": lambda: jax.enable_x64(True),
    "debug_nans": lambda: jax.debug_nans(True),
    "debug_infs": lambda: jax.debug_infs(True),
    "disable_jit": lambda: jax.disable_jit(True),
    "check_tracer_leaks": lambda: jax.check_tracer_leaks(True),
    "enable_checks": lambda: jax.enable_checks(True),
    "debug_key_reuse": lambda: jax.debug_key_reuse(True),
    "strict promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "other generator": lambda: jax.default_prng_impl("rbg"),
    "other order of its numbers": lambda: jax.threefry_partitionable(False),
    "transfer guard": lambda: jax.transfer_guard("disallow"),
    "transfer guard for all": lambda: jax.transfer_guard("disallow_explicit"),
    "mesh": lambda: mesh_of(2),
    "mesh with automatic axes": lambda: mesh_of(2, jax.sharding.AxisType.Auto),
    "mesh of one device": lambda: mesh_of(1),
    "default device": lambda: jax.default_device(jax.devices()[1]),
}


def train(between=lambda: None):
    """Every method of a sweep that computes, without a test part, whose loss is 0/0."""
    sweep = tiny_run.sweep(data=dataclasses.replace(tiny_run.dataset(), test_images=None, test_labels=None))
    snapshots = []
    for _ in sweep.epochs():
        between()
        snapshots.append(sweep.snapshot())
    resumed = tiny_run.sweep(data=sweep.dataset)
    for snapshot in reversed(snapshots):
        resumed.check_snapshot(snapshot)
        resumed.restore(snapshot)
    assert resumed.finished
    return sweep.results().data


def in_a_process(*words, cwd=None, **environment):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])} | environment
    command = [sys.executable, *words]
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def usual():
    return train()


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_a_program_set_changes_no_result(setting, usual):
    tiny_run.COMPILED.clear()  # it would hide what compilation depends on
    with SETTINGS[setting]():
        assert train().identical(usual)
    tiny_run.COMPILED.clear()


def test_between_epochs_a_program_has_its_own_settings():
    seen = []
    with jax.enable_x64(True):
        train(between=lambda: seen.append(jnp.ones(1, "float64").dtype))
        assert {str(dtype) for dtype in seen} == {"float64"}
        assert jnp.ones(1, "float64").dtype == "float64"
    assert jnp.ones(1).dtype == "float32"


def test_a_platform_that_is_not_there_is_one_line(tmp_path):
    finished = in_a_process("-m", "l2jax", cwd=tmp_path, JAX_PLATFORMS="cuda")
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr.startswith("error: JAX_PLATFORMS: got cuda; accepted: a platform that JAX finds here")
    assert finished.stderr.count("\n") == 1 and not [*tmp_path.iterdir()]


ENDS_EARLY = """
import numpy as np
import l2jax
dataset = l2jax.Dataset("small", np.zeros((64, 10, 10, 1), np.uint8), np.arange(64) % 4, num_classes=4)
sweep = l2jax.Sweep(l2jax.SweepConfig((0.0,), 1, epochs=3, train_size=32, val_size=16), dataset)
epochs = sweep.epochs()
next(epochs)
"""


def test_a_program_may_end_between_epochs():
    finished = in_a_process("-W", "ignore", "-c", ENDS_EARLY)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")


FORKED = """
import os, sys, warnings
import jax.numpy as jnp, numpy as np
import l2jax
warnings.simplefilter("ignore")  # JAX warns of the fork
jnp.zeros(1)
if os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
try:
    l2jax.sweep([0.0], 1, dataset=(np.zeros((64, 10, 10, 1), np.uint8), np.arange(64) % 4), val_size=16)
except l2jax.InputError as error:
    print(error, flush=True)
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_process_forked_after_jax_began_is_refused():
    finished = in_a_process("-c", FORKED)
    assert "accepted: a process that is not forked from one in which JAX runs" in finished.stdout, finished.stderr


def test_the_command_runs_in_a_thread(tmp_path):
    codes = []
    options = {"run_dir": tmp_path / "run"}
    thread = threading.Thread(target=lambda: codes.append(tiny_run.run(**options)))
    thread.start()
    thread.join()
    assert codes == [0]
