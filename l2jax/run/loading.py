"""`l2jax.load_results`: results with the trained networks of a run folder. JAX is loaded when a network is made."""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import Any

from l2jax.config import SweepConfig
from l2jax.errors import InvalidInputError
from l2jax.results.files import BUILT_IN
from l2jax.results.parameters import Arrays, Kept, params_in_folder, trial_grid, trial_index
from l2jax.results.results import Results
from l2jax.results.results import load_results as read_results


def load_results(run_dir: str | os.PathLike[str]) -> Results:
    """Reads the results of a run folder.

    `Results.params` reads the trained parameters when it is called.

    Raises:
      InputError: if the files are missing or damaged.
    """
    return with_folder(read_results(run_dir), run_dir)


def with_folder(results: Results, run_dir: str | os.PathLike[str], model: Any = None) -> Results:
    """The results with the trained parameters that are in a run folder, and with the network, if it is known."""
    grid = trial_grid(results.data)
    read = params_in_folder(run_dir, results.data["diverged"].size, functools.partial(best_index, results))
    return dataclasses.replace(results, kept=Kept(grid, read, build_network, model))


def best_index(results: Results) -> int | None:
    """The index of the best trial; None if no trial has finished without diverging."""
    try:
        return trial_index(trial_grid(results.data), results.best_trial())
    except ValueError:
        return None


def build_network(model: Any, arrays: Arrays, config: dict) -> Any:
    """The Flax module of a trial, as `Kept.build`.

    Raises:
      InputError: if the network is not known, or another one.
    """
    if model is None and (config.get("model") not in BUILT_IN or "image_shape" not in config):
        name = "l2jax.CNN of this size" if config.get("model") in BUILT_IN else config["model"]
        raise InvalidInputError("model", "none", f"the network that was trained, as in network(model=...): {name}")
    from l2jax.network.trained import trained_network  # JAX takes a second to import

    return trained_network(
        model,
        arrays,
        image_shape=tuple(config.get("image_shape", ())),
        num_classes=config.get("num_classes", 0),
        hyperparameters=SweepConfig(**config["sweep"]).values,
    )
