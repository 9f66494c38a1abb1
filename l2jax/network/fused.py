"""Convolution, ReLU and max-pooling as one operation: what the sweep's own network is made of.

Two habits of XLA:CPU decide the shape of the code. Elementwise work that ends in a reshape which merges the last axes
runs one element at a time, with a division for each; so a reshape comes before it, or after a copy. And whatever is
cheap to compute is computed anew wherever it is read; results of `lax.map`, `jnp.stack` and matrix products are not.
Why no XLA convolution and no `reduce_window`: see `l2jax.ops`.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))
"""The positions (row, column) in a 2x2 pooling window."""

NO_PHASE = len(PHASES)

CHANNELS_AT_ONCE = 8
"""Output channels to work on together, so that what lies in between stays in cache (measured on CPU)."""


class Lowering(NamedTuple):
    """How the operation is computed, which changes its result by rounding only."""

    dtype: DTypeLike = jnp.float32
    """Of the factors of matrix products; they are summed up in float32 all the same."""
    few_products: int = 16
    """Up to so many products in an output value, multiply-adds replace the matrix product (measured on CPU)."""


DEFAULT_LOWERING = Lowering()


def conv_relu_max_pool(x: Array, kernel: Array, bias: Array, lowering: Lowering = DEFAULT_LOWERING) -> Array:
    """Convolution, bias, ReLU and 2x2 max-pooling in one, with the batch as the last axis.

    The outputs that the pooling windows look at are computed as four dense arrays, one for each position in a window:
    four phases, each a convolution of stride 2. Pooling is then an elementwise maximum, and what it would leave out
    (an odd last row or column) is never computed. ReLU, being monotone, can follow it. All that the gradient needs
    to know is which phase was passed on: the first that holds the maximum, as in `reduce_window` (in a blank part of
    an image all four are equal), or none where ReLU is 0.

    Args:
      x: (C, H, W, B).
      kernel: (KH, KW, C, O), as in Flax. Stride 1, no padding.
      bias: (O,).
      lowering: how, not what, to compute.

    Returns:
      (O, (H - KH + 1) // 2, (W - KW + 1) // 2, B).
    """
    return _conv_relu_max_pool(x, kernel, bias, lowering)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _conv_relu_max_pool(x, kernel, bias, lowering):
    return _conv_relu_max_pool_fwd(x, kernel, bias, lowering)[0]


def _conv_relu_max_pool_fwd(x, kernel, bias, lowering):
    if kernel[..., 0].size <= lowering.few_products:
        out, phase = _few_products(x, kernel, bias)
    else:
        rows = _kernel_rows(kernel)
        phases = [_dot(rows, columns, 1, 0, lowering.dtype) for columns in _phase_columns(x, kernel.shape)]
        shape = (kernel.shape[-1], *_pooled_size(x, kernel.shape), x.shape[-1])
        out, phase = (a.reshape(shape) for a in _relu_of_max(phases, bias[:, None]))
    return out, (x, kernel, phase)


def _conv_relu_max_pool_bwd(lowering, saved, d_out):
    x, kernel, phase = saved
    dot = functools.partial(_dot, dtype=lowering.dtype)
    d_out, phase = (a.reshape(len(a), -1) for a in (d_out, phase))
    d_phases = [jnp.where(phase == n, d_out, 0) for n in range(len(PHASES))]
    if kernel[..., 0].size <= lowering.few_products:
        d_kernel, d_bias = _few_products_bwd(x, kernel.shape, phase, d_out, dot)
    else:
        d_matrices = [dot(c, d, 1, 1) for c, d in zip(_phase_columns(x, kernel.shape), d_phases, strict=True)]
        d_kernel = functools.reduce(jnp.add, d_matrices).reshape(kernel.shape)
        d_bias = jnp.where(phase < NO_PHASE, d_out, 0).sum(1)
    rows = _kernel_rows(kernel)
    d_columns = [dot(rows, d, 0, 0) for d in d_phases]
    return _add_phase_columns(d_columns, x.shape, kernel.shape), d_kernel, d_bias


_conv_relu_max_pool.defvjp(_conv_relu_max_pool_fwd, _conv_relu_max_pool_bwd)


def _relu_of_max(phases, bias):
    """ReLU of the maximum of the phases plus bias, and the phase that it came from (int8)."""
    top = jnp.maximum(jnp.maximum(phases[0], phases[1]), jnp.maximum(phases[2], phases[3]))
    out = jax.nn.relu(top + bias)
    first = 3
    for n in (2, 1, 0):
        first = jnp.where(phases[n] == top, n, first)
    return out, jnp.where(out > 0, first, NO_PHASE).astype(jnp.int8)


def _few_products(x, kernel, bias):
    """The forward pass for few products: multiply-adds, so that the four phases never leave the registers.

    The sum starts with the bias, so that no addition has a product on both sides: a compiler is free to round either
    of two products before it adds them, and where it does not choose the same for all phases, equal windows differ.
    """
    kh, kw, channels, _ = kernel.shape
    size = _pooled_size(x, kernel.shape)
    seen = list(itertools.product(range(kh + 1), range(kw + 1), range(channels)))
    windows = {(a, b, c): _every_other(x[c], a, b, size) for a, b, c in seen}
    taps = list(itertools.product(range(kh), range(kw), range(channels)))

    def one_channel(args):
        kernel, bias = args  # (KH, KW, C), ()
        phases = [sum((kernel[i, j, c] * windows[p + i, q + j, c] for i, j, c in taps), start=bias) for p, q in PHASES]
        return _relu_of_max(phases, 0)

    return lax.map(one_channel, (jnp.moveaxis(kernel, -1, 0), bias), batch_size=CHANNELS_AT_ONCE)


def _few_products_bwd(x, kernel_shape, phase, d_out, dot):
    """Gradients of kernel and bias for few products: the phases together, against all that a pooling window sees."""
    kh, kw, channels, _ = kernel_shape
    size = _pooled_size(x, kernel_shape)
    seen = list(itertools.product(range(kh + 1), range(kw + 1), range(channels)))
    windows = jnp.stack([_every_other(x[c], a, b, size) for a, b, c in seen]).reshape(len(seen), -1)
    numbers = jnp.arange(len(PHASES), dtype=phase.dtype)

    def one_channel(args):
        phase, d_out = args  # (positions * B,)
        d_phases = jnp.where(phase[None] == numbers[:, None], d_out[None], 0)
        d_windows = dot(d_phases, windows, 1, 1).reshape(len(PHASES), kh + 1, kw + 1, channels)
        d_kernel = sum(d_windows[n, p : p + kh, q : q + kw] for n, (p, q) in enumerate(PHASES))
        return d_kernel, jnp.where(phase < NO_PHASE, d_out, 0).sum()

    d_kernel, d_bias = lax.map(one_channel, (phase, d_out), batch_size=CHANNELS_AT_ONCE)
    return jnp.moveaxis(d_kernel, 0, -1), d_bias


def _kernel_rows(kernel):
    """The kernel as a matrix (O, KH * KW * C).

    The barrier keeps XLA from multiplying with the untransposed kernel instead, which is slower both ways (measured on
    CPU): it is the layout that decides which library does a product.
    """
    return lax.optimization_barrier(kernel.reshape(-1, kernel.shape[-1]).T)


def _phase_columns(x, kernel_shape):
    """What each phase multiplies with the kernel: four matrices (KH * KW * C, positions * B)."""
    kh, kw, _, _ = kernel_shape
    size = _pooled_size(x, kernel_shape)
    taps = list(itertools.product(range(kh), range(kw)))
    slices = [jnp.stack([_every_other(x, p + i, q + j, size) for i, j in taps]) for p, q in PHASES]
    return [s.reshape(len(x) * len(taps), -1) for s in slices]


def _add_phase_columns(d_columns, x_shape, kernel_shape):
    """The transpose of `_phase_columns`: adds each value up where it was copied from."""
    channels, height, width, batch = x_shape
    kh, kw, _, _ = kernel_shape
    rows, cols = (height - kh + 1) // 2, (width - kw + 1) // 2
    d_taps = [d.reshape(kh, kw, channels, rows, cols, batch) for d in d_columns]
    # Tap i of phase p is row p + i of a pooling window's input: in the plane of even or odd rows it needs no stride.
    parts = {parity: jnp.zeros((channels, rows + kh // 2, cols + kw // 2, batch), d_taps[0].dtype) for parity in PHASES}
    for a, b in itertools.product(range(kh + 1), range(kw + 1)):
        copies = [d_taps[n][a - p, b - q] for n, (p, q) in enumerate(PHASES) if 0 <= a - p < kh and 0 <= b - q < kw]
        u, v = a // 2, b // 2
        parts[a % 2, b % 2] = parts[a % 2, b % 2].at[:, u : u + rows, v : v + cols].add(sum(copies))
    planes = jnp.stack([jnp.stack([parts[p, q] for q in (0, 1)], axis=3) for p in (0, 1)], axis=2)
    d_x = planes.reshape(channels, 2 * (rows + kh // 2), 2 * (cols + kw // 2), batch)[:, :height, :width]
    return jnp.pad(d_x, [(0, size - seen) for size, seen in zip(x_shape, d_x.shape, strict=True)])


def _pooled_size(x, kernel_shape):
    return (x.shape[1] - kernel_shape[0] + 1) // 2, (x.shape[2] - kernel_shape[1] + 1) // 2


def _every_other(x, row, col, size):
    """Rows and columns of x (..., H, W, B) from (row, col) on, every other one, `size` in all."""
    return x[..., row : row + 2 * size[0] - 1 : 2, col : col + 2 * size[1] - 1 : 2, :]


def _dot(a, b, a_axis, b_axis, dtype):
    """The matrix product that sums over these axes; the transposes are left to the product itself."""
    contract = (((a_axis,), (b_axis,)), ((), ()))
    return lax.dot_general(a.astype(dtype), b.astype(dtype), contract, preferred_element_type=jnp.float32)
