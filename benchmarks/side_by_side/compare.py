"""The arithmetic: operations per example, ratios of rates, and whether all peers have learnt the same."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from side_by_side.record import Record, Row

SAME_LOSS = 0.1
"""The largest relative difference between training losses that counts as the same."""


def flops_per_example(size: int = 28, classes: int = 10) -> int:
    """Additions and multiplications that training needs per example: matrix products alone, direct convolution.

    Each layer has three products of equal cost: forward, gradient of the kernel, gradient of its input; the images need
    no gradient. Only the cells that a pooling window looks at count: 10x10 of the second convolution's 11x11.
    """
    total, channels = 0, 1
    for filters in (32, 64):
        size = (size - 2) // 2
        product = 2 * (2 * size) ** 2 * (3 * 3 * channels) * filters
        total += product * (2 if channels == 1 else 3)
        channels = filters
    return total + 3 * 2 * size**2 * channels * classes


def ratios(row: Row, others: Iterable[Row]) -> list[float]:
    """The rate of a row over that of the fastest of others in each round; empty if either was not measured."""
    others = [other for other in others if other.rates]
    if not others:
        return []
    fastest = max(others, key=lambda other: statistics.median(other.rates))
    # A slow peer takes part in the first rounds only.
    return [rate / other for rate, other in zip(row.rates, fastest.rates, strict=False)]


def loss_ratio(row: Row, reference: Row | None) -> float | None:
    """A peer's training loss over the reference's at the same strengths; None if either was not measured.

    The median over strengths of the ratio of means over seeds.
    """
    if reference is None or row.losses is None or reference.losses is None:
        return None
    # A slow peer may have the first strengths only.
    pairs = zip(row.losses, reference.losses, strict=False)
    return statistics.median(statistics.fmean(own) / statistics.fmean(other) for own, other in pairs)


def is_same_loss(ratio: float | None) -> bool:
    return ratio is None or abs(ratio - 1) <= SAME_LOSS  # false for NaN


def all_is_well(record: Record) -> bool:
    """Whether no peer failed and all learnt the same."""
    pairs = [(row, measured.reference) for measured in record.groups for row in measured.rows.values()]
    return all(not row.failed and is_same_loss(loss_ratio(row, reference)) for row, reference in pairs)
