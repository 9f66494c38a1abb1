"""Functions of one trial become compiled programs for all trials: mapped once, here, and spread over the devices."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh
from jax.stages import Compiled

from l2jax.engine.devices import PER_TRIAL, SHARED
from l2jax.network.network import Network
from l2jax.rewrite.one_pass import in_one_pass
from l2jax.trial.evaluate import evaluate
from l2jax.trial.optimizer import Optimizer
from l2jax.trial.penalty import Penalty
from l2jax.trial.train import EpochMeans, Examples, TrainState, Trial, init, train_epoch

COMPILER_OPTIONS = {
    "xla_cpu_prefer_vector_width": "512",
    "xla_backend_optimization_level": 2,
    "xla_cpu_multi_thread_eigen": False,
}
"""Options for XLA:CPU. By default it vectorises for 256 bits; on a core with 512, training is about a tenth faster with
these. At its own level, 3, it compiles up to three times as long for programs with the same speed and results.

A trial trains on one core. XLA otherwise splits every operation among as many threads as there are devices, and the
devices wait for each other: of two cores, a residual network then used 1.3 (2026-11-26)."""


Outputs = tuple[TrainState, EpochMeans]
"""Of an epoch of trials, (m, ...)."""


class Programs(NamedTuple):
    """The programs of a sweep, compiled for a fixed number of trials.

    Attributes:
      init: trials to state.
      train_epoch: (spare, state, trials, number of the epoch, examples) to (state, `EpochMeans`). The input state is
        not donated, so that a diverged trial can be restored. `spare` is: outputs that are not needed any more, whose
        memory the new ones take. Fresh memory would cost as much time as a few steps.
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
    part_sizes: tuple[int, ...],
    mesh: Mesh,
    side_by_side: int,
) -> Programs:
    """Compiles for these trials, arrays (n,) where the number of devices in the mesh divides n.

    Args:
      sizes: as in `train_epoch`.
      part_sizes: as in `evaluate`.
      side_by_side: trials that a device works on at a time, as one batch of matrix products.
    """
    init_one = functools.partial(init, network=network, optimizer=optimizer)
    functions: dict[str, Any] = {"network": network, "penalty": penalty}
    batches: dict[str, Any] = {"batch_size": batch_size, "sizes": sizes}
    if mesh.devices.flat[0].platform == "cpu":
        batches["in_one_pass"] = in_one_pass
    train_one = functools.partial(train_epoch, optimizer=optimizer, **functions, **batches)
    evaluate_one = functools.partial(evaluate, batch_size=evaluation_batch, part_sizes=part_sizes, **functions)

    for_all = functools.partial(for_all_trials, mesh=mesh, side_by_side=side_by_side)
    init_all = for_all(init_one, num_shared=0)
    with_means = for_all(lambda trial: (init_one(trial), EpochMeans(*jnp.zeros(2))), num_shared=0)
    state, means = jax.eval_shape(with_means, trials)
    number = jax.ShapeDtypeStruct((), np.int32)
    train_all, evaluate_all = for_all(train_one, num_shared=2, reuses_memory=True), for_all(evaluate_one, num_shared=2)
    with ThreadPoolExecutor() as threads:
        # XLA compiles one while Python traces the next; training takes longest, so it comes first.
        train = threads.submit(train_all.lower((state, means), state, trials, number, examples).compile)
        evaluation = threads.submit(evaluate_all.lower(state, trials, number, examples).compile)
        return Programs(init_all.lower(trials).compile(), train.result(), evaluation.result())


def spare_outputs(state: TrainState, trials: Trial) -> Outputs:
    """Memory for the outputs of the first epoch of these trials."""

    def zeros(like: Array, dtype: Any) -> Array:  # from the host: nothing to compile
        return jax.device_put(np.zeros(like.shape, dtype), like.sharding)

    means = EpochMeans(*[zeros(trials.seed, np.float32) for _ in EpochMeans._fields])
    return jax.tree.map(lambda values: zeros(values, values.dtype), state), means


def for_all_trials(f: Callable, *, mesh: Mesh, side_by_side: int, num_shared: int, reuses_memory: bool = False) -> Any:
    """The function `f` of one trial, jitted for all; its last `num_shared` arguments are the same for each.

    Args:
      reuses_memory: the jitted function gets a spare tree like its outputs before the arguments of `f`.
    """

    def on_one_device(spare: Any, *args: Any) -> Any:
        per_trial, shared = args[: len(args) - num_shared], args[len(args) - num_shared :]
        if side_by_side > 1 or not reuses_memory:
            # One at a time: without a batch axis, because a batched matmul of batch 1 is slower than a plain one.
            batch_size = None if side_by_side == 1 else side_by_side
            return lax.map(lambda trial: f(*trial, *shared), per_trial, batch_size=batch_size)

        def put(index: Array, outputs: Any) -> Any:
            of_trial = f(*jax.tree.map(lambda values: values[index], per_trial), *shared)
            return jax.tree.map(lambda all_trials, one: all_trials.at[index].set(one), outputs, of_trial)

        return lax.fori_loop(0, len(per_trial[-1].seed), put, spare)

    def on_all(spare: Any, *args: Any) -> Any:
        specs = PER_TRIAL, *[PER_TRIAL] * (len(args) - num_shared), *[SHARED] * num_shared
        f = jax.shard_map(on_one_device, mesh=mesh, in_specs=specs, out_specs=PER_TRIAL, check_vma=False)
        return f(spare, *args)

    on_cpu = mesh.devices.flat[0].platform == "cpu"
    options: dict[str, Any] = {"compiler_options": COMPILER_OPTIONS if on_cpu else None}
    if reuses_memory:
        # Side by side, outputs take the memory of an argument that nothing reads.
        return jax.jit(on_all, donate_argnums=0, keep_unused=True, **options)
    return jax.jit(functools.partial(on_all, ()), **options)
