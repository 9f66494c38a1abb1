"""What every peer shares: how the benchmark tells it what to train, and when.

A peer is a script that trains the same trials with another library. It is started with a job (JSON, its only
argument), trains once to compile and warm up, and answers on stdout with a line of JSON. From then on every line on
stdin makes it train again and answer again; in between it sleeps, so that it does not disturb the others.
"""

from __future__ import annotations

import dataclasses
import functools
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
    """What a peer trains, the same for all: a small CNN at every strength, with Adam."""

    data: str
    """Path of a NumPy file with images (N, H, W, 1), uint8, and labels (N,), int32."""
    l2: list[float]
    """The strength of each trial."""
    epochs: int = 1
    """Passes over the examples each time."""
    batch_size: int = 32
    learning_rate: float = 1e-3
    variant: str = ""
    """What a peer with several ways to do it should do."""

    @functools.cached_property
    def images(self) -> np.ndarray:
        """(N, H, W, 1), uint8."""
        return np.load(self.data)["images"]

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """(N,), int32."""
        return np.load(self.data)["labels"]


def serve(prepare: Callable[[Job], Callable[[], dict[str, Any]]]) -> None:
    """Runs a peer until stdin ends.

    Args:
      prepare: gets everything ready and returns the function that trains every trial of the job for `job.epochs`
        epochs and returns {"losses": [...]}: of each trial the mean data loss of the last epoch, each batch's taken
        before its update. What it returns goes into the answer beside `seconds`, which it may replace, and
        `peak_memory`, in bytes.
    """
    # Libraries print as they please: the real stdout is for answers only.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    train = prepare(Job(**json.loads(sys.argv[1])))

    def answer() -> None:
        start = time.perf_counter()
        outcome = train()
        seconds = time.perf_counter() - start
        # Linux counts in KiB, macOS in bytes.
        peak_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        print(json.dumps({"seconds": seconds, "peak_memory": peak_memory, **outcome}), file=answers)

    answer()
    for _ in sys.stdin:
        answer()
