"""Pictures that can be looked into: Plotly figures as plain dicts, each with a sentence on how to read it.

They hold numbers alone, no Plotly: the page that shows them brings its script.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from l2jax.report import marks
from l2jax.report.marks import Chart
from l2jax.results import comparisons
from l2jax.results.metrics import MAGNITUDES as MIDDLES
from l2jax.results.metrics import REPLICATES
from l2jax.results.results import Results


def over_epochs(results: Results) -> list[Chart]:
    """Losses, accuracies and kernel norms over epochs, a line a strength and a thin one a trial."""
    data = results.data.sortby("l2")
    metrics: list[tuple[str, str, str, xr.DataArray]] = [
        ("Training loss", "cross-entropy (nat)", "Without the penalty, so that strengths compare.", data["train_loss"]),
        ("Validation loss", "cross-entropy (nat)", "A line that turns up again is overfitting.", data["val_loss"]),
        ("Validation accuracy", "fraction right", "It need not turn where the loss does.", data["val_accuracy"]),
    ]
    if "val_ece" in data:
        reading = "How far confidence is from the fraction right: lower is better."
        metrics.append(("Validation calibration error", "fraction", reading, data["val_ece"]))
    reading = "The stronger L2, the lower it should lie: this is what L2 acts on."
    if "kernel_norm" in data:
        for layer in data["layer"].values:
            title = f"Kernel norm of {layer}"
            metrics.append((title, "Euclidean norm", reading, data["kernel_norm"].sel(layer=layer)))
    else:
        metrics.append(("Norm of all kernels", "Euclidean norm", reading, data["kernel_sum_of_squares"] ** 0.5))
    return [_curves(data, *metric) for metric in metrics]


def _curves(data: xr.Dataset, title: str, unit: str, reading: str, values: xr.DataArray) -> Chart:
    strengths, colours = data["l2"].values, marks.strength_colours(data["l2"].values)
    shown = values.isel(epoch=slice(None, None, math.ceil(data.sizes["epoch"] / marks.MOST_EPOCHS)))
    epochs, labels = shown["epoch"].values.tolist(), comparisons.replicate_labels(data)
    trials, ended = comparisons.by_strength(shown, "epoch"), comparisons.by_strength(data["diverged"]).astype(bool)
    traces = []
    for index, (l2, colour) in enumerate(zip(strengths, colours, strict=True)):
        line = {"color": colour, "dash": "solid" if l2 else "dash"}
        for trial, label in enumerate(labels[: marks.MOST_TRIALS]):
            sizes = np.zeros(len(epochs))
            finite = np.flatnonzero(np.isfinite(trials[index, trial]))
            if ended[index, trial] and len(finite):
                sizes[finite[-1]] = 9
            cross = {"symbol": "x", "color": colour, "size": sizes.tolist()}
            what = f"{label}, diverged" if ended[index, trial] else label
            thin = {"mode": "lines+markers", "marker": cross, "line": line | {"width": 1}, "opacity": 0.4}
            traces.append(marks.line(epochs, trials[index, trial], f"l2 = {l2:.3g}, {what}", index) | thin)
        kept = trials[index, ~ended[index]]
        if len(kept) > 1 or (len(kept) and len(epochs) == 1):
            bold = {"mode": "lines" if len(epochs) > 1 else "markers", "line": line | {"width": 2.6}}
            bold |= {"marker": {"color": colour, "size": 9}}
            traces.append(marks.line(epochs, kept.mean(0), f"l2 = {l2:.3g}, mean of {len(kept)}", index) | bold)
    layout = marks.layout("epoch", unit)
    if "accuracy" not in title:
        layout["yaxis"] |= {"type": "log", "range": marks.log_range(trials, ended), "dtick": "D2", "tickformat": "~g"}
    how = "A thick line is the mean of a strength, a thin one a trial"
    if len(labels) > marks.MOST_TRIALS:
        how += f", of which the first {marks.MOST_TRIALS} of {len(labels)} are drawn"
    how += "; dashed is no L2." if strengths[0] == 0 else "."
    how += " A cross is where a trial diverged." if ended.any() else ""
    return Chart(title, f"{how} {reading}", {"data": traces, "layout": layout})


def kernel_magnitudes(results: Results) -> list[Chart]:
    """How large the values of each layer's kernel are at the end, a line a strength; nothing in older results."""
    if "kernel_magnitudes" not in results.data:
        return []
    shares = comparisons.magnitude_shares(results)
    layout = marks.layout("magnitude", "% of the values")
    layout["xaxis"] |= {"type": "log", "dtick": 1, "exponentformat": "power"}
    layout["yaxis"] |= {"rangemode": "tozero"}
    how = "A line a strength: how many of the kernel's values are how large, all trials together. L2 moves them to the "
    how += "left. The first and the last point also count what lies beyond."
    strengths = shares["l2"].values
    charts = []
    for layer in shares["layer"].values:
        traces = []
        for index, (l2, colour) in enumerate(zip(strengths, marks.strength_colours(strengths), strict=True)):
            share = shares.sel(layer=layer, l2=l2).values
            if np.isnan(share).all():  # every trial has diverged
                continue
            texts = [f"l2 = {l2:.3g}, about {at:.2g}: {part:.3g}%" for at, part in zip(MIDDLES, share, strict=True)]
            look = {"color": colour, "width": 2, "shape": "hvh", "dash": "solid" if l2 else "dash"}
            traces.append(marks.trace(MIDDLES, share, texts) | {"mode": "lines", "line": look, "meta": index})
        charts.append(Chart(f"Values of the kernel of {layer}", how, {"data": traces, "layout": layout}))
    return charts


