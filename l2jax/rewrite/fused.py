"""Convolution, ReLU and 2x2 max-pooling as one operation, such as the built-in network's.

Two facts about XLA:CPU decide the shape of the code:

1. An elementwise fusion that ends in a reshape merging the last axes is not vectorised, and divides once per element;
   so reshape before it, or after a copy.
2. Cheap expressions are computed again wherever they are used; the results of `lax.map`, `jnp.stack` and matrix
   products are kept.

Names carry shapes: C input and O output channels, H and W the input's rows and columns, h and w the pooled ones, B
images, K and K the kernel's rows and columns, N = K * K * C products per output, P = h * w * B pooled positions.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

from l2jax.rewrite.pooling import first_equal

PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))
"""The positions (row, column) in a 2x2 pooling window."""

NO_PHASE = len(PHASES)

CHANNELS_AT_ONCE = 8
"""Output channels to work on together, so that intermediate results stay in cache (measured on CPU)."""

KernelShape = tuple[int, ...]  # (K, K, C, O)


class Lowering(NamedTuple):
    """A way to compute the operation, which changes its result by rounding only.

    Attributes:
      dtype: type of the inputs of matrix products; accumulation is float32.
      few_products: if an output is the sum of at most this many products, multiply-adds replace the matrix product
        (measured on CPU).
    """

    dtype: DTypeLike = jnp.float32
    few_products: int = 16


DEFAULT_LOWERING = Lowering()


def conv_relu_max_pool(x: Array, kernel: Array, bias: Array, lowering: Lowering = DEFAULT_LOWERING) -> Array:
    """Convolution, bias, ReLU and 2x2 max-pooling in one, with the batch as the last axis.

    The outputs that pooling windows look at are computed as four dense arrays, one for each position in a window:
    four phases, each a convolution of stride 2. Pooling is then an elementwise maximum, and what it would leave out
    (an odd last row or column) is never computed. ReLU, being monotone, can follow it. The gradient needs to know only
    which phase was passed on: the first that holds the maximum, as in `reduce_window` (in a blank part of an image all
    four are equal), or none where ReLU is 0.

    Args:
      x: (C, H, W, B).
      kernel: (KH, KW, C, O), as in Flax. Stride 1, no padding.
      bias: (O,).
      lowering: how the result is computed.

    Returns:
      (O, (H - KH + 1) // 2, (W - KW + 1) // 2, B).
    """
    return _conv_relu_max_pool(x, kernel, bias, lowering)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _conv_relu_max_pool(x_CHWB: Array, kernel_KKCO: Array, bias_O: Array, lowering: Lowering) -> Array:
    return _conv_relu_max_pool_fwd(x_CHWB, kernel_KKCO, bias_O, lowering)[0]


def _conv_relu_max_pool_fwd(
    x_CHWB: Array, kernel_KKCO: Array, bias_O: Array, lowering: Lowering
) -> tuple[Array, tuple[Array, Array, Array]]:
    if kernel_KKCO[..., 0].size <= lowering.few_products:
        out_OhwB, phase_OhwB = _few_products(x_CHWB, kernel_KKCO, bias_O)
    else:
        kernel_ON = _kernel_matrix(kernel_KKCO)
        all_columns = _phase_columns(x_CHWB, kernel_KKCO.shape)
        phases_OP = [_dot(kernel_ON, columns_NP, 1, 0, lowering.dtype) for columns_NP in all_columns]
        shape = (kernel_KKCO.shape[-1], *_pooled_size(x_CHWB.shape, kernel_KKCO.shape), x_CHWB.shape[-1])
        out_OhwB, phase_OhwB = (a_OP.reshape(shape) for a_OP in _relu_of_max(phases_OP, bias_O[:, None]))
    return out_OhwB, (x_CHWB, kernel_KKCO, phase_OhwB)


def _conv_relu_max_pool_bwd(
    lowering: Lowering, saved: tuple[Array, Array, Array], d_out_OhwB: Array
) -> tuple[Array, Array, Array]:
    x_CHWB, kernel_KKCO, phase_OhwB = saved
    dot = functools.partial(_dot, dtype=lowering.dtype)
    d_out_OP, phase_OP = (a.reshape(len(a), -1) for a in (d_out_OhwB, phase_OhwB))
    d_phases_OP = [jnp.where(phase_OP == n, d_out_OP, 0) for n in range(len(PHASES))]
    if kernel_KKCO[..., 0].size <= lowering.few_products:
        d_kernel_KKCO, d_bias_O = _few_products_bwd(x_CHWB, kernel_KKCO.shape, phase_OP, d_out_OP, dot)
    else:
        all_columns = _phase_columns(x_CHWB, kernel_KKCO.shape)
        d_kernels_NO = [dot(c_NP, d_OP, 1, 1) for c_NP, d_OP in zip(all_columns, d_phases_OP, strict=True)]
        d_kernel_KKCO = functools.reduce(jnp.add, d_kernels_NO).reshape(kernel_KKCO.shape)
        d_bias_O = jnp.where(phase_OP < NO_PHASE, d_out_OP, 0).sum(1)
    kernel_ON = _kernel_matrix(kernel_KKCO)
    d_columns_NP = [dot(kernel_ON, d_OP, 0, 0) for d_OP in d_phases_OP]
    return _add_phase_columns(d_columns_NP, x_CHWB.shape, kernel_KKCO.shape), d_kernel_KKCO, d_bias_O


_conv_relu_max_pool.defvjp(_conv_relu_max_pool_fwd, _conv_relu_max_pool_bwd)


def _relu_of_max(phases: Sequence[Array], bias: Array | int) -> tuple[Array, Array]:
    """ReLU of the maximum of the phases plus bias, and the phase that it came from (int8); all of one shape."""
    top = jnp.maximum(jnp.maximum(phases[0], phases[1]), jnp.maximum(phases[2], phases[3]))
    out = jax.nn.relu(top + bias)
    return out, jnp.where(out > 0, first_equal(phases, top), NO_PHASE).astype(jnp.int8)


def _few_products(x_CHWB: Array, kernel_KKCO: Array, bias_O: Array) -> tuple[Array, Array]:
    """The forward pass for few products: multiply-adds, so that the four phases never leave the registers.

    The sum starts with the bias, so that no addition has a product on both sides: a compiler is free to round either
    of two products before it adds them, and where it does not choose the same for all phases, equal windows differ.

    Returns:
      The pooled output and the phase that it came from, both (O, h, w, B).
    """
    kh, kw, channels, _ = kernel_KKCO.shape
    size = _pooled_size(x_CHWB.shape, kernel_KKCO.shape)
    windows_hwB = {(a, b, c): _every_other(x_CHWB[c], a, b, size) for a, b, c in _window_offsets(kernel_KKCO.shape)}
    taps = list(itertools.product(range(kh), range(kw), range(channels)))

    def one_channel(kernel_and_bias: tuple[Array, Array]) -> tuple[Array, Array]:
        kernel_KKC, bias = kernel_and_bias
        phases_hwB = [
            sum((kernel_KKC[i, j, c] * windows_hwB[p + i, q + j, c] for i, j, c in taps), start=bias) for p, q in PHASES
        ]
        return _relu_of_max(phases_hwB, 0)

    return lax.map(one_channel, (jnp.moveaxis(kernel_KKCO, -1, 0), bias_O), batch_size=CHANNELS_AT_ONCE)


def _few_products_bwd(
    x_CHWB: Array, kernel_shape: KernelShape, phase_OP: Array, d_out_OP: Array, dot: Callable[..., Array]
) -> tuple[Array, Array]:
    """Gradients of kernel and bias for few products: the four phases together, against all inputs of a window."""
    kh, kw, channels, _ = kernel_shape
    size = _pooled_size(x_CHWB.shape, kernel_shape)
    offsets = _window_offsets(kernel_shape)
    windows = jnp.stack([_every_other(x_CHWB[c], a, b, size) for a, b, c in offsets])
    windows = windows.reshape(len(offsets), -1)  # (offsets, P)
    numbers = jnp.arange(len(PHASES), dtype=phase_OP.dtype)

    def one_channel(phase_and_d_out: tuple[Array, Array]) -> tuple[Array | int, Array]:
        phase_P, d_out_P = phase_and_d_out
        d_phases = jnp.where(phase_P[None] == numbers[:, None], d_out_P[None], 0)  # (phases, P)
        d_windows = dot(d_phases, windows, 1, 1).reshape(len(PHASES), kh + 1, kw + 1, channels)
        d_kernel_KKC = sum(d_windows[n, p : p + kh, q : q + kw] for n, (p, q) in enumerate(PHASES))
        return d_kernel_KKC, jnp.where(phase_P < NO_PHASE, d_out_P, 0).sum()

    d_kernel_OKKC, d_bias_O = lax.map(one_channel, (phase_OP, d_out_OP), batch_size=CHANNELS_AT_ONCE)
    return jnp.moveaxis(d_kernel_OKKC, 0, -1), d_bias_O


def _kernel_matrix(kernel_KKCO: Array) -> Array:
    """The kernel as a matrix (O, N).

    The barrier keeps XLA from multiplying with the untransposed kernel instead, which is slower both ways (measured on
    CPU): the layout decides which library computes a product.
    """
    return lax.optimization_barrier(kernel_KKCO.reshape(-1, kernel_KKCO.shape[-1]).T)


def _phase_columns(x_CHWB: Array, kernel_shape: KernelShape) -> list[Array]:
    """The matrices (N, P) that the kernel is multiplied with, one for each phase."""
    kh, kw, _, _ = kernel_shape
    size = _pooled_size(x_CHWB.shape, kernel_shape)
    taps = list(itertools.product(range(kh), range(kw)))
    slices = [jnp.stack([_every_other(x_CHWB, p + i, q + j, size) for i, j in taps]) for p, q in PHASES]
    return [s.reshape(len(x_CHWB) * len(taps), -1) for s in slices]


def _add_phase_columns(d_columns_NP: Sequence[Array], x_shape: tuple[int, ...], kernel_shape: KernelShape) -> Array:
    """The transpose of `_phase_columns`: adds each value up where it was copied from, (C, H, W, B).

    `windows.add_taps` does the same for any stride, with the batch first. Here four phases share the planes, and copies
    that fall on the same place are summed before they are added.
    """
    channels, height, width, batch = x_shape
    kh, kw, _, _ = kernel_shape
    rows, cols = _pooled_size(x_shape, kernel_shape)
    d_taps = [d.reshape(kh, kw, channels, rows, cols, batch) for d in d_columns_NP]  # each (K, K, C, h, w, B)
    # Tap i of phase p is row p + i of a pooling window's input: in the plane of even or odd rows it needs no stride.
    zeros = jnp.zeros((channels, rows + kh // 2, cols + kw // 2, batch), d_taps[0].dtype)
    planes = dict.fromkeys(PHASES, zeros)
    for a, b in itertools.product(range(kh + 1), range(kw + 1)):
        copies = [d_taps[n][a - p, b - q] for n, (p, q) in enumerate(PHASES) if 0 <= a - p < kh and 0 <= b - q < kw]
        u, v = a // 2, b // 2
        planes[a % 2, b % 2] = planes[a % 2, b % 2].at[:, u : u + rows, v : v + cols].add(sum(copies))
    stacked = jnp.stack([jnp.stack([planes[p, q] for q in (0, 1)], axis=3) for p in (0, 1)], axis=2)
    d_x_CHWB = stacked.reshape(channels, 2 * (rows + kh // 2), 2 * (cols + kw // 2), batch)[:, :height, :width]
    return jnp.pad(d_x_CHWB, [(0, size - used) for size, used in zip(x_shape, d_x_CHWB.shape, strict=True)])


def _pooled_size(x_shape: tuple[int, ...], kernel_shape: KernelShape) -> tuple[int, int]:
    """The numbers of pooled rows and columns, (h, w)."""
    return (x_shape[1] - kernel_shape[0] + 1) // 2, (x_shape[2] - kernel_shape[1] + 1) // 2


def _window_offsets(kernel_shape: KernelShape) -> list[tuple[int, int, int]]:
    """The places (row, column, channel) that a pooling window sees through the kernel."""
    kh, kw, channels, _ = kernel_shape
    return list(itertools.product(range(kh + 1), range(kw + 1), range(channels)))


def _every_other(x: Array, row: int, col: int, size: tuple[int, int]) -> Array:
    """Every other row and column of x (..., H, W, B) from (row, col) on, `size` in all: (..., h, w, B)."""
    return x[..., row : row + 2 * size[0] - 1 : 2, col : col + 2 * size[1] - 1 : 2, :]


def _dot(a: Array, b: Array, a_axis: int, b_axis: int, dtype: DTypeLike) -> Array:
    """The matrix product that sums over these axes; the transposes are left to the product itself."""
    contract = (((a_axis,), (b_axis,)), ((), ()))
    return lax.dot_general(a.astype(dtype), b.astype(dtype), contract, preferred_element_type=jnp.float32)
