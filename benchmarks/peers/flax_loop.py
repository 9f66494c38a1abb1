"""Plain Flax: a jitted step in a Python loop, one trial after the other."""

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
    states = [flax_training.init(seed, optimizer, network) for seed in range(len(job.l2))]
    loss = jax.jit(functools.partial(flax_training.loss, network=network))

    def step(state: Any, l2: Any, images: jax.Array, labels: jax.Array, batch: Any) -> Any:
        options = {"optimizer": optimizer, "network": network}
        return flax_training.step(state, l2, images[batch], labels[batch], **options)

    step = jax.jit(step, donate_argnums=0)

    def train(epochs: int) -> None:
        for trial, l2 in enumerate(job.l2):
            for _ in range(epochs):
                for batch in flax_training.batches(len(images), job.batch_size):
                    states[trial] = step(states[trial], l2, images, labels, batch)
        jax.block_until_ready(states)

    def losses() -> dict[str, Any]:
        return {"losses": [loss(state, images, labels).item() for state in states]}

    serve(train=train, losses=losses)


if __name__ == "__main__":
    main()
