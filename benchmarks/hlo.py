"""What a compiled program does on an accelerator, read from XLA's text: loops, launches, products, bytes."""

from __future__ import annotations

import collections
import math
import re
from typing import NamedTuple

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
NOTHING = {"parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all"}
"""Operations that only give a name to what is there."""


class Operation(NamedTuple):
    """An operation of a computation.

    Attributes:
      name: by which others refer to it.
      shape: of its output.
      opcode: such as "fusion".
      rest: its operands and attributes.
    """

    name: str
    shape: str
    opcode: str
    rest: str

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.\-]+)", self.rest.split("), ")[0])

    @property
    def output(self) -> str:
        """The shape of what it computes: without the memory that a library works in, bytes without a meaning."""
        return re.sub(r", s8\[\d+\]", "", self.shape) if self.opcode == "custom-call" else self.shape

    def attribute(self, name: str) -> str:
        """The computation that an attribute names; empty if there is no such attribute."""
        found = re.search(rf"\b{name}=%?([\w.\-]+)", self.rest)
        return found[1] if found else ""

    @property
    def kind(self) -> str:
        """The opcode; of fusions and calls of libraries, which of them."""
        if self.opcode == "fusion":
            backend = re.search(r'"fusion_backend_config":\{"kind":"(\w+)"', self.rest)
            return f"fusion {backend[1] if backend else self.attribute('kind')}"
        target = re.search(r'custom_call_target="([^"]+)"', self.rest) if self.opcode == "custom-call" else None
        return target[1] if target else self.opcode


class Loop(NamedTuple):
    """A loop of a program.

    Attributes:
      trips: how often it runs; None where the compiler does not know.
      launches: operations of its body; one that is a loop itself counts as one.
      products: matrix products and convolutions, those in fusions too.
      selects: of whole arrays of the carry, as for trials that wait for others.
      inner_loops: in its body.
      written: bytes that an iteration writes.
      read: bytes that it reads at most.
      buffers: (bytes, kind, shape) of the largest outputs.
    """

    trips: int | None
    launches: int
    products: int
    selects: int
    inner_loops: int
    written: int
    read: int
    buffers: list[tuple[int, str, str]]


def size(shape: str) -> int:
    """The bytes of a shape, all parts of a tuple together."""
    arrays = re.findall(r"\b(pred|bf16|[suf]\d+)\[([\d,]*)\]", shape)
    return sum(BYTES[dtype] * math.prod(int(n) for n in dims.split(",") if n) for dtype, dims in arrays)


def computations(text: str) -> dict[str, list[Operation]]:
    """The operations of each computation of a program, by its name."""
    found: dict[str, list[Operation]] = {}
    current: list[Operation] = []
    for line in text.splitlines():
        if begin := re.match(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$", line):
            current = found[begin[1]] = []
        elif operation := re.match(r"^  (?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)(\(.*)$", line):
            current.append(Operation(*operation.groups()))
    return found


def loops(text: str) -> list[Loop]:
    """The loops of a program; the one that writes most comes first."""
    program = computations(text)
    found = [
        _loop(operation, program)
        for operations in program.values()
        for operation in operations
        if operation.opcode == "while"
    ]
    return sorted(found, key=lambda loop: -loop.written)


def _bound(condition: list[Operation]) -> re.Match[str] | None:
    """The constant that a counter is compared with, which is the number of trips; on TPUs nothing else says it."""
    compare, operations = condition[-1], {operation.name: operation for operation in condition}
    if "direction=LT" not in compare.rest:
        return None
    bounds = [operations[name] for name in compare.operands if operations[name].opcode == "constant"]
    return re.match(r"\((\d+)\)", bounds[0].rest) if bounds else None


def _loop(loop: Operation, program: dict[str, list[Operation]]) -> Loop:
    trips = re.search(r'"known_trip_count":\{"n":"?(\d+)', loop.rest) or _bound(program[loop.attribute("condition")])
    body = program[loop.attribute("body")]
    shapes = {operation.name: operation.shape for operation in body}
    launched = [operation for operation in body if operation.opcode not in NOTHING]
    work = [operation for operation in launched if operation.opcode != "while"]
    inside = collections.Counter(o.opcode for op in work for o in program.get(op.attribute("calls"), [op]))
    libraries = [op for op in work if re.search("matmul|gemm|conv", op.kind) and op.opcode == "custom-call"]
    carried = {shape for shape in re.findall(r"f32\[[\d,]+\]", loop.shape) if size(shape) > 2**20}
    selects = [op for op in work for o in program.get(op.attribute("calls"), [op])
               if o.opcode == "select" and o.shape.split("{")[0] in carried]  # fmt: skip
    return Loop(
        int(trips[1]) if trips else None,
        len(launched),
        inside["dot"] + inside["convolution"] + len(libraries),
        len(selects),
        len(launched) - len(work),
        sum(size(op.output) for op in work),
        sum(size(shapes.get(operand, "")) for op in work for operand in op.operands),
        sorted(((size(op.output), op.kind, op.output.split("{")[0]) for op in work), reverse=True)[:10],
    )
