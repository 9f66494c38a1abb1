"""Devices: CPU cores as JAX devices, their memory, and arrays on them."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import psutil
from jax.sharding import Mesh, NamedSharding, PartitionSpec

PER_TRIAL, SHARED = PartitionSpec("trial"), PartitionSpec()


def usable_cores() -> int:
    """The number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_every_core(num_cores: int | None = None) -> None:
    """Makes each CPU core, or this many of them, a JAX device, unless JAX has started or was configured before.

    Training and evaluation then use no more cores than that; compilation may.
    """
    if jax.config.values["jax_num_cpu_devices"] > 0 or "host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    cores = usable_cores()
    cores = min(cores, num_cores or cores)
    # Without it, XLA splits single operations among as many threads as there are cores, however few its devices.
    os.environ.setdefault("NPROC", str(cores))
    with contextlib.suppress(RuntimeError):  # JAX has started
        jax.config.update("jax_num_cpu_devices", cores)


def leave_accelerators_to_workers() -> None:
    """Keeps JAX in this process, but not in those that it starts, from GPUs and TPUs, unless it has started."""
    with contextlib.suppress(RuntimeError):  # JAX has started
        jax.config.update("jax_platforms", "cpu")


def make_mesh(num_trials: int, num_devices: int | None = None) -> Mesh:
    """A mesh of one axis, `trial`, over the local devices, or this many of them, but no more than there are trials."""
    devices = jax.local_devices()[: min(num_devices or num_trials, num_trials)]
    return jax.make_mesh((len(devices),), ("trial",), devices=devices)


def put_shared(tree: Any, mesh: Mesh) -> Any:
    """Copies a tree to every device."""
    return jax.device_put(tree, NamedSharding(mesh, SHARED))


def put_per_trial(tree: Any, mesh: Mesh, size: int) -> Any:
    """Spreads arrays of n trials on the host, (n, ...), over the devices.

    Args:
      size: how many trials the programs are compiled for. The last row is repeated until there are that many, and as
        many on each device.
    """
    size = math.ceil(size / mesh.size) * mesh.size
    rows = jax.tree.map(lambda values: values[np.minimum(np.arange(size), len(values) - 1)], tree)
    return spread(rows, mesh)


def spread(tree: Any, mesh: Mesh) -> Any:
    """Gives every device its part of the trial axis."""
    return jax.device_put(tree, NamedSharding(mesh, PER_TRIAL))


def free_memory(devices: Sequence[jax.Device]) -> int:
    """The bytes that these devices have left; on CPU, the machine's."""
    if devices[0].platform == "cpu":
        return psutil.virtual_memory().available
    stats = [device.memory_stats() for device in devices]
    return min(s["bytes_limit"] - s["bytes_in_use"] for s in stats) * len(devices)
