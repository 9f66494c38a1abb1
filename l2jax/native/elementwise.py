"""Expressions of arrays of one shape in one pass over memory, however many of them there are and results they have.

One of the arrays may be a matrix product, which then is never in memory; and values may be summed on the way.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from l2jax.native.call import cpu
from l2jax.native.gather import matrix_product
from l2jax.native.loops import (
    ALIGNMENT,
    FLOAT,
    INDEX,
    Builder,
    Index,
    Value,
    at,
    index,
    intrinsic,
    load,
    pieces,
    splat,
    store,
    zeros,
)

VECTORS = 2
"""Registers that a step of the loop takes of each array."""

Operation = tuple[str, tuple[Any, ...]]
"""The name of one of `OPERATIONS`, and its operands: numbers of earlier values, or constants for `constant`.

The values are the scalars, the arrays, the product if there is one, then what the operations before made."""

Place = tuple[Index, int, Sequence[Value]]
"""Where vectors are to be computed: the number of the first, the lanes, and the product there if there is one."""

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
    "sign": lambda b, x: _sign(b, x),
}
"""By name of JAX's primitive."""


def partial_sums() -> tuple[int, int]:
    """The shape of a sum as the code leaves it: parts of it, and what each of them lacks, to be subtracted."""
    return 2, VECTORS * cpu().lanes


def elementwise(b: Builder, _: Value, *pointers: Value, size: int, **static: Any) -> None:
    """Writes the code.

    Args:
      pointers: to arrays, to single numbers, and to the results.
      size: of each array.
      static: as for `_at_places`.
    """
    compute = _at_places(b, pointers, **static)
    pieces(b, size, VECTORS * cpu().lanes, lambda first, lanes: compute([(first, lanes, [])]))


def product_elementwise(
    b: Builder, _: Value, x: Value, d: Value, *pointers: Value, shape: tuple[int, int, int], block: int, **static: Any
) -> None:
    """Writes the same with a product of matrices (C, M) and (M, O) as one more array, (C, O) like the others.

    Args:
      shape: (C, M, O).
      block: rows that are done for all columns before the next; it divides C.
    """
    first = pointers[0]
    compute = _at_places(b, pointers, **static)

    def put(b: Builder, outputs: Sequence[tuple[Sequence[Value], Value]]) -> None:
        places = []
        for vectors, place in outputs:
            offset = b.lshr(b.sub(b.ptrtoint(place, INDEX), b.ptrtoint(first, INDEX)), index(2))
            for vector in vectors:
                places.append((offset, vector.type.count, [vector]))
                offset = b.add(offset, index(vector.type.count))
        compute(places)

    matrix_product(b, x, d, first, shape, lines=shape[0] // block, put=put)


def _at_places(
    b: Builder,
    pointers: Sequence[Value],
    *,
    num_arrays: int,
    num_scalars: int,
    num_others: int,
    program: tuple[Operation, ...],
    made: tuple[int, ...],
    summed: tuple[int, ...],
) -> Callable[[Sequence[Place]], None]:
    """Writes what comes before the loop, and returns what writes it for vectors at some places.

    Args:
      num_arrays: pointers to arrays, which come first.
      num_scalars: pointers to single numbers, which follow.
      num_others: pointers that are not used; those to results come last.
      program: the operations.
      made: the numbers of the values that are results.
      summed: of those whose sums are; each is an array of `partial_sums`.
    """
    arrays, scalars = pointers[:num_arrays], pointers[num_arrays : num_arrays + num_scalars]
    results = pointers[num_arrays + num_scalars + num_others :]
    numbers = [b.load(pointer, typ=FLOAT) for pointer in scalars]
    divisors = {operands[1] for name, operands in program if name == "div"}
    inverses = {n: _inverse(b, number) for n, number in enumerate(numbers) if n in divisors}
    for pointer in results[len(made) :]:
        b.store(zeros(math.prod(partial_sums())), pointer, align=ALIGNMENT)

    def at_place(first: Index, lanes: int, product: Sequence[Value]) -> list[Value]:
        values = [splat(b, number, lanes) for number in numbers]
        values += [*(load(b, at(b, pointer, (first, 1)), lanes) for pointer in arrays), *product]
        inverse = {n: [splat(b, factor, lanes) for factor in factors] for n, factors in inverses.items()}
        for name, operands in program:
            values.append(_value(b, name, operands, values, inverse, lanes))
        for pointer, n in zip(results, made, strict=False):
            store(b, values[n], at(b, pointer, (first, 1)))
        return [values[n] for n in summed]

    def compute(places: Sequence[Place]) -> None:
        terms = [at_place(*place) for place in places]
        for pointer, vectors in zip(results[len(made) :], zip(*terms, strict=True), strict=False):
            for _, alike in itertools.groupby(vectors, lambda vector: vector.type.count):
                _add(b, functools.reduce(b.fadd, alike), pointer)

    return compute


def _sign(b: Builder, x: Value) -> Value:
    """-1, 0, 1 or NaN."""
    one, zero = (ir.Constant(x.type, [number] * x.type.count) for number in (1.0, 0.0))
    return b.select(b.fcmp_ordered(">", x, zero), one, b.select(b.fcmp_ordered("<", x, zero), b.fneg(one), x))


def _add(b: Builder, terms: Value, sums: Value) -> None:
    """Adds a vector to partial sums with what was lost when the last was added (Kahan, 1965); infinities stay."""
    lanes = terms.type.count
    lost_before = at(b, sums, (partial_sums()[1], 1))
    terms, before = b.fsub(terms, load(b, lost_before, lanes)), load(b, sums, lanes)
    after = b.fadd(before, terms)
    lost = b.fsub(b.fsub(after, before), terms)
    is_finite = b.fcmp_ordered("<", intrinsic(b, "llvm.fabs", after), ir.Constant(terms.type, [math.inf] * lanes))
    store(b, b.select(is_finite, lost, zeros(lanes)), lost_before)
    store(b, after, sums)


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
