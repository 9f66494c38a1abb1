"""Softmax, as attention has it, in native code with a gradient of its own.

Differentiated as it is written, XLA:CPU computes exponentials and quotients again inside the sums of the gradient.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import JaxprEqn, Literal

from l2jax.native import softmax as native
from l2jax.native.call import call
from l2jax.rewrite.interpreter import Made


def softmax(division: JaxprEqn, made: Made) -> Array | None:
    """The pattern that ends with `div`: exponentials over their sum. None where something else is divided."""
    found = softmax_of(division, made)
    if found is None:
        return None
    x, axes = made.value(found[0]), found[1]
    if x.dtype != jnp.float32 or not x.size:
        return None
    order = (*(axis for axis in range(x.ndim) if axis not in axes), *axes)
    rows_MN = x.transpose(order).reshape(-1, math.prod(x.shape[axis] for axis in axes))
    return normalised_exp(rows_MN).reshape([x.shape[axis] for axis in order]).transpose(np.argsort(order))


def softmax_of(division: JaxprEqn, made: Made) -> tuple[Any, tuple[int, ...]] | None:
    """What a division is the softmax of, and over which axes."""
    numerator, denominator = division.invars
    exp, axes = made.equation(numerator), _summed_axes(denominator, numerator, made)
    if axes is None or exp is None or exp.primitive.name != "exp" or exp.params.get("accuracy") is not None:
        return None
    return _unshifted(exp.invars[0], axes, made), axes


def _unshifted(atom: Any, axes: tuple[int, ...], made: Made) -> Any:
    """What was there before a number was subtracted from each row, such as its maximum; softmax is the same without."""
    shift = made.equation(atom)
    if shift is None or shift.primitive.name != "sub":
        return atom
    x, number = shift.invars
    sizes = np.shape(made.value(number))
    is_per_row = len(sizes) == np.ndim(made.value(x)) and all(sizes[axis] == 1 for axis in axes)
    return x if is_per_row else atom


def _summed_axes(atom: Any, terms: Any, made: Made) -> tuple[int, ...] | None:
    """The axes of `terms` that a variable is the sum over, broadcast again; None if it is no such sum."""
    if isinstance(terms, Literal) or atom.aval.ndim != terms.aval.ndim:
        return None
    kept = range(atom.aval.ndim)  # for each axis of what is looked at, the axis in the end
    while (eqn := made.equation(atom)) and eqn.primitive.name == "broadcast_in_dim":
        (atom,) = eqn.invars
        kept = [kept[axis] for axis in eqn.params["broadcast_dimensions"]]
        if any(size != terms.aval.shape[axis] for size, axis in zip(atom.aval.shape, kept, strict=True) if size != 1):
            return None
    if eqn is None or eqn.primitive.name != "reduce_sum" or eqn.invars != [terms]:
        return None
    axes = tuple(int(axis) for axis in eqn.params["axes"])
    return axes if list(kept) == [axis for axis in range(terms.aval.ndim) if axis not in axes] else None


@jax.custom_vjp
def normalised_exp(x_MN: Array) -> Array:
    """exp(x) divided by its sum in each row."""
    rows, length = x_MN.shape
    return call(native.normalised_exp, jax.ShapeDtypeStruct(x_MN.shape, x_MN.dtype), x_MN, rows=rows, length=length)


def _normalised_exp_fwd(x_MN: Array) -> tuple[Array, Array]:
    out = normalised_exp(x_MN)
    return out, out


normalised_exp.defvjp(_normalised_exp_fwd, lambda out_MN, d_out_MN: (_gradient(out_MN, d_out_MN),))


@jax.custom_jvp
def _gradient(out_MN: Array, d_out_MN: Array) -> Array:
    rows, length = out_MN.shape
    result = jax.ShapeDtypeStruct(out_MN.shape, out_MN.dtype)
    return call(native.normalised_exp_gradient, result, out_MN, d_out_MN, rows=rows, length=length)


@_gradient.defjvp
def _gradient_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    return _gradient(*primals), jax.jvp(_as_written, primals, tangents)[1]


def _as_written(out_MN: Array, d_out_MN: Array) -> Array:
    return out_MN * (d_out_MN - (out_MN * d_out_MN).sum(1, keepdims=True))
