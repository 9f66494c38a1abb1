"""The ledger: everything that is known of the trials of a sweep, as arrays on the host."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from l2jax.results.metrics import MAGNITUDES, METRICS

DERIVED = ("diverged", "diverged_epoch", "best_epoch")
"""The metrics that follow from the recorded ones."""
AFTER_EPOCHS = {name: metric for name, metric in METRICS.items() if "epoch" in metric.dims}
AT_THE_END = {name: metric for name, metric in METRICS.items() if name not in (*AFTER_EPOCHS, *DERIVED)}


class EpochRecord(NamedTuple):
    """An epoch that a chunk of n trials has finished.

    Attributes:
      number: of the epoch, from 1.
      indices: (n,), which trials, in the order of `Sweep.axes`, the last axis fastest.
      metrics: by name, (n,); `kernel_norm` is (n, layers). NaN where a trial has diverged.
      seconds: of training, without evaluation.
      num_examples: trained by all n trials together.
    """

    number: int
    indices: tuple[int, ...]
    metrics: dict[str, np.ndarray]
    seconds: float
    num_examples: int

    @property
    def examples_per_second(self) -> float:
        """Trial-examples: examples trained, times trials."""
        return self.num_examples / self.seconds

    @property
    def epoch(self) -> int:
        """Deprecated: use `number`."""
        warnings.warn("EpochRecord.epoch is now EpochRecord.number", DeprecationWarning, stacklevel=2)
        return self.number

    @property
    def trials(self) -> tuple[int, ...]:
        """Deprecated: use `indices`."""
        warnings.warn("EpochRecord.trials is now EpochRecord.indices", DeprecationWarning, stacklevel=2)
        return self.indices


@dataclasses.dataclass
class Ledger:
    """Everything that is known of each of T trials. There is room for E epochs; those not trained yet are NaN.

    Attributes:
      num_epochs: that each trial is to train for.
      epochs_done: (T,), int.
      metrics: by name, (T, E) or (T, E, layers) for those of epochs, (T, ...) for those of the end; float32, as the
        devices compute them.
      tested: (T,), bool: the metrics of the end are known.
      seconds: (T, E), each trial's share of the training time of its chunk.
      chunks: (T, E), int: the first index of the chunk that trained the trial in that epoch; -1 where none did.
      num_examples: (T,), int: in the training part.
    """

    num_epochs: int
    epochs_done: np.ndarray
    metrics: dict[str, np.ndarray]
    tested: np.ndarray
    seconds: np.ndarray
    chunks: np.ndarray
    num_examples: np.ndarray

    @property
    def diverged(self) -> np.ndarray:
        """(T,), bool: trials whose metrics stopped being finite."""
        return self._diverged_before(np.arange(len(self.epochs_done)))

    def _diverged_before(self, rows: np.ndarray) -> np.ndarray:
        """(n,), bool: which of the trials of n rows have diverged."""
        done = self.epochs_done[rows]
        return (done > 0) & np.isnan(self.metrics["val_loss"][rows, np.maximum(done - 1, 0)])

    @property
    def num_records(self) -> int:
        """Epochs of chunks that are complete."""
        return sum(int(np.count_nonzero(np.bincount(firsts[firsts >= 0]))) for firsts in self.chunks.T)

    def unfinished(self) -> dict[int, np.ndarray]:
        """The indices of the trials that have epochs left, by the number of epochs done, the furthest first."""
        done = np.flatnonzero(np.bincount(self.epochs_done, minlength=self.num_epochs)[: self.num_epochs])[::-1]
        return {int(number): np.flatnonzero(self.epochs_done == number) for number in done}

    def now_diverged(self, indices: Sequence[int], metrics: dict[str, np.ndarray]) -> np.ndarray:
        """(n,), bool: which of n trials have diverged before, or now have a metric that is not finite."""
        finite = [np.isfinite(values).reshape(len(indices), -1).all(-1) for values in metrics.values()]
        return self._diverged_before(np.array(indices)) | ~np.all(finite, 0)

    def add_epoch(self, indices: Sequence[int], number: int, metrics: dict[str, np.ndarray], seconds: float) -> None:
        """Records an epoch of a chunk; a trial that has diverged is recorded as NaN."""
        self.make_room(number)
        rows, diverged = np.array(indices), self.now_diverged(indices, metrics)
        for name, values in metrics.items():
            self.metrics[name][rows, number - 1] = values
            self.metrics[name][rows[diverged], number - 1] = np.nan
        self.seconds[rows, number - 1] = seconds / len(rows)
        self.chunks[rows, number - 1] = rows[0]
        self.epochs_done[rows] = number
        self.tested[rows] = False

    def make_room(self, num_epochs: int) -> None:
        """Makes the arrays longer until this many epochs fit, at least twice as long each time."""
        if num_epochs <= (room := self.chunks.shape[1]):
            return
        more = min(max(num_epochs, 2 * room), self.num_epochs) - room
        self.chunks = np.pad(self.chunks, [(0, 0), (0, more)], constant_values=-1)
        self.seconds = np.pad(self.seconds, [(0, 0), (0, more)])
        for name in AFTER_EPOCHS:
            width = [(0, 0), (0, more), *[(0, 0)] * (self.metrics[name].ndim - 2)]
            self.metrics[name] = np.pad(self.metrics[name], width, constant_values=np.nan)

    def add_test(self, indices: Sequence[int], metrics: dict[str, np.ndarray]) -> None:
        """Records the metrics of the end."""
        for name, values in metrics.items():
            self.metrics[name][list(indices)] = values
        self.tested[list(indices)] = True

    def add_part(self, indices: Sequence[int], part: Ledger) -> None:
        """Records everything that the ledger of these trials alone, n of them, knows.

        Raises:
          ValueError: for the ledger of other metrics, layers or numbers of trials.
        """
        rows, num_epochs = np.array(indices), part.chunks.shape[1]
        self.make_room(num_epochs)
        if part.metrics.keys() != self.metrics.keys() or len(rows) != len(part.epochs_done):
            raise ValueError("the ledger of other trials")
        for name, values in part.metrics.items():
            if name in AFTER_EPOCHS:
                self.metrics[name][rows, :num_epochs] = values
            else:
                self.metrics[name][rows] = values
        self.seconds[rows, :num_epochs] = part.seconds
        self.chunks[rows, :num_epochs] = np.where(part.chunks < 0, -1, rows[part.chunks])
        self.epochs_done[rows] = part.epochs_done
        self.tested[rows] = part.tested

    def record(self, indices: Sequence[int], number: int) -> EpochRecord:
        """The record of an epoch that these trials have finished together."""
        rows = list(indices)
        metrics = {name: self.metrics[name][rows, number - 1] for name in AFTER_EPOCHS}
        seconds = float(self.seconds[rows, number - 1].sum())
        return EpochRecord(number, tuple(indices), metrics, seconds, int(self.num_examples[rows].sum()))

    def records(self) -> Iterator[EpochRecord]:
        """The records of all epochs, chunk after chunk."""
        chunks = {}
        for epoch, firsts in enumerate(self.chunks.T):
            by_chunk = np.argsort(firsts, kind="stable").astype(np.int32)
            names, starts = np.unique(firsts[by_chunk], return_index=True)
            for first, indices in zip(names.tolist(), np.split(by_chunk, starts[1:]), strict=True):
                chunks[first, epoch + 1] = indices
        for first, number in sorted(chunks):
            if first >= 0:
                yield self.record(tuple(chunks[first, number].tolist()), number)


def new_ledger(num_examples: np.ndarray, num_epochs: int, num_layers: int) -> Ledger:
    """The ledger of a sweep in which nothing is trained yet.

    Args:
      num_examples: (T,), in the training part of each trial.
    """
    num_trials, room = len(num_examples), min(num_epochs, 64)
    sizes = {"epoch": room, "layer": num_layers, "magnitude": len(MAGNITUDES)}
    metrics = {
        name: np.full((num_trials, *(sizes[dim] for dim in metric.dims)), np.nan, np.float32)
        for name, metric in (AFTER_EPOCHS | AT_THE_END).items()
    }
    return Ledger(
        num_epochs=num_epochs,
        epochs_done=np.zeros(num_trials, int),
        metrics=metrics,
        tested=np.zeros(num_trials, bool),
        seconds=np.zeros((num_trials, room)),
        chunks=np.full((num_trials, room), -1, np.int32),
        num_examples=num_examples,
    )
