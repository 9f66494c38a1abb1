"""One trial as everybody writes it: plain Flax layers, a Python loop over batches. What sweeps are compared with."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from l2jax.config import SweepConfig
from l2jax.data import Dataset, split


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


def network(model: Callable[[nnx.Rngs], nnx.Module], seed: int) -> nnx.Module:
    """The network that a trial of this seed starts with."""
    return model(nnx.Rngs(jax.random.fold_in(jax.random.key(seed), 0)))


def order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    """The order in which a trial of this seed sees its examples in this epoch."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1), epoch)
    return np.argsort(np.asarray(jax.random.uniform(key, (num_examples,))))


def sweep(
    model: Callable[[nnx.Rngs], nnx.Module],
    dataset: Dataset,
    config: SweepConfig,
    optimizer: Callable[[float], optax.GradientTransformation] = optax.adam,
) -> dict[str, np.ndarray]:
    """Trains one trial after the other; returns metrics (l2, seed, epoch), those of the test part (l2, seed)."""
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: model(nnx.Rngs(0))))
    tx = optimizer(config.learning_rate)

    def objective(params, l2, images, labels):
        log_probabilities = jax.nn.log_softmax(nnx.merge(graphdef, params)(images))
        loss = -log_probabilities[jnp.arange(len(labels)), labels].mean()
        return loss + l2 / 2 * sum((kernel**2).sum() for kernel in kernels(params))

    @jax.jit
    def step(params, opt_state, l2, images, labels):
        updates, opt_state = tx.update(jax.grad(objective)(params, l2, images, labels), opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def measured(part, params, images, labels):
        logits = np.asarray(nnx.merge(graphdef, params)(as_floats(images)), np.float64)
        return {f"{part}_loss": cross_entropy(logits, labels), f"{part}_accuracy": (logits.argmax(1) == labels).mean()}

    def one_trial(l2, seed):
        params = nnx.state(network(model, seed))
        opt_state = tx.init(params)
        fit, held_out = (
            (dataset.images[indices], dataset.labels[indices])
            for indices in split(dataset.labels, seed, config.train_size, config.val_size)
        )
        epochs = []
        for epoch in range(1, config.epochs + 1):
            indices = order(seed, epoch, len(fit[1]))
            for start in range(0, len(indices), config.batch_size):
                batch = indices[start : start + config.batch_size]
                params, opt_state = step(params, opt_state, l2, as_floats(fit[0][batch]), fit[1][batch])
            l2_norm = sum((np.asarray(kernel, np.float64) ** 2).sum() for kernel in kernels(params))
            norms = {"l2_norm": l2_norm, "penalty": l2 / 2 * l2_norm}
            epochs.append(measured("train", params, *fit) | measured("val", params, *held_out) | norms)
        test = {} if dataset.test_labels is None else measured("test", params, dataset.test_images, dataset.test_labels)
        return {name: [epoch[name] for epoch in epochs] for name in epochs[0]} | test

    trials = [[one_trial(l2, seed) for seed in range(config.seeds)] for l2 in config.l2]
    return {name: np.array([[trial[name] for trial in seeds] for seeds in trials]) for name in trials[0][0]}


def kernels(params: nnx.State) -> list[jax.Array]:
    return [param[...] for path, param in nnx.to_flat_state(params) if path[-1] == "kernel"]


def as_floats(images: np.ndarray) -> np.ndarray:
    return images.astype(np.float32) / 255


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the examples of logits (B, classes)."""
    likelihoods = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return -np.log(likelihoods[np.arange(len(labels)), labels]).mean()
