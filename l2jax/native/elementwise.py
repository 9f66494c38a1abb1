"""Expressions of arrays of one shape in one pass over memory, however many of them there are and results they have."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from l2jax.native.call import cpu
from l2jax.native.loops import FLOAT, Builder, Value, at, intrinsic, load, pieces, splat, store

VECTORS = 2
"""Registers that a step of the loop takes of each array."""

Operation = tuple[str, tuple[Any, ...]]
"""The name of one of `OPERATIONS`, and its operands: numbers of earlier values, or constants for `constant`.

The values are the arrays, then the scalars, then what the operations before made."""

CONTRACT = ("contract",)  # a product that is added is rounded once

OPERATIONS: dict[str, Callable[..., Value]] = {
    "add": lambda b, x, y: b.fadd(x, y, flags=CONTRACT),
    "add_any": lambda b, x, y: b.fadd(x, y, flags=CONTRACT),
    "sub": lambda b, x, y: b.fsub(x, y, flags=CONTRACT),
    "mul": lambda b, x, y: b.fmul(x, y, flags=CONTRACT),
    "div": lambda b, x, y: b.fdiv(x, y),
    "neg": lambda b, x: b.fneg(x),
    "square": lambda b, x: b.fmul(x, x, flags=CONTRACT),
    "max": lambda b, x, y: intrinsic(b, "llvm.maximum", x, y),
    "min": lambda b, x, y: intrinsic(b, "llvm.minimum", x, y),
    "sqrt": lambda b, x: intrinsic(b, "llvm.sqrt", x),
    "abs": lambda b, x: intrinsic(b, "llvm.fabs", x),
}
"""By name of JAX's primitive."""


def elementwise(
    b: Builder,
    _: Value,
    *pointers: Value,
    size: int,
    num_arrays: int,
    num_scalars: int,
    program: tuple[Operation, ...],
    made: tuple[int, ...],
) -> None:
    """Writes the code.

    Args:
      size: of each array.
      num_arrays: pointers to arrays, which come first.
      num_scalars: pointers to single numbers; those to results follow.
      program: the operations.
      made: the numbers of the values that are results.
    """
    arrays, scalars = pointers[:num_arrays], pointers[num_arrays : num_arrays + num_scalars]
    numbers = [b.load(pointer, typ=FLOAT) for pointer in scalars]
    divisors = {operands[1] - num_arrays for name, operands in program if name == "div"}
    inverses = {num_arrays + n: _inverse(b, number) for n, number in enumerate(numbers) if n in divisors}

    def some(first: Value, lanes: int) -> None:
        values = [load(b, at(b, pointer, (first, 1)), lanes) for pointer in arrays]
        values += [splat(b, number, lanes) for number in numbers]
        inverse = {n: [splat(b, factor, lanes) for factor in factors] for n, factors in inverses.items()}
        for name, operands in program:
            values.append(_value(b, name, operands, values, inverse, lanes))
        for pointer, n in zip(pointers[num_arrays + num_scalars :], made, strict=True):
            store(b, values[n], at(b, pointer, (first, 1)))

    pieces(b, size, VECTORS * cpu().lanes, some)


def _inverse(b: Builder, number: Value) -> list[Value]:
    """Two factors to multiply with, which takes less time than to divide by the number, and differs by rounding.

    The second is 1, but for numbers so large that their inverse is too small for float32.
    """
    large = ir.Constant(FLOAT, 2.0**100)
    is_large = b.or_(b.fcmp_ordered(">", number, large), b.fcmp_ordered("<", number, b.fneg(large)))
    factor = b.select(is_large, ir.Constant(FLOAT, 2.0**-64), ir.Constant(FLOAT, 1.0))
    return [b.fdiv(ir.Constant(FLOAT, 1.0), b.fmul(number, factor)), factor]


def _value(
    b: Builder, name: str, operands: Sequence[Any], values: list[Value], inverses: dict[int, list[Value]], lanes: int
) -> Value:
    if name == "constant":
        return splat(b, ir.Constant(FLOAT, operands[0]), lanes)
    if name == "div" and operands[1] in inverses:
        return functools.reduce(b.fmul, inverses[operands[1]], values[operands[0]])
    return OPERATIONS[name](b, *(values[n] for n in operands))
