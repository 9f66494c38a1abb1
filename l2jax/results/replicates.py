"""Replicates, which are the trials that repeat a setting: along the dimensions `seed` and `fold`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from l2jax.results.metrics import REPLICATES

if TYPE_CHECKING:
    import xarray as xr


def flatten_replicates(values: xr.DataArray, settings: Sequence[str], *last: str) -> np.ndarray:
    """Values as a plain array, with the replicates of each setting along one axis.

    Args:
      values: any dimensions, all of which are replicates, in `settings`, or in `last`.
      settings: the dimensions that make up a setting, such as ["l2"]; the last one varies fastest.
      *last: dimensions to keep at the end, such as "epoch".

    Returns:
      (settings, trials, *last). The trials are in the order of `replicate_labels`. Booleans stay booleans, and other
      values become float64.
    """
    replicates = [name for name in REPLICATES if name in values.dims]
    ordered = values.transpose(*settings, *replicates, *last)
    num_settings = math.prod(values.sizes[name] for name in settings)
    flat = ordered.values.reshape(num_settings, -1, *(values.sizes[name] for name in last))
    return flat if flat.dtype == bool else flat.astype(np.float64)


def replicate_labels(data: xr.Dataset) -> list[str]:
    """Names of the replicates of a setting, such as "seed 0, fold 1", in the order of `flatten_replicates`."""
    replicates = [name for name in REPLICATES if name in data.dims]
    values = itertools.product(*(data[name].values for name in replicates))
    return [", ".join(f"{name} {value}" for name, value in zip(replicates, trial, strict=True)) for trial in values]
