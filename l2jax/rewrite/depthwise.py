"""Depthwise convolutions, each channel with a kernel of its own, as multiply-adds of shifted slices."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array

from l2jax.native.axes import Window
from l2jax.rewrite.windows import add_taps, pad, taps

TERMS = 8
"""Examples whose products are added in one expression."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise(x_BHWC: Array, kernel_KKC: Array, window: Window) -> Array:
    """Images (B, H, W, C) and a kernel (K, K, C) to (B, h, w, C)."""
    taps_BhwC = taps(pad(x_BHWC, window.pads), kernel_KKC.shape[:2], window.strides, window.dilation)
    return functools.reduce(
        jnp.add, [t * k[None, None, None] for t, k in zip(taps_BhwC, _per_tap(kernel_KKC), strict=True)]
    )


def _depthwise_fwd(x_BHWC: Array, kernel_KKC: Array, window: Window) -> tuple[Array, tuple[Array, Array]]:
    return depthwise(x_BHWC, kernel_KKC, window), (x_BHWC, kernel_KKC)


def _depthwise_bwd(window: Window, saved: tuple[Array, Array], d_BhwC: Array) -> tuple[Array, Array]:
    x_BHWC, kernel_KKC = saved
    how = kernel_KKC.shape[:2], window.strides, window.dilation
    padded = pad(x_BHWC, window.pads)
    d_kernel = _sums_of_products(taps(padded, *how), d_BhwC)
    d_padded = add_taps([d_BhwC * k[None, None, None] for k in _per_tap(kernel_KKC)], padded.shape, *how)
    unpad = tuple((-before, -after) for before, after in window.pads)
    return pad(d_padded, unpad), d_kernel.reshape(kernel_KKC.shape)


def _sums_of_products(taps_BhwC: list[Array], d_BhwC: Array) -> Array:
    """The sum over all positions of each tap times d: (taps, C).

    The first additions, of some examples, are written out, and what is left is summed by a product with ones. A plain
    sum would go to a library that wants the slice of each tap, padding included, written to memory first.
    """
    terms = math.gcd(len(d_BhwC), TERMS)
    d_parts = jnp.split(d_BhwC, terms)
    sums = []
    for tap in taps_BhwC:
        products = [t * d for t, d in zip(jnp.split(tap, terms), d_parts, strict=True)]
        total_PC = functools.reduce(jnp.add, products).reshape(-1, d_BhwC.shape[3])
        sums.append(jnp.ones(len(total_PC), total_PC.dtype) @ total_PC)
    return jnp.stack(sums)


def _per_tap(kernel_KKC: Array) -> Array:
    return kernel_KKC.reshape(-1, kernel_KKC.shape[2])


depthwise.defvjp(_depthwise_fwd, _depthwise_bwd)
