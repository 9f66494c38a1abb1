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
from concurrent.futures import ThreadPoolExecutor
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
    strengths: int
    seeds: int
    warm_up: int
    """Epochs that every peer trains before the rounds."""
    rounds: int
    slow_rounds: int
    """Of the peer that would take hours for the others' work; it has two strengths and one seed only, too."""
    epochs: int
    """In a round."""
    sizes: tuple[int, ...]
    """Numbers of trials for l2jax alone."""
    few_examples: int
    """Where there are many trials, or a larger network."""
    at_once: int
    """Peers to start at the same time."""


FULL = Plan(1024, len(STRENGTHS), 2 * len(cores()), 2, 3, 2, 2, (1, 4, 16, 64, 256), 256, at_once=1)
QUICK = Plan(256, 2, len(cores()), 1, 2, 1, 2, (64,), 64, at_once=len(cores()))


def peers(plan: Plan) -> dict[str, Peer]:
    """The rows of the table, by the names by which `report.COMPARISONS` calls them."""
    strengths = STRENGTHS[: plan.strengths]
    whole = {"strengths": strengths, "seeds": plan.seeds, "rounds": plan.rounds, "epochs": plan.epochs}
    single = {"strengths": strengths[:1], "seeds": 1, "rounds": plan.rounds, "epochs": 4 * plan.epochs}
    slow = {"strengths": strengths[:2], "seeds": 1, "rounds": plan.slow_rounds, "epochs": 1}
    torch = functools.partial(Peer, script="torch_loop", needs=("torch",), **whole)
    last = {"variant": "channels_last"}
    return {
        "l2jax": Peer("l2jax", "l2jax_sweep", **whole),
        "keras": Peer("Keras 3 on TensorFlow, model.fit", "keras_fit", needs=("keras", "tensorflow"), **whole),
        "torch": torch("PyTorch, 1 process"),
        "torch_last": torch("PyTorch, 1 process, channels_last", **last),
        "torch_cores": torch("PyTorch, a process a core", process_a_core=True),
        "torch_cores_last": torch("PyTorch, a process a core, channels_last", process_a_core=True, **last),
        "jax_vmap": Peer("JAX as tutorials write it: vmap, lax.scan", "jax_vmap", **slow),
        "flax_cores": Peer("Flax, a process a trial, one on each core", "flax_loop", process_a_core=True, **whole),
        "flax_single": Peer("Flax, 1 trial", "flax_loop", **single),
        "l2jax_single": Peer("l2jax, 1 trial", "l2jax_sweep", **single),
        "peak": Peer("matrix products alone, at the machine's peak", "matmul_peak", (), 1, 1, plan.rounds),
    }


