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
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pictures
import report
from peers.peer import cores
from running import Peer, PeerFailed, Running

import l2jax

BEGIN = time.monotonic()
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
        "peak": Peer("matrix products alone, at the machine's peak", "matmul_peak", (), 1, 1, plan.rounds),
    }


def sizes(plan: Plan) -> dict[str, Peer]:
    """l2jax with more and more trials, all in rounds of about the same length."""
    shapes = {size: (STRENGTHS[: min(size, len(STRENGTHS))], max(1, size // len(STRENGTHS))) for size in plan.sizes}
    return {
        f"l2jax_{size}": Peer(f"l2jax, {size} trials", "l2jax_sweep", *shape, max(1, 32 // size), plan.rounds)
        for size, shape in shapes.items()
    }


def measure(peers: dict[str, Peer], data: Path, examples: int, warm_up: int) -> dict[str, dict[str, Any]]:
    """Starts and warms up all peers, then lets them train in turns.

    Args:
      data: an .npz file as `Job` says, of that many examples.
      warm_up: epochs.

    Returns:
      For each peer its `name`, its number of `trials`, and either why it was `skipped` or `failed`, or
      start_seconds: from its start to the end of its first epoch, so with imports and compilation;
      losses: (strengths, seeds), after the warm-up;
      rates: trial-examples a second in each round; for matrix products alone, those that they would allow;
      peak_memory: bytes, in all its processes; compile_seconds: if it tells.
    """
    rows: dict[str, dict[str, Any]] = {}
    running: dict[str, Running] = {}
    with contextlib.ExitStack() as stack:
        for key, peer in peers.items():
            row = rows[key] = {"name": peer.name, "trials": peer.num_trials}
            if missing := peer.missing():
                row["skipped"] = f"{' and '.join(missing)} not installed"
                tell(f"{peer.name}: skipped, {row['skipped']}")
                continue
            tell(f"{peer.name}: start and warm-up")
            with noting_failure(row):
                running[key] = stack.enter_context(Running(peer, data))
                row |= warmed_up(running[key], warm_up)
                if len(peer.strengths) > 1:  # one trial is too few to tell
                    row["losses"] = running[key].ask("losses")["losses"]
                row["rates"] = []
        for number in range(max(peer.rounds for peer in peers.values())):
            tell(f"round {number + 1}")
            for key, process in running.items():
                peer, row = peers[key], rows[key]
                if number >= peer.rounds or "failed" in row:
                    continue
                with noting_failure(row):
                    answer = process.ask(f"train {peer.epochs}")
                    row["peak_memory"] = answer["peak_memory"]
                    if "flops_per_second" in answer:
                        row["rates"].append(answer["flops_per_second"] / report.flops_per_example())
                    else:
                        row["rates"].append(peer.num_trials * peer.epochs * examples / answer["seconds"])
    return rows


def warmed_up(process: Running, epochs: int) -> dict[str, float]:
    start = time.perf_counter()
    answer = process.ask("train 1")
    seconds = time.perf_counter() - start
    if epochs > 1:
        process.ask(f"train {epochs - 1}")
    return {name: answer[name] for name in ("compile_seconds",) if name in answer} | {"start_seconds": seconds}


@contextlib.contextmanager
def noting_failure(row: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    except PeerFailed as error:
        row["failed"] = str(error)
        tell(f"{row['name']}: failed, {error}")


def tell(progress: str) -> None:
    print(f"{time.monotonic() - BEGIN:4.0f} s  {progress}", file=sys.stderr, flush=True)


def digits(num_examples: int, path: Path) -> None:
    """Writes some of the embedded digits for the peers to read."""
    dataset = l2jax.load_dataset("mnist_small")
    chosen = np.random.default_rng(0).permutation(len(dataset.labels))[:num_examples]
    np.savez(path, images=dataset.images[chosen], labels=dataset.labels[chosen])


def main() -> int:
    """Returns an exit code: 1 if a peer failed or did not learn the same."""
    parser = argparse.ArgumentParser(description="Measures l2jax's training rate beside that of its peers.")
    parser.add_argument("--quick", action="store_true", help="less of everything: under two minutes, and less exact")
    parser.add_argument("--output", type=Path, default=Path("runs", "throughput"), metavar="DIR", help="for the files")
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "digits.npz")
        digits(plan.examples, data)
        record = report.header() | {"plan": plan._asdict()}
        record["table"] = measure(peers(plan), data, plan.examples, plan.warm_up)
        tell("l2jax with more and more trials")
        record["sizes"] = measure(sizes(plan), data, plan.examples, 1)
    options.output.mkdir(parents=True, exist_ok=True)
    Path(options.output, "throughput.json").write_text(json.dumps(record, indent=1))
    for draw in (pictures.rates, pictures.sizes):
        draw(record).savefig(options.output / f"{draw.__name__}.png", dpi=150)
    print(report.markdown(record))
    print(f"\nNumbers and pictures: {options.output}")
    return 0 if report.all_is_well(record) else 1


if __name__ == "__main__":
    sys.exit(main())
