"""The axis of strengths: logarithmic, with 0 set apart."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from l2jax.plot.style import name_of
from l2jax.results.results import Results


def strength_axis(ax: Axes, results: Results) -> None:
    """A logarithmic axis of strengths, broken between 0 and the others."""
    strengths = np.unique(results.data["l2"].values)
    places = places_of(strengths)
    span = places[-1] / places[0]
    margin = 1.3 * span**0.05
    ax.set(xlabel="L2 strength", xscale="log", xlim=(places[0] / margin, places[-1] * margin))
    positive = strengths[strengths > 0]
    low, high = np.log10(positive[[0, -1]]) if positive.size else (0.0, -1.0)
    powers = 10.0 ** np.arange(math.ceil(low - 0.01), math.floor(high + 0.01) + 1)
    ticks: list[float] = []
    for tick in powers if len(powers) > 1 else positive:
        if not ticks or math.log(tick / ticks[-1]) > 0.15 * math.log(span):
            ticks.append(float(tick))
    labels = [f"$10^{{{math.log10(tick):.0f}}}$" if len(powers) > 1 else name_of(tick) for tick in ticks]
    if strengths[0] == 0:
        ticks, labels = [float(places[0]), *ticks], ["0", *labels]
        if len(places) > 1:
            cut = {"boxstyle": "square,pad=0.05", "facecolor": ax.get_facecolor(), "edgecolor": "none"}
            middle, below = math.sqrt(places[0] * places[1]), ax.get_xaxis_transform()
            ax.text(middle, 0, "//", transform=below, bbox=cut, zorder=5, ha="center", va="center")
    ax.set_xticks(ticks, labels)
    ax.set_xticks(positive, minor=True)
    ax.xaxis.set_minor_formatter(NullFormatter())


def places_of(strengths: np.ndarray) -> np.ndarray:
    """Where the sorted strengths stand on a logarithmic axis: 0 stands a step left of the weakest other."""
    if strengths[0] > 0:
        return strengths
    if len(strengths) == 1:
        return np.ones(1)
    step = max(3.0, (strengths[-1] / strengths[1]) ** 0.18)
    return np.concatenate([[strengths[1] / step], strengths[1:]])


def parts_of(strengths: np.ndarray) -> list[np.ndarray]:
    """Masks of what a line may join: 0 is no point of a logarithmic axis, so it stays alone."""
    return [part for part in (strengths == 0, strengths > 0) if part.any()]
