"""The reference that sweeps are compared with: plain Flax layers, one trial after the other, a loop over batches.

It shares no code with the engine. It takes its splits from `l2jax.data.splits`, which has tests of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from itertools import product

import jax
import numpy as np
import optax
from flax import nnx

from l2jax.config import HYPERPARAMETERS, SweepConfig
from l2jax.data.dataset import Dataset
from l2jax.data.splits import folds, split, subset, with_label_noise

CURVES = ["train_loss", "train_accuracy", "penalty", "val_loss", "val_accuracy", "kernel_sum_of_squares"]
CURVES += ["running_objective", "running_accuracy"]

QUICKLY: dict[str, bool | int | str] = {"xla_backend_optimization_level": 0}
"""Options of XLA:CPU that compile up to three times as fast; these programs run for a second only."""
if jax.__version_info__ < (0, 11):  # JAX 0.12 has no other way to compile
    QUICKLY["xla_cpu_use_fusion_emitters"] = False
jit = functools.partial(jax.jit, compiler_options=QUICKLY)

ModelFn = Callable[[nnx.Rngs], nnx.Module]
OptimizerFn = Callable[[float], optax.GradientTransformation]  # of the learning rate
Examples = tuple[np.ndarray, np.ndarray]  # images (N, ...), uint8 or float32, and labels (N,)


class CNN(nnx.Module):
    """The network of `l2jax.CNN`, made of Flax layers."""

    def __init__(self, image_shape, num_classes, *, rngs):
        glorot = {"kernel_init": nnx.initializers.glorot_uniform(), "rngs": rngs}
        rows, cols = (((size - 2) // 2 - 2) // 2 for size in image_shape[:2])
        self.conv1 = nnx.Conv(image_shape[2], 32, (3, 3), padding="VALID", **glorot)
        self.conv2 = nnx.Conv(32, 64, (3, 3), padding="VALID", **glorot)
        self.dense = nnx.Linear(rows * cols * 64, num_classes, **glorot)

    def __call__(self, x):
        for conv in (self.conv1, self.conv2):
            x = nnx.max_pool(nnx.relu(conv(x)), (2, 2), strides=(2, 2))
        return self.dense(x.reshape(len(x), -1))


class MLP(nnx.Module):
    """A small network: quick to compile, for tests that are not about the CNN."""

    def __init__(self, num_inputs, num_classes, *, rngs, width=16):
        glorot = {"kernel_init": nnx.initializers.glorot_uniform(), "rngs": rngs}
        sizes = [(num_inputs, width), (width, num_classes)]
        self.layers = nnx.List([nnx.Linear(*size, **glorot) for size in sizes])

    def __call__(self, x):
        return self.layers[1](nnx.relu(self.layers[0](x.reshape(len(x), -1))))


def mlp(num_inputs: int, num_classes: int, width: int = 16) -> ModelFn:
    """A function, named mlp, that makes an `MLP`."""

    def mlp(rngs: nnx.Rngs) -> nnx.Module:
        return MLP(num_inputs, num_classes, rngs=rngs, width=width)

    return mlp


def sweep(
    model: ModelFn, dataset: Dataset, config: SweepConfig, optimizer: OptimizerFn | None = None
) -> dict[str, np.ndarray]:
    """Trains one trial after the other.

    Args:
      model: makes the network.
      dataset: the data, with or without a test part.
      config: the sweep.
      optimizer: makes an optimizer from a learning rate; None is AdamW with the trial's weight decay.

    Returns:
      Metrics over (hyperparameters, seed, fold, epoch), those of the test part without epoch. Dimensions of one value
      are left out, except l2 and seed.
    """
    grid = [getattr(config, name) for name in HYPERPARAMETERS] + [range(config.seeds), range(config.folds)]
    trials = []
    for *values, seed, fold in product(*grid):
        trial = dict(zip(HYPERPARAMETERS, values, strict=True))
        trials.append(train_trial(model, dataset, config, optimizer, trial=trial, seed=seed, fold=fold))
    sizes = [len(values) for n, values in enumerate(grid) if len(values) > 1 or n in (0, len(HYPERPARAMETERS))]
    arrays = {name: np.array([trial[name] for trial in trials]) for name in trials[0]}
    return {name: values.reshape(*sizes, *values.shape[1:]) for name, values in arrays.items()}


def train_trial(
    model: ModelFn,
    dataset: Dataset,
    config: SweepConfig,
    optimizer: OptimizerFn | None,
    *,
    trial: Mapping[str, float],
    seed: int,
    fold: int,
) -> dict[str, list | float]:
    """Trains one trial; returns lists of metrics, one value per epoch, and metrics of the test part after the last."""
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: model(nnx.Rngs(0))))
    params = initial(model, seed)
    opt_state = make_optimizer(optimizer, trial).init(params)
    train, val = training_and_validation_part(dataset, config, seed, fold)
    epochs = []
    for epoch in range(1, config.epochs + 1):
        indices = order(seed, epoch, len(train[1]))
        running = np.zeros(2)  # means of objective and accuracy while parameters change
        for start in range(0, len(indices), config.batch_size):
            batch = indices[start : start + config.batch_size]
            images, labels = as_floats(train[0][batch]), train[1][batch]
            params, opt_state, batch_means = step(graphdef, optimizer, params, opt_state, trial, images, labels)
            running += len(batch) * np.asarray(batch_means, np.float64) / len(indices)
        sum_of_squares = sum((np.asarray(kernel, np.float64) ** 2).sum() for kernel in kernels(params))
        metrics = {"kernel_sum_of_squares": sum_of_squares, "penalty": trial["l2"] / 2 * sum_of_squares}
        metrics["penalty"] += trial["l1"] * sum(
            np.abs(np.asarray(kernel, np.float64)).sum() for kernel in kernels(params)
        )
        metrics |= dict(zip(("running_objective", "running_accuracy"), running, strict=True))
        epochs.append(evaluate(graphdef, params, "train", train) | evaluate(graphdef, params, "val", val) | metrics)
    test = dataset.test_images, dataset.test_labels
    return {name: [metrics[name] for metrics in epochs] for name in epochs[0]} | (
        {} if dataset.test_labels is None else evaluate(graphdef, params, "test", test)
    )


def training_and_validation_part(
    dataset: Dataset, config: SweepConfig, seed: int, fold: int
) -> tuple[Examples, Examples]:
    """The examples of both parts; a fraction of the training labels is wrong if the sweep asks for it."""
    labels, val_indices = dataset.labels, None
    if config.folds > 1:
        indices = subset(labels, seed, config.train_size)
        train_indices, val_indices = (indices[part] for part in folds(labels[indices], seed, config.folds)[fold])
    elif config.val_size == "test":
        train_indices = subset(labels, seed, config.train_size)
    else:
        train_indices, val_indices = split(labels, seed, config.train_size, config.val_size)
    noisy = with_label_noise(labels, train_indices, seed, config.label_noise, dataset.num_classes)
    train = dataset.images[train_indices], noisy[train_indices]
    if val_indices is None:
        assert dataset.test_images is not None and dataset.test_labels is not None
        return train, (dataset.test_images, dataset.test_labels)
    return train, (dataset.images[val_indices], labels[val_indices])


@functools.partial(jit, static_argnums=0)
def initial(model: ModelFn, seed: int) -> nnx.State:
    """The parameters that a trial of this seed starts with."""
    return nnx.state(model(nnx.Rngs(jax.random.fold_in(jax.random.key(seed), 0))))


def order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """The order in which a trial of this seed sees its examples in this epoch."""
    return np.argsort(np.asarray(random_numbers(seed, epoch, num_examples)))


@functools.partial(jit, static_argnums=2)
def random_numbers(seed: int, epoch: int, count: int) -> jax.Array:
    return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), epoch), (count,))


def make_optimizer(optimizer: OptimizerFn | None, trial: Mapping[str, float]) -> optax.GradientTransformation:
    if optimizer:
        return optimizer(trial["learning_rate"])
    return optax.adamw(trial["learning_rate"], weight_decay=trial["weight_decay"], mask=is_kernel)


@functools.partial(jit, static_argnums=(0, 1))
def step(graphdef, optimizer, params, opt_state, trial, images, labels):
    """Trains on one batch; returns parameters, the optimizer's state, and (objective, accuracy) before the step."""
    value_and_grad = jax.value_and_grad(objective, argnums=1, has_aux=True)
    batch_means, grads = value_and_grad(graphdef, params, trial, images, labels)
    updates, opt_state = make_optimizer(optimizer, trial).update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, batch_means


