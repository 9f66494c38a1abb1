"""Kills a run with SIGKILL at random moments, resumes it, and compares its outcome with an undisturbed run.

    python tests/endurance/kill.py --kills 50

All metrics and parameters must be bitwise those of the undisturbed run, and every folder must stay readable.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
PATHS = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
EPOCHS = 20
"""Epochs of a full run; a run without figures keeps those of the tiny run."""


def start(run_dir: Path, full: bool) -> subprocess.Popen:
    """Starts the run, or resumes it, in a process of its own; a full run draws figures and has more epochs."""
    cache = {  # the runs share their compiled programs
        "JAX_COMPILATION_CACHE_DIR": str(run_dir.parent / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    cpu = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}  # unless JAX_PLATFORMS asks for another device
    words = [sys.executable, __file__, "--child", str(run_dir), *(["--full"] if full else [])]
    paths = os.pathsep.join(filter(None, (PATHS, os.environ.get("PYTHONPATH"))))
    environment = cache | cpu | os.environ | {"PYTHONPATH": paths}
    return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE)


def child(run_dir: Path, full: bool) -> int:
    import dataclasses

    from helpers import tiny_run

    config = dataclasses.replace(tiny_run.CONFIG, epochs=EPOCHS) if full else tiny_run.CONFIG
    with tiny_run.compiled_quickly():
        return tiny_run.run(run_dir, config, draw=full, resume=(run_dir / "config.json").exists())


def phase(run_dir: Path, start_time: float) -> str:
    """The phase in which a run that was started at a time was killed, as far as its folder shows."""
    log = run_dir / "metrics.jsonl"
    if not log.exists() or log.stat().st_mtime < start_time:
        return "compilation"
    if any(path.stat().st_mtime >= start_time for path in run_dir.glob("checkpoints/.partial*")):
        return "checkpoint"
    config = json.loads((run_dir / "config.json").read_text())["sweep"]
    return "results" if log.read_bytes().count(b"\n") == 2 * config["epochs"] else "training"


def read_outcome(run_dir: Path) -> tuple:
    """Results, parameters, and the (epoch, trials) of each line of the log."""
    import l2jax

    with np.load(run_dir / "best_params.npz", allow_pickle=False) as params:
        arrays = dict(params)
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return l2jax.load_results(run_dir).data, arrays, [(line["epoch"], line["trials"]) for line in lines]


def assert_same_outcome(run_dir: Path, undisturbed: Path) -> None:
    (data, params, epochs), (expected, expected_params, expected_epochs) = map(read_outcome, (run_dir, undisturbed))
    assert data.identical(expected)
    assert params.keys() == expected_params.keys()
    assert all(np.array_equal(params[name], expected_params[name]) for name in params)
    assert epochs == expected_epochs


def kill(folder: Path, kills: int, undisturbed: Path | None = None, seed: int = 0) -> Counter:
    """Kills runs, resumes them, and compares each with an undisturbed one.

    Args:
      folder: for the runs.
      kills: number of kills, spread over as many runs as it takes.
      undisturbed: a finished run without figures to compare with; None makes a full one.
      seed: seed of the moments.

    Returns:
      The number of kills by phase.
    """
    import l2jax

    rng, killed, num_runs, longest, full = random.Random(seed), Counter(), 0, 2.0, undisturbed is None
    if undisturbed is None:
        undisturbed = folder / "undisturbed"
        with start(undisturbed, full) as process:
            start_time = wait_for_lock(undisturbed, process)
            assert process.wait() == 0, process.stderr.read().decode()
        longest = time.time() - start_time
    while killed.total() < kills:
        num_runs += 1
        run_dir = folder / f"run_{num_runs}"
        while True:
            with start(run_dir, full) as process:
                start_time = wait_for_lock(run_dir, process)
                try:
                    process.wait(rng.uniform(0, longest) if killed.total() < kills else None)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    killed[phase(run_dir, start_time)] += 1
                else:
                    assert process.returncode == 0, process.stderr.read().decode()
                    break
            if (run_dir / "results.nc").exists():
                l2jax.load_results(run_dir)
        assert_same_outcome(run_dir, undisturbed)
    return killed


def wait_for_lock(run_dir: Path, process: subprocess.Popen) -> float:
    """Waits until the process has locked the folder; returns the time."""
    lock = run_dir / ".lock"
    while process.poll() is None and not (lock.exists() and lock.read_text() == f"{process.pid}\n"):
        time.sleep(0.01)
    return time.time()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    if options.child:
        sys.exit(child(options.child, options.full))
    sys.path[:0] = PATHS.split(os.pathsep)
    with tempfile.TemporaryDirectory() as folder:
        print(f"all equal; killed at: {dict(kill(Path(folder), options.kills, seed=options.seed))}")
