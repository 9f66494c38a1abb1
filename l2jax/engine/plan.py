"""The plan of a sweep: how many trials the memory holds at once, and the programs for that many."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from l2jax.engine.compile import compile_for
from l2jax.engine.devices import free_memory, put_per_trial, put_shared
from l2jax.engine.programs import Programs, spare_outputs
from l2jax.engine.setup import Setup
from l2jax.engine.tuning import Tuning, autotune, candidates, default_tuning, shortest_run
from l2jax.trial.train import Examples, Part, TrainState

STEPS_PER_EPOCH_CALL = 2**14
"""The most steps that one call of the epoch's program takes on CPU, over all trials of a chunk. Until a call ends, the
process grows by some 50 kB per step, with glibc's malloc. With MALLOC_ARENA_MAX=1 it does not, but training is slower
by a tenth."""


class Fit(NamedTuple):
    """Chunks of trials that fit the devices' memory.

    Attributes:
      trials_at_once: the size of a chunk.
      num_chunks: of that size or less.
      bytes_needed: for one chunk, on all devices together.
      bytes_free: on all devices together, before.
      programs: compiled for one chunk.
    """

    trials_at_once: int
    num_chunks: int
    bytes_needed: int
    bytes_free: int
    programs: Programs

    def __str__(self) -> str:
        chunks = f"{self.trials_at_once} trials at once"
        if self.num_chunks > 1:
            chunks += f", {self.num_chunks} chunks"
        return f"{chunks}: {self.bytes_needed / 1e6:,.0f} MB of {self.bytes_free / 1e6:,.0f} MB free"


class Plan(NamedTuple):
    """Everything that it takes to compute chunk after chunk.

    Attributes:
      fit: the chunks and their programs.
      tuning: how the programs compute.
      examples: what they train and evaluate on, on the devices.
    """

    fit: Fit
    tuning: Tuning
    examples: Examples

    @property
    def trials_at_once(self) -> int:
        return self.fit.trials_at_once


def make_plan(
    setup: Setup,
    num_trials: int,
    *,
    trials_at_once: int | None = None,
    exactly: bool = False,
    tuning: Tuning | None = None,
    memory_share: float = 1.0,
) -> Plan:
    """Plans chunks for this many trials, and compiles for one of them.

    Args:
      trials_at_once: the most trials in a chunk, whatever memory they need; None leaves it to the memory.
      exactly: the chunk has that size even if fewer trials are left, so that results stay bitwise equal.
      tuning: how to compute; None chooses.
      memory_share: the share of the free memory that a chunk may take.
    """
    tuning = tuning or choose_tuning(setup)
    fit = fit_chunks(
        functools.partial(compile_for, setup, tuning=tuning),
        trials_at_once if exactly and trials_at_once else num_trials,
        devices=list(setup.mesh.devices.flat),
        steps=math.ceil(setup.num_examples.max() / setup.config.batch_size),
        trials_at_once=trials_at_once,
        memory_share=memory_share,
    )
    fit = fit._replace(num_chunks=math.ceil(num_trials / fit.trials_at_once))
    return Plan(fit, tuning, setup.examples)


def fit_chunks(
    compile_for: Callable[[int], Programs],
    num_trials: int,
    *,
    devices: Sequence[jax.Device],
    steps: int,
    trials_at_once: int | None = None,
    memory_share: float = 1.0,
) -> Fit:
    """Finds chunks of equal size, so that one compilation serves all.

    Compiles for all trials first, or on CPU for as many as may take `STEPS_PER_EPOCH_CALL`. If that does not fit,
    compiles for one trial per device and solves the line through both sizes for the largest chunk that fits.

    Args:
      compile_for: compiles for a number of trials.
      steps: of one trial in an epoch.
      trials_at_once: the most trials in a chunk, whatever memory they need; None leaves it to the memory.
      memory_share: the share of the free memory that a chunk may take.
    """
    bytes_free, num_devices = int(free_memory(devices) * memory_share), len(devices)

    def fit(at_most: int) -> Fit:
        num_chunks = math.ceil(num_trials / at_most)
        size = math.ceil(num_trials / num_chunks)
        try:
            programs = compile_for(size)
        except jax.errors.JaxRuntimeError as error:  # to compile for a GPU, XLA tries ways to compute, in its memory
            if "RESOURCE_EXHAUSTED" not in str(error) or size <= num_devices:
                raise
            return fit(max(num_devices, size // 2))
        memory: Any = programs.train_epoch.memory_analysis()
        arrays = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
        bytes_needed = (arrays + memory.temp_size_in_bytes) * num_devices
        return Fit(size, num_chunks, bytes_needed, bytes_free, programs)

    on_cpu = devices[0].platform == "cpu"
    at_most = max(1, STEPS_PER_EPOCH_CALL // steps // num_devices) * num_devices if on_cpu else num_trials
    largest = fit(trials_at_once or min(num_trials, at_most))
    if trials_at_once or largest.bytes_needed <= bytes_free or largest.trials_at_once <= num_devices:
        return largest
    smallest = fit(num_devices)
    padded = math.ceil(largest.trials_at_once / num_devices) * num_devices  # every device computes the same number
    bytes_per_trial = (largest.bytes_needed - smallest.bytes_needed) / (padded - num_devices)
    more = int((bytes_free - smallest.bytes_needed) / bytes_per_trial) if bytes_per_trial > 0 else 0
    return fit(max(num_devices, num_devices + more // num_devices * num_devices))


def choose_tuning(setup: Setup) -> Tuning:
    """The way to compute: the fastest that was measured with `autotune`, otherwise the one expected to be."""
    device, num_trials = setup.mesh.devices.flat[0], len(setup.trials.seed)
    trials_per_device = math.ceil(num_trials / setup.mesh.size)
    if not setup.config.autotune:
        return default_tuning(device, trials_per_device)
    circumstances = (
        device.device_kind,
        jax.__version__,
        setup.model_name or "built in",
        setup.dataset.images.shape[1:],
        setup.dataset.num_classes,
        setup.config.batch_size,
        setup.config.bfloat16,
        f"{num_trials} trials on {setup.mesh.size}",
    )
    seconds = functools.partial(_seconds_per_epoch, setup)
    return autotune(", ".join(map(str, circumstances)), candidates(device, trials_per_device), seconds)


def _seconds_per_epoch(setup: Setup, tuning: Tuning) -> float:
    num_trials, num_examples = len(setup.trials.seed), 16 * setup.config.batch_size
    # 16 steps are enough to tell the ways apart.
    setup = setup._replace(num_examples=np.minimum(setup.num_examples, num_examples))
    programs = compile_for(setup, num_trials, tuning)
    trials = put_per_trial(setup.trials, setup.mesh, num_trials)
    parts = np.array(setup.examples.parts)
    parts[Part.TRAIN, :, num_examples:] = -1
    examples = setup.examples._replace(parts=put_shared(parts, setup.mesh))
    state = programs.init(trials)
    spare = spare_outputs(state, trials)

    def train() -> TrainState:
        nonlocal state, spare
        after, means = programs.train_epoch(spare, state, trials, np.int32(1), examples)
        state, spare = after, (state, means)
        return state

    return shortest_run(train)
