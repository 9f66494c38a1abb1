"""What the driver does: deals chunks out to workers, follows them, and deals out again what is lost on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from typing import TypeVar

import numpy as np

from l2jax.checkpoint.checkpoints import Checkpoints
from l2jax.checkpoint.storage import Archives, Storage
from l2jax.distributed.ledger_file import NAME, read_ledger_file
from l2jax.distributed.tasks import Task, hand_over, new_tasks, read_stored
from l2jax.distributed.worker import INSTRUCTIONS, SAY_EVERY, STOP, Instructions, Report, plan, train
from l2jax.distributed.workers import Workers
from l2jax.engine.ledger import EpochRecord, Ledger
from l2jax.engine.sweep import Sweep
from l2jax.errors import InputError, SweepWarning, reason

T = TypeVar("T")

MOST_FAILURES = 3
"""Times in a row that a chunk may fail, without an epoch between, before it is given up."""


@dataclasses.dataclass
class Driver:
    """Trains a sweep with workers: it deals out chunks, and its process computes nothing itself.

    Attributes:
      sweep: whose ledger gets what the workers report.
      workers: that train.
      storage: where workers and driver leave files for each other.
      checkpoint_minutes: the least time between two checkpoints of a chunk.
      stops: whether to stop after the epochs at hand.
      tasks: chunks that have epochs left, after `restore()` and `plan()`.
      folders: the name of the folder of each trial's chunk, (T,); "" where it has none.
      lost: what was given up, a line each.
    """

    sweep: Sweep
    workers: Workers
    storage: Storage
    checkpoint_minutes: float = 1.0
    stops: Callable[[], bool] = bool
    tasks: list[Task] = dataclasses.field(default_factory=list)
    lost: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.folders = np.full(self.sweep.num_trials, "", "<U16")
        self.devices: set[str] = set()
        self.told: set[str] = set()

    def restore(self) -> None:
        """Takes up what is in the storage. Trials that were trained further elsewhere are not taken from there."""
        ledger = self.sweep.ledger
        if self.storage.exists(INSTRUCTIONS):
            description = json.loads(self.storage.read(INSTRUCTIONS))["description"]
            if description:  # the driver lived long enough to have a plan
                self.sweep.reproduce(description, self.workers.devices or description["num_devices"])
        for name, indices, part in read_stored(self.sweep, self.storage, self._warn):
            rows = list(indices)
            if (part.epochs_done < ledger.epochs_done[rows]).any() or not part.epochs_done.any():
                continue
            ledger.add_part(indices, part)
            self.folders[rows] = name
            self.sweep.seconds["training"] += float(part.seconds.sum())
            if (part.epochs_done < ledger.num_epochs).any():
                self.tasks.append(Task(name, indices))

    def plan(self) -> None:
        """Has a worker plan and compile, and divides what is left into tasks.

        Raises:
          InputError: if a worker cannot see the storage, or cannot use what it gets.
        """
        sweep, workers = self.sweep, self.workers
        unfinished = int((sweep.ledger.epochs_done < sweep.config.epochs).sum())
        self.storage.remove(STOP)
        instructions = Instructions(
            key=uuid.uuid4().hex,
            config=sweep.config,
            functions=sweep.functions,
            devices=workers.devices,
            storage=self.storage,
            checkpoint_minutes=self.checkpoint_minutes,
            computation=sweep.computation,
            description={},
        )
        instructions.announce()
        num_trials, memory_share = math.ceil(unfinished / workers.number), 1 / workers.per_machine
        words = plan, instructions, sweep.dataset, num_trials, memory_share
        computation = _again_if_lost(lambda: workers.executor.submit(*words).result())
        sweep.computation = computation
        self.instructions = instructions._replace(computation=computation, description=sweep.description())
        self.instructions.announce()
        taken = {index for task in self.tasks for index in task.indices}
        for task in new_tasks(sweep, computation.trials_at_once, taken):
            hand_over(sweep, task, self.storage, self.instructions.description)
            self.folders[list(task.indices)] = task.name
            self.tasks.append(task)

    def epochs(self) -> Iterator[EpochRecord]:
        """Has the tasks trained, and yields a record after each epoch of each chunk, as they come in.

        A chunk whose worker fails goes on from its last checkpoint in another one. At the end, `lost` says which
        chunks were given up.

        Raises:
          InputError: if a worker cannot use what it gets.
        """
        running = {} if self.stops() else {self._submit(task): task for task in self.tasks}
        looked, look_every = time.monotonic(), SAY_EVERY
        seen: dict[str, object] = {}
        stopping = False
        try:
            while running:
                done = _wait(running, look_every)
                if self.stops() and not stopping:
                    stopping = True
                    self.storage.write(STOP, b"")
                    for future in running:  # that no worker has begun with
                        future.cancel()
                if (start := time.monotonic()) - looked >= look_every:
                    yield from self._look(list(running.values()), seen)
                    looked = time.monotonic()
                    look_every = max(SAY_EVERY, 10 * (looked - start))  # an object store may be slow
                for future in done:
                    task = running.pop(future)
                    try:
                        report = future.result()
                    except CancelledError:
                        pass
                    except InputError:
                        raise
                    except Exception as error:  # of the worker, its process or its machine
                        yield from self._look([task], seen)
                        if again := self._after_failure(task, error):
                            running[again] = task
                    else:
                        yield from self._finish(task, report)
        finally:
            if running:  # an error, or a second signal
                with contextlib.suppress(OSError):
                    self.storage.write(STOP, b"")

    def checkpoints(self, index: int | None) -> list[Checkpoints]:
        """The checkpoints of the chunk that has the trial at an index; None: of all chunks."""
        names = np.unique(self.folders if index is None else self.folders[index : index + 1])
        return [Checkpoints(Archives(self.storage / str(name))) for name in names if name]

    def _submit(self, task: Task) -> Future:
        return self.workers.executor.submit(train, self.instructions, self.sweep.dataset, task.name, task.indices)

    def _look(self, tasks: list[Task], seen: dict[str, object]) -> Iterator[EpochRecord]:
        """The records of what workers have left in the storage since the last look.

        Args:
          seen: the versions of the files that were read; it is brought up to date.
        """
        versions = self.storage.versions(f"*/{NAME}")
        for task in tasks:
            name = f"{task.name}/{NAME}"
            if versions.get(name) not in (None, seen.get(name)):
                seen[name] = versions[name]
                try:
                    _, part = read_ledger_file(self.storage.read(name))
                except Exception as error:  # whatever a damaged file makes parsers raise: it comes again
                    self._warn(f"{self.storage.address}/{name}: {reason(error)}")
                    continue
                yield from self._enter(task, part)

    def _enter(self, task: Task, part: Ledger) -> Iterator[EpochRecord]:
        """Enters into the sweep's ledger what is known of a chunk, and yields the records that are new."""
        ledger = self.sweep.ledger
        before = ledger.epochs_done[list(task.indices)]
        new = [record for record in part.records() if record.number > before[record.indices[0]]]
        if not new and not part.tested.all():
            return
        task.failures = 0
        ledger.add_part(task.indices, part)
        for record in new:
            self.sweep.seconds["training"] += record.seconds
            yield record._replace(indices=tuple(task.indices[row] for row in record.indices))

    def _finish(self, task: Task, report: Report | None) -> Iterator[EpochRecord]:
        if report is None:
            return
        yield from self._enter(task, report.ledger)
        for name in ("compiling", "evaluating"):
            self.sweep.seconds[name] += report.seconds[name]
        for line in report.warnings:
            self._warn(line)
        self.devices.add(report.device)
        if len(self.devices) > 1:
            self._warn(f"devices of different kinds, {' and '.join(sorted(self.devices))}: last digits may differ")

    def _after_failure(self, task: Task, error: Exception) -> Future | None:
        """Has a task trained again, or gives it up."""
        if self.stops():
            return None  # the run can be resumed
        task.failures += 1
        if not isinstance(error, BrokenExecutor) and task.failures < MOST_FAILURES:
            with contextlib.suppress(BrokenExecutor):
                return self._submit(task)
        first, last = task.indices[0] + 1, task.indices[-1] + 1
        self.lost.append(f"trials {first}-{last} ({type(error).__name__}: {reason(error)})")
        return None

    def _warn(self, line: str) -> None:
        if line not in self.told:
            self.told.add(line)
            warnings.warn(line, SweepWarning, stacklevel=2)


def _again_if_lost(work: Callable[[], T]) -> T:
    """What the function returns, at the third time at the latest, if workers or their machines fail."""
    for _ in range(MOST_FAILURES - 1):
        try:
            return work()
        except (InputError, BrokenExecutor):
            raise
        except Exception:  # of any kind that an executor has for it
            continue
    return work()


def _wait(futures: Iterable[Future], seconds: float) -> list[Future]:
    """Those that are done, after so many seconds, or as soon as there are some."""
    if all(isinstance(future, Future) for future in futures):
        wait(futures, timeout=seconds, return_when=FIRST_COMPLETED)
        return [future for future in futures if future.done()]
    end = time.monotonic() + seconds  # futures of another library, such as submitit's jobs
    while not (done := [future for future in futures if future.done()]) and time.monotonic() < end:
        time.sleep(0.05)
    return done
