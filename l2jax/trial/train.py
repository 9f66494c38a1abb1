"""The training of ONE trial: penalty, objective, step, epoch, evaluation. Nothing here knows of other trials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array, lax

from l2jax.trial.calibration import BINS, calibration_error, calibration_sums
from l2jax.trial.magnitudes import MIDDLES, count_magnitudes

Params = nnx.State
Apply = Callable[[Params, Array], Array]
"""Parameters and images (B, H, W, C) in [0, 1] to logits (B, classes)."""
Optimizer = Callable[[Array], optax.GradientTransformation]
"""A learning rate to an optimizer, such as `optax.adam`."""


class Trial(NamedTuple):
    """What differs between trials: scalars."""

    l2: Array
    learning_rate: Array
    weight_decay: Array
    """Decoupled (Loshchilov and Hutter, 2019): a step takes learning_rate * weight_decay of each kernel away."""
    label_smoothing: Array
    """The part of a label that is spread over all classes (Szegedy et al., 2016, section 7); in training only."""
    seed: Array
    """Of the initial kernels and the order of the examples."""
    split: Array
    """Row of `Data.parts` and `Data.train_labels`."""


class TrainState(NamedTuple):
    """All that an epoch changes."""

    params: Params
    opt_state: optax.OptState


class Running(NamedTuple):
    """Means over the examples of an epoch, each measured just before the step that learns from it, as Keras does."""

    objective: Array
    accuracy: Array


class Evaluation(NamedTuple):
    """A trial, measured on a part of the data."""

    loss: Array
    """Mean cross-entropy, without the penalty."""
    accuracy: Array
    ece: Array
    """Expected calibration error: see `l2jax.calibration`."""
    penalty: Array
    squared_norms: dict[str, Array]
    """Sum of squares of each layer's kernel."""
    magnitudes: dict[str, Array]
    """Of each layer's kernel, as `l2jax.magnitudes` counts them; of the test part alone, otherwise 0."""


class Part:
    """Rows of `Data.parts`."""

    TRAIN, VAL, TEST = range(3)


class Data(NamedTuple):
    """What all trials share."""

    images: Array
    """(N, H, W, C), uint8."""
    labels: Array
    """(N,), int32."""
    train_labels: Array
    """(splits, N), int32: the same but for those made wrong on purpose."""
    parts: Array
    """(3, splits, L), int32: the examples of each `Part` of each split, filled up with -1, which is no example."""


def penalty(params: Params, l2: Array) -> Array:
    """(l2 / 2) * sum(kernel**2) over every parameter named `kernel`; its gradient is l2 * kernel."""
    return l2 / 2 * sum(squared_norms(params).values(), start=jnp.float32(0))


def squared_norms(params: Params) -> dict[str, Array]:
    """Sum of squares of each layer's kernel."""
    return {layer: jnp.sum(kernel**2) for layer, kernel in kernels(params).items()}


def magnitudes_of(params: Params) -> dict[str, Array]:
    """How many values of each layer's kernel are how large: see `l2jax.magnitudes`."""
    return {layer: count_magnitudes(kernel) for layer, kernel in kernels(params).items()}


def kernels(params: Params) -> dict[str, Array]:
    """Each layer's kernel, by the layer's name."""
    layers = nnx.to_flat_state(params)
    return {"/".join(map(str, path[:-1])): param[...] for path, param in layers if path[-1] == "kernel"}


