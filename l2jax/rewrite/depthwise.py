"""Depthwise convolutions, each channel with a kernel of its own, as three operations like those of `bilinear.py`.

Names carry shapes: B images, H and W rows and columns of x, h and w of the output, K and K of the kernel, C channels.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from l2jax.native.axes import Pair, Window, convolution_axes, transposed_axes
from l2jax.native.call import call
from l2jax.native.correlate import correlate as native_correlate
from l2jax.native.gather import gather
from l2jax.rewrite.bilinear import bilinear


def depthwise(x_BHWC: Array, kernel_KKC: Array, window: Window) -> Array:
    """Images (B, H, W, C) and a kernel (K, K, C) to (B, h, w, C)."""
    return convolve(x_BHWC, kernel_KKC, window.outputs(x_BHWC.shape[1:3], kernel_KKC.shape), window)


def _convolve(x_BHWC: Array, kernel_KKC: Array, size: Pair, window: Window) -> Array:
    """The convolution (B, h, w, C), whose rows and columns are `size`."""
    rows, cols = convolution_axes(x_BHWC.shape[1:3], size, kernel_KKC.shape, window)
    return _gathered(x_BHWC, kernel_KKC, size, (rows,), (cols,))


def _transpose(d_BhwC: Array, kernel_KKC: Array, size: Pair, window: Window) -> Array:
    """Images (B, H, W, C), whose rows and columns are `size`."""
    return _gathered(d_BhwC, kernel_KKC, size, *transposed_axes(size, d_BhwC.shape[1:3], kernel_KKC.shape, window))


def _gathered(x: Array, kernel_KKC: Array, size: Pair, rows: tuple, cols: tuple) -> Array:
    out = jax.ShapeDtypeStruct((len(x), *size, x.shape[3]), jnp.float32)
    return call(gather, out, x, kernel_KKC, rows=rows, cols=cols, kernel_shape=_shape(kernel_KKC.shape), depthwise=True)


def _correlate(x_BHWC: Array, d_BhwC: Array, size: Pair, window: Window) -> Array:
    """A kernel (K, K, C), whose rows and columns are `size`."""
    shape = *size, x_BHWC.shape[3]
    rows, cols = convolution_axes(x_BHWC.shape[1:3], d_BhwC.shape[1:3], size, window)
    static = {"rows": rows, "cols": cols, "kernel_shape": _shape(shape), "depthwise": True}
    return call(native_correlate, jax.ShapeDtypeStruct(shape, jnp.float32), x_BHWC, d_BhwC, **static)


def _shape(kernel: tuple[int, ...]) -> tuple[int, ...]:
    """As (K, K, C, O): each output channel has one channel of input."""
    return *kernel[:2], 1, kernel[2]


convolve = bilinear(
    _convolve, lambda x, kernel, d, w: (transpose(d, kernel, x.shape[1:3], w), correlate(x, d, kernel.shape[:2], w))
)
transpose = bilinear(
    _transpose, lambda d, kernel, x, w: (convolve(x, kernel, d.shape[1:3], w), correlate(x, d, kernel.shape[:2], w))
)
correlate = bilinear(
    _correlate, lambda x, d, kernel, w: (transpose(d, kernel, x.shape[1:3], w), convolve(x, kernel, d.shape[1:3], w))
)
