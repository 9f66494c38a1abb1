"""The measurement as two pictures."""

from __future__ import annotations

import statistics
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

OURS, OTHERS, LIMIT = "#0b6e99", "#9a9a9a", "#b3402a"


def rates(record: dict[str, Any]) -> Figure:
    """Trial-examples per second, side by side, with what matrix products alone would allow."""
    rows = {key: row for key, row in record["table"].items() if row.get("rates")}
    limit = rows.pop("peak", None)
    figure = Figure(figsize=(9, 0.8 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    names = [row["name"] for row in rows.values()][::-1]
    for place, row in enumerate(reversed(rows.values())):
        median = statistics.median(row["rates"])
        axes.barh(place, median, color=OURS if row["name"].startswith("l2jax") else OTHERS)
        axes.hlines(place, min(row["rates"]), max(row["rates"]), color="black", linewidth=1.2)
        axes.annotate(f"{median:,.0f}", (max(row["rates"]), place), (6, 0), textcoords="offset points", va="center")
    if limit:
        median = statistics.median(limit["rates"])
        axes.axvline(median, color=LIMIT, linestyle="--")
        text = f"matrix products alone, at the machine's peak: {median:,.0f}"
        axes.text(median, 1, text, transform=axes.get_xaxis_transform(), ha="right", va="bottom", color=LIMIT)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("trial-examples per second")
    axes.set_xlim(0, 1.06 * axes.get_xlim()[1])
    axes.xaxis.set_major_formatter(_thousands)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def sizes(record: dict[str, Any]) -> Figure:
    """l2jax's rate against the number of trials; compilation and memory below."""
    rows = [row for row in record["sizes"].values() if row.get("rates")]
    trials = [row["trials"] for row in rows]
    figure = Figure(figsize=(7, 7), layout="constrained")
    rate_axes, compile_axes, memory_axes = figure.subplots(3, sharex=True, height_ratios=(2, 1, 1))
    medians = [statistics.median(row["rates"]) for row in rows]
    lowest, highest = ([function(row["rates"]) for row in rows] for function in (min, max))
    rate_axes.fill_between(trials, lowest, highest, color=OURS, alpha=0.2, linewidth=0)
    rate_axes.plot(trials, medians, "o-", color=OURS)
    rate_axes.set_ylabel("trial-examples per second")
    compile_axes.plot(trials, [row["compile_seconds"] for row in rows], "o-", color=OURS)
    compile_axes.set_ylabel("compilation, s")
    memory_axes.plot(trials, [row["peak_memory"] / 1e6 for row in rows], "o-", color=OURS)
    memory_axes.set_ylabel("peak memory, MB")
    memory_axes.set_xlabel("trials")
    memory_axes.set_xscale("log", base=2)
    memory_axes.set_xticks(trials, trials)
    figure.align_ylabels()
    for axes in (rate_axes, compile_axes, memory_axes):
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
        axes.yaxis.set_major_formatter(_thousands)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.3)
    return figure


_thousands = FuncFormatter(lambda value, _: f"{value:,g}")
