"""The rule for convolutions: brought to images (B, H, W, C) and kernels (K, K, C, O), whatever their form.

Sequences become images of one row, volumes a sum over the kernel's planes, and groups smaller convolutions. An input
that is dilated, as that of a transposed convolution, is the gradient of a strided one. Half precision is computed in
float32, as XLA:CPU does.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike

from l2jax.native.axes import Pair, Window
from l2jax.rewrite.bilinear import convolve, depthwise, transpose
from l2jax.rewrite.product import dense
from l2jax.rewrite.windows import every, pad

LEAST_CHANNELS = 16
"""Groups with fewer channels, in or out, are computed together, as one convolution with zeros in its kernel."""


def convolution(
    x: Array,
    kernel: Array,
    *,
    window_strides: Sequence[int],
    padding: Sequence[Pair],
    lhs_dilation: Sequence[int],
    rhs_dilation: Sequence[int],
    dimension_numbers: lax.ConvDimensionNumbers,
    feature_group_count: int,
    batch_group_count: int,
    precision: Any,
    preferred_element_type: DTypeLike | None,
    **_: Any,
) -> Array | None:
    """The rule for `conv_general_dilated`; None for what is left to XLA."""
    rank = x.ndim - 2
    is_float = all(a.dtype in (jnp.float32, jnp.bfloat16, jnp.float16) for a in (x, kernel))
    is_strided_both_ways = max(lhs_dilation, default=1) > 1 and max(window_strides) > 1
    if (
        not 1 <= rank <= 3
        or not is_float
        or batch_group_count > 1
        or is_strided_both_ways
        or 0 in (*x.shape, *kernel.shape)
    ):
        return None
    if isinstance(precision, lax.DotAlgorithm | lax.DotAlgorithmPreset):
        return None
    if rank == 3 and max(lhs_dilation) > 1:
        return None
    numbers = dimension_numbers
    images = x.astype(jnp.float32).transpose(numbers.lhs_spec[0], *numbers.lhs_spec[2:], numbers.lhs_spec[1])
    kernel_KKCO = kernel.astype(jnp.float32).transpose(*numbers.rhs_spec[2:], numbers.rhs_spec[1], numbers.rhs_spec[0])
    moves = list(zip(window_strides, map(tuple, padding), lhs_dilation, rhs_dilation, strict=True))
    sizes = zip(images.shape[1:-1], kernel_KKCO.shape[:-2], moves, strict=True)
    if any((n - 1) * spread + sum(pads) < (k - 1) * gap for n, k, (_, pads, spread, gap) in sizes):
        return None  # it has no outputs
    convolve_images = {1: _sequences, 2: _images, 3: _volumes}[rank]
    out = convolve_images(images, kernel_KKCO, moves, feature_group_count)
    places = (numbers.out_spec[0], *numbers.out_spec[2:], numbers.out_spec[1])
    return out.transpose(np.argsort(places)).astype(preferred_element_type or x.dtype)


Move = tuple[int, Pair, int, int]  # of the window along an axis: stride, pads, dilation of the input, of the kernel


def _sequences(x_BWC: Array, kernel_KCO: Array, moves: Sequence[Move], groups: int) -> Array:
    return _images(x_BWC[:, None], kernel_KCO[None], [(1, (0, 0), 1, 1), *moves], groups)[:, 0]


def _volumes(x_BDHWC: Array, kernel_KKKCO: Array, moves: Sequence[Move], groups: int) -> Array:
    (stride, pads, _, dilation), *others = moves
    x_BDHWC = lax.pad(x_BDHWC, jnp.float32(0), [(0, 0, 0), (pads[0], pads[1], 0), *[(0, 0, 0)] * 3])
    depth = (x_BDHWC.shape[1] - (len(kernel_KKKCO) - 1) * dilation - 1) // stride + 1
    planes = []
    for n, kernel_KKCO in enumerate(kernel_KKKCO):
        x_BdHWC = x_BDHWC[:, n * dilation : n * dilation + (depth - 1) * stride + 1 : stride]
        planes.append(_images(x_BdHWC.reshape(-1, *x_BdHWC.shape[2:]), kernel_KKCO, others, groups))
    out = functools.reduce(jnp.add, planes)
    return out.reshape(len(x_BDHWC), depth, *out.shape[1:])


def _images(x_BHWC: Array, kernel_KKCO: Array, moves: Sequence[Move], groups: int) -> Array:
    strides, pads, spacing, dilation = (tuple(values) for values in zip(*moves, strict=True))
    if max(spacing) > 1:
        return _of_groups(
            functools.partial(_spread, spacing=spacing, pads=pads, dilation=dilation), x_BHWC, kernel_KKCO, groups
        )
    window = Window(strides, pads, dilation)
    size = window.outputs(x_BHWC.shape[1:3], kernel_KKCO.shape)
    if groups == x_BHWC.shape[3] > 1:
        x_BHWC = jnp.repeat(x_BHWC, kernel_KKCO.shape[3] // groups, axis=3)
        return depthwise.convolve(x_BHWC, kernel_KKCO, size, window)
    if kernel_KKCO.shape[:2] == (1, 1):
        x_BhwC = every(pad(x_BHWC, pads), strides)
        return _of_groups(lambda x, kernel: dense(x, kernel[0, 0]), x_BhwC, kernel_KKCO, groups)
    return _of_groups(lambda x, kernel: convolve(x, kernel, size, window), x_BHWC, kernel_KKCO, groups)


def _spread(x_BHWC: Array, kernel_KKCO: Array, *, spacing: Pair, pads: tuple[Pair, ...], dilation: Pair) -> Array:
    """A convolution of stride 1 over inputs that are `spacing` apart, with zeros between them."""
    spans = [(k - 1) * d for k, d in zip(kernel_KKCO.shape[:2], dilation, strict=True)]
    sizes = [
        (n - 1) * s + 1 + sum(pair) - span
        for n, s, pair, span in zip(x_BHWC.shape[1:3], spacing, pads, spans, strict=True)
    ]
    low = [span - pair[0] for span, pair in zip(spans, pads, strict=True)]
    around = tuple((a, 0) for a in low)
    kernel_KKOC = kernel_KKCO[::-1, ::-1].transpose(0, 1, 3, 2)
    return transpose(x_BHWC, kernel_KKOC, tuple(sizes), Window(spacing, around, dilation))


def _of_groups(convolve: Any, x_BHWC: Array, kernel_KKCO: Array, groups: int) -> Array:
    """Each group of channels with its own kernel, as many groups at a time as `LEAST_CHANNELS` takes."""
    if groups == 1:
        return convolve(x_BHWC, kernel_KKCO)
    rows, cols, channels, features = *kernel_KKCO.shape[:3], kernel_KKCO.shape[3] // groups
    together = next(
        n
        for n in range(1, groups + 1)
        if groups % n == 0 and (n * min(channels, features) >= LEAST_CHANNELS or n == groups)
    )
    kernels = kernel_KKCO.reshape(rows, cols, channels, groups // together, together, features)
    is_own = jnp.eye(together, dtype=bool)[None, None, :, None, None, :, None]
    # (K, K, group of the input, C, groups / together, group of the output, O)
    kernels = jnp.where(is_own, kernels[:, :, None], 0)
    kernels = jnp.moveaxis(kernels, 4, 0).reshape(
        groups // together, rows, cols, together * channels, together * features
    )
    parts = jnp.split(x_BHWC, groups // together, axis=3)
    return jnp.concatenate([convolve(part, kernel) for part, kernel in zip(parts, kernels, strict=True)], axis=3)
