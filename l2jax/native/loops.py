"""Loops over vectors of float32 in LLVM IR: the few words that native code is written in.

Indices and sizes are 64-bit integers, of LLVM or of Python; pointers are to float32. A loop carries values, such as
sums, from one round to the next, which is what keeps them in registers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

INDEX, INT = ir.IntType(64), ir.IntType(32)
FLOAT = ir.FloatType()
POINTER = ir.PointerType()
ALIGNMENT = 4  # of float32; code reads and writes from any element on

READ_DATA_SOON = 0, 2, 1
"""LLVM's numbers for a prefetch that reads, to the second cache, data."""

Builder = Any
"""llvmlite's IRBuilder, whose methods say nothing to type checkers."""
Value = Any
"""A value in LLVM's code."""
Index = Value | int
Body = Callable[[Value, list[Value]], Sequence[Value]]
"""(number of the round, values carried into it) to the values that it carries on."""


def index(number: Index) -> Value:
    return ir.Constant(INDEX, number) if isinstance(number, int) else number


def loop(b: Builder, first: Index, end: Index, body: Body, carried: Sequence[Value] = ()) -> list[Value]:
    """Writes `for number in range(first, end)`, and returns what the last round carried on."""
    before, head, inside, after = b.block, *(b.append_basic_block() for _ in range(3))
    b.branch(head)
    b.position_at_end(head)
    number, values = b.phi(INDEX), [b.phi(value.type) for value in carried]
    b.cbranch(b.icmp_signed("<", number, index(end)), inside, after)
    b.position_at_end(inside)
    carried_on = body(number, list(values))
    following = b.add(number, index(1))
    for phi, start, again in zip([number, *values], [index(first), *carried], [following, *carried_on], strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(again, b.block)
    b.branch(head)
    b.position_at_end(after)
    return values


def each(b: Builder, end: Index, body: Callable[[Value], object]) -> None:
    """Writes a loop that carries nothing."""

    def one(number: Value, _: list[Value]) -> Sequence[Value]:
        body(number)
        return ()

    loop(b, 0, end, one)


def pieces(b: Builder, total: int, size: int, body: Callable[[Value, int], object]) -> None:
    """Writes a body for `size` things at a time and one for what is left over: (first of them, how many)."""
    if total >= size:
        each(b, total // size, lambda number: body(b.mul(number, index(size)), size))
    if total % size:
        body(index(total - total % size), total % size)


def smaller(b: Builder, one: Index, other: Index) -> Value:
    one, other = index(one), index(other)
    return b.select(b.icmp_signed("<", one, other), one, other)


def larger(b: Builder, one: Index, other: Index) -> Value:
    one, other = index(one), index(other)
    return b.select(b.icmp_signed(">", one, other), one, other)


def linear(b: Builder, number: Value, step: int, start: Index) -> Value:
    """start + number * step."""
    return b.add(b.mul(number, index(step)), index(start))


def at(b: Builder, pointer: Value, *terms: tuple[Index, int]) -> Value:
    """The pointer moved by the sum of these numbers of steps times their lengths."""
    offset = index(sum(steps * length for steps, length in terms if isinstance(steps, int)))
    for steps, length in terms:
        if not isinstance(steps, int):
            offset = b.add(offset, b.mul(steps, index(length)))
    return b.gep(pointer, [offset], source_etype=FLOAT)


def range_inside(b: Builder, offset: Value, spacing: int, size: int, number: int) -> tuple[Value, Value]:
    """The n below `number` for which `offset + n * spacing` is in [0, size), as a range."""

    def steps_to(place: Value) -> Value:
        return b.sdiv(b.add(larger(b, place, 0), index(spacing - 1)), index(spacing))

    return steps_to(b.sub(index(0), offset)), smaller(b, steps_to(b.sub(index(size), offset)), number)


def unless(b: Builder, condition: Value, values: Callable[[], list[Value]], others: list[Value]) -> list[Value]:
    """These values, or the others where the condition holds."""
    before, computed, after = b.block, b.append_basic_block(), b.append_basic_block()
    b.cbranch(condition, after, computed)
    b.position_at_end(computed)
    new = values()
    b.branch(after)
    computed = b.block
    b.position_at_end(after)
    chosen = [b.phi(value.type) for value in others]
    for phi, other, value in zip(chosen, others, new, strict=True):
        phi.add_incoming(other, before)
        phi.add_incoming(value, computed)
    return chosen


def widths_of(number: int, lanes: int) -> list[int]:
    """The lengths of the vectors that so many numbers make, the last of them shorter."""
    return [lanes] * (number // lanes) + [number % lanes] * (number % lanes > 0)


def zeros(lanes: int) -> Value:
    return ir.Constant(ir.VectorType(FLOAT, lanes), [0.0] * lanes)


def load(b: Builder, pointer: Value, lanes: int) -> Value:
    return b.load(pointer, typ=ir.VectorType(FLOAT, lanes), align=ALIGNMENT)


def store(b: Builder, vector: Value, pointer: Value) -> None:
    b.store(vector, pointer, align=ALIGNMENT)


def load_all(b: Builder, pointer: Value, widths: Sequence[int]) -> list[Value]:
    """Vectors that lie side by side."""
    return [load(b, at(b, pointer, (sum(widths[:n]), 1)), lanes) for n, lanes in enumerate(widths)]


def store_all(b: Builder, vectors: Sequence[Value], pointer: Value) -> None:
    first = 0
    for vector in vectors:
        store(b, vector, at(b, pointer, (first, 1)))
        first += vector.type.count


def prefetch(b: Builder, pointer: Value, widths: Sequence[int]) -> None:
    """Asks for vectors that lie side by side to be brought to the second cache; they may lie outside of any array."""
    kind = ir.FunctionType(ir.VoidType(), [POINTER, INT, INT, INT])
    function = b.module.globals.get("llvm.prefetch.p0") or ir.Function(b.module, kind, "llvm.prefetch.p0")
    for n in range(len(widths)):
        b.call(function, [at(b, pointer, (sum(widths[:n]), 1)), *(ir.Constant(INT, value) for value in READ_DATA_SOON)])


def multiply_add(b: Builder, pointer: Value, vectors: Sequence[Value], sums: Sequence[Value]) -> list[Value]:
    """The sums, each plus the number at the pointer times its vector; rounded once on CPUs that can."""
    number = b.load(pointer, typ=FLOAT, align=ALIGNMENT)
    return [
        intrinsic(b, "llvm.fmuladd", splat(b, number, vector.type.count), vector, total)
        for vector, total in zip(vectors, sums, strict=True)
    ]


def multiply_add_each(b: Builder, pointer: Value, vectors: Sequence[Value], sums: Sequence[Value]) -> list[Value]:
    """The sums, each plus a vector times one of those that lie side by side at the pointer."""
    others = load_all(b, pointer, [vector.type.count for vector in vectors])
    return [intrinsic(b, "llvm.fmuladd", *terms) for terms in zip(others, vectors, sums, strict=True)]


def splat(b: Builder, number: Value, lanes: int) -> Value:
    """A vector that holds a number everywhere."""
    nothing = ir.Constant(ir.VectorType(FLOAT, lanes), ir.Undefined)
    first = b.insert_element(nothing, number, ir.Constant(INT, 0))
    return b.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(INT, lanes), None))


def intrinsic(b: Builder, name: str, *vectors: Value) -> Value:
    """A function of LLVM's of vectors of one type."""
    kind = vectors[0].type
    name = f"{name}.v{kind.count}f32"
    function = b.module.globals.get(name) or ir.Function(b.module, ir.FunctionType(kind, [kind] * len(vectors)), name)
    return b.call(function, vectors)
