"""One trial as everybody writes it: plain Flax layers, a Python loop over batches. What sweeps are compared with."""

from __future__ import annotations

import functools
from collections.abc import Callable
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
"""Options of XLA:CPU that compile up to three times as fast: what runs for a second need not run fast."""
if jax.__version_info__ < (0, 11):  # JAX 0.12 has no other way to compile
    QUICKLY["xla_cpu_use_fusion_emitters"] = False
jit = functools.partial(jax.jit, compiler_options=QUICKLY)


class CNN(nnx.Module):
    """The network of `l2jax.CNN`, of Flax layers."""

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


@functools.partial(jit, static_argnums=0)
def initial(model: Callable[[nnx.Rngs], nnx.Module], seed: int) -> nnx.State:
    """The parameters that a trial of this seed starts with."""
    return nnx.state(model(nnx.Rngs(jax.random.fold_in(jax.random.key(seed), 0))))


def order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """The order in which a trial of this seed sees its examples in this epoch."""
    return np.argsort(np.asarray(random_numbers(seed, epoch, num_examples)))


@functools.partial(jit, static_argnums=2)
def random_numbers(seed: int, epoch: int, how_many: int) -> jax.Array:
    return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), epoch), (how_many,))


def sweep(
    model: Callable[[nnx.Rngs], nnx.Module],
    dataset: Dataset,
    config: SweepConfig,
    optimizer: Callable[[float], optax.GradientTransformation] | None = None,
) -> dict[str, np.ndarray]:
    """Trains one trial after the other.

    Returns metrics over (hyperparameters, seed, fold, epoch), those of the test part without epoch. Dimensions of one
    value are left out, but for l2 and seed.
    """
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: model(nnx.Rngs(0))))

    @jit
    def apply(params, images):
        return nnx.merge(graphdef, params)(images)

    def optimizer_of(trial):
        if optimizer:
            return optimizer(trial["learning_rate"])
        return optax.adamw(trial["learning_rate"], weight_decay=trial["weight_decay"], mask=is_kernel)

    def objective(params, trial, images, labels):
        logits = nnx.merge(graphdef, params)(images)
        targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[1]), trial["label_smoothing"])
        loss = -(targets * jax.nn.log_softmax(logits)).sum(1).mean()
        l2_norm = sum((kernel**2).sum() for kernel in kernels(params))
        return loss + trial["l2"] / 2 * l2_norm, (logits.argmax(1) == labels).mean()

    @jit
    def step(params, opt_state, trial, images, labels):
        measured, grads = jax.value_and_grad(objective, has_aux=True)(params, trial, images, labels)
        updates, opt_state = optimizer_of(trial).update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, measured

    def measured(part, params, images, labels):
        logits = np.asarray(apply(params, as_floats(images)), np.float64)
        return {f"{part}_loss": cross_entropy(logits, labels), f"{part}_accuracy": (logits.argmax(1) == labels).mean()}

    def parts(seed, fold):
        """Training and validation part: images and labels, the former with its wrong labels."""
        labels = dataset.labels
        held_out = None
        if config.folds > 1:
            dealt = subset(labels, seed, config.train_size)
            fit, held_out = (dealt[part] for part in folds(labels[dealt], seed, config.folds)[fold])
        elif config.val_size == "test":
            fit = subset(labels, seed, config.train_size)
        else:
            fit, held_out = split(labels, seed, config.train_size, config.val_size)
        noisy = with_label_noise(labels, fit, seed, config.label_noise, dataset.num_classes)
        test = dataset.test_images, dataset.test_labels
        val = test if held_out is None else (dataset.images[held_out], labels[held_out])
        return (dataset.images[fit], noisy[fit]), val

    def one_trial(trial, seed, fold):
        params = initial(model, seed)
        opt_state = optimizer_of(trial).init(params)
        fit, held_out = parts(seed, fold)
        epochs = []
        for epoch in range(1, config.epochs + 1):
            indices = order(seed, epoch, len(fit[1]))
            running = np.zeros(2)
            for start in range(0, len(indices), config.batch_size):
                batch = indices[start : start + config.batch_size]
                params, opt_state, now = step(params, opt_state, trial, as_floats(fit[0][batch]), fit[1][batch])
                running += len(batch) * np.asarray(now, np.float64) / len(indices)
            l2_norm = sum((np.asarray(kernel, np.float64) ** 2).sum() for kernel in kernels(params))
            now = {"kernel_sum_of_squares": l2_norm, "penalty": trial["l2"] / 2 * l2_norm}
            now |= dict(zip(("running_objective", "running_accuracy"), running, strict=True))
            epochs.append(measured("train", params, *fit) | measured("val", params, *held_out) | now)
        test = {} if dataset.test_labels is None else measured("test", params, dataset.test_images, dataset.test_labels)
        return {name: [epoch[name] for epoch in epochs] for name in epochs[0]} | test

    grid = [getattr(config, name) for name in HYPERPARAMETERS] + [range(config.seeds), range(config.folds)]
    trials = [
        one_trial(dict(zip(HYPERPARAMETERS, setting, strict=True)), seed, fold)
        for *setting, seed, fold in product(*grid)
    ]
    kept = [len(values) for n, values in enumerate(grid) if len(values) > 1 or n in (0, len(HYPERPARAMETERS))]
    arrays = {name: np.array([trial[name] for trial in trials]) for name in trials[0]}
    return {name: values.reshape(*kept, *values.shape[1:]) for name, values in arrays.items()}


def assert_equals_plain_loop(results, dataset, model, optimizer=None):
    """Accuracies equal, losses and norms but for rounding.

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
    return images.astype(np.float32) / 255


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the examples of logits (B, classes)."""
    likelihoods = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return -np.log(likelihoods[np.arange(len(labels)), labels]).mean()
