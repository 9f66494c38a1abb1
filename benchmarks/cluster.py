"""Measures what a Ray cluster costs: its rate beside one process, what a chunk costs, and what kills do.

    python benchmarks/cluster.py rate [--number N]
    python benchmarks/cluster.py chunks [--number N]
    python benchmarks/cluster.py kills [--number N]

`rate`: the built-in network, 64 trials, by turns one process with two devices and two nodes of a core each. `chunks`:
chunks of one trial with almost nothing to train, so that what is left is the overhead. `kills`: runs of the command in
which a worker, the node or the driver is killed at a random moment; every result must be bitwise that of an undisturbed
run, and no process may be left.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from side_by_side.machine import machine

import l2jax
from l2jax.checkpoint.storage import Storage
from l2jax.distributed.driver import Driver
from l2jax.distributed.ray_executor import ray_workers
from l2jax.engine.ledger import EpochRecord

ROOT = Path(__file__).parent.parent
NETWORK = """
from flax import nnx
class Linear(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(28 * 28, 10, rngs=rngs)
    def __call__(self, images):
        return self.dense(images.reshape(len(images), -1))
"""
STRENGTHS = "0 log:1e-4:1e-1:7"


def rate(rounds: int) -> None:
    """Trial-examples/s with evaluation, 64 trials, from when all chunks have finished an epoch until the first ends."""
    config = l2jax.SweepConfig(l2=STRENGTHS, seeds=8, epochs=10)
    data = l2jax.load_dataset(config.dataset)
    start = time.perf_counter()
    ratios = []
    with _two_nodes() as address, ray_workers(address) as workers, tempfile.TemporaryDirectory() as folder:
        print(f"Ray started in {time.perf_counter() - start:.1f} s", flush=True)
        for number in range(rounds):
            one, several = l2jax.Sweep(config, data), l2jax.Sweep(config, data)
            driver = Driver(several, workers, Storage(f"{folder}/{number}"))
            rates = []
            for prepare, epochs, num_chunks in ((one.compile, one.epochs, 1), (driver.plan, driver.epochs, 2)):
                start = time.perf_counter()
                prepare()
                compiled = time.perf_counter() - start
                rates.append(_steady_rate(epochs(), num_chunks, config.epochs))
                print(
                    f"{num_chunks} chunks: compiled in {compiled:.1f} s, {rates[-1]:,.0f} trial-examples/s", flush=True
                )
            ratios.append(rates[1] / rates[0])
    print(f"two nodes over one process: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


@contextlib.contextmanager
def _two_nodes() -> Iterator[str]:
    """The address of a cluster on this machine whose nodes have a core each."""
    cluster = importlib.import_module("ray.cluster_utils").Cluster(head_node_args={"num_cpus": 1}, initialize_head=True)
    try:
        cluster.add_node(num_cpus=1)
        yield cluster.address
    finally:
        cluster.shutdown()


def _steady_rate(records: Iterator[EpochRecord], num_chunks: int, num_epochs: int) -> float:
    seen: set[int] = set()
    examples, start, end = 0, 0.0, 0.0
    for record in records:
        if len(seen) == num_chunks and not end:
            examples += record.num_examples
        elif record.indices[0] not in seen:
            seen.add(record.indices[0])
            start = time.perf_counter()
        if record.number == num_epochs and not end:
            end = time.perf_counter()
    return examples / (end - start)


def chunks(number: int) -> None:
    """Seconds per chunk of one trial, one step of a linear network, with two workers; and without a cluster."""
    config = l2jax.SweepConfig(
        l2=tuple(1e-6 * (1 + i) for i in range(number)), seeds=1, epochs=1, train_size=32, val_size=32, trials_at_once=1
    )
    data = l2jax.load_dataset(config.dataset)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "network.py").write_text(NETWORK)
        sys.path.insert(0, folder)
        model = importlib.import_module("network").Linear
        sys.path.pop(0)
        sweep = l2jax.Sweep(config, data, model=model)
        sweep.compile()
        start = time.perf_counter()
        for _ in sweep.epochs():
            pass
        print(f"one process: {1e3 * (time.perf_counter() - start) / number:.1f} ms a chunk", flush=True)
        with ray_workers("local", num_cpus=2) as workers:
            driver = Driver(l2jax.Sweep(config, data, model=model), workers, Storage(f"{folder}/chunks"))
            driver.plan()
            start = 0.0
            for count, _ in enumerate(driver.epochs()):
                if count == number // 10:  # both workers have compiled
                    start = time.perf_counter()
            seconds = time.perf_counter() - start
    print(f"two workers: {1e3 * seconds / (number - number // 10):.1f} ms a chunk", flush=True)


def kills(number: int) -> int:
    """Kills at random; returns how many runs came out wrong."""
    wrong = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "network.py").write_text(NETWORK)
        words = f"--l2 {STRENGTHS} --seeds 4 --epochs 400 --train-size 64 --val-size 64 --trials-at-once 8".split()
        words += ["--model", f"{folder}/network.py:Linear", "--checkpoint-minutes", "0.02"]
        assert _command(*words, "--run-dir", folder / "alone").wait() == 0
        expected = (folder / "alone" / "results.nc").read_bytes()
        for run in range(number):
            victim = ("worker", "raylet", "driver")[run % 3]
            run_dir = folder / f"run_{run}"
            process = _command(*words, "--ray", "--run-dir", run_dir)
            while not (run_dir / "metrics.jsonl").exists() and process.poll() is None:
                time.sleep(0.1)
            delay = random.uniform(0, 15)
            time.sleep(delay)
            descendants = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            for each in descendants if victim != "driver" else [psutil.Process(process.pid)]:
                with contextlib.suppress(psutil.Error):
                    if victim == "driver" or each.name().startswith(
                        {"worker": "ray::_call", "raylet": "raylet"}[victim]
                    ):
                        each.kill()
            code = process.wait()
            while (code or not (run_dir / "results.nc").exists()) and code != 2:  # until it is done
                code = _command("--resume", run_dir, "--model", f"{folder}/network.py:Linear", "--ray").wait()
            same = code == 0 and (run_dir / "results.nc").read_bytes() == expected
            left = psutil.wait_procs(descendants, timeout=60)[1]
            print(f"{victim} killed after {delay:.1f} s: same results: {same}, processes left: {len(left)}", flush=True)
            wrong += not same or bool(left)
    return wrong


def _command(*words: object) -> subprocess.Popen:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "run_sweep.py", *map(str, words)], cwd=ROOT, **quiet)


def main() -> int:
    """Returns an exit code: 1 if a kill cost more than time."""
    parser = argparse.ArgumentParser(description="Measures what a Ray cluster on this machine costs.")
    parser.add_argument("what", choices=["rate", "chunks", "kills"])
    parser.add_argument("--number", type=int, help="rounds (2), chunks (1000) or kills (30)")
    options = parser.parse_args()
    print(machine())
    if options.what == "kills":
        return int(kills(options.number or 30) > 0)
    if options.what == "chunks":
        chunks(options.number or 1000)
    else:
        rate(options.number or 2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
