"""One run of the command: trains a sweep in a folder of its own, and goes on with it there after any end."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from l2jax import plot
from l2jax.atomic import write_whole, write_with_sums
from l2jax.config import SweepConfig
from l2jax.data.dataset import load_dataset
from l2jax.engine.snapshot import Epoch
from l2jax.engine.sweep import Sweep
from l2jax.errors import InvalidInputError, reason
from l2jax.report.page import write_report
from l2jax.results.files import CONFIG, config_json
from l2jax.results.refine import next_strengths
from l2jax.results.results import Results
from l2jax.run.checkpoint import Checkpoints
from l2jax.run.parameters import params_file
from l2jax.run.process import asked_to_stop, locked
from l2jax.run.tensorboard import event_files
from l2jax.run.terminal import print_results, shown


def run(
    config: SweepConfig,
    run_dir: Path | None,
    resume: bool = False,
    profile: Path | None = None,
    quiet: bool = False,
    checkpoint_minutes: float = 1.0,
    refine: int = 0,
    figures: str = "png",
    keep: str = "best",
    tensorboard: bool = False,
) -> int:
    """Trains a sweep, saves and prints what came out.

    Args:
      run_dir: the folder of the run; None: a new one in runs/.
      resume: goes on with the run that is in the folder.
      profile: folder for a profiler trace of one epoch.
      quiet: prints nothing but errors.
      checkpoint_minutes: least time between checkpoints, but for those at the end of a chunk and of the run.
      refine: how often to extend the finished sweep by the strengths that its results suggest.
      figures: the format of the pictures, as matplotlib calls it; PNG is written in any case.
      keep: whose trained parameters stay in a file of their own, "best" or "all".
      tensorboard: writes event files.

    Returns:
      The exit code, as `l2jax.cli.main` does.
    """
    # Progress goes to stderr and the outcome to stdout, so that each can be sent elsewhere.
    progress = Console(stderr=True, quiet=quiet, highlight=False)
    with progress.status(f"loading {config.dataset}"):
        dataset = load_dataset(config.dataset, config.data_dir)
        sweep = Sweep(config, dataset)
    if sweep.placement.devices[0].platform == "gpu" and "deterministic" not in os.environ.get("XLA_FLAGS", ""):
        progress.print("warning: sums come in any order on this device, and differ by rounding from run to run")
        progress.print("XLA_FLAGS=--xla_gpu_deterministic_ops=true prevents it, at the price of time")
    if profile:
        _make_folder("profile", profile)
    run_dir = run_dir if resume and run_dir else _make_run_dir(run_dir)
    try:
        with locked(run_dir), asked_to_stop() as asked:
            checkpoints = Checkpoints(run_dir)
            if resume:
                _restore(sweep, checkpoints, progress)
            while True:
                write_with_sums(run_dir, {CONFIG: config_json(sweep.description())})
                epochs = shown(sweep, progress, profile)
                with contextlib.ExitStack() as files:
                    log = files.enter_context(event_files(sweep.axes, run_dir / "events")) if tensorboard else None
                    _train(sweep, checkpoints, run_dir, checkpoint_minutes * 60, epochs, asked, log)
                with progress.status("testing, saving, drawing"):
                    results = sweep.results()
                    _save(results, sweep, checkpoints, run_dir, {"png", figures}, {"best", keep})
                refined = _refined(sweep.config, results) if refine and sweep.finished else None
                if refined is None:
                    break
                refine -= 1
                new = [f"{l2:.3g}" for l2 in refined.l2 if l2 not in sweep.config.l2]
                progress.print(f"refining: l2 = {', '.join(new)}", markup=False)
                sweep = Sweep(refined, dataset)
                _restore(sweep, checkpoints, progress)
    except OSError as error:
        left = f"what was written before is intact: --resume {run_dir}" if run_dir.exists() else "the folder is gone"
        print(f"error: {run_dir}: {reason(error)}; {left}", file=sys.stderr)
        return 1
    print_results(results, run_dir, Console(quiet=quiet, highlight=False))
    if sweep.epochs_left:
        done = len(sweep.history)
        print(f"interrupted: saved the {done} of {done + sweep.epochs_left} epochs that are complete", file=sys.stderr)
        return 128 + (asked[0] if asked else signal.SIGINT)
    if results.data["diverged"].all():
        print("error: every trial diverged: lower --learning-rate or --l2", file=sys.stderr)
        return 1
    return 0


def _refined(config: SweepConfig, results: Results) -> SweepConfig | None:
    """The sweep with the strengths that its results suggest among its own; None if they suggest no more."""
    with contextlib.suppress(ValueError):  # every strength has a diverged trial
        new = tuple(l2 for l2 in next_strengths(results.along_l2()) if l2 not in config.l2)
        return dataclasses.replace(config, l2=(*config.l2, *new)) if new else None
    return None


def _train(
    sweep: Sweep,
    checkpoints: Checkpoints,
    run_dir: Path,
    seconds: float,
    epochs: Iterator[Epoch],
    asked: list[int],
    also: Callable[[Epoch], None] | None,
) -> None:
    """Trains until the end or until asked to stop; writes metrics.jsonl, checkpoints, and what `also` does."""
    log = run_dir / "metrics.jsonl"
    write_whole(log, b"".join(map(_json_line, sweep.history)))
    if sweep.finished:
        return
    last = time.monotonic()
    for epoch in epochs:
        _append(log, _json_line(epoch))
        if also:
            also(epoch)
        if asked or epoch.epoch == sweep.config.epochs or time.monotonic() - last >= seconds:
            checkpoints.save(sweep.progress(), sweep.description())
            last = time.monotonic()
        if asked:
            return


def _restore(sweep: Sweep, checkpoints: Checkpoints, progress: Console) -> None:
    """Takes over what the checkpoints hold."""

    def warn(line: str) -> None:
        progress.print(f"warning: {line}", markup=False, soft_wrap=True)

    for number, (found, description) in enumerate(checkpoints.load(sweep.check, warn)):
        sweep.config.check_extends(SweepConfig(**description["sweep"]))
        if description["data"] != sweep.dataset.digest:
            raise InvalidInputError(
                "dataset", sweep.config.dataset, "the examples that the run to resume was trained on"
            )
        if number == 0:
            sweep.placement.compute_as(description)
            for name, version in sweep.description()["versions"].items():
                if (before := description["versions"].get(name)) != version:
                    warn(f"{name} {before} before, {version} now: the last digits may differ")
        sweep.restore(found)


def _save(
    results: Results, sweep: Sweep, checkpoints: Checkpoints, run_dir: Path, formats: set[str], keep: set[str]
) -> None:
    for name, figure in plot.figures(results):
        for kind in formats:
            content = io.BytesIO()
            figure.savefig(content, format=kind, dpi=150)
            write_whole(run_dir / f"{name}.{kind}", content.getvalue())
    for kept in keep:
        with contextlib.suppress(ValueError):  # no trial has finished without diverging
            write_whole(run_dir / f"{kept}_params.npz", params_file(kept, results, sweep, checkpoints))
    results.save(run_dir)
    write_report({str(run_dir): results}, run_dir / "report.html")


def _make_run_dir(run_dir: Path | None) -> Path:
    if run_dir:
        _make_folder("run_dir", run_dir)
        return run_dir
    new, others = Path("runs", f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}"), 1
    while True:
        try:
            _make_folder("run_dir", new, exist_ok=False)
            return new
        except FileExistsError:  # another run began in this second
            others += 1
            new = new.with_name(f"{new.name.partition('_run')[0]}_run{others}")


def _make_folder(option: str, path: Path, exist_ok: bool = True) -> None:
    try:
        path.mkdir(parents=True, exist_ok=exist_ok)
    except OSError as error:
        if isinstance(error, FileExistsError) and not exist_ok:
            raise
        raise InvalidInputError(option, path, f"a folder that can be written ({reason(error)})") from None
    if not os.access(path, os.W_OK):
        raise InvalidInputError(option, path, "a folder that can be written")


def _append(path: Path, line: bytes) -> None:
    """Adds a line to a file, or leaves the file as it was."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        size = os.fstat(descriptor).st_size
        try:
            if os.write(descriptor, line) < len(line):
                raise OSError("no space left for metrics.jsonl")
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)


def _json_line(epoch: Epoch) -> bytes:
    """One epoch of some trials: each metric a list over them, null where it is not finite."""
    line: dict[str, Any] = {"epoch": epoch.epoch, "trials": epoch.trials, "seconds": epoch.seconds}
    for name in sorted(epoch.metrics):
        values = epoch.metrics[name]
        line[name] = np.where(np.isfinite(values), values, np.array(None)).tolist()  # JSON has no NaN
    return json.dumps(line).encode() + b"\n"
