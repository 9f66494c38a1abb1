"""Drop-in convolution and pooling that stay fast when every trial has its own kernel.

XLA turns a convolution that is vmapped over its kernel into a grouped convolution, which it runs as a loop over groups
on CPU and often slowly on GPU; inside a `scan` it does not optimise convolutions on CPU at all; and the gradient of
`reduce_window` is a scatter. Here a convolution is slices and one matrix product, max-pooling a maximum of slices:

    nnx.Conv(..., conv_general_dilated=l2jax.ops.conv_general_dilated)
    l2jax.ops.max_pool(x, (2, 2), strides=(2, 2))

What they do not support is an error, never a slow way round. For the block that `l2jax.CNN` is made of there is a
faster operation: `l2jax.network.fused.conv_relu_max_pool`.

Names carry shapes: B images, H and W their rows and columns, C input and O output channels, h and w rows and columns of
the output, K and K those of the kernel, N = K * K * C products per output.
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
Shape = Sequence[int]


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
    # A padded copy takes one pass; otherwise each slice tests at every position whether it lies in the padding.
    padded = jnp.pad(lhs, _pads(lhs, rhs.shape[:2], window_strides, padding))
    return _conv(padded, rhs, tuple(window_strides), precision, preferred_element_type)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv(
    x_BHWC: Array, kernel_KKCO: Array, strides: Shape, precision: lax.PrecisionLike, dtype: DTypeLike | None
) -> Array:
    return _conv_fwd(x_BHWC, kernel_KKCO, strides, precision, dtype)[0]


def _conv_fwd(
    x_BHWC: Array, kernel_KKCO: Array, strides: Shape, precision: lax.PrecisionLike, dtype: DTypeLike | None
) -> tuple[Array, tuple[Array, Array]]:
    kernel_NO = kernel_KKCO.reshape(-1, kernel_KKCO.shape[-1])
    columns_BhwN = _columns(x_BHWC, kernel_KKCO.shape, strides)
    out_BhwO = jnp.tensordot(columns_BhwN, kernel_NO, 1, precision=precision, preferred_element_type=dtype)
    return out_BhwO, (x_BHWC, kernel_KKCO)


def _conv_bwd(
    strides: Shape, precision: lax.PrecisionLike, dtype: DTypeLike | None, saved: tuple[Array, Array], d_out_BhwO: Array
) -> tuple[Array, Array]:
    x_BHWC, kernel_KKCO = saved
    kernel_shape = kernel_KKCO.shape
    dot = functools.partial(jnp.tensordot, precision=precision, preferred_element_type=dtype)
    # The columns to the right: the other way round, this product takes up to twice as long on CPU.
    d_kernel_ON = dot(d_out_BhwO, _columns(x_BHWC, kernel_shape, strides), ((0, 1, 2), (0, 1, 2)))
    d_kernel_KKCO = jnp.moveaxis(d_kernel_ON.reshape(-1, *kernel_shape[:3]), 0, -1)
    d_columns_BhwN = dot(d_out_BhwO, kernel_KKCO.reshape(-1, kernel_shape[-1]), (3, 1))
    d_taps_BhwC = jnp.split(d_columns_BhwN, kernel_shape[0] * kernel_shape[1], axis=-1)
    d_x_BHWC = _add_taps(d_taps_BhwC, x_BHWC.shape, kernel_shape[:2], strides)
    return d_x_BHWC.astype(x_BHWC.dtype), d_kernel_KKCO.astype(kernel_KKCO.dtype)


_conv.defvjp(_conv_fwd, _conv_bwd)


def _columns(x_BHWC: Array, kernel_shape: Shape, strides: Shape) -> Array:
    """The inputs that the kernel is multiplied with, for each output: (B, h, w, N)."""
    return jnp.concatenate(_taps(x_BHWC, kernel_shape[:2], strides), axis=-1)


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
def _max_pool(x_BHWC: Array, window: Shape, strides: Shape) -> Array:
    return functools.reduce(jnp.maximum, _taps(x_BHWC, window, strides))


def _max_pool_fwd(x_BHWC: Array, window: Shape, strides: Shape) -> tuple[Array, tuple[Array, Array]]:
    taps_BhwC = _taps(x_BHWC, window, strides)
    top_BhwC = functools.reduce(jnp.maximum, taps_BhwC)
    return top_BhwC, (jnp.asarray(first_equal(taps_BhwC, top_BhwC), jnp.int32), x_BHWC)


def _max_pool_bwd(window: Shape, strides: Shape, saved: tuple[Array, Array], d_top_BhwC: Array) -> tuple[Array]:
    first_BhwC, x_BHWC = saved
    d_taps_BhwC = [jnp.where(first_BhwC == n, d_top_BhwC, 0) for n in range(window[0] * window[1])]
    return (_add_taps(d_taps_BhwC, x_BHWC.shape, window, strides),)


_max_pool.defvjp(_max_pool_fwd, _max_pool_bwd)


def first_equal(arrays: Sequence[Array], maximum: Array) -> Array | int:
    """The index of the first of these arrays that holds their maximum, at each position."""
    first = len(arrays) - 1
    for n in reversed(range(first)):
        first = jnp.where(arrays[n] == maximum, n, first)
    return first


def _taps(x_BHWC: Array, window: Shape, strides: Shape) -> list[Array]:
    """The inputs that windows hold at each position in them: arrays (B, h, w, C)."""
    rows, cols = ((size - w) // s + 1 for size, w, s in zip(x_BHWC.shape[1:3], window, strides, strict=True))
    return [
        x_BHWC[:, i : i + (rows - 1) * strides[0] + 1 : strides[0], j : j + (cols - 1) * strides[1] + 1 : strides[1]]
        for i, j in itertools.product(range(window[0]), range(window[1]))
    ]


def _add_taps(d_taps_BhwC: Sequence[Array], x_shape: Shape, window: Shape, strides: Shape) -> Array:
    """The transpose of `_taps`: adds each value up where it was copied from, (B, H, W, C).

    A position in the windows sees every stride-th row and column of x. Where these are dealt out to planes, one for
    each pair of remainders, it sees one of the planes, without gaps. `fused._add_phase_columns` does the same for
    stride 2, with the batch last.
    """
    (batch, height, width, channels), (rows, cols) = x_shape, d_taps_BhwC[0].shape[1:3]
    plane = jnp.zeros((batch, -(-height // strides[0]), -(-width // strides[1]), channels), d_taps_BhwC[0].dtype)
    planes = [[plane] * strides[1] for _ in range(strides[0])]
    for (i, j), d_tap_BhwC in zip(itertools.product(*map(range, window)), d_taps_BhwC, strict=True):
        (u, p), (v, q) = divmod(i, strides[0]), divmod(j, strides[1])
        planes[p][q] = planes[p][q].at[:, u : u + rows, v : v + cols].add(d_tap_BhwC)
    by_row = [jnp.stack(one_row, axis=3).reshape(batch, plane.shape[1], -1, channels) for one_row in planes]
    d_x = jnp.stack(by_row, axis=2).reshape(batch, -1, by_row[0].shape[2], channels)
    return d_x[:, :height, :width]


def _pads(x: Array, window: Shape, strides: Shape, padding: Padding) -> list[tuple[int, int]]:
    """Padding before and after each axis of x (B, H, W, C)."""
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], window, strides, padding)
    return [(0, 0), *padding, (0, 0)]
