"""The description of a sweep in config.json, for a reader who wants to run it again."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from l2jax.engine.setup import Setup
from l2jax.engine.tuning import Tuning
from l2jax.errors import InvalidInputError
from l2jax.results.files import BUILT_IN

PROGRAM = ("l2jax", "jax", "flax", "optax")
"""Packages on which the text of a program depends."""
PACKAGES = ("l2jax", "jax", "jaxlib", "flax", "optax", "numpy")


class Computation(NamedTuple):
    """The way in which a sweep is computed. The same computation gives bitwise the same results on the same devices.

    Attributes:
      trials_at_once: the size of a chunk.
      tuning: how the programs compute.
      device: the kind of device.
      num_devices: that a chunk is spread over.
      products: the precision of matrix products.
    """

    trials_at_once: int
    tuning: Tuning
    device: str
    num_devices: int
    products: str


def describe(setup: Setup, computation: Computation | None, seconds: dict[str, float]) -> dict[str, Any]:
    """The description as JSON values; `computation` is None while the sweep is not compiled."""
    device, num_devices, products = computation[2:] if computation else devices(setup)
    return {
        "sweep": dataclasses.asdict(setup.config),
        "model": setup.model_name,
        "code_sha256": dict(setup.code),
        "num_params": setup.num_params,
        "num_trials": len(setup.trials.seed),
        "image_shape": list(setup.dataset.images.shape[1:]),
        "num_classes": setup.dataset.num_classes,
        "data_sha256": setup.dataset.digest,
        "working_folder": working_folder(),
        "warnings": list(setup.warnings),
        "trials_at_once": computation and computation.trials_at_once,
        "tuning": computation and computation.tuning._asdict(),
        "products": products,
        "device": device,
        "num_devices": num_devices,
        "platform": platform.platform(),
        "versions": {"python": platform.python_version()} | {package: _version(package) for package in PACKAGES},
        "seconds": seconds,
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # l2jax in a folder on the path, such as a clone
        return "not installed"


def working_folder() -> str | None:
    """Where relative paths begin; None in a folder that is deleted."""
    with contextlib.suppress(OSError):
        return str(Path.cwd())
    return None


def devices(setup: Setup) -> tuple[str, int, str]:
    """The kind and number of this process's devices, and the precision of their products, as in `Computation`."""
    return setup.mesh.devices.flat[0].device_kind, setup.mesh.size, _products(setup)


def _products(setup: Setup) -> str:
    """The precision in which float32 numbers are multiplied in matrix products and convolutions.

    It is JAX's default for the device, unless bfloat16 or `jax_default_matmul_precision` asks for another.
    """
    if setup.config.bfloat16:
        return "bfloat16"
    asked = jax.config.values["jax_default_matmul_precision"]
    by_default = {"gpu": "tf32, where the device has it", "tpu": "bfloat16"}
    return asked or by_default.get(setup.mesh.devices.flat[0].platform, "float32")


def described_computation(
    description: Mapping[str, Any], setup: Setup, num_devices: int | None = None
) -> Computation | None:
    """The computation in a description, if this sweep has the same trials, devices and options; otherwise None.

    Args:
      num_devices: of a worker, where workers compute, whose devices are not known yet; None: this process does.
    """
    now, config = describe(setup, None, {}), description["sweep"]
    if not description["trials_at_once"] or description["num_trials"] != now["num_trials"]:
        return None
    same = all(config[name] == now["sweep"][name] for name in ("trials_at_once", "autotune"))
    device, own_number, products = devices(setup)
    if num_devices:
        device, products = description["device"], description["products"]
    num_devices = num_devices or own_number
    same &= (description["device"], description["num_devices"]) == (device, num_devices)
    tuning = Tuning(**description["tuning"])
    return Computation(description["trials_at_once"], tuning, device, num_devices, products) if same else None


def check_continues(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises InputError unless a sweep has the examples, the network and the optimizer of the one to resume.

    Networks and optimizers are compared by what they compute, if versions and the kind of device are the same.
    """
    if described_data(before) != now["data_sha256"]:
        accepted = "the examples that the run to resume was trained on"
        raise InvalidInputError("dataset", now["sweep"]["dataset"], accepted)
    for option, digest in now["code_sha256"].items():
        if before.get("code_sha256", {}).get(option) != digest:
            accepted = "the file with which the run to resume was trained, unchanged"
            raise InvalidInputError(option, now["sweep"][option], accepted)
    names = [_network(description) for description in (before, now)]
    if names[0] != names[1]:
        raise InvalidInputError("model", names[1], f"{names[0]}, as in the run to resume")
    versions = [{name: each["versions"].get(name) for name in PROGRAM} for each in (before, now)]
    if versions[0] != versions[1] or before["device"] != now["device"] or "program_sha256" not in before:
        return
    digests = [each["program_sha256"] or {} for each in (before, now)]
    changes = {
        "model": "the network of the run to resume, as it was",
        "optimizer": "that of the run to resume with its penalty, as they were; as many epochs if it names total_steps",
    }
    for option, accepted in changes.items():
        if digests[0].get(option) != digests[1].get(option):
            raise InvalidInputError(option, "one that computes something else", accepted)


def _network(description: Mapping[str, Any]) -> str:
    name = description["model"]
    return f"{'l2jax.CNN' if name in BUILT_IN else name} of {description['num_params']:,} parameters"


def described_data(description: Mapping[str, Any]) -> str:
    """The SHA-256 of the examples that a described sweep was trained on; version 0.1 called it `data`."""
    return description["data_sha256"] if "data_sha256" in description else description["data"]
