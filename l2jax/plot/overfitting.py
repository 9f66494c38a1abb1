"""Overfitting in its two meanings, against the strength."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from l2jax.plot.axis import parts_of, places_of, strength_axis
from l2jax.plot.style import VALIDATION, finish, trials_shown
from l2jax.results import comparisons
from l2jax.results.results import Results


def overfitting(results: Results, axes: Sequence[Axes] | None = None) -> Figure:
    """The gap between validation and training loss, and the rise of validation loss after its lowest epoch.

    Means and their 95 % intervals over the trials that did not diverge, where there are any; single trials
    faint. `axes`: two, for gap and rise.
    """
    if axes is None:
        figure = Figure(figsize=(9.6, 4.2), layout="constrained")
        figure.suptitle(f"Overfitting: {trials_shown(results, 'mean and 95% interval')}")
        axes = list(figure.subplots(1, 2))
    ended = comparisons.outcomes(results)
    titles = {"gap": "Gap: validation minus training loss", "rise": "Rise of validation loss after its lowest epoch"}
    for ax, (metric, title) in zip(axes, titles.items(), strict=True):
        table = comparisons.summary(ended, metric)
        mean, low, high = (table[column].to_numpy() for column in ("mean", "low", "high"))
        bars = np.nan_to_num([mean - low, high - mean])
        places, trials = places_of(table.index.values), ended[metric].values.reshape(len(table), -1)
        for part in parts_of(table.index.values):
            faint: dict[str, Any] = VALIDATION | {"markersize": 2.5, "linewidth": 0.7, "alpha": 0.35}
            ax.plot(places[part], trials[part], **faint)
            bold: dict[str, Any] = VALIDATION | {"markersize": 5, "linewidth": 1.7, "capsize": 3, "zorder": 3}
            ax.errorbar(places[part], mean[part], bars[:, part], **bold)
        ax.axhline(0, color="0.6", linewidth=0.8, zorder=0.5)
        ax.set(title=title, ylabel="cross-entropy (nat)")
        strength_axis(ax, results)
        finish(ax)
        if np.isnan(mean).all():
            ax.text(0.5, 0.5, "every trial diverged", transform=ax.transAxes, ha="center", va="center")
    return cast(Figure, axes[0].figure)
