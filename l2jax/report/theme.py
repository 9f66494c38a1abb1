"""Colours and axes of charts, as Plotly takes them.

A colour is "LIGHT|DARK", one for each colour scheme; the page's script takes the one that it needs.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from l2jax.plot.strengths import axis_positions, log_limits, strength_colours
from l2jax.results import words
from l2jax.results.spread import MOST_STRENGTHS

TEXT, FAINT, GRID, BACK = "#1f2328|#e6e8eb", "#656d76|#9aa2ab", "#e4e6e9|#33383f", "#ffffff|#15181c"
TRAINING, VALIDATION, CHOICE = "#c8540a|#f2944d", "#00527f|#5fb4e5", "#f0c000|#f0e442"
RUNS = (
    "#00527f|#5fb4e5",
    "#c8540a|#f2944d",
    "#007a5a|#3fc79a",
    "#a13d7b|#e08cc0",
    "#7a6a00|#e0cc4a",
    "#444444|#c8c8c8",
)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")


def colours_of_both_schemes(strengths: np.ndarray) -> list[str]:
    """One colour per strength, in ascending order."""
    light, dark = TEXT.split("|")
    pairs = zip(strength_colours(strengths, light), strength_colours(strengths, dark, dark=True), strict=True)
    return ["|".join(pair) for pair in pairs]


def layout(x: str, y: str) -> dict[str, Any]:
    """Axes titled `x` and `y`, and a legend above them."""
    axis = {"gridcolor": GRID, "linecolor": FAINT, "zeroline": False, "automargin": True, "showline": True}
    return {
        "xaxis": axis | {"title": {"text": x}, "showgrid": False, "ticks": "outside", "tickcolor": FAINT},
        "yaxis": axis | {"title": {"text": y}},
        "font": {"color": TEXT, "size": 13},
        "paper_bgcolor": BACK,
        "plot_bgcolor": BACK,
        "hoverlabel": {"bgcolor": BACK, "bordercolor": FAINT, "font": {"color": TEXT}},
        "hovermode": "closest",
        "margin": {"l": 10, "r": 12, "t": 28, "b": 10},
        "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
    }


def strength_layout(strengths: np.ndarray, y: str) -> dict[str, Any]:
    """A layout over strengths, in ascending order, whose points stand at their `log_positions`."""
    positions = dict(zip(strengths.tolist(), log_positions(strengths).tolist(), strict=True))
    powers = {l2: at for l2, at in positions.items() if l2 == 0 or abs(at - round(at)) < 0.01}
    ticks = powers if len(powers) > 2 else positions
    if len(strengths) > MOST_STRENGTHS:
        low, high = np.log10(strengths[strengths > 0][[0, -1]])
        inner = np.arange(math.ceil(low - 0.01), math.floor(high + 0.01) + 1)
        places = (inner if len(inner) > 1 else np.array([low, high])).tolist()
        ticks = {l2: at for l2, at in positions.items() if l2 == 0} | {10.0**at: at for at in places}
    axes = layout("L2 strength", y)
    axes["xaxis"] |= {"tickvals": list(ticks.values()), "ticktext": [words.number(l2) for l2 in ticks]}
    return axes


def log_positions(strengths: np.ndarray) -> np.ndarray:
    """Positions of ascending strengths on an axis of powers of ten."""
    return np.log10(axis_positions(strengths))


def log_axis(values: np.ndarray, diverged: np.ndarray) -> dict[str, Any]:
    """A logarithmic y axis; its arguments are those of `log_limits`."""
    limits = np.log10(log_limits(values, diverged)).tolist()
    return {"type": "log", "range": limits, "dtick": "D2", "tickformat": "~g"}
