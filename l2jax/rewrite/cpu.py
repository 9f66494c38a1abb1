"""The rules for CPU."""

from __future__ import annotations

from l2jax.rewrite.convolution import convolution
from l2jax.rewrite.interpreter import Rules
from l2jax.rewrite.pooling import max_pool, sum_pool

CPU = Rules(
    {
        "conv_general_dilated": convolution,
        "reduce_window_max": max_pool,
        "reduce_window_sum": sum_pool,
    }
)
