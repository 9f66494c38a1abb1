"""The training of ONE trial: objective, step, epoch. Nothing here knows of other trials."""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from l2jax.network.network import ModelState, Network, Params
from l2jax.trial.kernels import kernel_mask
from l2jax.trial.optimizer import Optimizer, update
from l2jax.trial.penalty import Penalty


class Trial(NamedTuple):
    """What differs between trials.

    Attributes:
      hyperparameters: scalars by name. The network, the optimizer and the penalty take those that they name as
        arguments. Training itself takes
        weight_decay, decoupled: a step takes learning_rate * weight_decay of each kernel away (Loshchilov and Hutter,
          2019), unless the optimizer decays weights itself;
        label_smoothing, the part of a label that is spread over all classes (Szegedy et al., 2016, section 7).
      seed: decides the initial parameters and the order of the examples.
      split_index: the row of `Examples.parts` and `Examples.train_labels`.
    """

    hyperparameters: dict[str, Array]
    seed: Array
    split_index: Array


class TrainState(NamedTuple):
    """The state that training updates.

    Attributes:
      params: the learned arrays.
      opt_state: the optimizer's state, as optax makes it.
      model_state: what else the network carries from step to step; a tree without leaves for many networks.
    """

    params: Params
    opt_state: optax.OptState
    model_state: ModelState


class EpochMeans(NamedTuple):
    """Means over the examples of an epoch, each measured just before the step that learns from it, as Keras does."""

    objective: Array
    accuracy: Array


Carry = tuple[TrainState, EpochMeans]
"""A trial's state, and the sums over the examples so far."""


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


class Batch(NamedTuple):
    """The examples of a step.

    Attributes:
      images: (B, H, W, C) in [0, 1].
      labels: (B,).
      mask: (B,), bool; the examples that count.
    """

    images: Array
    labels: Array
    mask: Array


def objective(
    params: Params, model_state: ModelState, trial: Trial, batch: Batch, *, network: Network, penalty: Penalty
) -> tuple[Array, tuple[Array, Params, ModelState]]:
    """The objective that a step lowers.

    Returns:
      The mean cross-entropy with smoothed labels plus the penalty; the number of examples that are classified
      correctly, and the parameters and the state that the call of the network leaves.
    """
    logits, params, model_state = network.apply(params, model_state, batch.images, True)
    logits = logits.astype(jnp.float32)
    losses, correct = losses_and_correct(logits, batch.labels)
    # With the label spread over all classes, the cross-entropy is a mixture of those with each class.
    spread = -jax.nn.log_softmax(logits).mean(-1)
    losses += trial.hyperparameters["label_smoothing"] * (spread - losses)
    loss = jnp.where(batch.mask, losses, 0).sum() / batch.mask.sum()
    num_correct = (batch.mask & correct).sum(dtype=jnp.int32)
    return loss + penalty(params, trial.hyperparameters), (num_correct, params, model_state)


