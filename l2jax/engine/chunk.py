"""A chunk: trials that train together on the devices, and what the programs do with it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from l2jax.engine.devices import put_per_trial, spread
from l2jax.engine.plan import Plan
from l2jax.engine.programs import Outputs
from l2jax.trial.evaluate import Evaluation
from l2jax.trial.kernels import kernels
from l2jax.trial.train import EpochMeans, Part, TrainState, Trial


class Chunk(NamedTuple):
    """Trials, n of them, on the devices: one pytree.

    Attributes:
      indices: (n,), which trials of the sweep.
      trials: (m,); the last trial is repeated until there are as many as the programs are compiled for.
      state: (m, ...).
    """

    indices: tuple[int, ...]
    trials: Trial
    state: TrainState


def train(chunk: Chunk, number: int, plan: Plan, spare: Outputs) -> tuple[Chunk, EpochMeans]:
    """Trains the trials for an epoch.

    Args:
      spare: outputs that are not needed any more, of an earlier epoch than the last: the new ones take their memory.
    """
    outputs = plan.fit.programs.train_epoch(spare, chunk.state, chunk.trials, np.int32(number), plan.examples)
    state, means = jax.block_until_ready(outputs)
    return chunk._replace(state=state), means


def evaluate(chunk: Chunk, part: Part, plan: Plan) -> Evaluation:
    """Evaluates the trials on one part of their data: arrays (n, ...) on the host."""
    return to_host(plan.fit.programs.evaluate(chunk.state, chunk.trials, np.int32(part), plan.examples), chunk)


def epoch_metrics(chunk: Chunk, means: EpochMeans, plan: Plan) -> dict[str, np.ndarray]:
    """Evaluates what is recorded of an epoch: arrays (n,), `kernel_norm` (n, layers)."""
    train = evaluate(chunk, Part.TRAIN, plan)
    val = evaluate(chunk, Part.VAL, plan)
    means = to_host(means, chunk)
    sums_of_squares = np.stack(list(train.sums_of_squares.values()), axis=-1)
    with np.errstate(over="ignore"):  # the trial has diverged
        sum_of_squares = sums_of_squares.sum(-1)
    metrics: dict[str, Any] = {
        "running_objective": means.objective,
        "running_accuracy": means.accuracy,
        "train_loss": train.loss,
        "train_accuracy": train.accuracy,
        "penalty": train.penalty,
        "val_loss": val.loss,
        "val_accuracy": val.accuracy,
        "val_ece": val.ece,
        "kernel_sum_of_squares": sum_of_squares,
        "kernel_norm": np.sqrt(sums_of_squares),
    }
    return metrics


def test_metrics(chunk: Chunk, plan: Plan) -> dict[str, np.ndarray]:
    """Evaluates what is recorded at the end: arrays (n,), `kernel_magnitudes` (n, layers, bins)."""
    test = evaluate(chunk, Part.TEST, plan)
    metrics: dict[str, Any] = {
        "test_loss": test.loss,
        "test_accuracy": test.accuracy,
        "kernel_magnitudes": np.stack(list(test.magnitudes.values()), axis=1),
    }
    return metrics


def starts_alike(chunk: Chunk) -> bool:
    """Whether trials of different seeds have the same kernels, as if these were not drawn at random."""
    seeds, first = np.unique(to_host(chunk.trials.seed, chunk), return_index=True)
    if len(seeds) == 1:
        return False
    arrays = [values[first] for values in kernels(state_on_host(chunk).params).values()]
    return all((values == values[:1]).all() for values in arrays)


def freeze(chunk: Chunk, before: Chunk, diverged: np.ndarray, mesh: Mesh) -> Chunk:
    """Gives trials that have diverged, a mask (n,), their earlier state back."""
    is_frozen = put_per_trial(diverged, mesh, len(chunk.trials.seed))

    def select(before: jax.Array, after: jax.Array) -> jax.Array:
        return jnp.where(is_frozen.reshape(-1, *[1] * (after.ndim - 1)), before, after)

    return chunk._replace(state=spread(jax.tree.map(select, before.state, chunk.state), mesh))


def to_host(tree: Any, chunk: Chunk) -> Any:
    """Copies arrays (m, ...) of a chunk to the host, without the repeated trials: (n, ...)."""
    return jax.tree.map(lambda values: np.array(values)[: len(chunk.indices)], tree)


def state_on_host(chunk: Chunk) -> TrainState:
    """The state as arrays (n, ...) that must not be written to: on CPU they are the devices' own memory."""
    return jax.tree.map(lambda values: np.asarray(values)[: len(chunk.indices)], chunk.state)


def trial_on_host(chunk: Chunk, row: int) -> TrainState:
    """A copy of the state of one trial; nothing but the part of the chunk that is on its device is read."""

    def copy_row(values: jax.Array) -> np.ndarray:
        for shard in values.addressable_shards:
            rows = range(len(values))[shard.index[0]]
            if row in rows:
                return np.array(np.asarray(shard.data)[row - rows.start])
        raise IndexError(row)

    return jax.tree.map(copy_row, chunk.state)
