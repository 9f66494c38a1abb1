"""JAX as tutorials write it: plain Flax, `vmap` over trials, `lax.scan` over steps, one jitted call an epoch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from flax_cnn import CNN, objective
from peer import Job, serve


def prepare(job: Job) -> Callable[[], dict[str, Any]]:
    images = jnp.asarray(job.images, jnp.float32) / 255
    labels = jnp.asarray(job.labels)
    l2 = jnp.asarray(job.l2)
    optimizer = optax.adam(job.learning_rate)
    graph = nnx.graphdef(CNN(rngs=nnx.Rngs(0)))
    rng = np.random.default_rng()

    @jax.vmap
    def init(key):
        params = nnx.state(CNN(rngs=nnx.Rngs(key)), nnx.Param)
        return params, optimizer.init(params)

    @functools.partial(jax.vmap, in_axes=(0, 0, None, None))
    def train_trial(state, l2, images, labels):
        params, opt_state = state
        gradient = jax.value_and_grad(objective, argnums=1, has_aux=True)
        (_, loss), grads = gradient(graph, params, l2, images, labels)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    @functools.partial(jax.jit, donate_argnums=0)
    def train_epoch(state, batches):
        def step(state, batch):
            return train_trial(state, l2, images[batch], labels[batch])

        state, losses = jax.lax.scan(step, state, batches)
        return state, losses.mean(axis=0)

    state = init(jax.random.split(jax.random.key(0), len(job.l2)))

    def train() -> dict[str, Any]:
        nonlocal state
        for _ in range(job.epochs):
            batches = rng.permutation(len(images)).reshape(-1, job.batch_size)
            state, losses = train_epoch(state, batches)
        return {"losses": losses.tolist()}

    return train


if __name__ == "__main__":
    serve(prepare)
