"""Style that the figures share: colours, frames, labels. What a person's matplotlibrc says does not matter.

Colours keep their order in grey and for colour-blind eyes; what matters differs in dash, marker or place too.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from l2jax.results import words
from l2jax.results.metrics import Metric
from l2jax.results.results import Results
from l2jax.results.spread import READING, is_large

# Okabe and Ito's colour-blind-safe vermilion, and their blue made darker so that the two differ in grey.
TRAINING: dict[str, Any] = {"color": "#D55E00", "linestyle": "--", "marker": "s", "markerfacecolor": "white"}
VALIDATION: dict[str, Any] = {"color": "#00527F", "linestyle": "-", "marker": "o"}
SINGLE_TRIAL: dict[str, Any] = {"markersize": 2.5, "linewidth": 0.7, "alpha": 0.35}
MEAN: dict[str, Any] = {"markersize": 5, "linewidth": 1.7, "capsize": 3, "zorder": 3}
LONGEST_LINE = 90
CROSS: dict[str, Any] = {"marker": "x", "markersize": 7, "markeredgewidth": 1.8, "linestyle": "", "clip_on": False}


@contextlib.contextmanager
def own_style() -> Iterator[None]:
    """Sets a person's own style aside, such as TeX's letters, which not every machine has.

    `@own_style()` makes a function draw in it.
    """
    with matplotlib.style.context("default"):
        yield


class StyledFigure(Figure):
    """A figure in this style, also later: matplotlib makes ticks when it draws."""

    def draw(self, renderer: RendererBase) -> None:
        with own_style():
            super().draw(renderer)


def finish(ax: Axes) -> None:
    """Opens the frame and, on a logarithmic axis of losses, labels the ticks with plain numbers."""
    ax.spines[["top", "right"]].set_visible(False)
    if ax.get_yscale() == "log":
        low, high = ax.get_ylim()
        decades = math.log10(high / low)
        subs = (1, 2, 3, 4, 6, 8) if decades < 1 else (1, 2, 5) if decades < 2.5 else (1,)
        ax.yaxis.set_major_locator(LogLocator(subs=subs))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_locator(NullLocator())


def axis_label(metric: Metric) -> str:
    """The label of an axis with values of a metric."""
    if metric.unit == "nat":
        return "cross-entropy (nat)"
    return "fraction" if metric.percent else metric.long_name


def say_that_all_diverged(ax: Axes) -> None:
    """Writes that every trial diverged into axes that would be empty."""
    ax.text(0.5, 0.5, "every trial diverged", transform=ax.transAxes, ha="center", va="center")


def trials_drawn(results: Results, statistic: str) -> str:
    """Says which statistic of how many trials is drawn, and which swept hyperparameters are held at one value."""
    num_settings = math.prod(results.data.sizes[name] for name in results.swept)
    num_trials = results.data["diverged"].size // num_settings
    setting = "setting" if len(results.swept) > 1 else "L2 strength"
    trials = f"{statistic} of {num_trials:,} trials" if num_trials > 1 else "1 trial"
    return _with_fixed(results, f"{trials} at each {setting}")


def spread_drawn(results: Results, statistic: str) -> str:
    """The same where of very many trials the spread is drawn."""
    if not is_large(results):
        return trials_drawn(results, statistic)
    text, num_diverged = f"{READING} of {results.data['diverged'].size:,} trials", int(results.data["diverged"].sum())
    return _with_fixed(results, f"{text} ({num_diverged:,} diverged)" if num_diverged else text)


def _with_fixed(results: Results, text: str) -> str:
    """Adds the values of other hyperparameters, below where they would not fit beside."""
    if not results.fixed:
        return text
    fixed = words.setting(results.fixed)
    between = " " if len(text) + len(fixed) <= LONGEST_LINE else "\n"
    return f"{text};{between}{fixed}"
