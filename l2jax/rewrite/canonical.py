"""Convolutions whose gradients, too, are convolutions in the one form that XLA:CPU runs fast inside a loop.

That form has the batch first and the features last, a kernel (K, K, C, O), and nothing that is reversed. XLA brings
others into it, but not in the bodies of loops, and an epoch is a loop. Flax's forward convolution has it; the gradients
that autodiff derives do not, and take 20 to 50 times as long (jax-ml/jax#12868). Here they are written out.

What else was measured, on cores with AVX-512:

- Few output channels leave lanes empty: neighbouring outputs are computed as further channels of one.
- The gradient of a strided convolution is one small convolution per remainder of row and column: none multiplies zeros.
- The kernel's gradient sums over all positions of all images; in pieces of the batch its operands stay in cache.

Names carry shapes: B images, H and W rows and columns of x, h and w of the output, K and K of the kernel, C input and O
output channels.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import sequential_vmap

from l2jax.rewrite.windows import Pair, Window, every, interleave, pad

LAYOUT = ("NHWC", "HWIO", "NHWC")

FEW_FEATURES = 16
"""Of fewer output channels, the kernel's gradient is computed for two taps at once (measured)."""

PIECE = 8
"""Examples that the kernel's gradient sums over at a time (measured with 4, 8, 16 and 32)."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x_BHWC: Array, kernel_KKCO: Array, window: Window) -> Array:
    """The convolution (B, h, w, O)."""
    return _outputs(x_BHWC, kernel_KKCO, window)


def _convolve_fwd(x_BHWC: Array, kernel_KKCO: Array, window: Window) -> tuple[Array, tuple[Array, Array]]:
    return convolve(x_BHWC, kernel_KKCO, window), (x_BHWC, kernel_KKCO)


def _convolve_bwd(window: Window, saved: tuple[Array, Array], d_BhwO: Array) -> tuple[Array, Array]:
    x_BHWC, kernel_KKCO = saved
    d_x_BHWC = _inputs(d_BhwO, kernel_KKCO, x_BHWC.shape[1:3], window)
    return d_x_BHWC, _kernel(x_BHWC, d_BhwO, kernel_KKCO.shape[:2], window)


convolve.defvjp(_convolve_fwd, _convolve_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def spread(d_BhwO: Array, kernel_KKCO: Array, size: Pair, window: Window) -> Array:
    """The transpose of `convolve` to x (B, H, W, C), whose rows and columns are `size`: a transposed convolution."""
    return _inputs(d_BhwO, kernel_KKCO, size, window)


def _spread_fwd(d_BhwO: Array, kernel_KKCO: Array, size: Pair, window: Window) -> tuple[Array, tuple[Array, Array]]:
    return spread(d_BhwO, kernel_KKCO, size, window), (d_BhwO, kernel_KKCO)


def _spread_bwd(size: Pair, window: Window, saved: tuple[Array, Array], x_BHWC: Array) -> tuple[Array, Array]:
    d_BhwO, kernel_KKCO = saved
    pads = tuple(
        (low, (n - 1) * s + (k - 1) * r + 1 - m - low)
        for n, s, k, r, m, (low, _) in zip(
            d_BhwO.shape[1:3], window.strides, kernel_KKCO.shape[:2], window.dilation, size, window.pads, strict=True
        )
    )
    window = window._replace(pads=pads)
    return _outputs(x_BHWC, kernel_KKCO, window), _kernel(x_BHWC, d_BhwO, kernel_KKCO.shape[:2], window)


spread.defvjp(_spread_fwd, _spread_bwd)


def _canonical(x: Array, kernel: Array, window: Window) -> Array:
    """XLA's convolution; what the padding takes away is taken away first."""
    pads = tuple((max(0, low), max(0, high)) for low, high in window.pads)
    x = pad(x, tuple((min(0, low), min(0, high)) for low, high in window.pads))

    @sequential_vmap  # side by side, trials would be groups of a convolution, which XLA:CPU computes one by one, slowly
    def convolution(x: Array, kernel: Array) -> Array:
        options = {"rhs_dilation": window.dilation, "dimension_numbers": LAYOUT}
        return lax.conv_general_dilated(x, kernel, window.strides, pads, **options)

    return convolution(x, kernel)


def _outputs(x_BHWC: Array, kernel_KKCO: Array, window: Window) -> Array:
    is_dense = window.strides == window.dilation == (1, 1)
    if kernel_KKCO.shape[:2] == (1, 1):
        return jnp.tensordot(every(pad(x_BHWC, window.pads), window.strides), kernel_KKCO[0, 0], 1)
    together = _together(kernel_KKCO.shape) if is_dense else (1, 1)
    return (
        _neighbours(x_BHWC, kernel_KKCO, window, together)
        if math.prod(together) > 1
        else _canonical(x_BHWC, kernel_KKCO, window)
    )


def _together(kernel_shape: Sequence[int]) -> Pair:
    """How many neighbouring outputs, in rows and columns, to compute as channels of one (measured)."""
    *size, channels, features = kernel_shape
    want = 48 if channels < 8 else 32
    if max(size) > 7:
        return 1, 1
    enough = [pair for pair in ((1, 1), (1, 2), (2, 2), (2, 4), (4, 4)) if math.prod(pair) * features >= want]
    return next((pair for pair in enough if math.prod(pair) * features % 16 == 0), (enough or [(4, 4)])[0])


