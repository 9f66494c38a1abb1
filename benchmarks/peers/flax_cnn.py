"""Networks in plain Flax, and one step of their training, for the peers that use them."""

from __future__ import annotations

import functools
from collections.abc import Callable
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


class DeeperCNN(nnx.Module):
    """A network for images (B, 32, 32, 3), with Flax's own convolution and pooling or with others."""

    def __init__(self, *, rngs: nnx.Rngs, max_pool: Callable = nnx.max_pool, **conv_options: Any):
        glorot = {"kernel_init": nnx.initializers.glorot_uniform(), "rngs": rngs}
        self.max_pool = max_pool
        self.conv1 = nnx.Conv(3, 32, (3, 3), padding="SAME", **glorot, **conv_options)
        self.conv2 = nnx.Conv(32, 64, (3, 3), padding="SAME", **glorot, **conv_options)
        self.conv3 = nnx.Conv(64, 128, (3, 3), padding="SAME", **glorot, **conv_options)
        self.dense = nnx.Linear(2048, 10, **glorot)

    def __call__(self, x: Array) -> Array:
        for conv in (self.conv1, self.conv2, self.conv3):
            x = self.max_pool(nnx.relu(conv(x)), (2, 2), strides=(2, 2))
        return self.dense(x.reshape(len(x), -1))


Network = Callable[..., nnx.Module]


def init(seed: int | Array, optimizer: optax.GradientTransformation, network: Network = CNN) -> Any:
    params = nnx.state(network(rngs=nnx.Rngs(seed)), nnx.Param)
    return params, optimizer.init(params)


@functools.cache
def graph(network: Network) -> Any:
    return nnx.graphdef(nnx.eval_shape(lambda: network(rngs=nnx.Rngs(0))))


def cross_entropy(params: Any, images: Array, labels: Array, network: Network = CNN) -> Array:
    logits = nnx.merge(graph(network), params)(images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def step(
    state: Any,
    l2: Any,
    images: Array,
    labels: Array,
    *,
    optimizer: optax.GradientTransformation,
    network: Network = CNN,
) -> Any:
    def objective(params: Any) -> Array:
        kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
        return cross_entropy(params, images, labels, network) + l2 / 2 * sum(jnp.sum(kernel**2) for kernel in kernels)

    params, opt_state = state
    updates, opt_state = optimizer.update(jax.grad(objective)(params), opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def batches(num_examples: int, batch_size: int) -> np.ndarray:
    """The examples of an epoch in random order: indices (steps, batch_size)."""
    return np.random.permutation(num_examples).astype(np.int32).reshape(-1, batch_size)