def over_strengths(results: Results) -> list[Chart]:
    """What each strength ended with: validation loss and its change, both losses and accuracies, gap and rise."""
    ended, nat = comparisons.outcomes(results), "cross-entropy (nat)"
    bars = "Dots are trials, lines means, bars standard errors"
    losses = (("val_loss", "validation", marks.VALIDATION), ("train_loss", "training", marks.TRAINING))
    accuracies = (("val_accuracy", "validation", marks.VALIDATION), ("train_accuracy", "training", marks.TRAINING))
    chosen = _means(ended, losses[:1], "se", nat)
    chosen["data"] += _choices(results)
    rule = "One standard error: the strongest whose mean is within that of the lowest one's."
    charts = [Chart("Validation loss against strength", f"{bars}. Lower is better. {rule}", chosen), *_change(ended)]
    how = f"{bars}. What lies between the two is the gap."
    charts.append(Chart("Training and validation loss", how, _means(ended, losses, "se", nat)))
    how = f"{bars}. Higher is better; the best strength need not be that of the loss."
    charts.append(Chart("Accuracy against strength", how, _means(ended, accuracies, "se", "fraction right")))
    bars = "Dots are trials, the line is the mean, bars are 95% intervals"
    for metric, title, what in (
        ("gap", "Gap", "Validation minus training loss. A smaller gap helps only where validation loss is lower, too."),
        (
            "rise",
            "Rise of validation loss",
            "How far it ended above its own lowest epoch: 0 is none, the least there is.",
        ),
    ):
        figure = _means(ended, [(metric, metric, marks.VALIDATION)], "interval", nat)
        charts.append(Chart(f"{title} against strength", f"{bars}. {what}", figure))
    return charts


def _means(ended: xr.Dataset, metrics: Sequence[tuple[str, str, str]], bars: str, unit: str) -> dict[str, Any]:
    strengths, labels = ended["l2"].values, comparisons.replicate_labels(ended)
    places, traces = marks.places(strengths), []
    for metric, name, colour in metrics:
        values = comparisons.by_strength(ended[metric])
        for trial, label in enumerate(labels[: marks.MOST_TRIALS]):
            points = zip(strengths, values[:, trial], strict=True)
            texts = [f"l2 = {l2:.3g}, {label}, {name}: {value:.4f}" for l2, value in points]
            dots = {"mode": "markers", "marker": {"color": colour, "size": 4}, "opacity": 0.4}
            traces.append(marks.trace(places, values[:, trial], texts) | dots)
        table = comparisons.summary(ended, metric)
        for part in (strengths == 0, strengths > 0):  # 0 is no point of a logarithmic axis: no line leads there
            if part.any():
                traces.append(marks.means(places[part], table[part], colour, bars, name) | {"legendgroup": name})
                traces[-1]["showlegend"] = bool(part[-1])
    layout = marks.layout("L2 strength", unit)
    layout["xaxis"] |= marks.strength_ticks(strengths)
    layout["showlegend"] = bars == "se"  # an interval is of one metric, that the title names
    return {"data": traces, "layout": layout}


def _choices(results: Results) -> list[dict[str, Any]]:
    """A star at the lowest mean, a diamond at the choice of one standard error."""
    if results.best_setting_or_none() is None:
        return []
    lowest, careful = results.best(), results.best(rule="1se")
    table, traces = results.settings_table()["val_loss"], []
    places = dict(zip(table.index, marks.places(table.index.values), strict=True))
    chosen = [("lowest mean", lowest, "star", 17), ("one standard error", careful, "diamond", 13)]
    if lowest == careful:
        chosen = [("lowest mean, and one standard error", lowest, "star", 17)]
    for rule, l2, symbol, size in chosen:
        marker = {"symbol": symbol, "size": size, "color": marks.CHOSEN, "line": {"color": marks.TEXT, "width": 1.4}}
        trace = marks.trace([places[l2]], [table[l2]], [f"{rule}: l2 = {l2:.3g}"])
        traces.append(trace | {"mode": "markers", "marker": marker, "name": rule, "showlegend": True})
    return traces


