"""The training of ONE trial: penalty, objective, step, epoch, evaluation. Nothing here knows of other trials."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array, lax

Params = nnx.State
Apply = Callable[[Params, Array], Array]
"""Parameters and images (B, H, W, C) in [0, 1] to logits (B, classes)."""
Optimizer = Callable[[Array], optax.GradientTransformation]
"""A learning rate to an optimizer, such as `optax.adam`."""


class Trial(NamedTuple):
    """What differs between trials: scalars."""

    l2: Array
    learning_rate: Array
    seed: Array
    """Of the initial kernels and the order of the examples."""
    split: Array
    """Row of `Data.parts`."""


class TrainState(NamedTuple):
    """All that an epoch changes."""

    params: Params
    opt_state: optax.OptState


class Evaluation(NamedTuple):
    """A trial, measured on a part of the data."""

    loss: Array
    """Mean cross-entropy, without the penalty."""
    accuracy: Array
    penalty: Array
    l2_norm: Array
    """Sum of squares of all kernels."""


class Part:
    """Rows of `Data.parts`."""

    TRAIN, VAL, TEST = range(3)


class Data(NamedTuple):
    """What all trials share."""

    images: Array
    """(N, H, W, C), uint8."""
    labels: Array
    """(N,), int32."""
    parts: Array
    """(3, splits, L), int32: the examples of each `Part` of each split, filled up with -1, which is no example."""


def penalty(params: Params, l2: Array) -> Array:
    """(l2 / 2) * sum(kernel**2) over every parameter named `kernel`; its gradient is l2 * kernel."""
    return l2 / 2 * l2_norm(params)


def l2_norm(params: Params) -> Array:
    """Sum of squares of all kernels."""
    squares = (jnp.sum(p[...] ** 2) for path, p in nnx.to_flat_state(params) if path[-1] == "kernel")
    return sum(squares, start=jnp.float32(0))


def objective(params: Params, l2: Array, apply: Apply, images: Array, labels: Array, mask: Array) -> Array:
    """Mean cross-entropy of the examples where mask (B,) is true, plus the penalty."""
    losses = optax.softmax_cross_entropy_with_integer_labels(apply(params, images), labels)
    return jnp.where(mask, losses, 0).sum() / mask.sum() + penalty(params, l2)


def init(trial: Trial, model: Callable[[nnx.Rngs], nnx.Module], optimizer: Optimizer) -> TrainState:
    key = jax.random.fold_in(jax.random.key(trial.seed), 0)
    params = nnx.state(model(nnx.Rngs(key)), nnx.Param)
    return TrainState(params, optimizer(trial.learning_rate).init(params))


def epoch(
    state: TrainState,
    trial: Trial,
    epoch: Array,
    data: Data,
    apply: Apply,
    optimizer: Optimizer,
    steps: tuple[int, int],
) -> TrainState:
    """One pass over the trial's training part, in an order of its own; the last batch holds what is left.

    Args:
      epoch: counted from 1.
      steps: (number of steps, batch size).
    """

    def step(state: TrainState, indices: Array) -> tuple[TrainState, None]:
        images, labels = _examples(data, indices)
        grads = jax.grad(objective)(state.params, trial.l2, apply, images, labels, indices >= 0)
        updates, opt_state = optimizer(trial.learning_rate).update(grads, state.opt_state, state.params)
        params = cast(Params, optax.apply_updates(state.params, updates))
        return TrainState(params, opt_state), None

    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(trial.seed), 1), epoch)
    order = shuffled(key, data.parts[Part.TRAIN, trial.split])
    return lax.scan(step, state, order[: steps[0] * steps[1]].reshape(steps))[0]


def evaluate(state: TrainState, trial: Trial, part: Array, data: Data, apply: Apply, batch_size: int) -> Evaluation:
    """Measures a trial on one `Part` of its data; loss and accuracy of a part without examples are NaN."""
    indices = data.parts[part, trial.split]
    size = (indices >= 0).sum()

    def add_batch(i: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        batch = lax.dynamic_slice_in_dim(indices, i * batch_size, batch_size)
        images, labels = _examples(data, batch)
        logits, mask = apply(state.params, images), batch >= 0
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        correct = mask & (logits.argmax(-1) == labels)
        return sums[0] + jnp.where(mask, losses, 0).sum(), sums[1] + correct.sum()

    loss, correct = lax.fori_loop(0, -(-size // batch_size), add_batch, (jnp.float32(0), jnp.int32(0)))
    return Evaluation(loss / size, correct / size, penalty(state.params, trial.l2), l2_norm(state.params))


def shuffled(key: Array, indices: Array) -> Array:
    """Indices (L,) in random order; -1, which is no example, last."""
    return indices[jnp.argsort(jnp.where(indices < 0, 2.0, jax.random.uniform(key, indices.shape)))]


def _examples(data: Data, indices: Array) -> tuple[Array, Array]:
    return data.images[indices].astype(jnp.float32) / 255, data.labels[indices]
