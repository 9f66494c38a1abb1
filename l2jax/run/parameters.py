"""The trained parameters that are kept when a run has ended: those of the best trial, or of all."""

from __future__ import annotations

import io

import numpy as np

from l2jax.engine.grid import find_trials, tree_take, trial_keys
from l2jax.engine.snapshot import Snapshot
from l2jax.engine.sweep import Sweep
from l2jax.results.results import Results
from l2jax.run.checkpoint import Checkpoints


def params_file(keep: str, results: Results, sweep: Sweep, checkpoints: Checkpoints) -> bytes:
    """The content of best_params.npz or all_params.npz: arrays by path, such as "dense/bias".

    Arrays of all trials have a leading axis, in the order of summary.csv, and are NaN where nothing is trained yet.

    Raises:
      ValueError: if no trial has finished without diverging, so that none is the best.
      OSError: if no checkpoint of the best trial is left.
    """
    content = io.BytesIO()
    params = _best(results, sweep, checkpoints) if keep == "best" else _all(sweep, checkpoints)
    np.savez(content, allow_pickle=False, **params)
    return content.getvalue()


def _best(results: Results, sweep: Sweep, checkpoints: Checkpoints) -> dict[str, np.ndarray]:
    best = results.best_trial()
    index = np.ravel_multi_index(
        [values.index(best.get(name, values[0])) for name, values in sweep.axes.items()],
        [len(values) for values in sweep.axes.values()],
    )
    trial = tree_take(sweep.setup.trials, [int(index)])
    for snapshot, _ in checkpoints.load(sweep.check_snapshot, lambda _: None, trial=trial_keys(trial)[0]):
        row = find_trials(trial, snapshot.trials)[0]
        return {path: values[row] for path, values in _params(snapshot).items()}
    raise OSError("no checkpoint of the best trial is left")


def _all(sweep: Sweep, checkpoints: Checkpoints) -> dict[str, np.ndarray]:
    params: dict[str, np.ndarray] = {}
    filled = np.zeros(sweep.num_trials, bool)
    for snapshot, _ in checkpoints.load(sweep.check_snapshot, lambda _: None):  # the latest first
        indices = np.array(find_trials(snapshot.trials, sweep.setup.trials))
        new = ~filled[indices]
        filled[indices] = True
        for path, values in _params(snapshot).items():
            array = params.setdefault(path, np.full((len(filled), *values.shape[1:]), np.nan, values.dtype))
            array[indices[new]] = values[new]
    return params


def _params(snapshot: Snapshot) -> dict[str, np.ndarray]:
    prefix = "params/"
    return {path.removeprefix(prefix): values for path, values in snapshot.state.items() if path.startswith(prefix)}
