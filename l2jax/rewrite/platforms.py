"""The rules for each platform."""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from l2jax.rewrite import gpu
from l2jax.rewrite.convolution import convolution
from l2jax.rewrite.fused import DEFAULT_LOWERING, Lowering
from l2jax.rewrite.interpreter import Rules
from l2jax.rewrite.patterns import conv_bias_relu_max_pool
from l2jax.rewrite.pooling import max_pool, sum_pool
from l2jax.rewrite.product import product
from l2jax.rewrite.softmax import softmax


def rules_for(platform: str, lowering: Lowering = DEFAULT_LOWERING) -> Rules:
    """What a platform's devices compute otherwise than XLA would.

    Args:
      platform: "cpu", "gpu" or "tpu".
      lowering: how the products of the fused operation are computed; their type is that of dense layers, too.
    """
    primitives: dict[str, Any] = {"reduce_window_max": max_pool, "reduce_window_sum": sum_pool}
    patterns: dict[str, Any] = {}
    if platform == "cpu":
        primitives |= {"conv_general_dilated": convolution, "dot_general": product}
        patterns = {"reduce_window_max": functools.partial(conv_bias_relu_max_pool, lowering=lowering), "div": softmax}
    elif platform == "gpu":
        primitives |= {"conv_general_dilated": functools.partial(gpu.convolution, lowering=lowering)}
        patterns = {"reduce_window_max": functools.partial(gpu.conv_bias_relu_max_pool, lowering=lowering)}
    else:  # A TPU's compiler does best with what it knows: other forms move one and a half to three times the bytes.
        primitives = {}
    if lowering.dtype != jnp.float32:
        primitives.setdefault("conv_general_dilated", functools.partial(_rounded_convolution, dtype=lowering.dtype))
        primitives["dot_general"] = functools.partial(_rounded_product, dtype=lowering.dtype)
    return Rules(primitives, patterns)


def _rounded_product(a: Array, b: Array, *, dimension_numbers: Any, dtype: Any, **_: Any) -> Array:
    return lax.dot_general(a.astype(dtype), b.astype(dtype), dimension_numbers, preferred_element_type=jnp.float32)


def _rounded_convolution(x: Array, kernel: Array, *, dtype: Any, **params: Any) -> Array:
    # Its gradient takes no output of another type than its inputs have.
    params["preferred_element_type"] = None
    return lax.conv_general_dilated(x.astype(dtype), kernel.astype(dtype), **params).astype(x.dtype)


CPU = rules_for("cpu")
