"""Attention, and the gradients of it: for each sequence and head, all that it takes is in the cache at once.

Names carry shapes: N sequences times heads, T queries, S keys and values, D and E numbers in a key and in a value.
"""

from __future__ import annotations

from llvmlite import ir

from l2jax.native.correlate import sum_of_products
from l2jax.native.gather import matrix_product
from l2jax.native.loops import ALIGNMENT, FLOAT, Builder, Value, at, each, pieces
from l2jax.native.softmax import normalised_exp, normalised_exp_gradient

UNROLLED = 16
"""Columns that are transposed without a loop."""

Sizes = tuple[int, int, int, int]
"""(T, S, D, E)."""


def attention(
    b: Builder,
    number: Value,
    q: Value,
    k: Value,
    v: Value,
    out: Value,
    weights: Value,
    scratch: Value,
    *,
    sizes: Sizes,
    scale: float,
) -> None:
    """Writes the code: out (N, T, E) and weights (N, T, S) from q (N, T, D), k (N, S, D) and v (N, S, E).

    Args:
      scratch: (D, S).
      scale: of the products of queries and keys.
    """
    queries, keys, width, value_width = sizes

    def one(n: Value) -> None:
        weights_TS = at(b, weights, (n, queries * keys))
        _transpose(b, at(b, k, (n, keys * width)), scratch, (keys, width), scale)
        matrix_product(b, at(b, q, (n, queries * width)), scratch, weights_TS, (queries, width, keys))
        normalised_exp(b, number, weights_TS, weights_TS, rows=queries, length=keys)
        v_SE, out_TE = at(b, v, (n, keys * value_width)), at(b, out, (n, queries * value_width))
        matrix_product(b, weights_TS, v_SE, out_TE, (queries, keys, value_width))

    each(b, number, one)


def attention_gradients(
    b: Builder,
    number: Value,
    q: Value,
    k: Value,
    v: Value,
    weights: Value,
    d_out: Value,
    d_q: Value,
    d_k: Value,
    d_v: Value,
    scratch: Value,
    *,
    sizes: Sizes,
    scale: float,
) -> None:
    """Writes the code: the gradients of q, k and v from that of out.

    Args:
      scratch: T + E rows of S.
    """
    queries, keys, width, value_width = sizes

    def one(n: Value) -> None:
        q_TD, d_q_TD = (at(b, pointer, (n, queries * width)) for pointer in (q, d_q))
        k_SD, d_k_SD = (at(b, pointer, (n, keys * width)) for pointer in (k, d_k))
        v_SE, d_v_SE = (at(b, pointer, (n, keys * value_width)) for pointer in (v, d_v))
        weights_TS, d_out_TE = at(b, weights, (n, queries * keys)), at(b, d_out, (n, queries * value_width))
        d_scores_TS, v_ES = scratch, at(b, scratch, (queries * keys, 1))
        # What the values are scaled by comes out again in the gradients of q and k.
        _transpose(b, v_SE, v_ES, (keys, value_width), scale)
        matrix_product(b, d_out_TE, v_ES, d_scores_TS, (queries, value_width, keys))
        normalised_exp_gradient(b, number, weights_TS, d_scores_TS, d_scores_TS, rows=queries, length=keys)
        matrix_product(b, d_scores_TS, k_SD, d_q_TD, (queries, keys, width))
        sum_of_products(b, d_scores_TS, q_TD, d_k_SD, (queries, keys, width))
        sum_of_products(b, weights_TS, d_out_TE, d_v_SE, (queries, keys, value_width))

    each(b, number, one)


def _transpose(b: Builder, x: Value, out: Value, shape: tuple[int, int], scale: float) -> None:
    """Writes a matrix of this shape, transposed and times a number."""
    rows, columns = shape
    factor = ir.Constant(FLOAT, scale)

    def row(n: Value) -> None:
        def some(first: Value, number: int) -> None:
            source, target = at(b, x, (n, columns), (first, 1)), at(b, out, (first, rows), (n, 1))
            for place in range(number):
                value = b.fmul(b.load(at(b, source, (place, 1)), typ=FLOAT, align=ALIGNMENT), factor)
                b.store(value, at(b, target, (place, rows)), align=ALIGNMENT)

        pieces(b, columns, UNROLLED, some)

    each(b, rows, row)
