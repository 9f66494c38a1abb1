"""Windows over images: what they hold at each of their positions, and the transpose of that.

Names carry shapes: B images, H and W their rows and columns, C channels, h and w rows and columns of the output.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array

from l2jax.native.axes import Pair


def pad(x_BHWC: Array, pads: tuple[Pair, ...], value: float = 0) -> Array:
    """Pads rows and columns; a negative pad takes away."""
    if min(map(min, pads)) < 0:
        (top, bottom), (left, right) = (tuple(max(0, -amount) for amount in pair) for pair in pads)
        x_BHWC = x_BHWC[:, top : x_BHWC.shape[1] - bottom, left : x_BHWC.shape[2] - right]
    amounts = [tuple(max(0, amount) for amount in pair) for pair in pads]
    return jnp.pad(x_BHWC, ((0, 0), *amounts, (0, 0)), constant_values=value) if any(map(any, amounts)) else x_BHWC


def every(x_BHWC: Array, strides: Pair) -> Array:
    """Every stride-th row and column of x: of cells of that size, the first position."""
    batch, height, width, channels = x_BHWC.shape
    (sh, sw), h, w = strides, -(-height // strides[0]), -(-width // strides[1])
    cells = pad(x_BHWC, ((0, h * sh - height), (0, w * sw - width))).reshape(batch, h, sh, w, sw * channels)
    return cells[:, :, 0, :, :channels]


def taps(x_BHWC: Array, size: Pair, strides: Pair, dilation: Pair = (1, 1)) -> list[Array]:
    """The inputs that windows hold at each position in them, row by row: arrays (B, h, w, C)."""
    ends = [n - (k - 1) * d for n, k, d in zip(x_BHWC.shape[1:3], size, dilation, strict=True)]
    return [
        x_BHWC[:, i : i + ends[0] : strides[0], j : j + ends[1] : strides[1]]
        for i, j in itertools.product(*(range(0, k * d, d) for k, d in zip(size, dilation, strict=True)))
    ]


def add_taps(
    d_taps_BhwC: Sequence[Array], shape: Sequence[int], size: Pair, strides: Pair, dilation: Pair = (1, 1)
) -> Array:
    """The transpose of `taps`: adds each value up where it was copied from, (B, H, W, C) of this shape.

    A position in the windows sees every stride-th row and column of x. Where these are dealt out to planes, one for
    each pair of remainders, it sees one of the planes, without gaps.
    """
    (batch, height, width, channels), (rows, cols) = shape, d_taps_BhwC[0].shape[1:3]
    plane = jnp.zeros((batch, -(-height // strides[0]), -(-width // strides[1]), channels), d_taps_BhwC[0].dtype)
    planes = [[plane] * strides[1] for _ in range(strides[0])]
    is_tiling = size == strides and dilation == (1, 1) and plane.shape[1:3] == (rows, cols)
    for (i, j), d_tap_BhwC in zip(itertools.product(*map(range, size)), d_taps_BhwC, strict=True):
        (u, p), (v, q) = divmod(i * dilation[0], strides[0]), divmod(j * dilation[1], strides[1])
        if is_tiling:
            planes[p][q] = d_tap_BhwC
        else:
            planes[p][q] = planes[p][q].at[:, u : u + rows, v : v + cols].add(d_tap_BhwC)
    return interleave(planes)[:, :height, :width]


def interleave(planes: Sequence[Sequence[Array]]) -> Array:
    """Rows and columns dealt out to planes [row][column], put together again."""
    if len(planes) == len(planes[0]) == 1:
        return planes[0][0]
    batch, height, width, channels = planes[0][0].shape
    by_row = [jnp.stack(row, axis=3).reshape(batch, height, -1, channels) for row in planes]
    return jnp.stack(by_row, axis=2).reshape(batch, -1, width * len(planes[0]), channels)
