"""One step of training in plain Flax, for the peers that use it."""

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

Network = Callable[..., nnx.Module]
State = tuple[Any, Any, Any]  # parameters, what else the network carries, the optimizer's state


def init(seed: int | Array, optimizer: optax.GradientTransformation, network: Network) -> State:
    _, params, rest = nnx.split(network(rngs=nnx.Rngs(seed)), nnx.Param, ...)
    return params, rest, optimizer.init(params)


@functools.cache
def graph(network: Network) -> Any:
    return nnx.graphdef(nnx.eval_shape(lambda: network(rngs=nnx.Rngs(0))))


def cross_entropy(params: Any, rest: Any, images: Array, labels: Array, network: Network) -> tuple[Array, Any]:
    model = nnx.merge(graph(network), params, rest, copy=True)
    loss = optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()
    return loss, nnx.split(model, nnx.Param, ...)[2]


def step(
    state: State,
    l2: Any,
    images: Array,
    labels: Array,
    *,
    optimizer: optax.GradientTransformation,
    network: Network,
) -> State:
    def objective(params: Any) -> tuple[Array, Any]:
        loss, after = cross_entropy(params, rest, images, labels, network)
        kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
        return loss + l2 / 2 * sum(jnp.sum(kernel**2) for kernel in kernels), after

    params, rest, opt_state = state
    grads, after = jax.grad(objective, has_aux=True)(params)
    updates, opt_state = optimizer.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), after, opt_state


def loss(state: State, images: Array, labels: Array, network: Network) -> Array:
    return cross_entropy(*state[:2], images, labels, network)[0]


def batches(num_examples: int, batch_size: int) -> np.ndarray:
    """The examples of an epoch in random order: indices (steps, batch_size)."""
    return np.random.permutation(num_examples).astype(np.int32).reshape(-1, batch_size)
