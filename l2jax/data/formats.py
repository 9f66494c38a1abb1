"""Files that hold images and labels, read into arrays: IDX, as MNIST is published in, and NumPy's .npz."""

from __future__ import annotations

import gzip
import math
import zipfile
import zlib
from pathlib import Path

import numpy as np

from l2jax.errors import UnusableFileError, reason

# What damaged files make gzip, zipfile and NumPy raise; BadGzipFile is an OSError.
DAMAGE = (OSError, EOFError, ValueError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error)
KERAS_NAMES = {"x_train": "images", "y_train": "labels", "x_test": "test_images", "y_test": "test_labels"}


def read_idx(path: Path, option: str = "from") -> np.ndarray:
    """Reads an IDX file of bytes: 0 0 8 ndim, the sizes as big-endian uint32, the data.

    Args:
      path: the file, gzipped or not. Where it is missing, path.gz is read.
      option: the one to blame for a file that cannot be read.

    Returns:
      uint8, of the shape that the file tells.

    Raises:
      UnusableFileError: where there is no such file, or it is none of IDX, or not a whole one.
    """
    try:
        if not path.exists() and path.with_name(f"{path.name}.gz").exists():
            path = path.with_name(f"{path.name}.gz")
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
    except DAMAGE as error:
        raise UnusableFileError(option, path, reason(error)) from None
    num_dimensions = content[3] if len(content) > 3 else 0
    if content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * num_dimensions:
        raise UnusableFileError(option, path, "not an IDX file of bytes: these begin with 0 0 8 ndim and ndim sizes")
    shape = tuple(np.frombuffer(content, ">u4", num_dimensions, offset=4).tolist())
    data = content[4 + 4 * num_dimensions :]
    if len(data) != math.prod(shape):
        raise UnusableFileError(option, path, f"holds {len(data)} bytes of data instead of {math.prod(shape)}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def read_npz(path: Path, option: str = "dataset") -> dict[str, np.ndarray]:
    """Reads images and labels that `numpy.savez` wrote.

    Args:
      path: a .npz file with `images`, `labels` and, where there is a test part, `test_images`, `test_labels`,
        or the same as Keras names them, `x_train`, `y_train`, `x_test`, `y_test`; or a folder that holds one such
        file, or train.npz and test.npz, each with `images` and `labels`.
      option: the one to blame for a file that cannot be read.

    Returns:
      The arrays by name: images, labels, and test_images, test_labels where they are there.

    Raises:
      UnusableFileError: where there is no such file, it is damaged, its arrays are called otherwise, or one would have
        to be unpickled.
    """
    if not path.is_dir():
        return _members(path, option)
    files = sorted(path.glob("*.npz"))
    if [file.name for file in files] == ["test.npz", "train.npz"]:
        test, train = (_members(file, option) for file in files)
        return train | {f"test_{name}": test[name] for name in ("images", "labels")}
    if len(files) != 1:
        raise UnusableFileError(option, path, "holds neither train.npz and test.npz nor one .npz file alone")
    return _members(files[0], option)


def _members(path: Path, option: str) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as content:
            if not zipfile.is_zipfile(content):
                raise zipfile.BadZipFile("not a .npz file, or not a whole one")
            with np.load(content, allow_pickle=False) as file:
                given = {KERAS_NAMES.get(name, name): name for name in file}
                arrays = {name: file[given[name]] for name in KERAS_NAMES.values() if name in given}
    except DAMAGE as error:
        raise UnusableFileError(option, path, reason(error)) from None
    if not {"images", "labels"} <= set(arrays):
        names = ", ".join(given.values()) or "nothing"
        raise UnusableFileError(option, path, f"holds {names}, not images and labels, or x_train and y_train")
    return arrays
