"""Tasks: the chunks of a sweep that have epochs left, each with a folder of its own in the storage."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from l2jax.checkpoint.checkpoint import Checkpoint
from l2jax.checkpoint.checkpoints import Checkpoints
from l2jax.checkpoint.storage import Archives, Storage
from l2jax.distributed.ledger_file import NAME, read_ledger_file
from l2jax.engine.grid import tree_stack, tree_take, trial_keys
from l2jax.engine.ledger import Ledger
from l2jax.engine.snapshot import take_snapshot
from l2jax.engine.sweep import Sweep
from l2jax.errors import reason
from l2jax.trial.train import Trial


@dataclasses.dataclass
class Task:
    """A chunk that a worker is to train.

    Attributes:
      name: of its folder.
      indices: its trials.
      failures: in a row, without an epoch between.
    """

    name: str
    indices: tuple[int, ...]
    failures: int = 0


def read_stored(
    sweep: Sweep, storage: Storage, warn: Callable[[str], None]
) -> Iterator[tuple[str, tuple[int, ...], Ledger]]:
    """What the storage knows of chunks of this sweep: folder, trials, ledger.

    Chunks with trials that the sweep does not have are left out, and so are damaged ones, each with a line to `warn`.
    """
    names = storage.names(f"*/{NAME}")
    index = {key: number for number, key in enumerate(trial_keys(sweep.setup.trials))} if names else {}
    for name in names:
        try:
            trials, ledger = read_ledger_file(storage.read(name))
            keys = trial_keys(trials)
        except Exception as error:  # whatever a damaged file makes parsers raise
            warn(f"{storage.address}/{name} is left out: {reason(error)}")
            continue
        if all(key in index for key in keys):
            yield name.removesuffix(f"/{NAME}"), tuple(index[key] for key in keys), ledger


def stored_folders(sweep: Sweep, storage: Storage, index: int | None) -> list[str]:
    """The folders of chunks in the storage that have the trial at an index; None: of all chunks of this sweep."""
    stored = read_stored(sweep, storage, lambda _: None)
    return [name for name, indices, _ in stored if index is None or index in indices]


def new_tasks(sweep: Sweep, size: int, taken: set[int]) -> list[Task]:
    """Tasks of equal size for the trials that have epochs left, except those that are taken."""
    tasks = []
    for indices in sweep.ledger.unfinished().values():
        left = [index for index in indices.tolist() if index not in taken]
        num_chunks = math.ceil(len(left) / size)
        for rows in np.array_split(left, num_chunks) if left else []:
            chunk = tuple(rows.tolist())
            tasks.append(Task(_name(tree_take(sweep.setup.trials, chunk)), chunk))
    return tasks


def hand_over(sweep: Sweep, task: Task, storage: Storage, description: dict[str, Any]) -> None:
    """Leaves for a worker what this process knows of a chunk that has trained before: a checkpoint."""
    indices = task.indices
    if sweep.ledger.epochs_done[indices[0]]:
        state = tree_stack([sweep.waiting.pop(index) for index in indices])
        snapshot = take_snapshot(sweep.ledger, indices, sweep.setup.trials, state)
        Checkpoints(Archives(storage / task.name)).save(Checkpoint(snapshot, description))


def _name(trials: Trial) -> str:
    """A name for the folder of these trials, whatever sweep they are part of."""
    return hashlib.sha256(repr(trial_keys(trials)).encode()).hexdigest()[:16]