def objective(graphdef, params, trial, images, labels):
    """The loss with the penalty, and the accuracy."""
    logits = nnx.merge(graphdef, params)(images)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[1]), trial["label_smoothing"])
    loss = -(targets * jax.nn.log_softmax(logits)).sum(1).mean()
    sum_of_squares = sum((kernel**2).sum() for kernel in kernels(params))
    penalty = trial["l2"] / 2 * sum_of_squares + trial["l1"] * sum(abs(kernel).sum() for kernel in kernels(params))
    return loss + penalty, (logits.argmax(1) == labels).mean()


@functools.partial(jit, static_argnums=0)
def predict(graphdef, params, images):
    return nnx.merge(graphdef, params)(images)


def evaluate(graphdef, params: nnx.State, part: str, examples: Examples) -> dict[str, float]:
    images, labels = examples
    logits = np.asarray(predict(graphdef, params, as_floats(images)), np.float64)
    return {f"{part}_loss": cross_entropy(logits, labels), f"{part}_accuracy": (logits.argmax(1) == labels).mean()}


def assert_equals_plain_loop(results, dataset, model, optimizer=None):
    """Asserts that accuracies are equal, and losses and norms up to rounding.

    Rounding amounts to 2e-7 in these short runs. A wrong batch, order or gradient shows in the second to fourth digit.
    In long runs, results drift apart: two outputs of a convolution that are equal but for rounding are sooner or later
    pooled the other way round (in these by 1e-4 after 80 steps).
    """
    expected = sweep(model, dataset, SweepConfig(**results.config["sweep"]), optimizer)
    assert {*CURVES, "test_loss", "test_accuracy"} == set(expected)
    for name, values in expected.items():
        rtol = 1e-6 if name.endswith("accuracy") else 1e-5
        np.testing.assert_allclose(results.data[name], values, rtol=rtol, err_msg=name)


def is_kernel(params: nnx.State) -> nnx.State:
    return jax.tree.map(lambda param: param.ndim > 1, params)


def kernels(params: nnx.State) -> list[jax.Array]:
    return [param[...] for path, param in nnx.to_flat_state(params) if path[-1] == "kernel"]


def as_floats(images: np.ndarray) -> np.ndarray:
    return images if images.dtype == np.float32 else images.astype(np.float32) / 255


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the examples; logits are (B, classes)."""
    likelihoods = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return -np.log(likelihoods[np.arange(len(labels)), labels]).mean()
