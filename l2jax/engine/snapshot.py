"""How far the trials of a sweep have come, as arrays on the host that another process can take over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from l2jax.trial.magnitudes import MIDDLES
from l2jax.trial.train import Evaluation, TrainState, Trial

Tree = TypeVar("Tree")


class Epoch(NamedTuple):
    """An epoch that a chunk of trials has finished."""

    epoch: int
    """Counted from 1."""
    trials: tuple[int, ...]
    """Which trials, in the order of `Sweep.axes`, the last axis fastest; all of them, if they fit the memory."""
    metrics: dict[str, np.ndarray]
    """Each (len(trials),), `kernel_norm` (len(trials), layers); NaN where the trial has diverged."""
    seconds: float
    """Of training; evaluation is apart."""
    examples_per_second: float
    """Trial-examples: examples trained, times trials."""


class Progress(NamedTuple):
    """All that is known of some trials, n of them, after the same number of epochs: enough to train them on."""

    trials: Trial
    """(n,): they are recognised by their values, so that a larger sweep can take them over."""
    metrics: dict[str, np.ndarray]
    """(n, epochs, ...)."""
    seconds: np.ndarray
    """(epochs,), of training: these trials' share."""
    tested: Evaluation | None
    """(n,), where they have come to the last epoch."""
    state: dict[str, np.ndarray]
    """(n, ...), by path in `TrainState`, as in "params/dense/bias"."""


def progress_of(
    which: Sequence[int], trials: Trial, history: Iterable[Epoch], tested: Evaluation | None, state: TrainState
) -> Progress:
    """Collects what is known of the trials `which` out of all `trials`; `state` is theirs alone."""
    row_of = {trial: row for row, trial in enumerate(which)}
    parts = []
    for epoch in history:
        if ours := [row for row, trial in enumerate(epoch.trials) if trial in row_of]:
            parts.append((epoch, ours, [row_of[epoch.trials[row]] for row in ours]))
    num_epochs = max(epoch.epoch for epoch, *_ in parts)
    metrics = {
        name: np.empty((len(which), num_epochs, *values.shape[1:]), values.dtype)
        for name, values in parts[0][0].metrics.items()
    }
    seconds = np.zeros(num_epochs)
    for epoch, ours, rows in parts:
        for name, values in epoch.metrics.items():
            metrics[name][rows, epoch.epoch - 1] = values[ours]
        seconds[epoch.epoch - 1] += epoch.seconds * len(ours) / len(epoch.trials)
    return Progress(rows_of(trials, which), metrics, seconds, tested, _by_path(state))


def part_of(progress: Progress, rows: Sequence[int]) -> Progress:
    """The progress of some of its trials."""
    share = len(rows) / len(progress.trials.l2)
    part = rows_of(progress._replace(seconds=np.empty(0)), rows) if share < 1 else progress
    return part._replace(seconds=progress.seconds * share)


def places_of(some: Trial, trials: Trial) -> list[int]:
    """Where each of some trials is among all `trials`; raises KeyError where it is not."""
    place_of = {values: place for place, values in enumerate(tuples_of(trials))}
    return [place_of[values] for values in tuples_of(some)]


def state_of(progress: Progress, like: TrainState) -> TrainState:
    """The state as a pytree.

    Args:
      like: the shapes of one trial's state.

    Raises:
      ValueError: for the state of another network or optimizer.
    """
    expected, given, num_trials = _by_path(like), progress.state, len(progress.trials.l2)
    if expected.keys() != given.keys() or any(
        (given[path].shape, given[path].dtype) != ((num_trials, *leaf.shape), leaf.dtype)
        for path, leaf in expected.items()
    ):
        raise ValueError("the state of another network or optimizer")
    return jax.tree.unflatten(jax.tree.structure(like), [given[path] for path in expected])


def check_progress(progress: Progress, like: TrainState, most_trials: int, most_epochs: int, num_layers: int) -> None:
    """Raises ValueError for progress whose arrays do not fit each other, `like`, or a sweep of so many trials."""
    state_of(progress, like)
    num_trials, num_epochs = len(progress.trials.l2), len(progress.seconds)
    if num_trials > most_trials or num_epochs > most_epochs:
        raise ValueError(f"{num_trials} trials, {num_epochs} epochs are more than there are")
    of_trials = {values.shape for values in (*progress.trials, *jax.tree.leaves(progress.tested))}
    of_epochs = {values.shape for values in progress.metrics.values()}
    curve = num_trials, num_epochs
    known = of_trials <= {(num_trials,), (num_trials, len(MIDDLES))} and of_epochs <= {curve, (*curve, num_layers)}
    if not known:
        raise ValueError("metrics of unequal numbers of trials or epochs")


def rows_of(tree: Tree, rows: Sequence[int]) -> Tree:
    """Those rows of every array of a pytree."""
    return jax.tree.map(lambda values: values[list(rows)], tree)


def each_of(tree: Tree) -> list[Tree]:
    """The trials of a pytree of arrays (n, ...), one by one."""
    leaves, structure = jax.tree.flatten(tree)
    return [jax.tree.unflatten(structure, row) for row in zip(*leaves, strict=True)]


def stacked(trees: Sequence[Tree]) -> Tree:
    return jax.tree.map(lambda *values: np.stack(values), *trees)


def _by_path(tree: Any) -> dict[str, Any]:
    """Leaves by path; Flax ends those of variables in "value", which says nothing."""
    paths = (
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in jax.tree.leaves_with_path(tree)
    )
    return {path.removesuffix("/value"): leaf for path, leaf in paths}


def tuples_of(trials: Trial) -> list[tuple]:
    return list(zip(*(values.tolist() for values in trials), strict=True))
