"""What the figures have in common: colours, axes, words.

Colours keep their order in grey and for colour-blind eyes; what matters differs in dash, marker or place too.
"""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator

from l2jax.results.results import Results

# Okabe and Ito's colour-blind-safe vermilion, and their blue made darker so that the two differ in grey.
TRAINING: dict[str, Any] = {"color": "#D55E00", "linestyle": "--", "marker": "s", "markerfacecolor": "white"}
VALIDATION: dict[str, Any] = {"color": "#00527F", "linestyle": "-", "marker": "o"}
CROSS: dict[str, Any] = {
    "marker": "x",
    "markersize": 7,
    "markeredgewidth": 1.8,
    "linestyle": "",
    "clip_on": False,
}


def finish(ax: Axes) -> None:
    """An open frame; on a logarithmic axis of losses, ticks that read as plain numbers."""
    ax.spines[["top", "right"]].set_visible(False)
    if ax.get_yscale() == "log":
        low, high = ax.get_ylim()
        decades = math.log10(high / low)
        subs = (1, 2, 3, 4, 6, 8) if decades < 1 else (1, 2, 5) if decades < 2.5 else (1,)
        ax.yaxis.set_major_locator(LogLocator(subs=subs))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_locator(NullLocator())


def name_of(l2: float) -> str:
    return f"{l2:.3g}"


def trials_shown(results: Results, shown: str) -> str:
    """How many trials there are at each setting, and which hyperparameters are fixed that others were swept of."""
    settings = [results.data.sizes[name] for name in results.swept]
    count, each = results.data["diverged"].size // math.prod(settings), "setting" if settings[1:] else "L2 strength"
    words = f"{shown} of {count} trials at each {each}" if count > 1 else f"1 trial at each {each}"
    return "; ".join([words, *(f"{name.replace('_', ' ')} {value:.3g}" for name, value in results.fixed.items())])
