"""A measurement as two figures."""

from __future__ import annotations

import statistics

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from side_by_side.record import Record

OURS, OTHERS, LIMIT = "#0b6e99", "#9a9a9a", "#b3402a"


def rates(record: Record) -> Figure:
    """Trial-examples per second of each peer, with what matrix products alone would allow."""
    limit = record.same_network.group.limit
    rows = {peer: row for peer, row in record.same_network.rows.items() if row.rates and peer != limit}
    figure = Figure(figsize=(9, 0.8 + 0.42 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for position, (peer, row) in enumerate(reversed(rows.items())):
        median, highest = statistics.median(row.rates), max(row.rates)
        axes.barh(position, median, color=OURS if peer.is_l2jax else OTHERS)
        axes.hlines(position, min(row.rates), highest, color="black", linewidth=1.2)
        axes.annotate(f"{median:,.0f}", (highest, position), (6, 0), textcoords="offset points", va="center")
    if limit and record.same_network.rows[limit].rates:
        median = statistics.median(record.same_network.rows[limit].rates)
        axes.axvline(median, color=LIMIT, linestyle="--")
        text = f"{limit.name}: {median:,.0f}"
        axes.text(median, 1, text, transform=axes.get_xaxis_transform(), ha="right", va="bottom", color=LIMIT)
    axes.set_yticks(range(len(rows)), [peer.name for peer in reversed(rows)])
    axes.set_xlabel("trial-examples per second")
    axes.set_xlim(0, 1.06 * axes.get_xlim()[1])
    axes.xaxis.set_major_formatter(_thousands)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def sizes(record: Record) -> Figure:
    """l2jax's rate against the number of trials; compilation and memory below."""
    rows = [row for row in record.more_trials.rows.values() if row.rates]
    trials = [row.trials for row in rows]
    figure = Figure(figsize=(7, 7), layout="constrained")
    rate_axes, compile_axes, memory_axes = figure.subplots(3, sharex=True, height_ratios=(2, 1, 1))
    medians = [statistics.median(row.rates) for row in rows]
    lowest, highest = ([function(row.rates) for row in rows] for function in (min, max))
    rate_axes.fill_between(trials, lowest, highest, color=OURS, alpha=0.2, linewidth=0)
    rate_axes.plot(trials, medians, "o-", color=OURS)
    rate_axes.set_ylabel("trial-examples per second")
    compile_axes.plot(trials, [row.compile_seconds or 0 for row in rows], "o-", color=OURS)
    compile_axes.set_ylabel("compilation, s")
    memory_axes.plot(trials, [(row.peak_memory or 0) / 1e6 for row in rows], "o-", color=OURS)
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
