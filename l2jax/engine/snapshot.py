"""A snapshot: what another process needs to train some trials on, as arrays on the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from l2jax.engine.grid import tree_take
from l2jax.engine.ledger import AFTER_EPOCHS, AT_THE_END, Ledger
from l2jax.network.network import by_path
from l2jax.results.metrics import MAGNITUDES, METRICS
from l2jax.trial.train import TrainState, Trial


class Snapshot(NamedTuple):
    """Everything that is known of n trials after the same number of epochs, E.

    Attributes:
      trials: (n,). Trials are matched by value, so that a larger sweep can reuse them.
      metrics: by name, those of epochs, (n, E, ...).
      seconds: (E,), these trials' share of the training time.
      test: by name, the metrics of the end, (n, ...); None before the last epoch.
      state: by path in `TrainState`, such as "params/dense/bias", (n, ...).
    """

    trials: Trial
    metrics: dict[str, np.ndarray]
    seconds: np.ndarray
    test: dict[str, np.ndarray] | None
    state: dict[str, np.ndarray]


def take_snapshot(ledger: Ledger, indices: Sequence[int], trials: Trial, state: TrainState) -> Snapshot:
    """The snapshot of trials that have done the same number of epochs.

    Args:
      trials: (T,), all of the sweep.
      state: (n, ...), of those at `indices` alone.
    """
    rows = list(indices)
    num_epochs = ledger.epochs_done[rows[0]]
    metrics = {name: ledger.metrics[name][rows, :num_epochs] for name in AFTER_EPOCHS}
    test = {name: ledger.metrics[name][rows] for name in AT_THE_END}
    seconds = ledger.seconds[rows, :num_epochs].sum(0)
    tested = bool(ledger.tested[rows].all())
    return Snapshot(tree_take(trials, rows), metrics, seconds, test if tested else None, by_path(state))


def restore_snapshot(ledger: Ledger, indices: Sequence[int], snapshot: Snapshot) -> None:
    """Enters into the ledger what a snapshot holds; its n trials are those at `indices`."""
    rows, num_epochs = list(indices), len(snapshot.seconds)
    ledger.make_room(num_epochs)
    for name, values in snapshot.metrics.items():
        ledger.metrics[name][rows, :num_epochs] = values
    ledger.seconds[rows, :num_epochs] = snapshot.seconds / len(rows)
    ledger.chunks[rows, :num_epochs] = rows[0]
    ledger.epochs_done[rows] = num_epochs
    if snapshot.test:
        for name, values in snapshot.test.items():
            ledger.metrics[name][rows] = values
        ledger.tested[rows] = True


def take_rows(snapshot: Snapshot, rows: Sequence[int]) -> Snapshot:
    """The snapshot of some of its trials."""
    share = len(rows) / len(snapshot.trials.seed)
    arrays = snapshot.trials, snapshot.metrics, snapshot.test, snapshot.state
    trials, metrics, test, state = tree_take(arrays, rows)
    return Snapshot(trials, metrics, snapshot.seconds * share, test, state)


def restore_state(snapshot: Snapshot, like: TrainState) -> TrainState:
    """The state as a pytree, (n, ...).

    Args:
      like: the shapes and types of one trial's state.

    Raises:
      ValueError: for the state of another network or optimizer.
    """
    expected, state, num_trials = by_path(like), snapshot.state, len(snapshot.trials.seed)
    if expected.keys() != state.keys() or any(
        (state[path].shape, state[path].dtype) != ((num_trials, *leaf.shape), leaf.dtype)
        for path, leaf in expected.items()
    ):
        raise ValueError("the state of another network or optimizer")
    return jax.tree.unflatten(jax.tree.structure(like), [state[path] for path in expected])


def check_snapshot(snapshot: Snapshot, *, like: TrainState, ledger: Ledger) -> None:
    """Raises ValueError for a snapshot whose arrays, or shapes of arrays, fit neither each other nor this ledger."""
    restore_state(snapshot, like)
    num_trials, num_epochs = len(snapshot.trials.seed), len(snapshot.seconds)
    if num_trials > len(ledger.epochs_done) or num_epochs > ledger.num_epochs:
        raise ValueError(f"{num_trials} trials, {num_epochs} epochs are more than there are")
    num_layers = ledger.metrics["kernel_norm"].shape[-1]
    sizes = {"epoch": num_epochs, "layer": num_layers, "magnitude": len(MAGNITUDES)}
    for name, values in (snapshot.metrics | (snapshot.test or {})).items():
        if values.shape != (num_trials, *(sizes[dim] for dim in METRICS[name].dims)):
            raise ValueError(f"{name} of another number of trials, epochs or layers")
    if {values.shape for values in jax.tree.leaves(snapshot.trials)} != {(num_trials,)}:
        raise ValueError("unequal numbers of trials")
