"""Products of rows with a kernel, as convolutions of images by a kernel of one tap.

Rows (M, C) times a kernel (C, O) make outputs (M, O). XLA's own products of this kind are slower, and their gradients
transpose the rows first (measured). Of few rows, as in dense layers at a network's end, XLA's are as fast.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from jax import Array

from l2jax.native.axes import Window
from l2jax.native.correlate import TILE
from l2jax.rewrite.canonical import convolve

LEAST_WIDTH = 16
"""Rows that cannot be dealt out to lines of an image of at least so many pixels are one line."""


def product(
    a: Array, b: Array, *, dimension_numbers: Any, precision: Any, preferred_element_type: Any, **_: Any
) -> Array | None:
    """The rule for `dot_general`, for rows of three axes or more and a kernel; None for what is left to XLA."""
    (a_axes, b_axes), batch = dimension_numbers
    is_float = a.dtype == b.dtype == jnp.float32 and preferred_element_type in (None, jnp.float32)
    if not is_float or precision is not None or any(batch) or a.ndim < 3 or not a.size or not b.size:
        return None
    a_rows = [n for n in range(a.ndim) if n not in a_axes]
    b_cols = [n for n in range(b.ndim) if n not in b_axes]
    summed = math.prod(a.shape[n] for n in a_axes)
    x_MC, kernel_CO = a.transpose(*a_rows, *a_axes), b.transpose(*b_axes, *b_cols).reshape(summed, -1)
    out = dense(x_MC.reshape(-1, summed), kernel_CO)
    return out.reshape(*(a.shape[n] for n in a_rows), *(b.shape[n] for n in b_cols))


def dense(x: Array, kernel_CO: Array) -> Array:
    """Rows (..., C) times a kernel: (..., O)."""
    rows = math.prod(x.shape[:-1])
    width = max(n for n in range(1, TILE + 1) if rows % n == 0)
    size = (rows // width, width) if width >= LEAST_WIDTH else (1, rows)
    out = convolve(x.reshape(1, *size, x.shape[-1]), kernel_CO[None, None], size, Window())
    return out.reshape(*x.shape[:-1], kernel_CO.shape[1])
