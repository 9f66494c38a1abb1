"""The ledger of a sweep becomes labelled arrays."""

from __future__ import annotations

import numpy as np
import xarray as xr

from l2jax.engine.ledger import AFTER_EPOCHS, AT_THE_END, Ledger
from l2jax.results.metrics import MAGNITUDES, METRICS
from l2jax.results.results import Results


def collect(ledger: Ledger, axes: dict[str, tuple], layers: tuple[str, ...], config: dict) -> Results:
    """The results of the epochs that are complete; what is not trained yet is NaN.

    Args:
      axes: values by name; trials are in the order of their product, the last axis fastest.
      layers: the names of the layers that have a kernel.
      config: what made the results, JSON values.

    Raises:
      ValueError: if no epoch is complete.
    """
    num_epochs = int(ledger.epochs_done.max())
    if not num_epochs:
        raise ValueError("results without a finished epoch")
    diverged = ledger.diverged
    values = {}
    for name in AFTER_EPOCHS:
        values[name] = ledger.metrics[name][:, :num_epochs].astype(np.float64)
    for name in AT_THE_END:
        values[name] = ledger.metrics[name].astype(np.float64)
        values[name][diverged | ~ledger.tested] = np.nan
    val_loss = values["val_loss"]
    lowest = np.where(np.isnan(val_loss), np.inf, val_loss).argmin(-1) + 1
    values["diverged"] = diverged
    values["diverged_epoch"] = np.where(diverged, np.isfinite(val_loss).sum(-1) + 1, 0)
    values["best_epoch"] = np.where(np.isnan(val_loss).all(-1), 0, lowest)

    grid = tuple(len(axis) for axis in axes.values())
    variables = {
        name: ((*axes, *metric.dims), values[name].reshape(*grid, *values[name].shape[1:]))
        for name, metric in METRICS.items()
    }
    coords = {name: list(axis) for name, axis in axes.items()} | {"layer": list(layers)}
    data = xr.Dataset(variables, coords | {"epoch": np.arange(1, num_epochs + 1), "magnitude": MAGNITUDES})
    single = [name for name, axis in axes.items() if len(axis) == 1 and name not in ("l2", "seed")]
    return Results(data.squeeze(single).drop_vars("fold" if "fold" in single else []), config)
