"""The rules for GPUs: images are convolved as one matrix product per trial, and pooled with their ReLU and bias.

XLA makes one grouped convolution of all trials, with a group each, whose gradients cuDNN computes one group after the
other: 8 ms a step of 100 trials of the built-in network on an H100 in float32, 1.2 ms as here (2026-11-26).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import JaxprEqn

from l2jax.native.axes import Pair
from l2jax.rewrite.blocks import convolve_blocks, convolve_columns, multiply_add_pool, pooled_blocks, unblocked
from l2jax.rewrite.interpreter import Made
from l2jax.rewrite.lowering import Lowering
from l2jax.rewrite.patterns import IMAGES, match
from l2jax.rewrite.windows import pad


def conv_bias_relu_max_pool(pooling: JaxprEqn, made: Made, *, lowering: Lowering) -> Array | None:
    """The pattern that ends with `reduce_window_max`; None where something else comes before it."""
    size = tuple(n // 2 for n in made.value(pooling.invars[0]).shape[1:3])
    return _pooled(pooling, made, size, lowering)


def _pooled(pooling: JaxprEqn, made: Made, size: tuple[int, ...], lowering: Lowering) -> Array | None:
    """The first rows and columns of the output, as many as `size` says: (B, h, w, O)."""
    matched = match(pooling, made)
    if matched is None:
        return None
    rows, cols = matched.inputs(size)
    x_BHWC = None
    if matched.before and not any(map(any, matched.padding)):
        x_BHWC = _pooled(matched.before, made, (rows, cols), lowering)
    if x_BHWC is None:
        x_BHWC = pad(matched.x_BHWC, matched.padding)[:, :rows, :cols]
    if matched.kernel_KKCO[..., 0].size <= lowering.few_products:
        # Kept: otherwise images would be looked up and scaled again wherever a window reads them.
        x_BHWC = lax.optimization_barrier(x_BHWC)
        return multiply_add_pool(x_BHWC, matched.kernel_KKCO, matched.bias_O, lowering.dtype, matched.precision)
    out = convolve_blocks(x_BHWC, matched.kernel_KKCO, lowering.dtype, matched.precision)
    return pooled_blocks(out, matched.bias_O)


def convolution(
    x_BHWC: Array,
    kernel_KKCO: Array,
    *,
    window_strides: Sequence[int],
    padding: Sequence[Pair],
    lhs_dilation: Sequence[int],
    rhs_dilation: Sequence[int],
    dimension_numbers: lax.ConvDimensionNumbers,
    feature_group_count: int,
    batch_group_count: int,
    precision: Any,
    preferred_element_type: Any,
    lowering: Lowering,
    **_: Any,
) -> Array | None:
    """The rule for `conv_general_dilated` of images; None for what is left to XLA."""
    if (
        dimension_numbers != IMAGES
        or max(*lhs_dilation, *rhs_dilation, feature_group_count, batch_group_count) > 1
        or any(a.dtype not in (jnp.float32, jnp.bfloat16) for a in (x_BHWC, kernel_KKCO))
        or 0 in (*x_BHWC.shape, *kernel_KKCO.shape)
    ):
        return None
    padded_BHWC = pad(x_BHWC, tuple(map(tuple, padding)))
    sizes = zip(padded_BHWC.shape[1:3], kernel_KKCO.shape[:2], window_strides, strict=True)
    rows, cols = ((size - k) // stride + 1 for size, k, stride in sizes)
    dtype = lowering.dtype if x_BHWC.dtype == jnp.float32 else x_BHWC.dtype
    if max(window_strides) == 1 and min(kernel_KKCO.shape[:2]) > 2 and min(rows, cols) > 1:
        # Blocks that jut out over an odd last row or column are cut off.
        covered = pad(padded_BHWC, ((0, rows % 2), (0, cols % 2)))
        out_BhwO = unblocked(convolve_blocks(covered, kernel_KKCO, dtype, precision))[:, :rows, :cols]
    elif min(rows, cols) > 0:
        out_BhwO = convolve_columns(padded_BHWC, kernel_KKCO, tuple(window_strides), dtype, precision)
    else:
        return None
    return out_BhwO.astype(preferred_element_type or x_BHWC.dtype)
