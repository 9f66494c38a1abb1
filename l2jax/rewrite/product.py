"""Products of rows with a kernel, as three operations of which each is the gradient of the other two.

Rows (M, C) times a kernel (C, O) make outputs (M, O). As convolutions of pixels by a kernel of one tap they are calls
of the code of convolutions. XLA's own products of this kind are slower, and their gradients transpose the rows first
(measured). Of few rows, as in dense layers at a network's end, XLA's are as fast.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from l2jax.native.axes import Axis, Taps
from l2jax.native.call import call
from l2jax.native.correlate import TILE, correlate
from l2jax.native.gather import gather

LEAST_WIDTH = 16


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
    x_MC, kernel_CO = (
        a.transpose(*a_rows, *a_axes).reshape(-1, summed),
        b.transpose(*b_axes, *b_cols).reshape(summed, -1),
    )
    return outputs(x_MC, kernel_CO).reshape(*(a.shape[n] for n in a_rows), *(b.shape[n] for n in b_cols))


def dense(x: Array, kernel_CO: Array) -> Array:
    """Rows (..., C) times a kernel: (..., O)."""
    return outputs(x.reshape(-1, x.shape[-1]), kernel_CO).reshape(*x.shape[:-1], kernel_CO.shape[1])


def _operation(f: Callable[..., Array], gradients: Callable[..., tuple[Array, Array]]) -> Callable[..., Array]:
    operation = jax.custom_vjp(f)
    operation.defvjp(lambda a, b: (operation(a, b), (a, b)), lambda saved, d_out: gradients(*saved, d_out))
    return functools.wraps(f)(operation)


def _outputs(x_MC: Array, kernel_CO: Array) -> Array:
    """The product (M, O)."""
    (rows, _), features = x_MC.shape, kernel_CO.shape[1]
    axes = {"rows": (_along(1),), "cols": (_along(rows),)}
    out = jax.ShapeDtypeStruct((1, rows, features), jnp.float32)
    return call(gather, out, x_MC[None], kernel_CO, kernel_shape=(1, 1, *kernel_CO.shape), **axes)[0]


def _kernel(x_MC: Array, d_MO: Array) -> Array:
    """The sum over rows of x times d, (C, O)."""
    rows, shape = len(x_MC), (x_MC.shape[1], d_MO.shape[1])
    width = max(n for n in range(1, TILE + 1) if rows % n == 0)
    height, width = (rows // width, width) if width >= LEAST_WIDTH else (1, rows)
    axes = {"rows": _along(height), "cols": _along(width)}
    out = jax.ShapeDtypeStruct(shape, jnp.float32)
    return call(correlate, out, x_MC[None], d_MO[None], kernel_shape=(1, 1, *shape), **axes)


def _along(size: int) -> Axis:
    return Axis(size, size, Taps(1, stride=1, offset=0, spacing=1), size)


outputs = _operation(_outputs, lambda x, kernel, d: (outputs(d, kernel.T), kernel_of(x, d)))
kernel_of = _operation(_kernel, lambda x, d, kernel: (outputs(d, kernel.T), outputs(x, kernel)))
