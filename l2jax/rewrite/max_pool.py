"""Max-pooling on CPUs, with the bias and ReLU before it if there are, in native code that reads each image once.

An odd last row or column, which no window sees, is not computed either, in any of the layers before.
"""

from __future__ import annotations

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import JaxprEqn

from l2jax.native.axes import Pair, Window, convolution_axes, transposed_axes
from l2jax.native.call import call, call_in_place
from l2jax.native.pool import NONE, pool, unpool
from l2jax.rewrite.interpreter import Made, Rule
from l2jax.rewrite.patterns import IMAGES, is_relu
from l2jax.rewrite.pooling import over_images
from l2jax.rewrite.windows import pad, taps


def max_pool(x: Array, **params: Any) -> Array | None:
    """The rule for `reduce_window_max`."""
    if x.dtype not in (jnp.float32, jnp.bfloat16, jnp.float16):
        return None
    pooled = over_images(_max_pool, x.astype(jnp.float32), **params)
    return None if pooled is None else pooled.astype(x.dtype)


def relu_max_pool(pooling: JaxprEqn, made: Made, *, convolution: Rule, fewer: Pair = (0, 0)) -> Array | None:
    """The pattern that ends with `reduce_window_max`, for images (B, H, W, C); None where ReLU is not before it.

    Args:
      convolution: the rule for a convolution before it.
      fewer: how many of the last rows and columns of the output to leave out.
    """
    relu = made.only_for(pooling.invars[0])
    if relu is None or not is_relu(relu) or not _is_of_images(pooling):
        return None
    images = relu.invars[0]
    x = made.value(images)
    if x.dtype != jnp.float32 or not x.size:
        return None
    bias_C = jnp.zeros(x.shape[3])
    addition = made.only_for(images)
    if addition is not None and addition.primitive.name == "add":
        images, bias_C = _without_bias(addition, made) or (images, bias_C)
    size, strides, pads = (
        tuple(pooling.params[name][1:3]) for name in ("window_dimensions", "window_strides", "padding")
    )
    window = _without_last(Window(strides, pads), fewer)
    x, window = _seen(images, made, size, window, convolution)
    return pooled(x, bias_C, size, window, True)


def _without_bias(addition: JaxprEqn, made: Made) -> tuple[Any, Array] | None:
    """The variable of images, and the bias (C,), of a sum; None if it is another sum."""
    for atom, other in zip(addition.invars, reversed(addition.invars), strict=True):
        reshape, images = made.equation(atom), made.value(other)
        if reshape is None or reshape.primitive.name != "reshape" or images.ndim != 4:
            continue
        bias = made.value(reshape.invars[0])
        if made.value(atom).shape == (1, 1, 1, images.shape[3]) and bias.ndim == 1:
            return other, bias
    return None


def _seen(images: Any, made: Made, size: Pair, window: Window, convolution: Rule) -> tuple[Array, Window]:
    """The images without the last rows and columns that a window does not see, and the window on them.

    They are as they were if something else uses them, or if what made them cannot leave rows and columns out.
    """
    x, eqn, smaller = made.value(images), made.only_for(images), None
    counts = window.outputs(x.shape[1:3], size)
    ends = [
        (n - 1) * stride - before + (k - 1) * dilation + 1
        for n, k, stride, (before, _), dilation in zip(counts, size, *window, strict=True)
    ]
    unseen = tuple(max(0, n - end) for n, end in zip(x.shape[1:3], ends, strict=True))
    if any(unseen) and min(counts) > 0 and eqn is not None:
        if eqn.primitive.name == "conv_general_dilated":
            smaller = _smaller_convolution(eqn, made, unseen, convolution)
        elif eqn.primitive.name == "reduce_window_max":
            smaller = relu_max_pool(eqn, made, convolution=convolution, fewer=unseen)
    if smaller is None:
        return x, window
    return smaller, window._replace(
        pads=tuple((low, high + n) for (low, high), n in zip(window.pads, unseen, strict=True))
    )


def _smaller_convolution(eqn: JaxprEqn, made: Made, fewer: Pair, convolution: Rule) -> Array | None:
    params, (images, kernel) = eqn.params, eqn.invars
    if params["dimension_numbers"] != IMAGES or max(params["lhs_dilation"]) > 1:
        return None
    window = Window(*(tuple(params[name]) for name in ("window_strides", "padding", "rhs_dilation")))
    kernel_KKCO = made.value(kernel)
    x, window = _seen(images, made, kernel_KKCO.shape[:2], _without_last(window, fewer), convolution)
    return convolution(x, kernel_KKCO, **params | {"padding": window.pads})


