"""Which way of computing the same thing is fastest on a device: measured, and remembered."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from l2jax.atomic import write_whole
from l2jax.network.fused import DEFAULT_LOWERING


class Tuning(NamedTuple):
    """Choices that change the time, and the results by rounding only."""

    side_by_side: int
    """Trials that a device works on at a time."""
    few_products: int = DEFAULT_LOWERING.few_products
    """As in `l2jax.fused.Lowering`; 0 makes every convolution a matrix product."""


def default_tuning(device: jax.Device, trials_a_device: int) -> Tuning:
    """One trial after the other on a CPU core, whose cache one trial fills; all side by side on accelerators.

    The first is measured, the second expected.
    """
    return Tuning(1 if device.platform == "cpu" else trials_a_device)


def autotune(key: str, trials_a_device: int, seconds: Callable[[Tuning], float]) -> Tuning:
    """The fastest of the sensible choices, as remembered under this key or else as measured now.

    Args:
      key: all that the choice depends on: device kind, JAX version, shapes.
      seconds: how long an epoch takes with a choice.
    """
    memory = _remembered()
    if key not in memory:
        timed = {tuning: seconds(tuning) for tuning in _candidates(trials_a_device)}
        memory[key] = min(timed, key=lambda tuning: timed[tuning])
        file = _file()
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(memory, indent=2).encode())
    return Tuning(*memory[key])


def fastest_of(run: Callable[[], object], repeats: int = 3) -> float:
    """Seconds of the fastest run, after one that warms up."""
    jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return min(times)


def _candidates(trials_a_device: int) -> Iterator[Tuning]:
    blocks: Sequence[int] = [size for size in (1, 2, 4, 16, 64, 256) if size < trials_a_device]
    for side_by_side in (*blocks, trials_a_device):
        for few_products in (DEFAULT_LOWERING.few_products, 0):
            yield Tuning(side_by_side, few_products)


def _remembered() -> dict[str, Sequence[int]]:
    try:
        return json.loads(_file().read_text())
    except (OSError, ValueError):  # none yet, or damaged: it is measured anew
        return {}


def _file() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "l2jax" / "tuning.json"
