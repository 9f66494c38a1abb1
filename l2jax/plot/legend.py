"""Lines of strengths: how each looks, and the legend that says so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from l2jax.plot.strengths import strength_colours


def strength_styles(strengths: np.ndarray) -> list[dict[str, Any]]:
    """One line style per strength, in ascending order: from light (weak) to dark (strong); 0 is black and dashed."""
    colours = strength_colours(strengths, zero="black")
    dashed = {"linestyle": "--", "zorder": 2.5}
    return [
        {"color": colour, **({"linestyle": "-"} if l2 > 0 else dashed)}
        for l2, colour in zip(strengths, colours, strict=True)
    ]


def strength_legend(
    ax: Axes, labels: Sequence[str], *, styles: list[dict[str, Any]], others: Sequence[Line2D] = ()
) -> None:
    """Draws a legend of ascending strengths beside the axes, the strongest first, followed by `others`."""
    strongest_first = zip(labels[::-1], styles[::-1], strict=True)  # as the lines lie: the strongest is the highest
    handles = [Line2D([], [], label=label, linewidth=2, **style) for label, style in strongest_first]
    handles += others
    columns, size = math.ceil(len(handles) / 24), "small" if len(handles) > 14 else "medium"
    position = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5)}
    style = {"title": "L2 strength", "labelspacing": 0.3, "frameon": False, "ncols": columns, "fontsize": size}
    ax.legend(handles=handles, **position, **style)
