"""Strengths as figures and charts show them: positions on a logarithmic axis, colours, and limits of their curves."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.colors import to_hex

from l2jax.results.spread import Group


def axis_positions(strengths: np.ndarray) -> np.ndarray:
    """Positions of ascending strengths on a logarithmic axis: their own values, and for 0 one left of the others."""
    if strengths[0] > 0:
        return strengths
    if len(strengths) == 1:
        return np.ones(1)
    step = max(3.0, (strengths[-1] / strengths[1]) ** 0.18)
    return np.concatenate([[strengths[1] / step], strengths[1:]])


def group_positions(strengths: np.ndarray, groups: Sequence[Group]) -> np.ndarray:
    """Where groups of ascending strengths stand: in their middle, and 0 left of the others."""
    zero = axis_positions(strengths)[0]
    return np.array([group.middle if group.high > 0 else zero for group in groups])


def segments(strengths: np.ndarray) -> list[np.ndarray]:
    """Masks of the points to connect: 0 and the positive strengths, because 0 is not on a logarithmic axis."""
    return [segment for segment in (strengths == 0, strengths > 0) if segment.any()]


def strength_colours(strengths: np.ndarray, zero: str, *, dark: bool = False) -> list[str]:
    """One colour per strength: the stronger, the further from the background, and none of them close to it.

    Args:
      strengths: in ascending order.
      zero: the colour of strength 0.
      dark: whether the background is dark.
    """
    colormap, weakest = ("viridis", 0.3) if dark else ("viridis_r", 0.12)
    positive = matplotlib.colormaps[colormap](np.linspace(weakest, 1, np.count_nonzero(strengths)))
    colours = map(to_hex, positive)
    return [next(colours) if l2 > 0 else zero for l2 in strengths]


def log_limits(values: np.ndarray, diverged: np.ndarray) -> tuple[float, float]:
    """Limits of a logarithmic axis: they hold all values, but diverged trials do not squeeze the others.

    Args:
      values: (strengths, trials, ...)
      diverged: (strengths, trials), whether the trial diverged.
    """
    positive, finished = (array[np.isfinite(array) & (array > 0)] for array in (values, values[~diverged]))
    if not positive.size:
        return 0.1, 10.0
    low, high = float(positive.min()), float(positive.max())
    if finished.size:
        high = min(high, 10 * float(finished.max()))
    margin = max(1.01, (high / low) ** 0.05)
    return low / margin, high * margin
