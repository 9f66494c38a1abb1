"""The gradient of a kernel, from inputs and the gradient of the outputs; also that of a matrix.

A sum over all outputs of all images. The innermost loop goes over a row of outputs and keeps a block of sums in
registers: of some channels, and of neighbouring taps where there are few, times some vectors of features. Some rows are
done for all taps and channels before the next, so that they are read from the first cache.

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
    larger,
    linear,
    load_all,
    loop,
    multiply_add,
    multiply_add_each,
    pieces,
    prefetch,
    range_inside,
    smaller,
    store_all,
    unless,
    widths_of,
    zeros,
)

TILE = 64
"""Outputs of an image that are summed over before the next taps and channels."""

WIDE = 256
"""Where outputs have so many features, a tile is read piece by piece, which CPUs do not foresee: they are told."""


def correlate(
    b: Builder,
    batch: Value,
    x: Value,
    d: Value,
    out: Value,
    *,
    rows: Axis,
    cols: Axis,
    kernel_shape: tuple[int, ...],
    depthwise: bool = False,
    is_added: bool = False,
) -> None:
    """Writes the code: (K, K, C, O) from x (B, H, W, C) and the gradient of the outputs d (B, h, w, O).

    Args:
      rows, cols: as in the convolution.
      kernel_shape: (K, K, C, O).
      depthwise: C is 1, but x has O channels, each of which belongs to one of d.
      is_added: to what is there, instead of replacing it.
    """
    channels, features = kernel_shape[2:]
    pixel, times = (features, multiply_add_each) if depthwise else (channels, multiply_add)
    lanes, registers = cpu()
    vectors = min(-(-features // lanes), 2)
    most = registers // 2 // vectors
    at_once = min(channels, most)
    taps_at_once = max(1, min(most // channels, cols.taps.number))
    tile = max(1, min(rows.outputs, TILE // cols.outputs))

    def image(number: Value) -> None:
        x_HWC = at(b, x, (number, rows.size * cols.size * pixel))
        d_hwO = at(b, d, (number, rows.outputs * cols.outputs * features))

        def some_rows(n: Value) -> None:
            start = b.mul(n, index(tile))
            end = smaller(b, b.add(start, index(tile)), rows.outputs)
            is_first = b.icmp_signed("==", b.add(n, number), index(0))

            def tap_row(k: Value) -> None:
                offset = linear(b, k, rows.taps.spacing, rows.taps.offset)
                low, high = range_inside(b, offset, rows.taps.stride, rows.size, rows.outputs)
                low, high = larger(b, low, start), smaller(b, high, end)
                out_KCO = at(b, out, (k, cols.taps.number * channels * features))

                def some_features(o: Value, width: int) -> None:
                    widths = widths_of(width, lanes)
                    for tap in range(0, cols.taps.number, taps_at_once):
                        taps = range(tap, min(tap + taps_at_once, cols.taps.number))

                        def some_channels(c: Value, number: int, taps: range = taps) -> None:
                            block = list(itertools.product(taps, range(number)))
                            places = [
                                at(b, out_KCO, (c, features), (o, 1), ((tap * channels + n) * features, 1))
                                for tap, n in block
                            ]

                            def so_far() -> list[Value]:
                                return [vector for place in places for vector in load_all(b, place, widths)]

                            def row(m: Value, sums: list[Value]) -> Sequence[Value]:
                                x_row = linear(b, m, rows.taps.stride, offset)
                                x_WC = at(b, x_HWC, (x_row, cols.size * pixel), (c, 1), (o, int(depthwise)))
                                d_wO = at(b, d_hwO, (m, cols.outputs * features), (o, 1))
                                return _add_row(b, x_WC, d_wO, sums, cols, block, features, widths, pixel, times)

                            blank = [zeros(lanes) for lanes in widths] * len(block)
                            before = so_far() if is_added else unless(b, is_first, so_far, blank)
                            sums = loop(b, low, high, row, before)
                            for n, place in enumerate(places):
                                store_all(b, sums[n * len(widths) : (n + 1) * len(widths)], place)

                        pieces(b, channels, at_once, some_channels)

                pieces(b, features, vectors * lanes, some_features)

            each(b, rows.taps.number, tap_row)

        each(b, -(-rows.outputs // tile), some_rows)

    each(b, batch, image)


def sum_of_products(
    b: Builder, x: Value, d: Value, out: Value, sizes: Sequence[int], *, is_added: bool = False
) -> None:
    """Writes (C, M) times (M, O) to (C, O), given (M, C) and (M, O).

    Args:
      sizes: (M, C, O).
      is_added: as in `correlate`.
    """
    rows, channels, features = sizes
    line, places, shape = identity_axis(1), identity_axis(rows), (1, 1, channels, features)
    correlate(b, index(1), x, d, out, rows=line, cols=places, kernel_shape=shape, is_added=is_added)


def _add_row(
    b: Builder,
    x_WC: Value,
    d_wO: Value,
    sums: list[Value],
    cols: Axis,
    block: list[tuple[int, int]],
    features: int,
    widths: list[int],
    pixel: int,
    times: Callable[..., list[Value]],
) -> list[Value]:
    """The sums of a block of (tap, channel), with a row of outputs added.

    Args:
      pixel: numbers from one pixel of x to the next.
      times: adds a pixel's channel, times the outputs' gradient.
    """

    def seen(output: int) -> list[int]:
        return [n for n, (tap, _) in enumerate(block) if cols.taps.sees(output, tap, cols.size)]

    for members, alike in itertools.groupby(range(cols.outputs), seen):
        outputs = list(alike)

        def output(m: Value, sums: list[Value], members: list[int] = members) -> Sequence[Value]:
            place = at(b, d_wO, (m, features))
            vectors = load_all(b, place, widths)
            if features >= WIDE:
                prefetch(b, at(b, place, (TILE * features, 1)), widths)
            x_C = at(b, x_WC, (m, cols.taps.stride * pixel))
            for n in members:
                tap, channel = block[n]
                its = slice(n * len(widths), (n + 1) * len(widths))
                place = (cols.taps.offset + tap * cols.taps.spacing) * pixel + channel
                sums[its] = times(b, at(b, x_C, (place, 1)), vectors, sums[its])
            return sums

        sums = loop(b, outputs[0], outputs[-1] + 1, output, sums) if members else sums
    return sums
