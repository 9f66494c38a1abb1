"""A run of the command: trains a sweep in a folder of its own, and continues there after any interruption."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console

from l2jax import plot
from l2jax.atomic import write_whole, write_with_sums
from l2jax.config import SweepConfig
from l2jax.engine.describe import check_continues
from l2jax.engine.ledger import EpochRecord
from l2jax.engine.sweep import Sweep
from l2jax.errors import SweepWarning, reason
from l2jax.plot.style import own_style
from l2jax.report.page import write_report
from l2jax.results.files import CONFIG, config_json, read_description
from l2jax.results.parameters import ALL, BEST
from l2jax.results.refine import next_strengths
from l2jax.results.results import Results
from l2jax.results.words import number
from l2jax.run.checkpoint import Checkpoints
from l2jax.run.code import load_code
from l2jax.run.folder import make_folder, make_run_dir
from l2jax.run.loading import with_folder
from l2jax.run.lock import locked
from l2jax.run.metrics_log import metrics_log
from l2jax.run.options import RunOptions
from l2jax.run.output import progress_console, results_console, say
from l2jax.run.parameters import params_file
from l2jax.run.signals import stop_signals
from l2jax.run.tensorboard import event_files
from l2jax.run.terminal import (
    load_with_progress,
    print_results,
    progress_bar,
    show_compilation,
    show_work,
    warnings_on,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Observer = Callable[[EpochRecord], None]


class Session(NamedTuple):
    """What stays the same while a run trains, saves and is refined.

    Attributes:
      signals: the first SIGINT or SIGTERM, once it has arrived.
    """

    run_dir: Path
    checkpoints: Checkpoints
    options: RunOptions
    console: Console
    signals: list[int]


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
      sweep: with the strengths that refining added.
      results: which are saved.
      signals: the one that stopped it, if any.
      failed: other files that could not be written, with the reasons.
    """

    sweep: Sweep
    results: Results
    signals: list[int]
    failed: list[str]


def run(config: SweepConfig, options: RunOptions) -> int:
    """Trains a sweep, saves and prints its results.

    Returns:
      The exit code, as `l2jax.cli.main` does.

    Raises:
      InputError: for what cannot be used; no folder is left behind.
    """
    # Progress goes to stderr and results to stdout, so that each can be redirected.
    console = progress_console(quiet=options.quiet)
    with warnings_on(console):
        dataset = load_with_progress(config, console)
        code = load_code(config)
        with warnings.catch_warnings(record=True) as caught:
            sweep = Sweep(config, dataset, **code.functions, code=code.sha256)
    if options.profile:
        make_folder("profile", options.profile)
    run_dir = options.resume or make_run_dir(options.run_dir)
    try:
        with warnings_on(console):
            option = "resume" if options.resume else "run_dir"
            done = train_in_folder(sweep, run_dir, options, console, option=option, caught=caught)
    except OSError as error:
        left = f"what was written before is intact: --resume {run_dir}" if run_dir.exists() else "the folder is gone"
        say(f"error: {run_dir}: {reason(error)}; {left}")
        return 1
    try:
        with results_console(quiet=options.quiet) as console:
            print_results(done.results, run_dir, console)
    except OSError as error:
        done.failed.insert(0, str(error))
    if done.failed:
        say(f"error: {run_dir}: the results are saved; not written: {', '.join(done.failed)}")
    return _exit_code(done) or bool(done.failed)


def train_in_folder(
    sweep: Sweep,
    run_dir: Path,
    options: RunOptions,
    console: Console,
    *,
    option: str = "run_dir",
    caught: Sequence[warnings.WarningMessage] = (),
) -> Outcome:
    """Trains a sweep in a run folder until the last epoch or a signal, and saves it there.

    Args:
      option: that names the folder, for errors.
      caught: warnings of the setup, which are shown below the line on what is trained.

    Raises:
      InputError: for a folder that is in use, or that holds the run of another sweep.
      OSError: if the results cannot be written; what was written before is intact.
    """
    with locked(run_dir, option), stop_signals() as signals:
        session = Session(run_dir, Checkpoints(run_dir), options, console, signals)
        sweep.identify()
        if options.resume:
            _restore(sweep, session)
        show_work(sweep, caught, console)
        _warn_of_rounding(sweep, console)
        results, failed = _train_and_save(sweep, session)
        for _ in range(options.refine):
            refined = _refine(sweep, results, console)
            if refined is None:
                break
            sweep = refined
            sweep.identify()
            _restore(sweep, session)
            results, failed = _train_and_save(sweep, session)
    return Outcome(sweep, results, signals, failed)


