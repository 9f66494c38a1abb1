"""The axis of strengths: logarithmic, with 0 set apart."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from l2jax.plot.strengths import axis_positions
from l2jax.results import words
from l2jax.results.results import Results
from l2jax.results.spread import MOST_STRENGTHS

CLOSEST_TICKS = 0.15  # as a fraction of the axis: labels of closer ones would overlap


def strength_axis(ax: Axes, results: Results) -> None:
    """Makes the x axis one of strengths: logarithmic, and broken between 0 and the others."""
    strengths = np.unique(results.data["l2"].values)
    positions = axis_positions(strengths)
    margin = 1.3 * (positions[-1] / positions[0]) ** 0.05
    ax.set(xlabel="L2 strength", xscale="log", xlim=(positions[0] / margin, positions[-1] * margin))
    ticks = _ticks(strengths, positions)
    if strengths[0] == 0:
        ticks = {float(positions[0]): "0", **ticks}
        if len(positions) > 1:
            _draw_break(ax, math.sqrt(positions[0] * positions[1]))
    ax.set_xticks([*ticks], [*ticks.values()])
    ax.set_xticks(strengths[strengths > 0] if len(strengths) <= MOST_STRENGTHS else [], minor=True)
    ax.xaxis.set_minor_formatter(NullFormatter())


def _ticks(strengths: np.ndarray, positions: np.ndarray) -> dict[float, str]:
    """Positions and labels of powers of ten, or where there are too few of them of strengths, if not too close."""
    positive = strengths[strengths > 0]
    if not positive.size:
        return {}
    low, high = np.log10(positive[[0, -1]])
    powers = 10.0 ** np.arange(math.ceil(low - 0.01), math.floor(high + 0.01) + 1)
    by_power, span = len(powers) > 1, math.log(positions[-1] / positions[0])
    ticks: list[float] = []
    for tick in powers if by_power else positive:
        if not ticks or math.log(tick / ticks[-1]) > CLOSEST_TICKS * span:
            ticks.append(float(tick))
    return {tick: f"$10^{{{math.log10(tick):.0f}}}$" if by_power else words.number(tick) for tick in ticks}


def _draw_break(ax: Axes, position: float) -> None:
    """Cuts the x axis at a position."""
    background = {"boxstyle": "square,pad=0.05", "facecolor": ax.get_facecolor(), "edgecolor": "none"}
    at_axis = ax.get_xaxis_transform()
    ax.text(position, 0, "//", transform=at_axis, bbox=background, zorder=5, ha="center", va="center")
