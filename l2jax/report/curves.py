"""Charts over epochs and at the end, with a line per strength, or per group of many, which the page switches."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from l2jax.plot.style import axis_label
from l2jax.report import theme, traces
from l2jax.report.traces import MOST_TRIALS, Chart
from l2jax.results import comparisons, words
from l2jax.results.comparisons import by_strength
from l2jax.results.estimates import nanmean
from l2jax.results.metrics import MAGNITUDES, METRICS
from l2jax.results.replicates import replicate_labels
from l2jax.results.results import Results
from l2jax.results.spread import LINES, Group, is_large, spread, strength_groups

MOST_EPOCHS = 250
"""A longer training is drawn at about as many of its epochs."""

ADVICE = {
    "train_loss": "Without the penalty, so that strengths compare.",
    "val_loss": "A line that turns up again is overfitting.",
    "val_accuracy": "It need not turn where the loss does.",
    "val_ece": "How far confidence is from the fraction right: lower is better.",
}
"""The metrics that are drawn over epochs, and what to look for."""


def lines_of(results: Results) -> list[Group]:
    """What has a line and a switch: each strength by itself, or groups of neighbouring ones."""
    strengths = np.sort(results.data["l2"].values)
    return strength_groups(strengths, LINES if is_large(results) else len(strengths))


def colours_of(groups: Sequence[Group]) -> list[str]:
    """The colour of each line."""
    return theme.colours_of_both_schemes(np.array([group.middle for group in groups]))


def over_epochs(results: Results) -> list[Chart]:
    """Losses, accuracy, calibration error and kernel norms over epochs: one line per strength, a thin one per trial.

    Of hundreds of trials and more: means and bands of groups of neighbouring strengths.
    """
    data = results.data.sortby("l2")
    metrics = {name: METRICS[name] for name in ADVICE if name in data}
    draw = functools.partial(_bands, lines_of(results)) if is_large(results) else _curves
    norms, on_norms = _kernel_norms(data), "The stronger L2, the lower it should lie: this is what L2 acts on."
    return [
        draw(
            data,
            data[name],
            title=metric.name.capitalize(),
            label=axis_label(metric),
            log=metric.better != "higher",  # what rises ends near 1, where a logarithm shows nothing
            advice=ADVICE[name],
        )
        for name, metric in metrics.items()
    ] + [
        draw(data, values, title=title, label="Euclidean norm", log=True, advice=on_norms)
        for title, values in norms.items()
    ]


def _kernel_norms(data: xr.Dataset) -> dict[str, xr.DataArray]:
    """The norm of each layer's kernel by its title; of all kernels together in older results."""
    if "kernel_norm" in data:
        return {f"Kernel norm of {layer}": data["kernel_norm"].sel(layer=layer) for layer in data["layer"].values}
    return {"Norm of all kernels": data["kernel_sum_of_squares"] ** 0.5}


def _curves(data: xr.Dataset, values: xr.DataArray, *, title: str, label: str, log: bool, advice: str) -> Chart:
    """One chart of values over epochs, on a logarithmic axis or not."""
    values = values.isel(epoch=slice(None, None, math.ceil(data.sizes["epoch"] / MOST_EPOCHS)))
    epochs, strengths, replicates = values["epoch"].values.tolist(), data["l2"].values, replicate_labels(data)
    curves, diverged = by_strength(values, "epoch"), by_strength(data["diverged"]) > 0
    lines = []
    for index, (l2, colour) in enumerate(zip(strengths, theme.colours_of_both_schemes(strengths), strict=True)):
        style = {"color": colour, "dash": "solid" if l2 else "dash"}
        for trial, replicate in enumerate(replicates[:MOST_TRIALS]):
            name = f"{words.strength(l2)}, {replicate}" + (", diverged" if diverged[index, trial] else "")
            line = traces.curve(epochs, curves[index, trial], label=name, strength=index)
            lines.append(line | _thin(curves[index, trial], style, crossed=diverged[index, trial]))
        finished = curves[index, ~diverged[index]]
        if len(finished) > 1 or (len(finished) and len(epochs) == 1):
            name = f"{words.strength(l2)}, mean of {len(finished)}"
            bold = {"mode": "lines" if len(epochs) > 1 else "markers", "line": style | {"width": 2.6}}
            bold |= {"marker": {"color": colour, "size": 9}}
            lines.append(traces.curve(epochs, finished.mean(0), label=name, strength=index) | bold)
    layout = theme.layout("epoch", label)
    if log:
        layout["yaxis"] |= theme.log_axis(curves, diverged)
    reading = "A thick line is the mean of a strength, a thin one a trial"
    if len(replicates) > MOST_TRIALS:
        reading += f", of which the first {MOST_TRIALS} of {len(replicates)} are drawn"
    reading += "; dashed is no L2." if strengths[0] == 0 else "."
    reading += " A cross is where a trial diverged." if diverged.any() else ""
    return Chart(title, f"{reading} {advice}", {"data": lines, "layout": layout})


