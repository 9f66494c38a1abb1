"""Softmax, as attention has it, with a gradient of its own.

Differentiated as it is written, XLA:CPU computes exponentials and quotients again inside the sums of the gradient. Here
both passes keep what they have computed.
"""

from __future__ import annotations

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import JaxprEqn, Literal

from l2jax.rewrite.interpreter import Made


def softmax(division: JaxprEqn, made: Made) -> Array | None:
    """The pattern that ends with `div`: exponentials over their sum. None where something else is divided."""
    numerator, denominator = division.invars
    exp, axes = made.equation(numerator), _summed_axes(denominator, numerator, made)
    if axes is None or exp is None or exp.primitive.name != "exp" or exp.params.get("accuracy") is not None:
        return None
    x = made.value(exp.invars[0])
    # Without axes of size 1, such as attention has: with five axes, XLA:CPU's sums take three times as long.
    kept = [axis for axis, size in enumerate(x.shape) if size > 1]
    squeezed = x.reshape([x.shape[axis] for axis in kept])
    out = cast(Array, normalised_exp(squeezed, tuple(kept.index(axis) for axis in axes if axis in kept)))
    return out.reshape(x.shape)


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def normalised_exp(x: Array, axes: tuple[int, ...]) -> Array:
    """exp(x) divided by its sum over the axes."""
    return _normalised_exp_fwd(x, axes)[0]


def _normalised_exp_fwd(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    e = lax.optimization_barrier(jnp.exp(x))
    out = lax.optimization_barrier(e / e.sum(axes, keepdims=True))
    return out, out


def _normalised_exp_bwd(axes: tuple[int, ...], out: Array, d_out: Array) -> tuple[Array]:
    d_out = lax.optimization_barrier(d_out)
    return (out * (d_out - (out * d_out).sum(axes, keepdims=True)),)


normalised_exp.defvjp(_normalised_exp_fwd, _normalised_exp_bwd)
