"""Data sets that tensorflow-datasets prepared: found, and read from a cache of their arrays."""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any

from l2jax.data.cache import read_cache, write_cache
from l2jax.data.formats import READ_ERRORS

CACHE = "l2jax.npz"
CACHE_VERSION = 1  # raise it when decoding, or the layout of the cache, changes


def data_root(data_dir: str | os.PathLike[str] | None) -> Path:
    """The folder that holds data sets: `data_dir`, else $TFDS_DATA_DIR, else ~/tensorflow_datasets, as in tfds."""
    return Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def find_prepared(name: str, root: Path) -> Path | None:
    """Finds the folder of a prepared data set.

    Reimplemented because importing tensorflow-datasets takes longer than loading the data.

    Args:
      name: NAME, NAME/CONFIG, NAME:VERSION or NAME/CONFIG:VERSION, as in "emnist/letters:3.*.*". Without a config it
        is the default one, without a version the highest.
      root: the folder that holds data sets.

    Returns:
      The folder of one version; None if the data set is not prepared.
    """
    match = re.fullmatch(r"(\w+)(?:/([\w.-]+))?(?::((?:(?:\d+|\*)\.){2}(?:\d+|\*)))?", name)
    if not match:
        return None
    base, config, version = match.groups()
    folder, default = root / base, root / base / ".config" / "metadata.json"
    with contextlib.suppress(*READ_ERRORS):
        if config or default.exists():
            folder /= config or json.loads(default.read_text())["default_config_name"]
        folders = [path.parent for path in folder.glob(f"{version or '*.*.*'}/dataset_info.json")]
        versions = [path for path in folders if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
        return max(versions, key=lambda path: [int(number) for number in path.name.split(".")], default=None)
    return None


def read_prepared(folder: Path) -> dict[str, Any]:
    """Reads a prepared data set, from the cache beside it if that belongs to the same files.

    Args:
      folder: folder of one version, such as ~/tensorflow_datasets/mnist/3.0.1, in array_record format.

    Returns:
      By name: num_classes, an int; images (N, H, W, C), uint8, and labels (N,), int64, of the split "train"; and
      test_images, test_labels, if there is a split "test".

    Raises:
      UnusableFileError: for damaged files, another format, or data that are not same-sized images with one class label
        each.
    """
    files = [(path.name, path.stat()) for path in sorted(folder.iterdir()) if CACHE not in path.name]
    fingerprint = json.dumps([CACHE_VERSION, [[name, stat.st_size, stat.st_mtime_ns] for name, stat in files]])
    arrays = read_cache(folder / CACHE, fingerprint)
    if arrays is None:
        from l2jax.data.tfds_decode import decode  # imports tfds, which takes longer than reading the cache

        arrays = decode(folder)
        write_cache(folder / CACHE, fingerprint, arrays)
    return arrays | {"num_classes": int(arrays["num_classes"])}
