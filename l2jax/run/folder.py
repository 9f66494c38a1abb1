"""Folders that a run makes."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

from l2jax.errors import InvalidInputError, reason


def make_run_dir(run_dir: Path | None) -> Path:
    """Makes the folder of a run; None: a new one in runs/, named after the date and time.

    Raises:
      InputError: if it cannot be made, or not be written to.
    """
    if run_dir:
        make_folder("run_dir", run_dir)
        return run_dir
    path, number = Path("runs", f"{datetime.datetime.now():%Y-%m-%d_%H-%M-%S}"), 1
    while True:
        try:
            make_folder("run_dir", path, exist_ok=False)
            return path
        except FileExistsError:  # another run began in this second
            number += 1
            path = path.with_name(f"{path.name.partition('_run')[0]}_run{number}")


def make_folder(option: str, path: Path, exist_ok: bool = True) -> None:
    """Makes a folder that can be written to.

    Raises:
      InputError: if it cannot be made, or not be written to.
      FileExistsError: if it exists, unless that is `exist_ok`.
    """
    try:
        path.mkdir(parents=True, exist_ok=exist_ok)
    except OSError as error:
        if isinstance(error, FileExistsError) and not exist_ok:
            raise
        raise InvalidInputError(option, path, f"a folder that can be written ({reason(error)})") from None
    if not os.access(path, os.W_OK):
        raise InvalidInputError(option, path, "a folder that can be written")
