"""Blocks of vectors, some for each tile of 2x2 outputs, and linear transforms of them.

Names carry shapes: H and W rows and columns of x, h and w of the output, C channels, O output channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from llvmlite import ir

from l2jax.native.axes import Axis
from l2jax.native.call import cpu
from l2jax.native.loops import (
    FLOAT,
    Builder,
    Index,
    Value,
    at,
    each,
    index,
    larger,
    load,
    pieces,
    smaller,
    splat,
    store,
    zeros,
)

TILE, SEEN = 2, 4
"""Outputs of a tile, and inputs that they see through three taps, along an axis."""

Matrix = Sequence[Sequence[float]]
Block = Sequence[Sequence[Value | None]]
"""Vectors in rows and columns; None is 0."""
Inside = tuple[bool, ...]
"""Which rows, or columns, of a block are inside of an image; the others are 0 and not written."""


class Blocks(NamedTuple):
    """Where they are.

    Attributes:
      pointer: to the first vector of the first tile's.
      channels: numbers in a vector.
      tiles: numbers from a tile to that below, and to that beside it.
      steps: numbers from a vector of a block to that below, and to that beside it.
      rows, cols: what is inside, by row and by column of tiles.
    """

    pointer: Value
    channels: int
    tiles: tuple[int, int]
    steps: tuple[int, int]
    rows: Sequence[Inside]
    cols: Sequence[Inside]


def number_of_tiles(axis: Axis) -> int:
    return -(-axis.outputs // TILE)


def inputs(b: Builder, x_HWC: Value, rows: Axis, cols: Axis, channels: int) -> Blocks:
    """What tiles see of an image: blocks of 4x4."""

    def inside(axis: Axis) -> list[Inside]:
        firsts = (tile * TILE + axis.taps.offset for tile in range(number_of_tiles(axis)))
        return [tuple(0 <= first + n < axis.size for n in range(SEEN)) for first in firsts]

    row, col = cols.size * channels, channels
    pointer = at(b, x_HWC, (rows.taps.offset * row + cols.taps.offset * col, 1))
    return Blocks(pointer, channels, (TILE * row, TILE * col), (row, col), inside(rows), inside(cols))


def outputs(out_hwO: Value, rows: Axis, cols: Axis, features: int) -> Blocks:
    """The tiles of an image of outputs: blocks of 2x2."""

    def inside(axis: Axis) -> list[Inside]:
        return [tuple(first + n < axis.outputs for n in range(TILE)) for first in range(0, axis.outputs, TILE)]

    row, col = cols.outputs * features, features
    return Blocks(out_hwO, features, (TILE * row, TILE * col), (row, col), inside(rows), inside(cols))


def transform(b: Builder, matrix: Matrix, x: Blocks, out: Blocks, first: Index = 0, number: int = 1) -> None:
    """Writes `matrix block matrix^T` of the blocks of x to those of out, for some rows of tiles from the first on."""

    def tile(n: Value, m: Value, rows: tuple[Inside, Inside], cols: tuple[Inside, Inside]) -> None:
        x_C, out_C = (at(b, blocks.pointer, (n, blocks.tiles[0]), (m, blocks.tiles[1])) for blocks in (x, out))

        def some(c: Value, lanes: int) -> None:
            block = _load(b, at(b, x_C, (c, 1)), x.steps, rows[0], cols[0], lanes)
            half = [_combined(b, matrix, column) for column in zip(*block, strict=True)]
            made = [_combined(b, matrix, row) for row in zip(*half, strict=True)]
            _store(b, made, at(b, out_C, (c, 1)), out.steps, rows[1], cols[1], lanes)

        pieces(b, x.channels, cpu().lanes, some)

    for top, bottom, rows in _alike(x.rows, out.rows):
        start, end = larger(b, top, first), smaller(b, bottom, b.add(index(first), index(number)))

        def tile_row(n: Value, start: Value = start, rows: tuple[Inside, Inside] = rows) -> None:
            for left, right, cols in _alike(x.cols, out.cols):
                each(
                    b,
                    right - left,
                    lambda m, left=left, cols=cols: tile(b.add(n, start), b.add(m, index(left)), rows, cols),
                )

        each(b, b.sub(end, start), tile_row)


def _alike(x: Sequence[Inside], out: Sequence[Inside]) -> list[tuple[int, int, tuple[Inside, Inside]]]:
    """Neighbouring rows, or columns, of tiles that have the same inside: (the first, the end, what)."""
    runs = itertools.groupby(enumerate(zip(x, out, strict=True)), lambda one: one[1])
    tiles = [([n for n, _ in run], inside) for inside, run in runs]
    return [(numbers[0], numbers[-1] + 1, inside) for numbers, inside in tiles]


def _load(b: Builder, pointer: Value, steps: tuple[int, int], rows: Inside, cols: Inside, lanes: int) -> Block:
    def vector(row: int, col: int) -> Value | None:
        is_inside = rows[row] and cols[col]
        return load(b, at(b, pointer, (row * steps[0] + col * steps[1], 1)), lanes) if is_inside else None

    return [[vector(row, col) for col in range(len(cols))] for row in range(len(rows))]


def _store(
    b: Builder, block: Block, pointer: Value, steps: tuple[int, int], rows: Inside, cols: Inside, lanes: int
) -> None:
    for row, col in itertools.product(range(len(rows)), range(len(cols))):
        if rows[row] and cols[col]:
            vector = block[row][col] or zeros(lanes)
            store(b, vector, at(b, pointer, (row * steps[0] + col * steps[1], 1)))


def _combined(b: Builder, matrix: Matrix, vectors: Sequence[Value | None]) -> list[Value | None]:
    """The product of a matrix and a column of vectors."""

    def combined(factors: Sequence[float]) -> Value | None:
        total = None
        for factor, vector in zip(factors, vectors, strict=True):
            if not factor or vector is None:
                continue
            if abs(factor) != 1:
                vector = b.fmul(vector, splat(b, ir.Constant(FLOAT, abs(factor)), vector.type.count))
            if total is None:
                total = vector if factor > 0 else b.fneg(vector)
            else:
                total = (b.fadd if factor > 0 else b.fsub)(total, vector)
        return total

    return [combined(factors) for factors in matrix]
