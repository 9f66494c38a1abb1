"""Statistics on results: estimates with intervals, paired comparisons, overfitting, and other methods."""

from __future__ import annotations

import warnings
from typing import Any

from l2jax.results.comparisons import (
    by_strength,
    compare,
    early_stopped,
    is_clear,
    magnitude_shares,
    methods,
    outcomes,
    summary,
)
from l2jax.results.estimates import (
    FEWEST_PAIRS,
    LEVEL,
    Estimate,
    differences_to_first,
    estimate,
    holm,
    nanmean,
    standard_error,
)
from l2jax.results.metrics import REPLICATES
from l2jax.results.replicates import replicate_labels

__all__ = (
    "FEWEST_PAIRS",
    "LEVEL",
    "REPLICATES",
    "Estimate",
    "by_strength",
    "compare",
    "differences_to_first",
    "early_stopped",
    "estimate",
    "holm",
    "is_clear",
    "magnitude_shares",
    "methods",
    "nanmean",
    "outcomes",
    "replicate_labels",
    "standard_error",
    "summary",
)

_RENAMED = {
    "DRAWS": "REPLICATES",
    "FEWEST": "FEWEST_PAIRS",
    "against_first": "differences_to_first",
    "mean_of": "nanmean",
}


def __getattr__(name: str) -> Any:
    if name not in _RENAMED:
        raise AttributeError(f"module 'l2jax.stats' has no attribute {name!r}")
    warnings.warn(f"l2jax.stats.{name} is now l2jax.stats.{_RENAMED[name]}", DeprecationWarning, stacklevel=2)
    return globals()[_RENAMED[name]]
