"""Does L2 regularisation stop a CNN from overfitting, and how strong should it be? All strengths trained at once.

results = l2jax.sweep([0, 1e-3, 1e-2], seeds=3, dataset="mnist_small")
results.best()
l2jax.plot.validation_curve(results)
"""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from l2jax import forks as forks  # at once: it has to be there when the process is forked

if TYPE_CHECKING:
    __version__: str
    from l2jax import ops as ops
    from l2jax import plot as plot
    from l2jax import report as report
    from l2jax import stats as stats
    from l2jax.config import SweepConfig as SweepConfig
    from l2jax.data.dataset import Dataset as Dataset
    from l2jax.data.dataset import load_dataset as load_dataset
    from l2jax.engine.sweep import Sweep as Sweep
    from l2jax.errors import InputError as InputError
    from l2jax.network.cnn import CNN as CNN
    from l2jax.results.results import Results as Results
    from l2jax.run.api import sweep as sweep
    from l2jax.run.loading import load_results as load_results

__all__ = (
    "CNN",
    "Dataset",
    "InputError",
    "Results",
    "Sweep",
    "SweepConfig",
    "load_dataset",
    "load_results",
    "ops",
    "plot",
    "report",
    "stats",
    "sweep",
)

# Imported when first used (SPEC 1 of Scientific Python): `--help` and reading results need not wait for JAX.
_MODULES = {
    "CNN": "l2jax.network.cnn",
    "Dataset": "l2jax.data.dataset",
    "InputError": "l2jax.errors",
    "Results": "l2jax.results.results",
    "Sweep": "l2jax.engine.sweep",
    "SweepConfig": "l2jax.config",
    "load_dataset": "l2jax.data.dataset",
    "load_results": "l2jax.run.loading",
    "sweep": "l2jax.run.api",
}
_RENAMED = {"InvalidInput": "InputError"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("l2jax")
    if name in _RENAMED:
        warnings.warn(f"l2jax.{name} is now l2jax.{_RENAMED[name]}", DeprecationWarning, stacklevel=2)
        name = _RENAMED[name]
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    if name in __all__:
        return importlib.import_module(f"l2jax.{name}")
    raise AttributeError(f"module 'l2jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
