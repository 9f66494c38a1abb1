"""Convolution as three operations, each of which is the gradient of the other two.

Outputs, images and a kernel: of a convolution, two of them make the third. `convolve` makes outputs, `transpose` makes
images, `correlate` makes a kernel. All are linear in both of their arguments, so they have gradients of any order. Each
is one call of native code.

Names carry shapes: B images, H and W rows and columns of x, h and w of the output, K and K of the kernel, C input and O
output channels. A `Window` says how the kernel moves; of its pads only those before the images count: sizes are given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from l2jax.native import correlate as native
from l2jax.native import winograd
from l2jax.native.axes import Pair, Window, convolution_axes, transposed_axes
from l2jax.native.call import call, call_in_place
from l2jax.native.gather import gather

Operation = Callable[[Array, Array, Pair, Window], Array]


class Operations(NamedTuple):
    """The three, for one kind of kernel.

    Attributes:
      convolve: images (B, H, W, C), kernel (K, K, C, O), rows and columns of the outputs, window to (B, h, w, O).
      transpose: outputs (B, h, w, O), kernel, rows and columns of the images, window to (B, H, W, C).
      correlate: images, outputs, rows and columns of the kernel, window to (K, K, C, O).
    """

    convolve: Operation
    transpose: Operation
    correlate: Operation


def _operations(*, is_depthwise: bool) -> Operations:
    """The three; for depthwise kernels (K, K, 1, O), images have O channels, one for each of the outputs."""

    def made(x: Array, kernel_KKCO: Array, size: Pair, rows: tuple, cols: tuple) -> Array:
        out = jax.ShapeDtypeStruct((len(x), *size, kernel_KKCO.shape[3]), jnp.float32)
        if not is_depthwise and winograd.suits(rows, cols, kernel_KKCO.shape, least_tiles=winograd.LEAST_TILES):
            static = {"rows": rows[0], "cols": cols[0], "kernel_shape": kernel_KKCO.shape}
            return _with_scratch(winograd.convolve, out, x, kernel_KKCO, **static)
        static = {"rows": rows, "cols": cols, "kernel_shape": kernel_KKCO.shape, "depthwise": is_depthwise}
        return call(gather, out, x, kernel_KKCO, **static)

    def convolve(x_BHWC: Array, kernel_KKCO: Array, size: Pair, window: Window) -> Array:
        rows, cols = convolution_axes(x_BHWC.shape[1:3], size, kernel_KKCO.shape, window)
        return made(x_BHWC, kernel_KKCO, size, (rows,), (cols,))

    def transpose(d_BhwO: Array, kernel_KKCO: Array, size: Pair, window: Window) -> Array:
        kernel = kernel_KKCO if is_depthwise else kernel_KKCO.transpose(0, 1, 3, 2)
        rows, cols = transposed_axes(size, d_BhwO.shape[1:3], kernel_KKCO.shape, window)
        return made(d_BhwO, kernel, size, rows, cols)

    def correlate(x_BHWC: Array, d_BhwO: Array, size: Pair, window: Window) -> Array:
        shape = (*size, 1 if is_depthwise else x_BHWC.shape[3], d_BhwO.shape[3])
        rows, cols = convolution_axes(x_BHWC.shape[1:3], d_BhwO.shape[1:3], size, window)
        out = jax.ShapeDtypeStruct(shape, jnp.float32)
        static = {"rows": rows, "cols": cols, "kernel_shape": shape}
        least = winograd.LEAST_TILES_FOR_GRADIENT
        if not is_depthwise and winograd.suits((rows,), (cols,), shape, least_tiles=least):
            return _with_scratch(winograd.kernel_gradient, out, x_BHWC, d_BhwO, **static)
        return call(native.correlate, out, x_BHWC, d_BhwO, **static, depthwise=is_depthwise)

    three = Operations(*(jax.custom_vjp(f, nondiff_argnums=(2, 3)) for f in (convolve, transpose, correlate)))

    def of_convolve(x: Array, kernel: Array, d: Array, window: Window) -> tuple[Array, Array]:
        return three.transpose(d, kernel, x.shape[1:3], window), three.correlate(x, d, kernel.shape[:2], window)

    def of_transpose(d: Array, kernel: Array, x: Array, window: Window) -> tuple[Array, Array]:
        return three.convolve(x, kernel, d.shape[1:3], window), three.correlate(x, d, kernel.shape[:2], window)

    def of_correlate(x: Array, d: Array, kernel: Array, window: Window) -> tuple[Array, Array]:
        return three.transpose(d, kernel, x.shape[1:3], window), three.convolve(x, kernel, d.shape[1:3], window)

    for operation, gradients in zip(three, (of_convolve, of_transpose, of_correlate), strict=True):
        _differentiate(operation, gradients)
    return three


def _with_scratch(write: Callable[..., None], out: jax.ShapeDtypeStruct, *arrays: Array, **static: Any) -> Array:
    scratch = jax.ShapeDtypeStruct((winograd.scratch_size(**static),), jnp.float32)
    return call_in_place(write, (out, scratch), {}, *arrays, **static)[0]


def _differentiate(operation: Any, gradients: Callable[..., tuple[Array, Array]]) -> None:
    """Gives an operation its gradients: (its two arguments, its output's gradient, window) to theirs."""
    operation.defvjp(
        lambda a, b, size, window: (operation(a, b, size, window), (a, b)),
        lambda size, window, saved, d_out: gradients(*saved, d_out, window),
    )


convolve, transpose, correlate = _operations(is_depthwise=False)
depthwise = _operations(is_depthwise=True)
