"""The CNN and its objective in plain Flax, for the peers that use it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from flax import nnx


class CNN(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        glorot = nnx.initializers.glorot_uniform()
        self.conv1 = nnx.Conv(1, 32, (3, 3), padding="VALID", kernel_init=glorot, rngs=rngs)
        self.conv2 = nnx.Conv(32, 64, (3, 3), padding="VALID", kernel_init=glorot, rngs=rngs)
        self.dense = nnx.Linear(1600, 10, kernel_init=glorot, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.max_pool(nnx.relu(self.conv1(x)), (2, 2), strides=(2, 2))
        x = nnx.max_pool(nnx.relu(self.conv2(x)), (2, 2), strides=(2, 2))
        return self.dense(x.reshape(len(x), -1))


def objective(graph, params, l2, images, labels):
    """Cross-entropy + l2 / 2 * ||kernels||^2, and the cross-entropy alone."""
    logits = nnx.merge(graph, params)(images)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
    return loss + l2 / 2 * sum(jnp.sum(kernel**2) for kernel in kernels), loss