def _neighbours(x_BHWC: Array, kernel_KKCO: Array, window: Window, together: Pair) -> Array:
    """A convolution of stride 1, `together` outputs at a time: a larger kernel, moved by as many rows and columns."""
    (a, b), (rows, cols, _, features), ((top, bottom), (left, right)) = together, kernel_KKCO.shape, window.pads
    height, width = x_BHWC.shape[1] + top + bottom - rows + 1, x_BHWC.shape[2] + left + right - cols + 1
    shifted = [
        jnp.pad(kernel_KKCO, ((i, a - 1 - i), (j, b - 1 - j), (0, 0), (0, 0)))
        for i, j in itertools.product(range(a), range(b))
    ]
    pads = ((top, bottom + -height % a), (left, right + -width % b))
    out = _canonical(x_BHWC, jnp.concatenate(shifted, axis=-1), Window(together, pads))
    out = out.reshape(*out.shape[:3], a, b, features).transpose(0, 1, 3, 2, 4, 5)
    return out.reshape(len(out), out.shape[1] * a, -1, features)[:, :height, :width]


def _inputs(d_BhwO: Array, kernel_KKCO: Array, size: Pair, window: Window) -> Array:
    """The gradient of x, (B, H, W, C)."""
    strides, dilation = window.strides, window.dilation
    if max(strides) > 1 and max(dilation) > 1:
        gaps = [(0, 0, r - 1) for r in dilation]
        kernel_KKCO, dilation = lax.pad(kernel_KKCO, jnp.float32(0), [*gaps, (0, 0, 0), (0, 0, 0)]), (1, 1)
    planes = [
        [_phase(d_BhwO, kernel_KKCO, size, window._replace(dilation=dilation), (p, q)) for q in range(strides[1])]
        for p in range(strides[0])
    ]
    return interleave(planes)[:, : size[0], : size[1]]


def _phase(d_BhwO: Array, kernel_KKCO: Array, size: Pair, window: Window, phase: Pair) -> Array:
    """Every stride-th row and column of x's gradient, from `phase` on: what every stride-th tap of the kernel sees."""
    firsts, pads, counts = [], [], []
    for n, s, (low, _), r, k, p, out in zip(
        size, window.strides, window.pads, window.dilation, kernel_KKCO.shape[:2], phase, d_BhwO.shape[1:3], strict=True
    ):
        shift, first = divmod(p + low, s)
        span, count = (len(range(first, k, s)) - 1) * r, -(-n // s)
        firsts.append(slice(first, None, s))
        pads.append((span - shift, count + shift - out))
        counts.append(count)
    sub_KKOC = kernel_KKCO[*firsts][::-1, ::-1].transpose(0, 1, 3, 2)
    if not sub_KKOC.size:
        return jnp.zeros((len(d_BhwO), *counts, kernel_KKCO.shape[2]), d_BhwO.dtype)
    return _outputs(d_BhwO, sub_KKOC, Window((1, 1), tuple(pads), window.dilation))


def _kernel(x_BHWC: Array, d_BhwO: Array, size: Pair, window: Window) -> Array:
    """The gradient of the kernel, (K, K, C, O)."""
    shapes = d_BhwO.shape[1:3], window.strides, size, window.dilation
    ends = [(m - 1) * s + (k - 1) * r + 1 for m, s, k, r in zip(*shapes, strict=True)]
    pads = tuple((low, end - n - low) for n, end, (low, _) in zip(x_BHWC.shape[1:3], ends, window.pads, strict=True))
    x_BHWC = pad(x_BHWC, pads)
    is_dense = window.strides == window.dilation == (1, 1)
    form = _pairs_of_taps if is_dense and d_BhwO.shape[3] < FEW_FEATURES else _taps
    turned = Window(window.dilation, dilation=window.strides)

    def taps(x_BHWC: Array, d_BhwO: Array) -> Array:
        return form(x_BHWC, d_BhwO, size, turned)

    if len(x_BHWC) <= PIECE or len(x_BHWC) % PIECE:
        return taps(x_BHWC, d_BhwO).transpose(1, 2, 0, 3)
    pieces = tuple(a.reshape(-1, PIECE, *a.shape[1:]) for a in (x_BHWC, d_BhwO))
    zeros = jnp.zeros((x_BHWC.shape[3], *size, d_BhwO.shape[3]), d_BhwO.dtype)
    total, _ = lax.scan(lambda total, piece: (total + taps(piece[0], piece[1]), None), zeros, pieces)
    return total.transpose(1, 2, 0, 3)


def _taps(x_BHWC: Array, d_BhwO: Array, size: Pair, window: Window) -> Array:
    """The gradient of the kernel, (C, K, K, O): channels of x as a batch, examples as features, d as the kernel."""
    return _canonical(x_BHWC.transpose(3, 1, 2, 0), d_BhwO.transpose(1, 2, 0, 3), window)


def _pairs_of_taps(x_BHWC: Array, d_BhwO: Array, size: Pair, window: Window) -> Array:
    """The same, two neighbouring taps at a time, the second of them as further features."""
    d_hwBO, odd = d_BhwO.transpose(1, 2, 0, 3), size[1] % 2
    both = jnp.concatenate([jnp.pad(d_hwBO, ((0, 0), (j, 1 - j), (0, 0), (0, 0))) for j in range(2)], axis=-1)
    x_BHWC = pad(x_BHWC, ((0, 0), (0, odd)))
    out = _canonical(x_BHWC.transpose(3, 1, 2, 0), both, window._replace(strides=(1, 2)))
    return out.reshape(*out.shape[:2], -1, d_BhwO.shape[3])[:, :, : size[1]]
