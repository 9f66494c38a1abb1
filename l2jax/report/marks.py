"""What interactive pictures are made of, in Plotly's terms: colours, axes, lines and points, as plain dicts.

A colour is "LIGHT|DARK", one for each colour scheme, which the page that shows them tells apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.colors import to_hex

if TYPE_CHECKING:
    import pandas as pd

TEXT, FAINT, GRID, BACK = "#1f2328|#e6e8eb", "#656d76|#9aa2ab", "#e4e6e9|#33383f", "#ffffff|#15181c"
TRAINING, VALIDATION, CHOSEN = "#c8540a|#f2944d", "#00527f|#5fb4e5", "#f0c000|#f0e442"
RUNS = (
    "#00527f|#5fb4e5",
    "#c8540a|#f2944d",
    "#007a5a|#3fc79a",
    "#a13d7b|#e08cc0",
    "#7a6a00|#e0cc4a",
    "#444444|#c8c8c8",
)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MOST_TRIALS, MOST_EPOCHS = 10, 250
"""What a picture draws of a large sweep: the first trials of a strength, and about so many epochs."""


class Chart(NamedTuple):
    title: str
    reading: str
    """How to read it, and what it shows."""
    figure: dict[str, Any]
    """Plotly's `data` and `layout`. Traces of a strength have its place in ascending order in `meta`."""


def strength_colours(strengths: Iterable[float]) -> list[str]:
    """A colour for each of the strengths, in ascending order: the stronger, the further from the background's own."""
    strengths = list(strengths)
    number = sum(l2 > 0 for l2 in strengths)
    light = map(to_hex, matplotlib.colormaps["viridis_r"](np.linspace(0.12, 1, number)))
    dark = map(to_hex, matplotlib.colormaps["viridis"](np.linspace(0.3, 1, number)))
    coloured = map("|".join, zip(light, dark, strict=True))
    return [next(coloured) if l2 > 0 else TEXT for l2 in strengths]


def line(epochs: Iterable[int], y: Iterable[float], what: str, strength: int) -> dict[str, Any]:
    """A line over epochs; hovering tells what it is, the epoch and the value."""
    hover = {"hovertemplate": f"{what}<br>epoch %{{x}}: %{{y:.4f}}<extra></extra>", "showlegend": False}
    return {"type": "scatter", "x": list(epochs), "y": numbers(y), "meta": strength} | hover


def trace(x: Iterable[float], y: Iterable[float], texts: list[str]) -> dict[str, Any]:
    """Points, with what hovering over each of them tells."""
    hover = {"text": texts, "hovertemplate": "%{text}<extra></extra>", "showlegend": False}
    return {"type": "scatter", "x": numbers(x), "y": numbers(y)} | hover


def means(x: Iterable[float], table: pd.DataFrame, colour: str, bars: str, name: str) -> dict[str, Any]:
    """A line through the means of a table of `stats.Estimate`, a row a strength.

    Args:
      bars: "se", the standard error, or "interval", of 95 %.
    """
    rows = table.to_dict("index")
    texts = [f"{name}, l2 = {l2:.3g}: {told(row, bars)}" for l2, row in rows.items()]
    above, below = (
        (table["se"], table["se"]) if bars == "se" else (table["high"] - table["mean"], table["mean"] - table["low"])
    )
    error = {"type": "data", "array": numbers(above), "arrayminus": numbers(below), "symmetric": False, "color": colour}
    look = {"mode": "lines+markers", "line": {"color": colour, "width": 2.4}, "marker": {"color": colour, "size": 7}}
    named = {"name": name, "showlegend": True, "error_y": error | {"thickness": 1.5, "width": 4}}
    return trace(x, table["mean"], texts) | look | named


def told(row: dict[Any, float], bars: str) -> str:
    """A mean and its uncertainty in words."""
    if bars == "se":
        return f"{row['mean']:.4f}" + ("" if math.isnan(row["se"]) else f" ± {row['se']:.4f}")
    interval = "" if math.isnan(row["low"]) else f", 95% interval {row['low']:.4f} to {row['high']:.4f}"
    return f"{row['mean']:.4f}{interval}"


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


def places(strengths: np.ndarray) -> np.ndarray:
    """Where ascending strengths stand on an axis of powers of ten: 0 a step left of the weakest other."""
    positive = np.log10(strengths[strengths > 0])
    if len(positive) == len(strengths):
        return positive
    left = positive[0] - max(math.log10(3), 0.18 * (positive[-1] - positive[0])) if len(positive) else 0.0
    return np.concatenate([[left], positive])


def strength_ticks(strengths: np.ndarray) -> dict[str, Any]:
    at = dict(zip(strengths.tolist(), places(strengths).tolist(), strict=True))
    tens = {l2: place for l2, place in at.items() if l2 == 0 or abs(place - round(place)) < 0.01}
    shown = tens if len(tens) > 2 else at
    return {"tickvals": list(shown.values()), "ticktext": [f"{l2:.3g}" for l2 in shown]}


def log_range(trials: np.ndarray, diverged: np.ndarray) -> list[float]:
    """Log10 limits of all that is drawn, except that what diverged may not squeeze the others."""
    every, kept = (values[np.isfinite(values) & (values > 0)] for values in (trials, trials[~diverged]))
    if not len(every):
        return [-1.0, 1.0]
    high = min(every.max(), 10 * kept.max()) if len(kept) else every.max()
    low, high = math.log10(every.min()), math.log10(high)
    margin = max(0.01, 0.05 * (high - low))
    return [low - margin, high + margin]


def numbers(values: Iterable[float]) -> list[float | None]:
    """For JSON, which has no NaN."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]
