"""The trained parameters that were kept: which trial is meant, and where its arrays are."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from l2jax.errors import InvalidInputError, UnusableFileError, reason
from l2jax.hyperparameters import listed

if TYPE_CHECKING:  # xarray takes a second to import: `--help` should not wait for it
    import xarray as xr

Arrays = dict[str, np.ndarray]
"""One trial's parameters and state by path, such as "dense/kernel"."""
Read = Callable[[int], Arrays | None]
"""The arrays of a trial by its index; None if they were not kept."""
Stamp = tuple[int, ...] | None
BEST, ALL = "best_params.npz", "all_params.npz"
"""The files of a run folder: arrays of the best trial; arrays of all trials, with one more axis in front."""
TOLERANCE = 0.005
"""How far a value may be from the one that is meant, as a part of it: what three digits, as in tables, round away."""


@dataclasses.dataclass(frozen=True)
class Kept:
    """The trained parameters that were kept.

    Attributes:
      grid: the values of each dimension; trials are in the order of their product, the last one fastest.
      read: gives the arrays of a trial.
      build: makes the Flax module of a trial: (model or None, its arrays, config of the results) to a module.
      model: the network that was trained, if it was a person's own, and is known.
    """

    grid: dict[str, list]
    read: Read
    build: Callable[[Any, Arrays, dict], Any]
    model: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the model, which is often a function that cannot be pickled."""
        return vars(self) | {"model": None}


def trial_grid(data: xr.Dataset) -> dict[str, list]:
    """The values of each dimension of the trials, in the order of these dimensions."""
    return {str(name): data[name].values.tolist() for name in data["diverged"].dims}


def trial_index(grid: Mapping[str, Sequence], trial: Mapping[str, float]) -> int:
    """The index of a trial in the product of the dimensions."""
    position = [list(values).index(trial[name]) for name, values in grid.items()]
    return int(np.ravel_multi_index(position, [len(values) for values in grid.values()]))


def choose_trial(data: xr.Dataset, chosen: Mapping[str, float]) -> dict[str, float]:
    """The one trial that some of its values name.

    Args:
      chosen: values by name. A number that is no integer may differ by `TOLERANCE`; the nearest one is taken.

    Returns:
      All values of the trial, those that are the same for all trials included.

    Raises:
      InputError: for a name or value that there is not, or if several trials have these values.
    """
    known = {str(name): np.atleast_1d(values.values) for name, values in data["diverged"].coords.items()}
    for name, value in chosen.items():
        if name not in known:
            raise InvalidInputError(name, value, f"values of {', '.join(known)}")
    return {name: _choose(name, values, chosen.get(name, "")) for name, values in known.items()}


def kept_params(kept: Kept | None, data: xr.Dataset, chosen: Mapping[str, float]) -> Arrays:
    """The arrays of the trial that some of its values name, as `Results.params` gives them.

    Raises:
      InputError: as `choose_trial`, and if nothing is trained or was kept of the trial.
    """
    trial = choose_trial(data, chosen)
    position = {str(name): trial[str(name)] for name in data["diverged"].dims}
    words = ", ".join(f"{name}={value:g}" for name, value in position.items())
    if kept is None:
        raise InvalidInputError("params", "results alone", "those that l2jax.sweep or l2jax.load_results returned")
    outcome = data[["best_epoch", "diverged"]].sel(position)
    if not outcome["best_epoch"] and not outcome["diverged"]:
        raise InvalidInputError("params", words, "a trial that has finished an epoch")
    arrays = kept.read(trial_index(kept.grid, trial))
    if arrays is None:
        raise InvalidInputError("params", words, 'the best trial alone; after sweep(..., keep="all") every trial')
    return arrays


def _choose(name: str, values: np.ndarray, value: object) -> float:
    if value == "" and len(values) == 1:
        return values[0].item()
    tolerance = 0 if np.issubdtype(values.dtype, np.integer) else TOLERANCE
    try:
        distances = np.abs(values - float(value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        distances = np.full(len(values), np.inf)
    nearest = int(np.where(np.isnan(distances), np.inf, distances).argmin())
    if not distances[nearest] <= tolerance * abs(values[nearest]):
        most, last = listed(values[:-1], ", "), f"{values[-1]:g}"
        raise InvalidInputError(name, value, " or ".join(filter(None, [most, last])))
    return values[nearest].item()


def params_in_folder(run_dir: str | os.PathLike[str], num_trials: int, best: Callable[[], int | None]) -> Read:
    """Reads the arrays of trials from a run folder, when they are asked for.

    Args:
      best: gives the index of the best trial; None if no trial has finished without diverging.

    Returns:
      A function that raises InputError for a damaged file, and for one that was written again meanwhile, since its
      trials may be others.
    """
    folder = Path(run_dir).absolute()
    stamps = {name: _stamp(folder / name) for name in (BEST, ALL)}
    return functools.partial(_read, folder, stamps, num_trials, best)


def _read(
    folder: Path, stamps: dict[str, Stamp], num_trials: int, best: Callable[[], int | None], index: int
) -> Arrays | None:
    name = BEST if stamps[BEST] and index == best() else ALL
    if stamps[name] is None:
        return None
    path = folder / name
    if _stamp(path) != stamps[name]:
        raise UnusableFileError("run_dir", path, "it has changed since; l2jax.load_results reads the folder again")
    try:
        with path.open("rb") as file:  # NumPy would leave a damaged file open if it were given the path
            arrays = dict(np.load(file, allow_pickle=False))
        if name == BEST:
            return arrays
        if any(values.shape[:1] != (num_trials,) for values in arrays.values()):
            raise ValueError(f"arrays of another number of trials than {num_trials}")
    except Exception as error:  # NumPy's and zipfile's own
        raise UnusableFileError("run_dir", path, reason(error)) from error
    return {path: values[index] for path, values in arrays.items()}


def _stamp(path: Path) -> Stamp:
    """What changes when a file is written again; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
