"""What a GPU can do at most: the rate of a large matrix product in a precision, and of a copy of its memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from peer import read_job, serve

ON_CPU = jax.devices()[0].platform == "cpu"
WIDTH, COPIED, REPETITIONS = (512, 2**20, 1) if ON_CPU else (8192, 2**27, 10)


def seconds(call: Callable[..., jax.Array], *args: jax.Array) -> float:
    """The time of one call, of many that are queued one behind the other."""
    jax.block_until_ready(call(*args))
    start = time.perf_counter()
    jax.block_until_ready([call(*args) for _ in range(REPETITIONS)])
    return (time.perf_counter() - start) / REPETITIONS


def main() -> None:
    variant = read_job().variant
    dtype, precision = (
        jnp.bfloat16 if variant == "bfloat16" else jnp.float32,
        "highest" if variant == "float32" else None,
    )
    a, b = jax.random.normal(jax.random.key(0), (2, WIDTH, WIDTH)).astype(dtype)
    product = jax.jit(lambda a, b: jnp.matmul(a, b, precision=precision))
    copied = jnp.zeros(COPIED, jnp.float32)
    copy = jax.jit(lambda x: x + 1)

    def train(epochs: int) -> dict[str, Any]:
        return {
            "flops_per_second": 2 * WIDTH**3 / seconds(product, a, b),
            "copy_rate": 2 * copied.nbytes / seconds(copy, copied),
        }

    serve(train=train)


if __name__ == "__main__":
    main()
