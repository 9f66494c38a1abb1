"""Bands in which very many trials lie, and their mean."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from l2jax.plot.strengths import group_positions
from l2jax.results.spread import POINTS, Group, Spread, spread, strength_groups

FAINTEST, FAINT = 0.13, 0.25


def draw_against_strength(
    ax: Axes, strengths: np.ndarray, values: np.ndarray, diverged: np.ndarray, **style: Any
) -> None:
    """Draws the spread of trials against groups of strengths, with 0 apart; what they reach sets the axis' limits.

    Args:
      strengths: in ascending order.
      values: (strengths, trials).
      diverged: (strengths, trials).
      **style: of the line of means; its label is given once.
    """
    groups, label = strength_groups(strengths, POINTS), style.pop("label", None)
    positions, drawn = group_positions(strengths, groups), spread(values, diverged, groups)
    width = 1.02 * (positions[-1] / positions[0]) ** 0.02
    for part in (slice(0, _num_zero(groups)), slice(_num_zero(groups), None)):
        if len(positions[part]):
            of_part = drawn.part(part)
            last = part.stop is None or part.stop == len(positions)
            marker = "o" if len(positions[part]) == 1 else None
            draw_spread(
                ax, positions[part], of_part, width=width, marker=marker, label=label if last else None, **style
            )


def _num_zero(groups: list[Group]) -> int:
    return int(groups[0].high == 0)


def draw_spread(ax: Axes, x: np.ndarray, spread: Spread, *, width: float = 1.0, **style: Any) -> None:
    """Draws the middle 90% and the middle half of the trials as bands, and their mean as a line.

    Args:
      x: positions.
      spread: of as many groups as there are positions.
      width: of a band at a single position, as a factor: bands have no area there.
      **style: of the line.
    """
    bounds, wide = spread.quantiles, x
    if len(x) == 1:
        wide, bounds = x * np.array([1 / width, width]), [values.repeat(2) for values in bounds]
    low, lower, upper, high = bounds
    ax.fill_between(wide, low, high, color=style["color"], alpha=FAINTEST, lw=0)
    ax.fill_between(wide, lower, upper, color=style["color"], alpha=FAINT, lw=0)
    ax.plot(x, spread.mean, **style)