def objective(
    params: Params, trial: Trial, apply: Apply, images: Array, labels: Array, mask: Array
) -> tuple[Array, Array]:
    """What a step lowers, and how many examples are classified correctly.

    The mean cross-entropy of the examples where mask (B,) is true, their labels smoothed, plus the penalty.
    """
    logits = apply(params, images)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    # With the label spread over all classes, the cross-entropy is a mixture of those with each class.
    spread = -jax.nn.log_softmax(logits).mean(-1)
    losses += trial.label_smoothing * (spread - losses)
    correct = mask & (logits.argmax(-1) == labels)
    return jnp.where(mask, losses, 0).sum() / mask.sum() + penalty(params, trial.l2), correct.sum()


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
    batch_size: int,
) -> tuple[TrainState, Running]:
    """One pass over the trial's training part, in an order of its own; the last batch holds what is left.

    Args:
      epoch: counted from 1.
    """
    part = data.parts[Part.TRAIN, trial.split]
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(trial.seed), 1), epoch)
    order, size = shuffled(key, part), (part >= 0).sum()

    def step(i: Array, carry: tuple[TrainState, Running]) -> tuple[TrainState, Running]:
        state, sums = carry
        indices = lax.dynamic_slice_in_dim(order, i * batch_size, batch_size)
        images, labels, mask = images_of(data, indices), data.train_labels[trial.split, indices], indices >= 0
        value_and_grad = jax.value_and_grad(objective, has_aux=True)
        (value, correct), grads = value_and_grad(state.params, trial, apply, images, labels, mask)
        updates, opt_state = optimizer(trial.learning_rate).update(grads, state.opt_state, state.params)
        params = cast(Params, optax.apply_updates(state.params, decayed(updates, state.params, trial)))
        return TrainState(params, opt_state), Running(sums.objective + mask.sum() * value, sums.accuracy + correct)

    # The number of steps is the trial's own: folds may differ by an example, and no step is without one.
    state, sums = lax.fori_loop(0, -(-size // batch_size), step, (state, Running(jnp.float32(0), jnp.float32(0))))
    return state, Running(sums.objective / size, sums.accuracy / size)


def decayed(updates: optax.Updates, params: Params, trial: Trial) -> optax.Updates:
    """Adds decoupled weight decay to the updates of kernels: -learning_rate * weight_decay * kernel."""
    rate = trial.learning_rate * trial.weight_decay

    def of_leaf(path: tuple[Any, ...], update: Array, param: Array) -> Array:
        return update - rate * param if path[-2] == jax.tree_util.DictKey("kernel") else update

    return jax.tree.map_with_path(of_leaf, updates, params)


def evaluate(state: TrainState, trial: Trial, part: Array, data: Data, apply: Apply, batch_size: int) -> Evaluation:
    """Measures a trial on one `Part` of its data; loss, accuracy and ece of a part without examples are NaN."""
    indices = data.parts[part, trial.split]
    size = (indices >= 0).sum()

    def add_batch(i: Array, sums: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        batch = lax.dynamic_slice_in_dim(indices, i * batch_size, batch_size)
        labels = jnp.where(part == Part.TRAIN, data.train_labels[trial.split, batch], data.labels[batch])
        logits, mask = apply(state.params, images_of(data, batch)), batch >= 0
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        correct = mask & (logits.argmax(-1) == labels)
        loss, num_correct, calibration = sums
        calibration += calibration_sums(logits, labels, mask)
        return loss + jnp.where(mask, losses, 0).sum(), num_correct + correct.sum(), calibration

    nothing = jnp.float32(0), jnp.int32(0), jnp.zeros((3, BINS))
    loss, correct, calibration = lax.fori_loop(0, -(-size // batch_size), add_batch, nothing)
    ece = calibration_error(calibration)
    none = {layer: jnp.zeros(MIDDLES.shape) for layer in kernels(state.params)}
    magnitudes = lax.cond(part == Part.TEST, magnitudes_of, lambda _: none, state.params)
    return Evaluation(
        loss / size,
        correct / size,
        ece,
        penalty(state.params, trial.l2),
        squared_norms(state.params),
        magnitudes,
    )


def shuffled(key: Array, indices: Array) -> Array:
    """Indices (L,) in random order; -1, which is no example, last."""
    return indices[jnp.argsort(jnp.where(indices < 0, 2.0, jax.random.uniform(key, indices.shape)))]


def images_of(data: Data, indices: Array) -> Array:
    """Images (B, H, W, C) in [0, 1]; what stands for -1, which is no example, is for the mask to leave out."""
    return data.images[indices].astype(jnp.float32) / 255