def losses_and_correct(logits: Array, labels: Array) -> tuple[Array, Array]:
    """The cross-entropy of each example, and whether it is classified correctly: (B,) each."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses, logits.argmax(-1) == labels


def init(trial: Trial, *, network: Network, optimizer: Optimizer) -> TrainState:
    """The state that a trial begins with; what is drawn for it depends on the seed alone."""
    params, model_state = network.init(jax.random.fold_in(jax.random.key(trial.seed), 0), trial.hyperparameters)
    return TrainState(params, optimizer(trial.hyperparameters).init(params), model_state)


def train_epoch(
    state: TrainState,
    trial: Trial,
    number: Array,
    examples: Examples,
    *,
    network: Network,
    optimizer: Optimizer,
    penalty: Penalty,
    batch_size: int,
    sizes: tuple[int, ...],
    in_one_pass: Callable[[Callable], Callable] = lambda step: step,
) -> tuple[TrainState, EpochMeans]:
    """Trains on every example of the training part once, in a new order; the last batch may be smaller.

    A mask leaves out what fills the last batch up. For networks that see the whole batch, it is exactly that size.

    Args:
      number: of the epoch, from 1. The order depends on it and on the seed.
      sizes: the numbers of examples that a training part can have, in ascending order; folds may differ by an example.
        Known when this is compiled, they make the loop over steps one of known length, the same for all trials.
      in_one_pass: rewrites a step, a function of the carry and the indices of examples; see `l2jax.rewrite.one_pass`.
    """
    part = examples.parts[Part.TRAIN, trial.split_index]
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(trial.seed), 1), number)
    order, size = shuffled(key, part), (part >= 0).sum(dtype=jnp.int32)

    @in_one_pass
    def step(carry: Carry, indices: Array) -> Carry:
        state, sums = carry
        labels = examples.train_labels[trial.split_index, indices]
        batch = Batch(load_images(examples, indices), labels, indices >= 0)
        objective_fn = functools.partial(objective, network=network, penalty=penalty)
        value_and_grad = jax.value_and_grad(objective_fn, has_aux=True)
        (value, aux), grads = value_and_grad(state.params, state.model_state, trial, batch)
        num_correct, params, model_state = aux
        updates, opt_state = update(
            optimizer(trial.hyperparameters),
            grads,
            state.opt_state,
            params,
            value=value,
            value_fn=lambda params: objective_fn(params, state.model_state, trial, batch)[0],
        )
        if not optimizer.decays_weights:
            updates = with_weight_decay(updates, params, trial)
        params = cast(Params, optax.apply_updates(params, updates))
        sums = EpochMeans(sums.objective + batch.mask.sum() * value, sums.accuracy + num_correct)
        return TrainState(params, opt_state, model_state), sums

    def whole_batch(i: Array, carry: Carry) -> Carry:
        return step(carry, lax.dynamic_slice_in_dim(order, i * batch_size, batch_size))

    def last_batch(batch_size: int, carry: Carry) -> Carry:
        return step(carry, lax.dynamic_slice_in_dim(order, size - batch_size, batch_size)) if batch_size else carry

    carry = state, EpochMeans(jnp.float32(0), jnp.float32(0))
    if network.uses_batch:
        num_whole = sizes[0] // batch_size
        carry = lax.fori_loop(0, num_whole, whole_batch, carry)
        rests = [functools.partial(last_batch, s - num_whole * batch_size) for s in sizes]
        carry = lax.switch(jnp.searchsorted(jnp.array(sizes), size), rests, carry)
    else:
        num_steps = math.ceil(sizes[0] / batch_size)
        carry = lax.fori_loop(0, num_steps, whole_batch, carry)
        if sizes[-1] > num_steps * batch_size:  # then some trials take a step more
            one_more = functools.partial(whole_batch, jnp.int32(num_steps))
            carry = lax.cond(size > num_steps * batch_size, one_more, lambda carry: carry, carry)
    state, sums = carry
    return state, EpochMeans(sums.objective / size, sums.accuracy / size)


def with_weight_decay(updates: optax.Updates, params: Params, trial: Trial) -> optax.Updates:
    """Adds decoupled weight decay to the updates of kernels: -learning_rate * weight_decay * kernel."""
    rate = trial.hyperparameters["learning_rate"] * trial.hyperparameters["weight_decay"]

    def decay(update: Array, param: Array, is_kernel: bool) -> Array:
        return update - rate * param if is_kernel else update

    return jax.tree.map(decay, updates, params, kernel_mask(params))


def shuffled(key: Array, indices: Array) -> Array:
    """Indices (L,) in random order, with the padding last."""
    return indices[jnp.argsort(jnp.where(indices < 0, 2.0, jax.random.uniform(key, indices.shape, jnp.float32)))]


def load_images(examples: Examples, indices: Array) -> Array:
    """Images (B, ...): `uint8` in [0, 1], floats as they are.

    Padding (-1) reads an arbitrary image, which the caller's mask excludes.
    """
    images = examples.images[indices]
    return images if images.dtype == jnp.float32 else images.astype(jnp.float32) / 255
