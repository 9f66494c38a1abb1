"""A figure of the magnitudes of the kernels' values, on which L2 acts."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from l2jax.plot.legend import strength_legend, strength_styles
from l2jax.plot.style import StyledFigure, finish, own_style, trials_drawn
from l2jax.results import words
from l2jax.results.comparisons import magnitude_shares
from l2jax.results.metrics import MAGNITUDE_EDGES
from l2jax.results.results import Results

MOST_STRENGTHS, MOST_COLUMNS = 5, 3


@own_style()
def kernel_magnitudes(results: Results, axes: Sequence[Axes] | None = None) -> Figure:
    """Histograms of the magnitudes of each layer's kernel values at the end of training, one line per strength.

    All trials of a strength that did not diverge are counted together; of many strengths, a few from weakest to
    strongest are drawn. The first and the last bin also count the values beyond them.

    Args:
      results: a sweep of L2 strengths with `kernel_magnitudes`; see `Results.along_l2`.
      axes: one to draw in for each layer.
    """
    shares = magnitude_shares(results)
    layers, strengths = shares["layer"].values, shares["l2"].values
    if axes is None:
        axes = _new_axes(results, len(layers))
    indices = np.unique(np.linspace(0, len(strengths) - 1, MOST_STRENGTHS).round().astype(int))
    styles = strength_styles(strengths)
    for ax, layer in zip(axes, layers, strict=True):
        for index in indices:
            share = shares.sel(layer=layer, l2=strengths[index]).values
            if not np.isnan(share).all():  # every trial of the strength has diverged
                ax.stairs(share, MAGNITUDE_EDGES, linewidth=1.6, **styles[index])
        ax.set(title=layer, xlabel="magnitude", ylabel="% of the values", xscale="log")
        ax.set_xlim(*_limits(shares.sel(layer=layer).sum("l2").values))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_ylim(bottom=0)
        finish(ax)
    rightmost = axes[min(len(axes), MOST_COLUMNS) - 1]
    strength_legend(rightmost, [*map(words.number, strengths[indices])], styles=[styles[index] for index in indices])
    return cast(Figure, axes[0].figure)


def _new_axes(results: Results, count: int) -> list[Axes]:
    columns = min(count, MOST_COLUMNS)
    rows = math.ceil(count / columns)
    figure = StyledFigure(figsize=(1.4 + 3.4 * columns, 0.8 + 3.2 * rows), layout="constrained")
    title = f"Kernels at the end: {trials_drawn(results, 'all values')}"
    figure.suptitle(textwrap.fill(title, 24 + 30 * columns))  # as many letters as fit the width
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for ax in axes[count:]:
        ax.remove()
    return axes[:count]


def _limits(shares: np.ndarray) -> tuple[float, float]:
    """Limits that leave out the smallest hundredth of the values and end at the largest of them."""
    if not shares.any():
        return MAGNITUDE_EDGES[0], MAGNITUDE_EDGES[-1]
    first = int(np.searchsorted(shares.cumsum() / shares.sum(), 0.01))
    last = int(np.flatnonzero(shares)[-1])
    return MAGNITUDE_EDGES[first], MAGNITUDE_EDGES[min(last + 2, len(MAGNITUDE_EDGES) - 1)]
