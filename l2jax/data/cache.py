"""Caches of decoded images: an .npz file that is used as long as the files that it was made from stay the same."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from l2jax.atomic import open_whole
from l2jax.data.formats import READ_ERRORS


def cache_folder() -> Path:
    """The folder of l2jax among this machine's caches: in $XDG_CACHE_HOME, else ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "l2jax"


def read_cache(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """Reads cached arrays; None if there are none, or they have another fingerprint, or are damaged."""
    # zipfile checks sums as it reads. The names are stored, too, because a damaged directory may lose a few.
    with contextlib.suppress(*READ_ERRORS), path.open("rb") as content, np.load(content, allow_pickle=False) as file:
        if file["fingerprint"].item() == fingerprint:
            return {name: file[name] for name in file["names"].tolist()}
    return None


def write_cache(path: Path, fingerprint: str, arrays: dict[str, Any]) -> None:
    """Writes arrays, whole or not at all; not where the folder is read-only or full."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_whole(path, by_several=True) as file:
            np.savez(file, fingerprint=np.array(fingerprint), names=np.array(list(arrays)), **arrays)
