"""The CNN in plain Flax, and one step of its training, for the peers that use it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array


class CNN(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        glorot = nnx.initializers.glorot_uniform()
        self.conv1 = nnx.Conv(1, 32, (3, 3), padding="VALID", kernel_init=glorot, rngs=rngs)
        self.conv2 = nnx.Conv(32, 64, (3, 3), padding="VALID", kernel_init=glorot, rngs=rngs)
        self.dense = nnx.Linear(1600, 10, kernel_init=glorot, rngs=rngs)

    def __call__(self, images: Array) -> Array:
        x = nnx.max_pool(nnx.relu(self.conv1(images)), (2, 2), strides=(2, 2))
        x = nnx.max_pool(nnx.relu(self.conv2(x)), (2, 2), strides=(2, 2))
        return self.dense(x.reshape(len(x), -1))


GRAPH = nnx.graphdef(nnx.eval_shape(lambda: CNN(rngs=nnx.Rngs(0))))


def init(seed: int | Array, optimizer: optax.GradientTransformation) -> Any:
    params = nnx.state(CNN(rngs=nnx.Rngs(seed)), nnx.Param)
    return params, optimizer.init(params)


def cross_entropy(params: Any, images: Array, labels: Array) -> Array:
    logits = nnx.merge(GRAPH, params)(images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def step(state: Any, l2: Any, images: Array, labels: Array, optimizer: optax.GradientTransformation) -> Any:
    def objective(params: Any) -> Array:
        kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
        return cross_entropy(params, images, labels) + l2 / 2 * sum(jnp.sum(kernel**2) for kernel in kernels)

    params, opt_state = state
    updates, opt_state = optimizer.update(jax.grad(objective)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def batches(num_examples: int, batch_size: int) -> np.ndarray:
    """An epoch's examples in random order, a row a step."""
    return np.random.permutation(num_examples).astype(np.int32).reshape(-1, batch_size)
