"""Charts against strength: outcomes of one run, also by learning rate, and of several runs."""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from l2jax.config import hyperparameter
from l2jax.plot.heat_map import MOST_CELLS_WITH_NUMBERS, MOST_COLUMNS_WITH_NUMBERS
from l2jax.plot.strengths import group_positions, segments
from l2jax.plot.style import axis_label
from l2jax.report import theme, traces
from l2jax.report.traces import MOST_TRIALS, Chart
from l2jax.results import comparisons, words
from l2jax.results.comparisons import by_strength
from l2jax.results.estimates import nanmean
from l2jax.results.metrics import ALL_METRICS, METRICS, REPLICATES
from l2jax.results.replicates import replicate_labels
from l2jax.results.results import Results
from l2jax.results.spread import MOST_STRENGTHS, POINTS, Group, Spread, is_large, spread, strength_groups


def over_strengths(results: Results) -> list[Chart]:
    """Metrics at the last epoch: validation loss and its change, both losses and accuracies, gap and rise."""
    outcomes = comparisons.outcomes(results)
    validation, training = ("validation", theme.VALIDATION), ("training", theme.TRAINING)
    draw = _spreads if is_large(results) else _means
    loss = draw(outcomes, {"val_loss": validation}, bars="se")
    loss["data"] += _choices(results)
    losses = draw(outcomes, {"val_loss": validation, "train_loss": training}, bars="se")
    accuracies = draw(outcomes, {"val_accuracy": validation, "train_accuracy": training}, bars="se")
    gap, rise = (draw(outcomes, {metric: (metric, theme.VALIDATION)}, bars="interval") for metric in ("gap", "rise"))
    errors = "Dots are trials, lines means, bars standard errors."
    intervals = "Dots are trials, the line is the mean, bars are 95% intervals."
    if is_large(results):
        errors = intervals = "Lines are means, bands the middle 50% and the middle 90% of the trials."
    rule = "One standard error: the strongest whose mean is within that of the lowest one's."
    tradeoff = "Validation minus training loss. A smaller gap helps only where validation loss is lower, too."
    least = "How far it ended above its own lowest epoch: 0 is none, the least there is."
    return [
        Chart("Validation loss against strength", f"{errors} Lower is better. {rule}", loss),
        *_change(outcomes),
        Chart("Training and validation loss", f"{errors} What lies between the two is the gap.", losses),
        Chart(
            "Accuracy against strength",
            f"{errors} Higher is better; the best strength need not be that of the loss.",
            accuracies,
        ),
        Chart("Gap against strength", f"{intervals} {tradeoff}", gap),
        Chart("Rise of validation loss against strength", f"{intervals} {least}", rise),
    ]


def _means(outcomes: xr.Dataset, metrics: Mapping[str, tuple[str, str]], *, bars: traces.Bars) -> dict[str, Any]:
    """Means and single trials.

    Args:
      metrics: with the same unit; the name in the legend and the colour of each.
    """
    strengths, replicates = outcomes["l2"].values, replicate_labels(outcomes)
    positions, data = theme.log_positions(strengths), []
    for metric, (name, colour) in metrics.items():
        values, table = by_strength(outcomes[metric]), comparisons.summary(outcomes, metric)
        for trial, replicate in enumerate(replicates[:MOST_TRIALS]):
            pairs = zip(strengths, values[:, trial], strict=True)
            texts = [f"{words.strength(l2)}, {replicate}, {name}: {value:.4f}" for l2, value in pairs]
            dots = {"mode": "markers", "marker": {"color": colour, "size": 4}, "opacity": 0.4}
            data.append(traces.points(positions, values[:, trial], texts) | dots)
        for segment in segments(strengths):
            line = traces.means(positions[segment], table[segment], colour=colour, bars=bars, name=name)
            data.append(line | {"legendgroup": name, "showlegend": bool(segment[-1])})
    layout = theme.strength_layout(strengths, axis_label(ALL_METRICS[next(iter(metrics))]))
    layout["showlegend"] = bars == "se"  # an interval is of one metric, which the title names
    return {"data": data, "layout": layout}


def _spreads(outcomes: xr.Dataset, metrics: Mapping[str, tuple[str, str]], *, bars: traces.Bars) -> dict[str, Any]:
    """Means and quantiles of the trials of neighbouring strengths; the arguments are those of `_means`."""
    strengths, data = outcomes["l2"].values, []
    groups = strength_groups(strengths, POINTS)
    for metric, (name, colour) in metrics.items():
        values = by_strength(outcomes[metric])
        drawn = spread(values, np.isnan(values), groups)
        texts = [f"{name}, l2 = {group}: {traces.with_spread(drawn, place)}" for place, group in enumerate(groups)]
        data += _apart(strengths, groups, drawn, texts, colour=colour, name=name)
    layout = theme.strength_layout(strengths, axis_label(ALL_METRICS[next(iter(metrics))]))
    layout["showlegend"] = bars == "se"
    return {"data": data, "layout": layout}