def _without_last(window: Window, fewer: Pair) -> Window:
    """A window with so many rows and columns fewer of outputs."""
    moves = zip(window.pads, fewer, window.strides, strict=True)
    return window._replace(pads=tuple((low, high - n * stride) for (low, high), n, stride in moves))


def _is_of_images(pooling: JaxprEqn) -> bool:
    params = pooling.params
    sizes = params["window_dimensions"], params["window_strides"]
    return (
        len(sizes[0]) == 4
        and all(n[0] == n[3] == 1 for n in sizes)
        and not any((*params["padding"][0], *params["padding"][3]))
        and max(*params["base_dilation"], *params["window_dilation"]) == 1
    )


def _max_pool(x_BHWC: Array, size: Pair, window: Window) -> Array:
    return pooled(x_BHWC, jnp.zeros(x_BHWC.shape[3]), size, window, False)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def pooled(x_BHWC: Array, bias_C: Array, size: Pair, window: Window, has_relu: bool) -> Array:
    """The maxima of windows of some rows and columns, plus bias: (B, h, w, C), and their ReLU if asked."""
    out, static = _call(x_BHWC, size, window, has_relu)
    return call(pool, out, x_BHWC, bias_C, **static)


def _pooled_fwd(
    x_BHWC: Array, bias_C: Array, size: Pair, window: Window, has_relu: bool
) -> tuple[Array, tuple[Array, Array]]:
    out, which = cast(tuple[Array, Array], pooled_and_which(x_BHWC, bias_C, size, window, has_relu))
    return out, (which, x_BHWC)


def _pooled_bwd(
    size: Pair, window: Window, has_relu: bool, saved: tuple[Array, Array], d_BhwC: Array
) -> tuple[Array, Array]:
    which_BhwC, x_BHWC = saved
    d_bias_C = jnp.where(which_BhwC == NONE, 0, d_BhwC).sum((0, 1, 2))
    return unpooled(d_BhwC, which_BhwC, x_BHWC.shape[1:3], size, window), d_bias_C


pooled.defvjp(_pooled_fwd, _pooled_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def pooled_and_which(x_BHWC: Array, bias_C: Array, size: Pair, window: Window, has_relu: bool) -> tuple[Array, Array]:
    """The same, and which tap of each window holds the maximum."""
    out, static = _call(x_BHWC, size, window, has_relu)
    maxima, which = call_in_place(pool, [out, out], {}, x_BHWC, bias_C, **static)
    return maxima, which


def _pooled_and_which_fwd(*args: Any) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    out, saved = _pooled_fwd(*args)
    return (out, saved[0]), saved


pooled_and_which.defvjp(
    _pooled_and_which_fwd,
    lambda size, window, has_relu, saved, d_outs: _pooled_bwd(size, window, has_relu, saved, d_outs[0]),
)


def _call(x_BHWC: Array, size: Pair, window: Window, has_relu: bool) -> tuple[jax.ShapeDtypeStruct, dict[str, Any]]:
    """The shape of the output, and what the code is written for."""
    batch, height, width, channels = x_BHWC.shape
    counts = window.outputs((height, width), size)
    rows, cols = convolution_axes((height, width), counts, size, window)
    static = {"rows": rows, "cols": cols, "channels": channels, "has_relu": has_relu}
    return jax.ShapeDtypeStruct((batch, *counts, channels), jnp.float32), static


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def unpooled(d_BhwC: Array, which_BhwC: Array, images: Pair, size: Pair, window: Window) -> Array:
    """The gradient of the images (B, H, W, C): each number goes to the tap that holds the maximum."""
    batch, *counts, channels = d_BhwC.shape
    rows, cols = transposed_axes(images, counts, size, window)
    out = jax.ShapeDtypeStruct((batch, *images, channels), jnp.float32)
    return call(unpool, out, d_BhwC, which_BhwC, rows=rows, cols=cols, channels=channels, width=size[1])


def _unpooled_bwd(images: Pair, size: Pair, window: Window, which_BhwC: Array, x_BHWC: Array) -> tuple[Array, None]:
    seen = taps(pad(x_BHWC, window.pads), size, window.strides, window.dilation)
    return functools.reduce(jnp.add, [jnp.where(which_BhwC == n, tap, 0) for n, tap in enumerate(seen)]), None


unpooled.defvjp(lambda d, which, *static: (unpooled(d, which, *static), which), _unpooled_bwd)
