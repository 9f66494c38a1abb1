"""Figures of a sweep. Each function returns its figure; given `axes`, it draws there and returns theirs.

Colours keep their order in grey and for colour-blind eyes; what matters differs in dash, marker or place too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from l2jax.results import Results

# Okabe and Ito's colour-blind-safe vermilion, and their blue made darker so that the two differ in grey.
TRAINING: dict[str, Any] = {"color": "#D55E00", "linestyle": "--", "marker": "s", "markerfacecolor": "white"}
VALIDATION: dict[str, Any] = {"color": "#00527F", "linestyle": "-", "marker": "o"}
CROSS: dict[str, Any] = {
    "marker": "x",
    "markersize": 7,
    "markeredgewidth": 1.8,
    "linestyle": "",
    "clip_on": False,
}


def loss_curves(results: Results, axes: Sequence[Axes] | None = None) -> Figure:
    """Training and validation loss (cross-entropy) over epochs, a line a strength.

    Lines are means over the trials that did not diverge, bands span them. A diverged trial is a thin line of
    its own that ends in a cross. `axes`: two, for training and for validation loss.
    """
    if axes is None:
        figure = Figure(figsize=(9.6, 4.4), layout="constrained")
        figure.suptitle(f"Loss during training: {_trials(results, 'mean and range')}")
        axes = list(figure.subplots(1, 2))
    data = results.data.sortby("l2")
    epochs, strengths = data["epoch"].values, data["l2"].values
    styles = _strength_styles(strengths)
    panels = (("train_loss", "Training loss"), ("val_loss", "Validation loss"))
    for ax, (metric, title) in zip(axes, panels, strict=True):
        low, high = _loss_limits(results, metric)
        for index, style in enumerate(styles):
            of_strength = data.isel(l2=index)
            trials = of_strength[metric].transpose("epoch", ...).values.reshape(len(epochs), -1)
            diverged = of_strength["diverged"].values.ravel()
            if not diverged.all():
                kept = trials[:, ~diverged]
                ax.fill_between(epochs, kept.min(1), kept.max(1), color=style["color"], alpha=0.2, lw=0)
                line = {"label": _name(strengths[index]), "marker": "o" if len(epochs) == 1 else None}
                ax.plot(epochs, kept.mean(1), linewidth=1.7, **line, **style)
            for trial in trials[:, diverged].T:
                finite = trial[np.isfinite(trial)]
                ax.plot(epochs[: len(finite)], finite, linewidth=0.8, **style)
                end, last = (len(finite) - 1, np.clip(finite[-1], low, high)) if len(finite) else (0, high)
                ax.plot(epochs[end], last, color=style["color"], **CROSS)
        ax.set(title=title, xlabel="epoch", ylabel="cross-entropy (nat)", yscale="log", ylim=(low, high))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        _finish(ax)
    lines = zip(strengths[::-1], styles[::-1], strict=True)  # as the lines lie: the strongest is the highest
    handles = [Line2D([], [], label=_name(l2), linewidth=2, **style) for l2, style in lines]
    if data["diverged"].any():
        handles.append(Line2D([], [], label="diverged", color="0.2", **CROSS))
    columns, size = math.ceil(len(handles) / 24), "small" if len(handles) > 14 else "medium"
    beside = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5), "ncols": columns, "fontsize": size}
    axes[-1].legend(handles=handles, title="L2 strength", labelspacing=0.3, frameon=False, **beside)
    return cast(Figure, axes[0].figure)


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
        figure.suptitle(f"After {after}: {_trials(results, 'mean and standard error')}")
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
        _strength_axis(ax, results)
    _draw_gap(gap_ax, results)
    gap_ax.set_ylim(0, 1.05 * gap_ax.get_ylim()[1])
    for ax in axes:
        _finish(ax)
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
    table = results.table()
    places = _places(table.index.values)
    for part in _parts(table.index.values):
        faint: dict[str, Any] = style | {"markersize": 2.5, "linewidth": 0.7, "alpha": 0.35}
        ax.plot(places[part], trials[part], **faint)
        mean, error = table[metric].to_numpy()[part], table[f"{metric}_se"].to_numpy()[part]
        bold: dict[str, Any] = style | {"markersize": 5, "linewidth": 1.7, "capsize": 3, "zorder": 3}
        line = ax.errorbar(places[part], mean, error, **bold).lines[0]
        if part[-1]:  # once, and for the line alone: a legend puts error bars after all else
            line.set_label(label)


def _draw_gap(ax: Axes, results: Results) -> None:
    """Shades what lies between the mean training and the mean validation loss."""
    table = results.table()
    places = _places(table.index.values)
    for part in _parts(table.index.values):
        x, low, high = places[part], table["train_loss"].to_numpy()[part], table["val_loss"].to_numpy()[part]
        if len(x) == 1:  # a point has no area: a narrow bar
            half = 1.02 * (places[-1] / places[0]) ** 0.03
            x, low, high = x * np.array([1 / half, half]), low.repeat(2), high.repeat(2)
        ax.fill_between(x, low, high, color="0.87", lw=0, zorder=0.5, label="gap" if part[-1] else None)


def _draw_choices(ax: Axes, results: Results, metric: str, named: bool) -> None:
    """Marks the strengths that the two rules choose, and with crosses those with a diverged trial."""
    table = results.table()
    table["place"] = _places(table.index.values)
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
        label = f"{rule}: {_name(l2)}" if named else None
        filled = {"marker": marker, "markersize": size, "markerfacecolor": "#F0E442", "zorder": 4}
        ax.plot(place, table[metric][l2], label=label, **style, **filled)


def _strength_axis(ax: Axes, results: Results) -> None:
    """A logarithmic axis of strengths, broken between 0 and the others."""
    strengths = results.table().index.values
    places = _places(strengths)
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
    labels = [f"$10^{{{math.log10(tick):.0f}}}$" if len(powers) > 1 else _name(tick) for tick in ticks]
    if strengths[0] == 0:
        ticks, labels = [float(places[0]), *ticks], ["0", *labels]
        if len(places) > 1:
            cut = {"boxstyle": "square,pad=0.05", "facecolor": ax.get_facecolor(), "edgecolor": "none"}
            middle, below = math.sqrt(places[0] * places[1]), ax.get_xaxis_transform()
            ax.text(middle, 0, "//", transform=below, bbox=cut, zorder=5, ha="center", va="center")
    ax.set_xticks(ticks, labels)
    ax.set_xticks(positive, minor=True)
    ax.xaxis.set_minor_formatter(NullFormatter())


def _places(strengths: np.ndarray) -> np.ndarray:
    """Where the sorted strengths stand on a logarithmic axis: 0 stands a step left of the weakest other."""
    if strengths[0] > 0:
        return strengths
    if len(strengths) == 1:
        return np.ones(1)
    step = max(3.0, (strengths[-1] / strengths[1]) ** 0.18)
    return np.concatenate([[strengths[1] / step], strengths[1:]])


def _parts(strengths: np.ndarray) -> list[np.ndarray]:
    """Masks of what a line may join: 0 is no point of a logarithmic axis, so it stays alone."""
    return [part for part in (strengths == 0, strengths > 0) if part.any()]


def _strength_styles(strengths: np.ndarray) -> list[dict[str, Any]]:
    """From light (weak, but visible on white) to dark (strong); strength 0 is black and dashed."""
    colours = iter(matplotlib.colormaps["viridis_r"](np.linspace(0.12, 1.0, np.count_nonzero(strengths))))
    zero = {"color": "black", "linestyle": "--", "zorder": 2.5}
    return [{"color": next(colours), "linestyle": "-"} if l2 else zero for l2 in strengths]


def _loss_limits(results: Results, metric: str) -> tuple[float, float]:
    """Limits of a logarithmic axis: all losses, except that what diverged may not squeeze the others."""
    losses = results.data[metric]
    kept = losses.where(~results.data["diverged"])
    every, kept = (values.values[np.isfinite(values) & (values > 0)] for values in (losses, kept))
    if not every.size:
        return 0.1, 10.0
    high = min(every.max(), 10 * kept.max()) if kept.size else every.max()
    margin = max(1.01, (high / every.min()) ** 0.05)
    return every.min() / margin, high * margin


def _finish(ax: Axes) -> None:
    """An open frame; on a logarithmic axis of losses, ticks that read as plain numbers."""
    ax.spines[["top", "right"]].set_visible(False)
    if ax.get_yscale() == "log":
        low, high = ax.get_ylim()
        decades = math.log10(high / low)
        subs = (1, 2, 3, 4, 6, 8) if decades < 1 else (1, 2, 5) if decades < 2.5 else (1,)
        ax.yaxis.set_major_locator(LogLocator(subs=subs))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_locator(NullLocator())


def _name(l2: float) -> str:
    return f"{l2:.3g}"


def _trials(results: Results, shown: str) -> str:
    count = results.data["diverged"].size // results.data.sizes["l2"]
    return f"{shown} of {count} trials at each L2 strength" if count > 1 else "1 trial at each L2 strength"