def own_network(plan: Plan) -> dict[str, Peer]:
    """A person's own network, larger than `l2jax.CNN`: a trial for each core, or two."""
    work = {"strengths": STRENGTHS[:2], "seeds": -(-len(cores()) // 2), "variant": "deeper"}
    return {
        "own": Peer("l2jax, with l2jax.ops", "l2jax_sweep", epochs=4, rounds=plan.rounds, **work),
        "own_vmap": Peer("JAX as tutorials write it", "jax_vmap", epochs=1, rounds=plan.slow_rounds, **work),
    }


def sizes(plan: Plan) -> dict[str, Peer]:
    """l2jax with more and more trials; where they are few, with as many epochs more."""
    shapes = {size: (STRENGTHS[: min(size, len(STRENGTHS))], max(1, size // len(STRENGTHS))) for size in plan.sizes}
    return {
        f"l2jax_{size}": Peer(f"l2jax, {size} trials", "l2jax_sweep", *shape, max(1, 64 // size), plan.rounds)
        for size, shape in shapes.items()
    }


def measure(
    peers: dict[str, Peer], data: Path, examples: int, warm_up: int, at_once: int = 1
) -> dict[str, dict[str, Any]]:
    """Starts and warms up all peers, then lets them train in turns.

    Args:
      data: an .npz file as `Job` says, of that many examples.
      warm_up: epochs.
      at_once: peers to start at the same time, which takes less time in all, but more for each.

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

        def start(key: str) -> None:
            peer, row = peers[key], rows[key]
            tell(f"{peer.name}: start and warm-up")
            with noting_failure(row):
                begin = time.perf_counter()
                running[key] = stack.enter_context(Running(peer, data))
                answer = running[key].ask("train 1")
                row["start_seconds"] = time.perf_counter() - begin
                row |= {name: answer[name] for name in ("compile_seconds",) if name in answer}
                if warm_up > 1:
                    running[key].ask(f"train {warm_up - 1}")
                if peer.num_trials > 1:  # one trial is too few to tell
                    row["losses"] = running[key].ask("losses")["losses"]
                row["rates"] = []

        def train(key: str) -> None:
            peer, row = peers[key], rows[key]
            with noting_failure(row):
                answer = running[key].ask(f"train {peer.epochs}")
                row["peak_memory"] = answer["peak_memory"]
                if "flops_per_second" in answer:
                    row["rates"].append(answer["flops_per_second"] / report.flops_per_example())
                else:
                    row["rates"].append(peer.num_trials * peer.epochs * examples / answer["seconds"])

        for key, peer in peers.items():
            rows[key] = {"name": peer.name, "trials": peer.num_trials}
            if missing := peer.missing():
                rows[key]["skipped"] = f"{' and '.join(missing)} not installed"
                tell(f"{peer.name}: skipped, {rows[key]['skipped']}")
        with ThreadPoolExecutor(at_once) as threads:
            list(threads.map(start, [key for key in peers if "skipped" not in rows[key]]))
        for number in range(max(peer.rounds for peer in peers.values())):
            tell(f"round {number + 1}")
            for key, peer in peers.items():
                if number < peer.rounds and "rates" in rows[key] and "failed" not in rows[key]:
                    train(key)
    return rows


@contextlib.contextmanager
def noting_failure(row: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    except PeerFailed as error:
        row["failed"] = str(error)
        tell(f"{row['name']}: failed, {error}")


def tell(progress: str) -> None:
    sys.stderr.write(f"{time.monotonic() - BEGIN:4.0f} s  {progress}\n")  # in one piece, unlike what print writes


def digits(num_examples: int, path: Path, coloured: bool = False) -> None:
    """Writes some of the embedded digits for the peers to read; coloured: on 32x32, each in a colour of its own."""
    dataset, generator = l2jax.load_dataset("mnist_small"), np.random.default_rng(0)
    chosen = generator.permutation(len(dataset.labels))[:num_examples]
    images = dataset.images[chosen]
    if coloured:
        colours = generator.uniform(0.2, 1, (num_examples, 1, 1, 3))
        images = (np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0))) * colours).astype(np.uint8)
    np.savez(path, images=images, labels=dataset.labels[chosen])


def main() -> int:
    """Returns an exit code: 1 if a peer failed or did not learn the same."""
    parser = argparse.ArgumentParser(description="Measures l2jax's training rate beside that of its peers.")
    parser.add_argument("--quick", action="store_true", help="less of everything: under two minutes, and less exact")
    parser.add_argument("--output", type=Path, default=Path("runs", "throughput"), metavar="DIR", help="for the files")
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL

    record = report.header() | {"plan": plan._asdict()}
    with tempfile.TemporaryDirectory() as folder:
        data, few, coloured = (Path(folder, f"{name}.npz") for name in ("digits", "few", "coloured"))
        digits(plan.examples, data)
        digits(plan.few_examples, few)
        digits(plan.few_examples, coloured, coloured=True)
        record["table"] = measure(peers(plan), data, plan.examples, plan.warm_up, plan.at_once)
        tell("a larger network")
        record["own"] = measure(own_network(plan), coloured, plan.few_examples, 1, plan.at_once)
        tell("l2jax with more and more trials")
        record["sizes"] = measure(sizes(plan), few, plan.few_examples, 1, plan.at_once)
    options.output.mkdir(parents=True, exist_ok=True)
    Path(options.output, "throughput.json").write_text(json.dumps(record, indent=1))
    for draw in (pictures.rates, pictures.sizes):
        draw(record).savefig(options.output / f"{draw.__name__}.png", dpi=150)
    print(report.markdown(record))
    print(f"\nNumbers and pictures: {options.output}")
    return 0 if report.all_is_well(record) else 1


if __name__ == "__main__":
    sys.exit(main())
