"""Matrix products with a kernel, whose gradients leave the rows as they lie in memory.

The gradient of a kernel sums over all rows. Derived by autodiff it is a product over several axes, for which XLA:CPU
transposes the rows first, and computes anew, column by column, whatever they were computed from: in a separable network
that took a third of a step. As a product of two matrices over their first axis it needs neither.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax


def product(a: Array, b: Array, *, dimension_numbers: Any, precision: Any, **params: Any) -> Array | None:
    """The rule for `dot_general`, for rows (..., C) times a kernel (C, O); None for what is left to XLA."""
    (axes, kernel_axes), batch = dimension_numbers
    is_dense = b.ndim == 2 and tuple(axes) == (a.ndim - 1,) and tuple(kernel_axes) == (0,) and not any(batch)
    is_float = a.dtype == b.dtype == jnp.float32 and params["preferred_element_type"] in (None, jnp.float32)
    return dense(a, b) if is_dense and is_float and a.ndim > 2 and precision is None and a.size and b.size else None


def dense(x: Array, kernel_CO: Array) -> Array:
    """Rows (..., C) times a kernel: (..., O)."""
    rows = math.prod(x.shape[:-1])
    return _dense(x.reshape(rows, x.shape[-1]), kernel_CO).reshape(*x.shape[:-1], kernel_CO.shape[1])


@jax.custom_vjp
def _dense(x_PC: Array, kernel_CO: Array) -> Array:
    return x_PC @ kernel_CO


def _dense_fwd(x_PC: Array, kernel_CO: Array) -> tuple[Array, tuple[Array, Array]]:
    return x_PC @ kernel_CO, (x_PC, kernel_CO)


def _dense_bwd(saved: tuple[Array, Array], d_PO: Array) -> tuple[Array, Array]:
    x_PC, kernel_CO = saved
    return d_PO @ kernel_CO.T, lax.dot_general(x_PC, d_PO, (((0,), (0,)), ((), ())))


_dense.defvjp(_dense_fwd, _dense_bwd)
