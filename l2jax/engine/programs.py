"""Functions of one trial become compiled programs for all trials: mapped once, here, and spread over the devices."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jax.stages import Compiled

from l2jax.engine.devices import PER_TRIAL, SHARED
from l2jax.network.network import Network
from l2jax.trial.evaluate import evaluate
from l2jax.trial.optimizer import Optimizer
from l2jax.trial.penalty import Penalty
from l2jax.trial.train import Examples, Trial, init, train_epoch

COMPILER_OPTIONS = {"xla_cpu_prefer_vector_width": "512", "xla_backend_optimization_level": 2}
"""Options for XLA:CPU. By default it vectorises for 256 bits; on a core with 512, training is about a tenth faster with
these. At its own level, 3, it compiles up to three times as long for programs with the same speed and results."""

ONE_THREAD = {"xla_cpu_multi_thread_eigen": False}
"""For devices that are one core each. XLA otherwise splits every operation among as many threads as there are devices,
and the devices wait for each other: of two cores, a residual network then used 1.3 (2026-11-26)."""


class Programs(NamedTuple):
    """The programs of a sweep, compiled for a fixed number of trials.

    Attributes:
      init: trials to state.
      train_epoch: (state, trials, number of the epoch, examples) to (state, `EpochMeans`). The input state is not
        donated, so that a diverged trial can be restored.
      evaluate: (state, trials, part, examples) to `Evaluation`.
    """

    init: Compiled
    train_epoch: Compiled
    evaluate: Compiled


def compile_programs(
    trials: Trial,
    examples: Examples,
    *,
    network: Network,
    optimizer: Optimizer,
    penalty: Penalty,
    batch_size: int,
    sizes: tuple[int, ...],
    evaluation_batch: int,
    mesh: Mesh,
    side_by_side: int,
) -> Programs:
    """Compiles for these trials, arrays (n,) where the number of devices in the mesh divides n.

    Args:
      sizes: as in `train_epoch`.
      side_by_side: trials that a device works on at a time, as one batch of matrix products.
    """
    init_one = functools.partial(init, network=network, optimizer=optimizer)
    functions: dict[str, Any] = {"network": network, "penalty": penalty}
    batches: dict[str, Any] = {"batch_size": batch_size, "sizes": sizes}
    train_one = functools.partial(train_epoch, optimizer=optimizer, **functions, **batches)
    evaluate_one = functools.partial(evaluate, batch_size=evaluation_batch, **functions)

    for_all = functools.partial(for_all_trials, mesh=mesh, side_by_side=side_by_side)
    init_all = for_all(init_one, num_shared=0)
    state = jax.eval_shape(init_all, trials)
    number = jax.ShapeDtypeStruct((), np.int32)
    lowered = (
        init_all.lower(trials),
        for_all(train_one, num_shared=2).lower(state, trials, number, examples),
        for_all(evaluate_one, num_shared=2).lower(state, trials, number, examples),
    )
    with ThreadPoolExecutor() as threads:
        return Programs(*threads.map(lambda program: program.compile(), lowered))


def for_all_trials(f: Callable, *, mesh: Mesh, side_by_side: int, num_shared: int) -> Any:
    """The function `f` of one trial, jitted for all; its last `num_shared` arguments are the same for each."""

    def on_one_device(*args: Any) -> Any:
        per_trial, shared = args[: len(args) - num_shared], args[len(args) - num_shared :]
        # One trial at a time: map without a batch axis, because a batched matmul of batch 1 is slower than a plain one.
        batch_size = None if side_by_side == 1 else side_by_side
        return lax.map(lambda trial: f(*trial, *shared), per_trial, batch_size=batch_size)

    def on_all(*args: Any) -> Any:
        specs = (PER_TRIAL,) * (len(args) - num_shared) + (SHARED,) * num_shared
        return jax.shard_map(on_one_device, mesh=mesh, in_specs=specs, out_specs=PER_TRIAL, check_vma=False)(*args)

    on_cpu, is_whole = mesh.devices.flat[0].platform == "cpu", 1 < mesh.size == jax.local_device_count()
    options = COMPILER_OPTIONS | (ONE_THREAD if is_whole else {})
    return jax.jit(on_all, compiler_options=options if on_cpu else None)