def _change(ended: xr.Dataset) -> list[Chart]:
    """The paired differences that the verdict decides by; nothing where there is none."""
    table, reference = comparisons.compare(ended), float(ended["l2"][0])
    if not table["num"].any():
        return []
    trace = marks.means(marks.places(ended["l2"].values)[1:], table, marks.VALIDATION, "interval", "change")
    words = [f", p = {p:.2g} corrected" if p == p else "" for p in table["p_holm"]]
    trace["text"] = ["".join(both) for both in zip(trace["text"], words, strict=True)]
    symbols = ["circle" if sure else "circle-open" for sure in comparisons.is_clear(table)]
    trace |= {"mode": "markers", "marker": trace["marker"] | {"symbol": symbols, "size": 11}, "showlegend": False}
    layout = marks.layout("L2 strength", "difference (nat)")
    layout["xaxis"] |= marks.strength_ticks(ended["l2"].values)
    layout["yaxis"] |= {"zeroline": True, "zerolinecolor": marks.FAINT, "zerolinewidth": 1.5}
    none = "no L2" if reference == 0 else f"l2 = {reference:.3g}"
    how = "Differences of trials with the same seed: mean and 95% interval. Below 0, L2 helps. Filled: clear after "
    how += "Holm's correction for the number of strengths. Open: it may be chance."
    return [Chart(f"Change of validation loss against {none}", how, {"data": [trace], "layout": layout})]


def learning_rates(results: Results) -> list[Chart]:
    """Mean validation loss for every learning rate and strength; nothing where one learning rate was tried."""
    data = results.data.isel(epoch=-1, drop=True)
    if "learning_rate" not in data["val_loss"].dims:
        return []
    data = data.sortby(["l2", "learning_rate"])
    draws = [name for name in REPLICATES if name in data.dims]
    loss = data["val_loss"].astype(np.float64).mean(draws).where(~data["diverged"].astype(bool).any(draws))
    others = [name for name in loss.dims if name not in ("l2", "learning_rate")]
    loss = loss.min(others).transpose("l2", "learning_rate")
    rates, strengths = ([f"{value:.3g}" for value in loss[name].values] for name in ("learning_rate", "l2"))
    words = [["diverged" if np.isnan(value) else f"{value:.3f}" for value in row] for row in loss.values]
    trace = {"type": "heatmap", "x": rates, "y": strengths, "z": [marks.numbers(np.log10(row)) for row in loss.values]}
    trace |= {"text": words, "texttemplate": "%{text}", "colorscale": "Viridis", "reversescale": True}
    hover = "learning rate %{x}<br>l2 = %{y}<br>validation loss %{text}<extra></extra>"
    trace |= {"showscale": False, "xgap": 2, "ygap": 2, "hovertemplate": hover, "hoverongaps": True}
    layout = marks.layout("learning rate", "L2 strength")
    layout["xaxis"] |= {"type": "category"}
    layout["yaxis"] |= {"type": "category"}
    how = "Mean validation loss at the last epoch; yellow is low. Where the best strength changes with the learning "
    how += "rate, the two have to be chosen together. A setting with a diverged trial has no mean."
    if others:
        how += f" Of {', '.join(map(str, others))}, the best."
    return [Chart("Validation loss by learning rate and strength", how, {"data": [trace], "layout": layout})]


def compared_runs(runs: Mapping[str, Results]) -> list[Chart]:
    """Validation loss and accuracy against strength, a line a run."""
    charts = []
    strengths = np.unique(np.concatenate([results.data["l2"].values for results in runs.values()]))
    places = dict(zip(strengths, marks.places(strengths), strict=True))
    for metric, title, unit in (
        ("val_loss", "Validation loss of the runs", "cross-entropy (nat)"),
        ("val_accuracy", "Validation accuracy of the runs", "fraction right"),
    ):
        traces = []
        looks = zip(itertools.cycle(marks.RUNS), itertools.cycle(marks.DASHES), strict=True)
        for (name, results), (colour, dash) in zip(runs.items(), looks, strict=False):
            table = comparisons.summary(comparisons.outcomes(results), metric)
            shown = html.escape(name)  # Plotly reads tags
            line = marks.means([places[l2] for l2 in table.index], table, colour, "se", shown)
            traces.append(line | {"line": line["line"] | {"dash": dash}})
        layout = marks.layout("L2 strength", unit)
        layout["xaxis"] |= marks.strength_ticks(strengths)
        how = "A line a run: means and standard errors at its last epoch. A click on a name hides a run."
        charts.append(Chart(title, how, {"data": traces, "layout": layout}))
    return charts
