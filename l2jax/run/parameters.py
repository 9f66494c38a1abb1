"""The trained parameters that are kept when a sweep has ended: those of the best trial, or of all."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from l2jax.checkpoint.checkpoints import Checkpoints
from l2jax.engine.chunk import trial_on_host
from l2jax.engine.compile import abstract_state
from l2jax.engine.grid import find_trials, tree_take, tree_unstack, trial_keys
from l2jax.engine.ledger import Ledger
from l2jax.engine.snapshot import Snapshot, restore_state, take_rows
from l2jax.engine.sweep import Sweep
from l2jax.network.network import by_path
from l2jax.results.metrics import REPLICATES
from l2jax.results.parameters import Arrays, trial_grid, trial_index
from l2jax.results.results import Results
from l2jax.trial.optimizer import evaluation_params
from l2jax.trial.train import TrainState

FindCheckpoints = Callable[[int | None], Iterable[Checkpoints]]
"""The places that have checkpoints of the trial at an index; None: of any trial."""


def params_file(keep: str, results: Results, sweep: Sweep, find_checkpoints: FindCheckpoints) -> bytes:
    """The content of best_params.npz or all_params.npz: arrays by path, such as "dense/bias".

    Arrays of all trials have a leading axis, in the order of summary.csv, and are NaN where nothing is trained yet.

    Raises:
      ValueError: if no trial has finished without diverging, so that none is the best.
      OSError: if no checkpoint of the best trial is left.
    """
    content = io.BytesIO()
    if keep == "best":
        index = trial_index(trial_grid(results.data), results.best_trial())
        arrays = arrays_of(index, sweep, find_checkpoints)
    else:
        arrays = arrays_of_all(sweep, find_checkpoints)
    np.savez(content, allow_pickle=False, **arrays)
    return content.getvalue()


def keep_trained(kept: Mapping[int, Arrays], sweep: Sweep, keep: str) -> dict[int, Arrays]:
    """The arrays to keep in memory after a chunk's last epoch, by the index of the trial.

    Args:
      kept: those kept before.
      keep: "all", or "best" for no more than what may turn out to be the best trial.
    """
    assert sweep.chunk
    num_replicates = math.prod(len(sweep.axes[name]) for name in REPLICATES)  # the last axes, the fastest
    wanted = may_be_best(sweep.ledger, num_replicates) if keep == "best" else range(sweep.num_trials)
    new = {
        index: trained_arrays(trial_on_host(sweep.chunk, row))
        for row, index in enumerate(sweep.chunk.indices)
        if index in wanted
    }
    return {index: arrays for index, arrays in {**kept, **new}.items() if index in wanted}


def may_be_best(ledger: Ledger, num_replicates: int) -> set[int]:
    """The finished trials among which `Results.best_trial` is, whatever the others do; rarely more than three.

    These are the lowest of all, should each setting have a diverged trial, and the lowest of each setting that is not
    finished, or whose mean is the lowest so far.
    """
    finished = (ledger.epochs_done == ledger.num_epochs).reshape(-1, num_replicates)
    last = ledger.metrics["val_loss"][:, ledger.num_epochs - 1].astype(np.float64)  # as the results average it
    losses = np.where(finished.ravel(), last, np.nan).reshape(finished.shape)
    lowest = np.where(np.isnan(losses), np.inf, losses).argmin(1) + num_replicates * np.arange(len(losses))
    means = np.where(finished.all(1), losses.mean(1), np.nan)
    best_mean = np.fmin.reduce(means, initial=np.inf)
    # Means that differ by rounding alone are all candidates: the results may sum in another order.
    in_question = (finished.any(1) & ~finished.all(1)) | (means <= best_mean * (1 + 1e-9))
    overall = [int(np.nanargmin(losses))] if np.isfinite(losses).any() else []
    return {int(index) for index in lowest[in_question] if np.isfinite(losses.ravel()[index])} | {*overall}


def trained_arrays(state: TrainState) -> Arrays:
    """The arrays of one trial by path: its parameters for evaluation and the state of its network.

    Types that NumPy's files cannot hold, such as bfloat16, become float32, which holds all their values.
    """
    arrays = by_path(evaluation_params(state.params, state.opt_state)) | by_path(state.model_state)
    return {path: _for_file(np.asarray(values)) for path, values in arrays.items()}


def _for_file(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32) if values.dtype.kind == "V" else values


def arrays_of(index: int, sweep: Sweep, find_checkpoints: FindCheckpoints) -> Arrays:
    """The arrays of one trial by path, as `trained_arrays`; raises OSError if no checkpoint of it is left."""
    trial = tree_take(sweep.setup.trials, [index])
    key = trial_keys(trial)[0]
    latest: Snapshot | None = None
    for checkpoints in find_checkpoints(index):
        for snapshot, _ in checkpoints.load(sweep.check_snapshot, lambda _: None, trial=key):
            if key in trial_keys(snapshot.trials):
                if latest is None or len(snapshot.seconds) > len(latest.seconds):
                    latest = snapshot
                break
    if latest is None:
        raise OSError("no checkpoint of the trial is left")
    row = find_trials(trial, latest.trials)
    return trained_arrays(_states(take_rows(latest, row), sweep)[0])


def arrays_of_all(sweep: Sweep, find_checkpoints: FindCheckpoints) -> Arrays:
    """The arrays of all trials by path, with a leading axis, NaN where nothing is trained yet."""
    arrays: Arrays = {}
    epochs_done = np.zeros(sweep.num_trials, int)
    for checkpoints in find_checkpoints(None):
        for snapshot, _ in checkpoints.load(sweep.check_snapshot, lambda _: None):
            num_epochs, indices = len(snapshot.seconds), find_trials(snapshot.trials, sweep.setup.trials)
            for index, state in zip(indices, _states(snapshot, sweep), strict=True):
                if epochs_done[index] < num_epochs:
                    _fill(arrays, index, trained_arrays(state), len(epochs_done))
                    epochs_done[index] = num_epochs
    return arrays


def _fill(arrays: Arrays, index: int, of_trial: Arrays, num_trials: int) -> None:
    for path, values in of_trial.items():
        missing = np.nan if np.issubdtype(values.dtype, np.inexact) else 0
        array = arrays.setdefault(path, np.full((num_trials, *values.shape), missing, values.dtype))
        array[index] = values


def _states(snapshot: Snapshot, sweep: Sweep) -> list[TrainState]:
    return tree_unstack(restore_state(snapshot, abstract_state(sweep.setup)))
