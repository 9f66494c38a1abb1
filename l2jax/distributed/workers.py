"""The workers of a sweep: an executor, and how its processes share machines."""

from __future__ import annotations

import os
from concurrent.futures import Executor
from typing import NamedTuple


class Workers(NamedTuple):
    """The processes that train.

    Attributes:
      executor: runs functions in them.
      number: how many chunks train at the same time.
      per_machine: how many share the memory of one machine.
      devices: of each worker, as in `SweepConfig`.
    """

    executor: Executor
    number: int
    per_machine: int = 1
    devices: int | None = 1


def executor_workers(executor: Executor) -> Workers:
    """The processes of any executor; as many as the machine has cores, if the executor does not say how many."""
    number = getattr(executor, "_max_workers", None) or getattr(executor, "num_workers", None) or os.cpu_count() or 1
    return Workers(executor, number, per_machine=number)
