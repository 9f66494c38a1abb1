"""Products of rows with a kernel, as convolutions of images by a kernel of one tap.

Rows (M, C) times a kernel (C, O) make outputs (M, O). XLA's own products of this kind are slower, and their gradients
transpose the rows first (measured). Of few rows, as of a batch in a dense layer, the kernel is what takes time to read;
XLA reads, writes and reads it again.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from l2jax.native.axes import Pair, Window
from l2jax.native.correlate import TILE
from l2jax.rewrite.bilinear import convolve, correlate

FEW_ROWS, LEAST_FEATURES = 64, 32
"""At most so many rows are few; and with kernels of fewer features, XLA is faster (measured)."""

LEAST_WIDTH = 16
"""Rows that cannot be dealt out to lines of an image of at least so many pixels are one line."""


def product(
    a: Array, b: Array, *, dimension_numbers: Any, precision: Any, preferred_element_type: Any, **_: Any
) -> Array | None:
    """The rule for `dot_general`, for rows and a kernel; None for what is left to XLA."""
    (a_axes, b_axes), batch = dimension_numbers
    is_float = a.dtype == b.dtype == jnp.float32 and preferred_element_type in (None, jnp.float32)
    if not is_float or precision is not None or any(batch) or not a.size or not b.size:
        return None
    if (a_axes, b_axes) == ((1,), (0,)) and a.ndim == b.ndim == 2:
        return of_few_rows(a, b) if len(a) <= FEW_ROWS and b.shape[1] >= LEAST_FEATURES else None
    if a.ndim < 3:
        return None
    a_rows = [n for n in range(a.ndim) if n not in a_axes]
    b_cols = [n for n in range(b.ndim) if n not in b_axes]
    summed = math.prod(a.shape[n] for n in a_axes)
    x_MC, kernel_CO = a.transpose(*a_rows, *a_axes), b.transpose(*b_axes, *b_cols).reshape(summed, -1)
    out = dense(x_MC.reshape(-1, summed), kernel_CO)
    return out.reshape(*(a.shape[n] for n in a_rows), *(b.shape[n] for n in b_cols))


@jax.custom_vjp
def of_few_rows(x_MC: Array, kernel_CO: Array) -> Array:
    """Rows (M, C) times a kernel (C, O), which is read once."""
    (rows, summed), features = x_MC.shape, kernel_CO.shape[1]
    lines = _lines(summed)
    x_M, d_O = x_MC.T.reshape(1, *lines, rows), kernel_CO.reshape(1, *lines, features)
    return correlate(x_M, d_O, (1, 1), Window())[0, 0]


def _of_few_rows_bwd(saved: tuple[Array, Array], d_MO: Array) -> tuple[Array, Array]:
    x_CM, kernel_CO = saved
    return dense(kernel_CO, d_MO.T).T, x_CM @ d_MO


of_few_rows.defvjp(lambda x_MC, kernel_CO: (of_few_rows(x_MC, kernel_CO), (x_MC.T, kernel_CO)), _of_few_rows_bwd)


def dense(x: Array, kernel_CO: Array) -> Array:
    """Rows (..., C) times a kernel: (..., O)."""
    lines = _lines(math.prod(x.shape[:-1]))
    out = convolve(x.reshape(1, *lines, x.shape[-1]), kernel_CO[None, None], lines, Window())
    return out.reshape(*x.shape[:-1], kernel_CO.shape[1])


def _lines(pixels: int) -> Pair:
    """The rows and columns of an image of so many pixels."""
    width = max(n for n in range(1, TILE + 1) if pixels % n == 0)
    return (pixels // width, width) if width >= LEAST_WIDTH else (1, pixels)
