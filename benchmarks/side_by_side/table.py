"""A measurement as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable

from side_by_side.compare import flops_per_example, is_same_loss, loss_ratio, ratios
from side_by_side.peers import Comparison
from side_by_side.record import Measured, Record, Row

HEADS = ("", "trials", "trial-examples/s", "start-up, s", "memory, MB", "loss")
SIZE_HEADS = ("trials", "trial-examples/s", "compilation, s", "memory, MB")


def markdown(record: Record) -> str:
    """The whole measurement, for a terminal or a page."""
    machine, plan, flops = record.machine, record.plan, flops_per_example()
    hardware = [machine["processor"], f"{machine['cores']} cores", *machine["vectors"][-1:]]
    hardware += [f"{machine['memory'] / 2**30:.0f} GiB", machine["system"], f"load before {machine['load']:.1f}"]
    code = [f"commit {machine['commit'][:12]}{' and uncommitted changes' * machine['dirty']}"] * bool(machine["commit"])
    limit = record.same_network.group.limit
    gflops = [rate * flops / 1e9 for rate in record.same_network.rows[limit].rates] if limit else []
    lines = [
        f"{machine['date']}: {', '.join(hardware)}.",
        ", ".join([*(f"{name} {version}" for name, version in machine["versions"].items()), *code]) + ".",
        "",
        f"Training alone: {plan.examples:,} digits in batches of 32, float32, Adam. Medians of {plan.rounds}",
        f"rounds ({plan.slow_rounds} of the slowest), in parentheses the lowest and the highest. Loss: the training",
        f"loss after {plan.warm_up} epochs, against that of l2jax. An example takes {flops / 1e6:.1f} MFLOP; at its",
        f"peak the machine does {_spread(gflops)} GFLOP/s."
        + f" Start-up: of {plan.starts_at_once} at a time." * (plan.starts_at_once > 1),
        "",
        *peers_table(record.same_network),
        "",
        "A larger network: convolutions 3x3 of 32, 64 and 128 filters, SAME, each with ReLU and 2x2 max-pooling, and a",
        f"dense layer, in plain Flax; {plan.few_examples} digits of 32x32, each in a colour of its own.",
        "",
        *peers_table(record.larger_network),
        "",
        *ratios_table(record.comparisons),
        "",
        f"l2jax with more and more trials, each of {plan.few_examples} digits:",
        "",
        *table(SIZE_HEADS, [_size_cells(row) for row in record.more_trials.rows.values()]),
    ]
    rows = [row for measured in record.groups for row in measured.rows.values()]
    lines += [f"\n{row.name} failed: {row.failed}" for row in rows if row.failed]
    return "\n".join(lines)


def peers_table(measured: Measured) -> list[str]:
    """The rate, the costs and the loss of each peer of a group."""
    return table(HEADS, _peer_cells(measured))


def ratios_table(comparisons: Iterable[tuple[Comparison, Row, list[Row]]]) -> list[str]:
    """The ratios that are concluded from the rates, beside what they must be at least."""
    cells = [_ratio_cells(comparison, ratios(row, others)) for comparison, row, others in comparisons]
    return table(("rate of l2jax over that of", "", "at least", ""), cells)


def _peer_cells(measured: Measured) -> list[list[str]]:
    cells = []
    for row in measured.rows.values():
        ratio = loss_ratio(row, measured.reference)
        loss = "" if ratio is None else f"{ratio - 1:+.0%}" + ("" if is_same_loss(ratio) else " DIFFERS")
        cells.append([row.name, f"{row.trials or ''}", *_rate_and_costs(row, row.start_seconds), loss])
    return cells


def _size_cells(row: Row) -> list[str]:
    return [f"{row.trials}", *_rate_and_costs(row, row.compile_seconds)]


def _rate_and_costs(row: Row, seconds: float | None) -> list[str]:
    if row.skipped or row.failed:
        return ["failed: see below" if row.failed else f"skipped: {row.skipped}", "", ""]
    memory = (row.peak_memory or 0) / 1e6
    return [_spread(row.rates), f"{seconds or 0:.1f}", f"{memory:,.0f}"]


def _ratio_cells(comparison: Comparison, values: list[float]) -> list[str]:
    if comparison.at_least is None:
        return [comparison.name, _spread(values), "", ""]
    verdict = ("met" if statistics.median(values) >= comparison.at_least else "falls short") if values else ""
    return [comparison.name, _spread(values), f"{comparison.at_least:g}", verdict]


def _spread(values: list[float]) -> str:
    """Median, lowest and highest."""
    if not values:
        return "not measured"
    numbers = statistics.median(values), min(values), max(values)
    median, low, high = (f"{number:,.0f}" if number >= 20 else f"{number:.2f}" for number in numbers)
    return f"{median} ({low} to {high})"


def table(heads: tuple[str, ...], rows: list[list[str]]) -> list[str]:
    """Markdown with the columns lined up: the first to the left, the others to the right."""
    widths = [max(2, *map(len, column)) for column in zip(heads, *rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in (heads, rule, *rows))
    return [f"| {' | '.join(line)} |" for line in lines]