def _apart(
    strengths: np.ndarray, groups: list[Group], drawn: Spread, texts: list[str], *, colour: str, name: str
) -> list[dict[str, Any]]:
    """Bands and a line over groups of strengths; bars and a point for 0, which is not on their axis."""
    positions, zero, data = np.log10(group_positions(strengths, groups)), int(groups[0].high == 0), []
    half = 0.012 * np.ptp(positions)
    for part in (slice(0, zero), slice(zero, None)):
        x, of_part = positions[part], drawn.part(part)
        if len(x):
            *filled, line = traces.bands(x, of_part, texts[part], colour=colour)
            if len(x) == 1:  # a band has no area at a point
                filled = traces.bands(x + np.array([-half, half]), of_part.repeated(2), ["", ""], colour=colour)[:-1]
            data += [*filled, line | {"name": name, "legendgroup": name, "showlegend": part.start == zero}]
    return data


def _choices(results: Results) -> list[dict[str, Any]]:
    """A star at the lowest mean, and a diamond at the choice of one standard error."""
    if results.best_setting_or_none() is None:
        return []
    lowest, strongest = results.best(), results.best(rule="1se")
    choices = [("lowest mean", lowest, "star", 17), ("one standard error", strongest, "diamond", 13)]
    if lowest == strongest:
        choices = [("lowest mean, and one standard error", lowest, "star", 17)]
    losses, markers = results.settings_table()["val_loss"], []
    positions = dict(zip(losses.index, theme.log_positions(losses.index.to_numpy()), strict=True))
    for rule, l2, symbol, size in choices:
        marker = {"symbol": symbol, "size": size, "color": theme.CHOICE, "line": {"color": theme.TEXT, "width": 1.4}}
        point = traces.points([positions[l2]], [losses[l2]], [f"{rule}: {words.strength(l2)}"])
        markers.append(point | {"mode": "markers", "marker": marker, "name": rule, "showlegend": True})
    return markers


def _change(outcomes: xr.Dataset) -> list[Chart]:
    """The paired differences of validation loss that decide the verdict; no chart if there are none."""
    compared, strengths = comparisons.compare(outcomes), outcomes["l2"].values
    if not compared["num"].any():
        return []
    many = len(strengths) > MOST_STRENGTHS
    data = _changes_of_many(compared) if many else [_changes_of_each(strengths, compared)]
    layout = theme.strength_layout(strengths, f"difference ({METRICS['val_loss'].unit})")
    layout["yaxis"] |= {"zeroline": True, "zerolinecolor": theme.FAINT, "zerolinewidth": 1.5}
    title = f"Change of validation loss against {words.strength(strengths[0])}"
    reading = "Differences of trials with the same seed: mean and 95% interval. Below 0, L2 helps. Filled: clear after "
    reading += "Holm's correction for the number of strengths. Open: it may be chance."
    if many:
        reading = (
            "Mean differences of trials with the same seed, a strength each: their mean over neighbouring strengths, "
        )
        reading += (
            "and bands that hold 50% and 90% of them. Below 0, L2 helps. Hovering tells how many are clear after "
        )
        reading += "Holm's correction for the number of strengths."
    return [Chart(title, reading, {"data": data, "layout": layout})]


def _changes_of_each(strengths: np.ndarray, compared: pd.DataFrame) -> dict[str, Any]:
    """A point per strength, filled where the change is clear."""
    positions = theme.log_positions(strengths)[1:]
    trace = traces.means(positions, compared, colour=theme.VALIDATION, bars="interval", name="change")
    corrected = [f", p = {p:.2g} corrected" if p == p else "" for p in compared["p_holm"]]
    symbols = ["circle" if clear else "circle-open" for clear in comparisons.is_clear(compared)]
    return trace | {
        "text": ["".join(pair) for pair in zip(trace["text"], corrected, strict=True)],
        "mode": "markers",
        "marker": trace["marker"] | {"symbol": symbols, "size": 11},
        "showlegend": False,
    }


def _changes_of_many(compared: pd.DataFrame) -> list[dict[str, Any]]:
    """Bands over neighbouring strengths."""
    strengths, changes = compared.index.to_numpy(), compared["mean"].to_numpy()[:, None]
    groups, clear = strength_groups(strengths, POINTS), comparisons.is_clear(compared).to_numpy()
    drawn, texts = spread(changes, np.isnan(changes), groups), []
    for place, group in enumerate(groups):
        is_clear = clear[group.members]
        number = f"{np.count_nonzero(is_clear):,} of {len(is_clear):,} strengths clear"
        texts.append(f"l2 = {group}: {traces.with_spread(drawn, place)}; {number}")
    return _apart(strengths, groups, drawn, texts, colour=theme.VALIDATION, name="change")


