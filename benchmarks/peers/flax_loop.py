"""Plain Flax: a jitted step in a Python loop, one trial after the other."""

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
    optimizer = optax.adam(job.learning_rate)
    models = [nnx.split(CNN(rngs=nnx.Rngs(seed)), nnx.Param) for seed in range(len(job.l2))]
    graph = models[0][0]
    states = [(params, optimizer.init(params)) for _, params in models]
    rng = np.random.default_rng()

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, l2, images, labels, batch):
        params, opt_state = state
        gradient = jax.value_and_grad(objective, argnums=1, has_aux=True)
        (_, loss), grads = gradient(graph, params, l2, images[batch], labels[batch])
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    def train() -> dict[str, Any]:
        losses = []
        for trial, l2 in enumerate(job.l2):
            for _ in range(job.epochs):
                batches = rng.permutation(len(images)).reshape(-1, job.batch_size)
                batch_losses = []
                for batch in batches:
                    states[trial], loss = step(states[trial], l2, images, labels, batch)
                    batch_losses.append(loss)
            losses.append(float(jnp.stack(batch_losses).mean()))
        return {"losses": losses}

    return train


if __name__ == "__main__":
    serve(prepare)
