"""Drop-in convolution and pooling that stay fast when every trial has its own kernel.

XLA turns a convolution that is vmapped over its kernel into a grouped convolution, which it runs as a loop over groups
on CPU and often slowly on GPU; inside a `scan` it does not optimise convolutions on CPU at all; and the gradient of
`reduce_window` is a scatter. Here a convolution is slices and one matrix product, max-pooling a maximum of slices:

    nnx.Conv(..., conv_general_dilated=l2jax.ops.conv_general_dilated)
    l2jax.ops.max_pool(x, (2, 2), strides=(2, 2))

What they do not support is an error, never a slow way round. For the block that `l2jax.CNN` is made of there is a
faster operation: `l2jax.fused.conv_relu_max_pool`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

Padding = str | Sequence[tuple[int, int]]


def conv_general_dilated(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: Padding,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: lax.ConvDimensionNumbers | None = None,
    feature_group_count: int = 1,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    out_sharding: object = None,
) -> Array:
    """`lax.conv_general_dilated` for images, as `nnx.Conv` calls it: each output is a row of one matrix product.

    Args:
      lhs: images (B, H, W, C).
      rhs: kernel (KH, KW, C, O).
      window_strides: (rows, columns).
      padding: "SAME", "VALID", or ((top, bottom), (left, right)).
      dimension_numbers: as `nnx.Conv` gives them: ("NHWC", "HWIO", "NHWC").

    Returns:
      (B, OH, OW, O).

    Raises:
      NotImplementedError: for dilation, feature groups, other layouts or ranks, or an output sharding.
    """
    if lhs.ndim != 4 or rhs.ndim != 4:
        raise NotImplementedError(f"l2jax.ops convolves images (B, H, W, C), not arrays of rank {lhs.ndim}")
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers or ("NHWC", "HWIO", "NHWC"))
    if numbers != lax.conv_dimension_numbers(lhs.shape, rhs.shape, ("NHWC", "HWIO", "NHWC")):
        raise NotImplementedError("l2jax.ops convolves with dimension numbers ('NHWC', 'HWIO', 'NHWC') only")
    if any(d != 1 for d in (*(lhs_dilation or ()), *(rhs_dilation or ()))):
        raise NotImplementedError(f"l2jax.ops convolves without dilation, not with {lhs_dilation} and {rhs_dilation}")
    if feature_group_count != 1 or rhs.shape[2] != lhs.shape[3]:
        raise NotImplementedError(f"l2jax.ops convolves all {lhs.shape[3]} channels with all, not in feature groups")
    if out_sharding is not None:
        raise NotImplementedError("l2jax.ops has no out_sharding")
    # Padding a copy is one pass; slices of an expression that pads would each test where they are.
    padded = jnp.pad(lhs, _pads(lhs, rhs.shape[:2], window_strides, padding))
    return _conv(padded, rhs, tuple(window_strides), precision, preferred_element_type)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv(x, kernel, strides, precision, dtype):
    return _conv_fwd(x, kernel, strides, precision, dtype)[0]


def _conv_fwd(x, kernel, strides, precision, dtype):
    matrix, columns = kernel.reshape(-1, kernel.shape[-1]), _columns(x, kernel, strides)
    out = jnp.tensordot(columns, matrix, 1, precision=precision, preferred_element_type=dtype)
    return out, (x, kernel)


def _conv_bwd(strides, precision, dtype, saved, d_out):
    x, kernel = saved
    dot = functools.partial(jnp.tensordot, precision=precision, preferred_element_type=dtype)
    # The columns to the right: the other way round, this product takes up to twice as long on CPU.
    d_matrix = dot(d_out, _columns(x, kernel, strides), ((0, 1, 2), (0, 1, 2)))
    d_kernel = jnp.moveaxis(d_matrix.reshape(-1, *kernel.shape[:3]), 0, -1)
    d_columns = dot(d_out, kernel.reshape(-1, kernel.shape[-1]), (3, 1))
    d_taps = jnp.split(d_columns, kernel.shape[0] * kernel.shape[1], axis=-1)
    return _add_taps(d_taps, x.shape, kernel.shape[:2], strides).astype(x.dtype), d_kernel.astype(kernel.dtype)


_conv.defvjp(_conv_fwd, _conv_bwd)


def _columns(x, kernel, strides):
    """What each output multiplies with the kernel: (B, OH, OW, KH * KW * C)."""
    return jnp.concatenate(_taps(x, kernel.shape[:2], strides), axis=-1)


def max_pool(
    inputs: Array, window_shape: Sequence[int], strides: Sequence[int] | None = None, padding: Padding = "VALID"
) -> Array:
    """`nnx.max_pool` for images: the gradient goes to the first maximum of a window, row by row.

    Args:
      inputs: (B, H, W, C), floating point.
      window_shape: (rows, columns).
      strides: (rows, columns); None is (1, 1), as in `nnx.max_pool`.
      padding: "SAME", "VALID", or ((top, bottom), (left, right)); padding is never the maximum.

    Returns:
      (B, OH, OW, C).

    Raises:
      NotImplementedError: for another rank.
    """
    strides = tuple(strides or (1, 1))
    if inputs.ndim != 4 or len(window_shape) != 2 or len(strides) != 2:
        raise NotImplementedError(f"l2jax.ops pools rows and columns of (B, H, W, C), not of rank {inputs.ndim}")
    pads = _pads(inputs, window_shape, strides, padding)
    padded = jnp.pad(inputs, pads, constant_values=-jnp.inf) if any(map(any, pads)) else inputs
    return _max_pool(padded, tuple(window_shape), strides)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _max_pool(x, window, strides):
    return functools.reduce(jnp.maximum, _taps(x, window, strides))


def _max_pool_fwd(x, window, strides):
    taps = _taps(x, window, strides)
    top = functools.reduce(jnp.maximum, taps)
    first = len(taps) - 1
    for n in reversed(range(first)):
        first = jnp.where(taps[n] == top, n, first)
    return top, (jnp.asarray(first, jnp.int32), x)


def _max_pool_bwd(window, strides, saved, d_top):
    first, x = saved
    d_taps = [jnp.where(first == n, d_top, 0) for n in range(window[0] * window[1])]
    return (_add_taps(d_taps, x.shape, window, strides),)


_max_pool.defvjp(_max_pool_fwd, _max_pool_bwd)


def _taps(x, window, strides):
    """What windows of x (B, H, W, C) hold at each of their positions: arrays (B, OH, OW, C)."""
    rows, cols = ((size - w) // s + 1 for size, w, s in zip(x.shape[1:3], window, strides, strict=True))
    return [
        x[:, i : i + (rows - 1) * strides[0] + 1 : strides[0], j : j + (cols - 1) * strides[1] + 1 : strides[1]]
        for i, j in itertools.product(range(window[0]), range(window[1]))
    ]


def _add_taps(d_taps, x_shape, window, strides):
    """The transpose of `_taps`: adds each value up where it was copied from.

    A position in the windows sees every stride-th row and column of x. Where these are dealt out to planes, one for
    each pair of remainders, it sees one of the planes, without gaps.
    """
    (batch, height, width, channels), (rows, cols) = x_shape, d_taps[0].shape[1:3]
    plane = jnp.zeros((batch, -(-height // strides[0]), -(-width // strides[1]), channels), d_taps[0].dtype)
    planes = [[plane] * strides[1] for _ in range(strides[0])]
    for (i, j), d_tap in zip(itertools.product(*map(range, window)), d_taps, strict=True):
        (u, p), (v, q) = divmod(i, strides[0]), divmod(j, strides[1])
        planes[p][q] = planes[p][q].at[:, u : u + rows, v : v + cols].add(d_tap)
    of_rows = [jnp.stack(one, axis=3).reshape(batch, plane.shape[1], -1, channels) for one in planes]
    return jnp.stack(of_rows, axis=2).reshape(batch, -1, of_rows[0].shape[2], channels)[:, :height, :width]


def _pads(x, window, strides, padding):
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], window, strides, padding)
    return [(0, 0), *padding, (0, 0)]
