"""From the epochs of chunks of trials to labelled arrays over the whole sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from l2jax.engine.snapshot import Epoch
from l2jax.results.metrics import METRICS
from l2jax.results.results import Results
from l2jax.trial.magnitudes import MIDDLES
from l2jax.trial.train import Evaluation


def collect(
    axes: dict[str, tuple], history: Sequence[Epoch], tested: Mapping[tuple[int, ...], Evaluation], config: dict
) -> Results:
    """Results from the epochs of all chunks of trials, and from the chunks whose test part has been evaluated.

    Trials are in the order of the axes' product, the last axis fastest; but the last one of all is that of `layer`,
    which metrics may have. What has not been trained is NaN.
    """
    if not history:
        raise ValueError("results without a finished epoch")
    axes = axes.copy()
    layers: tuple[str, ...] = axes.pop("layer")
    grid = tuple(len(values) for values in axes.values())
    num_trials, num_epochs = math.prod(grid), max(epoch.epoch for epoch in history)
    curves = {
        name: np.full((num_trials, num_epochs, *values.shape[1:]), np.nan)
        for name, values in history[0].metrics.items()
    }
    sizes = {"test_loss": (), "test_accuracy": (), "kernel_magnitudes": (len(layers), len(MIDDLES))}
    per_trial: dict[str, np.ndarray] = {name: np.full((num_trials, *size), np.nan) for name, size in sizes.items()}
    diverged = np.zeros(num_trials, bool)
    for epoch in history:
        for name, values in epoch.metrics.items():
            curves[name][list(epoch.trials), epoch.epoch - 1] = values
        diverged[list(epoch.trials)] = np.isnan(epoch.metrics["val_loss"])
    for trials, evaluation in tested.items():
        per_trial["test_loss"][list(trials)] = evaluation.loss
        per_trial["test_accuracy"][list(trials)] = evaluation.accuracy
        magnitudes = [evaluation.magnitudes[layer] for layer in layers]
        per_trial["kernel_magnitudes"][list(trials)] = np.stack(magnitudes, axis=1)
    for values in per_trial.values():
        values[diverged] = np.nan
    val_loss = curves["val_loss"]
    lowest = np.where(np.isnan(val_loss), np.inf, val_loss).argmin(-1) + 1
    per_trial |= {"diverged": diverged, "diverged_epoch": np.where(diverged, np.isfinite(val_loss).sum(-1) + 1, 0)}
    per_trial |= {"best_epoch": np.where(np.isnan(val_loss).all(-1), 0, lowest)}

    variables = {
        name: ((*axes, *dims)[: len(grid) + values.ndim - 1], values.reshape(*grid, *values.shape[1:]))
        for dims, named in ((("epoch", "layer"), curves), (("layer", "magnitude"), per_trial))
        for name, values in named.items()
    }
    variables = {name: variables[name] for name in METRICS if name in variables}
    coords = {name: list(values) for name, values in axes.items()} | {"layer": list(layers)}
    data = xr.Dataset(variables, coords | {"epoch": np.arange(1, num_epochs + 1), "magnitude": MIDDLES})
    single = [name for name, values in axes.items() if len(values) == 1 and name not in ("l2", "seed")]
    return Results(data.squeeze(single).drop_vars("fold" if "fold" in single else []), config)
