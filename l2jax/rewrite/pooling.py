"""Pooling as the maximum or the sum of slices.

XLA:CPU computes the gradient of `reduce_window` by a scatter; here it is elementwise. The gradient of a maximum goes to
the first position of a window that holds it, as in XLA, PyTorch and TensorFlow.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from l2jax.native.axes import Pair, Window
from l2jax.rewrite.windows import add_taps, pad, taps

MOST_TAPS = 49
"""Larger windows are left to XLA: slices would take more time than they save."""


def max_pool(x: Array, **params: Any) -> Array | None:
    """The rule for `reduce_window_max`."""
    return over_images(_max_of_slices, x, **params) if jnp.issubdtype(x.dtype, jnp.floating) else None


def sum_pool(x: Array, **params: Any) -> Array | None:
    """The rule for `reduce_window_sum`."""
    return over_images(_sum_of_slices, x, **params) if jnp.issubdtype(x.dtype, jnp.floating) else None


def over_images(
    pool: Callable[[Array, Pair, Window], Array],
    x: Array,
    *,
    window_dimensions: Sequence[int],
    window_strides: Sequence[int],
    padding: Sequence[Pair],
    base_dilation: Sequence[int],
    window_dilation: Sequence[int],
    **_: Any,
) -> Array | None:
    """Pools two neighbouring axes at a time, the last first, as images (B, H, W, C); None for what is left to XLA."""
    if x.ndim < 2 or max(base_dilation) > 1 or math.prod(window_dimensions) > MOST_TAPS:
        return None
    left = {n for n in range(x.ndim) if window_dimensions[n] > 1 or window_strides[n] > 1 or any(padding[n])}
    while left:
        cols = max(1, *left)
        rows, after = cols - 1, cols + 1
        images = x.reshape(math.prod(x.shape[:rows]), *x.shape[rows:after], math.prod(x.shape[after:]))

        size, strides, dilation = (
            tuple(values[axis] if axis in left else 1 for axis in (rows, cols))
            for values in (window_dimensions, window_strides, window_dilation)
        )
        pads = tuple(tuple(padding[axis]) if axis in left else (0, 0) for axis in (rows, cols))
        pooled = pool(images, size, Window(strides, pads, dilation))
        x = pooled.reshape(*x.shape[:rows], *pooled.shape[1:3], *x.shape[after:])
        left -= {rows, cols}
    return x


def _max_of_slices(x_BHWC: Array, size: Pair, window: Window) -> Array:
    return _max_of_taps(pad(x_BHWC, window.pads, -jnp.inf), size, window.strides, window.dilation)


def _sum_of_slices(x_BHWC: Array, size: Pair, window: Window) -> Array:
    return _sum_of_taps(pad(x_BHWC, window.pads), size, window.strides, window.dilation)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _max_of_taps(x_BHWC: Array, size: Pair, strides: Pair, dilation: Pair) -> Array:
    return functools.reduce(jnp.maximum, taps(x_BHWC, size, strides, dilation))


def _max_of_taps_fwd(x_BHWC: Array, size: Pair, strides: Pair, dilation: Pair) -> tuple[Array, tuple[Array, Array]]:
    all_taps_BhwC = taps(x_BHWC, size, strides, dilation)
    top_BhwC = functools.reduce(jnp.maximum, all_taps_BhwC)
    return top_BhwC, (first_equal(all_taps_BhwC, top_BhwC), x_BHWC)


def _max_of_taps_bwd(
    size: Pair, strides: Pair, dilation: Pair, saved: tuple[Array, Array], d_BhwC: Array
) -> tuple[Array]:
    first_BhwC, x_BHWC = saved
    d_taps_BhwC = [jnp.where(first_BhwC == n, d_BhwC, 0) for n in range(math.prod(size))]
    return (add_taps(d_taps_BhwC, x_BHWC.shape, size, strides, dilation),)


_max_of_taps.defvjp(_max_of_taps_fwd, _max_of_taps_bwd)


def first_equal(arrays: Sequence[Array], maximum: Array) -> Array:
    """The index of the first of these arrays that holds their maximum, at each position."""
    first = jnp.full(maximum.shape, len(arrays) - 1, jnp.int32)
    for n in reversed(range(len(arrays) - 1)):
        first = jnp.where(arrays[n] == maximum, n, first)
    return first


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _sum_of_taps(x_BHWC: Array, size: Pair, strides: Pair, dilation: Pair) -> Array:
    return functools.reduce(jnp.add, taps(x_BHWC, size, strides, dilation))


def _sum_of_taps_fwd(x_BHWC: Array, *window: Pair) -> tuple[Array, Array]:
    return _sum_of_taps(x_BHWC, *window), x_BHWC


def _sum_of_taps_bwd(size: Pair, strides: Pair, dilation: Pair, x_BHWC: Array, d_BhwC: Array) -> tuple[Array]:
    return (add_taps([d_BhwC] * math.prod(size), x_BHWC.shape, size, strides, dilation),)


_sum_of_taps.defvjp(_sum_of_taps_fwd, _sum_of_taps_bwd)
