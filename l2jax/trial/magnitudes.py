"""A histogram of how large the values of a kernel are. L2 moves it to the left."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

from l2jax.results.metrics import MAGNITUDE_EDGES


def count_magnitudes(kernel: Array) -> Array:
    """Counts the absolute values of a kernel of any shape by the bins of `MAGNITUDE_EDGES`: (bins,), float32."""
    magnitudes = jnp.abs(kernel).reshape(-1, 1)
    below = (magnitudes < MAGNITUDE_EDGES[None, 1:-1].astype(np.float32)).sum(0, dtype=jnp.float32)
    return jnp.diff(below, prepend=0.0, append=float(kernel.size))