def _train_and_save(sweep: Sweep, session: Session) -> tuple[Results, list[str]]:
    """Trains until the last epoch or a signal. Observers see the record of each epoch, in this order.

    Returns:
      The results, which are saved, and the files that could not be written, with the reasons.
    """
    run_dir, options, console = session.run_dir, session.options, session.console
    write_with_sums(run_dir, {CONFIG: config_json(sweep.description())})
    with contextlib.ExitStack() as stack:
        observers: list[Observer] = [metrics_log(run_dir / "metrics.jsonl", sweep.ledger.records())]
        if not sweep.finished:
            show_compilation(sweep, console)
            if options.tensorboard:
                observers.append(stack.enter_context(event_files(sweep.axes, run_dir / "events")))
            observers.append(_checkpointing(sweep, session))
            observers.append(stack.enter_context(progress_bar(sweep, console)))
            for record in sweep.epochs(options.profile):
                for observe in observers:
                    observe(record)
                if session.signals:
                    break
    with console.status("testing, saving, drawing"):
        results = sweep.results()
        failed = _save(results, sweep, session)
    return with_folder(results, run_dir, sweep.setup.own_model), failed


def _checkpointing(sweep: Sweep, session: Session) -> Observer:
    """Saves a checkpoint when enough time has passed since the last, at the end of a chunk and after a signal."""
    last = time.monotonic()

    def save(record: EpochRecord) -> None:
        nonlocal last
        is_due = time.monotonic() - last >= 60 * session.options.checkpoint_minutes
        if session.signals or record.number == sweep.config.epochs or is_due:
            session.checkpoints.save(sweep.snapshot(), sweep.description())
            last = time.monotonic()

    return save


def _restore(sweep: Sweep, session: Session) -> None:
    """Restores what the checkpoints hold, the latest first."""

    def warn(line: str) -> None:
        warnings.warn(line, SweepWarning, stacklevel=2)

    check_continues(read_description(session.run_dir), sweep.description())
    for age, (snapshot, description) in enumerate(session.checkpoints.load(sweep.check_snapshot, warn)):
        sweep.config.check_extends(SweepConfig(**description["sweep"]))
        check_continues(description, sweep.description())
        if age == 0:
            sweep.reproduce(description)
            for name, version in sweep.description()["versions"].items():
                if (before := description["versions"].get(name)) != version:
                    warn(f"{name} {before} before, {version} now: the last digits may differ")
        sweep.restore(snapshot)


def _refine(sweep: Sweep, results: Results, console: Console) -> Sweep | None:
    """The sweep with the strengths added that its results suggest; None if they suggest none, or are not complete."""
    if not sweep.finished:
        return None
    along_l2 = results.along_l2()
    if along_l2.best_setting_or_none() is None:
        return None
    new = tuple(l2 for l2 in next_strengths(along_l2) if l2 not in sweep.config.l2)
    if not new:
        return None
    console.print(f"refining: l2 = {', '.join(map(number, new))}", markup=False)
    return sweep.extended(dataclasses.replace(sweep.config, l2=(*sweep.config.l2, *new)))


def _save(results: Results, sweep: Sweep, session: Session) -> list[str]:
    """Saves the results, and then every other file whether or not one fails: returns those that do, and why."""
    run_dir, options, failed = session.run_dir, session.options, list[str]()
    keep_all = options.keep == "all" or (run_dir / ALL).exists()
    for name in (BEST, ALL):  # beside new results nobody could tell whose parameters the old files hold
        (run_dir / name).unlink(missing_ok=True)
    results.save(run_dir)

    def attempt(name: str, write: Callable[[Path], object]) -> None:
        try:
            write(run_dir / name)
        except Exception as error:  # of any library that has a part in it
            failed.append(f"{name} ({reason(error)})")

    kept = {"best", "all"} if keep_all else {"best"}
    try:
        results.best_trial()
    except ValueError:  # no trial has finished without diverging
        kept.discard("best")
    for keep in kept:
        attempt(
            f"{keep}_params.npz",
            lambda path, keep=keep: write_whole(path, params_file(keep, results, sweep, session.checkpoints)),
        )
    for name, draw in plot.drawings(results).items():
        for file_format in {"png", options.figures}:
            attempt(f"{name}.{file_format}", lambda path, draw=draw: _write_figure(draw, path))
    attempt("report.html", lambda path: write_report({str(run_dir): results}, path))
    return failed


def _write_figure(draw: Callable[[], Figure], path: Path) -> None:
    content = io.BytesIO()
    with own_style():
        draw().savefig(content, format=path.suffix.removeprefix("."), dpi=150)
    write_whole(path, content.getvalue())


def _warn_of_rounding(sweep: Sweep, console: Console) -> None:
    on_gpu = sweep.setup.mesh.devices.flat[0].platform == "gpu"
    if on_gpu and "deterministic" not in os.environ.get("XLA_FLAGS", ""):
        console.print("warning: sums come in any order on this device, and differ by rounding from run to run")
        console.print("XLA_FLAGS=--xla_gpu_deterministic_ops=true prevents it, at the price of time")


def _exit_code(outcome: Outcome) -> int:
    sweep, results, signals, _ = outcome
    if sweep.epochs_left:
        done = sweep.ledger.num_records
        say(f"interrupted: saved the {done} of {done + sweep.epochs_left} epochs that are complete")
        return 128 + (signals[0] if signals else signal.SIGINT)
    if results.data["diverged"].all():
        say("error: every trial diverged: lower --learning-rate or --l2")
        return 1
    return 0