def heat_maps(results: Results) -> list[Chart]:
    """Mean validation loss over strengths and each other hyperparameter that took several values, one chart each."""
    return [_heat_map(results, name) for name in results.swept if name != "l2"]


def _heat_map(results: Results, name: str) -> Chart:
    data = results.data.isel(epoch=-1, drop=True).sortby(["l2", name])
    replicates = [dim for dim in REPLICATES if dim in data.dims]
    others = [other for other in results.swept if other not in ("l2", name)]
    losses = data["val_loss"].astype(np.float64).mean(replicates)
    losses = losses.where(~data["diverged"].astype(bool).any(replicates))
    losses = losses.min(others).transpose("l2", name)
    cells = _cells(losses.values)
    few = cells.size <= MOST_CELLS_WITH_NUMBERS and max(cells.shape) <= MOST_COLUMNS_WITH_NUMBERS
    values, strengths = (_labels(losses[dim].values) for dim in (name, "l2"))
    noun = hyperparameter(name).name
    trace = {
        "type": "heatmap",
        "x": values,
        "y": strengths,
        "z": [traces.json_numbers(np.log10(row)) for row in cells],
        "text": [["diverged" if np.isnan(loss) else f"{loss:.3f}" for loss in row] for row in cells],
        "texttemplate": "%{text}" if few else "",
        "colorscale": "Viridis",
        "reversescale": True,
        "hovertemplate": f"{noun} %{{x}}<br>l2 = %{{y}}<br>validation loss %{{text}}<extra></extra>",
        "showscale": False,
        "xgap": 2 if few else 0,
        "ygap": 2 if few else 0,
        "hoverongaps": True,
    }
    layout = theme.layout(noun, "L2 strength")
    layout["xaxis"] |= {"type": "category"}
    layout["yaxis"] |= {"type": "category"}
    reading = "Mean validation loss at the last epoch; yellow is low. Where the best strength changes with the "
    reading += f"{noun}, the two have to be chosen together. A setting with a diverged trial has no mean."
    if cells.size < losses.size:
        reading += " A cell is the mean of neighbouring settings."
    if others:
        reading += f" Of {', '.join(hyperparameter(other).name for other in others)}, the best."
    return Chart(f"Validation loss by {noun} and strength", reading, {"data": [trace], "layout": layout})


def _blocks(size: int) -> list[slice]:
    """Neighbouring places, in as many groups as a heat map has cells along an axis."""
    edges = np.linspace(0, size, min(size, POINTS) + 1).round().astype(int)
    return [slice(start, end) for start, end in itertools.pairwise(edges.tolist())]


def _cells(losses: np.ndarray) -> np.ndarray:
    """The means of blocks of neighbouring settings, without those that have none."""
    blocks = ((rows, columns) for rows in _blocks(len(losses)) for columns in _blocks(losses.shape[1]))
    means = [nanmean(losses[block].reshape(-1)) for block in blocks]
    return np.array(means).reshape(len(_blocks(len(losses))), -1)


def _labels(values: np.ndarray) -> list[str]:
    ends = [(words.number(values[block][0]), words.number(values[block][-1])) for block in _blocks(len(values))]
    return [low if low == high else f"{low} to {high}" for low, high in ends]


def compared_runs(runs: Mapping[str, Results]) -> list[Chart]:
    """Validation loss and accuracy against strength, one line per run."""
    strengths = np.unique(np.concatenate([results.data["l2"].values for results in runs.values()]))
    positions = dict(zip(strengths, theme.log_positions(strengths), strict=True))
    outcomes = {name: comparisons.outcomes(results) for name, results in runs.items()}
    reading = "One line per run: means and standard errors at its last epoch. A click on a name hides a run."
    charts = []
    for metric in ("val_loss", "val_accuracy"):
        lines = []
        styles = zip(itertools.cycle(theme.RUNS), itertools.cycle(theme.DASHES), strict=True)
        for (name, outcome), (colour, dash) in zip(outcomes.items(), styles, strict=False):
            table = comparisons.summary(outcome, metric)
            if len(table) > MOST_STRENGTHS:  # as many as are told apart, the weakest and the strongest among them
                table = table.iloc[np.linspace(0, len(table) - 1, POINTS).round().astype(int)]
            escaped = html.escape(name)  # Plotly reads tags
            x = [positions[l2] for l2 in table.index]
            line = traces.means(x, table, colour=colour, bars="se", name=escaped)
            lines.append(line | {"line": line["line"] | {"dash": dash}})
        layout = theme.strength_layout(strengths, axis_label(METRICS[metric]))
        title = f"{METRICS[metric].name.capitalize()} of the runs"
        charts.append(Chart(title, reading, {"data": lines, "layout": layout}))
    return charts
