"""What happened epoch by epoch: a line a strength."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from l2jax.plot.style import CROSS, finish, name_of, trials_shown
from l2jax.results.results import Results


def loss_curves(results: Results, axes: Sequence[Axes] | None = None) -> Figure:
    """Training and validation loss (cross-entropy) over epochs, a line a strength.

    Lines are means over the trials that did not diverge, bands span them. A diverged trial is a thin line of
    its own that ends in a cross. `axes`: two, for training and for validation loss.
    """
    panels = {"Training loss": results.data["train_loss"], "Validation loss": results.data["val_loss"]}
    title = f"Loss during training: {trials_shown(results, 'mean and range')}"
    return _curves(results, panels, "cross-entropy (nat)", title, axes)


def objective_curves(results: Results, axes: Sequence[Axes] | None = None) -> Figure:
    """What training lowers, and what Keras calls loss and val_loss: cross-entropy plus penalty, over epochs.

    The training values are averaged over the steps of an epoch, while the parameters change; the validation
    values are of its end. Lines, bands and `axes` are as in `loss_curves`.
    """
    panels = {
        "Training objective, averaged while training": results.data["running_objective"],
        "Validation objective": results.data["val_loss"] + results.data["penalty"],
    }
    title = f"Cross-entropy plus penalty: {trials_shown(results, 'mean and range')}"
    return _curves(results, panels, "objective (nat)", title, axes)


def _curves(
    results: Results, panels: dict[str, xr.DataArray], label: str, title: str, axes: Sequence[Axes] | None
) -> Figure:
    if axes is None:
        figure = Figure(figsize=(9.6, 4.4), layout="constrained")
        figure.suptitle(title)
        axes = list(figure.subplots(1, 2))
    every_diverged = results.data["diverged"].sortby("l2")
    epochs, strengths = results.data["epoch"].values, every_diverged["l2"].values
    styles = strength_styles(strengths)
    for ax, (title, values) in zip(axes, panels.items(), strict=True):
        low, high = _limits(values, results.data["diverged"])
        for l2, style in zip(strengths, styles, strict=True):
            trials = values.sel(l2=l2).transpose("epoch", ...).values.reshape(len(epochs), -1)
            diverged = every_diverged.sel(l2=l2).values.ravel()
            if not diverged.all():
                kept = trials[:, ~diverged]
                ax.fill_between(epochs, kept.min(1), kept.max(1), color=style["color"], alpha=0.2, lw=0)
                line = {"label": name_of(l2), "marker": "o" if len(epochs) == 1 else None}
                ax.plot(epochs, kept.mean(1), linewidth=1.7, **line, **style)
            for trial in trials[:, diverged].T:
                finite = trial[np.isfinite(trial)]
                ax.plot(epochs[: len(finite)], finite, linewidth=0.8, **style)
                end, last = (len(finite) - 1, np.clip(finite[-1], low, high)) if len(finite) else (0, high)
                ax.plot(epochs[end], last, color=style["color"], **CROSS)
        ax.set(title=title, xlabel="epoch", ylabel=label, yscale="log", ylim=(low, high))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        finish(ax)
    crosses = [Line2D([], [], label="diverged", color="0.2", **CROSS)] if every_diverged.any() else []
    strength_legend(axes[-1], strengths, styles, crosses)
    return cast(Figure, axes[0].figure)


def strength_legend(ax: Axes, strengths: np.ndarray, styles: list[dict[str, Any]], also: Sequence[Line2D] = ()) -> None:
    """Beside the axes: what the line of each strength looks like."""
    lines = zip(strengths[::-1], styles[::-1], strict=True)  # as the lines lie: the strongest is the highest
    handles = [*(Line2D([], [], label=name_of(l2), linewidth=2, **style) for l2, style in lines), *also]
    columns, size = math.ceil(len(handles) / 24), "small" if len(handles) > 14 else "medium"
    beside = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5), "ncols": columns, "fontsize": size}
    ax.legend(handles=handles, title="L2 strength", labelspacing=0.3, frameon=False, **beside)


def strength_styles(strengths: np.ndarray) -> list[dict[str, Any]]:
    """From light (weak, but visible on white) to dark (strong); strength 0 is black and dashed."""
    colours = iter(matplotlib.colormaps["viridis_r"](np.linspace(0.12, 1.0, np.count_nonzero(strengths))))
    zero = {"color": "black", "linestyle": "--", "zorder": 2.5}
    return [{"color": next(colours), "linestyle": "-"} if l2 else zero for l2 in strengths]


def _limits(values: xr.DataArray, diverged: xr.DataArray) -> tuple[float, float]:
    """Limits of a logarithmic axis: all values, except that what diverged may not squeeze the others."""
    kept = values.where(~diverged)
    every, kept = (array[np.isfinite(array) & (array > 0)] for array in (values.values, kept.values))
    if not every.size:
        return 0.1, 10.0
    high = min(every.max(), 10 * kept.max()) if kept.size else every.max()
    margin = max(1.01, (high / every.min()) ** 0.05)
    return every.min() / margin, high * margin
