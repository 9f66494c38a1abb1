"""Convolutions with kernels of 3x3, and the gradients of these kernels, by fewer multiplications.

Winograd's minimal filtering F(2x2, 3x3), as Lavin and Gray (2016), https://arxiv.org/abs/1509.09308, section 4, give
it: a tile of 2x2 outputs takes 16 multiplications for a pair of channels, not 36. Sums of the 4x4 inputs that a tile
sees, and sums of a kernel's 3x3 weights, give 4x4 places each. For each place, one matrix product is over all tiles.
Sums of the 4x4 results give the tile. The factors in these sums are 1 and a half, so rounding errors hardly grow.

Some rows of tiles are done at a time, so that all of this stays in the second cache.

Names carry shapes: B images, H and W rows and columns of x, h and w of the output, K and K of the kernel, C input and O
output channels, P places, T tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from l2jax.native.axes import Axis
from l2jax.native.call import cpu
from l2jax.native.correlate import sum_of_products
from l2jax.native.gather import matrix_product
from l2jax.native.loops import Builder, Index, Value, at, each, pieces, store, zeros
from l2jax.native.tiles import SEEN, Blocks, Matrix, inputs, number_of_tiles, outputs, transform

# B^T, G and A^T of the paper's equation 9.
INPUTS: Matrix = (1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)
WEIGHTS: Matrix = (1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1)
OUTPUTS: Matrix = (1, 1, 1, 0), (0, 1, -1, -1)

TAPS = 3
PLACES = SEEN**2

LEAST_CHANNELS = 16
"""With fewer, in or out, the sums take as long as the multiplications that they save."""
LEAST_TILES, LEAST_TILES_FOR_GRADIENT = 4, 16
"""Images of fewer tiles take longer so."""
MOST_TILES = 64
"""At a time."""
LINE = 16
"""Numbers in a line of a cache."""


def suits(rows: Sequence[Axis], cols: Sequence[Axis], kernel_shape: Sequence[int], *, least_tiles: int) -> bool:
    """Whether what has these axes can be computed so, in less time."""
    is_dense = all(axis.taps.number == TAPS and axis.taps.stride == axis.taps.spacing == 1 for axis in (*rows, *cols))
    if not is_dense or len(rows) * len(cols) > 1 or min(kernel_shape[2:]) < LEAST_CHANNELS:
        return False
    return number_of_tiles(rows[0]) * number_of_tiles(cols[0]) >= least_tiles


def scratch_size(rows: Axis, cols: Axis, kernel_shape: Sequence[int]) -> int:
    """The numbers that both of the functions need room for on the way."""
    return PLACES * sum(_spreads(rows, cols, kernel_shape))


def convolve(
    b: Builder,
    batch: Value,
    x: Value,
    kernel: Value,
    out: Value,
    scratch: Value,
    *,
    rows: Axis,
    cols: Axis,
    kernel_shape: tuple[int, ...],
) -> None:
    """Writes the code: outputs (B, h, w, O) from inputs (B, H, W, C).

    Args:
      scratch: room for `scratch_size` numbers.
      rows, cols: as in `gather`, where they suit.
      kernel_shape: (3, 3, C, O).
    """
    channels, features = kernel_shape[2:]
    across = number_of_tiles(cols)
    kernel_PCO, x_PTC, out_PTO = _parts(b, scratch, rows, cols, kernel_shape)
    transform(b, WEIGHTS, _weights(b, kernel, rows, cols, kernel_shape), kernel_PCO.block(channels * features))

    def some_rows(tiles: Blocks, first: Value, number: int) -> None:
        def product(p: Value) -> None:
            x_TC, kernel_CO, out_TO = (part.matrix(b, p) for part in (x_PTC, kernel_PCO, out_PTO))
            matrix_product(b, x_TC, kernel_CO, out_TO, (number * across, channels, features))

        each(b, PLACES, product)
        transform(b, OUTPUTS, out_PTO.blocks(b, tiles, first), tiles, first, number)

    _each_rows(b, batch, x, out, x_PTC, rows, cols, kernel_shape, some_rows)


def kernel_gradient(
    b: Builder,
    batch: Value,
    x: Value,
    d: Value,
    out: Value,
    scratch: Value,
    *,
    rows: Axis,
    cols: Axis,
    kernel_shape: tuple[int, ...],
) -> None:
    """Writes the code: (3, 3, C, O) from x (B, H, W, C) and the gradient of the outputs d (B, h, w, O).

    The steps of the convolution that follow the sums of the inputs, each transposed.

    Args:
      scratch, rows, cols, kernel_shape: as in `convolve`.
    """
    channels, features = kernel_shape[2:]
    across = number_of_tiles(cols)
    kernel_PCO, x_PTC, d_PTO = _parts(b, scratch, rows, cols, kernel_shape)
    _clear(b, kernel_PCO.pointer, PLACES * kernel_PCO.spread)

    def some_rows(tiles: Blocks, first: Value, number: int) -> None:
        def product(p: Value) -> None:
            x_TC, d_TO, kernel_CO = (part.matrix(b, p) for part in (x_PTC, d_PTO, kernel_PCO))
            sum_of_products(b, x_TC, d_TO, kernel_CO, (number * across, channels, features), is_added=True)

        transform(b, _transposed(OUTPUTS), tiles, d_PTO.blocks(b, tiles, first), first, number)
        each(b, PLACES, product)

    _each_rows(b, batch, x, d, x_PTC, rows, cols, kernel_shape, some_rows)
    weights = _weights(b, out, rows, cols, kernel_shape)
    transform(b, _transposed(WEIGHTS), kernel_PCO.block(channels * features), weights)


class _Part(NamedTuple):
    """A matrix for each place.

    Attributes:
      pointer: to the first.
      spread: numbers from one to the next.
    """

    pointer: Value
    spread: int

    def matrix(self, b: Builder, p: Value) -> Value:
        return at(b, self.pointer, (p, self.spread))

    def block(self, numbers: int) -> Blocks:
        """Each whole matrix as one vector of a block, of a single tile."""
        inside = [(True,) * SEEN]
        return Blocks(self.pointer, numbers, (0, 0), (SEEN * self.spread, self.spread), inside, inside)

    def blocks(self, b: Builder, like: Blocks, first: Index) -> Blocks:
        """Row by row of the matrices those of some tiles, of which the first row begins them.

        Args:
          like: other blocks of these tiles.
        """
        row, inside = len(like.cols) * like.channels, (True,) * SEEN
        return Blocks(
            at(b, self.pointer, (first, -row)),
            like.channels,
            (row, like.channels),
            (SEEN * self.spread, self.spread),
            [inside] * len(like.rows),
            [inside] * len(like.cols),
        )


def _parts(
    b: Builder, scratch: Value, rows: Axis, cols: Axis, kernel_shape: Sequence[int]
) -> tuple[_Part, _Part, _Part]:
    """Of the scratch: matrices (C, O) for the kernel, (T, C) for the inputs and (T, O) for the outputs."""
    kernel, x, out = _spreads(rows, cols, kernel_shape)
    starts = (at(b, scratch, (PLACES * before, 1)) for before in (0, kernel, kernel + x))
    kernel, x, out = (_Part(*part) for part in zip(starts, (kernel, x, out), strict=True))
    return kernel, x, out


def _spreads(rows: Axis, cols: Axis, kernel_shape: Sequence[int]) -> tuple[int, ...]:
    channels, features = kernel_shape[2:]
    tiles = _rows_at_once(rows, cols) * number_of_tiles(cols)
    # One more line of the cache from place to place, or all places would compete for the same few lines.
    return tuple(-(-n // LINE) * LINE + LINE for n in (channels * features, tiles * channels, tiles * features))


def _rows_at_once(rows: Axis, cols: Axis) -> int:
    """Of tiles, in parts of about one size."""
    parts = -(-number_of_tiles(rows) // max(1, MOST_TILES // number_of_tiles(cols)))
    return -(-number_of_tiles(rows) // parts)


def _each_rows(
    b: Builder,
    batch: Value,
    x: Value,
    out: Value,
    x_PTC: _Part,
    rows: Axis,
    cols: Axis,
    kernel_shape: Sequence[int],
    body: Callable[[Blocks, Value, int], None],
) -> None:
    """Writes, for some rows of tiles at a time, the sums of their inputs, and a body: (tiles, the first row, how many).

    Args:
      x, out: images (B, H, W, C), and those that consist of the tiles (B, h, w, O).
      x_PTC: gets the sums.
    """
    channels, features = kernel_shape[2:]

    def image(n: Value) -> None:
        x_HWC = at(b, x, (n, rows.size * cols.size * channels))
        out_hwO = at(b, out, (n, rows.outputs * cols.outputs * features))

        def some_rows(first: Value, number: int) -> None:
            seen, tiles = inputs(b, x_HWC, rows, cols, channels), outputs(out_hwO, rows, cols, features)
            transform(b, INPUTS, seen, x_PTC.blocks(b, seen, first), first, number)
            body(tiles, first, number)

        pieces(b, number_of_tiles(rows), _rows_at_once(rows, cols), some_rows)

    each(b, batch, image)


def _clear(b: Builder, pointer: Value, numbers: int) -> None:
    pieces(b, numbers, cpu().lanes, lambda n, lanes: store(b, zeros(lanes), at(b, pointer, (n, 1))))


def _weights(b: Builder, kernel: Value, rows: Axis, cols: Axis, kernel_shape: Sequence[int]) -> Blocks:
    """A kernel as the block of a single tile, its taps in the order in which outputs see them."""
    numbers, inside = kernel_shape[2] * kernel_shape[3], [(True,) * TAPS]
    first_tap = at(b, kernel, ((rows.taps.first * TAPS + cols.taps.first) * numbers, 1))
    steps = rows.taps.step * TAPS * numbers, cols.taps.step * numbers
    return Blocks(first_tap, numbers, (0, 0), steps, inside, inside)


def _transposed(matrix: Matrix) -> Matrix:
    return list(zip(*matrix, strict=True))
