"""Measures how fast l2jax trains a sweep on a GPU, beside PyTorch at its best there.

    python benchmarks/throughput_gpu.py [--tiny] [--output DIR]

As `throughput.py`: every peer trains the same CNN on the same digits in processes of its own, all must have learnt as
much, and they take turns. The tables are written as soon as a group of peers is measured. `--tiny` tries it out, on a
CPU too.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from peers.peer import Job
from side_by_side.gpu import TINY, GpuPlan, one_hundred_trials, other_sizes
from side_by_side.machine import machine
from side_by_side.record import Measured
from side_by_side.table import peers_table, ratios_table
from throughput import measure_group


def gpu() -> str:
    """The name of the GPU and its driver; empty where there is none."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def lines_of(measured: Measured, plan: GpuPlan) -> list[str]:
    """A group as Markdown."""
    lines = [
        f"{measured.group.title}: {plan.examples:,} digits in batches of 32, Adam, medians of {plan.rounds} rounds",
        "",
    ]
    lines += peers_table(measured)
    if measured.group.comparisons:
        lines += ["", *ratios_table(measured.comparisons)]
    lines += ["", *limits_of_memory(measured)]
    return [*lines, "", *(f"{row.name} failed: {row.failed}" for row in measured.rows.values() if row.failed)]


def limits_of_memory(measured: Measured) -> list[str]:
    """What share of the rate that the device's memory would allow each row of l2jax reaches."""
    lines, copy_rate = [], max((row.copy_rate or 0 for row in measured.rows.values()), default=0)
    for row in measured.rows.values():
        if row.step_bytes and row.rates and copy_rate:
            seconds, taken = row.step_bytes / copy_rate, row.trials * Job.batch_size / statistics.median(row.rates)
            lines.append(
                f"{row.name}: a step takes {1e3 * taken:.2f} ms; at {copy_rate / 1e12:.2f} TB/s, its"
                f" {row.step_bytes / 1e6:,.0f} MB would take {1e3 * seconds:.2f} ms, {seconds / taken:.0%}."
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures l2jax's training rate on a GPU beside that of its peers.")
    parser.add_argument("--tiny", action="store_true", help="almost nothing, to try it out")
    parser.add_argument("--output", type=Path, default=Path("runs", "throughput_gpu"), metavar="DIR")
    options = parser.parse_args()

    # The peers share the device's memory, and the processor's cores while they compile.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.15")
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "2")
    plan = TINY if options.tiny else GpuPlan()
    options.output.mkdir(parents=True, exist_ok=True)
    record = machine() | {"gpu": gpu()}
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    lines = [f"{record['date']}: {record['gpu'] or record['processor']}; {versions}.", ""]
    for make_group in (one_hundred_trials, other_sizes):
        measured = measure_group(make_group(plan), plan, examples=plan.examples, warm_up=plan.warm_up)
        record[make_group.__name__] = [dataclasses.asdict(row) for row in measured.rows.values()]
        lines += lines_of(measured, plan)
        Path(options.output, "throughput.md").write_text("\n".join(lines))
        Path(options.output, "throughput.json").write_text(json.dumps(record, indent=1))
    print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
