"""Plain Flax: a jitted step in a Python loop, one trial after the other."""

from __future__ import annotations

from typing import Any

import flax_cnn
import jax
import jax.numpy as jnp
import optax
from peer import read_job, serve


def main() -> None:
    job = read_job()
    images, labels = job.load()
    images, labels = jnp.asarray(images, jnp.float32) / 255, jnp.asarray(labels)
    optimizer = optax.adam(job.learning_rate)
    states = [flax_cnn.init(seed, optimizer) for seed in range(len(job.l2))]
    cross_entropy = jax.jit(flax_cnn.cross_entropy)

    def step(state: Any, l2: Any, images: jax.Array, labels: jax.Array, batch: Any) -> Any:
        return flax_cnn.step(state, l2, images[batch], labels[batch], optimizer=optimizer)

    step = jax.jit(step, donate_argnums=0)

    def train(epochs: int) -> None:
        for trial, l2 in enumerate(job.l2):
            for _ in range(epochs):
                for batch in flax_cnn.batches(len(images), job.batch_size):
                    states[trial] = step(states[trial], l2, images, labels, batch)
        jax.block_until_ready(states)

    def losses() -> dict[str, Any]:
        return {"losses": [cross_entropy(params, images, labels).item() for params, _ in states]}

    serve(train=train, losses=losses)


if __name__ == "__main__":
    main()
