"""Rows of exponentials divided by their sum, and the gradient of that."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from llvmlite import ir

from l2jax.native.call import cpu
from l2jax.native.loops import FLOAT, INT, Builder, Value, at, each, index, intrinsic, load, loop, splat, store, zeros

LOWEST = -87.33654
"""Below, exponentials are smaller than float32's least normal number, and 0 here."""

LN2 = (0.693359375, -2.12194440e-4)
"""ln 2 as a number of few digits, which whole numbers can be multiplied with exactly, and what it lacks."""

POLYNOMIAL = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
"""(exp(r) - 1 - r) / r^2 for |r| < ln(2) / 2, from r^5 down, to float32's precision (Moshier, Cephes, 1992)."""


def normalised_exp(b: Builder, _: Value, x: Value, out: Value, *, rows: int, length: int) -> None:
    """Writes the code: exp(x) over its sum in each row, from which the row's maximum is subtracted first."""

    def row(n: Value) -> None:
        x_row, out_row = (at(b, pointer, (n, length)) for pointer in (x, out))

        def maximum(first: Value, top: Value) -> Value:
            here = load(b, at(b, x_row, (first, 1)), top.type.count)
            return _joined(b, "fmax", here, top)  # never NaN, which is seen in the sum

        top = _over_row(b, length, maximum, "fmax", -math.inf)

        def exponentials(first: Value, total: Value) -> Value:
            lanes = total.type.count
            value = exp(b, b.fsub(load(b, at(b, x_row, (first, 1)), lanes), splat(b, top, lanes)))
            store(b, value, at(b, out_row, (first, 1)))
            return b.fadd(total, value)

        factor = b.fdiv(ir.Constant(FLOAT, 1.0), _over_row(b, length, exponentials, "fadd", 0.0))

        def divided(first: Value, total: Value) -> Value:
            place, lanes = at(b, out_row, (first, 1)), total.type.count
            store(b, b.fmul(load(b, place, lanes), splat(b, factor, lanes)), place)
            return total

        _over_row(b, length, divided)

    each(b, rows, row)


def normalised_exp_gradient(b: Builder, _: Value, y: Value, d: Value, out: Value, *, rows: int, length: int) -> None:
    """Writes the code: y * (d - sum(y * d)) in each row, where y is what `normalised_exp` made."""

    def row(n: Value) -> None:
        y_row, d_row, out_row = (at(b, pointer, (n, length)) for pointer in (y, d, out))

        def product(first: Value, total: Value) -> Value:
            one, other = (load(b, at(b, pointer, (first, 1)), total.type.count) for pointer in (y_row, d_row))
            return intrinsic(b, "llvm.fmuladd", one, other, total)

        mean = _over_row(b, length, product, "fadd", 0.0)

        def gradient(first: Value, total: Value) -> Value:
            lanes = total.type.count
            one, other = (load(b, at(b, pointer, (first, 1)), lanes) for pointer in (y_row, d_row))
            store(b, b.fmul(one, b.fsub(other, splat(b, mean, lanes))), at(b, out_row, (first, 1)))
            return total

        _over_row(b, length, gradient)

    each(b, rows, row)


def _over_row(
    b: Builder, length: int, body: Callable[[Value, Value], Value], how: str = "fadd", start: float = 0.0
) -> Value:
    """Writes (first, totals) to the next totals, vector by vector, for all numbers of a row; returns one total.

    Args:
      how: the totals are put together, as LLVM calls it.
      start: the total of nothing.
    """
    lanes = cpu().lanes
    whole = length - length % lanes
    ends = []
    if whole:
        blank = [_constant(b, lanes, start)]
        ends += loop(b, 0, whole // lanes, lambda n, t: [body(b.mul(n, index(lanes)), t[0])], blank)
    if length > whole:
        ends.append(body(index(whole), _constant(b, length - whole, start)))
    return functools.reduce(functools.partial(_joined, b, how), (_reduced(b, how, end, start) for end in ends))


def _joined(b: Builder, how: str, one: Value, other: Value) -> Value:
    return b.fadd(one, other) if how == "fadd" else b.select(b.fcmp_ordered(">", one, other), one, other)


def _reduced(b: Builder, how: str, vector: Value, start: float) -> Value:
    """The total of a vector's numbers, in the order that is fastest."""
    name = f"llvm.vector.reduce.{how}.v{vector.type.count}f32"
    first = [ir.Constant(FLOAT, start)] if how == "fadd" else []
    kind = ir.FunctionType(FLOAT, [*(FLOAT for _ in first), vector.type])
    function = b.module.globals.get(name) or ir.Function(b.module, kind, name)
    flags = ("reassoc",) if how == "fadd" else ("nnan",)
    return b.call(function, [*first, vector], fastmath=flags)


def exp(b: Builder, x: Value) -> Value:
    """The exponentials of a vector of numbers that are not positive: 2^n * exp(r), n whole and |r| < ln(2) / 2."""
    lanes = x.type.count
    constant = functools.partial(_constant, b, lanes)
    is_low = b.fcmp_ordered("<", x, constant(LOWEST))
    inside = b.select(is_low, constant(LOWEST), x)
    n = intrinsic(b, "llvm.roundeven", b.fmul(inside, constant(1 / math.log(2))))
    r = inside
    for part in LN2:
        r = intrinsic(b, "llvm.fmuladd", n, constant(-part), r)
    polynomial = functools.reduce(
        lambda total, factor: intrinsic(b, "llvm.fmuladd", total, r, constant(factor)),
        POLYNOMIAL[1:],
        constant(POLYNOMIAL[0]),
    )
    value = b.fadd(intrinsic(b, "llvm.fmuladd", polynomial, b.fmul(r, r), r), constant(1.0))
    # 2^n by its bits. minnum makes a number of what is none.
    ints = ir.VectorType(INT, lanes)
    whole = b.fptosi(intrinsic(b, "llvm.minnum", n, constant(0.0)), ints)
    bits = b.shl(b.add(whole, ir.Constant(ints, [127] * lanes)), ir.Constant(ints, [23] * lanes))
    return b.select(is_low, zeros(lanes), b.fmul(value, b.bitcast(bits, x.type)))


def _constant(b: Builder, lanes: int, number: float) -> Value:
    return splat(b, ir.Constant(FLOAT, number), lanes)
