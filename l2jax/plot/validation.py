"""A figure of what each strength reached at the last epoch, against the strength."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, NullLocator

from l2jax.plot.axis import strength_axis
from l2jax.plot.spread import draw_against_strength
from l2jax.plot.strengths import axis_positions, group_positions, segments
from l2jax.plot.style import (
    CROSS,
    MEAN,
    SINGLE_TRIAL,
    TRAINING,
    VALIDATION,
    StyledFigure,
    axis_label,
    finish,
    own_style,
    say_that_all_diverged,
    spread_drawn,
)
from l2jax.results import words
from l2jax.results.comparisons import by_strength
from l2jax.results.metrics import METRICS
from l2jax.results.results import Results
from l2jax.results.spread import POINTS, is_large, strength_groups, trials_by_strength


@own_style()
def validation_curve(results: Results, axes: Sequence[Axes] | None = None) -> Figure:
    """Validation loss, its gap to training loss, and accuracy at the last epoch, against the strength.

    Means and standard errors over the trials that did not diverge, single trials faint; strength 0 stands
    apart, left of the logarithmic axis. Stars, diamonds and lines mark the choices of `Results.best`, crosses
    the strengths with a diverged trial.

    Of hundreds of trials and more, it shows the mean and the spread, with neighbouring strengths together; crosses mark
    those of which half have diverged.

    Args:
      results: a sweep of L2 strengths; see `Results.along_l2`.
      axes: three to draw in, for validation loss, both losses and both accuracies.
    """
    if axes is None:
        axes = _new_axes(results)
    loss_ax, gap_ax, accuracy_ax = axes
    loss_ax.set(title="Validation loss", yscale="log")
    gap_ax.set(title="Validation and training loss")
    accuracy_ax.set(title="Validation and training accuracy")
    _draw_panel(loss_ax, results, "val_loss")
    _draw_panel(gap_ax, results, "val_loss", "train_loss")
    _draw_panel(accuracy_ax, results, "val_accuracy", "train_accuracy")
    if not is_large(results):
        _draw_gap(gap_ax, results)
    gap_ax.set_ylim(0, 1.05 * gap_ax.get_ylim()[1])
    for ax in axes:
        finish(ax)
        if results.data["diverged"].all():
            say_that_all_diverged(ax)
            ax.yaxis.set_major_locator(NullLocator())
        columns = 1 if ax is loss_ax else 3
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=columns, frameon=False)
    return cast(Figure, loss_ax.figure)


def _new_axes(results: Results) -> list[Axes]:
    figure = StyledFigure(figsize=(12, 4.6), layout=ConstrainedLayoutEngine(wspace=0.05))
    num_epochs = results.data.sizes["epoch"]
    after = "1 epoch" if num_epochs == 1 else f"{num_epochs} epochs"
    figure.suptitle(f"After {after}: {spread_drawn(results, 'mean and standard error')}")
    return list(figure.subplots(1, 3))


def _draw_panel(ax: Axes, results: Results, validation: str, training: str | None = None) -> None:
    """Draws a validation metric, the same metric of training beside it, and what the two rules choose."""
    strength_axis(ax, results)  # first, as matplotlib cannot find the limits of an axis with one position
    _draw_metric(ax, results, validation, style=VALIDATION, label="validation")
    if training:
        _draw_metric(ax, results, training, style=TRAINING, label="training")
    _draw_diverged(ax, results, in_legend=training is None)
    _draw_choices(ax, results, validation, in_legend=training is None)
    if METRICS[validation].percent:
        ax.set_ylabel("examples classified correctly")
        ax.yaxis.set_major_formatter(FuncFormatter(lambda fraction, _: f"{100 * fraction:.4g}%"))
    else:
        ax.set_ylabel(axis_label(METRICS[validation]))


def _draw_metric(ax: Axes, results: Results, metric: str, *, style: dict[str, Any], label: str) -> None:
    """Draws the mean and standard error of a metric against strength, with single trials behind."""
    if is_large(results):
        _draw_many(ax, results, metric, style=style, label=label)
        return
    last = results.data.sortby("l2").isel(epoch=-1)
    trials = by_strength(last[metric].where(~last["diverged"]))
    table = results.settings_table()
    means, errors = table[metric].to_numpy(), table[f"{metric}_se"].to_numpy()
    positions = axis_positions(table.index.to_numpy())
    for segment in segments(table.index.to_numpy()):
        ax.plot(positions[segment], trials[segment], **style | SINGLE_TRIAL)
        bars = ax.errorbar(positions[segment], means[segment], errors[segment], **style | MEAN)
        if segment[-1]:  # once, and for the line alone: a legend puts error bars after all else
            bars.lines[0].set_label(label)


def _draw_many(ax: Axes, results: Results, metric: str, *, style: dict[str, Any], label: str) -> None:
    """Draws the mean and the spread of a metric against groups of strengths."""
    strengths, diverged = trials_by_strength(results)
    values = by_strength(results.data[metric].isel(epoch=-1).sortby("l2"))
    line = {"color": style["color"], "linestyle": style["linestyle"], "linewidth": MEAN["linewidth"]}
    draw_against_strength(ax, strengths, values, diverged, label=label, **line)


def _draw_gap(ax: Axes, results: Results) -> None:
    """Shades the area between the mean training loss and the mean validation loss."""
    table = results.settings_table()
    positions = axis_positions(table.index.to_numpy())
    for segment in segments(table.index.to_numpy()):
        x, low, high = (values[segment] for values in (positions, *table[["train_loss", "val_loss"]].to_numpy().T))
        if len(x) == 1:  # a point has no area: a narrow bar
            half = 1.02 * (positions[-1] / positions[0]) ** 0.03
            x, low, high = x * np.array([1 / half, half]), low.repeat(2), high.repeat(2)
        ax.fill_between(x, low, high, color="0.87", lw=0, zorder=0.5, label="gap" if segment[-1] else None)


def _draw_diverged(ax: Axes, results: Results, *, in_legend: bool) -> None:
    """Marks the strengths with a diverged trial, or of many the groups of which half have diverged, with crosses."""
    if is_large(results):
        strengths, diverged = trials_by_strength(results)
        groups = strength_groups(strengths, POINTS)
        half = [diverged[group.members].mean() >= 0.5 for group in groups]
        positions, label = group_positions(strengths, groups)[half], "half of the trials diverged"
    else:
        table = results.settings_table()
        positions = axis_positions(table.index.to_numpy())[table["num_diverged"] > 0]
        label = "has a diverged trial"
    if len(positions):
        at_top = {"transform": ax.get_xaxis_transform(), "label": label if in_legend else None}
        ax.plot(positions, np.ones(len(positions)), color="0.2", **at_top, **CROSS)


def _draw_choices(ax: Axes, results: Results, metric: str, *, in_legend: bool) -> None:
    """Marks the strengths that the two rules choose by validation loss, at their means of a metric."""
    if results.best_setting_or_none() is None:
        return
    lowest, strongest = results.best(), results.best(rule="1se")
    choices = [("lowest mean", lowest, "-", "*", 14), ("one standard error", strongest, ":", "D", 8)]
    if lowest == strongest:
        choices = [("lowest mean and one standard error", lowest, "-", "*", 14)]
    means = results.settings_table()[metric]
    positions = dict(zip(means.index, axis_positions(means.index.to_numpy()), strict=True))
    for rule, l2, dash, marker, size in choices:
        style = {"color": "0.2", "linestyle": dash, "linewidth": 1.0}
        ax.axvline(positions[l2], zorder=1, **style)
        label = f"{rule}: {words.number(l2)}" if in_legend else None
        filled = {"marker": marker, "markersize": size, "markerfacecolor": "#F0E442", "zorder": 4}
        ax.plot(positions[l2], means[l2], label=label, **style, **filled)
