"""The training of ONE trial: objective, step, epoch. Nothing here knows of other trials."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array, lax

from l2jax.network.cnn import ModelFn
from l2jax.trial.kernels import Params, kernel_mask, penalty

Apply = Callable[[Params, Array], Array]
"""Parameters and images (B, ...) to logits (B, classes)."""
OptimizerFn = Callable[[Array], optax.GradientTransformation]
"""A learning rate to an optimizer, such as `optax.adam`."""


class Trial(NamedTuple):
    """What differs between trials.

    Attributes:
      hyperparameters: scalars by name:
        l2, the strength of the penalty;
        learning_rate;
        weight_decay, decoupled: a step takes learning_rate * weight_decay of each kernel away (Loshchilov and Hutter,
          2019);
        label_smoothing, the part of a label that training spreads over all classes (Szegedy et al., 2016, section 7).
      seed: decides the initial parameters and the order of the examples.
      split_index: the row of `Examples.parts` and `Examples.train_labels`.
    """

    hyperparameters: dict[str, Array]
    seed: Array
    split_index: Array


class TrainState(NamedTuple):
    """The state that training updates."""

    params: Params
    opt_state: optax.OptState


class EpochMeans(NamedTuple):
    """Means over the examples of an epoch, each measured just before the step that learns from it, as Keras does."""

    objective: Array
    accuracy: Array


class Part(enum.IntEnum):
    """The rows of `Examples.parts`."""

    TRAIN = 0
    VAL = 1
    TEST = 2


class Examples(NamedTuple):
    """The examples that all trials share.

    Attributes:
      images: (N, ...), uint8 or float32.
      labels: (N,), int32.
      train_labels: (splits, N), int32: the labels, some of them made wrong on purpose in training parts.
      parts: (3, splits, L), int32: example indices by `Part` and split, padded with -1.
    """

    images: Array
    labels: Array
    train_labels: Array
    parts: Array


def objective(
    params: Params, trial: Trial, *, apply: Apply, images: Array, labels: Array, mask: Array
) -> tuple[Array, Array]:
    """The objective that a step lowers, and how many examples are classified correctly.

    Args:
      mask: (B,), bool; the examples that count.

    Returns:
      The mean cross-entropy with smoothed labels plus the penalty, and the number of correct examples.
    """
    logits = apply(params, images)
    losses, correct = losses_and_correct(logits, labels)
    # With the label spread over all classes, the cross-entropy is a mixture of those with each class.
    spread = -jax.nn.log_softmax(logits).mean(-1)
    losses += trial.hyperparameters["label_smoothing"] * (spread - losses)
    loss = jnp.where(mask, losses, 0).sum() / mask.sum()
    return loss + penalty(params, trial.hyperparameters["l2"]), (mask & correct).sum()


def losses_and_correct(logits: Array, labels: Array) -> tuple[Array, Array]:
    """The cross-entropy of each example, and whether it is classified correctly: (B,) each."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses, logits.argmax(-1) == labels


def init(trial: Trial, *, model: ModelFn, optimizer: OptimizerFn) -> TrainState:
    """The state that a trial begins with; its parameters depend on the seed alone."""
    key = jax.random.fold_in(jax.random.key(trial.seed), 0)
    params = nnx.state(model(nnx.Rngs(key)), nnx.Param)
    return TrainState(params, optimizer(trial.hyperparameters["learning_rate"]).init(params))


def train_epoch(
    state: TrainState,
    trial: Trial,
    number: Array,
    examples: Examples,
    *,
    apply: Apply,
    optimizer: OptimizerFn,
    batch_size: int,
) -> tuple[TrainState, EpochMeans]:
    """Trains on every example of the training part once, in a new order; the last batch may be smaller.

    Args:
      number: of the epoch, from 1. The order depends on it and on the seed.
    """
    part = examples.parts[Part.TRAIN, trial.split_index]
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(trial.seed), 1), number)
    order, size = shuffled(key, part), (part >= 0).sum()

    def step(i: Array, carry: tuple[TrainState, EpochMeans]) -> tuple[TrainState, EpochMeans]:
        state, sums = carry
        batch = lax.dynamic_slice_in_dim(order, i * batch_size, batch_size)
        images, mask = load_images(examples, batch), batch >= 0
        labels = examples.train_labels[trial.split_index, batch]
        value_and_grad = jax.value_and_grad(objective, has_aux=True)
        (value, correct), grads = value_and_grad(
            state.params, trial, apply=apply, images=images, labels=labels, mask=mask
        )
        updates, opt_state = optimizer(trial.hyperparameters["learning_rate"]).update(
            grads, state.opt_state, state.params
        )
        params = cast(Params, optax.apply_updates(state.params, with_weight_decay(updates, state.params, trial)))
        return TrainState(params, opt_state), EpochMeans(sums.objective + mask.sum() * value, sums.accuracy + correct)

    # Folds may differ by an example, so the number of steps is the trial's own, and no step is without an example.
    num_batches = -(-size // batch_size)
    state, sums = lax.fori_loop(0, num_batches, step, (state, EpochMeans(jnp.float32(0), jnp.float32(0))))
    return state, EpochMeans(sums.objective / size, sums.accuracy / size)


def with_weight_decay(updates: optax.Updates, params: Params, trial: Trial) -> optax.Updates:
    """Adds decoupled weight decay to the updates of kernels: -learning_rate * weight_decay * kernel."""
    rate = trial.hyperparameters["learning_rate"] * trial.hyperparameters["weight_decay"]

    def decay(update: Array, param: Array, is_kernel: bool) -> Array:
        return update - rate * param if is_kernel else update

    return jax.tree.map(decay, updates, params, kernel_mask(params))


def shuffled(key: Array, indices: Array) -> Array:
    """Indices (L,) in random order, with the padding last."""
    return indices[jnp.argsort(jnp.where(indices < 0, 2.0, jax.random.uniform(key, indices.shape)))]


def load_images(examples: Examples, indices: Array) -> Array:
    """Images (B, ...): `uint8` in [0, 1], floats as they are.

    Padding (-1) reads an arbitrary image, which the caller's mask excludes.
    """
    images = examples.images[indices]
    return images if images.dtype == jnp.float32 else images.astype(jnp.float32) / 255
