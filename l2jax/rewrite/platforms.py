"""The rules for each platform."""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from l2jax.rewrite import gpu, pooling
from l2jax.rewrite.attention import attention
from l2jax.rewrite.convolution import convolution
from l2jax.rewrite.interpreter import Rules
from l2jax.rewrite.lowering import DEFAULT_LOWERING, Lowering
from l2jax.rewrite.max_pool import max_pool, relu_max_pool
from l2jax.rewrite.product import product
from l2jax.rewrite.softmax import softmax


def rules_for(platform: str, lowering: Lowering = DEFAULT_LOWERING) -> Rules:
    """What a platform's devices compute otherwise than XLA would.

    Args:
      platform: "cpu", "gpu" or "tpu".
      lowering: how products are computed.
    """
    is_rounded = lowering.dtype != jnp.float32
    of_rows = functools.partial(_rounded_product, dtype=lowering.dtype)
    if platform == "cpu":
        of_images = functools.partial(_rounded_on_cpu, dtype=lowering.dtype) if is_rounded else convolution
        products = {"conv_general_dilated": of_images, "dot_general": of_rows if is_rounded else product}
        pools = {"reduce_window_max": max_pool, "reduce_window_sum": pooling.sum_pool}
        relu_pools = functools.partial(relu_max_pool, convolution=of_images)
        patterns = {"reduce_window_max": relu_pools, "div": softmax}
        return Rules(pools | products, patterns if is_rounded else patterns | {"dot_general": attention})
    products: dict[str, Any] = {"dot_general": of_rows} if is_rounded else {}
    if platform == "gpu":
        products["conv_general_dilated"] = functools.partial(gpu.convolution, lowering=lowering)
        pattern = functools.partial(gpu.conv_bias_relu_max_pool, lowering=lowering)
        pools = {"reduce_window_max": pooling.max_pool, "reduce_window_sum": pooling.sum_pool}
        return Rules(pools | products, {"reduce_window_max": pattern})
    # A TPU's compiler does best with what it knows: other forms move one and a half to three times the bytes.
    if is_rounded:
        products["conv_general_dilated"] = functools.partial(_rounded_convolution, dtype=lowering.dtype)
    return Rules(products)


def _rounded_product(a: Array, b: Array, *, dimension_numbers: Any, dtype: Any, **_: Any) -> Array:
    return lax.dot_general(a.astype(dtype), b.astype(dtype), dimension_numbers, preferred_element_type=jnp.float32)


def _rounded_convolution(x: Array, kernel: Array, *, dtype: Any, **params: Any) -> Array:
    # Its gradient takes no output of another type than its inputs have.
    params["preferred_element_type"] = None
    return lax.conv_general_dilated(x.astype(dtype), kernel.astype(dtype), **params).astype(x.dtype)


def _rounded_on_cpu(x: Array, kernel: Array, *, dtype: Any, **params: Any) -> Array | None:
    return convolution(x.astype(dtype).astype(x.dtype), kernel.astype(dtype).astype(kernel.dtype), **params)


CPU = rules_for("cpu")
