"""All checkpoints of one run or of one chunk: numbered, and removed when they are old."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from l2jax.checkpoint.checkpoint import Checkpoint
from l2jax.engine.grid import trial_keys
from l2jax.engine.snapshot import Snapshot
from l2jax.errors import reason

KEEP_PER_TRIAL = 2
"""Checkpoints kept per trial: the latest, and one in case it is damaged."""


class Place(Protocol):
    """Where numbered checkpoints lie; each is there whole or not at all."""

    def numbers(self) -> list[int]:
        """The numbers of those that are there."""
        ...

    def write(self, number: int, checkpoint: Checkpoint) -> None:
        """Writes one; raises OSError if it cannot."""
        ...

    def read(self, number: int, check: Callable[[Snapshot], None]) -> Checkpoint:
        """Reads one, as `read_checkpoint` does."""
        ...

    def remove(self, number: int) -> None:
        """Removes one; it may stay if it cannot be removed."""
        ...

    def name(self, number: int) -> str:
        """Its name, for people."""
        ...


class Checkpoints:
    """The checkpoints in one place, each with the snapshot of trials that trained together."""

    def __init__(self, place: Place):
        self.place = place
        self._trials: dict[int, set[tuple]] = {}  # in each checkpoint, as far as they are known
        self._last = max(place.numbers(), default=0)

    def save(self, checkpoint: Checkpoint) -> None:
        """Adds a checkpoint, and removes those that are older than the last two of each trial.

        Raises:
          OSError: if it cannot be written; earlier ones stay as they are.
        """
        self.place.write(self._last + 1, checkpoint)
        self._last += 1
        self._trials[self._last] = set(trial_keys(checkpoint.snapshot.trials))
        self._remove_older()

    def load(
        self, check: Callable[[Snapshot], None], warn: Callable[[str], None], *, trial: tuple | None = None
    ) -> Iterator[Checkpoint]:
        """Reads the checkpoints, the latest first, and warns of each that is damaged.

        Args:
          check: as in `read_checkpoint`.
          warn: is called with one line for each damaged checkpoint.
          trial: skips checkpoints known not to contain the trial of this key.
        """
        for number in sorted(self.place.numbers(), reverse=True):
            if trial and trial not in self._trials.get(number, {trial}):
                continue
            try:
                checkpoint = self.place.read(number, check)
            except Exception as error:  # whatever a damaged file makes parsers raise
                warn(f"{self.place.name(number)} is left out: {reason(error)}")
                continue
            self._trials[number] = set(trial_keys(checkpoint.snapshot.trials))
            yield checkpoint

    def _remove_older(self) -> None:
        newer: dict[tuple, int] = {}
        for number in sorted(self._trials, reverse=True):
            if all(newer.get(trial, 0) >= KEEP_PER_TRIAL for trial in self._trials[number]):
                self.place.remove(number)
                del self._trials[number]
                continue
            for trial in self._trials[number]:
                newer[trial] = newer.get(trial, 0) + 1
