"""How fast l2jax trains a sweep: side by side with what people use instead, and with what the machine could do.

    python benchmarks/throughput.py [--quick] [--output DIR]

Every peer trains the same CNN on the same digits, in processes of its own. First each is warmed up, after which all
must have learnt as much. Then they take turns for some rounds, so that whatever else the machine does disturbs all of
them alike. What counts is training: start-up, compilation and evaluation are apart.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pictures
import report
from peers.peer import cores
from running import Peer, PeerFailed, Running

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)


class Plan(NamedTuple):
    """How much is measured."""

    examples: int
    warm_up: int
    """Epochs that every peer trains before the rounds."""
    rounds: int
    seeds: int
    """Trials at each strength."""
    slow_strengths: int
    slow_rounds: int
    """Of the peer that would take hours for the others' work."""
    sizes: tuple[int, ...]
    """Numbers of trials, for l2jax alone."""


FULL = Plan(1024, 3, 5, 2 * len(cores()), len(STRENGTHS), 2, (1, 2, 4, 8, 16, 32, 64, 128, 256))
QUICK = Plan(512, 1, 2, len(cores()), 2, 1, (1, 16, 64))


def peers(plan: Plan) -> dict[str, Peer]:
    """The rows of the table, by the names by which `report.COMPARISONS` calls them."""
    whole = {"strengths": STRENGTHS, "seeds": plan.seeds, "rounds": plan.rounds, "epochs": 4}
    single = {"strengths": STRENGTHS[:1], "seeds": 1, "rounds": plan.rounds, "epochs": 16}
    slow = {"strengths": STRENGTHS[: plan.slow_strengths], "seeds": 1, "rounds": plan.slow_rounds, "epochs": 1}
    torch = functools.partial(Peer, script="torch_loop", needs=("torch",), **whole)
    return {
        "l2jax": Peer("l2jax", "l2jax_sweep", **whole),
        "keras": Peer("Keras 3 on TensorFlow, model.fit", "keras_fit", needs=("keras", "tensorflow"), **whole),
        "torch": torch("PyTorch, 1 process"),
        "torch_last": torch("PyTorch, 1 process, channels_last", variant="channels_last"),
        "torch_cores": torch("PyTorch, a process a core", process_a_core=True),
        "torch_cores_last": torch(
            "PyTorch, a process a core, channels_last", variant="channels_last", process_a_core=True
        ),
        "jax_vmap": Peer("JAX as tutorials write it: vmap, lax.scan", "jax_vmap", **slow),
        "flax_cores": Peer("Flax, a process a trial, one on each core", "flax_loop", process_a_core=True, **whole),
        "flax_single": Peer("Flax, 1 trial", "flax_loop", **single),
        "l2jax_single": Peer("l2jax, 1 trial", "l2jax_sweep", **single),
        "peak": Peer("matrix products alone, at the machine's peak", "matmul_peak", (), 0, 1, plan.rounds),
    }


def sizes(plan: Plan) -> dict[str, Peer]:
    """l2jax with more and more trials, all in rounds of about the same length."""
    shapes = {size: (STRENGTHS[: min(size, len(STRENGTHS))], max(1, size // len(STRENGTHS))) for size in plan.sizes}
    return {
        f"l2jax_{size}": Peer(f"l2jax, {size} trials", "l2jax_sweep", *shape, max(1, 32 // size), plan.rounds)
        for size, shape in shapes.items()
    }


def measure(peers: dict[str, Peer], data: Path, num_examples: int, warm_up: int) -> dict[str, dict[str, Any]]:
    """Starts and warms up all peers, then lets them train in turns.

    Returns:
      For each peer its `name`, number of `trials`, and either why it was `skipped` or `failed`, or
      start_seconds: from its start to the end of its first epoch, so with imports and compilation;
      losses: (strengths, seeds) after the warm-up;
      rates: trial-examples a second, of each round; for "peak" those that matrix products alone would allow;
      peak_memory: bytes; and compile_seconds, if it tells.
    """
    rows: dict[str, dict[str, Any]] = {}
    running: dict[str, Running] = {}
    with contextlib.ExitStack() as stack:

        def ask(key: str, command: str) -> dict[str, Any]:
            try:
                answer = running[key].ask(command)
            except PeerFailed as error:
                rows[key]["failed"] = str(error)
                del running[key]
                return {}
            rows[key] |= {name: answer[name] for name in ("peak_memory", "compile_seconds", "losses") if name in answer}
            return answer

        for key, peer in peers.items():
            row = rows[key] = {"name": peer.name, "trials": peer.num_trials}
            if missing := peer.missing():
                row["skipped"] = f"{' and '.join(missing)} not installed"
                tell(f"{peer.name}: skipped, {row['skipped']}")
                continue
            tell(f"{peer.name}: starting")
            start = time.perf_counter()
            running[key] = Running(peer, data)
            stack.callback(running[key].end)
            ask(key, "train 1")
            row["start_seconds"] = time.perf_counter() - start
            row["rates"] = []
            if key in running and warm_up > 1:
                ask(key, f"train {warm_up - 1}")
            if key in running and peer.num_trials:
                ask(key, "losses")
    return rows
