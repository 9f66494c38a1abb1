"""The devices: CPU cores as JAX devices, and how many trials the memory holds at once."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import psutil

if TYPE_CHECKING:
    from l2jax.engine.programs import Programs


class Plan(NamedTuple):
    """Chunks of trials that fit the devices' memory."""

    trials_at_once: int
    num_chunks: int
    bytes_needed: int
    """For one chunk, on all devices together."""
    bytes_free: int

    def __str__(self) -> str:
        chunks = f"{self.trials_at_once} trials at once"
        if self.num_chunks > 1:
            chunks += f", {self.num_chunks} chunks"
        return f"{chunks}: {self.bytes_needed / 1e6:,.0f} MB of {self.bytes_free / 1e6:,.0f} MB free"


def use_every_core(most: int | None = None) -> None:
    """Makes each CPU core, or `most` of them, a JAX device, unless JAX has been started or told otherwise before.

    Training and evaluation then use no more cores than that; compilation may.
    """
    if jax.config.values["jax_num_cpu_devices"] > 0 or "host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(cores, most or cores)
    # XLA splits single operations among as many threads as there are cores, however few its devices, if not told so.
    os.environ.setdefault("NPROC", str(cores))
    with contextlib.suppress(RuntimeError):  # JAX has been started
        jax.config.update("jax_num_cpu_devices", cores)


STEPS_AT_ONCE = 2**14
"""That all trials of a chunk may take in an epoch, on CPU. Until the call of a program ends, the process grows by some
50 kB a step, with glibc's malloc. With MALLOC_ARENA_MAX=1 it does not, but training is slower by a tenth."""


def plan_chunks(
    compiled: Callable[[int], Programs],
    num_trials: int,
    devices: Sequence[jax.Device],
    trials_at_once: int | None,
    steps: int,
) -> tuple[Plan, Programs]:
    """Plans chunks of equal size, so that one compilation serves all, and returns the programs for that size too.

    The program for all trials is compiled first, or on CPU for as many as may take `STEPS_AT_ONCE`. Only where it does
    not fit is a second one, for one trial a device: the two sizes give the line, fixed + slope * trials, on which the
    largest chunk that fits is read off.

    Args:
      compiled: compiles for a number of trials.
      trials_at_once: plans chunks of at most so many trials instead, whatever they need.
      steps: of one trial in an epoch.
    """
    free = free_memory(devices)

    def planned(most: int) -> tuple[Plan, Programs]:
        num_chunks = -(-num_trials // most)
        size = -(-num_trials // num_chunks)
        programs = compiled(size)
        memory = programs.epoch.memory_analysis()
        kept = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        return Plan(size, num_chunks, (kept + memory.temp_size_in_bytes) * len(devices), free), programs

    fewest = len(devices)
    most = max(1, STEPS_AT_ONCE // steps // fewest) * fewest if devices[0].platform == "cpu" else num_trials
    whole = planned(trials_at_once or min(num_trials, most))
    size = whole[0].trials_at_once
    if trials_at_once or whole[0].bytes_needed <= free or size <= fewest:
        return whole
    least = planned(fewest)[0].bytes_needed
    padded = size + -size % fewest  # as every device gets the same number
    slope = (whole[0].bytes_needed - least) / (padded - fewest)
    fit = int((free - least) / slope) if slope > 0 else 0
    return planned(max(fewest, fewest + fit // fewest * fewest))


def free_memory(devices: Sequence[jax.Device]) -> int:
    """Bytes that these devices have left; for CPU, the machine's."""
    if devices[0].platform == "cpu":
        return psutil.virtual_memory().available
    stats = [device.memory_stats() for device in devices]
    return min(s["bytes_limit"] - s["bytes_in_use"] for s in stats) * len(devices)
