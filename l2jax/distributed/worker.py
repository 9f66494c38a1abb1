"""What a worker does: trains a chunk from its last checkpoint to the last epoch, and leaves files on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import platform
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from l2jax.checkpoint.checkpoint import Checkpoint
from l2jax.checkpoint.checkpoints import Checkpoints
from l2jax.checkpoint.storage import ACCEPTED, Archives, Storage
from l2jax.config import SweepConfig
from l2jax.data.dataset import Dataset
from l2jax.distributed.ledger_file import NAME, ledger_file
from l2jax.engine.describe import Computation
from l2jax.engine.ledger import Ledger
from l2jax.engine.sweep import Sweep
from l2jax.errors import InvalidInputError, SweepWarning

STOP, INSTRUCTIONS = "stop", "instructions.json"
"""Files of the storage: where the first is, workers stop after the epoch; by the second they know that they see it."""
SAY_EVERY = 1.0
"""The least seconds between two times that a worker says how far it is and looks whether it is to stop."""


class Instructions(NamedTuple):
    """What every worker has to know of a sweep, besides its data set.

    Attributes:
      key: another one for every sweep and every time that it is started.
      config: the options.
      functions: the model, the optimizer and the penalty, as `Sweep` takes them.
      devices: of a worker, as in `SweepConfig`.
      storage: where it leaves its files.
      checkpoint_minutes: the least time between two checkpoints of a chunk.
      computation: how to compute; None leaves it to the first worker.
      description: of the sweep, for checkpoints.
    """

    key: str
    config: SweepConfig
    functions: Mapping[str, Any]
    devices: int | None
    storage: Storage
    checkpoint_minutes: float
    computation: Computation | None
    description: dict[str, Any]

    def announce(self) -> None:
        """Leaves in the storage what a worker knows the storage by, and a later driver the plan."""
        self.storage.write(INSTRUCTIONS, json.dumps({"key": self.key, "description": self.description}).encode())

    def is_announced(self) -> bool:
        """Whether this process sees the storage of the driver."""
        return self.storage.exists(INSTRUCTIONS) and json.loads(self.storage.read(INSTRUCTIONS))["key"] == self.key


class Report(NamedTuple):
    """What a worker returns of a chunk.

    Attributes:
      ledger: of its trials alone.
      device: the kind of device, on CPU the model.
      seconds: spent on compiling, training and evaluating.
      warnings: what a person should know, a line each.
    """

    ledger: Ledger
    device: str
    seconds: dict[str, float]
    warnings: tuple[str, ...]


def plan(instructions: Instructions, dataset: Dataset, num_trials: int, memory_share: float) -> Computation:
    """Compiles for chunks of at most so many trials, as many as this worker's share of the memory holds.

    Raises:
      InputError: if this worker cannot see the storage.
    """
    sweep = _sweep(instructions, dataset)
    sweep.computation = instructions.computation
    sweep.compile(num_trials, memory_share)
    assert sweep.computation
    return sweep.computation


def train(instructions: Instructions, dataset: Dataset, name: str, indices: Sequence[int]) -> Report | None:
    """Trains a chunk; returns None if it was to stop before it began.

    Args:
      name: of the folder of the chunk in the storage.
      indices: its trials.

    Raises:
      InputError: if this worker cannot see the storage.
      OSError: if it cannot write there.
    """
    if instructions.storage.exists(STOP):
        return None
    started = time.monotonic()
    with _recorded() as lines:
        sweep = _sweep(instructions, dataset)
        compiled_before = sweep.seconds["compiling"]
        part = sweep.part(indices)
        checkpoints = Checkpoints(Archives(instructions.storage / name))
        for snapshot, _ in checkpoints.load(part.check_snapshot, _warn):
            part.restore(snapshot)
        if not part.finished:
            sweep.computation = instructions.computation
            part.compiled, part.computation = sweep.compile(), sweep.computation
            _train(part, instructions, instructions.storage / name, checkpoints, started)
    compiling = sweep.seconds["compiling"] - compiled_before
    return Report(part.ledger, _device(part), part.seconds | {"compiling": compiling}, tuple(lines))


def _train(part: Sweep, instructions: Instructions, folder: Storage, checkpoints: Checkpoints, started: float) -> None:
    said, saved = 0.0, started
    for record in part.epochs():
        now = time.monotonic()
        complete = record.number == part.config.epochs
        if not complete and now - said < SAY_EVERY:
            continue
        said = now
        stop = instructions.storage.exists(STOP)
        if complete or stop or now - saved >= 60 * instructions.checkpoint_minutes:
            checkpoints.save(Checkpoint(part.snapshot(), instructions.description))
            saved = now
        if stop:
            part.ledger = part.tested_ledger()
        # After the checkpoint: whoever reads that the chunk is complete finds its parameters.
        folder.write(NAME, ledger_file(part.setup.trials, part.ledger))
        if stop:
            return


_SWEEPS: dict[str, Sweep] = {}
"""The sweep that was trained last, by the key of its instructions: a worker compiles once for all of its chunks."""


def _sweep(instructions: Instructions, dataset: Dataset) -> Sweep:
    if instructions.key not in _SWEEPS:
        if not instructions.is_announced():
            accepted = f"{ACCEPTED}; {platform.node()} does not see it"
            raise InvalidInputError("storage", instructions.storage.address, accepted)
        config = dataclasses.replace(instructions.config, devices=instructions.devices)
        _SWEEPS.clear()
        _SWEEPS[instructions.key] = Sweep(config, dataset, **instructions.functions)
    return _SWEEPS[instructions.key]


@contextlib.contextmanager
def _recorded() -> Iterator[list[str]]:
    """Yields a list that gets the warnings of l2jax, as lines."""
    lines: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SweepWarning)
        yield lines
    lines += [str(warning.message) for warning in caught if issubclass(warning.category, SweepWarning)]


def _warn(line: str) -> None:
    warnings.warn(line, SweepWarning, stacklevel=2)


def _device(part: Sweep) -> str:
    device = part.setup.mesh.devices.flat[0]
    if device.platform != "cpu":
        return device.device_kind
    with contextlib.suppress(OSError):  # not on Linux
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or device.device_kind
