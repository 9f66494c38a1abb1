"""The machine's peak: the rate at which the fastest installed library multiplies matrices, on all cores."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from peer import serve

REPETITIONS = {1024: 16, 2048: 4}
"""Repetitions of a product, by the width of its matrices; both take about as long."""


def products(size: int) -> list[Callable[[], Any]]:
    """The product of two square float32 matrices, by each library; JAX first, whose threads do not stay awake."""
    a, b = np.random.default_rng(0).normal(size=(2, size, size)).astype(np.float32)
    on_device = jax.device_put((a, b))
    by_jax = jax.jit(lambda a, b: a @ b)
    calls: list[Callable[[], Any]] = [lambda: by_jax(*on_device).block_until_ready(), lambda: a @ b]
    if importlib.util.find_spec("torch"):
        import torch

        tensors = torch.from_numpy(a), torch.from_numpy(b)
        calls.append(lambda: tensors[0] @ tensors[1])
    return calls


def main() -> None:
    # Each library by itself: for a while after a product, the threads of some wait busily for the next one.
    by_library = zip(*map(products, REPETITIONS), strict=True)
    calls = [
        (size, product)
        for library in by_library
        for size, product in zip(REPETITIONS, library, strict=True)
        for _ in range(REPETITIONS[size])
    ]

    def train(epochs: int) -> dict[str, Any]:
        rates = []
        for size, product in calls * epochs:
            start = time.perf_counter()
            product()
            rates.append(2 * size**3 / (time.perf_counter() - start))
        return {"flops_per_second": max(rates)}

    serve(train=train)


if __name__ == "__main__":
    main()
