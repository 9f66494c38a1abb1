"""Which inputs the outputs of a convolution see, along rows and along columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

Pair = tuple[int, ...]
"""One number for rows and one for columns."""


class Window(NamedTuple):
    """How a window of some rows and columns moves over images.

    Attributes:
      strides: from one output to the next, in rows and columns.
      pads: ((top, bottom), (left, right)), negative ones take rows and columns away.
      dilation: from one position in the window to the next.
    """

    strides: Pair = (1, 1)
    pads: tuple[Pair, ...] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)

    def outputs(self, images: Sequence[int], size: Sequence[int]) -> Pair:
        """The rows and columns of outputs that images of some rows and columns give a window of a size."""
        return tuple(
            (n + sum(pads) - (k - 1) * dilation - 1) // stride + 1
            for n, k, stride, pads, dilation in zip(images, size[:2], *self, strict=True)
        )


class Taps(NamedTuple):
    """Along one axis: where an output's window looks, and with what of the kernel.

    Output n sees, by tap m, input `n * stride + offset + m * spacing` and multiplies it with the kernel's number
    `first + m * step`.

    Attributes:
      number: of taps.
      stride: from one output to the next, in the input.
      offset: of the first tap.
      spacing: from one tap to the next, in the input.
      first: the first tap's place in the kernel.
      step: from one tap to the next, in the kernel.
    """

    number: int
    stride: int
    offset: int
    spacing: int
    first: int = 0
    step: int = 1

    def sees(self, output: int, tap: int, size: int) -> bool:
        """Whether a tap of an output is in the input, not in the padding."""
        return 0 <= output * self.stride + self.offset + tap * self.spacing < size


class Axis(NamedTuple):
    """Along one axis: which outputs to compute.

    Attributes:
      size: of the input.
      outputs: how many to compute.
      taps: what each of them sees.
      out_size: of the output.
      first: the first output to write.
      step: from one to the next.
    """

    size: int
    outputs: int
    taps: Taps
    out_size: int
    first: int = 0
    step: int = 1


def identity_axis(size: int) -> Axis:
    """Each output sees the input in its place, as the rows of a matrix product do."""
    return Axis(size, size, Taps(1, 1, 0, 1), size)


def convolution_axes(
    size: Sequence[int], out_size: Sequence[int], kernel: Sequence[int], window: Window
) -> tuple[Axis, ...]:
    """Rows and columns of a convolution."""
    return tuple(
        Axis(n, out, Taps(taps, stride, -before, dilation), out)
        for n, out, taps, stride, (before, _), dilation in zip(size, out_size, kernel[:2], *window, strict=True)
    )


def transposed_axes(
    size: Sequence[int], out_size: Sequence[int], kernel: Sequence[int], window: Window
) -> tuple[tuple[Axis, ...], ...]:
    """Rows and columns of the transpose, from outputs to inputs: one axis for each remainder by the stride."""
    return tuple(
        tuple(_remainder(n, out, taps, stride, before, dilation, place) for place in range(min(stride, n)))
        for n, out, taps, stride, (before, _), dilation in zip(size, out_size, kernel[:2], *window, strict=True)
    )


def _remainder(size: int, out_size: int, kernel: int, stride: int, pad: int, dilation: int, place: int) -> Axis:
    """Every stride-th input from a place on: what every so many taps of the kernel send to it, the last tap first."""
    seen = [tap for tap in range(kernel) if (place + pad - tap * dilation) % stride == 0][::-1] or [0]
    step = stride // math.gcd(stride, dilation)
    offset = (place + pad - seen[0] * dilation) // stride
    number = len(seen) if (place + pad - seen[0] * dilation) % stride == 0 else 0
    taps = Taps(number, 1, offset, step * dilation // stride, seen[0], -step)
    return Axis(out_size, len(range(place, size, stride)), taps, size, place, stride)
