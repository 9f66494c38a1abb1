"""Files of a run folder that hold the config and the results, and their formats."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l2jax.atomic import read_checked, write_with_sums
from l2jax.config import SweepConfig, is_dataset_path
from l2jax.errors import InvalidInputError, reason
from l2jax.results.metrics import RENAMED

if TYPE_CHECKING:  # xarray and pandas take a second to import: `--help` should not wait for them
    import pandas as pd
    import xarray as xr

CONFIG, DATA, SUMMARY = "config.json", "results.nc", "summary.csv"
BUILT_IN = (None, "cnn")
"""The network that comes with l2jax, as configs of this version and of older ones name it."""


def config_json(config: dict) -> bytes:
    """The content of config.json."""
    return (json.dumps(config, indent=2) + "\n").encode()


def read_config(run_dir: str | os.PathLike[str], option: str = "resume") -> SweepConfig:
    """Reads the sweep of a run folder.

    Args:
      option: that names the folder, for errors.

    Raises:
      InputError: if the folder does not hold one.
    """
    try:
        description = read_description(run_dir)
        return SweepConfig(**description["sweep"] | _found_again(description))
    except Exception as error:  # the JSON may have any form
        accepted = f"a run folder with the {CONFIG} of a sweep ({reason(error)})"
        raise InvalidInputError(option, run_dir, accepted) from error


def read_description(run_dir: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads config.json."""
    return json.loads(read_checked(Path(run_dir).expanduser(), CONFIG))


def _found_again(description: dict) -> dict[str, str]:
    """The data of a run, where they lay on a path relative to the folder in which it was started, and not to this."""
    sweep, folder, found = description["sweep"], description.get("working_folder"), {}
    for option in ("dataset", "data_dir"):
        path = sweep.get(option)
        is_path = path and (option == "data_dir" or is_dataset_path(path))
        if folder and is_path and not Path(path).expanduser().exists() and (moved := Path(folder, path)).exists():
            found[option] = str(moved)
    return found


def write_files(run_dir: str | os.PathLike[str], data: xr.Dataset, config: dict, summary: pd.DataFrame) -> None:
    """Writes config.json, results.nc (NetCDF 3), summary.csv and SHA256SUMS; makes the folder if there is none."""
    run_dir = Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    contents = {
        CONFIG: config_json(config),
        DATA: bytes(data.to_netcdf(engine="scipy")),
        SUMMARY: summary.to_csv(index=False).encode(),
    }
    write_with_sums(run_dir, contents)


def read_files(run_dir: str | os.PathLike[str]) -> tuple[xr.Dataset, dict]:
    """Reads results.nc and config.json. Metrics of older versions get their present names.

    Raises:
      Exception: of any type for missing or damaged files: scipy's parser fails on damage in many ways.
    """
    import xarray as xr

    config = read_description(run_dir)
    content = read_checked(Path(run_dir), DATA)  # xarray would leave a damaged file open if it were given the path
    data = xr.load_dataset(io.BytesIO(content), engine="scipy")
    return data.rename({old: new for old, new in RENAMED.items() if old in data}), config
