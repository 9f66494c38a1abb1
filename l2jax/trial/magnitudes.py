"""How large the values of a kernel are: a histogram over powers of ten, in which L2 moves them to the left."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

EDGES = np.logspace(-7, 1, 33)
"""Of the bins, four a factor of ten; the outermost bins also hold what lies beyond them."""
MIDDLES = np.sqrt(EDGES[:-1] * EDGES[1:])


def count_magnitudes(kernel: Array) -> Array:
    """How many values of a kernel, of any shape, fall into each bin by their magnitude: (bins,), float32."""
    magnitudes = jnp.abs(kernel).reshape(-1, 1)
    below = (magnitudes < EDGES[None, 1:-1].astype(np.float32)).sum(0, dtype=jnp.float32)
    return jnp.diff(below, prepend=0.0, append=float(kernel.size))
