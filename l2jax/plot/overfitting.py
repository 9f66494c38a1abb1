"""A figure of overfitting in its two meanings, against the strength."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from l2jax.plot.axis import strength_axis
from l2jax.plot.spread import draw_against_strength
from l2jax.plot.strengths import axis_positions, segments
from l2jax.plot.style import (
    MEAN,
    SINGLE_TRIAL,
    VALIDATION,
    StyledFigure,
    axis_label,
    finish,
    own_style,
    say_that_all_diverged,
    spread_drawn,
)
from l2jax.results import comparisons
from l2jax.results.metrics import OUTCOMES
from l2jax.results.results import Results
from l2jax.results.spread import is_large

TITLES = {"gap": "Gap: validation minus training loss", "rise": "Rise of validation loss after its lowest epoch"}


@own_style()
def overfitting(results: Results, axes: Sequence[Axes] | None = None) -> Figure:
    """The gap between validation and training loss, and the rise of validation loss after its lowest epoch.

    Means and their 95 % intervals, where there are any, over the trials that did not diverge; single trials are faint.
    Of hundreds of trials and more, it shows the mean and the spread, with neighbouring strengths together.

    Args:
      results: a sweep of L2 strengths; see `Results.along_l2`.
      axes: two to draw in, for gap and rise.
    """
    if axes is None:
        figure = StyledFigure(figsize=(9.6, 4.2), layout="constrained")
        figure.suptitle(f"Overfitting: {spread_drawn(results, 'mean and 95% interval')}")
        axes = list(figure.subplots(1, 2))
    outcomes = comparisons.outcomes(results)
    for ax, (metric, title) in zip(axes, TITLES.items(), strict=True):
        trials = comparisons.by_strength(outcomes[metric])
        if is_large(results):
            line = {"color": VALIDATION["color"], "linewidth": MEAN["linewidth"]}
            draw_against_strength(ax, outcomes["l2"].values, trials, np.isnan(trials), **line)
        else:
            _draw_means(ax, comparisons.summary(outcomes, metric), trials)
        ax.axhline(0, color="0.6", linewidth=0.8, zorder=0.5)
        ax.set(title=title, ylabel=axis_label(OUTCOMES[metric]))
        strength_axis(ax, results)
        finish(ax)
        if np.isnan(trials).all():
            say_that_all_diverged(ax)
    return cast(Figure, axes[0].figure)


def _draw_means(ax: Axes, table: pd.DataFrame, trials: np.ndarray) -> None:
    """Draws means and intervals, with single trials (strengths, trials) behind."""
    mean, low, high = (table[column].to_numpy() for column in ("mean", "low", "high"))
    bars, strengths = np.nan_to_num([mean - low, high - mean]), table.index.to_numpy()
    positions = axis_positions(strengths)
    for segment in segments(strengths):
        ax.plot(positions[segment], trials[segment], **VALIDATION | SINGLE_TRIAL)
        ax.errorbar(positions[segment], mean[segment], bars[:, segment], **VALIDATION | MEAN)
