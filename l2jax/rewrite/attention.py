"""Attention in native code: the pattern of two products with a softmax between them.

Names carry shapes: N sequences times heads, T queries, S keys and values, D and E numbers in a key and in a value.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import JaxprEqn, Literal

from l2jax.native import attention as native
from l2jax.native.call import call_in_place
from l2jax.rewrite.interpreter import Made
from l2jax.rewrite.softmax import softmax_of

MOST_WEIGHTS = 1 << 16
"""Of a sequence and head: they fit the second cache. XLA computes larger ones."""


Names = list[str]
"""Of the axes of an array, as in an einsum."""


def attention(product: JaxprEqn, made: Made) -> Array | None:
    """The pattern that ends with `dot_general`; None where it is no attention, or more than that, such as masked."""
    for side in (0, 1):
        scores = _scores(product.invars[side], made)
        if scores is not None and (out := _attention(product, side, scores, made)) is not None:
            return out
    return None


class _Scores(NamedTuple):
    """What weights are the softmax of.

    Attributes:
      product: the equation that multiplies queries with keys.
      scale: what its output is multiplied with.
      axes: for each axis of the weights, that of the product.
      summed: the axes of the weights whose sum is 1.
    """

    product: JaxprEqn
    scale: float
    axes: list[int]
    summed: tuple[int, ...]


def _scores(weights: Any, made: Made) -> _Scores | None:
    division = made.equation(weights)
    found = softmax_of(division, made) if division is not None and division.primitive.name == "div" else None
    if found is None:
        return None
    atom, summed = found
    axes, scale = list(range(atom.aval.ndim)), 1.0
    while eqn := made.equation(atom):
        numbers = [one.val for one in eqn.invars if isinstance(one, Literal)]
        if eqn.primitive.name == "dot_general":
            return _Scores(eqn, scale, axes, summed)
        if eqn.primitive.name == "transpose":
            axes = [eqn.params["permutation"][axis] for axis in axes]
        elif eqn.primitive.name == "mul" and len(numbers) == 1:
            scale *= float(numbers[0])
        else:
            break
        (atom,) = (one for one in eqn.invars if not isinstance(one, Literal))
    return None


def _attention(product: JaxprEqn, side: int, scores: _Scores, made: Made) -> Array | None:
    """The attention, if the weights, on one side of the product, are summed over as they were normalised."""
    if not _is_plain(product) or not _is_plain(scores.product):
        return None
    one, other = (made.value(atom) for atom in scores.product.invars)
    one_names = [f"query {axis}" for axis in range(one.ndim)]
    other_names, scores_names = _names(scores.product, 0, one_names, "key")
    names = [scores_names[axis] for axis in scores.axes]
    values = made.value(product.invars[1 - side])
    values_names, out_names = _names(product, side, names, "value")

    s = [names[axis] for axis in scores.summed]
    n = [name for name in scores_names if name in one_names and name in other_names]
    if set(s) <= set(one_names):  # the keys are on the left
        one, other, one_names, other_names = other, one, other_names, one_names
    t = [name for name in one_names if name in names and name not in n]
    d = [name for name in one_names if name not in names]
    e = [name for name in values_names if name not in names]
    arrays = (one, one_names, (n, t, d)), (other, other_names, (n, s, d)), (values, values_names, (n, s, e))
    is_attention = all(sorted(names) == sorted(itertools.chain(*groups)) for _, names, groups in arrays)
    if not is_attention or sorted(out_names) != sorted((*n, *t, *e)):
        return None
    q_NTD, k_NSD, v_NSE = (_grouped(*array) for array in arrays)
    if q_NTD.shape[1] * k_NSD.shape[1] > MOST_WEIGHTS or not q_NTD.size * k_NSD.size * v_NSE.size:
        return None
    sizes = dict(zip((*one_names, *values_names), (*one.shape, *values.shape), strict=True))
    out_NTE = cast(Array, attend(q_NTD, k_NSD, v_NSE, scores.scale))
    out = out_NTE.reshape([sizes[name] for name in (*n, *t, *e)])
    return out.transpose([[*n, *t, *e].index(name) for name in out_names])


def _is_plain(product: JaxprEqn) -> bool:
    atoms: list[Any] = [*product.invars, *product.outvars]
    return product.params["precision"] is None and all(atom.aval.dtype == jnp.float32 for atom in atoms)


def _names(product: JaxprEqn, side: int, names: Names, new: str) -> tuple[Names, Names]:
    """The names of the axes of a product's other factor and of its output, given those of the factor on one side.

    Args:
      new: begins the names of axes that only the other factor has.
    """
    axes, batch = product.params["dimension_numbers"]
    pairs = list(zip((*axes[side], *batch[side]), (*axes[1 - side], *batch[1 - side]), strict=True))
    other: Any = product.invars[1 - side]
    known = {axis: names[own] for own, axis in pairs}
    other_names = [known.get(axis, f"{new} {axis}") for axis in range(other.aval.ndim)]
    frees = [[name for axis, name in enumerate(names) if axis not in {own for own, _ in pairs}]]
    frees.append([name for axis, name in enumerate(other_names) if axis not in known])
    return other_names, [*(names[axis] for axis in batch[side]), *frees[side], *frees[1 - side]]


def _grouped(x: Array, names: Names, groups: Sequence[Names]) -> Array:
    """The array with each of these groups of axes as one."""
    order = [names.index(name) for group in groups for name in group]
    return x.transpose(order).reshape([math.prod(x.shape[names.index(name)] for name in group) for group in groups])


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def attend(q_NTD: Array, k_NSD: Array, v_NSE: Array, scale: float) -> Array:
    """softmax(scale * q k^T) v: (N, T, E)."""
    return _out_and_weights(q_NTD, k_NSD, v_NSE, scale)[0]


def _attend_fwd(q_NTD: Array, k_NSD: Array, v_NSE: Array, scale: float) -> tuple[Array, tuple[Array, ...]]:
    out_NTE, weights_NTS = _out_and_weights(q_NTD, k_NSD, v_NSE, scale)
    return out_NTE, (q_NTD, k_NSD, v_NSE, weights_NTS)


attend.defvjp(_attend_fwd, lambda scale, saved, d_out_NTE: _gradients(*saved, d_out_NTE, scale))


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def _out_and_weights(q_NTD: Array, k_NSD: Array, v_NSE: Array, scale: float) -> tuple[Array, Array]:
    (number, queries, width), (_, keys, value_width) = q_NTD.shape, v_NSE.shape
    shapes = (number, queries, value_width), (number, queries, keys), (width, keys)
    sizes = (queries, keys, width, value_width)
    out_NTE, weights_NTS, _ = _call(native.attention, shapes, q_NTD, k_NSD, v_NSE, sizes=sizes, scale=scale)
    return out_NTE, weights_NTS


@functools.partial(jax.custom_jvp, nondiff_argnums=(5,))
def _gradients(
    q_NTD: Array, k_NSD: Array, v_NSE: Array, weights_NTS: Array, d_out_NTE: Array, scale: float
) -> tuple[Array, Array, Array]:
    arrays = q_NTD, k_NSD, v_NSE, weights_NTS, d_out_NTE
    (_, queries, width), (_, keys, value_width) = q_NTD.shape, v_NSE.shape
    shapes = q_NTD.shape, k_NSD.shape, v_NSE.shape, (queries + value_width, keys)
    sizes = (queries, keys, width, value_width)
    d_q, d_k, d_v, _ = _call(native.attention_gradients, shapes, *arrays, sizes=sizes, scale=scale)
    return d_q, d_k, d_v


def _call(write: Any, shapes: Sequence[tuple[int, ...]], *arrays: Array, **static: Any) -> Sequence[Array]:
    return call_in_place(write, [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes], {}, *arrays, **static)


@_out_and_weights.defjvp
def _out_and_weights_jvp(scale: float, primals: Any, tangents: Any) -> Any:
    def as_written(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
        weights = jax.nn.softmax(scale * (q @ k.mT))
        return weights @ v, weights

    return _out_and_weights(*primals, scale), jax.jvp(as_written, primals, tangents)[1]


@_gradients.defjvp
def _gradients_jvp(scale: float, primals: Any, tangents: Any) -> Any:
    def as_written(q: Array, k: Array, v: Array, weights: Array, d_out: Array) -> tuple[Array, Array, Array]:
        d_weights = d_out @ v.mT
        d_scores = scale * weights * (d_weights - (weights * d_weights).sum(2, keepdims=True))
        return d_scores @ k, d_scores.mT @ q, weights.mT @ d_out

    return _gradients(*primals, scale), jax.jvp(as_written, primals, tangents)[1]
