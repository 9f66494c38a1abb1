"""Does L2 regularisation stop a CNN from overfitting, and how strong should it be? All strengths trained at once."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from l2jax.config import InvalidInput as InvalidInput
    from l2jax.config import SweepConfig as SweepConfig
    from l2jax.data import Dataset as Dataset
    from l2jax.data import load_dataset as load_dataset
    from l2jax.engine import Sweep as Sweep
    from l2jax.engine import sweep as sweep
    from l2jax.model import CNN as CNN
    from l2jax.results import Results as Results
    from l2jax.results import load_results as load_results

# Imported when first used: JAX takes seconds, which `--help` and the reading of results need not wait for.
_HOMES = {
    "CNN": "model",
    "Dataset": "data",
    "InvalidInput": "config",
    "Results": "results",
    "Sweep": "engine",
    "SweepConfig": "config",
    "load_dataset": "data",
    "load_results": "results",
    "sweep": "engine",
}
_MODULES = ("ops", "plot", "report", "stats")
__all__ = sorted([*_HOMES, *_MODULES])  # pyright: ignore[reportUnsupportedDunderAll]: it reads the names above


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"l2jax.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'l2jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"l2jax.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
