"""Rows of exponentials divided by their sum, and the gradient of that."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from llvmlite import ir

from l2jax.native.call import cpu
from l2jax.native.loops import FLOAT, Builder, Value, at, each, index, intrinsic, load, loop, splat, store, zeros

INT = ir.IntType(32)
FIRST = ir.Constant(INT, 0)

HIGHEST, LOWEST = 88.72283, -87.33654
"""Above, exponentials are infinite; below, smaller than float32's least normal number, and 0 here."""

LN2 = (0.693359375, -2.12194440e-4)
"""ln 2 as a number of few digits, which whole numbers can be multiplied with exactly, and what it lacks."""

POLYNOMIAL = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
"""(exp(r) - 1 - r) / r^2 for |r| < ln(2) / 2, from r^5 down, to float32's precision (Moshier, Cephes, 1992)."""


def normalised_exp(b: Builder, _: Value, x: Value, out: Value, *, rows: int, length: int) -> None:
    """Writes the code: exp(x) over its sum in each row, from which the row's maximum is subtracted first."""

    def row(n: Value) -> None:
        x_row, out_row = (at(b, pointer, (n, length)) for pointer in (x, out))

        def maximum(first: Value, top: Value, lanes: int) -> Value:
            here = _reduced(b, "fmaximum", load(b, at(b, x_row, (first, 1)), lanes))
            return b.extract_element(intrinsic(b, "llvm.maximum", *(splat(b, n, 1) for n in (top, here))), FIRST)

        top = _over_row(b, length, maximum, -math.inf)

        def exponentials(first: Value, total: Value, lanes: int) -> Value:
            value = exp(b, b.fsub(load(b, at(b, x_row, (first, 1)), lanes), splat(b, top, lanes)))
            store(b, value, at(b, out_row, (first, 1)))
            return b.fadd(total, sum_of(b, value))

        total = _over_row(b, length, exponentials)

        def divided(first: Value, unused: Value, lanes: int) -> Value:
            place = at(b, out_row, (first, 1))
            store(b, b.fdiv(load(b, place, lanes), splat(b, total, lanes)), place)
            return unused

        _over_row(b, length, divided)

    each(b, rows, row)


def normalised_exp_gradient(b: Builder, _: Value, y: Value, d: Value, out: Value, *, rows: int, length: int) -> None:
    """Writes the code: y * (d - sum(y * d)) in each row, where y is what `normalised_exp` made."""

    def row(n: Value) -> None:
        y_row, d_row, out_row = (at(b, pointer, (n, length)) for pointer in (y, d, out))

        def product(first: Value, total: Value, lanes: int) -> Value:
            one, other = (load(b, at(b, pointer, (first, 1)), lanes) for pointer in (y_row, d_row))
            return b.fadd(total, sum_of(b, b.fmul(one, other)))

        mean = _over_row(b, length, product)

        def gradient(first: Value, total: Value, lanes: int) -> Value:
            one, other = (load(b, at(b, pointer, (first, 1)), lanes) for pointer in (y_row, d_row))
            store(b, b.fmul(one, b.fsub(other, splat(b, mean, lanes))), at(b, out_row, (first, 1)))
            return total

        _over_row(b, length, gradient)

    each(b, rows, row)


def _over_row(b: Builder, length: int, body: Callable[[Value, Value, int], Value], start: float = 0.0) -> Value:
    """Writes (first, total, lanes) to the next total for all numbers of a row; returns the last total."""
    lanes = cpu().lanes
    whole = length - length % lanes
    total = ir.Constant(FLOAT, start)
    (total,) = loop(b, 0, whole // lanes, lambda n, t: [body(b.mul(n, index(lanes)), t[0], lanes)], [total])
    return body(index(whole), total, length - whole) if length > whole else total


def sum_of(b: Builder, vector: Value) -> Value:
    """The sum of a vector's numbers, in the order that is fastest."""
    return _reduced(b, "fadd", vector, ir.Constant(FLOAT, -0.0))


def _reduced(b: Builder, how: str, vector: Value, *start: Value) -> Value:
    name = f"llvm.vector.reduce.{how}.v{vector.type.count}f32"
    kind = ir.FunctionType(FLOAT, [*(FLOAT for _ in start), vector.type])
    function = b.module.globals.get(name) or ir.Function(b.module, kind, name)
    return b.call(function, [*start, vector], fastmath=("reassoc",))


def exp(b: Builder, x: Value) -> Value:
    """The exponentials of a vector: 2^n * exp(r), where n is whole and |r| < ln(2) / 2."""
    lanes = x.type.count
    constant = functools.partial(_constant, b, lanes)
    inside = intrinsic(b, "llvm.minimum", intrinsic(b, "llvm.maximum", x, constant(LOWEST)), constant(HIGHEST))
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
    # 2^n by its bits. n can be 128, so it is taken in halves; minnum makes a number of what is none.
    ints = ir.VectorType(INT, lanes)
    whole = b.fptosi(intrinsic(b, "llvm.minnum", n, constant(128.0)), ints)
    half = b.ashr(whole, ir.Constant(ints, [1] * lanes))
    for power in (half, b.sub(whole, half)):
        bits = b.shl(b.add(power, ir.Constant(ints, [127] * lanes)), ir.Constant(ints, [23] * lanes))
        value = b.fmul(value, b.bitcast(bits, x.type))
    value = b.select(b.fcmp_ordered(">", x, constant(HIGHEST)), constant(math.inf), value)
    return b.select(b.fcmp_ordered("<", x, constant(LOWEST)), zeros(lanes), value)


def _constant(b: Builder, lanes: int, number: float) -> Value:
    return splat(b, ir.Constant(FLOAT, number), lanes)