def _bands(
    groups: list[Group], data: xr.Dataset, values: xr.DataArray, *, title: str, label: str, log: bool, advice: str
) -> Chart:
    """One chart of the mean and the spread of values over epochs, for each group of strengths."""
    values = values.isel(epoch=slice(None, None, math.ceil(data.sizes["epoch"] / MOST_EPOCHS)))
    epochs, diverged = values["epoch"].values, by_strength(data["diverged"]) > 0
    drawn, lines = spread(by_strength(values, "epoch"), diverged, groups), []
    for index, (group, colour) in enumerate(zip(groups, colours_of(groups), strict=True)):
        of_group = drawn.part(index)
        if np.isnan(of_group.mean).all():  # every trial of the group has diverged
            continue
        texts = [f"l2 = {group}, epoch {epoch}: {traces.with_spread(of_group, at)}" for at, epoch in enumerate(epochs)]
        dash = "solid" if group.high else "dash"
        lines += [line | {"meta": index} for line in traces.bands(epochs, of_group, texts, colour=colour, dash=dash)]
    layout = theme.layout("epoch", label)
    if log:
        shown = np.stack([drawn.mean, *drawn.quantiles], 1)
        layout["yaxis"] |= theme.log_axis(shown, np.zeros(shown.shape[:2], bool))
    reading = (
        "A line is the mean of neighbouring strengths, bands hold the middle 50% and the middle 90% of their trials"
    )
    reading += "; dashed is no L2." if groups[0].high == 0 else "."
    reading += f" {int(diverged.sum()):,} trials diverged, and are left out." if diverged.any() else ""
    return Chart(title, f"{reading} {advice}", {"data": lines, "layout": layout})


def _thin(curve: np.ndarray, style: dict[str, Any], *, crossed: bool) -> dict[str, Any]:
    """The look of a trial's curve, with a cross at its last finite value if it diverged."""
    sizes, finite = np.zeros(len(curve)), np.flatnonzero(np.isfinite(curve))
    if crossed and len(finite):
        sizes[finite[-1]] = 9
    cross = {"symbol": "x", "color": style["color"], "size": sizes.tolist()}
    return {"mode": "lines+markers", "marker": cross, "line": style | {"width": 1}, "opacity": 0.4}


def kernel_magnitudes(results: Results) -> list[Chart]:
    """The magnitudes of each layer's kernel values at the end, with the lines of `lines_of`; none of older results."""
    if "kernel_magnitudes" not in results.data:
        return []
    groups, shares = lines_of(results), comparisons.magnitude_shares(results)
    layout = theme.layout("magnitude", "% of the values")
    layout["xaxis"] |= {"type": "log", "dtick": 1, "exponentformat": "power"}
    layout["yaxis"] |= {"rangemode": "tozero"}
    reading = "One line per strength: how many of the kernel's values are how large, all trials together. L2 moves "
    reading += "them to the left. The first and the last point also count the values beyond them."
    charts = []
    for layer in shares["layer"].values:
        lines = []
        for index, (group, colour) in enumerate(zip(groups, colours_of(groups), strict=True)):
            share = nanmean(shares.sel(layer=layer).values[group.members].T)
            if np.isnan(share).all():  # every trial of the group has diverged
                continue
            bins = zip(MAGNITUDES, share, strict=True)
            of = str(group) if group.low < group.high else words.strength(group.low)
            texts = [f"{of}, about {magnitude:.2g}: {percent:.3g}%" for magnitude, percent in bins]
            style = {"color": colour, "width": 2, "shape": "hvh", "dash": "solid" if group.high else "dash"}
            lines.append(traces.points(MAGNITUDES, share, texts) | {"mode": "lines", "line": style, "meta": index})
        charts.append(Chart(f"Values of the kernel of {layer}", reading, {"data": lines, "layout": layout}))
    return charts
