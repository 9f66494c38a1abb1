"""Outputs from the inputs that their windows see: a convolution, the gradient of its images, a matrix product.

The innermost loop keeps a block of sums in registers, those of some neighbouring outputs times some vectors of
features. For each channel it loads the weights once for all of these outputs, and an input once for all of these
features. What falls into the padding is not computed at all. Blocks like this are what Georganas et al. (2018),
https://arxiv.org/abs/1808.05567, found best.

Names carry shapes: B images, H and W rows and columns of x, h and w of the output, K and K of the kernel, C input and O
output channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from l2jax.native.axes import Axis, identity_axis
from l2jax.native.call import cpu
from l2jax.native.loops import (
    Builder,
    Value,
    at,
    each,
    index,
    linear,
    load_all,
    loop,
    multiply_add,
    multiply_add_each,
    pieces,
    range_inside,
    store_all,
    widths_of,
    zeros,
)

Put = Callable[[Builder, Sequence[tuple[Sequence[Value], Value]]], None]
"""(builder, for each output some neighbouring features as vectors, and where they belong)."""


def gather(
    b: Builder,
    batch: Value,
    x: Value,
    kernel: Value,
    out: Value,
    *,
    rows: tuple[Axis, ...],
    cols: tuple[Axis, ...],
    kernel_shape: tuple[int, ...],
    depthwise: bool = False,
    put: Put | None = None,
) -> None:
    """Writes the code: outputs (B, h, w, O) from inputs (B, H, W, C).

    Args:
      rows, cols: the outputs to compute, all rows of `rows` by all columns of `cols`.
      kernel_shape: (K, K, C, O).
      depthwise: C is 1, but x has O channels, each of which is seen by one output channel.
      put: writes what becomes of a block of outputs, if they are not to be stored.
    """
    channels, features = kernel_shape[2:]
    pixel = features if depthwise else channels

    def image(number: Value) -> None:
        for row_axis, col_axis in itertools.product(rows, cols):
            x_HWC = at(b, x, (number, row_axis.size * col_axis.size * pixel))
            out_hwO = at(b, out, (number, row_axis.out_size * col_axis.out_size * features))
            _image(b, x_HWC, kernel, out_hwO, row_axis, col_axis, kernel_shape, depthwise, put)

    each(b, batch, image)


def matrix_product(
    b: Builder, x: Value, kernel: Value, out: Value, sizes: Sequence[int], *, lines: int = 1, put: Put | None = None
) -> None:
    """Writes (M, C) times (C, O) to (M, O).

    Args:
      sizes: (M, C, O).
      lines: the rows are dealt out to so many, each of which is done for all features before the next.
      put: as in `gather`.
    """
    rows, summed, features = sizes
    line, place = identity_axis(lines), identity_axis(rows // lines)
    gather(b, index(1), x, kernel, out, rows=(line,), cols=(place,), kernel_shape=(1, 1, summed, features), put=put)


def _image(
    b: Builder,
    x_HWC: Value,
    kernel_KKCO: Value,
    out_hwO: Value,
    rows: Axis,
    cols: Axis,
    kernel_shape: tuple[int, ...],
    depthwise: bool,
    put: Put | None,
) -> None:
    _, taps_cols, channels, features = kernel_shape
    pixel, times = (features, multiply_add_each) if depthwise else (channels, multiply_add)
    lanes, registers = cpu()
    vectors = min(-(-features // lanes), 2)

    def row(n: Value) -> None:
        offset = linear(b, n, rows.taps.stride, rows.taps.offset)
        seen_rows = range_inside(b, offset, rows.taps.spacing, rows.size, rows.taps.number)
        out_wO = at(b, out_hwO, (n, rows.step * cols.out_size * features), (rows.first * cols.out_size * features, 1))

        def some_features(o: Value, number: int) -> None:
            widths = widths_of(number, lanes)
            for start, width, repeats, seen in _blocks(cols, registers // 2 // vectors):

                def block(m: Value, start: int = start, width: int = width, seen: Sequence[range] = seen) -> None:
                    first = linear(b, m, width, start)

                    def tap_row(k: Value, sums: list[Value]) -> Sequence[Value]:
                        x_row = linear(b, k, rows.taps.spacing, offset)
                        place = (x_row, cols.size * pixel), (first, cols.taps.stride * pixel), (o, int(depthwise))
                        kernel_row = linear(b, k, rows.taps.step, rows.taps.first)
                        kernel_KCO = at(b, kernel_KKCO, (kernel_row, taps_cols * channels * features), (o, 1))
                        x_WC = at(b, x_HWC, *place)
                        return _add_row(b, x_WC, kernel_KCO, sums, cols, seen, channels, features, widths, pixel, times)

                    blank = [zeros(lanes) for lanes in widths] * width
                    sums = loop(b, *seen_rows, tap_row, blank)
                    outputs = []
                    for n in range(width):
                        column = (first, cols.step * features), ((cols.first + n * cols.step) * features, 1)
                        its = sums[n * len(widths) : (n + 1) * len(widths)]
                        outputs.append((its, at(b, out_wO, *column, (o, 1))))
                    (put or _store)(b, outputs)

                each(b, repeats, block)

        pieces(b, features, vectors * lanes, some_features)

    each(b, rows.outputs, row)


def _store(b: Builder, outputs: Sequence[tuple[Sequence[Value], Value]]) -> None:
    for vectors, place in outputs:
        store_all(b, vectors, place)


def _add_row(
    b: Builder,
    x_WC: Value,
    kernel_KCO: Value,
    sums: list[Value],
    cols: Axis,
    seen: Sequence[range],
    channels: int,
    features: int,
    widths: list[int],
    pixel: int,
    times: Callable[..., list[Value]],
) -> list[Value]:
    """The sums, with a row of the kernel added: by tap, for the outputs that see it.

    Args:
      pixel: numbers from one pixel of x to the next.
      times: adds a pixel's channel, times the weights.
    """
    for tap, pixels in enumerate(seen):
        kernel_CO = at(b, kernel_KCO, ((cols.taps.first + tap * cols.taps.step) * channels * features, 1))
        column = cols.taps.offset + tap * cols.taps.spacing

        def channel(
            c: Value,
            sums: list[Value],
            kernel_CO: Value = kernel_CO,
            column: int = column,
            pixels: range = pixels,
        ) -> Sequence[Value]:
            weights = load_all(b, at(b, kernel_CO, (c, features)), widths)
            for n in pixels:
                its = slice(n * len(widths), (n + 1) * len(widths))
                x_pixel = at(b, x_WC, (c, 1), ((n * cols.taps.stride + column) * pixel, 1))
                sums[its] = times(b, x_pixel, weights, sums[its])
            return sums

        sums = loop(b, 0, channels, channel, sums) if pixels else sums
    return sums


def _blocks(cols: Axis, pixels: int) -> list[tuple[int, int, int, tuple[range, ...]]]:
    """A row of outputs in blocks of about equal width: (first, width, how many alike, those that see each tap)."""
    number = -(-cols.outputs // pixels)
    width = -(-cols.outputs // number)
    blocks: list[tuple[int, int, int, tuple[range, ...]]] = []
    for start in range(0, cols.outputs, width):
        inside = range(min(width, cols.outputs - start))
        seen = ([p for p in inside if cols.taps.sees(start + p, tap, cols.size)] for tap in range(cols.taps.number))
        taps = tuple(range(pixels[0], pixels[-1] + 1) if pixels else range(0) for pixels in seen)
        if blocks and (blocks[-1][1], blocks[-1][3]) == (len(inside), taps):
            blocks[-1] = blocks[-1][0], len(inside), blocks[-1][2] + 1, taps
        else:
            blocks.append((start, len(inside), 1, taps))
    return blocks
