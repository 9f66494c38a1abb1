"""How large the values of the kernels are: what L2 acts on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from l2jax.plot.curves import strength_legend, strength_styles
from l2jax.plot.style import finish, trials_shown
from l2jax.results.comparisons import magnitude_shares
from l2jax.results.metrics import MAGNITUDE_EDGES as EDGES
from l2jax.results.results import Results

MOST_STRENGTHS, MOST_COLUMNS = 5, 3


def kernel_magnitudes(results: Results, axes: Sequence[Axes] | None = None) -> Figure:
    """Histograms of the magnitude of the values of each layer's kernel, at the end, a line a strength.

    All trials of a strength that did not diverge are counted together; of many strengths, a few from weakest to
    strongest are drawn. What lies beyond an end of the axis is counted in its last bin. `axes`: one a layer.
    """
    shares = magnitude_shares(results)
    layers, strengths = shares["layer"].values, shares["l2"].values
    if axes is None:
        columns = min(len(layers), MOST_COLUMNS)
        rows = math.ceil(len(layers) / columns)
        figure = Figure(figsize=(1.4 + 3.4 * columns, 0.8 + 3.2 * rows), layout="constrained")
        figure.suptitle(f"Kernels at the end: {trials_shown(results, 'all values')}")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax in panels[len(layers) :]:
            ax.remove()
        axes = list(panels[: len(layers)])
    few = np.unique(np.linspace(0, len(strengths) - 1, MOST_STRENGTHS).round().astype(int))
    styles = [style for number, style in enumerate(strength_styles(strengths)) if number in few]
    for ax, layer in zip(axes, layers, strict=True):
        for l2, style in zip(strengths[few], styles, strict=True):
            share = shares.sel(layer=layer, l2=l2).values
            if not np.isnan(share).all():  # as where every trial has diverged
                ax.stairs(share, EDGES, linewidth=1.6, **style)
        ax.set(title=layer, xlabel="magnitude", ylabel="% of the values", xscale="log")
        ax.set_xlim(*_limits(shares.sel(layer=layer).sum("l2").values))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_ylim(bottom=0)
        finish(ax)
    strength_legend(axes[min(len(axes), MOST_COLUMNS) - 1], strengths[few], styles)
    return cast(Figure, axes[0].figure)


def _limits(shares: np.ndarray) -> tuple[float, float]:
    """From where all but the smallest hundredth of the values lie to the largest of them."""
    if not shares.any():
        return EDGES[0], EDGES[-1]
    first = int(np.searchsorted(shares.cumsum() / shares.sum(), 0.01))
    last = int(np.flatnonzero(shares)[-1])
    return EDGES[first], EDGES[min(last + 2, len(EDGES) - 1)]
