"""What every peer shares: what it trains, and how it is told when.

A peer is a script that trains the same trials in its own way. Its only argument is a job, as JSON. Each line on
stdin is a command, answered by a line of JSON on stdout; in between the peer sleeps, so that it does not disturb the
others, and at the end of stdin it ends.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Job:
    """What to train: the same small CNN at every strength from every seed, with Adam."""

    data: str
    """An .npz file: images (N, H, W, C), uint8, and labels (N,), int32. N is a multiple of the batch size."""
    strengths: list[float]
    seeds: int
    """Trials at each strength."""
    variant: str = ""
    """For a peer that has several ways to do it."""
    batch_size: int = 32
    learning_rate: float = 1e-3

    @property
    def l2(self) -> list[float]:
        """The strength of each trial."""
        return [l2 for l2 in self.strengths for _ in range(self.seeds)]

    def load(self) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels."""
        with np.load(self.data) as arrays:
            return arrays["images"], arrays["labels"]


def given_job() -> Job:
    return Job(**json.loads(sys.argv[1]))


def serve(**commands: Callable[..., dict[str, Any] | None]) -> None:
    """Answers commands until stdin ends.

    Args:
      train: called with a number of epochs, trains every trial of the job on from where it stands.
      losses: returns {"losses": of each trial, the mean cross-entropy over all examples, without the penalty}.

    An answer holds the `seconds` that the command took, the process's `peak_memory` in bytes, and what was returned.
    """
    for line in sys.stdin:
        command, *arguments = line.split()
        start = time.perf_counter()
        outcome = commands[command](*map(int, arguments)) or {}
        seconds = time.perf_counter() - start
        # Linux counts in KiB, macOS in bytes.
        peak_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        print(json.dumps({"seconds": seconds, "peak_memory": peak_memory, **outcome}), flush=True)


def cores() -> list[int]:
    """The numbers of the CPU cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
