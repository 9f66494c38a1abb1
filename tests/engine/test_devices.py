"""CPU cores as devices, and how many of them work."""

import os
import subprocess
import sys

import jax
import psutil
import pytest

from l2jax.engine.devices import free_memory


@pytest.mark.parametrize(("devices", "expected"), [({}, None), ({"JAX_NUM_CPU_DEVICES": "3"}, 3)])
def test_cores_become_devices_unless_jax_is_configured(devices, expected):
    expected = expected or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    program = (
        "import jax; from l2jax.engine.devices import use_every_core; use_every_core(); print(len(jax.local_devices()))"
    )
    inherited = {name: value for name, value in os.environ.items() if name not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS")}
    process = subprocess.run(
        [sys.executable, "-c", program],
        env=inherited | {"JAX_PLATFORMS": "cpu"} | devices,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.stdout == f"{expected}\n", process.stderr


def test_free_memory_of_a_cpu():
    assert 0 < free_memory(jax.local_devices()) <= psutil.virtual_memory().total


def test_one_device_leaves_the_other_cores_idle():
    program = """
import jax, psutil
from l2jax.engine.devices import use_every_core
use_every_core(1)
square = jax.jit(lambda a: a @ a / 1000)
a = square(jax.numpy.ones((1000, 1000))).block_until_ready()
seconds = lambda: {thread.id: thread.user_time for thread in psutil.Process().threads()}
before = seconds()
for _ in range(20):
    a = square(a)
a.block_until_ready()
spent = [time - before.get(thread, 0) for thread, time in seconds().items()]
print(max(spent) / sum(spent))
"""
    inherited = {n: v for n, v in os.environ.items() if n not in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS", "NPROC")}
    process = subprocess.run(
        [sys.executable, "-c", program],
        env=inherited | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert float(process.stdout) > 0.9, process.stderr
