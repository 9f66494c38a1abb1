"""Max-pooling of images (B, H, W, C) with a bias and ReLU, and its gradient.

`which` (B, h, w, C) says for each output which tap of its window holds the maximum, as a whole number in float32: the
first of them, or `NONE` where ReLU is 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from llvmlite import ir

from l2jax.native.axes import Axis
from l2jax.native.call import cpu
from l2jax.native.loops import (
    FLOAT,
    Builder,
    Value,
    at,
    each,
    intrinsic,
    linear,
    load,
    loop,
    pieces,
    range_inside,
    splat,
    store,
    zeros,
)

NONE = -1.0


def pool(
    b: Builder,
    batch: Value,
    x: Value,
    bias: Value,
    out: Value,
    *which: Value,
    rows: Axis,
    cols: Axis,
    channels: int,
    has_relu: bool,
) -> None:
    """Writes the code: the pooled images (B, h, w, C), and `which` if there is a place for it."""

    def window(x_HWC: Value, place: Value, row: Value, col: Value, c: Value, lanes: int) -> None:
        def better(k: Value, m: Value, x_row: Value, best: list[Value]) -> list[Value]:
            top, *tap = best
            x_col = linear(b, m, cols.taps.spacing, col)
            here = load(b, at(b, x_HWC, (x_row, cols.size * channels), (x_col, channels), (c, 1)), lanes)
            is_better = b.or_(b.fcmp_ordered(">", here, top), b.fcmp_unordered("uno", here, here))
            taps = [b.select(is_better, _number(b, k, m, cols.taps.number, lanes), before) for before in tap]
            return [b.select(is_better, here, top), *taps]

        def tap_row(k: Value, sums: list[Value]) -> Sequence[Value]:
            x_row = linear(b, k, rows.taps.spacing, row)
            inside = range_inside(b, col, cols.taps.spacing, cols.size, cols.taps.number)
            return loop(b, *inside, lambda m, sums: better(k, m, x_row, sums), sums)

        lowest = splat(b, ir.Constant(FLOAT, float("-inf")), lanes)
        inside = range_inside(b, row, rows.taps.spacing, rows.size, rows.taps.number)
        top, *tap = loop(b, *inside, tap_row, [lowest, *(zeros(lanes) for _ in which)])
        top = b.fadd(top, load(b, at(b, bias, (c, 1)), lanes))
        if has_relu:
            top = intrinsic(b, "llvm.maximum", top, zeros(lanes))
            none = splat(b, ir.Constant(FLOAT, NONE), lanes)
            tap = [b.select(b.fcmp_ordered(">", top, zeros(lanes)), one, none) for one in tap]
        for pointer, vector in zip((out, *which), (top, *tap), strict=True):
            store(b, vector, at(b, pointer, (place, channels), (c, 1)))

    def image(number: Value) -> None:
        x_HWC = at(b, x, (number, rows.size * cols.size * channels))

        def output(n: Value, m: Value) -> None:
            place = linear(b, linear(b, number, rows.outputs, n), cols.outputs, m)
            row, col = (_first_tap(b, axis, at) for axis, at in ((rows, n), (cols, m)))
            pieces(b, channels, cpu().lanes, lambda c, lanes: window(x_HWC, place, row, col, c, lanes))

        each(b, rows.outputs, lambda n: each(b, cols.outputs, lambda m: output(n, m)))

    each(b, batch, image)


def unpool(
    b: Builder,
    batch: Value,
    d: Value,
    which: Value,
    out: Value,
    *,
    rows: tuple[Axis, ...],
    cols: tuple[Axis, ...],
    channels: int,
    width: int,
) -> None:
    """Writes the code: the gradient of the images, from that of the pooled ones and `which`.

    Args:
      rows, cols: the axes of the transpose.
      width: of the pooling window, in columns.
    """

    def image(number: Value) -> None:
        for row_axis, col_axis in itertools.product(rows, cols):
            size = row_axis.size * col_axis.size * channels
            d_hwC, which_hwC = at(b, d, (number, size)), at(b, which, (number, size))
            out_HWC = at(b, out, (number, row_axis.out_size * col_axis.out_size * channels))
            _phase(b, d_hwC, which_hwC, out_HWC, row_axis, col_axis, channels, width)

    each(b, batch, image)


def _phase(
    b: Builder, d_hwC: Value, which_hwC: Value, out_HWC: Value, rows: Axis, cols: Axis, channels: int, width: int
) -> None:
    def pixel(n: Value, m: Value) -> None:
        row, col = (_first_tap(b, axis, at) for axis, at in ((rows, n), (cols, m)))
        column = linear(b, m, cols.step, cols.first)
        out_C = at(
            b,
            out_HWC,
            (n, rows.step * cols.out_size * channels),
            (rows.first * cols.out_size * channels, 1),
            (column, channels),
        )

        def some(c: Value, lanes: int) -> None:
            def tap(k: Value, q: Value, total: Value) -> Value:
                place = (
                    (linear(b, k, rows.taps.spacing, row), cols.size * channels),
                    (linear(b, q, cols.taps.spacing, col), channels),
                    (c, 1),
                )
                number = _number(b, _of_kernel(b, k, rows), _of_kernel(b, q, cols), width, lanes)
                is_here = b.fcmp_ordered("==", load(b, at(b, which_hwC, *place), lanes), number)
                return b.fadd(total, b.select(is_here, load(b, at(b, d_hwC, *place), lanes), zeros(lanes)))

            def tap_row(k: Value, totals: list[Value]) -> Sequence[Value]:
                inside = range_inside(b, col, cols.taps.spacing, cols.size, cols.taps.number)
                return loop(b, *inside, lambda q, totals: [tap(k, q, *totals)], totals)

            inside = range_inside(b, row, rows.taps.spacing, rows.size, rows.taps.number)
            (total,) = loop(b, *inside, tap_row, [zeros(lanes)])
            store(b, total, at(b, out_C, (c, 1)))

        pieces(b, channels, cpu().lanes, some)

    each(b, rows.outputs, lambda n: each(b, cols.outputs, lambda m: pixel(n, m)))


def _first_tap(b: Builder, axis: Axis, output: Value) -> Value:
    """The place in the input that an output's first tap sees."""
    return linear(b, output, axis.taps.stride, axis.taps.offset)


def _of_kernel(b: Builder, tap: Value, axis: Axis) -> Value:
    """The place in the window of a tap of the transpose."""
    return linear(b, tap, axis.taps.step, axis.taps.first)


def _number(b: Builder, row: Value, column: Value, width: int, lanes: int) -> Value:
    """What `which` calls a place in a window of so many columns."""
    return splat(b, b.sitofp(linear(b, row, width, column), FLOAT), lanes)
