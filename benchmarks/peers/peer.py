"""The common part of the peers: the job that each gets, and the commands that it answers.

A peer is a script that trains the same trials in its own way. Its only argument is a job, as JSON. It answers each
command, a line on stdin, with a line of JSON on stdout. Between commands it sleeps, so that it does not disturb the
others; when stdin ends, so does the peer.
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
    """The work of a peer: the same network at every strength from every seed, with Adam.

    Attributes:
      data: an .npz file of images (N, H, W, C), uint8, and labels (N,), int32; N is a multiple of the batch size.
      strengths: L2 strengths.
      seeds: trials per strength.
      variant: for a peer that knows several ways to train.
      network: a key of `NETWORKS`; the small CNN by default.
      batch_size: examples per step.
      learning_rate: Adam's.
    """

    data: str
    strengths: list[float]
    seeds: int
    variant: str = ""
    network: str = ""
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


def read_job() -> Job:
    """The job on the command line."""
    return Job(**json.loads(sys.argv[1]))


def serve(**commands: Callable[..., dict[str, Any] | None]) -> None:
    """Answers commands until stdin ends.

    An answer holds the `seconds` that the command took, the process's `peak_memory` in bytes, and whatever the
    function returned, which takes precedence.

    Args:
      train: trains every trial of the job for another number of epochs, its argument.
      losses: returns {"losses": [...]}: each trial's mean cross-entropy over all examples, without the penalty.
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
