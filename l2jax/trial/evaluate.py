"""The evaluation of ONE trial on a part of its data."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from l2jax.network.network import Network, Params
from l2jax.results.metrics import MAGNITUDES
from l2jax.trial.calibration import BINS, calibration_error, calibration_sums
from l2jax.trial.kernels import kernels, sums_of_squares
from l2jax.trial.magnitudes import count_magnitudes
from l2jax.trial.optimizer import evaluation_params
from l2jax.trial.penalty import Penalty
from l2jax.trial.train import Examples, Part, TrainState, Trial, load_images, losses_and_correct


class Evaluation(NamedTuple):
    """The metrics of a trial on one part of its data.

    Attributes:
      loss: mean cross-entropy, without the penalty.
      accuracy: fraction of examples that are classified correctly.
      ece: expected calibration error; see `l2jax.trial.calibration`.
      penalty: of the objective.
      sums_of_squares: of each layer's kernel, by layer.
      magnitudes: `count_magnitudes` of each layer's kernel, by layer; 0 but for the test part.
    """

    loss: Array
    accuracy: Array
    ece: Array
    penalty: Array
    sums_of_squares: dict[str, Array]
    magnitudes: dict[str, Array]


def evaluate(
    state: TrainState,
    trial: Trial,
    part: Array,
    examples: Examples,
    *,
    network: Network,
    penalty: Penalty,
    batch_size: int,
    part_sizes: tuple[int, ...],
) -> Evaluation:
    """Evaluates a trial on one `Part`; loss, accuracy and ece of a part without examples are NaN.

    Args:
      part_sizes: the most examples that each part has. Known when this is compiled, they make a loop over batches of
        known length for each part, the same for all trials: a mask leaves out what a smaller part has not.
    """
    params = evaluation_params(state.params, state.opt_state)
    indices = examples.parts[part, trial.split_index]
    indices = jnp.pad(indices, (0, -len(indices) % batch_size), constant_values=-1)
    size = (indices >= 0).sum(dtype=jnp.int32)

    def add_batch(i: Array, sums: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        batch = lax.dynamic_slice_in_dim(indices, i * batch_size, batch_size)
        train_labels = examples.train_labels[trial.split_index, batch]
        labels = jnp.where(part == Part.TRAIN, train_labels, examples.labels[batch])
        images, mask = load_images(examples, batch), batch >= 0
        logits = network.apply(params, state.model_state, images, False)[0].astype(jnp.float32)
        losses, correct = losses_and_correct(logits, labels)
        loss, num_correct, calibration = sums
        calibration += calibration_sums(logits, labels, mask)
        return loss + jnp.where(mask, losses, 0).sum(), num_correct + (mask & correct).sum(dtype=jnp.int32), calibration

    zeros = jnp.float32(0), jnp.int32(0), jnp.zeros((3, BINS), jnp.float32)
    lengths = [math.ceil(size / batch_size) for size in part_sizes]
    loops = [functools.partial(lax.fori_loop, 0, length, add_batch, zeros) for length in lengths]
    loss, num_correct, calibration = lax.switch(part, loops)
    ece = calibration_error(calibration)
    return Evaluation(
        loss / size,
        num_correct / size,
        ece,
        penalty(params, trial.hyperparameters),
        sums_of_squares(params),
        lax.cond(part == Part.TEST, _magnitudes, _no_magnitudes, params),
    )


def _magnitudes(params: Params) -> dict[str, Array]:
    return {layer: count_magnitudes(kernel) for layer, kernel in kernels(params).items()}


def _no_magnitudes(params: Params) -> dict[str, Array]:
    return {layer: jnp.zeros(MAGNITUDES.shape, jnp.float32) for layer in kernels(params)}
