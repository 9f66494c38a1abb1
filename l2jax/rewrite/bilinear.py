"""Convolution as three operations, each of which is the gradient of the other two.

Outputs, images and a kernel: of a convolution, two of them make the third. `convolve` makes outputs, `transpose` makes
images, `correlate` makes a kernel. All are linear in both of their arguments, so they have gradients of any order. Each
is one call of native code.

Names carry shapes: B images, H and W rows and columns of x, h and w of the output, K and K of the kernel, C input and O
output channels. A `Window` says how the kernel moves; of its pads only those before the images count: sizes are given.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from l2jax.native import correlate as native
from l2jax.native.axes import Pair, Window, convolution_axes, transposed_axes
from l2jax.native.call import call
from l2jax.native.gather import gather

Operation = Callable[[Array, Array, Pair, Window], Array]


def bilinear(f: Operation, gradients: Callable[..., tuple[Array, Array]]) -> Operation:
    """The function with its gradients: (its two arguments, its output's gradient, window) to theirs."""
    operation = jax.custom_vjp(f, nondiff_argnums=(2, 3))
    operation.defvjp(
        lambda a, b, size, window: (operation(a, b, size, window), (a, b)),
        lambda size, window, saved, d_out: gradients(*saved, d_out, window),
    )
    return functools.wraps(f)(operation)


def _convolve(x_BHWC: Array, kernel_KKCO: Array, size: Pair, window: Window) -> Array:
    """The convolution (B, h, w, O), whose rows and columns are `size`."""
    out = jax.ShapeDtypeStruct((len(x_BHWC), *size, kernel_KKCO.shape[3]), jnp.float32)
    rows, cols = convolution_axes(x_BHWC.shape[1:3], size, kernel_KKCO.shape, window)
    return call(gather, out, x_BHWC, kernel_KKCO, rows=(rows,), cols=(cols,), kernel_shape=kernel_KKCO.shape)


def _transpose(d_BhwO: Array, kernel_KKCO: Array, size: Pair, window: Window) -> Array:
    """Images (B, H, W, C), whose rows and columns are `size`: a transposed convolution."""
    kernel_KKOC = kernel_KKCO.transpose(0, 1, 3, 2)
    out = jax.ShapeDtypeStruct((len(d_BhwO), *size, kernel_KKCO.shape[2]), jnp.float32)
    rows, cols = transposed_axes(size, d_BhwO.shape[1:3], kernel_KKCO.shape, window)
    return call(gather, out, d_BhwO, kernel_KKOC, rows=rows, cols=cols, kernel_shape=kernel_KKOC.shape)


def _correlate(x_BHWC: Array, d_BhwO: Array, size: Pair, window: Window) -> Array:
    """A kernel (K, K, C, O), whose rows and columns are `size`."""
    shape = (*size, x_BHWC.shape[3], d_BhwO.shape[3])
    rows, cols = convolution_axes(x_BHWC.shape[1:3], d_BhwO.shape[1:3], size, window)
    out = jax.ShapeDtypeStruct(shape, jnp.float32)
    return call(native.correlate, out, x_BHWC, d_BhwO, rows=rows, cols=cols, kernel_shape=shape)


def _convolve_gradients(x: Array, kernel: Array, d: Array, window: Window) -> tuple[Array, Array]:
    return transpose(d, kernel, x.shape[1:3], window), correlate(x, d, kernel.shape[:2], window)


def _transpose_gradients(d: Array, kernel: Array, x: Array, window: Window) -> tuple[Array, Array]:
    return convolve(x, kernel, d.shape[1:3], window), correlate(x, d, kernel.shape[:2], window)


def _correlate_gradients(x: Array, d: Array, kernel: Array, window: Window) -> tuple[Array, Array]:
    return transpose(d, kernel, x.shape[1:3], window), convolve(x, kernel, d.shape[1:3], window)


convolve = bilinear(_convolve, _convolve_gradients)
transpose = bilinear(_transpose, _transpose_gradients)
correlate = bilinear(_correlate, _correlate_gradients)
