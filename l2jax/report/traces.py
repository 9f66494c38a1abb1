"""Charts, and their lines and points, as plain dicts in Plotly's terms.

They are made without Plotly: the page that shows them brings its script.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from l2jax.results import words
from l2jax.results.spread import Spread

if TYPE_CHECKING:
    import pandas as pd

MOST_TRIALS = 10
"""More trials of a strength are not drawn: only the first ones."""

Bars = Literal["se", "interval"]
"""Error bars: the standard error, or the 95 % interval."""


class Chart(NamedTuple):
    """A chart of the page.

    Attributes:
      title: what it shows.
      reading: how to read it.
      figure: Plotly's `data` and `layout`. A trace that shows a single strength has its index, ascending, in `meta`.
    """

    title: str
    reading: str
    figure: dict[str, Any]


def curve(epochs: Iterable[int], y: Iterable[float], *, label: str, strength: int) -> dict[str, Any]:
    """A line over epochs; hovering shows the label, the epoch and the value.

    Args:
      strength: its index in ascending order, by which the page switches strengths on and off.
    """
    hover = {"hovertemplate": f"{label}<br>epoch %{{x}}: %{{y:.4f}}<extra></extra>", "showlegend": False}
    return {"type": "scatter", "x": list(epochs), "y": json_numbers(y), "meta": strength} | hover


def points(x: Iterable[float], y: Iterable[float], texts: list[str]) -> dict[str, Any]:
    """Points; hovering over one shows its text."""
    hover = {"text": texts, "hovertemplate": "%{text}<extra></extra>", "showlegend": False}
    return {"type": "scatter", "x": json_numbers(x), "y": json_numbers(y)} | hover


def means(x: Iterable[float], table: pd.DataFrame, *, colour: str, bars: Bars, name: str) -> dict[str, Any]:
    """A line through means, with error bars.

    Args:
      table: `Estimate`s, one row per strength.
    """
    rows = zip(table.index.tolist(), table.to_dict("records"), strict=True)
    texts = [f"{name}, {words.strength(l2)}: {_with_bars(row, bars)}" for l2, row in rows]
    above, below = (
        (table["se"], table["se"]) if bars == "se" else (table["high"] - table["mean"], table["mean"] - table["low"])
    )
    error = {"type": "data", "array": json_numbers(above), "arrayminus": json_numbers(below), "symmetric": False}
    look = {"mode": "lines+markers", "line": {"color": colour, "width": 2.4}, "marker": {"color": colour, "size": 7}}
    look |= {"error_y": error | {"color": colour, "thickness": 1.5, "width": 4}}
    return points(x, table["mean"], texts) | look | {"name": name, "showlegend": True}


def bands(x: np.ndarray, spread: Spread, texts: Sequence[str], *, colour: str, dash: str = "solid") -> list[dict]:
    """The middle 90% and the middle half of trials as bands, and their mean as a line, whose points show the texts."""
    bounds = np.stack(spread.quantiles)
    known, drawn = np.flatnonzero(np.isfinite(bounds).all(0)), []
    for (low, high), opacity in (((0, 3), 0.15), ((1, 2), 0.22)):
        outline = np.concatenate([x[known], x[known][::-1]])
        heights = np.concatenate([bounds[low, known], bounds[high, known][::-1]])
        fill = {"fill": "toself", "fillcolor": colour, "opacity": opacity, "mode": "lines", "line": {"width": 0}}
        band = {"type": "scatter", "x": json_numbers(outline), "y": json_numbers(heights), "hoverinfo": "skip"}
        drawn.append(band | fill | {"showlegend": False})
    look = {"mode": "lines" if len(x) > 1 else "markers", "line": {"color": colour, "width": 2.4, "dash": dash}}
    return [*drawn, points(x, spread.mean, list(texts)) | look | {"marker": {"color": colour, "size": 8}}]


def with_spread(spread: Spread, place: Any) -> str:
    """The mean and the quantiles at a place in words."""
    low, lower, upper, high = (float(values[place]) for values in spread.quantiles)
    middle = f"middle 50% {lower:.4f} to {upper:.4f}, 90% {low:.4f} to {high:.4f}"
    return f"mean {spread.mean[place]:.4f}, {middle}"


def _with_bars(row: Mapping[Any, float], bars: Bars) -> str:
    """A mean and its uncertainty in words."""
    if bars == "se":
        return f"{row['mean']:.4f}" + ("" if math.isnan(row["se"]) else f" ± {row['se']:.4f}")
    interval = "" if math.isnan(row["low"]) else f", 95% interval {row['low']:.4f} to {row['high']:.4f}"
    return f"{row['mean']:.4f}{interval}"


def json_numbers(values: Iterable[float]) -> list[float | None]:
    """Numbers for JSON, which has no NaN."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]
