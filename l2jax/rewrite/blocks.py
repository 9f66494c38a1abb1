"""Convolution as one matrix product per trial, for GPUs: few bytes to move, no groups for cuDNN to loop over.

What decides there is memory traffic. A 3x3 convolution as a product needs the nine inputs of each output in a row,
which is nine times the data. Here a row holds the 4x4 inputs of a block of 2x2 outputs, and the product gives all four
outputs at once: four times the data, for 16/9 of the multiplications, of which there are enough to spare. The four
outputs of a block are what a 2x2 pooling window sees, so pooling is a maximum over an axis.

Names carry shapes: B images, H and W their rows and columns, C input and O output channels, h and w rows and columns of
blocks, K and K those of the kernel.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

from l2jax.native.axes import Pair
from l2jax.rewrite.windows import add_taps, taps

PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))
"""The positions (row, column) in a block."""
NO_PHASE = len(PHASES)


def convolve_blocks(x_BHWC: Array, kernel_KKCO: Array, dtype: DTypeLike, precision: lax.PrecisionLike = None) -> Array:
    """The outputs of a convolution of stride 1, in blocks: (B, h, w, 4, O) in `dtype`; an odd last output is left out.

    Args:
      x_BHWC: padded already.
      dtype: of the inputs of the product, and of what is kept of it; it sums in float32.
      precision: of the product.
    """
    (height, width), (rows, cols) = x_BHWC.shape[1:3], kernel_KKCO.shape[:2]
    h, w = (height - rows + 1) // 2, (width - cols + 1) // 2
    # An even number of columns, so that the inputs of a block are whole pairs of neighbouring pixels.
    cols += 1 + (cols + 1) % 2
    x_BHWC = x_BHWC[:, : 2 * h + rows - 1, : 2 * w + cols - 2]
    x_BHWC = jnp.pad(x_BHWC, ((0, 0), (0, 0), (0, 2 * w + cols - 2 - x_BHWC.shape[2]), (0, 0))).astype(dtype)
    pairs = x_BHWC.reshape(*x_BHWC.shape[:2], w + cols // 2 - 1, -1)
    columns = cast(Array, _columns(pairs, (rows + 1, cols // 2), (2, 1)))
    kernels = _shifted(kernel_KKCO.astype(dtype), rows + 1, cols)
    out = _product(columns, kernels, precision)
    return out.reshape(*out.shape[:3], len(PHASES), -1)


def convolve_columns(
    x_BHWC: Array, kernel_KKCO: Array, strides: Pair, dtype: DTypeLike, precision: lax.PrecisionLike = None
) -> Array:
    """A convolution whose outputs are rows of a product each: (B, h, w, O) in `dtype`. As `convolve_blocks`."""
    columns = cast(Array, _columns(x_BHWC.astype(dtype), kernel_KKCO.shape[:2], strides))
    kernel_NO = kernel_KKCO.reshape(-1, kernel_KKCO.shape[-1]).astype(dtype)
    return _product(columns, kernel_NO, precision)


def _product(columns_BhwN: Array, kernel_NO: Array, precision: lax.PrecisionLike) -> Array:
    return lax.dot_general(columns_BhwN, kernel_NO, (((3,), (0,)), ((), ())), precision=precision)


def unblocked(out: Array) -> Array:
    """Blocks (B, h, w, 4, O) side by side: (B, 2h, 2w, O)."""
    batch, h, w, _, features = out.shape
    return out.reshape(batch, h, w, 2, 2, features).transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * h, 2 * w, features)


def _shifted(kernel_KKCO: Array, rows: int, cols: int) -> Array:
    """The kernel at its place in the inputs of a block, for each output of it: (rows * cols * C, 4 * O)."""
    kh, kw, channels, _ = kernel_KKCO.shape
    at = [jnp.pad(kernel_KKCO, ((p, rows - kh - p), (q, cols - kw - q), (0, 0), (0, 0))) for p, q in PHASES]
    return jnp.stack(at, axis=3).reshape(rows * cols * channels, -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _columns(x_BHWC: Array, size: Pair, strides: Pair) -> Array:
    """The inputs of each window in a row: (B, h, w, size * C).

    Two steps, columns and then rows, because XLA:GPU copies as fast as the memory allows from few pieces at a time
    only; from 16 at once it takes more than twice as long (measured on an H100). The barrier keeps the copy out of the
    product, which would make it again for every tile.
    """
    rows = (x_BHWC.shape[1] - size[0]) // strides[0] + 1
    x_BHwN = jnp.concatenate(taps(x_BHWC, (1, size[1]), (1, strides[1])), axis=3)
    ends = [i + (rows - 1) * strides[0] + 1 for i in range(size[0])]
    columns = jnp.concatenate([x_BHwN[:, i : end : strides[0]] for i, end in enumerate(ends)], axis=3)
    return lax.optimization_barrier(columns)


def _columns_fwd(x_BHWC: Array, size: Pair, strides: Pair) -> tuple[Array, Array]:
    return _columns(x_BHWC, size, strides), x_BHWC


def _columns_bwd(size: Pair, strides: Pair, x_BHWC: Array, d_columns: Array) -> tuple[Array]:
    d_taps_BhwC = jnp.split(d_columns, size[0] * size[1], axis=3)
    return (add_taps(d_taps_BhwC, x_BHWC.shape, size, strides),)


_columns.defvjp(_columns_fwd, _columns_bwd)


@jax.custom_vjp
def pooled_blocks(out: Array, bias_O: Array) -> Array:
    """ReLU of the maximum of each block plus bias: (B, h, w, 4, O) to (B, h, w, O), float32.

    The gradient goes to the first output of a block that holds the maximum, as in `reduce_window`, or to none where
    ReLU is 0: it needs to know only which.
    """
    return _pooled_blocks_fwd(out, bias_O)[0]


def _pooled_blocks_fwd(out: Array, bias_O: Array) -> tuple[Array, tuple[Array, Array]]:
    pooled, phase = relu_of_max([out[..., n, :] for n in range(len(PHASES))], bias_O)
    return pooled, (phase, jnp.zeros((), out.dtype))


def _pooled_blocks_bwd(saved: tuple[Array, Array], d_pooled: Array) -> tuple[Array, Array]:
    phase, zero = saved
    numbers = jnp.arange(len(PHASES), dtype=phase.dtype).reshape(1, 1, 1, -1, 1)
    d_out = jnp.where(phase[..., None, :] == numbers, d_pooled[..., None, :], 0).astype(zero.dtype)
    return d_out, jnp.where(phase < NO_PHASE, d_pooled, 0).sum((0, 1, 2))


pooled_blocks.defvjp(_pooled_blocks_fwd, _pooled_blocks_bwd)


def relu_of_max(phases: list[Array], bias_O: Array | float) -> tuple[Array, Array]:
    """ReLU of the maximum plus bias in float32, and the first phase that holds it, `NO_PHASE` where ReLU is 0."""
    top = functools.reduce(jnp.maximum, phases)
    pooled = jax.nn.relu(top.astype(jnp.float32) + jnp.reshape(bias_O, (1, 1, 1, -1)))
    first = functools.reduce(lambda first, n: jnp.where(phases[n] == top, n, first), (2, 1, 0), jnp.int8(3))
    return pooled, jnp.where(pooled > 0, first, NO_PHASE).astype(jnp.int8)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def multiply_add_pool(
    x_BHWC: Array, kernel_KKCO: Array, bias_O: Array, dtype: DTypeLike, precision: lax.PrecisionLike = None
) -> Array:
    """Convolution, bias, ReLU and 2x2 max-pooling by multiply-adds: (B, h, w, O), float32, rounded to `dtype`.

    For few products per output. Nothing is written but the pooled output, and the phase that it came from. The
    kernel's gradient is a product, of this type and precision: as nine sums over all positions it took 2.5 times as
    long as reading its inputs does (H100, 2026-11-27).
    """
    return _multiply_add_pool(x_BHWC, kernel_KKCO, bias_O, dtype)[0].astype(jnp.float32)


def _multiply_add_pool(x_BHWC: Array, kernel_KKCO: Array, bias_O: Array, dtype: DTypeLike) -> tuple[Array, Array]:
    windows, offsets = _windows(x_BHWC, kernel_KKCO.shape), _offsets(kernel_KKCO.shape)
    # The sum starts with the bias, so that no addition has a product on both sides: equal windows then stay equal.
    kernel_1KKCO, bias_1O = kernel_KKCO[None, None, None], bias_O.reshape(1, 1, 1, -1)
    phases = [
        sum((kernel_1KKCO[..., i, j, c, :] * windows[p + i, q + j, c] for i, j, c in offsets), start=bias_1O)
        for p, q in PHASES
    ]
    pooled, phase = relu_of_max(phases, 0)
    return pooled.astype(dtype), phase


def _multiply_add_pool_fwd(
    x_BHWC: Array, kernel_KKCO: Array, bias_O: Array, dtype: DTypeLike, precision: lax.PrecisionLike
) -> tuple[Array, tuple[Array, Array, Array]]:
    # Kept: otherwise XLA would compute the convolution again where its gradient needs the phase.
    pooled, phase = lax.optimization_barrier(_multiply_add_pool(x_BHWC, kernel_KKCO, bias_O, dtype))
    return pooled.astype(jnp.float32), (x_BHWC, kernel_KKCO, phase)


def _multiply_add_pool_bwd(
    dtype: DTypeLike, precision: lax.PrecisionLike, saved: tuple[Array, Array, Array], d_pooled: Array
) -> tuple[Array, Array, Array]:
    x_BHWC, kernel_KKCO, phase = saved
    rows, cols, channels, _ = kernel_KKCO.shape
    windows = list(_windows(x_BHWC, kernel_KKCO.shape).values())
    # The bias is the kernel of an input that is 1 everywhere.
    columns = jnp.concatenate([*windows, jnp.ones_like(windows[0])], axis=3).astype(dtype)
    d_out, _ = _pooled_blocks_bwd((phase, jnp.zeros((), dtype)), d_pooled)
    over_positions = (((0, 1, 2), (0, 1, 2)), ((), ()))
    options: dict[str, Any] = {"precision": precision, "preferred_element_type": jnp.float32}
    d_columns = lax.dot_general(columns, d_out, over_positions, **options)  # (N + 1, 4, O)
    d_windows = d_columns[:-1].reshape(rows + 1, cols + 1, channels, *d_columns.shape[1:])
    d_kernel = sum(d_windows[p : p + rows, q : q + cols, :, n] for n, (p, q) in enumerate(PHASES))
    # Images need no gradient: the compiler leaves this out for a first layer.
    _, transpose = jax.vjp(lambda x: convolve_blocks(x, kernel_KKCO, dtype, precision), x_BHWC)
    (d_x_BHWC,) = transpose(d_out)
    return d_x_BHWC, cast(Array, d_kernel), d_columns[-1].sum(0)


multiply_add_pool.defvjp(_multiply_add_pool_fwd, _multiply_add_pool_bwd)


def _offsets(kernel_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(itertools.product(*map(range, kernel_shape[:3])))


def _windows(x_BHWC: Array, kernel_shape: tuple[int, ...]) -> dict[tuple[int, ...], Array]:
    """The input of every block at each place that its outputs see: (B, h, w, 1) by row, column and channel."""
    rows, cols, channels, _ = kernel_shape
    h, w = (x_BHWC.shape[1] - rows + 1) // 2, (x_BHWC.shape[2] - cols + 1) // 2
    return {
        (a, b, c): x_BHWC[:, a : a + 2 * h - 1 : 2, b : b + 2 * w - 1 : 2, c : c + 1]
        for a, b, c in itertools.product(range(rows + 1), range(cols + 1), range(channels))
    }
