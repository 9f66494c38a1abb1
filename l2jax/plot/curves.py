"""Figures over epochs, with one line per strength."""

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
from l2jax.plot.strengths import log_limits
from l2jax.plot.style import CROSS, StyledFigure, axis_label, finish, in_own_style, trials_drawn
from l2jax.results import words
from l2jax.results.comparisons import by_strength
from l2jax.results.metrics import METRICS
from l2jax.results.results import Results


@in_own_style
def loss_curves(results: Results, axes: Sequence[Axes] | None = None) -> Figure:
    """Training and validation loss (cross-entropy) over epochs, one line per strength.

    Lines are means over the trials that did not diverge, and bands span them. A diverged trial is a thin line that
    ends in a cross.

    Args:
      results: a sweep of L2 strengths; see `Results.along_l2`.
      axes: two to draw in, for training and for validation loss.
    """
    panels = {METRICS[name].name.capitalize(): results.data[name] for name in ("train_loss", "val_loss")}
    title = f"Loss during training: {trials_drawn(results, 'mean and range')}"
    return _curves(results, panels, label=axis_label(METRICS["val_loss"]), title=title, axes=axes)


@in_own_style
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
    title = f"Cross-entropy plus penalty: {trials_drawn(results, 'mean and range')}"
    return _curves(results, panels, label=label, title=title, axes=axes)


def _curves(
    results: Results, panels: dict[str, xr.DataArray], *, label: str, title: str, axes: Sequence[Axes] | None
) -> Figure:
    """Draws the values of each panel, by its title."""
    if axes is None:
        figure = StyledFigure(figsize=(9.6, 4.4), layout="constrained")
        figure.suptitle(title)
        axes = list(figure.subplots(1, 2))
    data = results.data.sortby("l2")
    epochs, strengths = data["epoch"].values, data["l2"].values
    styles, diverged = strength_styles(strengths), by_strength(data["diverged"]) > 0
    for ax, (panel_title, values) in zip(axes, panels.items(), strict=True):
        curves = by_strength(values.sortby("l2"), "epoch")
        limits = log_limits(curves, diverged)
        for index, (l2, style) in enumerate(zip(strengths, styles, strict=True)):
            _draw_mean(ax, epochs, curves[index, ~diverged[index]], style | {"label": words.number(l2)})
            _draw_diverged(ax, epochs, curves[index, diverged[index]], style, limits)
        ax.set(title=panel_title, xlabel="epoch", ylabel=label, yscale="log", ylim=limits)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        finish(ax)
    crosses = [Line2D([], [], label="diverged", color="0.2", **CROSS)] if diverged.any() else []
    strength_legend(axes[-1], strengths, styles=styles, others=crosses)
    return cast(Figure, axes[0].figure)


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
