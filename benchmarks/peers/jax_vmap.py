"""JAX as tutorials write it: plain Flax, `vmap` over trials, `lax.scan` over the steps of an epoch."""

from __future__ import annotations

import functools
from typing import Any

import flax_training
import jax
import jax.numpy as jnp
import optax
from flax_networks import NETWORKS
from peer import read_job, serve


def main() -> None:
    job = read_job()
    images, labels = job.load()
    images, labels = jnp.asarray(images, jnp.float32) / 255, jnp.asarray(labels)
    optimizer = optax.adam(job.learning_rate)
    network = NETWORKS[job.network]
    init = jax.vmap(lambda key: flax_training.init(key, optimizer, network))
    state = init(jax.random.split(jax.random.key(0), len(job.l2)))
    l2 = jnp.asarray(job.l2)
    loss = functools.partial(flax_training.loss, network=network)
    # One trial at a time: the activations of all on all images would not fit a GPU.
    losses_of_all = jax.jit(lambda state, *data: jax.lax.map(lambda trial: loss(trial, *data), state))

    def epoch(state: Any, images: jax.Array, labels: jax.Array, batches: Any) -> Any:
        def step(state: Any, batch: jax.Array) -> tuple[Any, None]:
            def one_trial(state: Any, l2: jax.Array) -> Any:
                options = {"optimizer": optimizer, "network": network}
                return flax_training.step(state, l2, images[batch], labels[batch], **options)

            return jax.vmap(one_trial)(state, l2), None

        return jax.lax.scan(step, state, batches)[0]

    epoch = jax.jit(epoch, donate_argnums=0)

    def train(epochs: int) -> None:
        nonlocal state
        for _ in range(epochs):
            state = epoch(state, images, labels, flax_training.batches(len(images), job.batch_size))
        jax.block_until_ready(state)

    def losses() -> dict[str, Any]:
        return {"losses": losses_of_all(state, images, labels).tolist()}

    serve(train=train, losses=losses)


if __name__ == "__main__":
    main()
