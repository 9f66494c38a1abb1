"""How fast l2jax trains a sweep, side by side with what people use instead, and with what the machine could do.

    python benchmarks/throughput.py [--quick] [--output DIR]

Each peer trains the same trials, the same CNN on the same digits, in a process of its own. After a warm-up, in which
it is checked that all have learnt the same, they take turns for some rounds, so that what else the machine does
disturbs all of them alike. What counts is training: compilation and evaluation are apart.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from peers.peer import Job, cores
from report import flops_per_example, hardware, markdown, versions
from running import Peer, PeerFailed, Running

STRENGTHS = [1e-4, 1e-3, 1e-2, 1e-1]


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table: a peer, and how much it trains."""

    peer: Peer
    strengths: int = len(STRENGTHS)
    seeds: int = 0
    """0: as many as all the others."""
    epochs: int = 2
    """Each round. All peers have the same for warm-up."""


TORCH = Peer("PyTorch, one process", "torch_loop", ("torch",))
FLAX = Peer("Flax", "flax_loop")
L2JAX = Peer("l2jax", "l2jax_sweep")
LAST = "channels_last"
ROWS = (
    Row(L2JAX, epochs=4),
    Row(Peer("Keras 3 on TensorFlow, model.fit", "keras_fit", ("keras", "tensorflow"))),
    Row(TORCH), 
)
