"""Figures over epochs, with one line per strength, or per group of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from l2jax.plot.legend import strength_legend, strength_styles
from l2jax.plot.spread import draw_spread
from l2jax.plot.strengths import log_limits
from l2jax.plot.style import CROSS, StyledFigure, axis_label, finish, own_style, spread_drawn
from l2jax.results import words
from l2jax.results.comparisons import by_strength
from l2jax.results.metrics import METRICS
from l2jax.results.results import Results
from l2jax.results.spread import LINES, QUANTILES, is_large, spread, strength_groups, trials_by_strength


@own_style()
def loss_curves(results: Results, axes: Sequence[Axes] | None = None) -> Figure:
    """Training and validation loss (cross-entropy) over epochs, one line per strength.

    Lines are means over the trials that did not diverge, and bands span them. A diverged trial is a thin line that
    ends in a cross. Of hundreds of trials and more, bands hold the middle 50 % and 90 %, neighbouring strengths share a
    line, and diverged trials are counted in the title.

    Args:
      results: a sweep of L2 strengths; see `Results.along_l2`.
      axes: two to draw in, for training and for validation loss.
    """
    panels = {METRICS[name].name.capitalize(): results.data[name] for name in ("train_loss", "val_loss")}
    title = f"Loss during training: {spread_drawn(results, 'mean and range')}"
    return _curves(results, panels, label=axis_label(METRICS["val_loss"]), title=title, axes=axes)


@own_style()
def objective_curves(results: Results, axes: Sequence[Axes] | None = None) -> Figure:
    """Cross-entropy plus penalty over epochs: what training lowers, and what Keras calls loss and val_loss.

    The training values are averaged over the steps of an epoch, while the parameters change; the validation
    values are of its end. Lines and bands are as in `loss_curves`.

    Args:
      results: a sweep of L2 strengths; see `Results.along_l2`.
      axes: two to draw in, for the training and for the validation objective.
    """
    panels = {
        "Training objective, averaged while training": results.data["running_objective"],
        "Validation objective": results.data["val_loss"] + results.data["penalty"],
    }
    label = f"objective ({METRICS['running_objective'].unit})"
    title = f"Cross-entropy plus penalty: {spread_drawn(results, 'mean and range')}"
    return _curves(results, panels, label=label, title=title, axes=axes)


def _curves(
    results: Results, panels: dict[str, xr.DataArray], *, label: str, title: str, axes: Sequence[Axes] | None
) -> Figure:
    """Draws the values of each panel, by its title."""
    if axes is None:
        figure = StyledFigure(figsize=(9.6, 4.4), layout="constrained")
        figure.suptitle(title)
        axes = list(figure.subplots(1, 2))
    draw = _draw_groups if is_large(results) else _draw_strengths
    for ax, (panel_title, values) in zip(axes, panels.items(), strict=True):
        draw(ax, results, by_strength(values.sortby("l2"), "epoch"), with_legend=ax is axes[-1])
        ax.set(title=panel_title, xlabel="epoch", ylabel=label)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        finish(ax)
    return cast(Figure, axes[0].figure)


def _draw_strengths(ax: Axes, results: Results, curves: np.ndarray, *, with_legend: bool) -> None:
    """Draws curves (strengths, trials, epochs): the mean and the range of each strength, and diverged trials."""
    epochs, (strengths, diverged) = results.data["epoch"].values, trials_by_strength(results)
    styles, limits = strength_styles(strengths), log_limits(curves, diverged)
    for index, (l2, style) in enumerate(zip(strengths, styles, strict=True)):
        _draw_mean(ax, epochs, curves[index, ~diverged[index]], style | {"label": words.number(l2)})
        _draw_diverged(ax, epochs, curves[index, diverged[index]], style, limits)
    ax.set(yscale="log", ylim=limits)
    if with_legend:
        crosses = [Line2D([], [], label="diverged", color="0.2", **CROSS)] if diverged.any() else []
        strength_legend(ax, [*map(words.number, strengths)], styles=styles, others=crosses)


def _draw_groups(ax: Axes, results: Results, curves: np.ndarray, *, with_legend: bool) -> None:
    """Draws curves (strengths, trials, epochs): the mean and the spread of each group of neighbouring strengths."""
    epochs, (strengths, diverged) = results.data["epoch"].values, trials_by_strength(results)
    groups = strength_groups(strengths, LINES)
    styles, drawn = strength_styles(np.array([group.middle for group in groups])), spread(curves, diverged, groups)
    limits = log_limits(np.stack([drawn.mean, *drawn.quantiles], 1), np.zeros((len(groups), 1 + len(QUANTILES)), bool))
    for index, style in enumerate(styles):
        draw_spread(ax, epochs, drawn.part(index), linewidth=1.7, marker="o" if len(epochs) == 1 else None, **style)
    ax.set(yscale="log", ylim=limits)
    if with_legend:
        strength_legend(ax, [*map(str, groups)], styles=styles)


def _draw_mean(ax: Axes, epochs: np.ndarray, curves: np.ndarray, style: dict[str, Any]) -> None:
    """Draws the mean and the range of curves (trials, epochs)."""
    if len(curves):
        ax.fill_between(epochs, curves.min(0), curves.max(0), color=style["color"], alpha=0.2, lw=0)
        ax.plot(epochs, curves.mean(0), linewidth=1.7, marker="o" if len(epochs) == 1 else None, **style)


def _draw_diverged(
    ax: Axes, epochs: np.ndarray, curves: np.ndarray, style: dict[str, Any], limits: tuple[float, float]
) -> None:
    """Draws each curve (trials, epochs) up to a cross, which the limits of the axis hold."""
    for curve in curves:
        finite = curve[np.isfinite(curve)]
        ax.plot(epochs[: len(finite)], finite, linewidth=0.8, **style)
        end, value = (len(finite) - 1, np.clip(finite[-1], *limits)) if len(finite) else (0, limits[1])
        ax.plot(epochs[end], value, color=style["color"], **CROSS)
