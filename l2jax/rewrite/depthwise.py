"""Depthwise convolutions, each channel with a kernel of its own, as multiply-adds of shifted slices."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array

from l2jax.rewrite.windows import Window, add_taps, pad, taps


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
    d_kernel = jnp.stack([(tap * d_BhwC).sum((0, 1, 2)) for tap in taps(padded, *how)])
    d_padded = add_taps([d_BhwC * k[None, None, None] for k in _per_tap(kernel_KKC)], padded.shape, *how)
    unpad = tuple((-before, -after) for before, after in window.pads)
    return pad(d_padded, unpad), d_kernel.reshape(kernel_KKC.shape)


def _per_tap(kernel_KKC: Array) -> Array:
    return kernel_KKC.reshape(-1, kernel_KKC.shape[2])


depthwise.defvjp(_depthwise_fwd, _depthwise_bwd)
