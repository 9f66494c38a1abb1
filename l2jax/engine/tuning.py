"""Tuning: the fastest way to compute the same results on a device, measured once and remembered."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from l2jax.atomic import write_whole
from l2jax.data.cache import cache_folder
from l2jax.rewrite.lowering import DEFAULT_LOWERING


class Tuning(NamedTuple):
    """Choices that change the time, and the results by rounding only.

    Attributes:
      side_by_side: trials that a device works on at a time.
      few_products: as in `l2jax.rewrite.lowering.Lowering`; 0 makes every convolution a matrix product.
    """

    side_by_side: int
    few_products: int = DEFAULT_LOWERING.few_products


def default_tuning(device: jax.Device, trials_per_device: int) -> Tuning:
    """The choice without measuring: on CPU one trial after the other, on accelerators all side by side.

    Both are measured, on CPUs and on an H100: one trial fills the cache of a core, a hundred an accelerator.
    """
    return Tuning(1 if device.platform == "cpu" else trials_per_device)


def candidates(device: jax.Device, trials_per_device: int) -> list[Tuning]:
    """The choices worth measuring; an accelerator takes long to compile for, and is idle with few trials."""
    on_cpu = device.platform == "cpu"
    sizes = (1, 2, 4, 16, 64, 256) if on_cpu else (256,)
    blocks = [size for size in sizes if size < trials_per_device] + [trials_per_device]
    few_products = (DEFAULT_LOWERING.few_products,) if on_cpu else (DEFAULT_LOWERING.few_products, 0)
    return [Tuning(*choice) for choice in itertools.product(blocks, few_products)]


def autotune(key: str, choices: Iterable[Tuning], seconds: Callable[[Tuning], float]) -> Tuning:
    """Returns the fastest of the choices, as remembered under this key or else as measured now.

    Args:
      key: everything that the choice depends on: kind of device, JAX version, shapes.
      seconds: measures how long an epoch takes with a choice.
    """
    memory = _read_memory()
    if key not in memory:
        memory[key] = min(choices, key=seconds)
        path = _memory_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(memory, indent=2).encode())
    return Tuning(*memory[key])


def shortest_run(run: Callable[[], object]) -> float:
    """The seconds of the fastest of three runs, after one that warms up."""
    jax.block_until_ready(run())
    times = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return min(times)


def _read_memory() -> dict[str, Sequence[int]]:
    try:
        return json.loads(_memory_path().read_text())
    except (OSError, ValueError):  # missing or damaged: measured again
        return {}


def _memory_path() -> Path:
    return cache_folder() / "tuning.json"
