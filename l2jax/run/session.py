"""A run of the command: trains a sweep in a folder of its own, and continues there after any interruption."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from l2jax.atomic import write_with_sums
from l2jax.config import SweepConfig
from l2jax.distributed.driver import MOST_FAILURES
from l2jax.distributed.ray_executor import ray_workers
from l2jax.distributed.workers import Workers
from l2jax.engine.devices import leave_accelerators_to_workers
from l2jax.engine.ledger import EpochRecord
from l2jax.engine.sweep import Sweep
from l2jax.errors import InvalidInputError, NothingTrainedError, reason
from l2jax.results.files import CONFIG, config_json
from l2jax.results.refine import next_strengths
from l2jax.results.results import Results
from l2jax.results.words import number
from l2jax.run.code import load_code
from l2jax.run.folder import make_folder, make_run_dir
from l2jax.run.loading import with_folder
from l2jax.run.lock import locked
from l2jax.run.metrics_log import metrics_log
from l2jax.run.options import RunOptions
from l2jax.run.output import progress_console, results_console, say
from l2jax.run.saving import save
from l2jax.run.signals import stop_signals
from l2jax.run.tensorboard import event_files
from l2jax.run.terminal import load_with_progress, print_results, progress_bar, show_work, warnings_on
from l2jax.run.trainers import Trainer, make_trainer

Observer = Callable[[EpochRecord], None]


class Session(NamedTuple):
    """What stays the same while a run trains, saves and is refined.

    Attributes:
      signals: the first SIGINT or SIGTERM, once it has arrived.
      workers: that train in place of this process; None: it trains itself.
    """

    run_dir: Path
    options: RunOptions
    console: Console
    signals: list[int]
    workers: Workers | None


class Outcome(NamedTuple):
    """How a run ended.

    Attributes:
      sweep: with the strengths that refining added.
      results: which are saved.
      signals: the one that stopped it, if any.
      failed: other files that could not be written, with the reasons.
      lost: chunks that were given up, with the reasons.
    """

    sweep: Sweep
    results: Results
    signals: list[int]
    failed: list[str]
    lost: list[str]


def run(config: SweepConfig, options: RunOptions) -> int:
    """Trains a sweep, saves and prints its results.

    Returns:
      The exit code, as `l2jax.cli.main` does.

    Raises:
      InputError: for what cannot be used; no folder is left behind.
    """
    if options.storage and not options.ray:
        raise InvalidInputError("storage", options.storage, "none without --ray")
    # Progress goes to stderr and results to stdout, so that each can be redirected.
    console = progress_console(quiet=options.quiet)
    with warnings_on(console), contextlib.ExitStack() as stack:
        dataset = load_with_progress(config, console)
        code = load_code(config)
        if options.ray:
            leave_accelerators_to_workers()
        with warnings.catch_warnings(record=True) as caught:
            sweep = Sweep(config, dataset, **code.functions, code=code.sha256)
        if options.profile:
            make_folder("profile", options.profile)
        workers = stack.enter_context(ray_workers(options.ray, config.devices)) if options.ray else None
        run_dir = options.resume or make_run_dir(options.run_dir)
        option = "resume" if options.resume else "run_dir"
        try:
            done = train_in_folder(sweep, run_dir, options, console, option=option, caught=caught, workers=workers)
        except OSError as error:
            left = (
                f"what was written before is intact: --resume {run_dir}" if run_dir.exists() else "the folder is gone"
            )
            say(f"error: {run_dir}: {reason(error)}; {left}")
            return 1
        except NothingTrainedError as error:
            say(f"error: {run_dir}: {error}")
            return 1
    try:
        with results_console(quiet=options.quiet) as console:
            print_results(done.results, run_dir, console)
    except OSError as error:
        done.failed.insert(0, str(error))
    if done.failed:
        say(f"error: {run_dir}: the results are saved; not written: {', '.join(done.failed)}")
    for line in done.lost:
        say(f"error: {line} failed {MOST_FAILURES} times and was given up: --resume {run_dir} tries again")
    return _exit_code(done) or bool(done.failed)


def train_in_folder(
    sweep: Sweep,
    run_dir: Path,
    options: RunOptions,
    console: Console,
    *,
    option: str = "run_dir",
    caught: Sequence[warnings.WarningMessage] = (),
    workers: Workers | None = None,
) -> Outcome:
    """Trains a sweep in a run folder until the last epoch or a signal, and saves it there.

    Args:
      option: that names the folder, for errors.
      caught: warnings of the setup, which are shown below the line on what is trained.
      workers: that train in place of this process; None: it trains itself.

    Raises:
      InputError: for a folder that is in use, or that holds the run of another sweep.
      OSError: if the results cannot be written; what was written before is intact.
    """
    with locked(run_dir, option), stop_signals() as signals:
        session = Session(run_dir, options, console, signals, workers)
        trainer = _trainer(sweep, session, resume=options.resume is not None)
        show_work(sweep, caught, console)
        _warn_of_rounding(sweep, console)
        results, failed = _train_and_save(sweep, trainer, session)
        for _ in range(options.refine):
            refined = _refine(sweep, results, console)
            if refined is None:
                break
            sweep, trainer = refined, _trainer(refined, session, resume=True)
            results, failed = _train_and_save(sweep, trainer, session)
    return Outcome(sweep, results, signals, failed, trainer.lost)


def _trainer(sweep: Sweep, session: Session, *, resume: bool) -> Trainer:
    """The trainer of a sweep, with what the run has done before, if it is to resume that."""
    sweep.identify()
    options = session.options
    trainer = make_trainer(sweep, session.run_dir, options, signals=session.signals, workers=session.workers)
    if resume:
        trainer.restore()
    return trainer


def _train_and_save(sweep: Sweep, trainer: Trainer, session: Session) -> tuple[Results, list[str]]:
    """Trains until the last epoch or a signal. Observers see the record of each epoch, in this order.

    Returns:
      The results, which are saved, and the files that could not be written, with the reasons.
    """
    run_dir, options, console = session.run_dir, session.options, session.console
    write_with_sums(run_dir, {CONFIG: config_json(sweep.description())})
    with contextlib.ExitStack() as stack:
        observers: list[Observer] = [metrics_log(run_dir / "metrics.jsonl", sweep.ledger.records())]
        if not sweep.finished:
            trainer.compile(console)
            write_with_sums(run_dir, {CONFIG: config_json(sweep.description())})  # now with the plan
            if options.tensorboard:
                observers.append(stack.enter_context(event_files(sweep.axes, run_dir / "events")))
            observers.append(stack.enter_context(progress_bar(sweep, console)))
            for record in trainer.epochs():
                for observe in observers:
                    observe(record)
    if not sweep.ledger.epochs_done.any():
        raise NothingTrainedError("; ".join(trainer.lost) or "stopped before the first epoch was complete")
    with console.status("testing, saving, drawing"):
        results = sweep.results()
        failed = save(results, sweep, run_dir=run_dir, options=options, find_checkpoints=trainer.find_checkpoints)
    return with_folder(results, run_dir, sweep.setup.own_model), failed


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


def _warn_of_rounding(sweep: Sweep, console: Console) -> None:
    on_gpu = sweep.setup.mesh.devices.flat[0].platform == "gpu"
    if on_gpu and "deterministic" not in os.environ.get("XLA_FLAGS", ""):
        console.print("warning: sums come in any order on this device, and differ by rounding from run to run")
        console.print("XLA_FLAGS=--xla_gpu_deterministic_ops=true prevents it, at the price of time")


def _exit_code(outcome: Outcome) -> int:
    sweep, results, signals, _, lost = outcome
    if lost and not signals:
        return 1
    if sweep.epochs_left:
        done = sweep.ledger.num_records
        say(f"interrupted: saved the {done} of {done + sweep.epochs_left} epochs that are complete")
        return 128 + (signals[0] if signals else signal.SIGINT)
    if results.data["diverged"].all():
        say("error: every trial diverged: lower --learning-rate or --l2")
        return 1
    return 0
