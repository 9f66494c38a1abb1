"""From functions of one trial to compiled programs for all trials: mapped once, here, and spread over the devices."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from l2jax.network.cnn import ModelFn
from l2jax.trial import train
from l2jax.trial.train import Data, Trial

PER_TRIAL, SHARED = PartitionSpec("trial"), PartitionSpec()

COMPILER_OPTIONS = {"xla_cpu_prefer_vector_width": "512", "xla_backend_optimization_level": 2}
"""For XLA:CPU. By default it vectorises for 256 bits; on a core with 512, training is about a tenth faster with these.
At its own level, 3, it compiles up to three times as long for programs with the same speed and the same results."""


class Programs(NamedTuple):
    """Compiled for one number of trials."""

    init: Callable
    """Trials to state."""
    epoch: Any
    """(state, trials, epoch number, data) to (state, `train.Running`); the old state stays, to go back to."""
    evaluate: Callable
    """(state, trials, part, data) to `train.Evaluation`."""


def compile_programs(
    model: ModelFn,
    optimizer: train.Optimizer,
    batch_size: int,
    evaluation_batch: int,
    trials: Trial,
    data: Data,
    mesh: Mesh,
    side_by_side: int,
) -> Programs:
    """Compiles for these trials, arrays (T,) whose number the devices of the mesh divide.

    Args:
      batch_size: of training.
      evaluation_batch: examples to evaluate at a time.
      side_by_side: trials that a device works on at a time, as one batch of matrix products.
    """
    graphdef = nnx.split(nnx.eval_shape(lambda: model(nnx.Rngs(0))))[0]

    def apply(params: train.Params, images: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, params)(images)

    init = functools.partial(train.init, model=model, optimizer=optimizer)
    epoch = functools.partial(train.epoch, apply=apply, optimizer=optimizer, batch_size=batch_size)
    evaluate = functools.partial(train.evaluate, apply=apply, batch_size=evaluation_batch)

    for_all = functools.partial(for_all_trials, mesh=mesh, side_by_side=side_by_side)
    init = for_all(init, num_shared=0)
    state = jax.eval_shape(init, trials)
    number = jax.ShapeDtypeStruct((), np.int32)
    lowered = (
        init.lower(trials),
        for_all(epoch, num_shared=2).lower(state, trials, number, data),
        for_all(evaluate, num_shared=2).lower(state, trials, number, data),
    )
    with ThreadPoolExecutor() as threads:
        return Programs(*threads.map(lambda program: program.compile(), lowered))


def for_all_trials(f: Callable, mesh: Mesh, side_by_side: int, num_shared: int) -> Any:
    """`f`, written for one trial, for all of them: its last `num_shared` arguments are the same for each."""

    def on_one_device(*args: Any) -> Any:
        per_trial, shared = args[: len(args) - num_shared], args[len(args) - num_shared :]
        # Of one at a time, no trial axis is left: a batch of one matrix product is not as fast as a matrix product.
        batch_size = None if side_by_side == 1 else side_by_side
        return lax.map(lambda one: f(*one, *shared), per_trial, batch_size=batch_size)

    def on_all(*args: Any) -> Any:
        specs = (PER_TRIAL,) * (len(args) - num_shared) + (SHARED,) * num_shared
        return jax.shard_map(on_one_device, mesh=mesh, in_specs=specs, out_specs=PER_TRIAL, check_vma=False)(*args)

    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return jax.jit(on_all, compiler_options=COMPILER_OPTIONS if on_cpu else None)
