"""The trained parameters that stay when a run has ended: of the best trial, or of all."""

from __future__ import annotations

import io

import numpy as np

from l2jax.engine.snapshot import Progress, places_of, rows_of, tuples_of
from l2jax.engine.sweep import Sweep
from l2jax.results.results import Results
from l2jax.run.checkpoint import Checkpoints


def params_file(keep: str, results: Results, sweep: Sweep, checkpoints: Checkpoints) -> bytes:
    """The content of best_params.npz or all_params.npz: arrays by path, as in "dense/bias".

    Those of all trials have a leading axis, in the order of summary.csv, and are NaN where none are trained yet.

    Raises:
      ValueError: where no trial has finished without diverging, so that none is the best.
      OSError: where no checkpoint of the best trial is left.
    """
    content = io.BytesIO()
    params = _best(results, sweep, checkpoints) if keep == "best" else _all(sweep, checkpoints)
    np.savez(content, allow_pickle=False, **params)
    return content.getvalue()


def _best(results: Results, sweep: Sweep, checkpoints: Checkpoints) -> dict[str, np.ndarray]:
    best = results.best_trial()
    place = np.ravel_multi_index(
        [values.index(best.get(name, values[0])) for name, values in sweep.axes.items()],
        [len(values) for values in sweep.axes.values()],
    )
    trial = rows_of(sweep.trials, [int(place)])
    for progress, _ in checkpoints.load(sweep.check, lambda _: None, tuples_of(trial)[0]):
        row = places_of(trial, progress.trials)[0]
        return {path: values[row] for path, values in _params(progress).items()}
    raise OSError("no checkpoint of the best trial is left")


def _all(sweep: Sweep, checkpoints: Checkpoints) -> dict[str, np.ndarray]:
    params: dict[str, np.ndarray] = {}
    seen = np.zeros(sweep.num_trials, bool)
    for progress, _ in checkpoints.load(sweep.check, lambda _: None):  # the last one first
        places = np.array(places_of(progress.trials, sweep.trials))
        new = ~seen[places]
        seen[places] = True
        for path, values in _params(progress).items():
            of_all = params.setdefault(path, np.full((len(seen), *values.shape[1:]), np.nan, values.dtype))
            of_all[places[new]] = values[new]
    return params


def _params(progress: Progress) -> dict[str, np.ndarray]:
    prefix = "params/"
    return {path.removeprefix(prefix): values for path, values in progress.state.items() if path.startswith(prefix)}
