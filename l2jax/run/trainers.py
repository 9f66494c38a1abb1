"""Two ways to train the sweep of a run: in this process, or by workers. What one has done, the other continues."""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from rich.console import Console

from l2jax.checkpoint.checkpoint import Checkpoint
from l2jax.checkpoint.checkpoints import Checkpoints
from l2jax.checkpoint.folders import Folders
from l2jax.checkpoint.storage import Archives, Storage
from l2jax.config import SweepConfig
from l2jax.distributed.driver import Driver
from l2jax.distributed.tasks import stored_folders
from l2jax.distributed.workers import Workers
from l2jax.engine.describe import check_continues
from l2jax.engine.ledger import EpochRecord
from l2jax.engine.sweep import Sweep
from l2jax.errors import SweepWarning
from l2jax.results.files import read_description
from l2jax.run.options import RunOptions
from l2jax.run.terminal import show_compilation, show_workers


class Trainer(Protocol):
    """Trains a sweep, and saves what it takes to continue.

    Attributes:
      lost: chunks that were given up, a line each.
    """

    lost: list[str]

    def restore(self) -> None:
        """Takes up what the run has done before."""
        ...

    def compile(self, console: Console) -> None:
        """Plans and compiles, and shows that."""
        ...

    def epochs(self) -> Iterator[EpochRecord]:
        """Trains, and yields a record after each epoch of each chunk, until the last one or a signal."""
        ...

    def find_checkpoints(self, index: int | None) -> list[Checkpoints]:
        """The places that have checkpoints of the trial at an index; None: of any trial."""
        ...


def make_trainer(
    sweep: Sweep, run_dir: Path, options: RunOptions, *, signals: list[int], workers: Workers | None
) -> Trainer:
    """The trainer of a run.

    Args:
      signals: gets the first signal that asks to stop.
      workers: that train in place of this process; None: it trains itself.
    """
    sweep.storage = (read_description(run_dir).get("storage") if options.resume else None) or options.storage
    storage = Storage(sweep.storage or str(run_dir / "chunks"))
    if workers is None:
        return InThisProcess(sweep, run_dir, storage, options, signals)
    return ByWorkers(sweep, run_dir, Driver(sweep, workers, storage, options.checkpoint_minutes, lambda: bool(signals)))


class InThisProcess:
    """Trains on the devices of this process, with checkpoints in the run folder."""

    def __init__(self, sweep: Sweep, run_dir: Path, storage: Storage, options: RunOptions, signals: list[int]):
        self.sweep, self.storage, self.options, self.signals = sweep, storage, options, signals
        self.run_dir, self.checkpoints, self.lost = run_dir, Checkpoints(Folders(run_dir / "checkpoints")), []

    def restore(self) -> None:
        _restore(self.sweep, self.run_dir, self.find_checkpoints(None))

    def compile(self, console: Console) -> None:
        show_compilation(self.sweep, console)

    def epochs(self) -> Iterator[EpochRecord]:
        """A checkpoint is saved when enough time has passed since the last, at the end of a chunk, and to stop."""
        saved = time.monotonic()
        for record in self.sweep.epochs(self.options.profile):
            due = time.monotonic() - saved >= 60 * self.options.checkpoint_minutes
            if is_saved := bool(self.signals) or record.number == self.sweep.config.epochs or due:
                self._save()
                saved = time.monotonic()
            yield record
            if self.signals:
                if not is_saved:
                    self._save()
                return

    def _save(self) -> None:
        self.checkpoints.save(Checkpoint(self.sweep.snapshot(), self.sweep.description()))

    def find_checkpoints(self, index: int | None) -> list[Checkpoints]:
        folders = stored_folders(self.sweep, self.storage, index)
        return [self.checkpoints, *(Checkpoints(Archives(self.storage / name)) for name in folders)]


class ByWorkers:
    """Has workers train, each with checkpoints in the storage."""

    def __init__(self, sweep: Sweep, run_dir: Path, driver: Driver):
        self.sweep, self.run_dir, self.driver, self.lost = sweep, run_dir, driver, driver.lost
        self.before = Checkpoints(Folders(run_dir / "checkpoints"))

    def restore(self) -> None:
        _restore(self.sweep, self.run_dir, [self.before])
        self.sweep.computation = None  # of this process
        self.driver.restore()

    def compile(self, console: Console) -> None:
        show_workers(self.driver, console)

    def epochs(self) -> Iterator[EpochRecord]:
        return self.driver.epochs()

    def find_checkpoints(self, index: int | None) -> list[Checkpoints]:
        return [self.before, *self.driver.checkpoints(index)]


def _restore(sweep: Sweep, run_dir: Path, places: list[Checkpoints]) -> None:
    """Restores what the checkpoints in these places hold."""

    def warn(line: str) -> None:
        warnings.warn(line, SweepWarning, stacklevel=2)

    check_continues(read_description(run_dir), sweep.description())
    stored = itertools.chain.from_iterable(place.load(sweep.check_snapshot, warn) for place in places)
    for age, (snapshot, description) in enumerate(stored):
        sweep.config.check_extends(SweepConfig(**description["sweep"]))
        check_continues(description, sweep.description())
        if age == 0:
            sweep.reproduce(description)
            for name, version in sweep.description()["versions"].items():
                if (before := description["versions"].get(name)) != version:
                    warn(f"{name} {before} before, {version} now: the last digits may differ")
        sweep.restore(snapshot)
