"""One trial of any Flax module, trained as Flax' documentation does it: `nnx.Optimizer`, `nnx.jit`, a loop."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

from helpers import plain
from l2jax.config import SweepConfig
from l2jax.data.dataset import Dataset


def penalised(module: nnx.Module, l2: float) -> jax.Array:
    """(l2 / 2) * sum(kernel**2)."""
    parameters = nnx.to_flat_state(nnx.state(module, nnx.Param))
    kernels = (kernel[...] for path, kernel in parameters if path[-1] == "kernel")
    return l2 / 2 * sum((jnp.sum(kernel**2) for kernel in kernels), start=jnp.float32(0))


def losses(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), labels)


def train_nnx(*args, **options) -> dict[str, list[float]]:
    """Losses and accuracies after each epoch of one trial."""
    return fit_nnx(*args, **options)[0]


def fit_nnx(
    model, optimizer_fn, dataset: Dataset, config: SweepConfig, l2: float, seed: int, fold: int = 0, penalty=None
) -> tuple[dict[str, list[float]], nnx.Module]:
    """The curves of one trial, and its trained module in eval mode; `penalty` is a function of the module for L2."""
    penalty = penalty or functools.partial(penalised, l2=l2)
    module = model(rngs=nnx.Rngs(jax.random.fold_in(jax.random.key(seed), 0)))
    optimizer = nnx.Optimizer(module, optimizer_fn(config.learning_rate[0]), wrt=nnx.Param)

    @nnx.jit
    def step(module, optimizer, images, labels):
        def objective(module):
            return losses(module(images), labels).mean() + penalty(module)

        optimizer.update(module, nnx.grad(objective)(module))

    @nnx.jit
    def predict(module, images):
        return module(images)

    train, val = plain.training_and_validation_part(dataset, config, seed, fold)
    curves: dict[str, list[float]] = {}
    for epoch in range(1, config.epochs + 1):
        module.train()
        order = plain.order(seed, epoch, len(train[1]))
        for start in range(0, len(order), config.batch_size):
            batch = order[start : start + config.batch_size]
            step(module, optimizer, plain.as_floats(train[0][batch]), train[1][batch])
        module.eval()
        add_metrics(curves, "train", predict(module, plain.as_floats(train[0])), train[1])
        add_metrics(curves, "val", predict(module, plain.as_floats(val[0])), val[1])
    return curves, module


def train_linen(*args) -> dict[str, list[float]]:
    """Losses and accuracies after each epoch of one trial of a Linen module."""
    return fit_linen(*args)[0]


def fit_linen(module: linen.Module, dataset: Dataset, config: SweepConfig, l2: float, seed: int):
    """The curves and the variables of a Linen module with a `train` argument, `batch_stats` and a `dropout` stream."""
    key = jax.random.fold_in(jax.random.key(seed), 0)
    variables = module.init(key, jnp.zeros((1, *dataset.images.shape[1:])), train=False)
    params, stats = variables["params"], variables["batch_stats"]
    optimizer = optax.adam(config.learning_rate[0])
    opt_state = optimizer.init(params)

    @jax.jit
    def step(params, stats, opt_state, images, labels, dropout_key):
        def objective(params):
            variables = {"params": params, "batch_stats": stats}
            options = {"train": True, "mutable": ["batch_stats"], "rngs": {"dropout": dropout_key}}
            logits, updates = module.apply(variables, images, **options)
            kernels = [leaf for path, leaf in jax.tree.leaves_with_path(params) if path[-1].key == "kernel"]
            penalty = l2 / 2 * sum(jnp.sum(kernel**2) for kernel in kernels)
            return losses(logits, labels).mean() + penalty, updates["batch_stats"]

        grads, stats_after = jax.grad(objective, has_aux=True)(params)
        updates, opt_state_after = optimizer.update(grads, opt_state)
        return optax.apply_updates(params, updates), stats_after, opt_state_after

    train, val = plain.training_and_validation_part(dataset, config, seed, 0)
    curves: dict[str, list[float]] = {}
    variables = {}
    steps = 0
    for epoch in range(1, config.epochs + 1):
        order = plain.order(seed, epoch, len(train[1]))
        for start in range(0, len(order), config.batch_size):
            batch = order[start : start + config.batch_size]
            dropout_key = jax.random.fold_in(jax.random.fold_in(key, 1), steps)
            images, labels = plain.as_floats(train[0][batch]), train[1][batch]
            params, stats, opt_state = step(params, stats, opt_state, images, labels, dropout_key)
            steps += 1
        variables = {"params": params, "batch_stats": stats}
        for part, (images, labels) in (("train", train), ("val", val)):
            add_metrics(curves, part, module.apply(variables, plain.as_floats(images), train=False), labels)
    return curves, variables


def add_metrics(curves: dict[str, list[float]], part: str, logits: jax.Array, labels: np.ndarray) -> None:
    exact = np.asarray(logits.astype(jnp.float32), np.float64)
    curves.setdefault(f"{part}_loss", []).append(plain.cross_entropy(exact, labels))
    curves.setdefault(f"{part}_accuracy", []).append((exact.argmax(1) == labels).mean())
