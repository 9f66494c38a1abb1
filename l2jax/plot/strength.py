"""What each strength reached, against the strength."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, NullLocator

from l2jax.plot.axis import parts_of, places_of, strength_axis
from l2jax.plot.style import CROSS, TRAINING, VALIDATION, finish, name_of, trials_shown
from l2jax.results.results import Results


def validation_curve(results: Results, axes: Sequence[Axes] | None = None) -> Figure:
    """What each strength reached at the last epoch: validation loss, its gap to training loss, and accuracy.

    Means and standard errors over the trials that did not diverge, single trials faint; strength 0 stands
    apart, left of the logarithmic axis. Stars, diamonds and lines mark the choices of `Results.best`, crosses
    the strengths with a diverged trial. `axes`: three, for validation loss, both losses and both accuracies.
    """
    if axes is None:
        figure = Figure(figsize=(12, 4.6), layout=ConstrainedLayoutEngine(wspace=0.05))
        num_epochs = results.data.sizes["epoch"]
        after = "1 epoch" if num_epochs == 1 else f"{num_epochs} epochs"
        figure.suptitle(f"After {after}: {trials_shown(results, 'mean and standard error')}")
        axes = list(figure.subplots(1, 3))
    loss_ax, gap_ax, accuracy_ax = axes
    loss_ax.set(title="Validation loss", ylabel="cross-entropy (nat)", yscale="log")
    gap_ax.set(title="Validation and training loss", ylabel="cross-entropy (nat)")
    accuracy_ax.set(title="Validation and training accuracy", ylabel="examples classified correctly")
    accuracy_ax.yaxis.set_major_formatter(FuncFormatter(lambda fraction, _: f"{100 * fraction:.4g}%"))
    for ax, validation, training in (
        (loss_ax, "val_loss", None),
        (gap_ax, "val_loss", "train_loss"),
        (accuracy_ax, "val_accuracy", "train_accuracy"),
    ):
        _draw_metric(ax, results, validation, VALIDATION, "validation")
        if training:
            _draw_metric(ax, results, training, TRAINING, "training")
        _draw_choices(ax, results, validation, named=ax is loss_ax)
        strength_axis(ax, results)
    _draw_gap(gap_ax, results)
    gap_ax.set_ylim(0, 1.05 * gap_ax.get_ylim()[1])
    for ax in axes:
        finish(ax)
        if results.data["diverged"].all():
            ax.text(0.5, 0.5, "every trial diverged", transform=ax.transAxes, ha="center", va="center")
            ax.yaxis.set_major_locator(NullLocator())
        columns = 1 if ax is loss_ax else 3
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=columns, frameon=False)
    return cast(Figure, loss_ax.figure)


def _draw_metric(ax: Axes, results: Results, metric: str, style: dict[str, Any], label: str) -> None:
    """The mean and standard error of `metric` against strength, with single trials behind."""
    last = results.data.sortby("l2").isel(epoch=-1)
    trials = last[metric].where(~last["diverged"]).transpose("l2", ...).values.reshape(last.sizes["l2"], -1)
    table = results.settings_table()
    places = places_of(table.index.values)
    for part in parts_of(table.index.values):
        faint: dict[str, Any] = style | {"markersize": 2.5, "linewidth": 0.7, "alpha": 0.35}
        ax.plot(places[part], trials[part], **faint)
        mean, error = table[metric].to_numpy()[part], table[f"{metric}_se"].to_numpy()[part]
        bold: dict[str, Any] = style | {"markersize": 5, "linewidth": 1.7, "capsize": 3, "zorder": 3}
        line = ax.errorbar(places[part], mean, error, **bold).lines[0]
        if part[-1]:  # once, and for the line alone: a legend puts error bars after all else
            line.set_label(label)


def _draw_gap(ax: Axes, results: Results) -> None:
    """Shades what lies between the mean training and the mean validation loss."""
    table = results.settings_table()
    places = places_of(table.index.values)
    for part in parts_of(table.index.values):
        x, low, high = places[part], table["train_loss"].to_numpy()[part], table["val_loss"].to_numpy()[part]
        if len(x) == 1:  # a point has no area: a narrow bar
            half = 1.02 * (places[-1] / places[0]) ** 0.03
            x, low, high = x * np.array([1 / half, half]), low.repeat(2), high.repeat(2)
        ax.fill_between(x, low, high, color="0.87", lw=0, zorder=0.5, label="gap" if part[-1] else None)


def _draw_choices(ax: Axes, results: Results, metric: str, named: bool) -> None:
    """Marks the strengths that the two rules choose, and with crosses those with a diverged trial."""
    table = results.settings_table()
    table["place"] = places_of(table.index.values)
    diverged = table["place"][table["num_diverged"] > 0]
    if len(diverged):
        at_top = {"transform": ax.get_xaxis_transform(), "label": "has a diverged trial" if named else None}
        ax.plot(diverged, np.ones(len(diverged)), color="0.2", **at_top, **CROSS)
    if (table["num_diverged"] > 0).all():
        return
    lowest, careful = results.best(), results.best(rule="1se")
    choices = [("lowest mean", lowest, "-", "*", 14), ("one standard error", careful, ":", "D", 8)]
    if lowest == careful:
        choices = [("lowest mean and one standard error", lowest, "-", "*", 14)]
    for rule, l2, dash, marker, size in choices:
        style = {"color": "0.2", "linestyle": dash, "linewidth": 1.0}
        place = table["place"][l2]
        ax.axvline(place, zorder=1, **style)
        label = f"{rule}: {name_of(l2)}" if named else None
        filled = {"marker": marker, "markersize": size, "markerfacecolor": "#F0E442", "zorder": 4}
        ax.plot(place, table[metric][l2], label=label, **style, **filled)
