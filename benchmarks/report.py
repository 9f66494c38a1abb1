"""What a measurement says: the machine, the work, the comparisons, and all of it as Markdown."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import platform
import re
import statistics
from pathlib import Path
from typing import Any, NamedTuple

from peers.peer import cores

Row = dict[str, Any]
PACKAGES = ("l2jax", "jax", "jaxlib", "flax", "optax", "numpy", "keras", "tensorflow-cpu", "tensorflow", "torch")
SAME_LOSS = 0.1


class Comparison(NamedTuple):
    """The rate of one row over that of the fastest of others, round by round."""

    name: str
    row: str
    others: tuple[str, ...]
    at_least: float | None


COMPARISONS = (
    Comparison("Keras 3 on TensorFlow", "l2jax", ("keras",), 2.5),
    Comparison("PyTorch, the best of 4", "l2jax", ("torch", "torch_last", "torch_cores", "torch_cores_last"), 1.5),
    Comparison("JAX as tutorials write it", "l2jax", ("jax_vmap",), 30),
    Comparison("Flax, a process a trial", "l2jax", ("flax_cores",), None),
    Comparison("Flax, 1 trial each", "l2jax_single", ("flax_single",), 1),
    Comparison("a larger network, against JAX as tutorials write it", "own", ("own_vmap",), 10),
    Comparison("matrix products alone, at the machine's peak", "l2jax", ("peak",), 0.45),
    Comparison("l2jax: 256 trials against 16", "l2jax_256", ("l2jax_16",), 0.9),
)


def flops_per_example(size: int = 28, classes: int = 10) -> int:
    """Additions and multiplications that training needs for an example: matrix products alone, convolved directly.

    Each layer has three products of equal cost: forward, gradient of the kernel, gradient of its input; the images need
    no gradient. Only the cells that a pooling window looks at count: 10x10 of the second convolution's 11x11.
    """
    total, channels = 0, 1
    for filters in (32, 64):
        size = (size - 2) // 2
        product = 2 * (2 * size) ** 2 * (3 * 3 * channels) * filters
        total += product * (2 if channels == 1 else 3)
        channels = filters
    return total + 3 * 2 * size**2 * channels * classes


def header() -> dict[str, Any]:
    """When and on what it is measured."""
    installed = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            installed[package] = importlib.metadata.version(package)
    cpuinfo = ""
    with contextlib.suppress(OSError):
        cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", cpuinfo)
    return {
        "date": f"{datetime.date.today()}",
        "processor": model[1] if model else platform.processor() or platform.machine(),
        "vectors": [name for name in ("avx2", "avx512f", "amx_tile") if name in cpuinfo.split()],
        "cores": len(cores()),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(terse=True),
        "load": os.getloadavg()[0],
        "versions": {"python": platform.python_version()} | installed,
    }


def best(rows: dict[str, Row], keys: tuple[str, ...]) -> str | None:
    """The key of the row with the highest median rate, of those that were measured."""
    measured = [key for key in keys if rows.get(key, {}).get("rates")]
    return max(measured, key=lambda key: statistics.median(rows[key]["rates"]), default=None)


def ratios(rows: dict[str, Row], comparison: Comparison) -> list[float]:
    """A ratio of rates for each round that both were measured in; none if there is none."""
    other = best(rows, comparison.others)
    if other is None or best(rows, (comparison.row,)) is None:
        return []
    # The slow peer takes part in the first rounds only.
    pairs = zip(rows[comparison.row]["rates"], rows[other]["rates"], strict=False)
    return [rate / reference for rate, reference in pairs]


def loss_ratio(row: Row, reference: Row) -> float | None:
    """A peer's training losses over the reference's at the same strengths; None if they were not measured.

    The median over strengths of the ratio of means over seeds.
    """
    if "losses" not in row or "losses" not in reference:
        return None
    # The slow peer may have the first strengths only.
    pairs = zip(row["losses"], reference["losses"], strict=False)
    return statistics.median(statistics.fmean(own) / statistics.fmean(other) for own, other in pairs)


def all_is_well(record: dict[str, Any]) -> bool:
    """Whether no peer failed and all learnt the same."""
    failed = any("failed" in row for part in ("table", "own", "sizes") for row in record[part].values())
    references = (record["table"], "l2jax"), (record["own"], "own")
    return not failed and all(_same(loss_ratio(row, rows[key])) for rows, key in references for row in rows.values())


def _same(ratio: float | None) -> bool:
    return ratio is None or abs(ratio - 1) <= SAME_LOSS  # which NaN is not


def markdown(record: dict[str, Any]) -> str:
    """All of it, to be read in a terminal or on a page."""
    rows, plan, flops = record["table"], record["plan"], flops_per_example()
    gflops = [rate * flops / 1e9 for rate in rows["peak"].get("rates", [])]
    hardware = [record["processor"], f"{record['cores']} cores", *record["vectors"][-1:]]
    hardware += [f"{record['memory'] / 2**30:.0f} GiB", record["system"], f"load before {record['load']:.1f}"]
    everything = rows | record["own"] | record["sizes"]
    heads = ["", "trials", "trial-examples/s", "start-up, s", "memory, MB", "loss"]
    comparisons = [(comparison, ratios(everything, comparison)) for comparison in COMPARISONS]
    parts = [
        f"{record['date']}: {', '.join(hardware)}.",
        ", ".join(f"{name} {version}" for name, version in record["versions"].items()) + ".",
        "",
        f"Training alone: {plan['examples']:,} digits in batches of 32, float32, Adam. Medians of {plan['rounds']}",
        f"rounds ({plan['slow_rounds']} of the slowest), in parentheses the lowest and the highest. Loss: the training",
        f"loss after {plan['warm_up']} epochs, against that of l2jax. An example takes {flops / 1e6:.1f} MFLOP; at its",
        f"peak the machine does {_spread(gflops)} GFLOP/s."
        + " Start-up: of several at a time." * (plan["at_once"] > 1),
        "",
        *_table(heads, [_cells(row, rows["l2jax"]) for row in rows.values()]),
        "",
        "A larger network: convolutions 3x3 of 32, 64 and 128 filters, SAME, each with ReLU and 2x2 max-pooling, and a",
        f"dense layer, in plain Flax; {plan['few_examples']} digits of 32x32, each in a colour of its own.",
        "",
        *_table(heads, [_cells(row, record["own"]["own"]) for row in record["own"].values()]),
        "",
        *_table(["rate of l2jax over that of", "", "at least", ""], [_verdict(*found) for found in comparisons]),
        "",
        f"l2jax with more and more trials, each of {plan['few_examples']} digits:",
        "",
        *_table(
            ["trials", "trial-examples/s", "compilation, s", "memory, MB"],
            [_size_cells(row) for row in record["sizes"].values()],
        ),
    ]
    parts += [f"\n{row['name']} failed: {row['failed']}" for row in everything.values() if "failed" in row]
    return "\n".join(parts)


def _cells(row: Row, reference: Row) -> list[str]:
    if trouble := _trouble(row):
        return [row["name"], f"{row['trials']}", trouble, "", "", ""]
    ratio = loss_ratio(row, reference)
    return [
        row["name"],
        f"{row['trials'] or ''}",
        _spread(row["rates"]),
        f"{row['start_seconds']:.1f}",
        f"{row['peak_memory'] / 1e6:,.0f}",
        "" if ratio is None else f"{ratio - 1:+.0%}" + ("" if _same(ratio) else " DIFFERS"),
    ]


def _size_cells(row: Row) -> list[str]:
    if trouble := _trouble(row):
        return [f"{row['trials']}", trouble, "", ""]
    return [
        f"{row['trials']}",
        _spread(row["rates"]),
        f"{row['compile_seconds']:.1f}",
        f"{row['peak_memory'] / 1e6:,.0f}",
    ]


def _verdict(comparison: Comparison, found: list[float]) -> list[str]:
    name, at_least = comparison.name, comparison.at_least
    if at_least is None:
        return [name, _spread(found), "", ""]
    verdict = ("met" if statistics.median(found) >= at_least else "falls short") if found else ""
    return [name, _spread(found), f"{at_least:g}", verdict]


def _trouble(row: Row) -> str:
    return "failed: see below" if "failed" in row else f"skipped: {row['skipped']}" if "skipped" in row else ""


def _spread(values: list[float]) -> str:
    if not values:
        return "not measured"
    numbers = statistics.median(values), min(values), max(values)
    median, low, high = (f"{number:,.0f}" if number >= 20 else f"{number:.2f}" for number in numbers)
    return f"{median} ({low} to {high})"


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    """Markdown, with the columns lined up: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in (heads, rule, *rows))
    return [f"| {' | '.join(line)} |" for line in lines]
