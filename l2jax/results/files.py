"""Files of a run folder that hold the config and the results, and their formats."""

from __future__ import annotations

import functools
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l2jax.atomic import Content, check_folder, read_checked, whole_folder, write_with_sums
from l2jax.config import SweepConfig, is_dataset_path
from l2jax.errors import InvalidInputError, reason
from l2jax.results.metrics import RENAMED

if TYPE_CHECKING:  # xarray and pandas take a second to import: `--help` should not wait for them
    import pandas as pd
    import xarray as xr

CONFIG, DATA, MANY, SUMMARY = "config.json", "results.nc", "results.zarr", "summary.csv"
LARGEST_NETCDF = 2**28
"""The most bytes of numbers for results.nc, which is made and read in memory as a whole, and which no variable of 2 GiB
fits; more go to results.zarr."""
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
    """Writes config.json, results.nc (NetCDF 3) or results.zarr, summary.csv and SHA256SUMS; makes the folder."""
    run_dir = Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_with_sums(
        run_dir,
        {
            CONFIG: config_json(config),
            **_numbers(data),
            SUMMARY: lambda path: summary.to_csv(path, index=False),  # row by row
        },
    )


def _numbers(data: xr.Dataset) -> dict[str, Content]:
    """The file or folder of all metrics, and then that there is none of the other kind."""
    if data.nbytes <= LARGEST_NETCDF:
        return {DATA: bytes(data.drop_encoding().to_netcdf(engine="scipy")), MANY: None}
    from l2jax.results.zarr_folder import write_zarr

    return {MANY: functools.partial(write_zarr, data), DATA: None}


def read_files(run_dir: str | os.PathLike[str]) -> tuple[xr.Dataset, dict]:
    """Reads config.json, and results.nc at once or results.zarr as it is needed. Metrics get their present names.

    Raises:
      Exception: of any type for missing or damaged files: scipy's parser fails on damage in many ways.
    """
    import xarray as xr

    run_dir = Path(run_dir)
    config, many = read_description(run_dir), whole_folder(run_dir / MANY)
    # Both are there if a process was killed after it wrote one, and before it removed the other.
    if many.exists() and not ((run_dir / DATA).exists() and _changed(run_dir / DATA) > _changed(many)):
        from l2jax.results.zarr_folder import read_zarr

        check_folder(run_dir, MANY)
        return read_zarr(many), config
    content = read_checked(run_dir, DATA)  # xarray would leave a damaged file open if it were given the path
    data = xr.load_dataset(io.BytesIO(content), engine="scipy")
    return data.rename({old: new for old, new in RENAMED.items() if old in data}), config


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns
