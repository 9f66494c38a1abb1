"""The description of a sweep in config.json, for a reader who wants to run it again."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from l2jax.engine.setup import Setup
from l2jax.engine.tuning import Tuning

PACKAGES = ("l2jax", "jax", "jaxlib", "flax", "optax", "numpy")


class Computation(NamedTuple):
    """The way in which a sweep is computed. The same computation gives bitwise the same results on the same devices."""

    trials_at_once: int
    tuning: Tuning


def describe(setup: Setup, computation: Computation | None, seconds: dict[str, float]) -> dict[str, Any]:
    """The description as JSON values; `computation` is None while the sweep is not compiled."""
    device = setup.mesh.devices.flat[0]
    return {
        "sweep": dataclasses.asdict(setup.config),
        "model": setup.model_name,
        "num_params": setup.num_params,
        "num_trials": len(setup.trials.seed),
        "data_sha256": setup.dataset.digest,
        "working_folder": working_folder(),
        "warnings": list(setup.warnings),
        "trials_at_once": computation and computation.trials_at_once,
        "tuning": computation and computation.tuning._asdict(),
        "device": device.device_kind,
        "num_devices": setup.mesh.size,
        "platform": platform.platform(),
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in PACKAGES},
        "seconds": seconds,
    }


def working_folder() -> str | None:
    """Where relative paths begin; None in a folder that is deleted."""
    with contextlib.suppress(OSError):
        return str(Path.cwd())
    return None


def described_computation(description: Mapping[str, Any], setup: Setup) -> Computation | None:
    """The computation in a description, if this sweep has the same trials, devices and options; otherwise None."""
    now, config = describe(setup, None, {}), description["sweep"]
    same = all(description[name] == now[name] for name in ("num_trials", "device", "num_devices"))
    same &= all(config[name] == now["sweep"][name] for name in ("trials_at_once", "autotune"))
    return Computation(description["trials_at_once"], Tuning(**description["tuning"])) if same else None


def described_data(description: Mapping[str, Any]) -> str:
    """The SHA-256 of the examples that a described sweep was trained on; version 0.1 called it `data`."""
    return description["data_sha256"] if "data_sha256" in description else description["data"]
